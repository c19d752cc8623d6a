//! `limpet status`: one screen of what this host is doing and what is wrong.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::cli::CommandResult;
use crate::cli::agent_or_record::{self, NOT_ENROLLED};
use crate::cli::terminal::{self, Terminal, ago, duration, moment};
use crate::control::{Reply, Request};
use crate::model::Class;
use crate::report::journal::short;
use crate::report::status::{Condition, State, Status, StatusError};

/// Show what this host is doing and what is wrong.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// End with 0 only when the host is as declared
    #[arg(long)]
    exit_code: bool,
}

/// How many differences are listed.
const DRIFT_SHOWN: usize = 10;

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
        terminal.show(&text(&status, crate::sys::clock::now()))?;
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

/// The status as people read it: who and since when, what is in force, what holds with the next step, and what is wrong.
pub fn text(status: &Status, now: Timestamp) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} {}  {} since {} ({})",
        mark(status.state.as_str()),
        status.host,
        status.state.as_str(),
        moment(status.since),
        ago(status.since, now)
    );
    write_rows(&mut out, status, now);
    write_conditions(&mut out, status, now);
    // What a condition tells is not told again.
    let (told, untold): (Vec<&StatusError>, Vec<&StatusError>) = status
        .errors
        .iter()
        .partition(|error| status.conditions.iter().any(|known| tells(known, error)));
    if !untold.is_empty() {
        let title = match told.is_empty() {
            true => "what is wrong",
            false => "what else is wrong",
        };
        let _ = writeln!(out, "\n  {title}");
        for error in untold {
            let _ = writeln!(out, "    ! {}", terminal::one_line(error));
            if let Some(hint) = &error.hint {
                let _ = writeln!(out, "      hint: {hint}");
            }
        }
    }
    out
}

/// How pressing a condition is: fine, somebody must act, or worth knowing.
fn mark(kind: &str) -> char {
    match kind {
        "converged" => '●',
        "refused" | "rolled-back" | "held" | "degraded" | "state-missing" | "config"
        | "agent-down" | "fetcher-down" | NOT_ENROLLED => '✗',
        _ => '○',
    }
}

fn write_rows(out: &mut String, status: &Status, now: Timestamp) {
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "    {name:<11} {}", value.trim_end());
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
            match status.applied_at {
                Some(at) => row("applied", format!("{} ({})", moment(at), ago(at, now))),
                None => row("applied", "no: it is only compared with".to_owned()),
            }
        }
        None => row("revision", "none applied yet".to_owned()),
    }
    let next = match status.next_poll_at {
        Some(next) if next > now => {
            let failures = status.last_poll.as_ref().map_or(0, |poll| poll.failures);
            let after = match failures {
                0 => String::new(),
                1 => " after a failure".to_owned(),
                count => format!(" after {count} failures in a row"),
            };
            format!("next in {}{after}", duration(next.duration_since(now)))
        }
        _ => String::new(),
    };
    match &status.last_poll {
        Some(poll) if next.is_empty() => {
            row(
                "last poll",
                format!("{}: {}", ago(poll.at, now), poll.result),
            );
        }
        Some(poll) => row(
            "last poll",
            format!("{}: {}, {next}", ago(poll.at, now), poll.result),
        ),
        None if next.is_empty() => row("last poll", "none yet".to_owned()),
        None => row("last poll", format!("none yet, {next}")),
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
                "{} of {} because {} changed",
                owed.action, owed.resource, owed.because
            ),
        );
        if owed.manual {
            let unit = &owed.resource.name;
            row("", format!("→ systemctl restart {unit}"));
        }
    }
    for drift in status.drift.iter().take(DRIFT_SHOWN) {
        let how = if drift.fields.is_empty() {
            drift.reason.to_string()
        } else {
            drift.fields.join(", ")
        };
        row("differs", format!("{} ({how})", drift.resource));
    }
    if let Some(left) = status
        .drift
        .len()
        .checked_sub(DRIFT_SHOWN)
        .filter(|left| *left > 0)
    {
        row("", format!("… and {left} more: limpet plan"));
    }
    for quarantined in &status.quarantined {
        let revision = short(&quarantined.revision);
        row(
            "not tried",
            format!(
                "{revision}: {} (again with 'limpet sync --retry')",
                quarantined.reason
            ),
        );
    }
    if status.reboot_required {
        row("reboot", "the system asks for one".to_owned());
    }
}

