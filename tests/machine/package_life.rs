//! What the package does to a machine: installation, upgrade, removal.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::fixture::apt_repository::{AptRepository, Package};
use crate::fixture::machine::{Machine, wait_until};
use crate::fixture::package;
use crate::scene::{SOON, Scene};

const UNITS: [&str; 5] = [
    "limpet.service",
    "limpet-fetch.service",
    "limpet-fetch.socket",
    "limpet-probation.service",
    "limpet-probation.timer",
];

fn machine_with_package(label: &str) -> Machine {
    let machine = Machine::start(label);
    machine.install_deb(&package::built());
    machine
}

#[test]
fn installs_unconfigured_and_starts_cleanly() {
    let machine = machine_with_package("install");
    assert_eq!(
        machine.sh("limpet --version").trim(),
        concat!("limpet ", env!("CARGO_PKG_VERSION"))
    );
    for unit in UNITS {
        let shown = machine.sh(&format!(
            "systemctl show --property=ActiveState,Result {unit}"
        ));
        assert_eq!(shown, "Result=success\nActiveState=inactive\n", "{unit}");
    }
    for unit in [
        "limpet.service",
        "limpet-fetch.socket",
        "limpet-probation.timer",
    ] {
        assert_eq!(
            machine.sh(&format!("systemctl is-enabled {unit}")),
            "enabled\n",
            "{unit}"
        );
    }
    let stick = machine.run(&["systemctl", "is-enabled", "limpet-stick.service"]);
    assert_eq!(stick.stdout, "disabled\n");
    assert_eq!(machine.sh("systemctl --failed --quiet"), "");
    assert_eq!(machine.sh("dpkg --audit"), "");

    for (path, ownership) in [
        ("/run/limpet", "root:root 755"),
        ("/var/lib/limpet", "root:root 700"),
        ("/var/cache/limpet", "limpet:limpet 700"),
    ] {
        assert_eq!(machine.ownership(path), ownership, "{path}");
    }
    assert!(!machine.exists("/etc/limpet"));
    assert_eq!(
        machine.sh("getent passwd limpet | cut -d: -f6-").trim(),
        "/:/usr/sbin/nologin"
    );
    machine.sh("getent group limpet-operators");
    for file in [
        "copyright",
        "changelog.gz",
        "README.md.gz",
        "examples/limpet.toml",
    ] {
        machine.sh(&format!("test -s /usr/share/doc/limpet/{file}"));
    }
    for file in [
        "man/man8/limpet.8.gz",
        "man/man8/limpet-status.8.gz",
        "man/man5/limpet.toml.5.gz",
        "man/man5/limpet-fleet.5.gz",
        "man/man5/limpet-layer.5.gz",
        "man/man5/limpet-trust.5.gz",
        "bash-completion/completions/limpet",
        "zsh/vendor-completions/_limpet",
        "fish/vendor_completions.d/limpet.fish",
    ] {
        machine.sh(&format!("test -s /usr/share/{file}"));
    }
}

#[test]
fn units_are_valid_and_confined() {
    let machine = machine_with_package("units");
    // The recovery runs the program that was kept, which an agent has to do first.
    machine.sh("install -D /usr/bin/limpet /var/lib/limpet/previous/limpet");
    let verified = machine.run(&[
        "systemd-analyze",
        "verify",
        "--man=no",
        "limpet.service",
        "limpet-fetch.service",
        "limpet-fetch.socket",
        "limpet-probation.service",
        "limpet-probation.timer",
        "limpet-recover.service",
        "limpet-stick.service",
        "run-limpet-stick.mount",
    ]);
    assert_eq!(verified.stderr, "");
    verified.success();
    // Tenths of systemd's exposure level: 10.0 is a daemon without any sandbox.
    for (unit, at_most) in [
        ("limpet.service", 30),
        ("limpet-fetch.service", 15),
        ("limpet-probation.service", 30),
        ("limpet-recover.service", 20),
        ("limpet-stick.service", 10),
    ] {
        machine.sh(&format!(
            "systemd-analyze security --threshold={at_most} --no-pager {unit}"
        ));
    }
    let catalog = machine.sh("journalctl --list-catalog | grep -c ' limpet: '");
    assert_eq!(catalog.trim(), "9");
}

