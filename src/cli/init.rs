//! `limpet init`: a fleet repository to start from.
//!
//! All files are in the program, so that nothing is downloaded. Nothing that is there is overwritten: what would be is listed, and then
//! nothing is written at all. Only a README and a `.gitignore`, which forges make with a repository, are left as they are.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::terminal::Terminal;
use super::{CommandResult, USAGE};
use crate::model::{Class, Failure};

/// Write a starter fleet repository: rules, a layer, CI workflows, schemas for editors
#[derive(Debug, Args)]
pub struct Arguments {
    /// The directory; it is made if it is missing, and may hold a Git repository
    #[arg(default_value = ".")]
    directory: PathBuf,
    /// The fleet's name (default: that of the directory)
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// A file to write: its path, its text, and whether it is a program.
type Starter = (&'static str, &'static str, bool);

macro_rules! starter {
    ($file:literal) => {
        include_str!(concat!("../../config/", $file))
    };
}

/// The files that are written, in the order in which a person reads them.
const FILES: [Starter; 16] = [
    ("fleet.toml", starter!("starter/fleet.toml"), false),
    (
        "inventory/hosts.toml",
        starter!("starter/inventory/hosts.toml"),
        false,
    ),
    (
        "layers/base/base.toml",
        starter!("starter/layers/base/base.toml"),
        false,
    ),
    (
        "layers/base/files/motd.j2",
        starter!("starter/layers/base/files/motd.j2"),
        false,
    ),
    (
        "allowed_signers",
        starter!("starter/allowed_signers"),
        false,
    ),
    ("revoked", starter!("starter/revoked"), false),
    ("README.md", starter!("starter/README.md"), false),
    (".gitignore", starter!("starter/gitignore"), false),
    ("ci/limpet", starter!("starter/ci/limpet"), true),
    (
        ".github/workflows/limpet.yml",
        starter!("workflows/github.yml"),
        false,
    ),
    (".gitlab-ci.yml", starter!("workflows/gitlab.yml"), false),
    (
        ".forgejo/workflows/limpet.yml",
        starter!("workflows/forgejo.yml"),
        false,
    ),
    (".taplo.toml", starter!("starter/taplo.toml"), false),
    (
        ".limpet/schema/fleet.json",
        starter!("schema/fleet.json"),
        false,
    ),
    (
        ".limpet/schema/inventory.json",
        starter!("schema/inventory.json"),
        false,
    ),
    (
        ".limpet/schema/layer.json",
        starter!("schema/layer.json"),
        false,
    ),
];

/// What a forge may have made with the repository.
const KEPT: [&str; 2] = ["README.md", ".gitignore"];

/// Writes the files, and says what comes next.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let directory = &arguments.directory;
    let name = match fleet_name(arguments) {
        Ok(name) => name,
        Err(failure) => return Ok(usage(&failure, terminal)),
    };
    let in_the_way = in_the_way(directory);
    if !in_the_way.is_empty() {
        let message = format!(
            "'{}' has a fleet or parts of one already: {}",
            directory.display(),
            in_the_way.join(", ")
        );
        let failure = Failure::new(Class::Config, message)
            .with_hint("nothing was written; name another directory: limpet init DIR");
        return Ok(usage(&failure, terminal));
    }
    let mut written = Vec::new();
    for (path, text, is_program) in FILES {
        let file = directory.join(path);
        if KEPT.contains(&path) && is_there(&file) {
            terminal.message(&format!("kept {path} as it is"));
            continue;
        }
        let text = text
            .replace("@FLEET@", &name)
            .replace("@MINIMUM@", &minimum_version())
            .replace("@VERSION@", env!("CARGO_PKG_VERSION"));
        write_new(&file, &text, is_program).map_err(|error| {
            vec![Failure::new(
                Class::Host,
                format!("failed to write '{}': {error}", file.display()),
            )]
        })?;
        written.push(path);
    }
    terminal.data(&next_steps(directory, &name, &written))?;
    Ok(0)
}

/// What a fleet would share its place with: no file of ours is laid among somebody's layers or inventory.
fn in_the_way(directory: &Path) -> Vec<&'static str> {
    let mut names: Vec<&str> = FILES
        .iter()
        .map(|(path, ..)| *path)
        .filter(|path| !KEPT.contains(path))
        .map(|path| match path.split_once('/') {
            Some((top @ ("inventory" | "layers"), _)) => top,
            _ => path,
        })
        .chain(["hosts"])
        .filter(|path| is_there(&directory.join(path)))
        .collect();
    names.dedup();
    names
}

