//! Pauses: what an operator keeps limpet from changing, for a time.
//!
//! While the whole host is paused nothing on it is changed; polling and judging go on, and a plan shows what would be. A paused
//! resource is looked at and not touched, the others go on.
//!
//! Invariant: a pause ends by itself. Its end is a point in time; where the clock was put back to before its beginning, what this
//! boot has lasted counts, so that no wrong clock keeps a host paused for longer than was asked for in one boot.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use crate::cycle::{BOOT_ID, Cycle};
use crate::document::nearest;
use crate::model::{Class, Failure, ResourceId};
use crate::record::history::{PAUSED, RESUMED};
use crate::record::{HistoryEntry, Record};
use crate::report::moment;
use crate::report::status::Pause;
use crate::sys::{Host, clock};

/// The longest pause: a host that nobody looks after for longer is not paused, but forgotten.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The longest reason and name of a person, in bytes.
const LONGEST_TEXT: usize = 500;

/// Under which name the record keeps the pauses.
const PAUSES: &str = "pauses";

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseRequest {
    /// What; nothing means the whole host.
    pub resources: Vec<ResourceId>,
    /// For how long; more than nothing and at most [`LONGEST_PAUSE`].
    pub length: Duration,
    /// Why.
    pub reason: String,
    /// Who asks.
    pub by: String,
}

/// A pause, with what it takes to end it whatever becomes of the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptPause {
    #[serde(flatten)]
    pause: Pause,
    /// When it was set within the boot; none where the machine has no such clock.
    set: Option<BootTime>,
}

/// A point in time within one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BootTime {
    boot: String,
    uptime_secs: u64,
}

impl BootTime {
    fn read(host: &Host, boot: Option<String>) -> Option<Self> {
        if !host.is_running_system() {
            return None;
        }
        let text = host.read_file("/proc/uptime", 256).ok()??;
        let text = String::from_utf8(text).ok()?;
        let seconds = text.split(['.', ' ']).next()?.parse().ok()?;
        Some(BootTime {
            boot: boot?,
            uptime_secs: seconds,
        })
    }
}

impl KeptPause {
    /// How long it still lasts.
    fn left(&self, now: Timestamp, boot_time: Option<&BootTime>) -> Duration {
        let length = self.pause.until.duration_since(self.pause.since);
        let by_clock = self.pause.until.duration_since(now.max(self.pause.since));
        let length = Duration::try_from(length).unwrap_or_default();
        let by_clock = Duration::try_from(by_clock).unwrap_or_default();
        let is_clock_wrong = now < self.pause.since;
        let passed = boot_time.map_or(0, |now| match &self.set {
            Some(set) if set.boot == now.boot => now.uptime_secs.saturating_sub(set.uptime_secs),
            // In a later boot at least all that it has lasted. A container has the uptime of the computer below it, so it counts only
            // where there is nothing better.
            _ if is_clock_wrong => now.uptime_secs,
            _ => 0,
        });
        by_clock.min(length.saturating_sub(Duration::from_secs(passed)))
    }
}

impl Cycle {
    /// Takes up the pauses that were set before this agent started.
    pub(super) fn recall_pauses(&mut self) {
        match self.record.recall(PAUSES) {
            Ok(pauses) => self.pauses = pauses.unwrap_or_default(),
            // A host that is not enforced at all would be worse.
            Err(failure) => warn!("lost what was paused, going on: {failure}"),
        }
        self.end_pauses();
    }

