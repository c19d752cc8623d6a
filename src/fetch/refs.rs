//! What a Git server says about its refs: the handshake and `ls-refs`, in packet lines (gitprotocol-v2(5), gitprotocol-http(5)).
//!
//! Written out here although gix can do it too: a poll that finds nothing new is one request this way, and its failures are ours
//! to explain.

use std::io::{self, Read};

use super::Tip;
use crate::config::Follow;
use crate::git::{ObjectId, TAGS};

/// A ref that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its full name.
    pub full_ref: String,
    /// Where it points: of an annotated tag, to the tag.
    pub id: ObjectId,
}

impl Found {
    /// Takes the ref `name` instead of what was found before, where it is wanted more.
    pub fn consider(found: &mut Option<Found>, follow: &Follow, name: &str, id: ObjectId) {
        let best = found.as_ref().map(|found| found.full_ref.as_str());
        if follow.prefers(name, best) {
            *found = Some(Found {
                full_ref: name.to_owned(),
                id,
            });
        }
    }

    /// The same, as what a source offers.
    pub fn into_tip(self) -> Tip {
        let tag = self.full_ref.strip_prefix(TAGS);
        Tip {
            id: self.id,
            tag: tag.map(str::to_owned),
        }
    }
}

/// The body of an `ls-refs` request for what may be wanted.
pub fn ls_refs_request(follow: &Follow, format: gix::hash::Kind) -> Vec<u8> {
    let mut body = Vec::new();
    push_packet(&mut body, "command=ls-refs\n");
    // Servers before Git 2.28 know only SHA-1, and refuse the word.
    if format != gix::hash::Kind::Sha1 {
        push_packet(&mut body, &format!("object-format={format}\n"));
    }
    body.extend(b"0001");
    push_packet(&mut body, &format!("ref-prefix {}\n", follow.prefix()));
    body.extend(b"0000");
    body
}

/// What a server says of itself first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    /// The hash function of its repository.
    pub format: gix::hash::Kind,
    /// How to learn its refs.
    pub refs: Refs,
}

/// Where a server's refs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refs {
    /// Protocol version 2: ask with `ls-refs`.
    Ask,
    /// An older protocol: it listed them all unasked, and the wanted one is this.
    Listed(Option<Found>),
}

/// Reads the answer to `GET info/refs?service=git-upload-pack`, looking for what is wanted.
pub fn parse_advertisement(bytes: &[u8], follow: &Follow) -> Result<Advertisement, String> {
    let mut packets = Packets(bytes).peekable();
    // "# service=git-upload-pack" and a flush come first from most servers.
    if let Some(Ok(Packet::Data(line))) = packets.peek()
        && line.starts_with(b"# service=")
    {
        packets.next();
        if packets.peek() == Some(&Ok(Packet::Flush)) {
            packets.next();
        }
    }
    let mut advertisement = Advertisement {
        format: gix::hash::Kind::Sha1,
        refs: Refs::Listed(None),
    };
    let mut found = None;
    let mut is_first = true;
    for packet in packets {
        let Packet::Data(line) = packet? else { break };
        let line = trim_line(line);
        if is_first && line == b"version 2" {
            advertisement.refs = Refs::Ask;
        } else if advertisement.refs == Refs::Ask {
            read_format(line, &mut advertisement)?;
        } else {
            let (reference, capabilities) = split_at_byte(line, 0);
            for capability in capabilities.split(|byte| *byte == b' ') {
                read_format(capability, &mut advertisement)?;
            }
            if reference != b"version 1" {
                consider_line(&mut found, follow, reference)?;
            }
        }
        is_first = false;
    }
    if is_first {
        return Err("it lists nothing".to_owned());
    }
    if let Refs::Listed(listed) = &mut advertisement.refs {
        *listed = found;
    }
    Ok(advertisement)
}

/// Reads the answer to `ls-refs`: the ref that is wanted, whatever else begins as it does.
pub fn parse_ls_refs(bytes: &[u8], follow: &Follow) -> Result<Option<Found>, String> {
    let mut found = None;
    for packet in Packets(bytes) {
        match packet? {
            Packet::Data(line) => consider_line(&mut found, follow, trim_line(line))?,
            Packet::Flush => return Ok(found),
            Packet::Other => return Err("unexpected packet".to_owned()),
        }
    }
    Err("it ends in the middle".to_owned())
}

