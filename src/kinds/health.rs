//! Health checks: what has to hold after an apply, after boot, or before anything is applied.
//!
//! A *probe* asks once. A *check* asks until its probe has held for [`DesiredHealth::stable`], at most for [`DesiredHealth::within`].
//! It changes nothing and owns nothing, so that it is no [`crate::kinds::kind::Kind`] with a plan.
//!
//! Invariant: a check ends. Root has no network of its own, so that what goes over it is asked of a [`Network`]; units and commands
//! are asked through systemd, in the host's namespaces.

use std::time::Duration;

use crate::model::{Class, Failure, ResourceId};
use crate::sys::command::Command;
use crate::sys::systemd::{Property, PropertyName};
use crate::sys::{Host, clock};

/// How long one probe over the network may take.
pub const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// How long a probe that did not hold is let rest, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// The least that a command is given, however little of its time is left.
const SHORTEST_COMMAND: Duration = Duration::from_secs(1);

/// One declared check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredHealth {
    /// `health:name`.
    pub id: ResourceId,
    /// What is asked.
    pub probe: Probe,
    /// When it is asked.
    pub when: When,
    /// By when it must have held.
    pub within: Duration,
    /// For how long.
    pub stable: Duration,
    /// Is a revision undone that it does not hold with; else people are told, and no more.
    pub rolls_back: bool,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A GET of this address is answered with a status from 200 to 299.
    Http(String),
    /// Somebody takes connections at `host:port`.
    Tcp(String),
    /// The unit is active.
    Unit(String),
    /// The program ends with status 0.
    Command(Vec<String>),
    /// The source of the fleet answers, asked from the beginning.
    Source,
}

impl std::fmt::Display for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Probe::Http(url) => write!(f, "GET {url}"),
            Probe::Tcp(address) => write!(f, "a connection to {address}"),
            Probe::Unit(name) => f.write_str(name),
            Probe::Command(argv) => f.write_str(argv.first().map_or("a command", String::as_str)),
            Probe::Source => f.write_str("the source"),
        }
    }
}

/// When a check is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum When {
    /// After an apply and after boot.
    #[default]
    After,
    /// Before anything of a new revision is applied.
    Before,
    /// Before and after.
    Both,
}

impl When {
    /// Is it asked before an apply.
    pub fn is_before(self) -> bool {
        matches!(self, When::Before | When::Both)
    }

    /// Is it asked after an apply and after boot.
    pub fn is_after(self) -> bool {
        matches!(self, When::After | When::Both)
    }

    /// The word in TOML.
    pub fn as_str(self) -> &'static str {
        match self {
            When::After => "after",
            When::Before => "before",
            When::Both => "both",
        }
    }
}

/// Who asks what goes over the network: the fetcher, which has one.
pub trait Network {
    /// Asks once, at most for `limit`.
    fn probe(&self, probe: &Probe, limit: Duration) -> Result<(), Failure>;
}

/// What held: another value the next time means that it ended in between, and began anew.
type Epoch = Option<i64>;

