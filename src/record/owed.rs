//! What is owed: effects that a change makes necessary, on disk before the change and until somebody has seen them made.
//!
//! A *debtor* owes an action *because* a resource changed. It is *caused* once that change was made: what happens to the debtor
//! from then on, by whomever, may pay the debt.

use super::{Record, failure};
use crate::model::{Action, Failure, ResourceId};

/// Debts of anything, where layout 3 had those of units; `caused` is on the clock that starts with the machine, in microseconds.
pub(super) const LAYOUT_4: &str = "
    ALTER TABLE owed RENAME TO owed_by_units;
    CREATE TABLE owed (
        debtor   TEXT NOT NULL,
        action   TEXT NOT NULL,
        because  TEXT NOT NULL,
        revision TEXT NOT NULL,
        since    TEXT NOT NULL,
        caused   INTEGER,
        PRIMARY KEY (debtor, action)
    );
    INSERT INTO owed (debtor, action, because, revision, since)
        SELECT 'unit:' || unit, action, because, revision, since FROM owed_by_units;
    DROP TABLE owed_by_units;
";

/// An effect that a change made necessary and that is not yet known to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// Who owes it: a unit, a command; for a daemon-reload what asked for it.
    pub debtor: ResourceId,
    /// What: of a unit a restart, a reload or (`run`) that it is validated, of a command that it is run.
    pub action: Action,
    /// The resource whose change caused it.
    pub because: ResourceId,
    /// The revision that was being applied, in hex.
    pub revision: String,
    /// When the change was known to be made, in microseconds since the machine started; `None` while it may still be under way.
    pub caused: Option<u64>,
}

impl Record {
    /// Knows what `other` knew to be paid.
    pub fn take_paid(&mut self, other: &mut Record) {
        self.paid.get_mut().append(other.paid.get_mut());
    }

    /// Knows that this debt is paid, until that is written down with whatever is written next.
    pub fn note_paid(&mut self, debtor: &ResourceId, action: Action) {
        self.paid.get_mut().insert((debtor.clone(), action));
    }

    /// Forgets what a boot pays: everything that runs has read its files since. Commands and validations stay owed.
    pub fn forget_debts_paid_by_boot(&self) -> Result<(), Failure> {
        self.connection
            .execute(
                "DELETE FROM owed WHERE action IN ('restart', 'reload', 'daemon-reload')",
                [],
            )
            .map_err(failure)?;
        // The clock they are measured by began anew.
        self.connection
            .execute_batch("UPDATE owed SET caused = NULL; UPDATE former SET kept = 0")
            .map_err(failure)
    }

    /// Says that no change is under way any more: what is owed was caused before `moment`, in microseconds since the machine started.
    pub fn settle_debts(&self, moment: u64) -> Result<(), Failure> {
        let is_open = self
            .connection
            .prepare_cached("SELECT 1 FROM owed WHERE caused IS NULL")
            .and_then(|mut statement| statement.exists([]))
            .map_err(failure)?;
        if is_open {
            self.connection
                .execute(
                    "UPDATE owed SET caused = ?1 WHERE caused IS NULL",
                    [i64::try_from(moment).unwrap_or(i64::MAX)],
                )
                .map_err(failure)?;
        }
        Ok(())
    }

