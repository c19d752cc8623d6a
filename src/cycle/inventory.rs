//! The inventory in memory, as the plan wants it: read once, and from then on only what was written since.

use std::sync::Arc;

use crate::kinds::file::{Original, Remembered};
use crate::kinds::kind::Owned;
use crate::model::{Class, Failure};
use crate::plan::{Debt, Inventory, InventoryKind};
use crate::record::{Changes, InventoryLine, Record};

/// What is known of the inventory.
#[derive(Debug, Default)]
pub(super) struct Known {
    inventory: Arc<Inventory>,
    is_complete: bool,
}

impl Known {
    /// The inventory as it is in `record` now.
    pub(super) fn read(&mut self, record: &Record) -> Result<Arc<Inventory>, Failure> {
        let changes = record.take_changes()?;
        // Whatever goes wrong in between, the next one reads everything.
        let was_complete = std::mem::take(&mut self.is_complete);
        match (changes, Arc::get_mut(&mut self.inventory)) {
            (Changes::Keys(keys), _) if keys.is_empty() && was_complete => {}
            (Changes::Keys(keys), Some(inventory)) if was_complete => {
                for (kind, key) in keys {
                    let Some(word) = InventoryKind::of_word(&kind) else {
                        continue;
                    };
                    forget(inventory, word, &key);
                    record.read_inventory_line(&kind, &key, &mut |line| insert(inventory, line))?;
                }
            }
            _ => {
                let mut inventory = Inventory::default();
                record.read_inventory(&mut |line| insert(&mut inventory, line))?;
                inventory.paths.shrink_to_fit();
                self.inventory = Arc::new(inventory);
            }
        }
        let owed = record.owed()?;
        let owed = owed
            .into_iter()
            .map(|owed| Debt {
                debtor: owed.debtor,
                action: owed.action,
                because: owed.because,
                caused: owed.caused,
            })
            .collect();
        if self.inventory.owed != owed {
            match Arc::get_mut(&mut self.inventory) {
                Some(inventory) => inventory.owed = owed,
                None => {
                    return Err(Failure::new(
                        Class::Bug,
                        "failed to read the inventory: an older one is still in use",
                    ));
                }
            }
        }
        self.is_complete = true;
        Ok(self.inventory.clone())
    }
}

/// The inventory as it is in `record`, for those who look once.
pub(super) fn read(record: &Record) -> Result<Arc<Inventory>, Failure> {
    Known::default().read(record)
}

fn forget(inventory: &mut Inventory, kind: InventoryKind, key: &str) {
    let owned = (kind, key.to_owned());
    inventory.unmade.remove(&owned);
    inventory.prevented.remove(&owned);
    inventory.needs.remove(&owned);
    match kind {
        InventoryKind::Path => take_out(&mut inventory.paths, key),
        InventoryKind::Package => take_out(&mut inventory.packages, key),
        InventoryKind::Account => take_out(&mut inventory.accounts, key),
        InventoryKind::Sysctl => take_out(&mut inventory.sysctls, key),
        InventoryKind::Command => take_out(&mut inventory.commands, key),
        InventoryKind::Unit => take_out(&mut inventory.units, key),
    }
}

fn insert(inventory: &mut Inventory, line: InventoryLine<'_>) -> Result<(), Failure> {
    let Some(kind) = InventoryKind::of_word(line.kind) else {
        return Ok(());
    };
    if !line.made {
        inventory.unmade.insert((kind, line.key.to_owned()));
    }
    if line.prevent_removal {
        inventory.prevented.insert((kind, line.key.to_owned()));
    }
    if !line.needs.is_empty() {
        let needs = line.needs.clone();
        inventory.needs.insert((kind, line.key.to_owned()), needs);
    }
    match kind {
        InventoryKind::Path => {
            let applied = Remembered::of_text(line.applied);
            put(&mut inventory.paths, owned::<Original, _>(line, applied)?);
        }
        InventoryKind::Package => {
            let applied = value(&line)?;
            put(&mut inventory.packages, owned(line, applied)?);
        }
        InventoryKind::Account => {
            let applied = value(&line)?;
            put(&mut inventory.accounts, owned(line, applied)?);
        }
        InventoryKind::Sysctl => {
            let applied = value(&line)?;
            put(&mut inventory.sysctls, owned(line, applied)?);
        }
        InventoryKind::Command => {
            let applied = value(&line)?;
            put(&mut inventory.commands, owned(line, applied)?);
        }
        InventoryKind::Unit => {
            let applied = value(&line)?;
            put(&mut inventory.units, owned(line, applied)?);
        }
    }
    Ok(())
}

