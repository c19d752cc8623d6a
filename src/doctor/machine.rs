//! The machine around limpet: its package manager, systemd, disks, and whoever else manages it.

use crate::config::{CACHE_DIRECTORY, STATE_DIRECTORY};
use crate::cycle::other_side::OTHER_MANAGERS;
use crate::doctor::Finding;
use crate::kinds::package::dnf::locks;
use crate::kinds::package::family::Family;
use crate::kinds::package::status::{Database, State};
use crate::sys::Host;
use crate::sys::systemd::{Property, PropertyName};

/// Less than this is too little for a package transaction, in bytes.
const LOW_BYTES: u64 = 64 << 20;

/// Fewer free files than this are too few.
const LOW_INODES: u64 = 1000;

/// The locks of dpkg and apt.
const PACKAGE_LOCKS: [&str; 3] = [
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
];

/// How many failed units are named.
const FAILED_SHOWN: usize = 5;

/// The package manager, and whether it can be used now.
pub(super) fn packages(host: &Host, is_root: bool) -> Vec<Finding> {
    let check = "packages";
    let family = match Family::of(host) {
        Ok(family) => family,
        Err(failure) => return vec![Finding::of(check, &failure)],
    };
    if family == Family::Apt && !host.exists("/var/lib/dpkg/status").unwrap_or(false) {
        return vec![
            Finding::warning(
                check,
                "no package database of dpkg or rpm was found: packages cannot be managed here",
            )
            .hint("files and units can"),
        ];
    }
    let database = match Database::read(host) {
        Ok(database) => database,
        Err(failure) => return vec![Finding::of(check, &failure)],
    };
    if let Family::Dnf(program) = family {
        let name = program.name();
        let mut findings = vec![Finding::ok(
            check,
            format!("rpm's database can be read, and {name} is there"),
        )];
        if !locks::are_possible(host, program).unwrap_or(true) {
            findings.push(
                Finding::warning(
                    check,
                    "packages cannot be put on hold: dnf's plug-in versionlock is not installed",
                )
                .hint(
                    "declare python3-dnf-plugin-versionlock, or dnf-plugins-core where that has it",
                ),
            );
        }
        return findings;
    }
    let mut findings = Vec::new();
    if database.is_interrupted() {
        findings.push(
            Finding::wrong(check, "dpkg was interrupted: packages are half installed")
                .hint("dpkg --configure -a; see 'dpkg --audit'"),
        );
    }
    match is_root {
        false => findings.push(Finding::unknown(
            check,
            "only root sees who holds the locks of dpkg and apt",
        )),
        true => findings.extend(PACKAGE_LOCKS.iter().filter_map(|lock| {
            match host.read_lock_holder(lock) {
                Ok(None) => None,
                Ok(Some(pid)) => Some(
                    Finding::warning(check, format!("process {pid} holds '{lock}'"))
                        .hint(format!("limpet waits and tries again; see 'ps -fp {pid}'")),
                ),
                Err(failure) => Some(Finding::of(check, &failure)),
            }
        })),
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            check,
            "apt and dpkg can be used: nothing is half installed, no lock is held",
        ));
    }
    let is_installed = |name: &str| database.state(name) == State::Installed;
    if is_installed("unattended-upgrades") {
        findings.push(Finding::ok(
            "upgrades",
            "unattended-upgrades is installed: it upgrades what is declared without a version, and limpet waits while it runs",
        ));
    }
    if is_installed("needrestart") {
        let ours = host
            .exists("/etc/needrestart/conf.d/limpet.conf")
            .unwrap_or(false);
        findings.push(if ours {
            Finding::ok("upgrades", "needrestart is installed, and told to leave limpet alone")
        } else {
            Finding::warning("upgrades", "needrestart may restart limpet in the middle of a package transaction")
                .hint("put '/etc/needrestart/conf.d/limpet.conf' back: dpkg --force-confmiss -i limpet.deb")
        });
    }
    findings
}

