//! What other changes make necessary: restarts and reloads of units, and commands that run when something changed.
//!
//! A *trigger* is made when one of its causes was changed in this run, or when it is owed from an earlier one.

use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::desired::DesiredState;
use crate::kinds::command::DesiredCommand;
use crate::kinds::kind::Owned;
use crate::kinds::repository::DesiredRepository;
use crate::kinds::unit::{
    DesiredUnit, OPTIONS_DROPIN, Operation, Original, UnitChange, is_own_file,
};
use crate::model::{Action, Kind, Name, OnRemoval, Reason, ResourceId};
use crate::plan::validation::validation;
use crate::plan::{Change, Debt, Inventory, InventoryKind, Observed, Step};
use crate::sys::files::split;

/// The triggers that `steps` and the debts of earlier runs cause. A unit that `steps` start anyway is started afresh instead.
pub fn triggers(
    desired: &DesiredState,
    observed: &Observed,
    inventory: &Inventory,
    steps: &mut [Step],
) -> Vec<Step> {
    let mut changes = Changes::of(steps);
    let is_open = |debt: &&Debt| !is_void(debt, desired, observed, inventory);
    let owed = Owed(inventory.owed.iter().filter(is_open).collect());
    let mut triggers = refreshes(desired, &owed, &changes);
    triggers.extend(commands(desired, &owed, &mut changes));
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
    for unit in desired.units.iter().filter(|unit| !unit.report) {
        let (restarts, reloads) = Concerned::declared(unit).causes(&changes);
        let debts = owed.causes(&unit.id, Action::Run);
        let is_owed = !debts.is_empty();
        let because = [restarts, reloads, debts].concat();
        triggers.extend(validation(unit, because, is_owed, steps, desired));
    }
    for unit in declared.chain(undeclared.map(Concerned::undeclared)) {
        triggers.extend(restart(&unit, observed, &owed, &changes, steps));
    }
    triggers
}

/// The repositories of which changes make the lists old.
fn refreshes(desired: &DesiredState, owed: &Owed<'_>, changes: &Changes) -> Vec<Step> {
    let refresh = |repository: &DesiredRepository| {
        let id = &repository.id;
        let debts = owed.causes(id, Action::Run);
        let is_owed = !debts.is_empty();
        let because = [changes.among(std::slice::from_ref(id)), debts].concat();
        if because.is_empty() {
            return None;
        }
        let change = Change::Refresh(Box::new(repository.refresh()));
        // No command has a colon in its name.
        let key = id.to_string();
        let place = (InventoryKind::Command, key.as_str());
        Some(trigger(id, place, Action::Run, because, is_owed, change))
    };
    let repositories = desired.repositories.iter();
    repositories
        .filter(|repository| !repository.report)
        .filter_map(refresh)
        .collect()
}

/// The commands that changes make run. One that runs is a change itself, for the commands and units that name it.
fn commands(desired: &DesiredState, owed: &Owed<'_>, changes: &mut Changes) -> Vec<Step> {
    let mut triggers = Vec::new();
    let mut waiting: Vec<&DesiredCommand> = desired
        .commands
        .iter()
        .filter(|command| !command.report && !command.run_on.is_empty())
        .collect();
    loop {
        let mut triggered = Vec::new();
        waiting.retain(|command| {
            let mut because = changes.among(&command.run_on);
            let debts = owed.causes(&command.id, Action::Run);
            let is_owed = !debts.is_empty();
            because.extend(debts);
            if because.is_empty() {
                return true;
            }
            let change = Change::Command(Box::new(command.change()));
            let place = (InventoryKind::Command, command.name.as_str());
            triggered.push(trigger(
                &command.id,
                place,
                Action::Run,
                because,
                is_owed,
                change,
            ));
            false
        });
        if triggered.is_empty() {
            return triggers;
        }
        changes
            .resources
            .extend(triggered.iter().map(|step| step.id.clone()));
        triggers.extend(triggered);
    }
}

