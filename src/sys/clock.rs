//! The clock: the one place that reads it.
//!
//! Everything else is told what time it is, so that it can be tested and repeated.

use std::time::Instant;

use jiff::Timestamp;

/// The point in time.
#[allow(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// A point on the clock that never jumps, for measuring durations and keeping deadlines.
#[allow(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn instant() -> Instant {
    Instant::now()
}
