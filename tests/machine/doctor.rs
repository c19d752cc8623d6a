//! What `limpet doctor` finds on a machine, ill in one way after the other.

use serde_json::Value;

use crate::bad_days_system::hold_the_package_lock;
use crate::fixture::apt_repository::{AptRepository, Package};
use crate::fixture::machine::Machine;
use crate::operator::{as_operator, object};
use crate::scene::Scene;

const PLAIN: &str = "[file.\"/etc/scene\"]\ncontent = \"one\\n\"\n";

#[test]
fn the_doctor_says_what_to_do_and_changes_nothing() {
    let scene = Scene::prepared("doctor", PLAIN);
    let machine = &scene.machine;
    let verdicts = |examination: &Value, wanted: &str| -> Vec<String> {
        let findings = examination["findings"].as_array().expect("a list");
        let wanted = findings
            .iter()
            .filter(|finding| finding["verdict"] == wanted);
        wanted
            .map(|finding| finding["check"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    // The scene has written a drop-in and nothing else.
    let before = machine.run(&["limpet", "doctor", "--json"]);
    assert_eq!(before.code(), 78, "{before:?}");
    assert_eq!(verdicts(&object(before), "config"), ["configuration"]);
    assert!(!machine.exists("/var/lib/limpet/state.db"));

    scene.enroll().success();
    scene.converge();
    let healthy = machine.run(&["limpet", "doctor", "--json"]);
    assert_eq!(healthy.code(), 0, "{healthy:?}");
    let healthy = object(healthy);
    for check in [
        "configuration",
        "permissions",
        "keys",
        "trusted head",
        "age key",
        "units",
        "version",
        "source",
        "packages",
        "systemd",
        "disk",
    ] {
        assert!(
            verdicts(&healthy, "ok").iter().any(|known| known == check),
            "{check}: {healthy:#}"
        );
    }
    machine.sh("useradd --groups limpet-operators olga");
    let other = as_operator(&scene, &["doctor"]);
    assert_eq!(other.code(), 0, "{other:?}");
    assert!(other.stdout.contains("not seen"), "{other:?}");

    machine.sh("systemctl stop limpet.service; chmod g+w /etc/limpet/allowed_signers; rm /etc/limpet/enrolled");
    machine.write_file(
        "/etc/limpet/limpet.toml.d/token.toml",
        "[source]\ntoken = \"git-token\"\n",
    );
    let ill = machine.run(&["limpet", "doctor", "--json"]);
    assert_eq!(ill.code(), 1, "{ill:?}");
    let found = verdicts(&object(ill), "wrong");
    for check in ["permissions", "units", "credentials"] {
        assert!(
            found.iter().any(|known| known == check),
            "{check}: {found:?}"
        );
    }
    assert!(!machine.is_active("limpet.service"), "it starts nothing");
    let shown = machine.run(&["limpet", "doctor"]).stdout;
    assert!(
        shown.contains("→ systemctl enable --now limpet.service"),
        "{shown}"
    );
    machine.write_file(
        "/etc/limpet/limpet.toml.d/token.toml",
        "[source]\ntokem = \"x\"\n",
    );
    assert_eq!(machine.run(&["limpet", "doctor"]).code(), 78);
}

/// Expects a finding of this verdict whose text and advice have these words, and the exit code that goes with it.
#[track_caller]
fn finds(machine: &Machine, verdict: &str, check: &str, detail: &str, hint: &str) {
    let output = machine.run(&["limpet", "doctor", "--json"]);
    let code = output.code();
    let examination = object(output);
    let findings = examination["findings"].as_array().expect("a list");
    let has = |finding: &&Value, key: &str, words: &str| {
        finding[key].as_str().unwrap_or_default().contains(words)
    };
    let found = findings.iter().find(|finding| {
        finding["verdict"] == verdict
            && finding["check"] == check
            && has(finding, "detail", detail)
            && has(finding, "hint", hint)
    });
    assert!(found.is_some(), "{check} '{detail}': {examination:#}");
    assert_eq!(code, i32::from(verdict == "wrong"), "{examination:#}");
}

/// Expects nothing to be wrong, and nothing to be worth a warning.
#[track_caller]
fn is_well(machine: &Machine) {
    let output = machine.run(&["limpet", "doctor"]);
    assert_eq!(output.code(), 0, "{output:?}");
    // The clock of these machines is the computer's: nothing inside keeps it right.
    let worth_a_word: Vec<_> = output
        .stdout
        .lines()
        .filter(|line| line.contains('→') && !line.contains("timedatectl"))
        .collect();
    assert!(worth_a_word.is_empty(), "{}", output.stdout);
}

#[test]
fn the_doctor_finds_what_is_wrong_around_it() {
    let scene = Scene::enrolled("doctor-around", PLAIN);
    let machine = &scene.machine;
    let packages = [Package::new("tool", "1.0")];
    AptRepository::new(&packages).copy_to(machine);
    is_well(machine);

    // Somebody's dpkg unpacked a package and was not let finish.
    machine.sh("dpkg --unpack /srv/apt/tool_1.0_all.deb >/dev/null");
    finds(
        machine,
        "wrong",
        "packages",
        "dpkg was interrupted",
        "dpkg --configure -a",
    );
    machine.sh("dpkg --configure -a >/dev/null");
    is_well(machine);

    let holder = hold_the_package_lock(machine);
    let detail = format!("process {holder} holds '/var/lib/dpkg/lock-frontend'");
    finds(
        machine,
        "warning",
        "packages",
        &detail,
        "limpet waits and tries again",
    );
    machine.sh("systemctl stop holder.service");
    is_well(machine);

    machine.sh("mount -t tmpfs -o size=8m tmpfs /var/cache/apt");
    finds(
        machine,
        "wrong",
        "disk",
        "'/var/cache/apt' has 8 MiB left",
        "apt-get clean",
    );
    machine.sh("mount -o remount,ro,size=200m /var/cache/apt");
    finds(
        machine,
        "wrong",
        "disk",
        "'/var/cache/apt' is read-only",
        "mount -o remount,rw",
    );
    machine.sh("mount -o remount,rw,nr_inodes=50 /var/cache/apt");
    finds(
        machine,
        "wrong",
        "disk",
        "'/var/cache/apt' has room for 49 more files",
        "du --inodes",
    );
    machine.sh("umount /var/cache/apt");
    is_well(machine);

    // As an upgrade by hand would, that restarts nothing.
    machine.sh("cp /usr/bin/limpet /usr/bin/limpet.new; mv /usr/bin/limpet.new /usr/bin/limpet");
    finds(
        machine,
        "warning",
        "version",
        "limpet.service",
        "systemctl restart limpet.service",
    );
    machine.sh("systemctl restart limpet.service");
    scene.renew_fetcher();
    is_well(machine);

    machine.write_file(
        "/etc/systemd/system/puppet.service",
        "[Service]\nExecStart=/bin/sleep infinity\n",
    );
    machine.sh("systemctl daemon-reload; systemctl start puppet.service");
    finds(
        machine,
        "warning",
        "other agents",
        "Puppet runs on this host",
        "in one of them only",
    );
    machine.sh("systemctl stop puppet.service; rm /etc/systemd/system/puppet.service; systemctl daemon-reload");
    is_well(machine);

    machine.sh("systemctl disable limpet.service 2>/dev/null");
    finds(
        machine,
        "warning",
        "units",
        "is not started at boot",
        "systemctl enable limpet.service",
    );
    machine.sh("systemctl enable limpet.service 2>/dev/null");

    // The database remembers another head than the mark beside the configuration.
    machine.sh("sed -i 's/[0-9a-f]\\{40\\}/0123456789012345678901234567890123456789/' /etc/limpet/enrolled");
    finds(
        machine,
        "wrong",
        "trusted head",
        "remember different revisions",
        "limpet enroll",
    );
}

#[test]
fn the_doctor_says_why_the_source_does_not_answer() {
    let mut scene = Scene::enrolled("doctor-source", PLAIN);
    scene.server = None;
    let machine = &scene.machine;
    scene.renew_fetcher();
    finds(
        machine,
        "wrong",
        "source",
        "Connection refused",
        "see whether the server is well",
    );
    machine.sh("mkdir /etc/systemd/system/limpet-fetch.service.d");
    machine.write_file(
        "/etc/systemd/system/limpet-fetch.service.d/broken.conf",
        "[Service]\nLoadCredential=git-token:/etc/limpet/nothing-is-here\n",
    );
    scene.renew_fetcher();
    finds(
        machine,
        "wrong",
        "source",
        "limpet-fetch.service",
        "systemctl status",
    );
}
