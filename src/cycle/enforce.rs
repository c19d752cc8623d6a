//! Making the host as the revision in force declares: observe, plan, apply, look again, remember.
//!
//! Invariant: an apply is followed by another look, and what still differs is a failure. No unhealthy apply ends in a state called
//! converged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::apply::{self, Activity, Cause, NotMade, Walk, Walked};
use crate::config::{self, ApplyMode};
use crate::cycle::contents::{Courier, StoredContents};
use crate::cycle::{APPLIED, AppliedRevision, Cycle, InForce, Progress, Rest};
use crate::fleet::{DesiredState, Limits};
use crate::kinds::account::{self, Accounts};
use crate::kinds::file::{
    Edit, Paths, SeenBefore, Walks, find_purged, read_original, save_original,
};
use crate::kinds::kind::Kind;
use crate::kinds::package::Packages;
use crate::kinds::sysctl::Sysctls;
use crate::kinds::unit::Units;
use crate::model::{self, Action, Class, Failure, Name, Reason, ResourceId};
use crate::plan::{
    self, Change, Declarations, Inventory, InventoryKind, Observed, Plan, Rules, Step,
};
use crate::record::history::{APPLIED as WORD_APPLIED, LET_THROUGH, Note};
use crate::record::{HistoryEntry, InventoryEntry, Record};
use crate::recovery;
use crate::report::journal;
use crate::report::status::{Counts, Drift, OwedEffect};
use crate::sys::{Host, clock, memory};

/// How long a resource that failed rests before it is tried again; doubled with every failure.
pub(super) const FIRST_REST: Duration = Duration::from_secs(60);

/// Under which name the record keeps the digests of the states that were applied, the latest last.
const KNOWN_STATES: &str = "known-states";

/// How many of them.
const MAX_KNOWN_STATES: usize = 100;

/// How often a cycle plans again; what still brings something new then goes on in the next one.
const MAX_PASSES: usize = 5;

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(60 * 60);

/// The longest rest of what costs little to try, or is known to pass: the host is to be well soon after the trouble is over.
const LONGEST_LIGHT_REST: Duration = Duration::from_secs(5 * 60);

/// How long looking at everything may be silent: a slow card with many gigabytes to hash.
const LOOKING_SILENCE: Duration = Duration::from_secs(60 * 60);

/// With how many changes to paths, and no other, only they are looked at again. More are as well looked at as remembered.
const MOST_TOUCHED: usize = 500;

/// The steps that a cycle tried.
type Tried = BTreeSet<(InventoryKind, Name, Action)>;

