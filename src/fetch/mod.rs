//! The fetcher: the process that has the network and the Git cache, and nothing else.
//!
//! It runs as user limpet behind a socket, or as a child of `limpet apply --once`. It looks at the source when it is asked to
//! (a *poll*), and hands out single objects by id. Nobody trusts it: the applier hashes every object and judges every tip.
//!
//! - [`protocol`] what goes over the socket; [`client`] the applier's end; [`child`] a fetcher without systemd
//! - `places` the source's URL and its mirrors; each is a repository on this machine (`local`), a file (`bundle`) or a server
//! - `remote` polls a server into the `cache`; `http_server` over `http` and `transport`, `ssh` over the program of that name
//! - `artifact` files that are declared by their address and hash
//! - `probe` health checks that need the network; `sysctl` parameters that belong to it
//! - `confine` what the process may open
//! - `attempt` the limits of one poll; `trouble` why it brought nothing; `store` the objects that were brought
//!
//! Invariant: no Git program, credential helper or hook is ever run, and no configuration of Git but the cache's own is read. The
//! only program that is run is ssh.
// The fetcher is another process without a `Host`: it reads its cache, the clock and the environment itself.
#![allow(clippy::disallowed_methods)]

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use self::artifact::{Artifacts, Found};
use self::cache::Cache;
use self::credential::Credentials;
use self::places::{Places, Serving};
use self::protocol::{ArtifactAnswer, ObjectAnswer, PollAnswer, Probe, Request, Target};
use self::store::{ReadError, Store};
use crate::config::{Source, SourceUrl};
use crate::git::{ObjectId, ObjectKind};
use crate::model::{Class, Failure};

mod artifact;
mod attempt;
mod bundle;
mod cache;
pub mod child;
pub mod client;
mod confine;
mod connect;
mod credential;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod http;
mod http_server;
mod local;
mod pace;
mod pack_header;
mod places;
mod probe;
pub mod protocol;
mod refs;
mod remote;
mod retry_after;
mod ssh;
mod ssh_words;
mod start;
mod store;
mod sysctl;
mod transport;
mod trouble;

pub use self::artifact::MAX_BYTES as MAX_ARTIFACT_BYTES;
pub use self::child::Child;
pub use self::client::{Client, Delivery, Upstream};
pub use self::confine::confine;
pub use self::credential::Secrets;
pub use self::protocol::Tip;
pub use self::trouble::{Lane, Trouble};

/// What one poll may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Its time from the first request to the last object, however little comes at a time.
    pub total: Duration,
    /// How long the server may say nothing.
    pub silence: Duration,
    /// What the server may send.
    pub bytes: u64,
    /// The objects that one pack may hold.
    pub objects: u32,
}

impl Limits {
    /// Room for a first clone over a slow line. A repository of configuration is far smaller.
    pub const DEFAULT: Limits = Limits {
        total: Duration::from_secs(15 * 60),
        silence: Duration::from_secs(60),
        bytes: 1 << 30,
        objects: 2_000_000,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}

/// How long a client may say nothing before it is taken for stuck. A client that lives simply connects again.
const CLIENT_SILENCE: Duration = Duration::from_secs(5 * 60);

/// How long a client may leave an answer unread.
const CLIENT_STALL: Duration = Duration::from_secs(30);

/// The applier, and a few commands of people beside it.
const MAX_CLIENTS: usize = 64;

/// How long to stay without a client.
///
/// Between frequent polls the fetcher stays: most of its few megabytes are pages of the program that the applier has mapped too,
/// while starting anew costs a sandbox, the parsing of all certificates, a full TLS handshake and three lines in the journal
/// every time. Between rare polls it goes, and the socket brings it back.
fn idle_limit(interval: Duration) -> Duration {
    const RARE: Duration = Duration::from_secs(5 * 60);
    if interval > RARE {
        Duration::from_secs(60)
    } else {
        interval * 2
    }
}

/// A socket that the fetcher was given as its standard input.
#[derive(Debug)]
pub enum Stdin {
    /// By systemd, with `StandardInput=socket`: clients connect to it.
    Listener(UnixListener),
    /// By a parent: one end of a pair, which first says what to serve.
    Stream(UnixStream),
}

impl Stdin {
    /// Takes the socket. Standard input is the one inherited descriptor that safe code may own, so `LISTEN_FDS` is not needed.
    pub fn take() -> Result<Self, Failure> {
        let fail = |cause: &dyn std::fmt::Display| {
            let message = format!("failed to use standard input as a socket: {cause}");
            Failure::new(Class::Host, message)
                .with_hint("limpet-fetch.socket starts the fetcher when the agent needs it")
        };
        let stdin = io::stdin();
        let is_listening = nix::sys::socket::getsockopt(&stdin, sockopt::AcceptConn)
            .map_err(|error| fail(&error))?;
        let socket = stdin
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| fail(&error))?;
        Ok(if is_listening {
            Stdin::Listener(UnixListener::from(socket))
        } else {
            Stdin::Stream(UnixStream::from(socket))
        })
    }
}

