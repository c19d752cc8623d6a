//! What limpet remembers: `state.db`.
//!
//! The *trusted head* is the last commit this host believed, the *inventory* is everything limpet applied and what was there
//! before, *owed* effects are what a change made necessary (restarts, reloads, commands), and *history* is what was really done.
//!
//! Invariant: what must survive a crash is on disk before the machine changes. Every method is one transaction with
//! `synchronous=FULL`; a method that returned `Ok` is not undone by a power cut.
//!
//! A disk that is full or read-only is no loss of state: then the record is read, and every method that writes fails.

use std::cell::RefCell;
use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::model::{Action, Class, Failure, OnRemoval, ResourceId};

pub mod former;
pub mod history;
pub mod layout;
pub mod objects;
mod opening;
pub mod owed;
mod writing;

pub use writing::Writing;

use opening::{is_damage, read_only_uri, with_remedy};

pub use former::{Former, Rejection};
pub use history::HistoryEntry;
pub use owed::Owed;

/// The layout of the tables below; a database of a newer layout is refused, an older one is brought up to date.
const SCHEMA_VERSION: i64 = 5;

/// The first layout; those after it are what the modules below add.
const SCHEMA: &str = "
    CREATE TABLE memory (
        name  TEXT PRIMARY KEY,
        value TEXT NOT NULL
    );
    CREATE TABLE inventory (
        kind       TEXT NOT NULL,
        key        TEXT NOT NULL,
        resource   TEXT NOT NULL,
        on_removal TEXT NOT NULL,
        applied    TEXT NOT NULL,
        original   TEXT NOT NULL,
        revision   TEXT NOT NULL,
        made       INTEGER NOT NULL,
        PRIMARY KEY (kind, key)
    );
    CREATE TABLE owed (
        unit     TEXT NOT NULL,
        action   TEXT NOT NULL,
        because  TEXT NOT NULL,
        revision TEXT NOT NULL,
        since    TEXT NOT NULL,
        PRIMARY KEY (unit, action)
    );
    CREATE TABLE history (
        id       INTEGER PRIMARY KEY AUTOINCREMENT,
        at       TEXT NOT NULL,
        revision TEXT NOT NULL,
        resource TEXT,
        action   TEXT NOT NULL,
        reason   TEXT NOT NULL,
        drift    INTEGER NOT NULL,
        outcome  TEXT NOT NULL,
        detail   TEXT NOT NULL
    );
";

/// What the third layout adds: what a removal has to respect once nothing declares it any more.
const LAYOUT_3: &str = "
    ALTER TABLE inventory ADD COLUMN prevent_removal INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE inventory ADD COLUMN needs TEXT NOT NULL DEFAULT '[]';
";

/// More changed lines of the inventory than this are not counted one by one.
const MAX_CHANGED_KEYS: usize = 1_000;
/// The open database.
#[derive(Debug)]
pub struct Record {
    connection: Connection,
    /// Debts that were paid while that could not be written down: paid again, a full disk would restart a service in every cycle.
    paid: RefCell<BTreeSet<(ResourceId, Action)>>,
    /// A copy in memory of what cannot be written.
    is_copy: bool,
    changes: RefCell<Changes>,
    /// SQLite's count of what other connections wrote, when it was asked last.
    data_version: std::cell::Cell<i64>,
}

/// What was written to the inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// Anything.
    Everything,
    /// Lines of these kinds and keys.
    Keys(BTreeSet<(String, String)>),
}

impl Changes {
    fn add(&mut self, kind: &str, key: &str) {
        match self {
            Changes::Keys(keys) if keys.len() < MAX_CHANGED_KEYS => {
                keys.insert((kind.to_owned(), key.to_owned()));
            }
            _ => *self = Changes::Everything,
        }
    }
}