impl Cycle {
    /// Makes the host as the revision in force declares, and looks again.
    ///
    /// What was made can bring more to do (a package brings the unit that was declared beside it), so it is planned again until
    /// nothing new comes up. A step that was made and is planned again does not converge.
    pub(super) fn enforce(
        &mut self,
        in_force: &mut InForce,
        allow_removals: bool,
        progress: Progress<'_>,
    ) -> Result<(), Failure> {
        let is_new = self
            .applied
            .as_ref()
            .is_none_or(|applied| !applied.is(in_force));
        self.unpack(in_force, progress)?;
        if self.is_paused() {
            progress(&Activity::Looking, LOOKING_SILENCE);
            let mut plan = self.plan(in_force, allow_removals, None)?.plan;
            plan.suspend();
            let failures = plan.blocked.clone();
            return self.conclude(in_force, Looked::at(&plan), failures, is_new, 0);
        }
        self.end_rejections(in_force);
        if self.config.apply.mode == ApplyMode::Enforce {
            self.finish_undoing(in_force, progress)?;
        }
        if is_new {
            // Fetching and rendering it took memory, on top of which what follows is not to come.
            memory::give_back();
        }
        let mut tried: Tried = BTreeSet::new();
        let mut not_made = Vec::new();
        let mut made = 0;
        let mut passes = 0;
        let mut seen_before = None;
        let Planned {
            plan: last,
            observed,
            inventory,
        } = loop {
            progress(&Activity::Looking, LOOKING_SILENCE);
            let mut planned = self.plan(in_force, allow_removals, seen_before.take())?;
            let plan = &mut planned.plan;
            if is_new
                && passes == 0
                && !plan.is_held_whole
                && self.config.apply.mode == ApplyMode::Enforce
            {
                self.begin_probation(in_force, plan);
            }
            let was_tried =
                |step: &Step| tried.contains(&(step.kind, step.key.clone(), step.action));
            // A trigger that is caused anew is no repetition; where its causes are, it is idle and forgiven.
            let is_trigger = |step: &Step| step.reason == Reason::Triggered && !step.is_owed;
            let is_news =
                |step: &Step| !is_trigger(step) && !was_tried(step) && !plan.is_postponed(step);
            let has_news = plan.steps().any(is_news)
                || !plan.released.is_empty()
                || !plan.void_debts.is_empty();
            // A host that only reports does not even change what it remembers.
            let is_reporting = self.config.apply.mode == ApplyMode::Report;
            if !has_news || is_reporting || passes == MAX_PASSES {
                break planned;
            }
            passes += 1;
            plan.retain(|step| is_trigger(step) || !was_tried(step));
            tried.extend(
                plan.steps()
                    .map(|step| (step.kind, step.key.clone(), step.action)),
            );
            let Planned {
                plan,
                observed,
                inventory,
            } = planned;
            let told = self.tell_let_through(in_force, &plan);
            self.note_unwritten(told);
            let intended = self.intend_units(in_force, &observed, &inventory);
            self.note_unwritten(intended);
            // Of no use any more where much changes, and it takes memory while the machine is changed.
            seen_before = seen_before_touching(&plan, observed);
            let walked = self.apply(in_force, plan, &inventory, progress)?;
            self.rest(&walked, clock::instant());
            self.note_corrections(&walked);
            if walked.made.len() > MOST_TOUCHED {
                memory::give_back();
            }
            made += walked.made.len();
            not_made.extend(walked.not_made);
        };
        let mut failures = failures_of(&not_made);
        let origins = &in_force.desired.origins;
        let known: BTreeSet<ResourceId> = failures
            .iter()
            .filter_map(|failure| failure.resource.clone())
            .collect();
        let others = last
            .blocked
            .iter()
            .cloned()
            .chain(not_converging(&last, &tried));
        failures.extend(others.filter(|failure| {
            failure
                .resource
                .as_ref()
                .is_none_or(|id| !known.contains(id))
        }));
        for failure in failures
            .iter_mut()
            .filter(|failure| failure.class == Class::Author && failure.location.is_none())
        {
            let origin = failure.resource.as_ref().and_then(|id| origins.get(id));
            failure.location = origin.map(|origin| origin.location.clone());
        }
        // A process that ended after failures may have left the inventory behind what is on the machine.
        let is_known_settled = self.has_settled
            || self
                .applied
                .as_ref()
                .is_some_and(|applied| applied.is_clean);
        let is_settled = !is_new && is_known_settled && self.situation.failures == failures;
        if !is_settled && !last.is_held_whole && self.config.apply.mode == ApplyMode::Enforce {
            let failed = failures
                .iter()
                .filter_map(|failure| failure.resource.as_ref());
            let mut open = plan::reported_resources(&in_force.desired);
            open.extend(&last.paused);
            open.extend(last.held.iter().map(|held| &held.step.id));
            open.extend(failed);
            let settled = self.settle(in_force, &observed, &inventory, &open);
            self.has_settled = settled.is_ok();
            self.note_unwritten(settled);
        }
        drop(observed);
        self.archives.forget();
        let bounded = self.bound_originals(in_force, &inventory, made > 0);
        self.note_unwritten(bounded);
        drop(inventory);
        failures.extend(self.unwritable.clone());
        self.conclude(in_force, Looked::at(&last), failures, is_new, made)
    }

