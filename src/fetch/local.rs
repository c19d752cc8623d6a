//! A source on this machine: a repository read in place, never written, without a Git program.

use std::io;
use std::path::{Path, PathBuf};

use super::refs::Found;
use super::{Lane, Trouble, store};
use crate::config::Follow;
use crate::git::TAGS;
use crate::model::{Class, Failure};

/// Where run-limpet-stick.mount mounts a stick; the directory is empty, or not there, as long as none is plugged in.
const STICK: &str = "/run/limpet/stick";

/// The trouble with a source at `path`, if that is on a stick that is not plugged in: like a network that is not there, it is nobody's
/// failure.
pub fn without_stick(path: &Path) -> Option<Trouble> {
    let is_empty = || match std::fs::read_dir(STICK) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    (path.starts_with(STICK) && is_empty()).then(|| {
        let message = format!("no stick with '{}' is plugged in", path.display());
        Trouble::from(Failure::new(Class::Transient, message)).in_lane(Lane::Offline)
    })
}

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

/// The ref that is wanted, and where it points.
pub fn read_tip(repository: &gix::Repository, follow: &Follow) -> Result<Found, Failure> {
    let place = repository.git_dir().display();
    let unreadable = |cause: &dyn std::fmt::Display| {
        let message = format!("failed to read {follow} of '{place}': {cause}");
        Failure::new(Class::Host, message)
    };
    let found = match follow {
        Follow::Branch(_) => read_branch(repository, &follow.prefix()),
        Follow::Releases(_) => read_highest(repository, follow),
    };
    found.map_err(|error| unreadable(&error))?.ok_or_else(|| {
        let message = format!("found no {follow} in '{place}'");
        Failure::new(Class::Host, message).with_hint(format!("check {}", follow.key()))
    })
}

fn read_branch(repository: &gix::Repository, full_ref: &str) -> Result<Option<Found>, gix::Error> {
    let found = repository
        .try_find_reference(full_ref)?
        // gix also finds `refs/tags/refs/heads/…` and the like when the exact name is missing.
        .filter(|reference| reference.name().as_bstr() == full_ref);
    found
        .map(|mut reference| {
            Ok(Found {
                full_ref: full_ref.to_owned(),
                id: reference.peel_to_id()?.detach(),
            })
        })
        .transpose()
}

fn read_highest(
    repository: &gix::Repository,
    follow: &Follow,
) -> Result<Option<Found>, gix::Error> {
    let mut found = None;
    for reference in repository.references()?.prefixed(TAGS)? {
        let reference = reference.map_err(gix::Error::from_error)?;
        // A tag that points to another ref is none that anybody signed.
        let id = reference.target().try_id().map(ToOwned::to_owned);
        let name = std::str::from_utf8(reference.name().as_bstr());
        if let (Some(id), Ok(name)) = (id, name) {
            Found::consider(&mut found, follow, name, id);
        }
    }
    Ok(found)
}
