//! What units did not accept: left alone until something else is declared, or a person asks for it again.
//!
//! Invariant: it outlives the agent, and so does what is left to put back.

use tracing::info;

use crate::apply::{self, Activity, Walk, Walked};
use crate::cycle::contents::{Courier, StoredContents};
use crate::cycle::{Cycle, InForce, Progress};
use crate::model::{Failure, ResourceId};
use crate::plan::Declarations;
use crate::record::Rejection;
use crate::sys::clock;

impl Cycle {
    /// Forgets what was said of another declaration.
    pub(super) fn end_rejections(&mut self, in_force: &InForce) {
        let digest = &in_force.desired.digest;
        self.drop_rejections(|rejection| rejection.digest != *digest);
    }

    /// A person wants it tried again.
    pub(super) fn forgive_rejections(&mut self) {
        self.drop_rejections(|_| true);
    }

    fn drop_rejections(&mut self, is_over: impl Fn(&Rejection) -> bool) {
        let before = self.rejections.len();
        self.rejections.retain(|id, rejection| {
            let is_over = is_over(rejection);
            if is_over {
                info!(limpet_resource = %id, "{id} is asked again whether it accepts what is declared");
            }
            !is_over
        });
        if self.rejections.len() < before {
            let written = self.record.remember_rejections(&self.rejections);
            self.note_unwritten(written);
        }
    }

    /// Puts back what an earlier cycle could not, or did not live to.
    pub(super) fn finish_undoing(
        &mut self,
        in_force: &InForce,
        progress: Progress<'_>,
    ) -> Result<(), Failure> {
        let mut pending: Vec<(ResourceId, Rejection)> = Vec::new();
        for (unit, rejection) in &self.rejections {
            if !self.record.former_paths(unit)?.is_empty() {
                pending.push((unit.clone(), rejection.clone()));
            }
        }
        if pending.is_empty() {
            return Ok(());
        }
        let inventory = self.inventory.read(&self.record)?;
        let contents = StoredContents::new(&self.host, &self.objects, &self.vault)?
            .with_courier(Courier::new(&self.connect, progress), &self.archives);
        let declarations = Declarations::new(&in_force.desired, &inventory);
        let walk = Walk {
            host: &self.host,
            contents: &contents,
            declarations: &declarations,
            revision: &in_force.revision,
            digest: &in_force.desired.digest,
            progress,
        };
        let mut walked = Walked::default();
        for (unit, rejection) in &pending {
            progress(
                &Activity::Applying(format!("putting back what {unit} did not accept")),
                apply::TRANSACTION_SILENCE,
            );
            apply::undo(&walk, &mut self.record, unit, rejection, &mut walked);
        }
        drop(contents);
        walked.note(self.record.settle_debts(clock::since_boot()));
        self.note_unwritten(walked.unrecorded.clone().map_or(Ok(()), Err));
        self.rest(&walked, clock::instant());
        Ok(())
    }
}