    pub(super) fn plan(
        &mut self,
        in_force: &mut InForce,
        allow_removals: bool,
        before: Option<SeenBefore>,
    ) -> Result<Planned, Failure> {
        let inventory = self.inventory.read(&self.record)?;
        let unpurged = find_purged(&self.host, &mut in_force.desired.paths, &inventory.paths);
        self.end_contests(in_force, &inventory);
        self.end_rejections(in_force);
        let paths = &mut in_force.desired.paths;
        self.vault.open(&self.host, paths, &inventory.paths);
        let mut observed = observe(&self.host, &in_force.desired, &inventory, before);
        let paths = &in_force.desired.paths;
        self.vault
            .look(&self.host, paths, &inventory.paths, &mut observed.paths);
        self.look_at_network(&mut observed.sysctls);
        let now = clock::instant();
        let mut resting: BTreeMap<ResourceId, Failure> = self
            .resting
            .iter()
            .filter(|(_, rest)| rest.until > now)
            .map(|(id, rest)| (id.clone(), rest.failure.clone()))
            .collect();
        self.hold_version(in_force, &mut resting);
        let rules = Rules {
            report_only: self.config.apply.mode == ApplyMode::Report,
            max_removals: Some(self.config.apply.max_removals),
            allowed_removals: self.allowance(in_force),
            is_known_state: self
                .applied
                .as_ref()
                .is_some_and(|applied| applied.is(in_force) && applied.is_clean)
                || knows_state(&self.record, &in_force.desired.digest),
            lets_through: allow_removals,
            keep_everything: self.situation.state_missing.is_some(),
            protect_packages: self.config.apply.protect_packages.clone(),
            limits: Limits::from(&self.config.apply),
            resting,
            rejected: self.rejections.clone(),
            contested: self.resting_contests(),
            paused: self.paused_resources(),
        };
        let mut plan = plan::plan(&in_force.desired, &observed, &inventory, &rules);
        plan.blocked.extend(unpurged);
        self.learn_of_the_other_side(in_force, &mut plan);
        Ok(Planned {
            plan,
            observed,
            inventory,
        })
    }

    /// Writes down what local root lets through, and who that is.
    fn tell_let_through(&mut self, in_force: &InForce, plan: &Plan) -> Result<(), Failure> {
        if plan.let_through.is_empty() {
            return Ok(());
        }
        let by = self.let_through_by.as_deref().unwrap_or("root");
        let by = crate::document::single_line(by);
        let detail = format!("by {by}: {}", plan.let_through.join("; "));
        journal::let_through(&in_force.revision, &detail);
        let entry = HistoryEntry::of_host(
            clock::now(),
            &in_force.revision,
            LET_THROUGH,
            "done",
            &detail,
        );
        let note = Note {
            subject: in_force.subject.clone(),
            signer: in_force.signer.clone(),
        };
        self.record.note(&entry, &note)
    }

    /// Writes down how units are that are declared for the first time, before anything of theirs changes: a unit of which only files
    /// are declared has no step of its own that would.
    fn intend_units(
        &mut self,
        in_force: &InForce,
        observed: &Observed,
        inventory: &Inventory,
    ) -> Result<(), Failure> {
        let known: BTreeSet<&str> = inventory
            .units
            .iter()
            .map(|owned| owned.key.as_str())
            .collect();
        let paused = self.paused_resources();
        let new = in_force.desired.units.iter().filter(|unit| {
            let is_touched = !unit.report && !paused.contains(&unit.id);
            is_touched && !known.contains(unit.name.as_str())
        });
        let entries: Vec<InventoryEntry> = new
            .filter_map(|unit| {
                Some(InventoryEntry {
                    kind: InventoryKind::Unit.as_str().to_owned(),
                    key: unit.name.clone(),
                    resource: unit.id.clone(),
                    on_removal: unit.on_removal,
                    applied: crate::kinds::unit::applied(unit).to_string(),
                    original: json(&observed.units.original(&unit.name)?),
                    made: false,
                    prevent_removal: in_force.desired.prevented.contains(&unit.id),
                    needs: in_force
                        .desired
                        .needs
                        .get(&unit.id)
                        .cloned()
                        .unwrap_or_default(),
                })
            })
            .collect();
        if entries.is_empty() {
            Ok(())
        } else {
            self.record
                .intend(&in_force.revision, &entries, &[], clock::now())
        }
    }

