//! The objects that the current and the last good revision need, kept on this host.
//!
//! With them enforcement, restarts and rollback need neither the fetcher nor the network. They are a copy of what the fetcher sent
//! and are trusted no more than that: every object is hashed when it is read, and a damaged one counts as missing.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use crate::git::{Hashed, Object, ObjectError, ObjectId, ObjectKind, Objects};
use crate::model::{Class, Failure};
use crate::record::opening::is_of_the_medium;
use crate::record::{is_damage, read_only_uri};

/// The layout of the tables below. Objects lie in the order in which they came, and only their ids, which come in none, in a tree of
/// their own: ten thousand of them fit into the cache, where the first layout wrote every page again and again. What a revision needs
/// is one list ([`Ids`]), which is compared and written as a whole, where version 1 had a row for each id.
const SCHEMA_VERSION: i64 = 2;

/// How many KiB of the database are kept in memory: the tree of ten thousand ids, and little else.
const CACHE_KIB: i64 = 512;

const SCHEMA: &str = "
    DROP TABLE IF EXISTS object;
    DROP TABLE IF EXISTS needed;
    CREATE TABLE object (
        id   BLOB PRIMARY KEY,
        kind INTEGER NOT NULL,
        data BLOB NOT NULL
    );
    CREATE TABLE needed (
        revision BLOB PRIMARY KEY,
        ids      BLOB NOT NULL
    );
";

/// From the first layout, which had no number, to version 1.
const TO_VERSION_1: &str = "
    ALTER TABLE object RENAME TO old;
    CREATE TABLE object (
        id   BLOB PRIMARY KEY,
        kind INTEGER NOT NULL,
        data BLOB NOT NULL
    );
    INSERT INTO object SELECT id, kind, data FROM old;
    DROP TABLE old;
";

/// From version 1, whose rows have been read.
const TO_VERSION_2: &str = "
    DROP TABLE needed;
    CREATE TABLE needed (
        revision BLOB PRIMARY KEY,
        ids      BLOB NOT NULL
    );
";

/// Ids of objects in order, one after the other: a list that is stored as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ids {
    /// Of one id: all are of one hash function.
    width: usize,
    bytes: Vec<u8>,
}

impl Ids {
    fn new(mut ids: Vec<ObjectId>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        Ids {
            width: ids.first().map_or(0, |id| id.as_slice().len()),
            bytes: ids.iter().flat_map(|id| id.as_slice()).copied().collect(),
        }
    }

    /// The list of `revision`, as it was stored.
    fn of(revision: &[u8], bytes: Vec<u8>) -> Self {
        let width = revision.len();
        Ids { width, bytes }
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks_exact(self.width.max(1))
    }

