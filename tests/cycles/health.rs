//! Revisions that a host is not well with are undone, and those that it has yet to be well for wait.

use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use limpet::cycle::rollback::RollbackRequest;
use limpet::fetch::Lane;
use limpet::report::status::{State, Status};

use crate::agent::{Agent, Way};
use crate::scene::Scene;

/// A port on which somebody may listen.
struct Port(String);

impl Port {
    fn free() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Port(listener.local_addr().unwrap().to_string())
    }

    fn listen(&self) -> TcpListener {
        TcpListener::bind(&self.0).unwrap()
    }
}

fn motd(text: &str) -> String {
    format!("[file.\"/etc/motd\"]\ncontent = \"{text}\\n\"\n")
}

/// A check of `port`, with more keys.
fn check(port: &Port, keys: &str) -> String {
    format!(
        "[health.web]\ntcp = \"{}\"\nwithin = \"1s\"\nstable = \"0s\"\n{keys}\n",
        port.0
    )
}

fn revision(status: &Status) -> &str {
    status.revision.as_deref().unwrap()
}

fn request(to: Option<&str>, length: Option<Duration>) -> RollbackRequest {
    RollbackRequest {
        to: to.map(str::to_owned),
        length,
        reason: "orders fail".to_owned(),
        by: "alice".to_owned(),
    }
}

/// A host that is well with its first revision, and then unhealthy with its second, with both.
fn undone(port: &Port) -> (Scene, Agent, Way, String, String) {
    let scene = Scene::new(&motd("first"));
    let way = Way::default();
    let mut agent = Agent::start(&scene, &way);
    assert_eq!(agent.sync().state, State::Converged);
    let first = scene.repository.id("HEAD");
    let second = scene.push_layer(&(motd("second") + &check(port, "")));
    let status = agent.tick();
    assert_eq!(status.state, State::RolledBack, "{status:#?}");
    (scene, agent, way, first, second)
}

#[test]
fn an_unhealthy_revision_is_undone_and_not_tried_again_over_restarts() {
    let port = Port::free();
    let (scene, mut agent, way, first, second) = undone(&port);
    for _ in 0..2 {
        for status in [agent.tick(), agent.sync(), agent.look()] {
            assert_eq!(status.state, State::RolledBack, "{status:#?}");
            assert_eq!(revision(&status), first);
            assert_eq!(status.quarantined[0].revision, second);
            assert!(
                status.quarantined[0]
                    .reason
                    .starts_with("health:web did not hold within 1 s: failed to connect"),
                "{status:#?}"
            );
            assert_eq!(status.last_poll.unwrap().result, "unchanged");
            assert_eq!(scene.get("etc/motd").unwrap(), "first\n");
        }
        // It is enforced as any other.
        scene.put("etc/motd", "drift\n");
        agent.tick();
        assert_eq!(scene.get("etc/motd").unwrap(), "first\n");
        agent = Agent::start(&scene, &way);
        assert_eq!(agent.begin().state, State::RolledBack);
    }
    // What is trusted does not go back.
    assert!(scene.get("etc/limpet/enrolled").unwrap().contains(&second));
    assert!(scene.get("var/lib/limpet/on-probation").is_none());

    let third = scene.push_layer(&motd("third"));
    let status = agent.tick();
    assert_eq!(
        (status.state, revision(&status)),
        (State::Converged, third.as_str()),
        "{status:#?}"
    );
    assert!(status.quarantined.is_empty());
    assert_eq!(scene.get("etc/motd").unwrap(), "third\n");
}

