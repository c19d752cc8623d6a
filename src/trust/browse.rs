//! Looking at commits that nobody has to trust: their files, and where two histories part.
//!
//! Invariant: nothing here makes a [`VerifiedRevision`](super::VerifiedRevision), so that what was only looked at cannot be applied.

use std::collections::{BinaryHeap, HashMap};

use super::commit::read_ancestry;
use super::tree::Files;
use crate::git::{ObjectError, ObjectId, ObjectKind, Objects, Tree};

/// The files of the commit `id` below `directory` (`""` is the root), whoever signed it. `objects` must hash what it returns.
pub fn files<'a>(
    objects: &'a dyn Objects,
    id: ObjectId,
    directory: &str,
) -> Result<impl Tree + use<'a>, ObjectError> {
    let commit = read_commit(objects, id)?;
    let tree = commit
        .strip_prefix(b"tree ")
        .and_then(|rest| rest.split(|&byte| byte == b'\n').next())
        .and_then(|hex| ObjectId::from_hex(hex).ok())
        .ok_or_else(|| ObjectError::Unavailable(format!("commit {id} names no tree")))?;
    Ok(Files::new(objects, tree, directory))
}

/// The best common ancestor of two commits, as `git merge-base` finds it; `None` when their histories have nothing in common.
pub fn merge_base(
    objects: &dyn Objects,
    one: ObjectId,
    other: ObjectId,
) -> Result<Option<ObjectId>, ObjectError> {
    let mut walk = Walk {
        objects,
        seen: HashMap::new(),
        pending: BinaryHeap::new(),
    };
    walk.reach(one, FROM_ONE)?;
    walk.reach(other, FROM_OTHER)?;
    let mut common: Vec<ObjectId> = Vec::new();
    // Newest first. What lies behind a common ancestor is common too, and none of it is the best. Where clocks lie, an older one may be
    // met first: then it goes on until one alone is left, or nothing is.
    while (walk.has_news() || walk.best_of(&common).count() > 1)
        && let Some((_, id)) = walk.pending.pop()
    {
        let seen = &walk.seen[&id];
        let (mut marks, parents) = (seen.marks, seen.parents.clone());
        if marks == FROM_ONE | FROM_OTHER {
            if !common.contains(&id) {
                common.push(id);
            }
            marks |= BEHIND;
        }
        for parent in parents {
            walk.reach(parent, marks)?;
        }
    }
    Ok(walk.best_of(&common).next())
}

/// Reached from the first commit.
const FROM_ONE: u8 = 1;
/// Reached from the second.
const FROM_OTHER: u8 = 2;
/// Reached from a commit that both reach.
const BEHIND: u8 = 4;

struct Seen {
    marks: u8,
    parents: Vec<ObjectId>,
    time: i64,
}

struct Walk<'a> {
    objects: &'a dyn Objects,
    seen: HashMap<ObjectId, Seen>,
    /// What has to be looked at, by the time it claims: a wrong clock costs time, and nothing else.
    pending: BinaryHeap<(i64, ObjectId)>,
}

impl Walk<'_> {
    fn reach(&mut self, id: ObjectId, marks: u8) -> Result<(), ObjectError> {
        if let Some(seen) = self.seen.get_mut(&id) {
            if seen.marks & marks == marks {
                return Ok(());
            }
            seen.marks |= marks;
            self.pending.push((seen.time, id));
            return Ok(());
        }
        let data = read_commit(self.objects, id)?;
        let (parents, time) = read_ancestry(id, &data);
        let seen = Seen {
            marks,
            parents,
            time,
        };
        self.seen.insert(id, seen);
        self.pending.push((time, id));
        Ok(())
    }

    /// Those of the `common` ancestors that lie behind no other, as far as is known.
    fn best_of(&self, common: &[ObjectId]) -> impl Iterator<Item = ObjectId> {
        common
            .iter()
            .copied()
            .filter(|id| self.seen[id].marks & BEHIND == 0)
    }

    /// Is anything pending that is not behind a common ancestor.
    fn has_news(&self) -> bool {
        self.pending
            .iter()
            .any(|(_, id)| self.seen[id].marks & BEHIND == 0)
    }
}

fn read_commit(objects: &dyn Objects, id: ObjectId) -> Result<Vec<u8>, ObjectError> {
    let object = objects.get(&id)?;
    match object.kind {
        ObjectKind::Commit => Ok(object.data),
        other => Err(ObjectError::Unavailable(format!(
            "object {id} is a {other}, not a commit"
        ))),
    }
}