    fn contains(&self, id: &[u8]) -> bool {
        let (mut low, mut high) = (0, self.bytes.len() / self.width.max(1));
        while low < high {
            let middle = low + (high - low) / 2;
            let at = &self.bytes[middle * self.width..][..self.width];
            match at.cmp(id) {
                Ordering::Equal => return true,
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        false
    }
}

/// Makes the tables what [`SCHEMA_VERSION`] says.
fn bring_up_to_date(connection: &Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == SCHEMA_VERSION {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    let has_tables =
        connection.table_exists(None, "object")? && connection.table_exists(None, "needed")?;
    if has_tables && version <= 1 {
        if version == 0 {
            transaction.execute_batch(TO_VERSION_1)?;
        }
        let rows: Vec<(Vec<u8>, Vec<u8>)> = transaction
            .prepare("SELECT revision, id FROM needed ORDER BY revision, id")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        transaction.execute_batch(TO_VERSION_2)?;
        for list in rows.chunk_by(|one, other| one.0 == other.0) {
            let ids: Vec<u8> = list.iter().flat_map(|(_, id)| id).copied().collect();
            transaction.execute(
                "INSERT INTO needed (revision, ids) VALUES (?1, ?2)",
                params![list[0].0, ids],
            )?;
        }
    } else {
        // Of a newer limpet, or empty: what was there can be fetched again.
        transaction.execute_batch(SCHEMA)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

/// The local store of objects.
#[derive(Debug)]
pub struct ObjectStore {
    connection: Connection,
}

impl ObjectStore {
    /// Opens the store at `path`, creating it when there is none. `None` when what is there is damaged: it may be deleted, because it
    /// holds nothing that could not be fetched again.
    pub fn open(path: &Path) -> Result<Option<Self>, Failure> {
        match Self::try_open(path) {
            Ok(store) => Ok(Some(store)),
            Err(error) if is_damage(&error) => Ok(None),
            Err(error) => Err(failure(&error)),
        }
    }

    fn try_open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        bring_up_to_date(&connection)?;
        let store = ObjectStore { connection };
        store.check().map(|()| store)
    }

    /// Opens the store at `path` to read what is there, on a disk that takes nothing.
    pub fn open_read_only(path: &Path) -> Result<Self, Failure> {
        let open = |mode| -> rusqlite::Result<Self> {
            let uri = read_only_uri(path, mode);
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            let connection = Connection::open_with_flags(uri, flags)?;
            let store = ObjectStore { connection };
            store.check().map(|()| store)
        };
        open("mode=ro")
            .or_else(|_| open("immutable=1"))
            .map_err(|error| failure(&error))
    }

    /// Is it whole: damage deep inside would show only when an object is needed, perhaps without a network.
    pub fn is_whole(&self) -> bool {
        self.check().is_ok()
    }

    /// Was it opened only to be read.
    pub fn is_read_only(&self) -> bool {
        self.connection.is_readonly("main").unwrap_or(false)
    }

    fn check(&self) -> rusqlite::Result<()> {
        let found: String = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        match found.as_str() {
            "ok" => Ok(()),
            _ => Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
                Some(found),
            )),
        }
    }

    /// A store in memory, for looking at a revision without keeping it.
    pub fn in_memory() -> Result<Self, Failure> {
        Self::try_open(Path::new(":memory:")).map_err(|error| failure(&error))
    }

    /// Marks `used` as needed by `revision`, and drops every object that neither it nor a revision of `keep` needs.
    fn settle(&self, revision: &ObjectId, used: &Ids, keep: &[ObjectId]) -> rusqlite::Result<()> {
        let mut kept = Vec::new();
        let mut dropped = Vec::new();
        let lists: Vec<(Vec<u8>, Vec<u8>)> = self
            .connection
            .prepare_cached("SELECT revision, ids FROM needed")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let mut is_known = false;
        for (of, ids) in lists {
            let is_kept = keep.iter().any(|id| id.as_slice() == of);
            let ids = Ids::of(&of, ids);
            if of == revision.as_slice() {
                is_known = ids == *used;
                dropped.push(ids);
            } else if is_kept {
                kept.push(ids);
            } else {
                self.connection
                    .execute("DELETE FROM needed WHERE revision = ?1", [of])?;
                dropped.push(ids);
            }
        }
        if !is_known {
            self.connection
                .prepare_cached("INSERT OR REPLACE INTO needed (revision, ids) VALUES (?1, ?2)")?
                .execute(params![revision.as_slice(), used.bytes])?;
        }
        let mut drop_object = self
            .connection
            .prepare_cached("DELETE FROM object WHERE id = ?1")?;
        for id in dropped.iter().flat_map(Ids::iter) {
            if !used.contains(id) && !kept.iter().any(|list| list.contains(id)) {
                drop_object.execute([id])?;
            }
        }
        Ok(())
    }

    /// What `revision` needs, where that is known.
    fn needs_of(&self, revision: &ObjectId) -> rusqlite::Result<Option<Ids>> {
        self.connection
            .prepare_cached("SELECT ids FROM needed WHERE revision = ?1")?
            .query_row([revision.as_slice()], |row| row.get(0))
            .optional()
            .map(|found| found.map(|ids| Ids::of(revision.as_slice(), ids)))
    }

    fn insert(&self, id: &ObjectId, object: &Object) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO object (id, kind, data) VALUES (?1, ?2, ?3)")?
            .execute(params![
                id.as_slice(),
                kind_number(object.kind),
                object.data
            ])?;
        Ok(())
    }

    fn has(&self, id: &ObjectId) -> rusqlite::Result<bool> {
        self.connection
            .prepare_cached("SELECT 1 FROM object WHERE id = ?1")?
            .exists([id.as_slice()])
    }

    fn find(&self, id: &ObjectId) -> rusqlite::Result<Option<Object>> {
        self.connection
            .prepare_cached("SELECT kind, data FROM object WHERE id = ?1")?
            .query_row([id.as_slice()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
            })
            .optional()
            .map(|found| {
                found.and_then(|(kind, data)| {
                    Some(Object {
                        kind: kind_of_number(kind)?,
                        data,
                    })
                })
            })
    }
}

impl Objects for ObjectStore {
    fn get(&self, id: &ObjectId) -> Result<Object, ObjectError> {
        match self.find(id) {
            Ok(Some(object)) => match object.is_called(id) {
                true => Ok(object),
                false => Err(ObjectError::Missing(*id)),
            },
            Ok(None) => Err(ObjectError::Missing(*id)),
            Err(error) => Err(unreadable(&error)),
        }
    }
}

/// The store as it is at one moment, for reading many contents.
#[derive(Debug)]
pub struct Reading<'a> {
    store: &'a ObjectStore,
}

