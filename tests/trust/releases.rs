//! Releases: tags that say which commit a version is.

use crate::Bench;
use crate::policy::{Court, RULES};
use crate::repository::{Key, Repository};

/// A bench of a host that follows releases.
fn bench() -> Bench {
    let mut bench = Bench::new();
    follow(&mut bench, ">=1.4, <2");
    bench
}

fn follow(bench: &mut Bench, wanted: &str) {
    bench
        .options
        .extend(["--tags".to_owned(), wanted.to_owned()]);
}

/// `revision` is trusted as the release `name`.
fn trust(bench: &mut Bench, name: &str, revision: &str) {
    let more = ["--trusted", revision, "--trusted-tag", name];
    bench.options.extend(more.map(str::to_owned));
}

/// Tags `revision`, signed by `key`.
fn tag(repository: &Repository, key: &Key, name: &str, revision: &str) {
    tag_saying(repository, key, name, revision, "a release");
}

fn tag_saying(repository: &Repository, key: &Key, name: &str, revision: &str, message: &str) {
    repository.git_signed(key, &["tag", "-s", "-f", "-m", message, name, revision]);
}

/// Stores a tag object of this text, signed by `key`, under the ref `name`.
fn write(repository: &Repository, key: &Key, name: &str, text: &str) {
    let armor = repository.sign(key, "git", text);
    let id = repository.write_object("tag", format!("{text}{armor}").as_bytes());
    // Git itself puts no ref on a malformed tag; a hostile server does.
    let file = repository.work().join(".git/refs/tags").join(name);
    std::fs::write(file, format!("{id}\n")).unwrap();
}

fn text(object: &str, kind: &str, name: &str) -> String {
    format!(
        "object {object}\ntype {kind}\ntag {name}\ntagger Tess Ter <tess@example.net> 1767323045 +0000\n\na release\n"
    )
}

#[test]
fn a_signed_tag_of_a_signed_commit_is_accepted() {
    let bench = bench();
    let commit = bench.repository.commit(&bench.alice, "work");
    tag(&bench.repository, &bench.bob, "v1.4.0", &commit);
    let answer = bench.check("v1.4.0", "accepted", 0);
    assert_eq!(answer.text("commit"), commit);
    bench.check("refs/tags/v1.4.0", "accepted", 0);
    tag(&bench.repository, &bench.bob, "1.5.0", &commit);
    bench.check("1.5.0", "accepted", 0);
    // What is written by hand as git writes it is the same.
    write(
        &bench.repository,
        &bench.bob,
        "v1.6.0",
        &text(&commit, "commit", "v1.6.0"),
    );
    bench.check("v1.6.0", "accepted", 0);
}

#[test]
fn in_a_sha256_repository_too() {
    let mut bench = Bench::in_repository(Repository::with_object_format("sha256"));
    follow(&mut bench, "*");
    let commit = bench.repository.commit(&bench.alice, "work");
    tag(&bench.repository, &bench.alice, "v0.1.0", &commit);
    bench.check("v0.1.0", "accepted", 0);
}

#[test]
fn a_tag_does_not_make_up_for_an_unsigned_commit() {
    let bench = bench();
    let commit = bench.repository.commit_unsigned("work");
    tag(&bench.repository, &bench.alice, "v1.4.0", &commit);
    let answer = bench.check("v1.4.0", "refused", 77);
    assert_eq!(answer.text("rule"), "unsigned");
}

#[test]
fn a_commit_that_does_not_descend_from_the_anchor_is_no_release() {
    let bench = bench();
    bench
        .repository
        .git(&["checkout", "-q", "--orphan", "other"]);
    let commit = bench.repository.commit(&bench.alice, "other");
    tag(&bench.repository, &bench.alice, "v1.4.0", &commit);
    bench.refuses("v1.4.0", "anchor-mismatch");
}

#[test]
fn who_signs_tags_must_be_allowed_to() {
    let bench = bench();
    let commit = bench.repository.commit(&bench.alice, "work");
    tag(&bench.repository, &bench.mallory, "v1.4.0", &commit);
    bench.refuses("v1.4.0", "unknown-key");
    tag(&bench.repository, &bench.bob, "v1.4.0", &commit);
    let revoked = format!("{}\n", bench.bob.fingerprint);
    let _ = bench.repository.file("revoked", &revoked);
    bench.refuses("v1.4.0", "key-revoked");
}

