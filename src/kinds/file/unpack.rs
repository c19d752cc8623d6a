//! Directories whose content comes from an archive: a tree that is known once the archive was fetched.
//!
//! What an archive has becomes declarations like any other, so that it is observed, put right, restored and removed as they are. A path
//! that is declared by itself is left to that declaration. Files belong to whom the declaration names; directories stay root's, so that
//! nobody else can redirect what root writes in them.
//!
//! Invariant: an archive of which one path may not be managed, or one mode is not allowed, is refused as a whole.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use crate::archive::{Entry, Index, What};
use crate::kinds::file::fetched::{not_as_declared, stage_hashed};
use crate::kinds::file::making::{Making, Progress, failed};
use crate::kinds::file::ways::Batches;
use crate::kinds::file::{DesiredPath, Edit, PathChange, PathSpec};
use crate::kinds::kind::{Content, ContentSource};
use crate::model::{Class, Failure, Name};
use crate::sys::files::join;
use crate::sys::write::{Batch, Candidate};
use crate::sys::xattrs::NamedXattrs;

/// The mode that says nothing of a directory.
const USUAL_DIRECTORY_MODE: u32 = 0o755;

/// What of an archive may be managed.
pub struct Allowed<'a> {
    /// Why no fleet may manage a path, if so.
    pub why_forbidden: &'a dyn Fn(&str) -> Option<&'static str>,
    /// May files be setuid or setgid, and directories sticky.
    pub suid: bool,
}

impl std::fmt::Debug for Allowed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Allowed").finish_non_exhaustive()
    }
}

/// Says what is in the archive that a path declares, as far as it is known.
pub type Find<'a> = &'a mut dyn FnMut(&DesiredPath, &Content) -> Result<Option<Index>, Failure>;

/// Puts what is in archives among `paths`, in the order of paths; `find` says what is in one, as far as it is known. Where it fails, the archive
/// stays, with the reason.
pub fn put_in_place(paths: &mut Vec<DesiredPath>, allowed: &Allowed<'_>, find: Find<'_>) {
    let mut found = Vec::new();
    for item in paths.iter_mut() {
        let PathSpec::Archive { content, .. } = &item.spec else {
            continue;
        };
        let unpacked = match find(item, content) {
            Ok(Some(index)) => unpack(item, index, allowed),
            Ok(None) => continue,
            Err(failure) => Err(failure),
        };
        match (unpacked, &mut item.spec) {
            (Ok(unpacked), PathSpec::Archive { mode, .. }) => {
                item.spec = PathSpec::Directory {
                    mode: *mode,
                    owner: None,
                    group: None,
                    xattrs: NamedXattrs::default(),
                    purge: None,
                };
                found.extend(unpacked);
            }
            (Err(failure), PathSpec::Archive { closed, .. }) => {
                *closed = Some(Box::new(failure.about(item.id.clone())));
            }
            _ => {}
        }
    }
    if found.is_empty() {
        return;
    }
    // Of one path the declaration counts that names it; the sort is stable, and those come first.
    paths.append(&mut found);
    paths.sort_by(|one, other| one.path.cmp(&other.path));
    paths.dedup_by(|later, earlier| later.path == earlier.path);
}

/// What `item`, which declares an archive, declares below its directory.
fn unpack(
    item: &DesiredPath,
    index: Index,
    allowed: &Allowed<'_>,
) -> Result<Vec<DesiredPath>, Failure> {
    let PathSpec::Archive {
        content,
        owner,
        group,
        ..
    } = &item.spec
    else {
        return Ok(Vec::new());
    };
    let archive = Arc::new(content.clone());
    let refused = |why: String, hint: String| {
        let url = archive.whence().unwrap_or_default();
        let message = format!("refused to unpack '{url}': {why}");
        Failure::new(Class::Author, message).with_hint(hint)
    };
    let mut paths = Vec::with_capacity(index.len());
    for Entry { path: below, what } in index {
        let path = join(&item.path, &below);
        if let Some(reason) = (allowed.why_forbidden)(&path) {
            return Err(refused(
                format!("it has '{path}', which no fleet may manage: {reason}"),
                format!(
                    "a host's operator can allow it: apply.allow_paths = [\"{path}\"] in /etc/limpet/limpet.toml"
                ),
            ));
        }
        let (What::File { mode, .. } | What::Directory { mode }) = &what else {
            let What::Symlink { target } = what else {
                continue;
            };
            paths.push(declared(item, path, PathSpec::Symlink { target }));
            continue;
        };
        if mode & 0o7000 != 0 && !allowed.suid {
            return Err(refused(
                format!("'{below}' in it has mode {mode:04o}, and this host allows no setuid, setgid or sticky"),
                "pack it without, or have the host's operator allow it: apply.allow_suid = true in /etc/limpet/limpet.toml".to_owned(),
            ));
        }
        let spec = match what {
            What::File {
                mode,
                size,
                sha256,
                member,
            } => PathSpec::File {
                content: Some(Content {
                    sha256,
                    size,
                    source: ContentSource::Member(Arc::clone(&archive), member),
                }),
                mode: Some(mode),
                owner: Some(owner.clone()),
                group: Some(group.clone()),
                xattrs: NamedXattrs::default(),
                validate: None,
            },
            // The usual one says nothing: what is there already, of a distribution perhaps, stays as it is.
            What::Directory { mode } => PathSpec::Directory {
                mode: (mode != USUAL_DIRECTORY_MODE).then_some(mode),
                owner: None,
                group: None,
                xattrs: NamedXattrs::default(),
                purge: None,
            },
            What::Symlink { .. } => continue,
        };
        paths.push(declared(item, path, spec));
    }
    Ok(paths)
}

