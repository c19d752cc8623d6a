//! What must change so that the paths are as declared: no I/O, no clock.
//!
//! What limpet set and no longer finds declared is *taken back*, but only while it is still what limpet set: what somebody changed
//! since is his.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::kinds::file::by_path::ByPath;
use crate::kinds::file::plan::removal::Removal;
use crate::kinds::file::{
    Applied, DesiredPath, Edit, ObservedPath, ObservedPaths, Original, PathChange, PathSpec,
    Remembered,
};
use crate::kinds::kind::{Owned, PlannedChange, Step};
use crate::model::{Action, Class, Failure, Name};
use crate::sys::files::{Entry, above, split};

mod access;
mod declared;
mod removal;

const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

type PathStep = Step<Original, PathChange>;

/// What the inventory remembers of `desired` once it is as declared, if it remembered nothing before.
pub fn applied(desired: &DesiredPath) -> Applied {
    applied_after(desired, None)
}

/// What the inventory remembers of `desired` once it is as declared; `owned` is what it remembers until then.
pub fn applied_after(
    desired: &DesiredPath,
    owned: Option<&Owned<Original, Remembered>>,
) -> Applied {
    let before = owned.and_then(|owned| Some((owned.applied.applied()?, &owned.original)));
    match &desired.spec {
        PathSpec::File {
            content: Some(content),
            mode,
            owner,
            group,
            xattrs,
            ..
        } => Applied::File {
            sha256: Some(content.sha256),
            mode: Some(mode.unwrap_or(FILE_MODE)),
            owner: Some(owner.clone().unwrap_or_else(Name::root)),
            group: group.clone().or_else(|| usual_group(desired)),
            xattrs: xattrs.clone(),
            as_user: desired.as_user.clone(),
            secret: content.as_sealed().is_some(),
        },
        PathSpec::File {
            content: None,
            mode,
            owner,
            group,
            xattrs,
            ..
        } => Applied::File {
            // A file that we wrote stays one, also while its content is not declared, unless there are old bytes to go back to.
            sha256: match before {
                Some((
                    Applied::File { sha256, .. },
                    Original::Absent | Original::Symlink { .. } | Original::Directory { .. },
                )) => *sha256,
                _ => None,
            },
            mode: *mode,
            owner: owner.clone(),
            group: group.clone(),
            xattrs: xattrs.clone(),
            as_user: desired.as_user.clone(),
            secret: before.is_some_and(|(applied, _)| applied.is_secret()),
        },
        PathSpec::Directory {
            mode,
            owner,
            group,
            xattrs,
            purge,
        } => Applied::Directory {
            mode: *mode,
            owner: owner.clone(),
            group: group.clone(),
            xattrs: xattrs.clone(),
            purge: purge.is_some(),
        },
        PathSpec::Symlink { target } => Applied::Symlink {
            target: target.clone(),
        },
        PathSpec::Archive { mode, .. } => Applied::Directory {
            mode: *mode,
            owner: None,
            group: None,
            xattrs: Default::default(),
            purge: false,
        },
        PathSpec::Absent | PathSpec::Purged => Applied::Absent {
            as_user: desired.as_user.clone(),
        },
    }
}

/// The group of a file with content that says none; a user's files have his.
fn usual_group(desired: &DesiredPath) -> Option<Name> {
    desired.as_user.is_none().then(Name::root)
}

/// What was applied, as far as anybody knows. A run that ended between its intention and its conclusion left null: then only a
/// directory that was not there before is taken for ours.
fn understand<'a>(
    item: &'a Owned<Original, Remembered>,
    observed: &ObservedPaths,
) -> Result<&'a Applied, &'a str> {
    match &item.applied {
        Remembered::Applied(applied) => Ok(applied),
        Remembered::Unreadable(cause) => Err(cause),
        Remembered::Nothing => {
            let is_directory = matches!(
                observed.paths.get(&item.key),
                Some(Ok(seen)) if matches!(seen.look.entry, Entry::Directory(_))
            );
            Ok(if is_directory {
                &Applied::Parent { as_user: None }
            } else {
                &Applied::Absent { as_user: None }
            })
        }
    }
}

