//! `limpet verify` against real repositories, real keys and hand-made objects: each case with the rule that must catch it.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

#[path = "../fixture/repository.rs"]
mod repository;

#[cfg(feature = "machine")]
#[path = "../fixture"]
mod fixture {
    #![allow(
        dead_code,
        clippy::print_stderr,
        reason = "shared with other tests, which use all of it"
    )]
    pub mod git_server;
    pub mod machine;
    pub mod package;
}

mod approve;
mod history;
mod objects;
#[cfg(feature = "machine")]
mod on_a_machine;
#[cfg(feature = "openpgp")]
mod openpgp;
mod policy;
mod releases;
mod signatures;
mod superseding;
mod trust_files;

use repository::{Key, Repository};

/// A repository whose first commit is the anchor, two keys that may sign, and one that may not.
struct Bench {
    repository: Repository,
    /// What `--repo` says.
    repo: PathBuf,
    alice: Key,
    bob: Key,
    mallory: Key,
    anchor: String,
    allowed_signers: PathBuf,
    revoked: PathBuf,
    /// Further options of `limpet verify`.
    options: Vec<String>,
    /// What gpg knows of certificates, for git's own answer.
    gpg_home: Option<PathBuf>,
    /// Why no machine meets the cases that follow.
    elsewhere: Option<&'static str>,
}

/// How many cases were noted.
static CASES: AtomicUsize = AtomicUsize::new(0);

/// What `limpet verify --json` answered.
struct Answer {
    exit_code: i32,
    json: Value,
}

impl Answer {
    fn text(&self, key: &str) -> &str {
        self.json[key].as_str().unwrap_or_default()
    }
}

impl Bench {
    fn new() -> Self {
        Bench::in_repository(Repository::new())
    }

    fn in_repository(repository: Repository) -> Self {
        let [alice, bob, mallory] = ["alice", "bob", "mallory"].map(|name| repository.key(name));
        repository.write("fleet.toml", "format = 1\nfleet = \"acme\"\n");
        // What a machine called 'case' is told to be: nothing in particular.
        repository.write("hosts/case/case.toml", "");
        let anchor = repository.commit(&alice, "start");
        Bench {
            allowed_signers: repository.file(
                "allowed_signers",
                &format!("{}{}", alice.allowed(), bob.allowed()),
            ),
            revoked: repository.file("revoked", "# nobody\n"),
            options: Vec::new(),
            gpg_home: None,
            elsewhere: None,
            repo: repository.work(),
            repository,
            alice,
            bob,
            mallory,
            anchor,
        }
    }

    /// The last trusted commit is `id`, no longer the anchor.
    fn trust(&mut self, id: &str) {
        self.options = vec!["--trusted".into(), id.into()];
    }

    /// The value of an option of `limpet verify`.
    #[cfg(feature = "machine")]
    fn option(&self, name: &str) -> Option<String> {
        let at = self.options.iter().position(|option| option == name)?;
        self.options.get(at + 1).cloned()
    }

    fn allow(&mut self, lines: &[String]) {
        self.allowed_signers = self.repository.file("allowed_signers", &lines.concat());
    }

    fn command(&self, revision: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_limpet"));
        command
            .env_remove("GIT_QUARANTINE_PATH")
            .arg("verify")
            .arg("--repo")
            .arg(&self.repo)
            .arg("--allowed-signers")
            .arg(&self.allowed_signers)
            .arg("--revoked")
            .arg(&self.revoked)
            .args(["--anchor", &self.anchor])
            .args(&self.options)
            .arg(revision);
        command
    }

