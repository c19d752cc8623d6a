//! Having units judge their files, and putting back what they do not accept.
//!
//! Invariant: what was there is on disk before it is changed, and the verdict is before anything is put back. Whoever comes after a crash
//! asks for the verdict again, or goes on putting back.

use std::collections::BTreeSet;

use super::{Cause, NotMade, Prepared, Walk, Walked};
use crate::kinds::file::{Original, PathChange, Paths, Walks, put_back, read_original};
use crate::kinds::kind::Kind;
use crate::kinds::unit::{
    self, Operation, UnitChange, Units, Validation, Verdict, has_started_since, is_read_by_systemd,
};
use crate::model::{Action, Failure, Name, Outcome, Reason, ResourceId};
use crate::plan::{Change, InventoryKind, Plan};
use crate::record::{Former, HistoryEntry, InventoryEntry, Owed, Record, Rejection};
use crate::report::journal;
use crate::sys::clock;

/// Who reads which paths of a plan, and is asked about them.
pub(super) struct Readers(Vec<(ResourceId, BTreeSet<Name>)>);

impl Readers {
    pub fn of(plan: &Plan) -> Self {
        let validations = plan.steps().filter_map(|step| match &step.change {
            Change::Validation(validation) => Some(validation),
            _ => None,
        });
        let readers = validations.map(|it| (it.id.clone(), it.paths.clone()));
        Readers(readers.collect())
    }

    fn of_path<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a ResourceId> {
        let reading = self.0.iter().filter(move |(_, paths)| paths.contains(path));
        reading.map(|(unit, _)| unit)
    }
}

/// Keeps what the paths of a batch are now that somebody is to be asked about. Returns the steps to make, and those that could not be
/// undone, which are not made.
pub(super) fn keep(
    record: &mut Record,
    walk: &Walk<'_>,
    readers: &Readers,
    steps: Vec<Prepared>,
) -> (Vec<Prepared>, Vec<(Prepared, Outcome)>) {
    let is_read = |prepared: &Prepared| {
        let step = &prepared.step;
        step.kind == InventoryKind::Path && readers.of_path(&step.key).next().is_some()
    };
    let (read, mut others): (Vec<_>, Vec<_>) = match readers.0.is_empty() {
        true => return (steps, Vec::new()),
        false => steps.into_iter().partition(is_read),
    };
    let mut lost = Vec::new();
    for prepared in read {
        match keep_one(record, walk, readers, &prepared) {
            Ok(()) => others.push(prepared),
            Err(failure) => {
                let failure = failure.about(prepared.step.id.clone());
                lost.push((prepared, Outcome::Failed(failure)));
            }
        }
    }
    (others, lost)
}

fn keep_one(
    record: &mut Record,
    walk: &Walk<'_>,
    readers: &Readers,
    prepared: &Prepared,
) -> Result<(), Failure> {
    let step = &prepared.step;
    let as_user = match &step.change {
        Change::Path(change) => change.as_user.as_ref(),
        _ => None,
    };
    let mut ways = Walks::new(walk.host);
    let (mut original, mut content) = read_original(ways.of(as_user)?, &step.key)?;
    let is_secret = matches!(&step.change, Change::Path(change) if change.is_secret);
    if let (Original::File { sha256, .. }, Some(bytes), true) =
        (&mut original, &mut content, is_secret)
    {
        (*bytes, *sha256) = walk.contents.seal(bytes)?;
    }
    let mut line = None;
    record.read_inventory_line(step.kind.as_str(), &step.key, &mut |found| {
        line = Some(InventoryEntry::from(found));
        Ok(())
    })?;
    let former = Former {
        path: step.key.to_string(),
        resource: step.id.clone(),
        original: serde_json::to_string(&original).expect("an original is plain data"),
        content,
        line,
        kept: clock::since_boot(),
    };
    let writing = record.write(walk.revision)?;
    for unit in readers.of_path(&step.key) {
        writing.keep(unit, &former)?;
    }
    writing.commit()
}

/// Has the units of a batch judge their files, and writes down what they do not accept.
pub(super) fn judge(
    record: &mut Record,
    walk: &Walk<'_>,
    steps: &[Prepared],
    walked: &mut Walked,
) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(steps.len());
    for prepared in steps {
        let Change::Validation(validation) = &prepared.step.change else {
            unreachable!("a batch is of one kind");
        };
        let outcome = judge_one(record, walk, validation, &prepared.step.because, walked);
        outcomes.push(outcome.map_or_else(Outcome::Failed, |()| Outcome::Done));
    }
    outcomes
}

fn judge_one(
    record: &mut Record,
    walk: &Walk<'_>,
    validation: &Validation,
    because: &[ResourceId],
    walked: &mut Walked,
) -> Result<(), Failure> {
    let formers = record.former_paths(&validation.id)?;
    let (paths, changed): (Vec<String>, Vec<ResourceId>) = formers.into_iter().unzip();
    let failure = match unit::validate(walk.host, validation, &paths) {
        Verdict::Accepted => return Ok(()),
        Verdict::Open(failure) => return Err(failure),
        Verdict::Rejected(failure) => failure,
    };
    let rejection = Rejection {
        digest: walk.digest.to_owned(),
        failure: failure.clone(),
        paths: paths.into_iter().map(Name::from).collect(),
        is_undone: because.iter().all(|id| changed.contains(id)),
    };
    let mut rejections = record.rejections();
    rejections.insert(validation.id.clone(), rejection.clone());
    walked.note(record.remember_rejections(&rejections));
    walked.rejected.insert(validation.id.clone(), rejection);
    Err(failure)
}

