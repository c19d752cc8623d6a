//! systemd units on a real machine.

use crate::scene::{Scene, event};

const DECLARED: &str = r#"
[file."/etc/scene.conf"]
content = "one\n"

[file."/etc/bystander.conf"]
content = "one\n"

[unit."scene.service"]
content = """
[Service]
ExecStart=/bin/sleep infinity
ExecReload=/bin/touch /run/scene-reloaded

[Install]
WantedBy=multi-user.target
"""
enabled = true
running = true
restart_on = ["file:/etc/scene.conf"]

[unit."scene.service".dropin.environment]
content = "[Service]\nEnvironment=SCENE=one\n"

[unit."dpkg-db-backup.timer"]
masked = true
running = false

[unit."no-such-unit.service"]
masked = true
optional = true
"#;

#[track_caller]
fn check_declared(scene: &Scene) {
    let machine = &scene.machine;
    assert!(machine.is_active("scene.service"));
    let shown = |unit: &str, property: &str| {
        machine
            .sh(&format!(
                "systemctl show --property={property} --value {unit}"
            ))
            .trim()
            .to_owned()
    };
    assert_eq!(shown("scene.service", "UnitFileState"), "enabled");
    assert_eq!(shown("scene.service", "Environment"), "SCENE=one");
    assert_eq!(shown("scene.service", "NeedDaemonReload"), "no");
    assert_eq!(shown("dpkg-db-backup.timer", "LoadState"), "masked");
    assert_eq!(shown("dpkg-db-backup.timer", "ActiveState"), "inactive");
}

#[test]
fn units_are_created_and_corrected_and_undeclaring_restores_them() {
    let scene = Scene::enrolled("units", DECLARED);
    let machine = &scene.machine;
    check_declared(&scene);
    for change in [
        "systemctl stop scene.service",
        "systemctl kill --signal=KILL scene.service",
        "systemctl disable scene.service",
        "systemctl unmask dpkg-db-backup.timer; systemctl start dpkg-db-backup.timer",
        "rm /etc/systemd/system/scene.service; systemctl daemon-reload",
        "rm -r /etc/systemd/system/scene.service.d",
        "systemctl disable --now scene.service; rm /etc/systemd/system/scene.service",
        "echo '# by hand' >> /etc/systemd/system/scene.service",
    ] {
        machine.sh(change);
        scene.converge();
        check_declared(&scene);
    }

    scene.apply("");
    assert!(!machine.is_active("scene.service"));
    assert!(!machine.exists("/etc/systemd/system/scene.service"));
    assert!(!machine.exists("/etc/systemd/system/scene.service.d"));
    assert!(!machine.exists("/etc/systemd/system/multi-user.target.wants/scene.service"));
    assert!(machine.is_active("dpkg-db-backup.timer"));
    assert_eq!(
        machine.sh("systemctl is-enabled dpkg-db-backup.timer"),
        "enabled\n"
    );
}

#[test]
fn a_unit_restarts_when_what_it_is_made_of_changes_and_only_then() {
    let scene = Scene::enrolled("restart", DECLARED);
    let machine = &scene.machine;
    let mut pid = machine.main_pid("scene.service");
    for (changed, restarts) in [
        (DECLARED.replacen("one", "two", 1), true),
        (
            DECLARED.replacen("one", "two", 1).replace(
                "bystander.conf\"]\ncontent = \"one",
                "bystander.conf\"]\ncontent = \"two",
            ),
            false,
        ),
        (DECLARED.replace("SCENE=one", "SCENE=two"), true),
        (DECLARED.replace("infinity", "12345"), true),
        (
            DECLARED
                .replace("infinity", "12345")
                .replace("restart_on", "reload_on")
                .replacen("one", "three", 1),
            false,
        ),
    ] {
        scene.apply(&changed);
        let now = machine.main_pid("scene.service");
        assert_eq!(now != pid, restarts, "{changed}");
        pid = now;
    }
    assert!(machine.exists("/run/scene-reloaded"));
}

