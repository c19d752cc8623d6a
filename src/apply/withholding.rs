//! Restarts that packages are kept from making: withheld while packages are changed, and owed from then on.

use super::{Prepared, Walk, Walked};
use crate::kinds::package::withholding::{self, Withheld};
use crate::model::{Action, Failure, Kind, ResourceId};
use crate::plan::InventoryKind;
use crate::record::{Owed, Record};
use crate::sys::{Host, clock};

/// Withholds the restarts of units that wait for a person, where `steps` change packages.
pub(super) fn begin(walk: &Walk<'_>, steps: &[Prepared]) -> Result<(), Failure> {
    match changes_packages(steps) {
        true => withholding::begin(walk.host, &walk.declarations.units_with_manual_restart()),
        false => Ok(()),
    }
}

/// Ends it, and writes down what is owed.
pub(super) fn end(record: &mut Record, walk: &Walk<'_>, steps: &[Prepared], walked: &mut Walked) {
    if changes_packages(steps) {
        walked.note(owe_what_was_withheld(walk.host, record, walk.revision));
    }
}

fn changes_packages(steps: &[Prepared]) -> bool {
    let first = steps.first().map(|prepared| prepared.step.kind);
    first == Some(InventoryKind::Package)
}

/// Ends the withholding, by whichever run it was begun, and writes down what is owed because of it.
pub fn owe_what_was_withheld(
    host: &Host,
    record: &mut Record,
    revision: &str,
) -> Result<(), Failure> {
    let withheld = withholding::end(host)?;
    if withheld.is_empty() {
        return Ok(());
    }
    let writing = record.write(revision)?;
    for Withheld { unit, package } in withheld {
        let debtor = ResourceId::new(Kind::Unit, unit.as_str());
        let because = match package.as_str() {
            "" => debtor.clone(),
            package => ResourceId::new(Kind::Package, package),
        };
        tracing::info!(
            limpet_revision = revision,
            limpet_resource = %debtor,
            limpet_reason = %because,
            "{debtor}: kept {because} from restarting it: that waits for a person",
        );
        let debt = Owed {
            debtor,
            action: Action::Restart,
            because,
            revision: revision.to_owned(),
            caused: None,
        };
        writing.owe(&debt, clock::now())?;
    }
    writing.commit()?;
    // Only now: whoever is killed in between writes it down once more.
    withholding::forget(host)
}