    fn apply(
        &mut self,
        in_force: &InForce,
        plan: Plan,
        inventory: &Inventory,
        progress: Progress<'_>,
    ) -> Result<Walked, Failure> {
        let contents = StoredContents::new(&self.host, &self.objects, &self.vault)?
            .with_courier(Courier::new(&self.connect, progress), &self.archives);
        let declarations = Declarations::new(&in_force.desired, inventory);
        let walk = Walk {
            host: &self.host,
            contents: &contents,
            declarations: &declarations,
            revision: &in_force.revision,
            digest: &in_force.desired.digest,
            progress,
        };
        let walked = apply::apply(&walk, &mut self.record, plan);
        let has_lost = contents.has_lost();
        drop(contents); // a transaction is open as long as it is there
        if has_lost {
            // The revision is read again from the source, which fills the store.
            self.must_load = true;
        }
        self.note_unwritten(walked.unrecorded.clone().map_or(Ok(()), Err));
        self.rejections.extend(walked.rejected.clone());
        if let Some(failure) = walked.failure_of(recovery::PACKAGE) {
            self.take_back_broken_package(failure);
        }
        Ok(walked)
    }

    /// Remembers that the record could not be written, until it can.
    pub(super) fn note_unwritten(&mut self, written: Result<(), Failure>) {
        if let Err(failure) = written {
            self.unwritable.get_or_insert(failure);
        }
    }

    /// Brings the inventory up to date with what is declared and already so; `open` are the resources that are not. What was
    /// `observed` last is still so.
    fn settle(
        &mut self,
        in_force: &InForce,
        observed: &Observed,
        inventory: &Inventory,
        open: &BTreeSet<&ResourceId>,
    ) -> Result<(), Failure> {
        let declarations = Declarations::new(&in_force.desired, inventory);
        let mut ways = Walks::new(&self.host);
        let mut owned = Vec::new();
        for (kind, key) in declarations.keys() {
            let key = key.as_ref();
            let is_open = |(id, _)| open.contains(id);
            if declarations.is_settled(kind, key)
                || declarations.declared_by(kind, key).is_none_or(is_open)
            {
                continue;
            }
            let original = match kind {
                _ if declarations.is_owned(kind, key) => Some(String::new()), // the one it has stays
                InventoryKind::Path => {
                    let way = ways.of(declarations.as_user(key))?;
                    let originals = config::ORIGINALS_DIRECTORY;
                    let original = match declarations.is_secret(key) {
                        // It is what we would have written: no copy of that.
                        true => read_original(way, key)?.0.without_content(),
                        false => save_original(&self.host, way, key, originals)?,
                    };
                    Some(json(&original))
                }
                InventoryKind::Package => observed.packages.original(key).map(|it| json(&it)),
                InventoryKind::Account => {
                    account::original(&observed.accounts, key).map(|it| json(&it))
                }
                InventoryKind::Sysctl => observed.sysctls.original(key).map(|it| json(&it)),
                InventoryKind::Unit => observed.units.original(key).map(|it| json(&it)),
                InventoryKind::Command => None, // it is remembered when it was run
            };
            // What could not be looked at has a failure that says so.
            if let (Some(original), Some(declaration)) = (original, declarations.get(kind, key)) {
                owned.push(InventoryEntry {
                    kind: kind.as_str().to_owned(),
                    key: key.to_owned(),
                    resource: declaration.id.clone(),
                    on_removal: declaration.on_removal,
                    applied: declaration.applied,
                    original,
                    made: true,
                    prevent_removal: declaration.prevent_removal,
                    needs: declaration.needs.to_vec(),
                });
            }
        }
        if owned.is_empty() {
            Ok(())
        } else {
            self.record
                .conclude(&in_force.revision, &owned, &[], &[], &[])
        }
    }

