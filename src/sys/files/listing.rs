//! What is in the directories that a [`Walk`] leads to.

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstat, fstatat};

use crate::model::Failure;
use crate::sys::files::{Walk, io_failure, split};

impl Walk {
    /// Is something mounted on the directory `path`.
    pub fn is_mount_point(&mut self, path: &str) -> Result<bool, Failure> {
        let _acting = self.act()?;
        let (parent, name) = split(path);
        if !self.enter(parent)? {
            return Ok(false);
        }
        let failed = |errno| io_failure("look at", path, errno);
        let outside = fstat(self.here()).map_err(failed)?;
        let inside = fstatat(self.here(), name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
        if outside.st_dev != inside.st_dev {
            return Ok(true);
        }
        // One file system may be mounted at several places; kernels before 5.8 cannot tell.
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let known = rustix::fs::statx(self.here(), name, flags, rustix::fs::StatxFlags::TYPE);
        Ok(known.is_ok_and(|known| {
            known
                .stx_attributes
                .contains(rustix::fs::StatxAttributes::MOUNT_ROOT)
        }))
    }

    /// At most `limit` names in the directory `path`, in no order; none when it does not exist.
    pub fn list(&mut self, path: &str, limit: usize) -> Result<Vec<String>, Failure> {
        let _acting = self.act()?;
        if !self.enter(path)? {
            return Ok(Vec::new());
        }
        self.list_here(path, limit)
    }

    /// As [`list`](Self::list), also of a directory that is not safe: those above it are judged, it is not. It is not entered.
    pub fn list_any(&mut self, path: &str, limit: usize) -> Result<Vec<String>, Failure> {
        let _acting = self.act()?;
        let (parent, name) = split(path);
        if !self.enter(parent)? {
            return Ok(Vec::new());
        }
        self.list_named(name, path, limit)
    }

    /// At most `limit` names in the directory that was entered last.
    pub(in crate::sys) fn list_here(
        &self,
        shown: &str,
        limit: usize,
    ) -> Result<Vec<String>, Failure> {
        self.list_named(".", shown, limit)
    }

    /// At most `limit` names in the directory `name` of the one that was entered last; none when it does not exist.
    fn list_named(&self, name: &str, shown: &str, limit: usize) -> Result<Vec<String>, Failure> {
        let failed = |errno| io_failure("list directory", shown, errno);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut directory = match Dir::openat(self.here(), name, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(failed(errno)),
        };
        let mut found = Vec::new();
        for entry in directory.iter() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy();
            if name != "." && name != ".." {
                if found.len() == limit {
                    break;
                }
                found.push(name.into_owned());
            }
        }
        Ok(found)
    }
}
