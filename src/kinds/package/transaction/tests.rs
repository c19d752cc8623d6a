//! Transactions on machines whose apt answers from a script.

use super::*;
use crate::kinds::package::status::{Entry, State};
use crate::model::{Kind, ResourceId};
use crate::sys::command::Ending;
use std::cell::RefCell;

/// A machine whose apt answers from a script: for the packages asked for, an exit status and what it prints.
struct Scripted {
    installed: RefCell<BTreeMap<String, String>>,
    answers: Vec<(&'static str, i32, &'static str)>,
    has_old_lists: bool,
    log: RefCell<Vec<String>>,
}

impl Scripted {
    /// The words of a command that matter: what sort it is, and its packages.
    fn words(command: &Command) -> String {
        let argv = &command.argv;
        let is = |word: &str| argv.iter().any(|argument| argument == word);
        let sort = match () {
            () if argv[0] == "dpkg" => "repair",
            () if argv[0] == "apt-cache" => "list",
            () if argv[0] == "apt-mark" => argv[1].as_str(),
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
        let fits = |(pattern, ..): &&(&str, i32, &str)| match pattern.strip_prefix("refreshed: ") {
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
            is_held: false,
        };
        let entries = self.installed.borrow().iter().map(entry).collect();
        Ok(Database::new(entries, false))
    }

    fn has_old_lists(&self) -> Result<bool, Failure> {
        Ok(self.has_old_lists)
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

/// `name`, `name=version`, `name=pattern*`, `name=<version` to put that back, or `name-`; with `--` behind it, with its dependencies.
fn change(text: &str) -> PackageChange {
    let (text, with_dependencies) = match text.strip_suffix("--") {
        Some(name) => (format!("{name}-"), true),
        None => (text.to_owned(), false),
    };
    let (name, wanted) = match (text.strip_suffix('-'), text.split_once('=')) {
        (Some(name), _) => (name, Wanted::Absent { with_dependencies }),
        (None, Some((name, version))) if version.contains('*') => (
            name,
            Wanted::Fitting {
                pattern: version.to_owned(),
                allow_downgrade: false,
            },
        ),
        (None, Some((name, version))) if version.starts_with('<') => (
            name,
            Wanted::PutBack {
                version: version[1..].to_owned(),
            },
        ),
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
        automatic: false,
        keep: BTreeMap::from([
            ("kept".to_owned(), Keep::Installed),
            ("pinned".to_owned(), Keep::Version("1.*".to_owned())),
            ("unwanted".to_owned(), Keep::Absent),
        ])
        .into(),
    }
}

/// Everything that was run, and every outcome that is not done.
fn tell(
    installed: &[&str],
    answers: &[(&'static str, i32, &'static str)],
    changes: &[&str],
) -> String {
    tell_with(false, installed, answers, changes)
}

/// The same, with old lists of packages or not.
fn tell_with(
    has_old_lists: bool,
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
        has_old_lists,
        log: RefCell::default(),
    };
    let changes: Vec<PackageChange> = changes.iter().map(|text| change(text)).collect();
    let outcomes = apply(&system, &changes);
    assert_eq!(outcomes.len(), changes.len());
    let mut lines = system.log.into_inner();
    for outcome in outcomes {
        if let Outcome::Failed(failure) | Outcome::Left(failure) = outcome {
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
fn old_lists_are_fetched_before_anything_is_installed_and_for_nothing_else() {
    insta::assert_snapshot!(tell_with(true, &["telnet"], &[], &["git", "telnet-"]), @"
    refresh
    simulate git telnet-
    run git telnet-
    ");
    insta::assert_snapshot!(tell_with(true, &["telnet"], &[], &["telnet-", "git-"]), @"
    simulate telnet-
    run telnet-
    ");
    // What could not be fetched is told where something is missing, and stops nothing else.
    let answers = [
        (
            "refresh",
            100,
            "E: Failed to fetch http://x/InRelease  Could not resolve 'x'\n",
        ),
        (
            "simulate curl git",
            100,
            "E: Unable to locate package git\n",
        ),
    ];
    insta::assert_snapshot!(tell_with(true, &[], &answers, &["curl", "git"]), @"
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
fn what_is_declared_otherwise_does_not_come_in_passing() {
    let answers = [
        (
            "simulate a b",
            0,
            "Inst pinned [1.0] (2.0 x)\nInst a (1 x)\nInst b (1 x)\n",
        ),
        ("simulate a", 0, "Inst pinned [1.0] (2.0 x)\nInst a (1 x)\n"),
    ];
    insta::assert_snapshot!(tell(&["pinned"], &answers, &["a", "b"]), @"
    simulate a b
    simulate a
    simulate b
    run b
    failed to install package:a: it would also install pinned 2.0, which is declared in version 1.*
    ");
    let fitting = [("simulate a", 0, "Inst pinned [1.0] (1.1 x)\nInst a (1 x)\n")];
    assert_eq!(tell(&["pinned"], &fitting, &["a"]), "simulate a\nrun a");
    let unwanted = [("simulate a", 0, "Inst unwanted (1 x)\nInst a (1 x)\n")];
    insta::assert_snapshot!(tell(&[], &unwanted, &["a"]), @"
    simulate a
    failed to install package:a: it would also install unwanted, which is declared absent
    ");
    let takes_init = [(
        "simulate a",
        0,
        "Remv init [1]\nRemv kept [1]\nInst a (1 x)\n",
    )];
    insta::assert_snapshot!(tell(&["init", "kept"], &takes_init, &["a"]), @"
    simulate a
    failed to install package:a: it would also remove init (the init system), kept
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

#[test]
fn a_pattern_means_the_highest_version_that_fits() {
    let listed = "curl | 2.0 | http://x stable/main amd64 Packages\n      \
                  curl | 1.9.2 | http://x stable/main amd64 Packages\n      \
                  curl | 1.9.10 | http://x stable/main amd64 Packages\n      \
                  curl | 1.9.11 | http://x stable/main Sources\n";
    let answers = [("list curl", 0, listed)];
    insta::assert_snapshot!(tell(&[], &answers, &["curl=1.9.*"]), @"
    list curl
    simulate curl=1.9.10
    run curl=1.9.10
    ");
    insta::assert_snapshot!(tell(&[], &answers, &["curl=3.*"]), @"
    list curl
    refresh
    list curl
    failed to install package:curl: version '3.*' of 'curl' was not found
    ");
    let older = [(
        "list curl",
        0,
        "curl | 0.9 | http://x s/main amd64 Packages\n",
    )];
    insta::assert_snapshot!(tell(&["curl"], &older, &["curl=0*"]), @"
    list curl
    refused package:curl: version 0* is older than 1, which is installed
    ");
}

#[test]
fn the_version_that_was_there_before_comes_back_or_people_are_told() {
    let listed = [(
        "list curl",
        0,
        "curl | 0.9 | http://x s/main amd64 Packages\n",
    )];
    insta::assert_snapshot!(tell(&["curl"], &listed, &["curl=<0.9"]), @"
    list curl
    simulate curl=0.9
    run curl=0.9
    ");
    insta::assert_snapshot!(tell(&["curl"], &[], &["curl=<0.9", "git"]), @"
    list curl
    refresh
    list curl
    simulate git
    run git
    left package:curl at version 1: no repository has 0.9 any more, which was there before
    ");
    insta::assert_snapshot!(tell(&[], &[], &["curl=<0.9"]), @"
    list curl
    refresh
    list curl
    simulate curl
    run curl
    put package:curl back in another version: no repository has 0.9 any more, which was there before
    ");
    // Nobody knows what there is while the lists do not come.
    let offline = [("refresh", 100, "E: Failed to fetch http://x\n")];
    insta::assert_snapshot!(tell(&["curl"], &offline, &["curl=<0.9"]), @"
    list curl
    refresh
    list curl
    failed to install package:curl: version '0.9' of 'curl' was not found
    ");
}