fn owned<O: serde::de::DeserializeOwned, A>(
    line: InventoryLine<'_>,
    applied: A,
) -> Result<Owned<O, A>, Failure> {
    let original = serde_json::from_str(line.original)
        .map_err(|error| damaged(&format!("the original of '{}'", line.key), &error))?;
    // Mostly the same: one is enough.
    let key = match line.resource.name == *line.key {
        true => line.resource.name.clone(),
        false => line.key.into(),
    };
    Ok(Owned {
        id: line.resource,
        key,
        original,
        on_removal: line.on_removal,
        applied,
    })
}

fn value(line: &InventoryLine<'_>) -> Result<serde_json::Value, Failure> {
    serde_json::from_str(line.applied)
        .map_err(|error| damaged(&format!("inventory entry '{}'", line.key), &error))
}

/// Puts `item` where its key belongs; lines come in order, so that it is mostly the end.
fn put<O, A>(owned: &mut Vec<Owned<O, A>>, item: Owned<O, A>) {
    match owned.last() {
        Some(last) if last.key >= item.key => {
            let place = owned.partition_point(|other| other.key < item.key);
            owned.insert(place, item);
        }
        _ => owned.push(item),
    }
}

fn take_out<O, A>(owned: &mut Vec<Owned<O, A>>, key: &str) {
    if let Ok(place) = owned.binary_search_by(|item| item.key.as_str().cmp(key)) {
        owned.remove(place);
    }
}

fn damaged(what: &str, error: &serde_json::Error) -> Failure {
    Failure::new(
        Class::Host,
        format!("the state database is damaged at {what}: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, OnRemoval, ResourceId};
    use crate::record::InventoryEntry;

    fn entry(kind: &str, key: &str, made: bool) -> InventoryEntry {
        let original = match kind {
            "path" => r#"{"type":"absent"}"#,
            "package" => r#"{"version":null}"#,
            _ => r#"{"enabled":false,"masked":false,"active":false}"#,
        };
        InventoryEntry {
            kind: kind.to_owned(),
            key: key.to_owned(),
            resource: ResourceId::new(Kind::File, key),
            on_removal: OnRemoval::Restore,
            applied: r#"{"type":"parent"}"#.to_owned(),
            original: original.to_owned(),
            made,
            prevent_removal: key == "/b",
            needs: vec![ResourceId::new(Kind::Package, key)],
        }
    }

    /// What is known is what somebody who reads everything knows.
    #[track_caller]
    fn check(known: &mut Known, record: &Record) {
        let read = format!("{:?}", known.read(record).unwrap());
        let mut anew = Inventory::default();
        record
            .read_inventory(&mut |line| insert(&mut anew, line))
            .unwrap();
        anew.owed = known.inventory.owed.clone();
        assert_eq!(read, format!("{anew:?}"));
    }

    #[test]
    fn what_was_written_since_is_known_without_reading_everything() {
        let mut record = Record::in_memory().unwrap();
        let mut known = Known::default();
        check(&mut known, &record);
        let write = |record: &mut Record, entries: &[InventoryEntry], gone: &[(&str, &str)]| {
            let gone: Vec<_> = gone
                .iter()
                .map(|(kind, key)| ((*kind).to_owned(), (*key).to_owned()))
                .collect();
            record.conclude("aa", entries, &gone, &[], &[]).unwrap();
        };
        let entries = ["/b", "/d", "/a", "/c"].map(|key| entry("path", key, true));
        write(&mut record, &entries, &[]);
        check(&mut known, &record);
        write(
            &mut record,
            &[
                entry("path", "/bb", false),
                entry("path", "/a", false),
                entry("package", "nginx", true),
                entry("unit", "app.service", true),
            ],
            &[("path", "/c"), ("path", "/never")],
        );
        check(&mut known, &record);
        assert_eq!(known.inventory.unmade.len(), 2);
        write(
            &mut record,
            &[entry("path", "/a", true)],
            &[
                ("path", "/bb"),
                ("package", "nginx"),
                ("unit", "app.service"),
            ],
        );
        check(&mut known, &record);
        assert_eq!(known.inventory.unmade.len(), 0);
        assert_eq!(known.inventory.paths.len(), 3);
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_no_reason_to_forget_the_next_time() {
        let mut record = Record::in_memory().unwrap();
        let mut known = Known::default();
        check(&mut known, &record);
        let damaged = InventoryEntry {
            original: "?".to_owned(),
            ..entry("path", "/a", true)
        };
        record.conclude("aa", &[damaged], &[], &[], &[]).unwrap();
        assert!(known.read(&record).is_err());
        assert!(known.read(&record).is_err());
    }
}
