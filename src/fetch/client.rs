//! The applier's end of the fetcher's socket.
//!
//! Invariant: nothing the fetcher does, says or leaves unsaid can hold the applier longer than the limits below, or reach it other
//! than as bytes still to be hashed.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::protocol::{
    self, Artifact, ArtifactAnswer, Downloading, ObjectAnswer, PollAnswer, Probe, Request, Seen,
    Tip,
};
use super::{Lane, Trouble};
use crate::git::{Object, ObjectError, ObjectId, Objects};
use crate::model::{Class, Failure};

/// How long a poll may take: a little longer than the fetcher allows itself, so that its own explanation arrives first.
const POLL_LIMIT: Duration = super::Limits::DEFAULT
    .total
    .saturating_add(Duration::from_secs(30));

/// How long one object may take, from the request to its last byte. It is read from a local disk, which may be slow and busy.
const OBJECT_LIMIT: Duration = Duration::from_secs(60);

/// How long after a probe's own limit its answer may come.
const PROBE_GRACE: Duration = Duration::from_secs(15);

/// How long looking at parameters of the kernel may take, with the start of the fetcher.
const SYSCTLS_LIMIT: Duration = Duration::from_secs(25);

/// How long the bytes of an artifact may take: they are read from a local disk and written to one.
const ARTIFACT_LIMIT: Duration = Duration::from_secs(9 * 60);

/// What became of a question for an artifact.
pub enum Delivery<'a> {
    /// Its bytes, still to be hashed.
    Whole(Box<dyn Read + 'a>),
    /// It is on its way.
    Downloading(Downloading),
}

impl std::fmt::Debug for Delivery<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Delivery::Whole(_) => f.write_str("Whole"),
            Delivery::Downloading(far) => write!(f, "{far:?}"),
        }
    }
}

/// Where revisions come from: a fetcher, in whatever way it is reached.
pub trait Upstream: Objects + Send {
    /// The tip of the branch, now; see [`Client::poll`].
    fn poll(&self, trusted: Option<ObjectId>) -> Result<Tip, Trouble>;

    /// A health check that needs the network; see [`Client::probe`].
    fn probe(&self, probe: &Probe) -> Result<(), Failure>;

    /// The live values of parameters that belong to the network; see [`Client::sysctls`].
    fn sysctls(&self, names: &[String]) -> Result<Vec<Seen>, Failure>;

    /// A file that is declared by its address and hash; see [`Client::artifact`].
    fn artifact(&self, artifact: &Artifact) -> Result<Delivery<'_>, Failure>;
}

impl Upstream for Client {
    fn poll(&self, trusted: Option<ObjectId>) -> Result<Tip, Trouble> {
        Client::poll(self, trusted)
    }

    fn probe(&self, probe: &Probe) -> Result<(), Failure> {
        Client::probe(self, probe)
    }

    fn sysctls(&self, names: &[String]) -> Result<Vec<Seen>, Failure> {
        Client::sysctls(self, names)
    }

    fn artifact(&self, artifact: &Artifact) -> Result<Delivery<'_>, Failure> {
        Client::artifact(self, artifact)
    }
}

/// A connection to a fetcher, which need not be trusted: wrap it in [`crate::git::Hashed`].
#[derive(Debug)]
pub struct Client {
    /// Where to connect again when the fetcher was restarted or has hung up; a child's socket has no name.
    path: Option<PathBuf>,
    connection: Mutex<Option<Connection>>,
}

impl Client {
    /// A client of the fetcher that listens at `path`.
    pub fn connect(path: &Path) -> Result<Self, Failure> {
        let connection = Connection::open(path)?;
        Ok(Client {
            path: Some(path.to_owned()),
            connection: Mutex::new(Some(connection)),
        })
    }

    /// A client of the fetcher at the other end of `stream`.
    pub fn over(stream: UnixStream) -> Self {
        Client {
            path: None,
            connection: Mutex::new(Some(Connection::new(stream))),
        }
    }

