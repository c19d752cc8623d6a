//! What can be known of whoever changes a resource back: looked for once, when somebody does.
//!
//! Invariant: looks only, and what it cannot see it leaves out. Of a file's text only names of known programs are told.

use jiff::Timestamp;

use crate::model::{Kind, ResourceId};
use crate::report::moment;
use crate::sys::Host;
use crate::sys::files::Touched;
use crate::sys::systemd::{ListedUnit, Property, PropertyName};

/// Units of others that keep a host as something declares.
pub const OTHER_MANAGERS: [(&str, &str); 7] = [
    ("puppet.service", "Puppet"),
    ("pe-puppet.service", "Puppet"),
    ("chef-client.service", "Chef"),
    ("cfengine3.service", "CFEngine"),
    ("cf-execd.service", "CFEngine"),
    ("salt-minion.service", "Salt"),
    ("rudder-agent.service", "Rudder"),
];

/// Services that write certain files by themselves.
const WRITERS: [(&str, &str); 7] = [
    ("/etc/resolv.conf", "NetworkManager.service"),
    ("/etc/resolv.conf", "systemd-resolved.service"),
    ("/etc/resolv.conf", "resolvconf.service"),
    ("/etc/resolv.conf", "dhcpcd.service"),
    ("/etc/hosts", "cloud-init.service"),
    ("/etc/hostname", "cloud-init.service"),
    ("/etc/network/interfaces", "cloud-init.service"),
];

/// Words at the head of a file that say what wrote it.
const SIGNATURES: [(&str, &str); 9] = [
    ("ansible", "Ansible"),
    ("puppet", "Puppet"),
    ("chef", "Chef"),
    ("cfengine", "CFEngine"),
    ("salt", "Salt"),
    ("cloud-init", "cloud-init"),
    ("networkmanager", "NetworkManager"),
    ("systemd-resolved", "systemd-resolved"),
    ("resolvconf", "resolvconf"),
];

/// How much of a file is its head, in bytes.
const HEAD_BYTES: usize = 1024;

/// Larger files than this are not read, in bytes.
const LIMIT_BYTES: u64 = 8 << 20;

/// A service that ended this long before a change may have made it: the kernel's clock for files is coarse.
const SLACK_MICROS: i64 = 1_000_000;

/// How many services are named.
const SERVICES_SHOWN: usize = 3;

/// Where dpkg lists which package has which file.
const PACKAGE_LISTS: &str = "/var/lib/dpkg/info";

/// What apt did, and who asked for it.
const APT_HISTORY: &str = "/var/log/apt/history.log";

/// What is known of who changed `id`, for people; one sentence each.
pub(super) fn look(host: &Host, id: &ResourceId) -> String {
    let mut known = match id.kind {
        Kind::Package => of_package(host, &id.name),
        Kind::Unit => of_unit(host, &id.name),
        _ if id.name.starts_with('/') => of_path(host, &id.name),
        _ => Vec::new(),
    };
    let names = OTHER_MANAGERS.map(|(unit, _)| unit.to_owned());
    let listed = host.systemd().list_units(&names).unwrap_or_default();
    for (unit, (name, product)) in listed.iter().zip(OTHER_MANAGERS) {
        if unit.active == "active" {
            known.push(format!("{product} runs on this host ({name})"));
        }
    }
    if known.is_empty() {
        known.push("nothing is known of who does".to_owned());
    }
    known.join("; ")
}

fn of_path(host: &Host, path: &str) -> Vec<String> {
    let mut known = Vec::new();
    match host.last_touched(path) {
        Ok(Some(touched)) => {
            known.push(format!(
                "it was changed last at {}, and belongs to {}",
                at(touched.at_micros),
                user(host, touched.uid)
            ));
            let running = services_at(host, touched);
            if !running.is_empty() {
                known.push(format!("{} ran then", running.join(" and ")));
            }
        }
        Ok(None) => known.push("it was deleted".to_owned()),
        Err(_) => {}
    }
    if let Ok(Some(bytes)) = host.read_file(path, LIMIT_BYTES) {
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(HEAD_BYTES)]);
        known.extend(signature(&head).map(|name| format!("its head names {name}")));
    }
    for (_, unit) in WRITERS.iter().filter(|(known, _)| *known == path) {
        let listed = host.systemd().list_units(&[(*unit).to_owned()]);
        if listed.is_ok_and(|listed| listed.iter().any(|unit| unit.active == "active")) {
            known.push(format!("{unit} runs, which writes this file"));
        }
    }
    known.extend(package_of(host, path).map(|name| format!("the package {name} has it")));
    known
}

