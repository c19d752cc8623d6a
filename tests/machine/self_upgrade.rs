//! A fleet upgrades limpet itself, to versions that work and to some that do not.

use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::apt_repository::AptRepository;
use crate::fixture::machine::{Machine, Network, wait_until};
use crate::fixture::package;
use crate::scene::{SOON, Scene};

const LAYER: &str = "[file.\"/etc/scene\"]\ncontent = \"kept\\n\"\n";
const OLD: &str = env!("CARGO_PKG_VERSION");

/// As long as five starts and their end may take on a busy computer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A converged machine, and the repository from which it gets limpet: with the version that runs, and others made by
/// `(version, script)`.
fn scene(label: &str, versions: &[(&str, &str)]) -> (Scene, AptRepository, TempDir) {
    let scene = Scene::prepared(label, LAYER);
    let directory = TempDir::new().expect("a temporary directory can be made");
    let repository = AptRepository::new(&[]);
    repository.add(&package::built());
    for (version, script) in versions {
        repository.add(&package::changed(version, &directory, script));
    }
    repository.copy_to(&scene.machine);
    // A start that hangs is to be given up soon.
    scene.machine.write_file(
        "/etc/systemd/system/limpet.service.d/impatient.conf",
        "[Service]\nTimeoutStartSec=3s\n",
    );
    scene.machine.sh("systemctl daemon-reload");
    scene.enroll().success();
    scene.converge();
    // It has reached its source: this is the last good version.
    scene
        .machine
        .sh("cmp /usr/bin/limpet /var/lib/limpet/previous/limpet");
    (scene, repository, directory)
}

/// Declares that version and has the machine notice; returns the revision.
fn ask_for(scene: &Scene, version: &str) -> String {
    let revision = scene.declare(&format!(
        "{LAYER}\n[file.\"/etc/beside\"]\ncontent = \"{version}\\n\"\n\n[package]\nlimpet = {{ version = \"{version}\", allow_downgrade = true }}\n"
    ));
    scene.machine.run(&["limpet", "sync"]).success();
    revision
}

fn version(machine: &Machine) -> String {
    machine.sh("dpkg-query -W -f '${db:Status-Status} ${Version}' limpet")
}

/// The status, if an agent gives it.
fn answered(scene: &Scene) -> Option<Value> {
    // The installed program may be one that hangs, whatever it is asked.
    let asked = ["timeout", "5", "limpet", "status", "--json"];
    let status: Value = serde_json::from_str(&scene.machine.run(&asked).stdout).ok()?;
    (!status["conditions"].to_string().contains("agent-down")).then_some(status)
}

#[track_caller]
fn reaches(scene: &Scene, revision: &str, state: &str, expected: &str) -> Value {
    let status = wait_until(&format!("{state} with {expected}"), PATIENCE, || {
        let status = answered(scene)?;
        (status["state"] == state
            && status["revision"] == revision
            && version(&scene.machine) == format!("installed {expected}"))
        .then_some(status)
    });
    assert_eq!(scene.machine.sh("dpkg --audit"), "");
    assert!(scene.machine.is_active("limpet.service"));
    status
}

/// The program that runs is the one that the version before had.
#[track_caller]
fn old_program_runs(machine: &Machine) {
    let pid = machine.main_pid("limpet.service");
    let program = machine.sh(&format!("readlink /proc/{pid}/exe"));
    assert_eq!(program.trim(), "/usr/bin/limpet");
    machine.sh("cmp /usr/bin/limpet /var/lib/limpet/previous/limpet");
}

#[test]
fn limpet_is_upgraded_and_taken_down_again_by_the_fleet() {
    let marked = "echo marked >> usr/bin/limpet";
    let (scene, _repository, _directory) = scene("itself-up", &[("99.0.0", marked)]);
    let machine = &scene.machine;
    let before = ask_for(&scene, OLD);
    reaches(&scene, &before, "converged", OLD);
    let up = ask_for(&scene, "99.0.0");
    reaches(&scene, &up, "converged", "99.0.0");
    assert_eq!(machine.read_file("/etc/beside"), "99.0.0\n");
    // It has not reached the source yet.
    assert_ne!(
        machine
            .run(&["cmp", "/usr/bin/limpet", "/var/lib/limpet/previous/limpet"])
            .code(),
        0
    );
    scene.converge();
    machine.sh("cmp /usr/bin/limpet /var/lib/limpet/previous/limpet");
    scene.repository.git(&["revert", "--no-commit", "HEAD"]);
    let down = scene.push_signed(&scene.alice);
    machine.run(&["limpet", "sync"]).success();
    reaches(&scene, &down, "converged", OLD);
    scene.converge();
    machine.sh("cmp /usr/bin/limpet /var/lib/limpet/previous/limpet");
    assert_eq!(machine.sh("systemctl --failed --quiet"), "");
}

