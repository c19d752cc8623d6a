//! dnf, version 4 and 5: arguments in, their output understood. Runs nothing.
//!
//! Both print the same table of what they would do, so that one reader serves both. Modules are left as they are.
//!
//! Invariant: never an option that skips signatures, and never one that erases what was not asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::kinds::package::apt::{Installation, NotFound, Permissions, Request, Simulation};
use crate::kinds::package::status::Database;
use crate::model::Class;
use crate::sys::command::Command;

pub mod locks;
pub mod told;

/// Deciding what to do may fetch the metadata of every repository.
const SIMULATION_LIMIT: Duration = Duration::from_secs(15 * 60);
/// Packages come over the network, and their scripts may build an initrd on a slow disk.
const TRANSACTION_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Which dnf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// dnf 4, the one in Python.
    Dnf4,
    /// dnf 5.
    Dnf5,
}

impl Program {
    /// What it is run by.
    pub fn name(self) -> &'static str {
        match self {
            Program::Dnf4 => "dnf",
            Program::Dnf5 => "dnf5",
        }
    }
}

/// May a package be called so: nothing that dnf would take for a pattern, a group, a file or an option.
pub fn is_package_name(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().next().is_some_and(is_word)
        && name
            .bytes()
            .all(|byte| is_word(byte) || b"+-.".contains(&byte))
}

/// Computes what a transaction would do.
pub fn simulation(program: Program, requests: &[Request], permissions: Permissions) -> Command {
    let arguments = change(program, requests, permissions, "--assumeno");
    command(program, arguments, SIMULATION_LIMIT)
}

/// The transaction itself.
pub fn transaction(program: Program, requests: &[Request], permissions: Permissions) -> Command {
    let arguments = change(program, requests, permissions, "-y");
    command(program, arguments, TRANSACTION_LIMIT)
}

/// Installs a version again that is installed.
pub fn reinstallation(program: Program, name: &str, version: &str) -> Command {
    let arguments = vec![
        "-y".to_owned(),
        "reinstall".to_owned(),
        format!("{name}-{version}"),
    ];
    command(program, arguments, TRANSACTION_LIMIT)
}

/// Fetches the metadata of the repositories.
pub fn refresh(program: Program) -> Command {
    command(
        program,
        words(&["-y", "--refresh", "makecache"]),
        SIMULATION_LIMIT,
    )
}

/// Lists the versions that repositories have of these packages.
pub fn list_versions(program: Program, names: &[&str]) -> Command {
    let mut arguments = words(&[
        "-q",
        "repoquery",
        "--queryformat",
        // dnf 5 ends no line by itself.
        "limpet %{name} %{epoch}:%{version}-%{release}\n",
    ]);
    arguments.extend(names.iter().map(|name| (*name).to_owned()));
    command(program, arguments, SIMULATION_LIMIT)
}

/// Locks the versions of packages, or frees them.
pub fn mark_held(program: Program, names: &[&str], is_held: bool) -> Command {
    let verb = if is_held { "add" } else { "delete" };
    let mut arguments = words(&["versionlock", verb]);
    arguments.extend(names.iter().map(|name| (*name).to_owned()));
    command(program, arguments, SIMULATION_LIMIT)
}

