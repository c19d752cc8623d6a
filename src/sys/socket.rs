//! The control socket's file: who may connect is decided by its owner and mode.

use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::stat::{Mode, umask};

use crate::model::{Class, Failure};
use crate::sys::Host;

impl Host {
    /// Listens on a new socket at `path`, owned by root and `group`, with `mode`. A socket that an earlier process left is removed.
    pub fn listen(&self, path: &str, mode: u32, group: &str) -> Result<UnixListener, Failure> {
        let outer = self.outer_path(path);
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(
                Class::Host,
                format!("failed to {what} the control socket '{path}': {error}"),
            )
        };
        remove_socket(&outer).map_err(|error| failed("replace", &error))?;
        // Nobody may connect before owner and mode are right.
        let before = umask(Mode::from_bits_truncate(0o777));
        let listener = UnixListener::bind(&outer);
        umask(before);
        let listener = listener.map_err(|error| failed("listen on", &error))?;
        if let Some(group) = self.group_id(group)? {
            std::os::unix::fs::lchown(&outer, None, Some(group))
                .map_err(|error| failed("give away", &error))?;
        }
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&outer, permissions).map_err(|error| failed("open", &error))?;
        Ok(listener)
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "reads never open a socket, so the batches know only files and links"
)]
fn remove_socket(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_a_killed_process_left_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        drop(
            host.listen("/control.sock", 0o660, "no-such-group")
                .unwrap(),
        );
        assert!(root.path().join("control.sock").exists());
        host.listen("/control.sock", 0o660, "no-such-group")
            .unwrap();
    }
}
