//! A source on another machine: polled over HTTP, kept in a bare repository under the cache directory.
//!
//! The *cache* of a URL is a directory named after the URL's hash, with one ref of ours, [`TIP`]. It follows the branch wherever
//! that goes: whether a tip is acceptable is not the fetcher's to judge.
//!
//! Invariant: everything in the cache can be thrown away and fetched again; nothing on the machine depends on it.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gix::progress::Discard;
use gix_transport::Protocol;

use super::Limits;
use super::attempt::Attempt;
use super::http::Http;
use super::refs::{self, Advertisement, Refs};
use super::store;
use super::transport::GitHttp;
use crate::config::Source;
use crate::git::{MAX_OBJECT_BYTES, ObjectId, hex};
use crate::model::{Class, Failure};

/// Where the cache remembers the branch's commit.
const TIP: &str = "refs/limpet/tip";

/// Where the cache keeps the last trusted commit when the branch does not lead to it.
const TRUSTED: &str = "refs/limpet/trusted";

/// What a server may list: the names that begin with the branch's, or with an old server all names.
const MAX_LISTING_BYTES: u64 = 32 << 20;

/// Every fetch that finds something adds a pack; at this many the cache is fetched anew as one.
const MAX_PACKS: usize = 200;

/// How often at most a cache is fetched anew because an object was missing from it: the applier may ask for what no server has.
const RENEWAL_PAUSE: Duration = Duration::from_secs(60 * 60);

/// How long to wait for another fetcher on the same cache.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// A remote repository and its cache.
#[derive(Debug)]
pub struct Remote {
    source: Source,
    url: String,
    cache: PathBuf,
    credentials: Option<PathBuf>,
    /// Kept between polls for its TLS session, and dropped after a failure, so that a new certificate or token is read.
    http: Option<Arc<Http>>,
    /// Whether this server wants a handshake before anything else.
    needs_handshake: bool,
    /// When the cache was last fetched anew on a mere suspicion.
    last_renewal: Option<Instant>,
}

/// Why a cache is not good enough any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// An object cannot be read, or has other bytes than its id says.
    Corrupt,
    /// An object is missing.
    Incomplete,
}

impl Remote {
    /// The repository at `url`, cached below `directory`.
    pub fn new(source: &Source, url: &str, directory: &Path, credentials: Option<PathBuf>) -> Self {
        Remote {
            source: source.clone(),
            url: url.to_owned(),
            cache: cache_path(directory, url),
            credentials,
            http: None,
            needs_handshake: false,
            last_renewal: None,
        }
    }

    /// Where the cache is.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Learns the branch's commit, and fetches what is missing of it.
    pub fn poll(
        &mut self,
        trusted: Option<ObjectId>,
        doubt: Option<Doubt>,
        limits: Limits,
    ) -> Result<ObjectId, Failure> {
        let attempt = Rc::new(Attempt::new(&self.url, limits));
        let _lock = lock(&self.cache)?;
        let result = self.poll_locked(trusted, doubt, &attempt);
        if result.is_err() {
            self.http = None;
        }
        result
    }

    fn poll_locked(
        &mut self,
        trusted: Option<ObjectId>,
        doubt: Option<Doubt>,
        attempt: &Rc<Attempt>,
    ) -> Result<ObjectId, Failure> {
        sweep(&self.cache);
        let http = match &self.http {
            Some(http) => http.clone(),
            None => {
                let http = Http::new(&self.source, &self.url, self.credentials.as_deref())?;
                self.http.insert(Arc::new(http)).clone()
            }
        };
        let known = match doubt {
            Some(Doubt::Corrupt) => None,
            Some(Doubt::Incomplete) if self.may_renew() => None,
            Some(Doubt::Incomplete) | None => {
                Known::read(&self.cache).filter(|known| known.packs < MAX_PACKS)
            }
        };
        let (format, tip) = self.read_tip(&http, attempt, known.as_ref())?;
        let known = known.filter(|known| known.format == format);
        if let Some(known) = known {
            if known.tip == Some(tip) {
                return Ok(tip);
            }
            match self.fetch(&http, attempt, &self.cache, trusted) {
                Ok(tip) => return Ok(tip),
                Err(FetchError::Source(failure)) => return Err(failure),
                Err(FetchError::Unclear(failure)) if !self.may_renew() => return Err(failure),
                Err(FetchError::Unclear(failure) | FetchError::Cache(failure)) => {
                    tracing::debug!(error = %failure, "suspecting the cache, fetching it anew");
                }
            }
        }
        self.fetch_anew(&http, attempt, format, trusted)
    }

