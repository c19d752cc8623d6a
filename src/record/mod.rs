//! What limpet remembers: `state.db`.
//!
//! The *trusted head* is the last commit this host believed, the *inventory* is everything limpet applied and what was there
//! before, *owed* effects are restarts that a change made necessary, and *history* is what was really done.
//!
//! Invariant: what must survive a crash is on disk before the machine changes. Every method is one transaction with
//! `synchronous=FULL`; a method that returned `Ok` is not undone by a power cut.
//!
//! A disk that is full or read-only is no loss of state: then the record is read, and every method that writes fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::{Action, Class, Failure, Kind, OnRemoval, Reason, ResourceId};

pub mod objects;

/// The layout of the tables below; a database of a newer layout is refused, an older one is brought up to date.
const SCHEMA_VERSION: i64 = 1;

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

/// How many lines of history are kept.
const HISTORY_LIMIT: i64 = 10_000;

/// The open database.
#[derive(Debug)]
pub struct Record {
    connection: Connection,
    /// Debts that were paid while that could not be written down: paid again, a full disk would restart a service in every cycle.
    paid: BTreeSet<(String, Action)>,
    /// A copy in memory of what cannot be written.
    is_copy: bool,
}

/// One thing limpet applied, as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct InventoryEntry {
    /// Which kind's name space `key` is in: `path`, `package` or `unit`.
    pub kind: String,
    /// What is owned: a path, a package, a unit.
    pub key: String,
    /// What declared it last.
    pub resource: ResourceId,
    /// What happens when it is no longer declared.
    pub on_removal: OnRemoval,
    /// What was applied last, in the kind's words.
    pub applied: serde_json::Value,
    /// What was there before, in the kind's words.
    pub original: serde_json::Value,
    /// False from when it is about to be applied until it is known to be.
    pub made: bool,
}

/// A restart or reload that a change made necessary and that systemd has not yet confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// The unit's name.
    pub unit: String,
    /// [`Action::Restart`] or [`Action::Reload`].
    pub action: Action,
    /// The resource whose change caused it.
    pub because: ResourceId,
    /// The revision that was being applied, in hex.
    pub revision: String,
}

/// One line of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryEntry {
    /// When it was done.
    pub at: Timestamp,
    /// The revision being applied, in hex.
    pub revision: String,
    /// What was changed; none for events of the whole host.
    pub resource: Option<ResourceId>,
    /// What was done: an action's word, or `applied`, `refused`.
    pub action: String,
    /// Why: a reason's word, or empty.
    pub reason: String,
    /// Was it a correction of drift, not a new revision.
    pub drift: bool,
    /// `done`, `failed` or `skipped`.
    pub outcome: String,
    /// The error, or which fields changed.
    pub detail: String,
}

