//! Probation: from the first change that a revision brings until its checks have held.
//!
//! A revision that has checks, or that touches the way to the source, is *on probation* once it is applied. It *passes* when what
//! undoes it on failure has held, and is then a revision to go back to; else it is undone. After boot the checks are asked again.
//!
//! Invariant: that a revision is on probation is on disk before its first change, together with a timer of systemd that asks again
//! where no agent is left to. Whoever comes next goes on with it; a revision that takes the agent down with it is undone, too.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::apply::Activity;
use crate::config::{ApplyMode, PROBATION_MARK};
use crate::cycle::checks::{CHECK_GRACE, after, source_check, source_id};
use crate::cycle::rollback::{Cause, Good, Rollback};
use crate::cycle::{BOOT_ID, Cycle, InForce, Progress, STOP_LIMIT};
use crate::kinds::health::{DesiredHealth, Probe};
use crate::model::{Class, Failure};
use crate::plan::{Plan, touched_by};
use crate::report::journal;
use crate::sys::clock;
use crate::sys::jobs::{Job, Verb};
use crate::sys::systemd::{Property, PropertyName};

/// Under which name the record keeps the [`Probation`].
const PROBATION: &str = "probation";

/// Under which name the record keeps what became of the checks.
const HEALTH: &str = "health";

/// The timer that asks again where no agent does.
const TIMER: &str = "limpet-probation.timer";

/// How often an agent may begin with the same probation, before its end is put down to the revision.
const MAX_ATTEMPTS: u32 = 5;

/// What is on trial on this host, and what came of it before.
#[derive(Debug, Default)]
pub(super) struct Trial {
    /// What is in force instead of the trusted head.
    pub(super) rollback: Option<Rollback>,
    /// The revisions that passed, the last one first.
    pub(super) good: Vec<Good>,
    /// What is on probation.
    pub(super) probation: Option<Probation>,
    health: Health,
    /// Which boot this is, once that is known.
    boot: OnceCell<String>,
    /// The last poll of this agent was answered.
    pub(super) source_answers: bool,
    /// What is enforced while the revision in force waits.
    pub(super) stand_in: Option<InForce>,
    /// Nothing runs on this machine that could be asked: it is an image.
    pub(super) is_off: bool,
    /// Somebody wants something else done, so that waiting for a check ends.
    pub(super) interruption: Arc<AtomicBool>,
}

/// A revision whose checks have not held yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Probation {
    /// In hex.
    revision: String,
    /// Of what it declares here.
    digest: String,
    since: Timestamp,
    /// Its checks, for who reads this.
    checks: Vec<String>,
    /// What of it touches the way to the source, where that is why the source is asked.
    touches: Option<String>,
    /// How many agents began with it.
    attempts: u32,
}

impl Probation {
    pub(super) fn is_of(&self, in_force: &InForce) -> bool {
        self.revision == in_force.revision && self.digest == in_force.desired.digest
    }
}

/// What became of the checks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Health {
    /// In which boot they were asked last.
    boot: Option<String>,
    /// Those that do not hold.
    unhealthy: Vec<Failure>,
}

impl Cycle {
    /// Takes up what an agent before us had on trial.
    pub(super) fn recall_probation(&mut self) {
        // What cannot be read is asked again, or was another version's.
        self.trial.health = self
            .record
            .recall(HEALTH)
            .ok()
            .flatten()
            .unwrap_or_default();
        self.situation
            .unhealthy
            .clone_from(&self.trial.health.unhealthy);
        let probation: Option<Probation> = self.record.recall(PROBATION).ok().flatten();
        let Some(mut probation) = probation else {
            return;
        };
        probation.attempts += 1;
        let written = self.record.remember(PROBATION, &probation);
        self.note_unwritten(written);
        self.trial.probation = Some(probation);
    }

    /// Asks no checks: nothing runs in an image that is being built.
    pub fn leave_checks_out(&mut self) {
        self.trial.is_off = true;
    }

