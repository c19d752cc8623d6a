//! Tar archives, as they are or compressed with gzip: what is in one, judged before anything of it is written.
//!
//! An archive is read twice, from its first byte to its last: once for its [`Index`], and once for the bytes of the files that are
//! wanted. Both hold no more of it in memory than one block and the names.
//!
//! Owners, times and extended attributes of an archive are left alone. Of modes only what a umask of 022 lets through counts.
//!
//! Invariant: pure. What [`index`] returns has no path that is absolute, has a `..` or an empty part, stands twice or lies below
//! something that is no directory; no symbolic link leads out of the directory that it is unpacked in, whichever other links it passes;
//! there are directories, files and symbolic links, and nothing else; and no more than [`MAX_ENTRIES`] and [`MAX_BYTES`] of them.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use tar::{Archive, EntryType, PaxExtensions};

#[cfg(test)]
mod tests;

/// The most entries of an archive.
pub const MAX_ENTRIES: usize = 20_000;

/// The most bytes that an archive unpacks to, with everything that is between its files.
pub const MAX_BYTES: u64 = 4 << 30;

/// The longest path below the directory that an archive is unpacked in, and the longest target of a link.
const MAX_PATH_BYTES: usize = 2048;

/// The most bytes of what describes the next entry.
const MAX_DESCRIPTION_BYTES: u64 = 64 << 10;

/// What is in an archive.
pub type Index = Vec<Entry>;

/// One path in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Below the directory that the archive is unpacked in.
    pub path: String,
    /// What is there.
    pub what: What,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
    },
    /// A file, or another name of one.
    File {
        /// Permission bits.
        mode: u32,
        /// In bytes.
        size: u64,
        /// Of its bytes.
        sha256: [u8; 32],
        /// Which of the archive's members has its bytes.
        member: u32,
    },
    /// A symbolic link.
    Symlink {
        /// Verbatim.
        target: String,
    },
}

/// Why an archive is not unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

fn refused<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(why.into()))
}

/// What is in the archive that `bytes` yields.
pub fn index(bytes: impl Read) -> Result<Index, Refused> {
    let mut entries: BTreeMap<String, What> = BTreeMap::new();
    let mut found = 0;
    read(bytes, &mut |member, header, content| {
        found += 1;
        if found > MAX_ENTRIES {
            return refused(format!("it has more than {MAX_ENTRIES} entries"));
        }
        let Some(path) = inner_path(&header.path)? else {
            return match header.kind {
                EntryType::Directory => Ok(()),
                _ => refused(format!("{} is no path in it", quoted(&header.path))),
            };
        };
        let what = match header.kind {
            EntryType::Regular => {
                let (size, sha256) = hash(content)?;
                What::File {
                    mode: header.mode & 0o7755,
                    size,
                    sha256,
                    member,
                }
            }
            EntryType::Directory => What::Directory {
                mode: header.mode & 0o7755 | 0o700,
            },
            EntryType::Symlink => What::Symlink {
                target: inner_target(&path, &header.target)?,
            },
            EntryType::Link => {
                let target = inner_path(&header.target)?.unwrap_or_default();
                match entries.get(&target) {
                    Some(file @ What::File { .. }) => file.clone(),
                    _ => {
                        return refused(format!(
                            "'{path}' is another name of {}, which is no file that comes before it",
                            quoted(&header.target)
                        ));
                    }
                }
            }
            other => {
                return refused(format!("'{path}' is {}", name_of(other)));
            }
        };
        match entries.get(&path) {
            None => {
                entries.insert(path, what);
                Ok(())
            }
            Some(before @ What::Directory { .. }) if *before == what => Ok(()),
            Some(_) => refused(format!("'{path}' is in it twice")),
        }
    })?;
    if entries.is_empty() {
        return refused("there is nothing in it");
    }
    for path in entries.keys() {
        let mut above = path.as_str();
        while let Some((directory, _)) = above.rsplit_once('/') {
            match entries.get(directory) {
                None | Some(What::Directory { .. }) => above = directory,
                Some(_) => {
                    return refused(format!(
                        "'{path}' lies below '{directory}', which is no directory"
                    ));
                }
            }
        }
    }
    let entries = entries.into_iter();
    Ok(entries.map(|(path, what)| Entry { path, what }).collect())
}

