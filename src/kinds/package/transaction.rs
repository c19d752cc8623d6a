//! One transaction for all changes to packages, and what to do when a part of it is impossible.
//!
//! Every transaction is simulated first. What cannot be found is taken out and reported by name; a conflict is narrowed down by
//! adding the changes one by one; the rest goes on. What became of each package is read from dpkg's database afterwards, never from
//! an exit status.
//!
//! Invariant: nothing runs for real whose simulation removes a package that nobody asked to remove.

use std::collections::{BTreeMap, BTreeSet};

use crate::kinds::package::apt::{self, Permissions, Request, Simulation};
use crate::kinds::package::status::Database;
use crate::kinds::package::version::compare_versions;
use crate::kinds::package::{PackageChange, Wanted};
use crate::model::{Class, Failure, Outcome};
use crate::sys::Host;
use crate::sys::command::{Command, CommandResult};

/// What a transaction needs of a machine.
pub(super) trait PackageSystem {
    /// What is installed now.
    fn read(&self) -> Result<Database, Failure>;
    /// Runs what changes no package.
    fn run(&self, command: &Command) -> Result<CommandResult, Failure>;
    /// Runs what must not be interrupted.
    fn transact(&self, command: &Command) -> Result<CommandResult, Failure>;
}

/// The packages of a real host.
pub(super) struct HostPackages<'a>(pub &'a Host);

impl PackageSystem for HostPackages<'_> {
    fn read(&self) -> Result<Database, Failure> {
        Database::read(self.0)
    }

    fn run(&self, command: &Command) -> Result<CommandResult, Failure> {
        self.0.run_outside(command)
    }

    fn transact(&self, command: &Command) -> Result<CommandResult, Failure> {
        self.0.run_transaction(command)
    }
}

/// Makes the changes. One outcome per change, in the same order.
pub(super) fn apply(system: &dyn PackageSystem, changes: &[PackageChange]) -> Vec<Outcome> {
    let mut transaction = Transaction {
        system,
        changes,
        outcomes: changes.iter().map(|_| None).collect(),
        refresh: Refresh::NotTried,
    };
    if let Err(failure) = transaction.run() {
        for (outcome, change) in transaction.outcomes.iter_mut().zip(changes) {
            outcome
                .get_or_insert_with(|| Outcome::Failed(failure.clone().about(change.id.clone())));
        }
    }
    transaction
        .outcomes
        .into_iter()
        .map(|outcome| outcome.expect("every change is settled, or failed above"))
        .collect()
}

