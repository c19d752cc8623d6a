//! Processes that die at any moment, and clients that want too much.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bad_days::{declared_when_asked, drift_is_undone_unasked, layer, status_says};
use crate::fixture::machine::wait_until;
use crate::scene::{SOON, Scene};

/// How many files the agent is killed over.
const FILES: usize = 200;
const ROUNDS: u64 = 20;

/// Two hundred files, a unit with a drop-in, and their generation.
fn many(generation: u64) -> String {
    use std::fmt::Write as _;
    let mut text = layer(&format!("generation {generation}"), "");
    for number in 0..FILES {
        // Not all of one size, and long enough to be torn.
        let line = format!("{generation} {number} ").repeat(200 + number);
        let _ = writeln!(
            text,
            "[file.\"/srv/many/{:02}/{number}\"]\ncontent = \"{line}\"",
            number % 20
        );
    }
    let _ = write!(
        text,
        "[unit.\"generation.service\"]\nenabled = true\nrunning = true\ncontent = \"\"\"\n[Service]\nExecStart=/bin/sh -c 'echo {generation} > /run/generation; exec sleep infinity'\n[Install]\nWantedBy=multi-user.target\n\"\"\"\n"
    );
    text
}

/// Every file is whole, of this generation or one before; all are there once `is_complete`.
#[track_caller]
fn nothing_is_torn(scene: &Scene, generation: u64, is_complete: bool) {
    for number in 0..FILES {
        let path = format!("/srv/many/{:02}/{number}", number % 20);
        let Ok(found) = std::fs::read_to_string(scene.machine.path(&path)) else {
            assert!(!is_complete, "{path} is gone");
            continue;
        };
        let of: u64 = found
            .split(' ')
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or(0);
        let is_whole = found == format!("{of} {number} ").repeat(200 + number);
        assert!(
            is_whole && of <= generation,
            "{path} is torn: {} bytes",
            found.len()
        );
    }
}

