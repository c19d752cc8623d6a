//! Which commits: paths, merges, and history that goes back or elsewhere.

use std::process::Command;

use crate::Bench;
use crate::repository::Repository;

#[test]
fn the_trusted_revision_itself_is_accepted() {
    let mut bench = Bench::new();
    bench.accepts("HEAD");
    let anchor = bench.anchor.clone();
    bench.trust(&anchor);
    bench.accepts("HEAD");
}

#[test]
fn every_commit_on_the_way_must_be_signed() {
    let bench = Bench::new();
    let unsigned = bench.repository.commit_unsigned("quick fix");
    bench.refuses("HEAD", "unsigned");
    bench.repository.commit(&bench.alice, "on top of it");
    let answer = bench.refuses("HEAD", "unsigned");
    assert_eq!(answer.text("commit"), unsigned);
}

#[test]
fn in_head_mode_only_the_tip_must_be_signed() {
    let mut bench = Bench::new();
    bench.options = vec!["--mode".into(), "head".into()];
    bench.repository.commit_unsigned("quick fix");
    bench.refuses("HEAD", "unsigned");
    bench.repository.commit(&bench.alice, "on top of it");
    bench.accepts("HEAD");
}

#[test]
fn a_signed_merge_vouches_for_its_other_parents() {
    let bench = Bench::new();
    bench.repository.branch("feature", "main");
    bench.repository.write("a", "1");
    bench.repository.commit_unsigned("by a guest");
    bench.repository.checkout("main");
    bench.repository.write("b", "1");
    bench.repository.commit(&bench.bob, "meanwhile");
    bench.repository.merge(&bench.alice, "feature");
    bench.accepts("HEAD");
}

#[test]
fn a_merge_by_an_unknown_key_is_refused() {
    let bench = Bench::new();
    bench.repository.branch("feature", "main");
    bench.repository.commit(&bench.alice, "change");
    bench.repository.checkout("main");
    bench.repository.merge(&bench.mallory, "feature");
    bench.refuses("HEAD", "unknown-key");
}

#[test]
fn a_path_may_lead_through_a_second_parent() {
    // A foxtrot merge: whoever merged had the trusted branch as the other side.
    let mut bench = Bench::new();
    bench.repository.branch("local", "main");
    bench.repository.write("a", "1");
    bench.repository.commit_unsigned("local work");
    bench.repository.checkout("main");
    bench.repository.write("b", "1");
    let trusted = bench.repository.commit(&bench.bob, "published");
    bench.repository.checkout("local");
    bench.repository.merge(&bench.alice, "main");
    bench.trust(&trusted);
    bench.accepts("HEAD");
}

#[test]
fn a_merge_leads_around_an_unsigned_first_parent() {
    let bench = Bench::new();
    bench.repository.branch("feature", "main");
    bench.repository.write("a", "1");
    bench.repository.commit(&bench.alice, "signed work");
    bench.repository.checkout("main");
    bench.repository.write("b", "1");
    bench.repository.commit_unsigned("unsigned work");
    bench.refuses("HEAD", "unsigned");
    bench.repository.merge(&bench.alice, "feature");
    bench.accepts("HEAD");
}

#[test]
fn a_rewound_branch_is_behind() {
    let mut bench = Bench::new();
    bench.repository.commit(&bench.alice, "one");
    let trusted = bench.repository.commit(&bench.alice, "two");
    bench.repository.reset("HEAD~1");
    bench.trust(&trusted);
    bench.check("HEAD", "behind", 75);
    // An unsigned commit is no less behind.
    let anchor = bench.anchor.clone();
    bench.check(&anchor, "behind", 75);
}

#[test]
fn rewritten_history_is_diverged() {
    let mut bench = Bench::new();
    let trusted = bench.repository.commit(&bench.alice, "one");
    bench.repository.reset("HEAD~1");
    bench.repository.commit(&bench.alice, "another one");
    bench.trust(&trusted);
    let answer = bench.check("HEAD", "diverged", 77);
    assert!(answer.json["rule"].is_null());
}

#[test]
fn dates_do_not_decide_what_is_behind() {
    for date in ["1970-01-02T00:00:00Z", "2099-01-01T00:00:00Z"] {
        let mut bench = Bench::new();
        let one = bench.repository.commit(&bench.alice, "one");
        bench.repository.set_date(date);
        let two = bench.repository.commit(&bench.alice, "two");
        bench.repository.set_date("2026-06-01T00:00:00Z");
        let three = bench.repository.commit(&bench.bob, "three");
        bench.trust(&one);
        bench.accepts(&three);
        bench.trust(&two);
        bench.accepts(&three);
        bench.check(&one, "behind", 75);
        bench.trust(&three);
        bench.check(&one, "behind", 75);
    }
}

#[test]
fn history_that_does_not_hold_the_anchor_is_refused() {
    let mut bench = Bench::new();
    bench
        .repository
        .git(&["checkout", "-q", "--orphan", "other"]);
    bench.repository.commit(&bench.alice, "start again");
    let answer = bench.refuses("HEAD", "anchor-mismatch");
    assert!(answer.text("detail").contains(&bench.anchor));
    bench.anchor = "1".repeat(40);
    bench.refuses("main", "anchor-mismatch");
}

