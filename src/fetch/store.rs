//! Objects of a repository on this machine, as the fetcher hands them out.
//!
//! Invariant: no replacement, graft or alternate stands between an id and its bytes, and no object over the limit is inflated.

use gix::objs::{Find, FindHeader};

pub use crate::git::repository::open_isolated as open;
use crate::git::{MAX_OBJECT_BYTES, ObjectId, ObjectKind};

/// An opened object database. Its packs stay mapped into memory for as long as it lives.
pub struct Store {
    repository: gix::Repository,
    /// Memory for the object read last.
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("git_dir", &self.repository.git_dir())
            .finish_non_exhaustive()
    }
}

/// Why an object is not handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadError {
    /// Larger than [`MAX_OBJECT_BYTES`].
    TooLarge,
    /// There, and unreadable.
    Corrupt(String),
}

impl Store {
    /// The objects of `repository`.
    pub fn new(repository: gix::Repository) -> Self {
        Store {
            repository,
            buffer: Vec::new(),
        }
    }

    /// The object called `id` as it is stored; `None` when there is none.
    pub fn read(&mut self, id: &ObjectId) -> Result<Option<(ObjectKind, &[u8])>, ReadError> {
        if id.kind() != self.repository.object_hash() {
            return Ok(None);
        }
        // Git knows the empty tree without storing it.
        if *id == ObjectId::empty_tree(id.kind()) {
            return Ok(Some((ObjectKind::Tree, &[])));
        }
        let objects = &self.repository.objects;
        match objects.try_find(id, &mut self.buffer) {
            Ok(None) => Ok(None),
            Ok(Some(found)) => Ok(Some((found.kind, found.data))),
            Err(error) => match objects.try_header(id) {
                Ok(Some(header)) if header.size > MAX_OBJECT_BYTES => Err(ReadError::TooLarge),
                _ => Err(ReadError::Corrupt(error.to_string())),
            },
        }
    }
}
