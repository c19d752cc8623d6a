//! Entry points for fuzzing what decides whom a host believes.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::commit::{Commit, read_ancestry};
#[cfg(feature = "openpgp")]
use super::openpgp::{Block, Certificate};
use super::release;
use super::sshsig::Signature;
use super::{
    AllowedSigners, FleetPolicy, POLICY_FILE, PublicKey, Revoked, check_change, fleet_name, tree,
};
#[cfg(feature = "openpgp")]
use crate::config::is_fingerprint;
use crate::document::Source;
use crate::git::{ObjectId, ObjectKind};

const FORMATS: [gix::hash::Kind; 2] = [gix::hash::Kind::Sha1, gix::hash::Kind::Sha256];

/// The signature of a commit, in its armor; other bytes are put into one, which they would hardly ever be by chance.
pub fn sshsig(bytes: &[u8]) {
    let armor = match bytes.starts_with(b"-----") {
        true => bytes.to_owned(),
        false => {
            let body = STANDARD.encode(bytes);
            let lines: Vec<&str> = (0..body.len())
                .step_by(70)
                .map(|start| &body[start..body.len().min(start + 70)])
                .collect();
            let lines = lines.join("\n");
            format!("-----BEGIN SSH SIGNATURE-----\n{lines}\n-----END SSH SIGNATURE-----")
                .into_bytes()
        }
    };
    if let Ok(signature) = Signature::parse(&armor) {
        let _ = signature.verify(b"a payload");
    }
    let _ = PublicKey::parse(bytes);
}

/// An OpenPGP certificate, after its length in two bytes, and the signature of a commit, in its armor or without it.
#[cfg(feature = "openpgp")]
pub fn openpgp_signature(bytes: &[u8]) {
    let [high, low, rest @ ..] = bytes else {
        return;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let (certificate, signature) = rest.split_at(length);
    let armor = match signature.starts_with(b"-----") {
        true => signature.to_owned(),
        false => {
            let body = STANDARD.encode(signature);
            let lines: Vec<&str> = (0..body.len())
                .step_by(64)
                .map(|start| &body[start..body.len().min(start + 64)])
                .collect();
            let lines = lines.join("\n");
            format!("-----BEGIN PGP SIGNATURE-----\n\n{lines}\n-----END PGP SIGNATURE-----")
                .into_bytes()
        }
    };
    let block = Block::parse(&armor);
    let Ok(certificate) = Certificate::parse(certificate) else {
        return;
    };
    assert!(is_fingerprint(&certificate.fingerprint()));
    assert!(certificate == certificate.clone() && !certificate.primary().is_empty());
    let made = block.ok().and_then(|block| {
        assert!(is_fingerprint(&block.issuer()));
        block.by(&certificate, b"a payload\n", "commit")?.ok()
    });
    let now = Timestamp::from_second(1_800_000_000).expect("it is a time");
    if let Some(Ok(None)) = made.map(|made| certificate.lapsed(&made, now)) {
        assert_eq!(certificate.revocation(), None);
        assert_eq!(certificate.weakness(), None);
    }
}

/// The list of who may sign.
pub fn allowed_signers(bytes: &[u8]) {
    let Ok(allowed) = AllowedSigners::parse("allowed_signers", bytes) else {
        return;
    };
    let keys: BTreeSet<String> = allowed.keys().map(|key| key.fingerprint).collect();
    assert_eq!(keys.len(), allowed.keys().count(), "a key is listed once");
    let text = std::str::from_utf8(bytes).expect("what is read is text");
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    assert!(keys.len() <= lines.count(), "no line is two keys");
}

/// The list of who may no longer.
pub fn revoked(bytes: &[u8]) {
    if let Ok(revoked) = Revoked::parse("revoked", bytes) {
        assert!(!revoked.contains(""), "nothing is no key");
    }
}

/// A commit object, or a tag.
pub fn commit(bytes: &[u8]) {
    for format in FORMATS {
        if let Ok(parts) = release::split(ObjectId::null(format), bytes) {
            let (payload, signature) = (parts.payload, parts.signature.unwrap_or_default());
            assert!(bytes.starts_with(payload) && payload.ends_with(parts.message));
            assert!(bytes.len() - payload.len() - signature.len() <= 1);
        }
        let parse = |bytes: &[u8]| Commit::parse(ObjectId::null(format), ObjectKind::Commit, bytes);
        read_ancestry(ObjectId::null(format), bytes);
        let Ok(commit) = parse(bytes) else {
            continue;
        };
        commit.subject();
        commit.trailers();
        let (parents, time) = read_ancestry(commit.id, bytes);
        assert_eq!(parents, commit.parents);
        assert_eq!(time, commit.claimed_time_secs);
        assert!(bytes.ends_with(&commit.message));
        if let Some(armor) = &commit.signature {
            let _ = Signature::parse(armor);
        }
        // What is signed is the same commit without its signature, and nothing else of it is lost.
        let signed = parse(&commit.payload).expect("what is signed is a commit");
        assert_eq!(signed.signature, None);
        assert_eq!(signed.payload, commit.payload);
        assert_eq!(signed.payload_sha256, commit.payload_sha256);
        assert_eq!((signed.tree, signed.parents), (commit.tree, commit.parents));
        assert_eq!(signed.message, commit.message);
    }
}

/// A tree object, and the one name that is read out of its fleet.toml before anything is trusted.
pub fn tree(bytes: &[u8]) {
    for format in FORMATS {
        let Ok(entries) = tree::parse(ObjectId::null(format), bytes) else {
            continue;
        };
        let names: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names.len(), entries.len(), "a name is there once");
        for name in names {
            assert!(!name.is_empty() && !name.contains('/') && name != "." && name != "..");
            assert!(!name.eq_ignore_ascii_case(".git"));
        }
    }
    fleet_name::parse(bytes);
}

/// trust.toml.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(policy) = FleetPolicy::parse(&Source::new(POLICY_FILE, text)) else {
        return;
    };
    let fingerprints: BTreeSet<&str> = policy
        .keys
        .values()
        .map(|key| key.fingerprint.as_str())
        .collect();
    assert_eq!(fingerprints.len(), policy.keys.len(), "a key has one name");
    let named = policy.allowed.iter().flat_map(|allow| &allow.keys);
    for name in named.chain(&policy.root.keys) {
        assert!(policy.keys.contains_key(name), "who is named has a key");
    }
    for name in policy.keys.keys() {
        let is_root = policy.is_root(name);
        assert_eq!(policy.may_change(name, POLICY_FILE), is_root);
        assert!(!is_root || policy.may_change(name, "layers/base/base.toml"));
    }
    assert!(
        !policy.may_change("", "layers/base/base.toml"),
        "nobody is nobody"
    );
    // It never follows itself, and is the first only with version 1.
    let now = Timestamp::UNIX_EPOCH;
    assert!(check_change(Some(&policy), &policy, now).is_err());
    assert!(policy.version == 1 || check_change(None, &policy, now).is_err());
}
