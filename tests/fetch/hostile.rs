//! Servers that misbehave.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::setting::{SHORT, Setting, http_source};
use crate::show;

/// Polls a server that answers every connection by `answer`, and says how that ends.
fn check(answer: impl Fn(TcpStream) + Send + 'static) -> String {
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
    let failure = client.poll(None).unwrap_err();
    show(&failure, &[(&url, "URL")])
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
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
    [head.as_bytes(), bytes].concat()
}

#[test]
fn statuses_are_explained() {
    insta::assert_snapshot!(check(always(status("429 Slow\r\nRetry-After: 120"))), @"");
    insta::assert_snapshot!(check(always(status("429 Slow\r\nRetry-After: Fri, 21 Nov 2026"))), @"");
    insta::assert_snapshot!(check(always(status("500 Oops"))), @"");
    insta::assert_snapshot!(check(always(status("403 No"))), @"");
    insta::assert_snapshot!(check(always(status("418 Teapot"))), @"");
    insta::assert_snapshot!(check(always(status("302 Found"))), @"");
}

#[test]
fn nonsense_is_explained() {
    insta::assert_snapshot!(check(always("SSH-2.0-OpenSSH_9.2\r\n")), @"");
    insta::assert_snapshot!(check(always(body(b"<html>welcome</html>"))), @"");
    insta::assert_snapshot!(check(always(body(b""))), @"");
    insta::assert_snapshot!(check(always(body(b"001e# service=git-upload-pack\n0000ffff"))), @"");
    insta::assert_snapshot!(check(always("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")), @"");
    insta::assert_snapshot!(check(drop), @"");
}

#[test]
fn silence_and_dripping_end_by_the_limits() {
    insta::assert_snapshot!(check(|stream| std::mem::forget(stream)), @"");
    insta::assert_snapshot!(check(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
        for _ in 0..40 {
            std::thread::sleep(std::time::Duration::from_millis(200));
            if stream.write_all(b"0").is_err() {
                return;
            }
        }
    }), @"");
}

#[test]
fn half_a_pack_is_explained() {
    let id = "3f2a91c0d4e5b6a798081726354433221100ffee";
    let packet = |line: &str| format!("{:04x}{line}", line.len() + 4);
    let introduction = packet("version 2\n") + &packet("ls-refs\n") + &packet("fetch=shallow\n") + "0000";
    let listing = packet(&format!("{id} refs/heads/main\n")) + "0000";
    let pack = packet("packfile\n") + &packet("\u{1}PACK\0\0\0\u{2}\0\0\0\u{9}");
    let answer = move |mut stream: TcpStream| {
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
        let _ = stream.write_all(text.as_bytes());
    };
    insta::assert_snapshot!(check(answer), @"");
}

#[test]
fn an_unknown_name_and_a_closed_port_are_explained() {
    let setting = Setting::new();
    let poll = |url: &str| {
        let client = setting.fetcher(http_source(url, None), SHORT);
        show(&client.poll(None).unwrap_err(), &[])
    };
    insta::assert_snapshot!(poll("http://fleet.invalid/fleet.git"), @"");
    insta::assert_snapshot!(poll("http://127.0.0.1:1/fleet.git"), @"");
}
