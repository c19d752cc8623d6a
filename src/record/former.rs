//! What paths were before a change that a unit has yet to validate, and which changes a unit did not accept.
//!
//! A *former* is kept together with the debt that the unit is validated, and goes with it. A *rejection* is the validator's verdict: it
//! stands until something else is declared for this host, or until a person forgives it.
//!
//! Invariant: the first former of a path stays until the debt is paid: whatever was written since, it is what the unit ran with.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::model::{Action, Failure, Name, ResourceId};
use crate::record::{InventoryEntry, Record, Writing, damaged, failure};

/// Older programs leave it alone; what they leave behind goes with the next debt of its unit.
pub(super) const LAYOUT_5: &str = "
    CREATE TABLE former (
        debtor   TEXT NOT NULL,
        path     TEXT NOT NULL,
        resource TEXT NOT NULL,
        original TEXT NOT NULL,
        content  BLOB,
        line     TEXT NOT NULL,
        kept     INTEGER NOT NULL,
        PRIMARY KEY (debtor, path)
    );
";

/// Under which name the record keeps the rejections.
const REJECTIONS: &str = "rejections";

/// What a path was before.
#[derive(Debug, Clone, PartialEq)]
pub struct Former {
    /// The path.
    pub path: String,
    /// Which resource's change it was.
    pub resource: ResourceId,
    /// What was there: JSON in the words of its kind.
    pub original: String,
    /// The bytes, of a file.
    pub content: Option<Vec<u8>>,
    /// What the inventory said of it, where it knew it.
    pub line: Option<InventoryEntry>,
    /// When that was, in microseconds since the machine started; 0 if that was before the last boot.
    pub kept: u64,
}

/// What a unit did not accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The digest of what was declared for the host.
    pub digest: String,
    /// Why, in the validator's own words.
    pub failure: Failure,
    /// The paths that are as they were before.
    pub paths: BTreeSet<Name>,
    /// Nothing else had changed for the unit: it may run with what it ran with before.
    pub is_undone: bool,
}

impl Record {
    /// What was kept for `unit`, by path.
    pub fn formers(&self, unit: &ResourceId) -> Result<Vec<Former>, Failure> {
        let sql = "SELECT path, resource, original, content, line, kept FROM former WHERE debtor = ?1 ORDER BY path";
        let mut statement = self.connection.prepare_cached(sql).map_err(failure)?;
        let mut rows = statement.query([unit.to_string()]).map_err(failure)?;
        let mut formers = Vec::new();
        while let Some(row) = rows.next().map_err(failure)? {
            let text =
                |index: usize| -> Result<String, Failure> { row.get(index).map_err(failure) };
            let path = text(0)?;
            let damage =
                |error: &dyn std::fmt::Display| damaged(&format!("what was '{path}'"), error);
            let kept: i64 = row.get(5).map_err(failure)?;
            formers.push(Former {
                resource: text(1)?.parse().map_err(|error| damage(&error))?,
                original: text(2)?,
                content: row.get(3).map_err(failure)?,
                line: serde_json::from_str(&text(4)?).map_err(|error| damage(&error))?,
                kept: u64::try_from(kept).unwrap_or(0),
                path,
            });
        }
        Ok(formers)
    }

    /// The paths that are kept for `unit` and whose they are, without what they were.
    pub fn former_paths(&self, unit: &ResourceId) -> Result<Vec<(String, ResourceId)>, Failure> {
        let sql = "SELECT path, resource FROM former WHERE debtor = ?1 ORDER BY path";
        let mut statement = self.connection.prepare_cached(sql).map_err(failure)?;
        let mut rows = statement.query([unit.to_string()]).map_err(failure)?;
        let mut paths = Vec::new();
        while let Some(row) = rows.next().map_err(failure)? {
            let (path, resource): (String, String) =
                (row.get(0).map_err(failure)?, row.get(1).map_err(failure)?);
            let damage =
                |error: &dyn std::fmt::Display| damaged(&format!("what was '{path}'"), error);
            let resource = resource.parse().map_err(|error| damage(&error))?;
            paths.push((path, resource));
        }
        Ok(paths)
    }

    /// What units did not accept. What another version wrote and this one cannot read is forgiven.
    pub fn rejections(&self) -> BTreeMap<ResourceId, Rejection> {
        self.recall(REJECTIONS).ok().flatten().unwrap_or_default()
    }

    /// Remembers what units did not accept.
    pub fn remember_rejections(
        &self,
        rejections: &BTreeMap<ResourceId, Rejection>,
    ) -> Result<(), Failure> {
        match rejections.is_empty() {
            true => self.forget(REJECTIONS),
            false => self.remember(REJECTIONS, rejections),
        }
    }
}