/// Everything that holds, but that nothing is wrong: since when, why, who must act, and the next step.
fn write_conditions(out: &mut String, status: &Status, now: Timestamp) {
    let quiet = [State::Converged.as_str(), State::Starting.as_str()];
    let shown = status
        .conditions
        .iter()
        .filter(|condition| !quiet.contains(&condition.kind.as_str()));
    for condition in shown {
        let _ = writeln!(
            out,
            "\n  {} {} since {}: {}",
            mark(&condition.kind),
            condition.kind,
            ago(condition.since, now),
            condition.reason
        );
        let hints = status.errors.iter().filter(|error| tells(condition, error));
        if let Some(hint) = hints.filter_map(|error| error.hint.as_deref()).next() {
            let _ = writeln!(out, "    hint:   {hint}");
        }
        let _ = writeln!(out, "    to act: {}", condition.who);
        let next = status.next_step(condition);
        if !next.is_empty() {
            let _ = writeln!(out, "    next:   {next}");
        }
    }
}

/// Is `error` what `condition` tells, perhaps as the first of several.
fn tells(condition: &Condition, error: &StatusError) -> bool {
    let location = error.location.as_ref().map(|at| format!("{at}: "));
    let text = format!("{}{}", location.unwrap_or_default(), error.message);
    let rest = condition.reason.strip_prefix(&text);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(" (and "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycle::situation::{Beginnings, Situation};
    use crate::model::{Action, Failure, Kind, Location, Reason, ResourceId};
    use crate::report::status::{Counts, Drift, OwedEffect, Pause, Poll};

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

    /// The text after an hour; the situation began twelve seconds ago.
    fn told(situation: &Situation) -> String {
        text(&status(situation), at(8012))
    }

    fn status(situation: &Situation) -> Status {
        situation.status(
            "gw-lag-02",
            &mut Beginnings::new(),
            Some(at(8060)),
            at(8000),
        )
    }

    /// What is told of `situation` below the rows, which are the same for all.
    fn told_below(situation: &Situation) -> String {
        let text = told(situation);
        let (_, below) = text.split_once("\n\n").unwrap_or_default();
        below.to_owned()
    }

    fn mistake() -> Failure {
        Failure::new(
            Class::Author,
            "unknown field `owmer` in file:/etc/motd, expected `owner`",
        )
        .at(Location {
            file: "layers/base/motd.toml".into(),
            line: 12,
            column: 1,
        })
    }

    #[test]
    fn a_converged_host_is_six_lines() {
        insta::assert_snapshot!(told(&situation()), @r"
        ● gw-lag-02  converged since 1970-01-01 02:13:20 UTC (12 s ago)
            revision    9f3c2ab  raise ntp pool size
            signed by   alice (SHA256:pQ2x)
            applied     1970-01-01 00:01:40 UTC (2 h ago)
            last poll   12 s ago: unchanged, next in 48 s
            resources   41 declared, 41 as declared, 0 failed
        ");
        assert_eq!(exit_code(&status(&situation())), 0);
    }

    #[test]
    fn before_the_first_apply_there_is_no_revision() {
        insta::assert_snapshot!(told(&Situation::default()), @r"
        ○ gw-lag-02  starting since 1970-01-01 02:13:20 UTC (12 s ago)
            revision    none applied yet
            last poll   none yet, next in 48 s
            resources   0 declared, 0 as declared, 0 failed
        ");
        assert_eq!(exit_code(&status(&Situation::default())), 75);
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
        insta::assert_snapshot!(told(&situation), @r"
        ○ gw-lag-02  paused since 1970-01-01 01:56:40 UTC (16 min ago)
            revision    9f3c2ab  raise ntp pool size
            signed by   alice (SHA256:pQ2x)
            applied     1970-01-01 00:01:40 UTC (2 h ago)
            last poll   12 s ago: the server is in trouble (HTTP status 500), next in 48 s after 3 failures in a row
            resources   41 declared, 41 as declared, 0 failed

          ○ paused since 16 min ago: file:/etc/motd until 1970-01-01 03:53:20 UTC by alice: moving the database
            to act: nobody
            next:   nothing: it ends by itself, or now with 'limpet resume' and the name

          ○ unreachable since 12 s ago: failed to fetch from 'https://git.example.net/fleet.git': the server is in trouble (HTTP status 500)
            hint:   ask its operator
            to act: nobody yet, it is tried again
            next:   see with 'limpet doctor' what is in the way; it is tried again by itself, at once with 'limpet sync'
        ");
        assert_eq!(exit_code(&status(&situation)), 75);
    }

    #[test]
    fn a_mistake_and_a_failure_say_where_who_and_what_next() {
        let mut situation = situation();
        situation.mistakes.push(mistake());
        situation.mistaken = Some("77ab0129c3".repeat(4));
        situation.failures.push(
            Failure::new(
                Class::Host,
                "failed to install package:ngnix: E: Unable to locate package ngnix",
            )
            .with_hint("look for it with 'apt-cache search ngnix'")
            .about(ResourceId::new(Kind::Package, "ngnix")),
        );
        situation.resources = Counts {
            total: 41,
            converged: 40,
            failed: 1,
        };
        insta::assert_snapshot!(told(&situation), @r"
        ✗ gw-lag-02  degraded since 1970-01-01 02:13:20 UTC (12 s ago)
            revision    9f3c2ab  raise ntp pool size
            signed by   alice (SHA256:pQ2x)
            applied     1970-01-01 00:01:40 UTC (2 h ago)
            last poll   12 s ago: unchanged, next in 48 s
            resources   41 declared, 40 as declared, 1 failed

          ✗ degraded since 12 s ago: layers/base/motd.toml:12:1: unknown field `owmer` in file:/etc/motd, expected `owner` (and 1 more)
            to act: the author of the commit
            next:   the author corrects that place and pushes; the revision in force stays enforced

          what else is wrong
            ! failed to install package:ngnix: E: Unable to locate package ngnix
              hint: look for it with 'apt-cache search ngnix'
        ");
        assert_eq!(
            exit_code(&status(&situation)),
            65,
            "the mistake comes first: it keeps the whole revision away"
        );
    }

    #[test]
    fn a_failure_alone_is_degraded_and_tried_again() {
        let mut situation = situation();
        let failure = Failure::new(Class::Host, "failed to start unit:app.service");
        situation.failures.push(failure);
        insta::assert_snapshot!(told_below(&situation), @r"
          ✗ degraded since 12 s ago: failed to start unit:app.service
            to act: the operator of this host
            next:   put right what failed; it is tried again by itself, at once with 'limpet sync --wait'
        ");
    }

    #[test]
    fn a_refused_tip_says_who_holds_the_keys() {
        let mut situation = situation();
        let refusal = Failure::new(Class::Refused, "refused revision 77ab012: it is not signed");
        situation.refusal = Some(refusal);
        insta::assert_snapshot!(told_below(&situation), @r"
          ✗ refused since 12 s ago: refused revision 77ab012: it is not signed
            to act: whoever holds the signing keys
            next:   'limpet verify' says which rule refused it; if the commit is honest, whoever holds a listed key signs it again, else treat the Git server as compromised
        ");
        assert_eq!(exit_code(&status(&situation)), 77);
    }

    #[test]
    fn a_held_plan_says_how_to_let_it_through() {
        let mut situation = situation();
        let held = Failure::new(
            Class::Host,
            "held a plan that removes 11 things: max_removals is 10",
        );
        situation
            .held
            .push(held.with_hint("let it through with 'limpet sync --allow-removals'"));
        insta::assert_snapshot!(told_below(&situation), @r"
          ✗ held since 12 s ago: held a plan that removes 11 things: max_removals is 10
            hint:   let it through with 'limpet sync --allow-removals'
            to act: the operator of this host
            next:   look at 'limpet plan', then allow it or put it right
        ");
        assert_eq!(exit_code(&status(&situation)), 1);
    }

    #[test]
    fn a_host_that_only_reports_lists_what_differs() {
        let mut situation = situation();
        let drift = |number: usize| Drift {
            resource: ResourceId::new(Kind::File, format!("/srv/{number}")),
            reason: Reason::Differs,
            fields: vec!["content".into()],
        };
        situation.drift = (0..DRIFT_SHOWN + 2).map(drift).collect();
        let text = told(&situation);
        assert!(
            text.contains("    differs     file:/srv/0 (content)\n"),
            "{text}"
        );
        assert!(text.contains("… and 2 more: limpet plan\n"), "{text}");
        insta::assert_snapshot!(told_below(&situation), @r"
          ○ drifted since 12 s ago: 12 differences, file:/srv/0 first
            to act: the operator of this host
            next:   'limpet plan' shows the differences; they are corrected once 'report' is taken away or the pause is over; or commit what is there
        ");
        assert_eq!(exit_code(&status(&situation)), 1);
    }

    #[test]
    fn an_unreachable_source_is_a_condition_of_a_converged_host() {
        let mut situation = situation();
        let offline = Failure::new(
            Class::Transient,
            "failed to reach 'git.example.net': no route",
        );
        situation.source = Some(offline);
        let text = told(&situation);
        assert!(text.starts_with("● gw-lag-02  converged"), "{text}");
        insta::assert_snapshot!(told_below(&situation), @r"
          ○ unreachable since 12 s ago: failed to reach 'git.example.net': no route
            to act: nobody yet, it is tried again
            next:   see with 'limpet doctor' what is in the way; it is tried again by itself, at once with 'limpet sync'
        ");
    }

    #[test]
    fn what_is_owed_and_a_reboot_are_rows() {
        let mut situation = situation();
        situation.owed.push(OwedEffect {
            action: Action::Restart,
            manual: true,
            resource: ResourceId::new(Kind::Unit, "app.service"),
            because: ResourceId::new(Kind::File, "/etc/app.conf"),
        });
        situation.reboot_required = true;
        let text = told(&situation);
        let owed = "    owed        restart of unit:app.service because file:/etc/app.conf changed\n                → systemctl restart app.service\n";
        assert!(text.contains(owed), "{text}");
        assert!(
            text.contains("    reboot      the system asks for one\n"),
            "{text}"
        );
    }

    #[test]
    fn every_state_but_the_quiet_ones_has_a_next_step() {
        let states = [
            State::Refused,
            State::RolledBack,
            State::Held,
            State::Degraded,
            State::Pending,
            State::Waiting,
            State::Paused,
            State::Stale,
            State::Drifted,
        ];
        let status = status(&situation());
        let kinds = states.iter().map(|state| state.as_str());
        let others = [
            "offline",
            "unreachable",
            "denied",
            "fetcher-down",
            "contested",
            "clock",
            "facts",
            "behind",
            "agent-down",
            "state-missing",
            "config",
            NOT_ENROLLED,
        ];
        for kind in kinds.chain(others) {
            let condition = Condition {
                kind: kind.to_owned(),
                since: at(0),
                reason: String::new(),
                who: String::new(),
            };
            assert!(!status.next_step(&condition).is_empty(), "{kind}");
        }
    }
}
