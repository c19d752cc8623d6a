//! The wire between applier and fetcher: one line per request, one line per answer, raw bytes after an object's line.
//!
//! ```text
//! start {"url":…,"cache":…}         (only a child, once, before anything else; no answer)
//! poll <trusted id | ->             →  tip <id> [<tag>]   | trouble <json>
//! probe {"target":…,"limit_ms":…}    →  healthy             | failure <json>
//! sysctl ["net.…", …]               →  values […]          | failure <json>
//! artifact {"url":…,"sha256":…}     →  artifact <size>\n<size bytes> | downloading <json> | failure <json>
//! object <id>                       →  object <kind> <size>\n<size bytes> | missing | too-large | failure <json>
//! ```
//!
//! Requests may be sent ahead of their answers; answers come in the order of the requests. An id names its own hash function by
//! its length, so the object format of a repository needs no field of its own.
//!
//! Invariant: no line is longer than [`MAX_LINE_BYTES`], no object larger than [`MAX_OBJECT_BYTES`], and no input whatsoever makes
//! either side panic or reserve memory that the peer has not filled.

use std::io::{self, BufRead, Read, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Trouble;
use crate::config::read_version;
use crate::git::{MAX_OBJECT_BYTES, Object, ObjectId, ObjectKind};
use crate::model::{Class, Failure};

/// The longest line either side sends or reads, with its end.
pub const MAX_LINE_BYTES: usize = 64 << 10;

/// How much memory a claimed size may reserve before the bytes are there.
const MAX_RESERVED_BYTES: u64 = 1 << 20;

/// What the applier asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Look at the source for a new tip, and fetch it.
    Poll {
        /// The last trusted commit, which is worth having even when the branch no longer leads to it.
        trusted: Option<ObjectId>,
    },
    /// One object by id.
    Object(ObjectId),
    /// A health check that needs the network.
    Probe(Probe),
    /// The live values of these parameters of the kernel, at most [`MAX_SYSCTLS`]: they belong to the network.
    Sysctls(Vec<String>),
    /// A file that is declared by its address and hash.
    Artifact(Artifact),
}

/// A file that is declared by its address and hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// Where it is: https:// or http://.
    pub url: String,
    /// Its SHA-256, in lower-case hex.
    pub sha256: String,
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Downloading {
    /// The bytes that are here.
    pub have: u64,
    /// Those that there are, where the server says so.
    pub total: Option<u64>,
}

/// What goes before the bytes of an artifact, or stands in their place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArtifactAnswer {
    /// So many bytes follow.
    Whole(u64),
    /// It is on its way.
    Downloading(Downloading),
    /// It cannot be had.
    Failure(Failure),
}

/// How many parameters are asked about at a time.
pub const MAX_SYSCTLS: usize = 32;

/// What was seen of one parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// Its value, as the kernel writes it.
    Value(String),
    /// There is no such parameter.
    Missing,
    /// Why it cannot be read.
    Unreadable(String),
}

/// A health check that needs the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// What is asked.
    pub target: Target,
    /// How long it may take, at most [`MAX_PROBE`].
    pub limit_ms: u64,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A GET of this address.
    Http(String),
    /// A connection to `host:port`.
    Tcp(String),
    /// The source itself, with new connections and certificates, names and credentials read again.
    Source,
}

/// How long one probe may take.
pub const MAX_PROBE: Duration = Duration::from_secs(60 * 60);

/// What a source offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tip {
    /// The branch's commit, or the release's tag object; the id's kind is the repository's object format.
    pub id: ObjectId,
    /// The name of the tag, where releases are followed: it is a version.
    pub tag: Option<String>,
}

/// What the fetcher answers to a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PollAnswer {
    /// What the source offers, fetched with all it needs.
    Tip(Tip),
    /// It could not be had.
    Trouble(Trouble),
}

/// What the fetcher answers when asked for an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectAnswer {
    /// Here it is, whatever it hashes to.
    Found(Object),
    /// The cache does not have it.
    Missing,
    /// It is larger than [`MAX_OBJECT_BYTES`].
    TooLarge,
    /// It could not be read.
    Failure(Failure),
}

