//! Mending what this host remembers: a record that could not be written or read is opened again, and debts end with their boot.
//!
//! Invariant: nothing new is trusted by it. What is missing is missing in the way [`state::open`] says.

use tracing::debug;

use crate::cycle::state::State;
use crate::cycle::{BOOT_ID, Cycle, inventory, state};
use crate::model::Failure;
use crate::record::Record;
use crate::record::objects::ObjectStore;
use crate::report::journal;
use crate::sys::{Host, clock};

/// Under which name the record keeps when it could be written again.
const WRITTEN: &str = "written-again";

impl Cycle {
    /// Writes the record again, or opens it again, where that failed before.
    pub(super) fn mend_state(&mut self) {
        if self.must_load && !self.objects.is_whole() {
            match state::open_objects(&self.host) {
                Ok(objects) => self.objects = objects,
                Err(failure) => debug!("failed to make the object store anew: {failure}"),
            }
        }
        if let Some(head) = &self.head
            && self.situation.state_missing.is_none()
        {
            let marked = state::ensure_mark(&self.host, head);
            self.note_unwritten(marked);
        }
        if self.unwritable.is_none() {
            return;
        }
        // What was opened for reading stays so, though the disk may have become writable.
        if self.record.is_copy() || self.objects.is_read_only() {
            // Closed first: SQLite shares what it knows of an open file with every later connection to it.
            if let Ok(nothing) = ObjectStore::in_memory() {
                self.objects = nothing;
            }
            match state::open(&self.host) {
                Ok(state) if state.unwritable.is_none() => self.take_state(state),
                Ok(state) => self.objects = state.objects,
                Err(failure) => debug!("failed to open the state again: {failure}"),
            }
        }
        if self.record.remember(WRITTEN, &clock::now()).is_ok() {
            self.unwritable = None;
        }
    }

    /// Where the record is damaged, goes on as [`state::open`] says for such a host; true when that helps.
    pub(super) fn replace_damaged_record(&mut self) -> bool {
        if self.record.check().is_ok() {
            return false;
        }
        match state::open(&self.host) {
            Ok(state) => {
                self.take_state(state);
                true
            }
            Err(failure) => {
                debug!("failed to open the state again: {failure}");
                false
            }
        }
    }

    pub(super) fn take_state(&mut self, mut state: State) {
        state.record.take_paid(&mut self.record);
        // A disk that could not be written when the agent started knows of the last boot only, and of its debts.
        let debts = forget_debts_of_the_last_boot(&self.host, &state.record);
        tell_what_is_missing(&state);
        self.record = state.record;
        self.rejections = self.record.rejections();
        self.inventory = inventory::Known::default();
        self.objects = state.objects;
        self.head = state.head;
        self.situation.state_missing = state.missing;
        self.unwritable = state.unwritable.or(debts.err());
        if self.in_force.is_none() {
            self.restore();
        }
    }
}

/// Says that trust state is missing, where it is.
pub(super) fn tell_what_is_missing(state: &State) {
    if let Some(failure) = &state.missing {
        let revision = state.head.as_ref().map(|head| head.commit.to_string());
        journal::state_missing(&revision.unwrap_or_default(), failure);
    }
}

/// Drops the debts of before the last boot: everything that runs has read its files since.
pub(super) fn forget_debts_of_the_last_boot(host: &Host, record: &Record) -> Result<(), Failure> {
    if !host.systemd().is_available() {
        return Ok(());
    }
    let id = match host.read_file("/proc/sys/kernel/random/boot_id", 64) {
        Ok(id) => id.unwrap_or_default(),
        Err(failure) => {
            debug!("failed to tell which boot this is, keeping all debts: {failure}");
            return Ok(());
        }
    };
    take_boot(record, String::from_utf8_lossy(&id).trim())?;
    // Nothing is under way: whatever a run of ours was about to change, it is changed by now, or planned anew.
    record.settle_debts(clock::since_boot())
}

/// Drops the debts of before the boot `id`. Where nobody can tell which boot this is, every debt is kept: a restart too many is better
/// than one that never comes.
fn take_boot(record: &Record, id: &str) -> Result<(), Failure> {
    if !id.is_empty() && record.recall::<String>(BOOT_ID)?.as_deref() != Some(id) {
        record.forget_debts_paid_by_boot()?;
        record.remember(BOOT_ID, &id)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::{Action, Kind, ResourceId};
    use crate::record::Owed;

    #[test]
    fn debts_are_forgotten_after_a_boot_and_kept_where_nobody_can_tell() {
        let mut record = Record::in_memory().unwrap();
        let owe = |record: &mut Record| {
            let writing = record.write("aa").unwrap();
            let debt = Owed {
                debtor: ResourceId::new(Kind::Unit, "app.service"),
                action: Action::Restart,
                because: ResourceId::new(Kind::File, "/etc/app"),
                revision: "aa".to_owned(),
                caused: None,
            };
            writing.owe(&debt, Timestamp::UNIX_EPOCH).unwrap();
            writing.commit().unwrap();
        };
        take_boot(&record, "first").unwrap();
        owe(&mut record);
        for (id, left) in [("first", 1), ("", 1), ("first", 1), ("second", 0)] {
            take_boot(&record, id).unwrap();
            assert_eq!(record.owed().unwrap().len(), left, "{id}");
        }
    }
}
