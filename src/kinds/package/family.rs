//! The two families of package managers: what limpet asks of either, in that one's words.
//!
//! Everything above is the same for both. A family builds arguments and understands output; it runs nothing.
//!
//! Invariant: a host has one family, and where that cannot be told, nothing is changed.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::config::PackageManager;
use crate::kinds::package::apt::{self, NotFound, Permissions, Request, Simulation};
use crate::kinds::package::dnf::{self, Program};
use crate::kinds::package::rpm;
use crate::kinds::package::status::Database;
use crate::kinds::package::version;
use crate::model::{Class, Failure};
use crate::sys::Host;
use crate::sys::command::{Command, CommandResult};
use crate::sys::files::{Entry, Hashing};

/// There while a system runs that rpm-ostree or bootc has booted.
const OSTREE: &str = "/run/ostree-booted";
/// dpkg's database.
const DPKG: &str = "/var/lib/dpkg/status";

/// A family of package managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// dpkg and apt.
    #[default]
    Apt,
    /// rpm and dnf.
    Dnf(Program),
}

impl Family {
    /// The family of `host`: the one that its configuration names, else dpkg's where that has a database, else rpm's where there is one.
    pub fn of(host: &Host) -> Result<Self, Failure> {
        if host.exists(OSTREE)? {
            return Err(Failure::new(
                Class::Host,
                "refused to manage packages: this host runs from an image, by rpm-ostree or bootc",
            )
            .with_hint("put the packages into the image; files, units and all else are managed"));
        }
        let is_apt = match host.chosen_package_manager() {
            Some(chosen) => chosen == PackageManager::Apt,
            None => host.exists(DPKG)? || !host.exists(rpm::PROGRAM)?,
        };
        if is_apt {
            return Ok(Family::Apt);
        }
        let is_dnf5 = match host.look("/usr/bin/dnf", Hashing::Skip)?.entry {
            Entry::Absent if !host.exists("/usr/bin/dnf5")? => {
                return Err(Failure::new(
                    Class::Host,
                    "refused to manage packages: there is no dnf",
                )
                .with_hint("of the package managers that use rpm, limpet knows dnf alone"));
            }
            Entry::Absent => true,
            Entry::Symlink(target) => target.ends_with("dnf5"),
            _ => false,
        };
        Ok(Family::Dnf(match is_dnf5 {
            true => Program::Dnf5,
            false => Program::Dnf4,
        }))
    }

