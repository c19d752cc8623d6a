//! Why a poll brought nothing, in the words the schedule needs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Failure;

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
