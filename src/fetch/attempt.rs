//! One poll's allowance of time and bytes, and what its failures mean.
//!
//! All requests of an *attempt* share it. It keeps the first failure, because the Git protocol above wraps ours in errors that
//! cannot be told apart.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use ureq::http::Uri;

use super::{Lane, Limits, Trouble};
use crate::model::{Class, Failure};

/// One poll's allowance of time and bytes, and what went wrong with it first.
#[derive(Debug)]
pub struct Attempt {
    /// The repository, as errors name it.
    url: String,
    limits: Limits,
    deadline: Instant,
    bytes_left: Cell<u64>,
    trouble: RefCell<Option<Trouble>>,
}

impl Attempt {
    /// An allowance that runs from now.
    pub fn new(url: &str, limits: Limits) -> Self {
        Attempt {
            url: url.to_owned(),
            limits,
            deadline: Instant::now() + limits.total,
            bytes_left: Cell::new(limits.bytes),
            trouble: RefCell::new(None),
        }
    }

    /// The repository, as errors name it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The time that is left.
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// A trouble of this attempt: the repository's URL goes before `cause`.
    pub fn trouble(&self, class: Class, cause: impl fmt::Display) -> Trouble {
        let message = format!("failed to fetch from '{}': {cause}", self.url);
        Failure::new(class, message).into()
    }

    /// The first trouble that a request of this attempt met.
    pub fn take_trouble(&self) -> Option<Trouble> {
        self.trouble.take()
    }

    /// Keeps `trouble` if it is the first.
    pub fn keep_trouble(&self, trouble: &Trouble) {
        self.trouble
            .borrow_mut()
            .get_or_insert_with(|| trouble.clone());
    }

    /// What may be received.
    pub fn max_bytes(&self) -> u64 {
        self.limits.bytes
    }

    /// The trouble with a pack of `count` objects, when that is too many.
    pub fn count_objects(&self, count: u32) -> Result<(), Trouble> {
        if count <= self.limits.objects {
            return Ok(());
        }
        let cause = format!(
            "it holds {count} objects, and no more than {} are taken at once",
            self.limits.objects
        );
        Err(self
            .trouble(Class::Host, cause)
            .with_hint("a repository of configuration has far fewer; check source.url"))
    }

    /// The trouble of an attempt that used up its time.
    pub fn too_long(&self) -> Trouble {
        let secs = self.limits.total.as_millis().div_ceil(1000);
        let cause = format!("not finished within {secs} s");
        self.trouble(Class::Transient, cause)
    }

    /// The trouble of a server that said nothing for too long.
    pub fn too_silent(&self) -> Trouble {
        let cause = format!(
            "the server was silent for {} s",
            self.limits.silence.as_secs()
        );
        self.trouble(Class::Transient, cause)
    }

    /// The time the server may say nothing.
    pub fn silence(&self) -> Duration {
        self.limits.silence
    }

    /// Takes `count` bytes off the allowance.
    pub fn spend(&self, count: usize) -> Result<(), Trouble> {
        match self.bytes_left.get().checked_sub(count as u64) {
            Some(left) => {
                self.bytes_left.set(left);
                Ok(())
            }
            None => {
                let cause = format!("the server sent more than {} MiB", self.limits.bytes >> 20);
                Err(self
                    .trouble(Class::Host, cause)
                    .with_hint("files of that size do not belong in a repository of configuration"))
            }
        }
    }

