//! Walking a plan: batch by batch, with one outcome for each step.
//!
//! Invariant: before the first change the restarts it will make necessary are on disk, and before each batch what was there is. What
//! depends on a failure is skipped; the rest goes on.
//!
//! A record that cannot be written (a full disk) stops what would be owned for the first time, because what was there before would be
//! forgotten. What is owned already is put right all the same, with the restarts that follow; only a crash in between would lose
//! one of those.
#![doc = include_str!("apply/crash.md")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::ORIGINALS_DIRECTORY;
use crate::kinds::account::{AccountChange, Accounts};
use crate::kinds::command::{CommandChange, Commands};
use crate::kinds::file::{PathChange, Paths, Walks, read_original, save_original};
use crate::kinds::kind::{Contents, Kind};
use crate::kinds::package::{PackageChange, Packages};
use crate::kinds::repository::{self, RefreshChange};
use crate::kinds::sysctl::{self, SysctlChange, Sysctls};
use crate::kinds::unit::{UnitChange, Units};
use crate::model::{self, Action, Failure, Name, Outcome, Reason, ResourceId};
use crate::plan::{Change, Declarations, InventoryKind, Plan, Step};
use crate::record::{HistoryEntry, Owed, Record, Rejection, Writing};
use crate::report::journal;
use crate::sys::files::above;
use crate::sys::{Host, clock};

mod activity;
mod diffs;
mod owned;
mod repair;
mod validation;
mod withholding;

pub use activity::Activity;
use activity::announce;
use diffs::Diffs;
use owned::{entry, is_owned_after, record_left, record_made};
use repair::repair_packages;
pub use validation::undo;
use validation::{Readers, judge, keep, rejected_among};
pub use withholding::owe_what_was_withheld;

/// How long a package transaction may be silent: its time limit and some.
pub const TRANSACTION_SILENCE: Duration = Duration::from_secs(35 * 60);

/// How many paths of a batch are made in one go: each takes memory from its preparation to its end, and each go costs two barriers.
const MOST_PATHS_AT_ONCE: usize = 2000;

/// What a walk needs beside the plan.
pub struct Walk<'a> {
    /// The machine.
    pub host: &'a Host,
    /// Where declared contents come from.
    pub contents: &'a dyn Contents,
    /// What is declared, and what the inventory knows already.
    pub declarations: &'a Declarations<'a>,
    /// The revision being applied, in hex.
    pub revision: &'a str,
    /// The digest of what it declares here.
    pub digest: &'a str,
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

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Walked {
    /// The resources of the steps that were made, one for each step.
    pub made: Vec<ResourceId>,
    /// Those among them that had drifted.
    pub corrected: BTreeSet<ResourceId>,
    /// Units that did not accept what was declared.
    pub rejected: BTreeMap<ResourceId, Rejection>,
    /// The steps that were not.
    pub not_made: Vec<NotMade>,
    /// Why the record does not have all of it.
    pub unrecorded: Option<Failure>,
}

impl Walked {
    /// How the package called `name` failed, if it did.
    pub fn failure_of(&self, name: &str) -> Option<&Failure> {
        self.not_made.iter().find_map(|not_made| {
            let is_it = not_made.id.kind == model::Kind::Package && not_made.id.name == name;
            match &not_made.cause {
                Cause::Failed(failure) if is_it => Some(failure),
                _ => None,
            }
        })
    }

    /// Keeps the first failure to write the record.
    pub fn note(&mut self, written: Result<(), Failure>) {
        if let Err(failure) = written {
            self.unrecorded.get_or_insert(failure);
        }
    }
}

/// One step that was not made.
#[derive(Debug)]
pub struct NotMade {
    /// Which resource.
    pub id: ResourceId,
    /// What was to be done.
    pub action: Action,
    /// Why it was not.
    pub cause: Cause,
}

/// Why a step was not made.
#[derive(Debug)]
pub enum Cause {
    /// It failed.
    Failed(Failure),
    /// It was not tried, because this resource failed.
    Skipped(ResourceId),
}

/// A step on its way.
struct Prepared {
    step: Step,
    /// The inventory did not know it, and was told of it just now.
    is_new: bool,
}

