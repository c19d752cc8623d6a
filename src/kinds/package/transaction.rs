//! One transaction for all changes to packages, and what to do when a part of it is impossible.
//!
//! Every transaction is simulated first. What cannot be found is taken out and reported by name; a conflict is narrowed down by
//! adding the changes one by one; the rest goes on. What became of each package is read from dpkg's database afterwards, never from
//! an exit status.
//!
//! Invariant: nothing runs for real whose simulation removes a package that nobody asked to remove, changes one on hold, goes down to a
//! version that nobody allowed, or brings in passing what is declared otherwise.

use std::collections::{BTreeMap, BTreeSet};

use crate::kinds::package::apt::{self, Permissions, Request, Simulation};
use crate::kinds::package::dnf::told;
use crate::kinds::package::family::Family;
use crate::kinds::package::lists;
use crate::kinds::package::status::Database;
use crate::kinds::package::system::PackageSystem;
use crate::kinds::package::{Keep, PackageChange, Wanted, protected};
use crate::model::{Class, Failure, Kind, Outcome, ResourceId};
use crate::report::journal;
use crate::sys::command::{Command, CommandResult};

mod holds;
mod versions;

/// Makes the changes. One outcome per change, in the same order.
pub(super) fn apply(system: &dyn PackageSystem, changes: &[PackageChange]) -> Vec<Outcome> {
    let mut transaction = Transaction {
        system,
        family: Family::default(),
        database: Database::default(),
        changes: changes.to_vec(),
        outcomes: changes.iter().map(|_| None).collect(),
        refresh: Refresh::NotTried,
        held: BTreeSet::new(),
        left: BTreeMap::new(),
    };
    if let Err(failure) = transaction.run() {
        for (outcome, change) in transaction.outcomes.iter_mut().zip(changes) {
            outcome
                .get_or_insert_with(|| Outcome::Failed(failure.clone().about(change.id.clone())));
        }
    }
    let mut left = transaction.left;
    transaction
        .outcomes
        .into_iter()
        .map(|outcome| outcome.expect("every change is settled, or failed above"))
        .enumerate()
        .map(|(index, outcome)| match (outcome, left.remove(&index)) {
            (Outcome::Done, Some(failure)) => Outcome::Left(failure),
            (outcome, _) => outcome,
        })
        .collect()
}

struct Transaction<'a> {
    system: &'a dyn PackageSystem,
    family: Family,
    /// What was installed when that was read last.
    database: Database,
    /// As they are asked for, with the version of each where that had to be looked up.
    changes: Vec<PackageChange>,
    outcomes: Vec<Option<Outcome>>,
    refresh: Refresh,
    /// The packages, without architecture, that were on hold in the beginning.
    held: BTreeSet<String>,
    /// What can only be taken back in part, with what to say about it.
    left: BTreeMap<usize, Failure>,
}

/// Have the lists of packages been fetched in this run.
enum Refresh {
    NotTried,
    Done,
    Failed(String),
}

/// Why a set of changes cannot be made.
enum Rejection {
    /// These changes, by index, are impossible by themselves.
    Changes(BTreeMap<usize, Failure>),
    /// Not together.
    Together(Failure),
}

