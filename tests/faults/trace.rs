//! The system calls by which a program changes the disk, as strace shows them, and faults in them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::{Command, Output};

/// System calls that change a file system, or wait until it is on disk.
const CALLS: &[&str] = &[
    "chmod",
    "chown",
    "fallocate",
    "fchmod",
    "fchmodat",
    "fchown",
    "fchownat",
    "fdatasync",
    "fsetxattr",
    "fsync",
    "ftruncate",
    "link",
    "linkat",
    "mkdir",
    "mkdirat",
    "openat",
    "pwrite64",
    "pwritev",
    "rename",
    "renameat",
    "renameat2",
    "rmdir",
    "symlink",
    "symlinkat",
    "sync_file_range",
    "syncfs",
    "unlink",
    "unlinkat",
    "utimensat",
    "write",
    "writev",
];

/// Those that need no room.
const WITHOUT_ROOM: &[&str] = &[
    "chmod", "fchmod", "fchmodat", "chown", "fchown", "fchownat", "rmdir", "unlink", "unlinkat",
];

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// kill -9 before the call.
    Kill,
    /// kill -9 before the call of whichever process comes to it, the fetcher too.
    KillEither,
    /// The call fails with EIO.
    Io,
    /// It fails with ENOSPC, and so do all that follow.
    NoSpace,
}

/// The `number`th call of this name, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    pub call: String,
    pub number: usize,
    /// What it was in the undisturbed run.
    pub line: String,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.call, self.number, self.line)
    }
}

impl Fault {
    fn follows_children(self) -> bool {
        self == Fault::KillEither
    }

    /// Runs `program` with this fault at `point`.
    pub fn run(self, point: &Point, program: &mut Command) -> Output {
        let Point { call, number, .. } = point;
        let inject = match self {
            Fault::Kill | Fault::KillEither => format!("inject={call}:signal=KILL:when={number}"),
            Fault::Io => format!("inject={call}:error=EIO:when={number}"),
            Fault::NoSpace => format!("inject={call}:error=ENOSPC:when={number}+"),
        };
        let trace = format!("trace={call}");
        let mut arguments = vec!["-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        if self.follows_children() {
            arguments.push("-f");
        }
        strace(&arguments, program)
    }

    /// Runs `program` undisturbed and returns where this fault can be.
    pub fn points(self, scratch: &Path, root: &Path, program: &mut Command) -> Vec<Point> {
        let trace = format!("trace={}", CALLS.join(","));
        let file = scratch.to_str().unwrap();
        let mut arguments = vec!["-qq", "-y", "-s", "16", "-o", file, "-e", &trace];
        if self.follows_children() {
            arguments.push("-f");
        }
        let output = strace(&arguments, program);
        assert!(output.status.success(), "{output:?}");
        let shown = std::fs::read_to_string(scratch).unwrap();
        let root = root.to_str().unwrap();
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut points = Vec::new();
        for line in shown.lines() {
            // With -f each line begins with the process.
            let (process, text) = match self.follows_children() {
                true => line.split_once(' ').unwrap(),
                false => ("", line),
            };
            let text = text.trim_start();
            let Some((call, rest)) = text.split_once('(') else {
                continue; // a signal, an end, or the second half of a line
            };
            if !CALLS.contains(&call) {
                continue;
            }
            let number = counts.entry((process, call)).or_default();
            *number += 1;
            let changes = rest.contains(root)
                && (call != "openat" || rest.contains("O_CREAT") || rest.contains("O_TRUNC"))
                && !(self == Fault::NoSpace && WITHOUT_ROOM.contains(&call));
            let point = Point {
                call: call.to_owned(),
                number: *number,
                line: text.replace(root, ""),
            };
            let is_known = points
                .iter()
                .any(|known: &Point| known.call == point.call && known.number == point.number);
            if changes && !is_known {
                points.push(point);
            }
        }
        without_the_middle(points)
    }
}

/// Of several writes to one file with nothing between them, such as the pages of one transaction, the first and the last are enough.
fn without_the_middle(points: Vec<Point>) -> Vec<Point> {
    let file = |point: &Point| {
        let target = point.line.split(['<', '>']).nth(1);
        (point.call.clone(), target.map(str::to_owned))
    };
    let is_middle = |index: usize| {
        let this = &points[index];
        let neighbours = [
            index.checked_sub(1).and_then(|before| points.get(before)),
            points.get(index + 1),
        ];
        this.call == "pwrite64"
            && neighbours
                .into_iter()
                .all(|other| other.is_some_and(|other| file(other) == file(this)))
    };
    let kept = (0..points.len()).filter(|index| !is_middle(*index));
    kept.map(|index| points[index].clone()).collect()
}

fn strace(arguments: &[&str], program: &mut Command) -> Output {
    let mut command = Command::new("strace");
    command
        .args(arguments)
        .arg("--")
        .arg(program.get_program())
        .args(program.get_args())
        .env("NO_COLOR", "1");
    let output = command.output();
    output.unwrap_or_else(|error| panic!("failed to run strace, which these tests need: {error}"))
}
