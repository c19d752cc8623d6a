//! A resource that is changed back again and again by somebody else, and for how long limpet leaves it alone.
//!
//! A *correction* is a change to a resource that had drifted. A resource is *contested* once it was corrected [`FREE`] times in a row,
//! each time soon after the time before. From then on its corrections rest, longer after every one, and what they would restart rests
//! with them. It is no longer contested after it stayed as declared for a while.
//!
//! Invariant: pure. The time of day comes in; one that was put back never makes anything rest longer.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How many corrections in a row are made without resting.
const FREE: u32 = 5;

/// Two corrections that lie further apart have nothing to do with each other, as long as nothing rests.
const CALM: SignedDuration = SignedDuration::from_hours(2);

/// The first rest; doubled with every correction.
const FIRST_REST: Duration = Duration::from_secs(10 * 60);

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(12 * 60 * 60);

/// The corrections of one resource, of late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contest {
    /// How many in a row.
    pub corrections: u32,
    /// When the first of them was.
    pub since: Timestamp,
    /// When the last one was.
    pub last: Timestamp,
    /// What is known of the other side, for people; nothing before it was looked for.
    #[serde(default)]
    pub other_side: Option<String>,
}

impl Contest {
    /// After another correction at `now`.
    pub fn corrected(before: Option<&Contest>, now: Timestamp) -> Self {
        match before.filter(|before| !before.is_over(now)) {
            Some(before) => Contest {
                corrections: before.corrections.saturating_add(1),
                last: now,
                ..before.clone()
            },
            None => Contest {
                corrections: 1,
                since: now,
                last: now,
                other_side: None,
            },
        }
    }

    /// Was it corrected too often.
    pub fn is_contested(&self) -> bool {
        self.corrections >= FREE
    }

    /// Is it left alone at `now`.
    pub fn rests(&self, now: Timestamp) -> bool {
        self.last <= now && now < self.rests_until()
    }

    /// Until when it is left alone; not after the last correction where there is nothing to wait for.
    pub fn rests_until(&self) -> Timestamp {
        self.last.saturating_add(self.rest()).unwrap_or(self.last)
    }

    /// Did it stay as declared for so long that what was before means nothing any more. A clock that was put back means that, too.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now < self.last || now.duration_since(self.rests_until()) >= CALM
    }

    fn rest(&self) -> SignedDuration {
        let Some(doublings) = self.corrections.checked_sub(FREE) else {
            return SignedDuration::ZERO;
        };
        let rest = FIRST_REST.saturating_mul(1 << doublings.min(16));
        SignedDuration::try_from(rest.min(LONGEST_REST)).unwrap_or(SignedDuration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// After corrections at the given minutes.
    fn corrected(minutes: &[i64]) -> Contest {
        let mut contest = None;
        for minute in minutes {
            contest = Some(Contest::corrected(contest.as_ref(), at(minute * 60)));
        }
        contest.unwrap()
    }

    #[test]
    fn a_few_corrections_are_made_at_once_and_then_they_rest_longer_and_longer() {
        let few = corrected(&[0, 1, 2, 3]);
        assert!(!few.is_contested() && !few.rests(at(181)));
        let rest = |minutes: &[i64]| {
            let contest = corrected(minutes);
            assert!(contest.is_contested());
            (contest.rests_until().as_second() - contest.last.as_second()) / 60
        };
        assert_eq!(rest(&[0, 1, 2, 3, 4]), 10);
        assert_eq!(rest(&[0, 1, 2, 3, 4, 14]), 20);
        assert_eq!(rest(&[0, 1, 2, 3, 4, 14, 34]), 40);
        let many: Vec<i64> = (0..40).collect();
        assert_eq!(rest(&many), 720);
    }

    #[test]
    fn corrections_that_lie_apart_are_no_contest() {
        let daily = corrected(&[0, 1440, 2880, 4320, 5760, 7200]);
        assert_eq!(daily.corrections, 1);
        let hourly = corrected(&[0, 60, 120, 180, 240]);
        assert!(hourly.is_contested());
        assert_eq!(hourly.since, at(0));
    }

    #[test]
    fn calm_after_the_rest_ends_it() {
        let contest = corrected(&[0, 1, 2, 3, 4]);
        let end_of_rest = 14 * 60;
        assert!(contest.rests(at(end_of_rest - 1)) && !contest.rests(at(end_of_rest)));
        assert!(!contest.is_over(at(end_of_rest + 7199)));
        assert!(contest.is_over(at(end_of_rest + 7200)));
        let later = Contest::corrected(Some(&contest), at(end_of_rest + 7200));
        assert_eq!(later.corrections, 1);
    }

    proptest! {
        #[test]
        fn whatever_the_clock_does_nothing_rests_longer_than_the_longest_rest(
            times in proptest::collection::vec(-4_000_000_000_i64..4_000_000_000, 1..60),
            now in -4_000_000_000_i64..4_000_000_000,
        ) {
            let mut contest = None;
            for time in times {
                contest = Some(Contest::corrected(contest.as_ref(), at(time)));
            }
            let contest = contest.unwrap();
            let left = contest.rests_until().duration_since(at(now));
            prop_assert!(!contest.rests(at(now)) || left <= SignedDuration::from_hours(12));
            prop_assert!(!contest.rests(contest.last) || contest.is_contested());
            prop_assert!(!(contest.rests(at(now)) && contest.is_over(at(now))));
        }
    }
}
