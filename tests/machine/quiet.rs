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
    let pid = machine.pid_here(machine.main_pid("limpet.service"));
    let trace = NamedTempFile::new().expect("a temporary file can be made");
    let mut strace = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-e",
            "trace=execve,execveat,fork,vfork",
            "-p",
            &pid.to_string(),
            "-o",
        ])
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
    let cursor = machine.journal_cursor();
    for _ in 0..3 {
        scene.sync().success();
    }
    let entries = machine.journal_after(&cursor, "SYSLOG_IDENTIFIER", "limpet");
    Command::new("kill")
        .arg(strace.id().to_string())
        .status()
        .expect("kill runs");
    strace.wait().expect("strace ends");
    assert_eq!(
        std::fs::read_to_string(trace.path()).expect("strace wrote"),
        ""
    );
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
