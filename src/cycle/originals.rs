//! Keeping what files were before limpet within its bounds.
//!
//! What nothing needs any more falls out first: it belongs to resources that were taken back, or that a lost record knew. Then what was
//! kept longest does. A resource whose old bytes fell out is left as it is when it is no longer declared.
//!
//! Invariant: nothing falls out while it is not known what is needed, and nothing that is needed without the history saying so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::ORIGINALS_DIRECTORY;
use crate::cycle::{Cycle, InForce};
use crate::git::hex;
use crate::kinds::file::Original;
use crate::model::{Failure, ResourceId};
use crate::plan::{Inventory, InventoryKind};
use crate::record::HistoryEntry;
use crate::record::history::FORGOTTEN;
use crate::report::journal;
use crate::sys::clock;
use crate::sys::files::{OwnFile, join};

/// How often what is kept is looked at where nothing was changed.
const LONGEST_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How much may be kept, and for how long.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    max_bytes: u64,
    max_age: Option<Duration>,
}

/// Why a file falls out.
const TOO_OLD: &str = "because apply.originals_max_age is over";
const TOO_MUCH: &str = "because more is kept than apply.originals_max_size";

impl Cycle {
    /// Lets fall out what is too much or too old: after changes, when the agent starts, and once a day.
    pub(super) fn bound_originals(
        &mut self,
        in_force: &InForce,
        inventory: &Inventory,
        has_changed: bool,
    ) -> Result<(), Failure> {
        let now = clock::instant();
        let is_recent = self
            .originals_bounded
            .is_some_and(|last| now.saturating_duration_since(last) < LONGEST_TIME);
        // A record that was lost or cannot be written does not say what is needed.
        let is_unsure = self.situation.state_missing.is_some()
            || self.unwritable.is_some()
            || self.record.is_copy();
        if (is_recent && !has_changed) || is_unsure {
            return Ok(());
        }
        self.originals_bounded = Some(now);
        self.drop_originals(in_force, inventory)
    }

    fn drop_originals(&mut self, in_force: &InForce, inventory: &Inventory) -> Result<(), Failure> {
        let files = self.host.list_own_files(ORIGINALS_DIRECTORY)?;
        let bounds = Bounds {
            max_bytes: self.config.apply.originals_max_bytes,
            max_age: self.config.apply.originals_max_age,
        };
        let total: u64 = files.iter().map(|file| file.size).sum();
        if total <= bounds.max_bytes && bounds.max_age.is_none() {
            return Ok(());
        }
        let mut needed: BTreeMap<String, Vec<(&str, &ResourceId, &Original)>> = BTreeMap::new();
        for owned in &inventory.paths {
            if let Original::File { sha256, .. } = &owned.original {
                let by = (owned.key.as_str(), &owned.id, &owned.original);
                needed.entry(hex(sha256)).or_default().push(by);
            }
        }
        let names: BTreeSet<&str> = needed.keys().map(String::as_str).collect();
        let at = clock::now();
        let falling = falling_out(files, &names, bounds, at.as_second());
        let mut lost = Vec::new();
        let mut writing = self.record.write(&in_force.revision)?;
        for (name, why) in &falling {
            for (key, id, original) in needed.get(name).into_iter().flatten() {
                let left = Original::clone(original).without_content();
                let left = serde_json::to_string(&left).unwrap_or_default();
                writing.reduce_original(InventoryKind::Path.as_str(), key, &left)?;
                writing.note(&HistoryEntry {
                    resource: Some((*id).clone()),
                    ..HistoryEntry::of_host(at, &in_force.revision, FORGOTTEN, "done", why)
                })?;
                lost.push(((*id).clone(), *why));
            }
        }
        if lost.is_empty() {
            drop(writing);
        } else {
            writing.commit()?;
        }
        for (id, why) in lost {
            journal::original_forgotten(&in_force.revision, &id, why);
        }
        // Only once nobody counts on them.
        let mut batch = self.host.batch()?;
        for (name, _) in &falling {
            batch.remove_file(&join(ORIGINALS_DIRECTORY, name), None)?;
        }
        batch.sync()
    }
}

/// The names of the files that fall out, and why.
fn falling_out(
    mut files: Vec<OwnFile>,
    needed: &BTreeSet<&str>,
    bounds: Bounds,
    now_secs: i64,
) -> Vec<(String, &'static str)> {
    files.sort_by_key(|file| (needed.contains(file.name.as_str()), file.written_secs));
    let mut left: u64 = files.iter().map(|file| file.size).sum();
    let is_old = |file: &OwnFile| {
        let age = u64::try_from(now_secs.saturating_sub(file.written_secs)).unwrap_or(0);
        bounds.max_age.is_some_and(|limit| age > limit.as_secs())
    };
    let mut falling = Vec::new();
    for file in files {
        let why = match is_old(&file) {
            true => TOO_OLD,
            false if left > bounds.max_bytes => TOO_MUCH,
            false => continue,
        };
        left = left.saturating_sub(file.size);
        falling.push((file.name, why));
    }
    falling
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(max_bytes: u64, max_age_secs: Option<u64>, expected: &[&str]) {
        let file = |name: &str, size, written_secs| OwnFile {
            name: name.to_owned(),
            size,
            written_secs,
        };
        let files = vec![
            file("old", 10, 100),
            file("older", 20, 50),
            file("young", 30, 900),
            file("unneeded", 5, 950),
        ];
        let needed = BTreeSet::from(["old", "older", "young"]);
        let bounds = Bounds {
            max_bytes,
            max_age: max_age_secs.map(Duration::from_secs),
        };
        let falling = falling_out(files, &needed, bounds, 1000);
        let names: Vec<&str> = falling.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, expected, "{max_bytes} {max_age_secs:?}");
    }

    #[test]
    fn what_nobody_needs_falls_out_first_and_then_the_oldest() {
        check(65, None, &[]);
        check(64, None, &["unneeded"]);
        check(59, None, &["unneeded", "older"]);
        check(30, None, &["unneeded", "older", "old"]);
        check(0, None, &["unneeded", "older", "old", "young"]);
    }

    #[test]
    fn what_is_too_old_falls_out_whatever_room_there_is() {
        check(100, Some(950), &[]);
        check(100, Some(949), &["older"]);
        check(100, Some(99), &["older", "old", "young"]);
        check(40, Some(949), &["unneeded", "older"]);
    }
}
