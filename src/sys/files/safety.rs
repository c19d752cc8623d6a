//! Which directories are safe to walk through and to work in.
//!
//! Invariant: pure. What somebody other than root may change is not safe.

use nix::sys::stat::FileStat;

use crate::model::{Class, Failure};
use crate::sys::Host;
use crate::sys::files::Attributes;

/// Whose directories are safe to walk through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trust {
    pub(super) owner: u32,
    /// A group that may write: the own one of the user who is acted as, or of a test's or an image builder's own tree, where every user has a
    /// group of his own. Never where root acts on a running system: there the group's bits may stand for an access control list.
    group: Option<u32>,
}

impl Trust {
    /// Below a root directory that looks like `root`.
    pub(super) fn of(host: &Host, root: &FileStat) -> Self {
        if host.is_running_system() || root.st_uid == 0 {
            Trust {
                owner: 0,
                group: None,
            }
        } else {
            Trust {
                owner: root.st_uid,
                group: Some(root.st_gid),
            }
        }
    }

    /// With the rights of a user: what others may change could redirect what is done for him.
    pub(super) fn of_user(uid: u32, own_group: Option<u32>) -> Self {
        Trust {
            owner: uid,
            group: own_group,
        }
    }

    /// Why whom a directory or link belongs to makes it unsafe, if it does. A link has no mode of its own: this is all there is to it.
    pub(super) fn objection_to_owner(&self, found: &Attributes) -> Option<String> {
        (found.uid != 0 && found.uid != self.owner)
            .then(|| format!("it belongs to user {}", found.uid))
    }

    /// Why a directory is not safe, if it is not.
    pub(super) fn objection_to_directory(&self, directory: &Attributes) -> Option<String> {
        let Attributes { mode, gid, .. } = *directory;
        if let Some(objection) = self.objection_to_owner(directory) {
            return Some(objection);
        }
        if mode & 0o002 != 0 {
            return Some(format!("everybody may write in it (mode {mode:04o})"));
        }
        if mode & 0o020 != 0 && self.group != Some(gid) {
            return Some(format!("group {gid} may write in it (mode {mode:04o})"));
        }
        None
    }
}

/// The refusal to work in a directory.
pub(super) fn unsafe_directory(path: &str, objection: &str) -> Failure {
    Failure::new(Class::Host, format!("refused to work in directory '{path}': {objection}"))
        .with_hint(format!(
            "below it, others could redirect what root writes; make it root's alone (chown root '{path}', chmod go-w '{path}'), say `as_user` for a file in that user's own directory, or leave the path out"
        ))
}
