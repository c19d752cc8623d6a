//! What the inventory says of a step that is about to be made, was made, or cannot be.

use crate::apply::Walk;
use crate::kinds::file::Applied;
use crate::model::{Failure, OnRemoval, Reason};
use crate::plan::{Change, Step};
use crate::record::{InventoryEntry, Writing};

/// Is what a step is about owned afterwards; a restart makes nothing ours.
pub(super) fn is_owned_after(step: &Step) -> bool {
    match &step.change {
        Change::Path(change) => change.applied.is_some(),
        _ => !matches!(step.reason, Reason::Undeclared | Reason::Triggered),
    }
}

/// What the inventory says of a step, made or about to be; nothing for what is not owned afterwards.
pub(super) fn entry(walk: &Walk<'_>, step: &Step, made: bool) -> Option<InventoryEntry> {
    if !is_owned_after(step) {
        return None;
    }
    let declaration = walk.declarations.declared_by(step.kind, &step.key);
    // A directory made on the way is nobody's.
    let declared = declaration.map(|(resource, _)| resource);
    let declarations = walk.declarations;
    let (resource, on_removal) = declaration.unwrap_or((&step.id, OnRemoval::Restore));
    Some(InventoryEntry {
        kind: step.kind.as_str().to_owned(),
        key: step.key.to_string(),
        resource: resource.clone(),
        on_removal,
        applied: applied(walk, step),
        original: step.original.clone(),
        made,
        prevent_removal: declared.is_some_and(|id| declarations.prevents_removal(id)),
        needs: declared.map_or(Vec::new(), |id| declarations.needs(id).to_vec()),
    })
}

/// What a step leaves applied, in the kind's words.
fn applied(walk: &Walk<'_>, step: &Step) -> String {
    let applied = match &step.change {
        // A path may be owned without being declared: the parent of a declared one.
        Change::Path(change) => change.applied.as_ref().map(Applied::to_text),
        _ => {
            let declaration = walk.declarations.get(step.kind, &step.key);
            declaration.map(|declaration| declaration.applied)
        }
    };
    applied.unwrap_or_else(|| "null".to_owned())
}

/// What a step that was made means for what is owned.
pub(super) fn record_made(
    writing: &Writing<'_>,
    walk: &Walk<'_>,
    step: &Step,
    is_new: bool,
) -> Result<(), Failure> {
    // Packages and units are released when nothing of them is left to take back: the next plan says so.
    if matches!(&step.change, Change::Path(change) if change.applied.is_none()) {
        writing.release(step.kind.as_str(), &step.key)?;
    }
    if is_new && is_owned_after(step) {
        // All else was written before it was made.
        writing.confirm(step.kind.as_str(), &step.key)?;
    } else if let Some(entry) = entry(walk, step, true) {
        writing.own(&entry)?;
    }
    Ok(())
}

/// What cannot be taken back is not tried again: it is forgotten, or owned as it is declared now.
pub(super) fn record_left(
    writing: &Writing<'_>,
    walk: &Walk<'_>,
    step: &Step,
) -> Result<(), Failure> {
    let Some(declaration) = walk.declarations.get(step.kind, &step.key) else {
        return writing.release(step.kind.as_str(), &step.key);
    };
    writing.own(&InventoryEntry {
        kind: step.kind.as_str().to_owned(),
        key: step.key.to_string(),
        resource: declaration.id.clone(),
        on_removal: declaration.on_removal,
        applied: declaration.applied,
        original: step.original.clone(),
        made: true,
        prevent_removal: declaration.prevent_removal,
        needs: declaration.needs.to_vec(),
    })
}
