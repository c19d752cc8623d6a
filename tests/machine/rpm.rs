//! What the rpm does to a machine, installed by dnf: installation, presets, upgrade, removal.

use crate::fixture::machine::{Machine, Network};
use crate::fixture::rpm_repository::{self, RpmRepository};

const UNITS: [&str; 3] = [
    "limpet.service",
    "limpet-fetch.socket",
    "limpet-probation.timer",
];

fn machine(label: &str, repository: &RpmRepository) -> Machine {
    let base = rpm_repository::base("dnf4");
    let machine = Machine::start_over(label, Network::Shared, Some(&base));
    repository.copy_to(&machine);
    machine
}

/// What systemd says of the three units.
fn enabled(machine: &Machine) -> Vec<String> {
    let one = |unit: &&str| machine.run(&["systemctl", "is-enabled", unit]).stdout;
    UNITS
        .iter()
        .map(|unit| one(unit).trim().to_owned())
        .collect()
}

#[test]
fn the_rpm_obeys_presets_and_keeps_at_an_upgrade_what_runs_and_what_is_enabled() {
    let repository = RpmRepository::new(&[]);
    let machine = machine("rpm", &repository);
    // As on Fedora and its kin; Debian's presets enable everything.
    machine.write_file("/etc/systemd/system-preset/00-none.preset", "disable *\n");
    machine.sh("dnf -q -y install limpet");
    assert_eq!(
        machine.sh("limpet --version").trim(),
        concat!("limpet ", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(enabled(&machine), ["disabled"; 3]);
    for (path, ownership) in [
        ("/run/limpet", "root:root 755"),
        ("/var/lib/limpet", "root:root 700"),
        ("/var/cache/limpet", "limpet:limpet 700"),
        ("/usr/bin/limpet", "root:root 755"),
    ] {
        assert_eq!(machine.ownership(path), ownership, "{path}");
    }
    assert!(!machine.exists("/etc/limpet"));
    machine.sh("getent group limpet-operators && getent passwd limpet && rpm -V limpet");

    // Enabled by hand, and another version: it is as it was. What does not run is not started.
    machine.sh("systemctl enable --quiet limpet.service limpet-fetch.socket");
    rpm_repository::changed("9.8", repository.directory(), "");
    repository.copy_to(&machine);
    machine.sh("dnf -q -y upgrade limpet");
    assert_eq!(machine.sh("rpm -q --qf '%{VERSION}' limpet"), "9.8");
    assert_eq!(enabled(&machine), ["enabled", "enabled", "disabled"]);
    for unit in UNITS {
        assert!(!machine.is_active(unit), "{unit}");
    }
    assert_eq!(machine.sh("systemctl --failed --quiet"), "");

    machine.sh("systemctl disable --quiet limpet.service; dnf -q -y downgrade limpet");
    assert_eq!(enabled(&machine), ["disabled", "enabled", "disabled"]);

    // What was there before limpet only its state knows: it stays, as it does when the deb is removed.
    machine.sh("mkdir /etc/limpet; echo remembered | tee /etc/limpet/limpet.toml /var/lib/limpet/state.db >/dev/null");
    machine.sh("dnf -q -y remove limpet");
    for path in ["/etc/limpet/limpet.toml", "/var/lib/limpet/state.db"] {
        assert_eq!(machine.read_file(path), "remembered\n", "{path}");
    }
    assert_eq!(machine.ownership("/var/lib/limpet"), "root:root 700");
    assert_eq!(machine.ownership("/var/cache/limpet"), "limpet:limpet 700");
    for path in [
        "/usr/bin/limpet",
        "/run/limpet",
        "/usr/lib/systemd/system/limpet.service",
        "/etc/systemd/system/sockets.target.wants/limpet-fetch.socket",
    ] {
        assert!(!machine.exists(path), "{path}");
    }
    assert_eq!(
        machine.sh("systemctl list-units --all --plain --no-legend 'limpet*'"),
        ""
    );
}

#[test]
fn the_rpm_is_the_same_when_it_is_packed_again_elsewhere_and_later() {
    let directories = [(); 2].map(|()| tempfile::TempDir::new().unwrap());
    let [one, other] =
        [("", 0), ("find . -exec touch -d '+1 day' {} +", 1)].map(|(script, index)| {
            let package = rpm_repository::changed("9.8", directories[index].path(), script);
            std::fs::read(package).unwrap()
        });
    assert!(one == other, "the packages differ");
}

#[test]
fn both_packages_hold_the_same_files() {
    let deb = crate::fixture::package::files();
    let rpm = rpm_repository::files();
    let differs = |path: &&String| {
        // Each has its own place for these, or its own reason; see packaging/rpm/limpet.spec.
        [
            "/usr/share/doc/limpet/",
            "/usr/share/licenses/",
            "/usr/share/zsh/",
            "/usr/share/lintian/",
            "/etc/needrestart/",
        ]
        .iter()
        .any(|start| path.starts_with(start))
            && !path.starts_with("/usr/share/doc/limpet/examples/")
    };
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        let missing = these.iter().filter(|path| !those.contains(path));
        missing.filter(|path| !differs(path)).cloned().collect()
    };
    assert_eq!(only(&deb, &rpm), [""; 0]);
    assert_eq!(only(&rpm, &deb), [""; 0]);
    assert!(
        deb.len() > 80 && rpm.len() > 80,
        "{} {}",
        deb.len(),
        rpm.len()
    );
}
