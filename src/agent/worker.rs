//! The worker: the thread that owns the machine, and does one job at a time.
//!
//! Invariant: it waits for nobody but the loop, and tells it of every step that may take long.

use std::sync::mpsc::{self as worker_queue, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::apply::Activity;
use crate::config::Config;
use crate::cycle::pause::PauseRequest;
use crate::cycle::rollback::RollbackRequest;
use crate::cycle::set_trust::TrustRequest;
use crate::cycle::{Cycle, Trigger};
use crate::model::{Failure, ResourceId};
use crate::report::preview::Preview;
use crate::report::status::Status;
use crate::sys::memory;

/// How long nobody may want anything of the worker before it counts as at rest.
const SOON: Duration = Duration::from_secs(1);

/// What the loop asks of the worker.
pub(super) enum Job {
    /// With who lets through what is held, where somebody does.
    Cycle(Trigger, Option<String>),
    Plan,
    Change(Change),
    Reload,
}

/// What root changes about the agent, not about the machine.
pub(super) enum Change {
    Pause(PauseRequest),
    Resume {
        resources: Vec<ResourceId>,
        by: String,
    },
    Rollback(RollbackRequest),
    Trust(TrustRequest),
}

/// What the worker tells the loop.
pub(super) enum News {
    Progress {
        activity: Activity,
        within: Duration,
    },
    Planned(Box<Preview>),
    Changed {
        result: Result<(), Failure>,
        outlook: Outlook,
        /// Who asked waits for a cycle, too.
        is_to_be_applied: bool,
    },
    Finished(Outlook),
    Reloaded {
        interval: Option<Duration>,
        outlook: Outlook,
    },
}

/// How the host is after a job, and what comes next by itself.
pub(super) struct Outlook {
    pub(super) status: Box<Status>,
    /// How long the source is left alone.
    pub(super) rest: Duration,
    /// How long until a pause ends.
    pub(super) pause: Option<Duration>,
    /// A revision is on probation: waiting for its checks was interrupted.
    pub(super) is_on_probation: bool,
}

impl Outlook {
    pub(super) fn of(cycle: &Cycle, status: Status) -> Self {
        Outlook {
            status: Box::new(status),
            rest: cycle.rest_of_the_source(),
            pause: cycle.next_end_of_a_pause(),
            is_on_probation: cycle.is_on_probation(),
        }
    }
}

/// Does one job after another, until nobody asks for more. `known` is told of another configuration.
pub(super) fn work(
    mut cycle: Cycle,
    known: &Mutex<Config>,
    jobs: &worker_queue::Receiver<Job>,
    tell: &mpsc::UnboundedSender<News>,
    reload: &dyn Fn() -> Result<Config, Vec<Failure>>,
) {
    let progress = |activity: &Activity, within: Duration| {
        let _ = tell.send(News::Progress {
            activity: activity.clone(),
            within,
        });
    };
    while let Some(job) = next(jobs) {
        let news = match job {
            Job::Cycle(trigger, by) => {
                cycle.let_through(by);
                let status = cycle.run(trigger, &progress);
                cycle.prove_program();
                News::Finished(Outlook::of(&cycle, status))
            }
            Job::Plan => News::Planned(Box::new(cycle.preview())),
            Job::Change(change) => {
                let is_to_be_applied = matches!(change, Change::Rollback(_) | Change::Trust(_));
                let result = match change {
                    Change::Pause(request) => cycle.pause(&request),
                    Change::Resume { resources, by } => cycle.resume(&resources, &by),
                    Change::Rollback(request) => cycle.roll_back_to(&request),
                    Change::Trust(request) => cycle.set_trusted_head(&request),
                };
                let status = cycle.status();
                News::Changed {
                    result,
                    outlook: Outlook::of(&cycle, status),
                    is_to_be_applied,
                }
            }
            Job::Reload => {
                let interval = match reload() {
                    Ok(config) => {
                        info!("reloaded the host configuration");
                        *known.lock().unwrap_or_else(PoisonError::into_inner) = config.clone();
                        cycle.set_config(config);
                        Some(cycle.interval())
                    }
                    Err(failures) => {
                        for failure in &failures {
                            let hint = failure.hint.as_deref().unwrap_or("put it right and reload");
                            warn!("kept the running host configuration: {failure} (hint: {hint})");
                        }
                        cycle.keep_config(failures);
                        None
                    }
                };
                let status = cycle.status();
                News::Reloaded {
                    interval,
                    outlook: Outlook::of(&cycle, status),
                }
            }
        };
        if tell.send(news).is_err() {
            return;
        }
    }
}

/// The next job. What the last one needed is given back to the system while none comes.
fn next(jobs: &worker_queue::Receiver<Job>) -> Option<Job> {
    match jobs.recv_timeout(SOON) {
        Ok(job) => Some(job),
        Err(RecvTimeoutError::Timeout) => {
            memory::give_back();
            jobs.recv().ok()
        }
        Err(RecvTimeoutError::Disconnected) => None,
    }
}