/// Writes `request`.
pub fn write_request(out: &mut impl Write, request: &Request) -> io::Result<()> {
    match request {
        Request::Poll { trusted: Some(id) } => writeln!(out, "poll {id}"),
        Request::Poll { trusted: None } => out.write_all(b"poll -\n"),
        Request::Object(id) => writeln!(out, "object {id}"),
        Request::Probe(probe) => {
            let json = serde_json::to_string(probe).map_err(io::Error::other)?;
            write_line(out, &format!("probe {json}"))
        }
        Request::Sysctls(names) => {
            let json = serde_json::to_string(names).map_err(io::Error::other)?;
            write_line(out, &format!("sysctl {json}"))
        }
        Request::Artifact(artifact) => {
            let json = serde_json::to_string(artifact).map_err(io::Error::other)?;
            write_line(out, &format!("artifact {json}"))
        }
    }
}

/// Reads the next request, with `line` as memory to read it into; `None` when the client has hung up.
pub fn read_request(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let Some(line) = read_line(input, line)? else {
        return Ok(None);
    };
    let request = match line.split_once(' ') {
        Some(("poll", "-")) => Request::Poll { trusted: None },
        Some(("poll", id)) => Request::Poll {
            trusted: Some(parse_id(id)?),
        },
        Some(("object", id)) => Request::Object(parse_id(id)?),
        Some(("probe", json)) => Request::Probe(
            serde_json::from_str(json)
                .map_err(|error| invalid(format!("invalid probe: {error}")))?,
        ),
        Some(("sysctl", json)) => Request::Sysctls(
            serde_json::from_str(json)
                .map_err(|error| invalid(format!("invalid names: {error}")))?,
        ),
        Some(("artifact", json)) => Request::Artifact(
            serde_json::from_str(json)
                .map_err(|error| invalid(format!("invalid artifact: {error}")))?,
        ),
        _ => return Err(unexpected("a request", line)),
    };
    Ok(Some(request))
}

/// Writes the answer to a poll.
pub fn write_poll_answer(out: &mut impl Write, answer: &PollAnswer) -> io::Result<()> {
    match answer {
        PollAnswer::Tip(Tip { id, tag: None }) => writeln!(out, "tip {id}"),
        PollAnswer::Tip(Tip { id, tag: Some(tag) }) => write_line(out, &format!("tip {id} {tag}")),
        PollAnswer::Trouble(trouble) => write_trouble(out, trouble),
    }
}

