//! Commits, tags and approvals that are signed with OpenPGP, by gpg itself.

use sequoia_openpgp::cert::CertBuilder;
use sequoia_openpgp::packet::Signature;
use sequoia_openpgp::packet::key::{Key4, PrimaryRole, PublicParts};
use sequoia_openpgp::parse::Parse as _;
use sequoia_openpgp::serialize::MarshalInto as _;
use sequoia_openpgp::{Cert, Packet};

use crate::Bench;
use crate::policy::{Court, RULES};
use crate::repository::{Key, Repository};

/// A bench that lists a certificate beside alice and bob.
fn bench() -> (Bench, Key) {
    bench_with("ed25519", "2y")
}

fn bench_with(algorithm: &str, until: &str) -> (Bench, Key) {
    let mut bench = Bench::new();
    let pat = bench.repository.certificate("pat", algorithm, until);
    list(&mut bench, &pat);
    (bench, pat)
}

/// The host lists what gpg has of `key` now.
fn list(bench: &mut Bench, key: &Key) {
    bench.gpg_home = Some(key.file.clone());
    bench.allow(&[bench.alice.allowed(), key.allowed()]);
}

/// Adds a key for signing to a certificate.
fn add_subkey(repository: &Repository, key: &mut Key, options: &[&str], until: &str) {
    let digits = key.digits().unwrap().to_owned();
    let add = ["--quick-add-key", &digits, "ed25519", "sign", until];
    repository.gpg(key, &[options, &add].concat());
    repository.export(key);
}

/// Imports the certificate that revokes `key`, which gpg makes beside every key.
fn revoke(repository: &Repository, key: &mut Key) {
    let name = format!("openpgp-revocs.d/{}.rev", key.digits().unwrap());
    let file = key.file.join(name);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(":-----BEGIN", "-----BEGIN")).unwrap();
    repository.gpg(key, &["--import", file.to_str().unwrap()]);
    repository.export(key);
}

fn commit(bench: &Bench, key: &Key) -> String {
    bench.repository.commit(key, "work")
}

#[test]
fn a_certificate_that_is_listed_signs_and_is_named_by_its_fingerprint() {
    for format in ["sha1", "sha256"] {
        let mut bench = Bench::in_repository(Repository::with_object_format(format));
        let pat = bench.repository.certificate("pat", "ed25519", "2y");
        list(&mut bench, &pat);
        commit(&bench, &pat);
        let answer = bench.accepts("HEAD");
        assert_eq!(answer.text("signer"), pat.fingerprint);
        // Over what comes after it, as every signature.
        commit(&bench, &bench.alice);
        bench.accepts("HEAD");
    }
    for algorithm in ["rsa3072", "rsa4096", "nistp256", "nistp384", "nistp521"] {
        let (bench, pat) = bench_with(algorithm, "2y");
        commit(&bench, &pat);
        bench.accepts("HEAD");
    }
}

#[test]
fn a_subkey_signs_for_its_certificate() {
    let (mut bench, mut pat) = bench();
    let repository = &bench.repository;
    add_subkey(repository, &mut pat, &[], "1y");
    commit(&bench, &pat);
    // The host does not know the new subkey yet.
    bench.refuses("HEAD", "unknown-key");
    list(&mut bench, &pat);
    let answer = bench.accepts("HEAD");
    assert_eq!(answer.text("signer"), pat.fingerprint);
}

#[test]
fn nobody_takes_the_subkey_of_another_for_their_own() {
    use sequoia_openpgp::packet::signature::SignatureBuilder;
    use sequoia_openpgp::types::{KeyFlags, SignatureType};

    let (mut bench, mut pat) = bench();
    add_subkey(&bench.repository, &mut pat, &[], "1y");
    commit(&bench, &pat);
    let theirs = bench.repository.gpg(&pat, &["--export"]);
    let theirs = Cert::from_bytes(&theirs).unwrap();
    let subkey = theirs.keys().subkeys().last().unwrap().key().clone();
    let flags = KeyFlags::empty();
    for flags in [
        flags.clone().set_transport_encryption(),
        flags.set_signing(),
    ] {
        let (eve, _) = CertBuilder::new().add_userid("eve").generate().unwrap();
        let primary = eve.primary_key().key().clone();
        let mut signer = primary.parts_into_secret().unwrap().into_keypair().unwrap();
        // What only the subkey itself could sign is missing.
        let binding = SignatureBuilder::new(SignatureType::SubkeyBinding)
            .set_key_flags(flags)
            .unwrap()
            .sign_subkey_binding(&mut signer, None, &subkey)
            .unwrap();
        let packets: [Packet; 2] = [subkey.clone().into(), binding.into()];
        let (eve, _) = eve.insert_packets(packets).unwrap();
        let eve = Key {
            name: "eve".to_owned(),
            public: format!("openpgp {}", base64(&eve.to_vec().unwrap())),
            fingerprint: format!("openpgp:{:X}", eve.fingerprint()),
            file: pat.file.clone(),
        };
        bench.allow(&[bench.alice.allowed(), eve.allowed()]);
        bench.refuses("HEAD", "unknown-key");
        bench.allow(&[bench.alice.allowed(), eve.allowed(), pat.allowed()]);
        let answer = bench.accepts("HEAD");
        assert_eq!(answer.text("signer"), pat.fingerprint);
    }
}