    /// The program that changes packages, for people.
    pub fn program(self) -> &'static str {
        match self {
            Family::Apt => "apt-get",
            Family::Dnf(program) => program.name(),
        }
    }

    /// What its program is called without its words.
    pub fn name(self) -> &'static str {
        match self {
            Family::Apt => "apt",
            Family::Dnf(_) => "dnf",
        }
    }

    /// How people see which versions of `name` there are.
    pub fn how_to_list(self, name: &str) -> String {
        match self {
            Family::Apt => format!("apt-cache madison {name}"),
            Family::Dnf(program) => format!("{} list --showduplicates {name}", program.name()),
        }
    }

    /// How people take a hold away.
    pub fn how_to_unhold(self, name: &str) -> String {
        match self {
            Family::Apt => format!("apt-mark unhold {name}"),
            Family::Dnf(program) => format!("{} versionlock delete {name}", program.name()),
        }
    }

    /// Which of two versions is newer.
    pub fn compare_versions(self, left: &str, right: &str) -> Ordering {
        match self {
            Family::Apt => version::compare_versions(left, right),
            Family::Dnf(_) => rpm::version::compare_versions(left, right),
        }
    }

    /// Is `version` the wanted one, or one that the wanted pattern stands for.
    pub fn fits(self, wanted: &str, version: &str) -> bool {
        match self {
            Family::Apt => version::fits(wanted, version),
            Family::Dnf(_) => rpm::version::fits(wanted, version),
        }
    }

    /// Is `version` newer than everything that `pattern` stands for, as far as that is sure.
    pub fn is_surely_newer(self, version: &str, pattern: &str) -> bool {
        match self {
            Family::Apt => version::is_surely_newer(version, pattern),
            // Only what the repositories have tells: an epoch may be left out of a pattern.
            Family::Dnf(_) => false,
        }
    }

    /// Why a text is neither a version nor a pattern for one.
    pub fn find_version_mistake(self, wanted: &str) -> Option<&'static str> {
        match self {
            Family::Apt => version::find_mistake(wanted),
            Family::Dnf(_) => rpm::version::find_mistake(wanted),
        }
    }

    /// May a package be called so.
    pub fn is_package_name(self, name: &str) -> bool {
        match self {
            Family::Apt => is_debian_name(name),
            Family::Dnf(_) => dnf::is_package_name(name),
        }
    }

    /// The parts of a set of changes that go into transactions of their own, in their order; `is_removal` tells of each what it is.
    pub(super) fn split(
        self,
        changes: Vec<usize>,
        is_removal: impl Fn(&usize) -> bool,
    ) -> Vec<Vec<usize>> {
        match self {
            Family::Apt => vec![changes],
            // One command of dnf does one thing.
            Family::Dnf(_) => {
                let (removals, others) = changes.into_iter().partition(is_removal);
                vec![removals, others]
            }
        }
    }

    /// Computes what a transaction would do.
    pub(super) fn simulation(self, requests: &[Request], permissions: Permissions) -> Command {
        match self {
            Family::Apt => apt::simulation(requests, permissions),
            Family::Dnf(program) => dnf::simulation(program, requests, permissions),
        }
    }

    /// Was that computed: is what was asked possible.
    pub(super) fn is_possible(self, simulated: &CommandResult) -> bool {
        match self {
            Family::Apt => simulated.is_success(),
            Family::Dnf(_) => dnf::is_possible(&simulated.output),
        }
    }

    /// What it would do.
    pub(super) fn parse_simulation(self, output: &str, database: &Database) -> Simulation {
        match self {
            Family::Apt => apt::parse_simulation(output),
            Family::Dnf(_) => dnf::parse_simulation(output, database),
        }
    }

    /// Computes which dependencies nothing needs already, where the family does not tell those from others by itself.
    pub(super) fn unneeded_simulation(self) -> Option<Command> {
        match self {
            Family::Apt => Some(apt::unneeded_simulation()),
            Family::Dnf(_) => None,
        }
    }

    /// The transaction itself.
    pub(super) fn transaction(self, requests: &[Request], permissions: Permissions) -> Command {
        match self {
            Family::Apt => apt::transaction(requests, permissions),
            Family::Dnf(program) => dnf::transaction(program, requests, permissions),
        }
    }

    /// Unpacks a version again that is installed.
    pub(super) fn reinstallation(self, name: &str, version: &str) -> Command {
        match self {
            Family::Apt => apt::reinstallation(name, version),
            Family::Dnf(program) => dnf::reinstallation(program, name, version),
        }
    }

    /// Fetches the lists of packages.
    pub(super) fn refresh(self) -> Command {
        match self {
            Family::Apt => apt::refresh(),
            Family::Dnf(program) => dnf::refresh(program),
        }
    }

    /// Lists the versions that repositories have of these packages.
    pub(super) fn list_versions(self, names: &[&str]) -> Command {
        match self {
            Family::Apt => apt::list_versions(names),
            Family::Dnf(program) => dnf::list_versions(program, names),
        }
    }

    /// Each package's versions, in no order.
    pub(super) fn parse_versions(self, output: &str) -> BTreeMap<String, BTreeSet<String>> {
        match self {
            Family::Apt => apt::parse_versions(output),
            Family::Dnf(_) => dnf::parse_versions(output),
        }
    }

    /// Puts packages on hold, or takes their holds away.
    pub(super) fn mark_held(self, names: &[&str], is_held: bool) -> Command {
        match self {
            Family::Apt => apt::mark_held(names, is_held),
            Family::Dnf(program) => dnf::mark_held(program, names, is_held),
        }
    }

    /// Must a hold be taken away before its package can be changed.
    pub(super) fn holds_forbid(self) -> bool {
        matches!(self, Family::Dnf(_))
    }

    /// Marks packages as having come along with others.
    pub(super) fn mark_automatic(self, names: &[&str]) -> Command {
        match self {
            Family::Apt => apt::mark_automatic(names),
            Family::Dnf(program) => dnf::mark_automatic(program, names),
        }
    }

    /// Which of the requests could not be found.
    pub(super) fn parse_not_found(self, output: &str, requests: &[Request]) -> Vec<NotFound> {
        match self {
            Family::Apt => apt::parse_not_found(output),
            Family::Dnf(_) => dnf::parse_not_found(output, requests),
        }
    }

    /// What went wrong with `name`, or with the whole transaction; empty when nothing is said.
    pub(super) fn parse_complaint(self, output: &str, name: &str) -> String {
        match self {
            Family::Apt => apt::parse_complaint(output, name),
            Family::Dnf(_) => dnf::parse_complaint(output, name),
        }
    }

    /// Who must act when a transaction failed as a whole.
    pub(super) fn classify_failure(self, output: &str) -> Class {
        match self {
            Family::Apt => apt::classify_failure(output),
            Family::Dnf(_) => dnf::classify_failure(output),
        }
    }

    /// Does another package manager hold the lock.
    pub(super) fn is_locked(self, output: &str) -> bool {
        match self {
            Family::Apt => apt::is_locked(output),
            Family::Dnf(_) => dnf::is_locked(output),
        }
    }

    /// Who holds the lock.
    pub(super) fn lock_holder(self, output: &str) -> Option<&str> {
        match self {
            Family::Apt => apt::lock_holder(output),
            Family::Dnf(_) => dnf::lock_holder(output),
        }
    }

    /// Did archives fail to arrive, as they do when the lists are older than the repository.
    pub(super) fn has_stale_lists(self, output: &str) -> bool {
        match self {
            Family::Apt => apt::has_stale_lists(output),
            Family::Dnf(_) => dnf::has_stale_lists(output),
        }
    }
}

/// May a package of dpkg be called so: at least two characters, lower case letters, digits and `+ - .`; perhaps with an architecture. See
/// deb-control(5).
fn is_debian_name(name: &str) -> bool {
    let (name, architecture) = match name.split_once(':') {
        Some((name, architecture)) => (name, Some(architecture)),
        None => (name, None),
    };
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() >= 2
        && name.bytes().next().is_some_and(is_word)
        && name
            .bytes()
            .all(|byte| is_word(byte) || b"+-.".contains(&byte))
        && architecture.is_none_or(|architecture| {
            !architecture.is_empty()
                && architecture
                    .bytes()
                    .all(|byte| is_word(byte) || byte == b'-')
        })
}