#[test]
fn a_tag_that_nobody_signed_is_refused() {
    let bench = bench();
    let commit = bench.repository.commit(&bench.alice, "work");
    let git = |arguments: &[&str]| bench.repository.git(arguments);
    git(&["tag", "-a", "-m", "a release", "v1.4.0", &commit]);
    bench.refuses("v1.4.0", "unsigned");
    git(&["tag", "v1.5.0", &commit]);
    let answer = bench.refuses("v1.5.0", "wrong-tag");
    assert!(answer.text("detail").contains("not annotated"));
}

#[test]
fn a_changed_tag_is_refused() {
    let bench = bench();
    let repository = &bench.repository;
    let first = repository.commit(&bench.alice, "one");
    let second = repository.commit(&bench.alice, "two");
    let signed = text(&first, "commit", "v1.4.0");
    let armor = repository.sign(&bench.alice, "git", &signed);
    let put = |text: &str, armor: &str| {
        let id = repository.write_object("tag", format!("{text}{armor}").as_bytes());
        repository.git(&["update-ref", "refs/tags/v1.4.0", &id]);
    };
    put(&signed, &armor);
    bench.check("v1.4.0", "accepted", 0);
    put(&text(&second, "commit", "v1.4.0"), &armor);
    bench.refuses("v1.4.0", "bad-signature");
    put(&signed, &repository.sign(&bench.alice, "file", &signed));
    bench.refuses("v1.4.0", "wrong-namespace");
    put(&signed, &format!("{armor}{armor}"));
    bench.refuses("v1.4.0", "malformed-signature");
    put(&signed, &armor.replace("SSH SIGNATURE", "SIGNED MESSAGE"));
    bench.refuses("v1.4.0", "unsupported-format");
}

#[test]
fn the_name_in_the_object_is_that_of_the_ref() {
    let bench = bench();
    let commit = bench.repository.commit(&bench.alice, "work");
    tag(&bench.repository, &bench.alice, "v1.4.0", &commit);
    let git = |arguments: &[&str]| bench.repository.git(arguments);
    git(&["update-ref", "refs/tags/v1.9.9", "refs/tags/v1.4.0"]);
    let answer = bench.refuses("v1.9.9", "wrong-tag");
    assert!(answer.text("detail").contains("'v1.4.0'"));
}

#[test]
fn a_tag_is_put_on_a_commit_and_says_nothing_twice() {
    let mut bench = bench();
    bench.elsewhere = Some("Git's server fails over it");
    let repository = &bench.repository;
    let commit = repository.commit(&bench.alice, "work");
    let tree = repository.id("HEAD^{tree}");
    let check = |text: &str| {
        write(repository, &bench.alice, "v1.4.0", text);
        bench.refuses("v1.4.0", "wrong-tag");
    };
    let good = text(&commit, "commit", "v1.4.0");
    check(&text(&tree, "tree", "v1.4.0"));
    tag(repository, &bench.alice, "v1.3.0", &commit);
    let inner = repository.id("refs/tags/v1.3.0");
    check(&text(&inner, "tag", "v1.4.0"));
    check(&good.replace("tagger", "tag v1.4.1\ntagger"));
    check(&good.replace("\ntype", &format!("\nobject {commit}\ntype")));
    check(&good.replace("\n\n", "\nextra header\n\n"));
    check(&good.replace("+0000", "0000"));
    check(&good.replace("a release", &"a".repeat(1 << 20)));
}

