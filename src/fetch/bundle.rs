//! A source in a file that `git bundle create` made: a repository's branch on a stick (gitformat-bundle(5)).
//!
//! Only its header is read while it brings no news. Its pack is indexed into the cache, within the same limits as one from a
//! server, and its bytes are believed no more than a server's.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use gix::odb::pack::{Bundle, bundle::write::Options};
use gix::progress::Discard;

use super::attempt::Attempt;
use super::cache::{self, Cache, Known};
use super::refs::Found;
use super::remote::{causes, interrupted_after, object_too_large, offers_none};
use super::{Trouble, pack_header, store};
use crate::config::Follow;
use crate::git::{MAX_OBJECT_BYTES, ObjectId};
use crate::model::Class;

/// How a bundle begins, but for its version.
const SIGNATURES: [(&str, u8); 2] = [("# v2 git bundle", 2), ("# v3 git bundle", 3)];

/// The longest line of a header: a prerequisite's is followed by its commit's subject.
const MAX_LINE_BYTES: u64 = 8 << 10;

/// How many lines a header may have.
const MAX_LINES: usize = 100_000;

/// What a bundle says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its hash function.
    pub format: gix::hash::Kind,
    /// The ref that is wanted.
    pub tip: Option<Found>,
    /// The commits that its pack builds upon.
    pub prerequisites: Vec<ObjectId>,
}

/// Learns what the bundle at `path` has of what is followed, and brings what is missing of it into `cache`. `known` is what may be
/// built upon.
pub fn poll(
    path: &Path,
    attempt: &Attempt,
    cache: &Cache,
    known: Option<Known>,
    follow: &Follow,
) -> Result<Found, Trouble> {
    let host = |cause: &dyn std::fmt::Display| attempt.trouble(Class::Host, cause);
    // What is no file any more, such as a pipe, must not make us wait.
    let mut reading = File::options();
    reading.read(true).custom_flags(nix::libc::O_NONBLOCK);
    let file = reading.open(path).map_err(|error| {
        let trouble = host(&error);
        match error.kind() {
            io::ErrorKind::PermissionDenied => trouble.with_hint(format!(
                "user limpet must be able to read it: 'setfacl -m u:limpet:r {}', and every directory above it",
                path.display()
            )),
            _ => trouble,
        }
    })?;
    let metadata = file.metadata().map_err(|error| host(&error))?;
    if !metadata.is_file() {
        return Err(host(&"it is no file"));
    }
    if metadata.len() > attempt.max_bytes() {
        let limit = attempt.max_bytes() >> 20;
        return Err(host(&format!("it is larger than {limit} MiB")));
    }
    // It may grow while it is read.
    let mut input = BufReader::with_capacity(64 << 10, file.take(attempt.max_bytes()));
    let mut header = read_header(&mut input, follow).map_err(|cause| {
        host(&cause).with_hint("make one with 'git bundle create fleet.bundle main'")
    })?;
    let tip = header
        .tip
        .take()
        .ok_or_else(|| offers_none(attempt, follow))?;
    // A bundle of only what is new needs the cache, however it may be doubted.
    let known = known
        .or_else(|| {
            let is_needed = !header.prerequisites.is_empty();
            is_needed.then(|| cache.read()).flatten()
        })
        .filter(|known| known.format == header.format);
    if let Some(known) = &known {
        if known.tip == Some(tip.id) {
            return Ok(tip);
        }
        require(attempt, cache.path(), &header)?;
        index(attempt, cache.path(), &mut input, header.format)?;
        finish(attempt, cache.path(), tip.id)?;
        return Ok(tip);
    }
    if let Some(missing) = header.prerequisites.first() {
        return Err(lacks(attempt, missing));
    }
    let new = cache.begin_anew(header.format)?;
    index(attempt, &new, &mut input, header.format)?;
    finish(attempt, &new, tip.id)?;
    cache.replace()?;
    Ok(tip)
}

/// Requires what the bundle builds upon to be in the repository at `path`.
fn require(attempt: &Attempt, path: &Path, header: &Header) -> Result<(), Trouble> {
    let repository = store::open(path).map_err(|error| attempt.trouble(Class::Host, error))?;
    match header
        .prerequisites
        .iter()
        .find(|id| !repository.has_object(*id))
    {
        Some(missing) => Err(lacks(attempt, missing)),
        None => Ok(()),
    }
}