    /// Fetches into a new cache, and puts it in place of the old one only when it is whole.
    fn fetch_anew(
        &self,
        http: &Arc<Http>,
        attempt: &Rc<Attempt>,
        format: gix::hash::Kind,
        trusted: Option<ObjectId>,
    ) -> Result<ObjectId, Failure> {
        let in_cache = |error: io::Error| {
            let message = format!("failed to write cache '{}': {error}", self.cache.display());
            Failure::new(Class::Host, message)
                .with_hint("user limpet must be able to write there, and the disk needs room")
        };
        let new = beside(&self.cache, "new");
        let old = beside(&self.cache, "old");
        create(&new, format).map_err(in_cache)?;
        let tip = match self.fetch(http, attempt, &new, trusted) {
            Ok(tip) => tip,
            Err(
                FetchError::Source(failure)
                | FetchError::Unclear(failure)
                | FetchError::Cache(failure),
            ) => return Err(failure),
        };
        if self.cache.exists() {
            std::fs::rename(&self.cache, &old).map_err(in_cache)?;
        }
        std::fs::rename(&new, &self.cache).map_err(in_cache)?;
        // What cannot be removed now is swept at the next poll.
        let _ = std::fs::remove_dir_all(&old);
        Ok(tip)
    }

    /// The repository's object format and the branch's commit.
    fn read_tip(
        &mut self,
        http: &Http,
        attempt: &Rc<Attempt>,
        known: Option<&Known>,
    ) -> Result<(gix::hash::Kind, ObjectId), Failure> {
        let full_ref = self.full_ref();
        // Protocol version 2 has no state, so what the last handshake said still holds: one request instead of two.
        let introduced = known.filter(|_| !self.needs_handshake);
        if let Some(known) = introduced {
            match self.list(http, attempt, &full_ref, known.format) {
                Ok(Ok(tip)) => return self.require(tip).map(|tip| (known.format, tip)),
                // Not every server answers a request that it was not introduced to.
                Ok(Err(_)) => {}
                Err(failure) if failure.class == Class::Transient => return Err(failure),
                Err(_) => drop(attempt.take_failure()),
            }
        }
        let url = format!("{}/info/refs?service=git-upload-pack", self.base_url());
        let headers = [
            ("Accept", "application/x-git-upload-pack-advertisement"),
            ("Git-Protocol", "version=2"),
        ];
        let response = http.request(attempt, &url, &headers, None)?;
        let bytes = read_listing(attempt, response.body)?;
        let no_git = |cause| {
            attempt
                .failure(
                    Class::Host,
                    format!("the server does not speak Git: {cause}"),
                )
                .with_hint("check that source.url is the address one would clone")
        };
        let Advertisement { format, refs } =
            refs::parse_advertisement(&bytes, &full_ref).map_err(no_git)?;
        let tip = match refs {
            Refs::Listed(tip) => tip,
            Refs::Ask => self
                .list(http, attempt, &full_ref, format)?
                .map_err(no_git)?,
        };
        // What went wrong without a handshake went well with it, and not because the repository is another.
        self.needs_handshake |= introduced.is_some_and(|known| known.format == format);
        Ok((format, self.require(tip)?))
    }

    /// Asks with `ls-refs`. The inner error is an answer that makes no sense.
    fn list(
        &self,
        http: &Http,
        attempt: &Rc<Attempt>,
        full_ref: &str,
        format: gix::hash::Kind,
    ) -> Result<Result<Option<ObjectId>, String>, Failure> {
        let url = format!("{}/git-upload-pack", self.base_url());
        let headers = [
            ("Content-Type", "application/x-git-upload-pack-request"),
            ("Accept", "application/x-git-upload-pack-result"),
            ("Git-Protocol", "version=2"),
        ];
        let body = refs::ls_refs_request(full_ref, format);
        let response = http.request(attempt, &url, &headers, Some(&body))?;
        let bytes = read_listing(attempt, response.body)?;
        Ok(
            refs::parse_ls_refs(&bytes, full_ref).and_then(|tip| match tip {
                Some(tip) if tip.kind() != format => {
                    Err("an id of another object format".to_owned())
                }
                tip => Ok(tip),
            }),
        )
    }

    fn require(&self, tip: Option<ObjectId>) -> Result<ObjectId, Failure> {
        tip.ok_or_else(|| {
            let message = format!("found no branch '{}' at '{}'", self.source.branch, self.url);
            Failure::new(Class::Host, message).with_hint("check source.branch")
        })
    }

