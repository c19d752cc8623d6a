//! A Git repository on this machine, read only: its objects, its branches, and the names people give to commits.
//!
//! Invariant: no configuration but the repository's own is read, replace refs, grafts and shallow marks change nothing, and no
//! program is run. Whatever is read is hashed, so that another store it borrows from need not be trusted either.

use std::fmt;
use std::path::{Path, PathBuf};

use gix::objs::CommitRefIter;

use super::{Hashed, MAX_OBJECT_BYTES, Object, ObjectError, ObjectId, ObjectKind, Objects, TAGS};

/// How many annotated tags may stand between a name and its commit.
const MAX_TAGS: usize = 5;

/// A repository, bare or with a work tree, of either hash.
#[derive(Debug)]
pub struct Repository {
    path: PathBuf,
    stores: Hashed<Stores>,
}

/// The repository's own object database, and one that a receiving server keeps apart until its hooks agree.
struct Stores {
    repository: gix::Repository,
    quarantine: Option<gix::odb::Handle>,
}

/// A repository that cannot be opened, or a name in it that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryError(String);

impl RepositoryError {
    /// One that says `message`.
    pub fn new(message: impl Into<String>) -> Self {
        RepositoryError(message.into())
    }
}

impl fmt::Display for RepositoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RepositoryError {}

/// Opens the repository at exactly `path` with nobody's configuration but its own, so that no replacement stands between an id and
/// its bytes, no object over the limit is unpacked, and a fetch into it takes no shallow history.
pub fn open_isolated(path: &Path) -> Result<gix::Repository, gix::Error> {
    let options = gix::open::Options::isolated().config_overrides([
        "core.useReplaceRefs=false".to_owned(),
        format!("gitoxide.objects.allocLimit={MAX_OBJECT_BYTES}"),
        "clone.rejectShallow=true".to_owned(),
    ]);
    let mut repository = gix::open_opts(path, options)?;
    // Releases of gix disagree about the first of these settings.
    repository.objects.ignore_replacements = true;
    Ok(repository)
}

impl Repository {
    /// Opens the repository at exactly `path`: a work tree, or a bare repository.
    pub fn open(path: &Path) -> Result<Self, RepositoryError> {
        let repository = open_isolated(path).map_err(|error| {
            RepositoryError(format!(
                "failed to open repository '{}': {error}",
                path.display()
            ))
        })?;
        Ok(Repository {
            path: path.to_owned(),
            stores: Hashed(Stores {
                repository,
                quarantine: None,
            }),
        })
    }

    /// Opens the repository that holds `path`: it, or the nearest directory above that is one, as git does.
    pub fn discover(path: &Path) -> Result<Self, RepositoryError> {
        let absolute = path.canonicalize().map_err(|error| {
            RepositoryError(format!(
                "failed to open repository '{}': {error}",
                path.display()
            ))
        })?;
        let first_error = match Repository::open(&absolute) {
            Ok(repository) => return Ok(repository),
            Err(error) => error,
        };
        absolute
            .ancestors()
            .skip(1)
            .find_map(|above| Repository::open(above).ok())
            .ok_or(first_error)
    }

    /// Also reads the objects in `directory`, where a server keeps what it receives until its hooks agree (gitrepository-layout,
    /// `GIT_QUARANTINE_PATH`).
    pub fn with_quarantine(mut self, directory: &Path) -> Result<Self, RepositoryError> {
        let store = gix::odb::at(directory, self.hash()).map_err(|error| {
            RepositoryError(format!(
                "failed to open object directory '{}': {error}",
                directory.display()
            ))
        })?;
        self.stores.0.quarantine = Some(store);
        Ok(self)
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The hash of its objects.
    pub fn hash(&self) -> gix::hash::Kind {
        self.stores.0.repository.object_hash()
    }

    /// Where the ref with this full name points, for example `refs/heads/main`; None when there is no such ref.
    pub fn branch(&self, full_name: &str) -> Result<Option<ObjectId>, RepositoryError> {
        match self.find_reference(full_name)? {
            Some(mut reference) if reference.name().as_bstr() == full_name => {
                let id = reference.follow_to_object().map_err(|error| {
                    RepositoryError(format!("failed to read ref '{full_name}': {error}"))
                })?;
                Ok(Some(id.detach()))
            }
            _ => Ok(None),
        }
    }

    /// The commit that people mean by `name`: an id, the start of one, a ref, `HEAD`, each also followed by `~N` or `^N`.
    pub fn resolve(&self, name: &str) -> Result<ObjectId, RepositoryError> {
        let end = name.find(['~', '^']).unwrap_or(name.len());
        let (base, mut steps) = name.split_at(end);
        let mut id = self.peel(self.resolve_base(base)?, name)?;
        while let Some(operator) = steps.chars().next() {
            let digits: usize = steps[1..]
                .bytes()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            let (number, rest) = steps[1..].split_at(digits);
            let number: usize = match number {
                "" => 1,
                _ => number.parse().map_err(|_| no_commit(name))?,
            };
            match operator {
                '~' => {
                    for _ in 0..number {
                        id = self.parent(id, 1, name)?;
                    }
                }
                '^' if number > 0 => id = self.parent(id, number, name)?,
                '^' => {}
                _ => return Err(no_commit(name)),
            }
            steps = rest;
        }
        Ok(id)
    }

    /// The tag `name`, with or without `refs/tags/`: its short name and where it points, which is a tag object where it is annotated.
    pub fn tag(&self, name: &str) -> Result<Option<(String, ObjectId)>, RepositoryError> {
        let short = name.strip_prefix(TAGS).unwrap_or(name);
        let found = self.branch(&format!("{TAGS}{short}"))?;
        Ok(found.map(|id| (short.to_owned(), id)))
    }

    fn resolve_base(&self, name: &str) -> Result<ObjectId, RepositoryError> {
        if name.len() == self.hash().len_in_hex()
            && let Ok(id) = ObjectId::from_hex(name.as_bytes())
        {
            return Ok(id);
        }
        if let Some(mut reference) = self.find_reference(name)? {
            let id = reference.follow_to_object().map_err(|error| {
                RepositoryError(format!("failed to read ref '{name}': {error}"))
            })?;
            return Ok(id.detach());
        }
        let prefix = gix::hash::Prefix::from_hex(name).map_err(|_| no_commit(name))?;
        match self.stores.0.repository.objects.lookup_prefix(prefix, None) {
            Ok(Some(Ok(id))) => Ok(id),
            Ok(Some(Err(()))) => Err(RepositoryError(format!(
                "'{name}' is the start of more than one object id"
            ))),
            Ok(None) => Err(no_commit(name)),
            Err(error) => Err(RepositoryError(format!(
                "failed to look up '{name}': {error}"
            ))),
        }
    }

    fn find_reference(&self, name: &str) -> Result<Option<gix::Reference<'_>>, RepositoryError> {
        let Ok(name) = <&gix::refs::PartialNameRef>::try_from(name) else {
            return Ok(None);
        };
        self.stores
            .0
            .repository
            .try_find_reference(name)
            .map_err(|error| {
                RepositoryError(format!("failed to read ref '{}': {error}", name.as_bstr()))
            })
    }

