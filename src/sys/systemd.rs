//! systemd's manager over D-Bus.

/// A connection to systemd, made when it is first needed and again when the bus went away.
#[derive(Debug)]
pub struct Systemd {
    available: bool,
}

impl Systemd {
    /// A connection that is not made yet; with `available` false every call fails and says that there is no systemd.
    pub fn new(available: bool) -> Self {
        Systemd { available }
    }

    /// Is this a machine with a running systemd.
    pub fn is_available(&self) -> bool {
        self.available
    }
}