    /// Set by who wants the worker for something else while it waits for a check.
    pub fn interruption(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.trial.interruption)
    }

    /// Has what is in force yet to show that the host is well with it.
    pub fn is_on_probation(&self) -> bool {
        let in_force = self.in_force.as_ref();
        let is_applied = |in_force: &InForce| {
            self.applied
                .as_ref()
                .is_some_and(|applied| applied.is(in_force))
        };
        let probation = self.trial.probation.as_ref();
        in_force
            .zip(probation)
            .is_some_and(|(in_force, probation)| probation.is_of(in_force) && is_applied(in_force))
            && !self.is_paused()
    }

    /// Writes down that the revision is on probation, before `plan`, its first one, is made.
    pub(super) fn begin_probation(&mut self, in_force: &InForce, plan: &Plan) {
        let is_known = |probation: &Probation| probation.is_of(in_force);
        if self.trial.is_off
            || self.is_rollback(in_force)
            || self.trial.probation.as_ref().is_some_and(is_known)
        {
            return;
        }
        let checks: Vec<String> = after(in_force).map(|check| check.id.to_string()).collect();
        // A source that did not answer before proves nothing by not answering afterwards.
        let touched = touched_by(plan).filter(|_| self.trial.source_answers);
        let touches = touched.map(|(part, id)| format!("{part} ({id})"));
        if checks.is_empty() && touches.is_none() {
            self.end_probation();
            return;
        }
        let probation = Probation {
            revision: in_force.revision.clone(),
            digest: in_force.desired.digest.clone(),
            since: clock::now(),
            checks,
            touches,
            attempts: 0,
        };
        let written = self
            .record
            .remember(PROBATION, &probation)
            .and_then(|()| self.record.settle());
        self.note_unwritten(written);
        let mark = format!("revision {} is on probation\n", in_force.revision);
        let marked = self
            .host
            .write_own_file(PROBATION_MARK, mark.as_bytes(), 0o600);
        self.note_unwritten(marked);
        self.move_timer(Verb::Start);
        self.trial.probation = Some(probation);
    }

    /// Nothing is on probation any more.
    pub(super) fn end_probation(&mut self) {
        if self.trial.probation.take().is_none() {
            return;
        }
        let forgotten = self
            .record
            .forget(PROBATION)
            .and_then(|()| self.host.remove_own_file(PROBATION_MARK));
        self.note_unwritten(forgotten);
        self.move_timer(Verb::Stop);
    }

    fn move_timer(&self, verb: Verb) {
        if !self.host.systemd().is_available() {
            return;
        }
        let job = Job {
            verb,
            unit: TIMER.to_owned(),
        };
        for error in self
            .host
            .systemd()
            .run_jobs(&[job], STOP_LIMIT)
            .into_iter()
            .filter_map(Result::err)
        {
            debug!("failed to move '{TIMER}', ignoring: {error}");
        }
    }

    /// Has the checks of what is in force held, as far as they are due, and does what follows from it.
    pub(super) fn try_out(&mut self, progress: Progress<'_>) {
        if self.is_paused()
            || self.trial.is_off
            || self.config.apply.mode == ApplyMode::Report
            || self.situation.waiting.is_some()
        {
            return;
        }
        let is_applied = |in_force: &&InForce| {
            self.applied
                .as_ref()
                .is_some_and(|applied| applied.is(in_force))
        };
        let Some(in_force) = self.in_force.as_ref().filter(is_applied) else {
            return;
        };
        let checks: Vec<DesiredHealth> = after(in_force).cloned().collect();
        let probation = self
            .trial
            .probation
            .clone()
            .filter(|probation| probation.is_of(in_force));
        let boot = match checks.is_empty() {
            true => None,
            false => self.boot(),
        };
        if let Some(probation) = probation {
            self.prove(&probation, checks, progress);
        } else if !checks.is_empty() && boot.is_some() && self.trial.health.boot != boot {
            let has_passed = self.has_passed(in_force) || self.is_rollback(in_force);
            let Some(failures) = self.run_checks(&checks, progress) else {
                return;
            };
            if has_passed {
                // It was well with this before: a site without power for a night is no reason to undo anything.
                self.note_health(failures);
            } else {
                self.conclude_probation(&checks, failures, progress);
            }
        } else if !self.trial.health.unhealthy.is_empty() {
            self.ask_again(&checks, progress);
        }
        self.pass_if_well();
    }

    /// What has no check passes as soon as everything is as declared; what has one, once that holds after all.
    fn pass_if_well(&mut self) {
        let Some(in_force) = self.in_force.take() else {
            return;
        };
        let is_clean = self
            .applied
            .as_ref()
            .is_some_and(|applied| applied.is(&in_force) && applied.is_clean);
        if is_clean
            && self.trial.probation.is_none()
            && self.trial.health.unhealthy.is_empty()
            && !self.is_complete(&in_force)
        {
            self.note_good(&in_force);
        }
        self.in_force = Some(in_force);
    }

    /// Asks the checks of what is on probation.
    fn prove(
        &mut self,
        probation: &Probation,
        mut checks: Vec<DesiredHealth>,
        progress: Progress<'_>,
    ) {
        if probation.attempts > MAX_ATTEMPTS {
            let failure = Failure::new(
                Class::Host,
                format!(
                    "limpet ended {MAX_ATTEMPTS} times before the checks of the revision had held"
                ),
            );
            return self.conclude_probation(&checks, vec![failure], progress);
        }
        let asks_the_source =
            |check: &DesiredHealth| check.probe == Probe::Source && check.rolls_back;
        if let Some(touches) = &probation.touches
            && !checks.iter().any(asks_the_source)
        {
            debug!("asking the source, because the revision touches {touches}");
            checks.push(source_check());
        }
        if checks.iter().any(|check| check.probe == Probe::Source) {
            // It reads its environment, names and certificates when it starts.
            self.stop_fetcher();
        }
        if let Some(mut failures) = self.run_checks(&checks, progress) {
            if let Some(touches) = &probation.touches {
                let is_own = |failure: &&mut Failure| failure.resource == Some(source_id());
                for failure in failures.iter_mut().filter(is_own) {
                    failure.message =
                        format!("{}; the revision touches {touches}", failure.message);
                }
            }
            self.conclude_probation(&checks, failures, progress);
        }
    }

    /// The checks are asked: the revision passes, or is undone.
    fn conclude_probation(
        &mut self,
        checks: &[DesiredHealth],
        failures: Vec<Failure>,
        progress: Progress<'_>,
    ) {
        let check_of = |failure: &Failure| {
            checks
                .iter()
                .find(|check| Some(&check.id) == failure.resource.as_ref())
        };
        let undoes = |failure: &&Failure| check_of(failure).is_none_or(|check| check.rolls_back);
        let undoing: Vec<&Failure> = failures.iter().filter(undoes).collect();
        let Some(first) = undoing.first() else {
            self.end_probation();
            self.note_health(failures);
            if checks.iter().any(|check| check.rolls_back)
                && let Some(in_force) = self.in_force.take()
            {
                self.note_good(&in_force);
                self.in_force = Some(in_force);
            }
            return;
        };
        let reason = match undoing.len() {
            1 => first.message.clone(),
            count => format!("{} (and {} more)", first.message, count - 1),
        };
        let is_source = |failure: &&Failure| {
            check_of(failure).is_some_and(|check| check.probe == Probe::Source)
        };
        let cause = match undoing.iter().all(is_source) {
            true => Cause::CutOff,
            false => Cause::Unhealthy,
        };
        let Some(failed) = self.in_force.take() else {
            return;
        };
        progress(
            &Activity::Applying(format!("rolling back: {reason}")),
            CHECK_GRACE,
        );
        if let Err(failure) = self.roll_back(&failed, cause.clone(), &reason, progress) {
            self.in_force = Some(failed);
            self.end_probation();
            let mut failures = failures;
            failures.push(failure);
            return self.note_health(failures);
        }
        self.look_after_rollback(&cause, checks, progress);
    }

    /// Is the host well again, now that the revision is undone; and was it the cause.
    fn look_after_rollback(
        &mut self,
        cause: &Cause,
        undone: &[DesiredHealth],
        progress: Progress<'_>,
    ) {
        let was_cut_off = *cause == Cause::CutOff;
        if was_cut_off {
            self.stop_fetcher();
            let source = undone
                .iter()
                .find(|check| check.probe == Probe::Source && check.rolls_back);
            let source = source.cloned().unwrap_or_else(source_check);
            if self
                .run_checks(&[source], progress)
                .is_some_and(|failures| failures.is_empty())
            {
                self.blame();
            }
        }
        let checks: Vec<DesiredHealth> = self
            .in_force
            .iter()
            .flat_map(after)
            .filter(|check| !(was_cut_off && check.probe == Probe::Source))
            .cloned()
            .collect();
        let failures = self.run_checks(&checks, progress).unwrap_or_default();
        let failures = failures.into_iter().map(|failure| Failure {
            message: format!("still unhealthy after the rollback: {}", failure.message),
            ..failure
        });
        self.note_health(failures.collect());
    }

    /// Asks those checks again that did not hold, once.
    fn ask_again(&mut self, checks: &[DesiredHealth], progress: Progress<'_>) {
        let known = &self.trial.health.unhealthy;
        let is_known = |check: &&DesiredHealth| {
            known
                .iter()
                .any(|failure| failure.resource.as_ref() == Some(&check.id))
        };
        let again: Vec<DesiredHealth> = checks
            .iter()
            .filter(is_known)
            .map(|check| DesiredHealth {
                within: check.within.min(check.stable + Duration::from_secs(1)),
                ..check.clone()
            })
            .collect();
        let Some(failures) = self.run_checks(&again, progress) else {
            return;
        };
        let source_answers = self.trial.source_answers;
        let holds = |known: &&Failure| match &known.resource {
            Some(id) if *id == source_id() => source_answers,
            Some(id) => !failures
                .iter()
                .any(|failure| failure.resource.as_ref() == Some(id)),
            // It only says what could not be done about the others.
            None => true,
        };
        let unhealthy = &self.trial.health.unhealthy;
        let left: Vec<Failure> = match unhealthy.iter().all(|known| holds(&known)) {
            true => Vec::new(),
            false => {
                let is_left = |known: &&Failure| known.resource.is_none() || !holds(known);
                unhealthy.iter().filter(is_left).cloned().collect()
            }
        };
        if left != self.trial.health.unhealthy {
            self.note_health(left);
        }
    }

    /// Remembers which checks do not hold.
    fn note_health(&mut self, unhealthy: Vec<Failure>) {
        let revision = self
            .in_force
            .as_ref()
            .map_or("", |in_force| in_force.revision.as_str());
        for failure in unhealthy
            .iter()
            .filter(|failure| !self.situation.unhealthy.contains(failure))
        {
            if let Some(resource) = &failure.resource {
                journal::resource_failed(revision, resource, failure);
            }
        }
        let health = Health {
            boot: self.boot(),
            unhealthy,
        };
        self.situation.unhealthy.clone_from(&health.unhealthy);
        if health != self.trial.health {
            let written = self.record.remember(HEALTH, &health);
            self.note_unwritten(written);
            self.trial.health = health;
        }
    }

    /// Which boot this is, where that can be told: the kernel's id, and when systemd began, because a container keeps the former.
    fn boot(&self) -> Option<String> {
        if self.trial.boot.get().is_none() {
            let id: String = self.record.recall(BOOT_ID).ok().flatten()?;
            let wanted = PropertyName {
                object: "/org/freedesktop/systemd1",
                interface: "Manager",
                name: "UserspaceTimestamp",
            };
            let found = self.host.systemd().properties(&[wanted]).ok()?.pop();
            let Some(Ok(Property::Number(began))) = found else {
                return None;
            };
            return Some(
                self.trial
                    .boot
                    .get_or_init(|| format!("{id} {began}"))
                    .clone(),
            );
        }
        self.trial.boot.get().cloned()
    }

    fn stop_fetcher(&self) {
        super::stop_fetcher(&self.host);
    }
}
