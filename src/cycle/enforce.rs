//! Making the host as the revision in force declares: observe, plan, apply, look again, remember.
//!
//! Invariant: an apply is followed by another look, and what still differs is a failure. No unhealthy apply ends in a state called
//! converged.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

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
use crate::record::{InventoryEntry, Record};
use crate::report::journal;
use crate::report::status::{Counts, Drift, OwedEffect};
use crate::sys::{Host, clock};

/// How long a resource that failed rests before it is tried again; doubled with every failure.
const FIRST_REST: Duration = Duration::from_secs(60);

/// How often a cycle plans again; what still brings something new then goes on in the next one.
const MAX_PASSES: usize = 5;

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(60 * 60);

/// The longest rest of what costs little to try, or is known to pass: the host is to be well soon after the trouble is over.
const LONGEST_LIGHT_REST: Duration = Duration::from_secs(5 * 60);

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
            let is_news = |step: &Step| !is_trigger(step) && !was_tried(step);
            let has_news = plan.steps().any(is_news)
                || !plan.released.is_empty()
                || !plan.void_debts.is_empty();
            if !has_news || passes == MAX_PASSES {
                break plan;
            }
            passes += 1;
            plan.retain(|step| is_trigger(step) || !was_tried(step));
            tried.extend(
                plan.steps()
                    .map(|step| (step.kind, step.key.clone(), step.action)),
            );
            let intended = self.intend_units(in_force, &observed, &inventory);
            self.note_unwritten(intended);
            let applied = self.apply(in_force, plan, &inventory, progress);
            self.rest(&applied, clock::instant());
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
            open.extend(failed);
            let settled = self.settle(in_force, &open);
            self.note_unwritten(settled);
        }
        failures.extend(self.unwritable.clone());
        self.conclude(in_force, Looked::at(&last), failures, is_new, made)
    }

    pub(super) fn plan(
        &mut self,
        in_force: &InForce,
        allow_removals: bool,
    ) -> Result<Planned, Failure> {
        let inventory = inventory(&self.record)?;
        let observed = observe(&self.host, &in_force.desired, &inventory);
        let now = clock::instant();
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
        let new = in_force
            .desired
            .units
            .iter()
            .filter(|unit| !unit.report && !known.contains(unit.name.as_str()));
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
    ) -> Vec<Done> {
        let contents = StoredContents::new(&self.host, &self.objects);
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
        let walked = apply::apply(&walk, &mut self.record, plan);
        if contents.has_lost() {
            // The revision is read again from the source, which fills the store.
            self.must_load = true;
        }
        self.note_unwritten(walked.unrecorded.map_or(Ok(()), Err));
        walked.done
    }

    /// Remembers that the record could not be written, until it can.
    pub(super) fn note_unwritten(&mut self, written: Result<(), Failure>) {
        if let Err(failure) = written {
            self.unwritable.get_or_insert(failure);
        }
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
    fn rest(&mut self, done: &[Done], now: Instant) {
        for done in done {
            match &done.outcome {
                Outcome::Failed(failure) => {
                    let attempts = self.resting.get(&done.id).map_or(0, |rest| rest.attempts) + 1;
                    let rest = FIRST_REST
                        .saturating_mul(1 << attempts.min(10).saturating_sub(1))
                        .min(longest_rest(&done.id, failure));
                    let failure = failure.clone().about(done.id.clone());
                    let until = now + rest;
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
        let is_enforcing =
            self.situation.held.is_empty() && self.config.apply.mode == ApplyMode::Enforce;
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
            let remembered = self.record.remember(APPLIED, &applied);
            self.note_unwritten(remembered);
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
        model::Kind::Package | model::Kind::Unit => failure.class == Class::Transient,
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
fn observe(host: &Host, desired: &DesiredState, inventory: &plan::Inventory) -> Observed {
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
fn inventory(record: &Record) -> Result<plan::Inventory, Failure> {
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
