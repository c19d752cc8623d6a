//! Requests over HTTP: certificates, credentials, redirects, proxies, limits, and what their failures mean.
//!
//! Invariant: the token is sent only over https and only to the configured authority; it is in no URL, argument, message or log.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use ureq::ProxyProtocol;
use ureq::http::{HeaderMap, Uri, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::unversioned::resolver::DefaultResolver;

use super::attempt::{Attempt, host_of, proxy_wants_credentials};
use super::connect::connector;
use super::credential::Credentials;
use super::pack_header::PackHeader;
use super::{Lane, Trouble, credential, retry_after};
use crate::config::Source;
use crate::model::{Class, Failure};

/// Where distributions keep the certificates of the authorities they trust: Debian's first, then Red Hat's.
const SYSTEM_ROOTS: [&str; 2] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

/// Forges tell Git from browsers by the first word.
const USER_AGENT: &str = concat!("git/2.0 (limpet/", env!("CARGO_PKG_VERSION"), ")");

const MAX_REDIRECTS: usize = 5;

/// How long a server may take to accept a connection: shorter than the silence it may keep afterwards, because a server that is
/// down is a reason to ask a mirror, and one at the other end of the world still answers within a second.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// How long a connection is kept that nobody uses: over the usual interval, and not much longer, because what stands between us
/// and the server forgets it then without a word.
const IDLE_LIMIT: Duration = Duration::from_secs(90);

/// A text whose contents are never shown.
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The answer to a request whose status says success.
#[derive(Debug)]
pub struct Response {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, within the attempt's limits.
    pub body: ResponseBody,
}

/// A body that stops with an error at the attempt's limits.
pub struct ResponseBody {
    reader: ureq::BodyReader<'static>,
    attempt: std::rc::Rc<Attempt>,
    pack: PackHeader,
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").finish_non_exhaustive()
    }
}

impl Read for ResponseBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let attempt = &self.attempt;
        let result = match self.reader.read(buffer) {
            Ok(count) => attempt
                .spend(count)
                .and_then(|()| self.pack.check(attempt, &buffer[..count]))
                .map(|()| count),
            Err(error) => Err(attempt.explain(ureq::Error::from(error))),
        };
        result.map_err(|trouble| {
            attempt.keep_trouble(&trouble);
            io::Error::other(trouble.failure)
        })
    }
}

/// A client for one repository. Connections and TLS sessions live as long as it does.
#[derive(Debug)]
pub struct Http {
    agent: ureq::Agent,
    authorization: Option<Secret>,
    /// The credential's name, for hints.
    token_name: Option<String>,
    /// The proxy's host and port.
    proxy: Option<String>,
}

