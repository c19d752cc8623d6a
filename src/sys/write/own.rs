//! Changes to files of limpet's own, each durable by itself.

use crate::model::{Class, Failure};
use crate::sys::Host;
use crate::sys::files::{Attributes, Hashing, join};

impl Host {
    /// Writes a file of limpet's own, durably; the directory must exist.
    pub fn write_own_file(&self, path: &str, bytes: &[u8], mode: u32) -> Result<(), Failure> {
        let (uid, gid) = self.root_account()?;
        let mut batch = self.batch()?;
        let candidate = batch.stage_file(path, bytes, Attributes { mode, uid, gid })?;
        if let Err(failure) = batch.sync() {
            batch.discard(candidate);
            return Err(failure);
        }
        batch.publish(candidate)?;
        batch.sync()
    }

    /// Makes a directory of limpet's own where there is none, and its parents with mode 0755.
    pub fn ensure_own_directory(&self, path: &str, mode: u32) -> Result<(), Failure> {
        let (uid, gid) = self.root_account()?;
        let mut batch = self.batch()?;
        for parent in self
            .look(&join(path, "any"), Hashing::Skip)?
            .missing_parents
            .iter()
        {
            let mode = if parent == path { mode } else { 0o755 };
            batch.make_directory(parent, Attributes { mode, uid, gid })?;
        }
        batch.sync()
    }

    /// Removes a file of limpet's own; fine when there is none.
    pub fn remove_own_file(&self, path: &str) -> Result<(), Failure> {
        let mut batch = self.batch()?;
        batch.remove_file(path, None)?;
        batch.sync()
    }

    /// Renames a file of limpet's own within its directory, replacing what is there.
    #[allow(clippy::disallowed_methods, reason = "its directory is root's alone")]
    pub fn rename_own_file(&self, path: &str, new: &str) -> Result<(), Failure> {
        std::fs::rename(self.outer_path(path), self.outer_path(new)).map_err(|error| {
            Failure::new(
                Class::Host,
                format!("failed to rename '{path}' to '{new}': {error}"),
            )
        })
    }

    /// Removes what a killed run left behind in `directories`.
    pub fn sweep<'a>(&self, directories: impl IntoIterator<Item = &'a str>) -> Result<(), Failure> {
        let mut batch = self.batch()?;
        for directory in directories {
            if batch.walk.enter(directory)? {
                batch.sweep_here()?;
            }
        }
        Ok(())
    }
}
