//! The managed machine: every access to it goes through [`Host`].
//!
//! Invariant: no other module opens a file, runs a program or reads the clock (the fetcher, which is another process without a
//! `Host`, excepted).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::PackageManager;
use remembered::Answers;
use signatures::Signatures;

pub mod accounts;
pub mod acting;
pub mod capabilities;
pub mod chance;
pub mod clock;
pub mod command;
pub mod disk;
mod exchange;
pub mod files;
pub mod identity;
pub mod jobs;
pub mod lock;
pub mod memory;
pub mod program;
mod remembered;
pub mod signatures;
pub mod socket;
pub mod systemd;
pub mod transient;
mod unit_files;
pub mod workdir;
pub mod write;
pub mod xattrs;

/// The managed machine: an alternate root, a command runner and a connection to systemd.
#[derive(Debug)]
pub struct Host {
    root: PathBuf,
    systemd: systemd::Systemd,
    signatures: Arc<Mutex<Signatures>>,
    answers: Answers,
    /// The package manager that the host configuration names.
    package_manager: Mutex<Option<PackageManager>>,
    /// Transactions that have ended, and whose result is not written down yet.
    ended_transactions: Mutex<Vec<String>>,
}

impl Host {
    /// The machine whose root directory is `root`: `/`, an image being built, or a test's temporary directory. systemd is asked
    /// only where `root` is `/`.
    pub fn new(root: &Path) -> Self {
        let is_running_system = root == Path::new("/");
        Host {
            root: root.to_owned(),
            systemd: systemd::Systemd::new(is_running_system),
            signatures: Arc::default(),
            answers: Answers::default(),
            package_manager: Mutex::default(),
            ended_transactions: Mutex::default(),
        }
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Is this the machine we run on, and not an image or a test's directory.
    pub fn is_running_system(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Uses this package manager from now on, or the one that is found.
    pub fn choose_package_manager(&self, chosen: Option<PackageManager>) {
        let locked = self.package_manager.lock();
        *locked.unwrap_or_else(PoisonError::into_inner) = chosen;
    }

    /// The package manager that was chosen.
    pub fn chosen_package_manager(&self) -> Option<PackageManager> {
        let locked = self.package_manager.lock();
        *locked.unwrap_or_else(PoisonError::into_inner)
    }

    /// What files contained when they were read last.
    pub fn signatures(&self) -> MutexGuard<'_, Signatures> {
        // Whoever panicked while holding it left it whole: each change is one call.
        let locked = self.signatures.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    /// The system's manager.
    pub fn systemd(&self) -> &systemd::Systemd {
        &self.systemd
    }
}