impl Http {
    /// A client for `url` as `source` configures it. `credentials` has the token.
    pub fn new(source: &Source, url: &str, credentials: &Credentials) -> Result<Self, Trouble> {
        let is_https = url.starts_with("https://");
        let authorization = match &source.token {
            None => None,
            Some(name) if !is_https => {
                let message =
                    format!("refused to send credential '{name}' to '{url}' in clear text");
                return Err(Trouble::from(Failure::new(Class::Config, message))
                    .with_hint("use an https:// address, or remove source.token")
                    .in_lane(Lane::Denied));
            }
            Some(name) => Some(read_authorization(
                name,
                source.username.as_deref(),
                credentials,
            )?),
        };
        let roots = if is_https {
            read_roots(source.ca_file.as_deref())?
        } else {
            Vec::new()
        };
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let proxy = choose_proxy(source.proxy.as_deref(), url, |name| {
            std::env::var(name).ok()
        })?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy.clone())
            .max_idle_age(IDLE_LIMIT)
            .user_agent(USER_AGENT)
            .accept_encoding(ureq::config::AutoHeaderValue::None)
            .tls_config(tls)
            .build();
        let agent = ureq::Agent::with_parts(config, connector(), DefaultResolver::default());
        Ok(Http {
            agent,
            authorization,
            token_name: source.token.clone(),
            proxy: proxy.map(|proxy| format!("{}:{}", proxy.host(), proxy.port())),
        })
    }

    /// Sends a GET, or a POST of `body`, and follows redirects that stay with the same authority.
    pub fn request(
        &self,
        attempt: &std::rc::Rc<Attempt>,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response, Trouble> {
        let result = self.request_following(attempt, url, headers, body);
        if let Err(trouble) = &result {
            attempt.keep_trouble(trouble);
        }
        result
    }

    fn request_following(
        &self,
        attempt: &std::rc::Rc<Attempt>,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response, Trouble> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.request_once(attempt, &url, headers, body)?;
            let status = response.status().as_u16();
            if (200..300).contains(&status) {
                let (parts, body) = response.into_parts();
                return Ok(Response {
                    headers: parts.headers,
                    body: ResponseBody {
                        reader: body.into_reader(),
                        attempt: attempt.clone(),
                        pack: PackHeader::default(),
                    },
                });
            }
            if !matches!(status, 301 | 302 | 307 | 308) {
                return Err(self.explain_status(attempt, status, response.headers()));
            }
            // Method and body stay: both of Git's requests only read, so that repeating one at another path is harmless.
            let location = response
                .headers()
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            url = resolve_redirect(&url, location).map_err(|cause| {
                attempt
                    .trouble(Class::Host, cause)
                    .with_hint("configure the repository's final address")
                    .in_lane(Lane::Denied)
            })?;
        }
        let cause = format!("more than {MAX_REDIRECTS} redirects");
        Err(attempt.trouble(Class::Host, cause).in_lane(Lane::Denied))
    }

    fn request_once(
        &self,
        attempt: &Attempt,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<ureq::http::Response<ureq::Body>, Trouble> {
        let time_left = attempt.time_left();
        if time_left.is_zero() {
            return Err(attempt.too_long());
        }
        let mut request = ureq::http::Request::builder().uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(Secret(value)) = &self.authorization
            && url.starts_with("https://")
        {
            request = request.header(header::AUTHORIZATION, value);
        }
        let invalid = |error| attempt.trouble(Class::Config, format!("invalid request: {error}"));
        let result = match body {
            Some(body) => {
                let request = request.method("POST").body(body).map_err(invalid)?;
                self.agent.run(self.limited(request, attempt, time_left))
            }
            None => {
                let request = request.method("GET").body(()).map_err(invalid)?;
                self.agent.run(self.limited(request, attempt, time_left))
            }
        };
        result.map_err(|error| {
            let mut trouble = attempt.explain(error);
            if let Some(proxy) = &self.proxy {
                // Or a proxy that is down would look like a server that is.
                trouble.failure.message += &format!(" (through the proxy '{proxy}')");
            }
            trouble
        })
    }

    fn limited<B: ureq::AsSendBody>(
        &self,
        request: ureq::http::Request<B>,
        attempt: &Attempt,
        time_left: Duration,
    ) -> ureq::http::Request<B> {
        self.agent
            .configure_request(request)
            .timeout_global(Some(time_left))
            .timeout_per_read(Some(attempt.silence()))
            .timeout_per_write(Some(attempt.silence()))
            .timeout_connect(Some(attempt.silence().min(CONNECT_LIMIT)))
            .build()
    }

    fn explain_status(&self, attempt: &Attempt, status: u16, headers: &HeaderMap) -> Trouble {
        let fail =
            |class, cause: &str| attempt.trouble(class, format!("{cause} (HTTP status {status})"));
        let mut trouble = match (status, &self.token_name) {
            (401, Some(name)) => fail(Class::Host, "the server does not accept the credentials")
                .with_hint(format!(
                    "renew the credential '{name}' of limpet-fetch.service"
                ))
                .in_lane(Lane::Denied),
            (401, None) => fail(Class::Host, "the server wants credentials")
                .with_hint("set source.token and load that credential in limpet-fetch.service")
                .in_lane(Lane::Denied),
            (403, _) => fail(Class::Host, "the server forbids reading the repository")
                .with_hint("give this host's credentials read access to it")
                .in_lane(Lane::Denied),
            (404 | 410, _) => fail(Class::Host, "there is no such repository")
                .with_hint(
                    "check source.url; some servers also say so to those who may not read it",
                )
                .in_lane(Lane::Denied),
            (407, _) => proxy_wants_credentials(attempt),
            (429, _) => fail(Class::Transient, "the server asks to come less often"),
            (500..=599, _) => fail(Class::Transient, "the server is in trouble"),
            _ => fail(Class::Host, "the server's answer makes no sense")
                .with_hint("check that source.url is a Git repository"),
        };
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(text) = header(header::RETRY_AFTER) {
            trouble.retry_after_secs =
                retry_after::parse(text, header(header::DATE), retry_after::now());
        }
        if let Some(secs) = trouble.retry_after_secs {
            trouble.failure.message += &format!("; it asks to wait {secs} s");
        }
        trouble
    }
}

