//! A source on this machine: a repository read in place, never written, without a Git program.

use std::io;
use std::path::{Path, PathBuf};

use super::store;
use crate::git::ObjectId;
use crate::model::{Class, Failure};

/// The repository at `path`, bare or with a work tree.
pub fn open(path: &Path) -> Result<gix::Repository, Failure> {
    let fail = |cause: &dyn std::fmt::Display| {
        let message = format!("failed to open repository '{}': {cause}", path.display());
        Failure::new(Class::Host, message)
    };
    let explain = |error: io::Error| {
        match error.kind() {
        io::ErrorKind::NotFound if path.starts_with("/tmp") || path.starts_with("/var/tmp") => {
            fail(&"no such directory").with_hint("limpet-fetch.service has a /tmp of its own")
        }
        io::ErrorKind::NotFound => fail(&"no such directory").with_hint("check source.url"),
        io::ErrorKind::NotADirectory => fail(&"it is no directory").with_hint("check source.url"),
        io::ErrorKind::PermissionDenied => {
            fail(&"permission denied").with_hint(format!(
                "user limpet must be able to read it: 'setfacl -R -m u:limpet:rX {}', and every directory above it",
                path.display()
            ))
        }
        _ => fail(&error),
    }
    };
    // gix says the same of what is not there, what is no repository and what may not be read; people need to know which.
    std::fs::read_dir(path).map_err(explain)?;
    let repository = store::open(path).map_err(|error| {
        // An unreadable `.git` looks like none at all.
        for part in ["HEAD", ".git/HEAD"] {
            if let Err(error) = std::fs::File::open(path.join(part))
                && error.kind() == io::ErrorKind::PermissionDenied
            {
                return explain(error);
            }
        }
        fail(&error).with_hint("it must be a Git repository, bare or with a work tree")
    })?;
    let objects: PathBuf = repository.common_dir().join("objects");
    for directory in [objects.clone(), objects.join("pack")] {
        match std::fs::read_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(explain(error)),
            _ => {}
        }
    }
    if objects.join("info/alternates").exists() {
        return Err(
            fail(&"it borrows objects from another repository (alternates)").with_hint(
                "'git repack -a -d' and removing objects/info/alternates make it stand alone",
            ),
        );
    }
    if repository.is_shallow().map_err(|error| fail(&error))? {
        return Err(fail(&"it is shallow: its history is not complete")
            .with_hint("'git fetch --unshallow' completes it"));
    }
    Ok(repository)
}

/// The commit that `full_ref` points to.
pub fn read_tip(repository: &gix::Repository, full_ref: &str) -> Result<ObjectId, Failure> {
    let place = repository.git_dir().display();
    let found = repository
        .try_find_reference(full_ref)
        .map_err(|error| {
            let message = format!("failed to read '{full_ref}' of '{place}': {error}");
            Failure::new(Class::Host, message)
        })?
        // gix also finds `refs/tags/refs/heads/…` and the like when the exact name is missing.
        .filter(|reference| reference.name().as_bstr() == full_ref);
    match found.map(|mut reference| reference.peel_to_id().map(|id| id.detach())) {
        Some(Ok(id)) => Ok(id),
        Some(Err(error)) => Err(Failure::new(
            Class::Host,
            format!("failed to read '{full_ref}' of '{place}': {error}"),
        )),
        None => Err(Failure::new(
            Class::Host,
            format!(
                "found no branch '{}' in '{place}'",
                full_ref.trim_start_matches("refs/heads/")
            ),
        )
        .with_hint("check source.branch")),
    }
}
