//! How fast a download has to be to keep its place among the few that run at a time.
//!
//! One that is too slow is cut off, not given up: it goes on where it was, when its turn comes again.
//!
//! Invariant: pure. Whoever sends a byte now and then is cut off within two of its minutes.

use std::time::{Duration, Instant};

/// Over how long the speed is looked at.
const WINDOW: Duration = Duration::from_secs(60);

/// How much has to arrive in that time: what a bad radio link can do.
const FEWEST_BYTES: u64 = 64 << 10;

/// How long one download may take in a row.
const LONGEST: Duration = Duration::from_secs(6 * 60 * 60);

/// How a download comes along.
#[derive(Debug)]
pub(super) struct Pace {
    begun: Instant,
    window: Instant,
    bytes: u64,
}

impl Pace {
    /// Of one that begins `now`.
    pub(super) fn new(now: Instant) -> Self {
        Pace {
            begun: now,
            window: now,
            bytes: 0,
        }
    }

    /// Notes that `bytes` more are there `now`; says why it does not go on, if it does not.
    pub(super) fn note(&mut self, bytes: usize, now: Instant) -> Result<(), String> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if now.saturating_duration_since(self.begun) > LONGEST {
            let hours = LONGEST.as_secs() / 3600;
            return Err(format!("it took longer than {hours} hours"));
        }
        let passed = now.saturating_duration_since(self.window);
        if passed < WINDOW {
            return Ok(());
        }
        // What came late is not measured against the minutes that it came in.
        if self.bytes < FEWEST_BYTES {
            return Err(format!(
                "only {} bytes came in {} s, less than {} KiB a minute",
                self.bytes,
                passed.as_secs(),
                FEWEST_BYTES >> 10
            ));
        }
        self.window = now;
        self.bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many seconds it is cut off, and why, when `bytes` come every `seconds`.
    fn cut_off(bytes: usize, seconds: u64) -> Option<(u64, String)> {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        (1..)
            .map(|number| number * seconds)
            .take_while(|after| *after <= 24 * 60 * 60)
            .find_map(|after| {
                let noted = pace.note(bytes, begun + Duration::from_secs(after));
                noted.err().map(|why| (after, why))
            })
    }

    #[test]
    fn a_byte_now_and_then_is_cut_off_within_two_minutes() {
        let (after, why) = cut_off(1, 1).unwrap();
        assert_eq!(after, 60);
        assert_eq!(why, "only 60 bytes came in 60 s, less than 64 KiB a minute");
        assert!(cut_off(1, 59).unwrap().0 <= 120);
        assert_eq!(cut_off(1000, 1).unwrap().0, 60);
    }

    #[test]
    fn what_comes_along_goes_on_for_hours_and_no_longer() {
        for (bytes, seconds) in [(2000, 1), (70_000, 59), (100_000_000, 1)] {
            let (after, why) = cut_off(bytes, seconds).unwrap();
            assert!(after > 6 * 60 * 60, "{bytes} {seconds}: {after} {why}");
            assert_eq!(why, "it took longer than 6 hours");
        }
    }
}