fn read_authorization(
    name: &str,
    username: Option<&str>,
    credentials: &Credentials,
) -> Result<Secret, Trouble> {
    let text = credentials.read(name)?;
    let token = text.trim_end_matches(['\r', '\n']);
    if token.is_empty() || token.contains(|c: char| !c.is_ascii() || c.is_ascii_control()) {
        let cause = "it is empty, or not one line of ASCII";
        return Err(credential::unusable(name, cause));
    }
    Ok(Secret(match username {
        None => format!("Bearer {token}"),
        Some(username) => {
            let pair = format!("{username}:{token}");
            format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(pair)
            )
        }
    }))
}

/// The system's authorities and those of `ca_file`.
pub(super) fn read_roots(ca_file: Option<&str>) -> Result<Vec<Certificate<'static>>, Failure> {
    let mut roots = Vec::new();
    // A minimal system has no bundle; that is a mistake only if nothing else vouches for the server.
    if let Some(pem) = SYSTEM_ROOTS
        .iter()
        .find_map(|path| std::fs::read(path).ok())
    {
        roots.extend(parse_certificates(&pem).flatten());
    }
    if let Some(path) = ca_file {
        let fail = |cause: &dyn fmt::Display| {
            Failure::new(
                Class::Host,
                format!("failed to read ca_file '{path}': {cause}"),
            )
            .with_hint("it must be PEM, and readable by user limpet")
        };
        let pem = std::fs::read(path).map_err(|error| fail(&error))?;
        let before = roots.len();
        for certificate in parse_certificates(&pem) {
            roots.push(certificate.map_err(|error| fail(&error))?);
        }
        if roots.len() == before {
            return Err(fail(&"it holds no certificate"));
        }
    }
    if roots.is_empty() {
        return Err(
            Failure::new(Class::Host, "found no certificate authorities to trust")
                .with_hint("install the package ca-certificates, or set source.ca_file"),
        );
    }
    Ok(roots)
}