    /// Ends the pauses whose time is over.
    pub(super) fn end_pauses(&mut self) {
        if self.pauses.is_empty() {
            return;
        }
        let (now, boot_time) = (clock::now(), self.boot_time());
        let (lasting, over): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pauses)
            .into_iter()
            .partition(|kept| !kept.left(now, boot_time.as_ref()).is_zero());
        self.pauses = lasting;
        if !over.is_empty() {
            for kept in &over {
                info!(limpet_reason = %kept.pause.reason, "the pause of {} is over", subject(&kept.pause));
            }
            let written = self
                .keep_pauses()
                .and_then(|()| self.enter_history(RESUMED, &over, "its time was over"));
            if let Err(failure) = written {
                warn!("failed to record the end of a pause, ignoring: {failure}");
            }
        }
        self.show_pauses();
    }

    /// Is the whole host paused.
    pub(super) fn is_paused(&self) -> bool {
        is_host_among(&self.pauses)
    }

    /// The resources that are paused.
    pub(super) fn paused_resources(&self) -> BTreeSet<ResourceId> {
        resources_among(&self.pauses)
    }

    /// How long until the first pause ends; none when nothing is paused.
    pub fn next_end_of_a_pause(&self) -> Option<Duration> {
        let (now, boot_time) = (clock::now(), self.boot_time());
        self.pauses
            .iter()
            .map(|kept| kept.left(now, boot_time.as_ref()))
            .min()
    }

    /// Pauses the host or some of its resources from now on. A pause of the same thing is replaced.
    pub fn pause(&mut self, request: &PauseRequest) -> Result<(), Failure> {
        check_request(request)?;
        let known = self.pausable();
        if let Some(unknown) = request.resources.iter().find(|id| !known.contains(id)) {
            return Err(unknown_resource(unknown, &known));
        }
        let since = clock::now();
        let length = SignedDuration::try_from(request.length).unwrap_or(SignedDuration::MAX);
        let until = since.checked_add(length).map_err(|error| {
            Failure::new(
                Class::Host,
                format!("failed to reckon the end of the pause: {error}"),
            )
            .with_hint("see 'timedatectl': is the clock right?")
        })?;
        let set = self.boot_time();
        let kept = |resource: Option<ResourceId>| KeptPause {
            pause: Pause {
                resource,
                since,
                until,
                by: request.by.clone(),
                reason: request.reason.clone(),
            },
            set: set.clone(),
        };
        let new: Vec<KeptPause> = match request.resources.is_empty() {
            true => vec![kept(None)],
            false => request
                .resources
                .iter()
                .cloned()
                .map(|id| kept(Some(id)))
                .collect(),
        };
        let before = self.pauses.clone();
        self.pauses.retain(|old| {
            !new.iter()
                .any(|new| new.pause.resource == old.pause.resource)
        });
        self.pauses.extend(new.iter().cloned());
        self.pauses
            .sort_by(|a, b| a.pause.resource.cmp(&b.pause.resource));
        if let Err(failure) = self.keep_pauses() {
            self.pauses = before;
            return Err(failure);
        }
        for kept in &new {
            info!(
                limpet_reason = %request.reason,
                "paused {} until {} by {}: {}",
                subject(&kept.pause),
                moment(until),
                request.by,
                request.reason
            );
        }
        self.enter_history(PAUSED, &new, &request.reason)?;
        self.show_pauses();
        Ok(())
    }

    /// Ends the pause of the host, or of some of its resources. Where nothing at all is paused, there is nothing to end.
    pub fn resume(&mut self, resources: &[ResourceId], by: &str) -> Result<(), Failure> {
        if self.pauses.is_empty() && resources.is_empty() {
            return Ok(());
        }
        let is_paused = |id: Option<&ResourceId>| {
            self.pauses
                .iter()
                .any(|kept| kept.pause.resource.as_ref() == id)
        };
        if resources.is_empty() && !is_paused(None) {
            return Err(Failure::new(
                Class::Host,
                format!("the host is not paused, only {}", self.paused_names()),
            )
            .with_hint(format!(
                "'limpet resume {}' resumes that",
                self.paused_names().replace(',', "")
            )));
        }
        if let Some(id) = resources.iter().find(|id| !is_paused(Some(id))) {
            let failure = Failure::new(Class::Host, format!("{id} is not paused"));
            return Err(match is_paused(None) {
                true => failure.with_hint("the whole host is: end that with 'limpet resume'"),
                false if self.pauses.is_empty() => {
                    failure.with_hint("nothing is paused on this host")
                }
                false => failure.with_hint(format!("paused are: {}", self.paused_names())),
            });
        }
        let is_ended = |kept: &KeptPause| match &kept.pause.resource {
            None => resources.is_empty(),
            Some(id) => resources.contains(id),
        };
        let before = self.pauses.clone();
        let (ended, lasting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pauses)
            .into_iter()
            .partition(is_ended);
        self.pauses = lasting;
        if let Err(failure) = self.keep_pauses() {
            self.pauses = before;
            return Err(failure);
        }
        for kept in &ended {
            info!("resumed {} by {by}", subject(&kept.pause));
        }
        self.enter_history(RESUMED, &ended, &format!("by {by}"))?;
        self.show_pauses();
        Ok(())
    }

    /// What can be paused: what is declared, and what was and is still owned.
    fn pausable(&self) -> BTreeSet<ResourceId> {
        let declared = self
            .in_force
            .iter()
            .flat_map(|in_force| in_force.desired.resource_ids());
        let owned = self.record.inventory().unwrap_or_else(|failure| {
            debug!("failed to read the inventory, ignoring: {failure}");
            Vec::new()
        });
        let owned = owned.into_iter().map(|entry| entry.resource);
        declared.cloned().chain(owned).collect()
    }

    fn paused_names(&self) -> String {
        let names: Vec<String> = self
            .pauses
            .iter()
            .map(|kept| subject(&kept.pause))
            .collect();
        names.join(", ")
    }

    fn keep_pauses(&self) -> Result<(), Failure> {
        match self.pauses.is_empty() {
            true => self.record.forget(PAUSES),
            false => self.record.remember(PAUSES, &self.pauses),
        }
    }

    fn enter_history(
        &mut self,
        action: &str,
        pauses: &[KeptPause],
        detail: &str,
    ) -> Result<(), Failure> {
        let revision = self.situation.revision.clone().unwrap_or_default();
        let at = clock::now();
        let lines: Vec<HistoryEntry> = pauses
            .iter()
            .map(|kept| HistoryEntry {
                at,
                revision: revision.clone(),
                resource: kept.pause.resource.clone(),
                action: action.to_owned(),
                reason: String::new(),
                drift: false,
                outcome: "done".to_owned(),
                detail: detail.to_owned(),
                diff: None,
            })
            .collect();
        self.record.conclude(&revision, &[], &[], &[], &lines)
    }

    fn show_pauses(&mut self) {
        self.situation.paused = self.pauses.iter().map(|kept| kept.pause.clone()).collect();
    }

    fn boot_time(&self) -> Option<BootTime> {
        boot_time(&self.host, &self.record)
    }
}

