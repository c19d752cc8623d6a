//! Secrets in age's format (age-encryption.org/v1), for X25519 keys and nothing else: no passphrases, plug-ins or SSH keys.
//!
//! What is *sealed* is for *recipients*, who are public; whoever has the *identity* of one opens it.
//!
//! Invariant: pure. What is returned was authenticated, and is bounded before it is read; and what is opened, and what opens it, has no
//! `Debug` that shows it.

use std::cmp::Ordering;
use std::fmt;
use std::io::{Read, Write};
use std::iter::once;
use std::str::FromStr;

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::ExposeSecret;
use age::{DecryptError, Decryptor, Encryptor, x25519};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::hmac;
use zeroize::Zeroizing;

/// The most that is sealed or opened, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// The most that something sealed has, in bytes: with a key for each of many hosts, and in letters.
pub const MAX_SEALED_BYTES: usize = 4 << 20;

/// The first line of what is sealed and not in letters.
const VERSION: &[u8] = b"age-encryption.org/v1\n";
/// The first line of what is.
const BEGIN: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";

/// Why something sealed stays closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// It is none, or damaged.
    Malformed(&'static str),
    /// It is for others.
    ForOthers,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Closed::Malformed(why) => f.write_str(why),
            Closed::ForOthers => f.write_str("it is not encrypted for this key"),
        }
    }
}

impl std::error::Error for Closed {}

/// A public key: `age1…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient(x25519::Recipient);

/// A text that is no recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRecipient;

impl FromStr for Recipient {
    type Err = NoRecipient;

    fn from_str(text: &str) -> Result<Self, NoRecipient> {
        let recipient = text.parse().map(Recipient).map_err(|_| NoRecipient)?;
        // One key has one spelling, so that texts can be compared.
        match recipient.to_string() == text {
            true => Ok(recipient),
            false => Err(NoRecipient),
        }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Ord for Recipient {
    fn cmp(&self, other: &Self) -> Ordering {
        self.to_string().cmp(&other.to_string())
    }
}

impl PartialOrd for Recipient {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A private key: `AGE-SECRET-KEY-1…`.
#[derive(Clone)]
pub struct Identity(x25519::Identity);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Identity {
    /// A new one.
    pub fn generate() -> Self {
        Identity(x25519::Identity::generate())
    }

    /// The one of a key file: a line, beside comments and empty lines.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let lines = text.lines().map(str::trim);
        let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return Err("it has not exactly one key");
        };
        // The crate takes lower case, too, which no other tool of this format writes or reads.
        let is_upper_case = !line.bytes().any(|byte| byte.is_ascii_lowercase());
        let identity = line.parse().ok().filter(|_| is_upper_case);
        identity
            .map(Identity)
            .ok_or("its line is no AGE-SECRET-KEY-1…")
    }

    /// As a key file has it.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.to_string().expose_secret().to_owned())
    }

    /// Whom to encrypt for.
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.to_public())
    }

    /// A hash of `bytes` that nobody can compare guesses with who has not the identity.
    pub fn keyed_hash(&self, bytes: &[u8]) -> [u8; 32] {
        let mut key = Zeroizing::new([0; 32]);
        let secret = Salt::new(HKDF_SHA256, &[]).extract(self.to_text().as_bytes());
        let expanded = secret.expand(&[b"limpet keyed hash"], HKDF_SHA256);
        expanded
            .and_then(|expanded| expanded.fill(&mut *key))
            .expect("SHA-256 yields 32 bytes");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &*key), bytes);
        tag.as_ref().try_into().expect("a SHA-256 has 32 bytes")
    }
}

/// Is this age's format, as far as its beginning tells.
pub fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(VERSION) || bytes.trim_ascii_start().starts_with(BEGIN)
}

/// Seals `plain` for `recipients`, in letters that a repository and its diffs take for text.
pub fn seal(plain: &[u8], recipients: &[Recipient]) -> Result<String, &'static str> {
    if plain.len() > MAX_BYTES {
        return Err("it has more than 1 MiB");
    }
    let recipients = recipients
        .iter()
        .map(|recipient| &recipient.0 as &dyn age::Recipient);
    let encryptor = Encryptor::with_recipients(recipients).map_err(|_| "it would be for nobody")?;
    let sealed = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)
        .and_then(|letters| encryptor.wrap_output(letters))
        .and_then(|mut writer| {
            writer.write_all(plain)?;
            writer.finish()?.finish()
        });
    let sealed = sealed.map_err(|_| "it cannot be encrypted")?;
    String::from_utf8(sealed).map_err(|_| "it cannot be encrypted")
}

/// Opens what was sealed for `identity`.
pub fn open(sealed: &[u8], identity: &Identity) -> Result<Zeroizing<Vec<u8>>, Closed> {
    if sealed.len() > MAX_SEALED_BYTES {
        return Err(Closed::Malformed("it is too large"));
    }
    if !is_sealed(sealed) {
        return Err(Closed::Malformed("it is not in the format of age"));
    }
    let decryptor = Decryptor::new_buffered(ArmoredReader::new(sealed)).map_err(explain)?;
    let opened = decryptor
        .decrypt(once(&identity.0 as &dyn age::Identity))
        .map_err(explain)?;
    let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
    opened
        .take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|_| Closed::Malformed("it is damaged or cut off"))?;
    match plain.len() > MAX_BYTES {
        true => Err(Closed::Malformed("it has more than 1 MiB")),
        false => Ok(plain),
    }
}

fn explain(error: DecryptError) -> Closed {
    Closed::Malformed(match error {
        DecryptError::NoMatchingKeys => return Closed::ForOthers,
        DecryptError::InvalidMac => "its header was changed",
        DecryptError::InvalidHeader => "its header cannot be read",
        DecryptError::UnknownFormat => "it is in another version of age's format",
        _ => "it is damaged or cut off",
    })
}

#[cfg(test)]
mod tests;
