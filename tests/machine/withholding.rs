//! Units whose restarts wait for a person, and the scripts of packages that would make them.

use crate::fixture::apt_repository::{AptRepository, Package};
use crate::fixture::machine::{Machine, wait_until};
use crate::scene::{SOON, Scene};

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// What was there before: it notes what it is asked, and lets everything go on.
const OPERATORS: &str =
    "#!/bin/sh\necho \"$*\" >> /var/lib/policy-asked\nexit 104\n# \u{e4}, to the byte";

/// The package's own unit waits for a person; the other one of the same call does not.
fn layer(version: &str) -> String {
    format!(
        r#"
[package]
app = {{ version = "{version}" }}

[unit."app.service"]
content = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
enabled = true
running = true
restart = "manual"

[unit."helper.service"]
content = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
enabled = true
running = true
"#
    )
}

const RESTARTS: &str =
    "if [ -n \"$2\" ]; then deb-systemd-invoke restart app.service helper.service; fi";

/// As debhelper writes it for a package whose unit is stopped while it is replaced, which is rarer and harder.
const STOPS: &str = "deb-systemd-invoke stop app.service";

fn enrolled(label: &str, postinst: &str) -> Scene {
    let scene = Scene::prepared(label, &layer("1.0"));
    let machine = &scene.machine;
    let package = |version| Package {
        postinst,
        prerm: STOPS,
        ..Package::new("app", version)
    };
    AptRepository::new(&[package("1.0"), package("2.0")]).copy_to(machine);
    scene.enroll().success();
    scene.converge();
    scene
}

fn write_operators(machine: &Machine) -> String {
    machine.write_file(POLICY, OPERATORS);
    machine.sh(&format!(
        "chmod 0750 {POLICY}; touch -d 2001-02-03 {POLICY}"
    ));
    identity(machine)
}

/// Everything about the file but its content.
fn identity(machine: &Machine) -> String {
    machine.sh(&format!("stat -c '%i %a %u %g %y' {POLICY}"))
}

#[track_caller]
fn owes_a_restart(scene: &Scene) {
    let status = scene.status();
    assert_eq!(
        status["owed"],
        serde_json::json!([{
            "action": "restart", "resource": "unit:app.service", "manual": true, "because": "package:app"
        }]),
        "{status:#}"
    );
}

#[test]
fn a_package_does_not_restart_what_waits_for_a_person_and_restarts_the_rest() {
    let scene = enrolled("withhold", RESTARTS);
    let machine = &scene.machine;
    let before = write_operators(machine);
    let (app, helper) = (
        machine.main_pid("app.service"),
        machine.main_pid("helper.service"),
    );
    scene.apply(&layer("2.0"));
    assert_eq!(machine.read_file("/usr/share/app/version"), "2.0\n");
    assert_eq!(
        machine.main_pid("app.service"),
        app,
        "neither stopped nor restarted"
    );
    assert_ne!(
        machine.main_pid("helper.service"),
        helper,
        "not dropped with it"
    );
    owes_a_restart(&scene);
    let text = machine.run(&["limpet", "status"]).success();
    assert!(text.contains("systemctl restart app.service"), "{text}");

    assert_eq!(machine.read_file(POLICY), OPERATORS);
    assert_eq!(identity(machine), before);
    assert!(!machine.exists("/usr/sbin/policy-rc.d.before-limpet"));
    let asked = machine.read_file("/var/lib/policy-asked");
    assert!(asked.contains("helper.service restart"), "{asked}");

    // Anybody pays it, with the very call that was withheld.
    machine.sh("deb-systemd-invoke restart app.service");
    assert_ne!(machine.main_pid("app.service"), app);
    scene.converge();
    assert_eq!(scene.status()["owed"], serde_json::json!([]));

    // A package that goes takes its unit down.
    machine.sh(&format!("rm {POLICY}"));
    let gone = layer("2.0")
        .replace("{ version = \"2.0\" }", "\"absent\"")
        .replace("enabled = true\nrunning = true\nrestart", "restart");
    scene.apply(&gone);
    assert!(!machine.is_active("app.service"));
    assert!(!machine.exists(POLICY), "there was none");
}

#[test]
fn what_was_there_before_comes_back_after_the_death_of_the_agent_and_others_are_not_kept() {
    // While the package is configured: the agent dies, and an operator restarts the unit by the same tool.
    let postinst = "if [ -n \"$2\" ] && [ ! -e /var/lib/killed ]; then
            touch /var/lib/killed
            systemctl kill --signal=KILL limpet.service
            cp /usr/sbin/policy-rc.d /var/lib/policy-meanwhile
            systemd-run --wait --quiet deb-systemd-invoke restart helper.service
            deb-systemd-invoke restart app.service
            sleep 3
        fi";
    let scene = enrolled("withhold-kill", postinst);
    let machine = &scene.machine;
    let before = write_operators(machine);
    let (app, helper) = (
        machine.main_pid("app.service"),
        machine.main_pid("helper.service"),
    );
    scene.declare(&layer("2.0"));
    machine.run(&["limpet", "sync"]);
    wait_until("the agent dies", SOON, || {
        machine.exists("/var/lib/killed").then_some(())
    });
    wait_until("the restart is owed", SOON, || {
        let status = scene.status();
        (status["owed"]
            .as_array()
            .is_some_and(|owed| !owed.is_empty()))
        .then_some(())
    });
    scene.converge();
    owes_a_restart(&scene);
    assert_eq!(machine.main_pid("app.service"), app);
    assert_ne!(machine.main_pid("helper.service"), helper);
    assert!(
        machine
            .read_file("/var/lib/policy-meanwhile")
            .contains("# limpet: ")
    );
    assert_eq!(machine.read_file(POLICY), OPERATORS);
    assert_eq!(identity(machine), before);
    let history = machine.run(&["limpet", "history"]).success();
    assert!(history.contains("saw packages through"), "{history}");
}
