//! `limpet plan`: what would change on this host.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::cli::terminal::{self, Terminal};
use crate::cli::{CommandResult, agent_or_record, plan_other, status};
use crate::control::{Reply, Request};
use crate::model::{Action, Class, ResourceId};
use crate::report::journal::short;
use crate::report::path_among;
use crate::report::preview::Preview;

/// Show what would change on this host, and change nothing
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends with 2 when something would change, and with 77 when nothing would and the revision is not trusted."
)]
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
    let is_of_another = arguments.source.is_some() || arguments.rev.is_some();
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
    } else if is_of_another && plan_other::is_refused(&preview) {
        Class::Refused.exit_code()
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
        let what = named(&change.resource, &change.fields);
        let report = match (change.paused, change.report) {
            (true, _) => ", paused",
            (false, true) => ", reported only",
            (false, false) => "",
        };
        let _ = writeln!(
            out,
            "  {} {} {what}, {}{report}",
            mark(change.action),
            change.action,
            change.reason
        );
        for line in change.diff.iter().flat_map(|diff| diff.lines()) {
            let _ = writeln!(out, "      {line}");
        }
    }
    for (held, next) in preview
        .held
        .iter()
        .zip(preview.held.iter().skip(1).map(Some).chain([None]))
    {
        let _ = writeln!(out, "  ! held: {} {}", held.action, held.resource);
        // What is held together is held for one reason, which is told once.
        if next.is_none_or(|next| next.reason != held.reason) {
            let _ = writeln!(out, "    because {}", held.reason);
        }
    }
    for error in &preview.errors {
        let _ = writeln!(out, "  ! {}", terminal::one_line(error));
    }
    for condition in preview.conditions.iter().filter(|condition| {
        ["agent-down", "paused", "contested"].contains(&condition.kind.as_str())
            || plan_other::is_verdict(condition)
    }) {
        let _ = writeln!(out, "  {}: {}", condition.kind, condition.reason);
    }
    let _ = match (preview.changes.len(), preview.held.len()) {
        (0, 0) if preview.errors.is_empty() => writeln!(out, "nothing to change"),
        (0, 0) => writeln!(out, "no change could be planned"),
        (1, 0) => writeln!(out, "1 change"),
        (count, 0) => writeln!(out, "{count} changes"),
        (1, held) => writeln!(out, "1 change, {held} held"),
        (count, held) => writeln!(out, "{count} changes, {held} held"),
    };
    out
}

/// A resource with what is changed of it; where that is another path than its own, the path comes first.
fn named(resource: &ResourceId, fields: &[String]) -> String {
    let (path, fields) = path_among(fields);
    let is_parent = |path: &str| {
        resource
            .name
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    let mut text = match path {
        // A directory that is made on the way.
        Some(path) if is_parent(path) => format!("{path} for {resource}"),
        Some(path) => format!("{path} of {resource}"),
        None => resource.to_string(),
    };
    if !fields.is_empty() {
        let _ = write!(text, " ({})", fields.join(", "));
    }
    text
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
                    resource: ResourceId::new(Kind::File, "/srv/app/data"),
                    action: Action::Create,
                    reason: Reason::Missing,
                    fields: vec!["/srv/app".into()],
                    diff: None,
                    report: false,
                    paused: false,
                },
                PreviewChange {
                    resource: ResourceId::new(Kind::Unit, "app.service"),
                    action: Action::Update,
                    reason: Reason::Differs,
                    fields: vec!["/etc/systemd/system/app.service".into(), "content".into()],
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
            held: ["/etc/old", "/etc/older"]
                .map(|path| PreviewHeld {
                    resource: ResourceId::new(Kind::File, path),
                    action: Action::Delete,
                    reason: "the plan removes 11 things: max_removals is 10".into(),
                })
                .to_vec(),
            errors: vec![],
            conditions: vec![],
        };
        insta::assert_snapshot!(text(&preview), @r"
        plan for edge-0042 at 77ab012
          + install package:chrony, missing
          + create /srv/app for file:/srv/app/data, missing
          ~ update /etc/systemd/system/app.service of unit:app.service (content), differs
          ~ update file:/etc/chrony/chrony.conf (content, mode), differs
              @@ -1 +1 @@
              -pool pool.ntp.org
              +pool ntp1.example.org iburst
          ! held: delete file:/etc/old
          ! held: delete file:/etc/older
            because the plan removes 11 things: max_removals is 10
        4 changes, 2 held
        ");
    }
}