/// Applies `plan`.
pub fn apply(walk: &Walk<'_>, record: &mut Record, plan: Plan) -> Walked {
    let mut failed: BTreeSet<ResourceId> = plan
        .blocked
        .iter()
        .filter_map(|failure| failure.resource.clone())
        .collect();
    // Of what is changed only what something waits for is remembered.
    let causes: BTreeSet<ResourceId> = plan
        .steps()
        .flat_map(|step| &step.because)
        .cloned()
        .collect();
    let mut changed: BTreeSet<ResourceId> = BTreeSet::new();
    let mut walked = Walked::default();
    let mut diffs = Diffs::default();

    walked.note(write_ahead(record, walk, &plan));
    let readers = Readers::of(&plan);
    let paused = plan.paused;
    // Paths that were not made; what lies below them has no place.
    let mut broken: BTreeMap<Name, ResourceId> = BTreeMap::new();
    let mut rest = plan.batches.into_iter().map(Vec::into_iter);
    let mut batch = rest.next();
    while let Some(steps_left) = &mut batch {
        let limit = match steps_left.as_slice().first().map(|step| step.kind) {
            None => {
                batch = rest.next();
                continue;
            }
            Some(InventoryKind::Path) => MOST_PATHS_AT_ONCE,
            Some(_) => usize::MAX,
        };
        let mut steps = Vec::new();
        let mut skipped = Vec::new();
        let mut forgiven = Vec::new();
        for step in steps_left.by_ref().take(limit) {
            let is_caused = step.is_owed || step.because.iter().any(|id| changed.contains(id));
            let blocker = step
                .blockers
                .iter()
                .find(|id| failed.contains(*id))
                .or_else(|| broken_above(&broken, &step))
                .cloned();
            match blocker {
                // Nothing that would have caused it was changed after all: the debt that was written ahead is taken back.
                _ if step.reason == Reason::Triggered && !is_caused => {
                    forgiven.push((step.id, step.action))
                }
                // It stays owed until the pause ends, or somebody makes it.
                _ if step.waits => {}
                _ if step.reason == Reason::Triggered && paused.contains(&step.id) => {}
                Some(blocker) => skipped.push((step, Outcome::Skipped(blocker))),
                None => steps.push(step),
            }
        }
        if !forgiven.is_empty() {
            walked.note(record.conclude(walk.revision, &[], &[], &forgiven, &[]));
        }
        if !skipped.is_empty() {
            failed.extend(skipped.iter().map(|(step, _)| step.id.clone()));
            let (steps, outcomes) = skipped
                .into_iter()
                .map(|(step, outcome)| (known(step), outcome))
                .unzip();
            conclude(record, walk, &mut diffs, steps, outcomes, &mut walked);
        }
        if steps.is_empty() {
            continue;
        }
        announce(walk, &steps);
        let steps = prepare(record, walk, &readers, steps, &mut failed, &mut walked);
        diffs.take(
            walk.host,
            walk.contents,
            steps.iter().map(|known| &known.step),
        );
        let outcomes = match withholding::begin(walk, &steps) {
            Ok(()) => {
                repair_packages(record, walk, &steps, &mut walked);
                make(record, walk, &steps, &mut walked)
            }
            Err(failure) => vec![Outcome::Failed(failure); steps.len()],
        };
        withholding::end(record, walk, &steps, &mut walked);
        let rejected = rejected_among(&steps, &walked);
        for (prepared, outcome) in steps.iter().zip(&outcomes) {
            let id = &prepared.step.id;
            match outcome {
                Outcome::Done if causes.contains(id) => changed.insert(id.clone()),
                Outcome::Done | Outcome::Left(_) => false,
                Outcome::Failed(_) | Outcome::Skipped(_) => {
                    if prepared.step.kind == InventoryKind::Path {
                        broken.insert(prepared.step.key.clone(), id.clone());
                    }
                    failed.insert(id.clone())
                }
            };
        }
        conclude(record, walk, &mut diffs, steps, outcomes, &mut walked);
        for (unit, rejection) in rejected {
            undo(walk, record, &unit, &rejection, &mut walked);
        }
    }
    walked.note(record.settle_debts(clock::since_boot()));
    walked
}

/// The resource to blame where `step` is about a path below one that was not made.
fn broken_above<'a>(broken: &'a BTreeMap<Name, ResourceId>, step: &Step) -> Option<&'a ResourceId> {
    if broken.is_empty() || step.kind != InventoryKind::Path {
        return None;
    }
    above(&step.key).find_map(|path| broken.get(path))
}

fn known(step: Step) -> Prepared {
    Prepared {
        step,
        is_new: false,
    }
}

/// Writes down what will be owed, what is owned no longer, and which debts are void.
fn write_ahead(record: &mut Record, walk: &Walk<'_>, plan: &Plan) -> Result<(), Failure> {
    let writing = record.write(walk.revision)?;
    let now = clock::now();
    for debt in debts(walk.revision, plan) {
        writing.owe(&debt, now)?;
    }
    for (kind, key) in &plan.released {
        writing.release(kind.as_str(), key)?;
    }
    for (debtor, action) in &plan.void_debts {
        writing.pay(debtor, *action);
    }
    writing.commit()
}

