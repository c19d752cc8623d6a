//! The managed machine: every access to it goes through [`Host`].

/// The managed machine: an alternate root, a command runner and a connection to systemd.
#[derive(Debug)]
pub struct Host {}
