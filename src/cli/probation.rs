//! `limpet probation`: what `limpet-probation.timer` starts while a revision is on probation.
//!
//! Invariant: where an agent is at work, it does nothing.

use std::path::Path;
use std::time::Duration;

use tracing::{Level, warn};

use crate::apply::Activity;
use crate::cli::CommandResult;
use crate::config;
use crate::cycle::{Cycle, Trigger};
use crate::fetch::client::{Client, Upstream};
use crate::model::Failure;
use crate::report::journal;
use crate::sys::Host;

/// How often the lock is tried: an agent that cannot start holds it for moments only.
const TRIES: u32 = 20;

/// Goes on with a probation where no agent is left to.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Runs the command.
pub fn run(_: &Arguments) -> CommandResult {
    journal::start(Level::INFO, std::env::var_os("JOURNAL_STREAM").is_some());
    let one = |failure: Failure| vec![failure];
    let host = Host::new(Path::new("/"));
    if !host.exists(config::PROBATION_MARK).map_err(one)? {
        return Ok(0);
    }
    let config = super::host_config(&host)?;
    let taken = (0..TRIES).find_map(|_| {
        let taken = host.lock(config::LOCK_FILE).ok();
        if taken.is_none() {
            std::thread::sleep(Duration::from_millis(500));
        }
        taken
    });
    let Some(_lock) = taken else {
        return Ok(0);
    };
    warn!("no agent is at work while a revision is on probation: asking its checks in its place");
    let connect =
        || Ok(Box::new(Client::connect(Path::new(config::FETCH_SOCKET))?) as Box<dyn Upstream>);
    let mut cycle = Cycle::open(host, config, Box::new(connect)).map_err(one)?;
    cycle.run(Trigger::Look, &|_: &Activity, _: Duration| ());
    Ok(0)
}
