//! `limpet resume`: end a pause before its time.

use jiff::Timestamp;

use crate::cli::terminal::Terminal;
use crate::cli::{CommandResult, agent_or_record, pause};
use crate::control::{Reply, Request};
use crate::model::{Failure, ResourceId};
use crate::report::status::Status;

/// End a pause before its time
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What to go on with, as it was paused: kind:name, or a bare path, unit or package (default: the whole host)
    #[arg(value_name = "RESOURCE")]
    resources: Vec<String>,
}

/// What goes on, and what is still paused. Where nothing was, nothing goes on either: that is no mistake, and the answer is as true.
fn text(resources: &[ResourceId], status: &Status, now: Timestamp) -> String {
    let names: Vec<String> = resources.iter().map(ToString::to_string).collect();
    let what = match names.is_empty() {
        true => format!("host {}", status.host),
        false => names.join(", "),
    };
    match status.paused.is_empty() {
        true => format!("{what} is not paused any more\n"),
        false => format!(
            "{what} is not paused any more; still\n{}",
            pause::text(status, now)
        ),
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let one = |failure: Failure| vec![failure];
    let resources = &agent_or_record::resources(&arguments.resources)?;
    let by = pause::who();
    let request = Request::Resume {
        resources: resources.clone(),
        by: by.clone(),
    };
    let status = match agent_or_record::ask(&request) {
        Ok(Reply::Status { status }) => *status,
        Ok(other) => return Err(vec![agent_or_record::unexpected(&other)]),
        Err(no_agent) => {
            agent_or_record::change_own_state(&no_agent, |cycle| cycle.resume(resources, &by))
                .map_err(one)?
        }
    };
    let now = crate::sys::clock::now();
    terminal.data(&text(resources, &status, now))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycle::situation::{Beginnings, Situation};
    use crate::model::Kind;
    use crate::report::status::Pause;

    #[test]
    fn what_goes_on_is_told_with_what_does_not() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let motd = ResourceId::new(Kind::File, "/etc/motd");
        let mut situation = Situation::default();
        let status =
            |situation: &Situation| situation.status("gw-1", &mut Beginnings::new(), None, at(0));
        insta::assert_snapshot!(text(&[], &status(&situation), at(0)), @"host gw-1 is not paused any more");
        situation.paused.push(Pause {
            resource: None,
            since: at(0),
            until: at(7200),
            by: "alice".into(),
            reason: "moving the database".into(),
        });
        insta::assert_snapshot!(text(&[motd], &status(&situation), at(10)), @r"
        file:/etc/motd is not paused any more; still
        paused host gw-1 until 1970-01-01 02:00:00 UTC (119 min) by alice: moving the database
        ");
    }
}
