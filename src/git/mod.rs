//! What we read from Git: objects by id, and files of a tree by path.
//!
//! An *object* is a commit, tree, blob or tag as raw bytes; its id is the hash of those bytes. A [`Tree`] is any read-only set of
//! files: a verified revision on a host, a working directory on a laptop.
//!
//! Invariant: nothing here opens a file or a socket; whoever implements [`Objects`] or [`Tree`] does, and so does [`repository`],
//! for repositories on this machine.

use std::fmt;

pub use gix::hash::ObjectId;
pub use gix::objs::Kind as ObjectKind;

pub mod repository;

/// Where the full names of tags begin.
pub const TAGS: &str = "refs/tags/";

/// `bytes` in lower-case hexadecimal, as Git and sha256sum write hashes.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut text = Vec::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
    String::from_utf8(text).expect("digits are ASCII")
}

/// One object's raw bytes, without Git's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Commit, tree, blob or tag.
    pub kind: ObjectKind,
    /// The bytes that follow the header `<kind> <size>\0`.
    pub data: Vec<u8>,
}

impl Object {
    /// Is `id` the hash of this object. SHA-1 is computed with collision detection: an attack is no match.
    pub fn is_called(&self, id: &ObjectId) -> bool {
        gix::objs::compute_hash(id.kind(), self.kind, &self.data).is_ok_and(|actual| actual == *id)
    }
}

/// Why an object could not be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectError {
    /// The store answered, and does not have it.
    Missing(ObjectId),
    /// The bytes do not hash to the id that was asked for, or show a SHA-1 collision attack.
    HashMismatch(ObjectId),
    /// Larger than the limit for one object.
    TooLarge(ObjectId),
    /// The store did not answer; worth another try later.
    Unavailable(String),
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectError::Missing(id) => write!(f, "object {id} is missing"),
            ObjectError::HashMismatch(id) => {
                write!(f, "object {id} has other bytes than its id says")
            }
            ObjectError::TooLarge(id) => write!(
                f,
                "object {id} is larger than {} MiB",
                MAX_OBJECT_BYTES >> 20
            ),
            ObjectError::Unavailable(cause) => f.write_str(cause),
        }
    }
}

impl std::error::Error for ObjectError {}

/// The largest object we read, in bytes (64 MiB).
pub const MAX_OBJECT_BYTES: u64 = 64 << 20;

/// A store of objects. Implementations either hash what they return or are wrapped in [`Hashed`].
pub trait Objects {
    /// The object called `id`.
    fn get(&self, id: &ObjectId) -> Result<Object, ObjectError>;

    /// Is the object called `id` kept where it will be needed, for who has read it before and knows what it says. What only hands
    /// objects out keeps none.
    fn keeps(&self, _id: &ObjectId) -> Result<bool, ObjectError> {
        Ok(false)
    }
}

impl<O: Objects + ?Sized> Objects for &O {
    fn get(&self, id: &ObjectId) -> Result<Object, ObjectError> {
        (**self).get(id)
    }

    fn keeps(&self, id: &ObjectId) -> Result<bool, ObjectError> {
        (**self).keeps(id)
    }
}

/// A store whose answers are hashed before anybody sees them, so that the store itself need not be trusted.
#[derive(Debug)]
pub struct Hashed<O>(pub O);

impl<O: Objects> Objects for Hashed<O> {
    fn get(&self, id: &ObjectId) -> Result<Object, ObjectError> {
        let object = self.0.get(id)?;
        match object.is_called(id) {
            true => Ok(object),
            false => Err(ObjectError::HashMismatch(*id)),
        }
    }
}

/// What a name in a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A file (mode 100644 or 100755).
    File,
    /// A directory.
    Directory,
    /// A symbolic link, which is never followed.
    Symlink,
}

/// Read-only files by path. Paths are relative, with `/` between names, without `.` or `..`; `""` is the root.
pub trait Tree {
    /// The names in directory `path`, sorted, with what they are; `None` when there is no such directory.
    fn list(&self, path: &str) -> Result<Option<Vec<(String, EntryKind)>>, ObjectError>;

    /// The file at `path`; `None` when there is no such file (a symbolic link is no file).
    fn read(&self, path: &str) -> Result<Option<TreeFile>, ObjectError>;

    /// The id of the file at `path`, where `is_known` says that its bytes were read before and they are kept: then they need not be
    /// read again. Trees that keep nothing always have their files read.
    fn kept(
        &self,
        _path: &str,
        _is_known: &dyn Fn(&ObjectId) -> bool,
    ) -> Result<Option<ObjectId>, ObjectError> {
        Ok(None)
    }

    /// The id of the whole, where the tree is Git's.
    fn id(&self) -> Option<ObjectId> {
        None
    }

    /// The files whose bytes are others than in the tree `before`, where nothing else differs; `None` where there are other names or
    /// kinds as well, and where it cannot be told.
    fn changed_since(&self, _before: &ObjectId) -> Result<Option<Vec<ChangedFile>>, ObjectError> {
        Ok(None)
    }
}

/// A file that has other bytes than in an earlier tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFile {
    /// Where it is.
    pub path: String,
    /// Its blob there.
    pub before: ObjectId,
    /// Its blob here.
    pub after: ObjectId,
}

/// One file of a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    /// Its bytes.
    pub data: Vec<u8>,
    /// The blob's id, where the tree is Git's; a working directory has none.
    pub id: Option<ObjectId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of the two messages of G. Leurent and T. Peyrin, "SHA-1 is a Shambles" (USENIX Security 2020), that have the same SHA-1.
    const COLLISION: &[u8] = include_bytes!("tests/collision.bin");

    fn sha1(bytes: &[u8]) -> Result<ObjectId, String> {
        let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
        hasher.update(bytes);
        hasher.try_finalize().map_err(|error| error.to_string())
    }

    /// Nobody has yet published two objects of Git with one SHA-1: their headers come first, and a collision is one for a given
    /// beginning. So this asks the hash that objects are called by.
    #[test]
    fn a_collision_attack_on_sha1_is_no_hash() {
        assert!(sha1(COLLISION).is_err(), "its SHA-1 is not believed");
        let mut harmless = COLLISION.to_owned();
        harmless[600] ^= 1;
        assert!(sha1(&harmless).is_ok());
    }

    #[test]
    fn an_object_is_called_by_what_it_is_and_what_it_holds() {
        let object = |kind, data: &[u8]| Object {
            kind,
            data: data.to_owned(),
        };
        for (kind, id) in [
            (
                gix::hash::Kind::Sha1,
                "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0",
            ),
            (
                gix::hash::Kind::Sha256,
                "8aec4e4876f854f688d0ebfc8f37598f38e5fd6903cccc850ca36591175aeb60",
            ),
        ] {
            let id = ObjectId::from_hex(id.as_bytes()).unwrap();
            assert_eq!(id.kind(), kind);
            assert!(object(ObjectKind::Blob, b"hello").is_called(&id));
            assert!(!object(ObjectKind::Blob, b"hello\n").is_called(&id));
            assert!(!object(ObjectKind::Commit, b"hello").is_called(&id));
        }
    }
}
