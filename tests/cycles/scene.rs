//! A machine that is only a directory, and the repository it follows.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::repository::{Key, Repository};

/// A machine, its repository and its author.
pub struct Scene {
    pub repository: Repository,
    pub alice: Key,
    root: tempfile::TempDir,
}

/// What a run of limpet left.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Scene {
    /// A machine called `gw-1`, enrolled in a repository whose first commit declares `layer` (the text of `layers/base/base.toml`).
    pub fn new(layer: &str) -> Self {
        let repository = Repository::new();
        let alice = repository.key("alice");
        let scene = Scene {
            repository,
            alice,
            root: tempfile::tempdir().unwrap(),
        };
        // Root's fetcher is another user, who must be able to read the repository.
        fs::set_permissions(
            scene.repository.directory(),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        scene.repository.write(
            "fleet.toml",
            "format = 1\nfleet = \"test\"\n\n[[match]]\nhosts = [\"*\"]\nlayers = [\"base\"]\n",
        );
        scene.repository.write("layers/base/base.toml", layer);
        let anchor = scene.repository.commit(&scene.alice, "first revision");
        scene.repository.push();
        scene.put("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
        scene.put("etc/machine-id", "22823ba6c96947e78b006c51a56fd89c\n");
        scene.put("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
        scene.put("etc/group", "root:x:0:\n");
        scene.put("etc/limpet/allowed_signers", &scene.alice.allowed());
        scene.put("etc/limpet/revoked", "# none\n");
        scene.put(
            "etc/limpet/limpet.toml",
            &format!(
                "[source]\nurl = \"{}\"\n\n[trust]\nanchor = {{ commit = \"{anchor}\" }}\n\n[host]\nname = \"gw-1\"\n",
                scene.repository.server().display()
            ),
        );
        scene
    }

    /// Commits `layer` as the base layer, signed by Alice, pushes, and returns the commit.
    pub fn push_layer(&self, layer: &str) -> String {
        self.repository.write("layers/base/base.toml", layer);
        let commit = self.repository.commit(&self.alice, "change the base layer");
        self.repository.push();
        commit
    }

    /// One cycle.
    pub fn apply(&self) -> Run {
        self.limpet(&["apply", "--once"])
    }

    /// Runs limpet on the machine.
    pub fn limpet(&self, arguments: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_limpet"))
            .args(arguments)
            .arg("--root")
            .arg(self.root.path())
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        Run::from(output)
    }

    /// Writes a file of the machine.
    pub fn put(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The text of a file of the machine; `None` when there is none.
    pub fn get(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    /// Permission bits of a file of the machine.
    pub fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.path(path)).unwrap().permissions().mode() & 0o7777
    }

    /// Where a file of the machine really is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }
}

impl Run {
    /// Fails the test unless the run ended with `code`, and shows what it said.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// Fails the test unless the run said `text` somewhere.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        let said = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(
            said,
            "not said: {text}\nstdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