fn usage(failure: &Failure, terminal: &Terminal) -> u8 {
    let _ = terminal.write_failure(&mut io::stderr(), failure);
    USAGE
}

fn next_steps(directory: &Path, name: &str, written: &[&str]) -> String {
    let mut text = format!(
        "wrote the fleet '{name}' to '{}': {} files\n\nnext:\n",
        directory.display(),
        written.len()
    );
    let mut step = |command: &str, why: &str| text.push_str(&format!("  {command:<58}# {why}\n"));
    if directory != Path::new(".") {
        step(&format!("cd {}", quoted(directory)), "");
    }
    step("limpet check", "it has no mistakes");
    if !is_in_repository(directory) {
        step("git init -b main", "");
    }
    step("git config gpg.format ssh", "commits are signed");
    step(
        "git config user.signingKey ~/.ssh/id_ed25519.pub",
        "with this key",
    );
    step("git config commit.gpgSign true", "always");
    text.push_str(
        "  echo \"$(git config user.email) namespaces=\\\"git\\\" $(cut -d' ' -f1,2 ~/.ssh/id_ed25519.pub)\" >>allowed_signers\n",
    );
    let mut step = |command: &str, why: &str| text.push_str(&format!("  {command:<58}# {why}\n"));
    step("git add -A && git commit -m \"first revision\"", "");
    step(
        "git rev-parse HEAD",
        "the anchor: hosts are enrolled with it",
    );
    text = text
        .lines()
        .map(|line| line.trim_end_matches("# ").trim_end())
        .collect::<Vec<_>>()
        .join("\n");
    if written.contains(&"README.md") {
        text.push_str("\n\nREADME.md says more about signing, merging, continuous integration and enrolling.\n");
    } else {
        text.push('\n');
    }
    text
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte));
    if is_plain {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// The name given, or one made of the directory's.
fn fleet_name(arguments: &Arguments) -> Result<String, Failure> {
    if let Some(name) = &arguments.name {
        let is_name = !name.is_empty()
            && name.len() <= 64
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        return if is_name {
            Ok(name.clone())
        } else {
            Err(
                Failure::new(Class::Config, format!("'{name}' is no fleet name"))
                    .with_hint("use letters, digits, '-', '_' and '.', at most 64"),
            )
        };
    }
    let directory = std::path::absolute(&arguments.directory).unwrap_or_default();
    let directory = directory.components().as_path().to_owned();
    let last = directory
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    Ok(name_of(&last.unwrap_or_default()))
}

/// A fleet name made of a directory's name.
fn name_of(directory: &str) -> String {
    let name: String = directory
        .to_lowercase()
        .chars()
        .map(|character| match character {
            'a'..='z' | '0'..='9' | '-' | '_' | '.' => character,
            _ => '-',
        })
        .take(64)
        .collect();
    let name = name.trim_matches(['-', '.', '_']);
    if name.is_empty() { "fleet" } else { name }.to_owned()
}

/// `0.1` of `0.1.7`: what is written here needs no more.
fn minimum_version() -> String {
    let parts: Vec<&str> = env!("CARGO_PKG_VERSION").split('.').take(2).collect();
    parts.join(".")
}

fn is_in_repository(directory: &Path) -> bool {
    let absolute = std::path::absolute(directory).unwrap_or_default();
    absolute
        .ancestors()
        .any(|above| is_there(&above.join(".git")))
}

/// A link counts, wherever it leads.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[allow(
    clippy::disallowed_methods,
    reason = "a repository that the command line names, on any machine: no host is involved"
)]
fn write_new(path: &Path, text: &str, is_program: bool) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(if is_program { 0o777 } else { 0o666 })
        .open(path)?
        .write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_s_name_becomes_a_fleet_s() {
        #[track_caller]
        fn check(directory: &str, expected: &str) {
            assert_eq!(name_of(directory), expected);
        }
        check("acme-edge", "acme-edge");
        check("Our Fleet", "our-fleet");
        check(".fleet", "fleet");
        check("ü", "fleet");
        check("", "fleet");
        check(&"x".repeat(100), &"x".repeat(64));
    }
}