/// Asks until the check has held for long enough, at most for the time it has. `is_wanted` is asked in between; where it says no,
/// nobody knows yet.
pub fn check(
    host: &Host,
    network: &dyn Network,
    health: &DesiredHealth,
    is_wanted: &dyn Fn() -> bool,
) -> Option<Result<(), Failure>> {
    let deadline = clock::instant() + health.within;
    let mut held: Option<(std::time::Instant, Epoch)> = None;
    let mut pause = PAUSES.0;
    loop {
        let begun = clock::instant();
        let left = deadline.saturating_duration_since(begun);
        let trouble = match probe(host, network, health, left) {
            Ok(epoch) => {
                let since = match held {
                    Some((since, known)) if known == epoch => since,
                    _ => begun,
                };
                held = Some((since, epoch));
                pause = PAUSES.0;
                if clock::instant().duration_since(since) >= health.stable {
                    return Some(Ok(()));
                }
                None
            }
            Err(failure) => {
                held = None;
                Some(failure)
            }
        };
        if clock::instant() >= deadline {
            return Some(Err(unhealthy(health, trouble)));
        }
        if !is_wanted() {
            return None;
        }
        std::thread::sleep(pause.min(deadline.saturating_duration_since(clock::instant())));
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Asks whether it holds now, for as long as `stable` says, and gives up the first time it does not.
pub fn holds(host: &Host, network: &dyn Network, health: &DesiredHealth) -> Result<(), Failure> {
    let begun = clock::instant();
    let mut epoch = None;
    loop {
        let found = probe(host, network, health, health.within.min(PROBE_LIMIT * 3))
            .map_err(|failure| unhealthy(health, Some(failure)))?;
        if *epoch.get_or_insert(found) != found {
            return Err(unhealthy(health, None));
        }
        let lasted = clock::instant().duration_since(begun);
        if lasted >= health.stable {
            return Ok(());
        }
        std::thread::sleep(PAUSES.1.min(health.stable - lasted));
    }
}

fn unhealthy(health: &DesiredHealth, trouble: Option<Failure>) -> Failure {
    let within = health.within.as_secs_f32();
    let (class, cause) = match trouble {
        Some(failure) => (failure.class, failure.message),
        None => (
            Class::Host,
            format!("it did not hold for {} s", health.stable.as_secs_f32()),
        ),
    };
    let class = match class {
        // That the network or a server is in trouble mends itself; that this host is unhealthy does not.
        Class::Transient => Class::Host,
        class => class,
    };
    Failure::new(
        class,
        format!("{} did not hold within {within} s: {cause}", health.id),
    )
    .about(health.id.clone())
}

fn probe(
    host: &Host,
    network: &dyn Network,
    health: &DesiredHealth,
    left: Duration,
) -> Result<Epoch, Failure> {
    match &health.probe {
        Probe::Http(_) | Probe::Tcp(_) => network
            .probe(&health.probe, left.clamp(SHORTEST_COMMAND, PROBE_LIMIT))
            .map(|()| None),
        Probe::Source => network.probe(&health.probe, left).map(|()| None),
        Probe::Unit(name) => probe_unit(host, name),
        Probe::Command(argv) => {
            let command = Command {
                argv: argv.clone(),
                time_limit: left.max(SHORTEST_COMMAND),
                inside_root: true,
                ..Command::default()
            };
            let result = host.run_outside(&command)?;
            if result.is_success() {
                return Ok(None);
            }
            let program = argv.first().map_or("", String::as_str);
            let message = format!("'{program}' {}", result.complaint());
            Err(Failure::new(Class::Host, message))
        }
    }
}

/// When the unit became active, if it is: a service that is started again and again is active each time somebody looks.
fn probe_unit(host: &Host, name: &str) -> Result<Epoch, Failure> {
    let failed =
        |error: crate::sys::systemd::Error| error.into_failure(&format!("ask for '{name}'"));
    let listed = host
        .systemd()
        .list_units(&[name.to_owned()])
        .map_err(failed)?;
    let unit = &listed[0];
    if unit.load == "not-found" {
        return Err(Failure::new(
            Class::Host,
            format!("there is no unit '{name}'"),
        ));
    }
    if !matches!(unit.active.as_str(), "active" | "reloading") {
        let message = format!("'{name}' is {} ({})", unit.active, unit.sub);
        return Err(
            Failure::new(Class::Host, message).with_hint(format!("see 'journalctl -u {name}'"))
        );
    }
    let wanted = PropertyName {
        object: &unit.object,
        interface: "Unit",
        name: "ActiveEnterTimestampMonotonic",
    };
    let values = host.systemd().properties(&[wanted]).map_err(failed)?;
    match values.into_iter().next() {
        Some(Ok(Property::Number(since))) => Ok(Some(since)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::model::Kind;

    /// Answers in turn, and then with the last answer for ever.
    struct Script(RefCell<Vec<bool>>, Cell<usize>);

    impl Script {
        fn new(answers: &[bool]) -> Self {
            Script(RefCell::new(answers.to_vec()), Cell::new(0))
        }
    }

    impl Network for Script {
        fn probe(&self, _: &Probe, _: Duration) -> Result<(), Failure> {
            self.1.set(self.1.get() + 1);
            let mut answers = self.0.borrow_mut();
            let answer = match answers.len() {
                1 => answers[0],
                _ => answers.remove(0),
            };
            answer
                .then_some(())
                .ok_or_else(|| Failure::new(Class::Transient, "connection refused"))
        }
    }

    fn health(within_ms: u64, stable_ms: u64) -> DesiredHealth {
        DesiredHealth {
            id: ResourceId::new(Kind::Health, "web"),
            probe: Probe::Tcp("127.0.0.1:80".to_owned()),
            when: When::After,
            within: Duration::from_millis(within_ms),
            stable: Duration::from_millis(stable_ms),
            rolls_back: true,
        }
    }

    fn ask(answers: &[bool], health: &DesiredHealth) -> (Option<Result<(), Failure>>, usize) {
        let host = Host::new(std::path::Path::new("/nowhere"));
        let script = Script::new(answers);
        let result = check(&host, &script, health, &|| true);
        (result, script.1.get())
    }

    #[test]
    fn a_check_waits_until_it_holds_and_has_held_for_long_enough() {
        let (result, asked) = ask(&[false, true, false, true], &health(5_000, 300));
        assert_eq!(result, Some(Ok(())));
        assert!(asked >= 5, "it began anew after the interruption: {asked}");
    }

    #[test]
    fn a_check_that_never_holds_ends_in_time_and_says_why() {
        let (result, asked) = ask(&[false], &health(300, 100));
        insta::assert_snapshot!(result.unwrap().unwrap_err(), @"health:web did not hold within 0.3 s: connection refused");
        assert!(asked >= 2, "{asked}");
        let (result, _) = ask(&[true], &health(200, 100_000));
        insta::assert_snapshot!(result.unwrap().unwrap_err(), @"health:web did not hold within 0.2 s: it did not hold for 100 s");
    }

    #[test]
    fn a_check_that_nobody_waits_for_any_more_says_nothing() {
        let host = Host::new(std::path::Path::new("/nowhere"));
        let script = Script::new(&[false]);
        assert_eq!(check(&host, &script, &health(60_000, 0), &|| false), None);
        assert_eq!(script.1.get(), 1);
    }

    #[test]
    fn what_holds_now_is_asked_for_as_long_as_it_must() {
        let host = Host::new(std::path::Path::new("/nowhere"));
        let script = Script::new(&[true]);
        assert_eq!(holds(&host, &script, &health(5_000, 100)), Ok(()));
        assert_eq!(script.1.get(), 2);
        let script = Script::new(&[true, false]);
        assert!(holds(&host, &script, &health(5_000, 100)).is_err());
    }

    #[test]
    fn a_command_and_a_unit_are_asked_of_the_host() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        let network = Script::new(&[true]);
        let unit = DesiredHealth {
            probe: Probe::Unit("app.service".to_owned()),
            ..health(0, 0)
        };
        let failure = check(&host, &network, &unit, &|| true)
            .unwrap()
            .unwrap_err();
        assert!(
            failure.message.contains("no running systemd") || failure.message.contains("systemd"),
            "{failure}"
        );
        let host = Host::new(std::path::Path::new("/"));
        for (program, holds) in [("/bin/true", true), ("/bin/false", false)] {
            let command = DesiredHealth {
                probe: Probe::Command(vec![program.to_owned()]),
                ..health(0, 0)
            };
            let result = check(&host, &network, &command, &|| true).unwrap();
            assert_eq!(result.is_ok(), holds, "{result:?}");
        }
    }
}
