//! The fetcher against real servers, real repositories, and peers that misbehave.
#![allow(clippy::disallowed_methods)] // tests make their own files and run their own programs
#![allow(clippy::unwrap_used)] // also outside of functions marked as tests

use limpet::git::{Object, ObjectError, ObjectId, ObjectKind, Objects};
use limpet::model::Failure;

#[path = "../fixture/git_server.rs"]
mod git_server;
#[path = "../fixture/ssh_server.rs"]
mod ssh_server;

mod bundle;
mod hostile;
mod idle;
mod local;
mod mirrors;
mod proxy;
mod releases;
mod remote;
mod setting;
mod socket;
mod ssh;

/// A failure as people read it, with what differs from run to run replaced.
fn show(failure: &Failure, replacements: &[(&str, &str)]) -> String {
    let hint = failure.hint.as_deref().unwrap_or("none");
    let mut text = format!("{:?}: {failure}\nhint: {hint}", failure.class);
    for (from, to) in replacements {
        text = text.replace(from, to);
    }
    text
}

/// Waits until `is_true`, but not for ever.
#[track_caller]
fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_true() {
        assert!(
            start.elapsed() < std::time::Duration::from_secs(10),
            "waited in vain until {what}"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Reads commit, tree and all blobs below it, and says how many objects that are.
fn read_all(objects: &impl Objects, commit: ObjectId) -> Result<usize, ObjectError> {
    let hashed = Checked(objects);
    let commit = hashed.get(&commit)?;
    assert_eq!(commit.kind, ObjectKind::Commit);
    let text = String::from_utf8(commit.data).unwrap();
    let tree = text.lines().next().unwrap().strip_prefix("tree ").unwrap();
    Ok(1 + read_tree(&hashed, tree.parse().unwrap())?)
}

fn read_tree(objects: &Checked<'_, impl Objects>, id: ObjectId) -> Result<usize, ObjectError> {
    let tree = objects.get(&id)?;
    let mut count = 1;
    for entry in gix::objs::TreeRefIter::from_bytes(&tree.data, id.kind()) {
        let entry = entry.unwrap();
        count += if entry.mode.is_tree() {
            read_tree(objects, entry.oid.to_owned())?
        } else {
            objects.get(&entry.oid.to_owned())?;
            1
        };
    }
    Ok(count)
}

/// [`limpet::git::Hashed`] over a borrowed store.
struct Checked<'store, O>(&'store O);

impl<O: Objects> Objects for Checked<'_, O> {
    fn get(&self, id: &ObjectId) -> Result<Object, ObjectError> {
        let object = self.0.get(id)?;
        let actual = gix::objs::compute_hash(id.kind(), object.kind, &object.data).unwrap();
        assert_eq!(actual, *id);
        Ok(object)
    }
}