/// Hands the bytes of every member that is a file to `take`, with its number as in [`What::File`]. What `take` does not read is skipped.
pub fn for_each_file<E: From<Refused>>(
    bytes: impl Read,
    take: &mut dyn FnMut(u32, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut failed = None;
    let result = read(bytes, &mut |member, header, content| {
        if header.kind == EntryType::Regular
            && let Err(error) = take(member, content)
        {
            failed = Some(error);
            return refused("it was not wanted any more");
        }
        Ok(())
    });
    match (failed, result) {
        (Some(error), _) => Err(error),
        (None, result) => Ok(result?),
    }
}

/// What is said of a member before its bytes.
struct Header {
    kind: EntryType,
    path: Vec<u8>,
    /// What a link leads to.
    target: Vec<u8>,
    mode: u32,
}

type Take<'a> = &'a mut dyn FnMut(u32, &Header, &mut dyn Read) -> Result<(), Refused>;

/// Hands every member to `take`.
fn read(bytes: impl Read, take: Take<'_>) -> Result<(), Refused> {
    let mut bytes = BufReader::with_capacity(64 << 10, bytes);
    let mut head = Vec::with_capacity(6);
    let mut start = bytes.by_ref().take(6);
    start.read_to_end(&mut head).map_err(unreadable)?;
    let gzip = head.starts_with(&[0x1f, 0x8b]);
    let other = [
        (&b"\x28\xb5\x2f\xfd"[..], "zstd"),
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh", "bzip2"),
        (b"PK\x03\x04", "zip"),
        (b"7z\xbc\xaf", "7z"),
        (b"\x04\x22\x4d\x18", "lz4"),
    ];
    if let Some((_, name)) = other.iter().find(|(magic, _)| head.starts_with(magic)) {
        return refused(format!(
            "it is compressed with {name}; what is unpacked is tar, as it is or with gzip (.tar, .tar.gz)"
        ));
    }
    let whole = BufReader::new(io::Cursor::new(head).chain(bytes));
    match gzip {
        true => read_tar(MultiGzDecoder::new(whole), take),
        false => read_tar(whole, take),
    }
}

fn read_tar(tar: impl Read, take: Take<'_>) -> Result<(), Refused> {
    let bounded = Bounded {
        inner: tar,
        left: MAX_BYTES,
    };
    let mut archive = Archive::new(bounded);
    let entries = archive.entries().map_err(unreadable)?.raw(true);
    let mut next = Description::default();
    let mut member = 0;
    for entry in entries {
        let mut entry = entry.map_err(unreadable)?;
        let header = entry.header();
        // Without the word it may be anything whose sums happen to be right; every tar since 1988 writes it.
        if header.as_ustar().is_none() && header.as_gnu().is_none() {
            return refused("it is no tar archive in the format of POSIX or GNU");
        }
        let kind = match header.entry_type() {
            // The oldest ones mark directories by a slash.
            EntryType::Regular if header.path_bytes().ends_with(b"/") => EntryType::Directory,
            kind => kind,
        };
        if next.read(kind, &mut entry)? {
            continue;
        }
        let said = std::mem::take(&mut next);
        let header = entry.header();
        let target = header.link_name_bytes().unwrap_or_default().into_owned();
        let described = Header {
            kind,
            path: said.path.unwrap_or(header.path_bytes().into_owned()),
            target: said.target.unwrap_or(target),
            mode: header.mode().map_err(unreadable)?,
        };
        let size = header.entry_size().map_err(unreadable)?;
        if said.size.is_some_and(|said| said != size) {
            return refused(format!("it says two sizes of {}", quoted(&described.path)));
        }
        if kind != EntryType::Regular && size > 0 {
            return refused(format!(
                "{} has bytes, although it is {}",
                quoted(&described.path),
                name_of(kind)
            ));
        }
        let mut content = Whole {
            inner: &mut entry,
            left: size,
        };
        take(member, &described, &mut content)?;
        member += 1;
    }
    if next.is_something() {
        return refused("it ends where an entry is announced");
    }
    Ok(())
}

/// What comes before an entry and says what its header has no room for.
#[derive(Default)]
struct Description {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Description {
    fn is_something(&self) -> bool {
        self.path.is_some() || self.target.is_some() || self.size.is_some()
    }

    /// Reads `entry` if it is of this sort.
    fn read(&mut self, kind: EntryType, entry: &mut impl Read) -> Result<bool, Refused> {
        let is_global = kind == EntryType::XGlobalHeader;
        match kind {
            EntryType::GNULongName => put(&mut self.path, until_nul(all_of(entry)?))?,
            EntryType::GNULongLink => put(&mut self.target, until_nul(all_of(entry)?))?,
            EntryType::XHeader | EntryType::XGlobalHeader => {
                let records = all_of(entry)?;
                for record in PaxExtensions::new(&records) {
                    let record = record.map_err(unreadable)?;
                    let value = record.value_bytes();
                    match record.key_bytes() {
                        b"path" | b"linkpath" | b"size" if is_global => {
                            return refused("it says one name or size of all of its entries");
                        }
                        b"path" => put(&mut self.path, value.to_vec())?,
                        b"linkpath" => put(&mut self.target, value.to_vec())?,
                        b"size" => {
                            let size = record.value().ok().and_then(|size| size.parse().ok());
                            match size {
                                Some(size) => put(&mut self.size, size)?,
                                None => return refused("it has a size that is no number"),
                            }
                        }
                        key if key.starts_with(b"GNU.sparse.") => {
                            return refused(
                                "it has a sparse file: make it with 'tar' without --sparse",
                            );
                        }
                        _ => {}
                    }
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn put<T>(place: &mut Option<T>, value: T) -> Result<(), Refused> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => refused("it says twice what one entry is called"),
    }
}

fn all_of(entry: &mut impl Read) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    let mut limited = entry.take(MAX_DESCRIPTION_BYTES + 1);
    limited.read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() as u64 > MAX_DESCRIPTION_BYTES {
        true => refused("it has an entry whose name takes more than 64 KiB"),
        false => Ok(bytes),
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0);
    bytes.truncate(end.unwrap_or(bytes.len()));
    bytes
}

/// The path of an entry below the directory that the archive is unpacked in; `None` is that directory itself.
fn inner_path(bytes: &[u8]) -> Result<Option<String>, Refused> {
    let no_path = |why: &str| refused(format!("{} {why}", quoted(bytes)));
    let Ok(text) = std::str::from_utf8(bytes) else {
        return no_path("is no text in UTF-8");
    };
    if text.chars().any(char::is_control) {
        return no_path("has a control character in it");
    }
    if text.starts_with('/') {
        return no_path("is absolute");
    }
    let text = text.strip_suffix('/').unwrap_or(text);
    let mut text = text;
    while let Some(rest) = text.strip_prefix("./") {
        text = rest;
    }
    if text.is_empty() || text == "." {
        return Ok(None);
    }
    if text.split('/').any(|name| name == "..") {
        return no_path("has a '..' in it");
    }
    if text.split('/').any(|name| name.is_empty() || name == ".") {
        return no_path("is not normalised");
    }
    if text.len() > MAX_PATH_BYTES || text.split('/').any(|name| name.len() > 255) {
        return no_path("is too long");
    }
    Ok(Some(text.to_owned()))
}

/// The target of the symbolic link `path`, which stays below the directory that the archive is unpacked in.
///
/// Only its first parts may be `..`: what comes before those are directories of the archive, none of them a link. One further on might
/// follow another link, and lead from there to somewhere else than it seems.
fn inner_target(path: &str, bytes: &[u8]) -> Result<String, Refused> {
    let shown = quoted(bytes);
    let leaves = |why: &str| {
        refused(format!(
            "'{path}' is a symbolic link to {shown}, which {why}"
        ))
    };
    let Ok(target) = std::str::from_utf8(bytes) else {
        return leaves("is no text in UTF-8");
    };
    if target.is_empty() || target.chars().any(char::is_control) || target.len() > MAX_PATH_BYTES {
        return leaves("is no path");
    }
    if target.starts_with('/') {
        return leaves("leads out of the archive: it is absolute");
    }
    let parts = || target.split('/').filter(|part| !matches!(*part, "" | "."));
    let up = parts().take_while(|part| *part == "..").count();
    if up > path.matches('/').count() {
        return leaves("leads out of the archive");
    }
    if parts().skip(up).any(|part| part == "..") {
        return leaves("goes down and up again: only its first parts may be '..'");
    }
    Ok(target.to_owned())
}

fn hash(content: &mut dyn Read) -> Result<(u64, [u8; 32]), Refused> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 << 10];
    let mut size = 0;
    loop {
        match content.read(&mut buffer).map_err(unreadable)? {
            0 => break,
            count => {
                context.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
    let hash = context.finish();
    let sha256 = hash.as_ref().try_into().expect("a SHA-256 has 32 bytes");
    Ok((size, sha256))
}

fn unreadable(error: io::Error) -> Refused {
    Refused(format!("it cannot be read: {error}"))
}

/// Bytes of the archive as they may be shown.
fn quoted(bytes: &[u8]) -> String {
    let mut text: String = bytes[..bytes.len().min(200)].escape_ascii().to_string();
    if let Ok(readable) = std::str::from_utf8(bytes)
        && bytes.len() <= 200
        && !readable.chars().any(char::is_control)
    {
        text = readable.to_owned();
    }
    format!("'{text}'")
}

fn name_of(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Directory => "a directory",
        EntryType::Symlink => "a symbolic link",
        EntryType::Link => "another name of a file",
        EntryType::Char | EntryType::Block => "a device",
        EntryType::Fifo => "a named pipe",
        EntryType::GNUSparse => "a sparse file: make it with 'tar' without --sparse",
        _ => "something that no file can be",
    }
}

/// Everything an entry is said to have, or an error.
struct Whole<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::other("it ends in the middle of a file"));
        }
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }
}

/// No more than there may be.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            let limit = MAX_BYTES >> 30;
            io::Error::other(format!("it unpacks to more than {limit} GiB"))
        })?;
        Ok(count)
    }
}
