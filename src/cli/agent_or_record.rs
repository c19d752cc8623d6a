//! Asking the agent, and reading what it last recorded when no agent answers.

use std::path::Path;

use crate::config;
use crate::control::{Conversation, Reply, Request};
use crate::cycle::Cycle;
use crate::cycle::look::Memory;
use crate::cycle::situation::{Beginnings, Situation};
use crate::model::{Class, Failure, ResourceId};
use crate::record::Record;
use crate::report::preview::Preview;
use crate::report::status::{Condition, State, Status};
use crate::sys::{Host, clock};

/// Asks the agent of this machine and returns its last reply; fails when none answers.
pub fn ask(request: &Request) -> Result<Reply, Failure> {
    converse(request, &mut |_| ())
}

/// The same, handing every progress message to `progress`.
pub fn converse(request: &Request, progress: &mut dyn FnMut(&str)) -> Result<Reply, Failure> {
    let mut conversation = Conversation::start(Path::new(config::CONTROL_SOCKET), request)
        .map_err(|error| {
            if error.kind() == std::io::ErrorKind::PermissionDenied {
                // The agent is well, and trying again would not help.
                return Failure::new(
                    Class::Host,
                    "only root and members of the group limpet-operators may ask the agent",
                )
                .with_hint("run it with sudo");
            }
            match is_enrolled() {
                Ok(false) => super::not_enrolled(),
                _ => Failure::new(
                    Class::Transient,
                    format!("no agent answers on '{}': {error}", config::CONTROL_SOCKET),
                )
                .with_hint("see 'systemctl status limpet'"),
            }
        })?;
    loop {
        match conversation.next_reply() {
            Ok(Reply::Progress { message }) => progress(&message),
            Ok(reply) => return Ok(reply),
            // Who only looks need not care which agent, or none, is there to answer.
            Err(failure) if !request.is_change() => return Err(failure),
            // There is an agent, so nobody else may answer in its place.
            Err(failure) => return Ok(Reply::Failed { failure }),
        }
    }
}

/// The resources that a person means by `texts`.
pub fn resources(texts: &[String]) -> Result<Vec<ResourceId>, Vec<Failure>> {
    texts.iter().map(|text| resource(text)).collect()
}

/// The resource that a person means by `text`: `kind:name`, or what `limpet why` takes for a declared one.
fn resource(text: &str) -> Result<ResourceId, Vec<Failure>> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let request = Request::Why {
        resource: Some(text.to_owned()),
    };
    let explanation = match ask(&request) {
        Ok(Reply::Why { explanation }) => *explanation,
        Ok(other) => return Err(vec![unexpected(&other)]),
        Err(no_agent) => {
            let status = recorded_status(&no_agent)?;
            own_memory(&no_agent)?.explain(Some(text), &status, false)?
        }
    };
    match explanation.resource {
        Some(resource) if resource.declared => Ok(resource.resource),
        _ => Err(vec![
            Failure::new(
                Class::Host,
                format!(
                    "'{text}' is not declared for this host, so it is nothing to pause or resume"
                ),
            )
            .with_hint("write it as kind:name, such as file:/etc/motd"),
        ]),
    }
}

fn recorded() -> Option<Status> {
    Record::open_read_only(Path::new(config::STATE_DATABASE))
        .and_then(|record| record.recall(crate::cycle::STATUS))
        .ok()
        .flatten()
}

/// The status that the agent recorded last, with the condition `agent-down`; `no_agent` says why it had to be read.
pub fn recorded_status(no_agent: &Failure) -> Result<Status, Vec<Failure>> {
    let mut status: Status = match recorded() {
        Some(status) => status,
        _ if !is_enrolled()? => return Ok(not_enrolled()),
        _ => own_cycle(no_agent)?.status(),
    };
    status.next_poll_at = None;
    status.conditions.push(agent_down(no_agent, clock::now()));
    Ok(status)
}

/// What would change, planned here from what the agent recorded; `no_agent` says why.
pub fn own_preview(no_agent: &Failure) -> Result<Preview, Vec<Failure>> {
    if !is_enrolled()? {
        let status = not_enrolled();
        return Ok(Preview {
            revision: None,
            host: status.host,
            digest: None,
            changes: Vec::new(),
            held: Vec::new(),
            errors: status.errors,
            conditions: status.conditions,
        });
    }
    let mut preview = own_cycle(no_agent)?.preview();
    preview
        .conditions
        .retain(|condition| condition.kind != "agent-down");
    preview.conditions.push(agent_down(no_agent, clock::now()));
    Ok(preview)
}

/// What this host remembers, for root; `no_agent` says why the agent does not tell.
pub fn own_memory(no_agent: &Failure) -> Result<Memory, Vec<Failure>> {
    if !is_enrolled()? {
        return Err(vec![super::not_enrolled()]);
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(vec![no_agent.clone()]);
    }
    let host = Host::new(Path::new("/"));
    let config = super::host_config(&host)?;
    Memory::open(host, config).map_err(|failure| vec![failure])
}

/// What the agent would know, for root; it reaches no fetcher.
fn own_cycle(no_agent: &Failure) -> Result<Cycle, Vec<Failure>> {
    if !nix::unistd::geteuid().is_root() {
        return Err(vec![no_agent.clone()]);
    }
    let host = Host::new(Path::new("/"));
    let config = super::host_config(&host)?;
    let no_fetcher = no_agent.clone();
    Cycle::open(host, config, Box::new(move || Err(no_fetcher.clone())))
        .map_err(|failure| vec![failure])
}

