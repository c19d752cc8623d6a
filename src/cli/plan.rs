//! `limpet plan`: what would change on this host.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::cli::terminal::{self, Terminal};
use crate::cli::{CommandResult, agent_or_record, plan_other, status};
use crate::control::{Reply, Request};
use crate::model::Action;
use crate::report::journal::short;
use crate::report::preview::Preview;

/// Show what would change on this host, and change nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "Ends with 2 when something would change.")]
pub struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Another revision than the one in force: a full id, the start of one this host knows, or 'tip' for what its source offers now
    rev: Option<String>,
    /// A working tree or repository on this machine instead of the source
    #[arg(long, value_name = "PATH")]
    source: Option<PathBuf>,
}

/// The exit code that says that changes are pending.
const PENDING_CHANGES: u8 = 2;

/// Runs the command.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let preview = match (&arguments.source, &arguments.rev) {
        (None, None) => match agent_or_record::ask(&Request::Plan) {
            Ok(Reply::Plan { plan }) => *plan,
            Ok(other) => return Err(vec![agent_or_record::unexpected(&other)]),
            Err(no_agent) => agent_or_record::own_preview(&no_agent)?,
        },
        (source, rev) => plan_other::preview(source.as_deref(), rev.as_deref())?,
    };
    if arguments.json {
        terminal.data(&terminal::json(&preview)?)?;
    } else {
        terminal.show(&text(&preview))?;
    }
    Ok(if !preview.changes.is_empty() || !preview.held.is_empty() {
        PENDING_CHANGES
    } else {
        status::exit_code_of(&preview.errors)
    })
}

/// The plan as people read it.
pub fn text(preview: &Preview) -> String {
    let mut out = String::new();
    let revision = preview.revision.as_deref().map_or("no revision yet", short);
    let _ = writeln!(out, "plan for {} at {revision}", preview.host);
    for change in &preview.changes {
        let fields = if change.fields.is_empty() {
            String::new()
        } else {
            format!(" ({})", change.fields.join(", "))
        };
        let report = match (change.paused, change.report) {
            (true, _) => ", paused",
            (false, true) => ", reported only",
            (false, false) => "",
        };
        let _ = writeln!(
            out,
            "  {} {} {}{fields}, {}{report}",
            mark(change.action),
            change.action,
            change.resource,
            change.reason
        );
        for line in change.diff.iter().flat_map(|diff| diff.lines()) {
            let _ = writeln!(out, "      {line}");
        }
    }
    for held in &preview.held {
        let _ = writeln!(
            out,
            "  ! held: {} {}: {}",
            held.action, held.resource, held.reason
        );
    }
    for error in &preview.errors {
        let _ = writeln!(out, "  ! {}", terminal::one_line(error));
    }
    for condition in preview.conditions.iter().filter(|condition| {
        ["agent-down", "paused"].contains(&condition.kind.as_str())
            || plan_other::is_verdict(condition)
    }) {
        let _ = writeln!(out, "  {}: {}", condition.kind, condition.reason);
    }
    let _ = match (preview.changes.len(), preview.held.len()) {
        (0, 0) if preview.errors.is_empty() => writeln!(out, "nothing to change"),
        (0, 0) => writeln!(out, "no change could be planned"),
        (1, 0) => writeln!(out, "1 change"),
        (count, 0) => writeln!(out, "{count} changes"),
        (count, held) => writeln!(out, "{count} changes, {held} held"),
    };
    out
}

fn mark(action: Action) -> char {
    match action {
        Action::Create | Action::Install | Action::Enable | Action::Start => '+',
        Action::Delete | Action::Remove | Action::Disable | Action::Stop | Action::Mask => '-',
        _ => '~',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Reason, ResourceId};
    use crate::report::preview::{PreviewChange, PreviewHeld};

    #[test]
    fn a_plan_shows_each_change_with_its_diff() {
        let preview = Preview {
            revision: Some("77ab0129c3".repeat(4)),
            host: "edge-0042".into(),
            digest: None,
            changes: vec![
                PreviewChange {
                    resource: ResourceId::new(Kind::Package, "chrony"),
                    action: Action::Install,
                    reason: Reason::Missing,
                    fields: vec![],
                    diff: None,
                    report: false,
                    paused: false,
                },
                PreviewChange {
                    resource: ResourceId::new(Kind::File, "/etc/chrony/chrony.conf"),
                    action: Action::Update,
                    reason: Reason::Differs,
                    fields: vec!["content".into(), "mode".into()],
                    diff: Some(
                        "@@ -1 +1 @@\n-pool pool.ntp.org\n+pool ntp1.example.org iburst\n".into(),
                    ),
                    report: false,
                    paused: false,
                },
            ],
            held: vec![PreviewHeld {
                resource: ResourceId::new(Kind::File, "/etc/old"),
                action: Action::Delete,
                reason: "11 removals are more than max_removals = 10".into(),
            }],
            errors: vec![],
            conditions: vec![],
        };
        insta::assert_snapshot!(text(&preview), @r"
        plan for edge-0042 at 77ab012
          + install package:chrony, missing
          ~ update file:/etc/chrony/chrony.conf (content, mode), differs
              @@ -1 +1 @@
              -pool pool.ntp.org
              +pool ntp1.example.org iburst
          ! held: delete file:/etc/old: 11 removals are more than max_removals = 10
        2 changes, 1 held
        ");
    }
}