fn boot_time(host: &Host, record: &Record) -> Option<BootTime> {
    let boot = record.recall(BOOT_ID).ok().flatten();
    BootTime::read(host, boot)
}

/// The pauses that last, for those who look beside an agent.
pub(super) fn lasting(host: &Host, record: &Record) -> Result<Vec<KeptPause>, Failure> {
    let mut pauses: Vec<KeptPause> = record.recall(PAUSES)?.unwrap_or_default();
    let (now, boot_time) = (clock::now(), boot_time(host, record));
    pauses.retain(|kept| !kept.left(now, boot_time.as_ref()).is_zero());
    Ok(pauses)
}

/// Is the whole host among what is paused.
pub(super) fn is_host_among(pauses: &[KeptPause]) -> bool {
    pauses.iter().any(|kept| kept.pause.resource.is_none())
}

/// The resources among what is paused.
pub(super) fn resources_among(pauses: &[KeptPause]) -> BTreeSet<ResourceId> {
    pauses
        .iter()
        .filter_map(|kept| kept.pause.resource.clone())
        .collect()
}

fn check_request(request: &PauseRequest) -> Result<(), Failure> {
    let wrong = |message: &str, hint: &str| Err(Failure::new(Class::Host, message).with_hint(hint));
    let is_unfit = |text: &str| {
        text.trim().is_empty() || text.len() > LONGEST_TEXT || text.chars().any(char::is_control)
    };
    if request.length.is_zero() || request.length > LONGEST_PAUSE {
        wrong(
            "a pause lasts at least a second and at most 30 days",
            "a host that shall stay as it is for longer takes '[apply] mode = \"report\"' in its configuration",
        )
    } else if is_unfit(&request.reason) {
        wrong(
            "a pause needs a reason of one line and at most 500 bytes",
            "say with --reason what the next person should know",
        )
    } else if is_unfit(&request.by) {
        wrong(
            "a pause needs the name of who asks for it",
            "leave SUDO_USER as sudo sets it",
        )
    } else {
        Ok(())
    }
}

