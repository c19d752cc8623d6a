//! The packages that a host cannot do without.
//!
//! Invariant: pure, but for the kernel's own word for what it is.

use crate::kinds::package::apt;
use crate::kinds::package::status::Database;

/// Packages whose removal waits for a person, beside those that dpkg or apt call essential and the kernel that runs: without them the
/// host does not boot, is not managed, or is beyond our reach.
pub(super) const PROTECTED: [(&str, &str); 21] = [
    ("limpet", "limpet itself"),
    ("dpkg", "the package manager"),
    ("apt", "the package manager"),
    ("dnf", "the package manager"),
    ("dnf5", "the package manager"),
    ("rpm", "the package manager"),
    ("systemd", "the init system"),
    ("systemd-sysv", "the init system"),
    ("init", "the init system"),
    ("sysvinit-core", "the init system"),
    ("dbus", "the system's bus"),
    ("dbus-daemon", "the system's bus"),
    ("dbus-broker", "the system's bus"),
    ("libc6", "the C library"),
    ("glibc", "the C library"),
    ("openssh-server", "the ssh server"),
    ("dropbear", "the ssh server"),
    ("dropbear-bin", "the ssh server"),
    ("sudo", "the way to become root"),
    ("sudo-ldap", "the way to become root"),
    ("sudo-rs", "the way to become root"),
];

/// What every host would be without, were the package called `name` removed.
pub(super) fn well_known(name: &str) -> Option<&'static str> {
    let known = PROTECTED
        .iter()
        .find(|(protected, _)| *protected == apt::without_architecture(name));
    known.map(|(_, what)| *what)
}

/// What the host would be without, were the package called `name` removed.
pub(super) fn why_protected(
    name: &str,
    database: &Database,
    kernel: Option<&str>,
) -> Option<&'static str> {
    let is_kernel = kernel == Some(apt::without_architecture(name));
    well_known(name)
        .or(is_kernel.then_some("the kernel that runs"))
        .or_else(|| {
            let is_essential = database.get(name).is_some_and(|entry| entry.is_essential);
            is_essential.then_some("an essential package")
        })
}

/// The Debian package of the kernel that runs.
pub(super) fn running_kernel_package() -> Option<String> {
    let names = nix::sys::utsname::uname().ok()?;
    Some(format!("linux-image-{}", names.release().to_str()?))
}