fn lacks(attempt: &Attempt, missing: &ObjectId) -> Trouble {
    let cause = format!("it builds on commit {missing}, which this host does not have");
    attempt
        .trouble(Class::Host, cause)
        .with_hint("make one with the whole history: 'git bundle create fleet.bundle main'")
}

/// Puts the pack that is next in `input` into the repository at `path`.
fn index(
    attempt: &Attempt,
    path: &Path,
    input: &mut impl BufRead,
    format: gix::hash::Kind,
) -> Result<(), Trouble> {
    let damaged = |cause: &dyn std::fmt::Display| {
        attempt
            .trouble(Class::Host, format!("it is damaged: {cause}"))
            .with_hint("check it with 'git bundle verify', and copy it again")
    };
    let mut header = [0; 12];
    input
        .read_exact(&mut header)
        .map_err(|_| damaged(&"it ends in the middle"))?;
    let count = pack_header::count(&header).ok_or_else(|| damaged(&"it holds no pack"))?;
    attempt.count_objects(count)?;
    let mut pack = io::Cursor::new(header).chain(input);
    let repository = store::open(path).map_err(|error| attempt.trouble(Class::Host, error))?;
    let options = Options {
        alloc_limit_bytes: usize::try_from(MAX_OBJECT_BYTES).ok(),
        ..Options::default()
    };
    let written = interrupted_after(attempt.time_left(), |interrupt| {
        Bundle::write_to_directory(
            &mut pack,
            Some(&path.join("objects/pack")),
            &mut Discard,
            interrupt,
            Some(repository.objects.clone()),
            format,
            options,
        )
    });
    match written {
        Ok(outcome) => {
            // It keeps git from tidying up, which nobody does here.
            if let Some(keep) = outcome.keep_path {
                let _ = std::fs::remove_file(keep);
            }
            Ok(())
        }
        Err(_) if attempt.time_left().is_zero() => Err(attempt.too_long()),
        Err(error) => {
            if error.is_resource_exhausted() {
                return Err(object_too_large(attempt));
            }
            Err(damaged(&causes(&error)))
        }
    }
}

/// Lets the repository at `path` know that the branch is at `tip`.
fn finish(attempt: &Attempt, path: &Path, tip: ObjectId) -> Result<(), Trouble> {
    let failed = |cause: &dyn std::fmt::Display| {
        let cause = format!("failed to write cache '{}': {cause}", path.display());
        attempt.trouble(Class::Host, cause)
    };
    let repository = store::open(path).map_err(|error| failed(&error))?;
    if !repository.has_object(tip) {
        let cause = format!("it is damaged: it lacks commit {tip}, which it says it holds");
        return Err(attempt.trouble(Class::Host, cause));
    }
    cache::write_tip(path, tip).map_err(|error| failed(&error))
}

/// Reads a header up to the pack, looking for what is followed.
pub fn read_header(input: &mut impl BufRead, follow: &Follow) -> Result<Header, String> {
    let first = read_line(input)?;
    let version = SIGNATURES
        .iter()
        .find(|(signature, _)| first == *signature)
        .map(|(_, version)| *version)
        .ok_or("it is neither a Git repository nor a Git bundle")?;
    let mut header = Header {
        format: gix::hash::Kind::Sha1,
        tip: None,
        prerequisites: Vec::new(),
    };
    let mut has_refs = false;
    for _ in 0..MAX_LINES {
        let line = read_line(input)?;
        if line.is_empty() {
            return Ok(header);
        }
        let is_capability = version >= 3 && line.starts_with('@');
        if is_capability && !has_refs && header.prerequisites.is_empty() {
            header.format = read_capability(&line)?;
        } else if let Some(rest) = line.strip_prefix('-').filter(|_| !has_refs) {
            // The commit's subject may follow.
            let id = rest.split(' ').next().unwrap_or_default();
            header.prerequisites.push(read_id(id, header.format)?);
        } else {
            let (id, name) = line.split_once(' ').ok_or("a line names no ref")?;
            let id = read_id(id, header.format)?;
            has_refs = true;
            if header.tip.as_ref().is_some_and(|tip| tip.full_ref == name) {
                return Err(format!("it names '{name}' twice"));
            }
            Found::consider(&mut header.tip, follow, name, id);
        }
    }
    Err(format!("its header has more than {MAX_LINES} lines"))
}

