//! `limpet sync`: poll now.

use crate::cli::pause;
use crate::cli::status;
use crate::cli::terminal::{self, Terminal};
use crate::cli::{CommandResult, agent_or_record};
use crate::control::{Reply, Request};
use crate::report::status::State;

/// Poll the source now
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Where polls failed and the source is left alone for a while, it is asked all the same."
)]
pub struct Arguments {
    /// Show progress until the revision is applied or refused
    #[arg(long)]
    wait: bool,
    /// Let what is held for a person through, this once
    #[arg(long)]
    allow_removals: bool,
    /// Try a revision again that was undone here, and end a rollback
    #[arg(long)]
    retry: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let request = Request::Sync {
        wait: arguments.wait,
        allow_removals: arguments.allow_removals,
        by: pause::who(),
        retry: arguments.retry,
    };
    let reply = agent_or_record::converse(&request, &mut |message| terminal.message(message))
        .map_err(|failure| vec![failure])?;
    match reply {
        Reply::Accepted => Ok(0),
        Reply::Status { status } => {
            let offline = status.silence().is_some();
            terminal.message(&summary(&status));
            Ok(match status::exit_code(&status) {
                0 if offline => crate::model::Class::Transient.exit_code(),
                code => code,
            })
        }
        other => Err(vec![agent_or_record::unexpected(&other)]),
    }
}

/// One line for the state, and one for each thing that is wrong.
pub(super) fn summary(status: &crate::report::status::Status) -> String {
    let revision = status
        .revision
        .as_deref()
        .map_or("no revision", crate::report::journal::short);
    let mut text = match status.state {
        // It is not the revision in force that was refused.
        State::Refused => format!("refused; still at {revision}"),
        State::Held => format!("held; at {revision}"),
        state => format!("{} at {revision}", state.as_str()),
    };
    // What is no error of anybody's and yet the reason why less was done than was asked for.
    for condition in &status.conditions {
        if matches!(
            condition.kind.as_str(),
            "rolled-back" | "waiting" | "paused" | "offline" | "behind"
        ) {
            text.push_str(&format!("\n{}: {}", condition.kind, condition.reason));
        }
    }
    for error in &status.errors {
        text.push_str(&format!("\nerror: {}", terminal::one_line(error)));
        if let Some(hint) = &error.hint {
            text.push_str(&format!("\nhint: {hint}"));
        }
    }
    text
}
