//! Machines that are directories, before and after each of three revisions, and a repository for each of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::disk::{self, Disk};
use crate::repository::Repository;
use crate::trace::{Fault, Point};

/// An apply that is disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The first one of a machine.
    First,
    /// Of a revision that changes, adds and removes.
    Second,
    /// Of one that takes everything back but one file.
    Back,
}

impl Stage {
    pub const ALL: [Stage; 3] = [Stage::First, Stage::Second, Stage::Back];
}

/// What all machines have in common.
pub struct Ground {
    repository: Repository,
    commits: Vec<String>,
    allowed_signers: String,
    directory: tempfile::TempDir,
}

/// Long enough to be torn.
fn long(word: &str) -> String {
    format!("{word} ").repeat(20_000)
}

fn layers() -> [String; 3] {
    let stays = "[file.\"/etc/stays\"]\ncontent = \"stays\\n\"\n";
    let first = format!(
        r#"{stays}
[file."/etc/motd"]
content = "first\n"
mode = "0640"
[file."/etc/own.conf"]
content = "first\n"
[file."/etc/legacy.conf"]
state = "absent"
[file."/etc/theirs"]
mode = "0600"
[file."/etc/was-a-link"]
content = "no link\n"
[directory."/srv/app"]
mode = "0750"
[file."/srv/app/long"]
content = "{}"
[symlink."/srv/app/current"]
target = "/opt/app/v1"
[directory."/srv/data"]
mode = "0711"
[file."/srv/deep/er/file"]
content = "first\n"
[file."/srv/swap"]
content = "a file\n"
"#,
        long("first")
    );
    let second = format!(
        r#"{stays}
[file."/etc/motd"]
content = "second\n"
mode = "0644"
[file."/etc/legacy.conf"]
content = "second\n"
mode = "0600"
[file."/etc/theirs"]
content = "ours\n"
mode = "0640"
[file."/etc/was-a-link"]
state = "absent"
[directory."/srv/app"]
mode = "0700"
[file."/srv/app/long"]
content = "{}"
[symlink."/srv/app/current"]
target = "/opt/app/v2"
[symlink."/srv/app/other"]
target = "current"
[directory."/srv/data"]
mode = "0755"
[directory."/srv/swap"]
[file."/srv/swap/inside"]
content = "second\n"
"#,
        long("second")
    );
    [first, second, stays.to_owned()]
}

impl Ground {
    pub fn new() -> Self {
        let repository = Repository::new();
        let alice = repository.key("alice");
        repository.write(
            "fleet.toml",
            "format = 1\nfleet = \"test\"\n\n[[match]]\nhosts = [\"*\"]\nlayers = [\"base\"]\n",
        );
        let commits = layers().into_iter().map(|layer| {
            repository.write("layers/base/base.toml", &layer);
            repository.commit(&alice, "change the base layer")
        });
        let commits = commits.collect();
        repository.push();
        // Memory is a disk that hundreds of machines may be copied to, and strace sees the barriers there as well.
        let memory = Path::new("/dev/shm");
        let directory = match tempfile::tempdir_in(memory) {
            Ok(directory) => directory,
            Err(_) => tempfile::tempdir().unwrap(),
        };
        // Root's fetcher is another user.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Ground {
            allowed_signers: alice.allowed(),
            repository,
            commits,
            directory,
        }
    }

    /// A machine, with what it is before and after each stage.
    pub fn worker(&self, number: usize) -> Worker {
        let directory = self.directory.path().join(number.to_string());
        fs::create_dir(&directory).unwrap();
        let mut worker = Worker {
            commits: self.commits.clone(),
            disks: Vec::new(),
            directory,
        };
        copy(&self.repository.server(), &worker.server());
        let root = worker.root();
        let put = |path: &str, mode: u32, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        put("etc/os-release", 0o644, "ID=debian\nVERSION_ID=\"12\"\n");
        put(
            "etc/machine-id",
            0o444,
            "22823ba6c96947e78b006c51a56fd89c\n",
        );
        put("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n");
        put("etc/group", 0o644, "root:x:0:\n");
        put("etc/motd", 0o664, "Debian's own\n");
        put("etc/legacy.conf", 0o604, "old\n");
        put("etc/theirs", 0o644, "theirs\n");
        put("srv/data/keep", 0o644, "data\n");
        put("etc/limpet/allowed_signers", 0o644, &self.allowed_signers);
        put("etc/limpet/revoked", 0o644, "# none\n");
        put(
            "etc/limpet/limpet.toml",
            0o644,
            &format!(
                "[source]\nurl = \"{}\"\n\n[trust]\nanchor = {{ commit = \"{}\" }}\n\n[host]\nname = \"gw-1\"\n\n[apply]\nmax_removals = 100\n",
                worker.server().display(),
                self.commits[0]
            ),
        );
        std::os::unix::fs::symlink("motd", root.join("etc/was-a-link")).unwrap();
        fs::set_permissions(root.join("srv/data"), fs::Permissions::from_mode(0o770)).unwrap();

        worker.keep(0);
        for stage in Stage::ALL {
            worker.publish(stage);
            worker.apply_cleanly("an undisturbed run").unwrap();
            worker.keep(stage as usize + 1);
        }
        let mut last = worker.disks[3].clone();
        assert!(last.remove("etc/stays").is_some());
        assert_eq!(
            disk::differences(&last, &worker.disks[0]),
            [""; 0],
            "an undisturbed revert takes everything back"
        );
        worker
    }
}

