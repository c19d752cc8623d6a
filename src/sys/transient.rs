//! Transient units: programs that systemd runs for us and that outlive us.
//!
//! A *transaction* (`limpet-txn-<id>.service`) is a unit that another run of ours may have to adopt: it stays, with its result, until
//! somebody has read it. What a unit writes goes to a file below `/run/limpet`, never through a pipe to us: a pipe's end is the
//! program's end.
//!
//! Invariant: a unit is waited for by its name, so that losing the bus, or being restarted, loses nothing.

use std::path::PathBuf;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use ring::rand::SecureRandom;
use zbus::wire::Variant;

use crate::model::{Class, Failure};
use crate::sys::Host;
use crate::sys::clock;
use crate::sys::command::{self, Command, CommandResult, Ending};
use crate::sys::jobs::{Job, Verb};
use crate::sys::systemd::{Property, PropertyName};

/// Where the output of transient units is kept while somebody may read it.
const OUTPUT_DIRECTORY: &str = "/run/limpet";
/// What the names of transactions begin with.
const TRANSACTION_PREFIX: &str = "limpet-txn-";
/// What the names of other commands begin with.
const COMMAND_PREFIX: &str = "limpet-run-";
/// What the descriptions of units begin with.
const DESCRIPTION_PREFIX: &str = "limpet: ";
/// Longer descriptions leave words out.
const DESCRIPTION_LIMIT_BYTES: usize = 200;
/// How often a running unit is looked at, at most.
const POLL_LIMIT: Duration = Duration::from_millis(250);
/// How long after its own limit a unit may still be seen running before we stop waiting.
const GRACE: Duration = Duration::from_secs(120);

/// What sort of unit runs a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Ends with all its children; we wait for it.
    Command,
    /// Must not be hurt by anything that happens to us, and is the last to be ended when memory runs out.
    Transaction,
}

impl Host {
    /// Runs a command as a transaction: a unit that is not touched when we end, and is found again by [`Host::find_transactions`], until
    /// [`Host::forget_ended_transactions`].
    /// Without systemd it is a child in a process group of its own.
    pub fn run_transaction(&self, command: &Command) -> Result<CommandResult, Failure> {
        if !self.systemd().is_available() {
            return self.run_outside(command);
        }
        let argv = self.complete_argv(command)?;
        let unit = format!("{TRANSACTION_PREFIX}{}.service", random_id()?);
        self.start_unit(&unit, &argv, command, Role::Transaction)?;
        let result = self.await_transaction(&unit)?;
        self.ended_transactions().push(unit);
        Ok(result)
    }

    /// The transactions that still run, or whose result nobody has read.
    pub fn find_transactions(&self) -> Result<Vec<String>, Failure> {
        if !self.systemd().is_available() {
            return Ok(Vec::new());
        }
        let pattern = format!("{TRANSACTION_PREFIX}*.service");
        let units = self
            .systemd()
            .list_units_like(&pattern)
            .map_err(|error| error.into_failure("list running transactions"))?;
        Ok(units.into_iter().map(|unit| unit.id).collect())
    }

    /// What a transaction does, for people: as it was described when it was started.
    pub fn describe_transaction(&self, unit: &str) -> String {
        let units = self.systemd().list_units(&[unit.to_owned()]);
        let description = units.ok().and_then(|units| {
            let name = PropertyName {
                object: &units.first()?.object,
                interface: "Unit",
                name: "Description",
            };
            let mut values = self.systemd().properties(&[name]).ok()?;
            match values.pop()? {
                Ok(Property::Text(text)) => Some(text),
                _ => None,
            }
        });
        match description
            .as_deref()
            .and_then(|it| it.strip_prefix(DESCRIPTION_PREFIX))
        {
            Some(what) => format!("'{what}' ({unit})"),
            None => unit.to_owned(),
        }
    }

    /// Waits until a transaction has ended, and leaves its result to whoever adopts it.
    pub fn await_transaction(&self, unit: &str) -> Result<CommandResult, Failure> {
        self.wait_for_unit(unit, None, command::OUTPUT_LIMIT_BYTES)
    }

    /// Clears away what has ended here: its result is written down.
    pub fn forget_ended_transactions(&self) {
        let ended = std::mem::take(&mut *self.ended_transactions());
        for unit in ended {
            self.clear_unit(&unit);
        }
    }

    fn ended_transactions(&self) -> MutexGuard<'_, Vec<String>> {
        self.ended_transactions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Clears a transaction away whose result was read.
    pub fn forget_transaction(&self, unit: &str) {
        self.clear_unit(unit);
    }

    /// Ends and clears the commands that a killed run of ours left behind. Whoever calls it knows that no other run is at work.
    pub fn clear_leftover_commands(&self) -> Result<(), Failure> {
        if !self.systemd().is_available() {
            return Ok(());
        }
        let units = self
            .systemd()
            .list_units_like(&format!("{COMMAND_PREFIX}*.service"))
            .map_err(|error| error.into_failure("list leftover commands"))?;
        for unit in units {
            self.clear_unit(&unit.id);
        }
        Ok(())
    }

