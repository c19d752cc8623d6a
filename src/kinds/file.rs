//! Files, directories and symbolic links.
//!
//! A path is *managed* once it is declared, and *owned* once we applied it. Only owned paths are pruned.
//!
//! Invariant: paths never leave `Host`'s root, and no symbolic link that somebody else could have placed is followed on the way.

use crate::kinds::kind::Content;
use crate::model::{OnRemoval, ResourceId};

/// One declared path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredPath {
    /// Absolute and normalised; what is owned.
    pub path: String,
    /// Which resource declares it: itself, or the unit whose file or drop-in this is.
    pub id: ResourceId,
    /// What it should be.
    pub spec: PathSpec,
    /// Look, but do not touch.
    pub report: bool,
    /// What happens when it is no longer declared.
    pub on_removal: OnRemoval,
}

/// What a path should be. `None` means: not managed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathSpec {
    /// A regular file.
    File {
        /// Its bytes; without them only mode and owner of an existing file are managed.
        content: Option<Content>,
        /// Permission bits.
        mode: Option<u32>,
        /// A user's name or number.
        owner: Option<String>,
        /// A group's name or number.
        group: Option<String>,
        /// A command run on the candidate, `{}` standing for its path, before it replaces anything.
        validate: Option<Vec<String>>,
    },
    /// A directory. A new one gets 0755 root:root where nothing is said.
    Directory {
        /// Permission bits.
        mode: Option<u32>,
        /// A user's name or number.
        owner: Option<String>,
        /// A group's name or number.
        group: Option<String>,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to, verbatim.
        target: String,
    },
}