/// What a machine consists of, a line each: files, accounts, units, catalog entries. Left out are logs, apt's own caches and what
/// systemd notes of units that run at the moment.
fn inventory(machine: &Machine) -> BTreeSet<String> {
    // Every run of dpkg and apt writes these anew; the catalog's index is compared by its entries.
    let listed = machine.sh(
        "find / -xdev -regextype posix-extended \
            -regex '/(root|tmp|var/tmp|var/log|var/cache/apt|var/lib/apt)' -prune -o -printf '%y %u:%g %m %p\\n'
        find /run -xdev -regextype posix-extended \
            -regex '/run/(systemd/(units|journal|transient|propagate|inaccessible|incoming)|log|user|host|credentials)' -prune \
            -o -printf '%y %u:%g %m %p\\n'
        getent passwd | sed 's/^/user /'
        getent group | sed 's/^/group /'
        getent shadow | cut -d: -f1-2 | sed 's/^/shadow /'
        getent gshadow | sed 's/^/gshadow /'
        systemctl list-unit-files --no-legend --no-pager | sed 's/  */ /g; s/^/unit file /'
        systemctl list-units --all --plain --no-legend --no-pager 'limpet*' | sed 's/^/unit /'
        journalctl --list-catalog | sed 's/^/catalog /'",
    );
    listed.lines().map(str::to_owned).collect()
}

