//! Other programs: run outside of us, with a time limit, a clean environment and bounded output.
//!
//! Where systemd runs, a program is a transient unit, so that it inherits neither our sandbox nor our end. Elsewhere (an alternate
//! root, a container, a test) it is a child in a process group of its own.
//!
//! Invariant: no shell; arguments reach the program as they are.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::model::{Class, Failure};
use crate::sys::Host;
use crate::sys::clock;

/// Where programs without a path are looked for.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of the end of a program's output is kept, unless more is asked for.
pub(super) const OUTPUT_LIMIT_BYTES: u64 = 64 << 10;
/// A child that writes more than this is ended: its output lies in memory.
const CHILD_OUTPUT_LIMIT_BYTES: u64 = 16 << 20;
/// How often a child is asked whether it has ended, at most.
const CHILD_POLL_LIMIT: Duration = Duration::from_millis(50);

/// A program to run, as `systemd-run` would: no shell, its errors among its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program, by absolute path or by name, and its arguments.
    pub argv: Vec<String>,
    /// When it is ended.
    pub time_limit: Duration,
    /// Beside PATH and LC_ALL, all that it finds in its environment.
    pub environment: Vec<(String, String)>,
    /// Who runs it; root where nobody is named. What it makes is that user's alone.
    pub user: Option<String>,
    /// What it finds on its input.
    pub input: Option<Vec<u8>>,
    /// Where [`Host::root`] is an alternate root: change into it first, so that paths are those of that system.
    pub inside_root: bool,
    /// How much of the end of its output is kept, in bytes.
    pub output_limit: u64,
}

