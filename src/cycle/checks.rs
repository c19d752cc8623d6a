//! Asking the health checks of a revision: beside the worker, some at a time, while what is in force is enforced as ever.
//!
//! Invariant: what asks has a limit, and ends early where somebody wants the worker for something else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::info;

use crate::apply::Activity;
use crate::config::ApplyMode;
use crate::cycle::{Connect, Cycle, InForce, Progress};
use crate::fetch::Upstream;
use crate::fetch::protocol::{Probe as Asked, Seen, Target};
use crate::kinds::health::{self, DesiredHealth, Network, Probe, When};
use crate::kinds::sysctl;
use crate::model::{Class, Failure, Kind, ResourceId};
use crate::report::journal;
use crate::sys::Host;

/// How many checks are asked at a time.
const AT_A_TIME: usize = 8;

/// By when the source must answer after something touched the way to it: networks and resolvers take a while to come back.
const SOURCE_WITHIN: Duration = Duration::from_secs(60);

/// How long a check may be silent beyond its own time.
pub(super) const CHECK_GRACE: Duration = Duration::from_secs(180);

impl Cycle {
    /// Asks all checks, and returns what does not hold; nothing where somebody wants something else first. What is in force is
    /// enforced meanwhile as ever.
    pub(super) fn run_checks(
        &mut self,
        checks: &[DesiredHealth],
        progress: Progress<'_>,
    ) -> Option<Vec<Failure>> {
        let Some(longest) = checks.iter().map(|check| check.within).max() else {
            return Some(Vec::new());
        };
        let names: Vec<String> = checks.iter().map(|check| check.id.to_string()).collect();
        let rounds = u32::try_from(checks.len().div_ceil(AT_A_TIME)).unwrap_or(u32::MAX);
        let silence = longest.saturating_mul(rounds) + CHECK_GRACE;
        let activity = Activity::Checking(names.join(", "));
        progress(&activity, silence);
        let (tell, answers) = mpsc::channel();
        let (root, connect) = (self.host.root().to_owned(), Arc::clone(&self.connect));
        let interruption = Arc::clone(&self.trial.interruption);
        let asked = checks.to_vec();
        let ask = move || {
            let results = ask_all(&root, &connect, &asked, &interruption);
            let _ = tell.send(results);
        };
        if let Err(error) = std::thread::Builder::new()
            .name("health".to_owned())
            .spawn(ask)
        {
            let message = format!("failed to ask the checks: {error}");
            return Some(vec![Failure::new(Class::Bug, message)]);
        }
        loop {
            match answers.recv_timeout(self.interval()) {
                Ok(results) => return results,
                Err(RecvTimeoutError::Disconnected) => {
                    return Some(vec![Failure::new(
                        Class::Bug,
                        "failed to ask the checks: one panicked",
                    )]);
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.end_pauses();
                    self.enforce_what_is_in_force(false, progress);
                    progress(&activity, silence);
                }
            }
        }
    }

    /// Is there a check that must hold before anything of `in_force` is applied, and does not.
    pub(super) fn must_wait(&mut self, in_force: &InForce) -> bool {
        let is_known = self
            .applied
            .as_ref()
            .is_some_and(|applied| applied.is(in_force))
            || self
                .trial
                .probation
                .as_ref()
                .is_some_and(|probation| probation.is_of(in_force))
            || self.is_rollback(in_force);
        let is_due = !is_known
            && !self.trial.is_off
            && !self.is_paused()
            && self.config.apply.mode == ApplyMode::Enforce;
        let before: Vec<&DesiredHealth> = in_force
            .desired
            .health
            .iter()
            .filter(|check| is_due && check.when.is_before())
            .collect();
        let network = Fetcher::new(Arc::clone(&self.connect));
        let failure = before
            .into_iter()
            .find_map(|check| health::holds(&self.host, &network, check).err());
        let waits = failure.is_some();
        let failure = failure.map(|failure| Failure {
            class: Class::Transient,
            message: format!(
                "revision {} waits: {}",
                journal::short(&in_force.revision),
                failure.message
            ),
            ..failure
        });
        if let Some(failure) = failure
            .as_ref()
            .filter(|failure| Some(*failure) != self.situation.waiting.as_ref())
        {
            info!(limpet_revision = %in_force.revision, "{failure}");
        }
        self.situation.waiting = failure;
        if !waits {
            self.trial.stand_in = None;
        }
        waits
    }
}