impl Reading<'_> {
    /// The bytes of the blob that the store calls `id`, unhashed: for who knows another hash of them and checks that.
    pub fn unchecked_blob(&self, id: &ObjectId) -> Result<Vec<u8>, ObjectError> {
        match self.store.find(id) {
            Ok(Some(object)) => Ok(object.data),
            Ok(None) => Err(ObjectError::Missing(*id)),
            Err(error) => Err(unreadable(&error)),
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        // It only read: there is nothing to lose.
        let _ = self.store.connection.execute_batch("COMMIT");
    }
}

impl ObjectStore {
    /// Begins to read many contents: what SQLite does for each read by itself, it does once.
    pub fn read(&self) -> Result<Reading<'_>, Failure> {
        self.connection
            .execute_batch("BEGIN")
            .map_err(|error| failure(&error))?;
        Ok(Reading { store: self })
    }
}

fn unreadable(error: &rusqlite::Error) -> ObjectError {
    ObjectError::Unavailable(format!("failed to read the object store: {error}"))
}

/// Reads from the store first and from `beyond` (the fetcher) when the store has nothing; what it read can then be kept.
///
/// New objects go into an open transaction as they arrive, so that a revision need not fit into memory; they are gone again unless
/// [`ReadThrough::keep`] is called. One at a time for each store.
pub struct ReadThrough<'a> {
    store: &'a ObjectStore,
    beyond: &'a dyn Objects,
    /// In the order of their use, some more than once.
    used: RefCell<Vec<ObjectId>>,
}

impl std::fmt::Debug for ReadThrough<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadThrough")
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

impl<'a> ReadThrough<'a> {
    /// Reads from `store`, then from `beyond`.
    pub fn new(store: &'a ObjectStore, beyond: &'a dyn Objects) -> Result<Self, Failure> {
        store
            .connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(|error| failure(&error))?;
        Ok(ReadThrough {
            store,
            beyond,
            used: RefCell::default(),
        })
    }

    /// Counts everything that `before` needs as read; false where that is not known.
    pub fn inherit(&self, before: &ObjectId) -> Result<bool, Failure> {
        let known = self
            .store
            .needs_of(before)
            .map_err(|error| failure(&error))?;
        let Some(known) = known else {
            return Ok(false);
        };
        let ids = known.iter().map(ObjectId::try_from);
        let ids: Result<Vec<ObjectId>, _> = ids.collect();
        Ok(ids.map(|ids| self.used.borrow_mut().extend(ids)).is_ok())
    }

    /// Keeps what was read for `revision`, durably, and drops every object that neither it nor a revision of `others` needs.
    pub fn keep(self, revision: &ObjectId, others: &[ObjectId]) -> Result<(), Failure> {
        let used = Ids::new(self.used.take());
        let settled = self.store.settle(revision, &used, others);
        settled
            .and_then(|()| self.store.connection.execute_batch("COMMIT"))
            .map_err(|error| failure(&error))?;
        // They are durable in the log; in the database itself they can be read on a disk that takes nothing, too.
        let _ = self
            .store
            .connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        Ok(())
    }
}

impl Drop for ReadThrough<'_> {
    fn drop(&mut self) {
        if !self.store.connection.is_autocommit() {
            // Nothing to do about a failure here: SQLite rolls back by itself when the connection ends.
            let _ = self.store.connection.execute_batch("ROLLBACK");
        }
    }
}

impl Objects for ReadThrough<'_> {
    fn get(&self, id: &ObjectId) -> Result<Object, ObjectError> {
        let object = match self.store.get(id) {
            Err(ObjectError::Missing(_)) => {
                let object = Hashed(self.beyond).get(id)?;
                self.store
                    .insert(id, &object)
                    .map_err(|error| ObjectError::Unavailable(failure(&error).message))?;
                object
            }
            found => found?,
        };
        self.used.borrow_mut().push(*id);
        Ok(object)
    }

    fn keeps(&self, id: &ObjectId) -> Result<bool, ObjectError> {
        let is_there = self.store.has(id).map_err(|error| unreadable(&error))?;
        if is_there {
            self.used.borrow_mut().push(*id);
        }
        Ok(is_there)
    }
}

