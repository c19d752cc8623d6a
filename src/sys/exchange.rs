//! Changing places: two files of one directory, with nothing missing in between.

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::model::Failure;
use crate::sys::Host;
use crate::sys::files::io_failure;

impl Host {
    /// Gives each of two files the other's name, in one step. Both lie in a directory that is root's alone.
    pub fn exchange_files(&self, path: &str, other: &str) -> Result<(), Failure> {
        let (here, there) = (self.outer_path(path), self.outer_path(other));
        renameat2(
            AT_FDCWD,
            &here,
            AT_FDCWD,
            &there,
            RenameFlags::RENAME_EXCHANGE,
        )
        .map_err(|errno| io_failure("put something in the place of", path, errno))
    }
}
