//! Files, directories and symbolic links.
//!
//! A path is *managed* once it is declared, and *owned* once we applied it. Only owned paths are pruned. Directories that a declared path
//! needs and nobody declares are *parents*: made root's with mode 0755, owned, and removed when they are empty and nothing needs them.
//!
//! Invariant: paths never leave `Host`'s root, and no symbolic link that somebody else could have placed is followed on the way.

use crate::kinds::file::making::Making;
use crate::kinds::file::ways::Batches;
use crate::kinds::kind::{Content, Contents, Kind, Owned, Sealed, Step};
use crate::model::{Failure, Name, OnRemoval, Outcome, ResourceId};
use crate::sys::Host;
use crate::sys::xattrs::{NamedXattrs, Xattrs};

mod by_path;
mod diff;
mod fetched;
mod making;
mod observe;
mod original;
mod plan;
mod purge;
mod put_back;
mod sealed;
mod unpack;
mod ways;

pub use by_path::ByPath;
pub use diff::{closing, diff, hunks, is_public};
pub use fetched::not_as_declared;
pub use observe::{ObservedPath, ObservedPaths, SeenBefore};
pub use original::{Applied, Original, Remembered, read_original, save_original};
pub use plan::{applied, applied_after};
pub use purge::find_purged;
pub use put_back::put_back;
pub use sealed::{CREDENTIAL, KEY_FILE, Vault, open as open_sealed, read_identity};
pub use unpack::{Allowed, put_in_place};
pub use ways::Walks;

/// Files up to this size have originals kept and contents compared; it is also the limit for one object of a revision.
pub const MAX_CONTENT_BYTES: u64 = crate::git::MAX_OBJECT_BYTES;

/// The largest file that is declared by its address.
pub const MAX_ADDRESSED_BYTES: u64 = 4 << 30;

/// One declared path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredPath {
    /// Absolute and normalised; what is owned.
    pub path: Name,
    /// Which resource declares it: itself, or the unit whose file or drop-in this is.
    pub id: ResourceId,
    /// What it should be.
    pub spec: PathSpec,
    /// Look, but do not touch.
    pub report: bool,
    /// What happens when it is no longer declared.
    pub on_removal: OnRemoval,
    /// Whose rights it is looked at and written with, where not root's.
    pub as_user: Option<Name>,
}

impl DesiredPath {
    /// What it contains, where that is encrypted.
    pub fn sealed(&self) -> Option<&Sealed> {
        match &self.spec {
            PathSpec::File {
                content: Some(content),
                ..
            } => content.as_sealed(),
            _ => None,
        }
    }
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
        owner: Option<Name>,
        /// A group's name or number.
        group: Option<Name>,
        /// Extended attributes, capabilities among them.
        xattrs: NamedXattrs,
        /// A command run on the candidate, `{}` standing for its path, before it replaces anything.
        validate: Option<Vec<String>>,
    },
    /// A directory. A new one gets 0755 root:root where nothing is said.
    Directory {
        /// Permission bits.
        mode: Option<u32>,
        /// A user's name or number.
        owner: Option<Name>,
        /// A group's name or number.
        group: Option<Name>,
        /// Extended attributes.
        xattrs: NamedXattrs,
        /// What is in it and not declared goes.
        purge: Option<Purge>,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to, verbatim.
        target: String,
    },
    /// A directory with what is in an archive, which is not known before that was fetched; then this becomes a directory and what is
    /// below it. See [`put_in_place`]. Until then nothing below it is touched.
    Archive {
        /// The archive.
        content: Content,
        /// Permission bits of the directory.
        mode: Option<u32>,
        /// The user that files belong to, by name or number.
        owner: Name,
        /// The group that files belong to, by name or number.
        group: Name,
        /// Why it is not known yet: no part of the declaration.
        closed: Option<Box<Failure>>,
    },
    /// Nothing: a file or a link is deleted, a directory when it is empty.
    Absent,
    /// Nothing, because it was found in a directory that is purged: no declaration, and no part of a digest. See [`find_purged`].
    Purged,
}

/// What of a purged directory stays although nobody declares it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Purge {
    /// Shell globs over names, or over paths below the directory where they have a `/`.
    pub ignore: Vec<String>,
}

