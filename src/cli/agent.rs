//! `limpet agent`: what `limpet.service` starts.

use std::path::Path;

use tracing::Level;

use crate::cli::CommandResult;
use crate::config::{self, Config};
use crate::cycle::Cycle;
use crate::fetch::client::{Client, Upstream};
use crate::model::{Class, Failure};
use crate::report::journal;
use crate::sys::Host;

/// Runs as the daemon that keeps this host as declared.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Log what is looked at, too
    #[arg(long)]
    debug: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> CommandResult {
    let stderr_is_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    journal::start(
        if arguments.debug {
            Level::DEBUG
        } else {
            Level::INFO
        },
        stderr_is_journal,
    );
    serve().or_else(|failures| {
        // Said in the journal with its priority; stderr would only repeat it there.
        for failure in &failures {
            match &failure.hint {
                Some(hint) => tracing::error!("{failure} (hint: {hint})"),
                None => tracing::error!("{failure}"),
            }
        }
        Ok(failures
            .first()
            .map_or(Class::Bug, |failure| failure.class)
            .exit_code())
    })
}

fn serve() -> Result<u8, Vec<Failure>> {
    let host = Host::new(Path::new("/"));
    if !nix::unistd::geteuid().is_root() {
        return Err(vec![
            Failure::new(Class::Host, "the agent must run as root")
                .with_hint("start it with 'systemctl start limpet'"),
        ]);
    }
    let one = |failure: Failure| vec![failure];
    let config = super::host_config(&host)?;
    let _lock = host.lock(config::LOCK_FILE).map_err(one)?;
    let machine_id = host.read_machine_id().map_err(one)?;
    let listener = host
        .listen(config::CONTROL_SOCKET, 0o660, config::OPERATORS_GROUP)
        .map_err(one)?;
    // What a killed agent was writing for itself would lie there until something is written beside it.
    if let Err(failure) = host.sweep([config::STATE_DIRECTORY, config::ORIGINALS_DIRECTORY]) {
        tracing::debug!("failed to sweep limpet's own directories, ignoring: {failure}");
    }
    // What a killed agent was running for itself is of no use to anybody; package transactions are another matter.
    if let Err(failure) = host.clear_leftover_commands() {
        tracing::debug!("failed to clear left-over commands, ignoring: {failure}");
    }
    let connect =
        || Ok(Box::new(Client::connect(Path::new(config::FETCH_SOCKET))?) as Box<dyn Upstream>);
    let mut cycle = Cycle::open(host, config, Box::new(connect)).map_err(one)?;
    cycle.watch_the_fetcher();
    let reload =
        || -> Result<Config, Vec<Failure>> { super::host_config(&Host::new(Path::new("/"))) };
    crate::agent::run(cycle, listener, &machine_id, reload).map_err(one)?;
    Ok(0)
}