    /// Asks the fetcher to look at the source and fetch what is new. `trusted` is fetched too where the branch no longer leads to
    /// it, so that a rewound branch can be told from a rewritten one.
    pub fn poll(&self, trusted: Option<ObjectId>) -> Result<Tip, Trouble> {
        let answer = self.ask(&Request::Poll { trusted }, POLL_LIMIT, |input, line| {
            protocol::read_poll_answer(input, line)
        });
        match answer.map_err(|failure| Trouble::from(failure).in_lane(Lane::Local))? {
            PollAnswer::Tip(tip) => Ok(tip),
            PollAnswer::Trouble(trouble) => Err(trouble),
        }
    }

    /// Asks once whether what `probe` names is well. A fetcher that cannot be asked is a failure as any other.
    pub fn probe(&self, probe: &Probe) -> Result<(), Failure> {
        let limit = Duration::from_millis(probe.limit_ms).min(protocol::MAX_PROBE) + PROBE_GRACE;
        let request = Request::Probe(probe.clone());
        self.ask(&request, limit, |input, line| {
            protocol::read_probe_answer(input, line)
        })?
    }

    /// What is seen of the kernel's parameters called `names`, which belong to the network: one for each, in their order.
    pub fn sysctls(&self, names: &[String]) -> Result<Vec<Seen>, Failure> {
        let mut seen = Vec::with_capacity(names.len());
        for some in names.chunks(protocol::MAX_SYSCTLS) {
            let request = Request::Sysctls(some.to_vec());
            let answer = self.ask(&request, SYSCTLS_LIMIT, |input, line| {
                protocol::read_sysctls_answer(input, line, some.len())
            })?;
            seen.extend(answer?);
        }
        Ok(seen)
    }

    /// A file that is declared by its address and hash: its bytes, or how far it is. What was asked for once is downloaded, whether it
    /// is asked for again or not.
    pub fn artifact(&self, artifact: &Artifact) -> Result<Delivery<'_>, Failure> {
        let slot = || {
            let locked = self.connection.lock();
            locked.unwrap_or_else(PoisonError::into_inner)
        };
        // A connection that was idle may be gone; one to a child is all there is.
        let mut connection = match (&self.path, slot().take()) {
            (Some(path), _) => Connection::open(path)?,
            (None, Some(connection)) => connection,
            (None, None) => return Err(failed("it is gone")),
        };
        let explained = |error: io::Error| failed(&explain(&error, ARTIFACT_LIMIT));
        connection
            .send(&Request::Artifact(artifact.clone()), ARTIFACT_LIMIT)
            .map_err(explained)?;
        let answer = protocol::read_artifact_answer(&mut connection.input, &mut connection.line);
        match answer.map_err(explained)? {
            ArtifactAnswer::Whole(left) => Ok(Delivery::Whole(Box::new(Delivered {
                slot: &self.connection,
                connection: Some(connection),
                left,
            }))),
            ArtifactAnswer::Downloading(far) => {
                *slot() = Some(connection);
                Ok(Delivery::Downloading(far))
            }
            ArtifactAnswer::Failure(failure) => {
                *slot() = Some(connection);
                Err(failure)
            }
        }
    }

    /// Sends `request` and reads its answer. A fetcher that hung up before it said anything was restarted or had grown tired of
    /// waiting, and is asked once more.
    fn ask<T>(
        &self,
        request: &Request,
        limit: Duration,
        read: impl Fn(&mut BufReader<Deadlined>, &mut Vec<u8>) -> io::Result<T>,
    ) -> Result<T, Failure> {
        // A panic elsewhere cannot leave half an exchange behind: a connection is put back only after a whole one.
        let mut slot = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut may_retry = self.path.is_some() && slot.is_some();
        loop {
            let mut connection = match (slot.take(), &self.path) {
                (Some(connection), _) => connection,
                (None, Some(path)) => Connection::open(path)?,
                (None, None) => return Err(failed("it is gone")),
            };
            match connection.exchange(request, limit, &read) {
                Ok(answer) => {
                    *slot = Some(connection);
                    return Ok(answer);
                }
                Err(error) if may_retry && connection.is_closed_unheard(&error) => {
                    may_retry = false;
                }
                Err(error) => return Err(failed(&explain(&error, limit))),
            }
        }
    }
}

