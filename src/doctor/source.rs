//! The agent, the fetcher, and the source they follow.

use std::path::Path;

use crate::config::{CONFIG_FILE, Config, FETCH_SOCKET};
use crate::cycle::{fetcher, state};
use crate::doctor::Finding;
use crate::fetch::{Client, Lane};
use crate::sys::Host;
use crate::sys::files::{Entry, Hashing};
use crate::sys::systemd::{Property, PropertyName};

const AGENT: &str = "limpet.service";
const FETCHER: &str = fetcher::UNIT;
const FETCHER_SOCKET: &str = "limpet-fetch.socket";

/// Where drop-ins of the fetcher lie.
const FETCHER_DROPINS: [&str; 3] = [
    "/etc/systemd/system/limpet-fetch.service.d",
    "/run/systemd/system/limpet-fetch.service.d",
    "/usr/lib/systemd/system/limpet-fetch.service.d",
];

/// The longest drop-in that is read, in bytes.
const DROPIN_LIMIT: u64 = 64 << 10;

/// Are limpet's units enabled and active, and is none failed.
pub(super) fn units(host: &Host, is_enrolled: bool) -> Vec<Finding> {
    let check = "units";
    if !host.systemd().is_available() {
        return vec![Finding::unknown(check, "there is no running systemd here")];
    }
    let names = [AGENT, FETCHER_SOCKET, FETCHER].map(str::to_owned);
    let listed = host.systemd().list_units(&names);
    let states = host.systemd().unit_file_states(&names[..2]);
    let (listed, states) = match (listed, states) {
        (Ok(listed), Ok(states)) => (listed, states),
        (Err(error), _) | (_, Err(error)) => {
            return vec![
                Finding::wrong(check, format!("systemd does not answer: {error}"))
                    .hint("see 'systemctl status dbus.service'"),
            ];
        }
    };
    let mut findings = Vec::new();
    let fetcher = fetcher::trouble(host);
    for (unit, name) in listed.iter().zip(&names) {
        let file_state = names.iter().zip(&states).find(|(known, _)| *known == name);
        let is_off = file_state.is_some_and(
            |(_, state)| matches!(state, Ok(state) if state != "enabled" && state != "enabled-runtime"),
        );
        if unit.load == "not-found" {
            findings.push(
                Finding::wrong(check, format!("{name} is not installed"))
                    .hint("install the package 'limpet' again"),
            );
        } else if let Some(failure) = Some(&fetcher)
            .filter(|_| name == FETCHER)
            .and_then(Option::as_ref)
        {
            findings.push(Finding::of(check, failure));
        } else if unit.active == "failed" {
            findings.push(
                Finding::wrong(check, format!("{name} has failed")).hint(format!(
                    "see 'systemctl status {name}' and 'journalctl -u {name}'"
                )),
            );
        } else if is_enrolled && name != FETCHER && unit.active != "active" {
            findings.push(
                Finding::wrong(
                    check,
                    format!(
                        "{name} is {}: nothing keeps this host as declared",
                        unit.active
                    ),
                )
                .hint(format!("systemctl enable --now {name}")),
            );
        } else if is_enrolled && is_off {
            findings.push(
                Finding::warning(
                    check,
                    format!("{name} is not enabled: it is not started at boot"),
                )
                .hint(format!("systemctl enable {name}")),
            );
        }
    }
    if findings.is_empty() {
        let detail = match is_enrolled {
            true => format!("{AGENT} and {FETCHER_SOCKET} are enabled and active"),
            false => format!(
                "{AGENT} and {FETCHER_SOCKET} are installed, and wait for this host to be enrolled"
            ),
        };
        findings.push(Finding::ok(check, detail));
    }
    findings
}

/// Do the running processes run the program that is installed.
pub(super) fn running_binaries(host: &Host, is_root: bool) -> Option<Finding> {
    let check = "version";
    let version = env!("CARGO_PKG_VERSION");
    if !host.systemd().is_available() {
        return Some(Finding::ok(check, version));
    }
    let names = [AGENT, FETCHER].map(str::to_owned);
    let listed = host.systemd().list_units(&names).ok()?;
    let wanted: Vec<PropertyName<'_>> = listed
        .iter()
        .map(|unit| PropertyName {
            object: &unit.object,
            interface: "Service",
            name: "MainPID",
        })
        .collect();
    let pids = host.systemd().properties(&wanted).ok()?;
    let mut outdated = Vec::new();
    for (name, pid) in names.iter().zip(pids) {
        let Ok(Property::Number(pid @ 1..)) = pid else {
            continue;
        };
        let path = format!("/proc/{pid}/exe");
        match host.look(&path, Hashing::Skip).map(|look| look.entry) {
            Ok(Entry::Symlink(target)) if target.ends_with(" (deleted)") => {
                outdated.push(name.as_str())
            }
            Ok(_) => {}
            Err(_) if !is_root => {
                return Some(Finding::unknown(
                    check,
                    format!("{version}; only root sees which program runs"),
                ));
            }
            Err(_) => {}
        }
    }
    Some(if outdated.is_empty() {
        Finding::ok(check, format!("{version}, and the processes run it"))
    } else {
        let units = outdated.join(" ");
        Finding::warning(
            check,
            format!("{version} is installed, and {units} still runs another"),
        )
        .hint(format!("systemctl restart {units}"))
    })
}