fn unknown_resource(id: &ResourceId, known: &BTreeSet<ResourceId>) -> Failure {
    let failure = Failure::new(
        Class::Host,
        format!("{id} is not declared for this host, so there is nothing to pause"),
    );
    let names: Vec<String> = known.iter().map(ToString::to_string).collect();
    match nearest(&id.to_string(), names.iter().map(String::as_str)) {
        Some(near) => failure.with_hint(format!("did you mean '{near}'?")),
        None => failure.with_hint("see 'limpet render --host NAME' for what is declared"),
    }
}

/// What a pause is of, for people.
fn subject(pause: &Pause) -> String {
    match &pause.resource {
        Some(id) => id.to_string(),
        None => "this host".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn boot_time(boot: &str, uptime_secs: u64) -> BootTime {
        BootTime {
            boot: boot.to_owned(),
            uptime_secs,
        }
    }

    const SET: i64 = 1_790_000_000;

    /// A pause of two hours, set at [`SET`], when boot `a` had lasted for 1000 s.
    fn kept() -> KeptPause {
        KeptPause {
            pause: Pause {
                resource: None,
                since: at(SET),
                until: at(SET + 7200),
                by: "alice".to_owned(),
                reason: "a test".to_owned(),
            },
            set: Some(boot_time("a", 1000)),
        }
    }

    #[track_caller]
    fn check(now: i64, boot: &str, uptime_secs: u64, expected_secs: u64) {
        let left = kept().left(at(now), Some(&boot_time(boot, uptime_secs)));
        assert_eq!(left, Duration::from_secs(expected_secs));
    }

    #[test]
    fn a_pause_ends_by_the_clock_in_this_boot_and_the_next() {
        check(SET, "a", 1000, 7200);
        check(SET + 100, "a", 1100, 7100);
        check(SET + 7200, "a", 8200, 0);
        check(SET + 600, "b", 30, 6600);
        check(SET + 7200, "b", 3000, 0);
        // A container boots while the computer below it has long been up.
        check(SET + 600, "b", 900_000, 6600);
    }

    #[test]
    fn a_clock_at_1970_does_not_keep_a_host_paused() {
        check(12, "b", 12, 7188);
        check(7200, "b", 7200, 0);
        check(0, "a", 8200, 0);
        // Set right again, the clock decides.
        check(SET + 600, "b", 60, 6600);
    }

    proptest! {
        #[test]
        fn no_pause_is_longer_than_was_asked_for(
            now in -4_000_000_000_i64..8_000_000_000,
            is_same_boot in any::<bool>(),
            uptime in 0_u64..100_000,
        ) {
            let boot = if is_same_boot { "a" } else { "b" };
            let left = kept().left(at(now), Some(&boot_time(boot, uptime)));
            prop_assert!(left <= Duration::from_secs(7200));
            let later = kept().left(at(now), Some(&boot_time(boot, uptime + 8200)));
            prop_assert!(later.is_zero() || (!is_same_boot && now >= SET));
            prop_assert!(kept().left(at(SET + 7200), Some(&boot_time(boot, uptime))).is_zero());
        }
    }

    #[track_caller]
    fn check_refused(length_secs: u64, reason: &str, by: &str, part: &str) {
        let failure = check_request(&PauseRequest {
            resources: Vec::new(),
            length: Duration::from_secs(length_secs),
            reason: reason.to_owned(),
            by: by.to_owned(),
        })
        .unwrap_err();
        assert!(failure.message.contains(part), "{failure}");
    }

    #[test]
    fn what_is_no_pause_is_refused() {
        check_refused(0, "a test", "alice", "at least a second");
        check_refused(31 * 24 * 3600, "a test", "alice", "at most 30 days");
        check_refused(60, " ", "alice", "a reason");
        check_refused(60, "two\nlines", "alice", "a reason");
        check_refused(60, &"x".repeat(501), "alice", "a reason");
        check_refused(60, "a test", "", "the name of who asks");
    }
}
