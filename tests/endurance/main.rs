//! Random revisions, and reverts, on a real machine in random trouble; `tests/soak` runs this for as long as it is told.
//!
//! After each revision the machine is compared with a model that knows nothing of limpet: every path below /etc, /srv and /opt with
//! mode, owner and content, packages, units, and with what the services were started. After a full revert it must be as it was before.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    reason = "the tests are outside the program, and use a part of what others use"
)]

#[path = "../fixture"]
mod fixture {
    pub mod apt_repository;
    pub mod git_server;
    pub mod machine;
    pub mod package;
    pub mod repository;
}
#[path = "../machine/scene.rs"]
mod scene;

mod chance;
mod faults;
mod look;
mod world;

use std::time::{Duration, Instant};

use chance::Chance;
use faults::{Counts, Fault};
use fixture::apt_repository::{AptRepository, Package};
use look::Picture;
use scene::Scene;
use world::{Flaw, World};

/// How long a machine may take until it is as declared, once nothing is wrong any more.
const PATIENCE: Duration = Duration::from_secs(90);

/// After so many revisions everything is taken back, and more are made.
const ROUND: usize = 15;

/// What is on the machine before limpet is.
const BEFORE: &str = "
    echo before > /etc/before.conf; chmod 0640 /etc/before.conf; chown daemon:adm /etc/before.conf
    mkdir -p /srv/before /usr/local/lib/systemd/system
    echo before > /srv/before/file; chmod 0604 /srv/before/file
    chmod 0710 /srv/before; chown root:games /srv/before
    printf '[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n' > /usr/local/lib/systemd/system/before.service
    systemctl daemon-reload";

fn from_environment(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|error| panic!("{name}: {error}")),
    )
}

#[test]
fn random_revisions_under_random_faults_leave_the_machine_as_declared_and_a_revert_as_it_was() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = from_environment("LIMPET_SOAK_SEED").unwrap_or(now.unwrap().as_secs());
    let time = Duration::from_secs(from_environment("LIMPET_SOAK_SECONDS").unwrap_or(120));
    eprintln!("soak: seed {seed}, {} s", time.as_secs());

    let mut soak = Soak::new(seed);
    let begin = Instant::now();
    while begin.elapsed() < time {
        for _ in 0..ROUND {
            soak.step();
            if begin.elapsed() > time {
                break;
            }
        }
        soak.take_everything_back();
    }
    let Soak {
        revisions,
        reverts,
        flawed,
        counts,
        ..
    } = soak;
    let faults: usize = counts.values().sum();
    let list: Vec<String> = counts
        .iter()
        .map(|(fault, count)| format!("{fault:?} {count}"))
        .collect();
    eprintln!(
        "soak: seed {seed}: {revisions} revisions applied, {reverts} of them reverts, and {flawed} flawed ones undone or put back; {faults} faults injected ({}); 0 differences found",
        list.join(", ")
    );
}

struct Soak {
    seed: u64,
    chance: Chance,
    scene: Scene,
    before: Picture,
    /// What was declared so far, the last one being in force.
    worlds: Vec<World>,
    revisions: usize,
    reverts: usize,
    flawed: usize,
    counts: Counts,
}

impl Soak {
    fn new(seed: u64) -> Self {
        let scene = Scene::prepared("soak", "");
        let dependent = Package {
            depends: "tiny-three",
            ..Package::new("tiny-two", "1.0")
        };
        let repository = AptRepository::new(&[
            Package::new("tiny-one", "1.0"),
            Package::new("tiny-one", "2.0"),
            dependent,
            Package::new("tiny-three", "1.0"),
            Package::new(world::PACKAGE_BEFORE, "1.0"),
        ]);
        repository.copy_to(&scene.machine);
        scene.machine.sh(BEFORE);
        scene.machine.sh(&format!(
            "apt-get -q -y install {} >/dev/null",
            world::PACKAGE_BEFORE
        ));
        let before = look::look(&scene.machine);
        assert!(before.len() > 100, "{before:#?}");
        scene.enroll().success();
        scene.converge();
        Soak {
            seed,
            chance: Chance::new(seed),
            scene,
            before,
            worlds: vec![World::default()],
            revisions: 0,
            reverts: 0,
            flawed: 0,
            counts: Counts::new(),
        }
    }