impl Record {
    /// Opens the database at `path`, creating it when there is none.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        Self::try_open(path).map_err(|error| open_failure(path, &error))
    }

    /// Is what lies at `path` no database any more, whatever else may keep it from being opened.
    pub fn is_damaged(path: &Path) -> bool {
        Self::try_open(path).is_err_and(|error| is_damage(&error))
    }

    /// The same; of a database that is whole but cannot be written, on a full or read-only disk, a copy and why.
    pub fn open_or_copy(path: &Path) -> Result<(Self, Option<Failure>), Failure> {
        let error = match Self::try_open(path) {
            // SQLite opens for reading what it may not write, and would not notice that it may again.
            Ok(record) if record.connection.is_readonly("main").unwrap_or(false) => {
                medium_error("attempt to write a readonly database")
            }
            Ok(record) => return Ok((record, None)),
            Err(error) => error,
        };
        let failure = open_failure(path, &error);
        if !is_of_the_medium(&error) {
            return Err(failure);
        }
        match Self::copy(path) {
            Ok(copy) => Ok((copy, Some(failure))),
            Err(_) => Err(failure),
        }
    }

    /// What is in the database at `path`, in memory and not to be written.
    fn copy(path: &Path) -> rusqlite::Result<Self> {
        // With the log that was left beside it where there is one; where there is none, none can be made.
        let copied = Self::copy_by(&read_only_uri(path, "mode=ro"))
            .or_else(|_| Self::copy_by(&read_only_uri(path, "immutable=1")));
        let mut record = copied?;
        record.is_copy = true;
        record
            .connection
            .pragma_update(None, "query_only", true)
            .map(|()| record)
    }

    fn copy_by(uri: &str) -> rusqlite::Result<Self> {
        let record = Self::over(Connection::open_in_memory()?);
        record.prepare()?;
        let connection = &record.connection;
        connection.execute("ATTACH ?1 AS disk", [uri])?;
        let version: i64 =
            connection.query_row("PRAGMA disk.user_version", [], |row| row.get(0))?;
        if version != SCHEMA_VERSION {
            return Err(newer(version));
        }
        for table in ["memory", "inventory", "owed"] {
            connection.execute_batch(&format!("INSERT INTO {table} SELECT * FROM disk.{table}"))?;
        }
        connection.execute_batch("DETACH disk")?;
        Ok(record)
    }

    /// Knows what `other` knew to be paid.
    pub fn take_paid(&mut self, other: &mut Record) {
        self.paid.append(&mut other.paid);
    }

    /// Is it only a copy of what cannot be written.
    pub fn is_copy(&self) -> bool {
        self.is_copy
    }

    /// Brings what is in the log into the database: what a damaged log loses is then little.
    pub fn settle(&self) -> Result<(), Failure> {
        self.connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
            .map_err(failure)
    }

    /// Reads all of it; fails when it is damaged anywhere.
    pub fn check(&self) -> Result<(), Failure> {
        let found: String = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(failure)?;
        if found != "ok" {
            return Err(damaged("a page", &found));
        }
        self.inventory()?;
        self.owed().map(drop)
    }

    fn over(connection: Connection) -> Self {
        Record {
            connection,
            paid: BTreeSet::new(),
            is_copy: false,
        }
    }

    fn try_open(path: &Path) -> rusqlite::Result<Self> {
        let record = Self::over(Connection::open(path)?);
        record.prepare()?;
        Ok(record)
    }

    /// Forgets every debt: the machine has booted since, and everything that runs read its files anew.
    pub fn forget_debts(&self) -> Result<(), Failure> {
        self.connection
            .execute("DELETE FROM owed", [])
            .map(drop)
            .map_err(failure)
    }

    /// Opens an existing database to look only.
    pub fn open_read_only(path: &Path) -> Result<Self, Failure> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .map_err(|error| open_failure(path, &error))?;
        Ok(Self::over(connection))
    }

    /// A database in memory, for planning against nothing.
    pub fn in_memory() -> Result<Self, Failure> {
        let connection = Connection::open_in_memory().map_err(failure)?;
        let record = Self::over(connection);
        record.prepare().map_err(failure)?;
        Ok(record)
    }

    fn prepare(&self) -> rusqlite::Result<()> {
        self.connection.pragma_update(None, "journal_mode", "WAL")?;
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        self.connection
            .busy_timeout(std::time::Duration::from_secs(5))?;
        let version: i64 = self
            .connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            0 => {
                let transaction = self.connection.unchecked_transaction()?;
                transaction.execute_batch(SCHEMA)?;
                transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
                transaction.commit()
            }
            SCHEMA_VERSION => Ok(()),
            _ => Err(newer(version)),
        }
    }

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
        let mut statement = self
            .connection
            .prepare_cached("SELECT kind, key, resource, on_removal, applied, original, made FROM inventory ORDER BY kind, key")
            .map_err(failure)?;
        let rows = statement
            .query_map([], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?,
                    row.get::<_, String>(3)?,
                    row.get::<_, String>(4)?,
                    row.get::<_, String>(5)?,
                    row.get::<_, bool>(6)?,
                ))
            })
            .map_err(failure)?;
        let mut entries = Vec::new();
        for row in rows {
            let (kind, key, resource, on_removal, applied, original, made) =
                row.map_err(failure)?;
            let damage =
                |error: &dyn std::fmt::Display| damaged(&format!("inventory entry '{key}'"), error);
            entries.push(InventoryEntry {
                resource: resource.parse().map_err(|error| damage(&error))?,
                on_removal: serde_json::from_str(&on_removal).map_err(|error| damage(&error))?,
                applied: serde_json::from_str(&applied).map_err(|error| damage(&error))?,
                original: serde_json::from_str(&original).map_err(|error| damage(&error))?,
                kind,
                key,
                made,
            });
        }
        Ok(entries)
    }

    /// Writes ahead of a batch: what is about to be owned, with what was there before, and which restarts will be owed.
    ///
    /// The original of something already owned is never overwritten.
    pub fn intend(
        &mut self,
        revision: &str,
        entries: &[InventoryEntry],
        owed: &[Owed],
        at: Timestamp,
    ) -> Result<(), Failure> {
        for debt in owed {
            self.paid.remove(&(debt.unit.clone(), debt.action));
        }
        let transaction = self.connection.transaction().map_err(failure)?;
        for entry in entries {
            upsert(&transaction, revision, entry).map_err(failure)?;
        }
        for debt in owed {
            transaction
                .execute(
                    "INSERT OR IGNORE INTO owed (unit, action, because, revision, since) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![debt.unit, debt.action.as_str(), debt.because.to_string(), debt.revision, at.to_string()],
                )
                .map_err(failure)?;
        }
        transaction.commit().map_err(failure)
    }

    /// Records what became of a batch: what is owned now, what no longer is, which debts were paid, and the history of it.
    pub fn conclude(
        &mut self,
        revision: &str,
        owned: &[InventoryEntry],
        released: &[(String, String)],
        paid: &[(String, Action)],
        history: &[HistoryEntry],
    ) -> Result<(), Failure> {
        self.paid.extend(paid.iter().cloned());
        let transaction = self.connection.transaction().map_err(failure)?;
        for entry in owned {
            upsert(&transaction, revision, entry).map_err(failure)?;
        }
        for (kind, key) in released {
            transaction
                .execute(
                    "DELETE FROM inventory WHERE kind = ?1 AND key = ?2",
                    params![kind, key],
                )
                .map_err(failure)?;
        }
        for (unit, action) in &self.paid {
            transaction
                .execute(
                    "DELETE FROM owed WHERE unit = ?1 AND action = ?2",
                    params![unit, action.as_str()],
                )
                .map_err(failure)?;
        }
        for entry in history {
            insert_history(&transaction, entry).map_err(failure)?;
        }
        if !history.is_empty() {
            transaction
                .execute(
                    "DELETE FROM history WHERE id <= (SELECT MAX(id) FROM history) - ?1",
                    [HISTORY_LIMIT],
                )
                .map_err(failure)?;
        }
        transaction.commit().map_err(failure)?;
        self.paid.clear();
        Ok(())
    }

    /// Restarts and reloads that are owed.
    pub fn owed(&self) -> Result<Vec<Owed>, Failure> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT unit, action, because, revision FROM owed ORDER BY unit, action",
            )
            .map_err(failure)?;
        let rows = statement
            .query_map([], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, String>(2)?,
                    row.get::<_, String>(3)?,
                ))
            })
            .map_err(failure)?;
        let mut owed = Vec::new();
        for row in rows {
            let (unit, action, because, revision) = row.map_err(failure)?;
            let action = if action == Action::Reload.as_str() {
                Action::Reload
            } else {
                Action::Restart
            };
            if self.paid.contains(&(unit.clone(), action)) {
                continue;
            }
            let because = because
                .parse()
                .unwrap_or_else(|_| ResourceId::new(Kind::Unit, unit.clone()));
            owed.push(Owed {
                unit,
                action,
                because,
                revision,
            });
        }
        Ok(owed)
    }

    /// The last `limit` lines of history, newest first.
    pub fn history(&self, limit: usize) -> Result<Vec<HistoryEntry>, Failure> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT at, revision, resource, action, reason, drift, outcome, detail FROM history ORDER BY id DESC LIMIT ?1",
            )
            .map_err(failure)?;
        let rows = statement
            .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                Ok(HistoryEntry {
                    at: row
                        .get::<_, String>(0)?
                        .parse()
                        .unwrap_or(Timestamp::UNIX_EPOCH),
                    revision: row.get(1)?,
                    resource: row
                        .get::<_, Option<String>>(2)?
                        .and_then(|text| text.parse().ok()),
                    action: row.get(3)?,
                    reason: row.get(4)?,
                    drift: row.get(5)?,
                    outcome: row.get(6)?,
                    detail: row.get(7)?,
                })
            })
            .map_err(failure)?;
        rows.collect::<Result<_, _>>().map_err(failure)
    }
}

