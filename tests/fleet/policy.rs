//! What `limpet check` says of trust.toml: its mistakes, what it lets files declare, and what hosts will say to a change of it.

use insta::assert_snapshot;

use crate::repository::{Key, Repository};
use crate::tree::{FLEET, WorkTree, limpet};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIELBddIbDKaw8jB2mqEJ6l5ehy13uptw4Jzb0I3EebX4";

fn policy(rules: &str) -> String {
    format!("version = 1\n[key]\nalice = \"{KEY}\"\n[root]\nkeys = [\"alice\"]\n{rules}")
}

/// What is said of a layer `image.toml` under a limit to `resources`.
fn limited(resources: &str, layer: &str) -> String {
    let limit =
        format!("[[limit]]\npaths = [\"layers/base/image.toml\"]\nresources = {resources}\n");
    let tree = WorkTree::new(&[
        ("trust.toml", &policy(&limit)),
        ("layers/base/image.toml", layer),
        (
            "layers/base/other.toml",
            "[package]\ncurl = \"installed\"\n",
        ),
    ]);
    String::from_utf8(tree.check().stderr).unwrap()
}

#[test]
fn a_file_declares_no_more_than_its_limit_says() {
    assert_snapshot!(limited(r#"["vars"]"#, "[vars]\nimage = \"v1\"\n"), @"checked 1 host, 1 layer: no mistakes");
    assert_snapshot!(limited(r#"["vars"]"#, "[package]\nvim = \"installed\"\n"), @r#"
    error: layers/base/image.toml:2:1: 'layers/base/image.toml' may declare only vars, not package:vim
      |
    2 | vim = "installed"
      | ^^^
      |
    note: trust.toml:6:1: limited here
      |
    6 | [[limit]]
      | ^^^^^^^^^
    hint: declare it in a file without that limit, or let a root key widen it
    "#);
    assert_snapshot!(limited(r#"["package:*", "file:/srv/kiosk/**"]"#, "[package]\nvim = \"installed\"\n[file.\"/srv/kiosk/a/b\"]\ncontent = \"x\"\n"), @"checked 1 host, 1 layer: no mistakes");
    assert_snapshot!(limited(r#"["file:/srv/kiosk/*"]"#, "[file.\"/srv/kiosk/a/b\"]\ncontent = \"x\"\n"), @r#"
    error: layers/base/image.toml:1:7: 'layers/base/image.toml' may declare only file:/srv/kiosk/*, not file:/srv/kiosk/a/b
      |
    1 | [file."/srv/kiosk/a/b"]
      |       ^^^^^^^^^^^^^^^^
      |
    note: trust.toml:6:1: limited here
      |
    6 | [[limit]]
      | ^^^^^^^^^
    hint: declare it in a file without that limit, or let a root key widen it
    "#);
    assert_snapshot!(limited(r#"["package:*"]"#, "[vars]\na = 1\n[layer]\nuse = [\"more\"]\n"), @r"
    error: layers/base/image.toml:1:2: 'layers/base/image.toml' may declare only package:*, not [vars]
      |
    1 | [vars]
      |  ^^^^
      |
    note: trust.toml:6:1: limited here
      |
    6 | [[limit]]
      | ^^^^^^^^^
    hint: declare it in a file without that limit, or let a root key widen it
    error: layers/base/image.toml:3:2: 'layers/base/image.toml' may declare only package:*, not [layer]
      |
    3 | [layer]
      |  ^^^^^
      |
    note: trust.toml:6:1: limited here
      |
    6 | [[limit]]
      | ^^^^^^^^^
    hint: declare it in a file without that limit, or let a root key widen it
    ");
    assert_snapshot!(limited("[]", "[vars]\na = 1\n"), @r"
    error: layers/base/image.toml:1:2: 'layers/base/image.toml' may declare nothing, not [vars]
      |
    1 | [vars]
      |  ^^^^
      |
    note: trust.toml:6:1: limited here
      |
    6 | [[limit]]
      | ^^^^^^^^^
    hint: declare it in a file without that limit, or let a root key widen it
    ");
}

#[test]
fn taking_a_declaration_back_is_declaring() {
    assert_snapshot!(limited(r#"["vars"]"#, "[package]\ncurl = { undeclare = true }\n"), @r#"
    error: layers/base/image.toml:2:1: 'layers/base/image.toml' may declare only vars, not package:curl
      |
    2 | curl = { undeclare = true }
      | ^^^^
      |
    note: trust.toml:6:1: limited here
      |
    6 | [[limit]]
      | ^^^^^^^^^
    hint: declare it in a file without that limit, or let a root key widen it
    error: layers/base/other.toml:2:1: key 'curl' is set twice
      |
    2 | curl = "installed"
      | ^^^^
      |
    note: layers/base/image.toml:2:1: first set here
      |
    2 | curl = { undeclare = true }
      | ^^^^
    "#);
}

#[test]
fn a_limited_variable_is_one_line() {
    assert_snapshot!(limited(r#"["vars"]"#, "[vars]\nimage = \"v1\\nExecStart=/bin/sh\"\n[vars.deep]\nlist = [\"a\\tb\"]\n"), @r#"
    error: layers/base/image.toml:2:9: this variable has a control character
      |
    2 | image = "v1\nExecStart=/bin/sh"
      |         ^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: a file with a limit may set variables of one line only
    error: layers/base/image.toml:4:8: this variable has a control character
      |
    4 | list = ["a\tb"]
      |        ^^^^^^^^
      |
    hint: a file with a limit may set variables of one line only
    "#);
}

#[test]
fn a_policy_with_mistakes_is_told_whole() {
    let tree = WorkTree::new(&[(
        "trust.toml",
        "version = 0\n[key]\nalice = \"ssh-ed25519 AAAA\"\n[root]\nkeys = [\"bob\"]\n[[protect]]\npaths = [\"/x\"]\n",
    )]);
    assert_snapshot!(tree.mistakes(), @r#"
    error: trust.toml:1:11: '0' is no version
      |
    1 | version = 0
      |           ^
      |
    hint: count its changes, from 1
    error: trust.toml:3:9: the key of 'alice' does not count: the key is malformed: it ends too early
      |
    3 | alice = "ssh-ed25519 AAAA"
      |         ^^^^^^^^^^^^^^^^^^
      |
    hint: copy it from the .pub file that ssh-keygen made: "ssh-ed25519 AAAA…"; or write "openpgp " and what gpg --export KEY | base64 -w0 prints
    error: trust.toml:5:9: trust.toml has no key 'bob'
      |
    5 | keys = ["bob"]
      |         ^^^^^
    error: trust.toml:6:1: missing field `threshold` in [[protect]]
      |
    6 | [[protect]]
      | ^^^^^^^^^^^
      |
    hint: say how many keys must sign a change: threshold = 2
    error: trust.toml:7:10: '/x' is no path below trust.toml's directory
      |
    7 | paths = ["/x"]
      |          ^^^^
      |
    hint: write it without a leading slash, and without '.' or '..': "layers/base/**"
    "#);
}

fn write_policy(repository: &Repository, version: u32, alice: &Key, rules: &str) {
    let public = &alice.public;
    let text = format!(
        "version = {version}\n[key]\nalice = \"{public}\"\n[root]\nkeys = [\"alice\"]\n{rules}"
    );
    repository.write("trust.toml", &text);
}

#[test]
fn a_change_of_the_policy_is_judged_before_it_is_signed() {
    let repository = Repository::new();
    let alice = repository.key("alice");
    repository.write("fleet.toml", FLEET);
    repository.write("layers/base/base.toml", "");
    let check = || {
        let output = limpet(&["check", "."], &repository.work());
        String::from_utf8(output.stderr).unwrap()
    };
    write_policy(&repository, 3, &alice, "");
    assert_snapshot!(check(), @r"
    note: fleet.toml:4:1: this rule fits no known host: rendered for a host called 'any'
    error: trust.toml:1:1: the first policy has version 1, not 3
    hint: correct trust.toml and amend the commit; 'limpet check' says beforehand what hosts will say
    ");
    write_policy(&repository, 1, &alice, "");
    assert_snapshot!(check(), @r"
    note: fleet.toml:4:1: this rule fits no known host: rendered for a host called 'any'
    checked 0 hosts and 1 imaginary host, 1 layer: no mistakes
    ");
    repository.commit(&alice, "policy");
    write_policy(
        &repository,
        1,
        &alice,
        "[[revoked]]\nkey = \"SHA256:MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA\"\nreason = \"compromised\"\n",
    );
    assert_snapshot!(check(), @r"
    note: fleet.toml:4:1: this rule fits no known host: rendered for a host called 'any'
    error: trust.toml:1:1: a changed policy counts on: version 2 follows 1, not 1
    hint: correct trust.toml and amend the commit; 'limpet check' says beforehand what hosts will say
    ");
    write_policy(
        &repository,
        2,
        &alice,
        "[[revoked]]\nkey = \"SHA256:MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA\"\nreason = \"compromised\"\n",
    );
    assert_snapshot!(check(), @r"
    note: fleet.toml:4:1: this rule fits no known host: rendered for a host called 'any'
    checked 0 hosts and 1 imaginary host, 1 layer: no mistakes
    ");
    repository.commit(&alice, "revoke");
    write_policy(&repository, 3, &alice, "");
    assert_snapshot!(check(), @r"
    note: fleet.toml:4:1: this rule fits no known host: rendered for a host called 'any'
    error: trust.toml:1:1: the revocation of 'SHA256:MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA' (compromised) is never taken back
    hint: correct trust.toml and amend the commit; 'limpet check' says beforehand what hosts will say
    ");
    // What was committed a moment ago is judged as well: a pull request's head.
    repository.commit(&alice, "take it back");
    assert_snapshot!(check(), @r"
    note: fleet.toml:4:1: this rule fits no known host: rendered for a host called 'any'
    error: trust.toml:1:1: the revocation of 'SHA256:MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA' (compromised) is never taken back
    hint: correct trust.toml and amend the commit; 'limpet check' says beforehand what hosts will say
    ");
    repository.reset("HEAD~1");
    repository.remove("trust.toml");
    assert_snapshot!(check(), @r"
    note: fleet.toml:4:1: this rule fits no known host: rendered for a host called 'any'
    error: 'trust.toml' is removed, and hosts refuse that
    hint: put it back: from the first policy on, there is one
    ");
    write_policy(
        &repository,
        3,
        &alice,
        "[[revoked]]\nkey = \"SHA256:MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA\"\nreason = \"compromised\"\n[[revoked]]\nkey = \"alice\"\nreason = \"retired\"\n",
    );
    assert_snapshot!(check(), @r"
    note: fleet.toml:4:1: this rule fits no known host: rendered for a host called 'any'
    error: trust.toml:4:2: it asks for 1 signer, and 0 of its keys can sign
    hint: a key counts until it expires or is revoked, and for [root] once it has signed a commit: add it first, let it sign, then ask for it
    ");
}
