//! What `limpet check` looks at, and what it says about it.

use std::process::Output;

use insta::assert_snapshot;

use crate::tree::{FLEET, WorkTree, limpet};

/// Rules that no known host fits, but for the first.
fn with_rules(rules: &str) -> String {
    format!("{FLEET}\n{rules}")
}

/// What `limpet check` says on stderr about a tree of `files`, with its exit code.
fn check(files: &[(&str, &str)]) -> String {
    said(&WorkTree::new(files).check())
}

fn said(output: &Output) -> String {
    format!(
        "{}exit code {}\n",
        String::from_utf8_lossy(&output.stderr),
        output.status.code().unwrap()
    )
}

const NOBODY: (&str, &str) = ("inventory/hosts.toml", "");

#[test]
fn a_fleet_without_hosts_is_rendered_for_an_imaginary_one() {
    assert_snapshot!(check(&[
        NOBODY,
        ("layers/base/base.toml", "[file.\"/etc/motd\"]\ncontent = \"x\"\n"),
    ]), @r#"
    note: fleet.toml:4:1: this rule fits no known host: rendered for a host called 'any'
    checked 0 hosts and 1 imaginary host, 1 layer: no mistakes
    exit code 0
    "#);
    assert_snapshot!(check(&[
        NOBODY,
        ("layers/base/base.toml", "[file.\"/etc/motd\"]\nsource = \"motd\"\n[file.\"/etc/issue\"]\ntemplate = true\ncontent = \"{{ nope }}\"\n"),
    ]), @r#"
    note: fleet.toml:4:1: this rule fits no known host: rendered for a host called 'any'
    error: layers/base/base.toml:2:10: source 'motd' of file:/etc/motd is missing
      |
    2 | source = "motd"
      |          ^^^^^^ no file 'layers/base/files/motd'
    note: for a host called 'any'
    error: layers/base/base.toml:5:15: undefined name 'nope' in template
      |
    5 | content = "{{ nope }}"
      |               ^^^^
      |
    hint: set it under [vars] of a layer, or use one of: host, hosts
    note: for a host called 'any'
    exit code 65
    "#);
}

#[test]
fn every_mistake_that_a_new_host_would_meet_is_found() {
    let tree = WorkTree::new(&[
        NOBODY,
        (
            "layers/base/base.toml",
            "[file.\"/etc/motd\"]\nsource = \"motd\"\n",
        ),
    ]);
    let rendered = limpet(&["render", "--host", "any"], tree.path());
    assert_eq!(rendered.status.code(), Some(65));
    assert_eq!(tree.check().status.code(), Some(65));
}

#[test]
fn each_rule_without_a_known_host_gets_an_imaginary_one_that_fits_it() {
    let rules = "[[match]]\nhosts = [\"web-*\"]\nlayers = [\"web\"]\n\
                 [[match]]\nlabels = { site = \"lagos\" }\nlayers = [\"lagos\"]\n\
                 [[match]]\nfacts = { family = \"rhel\" }\nlayers = [\"rhel\"]\n";
    assert_snapshot!(check(&[
        ("fleet.toml", &with_rules(rules)),
        ("layers/base/base.toml", ""),
        ("layers/web/web.toml", "[file.\"/a\"]\ntemplate = true\ncontent = \"{{ host.name }} {{ web }}\"\n"),
        ("layers/lagos/lagos.toml", "[file.\"/b\"]\ntemplate = true\ncontent = \"{{ host.labels.site }} {{ lagos }}\"\n"),
        ("layers/rhel/rhel.toml", "[file.\"/c\"]\ntemplate = true\ncontent = \"{{ host.facts.os_version }} {{ rhel }}\"\n"),
    ]), @r#"
    note: fleet.toml:8:1: this rule fits no known host: rendered for a host called 'web-any'
    note: fleet.toml:11:1: this rule fits no known host: rendered for a host called 'any' with site = "lagos"
    note: fleet.toml:14:1: this rule fits no known host: rendered for a host called 'any' with family = "rhel"
    error: layers/web/web.toml:3:31: undefined name 'web' in template
      |
    3 | content = "{{ host.name }} {{ web }}"
      |                               ^^^
      |
    hint: set it under [vars] of a layer, or use one of: host, hosts
    note: for a host called 'web-any'
    error: layers/lagos/lagos.toml:3:38: undefined name 'lagos' in template
      |
    3 | content = "{{ host.labels.site }} {{ lagos }}"
      |                                      ^^^^^
      |
    hint: set it under [vars] of a layer, or use one of: host, hosts
    note: for a host called 'any' with site = "lagos"
    error: layers/rhel/rhel.toml:3:43: undefined name 'rhel' in template
      |
    3 | content = "{{ host.facts.os_version }} {{ rhel }}"
      |                                           ^^^^
      |
    hint: set it under [vars] of a layer, or use one of: host, hosts
    note: for a host called 'any' with family = "rhel"
    exit code 65
    "#);
}

#[test]
fn a_mistake_in_a_layer_of_many_hosts_is_told_once() {
    let rules = "[[match]]\nhosts = [\"web-*\"]\nlayers = [\"base\"]\n\
                 [[match]]\nlabels = { site = \"lagos\" }\nlayers = [\"base\"]\n";
    assert_snapshot!(check(&[
        NOBODY,
        ("fleet.toml", &with_rules(rules)),
        ("layers/base/base.toml", "[file.\"/etc/motd\"]\nsource = \"motd\"\n"),
    ]), @r#"
    note: fleet.toml:4:1: this rule fits no known host: rendered for a host called 'any'
    note: fleet.toml:8:1: this rule fits no known host: rendered for a host called 'web-any'
    note: fleet.toml:11:1: this rule fits no known host: rendered for a host called 'any' with site = "lagos"
    error: layers/base/base.toml:2:10: source 'motd' of file:/etc/motd is missing
      |
    2 | source = "motd"
      |          ^^^^^^ no file 'layers/base/files/motd'
    note: for a host called 'any'
    exit code 65
    "#);
}

#[test]
fn what_only_the_inventory_knows_is_no_mistake_of_a_rule_for_new_hosts() {
    let inventory = "[host.gw]\nvars = { ip = \"10.0.0.1\" }\n";
    let rules = "[[match]]\nlabels = { role = \"db\" }\nlayers = [\"db\"]\n";
    let base = "[file.\"/etc/ip\"]\ntemplate = true\ncontent = \"{{ ip }}\"\n";
    assert_snapshot!(check(&[
        ("fleet.toml", &with_rules(rules)),
        ("inventory/hosts.toml", inventory),
        ("layers/base/base.toml", base),
        ("layers/db/db.toml", "[directory.\"/srv/db\"]\n"),
    ]), @r#"
    note: fleet.toml:8:1: this rule fits no known host: rendered for a host called 'any' with role = "db"
    note: for a host called 'any' with role = "db": layers/base/base.toml:3:15: undefined name 'ip' in template; known hosts have this layer without a mistake: add such a host to the inventory to check it
    checked 1 host and 1 imaginary host, 2 layers: no mistakes
    exit code 0
    "#);
}

#[test]
fn what_the_inventory_would_know_hides_no_other_mistake() {
    let said = check(&[
        (
            "fleet.toml",
            &with_rules("[[match]]\nlabels = { role = \"db\" }\nlayers = [\"db\"]\n"),
        ),
        (
            "inventory/hosts.toml",
            "[host.gw]\nvars = { ip = \"10.0.0.1\" }\n",
        ),
        (
            "layers/base/base.toml",
            "[file.\"/etc/ip\"]\ntemplate = true\ncontent = \"{{ ip }}\"\n",
        ),
        ("layers/db/db.toml", "[file.\"/etc/db\"]\nsource = \"db\"\n"),
    ]);
    assert!(
        said.contains("error: layers/db/db.toml:2:10: source 'db'"),
        "{said}"
    );
    assert!(said.ends_with("exit code 65\n"), "{said}");
}

#[test]
fn a_rule_that_names_a_missing_layer_is_found_without_a_host() {
    let rules = "[[match]]\nhosts = [\"web-*\"]\nlayers = [\"wbe\"]\n";
    assert_snapshot!(check(&[
        ("fleet.toml", &with_rules(rules)),
        ("layers/base/base.toml", ""),
        ("layers/web/web.toml", ""),
    ]), @r#"
    note: fleet.toml:8:1: this rule fits no known host: rendered for a host called 'web-any'
    error: fleet.toml:10:11: no layer 'wbe'
       |
    10 | layers = ["wbe"]
       |           ^^^^^ no TOML file in layers/wbe/
       |
    hint: did you mean 'web'?
    note: for a host called 'web-any'
    exit code 65
    "#);
}

#[test]
fn what_nobody_has_is_noted() {
    let rules = "[[match]]\nhosts = [\"gw\"]\nfacts = { os = \"fedora\" }\nlayers = [\"base\"]\n";
    assert_snapshot!(check(&[
        ("fleet.toml", &with_rules(rules)),
        ("layers/base/base.toml", ""),
        ("layers/unused/unused.toml", ""),
    ]), @r#"
    note: fleet.toml:8:1: this rule fits no known host, and none could be imagined: what it gives is not rendered
    note: layer 'unused' is parsed but not rendered: no host that was rendered has it
    checked 1 host, 2 layers: no mistakes
    exit code 0
    "#);
}

#[test]
fn a_layer_that_nobody_has_is_parsed() {
    assert_snapshot!(check(&[
        ("layers/base/base.toml", ""),
        ("layers/unused/unused.toml", "[fiel.\"/a\"]\n"),
    ]), @r#"
    error: layers/unused/unused.toml:1:2: unknown kind `fiel`
      |
    1 | [fiel."/a"]
      |  ^^^^ no such kind
      |
    hint: did you mean 'file'?
    exit code 65
    "#);
}

#[test]
fn digests_are_those_of_known_hosts() {
    let tree = WorkTree::new(&[NOBODY, ("layers/base/base.toml", "")]);
    let output = limpet(&["check", "--digests"], tree.path());
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn what_is_rendered_once_for_many_hosts_is_what_each_renders() {
    let host = |name: &str, vars: &str| {
        format!("[host.{name}]\nfacts = {{ family = \"debian\" }}\nvars = {{ {vars} }}\n")
    };
    // Told apart only by what they print, by a name that only one has, or by who is asked.
    let inventory = [
        host("one", "number = 1"),
        host("two", "number = 1.0"),
        host("three", "number = true"),
        host("four", "number = 1"),
        host("five", "number = 1, extra = \"x\""),
        host("six", "number = 1, extra = [\"x\"]"),
    ]
    .concat();
    let layer = "[file.\"/a\"]\ntemplate = true\ncontent = \"{{ number }}\"\n\
        [file.\"/b\"]\ntemplate = true\ncontent = \"{% if extra is defined %}{% set number = extra %}{% endif %}{{ number }}\"\n\
        [file.\"/c\"]\ntemplate = true\ncontent = \"{{ host.name }} of {{ hosts | length }}\"\n\
        [file.\"/d\"]\ntemplate = true\ncontent = \"{% for h in hosts %}{{ h.name }}={{ h.vars.number }} {% endfor %}\"\n";
    let tree = WorkTree::new(&[
        NOBODY,
        ("inventory/all.toml", &inventory),
        ("layers/base/base.toml", layer),
    ]);
    let output = limpet(&["check", "--digests"], tree.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let digests = String::from_utf8(output.stdout).unwrap();
    let distinct: std::collections::BTreeSet<&str> = digests.lines().collect();
    assert_eq!(distinct.len(), 6);
    for line in digests.lines() {
        let (name, digest) = line.split_once(' ').unwrap();
        let output = limpet(&["render", "--host", name, "--json"], tree.path());
        let rendered: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(rendered["digest"], digest, "{name}");
    }
}

#[test]
fn mistakes_are_told_to_programs_in_their_formats() {
    let tree = WorkTree::new(&[
        ("sub/fleet.toml", FLEET),
        (
            "sub/layers/base/base.toml",
            "[file.\"/etc/motd\"]\nowmer = \"root\"\n",
        ),
    ]);
    let check = |format: &str| {
        let output = limpet(&["check", "--format", format, "sub"], tree.path());
        assert_eq!(output.status.code(), Some(65));
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("1 | [file")
                || !output.stderr.is_empty()
        );
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(check("human"), "");
    assert_snapshot!(check("github"), @r"
    ::error file=sub/layers/base/base.toml,line=2,col=1,title=limpet check::unknown field `owmer` in file:/etc/motd, expected `owner`%0Ahint: did you mean 'owner'?
    ::notice title=limpet check::fleet.toml:4:1: this rule fits no known host: rendered for a host called 'any'
    ");
    assert_snapshot!(check("json"), @r#"
    {
      "digests": {},
      "hosts": 0,
      "imaginary": 1,
      "layers": [
        "base"
      ],
      "mistakes": [
        {
          "class": "author",
          "hint": "did you mean 'owner'?",
          "location": {
            "column": 1,
            "file": "layers/base/base.toml",
            "line": 2
          },
          "message": "unknown field `owmer` in file:/etc/motd, expected `owner`",
          "resource": null
        }
      ],
      "notes": [
        "fleet.toml:4:1: this rule fits no known host: rendered for a host called 'any'"
      ]
    }
    "#);
    let sarif: serde_json::Value = serde_json::from_str(&check("sarif")).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    let rule = &run["tool"]["driver"]["rules"][0];
    let result = &run["results"][0];
    assert_eq!(result["ruleId"], rule["id"]);
    assert_eq!(result["ruleIndex"], 0);
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(
        place["artifactLocation"]["uri"],
        "sub/layers/base/base.toml"
    );
    assert_eq!(
        place["region"],
        serde_json::json!({ "startLine": 2, "startColumn": 1 })
    );
    assert!(
        result["message"]["text"]
            .as_str()
            .unwrap()
            .starts_with("unknown field `owmer`")
    );
}

#[test]
fn a_fleet_without_mistakes_is_an_empty_report() {
    let tree = WorkTree::new(&[("layers/base/base.toml", "")]);
    let output = limpet(&["check", "--format", "sarif"], tree.path());
    assert_eq!(output.status.code(), Some(0));
    let sarif: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(sarif["runs"][0]["results"], serde_json::json!([]));
    let output = limpet(&["check", "--format", "json"], tree.path());
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["mistakes"], serde_json::json!([]));
    assert_eq!(object["digests"].as_object().unwrap().len(), 1);
}
