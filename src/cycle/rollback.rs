//! Going back: the revisions that passed, and the one that is in force instead of the trusted head.
//!
//! A revision is *good* once it passed: its checks held, or it has none and everything was as declared. A *rollback* puts a good
//! revision in force instead of the trusted head, which stays where it is: nothing older is trusted by this. A *complete* one, with
//! which everything was as declared, is preferred: what a unit did not accept would not take the place of what failed. The head is
//! *quarantined* where it was the cause, and so is every later head that declares the same here: what failed is the state, whatever
//! commit it comes in. A rollback ends when a head is trusted that declares something else, when its time is over, or by local root.
//!
//! Invariant: a rollback is on disk before the first change it brings, and what it needs is kept on this host, so that it depends on
//! no network. A quarantined revision is never put in force by itself again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::cycle::judge::{Limited, Obstacle, read_policy};
use crate::cycle::trusted_time::trusted_now;
use crate::cycle::{Cycle, InForce, Progress, allowed_removals, state};
use crate::fetch::Upstream;
use crate::git::{Hashed, ObjectId, Objects};
use crate::model::{Class, Failure};
use crate::record::history::{Note, ROLLED_BACK};
use crate::record::objects::ReadThrough;
use crate::record::{HistoryEntry, Record};
use crate::report::journal;
use crate::report::moment;
use crate::report::status::Quarantined;
use crate::sys::clock;
use crate::trust::{self, TrustedHead, Verdict, VerifiedRevision};

/// Under which name the record keeps the [`Rollback`].
const ROLLBACK: &str = "rollback";

/// The longest text that local root may give, in bytes.
const LONGEST_TEXT: usize = 500;

/// What is in force instead of the trusted head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rollback {
    /// This is.
    pub(super) to: TrustedHead,
    /// The trusted head, in hex, and the digest of what it declares here.
    from: String,
    digest: String,
    /// The head before it, where that declared the same: a crash may leave it the trusted one.
    #[serde(default)]
    before: Option<String>,
    /// The revision that was tried, where the trusted head only declares the same.
    #[serde(default)]
    tried: Option<String>,
    pub(super) cause: Cause,
    reason: String,
    since: Timestamp,
}

/// Why a host went back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Cause {
    /// It was unhealthy with the head.
    Unhealthy,
    /// The source could not be reached with the head. Nobody knows yet whether the head was the cause.
    CutOff,
    /// Local root wanted it.
    Operator {
        by: String,
        until: Option<Timestamp>,
    },
}

/// What local root asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollbackRequest {
    /// Where to: a commit's id or the beginning of it; else the last good revision before the one in force.
    pub to: Option<String>,
    /// For how long; else until a newer commit arrives.
    pub length: Option<Duration>,
    /// Why.
    pub reason: String,
    /// Who asks.
    pub by: String,
}

pub(super) use good::Good;

mod good;
mod quarantine;

/// What is kept of who asked for `what`, and why, is one line each.
pub(super) fn check_texts(what: &str, reason: &str, by: &str) -> Result<(), Failure> {
    for (name, text) in [("reason", reason), ("name", by)] {
        if text.trim().is_empty() || text.len() > LONGEST_TEXT || text.chars().any(char::is_control)
        {
            let message =
                format!("the {name} of a {what} is one line of at most {LONGEST_TEXT} bytes");
            return Err(Failure::new(Class::Host, message));
        }
    }
    Ok(())
}

impl Cycle {
    /// Takes up what an agent before us went back to.
    pub(super) fn recall_rollback(&mut self) {
        self.recall_good();
        match self.record.recall::<Rollback>(ROLLBACK) {
            // Another head is trusted since: a crash came before it could be forgotten.
            Ok(rollback) => {
                let head = self.head.as_ref();
                self.trial.rollback =
                    rollback.filter(|rollback| head.is_some_and(|head| rollback.is_from(head)));
            }
            Err(failure) => warn!("lost why this host went back, going on: {failure}"),
        }
        self.show_rollback();
    }

    /// The head of what is to be in force.
    pub(super) fn head_in_force(&self) -> Option<TrustedHead> {
        match &self.trial.rollback {
            Some(rollback) => Some(rollback.to.clone()),
            None => self.head.clone(),
        }
    }

    /// Is `in_force` what this host went back to.
    pub(super) fn is_rollback(&self, in_force: &InForce) -> bool {
        let rollback = self.trial.rollback.as_ref();
        rollback.is_some_and(|rollback| is_called(&rollback.to, &in_force.revision))
    }

    /// The revisions whose objects are kept beside those of the next head.
    pub(super) fn kept_revisions(&self) -> Vec<ObjectId> {
        let good = self.trial.good.iter().map(|good| good.head.commit);
        let rollback = self
            .trial
            .rollback
            .iter()
            .map(|rollback| rollback.to.commit);
        let head = self.head.iter().map(|head| head.commit);
        head.chain(good).chain(rollback).collect()
    }