#[test]
fn a_newer_commit_that_declares_what_was_undone_is_trusted_and_not_tried() {
    let port = Port::free();
    let (scene, mut agent, way, first, second) = undone(&port);
    for number in 0..2 {
        scene.repository.write("README", &format!("{number}\n"));
        let newer = scene
            .repository
            .commit(&scene.alice, "nothing for this host");
        scene.repository.push();
        for status in [agent.tick(), agent.sync()] {
            assert_eq!(status.state, State::RolledBack, "{status:#?}");
            assert_eq!(revision(&status), first);
            assert_eq!(status.quarantined[0].revision, newer);
            assert_eq!(scene.get("etc/motd").unwrap(), "first\n");
            let told = format!("declares the same as {}, which was undone", &second[..7]);
            let mut conditions = status.conditions.iter();
            assert!(
                conditions.any(|it| it.reason.contains(&told)),
                "{status:#?}"
            );
        }
        assert!(scene.get("etc/limpet/enrolled").unwrap().contains(&newer));
        agent = Agent::start(&scene, &way);
        assert_eq!(agent.begin().state, State::RolledBack);
        assert_eq!(agent.tick().state, State::RolledBack);
    }
    // A person may have it tried again, and what declares something else is tried by itself.
    let status = agent.retry();
    assert_eq!(status.state, State::RolledBack, "{status:#?}");
    let _listener = port.listen();
    let corrected = scene.push_layer(&(motd("second") + &check(&port, "").replace("1s", "2s")));
    let status = agent.tick();
    assert_eq!(
        (status.state, revision(&status)),
        (State::Converged, corrected.as_str()),
        "{status:#?}"
    );
}

#[test]
fn a_revert_of_an_unhealthy_revision_is_applied_as_any_other() {
    let port = Port::free();
    let (scene, mut agent, _way, _, _) = undone(&port);
    let reverted = scene.push_layer(&motd("first"));
    let status = agent.tick();
    assert_eq!(
        (status.state, revision(&status)),
        (State::Converged, reverted.as_str())
    );
}

#[test]
fn a_person_may_have_it_tried_again() {
    let port = Port::free();
    let (scene, mut agent, _way, first, second) = undone(&port);
    let status = agent.retry();
    assert_eq!(
        (status.state, revision(&status)),
        (State::RolledBack, first.as_str())
    );
    let _listener = port.listen();
    assert_eq!(agent.sync().state, State::RolledBack, "nobody asked for it");
    let status = agent.retry();
    assert_eq!(
        (status.state, revision(&status)),
        (State::Converged, second.as_str()),
        "{status:#?}"
    );
    assert_eq!(scene.get("etc/motd").unwrap(), "second\n");
}

#[test]
fn going_back_removes_all_that_the_revision_brought() {
    let port = Port::free();
    let scene = Scene::new(&motd("first"));
    let mut agent = Agent::start(&scene, &Way::default());
    agent.sync();
    let many: String = (0..25)
        .map(|n| format!("[file.\"/etc/many/{n}\"]\ncontent = \"\"\n"))
        .collect();
    scene.push_layer(&(motd("second") + &many + &check(&port, "")));
    let status = agent.tick();
    assert_eq!(status.state, State::RolledBack);
    assert!(!status.has("held"), "{status:#?}");
    assert!(
        !scene.path("etc/many").exists(),
        "max_removals is for revisions that nobody knows yet"
    );
}

#[test]
fn the_first_revision_has_nothing_to_go_back_to() {
    let port = Port::free();
    let scene = Scene::new(&(motd("first") + &check(&port, "")));
    let way = Way::default();
    let mut agent = Agent::start(&scene, &way);
    let status = agent.sync();
    assert_eq!(status.state, State::Degraded, "{status:#?}");
    assert!(
        status
            .errors
            .iter()
            .any(|error| error.message.contains("nothing to go back to")),
        "{status:#?}"
    );
    assert_eq!((status.resources.total, status.resources.failed), (2, 1));
    assert_eq!(scene.get("etc/motd").unwrap(), "first\n");
    agent = Agent::start(&scene, &way);
    assert_eq!(
        agent.begin().state,
        State::Degraded,
        "a restart makes no host well"
    );
    // It is well in the end, and only then something to go back to.
    let listener = port.listen();
    assert_eq!(agent.tick().state, State::Converged);
    drop(listener);
    let first = scene.repository.id("HEAD");
    scene.push_layer(&(motd("second") + &check(&port, "")));
    let status = agent.tick();
    assert_eq!(
        (status.state, revision(&status)),
        (State::RolledBack, first.as_str())
    );
    // That the one before is unhealthy now, too, is said.
    assert!(status.has("degraded"), "{status:#?}");
    assert!(
        status
            .errors
            .iter()
            .any(|error| error.message.contains("still unhealthy after the rollback")),
        "{status:#?}"
    );
}

