//! Answers from what is remembered, given beside the worker: looking waits for nobody who changes the machine.

use std::path::Path;

use crate::config::Config;
use crate::control::{Reply, Request};
use crate::cycle::look::Memory;
use crate::model::{Class, Failure};
use crate::report::status::Status;
use crate::sys::Host;

/// Answers `request`, which `uid` makes, whatever the worker is doing.
pub(super) fn answer(request: &Request, config: Config, status: &Status, uid: u32) -> Reply {
    let look = || -> Result<Reply, Vec<Failure>> {
        let memory =
            Memory::open(Host::new(Path::new("/")), config).map_err(|failure| vec![failure])?;
        match request {
            Request::History { limit, about } => {
                let history = memory.history(*limit, about.as_deref());
                let history = Box::new(history.map_err(|failure| vec![failure])?);
                Ok(Reply::History { history })
            }
            Request::Why { resource } => {
                let explanation = memory.explain(resource.as_deref(), status, uid == 0)?;
                let explanation = Box::new(explanation);
                Ok(Reply::Why { explanation })
            }
            _ => Err(Vec::new()),
        }
    };
    look().unwrap_or_else(|failures| Reply::Failed {
        failure: failures.into_iter().next().unwrap_or_else(|| {
            Failure::new(Class::Bug, "the request is not about what is remembered")
        }),
    })
}