    /// Runs a program as a unit of its own and waits for it.
    pub(super) fn run_as_unit(
        &self,
        argv: &[String],
        command: &Command,
    ) -> Result<CommandResult, Failure> {
        let unit = format!("{COMMAND_PREFIX}{}.service", random_id()?);
        self.start_unit(&unit, argv, command, Role::Command)?;
        let result = self.wait_for_unit(
            &unit,
            Some(command.time_limit + GRACE),
            command.output_limit,
        );
        self.clear_unit(&unit);
        result
    }

    fn start_unit(
        &self,
        unit: &str,
        argv: &[String],
        command: &Command,
        role: Role,
    ) -> Result<(), Failure> {
        let output = output_path(unit);
        let program = &command.argv[0];
        prepare_output(&output).map_err(|error| {
            Failure::new(
                Class::Host,
                format!("failed to create '{}': {error}", output.display()),
            )
        })?;
        let output = output.to_string_lossy().into_owned();
        let environment: Vec<String> = command::complete_environment(command)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let time_limit = u64::try_from(command.time_limit.as_micros()).unwrap_or(u64::MAX);
        let ignores_failure = false;
        // systemd puts variables into arguments; a doubled dollar sign is one dollar sign.
        let argv: Vec<String> = argv
            .iter()
            .map(|argument| argument.replace('$', "$$"))
            .collect();
        let start = vec![(argv[0].clone(), argv, ignores_failure)];
        let mut properties = vec![
            ("Description", describe(&command.argv).into()),
            ("Type", "oneshot".into()),
            // Else a unit that succeeded is gone before anybody has read its result.
            ("RemainAfterExit", true.into()),
            ("ExecStart", start.into()),
            ("Environment", environment.into()),
            (
                "UMask",
                if command.user.is_some() {
                    0o077_u32
                } else {
                    0o022
                }
                .into(),
            ),
            ("WorkingDirectory", "/".into()),
            ("StandardOutputFileToAppend", output.clone().into()),
            ("StandardErrorFileToAppend", output.into()),
            ("TimeoutStartUSec", time_limit.into()),
        ];
        match &command.input {
            Some(input) => {
                properties.push(("StandardInput", "data".into()));
                properties.push(("StandardInputData", input.clone().into()));
            }
            None => properties.push(("StandardInput", "null".into())),
        }
        if let Some(user) = &command.user {
            properties.push(("User", user.clone().into()));
        }
        if role == Role::Transaction {
            // Ending a package manager's children in the middle is worse than letting them finish.
            properties.push(("KillMode", Variant::from("process")));
            properties.push(("OOMScoreAdjust", Variant::from(-500_i32)));
        }
        self.systemd()
            .start_transient(unit, &properties)
            .map_err(|error| {
                remove_output(unit);
                error.into_failure(&format!("run '{program}'"))
            })
    }

