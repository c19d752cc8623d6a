//! Units, packages and transient units against a real systemd, dpkg and apt.
//!
//! Runs inside a throw-away machine, as root, and changes it: the executable is copied in and started there. It refuses to run where
//! `/etc/limpet-throw-away-machine` is missing.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the test looks at the machine past the code it tests"
)]

mod commands;
mod packages;
mod units;
mod versions;

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use limpet::sys::Host;

/// The machine, held by one test at a time: daemon-reloads, apt and the bus are there once.
struct Machine {
    host: Host,
    _lock: MutexGuard<'static, ()>,
}

fn machine() -> Machine {
    static LOCK: Mutex<()> = Mutex::new(());
    assert!(
        Path::new("/etc/limpet-throw-away-machine").exists(),
        "these tests change the machine they run on: they need a throw-away machine that has /etc/limpet-throw-away-machine"
    );
    Machine {
        _lock: LOCK.lock().unwrap_or_else(PoisonError::into_inner),
        host: Host::new(Path::new("/")),
    }
}

/// What a program prints, whatever its exit status.
fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
