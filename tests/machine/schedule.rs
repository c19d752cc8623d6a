//! When the agent asks and when it corrects, what an operator pauses, and who may keep the agent busy.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::fixture::machine::wait_until;
use crate::scene::{SOON, Scene};

const LAYER: &str = "[file.\"/etc/scene\"]\ncontent = \"declared\\n\"\n";

/// The requests that reached the server.
fn requests(scene: &Scene) -> usize {
    scene
        .server
        .as_ref()
        .map_or(0, |server| server.requests().len())
}

#[track_caller]
fn is_put_back(scene: &Scene) {
    wait_until("the declared file", SOON, || {
        (scene.machine.read_file("/etc/scene") == "declared\n").then_some(())
    });
}

/// Kills the agent and waits until another one answers.
fn kill_and_wait(scene: &Scene) {
    let pid = scene.machine.main_pid("limpet.service");
    scene.machine.kill("limpet.service");
    wait_until("another agent", SOON, || {
        let now = scene
            .machine
            .sh("systemctl show --property=MainPID --value limpet.service");
        let is_another = !["0", &pid.to_string()].contains(&now.trim());
        let answers = || scene.status()["next_poll_at"].is_string();
        (is_another && answers()).then_some(())
    });
}

#[test]
fn a_crash_loop_does_not_multiply_polls() {
    let scene = Scene::enrolled("loop", LAYER);
    let before = requests(&scene);
    for _ in 0..6 {
        kill_and_wait(&scene);
    }
    assert_eq!(
        requests(&scene),
        before,
        "with a revision in force, a start polls nothing"
    );

    // A host that has nothing to enforce asks when it starts; here in vain.
    scene.machine.write_file(
        "/etc/limpet/limpet.toml.d/wrong.toml",
        format!(
            "[source]\nurl = \"{}\"\n",
            scene.url().replace("server.git", "missing.git")
        ),
    );
    scene
        .machine
        .sh("systemctl stop limpet.service limpet-fetch.service
         rm -r /var/lib/limpet/* /etc/limpet/enrolled
         systemctl start limpet.service");
    wait_until("the first poll", SOON, || {
        scene.status()["last_poll"].is_object().then_some(())
    });
    let first = requests(&scene);
    assert!(first > before);
    for _ in 0..6 {
        kill_and_wait(&scene);
    }
    assert_eq!(requests(&scene), first);
    let status = scene.status();
    assert_eq!(status["state"], "starting", "{status:#}");
    // A person is not kept waiting.
    assert_ne!(scene.sync().code(), 0);
    assert!(requests(&scene) > first);
}

#[test]
fn a_source_that_says_nothing_delays_no_correction() {
    let scene = Scene::enrolled("slow", LAYER);
    // It takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let connections = std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept() {
            held.push(stream);
        }
    });
    scene.machine.write_file(
        "/etc/limpet/limpet.toml.d/silent.toml",
        format!("[source]\nurl = \"http://{address}/fleet.git\"\n"),
    );
    scene.poll_often();
    wait_until("a poll", SOON, || {
        let status = scene
            .machine
            .sh("systemctl show --property=StatusText --value limpet.service");
        status.contains("polling").then_some(())
    });
    // The fetcher gives up after a minute; the interval is ten seconds.
    let begin = Instant::now();
    for _ in 0..2 {
        scene.machine.write_file("/etc/scene", "drift\n");
        is_put_back(&scene);
    }
    assert!(
        begin.elapsed() < Duration::from_secs(50),
        "{:?}",
        begin.elapsed()
    );
    drop(connections);
}

#[test]
fn a_pause_outlives_restarts_and_ends_by_itself() {
    let scene = Scene::enrolled("pause", LAYER);
    let machine = &scene.machine;
    let cursor = machine.journal_cursor();
    let pause = machine.run(&[
        "limpet",
        "pause",
        "--for",
        "2h",
        "--reason",
        "moving the database",
    ]);
    let said = pause.success();
    assert!(said.contains("paused host scene until"), "{said}");
    machine.write_file("/etc/scene", "drift\n");
    let sync = scene.sync();
    assert_eq!(sync.code(), 75, "{sync:?}");
    assert!(
        sync.stderr.contains("by root: moving the database"),
        "{sync:?}"
    );
    assert_eq!(machine.run(&["limpet", "sync"]).code(), 75);
    machine.sh("systemctl restart limpet.service");
    kill_and_wait(&scene);
    machine.reboot(crate::fixture::machine::Network::Shared);
    wait_until("the agent", SOON, || {
        machine.is_active("limpet.service").then_some(())
    });
    assert_eq!(scene.sync().code(), 75);
    let status = scene.status();
    assert_eq!(status["state"], "paused", "{status:#}");
    assert_eq!(status["paused"][0]["by"], "root", "{status:#}");
    assert_eq!(machine.read_file("/etc/scene"), "drift\n");
    let plan = machine.run(&["limpet", "plan"]);
    assert_eq!(plan.code(), 2, "{plan:?}");
    assert!(
        plan.stdout
            .contains("update file:/etc/scene (content), differs, paused"),
        "{plan:?}"
    );

    machine.run(&["limpet", "resume"]).success();
    is_put_back(&scene);

    // One resource, while no agent runs; and it ends by itself.
    machine.sh("systemctl stop limpet.service");
    let pause = machine.run(&[
        "limpet",
        "pause",
        "file:/etc/scene",
        "--for",
        "20s",
        "--reason",
        "a look",
    ]);
    assert!(
        pause.stderr.contains("written down for the next one"),
        "{pause:?}"
    );
    pause.success();
    machine.write_file("/etc/scene", "drift\n");
    machine.sh("systemctl start limpet.service");
    assert_eq!(scene.sync().code(), 75);
    assert_eq!(machine.read_file("/etc/scene"), "drift\n");
    is_put_back(&scene);
    wait_until("the end of the pause", SOON, || {
        (scene.status()["state"] == "converged").then_some(())
    });

    let lines: Vec<String> = machine
        .journal(&["--after-cursor", &cursor, "--identifier=limpet"])
        .iter()
        .filter(|entry| entry["PRIORITY"] == "6")
        .map(|entry| entry["MESSAGE"].as_str().unwrap_or_default().to_owned())
        .collect();
    for expected in [
        "paused this host until",
        "resumed this host by root",
        "the pause of file:/etc/scene is over",
    ] {
        assert_eq!(
            lines
                .iter()
                .filter(|line| line.starts_with(expected))
                .count(),
            1,
            "{expected}: {lines:#?}"
        );
    }

    let unknown = machine.run(&[
        "limpet",
        "pause",
        "file:/etc/scen",
        "--for",
        "1h",
        "--reason",
        "x",
    ]);
    assert_eq!(unknown.code(), 1, "{unknown:?}");
    assert!(
        unknown.stderr.contains("did you mean 'file:/etc/scene'?"),
        "{unknown:?}"
    );
    let for_ever = machine.run(&["limpet", "pause", "--reason", "x"]);
    assert_eq!(for_ever.code(), 64, "{for_ever:?}");
}

/// Connects as often as it is let, and behaves as badly as it can, for twelve seconds.
const FLOOD: &str = r#"
use strict; use IO::Socket::UNIX; use Time::HiRes qw(time sleep);
$SIG{PIPE} = 'IGNORE';
my @bad = ("", "{\"request\":", "x" x 1_000_000, "\xff\0\n" x 100, "{\"request\":\"plan\"}\n", "{\"request\":\"status\"}\n" x 1000,
  "{\"request\":\"sync\",\"wait\":true,\"allow_removals\":true}\n", "{\"request\":\"pause\",\"resources\":[],\"for_secs\":60,\"reason\":\"x\",\"by\":\"x\"}\n");
my ($end, $count, @held) = (time + 12, 0);
while (time < $end) {
  my $socket = IO::Socket::UNIX->new(Peer => "/run/limpet/control.sock") or do { sleep 0.01; next };
  $socket->blocking(0);
  syswrite $socket, $bad[$count++ % @bad];
  push @held, $socket;
  shift @held if @held > 200;
}
print "$count\n";
"#;

#[test]
fn who_may_only_look_cannot_keep_root_out_nor_the_agent_busy() {
    let scene = Scene::enrolled("flood", LAYER);
    let machine = &scene.machine;
    machine.sh("useradd --groups limpet-operators olga; useradd stan");
    assert_eq!(
        machine.ownership("/run/limpet/control.sock"),
        "root:limpet-operators 660"
    );
    let as_user = |user: &str, command: &[&str]| {
        let mut words = vec!["runuser", "-u", user, "--"];
        words.extend(command);
        machine.run(&words)
    };
    let stranger = as_user("stan", &["limpet", "status"]);
    assert_eq!(stranger.code(), 1, "{stranger:?}");
    assert!(stranger.stderr.contains("limpet-operators"), "{stranger:?}");
    as_user("olga", &["limpet", "status"]).success();
    as_user("olga", &["limpet", "plan"]).success();
    for change in [
        &["limpet", "sync", "--wait"][..],
        &["limpet", "pause", "--for", "1h", "--reason", "x"],
        &["limpet", "resume"],
    ] {
        let refused = as_user("olga", change);
        assert_eq!(refused.code(), 1, "{refused:?}");
        assert!(
            refused.stderr.contains("only root may change"),
            "{refused:?}"
        );
    }

    let agent = machine.main_pid("limpet.service");
    machine.write_file("/usr/local/bin/flood.pl", FLOOD);
    let floods = ["flood-1", "flood-2", "flood-3"];
    for flood in floods {
        machine.sh(&format!(
            "systemd-run --quiet --unit={flood} --uid=olga --property=StandardOutput=file:/run/{flood} perl /usr/local/bin/flood.pl"
        ));
    }
    let mut rounds = 0;
    while floods.iter().any(|flood| machine.is_active(flood)) {
        let begin = Instant::now();
        machine.write_file("/etc/scene", "drift\n");
        scene.sync().success();
        assert_eq!(machine.read_file("/etc/scene"), "declared\n");
        assert_eq!(machine.run(&["limpet", "plan"]).code(), 0);
        assert_eq!(scene.status()["state"], "converged");
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
        rounds += 1;
    }
    assert!(rounds > 0);
    for flood in floods {
        let connections = machine.read_file(&format!("/run/{flood}"));
        let connections: u32 = connections.trim().parse().expect("the flood counts");
        assert!(connections > 1000, "{connections}");
    }
    assert_eq!(machine.main_pid("limpet.service"), agent);
    // A flood costs places, not memory: systemd's own limit for the agent is far above this.
    let peak =
        machine.sh("cat /proc/$(systemctl show --property=MainPID --value limpet.service)/status");
    let peak = peak
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|line| line.trim().trim_end_matches(" kB").parse::<u32>().ok())
        .expect("the kernel counts");
    assert!(peak < 64 << 10, "{peak} kB");
    let status = scene.status();
    assert_eq!(status["paused"], serde_json::json!([]), "{status:#}");
    as_user("olga", &["limpet", "status"]).success();
}