fn upsert(connection: &Connection, revision: &str, entry: &InventoryEntry) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO inventory (kind, key, resource, on_removal, applied, original, revision, made)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (kind, key) DO UPDATE SET
                 resource = excluded.resource, on_removal = excluded.on_removal,
                 applied = excluded.applied, revision = excluded.revision, made = excluded.made",
        )?
        .execute(params![
            entry.kind,
            entry.key,
            entry.resource.to_string(),
            serde_json::to_string(&entry.on_removal).unwrap_or_default(),
            entry.applied.to_string(),
            entry.original.to_string(),
            revision,
            entry.made,
        ])?;
    Ok(())
}

fn insert_history(connection: &Connection, entry: &HistoryEntry) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO history (at, revision, resource, action, reason, drift, outcome, detail)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            entry.at.to_string(),
            entry.revision,
            entry.resource.as_ref().map(ToString::to_string),
            entry.action,
            entry.reason,
            entry.drift,
            entry.outcome,
            entry.detail,
        ])?;
    Ok(())
}

/// The entries of `inventory` by kind and key, for looking up.
pub fn by_key(inventory: &[InventoryEntry]) -> BTreeMap<(&str, &str), &InventoryEntry> {
    inventory
        .iter()
        .map(|entry| ((entry.kind.as_str(), entry.key.as_str()), entry))
        .collect()
}

