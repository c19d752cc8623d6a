//! When to poll: at a phase of the interval that each host keeps, so that a fleet never polls in step.
//!
//! Invariant: pure; the clock and the machine's identity are passed in.

use std::time::Duration;

use jiff::Timestamp;

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

/// How long after `now` the next poll is due: at least a tenth of the interval, so that a poll that was just made is not repeated.
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

    #[test]
    fn a_clock_before_1970_is_no_reason_to_stop_polling() {
        check(-10_000, 20, 30_000);
    }
}
