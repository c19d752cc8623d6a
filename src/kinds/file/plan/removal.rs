//! What is owned and no longer declared.

use std::collections::BTreeSet;

use crate::kinds::file::plan::access::Wish;
use crate::kinds::file::plan::{DIRECTORY_MODE, FILE_MODE, Known, Planner};
use crate::kinds::file::{Applied, Edit, ObservedPath, Original, PathChange, PathSpec};
use crate::kinds::kind::{Content, ContentSource, PlannedChange};
use crate::model::{Action, Class, Failure, OnRemoval, Reason, ResourceId};
use crate::sys::files::{Attributes, Entry, above, join};

pub(super) enum Removal {
    Change(Box<PlannedChange<Original, PathChange>>),
    /// Nothing is left to do: it is not ours any more.
    Release,
    /// It stays ours: something else is in the directory, or needs it.
    Wait,
}

impl Planner<'_> {
    pub(super) fn removal(
        &self,
        known: &Known<'_>,
        seen: &ObservedPath,
        going: &BTreeSet<&str>,
    ) -> Result<Removal, Failure> {
        if known.item.on_removal == OnRemoval::Keep {
            return Ok(Removal::Release);
        }
        match known.applied {
            Applied::Parent { .. } | Applied::Directory { .. } => {
                Ok(self.directory_removal(known, seen, going))
            }
            Applied::File { sha256: None, .. } => Ok(self.bare_file_removal(known, seen)),
            Applied::File { .. } | Applied::Symlink { .. } | Applied::Absent { .. } => {
                self.file_removal(known, seen)
            }
        }
    }

    /// Is something declared below it.
    fn is_needed(&self, path: &str) -> bool {
        // What lies below it stands together in the order of paths, right after this prefix.
        let prefix = join(path, "");
        self.desired
            .first_after(&prefix)
            .is_some_and(|desired| desired.starts_with(&prefix))
    }

    /// Is a directory on the way to it declared to be none.
    pub(super) fn has_no_place(&self, path: &str) -> bool {
        above(path)
            .filter_map(|above| self.desired.get(above))
            .any(|item| {
                !matches!(
                    item.spec,
                    PathSpec::Directory { .. } | PathSpec::Archive { .. }
                )
            })
    }

    /// Does it lie where an archive is unpacked of which nobody knows yet what is in it.
    pub(super) fn may_be_in_an_archive(&self, path: &str) -> bool {
        above(path)
            .filter_map(|above| self.desired.get(above))
            .any(|item| matches!(item.spec, PathSpec::Archive { .. }))
    }

    /// What has nothing to go back to is forgotten, the rest waits for its place.
    pub(super) fn remembered(&self, known: &Known<'_>) -> Removal {
        if known.item.original == Original::Absent {
            Removal::Release
        } else {
            Removal::Wait
        }
    }

    /// Will the missing directory be there when this plan is done.
    fn comes_back(&self, directory: &str) -> bool {
        let restored = self.known.get(directory).is_some_and(|known| {
            matches!(known.item.original, Original::Directory { .. })
                && known.item.on_removal == OnRemoval::Restore
        });
        restored || self.desired.contains(directory) || self.is_needed(directory)
    }

    fn directory_removal(
        &self,
        known: &Known<'_>,
        seen: &ObservedPath,
        going: &BTreeSet<&str>,
    ) -> Removal {
        let path = known.item.key.as_str();
        let as_user = known.applied.as_user().cloned();
        let needed = self.is_needed(path);
        let attributes = match &seen.look.entry {
            Entry::Directory(attributes) => attributes,
            Entry::Absent if needed => return Removal::Wait,
            // Gone, or replaced by somebody: not what we made.
            _ => return Removal::Release,
        };
        let was_there = matches!(known.item.original, Original::Directory { .. });
        let goes = !was_there || known.item.on_removal == OnRemoval::Delete;
        if needed || !goes {
            let wish = self.with_taken_back(Wish::default(), Some(known), seen, attributes);
            let fields = self.differences(seen, attributes, &wish);
            return match (fields.is_empty(), needed && !was_there) {
                (true, true) => Removal::Wait,
                (true, false) => Removal::Release,
                (false, stays_ours) => {
                    let edit = self.narrowed(seen, attributes, wish).edit();
                    let mut change = undeclared(known, Action::Restore, edit, fields);
                    if stays_ours {
                        change = still_ours(change, Applied::Parent { as_user });
                    }
                    Removal::Change(Box::new(change))
                }
            };
        }
        let stays = |child: &String| !going.contains(join(path, child).as_str());
        if seen.children.iter().any(stays) {
            return Removal::Wait;
        }
        let mut change = match &known.item.original {
            Original::File {
                sha256,
                size,
                mode,
                uid,
                gid,
                xattrs,
            } if known.item.on_removal == OnRemoval::Restore => {
                let access = Wish::exactly(Attributes {
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                })
                .with_xattrs(xattrs);
                let edit = restored_file(*sha256, *size, access, true);
                undeclared(known, Action::Restore, edit, vec!["type".to_owned()])
            }
            Original::Symlink { target, owner } if known.item.on_removal == OnRemoval::Restore => {
                let edit = Edit::MakeLink {
                    target: target.clone(),
                    owner: *owner,
                    replace: true,
                };
                undeclared(known, Action::Restore, edit, vec!["type".to_owned()])
            }
            _ => undeclared(known, Action::Delete, Edit::RemoveDirectory, Vec::new()),
        };
        // An empty directory that nobody declared is no loss.
        change.removes =
            change.action == Action::Delete && !matches!(known.applied, Applied::Parent { .. });
        Removal::Change(Box::new(change))
    }

    /// A file of which we managed only permissions and owner.
    fn bare_file_removal(&self, known: &Known<'_>, seen: &ObservedPath) -> Removal {
        let Entry::File {
            links: 1,
            attributes,
            ..
        } = &seen.look.entry
        else {
            return Removal::Release;
        };
        if known.item.on_removal == OnRemoval::Delete {
            let edit = Edit::RemoveFile { expected: None };
            let mut change = undeclared(known, Action::Delete, edit, Vec::new());
            change.removes = true;
            return Removal::Change(Box::new(change));
        }
        let wish = self.with_taken_back(Wish::default(), Some(known), seen, attributes);
        let fields = self.differences(seen, attributes, &wish);
        if fields.is_empty() {
            return Removal::Release;
        }
        let edit = self.narrowed(seen, attributes, wish).edit();
        Removal::Change(Box::new(undeclared(known, Action::Restore, edit, fields)))
    }

    /// A file or link that we wrote, or the absence of one.
    fn file_removal(&self, known: &Known<'_>, seen: &ObservedPath) -> Result<Removal, Failure> {
        let entry = &seen.look.entry;
        let as_user = known.applied.as_user().cloned();
        if self.is_needed(&known.item.key) {
            // What was there cannot come back while something is declared below it: it is remembered for the day nothing is.
            return match entry {
                Entry::Absent | Entry::Directory(_) => Ok(Removal::Wait),
                _ if self.is_ours(&known.item.key, entry) => {
                    let access = Wish::default().access(DIRECTORY_MODE);
                    let edit = Edit::MakeDirectory {
                        access,
                        replace: true,
                    };
                    let mut change =
                        undeclared(known, Action::Update, edit, vec!["type".to_owned()]);
                    change = still_ours(change, Applied::Parent { as_user });
                    Ok(Removal::Change(Box::new(change)))
                }
                _ => Err(changed_since(known)),
            };
        }
        if self.has_no_place(&known.item.key) {
            // The same, where the directory that held it is declared to be none.
            if *entry == Entry::Absent {
                return Ok(self.remembered(known));
            }
            if !self.is_ours(&known.item.key, entry) {
                return Err(changed_since(known));
            }
            let edit = Edit::RemoveFile { expected: None };
            let mut change = undeclared(known, Action::Delete, edit, Vec::new());
            change.removes = true;
            if known.item.original != Original::Absent {
                change = still_ours(change, Applied::Absent { as_user });
            }
            return Ok(Removal::Change(Box::new(change)));
        }
        let target = match known.item.on_removal {
            OnRemoval::Delete => &Original::Absent,
            OnRemoval::Restore | OnRemoval::Keep => &known.item.original,
        };
        // Where its directory is gone for good there is no place to put anything back.
        let missing = &seen.look.missing_parents;
        // Of a file that goes, what it has beside its content goes with it.
        let taken_back = |wish: Wish| self.with_xattrs_taken_back(wish, Some(known), seen);
        let is_already = is_already(entry, target) && taken_back(Wish::default()).named.is_empty();
        if is_already || !missing.iter().all(|parent| self.comes_back(parent)) {
            return Ok(Removal::Release);
        }
        if *entry != Entry::Absent && !self.is_ours(&known.item.key, entry) {
            return Err(changed_since(known));
        }
        let replaced = if *entry == Entry::Absent {
            Vec::new()
        } else {
            vec!["content".to_owned()]
        };
        let change = match target {
            Original::Absent => {
                let expected = match known.applied {
                    // Which is no hash of the file alone where it is a secret; it is ours, as was seen above.
                    Applied::File {
                        sha256,
                        secret: false,
                        ..
                    } => *sha256,
                    _ => None,
                };
                let mut change = undeclared(
                    known,
                    Action::Delete,
                    Edit::RemoveFile { expected },
                    Vec::new(),
                );
                change.removes = true;
                change
            }
            Original::File {
                sha256,
                size,
                mode,
                uid,
                gid,
                xattrs,
            } => {
                let attributes = Attributes {
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                };
                match entry {
                    Entry::File {
                        sha256: Some(found),
                        attributes: now,
                        ..
                    } if found == sha256 && xattrs.is_empty() => {
                        let wish = taken_back(Wish::exactly(attributes));
                        let fields = self.differences(seen, now, &wish);
                        undeclared(
                            known,
                            Action::Restore,
                            self.narrowed(seen, now, wish).edit(),
                            fields,
                        )
                    }
                    _ => {
                        let access = Wish::exactly(attributes).with_xattrs(xattrs);
                        let edit = restored_file(*sha256, *size, access, false);
                        undeclared(known, Action::Restore, edit, replaced)
                    }
                }
            }
            Original::Symlink { target, owner } => {
                let edit = Edit::MakeLink {
                    target: target.clone(),
                    owner: *owner,
                    replace: false,
                };
                undeclared(known, Action::Restore, edit, replaced)
            }
            Original::Directory {
                mode,
                uid,
                gid,
                xattrs,
            } => {
                let access = Wish::exactly(Attributes {
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                })
                .with_xattrs(xattrs)
                .access(DIRECTORY_MODE);
                let edit = Edit::MakeDirectory {
                    access,
                    replace: *entry != Entry::Absent,
                };
                undeclared(known, Action::Restore, edit, replaced)
            }
            Original::AttributesOnly { mode, uid, gid, .. } => {
                let Entry::File {
                    attributes: now, ..
                } = entry
                else {
                    return Ok(Removal::Release);
                };
                let wish = taken_back(Wish::exactly(Attributes {
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                }));
                let fields = self.differences(seen, now, &wish);
                if fields.is_empty() {
                    return Ok(Removal::Release);
                }
                undeclared(
                    known,
                    Action::Restore,
                    self.narrowed(seen, now, wish).edit(),
                    fields,
                )
            }
        };
        Ok(Removal::Change(Box::new(change)))
    }
}

