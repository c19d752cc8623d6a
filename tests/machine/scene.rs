//! The scene of most tests: a fleet repository on a Git server, and a machine enrolled in it.

use std::time::Duration;

use serde_json::Value;

use crate::fixture::git_server::GitServer;
use crate::fixture::machine::{Machine, Output, wait_until};
use crate::fixture::package;
use crate::fixture::repository::{Key, Repository};

/// How long a machine may take for anything that is not a poll's interval away.
pub const SOON: Duration = Duration::from_secs(30);

/// Tests ask for a cycle with `sync`; one that came by itself between two of their commands would undo the first.
const RARELY: &str = "6h";

/// As often as may be, for tests of what the agent does without being asked.
const OFTEN: &str = "10s";

/// The message of every commit.
pub const SUBJECT: &str = "Change the fleet";

/// A machine enrolled in a fleet of its own.
#[derive(Debug)]
pub struct Scene {
    /// The machine, which the repository knows as `scene`.
    pub machine: Machine,
    /// The author's side.
    pub repository: Repository,
    /// The author, whom the machine trusts.
    pub alice: Key,
    /// Somebody whom it does not know.
    pub mallory: Key,
    /// Where the machine polls; gone when the server is down.
    pub server: Option<GitServer>,
}

/// `layers/base/scene.toml`, where most tests declare what they need.
pub const LAYER: &str = "layers/base/scene.toml";

impl Scene {
    /// A machine with the package and a repository whose signed anchor has `layer` as its only layer, not enrolled yet.
    pub fn prepared(label: &str, layer: &str) -> Scene {
        Scene::prepared_in(label, layer, Repository::new())
    }

    /// The same in `repository`, which is empty.
    pub fn prepared_in(label: &str, layer: &str, repository: Repository) -> Scene {
        let machine = Machine::start(label);
        machine.install_deb(&package::built());
        Scene::prepared_on(machine, layer, repository)
    }

    /// The same on a machine that has the package.
    pub fn prepared_on(machine: Machine, layer: &str, repository: Repository) -> Scene {
        repository.write(
            "fleet.toml",
            "format = 1\nfleet = \"tests\"\n\n[[match]]\nhosts = [\"*\"]\nlayers = [\"base\"]\n",
        );
        repository.write(LAYER, layer);
        let (alice, mallory) = (repository.key("alice"), repository.key("mallory"));
        repository.commit(&alice, SUBJECT);
        repository.push();
        let server = GitServer::start(repository.directory());
        machine.write_file("/root/ca.pem", ca_of(&server));
        machine.write_file("/root/allowed_signers", alice.allowed());
        write_interval(&machine, RARELY);
        Scene {
            machine,
            repository,
            alice,
            mallory,
            server: Some(server),
        }
    }

    /// The same, enrolled and converged.
    pub fn enrolled(label: &str, layer: &str) -> Scene {
        let scene = Scene::prepared(label, layer);
        scene.enroll().success();
        scene.converge();
        scene
    }

    /// From now on the agent polls, and looks for drift, without being asked.
    pub fn poll_often(&self) {
        write_interval(&self.machine, OFTEN);
        self.machine.sh("if systemctl --quiet is-active limpet.service; then systemctl reload limpet.service; fi");
    }

    /// Runs `limpet enroll` with the repository's head as the anchor.
    pub fn enroll(&self) -> Output {
        self.enroll_as("scene")
    }

    /// The same for the host `name`.
    pub fn enroll_as(&self, name: &str) -> Output {
        self.enroll_with(name, &[])
    }

    /// The same with further options.
    pub fn enroll_with(&self, name: &str, options: &[&str]) -> Output {
        let (url, anchor) = (self.url(), self.head());
        let arguments = [
            &["limpet", "enroll", &url, "--anchor", &anchor][..],
            &["--ca-file", "/root/ca.pem"],
            &["--allowed-signers", "/root/allowed_signers"],
            &["--name", name, "--yes"],
            options,
        ];
        self.machine.run(&arguments.concat())
    }

    /// The repository's address.
    pub fn url(&self) -> String {
        let server = self.server.as_ref().expect("the server is up");
        format!("{}/server.git", server.url)
    }

    /// Starts the server again after it was dropped, at another address; the machine is told.
    pub fn move_server(&mut self) {
        let server = GitServer::start(self.repository.directory());
        self.machine
            .write_file("/etc/limpet/moved.pem", ca_of(&server));
        self.server = Some(server);
        let moved = format!(
            "[source]\nurl = \"{}\"\nca_file = \"/etc/limpet/moved.pem\"\n",
            self.url()
        );
        self.machine
            .write_file("/etc/limpet/limpet.toml.d/moved.toml", moved);
        self.machine.sh("systemctl reload limpet.service");
        self.renew_fetcher();
    }

    /// Whoever asks next gets a new fetcher, of the unit as it is now.
    pub fn renew_fetcher(&self) {
        // A question that comes meanwhile makes systemd cancel the stop for a start.
        self.machine.sh(
            "systemctl daemon-reload; \
             for _ in 1 2 3 4 5 6 7 8 9; do systemctl stop limpet-fetch.service && exit; done; exit 1",
        );
    }