impl HistoryEntry {
    /// A line about one resource.
    pub fn of_resource(
        at: Timestamp,
        revision: &str,
        resource: &ResourceId,
        action: Action,
        reason: Reason,
        drift: bool,
    ) -> Self {
        HistoryEntry {
            at,
            revision: revision.to_owned(),
            resource: Some(resource.clone()),
            action: action.as_str().to_owned(),
            reason: reason.as_str().to_owned(),
            drift,
            outcome: String::new(),
            detail: String::new(),
        }
    }
}

/// Is the file itself broken; a full disk, a lock or a newer layout are not.
fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
    )
}

/// Is it the disk, for now: full, read-only, or in trouble.
fn is_of_the_medium(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseBusy
        )
    )
}

/// The name of the database at `path` for SQLite, which then never writes it.
fn read_only_uri(path: &Path, mode: &str) -> String {
    let path = path.to_string_lossy();
    let path = path
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    format!("file:{path}?{mode}")
}

fn medium_error(cause: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY),
        Some(cause.to_owned()),
    )
}

fn newer(version: i64) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_SCHEMA),
        Some(format!("written by a newer limpet (layout {version})")),
    )
}

/// What an operator can do about a disk.
fn with_remedy(failure: Failure, error: &rusqlite::Error) -> Failure {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => failure.with_hint(
            "make room on the disk of '/var/lib/limpet'; what is in force is enforced meanwhile",
        ),
        _ if is_of_the_medium(error) => failure.with_hint(
            "make the disk of '/var/lib/limpet' writable; what is in force is enforced meanwhile",
        ),
        _ => failure,
    }
}

fn failure(error: rusqlite::Error) -> Failure {
    let failure = Failure::new(
        Class::Host,
        format!("failed to use the state database: {error}"),
    );
    with_remedy(failure, &error)
}

fn open_failure(path: &Path, error: &rusqlite::Error) -> Failure {
    let failure = Failure::new(
        Class::Host,
        format!(
            "failed to open the state database '{}': {error}",
            path.display()
        ),
    );
    with_remedy(failure, error)
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
    use serde_json::json;

    fn entry(key: &str, applied: i64, original: i64) -> InventoryEntry {
        InventoryEntry {
            kind: "path".into(),
            key: key.into(),
            resource: ResourceId::new(Kind::File, key),
            on_removal: OnRemoval::Restore,
            applied: json!({ "n": applied }),
            original: json!({ "n": original }),
            made: true,
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
    fn a_debt_is_kept_until_it_is_paid() {
        let mut record = Record::in_memory().unwrap();
        let debt = Owed {
            unit: "app.service".into(),
            action: Action::Restart,
            because: ResourceId::new(Kind::File, "/etc/app.conf"),
            revision: "aa".into(),
        };
        record
            .intend(
                "aa",
                &[],
                std::slice::from_ref(&debt),
                Timestamp::UNIX_EPOCH,
            )
            .unwrap();
        assert_eq!(record.owed().unwrap(), [debt]);
        record
            .conclude(
                "aa",
                &[],
                &[],
                &[("app.service".into(), Action::Restart)],
                &[],
            )
            .unwrap();
        assert_eq!(record.owed().unwrap(), []);
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
    fn a_debt_that_was_paid_on_a_full_disk_is_not_paid_again() {
        let mut record = Record::in_memory().unwrap();
        let debt = Owed {
            unit: "app.service".into(),
            action: Action::Restart,
            because: ResourceId::new(Kind::File, "/etc/app.conf"),
            revision: "aa".into(),
        };
        let (now, paid) = (
            Timestamp::UNIX_EPOCH,
            [("app.service".into(), Action::Restart)],
        );
        let owe = |record: &mut Record| record.intend("aa", &[], std::slice::from_ref(&debt), now);
        owe(&mut record).unwrap();
        let writable = |record: &Record, is: bool| {
            let pragma = record.connection.pragma_update(None, "query_only", !is);
            pragma.unwrap();
        };
        writable(&record, false);
        record.conclude("aa", &[], &[], &paid, &[]).unwrap_err();
        assert_eq!(record.owed().unwrap(), []);
        owe(&mut record).unwrap_err();
        assert_eq!(record.owed().unwrap(), [debt], "it is owed anew");
        record.conclude("aa", &[], &[], &paid, &[]).unwrap_err();
        writable(&record, true);
        record.conclude("aa", &[], &[], &[], &[]).unwrap();
        record.paid.clear();
        assert_eq!(record.owed().unwrap(), [], "it is struck out as well");
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
        Record::open(&path)
            .unwrap()
            .connection
            .pragma_update(None, "user_version", 99)
            .unwrap();
        assert!(
            Record::open(&path)
                .unwrap_err()
                .message
                .contains("newer limpet")
        );
    }
}
