//! What differs between two trees, path by path.
//!
//! A file that moved is one path gone and another come; another mode is a difference; a directory is the files in it. Trees that are
//! the same are not read.

use std::collections::BTreeMap;

use super::rule::{Refusal, Rule, Stop};
use super::tree::{Entry, parse};
use crate::git::{EntryKind, ObjectError, ObjectId, Objects};

/// The most paths that one step may change. Directories may be the same object many times over, so that a small revision can stand for
/// more files than any host could hold.
const MAX_PATHS: usize = 100_000;

/// The paths that differ between the trees `before` and `after`, in order; `None` before is an empty tree. Both keep the rules for
/// trees. `commit` is the one that is judged.
pub(super) fn changed_paths(
    objects: &dyn Objects,
    commit: ObjectId,
    before: Option<ObjectId>,
    after: Option<ObjectId>,
) -> Result<Vec<String>, Stop> {
    let mut found = Vec::new();
    // Without recursion: the pairs of directories still to be compared.
    let mut open = vec![(String::new(), before, after)];
    while let Some((path, before, after)) = open.pop() {
        if before == after {
            continue;
        }
        let entries = |id| read(objects, commit, id);
        let (old, new) = (entries(before)?, entries(after)?);
        if old.is_empty() && new.is_empty() && !path.is_empty() {
            found.push(path.clone()); // a directory without files, that came or went
        }
        if found.len() + open.len() > MAX_PATHS {
            let detail = format!("it changes more than {MAX_PATHS} paths");
            return Err(Refusal::new(Rule::MalformedTree, detail).of(commit).into());
        }
        for name in old
            .keys()
            .chain(new.keys().filter(|name| !old.contains_key(*name)))
        {
            let (old, new) = (old.get(name), new.get(name));
            if old == new {
                continue;
            }
            let path = match path.as_str() {
                "" => name.clone(),
                directory => format!("{directory}/{name}"),
            };
            let directory = |entry: Option<&Entry>| {
                entry
                    .filter(|entry| entry.kind == EntryKind::Directory)
                    .map(|entry| entry.id)
            };
            let is_leaf = |entry: Option<&Entry>| {
                entry.is_some_and(|entry| entry.kind != EntryKind::Directory)
            };
            if is_leaf(old) || is_leaf(new) {
                found.push(path.clone());
            }
            let (old, new) = (directory(old), directory(new));
            if old.is_some() || new.is_some() {
                open.push((path, old, new));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(
    objects: &dyn Objects,
    commit: ObjectId,
    id: Option<ObjectId>,
) -> Result<BTreeMap<String, Entry>, Stop> {
    let Some(id) = id else {
        return Ok(BTreeMap::new());
    };
    let object = objects
        .get(&id)
        .map_err(|error| Stop::reading(error, commit, Rule::MalformedTree))?;
    let entries = parse(id, &object.data).map_err(|detail| {
        Stop::Unavailable(ObjectError::Unavailable(format!("tree {id} {detail}")))
    })?;
    let by_name = entries.into_iter().map(|entry| (entry.name.clone(), entry));
    Ok(by_name.collect())
}
