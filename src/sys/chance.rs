//! Chance: the one place that draws lots.
//!
//! What must not be guessed (names of files and units) is made where it is needed; this is for what need only differ between hosts.

use ring::rand::{SecureRandom, SystemRandom};

use crate::sys::clock;

/// A number, all equally likely.
pub fn draw() -> u64 {
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => u64::from_be_bytes(bytes),
        // No kernel we run on fails here; were it to, hosts would still differ by when they ask.
        Err(_) => {
            (u64::from(clock::now().subsec_nanosecond().unsigned_abs()) << 34).wrapping_mul(3)
        }
    }
}