/// The restart or reload of one unit, where there is a cause.
///
/// A restart makes a reload needless; a unit that a step stops or masks needs neither. Implied restarts are try-restarts: one that is
/// not active is left alone, unless it failed when it was restarted, or a package of the same run may start it in between.
fn restart(
    unit: &Concerned<'_>,
    observed: &Observed,
    owed: &Owed<'_>,
    changes: &Changes,
    steps: &mut [Step],
) -> Option<Step> {
    let (mut restart_because, mut reload_because) = unit.causes(changes);
    let (restarts, reloads) = (
        owed.causes(unit.id, Action::Restart),
        owed.causes(unit.id, Action::Reload),
    );
    let is_owed = !restarts.is_empty() || !reloads.is_empty();
    restart_because.extend(restarts);
    reload_because.extend(reloads);
    let cannot_reload = matches!(
        observed.units.units.get(unit.name),
        Some(Ok(seen)) if seen.can_reload == Some(false)
    );
    let (action, because) = match (restart_because.is_empty(), reload_because.is_empty()) {
        (true, true) => return None,
        (true, false) if cannot_reload => (Action::Restart, reload_because),
        (true, false) => (Action::Reload, reload_because),
        (false, _) => (Action::Restart, [restart_because, reload_because].concat()),
    };
    let its_steps = || {
        steps
            .iter()
            .filter(|step| step.kind == InventoryKind::Unit && step.key == unit.name)
    };
    if its_steps().any(|step| matches!(step.action, Action::Stop | Action::Mask)) {
        return None;
    }
    let is_manual = unit.declared.is_some_and(|unit| unit.manual);
    let has_failed = has_failed(observed, unit.name) && is_owed && unit.is_wanted && !is_manual;
    if its_steps().any(|step| step.action == Action::Start) {
        start_afresh(steps, unit.name, &because);
        return None;
    }
    if !(is_up(observed, unit.name) || has_failed || changes.packages) {
        return None;
    }
    let operation = match action {
        // A try-restart would leave it as it is.
        _ if has_failed => Operation::Start,
        Action::Reload => Operation::Reload,
        _ => Operation::Restart,
    };
    let change = Change::Unit(Box::new(UnitChange::new(unit.name, operation)));
    let place = (InventoryKind::Unit, unit.name);
    let mut step = trigger(unit.id, place, action, because, is_owed, change);
    step.waits = action == Action::Restart && is_manual;
    Some(step)
}

fn trigger(
    id: &ResourceId,
    (kind, key): (InventoryKind, &str),
    action: Action,
    because: Vec<ResourceId>,
    is_owed: bool,
    change: Change,
) -> Step {
    Step {
        id: id.clone(),
        kind,
        key: key.into(),
        action,
        reason: Reason::Triggered,
        fields: Vec::new(),
        is_drift: false,
        removes: false,
        blockers: Vec::new(),
        because,
        is_owed,
        waits: false,
        original: String::new(),
        change,
    }
}

fn start_afresh(steps: &mut [Step], unit: &str, because: &[ResourceId]) {
    let starts = steps
        .iter_mut()
        .filter(|step| step.kind == InventoryKind::Unit && step.key == unit);
    for step in starts.filter(|step| step.action == Action::Start) {
        step.because = because.to_vec();
        step.change = Change::Unit(Box::new(UnitChange::new(unit, Operation::StartAfresh)));
    }
}

/// Debts of earlier runs that are still to be paid.
struct Owed<'a>(Vec<&'a Debt>);

impl Owed<'_> {
    /// Whose changes made `debtor` owe `action`; nothing where it does not.
    fn causes(&self, debtor: &ResourceId, action: Action) -> Vec<ResourceId> {
        self.0
            .iter()
            .filter(|debt| debt.debtor == *debtor && debt.action == action)
            .map(|debt| debt.because.clone())
            .collect()
    }
}

/// What the steps change, as far as units and commands care.
struct Changes {
    resources: BTreeSet<ResourceId>,
    paths: BTreeMap<Name, ResourceId>,
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

    /// Those of `ids` that are changed.
    fn among(&self, ids: &[ResourceId]) -> Vec<ResourceId> {
        ids.iter()
            .filter(|id| self.resources.contains(id))
            .cloned()
            .collect()
    }
}

/// A unit that changes may concern.
struct Concerned<'a> {
    name: &'a str,
    id: &'a ResourceId,
    declared: Option<&'a DesiredUnit>,
    /// Is it to run again where it failed at a restart of ours.
    is_wanted: bool,
}

impl<'a> Concerned<'a> {
    fn declared(unit: &'a DesiredUnit) -> Self {
        Concerned {
            name: &unit.name,
            id: &unit.id,
            declared: Some(unit),
            is_wanted: true,
        }
    }

