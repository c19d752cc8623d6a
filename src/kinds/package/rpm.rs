//! rpm's database: which packages are installed, in which versions.
//!
//! rpm keeps it in one of three formats and in a place of its own choice, so that rpm itself is asked for both, and again only when a
//! file of the database has changed. Several versions of one package may be installed at once, as of a kernel.

use std::sync::Arc;
use std::time::Duration;

use crate::kinds::package::dnf::{Program, locks};
use crate::kinds::package::family::Family;
use crate::kinds::package::status::{Database, Entry, State};
use crate::model::{Class, Failure};
use crate::sys::Host;
use crate::sys::command::{Command, CommandResult};

pub mod version;

/// rpm.
pub const PROGRAM: &str = "/usr/bin/rpm";
/// What decides where the database is, beside rpm itself.
const MACROS: [&str; 3] = [PROGRAM, "/usr/lib/rpm/macros", "/etc/rpm"];
/// The database, in each of its formats, and what was written to it last.
const FILES: [&str; 4] = [
    "rpmdb.sqlite",
    "rpmdb.sqlite-wal",
    "Packages",
    "Packages.db",
];
/// What is asked of every package, a line each, of words that are never empty. The first tells it from what rpm warns of.
const QUERY: &str = "limpet %{NAME} %{EPOCHNUM} %{VERSION} %{RELEASE} %{ARCH}\n";
/// What each package provides and requires, a line each.
const RELATIONS: &str = "[P %{=NAME} %{PROVIDENAME}\n][R %{=NAME} %{REQUIRENAME}\n]";
/// A thousand times the usual size.
const LIMIT_BYTES: u64 = 64 << 20;
const TIME_LIMIT: Duration = Duration::from_secs(5 * 60);

/// The installed packages of a host of dnf's.
pub fn read(host: &Host, program: Program) -> Result<Database, Failure> {
    let held = locks::read(host, program)?;
    let mut entries = parse(&query(host, QUERY)?.output)?;
    for entry in &mut entries {
        entry.is_held = held.contains(&entry.name);
    }
    Ok(Database::of_rpm(entries, Family::Dnf(program)))
}

/// What the installed packages provide and require.
pub fn read_relations(host: &Host) -> Result<Arc<CommandResult>, Failure> {
    query(host, RELATIONS)
}

fn query(host: &Host, format: &str) -> Result<Arc<CommandResult>, Failure> {
    let macros = MACROS.map(str::to_owned);
    let place = ask(host, &["--eval", "%{_dbpath}"], &macros)?;
    let place = place.output.trim().to_owned();
    if !place.starts_with('/') {
        let message = format!("failed to find rpm's database: rpm says that it is at '{place}'");
        return Err(Failure::new(Class::Host, message));
    }
    let files = FILES.map(|name| format!("{place}/{name}"));
    ask(host, &["-qa", "--queryformat", format], &files)
}

fn ask(host: &Host, arguments: &[&str], files: &[String]) -> Result<Arc<CommandResult>, Failure> {
    let argv = std::iter::once(PROGRAM).chain(arguments.iter().copied());
    let command = Command {
        argv: argv.map(str::to_owned).collect(),
        time_limit: TIME_LIMIT,
        // Some builds of rpm keep their database in the home directory.
        environment: vec![("HOME".to_owned(), "/root".to_owned())],
        inside_root: true,
        output_limit: LIMIT_BYTES,
        ..Command::default()
    };
    let answer = host.ask(&command, files)?;
    if answer.is_success() {
        return Ok(answer);
    }
    let message = format!("failed to read rpm's database: rpm {}", answer.complaint());
    Err(Failure::new(Class::Host, message)
        .with_hint("'rpm -qa' says more; 'rpm --rebuilddb' repairs it"))
}

/// The packages in an answer to [`QUERY`].
pub(super) fn parse(output: &str) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    for line in output.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split(' ').collect();
        let &["limpet", name, epoch, version, release, architecture] = words.as_slice() else {
            if line.starts_with("warning:") {
                continue;
            }
            let message = format!("failed to read rpm's database: rpm says '{line}'");
            return Err(Failure::new(Class::Host, message));
        };
        // Keys that are trusted are kept as packages, too.
        if name == "gpg-pubkey" {
            continue;
        }
        entries.push(Entry {
            name: name.to_owned(),
            architecture: architecture.to_owned(),
            state: State::Installed,
            version: match epoch {
                "0" => format!("{version}-{release}"),
                epoch => format!("{epoch}:{version}-{release}"),
            },
            is_essential: false,
            is_held: false,
        });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn database(output: &str) -> Database {
        Database::of_rpm(parse(output).unwrap(), Family::Dnf(Program::Dnf5))
    }

    #[test]
    fn several_versions_of_a_package_are_all_known() {
        let processor = std::env::consts::ARCH;
        let database = database(&format!(
            "limpet kernel 0 6.9 1 {processor}\nlimpet kernel 0 6.10 1 {processor}\nlimpet kernel 0 6.11 1 other\n\
             limpet bind 32 9.16.23 18.el9 {processor}\nlimpet gpg-pubkey 0 8483c65d 5ccc5b19 (none)\n"
        ));
        assert_eq!(database.get("kernel").unwrap().version, "6.10-1");
        let versions: Vec<&str> = database.versions("kernel").collect();
        assert_eq!(versions, ["6.10-1", "6.9-1"]);
        assert_eq!(database.get("bind").unwrap().version, "32:9.16.23-18.el9");
        assert_eq!(database.state("gpg-pubkey"), State::NotInstalled);
        assert_eq!(database.state("kernel-core"), State::NotInstalled);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        assert!(parse("warning: the database is old\nlimpet kernel 0 6.9 1 noarch\n").is_ok());
        let failure = parse("error: cannot open the database\n").unwrap_err();
        insta::assert_snapshot!(failure, @"failed to read rpm's database: rpm says 'error: cannot open the database'");
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(output in "(limpet( [a-c0-9-]{0,3}){0,6}\n){0,9}") {
            if let Ok(entries) = parse(&output) {
                let database = Database::of_rpm(entries, Family::Dnf(Program::Dnf4));
                database.get("a");
            }
        }
    }
}