    /// Lets what failed rest, longer every time.
    pub(super) fn rest(&mut self, walked: &Walked, now: Instant) {
        for not_made in &walked.not_made {
            let Cause::Failed(failure) = &not_made.cause else {
                continue;
            };
            let id = &not_made.id;
            // What it ran with is what it goes on with: that may be put right at any time.
            if walked.rejected.contains_key(id) {
                continue;
            }
            let attempts = self.resting.get(id).map_or(0, |rest| rest.attempts) + 1;
            let rest = FIRST_REST
                .saturating_mul(1 << attempts.min(10).saturating_sub(1))
                .min(longest_rest(id, failure));
            let rest = Rest {
                failure: failure.clone().about(id.clone()),
                attempts,
                until: now + rest,
            };
            self.resting.insert(id.clone(), rest);
        }
        if !self.resting.is_empty() {
            for id in &walked.made {
                self.resting.remove(id);
            }
        }
    }

    /// Turns what was seen and done into facts.
    fn conclude(
        &mut self,
        in_force: &InForce,
        looked: Looked,
        failures: Vec<Failure>,
        is_new: bool,
        made: usize,
    ) -> Result<(), Failure> {
        for failure in failures
            .iter()
            .filter(|failure| !self.situation.failures.contains(failure))
        {
            if let Some(resource) = &failure.resource
                && !self.resting_contests().contains_key(resource)
            {
                journal::resource_failed(&in_force.revision, resource, failure);
            }
        }
        let failed: BTreeSet<&ResourceId> = failures
            .iter()
            .filter_map(|failure| failure.resource.as_ref())
            .collect();
        let drifted = looked.drift.iter().map(|drift| &drift.resource);
        let open: BTreeSet<&ResourceId> = failed
            .iter()
            .copied()
            .chain(drifted)
            .chain(&looked.open)
            .collect();
        let total = in_force.number_of_resources();
        self.situation.resources = if open.is_empty() {
            Counts {
                total,
                failed: 0,
                converged: total,
            }
        } else {
            let declared = in_force.desired.resource_ids();
            Counts {
                total,
                failed: failed.iter().filter(|id| declared.contains(*id)).count(),
                converged: declared.iter().filter(|id| !open.contains(*id)).count(),
            }
        };
        let is_manual = |id: &ResourceId| {
            let mut units = in_force.desired.units.iter();
            units.any(|unit| unit.id == *id && unit.manual)
        };
        let owed = self.record.owed()?;
        self.situation.owed = owed
            .into_iter()
            .map(|owed| OwedEffect {
                manual: owed.action == Action::Restart && is_manual(&owed.debtor),
                action: owed.action,
                resource: owed.debtor,
                because: owed.because,
            })
            .collect();
        let last = self.last_status.as_ref().map(|status| &status.drift);
        let is_told = |drift: &Drift| {
            self.situation.drift.contains(drift) || last.is_some_and(|last| last.contains(drift))
        };
        for drift in looked.drift.iter().filter(|drift| !is_told(drift)) {
            journal::reported(
                &in_force.revision,
                &drift.resource,
                drift.reason,
                &drift.fields,
            );
        }
        self.situation.drift = looked.drift;
        let revision = journal::short(&in_force.revision);
        let held = looked.held.into_iter().map(|failure| Failure {
            message: format!("{} (revision {revision})", failure.message),
            ..failure
        });
        self.situation.held = held.collect();
        self.situation.reboot_required = self.host.exists("/run/reboot-required")?;
        let is_clean = failures.is_empty() && self.situation.held.is_empty();
        self.situation.failures = failures;
        let is_enforcing = !looked.is_held_whole
            && self.config.apply.mode == ApplyMode::Enforce
            && !self.is_paused();
        if self.config.apply.mode == ApplyMode::Report {
            // Nothing is applied, but this is what the host is compared with.
            self.situation.revision = Some(in_force.revision.clone());
            self.situation.subject = Some(in_force.subject.clone());
            self.situation.signer = in_force.signer.clone();
            self.situation.digest = Some(in_force.desired.digest.clone());
            self.situation.applied_at = None;
        }
        let was_clean = !is_new
            && self
                .applied
                .as_ref()
                .is_some_and(|applied| applied.is_clean);
        if is_enforcing && (is_new || (is_clean && !was_clean)) {
            let at = self
                .applied
                .as_ref()
                .filter(|_| !is_new)
                .map_or_else(clock::now, |applied| applied.at);
            let applied = AppliedRevision {
                revision: in_force.revision.clone(),
                subject: in_force.subject.clone(),
                signer: in_force.signer.clone(),
                at,
                digest: in_force.desired.digest.clone(),
                is_clean,
            };
            let mut remembered = self.record.remember(APPLIED, &applied);
            if is_clean && !knows_state(&self.record, &applied.digest) {
                remembered = remembered.and_then(|()| know_state(&self.record, &applied.digest));
            }
            self.note_unwritten(remembered);
            let open = self.situation.failures.len();
            let held = looked.open.len();
            let (outcome, detail) = match (is_clean, is_new) {
                (true, true) => ("done", String::new()),
                (true, false) => ("done", "complete, after failures".to_owned()),
                (false, _) if held > 0 => {
                    ("failed", format!("{held} held, {open} not as declared"))
                }
                (false, _) => ("failed", format!("{open} not as declared")),
            };
            let entry = HistoryEntry::of_host(
                clock::now(),
                &applied.revision,
                WORD_APPLIED,
                outcome,
                &detail,
            );
            let note = Note {
                subject: applied.subject.clone(),
                signer: applied.signer.clone(),
            };
            let noted = self.record.note(&entry, &note);
            self.note_unwritten(noted);
            self.situation.take_applied(&applied);
            self.applied = Some(applied);
            if is_clean {
                let signer = in_force.signer.as_deref().unwrap_or("nobody");
                journal::revision_applied(&in_force.revision, signer, &in_force.subject, made);
            }
        }
        Ok(())
    }
}

