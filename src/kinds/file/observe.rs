//! One look at all paths that are declared or owned.

use std::collections::{BTreeMap, BTreeSet};

use crate::kinds::file::{Applied, DesiredPath, MAX_CONTENT_BYTES, Original, PathSpec};
use crate::kinds::kind::Owned;
use crate::model::Failure;
use crate::sys::Host;
use crate::sys::files::{Entry, Hashing, Look, Walk};
use crate::sys::write::is_candidate_name;

/// How many names of a directory are looked at to see what keeps it from being removed.
const LIST_LIMIT: usize = 10_000;

/// Everything that was seen.
#[derive(Debug, Clone, Default)]
pub struct ObservedPaths {
    /// Every declared and every owned path.
    pub paths: BTreeMap<String, Result<ObservedPath, Failure>>,
    /// The numbers of the users that were named; names that are missing here are not known (yet).
    pub users: BTreeMap<String, u32>,
    /// The numbers of the groups that were named.
    pub groups: BTreeMap<String, u32>,
}

/// What was seen at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedPath {
    /// What is there.
    pub look: Look,
    /// What is in it, when it is a directory that may have to go.
    pub children: Vec<String>,
}

pub(super) fn observe(
    host: &Host,
    desired: &[DesiredPath],
    owned: &[Owned<Original>],
) -> ObservedPaths {
    let mut observed = ObservedPaths::default();
    let mut users: BTreeSet<String> = BTreeSet::from(["root".to_owned()]);
    let mut groups = users.clone();
    // What to look for, by path: in this order one walk shares its directories.
    let mut wanted: BTreeMap<&str, Wanted> = BTreeMap::new();
    for item in desired {
        let wanted = wanted.entry(&item.path).or_default();
        match &item.spec {
            PathSpec::File {
                content,
                owner,
                group,
                ..
            } => {
                wanted.hash |= content.is_some();
                users.extend(owner.clone());
                groups.extend(group.clone());
            }
            PathSpec::Directory { owner, group, .. } => {
                users.extend(owner.clone());
                groups.extend(group.clone());
            }
            PathSpec::Symlink { .. } => {}
            PathSpec::Absent => wanted.children = true,
        }
    }
    let declared: BTreeSet<&str> = wanted.keys().copied().collect();
    for item in owned {
        let wanted = wanted.entry(&item.key).or_default();
        if !declared.contains(item.key.as_str()) {
            wanted.children = true;
            wanted.hash = true;
        }
        match serde_json::from_value::<Applied>(item.applied.clone()) {
            Ok(Applied::File {
                sha256,
                owner,
                group,
                ..
            }) => {
                wanted.hash |= sha256.is_some();
                users.extend(owner);
                groups.extend(group);
            }
            Ok(Applied::Directory { owner, group, .. }) => {
                users.extend(owner);
                groups.extend(group);
            }
            // What cannot be read is reported by the plan.
            Ok(Applied::Symlink { .. } | Applied::Parent | Applied::Absent) | Err(_) => {}
        }
    }

    match host.walk() {
        Ok(mut walk) => {
            for (path, wanted) in wanted {
                observed
                    .paths
                    .insert(path.to_owned(), look(&mut walk, path, wanted));
            }
        }
        Err(failure) => {
            let paths = wanted
                .into_keys()
                .map(|path| (path.to_owned(), Err(failure.clone())));
            observed.paths.extend(paths);
        }
    }
    // An account that cannot be looked up is as one that is not there: if it is needed, applying says why it is not.
    let known = |name: String, found: Result<Option<u32>, Failure>| Some((name, found.ok()??));
    observed.users = users
        .into_iter()
        .filter_map(|name| known(name.clone(), host.user_id(&name)))
        .collect();
    observed.groups = groups
        .into_iter()
        .filter_map(|name| known(name.clone(), host.group_id(&name)))
        .collect();
    observed
}

#[derive(Debug, Default)]
struct Wanted {
    hash: bool,
    children: bool,
}

fn look(walk: &mut Walk, path: &str, wanted: Wanted) -> Result<ObservedPath, Failure> {
    let hashing = if wanted.hash {
        Hashing::UpTo(MAX_CONTENT_BYTES)
    } else {
        Hashing::Skip
    };
    let look = walk.look(path, hashing)?;
    let children = match look.entry {
        // Removing takes leftovers of ours along, though not out of a directory where others may write.
        Entry::Directory(attributes) if wanted.children => walk
            .list_any(path, LIST_LIMIT)?
            .into_iter()
            .filter(|name| !walk.is_safe(&attributes) || !is_candidate_name(name))
            .collect(),
        _ => Vec::new(),
    };
    Ok(ObservedPath { look, children })
}
