//! Power cuts at random moments while limpet applies one revision after another.
//!
//! One emulated machine runs until its power is really cut. From the log of its writes follow the disks that a cut at any other moment
//! may have left: what the guest had not flushed is there, or partly, or not at all. Each such disk is mounted and looked at, then
//! booted, and must become as declared. A file that was written without being flushed shows that these cuts do lose something.
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
    pub mod machine;
    pub mod package;
    pub mod repository;
}
#[path = "../endurance/chance.rs"]
mod chance;

mod emulator;
mod fleet;
mod log;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use chance::Chance;
use emulator::{Emulator, MARK_BLOCK, Mounted};
use fixture::machine::{Machine, Network, output_of};
use fixture::repository::Repository;
use log::{Durable, Log};

/// How many cuts.
const CUTS: usize = 24;
/// How many generations the guest applies before its power is cut.
const GENERATIONS: usize = 16;
/// The guest may be slow: everything in it is emulated.
const PATIENCE: Duration = Duration::from_secs(420);

/// Applies one generation after another; says on the serial line, and marks on the disk, what is done.
const DRIVER: &str = r#"#!/bin/bash
set -eu
mark() {
    printf '%-4096s' "$*" | dd of=/dev/nvme0n1 bs=4096 seek=MARK_BLOCK count=1 iflag=fullblock oflag=direct conv=notrunc 2>/dev/null
    echo "$*" >/dev/ttyS0
}
generation=0
while read -r commit; do
    generation=$((generation + 1))
    mark trying $generation
    echo "$commit" >/srv/fleet.git/refs/heads/next
    mv /srv/fleet.git/refs/heads/next /srv/fleet.git/refs/heads/main
    limpet sync --wait >/run/said 2>&1 || { cat /run/said >/dev/ttyS0; mark failed $generation; exit 1; }
    mark applied $generation
    echo "unsynced $generation" >/srv/unsynced/$generation
    mark unsynced $generation
done </srv/generations
"#;

const DRIVER_UNIT: &str = "[Unit]
ConditionPathExists=/dev/nvme0n1
After=limpet.service
[Service]
Type=exec
ExecStart=/usr/local/bin/drive
[Install]
WantedBy=multi-user.target
";

#[test]
fn a_power_cut_at_any_moment_leaves_old_or_new_and_the_next_start_finishes() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/powercuts/run");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = match std::env::var("LIMPET_SOAK_SEED") {
        Ok(seed) => seed.parse().expect("LIMPET_SOAK_SEED is a number"),
        Err(_) => now.unwrap().as_secs(),
    };
    eprintln!("power cuts: seed {seed}");

    let (disk, ground) = prepare(&directory);
    let emulated = directory.join("emulated.img");
    copy(&disk, &emulated);
    let log = directory.join("writes.log");
    let mut emulator = Emulator::start(&emulated, &log, &directory.join("serial"));
    let last = format!("applied {GENERATIONS}");
    // It is slow on a busy computer; a few generations are enough.
    if !emulator.waits_for(&last, PATIENCE) {
        let said = emulator.said();
        let is_enough = said.contains("applied 4") && !said.contains("failed");
        assert!(is_enough, "the guest said:\n{said}");
    }
    emulator.cut();
    let log = Log::read(&log);
    let marks = Marks(log.marks(MARK_BLOCK * 4096));
    let begin = marks.first("applied 1");
    eprintln!(
        "power cuts: {} writes and flushes, {} flushes, {} generations; then the power was cut",
        log.entries.len(),
        log.flushes(log.entries.len()),
        marks.last(log.entries.len(), "applied")
    );

    let (lost, written) = control(&log, &marks, &directory, &disk);
    assert!(
        lost > 0,
        "these cuts lose nothing at all, so they show nothing"
    );
    let mut chance = Chance::new(seed);
    let mut cuts: Vec<usize> = (0..CUTS)
        .map(|_| begin + chance.below((log.entries.len() - begin) as u64) as usize)
        .collect();
    cuts.sort_unstable();
    let mut durable = Durable::new(&log, &disk);
    for (number, cut) in cuts.iter().enumerate() {
        let pending = durable.advance(*cut);
        let image = directory.join("cut.img");
        copy(&disk, &image);
        // The whole cache is lost, or a half, or nothing.
        let kept = [0, 1, 2][number % 3];
        durable.cut(*cut, &image, || chance.below(2) < kept);
        let (applied, tried) = (marks.last(*cut, "applied"), marks.last(*cut, "trying"));
        eprintln!(
            "power cut {} after write {cut}: {pending} writes in the cache, {} kept; generation {applied} was applied, {tried} tried",
            number + 1,
            ["none", "half", "all"][kept as usize]
        );
        ground.check(&image, &directory, applied, tried);
    }
    let all = log.entries.len();
    eprintln!("power cut {}: the real one", CUTS + 1);
    ground.check(
        &emulated,
        &directory,
        marks.last(all, "applied"),
        marks.last(all, "trying"),
    );

    eprintln!(
        "power cuts: {} cuts, nothing torn, lost or older; of {written} files that were not flushed {lost} were lost",
        CUTS + 1
    );
    assert!(
        lost > 0,
        "these cuts lose nothing at all, so they show nothing"
    );
    fs::remove_dir_all(&directory).unwrap();
}