/// What the head of a file says wrote it.
fn signature(head: &str) -> Option<&'static str> {
    let head = head.to_ascii_lowercase();
    let found = SIGNATURES.iter().find(|(word, _)| head.contains(word));
    found.map(|(_, name)| *name)
}

/// The services that ran, and ended, when a file was changed. What runs all the time says nothing.
fn services_at(host: &Host, touched: Touched) -> Vec<String> {
    let is_other = |unit: &ListedUnit| !unit.id.starts_with("limpet");
    let listed = host.systemd().list_units_like("*.service");
    let listed: Vec<ListedUnit> = listed
        .unwrap_or_default()
        .into_iter()
        .filter(is_other)
        .collect();
    let property = |unit: &'_ ListedUnit, name| (unit.object.clone(), name);
    let wanted: Vec<(String, &'static str)> = listed
        .iter()
        .flat_map(|unit| {
            [
                property(unit, "ExecMainStartTimestamp"),
                property(unit, "ExecMainExitTimestamp"),
            ]
        })
        .collect();
    let wanted: Vec<PropertyName<'_>> = wanted
        .iter()
        .map(|(object, name)| PropertyName {
            object,
            interface: "Service",
            name,
        })
        .collect();
    let times = host.systemd().properties(&wanted).unwrap_or_default();
    let ran = listed.iter().zip(times.chunks(2)).filter(|(_, times)| {
        matches!(times, [Ok(Property::Number(start)), Ok(Property::Number(end))]
            if *start > 0 && ran_at(*start, *end, touched.at_micros))
    });
    ran.map(|(unit, _)| unit.id.clone())
        .take(SERVICES_SHOWN)
        .collect()
}

/// Did what ran from `start` to `end` run at the moment `at`, all in microseconds.
fn ran_at(start: i64, end: i64, at: i64) -> bool {
    start <= end
        && start <= at.saturating_add(SLACK_MICROS)
        && at <= end.saturating_add(SLACK_MICROS)
}

/// The package that has a file at `path`.
fn package_of(host: &Host, path: &str) -> Option<String> {
    let names = host.list_own_directory(PACKAGE_LISTS).ok()?;
    let lists = names
        .iter()
        .filter_map(|name| Some((name, name.strip_suffix(".list")?)));
    lists
        .filter(|(name, _)| {
            let list = host.read_file(&format!("{PACKAGE_LISTS}/{name}"), LIMIT_BYTES);
            let list = list.ok().flatten().unwrap_or_default();
            list.split(|byte| *byte == b'\n')
                .any(|line| line == path.as_bytes())
        })
        .map(|(_, package)| package.to_owned())
        .next()
}

fn of_unit(host: &Host, name: &str) -> Vec<String> {
    let Ok(listed) = host.systemd().list_units(&[name.to_owned()]) else {
        return Vec::new();
    };
    let Some(unit) = listed.first() else {
        return Vec::new();
    };
    let property = |interface, name| PropertyName {
        object: &unit.object,
        interface,
        name,
    };
    let wanted = [
        property("Unit", "InactiveEnterTimestamp"),
        property("Service", "Result"),
        property("Service", "ExecMainStatus"),
    ];
    let mut values = host
        .systemd()
        .properties(&wanted)
        .unwrap_or_default()
        .into_iter();
    let mut known = vec![format!("it is {} now", unit.active)];
    if let Some(Ok(Property::Number(ended @ 1..))) = values.next() {
        known.push(format!("it ended last at {}", at(ended)));
    }
    if let (Some(Ok(Property::Text(result))), Some(Ok(Property::Number(status)))) =
        (values.next(), values.next())
    {
        known.push(match result.as_str() {
            "success" => "somebody stopped it, or it ended by itself without an error".to_owned(),
            result => format!("it ended with an error ({result}, status {status})"),
        });
    }
    known
}

fn of_package(host: &Host, name: &str) -> Vec<String> {
    let history = host.read_file(APT_HISTORY, LIMIT_BYTES).ok().flatten();
    let history = String::from_utf8_lossy(&history.unwrap_or_default()).into_owned();
    apt_said(&history, name).into_iter().collect()
}

/// The last that apt's history tells of `package`.
fn apt_said(history: &str, package: &str) -> Option<String> {
    let names = |line: &str| {
        let (key, list) = line.split_once(": ").unwrap_or_default();
        let is_change = ["Install", "Upgrade", "Downgrade", "Remove", "Purge"].contains(&key);
        let mut words = list.split([' ', ':', ',']);
        is_change && words.any(|word| word == package)
    };
    let last = history
        .split("\n\n")
        .filter(|entry| entry.lines().any(names))
        .last()?;
    let field = |key: &str| {
        let line = last.lines().find_map(|line| line.strip_prefix(key));
        line.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let command = field("Commandline: ").unwrap_or_else(|| "apt".to_owned());
    let by = field("Requested-By: ").map_or(String::new(), |by| format!(" for {by}"));
    let when = field("Start-Date: ").map_or(String::new(), |when| format!(" at {when}"));
    Some(format!("apt touched it last{when}: '{command}'{by}"))
}

fn at(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map_or_else(|_| "an unknown time".to_owned(), moment)
}

/// The name of a user, or the number where there is none.
fn user(host: &Host, uid: u32) -> String {
    let passwd = host.read_file("/etc/passwd", LIMIT_BYTES).ok().flatten();
    let passwd = String::from_utf8_lossy(&passwd.unwrap_or_default()).into_owned();
    let number = uid.to_string();
    let line = passwd
        .lines()
        .find(|line| line.split(':').nth(2) == Some(&number));
    let name = line.and_then(|line| line.split(':').next());
    name.map_or_else(|| format!("user {uid}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_writer_only_by_known_words() {
        assert_eq!(
            signature("# Ansible managed: password hunter2"),
            Some("Ansible")
        );
        assert_eq!(
            signature("# Generated by NetworkManager\n"),
            Some("NetworkManager")
        );
        assert_eq!(signature("nameserver 192.0.2.1\n"), None);
    }

    #[test]
    fn a_service_ran_at_a_moment_or_it_did_not() {
        let second = 1_000_000;
        assert!(ran_at(10 * second, 12 * second, 11 * second));
        assert!(
            ran_at(10 * second, 10 * second, 10 * second + 5),
            "a coarse clock"
        );
        assert!(!ran_at(10 * second, 12 * second, 14 * second));
        assert!(
            !ran_at(20 * second, 12 * second, 11 * second),
            "it runs again since"
        );
    }

    #[test]
    fn the_last_word_of_apt_about_a_package_is_told() {
        // The form of apt 2.6.1 on Debian 12.
        let history = "\nStart-Date: 2026-11-20  08:00:00\nCommandline: apt-get install -y curl\nInstall: curl:amd64 (7.88.1-10)\n\
            End-Date: 2026-11-20  08:00:09\n\nStart-Date: 2026-11-21  09:00:00\nCommandline: apt remove curl\n\
            Requested-By: olga (1001)\nRemove: curl:amd64 (7.88.1-10)\nEnd-Date: 2026-11-21  09:00:02\n\n\
            Start-Date: 2026-11-22  09:00:00\nCommandline: apt remove libcurl4\nRemove: libcurl4:amd64 (7.88.1-10)\n";
        insta::assert_snapshot!(
            apt_said(history, "curl").unwrap(),
            @"apt touched it last at 2026-11-21 09:00:00: 'apt remove curl' for olga (1001)"
        );
        assert_eq!(apt_said(history, "url"), None);
    }
}
