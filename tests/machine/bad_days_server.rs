//! Servers that say no, say nonsense, or say nothing.

use crate::bad_days::{
    declared, drift_is_undone, drift_is_undone_unasked, journal_is_quiet, layer, status_says,
};
use crate::fixture::bad_server::{BadServer, Mood, NAME};
use crate::fixture::machine::wait_until;
use crate::scene::{SOON, Scene};

const NOBODY: &str = "nobody";
const OPERATOR: &str = "the operator of this host";

const OFFLINE: &str = "offline";
const UNREACHABLE: &str = "unreachable";
const DENIED: &str = "denied";

/// A machine that polls a server whose mood can be changed.
fn scene(label: &str) -> (Scene, BadServer) {
    let scene = Scene::prepared(label, &layer("first", ""));
    let server = BadServer::start(scene.server.as_ref().expect("the server is up"));
    let machine = &scene.machine;
    machine.sh(&format!(
        ": > /etc/resolv.conf; echo '127.0.0.1 {NAME}' >> /etc/hosts"
    ));
    scene.enroll().success();
    machine.write_file(
        "/etc/limpet/limpet.toml.d/bad.toml",
        format!("[source]\nurl = \"{}/server.git\"\n", server.named_url),
    );
    machine.sh("systemctl reload limpet.service");
    scene.converge();
    (scene, server)
}

/// One bad day after a good one, and the good one that follows.
#[track_caller]
fn check(
    scene: &Scene,
    server: &BadServer,
    name: &str,
    spoil: impl Fn(bool),
    (kind, text, who): (&str, &str, &str),
) {
    let good = scene.head();
    let before = format!("before {name}");
    scene.apply(&layer(&before, ""));
    let last_good = scene.head();
    assert_ne!(last_good, good);
    spoil(true);
    scene.declare(&layer(&format!("after {name}"), ""));
    drift_is_undone(scene, &before);
    let status = status_says(scene, kind, text, who);
    assert_eq!(status["revision"], last_good.as_str(), "{name}: {status:#}");
    assert_eq!(status["state"], "converged", "{name}: {status:#}");
    // To be without a network is a state, and no error.
    assert_eq!(
        status["errors"].to_string().contains(text),
        kind != OFFLINE,
        "{name}: {status:#}"
    );
    let asked = server.requests();
    journal_is_quiet(scene);
    let requests = server.requests() - asked;
    // A handshake, the tip and a pack: four requests are a whole fetch.
    assert!(requests <= 12, "{name}: {requests} requests in 3 polls");
    spoil(false);
    scene.converge();
    assert_eq!(
        scene.machine.read_file("/etc/scene"),
        format!("after {name}\n")
    );
    let conditions = scene.status()["conditions"].to_string();
    for kind in [OFFLINE, UNREACHABLE, DENIED] {
        assert!(!conditions.contains(kind), "{name}: {conditions}");
    }
}

#[test]
fn whatever_a_server_answers_the_last_good_revision_is_enforced() {
    let (scene, server) = scene("answers");
    for (number, (mood, kind, text, who)) in [
        (
            Mood::Status("429 Too Many Requests", "Retry-After: 7\r\n"),
            UNREACHABLE,
            "429",
            NOBODY,
        ),
        (
            Mood::Status("500 Internal Server Error", ""),
            UNREACHABLE,
            "500",
            NOBODY,
        ),
        (
            Mood::Status("503 Service Unavailable", "Retry-After: 7\r\n"),
            UNREACHABLE,
            "503",
            NOBODY,
        ),
        (Mood::Status("404 Not Found", ""), DENIED, "404", OPERATOR),
        (
            Mood::Status(
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"git\"\r\n",
            ),
            DENIED,
            "401",
            OPERATOR,
        ),
        (Mood::Garbage, UNREACHABLE, "does not speak Git", OPERATOR),
        (Mood::HalfPack, UNREACHABLE, "failed to fetch", NOBODY),
        (Mood::Empty, UNREACHABLE, "hung up", NOBODY),
    ]
    .into_iter()
    .enumerate()
    {
        let spoil = |bad| server.set(if bad { mood } else { Mood::Good });
        check(
            &scene,
            &server,
            &format!("bad answer {number}"),
            spoil,
            (kind, text, who),
        );
    }
}

