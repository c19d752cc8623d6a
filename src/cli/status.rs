//! `limpet status`: one screen of what this host is doing and what is wrong.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};

use crate::cli::CommandResult;
use crate::cli::agent_or_record::{self, NOT_ENROLLED};
use crate::cli::terminal::{self, Terminal};
use crate::control::{Reply, Request};
use crate::model::Class;
use crate::report::journal::short;
use crate::report::status::{State, Status, StatusError};

/// Shows what this host is doing and what is wrong.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// End with 0 only when the host is as declared
    #[arg(long)]
    exit_code: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let status = match agent_or_record::ask(&Request::Status) {
        Ok(Reply::Status { status }) => *status,
        Ok(other) => return Err(vec![agent_or_record::unexpected(&other)]),
        Err(no_agent) => agent_or_record::recorded_status(&no_agent)?,
    };
    if arguments.json {
        terminal.data(&terminal::json(&status)?)?;
    } else {
        terminal.data(&text(&status, crate::sys::clock::now()))?;
    }
    if status
        .conditions
        .iter()
        .any(|condition| condition.kind == NOT_ENROLLED)
    {
        return Ok(Class::Config.exit_code());
    }
    Ok(if arguments.exit_code {
        exit_code(&status)
    } else {
        0
    })
}

/// The exit code that says how the host is: 0 as declared, 1 failed or held, 65 the fleet data is wrong, 75 try again, 77 refused.
pub fn exit_code(status: &Status) -> u8 {
    let is_down = status
        .conditions
        .iter()
        .any(|condition| condition.kind == "agent-down");
    match status.state {
        State::Refused => Class::Refused.exit_code(),
        State::RolledBack | State::Held | State::Drifted => 1,
        State::Degraded => exit_code_of(&status.errors).max(1),
        State::Pending
        | State::Waiting
        | State::Paused
        | State::Stale
        | State::Applying
        | State::Starting => Class::Transient.exit_code(),
        // Nobody keeps it so.
        State::Converged if is_down => Class::Transient.exit_code(),
        State::Converged => 0,
    }
}

/// The exit code that says what is most wrong of `errors`: a mistake in the fleet keeps the whole revision away, a refusal is not
/// to be overlooked, then what failed, then what is tried again by itself.
pub fn exit_code_of(errors: &[StatusError]) -> u8 {
    let is_of = |class: Class| errors.iter().any(|error| error.class == class);
    if is_of(Class::Refused) {
        Class::Refused.exit_code()
    } else if errors.iter().any(is_mistake) {
        Class::Author.exit_code()
    } else if is_of(Class::Config) {
        Class::Config.exit_code()
    } else if errors.iter().any(|error| error.class != Class::Transient) {
        1
    } else if errors.is_empty() {
        0
    } else {
        Class::Transient.exit_code()
    }
}

/// Is it a mistake that keeps a whole revision away.
fn is_mistake(error: &StatusError) -> bool {
    error.revision.is_some()
}

/// The status as people read it.
pub fn text(status: &Status, now: Timestamp) -> String {
    let mut out = String::new();
    let mark = match status.state {
        State::Converged => "●",
        State::Refused | State::RolledBack | State::Held | State::Degraded => "✗",
        _ => "○",
    };
    let _ = writeln!(
        out,
        "{mark} {}  {} since {}",
        status.host,
        status.state.as_str(),
        ago(status.since, now)
    );
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "    {name:<11} {value}");
    };
    match &status.revision {
        Some(revision) => {
            let subject = status.subject.as_deref().unwrap_or("");
            row("revision", format!("{}  {subject}", short(revision)));
            row(
                "signed by",
                status
                    .signer
                    .clone()
                    .unwrap_or_else(|| "nobody (unverified)".to_owned()),
            );
            if let Some(at) = status.applied_at {
                row("applied", ago(at, now));
            }
        }
        None => row("revision", "none applied yet".to_owned()),
    }
    match &status.last_poll {
        Some(poll) => {
            let next = match status.next_poll_at {
                Some(next) if next > now => {
                    let after = match poll.failures {
                        0 => String::new(),
                        1 => " after a failure".to_owned(),
                        count => format!(" after {count} failures in a row"),
                    };
                    format!(", next in {}{after}", duration(next.duration_since(now)))
                }
                _ => String::new(),
            };
            row(
                "last poll",
                format!("{}: {}{next}", ago(poll.at, now), poll.result),
            );
        }
        None => row("last poll", "none yet".to_owned()),
    }
    let counts = status.resources;
    row(
        "resources",
        format!(
            "{} declared, {} as declared, {} failed",
            counts.total, counts.converged, counts.failed
        ),
    );
    for owed in &status.owed {
        row(
            "owed",
            format!(
                "restart of {} because {} changed",
                owed.resource, owed.because
            ),
        );
    }
    for drift in &status.drift {
        let how = if drift.fields.is_empty() {
            drift.reason.to_string()
        } else {
            drift.fields.join(", ")
        };
        row("differs", format!("{} ({how})", drift.resource));
    }
    if status.reboot_required {
        row("reboot", "the system asks for one".to_owned());
    }
    for condition in &status.conditions {
        if condition.kind != State::Converged.as_str() && condition.kind != State::Starting.as_str()
        {
            let _ = writeln!(
                out,
                "\n  {} since {}: {}",
                condition.kind,
                ago(condition.since, now),
                condition.reason
            );
            let _ = writeln!(out, "    to act: {}", condition.who);
        }
    }
    if !status.errors.is_empty() {
        let _ = writeln!(out, "\n  what is wrong:");
        for error in &status.errors {
            let _ = writeln!(out, "    ! {}", terminal::one_line(error));
            if let Some(hint) = &error.hint {
                let _ = writeln!(out, "      hint: {hint}");
            }
        }
    }
    out
}

