//! Which refusal was told last: a server that offers one thing and then another, over and over, says nothing new by that.

use std::time::{Duration, Instant};

use crate::model::Failure;

/// After how long the same refusal is news again.
const AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// What the journal and the history know of refusals since something new was trusted.
#[derive(Debug, Default)]
pub(super) struct Telling {
    last: Option<(Failure, Instant)>,
    /// It was told that something is refused, and not yet that nothing is any more.
    is_open: bool,
}

impl Telling {
    /// Is `refusal` to be told at `now`; then it counts as told.
    pub(super) fn begin(&mut self, refusal: &Failure, now: Instant) -> bool {
        let is_known = self.last.as_ref().is_some_and(|(told, at)| {
            told == refusal && now.saturating_duration_since(*at) < AGAIN
        });
        if !is_known {
            self.last = Some((refusal.clone(), now));
            self.is_open = true;
        }
        !is_known
    }

    /// Is it to be told that nothing is refused any more.
    pub(super) fn end(&mut self) -> bool {
        std::mem::take(&mut self.is_open)
    }

    /// Something new is trusted: what is refused from now on is news.
    pub(super) fn start_anew(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Class;
    use crate::sys::clock;

    #[test]
    fn the_same_refusal_is_told_once_a_day_and_ends_once() {
        let mut telling = Telling::default();
        let one = Failure::new(Class::Refused, "refused revision 1");
        let two = Failure::new(Class::Refused, "refused revision 2");
        let start = clock::instant();
        assert!(telling.begin(&one, start));
        assert!(telling.end());
        assert!(!telling.begin(&one, start + AGAIN / 2));
        assert!(!telling.end());
        assert!(telling.begin(&two, start));
        assert!(telling.end());
        assert!(!telling.begin(&two, start + AGAIN / 2));
        assert!(telling.begin(&two, start + AGAIN));
        telling.start_anew();
        assert!(telling.begin(&two, start + AGAIN));
    }
}
