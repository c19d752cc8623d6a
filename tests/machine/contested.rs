//! Somebody else changes back what limpet corrects: both sides are real, and neither gives in.

use std::time::Duration;

use serde_json::Value;

use crate::fixture::machine::wait_until;
use crate::scene::{LAYER, Scene, event};

const CONF: &str = "/etc/scene.conf";

/// A service that counts its starts, and restarts when [`CONF`] changes.
const DECLARED: &str = r#"
[file."/etc/scene.conf"]
content = "ours\n"

[unit."scene.service"]
content = """
[Service]
ExecStartPre=/bin/sh -c 'echo start >> /run/starts'
ExecStart=/bin/sleep infinity
"""
running = true
restart_on = ["file:/etc/scene.conf"]
"#;

/// The other side: a timer that writes the file anew as soon as it is put right.
fn start_the_other_side(scene: &Scene) {
    let machine = &scene.machine;
    machine.write_file(
        "/usr/local/sbin/theirs",
        "#!/bin/sh\ngrep -q theirs /etc/scene.conf || echo '# Ansible managed: theirs' > /etc/scene.conf\n",
    );
    machine.write_file(
        "/etc/systemd/system/theirs.service",
        "[Service]\nType=oneshot\nExecStart=/bin/sh /usr/local/sbin/theirs\n",
    );
    machine.write_file(
        "/etc/systemd/system/theirs.timer",
        "[Timer]\nOnActiveSec=0\nOnUnitInactiveSec=12s\nAccuracySec=100ms\n",
    );
    machine.sh("systemctl daemon-reload; systemctl start theirs.timer");
}

fn starts(scene: &Scene) -> usize {
    scene.machine.read_file("/run/starts").lines().count()
}

fn condition(scene: &Scene) -> Option<Value> {
    let status = scene.status();
    let all = status["conditions"].as_array().expect("a list");
    all.iter().find(|one| one["type"] == "contested").cloned()
}

#[test]
fn what_somebody_else_changes_back_is_left_alone_and_told_with_who_it_is() {
    let scene = Scene::enrolled("contested", DECLARED);
    let machine = &scene.machine;
    scene.poll_often();
    assert_eq!(starts(&scene), 1);
    let cursor = machine.journal_cursor();
    start_the_other_side(&scene);
    let degraded = wait_until("it is given up", Duration::from_secs(300), || {
        Some(scene.status()).filter(|status| status["state"] == "degraded")
    });
    let message = degraded["errors"][0]["message"]
        .as_str()
        .unwrap_or_default();
    for known in [
        "file:/etc/scene.conf is contested",
        "belongs to root",
        "theirs.service ran then",
        "its head names Ansible",
    ] {
        assert!(message.contains(known), "no '{known}': {degraded:#}");
    }
    assert!(condition(&scene).is_some(), "{degraded:#}");
    let restarts = starts(&scene) - 1;
    assert_eq!(restarts, 5, "once for each correction");

    // No more of it: no restart, no word, also of an agent that starts anew; told once.
    machine.sh("systemctl restart limpet.service");
    std::thread::sleep(Duration::from_secs(35));
    assert_eq!(starts(&scene) - 1, restarts);
    let told = |event| machine.journal_after(&cursor, "MESSAGE_ID", event).len();
    assert_eq!(told(event::CONTESTED), 1);
    assert_eq!(told(event::RECOVERED), 0);
    let why = machine.run(&["limpet", "why", CONF]).success();
    assert!(
        why.contains("contested") && why.contains("theirs.service"),
        "{why}"
    );
    let shown = machine.run(&["limpet", "status"]).success();
    assert!(shown.contains("5 times in a row"), "{shown}");
    let plan = machine.run(&["limpet", "plan"]);
    assert!(plan.stdout.contains("contested: "), "{plan:?}");

    // A new declaration is no correction: it is made at once.
    scene
        .repository
        .write(LAYER, &DECLARED.replace("ours", "theirs, agreed"));
    let agreed = scene.push_signed(&scene.alice);
    wait_until("the new declaration", Duration::from_secs(60), || {
        Some(()).filter(|()| scene.status()["revision"] == agreed.as_str())
    });
    assert_eq!(machine.read_file(CONF), "theirs, agreed\n");
    assert_eq!(condition(&scene), None);
    assert_eq!(scene.status()["state"], "converged");
}

#[test]
fn sync_forgives_what_is_contested() {
    let scene = Scene::enrolled("forgiven", DECLARED);
    let machine = &scene.machine;
    scene.poll_often();
    start_the_other_side(&scene);
    wait_until("it is given up", Duration::from_secs(300), || {
        Some(scene.status()).filter(|status| status["state"] == "degraded")
    });
    machine.sh("systemctl stop theirs.timer theirs.service");
    scene.converge();
    assert_eq!(machine.read_file(CONF), "ours\n");
    assert_eq!(condition(&scene), None);
}
