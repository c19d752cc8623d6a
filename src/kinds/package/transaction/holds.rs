//! Holds and marks: set and taken after the transaction, which may lose them.

use std::collections::BTreeSet;

use crate::kinds::package::status::{Database, State};
use crate::kinds::package::transaction::Transaction;
use crate::kinds::package::{Wanted, apt};
use crate::model::{Failure, Outcome};

impl Transaction<'_> {
    /// The changed packages, without architecture, that are on hold; and those that others hold.
    pub(super) fn held_in(&self, database: &Database) -> BTreeSet<String> {
        let held = database.held();
        held.map(|name| apt::without_architecture(name).to_owned())
            .collect()
    }

    /// Takes away the holds of what is to be changed. Whoever asked for the change has seen that they are ours, or managed.
    pub(super) fn free_held(&mut self) -> Result<(), Failure> {
        let names: Vec<&str> = self
            .pending()
            .iter()
            .map(|index| self.changes[*index].name.as_str())
            .filter(|name| self.held.contains(*name))
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        self.system
            .run(&self.family.mark_held(&names, false))
            .map(drop)
    }

    /// Sets and takes holds, and gives back those that the transaction lost.
    pub(super) fn hold(&mut self) -> Result<(), Failure> {
        let database = self.system.read()?;
        let is_installed = |name: &str| database.state(name) == State::Installed;
        let mut lost: BTreeSet<&str> = BTreeSet::new();
        for change in &self.changes {
            let was_held = self.held.contains(apt::without_architecture(&change.name));
            let is_held = database
                .get(&change.name)
                .is_some_and(|entry| entry.is_held);
            if was_held && !is_held && is_installed(&change.name) {
                lost.insert(&change.name);
            }
        }
        let mut asked = Vec::new();
        for (index, change) in self.changes.iter().enumerate() {
            let Wanted::Held(is_held) = change.wanted else {
                continue;
            };
            lost.remove(change.name.as_str());
            let outcome = &mut self.outcomes[index];
            if change.wanted.is_met(&database, &change.name) {
                outcome.get_or_insert(Outcome::Done);
            } else if is_installed(&change.name) {
                asked.push((index, is_held));
            } else {
                // It was to be installed, and that failed.
                outcome.get_or_insert(Outcome::Skipped(change.id.clone()));
            }
        }
        let lost: Vec<String> = lost.into_iter().map(str::to_owned).collect();
        for is_held in [true, false] {
            let wanted = asked.iter().filter(|(_, wanted)| *wanted == is_held);
            let indices: Vec<usize> = wanted.map(|(index, _)| *index).collect();
            let again = lost.iter().filter(|_| is_held).map(String::as_str);
            let names: Vec<&str> = indices
                .iter()
                .map(|index| self.changes[*index].name.as_str())
                .chain(again)
                .collect();
            if names.is_empty() {
                continue;
            }
            let result = self.system.run(&self.family.mark_held(&names, is_held))?;
            let database = self.system.read()?;
            for index in indices {
                let change = &self.changes[index];
                if change.wanted.is_met(&database, &change.name) {
                    self.outcomes[index] = Some(Outcome::Done);
                } else {
                    let failure = self.explain(index, &result);
                    self.fail(index, failure);
                }
            }
        }
        Ok(())
    }

    /// Marks again what came along with other packages before limpet named it to apt.
    pub(super) fn mark(&mut self) -> Result<(), Failure> {
        let database = self.system.read()?;
        let is_to_be = |index: &usize| {
            let change = &self.changes[*index];
            change.automatic && database.state(&change.name) == State::Installed
        };
        let indices: Vec<usize> = (0..self.changes.len()).filter(is_to_be).collect();
        if indices.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = indices
            .iter()
            .map(|index| self.changes[*index].name.as_str())
            .collect();
        let result = self.system.run(&self.family.mark_automatic(&names))?;
        if !result.is_success() {
            for index in indices {
                let failure = self.explain(index, &result);
                self.fail(index, failure);
            }
        }
        Ok(())
    }
}
