//! `limpet rollback`: back to a revision that was good on this host.

use std::time::Duration;

use crate::cli::pause::{parse_length, who};
use crate::cli::terminal::Terminal;
use crate::cli::{CommandResult, agent_or_record, sync};
use crate::control::{Reply, Request};
use crate::cycle::rollback::RollbackRequest;
use crate::model::{Class, Failure};
use crate::report::status::Status;

/// Go back to the last good revision, until a newer commit arrives
#[derive(Debug, clap::Args)]
#[command(
    after_help = "What is trusted stays: only what is in force goes back. 'limpet sync --retry' ends it before its time."
)]
pub struct Arguments {
    /// Another revision than the last good one before the one in force: an ancestor of the trusted one
    #[arg(long, value_name = "REV")]
    to: Option<String>,
    /// For how long at most, such as 8h or 2d (default: until a newer commit arrives)
    #[arg(long = "for", value_name = "TIME", value_parser = parse_length)]
    length: Option<Duration>,
    /// What the next person should know
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Runs the command.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let one = |failure: Failure| vec![failure];
    let by = who();
    let request = Request::Rollback {
        to: arguments.to.clone(),
        for_secs: arguments.length.map(|length| length.as_secs()),
        reason: arguments.reason.clone(),
        by: by.clone(),
    };
    match agent_or_record::converse(&request, &mut |message| terminal.message(message)) {
        Ok(Reply::Status { status }) => {
            terminal.message(&sync::summary(&status));
            Ok(exit_code(&status))
        }
        Ok(other) => Err(vec![agent_or_record::unexpected(&other)]),
        Err(no_agent) => {
            let request = RollbackRequest {
                to: arguments.to.clone(),
                length: arguments.length,
                reason: arguments.reason.clone(),
                by,
            };
            agent_or_record::change_own_state(&no_agent, |cycle| cycle.roll_back_to(&request))
                .map_err(one)?;
            terminal.message("no agent is running: the rollback is written down for the next one");
            Ok(Class::Transient.exit_code())
        }
    }
}

/// It was asked for, so that having gone back is no failure; what went wrong on the way is.
fn exit_code(status: &Status) -> u8 {
    if status.has("paused") {
        Class::Transient.exit_code()
    } else {
        u8::from(status.has("degraded") || status.has("held"))
    }
}