/// One change to one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathChange {
    /// The resource it is made for.
    pub id: ResourceId,
    /// The path.
    pub path: Name,
    /// What is done.
    pub edit: Edit,
    /// What is owned afterwards, for the inventory; `None` when the path is no longer owned, and then only is the reason
    /// [`Undeclared`](crate::model::Reason::Undeclared).
    pub applied: Option<Applied>,
    /// What is there, or is to be there, is a secret: nobody is shown it.
    pub is_secret: bool,
    /// Whose rights it is made with, where not root's.
    pub as_user: Option<Name>,
}

/// What is done to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Make a directory.
    MakeDirectory {
        /// Its permissions and owner.
        access: Access,
        /// A file or link of ours makes room for it.
        replace: bool,
    },
    /// Write a file, and rename it onto the path.
    WriteFile {
        /// Its bytes.
        content: Content,
        /// Its permissions and owner.
        access: Access,
        /// The command that judges the candidate.
        validate: Option<Vec<String>>,
        /// An empty directory of ours makes room for it.
        replace: bool,
    },
    /// Make a symbolic link, and rename it onto the path.
    MakeLink {
        /// What it says.
        target: String,
        /// The numbers of the user and group that it is to belong to, else to us.
        owner: Option<(u32, u32)>,
        /// An empty directory of ours makes room for it.
        replace: bool,
    },
    /// Change permissions, owner and extended attributes, nothing else.
    SetAccess {
        /// Permission bits.
        mode: Option<u32>,
        /// A user's name or number.
        owner: Option<Name>,
        /// A group's name or number.
        group: Option<Name>,
        /// What these are to be.
        named: NamedXattrs,
    },
    /// Delete a file or a link.
    RemoveFile {
        /// Only when it still has this SHA-256.
        expected: Option<[u8; 32]>,
    },
    /// Delete an empty directory.
    RemoveDirectory,
}

impl Edit {
    /// Does it write a file's content.
    pub fn writes(&self) -> bool {
        matches!(self, Edit::WriteFile { .. })
    }

    /// Makes what is put back belong to whoever puts it back, whosever it was: no user may give a file away.
    fn give_to_its_maker(&mut self) {
        match self {
            Edit::WriteFile { access, .. } | Edit::MakeDirectory { access, .. } => {
                (access.owner, access.group) = (None, None);
            }
            Edit::SetAccess { owner, group, .. } => (*owner, *group) = (None, None),
            Edit::MakeLink { owner, .. } => *owner = None,
            Edit::RemoveFile { .. } | Edit::RemoveDirectory => {}
        }
    }
}

/// Permissions and owner of something that is made. Names become numbers only when it is: a package of the same run may bring the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// A user's name or number; `None`: whoever makes it.
    pub owner: Option<Name>,
    /// A group's name or number; `None`: that of whoever makes it.
    pub group: Option<Name>,
    /// Exactly these extended attributes; `None` leaves them to the file system.
    pub xattrs: Option<Xattrs>,
    /// What these are to be, whatever the others are.
    pub named: NamedXattrs,
}

impl Access {
    fn says_xattrs(&self) -> bool {
        self.xattrs.is_some() || !self.named.is_empty()
    }
}

/// The kind of files, directories and links.
#[derive(Debug)]
pub struct Paths;

impl Paths {
    /// Looks again, at what may have changed since `before`.
    pub fn observe_again(
        host: &Host,
        desired: &[DesiredPath],
        owned: &[Owned<Original, Remembered>],
        before: SeenBefore,
    ) -> ObservedPaths {
        observe::observe(host, desired, owned, Some(before))
    }
}

impl Kind for Paths {
    type Desired = DesiredPath;
    type Observed = ObservedPaths;
    type Original = Original;
    type Applied = Remembered;
    type Change = PathChange;

    fn observe(
        host: &Host,
        desired: &[DesiredPath],
        owned: &[Owned<Original, Remembered>],
    ) -> ObservedPaths {
        observe::observe(host, desired, owned, None)
    }

    fn plan(
        desired: &[DesiredPath],
        observed: &ObservedPaths,
        owned: &[Owned<Original, Remembered>],
    ) -> Vec<Step<Original, PathChange>> {
        plan::plan(desired, observed, owned)
    }

    fn apply(host: &Host, contents: &dyn Contents, changes: &[&PathChange]) -> Vec<Outcome> {
        match Batches::new(host) {
            Ok(batches) => making::apply(&Making::new(host, contents), batches, changes),
            Err(failure) => changes
                .iter()
                .map(|change| Outcome::Failed(failure.clone().about(change.id.clone())))
                .collect(),
        }
    }
}
