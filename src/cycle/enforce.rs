//! Making the host as the revision in force declares: observe, plan, apply, look again, remember.
//!
//! Invariant: an apply is followed by another look, and what still differs is a failure. No unhealthy apply ends in a state called
//! converged.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::apply::{self, Activity, Done, Walk};
use crate::config::{self, ApplyMode};
use crate::cycle::contents::StoredContents;
use crate::cycle::{APPLIED, AppliedRevision, Cycle, InForce, Progress, Rest};
use crate::fleet::{DesiredState, Limits};
use crate::kinds::file::{Paths, save_original};
use crate::kinds::kind::{Kind, Owned};
use crate::kinds::package::Packages;
use crate::kinds::unit::Units;
use crate::model::{self, Action, Class, Failure, Outcome, Reason, ResourceId};
use crate::plan::{self, InventoryKind, Observed, Plan, Rules, Step};
use crate::record::history::{APPLIED as WORD_APPLIED, Note};
use crate::record::{HistoryEntry, InventoryEntry, Record};
use crate::report::journal;
use crate::report::status::{Counts, Drift, OwedEffect};
use crate::sys::{Host, clock};

/// How long a resource that failed rests before it is tried again; doubled with every failure.
const FIRST_REST: SignedDuration = SignedDuration::from_secs(60);

/// How often a cycle plans again; what still brings something new then goes on in the next one.
const MAX_PASSES: usize = 5;

/// The longest rest.
const LONGEST_REST: SignedDuration = SignedDuration::from_hours(1);

/// How long looking at everything may be silent: a slow card with many gigabytes to hash.
const LOOKING_SILENCE: Duration = Duration::from_secs(60 * 60);

/// The steps that a cycle tried.
type Tried = BTreeSet<(InventoryKind, String, Action)>;

