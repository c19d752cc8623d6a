//! `limpet approve` in an author's clone.

use std::process::{Command, Output};

use crate::Bench;
use crate::repository::Key;

/// Runs it as the holder of `key`.
fn approve(bench: &Bench, key: &Key, arguments: &[&str]) -> Output {
    let repository = &bench.repository;
    repository.git(&["config", "gpg.format", "ssh"]);
    repository.git(&["config", "user.signingkey", key.file.to_str().unwrap()]);
    repository.git(&["config", "user.name", "Tess Ter"]);
    repository.git(&["config", "user.email", "tess@example.net"]);
    Command::new(env!("CARGO_BIN_EXE_limpet"))
        .arg("approve")
        .args(arguments)
        .current_dir(repository.work())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A repository that protects everything, and a change by alice.
fn bench() -> Bench {
    let mut bench = Bench::new();
    let text = format!(
        "version = 1\n[key]\nalice = \"{}\"\nbob = \"{}\"\n[root]\nkeys = [\"alice\", \"bob\"]\n[[protect]]\npaths = [\"**\"]\nthreshold = 2\n",
        bench.alice.public, bench.bob.public
    );
    bench.repository.write("trust.toml", &text);
    bench.anchor = bench.repository.commit(&bench.alice, "policy");
    bench.repository.write("layers/base/motd.toml", "");
    bench.repository.commit(&bench.alice, "say hello");
    bench
}

#[test]
fn an_approval_is_an_empty_commit_that_hosts_count() {
    let bench = bench();
    bench.check("HEAD", "pending", 75);
    let change = bench.repository.id("HEAD");
    // What is staged is not in it.
    bench.repository.write("layers/base/staged.toml", "");
    let output = approve(&bench, &bench.bob, &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("'say hello'"), "{}", said(&output));
    assert_eq!(bench.repository.id("HEAD~1"), change);
    assert_eq!(
        bench.repository.id("HEAD^{tree}"),
        bench.repository.id(&format!("{change}^{{tree}}"))
    );
    assert!(
        bench
            .repository
            .git(&["status", "--short"])
            .contains("staged.toml")
    );
    bench.accepts("HEAD");
}

#[test]
fn an_older_commit_is_approved_by_its_name() {
    let bench = bench();
    bench.repository.commit(&bench.alice, "nothing");
    let change = bench.repository.id("HEAD~1");
    assert!(
        approve(&bench, &bench.bob, &[&change[..10]])
            .status
            .success()
    );
    bench.accepts("HEAD");
}

#[test]
fn nobody_approves_what_they_signed_themselves() {
    let bench = bench();
    let before = bench.repository.id("HEAD");
    let output = approve(&bench, &bench.alice, &[]);
    assert_eq!(output.status.code(), Some(65));
    assert!(
        said(&output).contains("somebody else has to approve it"),
        "{}",
        said(&output)
    );
    assert_eq!(bench.repository.id("HEAD"), before);
}

#[test]
fn what_cannot_be_approved_is_named() {
    let bench = bench();
    bench.repository.commit_unsigned("by nobody");
    let output = approve(&bench, &bench.bob, &[]);
    assert!(said(&output).contains("is not signed"), "{}", said(&output));
    bench.repository.branch("other", &bench.anchor);
    let output = approve(&bench, &bench.bob, &["main~1"]);
    assert!(
        said(&output).contains("not in the history of HEAD"),
        "{}",
        said(&output)
    );
    let output = approve(&bench, &bench.bob, &["nonsense"]);
    assert_eq!(output.status.code(), Some(65));
}
