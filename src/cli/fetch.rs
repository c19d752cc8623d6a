//! `limpet fetch`: the fetcher, for limpet-fetch.service and as a child of `limpet apply --once`.

use std::path::{Path, PathBuf};

use super::CommandResult;
use crate::fetch::{self, Limits, Stdin};
use crate::sys::Host;

/// The arguments of `limpet fetch`. It serves the socket that is its standard input.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The directory of the cache; a parent says it itself
    #[arg(long, value_name = "DIR", default_value = "/var/cache/limpet")]
    cache: PathBuf,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> CommandResult {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    match Stdin::take().map_err(|failure| vec![failure])? {
        Stdin::Stream(stream) => fetch::serve_parent(&stream, credentials, Limits::DEFAULT)
            .map_err(|failure| vec![failure])?,
        Stdin::Listener(listener) => {
            let config = match super::host_config(&Host::new(Path::new("/"))) {
                Ok(config) => config,
                Err(failures) => {
                    // Whoever asks is told why; a fetcher that ended instead would be started again for as long as somebody waits.
                    // It is said by whoever asked, so here it is no failure.
                    if let Some(failure) = failures.first() {
                        fetch::refuse(&listener, failure).map_err(|failure| vec![failure])?;
                    }
                    return Ok(0);
                }
            };
            fetch::confine(&config.source, &arguments.cache);
            fetch::serve(
                &config.source,
                &arguments.cache,
                credentials,
                &listener,
                Limits::DEFAULT,
            )
            .map_err(|failure| vec![failure])?;
        }
    }
    Ok(0)
}
