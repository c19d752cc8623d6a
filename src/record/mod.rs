//! What limpet remembers: `state.db`.
//!
//! The *trusted head* is the last commit this host believed, the *inventory* is everything limpet applied and what was there
//! before, *owed* effects are restarts that a change made necessary, and *history* is what was really done.
//!
//! Invariant: what must survive a crash is on disk before the machine changes. Every method is one transaction with
//! `synchronous=FULL`; a method that returned `Ok` is not undone by a power cut.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::{Action, Class, Failure, Kind, OnRemoval, ResourceId};

pub mod history;
pub mod objects;

pub use history::HistoryEntry;

/// The layout of the tables below; a database of a newer layout is refused, an older one is brought up to date.
const SCHEMA_VERSION: i64 = 2;

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

/// The open database.
#[derive(Debug)]
pub struct Record {
    connection: Connection,
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

impl Record {
    /// Opens the database at `path`, creating it when there is none.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        Self::try_open(path).map_err(|error| open_failure(path, &error))
    }

    /// Is what lies at `path` no database any more, whatever else may keep it from being opened.
    pub fn is_damaged(path: &Path) -> bool {
        Self::try_open(path).is_err_and(|error| is_damage(&error))
    }

    fn try_open(path: &Path) -> rusqlite::Result<Self> {
        let record = Record {
            connection: Connection::open(path)?,
        };
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
        Ok(Record { connection })
    }

    /// A database in memory, for planning against nothing.
    pub fn in_memory() -> Result<Self, Failure> {
        let connection = Connection::open_in_memory().map_err(failure)?;
        let record = Record { connection };
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
            SCHEMA_VERSION => Ok(()),
            0..SCHEMA_VERSION => {
                let transaction = self.connection.unchecked_transaction()?;
                if version < 1 {
                    transaction.execute_batch(SCHEMA)?;
                }
                if version < 2 {
                    transaction.execute_batch(history::LAYOUT_2)?;
                }
                transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
                transaction.commit()
            }
            _ => Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_SCHEMA),
                Some(format!("written by a newer limpet (layout {version})")),
            )),
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
        for (unit, action) in paid {
            transaction
                .execute(
                    "DELETE FROM owed WHERE unit = ?1 AND action = ?2",
                    params![unit, action.as_str()],
                )
                .map_err(failure)?;
        }
        history::append(&transaction, history).map_err(failure)?;
        transaction.commit().map_err(failure)
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

/// The entries of `inventory` by kind and key, for looking up.
pub fn by_key(inventory: &[InventoryEntry]) -> BTreeMap<(&str, &str), &InventoryEntry> {
    inventory
        .iter()
        .map(|entry| ((entry.kind.as_str(), entry.key.as_str()), entry))
        .collect()
}

/// Is the file itself broken; a full disk, a lock or a newer layout are not.
fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
    )
}

fn failure(error: rusqlite::Error) -> Failure {
    Failure::new(
        Class::Host,
        format!("failed to use the state database: {error}"),
    )
}

fn open_failure(path: &Path, error: &rusqlite::Error) -> Failure {
    Failure::new(
        Class::Host,
        format!(
            "failed to open the state database '{}': {error}",
            path.display()
        ),
    )
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
