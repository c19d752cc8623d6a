//! Databases that are cut off anywhere, or gone.

use std::fs;
use std::path::PathBuf;

use crate::disk;
use crate::ground::{Ground, Stage, Worker, said};

/// At how many lengths a database is cut off.
const LENGTHS: u64 = 16;

/// Lengths from nothing to all but the last page, most of them inside of a page. In the last page there may be nothing to lose.
fn lengths(size: u64) -> impl Iterator<Item = u64> {
    let most = size - 4096;
    let inside = (1..LENGTHS).map(move |number| (most * number / LENGTHS) ^ (number * 37 % 512));
    [0, most].into_iter().chain(inside)
}

/// The machine before the last stage, somebody having changed a file by hand, and `database` of it.
fn prepare(worker: &Worker, database: &str) -> PathBuf {
    worker.prepare(Stage::Back);
    fs::write(worker.root().join("etc/motd"), "drift\n").unwrap();
    let path = worker.root().join("var/lib/limpet").join(database);
    assert!(path.exists(), "{}", path.display());
    path
}

#[test]
fn a_state_database_cut_off_anywhere_fails_closed_and_enforcement_goes_on() {
    let ground = Ground::new();
    let worker = ground.worker(0);
    let size = fs::metadata(prepare(&worker, "state.db")).unwrap().len();
    let second = worker.disk_before(Stage::Back);
    for length in lengths(size).map(Some).chain([None]) {
        let database = prepare(&worker, "state.db");
        match length {
            Some(length) => {
                let file = fs::File::options().write(true).open(&database).unwrap();
                file.set_len(length).unwrap();
            }
            None => fs::remove_file(&database).unwrap(),
        }
        // The published revision would take nearly everything back.
        for _ in 0..2 {
            let run = worker.program().output().unwrap();
            assert_eq!(run.status.code(), Some(77), "{length:?}: {}", said(&run));
            let found = disk::read(&worker.root());
            let differences = disk::differences(&found, second);
            assert!(differences.is_empty(), "{length:?}: {differences:?}");
            assert!(said(&run).contains("state-missing"), "{}", said(&run));
        }
    }
}

#[test]
fn an_object_store_cut_off_anywhere_is_filled_again() {
    let ground = Ground::new();
    let worker = ground.worker(0);
    let name = "objects/objects.db";
    let size = fs::metadata(prepare(&worker, name)).unwrap().len();
    for length in lengths(size).map(Some).chain([None]) {
        let database = prepare(&worker, name);
        match length {
            Some(length) => {
                let file = fs::File::options().write(true).open(&database).unwrap();
                file.set_len(length).unwrap();
            }
            None => fs::remove_file(&database).unwrap(),
        }
        worker.publish(Stage::Second);
        let (run, found) = (
            worker.program().output().unwrap(),
            disk::read(&worker.root()),
        );
        let differences = disk::differences(&found, worker.disk_before(Stage::Back));
        assert!(
            differences.is_empty(),
            "{length:?}: {differences:?}: {}",
            said(&run)
        );
        worker.publish(Stage::Back);
        worker.apply_cleanly("the next revision").unwrap();
    }
}
