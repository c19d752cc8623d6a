//! When to look and when to poll: at a phase of the interval that each host keeps, so that a fleet never polls in step.
//!
//! A *tick* comes once in every interval. At each one the host is looked at; it is polled too, unless a [`BackOff`] lasts. Polls that
//! nobody asked for are made at ticks and nowhere else, so that none comes sooner than the interval would have had it, however often
//! the agent is started.
//!
//! Invariant: pure; the clock, chance and the machine's identity are passed in.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The longest wait that failures alone bring about, where the interval is not longer.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60 * 60);

/// The longest wait that a server may ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest wait where a person has to act first; the longest is [`LONGEST_BACK_OFF`].
const SLOW_LANE: Duration = Duration::from_secs(15 * 60);

/// The longest wait after trouble of this host's own, where the interval is not longer.
const LONGEST_LOCAL_WAIT: Duration = Duration::from_secs(5 * 60);

/// A clock that is put back by more than this was wrong before. One that was put forward ends every wait by itself.
const WRONG_CLOCK: SignedDuration = SignedDuration::from_hours(1);

/// What a poll met that brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setback {
    /// The server or the way to it is in trouble: more and more rarely.
    #[default]
    Trouble,
    /// This host has no network: as often as ever, for that is no load on a server.
    Offline,
    /// The server does not serve this host until a person does something: rarely.
    Denied,
    /// The fetcher of this host does not run, or died: soon again, as often as it may happen.
    Local,
}

/// How long the source is left alone after polls that brought nothing. A poll that is answered ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackOff {
    /// How many polls in a row failed; being offline is no failure.
    pub failures: u32,
    /// What the last one met.
    pub setback: Setback,
    /// When that was.
    pub at: Timestamp,
    /// Until when there is no poll that nobody asked for; not after `at` where there is nothing to wait for.
    pub until: Timestamp,
}

impl BackOff {
    /// The back-off after another poll that brought nothing, at `now`. `draw` is any number, all equally likely; `retry_after` is how
    /// long the server asked to be left alone.
    ///
    /// The wait is drawn from all between nothing and a span that doubles with every failure (*full jitter*), so that many hosts that
    /// failed together do not come back together. What the server asked for comes on top.
    pub fn after(
        before: Option<&BackOff>,
        setback: Setback,
        retry_after: Option<Duration>,
        interval: Duration,
        now: Timestamp,
        draw: u64,
    ) -> Self {
        let failures_before = before.map_or(0, |before| before.failures);
        let failures = match setback {
            // What happens on this host says nothing of the server's health.
            Setback::Offline | Setback::Local => failures_before,
            Setback::Trouble | Setback::Denied => failures_before.saturating_add(1),
        };
        let longest = LONGEST_BACK_OFF.max(interval);
        let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
        let wait = match setback {
            Setback::Offline => Duration::ZERO,
            // A fetcher that dies of what it fetched may have asked the server before.
            Setback::Local => portion(LONGEST_LOCAL_WAIT.max(interval), draw),
            Setback::Trouble => {
                let span = interval.saturating_mul(1 << failures.min(30)).min(longest);
                asked + portion(span, draw)
            }
            Setback::Denied => asked + SLOW_LANE + portion(longest - SLOW_LANE, draw),
        };
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::ZERO);
        BackOff {
            failures,
            setback,
            at: now,
            until: now.saturating_add(wait).unwrap_or(now),
        }
    }

    /// How much of the wait is left at `now`. A clock that was put back a little makes it no longer than it was; one that was put back
    /// by more was wrong when the polls failed, which may be why they did.
    pub fn left(&self, now: Timestamp) -> Duration {
        if self.at.duration_since(now) > WRONG_CLOCK {
            return Duration::ZERO;
        }
        let left = self.until.duration_since(now.max(self.at));
        Duration::try_from(left).unwrap_or_default()
    }
}

/// The part of `span` that `draw` stands for.
fn portion(span: Duration, draw: u64) -> Duration {
    let millis = (span.as_millis() * u128::from(draw)) >> 64;
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// How long until the first tick that is not before `rest` is over, where the next tick comes in `tick` and then one every `interval`.
pub fn until_tick_after(rest: Duration, tick: Duration, interval: Duration) -> Duration {
    let missing = rest.saturating_sub(tick).as_millis();
    let ticks = missing.div_ceil(interval.as_millis().max(1));
    tick.saturating_add(interval.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX)))
}