/// A machine, its repository, and copies of it at each stage.
pub struct Worker {
    commits: Vec<String>,
    disks: Vec<Disk>,
    directory: PathBuf,
}

impl Worker {
    /// Where the machine is.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    fn server(&self) -> PathBuf {
        self.directory.join("server.git")
    }

    fn kept(&self, number: usize) -> PathBuf {
        self.directory.join(format!("kept-{number}"))
    }

    fn keep(&mut self, number: usize) {
        copy(&self.root(), &self.kept(number));
        self.disks.push(disk::read(&self.root()));
    }

    /// What the machine's disk is before an undisturbed `stage`.
    pub fn disk_before(&self, stage: Stage) -> &Disk {
        &self.disks[stage as usize]
    }

    /// Makes the revision of `stage` the repository's tip.
    pub fn publish(&self, stage: Stage) {
        let commit = &self.commits[stage as usize];
        let branch = self.server().join("refs/heads/main");
        fs::write(branch, format!("{commit}\n")).unwrap();
    }

    /// The machine as it is before `stage`, whose revision is published.
    pub fn prepare(&self, stage: Stage) {
        if self.root().exists() {
            fs::remove_dir_all(self.root()).unwrap();
        }
        copy(&self.kept(stage as usize), &self.root());
        self.publish(stage);
    }

    /// One cycle of the machine.
    pub fn program(&self) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_limpet"));
        program
            .args(["apply", "--once", "--root"])
            .arg(self.root())
            .env("NO_COLOR", "1");
        program
    }

    /// Where `fault` can be in `stage`.
    pub fn points(&self, stage: Stage, fault: Fault) -> Vec<Point> {
        self.prepare(stage);
        let scratch = self.directory.join("trace");
        fault.points(&scratch, &self.root(), &mut self.program())
    }

    /// Disturbs `stage` at `point` and looks at what is left, and at what the next run makes of it.
    pub fn try_point(&self, stage: Stage, fault: Fault, point: &Point) -> Result<(), String> {
        let (old, new) = (&self.disks[stage as usize], &self.disks[stage as usize + 1]);
        self.prepare(stage);
        let run = fault.run(point, &mut self.program());
        let context = |problem: String| format!("{problem}\n  the disturbed run {}", said(&run));

        let found = disk::read(&self.root());
        empty("torn", disk::neither(&found, old, new)).map_err(context)?;
        if run.status.success() {
            empty("called done", disk::differences(&found, new)).map_err(context)?;
        }
        self.trust_is_not_older(stage).map_err(context)?;

        self.apply_cleanly("the next run").map_err(context)?;
        let found = disk::read(&self.root());
        empty("after the next run", disk::differences(&found, new)).map_err(context)?;
        empty("left behind", disk::leftovers(&self.root())).map_err(context)?;
        self.record_is_whole(stage).map_err(context)?;
        let third = self.apply_cleanly("the run after it").map_err(context)?;
        if third != "polling the source\n" {
            return Err(context(format!("the run after the next one says {third}")));
        }

        self.publish(Stage::Back);
        self.apply_cleanly("the revert").map_err(context)?;
        let found = disk::read(&self.root());
        empty("after a revert", disk::differences(&found, &self.disks[3])).map_err(context)
    }

    /// One undisturbed run, which makes everything as declared; returns what it said.
    pub fn apply_cleanly(&self, what: &str) -> Result<String, String> {
        let run = self.program().output().unwrap();
        match run.status.code() {
            Some(0) => Ok(String::from_utf8_lossy(&run.stderr).into_owned()),
            _ => Err(format!("{what} {}", said(&run))),
        }
    }

    /// The record and the second mark know the head of before this stage, or a later one, and the mark is never ahead.
    fn trust_is_not_older(&self, stage: Stage) -> Result<(), String> {
        let age = |text: Option<String>| match text {
            None => Ok(0),
            Some(text) => self
                .commits
                .iter()
                .position(|commit| text.contains(commit.as_str()))
                .map(|position| position + 1)
                .ok_or(format!("a head that is none of the revisions: {text:?}")),
        };
        let mark = age(fs::read_to_string(self.root().join("etc/limpet/enrolled")).ok())
            .map_err(|problem| format!("the second mark has {problem}"))?;
        let head = age(self.trusted_head()?)?;
        match head >= mark && head >= stage as usize && mark >= stage as usize {
            true => Ok(()),
            false => Err(format!(
                "trust is older: state.db has revision {head}, the second mark {mark}"
            )),
        }
    }

    /// What a copy of state.db has as the trusted head.
    fn trusted_head(&self) -> Result<Option<String>, String> {
        let Some(database) = self.database() else {
            return Ok(None);
        };
        let is_made: bool = database
            .query_row(
                "SELECT count(*) FROM sqlite_schema WHERE name = 'memory'",
                [],
                |row| row.get(0),
            )
            .map_err(|error| format!("state.db: {error}"))?;
        if !is_made {
            return Ok(None);
        }
        let sql = "SELECT value FROM memory WHERE name = 'trusted-head'";
        match database.query_row(sql, [], |row| row.get(0)) {
            Ok(text) => Ok(Some(text)),
            Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
            Err(error) => Err(format!("state.db: {error}")),
        }
    }

    /// A copy, because looking would write its log into it.
    fn database(&self) -> Option<rusqlite::Connection> {
        let copy = self.directory.join("look.db");
        for suffix in ["", "-wal"] {
            let from = self.root().join(format!("var/lib/limpet/state.db{suffix}"));
            let to = format!("{}{suffix}", copy.display());
            let _ = fs::remove_file(&to);
            if from.exists() {
                fs::copy(from, to).unwrap();
            } else if suffix.is_empty() {
                return None;
            }
        }
        Some(rusqlite::Connection::open(copy).unwrap())
    }

    fn record_is_whole(&self, stage: Stage) -> Result<(), String> {
        let database = self.database().ok_or("state.db is gone")?;
        let check: String = database
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .map_err(|error| error.to_string())?;
        if check != "ok" {
            return Err(format!("state.db: {check}"));
        }
        let mark = fs::read_to_string(self.root().join("etc/limpet/enrolled")).unwrap_or_default();
        match mark.contains(&self.commits[stage as usize]) {
            true => Ok(()),
            false => Err(format!("the second mark is not the new head: {mark}")),
        }
    }
}

fn empty(what: &str, lines: Vec<String>) -> Result<(), String> {
    match lines.is_empty() {
        true => Ok(()),
        false => Err(format!("{what}: {}", lines.join(", "))),
    }
}

/// How a run ended and what it said.
pub fn said(run: &Output) -> String {
    let error = String::from_utf8_lossy(&run.stderr);
    format!(
        "ended with {}:\n  {}",
        run.status,
        error.replace('\n', "\n  ")
    )
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}
