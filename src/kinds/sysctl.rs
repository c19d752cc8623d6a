//! Parameters of the kernel: their live values. The file below /etc/sysctl.d that brings a value back at boot is a path, which the
//! same resource brings.
//!
//! A value that is *elsewhere* belongs to the host's network, and we have one of our own: whoever shares the host's says what it is.
//!
//! Invariant: written by systemd-sysctl(8) alone, in the host's name spaces. What an untrusted process says of a value decides only
//! whether it is written anew; what is put back later was read by root.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::kinds::kind::{self, Contents, Owned, PlannedChange, Step};
use crate::model::{
    Action, Class, Failure, OnRemoval, Outcome, Reason, ResourceId, is_network_sysctl, sysctl_path,
};
use crate::sys::Host;
use crate::sys::command::Command;

/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 512;

/// The program that knows how values are written.
const PROGRAM: &str = "/usr/lib/systemd/systemd-sysctl";

/// One declared parameter; its name is the resource's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredSysctl {
    /// `sysctl:<name>`.
    pub id: ResourceId,
    /// The value, its words one space apart.
    pub value: String,
    /// Look, but do not touch.
    pub report: bool,
    /// What happens when it is no longer declared.
    pub on_removal: OnRemoval,
}

/// The value that was there before; none where there was no such parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    /// Its words, one space apart.
    pub value: Option<String>,
}

/// What was seen of every parameter that was asked about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// By name; none where there is no such parameter. What could not be asked about is missing.
    pub values: BTreeMap<String, Result<Option<String>, Failure>>,
    /// Those that only somebody in the host's network can see.
    pub elsewhere: BTreeSet<String>,
}

/// A value to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysctlChange {
    /// The resource it is written for; the parameter's name is in it.
    pub id: ResourceId,
    /// The value.
    pub value: String,
}

/// The kind.
#[derive(Debug)]
pub struct Sysctls;

impl kind::Kind for Sysctls {
    type Desired = DesiredSysctl;
    type Observed = Observed;
    type Original = Original;
    type Applied = serde_json::Value;
    type Change = SysctlChange;

    /// An image has no kernel of its own: nothing is seen there, and nothing written.
    fn observe(host: &Host, desired: &[DesiredSysctl], owned: &[Owned<Original>]) -> Observed {
        let mut observed = Observed::default();
        if !host.is_running_system() {
            return observed;
        }
        let desired = desired.iter().map(|item| item.id.name.as_str());
        let names: BTreeSet<&str> = desired
            .chain(owned.iter().map(|known| known.key.as_str()))
            .collect();
        let mut shares_network = None;
        for name in names {
            let sees = !is_network_sysctl(name)
                || *shares_network.get_or_insert_with(|| sees_network(host));
            if sees {
                observed.values.insert(name.to_owned(), read(host, name));
            } else {
                observed.elsewhere.insert(name.to_owned());
            }
        }
        observed
    }

    fn plan(
        desired: &[DesiredSysctl],
        observed: &Observed,
        owned: &[Owned<Original>],
    ) -> Vec<Step<Original, SysctlChange>> {
        let declared = desired.iter().filter_map(|item| {
            Some(match observed.values.get(item.id.name.as_str())? {
                Err(failure) => Step::Blocked(failure.clone().about(item.id.clone())),
                Ok(found) if found.as_ref() == Some(&item.value) => return None,
                Ok(found) => {
                    let (action, reason) = match found {
                        Some(_) => (Action::Update, Reason::Differs),
                        None => (Action::Create, Reason::Missing),
                    };
                    change(&item.id, action, reason, found.clone(), item.value.clone())
                }
            })
        });
        let is_declared = |key: &str| desired.iter().any(|item| item.id.name == *key);
        let undeclared = owned.iter().filter(|known| !is_declared(&known.key));
        let undeclared = undeclared.filter_map(|known| {
            let found = match observed.values.get(known.key.as_str())? {
                Ok(found) => found.as_deref(),
                Err(failure) => {
                    return Some(Step::Blocked(failure.clone().about(known.id.clone())));
                }
            };
            let before = known.original.value.as_deref();
            let is_ours = found.is_some() && found == known.applied["value"].as_str();
            Some(match before {
                // Whoever wrote another value since means it, and one that cannot be read cannot be put back.
                Some(before)
                    if is_ours && found != Some(before) && known.on_removal != OnRemoval::Keep =>
                {
                    change(
                        &known.id,
                        Action::Restore,
                        Reason::Undeclared,
                        known.original.value.clone(),
                        before.to_owned(),
                    )
                }
                _ => Step::Release {
                    id: known.id.clone(),
                    key: known.key.clone(),
                },
            })
        });
        declared.chain(undeclared).collect()
    }