#[test]
fn an_agent_killed_at_any_moment_of_an_apply_leaves_nothing_torn_and_finishes() {
    let scene = Scene::enrolled("kills", &layer("none", ""));
    let machine = &scene.machine;
    scene.poll_often();
    for round in 1..=ROUNDS {
        scene.declare(&many(round));
        machine.run(&["limpet", "sync"]);
        if round % 2 == 0 {
            // Spread over what an apply of this size takes here.
            std::thread::sleep(Duration::from_millis(round * 67 % 900));
        } else {
            // In the midst of the files, as soon as one of them is of this generation.
            let number = round as usize * 37 % FILES;
            let path = machine.path(&format!("/srv/many/{:02}/{number}", number % 20));
            let begin = format!("{round} ");
            let end = Instant::now() + Duration::from_secs(5);
            while Instant::now() < end
                && !std::fs::read_to_string(&path).is_ok_and(|found| found.starts_with(&begin))
            {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        machine.kill("limpet.service");
        nothing_is_torn(&scene, round, round > 4);
        wait_until("the agent", SOON, || {
            machine.is_active("limpet.service").then_some(())
        });
        // Some rounds are finished, in others the next generation comes on top.
        if round % 4 == 0 {
            scene.converge();
        }
    }
    scene.converge();
    nothing_is_torn(&scene, ROUNDS, true);
    assert_eq!(
        machine.read_file("/run/generation"),
        format!("{ROUNDS}\n"),
        "the restart that a killed agent owed is made"
    );
    let left = machine.sh("find /srv/many /etc -xdev -name '*limpet*' ! -path '/etc/limpet*' ! -path '/etc/systemd/*' ! -path '/etc/cron*' ! -path '/etc/needrestart*'");
    assert!(!left.contains("/srv/many"), "left behind: {left}");
    let count: usize = machine
        .sh("find /srv/many -type f | wc -l")
        .trim()
        .parse()
        .expect("a number");
    assert_eq!(count, FILES);
    scene.declare(&layer("none", ""));
    machine
        .run(&["limpet", "sync", "--wait", "--allow-removals"])
        .success();
    assert!(!machine.exists("/srv/many"), "what was made is taken back");
}

#[test]
fn a_fetcher_in_trouble_stops_nothing_and_recovers() {
    let scene = Scene::enrolled("fetcher", &layer("0", ""));
    let machine = &scene.machine;
    scene.poll_often();

    // Killed at any moment.
    for round in 1..=12_u64 {
        scene.declare(&layer(&round.to_string(), ""));
        machine.run(&["limpet", "sync"]);
        std::thread::sleep(Duration::from_millis(round * 37 % 200));
        machine.run(&["systemctl", "kill", "--signal=KILL", "limpet-fetch.service"]);
    }
    declared_when_asked(&scene, "12");

    // Its cache damaged, deleted, or somebody else's.
    for (number, damage) in [
        "find /var/cache/limpet -name '*.pack' -exec sh -c 'echo garbage > \"$1\"' _ {} \\;",
        "find /var/cache/limpet -name 'HEAD' -delete; find /var/cache/limpet -name config -exec sh -c 'echo garbage > \"$1\"' _ {} \\;",
        "rm -rf /var/cache/limpet/*",
        "rm -rf /var/cache/limpet",
        "systemctl stop limpet-fetch.service; chown -R root:root /var/cache/limpet",
        "systemctl stop limpet-fetch.service; rm -rf /var/cache/limpet; echo file > /var/cache/limpet; sleep 1; rm /var/cache/limpet",
    ]
    .iter()
    .enumerate()
    {
        machine.sh(damage);
        let content = format!("cache {number}");
        scene.declare(&layer(&content, ""));
        declared_when_asked(&scene, &content);
    }

    // Out of memory.
    machine.write_file(
        "/etc/systemd/system/limpet-fetch.service.d/memory.conf",
        // Not MemoryMax=: not every computer that runs machines lets them limit memory.
        "[Service]\nLimitAS=8M\n",
    );
    scene.renew_fetcher();
    scene.declare(&layer("after", ""));
    let cursor = machine.journal_cursor();
    machine.run(&["limpet", "sync"]).success();
    drift_is_undone_unasked(&scene, "cache 5");
    drift_is_undone_unasked(&scene, "cache 5");
    let said = machine.journal(&["--after-cursor", &cursor, "--unit=limpet-fetch.service"]);
    assert!(said.len() < 60, "{} lines", said.len());
    machine.sh("rm -r /etc/systemd/system/limpet-fetch.service.d");
    scene.renew_fetcher();
    declared_when_asked(&scene, "after");
    scene.converge();
}

#[test]
fn a_fetcher_that_cannot_start_is_said_at_once_with_what_to_do() {
    let scene = Scene::enrolled("no-fetcher", &layer("0", ""));
    let machine = &scene.machine;
    scene.poll_often();
    let drop_in = "/etc/systemd/system/limpet-fetch.service.d/broken.conf";
    for (number, (broken, cause)) in [
        (
            "LoadCredential=git-token:/etc/limpet/missing",
            "a credential that it is to be given does not exist",
        ),
        ("User=nobody-at-all", "its user does not exist"),
        ("ExecStart=\nExecStart=/bin/false", "cannot be executed"),
    ]
    .into_iter()
    .enumerate()
    {
        machine.write_file(drop_in, format!("[Service]\n{broken}\n"));
        scene.renew_fetcher();
        let content = format!("round {number}");
        scene.declare(&layer(&content, ""));
        let begin = Instant::now();
        let sync = scene.sync();
        assert_eq!(sync.code(), 75, "{sync:?}");
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "it is not waited for"
        );
        let status = status_says(&scene, "fetcher-down", cause, "the operator of this host");
        // No server is to be spared for it.
        assert_eq!(status["last_poll"]["failures"], Value::Null, "{status:#}");
        let shown = machine.run(&["limpet", "status"]).stdout;
        assert!(
            shown.contains("hint:   see 'systemctl status limpet-fetch.service'"),
            "{shown}"
        );
        let plan = machine.run(&["limpet", "plan", "tip"]);
        assert!(plan.stderr.contains(cause), "{plan:?}");
        let doctor = machine.run(&["limpet", "doctor"]);
        assert!(begin.elapsed() < 2 * SOON, "nor by anybody else");
        assert_eq!(doctor.code(), 1, "{doctor:?}");
        assert!(doctor.stdout.contains(cause), "{doctor:?}");
        machine.sh(&format!("rm {drop_in}"));
        scene.renew_fetcher();
        declared_when_asked(&scene, &content);
    }

    // Nobody listens.
    machine.sh("systemctl stop limpet-fetch.socket limpet-fetch.service");
    let sync = scene.sync();
    assert_eq!(sync.code(), 75, "{sync:?}");
    let has_stopped = sync.stderr.contains("systemctl status limpet-fetch.socket");
    assert!(has_stopped, "{sync:?}");
    drift_is_undone_unasked(&scene, "round 2");
    machine.sh("systemctl start limpet-fetch.socket");
    scene.converge();
}