pub(super) fn plan(
    desired: &[DesiredPath],
    observed: &ObservedPaths,
    owned: &[Owned<Original, Remembered>],
) -> Vec<PathStep> {
    let mut blocked: Vec<Failure> = Vec::new();
    let mut known: Vec<(&str, Known<'_>)> = Vec::with_capacity(owned.len());
    for item in owned {
        match understand(item, observed) {
            Ok(applied) => known.push((&item.key, Known { item, applied })),
            Err(error) => blocked.push(
                Failure::new(
                    Class::Bug,
                    format!(
                        "failed to read the inventory entry of '{}': {error}",
                        item.key
                    ),
                )
                .about(item.id.clone()),
            ),
        }
    }
    let planner = Planner {
        desired: desired
            .iter()
            .map(|item| (item.path.as_str(), item))
            .collect(),
        observed,
        known: known.into_iter().collect(),
        declared_above: RefCell::default(),
    };

    let mut changes: Vec<Box<PlannedChange<Original, PathChange>>> = Vec::new();
    let mut parents: BTreeMap<&str, &DesiredPath> = BTreeMap::new();
    let mut places: BTreeMap<&str, &DesiredPath> = BTreeMap::new();
    for (_, item) in planner.desired.iter() {
        let item = *item;
        let result = planner.check_path(item).and_then(|()| {
            let seen = planner.observed(&item.path)?;
            planner.check_place(item, seen, &mut places)?;
            Ok((seen, planner.desired_change(item, seen)?))
        });
        match result {
            Ok((_, None)) => {}
            Ok((seen, Some(change))) => {
                for parent in seen.look.missing_parents.iter() {
                    // A path that is only looked at makes no directory, unless another one needs it too.
                    let child = parents.entry(parent).or_insert(item);
                    if child.report && !item.report {
                        *child = item;
                    }
                }
                changes.push(Box::new(change));
            }
            Err(failure) => blocked.push(failure.about(item.id.clone())),
        }
    }
    changes.extend(
        parents
            .into_iter()
            .filter(|(parent, _)| !planner.desired.contains(parent))
            .map(|(parent, child)| Box::new(planner.parent_change(parent, child))),
    );

    let mut released: Vec<PathStep> = Vec::new();
    let mut going: BTreeSet<&str> = BTreeSet::new();
    // Deepest first, so that a directory knows which of its children go.
    for (path, known) in planner.known.iter().rev() {
        if planner.desired.contains(path) || planner.may_be_in_an_archive(path) {
            continue;
        }
        let removal = match planner.observed(path) {
            Ok(seen) => planner.removal(known, seen, &going),
            // What is declared on the way is no directory any more.
            Err(_) if planner.has_no_place(path) => Ok(planner.remembered(known)),
            Err(failure) => Err(failure),
        };
        match removal {
            Ok(Removal::Change(change)) => {
                if matches!(
                    change.change.edit,
                    Edit::RemoveFile { .. } | Edit::RemoveDirectory
                ) {
                    going.insert(path);
                }
                changes.push(change);
            }
            Ok(Removal::Release) => released.push(Step::Release {
                id: known.item.id.clone(),
                key: known.item.key.clone(),
            }),
            Ok(Removal::Wait) => {}
            Err(failure) => blocked.push(failure.about(known.item.id.clone())),
        }
    }

    for change in &mut changes {
        let path = change.key.as_str();
        let desired = planner.desired.get(path);
        let known = planner.known.get(path);
        change.change.is_secret = desired.is_some_and(|item| item.sealed().is_some())
            || known.is_some_and(|known| known.applied.is_secret());
        let applied = change.change.applied.as_ref();
        change.change.as_user = match (desired, applied.or(known.map(|known| known.applied))) {
            (Some(item), _) => item.as_user.clone(),
            (None, applied) => applied.and_then(Applied::as_user).cloned(),
        };
        if change.change.as_user.is_some() && change.action == Action::Restore {
            change.change.edit.give_to_its_maker();
        }
    }
    let mut steps: Vec<PathStep> = in_order(changes).into_iter().map(Step::Change).collect();
    steps.extend(released);
    steps.extend(blocked.into_iter().map(Step::Blocked));
    steps
}

/// Directories before what is in them, and what is deleted at the end, deepest first; only what lies in a directory that makes room
/// for something else goes before everything.
#[expect(clippy::vec_box, reason = "each goes into its step as it is")]
fn in_order(
    mut changes: Vec<Box<PlannedChange<Original, PathChange>>>,
) -> Vec<Box<PlannedChange<Original, PathChange>>> {
    let making_room: BTreeSet<Name> = changes
        .iter()
        .filter(|change| {
            matches!(
                change.change.edit,
                Edit::WriteFile { replace: true, .. } | Edit::MakeLink { replace: true, .. }
            )
        })
        .map(|change| change.key.clone())
        .collect();
    let rank = |change: &PlannedChange<Original, PathChange>| match change.change.edit {
        Edit::RemoveFile { .. } | Edit::RemoveDirectory => {
            if above(&change.key).any(|above| making_room.contains(above)) {
                0
            } else {
                3
            }
        }
        Edit::MakeDirectory { .. } => 1,
        Edit::WriteFile { .. } | Edit::MakeLink { .. } | Edit::SetAccess { .. } => 2,
    };
    changes.sort_by(|one, other| {
        let ranks = (rank(one), rank(other));
        ranks.0.cmp(&ranks.1).then_with(|| match ranks.0 {
            1 | 2 => one.key.cmp(&other.key),
            _ => other.key.cmp(&one.key),
        })
    });
    changes
}

/// An owned path with its inventory entry understood.
struct Known<'a> {
    item: &'a Owned<Original, Remembered>,
    applied: &'a Applied,
}

