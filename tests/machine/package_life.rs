//! What the package does to a machine: installation, upgrade, removal.

use tempfile::TempDir;

use crate::fixture::machine::Machine;
use crate::fixture::package;

const UNITS: [&str; 3] = [
    "limpet.service",
    "limpet-fetch.service",
    "limpet-fetch.socket",
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
    for unit in ["limpet.service", "limpet-fetch.socket"] {
        assert_eq!(
            machine.sh(&format!("systemctl is-enabled {unit}")),
            "enabled\n",
            "{unit}"
        );
    }
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
        "README.md",
        "examples/limpet.toml",
    ] {
        machine.sh(&format!("test -s /usr/share/doc/limpet/{file}"));
    }
}

#[test]
fn units_are_valid_and_confined() {
    let machine = machine_with_package("units");
    let verified = machine.run(&[
        "systemd-analyze",
        "verify",
        "--man=no",
        "limpet.service",
        "limpet-fetch.service",
        "limpet-fetch.socket",
    ]);
    assert_eq!(verified.stderr, "");
    verified.success();
    // Tenths of systemd's exposure level: 10.0 is a daemon without any sandbox.
    for (unit, at_most) in [("limpet.service", 30), ("limpet-fetch.service", 20)] {
        machine.sh(&format!(
            "systemd-analyze security --threshold={at_most} --no-pager {unit}"
        ));
    }
    let catalog = machine.sh("journalctl --list-catalog | grep -c ' limpet: '");
    assert_eq!(catalog.trim(), "7");
}

#[test]
fn upgrade_keeps_what_the_administrator_chose() {
    let directory = TempDir::new().expect("a temporary directory can be made");
    let newer = package::as_version("99.0.0", &directory);
    let machine = machine_with_package("upgrade");
    machine.sh("systemctl disable limpet.service");
    machine.write_file("/var/lib/limpet/kept", "state");
    machine.install_deb(&newer);
    assert_eq!(machine.sh("dpkg-query -W -f '${Version}' limpet"), "99.0.0");
    assert_eq!(
        machine
            .run(&["systemctl", "is-enabled", "limpet.service"])
            .stdout,
        "disabled\n"
    );
    assert_eq!(
        machine.sh("systemctl is-enabled limpet-fetch.socket"),
        "enabled\n"
    );
    assert_eq!(machine.read_file("/var/lib/limpet/kept"), "state");
    assert_eq!(machine.sh("systemctl --failed --quiet"), "");
}

#[test]
fn removal_keeps_the_state_and_purge_leaves_nothing() {
    let machine = machine_with_package("removal");
    for path in [
        "/etc/limpet/limpet.toml.d/site.toml",
        "/etc/limpet/enrolled",
        "/var/lib/limpet/state.db",
        "/var/cache/limpet/git/config",
    ] {
        machine.write_file(path, "written later\n");
    }
    machine.sh("apt-get -q -y remove limpet");
    assert!(machine.exists("/var/lib/limpet/state.db"));
    assert!(machine.exists("/etc/limpet/enrolled"));
    assert!(!machine.exists("/usr/bin/limpet"));
    machine.sh("apt-get -q -y purge limpet");
    let left = machine.sh("find / -xdev -path /root -prune -o -path /var/log -prune -o -name '*limpet*' -print; find /run -name '*limpet*'");
    assert_eq!(left, "");
    assert_eq!(machine.run(&["dpkg-query", "-W", "limpet"]).code(), 1);
}

#[test]
fn a_removed_package_can_be_installed_again() {
    let machine = machine_with_package("again");
    machine.sh("apt-get -q -y remove limpet");
    machine.install_deb(&package::built());
    assert_eq!(
        machine.sh("systemctl is-enabled limpet.service"),
        "enabled\n"
    );
    machine.sh("apt-get -q -y purge limpet");
    machine.install_deb(&package::built());
    assert_eq!(
        machine.sh("systemctl is-enabled limpet.service"),
        "enabled\n"
    );
    assert_eq!(machine.ownership("/var/lib/limpet"), "root:root 700");
}