#[test]
fn a_unit_that_fails_to_start_is_reported_and_the_rest_goes_on() {
    let broken = DECLARED
        .replace("/bin/sleep infinity", "/bin/false")
        .replace(
            "[Service]\nExecStart",
            "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart",
        );
    let scene = Scene::prepared("failing", &broken);
    scene.enroll().success();
    assert_eq!(scene.sync().code(), 1);
    let status = scene.status();
    assert_eq!(status["state"], "degraded", "{status:#}");
    assert_eq!(
        status["errors"][0]["resource"], "unit:scene.service",
        "{status:#}"
    );
    assert_eq!(scene.machine.read_file("/etc/bystander.conf"), "one\n");
    assert_eq!(
        scene.event(event::RESOURCE_FAILED)["LIMPET_RESOURCE"],
        "unit:scene.service"
    );

    scene.apply(DECLARED);
    check_declared(&scene);
    scene.event(event::RECOVERED);
}

/// A unit of the machine's own, that nobody declared yet.
const OWN_UNIT: &str = "printf '[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n' \
                        > /etc/systemd/system/own.service; systemctl daemon-reload";

#[test]
fn a_key_that_is_left_out_is_taken_back_and_the_rest_later() {
    let scene = Scene::enrolled("keys", "");
    let machine = &scene.machine;
    machine.sh(OWN_UNIT);
    let is_enabled = || machine.exists("/etc/systemd/system/multi-user.target.wants/own.service");
    scene.apply("[unit.\"own.service\"]\nenabled = true\nrunning = true\n");
    assert!(is_enabled() && machine.is_active("own.service"));
    scene.apply("[unit.\"own.service\"]\nrunning = true\n");
    assert!(!is_enabled() && machine.is_active("own.service"));
    scene.apply("");
    assert!(!is_enabled() && !machine.is_active("own.service"));
}

#[test]
fn a_restart_that_fails_is_not_forgotten_and_no_restart_of_the_agent_hides_it() {
    let scene = Scene::enrolled("owed", "");
    let machine = &scene.machine;
    machine.sh(&format!("{OWN_UNIT}; systemctl start own.service"));
    scene.declare("[unit.\"own.service\".dropin.broken]\ncontent = \"[Service]\\nExecStartPre=/bin/false\\n\"\n");
    for attempt in ["at once", "and later"] {
        assert_eq!(scene.sync().code(), 1, "{attempt}");
        let status = scene.status();
        assert_eq!(status["state"], "degraded", "{attempt}: {status:#}");
        assert_eq!(
            status["owed"][0]["resource"], "unit:own.service",
            "{attempt}: {status:#}"
        );
    }
    machine.sh("systemctl restart limpet.service");
    let status = machine.run(&["limpet", "status", "--exit-code"]);
    assert_eq!(status.code(), 1, "{status:?}");

    // Taking the drop-in back restarts the unit, though nobody declares it any more.
    scene.apply("");
    assert!(machine.is_active("own.service"));
    assert_eq!(scene.status()["owed"], serde_json::json!([]));
}

#[test]
fn a_machine_that_the_repository_does_not_mean_is_held() {
    let scene = Scene::enrolled("misplaced", "[file.\"/etc/scene\"]\ncontent = \"one\\n\"\n");
    scene.repository.write(
        "inventory/hosts.toml",
        "[host.scene]\nfacts = { os = \"rocky\" }\n",
    );
    scene.declare("[file.\"/etc/scene\"]\ncontent = \"two\\n\"\n");
    scene.machine.sh("echo drift > /etc/scene");
    assert_eq!(scene.sync().code(), 1);
    assert_eq!(scene.status()["state"], "held", "{:#}", scene.status());
    assert_eq!(
        scene.machine.read_file("/etc/scene"),
        "one\n",
        "the last revision stays enforced"
    );
}

#[test]
fn a_unit_whose_start_is_due_when_its_file_goes_does_not_start_after_all() {
    let waiting = "[Unit]\nAfter=gate.service\n[Service]\nExecStart=/bin/sleep infinity\n";
    let scene = Scene::enrolled(
        "due",
        &format!("[unit.\"waiting.service\"]\ncontent = '''\n{waiting}'''\n"),
    );
    let machine = &scene.machine;
    // As at boot: what it comes after is not there yet.
    machine.write_file(
        "/etc/systemd/system/gate.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'until [ -e /run/open ]; do sleep 0.1; done'\n",
    );
    machine.sh("systemctl daemon-reload
         systemctl start --no-block gate.service
         systemctl start --no-block waiting.service");
    let jobs = machine.sh("systemctl list-jobs --no-legend");
    assert!(jobs.contains("waiting.service"), "{jobs}");
    scene.apply("");
    machine.sh("touch /run/open; systemctl start gate.service");
    assert!(!machine.exists("/etc/systemd/system/waiting.service"));
    assert!(!machine.is_active("waiting.service"));
}
