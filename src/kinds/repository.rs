//! Repositories of packages: their lists are fetched when what says where they are was changed.
//!
//! The files that a package manager reads are paths, so that drift and what was there before are theirs. What is left is to fetch the
//! lists anew, which is owed like a restart: the plan across kinds triggers it, before any package.
//!
//! Invariant: one repository that cannot be reached stops neither the others nor a package that is known already.

use std::time::Duration;

use crate::kinds::package::{apt, lists};
use crate::model::{Failure, Outcome, ResourceId};
use crate::sys::Host;

/// How long fetching the lists of one may take.
pub const TIME_LIMIT: Duration = apt::REFRESH_LIMIT;

/// One declared repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredRepository {
    /// `repository:<name>`.
    pub id: ResourceId,
    /// What tells the package manager of it.
    pub told: Told,
    /// Look, but do not touch.
    pub report: bool,
}

/// What tells a package manager of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The file that apt reads.
    Apt(String),
}

/// Fetching the lists of one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshChange {
    /// Which one.
    pub id: ResourceId,
    /// What tells the package manager of it.
    pub told: Told,
}

impl DesiredRepository {
    /// Fetching its lists.
    pub fn refresh(&self) -> RefreshChange {
        RefreshChange {
            id: self.id.clone(),
            told: self.told.clone(),
        }
    }
}

/// Fetches the lists of each by itself. One outcome per change, in the same order.
pub fn refresh(host: &Host, changes: &[&RefreshChange]) -> Vec<Outcome> {
    let outcome = |change: &&RefreshChange| match refresh_one(host, change) {
        Ok(()) => Outcome::Done,
        Err(failure) => Outcome::Failed(failure.about(change.id.clone())),
    };
    changes.iter().map(outcome).collect()
}

fn refresh_one(host: &Host, change: &RefreshChange) -> Result<(), Failure> {
    let Told::Apt(file) = &change.told;
    let result = host.run_outside(&apt::refresh_one(file))?;
    match lists::find_failure(&format!("the lists of {}", change.id), &result) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}