/// The units among `steps` that did not accept what they were asked about.
pub(super) fn rejected_among(steps: &[Prepared], walked: &Walked) -> Vec<(ResourceId, Rejection)> {
    let validations = steps.iter().filter(|it| it.step.is_validation());
    let ids = validations.map(|prepared| &prepared.step.id);
    ids.filter_map(|id| Some((id.clone(), walked.rejected.get(id)?.clone())))
        .collect()
}

/// Puts back what `unit` did not accept.
pub fn undo(
    walk: &Walk<'_>,
    record: &mut Record,
    unit: &ResourceId,
    rejection: &Rejection,
    walked: &mut Walked,
) {
    if let Err(failure) = try_to_undo(walk, record, unit, rejection, walked) {
        walked.not_made.push(NotMade {
            id: unit.clone(),
            action: Action::Restore,
            cause: Cause::Failed(failure.clone()),
        });
        walked.note(Err(failure));
    }
}

fn try_to_undo(
    walk: &Walk<'_>,
    record: &mut Record,
    unit: &ResourceId,
    rejection: &Rejection,
    walked: &mut Walked,
) -> Result<(), Failure> {
    let debt = |debtor: &ResourceId, action, because: &ResourceId| Owed {
        debtor: debtor.clone(),
        action,
        because: because.clone(),
        revision: walk.revision.to_owned(),
        caused: None,
    };
    let now = clock::now();
    let mut formers = record.formers(unit)?;
    let must_reload = formers
        .iter()
        .any(|former| is_read_by_systemd(&former.path));
    if must_reload {
        let writing = record.write(walk.revision)?;
        writing.owe(&debt(unit, Action::DaemonReload, unit), now)?;
        writing.commit()?;
    }
    let outcomes = write(walk, &mut formers)?;
    let is_whole = outcomes.iter().all(|outcome| *outcome == Outcome::Done);
    let is_read_again = must_reload && read_again(walk);
    // Somebody else may have had it read what it does not accept, a boot among them.
    let first = formers.iter().map(|former| former.kept).min();
    let is_tainted = first.is_some_and(|moment| has_started_since(walk.host, &unit.name, moment));

    let mut writing = record.write(walk.revision)?;
    for (former, outcome) in formers.iter().zip(outcomes) {
        let id = &former.resource;
        let (action, reason) = (Action::Restore, Reason::Triggered);
        if let Outcome::Failed(failure) = outcome {
            walked.not_made.push(NotMade {
                id: id.clone(),
                action,
                cause: Cause::Failed(failure),
            });
            continue;
        }
        let path = InventoryKind::Path.as_str();
        match &former.line {
            Some(line) => writing.own(line)?,
            None => writing.release(path, &former.path)?,
        }
        let fields = match id.name == former.path.as_str() {
            true => Vec::new(),
            false => vec![former.path.clone()],
        };
        journal::changed(walk.revision, id, action, reason, &fields, false);
        let mut line = HistoryEntry::of_resource(now, walk.revision, id, action, reason, false);
        line.outcome = "done".to_owned();
        line.detail = format!("as it was before, because {unit} did not accept it");
        writing.note(&line)?;
        for command in walk.declarations.commands_run_on(id) {
            writing.owe(&debt(command, Action::Run, id), now)?;
        }
    }
    if is_whole {
        if rejection.is_undone {
            match formers.first().filter(|_| is_tainted) {
                Some(former) => {
                    writing.owe(&debt(unit, Action::Restart, &former.resource), now)?;
                }
                None => writing.drop_restarts_since_validation(unit)?,
            }
            writing.pay(unit, Action::Run);
        }
        writing.drop_formers(unit)?;
    }
    if is_read_again {
        writing.pay(unit, Action::DaemonReload);
    }
    writing.commit()
}

/// Writes what was there; what was not goes last, the deepest first.
fn write(walk: &Walk<'_>, formers: &mut [Former]) -> Result<Vec<Outcome>, Failure> {
    let unreadable = |path: &str, error: serde_json::Error| {
        let message =
            format!("failed to put back '{path}': what was there cannot be read: {error}");
        Failure::new(crate::model::Class::Host, message)
    };
    let mut changes: Vec<(usize, PathChange)> = Vec::with_capacity(formers.len());
    let mut absent = Vec::new();
    for (index, former) in formers.iter_mut().enumerate() {
        let original: Original = serde_json::from_str(&former.original)
            .map_err(|error| unreadable(&former.path, error))?;
        let content = former.content.take();
        let (id, path) = (&former.resource, &former.path);
        let change = put_back(
            walk.host,
            id,
            path,
            &original,
            content,
            walk.declarations.as_user(path).cloned(),
        )?;
        match original {
            Original::Absent => absent.push((index, change)),
            _ => changes.push((index, change)),
        }
    }
    changes.extend(absent.into_iter().rev());
    let made: Vec<&PathChange> = changes.iter().map(|(_, change)| change).collect();
    let outcomes = Paths::apply(walk.host, walk.contents, &made);
    let mut by_index: Vec<(usize, Outcome)> = changes
        .iter()
        .map(|(index, _)| *index)
        .zip(outcomes)
        .collect();
    by_index.sort_by_key(|(index, _)| *index);
    Ok(by_index.into_iter().map(|(_, outcome)| outcome).collect())
}

/// Has systemd read its files again; where that fails, it is owed.
fn read_again(walk: &Walk<'_>) -> bool {
    let reload = UnitChange::new("", Operation::DaemonReload);
    let outcomes = Units::apply(walk.host, walk.contents, &[&reload]);
    outcomes == [Outcome::Done]
}
