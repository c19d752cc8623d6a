//! Identities, and the recipients that stand for them.

use std::fmt;
use std::str::FromStr;

use ring::hmac;
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};
use zeroize::Zeroizing;

use super::{bech32, derive, random};

const RECIPIENT_PREFIX: &str = "age";
const IDENTITY_PREFIX: &str = "age-secret-key-";

/// A public key: `age1…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recipient(pub(super) [u8; 32]);

/// A text that is no recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRecipient;

impl FromStr for Recipient {
    type Err = NoRecipient;

    fn from_str(text: &str) -> Result<Self, NoRecipient> {
        let is_lower_case = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        bech32::read(RECIPIENT_PREFIX, text)
            .filter(|_| is_lower_case)
            .map(Recipient)
            .ok_or(NoRecipient)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bech32::write(RECIPIENT_PREFIX, &self.0))
    }
}

/// A private key: `AGE-SECRET-KEY-1…`.
#[derive(Clone)]
pub struct Identity {
    secret: Zeroizing<[u8; 32]>,
    recipient: Recipient,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Identity {
    /// A new one.
    pub fn generate() -> Result<Self, &'static str> {
        Ok(Self::of_secret(Zeroizing::new(random()?)))
    }

    /// The one of a key file: a line, beside comments and empty lines.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let lines = text.lines().map(str::trim);
        let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return Err("it has not exactly one key");
        };
        let is_upper_case = !line.bytes().any(|byte| byte.is_ascii_lowercase());
        bech32::read(IDENTITY_PREFIX, line)
            .filter(|_| is_upper_case)
            .map(|secret| Self::of_secret(Zeroizing::new(secret)))
            .ok_or("its line is no AGE-SECRET-KEY-1…")
    }

    fn of_secret(secret: Zeroizing<[u8; 32]>) -> Self {
        let recipient = Recipient(x25519(*secret, X25519_BASEPOINT_BYTES));
        Identity { secret, recipient }
    }

    /// As a key file has it.
    pub fn to_text(&self) -> Zeroizing<String> {
        let text = Zeroizing::new(bech32::write(IDENTITY_PREFIX, &self.secret));
        Zeroizing::new(text.to_ascii_uppercase())
    }

    /// Whom to encrypt for.
    pub fn recipient(&self) -> Recipient {
        self.recipient
    }

    /// What this and `public` have in common; none where `public` is chosen so that everybody has it.
    pub(super) fn agree(&self, public: [u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        shared(*self.secret, public)
    }

    /// A hash of `bytes` that nobody can compare guesses with who has not the identity.
    pub fn keyed_hash(&self, bytes: &[u8]) -> [u8; 32] {
        let key = derive(&[], &*self.secret, b"limpet keyed hash");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*key), bytes);
        tag.as_ref().try_into().expect("a SHA-256 has 32 bytes")
    }
}

/// X25519, without the points that make everybody agree.
pub(super) fn shared(secret: [u8; 32], public: [u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    let shared = Zeroizing::new(x25519(secret, public));
    (*shared != [0; 32]).then_some(shared)
}
