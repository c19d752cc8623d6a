//! Opening what this host remembers, and what to do when it is gone.
//!
//! The trusted head is kept twice: in state.db and, written after it, in the *second mark* `/etc/limpet/enrolled`. A host that has
//! the mark but lost the database was enrolled once: it goes on enforcing the marked revision, removes nothing, and accepts nothing
//! new, because falling back to the anchor would let a hostile server take it back in time.

use crate::config;
use crate::cycle::layout;
use crate::model::{Class, Failure};
use crate::record::Record;
use crate::record::objects::ObjectStore;
use crate::sys::Host;
use crate::trust::TrustedHead;

/// Under which name the record keeps the trusted head.
pub(super) const HEAD: &str = "trusted-head";

/// Under which name the record keeps the name this host was enrolled by.
pub(super) const HOST_NAME: &str = "host-name";

/// Under which name the record keeps the trusted head before the last one.
pub(super) const HEAD_BEFORE: &str = "trusted-head-before";

/// What the second mark says.
enum Mark {
    Absent,
    Of(TrustedHead),
    Unreadable(Failure),
}

/// The largest second mark we read, in bytes.
const MARK_LIMIT: u64 = 64 << 10;

/// What this host remembers.
#[derive(Debug)]
pub struct State {
    /// The database; in memory when the real one is missing.
    pub record: Record,
    /// The objects of the revision in force.
    pub objects: ObjectStore,
    /// The last trusted head.
    pub head: Option<TrustedHead>,
    /// Set when trust state is missing: the marked revision is enforced, nothing is removed, and nothing new is accepted.
    pub missing: Option<Failure>,
    /// Set when the state is whole but cannot be written, on a full or read-only disk: it is opened again when that has passed.
    pub unwritable: Option<Failure>,
}

/// Opens the state of `host`, creating it on a host that was never enrolled.
///
/// Trust state that is missing or damaged fails closed, see [`State::missing`]; a disk that cannot be written is another matter, see
/// [`State::unwritable`].
pub fn open(host: &Host) -> Result<State, Failure> {
    let mut unwritable = None;
    for directory in [
        config::STATE_DIRECTORY,
        config::OBJECTS_DIRECTORY,
        config::ORIGINALS_DIRECTORY,
    ] {
        keep_first(&mut unwritable, host.ensure_own_directory(directory, 0o700));
    }
    let objects = match open_objects(host) {
        Ok(objects) => {
            if objects.is_read_only() {
                let message = "failed to use the object store: its disk is full or read-only";
                keep_first(&mut unwritable, Err(Failure::new(Class::Host, message)));
            }
            objects
        }
        Err(failure) => {
            keep_first(&mut unwritable, Err(failure));
            ObjectStore::open_read_only(&host.outer_path(config::OBJECTS_DATABASE))
                .or_else(|_| ObjectStore::in_memory())?
        }
    };
    let mark = match read_mark(host) {
        Ok(Some(mark)) => Mark::Of(mark),
        Ok(None) => Mark::Absent,
        Err(failure) => Mark::Unreadable(failure),
    };
    let database = host.outer_path(config::STATE_DATABASE);
    let existed = host.exists(config::STATE_DATABASE)?;
    if existed && let Err(failure) = layout::prepare(host) {
        // Opening it says more, where it is damaged or of a newer limpet.
        tracing::debug!("failed to look at the layout of the state, ignoring: {failure}");
    }
    let opened = if !matches!(mark, Mark::Absent) && !existed {
        Err(Failure::new(
            Class::Host,
            format!("the state database '{}' is missing", config::STATE_DATABASE),
        ))
    } else {
        Record::open_or_copy(&database).and_then(|(record, why_copy)| {
            record.check()?;
            let head: Option<TrustedHead> = record.recall(HEAD)?;
            keep_first(&mut unwritable, why_copy.map_or(Ok(()), Err));
            Ok((record, head))
        })
    };
    let mut state = match (opened, mark) {
        (Ok((record, None)), Mark::Absent) => State::of(record, objects, None),
        (Ok((record, Some(head))), mark) => {
            let before: Option<TrustedHead> = record.recall(HEAD_BEFORE)?;
            let head = match mark {
                Mark::Of(mark) if mark == head => head,
                // A copy may lack what was only in the log; the mark is never ahead of what was trusted, but it may be behind.
                Mark::Of(mark) if record.is_copy() && Some(&mark) != before.as_ref() => mark,
                // A crash came between the two writes, or the mark itself was damaged.
                Mark::Of(mark) if Some(&mark) != before.as_ref() => {
                    return missing(
                        objects,
                        Some(mark),
                        "it is older than '/etc/limpet/enrolled'",
                    );
                }
                Mark::Of(_) | Mark::Unreadable(_) | Mark::Absent => {
                    keep_first(&mut unwritable, write_mark(host, &head));
                    head
                }
            };
            State::of(record, objects, Some(head))
        }
        (Ok((_, None)), Mark::Of(mark)) => {
            let cause = "it does not know the trusted head that '/etc/limpet/enrolled' remembers";
            return missing(objects, Some(mark), cause);
        }
        (Ok((_, None)), Mark::Unreadable(failure)) => {
            return missing(objects, None, &failure.message);
        }
        (Err(failure), Mark::Of(mark)) => return missing(objects, Some(mark), &failure.message),
        // On a host that was never enrolled there is no database yet.
        (Err(failure), Mark::Absent) if !existed => return Err(failure),
        (Err(failure), Mark::Absent | Mark::Unreadable(_)) => {
            return missing(objects, None, &failure.message);
        }
    };
    state.unwritable = unwritable;
    Ok(state)
}

