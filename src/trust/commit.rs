//! One commit, as raw bytes: its grammar, its signature, and the payload that was signed.
//!
//! The *payload* is the object without its signature header. Whoever has no key can still give a signed commit another id, but
//! not another payload; a commit's identity is therefore its id together with the SHA-256 of its payload.
//!
//! Invariant: bytes are judged as they are and never written again; what two readers could understand differently is refused.

use ring::digest::{SHA256, digest};

use super::rule::{Refusal, Rule, escape};
use crate::git::{ObjectId, ObjectKind};

/// The largest commit, in bytes.
const MAX_COMMIT_BYTES: usize = 1 << 20;
/// The most parents one commit may have.
const MAX_PARENTS: usize = 16;
/// Headers whose meaning we know, and which may stand in one place only.
const KNOWN_HEADERS: [&[u8]; 5] = [b"tree", b"parent", b"author", b"committer", b"encoding"];

/// A commit that keeps the grammar.
#[derive(Debug, Clone)]
pub(super) struct Commit {
    pub(super) id: ObjectId,
    pub(super) tree: ObjectId,
    pub(super) parents: Vec<ObjectId>,
    /// The committer's date in seconds, which is a claim: good for the order of a search, and for nothing else.
    pub(super) claimed_time_secs: i64,
    /// The signature header's value, unfolded.
    pub(super) signature: Option<Vec<u8>>,
    pub(super) payload: Vec<u8>,
    pub(super) payload_sha256: [u8; 32],
    pub(super) message: Vec<u8>,
}

impl Commit {
    /// Reads the object `id`, whose bytes are known to hash to it.
    pub(super) fn parse(id: ObjectId, kind: ObjectKind, data: &[u8]) -> Result<Self, Refusal> {
        let malformed =
            |detail: &str| Refusal::new(Rule::MalformedCommit, format!("it {detail}")).of(id);
        if kind != ObjectKind::Commit {
            return Err(malformed(&format!("is a {kind}, not a commit")));
        }
        if data.len() > MAX_COMMIT_BYTES {
            return Err(malformed("is larger than 1 MiB"));
        }
        if data.contains(&0) {
            return Err(malformed("contains a NUL byte"));
        }
        parse(id, data).map_err(|detail| malformed(&detail))
    }

    /// The message's first line, safe to show.
    pub(super) fn subject(&self) -> String {
        let first = self.message.split(|&byte| byte == b'\n').next();
        escape(first.unwrap_or_default())
    }

    /// The `Key: value` lines of the message's last paragraph, in order; empty unless all its lines are such.
    pub(super) fn trailers(&self) -> Vec<(String, String)> {
        parse_trailers(&String::from_utf8_lossy(&self.message))
    }
}

/// A header with the lines that continue it.
struct Header<'a> {
    name: &'a [u8],
    value: &'a [u8],
    continued: Vec<&'a [u8]>,
    /// Where its lines stand in the object.
    range: std::ops::Range<usize>,
}

fn parse(id: ObjectId, data: &[u8]) -> Result<Commit, String> {
    let (headers, message) = parse_headers(data)?;
    let (own, foreign): (&[u8], &[u8]) = match id.kind() {
        gix::hash::Kind::Sha1 => (b"gpgsig", b"gpgsig-sha256"),
        _ => (b"gpgsig-sha256", b"gpgsig"),
    };

    let mut rest = headers.iter().peekable();
    let mut next = |name: &[u8]| {
        rest.next_if(|header| header.name == name)
            .map(|header| match header.continued.is_empty() {
                true => Ok(header.value),
                false => Err(format!("continues its header '{}'", escape(name))),
            })
            .transpose()
    };
    let tree = next(b"tree")?.ok_or("does not start with one tree")?;
    let tree = parse_id(id, tree).ok_or("has a malformed tree id")?;
    let mut parents = Vec::new();
    while let Some(parent) = next(b"parent")? {
        let parent = parse_id(id, parent).ok_or("has a malformed parent id")?;
        if parents.contains(&parent) {
            return Err("names a parent twice".into());
        }
        parents.push(parent);
        if parents.len() > MAX_PARENTS {
            return Err(format!("has more than {MAX_PARENTS} parents"));
        }
    }
    let author = next(b"author")?.ok_or("has no author after its parents")?;
    parse_date(author).ok_or("has a malformed author date")?;
    let committer = next(b"committer")?.ok_or("has no committer after its author")?;
    let claimed_time_secs = parse_date(committer).ok_or("has a malformed committer date")?;

    let mut signature: Option<&Header<'_>> = None;
    let mut has_encoding = false;
    for header in rest {
        if header.name == own {
            if signature.replace(header).is_some() {
                return Err("has two signatures".into());
            }
        } else if header.name == foreign {
            return Err(format!(
                "has the header '{}', which belongs to another hash",
                escape(foreign)
            ));
        } else if header.name == b"encoding" && !has_encoding {
            has_encoding = true;
        } else if KNOWN_HEADERS.contains(&header.name) {
            return Err(format!(
                "has the header '{}' twice or in the wrong place",
                escape(header.name)
            ));
        }
    }

    let payload = match signature {
        Some(header) => [&data[..header.range.start], &data[header.range.end..]].concat(),
        None => data.to_owned(),
    };
    let mut payload_sha256 = [0; 32];
    payload_sha256.copy_from_slice(digest(&SHA256, &payload).as_ref());
    Ok(Commit {
        id,
        tree,
        parents,
        claimed_time_secs,
        signature: signature.map(|header| {
            let mut lines = vec![header.value];
            lines.extend(&header.continued);
            lines.join(&b'\n')
        }),
        payload,
        payload_sha256,
        message: message.to_owned(),
    })
}

