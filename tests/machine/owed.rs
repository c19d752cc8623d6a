//! What is owed on a real machine: commands, restarts and daemon-reloads, over everything that may come between.

use crate::fixture::machine::wait_until;
use crate::scene::{SOON, Scene};

/// A program that kills the agent when it runs for the first time, and notes every time that it ends well.
const KILLER: &str = r#"#!/bin/sh
set -e
if [ ! -e "/var/lib/killed-$1" ]; then
    touch "/var/lib/killed-$1"
    systemctl kill --signal=KILL limpet.service
    sleep 1
    exit 1
fi
echo "$1" >> /var/lib/ran
"#;

fn killer(machine: &crate::fixture::machine::Machine) {
    machine.write_file("/usr/local/sbin/killer", KILLER);
    machine.sh("chmod 0755 /usr/local/sbin/killer");
}

/// How often the program ended well, by what it was told.
fn ran(scene: &Scene, word: &str) -> usize {
    let machine = &scene.machine;
    if !machine.exists("/var/lib/ran") {
        return 0;
    }
    let lines = machine.read_file("/var/lib/ran");
    lines.lines().filter(|line| *line == word).count()
}

#[track_caller]
fn settles(scene: &Scene) {
    wait_until("the host is as declared", SOON, || {
        let status = scene.status();
        let is_done = status["state"] == "converged" && status["revision"] == scene.head().as_str();
        is_done.then_some(())
    });
    let owed = scene.status()["owed"].clone();
    assert_eq!(owed, serde_json::json!([]));
    scene.nothing_to_do();
}

const TRIGGERED: &str = r#"
[file."/etc/app.conf"]
content = "one\n"

[command.rebuild]
command = ["killer", "rebuild"]
run_on  = ["file:/etc/app.conf"]

[unit."app.service"]
content = "[Service]\nExecStart=/bin/sleep infinity\n"
running = true
restart_on = ["command:rebuild"]
"#;

#[test]
fn a_command_is_owed_over_the_death_of_the_agent_and_what_follows_it_too() {
    let scene = Scene::prepared("owed-run", TRIGGERED);
    let machine = &scene.machine;
    killer(machine);
    machine.sh("touch /var/lib/killed-rebuild");
    scene.enroll().success();
    scene.converge();
    assert_eq!(ran(&scene, "rebuild"), 1, "its file is new");
    let pid = machine.main_pid("app.service");

    machine.sh("rm /var/lib/killed-rebuild");
    scene.declare(&TRIGGERED.replace("one", "two"));
    machine.run(&["limpet", "sync"]);
    wait_until("the agent dies", SOON, || {
        machine.exists("/var/lib/killed-rebuild").then_some(())
    });
    settles(&scene);
    assert_eq!(machine.read_file("/etc/app.conf"), "two\n");
    assert_eq!(ran(&scene, "rebuild"), 2);
    assert_ne!(machine.main_pid("app.service"), pid);
    let history = machine.run(&["limpet", "history"]).success();
    assert!(history.contains("command:rebuild"), "{history}");

    scene.sync().success();
    assert_eq!(ran(&scene, "rebuild"), 2, "it is paid");
    let output = machine.sh("journalctl -t limpet -o cat");
    assert!(output.contains("command:rebuild: run"), "{output}");
}

const ONCE: &str = r#"
[command.reindex-1]
command = ["sh", "-c", "echo indexing; test -e /etc/ready && echo reindex-1 >> /var/lib/ran"]
once    = true

[file."/etc/after"]
content = "indexed\n"
needs   = ["command:reindex-1"]
"#;

