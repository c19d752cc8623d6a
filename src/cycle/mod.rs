//! One reconciliation, told top to bottom: poll, judge, render, observe, plan, apply, look again.
//!
//! A *cycle* begins with a trigger and ends with a status. The *revision in force* is the last one that was verified and rendered;
//! it is enforced in every cycle, whatever becomes of the poll.
//!
//! Invariant: enforcement needs neither the fetcher nor the network. A cycle that finds nothing to do writes nothing, runs no program
//! and logs nothing above debug.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tracing::{debug, warn};

use crate::apply::{self, Done, Walk};
use crate::config::{self, ApplyMode, Config};
use crate::fetch::client::Upstream;
use crate::fleet::{self, desired::DesiredState};
use crate::git::{Hashed, ObjectId, Objects, Tree};
use crate::kinds::file::{Paths, save_original};
use crate::kinds::kind::{Kind, Owned};
use crate::kinds::package::Packages;
use crate::kinds::unit::Units;
use crate::model::{Class, Failure, Outcome, ResourceId};
use crate::plan::{self, InventoryKind, Observed, Plan, Rules, Step};
use crate::record::objects::{ObjectStore, ReadThrough};
use crate::record::{InventoryEntry, Record};
use crate::report::journal::{self, short};
use crate::report::preview::{Preview, PreviewChange, PreviewHeld};
use crate::report::status::{Counts, Drift, OwedEffect, Poll, State as HostState, Status, StatusError};
use crate::sys::{Host, clock};
use crate::trust::{self, Policy, TrustedHead, Verdict, VerifiedRevision};

pub mod contents;
pub mod judge;
pub mod situation;
pub mod state;

use contents::StoredContents;
use situation::{Beginnings, Situation};

/// How long the poll may be silent: the fetcher's own limit and some.
const POLL_SILENCE: Duration = Duration::from_secs(12 * 60);

/// How long a resource that failed rests before it is tried again; doubled with every failure.
const FIRST_REST: SignedDuration = SignedDuration::from_secs(60);

/// The longest rest.
const LONGEST_REST: SignedDuration = SignedDuration::from_hours(1);

/// Why a cycle runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The agent started: the revision in force is enforced before anything is polled.
    Start,
    /// The interval passed.
    Tick,
    /// An operator asked.
    Nudge {
        /// Let a plan with too many removals through, this once.
        allow_removals: bool,
    },
}

impl Trigger {
    /// Did a person ask for it.
    pub fn is_nudge(self) -> bool {
        matches!(self, Trigger::Nudge { .. })
    }
}

/// Makes a connection to the fetcher.
pub type Connect = Box<dyn Fn() -> Result<Box<dyn Upstream>, Failure> + Send>;

/// Told what is being done, and how long it may take.
pub type Progress<'a> = &'a dyn Fn(&str, Duration);

/// Everything one cycle hands to the next.
pub struct Cycle {
    host: Host,
    config: Config,
    connect: Connect,
    record: Record,
    objects: ObjectStore,
    head: Option<TrustedHead>,
    in_force: Option<InForce>,
    situation: Situation,
    beginnings: Beginnings,
    /// The last tip that was judged; it is judged once.
    judged: Option<ObjectId>,
    resting: BTreeMap<ResourceId, Rest>,
    last_status: Option<Status>,
}

impl std::fmt::Debug for Cycle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cycle").field("situation", &self.situation).finish_non_exhaustive()
    }
}

/// The revision that is enforced.
#[derive(Debug)]
struct InForce {
    /// In hex; `unverified` for what local root applied without signatures.
    revision: String,
    subject: String,
    signer: Option<String>,
    /// What its message allows to be removed.
    allowed_removals: Option<usize>,
    desired: DesiredState,
}

/// A resource that failed and is not tried again yet.
#[derive(Debug)]
struct Rest {
    failure: Failure,
    attempts: u32,
    until: Timestamp,
}