fn parse_headers(data: &[u8]) -> Result<(Vec<Header<'_>>, &[u8]), String> {
    let mut headers: Vec<Header<'_>> = Vec::new();
    let mut start = 0;
    loop {
        let length = data[start..]
            .iter()
            .position(|&byte| byte == b'\n')
            .ok_or("has no empty line after its headers")?;
        let line = &data[start..start + length];
        let end = start + length + 1;
        if line.is_empty() {
            return Ok((headers, &data[end..]));
        }
        if line.contains(&b'\r') {
            return Err("has a carriage return in its headers".into());
        }
        match (line.strip_prefix(b" "), headers.last_mut()) {
            (Some(continuation), Some(header)) => {
                header.continued.push(continuation);
                header.range.end = end;
            }
            _ => {
                let space = line
                    .iter()
                    .position(|&byte| byte == b' ')
                    .filter(|&space| space > 0)
                    .ok_or("has a header without a name or a value")?;
                headers.push(Header {
                    name: &line[..space],
                    value: &line[space + 1..],
                    continued: Vec::new(),
                    range: start..end,
                });
            }
        }
        start = end;
    }
}

/// An id in lower case hex, of the same hash as `like`.
pub(super) fn parse_id(like: ObjectId, hex: &[u8]) -> Option<ObjectId> {
    let is_lower_hex = hex
        .iter()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_lower_hex || hex.len() != like.kind().len_in_hex() {
        return None;
    }
    ObjectId::from_hex(hex).ok()
}

/// Is it `Name <mail> <seconds> <zone>`?
pub(super) fn is_date(identity: &[u8]) -> bool {
    parse_date(identity).is_some()
}

/// The seconds of `Name <mail> <seconds> <zone>`.
fn parse_date(identity: &[u8]) -> Option<i64> {
    let close = identity.iter().rposition(|&byte| byte == b'>')?;
    if !identity[..close].contains(&b'<') {
        return None;
    }
    let date = std::str::from_utf8(&identity[close + 1..]).ok()?;
    let (seconds, zone) = date.strip_prefix(' ')?.split_once(' ')?;
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let zone_digits = zone.strip_prefix(['+', '-'])?;
    if !(1..=11).contains(&seconds.len())
        || !is_digits(seconds)
        || zone_digits.len() != 4
        || !is_digits(zone_digits)
    {
        return None;
    }
    seconds.parse().ok()
}

/// What the search for ancestors needs of a commit that breaks the grammar: which parents it names, and when it claims to be from.
/// Old history is full of such commits, and a merge may bring them in.
pub(super) fn read_ancestry(id: ObjectId, data: &[u8]) -> (Vec<ObjectId>, i64) {
    let mut parents = Vec::new();
    let mut claimed_time_secs = 0;
    for line in data
        .split(|&byte| byte == b'\n')
        .take_while(|line| !line.is_empty())
    {
        if let Some(hex) = line.strip_prefix(b"parent ") {
            parents.extend(
                parse_id(id, hex)
                    .filter(|parent| parents.len() < MAX_PARENTS && !parents.contains(parent)),
            );
        } else if let Some(identity) = line.strip_prefix(b"committer ") {
            claimed_time_secs = parse_date(identity).unwrap_or(0);
        }
    }
    (parents, claimed_time_secs)
}