#[test]
fn who_is_not_listed_signs_nothing() {
    let (bench, _) = bench();
    let eve = bench.repository.certificate("eve", "ed25519", "2y");
    commit(&bench, &eve);
    let answer = bench.refuses("HEAD", "unknown-key");
    assert_eq!(answer.text("signer"), eve.fingerprint);
    assert!(
        answer.text("detail").contains(&eve.fingerprint),
        "{}",
        answer.json
    );
}

#[test]
fn a_signature_is_over_one_commit() {
    let (bench, pat) = bench();
    commit(&bench, &pat);
    let (payload, armor) = taken_apart(&bench);
    bench.accepts(&bench.repository.write_commit(&payload, &armor));
    let other = payload.replace("work", "more");
    let tip = bench.repository.write_commit(&other, &armor);
    bench.refuses(&tip, "bad-signature");
}

/// The payload and the armor of HEAD.
fn taken_apart(bench: &Bench) -> (String, String) {
    let text = bench.repository.read_object("commit", "HEAD");
    let start = text.find("gpgsig").unwrap();
    let end = start + text[start..].find("\n\n").unwrap() + 1;
    let armor = text[start..end].split_once(' ').unwrap().1;
    let payload = [&text[..start], &text[end..]].concat();
    (payload, armor.replace("\n ", "\n").trim_end().to_owned())
}

#[test]
fn nobody_without_a_key_writes_a_signature_differently() {
    let (bench, pat) = bench();
    commit(&bench, &pat);
    let (payload, armor) = taken_apart(&bench);
    let body: String = armor
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with(['-', '=']))
        .collect();
    let armored = |lines: &str| {
        format!("-----BEGIN PGP SIGNATURE-----\n\n{lines}\n-----END PGP SIGNATURE-----")
    };
    let one_line_is_too_long = armored(&body);
    let with_comment = armor.replacen("\n\n", "\nComment: hello\n\n", 1);
    let with_wrong_checksum = armor.replacen("\n=", "\n=A", 1);
    let twice = format!("{armor}\n{armor}");
    let with_text_behind = format!("{armor}\nhello");
    let blank_lines = armor.replacen("\n\n", "\n\n\n", 1);
    for malleated in [
        one_line_is_too_long,
        with_comment,
        with_wrong_checksum,
        twice,
        with_text_behind,
        blank_lines,
        armored("iHUE"),
        armored("AAAA"),
        armored(""),
    ] {
        let tip = bench.repository.write_commit(&payload, &malleated);
        bench.refuses(&tip, "malformed-signature");
    }
}

#[test]
fn a_signature_over_a_text_or_two_in_one_armor_are_refused() {
    let (bench, pat) = bench();
    let repository = &bench.repository;
    commit(&bench, &pat);
    let (payload, _) = taken_apart(&bench);
    let file = repository.file("payload", &payload);
    let sign = |options: &[&str]| {
        let detached = ["--detach-sign", "--output", "-", file.to_str().unwrap()];
        repository.gpg(&pat, &[options, &detached].concat())
    };
    let put = |armor: &[u8]| {
        let armor = String::from_utf8(armor.to_owned()).unwrap();
        repository.write_commit(&payload, &armor)
    };
    bench.accepts(&put(&sign(&["--armor"])));
    // Of a text, line ends and spaces before them are not signed.
    bench.refuses(
        &put(&sign(&["--armor", "--textmode"])),
        "malformed-signature",
    );
    let two = [sign(&[]), sign(&[])].concat();
    let armor = armored(&two);
    bench.refuses(&put(armor.as_bytes()), "malformed-signature");
}

