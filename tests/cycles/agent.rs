//! The cycles of an agent, one after the other in this process, with a fetcher that can be told what to meet.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use limpet::apply::Activity;
use limpet::config::{Config, Source};
use limpet::cycle::{Cycle, Trigger};
use limpet::fetch::child::{Child, Launch};
use limpet::fetch::protocol::{Artifact, Probe, Seen, Target};
use limpet::fetch::{Delivery, Lane, Tip, Trouble, Upstream};
use limpet::git::{Object, ObjectError, ObjectId, Objects};
use limpet::model::{Class, Failure};
use limpet::report::status::Status;
use limpet::sys::Host;

use crate::scene::Scene;

/// A way to a source: what it meets, and how often it was gone.
#[derive(Debug, Clone, Default)]
pub struct Way {
    trouble: Arc<Mutex<Option<Trouble>>>,
    polls: Arc<AtomicUsize>,
    source_probes: Arc<AtomicUsize>,
    /// A file that cuts the way when it contains this text.
    cut_by: Arc<Mutex<Option<(PathBuf, String)>>>,
    is_blocked: Arc<(Mutex<bool>, Condvar)>,
    /// How often the agent polls; `None` for what its configuration says.
    pub interval: Option<Duration>,
}

/// A real fetcher at the end of a [`Way`].
struct Walked {
    way: Way,
    child: Child,
}

impl Objects for Walked {
    fn get(&self, id: &ObjectId) -> Result<Object, ObjectError> {
        self.child.get(id)
    }
}

impl Upstream for Walked {
    fn poll(&self, trusted: Option<ObjectId>) -> Result<Tip, Trouble> {
        self.way.polls.fetch_add(1, Ordering::Relaxed);
        let (is_blocked, change) = &*self.way.is_blocked;
        drop(
            change
                .wait_while(is_blocked.lock().unwrap(), |blocked| *blocked)
                .unwrap(),
        );
        match self.way.trouble.lock().unwrap().clone() {
            Some(trouble) => Err(trouble),
            None => self.child.poll(trusted),
        }
    }

    fn probe(&self, probe: &Probe) -> Result<(), Failure> {
        if probe.target != Target::Source {
            return self.child.probe(probe);
        }
        self.way.source_probes.fetch_add(1, Ordering::Relaxed);
        let is_cut = self
            .way
            .cut_by
            .lock()
            .unwrap()
            .as_ref()
            .is_some_and(|(path, text)| {
                std::fs::read_to_string(path).is_ok_and(|found| found.contains(text))
            });
        match self.way.trouble.lock().unwrap().clone() {
            Some(trouble) => Err(trouble.failure),
            None if is_cut => Err(Failure::new(Class::Transient, "the test has cut the way")),
            None => self.child.probe(probe),
        }
    }

    fn sysctls(&self, names: &[String]) -> Result<Vec<Seen>, Failure> {
        self.child.sysctls(names)
    }

    fn artifact(&self, artifact: &Artifact) -> Result<Delivery<'_>, Failure> {
        self.child.artifact(artifact)
    }
}

impl Way {
    /// From now on polls meet this.
    pub fn meet(&self, lane: Lane, retry_after_secs: Option<u64>) {
        *self.trouble.lock().unwrap() = Some(Trouble {
            failure: Failure::new(Class::Transient, "the test has a bad day"),
            lane,
            retry_after_secs,
        });
    }

    /// From now on they are answered.
    pub fn clear(&self) {
        *self.trouble.lock().unwrap() = None;
    }

    /// From now on polls are not answered until [`Way::unblock`].
    pub fn block(&self) {
        *self.is_blocked.0.lock().unwrap() = true;
    }

    /// Answers all polls.
    pub fn unblock(&self) {
        *self.is_blocked.0.lock().unwrap() = false;
        self.is_blocked.1.notify_all();
    }

    /// From now on, checks of the source fail while the file at `path` contains `text`.
    pub fn cut_by(&self, path: PathBuf, text: &str) {
        *self.cut_by.lock().unwrap() = Some((path, text.to_owned()));
    }

    /// How often a check asked for the source.
    pub fn source_probes(&self) -> usize {
        self.source_probes.load(Ordering::Relaxed)
    }

    /// How many polls there were.
    pub fn polls(&self) -> usize {
        self.polls.load(Ordering::Relaxed)
    }
}

/// An agent of the scene's machine as it starts; [`Agent::cycle`] is what its worker does.
pub struct Agent {
    pub cycle: Cycle,
}

impl Agent {
    /// An agent that asks over `way`, as if its source were a server.
    pub fn start(scene: &Scene, way: &Way) -> Self {
        let name = "/etc/limpet/limpet.toml";
        let text = scene.get("etc/limpet/limpet.toml").unwrap();
        let mut config = Config::parse(&[(name.to_owned(), text)]).unwrap();
        let real: Source = config.source.clone();
        // A local repository is no server to be spared; the real fetcher below it is told where to look.
        config.source.url = limpet::config::SourceUrl::parse("https://git.example.net/x").unwrap();
        config.source.interval = way.interval.unwrap_or(config.source.interval);
        let way = way.clone();
        let launch = Launch {
            program: PathBuf::from(env!("CARGO_BIN_EXE_limpet")),
            ..Launch::of_this_program(&scene.path("var/cache/limpet"))
        };
        let connect = move || {
            let child = Child::spawn(&launch, &real)?;
            let way = way.clone();
            Ok(Box::new(Walked { way, child }) as Box<dyn Upstream>)
        };
        let host = Host::new(&scene.path(""));
        let cycle = Cycle::open(host, config, Box::new(connect)).unwrap();
        Agent { cycle }
    }

    /// The interval passes.
    pub fn tick(&mut self) -> Status {
        self.run(Trigger::Tick)
    }

    /// The agent has just started.
    pub fn begin(&mut self) -> Status {
        self.run(Trigger::Start)
    }

    /// What is in force is enforced.
    pub fn look(&mut self) -> Status {
        self.run(Trigger::Look)
    }

    /// `limpet sync`.
    pub fn sync(&mut self) -> Status {
        self.run(Trigger::Nudge {
            allow_removals: false,
            retry: false,
        })
    }

    /// `limpet sync --retry`.
    pub fn retry(&mut self) -> Status {
        self.run(Trigger::Nudge {
            allow_removals: false,
            retry: true,
        })
    }

    fn run(&mut self, trigger: Trigger) -> Status {
        self.cycle.run(trigger, &|_: &Activity, _| ())
    }
}