struct Planner<'a> {
    desired: ByPath<&'a str, &'a DesiredPath>,
    observed: &'a ObservedPaths,
    known: ByPath<&'a str, Known<'a>>,
    /// The directory that was asked about last, and what is declared on the way to what lies in it.
    declared_above: RefCell<(&'a str, DeclaredAbove<'a>)>,
}

/// Declarations of directories, innermost first.
type DeclaredAbove<'a> = Rc<[&'a DesiredPath]>;

impl<'a> Planner<'a> {
    fn observed(&self, path: &str) -> Result<&'a ObservedPath, Failure> {
        match self.observed.paths.get(path) {
            Some(Ok(seen)) => Ok(seen),
            Some(Err(failure)) => Err((**failure).clone()),
            None => Err(Failure::new(
                Class::Bug,
                format!("failed to plan '{path}': it was not looked at"),
            )),
        }
    }

    /// The declarations of the directories on the way to it, innermost first.
    fn declared_above(&self, item: &'a DesiredPath) -> DeclaredAbove<'a> {
        let directory = split(&item.path).0;
        let mut last = self.declared_above.borrow_mut();
        if last.0 != directory {
            let declared = above(&item.path).filter_map(|path| self.desired.get(path).copied());
            *last = (directory, declared.collect());
        }
        last.1.clone()
    }

    /// Is at the path what limpet put there, unchanged. A directory is ours when we made it.
    fn is_ours(&self, path: &str, entry: &Entry) -> bool {
        let Some(known) = self.known.get(path) else {
            return false;
        };
        match (known.applied, entry) {
            (
                Applied::File {
                    sha256: Some(written),
                    ..
                },
                Entry::File { sha256, .. },
            ) => *sha256 == Some(*written),
            (Applied::Symlink { target }, Entry::Symlink(found)) => target == found,
            (Applied::Directory { .. } | Applied::Parent { .. }, Entry::Directory(_)) => {
                !matches!(known.item.original, Original::Directory { .. })
            }
            (Applied::Absent { .. }, Entry::Absent) => true,
            _ => false,
        }
    }
}