/// The lines that only the second has, then those that only the first has.
fn difference(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Vec<String> {
    let new = after.difference(before).map(|line| format!("+ {line}"));
    let gone = before.difference(after).map(|line| format!("- {line}"));
    new.chain(gone).collect()
}

/// The package of a later version, and the directory it is in.
fn newer() -> (PathBuf, TempDir) {
    let directory = TempDir::new().expect("a temporary directory can be made");
    (package::as_version("99.0.0", &directory), directory)
}

const LAYER: &str = "[file.\"/etc/scene\"]\ncontent = \"kept\\n\"\n";

#[test]
fn upgrade_keeps_what_the_administrator_chose() {
    let (newer, _directory) = newer();
    let machine = machine_with_package("upgrade");
    machine.sh("systemctl disable limpet.service");
    machine.write_file("/var/lib/limpet/kept", "state");
    machine.install_deb(&newer);
    assert_eq!(machine.sh("dpkg-query -W -f '${Version}' limpet"), "99.0.0");
    assert_eq!(is_enabled(&machine, "limpet.service"), "disabled");
    assert_eq!(is_enabled(&machine, "limpet-fetch.socket"), "enabled");
    assert_eq!(machine.read_file("/var/lib/limpet/kept"), "state");
    assert_eq!(machine.sh("systemctl --failed --quiet"), "");
}

fn is_enabled(machine: &Machine, unit: &str) -> String {
    let shown = machine.run(&["systemctl", "is-enabled", unit]);
    shown.stdout.trim().to_owned()
}

#[test]
fn a_service_that_was_switched_off_stays_off_over_an_upgrade() {
    let (newer, _directory) = newer();
    for (switch_off, state) in [
        ("systemctl disable --now limpet.service", "disabled"),
        ("systemctl mask --now limpet.service", "masked"),
    ] {
        let scene = Scene::enrolled("off", LAYER);
        let machine = &scene.machine;
        machine.sh(switch_off);
        machine
            .sh("systemctl disable --now limpet-fetch.socket; systemctl stop limpet-fetch.service");
        machine.install_deb(&newer);
        assert_eq!(is_enabled(machine, "limpet.service"), state);
        assert_eq!(is_enabled(machine, "limpet-fetch.socket"), "disabled");
        for unit in UNITS {
            assert!(!machine.is_active(unit), "{switch_off}: {unit} runs");
        }
        assert_eq!(machine.sh("systemctl --failed --quiet"), "");
    }
}

#[test]
fn an_upgrade_restarts_what_runs_and_keeps_the_state() {
    let (newer, _directory) = newer();
    let scene = Scene::enrolled("running", LAYER);
    let machine = &scene.machine;
    let agent = machine.main_pid("limpet.service");
    let fetcher = machine.main_pid("limpet-fetch.service");
    let before = scene.status();
    machine.install_deb(&newer);
    assert_ne!(machine.main_pid("limpet.service"), agent);
    let after = scene.status();
    assert_eq!(after["revision"], before["revision"], "{after:#}");
    scene.apply(&LAYER.replace("kept", "kept after the upgrade"));
    assert_ne!(machine.main_pid("limpet-fetch.service"), fetcher);
    for unit in ["limpet.service", "limpet-fetch.service"] {
        let pid = machine.main_pid(unit);
        // A program that was replaced under a process shows as deleted.
        let program = machine.sh(&format!("readlink /proc/{pid}/exe"));
        assert_eq!(program.trim(), "/usr/bin/limpet", "{unit}");
    }
}

#[test]
fn a_fleet_can_upgrade_limpet_itself() {
    let (newer, _directory) = newer();
    let scene = Scene::prepared("itself", LAYER);
    let machine = &scene.machine;
    let slow = Package {
        // As other packages do, in the middle of a transaction.
        postinst: "sleep 2; systemctl try-restart limpet.service; sleep 2; touch /var/lib/slow-is-configured",
        ..Package::new("slow", "1.0")
    };
    let repository = AptRepository::new(&[slow]);
    repository.add(&newer);
    repository.copy_to(machine);
    scene.enroll().success();
    scene.converge();
    let agent = machine.main_pid("limpet.service");
    scene.declare(&format!(
        "{LAYER}\n[package]\nslow = \"installed\"\nlimpet = {{ version = \"99.0.0\" }}\n"
    ));
    machine.run(&["limpet", "sync"]).success();
    let head = scene.head();
    wait_until("the new version and the new revision", SOON * 3, || {
        let version = machine.sh("dpkg-query -W -f '${db:Status-Status} ${Version}' limpet");
        let shown = machine.run(&["limpet", "status", "--json"]).stdout;
        let status: serde_json::Value = serde_json::from_str(&shown).unwrap_or_default();
        (version == "installed 99.0.0"
            && status["revision"] == head.as_str()
            && status["state"] == "converged")
            .then_some(())
    });
    assert_ne!(machine.main_pid("limpet.service"), agent);
    assert!(machine.exists("/var/lib/slow-is-configured"));
    assert_eq!(machine.sh("dpkg --audit"), "");
    scene.nothing_to_do();
}

#[test]
fn purge_leaves_nothing_but_what_was_managed() {
    let scene = Scene::prepared("purge", LAYER);
    let machine = &scene.machine;
    machine.sh("apt-get -q -y purge limpet; systemctl daemon-reload");
    machine.sh("rm -rf /etc/limpet");
    let before = inventory(machine);

    machine.install_deb(&package::built());
    let installed = difference(&before, &inventory(machine));
    assert!(
        installed
            .iter()
            .any(|line| line.starts_with("+ user limpet:")),
        "the inventory sees accounts: {installed:#?}"
    );
    scene.enroll().success();
    scene.converge();
    machine.sh("usermod --append --groups limpet-operators daemon");

    let said = machine.sh("apt-get -q -y remove limpet 2>&1");
    assert!(said.contains("what it managed stays as it is"), "{said}");
    assert!(!machine.is_active("limpet.service"));
    for path in [
        "/etc/limpet/limpet.toml",
        "/etc/limpet/enrolled",
        "/var/lib/limpet/state.db",
    ] {
        assert!(machine.exists(path), "{path} is kept");
    }
    assert!(!machine.exists("/usr/bin/limpet"));

    machine.sh("apt-get -q -y purge limpet; systemctl daemon-reload");
    assert_eq!(
        difference(&before, &inventory(machine)),
        ["+ f root:root 644 /etc/scene"]
    );
    assert_eq!(machine.run(&["dpkg-query", "-W", "limpet"]).code(), 1);

    // And a new beginning.
    machine.install_deb(&package::built());
    assert_eq!(machine.ownership("/var/cache/limpet"), "limpet:limpet 700");
    assert_eq!(is_enabled(machine, "limpet.service"), "enabled");
    scene.enroll().success();
    scene.converge();
}

#[test]
fn a_removed_package_that_is_installed_again_goes_on() {
    let scene = Scene::enrolled("again", LAYER);
    let machine = &scene.machine;
    let before = scene.status();
    machine.sh("apt-get -q -y remove limpet; echo drifted > /etc/scene");
    machine.install_deb(&package::built());
    for unit in ["limpet.service", "limpet-fetch.socket"] {
        assert_eq!(is_enabled(machine, unit), "enabled", "{unit}");
    }
    // Without being asked: the unit is started, and starts with a cycle.
    wait_until("the drift to be corrected", SOON, || {
        (machine.read_file("/etc/scene") == "kept\n").then_some(())
    });
    assert_eq!(scene.status()["revision"], before["revision"]);
}
