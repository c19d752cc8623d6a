//! `limpet approve`: an author's word for somebody else's change, where a policy asks for more than one.
//!
//! It is an empty commit on top of the branch, with a line that names what is approved. Git makes and signs it, with the author's own
//! configuration, so that security keys and agents work as for every other commit.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;

use super::CommandResult;
use super::terminal::Terminal;
use crate::git::ObjectId;
use crate::git::repository::Repository;
use crate::model::{Class, Failure};
use crate::trust::{approval_line, describe_commit};

/// Sign an approval of a change, as an empty commit on top of the branch
#[derive(Debug, Args)]
#[command(
    after_help = "Look at the change before you approve it: git show REV. Push the branch afterwards; the hosts count it then."
)]
pub struct Arguments {
    /// The commit to approve: an id, a branch, HEAD~1
    #[arg(default_value = "HEAD")]
    rev: String,
    /// The clone (default: the one this directory is in)
    #[arg(long, value_name = "PATH", default_value = ".")]
    repo: PathBuf,
}

/// Runs the command.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    approve(arguments, terminal)
        .map(|()| 0)
        .map_err(|failure| vec![failure])
}

fn approve(arguments: &Arguments, terminal: &Terminal) -> Result<(), Failure> {
    let wrong = |message: String| Failure::new(Class::Author, message);
    let repository =
        Repository::discover(&arguments.repo).map_err(|error| wrong(error.to_string()))?;
    let resolve = |name: &str| {
        repository
            .resolve(name)
            .map_err(|error| wrong(error.to_string()))
    };
    let (approved, head) = (resolve(&arguments.rev)?, resolve("HEAD")?);
    let own = Git {
        directory: &arguments.repo,
    };
    let fleet = own.fleet_directory();
    let described = describe_commit(&repository, &fleet, None, approved)?;
    let short = approved.to_hex_with_len(7);
    let Some(author) = &described.fingerprint else {
        return Err(wrong(format!(
            "commit {short} is not signed: an approval of it would count nowhere"
        ))
        .with_hint("let its author sign it: git commit --amend -S"));
    };
    let git = Git {
        directory: repository.path(),
    };
    if !git.succeeds(&["merge-base", "--is-ancestor", &approved.to_string(), "HEAD"])? {
        return Err(wrong(format!(
            "commit {short} is not in the history of HEAD, so an approval here would not be on its branch"
        ))
        .with_hint("check out its branch first"));
    }
    let message = format!(
        "approve {short}\n\n{}\n",
        approval_line(&described.payload_sha256)
    );
    let tree = format!("{head}^{{tree}}");
    let made = git.read(&[
        "-c",
        &format!("gpg.format={}", git.signature_format()),
        "commit-tree",
        "-S",
        "-p",
        &head.to_string(),
        "-m",
        message.trim_end(),
        &tree,
    ])?;
    let made =
        ObjectId::from_hex(made.as_bytes()).map_err(|_| wrong("git made no commit".to_owned()))?;
    let approval = describe_commit(&repository, &fleet, None, made)?;
    match &approval.fingerprint {
        None => return Err(wrong("git did not sign the approval".to_owned())),
        Some(own) if own == author => {
            return Err(wrong(format!(
                "commit {short} is signed by your own key '{own}': somebody else has to approve it"
            )));
        }
        Some(_) => {}
    }
    git.read(&[
        "update-ref",
        "-m",
        &format!("approve {short}"),
        "HEAD",
        &made.to_string(),
        &head.to_string(),
    ])?;
    terminal.message(&format!(
        "approved {short} '{}', signed by {author}, with {}",
        described.subject,
        made.to_hex_with_len(7)
    ));
    terminal.message("push the branch, so that the hosts see it");
    Ok(())
}

/// The author's git in their clone.
struct Git<'a> {
    directory: &'a Path,
}

impl Git<'_> {
    #[allow(
        clippy::disallowed_methods,
        reason = "an author's clone, on any machine: no host is involved"
    )]
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.arg("-C").arg(self.directory).args(arguments);
        command
    }

    fn read(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = self
            .command(arguments)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| not_run(&error))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
            false => Err(Failure::new(
                Class::Author,
                "git did not make the approval; it says above why",
            )
            .with_hint("commits are signed with: git config gpg.format ssh; git config user.signingkey FILE.pub")),
        }
    }

    /// What `git config` says, if it does.
    fn configured(&self, name: &str) -> Option<String> {
        let output = self.command(&["config", name]).output().ok()?;
        let value = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| value.trim().to_owned())
    }

    /// The format that the author signs commits in. Git takes OpenPGP where nothing is said, and so do we where the key is no SSH key.
    fn signature_format(&self) -> String {
        let is_of_ssh = |key: &String| {
            ["ssh-", "sk-", "ecdsa-", "key::"]
                .iter()
                .any(|start| key.starts_with(start))
                || key.contains('/')
                || key.ends_with(".pub")
        };
        match (
            self.configured("gpg.format"),
            self.configured("user.signingkey"),
        ) {
            (Some(format), _) => format,
            (None, Some(key)) if !is_of_ssh(&key) => "openpgp".to_owned(),
            (None, _) => "ssh".to_owned(),
        }
    }

    /// The directory of the repository that holds fleet.toml, from the one that was named upwards; `""` where none does.
    fn fleet_directory(&self) -> String {
        let asked = |what: &str| {
            let output = self.command(&["rev-parse", what]).output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            output.status.success().then(|| text.trim_end().to_owned())
        };
        let (Some(top), Some(prefix)) = (asked("--show-toplevel"), asked("--show-prefix")) else {
            return String::new();
        };
        let above = Path::new(&prefix).ancestors();
        above
            .filter(|directory| Path::new(&top).join(directory).join("fleet.toml").is_file())
            .find_map(|directory| directory.to_str())
            .unwrap_or_default()
            .to_owned()
    }

    fn succeeds(&self, arguments: &[&str]) -> Result<bool, Failure> {
        let status = self.command(arguments).status();
        status
            .map(|status| status.success())
            .map_err(|error| not_run(&error))
    }
}

fn not_run(error: &std::io::Error) -> Failure {
    Failure::new(Class::Author, format!("failed to run git: {error}"))
}