/// Changes what the next agent will know, as root and while no agent runs; returns the status after it. `no_agent` says why.
pub fn change_own_state(
    no_agent: &Failure,
    change: impl FnOnce(&mut Cycle) -> Result<(), Failure>,
) -> Result<Status, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(no_agent.clone());
    }
    if !Host::new(Path::new("/")).exists(config::CONFIG_FILE)? {
        return Err(super::not_enrolled());
    }
    // An agent that is there and does not answer holds it.
    let _lock = Host::new(Path::new("/")).lock(config::LOCK_FILE)?;
    let mut cycle = own_cycle(no_agent).map_err(|failures| {
        failures
            .into_iter()
            .next()
            .unwrap_or_else(|| no_agent.clone())
    })?;
    change(&mut cycle)?;
    let status = cycle.status();
    // What is read until the next agent tells. This cycle has looked at nothing, so all but the pauses stays as it was recorded.
    if let Some(recorded) = recorded() {
        cycle.remember(&with_pauses_of(&status, recorded))?;
    }
    Ok(status)
}

/// `recorded`, with the pauses of `status` in place of its own.
fn with_pauses_of(status: &Status, recorded: Status) -> Status {
    let paused = State::Paused.as_str();
    let pause = status.conditions.iter().find(|found| found.kind == paused);
    let (state, since) = match (recorded.state, pause) {
        (State::Paused, None) => (status.state, status.since),
        // Those that come after a pause in the order of states.
        (
            State::Stale | State::Drifted | State::Applying | State::Starting | State::Converged,
            Some(pause),
        ) => (State::Paused, pause.since),
        (state, _) => (state, recorded.since),
    };
    let mut conditions: Vec<Condition> = recorded
        .conditions
        .into_iter()
        .filter(|found| found.kind != paused && found.kind != State::Converged.as_str())
        .collect();
    if let Some(first) = pause.or(status.conditions.first()) {
        conditions.retain(|found| found.kind != first.kind);
        conditions.insert(0, first.clone());
    }
    Status {
        state,
        since,
        conditions,
        paused: status.paused.clone(),
        ..recorded
    }
}

/// The name of the condition that this host has no configuration.
pub const NOT_ENROLLED: &str = "not-enrolled";

fn is_enrolled() -> Result<bool, Vec<Failure>> {
    Host::new(Path::new("/"))
        .exists(config::CONFIG_FILE)
        .map_err(|failure| vec![failure])
}

/// The status of a host that was never enrolled: one object like any other.
fn not_enrolled() -> Status {
    let now = clock::now();
    let name = Host::new(Path::new("/"))
        .read_short_name()
        .unwrap_or_default();
    let failure = super::not_enrolled();
    let situation = Situation {
        config: vec![failure.clone()],
        ..Situation::default()
    };
    let mut status = situation.status(&name, &mut Beginnings::new(), None, now);
    for condition in status
        .conditions
        .iter_mut()
        .filter(|condition| condition.kind == "config")
    {
        condition.kind = NOT_ENROLLED.to_owned();
    }
    status
}

/// The condition that no agent answers, or that none is to.
pub fn agent_down(no_agent: &Failure, now: jiff::Timestamp) -> Condition {
    let kind = match no_agent.class {
        Class::Config => NOT_ENROLLED,
        _ => "agent-down",
    };
    Condition {
        kind: kind.to_owned(),
        since: now,
        reason: no_agent.to_string(),
        who: crate::report::status::who_must_act(Class::Host).to_owned(),
    }
}

/// The failure for a reply that does not fit the request.
pub fn unexpected(reply: &Reply) -> Failure {
    match reply {
        Reply::Failed { failure } => failure.clone(),
        _ => Failure::new(
            Class::Bug,
            "the agent answered another question than was asked",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::status::Pause;

    #[test]
    fn a_pause_beside_an_agent_that_is_down_leaves_what_was_recorded() {
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        let situation = Situation {
            revision: Some("9f3c".repeat(10)),
            ..Situation::default()
        };
        let mut recorded = situation.status("gw-1", &mut Beginnings::new(), None, at(0));
        recorded.resources.total = 3;
        let paused = Situation {
            paused: vec![Pause {
                resource: None,
                since: at(60),
                until: at(7200),
                by: "alice".into(),
                reason: "moving the database".into(),
            }],
            ..situation.clone()
        };
        let paused = paused.status("gw-1", &mut Beginnings::new(), None, at(60));
        let during = with_pauses_of(&paused, recorded.clone());
        assert_eq!((during.state, during.since), (State::Paused, at(60)));
        assert_eq!((during.resources.total, during.paused.len()), (3, 1));
        assert_eq!(during.conditions.len(), 1, "{during:?}");

        let resumed = situation.status("gw-1", &mut Beginnings::new(), None, at(90));
        let after = with_pauses_of(&resumed, during);
        assert_eq!(after.state, recorded.state);
        assert_eq!((after.resources.total, after.paused.len()), (3, 0));
        assert_eq!(after.conditions.len(), 1, "{after:?}");
    }
}