/// How long something that fails again and again may rest.
fn longest_rest(id: &ResourceId, failure: &Failure) -> Duration {
    let is_light = match id.kind {
        model::Kind::Repository | model::Kind::Package | model::Kind::Unit => {
            failure.class == Class::Transient
        }
        _ => true,
    };
    if is_light {
        LONGEST_LIGHT_REST
    } else {
        LONGEST_REST
    }
}

/// A plan, and what it was made from.
pub(super) struct Planned {
    pub(super) plan: Plan,
    observed: Observed,
    inventory: Arc<Inventory>,
}

/// What a plan leaves to say once its batches are made.
#[derive(Debug)]
struct Looked {
    drift: Vec<Drift>,
    held: Vec<Failure>,
    is_held_whole: bool,
    /// What is held.
    open: Vec<ResourceId>,
}

impl Looked {
    fn at(plan: &Plan) -> Self {
        let drift = plan
            .reported
            .iter()
            .map(|step| Drift {
                resource: step.id.clone(),
                reason: step.reason,
                fields: step.fields.clone(),
            })
            .collect();
        Looked {
            drift,
            held: plan.held_because.clone(),
            is_held_whole: plan.is_held_whole,
            open: plan.held.iter().map(|held| held.step.id.clone()).collect(),
        }
    }
}