/// Git's own numbers for object types in a pack (gitformat-pack).
fn kind_number(kind: ObjectKind) -> i64 {
    match kind {
        ObjectKind::Commit => 1,
        ObjectKind::Tree => 2,
        ObjectKind::Blob => 3,
        ObjectKind::Tag => 4,
    }
}

fn kind_of_number(number: i64) -> Option<ObjectKind> {
    match number {
        1 => Some(ObjectKind::Commit),
        2 => Some(ObjectKind::Tree),
        3 => Some(ObjectKind::Blob),
        4 => Some(ObjectKind::Tag),
        _ => None,
    }
}

fn failure(error: &rusqlite::Error) -> Failure {
    // SQLite's words for a disk that takes nothing do not always say so.
    let is_told = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
    let disk = match is_of_the_medium(error) && !is_told {
        true => "; its disk is full, read-only or in trouble",
        false => "",
    };
    Failure::new(
        Class::Host,
        format!("failed to use the object store: {error}{disk}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    struct Memory(HashMap<ObjectId, Object>);

    impl Objects for Memory {
        fn get(&self, id: &ObjectId) -> Result<Object, ObjectError> {
            self.0.get(id).cloned().ok_or(ObjectError::Missing(*id))
        }
    }

    fn blob(text: &str) -> (ObjectId, Object) {
        let object = Object {
            kind: ObjectKind::Blob,
            data: text.into(),
        };
        let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, object.kind, &object.data).unwrap();
        (id, object)
    }

    #[test]
    fn what_was_read_is_kept_and_what_nobody_needs_is_dropped() {
        let store = ObjectStore::in_memory().unwrap();
        let (old, new) = (blob("old"), blob("new"));
        let beyond = Memory(HashMap::from([old.clone(), new.clone()]));
        let (first, second) = (blob("first").0, blob("second").0);

        let through = ReadThrough::new(&store, &beyond).unwrap();
        assert_eq!(through.get(&old.0).unwrap(), old.1);
        through.keep(&first, &[]).unwrap();
        assert_eq!(store.get(&old.0).unwrap(), old.1);

        let through = ReadThrough::new(&store, &beyond).unwrap();
        through.get(&new.0).unwrap();
        through.keep(&second, &[first]).unwrap();
        assert_eq!(store.get(&new.0).unwrap(), new.1);
        assert_eq!(store.get(&old.0).unwrap(), old.1);

        ReadThrough::new(&store, &beyond)
            .unwrap()
            .keep(&second, &[])
            .unwrap();
        assert_eq!(store.get(&old.0), Err(ObjectError::Missing(old.0)));
    }

    #[test]
    fn what_was_only_asked_for_is_needed_as_what_was_read() {
        let store = ObjectStore::in_memory().unwrap();
        let (asked, other) = (blob("asked"), blob("other"));
        let beyond = Memory(HashMap::from([asked.clone(), other.clone()]));
        let (first, second) = (blob("first").0, blob("second").0);

        let through = ReadThrough::new(&store, &beyond).unwrap();
        // What is only beyond is not kept.
        assert_eq!(through.keeps(&asked.0), Ok(false));
        through.get(&asked.0).unwrap();
        through.get(&other.0).unwrap();
        through.keep(&first, &[]).unwrap();

        let through = ReadThrough::new(&store, &beyond).unwrap();
        assert_eq!(through.keeps(&asked.0), Ok(true));
        through.keep(&second, &[]).unwrap();
        assert_eq!(store.get(&asked.0), Ok(asked.1));
        assert_eq!(store.get(&other.0), Err(ObjectError::Missing(other.0)));
    }

    #[test]
    fn a_store_of_the_first_layout_keeps_its_objects() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("objects.db");
        let (id, object) = blob("kept");
        let revision = blob("revision").0;
        let old = Connection::open(&path).unwrap();
        old.execute_batch(
            "CREATE TABLE object (id BLOB PRIMARY KEY, kind INTEGER NOT NULL, data BLOB NOT NULL) WITHOUT ROWID;
             CREATE TABLE needed (revision BLOB NOT NULL, id BLOB NOT NULL, PRIMARY KEY (revision, id)) WITHOUT ROWID;",
        )
        .unwrap();
        old.execute(
            "INSERT INTO object VALUES (?1, 3, ?2)",
            params![id.as_slice(), object.data],
        )
        .unwrap();
        old.execute(
            "INSERT INTO needed VALUES (?1, ?2)",
            params![revision.as_slice(), id.as_slice()],
        )
        .unwrap();
        drop(old);
        for _ in 0..2 {
            let store = ObjectStore::open(&path).unwrap().unwrap();
            assert_eq!(store.get(&id).unwrap(), object);
        }
        let store = ObjectStore::open(&path).unwrap().unwrap();
        let beyond = Memory(HashMap::new());
        let through = ReadThrough::new(&store, &beyond).unwrap();
        through.keep(&blob("other").0, &[revision]).unwrap();
        assert_eq!(store.get(&id).unwrap(), object);
    }

    #[test]
    fn a_store_with_a_row_for_each_id_still_knows_what_is_needed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("objects.db");
        let store = ObjectStore::open(&path).unwrap().unwrap();
        let (shared, old, new) = (blob("shared"), blob("old"), blob("new"));
        for (id, object) in [&shared, &old, &new] {
            store.insert(id, object).unwrap();
        }
        store
            .connection
            .execute_batch(
                "DROP TABLE needed;
                 CREATE TABLE needed (revision BLOB NOT NULL, id BLOB NOT NULL, PRIMARY KEY (revision, id)) WITHOUT ROWID;
                 PRAGMA user_version = 1;",
            )
            .unwrap();
        let (first, second) = (blob("first").0, blob("second").0);
        for (revision, id) in [
            (first, shared.0),
            (first, old.0),
            (second, shared.0),
            (second, new.0),
        ] {
            store
                .connection
                .execute(
                    "INSERT INTO needed VALUES (?1, ?2)",
                    params![revision.as_slice(), id.as_slice()],
                )
                .unwrap();
        }
        drop(store);
        let store = ObjectStore::open(&path).unwrap().unwrap();
        let beyond = Memory(HashMap::new());
        let through = ReadThrough::new(&store, &beyond).unwrap();
        assert_eq!(through.inherit(&second), Ok(true));
        assert_eq!(through.inherit(&blob("third").0), Ok(false));
        through.keep(&blob("third").0, &[]).unwrap();
        assert_eq!(store.get(&shared.0), Ok(shared.1));
        assert_eq!(store.get(&new.0), Ok(new.1));
        assert_eq!(store.get(&old.0), Err(ObjectError::Missing(old.0)));
    }

    #[test]
    fn a_reader_sees_what_is_stored_and_leaves_the_store_free() {
        let store = ObjectStore::in_memory().unwrap();
        let (id, object) = blob("text");
        let beyond = Memory(HashMap::from([(id, object.clone())]));
        let through = ReadThrough::new(&store, &beyond).unwrap();
        through.get(&id).unwrap();
        through.keep(&id, &[]).unwrap();
        let reading = store.read().unwrap();
        assert_eq!(reading.unchecked_blob(&id).unwrap(), object.data);
        let other = blob("other").0;
        assert_eq!(
            reading.unchecked_blob(&other),
            Err(ObjectError::Missing(other))
        );
        drop(reading);
        ReadThrough::new(&store, &beyond)
            .unwrap()
            .keep(&id, &[])
            .unwrap();
    }

    #[test]
    fn what_is_not_kept_leaves_no_trace() {
        let store = ObjectStore::in_memory().unwrap();
        let (id, object) = blob("a revision that does not render");
        let beyond = Memory(HashMap::from([(id, object)]));
        ReadThrough::new(&store, &beyond).unwrap().get(&id).unwrap();
        assert_eq!(store.get(&id), Err(ObjectError::Missing(id)));
    }

    #[test]
    fn bytes_that_do_not_hash_to_the_id_are_refused_from_beyond_and_missing_in_the_store() {
        let store = ObjectStore::in_memory().unwrap();
        let (id, _) = blob("honest");
        let beyond = Memory(HashMap::from([(id, blob("hostile").1)]));
        let through = ReadThrough::new(&store, &beyond).unwrap();
        assert_eq!(through.get(&id), Err(ObjectError::HashMismatch(id)));
        drop(through);

        store
            .connection
            .execute(
                "INSERT INTO object VALUES (?1, 3, ?2)",
                params![id.as_slice(), b"hostile"],
            )
            .unwrap();
        assert_eq!(store.get(&id), Err(ObjectError::Missing(id)));
    }
}
