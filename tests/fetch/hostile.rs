//! Servers that misbehave.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;

use limpet::fetch::child::Launch;
use limpet::fetch::{Child, Lane, Trouble, Upstream};
use limpet::model::Class;

use crate::setting::{SHORT, Setting, http_source, source_at};
use crate::show;

/// Polls a server that answers every connection by `answer`, and says how that ends.
fn check(answer: impl Fn(TcpStream) + Send + 'static) -> String {
    let (trouble, url) = trouble_with(answer);
    show(&trouble.failure, &[(&url, "URL")])
}

/// The trouble with such a server, and its address.
fn trouble_with(answer: impl Fn(TcpStream) + Send + 'static) -> (Trouble, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream);
        }
    });
    let setting = Setting::new();
    let url = format!("http://127.0.0.1:{port}");
    let client = setting.fetcher(http_source(&format!("{url}/fleet.git"), None), SHORT);
    (client.poll(None).unwrap_err(), url)
}

/// Answers with `response` to whatever is asked, once per connection.
fn always(response: impl AsRef<[u8]> + Send + 'static) -> impl Fn(TcpStream) + Send {
    move |mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(response.as_ref());
    }
}

fn status(line: &str) -> String {
    format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

fn body(bytes: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        bytes.len()
    );
    [head.as_bytes(), bytes].concat()
}

