//! Jobs: the starts, stops, restarts and reloads that systemd carries out.
//!
//! All jobs of a batch are enqueued together and awaited together; the result of each is what systemd says when it removes the job.

use std::cell::RefCell;
use std::pin::Pin;
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use zbus::message::Type;
use zbus::wire::{OwnedObjectPath, OwnedVariant};
use zbus::{Connection, MatchRule, MessageStream};

use crate::sys::systemd::{
    ANSWER_LIMIT, BUS_NAME, CallError, Error, MANAGER, MANAGER_PATH, PROPERTIES, Systemd, call,
};

const JOB: &str = "org.freedesktop.systemd1.Job";

/// How often a job is looked for that may have ended unseen, while the bus was away.
const JOB_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Starts it; nothing to do when it is active.
    Start,
    /// Stops it.
    Stop,
    /// Restarts it, or starts it.
    Restart,
    /// Restarts it if it is active.
    TryRestart,
    /// Reloads it if it is active, or restarts it where it cannot reload.
    ReloadOrTryRestart,
}

impl Verb {
    fn method(self) -> &'static str {
        match self {
            Verb::Start => "StartUnit",
            Verb::Stop => "StopUnit",
            Verb::Restart => "RestartUnit",
            Verb::TryRestart => "TryRestartUnit",
            Verb::ReloadOrTryRestart => "ReloadOrTryRestartUnit",
        }
    }
}

/// A job to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What to do.
    pub verb: Verb,
    /// To which unit.
    pub unit: String,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobResult {
    /// It was carried out.
    Done,
    /// systemd's word for why it was not: `failed`, `timeout`, `dependency`, `canceled`, …
    Failed(String),
    /// It ended while nobody could see it; the unit's state tells.
    Unseen,
    /// It still runs after the time that we wait.
    Unfinished,
}

impl JobResult {
    /// Was it carried out, as far as can be known.
    pub fn is_done(&self) -> bool {
        matches!(self, JobResult::Done | JobResult::Unseen)
    }
}

/// Where one job stands while a batch runs.
#[derive(Debug)]
enum JobProgress {
    NotEnqueued,
    Enqueued(OwnedObjectPath),
    Ended(Result<JobResult, Error>),
}

impl Systemd {
    /// Enqueues all jobs in the order given, then waits until each has ended, at most for `limit`. One result per job.
    pub fn run_jobs(&self, jobs: &[Job], limit: Duration) -> Vec<Result<JobResult, Error>> {
        if jobs.is_empty() {
            return Vec::new();
        }
        let progress: RefCell<Vec<JobProgress>> =
            RefCell::new(jobs.iter().map(|_| JobProgress::NotEnqueued).collect());
        // Kept outside of the operation: when the bus goes away in between, what was enqueued is not enqueued again.
        let finished = self.run(limit + ANSWER_LIMIT, async |connection| {
            follow_jobs(&connection, jobs, limit, &progress).await
        });
        progress
            .into_inner()
            .into_iter()
            .map(|progress| match (progress, &finished) {
                (JobProgress::Ended(result), _) => result,
                (_, Err(error)) => Err(error.clone()),
                (_, Ok(())) => Ok(JobResult::Unfinished),
            })
            .collect()
    }
}

/// Enqueues what is not enqueued yet, and writes down how each job ends.
async fn follow_jobs(
    connection: &Connection,
    jobs: &[Job],
    limit: Duration,
    progress: &RefCell<Vec<JobProgress>>,
) -> Result<(), CallError> {
    // systemd sends signals only to those who subscribed, and the signal can come before the answer to StartUnit.
    match call::<_, ()>(connection, MANAGER_PATH, MANAGER, "Subscribe", &()).await {
        Err(CallError::Answered(Error::Refused { name, .. }))
            if name == "org.freedesktop.systemd1.AlreadySubscribed" => {}
        other => other?,
    }
    let mut removed = removed_jobs(connection).await?;
    for (index, job) in jobs.iter().enumerate() {
        if matches!(progress.borrow()[index], JobProgress::NotEnqueued) {
            let body = (job.unit.as_str(), "replace");
            let method = job.verb.method();
            let enqueued = call(connection, MANAGER_PATH, MANAGER, method, &body).await;
            progress.borrow_mut()[index] = match enqueued {
                Ok(path) => JobProgress::Enqueued(path),
                Err(CallError::Answered(error)) => JobProgress::Ended(Err(error)),
                Err(lost) => return Err(lost),
            };
        }
    }
    let deadline = Instant::now() + limit;
    loop {
        let pending = enqueued_jobs(progress);
        if pending.is_empty() || Instant::now() >= deadline {
            return Ok(());
        }
        let next_look = deadline.min(Instant::now() + JOB_CHECK_INTERVAL);
        match tokio::time::timeout_at(next_look, removed.recv()).await {
            Ok(Some((path, result))) => end_job(progress, &path, result),
            Ok(None) => return Err(CallError::Lost("the bus closed the connection".to_owned())),
            Err(_elapsed) => {
                for path in pending {
                    let state = call::<_, OwnedVariant>(
                        connection,
                        path.as_str(),
                        PROPERTIES,
                        "Get",
                        &(JOB, "State"),
                    )
                    .await;
                    match state {
                        Ok(_still_there) => {}
                        Err(CallError::Answered(_)) => {
                            // Its signal may be waiting in the queue: that says more.
                            while let Ok((path, result)) = removed.try_recv() {
                                end_job(progress, &path, result);
                            }
                            end_job(progress, &path, JobResult::Unseen);
                        }
                        Err(lost) => return Err(lost),
                    }
                }
            }
        }
    }
}

fn enqueued_jobs(progress: &RefCell<Vec<JobProgress>>) -> Vec<OwnedObjectPath> {
    progress
        .borrow()
        .iter()
        .filter_map(|progress| match progress {
            JobProgress::Enqueued(path) => Some(path.clone()),
            _ => None,
        })
        .collect()
}

/// Writes down how the job at `path` ended. Two requests for one unit can share a job.
fn end_job(progress: &RefCell<Vec<JobProgress>>, path: &OwnedObjectPath, result: JobResult) {
    for progress in progress.borrow_mut().iter_mut() {
        if matches!(progress, JobProgress::Enqueued(enqueued) if enqueued == path) {
            *progress = JobProgress::Ended(Ok(result.clone()));
        }
    }
}

/// The jobs that end from now on, read by a task so that a full queue never holds up the answers behind it.
async fn removed_jobs(
    connection: &Connection,
) -> Result<mpsc::UnboundedReceiver<(OwnedObjectPath, JobResult)>, CallError> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(BUS_NAME)
        .interface(MANAGER)
        .member("JobRemoved")
        .build()?;
    let mut signals = MessageStream::for_match_rule(rule, connection, None).await?;
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let signal = tokio::select! {
                () = sender.closed() => break, // nobody waits any longer
                signal = next_signal(&mut signals) => signal,
            };
            let Some(Ok(signal)) = signal else { break };
            let body = signal.body();
            let Ok((_id, path, _unit, result)) =
                body.deserialize::<(u32, OwnedObjectPath, &str, &str)>()
            else {
                continue;
            };
            let result = match result {
                "done" => JobResult::Done,
                other => JobResult::Failed(other.to_owned()),
            };
            if sender.send((path, result)).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

async fn next_signal(signals: &mut MessageStream) -> Option<zbus::Result<zbus::Message>> {
    std::future::poll_fn(|context| Pin::new(&mut *signals).poll_next(context)).await
}