    /// Looks at the unit by its name until it has ended.
    fn wait_for_unit(
        &self,
        unit: &str,
        limit: Option<Duration>,
        output_limit: u64,
    ) -> Result<CommandResult, Failure> {
        let names = [unit.to_owned()];
        let deadline = limit.map(|limit| clock::instant() + limit);
        let mut pause = Duration::from_millis(2);
        let mut lost_since = None;
        loop {
            match self.systemd().list_units(&names) {
                Ok(listed) => {
                    lost_since = None;
                    let listed = &listed[0];
                    // Between the answer to the start and the start itself it is inactive, with a job.
                    let is_moving = matches!(
                        listed.active.as_str(),
                        "activating" | "reloading" | "deactivating"
                    );
                    if !is_moving && listed.job.is_empty() {
                        return Ok(CommandResult {
                            ending: self.read_ending(&listed.object, &listed.load),
                            output: read_output(unit, output_limit),
                        });
                    }
                }
                // The bus may be restarting, perhaps by what we wait for: the unit goes on without it.
                Err(error) => {
                    let since = *lost_since.get_or_insert_with(clock::instant);
                    if since.elapsed() > GRACE {
                        return Err(error.into_failure(&format!("wait for '{unit}'")));
                    }
                }
            }
            if deadline.is_some_and(|deadline| clock::instant() >= deadline) {
                return Ok(CommandResult {
                    ending: Ending::TimedOut,
                    output: read_output(unit, output_limit),
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(POLL_LIMIT);
        }
    }

    /// How the unit's program ended.
    fn read_ending(&self, object: &str, load: &str) -> Ending {
        if load == "not-found" {
            return Ending::Unknown("its unit is gone");
        }
        let wanted = ["Result", "ExecMainCode", "ExecMainStatus"].map(|name| PropertyName {
            object,
            interface: "Service",
            name,
        });
        let Ok(values) = self.systemd().properties(&wanted) else {
            return Ending::Unknown("its result could not be read");
        };
        match values.as_slice() {
            [
                Ok(Property::Text(result)),
                Ok(Property::Number(code)),
                Ok(Property::Number(status)),
            ] => parse_ending(result, *code, *status),
            _ => Ending::Unknown("its result could not be read"),
        }
    }

    /// Forgets a unit that has ended, and its output.
    fn clear_unit(&self, unit: &str) {
        let stop = Job {
            verb: Verb::Stop,
            unit: unit.to_owned(),
        };
        // What could not be cleared only stays listed: a transaction is adopted again, with the same result.
        for outcome in self.systemd().run_jobs(&[stop], GRACE) {
            if let Err(error) = outcome {
                tracing::debug!(%error, unit, "failed to clear a transient unit, ignoring");
            }
        }
        let _ = self.systemd().reset_failed(unit); // not failed, or gone already
        remove_output(unit);
    }
}

/// What a unit is called: its program and what that is asked for, without the options that are always the same.
fn describe(argv: &[String]) -> String {
    let mut text = DESCRIPTION_PREFIX.to_owned();
    let mut is_value = false;
    for (index, word) in argv.iter().enumerate() {
        let is_usual = ["-o", "-q", "-y", "--"].contains(&word.as_str())
            || word.starts_with("--force-")
            || is_value;
        is_value = word == "-o";
        if is_usual || text.len() + word.len() > DESCRIPTION_LIMIT_BYTES {
            continue;
        }
        if index > 0 {
            text.push(' ');
        }
        // systemd puts what it knows in the place of a percent sign and a letter.
        text.push_str(&word.replace(['%', '\n'], "_"));
    }
    text
}

/// An ending from a service's Result, ExecMainCode and ExecMainStatus.
fn parse_ending(result: &str, code: i64, status: i64) -> Ending {
    const CLD_EXITED: i64 = 1;
    const CLD_KILLED: i64 = 2;
    const CLD_DUMPED: i64 = 3;
    let status = i32::try_from(status).unwrap_or(i32::MAX);
    match (result, code) {
        ("timeout", _) => Ending::TimedOut,
        ("success" | "exit-code", CLD_EXITED) => Ending::Exited(status),
        ("success" | "signal" | "core-dump", CLD_KILLED | CLD_DUMPED) => Ending::Signalled(status),
        ("oom-kill", _) => Ending::Unknown("out of memory"),
        ("resources", _) => Ending::Unknown("systemd failed to prepare it"),
        _ => Ending::Unknown("systemd knows no result"),
    }
}

/// Eight random bytes in hexadecimal: names are never used twice.
fn random_id() -> Result<String, Failure> {
    let mut bytes = [0; 8];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Failure::new(Class::Host, "failed to read random numbers"))?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

fn output_path(unit: &str) -> PathBuf {
    PathBuf::from(format!("{OUTPUT_DIRECTORY}/{unit}.log"))
}

/// Creates the file before systemd opens it, so that only root reads it.
fn prepare_output(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(OUTPUT_DIRECTORY)?;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    Ok(())
}

fn read_output(unit: &str, limit: u64) -> String {
    #[allow(clippy::disallowed_methods, reason = "sys is where files are opened")]
    let file = std::fs::File::open(output_path(unit));
    file.and_then(|mut file| command::read_end(&mut file, limit))
        .unwrap_or_default()
}

fn remove_output(unit: &str) {
    #[allow(clippy::disallowed_methods, reason = "sys is where files are removed")]
    let _ = std::fs::remove_file(output_path(unit)); // /run is emptied at boot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_read_from_what_systemd_says() {
        let check = |result, code, status, expected| {
            assert_eq!(
                parse_ending(result, code, status),
                expected,
                "{result} {code} {status}"
            );
        };
        check("success", 1, 0, Ending::Exited(0));
        check("exit-code", 1, 100, Ending::Exited(100));
        check("signal", 2, 9, Ending::Signalled(9));
        check("core-dump", 3, 11, Ending::Signalled(11));
        check("timeout", 2, 15, Ending::TimedOut);
        check("oom-kill", 2, 9, Ending::Unknown("out of memory"));
        check("success", 0, 0, Ending::Unknown("systemd knows no result"));
    }

    #[test]
    fn a_unit_is_called_by_what_is_asked_of_its_program() {
        let check = |line: &str, expected: &str| {
            let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(describe(&argv), expected);
        };
        check(
            "apt-get -q -o Dpkg::Use-Pty=0 install -- curl=1 telnet-",
            "limpet: apt-get install curl=1 telnet-",
        );
        check(
            "dpkg --configure -a --force-confold",
            "limpet: dpkg --configure -a",
        );
    }

    #[test]
    fn without_systemd_there_are_no_transactions_to_adopt() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Host::new(root.path()).find_transactions(), Ok(Vec::new()));
    }
}
