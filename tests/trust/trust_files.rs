//! The host's two files: who may sign and when, and who no longer may.

use crate::Bench;

#[test]
fn a_key_counts_only_while_it_is_valid() {
    #[track_caller]
    fn check(options: &str, rule: Option<&str>) {
        let mut bench = Bench::new();
        bench.repository.commit(&bench.alice, "one");
        bench.allow(&[bench
            .alice
            .allowed_with(&format!("namespaces=\"git\",{options}"))]);
        match rule {
            Some(rule) => {
                let answer = bench.refuses("HEAD", rule);
                assert_eq!(answer.text("signer"), bench.alice.fingerprint);
            }
            None => drop(bench.accepts("HEAD")),
        }
    }
    check("valid-after=\"20200101Z\"", None);
    check(
        "valid-after=\"20200101Z\",valid-before=\"29990101000000Z\"",
        None,
    );
    check("valid-before=\"20240101Z\"", Some("key-expired"));
    check("valid-after=\"29990101Z\"", Some("key-not-yet-valid"));
}

#[test]
fn a_date_that_a_commit_claims_does_not_revive_a_key() {
    let mut bench = Bench::new();
    bench.repository.set_date("2023-06-01T00:00:00Z");
    bench.repository.commit(&bench.alice, "backdated");
    bench.allow(&[bench
        .alice
        .allowed_with("namespaces=\"git\",valid-before=\"20240101Z\"")]);
    bench.refuses("HEAD", "key-expired");
}

#[test]
fn a_key_that_expired_since_is_vouched_for_by_a_later_commit() {
    let mut bench = Bench::new();
    let expired = bench
        .alice
        .allowed_with("namespaces=\"git\",valid-before=\"20240101Z\"");
    bench.repository.commit(&bench.alice, "long ago");
    bench.repository.commit(&bench.bob, "today");
    bench.allow(&[expired, bench.bob.allowed()]);
    bench.accepts("HEAD");
}

#[test]
fn a_revoked_key_counts_at_no_depth() {
    let mut bench = Bench::new();
    let one = bench.repository.commit(&bench.alice, "one");
    bench.repository.commit(&bench.bob, "two");
    for entry in [
        bench.alice.fingerprint.clone(),
        format!("{}   # lost her laptop", bench.alice.fingerprint),
        format!("{} alice@example.net", bench.alice.public),
    ] {
        bench.revoked = bench
            .repository
            .file("revoked", &format!("# gone\n{entry}\n"));
        let answer = bench.refuses("HEAD", "key-revoked");
        assert_eq!(answer.text("commit"), one);
    }
    // What was trusted before stays trusted.
    bench.trust(&one);
    bench.accepts("HEAD");
}

#[test]
fn a_revoked_file_that_is_missing_or_wrong_is_not_read_as_empty() {
    let mut bench = Bench::new();
    bench.revoked = bench.repository.directory().join("nowhere");
    let answer = bench.refuses("HEAD", "revoked-file-missing");
    assert_eq!(answer.text("path"), bench.revoked.to_str().unwrap());
    assert!(answer.json["commit"].is_null());
    for line in [
        "carol",
        "SHA256:tooshort",
        "ssh-ed25519 AAAA",
        "256 SHA256:x carol (ED25519)",
    ] {
        bench.revoked = bench
            .repository
            .file("revoked", &format!("# gone\n{line}\n"));
        let answer = bench.refuses("HEAD", "revoked-file-missing");
        assert!(
            answer.text("detail").contains("revoked:2: "),
            "{}",
            answer.json
        );
    }
}

#[test]
fn one_mistake_refuses_the_whole_signers_file() {
    #[track_caller]
    fn check(line: impl Fn(&Bench) -> String, expected: &str) {
        let mut bench = Bench::new();
        let line = line(&bench);
        bench.allow(&["# ours\n".into(), bench.alice.allowed(), line]);
        let answer = bench.refuses("HEAD", "signers-file-invalid");
        let detail = answer.text("detail");
        assert!(
            detail.contains("allowed_signers:3: ") && detail.contains(expected),
            "{detail}"
        );
    }
    let bob = |options: &'static str| move |bench: &Bench| bench.bob.allowed_with(options);
    check(bob(""), "namespaces");
    check(bob("namespaces=\"file\""), "namespaces");
    check(bob("namespaces=\"*\""), "pattern");
    check(bob("namespaces=\"git\",cert-authority"), "cert-authority");
    check(bob("namespaces=\"git\",namespaces=\"git\""), "twice");
    check(bob("namespaces=\"git\",touch-required"), "touch-required");
    check(
        bob("namespaces=\"git\",valid-before=\"20270101\""),
        "does not end in Z",
    );
    check(
        bob("namespaces=\"git\",valid-before=\"20271301Z\""),
        "no date",
    );
    check(bob("namespaces=\"git"), "quote");
    check(|bench| bench.alice.allowed(), "already in line 2");
    check(
        |bench| {
            bench
                .bob
                .allowed()
                .replace("bob@example.net", "*@example.net")
        },
        "pattern",
    );
    check(
        |bench| bench.bob.allowed().replace("ssh-ed25519 ", "ssh-ed448 "),
        "ssh-ed448",
    );
    check(
        |bench| bench.bob.allowed().replace("AAAAC3", "AAAAC4"),
        "key",
    );
    check(|_| "just words\n".into(), "words");
}

#[test]
fn a_missing_signers_file_is_named() {
    let mut bench = Bench::new();
    bench.allowed_signers = bench.repository.directory().join("nowhere");
    let answer = bench.refuses("HEAD", "signers-file-invalid");
    assert_eq!(answer.text("path"), bench.allowed_signers.to_str().unwrap());
}