    fn apply(host: &Host, _contents: &dyn Contents, changes: &[&SysctlChange]) -> Vec<Outcome> {
        // One program for all; which of them it could not write, it only tells people.
        if changes.len() > 1 && write(host, changes).is_ok() {
            return vec![Outcome::Done; changes.len()];
        }
        let outcome = |change: &&SysctlChange| match write(host, &[change]) {
            Ok(()) => Outcome::Done,
            Err(failure) => Outcome::Failed(failure.about(change.id.clone())),
        };
        changes.iter().map(outcome).collect()
    }
}

fn change(
    id: &ResourceId,
    action: Action,
    reason: Reason,
    before: Option<String>,
    value: String,
) -> Step<Original, SysctlChange> {
    Step::Change(Box::new(PlannedChange {
        id: id.clone(),
        key: id.name.clone(),
        action,
        reason,
        fields: vec!["value".to_owned()],
        original: Original { value: before },
        removes: false,
        change: SysctlChange {
            id: id.clone(),
            value,
        },
    }))
}

impl Observed {
    /// What was there before, of a parameter that is as declared already.
    pub fn original(&self, name: &str) -> Option<Original> {
        let value = self.values.get(name)?.as_ref().ok()?.clone();
        Some(Original { value })
    }

    /// Takes what somebody in the host's network saw of one that is elsewhere.
    pub fn take(&mut self, name: &str, seen: Result<Option<String>, Failure>) {
        if self.elsewhere.remove(name) {
            let seen = seen.map(|value| value.map(|value| words(&value)));
            self.values.insert(name.to_owned(), seen);
        }
    }
}

/// What the inventory says of a parameter once it is applied.
pub fn applied(desired: &DesiredSysctl) -> serde_json::Value {
    serde_json::json!({ "value": desired.value })
}

