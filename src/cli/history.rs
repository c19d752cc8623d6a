//! `limpet history`: the audit trail of this host.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::cli::terminal::{self, Terminal, ago, moment};
use crate::cli::{CommandResult, agent_or_record};
use crate::control::{Reply, Request};
use crate::report::history::{Change, Event, History, Run};
use crate::report::journal::short;

/// Show what was done on this host: when, by which revision, and who signed it
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// How many runs to show, the newest first
    #[arg(short = 'n', long = "number", value_name = "N", default_value = "20")]
    number: std::num::NonZeroUsize,
    /// Show what a revision changed on this host, or how a resource changed over time, with the differences in content
    #[arg(long, value_name = "REV|RESOURCE")]
    diff: Option<String>,
}

/// How many changes of one run are shown where no diff was asked for.
const CHANGES_SHOWN: usize = 12;

/// Runs the command.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let request = Request::History {
        limit: arguments.number.get(),
        about: arguments.diff.clone(),
    };
    let history = match agent_or_record::ask(&request) {
        Ok(Reply::History { history }) => *history,
        Ok(other) => return Err(vec![agent_or_record::unexpected(&other)]),
        Err(no_agent) => agent_or_record::own_memory(&no_agent)?
            .history(arguments.number.get(), arguments.diff.as_deref())
            .map_err(|failure| vec![failure])?,
    };
    if arguments.json {
        terminal.data(&terminal::json(&history)?)?;
    } else {
        let whole = arguments.diff.is_some();
        terminal.show(&text(&history, crate::sys::clock::now(), whole))?;
    }
    Ok(0)
}

/// The history as people read it; `whole`, with every change.
pub fn text(history: &History, now: Timestamp, whole: bool) -> String {
    let mut out = String::new();
    for run in &history.runs {
        if !out.is_empty() {
            out.push('\n');
        }
        write_run(&mut out, run, now, whole);
    }
    if history.runs.is_empty() {
        let _ = writeln!(out, "nothing was done on {} yet", history.host);
    } else if history.more {
        let _ = writeln!(out, "\nthere is more: limpet history -n N");
    }
    out
}

fn write_run(out: &mut String, run: &Run, now: Timestamp, whole: bool) {
    let mark = match (run.event, run.outcome.as_str()) {
        (Event::Refused | Event::Mistaken | Event::RolledBack | Event::WentBack, _)
        | (_, "failed") => '✗',
        (Event::DriftCorrected | Event::Paused | Event::Resumed | Event::LetThrough, _) => '○',
        (Event::Repaired | Event::Adopted | Event::TrustSet, _) => '○',
        (Event::Applied, _) => '●',
    };
    if matches!(run.event, Event::Paused | Event::Resumed) {
        return write_pause(out, mark, run, now);
    }
    let failed = if run.event == Event::Applied && run.outcome == "failed" {
        ", with failures"
    } else {
        ""
    };
    let at = if run.event == Event::DriftCorrected {
        " at"
    } else {
        ""
    };
    let _ = writeln!(
        out,
        "{mark} {} ({})  {}{at} {}{failed}",
        moment(run.at),
        ago(run.at, now),
        run.event.as_str(),
        short(&run.revision),
    );
    if run.event != Event::DriftCorrected {
        if let Some(subject) = &run.subject {
            let _ = writeln!(out, "    {subject}");
        }
        match (&run.signer, run.event) {
            (Some(signer), Event::Refused) => {
                let _ = writeln!(out, "    claims to be signed by {signer}");
            }
            (Some(signer), _) => {
                let _ = writeln!(out, "    signed by {signer}");
            }
            (None, _) => {}
        }
    }
    if !run.detail.is_empty() {
        let _ = writeln!(out, "    {}", run.detail);
    }
    let shown = if whole { usize::MAX } else { CHANGES_SHOWN };
    for change in run.changes.iter().take(shown) {
        write_change(out, change);
    }
    if let Some(left) = run
        .changes
        .len()
        .checked_sub(shown)
        .filter(|left| *left > 0)
    {
        let _ = writeln!(
            out,
            "    … and {left} more: limpet history --diff {}",
            short(&run.revision)
        );
    }
    if run.event == Event::Applied && run.changes.is_empty() && run.detail.is_empty() {
        let _ = writeln!(out, "    nothing had to be changed");
    }
}

/// A pause begins or ends: no revision does it, and nothing is changed.
fn write_pause(out: &mut String, mark: char, run: &Run, now: Timestamp) {
    let (at, ago, event) = (moment(run.at), ago(run.at, now), run.event.as_str());
    let mut line = |what: &str, why: &str| {
        let _ = writeln!(out, "{mark} {at} ({ago})  {event} {what}: {why}");
    };
    if run.changes.is_empty() {
        line("this host", &run.detail);
    }
    for change in &run.changes {
        line(&change.resource.to_string(), &change.detail);
    }
}

