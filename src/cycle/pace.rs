//! How often this host asks its source by itself: the back-off after polls that brought nothing, kept over restarts.
//!
//! Invariant: a poll that is answered writes nothing. However often the agent is started, nobody but a person makes it ask more often
//! than once in an interval, nor while a back-off lasts.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use crate::config::{Source, SourceUrl};
use crate::cycle::Cycle;
use crate::fetch::{Lane, Trouble};
use crate::model::{Class, Failure};
use crate::report::moment;
use crate::schedule::{BackOff, Setback};
use crate::sys::files::hash_bytes;
use crate::sys::{chance, clock};

/// Under which name the record keeps the [`Silence`].
const SILENCE: &str = "silence";

/// When the agent last polled because it started, and which source. On a file system that forgets at boot.
const STARTED_MARK: &str = "/run/limpet/polled-at-start";

/// The largest such mark we read, in bytes.
const STARTED_MARK_LIMIT: u64 = 4096;

/// How far the clock may lie behind the time that was known before it is worth telling.
const CLOCK_TOLERANCE: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);

/// What the source's silence means for the next polls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Silence {
    /// Which source: a digest of how it is configured, so that another one is asked at once.
    source: String,
    /// Why the last poll brought nothing.
    failure: Failure,
    back_off: BackOff,
    /// When the wait is over, whatever is done to the clock meanwhile: one that was put back by years would wait for years.
    #[serde(skip, default = "clock::instant")]
    ends: Instant,
}

impl Silence {
    fn left(&self, now: Timestamp, instant: Instant) -> Duration {
        let at_most = self.ends.saturating_duration_since(instant);
        self.back_off.left(now).min(at_most)
    }
}

/// That the agent polled because it started.
#[derive(Debug, Serialize, Deserialize)]
struct StartedMark {
    source: String,
    at: Timestamp,
}

impl Cycle {
    /// How much longer the source is left alone, unless a person asks.
    pub fn rest_of_the_source(&self) -> Duration {
        let silence = self.silence.as_ref();
        silence.map_or(Duration::ZERO, |silence| {
            silence.left(clock::now(), clock::instant())
        })
    }

    /// Takes up the silence that an agent before us met, and shows it.
    pub(super) fn recall_silence(&mut self) {
        // What another version wrote and this one cannot read costs a poll, and no more.
        let silence: Option<Silence> = self.record.recall(SILENCE).unwrap_or_default();
        self.silence = silence
            .filter(|known| known.source == identity(&self.config.source))
            .map(|known| Silence {
                ends: clock::instant() + known.back_off.left(clock::now()),
                ..known
            });
        self.show_silence();
    }

    /// The source is another one: what the one before did means nothing.
    pub(super) fn forget_silence(&mut self) {
        self.silence = None;
        self.forget_recorded_silence();
        self.show_silence();
    }

    /// May the agent poll because it started. Says so at most once in an interval, however often it starts.
    pub(super) fn may_poll_at_start(&self) -> bool {
        let now = clock::now();
        if !self.rest_of_the_source().is_zero() {
            return false;
        }
        let source = identity(&self.config.source);
        let mark: Option<StartedMark> = match self.host.read_file(STARTED_MARK, STARTED_MARK_LIMIT)
        {
            Ok(bytes) => bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
            Err(failure) => {
                debug!("failed to read when the agent polled last, ignoring: {failure}");
                None
            }
        };
        let is_too_soon = mark.is_some_and(|mark| {
            let since = now.duration_since(mark.at);
            // A mark of the future is of a clock that was put back since: it says nothing.
            mark.source == source
                && !since.is_negative()
                && Duration::try_from(since).unwrap_or_default() < self.interval()
        });
        if is_too_soon {
            return false;
        }
        let kept = serde_json::to_vec(&StartedMark { source, at: now })
            .map_err(|error| Failure::new(Class::Bug, error.to_string()))
            .and_then(|mark| self.host.write_own_file(STARTED_MARK, &mark, 0o600));
        if let Err(failure) = kept {
            debug!("failed to write down that the agent polls, ignoring: {failure}");
        }
        true
    }

    /// The source answered.
    pub(super) fn note_answer(&mut self) {
        let Some(silence) = self.silence.take() else {
            return;
        };
        if silence.back_off.setback == Setback::Denied {
            info!("the source serves this host again");
        }
        self.forget_recorded_silence();
        self.show_silence();
    }