/// The same in a repository whose ids are of `format`.
pub fn parse_ls_refs_of(
    bytes: &[u8],
    follow: &Follow,
    format: gix::hash::Kind,
) -> Result<Option<Found>, String> {
    match parse_ls_refs(bytes, follow)? {
        Some(tip) if tip.id.kind() != format => Err("an id of another object format".to_owned()),
        tip => Ok(tip),
    }
}

/// Reads packets off `input` until a flush, and returns them as they came, the flush included; at most `limit` bytes.
pub fn read_until_flush(input: &mut impl Read, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    loop {
        let start = bytes.len();
        bytes.resize(start + 4, 0);
        input.read_exact(&mut bytes[start..])?;
        let size = packet_size(&bytes[start..]).map_err(io::Error::other)?;
        if size == 0 {
            return Ok(Some(bytes));
        }
        let end = start + size.max(4);
        if end as u64 > limit {
            return Ok(None);
        }
        bytes.resize(end, 0);
        input.read_exact(&mut bytes[start + 4..])?;
    }
}

/// `<id> <name>[ <attribute>…]`: takes it where it is wanted.
fn consider_line(found: &mut Option<Found>, follow: &Follow, line: &[u8]) -> Result<(), String> {
    if let Some(message) = line.strip_prefix(b"ERR ") {
        let message: String = String::from_utf8_lossy(message).chars().take(200).collect();
        return Err(format!("the server says '{}'", message.escape_debug()));
    }
    let (id, rest) = split_at_byte(line, b' ');
    let (name, _) = split_at_byte(rest, b' ');
    let id = ObjectId::from_hex(id).map_err(|_| "a line does not begin with an id".to_owned())?;
    if let (Ok(name), false) = (std::str::from_utf8(name), id.is_null()) {
        Found::consider(found, follow, name, id);
    }
    Ok(())
}

fn read_format(capability: &[u8], advertisement: &mut Advertisement) -> Result<(), String> {
    match capability.strip_prefix(b"object-format=") {
        None | Some(b"sha1") => Ok(()),
        Some(b"sha256") => {
            advertisement.format = gix::hash::Kind::Sha256;
            Ok(())
        }
        Some(_) => Err("its object format is unknown".to_owned()),
    }
}

fn split_at_byte(line: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| *byte == separator) {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (line, &[]),
    }
}

fn trim_line(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

fn push_packet(body: &mut Vec<u8>, line: &str) {
    body.extend(format!("{:04x}{line}", line.len() + 4).into_bytes());
}

/// The number that a packet begins with.
fn packet_size(bytes: &[u8]) -> Result<usize, &'static str> {
    bytes
        .get(..4)
        .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        .and_then(|digits| usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok())
        .ok_or("it is not in packet lines")
}

#[derive(Debug, PartialEq, Eq)]
enum Packet<'a> {
    Data(&'a [u8]),
    Flush,
    /// A delimiter or the end of a response.
    Other,
}

struct Packets<'a>(&'a [u8]);

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let packet = match packet_size(self.0) {
            Ok(0) => (4, Packet::Flush),
            Ok(1..=3) => (4, Packet::Other),
            Ok(size) => match self.0.get(4..size) {
                Some(data) => (size, Packet::Data(data)),
                None => return self.fail("it ends in the middle"),
            },
            Err(cause) => return self.fail(cause),
        };
        self.0 = &self.0[packet.0..];
        Some(Ok(packet.1))
    }
}