    /// What `head` declares for this host.
    pub(super) fn load(
        &self,
        head: &TrustedHead,
        objects: &dyn Objects,
    ) -> Result<(InForce, VerifiedRevision), Obstacle> {
        let (rendered, revision) = self.read_revision(head, objects)?;
        Ok((InForce::of(&revision, rendered.state), revision))
    }

    /// Puts the last good revision in force instead of `failed`, which is quarantined, and applies it. Where there is none, or it
    /// cannot be had any more, says so.
    pub(super) fn roll_back(
        &mut self,
        failed: &InForce,
        cause: Cause,
        reason: &str,
        progress: Progress<'_>,
    ) -> Result<(), Failure> {
        let Some(good) = self.good_before(Some(&failed.revision)).cloned() else {
            return Err(nothing_to_go_back_to());
        };
        let (mut to, revision) = self.load(&good.head, &self.objects).map_err(|obstacle| {
            let cause = obstacle.failures().first().map(ToString::to_string);
            Failure::new(
                Class::Host,
                format!(
                    "failed to roll back to revision {}: {}",
                    journal::short(&good.head.commit.to_string()),
                    cause.unwrap_or_default()
                ),
            )
        })?;
        // It was in force right before: what it removes is what the failed one brought.
        to.allowed_removals = Some(usize::MAX);
        let rollback = Rollback {
            to: good.head,
            from: failed.revision.clone(),
            digest: failed.desired.digest.clone(),
            before: None,
            tried: None,
            cause,
            reason: reason.to_owned(),
            since: clock::now(),
        };
        self.take_rollback(rollback, to, &revision)?;
        self.enforce_what_is_in_force(false, progress);
        Ok(())
    }

    /// Writes the rollback down, and puts what it goes back to in force.
    fn take_rollback(
        &mut self,
        rollback: Rollback,
        to: InForce,
        revision: &VerifiedRevision,
    ) -> Result<(), Failure> {
        self.record.remember(ROLLBACK, &rollback)?;
        self.record.settle()?;
        let reason = match &rollback.cause {
            Cause::Operator { by, .. } => format!("by {by}: {}", rollback.reason),
            _ => rollback.reason.clone(),
        };
        let detail = format!("from {}: {reason}", journal::short(&rollback.from));
        let entry = HistoryEntry::of_host(clock::now(), &to.revision, ROLLED_BACK, "done", &detail);
        let note = Note {
            subject: revision.subject().to_owned(),
            signer: revision.signer().map(ToString::to_string),
        };
        let noted = self.record.note(&entry, &note);
        self.note_unwritten(noted);
        journal::rolled_back(&to.revision, &rollback.from, &reason);
        self.trial.rollback = Some(rollback);
        self.trial.stand_in = None;
        self.end_probation();
        self.must_load = false;
        self.resting.clear();
        self.situation.failures.clear();
        self.situation.held.clear();
        self.in_force = Some(to);
        self.show_rollback();
        Ok(())
    }

    /// The source answers without the head that it could not be reached with: that was the cause, and is not tried again by itself.
    pub(super) fn blame(&mut self) {
        if let Some(rollback) = &mut self.trial.rollback
            && rollback.cause == Cause::CutOff
        {
            rollback.cause = Cause::Unhealthy;
            let written = self.record.remember(ROLLBACK, &*rollback);
            self.note_unwritten(written);
            self.show_rollback();
        }
    }

    /// The source answers again: what was undone because it did not was not the cause, and is tried again.
    pub(super) fn absolve(&mut self) {
        let is_open = |rollback: &Rollback| rollback.cause == Cause::CutOff;
        if self.trial.rollback.as_ref().is_some_and(is_open) {
            info!("the source answers again: what was undone is tried again");
            self.end_rollback();
        }
    }

    /// Local root forgives what failed, or is done with going back.
    pub(super) fn forgive(&mut self) {
        if let Some(rollback) = &self.trial.rollback {
            info!(
                "revision {} is tried again, as local root asked",
                journal::short(&rollback.from)
            );
            self.end_rollback();
        }
    }

    /// Ends a rollback that was to last for a while.
    pub(super) fn end_rollback_in_time(&mut self) {
        let until = self
            .trial
            .rollback
            .as_ref()
            .and_then(|rollback| match &rollback.cause {
                Cause::Operator { until, .. } => *until,
                _ => None,
            });
        if until.is_some_and(|until| clock::now() >= until) {
            info!("the rollback is over: its time has come");
            self.end_rollback();
        }
    }

    /// Puts the trusted head in force again.
    fn end_rollback(&mut self) {
        self.forget_rollback();
        self.resting.clear();
        self.restore();
    }

