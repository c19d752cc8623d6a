//! Which version a change means, where that depends on what the repositories have.
//!
//! A pattern means the highest version that fits. The version that was there before limpet may be had no longer: then what is installed
//! stays, or what was removed comes back in another version, and people are told.

use std::collections::{BTreeMap, BTreeSet};

use crate::kinds::package::plan::too_new;
use crate::kinds::package::status::{Database, State};
use crate::kinds::package::transaction::{Refresh, Transaction};
use crate::kinds::package::{Wanted, apt};
use crate::model::{Class, Failure, Outcome};

type Versions = BTreeMap<String, BTreeSet<String>>;

impl Transaction<'_> {
    /// Replaces what depends on the repositories by the versions that it means there.
    pub(super) fn resolve_versions(&mut self, database: &Database) -> Result<(), Failure> {
        let open: Vec<usize> = self
            .pending()
            .into_iter()
            .filter(|index| wanted_version(&self.changes[*index].wanted).is_some())
            .collect();
        if open.is_empty() {
            return Ok(());
        }
        let mut versions = self.list_versions(&open)?;
        let is_there = |index: &usize| self.best(*index, &versions).is_some();
        if !open.iter().all(is_there) && matches!(self.refresh, Refresh::NotTried) {
            self.refresh_lists()?;
            versions = self.list_versions(&open)?;
        }
        for index in open {
            let best = self.best(index, &versions);
            self.resolve(index, best, database);
        }
        Ok(())
    }

    fn list_versions(&self, indices: &[usize]) -> Result<Versions, Failure> {
        let names: Vec<&str> = indices
            .iter()
            .map(|index| self.changes[*index].name.as_str())
            .collect();
        let result = self.system.run(&self.family.list_versions(&names))?;
        Ok(self.family.parse_versions(&result.output))
    }

    /// The highest version there is that the change may mean.
    fn best(&self, index: usize, versions: &Versions) -> Option<String> {
        let change = &self.changes[index];
        let wanted = wanted_version(&change.wanted)?;
        let found = versions.get(apt::without_architecture(&change.name))?;
        let fitting = found
            .iter()
            .filter(|version| self.family.fits(wanted, version));
        fitting
            .max_by(|left, right| self.family.compare_versions(left, right))
            .cloned()
    }

    fn resolve(&mut self, index: usize, best: Option<String>, database: &Database) {
        let change = &self.changes[index];
        let entry = database.get(&change.name);
        let installed = entry
            .filter(|entry| entry.state == State::Installed)
            .map(|entry| entry.version.clone());
        let is_downgrade = match (&installed, &best) {
            (Some(installed), Some(best)) => self.family.compare_versions(installed, best).is_gt(),
            _ => false,
        };
        match (change.wanted.clone(), best) {
            (
                Wanted::Fitting {
                    pattern,
                    allow_downgrade,
                },
                Some(_),
            ) if is_downgrade && !allow_downgrade => {
                let installed = installed.unwrap_or_default();
                let failure = too_new(&change.id, &pattern, &installed);
                self.fail(index, failure);
            }
            (_, Some(version)) => {
                self.changes[index].wanted = Wanted::Version {
                    version,
                    is_downgrade,
                };
            }
            (Wanted::PutBack { version }, None) if !matches!(self.refresh, Refresh::Failed(_)) => {
                let id = &change.id;
                let failure = match &installed {
                    Some(installed) => Failure::new(
                        Class::Host,
                        format!(
                            "left {id} at version {installed}: no repository has {version} any more, which was there before"
                        ),
                    ),
                    None => Failure::new(
                        Class::Host,
                        format!(
                            "put {id} back in another version: no repository has {version} any more, which was there before"
                        ),
                    ),
                };
                let failure = failure
                    .with_hint("nothing is left to do for limpet: it is not managed any more")
                    .about(id.clone());
                if installed.is_some() {
                    self.outcomes[index] = Some(Outcome::Left(failure));
                } else {
                    self.left.insert(index, failure);
                    self.changes[index].wanted = Wanted::Installed;
                }
            }
            (Wanted::Fitting { pattern, .. }, None) => {
                let failure = self.not_found(index, Some(&pattern));
                self.fail(index, self.with_refresh_error(failure));
            }
            (Wanted::PutBack { version }, None) => {
                let failure = self.not_found(index, Some(&version));
                self.fail(index, self.with_refresh_error(failure));
            }
            (_, None) => {}
        }
    }
}

/// The version or pattern that has to be looked up.
fn wanted_version(wanted: &Wanted) -> Option<&str> {
    match wanted {
        Wanted::Fitting { pattern, .. } => Some(pattern),
        Wanted::PutBack { version } => Some(version),
        Wanted::Installed | Wanted::Version { .. } | Wanted::Held(_) | Wanted::Absent { .. } => {
            None
        }
    }
}
