//! A working directory as a [`Tree`]: what `limpet check` reads on a laptop.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::git::{EntryKind, MAX_OBJECT_BYTES, ObjectError, Tree, TreeFile};
use crate::model::{Class, Failure};

/// The files below a directory, as they are right now. Symbolic links are seen and never followed, as in a revision.
#[derive(Debug)]
pub struct WorkDir {
    root: PathBuf,
}

impl WorkDir {
    /// The directory `root`; fails when there is none.
    #[allow(clippy::disallowed_methods)] // this is the one place that reads a working directory
    pub fn open(root: &Path) -> Result<Self, Failure> {
        let failed = |cause: &str| {
            let message = format!("failed to read directory '{}': {cause}", root.display());
            Failure::new(Class::Author, message)
        };
        match fs::canonicalize(root) {
            Ok(root) if root.is_dir() => Ok(WorkDir { root }),
            Ok(_) => Err(failed("not a directory")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(failed("no such directory"))
            }
            Err(error) => Err(failed(&cause_of(&error))),
        }
    }

    /// What lies at `path`, unless a part of the way is a link or is missing.
    fn find(&self, path: &str) -> Result<Option<(PathBuf, fs::Metadata)>, ObjectError> {
        let mut found = self.root.clone();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if name == "." || name == ".." {
                return Ok(None);
            }
            found.push(name);
            match fs::symlink_metadata(&found) {
                Ok(metadata) if metadata.is_symlink() => return Ok(None),
                Ok(_) => {}
                Err(error) if is_absent(&error) => return Ok(None),
                Err(error) => return Err(unavailable(&error)),
            }
        }
        let metadata = fs::symlink_metadata(&found).map_err(|error| unavailable(&error))?;
        Ok(Some((found, metadata)))
    }
}

impl Tree for WorkDir {
    #[allow(clippy::disallowed_methods)] // as above
    fn list(&self, path: &str) -> Result<Option<Vec<(String, EntryKind)>>, ObjectError> {
        let Some((directory, metadata)) = self.find(path)? else {
            return Ok(None);
        };
        if !metadata.is_dir() {
            return Ok(None);
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory).map_err(|error| unavailable(&error))? {
            let entry = entry.map_err(|error| unavailable(&error))?;
            // Names that are not UTF-8 cannot be written in TOML, so nothing can mean them.
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let kind = entry.file_type().map_err(|error| unavailable(&error))?;
            if path.is_empty() && name == ".git" {
                continue; // no part of the revision
            } else if kind.is_dir() {
                entries.push((name, EntryKind::Directory));
            } else if kind.is_symlink() {
                entries.push((name, EntryKind::Symlink));
            } else if kind.is_file() {
                entries.push((name, EntryKind::File));
            }
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Some(entries))
    }

    #[allow(clippy::disallowed_methods)] // as above
    fn read(&self, path: &str) -> Result<Option<TreeFile>, ObjectError> {
        let Some((file, metadata)) = self.find(path)? else {
            return Ok(None);
        };
        if !metadata.is_file() {
            return Ok(None);
        }
        let mut data = Vec::new();
        fs::File::open(file)
            .and_then(|file| file.take(MAX_OBJECT_BYTES + 1).read_to_end(&mut data))
            .map_err(|error| unavailable(&error))?;
        if data.len() as u64 > MAX_OBJECT_BYTES {
            return Err(ObjectError::Unavailable(format!(
                "larger than {} MiB",
                MAX_OBJECT_BYTES >> 20
            )));
        }
        Ok(Some(TreeFile { data, id: None }))
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn unavailable(error: &io::Error) -> ObjectError {
    ObjectError::Unavailable(cause_of(error))
}

fn cause_of(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)] // the test makes its own directory
    fn links_are_seen_and_never_followed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir(root.join("real")).unwrap();
        std::fs::write(root.join("real/file"), "x").unwrap();
        std::os::unix::fs::symlink("real", root.join("link")).unwrap();
        std::os::unix::fs::symlink("real/file", root.join("filelink")).unwrap();
        let tree = WorkDir::open(root).unwrap();
        assert_eq!(
            tree.list("").unwrap().unwrap(),
            [
                ("filelink".to_owned(), EntryKind::Symlink),
                ("link".to_owned(), EntryKind::Symlink),
                ("real".to_owned(), EntryKind::Directory),
            ]
        );
        assert_eq!(tree.read("real/file").unwrap().unwrap().data, b"x");
        for path in ["link/file", "filelink", "real", "real/../real/file", "none"] {
            assert_eq!(tree.read(path).unwrap(), None, "{path}");
        }
        assert_eq!(tree.list("link").unwrap(), None);
        assert_eq!(tree.list("real/file").unwrap(), None);
    }
}
