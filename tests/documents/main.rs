//! What people read and copy from: the manual pages, the README, the recipes and the commented configuration.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests read the tree and run the program"
)]

#[path = "../fixture/repository.rs"]
mod repository;

mod examples;
mod keys;
mod readme;
mod security;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// `path` of this tree.
fn in_tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file of this tree.
#[track_caller]
fn read(path: &str) -> String {
    std::fs::read_to_string(in_tree(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs the program in `directory`.
fn limpet(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_limpet"))
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

/// Writes `files` into a directory, and expects `limpet check` to find no mistake there.
#[track_caller]
fn check_fleet(files: &[(&str, &str)]) {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let output = limpet(&["check"], directory.path());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A fleet.toml that gives every host these layers.
fn fleet_of(layers: &str) -> String {
    format!(
        "format = 1\nfleet = \"documents\"\n\n[[match]]\nhosts = [\"*\"]\nlayers = [{layers}]\n"
    )
}

/// One Debian host.
const INVENTORY: (&str, &str) = (
    "inventory/hosts.toml",
    "[host.web-1]\nfacts = { os = \"debian\", os_version = \"12\", arch = \"amd64\" }\n",
);
