//! Opening the record: to write, to look, or as a copy of what cannot be written.
//!
//! Invariant: a disk that takes nothing and a database that is damaged are told apart. Only the second is lost state.

use std::cell::RefCell;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::layout::{Layout, OLDEST_LAYOUT, layout_of};
use super::{
    Changes, LAYOUT_3, Record, SCHEMA, SCHEMA_VERSION, damaged, failure, former, history, owed,
};
use crate::model::{Class, Failure};

/// How many KiB of the database are kept in memory: it is read from one end to the other, or a row at a time.
const CACHE_KIB: i64 = 256;

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
    pub(super) fn copy(path: &Path) -> rusqlite::Result<Self> {
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
        let oldest: i64 =
            connection.query_row("PRAGMA disk.application_id", [], |row| row.get(0))?;
        if version != SCHEMA_VERSION
            && !(version > SCHEMA_VERSION && (1..=SCHEMA_VERSION).contains(&oldest))
        {
            return Err(newer(version));
        }
        for table in ["memory", "inventory", "owed", "former"] {
            connection.execute_batch(&format!("INSERT INTO {table} SELECT * FROM disk.{table}"))?;
        }
        connection.execute_batch("DETACH disk")?;
        Ok(record)
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

    /// Brings all that is in the log into the database, and the log away.
    pub fn finish(self) -> Result<(), Failure> {
        finish(&self.connection).map_err(failure)
    }

    /// The same of the database at `path`, whatever its layout.
    pub fn finish_at(path: &Path) -> Result<(), Failure> {
        Connection::open(path)
            .and_then(|connection| finish(&connection))
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
        self.read_inventory(&mut |_| Ok(()))?;
        self.owed().map(drop)
    }

    pub(super) fn over(connection: Connection) -> Self {
        Record {
            connection,
            changes: RefCell::new(Changes::Everything),
            data_version: std::cell::Cell::default(),
            paid: RefCell::default(),
            is_copy: false,
        }
    }

    pub(super) fn try_open(path: &Path) -> rusqlite::Result<Self> {
        let record = Self::over(Connection::open(path)?);
        record.prepare()?;
        Ok(record)
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

    pub(super) fn prepare(&self) -> rusqlite::Result<()> {
        self.connection.pragma_update(None, "journal_mode", "WAL")?;
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        self.connection
            .pragma_update(None, "cache_size", -CACHE_KIB)?;
        self.connection
            .busy_timeout(std::time::Duration::from_secs(5))?;
        let version: i64 = self
            .connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if let Layout::Newer(version) = layout_of(&self.connection)? {
            return Err(newer(version));
        }
        match version {
            0..SCHEMA_VERSION => {
                let transaction = self.connection.unchecked_transaction()?;
                if version < 1 {
                    transaction.execute_batch(SCHEMA)?;
                }
                if version < 2 {
                    transaction.execute_batch(history::LAYOUT_2)?;
                }
                if version < 3 {
                    transaction.execute_batch(LAYOUT_3)?;
                }
                if version < 4 {
                    transaction.execute_batch(owed::LAYOUT_4)?;
                }
                if version < 5 {
                    transaction.execute_batch(former::LAYOUT_5)?;
                }
                transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
                transaction.pragma_update(None, "application_id", OLDEST_LAYOUT)?;
                transaction.commit()
            }
            _ => Ok(()),
        }
    }
}

fn finish(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Is the file itself broken; a full disk, a lock or a newer layout are not.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
    )
}

/// Is it the disk, for now: full, read-only, or in trouble.
pub(super) fn is_of_the_medium(error: &rusqlite::Error) -> bool {
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
pub(super) fn read_only_uri(path: &Path, mode: &str) -> String {
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
pub(super) fn with_remedy(failure: Failure, error: &rusqlite::Error) -> Failure {
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
