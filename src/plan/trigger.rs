//! Restarts and reloads that other changes make necessary.

use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::desired::DesiredState;
use crate::kinds::unit::{DesiredUnit, Operation, UnitChange, is_own_file};
use crate::model::{Action, Reason, ResourceId};
use crate::plan::{Change, Inventory, InventoryKind, Observed, Step};

/// The triggers that `steps` and the debts of earlier runs cause. A unit that `steps` start anyway is started afresh instead.
///
/// A restart makes a reload needless; a unit that a step stops or masks needs neither. Implied restarts are try-restarts: one that is
/// not active is left alone, unless it failed when it was restarted, or a package of the same run may start it in between.
pub fn triggers(
    desired: &DesiredState,
    observed: &Observed,
    inventory: &Inventory,
    steps: &mut [Step],
) -> Vec<Step> {
    let changes = Changes::of(steps);
    let mut triggers = Vec::new();
    let declared = desired
        .units
        .iter()
        .filter(|unit| !unit.report)
        .map(Concerned::declared);
    let is_declared = |name: &str| desired.units.iter().any(|unit| unit.name == name);
    let undeclared = inventory
        .units
        .iter()
        .filter(|owned| !is_declared(&owned.key));
    for unit in declared.chain(undeclared.map(|owned| Concerned::undeclared(&owned.key, &owned.id)))
    {
        let (mut restart_because, mut reload_because) = unit.causes(&changes);
        let owed: Vec<_> = inventory
            .owed
            .iter()
            .filter(|(name, _, _)| name == unit.name)
            .collect();
        for (_, action, because) in &owed {
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
        let its_steps = || {
            steps
                .iter()
                .filter(|step| step.kind == InventoryKind::Unit && step.key == unit.name)
        };
        if its_steps().any(|step| matches!(step.action, Action::Stop | Action::Mask)) {
            continue;
        }
        // One that is no longer declared is not brought back to life for a debt; its files may be gone in this very run.
        let has_failed =
            has_failed(observed, unit.name) && !owed.is_empty() && unit.declared.is_some();
        if its_steps().any(|step| step.action == Action::Start) {
            start_afresh(steps, unit.name, &because);
        } else if is_up(observed, unit.name) || has_failed || changes.packages {
            triggers.push(Step {
                id: unit.id.clone(),
                kind: InventoryKind::Unit,
                key: unit.name.to_owned(),
                action,
                reason: Reason::Triggered,
                fields: Vec::new(),
                is_drift: false,
                removes: false,
                blockers: Vec::new(),
                because,
                is_owed: !owed.is_empty(),
                original: String::new(),
                change: Change::Unit(UnitChange {
                    name: unit.name.to_owned(),
                    operation: match action {
                        // A try-restart would leave it as it is.
                        _ if has_failed => Operation::Start,
                        Action::Reload => Operation::Reload,
                        _ => Operation::Restart,
                    },
                }),
            });
        }
    }
    triggers
}

fn start_afresh(steps: &mut [Step], unit: &str, because: &[ResourceId]) {
    let starts = steps
        .iter_mut()
        .filter(|step| step.kind == InventoryKind::Unit && step.key == unit);
    for step in starts.filter(|step| step.action == Action::Start) {
        step.because = because.to_vec();
        step.change = Change::Unit(UnitChange {
            name: unit.to_owned(),
            operation: Operation::StartAfresh,
        });
    }
}

/// What the steps change, as far as units care.
struct Changes {
    resources: BTreeSet<ResourceId>,
    paths: BTreeMap<String, ResourceId>,
    /// Are packages installed or changed, whose scripts may start units.
    packages: bool,
}

impl Changes {
    fn of(steps: &[Step]) -> Self {
        let other_than_units = steps.iter().filter(|step| step.kind != InventoryKind::Unit);
        let paths = steps.iter().filter(|step| step.kind == InventoryKind::Path);
        Changes {
            resources: other_than_units.map(|step| step.id.clone()).collect(),
            paths: paths
                .map(|step| (step.key.clone(), step.id.clone()))
                .collect(),
            packages: steps.iter().any(|step| step.kind == InventoryKind::Package),
        }
    }
}

/// A unit that changes may concern.
struct Concerned<'a> {
    name: &'a str,
    id: &'a ResourceId,
    declared: Option<&'a DesiredUnit>,
}

impl<'a> Concerned<'a> {
    fn declared(unit: &'a DesiredUnit) -> Self {
        Concerned {
            name: &unit.name,
            id: &unit.id,
            declared: Some(unit),
        }
    }

    /// One that is still owned: what goes away with its declaration concerns it, too.
    fn undeclared(name: &'a str, id: &'a ResourceId) -> Self {
        Concerned {
            name,
            id,
            declared: None,
        }
    }

    /// Why it is to be restarted, and why reloaded.
    fn causes(&self, changes: &Changes) -> (Vec<ResourceId>, Vec<ResourceId>) {
        let owns = |path: &str| {
            let brings = self
                .declared
                .is_some_and(|unit| unit.files.iter().any(|own| own == path));
            brings || is_own_file(self.name, path)
        };
        let own_files = changes
            .paths
            .iter()
            .filter(|(path, _)| owns(path))
            .map(|(_, id)| id.clone());
        let among = |ids: &[ResourceId]| -> Vec<ResourceId> {
            ids.iter()
                .filter(|id| changes.resources.contains(id))
                .cloned()
                .collect()
        };
        let restart_on = self
            .declared
            .map_or(Vec::new(), |unit| among(&unit.restart_on));
        let reload_on = self
            .declared
            .map_or(Vec::new(), |unit| among(&unit.reload_on));
        (own_files.chain(restart_on).collect(), reload_on)
    }
}

/// Debts that nobody can or need pay any more: the unit is not declared, or does not run and reads its files anew when it starts.
pub fn void_debts(
    desired: &DesiredState,
    observed: &Observed,
    inventory: &Inventory,
) -> Vec<(String, Action)> {
    let is_void = |name: &str| {
        let is_declared = desired.units.iter().any(|unit| unit.name == name);
        let is_idle = observed.units.units.contains_key(name) && !is_up(observed, name);
        !is_declared || (is_idle && !has_failed(observed, name))
    };
    let debts = inventory.owed.iter().filter(|(name, _, _)| is_void(name));
    debts
        .map(|(name, action, _)| (name.clone(), *action))
        .collect()
}

fn is_up(observed: &Observed, unit: &str) -> bool {
    matches!(observed.units.units.get(unit), Some(Ok(seen)) if seen.is_up())
}

fn has_failed(observed: &Observed, unit: &str) -> bool {
    matches!(observed.units.units.get(unit), Some(Ok(seen)) if seen.active == "failed")
}
