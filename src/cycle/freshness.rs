//! Is what this host trusts still news? A server that shows nobody the latest revision freezes a fleet without breaking a signature.
//!
//! Time counts from when this host first saw a new revision that it trusts, and not from any date in a commit. Whoever wants to tell
//! "nothing changed" from "somebody hides it" has a key of its own make a commit now and then: a heartbeat.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::cycle::Cycle;
use crate::cycle::trusted_time::trusted_now;
use crate::git::ObjectId;
use crate::model::{Class, Failure};
use crate::report::moment;

/// Under which name the record keeps the [`News`].
const NEWS: &str = "news";

/// The last revision that was new and trusted.
#[derive(Debug, Serialize, Deserialize)]
struct News {
    /// Its commit, in hex.
    revision: String,
    /// When it was first seen.
    at: Timestamp,
}

impl Cycle {
    /// The tip `id` is trusted. It is news only once, however often it is looked at.
    pub(super) fn note_news(&mut self, id: ObjectId) {
        let revision = id.to_string();
        let known: Option<News> = self.record.recall(NEWS).unwrap_or_default();
        if known.is_some_and(|known| known.revision == revision) {
            return;
        }
        let at = trusted_now(&self.record);
        let written = self.record.remember(NEWS, &News { revision, at });
        self.note_unwritten(written);
    }

    /// Says whether it is too long ago that something new was trusted.
    pub(super) fn look_at_freshness(&mut self) {
        let before = self.situation.stale.take();
        let (Some(max_age), Some(head)) = (self.config.trust.max_age, &self.head) else {
            return;
        };
        let head = head.commit;
        let now = trusted_now(&self.record);
        let news: Option<News> = self.record.recall(NEWS).unwrap_or_default();
        let Some(News { at: news_at, .. }) = news else {
            // A host that was enrolled before anybody asked.
            self.note_news(head);
            return;
        };
        let age = now.duration_since(news_at);
        if age.is_negative() || age.unsigned_abs() <= max_age {
            return;
        }
        let failure = stale(news_at, max_age);
        if before.is_none() {
            warn!("{failure}");
        }
        self.situation.stale = Some(failure);
    }
}

fn stale(news_at: Timestamp, max_age: std::time::Duration) -> Failure {
    let max_age = jiff::SignedDuration::try_from(max_age).unwrap_or(jiff::SignedDuration::MAX);
    Failure::new(
        Class::Refused,
        format!(
            "no new revision was trusted since {}, which is longer than trust.max_age ({max_age:#}): the source may be kept from showing it",
            moment(news_at)
        ),
    )
    .with_hint(
        "compare the branch with a maintainer's own clone; where nothing was to change, a signed empty commit is news enough",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_host_says_since_when_and_what_to_do() {
        let failure = stale(
            Timestamp::UNIX_EPOCH,
            std::time::Duration::from_secs(93_600),
        );
        insta::assert_snapshot!(failure, @"no new revision was trusted since 1970-01-01 00:00:00 UTC, which is longer than trust.max_age (26h): the source may be kept from showing it");
    }
}
