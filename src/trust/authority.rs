//! Who may sign: one commit's signature against the keys that are in force.
//!
//! An *authority* answers for one step, from a commit to its child. Today every step has the same one, made of the host's two
//! files, and each of its keys may change everything. A policy in the repository makes one from the step's predecessor.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::allowed_signers::{AllowedSigner, AllowedSigners};
use super::commit::Commit;
use super::key::SignatureError;
use super::revoked::Revoked;
use super::rule::{Refusal, Rule};
use super::sshsig::Signature;

/// Whose signature a revision carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// The key, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// The name that the allowed signers file gives it.
    pub principal: String,
}

impl std::fmt::Display for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.principal, self.fingerprint)
    }
}

/// The keys in force for one step, at one point in time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Authority<'a> {
    pub(super) allowed: &'a AllowedSigners,
    pub(super) revoked: &'a Revoked,
    pub(super) now: Timestamp,
}

/// A signature that holds.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    pub(super) signer: Signer,
    /// When the key stopped being valid, if it has.
    expired: Option<Timestamp>,
}

impl Signed {
    /// The same, if the key is still valid.
    pub(super) fn valid_now(self, commit: &Commit) -> Result<Self, Refusal> {
        match self.expired {
            None => Ok(self),
            Some(at) => Err(Refusal::new(
                Rule::KeyExpired,
                format!("signer '{}' expired at {at}", self.signer.fingerprint),
            )
            .of(commit.id)
            .signed_by(self.signer.fingerprint)),
        }
    }
}

impl Authority<'_> {
    /// May this commit stand on a path? A key that has expired since may have signed it; who judges the tip asks [`Signed::valid_now`].
    pub(super) fn judge(&self, commit: &Commit) -> Result<Signed, Refusal> {
        let signature = read_signature(commit)?;
        let fingerprint = signature.key.fingerprint();
        let refused = |rule, detail: String| {
            Refusal::new(rule, detail)
                .of(commit.id)
                .signed_by(&fingerprint)
        };
        if let Some(weakness) = signature.key.weakness() {
            return Err(refused(
                Rule::WeakKey,
                format!("the key of signer '{fingerprint}' {weakness}"),
            ));
        }
        if self.revoked.contains(&fingerprint) {
            return Err(refused(
                Rule::KeyRevoked,
                format!(
                    "signer '{fingerprint}' is revoked in '{}'",
                    self.revoked.file()
                ),
            ));
        }
        let Some(allowed) = self.allowed.find(&signature.key) else {
            return Err(refused(
                Rule::UnknownKey,
                format!("signer '{fingerprint}' is not in '{}'", self.allowed.file()),
            ));
        };
        verify(&signature, commit)?;
        if let Some(start) = allowed.valid_after.filter(|start| self.now < *start) {
            return Err(refused(
                Rule::KeyNotYetValid,
                format!("signer '{fingerprint}' is not valid before {start}"),
            ));
        }
        Ok(Signed {
            signer: signer(allowed, fingerprint),
            expired: allowed.valid_before.filter(|end| *end <= self.now),
        })
    }
}

fn signer(allowed: &AllowedSigner, fingerprint: String) -> Signer {
    Signer {
        fingerprint,
        principal: allowed.principal.clone(),
    }
}

/// The signature that `commit` carries.
pub(super) fn read_signature(commit: &Commit) -> Result<Signature, Refusal> {
    let Some(armor) = &commit.signature else {
        return Err(Refusal::new(Rule::Unsigned, "it has no signature").of(commit.id));
    };
    Signature::parse(armor).map_err(|refusal| refusal.of(commit.id))
}

/// Does `signature` hold over `commit`?
pub(super) fn verify(signature: &Signature, commit: &Commit) -> Result<(), Refusal> {
    let fingerprint = signature.key.fingerprint();
    let (rule, detail) = match signature.verify(&commit.payload) {
        Ok(()) => return Ok(()),
        Err(SignatureError::Malformed(cause)) => (
            Rule::MalformedSignature,
            format!("its signature is malformed: {cause}"),
        ),
        Err(SignatureError::Weak(cause)) => (
            Rule::WeakKey,
            format!("the signature of '{fingerprint}' {cause}"),
        ),
        Err(SignatureError::Bad) => (
            Rule::BadSignature,
            format!("its signature is not by '{fingerprint}' over this commit"),
        ),
        Err(SignatureError::NoUserPresence) => (
            Rule::NoUserPresence,
            format!("nobody touched the security key '{fingerprint}' to sign it"),
        ),
    };
    Err(Refusal::new(rule, detail)
        .of(commit.id)
        .signed_by(fingerprint))
}
