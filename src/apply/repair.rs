//! Repairing what dpkg left half done, before the first change to a package, and saying so.

use std::collections::BTreeSet;

use super::{Prepared, Walk, Walked};
use crate::kinds::package::repair::repair;
use crate::model::Action;
use crate::plan::InventoryKind;
use crate::record::history::REPAIRED;
use crate::record::{HistoryEntry, Record};
use crate::report::journal;
use crate::sys::clock;

/// Repairs, where `steps` change packages. What stays half done stops only what depends on it.
pub(super) fn repair_packages(
    record: &mut Record,
    walk: &Walk<'_>,
    steps: &[Prepared],
    walked: &mut Walked,
) {
    let changes_packages = steps
        .first()
        .is_some_and(|prepared| prepared.step.kind == InventoryKind::Package);
    if !changes_packages {
        return;
    }
    let absent: BTreeSet<&str> = steps
        .iter()
        .filter(|prepared| prepared.step.action == Action::Remove)
        .map(|prepared| prepared.step.key.as_str())
        .collect();
    let repair = match repair(walk.host, &absent) {
        Ok(Some(repair)) => repair,
        Ok(None) => return,
        Err(failure) => return tracing::debug!("failed to repair packages, ignoring: {failure}"),
    };
    journal::repaired(walk.revision, &repair.in_words(), repair.failure.as_ref());
    let (outcome, detail) = match &repair.failure {
        None => ("done", repair.in_words()),
        Some(failure) => ("failed", format!("{}; {failure}", repair.in_words())),
    };
    let line = HistoryEntry::of_host(clock::now(), walk.revision, REPAIRED, outcome, &detail);
    walked.note(record.conclude(walk.revision, &[], &[], &[], &[line]));
}
