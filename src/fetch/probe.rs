//! Health checks over the network, asked on behalf of the applier, which has none.
//!
//! Invariant: a probe ends within its limit, follows no redirect, reads no body, and carries no credential.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::DefaultResolver;

use super::connect::connector;
use super::http::read_roots;
use crate::model::{Class, Failure};

const USER_AGENT: &str = concat!("limpet/", env!("CARGO_PKG_VERSION"));

/// A GET of `url`; a status from 200 to 299 is what is hoped for.
pub fn ask_http(url: &str, limit: Duration) -> Result<(), Failure> {
    let failed =
        |cause: &str| Failure::new(Class::Transient, format!("failed to get '{url}': {cause}"));
    let roots = match url.starts_with("https://") {
        true => read_roots(None)?,
        false => Vec::new(),
    };
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // What is checked is mostly this host itself.
        .proxy(None)
        .user_agent(USER_AGENT)
        .timeout_global(Some(limit))
        .tls_config(tls)
        .build();
    let agent = ureq::Agent::with_parts(config, connector(), DefaultResolver::default());
    match agent.get(url).call() {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => Err(failed(&format!(
            "HTTP status {}",
            response.status().as_u16()
        ))),
        Err(ureq::Error::Timeout(_)) => Err(failed(&format!(
            "no answer within {} s",
            limit.as_secs_f32()
        ))),
        Err(error) => Err(failed(&error.to_string())),
    }
}

/// A connection to `address`, which is `host:port`.
pub fn ask_tcp(address: &str, limit: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    let failed = |error: &io::Error| {
        Failure::new(
            Class::Transient,
            format!("failed to connect to '{address}': {error}"),
        )
    };
    let addresses = address.to_socket_addrs().map_err(|error| failed(&error))?;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            last = io::ErrorKind::TimedOut.into();
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(failed(&last))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// Answers one request with `answer`, and returns its address and what it was asked.
    fn server(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 2048];
            let count = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        (address, served)
    }

    fn get(answer: &'static str) -> (Result<(), Failure>, String) {
        let (address, served) = server(answer);
        let result = ask_http(&format!("http://{address}/health"), LIMIT);
        (result, served.join().unwrap())
    }

    #[test]
    fn a_status_of_success_is_healthy_and_nothing_else_is() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ] {
            let (result, asked) = get(answer);
            assert_eq!(result, Ok(()));
            assert!(asked.starts_with("GET /health HTTP/1.1\r\n"), "{asked}");
        }
        for status in [
            "302 Found\r\nLocation: http://127.0.0.1:1/",
            "404 Not Found",
            "503 Service Unavailable",
        ] {
            let answer: &'static str =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").leak();
            let failure = get(answer).0.unwrap_err();
            assert!(
                failure
                    .message
                    .ends_with(&format!("HTTP status {}", &status[..3])),
                "{failure}"
            );
        }
        assert!(get("SSH-2.0-OpenSSH\r\n").0.is_err());
    }

    #[test]
    fn a_server_that_says_nothing_costs_its_limit_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let begun = Instant::now();
        let failure =
            ask_http(&format!("http://{address}/"), Duration::from_millis(300)).unwrap_err();
        assert!(
            failure.message.ends_with("no answer within 0.3 s"),
            "{failure}"
        );
        assert!(begun.elapsed() < Duration::from_secs(3));
    }

    #[test]
    fn who_listens_is_told_from_who_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(ask_tcp(&address, LIMIT), Ok(()));
        drop(listener);
        let failure = ask_tcp(&address, LIMIT).unwrap_err();
        assert!(failure.message.contains("Connection refused"), "{failure}");
    }
}
