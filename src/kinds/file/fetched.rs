//! Files whose bytes the fetcher brought: nobody sees one before its hash is right.

use std::io::Read;

use crate::git::hex;
use crate::kinds::file::PathChange;
use crate::kinds::file::making::Making;
use crate::kinds::kind::Content;
use crate::model::{Class, Failure};
use crate::sys::files::Attributes;
use crate::sys::write::{Batch, Candidate};

/// The candidate of a file that the fetcher has: nobody sees it before its hash is right.
pub(super) fn stage_fetched(
    making: &Making<'_>,
    batch: &mut Batch,
    change: &PathChange,
    content: &Content,
    url: &str,
    attributes: Attributes,
) -> Result<Candidate, Failure> {
    let bytes = making.contents.open(content)?;
    match stage_hashed(batch, change, content, bytes, attributes)? {
        Ok(candidate) => Ok(candidate),
        Err(found) => Err(not_as_declared(url, &found, &content.sha256)),
    }
}

/// The failure to get from `url` what has the declared hash.
pub fn not_as_declared(url: &str, found: &[u8; 32], declared: &[u8; 32]) -> Failure {
    let (found, declared) = (hex(found), hex(declared));
    let message = format!(
        "what the fetcher got from '{url}' has SHA-256 {found}, not {declared} as declared"
    );
    Failure::new(Class::Host, message)
}

/// The candidate of a file with these bytes; their hash where it is not the content's.
pub(super) fn stage_hashed(
    batch: &mut Batch,
    change: &PathChange,
    content: &Content,
    bytes: impl Read,
    attributes: Attributes,
) -> Result<Result<Candidate, [u8; 32]>, Failure> {
    let mut hashing = Hashed {
        inner: bytes,
        context: ring::digest::Context::new(&ring::digest::SHA256),
    };
    let candidate = batch.stage_from(&change.path, &mut hashing, attributes)?;
    let found = hashing.context.finish();
    if found.as_ref() == content.sha256 {
        return Ok(Ok(candidate));
    }
    batch.discard(candidate);
    let found = found.as_ref().try_into();
    Ok(Err(found.expect("a SHA-256 has 32 bytes")))
}

/// What is read, and its hash.
struct Hashed<R> {
    inner: R,
    context: ring::digest::Context,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.context.update(&buffer[..count]);
        Ok(count)
    }
}
