//! What a file system has left, and who holds a lock on a file.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::model::{Class, Failure};
use crate::sys::Host;

/// What a file system has left for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// In bytes.
    pub free_bytes: u64,
    /// In bytes.
    pub total_bytes: u64,
    /// Files that may still be made.
    pub free_inodes: u64,
    /// All of them; 0 where the file system does not count them.
    pub total_inodes: u64,
    /// Nothing can be written.
    pub is_read_only: bool,
}

impl Host {
    /// What is left where `path` lies.
    pub fn read_space(&self, path: &str) -> Result<Space, Failure> {
        let found = statvfs(&self.outer_path(path)).map_err(|error| {
            let cause = error.desc();
            Failure::new(
                Class::Host,
                format!("failed to look at the file system of '{path}': {cause}"),
            )
        })?;
        let unit = found.fragment_size();
        Ok(Space {
            free_bytes: found.blocks_available() * unit,
            total_bytes: found.blocks() * unit,
            free_inodes: found.files_available(),
            total_inodes: found.files(),
            is_read_only: found.flags().contains(FsFlags::ST_RDONLY),
        })
    }

    /// The process that holds a lock on all of the file `path` (fcntl(2), as dpkg does); none when nobody does, or there is no such file.
    pub fn read_lock_holder(&self, path: &str) -> Result<Option<i32>, Failure> {
        let failed = |error: nix::Error| {
            Failure::new(
                Class::Host,
                format!("failed to look at the lock '{path}': {}", error.desc()),
            )
        };
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let file = match nix::fcntl::open(&self.outer_path(path), flags, Mode::empty()) {
            Ok(file) => file,
            Err(nix::Error::ENOENT) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut lock = libc::flock {
            // Asked as a writer would ask: a reader is not kept out by another.
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_GETLK(&mut lock)).map_err(failed)?;
        Ok((i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid))
    }
}
