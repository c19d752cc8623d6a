//! The file of revoked keys: a key or a fingerprint a line.
//!
//! A revoked key is a *compromised* one: no commit of it after the trusted head is accepted, whatever its date.
//!
//! Invariant: a file that is missing or has a mistake is never read as an empty one.

use super::allowed_signers::lines;
use super::key::{PublicKey, is_fingerprint};
use super::rule::{Refusal, Rule};

/// The keys that may no longer sign.
#[derive(Debug, Clone)]
pub struct Revoked {
    file: String,
    fingerprints: Vec<String>,
}

impl Revoked {
    /// Reads the text of `file`, which is named in errors.
    pub fn parse(file: &str, text: &[u8]) -> Result<Self, Refusal> {
        let mut fingerprints = Vec::new();
        for (number, line) in lines(text) {
            let entry = line.and_then(parse_line).map_err(|cause| {
                Refusal::new(
                    Rule::RevokedFileMissing,
                    format!("{file}:{number}: {cause}"),
                )
                .about(file)
                .with_hint("correct the line; nothing new is accepted until then")
            })?;
            fingerprints.extend(entry);
        }
        Ok(Revoked {
            file: file.to_owned(),
            fingerprints,
        })
    }

    /// The refusal that stands for a file that could not be read at all, because of `cause`.
    pub fn unreadable(file: &str, cause: &str) -> Refusal {
        Refusal::new(
            Rule::RevokedFileMissing,
            format!("failed to read '{file}': {cause}"),
        )
        .about(file)
    }

    /// Where it was read from.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Is the key with this fingerprint revoked?
    pub fn contains(&self, fingerprint: &str) -> bool {
        self.fingerprints.iter().any(|known| known == fingerprint)
    }
}

fn parse_line(line: &str) -> Result<Option<String>, String> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace();
    let first = words.next().unwrap_or_default();
    if is_fingerprint(first) {
        return match words.next() {
            Some(word) if !word.starts_with('#') => {
                Err(format!("'{word}' follows the fingerprint"))
            }
            _ => Ok(Some(first.to_owned())),
        };
    }
    if first.starts_with("SHA256:") {
        return Err(format!("'{first}' is no SHA-256 fingerprint"));
    }
    let key = PublicKey::parse_text(first, words.next().unwrap_or_default()).map_err(|error| {
        format!("it is neither a fingerprint (SHA256:…, openpgp:…) nor a key: {error}")
    })?;
    Ok(Some(key.fingerprint()))
}