fn declared(item: &DesiredPath, path: String, spec: PathSpec) -> DesiredPath {
    DesiredPath {
        path: Name::from(path),
        id: item.id.clone(),
        spec,
        as_user: None,
        report: item.report,
        on_removal: item.on_removal,
    }
}

/// Makes the candidates of everything that waits for an archive, which is read once.
pub(super) fn stage(
    making: &Making<'_>,
    batches: &mut Batches<'_>,
    changes: &[&PathChange],
    progress: &mut [Progress],
) {
    type Wanted<'a> = (&'a Arc<Content>, BTreeMap<u32, Vec<usize>>);
    let mut archives: BTreeMap<[u8; 32], Wanted<'_>> = BTreeMap::new();
    for (index, change) in changes.iter().enumerate() {
        if let (Progress::Packed, Edit::WriteFile { content, .. }) =
            (&progress[index], &change.edit)
            && let Some((archive, member)) = content.as_member()
        {
            let (_, wanted) = archives
                .entry(archive.sha256)
                .or_insert_with(|| (archive, BTreeMap::new()));
            wanted.entry(member).or_default().push(index);
        }
    }
    for (archive, mut wanted) in archives.into_values() {
        let unpacked = making.contents.unpack(archive, &mut |member, bytes| {
            for (index, staged) in wanted
                .remove(&member)
                .into_iter()
                .flat_map(|places| stage_all(making, batches, changes, &places, bytes))
            {
                progress[index] = match staged {
                    Ok(candidate) => Progress::Staged(candidate),
                    Err(failure) => failed(changes[index], failure),
                };
            }
            Ok(())
        });
        for index in wanted.into_values().flatten() {
            let failure = unpacked.clone().err().unwrap_or_else(|| {
                let url = archive.whence().unwrap_or_default();
                let message = format!("'{url}' does not have '{}' any more", changes[index].path);
                Failure::new(Class::Bug, message)
            });
            progress[index] = failed(changes[index], failure);
        }
    }
}

/// The candidates of the changes at `places`, which are names of one file: the first is made of `bytes`, the others of what was
/// written there.
fn stage_all(
    making: &Making<'_>,
    batches: &mut Batches<'_>,
    changes: &[&PathChange],
    places: &[usize],
    bytes: &mut dyn Read,
) -> Vec<(usize, Result<Candidate, Failure>)> {
    let mut all: Vec<(usize, Result<Candidate, Failure>)> = Vec::with_capacity(places.len());
    for index in places {
        let change = changes[*index];
        // Whatever is unpacked is root's to write.
        let staged = batches.of(None).and_then(|batch| match all.first() {
            None => stage_one(making, batch, change, &mut *bytes),
            Some((_, Ok(first))) => {
                let written = batch.reopen(first);
                written.and_then(|file| stage_one(making, batch, change, file))
            }
            Some((_, Err(failure))) => Err(failure.clone()),
        });
        all.push((*index, staged));
    }
    all
}

fn stage_one(
    making: &Making<'_>,
    batch: &mut Batch,
    change: &PathChange,
    bytes: impl Read,
) -> Result<Candidate, Failure> {
    let Edit::WriteFile {
        content, access, ..
    } = &change.edit
    else {
        return Err(Failure::new(Class::Bug, "only files have bytes"));
    };
    let attributes = making.attributes(access, batch)?;
    let candidate = match stage_hashed(batch, change, content, bytes, attributes)? {
        Ok(candidate) => candidate,
        Err(found) => {
            let url = content.whence().unwrap_or_default();
            return Err(not_as_declared(url, &found, &content.sha256));
        }
    };
    let exactly = access.xattrs.as_ref();
    if access.says_xattrs()
        && let Err(failure) = batch.give_xattrs(&candidate, exactly, &access.named, attributes.mode)
    {
        batch.discard(candidate);
        return Err(failure);
    }
    Ok(candidate)
}
