//! Signatures: which keys and formats count, and that there is one text for each.

use crate::Bench;
use crate::repository::Key;

#[test]
fn each_supported_type_of_key_may_sign() {
    let mut bench = Bench::new();
    for (name, kind) in [
        ("p256", &["-t", "ecdsa", "-b", "256"]),
        ("p384", &["-t", "ecdsa", "-b", "384"]),
        ("rsa", &["-t", "rsa", "-b", "3072"]),
    ] {
        let key = bench.repository.key_of_type(name, kind);
        bench.repository.commit(&key, name);
        bench.allow(&[bench.alice.allowed(), key.allowed()]);
        bench.accepts("HEAD");
        bench.repository.reset("HEAD~1");
    }
}

#[test]
fn weak_and_unsupported_keys_are_refused() {
    #[track_caller]
    fn check(kind: &[&str], is_listed: bool, rule: &str) {
        let mut bench = Bench::new();
        let key = bench.repository.key_of_type("weak", kind);
        bench.repository.commit(&key, "one");
        if is_listed {
            bench.allow(&[bench.alice.allowed(), key.allowed()]);
        }
        bench.refuses("HEAD", rule);
    }
    check(&["-t", "rsa", "-b", "2048"], true, "weak-key");
    check(&["-t", "rsa", "-b", "2048"], false, "weak-key");
    check(&["-t", "ecdsa", "-b", "521"], false, "unsupported-format");
    check(&["-t", "ecdsa", "-b", "521"], true, "signers-file-invalid");
}

#[test]
fn a_signature_for_another_namespace_is_refused() {
    let bench = Bench::new();
    let payload = payload(&bench);
    let armor = bench.repository.sign(&bench.alice, "file", &payload);
    let tip = bench.repository.write_commit(&payload, &armor);
    bench.refuses(&tip, "wrong-namespace");
}

#[test]
fn a_signature_over_something_else_is_refused() {
    let bench = Bench::new();
    let payload = payload(&bench);
    let armor = bench.repository.sign(&bench.alice, "git", &payload);
    let other = payload.replace("one", "two");
    let tip = bench.repository.write_commit(&other, &armor);
    bench.refuses(&tip, "bad-signature");
}

#[test]
fn other_formats_are_refused_by_name() {
    let bench = Bench::new();
    let mut others = vec![(
        "-----BEGIN SIGNED MESSAGE-----\nMIIE\n-----END SIGNED MESSAGE-----",
        "X.509",
    )];
    if cfg!(not(feature = "openpgp")) {
        let armor = "-----BEGIN PGP SIGNATURE-----\n\niHUE\n-----END PGP SIGNATURE-----";
        others.push((armor, "OpenPGP"));
    }
    for (armor, name) in others {
        let tip = bench.repository.write_commit(&payload(&bench), armor);
        let answer = bench.refuses(&tip, "unsupported-format");
        assert!(answer.text("detail").contains(name), "{}", answer.json);
    }
}

#[test]
fn a_signature_that_is_written_differently_is_refused() {
    let bench = Bench::new();
    let payload = payload(&bench);
    let armor = bench.repository.sign(&bench.alice, "git", &payload);
    let lines: Vec<&str> = armor.lines().collect();
    let base64 = lines[1..lines.len() - 1].concat();
    let wrapped = |width: usize| {
        let chunks: Vec<&str> = base64
            .as_bytes()
            .chunks(width)
            .map(|chunk| std::str::from_utf8(chunk).unwrap())
            .collect();
        format!(
            "{}\n{}\n{}",
            lines[0],
            chunks.join("\n"),
            lines[lines.len() - 1]
        )
    };
    // Other programs break the lines elsewhere.
    bench.accepts(&bench.repository.write_commit(&payload, &wrapped(64)));
    bench.accepts(&bench.repository.write_commit(&payload, &wrapped(76)));

    let mut uneven = lines.clone();
    let (head, tail) = lines[1].split_at(10);
    uneven.splice(1..2, [head, tail]);
    for malleated in [
        format!("{}\nsomething", armor.trim_end()),
        format!("{}\n\n", armor.trim_end()).replace("\n\n", "\n \n"),
        format!("something\n{armor}"),
        wrapped(77),
        uneven.join("\n"),
        armor.replace("\n-----END", "\n\n-----END"),
        armor.replace(
            "SSH SIGNATURE-----\nU1NIU0lH",
            "SSH SIGNATURE-----\n U1NIU0lH",
        ),
        armor.replace("U1NIU0lHAAAAAQ", "U1NIU0lHAAAAAg"),
        armor.replace("U1NIU0lH", "U1NIU0lI"),
    ] {
        let tip = bench.repository.write_commit(&payload, &malleated);
        bench.refuses(&tip, "malformed-signature");
    }
}

#[test]
fn a_commit_with_two_signatures_is_refused() {
    let bench = Bench::new();
    let payload = payload(&bench);
    let armor = bench.repository.sign(&bench.alice, "git", &payload);
    let signed = bench.repository.write_commit(&payload, &armor);
    let commit = bench.repository.read_object("commit", &signed);
    for extra in ["gpgsig x\n", "gpgsig-sha256 x\n"] {
        let twice = commit.replacen("gpgsig ", &format!("{extra}gpgsig "), 1);
        let tip = bench.repository.write_object("commit", twice.as_bytes());
        bench.refuses(&tip, "malformed-commit");
    }
}

#[test]
fn a_key_may_not_sign_with_another_algorithm() {
    // The signature says ssh-ed25519, the key in the block is somebody else's.
    let bench = Bench::new();
    let payload = payload(&bench);
    let armor = bench.repository.sign(&bench.mallory, "git", &payload);
    let forged = with_key_of(&bench.alice, &bench.mallory, &armor);
    let tip = bench.repository.write_commit(&payload, &forged);
    let answer = bench.refuses(&tip, "bad-signature");
    assert_eq!(answer.text("signer"), bench.alice.fingerprint);
}

fn payload(bench: &Bench) -> String {
    let tree = bench.repository.id("main^{tree}");
    bench.repository.payload(&tree, &[&bench.anchor], "one")
}

/// The armor with the key in it replaced by another of the same length.
fn with_key_of(wanted: &Key, present: &Key, armor: &str) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let blob = |key: &Key| {
        STANDARD
            .decode(key.public.split(' ').nth(1).unwrap())
            .unwrap()
    };
    let lines: Vec<&str> = armor.lines().collect();
    let mut bytes = STANDARD.decode(lines[1..lines.len() - 1].concat()).unwrap();
    let (present, wanted) = (blob(present), blob(wanted));
    let at = bytes
        .windows(present.len())
        .position(|window| window == present)
        .unwrap();
    bytes[at..at + wanted.len()].copy_from_slice(&wanted);
    let encoded = STANDARD.encode(bytes);
    let chunks: Vec<&str> = encoded
        .as_bytes()
        .chunks(70)
        .map(|chunk| std::str::from_utf8(chunk).unwrap())
        .collect();
    format!(
        "{}\n{}\n{}",
        lines[0],
        chunks.join("\n"),
        lines[lines.len() - 1]
    )
}
