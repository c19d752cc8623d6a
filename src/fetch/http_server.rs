//! A Git server behind HTTP (gitprotocol-http(5)).

use std::rc::Rc;
use std::sync::Arc;

use gix_transport::Protocol;
use gix_transport::client::blocking_io::{Transport, http::connect_http};

use super::Trouble;
use super::attempt::Attempt;
use super::credential::Credentials;
use super::http::Http;
use super::refs::Found;
use super::refs::{self, Advertisement, Refs};
use super::remote::{Exchange, read_listing};
use super::transport::GitHttp;
use crate::config::Follow;
use crate::config::Source;
use crate::model::Class;

/// The server, and what is remembered of it between polls.
#[derive(Debug)]
pub struct HttpServer {
    source: Source,
    base_url: String,
    credentials: Credentials,
    /// Kept for its connection and its TLS session, and dropped after a failure, so that a new certificate or token is read.
    http: Option<Arc<Http>>,
    /// Whether this server wants a handshake before anything else.
    needs_handshake: bool,
}

impl HttpServer {
    /// The server of the repository at `url`.
    pub fn new(source: &Source, url: &str, credentials: &Credentials) -> Self {
        HttpServer {
            source: source.clone(),
            base_url: url.trim_end_matches('/').to_owned(),
            credentials: credentials.clone(),
            http: None,
            needs_handshake: false,
        }
    }

    /// Forgets connections and credentials.
    pub fn forget(&mut self) {
        self.http = None;
    }

    /// Begins the requests of `attempt`.
    pub fn begin(&mut self, attempt: &Rc<Attempt>) -> Result<HttpExchange<'_>, Trouble> {
        let http = match &self.http {
            Some(http) => http.clone(),
            None => {
                let http = Http::new(&self.source, &self.base_url, &self.credentials)?;
                self.http.insert(Arc::new(http)).clone()
            }
        };
        Ok(HttpExchange {
            http,
            attempt: attempt.clone(),
            base_url: &self.base_url,
            needs_handshake: &mut self.needs_handshake,
        })
    }
}

/// The requests of one attempt.
#[derive(Debug)]
pub struct HttpExchange<'server> {
    http: Arc<Http>,
    attempt: Rc<Attempt>,
    base_url: &'server str,
    needs_handshake: &'server mut bool,
}

impl Exchange for HttpExchange<'_> {
    fn read_tip(
        &mut self,
        follow: &Follow,
        known: Option<gix::hash::Kind>,
    ) -> Result<(gix::hash::Kind, Option<Found>), Trouble> {
        // Protocol version 2 has no state, so what the last handshake said still holds: one request instead of two.
        let introduced = known.filter(|_| !*self.needs_handshake);
        if let Some(format) = introduced {
            match self.list(follow, format) {
                Ok(Ok(tip)) => return Ok((format, tip)),
                // Not every server answers a request that it was not introduced to.
                Ok(Err(_)) => {}
                Err(trouble) if trouble.failure.class == Class::Transient => return Err(trouble),
                // A server that asks to be left alone is not asked again at once.
                Err(trouble) if trouble.retry_after_secs.is_some() => return Err(trouble),
                Err(_) => drop(self.attempt.take_trouble()),
            }
        }
        let url = format!("{}/info/refs?service=git-upload-pack", self.base_url);
        let headers = [
            ("Accept", "application/x-git-upload-pack-advertisement"),
            ("Git-Protocol", "version=2"),
        ];
        let response = self.http.request(&self.attempt, &url, &headers, None)?;
        let bytes = read_listing(&self.attempt, response.body)?;
        let Advertisement { format, refs } = refs::parse_advertisement(&bytes, follow)
            .map_err(|cause| speaks_no_git(&self.attempt, &cause))?;
        let tip = match refs {
            Refs::Listed(tip) => tip,
            Refs::Ask => self
                .list(follow, format)?
                .map_err(|cause| speaks_no_git(&self.attempt, &cause))?,
        };
        // What went wrong without a handshake went well with it, and not because the repository is another.
        *self.needs_handshake |= introduced.is_some_and(|known| known == format);
        Ok((format, tip))
    }

    fn connect(&mut self) -> Result<Box<dyn Transport>, Trouble> {
        let url = gix::url::parse(self.base_url)
            .map_err(|error| self.attempt.trouble(Class::Config, error))?;
        let http = GitHttp::new(self.http.clone(), self.attempt.clone());
        Ok(Box::new(connect_http(http, url, Protocol::V2, false)))
    }

    fn take_trouble(&mut self) -> Option<Trouble> {
        self.attempt.take_trouble()
    }
}

impl HttpExchange<'_> {
    /// Asks with `ls-refs`. The inner error is an answer that makes no sense.
    fn list(
        &self,
        follow: &Follow,
        format: gix::hash::Kind,
    ) -> Result<Result<Option<Found>, String>, Trouble> {
        let url = format!("{}/git-upload-pack", self.base_url);
        let headers = [
            ("Content-Type", "application/x-git-upload-pack-request"),
            ("Accept", "application/x-git-upload-pack-result"),
            ("Git-Protocol", "version=2"),
        ];
        let body = refs::ls_refs_request(follow, format);
        let response = self
            .http
            .request(&self.attempt, &url, &headers, Some(&body))?;
        let bytes = read_listing(&self.attempt, response.body)?;
        Ok(refs::parse_ls_refs_of(&bytes, follow, format))
    }
}

/// The trouble with an answer that is not Git's.
pub fn speaks_no_git(attempt: &Attempt, cause: &str) -> Trouble {
    attempt
        .trouble(
            Class::Host,
            format!("the server does not speak Git: {cause}"),
        )
        .with_hint("check that source.url is the address one would clone")
}