    /// A poll brought nothing.
    pub(super) fn note_trouble(&mut self, trouble: Trouble) {
        let setback = match trouble.lane {
            Lane::Ordinary => Setback::Trouble,
            Lane::Offline => Setback::Offline,
            Lane::Denied => Setback::Denied,
            Lane::Local => Setback::Local,
        };
        debug!("failed to poll: {}", trouble.failure);
        let now = clock::now();
        let before = self.silence.as_ref();
        let was_denied = before.is_some_and(|before| before.back_off.setback == Setback::Denied);
        let mut back_off = BackOff::after(
            before.map(|before| &before.back_off),
            setback,
            trouble.retry_after(),
            self.interval(),
            now,
            chance::draw(),
        );
        if matches!(self.config.source.url, SourceUrl::Path(_)) {
            // There is no server to be hurt.
            back_off.until = now;
        }
        if setback == Setback::Denied && !was_denied {
            let failure = &trouble.failure;
            let hint = failure.hint.as_deref().unwrap_or(
                "put it right on the server or in /etc/limpet/limpet.toml, then run 'limpet sync'",
            );
            warn!(
                "the source does not serve this host, asking it rarely from now on: {failure} (hint: {hint})"
            );
        }
        let silence = Silence {
            source: identity(&self.config.source),
            failure: trouble.failure,
            ends: clock::instant() + back_off.left(now),
            back_off,
        };
        // Being offline lasts, costs nobody anything and sets no time to wait for: it is written once. So is what this host itself
        // suffers from: an agent that starts again may ask again.
        let is_known = before.is_some_and(|before| {
            matches!(setback, Setback::Offline | Setback::Local)
                && before.back_off.setback == setback
                && before.failure == silence.failure
        });
        if !is_known && let Err(failure) = self.record.remember(SILENCE, &silence) {
            debug!("failed to record that the source is silent, ignoring: {failure}");
        }
        self.silence = Some(silence);
        self.show_silence();
    }

    fn forget_recorded_silence(&self) {
        if let Err(failure) = self.record.forget(SILENCE) {
            debug!("failed to record that the source answers, ignoring: {failure}");
        }
    }

    fn show_silence(&mut self) {
        let silence = self.silence.as_ref();
        self.situation.source = silence.map(|silence| silence.failure.clone());
        self.situation.setback = silence.map_or(Setback::default(), |known| known.back_off.setback);
        self.situation.failed_polls = silence.map_or(0, |silence| silence.back_off.failures);
    }

    /// Says whether the clock lies behind what was the time once.
    pub(super) fn look_at_the_clock(&mut self) {
        let (now, known) = (clock::now(), super::trusted_time::trusted_now(&self.record));
        let lies_behind = known.duration_since(now) > CLOCK_TOLERANCE;
        self.situation.clock = lies_behind.then(|| wrong_clock(now, known));
    }
}

/// The failure for a clock that says `now` where it has been `known` before.
fn wrong_clock(now: Timestamp, known: Timestamp) -> Failure {
    Failure::new(
        Class::Host,
        format!(
            "the clock says {}, and it was {} before: keys are judged by the latter, but certificates of servers seem not valid yet",
            moment(now),
            moment(known)
        ),
    )
    .with_hint("see 'timedatectl': set the clock, or let it be synchronised")
}

/// A digest of how the source is configured, but for how often it is polled.
fn identity(source: &Source) -> String {
    let source = Source {
        interval: Duration::ZERO,
        ..source.clone()
    };
    let digest = hash_bytes(format!("{source:?}").as_bytes());
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_put_right_does_not_make_the_source_wait_for_years() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (wrong, right, hour) = (
            at(4_000_000_000),
            at(1_790_000_000),
            Duration::from_secs(3600),
        );
        let begin = clock::instant();
        let silence = Silence {
            source: String::new(),
            failure: Failure::new(Class::Transient, "certificate expired"),
            back_off: BackOff {
                failures: 6,
                setback: Setback::Trouble,
                at: wrong,
                until: at(4_000_003_600),
            },
            ends: begin + hour,
        };
        assert_eq!(silence.left(right, begin), Duration::ZERO);
        // A clock that is put back a little.
        let little = at(4_000_000_000 - 1800);
        assert_eq!(silence.left(little, begin), hour);
        assert_eq!(silence.left(little, begin + hour / 2), hour / 2);
        assert_eq!(silence.left(little, begin + hour), Duration::ZERO);
        // Nor does a computer that slept wait once more.
        assert_eq!(silence.left(at(4_000_003_600), begin), Duration::ZERO);
    }

    #[test]
    fn a_wrong_clock_says_what_it_brings_and_what_to_do() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let failure = wrong_clock(at(12), at(1_790_000_000));
        insta::assert_snapshot!(
            format!("{failure}\nhint: {}", failure.hint.as_deref().unwrap()),
            @r"
        the clock says 1970-01-01 00:00:12 UTC, and it was 2026-09-21 14:13:20 UTC before: keys are judged by the latter, but certificates of servers seem not valid yet
        hint: see 'timedatectl': set the clock, or let it be synchronised
        "
        );
    }
}
