//! The agent's unit: how it failed, and starting it again.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::config;
use crate::model::{Class, Failure};
use crate::sys::Host;
use crate::sys::jobs::{Job, Verb};
use crate::sys::systemd::{Property, PropertyName};

/// The agent.
const UNIT: &str = "limpet.service";
/// How long a start may take: the unit's own limit and some.
const START_LIMIT: Duration = Duration::from_secs(120);
/// The longest pause before a program that has proven itself is started again, as a power of two in seconds.
const LONGEST_PAUSE_POWER: u32 = 8;

/// How the agent ended last, as systemd tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The unit's `Result`.
    result: String,
    /// How its program ended: 1 by itself, 2 or 3 by a signal.
    code: i64,
    /// The exit status, or the signal.
    status: i64,
    /// It runs, or is about to.
    pub is_up: bool,
    /// It is being started, or waits to be started again by systemd itself.
    pub is_trying: bool,
}

impl Ended {
    /// Asks systemd.
    pub fn read(host: &Host) -> Result<Self, Failure> {
        let action = "look at the agent's unit";
        let units = host
            .systemd()
            .list_units(&[UNIT.to_owned()])
            .map_err(|error| error.into_failure(action))?;
        let unit = &units[0];
        let wanted = ["Result", "ExecMainCode", "ExecMainStatus"].map(|name| PropertyName {
            object: &unit.object,
            interface: "Service",
            name,
        });
        let values = host
            .systemd()
            .properties(&wanted)
            .map_err(|error| error.into_failure(action))?;
        let number = |index: usize| match values.get(index) {
            Some(Ok(Property::Number(number))) => *number,
            _ => 0,
        };
        Ok(Ended {
            result: match values.first() {
                Some(Ok(Property::Text(result))) => result.clone(),
                _ => String::new(),
            },
            code: number(1),
            status: number(2),
            is_trying: unit.active == "activating",
            is_up: !matches!(unit.active.as_str(), "failed" | "inactive") || !unit.job.is_empty(),
        })
    }

    /// Did it say that the host configuration is wrong.
    pub fn blames_configuration(&self) -> bool {
        self.code == 1 && self.status == i64::from(Class::Config.exit_code())
    }

    /// What it did, for people.
    pub fn in_words(&self) -> String {
        const CANNOT_EXECUTE: i64 = 203; // systemd.exec(5), "Process Exit Codes"
        match (self.result.as_str(), self.code, self.status) {
            ("timeout", ..) => "it did not say in time that it was ready".to_owned(),
            ("watchdog", ..) => "it hung, and the watchdog ended it".to_owned(),
            ("oom-kill", ..) => "it ran out of memory".to_owned(),
            (_, 1, CANNOT_EXECUTE) => "its program cannot be executed".to_owned(),
            ("protocol", 1, 0) | (_, 1, 0) => "it ended instead of running".to_owned(),
            (_, 1, status) => format!("it exited with status {status}"),
            (_, 2 | 3, number) => {
                let signal = i32::try_from(number).ok().map(Signal::try_from);
                match signal {
                    Some(Ok(signal)) => format!("it was ended by {signal}"),
                    _ => format!("it was ended by signal {number}"),
                }
            }
            (result, ..) => format!("systemd says '{result}'"),
        }
    }
}

/// How long to wait before a program that has proven itself is started again; longer each time, until a cycle ends well.
pub fn next_pause(host: &Host) -> Duration {
    let count: u32 = host
        .read_file(config::RECOVERIES, 64)
        .ok()
        .flatten()
        .and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok())
        .unwrap_or(0);
    let next = format!("{}\n", count.saturating_add(1));
    if let Err(failure) = host.write_own_file(config::RECOVERIES, next.as_bytes(), 0o600) {
        tracing::debug!("failed to count the recoveries, ignoring: {failure}");
    }
    Duration::from_secs(1 << count.min(LONGEST_PAUSE_POWER))
}

/// Starts the agent, whatever its count of starts, and waits until it says that it is ready.
pub fn again(host: &Host) -> Result<(), Failure> {
    let systemd = host.systemd();
    let action = "start the agent";
    // It keeps systemd from starting what failed too often; without it the start below would be refused.
    systemd
        .reset_failed(UNIT)
        .or_else(|error| match error.is_missing_unit() {
            true => Ok(()),
            false => Err(error),
        })
        .map_err(|error| error.into_failure(action))?;
    let start = Job {
        verb: Verb::Start,
        unit: UNIT.to_owned(),
    };
    let mut results = systemd.run_jobs(&[start], START_LIMIT);
    let result = results
        .remove(0)
        .map_err(|error| error.into_failure(action))?;
    // A package's script may have replaced our job by one of its own.
    if result.is_done() || Ended::read(host)?.is_up {
        return Ok(());
    }
    Err(Failure::new(
        Class::Host,
        format!("failed to {action}: systemd says {result:?}"),
    ))
}

/// Says that the agent that runs is well: what it failed before does not count any more.
pub fn forget_failures(host: &Host) -> Result<(), Failure> {
    if host.systemd().is_available() {
        host.systemd()
            .reset_failed(UNIT)
            .map_err(|error| error.into_failure("forget the failed starts"))?;
    }
    match host.exists(config::RECOVERIES)? {
        true => host.remove_own_file(config::RECOVERIES),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_agent_is_described_by_what_it_did() {
        let check = |result: &str, code, status, expected: &str| {
            let ended = Ended {
                result: result.to_owned(),
                code,
                status,
                is_up: false,
                is_trying: false,
            };
            assert_eq!(ended.in_words(), expected);
        };
        check("exit-code", 1, 1, "it exited with status 1");
        check("exit-code", 1, 203, "its program cannot be executed");
        check("protocol", 1, 0, "it ended instead of running");
        check("core-dump", 3, 11, "it was ended by SIGSEGV");
        check("signal", 2, 9, "it was ended by SIGKILL");
        check("timeout", 2, 15, "it did not say in time that it was ready");
        check("watchdog", 3, 6, "it hung, and the watchdog ended it");
        check("resources", 0, 0, "systemd says 'resources'");
    }

    #[test]
    fn the_pauses_grow_until_a_cycle_ends() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        host.ensure_own_directory("/run/limpet", 0o755).unwrap();
        let pauses: Vec<u64> = (0..10).map(|_| next_pause(&host).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]);
        forget_failures(&host).unwrap();
        assert_eq!(next_pause(&host).as_secs(), 1);
    }
}
