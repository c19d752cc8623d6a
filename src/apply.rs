//! Walking a plan: batch by batch, with one outcome for each step.
//!
//! Invariant: before the first change the restarts it will make necessary are on disk, and before each batch what was there is. What
//! depends on a failure is skipped; the rest goes on.
//!
//! A record that cannot be written (a full disk) stops what would be owned for the first time, because what was there before would be
//! forgotten. What is owned already is put right all the same, with the restarts that follow; only a crash in between would lose
//! one of those.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::ORIGINALS_DIRECTORY;
use crate::kinds::file::{Applied, Paths, save_original};
use crate::kinds::kind::{Contents, Kind};
use crate::kinds::package::Packages;
use crate::kinds::unit::Units;
use crate::model::{Action, Failure, OnRemoval, Outcome, Reason, ResourceId};
use crate::plan::{Change, Declaration, InventoryKind, Plan, Step};
use crate::record::{HistoryEntry, InventoryEntry, Owed, Record};
use crate::report::journal;
use crate::sys::{Host, clock};

/// How long a package transaction may be silent: its time limit and some.
pub const TRANSACTION_SILENCE: Duration = Duration::from_secs(35 * 60);

/// How long any other batch may be silent; starting units takes what their time-outs allow.
const BATCH_SILENCE: Duration = Duration::from_secs(10 * 60);

/// What is being done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activity {
    /// The source is asked for its tip.
    Polling,
    /// The machine is compared with the declaration.
    Looking,
    /// The machine is being changed.
    Applying(String),
}

impl std::fmt::Display for Activity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Activity::Polling => f.write_str("polling the source"),
            Activity::Looking => f.write_str("looking at the machine"),
            Activity::Applying(what) => f.write_str(what),
        }
    }
}

/// What a walk needs beside the plan.
pub struct Walk<'a> {
    /// The machine.
    pub host: &'a Host,
    /// Where declared contents come from.
    pub contents: &'a dyn Contents,
    /// What is declared, by what it owns.
    pub declarations: &'a BTreeMap<(InventoryKind, &'a str), Declaration>,
    /// What the inventory knows already.
    pub owned: &'a BTreeSet<(InventoryKind, String)>,
    /// The revision being applied, in hex.
    pub revision: &'a str,
    /// Told what is being done, and how long it may take.
    pub progress: &'a dyn Fn(&Activity, Duration),
}

impl std::fmt::Debug for Walk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk")
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// One step and what became of it.
#[derive(Debug)]
pub struct Done {
    /// Which resource.
    pub id: ResourceId,
    /// What was to be done.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// What became of it.
    pub outcome: Outcome,
}

/// What a walk did.
#[derive(Debug)]
pub struct Walked {
    /// Every step, and what became of it.
    pub done: Vec<Done>,
    /// Why the record does not have all of it.
    pub unrecorded: Option<Failure>,
}

/// Applies `plan`.
pub fn apply(walk: &Walk<'_>, record: &mut Record, plan: Plan) -> Walked {
    let mut unrecorded = Unrecorded(None);
    let mut failed: BTreeSet<ResourceId> = plan
        .blocked
        .iter()
        .filter_map(|failure| failure.resource.clone())
        .collect();
    let mut changed: BTreeSet<ResourceId> = BTreeSet::new();
    let mut results = Vec::new();

    let debts = debts(walk.revision, &plan);
    unrecorded.note(record.intend(walk.revision, &[], &debts, clock::now()));
    let released: Vec<(String, String)> = plan
        .released
        .iter()
        .map(|(kind, key)| (kind.as_str().to_owned(), key.clone()))
        .collect();
    unrecorded.note(record.conclude(walk.revision, &[], &released, &plan.void_debts, &[]));
    for batch in plan.batches {
        let mut steps = Vec::new();
        let mut skipped = Vec::new();
        let mut forgiven = Vec::new();
        for step in batch {
            let is_caused = step.is_owed || step.because.iter().any(|id| changed.contains(id));
            let blocker = step
                .blockers
                .iter()
                .find(|id| failed.contains(*id))
                .cloned();
            match blocker {
                // Nothing that would have caused it was changed after all: the debt that was written ahead is taken back.
                _ if step.reason == Reason::Triggered && !is_caused => {
                    forgiven.push((step.key, step.action))
                }
                Some(blocker) => skipped.push((step, Outcome::Skipped(blocker))),
                None => steps.push(step),
            }
        }
        if !forgiven.is_empty() {
            unrecorded.note(record.conclude(walk.revision, &[], &[], &forgiven, &[]));
        }
        if !skipped.is_empty() {
            failed.extend(skipped.iter().map(|(step, _)| step.id.clone()));
            let (steps, outcomes) = skipped.into_iter().unzip();
            results.extend(conclude(record, walk, steps, outcomes, &mut unrecorded));
        }
        if steps.is_empty() {
            continue;
        }
        announce(walk, &steps);
        let (steps, hopeless) = prepare(record, walk, steps, &mut unrecorded);
        if !hopeless.is_empty() {
            failed.extend(hopeless.iter().map(|(step, _)| step.id.clone()));
            let (steps, outcomes) = hopeless.into_iter().unzip();
            results.extend(conclude(record, walk, steps, outcomes, &mut unrecorded));
        }
        let outcomes = make(walk, &steps);
        for done in conclude(record, walk, steps, outcomes, &mut unrecorded) {
            match &done.outcome {
                Outcome::Done => changed.insert(done.id.clone()),
                _ => failed.insert(done.id.clone()),
            };
            results.push(done);
        }
    }
    Walked {
        done: results,
        unrecorded: unrecorded.0,
    }
}

