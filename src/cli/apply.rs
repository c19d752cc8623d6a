//! `limpet apply --once`: one cycle without the daemon, for images, provisioning and rescue.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::Level;

use crate::apply::Activity;
use crate::cli::terminal::Terminal;
use crate::cli::{CommandResult, status};
use crate::config::{self, SourceUrl};
use crate::cycle::{Cycle, Trigger};
use crate::fetch::child::{Child, Launch};
use crate::fetch::client::Upstream;
use crate::model::{Class, Failure};
use crate::report::journal;
use crate::sys::Host;
use crate::sys::workdir::WorkDir;

/// Run one cycle without the daemon.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Run one cycle and end; without it there is nothing to do, for the daemon applies by itself
    #[arg(long, required = true)]
    once: bool,
    /// Another source than the host configuration's
    #[arg(long, value_name = "PATH|URL", value_parser = super::enroll::source_url)]
    source: Option<String>,
    /// The root directory of the machine, such as an image being built
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Apply a local path without asking who signed it
    #[arg(long, requires = "source")]
    unverified: bool,
    /// The name of the host, where the machine has no host configuration
    #[arg(long)]
    name: Option<String>,
}

/// Runs the command.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    journal::start(Level::INFO, false);
    let one = |failure: Failure| vec![failure];
    let host = Host::new(&arguments.root);
    let mut config = if arguments.unverified && !host.exists(config::CONFIG_FILE).map_err(one)? {
        let name = arguments
            .name
            .clone()
            .map_or_else(|| host.read_short_name(), Ok)
            .map_err(one)?;
        config::Config::unverified(&name)
    } else {
        super::host_config(&host)?
    };
    if let Some(name) = &arguments.name {
        config.host.name = name.clone();
    }
    if let Some(source) = &arguments.source {
        let url = SourceUrl::parse(source).map_err(one)?;
        // Another server gets no secret of this one's, and mirrors are of the repository that they are named with.
        if !url.has_authority_of(&config.source.url) {
            config.source.token = None;
            config.source.username = None;
            config.source.ssh_key = None;
        }
        config.source.mirrors.clear();
        config.source.url = url;
    }
    host.ensure_own_directory(config::STATE_DIRECTORY, 0o700)
        .map_err(one)?;
    let _lock = host.lock(config::LOCK_FILE).map_err(one)?;
    let mut source = config.source.clone();
    // The fetcher runs here, and what the host configuration names lies in the image.
    let inside = |path: &str| host.outer_path(path).to_string_lossy().into_owned();
    source.ca_file = source.ca_file.as_deref().map(inside);
    source.known_hosts = inside(&source.known_hosts);
    let unverified_path = match (&config.source.url, arguments.unverified) {
        (SourceUrl::Path(path), true) => Some(path.clone()),
        (_, true) => {
            let failure = Failure::new(Class::Config, "--unverified is for a local path only")
                .with_hint("leave it out: a remote source is believed by its signatures");
            return Err(vec![failure]);
        }
        (_, false) => None,
    };
    let launch = Launch::of_this_program(&host.outer_path(config::CACHE_DIRECTORY));
    let connect = move || Ok(Box::new(Child::spawn(&launch, &source)?) as Box<dyn Upstream>);
    let is_image = !host.is_running_system();
    let mut cycle = Cycle::open(host, config, Box::new(connect)).map_err(one)?;
    if is_image {
        cycle.leave_checks_out();
    }
    let progress = |activity: &Activity, _: Duration| {
        if *activity != Activity::Looking {
            terminal.message(&activity.to_string());
        }
    };
    let trigger = match unverified_path {
        Some(path) => {
            cycle.force_unverified(&WorkDir::open(Path::new(&path)).map_err(one)?)?;
            Trigger::Start
        }
        None => Trigger::Nudge {
            allow_removals: false,
            retry: false,
        },
    };
    let status = cycle.run(trigger, &progress);
    terminal.data(&status::text(&status, crate::sys::clock::now()))?;
    let offline = status.silence().is_some();
    Ok(match status::exit_code(&status) {
        0 if offline => Class::Transient.exit_code(),
        code => code,
    })
}
