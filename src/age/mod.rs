//! Secrets in age's format (age-encryption.org/v1), for X25519 keys and nothing else: no passphrases, plug-ins or SSH keys.
//!
//! What is *sealed* is for *recipients*, who are public; whoever has the *identity* of one opens it. Its primitives are ring's, and
//! x25519-dalek's for the one that ring has not. (The crate of that name brings ninety others along, with hybrid keys and translations.)
//!
//! Invariant: pure. No text whatsoever makes it panic, or reserve more memory than the text itself has; nothing is returned that was
//! not authenticated; and what is opened, and what opens it, has no `Debug` that shows it.

mod armor;
mod bech32;
mod header;
mod key;
mod payload;

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

pub use key::{Identity, Recipient};

/// The most that is sealed or opened, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// The most that something sealed has, in bytes: with a key for each of many hosts, and in letters.
pub const MAX_SEALED_BYTES: usize = 4 << 20;

/// Why something sealed stays closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// It is none, or damaged.
    Malformed(&'static str),
    /// It is for others.
    ForOthers,
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Closed::Malformed(why) => f.write_str(why),
            Closed::ForOthers => f.write_str("it is not encrypted for this key"),
        }
    }
}

impl std::error::Error for Closed {}

/// Is this age's format, as far as its beginning tells.
pub fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(header::VERSION) || armor::is_armored(bytes)
}

/// Seals `plain` for `recipients`, in letters that a repository and its diffs take for text.
pub fn seal(plain: &[u8], recipients: &[Recipient]) -> Result<String, &'static str> {
    if plain.len() > MAX_BYTES {
        return Err("it has more than 1 MiB");
    }
    if recipients.is_empty() {
        return Err("it would be for nobody");
    }
    let file_key = Zeroizing::new(random::<16>()?);
    let mut sealed = header::write(&file_key, recipients)?;
    payload::write(&file_key, random()?, plain, &mut sealed)?;
    Ok(armor::write(&sealed))
}

/// Opens what was sealed for `identity`.
pub fn open(sealed: &[u8], identity: &Identity) -> Result<Zeroizing<Vec<u8>>, Closed> {
    if sealed.len() > MAX_SEALED_BYTES {
        return Err(Closed::Malformed("it is too large"));
    }
    let decoded;
    let sealed = match armor::is_armored(sealed) {
        true => {
            decoded = armor::read(sealed).map_err(Closed::Malformed)?;
            &decoded
        }
        false => sealed,
    };
    let (file_key, rest) = header::read(sealed, identity)?;
    payload::read(&file_key, rest).map_err(Closed::Malformed)
}

fn random<const N: usize>() -> Result<[u8; N], &'static str> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| "the system has no random numbers")?;
    Ok(bytes)
}

/// 32 bytes of HKDF-SHA256.
fn derive(salt: &[u8], secret: &[u8], info: &[u8]) -> Zeroizing<[u8; 32]> {
    use ring::hkdf::{HKDF_SHA256, Salt};
    let mut key = Zeroizing::new([0; 32]);
    let pseudorandom = Salt::new(HKDF_SHA256, salt).extract(secret);
    let infos = [info];
    let expanded = pseudorandom.expand(&infos, HKDF_SHA256);
    expanded
        .and_then(|expanded| expanded.fill(&mut *key))
        .expect("SHA-256 yields 32 bytes");
    key
}

#[cfg(test)]
mod tests;