impl Writing<'_> {
    /// What a path was that is about to be changed and that `unit` reads. What is kept already stays.
    pub fn keep(&self, unit: &ResourceId, former: &Former) -> Result<(), Failure> {
        let line = serde_json::to_string(&former.line).map_err(|error| damaged("it", &error))?;
        let sql =
            "INSERT OR IGNORE INTO former (debtor, path, resource, original, content, line, kept)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.execute(
            sql,
            params![
                unit.to_string(),
                former.path,
                former.resource.to_string(),
                former.original,
                former.content,
                line,
                i64::try_from(former.kept).unwrap_or(i64::MAX),
            ],
        )
    }

    /// Forgets what was kept for `unit`.
    pub fn drop_formers(&self, unit: &ResourceId) -> Result<(), Failure> {
        let sql = "DELETE FROM former WHERE debtor = ?1";
        self.execute(sql, params![unit.to_string()])
    }

    /// Strikes out the restarts and reloads that `unit` owes since it owes a validation, and not those that are older.
    pub fn drop_restarts_since_validation(&self, unit: &ResourceId) -> Result<(), Failure> {
        // Lines are numbered as they come; clocks are set back.
        let sql = "DELETE FROM owed WHERE debtor = ?1 AND action IN (?2, ?3)
             AND rowid > (SELECT rowid FROM owed WHERE debtor = ?1 AND action = ?4)";
        let words = [Action::Restart, Action::Reload, Action::Run].map(Action::as_str);
        self.execute(sql, params![unit.to_string(), words[0], words[1], words[2]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;
    use crate::record::Owed;
    use jiff::Timestamp;

    fn unit() -> ResourceId {
        ResourceId::new(Kind::Unit, "app.service")
    }

    fn former(content: &str) -> Former {
        Former {
            path: "/etc/app.conf".to_owned(),
            resource: ResourceId::new(Kind::File, "/etc/app.conf"),
            original: "{}".to_owned(),
            content: Some(content.as_bytes().to_vec()),
            line: None,
            kept: 7,
        }
    }

    fn write(record: &mut Record, write: impl FnOnce(&Writing<'_>)) {
        let writing = record.write("aa").unwrap();
        write(&writing);
        writing.commit().unwrap();
    }

    fn owe(writing: &Writing<'_>, action: Action) {
        let debt = Owed {
            debtor: unit(),
            action,
            because: ResourceId::new(Kind::File, "/etc/app.conf"),
            revision: "aa".to_owned(),
            caused: None,
        };
        writing.owe(&debt, Timestamp::UNIX_EPOCH).unwrap();
    }

    #[test]
    fn what_was_there_first_is_kept_until_the_debt_is_paid() {
        let mut record = Record::in_memory().unwrap();
        write(&mut record, |writing| owe(writing, Action::Run));
        for content in ["good", "bad"] {
            write(&mut record, |writing| {
                writing.keep(&unit(), &former(content)).unwrap();
            });
            write(&mut record, |writing| owe(writing, Action::Run));
        }
        assert_eq!(record.formers(&unit()).unwrap(), [former("good")]);
        let (path, resource) = (former("").path, former("").resource);
        assert_eq!(record.former_paths(&unit()).unwrap(), [(path, resource)]);
        record.forget_debts_paid_by_boot().unwrap();
        let kept: Vec<u64> = record
            .formers(&unit())
            .unwrap()
            .iter()
            .map(|it| it.kept)
            .collect();
        assert_eq!(kept, [0], "the clock began anew");
        write(&mut record, |writing| writing.pay(&unit(), Action::Run));
        assert_eq!(record.formers(&unit()).unwrap(), []);
    }

    #[test]
    fn what_is_left_of_a_debt_that_is_gone_is_not_put_back() {
        let mut record = Record::in_memory().unwrap();
        write(&mut record, |writing| {
            writing.keep(&unit(), &former("long ago")).unwrap();
        });
        write(&mut record, |writing| owe(writing, Action::Run));
        assert_eq!(record.formers(&unit()).unwrap(), []);
        // Paid on a full disk, and owed again before that could be written.
        write(&mut record, |writing| {
            writing.keep(&unit(), &former("accepted long ago")).unwrap();
        });
        record.note_paid(&unit(), Action::Run);
        write(&mut record, |writing| owe(writing, Action::Run));
        assert_eq!(record.formers(&unit()).unwrap(), []);
        assert_eq!(record.owed().unwrap().len(), 1);
    }

    #[test]
    fn a_restart_that_was_owed_before_stays_owed() {
        for (first, second, left) in [
            (Action::Restart, Action::Run, 2),
            (Action::Run, Action::Restart, 1),
        ] {
            let mut record = Record::in_memory().unwrap();
            write(&mut record, |writing| {
                owe(writing, first);
                owe(writing, second);
                owe(writing, first);
            });
            write(&mut record, |writing| {
                writing.drop_restarts_since_validation(&unit()).unwrap();
            });
            assert_eq!(record.owed().unwrap().len(), left, "{first} {second}");
        }
    }
}