struct Transaction<'a> {
    system: &'a dyn PackageSystem,
    changes: &'a [PackageChange],
    outcomes: Vec<Option<Outcome>>,
    refresh: Refresh,
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
        if self.pending().is_empty() {
            return Ok(());
        }
        if database.is_interrupted() {
            // apt refuses to work on top of it. What this leaves broken is told by what fails below.
            self.system.transact(&apt::repair())?;
            self.settle()?;
        }
        // Our own package goes last and alone: its scripts restart us.
        let is_ours = |index: &usize| self.changes[*index].name == "limpet";
        let (ours, others): (Vec<usize>, Vec<usize>) =
            self.pending().into_iter().partition(|index| is_ours(index));
        for group in [others, ours] {
            let possible = self.select_possible(group)?;
            self.execute(possible)?;
        }
        Ok(())
    }

    fn pending(&self) -> Vec<usize> {
        (0..self.changes.len())
            .filter(|index| self.outcomes[*index].is_none())
            .collect()
    }

    fn unsettled(&self, indices: &[usize]) -> Vec<usize> {
        let is_unsettled = |index: &usize| self.outcomes[*index].is_none();
        indices.iter().copied().filter(is_unsettled).collect()
    }

    /// Reads the database and marks as done what is as it should be.
    fn settle(&mut self) -> Result<Database, Failure> {
        let database = self.system.read()?;
        for (outcome, change) in self.outcomes.iter_mut().zip(self.changes) {
            if outcome.is_none() && change.wanted.is_met(&database, &change.name) {
                *outcome = Some(Outcome::Done);
            }
        }
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
                            format!("{}: apt contradicts itself", self.intent(*index)),
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
        let command = apt::simulation(&requests, self.permissions(indices));
        let result = self.system.run(&command)?;
        if !result.is_success() {
            let failures = self.find_impossible(indices, &result.output);
            return Ok(Err(if failures.is_empty() {
                Rejection::Together(self.explain(indices[indices.len() - 1], &result))
            } else {
                Rejection::Changes(failures)
            }));
        }
        let simulation = apt::parse_simulation(&result.output);
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
            let failure = Failure::new(
                Class::Author,
                format!(
                    "{}: it would also remove {}",
                    self.intent(last),
                    lost.join(", ")
                ),
            );
            return Some(
                failure.with_hint("declare those packages as \"absent\" too if they may go"),
            );
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
                    .is_some_and(|old| compare_versions(old, &one.new).is_gt())
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
        if apt::has_stale_lists(&result.output) && matches!(self.refresh, Refresh::NotTried) {
            self.refresh_lists()?;
            let possible = self.select_possible(left)?;
            return self.execute(possible);
        }
        // Nothing was achieved: one of them, perhaps an archive that does not arrive, keeps the others from being installed.
        if left.len() == indices.len() && left.len() > 1 && !apt::is_locked(&result.output) {
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
        let command = apt::transaction(&requests, self.permissions(indices));
        let result = self.system.transact(&command)?;
        self.settle()?;
        Ok(result)
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
            let removed = apt::parse_simulation(&result.output).removed;
            Ok(result.is_success().then(|| removed.into_iter().collect()))
        };
        let requests = self.requests(indices, &[]);
        let (Some(after), Some(before)) = (
            simulate(&apt::simulation(&requests, permissions))?,
            simulate(&apt::unneeded_simulation())?,
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
                !before.contains(name) && !asked.contains(name.as_str()) && !keep.contains(name)
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
        let result = self.system.run(&apt::refresh())?;
        self.refresh = if result.is_success() {
            Refresh::Done
        } else {
            Refresh::Failed(match apt::parse_complaint(&result.output, "") {
                complaint if complaint.is_empty() => result.complaint(),
                complaint => complaint,
            })
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
            .with_hint(format!(
                "the lists of packages could not be fetched either: {cause}"
            )),
            _ => failure,
        }
    }

    fn requests(&self, indices: &[usize], extra: &[String]) -> Vec<Request> {
        let asked = indices.iter().map(|index| {
            let change = &self.changes[*index];
            let name = change.name.clone();
            match &change.wanted {
                Wanted::Installed => Request::Install(name),
                Wanted::Version { version, .. } => Request::InstallVersion(name, version.clone()),
                Wanted::Absent { .. } => Request::Remove(name),
            }
        });
        let along = extra.iter().cloned().map(Request::Remove);
        asked.chain(along).collect()
    }

    fn permissions(&self, indices: &[usize]) -> Permissions {
        Permissions {
            downgrade: indices.iter().any(|index| self.is_downgrade(*index)),
            auto_remove: false,
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
    fn find_impossible(&self, indices: &[usize], output: &str) -> BTreeMap<usize, Failure> {
        let missing = apt::parse_not_found(output);
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
            .with_hint(format!("'apt-cache madison {name}' lists those that are")),
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
        if let Some(holder) = apt::lock_holder(&result.output) {
            let message = format!("{intent}: {holder} holds the lock of the package manager");
            return Failure::new(Class::Transient, message)
                .with_hint("it is tried again when that has ended");
        }
        let complaint = apt::parse_complaint(&result.output, &self.changes[index].name);
        let message = if complaint.is_empty() {
            format!("{intent}: apt-get {}", result.complaint())
        } else {
            let ending = CommandResult {
                output: String::new(),
                ..result.clone()
            };
            format!("{intent}: apt-get {}: \"{complaint}\"", ending.complaint())
        };
        Failure::new(apt::classify_failure(&result.output), message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::package::status::{Entry, State};
    use crate::model::{Kind, ResourceId};
    use crate::sys::command::Ending;
    use std::cell::RefCell;

    /// A machine whose apt answers from a script: for the packages asked for, an exit status and what it prints.
    struct Scripted {
        installed: RefCell<BTreeMap<String, String>>,
        answers: Vec<(&'static str, i32, &'static str)>,
        log: RefCell<Vec<String>>,
    }

    impl Scripted {
        /// The words of a command that matter: what sort it is, and its packages.
        fn words(command: &Command) -> String {
            let argv = &command.argv;
            let is = |word: &str| argv.iter().any(|argument| argument == word);
            let sort = match () {
                () if argv[0] == "dpkg" => "repair",
                () if is("update") => "refresh",
                () if is("autoremove") => "simulate unneeded",
                () if is("-s") && is("APT::Get::AutomaticRemove=true") => "simulate with unneeded",
                () if is("-s") => "simulate",
                () => "run",
            };
            let packages = argv.iter().skip_while(|argument| *argument != "--").skip(1);
            packages.fold(sort.to_owned(), |words, package| {
                format!("{words} {package}")
            })
        }

        fn answer(&self, command: &Command) -> CommandResult {
            let words = Self::words(command);
            self.log.borrow_mut().push(words.clone());
            let refreshed = self.log.borrow().iter().any(|line| line == "refresh");
            let fits =
                |(pattern, ..): &&(&str, i32, &str)| match pattern.strip_prefix("refreshed: ") {
                    Some(pattern) => refreshed && pattern == words,
                    None => *pattern == words,
                };
            let scripted = self.answers.iter().find(fits);
            let (status, output) = match scripted {
                Some((_, status, output)) => (*status, (*output).to_owned()),
                None => (0, self.imagine(&words)),
            };
            CommandResult {
                ending: Ending::Exited(status),
                output,
            }
        }

        /// What apt would print where nothing is in the way.
        fn imagine(&self, words: &str) -> String {
            let line = |package: &str| match package.strip_suffix('-') {
                Some(removed) => format!("Remv {removed} [1]\n"),
                None => {
                    let (name, version) = package.split_once('=').unwrap_or((package, "1"));
                    format!("Inst {name} ({version} x [all])\n")
                }
            };
            words.split(' ').skip(1).map(line).collect()
        }
    }

    impl PackageSystem for Scripted {
        fn read(&self) -> Result<Database, Failure> {
            let entry = |(name, version): (&String, &String)| Entry {
                name: name.clone(),
                architecture: "all".to_owned(),
                state: State::Installed,
                version: version.clone(),
                is_essential: false,
            };
            let entries = self.installed.borrow().iter().map(entry).collect();
            Ok(Database::new(entries, false))
        }

        fn run(&self, command: &Command) -> Result<CommandResult, Failure> {
            Ok(self.answer(command))
        }

        fn transact(&self, command: &Command) -> Result<CommandResult, Failure> {
            let result = self.answer(command);
            if result.is_success() {
                for line in self.imagine(&Self::words(command)).lines() {
                    let words: Vec<&str> = line.split(' ').collect();
                    let mut installed = self.installed.borrow_mut();
                    if words[0] == "Inst" {
                        installed.insert(words[1].to_owned(), words[2][1..].to_owned());
                    } else {
                        installed.remove(words[1]);
                    }
                }
            }
            Ok(result)
        }
    }

    /// `name`, `name=version` or `name-`; with `--` behind it, with its dependencies.
    fn change(text: &str) -> PackageChange {
        let (text, with_dependencies) = match text.strip_suffix("--") {
            Some(name) => (format!("{name}-"), true),
            None => (text.to_owned(), false),
        };
        let (name, wanted) = match (text.strip_suffix('-'), text.split_once('=')) {
            (Some(name), _) => (name, Wanted::Absent { with_dependencies }),
            (None, Some((name, version))) => (
                name,
                Wanted::Version {
                    version: version.to_owned(),
                    is_downgrade: false,
                },
            ),
            (None, None) => (text.as_str(), Wanted::Installed),
        };
        PackageChange {
            name: name.to_owned(),
            id: ResourceId::new(Kind::Package, name),
            wanted,
            keep: BTreeSet::from(["kept".to_owned()]).into(),
        }
    }

    /// Everything that was run, and every outcome that is not done.
    fn tell(
        installed: &[&str],
        answers: &[(&'static str, i32, &'static str)],
        changes: &[&str],
    ) -> String {
        let installed = installed
            .iter()
            .map(|name| ((*name).to_owned(), "1".to_owned()));
        let system = Scripted {
            installed: RefCell::new(installed.collect()),
            answers: answers.to_vec(),
            log: RefCell::default(),
        };
        let changes: Vec<PackageChange> = changes.iter().map(|text| change(text)).collect();
        let outcomes = apply(&system, &changes);
        assert_eq!(outcomes.len(), changes.len());
        let mut lines = system.log.into_inner();
        for outcome in outcomes {
            if let Outcome::Failed(failure) = outcome {
                assert!(failure.resource.is_some());
                lines.push(failure.to_string());
            }
        }
        lines.join("\n")
    }

    #[test]
    fn all_changes_go_in_one_transaction_and_our_own_package_after_it() {
        insta::assert_snapshot!(tell(&["telnet", "curl"], &[], &["limpet=2", "git", "telnet-", "curl"]), @"
        simulate git telnet-
        run git telnet-
        simulate limpet=2
        run limpet=2
        ");
    }

    #[test]
    fn nothing_runs_when_all_is_as_it_should_be() {
        assert_eq!(tell(&["curl"], &[], &["curl", "git-"]), "");
    }

    #[test]
    fn what_is_not_found_is_looked_for_again_with_fresh_lists() {
        let missing = "E: Unable to locate package git\n";
        let answers = [
            (
                "refreshed: simulate curl git",
                0,
                "Inst curl (1 x)\nInst git (1 x)\n",
            ),
            ("simulate curl git", 100, missing),
        ];
        insta::assert_snapshot!(tell(&[], &answers, &["curl", "git"]), @"
        simulate curl git
        refresh
        simulate curl git
        run curl git
        ");
        let answers = [("simulate curl git", 100, missing)];
        insta::assert_snapshot!(tell(&[], &answers, &["curl", "git"]), @"
        simulate curl git
        refresh
        simulate curl git
        simulate curl
        run curl
        failed to install package:git: no package is called 'git'
        ");
    }

    #[test]
    fn a_conflict_is_narrowed_down_one_by_one() {
        let broken = "E: Unable to correct problems, you have held broken packages.\n";
        let answers = [
            ("simulate a b c", 100, broken),
            ("simulate a b", 100, broken),
        ];
        insta::assert_snapshot!(tell(&[], &answers, &["a", "b", "c"]), @r#"
        simulate a b c
        simulate a
        simulate a b
        simulate a c
        run a c
        failed to install package:b: apt-get exited with status 100: "E: Unable to correct problems, you have held broken packages."
        "#);
    }

    #[test]
    fn a_transaction_that_would_do_damage_never_runs() {
        let takes_more = [("simulate lib-", 0, "Remv app [1]\nRemv lib [1]\n")];
        insta::assert_snapshot!(tell(&["lib", "app"], &takes_more, &["lib-"]), @"
        simulate lib-
        failed to remove package:lib: it would also remove app
        ");
        let goes_down = [("simulate a", 0, "Inst a (1 x)\nInst b [2] (1 x)\n")];
        insta::assert_snapshot!(tell(&["b"], &goes_down, &["a"]), @"
        simulate a
        failed to install package:a: it would also downgrade b to 1
        ");
    }

    #[test]
    fn dependencies_that_came_along_go_along() {
        let answers = [
            (
                "simulate with unneeded app-",
                0,
                "Remv app [1]\nRemv lib [1]\nRemv old [1]\nRemv kept [1]\n",
            ),
            ("simulate unneeded", 0, "Remv old [1]\n"),
        ];
        insta::assert_snapshot!(tell(&["app", "lib", "old", "kept"], &answers, &["app--"]), @"
        simulate app-
        simulate with unneeded app-
        simulate unneeded
        simulate app- lib-
        run app- lib-
        ");
    }

    #[test]
    fn an_archive_that_does_not_arrive_stops_only_its_own_package() {
        let lost = "E: Failed to fetch http://x/a.deb  404  Not Found\n";
        let answers = [("run a b", 100, lost), ("run a", 100, lost)];
        insta::assert_snapshot!(tell(&[], &answers, &["a", "b"]), @r#"
        simulate a b
        run a b
        refresh
        simulate a b
        run a b
        simulate a
        run a
        simulate b
        run b
        failed to install package:a: apt-get exited with status 100: "E: Failed to fetch http://x/a.deb  404  Not Found"
        "#);
    }
}
