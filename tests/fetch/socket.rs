//! The socket between applier and fetcher, and fetchers as processes.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use limpet::fetch::child::Launch;
use limpet::fetch::{Child, Client, Upstream};
use limpet::git::{ObjectError, ObjectId, Objects};

use crate::setting::{LONG, Setting, local_source};
use crate::{read_all, show};

const ID: &str = "3f2a91c0d4e5b6a798081726354433221100ffee";

fn id() -> ObjectId {
    ID.parse().unwrap()
}

/// A client of a fetcher that says `answer` to the first request and hangs up.
fn client_of(answer: &'static [u8]) -> Client {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let _ = theirs.read(&mut [0; 4096]);
        let _ = theirs.write_all(answer);
    });
    Client::over(ours)
}

#[test]
fn a_fetcher_that_talks_nonsense_is_transient() {
    let poll = |answer| show(&client_of(answer).poll(None).unwrap_err().failure, &[]);
    insta::assert_snapshot!(poll(b""), @"
    Transient: failed to talk to the fetcher: it hung up in the middle
    hint: see 'journalctl -u limpet-fetch.service'
    ");
    insta::assert_snapshot!(poll(b"tip 12\n"), @"
    Transient: failed to talk to the fetcher: it talks nonsense: expected an object's id, got '12'
    hint: see 'journalctl -u limpet-fetch.service'
    ");
    insta::assert_snapshot!(poll(b"\x00\xff\x16\x03\x01\n"), @"
    Transient: failed to talk to the fetcher: it talks nonsense: a line is not UTF-8
    hint: see 'journalctl -u limpet-fetch.service'
    ");
    insta::assert_snapshot!(poll(b"tip 3f2a91c0d4e5b6a798081726354433221100ffee\ntip"), @"
    Transient: failed to talk to the fetcher: it talks nonsense: more bytes than the answer has
    hint: see 'journalctl -u limpet-fetch.service'
    ");
    insta::assert_snapshot!(poll(b"failure {\"class\":\"no\"}\n"), @"
    Transient: failed to talk to the fetcher: it talks nonsense: invalid failure: unknown variant `no`, expected one of `transient`, `refused`, `author`, `host`, `config`, `bug` at line 1 column 13
    hint: see 'journalctl -u limpet-fetch.service'
    ");

    let get = |answer| client_of(answer).get(&id()).unwrap_err().to_string();
    insta::assert_snapshot!(get(b"object blob 99999999999\n"), @"failed to talk to the fetcher: it talks nonsense: an object of 99999999999 bytes is over the limit");
    insta::assert_snapshot!(get(b"object blob 10\nhalf"), @"failed to talk to the fetcher: it hung up in the middle");
    insta::assert_snapshot!(get(b"object sock 1\nx"), @"failed to talk to the fetcher: it talks nonsense: expected an object's kind, got 'sock'");
    assert_eq!(
        client_of(b"missing\n").get(&id()),
        Err(ObjectError::Missing(id()))
    );
    assert_eq!(
        client_of(b"too-large\n").get(&id()),
        Err(ObjectError::TooLarge(id()))
    );
}

#[test]
fn a_client_that_talks_nonsense_is_told_and_hung_up_on() {
    let setting = Setting::new();
    let tip = setting.commit("main", "first", &[("a", "1")]);
    let client = setting.fetcher(local_source(&setting.repository()), LONG);
    let mut stream = UnixStream::connect(setting.directory.path().join("fetch.sock")).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    insta::assert_snapshot!(answer, @r#"failure {"class":"bug","message":"invalid request: expected a request, got 'GET / HTTP/1.1\\r'","resource":null,"location":null}"#);
    assert_eq!(client.poll(None).unwrap().id, tip, "others are served on");
}

#[test]
fn requests_may_be_sent_ahead() {
    let setting = Setting::new();
    let tip = setting.commit("main", "first", &[("a", "1")]);
    let _client = setting.fetcher(local_source(&setting.repository()), LONG);
    let mut stream = UnixStream::connect(setting.directory.path().join("fetch.sock")).unwrap();
    stream
        .write_all(format!("poll -\nobject {ID}\npoll {ID}\n").as_bytes())
        .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, format!("tip {tip}\nmissing\ntip {tip}\n"));
}

#[test]
fn nobody_listening_is_transient() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fetch.sock");
    let place = directory.path().to_str().unwrap();
    let failure = Client::connect(&path).unwrap_err();
    insta::assert_snapshot!(show(&failure, &[(place, "DIR")]), @"
    Transient: failed to connect to the fetcher at 'DIR/fetch.sock': No such file or directory (os error 2)
    hint: see 'systemctl status limpet-fetch.socket'
    ");
}

#[test]
fn a_fetcher_that_was_restarted_is_asked_again() {
    let setting = Setting::new();
    let tip = setting.commit("main", "first", &[("a", "1")]);
    let path = setting.directory.path().join("fetch.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let first = Client::connect(&path).unwrap();
    drop(listener.accept().unwrap());
    drop(listener);
    let _second = setting.fetcher(local_source(&setting.repository()), LONG);
    assert_eq!(first.poll(None).unwrap().id, tip);
    assert_eq!(read_all(&first, tip).unwrap(), 3);
}

fn launch(setting: &Setting) -> Launch {
    Launch {
        program: PathBuf::from(env!("CARGO_BIN_EXE_limpet")),
        cache: setting.cache(),
        drop_to: None,
        secrets: None,
    }
}

#[test]
fn a_child_serves_and_ends_with_its_client() {
    let setting = Setting::new();
    let tip = setting.commit("main", "first", &[("a", "1")]);
    let child = Child::spawn(&launch(&setting), &local_source(&setting.repository())).unwrap();
    assert_eq!(child.poll(None).unwrap().id, tip);
    assert_eq!(read_all(&child, tip).unwrap(), 3);
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    let status = std::fs::read_to_string(process.join("status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let arguments = std::fs::read_to_string(process.join("cmdline")).unwrap();
    assert_eq!(arguments, "limpet\0fetch\0");
    drop(child);
    assert!(!process.exists());
}

#[test]
fn a_killed_child_is_a_clear_failure() {
    let setting = Setting::new();
    setting.commit("main", "first", &[("a", "1")]);
    let child = Child::spawn(&launch(&setting), &local_source(&setting.repository())).unwrap();
    child.poll(None).unwrap();
    let process = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
    insta::assert_snapshot!(show(&child.poll(None).unwrap_err().failure, &[]), @"
    Transient: failed to talk to the fetcher: it hung up in the middle
    hint: see 'journalctl -u limpet-fetch.service'
    ");
    insta::assert_snapshot!(show(&child.poll(None).unwrap_err().failure, &[]), @"
    Transient: failed to talk to the fetcher: it is gone
    hint: see 'journalctl -u limpet-fetch.service'
    ");
}

#[test]
fn the_child_of_root_is_nobody() {
    if !nix::unistd::Uid::effective().is_root() {
        return; // only root can become somebody else
    }
    let setting = Setting::new();
    let tip = setting.commit("main", "first", &[("a", "1")]);
    open_to_all(setting.directory.path());
    let launch = Launch {
        drop_to: Some((65534, 65534)),
        ..launch(&setting)
    };
    // The build directory may be closed to nobody, but the program's file is open already when it is executed by descriptor.
    let child = Child::spawn(&launch, &local_source(&setting.repository())).unwrap();
    assert_eq!(child.poll(None).unwrap().id, tip);
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.unwrap().split_once(':').unwrap().1.trim().to_owned()
    };
    assert_eq!(line("Uid"), "65534\t65534\t65534\t65534");
    assert_eq!(line("Gid"), "65534\t65534\t65534\t65534");
    assert_eq!(line("Groups"), "");
    assert_eq!(line("CapEff"), "0000000000000000");
}

fn open_to_all(path: &Path) {
    let status = Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(path)
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn a_terminal_is_no_socket() {
    let output = Command::new(env!("CARGO_BIN_EXE_limpet"))
        .arg("fetch")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @"
    error: failed to use standard input as a socket: ENOTSOCK: Socket operation on non-socket
    hint: limpet-fetch.socket starts the fetcher when the agent needs it
    ");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_parent_that_talks_nonsense_ends_the_child() {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_limpet"))
        .arg("fetch")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    ours.write_all(b"start {\"url\": 1}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @"error: failed to serve the parent: invalid start line: invalid type: integer `1`, expected a string at line 1 column 9");
    assert_eq!(output.status.code(), Some(75));
}