/// `value` as it is compared: its words, one space apart. The kernel puts tabs between them.
pub fn words(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What is there now, read by root: whoever was asked before need not be believed.
pub fn read_original(host: &Host, change: &SysctlChange) -> Result<Original, Failure> {
    let name = change.id.name.as_str();
    let value = match !is_network_sysctl(name) || sees_network(host) {
        true => read(host, name)?,
        false => read_outside(host, name)?,
    };
    Ok(Original { value })
}

/// Is our network the host's: then its parameters are those that we see.
fn sees_network(host: &Host) -> bool {
    host.shares_name_space("net")
}

fn path(name: &str) -> Result<String, Failure> {
    let path = sysctl_path(name).ok_or_else(|| {
        Failure::new(
            Class::Bug,
            format!("failed to read a parameter of the kernel: '{name}' is no name"),
        )
    })?;
    Ok(format!("/proc/sys/{path}"))
}

fn read(host: &Host, name: &str) -> Result<Option<String>, Failure> {
    let bytes = host.read_file(&path(name)?, MAX_VALUE_BYTES as u64)?;
    Ok(bytes.map(|bytes| words(&String::from_utf8_lossy(&bytes))))
}

/// The same in the host's network, which costs a program.
fn read_outside(host: &Host, name: &str) -> Result<Option<String>, Failure> {
    let path = path(name)?;
    let result = host.run_outside(&Command {
        argv: ["cat", "--", &path].map(str::to_owned).to_vec(),
        ..Command::default()
    })?;
    match result.is_success() {
        true => Ok(Some(words(&result.output))),
        false if result.output.contains("No such file") => Ok(None),
        false => Err(Failure::new(
            Class::Host,
            format!("failed to read '{path}': cat {}", result.complaint()),
        )),
    }
}

/// Writes values as at boot, but for what cannot be written being a failure.
fn write(host: &Host, changes: &[&SysctlChange]) -> Result<(), Failure> {
    let lines: String = changes
        .iter()
        .map(|change| format!("{} = {}\n", change.id.name, change.value))
        .collect();
    let result = host.run_outside(&Command {
        argv: [PROGRAM, "--strict", "/dev/stdin"]
            .map(str::to_owned)
            .to_vec(),
        input: Some(lines.into_bytes()),
        ..Command::default()
    })?;
    if result.is_success() {
        return Ok(());
    }
    Err(Failure::new(
        Class::Host,
        format!(
            "failed to set parameters of the kernel: systemd-sysctl {}",
            result.complaint()
        ),
    )
    .with_hint(
        "a parameter that is not there comes with a module of the kernel: see 'sysctl -a', and load it first (needs)",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::kind::Kind as _;
    use crate::model::Kind;

    fn desired(value: &str) -> DesiredSysctl {
        DesiredSysctl {
            id: ResourceId::new(Kind::Sysctl, "net.ipv4.ip_forward"),
            value: value.to_owned(),
            report: false,
            on_removal: OnRemoval::Restore,
        }
    }

    fn owned(before: Option<&str>, applied: &str) -> Owned<Original> {
        let desired = desired(applied);
        Owned {
            key: desired.id.name.clone(),
            original: Original {
                value: before.map(str::to_owned),
            },
            on_removal: desired.on_removal,
            applied: super::applied(&desired),
            id: desired.id,
        }
    }

    fn check(desired: &[DesiredSysctl], found: Option<&str>, owned: &[Owned<Original>]) -> String {
        let mut observed = Observed::default();
        let value = Ok(found.map(str::to_owned));
        observed
            .values
            .insert("net.ipv4.ip_forward".to_owned(), value);
        let told = |step: &Step<Original, SysctlChange>| match step {
            Step::Change(it) => format!("{} {} {}", it.action, it.reason, it.change.value),
            Step::Release { .. } => "release".to_owned(),
            Step::Blocked(failure) => failure.to_string(),
        };
        let steps = Sysctls::plan(desired, &observed, owned);
        steps.iter().map(told).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_value_is_written_where_it_differs_and_put_back_where_it_is_still_ours() {
        let one = [desired("1")];
        assert_eq!(check(&one, Some("0"), &[]), "update differs 1");
        assert_eq!(check(&one, None, &[]), "create missing 1");
        assert_eq!(check(&one, Some("1"), &[]), "");
        let ours = [owned(Some("0"), "1")];
        assert_eq!(check(&one, Some("0"), &ours), "update differs 1");
        assert_eq!(check(&[], Some("1"), &ours), "restore undeclared 0");
        assert_eq!(check(&[], Some("0"), &ours), "release");
        assert_eq!(check(&[], Some("2"), &ours), "release", "somebody else's");
        assert_eq!(check(&[], None, &ours), "release");
        assert_eq!(check(&[], Some("1"), &[owned(None, "1")]), "release");
    }

    #[test]
    fn what_nobody_could_see_is_neither_written_nor_forgotten() {
        let steps = Sysctls::plan(&[desired("1")], &Observed::default(), &[owned(None, "1")]);
        assert!(steps.is_empty(), "{steps:?}");
        let steps = Sysctls::plan(&[], &Observed::default(), &[owned(Some("0"), "1")]);
        assert!(steps.is_empty(), "{steps:?}");
    }

    #[test]
    fn a_name_leads_below_its_directory_and_nowhere_else() {
        let path = |name| sysctl_path(name).unwrap_or_else(|| "-".to_owned());
        assert_eq!(path("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(
            path("net.ipv4.conf.eth0/100.rp_filter"),
            "net/ipv4/conf/eth0.100/rp_filter"
        );
        for name in [
            "",
            "swappiness",
            "vm..x",
            ".vm.x",
            "vm.x.",
            "net/ipv4/ip_forward",
            "vm./.x",
            "vm.//x",
            "vm.*",
            "-vm.x",
            "vm.a b",
            "vm.x=1",
            "vm.é",
        ] {
            assert_eq!(path(name), "-", "{name}");
        }
    }
}