    fn verify(&self, revision: &str) -> Answer {
        let output = self.command(revision).arg("--json").output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let answer = Answer {
            exit_code: output.status.code().unwrap(),
            json: serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}")),
        };
        #[cfg(feature = "machine")]
        on_a_machine::check(self, revision, &answer);
        self.note_case(revision, &answer);
        answer
    }

    #[track_caller]
    fn check(&self, revision: &str, verdict: &str, exit_code: i32) -> Answer {
        let answer = self.verify(revision);
        assert_eq!(
            (answer.text("verdict"), answer.exit_code),
            (verdict, exit_code),
            "{}",
            answer.json
        );
        answer
    }

    /// Writes a line of the table of cases, where tests/trust/tabulate asks for it: the test, what hosts say, and what git says.
    fn note_case(&self, revision: &str, answer: &Answer) {
        let Some(directory) = std::env::var_os("LIMPET_CASES") else {
            return;
        };
        let git = |arguments: &[&str]| {
            let file = self.allowed_signers.display();
            let home = self.gpg_home.as_deref();
            Command::new("git")
                .env("GNUPGHOME", home.unwrap_or(self.repository.directory()))
                .arg("-C")
                .arg(&self.repo)
                .arg("-c")
                .arg(format!("gpg.ssh.allowedSignersFile={file}"))
                .args(arguments)
                .output()
                .unwrap()
        };
        let said = match git(&["verify-commit", revision]).status.code() {
            Some(0) => "good",
            _ => "refused",
        };
        let subject = git(&["log", "-1", "--format=%s", revision]).stdout;
        let subject: String = String::from_utf8_lossy(&subject)
            .chars()
            .filter(|c| !c.is_control() && *c != '|')
            .take(50)
            .collect();
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("main");
        let word = match answer.text("rule") {
            "" => answer.text("verdict"),
            rule => rule,
        };
        let number = CASES.fetch_add(1, Ordering::Relaxed);
        // That it is the same is what tests/trust/on_a_machine.rs asks of every case.
        let machine = self.elsewhere.unwrap_or("the same");
        let line = format!("{test}\t{number}\t{subject}\t{word}\t{machine}\t{said}\n");
        let name = format!("{}-{number}", std::process::id());
        std::fs::write(PathBuf::from(directory).join(name), line).unwrap();
    }

    #[track_caller]
    fn accepts(&self, revision: &str) -> Answer {
        self.check(revision, "accepted", 0)
    }

    #[track_caller]
    fn refuses(&self, revision: &str, rule: &str) -> Answer {
        let answer = self.check(revision, "refused", 77);
        assert_eq!(answer.text("rule"), rule, "{}", answer.json);
        answer
    }
}

#[test]
fn a_signed_commit_is_accepted_and_its_signer_named() {
    let bench = Bench::new();
    bench.repository.write("layers/base/motd.toml", "");
    let tip = bench.repository.commit(&bench.bob, "say hello");
    let answer = bench.accepts("HEAD");
    assert_eq!(answer.text("commit"), tip);
    assert_eq!(answer.text("signer"), bench.bob.fingerprint);
    assert!(answer.json["rule"].is_null());

    let output = bench.command("main").output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!(
            "accepted {tip}: signed by bob@example.net ({})\n  say hello\n",
            bench.bob.fingerprint
        )
    );
}

#[test]
fn a_refusal_says_what_is_wrong_and_what_to_do() {
    let bench = Bench::new();
    let tip = bench.repository.commit(&bench.mallory, "hello");
    let output = bench.command("HEAD").output().unwrap();
    assert_eq!(output.status.code(), Some(77));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        format!(
            "error: refused revision {}: signer '{}' is not in '{}'\nhint: add the key there, or sign the commit with a listed one\n",
            &tip[..7],
            bench.mallory.fingerprint,
            bench.allowed_signers.display()
        )
    );
}

#[test]
fn a_command_line_that_makes_no_sense_is_a_usage_error() {
    let mut bench = Bench::new();
    let check = |bench: &Bench, revision: &str| {
        let output = bench.command(revision).output().unwrap();
        assert_eq!(output.status.code(), Some(64));
        assert!(!output.stderr.is_empty());
    };
    check(&bench, "nonsense");
    bench.anchor = bench.anchor[..12].to_owned();
    check(&bench, "HEAD");
    let lone = Command::new(env!("CARGO_BIN_EXE_limpet"))
        .args(["verify", "--repo"])
        .arg(bench.repository.work())
        .args(["--anchor", &bench.repository.id("HEAD")])
        .output()
        .unwrap();
    assert_eq!(lone.status.code(), Some(64));
}

#[test]
fn a_host_that_is_not_enrolled_is_told_how_to_verify_without() {
    let bench = Bench::new();
    let output = Command::new(env!("CARGO_BIN_EXE_limpet"))
        .args(["verify", "--repo"])
        .arg(bench.repository.work())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--allowed-signers"));
}