    /// One that is still owned: what goes away with its declaration concerns it, too.
    fn undeclared(owned: &'a Owned<Original>) -> Self {
        Concerned {
            name: &owned.key,
            id: &owned.id,
            declared: None,
            is_wanted: comes_back(owned),
        }
    }

    /// Why it is to be restarted, and why reloaded.
    fn causes(&self, changes: &Changes) -> (Vec<ResourceId>, Vec<ResourceId>) {
        let owns = |path: &str| match self.declared {
            Some(unit) => unit.brings(path),
            None => is_own_file(self.name, path),
        };
        // A mount takes new options while it is in use, and nothing else.
        let is_reloaded =
            |path: &str| self.id.kind == Kind::Mount && split(path).1 == OPTIONS_DROPIN;
        let (options, own_files): (Vec<_>, Vec<_>) = changes
            .paths
            .iter()
            .filter(|(path, _)| owns(path))
            .partition(|(path, _)| is_reloaded(path));
        let own_files = own_files.into_iter().map(|(_, id)| id.clone());
        let options = options.into_iter().map(|(_, id)| id.clone());
        let restart_on = self
            .declared
            .map_or(Vec::new(), |unit| changes.among(&unit.restart_on));
        let reload_on = self
            .declared
            .map_or(Vec::new(), |unit| changes.among(&unit.reload_on));
        (
            own_files.chain(restart_on).collect(),
            options.chain(reload_on).collect(),
        )
    }
}

/// Debts that nobody can or need pay any more.
pub fn void_debts(
    desired: &DesiredState,
    observed: &Observed,
    inventory: &Inventory,
) -> Vec<(ResourceId, Action)> {
    let debts = inventory.owed.iter();
    debts
        .filter(|debt| is_void(debt, desired, observed, inventory))
        .map(|debt| (debt.debtor.clone(), debt.action))
        .collect()
}

/// Need `debt` not be paid: its debtor is no longer declared, was restarted by somebody since, or does not run and reads its files anew
/// when it starts.
fn is_void(
    debt: &Debt,
    desired: &DesiredState,
    observed: &Observed,
    inventory: &Inventory,
) -> bool {
    let name = debt.debtor.name.as_str();
    match (debt.debtor.kind, debt.action) {
        // Whatever asked for it: it concerns all units.
        (_, Action::DaemonReload) => false,
        // Whether it runs or not: it must not run with what nobody has judged.
        (Kind::Unit, Action::Run) => {
            let mut units = desired.units.iter();
            !units.any(|unit| unit.name == name && unit.validate.is_some())
        }
        (Kind::Unit, _) => {
            let is_declared = desired.units.iter().any(|unit| unit.name == name);
            let mut owned = inventory.units.iter();
            let is_wanted = is_declared || owned.any(|it| it.key == name && comes_back(it));
            let is_idle = observed.units.units.contains_key(name) && !is_up(observed, name);
            let started = observed.units.started.get(name);
            let is_paid_by_others = debt.caused.is_some_and(|caused| {
                is_up(observed, name) && started.is_some_and(|started| *started > caused)
            });
            !is_wanted || is_paid_by_others || (is_idle && !has_failed(observed, name))
        }
        (Kind::Mount, _) => !desired.units.iter().any(|unit| unit.id == debt.debtor),
        (Kind::Repository, _) => {
            let mut repositories = desired.repositories.iter();
            !repositories.any(|repository| repository.id == debt.debtor)
        }
        (Kind::Command, _) => {
            let mut commands = desired.commands.iter();
            !commands.any(|command| command.name == name && !command.run_on.is_empty())
        }
        _ => true,
    }
}

/// Ran it before limpet touched it: what a restart of ours broke is to run again when its declaration goes. Any other is not brought
/// to life for a debt, and its files may be gone in that very run.
fn comes_back(owned: &Owned<Original>) -> bool {
    owned.original.active && owned.on_removal == OnRemoval::Restore
}

fn is_up(observed: &Observed, unit: &str) -> bool {
    matches!(observed.units.units.get(unit), Some(Ok(seen)) if seen.is_up())
}

fn has_failed(observed: &Observed, unit: &str) -> bool {
    matches!(observed.units.units.get(unit), Some(Ok(seen)) if seen.active == "failed")
}