fn keep_first(slot: &mut Option<Failure>, result: Result<(), Failure>) {
    if let Err(failure) = result {
        slot.get_or_insert(failure);
    }
}

impl State {
    fn of(record: Record, objects: ObjectStore, head: Option<TrustedHead>) -> Self {
        State {
            record,
            objects,
            head,
            missing: None,
            unwritable: None,
        }
    }
}

fn missing(objects: ObjectStore, mark: Option<TrustedHead>, cause: &str) -> Result<State, Failure> {
    let consequence = match mark {
        Some(_) => "enforcing the last revision, accepting nothing new",
        None => "which revision was the last is not known either, so nothing is enforced",
    };
    let failure = Failure::new(
        Class::Refused,
        format!("trust state is missing (state-missing): {cause}; {consequence}"),
    )
    .with_hint("if this host was restored on purpose, enrol it again with 'limpet enroll' and a recent anchor");
    Ok(State {
        missing: Some(failure),
        ..State::of(Record::in_memory()?, objects, mark)
    })
}

/// Opens the object store, anew where it is damaged: what was in it can be read again from the source.
pub(super) fn open_objects(host: &Host) -> Result<ObjectStore, Failure> {
    let path = host.outer_path(config::OBJECTS_DATABASE);
    if let Some(store) = ObjectStore::open(&path)? {
        return Ok(store);
    }
    for suffix in ["", "-wal", "-shm"] {
        host.remove_own_file(&format!("{}{suffix}", config::OBJECTS_DATABASE))?;
    }
    ObjectStore::open(&path)?.ok_or_else(|| {
        Failure::new(
            Class::Host,
            format!(
                "failed to make the object store '{}' anew",
                config::OBJECTS_DATABASE
            ),
        )
    })
}

/// The trusted head that the second mark remembers; anybody may read it.
pub fn read_mark(host: &Host) -> Result<Option<TrustedHead>, Failure> {
    let Some(bytes) = host.read_file(config::ENROLLED_MARK, MARK_LIMIT)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        Failure::new(
            Class::Host,
            format!(
                "failed to read the second mark '{}': {error}",
                config::ENROLLED_MARK
            ),
        )
        .with_hint("enrol this host again with 'limpet enroll' and a recent anchor")
    })
}

/// What the two places that remember the trusted head say.
#[derive(Debug)]
pub enum Marks {
    /// Neither remembers anything.
    None,
    /// Both remember this.
    Agree(Box<TrustedHead>),
    /// A crash came between the two writes; the next start finishes it.
    Unfinished,
    /// Only the second mark remembers anything.
    Lost,
    /// They remember different revisions.
    Differ,
}

/// Compares the two places that remember the trusted head, and changes neither.
pub fn compare_marks(host: &Host) -> Result<Marks, Failure> {
    let mark = read_mark(host)?;
    let (head, before): (Option<TrustedHead>, Option<TrustedHead>) =
        match host.exists(config::STATE_DATABASE)? {
            false => (None, None),
            true => {
                let record = Record::open_read_only(&host.outer_path(config::STATE_DATABASE))?;
                (record.recall(HEAD)?, record.recall(HEAD_BEFORE)?)
            }
        };
    Ok(match (head, mark) {
        (None, None) => Marks::None,
        (None, Some(_)) => Marks::Lost,
        (Some(_), None) => Marks::Unfinished,
        (Some(head), Some(mark)) if head == mark => Marks::Agree(Box::new(head)),
        (Some(_), mark) if mark == before => Marks::Unfinished,
        (Some(_), Some(_)) => Marks::Differ,
    })
}