/// Serves `source` to those who connect to `listener`, until nobody has for a while. The cache is below `cache`, credentials are
/// in directory `credentials`.
pub fn serve(
    source: &Source,
    cache: &Path,
    credentials: Option<PathBuf>,
    listener: &UnixListener,
    limits: Limits,
) -> Result<(), Failure> {
    let fetcher = Fetcher::new(source, cache, &credentials.into(), limits);
    let fail = |error: io::Error| {
        Failure::new(
            Class::Transient,
            format!("failed to accept clients: {error}"),
        )
    };
    let idle = TimeVal::milliseconds(
        idle_limit(source.interval)
            .as_millis()
            .try_into()
            .unwrap_or(i64::MAX),
    );
    setsockopt(listener, sockopt::ReceiveTimeout, &idle).map_err(|error| fail(error.into()))?;
    let clients = AtomicUsize::new(0);
    // Outside systemd it may be made only when something is fetched.
    let had_cache = !is_deleted(cache);
    std::thread::scope(|scope| {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    if had_cache && is_deleted(cache) && clients.load(Ordering::Relaxed) == 0 {
                        // Only systemd can make it again, when it starts us: whoever was hung up on asks once more.
                        return Ok(());
                    }
                    // Only this thread counts up, so the limit holds.
                    if clients.load(Ordering::Relaxed) >= MAX_CLIENTS {
                        tracing::debug!("too many clients, hanging up");
                        continue;
                    }
                    clients.fetch_add(1, Ordering::Relaxed);
                    let (fetcher, clients) = (&fetcher, &clients);
                    scope.spawn(move || {
                        if let Err(error) = serve_client(fetcher, &stream) {
                            tracing::debug!(%error, "client is gone");
                        }
                        clients.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Who connects now waits in the listener's queue, and systemd starts another fetcher for it.
                    if clients.load(Ordering::Relaxed) == 0 && !fetcher.artifacts.is_busy() {
                        return Ok(());
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => return Err(fail(error)),
            }
        }
    })
}

/// Answers the first request of whoever connects to `listener` with `failure`, and no more: the next one may find things put right.
pub fn refuse(listener: &UnixListener, failure: &Failure) -> Result<(), Failure> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let fail = |error: io::Error| {
        Failure::new(
            Class::Transient,
            format!("failed to accept clients: {error}"),
        )
    };
    setsockopt(
        listener,
        sockopt::ReceiveTimeout,
        &TimeVal::seconds(PATIENCE.as_secs().try_into().unwrap_or(i64::MAX)),
    )
    .map_err(|error| fail(error.into()))?;
    let answer = |stream: &UnixStream| -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = Vec::with_capacity(256);
        protocol::read_request(&mut BufReader::new(stream), &mut line)?;
        let mut output = BufWriter::new(stream);
        protocol::write_failure(&mut output, failure)?;
        output.flush()
    };
    match listener.accept() {
        Ok((stream, _)) => {
            if let Err(error) = answer(&stream) {
                tracing::debug!(%error, "client is gone");
            }
            Ok(())
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(fail(error)),
    }
}

/// Serves what the parent at the other end of `stream` asks for, until it hangs up.
pub fn serve_parent(
    stream: &UnixStream,
    credentials: Option<PathBuf>,
    limits: Limits,
) -> Result<(), Failure> {
    let fail = |error: io::Error| {
        Failure::new(
            Class::Transient,
            format!("failed to serve the parent: {error}"),
        )
    };
    // Root's child has no way back to root, not even by a program with the setuid bit.
    nix::sys::prctl::set_no_new_privs().map_err(|error| fail(error.into()))?;
    let mut input = BufReader::new(stream);
    let start = start::read_start(&mut input).map_err(fail)?;
    // What the parent was handed by systemd is this process's too; what it tells goes first.
    let credentials = match start.secrets {
        Some(ref secrets) => Credentials::Given(secrets.clone()),
        None => credentials.into(),
    };
    let fetcher = Fetcher::new(&start.source()?, &start.cache, &credentials, limits);
    Session::new(&fetcher).run(&mut input, stream).map_err(fail)
}

/// Is the directory gone. What systemd mounted for us may still be there to be seen when it was removed, with no name anywhere.
fn is_deleted(directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    directory
        .metadata()
        .map_or(true, |directory| directory.nlink() == 0)
}

fn serve_client(fetcher: &Fetcher, stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_SILENCE))?;
    stream.set_write_timeout(Some(CLIENT_STALL))?;
    Session::new(fetcher).run(&mut BufReader::new(stream), stream)
}