/// Was the state with this digest applied here once, and nothing of it held.
pub(super) fn knows_state(record: &Record, digest: &str) -> bool {
    known_states(record).iter().any(|known| known == digest)
}

/// Remembers that the state with this digest was applied here.
fn know_state(record: &Record, digest: &str) -> Result<(), Failure> {
    let mut known = known_states(record);
    known.push(digest.to_owned());
    let old = known.len().saturating_sub(MAX_KNOWN_STATES);
    record.remember(KNOWN_STATES, &known.split_off(old))
}

/// Where they cannot be read, none is known: then a person is asked once more than needed.
fn known_states(record: &Record) -> Vec<String> {
    record
        .recall(KNOWN_STATES)
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// What is still planned although it was made.
fn not_converging(plan: &Plan, tried: &Tried) -> Vec<Failure> {
    plan.steps()
        .filter(|step| step.reason != Reason::Triggered)
        .filter(|step| tried.contains(&(step.kind, step.key.clone(), step.action)))
        .map(|step| {
            let message = format!(
                "{} is non-converging: it was applied, and its {} still differs",
                step.id,
                fields(step)
            );
            Failure::new(Class::Host, message)
                .with_hint(
                    "something else changes it back, or two declarations contradict each other",
                )
                .about(step.id.clone())
        })
        .collect()
}

fn fields(step: &Step) -> String {
    if step.fields.is_empty() {
        step.action.to_string()
    } else {
        step.fields.join(", ")
    }
}

fn failures_of(not_made: &[NotMade]) -> Vec<Failure> {
    not_made
        .iter()
        .filter_map(|NotMade { id, action, cause }| match cause {
            Cause::Failed(failure) => Some(failure.clone().about(id.clone())),
            Cause::Skipped(blocker) if blocker == id => None,
            Cause::Skipped(blocker) => Some(plan::skipped(*action, id, blocker)),
        })
        .collect()
}

/// What need not be looked at again once `plan` was walked: where it changes a few paths and nothing else, and runs no program, all
/// that was `observed` elsewhere is as it was a moment ago.
fn seen_before_touching(plan: &Plan, observed: Observed) -> Option<SeenBefore> {
    let mut touched = BTreeSet::new();
    for step in plan.steps() {
        let Change::Path(change) = &step.change else {
            return None;
        };
        let runs_program = matches!(
            change.edit,
            Edit::WriteFile {
                validate: Some(_),
                ..
            }
        );
        if runs_program || touched.len() == MOST_TOUCHED {
            return None;
        }
        touched.insert(change.path.clone());
    }
    Some(SeenBefore {
        paths: observed.paths,
        touched,
    })
}

/// Looks at everything that is declared or owned; at paths that were seen `before` only where they may have changed since.
pub(super) fn observe(
    host: &Host,
    desired: &DesiredState,
    inventory: &Inventory,
    before: Option<SeenBefore>,
) -> Observed {
    let mut units = Units::observe(host, &desired.units, &inventory.units);
    let owing: BTreeSet<&str> = inventory
        .owed
        .iter()
        .filter(|debt| debt.debtor.kind == model::Kind::Unit && debt.caused.is_some())
        .map(|debt| debt.debtor.name.as_str())
        .collect();
    if !owing.is_empty() {
        units.look_when_started(host, &owing);
    }
    Observed {
        paths: match before {
            Some(before) => Paths::observe_again(host, &desired.paths, &inventory.paths, before),
            None => Paths::observe(host, &desired.paths, &inventory.paths),
        },
        packages: Packages::observe(host, &desired.packages, &inventory.packages),
        accounts: Accounts::observe(host, &desired.accounts, &inventory.accounts),
        sysctls: Sysctls::observe(host, &desired.sysctls, &inventory.sysctls),
        units,
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("what a kind keeps is plain data")
}