#[test]
fn a_check_that_only_warns_undoes_nothing() {
    for keys in ["on_failure = \"warn\"", "report = true"] {
        let port = Port::free();
        let scene = Scene::new(&motd("first"));
        let mut agent = Agent::start(&scene, &Way::default());
        agent.sync();
        let second = scene.push_layer(&(motd("second") + &check(&port, keys)));
        let status = agent.tick();
        assert_eq!(
            (status.state, revision(&status)),
            (State::Degraded, second.as_str()),
            "{status:#?}"
        );
        assert!(status.quarantined.is_empty());
        let _listener = port.listen();
        assert_eq!(agent.tick().state, State::Converged);
    }
}

#[test]
fn a_revision_waits_for_what_must_hold_before_and_the_one_before_is_enforced() {
    let port = Port::free();
    let scene = Scene::new(&motd("first"));
    let way = Way::default();
    let mut agent = Agent::start(&scene, &way);
    agent.sync();
    let first = scene.repository.id("HEAD");
    let second = scene.push_layer(&(motd("second") + &check(&port, "when = \"before\"")));
    for _ in 0..2 {
        let status = agent.tick();
        assert_eq!(
            (status.state, revision(&status)),
            (State::Waiting, first.as_str()),
            "{status:#?}"
        );
        scene.put("etc/motd", "drift\n");
        agent.tick();
        assert_eq!(scene.get("etc/motd").unwrap(), "first\n");
        agent = Agent::start(&scene, &way);
        assert_eq!(agent.begin().state, State::Waiting);
    }
    let listener = port.listen();
    let status = agent.tick();
    assert_eq!(
        (status.state, revision(&status)),
        (State::Converged, second.as_str()),
        "{status:#?}"
    );
    // Once it is applied, it is asked no more.
    drop(listener);
    assert_eq!(agent.tick().state, State::Converged);
}

#[test]
fn whoever_comes_after_a_killed_agent_goes_on_with_the_probation() {
    let port = Port::free();
    let scene = Scene::new(&motd("first"));
    let way = Way::default();
    let mut agent = Agent::start(&scene, &way);
    agent.sync();
    let first = scene.repository.id("HEAD");
    scene.push_layer(&(motd("second") + &check(&port, "").replace("1s", "1h")));
    agent.cycle.interruption().store(true, Ordering::Relaxed);
    agent.tick();
    assert_eq!(scene.get("etc/motd").unwrap(), "second\n");
    assert!(agent.cycle.is_on_probation());
    assert!(scene.get("var/lib/limpet/on-probation").is_some());
    // Again and again, until that is put down to the revision.
    for _ in 0..5 {
        agent = Agent::start(&scene, &way);
        agent.cycle.interruption().store(true, Ordering::Relaxed);
        agent.begin();
        assert!(agent.cycle.is_on_probation());
    }
    agent = Agent::start(&scene, &way);
    let status = agent.begin();
    assert_eq!(
        (status.state, revision(&status)),
        (State::RolledBack, first.as_str()),
        "{status:#?}"
    );
    assert!(scene.get("var/lib/limpet/on-probation").is_none());
}