/// The control: files that a shell wrote without flushing them, each with a cut right after. How many were lost, of how many.
fn control(log: &Log, marks: &Marks, directory: &Path, disk: &Path) -> (usize, usize) {
    let (follower, image) = (directory.join("follower.img"), directory.join("cut.img"));
    copy(disk, &follower);
    let mut durable = Durable::new(log, &follower);
    let written = marks
        .0
        .iter()
        .filter(|(_, mark)| mark.starts_with("unsynced"));
    let written: Vec<&(usize, String)> = written.take(4).collect();
    let mut lost = 0;
    for (cut, mark) in &written {
        durable.advance(*cut);
        copy(&follower, &image);
        durable.cut(*cut, &image, || false);
        let mounted = Mounted::new(&image, &directory.join("root"));
        let (_, generation) = mark.split_once(' ').unwrap();
        let file = mounted.directory.join(format!("srv/unsynced/{generation}"));
        let text = fs::read_to_string(file).unwrap_or_default();
        lost += usize::from(text != format!("{mark}\n"));
    }
    fs::remove_file(follower).unwrap();
    (lost, written.len())
}

/// What the guest marked, and after how many writes.
struct Marks(Vec<(usize, String)>);

impl Marks {
    fn first(&self, word: &str) -> usize {
        let found = self.0.iter().find(|(_, mark)| mark == word);
        found.unwrap_or_else(|| panic!("no mark '{word}'")).0
    }

    /// The number of the last mark `word` among the first `count` writes; 0 when there is none.
    fn last(&self, count: usize, word: &str) -> usize {
        let before = self.0.iter().filter(|(at, _)| *at <= count);
        let numbers = before.filter_map(|(_, mark)| mark.strip_prefix(word)?.trim().parse().ok());
        numbers.max().unwrap_or(0)
    }
}

/// What is known about the machine.
struct Ground {
    /// By generation; the last one takes everything back.
    commits: Vec<String>,
    /// What was there before limpet.
    before: String,
}

