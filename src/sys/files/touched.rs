//! Who and when: what the kernel knows of the last change to a file.

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;

use crate::model::Failure;
use crate::sys::Host;
use crate::sys::files::{io_failure, split};

/// The last change to what is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    /// When it was changed last, in microseconds since 1970. The kernel sets it, and no program can put it back.
    pub at_micros: i64,
    /// When its bytes, or what is in the directory, were changed last; whoever owns it may say otherwise.
    pub modified_secs: i64,
    /// Whose it is.
    pub uid: u32,
}

impl Host {
    /// When what is at `path` was changed last; `None` when there is nothing.
    pub fn last_touched(&self, path: &str) -> Result<Option<Touched>, Failure> {
        let mut walk = self.walk()?;
        let (parent, name) = split(path);
        if !walk.enter(parent)? {
            return Ok(None);
        }
        match fstatat(walk.here(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Touched {
                at_micros: stat.st_ctime * 1_000_000 + stat.st_ctime_nsec / 1000,
                modified_secs: stat.st_mtime,
                uid: stat.st_uid,
            })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(io_failure("look at", path, errno)),
        }
    }
}
