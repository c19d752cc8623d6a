//! A revision that is trusted, and what is remembered of the last one.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::authority::Signer;
use super::commit::Commit;
use super::rule::Stop;
use super::step::Judge;
use super::succession::Revocation;
use super::tree::{ChangeCheck, Files};
use super::way::Standing;
use super::{Policy, read_commit, read_fleet_name};
use crate::git::{ObjectId, Objects, Tree, hex};

/// The last commit that was verified, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedHead {
    /// Its id.
    #[serde(with = "hex_id")]
    pub commit: ObjectId,
    /// SHA-256 of its payload, in hex. Together with the id it is the commit's identity.
    pub payload_sha256: String,
    /// Its root tree.
    #[serde(with = "hex_id")]
    pub tree: ObjectId,
    /// The name of its fleet, unless it has no fleet.toml yet.
    pub fleet: Option<String>,
    /// Who signed it; None when local root set it.
    pub signer: Option<Signer>,
    /// The version of its policy, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<u64>,
    /// Every key that a policy revoked on the way to it. What is revoked stays so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocations: Vec<Revocation>,
    /// The fingerprints of keys that its policy lists and that have not proved that somebody holds them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unproven: Vec<String>,
    /// The name of the release that it is, or that the last one before it was: versions only rise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Those of them that this very commit added: they may prove it with the next one, whatever that changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub just_added: Vec<String>,
}

impl TrustedHead {
    /// The commit `id`, trusted because local root says so.
    pub fn set(objects: &dyn Objects, policy: &Policy, id: ObjectId) -> Result<Self, Stop> {
        let commit = read_commit(objects, id)?;
        ChangeCheck::new(objects).check(id, None, commit.tree)?;
        let own = Judge::new(objects, policy, Timestamp::UNIX_EPOCH).policy_of(id, commit.tree)?;
        let fleet = read_fleet_name(objects, policy, id, commit.tree)?;
        Ok(TrustedHead::new(
            &commit,
            fleet,
            None,
            &Standing::of_policy(own.as_deref()),
        ))
    }

    fn new(
        commit: &Commit,
        fleet: Option<String>,
        signer: Option<Signer>,
        standing: &Standing,
    ) -> Self {
        TrustedHead {
            commit: commit.id,
            payload_sha256: hex(&commit.payload_sha256),
            tree: commit.tree,
            fleet,
            signer,
            policy_version: standing.version,
            revocations: standing.revocations.clone(),
            unproven: standing.unproven.iter().cloned().collect(),
            just_added: standing.just_added.iter().cloned().collect(),
            release: None,
        }
    }

    /// The same, which has also seen what `other` revokes: a host never forgets that.
    pub fn knowing(&self, other: &[Revocation]) -> Self {
        let mut standing = Standing::of_head(self);
        standing.keep(other);
        TrustedHead {
            revocations: standing.revocations,
            ..self.clone()
        }
    }
}

/// A revision that is trusted.
#[derive(Debug, Clone)]
pub struct VerifiedRevision {
    head: TrustedHead,
    subject: String,
    trailers: Vec<(String, String)>,
    passed: Vec<(String, String)>,
    source_path: String,
}

impl VerifiedRevision {
    pub(super) fn new(
        commit: &Commit,
        source_path: &str,
        fleet: Option<String>,
        signer: Option<Signer>,
        standing: &Standing,
    ) -> Self {
        VerifiedRevision {
            head: TrustedHead::new(commit, fleet, signer, standing),
            subject: commit.subject(),
            trailers: commit.trailers(),
            passed: Vec::new(),
            source_path: source_path.to_owned(),
        }
    }

    /// The trusted head once more, which by now is another release.
    pub(super) fn of_head(commit: &Commit, source_path: &str, head: TrustedHead) -> Self {
        VerifiedRevision {
            head,
            subject: commit.subject(),
            trailers: commit.trailers(),
            passed: Vec::new(),
            source_path: source_path.to_owned(),
        }
    }

    /// The same, as the release of this name.
    pub(super) fn released_as(mut self, release: Option<String>) -> Self {
        self.head.release = release;
        self
    }

    /// The same, with what the commits say to limpet that lie between what was trusted before and this one.
    pub(super) fn passing(self, trailers: Vec<(String, String)>) -> Self {
        VerifiedRevision {
            passed: trailers,
            ..self
        }
    }

    /// Its commit.
    pub fn commit(&self) -> ObjectId {
        self.head.commit
    }

    /// SHA-256 of its payload, in hex.
    pub fn payload_sha256(&self) -> &str {
        &self.head.payload_sha256
    }

    /// Its root tree.
    pub fn tree(&self) -> ObjectId {
        self.head.tree
    }

    /// Who signed it; None when local root set it as the head.
    pub fn signer(&self) -> Option<&Signer> {
        self.head.signer.as_ref()
    }

    /// The release that it is, or the last one before it.
    pub fn release(&self) -> Option<&str> {
        self.head.release.as_deref()
    }

    /// The first line of its message, safe to show.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The `Key: value` lines that end its message.
    pub fn trailers(&self) -> &[(String, String)] {
        &self.trailers
    }

    /// The same lines of the commits on the way to it from what was trusted before, as far as they are for limpet. Each was verified as
    /// this one was; where only tips are, there are none.
    pub fn passed_trailers(&self) -> &[(String, String)] {
        &self.passed
    }

    /// What to remember of it once it is the head.
    pub fn trusted_head(&self) -> &TrustedHead {
        &self.head
    }

    /// Its files, relative to the directory that holds fleet.toml. `objects` must hash what it returns.
    pub fn files<'a>(&self, objects: &'a dyn Objects) -> impl Tree + 'a {
        Files::new(objects, self.head.tree, &self.source_path)
    }
}

/// Object ids as hex, in what is stored.
mod hex_id {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::git::ObjectId;

    pub(super) fn serialize<S: Serializer>(
        id: &ObjectId,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ObjectId, D::Error> {
        let text = String::deserialize(deserializer)?;
        ObjectId::from_hex(text.as_bytes()).map_err(serde::de::Error::custom)
    }
}
