//! Whose signature a commit carries, and whether it holds.
//!
//! A signature that holds says who made a commit, and nothing about whether they may: that is [`super::step`]'s.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::key::{PublicKey, SignatureError};
use super::openpgp::{self, Block, Made};
use super::rule::{Refusal, Rule, Stop};
use super::sshsig::Signature;

/// Whose signature a revision carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// The key: `SHA256:` as `ssh-keygen -l` prints it, or `openpgp:` and what gpg prints.
    pub fingerprint: String,
    /// The name that the policy, or the allowed signers file, gives it.
    pub principal: String,
}

impl std::fmt::Display for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.principal, self.fingerprint)
    }
}

/// How many certificates are tried that say they have the key of one signature.
const MAX_TRIES: usize = 8;

/// A key that signed a commit, whether or not it may.
#[derive(Debug, Clone)]
pub(super) struct Voucher {
    /// None where nobody was asked who signed it; such a one is listed nowhere.
    pub(super) key: Option<PublicKey>,
    pub(super) fingerprint: String,
    /// What of an OpenPGP certificate made it.
    made: Option<Made>,
}

impl Voucher {
    /// Who made the signature `armor` over `payload`, which is a `noun`: it holds, and the key is none that anybody could sign for. A
    /// signature that does not carry its key is by one of those that are `known`: the first that come are asked first.
    pub(super) fn by(
        armor: &[u8],
        payload: &[u8],
        noun: &str,
        known: [&dyn Fn() -> Result<Vec<PublicKey>, Stop>; 2],
    ) -> Result<Self, Stop> {
        if openpgp::is_armor(armor) {
            return Voucher::by_certificate(&Block::parse(armor)?, payload, noun, known);
        }
        let signature = Signature::parse(armor)?;
        let fingerprint = signature.key.fingerprint();
        if let Some(weakness) = signature.key.weakness() {
            let detail = format!("the key of signer '{fingerprint}' {weakness}");
            return Err(Refusal::new(Rule::WeakKey, detail)
                .signed_by(&fingerprint)
                .into());
        }
        check(&signature, payload, noun)?;
        Ok(Voucher {
            key: Some(signature.key),
            fingerprint,
            made: None,
        })
    }

    fn by_certificate(
        block: &Block,
        payload: &[u8],
        noun: &str,
        known: [&dyn Fn() -> Result<Vec<PublicKey>, Stop>; 2],
    ) -> Result<Self, Stop> {
        let issuer = block.issuer();
        let detail = format!("no certificate that is listed has the key '{issuer}' for signing");
        let mut refusal = Refusal::new(Rule::UnknownKey, detail).signed_by(issuer);
        let mut tries = 0..MAX_TRIES;
        for known in known {
            for key in known()? {
                let holds = key
                    .certificate()
                    .and_then(|certificate| block.by(certificate, payload, noun));
                match holds {
                    None => {}
                    Some(Ok(made)) => {
                        return Ok(Voucher {
                            fingerprint: key.fingerprint(),
                            key: Some(key),
                            made: Some(made),
                        });
                    }
                    Some(Err(cause)) => {
                        refusal = cause;
                        if tries.next().is_none() {
                            return Err(refusal.into());
                        }
                    }
                }
            }
        }
        Err(refusal.into())
    }

    /// Nobody was asked.
    pub(super) fn unasked() -> Self {
        Voucher {
            key: None,
            fingerprint: String::new(),
            made: None,
        }
    }

    /// The subkey that made it, or the primary key again; none of an SSH key.
    pub(super) fn subkey(&self) -> Option<String> {
        self.made.as_ref().map(Made::fingerprint)
    }

    /// Why the signature counts no longer, if so, by what the key that is `listed` says of itself.
    pub(super) fn lapsed(
        &self,
        listed: &PublicKey,
        now: Timestamp,
    ) -> Result<Option<String>, Refusal> {
        match (&self.made, listed.certificate()) {
            (Some(made), Some(certificate)) => certificate.lapsed(made, now),
            _ => Ok(None),
        }
    }
}

pub(super) fn unsigned() -> Refusal {
    Refusal::new(Rule::Unsigned, "it has no signature")
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