/// One line of the inventory as it lies in the database.
#[derive(Debug)]
pub struct InventoryLine<'a> {
    /// Which kind's name space `key` is in.
    pub kind: &'a str,
    /// What is owned.
    pub key: &'a str,
    /// What declared it last.
    pub resource: ResourceId,
    /// What happens when it is no longer declared.
    pub on_removal: OnRemoval,
    /// What was applied last: JSON in the kind's words.
    pub applied: &'a str,
    /// What was there before: JSON in the kind's words.
    pub original: &'a str,
    /// Is it known to be applied.
    pub made: bool,
    /// Its removal waits for a person.
    pub prevent_removal: bool,
    /// What it needed.
    pub needs: Vec<ResourceId>,
}

impl<'a> InventoryLine<'a> {
    fn of(row: &'a rusqlite::Row<'_>) -> Result<Self, Failure> {
        let text = |index: usize| -> Result<&'a str, Failure> {
            let value = row.get_ref(index).map_err(failure)?;
            value
                .as_str()
                .map_err(|error| damaged("the inventory", &error))
        };
        let key = text(1)?;
        let damage =
            |error: &dyn std::fmt::Display| damaged(&format!("inventory entry '{key}'"), error);
        Ok(InventoryLine {
            kind: text(0)?,
            key,
            resource: text(2)?.parse().map_err(|error| damage(&error))?,
            on_removal: serde_json::from_str(text(3)?).map_err(|error| damage(&error))?,
            applied: text(4)?,
            original: text(5)?,
            made: row.get(6).map_err(failure)?,
            prevent_removal: row.get(7).map_err(failure)?,
            needs: match text(8)? {
                "[]" => Vec::new(),
                needs => serde_json::from_str(needs).map_err(|error| damage(&error))?,
            },
        })
    }
}

/// One thing limpet applied, as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InventoryEntry {
    /// Which kind's name space `key` is in: `path`, `package` or `unit`.
    pub kind: String,
    /// What is owned: a path, a package, a unit.
    pub key: String,
    /// What declared it last.
    pub resource: ResourceId,
    /// What happens when it is no longer declared.
    pub on_removal: OnRemoval,
    /// What was applied last: JSON in the kind's words.
    pub applied: String,
    /// What was there before: JSON in the kind's words.
    pub original: String,
    /// False from when it is about to be applied until it is known to be.
    pub made: bool,
    /// Its removal waits for a person.
    pub prevent_removal: bool,
    /// What it needs.
    pub needs: Vec<ResourceId>,
}

impl From<InventoryLine<'_>> for InventoryEntry {
    fn from(line: InventoryLine<'_>) -> Self {
        InventoryEntry {
            kind: line.kind.to_owned(),
            key: line.key.to_owned(),
            resource: line.resource,
            on_removal: line.on_removal,
            applied: line.applied.to_owned(),
            original: line.original.to_owned(),
            made: line.made,
            prevent_removal: line.prevent_removal,
            needs: line.needs,
        }
    }
}

impl Record {
    /// The value remembered as `name`.
    pub fn recall<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failure> {
        let text: Option<String> = self
            .connection
            .query_row("SELECT value FROM memory WHERE name = ?1", [name], |row| {
                row.get(0)
            })
            .optional()
            .map_err(failure)?;
        match text {
            None => Ok(None),
            Some(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| damaged(name, &error)),
        }
    }

