//! Reading and hashing the files that a [`Walk`] leads to.
//!
//! Invariant: nothing but a regular file is read, and no link at the end of a path is followed.

use std::fs::File;
use std::io::Read;
use std::sync::PoisonError;

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::sys::statfs::fstatfs;
use ring::digest::{Context, SHA256};

use crate::model::{Class, Failure};
use crate::sys::files::{
    Entry, Hashing, Walk, file_size, io_failure, is_type, read_failure, split, type_word,
};
use crate::sys::signatures::is_trusted;
use crate::sys::xattrs::Xattrs;

/// How much of a file is read at a time.
const BUFFER_BYTES: usize = 64 << 10;

impl Walk {
    /// The SHA-256 of the file `name`, which looks like `stat`; it is read unless it was since it changed last.
    pub(super) fn recall_here(
        &self,
        name: &str,
        shown: &str,
        stat: &FileStat,
    ) -> Result<[u8; 32], Failure> {
        let signatures = || {
            let locked = self.signatures.lock();
            locked.unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(sha256) = signatures().get(stat) {
            return Ok(sha256);
        }
        let (sha256, stat, can_be_remembered) = self.hash_here(name, shown)?;
        if can_be_remembered {
            signatures().remember(&stat, sha256, self.began, self.trust.owner);
        }
        Ok(sha256)
    }

    /// The SHA-256 of the file `name`, how it looked before it was read, and whether it lies where that tells of changes.
    pub(super) fn hash_here(
        &self,
        name: &str,
        shown: &str,
    ) -> Result<([u8; 32], FileStat, bool), Failure> {
        let (mut file, stat) = self.open_here(name, shown)?;
        let sha256 = hash_file(&mut file, file_size(&stat), &mut self.buffer.borrow_mut())
            .map_err(|error| read_failure(shown, &error))?;
        let can_be_remembered = match self.device.get() {
            Some((device, is_trusted)) if device == stat.st_dev => is_trusted,
            _ => {
                let is_trusted = fstatfs(&file)
                    .is_ok_and(|file_system| is_trusted(file_system.filesystem_type()));
                self.device.set(Some((stat.st_dev, is_trusted)));
                is_trusted
            }
        };
        Ok((sha256, stat, can_be_remembered))
    }

    /// Opens the regular file `name` in the directory that was entered last. Never blocks and never follows a link.
    pub(in crate::sys) fn open_here(
        &self,
        name: &str,
        shown: &str,
    ) -> Result<(File, FileStat), Failure> {
        let flags = OFlag::O_RDONLY
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_NOCTTY
            | OFlag::O_CLOEXEC;
        let descriptor = openat(self.here(), name, flags, Mode::empty())
            .map_err(|errno| io_failure("open", shown, errno))?;
        let stat = fstat(&descriptor).map_err(|errno| io_failure("look at", shown, errno))?;
        if !is_type(&stat, SFlag::S_IFREG) {
            return Err(Failure::new(
                Class::Host,
                format!(
                    "failed to read '{shown}': it is {}, not a regular file",
                    type_word(&stat)
                ),
            ));
        }
        Ok((File::from(descriptor), stat))
    }

    /// The extended attributes of the regular file or directory at `path`.
    pub fn read_xattrs(&mut self, path: &str) -> Result<Xattrs, Failure> {
        let _acting = self.act()?;
        let (parent, name) = split(path);
        if !self.enter(parent)? {
            return Ok(Xattrs::default());
        }
        match self.look_here(name, path, Hashing::Skip)? {
            Entry::File { .. } => Xattrs::read(self.open_here(name, path)?.0, path),
            Entry::Directory(_) => {
                let flags =
                    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let directory = openat(self.here(), name, flags, Mode::empty())
                    .map_err(|errno| io_failure("open directory", path, errno))?;
                Xattrs::read(directory, path)
            }
            Entry::Absent | Entry::Symlink(_) | Entry::Special(_) => Ok(Xattrs::default()),
        }
    }

    /// Whom the symbolic link at `path` belongs to: the numbers of its user and group.
    pub fn link_owner(&mut self, path: &str) -> Result<Option<(u32, u32)>, Failure> {
        let _acting = self.act()?;
        let (parent, name) = split(path);
        if !self.enter(parent)? {
            return Ok(None);
        }
        let stat = fstatat(self.here(), name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| io_failure("look at", path, errno))?;
        Ok(is_type(&stat, SFlag::S_IFLNK).then_some((stat.st_uid, stat.st_gid)))
    }

    /// Reads the regular file at `path`, as [`Host::read_file`] does.
    pub fn read_file(&mut self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
        let _acting = self.act()?;
        let (parent, name) = split(path);
        if !self.enter(parent)? || self.look_here(name, path, Hashing::Skip)? == Entry::Absent {
            return Ok(None);
        }
        let (file, _) = self.open_here(name, path)?;
        let mut bytes = Vec::new();
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| read_failure(path, &error))?;
        if bytes.len() as u64 > limit {
            return Err(Failure::new(
                Class::Host,
                format!("failed to read '{path}': it is larger than {limit} bytes"),
            ));
        }
        Ok(Some(bytes))
    }
}

/// SHA-256 of everything that `reader` yields.
pub fn hash(reader: &mut impl Read) -> std::io::Result<[u8; 32]> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            length => context.update(&buffer[..length]),
        }
    }
    Ok(digest_bytes(&context.finish()))
}

/// The same of a regular file that had `size` bytes when it was opened. A read that comes short there is at the end: asking once more
/// would only double what small files cost. What claims another size (/proc does) is read until nothing comes.
fn hash_file(file: &mut File, size: u64, buffer: &mut Vec<u8>) -> std::io::Result<[u8; 32]> {
    buffer.resize(BUFFER_BYTES, 0);
    let first = read_some(file, buffer)?;
    if first < BUFFER_BYTES && first as u64 == size {
        return Ok(hash_bytes(&buffer[..first]));
    }
    let mut context = Context::new(&SHA256);
    let mut length = first;
    while length > 0 {
        context.update(&buffer[..length]);
        length = read_some(file, buffer)?;
    }
    Ok(digest_bytes(&context.finish()))
}

fn read_some(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// SHA-256 of `bytes`.
pub fn hash_bytes(bytes: &[u8]) -> [u8; 32] {
    digest_bytes(&ring::digest::digest(&SHA256, bytes))
}

fn digest_bytes(digest: &ring::digest::Digest) -> [u8; 32] {
    digest.as_ref().try_into().expect("a SHA-256 has 32 bytes")
}
