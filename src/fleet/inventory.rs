//! The inventory: the hosts, one line each.
//!
//! A host's *traits* are what rules and templates may ask about: its name, labels and facts. The inventory is believed first, then
//! the host's own configuration and what was measured.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{HostIdentity, author, layer, list_toml_files, read_text};
use crate::age::Recipient;
use crate::config::is_host_name;
use crate::document::{Expectation, Mistake, Place, Table, Value, parse};
use crate::git::Tree;
use crate::model::{Class, Failure};

/// The facts there are.
pub(super) const FACTS: [&str; 4] = ["os", "family", "os_version", "arch"];

/// The hosts, by name.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    hosts: BTreeMap<String, Member>,
}

/// One host of the inventory.
#[derive(Debug)]
pub(super) struct Member {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its declared facts, and `family` where it follows from `os`.
    pub facts: BTreeMap<String, String>,
    /// The declaration, for the places in it.
    table: Table,
    /// Layers after those that match.
    pub layers: Vec<(String, Place)>,
    /// Variables stronger than any layer's.
    pub vars: Table,
    /// The machine it has to be.
    machine_id: Option<String>,
    /// Whom its secrets are encrypted for.
    pub age: Option<Recipient>,
}

/// What is known of a host.
#[derive(Debug, Clone)]
pub(super) struct Traits {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its facts, as far as they are known.
    pub facts: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // `host` is read one by one, for its places
struct DeclaredFile {
    host: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // layers and vars are taken with their places
struct DeclaredMember {
    labels: Option<BTreeMap<String, String>>,
    facts: Option<BTreeMap<String, String>>,
    layers: Option<Vec<String>>,
    vars: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    machine_id: Option<String>,
    age: Option<String>,
}

/// Reads `inventory/*.toml`.
pub(super) fn load(tree: &dyn Tree) -> Result<Inventory, Vec<Failure>> {
    let files = list_toml_files(tree, "inventory").map_err(|failure| vec![failure])?;
    let mut failures = Vec::new();
    let mut mistakes = Vec::new();
    let mut united = Table::new();
    for path in files.unwrap_or_default() {
        let source = match read_text(tree, &path) {
            Ok(Some(source)) => source,
            Ok(None) => continue, // listed a moment ago as a file: gone from a working tree
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        };
        match parse(&source) {
            Ok(table) => {
                let top = Place::start_of(&source);
                let expectation = Expectation::new("the inventory");
                match table.deserialize_into::<DeclaredFile>(&top, expectation) {
                    Ok(_) => united.unite(table, &mut mistakes),
                    Err(mut found) => mistakes.append(&mut found),
                }
            }
            Err(mistake) => mistakes.push(mistake),
        }
    }
    let mut hosts = BTreeMap::new();
    let declared = united.get("host").and_then(Value::as_table);
    for (name, entry) in declared.into_iter().flat_map(Table::iter) {
        if !is_host_name(name) {
            mistakes.push(
                Mistake::new(&entry.key, format!("'{name}' is no host name"))
                    .hint("use letters, digits, '-', '_' and '.', starting with a letter or digit"),
            );
            continue;
        }
        match read_member(name, &entry.value) {
            Ok(member) => {
                hosts.insert(name.to_owned(), member);
            }
            Err(mut found) => mistakes.append(&mut found),
        }
    }
    mistakes.sort_by_key(|mistake| mistake.place.as_ref().map(Place::location));
    failures.extend(mistakes.into_iter().map(author));
    if failures.is_empty() {
        Ok(Inventory { hosts })
    } else {
        Err(failures)
    }
}

fn read_member(name: &str, value: &Value) -> Result<Member, Vec<Mistake>> {
    let what = format!("host.{name}");
    let Some(table) = value.as_table() else {
        return Err(vec![Mistake::new(
            &value.place,
            format!(
                "expected a table for `{what}`, found {}",
                value.data.type_name()
            ),
        )]);
    };
    let expectation = Expectation {
        later: &["window", "rollout", "reboot", "block", "instances"],
        hint: |key, _| match key {
            "facts" | "labels" => Some("facts and labels are strings: quote the value".to_owned()),
            _ => None,
        },
        ..Expectation::new(&what)
    };
    let declared: DeclaredMember = table.deserialize_into(&value.place, expectation)?;
    let mut mistakes = Vec::new();
    let mut facts = declared.facts.unwrap_or_default();
    if let Some(written) = table.get("facts").and_then(Value::as_table) {
        for (fact, entry) in written.iter().filter(|(fact, _)| !FACTS.contains(fact)) {
            mistakes.push(
                Mistake::new(&entry.key, format!("unknown fact '{fact}' of {what}")).hint(format!(
                    "the facts are {}; anything else is a label",
                    FACTS.join(", ")
                )),
            );
        }
    }
    if let Some(family) = facts.get("os").and_then(|os| family_of(os)) {
        facts
            .entry("family".to_owned())
            .or_insert_with(|| family.to_owned());
    }
    let layers = layer::read_names(table.get("layers"), &mut mistakes);
    let vars = table
        .get("vars")
        .and_then(Value::as_table)
        .cloned()
        .unwrap_or_default();
    layer::refuse_reserved_names(&vars, &mut mistakes);
    if let Some(machine_id) = &declared.machine_id
        && !(machine_id.len() == 32 && machine_id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        mistakes.push(
            Mistake::new(
                &table.place_of("machine_id", &value.place),
                format!("'{machine_id}' is no machine id"),
            )
            .hint("copy the 32 hexadecimal digits of the host's /etc/machine-id"),
        );
    }
    let age = declared.age.map(|text| {
        let found = text.parse::<Recipient>().ok();
        if found.is_none() {
            let hint = match text.starts_with("AGE-SECRET-KEY-") {
                true => "this is a private key, and whoever reads the repository has it now: make another, and name what 'limpet secret identity' prints",
                false => "copy what 'limpet secret identity' prints on the host: age1…",
            };
            let place = table.place_of("age", &value.place);
            mistakes.push(
                Mistake::new(&place, format!("`age` of {what} is no public key")).hint(hint),
            );
        }
        found
    });
    if mistakes.is_empty() {
        Ok(Member {
            age: age.flatten(),
            labels: declared.labels.unwrap_or_default(),
            facts,
            layers,
            vars,
            machine_id: declared.machine_id,
            table: table.clone(),
        })
    } else {
        Err(mistakes)
    }
}

impl Inventory {
    /// The hosts' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(String::as_str)
    }