#[test]
fn a_revoked_certificate_or_subkey_signs_nothing() {
    let (mut bench, mut pat) = bench();
    commit(&bench, &pat);
    bench.accepts("HEAD");
    add_subkey(&bench.repository, &mut pat, &[], "1y");
    list(&mut bench, &pat);
    commit(&bench, &pat);
    bench.accepts("HEAD");
    revoke(&bench.repository, &mut pat);
    list(&mut bench, &pat);
    bench.refuses("HEAD", "key-revoked");
    bench.refuses("HEAD~1", "key-revoked");
}

#[test]
fn what_has_expired_signs_nothing_whatever_date_it_says() {
    let (mut bench, _) = bench();
    let then = ["--faked-system-time", "20240101T000000"];
    let repository = &bench.repository;
    let old = repository.certificate_at("old", "ed25519", "1y", &then);
    repository.sign_at(&old, "20240601T000000");
    list(&mut bench, &old);
    commit(&bench, &old);
    bench.refuses("HEAD", "key-expired");
    // Another who is valid now signs it again, and so stands for it.
    bench.repository.commit(&bench.alice, "as it was");
    bench.accepts("HEAD");

    // A subkey of a certificate that goes on.
    let repository = &bench.repository;
    repository.reset(&bench.anchor);
    let mut sub = repository.certificate_at("sub", "ed25519", "never", &then);
    let a_day_later = ["--faked-system-time", "20240102T000000"];
    add_subkey(repository, &mut sub, &a_day_later, "1y");
    repository.sign_at(&sub, "20240601T000000");
    list(&mut bench, &sub);
    commit(&bench, &sub);
    bench.refuses("HEAD", "key-expired");
}

#[test]
fn what_says_that_it_is_from_later_than_now_counts_later() {
    let (mut bench, pat) = bench_with("ed25519", "never");
    bench.repository.sign_at(&pat, "20380101T000000");
    commit(&bench, &pat);
    let answer = bench.refuses("HEAD", "key-not-yet-valid");
    assert!(
        answer.text("detail").contains("dated later"),
        "{}",
        answer.json
    );
    let then = ["--faked-system-time", "20380101T000000"];
    let repository = &bench.repository;
    repository.reset("HEAD~1");
    let late = repository.certificate_at("late", "ed25519", "never", &then);
    repository.sign_at(&late, "20380101T000000");
    list(&mut bench, &late);
    commit(&bench, &late);
    bench.refuses("HEAD", "key-not-yet-valid");
}

#[test]
fn weak_keys_and_hashes_sign_nothing() {
    for algorithm in ["rsa2048", "brainpoolP256r1", "secp256k1"] {
        let (bench, pat) = bench_with(algorithm, "2y");
        commit(&bench, &pat);
        bench.refuses("HEAD", "weak-key");
    }
    // A policy does not even list what anybody can sign for.
    let point = [&[1][..], &[0; 31]].concat();
    let time = std::time::SystemTime::UNIX_EPOCH;
    let key: Key4<PublicParts, PrimaryRole> = Key4::import_public_ed25519(&point, time).unwrap();
    let packet: Packet = sequoia_openpgp::packet::Key::from(key).into();
    let mut court = Court::new();
    court.more_keys = format!(
        "anybody = \"openpgp {}\"\n",
        base64(&packet.to_vec().unwrap())
    );
    court.write();
    court.alice("anybody");
    let answer = court.refuses("policy-invalid");
    assert!(
        answer.text("detail").contains("small order"),
        "{}",
        answer.json
    );
    let (bench, pat) = bench_with("rsa3072", "2y");
    std::fs::write(pat.file.join("gpg.conf"), "digest-algo SHA1\n").unwrap();
    commit(&bench, &pat);
    let answer = bench.refuses("HEAD", "weak-key");
    assert!(answer.text("detail").contains("SHA1"), "{}", answer.json);
}