#[test]
fn versions_only_rise() {
    let mut bench = bench();
    bench.elsewhere = Some("remembers its last release; see tests/machine/trust.rs");
    let repository = &bench.repository;
    let old = repository.commit(&bench.alice, "old");
    let trusted = repository.commit(&bench.alice, "trusted");
    let new = repository.commit(&bench.alice, "new");
    for (name, revision) in [
        ("v1.9.0", &new),
        ("v1.10.0", &trusted),
        ("v1.10.0+again", &new),
        ("v1.11.0", &old),
        ("v1.12.0", &trusted),
        ("v1.13.0", &new),
    ] {
        tag(repository, &bench.alice, name, revision);
    }
    trust(&mut bench, "v1.10.0", &trusted);
    let answer = bench.check("v1.9.0", "behind", 75);
    assert_eq!(
        answer.text("detail"),
        "release 'v1.9.0' is older than the trusted release 'v1.10.0'"
    );
    let answer = bench.check("v1.10.0", "accepted", 0);
    assert_eq!(answer.text("detail"), "it is the trusted revision");
    bench.refuses("v1.10.0+again", "wrong-tag");
    bench.check("v1.11.0", "behind", 75);
    bench.check("v1.12.0", "accepted", 0);
    bench.check("v1.13.0", "accepted", 0);
    // A version that was used is not moved.
    tag(&bench.repository, &bench.alice, "v1.10.0", &new);
    let answer = bench.refuses("v1.10.0", "wrong-tag");
    assert!(answer.text("detail").contains("its version was used"));
}

#[test]
fn a_release_out_of_range_is_refused() {
    let mut bench = bench();
    bench.elsewhere = Some("the fetcher does not ask for it");
    let commit = bench.repository.commit(&bench.alice, "work");
    for name in ["v1.3.9", "v2.0.0", "v1.5.0-rc.1"] {
        tag(&bench.repository, &bench.alice, name, &commit);
        bench.refuses(name, "wrong-tag");
    }
    tag(&bench.repository, &bench.alice, "latest", &commit);
    bench.refuses("latest", "wrong-tag");
    let output = bench.command("HEAD").output().unwrap();
    assert_eq!(output.status.code(), Some(64), "a branch is no release");
}

#[test]
fn the_policy_says_who_releases_and_in_which_channel() {
    let mut court = Court::with(
        "[root]\nkeys = [\"alice\"]\n[[allow]]\nkeys = [\"bob\"]\npaths = [\"layers/site/**\"]\nchannels = [\"prod\"]\n",
    );
    follow(&mut court.bench, "*");
    court
        .bench
        .options
        .extend(["--channel".to_owned(), "prod".to_owned()]);
    let commit = court.alice("work");
    let repository = &court.bench.repository;
    // Whose key holds the channel releases what another wrote; who says it in the tag does, too.
    tag(repository, &court.bench.bob, "v1.0.0", &commit);
    court.bench.check("v1.0.0", "accepted", 0);
    tag(repository, &court.bench.alice, "v1.1.0", &commit);
    court.bench.refuses("v1.1.0", "wrong-channel");
    let says = "a release\n\nLimpet-Channel: prod";
    tag_saying(repository, &court.bench.alice, "v1.2.0", &commit, says);
    court.bench.check("v1.2.0", "accepted", 0);
    // What a tag says of its channel is not made up for by the commit.
    let promoted = court.alice("more\n\nLimpet-Channel: prod");
    let repository = &court.bench.repository;
    tag(repository, &court.bench.alice, "v1.2.1", &promoted);
    court.bench.check("v1.2.1", "accepted", 0);
    let says = "a release\n\nLimpet-Channel: staging";
    tag_saying(repository, &court.bench.alice, "v1.2.2", &promoted, says);
    court.bench.refuses("v1.2.2", "wrong-channel");
    tag(repository, &court.bench.mallory, "v1.3.0", &commit);
    court.bench.refuses("v1.3.0", "unknown-key");
}

#[test]
fn a_key_that_the_release_revokes_does_not_release_it() {
    let mut court = Court::with(RULES);
    follow(&mut court.bench, "*");
    court.change(&format!(
        "{RULES}[[revoked]]\nkey = \"bob\"\nreason = \"compromised\"\n"
    ));
    let commit = court.alice("bob is no more");
    tag(&court.bench.repository, &court.bench.bob, "v1.0.0", &commit);
    court.bench.refuses("v1.0.0", "key-revoked");
    tag(
        &court.bench.repository,
        &court.bench.alice,
        "v1.0.0",
        &commit,
    );
    court.bench.check("v1.0.0", "accepted", 0);
}
