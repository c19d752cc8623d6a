//! What an operator paused is left as it is, and everything else goes on.

use std::time::Duration;

use limpet::cycle::pause::PauseRequest;
use limpet::model::{Failure, ResourceId};
use limpet::report::status::State;

use crate::agent::{Agent, Way};
use crate::scene::Scene;

const LAYER: &str = "[file.\"/etc/motd\"]\ncontent = \"managed by git\\n\"\n\n[file.\"/etc/issue\"]\ncontent = \"Welcome\\n\"\n";

fn converged() -> (Scene, Agent, Way) {
    let scene = Scene::new(LAYER);
    let way = Way::default();
    let mut agent = Agent::start(&scene, &way);
    assert_eq!(agent.sync().state, State::Converged);
    (scene, agent, way)
}

fn pause(agent: &mut Agent, resources: &[&str]) -> Result<(), Failure> {
    agent.cycle.pause(&PauseRequest {
        resources: ids(resources),
        length: Duration::from_secs(7200),
        reason: "moving the database".to_owned(),
        by: "alice".to_owned(),
    })
}

fn ids(resources: &[&str]) -> Vec<ResourceId> {
    resources.iter().map(|id| id.parse().unwrap()).collect()
}

#[test]
fn on_a_paused_host_nothing_changes_while_polls_and_plans_go_on() {
    let (scene, mut agent, way) = converged();
    let first = scene.repository.id("HEAD");
    let said = crate::said(|| pause(&mut agent, &[]).unwrap());
    assert!(
        said.contains("paused this host until") && said.contains("by alice: moving the database"),
        "{said}"
    );
    scene.put("etc/issue", "somebody was here\n");
    let second = scene.push_layer(&LAYER.replace("managed", "still managed"));
    // Over a restart, too.
    for _ in 0..2 {
        let status = agent.tick();
        assert_eq!(status.state, State::Paused);
        assert_eq!(status.revision.as_deref(), Some(first.as_str()));
        assert_eq!(status.paused[0].reason, "moving the database");
        assert_eq!(scene.get("etc/motd").unwrap(), "managed by git\n");
        assert_eq!(scene.get("etc/issue").unwrap(), "somebody was here\n");
        let plan = agent.cycle.preview();
        assert_eq!(
            plan.revision.as_deref(),
            Some(second.as_str()),
            "it was judged and taken over"
        );
        let planned: Vec<_> = plan
            .changes
            .iter()
            .map(|change| (change.resource.to_string(), change.paused))
            .collect();
        assert_eq!(
            planned,
            [
                ("file:/etc/issue".to_owned(), true),
                ("file:/etc/motd".to_owned(), true)
            ]
        );
        agent = Agent::start(&scene, &way);
        assert_eq!(agent.begin().state, State::Paused);
    }
    // What is refused is refused, paused or not.
    scene.repository.commit_unsigned("evil");
    scene.repository.push();
    assert_eq!(agent.tick().state, State::Refused);
    scene.repository.reset(&second);
    scene.repository.force_push();
    assert_eq!(agent.tick().state, State::Paused);

    agent.cycle.resume(&[], "bob").unwrap();
    let status = agent.look();
    assert_eq!(status.state, State::Converged);
    assert_eq!(status.revision.as_deref(), Some(second.as_str()));
    assert_eq!(scene.get("etc/motd").unwrap(), "still managed by git\n");
    assert_eq!(scene.get("etc/issue").unwrap(), "Welcome\n");
}

#[test]
fn a_paused_resource_is_left_alone_and_the_others_go_on() {
    let (scene, mut agent, way) = converged();
    pause(&mut agent, &["file:/etc/motd"]).unwrap();
    agent = Agent::start(&scene, &way);
    for path in ["etc/motd", "etc/issue"] {
        scene.put(path, "somebody was here\n");
    }
    let status = agent.tick();
    assert_eq!(status.state, State::Paused);
    assert_eq!(status.drift.len(), 1);
    assert_eq!(scene.get("etc/motd").unwrap(), "somebody was here\n");
    assert_eq!(scene.get("etc/issue").unwrap(), "Welcome\n");
    let plan = agent.cycle.preview();
    assert!(
        matches!(plan.changes.as_slice(), [change] if change.paused && !change.report),
        "{plan:#?}"
    );

    // No longer declared, it stays all the same.
    scene.push_layer("[file.\"/etc/issue\"]\ncontent = \"Welcome\\n\"\n");
    agent.tick();
    assert_eq!(scene.get("etc/motd").unwrap(), "somebody was here\n");

    scene.push_layer(LAYER);
    agent.tick();
    agent
        .cycle
        .resume(&ids(&["file:/etc/motd"]), "alice")
        .unwrap();
    assert_eq!(agent.look().state, State::Converged);
    assert_eq!(scene.get("etc/motd").unwrap(), "managed by git\n");
}

#[test]
fn what_cannot_be_paused_or_resumed_is_told_what_can() {
    let (_scene, mut agent, _way) = converged();
    let show =
        |failure: Failure| format!("{failure} ({})", failure.hint.clone().unwrap_or_default());
    let unknown = show(pause(&mut agent, &["file:/etc/modt"]).unwrap_err());
    insta::assert_snapshot!(unknown, @"file:/etc/modt is not declared for this host, so there is nothing to pause (did you mean 'file:/etc/motd'?)");
    agent.cycle.resume(&[], "alice").unwrap();
    let not_paused = show(
        agent
            .cycle
            .resume(&ids(&["file:/etc/motd"]), "alice")
            .unwrap_err(),
    );
    insta::assert_snapshot!(not_paused, @"file:/etc/motd is not paused (nothing is paused on this host)");
    pause(&mut agent, &["file:/etc/motd"]).unwrap();
    let not_the_host = show(agent.cycle.resume(&[], "alice").unwrap_err());
    insta::assert_snapshot!(not_the_host, @"the host is not paused, only file:/etc/motd ('limpet resume file:/etc/motd' resumes that)");
    assert_eq!(agent.tick().state, State::Paused, "nothing was resumed");
}

#[test]
fn one_cycle_by_hand_respects_a_pause() {
    let (scene, mut agent, _way) = converged();
    pause(&mut agent, &[]).unwrap();
    drop(agent);
    scene.put("etc/motd", "somebody was here\n");
    scene
        .apply()
        .expect(75)
        .says("paused since")
        .says("by alice: moving the database");
    assert_eq!(scene.get("etc/motd").unwrap(), "somebody was here\n");
}