/// Reads the answer to a poll.
pub fn read_poll_answer(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<PollAnswer> {
    let line = read_answer_line(input, line)?;
    match line.split_once(' ') {
        Some(("tip", offered)) => parse_tip(offered).map(PollAnswer::Tip),
        Some(("trouble", json)) => {
            let trouble: Trouble = serde_json::from_str(json)
                .map_err(|error| invalid(format!("invalid trouble: {error}")))?;
            let failure = of_the_fetcher(trouble.failure);
            Ok(PollAnswer::Trouble(Trouble { failure, ..trouble }))
        }
        // What it says of a request that it could not read.
        Some(("failure", json)) => Ok(PollAnswer::Trouble(parse_failure(json)?.into())),
        _ => Err(unexpected("the answer to a poll", line)),
    }
}

/// `<id>`, or `<id> <tag>`.
fn parse_tip(text: &str) -> io::Result<Tip> {
    let (id, tag) = match text.split_once(' ') {
        Some((id, tag)) => (id, Some(tag)),
        None => (text, None),
    };
    if tag.is_some_and(|tag| read_version(tag).is_none()) {
        return Err(unexpected("a tag that is a version", text));
    }
    Ok(Tip {
        id: parse_id(id)?,
        tag: tag.map(str::to_owned),
    })
}

/// Writes the answer to a probe.
pub fn write_probe_answer(out: &mut impl Write, answer: &Result<(), Failure>) -> io::Result<()> {
    match answer {
        Ok(()) => out.write_all(b"healthy\n"),
        Err(failure) => write_failure(out, failure),
    }
}

/// Reads the answer to a probe.
pub fn read_probe_answer(
    input: &mut impl BufRead,
    line: &mut Vec<u8>,
) -> io::Result<Result<(), Failure>> {
    let line = read_answer_line(input, line)?;
    match line.split_once(' ') {
        None if line == "healthy" => Ok(Ok(())),
        Some(("failure", json)) => Ok(Err(parse_failure(json)?)),
        _ => Err(unexpected("the answer to a probe", line)),
    }
}

/// Writes what goes before the bytes of an artifact, or stands in their place.
pub fn write_artifact_answer(out: &mut impl Write, answer: &ArtifactAnswer) -> io::Result<()> {
    match answer {
        ArtifactAnswer::Whole(size) => writeln!(out, "artifact {size}"),
        ArtifactAnswer::Downloading(far) => {
            let json = serde_json::to_string(far).map_err(io::Error::other)?;
            write_line(out, &format!("downloading {json}"))
        }
        ArtifactAnswer::Failure(failure) => write_failure(out, failure),
    }
}

/// Reads what goes before the bytes of an artifact, or stands in their place.
pub fn read_artifact_answer(
    input: &mut impl BufRead,
    line: &mut Vec<u8>,
) -> io::Result<ArtifactAnswer> {
    let line = read_answer_line(input, line)?;
    match line.split_once(' ') {
        Some(("artifact", size)) => Ok(ArtifactAnswer::Whole(parse_size(size)?)),
        Some(("downloading", json)) => serde_json::from_str(json)
            .map(ArtifactAnswer::Downloading)
            .map_err(|error| invalid(format!("invalid answer: {error}"))),
        Some(("failure", json)) => {
            let told: Result<Failure, _> = serde_json::from_str(json);
            let mut failure = parse_failure(json)?;
            // That a file is another than declared, or nowhere, may be said: nothing follows from it.
            if told.is_ok_and(|told| told.class == Class::Author) {
                failure.class = Class::Author;
            }
            Ok(ArtifactAnswer::Failure(failure))
        }
        _ => Err(unexpected("the answer for an artifact", line)),
    }
}

/// Writes what was seen of parameters, in the order in which they were asked about.
pub fn write_sysctls_answer(out: &mut impl Write, seen: &[Seen]) -> io::Result<()> {
    let json = serde_json::to_string(seen).map_err(io::Error::other)?;
    write_line(out, &format!("values {json}"))
}

/// Reads what was seen of `count` parameters.
pub fn read_sysctls_answer(
    input: &mut impl BufRead,
    line: &mut Vec<u8>,
    count: usize,
) -> io::Result<Result<Vec<Seen>, Failure>> {
    let line = read_answer_line(input, line)?;
    match line.split_once(' ') {
        Some(("values", json)) => {
            let seen: Vec<Seen> = serde_json::from_str(json)
                .map_err(|error| invalid(format!("invalid values: {error}")))?;
            if seen.len() != count {
                return Err(unexpected("a value for each name", line));
            }
            let told = |seen| match seen {
                Seen::Unreadable(cause) => Seen::Unreadable(without_control_characters(&cause)),
                seen => seen,
            };
            Ok(Ok(seen.into_iter().map(told).collect()))
        }
        Some(("failure", json)) => Ok(Err(parse_failure(json)?)),
        _ => Err(unexpected("values", line)),
    }
}

/// Writes the line that goes before an object's bytes.
pub fn write_object_header(out: &mut impl Write, kind: ObjectKind, size: usize) -> io::Result<()> {
    writeln!(out, "object {kind} {size}")
}

/// Writes the answer for an object.
pub fn write_object_answer(out: &mut impl Write, answer: &ObjectAnswer) -> io::Result<()> {
    match answer {
        ObjectAnswer::Found(object) => {
            write_object_header(out, object.kind, object.data.len())?;
            out.write_all(&object.data)
        }
        ObjectAnswer::Missing => out.write_all(b"missing\n"),
        ObjectAnswer::TooLarge => out.write_all(b"too-large\n"),
        ObjectAnswer::Failure(failure) => write_failure(out, failure),
    }
}

/// Reads the answer for an object.
pub fn read_object_answer(
    input: &mut impl BufRead,
    line: &mut Vec<u8>,
) -> io::Result<ObjectAnswer> {
    let line = read_answer_line(input, line)?;
    let (kind, size) = match line.split_once(' ') {
        None if line == "missing" => return Ok(ObjectAnswer::Missing),
        None if line == "too-large" => return Ok(ObjectAnswer::TooLarge),
        Some(("failure", json)) => return Ok(ObjectAnswer::Failure(parse_failure(json)?)),
        Some(("object", rest)) => rest
            .split_once(' ')
            .ok_or_else(|| unexpected("kind and size", line))?,
        _ => return Err(unexpected("the answer for an object", line)),
    };
    let kind = ObjectKind::from_bytes(kind.as_bytes())
        .map_err(|_| unexpected("an object's kind", kind))?;
    let size = parse_size(size)?;
    if size > MAX_OBJECT_BYTES {
        return Err(invalid(format!(
            "an object of {size} bytes is over the limit"
        )));
    }
    let mut data = Vec::with_capacity(size.min(MAX_RESERVED_BYTES) as usize);
    input.take(size).read_to_end(&mut data)?;
    if (data.len() as u64) < size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(ObjectAnswer::Found(Object { kind, data }))
}

/// Writes `failure`; one that would not fit into a line keeps only the beginning of its message.
pub fn write_failure(out: &mut impl Write, failure: &Failure) -> io::Result<()> {
    let json = serde_json::to_string(&fitting(failure)).map_err(io::Error::other)?;
    write_line(out, &format!("failure {json}"))
}

fn write_trouble(out: &mut impl Write, trouble: &Trouble) -> io::Result<()> {
    let fitting = Trouble {
        failure: fitting(&trouble.failure),
        ..trouble.clone()
    };
    let json = serde_json::to_string(&fitting).map_err(io::Error::other)?;
    write_line(out, &format!("trouble {json}"))
}

/// `failure`, or what of it fits into a line.
fn fitting(failure: &Failure) -> Failure {
    let length = serde_json::to_string(failure).map_or(usize::MAX, |json| json.len());
    if length < MAX_LINE_BYTES / 2 {
        return failure.clone();
    }
    let beginning: String = failure.message.chars().take(1000).collect();
    Failure::new(failure.class, format!("{beginning}…"))
}

pub(super) fn write_line(out: &mut impl Write, line: &str) -> io::Result<()> {
    if line.len() >= MAX_LINE_BYTES {
        return Err(invalid(format!(
            "a line of {} bytes is over the limit",
            line.len()
        )));
    }
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")
}

/// The next line without its end; `None` at the end of the stream.
pub(super) fn read_line<'line>(
    input: &mut impl BufRead,
    line: &'line mut Vec<u8>,
) -> io::Result<Option<&'line str>> {
    line.clear();
    input
        .by_ref()
        .take(MAX_LINE_BYTES as u64)
        .read_until(b'\n', line)?;
    match line.pop() {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) if line.len() + 1 == MAX_LINE_BYTES => {
            return Err(invalid("a line is over the limit".to_owned()));
        }
        Some(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    match std::str::from_utf8(line) {
        Ok(line) => Ok(Some(line)),
        Err(_) => Err(invalid("a line is not UTF-8".to_owned())),
    }
}

