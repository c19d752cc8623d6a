//! Restarts and reloads that other changes make necessary.

use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::desired::DesiredState;
use crate::kinds::unit::{DesiredUnit, Operation, UnitChange, is_own_file};
use crate::model::{Action, Reason, ResourceId};
use crate::plan::{Change, Inventory, InventoryKind, Observed, Step};

/// The triggers that `steps` and the debts of earlier runs cause.
///
/// A restart makes a reload needless; a unit that is started, stopped or masked by a step needs neither, and one that is not active
/// is left alone: implied restarts are try-restarts. One that failed when it was restarted still owes the restart.
pub fn triggers(
    desired: &DesiredState,
    observed: &Observed,
    inventory: &Inventory,
    steps: &[Step],
) -> Vec<Step> {
    let changed: BTreeSet<&ResourceId> = steps
        .iter()
        .filter(|step| step.kind != InventoryKind::Unit)
        .map(|step| &step.id)
        .collect();
    let changed_paths: BTreeMap<&str, &ResourceId> = steps
        .iter()
        .filter(|step| step.kind == InventoryKind::Path)
        .map(|step| (step.key.as_str(), &step.id))
        .collect();
    let settled_by_a_step: BTreeSet<&str> = steps
        .iter()
        .filter(|step| step.kind == InventoryKind::Unit)
        .filter(|step| matches!(step.action, Action::Start | Action::Stop | Action::Mask))
        .map(|step| step.key.as_str())
        .collect();

    let mut triggers = Vec::new();
    for unit in desired.units.iter().filter(|unit| !unit.report) {
        let has_failed = has_failed(observed, &unit.name) && inventory.owes(&unit.name);
        let is_concerned = is_up(observed, &unit.name) || has_failed;
        if settled_by_a_step.contains(unit.name.as_str()) || !is_concerned {
            continue;
        }
        let own_files = changed_paths
            .iter()
            .filter(|(path, _)| owns(unit, path))
            .map(|(_, id)| (*id).clone());
        let mut restart_because: Vec<ResourceId> = own_files.collect();
        restart_because.extend(
            unit.restart_on
                .iter()
                .filter(|id| changed.contains(id))
                .cloned(),
        );
        let mut reload_because: Vec<ResourceId> = unit
            .reload_on
            .iter()
            .filter(|id| changed.contains(id))
            .cloned()
            .collect();
        let mut is_owed = false;
        for (_, action, because) in inventory
            .owed
            .iter()
            .filter(|(name, _, _)| *name == unit.name)
        {
            is_owed = true;
            match action {
                Action::Reload => reload_because.push(because.clone()),
                _ => restart_because.push(because.clone()),
            }
        }
        let (action, because) = match (restart_because.is_empty(), reload_because.is_empty()) {
            (true, true) => continue,
            (true, false) => (Action::Reload, reload_because),
            (false, _) => (Action::Restart, [restart_because, reload_because].concat()),
        };
        triggers.push(Step {
            id: unit.id.clone(),
            kind: InventoryKind::Unit,
            key: unit.name.clone(),
            action,
            reason: Reason::Triggered,
            fields: Vec::new(),
            is_drift: false,
            removes: false,
            blockers: Vec::new(),
            because,
            is_owed,
            original: serde_json::Value::Null,
            change: Change::Unit(UnitChange {
                name: unit.name.clone(),
                operation: match action {
                    // A try-restart would leave it as it is.
                    _ if has_failed => Operation::Start,
                    Action::Reload => Operation::Reload,
                    _ => Operation::Restart,
                },
            }),
        });
    }
    triggers
}

/// Debts that nobody can or need pay any more: the unit is not declared, or does not run and reads its files anew when it starts.
pub fn void_debts(
    desired: &DesiredState,
    observed: &Observed,
    inventory: &Inventory,
) -> Vec<(String, Action)> {
    let is_void = |name: &str| {
        let is_declared = desired.units.iter().any(|unit| unit.name == name);
        !is_declared
            || (observed.units.units.contains_key(name)
                && !is_up(observed, name)
                && !has_failed(observed, name))
    };
    let debts = inventory.owed.iter().filter(|(name, _, _)| is_void(name));
    debts
        .map(|(name, action, _)| (name.clone(), *action))
        .collect()
}

/// Is `path` the unit's own file or a drop-in, whichever resource declares it.
fn owns(unit: &DesiredUnit, path: &str) -> bool {
    unit.files.iter().any(|own| own == path) || is_own_file(&unit.name, path)
}

fn is_up(observed: &Observed, unit: &str) -> bool {
    matches!(observed.units.units.get(unit), Some(Ok(seen)) if seen.is_up())
}

fn has_failed(observed: &Observed, unit: &str) -> bool {
    matches!(observed.units.units.get(unit), Some(Ok(seen)) if seen.active == "failed")
}
