//! Objects and signatures made in memory, for the tests of this module.

use std::cell::Cell;
use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gix::hash::Kind as Hash;
use jiff::Timestamp;
use ring::digest::{SHA512, digest};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::wire::put_string;
use super::{AllowedSigners, MAX_CATCHUP, Policy, Revoked, Verdict};
use crate::config::{Anchor, TrustMode};
use crate::git::{Object, ObjectError, ObjectId, ObjectKind, Objects};

/// Objects by id, and how many were asked for.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) objects: HashMap<ObjectId, Object>,
    pub(super) reads: Cell<usize>,
}

impl Objects for Store {
    fn get(&self, id: &ObjectId) -> Result<Object, ObjectError> {
        self.reads.set(self.reads.get() + 1);
        self.objects
            .get(id)
            .cloned()
            .ok_or(ObjectError::Missing(*id))
    }
}

impl Store {
    pub(super) fn add(&mut self, kind: ObjectKind, data: impl Into<Vec<u8>>) -> ObjectId {
        let data = data.into();
        let id = gix::objs::compute_hash(Hash::Sha1, kind, &data).unwrap();
        self.objects.insert(id, Object { kind, data });
        id
    }

    /// A tree of these entries: mode, name and id.
    pub(super) fn tree(&mut self, entries: &[(&str, &str, ObjectId)]) -> ObjectId {
        let mut data = Vec::new();
        for (mode, name, id) in entries {
            data.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            data.extend_from_slice(id.as_slice());
        }
        self.add(ObjectKind::Tree, data)
    }

    /// A tree whose fleet.toml names the fleet.
    pub(super) fn fleet_tree(&mut self, fleet: &str) -> ObjectId {
        let file = self.add(ObjectKind::Blob, format!("fleet = \"{fleet}\"\n"));
        self.tree(&[("100644", "fleet.toml", file)])
    }

    /// A commit made at `time`, signed when there is a key.
    pub(super) fn commit(
        &mut self,
        key: Option<&Key>,
        tree: ObjectId,
        parents: &[ObjectId],
        time: i64,
    ) -> ObjectId {
        let payload = payload(tree, parents, time);
        match key {
            Some(key) => self.add(
                ObjectKind::Commit,
                with_signature(&payload, &key.armor(&payload)),
            ),
            None => self.add(ObjectKind::Commit, payload),
        }
    }
}

pub(super) fn payload(tree: ObjectId, parents: &[ObjectId], time: i64) -> String {
    let parents: String = parents.iter().map(|id| format!("parent {id}\n")).collect();
    let person = format!("Tess Ter <tess@example.net> {time} +0000");
    format!("tree {tree}\n{parents}author {person}\ncommitter {person}\n\nchange something\n")
}

pub(super) fn with_signature(payload: &str, armor: &str) -> String {
    let (headers, message) = payload.split_once("\n\n").unwrap();
    let folded = armor.replace('\n', "\n ");
    format!("{headers}\ngpgsig {folded}\n\n{message}")
}

/// An Ed25519 key.
pub(super) struct Key {
    pair: Ed25519KeyPair,
}

impl Key {
    pub(super) fn new(seed: u8) -> Self {
        Key {
            pair: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(),
        }
    }

    pub(super) fn point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_owned()
    }

    pub(super) fn blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        put_string(&mut blob, b"ssh-ed25519");
        put_string(&mut blob, self.point());
        blob
    }

    /// As a `.pub` file has it.
    pub(super) fn public(&self) -> String {
        format!("ssh-ed25519 {}", STANDARD.encode(self.blob()))
    }

    pub(super) fn fingerprint(&self) -> String {
        super::key::fingerprint(&self.blob())
    }

    pub(super) fn allowed(&self, name: &str, options: &str) -> String {
        format!(
            "{name} namespaces=\"git\"{options} ssh-ed25519 {}\n",
            STANDARD.encode(self.blob())
        )
    }

    pub(super) fn armor(&self, payload: &str) -> String {
        let mut signature = Vec::new();
        put_string(&mut signature, b"ssh-ed25519");
        put_string(&mut signature, &self.sign(&message(payload)));
        armor(&self.blob(), &signature)
    }
}

/// What an SSH signature over `payload` signs.
pub(super) fn message(payload: &str) -> Vec<u8> {
    let mut message = b"SSHSIG".to_vec();
    put_string(&mut message, b"git");
    put_string(&mut message, b"");
    put_string(&mut message, b"sha512");
    put_string(&mut message, digest(&SHA512, payload.as_bytes()).as_ref());
    message
}

/// The armor of a signature by `key`, both as SSH encodes them.
pub(super) fn armor(key: &[u8], signature: &[u8]) -> String {
    let mut blob = b"SSHSIG\0\0\0\x01".to_vec();
    put_string(&mut blob, key);
    put_string(&mut blob, b"git");
    put_string(&mut blob, b"");
    put_string(&mut blob, b"sha512");
    put_string(&mut blob, signature);
    let base64 = STANDARD.encode(blob);
    let lines: Vec<&str> = base64
        .as_bytes()
        .chunks(70)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----",
        lines.join("\n")
    )
}

pub(super) fn policy(anchor: ObjectId, allowed: &str, revoked: &str) -> Policy {
    Policy {
        anchor: Anchor {
            commit: anchor,
            payload_sha256: None,
            signer: None,
        },
        allowed: Ok(AllowedSigners::parse("allowed_signers", allowed.as_bytes()).unwrap()),
        revoked: Revoked::parse("revoked", revoked.as_bytes()).unwrap(),
        mode: TrustMode::Path,
        max_catchup: MAX_CATCHUP,
        source_path: String::new(),
        fleet: None,
        channel: None,
        releases: None,
    }
}

/// The host's time in these tests.
pub(super) fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

/// The verdict in a word: a rule, or what else it is.
pub(super) fn word_of(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Accepted(_) => "accepted",
        Verdict::Unchanged => "unchanged",
        Verdict::Behind { .. } => "behind",
        Verdict::Diverged { .. } => "diverged",
        Verdict::Pending(_) => "pending",
        Verdict::Refused(refusal) => refusal.rule.as_str(),
        Verdict::Unavailable(_) => "unavailable",
    }
}
