//! `limpet recover`: what `limpet-recover.service` runs when the agent cannot start; from the last good program, not the installed one.

use std::path::Path;
use std::time::Duration;

use tracing::{Level, info, warn};

use crate::cli::CommandResult;
use crate::config;
use crate::model::{Class, Failure};
use crate::recovery::start::{self, Ended};
use crate::recovery::taken_back::{self, TakenBack};
use crate::recovery::{self, Facts, Verdict, kept};
use crate::report::journal;
use crate::sys::{Host, clock};

/// How often to look whether another limpet has ended.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Goes back to the last limpet that worked, where the installed one cannot start.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

/// Runs the command.
pub fn run(_arguments: &Arguments) -> CommandResult {
    journal::start(Level::INFO, std::env::var_os("JOURNAL_STREAM").is_some());
    let host = Host::new(Path::new("/"));
    recover(&host).map(|()| 0).map_err(|failure| vec![failure])
}

fn recover(host: &Host) -> Result<(), Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err(
            Failure::new(Class::Host, "the recovery must run as root").with_hint(
                "it is started by limpet.service; 'systemctl start limpet-recover' does it by hand",
            ),
        );
    }
    if !wait_for_others(host)? {
        return Ok(());
    }
    let ended = Ended::read(host)?;
    // It names the package manager, where it does.
    let configured = super::host_config(host);
    let kept = kept::read(host).unwrap_or_else(|failure| {
        warn!("{failure}");
        None
    });
    let installed = recovery::installed_version(host).unwrap_or_else(|failure| {
        warn!("{failure}");
        None
    });
    let facts = Facts {
        kept: kept.as_ref(),
        installed: installed.as_deref(),
        program: kept::hash(host, config::PROGRAM)?,
        blames_configuration: ended.blames_configuration(),
        is_configuration_wrong: configured.is_err(),
    };
    let because = ended.in_words();
    let version = installed.as_deref().unwrap_or("of an unknown version");
    match (recovery::decide(&facts), &kept) {
        (Verdict::Wait, _) => {
            info!("the agent waits until its host configuration is put right");
            return Ok(());
        }
        (Verdict::PutBack, Some(kept)) => {
            recovery::put_program_back(host, kept)?;
            let taken = TakenBack {
                version: kept.version.clone(),
                to: kept.version.clone(),
                because,
                revision: None,
                at: clock::now(),
                put_back: None,
            };
            taken_back::write(host, &taken)?;
            warn!("{}", taken.in_words());
        }
        (Verdict::TakeBack, Some(kept)) => {
            warn!(
                "limpet {version} cannot start ({because}), going back to {}",
                kept.version
            );
            // Whatever could not be done: what was done is better than an agent that does not run.
            match recovery::take_back(host, kept, version, &because, true) {
                Ok(taken) => warn!("{}", taken.in_words()),
                Err(failure) => warn!("failed to go back completely: {failure}"),
            }
        }
        (Verdict::StartAgain | Verdict::PutBack | Verdict::TakeBack, _) => {
            let pause = start::next_pause(host);
            let seconds = pause.as_secs();
            warn!("the agent failed again and again ({because}), starting it again in {seconds} s");
            std::thread::sleep(pause);
        }
    }
    start::again(host)
}

/// Waits until no package transaction and no `limpet apply` is at work; false when the agent runs by then.
fn wait_for_others(host: &Host) -> Result<bool, Failure> {
    loop {
        // The installation of what cannot start may still be going on; its result is left for the agent to read.
        for unit in host.find_transactions()? {
            host.await_transaction(&unit)?;
        }
        let ended = Ended::read(host)?;
        // A newer systemd starts us at each failure, and not again at the last one, while we still run: that one is waited for.
        if ended.is_trying {
            std::thread::sleep(LOOK_AGAIN);
            continue;
        }
        if ended.is_up {
            return Ok(false);
        }
        match host.lock(config::LOCK_FILE) {
            Ok(_lock) => return Ok(true),
            Err(failure) if failure.class == Class::Transient => std::thread::sleep(LOOK_AGAIN),
            Err(failure) => {
                warn!("{failure}");
                return Ok(true);
            }
        }
    }
}