    /// What `error` means, and for whom.
    pub fn explain(&self, error: ureq::Error) -> Trouble {
        match error {
            ureq::Error::HostNotFound => no_address(self, &host_of(&self.url), "no answer"),
            ureq::Error::Timeout(ureq::Timeout::Global) => self.too_long(),
            ureq::Error::Timeout(_) => self.too_silent(),
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
                .trouble(
                    Class::Transient,
                    format!("the server does not speak HTTP: {error}"),
                )
                .with_hint("check source.url"),
            ureq::Error::ConnectProxyFailed(reason) => {
                let trouble =
                    self.trouble(Class::Host, format!("no way through the proxy: {reason}"));
                match reason.split_once("responded ") {
                    Some((_, status)) if status.starts_with("407") => proxy_wants_credentials(self),
                    // It answered, and will not let us through.
                    Some((_, status)) if status.starts_with('4') => trouble
                        .with_hint("ask who runs the proxy to allow it")
                        .in_lane(Lane::Denied),
                    _ => trouble,
                }
            }
            error => self.trouble(Class::Transient, error),
        }
    }
}

/// The trouble with a proxy that answered 407.
pub fn proxy_wants_credentials(attempt: &Attempt) -> Trouble {
    attempt
        .trouble(Class::Host, "the proxy wants credentials (HTTP status 407)")
        .with_hint(
            "write them into https_proxy of limpet-fetch.service: http://user:password@host:port",
        )
        .in_lane(Lane::Denied)
}

/// Does the operating system's `error` say that this host has no network or no route.
pub fn is_offline(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkDown
    )
}

/// The trouble with a host whose name has no address; `cause` is the resolver's.
pub fn no_address(attempt: &Attempt, host: &str, cause: &str) -> Trouble {
    let trouble = attempt
        .trouble(
            Class::Transient,
            format!("found no address of '{host}': {cause}"),
        )
        .with_hint("check the name, and this host's DNS");
    // EAI_AGAIN: no name server is known or answers. EAI_NONAME is a name server's answer.
    if cause.contains("Temporary failure in name resolution") {
        trouble.in_lane(Lane::Offline)
    } else {
        trouble
    }
}

fn explain_io(attempt: &Attempt, error: &io::Error) -> Trouble {
    let text = error.to_string();
    // The standard library has no kind for it.
    if let Some(cause) = text.strip_prefix("failed to lookup address information: ") {
        return no_address(attempt, &host_of(&attempt.url), cause);
    }
    if is_offline(error) {
        return attempt
            .trouble(Class::Transient, text)
            .in_lane(Lane::Offline);
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => {
            attempt.trouble(Class::Transient, "the server hung up in the middle")
        }
        _ => attempt.trouble(Class::Transient, text),
    }
}

fn explain_tls(attempt: &Attempt, error: &rustls::Error) -> Trouble {
    use rustls::CertificateError as Certificate;
    let rustls::Error::InvalidCertificate(certificate) = error else {
        return attempt.trouble(Class::Transient, format!("TLS: {error}"));
    };
    let (cause, hint, lane) = match certificate {
        // An authority of the same name and another key fails only at the signature.
        Certificate::UnknownIssuer | Certificate::BadSignature => (
            "its certificate is from an authority that this host does not trust".to_owned(),
            "set source.ca_file to the authority's certificate",
            Lane::Denied,
        ),
        Certificate::Expired
        | Certificate::ExpiredContext { .. }
        | Certificate::NotValidYet
        | Certificate::NotValidYetContext { .. } => (
            format!("its certificate is not valid now: {error}"),
            "check the server's certificate, and this host's clock",
            // Certificates are renewed and clocks are set without anybody's help.
            Lane::Ordinary,
        ),
        Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => (
            format!("its certificate is for another name: {error}"),
            "check the host name in source.url",
            Lane::Denied,
        ),
        _ => (
            format!("its certificate is not accepted: {error}"),
            "check the server's certificate",
            Lane::Denied,
        ),
    };
    attempt
        .trouble(Class::Host, cause)
        .with_hint(hint)
        .in_lane(lane)
}

/// The host that `url` names, in lower case.
pub fn host_of(url: &str) -> String {
    url.parse::<Uri>()
        .ok()
        .and_then(|uri| uri.host().map(str::to_ascii_lowercase))
        .unwrap_or_default()
}
