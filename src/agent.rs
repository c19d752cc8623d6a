//! The daemon: when a cycle runs, and who is told about it.
//!
//! The loop waits for a tick, a nudge over the control socket, a signal, or news from the worker. The *worker* is one thread that
//! owns the machine and does one job at a time; what waits for it waits here, what a person asks for first. The loop itself never
//! blocks and never touches the machine.
//!
//! Invariant: this file and those below it are the ones of the applier that know tokio. The agent may be killed at any moment: all that
//! matters is in state.db before the machine changes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as worker_queue};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tracing::debug;

use crate::apply::Activity;
use crate::config::Config;
use crate::control::{Reply, Request};
use crate::cycle::pause::PauseRequest;
use crate::cycle::rollback::RollbackRequest;
use crate::cycle::set_trust::TrustRequest;
use crate::cycle::{Cycle, Trigger};
use crate::model::{Class, Failure};
use crate::report::journal::short;
use crate::report::moment;
use crate::report::status::{Condition, State, Status, who_must_act};
use crate::schedule;
use crate::sys::clock;

mod clients;
mod memory;
mod worker;

use clients::{Asked, Client, Line, MAX_CLIENTS};
use worker::{Change, Job, News, Outlook, work};

/// How many clients may read the history, or have something explained, at a time; more wait.
const MAX_READERS: usize = 2;

/// How long the worker may be silent before the watchdog is no longer fed, unless it announced a longer step.
const LONGEST_SILENCE: Duration = Duration::from_secs(120);

/// How long it may be silent while it plans: a slow card with many gigabytes to hash.
const PLAN_SILENCE: Duration = Duration::from_secs(60 * 60);

/// What the worker is doing.
struct Doing {
    what: Work,
    since: Instant,
    /// Until when it may be silent.
    until: Instant,
}

enum Work {
    /// A cycle, with who waits for its end.
    Cycle(Vec<Client>),
    /// A plan, with who asked for it.
    Plan(Vec<Client>),
    Change(Client),
    Reload,
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
    /// Set while something waits for the worker: then it waits for no check.
    interruption: Arc<AtomicBool>,
    /// Places for those who look at what is remembered.
    readers: Arc<Semaphore>,
    machine_id: String,
    interval: Duration,
    jobs: worker_queue::Sender<Job>,
    news: mpsc::UnboundedReceiver<News>,
    asked: mpsc::Receiver<Asked>,
    status: Status,
    /// When the interval passes next.
    next_tick: Instant,
    /// Until when no tick polls.
    rests_until: Instant,
    /// When a pause ends.
    pause_ends: Option<Instant>,
    /// What the worker is doing; none while it is idle.
    doing: Option<Doing>,
    /// The host configuration is to be read anew.
    must_reload: bool,
    /// What root changes, in the order it was asked for; as many as there are clients, at most.
    changes: VecDeque<(Change, Client)>,
    /// A cycle that is to be run next, and who waits for it.
    next_trigger: Option<Trigger>,
    /// Who lets through what is held, in the next cycle.
    let_through_by: Option<String>,
    waiting: Vec<Client>,
    /// Who asked for a plan. One plan answers all who asked before it was begun.
    planners: Vec<Client>,
    /// Until when no plan is made for others than root: after each one the worker is left alone for as long as it took, so that
    /// nobody who may only look keeps it busy.
    plans_rest_until: Instant,
}

