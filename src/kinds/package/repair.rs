//! What dpkg left half done, by whomever, is finished before apt is asked for anything else: apt refuses to work on top of it.
//!
//! First `dpkg --configure -a`, then what `apt-get -f install` would do, if that removes nothing that is not declared absent.
//!
//! Invariant: a repair that would remove or downgrade a package is refused, and says which.

use std::collections::BTreeSet;

use crate::kinds::package::apt;
use crate::kinds::package::system::{HostPackages, PackageSystem};
use crate::kinds::package::version::compare_versions;
use crate::model::{Class, Failure};
use crate::sys::Host;

/// What was found half done, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// What was half done: packages, with dpkg's word for how far they had come.
    pub found: Vec<String>,
    /// Why some of it still is.
    pub failure: Option<Failure>,
}

impl Repair {
    /// For people: what was found.
    pub fn in_words(&self) -> String {
        format!("dpkg had been interrupted at {}", self.found.join(", "))
    }
}

/// Repairs what is half done on `host`; `absent` are the packages that may be removed. Nothing where nothing is half done, or where
/// somebody else is at work: then it is not left but under way.
pub fn repair(host: &Host, absent: &BTreeSet<&str>) -> Result<Option<Repair>, Failure> {
    repair_system(&HostPackages(host), absent)
}

/// Finishes the configuration of what is unpacked, and nothing else.
pub fn configure(host: &Host) -> Result<(), Failure> {
    HostPackages(host).transact(&apt::configure()).map(drop)
}

fn repair_system(
    system: &dyn PackageSystem,
    absent: &BTreeSet<&str>,
) -> Result<Option<Repair>, Failure> {
    let found = system.read()?.interrupted();
    if found.is_empty() {
        return Ok(None);
    }
    let configured = system.transact(&apt::configure())?;
    if apt::is_locked(&configured.output) {
        return Ok(None);
    }
    let left = system.read()?.interrupted();
    if left.is_empty() {
        return Ok(Some(Repair {
            found,
            failure: None,
        }));
    }
    let cause = format!("failed to repair {}", left.join(", "));
    let simulated = system.run(&apt::fix_simulation())?;
    let simulation = apt::parse_simulation(&simulated.output);
    let failure = if !simulated.is_success() {
        Some(complain(&cause, &simulated.output))
    } else if let Some(damage) = find_damage(&simulation, absent) {
        Some(
            Failure::new(Class::Author, format!("{cause}: {damage}")).with_hint(
                "declare what may go as \"absent\", or repair it by hand with 'apt-get -f install'",
            ),
        )
    } else if simulation.only_configures {
        // Whose configuration failed a moment ago would only fail once more.
        Some(complain(&cause, &configured.output))
    } else {
        let fixed = system.transact(&apt::fix(!simulation.removed.is_empty()))?;
        match system.read()?.interrupted() {
            left if left.is_empty() => None,
            left => Some(complain(
                &format!("failed to repair {}", left.join(", ")),
                &fixed.output,
            )),
        }
    };
    Ok(Some(Repair { found, failure }))
}

/// What a simulated repair would do that nobody asked for.
fn find_damage(simulation: &apt::Simulation, absent: &BTreeSet<&str>) -> Option<String> {
    let lost: Vec<&str> = simulation
        .removed
        .iter()
        .map(String::as_str)
        .filter(|name| !absent.contains(name))
        .collect();
    if !lost.is_empty() {
        return Some(format!("it would remove {}", lost.join(", ")));
    }
    let is_older = |one: &&apt::Installation| {
        one.old
            .as_ref()
            .is_some_and(|old| compare_versions(old, &one.new).is_gt())
    };
    let down = simulation.installed.iter().find(is_older)?;
    Some(format!("it would downgrade {} to {}", down.name, down.new))
}

fn complain(cause: &str, output: &str) -> Failure {
    let failure = match apt::parse_complaint(output, "") {
        complaint if complaint.is_empty() => Failure::new(apt::classify_failure(output), cause),
        complaint => Failure::new(
            apt::classify_failure(output),
            format!("{cause}: {complaint}"),
        ),
    };
    failure.with_hint("'dpkg --audit' says what is half done; what does not depend on it goes on")
}