    /// Another head is trusted, or this one is tried again.
    pub(super) fn forget_rollback(&mut self) {
        if self.trial.rollback.take().is_some() {
            let forgotten = self.record.forget(ROLLBACK);
            self.note_unwritten(forgotten);
            self.show_rollback();
        }
    }

    /// Goes back because local root asks. The next cycle applies it.
    pub fn roll_back_to(&mut self, request: &RollbackRequest) -> Result<(), Failure> {
        check_texts("rollback", &request.reason, &request.by)?;
        if let Some(failure) = &self.situation.state_missing {
            return Err(failure.clone());
        }
        let head = self.head.clone().ok_or_else(|| {
            Failure::new(
                Class::Transient,
                "no revision was applied yet, so there is nothing to go back from",
            )
        })?;
        let now = clock::now();
        let until = match request.length.map(SignedDuration::try_from) {
            None => None,
            Some(length) => {
                let until = length.ok().and_then(|length| now.checked_add(length).ok());
                Some(until.ok_or_else(|| {
                    Failure::new(Class::Host, "failed to reckon the end of the rollback")
                })?)
            }
        };
        let current = self
            .in_force
            .as_ref()
            .map(|in_force| in_force.revision.clone());
        let to = match &request.to {
            None => self
                .good_before(current.as_deref())
                .map(|good| good.head.clone())
                .ok_or_else(nothing_to_go_back_to)?,
            Some(text) => self.find_head(text, &head)?,
        };
        if to.commit == head.commit {
            let message = format!(
                "revision {} is the trusted one",
                journal::short(&to.commit.to_string())
            );
            return Err(Failure::new(Class::Host, message)
                .with_hint("'limpet sync --retry' ends a rollback"));
        }
        let obstacle = |obstacle: Obstacle| {
            let cause = obstacle.failures().first().cloned();
            cause.unwrap_or_else(|| Failure::new(Class::Host, "failed to read the revision"))
        };
        let (in_force, revision) = match self.load(&to, &self.objects) {
            Ok(loaded) => loaded,
            // Not kept here: it is read from the source, and kept.
            Err(_) => {
                let client = self.reach_fetcher()?;
                let limited = Limited::new(client.as_ref());
                let through = ReadThrough::new(&self.objects, &limited)?;
                let loaded = self.load(&to, &through).map_err(obstacle)?;
                through.keep(&to.commit, &self.kept_revisions())?;
                loaded
            }
        };
        let digest = match self.is_rollback_in_force() {
            true => String::new(),
            false => self
                .in_force
                .as_ref()
                .map_or(String::new(), |known| known.desired.digest.clone()),
        };
        let rollback = Rollback {
            to,
            from: head.commit.to_string(),
            digest,
            before: None,
            tried: None,
            cause: Cause::Operator {
                by: request.by.clone(),
                until,
            },
            reason: request.reason.clone(),
            since: now,
        };
        self.take_rollback(rollback, in_force, &revision)
    }

    fn is_rollback_in_force(&self) -> bool {
        self.in_force
            .as_ref()
            .is_some_and(|in_force| self.is_rollback(in_force))
    }

    /// The head of the revision that a person calls `text`: one that is kept here, or an ancestor of the trusted one that was signed as
    /// this host demands.
    fn find_head(&self, text: &str, head: &TrustedHead) -> Result<TrustedHead, Failure> {
        let before: Option<TrustedHead> = self.record.recall(state::HEAD_BEFORE)?;
        let is_named = |head: &&TrustedHead| head.commit.to_string().starts_with(text);
        let good = self.trial.good.iter().map(|good| &good.head);
        if let Some(kept) = good.chain(&before).chain([head]).find(is_named) {
            return Ok(kept.clone());
        }
        let known = self.record.revisions_like(text)?;
        let id = match known.as_slice() {
            [only] => ObjectId::from_hex(only.as_bytes()).ok(),
            _ => ObjectId::from_hex(text.as_bytes()).ok(),
        };
        let id = id.ok_or_else(|| {
            Failure::new(
                Class::Host,
                format!("this host knows no single revision '{text}'"),
            )
            .with_hint("name it by its full id; 'limpet history' shows what was applied here")
        })?;
        let client = self.reach_fetcher()?;
        let objects = Hashed(Limited::new(client.as_ref()));
        let policy = read_policy(&self.host, &self.config)?;
        let now = trusted_now(&self.record);
        let old = match trust::verify(&objects, &policy, None, id, now) {
            Verdict::Accepted(revision) => revision.trusted_head().clone(),
            verdict => return Err(not_on_the_path(id, &verdict)),
        };
        match trust::verify(&objects, &policy, Some(&old), head.commit, now) {
            Verdict::Accepted(_) | Verdict::Unchanged => Ok(old),
            verdict => Err(not_on_the_path(id, &verdict)),
        }
    }

