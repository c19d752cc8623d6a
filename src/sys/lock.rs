//! One limpet at a time: the lock that the agent and `limpet apply` hold while they may change the machine.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::{Flock, FlockArg};

use crate::model::{Class, Failure};
use crate::sys::Host;

/// The right to change the machine; given back when dropped or when the process ends, however it ends (flock(2)).
#[derive(Debug)]
pub struct Lock {
    _held: Flock<File>,
}

impl Host {
    /// Takes the lock at `path` without waiting.
    pub fn lock(&self, path: &str) -> Result<Lock, Failure> {
        let outer = self.outer_path(path);
        let mut writing = OpenOptions::new();
        writing.create(true).truncate(false).write(true).mode(0o600);
        let mut reading = OpenOptions::new();
        reading.read(true);
        let open =
            |options: &mut OpenOptions| options.custom_flags(nix::libc::O_NOFOLLOW).open(&outer);
        let file = open(&mut writing)
            .or_else(|error| match error.kind() {
                // A lock needs no writing, and a disk that takes nothing is no reason to stop enforcing.
                ErrorKind::ReadOnlyFilesystem | ErrorKind::StorageFull => open(&mut reading),
                _ => Err(error),
            })
            .map_err(|error| {
                Failure::new(
                    Class::Host,
                    format!("failed to open the lock '{path}': {error}"),
                )
            })?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Ok(Lock { _held: held }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(Failure::new(
                Class::Transient,
                "another limpet is at work on this machine",
            )
            .with_hint(
                "the agent applies by itself; ask it with 'limpet sync --wait', or stop it first",
            )),
            Err((_, error)) => Err(Failure::new(
                Class::Host,
                format!("failed to take the lock '{path}': {error}"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_limpet_is_told_that_another_is_at_work() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        let held = host.lock("/lock").unwrap();
        assert_eq!(host.lock("/lock").unwrap_err().class, Class::Transient);
        drop(held);
        host.lock("/lock").unwrap();
    }
}