/// Every effect of the plan that a change of it causes; a unit that is started afresh owes a restart, too, should it run already by
/// then.
fn debts(revision: &str, plan: &Plan) -> Vec<Owed> {
    let debt = |step: &Step| {
        let because = step.because.first()?.clone();
        Some(Owed {
            debtor: step.id.clone(),
            action: owed_action(step)?,
            because,
            revision: revision.to_owned(),
            caused: None,
        })
    };
    plan.steps().filter_map(debt).collect()
}

/// What is owed until the step is made.
fn owed_action(step: &Step) -> Option<Action> {
    match step.action {
        Action::Start => Some(Action::Restart),
        action @ (Action::Restart | Action::Reload | Action::DaemonReload) => Some(action),
        Action::Run if step.reason == Reason::Triggered => Some(Action::Run),
        _ => None,
    }
}

/// Keeps what is there, then writes down that it is about to be ours. Returns the steps to make, and those whose original cannot be
/// kept, which are not made.
fn prepare(
    record: &mut Record,
    walk: &Walk<'_>,
    readers: &Readers,
    steps: Vec<Step>,
    failed: &mut BTreeSet<ResourceId>,
    walked: &mut Walked,
) -> Vec<Prepared> {
    let mut prepared = Vec::with_capacity(steps.len());
    let mut hopeless = Vec::new();
    let mut ways = Walks::new(walk.host);
    for mut step in steps {
        let is_new = !walk.declarations.is_owned(step.kind, &step.key);
        if is_new && let Change::Path(change) = &step.change {
            // Now, not when it was planned: a package of the same run may have brought the file.
            let way = ways.of(change.as_user.as_ref());
            let original = way.and_then(|way| match change.is_secret && !change.edit.writes() {
                // What is there is the secret already: no copy of that.
                true => Ok(read_original(way, &change.path)?.0.without_content()),
                false => save_original(walk.host, way, &change.path, ORIGINALS_DIRECTORY),
            });
            match original {
                Ok(original) => {
                    step.original =
                        serde_json::to_string(&original).expect("an original is plain data")
                }
                Err(failure) => {
                    let failure = failure.about(step.id.clone());
                    hopeless.push((known(step), Outcome::Failed(failure)));
                    continue;
                }
            }
        }
        if is_new && let Change::Sysctl(change) = &step.change {
            match sysctl::read_original(walk.host, change) {
                Ok(original) => {
                    step.original =
                        serde_json::to_string(&original).expect("an original is plain data")
                }
                Err(failure) => {
                    let failure = failure.about(step.id.clone());
                    hopeless.push((known(step), Outcome::Failed(failure)));
                    continue;
                }
            }
        }
        prepared.push(Prepared { step, is_new });
    }
    let (mut prepared, lost) = keep(record, walk, readers, prepared);
    hopeless.extend(lost);
    if let Err(failure) = write_new(record, walk, &prepared) {
        // What is never owned, such as a restart, has nothing to be forgotten.
        let (lost, others): (Vec<_>, Vec<_>) = prepared
            .into_iter()
            .partition(|prepared| prepared.is_new && is_owned_after(&prepared.step));
        prepared = others;
        hopeless.extend(lost.into_iter().map(|lost| {
            let failure = failure.clone().about(lost.step.id.clone());
            (lost, Outcome::Failed(failure))
        }));
        walked.note(Err(failure));
    }
    if !hopeless.is_empty() {
        failed.extend(hopeless.iter().map(|(known, _)| known.step.id.clone()));
        let (steps, outcomes) = hopeless.into_iter().unzip();
        conclude(record, walk, &mut Diffs::default(), steps, outcomes, walked);
    }
    prepared
}

/// Writes down what is about to be owned for the first time, with what was there before.
fn write_new(record: &mut Record, walk: &Walk<'_>, prepared: &[Prepared]) -> Result<(), Failure> {
    let mut new = prepared
        .iter()
        .filter(|prepared| prepared.is_new)
        .filter_map(|prepared| entry(walk, &prepared.step, false))
        .peekable();
    if new.peek().is_none() {
        return Ok(());
    }
    let writing = record.write(walk.revision)?;
    for entry in new {
        writing.own(&entry)?;
    }
    writing.commit()
}