/// How systemd and its bus are.
pub(super) fn systemd(host: &Host) -> Vec<Finding> {
    let check = "systemd";
    let systemd = host.systemd();
    if !systemd.is_available() {
        return vec![
            Finding::warning(
                check,
                "there is no running systemd: units cannot be managed here",
            )
            .hint("files can; for an image this is as it should be"),
        ];
    }
    let wanted = [PropertyName {
        object: "/org/freedesktop/systemd1",
        interface: "Manager",
        name: "SystemState",
    }];
    let state = match systemd.properties(&wanted).map(|mut found| found.pop()) {
        Ok(Some(Ok(Property::Text(state)))) => state,
        Ok(_) => "unknown".to_owned(),
        Err(error) => {
            return vec![
                Finding::wrong(check, format!("it does not answer over D-Bus: {error}"))
                    .hint("units need a system bus: systemctl status dbus.service dbus.socket"),
            ];
        }
    };
    let failed: Vec<String> = systemd
        .list_units_like("*")
        .unwrap_or_default()
        .into_iter()
        .filter(|unit| unit.active == "failed")
        .map(|unit| unit.id)
        .collect();
    let detail = match failed.len() {
        0 => format!("it answers over D-Bus; the system is {state}"),
        count => {
            let named = failed[..count.min(FAILED_SHOWN)].join(", ");
            let rest = match count.saturating_sub(FAILED_SHOWN) {
                0 => String::new(),
                rest => format!(" and {rest} more"),
            };
            format!("it answers over D-Bus; the system is {state}: {named}{rest} failed")
        }
    };
    vec![Finding::ok(check, detail)]
}

/// Room where limpet writes.
pub(super) fn space(host: &Host) -> Vec<Finding> {
    let check = "disk";
    let mut findings = Vec::new();
    let mut least = u64::MAX;
    for path in [STATE_DIRECTORY, CACHE_DIRECTORY, "/etc", "/var/cache/apt"] {
        // Before the first run the directories are not there; their parents say the same.
        let there = host.exists(path).unwrap_or(false);
        let path = if there { path } else { "/" };
        let space = match host.read_space(path) {
            Ok(space) => space,
            Err(failure) => {
                findings.push(Finding::of(check, &failure));
                continue;
            }
        };
        least = least.min(space.free_bytes);
        if space.is_read_only {
            findings.push(
                Finding::wrong(check, format!("the file system of '{path}' is read-only"))
                    .hint("see 'dmesg' for why, or 'mount -o remount,rw' it"),
            );
        }
        if space.free_bytes < LOW_BYTES {
            let left = space.free_bytes >> 20;
            findings.push(
                Finding::wrong(
                    check,
                    format!("the file system of '{path}' has {left} MiB left"),
                )
                .hint("make room: 'apt-get clean' and 'journalctl --vacuum-size=100M' often help"),
            );
        }
        if space.total_inodes > 0 && space.free_inodes < LOW_INODES {
            let left = space.free_inodes;
            findings.push(
                Finding::wrong(
                    check,
                    format!("the file system of '{path}' has room for {left} more files"),
                )
                .hint("find what makes many small files: du --inodes -xS / | sort -n | tail"),
            );
        }
    }
    findings.dedup_by(|left, right| left.detail == right.detail);
    if findings.is_empty() {
        findings.push(Finding::ok(
            check,
            format!("at least {} MiB are free where limpet writes", least >> 20),
        ));
    }
    findings
}

/// Mandatory access control that may keep limpet from its work.
pub(super) fn security(host: &Host) -> Option<Finding> {
    let enforce = host
        .read_file("/sys/fs/selinux/enforce", 16)
        .ok()
        .flatten()?;
    let mode = match enforce.first() {
        Some(b'1') => "enforcing",
        _ => "permissive",
    };
    Some(Finding::ok(
        "selinux",
        format!("SELinux is {mode}; what limpet is kept from is in 'ausearch -m avc'"),
    ))
}

/// Others that may change back what limpet changes.
pub(super) fn others(host: &Host) -> Vec<Finding> {
    let check = "other agents";
    let names: Vec<String> = OTHER_MANAGERS
        .iter()
        .map(|(unit, _)| (*unit).to_owned())
        .collect();
    let Ok(listed) = host.systemd().list_units(&names) else {
        return vec![Finding::unknown(
            check,
            "systemd does not say what else runs",
        )];
    };
    let mut findings = Vec::new();
    for (unit, (name, product)) in listed.iter().zip(OTHER_MANAGERS) {
        if unit.active == "active" {
            findings.push(
                Finding::warning(check, format!("{product} runs on this host ({name})"))
                    .hint("let each thing be declared in one of them only, or they change it back and forth"),
            );
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(check, "no other configuration manager runs"));
    }
    findings
}