/// The first failure to write the record.
struct Unrecorded(Option<Failure>);

impl Unrecorded {
    fn note(&mut self, written: Result<(), Failure>) {
        if let Err(failure) = written {
            self.0.get_or_insert(failure);
        }
    }
}

/// Every restart and reload of the plan; a unit that is started afresh owes one, too, should it run already by then.
fn debts(revision: &str, plan: &Plan) -> Vec<Owed> {
    let debt = |step: &Step| {
        let action = match step.action {
            Action::Reload => Action::Reload,
            Action::Restart | Action::Start => Action::Restart,
            _ => return None,
        };
        let because = step.because.first()?.clone();
        Some(Owed {
            unit: step.key.clone(),
            action,
            because,
            revision: revision.to_owned(),
        })
    };
    plan.steps().filter_map(debt).collect()
}

fn announce(walk: &Walk<'_>, steps: &[Step]) {
    let silence = match steps.first().map(|step| step.kind) {
        Some(InventoryKind::Package) => TRANSACTION_SILENCE,
        _ => BATCH_SILENCE,
    };
    let message = match steps {
        [step] => format!("{} {}", step.action, step.id),
        [first, .., last] => format!("{} steps, {} to {}", steps.len(), first.id, last.id),
        [] => return,
    };
    (walk.progress)(&Activity::Applying(message), silence);
}

/// Keeps what is there, then writes down that it is about to be ours. Returns the steps to make, and those whose original cannot be
/// kept, which are not made.
fn prepare(
    record: &mut Record,
    walk: &Walk<'_>,
    steps: Vec<Step>,
    unrecorded: &mut Unrecorded,
) -> (Vec<Step>, Vec<(Step, Outcome)>) {
    let mut prepared = Vec::with_capacity(steps.len());
    let mut new = Vec::new();
    let mut hopeless = Vec::new();
    for mut step in steps {
        if walk.owned.contains(&(step.kind, step.key.clone())) {
            prepared.push((step, false));
            continue;
        }
        if let Change::Path(change) = &step.change {
            // Now, not when it was planned: a package of the same run may have brought the file.
            match save_original(walk.host, &change.path, ORIGINALS_DIRECTORY) {
                Ok(original) => {
                    step.original =
                        serde_json::to_value(original).expect("an original is plain data")
                }
                Err(failure) => {
                    let failure = failure.about(step.id.clone());
                    hopeless.push((step, Outcome::Failed(failure)));
                    continue;
                }
            }
        }
        new.extend(entry(walk, &step, false));
        prepared.push((step, true));
    }
    let written = match new.is_empty() {
        true => Ok(()),
        false => record.intend(walk.revision, &new, &[], clock::now()),
    };
    let Err(failure) = written else {
        return (
            prepared.into_iter().map(|(step, _)| step).collect(),
            hopeless,
        );
    };
    let mut steps = Vec::new();
    for (step, is_new) in prepared {
        // What is never owned, such as a restart, has nothing to be forgotten.
        if is_new && entry(walk, &step, false).is_some() {
            let failure = failure.clone().about(step.id.clone());
            hopeless.push((step, Outcome::Failed(failure)));
        } else {
            steps.push(step);
        }
    }
    unrecorded.note(Err(failure));
    (steps, hopeless)
}