#[test]
fn statuses_are_explained() {
    insta::assert_snapshot!(check(always(status("429 Slow\r\nRetry-After: 120"))), @"
    Transient: failed to fetch from 'URL/fleet.git': the server asks to come less often (HTTP status 429); it asks to wait 120 s
    hint: none
    ");
    insta::assert_snapshot!(check(always(status("429 Slow\r\nRetry-After: Fri, 21 Nov 2026"))), @"
    Transient: failed to fetch from 'URL/fleet.git': the server asks to come less often (HTTP status 429)
    hint: none
    ");
    insta::assert_snapshot!(check(always(status("500 Oops"))), @"
    Transient: failed to fetch from 'URL/fleet.git': the server is in trouble (HTTP status 500)
    hint: none
    ");
    insta::assert_snapshot!(check(always(status("403 No"))), @"
    Host: failed to fetch from 'URL/fleet.git': the server forbids reading the repository (HTTP status 403)
    hint: give this host's credentials read access to it
    ");
    insta::assert_snapshot!(check(always(status("418 Teapot"))), @"
    Host: failed to fetch from 'URL/fleet.git': the server's answer makes no sense (HTTP status 418)
    hint: check that source.url is a Git repository
    ");
    insta::assert_snapshot!(check(always(status("302 Found"))), @"
    Host: failed to fetch from 'URL/fleet.git': refused a redirect to '': it is no absolute address
    hint: configure the repository's final address
    ");
}

#[test]
fn a_status_says_how_soon_to_ask_again() {
    let check = |line: &str| {
        let trouble = trouble_with(always(status(line))).0;
        (trouble.lane, trouble.retry_after_secs)
    };
    for line in ["401 Who", "403 No", "404 None", "410 Gone", "407 Proxy"] {
        assert_eq!(check(line), (Lane::Denied, None), "{line}");
    }
    for line in ["500 Oops", "503 Busy", "429 Slow", "418 Teapot"] {
        assert_eq!(check(line), (Lane::Ordinary, None), "{line}");
    }
    let wait = |line: &str| check(line).1;
    assert_eq!(wait("503 Busy\r\nRetry-After: 7"), Some(7));
    assert_eq!(wait("404 None\r\nRetry-After: 7"), Some(7));
    assert_eq!(wait("503 Busy\r\nRetry-After: 999999"), Some(86_400));
    let dates = "503 Busy\r\nDate: Wed, 01 Jan 2031 00:00:00 GMT\r\nRetry-After: Wed, 01 Jan 2031 00:02:00 GMT";
    assert_eq!(wait(dates), Some(120));
    assert_eq!(wait("503 Busy\r\nRetry-After: soon"), None);
}

#[test]
fn a_host_without_a_network_is_offline() {
    let setting = Setting::new();
    let program = setting.directory.path().join("limpet");
    let script = format!(
        "#!/bin/sh\nexec unshare --map-root-user --net {} \"$@\"\n",
        env!("CARGO_BIN_EXE_limpet")
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let launch = Launch {
        program,
        cache: setting.cache(),
        drop_to: None,
        secrets: None,
    };
    for url in [
        "http://192.0.2.1/fleet.git",
        "http://fleet.example.net/fleet.git",
        "ssh://git@192.0.2.1/fleet.git",
        "ssh://git@fleet.example.net/fleet.git",
    ] {
        let child = Child::spawn(&launch, &source_at(url)).unwrap();
        let trouble = child.poll(None).unwrap_err();
        assert_eq!(trouble.lane, Lane::Offline, "{trouble:?}");
        assert_eq!(trouble.failure.class, Class::Transient, "{trouble:?}");
    }
}

#[test]
fn nonsense_is_explained() {
    insta::assert_snapshot!(check(always("SSH-2.0-OpenSSH_9.2\r\n")), @"
    Transient: failed to fetch from 'URL/fleet.git': the server does not speak HTTP: http parse fail: invalid HTTP version
    hint: check source.url
    ");
    insta::assert_snapshot!(check(always(body(b"<html>welcome</html>"))), @"
    Host: failed to fetch from 'URL/fleet.git': the server does not speak Git: it is not in packet lines
    hint: check that source.url is the address one would clone
    ");
    insta::assert_snapshot!(check(always(body(b""))), @"
    Host: failed to fetch from 'URL/fleet.git': the server does not speak Git: it lists nothing
    hint: check that source.url is the address one would clone
    ");
    insta::assert_snapshot!(check(always(body(b"001e# service=git-upload-pack\n0000ffff"))), @"
    Host: failed to fetch from 'URL/fleet.git': the server does not speak Git: it ends in the middle
    hint: check that source.url is the address one would clone
    ");
    insta::assert_snapshot!(check(always("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")), @"
    Transient: failed to fetch from 'URL/fleet.git': the server hung up in the middle
    hint: none
    ");
    insta::assert_snapshot!(check(drop), @"
    Transient: failed to fetch from 'URL/fleet.git': the server hung up in the middle
    hint: none
    ");
}

#[test]
fn silence_and_dripping_end_by_the_limits() {
    insta::assert_snapshot!(check(std::mem::forget), @"
    Transient: failed to fetch from 'URL/fleet.git': the server was silent for 1 s
    hint: none
    ");
    insta::assert_snapshot!(check(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        for _ in 0..40 {
            std::thread::sleep(std::time::Duration::from_millis(200));
            if stream.write_all(b"0").is_err() {
                return;
            }
        }
    }), @"
    Transient: failed to fetch from 'URL/fleet.git': not finished within 3 s
    hint: none
    ");
}

#[test]
fn a_server_that_sends_too_much_is_stopped() {
    insta::assert_snapshot!(check(always(body(&[b'0'; 2 << 20]))), @"
    Host: failed to fetch from 'URL/fleet.git': the server sent more than 1 MiB
    hint: files of that size do not belong in a repository of configuration
    ");
}

#[test]
fn half_a_pack_is_explained() {
    insta::assert_snapshot!(check(git_with_pack(9)), @"
    Transient: failed to fetch from 'URL/fleet.git': the server's answer makes no sense: Failed to consume the pack sent by the remote: Failed to write the received pack: An IO operation failed while streaming an entry: failed to fill whole buffer
    hint: none
    ");
}

#[test]
fn a_pack_of_too_many_objects_is_refused_by_its_header() {
    insta::assert_snapshot!(check(git_with_pack(u32::MAX)), @"
    Host: failed to fetch from 'URL/fleet.git': it holds 4294967295 objects, and no more than 1000 are taken at once
    hint: a repository of configuration has far fewer; check source.url
    ");
}

/// A Git server whose pack says that it holds `count` objects, and then ends.
fn git_with_pack(count: u32) -> impl Fn(TcpStream) + Send {
    let id = "3f2a91c0d4e5b6a798081726354433221100ffee";
    let packet = |line: &str| format!("{:04x}{line}", line.len() + 4);
    let introduction =
        packet("version 2\n") + &packet("ls-refs\n") + &packet("fetch=shallow\n") + "0000";
    let listing = packet(&format!("{id} refs/heads/main\n")) + "0000";
    let header = [&b"\x01PACK\0\0\0\x02"[..], &count.to_be_bytes()].concat();
    let pack = [packet("packfile\n").as_bytes(), b"0011", &header].concat();
    let (introduction, listing) = (introduction.into_bytes(), listing.into_bytes());
    move |mut stream: TcpStream| {
        let mut request = vec![0; 8192];
        let count = stream.read(&mut request).unwrap_or(0);
        let mut request = String::from_utf8_lossy(&request[..count]).into_owned();
        if request.starts_with("POST") && !request.contains("command=") {
            let mut rest = vec![0; 8192];
            let count = stream.read(&mut rest).unwrap_or(0);
            request += &String::from_utf8_lossy(&rest[..count]);
        }
        let (kind, text) = if request.starts_with("GET") {
            ("advertisement", &introduction)
        } else if request.contains("command=ls-refs") {
            ("result", &listing)
        } else {
            ("result", &pack)
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-{kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            text.len()
        );
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(text);
    }
}

#[test]
fn an_unknown_name_and_a_closed_port_are_explained() {
    let setting = Setting::new();
    let poll = |url: &str| {
        let client = setting.fetcher(http_source(url, None), SHORT);
        show(&client.poll(None).unwrap_err().failure, &[])
    };
    insta::assert_snapshot!(poll("http://fleet.invalid/fleet.git"), @"
    Transient: failed to fetch from 'http://fleet.invalid/fleet.git': found no address of 'fleet.invalid': Name or service not known
    hint: check the name, and this host's DNS
    ");
    insta::assert_snapshot!(poll("http://127.0.0.1:1/fleet.git"), @"
    Transient: failed to fetch from 'http://127.0.0.1:1/fleet.git': Connection refused (os error 111)
    hint: none
    ");
}
