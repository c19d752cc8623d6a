//! The repository that `limpet init` writes.

use std::path::Path;
use std::process::Command;

use crate::repository::Repository;
use crate::tree::limpet;

fn init(directory: &Path, arguments: &[&str]) -> std::process::Output {
    let line: Vec<&str> = std::iter::once(&"init").chain(arguments).copied().collect();
    limpet(&line, directory)
}

#[test]
fn what_it_writes_has_no_mistakes() {
    let directory = tempfile::tempdir().unwrap();
    let output = init(directory.path(), &["our-fleet"]);
    assert!(output.status.success(), "{output:?}");
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r#"
    wrote the fleet 'our-fleet' to 'our-fleet': 16 files

    next:
      cd our-fleet
      limpet check                                              # it has no mistakes
      git init -b main
      git config gpg.format ssh                                 # commits are signed
      git config user.signingKey ~/.ssh/id_ed25519.pub          # with this key
      git config commit.gpgSign true                            # always
      echo "$(git config user.email) namespaces=\"git\" $(cut -d' ' -f1,2 ~/.ssh/id_ed25519.pub)" >>allowed_signers
      git add -A && git commit -m "first revision"
      git rev-parse HEAD                                        # the anchor: hosts are enrolled with it

    README.md says more about signing, merging, continuous integration and enrolling.
    "#);
    let fleet = directory.path().join("our-fleet");
    let checked = limpet(&["check"], &fleet);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let rendered = limpet(&["render", "--host", "x"], &fleet);
    let text = String::from_utf8(rendered.stdout).unwrap();
    assert!(text.contains("host x of fleet our-fleet"), "{text}");
    assert!(
        text.contains("| x is kept by limpet, from the repository of the fleet our-fleet."),
        "{text}"
    );
    assert!(!text.contains('@'), "{text}");
}

#[test]
fn nothing_is_overwritten_and_nothing_half_written() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("layers")).unwrap();
    std::fs::write(directory.path().join("fleet.toml"), "mine").unwrap();
    let output = init(directory.path(), &[]);
    assert_eq!(output.status.code(), Some(64));
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r"
    error: '.' has a fleet or parts of one already: fleet.toml, layers
    hint: nothing was written; name another directory: limpet init DIR
    ");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    assert_eq!(
        std::fs::read(directory.path().join("fleet.toml")).unwrap(),
        b"mine"
    );
}

#[test]
fn what_a_forge_made_is_kept() {
    let repository = Repository::new();
    repository.write("README.md", "ours\n");
    let output = init(&repository.work(), &["--name", "acme"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "kept README.md as it is\n"
    );
    let next = String::from_utf8(output.stdout).unwrap();
    assert!(
        !next.contains("git init") && !next.contains("README.md"),
        "{next}"
    );
    assert_eq!(
        std::fs::read(repository.work().join("README.md")).unwrap(),
        b"ours\n"
    );
}

#[test]
fn a_name_that_no_fleet_can_have_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let output = init(directory.path(), &["--name", "a b"]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn the_workflows_are_yaml_and_run_check_diff_and_verify() {
    let workflows = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/workflows");
    for name in ["github.yml", "gitlab.yml", "forgejo.yml"] {
        let text = std::fs::read_to_string(workflows.join(name)).unwrap();
        let documents = yaml_rust2::YamlLoader::load_from_str(&text).unwrap();
        assert_eq!(documents.len(), 1, "{name}");
        let mut strings = Vec::new();
        collect(&documents[0], &mut strings);
        for part in ["install", "check", "diff", "verify"] {
            let command = format!("ci/limpet {part}");
            assert!(
                strings.iter().any(|text| text.contains(&command)),
                "{name} does not run {command}"
            );
        }
        let root = &documents[0];
        let variables = if name == "gitlab.yml" {
            &root["variables"]
        } else {
            &root["env"]
        };
        for variable in ["LIMPET_DEB", "LIMPET_ANCHOR"] {
            assert_eq!(variables[variable].as_str(), Some(""), "{name}: {variable}");
        }
        // What comes from outside reaches a script by its environment, never by its text.
        for script in strings.iter().filter(|text| text.contains("ci/limpet")) {
            assert!(!script.contains("${{"), "{name}: {script}");
        }
    }
}

fn collect(yaml: &yaml_rust2::Yaml, strings: &mut Vec<String>) {
    use yaml_rust2::Yaml;
    match yaml {
        Yaml::String(text) => strings.push(text.clone()),
        Yaml::Array(values) => values.iter().for_each(|value| collect(value, strings)),
        Yaml::Hash(map) => map.values().for_each(|value| collect(value, strings)),
        _ => {}
    }
}

/// Runs the script of the starter with the program of this build.
fn ci(repository: &Repository, arguments: &[&str], anchor: &str) -> std::process::Output {
    let program = Path::new(env!("CARGO_BIN_EXE_limpet")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    Command::new(repository.work().join("ci/limpet"))
        .args(arguments)
        .env("PATH", path)
        .env("LIMPET_ANCHOR", anchor)
        .output()
        .unwrap()
}

#[test]
fn the_script_of_the_workflows_checks_compares_and_verifies() {
    let repository = Repository::new();
    assert!(init(&repository.work(), &[]).status.success());
    let key = repository.key("alice");
    let signers = std::fs::read_to_string(repository.work().join("allowed_signers")).unwrap();
    repository.write("allowed_signers", &format!("{signers}{}", key.allowed()));
    repository.git(&["add", "-A"]);
    let anchor = repository.commit(&key, "first revision");
    repository.branch("topic", "main");
    repository.write("layers/base/files/motd.j2", "hello\n");
    repository.commit(&key, "second");

    let checked = ci(&repository, &["check"], "");
    assert!(checked.status.success(), "{checked:?}");
    let compared = ci(&repository, &["diff", "main"], "");
    assert!(compared.status.success(), "{compared:?}");
    let comment = std::fs::read_to_string(repository.work().join("limpet-diff.md")).unwrap();
    assert!(
        comment.contains("`file:/etc/motd` **changed**"),
        "{comment}"
    );
    let verified = ci(&repository, &["verify"], &anchor);
    assert!(verified.status.success(), "{verified:?}");
    assert!(
        String::from_utf8_lossy(&verified.stdout).starts_with("accepted"),
        "{verified:?}"
    );

    repository.commit_unsigned("third");
    assert_eq!(
        ci(&repository, &["verify"], &anchor).status.code(),
        Some(77)
    );
    assert_eq!(ci(&repository, &["verify"], "").status.code(), Some(0));
    repository.write("layers/base/base.toml", "[fiel.x]\n");
    repository.commit_unsigned("fourth");
    assert_eq!(ci(&repository, &["check"], "").status.code(), Some(65));
    assert_eq!(
        ci(&repository, &["diff", "main"], "").status.code(),
        Some(65)
    );
}