    /// One revision, with what goes wrong meanwhile.
    fn step(&mut self) {
        let old = self.worlds.last().cloned().unwrap_or_default();
        let is_flawed = match old.may_be_refused() {
            true => self.chance.once_in(2),
            false => self.chance.once_in(8),
        };
        if self.worlds.len() > 1 && is_flawed {
            let flawed = old.flawed(&mut self.chance);
            let faults = faults::choose(&mut self.chance);
            self.apply(&old, &flawed, &faults);
            self.flawed += 1;
            return;
        }
        let is_revert = self.worlds.len() > 1 && self.chance.once_in(4);
        let new = match is_revert {
            true => self.worlds[self.worlds.len() - 2].clone(),
            false => old.next(&mut self.chance),
        };
        self.worlds.push(new.clone());
        let faults = faults::choose(&mut self.chance);
        self.apply(&old, &new, &faults);
        self.reverts += usize::from(is_revert);
    }

    /// Declares nothing; the machine must be as it was.
    fn take_everything_back(&mut self) {
        let old = self.worlds.last().cloned().unwrap_or_default();
        self.worlds = vec![World::default()];
        let faults = faults::choose(&mut self.chance);
        self.apply(&old, &World::default(), &faults);
        self.reverts += 1;
    }

    fn apply(&mut self, old: &World, new: &World, faults: &[Fault]) {
        self.scene.declare(&new.layer());
        self.revisions += 1;
        eprintln!(
            "soak: revision {}: {:?} {faults:?}",
            self.revisions, new.flaw
        );
        faults::suffer(&mut self.scene, &mut self.chance, faults, [old, new]);
        for fault in faults.iter().filter(|fault| **fault != Fault::Nothing) {
            *self.counts.entry(*fault).or_default() += 1;
        }
        // What does not work leaves the machine as it was.
        let expected = match new.flaw {
            None => look::expected(&self.before, new),
            Some(_) => look::expected(&self.before, old),
        };
        let head = self.scene.head();
        let end = Instant::now() + PATIENCE;
        loop {
            let sync = self
                .scene
                .machine
                .run(&["limpet", "sync", "--wait", "--allow-removals"]);
            let found = look::look(&self.scene.machine);
            let status = self
                .scene
                .machine
                .run(&["limpet", "status", "--json"])
                .stdout;
            let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
            let mut differences = look::differences(&found, &expected);
            let is_there = match new.flaw {
                None => status["state"] == "converged" && status["revision"] == head.as_str(),
                Some(Flaw::Refused) => {
                    status["state"] == "degraded" && status["revision"] == head.as_str()
                }
                Some(Flaw::Ill) => {
                    status["state"] == "rolled-back"
                        && status["quarantined"][0]["revision"] == head.as_str()
                }
            };
            if !is_there {
                differences.push(format!("status {status:#}"));
            } else if status["owed"] != serde_json::json!([]) {
                differences.push(format!("owed {}", status["owed"]));
            }
            if differences.is_empty() {
                break;
            }
            // A cycle that says it is done must be.
            let says_so = sync.status.success() && status["state"] == "converged";
            assert!(
                !says_so && Instant::now() < end,
                "seed {}, revision {}, after {faults:?}: {} differences:\n{}\n\nsync: {sync:?}\n\nthe layer:\n{}",
                self.seed,
                self.revisions,
                differences.len(),
                differences.join("\n"),
                new.layer()
            );
            std::thread::sleep(Duration::from_millis(300));
        }
        if new.flaw.is_none() {
            let plan = self.scene.machine.run(&["limpet", "plan"]);
            assert_eq!(plan.code(), 0, "seed {}: {plan:?}", self.seed);
        }
        let left = self
            .scene
            .machine
            .sh("find /etc /srv /var/lib/limpet -xdev -name '.limpet-*'; dpkg --audit");
        assert_eq!(left, "", "seed {}, revision {}", self.seed, self.revisions);
    }
}