#[test]
fn what_is_no_certificate_is_not_listed() {
    let (mut bench, pat) = bench();
    let secret = bench.repository.gpg(&pat, &["--export-secret-keys"]);
    let armored = bench.repository.gpg(&pat, &["--export", "--armor"]);
    let twice = [
        pat.clone(),
        bench.repository.certificate("eve", "ed25519", "2y"),
    ]
    .map(|key| bench.repository.gpg(&key, &["--export"]));
    let (many, _) = (0..300)
        .fold(CertBuilder::new(), |builder, number| {
            builder.add_userid(format!("{number}@example.net"))
        })
        .generate()
        .unwrap();
    let many = many.to_vec().unwrap();
    for bytes in [secret, armored, twice.concat(), many, b"nothing".to_vec()] {
        let line = format!("openpgp {}", base64(&bytes));
        let wrong = Key {
            public: line,
            ..pat.clone()
        };
        list(&mut bench, &wrong);
        commit(&bench, &bench.alice);
        bench.refuses("HEAD", "signers-file-invalid");
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn a_host_revokes_a_certificate_by_its_fingerprint() {
    let (mut bench, pat) = bench();
    commit(&bench, &pat);
    bench.accepts("HEAD");
    let line = format!("{} # lost\n", pat.fingerprint);
    bench.revoked = bench.repository.file("revoked", &line);
    bench.refuses("HEAD", "key-revoked");
    bench.revoked = bench
        .repository
        .file("revoked", &format!("{}\n", pat.public));
    bench.refuses("HEAD", "key-revoked");
}

/// The fingerprint of the newest subkey of a certificate.
fn subkey_of(repository: &Repository, key: &Key) -> String {
    let bytes = repository.gpg(key, &["--export"]);
    let cert = Cert::from_bytes(&bytes).unwrap();
    let subkey = cert.keys().subkeys().last().unwrap();
    format!("openpgp:{:X}", subkey.key().fingerprint())
}

#[test]
fn a_subkey_that_was_stolen_is_revoked_by_its_own_fingerprint() {
    let (mut bench, mut pat) = bench();
    add_subkey(&bench.repository, &mut pat, &[], "1y");
    list(&mut bench, &pat);
    commit(&bench, &pat);
    bench.accepts("HEAD");
    let subkey = subkey_of(&bench.repository, &pat);
    bench.revoked = bench.repository.file("revoked", &format!("{subkey}\n"));
    bench.refuses("HEAD", "key-revoked");

    for (reason, rule) in [("retired", "key-expired"), ("compromised", "key-revoked")] {
        let (mut court, mut pat) = court(SITE);
        add_subkey(&court.bench.repository, &mut pat, &[], "1y");
        court.more_keys = format!("pat = \"{}\"\n", pat.public);
        let subkey = subkey_of(&court.bench.repository, &pat);
        let rules = format!("{SITE}[[revoked]]\nkey = \"{subkey}\"\nreason = \"{reason}\"\n");
        court.change(&rules);
        court.alice("no longer by that");
        court.accepts();
        court.put("layers/site/motd");
        commit(&court.bench, &pat);
        court.refuses(rule);
    }
}

/// A packet in an armor as gpg writes it, without its checksum.
fn armored(packet: &[u8]) -> String {
    let body = base64(packet);
    let lines: Vec<&str> = (0..body.len())
        .step_by(64)
        .map(|start| &body[start..body.len().min(start + 64)])
        .collect();
    let lines = lines.join("\n");
    format!("-----BEGIN PGP SIGNATURE-----\n\n{lines}\n-----END PGP SIGNATURE-----")
}

/// A policy that lists a certificate, which `rules` call pat.
fn court(rules: &str) -> (Court, Key) {
    let mut court = Court::new();
    let pat = court.bench.repository.certificate("pat", "ed25519", "2y");
    court.bench.gpg_home = Some(pat.file.clone());
    court.more_keys = format!("pat = \"{}\"\n", pat.public);
    court.change(rules);
    court.alice("list pat");
    // It signs something before it counts for more.
    commit(&court.bench, &pat);
    court.accepts();
    (court, pat)
}

const SITE: &str = "[root]\nkeys = [\"alice\"]\n[[allow]]\nkeys = [\"bob\", \"pat\"]\npaths = [\"layers/site/**\"]\n";

#[test]
fn a_certificate_of_the_policy_changes_what_it_may_and_nothing_else() {
    let (court, pat) = court(SITE);
    court.put("layers/site/motd");
    commit(&court.bench, &pat);
    let answer = court.accepts();
    assert_eq!(answer.text("signer"), pat.fingerprint);
    court.put("layers/base/motd");
    commit(&court.bench, &pat);
    court.refuses("out-of-scope");
}

#[test]
fn a_policy_revokes_a_certificate_by_its_name() {
    for (reason, rule) in [("retired", "key-expired"), ("compromised", "key-revoked")] {
        let (mut court, pat) = court(SITE);
        let rules = format!("{SITE}[[revoked]]\nkey = \"pat\"\nreason = \"{reason}\"\n");
        court.change(&rules);
        court.alice("no longer pat");
        if reason == "retired" {
            court.accepts();
        }
        court.put("layers/site/motd");
        commit(&court.bench, &pat);
        court.refuses(rule);
    }
}

#[test]
fn a_certificate_that_a_tip_shows_as_revoked_counts_no_longer_on_the_way() {
    let (mut court, mut pat) = court(SITE);
    let trusted = court.bench.repository.id("HEAD");
    court.bench.trust(&trusted);
    court.put("layers/site/motd");
    commit(&court.bench, &pat);
    court.accepts();
    revoke(&court.bench.repository, &mut pat);
    court.more_keys = format!("pat = \"{}\"\n", pat.public);
    court.write();
    court.alice("pat revoked it");
    court.refuses("key-revoked");
}

#[test]
fn a_certificate_that_revoked_itself_stays_so_when_it_is_listed_no_more() {
    let (mut court, mut pat) = court(SITE);
    court.bench.trust(&court.bench.repository.id("HEAD"));
    court.put("layers/site/motd");
    commit(&court.bench, &pat);
    revoke(&court.bench.repository, &mut pat);
    let listed = std::mem::replace(&mut court.more_keys, format!("pat = \"{}\"\n", pat.public));
    court.write();
    court.alice("pat revoked it");
    court.more_keys.clear();
    court.change(RULES);
    court.alice("without pat");
    court.refuses("key-revoked");
    court.more_keys = listed;
    court.change(SITE);
    court.alice("with the pat of before");
    court.refuses("key-revoked");
}

#[test]
fn a_policy_is_not_left_to_certificates_that_cannot_sign() {
    let mut court = Court::new();
    let then = ["--faked-system-time", "20240101T000000"];
    let repository = &court.bench.repository;
    let old = repository.certificate_at("pat", "ed25519", "1y", &then);
    court.more_keys = format!("pat = \"{}\"\n", old.public);
    court.change(&RULES.replace("[\"alice\"]", "[\"alice\", \"pat\"]\nthreshold = 2"));
    court.alice("two of which one has expired");
    let answer = court.refuses("policy-invalid");
    assert!(
        answer.text("detail").contains("1 of its keys can sign"),
        "{}",
        answer.json
    );
}

#[test]
fn what_is_not_signed_of_a_signature_is_its_keys_id_or_nothing() {
    use sequoia_openpgp::packet::signature::subpacket::{Subpacket, SubpacketValue};
    let (bench, pat) = bench();
    commit(&bench, &pat);
    let (payload, armor) = taken_apart(&bench);
    let packets = sequoia_openpgp::PacketPile::from_bytes(armor.as_bytes()).unwrap();
    let Some(Packet::Signature(real)) = packets.path_ref(&[0]).cloned() else {
        panic!("{armor}");
    };
    let put = |changed: Signature| {
        let bytes = Packet::from(changed).to_vec().unwrap();
        let armor = armored(&bytes);
        bench.repository.write_commit(&payload, &armor)
    };
    let issuer = real.issuer_fingerprints().next().unwrap().into();
    let with = |value: SubpacketValue, is_critical: bool| {
        let mut changed = real.clone();
        let area = changed.unhashed_area_mut();
        area.clear();
        area.add(Subpacket::new(value, is_critical).unwrap())
            .unwrap();
        put(changed)
    };
    bench.accepts(&with(SubpacketValue::Issuer(issuer), false));
    let mut without = real.clone();
    without.unhashed_area_mut().clear();
    bench.accepts(&put(without));
    let issuer: sequoia_openpgp::KeyID = real.issuer_fingerprints().next().unwrap().into();
    let other = sequoia_openpgp::KeyID::from(1);
    for malleated in [
        with(SubpacketValue::Issuer(issuer), true),
        with(SubpacketValue::Issuer(other), false),
        with(SubpacketValue::SignersUserID(b"12345678".to_vec()), false),
    ] {
        bench.refuses(&malleated, "malformed-signature");
    }
}

#[test]
fn a_new_subkey_counts_from_the_policy_that_shows_it() {
    let (mut court, mut pat) = court(SITE);
    add_subkey(&court.bench.repository, &mut pat, &[], "1y");
    court.put("layers/site/motd");
    commit(&court.bench, &pat);
    court.refuses("unknown-key");
    court.bench.repository.reset("HEAD~1");
    court.more_keys = format!("pat = \"{}\"\n", pat.public);
    court.write();
    court.alice("pat has a new subkey");
    court.accepts();
    court.put("layers/site/motd");
    commit(&court.bench, &pat);
    court.accepts();
}

#[test]
fn nobody_shows_a_subkey_of_his_own_in_the_change_that_it_signs() {
    let rules = RULES.replace("[\"alice\"]", "[\"alice\", \"pat\"]");
    let (mut court, mut pat) = court(&rules);
    add_subkey(&court.bench.repository, &mut pat, &[], "1y");
    court.more_keys = format!("pat = \"{}\"\n", pat.public);
    court.write();
    commit(&court.bench, &pat);
    // What was before decides, and that does not know it.
    court.refuses("unknown-key");
}

const TWO: &str = "[root]\nkeys = [\"alice\"]\n[[allow]]\nkeys = [\"bob\", \"pat\"]\npaths = [\"layers/**\"]\n[[protect]]\npaths = [\"layers/base/**\"]\nthreshold = 2\n";

#[test]
fn an_approval_may_be_signed_by_a_certificate_and_counts_once() {
    let (mut court, mut pat) = court(TWO);
    court.put("layers/base/motd");
    let change = court.bob("say hello");
    court.waits();
    court.approve(&pat, &change);
    court.accepts();

    // By its primary key and by a subkey it is one signer.
    add_subkey(&court.bench.repository, &mut pat, &[], "1y");
    court.more_keys = format!("pat = \"{}\"\n", pat.public);
    court.write();
    court.alice("pat has a new subkey");
    court.put("layers/base/issue");
    let primary = format!("{}!", pat.digits().unwrap());
    let by_primary = Key {
        fingerprint: format!("openpgp:{primary}"),
        ..pat.clone()
    };
    let change = commit(&court.bench, &by_primary);
    court.approve(&pat, &change);
    court.waits();
    court.approve(&court.bench.bob, &change);
    court.accepts();
}

#[test]
fn an_approval_by_a_certificate_that_has_expired_needs_another_to_stand_for_it() {
    let mut court = Court::new();
    let then = ["--faked-system-time", "20240101T000000"];
    let repository = &court.bench.repository;
    let old = repository.certificate_at("pat", "ed25519", "1y", &then);
    repository.sign_at(&old, "20240601T000000");
    court.more_keys = format!("pat = \"{}\"\n", old.public);
    court.change(TWO);
    court.alice("list pat");
    court.bench.anchor = court.bench.repository.id("HEAD");
    court.put("layers/base/motd");
    let change = court.bob("say hello");
    court.approve(&old, &change);
    court.bob("more");
    court.refuses("key-expired");
    court.alice("as it was");
    court.accepts();
}

#[test]
fn a_certificate_approves_with_the_command_of_limpet() {
    let (court, pat) = court(TWO);
    court.put("layers/base/motd");
    court.bob("say hello");
    let repository = &court.bench.repository;
    for (name, value) in [
        ("user.signingkey", pat.digits().unwrap()),
        ("user.name", "Tess Ter"),
        ("user.email", "tess@example.net"),
    ] {
        repository.git(&["config", name, value]);
    }
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_limpet"))
        .arg("approve")
        .current_dir(repository.work())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GNUPGHOME", &pat.file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    court.accepts();
}

#[test]
fn a_release_may_be_signed_by_a_certificate() {
    let (mut bench, pat) = bench();
    bench.options.extend(["--tags".to_owned(), "^1".to_owned()]);
    let work = commit(&bench, &bench.alice);
    let tag = |key: &Key, name: &str| {
        let arguments = ["tag", "-s", "-f", "-m", "a release", name, &work];
        bench.repository.git_signed(key, &arguments);
    };
    tag(&pat, "v1.0.0");
    bench.accepts("v1.0.0");
    let eve = bench.repository.certificate("eve", "ed25519", "2y");
    tag(&eve, "v1.1.0");
    bench.refuses("v1.1.0", "unknown-key");

    let (mut court, pat) = court(SITE);
    let options = ["--tags".to_owned(), "^1".to_owned()];
    court.bench.options.extend(options);
    let head = court.bench.repository.id("HEAD");
    let arguments = ["tag", "-s", "-m", "a release", "v1.0.0", &head];
    court.bench.repository.git_signed(&pat, &arguments);
    court.bench.accepts("v1.0.0");
}
