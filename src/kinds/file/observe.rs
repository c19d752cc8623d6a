//! One look at all paths that are declared or owned.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::kinds::file::by_path::ByPath;
use crate::kinds::file::ways::Walks;
use crate::kinds::file::{
    Applied, DesiredPath, MAX_ADDRESSED_BYTES, MAX_CONTENT_BYTES, Original, PathSpec, Remembered,
};
use crate::kinds::kind::Owned;
use crate::model::{Failure, Name};
use crate::sys::Host;
use crate::sys::files::{Entry, Hashing, Look, Walk, above, join};
use crate::sys::write::is_candidate_name;
use crate::sys::xattrs::Xattrs;

/// Whom everything belongs to where nothing is said.
const ROOT: &str = "root";

/// How many names of a directory are looked at to see what keeps it from being removed.
const LIST_LIMIT: usize = 10_000;

/// Everything that was seen.
#[derive(Debug, Clone, Default)]
pub struct ObservedPaths {
    /// Every declared and every owned path.
    pub paths: ByPath<Name, Result<ObservedPath, Box<Failure>>>,
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
    /// Its extended attributes, where some are declared or were applied.
    pub xattrs: Xattrs,
    /// What is in it, when it is a directory that may have to go.
    pub children: Vec<String>,
}

impl ObservedPath {
    fn absent() -> Self {
        ObservedPath {
            look: Look {
                entry: Entry::Absent,
                elsewhere: None,
                missing_parents: [].into(),
            },
            xattrs: Xattrs::default(),
            children: Vec::new(),
        }
    }
}

/// What was seen a moment ago, before nothing but the paths in `touched` was changed by us.
#[derive(Debug)]
pub struct SeenBefore {
    /// What was seen.
    pub paths: ObservedPaths,
    /// What was to be changed since, whether it was or not.
    pub touched: BTreeSet<Name>,
}

impl SeenBefore {
    /// Can what was changed not have changed what is at `path`: it is neither there, nor above, nor below, and no link leads elsewhere.
    fn is_out_of_reach(&self, path: &str, seen: &ObservedPath) -> bool {
        let is_touched = |path: &str| self.touched.contains(path);
        let below = format!("{path}/");
        let has_touched_below = || {
            let from = (Bound::Included(below.as_str()), Bound::Unbounded);
            let next = self.touched.range::<str, _>(from).next();
            next.is_some_and(|next| next.starts_with(&below))
        };
        seen.look.elsewhere.is_none()
            && !is_touched(path)
            && !above(path).any(is_touched)
            && !has_touched_below()
    }
}

pub(super) fn observe(
    host: &Host,
    desired: &[DesiredPath],
    owned: &[Owned<Original, Remembered>],
    mut before: Option<SeenBefore>,
) -> ObservedPaths {
    let mut users: BTreeSet<&str> = BTreeSet::from([ROOT]);
    let mut groups = users.clone();
    for item in desired {
        match &item.spec {
            PathSpec::File { owner, group, .. } | PathSpec::Directory { owner, group, .. } => {
                users.extend(owner.as_deref());
                groups.extend(group.as_deref());
            }
            PathSpec::Symlink { .. }
            | PathSpec::Archive { .. }
            | PathSpec::Absent
            | PathSpec::Purged => {}
        }
    }
    for item in owned {
        // What cannot be read is reported by the plan.
        if let Some(Applied::File { owner, group, .. } | Applied::Directory { owner, group, .. }) =
            item.applied.applied()
        {
            users.extend(owner.as_deref());
            groups.extend(group.as_deref());
        }
    }

    let wanted = wanted(desired, owned);
    let mut seen = Vec::with_capacity(wanted.len());
    let mut walks = Walks::new(host);
    let seen_before = before
        .as_mut()
        .map(|before| std::mem::take(&mut before.paths.paths));
    let mut seen_before = seen_before
        .unwrap_or_default()
        .into_entries()
        .into_iter()
        .peekable();
    for (path, wanted) in wanted {
        while seen_before.next_if(|(other, _)| other < path).is_some() {}
        if let Some(before) = &before
            && let Some((same, Ok(look))) = seen_before.next_if(|(other, _)| other == path)
            && before.is_out_of_reach(path, &look)
        {
            seen.push((same, Ok(look)));
            continue;
        }
        let look = match walks.find(wanted.as_user) {
            Ok(Some(walk)) => look(walk, path, wanted),
            // Whose user is not there yet is not there: if it is needed, applying says why it is not.
            Ok(None) => Ok(ObservedPath::absent()),
            Err(failure) => Err(failure),
        };
        seen.push((path.clone(), look.map_err(Box::new)));
    }
    let paths = ByPath::of_sorted(seen);
    // An account that cannot be looked up is as one that is not there: if it is needed, applying says why it is not.
    let known =
        |name: &str, found: Result<Option<u32>, Failure>| Some((name.to_owned(), found.ok()??));
    ObservedPaths {
        paths,
        users: users
            .into_iter()
            .filter_map(|name| known(name, host.user_id(name)))
            .collect(),
        groups: groups
            .into_iter()
            .filter_map(|name| known(name, host.group_id(name)))
            .collect(),
    }
}