fn read_answer_line<'line>(
    input: &mut impl BufRead,
    line: &'line mut Vec<u8>,
) -> io::Result<&'line str> {
    read_line(input, line)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn parse_id(text: &str) -> io::Result<ObjectId> {
    ObjectId::from_hex(text.as_bytes()).map_err(|_| unexpected("an object's id", text))
}

/// Digits only: no sign, no leading zero, so that one number has one spelling.
fn parse_size(text: &str) -> io::Result<u64> {
    let is_canonical =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse()
        .ok()
        .filter(|_| is_canonical)
        .ok_or_else(|| unexpected("a size", text))
}

fn parse_failure(json: &str) -> io::Result<Failure> {
    let failure: Failure =
        serde_json::from_str(json).map_err(|error| invalid(format!("invalid failure: {error}")))?;
    Ok(of_the_fetcher(failure))
}

/// What may be believed of `failure`: the fetcher is not trusted. It reports on the source, and can neither speak for the keys nor
/// draw on the terminal.
fn of_the_fetcher(failure: Failure) -> Failure {
    Failure {
        class: match failure.class {
            class @ (Class::Transient | Class::Host | Class::Config | Class::Bug) => class,
            Class::Refused | Class::Author => Class::Transient,
        },
        message: without_control_characters(&failure.message),
        hint: failure.hint.as_deref().map(without_control_characters),
        resource: None,
        location: None,
        rendered: None,
    }
}