impl Transaction<'_> {
    fn run(&mut self) -> Result<(), Failure> {
        let database = self.settle()?;
        self.family = database.family();
        self.held = self.held_in(&database);
        // dnf looks by itself how old its own are.
        if self.family == Family::Apt
            && self.pending().iter().any(|index| self.is_install(*index))
            && self.system.has_old_lists()?
        {
            self.refresh_lists()?;
        }
        self.resolve_versions(&database)?;
        if self.family.holds_forbid() {
            self.free_held()?;
        }
        let made = self.make_changes();
        // What was held before is held again, whatever became of the rest.
        let held = self.mark().and_then(|()| self.hold());
        made.and(held)
    }

    fn make_changes(&mut self) -> Result<(), Failure> {
        // Our own package goes last and alone: its scripts restart us.
        let is_ours = |index: &usize| self.changes[*index].name == "limpet";
        let (ours, others): (Vec<usize>, Vec<usize>) =
            self.pending().into_iter().partition(|index| is_ours(index));
        let mut groups = self.family.split(others, |index| !self.is_install(*index));
        groups.push(ours);
        for group in groups {
            let possible = self.select_possible(group)?;
            self.execute(possible)?;
        }
        Ok(())
    }

    /// What the transaction has yet to do.
    fn pending(&self) -> Vec<usize> {
        (0..self.changes.len())
            .filter(|index| self.outcomes[*index].is_none())
            .filter(|index| !matches!(self.changes[*index].wanted, Wanted::Held(_)))
            .collect()
    }

    fn unsettled(&self, indices: &[usize]) -> Vec<usize> {
        let is_unsettled = |index: &usize| self.outcomes[*index].is_none();
        indices.iter().copied().filter(is_unsettled).collect()
    }

    /// Reads the database and marks as done what is as it should be.
    fn settle(&mut self) -> Result<Database, Failure> {
        let database = self.system.read()?;
        for (outcome, change) in self.outcomes.iter_mut().zip(&self.changes) {
            // A hold is set when all else is done, because a new version may lose it.
            let is_hold = matches!(change.wanted, Wanted::Held(_));
            if outcome.is_none() && !is_hold && change.wanted.is_met(&database, &change.name) {
                *outcome = Some(Outcome::Done);
            }
        }
        self.database = database.clone();
        Ok(database)
    }

    fn fail(&mut self, index: usize, failure: Failure) {
        let id = self.changes[index].id.clone();
        self.outcomes[index] = Some(Outcome::Failed(failure.about(id)));
    }

    /// The changes that can be made together; the others are failed with their reason.
    fn select_possible(&mut self, group: Vec<usize>) -> Result<Vec<usize>, Failure> {
        loop {
            let pending = self.unsettled(&group);
            if pending.is_empty() {
                return Ok(pending);
            }
            let failure = match self.judge(&pending, &pending, &[])? {
                Ok(_simulation) => return Ok(pending),
                Err(Rejection::Changes(_)) if matches!(self.refresh, Refresh::NotTried) => {
                    self.refresh_lists()?;
                    continue;
                }
                Err(Rejection::Changes(failures)) => {
                    for (index, failure) in failures {
                        self.fail(index, self.with_refresh_error(failure));
                    }
                    continue;
                }
                Err(Rejection::Together(failure)) => failure,
            };
            if let [only] = pending[..] {
                self.fail(only, failure);
                return Ok(Vec::new());
            }
            return self.select_one_by_one(&pending);
        }
    }

    /// Adds the changes one by one and leaves out each that makes the set impossible.
    fn select_one_by_one(&mut self, pending: &[usize]) -> Result<Vec<usize>, Failure> {
        let mut possible = Vec::new();
        for index in pending {
            let mut tried = possible.clone();
            tried.push(*index);
            match self.judge(&tried, pending, &[])? {
                Ok(_simulation) => possible = tried,
                Err(Rejection::Together(failure)) => self.fail(*index, failure),
                Err(Rejection::Changes(mut failures)) => {
                    let failure = failures.remove(index).unwrap_or_else(|| {
                        Failure::new(
                            Class::Host,
                            format!(
                                "{}: {} contradicts itself",
                                self.intent(*index),
                                self.family.name()
                            ),
                        )
                    });
                    self.fail(*index, failure);
                }
            }
        }
        Ok(possible)
    }

    /// Simulates the changes together. Beside their own, the removals of all of `asked` and of `extra` are fine.
    fn judge(
        &self,
        indices: &[usize],
        asked: &[usize],
        extra: &[String],
    ) -> Result<Result<Simulation, Rejection>, Failure> {
        let requests = self.requests(indices, extra);
        let command = self.family.simulation(&requests, self.permissions(indices));
        let result = self.system.run(&command)?;
        if !self.family.is_possible(&result) {
            let failures = self.find_impossible(indices, &result.output, &requests);
            return Ok(Err(if failures.is_empty() {
                Rejection::Together(self.explain(indices[indices.len() - 1], &result))
            } else {
                Rejection::Changes(failures)
            }));
        }
        let simulation = self.family.parse_simulation(&result.output, &self.database);
        // A name that no package has is taken for a pattern, and may have meant others.
        let missed: BTreeMap<usize, Failure> = indices
            .iter()
            .filter(|index| self.is_install(**index))
            .filter(|index| {
                let name = apt::without_architecture(&self.changes[**index].name);
                !simulation.installed.iter().any(|one| one.name == name)
            })
            .map(|index| (*index, self.not_found(*index, None)))
            .collect();
        if !missed.is_empty() {
            return Ok(Err(Rejection::Changes(missed)));
        }
        Ok(match self.find_damage(&simulation, indices, asked, extra) {
            Some(failure) => Err(Rejection::Together(failure)),
            None => Ok(simulation),
        })
    }

    /// What a simulated transaction would do that nobody asked for.
    fn find_damage(
        &self,
        simulation: &Simulation,
        indices: &[usize],
        asked: &[usize],
        extra: &[String],
    ) -> Option<Failure> {
        let last = *indices.last()?;
        let removable: BTreeSet<&str> = asked
            .iter()
            .filter(|index| !self.is_install(**index))
            .map(|index| apt::without_architecture(&self.changes[*index].name))
            .chain(extra.iter().map(|name| apt::without_architecture(name)))
            .collect();
        let lost: Vec<&str> = simulation
            .removed
            .iter()
            .map(String::as_str)
            .filter(|name| !removable.contains(name))
            .collect();
        if !lost.is_empty() {
            return Some(self.would_remove(last, &lost));
        }
        let asked_for: BTreeSet<&str> = indices
            .iter()
            .map(|index| apt::without_architecture(&self.changes[*index].name))
            .collect();
        let unpacked = simulation.installed.iter().filter(|one| one.old.is_some());
        let mut touched = unpacked.map(|one| &one.name).chain(&simulation.removed);
        let is_held =
            |name: &&String| self.held.contains(*name) && !asked_for.contains(name.as_str());
        if let Some(name) = touched.find(is_held) {
            let failure = Failure::new(
                Class::Host,
                format!(
                    "{}: it would also change {name}, which is on hold",
                    self.intent(last)
                ),
            );
            let hint = format!("'{}' takes the hold away", self.family.how_to_unhold(name));
            return Some(failure.with_hint(hint));
        }
        let passing = simulation.installed.iter();
        let mut passing = passing.filter(|one| !asked_for.contains(one.name.as_str()));
        if let Some(failure) = passing.find_map(|one| self.would_contradict(last, one)) {
            return Some(failure);
        }
        let may_go_down: BTreeSet<&str> = indices
            .iter()
            .filter(|index| self.is_downgrade(**index))
            .map(|index| apt::without_architecture(&self.changes[*index].name))
            .collect();
        simulation
            .installed
            .iter()
            .find(|one| {
                one.old
                    .as_ref()
                    .is_some_and(|old| self.family.compare_versions(old, &one.new).is_gt())
                    && !may_go_down.contains(one.name.as_str())
            })
            .map(|one| {
                Failure::new(
                    Class::Author,
                    format!(
                        "{}: it would also downgrade {} to {}",
                        self.intent(last),
                        one.name,
                        one.new
                    ),
                )
                .with_hint("declare that version of it, with allow_downgrade = true")
            })
    }

    /// The refusal of a change because it would take `lost` along.
    fn would_remove(&self, index: usize, lost: &[&str]) -> Failure {
        let keep = &self.changes[index].keep;
        let is_declared =
            |name: &&str| matches!(keep.get(*name), Some(Keep::Installed | Keep::Version(_)));
        let in_words: Vec<String> = lost
            .iter()
            .map(|name| match protected::well_known(name) {
                Some(what) => format!("{name} ({what})"),
                None => (*name).to_owned(),
            })
            .collect();
        let message = format!(
            "{}: it would also remove {}",
            self.intent(index),
            in_words.join(", ")
        );
        let hint = if lost
            .iter()
            .any(|name| protected::well_known(name).is_some())
        {
            "this host cannot do without that"
        } else if lost.iter().any(is_declared) {
            "that is declared, or protected by the host's operator: keep one of the two"
        } else {
            "declare those packages as \"absent\" too if they may go"
        };
        Failure::new(Class::Author, message).with_hint(hint)
    }

    /// The refusal of a change because it would bring, in passing, what is declared to be otherwise: in the next cycle that would be changed
    /// back, and again.
    fn would_contradict(&self, index: usize, one: &apt::Installation) -> Option<Failure> {
        let intent = self.intent(index);
        let name = &one.name;
        let message = match self.changes[index].keep.get(name)? {
            Keep::Version(wanted) if !self.family.fits(wanted, &one.new) => format!(
                "{intent}: it would also install {name} {}, which is declared in version {wanted}",
                one.new
            ),
            Keep::Absent if one.old.is_none() => {
                format!("{intent}: it would also install {name}, which is declared absent")
            }
            _ => return None,
        };
        Some(
            Failure::new(Class::Author, message)
                .with_hint("the two cannot be had together: change one of them"),
        )
    }

    /// Runs the transaction for real, and settles all of its changes.
    fn execute(&mut self, indices: Vec<usize>) -> Result<(), Failure> {
        if indices.is_empty() {
            return Ok(());
        }
        let extra = self.find_unneeded(&indices)?;
        let result = self.transact(&indices, &extra)?;
        let left = self.unsettled(&indices);
        if left.is_empty() {
            return Ok(());
        }
        if self.family.has_stale_lists(&result.output) && matches!(self.refresh, Refresh::NotTried)
        {
            self.refresh_lists()?;
            let possible = self.select_possible(left)?;
            return self.execute(possible);
        }
        // Nothing was achieved: one of them, perhaps an archive that does not arrive, keeps the others from being installed.
        if left.len() == indices.len() && left.len() > 1 && !self.family.is_locked(&result.output) {
            for index in left {
                let possible = self.select_possible(vec![index])?;
                self.execute(possible)?;
            }
            return Ok(());
        }
        for index in left {
            let failure = self.explain(index, &result);
            self.fail(index, failure);
        }
        Ok(())
    }

    fn transact(&mut self, indices: &[usize], extra: &[String]) -> Result<CommandResult, Failure> {
        let requests = self.requests(indices, extra);
        let command = self
            .family
            .transaction(&requests, self.permissions(indices));
        let result = self.system.transact(&command)?;
        for kept in apt::parse_kept_files(&result.output) {
            let changes = self.changes.iter();
            let mut asked =
                changes.filter(|change| apt::without_architecture(&change.name) == kept.package);
            let id = asked.next().map_or_else(
                || ResourceId::new(Kind::Package, kept.package.as_str()),
                |change| change.id.clone(),
            );
            journal::kept_file(&id, &kept.path);
        }
        if let Family::Dnf(_) = self.family {
            self.tell_what_rpm_said(indices, &result.output);
        }
        self.settle()?;
        Ok(result)
    }

    /// Tells what rpm says of single packages, though all went well.
    fn tell_what_rpm_said(&self, indices: &[usize], output: &str) {
        let changes = || indices.iter().map(|index| &self.changes[*index]);
        for beside in told::parse_beside(output) {
            // rpm does not say whose it is.
            let mut ids = changes().map(|change| &change.id);
            let id = ids.next().filter(|_| ids.next().is_none());
            journal::file_beside(id, &beside.path, &beside.other, beside.is_new);
        }
        for (name, said) in told::parse_failed_scripts(output) {
            let asked = changes().find(|change| apt::without_architecture(&change.name) == name);
            let id = asked.map_or_else(
                || ResourceId::new(Kind::Package, name.as_str()),
                |change| change.id.clone(),
            );
            journal::script_failed(&id, &said);
        }
    }

    /// The dependencies that came along with packages which are taken back, and which nothing needs after that.
    fn find_unneeded(&self, indices: &[usize]) -> Result<Vec<String>, Failure> {
        let takes_back = indices.iter().any(|index| {
            matches!(
                self.changes[*index].wanted,
                Wanted::Absent {
                    with_dependencies: true
                }
            )
        });
        if !takes_back {
            return Ok(Vec::new());
        }
        let permissions = Permissions {
            auto_remove: true,
            ..self.permissions(indices)
        };
        let simulate = |command: &Command| -> Result<Option<BTreeSet<String>>, Failure> {
            let result = self.system.run(command)?;
            let simulation = self.family.parse_simulation(&result.output, &self.database);
            let removed = simulation.removed.into_iter().collect();
            Ok(self.family.is_possible(&result).then_some(removed))
        };
        let requests = self.requests(indices, &[]);
        let (Some(after), Some(before)) = (
            simulate(&self.family.simulation(&requests, permissions))?,
            match self.family.unneeded_simulation() {
                Some(command) => simulate(&command)?,
                None => Some(BTreeSet::new()),
            },
        ) else {
            return Ok(Vec::new());
        };
        let asked: BTreeSet<&str> = requests
            .iter()
            .map(|request| apt::without_architecture(request.name()))
            .collect();
        let keep = &self.changes[indices[0]].keep;
        let unneeded: Vec<String> = after
            .into_iter()
            .filter(|name| {
                let is_kept = matches!(keep.get(name), Some(Keep::Installed | Keep::Version(_)));
                !before.contains(name) && !asked.contains(name.as_str()) && !is_kept
            })
            .collect();
        if unneeded.is_empty() {
            return Ok(unneeded);
        }
        // Leaving a dependency behind is better than not taking the package back.
        Ok(match self.judge(indices, indices, &unneeded)? {
            Ok(_simulation) => unneeded,
            Err(_rejection) => Vec::new(),
        })
    }

    fn refresh_lists(&mut self) -> Result<(), Failure> {
        let result = self.system.run(&self.family.refresh())?;
        let failure = match self.family {
            Family::Apt => lists::find_failure("the lists of packages", &result),
            Family::Dnf(_) if result.is_success() => None,
            Family::Dnf(_) => {
                let complaint = match self.family.parse_complaint(&result.output, "") {
                    complaint if complaint.is_empty() => result.complaint(),
                    complaint => complaint,
                };
                let message = format!("failed to fetch the lists of packages: {complaint}");
                Some(Failure::new(Class::Transient, message))
            }
        };
        self.refresh = match failure {
            None => Refresh::Done,
            Some(failure) => {
                // What the lists have all the same is installed, and what they lack fails with this beside it.
                tracing::warn!(error = %failure, "{failure}, ignoring");
                Refresh::Failed(failure.message)
            }
        };
        Ok(())
    }

    /// A package that was not found, when the lists could not be fetched, may exist after all.
    fn with_refresh_error(&self, failure: Failure) -> Failure {
        match &self.refresh {
            Refresh::Failed(cause) => Failure {
                class: Class::Transient,
                ..failure
            }
            .with_hint(cause.clone()),
            _ => failure,
        }
    }

    fn requests(&self, indices: &[usize], extra: &[String]) -> Vec<Request> {
        let asked = indices.iter().map(|index| {
            let change = &self.changes[*index];
            let name = change.name.clone();
            match &change.wanted {
                Wanted::Version { version, .. } => Request::InstallVersion(name, version.clone()),
                Wanted::Absent { .. } => Request::Remove(name),
                // The versions were looked up, and holds are no part of it.
                Wanted::Installed
                | Wanted::Fitting { .. }
                | Wanted::PutBack { .. }
                | Wanted::Held(_) => Request::Install(name),
            }
        });
        let along = extra.iter().cloned().map(Request::Remove);
        asked.chain(along).collect()
    }

    fn permissions(&self, indices: &[usize]) -> Permissions {
        Permissions {
            downgrade: indices.iter().any(|index| self.is_downgrade(*index)),
            auto_remove: false,
            change_held: indices.iter().any(|index| {
                let name = apt::without_architecture(&self.changes[*index].name);
                self.held.contains(name)
            }),
        }
    }

    fn is_install(&self, index: usize) -> bool {
        !matches!(self.changes[index].wanted, Wanted::Absent { .. })
    }

    fn is_downgrade(&self, index: usize) -> bool {
        matches!(
            self.changes[index].wanted,
            Wanted::Version {
                is_downgrade: true,
                ..
            }
        )
    }

    /// Which of the changes apt could not find, with what to say about each.
    fn find_impossible(
        &self,
        indices: &[usize],
        output: &str,
        requests: &[Request],
    ) -> BTreeMap<usize, Failure> {
        let missing = self.family.parse_not_found(output, requests);
        let mut failures = BTreeMap::new();
        for index in indices {
            let name = &self.changes[*index].name;
            let found = missing
                .iter()
                .find(|missing| missing.name == *name)
                .or_else(|| missing.iter().find(|missing| missing.is_about(name)));
            if let Some(found) = found {
                failures.insert(*index, self.not_found(*index, found.version.as_deref()));
            }
        }
        failures
    }

    fn not_found(&self, index: usize, version: Option<&str>) -> Failure {
        let intent = self.intent(index);
        let name = &self.changes[index].name;
        match version {
            Some(version) => Failure::new(
                Class::Author,
                format!("{intent}: version '{version}' of '{name}' was not found"),
            )
            .with_hint(format!(
                "'{}' lists those that are",
                self.family.how_to_list(name)
            )),
            None => Failure::new(
                Class::Author,
                format!("{intent}: no package is called '{name}'"),
            )
            .with_hint("check its name, and that its repository is set up on this host"),
        }
    }

    /// `failed to install package:nginx`
    fn intent(&self, index: usize) -> String {
        let verb = if self.is_install(index) {
            "install"
        } else {
            "remove"
        };
        format!("failed to {verb} {}", self.changes[index].id)
    }

    /// What went wrong with one change of a transaction that did not achieve it.
    fn explain(&self, index: usize, result: &CommandResult) -> Failure {
        let intent = self.intent(index);
        if let Some(holder) = self.family.lock_holder(&result.output) {
            let message = format!("{intent}: {holder} holds the lock of the package manager");
            return Failure::new(Class::Transient, message)
                .with_hint("it is tried again when that has ended");
        }
        let complaint = self
            .family
            .parse_complaint(&result.output, &self.changes[index].name);
        let program = self.family.program();
        let message = if complaint.is_empty() {
            format!("{intent}: {program} {}", result.complaint())
        } else {
            let ending = CommandResult {
                output: String::new(),
                ..result.clone()
            };
            format!(
                "{intent}: {program} {}: \"{complaint}\"",
                ending.complaint()
            )
        };
        Failure::new(self.family.classify_failure(&result.output), message)
    }
}

#[cfg(test)]
mod tests;