impl Agent {
    fn start(
        mut cycle: Cycle,
        listener: std::os::unix::net::UnixListener,
        machine_id: &str,
        reload: impl Fn() -> Result<Config, Vec<Failure>> + Send + 'static,
    ) -> Result<Self, Failure> {
        let interval = cycle.interval();
        let interruption = cycle.interruption();
        let status = cycle.first_status();
        let outlook = Outlook::of(&cycle, status.clone());
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
        tokio::spawn(clients::accept(listener, ask));
        let now = Instant::now();
        let mut agent = Agent {
            config,
            interruption,
            readers: Arc::new(Semaphore::new(MAX_READERS)),
            machine_id: machine_id.to_owned(),
            interval,
            jobs,
            news,
            asked,
            status,
            next_tick: now,
            rests_until: now,
            pause_ends: None,
            doing: None,
            must_reload: false,
            changes: VecDeque::new(),
            next_trigger: None,
            let_through_by: None,
            waiting: Vec::new(),
            planners: Vec::new(),
            plans_rest_until: now,
        };
        agent.take_outlook(outlook);
        agent.set_next_tick();
        Ok(agent)
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
        loop {
            self.start_next()?;
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => {
                    notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now().unwrap_or(NotifyState::Reloading)]);
                    self.must_reload = true;
                }
                _ = watchdog.tick() => {
                    if self.doing.as_ref().is_none_or(|doing| Instant::now() < doing.until) {
                        notify(&[NotifyState::Watchdog]);
                    }
                }
                _ = tokio::time::sleep_until(self.next_wake()) => self.wake(),
                Some(asked) = self.asked.recv() => self.answer(asked),
                news = self.news.recv() => match news {
                    Some(news) => self.take(news),
                    None => return Err(Failure::new(Class::Bug, "the worker ended")),
                },
            }
        }
        notify(&[NotifyState::Stopping]);
        Ok(())
    }

    /// When something comes by itself.
    fn next_wake(&self) -> Instant {
        let mut wake = self.next_tick;
        if let Some(end) = self.pause_ends {
            wake = wake.min(end);
        }
        if !self.planners.is_empty() && self.doing.is_none() {
            wake = wake.min(self.plans_rest_until);
        }
        wake
    }

    /// Begins what comes by itself now.
    fn wake(&mut self) {
        let now = Instant::now();
        if self.next_tick <= now {
            self.begin(Trigger::Tick);
            self.set_next_tick();
        }
        if self.pause_ends.is_some_and(|end| end <= now) {
            self.pause_ends = None;
            self.begin(Trigger::Look);
        }
    }

    fn set_next_tick(&mut self) {
        let phase = schedule::phase(&self.machine_id, self.interval);
        let wait = schedule::until_next(clock::now(), self.interval, phase);
        self.next_tick = Instant::now() + wait;
    }

    /// The status, with the time of the next poll as it is now.
    fn status(&self) -> Status {
        let now = Instant::now();
        let wait = schedule::until_tick_after(
            self.rests_until.saturating_duration_since(now),
            self.next_tick.saturating_duration_since(now),
            self.interval,
        );
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        Status {
            next_poll_at: clock::now().checked_add(wait).ok(),
            ..self.status.clone()
        }
    }

    /// Has a cycle run now, or after what is running.
    fn begin(&mut self, trigger: Trigger) {
        let is_in_a_cycle =
            matches!(&self.doing, Some(doing) if matches!(doing.what, Work::Cycle(_)));
        if trigger == Trigger::Tick && is_in_a_cycle {
            // A tick that finds a cycle still running is not made up for.
            return;
        }
        // What one of several asks for is done once for all.
        let weight = |trigger: Trigger| match trigger {
            Trigger::Look => 0,
            Trigger::Tick => 1,
            Trigger::Start => 2,
            Trigger::Nudge { .. } => 3,
        };
        let both = match (self.next_trigger, trigger) {
            (
                Some(Trigger::Nudge {
                    allow_removals,
                    retry,
                }),
                Trigger::Nudge {
                    allow_removals: also,
                    retry: again,
                },
            ) => Trigger::Nudge {
                allow_removals: allow_removals || also,
                retry: retry || again,
            },
            (Some(waiting), _) if weight(waiting) > weight(trigger) => waiting,
            _ => trigger,
        };
        self.next_trigger = Some(both);
    }

    /// Gives the worker its next job, when it is idle and there is one.
    fn start_next(&mut self) -> Result<(), Failure> {
        if self.doing.is_some() {
            let is_wanted =
                self.must_reload || !self.changes.is_empty() || self.next_trigger.is_some();
            self.interruption.store(is_wanted, Ordering::Relaxed);
            return Ok(());
        }
        self.interruption.store(false, Ordering::Relaxed);
        let (job, what, silence) = if std::mem::take(&mut self.must_reload) {
            (Job::Reload, Work::Reload, LONGEST_SILENCE)
        } else if let Some((change, client)) = self.changes.pop_front() {
            (Job::Change(change), Work::Change(client), LONGEST_SILENCE)
        } else if let Some(trigger) = self.next_trigger.take() {
            let waiting = std::mem::take(&mut self.waiting);
            let by = self.let_through_by.take();
            (
                Job::Cycle(trigger, by),
                Work::Cycle(waiting),
                LONGEST_SILENCE,
            )
        } else if self.may_plan() {
            let planners = std::mem::take(&mut self.planners);
            (Job::Plan, Work::Plan(planners), PLAN_SILENCE)
        } else {
            return Ok(());
        };
        let now = Instant::now();
        self.doing = Some(Doing {
            what,
            since: now,
            until: now + silence,
        });
        self.jobs
            .send(job)
            .map_err(|_| Failure::new(Class::Bug, "the worker ended"))
    }

    /// Is there somebody for whom a plan is to be made now.
    fn may_plan(&mut self) -> bool {
        self.planners.retain(|client| !client.is_gone());
        let is_root_waiting = self.planners.iter().any(|client| client.uid == 0);
        let is_due = Instant::now() >= self.plans_rest_until;
        is_root_waiting || (is_due && !self.planners.is_empty())
    }

    /// Takes news from the worker.
    fn take(&mut self, news: News) {
        let (news, done) = match news {
            News::Progress { activity, within } => {
                if let Some(doing) = &mut self.doing {
                    doing.until = Instant::now() + within.max(LONGEST_SILENCE);
                }
                if activity != Activity::Looking {
                    self.tell(&activity);
                }
                return;
            }
            news => (news, self.doing.take()),
        };
        match news {
            News::Progress { .. } => {}
            News::Planned(plan) => {
                let now = Instant::now();
                let line = Line::of(&Reply::Plan { plan });
                if let Some(Doing {
                    what: Work::Plan(clients),
                    since,
                    ..
                }) = done
                {
                    self.plans_rest_until = now + now.duration_since(since);
                    for client in clients {
                        client.send(line.clone());
                    }
                }
            }
            News::Changed {
                result,
                outlook,
                is_to_be_applied,
            } => {
                self.take_outlook(outlook);
                if let Some(Doing {
                    what: Work::Change(client),
                    ..
                }) = done
                {
                    match result {
                        Ok(()) => {
                            match is_to_be_applied {
                                true => self.waiting.push(client),
                                false => drop(client.answer(&self.status_reply())),
                            }
                            // What a pause kept back is made up for, and what it keeps from now on shows.
                            self.begin(Trigger::Look);
                        }
                        Err(failure) => client.refuse(failure),
                    }
                }
            }
            News::Finished(outlook) => {
                let is_on_probation = outlook.is_on_probation;
                self.take_outlook(outlook);
                if is_on_probation {
                    show_applying(&mut self.status, "the revision is on probation");
                }
                notify(&[NotifyState::Status(&one_line(&self.status))]);
                if let Some(Doing {
                    what: Work::Cycle(clients),
                    ..
                }) = done
                {
                    if is_on_probation {
                        // They wait until it has passed or is undone.
                        self.waiting.extend(clients);
                        return self.begin(Trigger::Look);
                    }
                    let line = Line::of(&self.status_reply());
                    for client in clients {
                        client.send(line.clone());
                    }
                }
            }
            News::Reloaded { interval, outlook } => {
                self.take_outlook(outlook);
                notify(&[NotifyState::Ready]);
                if let Some(interval) = interval {
                    self.interval = interval;
                    self.set_next_tick();
                    self.begin(Trigger::Tick);
                }
            }
        }
    }

    fn take_outlook(&mut self, outlook: Outlook) {
        let now = Instant::now();
        self.status = *outlook.status;
        self.rests_until = now + outlook.rest;
        // A little later, so that it is over by then whichever way it is counted.
        self.pause_ends = outlook
            .pause
            .map(|left| now + left + Duration::from_secs(1));
    }

    fn status_reply(&self) -> Reply {
        Reply::Status {
            status: Box::new(self.status()),
        }
    }

    /// Tells everybody who waits what is being done.
    fn tell(&mut self, activity: &Activity) {
        let message = activity.to_string();
        notify(&[NotifyState::Status(&message)]);
        match activity {
            Activity::Applying(what) => show_applying(&mut self.status, what),
            Activity::Checking(_) => show_applying(&mut self.status, &message),
            Activity::Polling | Activity::Looking => {}
        }
        if let Some(Doing {
            what: Work::Cycle(clients),
            ..
        }) = &mut self.doing
        {
            let line = Line::of(&Reply::Progress { message });
            clients.retain(|client| client.send(line.clone()));
        }
    }

    /// Answers beside the worker: looking waits for nobody who changes the machine.
    fn look(&self, request: Request, client: Client) {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let (config, status) = (config.clone(), self.status());
        let readers = self.readers.clone();
        tokio::spawn(async move {
            let Ok(_place) = readers.acquire().await else {
                return;
            };
            if client.is_gone() {
                return;
            }
            let uid = client.uid;
            let look = move || memory::answer(&request, config, &status, uid);
            if let Ok(reply) = tokio::task::spawn_blocking(look).await {
                client.answer(&reply);
            }
        });
    }

    fn answer(&mut self, asked: Asked) {
        let Asked { request, client } = asked;
        if request.is_change() && client.uid != 0 {
            let failure = Failure::new(
                Class::Host,
                format!(
                    "user {} may look, but only root may change this host",
                    client.uid
                ),
            );
            return client.refuse(failure.with_hint("run it with sudo"));
        }
        match request {
            Request::Status => {
                client.answer(&self.status_reply());
            }
            Request::History { .. } | Request::Why { .. } => self.look(request, client),
            Request::Plan => self.planners.push(client),
            Request::Sync {
                wait,
                allow_removals,
                by,
                retry,
            } => {
                if wait {
                    self.waiting.push(client);
                } else if let Some(failure) = paused(&self.status) {
                    client.refuse(failure);
                } else {
                    client.answer(&Reply::Accepted);
                }
                if allow_removals {
                    self.let_through_by = Some(by).filter(|by| !by.is_empty());
                }
                self.begin(Trigger::Nudge {
                    allow_removals,
                    retry,
                });
            }
            Request::Rollback {
                to,
                for_secs,
                reason,
                by,
            } => {
                let rollback = Change::Rollback(RollbackRequest {
                    to,
                    length: for_secs.map(Duration::from_secs),
                    reason,
                    by,
                });
                self.changes.push_back((rollback, client));
            }
            Request::Trust { commit, reason, by } => {
                let trust = Change::Trust(TrustRequest { commit, reason, by });
                self.changes.push_back((trust, client));
            }
            Request::Pause {
                resources,
                for_secs,
                reason,
                by,
            } => {
                let pause = Change::Pause(PauseRequest {
                    resources,
                    length: Duration::from_secs(for_secs),
                    reason,
                    by,
                });
                self.changes.push_back((pause, client));
            }
            Request::Resume { resources, by } => {
                self.changes
                    .push_back((Change::Resume { resources, by }, client));
            }
        }
    }
}

/// The failure for who asks for a change of a host that is paused.
fn paused(status: &Status) -> Option<Failure> {
    let pause = status
        .paused
        .iter()
        .find(|pause| pause.resource.is_none())?;
    let message = format!(
        "the source is polled, but nothing is changed: this host is paused until {} by {}: {}",
        moment(pause.until),
        pause.by,
        pause.reason
    );
    Some(Failure::new(Class::Transient, message).with_hint("'limpet resume' ends the pause"))
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
            "{} at {}: {} of {} resources as declared, polled {}",
            status.state.as_str(),
            short(revision),
            status.resources.converged,
            status.resources.total,
            moment(at),
        ),
        None => format!(
            "{}: no revision applied yet, polled {}",
            status.state.as_str(),
            moment(at)
        ),
    }
}
