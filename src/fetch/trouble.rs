//! Why a poll brought nothing, in the words the schedule needs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Class, Failure};

/// How soon it makes sense to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lane {
    /// The server, or the way to it, is in trouble: again soon, and more and more rarely.
    #[default]
    Ordinary,
    /// This host has no network, no route or no name server: it is *offline*, which is a state and no failure of anybody's.
    Offline,
    /// The server will not serve this host (401, 403, 404, an unknown host key, …) until a person does something.
    Denied,
    /// This host could not ask: the fetcher does not run, or died. No server is hurt by it.
    Local,
}

/// A poll that brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What happened, and who must act.
    pub failure: Failure,
    /// How soon to ask again.
    #[serde(default)]
    pub lane: Lane,
    /// How long the server asked to be left alone, in seconds (`Retry-After`, RFC 9110 section 10.2.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_secs: Option<u64>,
}

impl Trouble {
    /// How long the server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after_secs.map(Duration::from_secs)
    }
}

impl Trouble {
    /// The same, with a hint for the reader.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.failure.hint = Some(hint.into());
        self
    }

    /// The same in another lane.
    pub fn in_lane(mut self, lane: Lane) -> Self {
        self.lane = lane;
        self
    }

    /// What became of a poll for which several places were asked in turn, of which `troubles` tells in that order; the first is
    /// the source itself. None when nothing was asked.
    pub fn of_all(troubles: Vec<Trouble>) -> Option<Self> {
        let has = |lane| troubles.iter().any(|trouble| trouble.lane == lane);
        // One place that may come back is a reason to ask again soon; one that answered at all shows that there is a network.
        let lane = [Lane::Ordinary, Lane::Denied, Lane::Local]
            .into_iter()
            .find(|lane| has(*lane))
            .unwrap_or(Lane::Offline);
        let is_transient = troubles
            .iter()
            .any(|trouble| trouble.failure.class == Class::Transient);
        // As long as one of them may be asked there is no need to wait.
        let retry_after_secs = troubles
            .iter()
            .map(|trouble| trouble.retry_after_secs)
            .collect::<Option<Vec<u64>>>()
            .and_then(|all| all.into_iter().min());
        let messages: Vec<&str> = troubles
            .iter()
            .map(|trouble| trouble.failure.message.as_str())
            .collect();
        let message = messages.join("; ");
        let first = troubles.into_iter().next()?;
        Some(Trouble {
            failure: Failure {
                class: if is_transient {
                    Class::Transient
                } else {
                    first.failure.class
                },
                message,
                ..first.failure
            },
            lane,
            retry_after_secs,
        })
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble {
            failure,
            lane: Lane::Ordinary,
            retry_after_secs: None,
        }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        trouble.failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(message: &str, lane: Lane, retry_after_secs: Option<u64>) -> Trouble {
        let class = match lane {
            Lane::Denied => Class::Host,
            _ => Class::Transient,
        };
        Trouble {
            failure: Failure::new(class, message),
            lane,
            retry_after_secs,
        }
    }

    #[test]
    fn the_trouble_with_all_places_is_that_of_the_most_hopeful() {
        use Lane::{Denied, Offline, Ordinary};
        let check = |lanes: &[Lane]| {
            let troubles = lanes.iter().map(|lane| trouble("x", *lane, None));
            Trouble::of_all(troubles.collect()).unwrap().lane
        };
        assert_eq!(check(&[Offline, Offline]), Offline);
        assert_eq!(check(&[Denied, Offline]), Denied);
        assert_eq!(check(&[Denied, Denied]), Denied);
        assert_eq!(check(&[Denied, Offline, Ordinary]), Ordinary);
        assert_eq!(Trouble::of_all(Vec::new()), None);
    }

    #[test]
    fn all_places_are_told_and_waited_for_only_when_all_ask_for_it() {
        let first = trouble("a is full", Lane::Ordinary, Some(90)).with_hint("wait");
        let second = trouble("b is full", Lane::Ordinary, Some(60));
        let third = trouble("c is gone", Lane::Denied, None);
        let both = Trouble::of_all(vec![first.clone(), second.clone()]).unwrap();
        assert_eq!(both.failure.message, "a is full; b is full");
        assert_eq!(both.failure.hint.as_deref(), Some("wait"));
        assert_eq!(both.retry_after_secs, Some(60));
        let all = Trouble::of_all(vec![first, second, third]).unwrap();
        assert_eq!(all.retry_after_secs, None);
    }
}
