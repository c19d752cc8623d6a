//! A cycle that changes nothing costs nothing and says nothing.

use std::process::{Command, Stdio};

use tempfile::NamedTempFile;

use crate::fixture::machine::wait_until;
use crate::scene::{SOON, Scene};

const LAYER: &str = r#"
[file."/etc/scene"]
content = "quiet\n"

[package]
dbus = "installed"

[unit."dbus.service"]
running = true
"#;

#[test]
fn a_cycle_without_changes_runs_no_program_and_logs_nothing() {
    let scene = Scene::enrolled("quiet", LAYER);
    let machine = &scene.machine;
    scene.converge();
    let mut entries = Vec::new();
    let cursor = machine.journal_cursor();
    let calls = traced(&scene, "trace=execve,execveat,fork,vfork", || {
        for _ in 0..3 {
            scene.sync().success();
        }
        entries = machine.journal_after(&cursor, "SYSLOG_IDENTIFIER", "limpet");
    });
    assert_eq!(calls, "");
    assert_eq!(entries, Vec::<serde_json::Value>::new());
    let of_a_transient_unit = |entry: &serde_json::Value| {
        ["_SYSTEMD_UNIT", "UNIT"].iter().any(|field| {
            let unit = entry[field].as_str().unwrap_or_default();
            unit.starts_with("limpet-run-") || unit.starts_with("limpet-txn-")
        })
    };
    let transient = machine.journal(&["--after-cursor", &cursor]);
    assert!(!transient.iter().any(of_a_transient_unit), "{transient:#?}");
}

/// What the agent asked of the kernel, as strace's `filter` says, while `work` was done.
fn traced(scene: &Scene, filter: &str, work: impl FnOnce()) -> String {
    let machine = &scene.machine;
    let pid = machine.pid_here(machine.main_pid("limpet.service"));
    let trace = NamedTempFile::new().expect("a temporary file can be made");
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-e", filter, "-p", &pid.to_string(), "-o"])
        .arg(trace.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("strace runs");
    wait_until("strace", SOON, || {
        std::fs::read_to_string(format!("/proc/{pid}/status"))
            .ok()?
            .contains(&format!("TracerPid:\t{}", strace.id()))
            .then_some(())
    });
    work();
    Command::new("kill")
        .arg(strace.id().to_string())
        .status()
        .expect("kill runs");
    strace.wait().expect("strace ends");
    std::fs::read_to_string(trace.path()).expect("strace wrote")
}

#[test]
fn the_agent_opens_no_socket_of_a_network_whatever_it_does() {
    let scene = Scene::enrolled("offline", LAYER);
    let calls = traced(&scene, "trace=socket,socketpair,connect", || {
        // A new revision, drift, a refusal, and a way back.
        scene.apply(&LAYER.replace("quiet", "louder"));
        scene.machine.sh("echo drift > /etc/scene");
        scene.sync().success();
        scene.push_unsigned();
        scene.sync();
        scene.reset("HEAD~1");
        scene.converge();
        scene
            .machine
            .run(&["limpet", "rollback", "--reason", "a test"])
            .success();
    });
    assert!(
        calls.contains("AF_UNIX"),
        "it talks to the fetcher: {calls}"
    );
    let others: Vec<&str> = calls
        .lines()
        .filter(|line| line.contains("AF_") && !line.contains("AF_UNIX"))
        .collect();
    assert_eq!(others, Vec::<&str>::new());
}