    /// Fetches the branch into the repository at `path`, and `trusted` if that did not bring it.
    fn fetch(
        &self,
        http: &Arc<Http>,
        attempt: &Rc<Attempt>,
        path: &Path,
        trusted: Option<ObjectId>,
    ) -> Result<ObjectId, FetchError> {
        let cache_error = |cause: &dyn std::fmt::Display| {
            let message = format!("failed to use cache '{}': {cause}", path.display());
            FetchError::Cache(Failure::new(Class::Host, message))
        };
        let repository = store::open(path).map_err(|error| cache_error(&error))?;
        let branch = format!("+{}:{TIP}", self.full_ref());
        self.receive(&repository, http, attempt, &branch)?;
        let tip = read_ref(&repository, TIP)
            .filter(|tip| repository.has_object(tip))
            .ok_or_else(|| cache_error(&"the fetched commit is not there"))?;
        if let Some(trusted) = trusted.filter(|trusted| !repository.has_object(trusted)) {
            // The server may rightly refuse, or not have it; then the history has really been rewritten.
            let spec = format!("+{trusted}:{TRUSTED}");
            if self.receive(&repository, http, attempt, &spec).is_err() {
                tracing::debug!(%trusted, "failed to fetch the trusted commit by its id, ignoring");
            }
        }
        Ok(tip)
    }

    /// Fetches what `spec` names into `repository`.
    fn receive(
        &self,
        repository: &gix::Repository,
        http: &Arc<Http>,
        attempt: &Rc<Attempt>,
        spec: &str,
    ) -> Result<(), FetchError> {
        let result = interrupted_after(attempt.time_left(), |interrupt| {
            let url = gix::url::parse(self.base_url().as_str())?;
            let transport = gix_transport::client::blocking_io::http::connect_http(
                GitHttp::new(http.clone(), attempt.clone()),
                url.clone(),
                Protocol::V2,
                false,
            );
            repository
                .remote_at(url)?
                .with_fetch_tags(gix::remote::fetch::Tags::None)
                .with_refspecs([spec], gix::remote::Direction::Fetch)?
                .to_connection_with_transport(transport)
                // Without this gix would look for a credential helper, which is a program.
                .with_credentials(|_| Ok(None))
                .prepare_fetch(Discard, Default::default())?
                .receive(Discard, interrupt)
        });
        let Err(error) = result else { return Ok(()) };
        if let Some(failure) = attempt.take_failure() {
            return Err(FetchError::Source(failure));
        }
        if attempt.time_left().is_zero() {
            return Err(FetchError::Source(attempt.too_long()));
        }
        Err(explain(attempt, &error))
    }

    /// Whether the cache may be fetched anew on a suspicion, which it then should be.
    fn may_renew(&mut self) -> bool {
        let is_allowed = self
            .last_renewal
            .is_none_or(|last| last.elapsed() > RENEWAL_PAUSE);
        if is_allowed {
            self.last_renewal = Some(Instant::now());
        }
        is_allowed
    }

    fn full_ref(&self) -> String {
        format!("refs/heads/{}", self.source.branch)
    }

    fn base_url(&self) -> String {
        self.url.trim_end_matches('/').to_owned()
    }
}

/// Why a fetch brought nothing.
enum FetchError {
    /// The source or the network is at fault.
    Source(Failure),
    /// What came made no sense, or what was there did not fit it.
    Unclear(Failure),
    /// The cache is at fault.
    Cache(Failure),
}

/// What a cache holds.
struct Known {
    format: gix::hash::Kind,
    /// The branch's commit at the last fetch, if it is there.
    tip: Option<ObjectId>,
    packs: usize,
}

impl Known {
    fn read(cache: &Path) -> Option<Self> {
        let repository = store::open(cache).ok()?;
        let packs = std::fs::read_dir(cache.join("objects/pack")).ok()?;
        Some(Known {
            format: repository.object_hash(),
            tip: read_ref(&repository, TIP).filter(|tip| repository.has_object(tip)),
            packs: packs
                .flatten()
                .filter(|entry| entry.path().extension().is_some_and(|it| it == "pack"))
                .count(),
        })
    }
}

fn read_ref(repository: &gix::Repository, name: &str) -> Option<ObjectId> {
    let reference = repository.try_find_reference(name).ok()??;
    reference.target().try_id().map(|id| id.to_owned())
}

/// The directory for `url`: two repositories never share one, whatever their URLs look like.
fn cache_path(directory: &Path, url: &str) -> PathBuf {
    let digest = ring::digest::digest(&ring::digest::SHA256, url.as_bytes());
    let name = hex(&digest.as_ref()[..16]);
    directory.join(format!("{name}.git"))
}

