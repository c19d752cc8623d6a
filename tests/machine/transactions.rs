//! Package transactions that an agent does not live to see the end of, and what somebody else left half done.

use crate::fixture::apt_repository::{AptRepository, Package};
use crate::fixture::machine::{Machine, wait_until};
use crate::scene::{SOON, Scene};

/// Notes every time that it runs, and once does something to the agent, if it has something to do.
fn postinst(name: &str, once: &str) -> String {
    let once = match once {
        "" => ":",
        once => once,
    };
    format!(
        "echo begun >> /var/lib/ran-{name}
        if [ ! -e /var/lib/killed-{name} ]; then touch /var/lib/killed-{name}; {once}; fi
        sleep 2
        echo ended >> /var/lib/ran-{name}"
    )
}

const KILL: &str = "systemctl kill --signal=KILL limpet.service";

/// The agent dies, and none comes back until somebody wants one.
const END: &str =
    "systemctl mask --runtime limpet.service; systemctl kill --signal=KILL limpet.service";

/// The transactions that systemd knows.
fn transactions(machine: &Machine) -> String {
    machine.sh("systemctl list-units --all --plain --no-legend 'limpet-txn-*'")
}

/// `dead` is the agent that was to die.
#[track_caller]
fn was_installed_once(scene: &Scene, name: &str, dead: u32) {
    wait_until("an agent is back", SOON, || {
        let is_there = scene.machine.is_active("limpet.service");
        (is_there && scene.machine.main_pid("limpet.service") != dead).then_some(())
    });
    scene.converge();
    let machine = &scene.machine;
    let ran = machine.read_file(&format!("/var/lib/ran-{name}"));
    assert_eq!(ran, "begun\nended\n", "{name}");
    assert!(machine.exists(&format!("/usr/share/{name}/version")));
    assert_eq!(machine.sh("dpkg --audit"), "");
    assert_eq!(transactions(machine), "", "{name}");
    assert_eq!(scene.status()["owed"], serde_json::json!([]));
}

#[test]
fn a_package_is_installed_once_whenever_the_agent_dies() {
    let scripts = ["before", "during", "after"].map(|name| match name {
        "before" => postinst(name, ""),
        "during" => postinst(name, KILL),
        _ => postinst(name, END),
    });
    let packages = ["before", "during", "after"];
    let packages = [0, 1, 2].map(|index| Package {
        postinst: &scripts[index],
        ..Package::new(packages[index], "1.0")
    });
    let scene = Scene::prepared("phases", "");
    let machine = &scene.machine;
    AptRepository::new(&packages).copy_to(machine);
    machine.write_file(
        "/usr/local/sbin/killer",
        format!("#!/bin/sh\n[ -e /var/lib/killed ] && exit 0\ntouch /var/lib/killed\n{KILL}\nsleep 2\nexit 1\n"),
    );
    machine.sh("chmod 0755 /usr/local/sbin/killer");
    scene.enroll().success();
    scene.converge();

    // Between what is owed and the transaction: what configures apt comes before it.
    let mut layer = "[file.\"/etc/apt/apt.conf.d/90scene\"]\ncontent = \"// scene\\n\"\nvalidate = [\"killer\", \"{}\"]\n[package]\nbefore = \"installed\"\n".to_owned();
    scene.declare(&layer);
    let dead = machine.main_pid("limpet.service");
    machine.run(&["limpet", "sync"]);
    wait_until("the agent dies", SOON, || {
        machine.exists("/var/lib/killed").then_some(())
    });
    assert!(!machine.exists("/usr/share/before/version"));
    was_installed_once(&scene, "before", dead);

    layer.push_str("during = \"installed\"\n");
    scene.declare(&layer);
    let dead = machine.main_pid("limpet.service");
    machine.run(&["limpet", "sync"]);
    wait_until("the agent dies", SOON, || {
        machine.exists("/var/lib/killed-during").then_some(())
    });
    was_installed_once(&scene, "during", dead);

    layer.push_str("after = \"installed\"\n");
    scene.declare(&layer);
    let dead = machine.main_pid("limpet.service");
    machine.run(&["limpet", "sync"]);
    wait_until("the transaction ends while no agent is there", SOON, || {
        let is_over = transactions(machine).contains("exited");
        (is_over && machine.exists("/var/lib/killed-after")).then_some(())
    });
    assert!(!machine.is_active("limpet.service"));
    let before = machine.journal_cursor();
    machine.sh("systemctl unmask --runtime limpet.service; systemctl start limpet.service");
    was_installed_once(&scene, "after", dead);
    let adopted = machine.journal_after(&before, "LIMPET_OUTCOME", "done");
    assert_eq!(adopted.len(), 1, "{adopted:?}");
    let history = machine.run(&["limpet", "history"]).success();
    assert!(history.contains("saw packages through"), "{history}");
}