    /// The head of the author's clone.
    pub fn head(&self) -> String {
        self.repository.id("HEAD")
    }

    /// Commits what was written, signed by `key`, and pushes it, even over what is there; returns the commit.
    pub fn push_signed(&self, key: &Key) -> String {
        let commit = self.repository.commit(key, SUBJECT);
        self.repository.force_push();
        commit
    }

    /// The same without a signature.
    pub fn push_unsigned(&self) -> String {
        let commit = self.repository.commit_unsigned(SUBJECT);
        self.repository.force_push();
        commit
    }

    /// Makes the server's branch end at `revision`, whatever it had.
    pub fn reset(&self, revision: &str) {
        self.repository.reset(revision);
        self.repository.force_push();
    }

    /// Replaces the layer by a signed and pushed commit; returns its id.
    pub fn declare(&self, layer: &str) -> String {
        self.repository.write(LAYER, layer);
        self.push_signed(&self.alice)
    }

    /// Replaces the layer and waits until the machine has applied it.
    #[track_caller]
    pub fn apply(&self, layer: &str) {
        self.declare(layer);
        self.converge();
    }

    /// `limpet sync --wait`.
    pub fn sync(&self) -> Output {
        self.machine.run(&["limpet", "sync", "--wait"])
    }

    /// Syncs, and expects the machine to be as the author's head declares.
    #[track_caller]
    pub fn converge(&self) {
        let head = self.head();
        self.sync().success();
        let status = self.status();
        assert_eq!(status["state"], "converged", "{status:#}");
        assert_eq!(status["revision"], head.as_str(), "{status:#}");
        self.nothing_to_do();
    }

    /// After an apply, planning again is empty.
    #[track_caller]
    pub fn nothing_to_do(&self) {
        let plan = self.machine.run(&["limpet", "plan", "--json"]);
        assert_eq!(plan.code(), 0, "{plan:?}");
        let plan: Value = serde_json::from_str(&plan.stdout).expect("plan --json prints an object");
        assert_eq!(plan["changes"], serde_json::json!([]), "{plan:#}");
    }

    /// `limpet status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let status = self.machine.run(&["limpet", "status", "--json"]);
        serde_json::from_str(&status.stdout)
            .unwrap_or_else(|error| panic!("status --json prints an object: {error}: {status:?}"))
    }

    /// What `limpet plan --json` would do: `kind:name action reason`.
    #[track_caller]
    pub fn planned(&self) -> Vec<String> {
        let plan = self.machine.run(&["limpet", "plan", "--json"]);
        let plan: Value = serde_json::from_str(&plan.stdout)
            .unwrap_or_else(|error| panic!("plan --json prints an object: {error}: {plan:?}"));
        let text = |change: &Value, key: &str| change[key].as_str().unwrap_or_default().to_owned();
        plan["changes"]
            .as_array()
            .expect("changes is a list")
            .iter()
            .map(|change| {
                format!(
                    "{} {} {}",
                    text(change, "resource"),
                    text(change, "action"),
                    text(change, "reason")
                )
            })
            .collect()
    }

    /// Expects that the machine refused the head with exit code 77 and still enforces `revision`.
    #[track_caller]
    pub fn refuses(&self, revision: &str) {
        let sync = self.sync();
        assert_eq!(sync.code(), 77, "{sync:?}");
        let status = self.status();
        assert_eq!(status["state"], "refused", "{status:#}");
        assert_eq!(status["revision"], revision, "{status:#}");
    }

    /// Expects the journal to have an event with this MESSAGE_ID; returns its fields.
    #[track_caller]
    pub fn event(&self, message_id: &str) -> Value {
        let filter = format!("MESSAGE_ID={message_id}");
        wait_until("the event in the journal", SOON, || {
            self.machine.journal(&[&filter]).pop()
        })
    }
}

fn ca_of(server: &GitServer) -> Vec<u8> {
    std::fs::read(&server.ca_file).expect("the server has an authority")
}

/// The `MESSAGE_ID`s of systemd/limpet.catalog.
pub mod event {
    #![allow(missing_docs)] // the names are the meaning
    pub const REVISION_APPLIED: &str = "1f1ab4a4b1a94ce9ad5b1b8ff0ce5cb1";
    pub const REVISION_REFUSED: &str = "6d1ef0a4b5a94d1f8f0a6ff8d3ab3c02";
    pub const DRIFT_CORRECTED: &str = "9c2f6c5d0f3a4f2e9fd4d1ad4ea2aa03";
    pub const RESOURCE_FAILED: &str = "b4c8e0f6a7d14d6f8b1de6f42c7aa304";
    pub const ROLLED_BACK: &str = "3a5d9d1c2f6e4c0b9ea7b0d95b1c7f05";
    pub const CONTESTED: &str = "c41d7be05a3f4a7c8e92d6f0b1837a05";
    pub const RECOVERED: &str = "52d8f0c4e1b74b0f9c6a3e7d8f21bc07";
}

fn write_interval(machine: &Machine, interval: &str) {
    machine.write_file(
        "/etc/limpet/limpet.toml.d/interval.toml",
        format!("[source]\ninterval = \"{interval}\"\n"),
    );
}
