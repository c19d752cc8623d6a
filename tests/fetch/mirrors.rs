//! Sources with mirrors.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use limpet::config::Source;
use limpet::fetch::Lane;

use crate::git_server::{GitServer, TOKEN};
use crate::setting::{LONG, SHORT, Setting, http_source, source_at};
use crate::{read_all, show};

fn with_mirrors(source: Source, mirrors: &[&str]) -> Source {
    Source {
        mirrors: mirrors.iter().map(|url| source_at(url).url).collect(),
        ..source
    }
}

/// A server that answers everything with `answer` and keeps what it was asked.
fn recorder(answer: &'static str) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = requests.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap_or(0);
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            kept.lock().unwrap().push(text);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (port, requests)
}

const GONE: &str = "HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const BUSY: &str =
    "HTTP/1.1 503 Busy\r\nRetry-After: 100\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[test]
fn mirrors_are_asked_in_turn_and_the_source_first_again() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let server = GitServer::start(&setting.repositories());
    let (port, requests) = recorder(GONE);
    let main = format!("http://127.0.0.1:{port}/fleet.git");
    let mirror = format!("{}/fleet.git", server.url);
    let source = with_mirrors(
        http_source(&main, Some(&server.ca_file)),
        &["https://127.0.0.1:1/none.git", &mirror],
    );
    let client = setting.fetcher(source, LONG);
    assert_eq!(client.poll(None).unwrap().id, first);
    assert_eq!(read_all(&client, first).unwrap(), 3);
    let asked = requests.lock().unwrap().len();
    assert!(asked > 0, "the source itself is asked first");

    let second = setting.commit("main", "second", &[("a", "2")]);
    let before = server.requests().len();
    assert_eq!(client.poll(Some(first)).unwrap().id, second);
    assert!(requests.lock().unwrap().len() > asked);
    let last = server.requests()[before..].to_vec();
    assert!(last[0].starts_with("POST"), "the cache is shared: {last:?}");
}

#[test]
fn a_bundle_and_a_repository_may_be_mirrors() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let bundle = setting.directory.path().join("fleet.bundle");
    setting.git(&["bundle", "create", "-q", bundle.to_str().unwrap(), "main"]);
    let second = setting.commit("main", "second", &[("a", "2")]);
    let main = "https://127.0.0.1:1/fleet.git";
    let repository = setting.repository();
    let both = [bundle.to_str().unwrap(), repository.to_str().unwrap()];
    let client = setting.fetcher(with_mirrors(http_source(main, None), &both), LONG);
    assert_eq!(client.poll(None).unwrap().id, first);
    assert_eq!(read_all(&client, first).unwrap(), 3);
    std::fs::remove_file(&bundle).unwrap();
    assert_eq!(client.poll(None).unwrap().id, second);
    assert_eq!(read_all(&client, second).unwrap(), 3);
}

#[test]
fn a_token_is_shown_to_the_sources_own_server_only() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let server = GitServer::start(&setting.repositories());
    let other = GitServer::start(&setting.repositories());
    let credentials = setting.directory.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::write(credentials.join("git-token"), TOKEN).unwrap();
    let both = setting.directory.path().join("both.pem");
    let pem = [&server.ca_file, &other.ca_file].map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(&both, pem.concat()).unwrap();
    let poll = |mirror: &str| {
        let _ = std::fs::remove_dir_all(setting.cache());
        let main = format!("{}/none.git", server.url);
        let source = Source {
            token: Some("git-token".to_owned()),
            ..with_mirrors(http_source(&main, Some(&both)), &[mirror])
        };
        setting
            .fetcher_with_credentials(source, LONG, Some(credentials.clone()))
            .poll(None)
    };
    let same = poll(&format!("{}/private/fleet.git", server.url));
    assert_eq!(same.unwrap().id, first);
    let trouble = poll(&format!("{}/private/fleet.git", other.url)).unwrap_err();
    insta::assert_snapshot!(show(&trouble.failure, &[(&server.url, "URL"), (&other.url, "OTHER")]), @"
    Host: failed to fetch from 'URL/none.git': there is no such repository (HTTP status 404); failed to fetch from 'OTHER/private/fleet.git': the server wants credentials (HTTP status 401)
    hint: check source.url; some servers also say so to those who may not read it
    ");
    assert_eq!(trouble.lane, Lane::Denied);

    // In clear text not even to the same host.
    let (port, requests) = recorder(GONE);
    poll(&format!("http://127.0.0.1:{port}/x.git")).unwrap_err();
    let asked = requests.lock().unwrap().join("\n").to_ascii_lowercase();
    assert!(asked.contains("git-protocol"), "{asked}");
    assert!(!asked.contains("authorization"), "{asked}");
}

#[test]
fn a_place_that_asks_for_rest_is_left_alone_while_there_is_another() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let server = GitServer::start(&setting.repositories());
    let (port, requests) = recorder(BUSY);
    let main = format!("http://127.0.0.1:{port}/fleet.git");
    let mirror = format!("{}/fleet.git", server.url);
    let source = with_mirrors(http_source(&main, Some(&server.ca_file)), &[&mirror]);
    let client = setting.fetcher(source, LONG);
    assert_eq!(client.poll(None).unwrap().id, first);
    assert_eq!(client.poll(None).unwrap().id, first);
    assert_eq!(requests.lock().unwrap().len(), 1);

    // When all ask for it, the schedule waits.
    drop(server);
    let source = with_mirrors(http_source(&main, None), &[&main]);
    let trouble = setting.fetcher(source, SHORT).poll(None).unwrap_err();
    assert_eq!(trouble.retry_after_secs, Some(100));
    assert_eq!(trouble.lane, Lane::Ordinary);
}