impl Cycle {
    /// Opens the state of `host` and loads the revision in force; `connect` reaches the fetcher.
    pub fn open(host: Host, config: Config, connect: Connect) -> Result<Self, Failure> {
        let state = state::open(&host)?;
        let mut cycle = Cycle {
            beginnings: state.record.recall("beginnings")?.unwrap_or_default(),
            situation: Situation { state_missing: state.missing, ..Situation::default() },
            host,
            config,
            connect,
            record: state.record,
            objects: state.objects,
            head: state.head,
            in_force: None,
            judged: None,
            resting: BTreeMap::new(),
            last_status: None,
        };
        cycle.restore();
        Ok(cycle)
    }

    /// How often to poll.
    pub fn interval(&self) -> Duration {
        self.config.source.interval
    }

    /// Uses another host configuration from now on.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
        self.judged = None;
        self.restore();
    }

    /// Runs one cycle.
    pub fn run(&mut self, trigger: Trigger, progress: Progress<'_>) -> Status {
        if trigger != Trigger::Start || self.head.is_none() {
            if trigger.is_nudge() {
                self.judged = None;
                self.resting.clear();
            }
            progress("polling the source", POLL_SILENCE);
            self.poll();
        }
        if trigger == Trigger::Start {
            self.adopt_transactions(progress);
        }
        if let Some(in_force) = self.in_force.take() {
            let allow_removals = matches!(trigger, Trigger::Nudge { allow_removals: true });
            if let Err(failure) = self.enforce(&in_force, allow_removals, progress) {
                self.situation.failures = vec![failure];
            }
            self.in_force = Some(in_force);
        }
        self.report()
    }

    /// The status as it is now.
    pub fn status(&mut self) -> Status {
        let now = clock::now();
        self.situation.status(&self.config.host.name, &mut self.beginnings, None, now)
    }

    /// Loads the trusted head from what is stored here, so that it is enforced without the fetcher.
    fn restore(&mut self) {
        let Some(head) = self.head.clone() else { return };
        let restored = judge::read_policy(&self.host, &self.config).and_then(|policy| {
            let revision = trust::resume(&self.objects, &policy, &head).map_err(Failure::from)?;
            self.render(&revision, &self.objects).map(|desired| (revision, desired)).map_err(first)
        });
        match restored {
            Ok((revision, desired)) => self.put_in_force(&revision, desired),
            Err(failure) => {
                debug!("failed to load the revision in force: {failure}");
                self.situation.failures = vec![failure];
            }
        }
    }

    fn put_in_force(&mut self, revision: &VerifiedRevision, desired: DesiredState) {
        self.situation.digest = Some(desired.digest.clone());
        self.in_force = Some(InForce {
            revision: revision.commit().to_string(),
            subject: revision.subject().to_owned(),
            signer: revision.signer().map(ToString::to_string),
            allowed_removals: allowed_removals(revision),
            desired,
        });
    }

    /// Takes over what an agent before us started and did not see the end of.
    fn adopt_transactions(&mut self, progress: Progress<'_>) {
        let found = match self.host.find_transactions() {
            Ok(found) => found,
            Err(failure) => return debug!("failed to look for running package transactions: {failure}"),
        };
        for unit in found {
            progress(&format!("waiting for {unit}"), Duration::from_secs(35 * 60));
            match self.host.adopt(&unit) {
                Ok(result) if result.is_success() => tracing::info!("adopted {unit}: it succeeded"),
                Ok(result) => warn!("adopted {unit}: {}", result.complaint()),
                Err(failure) => warn!("failed to adopt {unit}: {failure}"),
            }
        }
    }

    /// Makes the host as the revision in force declares, and looks again.
    fn enforce(&mut self, in_force: &InForce, allow_removals: bool, progress: Progress<'_>) -> Result<(), Failure> {
        let is_new = self.situation.revision.as_deref() != Some(in_force.revision.as_str());
        let plan = self.plan(in_force, allow_removals)?;
        let looked = Looked::at(&plan);
        let mut failures = plan.blocked.clone();
        let done = if plan.batches.is_empty() {
            Vec::new()
        } else {
            self.situation.is_applying = true;
            self.apply(in_force, plan, progress)?
        };
        self.situation.is_applying = false;
        let made = done.iter().filter(|done| done.outcome == Outcome::Done).count();
        failures.extend(failures_of(&done));
        let looked = if made > 0 { self.look_again(in_force, allow_removals, &mut failures)? } else { looked };
        self.settle(in_force, is_new)?;
        self.rest(&done, clock::now());
        self.conclude(in_force, looked, failures, is_new, made)
    }

    fn plan(&mut self, in_force: &InForce, allow_removals: bool) -> Result<Plan, Failure> {
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
                false => Some(in_force.allowed_removals.unwrap_or(0).max(self.config.apply.max_removals)),
            },
            keep_everything: self.situation.state_missing.is_some(),
            resting,
        };
        Ok(plan::plan(&in_force.desired, &observed, &inventory, &rules))
    }

    fn apply(&mut self, in_force: &InForce, plan: Plan, progress: Progress<'_>) -> Result<Vec<Done>, Failure> {
        let contents = StoredContents { host: &self.host, objects: &self.objects };
        let declarations = plan::declarations(&in_force.desired);
        let owned = owned_keys(&self.record)?;
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

    /// Plans again after an apply: nothing may be left to do but what failed. What is, does not converge.
    fn look_again(
        &mut self,
        in_force: &InForce,
        allow_removals: bool,
        failures: &mut Vec<Failure>,
    ) -> Result<Looked, Failure> {
        let plan = self.plan(in_force, allow_removals)?;
        for step in plan.steps() {
            if failures.iter().any(|failure| failure.resource.as_ref() == Some(&step.id)) {
                continue;
            }
            let failure = Failure::new(
                Class::Author,
                format!("{} is non-converging: after it was applied, its {} still differs", step.id, fields(step)),
            )
            .with_hint("something else changes it back, or two declarations contradict each other");
            failures.push(failure.about(step.id.clone()));
        }
        for failure in &plan.blocked {
            if !failures.iter().any(|known| known.resource == failure.resource) {
                failures.push(failure.clone());
            }
        }
        Ok(Looked::at(&plan))
    }

    /// Brings the inventory up to date with what is declared and already so.
    fn settle(&mut self, in_force: &InForce, is_new: bool) -> Result<(), Failure> {
        if !is_new || self.config.apply.mode == ApplyMode::Report {
            return Ok(());
        }
        let inventory = inventory(&self.record)?;
        let observed = observe(&self.host, &in_force.desired, &inventory);
        let entries = self.record.inventory()?;
        let known = crate::record::by_key(&entries);
        let mut owned = Vec::new();
        for ((kind, key), declaration) in plan::declarations(&in_force.desired) {
            let is_owned = known.contains_key(&(kind.as_str(), key));
            let original = match kind {
                _ if is_owned => serde_json::Value::Null,
                InventoryKind::Path => plain(save_original(&self.host, key, config::ORIGINALS_DIRECTORY)?),
                InventoryKind::Package => plain(observed.packages.original(key)),
                InventoryKind::Unit => plain(observed.units.original(key)),
            };
            let entry = InventoryEntry {
                kind: kind.as_str().to_owned(),
                key: key.to_owned(),
                resource: declaration.id,
                on_removal: declaration.on_removal,
                applied: declaration.applied,
                original,
            };
            let is_known = known.get(&(kind.as_str(), key)).is_some_and(|known| {
                known.applied == entry.applied && known.resource == entry.resource && known.on_removal == entry.on_removal
            });
            if !is_known {
                owned.push(entry);
            }
        }
        if owned.is_empty() { Ok(()) } else { self.record.conclude(&in_force.revision, &owned, &[], &[], &[]) }
    }

    /// Lets what failed rest, longer every time.
    fn rest(&mut self, done: &[Done], now: Timestamp) {
        for done in done {
            match &done.outcome {
                Outcome::Failed(failure) => {
                    let attempts = self.resting.get(&done.id).map_or(0, |rest| rest.attempts) + 1;
                    let rest = FIRST_REST.saturating_mul(1 << attempts.min(10).saturating_sub(1)).min(LONGEST_REST);
                    let failure = failure.clone().about(done.id.clone());
                    let until = now.checked_add(rest).unwrap_or(now);
                    self.resting.insert(done.id.clone(), Rest { failure, attempts, until });
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
        for failure in failures.iter().filter(|failure| !self.situation.failures.contains(failure)) {
            if let Some(resource) = &failure.resource {
                journal::resource_failed(&in_force.revision, resource, None, failure);
            }
        }
        let total = in_force.desired.resource_count();
        let failed: BTreeSet<&ResourceId> =
            failures.iter().filter_map(|failure| failure.resource.as_ref()).collect();
        self.situation.resources = Counts {
            total,
            failed: failed.len(),
            converged: total.saturating_sub(failed.len() + looked.drift.len() + looked.open),
        };
        let owed = self.record.owed()?;
        self.situation.owed = owed
            .into_iter()
            .map(|owed| OwedEffect {
                resource: ResourceId::new(crate::model::Kind::Unit, owed.unit),
                because: owed.because,
            })
            .collect();
        self.situation.drift = looked.drift;
        self.situation.held = looked.held.into_iter().collect();
        self.situation.reboot_required = self.host.exists("/run/reboot-required")?;
        let is_clean = failures.is_empty() && self.situation.held.is_empty();
        self.situation.failures = failures;
        if is_new && self.situation.held.is_empty() && self.config.apply.mode == ApplyMode::Enforce {
            let now = clock::now();
            self.situation.revision = Some(in_force.revision.clone());
            self.situation.subject = Some(in_force.subject.clone());
            self.situation.signer = in_force.signer.clone();
            self.situation.applied_at = Some(now);
            let applied: Option<(String, Timestamp)> = self.record.recall("applied")?;
            match applied.filter(|(revision, _)| *revision == in_force.revision) {
                Some((_, at)) => self.situation.applied_at = Some(at),
                None => {
                    self.record.remember("applied", &(&in_force.revision, now))?;
                    if is_clean {
                        let signer = in_force.signer.as_deref().unwrap_or("nobody");
                        journal::revision_applied(&in_force.revision, signer, &in_force.subject, made);
                    }
                }
            }
        }
        Ok(())
    }

    /// The status after a cycle; what changed about it is logged and recorded.
    fn report(&mut self) -> Status {
        let status = self.status();
        let was = self.last_status.as_ref();
        let is_ill = |state: HostState| matches!(state, HostState::Degraded | HostState::Held);
        let revision = status.revision.as_deref().unwrap_or("");
        let changed_errors = was.is_none_or(|was| was.errors != status.errors);
        if is_ill(status.state) && changed_errors {
            if let Some(condition) = status.conditions.first() {
                journal::degraded(revision, &condition.reason, &condition.who);
            }
        } else if status.state == HostState::Converged && was.is_some_and(|was| is_ill(was.state) || was.state == HostState::Refused) {
            journal::recovered(revision);
        }
        let is_same = was.is_some_and(|was| Status { last_poll: None, ..was.clone() } == Status { last_poll: None, ..status.clone() });
        if !is_same {
            let kept = self.record.remember("status", &status).and_then(|()| self.record.remember("beginnings", &self.beginnings));
            if let Err(failure) = kept {
                warn!("failed to record the status, ignoring: {failure}");
            }
        }
        self.last_status = Some(status.clone());
        status
    }

    /// What would change now.
    pub fn preview(&mut self) -> Preview {
        let mut preview = Preview {
            revision: None,
            host: self.config.host.name.clone(),
            digest: None,
            changes: Vec::new(),
            held: Vec::new(),
            errors: self.situation.mistakes.iter().map(StatusError::from).collect(),
            conditions: self.status().conditions,
        };
        let Some(in_force) = self.in_force.take() else { return preview };
        preview.revision = Some(in_force.revision.clone());
        preview.digest = Some(in_force.desired.digest.clone());
        match self.plan(&in_force, false) {
            Ok(plan) => {
                let contents = StoredContents { host: &self.host, objects: &self.objects };
                let change = |step: &Step, report: bool| PreviewChange {
                    resource: step.id.clone(),
                    action: step.action,
                    reason: step.reason,
                    fields: step.fields.clone(),
                    diff: match &step.change {
                        plan::Change::Path(change) => crate::kinds::file::diff(&self.host, &contents, change),
                        _ => None,
                    },
                    report,
                };
                preview.changes.extend(plan.steps().map(|step| change(step, false)));
                preview.changes.extend(plan.reported.iter().map(|step| change(step, true)));
                let because = plan.held_because.as_ref().map(|failure| failure.message.clone()).unwrap_or_default();
                preview.held.extend(plan.held.iter().map(|step| PreviewHeld {
                    resource: step.id.clone(),
                    action: step.action,
                    reason: because.clone(),
                }));
                preview.errors.extend(plan.blocked.iter().map(StatusError::from));
            }
            Err(failure) => preview.errors.push(StatusError::from(&failure)),
        }
        self.in_force = Some(in_force);
        preview
    }

    /// Puts what `tree` declares in force without asking who signed it. Only for a local path, and only on local root's word.
    pub fn force_unverified(&mut self, tree: &dyn Tree) -> Result<(), Vec<Failure>> {
        let desired = self.render_tree(tree)?;
        self.situation.digest = Some(desired.digest.clone());
        self.in_force = Some(InForce {
            revision: "unverified".to_owned(),
            subject: String::new(),
            signer: None,
            allowed_removals: None,
            desired,
        });
        Ok(())
    }
}

/// What a plan leaves to say once its batches are made.
#[derive(Debug)]
struct Looked {
    drift: Vec<Drift>,
    held: Option<Failure>,
    /// Resources of held steps.
    open: usize,
}

impl Looked {
    fn at(plan: &Plan) -> Self {
        let drift = plan
            .reported
            .iter()
            .map(|step| Drift { resource: step.id.clone(), reason: step.reason, fields: step.fields.clone() })
            .collect();
        Looked { drift, held: plan.held_because.clone(), open: plan.held.len() }
    }
}

fn fields(step: &Step) -> String {
    if step.fields.is_empty() { step.action.to_string() } else { step.fields.join(", ") }
}

fn failures_of(done: &[Done]) -> Vec<Failure> {
    done.iter()
        .filter_map(|done| match &done.outcome {
            Outcome::Done => None,
            Outcome::Failed(failure) => Some(failure.clone().about(done.id.clone())),
            Outcome::Skipped(blocker) if *blocker == done.id => None,
            Outcome::Skipped(blocker) => Some(
                Failure::new(Class::Host, format!("skipped {} {}, because {blocker} failed", done.action, done.id))
                    .about(done.id.clone()),
            ),
        })
        .collect()
}

fn first(failures: Vec<Failure>) -> Failure {
    failures.into_iter().next().unwrap_or_else(|| Failure::new(Class::Bug, "a failure without a cause"))
}

/// What the message of `revision` allows to be removed, beyond what the host does.
fn allowed_removals(revision: &VerifiedRevision) -> Option<usize> {
    let allowed = revision.trailers().iter().filter(|(key, _)| key.eq_ignore_ascii_case("Limpet-Allow-Removals"));
    allowed.filter_map(|(_, value)| value.trim().parse().ok()).max()
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
fn owned_keys(record: &Record) -> Result<BTreeSet<(InventoryKind, String)>, Failure> {
    let kind = |word: &str| [InventoryKind::Path, InventoryKind::Package, InventoryKind::Unit].into_iter().find(|kind| kind.as_str() == word);
    Ok(record.inventory()?.into_iter().filter_map(|entry| Some((kind(&entry.kind)?, entry.key))).collect())
}

/// The inventory, sorted by kind.
fn inventory(record: &Record) -> Result<plan::Inventory, Failure> {
    let mut inventory = plan::Inventory::default();
    for entry in record.inventory()? {
        match entry.kind.as_str() {
            "path" => inventory.paths.push(owned(entry)?),
            "package" => inventory.packages.push(owned(entry)?),
            _ => inventory.units.push(owned(entry)?),
        }
    }
    inventory.owed = record.owed()?.into_iter().map(|owed| (owed.unit, owed.action, owed.because)).collect();
    Ok(inventory)
}

fn owned<O: serde::de::DeserializeOwned>(entry: InventoryEntry) -> Result<Owned<O>, Failure> {
    let original = serde_json::from_value(entry.original).map_err(|error| {
        Failure::new(Class::Host, format!("the state database is damaged at the original of '{}': {error}", entry.key))
    })?;
    Ok(Owned { id: entry.resource, key: entry.key, original, on_removal: entry.on_removal, applied: entry.applied })
}

