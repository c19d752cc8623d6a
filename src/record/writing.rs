//! Writing what belongs to one moment: one transaction, line by line, so that the lines need not be in memory together.

use std::cell::RefCell;
use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{Transaction, params};

use crate::model::{Action, Failure, ResourceId};
use crate::record::{Changes, HistoryEntry, InventoryEntry, Owed, failure, history};

/// What is being written; without [`commit`](Writing::commit) nothing of it is.
#[derive(Debug)]
#[must_use = "nothing is written without commit"]
pub struct Writing<'a> {
    transaction: Transaction<'a>,
    revision: &'a str,
    changes: &'a RefCell<Changes>,
    /// Debts that are paid; they are struck out last.
    paid: &'a RefCell<BTreeSet<(ResourceId, Action)>>,
    has_history: bool,
    has_diffs: bool,
}

impl<'a> Writing<'a> {
    pub(super) fn new(
        transaction: Transaction<'a>,
        revision: &'a str,
        changes: &'a RefCell<Changes>,
        paid: &'a RefCell<BTreeSet<(ResourceId, Action)>>,
    ) -> Self {
        Writing {
            transaction,
            revision,
            changes,
            paid,
            has_history: false,
            has_diffs: false,
        }
    }

    /// What is owned, or about to be. The original of something already owned is never overwritten.
    pub fn own(&self, entry: &InventoryEntry) -> Result<(), Failure> {
        self.changes.borrow_mut().add(&entry.kind, &entry.key);
        let sql = "INSERT INTO inventory (kind, key, resource, on_removal, applied, original, revision, made, prevent_removal, needs)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (kind, key) DO UPDATE SET
                 resource = excluded.resource, on_removal = excluded.on_removal,
                 applied = excluded.applied, revision = excluded.revision, made = excluded.made,
                 prevent_removal = excluded.prevent_removal, needs = excluded.needs";
        self.execute(
            sql,
            params![
                entry.kind,
                entry.key,
                entry.resource.to_string(),
                serde_json::to_string(&entry.on_removal).unwrap_or_default(),
                entry.applied,
                entry.original,
                self.revision,
                entry.made,
                entry.prevent_removal,
                serde_json::to_string(&entry.needs).unwrap_or_default(),
            ],
        )
    }

    /// What was there before is no longer kept as it was, but as `original`: the one time that it is overwritten.
    pub fn reduce_original(&self, kind: &str, key: &str, original: &str) -> Result<(), Failure> {
        self.changes.borrow_mut().add(kind, key);
        let sql = "UPDATE inventory SET original = ?3 WHERE kind = ?1 AND key = ?2";
        self.execute(sql, params![kind, key, original])
    }

    /// What was about to be owned is: all else that was written of it then holds.
    pub fn confirm(&self, kind: &str, key: &str) -> Result<(), Failure> {
        self.changes.borrow_mut().add(kind, key);
        let sql = "UPDATE inventory SET made = 1 WHERE kind = ?1 AND key = ?2";
        self.execute(sql, params![kind, key])
    }

    /// What is owned no longer.
    pub fn release(&self, kind: &str, key: &str) -> Result<(), Failure> {
        self.changes.borrow_mut().add(kind, key);
        let sql = "DELETE FROM inventory WHERE kind = ?1 AND key = ?2";
        self.execute(sql, params![kind, key])
    }

    /// Something that is owed since `at`. What is owed already keeps its cause; that it was caused is to be said again, because it is
    /// about to be caused once more.
    pub fn owe(&self, debt: &Owed, at: Timestamp) -> Result<(), Failure> {
        let was_paid = self
            .paid
            .borrow_mut()
            .remove(&(debt.debtor.clone(), debt.action));
        if debt.action == Action::Run {
            self.drop_stale_formers(&debt.debtor, was_paid)?;
        }
        let sql = "INSERT INTO owed (debtor, action, because, revision, since, caused) VALUES (?1, ?2, ?3, ?4, ?5, NULL)
             ON CONFLICT (debtor, action) DO UPDATE SET caused = NULL";
        self.execute(
            sql,
            params![
                debt.debtor.to_string(),
                debt.action.as_str(),
                debt.because.to_string(),
                debt.revision,
                at.to_string()
            ],
        )
    }

    /// What was kept for a debt that is not there any more was accepted, or is of no use: a new debt begins with nothing.
    fn drop_stale_formers(&self, debtor: &ResourceId, was_paid: bool) -> Result<(), Failure> {
        let sql = "DELETE FROM former WHERE debtor = ?1 AND (?2 OR NOT EXISTS
             (SELECT 1 FROM owed WHERE owed.debtor = ?1 AND action = ?3))";
        let run = Action::Run.as_str();
        self.execute(sql, params![debtor.to_string(), was_paid, run])
    }

    /// A debt that is paid, or need not be.
    pub fn pay(&self, debtor: &ResourceId, action: Action) {
        self.paid.borrow_mut().insert((debtor.clone(), action));
    }

    /// A line of history.
    pub fn note(&mut self, entry: &HistoryEntry) -> Result<(), Failure> {
        self.has_history = true;
        self.has_diffs |= entry.diff.is_some();
        history::insert(&self.transaction, entry).map_err(failure)
    }

    /// Makes all of it durable.
    pub fn commit(self) -> Result<(), Failure> {
        if self.has_history {
            history::forget_old(&self.transaction, self.has_diffs).map_err(failure)?;
        }
        for (debtor, action) in self.paid.borrow().iter() {
            let sql = "DELETE FROM owed WHERE debtor = ?1 AND action = ?2";
            self.execute(sql, params![debtor.to_string(), action.as_str()])?;
            if *action == Action::Run {
                self.drop_formers(debtor)?;
            }
        }
        self.transaction.commit().map_err(failure)?;
        self.paid.borrow_mut().clear();
        Ok(())
    }

    pub(super) fn execute(&self, sql: &str, values: impl rusqlite::Params) -> Result<(), Failure> {
        let mut statement = self.transaction.prepare_cached(sql).map_err(failure)?;
        statement.execute(values).map(drop).map_err(failure)
    }
}
