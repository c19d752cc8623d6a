//! The revisions that passed, and which of them to go back to.
//!
//! Invariant: two are kept, the last one and the one to go back to from it, which is complete where there ever was a complete one.

use std::iter::once;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::is_called;
use crate::cycle::{Cycle, InForce};
use crate::trust::TrustedHead;

/// Under which name the record keeps the revisions that passed, the last one first: the one in force, and the one to go back to from it.
const GOOD: &str = "good-revisions";

/// A revision that passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cycle) struct Good {
    pub(in crate::cycle) head: TrustedHead,
    /// Of what it declares here.
    digest: String,
    /// Everything was as declared with it.
    #[serde(default = "always")]
    is_complete: bool,
}

impl Cycle {
    /// Takes up what an agent before us knew.
    pub(super) fn recall_good(&mut self) {
        match self.record.recall(GOOD) {
            Ok(good) => self.trial.good = good.unwrap_or_default(),
            Err(failure) => warn!("lost which revisions were good, going on: {failure}"),
        }
    }

    /// Did `in_force` pass once, as it is declared now.
    pub(in crate::cycle) fn has_passed(&self, in_force: &InForce) -> bool {
        self.trial.good.iter().any(|good| {
            is_called(&good.head, &in_force.revision) && good.digest == in_force.desired.digest
        })
    }

    /// Did it pass, and was everything as declared.
    pub(in crate::cycle) fn is_complete(&self, in_force: &InForce) -> bool {
        self.has_passed(in_force)
            && self
                .trial
                .good
                .iter()
                .any(|good| good.is_complete && is_called(&good.head, &in_force.revision))
    }

    /// The revision to go back to from the one with this id.
    pub(super) fn good_before(&self, revision: Option<&str>) -> Option<&Good> {
        let is_other =
            |good: &&Good| revision.is_none_or(|revision| !is_called(&good.head, revision));
        let mut others = self.trial.good.iter().filter(is_other);
        let last = others.clone().next();
        others.find(|good| good.is_complete).or(last)
    }

    /// Writes down that `in_force` passed.
    pub(in crate::cycle) fn note_good(&mut self, in_force: &InForce) {
        let head = self.head_in_force();
        // What local root applied unverified is nothing to go back to.
        let Some(head) = head.filter(|head| is_called(head, &in_force.revision)) else {
            return;
        };
        let mut good = self.trial.good.clone();
        good.retain(|known| known.head.commit != head.commit);
        let applied = self.applied.as_ref();
        let passed = Good {
            head,
            digest: in_force.desired.digest.clone(),
            is_complete: applied.is_some_and(|applied| applied.is(in_force) && applied.is_clean),
        };
        let kept = good.iter().position(|good| good.is_complete).unwrap_or(0);
        let good: Vec<Good> = once(passed)
            .chain(good.into_iter().skip(kept).take(1))
            .collect();
        let kept = self.record.remember(GOOD, &good);
        if kept.is_ok() {
            self.trial.good = good;
        }
        self.note_unwritten(kept);
    }
}

/// What was written down of a revision before this was known of it.
fn always() -> bool {
    true
}