    /// Everything that is owed.
    pub fn owed(&self) -> Result<Vec<Owed>, Failure> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT debtor, action, because, revision, caused FROM owed ORDER BY debtor, action",
            )
            .map_err(failure)?;
        let mut rows = statement.query([]).map_err(failure)?;
        let mut owed = Vec::new();
        while let Some(row) = rows.next().map_err(failure)? {
            let text =
                |index: usize| -> Result<String, Failure> { row.get(index).map_err(failure) };
            let caused: Option<i64> = row.get(4).map_err(failure)?;
            // What this version has no word for, it cannot pay.
            let (Ok(debtor), Ok(action), Ok(because)) =
                (text(0)?.parse(), text(1)?.parse(), text(2)?.parse())
            else {
                continue;
            };
            let debt = Owed {
                debtor,
                action,
                because,
                revision: text(3)?,
                caused: caused.and_then(|moment| u64::try_from(moment).ok()),
            };
            let is_paid = self
                .paid
                .borrow()
                .contains(&(debt.debtor.clone(), debt.action));
            if !is_paid {
                owed.push(debt);
            }
        }
        Ok(owed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;
    use jiff::Timestamp;

    fn debt(debtor: ResourceId, action: Action) -> Owed {
        Owed {
            debtor,
            action,
            because: ResourceId::new(Kind::File, "/etc/app.conf"),
            revision: "aa".into(),
            caused: None,
        }
    }

    fn unit() -> ResourceId {
        ResourceId::new(Kind::Unit, "app.service")
    }

    #[test]
    fn a_debt_is_kept_until_it_is_paid() {
        let mut record = Record::in_memory().unwrap();
        let debts = [
            debt(ResourceId::new(Kind::Command, "reindex"), Action::Run),
            debt(unit(), Action::Restart),
        ];
        record
            .intend("aa", &[], &debts, Timestamp::UNIX_EPOCH)
            .unwrap();
        assert_eq!(record.owed().unwrap(), debts);
        record
            .conclude("aa", &[], &[], &[(unit(), Action::Restart)], &[])
            .unwrap();
        assert_eq!(record.owed().unwrap(), debts[..1]);
    }

    #[test]
    fn a_debt_is_caused_once_the_change_was_made_and_anew_with_every_change() {
        let mut record = Record::in_memory().unwrap();
        let owe = |record: &mut Record| {
            let debts = [debt(unit(), Action::Restart)];
            record
                .intend("aa", &[], &debts, Timestamp::UNIX_EPOCH)
                .unwrap();
            record.owed().unwrap()[0].caused
        };
        assert_eq!(owe(&mut record), None);
        record.settle_debts(7).unwrap();
        record.settle_debts(9).unwrap();
        assert_eq!(record.owed().unwrap()[0].caused, Some(7));
        assert_eq!(owe(&mut record), None);
    }

    #[test]
    fn a_boot_pays_what_starting_pays_and_nothing_else() {
        let mut record = Record::in_memory().unwrap();
        let actions = [
            Action::DaemonReload,
            Action::Reload,
            Action::Restart,
            Action::Run,
        ];
        let debts = actions.map(|action| debt(unit(), action));
        record
            .intend("aa", &[], &debts, Timestamp::UNIX_EPOCH)
            .unwrap();
        record.forget_debts_paid_by_boot().unwrap();
        assert_eq!(record.owed().unwrap(), debts[3..]);
    }

    #[test]
    fn debts_of_the_layout_before_are_those_of_units() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let old = rusqlite::Connection::open(&path).unwrap();
        old.execute_batch(super::super::SCHEMA).unwrap();
        old.execute_batch(super::super::history::LAYOUT_2).unwrap();
        old.execute_batch(
            "INSERT INTO owed VALUES ('app.service', 'restart', 'file:/etc/app.conf', 'aa', '2026-11-26T19:00:00Z');
             PRAGMA user_version = 2;",
        )
        .unwrap();
        drop(old);
        let record = Record::open(&path).unwrap();
        assert_eq!(record.owed().unwrap(), [debt(unit(), Action::Restart)]);
    }

    #[test]
    fn a_debt_that_was_paid_on_a_full_disk_is_not_paid_again() {
        let mut record = Record::in_memory().unwrap();
        let debt = debt(unit(), Action::Restart);
        let (now, paid) = (Timestamp::UNIX_EPOCH, [(unit(), Action::Restart)]);
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
        record.paid.get_mut().clear();
        assert_eq!(record.owed().unwrap(), [], "it is struck out as well");
    }
}