/// Are the credentials that the configuration names given to the fetcher.
pub(super) fn credentials(host: &Host, config: &Config) -> Vec<Finding> {
    let check = "credentials";
    let Some(name) = &config.source.token else {
        return Vec::new();
    };
    let mut given = None;
    for directory in FETCHER_DROPINS {
        for file in host.list_own_directory(directory).unwrap_or_default() {
            let path = format!("{directory}/{file}");
            let text = host
                .read_file(&path, DROPIN_LIMIT)
                .ok()
                .flatten()
                .unwrap_or_default();
            given = find_credential(&String::from_utf8_lossy(&text), name).or(given);
        }
    }
    let finding = match given {
        None => Finding::wrong(
            check,
            format!("the configuration names the credential '{name}', which {FETCHER} is not given"),
        )
        .hint(format!("systemctl edit {FETCHER}, and write: [Service] LoadCredential={name}:/etc/limpet/{name}")),
        Some(source) if source.starts_with('/') && !host.exists(&source).unwrap_or(true) => {
            Finding::wrong(check, format!("the credential '{name}' is to come from '{source}', which does not exist"))
                .hint(format!("put the secret into '{source}', owned by root with mode 0600"))
        }
        Some(_) => Finding::ok(check, format!("'{name}' is given to {FETCHER}")),
    };
    vec![finding]
}

/// Where the unit text takes the credential `name` from; an empty text when it is in the unit itself.
fn find_credential(text: &str, name: &str) -> Option<String> {
    text.lines().rev().find_map(|line| {
        let (key, value) = line.trim().split_once('=')?;
        if ![
            "LoadCredential",
            "LoadCredentialEncrypted",
            "SetCredential",
            "SetCredentialEncrypted",
        ]
        .contains(&key.trim_end())
        {
            return None;
        }
        let (id, source) = value.trim().split_once(':').unwrap_or((value.trim(), ""));
        let source = if key.starts_with("Set") { "" } else { source };
        (id == name).then(|| source.to_owned())
    })
}

/// Can the source be asked: the fetcher is told to poll it.
pub(super) fn reachable(host: &Host, is_root: bool) -> Finding {
    let check = "source";
    if !is_root {
        return Finding::unknown(check, "only root may ask the fetcher");
    }
    if !host.is_running_system() {
        return Finding::unknown(check, "this is not the running system");
    }
    let client = match Client::connect(Path::new(FETCH_SOCKET)) {
        Ok(client) => client,
        Err(failure) => return Finding::of(check, &failure),
    };
    let trusted = state::read_mark(host)
        .ok()
        .flatten()
        .map(|head| head.commit);
    // A socket keeps the question of a fetcher that does not start for as long as a slow source may take.
    let polled = match fetcher::ask_watched(host, move || client.poll(trusted)) {
        Ok(polled) => polled,
        Err(failure) => return Finding::of(check, &failure),
    };
    match polled {
        Ok(tip) => Finding::ok(
            check,
            match tip.tag {
                Some(tag) => format!("it answers, and offers the release {tag}"),
                None => format!("it answers, and offers {}", tip.id.to_hex_with_len(7)),
            },
        ),
        Err(trouble) if trouble.lane == Lane::Offline => {
            let detail = format!("this host is offline: {}", trouble.failure);
            Finding::warning(check, detail).hint("what is in force is enforced meanwhile")
        }
        Err(trouble) => {
            let finding = Finding::of(check, &trouble.failure);
            match finding.hint {
                Some(_) => finding,
                None => finding.hint(format!(
                    "see whether the server is well, and what [source] in '{CONFIG_FILE}' says; what is in force is enforced meanwhile"
                )),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_found_in_a_drop_in() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(
                find_credential(text, "git-token").as_deref(),
                expected,
                "{text}"
            );
        };
        check(
            "[Service]\nLoadCredential=git-token:/etc/limpet/git-token\n",
            Some("/etc/limpet/git-token"),
        );
        check(
            "[Service]\n LoadCredentialEncrypted = git-token:/etc/x\n",
            Some("/etc/x"),
        );
        check("[Service]\nLoadCredential=git-token\n", Some(""));
        check("[Service]\nSetCredential=git-token:secret\n", Some(""));
        check(
            "[Service]\n#LoadCredential=git-token:/etc/x\nLoadCredential=git-token2:/etc/x\n",
            None,
        );
    }
}