/// How far into each interval this machine polls: a hash of its id, the same after every boot.
pub fn phase(machine_id: &str, interval: Duration) -> Duration {
    let digest = ring::digest::digest(&ring::digest::SHA256, machine_id.as_bytes());
    let mut number = [0u8; 8];
    number.copy_from_slice(&digest.as_ref()[..8]);
    let interval_millis = u64::try_from(interval.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    Duration::from_millis(u64::from_be_bytes(number) % interval_millis)
}

/// How long after `now` the next tick is due: at least a tenth of the interval, so that a poll that was just made is not repeated.
pub fn until_next(now: Timestamp, interval: Duration, phase: Duration) -> Duration {
    let interval_millis = i64::try_from(interval.as_millis())
        .unwrap_or(i64::MAX)
        .max(1);
    let phase_millis = i64::try_from(phase.as_millis()).unwrap_or(0) % interval_millis;
    let into = (now.as_millisecond() - phase_millis).rem_euclid(interval_millis);
    let mut wait = interval_millis - into;
    if wait < interval_millis / 10 {
        wait += interval_millis;
    }
    Duration::from_millis(wait.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_machine_keeps_its_phase_and_two_machines_differ() {
        assert_eq!(phase("22823ba6", MINUTE), phase("22823ba6", MINUTE));
        assert_ne!(phase("22823ba6", MINUTE), phase("22823ba7", MINUTE));
        assert!(phase("22823ba6", MINUTE) < MINUTE);
    }

    #[track_caller]
    fn check(now_millis: i64, phase_secs: u64, expected_millis: u64) {
        let now = Timestamp::from_millisecond(now_millis).unwrap();
        let wait = until_next(now, MINUTE, Duration::from_secs(phase_secs));
        assert_eq!(wait, Duration::from_millis(expected_millis));
    }

    #[test]
    fn polls_fall_on_the_phase() {
        check(0, 20, 20_000);
        check(20_000, 20, 60_000);
        check(20_500, 20, 59_500);
        check(600_000, 59, 59_000);
    }

    #[test]
    fn a_poll_is_not_repeated_at_once() {
        check(16_000, 20, 64_000);
        check(14_000, 20, 6_000);
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The longest wait after `failures` failures in a row.
    #[track_caller]
    fn check_longest(failures: u32, interval_secs: u64, expected_secs: u64) {
        let interval = Duration::from_secs(interval_secs);
        let mut back_off = None;
        for _ in 0..failures {
            back_off = Some(BackOff::after(
                back_off.as_ref(),
                Setback::Trouble,
                None,
                interval,
                at(0),
                u64::MAX,
            ));
        }
        let left = back_off.unwrap().left(at(0));
        assert_eq!(left.as_millis().div_ceil(1000), u128::from(expected_secs));
    }

    #[test]
    fn the_wait_doubles_with_every_failure_up_to_an_hour() {
        check_longest(1, 60, 120);
        check_longest(2, 60, 240);
        check_longest(5, 60, 1920);
        check_longest(6, 60, 3600);
        check_longest(100, 60, 3600);
        check_longest(40, 10, 3600);
        check_longest(9, 7 * 24 * 3600, 7 * 24 * 3600);
    }

    #[test]
    fn being_offline_is_no_failure_and_no_reason_to_wait() {
        let trouble = BackOff::after(None, Setback::Trouble, None, MINUTE, at(0), 9);
        let offline = BackOff::after(Some(&trouble), Setback::Offline, None, MINUTE, at(60), 9);
        assert_eq!(
            (offline.failures, offline.left(at(60))),
            (1, Duration::ZERO)
        );
    }

    #[test]
    fn trouble_of_this_host_is_not_counted_against_the_server_and_its_wait_does_not_grow() {
        let mut back_off = BackOff::after(None, Setback::Trouble, None, MINUTE, at(0), u64::MAX);
        for _ in 0..20 {
            let before = Some(&back_off);
            back_off = BackOff::after(before, Setback::Local, None, MINUTE, at(0), u64::MAX);
            assert!(back_off.left(at(0)) < LONGEST_LOCAL_WAIT);
            assert_eq!(back_off.failures, 1);
        }
        let trouble = Setback::Trouble;
        let after = BackOff::after(Some(&back_off), trouble, None, MINUTE, at(0), u64::MAX);
        assert_eq!(after.left(at(0)).as_secs(), 239, "as after the second");
    }

    #[track_caller]
    fn check_poll(rest_secs: u64, tick_secs: u64, expected_secs: u64) {
        let wait = until_tick_after(
            Duration::from_secs(rest_secs),
            Duration::from_secs(tick_secs),
            MINUTE,
        );
        assert_eq!(wait, Duration::from_secs(expected_secs));
    }

    #[test]
    fn the_next_poll_is_at_the_first_tick_after_the_wait() {
        check_poll(0, 17, 17);
        check_poll(17, 17, 17);
        check_poll(18, 17, 77);
        check_poll(77, 17, 77);
        check_poll(3600, 17, 3617);
    }

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_allowed_nor_shorter_than_asked_for(
            setback in prop_oneof![Just(Setback::Trouble), Just(Setback::Denied)],
            failures in 0_u32..u32::MAX,
            retry_after in proptest::option::of(0_u64..u64::MAX),
            interval in 10_u64..=7 * 24 * 3600,
            now in 0_i64..4_000_000_000,
            draw in any::<u64>(),
        ) {
            let before = BackOff { failures, setback: Setback::Trouble, at: at(now), until: at(now) };
            let interval = Duration::from_secs(interval);
            let asked = retry_after.map(Duration::from_secs);
            let after = BackOff::after(Some(&before), setback, asked, interval, at(now), draw);
            let left = after.left(at(now));
            let floor = asked.unwrap_or_default().min(LONGEST_RETRY_AFTER);
            prop_assert!(left >= floor);
            prop_assert!(left <= floor + LONGEST_BACK_OFF.max(interval));
            if setback == Setback::Denied {
                prop_assert!(left >= SLOW_LANE);
            }
            prop_assert_eq!(after.failures, failures + 1);
        }

        #[test]
        fn what_is_left_only_shrinks_and_no_clock_lengthens_it(
            until in 0_i64..90_000,
            now in -4_000_000_000_i64..4_000_000_000,
            later in 0_i64..4_000_000_000,
        ) {
            let back_off = BackOff { failures: 1, setback: Setback::Trouble, at: at(0), until: at(until) };
            prop_assert!(back_off.left(at(now)) <= Duration::from_secs(until.unsigned_abs()));
            prop_assert!(back_off.left(at(now + later)) <= back_off.left(at(now)));
            prop_assert_eq!(back_off.left(at(until)), Duration::ZERO);
        }

        #[test]
        fn a_poll_comes_at_a_tick_and_after_the_wait_and_not_an_interval_later(
            rest in 0_u64..200_000_000,
            tick in 0_u64..700_000,
            interval in 10_000_u64..700_000_000,
        ) {
            let [rest, tick, interval] = [rest, tick, interval].map(Duration::from_millis);
            let wait = until_tick_after(rest, tick, interval);
            prop_assert!(wait >= rest && wait >= tick);
            prop_assert!(wait < rest.max(tick) + interval);
            prop_assert_eq!((wait - tick).as_millis() % interval.as_millis(), 0);
        }

        #[test]
        fn however_often_it_is_started_no_two_ticks_share_an_interval(
            phase in 0_u64..60_000,
            starts in proptest::collection::vec(0_i64..600_000, 1..50),
        ) {
            let phase = Duration::from_millis(phase);
            let tick = |start: i64| {
                let now = Timestamp::from_millisecond(start).unwrap();
                start + i64::try_from(until_next(now, MINUTE, phase).as_millis()).unwrap()
            };
            let mut ticks: Vec<i64> = starts.into_iter().map(tick).collect();
            ticks.sort_unstable();
            ticks.dedup();
            prop_assert!(ticks.windows(2).all(|pair| pair[1] - pair[0] >= 60_000));
        }
    }

    #[test]
    fn a_clock_before_1970_is_no_reason_to_stop_polling() {
        check(-10_000, 20, 30_000);
    }
}
