//! The daemon: when a cycle runs, and who is told about it.
//!
//! The loop waits for a tick, a nudge over the control socket, a signal, or news from the worker. The *worker* is one thread that
//! owns the machine and runs one cycle at a time; the loop itself never blocks and never touches the machine.
//!
//! Invariant: this is the one file of the applier that knows tokio. It may be killed at any moment: all that matters is in state.db
//! before the machine changes.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc as worker_queue};
use std::time::Duration;

use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::apply::Activity;
use crate::config::Config;
use crate::control::{MAX_REQUEST_BYTES, Reply, Request};
use crate::cycle::look::Memory;
use crate::cycle::{Cycle, Trigger};
use crate::model::{Class, Failure};
use crate::report::journal::short;
use crate::report::preview::Preview;
use crate::report::status::{Condition, State, Status, who_must_act};
use crate::schedule;
use crate::sys::{Host, clock};

/// How many clients may be connected at a time; more are turned away.
const MAX_CLIENTS: usize = 64;

/// How many of them may be others than root, so that members of the operators' group cannot keep root out.
const MAX_OTHER_CLIENTS: usize = 16;

/// How many clients may read the history, or have something explained, at a time; more wait.
const MAX_READERS: usize = 2;

/// How long a client may take to send its request, and to read a reply.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the worker may be silent before the watchdog is no longer fed, unless it announced a longer step.
const LONGEST_SILENCE: Duration = Duration::from_secs(120);

/// What the loop asks of the worker.
enum Job {
    Cycle(Trigger),
    Plan(mpsc::Sender<Reply>),
    Reload,
}

/// What the worker tells the loop.
enum News {
    Progress {
        activity: Activity,
        within: Duration,
    },
    Planned {
        preview: Box<Preview>,
        asked_by: mpsc::Sender<Reply>,
    },
    Finished(Box<Status>),
    Reloaded {
        interval: Option<Duration>,
        status: Box<Status>,
    },
}

/// A request and where its replies go.
struct Asked {
    request: Request,
    uid: u32,
    replies: mpsc::Sender<Reply>,
}

/// Runs until a signal ends it. `reload` reads the host configuration anew.
pub fn run(
    cycle: Cycle,
    listener: std::os::unix::net::UnixListener,
    machine_id: &str,
    reload: impl Fn() -> Result<Config, Vec<Failure>> + Send + 'static,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::new(
                Class::Host,
                format!("failed to start the event loop: {error}"),
            )
        })?;
    runtime.block_on(async {
        let agent = Agent::start(cycle, listener, machine_id, reload)?;
        agent.serve().await
    })
}

struct Agent {
    /// The configuration that the worker uses.
    config: Arc<Mutex<Config>>,
    /// Places for those who look at what is remembered.
    readers: Arc<Semaphore>,
    machine_id: String,
    interval: Duration,
    jobs: worker_queue::Sender<Job>,
    news: mpsc::UnboundedReceiver<News>,
    asked: mpsc::Receiver<Asked>,
    status: Status,
    /// Until when the worker may be silent; none while it is idle.
    busy_until: Option<Instant>,
    /// A nudge that came while a cycle was running, to be run next.
    next_trigger: Option<Trigger>,
    /// Who waits for the running cycle, and who for the next one.
    waiting: Vec<mpsc::Sender<Reply>>,
    waiting_for_next: Vec<mpsc::Sender<Reply>>,
}

impl Agent {
    fn start(
        mut cycle: Cycle,
        listener: std::os::unix::net::UnixListener,
        machine_id: &str,
        reload: impl Fn() -> Result<Config, Vec<Failure>> + Send + 'static,
    ) -> Result<Self, Failure> {
        let interval = cycle.interval();
        let status = cycle.first_status();
        let config = Arc::new(Mutex::new(cycle.config().clone()));
        let known = config.clone();
        let (jobs, job_queue) = worker_queue::channel();
        let (tell, news) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("worker".to_owned())
            .spawn(move || work(cycle, &known, &job_queue, &tell, &reload))
            .map_err(|error| {
                Failure::new(Class::Host, format!("failed to start the worker: {error}"))
            })?;
        let (ask, asked) = mpsc::channel(MAX_CLIENTS);
        listener.set_nonblocking(true).map_err(|error| {
            Failure::new(
                Class::Host,
                format!("failed to use the control socket: {error}"),
            )
        })?;
        tokio::spawn(accept(listener, ask));
        Ok(Agent {
            config,
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            machine_id: machine_id.to_owned(),
            interval,
            jobs,
            news,
            asked,
            status,
            busy_until: None,
            next_trigger: None,
            waiting: Vec::new(),
            waiting_for_next: Vec::new(),
        })
    }