fn beside(cache: &Path, extension: &str) -> PathBuf {
    cache.with_extension(format!("git.{extension}"))
}

/// Keeps other fetchers off `cache` for as long as the file lives: a child of `limpet apply --once` may use it too.
fn lock(cache: &Path) -> Result<File, Failure> {
    let path = beside(cache, "lock");
    let fail = |cause: &dyn std::fmt::Display, class| {
        let message = format!("failed to lock cache '{}': {cause}", path.display());
        Failure::new(class, message)
    };
    let open = || {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
    };
    let file = open().map_err(|error| {
        fail(&error, Class::Host).with_hint("the fetcher's user must be able to write there")
    })?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_WAIT => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(fail(&"another fetcher is using it", Class::Transient));
            }
            Err(TryLockError::Error(error)) => return Err(fail(&error, Class::Host)),
        }
    }
}

/// Makes an empty bare repository at `path`: by hand, because gix would add sample hooks and a description.
fn create(path: &Path, format: gix::hash::Kind) -> io::Result<()> {
    if path.exists() {
        std::fs::remove_dir_all(path)?;
    }
    for directory in ["objects/pack", "objects/info", "refs/heads"] {
        std::fs::create_dir_all(path.join(directory))?;
    }
    std::fs::write(path.join("HEAD"), "ref: refs/heads/none\n")?;
    let version = match format {
        gix::hash::Kind::Sha1 => {
            "[core]\n\trepositoryformatversion = 0\n\tbare = true\n".to_owned()
        }
        format => format!(
            "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = {format}\n"
        ),
    };
    std::fs::write(path.join("config"), version)
}

/// Removes what a fetcher that was killed left behind.
fn sweep(cache: &Path) {
    for extension in ["new", "old"] {
        let _ = std::fs::remove_dir_all(beside(cache, extension));
    }
    // Locks on refs are ours too: whoever held one is gone, or we would not hold the lock on the cache.
    for directory in ["objects/pack", "refs/limpet"] {
        let Ok(entries) = std::fs::read_dir(cache.join(directory)) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".tmp") || name.ends_with(".lock") || name.ends_with(".keep") {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

fn read_listing(attempt: &Attempt, body: impl Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let result = body.take(MAX_LISTING_BYTES + 1).read_to_end(&mut bytes);
    match result {
        Ok(_) if bytes.len() as u64 <= MAX_LISTING_BYTES => Ok(bytes),
        Ok(_) => {
            let cause = format!("it lists more than {} MiB of refs", MAX_LISTING_BYTES >> 20);
            Err(attempt.failure(Class::Host, cause))
        }
        Err(error) => Err(attempt
            .take_failure()
            .unwrap_or_else(|| attempt.failure(Class::Transient, error))),
    }
}

/// Runs `work` with a flag that is raised after `limit`: requests have their own limits, but unpacking what came has none.
fn interrupted_after<T>(limit: Duration, work: impl FnOnce(&AtomicBool) -> T) -> T {
    let interrupt = AtomicBool::new(false);
    let (done, is_done) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let interrupt = &interrupt;
        scope.spawn(move || {
            if is_done.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                interrupt.store(true, Ordering::Relaxed);
            }
        });
        let result = work(interrupt);
        drop(done);
        result
    })
}

/// What gix has to say about an exchange in which each request by itself went well.
fn explain(attempt: &Attempt, error: &gix::Error) -> FetchError {
    let text = causes(error);
    // gix has no kind for it, but names the option that `store` sets.
    if text.contains("clone.rejectShallow") {
        let cause = "the server's repository is shallow: its history is not complete";
        return FetchError::Source(
            attempt
                .failure(Class::Host, cause)
                .with_hint("'git fetch --unshallow' on the server completes it"),
        );
    }
    if error.is_resource_exhausted() {
        let limit = MAX_OBJECT_BYTES >> 20;
        let cause = format!("the branch's history holds a file of more than {limit} MiB");
        return FetchError::Source(
            attempt
                .failure(Class::Host, cause)
                .with_hint("remove it from the branch's history"),
        );
    }
    let cause = format!("the server's answer makes no sense: {text}");
    FetchError::Unclear(attempt.failure(Class::Transient, cause))
}

/// `error` and its causes in one line. Servers have a part in the text, so it is cut.
fn causes(error: &gix::Error) -> String {
    let causes: Vec<String> = error.iter_errors().map(ToString::to_string).collect();
    let text = causes.join(": ");
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(500).collect()
}
