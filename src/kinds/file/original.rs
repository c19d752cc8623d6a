//! What the inventory keeps about paths: what was there before limpet, and what limpet applied.

use serde::{Deserialize, Serialize};

use crate::kinds::file::MAX_CONTENT_BYTES;
use crate::model::{Class, Failure, Name};
use crate::sys::Host;
use crate::sys::files::{Attributes, Entry, Hashing, Walk, hash_bytes};
use crate::sys::xattrs::{NamedXattrs, Xattrs};

/// What was at a path before limpet first touched it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Original {
    /// Nothing.
    Absent,
    /// A file, whose bytes are kept among the originals.
    File {
        /// SHA-256 of its bytes, and their name among the originals.
        #[serde(with = "hex")]
        sha256: [u8; 32],
        /// In bytes.
        size: u64,
        /// Permission bits.
        mode: u32,
        /// The owner's number.
        uid: u32,
        /// The group's number.
        gid: u32,
        /// Access control list, capabilities and more.
        #[serde(default, skip_serializing_if = "Xattrs::is_empty")]
        xattrs: Xattrs,
    },
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
        /// The owner's number.
        uid: u32,
        /// The group's number.
        gid: u32,
        /// Access control lists and more.
        #[serde(default, skip_serializing_if = "Xattrs::is_empty")]
        xattrs: Xattrs,
    },
    /// A symbolic link.
    Symlink {
        /// What it said.
        target: String,
        /// The numbers of its user and group; older versions did not keep them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<(u32, u32)>,
    },
    /// A file of which only permissions and owner are known: too large to keep, or not kept yet.
    AttributesOnly {
        /// Permission bits.
        mode: u32,
        /// The owner's number.
        uid: u32,
        /// The group's number.
        gid: u32,
        /// Access control list, capabilities and more.
        #[serde(default, skip_serializing_if = "Xattrs::is_empty")]
        xattrs: Xattrs,
    },
}

impl Original {
    /// The same, of a file without its bytes.
    pub fn without_content(self) -> Self {
        match self {
            Original::File {
                mode,
                uid,
                gid,
                xattrs,
                ..
            } => Original::AttributesOnly {
                mode,
                uid,
                gid,
                xattrs,
            },
            other => other,
        }
    }

    /// The extended attributes that it had.
    pub fn xattrs(&self) -> Option<&Xattrs> {
        match self {
            Original::File { xattrs, .. }
            | Original::Directory { xattrs, .. }
            | Original::AttributesOnly { xattrs, .. } => Some(xattrs),
            Original::Absent | Original::Symlink { .. } => None,
        }
    }
}

/// What limpet applied to a path. Of permissions and owner only what was declared or is a default for what limpet made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Applied {
    /// A file.
    File {
        /// SHA-256 of its content, if that is managed.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            with = "optional_hex"
        )]
        sha256: Option<[u8; 32]>,
        /// Permission bits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        /// A user's name or number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<Name>,
        /// A group's name or number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<Name>,
        /// The extended attributes that were declared, and what each was to be.
        #[serde(default, skip_serializing_if = "NamedXattrs::is_empty")]
        xattrs: NamedXattrs,
        /// With whose rights it was written, where not root's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        as_user: Option<Name>,
        /// Its content is a secret, and the hash one with this host's key.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        secret: bool,
    },
    /// A directory.
    Directory {
        /// Permission bits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        /// A user's name or number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<Name>,
        /// A group's name or number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<Name>,
        /// The extended attributes that were declared, and what each was to be.
        #[serde(default, skip_serializing_if = "NamedXattrs::is_empty")]
        xattrs: NamedXattrs,
        /// What was in it and not declared went.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        purge: bool,
    },
    /// A symbolic link.
    Symlink {
        /// What it says.
        target: String,
    },
    /// A directory that nobody declares, made because a declared path lies below it.
    Parent {
        /// With whose rights, where not root's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        as_user: Option<Name>,
    },
    /// Nothing is there.
    Absent {
        /// With whose rights, where not root's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        as_user: Option<Name>,
    },
}

impl Applied {
    /// Is its content a secret.
    pub fn is_secret(&self) -> bool {
        matches!(self, Applied::File { secret: true, .. })
    }

    /// Whose rights it was made with, where not root's.
    pub fn as_user(&self) -> Option<&Name> {
        match self {
            Applied::File { as_user, .. }
            | Applied::Parent { as_user }
            | Applied::Absent { as_user } => as_user.as_ref(),
            Applied::Directory { .. } | Applied::Symlink { .. } => None,
        }
    }

