//! A working tree in a temporary directory, and the program run on it.

use std::path::Path;
use std::process::{Command, Output};

/// Every host gets the layer `base`.
pub const FLEET: &str =
    "format = 1\nfleet = \"test\"\n\n[[match]]\nhosts = [\"*\"]\nlayers = [\"base\"]\n";

/// One host, with facts.
pub const INVENTORY: &str = "[host.gw]\nfacts = { os = \"debian\", os_version = \"12\" }\n";

/// A working tree; it is removed at the end.
pub struct WorkTree(tempfile::TempDir);

impl WorkTree {
    /// A tree of `files`, besides the usual fleet.toml and inventory where they are not given.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let tree = WorkTree(tempfile::tempdir().unwrap());
        for (path, text) in [("fleet.toml", FLEET), ("inventory/hosts.toml", INVENTORY)] {
            tree.write(path, text);
        }
        for (path, text) in files {
            tree.write(path, text);
        }
        tree
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes one file, and the directories it needs.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Runs `limpet check` here.
    pub fn check(&self) -> Output {
        limpet(&["check"], self.path())
    }

    /// What `limpet check` says about this tree, which has mistakes.
    #[track_caller]
    pub fn mistakes(&self) -> String {
        let output = self.check();
        assert_eq!(output.status.code(), Some(65), "{output:?}");
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    }

    /// The object that `limpet render --json` prints for `host`.
    #[track_caller]
    pub fn render(&self, host: &str) -> serde_json::Value {
        let output = limpet(
            &["render", "--json", "--origins", "--host", host],
            self.path(),
        );
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// Runs the program in `directory`.
pub fn limpet(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_limpet"))
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}