const EXITS: &str = "printf '#!/bin/sh\\nexit 1\\n' > usr/bin/limpet; chmod 755 usr/bin/limpet";

#[test]
fn a_version_that_exits_is_taken_back_and_held() {
    is_taken_back("exits", EXITS);
}

#[test]
fn a_person_may_have_a_version_tried_again_that_was_taken_back() {
    let (scene, repository, _directory) = scene("retry", &[("99.0.0", EXITS)]);
    let machine = &scene.machine;
    let revision = ask_for(&scene, "99.0.0");
    reaches(&scene, &revision, "held", OLD);
    // It is made anew under the same name; nobody is told.
    let anew = TempDir::new().expect("a temporary directory can be made");
    repository.add(&package::changed("99.0.0", &anew, "true"));
    repository.copy_to(machine);
    machine.sh("apt-get -q update");
    assert_eq!(scene.sync().code(), 1);
    assert_eq!(version(machine), format!("installed {OLD}"), "it is held");
    machine.run(&["limpet", "sync", "--retry"]).success();
    reaches(&scene, &revision, "converged", "99.0.0");
    let history = machine.sh("limpet history");
    assert!(
        history.contains("went back from limpet 99.0.0"),
        "{history}"
    );
}

#[test]
fn a_version_that_hangs_is_taken_back_and_held() {
    is_taken_back(
        "hangs",
        "printf '#!/bin/sh\\nexec sleep 1000\\n' > usr/bin/limpet; chmod 755 usr/bin/limpet",
    );
}

#[test]
fn a_version_that_is_torn_is_taken_back_and_held() {
    is_taken_back("torn", "truncate --size=100000 usr/bin/limpet");
    is_taken_back("empty", "truncate --size=0 usr/bin/limpet");
}

#[track_caller]
fn is_taken_back(name: &str, script: &str) {
    let versions = [("99.0.0", script), ("99.1.0", "true")];
    let (scene, _repository, _directory) = scene(name, &versions);
    let machine = &scene.machine;
    let revision = ask_for(&scene, "99.0.0");
    let status = reaches(&scene, &revision, "held", OLD);
    old_program_runs(machine);
    let told = status["errors"].to_string();
    assert!(
        told.contains("99.0.0") && told.contains("sync --retry"),
        "{name}: {told}"
    );
    assert_eq!(
        machine.read_file("/etc/beside"),
        "99.0.0\n",
        "{name}: the rest of the revision is applied"
    );
    let history = machine.sh("limpet history");
    assert!(
        history.contains("went back from limpet 99.0.0"),
        "{history}"
    );

    // It stays so, over cycles and restarts, and all else is enforced.
    machine.write_file("/etc/scene", "drift\n");
    assert_eq!(scene.sync().code(), 1, "{name}");
    machine.sh("systemctl restart limpet.service");
    assert_eq!(scene.sync().code(), 1, "{name}");
    assert_eq!(machine.read_file("/etc/scene"), "kept\n", "{name}");
    assert_eq!(version(machine), format!("installed {OLD}"), "{name}");

    let better = ask_for(&scene, "99.1.0");
    reaches(&scene, &better, "converged", "99.1.0");
    let recovery = machine.sh("journalctl --no-pager --unit=limpet-recover.service");
    assert_eq!(
        machine.sh("systemctl --failed --quiet"),
        "",
        "{name}: {recovery}"
    );
}

#[test]
fn where_no_repository_has_the_old_version_its_program_is_put_back() {
    let (scene, _repository, directory) = scene("put-back", &[]);
    let machine = &scene.machine;
    let only_new = AptRepository::new(&[]);
    only_new.add(&package::changed("99.0.0", &directory, EXITS));
    machine.sh("rm -rf /srv/apt");
    only_new.copy_to(machine);
    let revision = ask_for(&scene, "99.0.0");
    let status = reaches(&scene, &revision, "held", "99.0.0");
    old_program_runs(machine);
    assert!(
        status["errors"].to_string().contains("put back"),
        "{status:#}"
    );
    assert_eq!(scene.sync().code(), 1);

    // Another commit that still wants it is another try, with the same end.
    let again = scene.declare(&format!(
        "{LAYER}\n[package]\nlimpet = {{ version = \"99.0.0\" }}\n"
    ));
    machine.run(&["limpet", "sync"]).success();
    reaches(&scene, &again, "held", "99.0.0");
    old_program_runs(machine);

    only_new.add(&package::changed("99.1.0", &directory, "true"));
    only_new.copy_to(machine);
    let better = ask_for(&scene, "99.1.0");
    reaches(&scene, &better, "converged", "99.1.0");
}