fn write_change(out: &mut String, change: &Change) {
    let mark = match (change.outcome.as_str(), change.action.as_str()) {
        ("done", "create" | "install" | "enable" | "start") => '+',
        ("done", "delete" | "remove" | "disable" | "stop" | "mask") => '-',
        ("done", _) => '~',
        _ => '!',
    };
    let _ = match (change.outcome.as_str(), change.detail.as_str()) {
        ("done", "") => writeln!(out, "    {mark} {} {}", change.action, change.resource),
        ("done", fields) => writeln!(
            out,
            "    {mark} {} {} ({fields})",
            change.action, change.resource
        ),
        (outcome, error) => writeln!(
            out,
            "    {mark} {} {} {outcome}: {error}",
            change.action, change.resource
        ),
    };
    for line in change.diff.iter().flat_map(|diff| diff.lines()) {
        let _ = writeln!(out, "        {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, ResourceId};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_161_600 + second).unwrap()
    }

    fn change(action: &str, kind: Kind, name: &str, outcome: &str, detail: &str) -> Change {
        Change {
            at: at(0),
            resource: ResourceId::new(kind, name),
            action: action.into(),
            reason: "differs".into(),
            outcome: outcome.into(),
            detail: detail.into(),
            diff: None,
        }
    }

    fn run(second: i64, event: Event, revision: &str, changes: Vec<Change>) -> Run {
        Run {
            at: at(second),
            event,
            revision: revision.repeat(4),
            subject: None,
            signer: None,
            outcome: "done".into(),
            detail: String::new(),
            changes,
        }
    }

    #[test]
    fn a_history_reads_like_a_log() {
        let mut corrected = change("update", Kind::File, "/etc/motd", "done", "content");
        corrected.diff = Some("@@ -1 +1 @@\n-somebody was here\n+managed\n".into());
        let history = History {
            host: "gw-1".into(),
            more: true,
            runs: vec![
                Run {
                    subject: Some("open the firewall".into()),
                    signer: Some("SHA256:evil".into()),
                    detail: "refused revision 77ab012: signer 'SHA256:evil' is not listed".into(),
                    ..run(7200, Event::Refused, "77ab0129c3", vec![])
                },
                run(3660, Event::DriftCorrected, "9f3c2ab5d2", vec![corrected]),
                Run {
                    subject: Some("raise ntp pool size".into()),
                    signer: Some("alice (SHA256:pQ2x)".into()),
                    outcome: "failed".into(),
                    detail: "1 not as declared".into(),
                    ..run(
                        60,
                        Event::Applied,
                        "9f3c2ab5d2",
                        vec![
                            change("create", Kind::File, "/etc/motd", "done", ""),
                            change(
                                "install",
                                Kind::Package,
                                "ngnix",
                                "failed",
                                "E: Unable to locate package ngnix",
                            ),
                            change(
                                "restart",
                                Kind::Unit,
                                "nginx.service",
                                "skipped",
                                "package:ngnix failed",
                            ),
                        ],
                    )
                },
                run(0, Event::Applied, "0123456789", vec![]),
            ],
        };
        insta::assert_snapshot!(text(&history, at(7260), true), @r"
        ✗ 2026-11-20 10:00:00 UTC (60 s ago)  refused 77ab012
            open the firewall
            claims to be signed by SHA256:evil
            refused revision 77ab012: signer 'SHA256:evil' is not listed

        ○ 2026-11-20 09:01:00 UTC (60 min ago)  drift corrected at 9f3c2ab
            ~ update file:/etc/motd (content)
                @@ -1 +1 @@
                -somebody was here
                +managed

        ✗ 2026-11-20 08:01:00 UTC (2 h ago)  applied 9f3c2ab, with failures
            raise ntp pool size
            signed by alice (SHA256:pQ2x)
            1 not as declared
            + create file:/etc/motd
            ! install package:ngnix failed: E: Unable to locate package ngnix
            ! restart unit:nginx.service skipped: package:ngnix failed

        ● 2026-11-20 08:00:00 UTC (2 h ago)  applied 0123456
            nothing had to be changed

        there is more: limpet history -n N
        ");
    }

    #[test]
    fn a_pause_is_told_as_one() {
        let mut motd = change("resumed", Kind::File, "/etc/motd", "done", "by root");
        motd.reason.clear();
        let history = History {
            host: "gw-1".into(),
            more: false,
            runs: vec![
                run(60, Event::Resumed, "9f3c2ab5d2", vec![motd]),
                Run {
                    detail: "moving racks".into(),
                    ..run(0, Event::Paused, "9f3c2ab5d2", vec![])
                },
            ],
        };
        insta::assert_snapshot!(text(&history, at(60), false), @r"
        ○ 2026-11-20 08:01:00 UTC (0 s ago)  resumed file:/etc/motd: by root

        ○ 2026-11-20 08:00:00 UTC (60 s ago)  paused this host: moving racks
        ");
    }

    #[test]
    fn a_long_run_is_shortened_unless_asked_about() {
        let changes = (0..CHANGES_SHOWN + 3)
            .map(|n| change("create", Kind::File, &format!("/srv/{n}"), "done", ""))
            .collect();
        let history = History {
            host: "gw-1".into(),
            more: false,
            runs: vec![run(0, Event::Applied, "9f3c2ab5d2", changes)],
        };
        let shortened = text(&history, at(1), false);
        assert!(
            shortened.ends_with("… and 3 more: limpet history --diff 9f3c2ab\n"),
            "{shortened}"
        );
        assert!(text(&history, at(1), true).contains("/srv/14"));
    }
}