#[test]
fn whatever_lies_on_the_way_to_a_server_the_last_good_revision_is_enforced() {
    let (scene, server) = scene("way");
    for (mood, kind, text, who) in [
        (Mood::Refuse, UNREACHABLE, "refused", NOBODY),
        (Mood::Expired, UNREACHABLE, "not valid now", OPERATOR),
        (Mood::WrongName, DENIED, "for another name", OPERATOR),
        (Mood::Stranger, DENIED, "does not trust", OPERATOR),
    ] {
        let spoil = |bad| server.set(if bad { mood } else { Mood::Good });
        check(
            &scene,
            &server,
            &format!("{mood:?}"),
            spoil,
            (kind, text, who),
        );
    }
    let machine = &scene.machine;
    let hosts = machine.read_file("/etc/hosts");
    let without = hosts.replace(&format!("127.0.0.1 {NAME}\n"), "");
    assert_ne!(hosts, without);
    let spoil = |bad| machine.write_file("/etc/hosts", if bad { &without } else { &hosts });
    check(
        &scene,
        &server,
        "DNS",
        spoil,
        (OFFLINE, "found no address of 'git.test'", NOBODY),
    );
}

#[test]
fn whatever_a_hostile_server_sends_the_fetcher_ends_it_and_the_host_goes_on() {
    let (scene, server) = scene("hostile");
    for (number, (mood, text)) in [
        (
            Mood::Status("302 Found", "Location: /again\r\n"),
            "more than 5 redirects",
        ),
        (Mood::Flood, "it lists more than 32 MiB of refs"),
        (Mood::HugePack, "it holds 4294967295 objects"),
        (Mood::WrongPack, "makes no sense"),
        // What may be large, and what may not.
        (Mood::Bomb(48), "sent a pack without it"),
        (Mood::Bomb(2048), "holds a file of more than 64 MiB"),
    ]
    .into_iter()
    .enumerate()
    {
        let before = scene.machine.read_file("/etc/scene").trim().to_owned();
        let good = scene.head();
        server.set(mood);
        scene.declare(&layer(&format!("after attack {number}"), ""));
        drift_is_undone(&scene, &before);
        // What takes longer to take apart is not waited for.
        wait_until("what the server did", SOON * 2, || {
            let said = scene.status()["errors"].to_string();
            said.contains(text).then_some(())
        });
        let status = scene.status();
        assert_eq!(status["revision"], good.as_str(), "{mood:?}: {status:#}");
        // Whatever it held is given back: nothing of it is kept, and nobody was killed for it.
        let journal = scene.machine.sh("journalctl -b -o cat");
        assert!(!journal.contains("oom-kill"), "{mood:?}");
        server.set(Mood::Good);
        scene.converge();
    }
}

#[test]
fn a_server_that_hangs_holds_nobody_up_and_is_polled_again_unasked() {
    let (scene, server) = scene("hangs");
    scene.poll_often();
    let mut content = "first".to_owned();
    for mood in [Mood::Hang, Mood::Drip] {
        server.set(mood);
        let asked = server.requests();
        scene.machine.run(&["limpet", "sync"]).success();
        wait_until("the request", SOON, || {
            (server.requests() > asked).then_some(())
        });
        drift_is_undone_unasked(&scene, &content);
        assert_eq!(
            server.requests(),
            asked + 1,
            "{mood:?}: the poll still waits"
        );
        content = format!("after {mood:?}");
        scene.declare(&layer(&content, ""));
        server.set(Mood::Good);
        declared(&scene, &content);
    }
}