/// What all clients share.
struct Fetcher {
    /// The source, as people know it.
    url: String,
    limits: Limits,
    /// Makes the places anew.
    renew: Box<dyn Fn() -> Places + Send + Sync>,
    /// Locked while it is polled: a second client waits, and finds everything there.
    places: Mutex<Places>,
    cache: Cache,
    /// Beside the cache of objects, which may be made anew at any time.
    artifacts: Arc<Artifacts>,
    /// Where objects are read from.
    serving: Mutex<Serving>,
    /// Why the cache should be fetched anew.
    doubt: Mutex<Option<Doubt>>,
    /// Counts the polls that may have replaced the cache.
    generation: AtomicU64,
}

/// Why a cache is not good enough any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// An object cannot be read, or has other bytes than its id says.
    Corrupt,
    /// An object is missing.
    Incomplete,
}

impl Fetcher {
    fn new(source: &Source, cache: &Path, credentials: &Credentials, limits: Limits) -> Self {
        let renew = {
            let (source, cache, credentials) =
                (source.clone(), cache.to_owned(), credentials.clone());
            move || Places::new(&source, &cache, &credentials)
        };
        let places = renew();
        let serving = match &source.url {
            SourceUrl::Path(path) if !Path::new(path).is_file() => {
                Serving::Local(PathBuf::from(path))
            }
            _ => Serving::Cache,
        };
        Fetcher {
            url: source.url.as_str().to_owned(),
            limits,
            cache: places.cache().clone(),
            artifacts: Arc::new(Artifacts::new(
                cache.join("artifacts"),
                source.proxy.clone(),
                source.ca_file.clone(),
            )),
            renew: Box::new(renew),
            places: Mutex::new(places),
            serving: Mutex::new(serving),
            doubt: Mutex::new(None),
            generation: AtomicU64::new(0),
        }
    }

    fn suspect(&self, doubt: Doubt) {
        let mut slot = locked(&self.doubt);
        if *slot != Some(Doubt::Corrupt) {
            *slot = Some(doubt);
        }
    }

    fn open(&self) -> Result<(bool, Store), Failure> {
        let serving = locked(&self.serving).clone();
        let repository = match &serving {
            Serving::Local(path) => local::open(path)?,
            Serving::Cache => store::open(self.cache.path()).map_err(|_| {
                let message = format!("nothing is fetched from '{}' yet", self.url);
                Failure::new(Class::Transient, message)
            })?,
        };
        Ok((serving == Serving::Cache, Store::new(repository)))
    }
}

/// What `mutex` guards. After a panic it is as good as before: what the fetcher keeps in memory is only there to be quick.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client's requests, in order.
struct Session<'fetcher> {
    fetcher: &'fetcher Fetcher,
    /// Opened when the first object is asked for and closed with the connection, because an open store keeps its packs mapped.
    store: Option<Opened>,
    trusted: Option<ObjectId>,
}

/// An open store.
struct Opened {
    generation: u64,
    is_cache: bool,
    store: Store,
}

impl<'fetcher> Session<'fetcher> {
    fn new(fetcher: &'fetcher Fetcher) -> Self {
        Session {
            fetcher,
            store: None,
            trusted: None,
        }
    }