    /// The extended attributes that were declared.
    pub fn xattrs(&self) -> Option<&NamedXattrs> {
        match self {
            Applied::File { xattrs, .. } | Applied::Directory { xattrs, .. } => Some(xattrs),
            Applied::Symlink { .. } | Applied::Parent { .. } | Applied::Absent { .. } => None,
        }
    }

    /// As the inventory stores it: JSON.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("it has string keys only")
    }
}

/// What the inventory says was applied to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remembered {
    /// A run ended between its intention and its conclusion: nobody knows.
    Nothing,
    /// This.
    Applied(Applied),
    /// It cannot be read; why.
    Unreadable(String),
}

impl Remembered {
    /// Reads what the inventory stores.
    pub fn of_text(text: &str) -> Self {
        match serde_json::from_str(text) {
            Ok(Some(applied)) => Remembered::Applied(applied),
            Ok(None) => Remembered::Nothing,
            Err(error) => Remembered::Unreadable(error.to_string()),
        }
    }

    /// What was applied, where that is known.
    pub fn applied(&self) -> Option<&Applied> {
        match self {
            Remembered::Applied(applied) => Some(applied),
            Remembered::Nothing | Remembered::Unreadable(_) => None,
        }
    }
}

/// Looks at what is at `path` now, just before limpet first touches it, and keeps a file's bytes in the directory `originals` under the
/// hex of their SHA-256. Returns what the inventory must remember. Paths in order share the directories of one `walk`.
///
/// It is called when the change is about to be made, not when it was planned: a package of the same run may have brought the file.
pub fn save_original(
    host: &Host,
    walk: &mut Walk,
    path: &str,
    originals: &str,
) -> Result<Original, Failure> {
    let (original, bytes) = read_original(walk, path)?;
    if let (Original::File { sha256, .. }, Some(bytes)) = (&original, bytes) {
        let copy = format!("{originals}/{}", hex::encode(sha256));
        if host.look(&copy, Hashing::Skip)?.entry == Entry::Absent {
            host.write_own_file(&copy, &bytes, 0o600)?;
        }
    }
    Ok(original)
}

/// What is at `path` now, with the bytes of a file that is not too large to keep.
pub fn read_original(walk: &mut Walk, path: &str) -> Result<(Original, Option<Vec<u8>>), Failure> {
    let original = match walk.look(path, Hashing::Skip)?.entry {
        Entry::Absent => Original::Absent,
        Entry::Symlink(target) => Original::Symlink {
            target,
            owner: walk.link_owner(path)?,
        },
        Entry::Directory(Attributes { mode, uid, gid }) => Original::Directory {
            mode,
            uid,
            gid,
            xattrs: walk.read_xattrs(path)?,
        },
        Entry::File {
            size,
            attributes: Attributes { mode, uid, gid },
            ..
        } if size > MAX_CONTENT_BYTES => Original::AttributesOnly {
            mode,
            uid,
            gid,
            xattrs: walk.read_xattrs(path)?,
        },
        Entry::File {
            attributes: Attributes { mode, uid, gid },
            ..
        } => {
            let bytes = walk.read_file(path, MAX_CONTENT_BYTES)?.ok_or_else(|| {
                Failure::new(
                    Class::Transient,
                    format!("failed to keep a copy of '{path}': it vanished a moment ago"),
                )
            })?;
            let original = Original::File {
                sha256: hash_bytes(&bytes),
                size: bytes.len() as u64,
                mode,
                uid,
                gid,
                xattrs: walk.read_xattrs(path)?,
            };
            return Ok((original, Some(bytes)));
        }
        Entry::Special(what) => {
            return Err(Failure::new(
                Class::Host,
                format!("failed to keep a copy of '{path}': it is {what}"),
            ));
        }
    };
    Ok((original, None))
}

/// SHA-256 sums as hex.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn encode(sum: &[u8; 32]) -> String {
        crate::git::hex(sum)
    }

    pub(super) fn decode(text: &str) -> Option<[u8; 32]> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 || !bytes.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut sum = [0; 32];
        for (index, byte) in sum.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(sum)
    }

    pub(super) fn serialize<S: Serializer>(
        sum: &[u8; 32],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode(sum))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        decode(&text).ok_or_else(|| serde::de::Error::custom("expected 64 hex digits"))
    }
}

/// The same, where there may be none.
mod optional_hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        sum: &Option<[u8; 32]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match sum {
            Some(sum) => serializer.serialize_str(&super::hex::encode(sum)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[u8; 32]>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        super::hex::decode(&text)
            .map(Some)
            .ok_or_else(|| serde::de::Error::custom("expected 64 hex digits"))
    }
}
