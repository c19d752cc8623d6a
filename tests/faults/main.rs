//! What `limpet apply --once` leaves when it is killed, or the disk fails it, at each of its writes. Needs no root, but strace.
//!
//! The program is the real one, without any hook: strace shows each system call by which an undisturbed run changes the disk, and then
//! makes one of them fail, or kills the program before it. `LIMPET_FAULTS=all` tries every one of them, as `tests/run` does; otherwise
//! it is the first, the last, and some between them, of each system call, and every barrier.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test stops where something is wrong, and looks at the machine from outside"
)]

#[path = "../fixture/repository.rs"]
mod repository;

mod damage;
mod disk;
mod ground;
mod trace;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use ground::{Ground, Stage, Worker};
use trace::{Fault, Point};

/// Of the points of one system call, every how many are tried when not all are.
const STRIDE: usize = 60;

#[test]
fn a_run_killed_before_any_of_its_writes_leaves_old_or_new_and_the_next_one_finishes() {
    sweep(Fault::Kill);
}

#[test]
fn a_write_that_the_disk_fails_leaves_old_or_new_and_the_next_run_finishes() {
    sweep(Fault::Io);
}

#[test]
fn a_disk_that_is_full_from_any_write_on_leaves_old_or_new_and_the_next_run_finishes() {
    sweep(Fault::NoSpace);
}

#[test]
fn a_fetcher_that_dies_at_any_of_its_writes_is_only_a_source_that_did_not_answer() {
    sweep(Fault::KillEither);
}

/// Tries `fault` at every point of every stage, on as many machines at a time as there are processors.
fn sweep(fault: Fault) {
    let ground = Ground::new();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut workers: Vec<Worker> = (0..workers).map(|number| ground.worker(number)).collect();
    let mut points = VecDeque::new();
    for stage in Stage::ALL {
        let found = workers[0].points(stage, fault);
        let all = found.len();
        let found = chosen(found);
        eprintln!("{fault:?} {stage:?}: {} of {all} points", found.len());
        points.extend(found.into_iter().map(|point| (stage, point)));
    }
    assert!(points.len() > 30, "strace shows hardly any write");
    let points = Mutex::new(points);
    let findings = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in &mut workers {
            scope.spawn(|| {
                loop {
                    let Some((stage, point)) = points.lock().unwrap().pop_front() else {
                        return;
                    };
                    if let Err(finding) = worker.try_point(stage, fault, &point) {
                        let line = format!("{stage:?}, {fault:?} at {point}: {finding}");
                        eprintln!("{line}");
                        findings.lock().unwrap().push(line);
                    }
                }
            });
        }
    });
    let findings = findings.into_inner().unwrap();
    assert!(findings.is_empty(), "{}", findings.join("\n\n"));
}

/// The points that are tried.
fn chosen(points: Vec<Point>) -> Vec<Point> {
    if std::env::var("LIMPET_FAULTS").is_ok_and(|which| which == "all") {
        return points;
    }
    let mut of_call: BTreeMap<&str, Vec<&Point>> = BTreeMap::new();
    for point in &points {
        of_call.entry(&point.call).or_default().push(point);
    }
    of_call
        .into_values()
        .flat_map(|points| {
            let last = points.len() - 1;
            let is_barrier = points[0].call == "syncfs";
            let is_chosen =
                move |index: usize| is_barrier || index.is_multiple_of(STRIDE) || index == last;
            points
                .into_iter()
                .enumerate()
                .filter(move |(index, _)| is_chosen(*index))
        })
        .map(|(_, point)| point.clone())
        .collect()
}