    pub(super) fn reach_fetcher(&self) -> Result<Box<dyn Upstream>, Failure> {
        let connect = self.connect.lock();
        let connect = connect.unwrap_or_else(std::sync::PoisonError::into_inner);
        connect()
    }

    /// What is enforced while the revision in force waits: the one that is applied.
    pub(super) fn take_stand_in(&mut self) -> Option<InForce> {
        let applied = self.applied.clone()?;
        let is_applied = |head: &TrustedHead| is_called(head, &applied.revision);
        if let Some(known) = self.trial.stand_in.take().filter(|known| applied.is(known)) {
            return Some(known);
        }
        let before: Option<TrustedHead> = self.record.recall(state::HEAD_BEFORE).ok().flatten();
        let good = self.trial.good.iter().map(|good| good.head.clone());
        let head = good.chain(before).find(is_applied)?;
        let loaded = self.load(&head, &self.objects).ok()?;
        Some(loaded.0)
    }

    /// Brings what is known between cycles up to date.
    fn show_rollback(&mut self) {
        self.situation.quarantined.clear();
        self.situation.rolled_back = None;
        let Some(rollback) = &self.trial.rollback else {
            return;
        };
        let (from, to) = (
            journal::short(&rollback.from),
            rollback.to.commit.to_string(),
        );
        let to = journal::short(&to);
        let (reason, class) = match &rollback.cause {
            Cause::Unhealthy => {
                let undone = match &rollback.tried {
                    None => format!("revision {from} was undone"),
                    Some(tried) => format!(
                        "revision {from} declares the same as {}, which was undone",
                        journal::short(tried)
                    ),
                };
                let reason = &rollback.reason;
                (
                    format!("{undone}: {reason}; {to} is in force"),
                    Class::Author,
                )
            }
            Cause::CutOff => (
                format!(
                    "revision {from} was undone: {}; {to} is in force, and the source does not answer without it, either: {from} is tried again once it does",
                    rollback.reason
                ),
                Class::Transient,
            ),
            Cause::Operator { by, until } => {
                let until = until.map_or("a newer commit arrives".to_owned(), moment);
                (
                    format!(
                        "{to} is in force instead of {from} until {until}, by {by}: {}",
                        rollback.reason
                    ),
                    Class::Host,
                )
            }
        };
        self.situation.rolled_back = Some(Failure::new(class, reason));
        if rollback.cause == Cause::Unhealthy {
            self.situation.quarantined.push(Quarantined {
                revision: rollback.from.clone(),
                reason: rollback.reason.clone(),
            });
        }
    }
}

impl InForce {
    /// What `revision` declares.
    pub(super) fn of(revision: &VerifiedRevision, desired: crate::fleet::DesiredState) -> Self {
        InForce {
            revision: revision.commit().to_string(),
            subject: revision.subject().to_owned(),
            signer: revision.signer().map(ToString::to_string),
            allowed_removals: allowed_removals(revision),
            desired,
            inputs: None,
            resources: std::cell::OnceCell::new(),
        }
    }
}

/// What `record` says is in force instead of `head`.
pub(super) fn instead_of(record: &Record, head: &TrustedHead) -> Option<TrustedHead> {
    let rollback: Rollback = record.recall(ROLLBACK).ok()??;
    rollback.is_from(head).then_some(rollback.to)
}

impl Rollback {
    /// Is it in force instead of `head`.
    fn is_from(&self, head: &TrustedHead) -> bool {
        let before = self.before.as_ref();
        is_called(head, &self.from) || before.is_some_and(|before| is_called(head, before))
    }
}

/// Is `revision`, in hex, the commit of `head`.
fn is_called(head: &TrustedHead, revision: &str) -> bool {
    ObjectId::from_hex(revision.as_bytes()).is_ok_and(|id| id == head.commit)
}

fn nothing_to_go_back_to() -> Failure {
    Failure::new(
        Class::Host,
        "there is no other revision that was good on this host, so there is nothing to go back to",
    )
    .with_hint("push a correction, or name a revision with 'limpet rollback --to'")
}

fn not_on_the_path(id: ObjectId, verdict: &Verdict) -> Failure {
    let failure = verdict.failure();
    let cause = failure
        .as_ref()
        .map_or("it is no older one".to_owned(), ToString::to_string);
    let class = failure.map_or(Class::Host, |failure| failure.class);
    Failure::new(
        class,
        format!(
            "revision {} is not on the trusted path: {cause}",
            journal::short(&id.to_string())
        ),
    )
    .with_hint(
        "only an ancestor of the trusted revision can be gone back to, signed as this host demands",
    )
}
