//! What holds on every bad day: the last good revision is enforced, the status says what is wrong and who must act, and nobody is
//! told the same thing over and over.

use std::time::Instant;

use serde_json::Value;

use crate::fixture::machine::wait_until;
use crate::scene::{SOON, Scene};

/// The file that every layer of these tests declares, so that there is something to drift.
pub const FILE: &str = "/etc/scene";

/// How often the journal is listened to.
const CYCLES: usize = 3;

/// A layer that declares [`FILE`] with `content`, and `more`.
pub fn layer(content: &str, more: &str) -> String {
    format!("[file.\"{FILE}\"]\ncontent = \"{content}\\n\"\n{more}")
}

/// Drift is undone by a cycle that is asked for, to what the revision in force declares.
#[track_caller]
pub fn drift_is_undone(scene: &Scene, content: &str) {
    scene.machine.write_file(FILE, "drift\n");
    scene.sync();
    assert_eq!(scene.machine.read_file(FILE), format!("{content}\n"));
}

/// Drift is undone without anybody asking.
#[track_caller]
pub fn drift_is_undone_unasked(scene: &Scene, content: &str) {
    scene.machine.write_file(FILE, "drift\n");
    declared(scene, content);
}

/// [`FILE`] comes to have `content` without anybody asking.
#[track_caller]
pub fn declared(scene: &Scene, content: &str) {
    wait_until("the declared content", SOON * 2, || {
        let found = std::fs::read_to_string(scene.machine.path(FILE)).ok()?;
        (found == format!("{content}\n")).then_some(())
    });
}

/// [`FILE`] comes to have `content` when somebody asks, perhaps more than once: by itself it would be after the back-off of the polls
/// that failed.
#[track_caller]
pub fn declared_when_asked(scene: &Scene, content: &str) {
    let expected = format!("{content}\n");
    let until = Instant::now() + SOON * 2;
    loop {
        scene.sync();
        let found = scene.machine.read_file(FILE);
        if found == expected {
            return;
        }
        let is_late = Instant::now() > until;
        assert!(
            !is_late,
            "{found:?}, not {expected:?}: {:#}",
            scene.status()
        );
    }
}

/// The status has a condition `kind` whose reason has `text` and which `who` must act on, and people can read it, too.
#[track_caller]
pub fn status_says(scene: &Scene, kind: &str, text: &str, who: &str) -> Value {
    let status = scene.status();
    let found = status["conditions"]
        .as_array()
        .expect("conditions is a list")
        .iter()
        .any(|condition| {
            let has = |field: &str, part: &str| {
                condition[field].as_str().unwrap_or_default().contains(part)
            };
            condition["type"] == kind && has("reason", text) && has("who", who)
        });
    assert!(
        found,
        "no condition '{kind}' with '{text}' for '{who}': {status:#}"
    );
    let shown = scene.machine.run(&["limpet", "status"]).stdout;
    for part in [kind, text, who] {
        assert!(shown.contains(part), "no '{part}' in:\n{shown}");
    }
    status
}

/// Cycles that find nothing new say nothing new.
#[track_caller]
pub fn journal_is_quiet(scene: &Scene) {
    let cursor = scene.machine.journal_cursor();
    for _ in 0..CYCLES {
        scene.sync();
    }
    let said = scene
        .machine
        .journal_after(&cursor, "SYSLOG_IDENTIFIER", "limpet");
    let said: Vec<_> = said.iter().map(|entry| &entry["MESSAGE"]).collect();
    assert!(said.is_empty(), "{said:#?}");
}