    async fn serve(mut self) -> Result<(), Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(
                    Class::Host,
                    format!("failed to listen for signals: {error}"),
                )
            })
        };
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut hang_up = listen(SignalKind::hangup())?;
        let mut watchdog = tokio::time::interval(
            sd_notify::watchdog_enabled().map_or(LONGEST_SILENCE, |limit| limit / 2),
        );

        notify(&[NotifyState::Ready]);
        self.begin(Trigger::Start);
        let mut next_poll = Instant::now() + self.until_next_poll();
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Reloading)]);
                    self.send(Job::Reload)?;
                }
                _ = watchdog.tick() => {
                    if self.busy_until.is_none_or(|limit| Instant::now() < limit) {
                        notify(&[NotifyState::Watchdog]);
                    }
                }
                _ = tokio::time::sleep_until(next_poll) => {
                    self.begin(Trigger::Tick);
                    next_poll = Instant::now() + self.until_next_poll();
                }
                Some(asked) = self.asked.recv() => self.answer(asked)?,
                news = self.news.recv() => match news {
                    Some(news) => {
                        if self.take(news)? {
                            next_poll = Instant::now() + self.until_next_poll();
                        }
                    }
                    None => return Err(Failure::new(Class::Bug, "the worker ended")),
                },
            }
        }
        notify(&[NotifyState::Stopping]);
        Ok(())
    }

    fn until_next_poll(&mut self) -> Duration {
        let now = clock::now();
        let wait = schedule::until_next(
            now,
            self.interval,
            schedule::phase(&self.machine_id, self.interval),
        );
        self.status.next_poll_at = now.checked_add(wait).ok();
        wait
    }

    /// Starts a cycle now, or after the running one.
    fn begin(&mut self, trigger: Trigger) {
        if self.busy_until.is_some() {
            // A tick that finds a cycle still running is not made up for; a nudge is.
            if trigger.is_nudge() {
                // What one of several nudges allows is allowed.
                let waiting = self.next_trigger.filter(|waiting| {
                    *waiting
                        == Trigger::Nudge {
                            allow_removals: true,
                        }
                });
                self.next_trigger = Some(waiting.unwrap_or(trigger));
            }
            return;
        }
        self.busy_until = Some(Instant::now() + LONGEST_SILENCE);
        if self.send(Job::Cycle(trigger)).is_err() {
            debug!("the worker is gone; its news channel will say so");
        }
    }

    fn send(&self, job: Job) -> Result<(), Failure> {
        self.jobs
            .send(job)
            .map_err(|_| Failure::new(Class::Bug, "the worker ended"))
    }

    /// Takes news from the worker; true when the interval changed.
    fn take(&mut self, news: News) -> Result<bool, Failure> {
        match news {
            News::Progress { activity, within } => {
                self.busy_until = Some(Instant::now() + within.max(LONGEST_SILENCE));
                if activity != Activity::Looking {
                    self.tell(&activity);
                }
            }
            News::Planned { preview, asked_by } => {
                let _ = asked_by.try_send(Reply::Plan { plan: preview });
            }
            News::Finished(status) => {
                self.take_status(*status);
                self.busy_until = None;
                notify(&[NotifyState::Status(&one_line(&self.status))]);
                for client in self.waiting.drain(..) {
                    let _ = client.try_send(Reply::Status {
                        status: Box::new(self.status.clone()),
                    });
                }
                if let Some(trigger) = self.next_trigger.take() {
                    self.waiting = std::mem::take(&mut self.waiting_for_next);
                    self.begin(trigger);
                }
            }
            News::Reloaded { interval, status } => {
                self.take_status(*status);
                notify(&[NotifyState::Ready]);
                if let Some(interval) = interval {
                    self.interval = interval;
                    self.begin(Trigger::Tick);
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Tells everybody who waits what is being done.
    fn tell(&mut self, activity: &Activity) {
        let message = activity.to_string();
        notify(&[NotifyState::Status(&message)]);
        if let Activity::Applying(what) = activity {
            show_applying(&mut self.status, what);
        }
        let reply = Reply::Progress { message };
        self.waiting
            .retain(|client| client.try_send(reply.clone()).is_ok());
    }

    /// Answers beside the worker: looking waits for nobody who changes the machine.
    fn look(&self, request: Request, uid: u32, replies: mpsc::Sender<Reply>) {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let (config, status) = (config.clone(), self.status.clone());
        let readers = self.readers.clone();
        tokio::spawn(async move {
            let Ok(_place) = readers.acquire().await else {
                return;
            };
            let look = move || answer_from_memory(&request, config, &status, uid);
            if let Ok(reply) = tokio::task::spawn_blocking(look).await {
                let _ = replies.try_send(reply);
            }
        });
    }

    fn take_status(&mut self, status: Status) {
        let next_poll_at = self.status.next_poll_at;
        self.status = Status {
            next_poll_at,
            ..status
        };
    }

    fn answer(&mut self, asked: Asked) -> Result<(), Failure> {
        let Asked {
            request,
            uid,
            replies,
        } = asked;
        match request {
            Request::Status => {
                let _ = replies.try_send(Reply::Status {
                    status: Box::new(self.status.clone()),
                });
            }
            Request::Plan => self.send(Job::Plan(replies))?,
            Request::History { .. } | Request::Why { .. } => self.look(request, uid, replies),
            Request::Sync { .. } if uid != 0 => {
                let failure = Failure::new(
                    Class::Host,
                    format!("user {uid} may look, but only root may change this host"),
                )
                .with_hint("run it with sudo");
                let _ = replies.try_send(Reply::Failed { failure });
            }
            Request::Sync {
                wait,
                allow_removals,
            } => {
                let is_busy = self.busy_until.is_some();
                if !wait {
                    let _ = replies.try_send(Reply::Accepted);
                } else if is_busy {
                    self.waiting_for_next.push(replies);
                } else {
                    self.waiting.push(replies);
                }
                self.begin(Trigger::Nudge { allow_removals });
            }
        }
        Ok(())
    }
}

/// Answers from what is remembered, whatever the worker is doing.
fn answer_from_memory(request: &Request, config: Config, status: &Status, uid: u32) -> Reply {
    let answer = || -> Result<Reply, Vec<Failure>> {
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
    answer().unwrap_or_else(|failures| Reply::Failed {
        failure: failures.into_iter().next().unwrap_or_else(|| {
            Failure::new(Class::Bug, "the request is not about what is remembered")
        }),
    })
}

/// The worker: one job at a time, in the order asked.
fn work(
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
    while let Ok(job) = jobs.recv() {
        let news = match job {
            Job::Cycle(trigger) => News::Finished(Box::new(cycle.run(trigger, &progress))),
            Job::Plan(asked_by) => News::Planned {
                preview: Box::new(cycle.preview()),
                asked_by,
            },
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
                let status = Box::new(cycle.status());
                News::Reloaded { interval, status }
            }
        };
        if tell.send(news).is_err() {
            return;
        }
    }
}

/// Takes clients in, at most [`MAX_CLIENTS`] at a time.
async fn accept(listener: std::os::unix::net::UnixListener, ask: mpsc::Sender<Asked>) {
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!("failed to serve the control socket: {error}"),
    };
    let all = Arc::new(Semaphore::new(MAX_CLIENTS));
    let others = Arc::new(Semaphore::new(MAX_OTHER_CLIENTS));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Ok(uid) = stream.peer_cred().map(|peer| peer.uid()) else {
                    continue;
                };
                let place = match uid {
                    0 => None,
                    _ => Some(others.clone().try_acquire_owned()),
                };
                let (Ok(place), Ok(of_all)) = (place.transpose(), all.clone().try_acquire_owned())
                else {
                    debug!("turned a client of user {uid} away: too many are connected");
                    continue;
                };
                let ask = ask.clone();
                tokio::spawn(async move {
                    let _places = (place, of_all);
                    if let Err(error) = converse(stream, uid, ask).await {
                        debug!("a client of the control socket was lost, ignoring: {error}");
                    }
                });
            }
            Err(error) => {
                debug!("failed to take a client in, ignoring: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One request, its replies, and goodbye.
async fn converse(stream: UnixStream, uid: u32, ask: mpsc::Sender<Asked>) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    let mut limited = BufReader::new(reader.take(MAX_REQUEST_BYTES));
    tokio::time::timeout(CLIENT_TIMEOUT, limited.read_until(b'\n', &mut line)).await??;
    let (replies, mut answers) = mpsc::channel(64);
    match serde_json::from_slice(&line) {
        Ok(request) => {
            let asked = Asked {
                request,
                uid,
                replies,
            };
            if ask.send(asked).await.is_err() {
                return Ok(());
            }
        }
        Err(error) => {
            let failure = Failure::new(
                Class::Host,
                format!("the request cannot be understood: {error}"),
            );
            let _ = replies.try_send(Reply::Failed { failure });
            drop(replies);
        }
    }
    while let Some(reply) = answers.recv().await {
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        tokio::time::timeout(CLIENT_TIMEOUT, writer.write_all(&line)).await??;
        if !matches!(reply, Reply::Progress { .. }) {
            break;
        }
    }
    Ok(())
}

/// Shows in the status of the last cycle that the machine is being changed now; the next cycle's status replaces it.
fn show_applying(status: &mut Status, what: &str) {
    let now = clock::now();
    if status.state > State::Applying {
        status.state = State::Applying;
        status.since = now;
    }
    let word = State::Applying.as_str();
    status
        .conditions
        .retain(|condition| condition.kind != word && condition.kind != State::Converged.as_str());
    status.conditions.push(Condition {
        kind: word.to_owned(),
        since: now,
        reason: what.to_owned(),
        who: who_must_act(Class::Transient).to_owned(),
    });
}

/// Tells systemd; without systemd nobody listens, and that is fine.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("failed to notify systemd, ignoring: {error}");
    }
}

/// The line that `systemctl status` shows.
fn one_line(status: &Status) -> String {
    let at: Timestamp = status
        .last_poll
        .as_ref()
        .map_or(status.since, |poll| poll.at);
    match &status.revision {
        Some(revision) => format!(
            "{} at {}: {} of {} resources as declared, polled {at:.0}",
            status.state.as_str(),
            short(revision),
            status.resources.converged,
            status.resources.total,
        ),
        None => format!(
            "{}: no revision applied yet, polled {at:.0}",
            status.state.as_str()
        ),
    }
}
