//! What is known about this host between cycles, and the status that follows from it.
//!
//! A *condition* is something that holds; the status's state is the most pressing one.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::cycle::AppliedRevision;
use crate::model::{Class, Failure};
use crate::report::status::{
    Condition, Counts, Drift, OwedEffect, Poll, State, Status, StatusError, who_must_act,
};

/// The facts.
#[derive(Debug, Clone, Default)]
pub struct Situation {
    /// The revision in force, in hex.
    pub revision: Option<String>,
    /// The first line of its message.
    pub subject: Option<String>,
    /// Who signed it.
    pub signer: Option<String>,
    /// When it was first applied.
    pub applied_at: Option<Timestamp>,
    /// Digest of the desired state in force.
    pub digest: Option<String>,
    /// The last poll.
    pub last_poll: Option<Poll>,
    /// The tip is not trusted.
    pub refusal: Option<Failure>,
    /// The tip is an ancestor of the trusted head.
    pub behind: Option<Failure>,
    /// The tip is trusted, but has mistakes.
    pub mistakes: Vec<Failure>,
    /// The tip that has them, in hex.
    pub mistaken: Option<String>,
    /// The host configuration on disk is wrong; the one read before is in use.
    pub config: Vec<Failure>,
    /// The source could not be asked.
    pub source: Option<Failure>,
    /// Trust state is missing; nothing new is accepted.
    pub state_missing: Option<Failure>,
    /// The repository means another machine than this: its name, its id or its facts.
    pub misplaced: Vec<Failure>,
    /// What waits for a person.
    pub held: Vec<Failure>,
    /// Resources that failed.
    pub failures: Vec<Failure>,
    /// What differs and is only reported.
    pub drift: Vec<Drift>,
    /// Restarts that wait.
    pub owed: Vec<OwedEffect>,
    /// Resources declared and their condition.
    pub resources: Counts,
    /// The machine asks for a reboot.
    pub reboot_required: bool,
}

/// When each condition began, by its name; kept over restarts.
pub type Beginnings = BTreeMap<String, Timestamp>;

impl Situation {
    /// Says that `applied` is the revision in force.
    pub fn take_applied(&mut self, applied: &AppliedRevision) {
        self.revision = Some(applied.revision.clone());
        self.subject = Some(applied.subject.clone());
        self.signer = applied.signer.clone();
        self.applied_at = Some(applied.at);
        self.digest = Some(applied.digest.clone());
    }

