//! What is known about this host between cycles, and the status that follows from it.
//!
//! A *condition* is something that holds; the status's state is the most pressing one.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::cycle::AppliedRevision;
use crate::model::{Class, Failure, ResourceId};
use crate::report::moment;
use crate::report::status::{
    Condition, Counts, Drift, OwedEffect, Pause, Poll, Quarantined, State, Status, StatusError,
    who_must_act,
};
use crate::schedule::Setback;

/// How long the source may offer a revision older than the trusted one before somebody is called: a mirror that lags, or a server
/// restored from a backup that its author pushes to again, rights itself.
const BEHIND_GRACE: SignedDuration = SignedDuration::from_hours(1);

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
    /// The tip waits for more signers.
    pub pending: Option<Failure>,
    /// No new revision was trusted for too long.
    pub stale: Option<Failure>,
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
    /// What the poll met that could not.
    pub setback: Setback,
    /// How many polls in a row failed.
    pub failed_polls: u32,
    /// The clock lies behind what was the time before.
    pub clock: Option<Failure>,
    /// Facts of the inventory that are another on this machine, where that holds nothing up.
    pub facts: Vec<Failure>,
    /// What is paused, the whole host first.
    pub paused: Vec<Pause>,
    /// Trust state is missing; nothing new is accepted.
    pub state_missing: Option<Failure>,
    /// The repository means another machine than this: its name, its id or its facts.
    pub misplaced: Vec<Failure>,
    /// What waits for a person.
    pub held: Vec<Failure>,
    /// What is in force instead of the trusted revision, and why.
    pub rolled_back: Option<Failure>,
    /// Revisions that failed here and are not tried again by themselves.
    pub quarantined: Vec<Quarantined>,
    /// Checks that do not hold.
    pub unhealthy: Vec<Failure>,
    /// Why a new revision is not applied yet.
    pub waiting: Option<Failure>,
    /// A version of limpet that does not work here, and is held.
    pub taken_back: Option<Failure>,
    /// Resources that failed.
    pub failures: Vec<Failure>,
    /// What somebody else changes back, and what is known of it.
    pub contested: Vec<(ResourceId, String)>,
    /// What differs and is only reported.
    pub drift: Vec<Drift>,
    /// Restarts that wait.
    pub owed: Vec<OwedEffect>,
    /// Resources declared and their condition.
    pub resources: Counts,
    /// The machine asks for a reboot.
    pub reboot_required: bool,
}