impl Cycle {
    /// Makes the host as the revision in force declares, and looks again.
    ///
    /// What was made can bring more to do (a package brings the unit that was declared beside it), so it is planned again until
    /// nothing new comes up. A step that was made and is planned again does not converge.
    pub(super) fn enforce(
        &mut self,
        in_force: &InForce,
        allow_removals: bool,
        progress: Progress<'_>,
    ) -> Result<(), Failure> {
        let is_new = self
            .applied
            .as_ref()
            .is_none_or(|applied| !applied.is(in_force));
        if self.is_paused() {
            progress(&Activity::Looking, LOOKING_SILENCE);
            let mut plan = self.plan(in_force, allow_removals)?.plan;
            plan.suspend();
            let failures = plan.blocked.clone();
            return self.conclude(in_force, Looked::at(&plan), failures, is_new, 0);
        }
        let mut tried: Tried = BTreeSet::new();
        let mut done = Vec::new();
        let mut passes = 0;
        let last = loop {
            progress(&Activity::Looking, LOOKING_SILENCE);
            let Planned {
                mut plan,
                observed,
                inventory,
            } = self.plan(in_force, allow_removals)?;
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
                break plan;
            }
            passes += 1;
            plan.retain(|step| is_trigger(step) || !was_tried(step));
            tried.extend(
                plan.steps()
                    .map(|step| (step.kind, step.key.clone(), step.action)),
            );
            self.intend_units(in_force, &observed, &inventory)?;
            let applied = self.apply(in_force, plan, &inventory, progress)?;
            self.rest(&applied, clock::now());
            done.extend(applied);
        };
        let mut failures = failures_of(&done);
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
        let made = done
            .iter()
            .filter(|done| done.outcome == Outcome::Done)
            .count();
        let is_settled = !is_new && self.situation.failures == failures;
        if !is_settled && last.held.is_empty() && self.config.apply.mode == ApplyMode::Enforce {
            let failed = failures
                .iter()
                .filter_map(|failure| failure.resource.as_ref());
            let mut open = plan::reported_resources(&in_force.desired);
            open.extend(&last.paused);
            open.extend(failed);
            self.settle(in_force, &open)?;
        }
        self.conclude(in_force, Looked::at(&last), failures, is_new, made)
    }

    pub(super) fn plan(
        &mut self,
        in_force: &InForce,
        allow_removals: bool,
    ) -> Result<Planned, Failure> {
        let inventory = inventory(&self.record)?;
        let observed = observe(&self.host, &in_force.desired, &inventory);
        let now = clock::now();
        let resting = self
            .resting
            .iter()
            .filter(|(_, rest)| rest.until > now)
            .map(|(id, rest)| (id.clone(), rest.failure.clone()))
            .collect();
        let rules = Rules {
            report_only: self.config.apply.mode == ApplyMode::Report,
            max_removals: match allow_removals {
                true => None,
                false => Some(
                    in_force
                        .allowed_removals
                        .unwrap_or(0)
                        .max(self.config.apply.max_removals),
                ),
            },
            keep_everything: self.situation.state_missing.is_some(),
            protect_packages: self.config.apply.protect_packages.clone(),
            limits: Limits::from(&self.config.apply),
            resting,
            paused: self.paused_resources(),
        };
        let plan = plan::plan(&in_force.desired, &observed, &inventory, &rules);
        Ok(Planned {
            plan,
            observed,
            inventory,
        })
    }

    /// Writes down how units are that are declared for the first time, before anything of theirs changes: a unit of which only files
    /// are declared has no step of its own that would.
    fn intend_units(
        &mut self,
        in_force: &InForce,
        observed: &Observed,
        inventory: &plan::Inventory,
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
                    applied: crate::kinds::unit::applied(unit),
                    original: plain(observed.units.original(&unit.name)?),
                    made: false,
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
        inventory: &plan::Inventory,
        progress: Progress<'_>,
    ) -> Result<Vec<Done>, Failure> {
        let contents = StoredContents {
            host: &self.host,
            objects: &self.objects,
        };
        let declarations = plan::declarations(&in_force.desired, inventory);
        let owned = owned_keys(inventory);
        let walk = Walk {
            host: &self.host,
            contents: &contents,
            declarations: &declarations,
            owned: &owned,
            revision: &in_force.revision,
            progress,
        };
        apply::apply(&walk, &mut self.record, plan)
    }

    /// Brings the inventory up to date with what is declared and already so; `open` are the resources that are not.
    fn settle(&mut self, in_force: &InForce, open: &BTreeSet<&ResourceId>) -> Result<(), Failure> {
        let inventory = inventory(&self.record)?;
        let observed = observe(&self.host, &in_force.desired, &inventory);
        let entries = self.record.inventory()?;
        let known = crate::record::by_key(&entries);
        let mut owned = Vec::new();
        for ((kind, key), declaration) in plan::declarations(&in_force.desired, &inventory) {
            if open.contains(&declaration.id) {
                continue;
            }
            let is_owned = known.contains_key(&(kind.as_str(), key));
            let original = match kind {
                _ if is_owned => serde_json::Value::Null,
                InventoryKind::Path => {
                    plain(save_original(&self.host, key, config::ORIGINALS_DIRECTORY)?)
                }
                InventoryKind::Package => plain(observed.packages.original(key)),
                InventoryKind::Unit => plain(observed.units.original(key)),
            };
            if original.is_null() && !is_owned {
                // It could not be looked at; there is a failure that says so.
                continue;
            }
            let entry = InventoryEntry {
                kind: kind.as_str().to_owned(),
                key: key.to_owned(),
                resource: declaration.id,
                on_removal: declaration.on_removal,
                applied: declaration.applied,
                original,
                made: true,
            };
            let is_known = known.get(&(kind.as_str(), key)).is_some_and(|known| {
                known.made
                    && known.applied == entry.applied
                    && known.resource == entry.resource
                    && known.on_removal == entry.on_removal
            });
            if !is_known {
                owned.push(entry);
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
    fn rest(&mut self, done: &[Done], now: Timestamp) {
        for done in done {
            match &done.outcome {
                Outcome::Failed(failure) => {
                    let attempts = self.resting.get(&done.id).map_or(0, |rest| rest.attempts) + 1;
                    let rest = FIRST_REST
                        .saturating_mul(1 << attempts.min(10).saturating_sub(1))
                        .min(LONGEST_REST);
                    let failure = failure.clone().about(done.id.clone());
                    let until = now.checked_add(rest).unwrap_or(now);
                    self.resting.insert(
                        done.id.clone(),
                        Rest {
                            failure,
                            attempts,
                            until,
                        },
                    );
                }
                Outcome::Done => {
                    self.resting.remove(&done.id);
                }
                Outcome::Skipped(_) => {}
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
            if let Some(resource) = &failure.resource {
                journal::resource_failed(&in_force.revision, resource, failure);
            }
        }
        let declared = in_force.desired.resource_ids();
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
        self.situation.resources = Counts {
            total: declared.len(),
            failed: failed.iter().filter(|id| declared.contains(*id)).count(),
            converged: declared.iter().filter(|id| !open.contains(*id)).count(),
        };
        let owed = self.record.owed()?;
        self.situation.owed = owed
            .into_iter()
            .map(|owed| OwedEffect {
                resource: ResourceId::new(model::Kind::Unit, owed.unit),
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
        let held = looked.held.map(|failure| Failure {
            message: format!("{} (revision {revision})", failure.message),
            ..failure
        });
        self.situation.held = held.into_iter().collect();
        self.situation.reboot_required = self.host.exists("/run/reboot-required")?;
        let is_clean = failures.is_empty() && self.situation.held.is_empty();
        self.situation.failures = failures;
        let is_enforcing = self.situation.held.is_empty()
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
            self.record.remember(APPLIED, &applied)?;
            let open = self.situation.failures.len();
            let (outcome, detail) = match (is_clean, is_new) {
                (true, true) => ("done", String::new()),
                (true, false) => ("done", "complete, after failures".to_owned()),
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
            self.record.note(&entry, &note)?;
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

/// A plan, and what it was made from.
pub(super) struct Planned {
    pub(super) plan: Plan,
    observed: Observed,
    inventory: plan::Inventory,
}

/// What a plan leaves to say once its batches are made.
#[derive(Debug)]
struct Looked {
    drift: Vec<Drift>,
    held: Option<Failure>,
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
            open: plan.held.iter().map(|step| step.id.clone()).collect(),
        }
    }
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

fn failures_of(done: &[Done]) -> Vec<Failure> {
    done.iter()
        .filter_map(|done| match &done.outcome {
            Outcome::Done => None,
            Outcome::Failed(failure) => Some(failure.clone().about(done.id.clone())),
            Outcome::Skipped(blocker) if *blocker == done.id => None,
            Outcome::Skipped(blocker) => Some(plan::skipped(done.action, &done.id, blocker)),
        })
        .collect()
}

/// Looks at everything that is declared or owned.
pub(super) fn observe(
    host: &Host,
    desired: &DesiredState,
    inventory: &plan::Inventory,
) -> Observed {
    Observed {
        paths: Paths::observe(host, &desired.paths, &inventory.paths),
        packages: Packages::observe(host, &desired.packages, &inventory.packages),
        units: Units::observe(host, &desired.units, &inventory.units),
    }
}

fn plain<T: serde::Serialize>(value: T) -> serde_json::Value {
    serde_json::to_value(value).expect("what a kind keeps is plain data")
}

/// What the inventory knows.
fn owned_keys(inventory: &plan::Inventory) -> BTreeSet<(InventoryKind, String)> {
    let paths = inventory
        .paths
        .iter()
        .map(|owned| (InventoryKind::Path, owned.key.clone()));
    let packages = inventory
        .packages
        .iter()
        .map(|owned| (InventoryKind::Package, owned.key.clone()));
    let units = inventory
        .units
        .iter()
        .map(|owned| (InventoryKind::Unit, owned.key.clone()));
    paths.chain(packages).chain(units).collect()
}

/// The inventory, sorted by kind.
pub(super) fn inventory(record: &Record) -> Result<plan::Inventory, Failure> {
    let mut inventory = plan::Inventory::default();
    for entry in record.inventory()? {
        let Some(kind) = InventoryKind::of_word(&entry.kind) else {
            continue;
        };
        if !entry.made {
            inventory.unmade.insert((kind, entry.key.clone()));
        }
        match kind {
            InventoryKind::Path => inventory.paths.push(owned(entry)?),
            InventoryKind::Package => inventory.packages.push(owned(entry)?),
            InventoryKind::Unit => inventory.units.push(owned(entry)?),
        }
    }
    inventory.owed = record
        .owed()?
        .into_iter()
        .map(|owed| (owed.unit, owed.action, owed.because))
        .collect();
    Ok(inventory)
}

fn owned<O: serde::de::DeserializeOwned>(entry: InventoryEntry) -> Result<Owned<O>, Failure> {
    let original = serde_json::from_value(entry.original).map_err(|error| {
        Failure::new(
            Class::Host,
            format!(
                "the state database is damaged at the original of '{}': {error}",
                entry.key
            ),
        )
    })?;
    Ok(Owned {
        id: entry.resource,
        key: entry.key,
        original,
        on_removal: entry.on_removal,
        applied: entry.applied,
    })
}