fn parse_certificates(
    pem: &[u8],
) -> impl Iterator<Item = Result<Certificate<'static>, ureq::Error>> + '_ {
    ureq::tls::parse_pem(pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

/// The proxy for `url`: the configured one, else the environment's for that scheme.
pub(super) fn choose_proxy(
    configured: Option<&str>,
    url: &str,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<ureq::Proxy>, Failure> {
    let get = |name: &str| environment(name).filter(|value| !value.is_empty());
    let (name, value) = match configured {
        Some(value) => ("source.proxy", value.to_owned()),
        None => {
            let excluded = get("no_proxy")
                .or_else(|| get("NO_PROXY"))
                .unwrap_or_default();
            if is_excluded(host_of(url), &excluded) {
                return Ok(None);
            }
            // HTTP_PROXY in capitals is what a CGI program gets from a header "Proxy:", so nobody reads it any more.
            let names: &[&'static str] = if url.starts_with("https://") {
                &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
            } else {
                &["http_proxy", "all_proxy", "ALL_PROXY"]
            };
            match names.iter().find_map(|name| Some((*name, get(name)?))) {
                Some(found) => found,
                None => return Ok(None),
            }
        }
    };
    // The value may hold a password, so it is not shown.
    match ureq::Proxy::new(&value) {
        // Others would be passed by without a word.
        Ok(proxy) if matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) => {
            Ok(Some(proxy))
        }
        _ => Err(
            Failure::new(Class::Config, format!("invalid proxy address in {name}"))
                .with_hint("write it as http://host:port"),
        ),
    }
}

/// Whether `no_proxy` (a comma-separated list of domains, or `*`) covers `host`.
fn is_excluded(host: String, no_proxy: &str) -> bool {
    no_proxy
        .split(',')
        .map(|entry| entry.trim().trim_start_matches('.').to_ascii_lowercase())
        .filter(|entry| !entry.is_empty())
        .any(|entry| {
            entry == "*"
                || host == entry
                || host
                    .strip_suffix(&entry)
                    .is_some_and(|rest| rest.ends_with('.'))
        })
}

/// Where `location`, found at `from`, leads; or why it is not followed.
fn resolve_redirect(from: &str, location: &str) -> Result<String, String> {
    let refused = |why: &str| {
        let shown: String = location.chars().take(200).collect();
        Err(format!(
            "refused a redirect to '{}': {why}",
            shown.escape_debug()
        ))
    };
    let Ok(base) = from.parse::<Uri>() else {
        return refused("the request's own address is invalid");
    };
    let scheme = base.scheme_str().unwrap_or_default();
    let authority = base.authority().map(|it| it.as_str()).unwrap_or_default();
    let target = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        return refused("it is no absolute address");
    };
    let Ok(uri) = target.parse::<Uri>() else {
        return refused("it is no valid address");
    };
    let default_port = |scheme: &str| match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    };
    let target_scheme = uri.scheme_str().unwrap_or_default();
    let Some(target_default) = default_port(target_scheme) else {
        return refused("it is neither https nor http");
    };
    if scheme == "https" && target_scheme != "https" {
        return refused("it leaves https");
    }
    if uri.authority().is_some_and(|it| it.as_str().contains('@')) {
        return refused("it names a user");
    }
    // A server that sends its clients from http to https moves them from the one default port to the other.
    let port = uri.port_u16().unwrap_or(target_default);
    let base_port = base.port_u16().or(default_port(scheme)).unwrap_or(0);
    let is_upgrade = scheme != target_scheme && base_port == 80 && port == 443;
    let is_same_host =
        uri.host().map(str::to_ascii_lowercase) == base.host().map(str::to_ascii_lowercase);
    if !is_same_host || (port != base_port && !is_upgrade) {
        return refused("it leads to another server");
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_with_the_same_server() {
        let check = |from: &str, location: &str| match resolve_redirect(from, location) {
            Ok(target) => target,
            Err(cause) => cause,
        };
        let from = "https://git.example.net/fleet/info/refs?service=git-upload-pack";
        insta::assert_snapshot!(check(from, "/fleet.git/info/refs"), @"https://git.example.net/fleet.git/info/refs");
        insta::assert_snapshot!(check(from, "https://GIT.example.net:443/fleet.git"), @"https://GIT.example.net:443/fleet.git");
        insta::assert_snapshot!(check(from, "//git.example.net/x"), @"https://git.example.net/x");
        insta::assert_snapshot!(check(from, "http://git.example.net/x"), @"refused a redirect to 'http://git.example.net/x': it leaves https");
        insta::assert_snapshot!(check(from, "https://evil.example/x"), @"refused a redirect to 'https://evil.example/x': it leads to another server");
        insta::assert_snapshot!(check(from, "https://git.example.net:8443/x"), @"refused a redirect to 'https://git.example.net:8443/x': it leads to another server");
        insta::assert_snapshot!(check(from, "//evil.example/x"), @"refused a redirect to '//evil.example/x': it leads to another server");
        insta::assert_snapshot!(check(from, "https://git.example.net@evil.example/x"), @"refused a redirect to 'https://git.example.net@evil.example/x': it names a user");
        insta::assert_snapshot!(check(from, "file:///etc/shadow"), @"refused a redirect to 'file:///etc/shadow': it is no valid address");
        insta::assert_snapshot!(check(from, "ftp://git.example.net/x"), @"refused a redirect to 'ftp://git.example.net/x': it is neither https nor http");
        insta::assert_snapshot!(check(from, ""), @"refused a redirect to '': it is no absolute address");
        let from = "http://git.example.net/fleet";
        insta::assert_snapshot!(check(from, "https://git.example.net/fleet"), @"https://git.example.net/fleet");
        insta::assert_snapshot!(check(from, "https://git.example.net:8443/fleet"), @"refused a redirect to 'https://git.example.net:8443/fleet': it leads to another server");
    }

    #[test]
    fn the_proxy_is_the_configured_one_or_the_environments_for_the_scheme() {
        let check = |configured: Option<&str>, url: &str, environment: &[(&str, &str)]| {
            let get = |name: &str| {
                let found = environment.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            match choose_proxy(configured, url, get) {
                Ok(proxy) => proxy.map_or("none".to_owned(), |it| it.host().to_owned()),
                Err(failure) => failure.message,
            }
        };
        let url = "https://git.example.net/fleet";
        let both = [
            ("http_proxy", "http://plain:1"),
            ("https_proxy", "http://tls:1"),
        ];
        assert_eq!(check(None, url, &[]), "none");
        assert_eq!(check(None, url, &both), "tls");
        assert_eq!(check(None, "http://git.example.net/fleet", &both), "plain");
        assert_eq!(check(Some("http://mine:1"), url, &both), "mine");
        assert_eq!(
            check(None, "http://a/", &[("HTTP_PROXY", "http://cgi:1")]),
            "none"
        );
        for (no_proxy, expected) in [
            ("example.net", "none"),
            ("other,.example.net", "none"),
            ("*", "none"),
            ("ample.net", "tls"),
            ("git.example.net.evil", "tls"),
        ] {
            let environment = [both[1], ("no_proxy", no_proxy)];
            assert_eq!(check(None, url, &environment), expected, "{no_proxy}");
        }
        for wrong in ["gopher://user:secret@x", "socks5://user:secret@x:1080"] {
            assert_eq!(
                check(Some(wrong), url, &[]),
                "invalid proxy address in source.proxy"
            );
        }
    }

    #[test]
    fn a_token_is_read_from_its_credential_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let credentials = Credentials::Directory(directory.path().to_owned());
        let check = |contents: &str, name: &str, username: Option<&str>| {
            std::fs::write(directory.path().join("git-token"), contents).unwrap();
            match read_authorization(name, username, &credentials) {
                Ok(secret) => {
                    assert_eq!(format!("{secret:?}"), "[redacted]");
                    secret.0
                }
                Err(trouble) => trouble.failure.message,
            }
        };
        insta::assert_snapshot!(check("s3cret\n", "git-token", None), @"Bearer s3cret");
        insta::assert_snapshot!(check("s3cret", "git-token", Some("oauth2")), @"Basic b2F1dGgyOnMzY3JldA==");
        insta::assert_snapshot!(check("a\nb", "git-token", None), @"failed to read credential 'git-token': it is empty, or not one line of ASCII");
        insta::assert_snapshot!(check("", "other", None), @"failed to read credential 'other': No such file or directory (os error 2)");
        insta::assert_snapshot!(check("", "../shadow", None), @"failed to read credential '../shadow': not the name of a credential");
    }
}
