//! What `limpet diff` says about two revisions of a real repository.

use std::process::Output;

use insta::assert_snapshot;

use crate::repository::Repository;
use crate::tree::{FLEET, limpet};

const HOSTS: &str = "[host.web-1]\nfacts = { os = \"debian\" }\n[host.web-2]\nfacts = { os = \"debian\" }\n[host.db-1]\nfacts = { os = \"debian\" }\n";

const BASE: &str = "[package]\ncurl = \"installed\"\n[file.\"/etc/motd\"]\ncontent = \"one\\ntwo\\nthree\\n\"\n\
    [file.\"/etc/app.conf\"]\ncontent = \"a\\n\"\nmode = \"0600\"\n[unit.\"app.service\"]\nrunning = true\nrestart_on = [\"file:/etc/app.conf\"]\n";

/// A repository with one commit: three hosts with the layer base.
fn repository() -> Repository {
    let repository = Repository::new();
    repository.write("fleet.toml", FLEET);
    repository.write("inventory/hosts.toml", HOSTS);
    repository.write("layers/base/base.toml", BASE);
    repository.commit_unsigned("one");
    repository
}

fn diff(repository: &Repository, arguments: &[&str]) -> Output {
    let line: Vec<&str> = std::iter::once(&"diff").chain(arguments).copied().collect();
    limpet(&line, &repository.work())
}

/// What it prints, without the ids of commits, and its exit code.
fn told(output: &Output) -> String {
    let text = format!(
        "{}{}exit code {}\n",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        output.status.code().unwrap()
    );
    let id = regex_lite::Regex::new(r"\([0-9a-f]{7}\)").unwrap();
    id.replace_all(&text, "(<id>)").into_owned()
}

#[test]
fn hosts_with_the_same_change_are_told_together() {
    let repository = repository();
    repository.write(
        "layers/base/base.toml",
        &BASE.replace("two", "2").replace("curl", "vim").replace(
            "content = \"a\\n\"\nmode = \"0600\"",
            "content = \"b\\n\"\nmode = \"0640\"",
        ),
    );
    repository.write(
        "hosts/db-1/own.toml",
        "[directory.\"/srv/db\"]\nmode = \"0700\"\n",
    );
    repository.commit_unsigned("two");
    assert_snapshot!(told(&diff(&repository, &["HEAD~..HEAD"])), @r#"
    HEAD~ (<id>) → HEAD (<id>): all 3 hosts change

    2 hosts: web-1, web-2
      - package:curl
          no longer declared: what was there before limpet is put back, or it goes
      + package:vim
      ~ file:/etc/app.conf
          mode: "0600" → "0640"
          @@ -1 +1 @@
          -a
          +b
      ~ file:/etc/motd
          @@ -1,3 +1,3 @@
           one
          -two
          +2
           three
      > restart unit:app.service if it is active, because of file:/etc/app.conf

    1 host: db-1
      - package:curl
          no longer declared: what was there before limpet is put back, or it goes
      + package:vim
      ~ file:/etc/app.conf
          mode: "0600" → "0640"
          @@ -1 +1 @@
          -a
          +b
      ~ file:/etc/motd
          @@ -1,3 +1,3 @@
           one
          -two
          +2
           three
      + directory:/srv/db
          mode = "0700"
      > restart unit:app.service if it is active, because of file:/etc/app.conf
    exit code 2
    "#);
}

#[test]
fn revisions_are_named_as_for_git_diff() {
    let repository = repository();
    repository.branch("topic", "main");
    repository.write("layers/base/base.toml", &BASE.replace("two", "2"));
    repository.commit_unsigned("topic");
    repository.checkout("main");
    repository.write("layers/base/base.toml", &BASE.replace("three", "3"));
    repository.commit_unsigned("main");
    let changes = |range: &[&str]| {
        let text = told(&diff(&repository, range));
        let signs: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with(['+', '-']))
            .collect();
        signs.join(" ")
    };
    assert_eq!(changes(&["main..topic"]), "-two -3 +2 +three");
    assert_eq!(changes(&["main...topic"]), "-two +2");
    assert_eq!(changes(&["..topic"]), changes(&["HEAD..topic"]));
    assert_eq!(changes(&["topic.."]), changes(&["topic..main"]));
    assert_eq!(diff(&repository, &[]).status.code(), Some(0));
    repository.write("layers/base/base.toml", &BASE.replace("one", "1"));
    assert_eq!(changes(&[]), "-one +1 -3 +three");
    assert_eq!(changes(&["topic"]), "-one -2 +1 +two");
}