/// What the inventory says of a step, made or about to be; nothing for what is not owned afterwards, such as a restart.
fn entry(walk: &Walk<'_>, step: &Step, made: bool) -> Option<InventoryEntry> {
    let is_owned = match &step.change {
        Change::Path(change) => change.applied.is_some(),
        _ => !matches!(step.reason, Reason::Undeclared | Reason::Triggered),
    };
    let declaration = walk.declarations.get(&(step.kind, step.key.as_str()));
    is_owned.then(|| InventoryEntry {
        kind: step.kind.as_str().to_owned(),
        key: step.key.clone(),
        resource: declaration
            .map_or(&step.id, |declaration| &declaration.id)
            .clone(),
        on_removal: declaration.map_or(OnRemoval::Restore, |declaration| declaration.on_removal),
        applied: applied(walk, step),
        original: step.original.clone(),
        made,
    })
}

/// What a step leaves applied, in the kind's words.
fn applied(walk: &Walk<'_>, step: &Step) -> serde_json::Value {
    match &step.change {
        // A path may be owned without being declared: the parent of a declared one.
        Change::Path(change) => change
            .applied
            .as_ref()
            .map_or(serde_json::Value::Null, Applied::to_value),
        _ => {
            let declaration = walk.declarations.get(&(step.kind, step.key.as_str()));
            declaration.map_or(serde_json::Value::Null, |declaration| {
                declaration.applied.clone()
            })
        }
    }
}

/// Makes a batch; its steps are of one kind, because they share a rank.
fn make(walk: &Walk<'_>, steps: &[Step]) -> Vec<Outcome> {
    let mut paths = Vec::new();
    let mut packages = Vec::new();
    let mut units = Vec::new();
    for step in steps {
        match &step.change {
            Change::Path(change) => paths.push(change.as_ref().clone()),
            Change::Package(change) => packages.push(change.clone()),
            Change::Unit(change) => units.push(change.clone()),
        }
    }
    if !paths.is_empty() {
        Paths::apply(walk.host, walk.contents, &paths)
    } else if !packages.is_empty() {
        Packages::apply(walk.host, walk.contents, &packages)
    } else {
        Units::apply(walk.host, walk.contents, &units)
    }
}

/// Records and tells what became of a batch.
fn conclude(
    record: &mut Record,
    walk: &Walk<'_>,
    steps: Vec<Step>,
    outcomes: Vec<Outcome>,
    unrecorded: &mut Unrecorded,
) -> Vec<Done> {
    let now = clock::now();
    let mut owned = Vec::new();
    let mut released = Vec::new();
    let mut paid = Vec::new();
    let mut history = Vec::new();
    let mut done = Vec::new();
    for (step, outcome) in steps.into_iter().zip(outcomes) {
        let mut line = HistoryEntry::of_resource(
            now,
            walk.revision,
            &step.id,
            step.action,
            step.reason,
            step.is_drift,
        );
        match &outcome {
            Outcome::Done => {
                journal::changed(
                    walk.revision,
                    &step.id,
                    step.action,
                    step.reason,
                    &step.fields,
                    step.is_drift,
                );
                line.outcome = "done".to_owned();
                line.detail = step.fields.join(", ");
                // Packages and units are released when nothing of them is left to take back: the next plan says so.
                if matches!(&step.change, Change::Path(change) if change.applied.is_none()) {
                    released.push((step.kind.as_str().to_owned(), step.key.clone()));
                }
                owned.extend(entry(walk, &step, true));
                if matches!(
                    step.action,
                    Action::Restart | Action::Reload | Action::Start | Action::Stop
                ) {
                    paid.push((step.key.clone(), Action::Reload));
                    if step.action != Action::Reload {
                        paid.push((step.key.clone(), Action::Restart));
                    }
                }
            }
            Outcome::Failed(failure) => {
                line.outcome = "failed".to_owned();
                line.detail = failure.message.clone();
            }
            Outcome::Skipped(blocker) => {
                line.outcome = "skipped".to_owned();
                line.detail = format!("{blocker} failed");
            }
        }
        history.push(line);
        done.push(Done {
            id: step.id,
            action: step.action,
            reason: step.reason,
            outcome,
        });
    }
    unrecorded.note(record.conclude(walk.revision, &owned, &released, &paid, &history));
    done
}
