//! Our own program as a file.

use std::io::Read;
use std::os::unix::fs::MetadataExt;

use ring::digest::{Context, SHA256};

use crate::model::{Class, Failure};
use crate::sys::Host;
use crate::sys::files::{Attributes, read_failure};

impl Host {
    /// Is what we run the file at `path`, and not one that was replaced since, or another.
    #[allow(
        clippy::disallowed_methods,
        reason = "sys is where files are looked at"
    )]
    pub fn is_our_program(&self, path: &str) -> bool {
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let ours = std::fs::metadata("/proc/self/exe").map(identity);
        let theirs = std::fs::metadata(self.outer_path(path)).map(identity);
        ours.is_ok_and(|ours| theirs.is_ok_and(|theirs| theirs == ours))
    }

    /// Replaces `target` by a copy of `source`, durably; returns the SHA-256 of what was copied. Where that is not `expected`, the
    /// target stays as it was.
    pub fn copy_own_file(
        &self,
        source: &str,
        target: &str,
        mode: u32,
        expected: Option<[u8; 32]>,
    ) -> Result<[u8; 32], Failure> {
        #[allow(clippy::disallowed_methods, reason = "sys is where files are opened")]
        let file = std::fs::File::open(self.outer_path(source))
            .map_err(|error| read_failure(source, &error))?;
        let mut content = Hashed {
            inner: file,
            context: Context::new(&SHA256),
        };
        let (uid, gid) = self.root_account()?;
        let mut batch = self.batch()?;
        let candidate = batch.stage_from(target, &mut content, Attributes { mode, uid, gid })?;
        let digest = content.context.finish();
        let sha256: [u8; 32] = digest.as_ref().try_into().expect("a SHA-256 has 32 bytes");
        if expected.is_some_and(|expected| expected != sha256) {
            batch.discard(candidate);
            let message = format!("refused to copy '{source}': it is not what was kept");
            return Err(Failure::new(Class::Host, message));
        }
        if let Err(failure) = batch.sync() {
            batch.discard(candidate);
            return Err(failure);
        }
        batch.publish(candidate)?;
        batch.sync()?;
        Ok(sha256)
    }
}

/// Hashes what is read through it.
struct Hashed<R> {
    inner: R,
    context: Context,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.context.update(&buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::files::hash;

    #[test]
    fn a_copy_is_the_whole_file_or_none() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        let read = |name: &str| host.read_file(name, 100).unwrap().unwrap();
        host.ensure_own_directory("/d", 0o755).unwrap();
        host.write_own_file("/d/new", b"new", 0o644).unwrap();
        host.write_own_file("/d/kept", b"kept", 0o644).unwrap();
        let wrong = host.copy_own_file("/d/new", "/d/kept", 0o700, Some([0; 32]));
        insta::assert_snapshot!(wrong.unwrap_err(), @"refused to copy '/d/new': it is not what was kept");
        assert_eq!(read("/d/kept"), b"kept");
        let copied = host
            .copy_own_file("/d/new", "/d/kept", 0o700, None)
            .unwrap();
        assert_eq!(copied, hash(&mut &b"new"[..]).unwrap());
        assert_eq!(read("/d/kept"), b"new");
        assert_eq!(host.list_own_directory("/d").unwrap(), ["kept", "new"]);
    }
}