fn restored_file(sha256: [u8; 32], size: u64, access: Wish, replace: bool) -> Edit {
    Edit::WriteFile {
        content: Content {
            sha256,
            size,
            source: ContentSource::Original,
        },
        access: access.access(FILE_MODE),
        validate: None,
        replace,
    }
}

/// The same change, of something that stays in the inventory: because of what is declared now, not because it no longer is.
fn still_ours(
    mut change: PlannedChange<Original, PathChange>,
    applied: Applied,
) -> PlannedChange<Original, PathChange> {
    change.reason = Reason::Differs;
    change.change.applied = Some(applied);
    change
}

fn changed_since(known: &Known<'_>) -> Failure {
    Failure::new(
        Class::Host,
        format!(
            "kept '{}', which is no longer declared: it was changed since limpet wrote it",
            known.item.key
        ),
    )
    .with_hint("if it is not needed delete it by hand; else declare it again, with on_removal = \"keep\" to let go of it")
}

fn undeclared(
    known: &Known<'_>,
    action: Action,
    edit: Edit,
    fields: Vec<String>,
) -> PlannedChange<Original, PathChange> {
    let id: ResourceId = known.item.id.clone();
    PlannedChange {
        id: id.clone(),
        key: known.item.key.clone(),
        action,
        reason: Reason::Undeclared,
        fields,
        original: known.item.original.clone(),
        removes: false,
        change: PathChange {
            id,
            path: known.item.key.clone(),
            edit,
            applied: None,
            is_secret: false,
            as_user: None, // the plan says it of all of them
        },
    }
}

/// Is the path as it was before limpet.
fn is_already(entry: &Entry, original: &Original) -> bool {
    match (entry, original) {
        (Entry::Absent, Original::Absent) => true,
        (Entry::Symlink(found), Original::Symlink { target, .. }) => found == target,
        (
            Entry::File {
                attributes,
                sha256: Some(found),
                ..
            },
            Original::File {
                sha256,
                mode,
                uid,
                gid,
                xattrs,
                ..
            },
        ) => {
            // They were not looked at: what had some is written once more.
            found == sha256
                && xattrs.is_empty()
                && *attributes
                    == Attributes {
                        mode: *mode,
                        uid: *uid,
                        gid: *gid,
                    }
        }
        (Entry::Directory(_), Original::Directory { .. }) => true,
        _ => false,
    }
}