impl<'a> Packets<'a> {
    fn fail(&mut self, cause: &str) -> Option<Result<Packet<'a>, String>> {
        self.0 = &[];
        Some(Err(cause.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn branch() -> Follow {
        Follow::Branch("main".to_owned())
    }

    fn found(id: &str) -> Option<Found> {
        let full_ref = branch().prefix();
        let id = id.parse().unwrap();
        Some(Found { full_ref, id })
    }

    const ID: &str = "3f2a91c0d4e5b6a798081726354433221100ffee";
    const OTHER: &str = "1111111111111111111111111111111111111111";

    fn packets(lines: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in lines {
            match *line {
                "" => bytes.extend(b"0000"),
                line => push_packet(&mut bytes, line),
            }
        }
        bytes
    }

    #[test]
    fn only_the_exact_name_is_taken() {
        let check = |lines: &[&str]| parse_ls_refs(&packets(lines), &branch());
        let main = format!("{ID} refs/heads/main\n");
        let main2 = format!("{OTHER} refs/heads/main2\n");
        let below = format!("{OTHER} refs/heads/main/x\n");
        assert_eq!(check(&[&main2, &main, &below, ""]), Ok(found(ID)));
        assert_eq!(check(&[&main2, ""]), Ok(None));
        assert_eq!(check(&[""]), Ok(None));
        assert_eq!(check(&[&main]), Err("it ends in the middle".to_owned()));
        assert_eq!(
            check(&["ERR no \u{1b}such\n", ""]),
            Err(r"the server says 'no \u{1b}such'".to_owned())
        );
        assert_eq!(
            check(&["<html>\n", ""]),
            Err("a line does not begin with an id".to_owned())
        );
    }

    #[test]
    fn of_many_releases_the_highest_is_taken() {
        let follow = Follow::Releases(">=1.4, <2".parse().unwrap());
        let line = |id: &str, name: &str| format!("{id} refs/tags/{name}\n");
        let lines = [
            line(OTHER, "v1.4.9"),
            line(ID, "v1.10.0"),
            line(OTHER, "v1.10.0^{}"),
            line(OTHER, "v2.0.0"),
            String::new(),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let tip = parse_ls_refs(&packets(&lines), &follow).unwrap().unwrap();
        assert_eq!(
            tip.into_tip(),
            Tip {
                id: ID.parse().unwrap(),
                tag: Some("v1.10.0".to_owned())
            }
        );
        let old = format!("{OTHER} HEAD\0multi_ack\n");
        let old = packets(&[&old, &line(ID, "v1.5.0"), ""]);
        let Refs::Listed(Some(listed)) = parse_advertisement(&old, &follow).unwrap().refs else {
            panic!("it is listed");
        };
        assert_eq!(listed.full_ref, "refs/tags/v1.5.0");
    }

    #[test]
    fn an_advertisement_says_version_and_format() {
        let check = |lines: &[&str]| {
            let advertisement = parse_advertisement(&packets(lines), &branch())?;
            Ok::<_, String>((advertisement.format, advertisement.refs))
        };
        let service = "# service=git-upload-pack\n";
        let sha256 = gix::hash::Kind::Sha256;
        let sha1 = gix::hash::Kind::Sha1;
        assert_eq!(
            check(&[service, "", "version 2\n", "object-format=sha256\n", ""]),
            Ok((sha256, Refs::Ask))
        );
        assert_eq!(
            check(&["version 2\n", "ls-refs=unborn\n", ""]),
            Ok((sha1, Refs::Ask))
        );
        let head = format!("{OTHER} HEAD\0multi_ack object-format=sha1 agent=git/1\n");
        let main = format!("{ID} refs/heads/main\n");
        assert_eq!(
            check(&[service, "", &head, &main, ""]),
            Ok((sha1, Refs::Listed(found(ID))))
        );
        assert_eq!(
            check(&[service, "", "version 1\n", &head, ""]),
            Ok((sha1, Refs::Listed(None)))
        );
        assert_eq!(
            check(&[service, "", "version 2\n", "object-format=sha9\n", ""]),
            Err("its object format is unknown".to_owned())
        );
        assert_eq!(check(&[]), Err("it lists nothing".to_owned()));
        assert_eq!(
            parse_advertisement(b"<!DOCTYPE html>", &branch()),
            Err("it is not in packet lines".to_owned())
        );
    }

    #[test]
    fn an_old_server_is_not_told_the_object_format() {
        let text = |format| String::from_utf8(ls_refs_request(&branch(), format)).unwrap();
        assert_eq!(
            text(gix::hash::Kind::Sha1),
            "0014command=ls-refs\n0001001fref-prefix refs/heads/main\n0000"
        );
        assert!(text(gix::hash::Kind::Sha256).contains("0019object-format=sha256\n"));
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in any::<Vec<u8>>(), lines in proptest::collection::vec("[ -~]{0,50}", 0..6)) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            for bytes in [bytes, packets(&lines)] {
                let _ = parse_ls_refs(&bytes, &branch());
                let _ = parse_advertisement(&bytes, &branch());
            }
        }
    }
}