    /// The commit that `id` is, or that the tag `id` is put on.
    fn peel(&self, mut id: ObjectId, name: &str) -> Result<ObjectId, RepositoryError> {
        for _ in 0..=MAX_TAGS {
            let object = match self.get(&id) {
                Ok(object) => object,
                // It has a name, and whoever judges it says what is wrong with it.
                Err(ObjectError::HashMismatch(_) | ObjectError::TooLarge(_)) => return Ok(id),
                Err(ObjectError::Missing(_)) => return Err(no_commit(name)),
                Err(error) => return Err(unreadable(name, &error)),
            };
            match object.kind {
                ObjectKind::Commit => return Ok(id),
                ObjectKind::Tag => {
                    id = object
                        .data
                        .strip_prefix(b"object ")
                        .and_then(|rest| rest.split(|&byte| byte == b'\n').next())
                        .and_then(|hex| ObjectId::from_hex(hex).ok())
                        .ok_or_else(|| no_commit(name))?;
                }
                _ => break,
            }
        }
        Err(no_commit(name))
    }

    fn parent(&self, id: ObjectId, number: usize, name: &str) -> Result<ObjectId, RepositoryError> {
        let object = self.get(&id).map_err(|error| unreadable(name, &error))?;
        CommitRefIter::from_bytes(&object.data, self.hash())
            .parent_ids()
            .nth(number - 1)
            .ok_or_else(|| no_commit(name))
    }
}

fn no_commit(name: &str) -> RepositoryError {
    RepositoryError(format!("'{name}' is no commit of this repository"))
}

fn unreadable(name: &str, error: &ObjectError) -> RepositoryError {
    RepositoryError(format!("failed to read '{name}': {error}"))
}

impl Objects for Repository {
    fn get(&self, id: &ObjectId) -> Result<Object, ObjectError> {
        self.stores.get(id)
    }
}

impl Objects for Stores {
    fn get(&self, id: &ObjectId) -> Result<Object, ObjectError> {
        match read_object(&self.repository.objects, id)? {
            Some(object) => Ok(object),
            None => match &self.quarantine {
                Some(quarantine) => read_object(quarantine, id)?.ok_or(ObjectError::Missing(*id)),
                None => Err(ObjectError::Missing(*id)),
            },
        }
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores")
            .field("repository", &self.repository.git_dir())
            .field("has_quarantine", &self.quarantine.is_some())
            .finish()
    }
}

/// The object, if `store` has it. Its size is looked at before its bytes are unpacked.
fn read_object<S>(store: &S, id: &ObjectId) -> Result<Option<Object>, ObjectError>
where
    S: gix::prelude::Header + gix::prelude::Find,
{
    let failed = |error: gix::Error| {
        ObjectError::Unavailable(format!("failed to read object {id}: {error}"))
    };
    match store.try_header(id).map_err(failed)? {
        None => return Ok(None),
        Some(header) if header.size() > MAX_OBJECT_BYTES => {
            return Err(ObjectError::TooLarge(*id));
        }
        Some(_) => {}
    }
    let mut data = Vec::new();
    let kind = match store.try_find(id, &mut data).map_err(failed)? {
        Some(object) => object.kind,
        None => return Ok(None),
    };
    Ok(Some(Object { kind, data }))
}
