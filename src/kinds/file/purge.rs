//! What is found in purged directories and nobody declares: it is to go, as if it were declared absent.
//!
//! An undeclared directory goes as a whole, unless something in it is ignored or mounted; then only the rest of it does. A directory
//! that something declared lies in stays, and what else is in it is left alone: it has to be purged itself.
//!
//! Invariant: looks only. What was purged stays so for as long as its directory is purged, so that it does not come back by being
//! taken for something that is no longer declared. No mount point is entered.

use std::collections::BTreeMap;

use glob::{MatchOptions, Pattern};

use crate::kinds::file::{Applied, DesiredPath, Original, PathSpec, Purge, Remembered};
use crate::kinds::kind::Owned;
use crate::model::{Class, Failure, Name};
use crate::sys::Host;
use crate::sys::files::{Entry, Hashing, Walk, above, join, split};
use crate::sys::write::is_candidate_name;

/// How many paths may be found to go at a time.
const MOST_FOUND: usize = 10_000;

/// How deep they may lie.
const DEEPEST: usize = 64;

/// Brings the [`PathSpec::Purged`] among `paths` up to date: what was found before is forgotten, what is there now is added in its place.
/// Both keep the order of paths. Returns what kept a directory from being looked through.
pub fn find_purged(
    host: &Host,
    paths: &mut Vec<DesiredPath>,
    owned: &[Owned<Original, Remembered>],
) -> Vec<Failure> {
    paths.retain(|path| path.spec != PathSpec::Purged);
    let is_in_archive = |purging: &Purging<'_>| {
        let mut declared = above(&purging.item.path).filter_map(|above| find(paths, above));
        declared.any(|above| matches!(above.spec, PathSpec::Archive { .. }))
    };
    let mut purging: Vec<Purging<'_>> = paths.iter().filter_map(Purging::new).collect();
    // What of it is declared is not known before the archive is.
    purging.retain(|purging| !is_in_archive(purging));
    if purging.is_empty() {
        return Vec::new();
    }
    let mut failures = Vec::new();
    let mut walk = match host.walk() {
        Ok(walk) => walk,
        Err(failure) => return vec![failure],
    };
    let mut found = BTreeMap::new();
    for directory in &purging {
        let mut search = Search {
            walk: &mut walk,
            directory,
            declared: paths,
            found: &mut found,
        };
        if let Err(failure) = search.look_through() {
            failures.push(failure.about(directory.item.id.clone()));
        }
    }
    for item in owned {
        let is_gone = matches!(
            item.applied.applied(),
            Some(Applied::Absent { as_user: None })
        );
        if !is_gone || find(paths, &item.key).is_some() {
            continue;
        }
        let innermost = above(&item.key)
            .find_map(|above| purging.iter().find(|purging| purging.item.path == above));
        if let Some(directory) = innermost
            && directory.reaches(&item.key, paths)
        {
            found.insert(item.key.clone(), directory.purged(item.key.clone()));
        }
    }
    if !found.is_empty() {
        paths.extend(found.into_values());
        paths.sort_by(|one, other| one.path.cmp(&other.path));
    }
    failures
}

fn find<'a>(paths: &'a [DesiredPath], path: &str) -> Option<&'a DesiredPath> {
    let position = paths
        .binary_search_by(|item| item.path.as_str().cmp(path))
        .ok()?;
    paths.get(position)
}

/// Is `path` declared, or something below it.
fn is_needed(paths: &[DesiredPath], path: &str) -> bool {
    let below = join(path, "");
    let first = paths.partition_point(|item| item.path.as_str() < below.as_str());
    find(paths, path).is_some()
        || paths
            .get(first)
            .is_some_and(|item| item.path.starts_with(&below))
}

/// A directory that is purged.
struct Purging<'a> {
    item: &'a DesiredPath,
    ignore: Vec<Pattern>,
}

