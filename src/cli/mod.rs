//! The command line: one file per subcommand; the only place that prints.
//!
//! Data goes to stdout, progress and messages to stderr. A command returns its exit code, or the failures that ended it.

use std::ffi::OsString;
use std::io::Write;

use clap::{Parser, Subcommand};

use crate::model::{Class, Failure};

mod fetch;
pub mod terminal;

/// What a command returns: the exit code, or the failures that ended it (the first decides the exit code).
pub type CommandResult = Result<u8, Vec<Failure>>;

/// The exit code for a command line that cannot be understood (sysexits.h EX_USAGE).
const USAGE: u8 = 64;

#[derive(Debug, Parser)]
#[command(
    name = "limpet",
    version,
    about = "Runs this host from a signed Git repository",
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch for the agent; limpet-fetch.socket starts this.
    Fetch(fetch::Arguments),
}

/// Runs the program with `arguments` (the first is the program's name) and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { USAGE } else { 0 };
        }
    };
    let result: CommandResult = match arguments.command {
        Command::Fetch(arguments) => fetch::run(&arguments),
    };
    match result {
        Ok(code) => code,
        Err(failures) => {
            let mut stderr = std::io::stderr().lock();
            for failure in &failures {
                let _ = terminal::write_failure(&mut stderr, failure);
            }
            let _ = stderr.flush();
            failures
                .first()
                .map_or(Class::Bug, |failure| failure.class)
                .exit_code()
        }
    }
}