/// Marks packages as having come along with others.
pub fn mark_automatic(program: Program, names: &[&str]) -> Command {
    let mut arguments = match program {
        Program::Dnf4 => words(&["-y", "mark", "remove"]),
        Program::Dnf5 => words(&["-y", "mark", "dependency"]),
    };
    arguments.extend(names.iter().map(|name| (*name).to_owned()));
    command(program, arguments, SIMULATION_LIMIT)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// All of `requests` are removals, or none is.
fn change(
    program: Program,
    requests: &[Request],
    permissions: Permissions,
    answer: &str,
) -> Vec<String> {
    let mut arguments = words(&[answer]);
    if program == Program::Dnf4 {
        // Not now, when somebody else installs packages: files and units are to go on. It is tried again soon.
        arguments.extend(words(&[
            "--setopt=exit_on_lock=True",
            "--setopt=strict=True",
        ]));
    }
    arguments.push(format!(
        "--setopt=clean_requirements_on_remove={}",
        if permissions.auto_remove {
            "True"
        } else {
            "False"
        }
    ));
    let removes = |request: &Request| matches!(request, Request::Remove(_));
    let verb = match requests.iter().any(removes) {
        true => "remove",
        // Goes up, down or nowhere, to the version that is asked for.
        false => "install",
    };
    arguments.push(verb.to_owned());
    arguments.extend(requests.iter().map(argument));
    arguments
}

fn argument(request: &Request) -> String {
    match request {
        Request::Install(name) | Request::Remove(name) => name.clone(),
        Request::InstallVersion(name, version) => format!("{name}-{version}"),
    }
}

fn command(program: Program, arguments: Vec<String>, time_limit: Duration) -> Command {
    let argv = std::iter::once(program.name().to_owned()).chain(arguments);
    Command {
        argv: argv.collect(),
        time_limit,
        // Some builds of rpm keep their database in the home directory.
        environment: vec![("HOME".to_owned(), "/root".to_owned())],
        inside_root: true,
        ..Command::default()
    }
}

/// Did dnf find a way to do what was asked; it ends with status 1 when it is told not to go that way.
pub fn is_possible(output: &str) -> bool {
    output.lines().any(|line| {
        let line = line.trim_end_matches(':');
        ["Transaction Summary", "Nothing to do."].contains(&line)
    })
}

/// What the lines of a part of the table are about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Install,
    Change,
    Remove,
    Other,
}

/// Reads the table of what would be done.
pub fn parse_simulation(output: &str, database: &Database) -> Simulation {
    let mut simulation = Simulation::default();
    let mut part = None;
    let mut lines = output.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(found) = parse_heading(line) {
            part = Some(found);
            continue;
        }
        if line.starts_with("Transaction Summary") {
            break;
        }
        let (Some(part), true) = (part, line.starts_with(' ')) else {
            continue;
        };
        let mut columns: Vec<&str> = line.split_ascii_whitespace().collect();
        if columns.first() == Some(&"replacing") {
            let replaced = columns.get(1).copied().unwrap_or_default();
            let last = simulation.installed.last();
            // dnf 5 says so of the old version, too.
            let is_itself = last.is_some_and(|last| last.name == replaced);
            if !is_itself {
                let name = without_architecture(replaced, columns.len() == 3);
                simulation.removed.push(name.to_owned());
            }
            continue;
        }
        // A long name has a line of its own.
        while columns.len() < 3
            && let Some(next) = lines.next_if(|next| next.starts_with("  "))
        {
            columns.extend(next.split_ascii_whitespace());
        }
        let &[name, _architecture, version, ..] = columns.as_slice() else {
            continue;
        };
        match part {
            Part::Install | Part::Change => simulation.installed.push(Installation {
                name: name.to_owned(),
                old: (part == Part::Change).then(|| {
                    let entry = database.get(name);
                    entry.map_or_else(String::new, |entry| entry.version.clone())
                }),
                new: without_zero_epoch(version).to_owned(),
            }),
            Part::Remove => simulation.removed.push(name.to_owned()),
            Part::Other => {}
        }
    }
    simulation
}

/// The heading of a part of the table.
fn parse_heading(line: &str) -> Option<Part> {
    let heading = line.strip_suffix(':')?;
    let part = match heading {
        "Installing"
        | "Installing dependencies"
        | "Installing weak dependencies"
        | "Installing group/module packages"
        | "Installing group packages"
        | "Installing groups" => Part::Install,
        "Upgrading" | "Downgrading" | "Reinstalling" => Part::Change,
        "Removing" | "Removing dependent packages" | "Removing unused dependencies" => Part::Remove,
        // Modules, groups, and what is skipped.
        _ if !heading.starts_with(' ') => Part::Other,
        _ => return None,
    };
    Some(part)
}

/// dnf 4 writes `name.architecture` of what is replaced.
fn without_architecture(name: &str, has_one: bool) -> &str {
    match name.rsplit_once('.') {
        Some((name, _)) if has_one => name,
        _ => name,
    }
}

