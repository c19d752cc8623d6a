//! `limpet diff`: what a change of the repository changes on the hosts.
//!
//! Two *sides* are rendered, before and after, each a commit or the working tree; nothing is checked out. Hosts with the same
//! differences are a *group*, told once. A host that only one side knows is *new* or *gone*.

use std::path::{Path, PathBuf};

use clap::Args;

use super::terminal::Terminal;
use super::{CommandResult, USAGE};
use crate::git::Tree;
use crate::git::repository::{Repository, RepositoryError};
use crate::model::{Class, Failure};
use crate::sys::workdir::WorkDir;
use crate::trust::{browse, unavailable};

mod content;
mod hosts;
mod json;
mod markdown;
mod range;
mod text;

use hosts::{Comparison, Side};
use range::{Range, Revision};

/// Show what a change of the fleet repository changes, host by host
#[derive(Debug, Args)]
#[command(after_help = "\
Revisions are named as for git diff:
  limpet diff                 the last commit and the working tree
  limpet diff REV             REV and the working tree
  limpet diff BASE..HEAD      two commits; either may be left out, and is HEAD then
  limpet diff BASE...HEAD     where HEAD left BASE, and HEAD: what a pull request brings

Exit codes: 0 nothing changes, 2 something does, 65 the newer side has mistakes.")]
pub struct Arguments {
    /// What to compare: REV, BASE..HEAD or BASE...HEAD (default: HEAD, with the working tree)
    range: Option<String>,
    /// The directory that holds fleet.toml, in a work tree or a bare repository
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Only this host; may be given more than once
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Print Markdown for a pull request, at most 65,000 characters
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The exit code that says that something changes.
const CHANGES: u8 = 2;

/// Compares the sides.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let opened = match Opened::open(arguments) {
        Ok(opened) => opened,
        Err(failure) => {
            let _ = terminal.write_failure(&mut std::io::stderr(), &failure);
            return Ok(USAGE);
        }
    };
    let before = opened.tree(&opened.range.before)?;
    let after = opened.tree(&opened.range.after)?;
    let name = |revision: &Revision| revision.to_string();
    let comparison = Comparison::make(
        &Side::read(name(&opened.range.before), &*before),
        &Side::read(name(&opened.range.after), &*after),
        &arguments.host,
        &opened.repository,
    )?;
    let report = if arguments.json {
        json::report(&comparison)?
    } else if arguments.markdown {
        markdown::report(&comparison, markdown::LIMIT_CHARACTERS)
    } else {
        text::report(&comparison)
    };
    terminal.data(&report)?;
    for note in &comparison.notes {
        terminal.message(&format!("note: {note}"));
    }
    for (side, mistakes) in [
        (&comparison.before, &comparison.mistakes_before),
        (&comparison.after, &comparison.mistakes_after),
    ] {
        if mistakes.is_empty() {
            continue;
        }
        terminal.message(&format!("mistakes in {side}:"));
        for mistake in mistakes {
            let _ = terminal.write_failure(&mut std::io::stderr(), mistake);
        }
    }
    Ok(match comparison.mistakes_after.first() {
        Some(failure) => failure.class.exit_code(),
        None if comparison.is_empty() => 0,
        None => CHANGES,
    })
}

/// The repository, and what is compared in it.
struct Opened {
    repository: Repository,
    /// The directory that holds fleet.toml, from the repository's root.
    directory: String,
    path: PathBuf,
    range: Range,
}

impl Opened {
    fn open(arguments: &Arguments) -> Result<Self, Failure> {
        let usage = |error: RepositoryError| Failure::new(Class::Config, error.to_string());
        let mut path = arguments.path.clone();
        let mut range = arguments.range.as_deref();
        let repository = Repository::discover(&path).map_err(usage)?;
        let mut parsed = Range::parse(range.unwrap_or("HEAD"), &repository);
        // `limpet diff fleets/edge`: one argument that is no revision, and a directory.
        if let (Err(_), Some(directory)) = (&parsed, range)
            && path == Path::new(".")
            && Path::new(directory).join("fleet.toml").exists()
        {
            path = PathBuf::from(directory);
            range = None;
            parsed = Range::parse("HEAD", &repository);
        }
        let range = parsed.map_err(|failure| match range {
            Some(_) => failure,
            None => failure.with_hint("the repository needs a first commit"),
        })?;
        let absolute = path.canonicalize().map_err(|error| {
            Failure::new(
                Class::Config,
                format!("failed to read directory '{}': {error}", path.display()),
            )
        })?;
        let directory = absolute
            .strip_prefix(repository.path())
            .ok()
            .and_then(Path::to_str)
            .unwrap_or_default()
            .to_owned();
        Ok(Opened {
            repository,
            directory,
            path,
            range,
        })
    }

    fn tree(&self, revision: &Revision) -> Result<Box<dyn Tree + '_>, Vec<Failure>> {
        let one = |failure: Failure| vec![failure];
        Ok(match revision {
            Revision::WorkingTree => Box::new(WorkDir::open(&self.path).map_err(one)?),
            Revision::Commit { id, .. } => Box::new(
                browse::files(&self.repository, *id, &self.directory)
                    .map_err(|error| vec![unavailable(&error)])?,
            ),
        })
    }
}

/// `number` of a thing.
fn counted(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}
