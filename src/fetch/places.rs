//! The places a source can be had from: its URL, and its mirrors in turn when that fails.
//!
//! All fill one cache, so that whichever answers has little to bring. Which of them answered means nothing: revisions are believed by
//! their signatures, and a mirror that is behind is the applier's to judge.
//!
//! Invariant: the token and the key are shown to no server but the one that the source's own URL names.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::attempt::Attempt;
use super::cache::Cache;
use super::credential::Credentials;
use super::http_server::HttpServer;
use super::remote::{self, Wanted};
use super::ssh::SshServer;
use super::{Doubt, Limits, Tip, Trouble, bundle, local};
use crate::config::{Follow, Source, SourceUrl};
use crate::git::ObjectId;

/// How often at most a cache is fetched anew because an object was missing from it: the applier may ask for what no server has.
const RENEWAL_PAUSE: Duration = Duration::from_secs(60 * 60);

/// A source, wherever it can be had from.
#[derive(Debug)]
pub struct Places {
    places: Vec<Place>,
    follow: Follow,
    cache: Cache,
    /// When the cache was last fetched anew on a mere suspicion.
    last_renewal: Option<Instant>,
}

/// Where the objects of the branch are after a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serving {
    /// In the cache.
    Cache,
    /// In a repository on this machine.
    Local(PathBuf),
}

impl Places {
    /// The places of `source`, with a cache below `directory`.
    pub fn new(source: &Source, directory: &Path, credentials: &Credentials) -> Self {
        let urls = std::iter::once(&source.url).chain(&source.mirrors);
        Places {
            places: urls
                .map(|url| Place::new(source, url, credentials))
                .collect(),
            follow: source.follow.clone(),
            cache: Cache::new(directory, source.url.as_str()),
            last_renewal: None,
        }
    }

    /// The cache that all of them fill.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Learns what is offered from the first place that answers, and fetches what is missing of it.
    pub fn poll(
        &mut self,
        trusted: Option<ObjectId>,
        doubt: Option<Doubt>,
        limits: Limits,
    ) -> Result<(Tip, Serving), Trouble> {
        let must_renew = match doubt {
            Some(Doubt::Corrupt) => true,
            Some(Doubt::Incomplete) => may_renew(&mut self.last_renewal),
            None => false,
        };
        let deadline = Instant::now() + limits.total;
        let count = self.places.len();
        let mut troubles = Vec::new();
        for (index, place) in self.places.iter_mut().enumerate() {
            // With nobody else to ask, when to ask again is the schedule's to decide.
            if let Some(trouble) = place.rest.as_ref().filter(|_| count > 1)
                && let Some(trouble) = trouble.as_of(Instant::now())
            {
                troubles.push(trouble);
                continue;
            }
            // One that never comes to an end leaves time for the others.
            let left = deadline.saturating_duration_since(Instant::now());
            let limits = Limits {
                total: left / u32::try_from(count - index).unwrap_or(1),
                ..limits
            };
            let wanted = Wanted {
                follow: &self.follow,
                trusted,
            };
            let renewal = (must_renew, &mut self.last_renewal);
            match place.poll(&self.cache, wanted, renewal, limits) {
                Ok(answer) => {
                    place.rest = None;
                    return Ok(answer);
                }
                Err(trouble) => {
                    tracing::debug!(error = %trouble.failure, "a place of the source failed");
                    place.forget();
                    place.rest = Rest::new(&trouble, Instant::now());
                    troubles.push(trouble);
                }
            }
        }
        Err(Trouble::of_all(troubles).expect("a source has at least its URL"))
    }
}

fn may_renew(last_renewal: &mut Option<Instant>) -> bool {
    let is_allowed = last_renewal.is_none_or(|last| last.elapsed() > RENEWAL_PAUSE);
    if is_allowed {
        *last_renewal = Some(Instant::now());
    }
    is_allowed
}

/// One place.
#[derive(Debug)]
struct Place {
    url: String,
    kind: Kind,
    /// How long it asked to be left alone.
    rest: Option<Rest>,
}

#[derive(Debug)]
enum Kind {
    Http(Box<HttpServer>),
    Ssh(SshServer),
    /// A repository or a bundle on this machine.
    Path(PathBuf),
}

impl Place {
    fn new(source: &Source, url: &SourceUrl, credentials: &Credentials) -> Self {
        let is_familiar = url.has_authority_of(&source.url);
        let source = Source {
            token: source.token.clone().filter(|_| is_familiar),
            username: source.username.clone().filter(|_| is_familiar),
            ssh_key: source.ssh_key.clone().filter(|_| is_familiar),
            ..source.clone()
        };
        Place {
            url: url.as_str().to_owned(),
            kind: match url {
                SourceUrl::Http(url) => {
                    Kind::Http(Box::new(HttpServer::new(&source, url, credentials)))
                }
                SourceUrl::Ssh(address) => Kind::Ssh(SshServer::new(&source, address, credentials)),
                SourceUrl::Path(path) => Kind::Path(PathBuf::from(path)),
            },
            rest: None,
        }
    }

    fn forget(&mut self) {
        if let Kind::Http(server) = &mut self.kind {
            server.forget();
        }
    }

    /// `renewal` says whether the cache must be fetched anew, and when it last was on a suspicion.
    fn poll(
        &mut self,
        cache: &Cache,
        wanted: Wanted<'_>,
        (must_renew, last_renewal): (bool, &mut Option<Instant>),
        limits: Limits,
    ) -> Result<(Tip, Serving), Trouble> {
        let attempt = Rc::new(Attempt::new(&self.url, limits));
        if let Kind::Path(path) = &self.kind
            && !path.is_file()
        {
            if let Some(trouble) = local::without_stick(path) {
                return Err(trouble);
            }
            let repository = local::open(path)?;
            let tip = local::read_tip(&repository, wanted.follow)?;
            return Ok((tip.into_tip(), Serving::Local(path.clone())));
        }
        let _lock = cache.lock()?;
        cache.sweep();
        let known = if must_renew { None } else { cache.read() };
        let known = known.filter(|known| !known.is_overgrown(limits.bytes));
        let mut may_renew = || may_renew(last_renewal);
        let mut fetch = |exchange: &mut dyn remote::Exchange, known| {
            remote::poll(exchange, &attempt, cache, known, wanted, &mut may_renew)
        };
        let tip = match &mut self.kind {
            Kind::Path(path) => bundle::poll(path, &attempt, cache, known, wanted.follow)?,
            Kind::Http(server) => fetch(&mut server.begin(&attempt)?, known)?,
            Kind::Ssh(server) => fetch(&mut server.begin(&attempt), known)?,
        };
        Ok((tip.into_tip(), Serving::Cache))
    }
}

/// A server's wish to be left alone.
#[derive(Debug)]
struct Rest {
    until: Instant,
    trouble: Trouble,
}

impl Rest {
    fn new(trouble: &Trouble, now: Instant) -> Option<Self> {
        Some(Rest {
            until: now + trouble.retry_after()?,
            trouble: trouble.clone(),
        })
    }

    /// The trouble that goes on at `now`.
    fn as_of(&self, now: Instant) -> Option<Trouble> {
        let left = self.until.checked_duration_since(now)?;
        Some(Trouble {
            retry_after_secs: Some(left.as_secs() + 1),
            ..self.trouble.clone()
        })
    }
}