    fn run(&mut self, input: &mut BufReader<&UnixStream>, stream: &UnixStream) -> io::Result<()> {
        let mut output = BufWriter::with_capacity(64 << 10, stream);
        let mut line = Vec::with_capacity(256);
        loop {
            // Requests sent ahead are answered in one go.
            if input.buffer().is_empty() {
                output.flush()?;
            }
            let request = match protocol::read_request(input, &mut line) {
                Ok(Some(request)) => request,
                Ok(None) => return Ok(()),
                Err(error) => {
                    let failure = Failure::new(Class::Bug, format!("invalid request: {error}"));
                    protocol::write_failure(&mut output, &failure)?;
                    output.flush()?;
                    return Err(error);
                }
            };
            match request {
                Request::Poll { trusted } => {
                    let answer = match self.poll(trusted) {
                        Ok(tip) => PollAnswer::Tip(tip),
                        Err(trouble) => PollAnswer::Trouble(trouble),
                    };
                    protocol::write_poll_answer(&mut output, &answer)?;
                }
                Request::Probe(probe) => {
                    protocol::write_probe_answer(&mut output, &self.probe(&probe))?;
                }
                Request::Sysctls(names) if names.len() <= protocol::MAX_SYSCTLS => {
                    protocol::write_sysctls_answer(&mut output, &sysctl::look(&names))?;
                }
                Request::Sysctls(_) => {
                    let failure = Failure::new(Class::Bug, "too many parameters at a time");
                    protocol::write_failure(&mut output, &failure)?;
                }
                Request::Artifact(wanted) => match self.fetcher.artifacts.find(&wanted) {
                    Ok(Found::Whole(file, size)) => {
                        let answer = ArtifactAnswer::Whole(size);
                        protocol::write_artifact_answer(&mut output, &answer)?;
                        let sent = io::copy(&mut file.take(size), &mut output)?;
                        if sent < size {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                    }
                    Ok(Found::Downloading(far)) => {
                        let answer = ArtifactAnswer::Downloading(far);
                        protocol::write_artifact_answer(&mut output, &answer)?;
                    }
                    Err(failure) => protocol::write_failure(&mut output, &failure)?,
                },
                Request::Object(id) => match self.read(&id) {
                    Ok((kind, data)) => {
                        protocol::write_object_header(&mut output, kind, data.len())?;
                        output.write_all(data)?;
                    }
                    Err(answer) => protocol::write_object_answer(&mut output, &answer)?,
                },
            }
        }
    }

    fn poll(&mut self, trusted: Option<ObjectId>) -> Result<Tip, Trouble> {
        self.trusted = trusted;
        let mut places = locked(&self.fetcher.places);
        self.poll_within(&mut places, self.fetcher.limits)
    }

    /// Asks once whether what the probe names is well.
    fn probe(&mut self, probe: &Probe) -> Result<(), Failure> {
        let limit = Duration::from_millis(probe.limit_ms).min(protocol::MAX_PROBE);
        match &probe.target {
            Target::Http(url) => probe::ask_http(url, limit),
            Target::Tcp(address) => probe::ask_tcp(address, limit),
            Target::Source => {
                let mut places = locked(&self.fetcher.places);
                // A connection that is kept would hide that none can be made any more.
                *places = (self.fetcher.renew)();
                let limits = Limits {
                    total: limit,
                    silence: self.fetcher.limits.silence.min(limit),
                    ..self.fetcher.limits
                };
                self.poll_within(&mut places, limits)
                    .map(drop)
                    .map_err(|trouble| trouble.failure)
            }
        }
    }

    fn poll_within(&mut self, places: &mut Places, limits: Limits) -> Result<Tip, Trouble> {
        self.store = None;
        let fetcher = self.fetcher;
        let doubt = *locked(&fetcher.doubt);
        let (tip, serving) = places.poll(self.trusted, doubt, limits)?;
        if serving == Serving::Cache {
            *locked(&fetcher.doubt) = None;
        }
        *locked(&fetcher.serving) = serving;
        fetcher.generation.fetch_add(1, Ordering::Relaxed);
        Ok(tip)
    }

    /// The object called `id`, or the answer that says why not.
    fn read(&mut self, id: &ObjectId) -> Result<(ObjectKind, &[u8]), ObjectAnswer> {
        let fetcher = self.fetcher;
        let generation = fetcher.generation.load(Ordering::Relaxed);
        if self
            .store
            .as_ref()
            .is_none_or(|opened| opened.generation != generation)
        {
            let (is_cache, store) = fetcher.open().map_err(ObjectAnswer::Failure)?;
            self.store = Some(Opened {
                generation,
                is_cache,
                store,
            });
        }
        let opened = self.store.as_mut().expect("it was opened just above");
        let (is_cache, store) = (opened.is_cache, &mut opened.store);
        let damaged = |cause: &str| {
            if is_cache {
                fetcher.suspect(Doubt::Corrupt);
            }
            let message = format!("object {id} is damaged: {cause}");
            let class = if is_cache {
                Class::Transient
            } else {
                Class::Host
            };
            Err(ObjectAnswer::Failure(Failure::new(class, message)))
        };
        match store.read(id) {
            Ok(Some((kind, data))) => {
                // The applier hashes for its safety; hashing here is for the cache, which heals only if its damage is noticed.
                if is_cache && gix::objs::compute_hash(id.kind(), kind, data).ok() != Some(*id) {
                    return damaged("it has other bytes than its id says");
                }
                Ok((kind, data))
            }
            Ok(None) => {
                if is_cache && self.trusted != Some(*id) {
                    fetcher.suspect(Doubt::Incomplete);
                }
                Err(ObjectAnswer::Missing)
            }
            Err(ReadError::TooLarge) => Err(ObjectAnswer::TooLarge),
            Err(ReadError::Corrupt(cause)) => damaged(&cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fetcher_outlives_frequent_polls_and_not_rare_ones() {
        let check = |secs| idle_limit(Duration::from_secs(secs)).as_secs();
        assert_eq!(check(10), 20);
        assert_eq!(check(60), 120);
        assert_eq!(check(300), 600);
        assert_eq!(check(3600), 60);
    }
}
