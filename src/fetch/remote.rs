//! A source on another machine: asked for its branch, and for what is missing of it.
//!
//! A *server* is asked in one *exchange* per poll, over whatever carries it; what comes is put into the cache.

use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use gix::progress::Discard;
use gix::remote::fetch::Status;
use gix::remote::fetch::refs::update::Mode;
use gix_transport::client::blocking_io::Transport;

use super::attempt::Attempt;
use super::cache::{Cache, Known, TIP, TRUSTED, read_ref};
use super::refs::Found;
use super::{Lane, Trouble, store};
use crate::config::Follow;
use crate::git::{MAX_OBJECT_BYTES, ObjectId};
use crate::model::{Class, Failure};

/// What a server may list: the names that begin with the branch's, or with an old server all names.
pub const MAX_LISTING_BYTES: u64 = 32 << 20;

/// The address that gix is given: it only looks at it for configuration that we do not have.
const PLACEHOLDER_URL: &str = "https://source.invalid/";

/// One poll's talk with a server.
pub trait Exchange {
    /// The repository's hash function, and the wanted ref. `known` is the hash function of the cache.
    fn read_tip(
        &mut self,
        follow: &Follow,
        known: Option<gix::hash::Kind>,
    ) -> Result<(gix::hash::Kind, Option<Found>), Trouble>;

    /// A way for gix to fetch objects; asked for again for every fetch.
    fn connect(&mut self) -> Result<Box<dyn Transport>, Trouble>;

    /// Why the last fetch failed, where the exchange knows better than gix.
    fn take_trouble(&mut self) -> Option<Trouble>;
}

/// What to fetch.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What is followed.
    pub follow: &'a Follow,
    /// The last trusted commit, which is fetched too where the branch no longer leads to it.
    pub trusted: Option<ObjectId>,
}

/// Learns where the branch is, and fetches into `cache` what is missing of it. `known` is what may be built upon, and `may_renew`
/// says whether the cache may be fetched anew when what came does not fit it.
pub fn poll(
    exchange: &mut dyn Exchange,
    attempt: &Attempt,
    cache: &Cache,
    known: Option<Known>,
    wanted: Wanted<'_>,
    may_renew: &mut dyn FnMut() -> bool,
) -> Result<Found, Trouble> {
    let format = known.as_ref().map(|known| known.format);
    let (format, tip) = exchange.read_tip(wanted.follow, format)?;
    let tip = tip.ok_or_else(|| offers_none(attempt, wanted.follow))?;
    let full_ref = tip.full_ref.as_str();
    let at = |id: ObjectId| Found {
        full_ref: full_ref.to_owned(),
        id,
    };
    if let Some(known) = known.filter(|known| known.format == format) {
        if known.tip == Some(tip.id) {
            return Ok(tip);
        }
        match fetch(exchange, attempt, cache.path(), full_ref, wanted.trusted) {
            Ok(id) => return Ok(at(id)),
            Err(FetchError::Source(trouble)) => return Err(trouble),
            Err(FetchError::Unclear(trouble)) if !may_renew() => return Err(trouble),
            Err(FetchError::Unclear(trouble) | FetchError::Cache(trouble)) => {
                tracing::debug!(error = %trouble.failure, "suspecting the cache, fetching it anew");
            }
        }
    }
    let new = cache.begin_anew(format)?;
    let id =
        fetch(exchange, attempt, &new, full_ref, wanted.trusted).map_err(|error| match error {
            FetchError::Source(trouble)
            | FetchError::Unclear(trouble)
            | FetchError::Cache(trouble) => trouble,
        })?;
    cache.replace()?;
    Ok(at(id))
}

/// The trouble with a source that has nothing of what is followed.
pub fn offers_none(attempt: &Attempt, follow: &Follow) -> Trouble {
    let message = format!("found no {follow} at '{}'", attempt.url());
    Trouble::from(Failure::new(Class::Host, message)).with_hint(format!("check {}", follow.key()))
}

/// Why a fetch brought nothing.
enum FetchError {
    /// The source or the network is at fault.
    Source(Trouble),
    /// What came made no sense, or what was there did not fit it.
    Unclear(Trouble),
    /// The cache is at fault.
    Cache(Trouble),
}

