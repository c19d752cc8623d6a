//! Keeping the scripts of packages from restarting units whose restarts wait for a person: `/usr/sbin/policy-rc.d`, while packages
//! are changed.
//!
//! What was there before changes places with ours in one step, and back: there is no moment without it, and it comes back as the file it
//! was. Ours does what it did wherever it has nothing to say itself, which is everywhere outside of limpet's own transactions.
//!
//! Invariant: whatever ends in between, [`end`] finds out from the two files alone what is whose.

use crate::kinds::package::family::Family;
use crate::model::{Class, Failure};
use crate::sys::Host;
use crate::sys::files::{Entry, Hashing};

/// Where Debian's tools ask.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Where it is meanwhile, what was there before.
const BEFORE: &str = "/usr/sbin/policy-rc.d.before-limpet";
/// Where ours notes what it denied. A boot empties it, and pays.
const WITHHELD: &str = "/run/limpet/withheld";

const SCRIPT: &str = include_str!("policy-rc.d");
/// The beginning of the second line of ours, whatever version wrote it.
const MARK: &[u8] = b"#!/bin/sh\n# limpet: ";
/// More than this is not ours.
const SCRIPT_LIMIT: u64 = 64 << 10;
const WITHHELD_LIMIT: u64 = 1 << 20;

/// A restart that a package's script was to make.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Withheld {
    /// The unit.
    pub unit: String,
    /// The package; empty where its script did not say.
    pub package: String,
}

/// Has the restarts of `units` withheld from now on.
pub fn begin(host: &Host, units: &[&str]) -> Result<(), Failure> {
    // The scripts of rpm's packages ask nobody.
    let is_asked = Family::of(host).is_ok_and(|family| family == Family::Apt);
    if !is_asked || !host.is_running_system() || !host.systemd().is_available() {
        return Ok(());
    }
    restore(host)?;
    if units.is_empty() {
        return Ok(());
    }
    let script = script(units);
    if host.look(POLICY, Hashing::Skip)?.entry == Entry::Absent {
        return host.write_own_file(POLICY, script.as_bytes(), 0o755);
    }
    host.write_own_file(BEFORE, script.as_bytes(), 0o755)?;
    host.exchange_files(POLICY, BEFORE)
}

/// Ends it, and returns what was withheld, which is remembered until [`forget`].
pub fn end(host: &Host) -> Result<Vec<Withheld>, Failure> {
    if !host.is_running_system() {
        return Ok(Vec::new());
    }
    restore(host)?;
    let noted = host.read_file(WITHHELD, WITHHELD_LIMIT)?;
    Ok(parse(&String::from_utf8_lossy(&noted.unwrap_or_default())))
}

/// Forgets what was withheld: it is written down as owed.
pub fn forget(host: &Host) -> Result<(), Failure> {
    host.remove_own_file(WITHHELD)
}

/// Puts back what was there before ours.
fn restore(host: &Host) -> Result<(), Failure> {
    let has_before = host.look(BEFORE, Hashing::Skip)?.entry != Entry::Absent;
    match (is_ours(host, POLICY)?, has_before) {
        (true, true) => host.rename_own_file(BEFORE, POLICY),
        (true, false) => host.remove_own_file(POLICY),
        // Ours never took its place, or a package has brought or removed its own since.
        (false, true) => host.remove_own_file(BEFORE),
        (false, false) => Ok(()),
    }
}

fn is_ours(host: &Host, path: &str) -> Result<bool, Failure> {
    match host.look(path, Hashing::Skip)?.entry {
        Entry::File { size, .. } if size <= SCRIPT_LIMIT => {
            let bytes = host.read_file(path, SCRIPT_LIMIT)?;
            Ok(bytes.is_some_and(|bytes| bytes.starts_with(MARK)))
        }
        Entry::Special(what) => Err(Failure::new(
            Class::Host,
            format!("failed to look at '{path}': it is {what}"),
        )),
        _ => Ok(false),
    }
}

fn script(units: &[&str]) -> String {
    SCRIPT
        .replace("@UNITS@", &units.join(" "))
        .replace("@BEFORE@", BEFORE)
        .replace("@WITHHELD@", WITHHELD)
}

fn parse(noted: &str) -> Vec<Withheld> {
    let mut withheld: Vec<Withheld> = noted
        .lines()
        .filter_map(|line| {
            let (package, unit) = line.split_once(' ')?;
            Some(Withheld {
                unit: unit.to_owned(),
                package: package.trim_matches('-').to_owned(),
            })
        })
        .collect();
    withheld.sort();
    withheld.dedup_by(|one, other| one.unit == other.unit);
    withheld
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_known_by_its_beginning_and_has_nothing_left_to_fill_in() {
        let script = script(&["app.service", "db.service"]);
        assert!(script.as_bytes().starts_with(MARK));
        assert!(script.contains("units='app.service db.service'\n"));
        for place in ["@UNITS@", "@BEFORE@", "@WITHHELD@"] {
            assert!(SCRIPT.contains(place) && !script.contains(place), "{place}");
        }
    }

    #[test]
    fn what_was_withheld_is_told_once_for_each_unit() {
        let withheld =
            parse("app app.service\ndb db.service\napp app.service\n- cache.service\nhalf");
        let told: Vec<(&str, &str)> = withheld
            .iter()
            .map(|it| (it.unit.as_str(), it.package.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("app.service", "app"),
                ("cache.service", ""),
                ("db.service", "db")
            ]
        );
    }
}
