//! Whose signature a commit carries, and whether it holds.
//!
//! A signature that holds says who made a commit, and nothing about whether they may: that is [`super::step`]'s.

use serde::{Deserialize, Serialize};

use super::commit::Commit;
use super::key::{PublicKey, SignatureError};
use super::rule::{Refusal, Rule};
use super::sshsig::Signature;

/// Whose signature a revision carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// The key, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// The name that the policy, or the allowed signers file, gives it.
    pub principal: String,
}

impl std::fmt::Display for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.principal, self.fingerprint)
    }
}

/// A key that signed a commit, whether or not it may.
#[derive(Debug, Clone)]
pub(super) struct Voucher {
    /// None where nobody was asked who signed it; such a one is listed nowhere.
    pub(super) key: Option<PublicKey>,
    pub(super) fingerprint: String,
}

impl Voucher {
    /// Who signed `commit`: the signature holds, and the key is none that anybody could sign for.
    pub(super) fn of(commit: &Commit) -> Result<Self, Refusal> {
        match &commit.signature {
            None => Err(unsigned()),
            Some(armor) => Voucher::by(armor, &commit.payload, "commit"),
        }
        .map_err(|refusal| refusal.of(commit.id))
    }

    /// Who made the signature `armor` over `payload`, which is a `noun`.
    pub(super) fn by(armor: &[u8], payload: &[u8], noun: &str) -> Result<Self, Refusal> {
        let signature = Signature::parse(armor)?;
        let fingerprint = signature.key.fingerprint();
        if let Some(weakness) = signature.key.weakness() {
            return Err(Refusal::new(
                Rule::WeakKey,
                format!("the key of signer '{fingerprint}' {weakness}"),
            )
            .signed_by(&fingerprint));
        }
        check(&signature, payload, noun)?;
        Ok(Voucher {
            key: Some(signature.key),
            fingerprint,
        })
    }

    /// Nobody was asked.
    pub(super) fn unasked() -> Self {
        Voucher {
            key: None,
            fingerprint: String::new(),
        }
    }
}

fn unsigned() -> Refusal {
    Refusal::new(Rule::Unsigned, "it has no signature")
}

/// The signature that `commit` carries.
pub(super) fn read_signature(commit: &Commit) -> Result<Signature, Refusal> {
    let Some(armor) = &commit.signature else {
        return Err(unsigned().of(commit.id));
    };
    Signature::parse(armor).map_err(|refusal| refusal.of(commit.id))
}

/// Does `signature` hold over `commit`?
pub(super) fn verify(signature: &Signature, commit: &Commit) -> Result<(), Refusal> {
    check(signature, &commit.payload, "commit").map_err(|refusal| refusal.of(commit.id))
}

/// Does `signature` hold over `payload`, which is a `noun`?
fn check(signature: &Signature, payload: &[u8], noun: &str) -> Result<(), Refusal> {
    let fingerprint = signature.key.fingerprint();
    let (rule, detail) = match signature.verify(payload) {
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
            format!("its signature is not by '{fingerprint}' over this {noun}"),
        ),
        Err(SignatureError::NoUserPresence) => (
            Rule::NoUserPresence,
            format!("nobody touched the security key '{fingerprint}' to sign it"),
        ),
    };
    Err(Refusal::new(rule, detail).signed_by(fingerprint))
}