    /// Remembers `value` as `name`.
    pub fn remember<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| damaged(name, &error))?;
        self.connection
            .execute(
                "INSERT OR REPLACE INTO memory (name, value) VALUES (?1, ?2)",
                params![name, text],
            )
            .map_err(failure)?;
        Ok(())
    }

    /// Forgets what was remembered as `name`.
    pub fn forget(&self, name: &str) -> Result<(), Failure> {
        self.connection
            .execute("DELETE FROM memory WHERE name = ?1", [name])
            .map_err(failure)?;
        Ok(())
    }

    /// Everything limpet applied, by kind and key.
    pub fn inventory(&self) -> Result<Vec<InventoryEntry>, Failure> {
        let mut entries = Vec::new();
        self.read_inventory(&mut |line| {
            entries.push(InventoryEntry::from(line));
            Ok(())
        })?;
        Ok(entries)
    }

    /// Shows every line of the inventory to `take`, by kind and key.
    pub fn read_inventory(
        &self,
        take: &mut dyn FnMut(InventoryLine<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT kind, key, resource, on_removal, applied, original, made, prevent_removal, needs FROM inventory ORDER BY kind, key")
            .map_err(failure)?;
        let mut rows = statement.query([]).map_err(failure)?;
        while let Some(row) = rows.next().map_err(failure)? {
            take(InventoryLine::of(row)?)?;
        }
        Ok(())
    }

    /// Shows the line of the inventory with this kind and key to `take`, if there is one.
    pub fn read_inventory_line(
        &self,
        kind: &str,
        key: &str,
        take: &mut dyn FnMut(InventoryLine<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT kind, key, resource, on_removal, applied, original, made, prevent_removal, needs FROM inventory WHERE kind = ?1 AND key = ?2")
            .map_err(failure)?;
        let mut rows = statement.query([kind, key]).map_err(failure)?;
        match rows.next().map_err(failure)? {
            Some(row) => take(InventoryLine::of(row)?),
            None => Ok(()),
        }
    }

    /// What was written to the inventory, by whomever, since this was asked last.
    pub fn take_changes(&self) -> Result<Changes, Failure> {
        let version = self
            .connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(failure)?;
        let changes = self.changes.replace(Changes::Keys(BTreeSet::new()));
        if self.data_version.replace(version) == version {
            Ok(changes)
        } else {
            Ok(Changes::Everything)
        }
    }

    /// Begins to write what belongs to one moment of applying `revision`: all of it will be there, or nothing.
    pub fn write<'a>(&'a mut self, revision: &'a str) -> Result<Writing<'a>, Failure> {
        let transaction = self.connection.transaction().map_err(failure)?;
        Ok(Writing::new(
            transaction,
            revision,
            &self.changes,
            &self.paid,
        ))
    }

    /// Writes ahead of a batch: what is about to be owned, with what was there before, and what will be owed.
    ///
    /// The original of something already owned is never overwritten.
    pub fn intend(
        &mut self,
        revision: &str,
        entries: &[InventoryEntry],
        owed: &[Owed],
        at: Timestamp,
    ) -> Result<(), Failure> {
        let writing = self.write(revision)?;
        for entry in entries {
            writing.own(entry)?;
        }
        for debt in owed {
            writing.owe(debt, at)?;
        }
        writing.commit()
    }

    /// Records what became of a batch: what is owned now, what no longer is, which debts were paid, and the history of it.
    pub fn conclude(
        &mut self,
        revision: &str,
        owned: &[InventoryEntry],
        released: &[(String, String)],
        paid: &[(ResourceId, Action)],
        history: &[HistoryEntry],
    ) -> Result<(), Failure> {
        for (debtor, action) in paid {
            self.note_paid(debtor, *action);
        }
        let mut writing = self.write(revision)?;
        for entry in owned {
            writing.own(entry)?;
        }
        for (kind, key) in released {
            writing.release(kind, key)?;
        }
        for entry in history {
            writing.note(entry)?;
        }
        writing.commit()
    }
}

fn failure(error: rusqlite::Error) -> Failure {
    let failure = Failure::new(
        Class::Host,
        format!("failed to use the state database: {error}"),
    );
    with_remedy(failure, &error)
}

fn damaged(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Class::Host,
        format!("the state database is damaged at {what}: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;
    use serde_json::json;

    fn entry(key: &str, applied: i64, original: i64) -> InventoryEntry {
        InventoryEntry {
            kind: "path".into(),
            key: key.into(),
            resource: ResourceId::new(Kind::File, key),
            on_removal: OnRemoval::Restore,
            applied: json!({ "n": applied }).to_string(),
            original: json!({ "n": original }).to_string(),
            made: true,
            prevent_removal: false,
            needs: Vec::new(),
        }
    }

    #[test]
    fn the_original_of_something_owned_is_never_overwritten() {
        let mut record = Record::in_memory().unwrap();
        let now = Timestamp::UNIX_EPOCH;
        record
            .intend("aa", &[entry("/etc/motd", 1, 10)], &[], now)
            .unwrap();
        record
            .intend("bb", &[entry("/etc/motd", 2, 20)], &[], now)
            .unwrap();
        assert_eq!(record.inventory().unwrap(), [entry("/etc/motd", 2, 10)]);
    }

    #[test]
    fn what_was_written_since_it_was_asked_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let mut record = Record::open(&path).unwrap();
        let keys = |keys: &[&str]| {
            let keys = keys.iter().map(|key| ("path".into(), (*key).into()));
            Changes::Keys(keys.collect())
        };
        assert_eq!(record.take_changes().unwrap(), Changes::Everything);
        assert_eq!(record.take_changes().unwrap(), keys(&[]));
        record
            .conclude(
                "aa",
                &[entry("/etc/motd", 1, 10)],
                &[("path".into(), "/etc/gone".into())],
                &[],
                &[],
            )
            .unwrap();
        assert_eq!(
            record.take_changes().unwrap(),
            keys(&["/etc/motd", "/etc/gone"])
        );
        assert_eq!(record.take_changes().unwrap(), keys(&[]));

        let many: Vec<_> = (0..2 * MAX_CHANGED_KEYS)
            .map(|number| entry(&format!("/etc/{number}"), 1, 10))
            .collect();
        record.conclude("aa", &many, &[], &[], &[]).unwrap();
        assert_eq!(record.take_changes().unwrap(), Changes::Everything);

        let mut other = Record::open(&path).unwrap();
        other
            .conclude("aa", &[entry("/etc/motd", 2, 10)], &[], &[], &[])
            .unwrap();
        assert_eq!(record.take_changes().unwrap(), Changes::Everything);
        assert_eq!(record.take_changes().unwrap(), keys(&[]));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test makes the garbage")]
    fn a_database_that_is_garbage_is_an_error_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        std::fs::write(
            &path,
            "this is no database, whatever its name says".repeat(40),
        )
        .unwrap();
        let failure = Record::open(&path).unwrap_err();
        assert_eq!(failure.class, Class::Host);
        assert!(
            failure.message.contains(path.to_str().unwrap()),
            "{failure}"
        );
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test damages the file")]
    fn damage_in_the_middle_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let entries: Vec<_> = (0..2000).map(|n| entry(&format!("/f{n}"), n, n)).collect();
        let mut record = Record::open(&path).unwrap();
        record
            .intend("aa", &entries, &[], Timestamp::UNIX_EPOCH)
            .unwrap();
        record.check().unwrap();
        drop(record);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8192].fill(0xee);
        std::fs::write(&path, bytes).unwrap();
        Record::open(&path).unwrap().check().unwrap_err();
    }

    #[test]
    fn a_copy_has_what_the_database_has_and_takes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let mut original = Record::open(&path).unwrap();
        original.remember("name", &"value").unwrap();
        original
            .intend("aa", &[entry("/f", 1, 1)], &[], Timestamp::UNIX_EPOCH)
            .unwrap();
        // Once with the log beside it, once without.
        for original in [Some(original), None] {
            let copy = Record::copy(&path).unwrap();
            assert_eq!(copy.recall("name"), Ok(Some("value".to_owned())));
            assert_eq!(copy.inventory().unwrap().len(), 1);
            assert!(copy.is_copy());
            copy.remember("name", &"other").unwrap_err();
            drop(original);
        }
    }

    #[test]
    fn a_database_of_a_newer_limpet_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let record = Record::open(&path).unwrap();
        for pragma in ["user_version", "application_id"] {
            record.connection.pragma_update(None, pragma, 99).unwrap();
        }
        drop(record);
        assert!(
            Record::open(&path)
                .unwrap_err()
                .message
                .contains("newer limpet")
        );
    }
}