    /// The hosts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.hosts
            .iter()
            .map(|(name, member)| (name.as_str(), member))
    }

    /// The host called `name`.
    pub fn get(&self, name: &str) -> Option<&Member> {
        self.hosts.get(name)
    }

    /// What is known of `host`.
    pub fn traits(&self, host: &HostIdentity) -> Traits {
        let mut traits = Traits {
            name: host.name.clone(),
            labels: host.labels.clone(),
            facts: host.facts.clone(),
        };
        if let Some(member) = self.get(&host.name) {
            traits.labels.extend(member.labels.clone());
            traits.facts.extend(member.facts.clone());
        }
        if !host.facts.is_empty() {
            // On the machine, what could not be measured is not there: no rule about it fits.
            for fact in FACTS {
                traits.facts.entry(fact.to_owned()).or_default();
            }
        }
        traits
    }

    /// Is `host` the machine that the inventory means: what differs is `held`, or only worth one of `warnings`.
    pub fn compare_with_machine(
        &self,
        host: &HostIdentity,
        held: &mut Vec<Failure>,
        warnings: &mut Vec<Failure>,
    ) {
        let Some(member) = self.get(&host.name) else {
            return;
        };
        let facts = member.table.get("facts").and_then(Value::as_table);
        for (fact, entry) in facts.into_iter().flat_map(Table::iter) {
            let (Some(declared), Some(measured)) = (entry.value.as_str(), host.facts.get(fact))
            else {
                continue;
            };
            if fits(fact, declared, measured) {
                continue;
            }
            let failure = Mistake::new(
                &entry.value.place,
                format!("fact '{fact}' of host '{}' is declared as '{declared}', and is '{measured}' on this machine", host.name),
            )
            .hint("correct the inventory, or the name of this host in /etc/limpet/limpet.toml")
            .into_failure(Class::Host);
            if fact == "os_version" {
                warnings.push(failure);
            } else {
                held.push(failure);
            }
        }
        if let (Some(declared), Some(measured)) = (&member.machine_id, &host.machine_id)
            && !declared.eq_ignore_ascii_case(measured)
            && let Some(value) = member.table.get("machine_id")
        {
            held.push(
                Mistake::new(
                    &value.place,
                    format!("host '{}' is another machine: its machine id is '{measured}'", host.name),
                )
                .hint("give this machine a name of its own, or correct the inventory if the hardware was replaced")
                .into_failure(Class::Host),
            );
        }
    }
}

/// Does a `measured` fact fit what is `declared`: versions by their first components, all others exactly.
pub(super) fn fits(fact: &str, declared: &str, measured: &str) -> bool {
    measured == declared
        || fact == "os_version"
            && measured
                .strip_prefix(declared)
                .is_some_and(|rest| rest.starts_with('.'))
}

/// The family of an os-release ID that we know.
pub(super) fn family_of(os: &str) -> Option<&'static str> {
    match os {
        "debian" | "ubuntu" | "raspbian" | "linuxmint" | "devuan" => Some("debian"),
        "rhel" | "centos" | "fedora" | "rocky" | "almalinux" | "ol" | "amzn" => Some("rhel"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_fit(fact: &str, declared: &str, measured: &str, expected: bool) {
        assert_eq!(fits(fact, declared, measured), expected);
    }

    #[test]
    fn a_version_fits_by_its_first_components() {
        check_fit("os_version", "9", "9.4", true);
        check_fit("os_version", "9", "9", true);
        check_fit("os_version", "9", "90", false);
        check_fit("os_version", "9.4", "9", false);
        check_fit("arch", "arm", "arm64", false);
        check_fit("arch", "arm64", "arm64", true);
    }
}