#[test]
fn while_the_checks_are_asked_drift_is_corrected() {
    let port = Port::free();
    let scene = Scene::new(&motd("first"));
    let mut way = Way::default();
    way.interval = Some(Duration::from_millis(100));
    let mut agent = Agent::start(&scene, &way);
    agent.sync();
    scene.push_layer(&(motd("second") + &check(&port, "").replace("1s", "1m")));
    let motd = scene.path("etc/motd");
    let waiting = std::thread::spawn(move || {
        let wait = |text: &str| {
            let end = Instant::now() + Duration::from_secs(20);
            while std::fs::read_to_string(&motd).ok().as_deref() != Some(text) {
                assert!(Instant::now() < end, "no {text:?}");
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        wait("second\n");
        std::fs::write(&motd, "drift\n").unwrap();
        wait("second\n");
        port.listen()
    });
    let status = agent.tick();
    assert_eq!(status.state, State::Converged, "{status:#?}");
    drop(waiting.join().unwrap());
}

#[test]
fn local_root_goes_back_for_a_while_or_until_a_newer_commit() {
    let scene = Scene::new(&motd("first"));
    let way = Way::default();
    let mut agent = Agent::start(&scene, &way);
    agent.sync();
    let first = scene.repository.id("HEAD");
    let none = agent.cycle.roll_back_to(&request(None, None)).unwrap_err();
    assert!(none.message.contains("nothing to go back to"), "{none}");
    let second = scene.push_layer(&motd("second"));
    assert_eq!(agent.tick().state, State::Converged);
    let third = scene.push_layer(&motd("third"));
    assert_eq!(agent.tick().state, State::Converged);

    agent.cycle.roll_back_to(&request(None, None)).unwrap();
    let status = agent.look();
    assert_eq!(
        (status.state, revision(&status)),
        (State::RolledBack, second.as_str()),
        "{status:#?}"
    );
    assert!(status.quarantined.is_empty());
    assert!(
        status.conditions[0]
            .reason
            .ends_with("until a newer commit arrives, by alice: orders fail"),
        "{status:#?}"
    );
    assert_eq!(scene.get("etc/motd").unwrap(), "second\n");

    // One that is kept no more comes from the source, and only from the trusted path.
    agent
        .cycle
        .roll_back_to(&request(Some(&first[..10]), Some(Duration::from_secs(2))))
        .unwrap();
    agent = Agent::start(&scene, &way);
    let status = agent.begin();
    assert_eq!(
        (status.state, revision(&status)),
        (State::RolledBack, first.as_str()),
        "{status:#?}"
    );
    std::thread::sleep(Duration::from_secs(3));
    let status = agent.tick();
    assert_eq!(
        (status.state, revision(&status)),
        (State::Converged, third.as_str()),
        "{status:#?}"
    );

    agent.cycle.roll_back_to(&request(None, None)).unwrap();
    agent.look();
    let fourth = scene.push_layer(&motd("fourth"));
    let status = agent.tick();
    assert_eq!(
        (status.state, revision(&status)),
        (State::Converged, fourth.as_str()),
        "{status:#?}"
    );
}

#[test]
fn local_root_goes_back_to_nothing_that_is_not_on_the_trusted_path() {
    let scene = Scene::new(&motd("first"));
    let mut agent = Agent::start(&scene, &Way::default());
    agent.sync();
    let first = scene.repository.id("HEAD");
    let evil = scene.repository.commit_unsigned("evil");
    scene.repository.push();
    assert_eq!(agent.tick().state, State::Refused);
    for (to, expected) in [
        (evil.as_str(), "is not on the trusted path"),
        ("123456", "knows no single revision"),
        (&first, "is the trusted one"),
    ] {
        let failure = agent
            .cycle
            .roll_back_to(&request(Some(to), None))
            .unwrap_err();
        assert!(failure.message.contains(expected), "{failure}");
    }
    assert_eq!(scene.get("etc/motd").unwrap(), "first\n");
}

fn pause(agent: &mut Agent) {
    let pause = limpet::cycle::pause::PauseRequest {
        resources: Vec::new(),
        length: Duration::from_secs(7200),
        reason: "a test".to_owned(),
        by: "alice".to_owned(),
    };
    agent.cycle.pause(&pause).unwrap();
}

const HOSTS: &str = "[health.source]\nsource = true\nwithin = \"1s\"\nstable = \"0s\"\n\n[file.\"/etc/hosts\"]\ncontent = \"";

fn hosts(text: &str) -> String {
    format!("{HOSTS}{text}\\n\"\n")
}

#[test]
fn a_revision_that_cuts_the_way_to_the_source_is_undone_and_quarantined() {
    let scene = Scene::new(&hosts("127.0.0.1 localhost"));
    let way = Way::default();
    way.cut_by(scene.path("etc/hosts"), "203.0.113.1");
    let mut agent = Agent::start(&scene, &way);
    assert_eq!(agent.sync().state, State::Converged);
    let first = scene.repository.id("HEAD");
    let second = scene.push_layer(&hosts("203.0.113.1 git.example.net"));
    let status = agent.tick();
    assert_eq!(
        (status.state, revision(&status)),
        (State::RolledBack, first.as_str()),
        "{status:#?}"
    );
    assert_eq!(status.quarantined[0].revision, second);
    assert_eq!(scene.get("etc/hosts").unwrap(), "127.0.0.1 localhost\n");
    assert_eq!(agent.tick().state, State::RolledBack);
}

#[test]
fn a_source_that_dies_by_itself_quarantines_nothing() {
    let scene = Scene::new(&hosts("127.0.0.1 localhost"));
    let way = Way::default();
    let mut agent = Agent::start(&scene, &way);
    agent.sync();
    let first = scene.repository.id("HEAD");
    let second = scene.push_layer(&hosts("127.0.0.1 localhost gw"));
    // From the moment that it is fetched.
    way.cut_by(scene.path("etc/limpet/limpet.toml"), "[source]");
    let status = agent.tick();
    assert_eq!(
        (status.state, revision(&status)),
        (State::RolledBack, first.as_str()),
        "{status:#?}"
    );
    assert!(status.quarantined.is_empty(), "{status:#?}");
    way.meet(Lane::Ordinary, None);
    agent = Agent::start(&scene, &way);
    assert_eq!(agent.begin().state, State::RolledBack);
    assert_eq!(agent.sync().state, State::RolledBack);
    way.clear();
    way.cut_by(scene.path("etc/limpet/limpet.toml"), "nothing like that");
    let status = agent.sync();
    assert_eq!(
        (status.state, revision(&status)),
        (State::Converged, second.as_str()),
        "{status:#?}"
    );
}

#[test]
fn the_source_is_asked_by_itself_after_what_could_cut_it_off_and_only_then() {
    let scene = Scene::new(&motd("first"));
    let way = Way::default();
    let mut agent = Agent::start(&scene, &way);
    agent.sync();
    scene.push_layer(&motd("second"));
    assert_eq!(agent.tick().state, State::Converged);
    assert_eq!(way.source_probes(), 0);
    let resolver = "[file.\"/etc/resolv.conf\"]\ncontent = \"nameserver 127.0.0.1\\n\"\n";
    scene.push_layer(resolver);
    let status = agent.tick();
    assert_eq!(status.state, State::Converged, "{status:#?}");
    assert_eq!(way.source_probes(), 1);
    // Where it did not answer before, it would prove nothing by not answering now.
    pause(&mut agent);
    let last = scene.push_layer(&resolver.replace("127.0.0.1", "127.0.0.2"));
    agent.tick();
    way.meet(Lane::Offline, None);
    agent = Agent::start(&scene, &way);
    agent.begin();
    agent.cycle.resume(&[], "alice").unwrap();
    let status = agent.look();
    assert_eq!(
        (status.state, revision(&status)),
        (State::Converged, last.as_str()),
        "{status:#?}"
    );
    assert_eq!(
        scene.get("etc/resolv.conf").unwrap(),
        "nameserver 127.0.0.2\n"
    );
    assert_eq!(way.source_probes(), 1);
}