fn without_zero_epoch(version: &str) -> &str {
    version.strip_prefix("0:").unwrap_or(version)
}

/// Reads the answer to [`list_versions`].
pub fn parse_versions(output: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in output.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if let &["limpet", name, version] = words.as_slice() {
            let known = versions.entry(name.to_owned()).or_default();
            known.insert(without_zero_epoch(version).to_owned());
        }
    }
    versions
}

/// The requests that no repository has anything for.
pub fn parse_not_found(output: &str, requests: &[Request]) -> Vec<NotFound> {
    let missing: BTreeSet<&str> = output
        .lines()
        .filter_map(|line| line.trim().strip_prefix("No match for argument: "))
        .map(str::trim)
        .collect();
    let found = requests
        .iter()
        .filter(|request| missing.contains(argument(request).as_str()));
    found
        .map(|request| NotFound {
            name: request.name().to_owned(),
            version: match request {
                Request::InstallVersion(_, version) => Some(version.clone()),
                Request::Install(_) | Request::Remove(_) => None,
            },
        })
        .collect()
}

/// What dnf or rpm says went wrong with `name`, or with the whole transaction; empty when it says nothing.
pub fn parse_complaint(output: &str, name: &str) -> String {
    if output.contains("No such command: versionlock") {
        return "its plug-in versionlock is not installed: declare python3-dnf-plugin-versionlock, or dnf-plugins-core where that has it".to_owned();
    }
    let lines: Vec<&str> = output.lines().map(str::trim).collect();
    let is_advice = |line: &&&str| {
        line.is_empty()
            || line.starts_with("(try to add")
            || line.starts_with("You can try")
            || line.starts_with("--")
            || line.contains("is already installed.")
    };
    // "Error: …" or "Failed to resolve the transaction:", and what comes below it.
    let start = lines.iter().position(|line| {
        line.starts_with("Error:") || line.starts_with("Failed to ") && line.ends_with(':')
    });
    if let Some(start) = start {
        let first = lines[start]
            .strip_prefix("Error:")
            .unwrap_or_default()
            .trim();
        let below = lines[start + 1..].iter().take(12);
        let all = std::iter::once(&first).chain(below);
        let told: Vec<&str> = all
            .filter(|line| !is_advice(line))
            .take(4)
            .copied()
            .collect();
        let about: Vec<&str> = told
            .iter()
            .filter(|line| line.contains(name))
            .copied()
            .collect();
        let told = if name.is_empty() || about.is_empty() {
            told
        } else {
            about
        };
        if !told.is_empty() {
            return told.join("; ").replace("- ", "");
        }
    }
    let errors = lines.iter().filter(|line| {
        let line = line.to_ascii_lowercase();
        line.starts_with("error") || line.contains("scriptlet") && line.contains("fail")
    });
    errors.take(3).copied().collect::<Vec<_>>().join("; ")
}

/// Who must act when a transaction failed as a whole.
pub fn classify_failure(output: &str) -> Class {
    let signs = [
        "Failed to download",
        "Cannot download",
        "Could not resolve host",
        "Couldn't connect to server",
    ];
    if is_locked(output) || signs.iter().any(|sign| output.contains(sign)) {
        Class::Transient
    } else {
        Class::Host
    }
}

/// Does another package manager hold the lock.
pub fn is_locked(output: &str) -> bool {
    output.contains(" already locked by ")
        || output.contains("Failed to obtain rpm transaction lock")
        || output.contains("waiting for transaction lock")
}

/// Who holds the lock, as dnf 4 says it: the number of a process.
pub fn lock_holder(output: &str) -> Option<&str> {
    let (_, holder) = output.rsplit_once(" already locked by ")?;
    let line = holder.lines().next()?.trim();
    (!line.is_empty()).then_some(line)
}

/// Did packages fail to arrive, as they do when the metadata is older than the repository.
pub fn has_stale_lists(output: &str) -> bool {
    output.contains("Error downloading packages") || output.contains("Failed to download packages")
}

#[cfg(test)]
mod tests;