/// Fetches the ref `full_ref` into the repository at `path`, and the trusted commit if that did not bring it.
fn fetch(
    exchange: &mut dyn Exchange,
    attempt: &Attempt,
    path: &Path,
    full_ref: &str,
    trusted: Option<ObjectId>,
) -> Result<ObjectId, FetchError> {
    let cache_error = |cause: &dyn std::fmt::Display| {
        let message = format!("failed to use cache '{}': {cause}", path.display());
        FetchError::Cache(Failure::new(Class::Host, message).into())
    };
    let repository = store::open(path).map_err(|error| cache_error(&error))?;
    let branch = format!("+{full_ref}:{TIP}");
    receive(exchange, attempt, &repository, &branch)?;
    let tip = read_ref(&repository, TIP)
        .filter(|tip| repository.has_object(tip))
        .ok_or_else(|| cache_error(&"the fetched commit is not there"))?;
    if let Some(trusted) = trusted.filter(|trusted| !repository.has_object(trusted)) {
        // The server may rightly refuse, or not have it; then the history has really been rewritten.
        let spec = format!("+{trusted}:{TRUSTED}");
        if receive(exchange, attempt, &repository, &spec).is_err() {
            tracing::debug!(%trusted, "failed to fetch the trusted commit by its id, ignoring");
        }
    }
    Ok(tip)
}

/// Fetches what `spec` names into `repository`.
fn receive(
    exchange: &mut dyn Exchange,
    attempt: &Attempt,
    repository: &gix::Repository,
    spec: &str,
) -> Result<(), FetchError> {
    let transport = exchange.connect().map_err(FetchError::Source)?;
    let result = interrupted_after(attempt.time_left(), |interrupt| {
        repository
            .remote_at(PLACEHOLDER_URL)?
            .with_fetch_tags(gix::remote::fetch::Tags::None)
            .with_refspecs([spec], gix::remote::Direction::Fetch)?
            .to_connection_with_transport(transport)
            // Without this gix would look for a credential helper, which is a program.
            .with_credentials(|_| Ok(None))
            .prepare_fetch(Discard, Default::default())?
            .receive(Discard, interrupt)
    });
    let error = match result {
        Ok(outcome) if lacks_what_is_offered(&outcome.status) => {
            let cause = "the server offers a commit and sent a pack without it";
            return Err(FetchError::Source(attempt.trouble(Class::Transient, cause)));
        }
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    if attempt.time_left().is_zero() {
        return Err(FetchError::Source(attempt.too_long()));
    }
    if let Some(trouble) = exchange.take_trouble() {
        return Err(FetchError::Source(trouble));
    }
    Err(explain(attempt, &error))
}

/// Does what came lack the commit that it was sent for: gix then leaves the ref as it was, and calls that no failure.
fn lacks_what_is_offered(status: &Status) -> bool {
    let (Status::NoPackReceived { update_refs, .. } | Status::Change { update_refs, .. }) = status;
    update_refs
        .updates
        .iter()
        .any(|update| matches!(update.mode, Mode::RejectedSourceObjectNotFound { .. }))
}

/// Reads all of a listing.
pub fn read_listing(attempt: &Attempt, body: impl Read) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::new();
    let result = body.take(MAX_LISTING_BYTES + 1).read_to_end(&mut bytes);
    match result {
        Ok(_) if bytes.len() as u64 <= MAX_LISTING_BYTES => Ok(bytes),
        Ok(_) => Err(lists_too_much(attempt)),
        Err(error) => Err(attempt
            .take_trouble()
            .unwrap_or_else(|| attempt.trouble(Class::Transient, error))),
    }
}

/// The trouble with a server that lists too much.
pub fn lists_too_much(attempt: &Attempt) -> Trouble {
    let cause = format!("it lists more than {} MiB of refs", MAX_LISTING_BYTES >> 20);
    attempt.trouble(Class::Host, cause)
}

/// Runs `work` with a flag that is raised after `limit`: requests have their own limits, but unpacking what came has none.
pub fn interrupted_after<T>(limit: Duration, work: impl FnOnce(&AtomicBool) -> T) -> T {
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
                .trouble(Class::Host, cause)
                .with_hint("'git fetch --unshallow' on the server completes it")
                .in_lane(Lane::Denied),
        );
    }
    if error.is_resource_exhausted() {
        return FetchError::Source(object_too_large(attempt));
    }
    let cause = format!("the server's answer makes no sense: {text}");
    FetchError::Unclear(attempt.trouble(Class::Transient, cause))
}

/// The trouble with a history that holds too large an object.
pub fn object_too_large(attempt: &Attempt) -> Trouble {
    let limit = MAX_OBJECT_BYTES >> 20;
    let cause = format!("the branch's history holds a file of more than {limit} MiB");
    attempt
        .trouble(Class::Host, cause)
        .with_hint("remove it from the branch's history")
}

/// `error` and its causes in one line. Servers have a part in the text, so it is cut.
pub fn causes(error: &gix::Error) -> String {
    let causes: Vec<String> = error.iter_errors().map(ToString::to_string).collect();
    one_line(&causes.join(": "))
}

/// The beginning of `text` in one line, without control characters.
pub fn one_line(text: &str) -> String {
    let words = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>();
    words.join(" ").chars().take(500).collect()
}