/// Makes the disk that the guest boots from: a machine enrolled in a repository on its own disk, which has applied generation 0.
fn prepare(directory: &Path) -> (PathBuf, Ground) {
    let repository = Repository::new();
    let alice = repository.key("alice");
    repository.write(
        "fleet.toml",
        "format = 1\nfleet = \"tests\"\n\n[[match]]\nhosts = [\"*\"]\nlayers = [\"base\"]\n",
    );
    let layers = (0..=GENERATIONS).map(fleet::layer).chain([String::new()]);
    let commits: Vec<String> = layers
        .map(|layer| {
            repository.write("layers/base/base.toml", &layer);
            repository.commit(&alice, "Change the fleet")
        })
        .collect();
    repository.push();
    repository.git(&["push", "-q", "origin", "HEAD:refs/heads/all"]);
    let server = repository.server();
    output_of(
        Command::new("git")
            .arg("-C")
            .arg(&server)
            .args(["repack", "-adq"]),
    )
    .success();
    set_branch(&server, &commits[0]);

    let machine = Machine::start("powercuts");
    machine.install_deb(&fixture::package::built());
    output_of(
        Command::new("cp")
            .arg("-r")
            .arg(&server)
            .arg(machine.path("/srv/fleet.git")),
    )
    .success();
    machine.sh("chown -R root:root /srv/fleet.git; mkdir /srv/unsynced");
    machine.sh(fleet::BEFORE);
    let before = machine.sh(fleet::LOOK_BEFORE);
    machine.write_file("/root/allowed_signers", alice.allowed());
    machine.write_file(
        "/etc/limpet/limpet.toml.d/interval.toml",
        "[source]\ninterval = \"6h\"\n",
    );
    machine
        .run(&[
            "limpet",
            "enroll",
            "/srv/fleet.git",
            "--anchor",
            &commits[0],
            "--allowed-signers",
            "/root/allowed_signers",
            "--name",
            "scene",
            "--yes",
        ])
        .success();
    machine.run(&["limpet", "sync", "--wait"]).success();
    machine.write_file(
        "/usr/local/bin/drive",
        DRIVER.replace("MARK_BLOCK", &MARK_BLOCK.to_string()),
    );
    machine.write_file("/etc/systemd/system/drive.service", DRIVER_UNIT);
    let generations: Vec<&str> = commits[1..=GENERATIONS]
        .iter()
        .map(String::as_str)
        .collect();
    machine.write_file("/srv/generations", generations.join("\n") + "\n");
    machine.write_file("/etc/fstab", "/dev/nvme0n1 / ext4 defaults 0 1\n");
    // What an emulated machine spends its first minute with.
    machine.sh("chmod 0755 /usr/local/bin/drive; systemctl --quiet enable drive.service
        systemctl --quiet mask getty.target serial-getty@ttyS0.service systemd-udev-settle.service systemd-udev-trigger.service systemd-update-utmp.service
        systemctl stop limpet.service limpet-fetch.service; journalctl --sync; rm -rf /var/cache/apt /root/*.deb");

    let tree = directory.join("tree");
    output_of(
        Command::new("cp")
            .arg("-ax")
            .arg(machine.path("/"))
            .arg(&tree),
    )
    .success();
    drop(machine);
    let disk = directory.join("disk.img");
    emulator::make_disk(&tree, &disk);
    fs::remove_dir_all(&tree).unwrap();
    (disk, Ground { commits, before })
}

fn set_branch(server: &Path, commit: &str) {
    fs::write(server.join("refs/heads/main"), format!("{commit}\n")).unwrap();
}

impl Ground {
    /// Looks at a disk that a cut left when generation `applied` had been applied and `tried` was being, and boots it.
    fn check(&self, image: &Path, directory: &Path, applied: usize, tried: usize) {
        let mounted = Mounted::new(image, &directory.join("root"));
        let root = mounted.directory.as_path();
        match fleet::generations(root) {
            Ok(found) => assert!(
                found.iter().all(|of| (applied..=tried).contains(of)),
                "files of generations {found:?}"
            ),
            Err(torn) => panic!("{}", torn.join("\n")),
        }
        for (place, head) in self.heads(root, directory) {
            assert!(
                (applied..=tried).contains(&head),
                "{place} trusts generation {head}, which is older than {applied}"
            );
        }

        let machine = Machine::start_over("cut", Network::None, Some(root));
        let set_branch = |commit: &str| {
            machine.write_file("/srv/fleet.git/refs/heads/main", format!("{commit}\n"));
        };
        // By itself, without any source, it finishes what it began, or keeps what it had.
        set_branch(&self.commits[tried]);
        machine.run(&["limpet", "sync", "--wait"]).success();
        assert_eq!(
            fleet::generations(&machine.path("/")),
            Ok(vec![tried; 41]),
            "after the next start"
        );
        assert_eq!(machine.read_file("/run/generation"), format!("{tried}\n"));
        let status = machine.run(&["limpet", "status", "--json"]).stdout;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["state"], "converged", "{status:#}");
        assert_eq!(status["owed"], serde_json::json!([]), "{status:#}");
        assert_eq!(machine.run(&["limpet", "plan"]).code(), 0);
        let left = machine.sh("find /etc /srv /var/lib/limpet -xdev -name '.limpet-*'");
        assert_eq!(left, "", "left behind");

        set_branch(self.commits.last().expect("there are commits"));
        machine
            .run(&["limpet", "sync", "--wait", "--allow-removals"])
            .success();
        assert_eq!(
            machine.sh(fleet::LOOK_BEFORE),
            self.before,
            "after a revert"
        );
        drop(machine);
    }

    /// Which generation the two places that remember the trusted head have.
    fn heads(&self, root: &Path, directory: &Path) -> [(&'static str, usize); 2] {
        let generation = |text: &str| {
            let found = self.commits.iter().position(|commit| text.contains(commit));
            found.unwrap_or_else(|| panic!("no generation: {text:?}"))
        };
        let mark = fs::read_to_string(root.join("etc/limpet/enrolled")).unwrap_or_default();
        let copy = directory.join("state.db");
        for suffix in ["", "-wal"] {
            let from = root.join(format!("var/lib/limpet/state.db{suffix}"));
            let to = format!("{}{suffix}", copy.display());
            let _ = fs::remove_file(&to);
            if from.exists() {
                fs::copy(from, to).unwrap();
            }
        }
        let database = rusqlite::Connection::open(copy).unwrap();
        let one = |sql: &str| -> String { database.query_row(sql, [], |row| row.get(0)).unwrap() };
        assert_eq!(one("PRAGMA integrity_check"), "ok");
        let head = one("SELECT value FROM memory WHERE name = 'trusted-head'");
        [
            ("state.db", generation(&head)),
            ("the second mark", generation(&mark)),
        ]
    }
}

/// A new file each time: what is mounted from an old one may live on in a name space of somebody's for a while.
fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    command
        .args(["--sparse=always", "--remove-destination"])
        .arg(from)
        .arg(to);
    output_of(&mut command).success();
}