impl<'a> Purging<'a> {
    fn new(item: &'a DesiredPath) -> Option<Self> {
        let PathSpec::Directory {
            purge: Some(Purge { ignore }),
            ..
        } = &item.spec
        else {
            return None;
        };
        // Globs were checked where they were written.
        let ignore = ignore.iter().filter_map(|glob| Pattern::new(glob).ok());
        Some(Purging {
            item,
            ignore: ignore.collect(),
        })
    }

    fn is_ignored(&self, path: &str) -> bool {
        let options = MatchOptions {
            require_literal_separator: true,
            ..MatchOptions::new()
        };
        let below = path[self.item.path.len()..].trim_start_matches('/');
        let name = split(path).1;
        self.ignore.iter().any(|glob| {
            let has_directories = glob.as_str().contains('/');
            glob.matches_with(if has_directories { below } else { name }, options)
        })
    }

    /// Would `path` go if it were there: neither it nor a directory between is declared, needed or ignored.
    fn reaches(&self, path: &str, declared: &[DesiredPath]) -> bool {
        std::iter::once(path)
            .chain(above(path))
            .take_while(|path| self.item.path != *path)
            .all(|path| !is_needed(declared, path) && !self.is_ignored(path))
    }

    fn purged(&self, path: Name) -> DesiredPath {
        DesiredPath {
            path,
            id: self.item.id.clone(),
            spec: PathSpec::Purged,
            report: self.item.report,
            on_removal: self.item.on_removal,
            as_user: None,
        }
    }
}

struct Search<'a, 'walk> {
    walk: &'walk mut Walk,
    directory: &'walk Purging<'a>,
    declared: &'walk [DesiredPath],
    found: &'walk mut BTreeMap<Name, DesiredPath>,
}

impl Search<'_, '_> {
    fn look_through(&mut self) -> Result<(), Failure> {
        let path = self.directory.item.path.clone();
        for name in self.list(&path)? {
            let child = join(&path, &name);
            if !is_needed(self.declared, &child) {
                self.take(&child, 1)?;
            }
        }
        Ok(())
    }

    /// Takes `path` and what is in it; false when it stays.
    fn take(&mut self, path: &str, depth: usize) -> Result<bool, Failure> {
        if self.directory.is_ignored(path) {
            return Ok(false);
        }
        if depth > DEEPEST {
            return Err(self.too_much(&format!("directories lie more than {DEEPEST} deep")));
        }
        let goes = match self.walk.look(path, Hashing::Skip)?.entry {
            // Gone meanwhile, or its name is no text.
            Entry::Absent => false,
            Entry::Directory(_) => {
                let mut goes = !self.walk.is_mount_point(path)?;
                if goes {
                    for name in self.list(path)? {
                        goes &= self.take(&join(path, &name), depth + 1)?;
                    }
                }
                goes
            }
            Entry::File { .. } | Entry::Symlink(_) | Entry::Special(_) => true,
        };
        if goes {
            if self.found.len() == MOST_FOUND {
                return Err(self.too_much(&format!("more than {MOST_FOUND} paths would go")));
            }
            let path = Name::from(path);
            let purged = self.directory.purged(path.clone());
            self.found.insert(path, purged);
        }
        Ok(goes)
    }

    /// The names in a directory, but for those of files that are being written.
    fn list(&mut self, path: &str) -> Result<Vec<String>, Failure> {
        let names = self.walk.list(path, MOST_FOUND + 1)?;
        if names.len() > MOST_FOUND {
            return Err(self.too_much(&format!("'{path}' has more than {MOST_FOUND} names in it")));
        }
        Ok(names
            .into_iter()
            .filter(|name| !is_candidate_name(name))
            .collect())
    }

    fn too_much(&self, what: &str) -> Failure {
        Failure::new(
            Class::Host,
            format!("failed to purge '{}': {what}", self.directory.item.path),
        )
        .with_hint("empty it by hand, or leave out `purge`")
    }
}
