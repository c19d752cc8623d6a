//! When a source is asked that does not answer, and what goes on meanwhile.

use std::fs;
use std::time::{Duration, Instant};

use limpet::fetch::Lane;
use limpet::report::status::State;

use crate::agent::{Agent, Way};
use crate::scene::Scene;

const MOTD: &str = "[file.\"/etc/motd\"]\ncontent = \"managed by git\\n\"\n";

/// A machine that applied its first revision, with its agent and its way to the source.
fn converged() -> (Scene, Agent, Way) {
    let scene = Scene::new(MOTD);
    fs::create_dir_all(scene.path("run/limpet")).unwrap();
    let way = Way::default();
    let mut agent = Agent::start(&scene, &way);
    assert_eq!(agent.begin().state, State::Converged);
    assert_eq!(way.polls(), 1);
    (scene, agent, way)
}

#[test]
fn a_server_in_trouble_is_left_alone_while_every_tick_enforces() {
    let (scene, mut agent, way) = converged();
    way.meet(Lane::Ordinary, Some(3600));
    agent.tick();
    assert_eq!(way.polls(), 2);
    let rest = agent.cycle.rest_of_the_source();
    assert!(rest > Duration::from_secs(3500), "{rest:?}");
    for _ in 0..3 {
        scene.put("etc/motd", "somebody was here\n");
        let status = agent.tick();
        assert_eq!(scene.get("etc/motd").unwrap(), "managed by git\n");
        assert_eq!(status.state, State::Converged);
        assert_eq!(status.silence().unwrap().kind, "unreachable");
        assert_eq!(status.last_poll.unwrap().failures, 1);
    }
    assert_eq!(way.polls(), 2);

    agent.sync();
    assert_eq!(way.polls(), 3, "a person is stopped by no back-off");
    way.clear();
    let status = agent.sync();
    assert_eq!((status.silence(), status.errors.len()), (None, 0));
    agent.tick();
    assert_eq!(way.polls(), 5, "an answer ends the back-off");
}

#[test]
fn a_restart_forgets_neither_the_back_off_nor_its_reason() {
    let (scene, mut agent, way) = converged();
    way.meet(Lane::Ordinary, Some(3600));
    agent.tick();
    drop(agent);
    for _ in 0..5 {
        let mut agent = Agent::start(&scene, &way);
        let status = agent.begin();
        let silence = status.silence().unwrap();
        assert_eq!(silence.reason, "the test has a bad day");
        agent.tick();
    }
    assert_eq!(way.polls(), 2);

    // Another address is another server.
    way.clear();
    let config = scene.get("etc/limpet/limpet.toml").unwrap();
    scene.put(
        "etc/limpet/limpet.toml",
        &config.replace(
            "[source]",
            "[source]\nbranch = \"main\"\nca_file = \"/etc/ca.pem\"",
        ),
    );
    let mut agent = Agent::start(&scene, &way);
    assert_eq!(agent.begin().silence(), None);
}

#[test]
fn a_machine_that_has_nothing_to_enforce_is_no_reason_to_ask_at_every_start() {
    let scene = Scene::new(MOTD);
    fs::create_dir_all(scene.path("run/limpet")).unwrap();
    let way = Way::default();
    way.meet(Lane::Offline, None);
    for _ in 0..20 {
        let status = Agent::start(&scene, &way).begin();
        assert_eq!(status.state, State::Starting);
    }
    assert_eq!(way.polls(), 1);
    way.clear();
    assert_eq!(Agent::start(&scene, &way).tick().state, State::Converged);
    assert_eq!(way.polls(), 2);
}

#[test]
fn being_offline_is_no_error_and_is_asked_for_at_every_tick_without_a_write() {
    let (scene, mut agent, way) = converged();
    way.meet(Lane::Offline, None);
    let first = agent.tick();
    assert_eq!(first.state, State::Converged);
    assert!(
        first.has("offline") && first.errors.is_empty(),
        "{first:#?}"
    );
    let written = || {
        ["state.db", "state.db-wal"]
            .map(|file| fs::read(scene.path("var/lib/limpet").join(file)).ok())
    };
    let before = written();
    for _ in 0..3 {
        let status = agent.tick();
        assert_eq!(
            status.silence().map(|it| it.since),
            first.silence().map(|it| it.since)
        );
    }
    assert_eq!(way.polls(), 5);
    assert!(written() == before, "nothing new is written");
}

#[test]
fn a_poll_that_is_answered_and_changes_nothing_writes_nothing() {
    let (scene, mut agent, way) = converged();
    agent.tick();
    let written = || {
        ["state.db", "state.db-wal"]
            .map(|file| fs::read(scene.path("var/lib/limpet").join(file)).ok())
    };
    let before = written();
    agent.tick();
    agent.tick();
    assert_eq!(way.polls(), 4);
    assert!(written() == before, "nothing new is written");
}

#[test]
fn a_host_that_is_denied_asks_rarely_and_says_so_once() {
    let (scene, mut agent, way) = converged();
    way.meet(Lane::Denied, None);
    let said = crate::said(|| {
        agent.tick();
        agent.sync();
        agent.tick();
        agent = Agent::start(&scene, &way);
        agent.begin();
        agent.sync();
    });
    assert_eq!(
        said.matches("does not serve this host").count(),
        1,
        "{said}"
    );
    assert_eq!(way.polls(), 4);
    assert!(agent.cycle.rest_of_the_source() > Duration::from_secs(14 * 60));
    assert_eq!(agent.look().silence().unwrap().kind, "denied");
    way.clear();
    let said = crate::said(|| drop(agent.sync()));
    assert!(said.contains("serves this host again"), "{said}");
}

#[test]
fn a_refusal_outlives_the_agent_and_is_not_called_recovered() {
    let (scene, mut agent, way) = converged();
    scene.repository.commit_unsigned("evil");
    scene.repository.push();
    assert_eq!(agent.tick().state, State::Refused);
    let said = crate::said(|| {
        let mut agent = Agent::start(&scene, &way);
        assert_eq!(agent.begin().state, State::Refused);
        assert_eq!(agent.tick().state, State::Refused);
    });
    assert_eq!(said, "");
}

#[test]
fn a_source_that_keeps_a_poll_waiting_delays_no_correction() {
    let (scene, agent, mut way) = converged();
    drop(agent);
    way.interval = Some(Duration::from_millis(20));
    let mut agent = Agent::start(&scene, &way);
    way.block();
    let is_put_back = || {
        let end = Instant::now() + Duration::from_secs(60);
        while scene.get("etc/motd").as_deref() != Some("managed by git\n") {
            if Instant::now() > end {
                return false;
            }
            std::thread::yield_now();
        }
        true
    };
    let corrections = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while way.polls() < 2 {
                std::thread::yield_now();
            }
            let corrections = [(); 3].map(|()| {
                scene.put("etc/motd", "somebody was here\n");
                is_put_back()
            });
            way.unblock();
            corrections
        });
        assert_eq!(agent.tick().state, State::Converged);
        watch.join().unwrap()
    });
    assert_eq!(corrections, [true; 3]);
    assert_eq!(way.polls(), 2);
}