#[test]
fn a_transaction_that_fails_while_no_agent_is_there_is_told_and_not_repeated_at_once() {
    let script = format!("{}\nexit 7", postinst("bad", END));
    let bad = Package {
        postinst: &script,
        ..Package::new("bad", "1.0")
    };
    let scene = Scene::prepared("phases-bad", "");
    let machine = &scene.machine;
    AptRepository::new(&[bad]).copy_to(machine);
    scene.enroll().success();
    scene.converge();
    scene.declare("[package]\nbad = \"installed\"\n[file.\"/etc/beside\"]\ncontent = \"x\\n\"\n");
    machine.run(&["limpet", "sync"]);
    wait_until("the transaction fails", SOON, || {
        transactions(machine).contains("failed").then_some(())
    });
    machine.sh("systemctl unmask --runtime limpet.service; systemctl start limpet.service");
    let status = wait_until("the failure is told", SOON, || {
        let status = scene.status();
        let errors = status["errors"].to_string();
        (errors.contains("package:bad") && status["revision"] == scene.head().as_str())
            .then_some(status)
    });
    assert_eq!(status["state"], "degraded", "{status:#}");
    assert!(machine.exists("/etc/beside"), "the rest goes on");
    assert_eq!(machine.read_file("/var/lib/ran-bad"), "begun\nended\n");
    assert_eq!(transactions(machine), "");
}

#[test]
fn what_somebody_left_unpacked_is_completed_with_what_it_needs() {
    let packages = [
        Package::new("tool", "1.0"),
        Package::new("library", "1.0"),
        Package {
            depends: "library",
            ..Package::new("half", "1.0")
        },
    ];
    let scene = Scene::prepared("half-done", "");
    let machine = &scene.machine;
    AptRepository::new(&packages).copy_to(machine);
    scene.enroll().success();
    scene.converge();
    machine.sh("dpkg --unpack /srv/apt/half_1.0_all.deb");
    scene.apply("[package]\ntool = \"installed\"\n");
    assert_eq!(machine.sh("dpkg --audit"), "");
    for package in ["tool", "library", "half"] {
        assert!(machine.exists(&format!("/usr/share/{package}/version")));
    }
    let history = machine.run(&["limpet", "history"]).success();
    assert!(
        history.contains("dpkg had been interrupted at half"),
        "{history}"
    );
}

#[test]
fn a_repair_that_would_remove_a_package_waits_for_somebody_who_says_so() {
    let packages = [
        Package::new("tool", "1.0"),
        Package {
            depends: "nowhere",
            ..Package::new("half", "1.0")
        },
    ];
    let scene = Scene::prepared("half-guard", "");
    let machine = &scene.machine;
    AptRepository::new(&packages).copy_to(machine);
    scene.enroll().success();
    scene.converge();
    machine.sh("dpkg --unpack /srv/apt/half_1.0_all.deb");
    scene.declare("[package]\ntool = \"installed\"\n[file.\"/etc/beside\"]\ncontent = \"x\\n\"\n");
    assert_eq!(scene.sync().code(), 1);
    assert!(machine.exists("/etc/beside"), "the rest goes on");
    assert!(
        machine.exists("/usr/share/half/version"),
        "it is nobody's to remove"
    );
    let history = machine.run(&["limpet", "history"]).success();
    assert!(history.contains("it would remove half"), "{history}");
    scene.apply("[package]\ntool = \"installed\"\nhalf = \"absent\"\n[file.\"/etc/beside\"]\ncontent = \"x\\n\"\n");
    assert!(machine.exists("/usr/share/tool/version"));
    assert!(!machine.exists("/usr/share/half/version"));
    assert_eq!(machine.sh("dpkg --audit"), "");
}
