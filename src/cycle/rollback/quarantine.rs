//! A newer commit that declares what was undone: it is trusted, and not tried.

use crate::cycle::Cycle;
use crate::cycle::rollback::{Cause, ROLLBACK, Rollback};
use crate::model::Failure;
use crate::record::HistoryEntry;
use crate::record::history::ROLLED_BACK;
use crate::report::journal;
use crate::sys::clock;
use crate::trust::VerifiedRevision;

impl Cycle {
    /// Is what `revision` declares here, the state with this digest, quarantined. Then the rollback goes on, although the revision is
    /// about to be trusted.
    pub(in crate::cycle) fn stays_quarantined(
        &mut self,
        revision: &VerifiedRevision,
        digest: &str,
    ) -> Result<bool, Failure> {
        let rollback = self.trial.rollback.as_ref();
        let is_it = |it: &&Rollback| it.cause == Cause::Unhealthy && it.digest == digest;
        let Some(mut rollback) = rollback.filter(is_it).cloned() else {
            return Ok(false);
        };
        let id = revision.commit().to_string();
        if rollback.from == id {
            return Ok(true);
        }
        let before = std::mem::replace(&mut rollback.from, id);
        rollback.tried.get_or_insert_with(|| before.clone());
        rollback.before = Some(before);
        self.record.remember(ROLLBACK, &rollback)?;
        self.record.settle()?;
        let to = rollback.to.commit.to_string();
        let detail = format!(
            "from {}: it declares the same as {}, which was undone: {}",
            journal::short(&rollback.from),
            journal::short(rollback.tried.as_deref().unwrap_or_default()),
            rollback.reason
        );
        let entry = HistoryEntry::of_host(clock::now(), &to, ROLLED_BACK, "done", &detail);
        let noted = self.record.reject(&entry, None);
        self.note_unwritten(noted);
        journal::rolled_back(&to, &rollback.from, &rollback.reason);
        self.trial.rollback = Some(rollback);
        self.show_rollback();
        Ok(true)
    }
}