/// Moves the trusted head: first in the database, then in the second mark.
pub fn trust(host: &Host, record: &Record, head: &TrustedHead) -> Result<(), Failure> {
    let before: Option<TrustedHead> = record.recall(HEAD)?;
    if let Some(before) = before.filter(|before| before != head) {
        // Where the mark could not be written the last time, the one before is what it still says, and is recognised by.
        let marked = read_mark(host).ok().flatten();
        if marked.is_none() || marked != record.recall(HEAD_BEFORE)? {
            record.remember(HEAD_BEFORE, &before)?;
        }
    }
    record.remember(HEAD, head)?;
    record.settle()?;
    write_mark(host, head)
}

/// Begins to remember again where trust state was missing, with this head; what is left of the database is kept if it can be read.
pub(super) fn begin_anew(host: &Host, head: &TrustedHead) -> Result<(), Failure> {
    let database = host.outer_path(config::STATE_DATABASE);
    if host.exists(config::STATE_DATABASE)? && Record::is_damaged(&database) {
        set_aside(host)?;
    }
    let record = Record::open(&database)?;
    trust(host, &record, head)
}

/// Writes the second mark where somebody removed it.
pub fn ensure_mark(host: &Host, head: &TrustedHead) -> Result<(), Failure> {
    match host.exists(config::ENROLLED_MARK)? {
        true => Ok(()),
        false => write_mark(host, head),
    }
}

fn write_mark(host: &Host, head: &TrustedHead) -> Result<(), Failure> {
    let mut mark = serde_json::to_vec_pretty(head).map_err(|error| {
        Failure::new(
            Class::Bug,
            format!("failed to write the second mark: {error}"),
        )
    })?;
    mark.push(b'\n');
    host.write_own_file(config::ENROLLED_MARK, &mark, 0o644)
}

/// Forgets the trusted head in both places, so that the next cycle starts from the anchor; what limpet owns is remembered. Only a
/// person who enrols a host again may cause this.
pub fn forget_trust(host: &Host) -> Result<(), Failure> {
    if host.exists(config::STATE_DATABASE)? {
        let database = host.outer_path(config::STATE_DATABASE);
        if Record::is_damaged(&database) {
            set_aside(host)?;
        } else {
            let record = Record::open(&database)?;
            for name in [HEAD, HEAD_BEFORE, HOST_NAME] {
                record.forget(name)?;
            }
        }
    }
    host.remove_own_file(config::ENROLLED_MARK)
}

/// Puts a database that cannot be opened out of the way without losing it.
fn set_aside(host: &Host) -> Result<(), Failure> {
    for suffix in ["-wal", "-shm"] {
        host.remove_own_file(&format!("{}{suffix}", config::STATE_DATABASE))?;
    }
    host.rename_own_file(
        config::STATE_DATABASE,
        &format!("{}.damaged", config::STATE_DATABASE),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(digit: &str) -> TrustedHead {
        serde_json::from_value(serde_json::json!({
            "commit": digit.repeat(40),
            "payload_sha256": digit.repeat(64),
            "tree": digit.repeat(40),
            "fleet": null,
            "signer": null,
        }))
        .unwrap()
    }

    /// An enrolled machine that trusts the head 1.
    fn machine() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        host.ensure_own_directory("/etc/limpet", 0o755).unwrap();
        let state = open(&host).unwrap();
        trust(&host, &state.record, &head("1")).unwrap();
        (root, host)
    }

    #[test]
    fn a_mark_that_could_not_be_written_twice_is_no_loss_of_state() {
        let (_root, host) = machine();
        let state = open(&host).unwrap();
        for next in ["2", "3", "3"] {
            trust(&host, &state.record, &head(next)).unwrap();
            // The file system below /etc was read-only.
            write_mark(&host, &head("1")).unwrap();
        }
        drop(state);
        let state = open(&host).unwrap();
        assert_eq!((state.missing, state.head), (None, Some(head("3"))));
        assert_eq!(read_mark(&host).unwrap(), Some(head("3")));
        drop(state.record);
        // From then on it is the head before that a crash may leave there, and no older one.
        let state = open(&host).unwrap();
        trust(&host, &state.record, &head("4")).unwrap();
        write_mark(&host, &head("1")).unwrap();
        drop(state);
        assert!(open(&host).unwrap().missing.is_some());
    }

    #[test]
    fn a_database_that_lies_before_its_mark_fails_closed() {
        let (_root, host) = machine();
        write_mark(&host, &head("2")).unwrap();
        let state = open(&host).unwrap();
        assert!(state.missing.is_some());
        assert_eq!(state.head, Some(head("2")));
    }
}
