//! When a look at the machine reads everything, and when the signatures of files are believed.
//!
//! A *full* look reads every file. It is what a person gets who asks where no new revision comes of it, what every start begins with
//! (memory is empty then), and what comes every so often by itself, for what no signature can show.

use std::time::{Duration, Instant};

/// The most cycles from one full look to the next, and the longest time.
const MAX_CYCLES: u32 = 60;
const MAX_TIME: Duration = Duration::from_secs(60 * 60);

/// When the last full look was.
#[derive(Debug, Default)]
pub(super) struct Look {
    last_full: Option<Instant>,
    cycles_since: u32,
}

impl Look {
    /// A cycle begins, which a person `asked` for or not: must it read everything.
    pub(super) fn is_full(&mut self, asked: bool, now: Instant) -> bool {
        let is_recent = self
            .last_full
            .is_some_and(|last| now.saturating_duration_since(last) < MAX_TIME);
        self.cycles_since += 1;
        let is_full = asked || !is_recent || self.cycles_since >= MAX_CYCLES;
        if is_full {
            self.last_full = Some(now);
            self.cycles_since = 0;
        }
        is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    #[test]
    fn the_first_look_is_full_and_so_is_what_a_person_asks_for() {
        let mut look = Look::default();
        let now = clock::instant();
        assert!(look.is_full(false, now));
        assert!(!look.is_full(false, now));
        assert!(look.is_full(true, now));
        assert!(!look.is_full(false, now));
    }

    #[test]
    fn a_full_look_comes_after_an_hour_and_after_so_many_cycles() {
        let mut look = Look::default();
        let start = clock::instant();
        assert!(look.is_full(false, start));
        assert!(!look.is_full(false, start + MAX_TIME - Duration::from_secs(1)));
        assert!(look.is_full(false, start + MAX_TIME));

        let full = (0..3 * MAX_CYCLES).filter(|_| look.is_full(false, start + MAX_TIME));
        assert_eq!(full.count(), 3);
    }
}