#[test]
fn a_package_that_cannot_be_configured_is_taken_back() {
    let fails_before = "sed -i '2i echo cannot be configured >&2; exit 1' DEBIAN/postinst";
    let fails_after = "echo 'echo cannot be configured >&2; exit 1' >> DEBIAN/postinst";
    for (name, script) in [("before", fails_before), ("after", fails_after)] {
        let (scene, _repository, _directory) =
            scene(&format!("postinst-{name}"), &[("99.0.0", script)]);
        let revision = ask_for(&scene, "99.0.0");
        let status = reaches(&scene, &revision, "held", OLD);
        old_program_runs(&scene.machine);
        assert!(
            status["errors"].to_string().contains("99.0.0"),
            "{name}: {status:#}"
        );
    }
}

#[test]
fn a_damaged_program_is_repaired() {
    let (scene, _repository, _directory) = scene("damaged", &[]);
    let machine = &scene.machine;
    machine.sh("cp /usr/bin/limpet /usr/bin/torn; truncate --size=50000 /usr/bin/torn; mv /usr/bin/torn /usr/bin/limpet");
    machine.kill("limpet.service");
    wait_until("the agent", PATIENCE, || {
        let status = answered(&scene)?;
        (status["state"] == "converged").then_some(())
    });
    old_program_runs(machine);
    assert_eq!(
        machine.sh("stat -c '%U:%G %a' /usr/bin/limpet"),
        "root:root 755\n"
    );
    assert!(machine.sh("limpet history").contains("was damaged"));
}

#[test]
fn a_version_that_works_is_never_given_up() {
    let (scene, _repository, _directory) = scene("restless", &[]);
    let machine = &scene.machine;
    let program = machine.sh("sha256sum /usr/bin/limpet");
    // Killed before it can end a cycle, more often than systemd starts it.
    machine.sh(
        "for i in $(seq 12); do systemctl kill --kill-whom=main --signal=KILL limpet.service || true; sleep 0.4; done",
    );
    wait_until("the agent", PATIENCE, || {
        let status = answered(&scene)?;
        (status["state"] == "converged").then_some(())
    });
    assert_eq!(machine.sh("sha256sum /usr/bin/limpet"), program);
    // A wrong configuration is the operator's, who is waited for.
    machine.write_file("/etc/limpet/limpet.toml.d/wrong.toml", "[sauce]\n");
    machine.run(&["systemctl", "restart", "limpet.service"]);
    wait_until("the agent to wait", SOON, || {
        let recover =
            machine.sh("systemctl show --property=ActiveState --value limpet-recover.service");
        let agent = machine.sh("systemctl show --property=ActiveState --value limpet.service");
        (agent.trim() == "failed" && recover.trim() == "inactive").then_some(())
    });
    machine.sh("rm /etc/limpet/limpet.toml.d/wrong.toml; systemctl start limpet.service");
    scene.converge();
}

#[test]
fn an_upgrade_survives_a_kill_and_a_reboot_in_the_middle() {
    let slow = "sed -i '2i touch /var/lib/configuring; sleep 5' DEBIAN/postinst";
    for reboots in [false, true] {
        let (scene, _repository, _directory) = scene("middle", &[("99.0.0", slow)]);
        let machine = &scene.machine;
        let revision = ask_for(&scene, "99.0.0");
        wait_until("the configuration of the package", SOON, || {
            machine.exists("/var/lib/configuring").then_some(())
        });
        machine.kill("limpet.service");
        if reboots {
            machine.unplug_and_boot(Network::Shared);
        }
        let status = reaches(&scene, &revision, "converged", "99.0.0");
        assert_eq!(status["errors"], serde_json::json!([]), "{status:#}");
        let history = machine.sh("limpet history --json");
        // What the boot interrupted is finished by another transaction, which restarts the agent as well.
        let expected = if reboots {
            "'dpkg --configure -a'"
        } else {
            "'apt-get --no-remove install limpet=99.0.0'"
        };
        assert!(history.contains(expected), "{history}");
        scene.nothing_to_do();
    }
}