/// Makes a batch; its steps are of one kind, because they share a rank.
fn make(
    record: &mut Record,
    walk: &Walk<'_>,
    steps: &[Prepared],
    walked: &mut Walked,
) -> Vec<Outcome> {
    if steps.iter().any(|prepared| prepared.step.is_validation()) {
        return judge(record, walk, steps, walked);
    }
    let mut paths: Vec<&PathChange> = Vec::new();
    let mut packages: Vec<&PackageChange> = Vec::new();
    let mut accounts: Vec<&AccountChange> = Vec::new();
    let mut sysctls: Vec<&SysctlChange> = Vec::new();
    let mut refreshes: Vec<&RefreshChange> = Vec::new();
    let mut commands: Vec<&CommandChange> = Vec::new();
    let mut units: Vec<&UnitChange> = Vec::new();
    for Prepared { step, .. } in steps {
        match &step.change {
            Change::Path(change) => paths.push(change),
            Change::Package(change) => packages.push(change),
            Change::Account(change) => accounts.push(change),
            Change::Sysctl(change) => sysctls.push(change),
            Change::Refresh(change) => refreshes.push(change),
            Change::Command(change) => commands.push(change),
            Change::Unit(change) => units.push(change),
            Change::Validation(_) => {}
        }
    }
    if !paths.is_empty() {
        Paths::apply(walk.host, walk.contents, &paths)
    } else if !packages.is_empty() {
        Packages::apply(walk.host, walk.contents, &packages)
    } else if !accounts.is_empty() {
        Accounts::apply(walk.host, walk.contents, &accounts)
    } else if !sysctls.is_empty() {
        Sysctls::apply(walk.host, walk.contents, &sysctls)
    } else if !refreshes.is_empty() {
        repository::refresh(walk.host, &refreshes)
    } else if !commands.is_empty() {
        Commands::apply(walk.host, walk.contents, &commands)
    } else {
        Units::apply(walk.host, walk.contents, &units)
    }
}

/// Records and tells what became of a batch.
fn conclude(
    record: &mut Record,
    walk: &Walk<'_>,
    diffs: &mut Diffs,
    steps: Vec<Prepared>,
    outcomes: Vec<Outcome>,
    walked: &mut Walked,
) {
    let now = clock::now();
    for (prepared, outcome) in steps.iter().zip(&outcomes) {
        if *outcome == Outcome::Done {
            note_paid(record, &prepared.step);
        }
    }
    // Whether it can be written or not, everybody is told what was done.
    let mut writing = record.write(walk.revision);
    for (Prepared { step, is_new }, outcome) in steps.into_iter().zip(outcomes) {
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
                line.diff = diffs.of(&step);
            }
            Outcome::Failed(failure) | Outcome::Left(failure) => {
                line.outcome = "failed".to_owned();
                line.detail = failure.message.clone();
            }
            Outcome::Skipped(blocker) => {
                line.outcome = "skipped".to_owned();
                line.detail = format!("{blocker} failed");
            }
        }
        writing = writing.and_then(|mut writing| {
            match outcome {
                Outcome::Done => record_made(&writing, walk, &step, is_new)?,
                Outcome::Left(_) => record_left(&writing, walk, &step)?,
                Outcome::Failed(_) | Outcome::Skipped(_) => {}
            }
            writing.note(&line)?;
            Ok(writing)
        });
        let cause = match outcome {
            Outcome::Done => {
                if step.is_drift {
                    walked.corrected.insert(step.id.clone());
                }
                walked.made.push(step.id);
                continue;
            }
            Outcome::Failed(failure) | Outcome::Left(failure) => Cause::Failed(failure),
            Outcome::Skipped(blocker) => Cause::Skipped(blocker),
        };
        walked.not_made.push(NotMade {
            id: step.id,
            action: step.action,
            cause,
        });
    }
    let written = writing.and_then(Writing::commit);
    if written.is_ok() {
        walk.host.forget_ended_transactions();
    }
    walked.note(written);
}

/// A unit that was started, stopped or restarted owes nothing any more, a command that ran neither.
fn note_paid(record: &mut Record, step: &Step) {
    match step.action {
        Action::Restart | Action::Start | Action::Stop => {
            record.note_paid(&step.id, Action::Reload);
            record.note_paid(&step.id, Action::Restart);
        }
        // What asked for it was owed it.
        Action::DaemonReload => {
            for debtor in &step.because {
                record.note_paid(debtor, Action::DaemonReload);
            }
        }
        Action::Reload => record.note_paid(&step.id, Action::Reload),
        Action::Run => record.note_paid(&step.id, Action::Run),
        _ => {}
    }
}
