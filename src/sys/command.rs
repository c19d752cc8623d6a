//! Other programs: run with a time limit, a clean environment and bounded output.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use crate::model::{Class, Failure};
use crate::sys::Host;

/// A program to run: no shell, nothing on its input, its errors among its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// When it is ended.
    pub time_limit: Duration,
    /// Beside PATH and LC_ALL, all that it finds in its environment.
    pub environment: Vec<(String, String)>,
    /// Where [`Host::root`] is an alternate root: change into it first, so that paths are those of that system.
    pub inside_root: bool,
}

impl Default for Command {
    fn default() -> Self {
        Command {
            argv: Vec::new(),
            time_limit: Duration::from_secs(60),
            environment: Vec::new(),
            inside_root: false,
        }
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal.
    Signalled(i32),
}

/// What became of a program that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandResult {
    /// How it ended.
    pub ending: Ending,
    /// What it wrote.
    pub output: String,
}

impl CommandResult {
    /// Did it exit with status 0.
    pub fn is_success(&self) -> bool {
        self.ending == Ending::Exited(0)
    }

    /// What it did wrong, after the program's name.
    pub fn complaint(&self) -> String {
        let last = self.output.trim_end();
        match self.ending {
            Ending::Exited(status) => format!("exited with status {status}: \"{last}\""),
            Ending::Signalled(number) => format!("was killed by signal {number}: \"{last}\""),
        }
    }
}

impl Host {
    /// Runs a program and waits for its end.
    #[allow(clippy::disallowed_methods)] // this is the place
    pub fn run_outside(&self, command: &Command) -> Result<CommandResult, Failure> {
        let (program, arguments) = command
            .argv
            .split_first()
            .ok_or_else(|| Failure::new(Class::Bug, "failed to run a command without a program"))?;
        let failed = |error: std::io::Error| {
            Failure::new(Class::Host, format!("failed to run '{program}': {error}"))
        };
        let (mut reader, writer) = std::io::pipe().map_err(failed)?;
        let mut child = std::process::Command::new(program)
            .args(arguments)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .stdin(Stdio::null())
            .stdout(writer.try_clone().map_err(failed)?)
            .stderr(writer)
            .spawn()
            .map_err(failed)?;
        let mut output = String::new();
        reader.read_to_string(&mut output).map_err(failed)?;
        let status = child.wait().map_err(failed)?;
        let ending = match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Exited(code),
            (None, signal) => Ending::Signalled(signal.unwrap_or(0)),
        };
        Ok(CommandResult { ending, output })
    }
}