/// What to look for, by path: in this order one walk shares its directories.
fn wanted<'a>(
    desired: &'a [DesiredPath],
    owned: &'a [Owned<Original, Remembered>],
) -> Vec<(&'a Name, Wanted<'a>)> {
    let mut wanted: Vec<(&Name, Wanted<'_>)> = Vec::with_capacity(desired.len().max(owned.len()));
    let mut left = owned.iter().peekable();
    for item in desired {
        let path = &item.path;
        while let Some(before) = left.next_if(|owned| owned.key < *path) {
            wanted.push((&before.key, Wanted::of_owned(&before.applied)));
        }
        let mut looked_for = Wanted::of_declared(item);
        if let Some(same) = left.next_if(|owned| owned.key == *path) {
            looked_for = looked_for.with(Wanted::of_owned(&same.applied));
        }
        wanted.push((path, looked_for));
    }
    wanted.extend(left.map(|item| (&item.key, Wanted::of_owned(&item.applied))));
    // Both come in order; it is made sure of because the walk and whoever looks up depend on it.
    if !wanted.is_sorted_by(|one, other| one.0 < other.0) {
        // What is declared before what is owned.
        wanted.sort_by_key(|(path, wanted)| (*path, !wanted.is_declared));
        wanted.dedup_by(|(path, later), (same, earlier)| {
            let is_same = path == same;
            if is_same {
                *earlier = earlier.with(*later);
            }
            is_same
        });
    }
    // What is in a directory matters only where nothing needs it: mostly, thousands of names that nobody would ask for.
    for index in 0..wanted.len() {
        let (path, looked_for) = &wanted[index];
        if looked_for.children && !looked_for.is_declared && is_needed(&wanted, path) {
            wanted[index].1.children = false;
        }
    }
    wanted
}

/// Is anything declared below `path`.
fn is_needed(wanted: &[(&Name, Wanted<'_>)], path: &str) -> bool {
    // What lies below it stands together in the order of paths, right after this prefix.
    let prefix = join(path, "");
    let first = wanted.partition_point(|(path, _)| path.as_str() < prefix.as_str());
    wanted[first..]
        .iter()
        .take_while(|(path, _)| path.starts_with(&prefix))
        .any(|(_, wanted)| wanted.is_declared)
}

/// What to look for at a path.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    /// With whose rights.
    as_user: Option<&'a Name>,
    content: WantedContent,
    xattrs: bool,
    children: bool,
    is_declared: bool,
}

/// When a file's content is looked at.
#[derive(Debug, Clone, Copy)]
enum WantedContent {
    Never,
    /// When it has so many bytes: with another number it is another content, whatever it is.
    OfSize(u64),
    Always,
    /// However large it is.
    OfAnySize,
}

impl<'a> Wanted<'a> {
    fn of_declared(item: &'a DesiredPath) -> Self {
        let spec = &item.spec;
        Wanted {
            as_user: item.as_user.as_ref(),
            content: match spec {
                // Its size is not known.
                PathSpec::File {
                    content: Some(content),
                    ..
                } if content.as_address().is_some() => WantedContent::OfAnySize,
                // A secret is hashed with a key of its own; see the vault.
                PathSpec::File {
                    content: Some(content),
                    ..
                } if content.as_sealed().is_none() => WantedContent::OfSize(content.size),
                _ => WantedContent::Never,
            },
            xattrs: match spec {
                PathSpec::File { xattrs, .. } | PathSpec::Directory { xattrs, .. } => {
                    !xattrs.is_empty()
                }
                PathSpec::Symlink { .. }
                | PathSpec::Archive { .. }
                | PathSpec::Absent
                | PathSpec::Purged => false,
            },
            children: matches!(spec, PathSpec::Absent),
            is_declared: true,
        }
    }

    /// What matters of a path that is not declared; [`with`](Self::with) says what does of one that is.
    fn of_owned(remembered: &'a Remembered) -> Self {
        let wrote = matches!(
            remembered.applied(),
            Some(Applied::File {
                sha256: Some(_),
                secret: false,
                ..
            })
        );
        Wanted {
            as_user: remembered.applied().and_then(Applied::as_user),
            content: match wrote {
                true => WantedContent::Always,
                false => WantedContent::Never,
            },
            xattrs: remembered
                .applied()
                .and_then(Applied::xattrs)
                .is_some_and(|xattrs| !xattrs.is_empty()),
            children: true,
            is_declared: false,
        }
    }

    fn with(self, owned: Wanted<'_>) -> Self {
        Wanted {
            content: match (self.content, owned.content) {
                (WantedContent::Never, content) => content,
                (content, _) => content,
            },
            xattrs: self.xattrs || owned.xattrs,
            ..self
        }
    }
}

fn look(walk: &mut Walk, path: &str, wanted: Wanted<'_>) -> Result<ObservedPath, Failure> {
    let content = match wanted.content {
        WantedContent::Never if wanted.is_declared => Hashing::Skip,
        WantedContent::OfSize(size) => Hashing::Remembered {
            at_least: size,
            at_most: size,
        },
        // What we wrote may be as large, too, when it is no longer declared.
        WantedContent::OfAnySize | WantedContent::Always => Hashing::Remembered {
            at_least: 0,
            at_most: MAX_ADDRESSED_BYTES,
        },
        // What is owned and no longer declared is compared with what was there before as well.
        WantedContent::Never => Hashing::Remembered {
            at_least: 0,
            at_most: MAX_CONTENT_BYTES,
        },
    };
    let look = walk.look(path, content)?;
    let children = match look.entry {
        // Removing takes leftovers of ours along, though not out of a directory where others may write.
        Entry::Directory(attributes) if wanted.children => walk
            .list_any(path, LIST_LIMIT)?
            .into_iter()
            .filter(|name| !walk.is_safe(&attributes) || !is_candidate_name(name))
            .collect(),
        _ => Vec::new(),
    };
    let xattrs = match look.entry {
        Entry::File { .. } | Entry::Directory(_) if wanted.xattrs => walk.read_xattrs(path)?,
        _ => Xattrs::default(),
    };
    Ok(ObservedPath {
        look,
        xattrs,
        children,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beside_a_change_is_out_of_its_reach_and_what_is_above_or_below_is_not() {
        let seen = |elsewhere: Option<&str>| ObservedPath {
            look: Look {
                entry: Entry::Absent,
                elsewhere: elsewhere.map(str::to_owned),
                missing_parents: [].into(),
            },
            xattrs: Xattrs::default(),
            children: Vec::new(),
        };
        let before = SeenBefore {
            paths: ObservedPaths::default(),
            touched: BTreeSet::from([Name::from("/etc/app/conf")]),
        };
        for (path, expected) in [
            ("/etc/app/conf", false),
            ("/etc/app/conf/below", false),
            ("/etc/app", false),
            ("/etc", false),
            ("/etc/app/conf.d", true),
            ("/etc/app/com", true),
            ("/etc/ap", true),
            ("/srv", true),
        ] {
            let is_out = before.is_out_of_reach(path, &seen(None));
            assert_eq!(is_out, expected, "{path}");
        }
        assert!(!before.is_out_of_reach("/srv", &seen(Some("/etc/app/conf"))));
    }
}
