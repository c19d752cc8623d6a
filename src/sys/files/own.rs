//! The files in directories of limpet's own.

use std::os::unix::fs::MetadataExt;

use crate::model::Failure;
use crate::sys::Host;
use crate::sys::files::{join, read_failure};

/// The most names we read from a directory of our own.
const OWN_DIRECTORY_LIMIT: usize = 10_000;

/// A file in a directory of limpet's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFile {
    /// Its name there.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// When it was written, in seconds since 1970.
    pub written_secs: i64,
}

impl Host {
    /// The names in a directory of limpet's own, sorted; none when there is no such directory.
    pub fn list_own_directory(&self, path: &str) -> Result<Vec<String>, Failure> {
        if !self.exists(path)? {
            return Ok(Vec::new());
        }
        let mut names = self.walk()?.list(path, OWN_DIRECTORY_LIMIT)?;
        names.sort();
        Ok(names)
    }

    /// The files in a directory of limpet's own, in no order; none when there is no such directory.
    #[allow(
        clippy::disallowed_methods,
        reason = "the directory is root's alone, and there may be more files in it than are listed elsewhere"
    )]
    pub fn list_own_files(&self, path: &str) -> Result<Vec<OwnFile>, Failure> {
        let listed = match std::fs::read_dir(self.outer_path(path)) {
            Ok(listed) => listed,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(read_failure(path, &error)),
        };
        let mut files = Vec::new();
        for entry in listed {
            let entry = entry.map_err(|error| read_failure(path, &error))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let found = entry
                .metadata()
                .map_err(|error| read_failure(&join(path, &name), &error))?;
            if found.is_file() {
                files.push(OwnFile {
                    name,
                    size: found.len(),
                    written_secs: found.mtime(),
                });
            }
        }
        Ok(files)
    }
}