/// What became of the tip that was judged last, kept over restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    refusal: Option<Failure>,
    #[serde(default)]
    pending: Option<Failure>,
    behind: Option<Failure>,
    mistakes: Vec<Failure>,
    mistaken: Option<String>,
    misplaced: Vec<Failure>,
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

    /// Is `id` among what somebody else changes back.
    pub fn is_contested(&self, id: &ResourceId) -> bool {
        self.contested.iter().any(|(contested, _)| contested == id)
    }

    /// What became of the tip.
    pub fn standing(&self) -> Standing {
        Standing {
            refusal: self.refusal.clone(),
            pending: self.pending.clone(),
            behind: self.behind.clone(),
            mistakes: self.mistakes.clone(),
            mistaken: self.mistaken.clone(),
            misplaced: self.misplaced.clone(),
        }
    }

    /// Says that this is what became of the tip.
    pub fn take_standing(&mut self, standing: Standing) {
        self.refusal = standing.refusal;
        self.pending = standing.pending;
        self.behind = standing.behind;
        self.mistakes = standing.mistakes;
        self.mistaken = standing.mistaken;
        self.misplaced = standing.misplaced;
    }

    /// The status of `host` at `now`; `beginnings` is brought up to date.
    pub fn status(
        &self,
        host: &str,
        beginnings: &mut Beginnings,
        next_poll_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Status {
        let behind_since = match self.behind {
            Some(_) => *beginnings.entry(BEHIND.to_owned()).or_insert(now),
            None => now,
        };
        let is_behind_for_long = now.duration_since(behind_since) >= BEHIND_GRACE;
        let found = self.conditions(is_behind_for_long);
        let state = self.state();
        beginnings.retain(|kind, _| {
            kind == state.as_str() || found.iter().any(|(known, _, _)| known == kind)
        });
        let paused_since = self.paused.iter().map(|pause| pause.since).min();
        let mut since = |kind: &str| {
            let began = beginnings.entry(kind.to_owned()).or_insert(now);
            // The clock was wrong then, or is now.
            *began = (*began).min(now);
            paused_since
                .filter(|_| kind == State::Paused.as_str())
                .unwrap_or(*began)
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
            resources: self.counts(),
            conditions,
            drift: self.drift.clone(),
            owed: self.owed.clone(),
            errors: self.errors(is_behind_for_long),
            paused: self.paused.clone(),
            quarantined: self.quarantined.clone(),
            reboot_required: self.reboot_required,
        }
    }

    /// How many resources are as declared: a check is, unless it does not hold.
    fn counts(&self) -> Counts {
        let unhealthy = self
            .unhealthy
            .iter()
            .filter(|failure| failure.resource.is_some())
            .count();
        Counts {
            converged: self.resources.converged.saturating_sub(unhealthy),
            failed: (self.resources.failed + unhealthy).min(self.resources.total),
            ..self.resources
        }
    }

    /// The first state that holds, in the order of [`State`].
    pub fn state(&self) -> State {
        if self.refusal.is_some() || self.state_missing.is_some() {
            State::Refused
        } else if self.rolled_back.is_some() {
            State::RolledBack
        } else if !self.held.is_empty() || !self.misplaced.is_empty() || self.taken_back.is_some() {
            State::Held
        } else if !self.failures.is_empty()
            || !self.mistakes.is_empty()
            || !self.unhealthy.is_empty()
        {
            State::Degraded
        } else if self.pending.is_some() {
            State::Pending
        } else if self.waiting.is_some() {
            State::Waiting
        } else if !self.paused.is_empty() {
            State::Paused
        } else if self.stale.is_some() {
            State::Stale
        } else if !self.drift.is_empty() {
            State::Drifted
        } else if self.revision.is_none() {
            State::Starting
        } else {
            State::Converged
        }
    }

    /// Everything that is wrong. Being offline is not, nor being behind for a short time.
    fn errors(&self, is_behind_for_long: bool) -> Vec<StatusError> {
        let behind = self.behind.iter().filter(|_| is_behind_for_long);
        let source = self
            .source
            .iter()
            .filter(|_| self.setback != Setback::Offline);
        let trust = self.refusal.iter().chain(&self.state_missing).chain(behind);
        let mistakes = self.mistakes.iter().map(|failure| StatusError {
            revision: self.mistaken.clone(),
            ..StatusError::from(failure)
        });
        // What it keeps from being installed is said once.
        let failures = self
            .failures
            .iter()
            .filter(|failure| self.taken_back.as_ref() != Some(*failure));
        let others = failures
            .chain(&self.unhealthy)
            .chain(&self.config)
            .chain(source);
        trust
            .chain(&self.misplaced)
            .chain(&self.held)
            .chain(&self.taken_back)
            .map(StatusError::from)
            .chain(mistakes)
            .chain(others.map(StatusError::from))
            .chain(self.clock.iter().map(StatusError::from))
            .chain(self.stale.iter().map(StatusError::from))
            .collect()
    }

    /// Everything that holds: its name, why, and who must act. The state itself is always among it.
    fn conditions(&self, is_behind_for_long: bool) -> Vec<(&'static str, String, &'static str)> {
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
        let held: Vec<&Failure> = self
            .misplaced
            .iter()
            .chain(&self.held)
            .chain(&self.taken_back)
            .collect();
        let degraded: Vec<&Failure> = self
            .mistakes
            .iter()
            .chain(&self.failures)
            .chain(&self.unhealthy)
            .collect();
        let one = |kind, failure: &Option<Failure>| all(kind, &failure.iter().collect::<Vec<_>>());
        let who_at_the_source = self.source.as_ref().map(|failure| match self.setback {
            Setback::Offline => "nobody, the source is asked again when there is a network",
            Setback::Denied if failure.class == Class::Transient => {
                "the operator of this host, or of the server"
            }
            Setback::Denied | Setback::Trouble | Setback::Local => who_must_act(failure.class),
        });
        let source_kind = match self.setback {
            Setback::Offline => "offline",
            Setback::Trouble => "unreachable",
            Setback::Denied => "denied",
            Setback::Local => "fetcher-down",
        };
        let mut found: Vec<_> = [
            one(State::Refused.as_str(), &self.refusal),
            // The keys are fine; it is this host that lost something.
            one("state-missing", &self.state_missing)
                .map(|(kind, reason, _)| (kind, reason, who_must_act(Class::Host))),
            one(State::RolledBack.as_str(), &self.rolled_back),
            all(State::Held.as_str(), &held),
            all(State::Degraded.as_str(), &degraded),
            self.behind.as_ref().map(|failure| {
                let who = match is_behind_for_long {
                    true => who_must_act(failure.class),
                    false => "nobody yet: the source may only be catching up",
                };
                (BEHIND, failure.to_string(), who)
            }),
            self.contested_condition(),
            one(State::Pending.as_str(), &self.pending)
                .map(|(kind, reason, _)| (kind, reason, who_must_act(Class::Refused))),
            one(State::Waiting.as_str(), &self.waiting),
            self.paused_condition(),
            one(State::Stale.as_str(), &self.stale),
            self.source
                .as_ref()
                .zip(who_at_the_source)
                .map(|(failure, who)| (source_kind, failure.to_string(), who)),
            all("config", &self.config.iter().collect::<Vec<_>>()),
            one("clock", &self.clock),
            all("facts", &self.facts.iter().collect::<Vec<_>>()),
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

    /// What somebody else changes back.
    fn contested_condition(&self) -> Option<(&'static str, String, &'static str)> {
        let (id, words) = self.contested.first()?;
        let more = match self.contested.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        Some((
            "contested",
            format!("{id}: {words}{more}"),
            who_must_act(Class::Host),
        ))
    }

    /// What is paused, until when, by whom and why.
    fn paused_condition(&self) -> Option<(&'static str, String, &'static str)> {
        let first = self.paused.first()?;
        let what = match &first.resource {
            Some(id) => format!("{id} "),
            None => String::new(),
        };
        let (until, by, why) = (first.until, &first.by, &first.reason);
        let mut reason = format!("{what}until {} by {by}: {why}", moment(until));
        if self.paused.len() > 1 {
            reason.push_str(&format!(" (and {} more)", self.paused.len() - 1));
        }
        let who = "nobody";
        Some((State::Paused.as_str(), reason, who))
    }
}

/// The name of the condition that the source offers a revision older than the trusted one.
const BEHIND: &str = "behind";

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

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_source_that_is_behind_calls_somebody_only_after_a_while() {
        let situation = Situation {
            revision: Some("aa".into()),
            behind: Some(failure(Class::Refused)),
            ..Situation::default()
        };
        let mut beginnings = Beginnings::new();
        let first = situation.status("h", &mut beginnings, None, at(0));
        assert!(first.has("behind") && first.errors.is_empty(), "{first:#?}");
        let soon = situation.status("h", &mut beginnings, None, at(3599));
        assert_eq!(soon, first);
        let late = situation.status("h", &mut beginnings, None, at(3600));
        assert_eq!(late.errors.len(), 1);
        let behind = late.conditions.iter().find(|known| known.kind == "behind");
        let behind = behind.unwrap();
        assert_eq!(
            (behind.since, behind.who.as_str()),
            (at(0), who_must_act(Class::Refused))
        );
    }

    #[track_caller]
    fn check_source(setback: Setback, kind: &str, errors: usize) {
        let situation = Situation {
            revision: Some("aa".into()),
            source: Some(failure(Class::Transient)),
            setback,
            ..Situation::default()
        };
        let status = situation.status("h", &mut Beginnings::new(), None, at(0));
        assert_eq!(status.silence().unwrap().kind, kind);
        assert_eq!(
            (status.state, status.errors.len()),
            (State::Converged, errors)
        );
    }

    #[test]
    fn a_source_that_cannot_be_asked_is_named_by_the_reason_and_offline_is_no_error() {
        check_source(Setback::Offline, "offline", 0);
        check_source(Setback::Trouble, "unreachable", 1);
        check_source(Setback::Denied, "denied", 1);
        check_source(Setback::Local, "fetcher-down", 1);
    }

    #[test]
    fn what_is_contested_is_a_condition_even_while_it_is_as_declared() {
        let situation = Situation {
            revision: Some("aa".into()),
            contested: vec![
                (
                    ResourceId::new(crate::model::Kind::File, "/etc/x"),
                    "it was corrected 5 times".into(),
                ),
                (
                    ResourceId::new(crate::model::Kind::File, "/etc/y"),
                    "it was corrected 6 times".into(),
                ),
            ],
            ..Situation::default()
        };
        let status = situation.status("h", &mut Beginnings::new(), None, at(0));
        assert_eq!(status.state, State::Converged);
        let contested = status.conditions.iter().find(|one| one.kind == "contested");
        assert_eq!(
            contested.unwrap().reason,
            "file:/etc/x: it was corrected 5 times (and 1 more)"
        );
    }

    #[test]
    fn a_pause_comes_after_what_is_wrong_and_before_drift() {
        let mut situation = Situation {
            revision: Some("aa".into()),
            paused: vec![Pause {
                resource: None,
                since: at(100),
                until: at(7300),
                by: "alice".into(),
                reason: "the database is moved".into(),
            }],
            ..Situation::default()
        };
        let status = situation.status("h", &mut Beginnings::new(), None, at(200));
        assert_eq!((status.state, status.since), (State::Paused, at(100)));
        insta::assert_snapshot!(status.conditions[0].reason, @"until 1970-01-01 02:01:40 UTC by alice: the database is moved");
        situation.failures.push(failure(Class::Host));
        assert_eq!(situation.state(), State::Degraded);
    }

    #[test]
    fn a_condition_keeps_its_beginning_while_it_lasts_and_gets_a_new_one_when_it_returns() {
        let mut beginnings = Beginnings::new();
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
