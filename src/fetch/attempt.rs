//! One poll's allowance of time and bytes, and what its failures mean.
//!
//! All requests of an *attempt* share it. It keeps the first failure, because the Git protocol above wraps ours in errors that
//! cannot be told apart.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use ureq::http::Uri;

use super::Limits;
use crate::model::{Class, Failure};

/// One poll's allowance of time and bytes, and what went wrong with it first.
#[derive(Debug)]
pub struct Attempt {
    /// The repository, as errors name it.
    url: String,
    limits: Limits,
    deadline: Instant,
    bytes_left: Cell<u64>,
    failure: RefCell<Option<Failure>>,
}

impl Attempt {
    /// An allowance that runs from now.
    pub fn new(url: &str, limits: Limits) -> Self {
        Attempt {
            url: url.to_owned(),
            limits,
            deadline: Instant::now() + limits.total,
            bytes_left: Cell::new(limits.bytes),
            failure: RefCell::new(None),
        }
    }

    /// The time that is left.
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// A failure of this attempt: the repository's URL goes before `cause`.
    pub fn failure(&self, class: Class, cause: impl fmt::Display) -> Failure {
        Failure::new(
            class,
            format!("failed to fetch from '{}': {cause}", self.url),
        )
    }

    /// The first failure that a request of this attempt met.
    pub fn take_failure(&self) -> Option<Failure> {
        self.failure.take()
    }

    /// Keeps `failure` if it is the first.
    pub fn keep_failure(&self, failure: &Failure) {
        self.failure
            .borrow_mut()
            .get_or_insert_with(|| failure.clone());
    }

    /// The failure of an attempt that used up its time.
    pub fn too_long(&self) -> Failure {
        let cause = format!("not finished within {} s", self.limits.total.as_secs());
        self.failure(Class::Transient, cause)
    }

    /// The time the server may say nothing.
    pub fn silence(&self) -> Duration {
        self.limits.silence
    }

    /// Takes `count` bytes off the allowance.
    pub fn spend(&self, count: usize) -> Result<(), Failure> {
        match self.bytes_left.get().checked_sub(count as u64) {
            Some(left) => {
                self.bytes_left.set(left);
                Ok(())
            }
            None => {
                let cause = format!("the server sent more than {} MiB", self.limits.bytes >> 20);
                Err(self
                    .failure(Class::Host, cause)
                    .with_hint("files of that size do not belong in a repository of configuration"))
            }
        }
    }

    /// What `error` means, and for whom.
    pub fn explain(&self, error: ureq::Error) -> Failure {
        match error {
            ureq::Error::HostNotFound => no_address(self, "no answer"),
            ureq::Error::Timeout(ureq::Timeout::Global) => self.too_long(),
            ureq::Error::Timeout(_) => {
                let cause = format!(
                    "the server was silent for {} s",
                    self.limits.silence.as_secs()
                );
                self.failure(Class::Transient, cause)
            }
            ureq::Error::Rustls(error) => explain_tls(self, &error),
            ureq::Error::Io(error) => {
                if let Some(inner) = error.get_ref() {
                    if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
                        return explain_tls(self, tls);
                    }
                    if let Some(ureq::Error::Timeout(timeout)) = inner.downcast_ref::<ureq::Error>()
                    {
                        return self.explain(ureq::Error::Timeout(*timeout));
                    }
                }
                explain_io(self, &error)
            }
            ureq::Error::Protocol(error) => self
                .failure(
                    Class::Transient,
                    format!("the server does not speak HTTP: {error}"),
                )
                .with_hint("check source.url"),
            error => self.failure(Class::Transient, error),
        }
    }
}

fn explain_io(attempt: &Attempt, error: &io::Error) -> Failure {
    let text = error.to_string();
    // The standard library has no kind for it.
    if let Some(cause) = text.strip_prefix("failed to lookup address information: ") {
        return no_address(attempt, cause);
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => {
            attempt.failure(Class::Transient, "the server hung up in the middle")
        }
        _ => attempt.failure(Class::Transient, text),
    }
}

fn no_address(attempt: &Attempt, cause: &str) -> Failure {
    let host = host_of(&attempt.url);
    attempt
        .failure(
            Class::Transient,
            format!("found no address of '{host}': {cause}"),
        )
        .with_hint("check the name, and this host's DNS")
}

fn explain_tls(attempt: &Attempt, error: &rustls::Error) -> Failure {
    use rustls::CertificateError as Certificate;
    let rustls::Error::InvalidCertificate(certificate) = error else {
        return attempt.failure(Class::Transient, format!("TLS: {error}"));
    };
    let (cause, hint) = match certificate {
        // An authority of the same name and another key fails only at the signature.
        Certificate::UnknownIssuer | Certificate::BadSignature => (
            "its certificate is from an authority that this host does not trust".to_owned(),
            "set source.ca_file to the authority's certificate",
        ),
        Certificate::Expired
        | Certificate::ExpiredContext { .. }
        | Certificate::NotValidYet
        | Certificate::NotValidYetContext { .. } => (
            format!("its certificate is not valid now: {error}"),
            "check the server's certificate, and this host's clock",
        ),
        Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => (
            format!("its certificate is for another name: {error}"),
            "check the host name in source.url",
        ),
        _ => (
            format!("its certificate is not accepted: {error}"),
            "check the server's certificate",
        ),
    };
    attempt.failure(Class::Host, cause).with_hint(hint)
}

/// The host that `url` names, in lower case.
pub fn host_of(url: &str) -> String {
    url.parse::<Uri>()
        .ok()
        .and_then(|uri| uri.host().map(str::to_ascii_lowercase))
        .unwrap_or_default()
}
