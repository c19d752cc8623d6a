//! `limpet pause`: change nothing on this host, or none of some resources, for a time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::cli::terminal::{Terminal, moment};
use crate::cli::{CommandResult, agent_or_record};
use crate::control::{Reply, Request};
use crate::cycle::pause::PauseRequest;
use crate::model::Failure;
use crate::report::status::Status;

/// Change nothing on this host, or on some of its resources, for a while
#[derive(Debug, clap::Args)]
#[command(after_help = "Polling and judging go on. A pause ends by itself.")]
pub struct Arguments {
    /// What to leave as it is: kind:name, or a bare path, unit or package (default: the whole host)
    #[arg(value_name = "RESOURCE")]
    resources: Vec<String>,
    /// For how long, such as 2h or 3d; at most 30 days
    #[arg(long = "for", value_name = "TIME", value_parser = parse_length)]
    length: Duration,
    /// What the next person should know
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Runs the command.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let one = |failure: Failure| vec![failure];
    let by = who();
    let resources = agent_or_record::resources(&arguments.resources)?;
    let request = Request::Pause {
        resources: resources.clone(),
        for_secs: arguments.length.as_secs(),
        reason: arguments.reason.clone(),
        by: by.clone(),
    };
    let status = match agent_or_record::ask(&request) {
        Ok(Reply::Status { status }) => *status,
        Ok(other) => return Err(vec![agent_or_record::unexpected(&other)]),
        Err(no_agent) => {
            let request = PauseRequest {
                resources,
                length: arguments.length,
                reason: arguments.reason.clone(),
                by,
            };
            let status =
                agent_or_record::change_own_state(&no_agent, |cycle| cycle.pause(&request))
                    .map_err(one)?;
            terminal.message("no agent is running: the pause is written down for the next one");
            status
        }
    };
    terminal.data(&text(&status, crate::sys::clock::now()))?;
    Ok(0)
}

/// What is paused, as people read it.
pub(super) fn text(status: &Status, now: Timestamp) -> String {
    if status.paused.is_empty() {
        return "nothing is paused\n".to_owned();
    }
    status
        .paused
        .iter()
        .map(|pause| {
            let what = match &pause.resource {
                Some(id) => id.to_string(),
                None => format!("host {}", status.host),
            };
            let left = crate::cli::terminal::duration(pause.until.duration_since(now));
            format!(
                "paused {what} until {} ({left}) by {}: {}\n",
                moment(pause.until),
                pause.by,
                pause.reason
            )
        })
        .collect()
}

/// Who asks, by the name people know: sudo says who it was before.
pub(super) fn who() -> String {
    let name = std::env::var("SUDO_USER")
        .ok()
        .filter(|name| !name.is_empty());
    name.unwrap_or_else(|| match nix::unistd::geteuid() {
        root if root.is_root() => "root".to_owned(),
        other => format!("user {other}"),
    })
}

pub(super) fn parse_length(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time such as 30m, 2h or '1d 12h'".to_owned();
    let (days, rest) = split_days(text.trim()).ok_or_else(wrong)?;
    let rest: SignedDuration = match rest {
        "" if days > 0 => SignedDuration::ZERO,
        rest => rest.parse().map_err(|_| wrong())?,
    };
    let rest = Duration::try_from(rest).map_err(|_| wrong())?;
    Ok(rest.saturating_add(Duration::from_secs(days * 24 * 60 * 60)))
}

/// Takes the leading number of days off. They have 24 hours: nobody means that a pause is shorter when the clocks go forward.
fn split_days(text: &str) -> Option<(u64, &str)> {
    let number_ends = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(number_ends);
    let unit_ends = rest
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_ends);
    match unit {
        "d" | "day" | "days" => Some((u64::from(number.parse::<u32>().ok()?), rest.trim_start())),
        _ => Some((0, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycle::situation::{Beginnings, Situation};
    use crate::model::{Kind, ResourceId};
    use crate::report::status::Pause;

    #[track_caller]
    fn check_length(text: &str, expected_secs: Option<u64>) {
        let length = parse_length(text).ok();
        assert_eq!(
            length.map(|length| length.as_secs()),
            expected_secs,
            "{text}"
        );
    }

    #[test]
    fn a_length_has_a_unit_and_may_be_in_days() {
        check_length("2h", Some(7200));
        check_length("90s", Some(90));
        check_length("1h 30m", Some(5400));
        check_length("3d", Some(259_200));
        check_length("1d 12h", Some(129_600));
        check_length("1day 12h", Some(129_600));
        check_length("2", None);
        check_length("-2h", None);
        check_length("d", None);
        check_length("for ever", None);
        check_length("", None);
    }

    #[test]
    fn what_is_paused_is_told_with_its_end_and_its_author() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let pause = |resource| Pause {
            resource,
            since: at(0),
            until: at(7200),
            by: "alice".into(),
            reason: "moving the database".into(),
        };
        let situation = Situation {
            paused: vec![
                pause(None),
                pause(Some(ResourceId::new(Kind::File, "/etc/motd"))),
            ],
            ..Situation::default()
        };
        let status = situation.status("gw-lag-02", &mut Beginnings::new(), None, at(0));
        insta::assert_snapshot!(text(&status, at(10)), @r"
        paused host gw-lag-02 until 1970-01-01 02:00:00 UTC (119 min) by alice: moving the database
        paused file:/etc/motd until 1970-01-01 02:00:00 UTC (119 min) by alice: moving the database
        ");
    }
}