/// How long before `now` something was, in one unit.
fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", duration(now.duration_since(at)))
}

pub(super) fn duration(span: SignedDuration) -> String {
    match span.as_secs().max(0) {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycle::situation::{Beginnings, Situation};
    use crate::model::{Failure, Kind, Location, ResourceId};
    use crate::report::status::{Counts, Pause, Poll};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn situation() -> Situation {
        Situation {
            revision: Some("9f3c2ab5d2".repeat(4)),
            subject: Some("raise ntp pool size".into()),
            signer: Some("alice (SHA256:pQ2x)".into()),
            applied_at: Some(at(100)),
            last_poll: Some(Poll {
                at: at(8000),
                result: "unchanged".into(),
                failures: 0,
            }),
            resources: Counts {
                total: 41,
                converged: 41,
                failed: 0,
            },
            ..Situation::default()
        }
    }

    #[test]
    fn a_converged_host_is_seven_lines() {
        let status =
            situation().status("gw-lag-02", &mut Beginnings::new(), Some(at(8060)), at(100));
        insta::assert_snapshot!(text(&status, at(8012)), @r"
        ● gw-lag-02  converged since 2 h ago
            revision    9f3c2ab  raise ntp pool size
            signed by   alice (SHA256:pQ2x)
            applied     2 h ago
            last poll   12 s ago: unchanged, next in 48 s
            resources   41 declared, 41 as declared, 0 failed
        ");
        assert_eq!(exit_code(&status), 0);
    }

    #[test]
    fn a_source_that_rests_is_told_with_its_failures_and_a_pause_with_its_end() {
        let mut situation = situation();
        situation.source = Some(
            Failure::new(
                Class::Transient,
                "failed to fetch from 'https://git.example.net/fleet.git': the server is in trouble (HTTP status 500)",
            )
            .with_hint("ask its operator"),
        );
        situation.failed_polls = 3;
        situation.last_poll = Some(Poll {
            at: at(8000),
            result: "the server is in trouble (HTTP status 500)".into(),
            failures: 3,
        });
        situation.paused = vec![Pause {
            resource: Some(ResourceId::new(Kind::File, "/etc/motd")),
            since: at(7000),
            until: at(14_000),
            by: "alice".into(),
            reason: "moving the database".into(),
        }];
        let status = situation.status(
            "gw-lag-02",
            &mut Beginnings::new(),
            Some(at(9000)),
            at(8000),
        );
        insta::assert_snapshot!(text(&status, at(8012)), @r"
        ○ gw-lag-02  paused since 16 min ago
            revision    9f3c2ab  raise ntp pool size
            signed by   alice (SHA256:pQ2x)
            applied     2 h ago
            last poll   12 s ago: the server is in trouble (HTTP status 500), next in 16 min after 3 failures in a row
            resources   41 declared, 41 as declared, 0 failed

          paused since 16 min ago: file:/etc/motd until 1970-01-01T03:53:20Z by alice: moving the database
            to act: nobody, a pause ends by itself; 'limpet resume' ends it sooner

          unreachable since 12 s ago: failed to fetch from 'https://git.example.net/fleet.git': the server is in trouble (HTTP status 500)
            to act: nobody yet, it is tried again

          what is wrong:
            ! failed to fetch from 'https://git.example.net/fleet.git': the server is in trouble (HTTP status 500)
              hint: ask its operator
        ");
        assert_eq!(exit_code(&status), 75);
    }

    #[test]
    fn a_mistake_and_a_failure_say_who_must_act() {
        let mut situation = situation();
        situation.mistakes.push(
            Failure::new(
                Class::Author,
                "unknown field `owmer` in file:/etc/motd, expected `owner`",
            )
            .at(Location {
                file: "layers/base/motd.toml".into(),
                line: 12,
                column: 1,
            }),
        );
        situation.mistaken = Some("77ab0129c3".repeat(4));
        situation.failures.push(
            Failure::new(
                Class::Host,
                "failed to install package:ngnix: E: Unable to locate package ngnix",
            )
            .about(ResourceId::new(Kind::Package, "ngnix")),
        );
        situation.resources = Counts {
            total: 41,
            converged: 40,
            failed: 1,
        };
        let status = situation.status("gw-lag-02", &mut Beginnings::new(), None, at(8000));
        insta::assert_snapshot!(text(&status, at(8012)), @r"
        ✗ gw-lag-02  degraded since 12 s ago
            revision    9f3c2ab  raise ntp pool size
            signed by   alice (SHA256:pQ2x)
            applied     2 h ago
            last poll   12 s ago: unchanged
            resources   41 declared, 40 as declared, 1 failed

          degraded since 12 s ago: layers/base/motd.toml:12:1: unknown field `owmer` in file:/etc/motd, expected `owner` (and 1 more)
            to act: the author of the commit

          what is wrong:
            ! layers/base/motd.toml:12:1: unknown field `owmer` in file:/etc/motd, expected `owner`
            ! failed to install package:ngnix: E: Unable to locate package ngnix
        ");
        assert_eq!(
            exit_code(&status),
            65,
            "the mistake comes first: it keeps the whole revision away"
        );
    }
}