/// The checks that are asked after an apply and after boot.
pub(super) fn after(in_force: &InForce) -> impl Iterator<Item = &DesiredHealth> {
    in_force
        .desired
        .health
        .iter()
        .filter(|check| check.when.is_after())
}

/// The check that arms itself.
pub(super) fn source_check() -> DesiredHealth {
    DesiredHealth {
        id: source_id(),
        probe: Probe::Source,
        when: When::After,
        within: SOURCE_WITHIN,
        stable: Duration::ZERO,
        rolls_back: true,
    }
}

pub(super) fn source_id() -> ResourceId {
    ResourceId::new(Kind::Health, "limpet-source")
}

impl Cycle {
    /// Has the fetcher look at the parameters of the kernel that belong to the host's network: ours is another.
    pub(super) fn look_at_network(&self, observed: &mut sysctl::Observed) {
        if observed.elsewhere.is_empty() {
            return;
        }
        let names: Vec<String> = observed.elsewhere.iter().cloned().collect();
        let connect = self.connect.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = connect().and_then(|fetcher| fetcher.sysctls(&names));
        drop(connect);
        let told = |seen| match seen {
            Seen::Value(value) => Ok(Some(value)),
            Seen::Missing => Ok(None),
            Seen::Unreadable(cause) => Err(Failure::new(Class::Host, cause)),
        };
        match seen {
            Ok(seen) => {
                for (name, seen) in names.iter().zip(seen) {
                    observed.take(name, told(seen));
                }
            }
            Err(failure) => {
                for name in &names {
                    observed.take(name, Err(failure.clone()));
                }
            }
        }
    }
}

/// Asks all checks, some at a time; nothing where it was interrupted.
fn ask_all(
    root: &std::path::Path,
    connect: &Arc<Mutex<Connect>>,
    checks: &[DesiredHealth],
    interruption: &AtomicBool,
) -> Option<Vec<Failure>> {
    let host = Host::new(root);
    let is_wanted = || !interruption.load(Ordering::Relaxed);
    let mut failures = Vec::new();
    for some in checks.chunks(AT_A_TIME) {
        let results: Vec<_> = std::thread::scope(|scope| {
            let ask = |check| {
                let network = Fetcher::new(Arc::clone(connect));
                let (host, is_wanted) = (&host, &is_wanted);
                scope.spawn(move || health::check(host, &network, check, is_wanted))
            };
            let asking: Vec<_> = some.iter().map(ask).collect();
            asking
                .into_iter()
                .map(|thread| thread.join().ok())
                .collect()
        });
        for (check, result) in some.iter().zip(results) {
            match result {
                Some(Some(Ok(()))) => {}
                Some(Some(Err(failure))) => failures.push(failure),
                Some(None) => return None,
                None => failures.push(
                    Failure::new(
                        Class::Bug,
                        format!("failed to ask {}: it panicked", check.id),
                    )
                    .about(check.id.clone()),
                ),
            }
        }
    }
    Some(failures)
}

/// The network, as the fetcher has it.
struct Fetcher {
    connect: Arc<Mutex<Connect>>,
    client: Mutex<Option<Box<dyn Upstream>>>,
}

impl Fetcher {
    fn new(connect: Arc<Mutex<Connect>>) -> Self {
        Fetcher {
            connect,
            client: Mutex::default(),
        }
    }
}

impl Network for Fetcher {
    fn probe(&self, probe: &Probe, limit: Duration) -> Result<(), Failure> {
        let target = match probe {
            Probe::Http(url) => Target::Http(url.clone()),
            Probe::Tcp(address) => Target::Tcp(address.clone()),
            Probe::Source => Target::Source,
            Probe::Unit(_) | Probe::Command(_) => {
                return Err(Failure::new(
                    Class::Bug,
                    "failed to ask the network: it is no matter of it",
                ));
            }
        };
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match &*client {
            Some(known) => known,
            None => {
                let connect = self.connect.lock().unwrap_or_else(PoisonError::into_inner);
                client.insert(connect()?)
            }
        };
        known.probe(&Asked { target, limit_ms })
    }
}
