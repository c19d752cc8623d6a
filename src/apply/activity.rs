//! What a cycle is doing, for whoever waits for it.

use std::time::Duration;

use super::{TRANSACTION_SILENCE, Walk};
use crate::kinds::{command, repository, unit};
use crate::model::Kind;
use crate::plan::{InventoryKind, Step};

/// How long any other batch may be silent; starting units takes what their time-outs allow.
const BATCH_SILENCE: Duration = Duration::from_secs(10 * 60);

/// What is being done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activity {
    /// The source is asked for its tip.
    Polling,
    /// The machine is compared with the declaration.
    Looking,
    /// The machine is being changed.
    Applying(String),
    /// These checks have yet to hold.
    Checking(String),
}

impl std::fmt::Display for Activity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Activity::Polling => f.write_str("polling the source"),
            Activity::Looking => f.write_str("looking at the machine"),
            Activity::Applying(what) => f.write_str(what),
            Activity::Checking(what) => write!(f, "waiting for {what}"),
        }
    }
}

/// Tells what is about to be made, and how long it may take.
pub(super) fn announce(walk: &Walk<'_>, steps: &[Step]) {
    let silence = match steps.first().map(|step| step.kind) {
        _ if steps.iter().any(Step::is_validation) => {
            unit::TIME_LIMIT * steps.len().try_into().unwrap_or(1) + BATCH_SILENCE
        }
        Some(InventoryKind::Package) => TRANSACTION_SILENCE,
        // One after the other.
        Some(InventoryKind::Command) if steps.iter().all(|it| it.id.kind == Kind::Repository) => {
            repository::TIME_LIMIT * steps.len().try_into().unwrap_or(1) + BATCH_SILENCE
        }
        Some(InventoryKind::Command) => {
            command::LONGEST_TIMEOUT * steps.len().try_into().unwrap_or(1)
        }
        _ => BATCH_SILENCE,
    };
    let message = match steps {
        // What is deleted of a directory or a tree is not the whole of it.
        [step] if step.kind == InventoryKind::Path && step.id.name != step.key => {
            format!("{} {} ({})", step.action, step.id, step.key)
        }
        [step] => format!("{} {}", step.action, step.id),
        [first, .., last] if first.id == last.id => {
            format!("{} steps of {}", steps.len(), first.id)
        }
        [first, .., last] => format!("{} steps, {} to {}", steps.len(), first.id, last.id),
        [] => return,
    };
    (walk.progress)(&Activity::Applying(message), silence);
}