fn without_control_characters(text: &str) -> String {
    text.replace(char::is_control, " ")
}

pub(super) fn unexpected(what: &str, got: &str) -> io::Error {
    let beginning: String = got.chars().take(80).collect();
    invalid(format!(
        "expected {what}, got '{}'",
        beginning.escape_default()
    ))
}

pub(super) fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;
    use crate::fetch::Lane;

    const ID: &str = "3f2a91c0d4e5b6a798081726354433221100ffee";

    fn id() -> ObjectId {
        ID.parse().unwrap()
    }

    fn any_id() -> impl Strategy<Value = ObjectId> {
        prop_oneof![
            any::<[u8; 20]>().prop_map(|bytes| ObjectId::from_bytes_or_panic(&bytes)),
            any::<[u8; 32]>().prop_map(|bytes| ObjectId::from_bytes_or_panic(&bytes)),
        ]
    }

    fn any_object() -> impl Strategy<Value = ObjectAnswer> {
        let kinds = prop_oneof![
            Just(ObjectKind::Blob),
            Just(ObjectKind::Tree),
            Just(ObjectKind::Commit),
            Just(ObjectKind::Tag)
        ];
        prop_oneof![
            (kinds, any::<Vec<u8>>())
                .prop_map(|(kind, data)| ObjectAnswer::Found(Object { kind, data })),
            Just(ObjectAnswer::Missing),
            Just(ObjectAnswer::TooLarge),
        ]
    }

    fn read_object(bytes: &[u8]) -> io::Result<ObjectAnswer> {
        read_object_answer(&mut Cursor::new(bytes), &mut Vec::new())
    }

    fn read_poll(bytes: &[u8]) -> io::Result<PollAnswer> {
        read_poll_answer(&mut Cursor::new(bytes), &mut Vec::new())
    }

    #[test]
    fn requests_look_like_this() {
        let mut wire = Vec::new();
        write_request(&mut wire, &Request::Poll { trusted: None }).unwrap();
        let trusted = Some(id());
        write_request(&mut wire, &Request::Poll { trusted }).unwrap();
        write_request(&mut wire, &Request::Object(id())).unwrap();
        for target in [Target::Tcp("[::1]:22".to_owned()), Target::Source] {
            let limit_ms = 10_000;
            write_request(&mut wire, &Request::Probe(Probe { target, limit_ms })).unwrap();
        }
        insta::assert_snapshot!(String::from_utf8(wire).unwrap(), @r#"
        poll -
        poll 3f2a91c0d4e5b6a798081726354433221100ffee
        object 3f2a91c0d4e5b6a798081726354433221100ffee
        probe {"target":{"tcp":"[::1]:22"},"limit_ms":10000}
        probe {"target":"source","limit_ms":10000}
        "#);
    }

    #[test]
    fn garbage_is_an_error_that_names_it() {
        let check = |bytes: &[u8]| {
            let error = read_request(&mut Cursor::new(bytes), &mut Vec::new()).unwrap_err();
            error.to_string()
        };
        insta::assert_snapshot!(check(b"GET / HTTP/1.1\r\n"), @r"expected a request, got 'GET / HTTP/1.1\r'");
        insta::assert_snapshot!(check(b"object ../../etc/shadow\n"), @"expected an object's id, got '../../etc/shadow'");
        insta::assert_snapshot!(check(b"object \xff\xfe\n"), @"a line is not UTF-8");
        insta::assert_snapshot!(check(b"poll -"), @"unexpected end of file");
        insta::assert_snapshot!(check(&vec![b'a'; 2 * MAX_LINE_BYTES]), @"a line is over the limit");
    }

    #[test]
    fn a_size_over_the_limit_is_refused_before_anything_is_read() {
        insta::assert_snapshot!(
            read_object(b"object blob 67108865\n").unwrap_err(),
            @"an object of 67108865 bytes is over the limit"
        );
        for size in ["+1", "01", "-1", "", "1 1", "99999999999999999999999"] {
            assert!(
                read_object(format!("object blob {size}\nxx").as_bytes()).is_err(),
                "{size}"
            );
        }
    }

    #[test]
    fn half_an_object_is_an_error() {
        let error = read_object(b"object blob 10\nabc").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_failure_survives_the_wire_and_a_huge_one_is_cut() {
        let failure = Failure::new(Class::Host, "server said 403").with_hint("renew the token");
        let mut wire = Vec::new();
        let trouble = Trouble {
            lane: Lane::Denied,
            retry_after_secs: Some(120),
            failure,
        };
        write_poll_answer(&mut wire, &PollAnswer::Trouble(trouble.clone())).unwrap();
        assert_eq!(read_poll(&wire).unwrap(), PollAnswer::Trouble(trouble));

        let huge = Failure::new(Class::Transient, "\u{1}".repeat(1 << 20));
        let mut wire = Vec::new();
        write_failure(&mut wire, &huge).unwrap();
        assert!(wire.len() < MAX_LINE_BYTES);
        assert!(matches!(read_poll(&wire), Ok(PollAnswer::Trouble(_))));
    }

    #[test]
    fn a_fetcher_cannot_speak_for_the_keys_nor_to_the_terminal() {
        let forged = Failure::new(Class::Refused, "all is \u{1b}[32mwell");
        let mut wire = Vec::new();
        write_failure(&mut wire, &forged).unwrap();
        let expected = Failure::new(Class::Transient, "all is  [32mwell");
        assert_eq!(
            read_poll(&wire).unwrap(),
            PollAnswer::Trouble(expected.into())
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(request in prop_oneof![
            any_id().prop_map(Request::Object),
            proptest::option::of(any_id()).prop_map(|trusted| Request::Poll { trusted }),
            any::<(String, u64)>().prop_map(|(url, limit_ms)| Request::Probe(Probe { target: Target::Http(url), limit_ms })),
        ], object in any_object()) {
            let mut wire = Vec::new();
            write_request(&mut wire, &request).unwrap();
            let mut input = Cursor::new(wire);
            prop_assert_eq!(read_request(&mut input, &mut Vec::new()).unwrap(), Some(request));
            prop_assert_eq!(read_request(&mut input, &mut Vec::new()).unwrap(), None);

            let mut wire = Vec::new();
            write_object_answer(&mut wire, &object).unwrap();
            prop_assert_eq!(read_object(&wire).unwrap(), object);
        }

        #[test]
        fn no_input_panics(bytes in any::<Vec<u8>>(), word in "(poll|object|probe|healthy|tip|failure|trouble|start|missing|too-large) ?[ -~]{0,60}\n?") {
            for input in [&bytes[..], word.as_bytes()] {
                let _ = read_request(&mut Cursor::new(input), &mut Vec::new());
                let _ = read_object(input);
                let _ = read_poll(input);
                let _ = read_probe_answer(&mut Cursor::new(input), &mut Vec::new());
                let _ = crate::fetch::start::read_start(&mut Cursor::new(input));
            }
        }
    }
}
