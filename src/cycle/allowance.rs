//! How much a revision may remove: what the trailer `Limpet-Allow-Removals` of its message says.
//!
//! A host that was away jumps over commits. What they were allowed to remove is then removed by the one it arrives at, so that their
//! trailers count as well, the largest of them: between two revisions of which this host was wholly as the first declared, no jump may
//! remove more than a signed commit on the way says, however many there are. Once the revision is applied, only its own counts.
//!
//! Invariant: only what was verified counts. It is written down before the revision is trusted, so that a crash in between loses it to
//! nobody but the older one, which does not need it any more.

use std::collections::BTreeMap;

use crate::cycle::{Cycle, InForce};
use crate::model::Failure;
use crate::trust::VerifiedRevision;

/// Under which name the record keeps, by commit, what revisions may remove that are not applied yet.
const ALLOWANCES: &str = "allowed-removals";

/// What the message of `revision` allows to be removed, beyond what the host does.
pub(super) fn allowed_removals(revision: &VerifiedRevision) -> Option<usize> {
    largest(revision.trailers())
}

/// The same of the messages of the commits on the way to it.
pub(super) fn allowed_on_the_way(revision: &VerifiedRevision) -> Option<usize> {
    largest(revision.passed_trailers())
}

fn largest(trailers: &[(String, String)]) -> Option<usize> {
    let allowed = trailers
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case("Limpet-Allow-Removals"));
    allowed
        .filter_map(|(_, value)| value.trim().parse().ok())
        .max()
}

impl Cycle {
    /// Writes down what may be removed on the way to `revision`, which is about to be trusted.
    pub(super) fn note_allowance(&self, revision: &VerifiedRevision) -> Result<(), Failure> {
        let mut kept = self.allowances();
        let head = self.head.as_ref().map(|head| head.commit.to_string());
        let in_force = self.in_force.as_ref();
        let is_head = |in_force: &&InForce| Some(&in_force.revision) == head.as_ref();
        // What was allowed the last one is still open, unless this host was once as it declares.
        let before = match in_force.filter(is_head) {
            Some(in_force) if self.is_applied_cleanly(in_force) => None,
            Some(in_force) => in_force.allowed_removals.max(kept_for(&kept, &head)),
            None => kept_for(&kept, &head),
        };
        let allowed = allowed_removals(revision)
            .max(allowed_on_the_way(revision))
            .max(before);
        let had_any = !kept.is_empty();
        kept.retain(|commit, _| Some(commit) == head.as_ref());
        kept.extend(allowed.map(|allowed| (revision.commit().to_string(), allowed)));
        if kept.is_empty() && !had_any {
            return Ok(());
        }
        self.record.remember(ALLOWANCES, &kept)
    }

    /// How much `in_force` may remove.
    pub(super) fn allowance(&self, in_force: &InForce) -> usize {
        let own = in_force.allowed_removals;
        let on_the_way = match self.is_applied_cleanly(in_force) {
            true => None,
            false => self.allowances().get(&in_force.revision).copied(),
        };
        own.max(on_the_way).unwrap_or(0)
    }

    fn is_applied_cleanly(&self, in_force: &InForce) -> bool {
        let applied = self.applied.as_ref();
        applied.is_some_and(|applied| applied.is(in_force) && applied.is_clean)
    }

    /// Where they cannot be read there are none: then a person is asked.
    fn allowances(&self) -> BTreeMap<String, usize> {
        self.record
            .recall(ALLOWANCES)
            .ok()
            .flatten()
            .unwrap_or_default()
    }
}

fn kept_for(kept: &BTreeMap<String, usize>, head: &Option<String>) -> Option<usize> {
    kept.get(head.as_ref()?).copied()
}
