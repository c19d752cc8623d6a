//! `limpet resume`: end a pause before its time.

use crate::cli::terminal::Terminal;
use crate::cli::{CommandResult, agent_or_record, pause};
use crate::control::{Reply, Request};
use crate::model::{Failure, ResourceId};

/// Ends a pause before its time.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What to go on with, as it was paused (default: the whole host)
    #[arg(value_name = "RESOURCE")]
    resources: Vec<ResourceId>,
}

/// Runs the command.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let one = |failure: Failure| vec![failure];
    let resources = &arguments.resources;
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
    terminal.data(&pause::text(&status, crate::sys::clock::now()))?;
    Ok(0)
}
