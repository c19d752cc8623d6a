//! limpet's own program: keeping one that has proven itself, and holding a version that was taken back.
//!
//! A program has proven itself when it has ended a cycle and reached the source: then what it does not do well can be mended by a
//! commit. Until then the one before is kept.

use std::collections::BTreeMap;

use tracing::{debug, info, warn};

use crate::cycle::enforce::FIRST_REST;
use crate::cycle::{Cycle, InForce, Rest};
use crate::kinds::package::family::Family;
use crate::kinds::package::{self, DesiredPackage, PackageState};
use crate::model::{Failure, Outcome, ResourceId};
use crate::record::HistoryEntry;
use crate::record::history::WENT_BACK;
use crate::recovery::kept::{self, Keeping};
use crate::recovery::taken_back::{self, TakenBack};
use crate::recovery::{self, PACKAGE, start};
use crate::report::journal;
use crate::sys::clock;

/// Under which name the record keeps what was taken back last and is in the history.
const TAKEN_BACK: &str = "taken-back";

/// What the running program has shown so far.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// It has ended a cycle: what failed before it does not count any more.
    is_up: bool,
    /// It needs not be kept (again).
    is_kept: bool,
}

impl Cycle {
    /// Notes that a cycle has ended, and keeps the program once it has proven itself.
    pub fn prove_program(&mut self) {
        if !self.host.is_running_system() {
            return;
        }
        if !self.proof.is_up {
            self.proof.is_up = true;
            if let Err(failure) = start::forget_failures(&self.host) {
                debug!("failed to say that the agent is well, ignoring: {failure}");
            }
        }
        let has_reached_source =
            self.situation.last_poll.is_some() && self.situation.source.is_none();
        // What was put back into another version's package is that version in name only.
        let is_put_back = self
            .taken_back
            .as_ref()
            .is_some_and(|taken| taken.put_back.is_some());
        if self.proof.is_kept || is_put_back || !has_reached_source {
            return;
        }
        match kept::keep(&self.host) {
            Ok(Keeping::NotNow) => {}
            Ok(Keeping::Already) => self.proof.is_kept = true,
            Ok(Keeping::Copied) => {
                self.proof.is_kept = true;
                debug!("kept this program as the last good one");
            }
            Err(failure) => {
                self.proof.is_kept = true; // at the next start again
                warn!("failed to keep this program as the last good one: {failure}");
            }
        }
    }

    /// Takes up what the recovery did while no agent ran, and tells of it once.
    pub(super) fn recall_taken_back(&mut self) {
        let taken = match taken_back::read(&self.host) {
            Ok(taken) => taken,
            Err(failure) => return warn!("{failure}"),
        };
        let Some(taken) = taken else {
            return;
        };
        self.tell_taken_back(&taken);
        // Somebody has installed another version since.
        let installed = recovery::installed_version(&self.host).ok().flatten();
        let expected = match taken.put_back {
            Some(_) => &taken.version,
            None => &taken.to,
        };
        let is_over = installed.is_some_and(|installed| installed != *expected);
        if !taken.holds() || is_over {
            return self.forgive_version();
        }
        self.hold(taken);
    }

    fn hold(&mut self, taken: TakenBack) {
        self.situation.taken_back = Some(taken.as_failure());
        self.taken_back = Some(taken);
    }

    /// Writes to the journal and the history what was taken back, once.
    fn tell_taken_back(&mut self, taken: &TakenBack) {
        let told: Option<TakenBack> = self.record.recall(TAKEN_BACK).ok().flatten();
        if told.as_ref() == Some(taken) {
            return;
        }
        let words = taken.in_words();
        let revision = taken.revision.as_deref().unwrap_or_default();
        journal::went_back(revision, &taken.version, &words);
        let line = HistoryEntry::of_host(taken.at, revision, WENT_BACK, "failed", &words);
        let written = self
            .record
            .conclude(revision, &[], &[], &[], &[line])
            .and_then(|()| self.record.remember(TAKEN_BACK, taken));
        self.note_unwritten(written);
    }

