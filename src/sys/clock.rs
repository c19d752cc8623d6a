//! The clock: the one place that reads it.
//!
//! Everything else is told what time it is, so that it can be tested and repeated.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// The point in time.
#[allow(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Microseconds since the machine started, on the clock by which systemd says when a unit was started.
pub fn since_boot() -> u64 {
    let since = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A point on the clock that never jumps, for measuring durations and keeping deadlines.
#[allow(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn instant() -> Instant {
    Instant::now()
}