    /// The status of `host` at `now`; `beginnings` is brought up to date.
    pub fn status(
        &self,
        host: &str,
        beginnings: &mut Beginnings,
        next_poll_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Status {
        let found = self.conditions();
        let state = self.state();
        beginnings.retain(|kind, _| {
            kind == state.as_str() || found.iter().any(|(known, _, _)| known == kind)
        });
        let mut since = |kind: &str| {
            let since = beginnings.entry(kind.to_owned()).or_insert(now);
            // The clock was wrong then, or is now.
            *since = (*since).min(now);
            *since
        };
        let conditions = found
            .into_iter()
            .map(|(kind, reason, who)| Condition {
                since: since(kind),
                kind: kind.to_owned(),
                reason,
                who: who.to_owned(),
            })
            .collect();
        Status {
            host: host.to_owned(),
            state,
            since: since(state.as_str()),
            revision: self.revision.clone(),
            subject: self.subject.clone(),
            signer: self.signer.clone(),
            applied_at: self.applied_at,
            digest: self.digest.clone(),
            last_poll: self.last_poll.clone(),
            next_poll_at,
            resources: self.resources,
            conditions,
            drift: self.drift.clone(),
            owed: self.owed.clone(),
            errors: self.errors(),
            quarantined: Vec::new(),
            reboot_required: self.reboot_required,
        }
    }

    /// The first state that holds, in the order of [`State`].
    pub fn state(&self) -> State {
        if self.refusal.is_some() || self.state_missing.is_some() {
            State::Refused
        } else if !self.held.is_empty() || !self.misplaced.is_empty() {
            State::Held
        } else if !self.failures.is_empty() || !self.mistakes.is_empty() {
            State::Degraded
        } else if !self.drift.is_empty() {
            State::Drifted
        } else if self.revision.is_none() {
            State::Starting
        } else {
            State::Converged
        }
    }

    /// Everything that is wrong.
    pub fn errors(&self) -> Vec<StatusError> {
        let trust = self
            .refusal
            .iter()
            .chain(&self.state_missing)
            .chain(&self.behind);
        let mistakes = self.mistakes.iter().map(|failure| StatusError {
            revision: self.mistaken.clone(),
            ..StatusError::from(failure)
        });
        let others = self.failures.iter().chain(&self.config).chain(&self.source);
        trust
            .chain(&self.misplaced)
            .chain(&self.held)
            .map(StatusError::from)
            .chain(mistakes)
            .chain(others.map(StatusError::from))
            .collect()
    }

    /// Everything that holds: its name, why, and who must act. The state itself is always among it.
    fn conditions(&self) -> Vec<(&'static str, String, &'static str)> {
        let all = |kind: &'static str,
                   failures: &[&Failure]|
         -> Option<(&'static str, String, &'static str)> {
            let first = failures.first()?;
            let reason = match failures.len() {
                1 => first.to_string(),
                count => format!("{first} (and {} more)", count - 1),
            };
            Some((kind, reason, who_must_act(first.class)))
        };
        let held: Vec<&Failure> = self.misplaced.iter().chain(&self.held).collect();
        let degraded: Vec<&Failure> = self.mistakes.iter().chain(&self.failures).collect();
        let one = |kind, failure: &Option<Failure>| all(kind, &failure.iter().collect::<Vec<_>>());
        let mut found: Vec<_> = [
            one(State::Refused.as_str(), &self.refusal),
            // The keys are fine; it is this host that lost something.
            one("state-missing", &self.state_missing)
                .map(|(kind, reason, _)| (kind, reason, who_must_act(Class::Host))),
            all(State::Held.as_str(), &held),
            all(State::Degraded.as_str(), &degraded),
            one("behind", &self.behind),
            one("offline", &self.source),
            all("config", &self.config.iter().collect::<Vec<_>>()),
        ]
        .into_iter()
        .flatten()
        .collect();
        if let Some(first) = self.drift.first() {
            let reason = match self.drift.len() {
                1 => format!("{} differs", first.resource),
                count => format!("{count} differences, {} first", first.resource),
            };
            found.push((State::Drifted.as_str(), reason, who_must_act(Class::Host)));
        }
        let state = self.state();
        if !found.iter().any(|(kind, _, _)| *kind == state.as_str()) {
            let (reason, who) = match state {
                State::Converged => ("everything is as declared", "nobody"),
                State::Starting => ("no revision was applied yet", "nobody"),
                _ => ("nothing new is accepted", who_must_act(Class::Host)),
            };
            found.insert(0, (state.as_str(), reason.to_owned(), who));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(class: Class) -> Failure {
        Failure::new(class, format!("something of class {class:?}"))
    }

    #[test]
    fn the_most_pressing_condition_is_the_state() {
        let mut situation = Situation::default();
        assert_eq!(situation.state(), State::Starting);
        situation.revision = Some("aa".into());
        assert_eq!(situation.state(), State::Converged);
        situation.source = Some(failure(Class::Transient));
        assert_eq!(
            situation.state(),
            State::Converged,
            "being offline changes nothing that is enforced"
        );
        situation.mistakes.push(failure(Class::Author));
        assert_eq!(situation.state(), State::Degraded);
        situation.held.push(failure(Class::Host));
        assert_eq!(situation.state(), State::Held);
        situation.refusal = Some(failure(Class::Refused));
        assert_eq!(situation.state(), State::Refused);
    }

    #[test]
    fn a_condition_keeps_its_beginning_while_it_lasts_and_gets_a_new_one_when_it_returns() {
        let mut beginnings = Beginnings::new();
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut situation = Situation {
            revision: Some("aa".into()),
            ..Situation::default()
        };
        assert_eq!(
            situation.status("h", &mut beginnings, None, at(1)).since,
            at(1)
        );
        assert_eq!(
            situation.status("h", &mut beginnings, None, at(2)).since,
            at(1)
        );
        situation.failures.push(failure(Class::Host));
        assert_eq!(
            situation.status("h", &mut beginnings, None, at(3)).since,
            at(3)
        );
        situation.failures.clear();
        assert_eq!(
            situation.status("h", &mut beginnings, None, at(4)).since,
            at(4)
        );
    }
}