#[test]
fn a_command_that_runs_once_is_tried_until_it_succeeds_and_never_again() {
    let scene = Scene::prepared("once", ONCE);
    let machine = &scene.machine;
    scene.enroll().success();
    assert_eq!(scene.sync().code(), 1);
    let status = scene.status();
    assert_eq!(status["errors"][0]["resource"], "command:reindex-1");
    let message = status["errors"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("exited with status 1: \"indexing\""),
        "{message}"
    );
    assert!(!machine.exists("/etc/after"));
    machine.sh("touch /etc/ready");
    scene.converge();
    assert!(machine.exists("/etc/after"));
    assert_eq!(ran(&scene, "reindex-1"), 1);

    // Neither an agent that starts, nor a boot, nor other words, nor a declaration that comes back.
    machine.sh("systemctl restart limpet.service");
    scene.converge();
    machine.reboot(crate::fixture::machine::Network::Shared);
    scene.converge();
    scene.apply(&ONCE.replace("indexing", "indexing anew"));
    scene.apply("");
    scene.apply(ONCE);
    assert_eq!(ran(&scene, "reindex-1"), 1);
    scene.apply(&ONCE.replace("reindex-1", "reindex-2"));
    assert_eq!(ran(&scene, "reindex-2"), 1);
}

const UNIT_FILE: &str = r#"
[file."/etc/systemd/system/other.service"]
content = "[Unit]\nDescription=one\n[Service]\nExecStart=/bin/sleep infinity\n"

[file."/etc/after"]
content  = "one\n"
needs    = ["file:/etc/systemd/system/other.service"]
validate = ["killer", "check", "{}"]
"#;

#[test]
fn systemd_reads_a_unit_file_that_was_written_just_before_the_agent_died() {
    let scene = Scene::prepared("owed-reload", UNIT_FILE);
    let machine = &scene.machine;
    killer(machine);
    machine.sh("touch /var/lib/killed-check");
    scene.enroll().success();
    scene.converge();
    // Loaded by somebody, so that systemd has something to forget.
    machine.sh("systemctl start other.service; rm /var/lib/killed-check");
    scene.declare(&UNIT_FILE.replace("one", "two"));
    machine.run(&["limpet", "sync"]);
    wait_until("the agent dies", SOON, || {
        machine.exists("/var/lib/killed-check").then_some(())
    });
    settles(&scene);
    let shown = machine
        .sh("systemctl show --property=Description --property=NeedDaemonReload other.service");
    assert!(
        shown.contains("Description=two") && shown.contains("NeedDaemonReload=no"),
        "{shown}"
    );
}

const MANUAL: &str = r#"
[file."/etc/app.conf"]
content = "one\n"

[unit."app.service"]
content    = "[Service]\nExecStart=/bin/sleep infinity\n"
running    = true
restart    = "manual"
restart_on = ["file:/etc/app.conf"]
"#;

#[test]
fn a_restart_that_waits_is_shown_and_paid_by_anybody_or_by_a_boot() {
    let scene = Scene::enrolled("manual", MANUAL);
    let machine = &scene.machine;
    let pid = machine.main_pid("app.service");
    let mut paid = Vec::new();
    for pay in ["systemctl restart app.service", ""] {
        let before = machine.main_pid("app.service");
        scene.apply(&MANUAL.replace("one", &format!("changed {pay}")));
        // Neither another look nor an agent that dies makes it.
        machine.kill("limpet.service");
        wait_until("the agent is back", SOON, || {
            machine.is_active("limpet.service").then_some(())
        });
        scene.converge();
        assert_eq!(machine.main_pid("app.service"), before);
        let status = scene.status();
        assert_eq!(
            status["owed"],
            serde_json::json!([{
                "action": "restart", "resource": "unit:app.service", "manual": true, "because": "file:/etc/app.conf"
            }]),
            "{status:#}"
        );
        let text = machine.run(&["limpet", "status"]).success();
        assert!(text.contains("systemctl restart app.service"), "{text}");
        if pay.is_empty() {
            machine.reboot(crate::fixture::machine::Network::Shared);
        } else {
            machine.sh(pay);
        }
        scene.converge();
        paid.push(scene.status()["owed"].clone());
    }
    assert_eq!(paid, [serde_json::json!([]), serde_json::json!([])]);
    assert_ne!(machine.main_pid("app.service"), pid);
}
