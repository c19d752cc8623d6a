//! The words of the control socket, `/run/limpet/control.sock`: one JSON object a line, a request and its replies.
//!
//! Invariant: a line is at most [`MAX_LINE_BYTES`] long, whoever wrote it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::model::{Class, Failure, ResourceId};
use crate::report::explanation::Explanation;
use crate::report::history::History;
use crate::report::preview::Preview;
use crate::report::status::Status;

/// The longest line either side accepts, in bytes. Plans with their diffs are the longest.
pub const MAX_LINE_BYTES: u64 = 16 << 20;

/// The longest request the agent accepts, in bytes.
pub const MAX_REQUEST_BYTES: u64 = 64 << 10;

/// What a client may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The status as it is now.
    Status,
    /// What would change now.
    Plan,
    /// What was done on this host.
    History {
        /// How many runs.
        limit: usize,
        /// Only this revision or resource, with diffs.
        about: Option<String>,
    },
    /// Why the host, or a resource of it, is declared as it is.
    Why {
        /// `kind:name`, or a bare name; none for the host.
        resource: Option<String>,
    },
    /// Poll now and apply; only uid 0 may ask.
    Sync {
        /// Send progress until it is applied or refused.
        wait: bool,
        /// Let what is held through, this once.
        allow_removals: bool,
        /// Try a quarantined revision again.
        retry: bool,
        /// Who asks, by the name people know.
        #[serde(default)]
        by: String,
    },
    /// Go back to a revision that was good; only uid 0 may ask. Answered with the status once it is applied.
    Rollback {
        /// To which; else the last good one before the one in force.
        to: Option<String>,
        /// For how long; else until a newer commit arrives.
        for_secs: Option<u64>,
        /// Why.
        reason: String,
        /// Who asks, by the name people know.
        by: String,
    },
    /// Trust this commit because local root says so; only uid 0 may ask. Answered with the status once it is applied.
    Trust {
        /// Its full id.
        commit: String,
        /// Why.
        reason: String,
        /// Who asks, by the name people know.
        by: String,
    },
    /// Change nothing on the host, or none of some resources, for a time; only uid 0 may ask. Answered with the status.
    Pause {
        /// What; nothing means the whole host.
        resources: Vec<ResourceId>,
        /// For how long.
        for_secs: u64,
        /// Why.
        reason: String,
        /// Who asks, by the name people know.
        by: String,
    },
    /// End a pause before its time; only uid 0 may ask. Answered with the status.
    Resume {
        /// Of what; nothing means the whole host.
        resources: Vec<ResourceId>,
        /// Who asks.
        by: String,
    },
}

impl Request {
    /// Does it change anything; only root may.
    pub fn is_change(&self) -> bool {
        match self {
            Request::Status | Request::Plan | Request::History { .. } | Request::Why { .. } => {
                false
            }
            Request::Sync { .. }
            | Request::Rollback { .. }
            | Request::Trust { .. }
            | Request::Pause { .. }
            | Request::Resume { .. } => true,
        }
    }
}

/// What the agent answers; `Progress` any number of times, then one of the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// What is being done.
    Progress {
        /// For people.
        message: String,
    },
    /// The status.
    Status {
        /// The whole of it.
        status: Box<Status>,
    },
    /// The plan.
    Plan {
        /// The whole of it.
        plan: Box<Preview>,
    },
    /// The history.
    History {
        /// The whole of it.
        history: Box<History>,
    },
    /// The explanation.
    Why {
        /// The whole of it.
        explanation: Box<Explanation>,
    },
    /// A poll was started.
    Accepted,
    /// The request was not carried out.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// A conversation with the agent.
#[derive(Debug)]
pub struct Conversation {
    replies: BufReader<UnixStream>,
}

impl Conversation {
    /// Sends `request` to the agent that listens on `socket`. Fails as [`io::ErrorKind::NotFound`] or
    /// [`io::ErrorKind::ConnectionRefused`] when no agent does.
    pub fn start(socket: &Path, request: &Request) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        Ok(Conversation {
            replies: BufReader::new(stream),
        })
    }

    /// The next reply.
    pub fn next_reply(&mut self) -> Result<Reply, Failure> {
        let mut line = String::new();
        let broken = |cause: String| {
            Failure::new(
                Class::Transient,
                format!("lost the connection to the agent: {cause}"),
            )
        };
        let read = (&mut self.replies)
            .take(MAX_LINE_BYTES)
            .read_line(&mut line)
            .map_err(|error| broken(error.to_string()))?;
        if read == 0 {
            return Err(broken("it closed the connection".to_owned()));
        }
        serde_json::from_str(&line).map_err(|error| {
            broken(format!(
                "it answered what this version cannot read: {error}"
            ))
        })
    }
}
