//! The last good program, `/var/lib/limpet/previous/limpet`, and what is known of it.
//!
//! Invariant: the file that is there is always whole, and known by its SHA-256: a crash between the program and the words about it
//! leaves the words about both.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config;
use crate::kinds::package::status::{Database, State};
use crate::model::{Class, Failure};
use crate::recovery::PACKAGE;
use crate::sys::files::{Entry, Hashing};
use crate::sys::{Host, clock};

/// Where it is; `limpet-recover.service` runs it.
pub const PROGRAM: &str = "/var/lib/limpet/previous/limpet";
/// What is known of it.
const WORDS: &str = "/var/lib/limpet/previous/kept.json";
/// The largest file of words that is read.
const WORDS_LIMIT: u64 = 64 << 10;
/// The largest program that is hashed.
const PROGRAM_LIMIT: u64 = 1 << 30;

/// A program that has proven itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The version of its package.
    pub version: String,
    /// SHA-256 of its bytes.
    #[serde(with = "hex")]
    pub sha256: [u8; 32],
    /// How many those are.
    pub bytes: u64,
    /// When it was kept.
    pub at: Timestamp,
}

/// What the file of words says.
#[derive(Debug, Serialize, Deserialize)]
struct Words {
    kept: Kept,
    /// The one before, while it is being replaced.
    before: Option<Kept>,
}

/// The kept program, if there is a whole one.
pub fn read(host: &Host) -> Result<Option<Kept>, Failure> {
    let Some(words) = read_words(host)? else {
        return Ok(None);
    };
    let Some(sha256) = hash(host, PROGRAM)? else {
        return Ok(None);
    };
    let known = [Some(words.kept), words.before];
    Ok(known
        .into_iter()
        .flatten()
        .find(|kept| kept.sha256 == sha256))
}

/// SHA-256 of the program at `path`, if there is one.
pub fn hash(host: &Host, path: &str) -> Result<Option<[u8; 32]>, Failure> {
    Ok(match host.look(path, Hashing::UpTo(PROGRAM_LIMIT))?.entry {
        Entry::File { sha256, .. } => sha256,
        _ => None,
    })
}

/// What became of the wish to keep a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// It was kept before.
    Already,
    /// It is kept now.
    Copied,
    /// An upgrade is on its way, or it is not the installed program.
    NotNow,
}

/// Keeps the program that runs, if it is the installed one and not kept yet.
pub fn keep(host: &Host) -> Result<Keeping, Failure> {
    let database = Database::read(host)?;
    let Some(entry) = database
        .get(PACKAGE)
        .filter(|entry| entry.state == State::Installed)
    else {
        return Ok(Keeping::NotNow); // a package that is half there is judged when it is whole
    };
    let Some(bytes) = size(host, config::PROGRAM)?.filter(|_| host.is_our_program(config::PROGRAM))
    else {
        return Ok(Keeping::NotNow); // an upgrade has replaced it; its successor is on its way
    };
    let before = read_words(host).ok().flatten().map(|words| words.kept);
    if let Some(before) = &before
        && (&before.version, before.bytes) == (&entry.version, bytes)
        && size(host, PROGRAM)? == Some(bytes)
    {
        return Ok(Keeping::Already);
    }
    host.ensure_own_directory(config::PREVIOUS_DIRECTORY, 0o700)?;
    let sha256 = hash(host, config::PROGRAM)?.ok_or_else(|| {
        let message = format!(
            "failed to read '{}': it vanished a moment ago",
            config::PROGRAM
        );
        Failure::new(Class::Transient, message)
    })?;
    let kept = Kept {
        version: entry.version.clone(),
        sha256,
        bytes,
        at: clock::now(),
    };
    let words = Words { kept, before };
    let text = serde_json::to_vec(&words).expect("it is plain data");
    host.write_own_file(WORDS, &text, 0o600)?;
    host.copy_own_file(config::PROGRAM, PROGRAM, 0o700, Some(sha256))?;
    Ok(Keeping::Copied)
}

fn size(host: &Host, path: &str) -> Result<Option<u64>, Failure> {
    Ok(match host.look(path, Hashing::Skip)?.entry {
        Entry::File { size, .. } => Some(size),
        _ => None,
    })
}

fn read_words(host: &Host) -> Result<Option<Words>, Failure> {
    let Some(bytes) = host.read_file(WORDS, WORDS_LIMIT)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Failure::new(Class::Host, format!("failed to read '{WORDS}': {error}")))
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = |index: usize| text.get(2 * index..2 * index + 2);
        let mut bytes = [0; 32];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = digits(index)
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                .ok_or_else(|| serde::de::Error::custom("not 64 hexadecimal digits"))?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host whose kept program has these bytes, and whose words speak of `kept` and `before`.
    fn host(bytes: &[u8], kept: Kept, before: Option<Kept>) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        host.ensure_own_directory(config::PREVIOUS_DIRECTORY, 0o700)
            .unwrap();
        host.write_own_file(PROGRAM, bytes, 0o700).unwrap();
        let text = serde_json::to_vec(&Words { kept, before }).unwrap();
        host.write_own_file(WORDS, &text, 0o600).unwrap();
        (root, host)
    }

    fn kept(version: &str, bytes: &[u8]) -> Kept {
        Kept {
            version: version.to_owned(),
            sha256: crate::sys::files::hash(&mut &*bytes).unwrap(),
            bytes: bytes.len() as u64,
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_kept_program_is_known_by_its_bytes() {
        let check = |bytes: &[u8], expected: Option<&str>| {
            let (_root, host) = host(bytes, kept("2", b"second"), Some(kept("1", b"first")));
            let found = read(&host).unwrap().map(|kept| kept.version);
            assert_eq!(found.as_deref(), expected);
        };
        check(b"second", Some("2"));
        // A crash came between the words and the program.
        check(b"first", Some("1"));
        check(b"seco", None);
    }
}