fn read_capability(line: &str) -> Result<gix::hash::Kind, String> {
    match line {
        "@object-format=sha1" => Ok(gix::hash::Kind::Sha1),
        "@object-format=sha256" => Ok(gix::hash::Kind::Sha256),
        _ if line.starts_with("@filter=") => {
            Err("it is a partial bundle: it lacks objects on purpose".to_owned())
        }
        _ => {
            let shown: String = line.chars().take(80).collect();
            Err(format!(
                "it needs '{}', which is unknown",
                shown.escape_debug()
            ))
        }
    }
}

fn read_id(text: &str, format: gix::hash::Kind) -> Result<ObjectId, String> {
    ObjectId::from_hex(text.as_bytes())
        .ok()
        .filter(|id| id.kind() == format && !id.is_null())
        .ok_or_else(|| format!("a line of its header does not begin with an id of {format}"))
}

/// The next line without its end.
fn read_line(input: &mut impl BufRead) -> Result<String, String> {
    let mut bytes = Vec::new();
    input
        .take(MAX_LINE_BYTES)
        .read_until(b'\n', &mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.pop() != Some(b'\n') {
        return Err("it is neither a Git repository nor a Git bundle".to_owned());
    }
    // A subject may be in any encoding, and is not looked at.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: &str = "3f2a91c0d4e5b6a798081726354433221100ffee";
    const B: &str = "1111111111111111111111111111111111111111";

    fn main() -> Follow {
        Follow::Branch("main".to_owned())
    }

    fn check(text: &str) -> Result<Header, String> {
        read_header(&mut text.as_bytes(), &main())
    }

    #[test]
    fn only_the_configured_branch_is_taken() {
        let header = check(&format!(
            "# v2 git bundle\n-{B} Say why\n{B} HEAD\n{B} refs/heads/main2\n{A} refs/heads/main\n\nPACK"
        ));
        let header = header.unwrap();
        assert_eq!(header.tip.unwrap().id, A.parse::<ObjectId>().unwrap());
        assert_eq!(header.prerequisites, [B.parse::<ObjectId>().unwrap()]);
        let header = check(&format!("# v2 git bundle\n{B} HEAD\n\n")).unwrap();
        assert_eq!(header.tip, None);
    }

    #[test]
    fn version_three_names_its_hash() {
        let id = "a".repeat(64);
        let text = format!("# v3 git bundle\n@object-format=sha256\n{id} refs/heads/main\n\n");
        assert_eq!(check(&text).unwrap().format, gix::hash::Kind::Sha256);
        insta::assert_snapshot!(check(&text.replace("sha256", "sha1")).unwrap_err(), @"a line of its header does not begin with an id of sha1");
        insta::assert_snapshot!(check("# v3 git bundle\n@filter=blob:none\n\n").unwrap_err(), @"it is a partial bundle: it lacks objects on purpose");
        insta::assert_snapshot!(check("# v3 git bundle\n@uri=x\n\n").unwrap_err(), @"it needs '@uri=x', which is unknown");
        insta::assert_snapshot!(check("# v2 git bundle\n@object-format=sha1\n\n").unwrap_err(), @"a line names no ref");
    }

    #[test]
    fn what_is_no_bundle_is_said() {
        insta::assert_snapshot!(check("# v4 git bundle\n\n").unwrap_err(), @"it is neither a Git repository nor a Git bundle");
        insta::assert_snapshot!(check("").unwrap_err(), @"it is neither a Git repository nor a Git bundle");
        insta::assert_snapshot!(check(&format!("# v2 git bundle\n{A} refs/heads/main\n{A} refs/heads/main\n\n")).unwrap_err(), @"it names 'refs/heads/main' twice");
        insta::assert_snapshot!(check(&format!("# v2 git bundle\n{A} refs/heads/main\n")).unwrap_err(), @"it is neither a Git repository nor a Git bundle");
        insta::assert_snapshot!(check("# v2 git bundle\nmain\n\n").unwrap_err(), @"a line names no ref");
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in any::<Vec<u8>>(), lines in "(\n|-|@|[0-9a-f]{40}| |[ -~]){0,20}") {
            let _ = read_header(&mut &bytes[..], &main());
            let _ = check(&format!("# v3 git bundle\n{lines}"));
        }
    }
}
