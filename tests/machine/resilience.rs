//! Nothing is lost when the network, a process or the power goes.

use std::io::Write;
use std::os::unix::net::UnixStream;

use crate::fixture::machine::{Network, wait_until};
use crate::scene::{SOON, Scene};

const LAYER: &str = "[file.\"/etc/scene\"]\ncontent = \"declared\\n\"\n";

/// The drifted file is put back within the interval, without anybody asking.
#[track_caller]
fn drift_is_corrected(scene: &Scene) {
    scene.machine.write_file("/etc/scene", "drift\n");
    put_back(scene);
}

#[track_caller]
fn put_back(scene: &Scene) {
    wait_until("the declared file", SOON, || {
        (std::fs::read_to_string(scene.machine.path("/etc/scene")).ok()? == "declared\n")
            .then_some(())
    });
}

#[test]
fn a_machine_without_a_network_is_enforced_from_boot() {
    let scene = Scene::enrolled("offline", LAYER);
    scene.poll_often();
    for unplugged in [false, true] {
        scene
            .machine
            .sh("systemctl stop limpet.service; rm /etc/scene");
        if unplugged {
            scene.machine.unplug_and_boot(Network::None);
        } else {
            scene.machine.reboot(Network::None);
        }
        put_back(&scene);
        drift_is_corrected(&scene);
        let status = scene.status();
        assert_eq!(status["revision"], scene.head().as_str(), "{status:#}");
    }
    assert_eq!(scene.sync().code(), 75);
    scene.machine.reboot(Network::Shared);
    scene.apply(&LAYER.replace("/etc/scene", "/etc/later"));
}

#[test]
fn whoever_asks_an_agent_that_dies_is_told_what_it_recorded() {
    let scene = Scene::enrolled("asked", LAYER);
    let machine = &scene.machine;
    for (question, part) in [("status", "state"), ("plan", "changes")] {
        // It is asked, and ends before it answers.
        let script = format!(
            "pid=$(systemctl show -p MainPID --value limpet.service)
             kill -STOP $pid
             (sleep 1; kill -KILL $pid) &
             limpet {question} --json || true"
        );
        let answer: serde_json::Value =
            serde_json::from_str(&machine.sh(&script)).expect("it prints an object");
        assert!(!answer[part].is_null(), "{answer:#}");
        let conditions = answer["conditions"].to_string();
        assert!(conditions.contains("agent-down"), "{answer:#}");
        wait_until("another agent", SOON, || {
            machine.is_active("limpet.service").then_some(())
        });
    }
}

#[test]
fn a_server_that_is_down_stops_nothing() {
    let mut scene = Scene::enrolled("server", LAYER);
    scene.poll_often();
    scene.server = None;
    assert_eq!(scene.sync().code(), 75);
    drift_is_corrected(&scene);
    assert!(
        scene.status()["conditions"]
            .to_string()
            .contains("unreachable")
    );
    scene.move_server();
    scene.apply(&LAYER.replace("/etc/scene", "/etc/later"));
}

#[test]
fn a_killed_agent_and_a_killed_fetcher_come_back() {
    let scene = Scene::enrolled("killed", LAYER);
    scene.poll_often();
    let machine = &scene.machine;
    let first = machine.main_pid("limpet.service");
    for _ in 0..8 {
        machine.kill("limpet.service");
        wait_until("the agent", SOON, || {
            machine.is_active("limpet.service").then_some(())
        });
    }
    assert_ne!(machine.main_pid("limpet.service"), first);
    drift_is_corrected(&scene);

    machine.run(&["systemctl", "kill", "--signal=KILL", "limpet-fetch.service"]);
    scene.apply(&format!(
        "{LAYER}\n[file.\"/etc/later\"]\ncontent = \"x\"\n"
    ));
    machine.sh("systemctl stop limpet-fetch.service limpet-fetch.socket");
    drift_is_corrected(&scene);
    machine.sh("systemctl start limpet-fetch.socket");
    scene.apply(LAYER);
}

#[test]
fn an_agent_that_hangs_is_killed_by_the_watchdog() {
    let scene = Scene::prepared("watchdog", LAYER);
    scene.poll_often();
    let machine = &scene.machine;
    machine.write_file(
        "/etc/systemd/system/limpet.service.d/watchdog.conf",
        "[Service]\nWatchdogSec=3s\n",
    );
    machine.sh("systemctl daemon-reload");
    scene.enroll().success();
    scene.converge();
    let pid = machine.main_pid("limpet.service");
    // Idle for longer than the watchdog allows: waiting is not hanging.
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(machine.main_pid("limpet.service"), pid);
    machine.sh("systemctl kill --kill-whom=main --signal=STOP limpet.service");
    wait_until("another agent", SOON, || {
        let now = machine.sh("systemctl show --property=MainPID --value limpet.service");
        (!["0", &pid.to_string()].contains(&now.trim())).then_some(())
    });
    drift_is_corrected(&scene);
}

#[test]
fn garbage_on_the_sockets_harms_nobody() {
    let scene = Scene::enrolled("garbage", LAYER);
    let agent = scene.machine.main_pid("limpet.service");
    let garbage: Vec<u8> = (0..100_000_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for socket in ["/run/limpet/control.sock", "/run/limpet/fetch.sock"] {
        for message in [
            &b""[..],
            b"\n",
            b"{}\n",
            b"{\"request\": 1}\n",
            b"\xff\xff\xff\xff",
            b"GET / HTTP/1.1\r\n\r\n",
            &garbage,
        ] {
            let mut stream = UnixStream::connect(scene.machine.path(socket))
                .unwrap_or_else(|error| panic!("{socket}: {error}"));
            // A socket that hangs up in the middle has answered as well.
            let _ = stream.write_all(message);
        }
        // Somebody who connects and says nothing must not block the others.
        let silent: Vec<_> = (0..40)
            .filter_map(|_| UnixStream::connect(scene.machine.path(socket)).ok())
            .collect();
        scene.converge();
        drop(silent);
    }
    scene.apply(&LAYER.replace("/etc/scene", "/etc/later"));
    assert_eq!(scene.machine.main_pid("limpet.service"), agent);
}

#[test]
fn lost_state_fails_closed() {
    for loss in [
        "rm /var/lib/limpet/state.db*",
        "echo garbage > /var/lib/limpet/state.db; rm -f /var/lib/limpet/state.db-*",
    ] {
        let scene = Scene::enrolled("lost", LAYER);
        scene.poll_often();
        scene.machine.sh(&format!(
            "systemctl stop limpet.service; {loss}; systemctl start limpet.service"
        ));
        scene.declare(&LAYER.replace("declared", "newer"));
        assert_eq!(scene.sync().code(), 77, "{loss}");
        assert_eq!(
            scene.machine.read_file("/etc/scene"),
            "declared\n",
            "{loss}"
        );
        assert!(
            scene.status().to_string().contains("state-missing"),
            "{loss}"
        );
    }
}