#[test]
fn the_anchor_must_have_the_configured_payload() {
    let mut bench = Bench::new();
    bench.repository.commit(&bench.alice, "one");
    let payload = bench.repository.payload_sha256(&bench.anchor);
    bench.options = vec!["--anchor-payload".into(), payload];
    bench.accepts("HEAD");
    bench.options[1] = "0".repeat(64);
    bench.refuses("HEAD", "anchor-mismatch");
}

#[test]
fn a_shallow_clone_cannot_show_the_way() {
    let mut bench = Bench::new();
    for message in ["one", "two", "three"] {
        bench.repository.commit(&bench.alice, message);
    }
    bench.repository.push();
    let url = bench.repository.url();
    let clone = bench.repository.directory().join("clone");
    let clone = clone.to_str().unwrap();
    bench
        .repository
        .git(&["clone", "-q", "--depth=2", &url, clone]);
    bench.repo = clone.into();
    bench.refuses("HEAD", "shallow");
    // What is there is enough, when it reaches back to the trusted revision.
    let trusted = bench.repository.id("HEAD~1");
    bench.trust(&trusted);
    bench.accepts("HEAD");
}

#[test]
fn another_fleet_is_refused() {
    let mut bench = Bench::new();
    bench.repository.write("fleet.toml", "fleet = \"other\"\n");
    bench.repository.commit(&bench.alice, "rename");
    let answer = bench.refuses("HEAD", "wrong-fleet");
    assert_eq!(answer.text("path"), "fleet.toml");
    bench.repository.remove("fleet.toml");
    bench.repository.commit(&bench.alice, "remove");
    bench.refuses("HEAD", "wrong-fleet");
    bench.options = vec!["--fleet".into(), "nobody".into()];
    bench.elsewhere = Some("has no such option");
    let anchor = bench.anchor.clone();
    bench.refuses(&anchor, "wrong-fleet");
}

#[test]
fn a_typo_in_fleet_toml_is_no_attack() {
    let bench = Bench::new();
    bench.repository.write(
        "fleet.toml",
        "fleet = \"acme\"\n[[match]\nhosts = [\"*\"]\n",
    );
    bench.repository.commit(&bench.alice, "typo");
    bench.accepts("HEAD");
}

#[test]
fn a_twin_of_the_trusted_commit_is_the_trusted_commit() {
    // The same payload signed twice (ECDSA signatures differ each time) has two ids.
    let mut bench = Bench::new();
    let eve = bench
        .repository
        .key_of_type("eve", &["-t", "ecdsa", "-b", "256"]);
    bench.allow(&[bench.alice.allowed(), eve.allowed()]);
    let tree = bench.repository.id("HEAD^{tree}");
    let payload = bench.repository.payload(&tree, &[&bench.anchor], "one");
    let [one, twin] = [0, 1].map(|_| {
        bench
            .repository
            .write_commit(&payload, &bench.repository.sign(&eve, "git", &payload))
    });
    assert_ne!(one, twin);
    let child = bench
        .repository
        .commit_tree(&bench.alice, &tree, &[&twin], "two");
    bench.trust(&one);
    bench.accepts(&twin);
    bench.accepts(&child);
    // Nor is a twin of what the trusted commit leads on from another history.
    bench.trust(&child);
    bench.check(&twin, "behind", 75);
    bench.check(&one, "behind", 75);
}

#[test]
fn sha256_repositories_are_judged_alike() {
    let bench = Bench::in_repository(Repository::with_object_format("sha256"));
    assert_eq!(bench.anchor.len(), 64);
    bench.repository.commit(&bench.alice, "one");
    bench.accepts("HEAD");
    bench.repository.commit_unsigned("two");
    bench.refuses("HEAD", "unsigned");
}

#[test]
fn packed_and_bare_repositories_are_read() {
    let bench = Bench::new();
    for number in 0..20 {
        bench.repository.write("counter", &number.to_string());
        bench.repository.commit(&bench.alice, "count");
    }
    bench.repository.git(&["gc", "-q"]);
    bench.accepts("HEAD");
    bench.accepts("HEAD~3");
    bench.accepts("HEAD^1~2");
}

#[test]
fn replace_refs_change_nothing() {
    let bench = Bench::new();
    let unsigned = bench.repository.commit_unsigned("one");
    let tree = bench.repository.id("HEAD^{tree}");
    let signed = bench
        .repository
        .commit_tree(&bench.alice, &tree, &[&bench.anchor], "one");
    bench.repository.git(&["replace", &unsigned, &signed]);
    bench.refuses(&unsigned, "unsigned");
}

#[test]
fn a_pre_receive_hook_sees_what_is_being_pushed() {
    let bench = Bench::new();
    bench.repository.push();
    let hook = format!(
        "#!/bin/sh\nwhile read old new ref; do\n  {} verify --json --repo . --anchor {} --allowed-signers {} --revoked {} $new || exit 1\ndone\n",
        env!("CARGO_BIN_EXE_limpet"),
        bench.anchor,
        bench.allowed_signers.display(),
        bench.revoked.display()
    );
    let path = bench.repository.server().join("hooks/pre-receive");
    std::fs::write(&path, hook).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    bench.repository.commit(&bench.alice, "good");
    bench.repository.push();
    bench.repository.commit_unsigned("bad");
    let push = Command::new("git")
        .args(["push", "-q", "origin", "HEAD"])
        .current_dir(bench.repository.work())
        .output()
        .unwrap();
    assert!(!push.status.success());
    let stderr = String::from_utf8_lossy(&push.stderr);
    assert!(stderr.contains(r#""rule":"unsigned""#), "{stderr}");
}
