//! Which layout a database has, and whether this limpet can use it.
//!
//! A layout that older programs can go on with says so: it names the oldest of them. See [`OLDEST_LAYOUT`].

use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};

use super::{SCHEMA_VERSION, failure};
use crate::model::Failure;

/// Programs of this layout and later ones can use a database of the present layout: all that was added since can be left out of every
/// question and every line without harm. Raised when something that they write or read means something else.
pub(super) const OLDEST_LAYOUT: i64 = 4;

/// How a database stands to this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// It can be used as it is, or has nothing in it yet.
    Usable,
    /// It is brought up to date when it is opened.
    Older(i64),
    /// This program must not touch it.
    Newer(i64),
}

/// The layout of the database at `path`, which is not written.
pub fn read_layout(path: &Path) -> Result<Layout, Failure> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(|connection| layout_of(&connection))
        .map_err(failure)
}

/// The layout of an open database.
pub(super) fn layout_of(connection: &Connection) -> rusqlite::Result<Layout> {
    let number = |name: &str| -> rusqlite::Result<i64> {
        connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
    };
    let version = number("user_version")?;
    let oldest = number("application_id")?;
    Ok(match version {
        0 | SCHEMA_VERSION => Layout::Usable,
        ..SCHEMA_VERSION => Layout::Older(version),
        _ if (1..=SCHEMA_VERSION).contains(&oldest) => Layout::Usable,
        _ => Layout::Newer(version),
    })
}

/// Writes all that is in the database at `path` to a new one, which must not exist.
pub fn copy_database(path: &Path, target: &Path) -> Result<(), Failure> {
    let target = target.to_string_lossy();
    Connection::open(path)
        .and_then(|connection| connection.execute("VACUUM INTO ?1", params![target]))
        .map(drop)
        .map_err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    #[test]
    fn a_newer_layout_is_used_where_it_says_that_it_can_be() {
        let directory = tempfile::tempdir().unwrap();
        let check = |version: i64, oldest: i64, expected| {
            let path = directory.path().join(format!("{version}-{oldest}"));
            drop(Record::open(&path).unwrap());
            let connection = Connection::open(&path).unwrap();
            connection
                .pragma_update(None, "user_version", version)
                .and_then(|()| connection.pragma_update(None, "application_id", oldest))
                .unwrap();
            assert_eq!(read_layout(&path).unwrap(), expected);
            assert_eq!(
                Record::open(&path).is_ok(),
                expected == Layout::Usable,
                "{version} {oldest}"
            );
        };
        let newer = SCHEMA_VERSION + 1;
        check(SCHEMA_VERSION, SCHEMA_VERSION, Layout::Usable);
        check(newer, 0, Layout::Newer(newer));
        check(newer, newer, Layout::Newer(newer));
        check(newer, SCHEMA_VERSION, Layout::Usable);
        check(newer, 1, Layout::Usable);
    }
}
