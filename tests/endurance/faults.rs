//! What goes wrong while a revision is applied.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chance::Chance;
use crate::fixture::machine::{Network, wait_until};
use crate::scene::{SOON, Scene};
use crate::world::{File, World};

/// One kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Nothing,
    AgentKilled,
    FetcherKilled,
    AgentRestarted,
    PlugPulled,
    Reboot,
    Drift,
    ServerDown,
    StateDiskFull,
    PackageLockHeld,
}

const ALL: &[Fault] = &[
    Fault::Nothing,
    Fault::AgentKilled,
    Fault::AgentKilled,
    Fault::AgentKilled,
    Fault::FetcherKilled,
    Fault::AgentRestarted,
    Fault::PlugPulled,
    Fault::PlugPulled,
    Fault::Reboot,
    Fault::Drift,
    Fault::Drift,
    Fault::ServerDown,
    Fault::StateDiskFull,
    Fault::PackageLockHeld,
];

/// Takes dpkg's lock as dpkg does, and keeps it.
const HOLDER: &str = r#"
use Fcntl;
open my $lock, "+>", "/var/lib/dpkg/lock-frontend" or die;
my $whole = pack("s s x4 q q l x4", F_WRLCK, 0, 0, 0, 0);
fcntl $lock, F_SETLK, $whole or die;
open my $mark, ">", "/run/lock-is-held" or die;
close $mark;
sleep 600;
"#;

/// How often each fault was injected.
pub type Counts = BTreeMap<Fault, usize>;

/// Chooses what goes wrong this time, the worst combination being two faults.
pub fn choose(chance: &mut Chance) -> Vec<Fault> {
    let mut faults = vec![*chance.pick(ALL)];
    if chance.once_in(3) {
        let other = *chance.pick(ALL);
        // A machine that goes down forgets a disk that was full, and a lock.
        let is_strange = |fault: &Fault| {
            matches!(
                fault,
                Fault::StateDiskFull | Fault::PackageLockHeld | Fault::ServerDown
            )
        };
        if !is_strange(&faults[0]) && !is_strange(&other) {
            faults.push(other);
        }
    }
    faults
}

/// Lets the machine take the head of the repository while `faults` happen, and lifts those that would stay.
pub fn suffer(scene: &mut Scene, chance: &mut Chance, faults: &[Fault], both: [&World; 2]) {
    for fault in faults {
        before(scene, chance, *fault, both);
    }
    // An agent in trouble may not even answer.
    scene.machine.run(&["limpet", "sync"]);
    for fault in faults {
        std::thread::sleep(Duration::from_millis(chance.below(1200)));
        strike(scene, *fault);
    }
    if !faults.iter().any(|fault| is_sudden(*fault)) {
        std::thread::sleep(Duration::from_millis(500 + chance.below(1500)));
    }
    for fault in faults {
        lift(scene, *fault);
    }
}

fn is_sudden(fault: Fault) -> bool {
    !matches!(
        fault,
        Fault::ServerDown | Fault::StateDiskFull | Fault::PackageLockHeld
    )
}

fn before(scene: &mut Scene, chance: &mut Chance, fault: Fault, both: [&World; 2]) {
    match fault {
        Fault::Drift => drift(scene, chance, both),
        Fault::ServerDown => scene.server = None,
        // A disk of its own, which has no room left.
        Fault::StateDiskFull => drop(scene.machine.sh("systemctl stop limpet.service
             mkdir -p /mnt/state
             size=$(du -sk /var/lib/limpet | cut -f1)
             mount -t tmpfs -o size=$((size + 4096))k,mode=0700 tmpfs /mnt/state
             cp -a /var/lib/limpet/. /mnt/state/
             mount --bind /mnt/state /var/lib/limpet
             systemctl start limpet.service
             dd if=/dev/zero of=/var/lib/limpet/ballast bs=4k 2>/dev/null || true")),
        Fault::PackageLockHeld => {
            scene.machine.write_file("/root/holder.pl", HOLDER);
            scene.machine.sh("rm -f /run/lock-is-held
                 systemd-run --quiet --collect --unit=holder perl /root/holder.pl");
            wait_until("the lock", SOON, || {
                scene.machine.exists("/run/lock-is-held").then_some(())
            });
        }
        _ => {}
    }
}

fn strike(scene: &mut Scene, fault: Fault) {
    let machine = &scene.machine;
    match fault {
        Fault::AgentKilled => drop(machine.run(&[
            "systemctl",
            "kill",
            "--kill-whom=main",
            "--signal=KILL",
            "limpet.service",
        ])),
        Fault::FetcherKilled => {
            drop(machine.run(&["systemctl", "kill", "--signal=KILL", "limpet-fetch.service"]))
        }
        Fault::AgentRestarted => drop(machine.run(&["systemctl", "restart", "limpet.service"])),
        Fault::PlugPulled => machine.unplug_and_boot(Network::Shared),
        Fault::Reboot => machine.reboot(Network::Shared),
        _ => {}
    }
}

fn lift(scene: &mut Scene, fault: Fault) {
    match fault {
        Fault::ServerDown => scene.move_server(),
        Fault::StateDiskFull => drop(scene.machine.sh("systemctl stop limpet.service
             rm -f /var/lib/limpet/ballast
             umount /var/lib/limpet
             rm -rf /var/lib/limpet/*
             cp -a /mnt/state/. /var/lib/limpet/
             umount /mnt/state
             systemctl start limpet.service")),
        Fault::PackageLockHeld => drop(scene.machine.sh("systemctl stop holder.service")),
        _ => {}
    }
}

/// Somebody changes by hand what both revisions declare alike: anything else would be theirs to keep once it is undeclared.
fn drift(scene: &Scene, chance: &mut Chance, [old, new]: [&World; 2]) {
    let mut commands: Vec<String> = Vec::new();
    for (path, file) in &old.files {
        if new.files.get(path) != Some(file) {
            continue;
        }
        // A drift before it may have removed it.
        commands.push(match (file, chance.below(4)) {
            (File::Absent, _) => format!("mkdir -p $(dirname {path}); echo hand > {path}"),
            (_, 0) => format!("echo hand >> {path}"),
            (_, 1) => format!("chmod 0604 {path} || [ ! -e {path} ]"),
            (_, 2) => format!("chown nobody {path} || [ ! -e {path} ]"),
            (_, _) => format!("rm -f {path}"),
        });
    }
    for (name, unit) in &old.units {
        if new.units.get(name) == Some(unit) && !unit.masked {
            let verb = if unit.running { "stop" } else { "start" };
            commands.push(format!("systemctl {verb} {name}"));
            let verb = if unit.enabled { "disable" } else { "enable" };
            commands.push(format!("systemctl --quiet {verb} {name}"));
        }
    }
    for (path, target) in &old.links {
        if new.links.get(path) == Some(target) {
            commands.push(format!("ln -sfn /nowhere {path}"));
        }
    }
    for (name, version) in &old.packages {
        if new.packages.get(name) == Some(version) && version.is_some() {
            commands.push(format!(
                "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=60 remove {name} >/dev/null"
            ));
        }
    }
    for command in commands {
        if chance.once_in(2) {
            scene.machine.sh(&command);
        }
    }
}