#[test]
fn a_revision_that_is_not_there_is_a_mistake_of_the_command_line() {
    let repository = repository();
    assert_snapshot!(told(&diff(&repository, &["nope..HEAD"])), @r"
    error: 'nope' is no commit of this repository
    hint: name a branch, a tag or a commit, as for git diff; what a remote has needs its name: origin/main
    exit code 64
    ");
    assert_snapshot!(told(&diff(&repository, &["0123456789012345678901234567890123456789..HEAD"])), @r#"
    error: '0123456789012345678901234567890123456789' is no commit of this repository
    hint: a shallow clone lacks the older commits: fetch them (fetch-depth: 0, GIT_DEPTH: "0", git fetch --unshallow)
    exit code 64
    "#);
}

#[test]
fn mistakes_of_the_newer_side_are_shown_as_check_shows_them() {
    let repository = repository();
    repository.write("hosts/web-1/own.toml", "[file.\"/a\"]\nsource = \"b\"\n");
    repository.write("layers/base/base.toml", &BASE.replace("two", "2"));
    repository.commit_unsigned("two");
    assert_snapshot!(told(&diff(&repository, &["HEAD~.."])), @r#"
    HEAD~ (<id>) → HEAD (<id>): all 2 hosts change

    2 hosts: db-1, web-2
      ~ file:/etc/motd
          @@ -1,3 +1,3 @@
           one
          -two
          +2
           three
    mistakes in HEAD (<id>):
    error: hosts/web-1/own.toml:2:10: source 'b' of file:/a is missing
      |
    2 | source = "b"
      |          ^^^ no file 'hosts/web-1/files/b'
    exit code 65
    "#);
}

#[test]
fn what_mends_a_mistake_is_no_mistake() {
    let repository = repository();
    repository.write("hosts/web-1/own.toml", "[file.\"/a\"]\nsource = \"b\"\n");
    repository.commit_unsigned("broken");
    repository.write("hosts/web-1/files/b", "b");
    repository.commit_unsigned("mended");
    assert_snapshot!(told(&diff(&repository, &["HEAD~.."])), @r#"
    HEAD~ (<id>) → HEAD (<id>): 1 of 3 hosts changes

    1 host: web-1
      could not be rendered before, and now can: what changes on it is not known
    mistakes in HEAD~ (<id>):
    error: hosts/web-1/own.toml:2:10: source 'b' of file:/a is missing
      |
    2 | source = "b"
      |          ^^^ no file 'hosts/web-1/files/b'
    exit code 2
    "#);
}

#[test]
fn a_host_may_come_and_go() {
    let repository = repository();
    repository.write("inventory/hosts.toml", &HOSTS.replace("web-1", "web-3"));
    repository.commit_unsigned("two");
    assert_snapshot!(told(&diff(&repository, &["HEAD~..", "--host", "web-3", "--host", "web-1"])), @r#"
    HEAD~ (<id>) → HEAD (<id>): all 2 hosts change

    1 host: web-1
      no longer in the inventory: as long as a rule fits its machine, it goes on with what that gives

    1 host: web-3
      new in the fleet: everything is added
      + package:curl
      + file:/etc/app.conf
          mode = "0600"
          @@ -0,0 +1 @@
          +a
      + file:/etc/motd
          @@ -0,0 +1,3 @@
          +one
          +two
          +three
      + unit:app.service
          restart_on = ["file:/etc/app.conf"]
          running = true
    exit code 2
    "#);
}

#[test]
fn the_first_fleet_of_a_repository_is_all_new() {
    let repository = Repository::new();
    repository.write("README", "x");
    repository.commit_unsigned("empty");
    repository.write("fleet.toml", FLEET);
    repository.write(
        "layers/base/base.toml",
        "[file.\"/etc/motd\"]\ncontent = \"x\\n\"\n",
    );
    repository.commit_unsigned("fleet");
    assert_snapshot!(told(&diff(&repository, &["HEAD~.."])), @r"
    HEAD~ (<id>) → HEAD (<id>): 1 host changes

    1 host: a host called 'any'
      new in the fleet: everything is added
      + file:/etc/motd
          @@ -0,0 +1 @@
          +x
    exit code 2
    ");
}

#[test]
fn moving_a_declaration_changes_nothing_but_who_declares_it() {
    let repository = repository();
    repository.write("layers/base/base.toml", "");
    repository.write(
        "layers/other/other.toml",
        &BASE.replace(
            "[unit.\"app",
            "[unit.\"ap2.service\"]\nrunning = true\n[unit.\"app",
        ),
    );
    repository.write(
        "fleet.toml",
        &FLEET.replace("\"base\"", "\"base\", \"other\""),
    );
    repository.commit_unsigned("two");
    assert_snapshot!(told(&diff(&repository, &["HEAD~.."])), @r"
    HEAD~ (<id>) → HEAD (<id>): all 3 hosts change

    3 hosts: db-1, web-1, web-2
      + unit:ap2.service
          running = true
    exit code 2
    ");
}

#[test]
fn an_encrypted_file_only_shows_that_it_differs() {
    let repository = repository();
    let layer = |text: &str| {
        repository.write("layers/base/files/s.age", text);
        repository.write(
            "layers/base/s.toml",
            "[file.\"/etc/s\"]\nsource = \"s.age\"\n",
        );
        repository.commit_unsigned("s");
    };
    layer("age-encryption.org/v1\n-> X25519 one\n");
    layer("age-encryption.org/v1\n-> X25519 two\n");
    let text = told(&diff(&repository, &["HEAD~.."]));
    assert!(
        text.contains("content: encrypted content differs"),
        "{text}"
    );
    assert!(!text.contains("X25519"), "{text}");
}

#[test]
fn of_what_is_fetched_the_address_and_the_hash_are_shown() {
    let repository = repository();
    let layer = |version: &str, digit: &str| {
        let hash = digit.repeat(64);
        repository.write(
            "layers/base/s.toml",
            &format!("[file.\"/opt/s\"]\nurl = \"https://a.example/{version}.tar\"\nsha256 = \"{hash}\"\nunpack = true\n"),
        );
        repository.commit_unsigned("s");
    };
    layer("1", "a");
    layer("2", "b");
    let text = told(&diff(&repository, &["HEAD~.."]));
    for line in [
        "-(from https://a.example/1.tar)",
        "+(from https://a.example/2.tar)",
    ] {
        assert!(text.contains(line), "{text}");
    }
    // Built anew, and put in the same place.
    layer("2", "c");
    let text = told(&diff(&repository, &["HEAD~.."]));
    for (sign, digit) in [("-", "b"), ("+", "c")] {
        let line = format!("{sign}(SHA-256 {})", digit.repeat(64));
        assert!(text.contains(&line), "{text}");
    }
}

#[test]
fn many_removals_are_warned_of() {
    let repository = repository();
    let files: String = (0..11)
        .map(|n| format!("[file.\"/srv/{n}\"]\ncontent = \"\"\n"))
        .collect();
    repository.write("layers/base/many.toml", &files);
    repository.commit_unsigned("many");
    repository.remove("layers/base/many.toml");
    repository.commit_unsigned("none");
    let text = told(&diff(&repository, &["HEAD~.."]));
    assert!(
        text.contains("  ! up to 11 removals are more than the usual max_removals = 10"),
        "{text}"
    );
}

#[test]
fn markdown_holds_whatever_the_repository_says() {
    let repository = repository();
    repository.write(
        "layers/base/base.toml",
        &BASE
            .replace("two", "```\\n</details> @all <b>")
            .replace("[file.\"/etc/motd\"]", "[file.\"/etc/`motd\"]"),
    );
    repository.commit_unsigned("two");
    assert_snapshot!(told(&diff(&repository, &["HEAD~..", "--markdown"])), @r"
    ### limpet: all 3 hosts change

    `HEAD~ (<id>)` → `HEAD (<id>)`

    #### 3 hosts: `db-1`, `web-1`, `web-2`

    `+` ``file:/etc/`motd`` **added**

    ````diff
    @@ -0,0 +1,4 @@
    +one
    +```
    +</details> @all <b>
    +three
    ````

    `-` `file:/etc/motd` **removed** (no longer declared: what was there before limpet is put back, or it goes)

    ```diff
    @@ -1,3 +0,0 @@
    -one
    -two
    -three
    ```
    exit code 2
    ");
}

#[test]
fn markdown_fits_in_a_comment_and_says_what_is_left_out() {
    let repository = repository();
    let files: String = (0..2000)
        .map(|n| format!("[file.\"/srv/file-{n}\"]\ncontent = \"this is file {n}\\n\"\n"))
        .collect();
    repository.write("layers/base/many.toml", &files);
    repository.commit_unsigned("many");
    let text = String::from_utf8(diff(&repository, &["HEAD~..", "--markdown"]).stdout).unwrap();
    let length = text.chars().count();
    assert!(length <= 65_000, "{length}");
    assert!(length > 50_000, "{length}");
    assert!(
        text.trim_end().ends_with("Run `limpet diff` to see all."),
        "{}",
        &text[text.len() - 200..]
    );
    assert_eq!(text.matches("```").count() % 2, 0);
}

#[test]
fn json_is_one_object() {
    let repository = repository();
    repository.write(
        "layers/base/base.toml",
        &BASE.replace("\"0600\"", "\"0640\""),
    );
    repository.commit_unsigned("two");
    let output = diff(&repository, &["HEAD~..", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["groups"][0]["hosts"].as_array().unwrap().len(), 3);
    let change = &object["groups"][0]["changes"][0];
    assert_eq!(change["resource"], "file:/etc/app.conf");
    assert_eq!(
        change["fields"]["mode"],
        serde_json::json!({ "before": "0600", "after": "0640" })
    );
    assert_eq!(
        object["groups"][0]["restarts"][0]["unit"],
        "unit:app.service"
    );
}

#[test]
fn a_directory_of_the_repository_can_hold_the_fleet() {
    let repository = Repository::new();
    repository.write("fleets/edge/fleet.toml", FLEET);
    repository.write(
        "fleets/edge/layers/base/base.toml",
        "[file.\"/a\"]\ncontent = \"1\"\n",
    );
    repository.commit_unsigned("one");
    repository.write(
        "fleets/edge/layers/base/base.toml",
        "[file.\"/a\"]\ncontent = \"2\"\n",
    );
    for arguments in [&["HEAD", "fleets/edge"][..], &["fleets/edge"]] {
        let output = diff(&repository, arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

#[test]
fn a_mistake_that_only_a_new_host_would_meet_is_shown() {
    let repository = Repository::new();
    repository.write("fleet.toml", FLEET);
    repository.write("layers/base/base.toml", "[file.\"/a\"]\ncontent = \"\"\n");
    repository.commit_unsigned("one");
    repository.write("layers/base/base.toml", "[fiel.\"/a\"]\n");
    repository.commit_unsigned("two");
    assert_eq!(diff(&repository, &["HEAD~.."]).status.code(), Some(65));
    repository.write(
        "layers/base/base.toml",
        "[file.\"/a\"]\ntemplate = true\ncontent = \"{{ ip }}\"\n",
    );
    repository.commit_unsigned("three");
    repository.write("layers/base/more.toml", "[file.\"/b\"]\ncontent = \"\"\n");
    repository.commit_unsigned("four");
    assert_eq!(diff(&repository, &["HEAD~.."]).status.code(), Some(0));
}

#[test]
fn histories_part_where_git_says() {
    let repository = repository();
    let tree = repository.id("HEAD^{tree}");
    // All claim the same time, and merges cross.
    let mut commits = vec![repository.id("HEAD")];
    for number in 1..16_usize {
        let parents = [number * 7 / 11, (number * number * 5 + 3) % number];
        let mut line = vec![
            "commit-tree".to_owned(),
            tree.clone(),
            "-m".to_owned(),
            number.to_string(),
        ];
        for parent in parents.iter().collect::<std::collections::BTreeSet<_>>() {
            line.extend(["-p".to_owned(), commits[(*parent).min(number - 1)].clone()]);
        }
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        commits.push(repository.git(&line));
    }
    let opened = limpet::git::repository::Repository::open(&repository.work()).unwrap();
    for one in &commits {
        for other in &commits {
            let expected = repository.git(&["merge-base", "--all", one, other]);
            let ids = (opened.resolve(one).unwrap(), opened.resolve(other).unwrap());
            let found = limpet::trust::browse::merge_base(&opened, ids.0, ids.1)
                .unwrap()
                .unwrap()
                .to_string();
            assert!(
                expected.lines().any(|id| id == found),
                "{one} {other}: {found} instead of {expected}"
            );
        }
    }
}