impl Default for Command {
    fn default() -> Self {
        Command {
            argv: Vec::new(),
            time_limit: Duration::from_secs(60),
            environment: Vec::new(),
            user: None,
            input: None,
            inside_root: false,
            output_limit: OUTPUT_LIMIT_BYTES,
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
    /// By us, because its time was over.
    TimedOut,
    /// By us, because it wrote without end.
    TooMuchOutput,
    /// systemd could not run it, or nobody saw how it ended; systemd's word for it.
    Unknown(&'static str),
}

/// What became of a program that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandResult {
    /// How it ended.
    pub ending: Ending,
    /// The end of what it wrote to its output and errors, in the order written.
    pub output: String,
}

impl CommandResult {
    /// Did it exit with status 0.
    pub fn is_success(&self) -> bool {
        self.ending == Ending::Exited(0)
    }

    /// What it did wrong, after the program's name: `exited with status 1: "its last lines"`.
    pub fn complaint(&self) -> String {
        let ending = match self.ending {
            Ending::Exited(status) => format!("exited with status {status}"),
            Ending::Signalled(number) => match Signal::try_from(number) {
                Ok(signal) => format!("was ended by {signal}"),
                Err(_) => format!("was ended by signal {number}"),
            },
            Ending::TimedOut => "took too long and was ended".to_owned(),
            Ending::TooMuchOutput => "wrote too much and was ended".to_owned(),
            Ending::Unknown(word) => format!("did not end as it should ({word})"),
        };
        match self.last_lines(3) {
            lines if lines.is_empty() => ending,
            lines => format!("{ending}: \"{lines}\""),
        }
    }

    /// The last lines of its output that are not empty, joined by `; `.
    pub fn last_lines(&self, count: usize) -> String {
        let lines: Vec<&str> = self
            .output
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        lines[lines.len().saturating_sub(count)..].join("; ")
    }
}

impl Host {
    /// Runs a program outside of us and waits for it. A failure means that it could not be run; how it ended is in the result.
    pub fn run_outside(&self, command: &Command) -> Result<CommandResult, Failure> {
        let argv = self.complete_argv(command)?;
        if self.systemd().is_available() {
            self.run_as_unit(&argv, command)
        } else {
            run_as_child(&argv, command)
        }
    }

    /// The arguments with the program's full path, and the change of root where that is asked for.
    pub(super) fn complete_argv(&self, command: &Command) -> Result<Vec<String>, Failure> {
        let changes_root = command.inside_root && self.root() != Path::new("/");
        let root = if changes_root {
            self.root()
        } else {
            Path::new("/")
        };
        let (program, arguments) = command.argv.split_first().ok_or_else(|| {
            Failure::new(
                Class::Author,
                "failed to run a command: it names no program",
            )
        })?;
        let program = find_program(root, program)?;
        let mut argv = Vec::with_capacity(command.argv.len() + 2);
        // A unit of systemd changes its user by itself.
        let user = command.user.as_deref();
        let user = user.filter(|_| !self.systemd().is_available());
        if changes_root || user.is_some() {
            let chroot = find_program(Path::new("/"), "chroot")?;
            argv.push(chroot.to_string_lossy().into_owned());
            argv.extend(user.map(|user| format!("--userspec={user}")));
            argv.push(root.to_string_lossy().into_owned());
        }
        argv.push(program.to_string_lossy().into_owned());
        argv.extend_from_slice(arguments);
        Ok(argv)
    }
}

/// The environment of a command: what it brings, PATH, and a locale whose messages we can read.
pub(super) fn complete_environment(command: &Command) -> Vec<(String, String)> {
    let mut environment = vec![
        ("PATH".to_owned(), SEARCH_PATH.to_owned()),
        ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
    ];
    for (name, value) in &command.environment {
        environment.retain(|(known, _)| known != name);
        environment.push((name.clone(), value.clone()));
    }
    environment
}

/// The full path of a program as seen from inside `root`.
fn find_program(root: &Path, program: &str) -> Result<PathBuf, Failure> {
    let is_program = |path: &Path| {
        let inside = root.join(path.strip_prefix("/").unwrap_or(path));
        // A link in an alternate root may point to what exists only there; the program itself will tell.
        #[allow(
            clippy::disallowed_methods,
            reason = "sys is where files are looked at"
        )]
        let found = std::fs::metadata(&inside)
            .map(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
        found.unwrap_or_else(|_| root != Path::new("/") && inside.is_symlink())
    };
    let missing = |hint: &str| {
        Failure::new(
            Class::Host,
            format!("failed to run '{program}': no such program"),
        )
        .with_hint(hint)
    };
    if program.contains('/') {
        let path = Path::new(program);
        return if path.is_absolute() && is_program(path) {
            Ok(path.to_owned())
        } else {
            Err(missing(
                "a program is named by its absolute path, or by its name alone",
            ))
        };
    }
    SEARCH_PATH
        .split(':')
        .map(|directory| Path::new(directory).join(program))
        .find(|path| is_program(path))
        .ok_or_else(|| missing(&format!("it is looked for in {SEARCH_PATH}")))
}

/// Runs it as a child of ours, where there is no systemd to run it.
fn run_as_child(argv: &[String], command: &Command) -> Result<CommandResult, Failure> {
    let failed = |cause: String| {
        let program = &command.argv[0];
        Failure::new(Class::Host, format!("failed to run '{program}': {cause}"))
    };
    // A file in memory: a pipe would stay open as long as any grandchild lives.
    let output = memfd_create("output", MFdFlags::MFD_CLOEXEC)
        .map_err(|error| failed(error.desc().to_owned()))?;
    let mut output = std::fs::File::from(output);
    let stream = || {
        output
            .try_clone()
            .map_err(|error| failed(error.to_string()))
    };
    #[allow(clippy::disallowed_methods, reason = "sys is where programs are run")]
    let mut prepared = std::process::Command::new(&argv[0]);
    prepared
        .args(&argv[1..])
        .env_clear()
        .envs(complete_environment(command))
        .current_dir("/")
        .process_group(0)
        .stdin(match &command.input {
            Some(input) => {
                Stdio::from(in_memory(input).map_err(|error| failed(error.to_string()))?)
            }
            None => Stdio::null(),
        })
        .stdout(stream()?)
        .stderr(stream()?);
    let mut child = prepared
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let ending = wait_for_child(&mut child, &output, command.time_limit)
        .map_err(|error| failed(error.to_string()))?;
    let output =
        read_end(&mut output, command.output_limit).map_err(|error| failed(error.to_string()))?;
    Ok(CommandResult { ending, output })
}

/// A file in memory with these bytes, to be read from its beginning.
fn in_memory(bytes: &[u8]) -> std::io::Result<std::fs::File> {
    let file = memfd_create("input", MFdFlags::MFD_CLOEXEC).map_err(std::io::Error::from)?;
    let mut file = std::fs::File::from(file);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// Waits until the child has ended, and ends it and its children when it takes or writes too much.
fn wait_for_child(
    child: &mut Child,
    output: &std::fs::File,
    time_limit: Duration,
) -> std::io::Result<Ending> {
    let deadline = clock::instant() + time_limit;
    let mut pause = Duration::from_millis(1);
    let ending = loop {
        if let Some(status) = child.try_wait()? {
            return Ok(match (status.code(), status.signal()) {
                (Some(code), _) => Ending::Exited(code),
                (None, Some(signal)) => Ending::Signalled(signal),
                (None, None) => Ending::Unknown("neither exited nor ended by a signal"),
            });
        }
        if clock::instant() >= deadline {
            break Ending::TimedOut;
        }
        if output.metadata()?.len() > CHILD_OUTPUT_LIMIT_BYTES {
            break Ending::TooMuchOutput;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(CHILD_POLL_LIMIT);
    };
    let group = Pid::from_raw(i32::try_from(child.id()).expect("process ids fit pid_t"));
    let _ = killpg(group, Signal::SIGKILL); // it may have ended just now
    child.wait()?;
    Ok(ending)
}

/// The end of a file of output, from a whole line on.
pub(super) fn read_end(file: &mut std::fs::File, limit: u64) -> std::io::Result<String> {
    let size = file.metadata()?.len();
    let start = size.saturating_sub(limit);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    if start > 0 {
        let line_end = bytes.iter().position(|byte| *byte == b'\n');
        bytes.drain(..line_end.map_or(0, |end| end + 1));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(argv: &[&str], time_limit: Duration) -> Result<CommandResult, Failure> {
        let root = tempfile::tempdir().unwrap();
        Host::new(root.path()).run_outside(&Command {
            argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
            time_limit,
            ..Command::default()
        })
    }

    fn check(argv: &[&str], ending: Ending, output: &str) {
        let result = run(argv, Duration::from_secs(30)).unwrap();
        assert_eq!(
            (result.ending, result.output.as_str()),
            (ending, output),
            "{argv:?}"
        );
    }

    #[test]
    fn a_program_ends_with_its_status_and_its_output_in_order() {
        check(&["true"], Ending::Exited(0), "");
        check(&["/bin/echo", "$HOME *"], Ending::Exited(0), "$HOME *\n");
        check(
            &["sh", "-c", "echo a; echo b >&2; echo c; exit 3"],
            Ending::Exited(3),
            "a\nb\nc\n",
        );
        check(&["sh", "-c", "kill -TERM $$"], Ending::Signalled(15), "");
        check(&["cat"], Ending::Exited(0), ""); // nothing on its input
    }

    #[test]
    fn the_environment_is_ours_alone() {
        let result = run(&["env"], Duration::from_secs(30)).unwrap();
        let mut names: Vec<&str> = result
            .output
            .lines()
            .filter_map(|line| Some(line.split_once('=')?.0))
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["LC_ALL", "PATH"]);
    }

    #[test]
    fn a_program_that_takes_too_long_is_ended_with_its_children() {
        let started = clock::instant();
        let result = run(
            &["sh", "-c", "echo waiting; sleep 60 & sleep 60"],
            Duration::from_millis(200),
        )
        .unwrap();
        assert!(started.elapsed() < Duration::from_secs(20));
        insta::assert_snapshot!(result.complaint(), @r#"took too long and was ended: "waiting""#);
    }

    #[test]
    fn a_program_that_writes_without_end_is_ended_and_only_the_end_is_kept() {
        let result = run(&["yes", "y"], Duration::from_secs(30)).unwrap();
        assert_eq!(result.ending, Ending::TooMuchOutput);
        assert!(result.output.len() as u64 <= OUTPUT_LIMIT_BYTES);
        assert!(result.output.starts_with("y\n"));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let failure = run(&["no-such-program"], Duration::from_secs(1)).unwrap_err();
        insta::assert_snapshot!(failure, @"failed to run 'no-such-program': no such program");
        assert!(run(&["./true"], Duration::from_secs(1)).is_err());
        assert!(run(&["bin/true"], Duration::from_secs(1)).is_err());
        assert!(run(&[], Duration::from_secs(1)).is_err());
        assert!(run(&["/etc/passwd"], Duration::from_secs(1)).is_err());
    }

    #[test]
    fn a_complaint_ends_with_the_last_lines() {
        let result = CommandResult {
            ending: Ending::Exited(1),
            output: "one\ntwo\n\nthree\nfour\n".to_owned(),
        };
        insta::assert_snapshot!(result.complaint(), @r#"exited with status 1: "two; three; four""#);
    }
}