    /// Lets a version that was taken back be tried again.
    pub(super) fn forgive_version(&mut self) {
        if let Err(failure) = taken_back::forgive(&self.host) {
            debug!("failed to forget what was taken back, ignoring: {failure}");
        }
        self.taken_back = None;
        self.situation.taken_back = None;
    }

    /// A newer commit, or a person, tries again what an older one could not install.
    pub(super) fn retry_version_if_due(&mut self, in_force: &InForce) {
        let Some(taken) = &self.taken_back else {
            return;
        };
        if taken.revision.as_ref() == Some(&in_force.revision) && !self.must_retry_version {
            return;
        }
        self.must_retry_version = false;
        self.retry_version(in_force);
    }

    fn retry_version(&mut self, in_force: &InForce) {
        let Some(taken) = self.taken_back.clone() else {
            return;
        };
        let is_declared = declared(in_force).is_some_and(|package| self.asks_for(package, &taken));
        if taken.put_back.is_some() && !is_declared {
            // Nobody asks for that version, so its package keeps the program of the other one. Said until one is asked for.
            return;
        }
        info!("trying limpet {} again", taken.version);
        self.forgive_version();
        if taken.put_back.is_some() {
            // dpkg has it, but not its program.
            if let Outcome::Failed(failure) =
                package::reinstall_version(&self.host, PACKAGE, &taken.version)
            {
                warn!("{failure}");
                if let Err(failure) = taken_back::write(&self.host, &taken) {
                    debug!("failed to remember what was taken back, ignoring: {failure}");
                }
                self.hold(taken);
            }
        }
    }

    /// Keeps the version that was taken back from being installed again.
    pub(super) fn hold_version(
        &self,
        in_force: &InForce,
        resting: &mut BTreeMap<ResourceId, Failure>,
    ) {
        let Some(taken) = &self.taken_back else {
            return;
        };
        if let Some(package) = declared(in_force).filter(|package| self.asks_for(package, taken)) {
            let failure = taken.as_failure().about(package.id.clone());
            resting.insert(package.id.clone(), failure);
        }
    }

    fn asks_for(&self, package: &DesiredPackage, taken: &TakenBack) -> bool {
        let family = Family::of(&self.host).unwrap_or_default();
        matches!(&package.state, PackageState::Version { version, .. } if family.fits(version, &taken.version))
    }

    /// Where our own package was left broken by its upgrade, goes back to the version that is known to work.
    pub(super) fn take_back_broken_package(&mut self, failure: &Failure) {
        let is_broken = package::is_broken(&self.host, PACKAGE).unwrap_or(false);
        let (true, Ok(Some(kept)), Ok(Some(installed))) = (
            is_broken && self.taken_back.is_none(),
            kept::read(&self.host),
            recovery::installed_version(&self.host),
        ) else {
            return;
        };
        if kept.version == installed {
            return;
        }
        match recovery::take_back(&self.host, &kept, &installed, &failure.message, false) {
            Ok(taken) => {
                self.tell_taken_back(&taken);
                self.hold(taken);
            }
            Err(failure) => warn!("failed to go back to limpet {}: {failure}", kept.version),
        }
    }
}

impl Cycle {
    /// A transaction failed that an agent before this one had started. Its scripts may be what ended that agent: tried again at once,
    /// they would end this one, too.
    pub(super) fn rest_after_a_failed_transaction(&mut self, failure: &Failure) {
        self.take_back_broken_package(failure);
        let Some(in_force) = &self.in_force else {
            return;
        };
        let until = clock::instant() + FIRST_REST;
        for package in &in_force.desired.packages {
            let rest = Rest {
                failure: failure.clone().about(package.id.clone()),
                attempts: 1,
                until,
            };
            self.resting.insert(package.id.clone(), rest);
        }
    }
}

fn declared(in_force: &InForce) -> Option<&DesiredPackage> {
    let packages = &in_force.desired.packages;
    packages.iter().find(|package| package.name == PACKAGE)
}