pub(super) fn parse_trailers(message: &str) -> Vec<(String, String)> {
    let body = message.trim_end();
    let Some((_, last)) = body.rsplit_once("\n\n") else {
        return Vec::new(); // the subject is no trailer
    };
    let mut trailers: Vec<(String, String)> = Vec::new();
    for line in last.lines() {
        if line.starts_with([' ', '\t']) {
            let Some((_, value)) = trailers.last_mut() else {
                return Vec::new();
            };
            value.push(' ');
            value.push_str(line.trim());
            continue;
        }
        let is_key = |key: &str| {
            !key.is_empty()
                && key
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        match line.split_once(':').filter(|(key, _)| is_key(key)) {
            Some((key, value)) => trailers.push((key.to_owned(), value.trim().to_owned())),
            None if line.starts_with("(cherry picked from commit ") => {}
            None => return Vec::new(),
        }
    }
    trailers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: ObjectId = ObjectId::null(gix::hash::Kind::Sha1);

    fn parse_text(text: &str) -> Result<Commit, String> {
        Commit::parse(ID, ObjectKind::Commit, text.as_bytes()).map_err(|refusal| refusal.detail)
    }

    /// Made by git 2.47 with `gpg.format=ssh`.
    const REAL: &str = "\
tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904
parent 1f0c1a1b2e3d4c5b6a79880716253443526170ff
author Tess Ter <tess@example.net> 1767323045 +0100
committer Tess Ter <tess@example.net> 1767323046 -0330
gpgsig -----BEGIN SSH SIGNATURE-----
 U1NIU0lHAAAAAQ==
 -----END SSH SIGNATURE-----

say hello

Body.
";

    #[test]
    fn a_commit_is_split_into_signature_and_payload() {
        let commit = parse_text(REAL).unwrap();
        assert_eq!(commit.parents.len(), 1);
        assert_eq!(commit.claimed_time_secs, 1_767_323_046);
        assert_eq!(commit.subject(), "say hello");
        assert_eq!(
            commit.signature.unwrap(),
            b"-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAQ==\n-----END SSH SIGNATURE-----"
        );
        let payload = String::from_utf8(commit.payload).unwrap();
        assert_eq!(payload.len(), REAL.len() - 84);
        assert!(payload.contains("-0330\n\nsay hello"), "{payload}");
        // Without the signature it is another object with the same payload.
        let bare = parse_text(&payload).unwrap();
        assert_eq!(bare.payload_sha256, commit.payload_sha256);
        assert!(bare.signature.is_none());
    }

    #[test]
    fn where_the_signature_stands_does_not_change_the_payload() {
        let encoded = REAL.replace("gpgsig", "encoding UTF-8\ngpgsig");
        let moved = {
            let (start, end) = (REAL.find("gpgsig").unwrap(), REAL.find("\n\n").unwrap() + 1);
            let signature = &REAL[start..end];
            REAL.replace(signature, &format!("{signature}encoding UTF-8\n"))
        };
        assert_ne!(encoded, moved);
        assert_eq!(
            parse_text(&encoded).unwrap().payload_sha256,
            parse_text(&moved).unwrap().payload_sha256
        );
    }

    #[test]
    fn trailers_are_the_last_paragraph_or_nothing() {
        #[track_caller]
        fn check(message: &str, expected: &[(&str, &str)]) {
            let trailers = parse_trailers(message);
            let trailers: Vec<(&str, &str)> = trailers
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect();
            assert_eq!(trailers, expected, "{message:?}");
        }
        check("Limpet-Allow-Removals: 4\n", &[]);
        check(
            "subject\n\nA: 1\nB-c: x: y\n",
            &[("A", "1"), ("B-c", "x: y")],
        );
        check("subject\n\nA: 1\n\nbody\n", &[]);
        check("subject\n\nA: 1\nand more\n", &[]);
        check("subject\n\nA: 1\n two\n\n\n", &[("A", "1 two")]);
        check("subject\n\n two\nA: 1\n", &[]);
        check(
            "subject\n\nA: 1\n(cherry picked from commit 123)\n",
            &[("A", "1")],
        );
        check("", &[]);
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes: Vec<u8>, cut in 0..REAL.len(), at in 0..REAL.len(), byte: u8) {
            let _ = Commit::parse(ID, ObjectKind::Commit, &bytes);
            read_ancestry(ID, &bytes);
            let _ = Commit::parse(ID, ObjectKind::Commit, &REAL.as_bytes()[..cut]);
            let mut changed = REAL.as_bytes().to_vec();
            changed[at] = byte;
            read_ancestry(ID, &changed);
            if let Ok(commit) = Commit::parse(ID, ObjectKind::Commit, &changed) {
                commit.subject();
                commit.trailers();
            }
        }
    }
}