impl Objects for Client {
    fn get(&self, id: &ObjectId) -> Result<Object, ObjectError> {
        let answer = self.ask(&Request::Object(*id), OBJECT_LIMIT, |input, line| {
            protocol::read_object_answer(input, line)
        });
        match answer {
            Ok(ObjectAnswer::Found(object)) => Ok(object),
            Ok(ObjectAnswer::Missing) => Err(ObjectError::Missing(*id)),
            Ok(ObjectAnswer::TooLarge) => Err(ObjectError::TooLarge(*id)),
            Ok(ObjectAnswer::Failure(failure)) | Err(failure) => {
                Err(ObjectError::Unavailable(failure.message))
            }
        }
    }
}

fn failed(cause: &str) -> Failure {
    Failure::new(
        Class::Transient,
        format!("failed to talk to the fetcher: {cause}"),
    )
    .with_hint("see 'journalctl -u limpet-fetch.service'")
}

fn explain(error: &io::Error, limit: Duration) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no whole answer within {} s", limit.as_secs())
        }
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => "it hung up in the middle".to_owned(),
        io::ErrorKind::InvalidData => format!("it talks nonsense: {error}"),
        _ => error.to_string(),
    }
}

#[derive(Debug)]
struct Connection {
    input: BufReader<Deadlined>,
    /// Memory for the lines read and written, kept so that an object costs no allocation but its own.
    line: Vec<u8>,
}

impl Connection {
    fn open(path: &Path) -> Result<Self, Failure> {
        match UnixStream::connect(path) {
            Ok(stream) => Ok(Connection::new(stream)),
            Err(error) => {
                let message = format!(
                    "failed to connect to the fetcher at '{}': {error}",
                    path.display()
                );
                let class = match error.kind() {
                    io::ErrorKind::PermissionDenied => Class::Host,
                    _ => Class::Transient,
                };
                Err(Failure::new(class, message)
                    .with_hint("see 'systemctl status limpet-fetch.socket'"))
            }
        }
    }

    fn new(stream: UnixStream) -> Self {
        // One request always fits into the socket's buffer unless the peer is stuck. The call fails only for a limit of zero.
        let _ = stream.set_write_timeout(Some(OBJECT_LIMIT));
        let deadlined = Deadlined {
            stream,
            deadline: None,
            is_heard: false,
        };
        Connection {
            input: BufReader::with_capacity(64 << 10, deadlined),
            line: Vec::with_capacity(256),
        }
    }

    fn exchange<T>(
        &mut self,
        request: &Request,
        limit: Duration,
        read: impl Fn(&mut BufReader<Deadlined>, &mut Vec<u8>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.send(request, limit)?;
        let answer = read(&mut self.input, &mut self.line)?;
        if !self.input.buffer().is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "more bytes than the answer has",
            ));
        }
        Ok(answer)
    }

    fn send(&mut self, request: &Request, limit: Duration) -> io::Result<()> {
        self.line.clear();
        protocol::write_request(&mut self.line, request)?;
        let deadlined = self.input.get_mut();
        deadlined.deadline = Some(Instant::now() + limit);
        deadlined.is_heard = false;
        deadlined.stream.write_all(&self.line)
    }

    fn is_closed_unheard(&self, error: &io::Error) -> bool {
        !self.input.get_ref().is_heard
            && matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionReset
            )
    }
}

/// The bytes of an artifact. Read to their end, their connection is there for the next question.
struct Delivered<'a> {
    slot: &'a Mutex<Option<Connection>>,
    connection: Option<Connection>,
    left: u64,
}

impl Read for Delivered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            if let Some(connection) = self.connection.take() {
                let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
                *slot = Some(connection);
            }
            return Ok(0);
        }
        let Some(connection) = &mut self.connection else {
            return Ok(0);
        };
        let count = (&mut connection.input).take(self.left).read(buffer)?;
        self.left -= count as u64;
        match count {
            0 if !buffer.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}

/// A stream whose reads all end by one deadline, so that a peer that sends a byte now and then gains nothing.
#[derive(Debug)]
struct Deadlined {
    stream: UnixStream,
    deadline: Option<Instant>,
    /// Whether anything came since the last request.
    is_heard: bool,
}

impl Read for Deadlined {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
        }
        let count = self.stream.read(buffer)?;
        self.is_heard |= count > 0;
        Ok(count)
    }
}
