//! Arranging the steps of a plan: what must come before what, and what a failure takes with it.

use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::DesiredState;
use crate::kinds::account::DesiredAccount;
use crate::kinds::file::{DesiredPath, PathSpec};
use crate::kinds::unit::{Operation, UnitChange, is_read_by_systemd};
use crate::model::{Action, Class, Failure, Kind, Reason, ResourceId};
use crate::plan::{Change, Inventory, InventoryKind, Rules, Step, order};

/// Failure spreads along these edges: what is needed, the parent directory, and a unit's own files.
pub(super) fn add_blockers(desired: &DesiredState, rules: &Rules, steps: &mut [Step]) {
    let declared: BTreeMap<&str, &ResourceId> = desired
        .paths
        .iter()
        .map(|path| (path.path.as_str(), &path.id))
        .collect();
    let mounted: BTreeMap<&str, &ResourceId> = desired
        .units
        .iter()
        .filter(|unit| unit.id.kind == Kind::Mount)
        .map(|unit| (unit.id.name.as_str(), &unit.id))
        .collect();
    let owners = if desired.accounts.is_empty() {
        BTreeMap::new()
    } else {
        owners(desired)
    };
    for step in steps {
        step.blockers = desired.needs.get(&step.id).cloned().unwrap_or_default();
        if step.kind == InventoryKind::Account {
            let account = desired
                .accounts
                .iter()
                .find(|account| account.id == step.id);
            let groups = account.into_iter().flat_map(DesiredAccount::groups);
            let is_declared = |id: &ResourceId| desired.accounts.iter().any(|it| it.id == *id);
            step.blockers.extend(groups.filter(is_declared));
        }
        if step.kind == InventoryKind::Path {
            let owners = owners.get(step.key.as_str()).into_iter().flatten();
            step.blockers.extend(owners.cloned());
            let mut path = step.key.as_str();
            while let Some((parent, _)) = path.rsplit_once('/') {
                if let Some(id) = declared.get(parent) {
                    step.blockers.push((*id).clone());
                }
                if let Some(id) = mounted.get(parent) {
                    step.blockers.push((*id).clone());
                }
                path = parent;
            }
        }
        // A unit that did not accept what is declared goes on with what was there before.
        let is_rejected = rules.rejected.contains_key(&step.id);
        if step.kind == InventoryKind::Sysctl {
            // So does its file.
            step.blockers.push(step.id.clone());
        }
        if step.kind == InventoryKind::Unit && step.reason != Reason::Undeclared && !is_rejected {
            // Its files are declared by the unit itself, so they carry its id.
            step.blockers.push(step.id.clone());
        }
    }
}

/// The declared users and groups that declared paths are to belong to, by path.
fn owners(desired: &DesiredState) -> BTreeMap<&str, Vec<ResourceId>> {
    let is_declared = |id: &ResourceId| desired.accounts.iter().any(|account| account.id == *id);
    let of_path = |path: &DesiredPath| -> Vec<ResourceId> {
        let (PathSpec::File { owner, group, .. } | PathSpec::Directory { owner, group, .. }) =
            &path.spec
        else {
            return Vec::new();
        };
        let owner = owner.as_deref().or(path.as_user.as_deref());
        let user = owner.map(|name| ResourceId::new(Kind::User, name));
        let group = group
            .as_deref()
            .map(|name| ResourceId::new(Kind::Group, name));
        let named = user.into_iter().chain(group);
        named.filter(is_declared).collect()
    };
    desired
        .paths
        .iter()
        .map(|path| (path.path.as_str(), of_path(path)))
        .filter(|(_, owners)| !owners.is_empty())
        .collect()
}

/// Moves the steps that depend on what is blocked to the blocked ones: trying them would end the same way in every cycle. What is
/// triggered stays owed.
pub(super) fn set_aside_what_is_blocked(steps: &mut Vec<Step>, blocked: &mut Vec<Failure>) {
    let mut ids: BTreeSet<ResourceId> = blocked
        .iter()
        .filter_map(|failure| failure.resource.clone())
        .collect();
    loop {
        let mut found = Vec::new();
        steps.retain_mut(|step| {
            let blocker = step.blockers.iter().find(|id| ids.contains(*id));
            let Some(blocker) = blocker.filter(|_| !step.waits) else {
                return true;
            };
            found.push((step.id.clone(), skipped(step.action, &step.id, blocker)));
            step.waits = step.reason == Reason::Triggered;
            step.waits
        });
        if found.is_empty() {
            return;
        }
        for (id, failure) in found {
            if ids.insert(id) {
                blocked.push(failure);
            }
        }
    }
}

/// What people are told of a step that is not made because `blocker` failed.
pub fn skipped(action: Action, id: &ResourceId, blocker: &ResourceId) -> Failure {
    Failure::new(
        Class::Host,
        format!("skipped {action} {id}, because {blocker} failed"),
    )
    .about(id.clone())
}

/// The package whose scripts restart us, and its rank: the last.
const OWN_PACKAGE: &str = "limpet";
const OWN_RANK: u8 = 18;

/// The preference of kinds where nothing else orders two steps, with removals in reverse.
fn rank(step: &Step) -> u8 {
    match (step.kind, step.reason) {
        // What lies on a file system goes before it does.
        (InventoryKind::Unit, Reason::Undeclared)
            if step.id.kind == Kind::Mount && step.action == Action::Stop =>
        {
            14
        }
        // A unit that goes back to running, or to being enabled, needs its own files back first; below a mask nothing is enabled.
        (InventoryKind::Unit, Reason::Undeclared)
            if !matches!(step.action, Action::Start | Action::Enable | Action::Mask) =>
        {
            0
        }
        (InventoryKind::Path, _) if configures_packages(&step.key) => 1,
        // What is in a repository is known before packages are asked for.
        (InventoryKind::Command, _) if step.id.kind == Kind::Repository => 2,
        // Our own package restarts us: whatever else is to be done is done before.
        (InventoryKind::Package, _) if step.key == OWN_PACKAGE => OWN_RANK,
        (InventoryKind::Package, Reason::Undeclared) => 17,
        (InventoryKind::Package, _) => 3,
        // Who is gone is gone from whatever belonged to it: after everything else, and groups after their members.
        (InventoryKind::Account, Reason::Undeclared) if step.id.kind == Kind::User => 15,
        (InventoryKind::Account, Reason::Undeclared) => 16,
        (InventoryKind::Account, _) if step.id.kind == Kind::Group => 4,
        (InventoryKind::Account, _) => 5,
        // A file system is there before what lies on it.
        (InventoryKind::Path, reason) if mounts(step) && reason != Reason::Undeclared => 6,
        (InventoryKind::Unit, _) if mounts(step) => 7,
        (InventoryKind::Path, _) => 8,
        (InventoryKind::Sysctl, _) => 9,
        (InventoryKind::Command, _) => 10,
        (InventoryKind::Unit, Reason::Triggered) if step.is_validation() => 11,
        (InventoryKind::Unit, Reason::Triggered) => 13,
        (InventoryKind::Unit, _) => 12,
    }
}

fn mounts(step: &Step) -> bool {
    step.id.kind == Kind::Mount
}

fn configures_packages(path: &str) -> bool {
    let places = [
        "/etc/apt/",
        "/etc/dnf/",
        "/etc/yum.repos.d/",
        "/etc/pki/rpm-gpg/",
    ];
    places.iter().any(|directory| path.starts_with(directory))
}

/// Orders the steps, and puts one daemon-reload between changed unit files and the units; `owed` are those whose files were changed in
/// an earlier run, of which systemd was not told.
pub(super) fn into_batches(
    desired: &DesiredState,
    inventory: &Inventory,
    steps: Vec<Step>,
    owed: Vec<ResourceId>,
) -> Vec<Vec<Step>> {
    let mut by_id: BTreeMap<&ResourceId, Vec<usize>> = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        by_id.entry(&step.id).or_default().push(index);
    }
    let mut places: Vec<order::Place> = steps
        .iter()
        .map(|step| {
            let needs = desired.needs.get(&step.id).into_iter().flatten();
            // A trigger waits for what caused it, but nobody waits for a restart: what needs the unit needs it running.
            let because = match step.reason {
                Reason::Triggered => step.because.as_slice(),
                _ => &[],
            };
            let before = needs.chain(because);
            let mut after: Vec<usize> = before
                .flat_map(|id| by_id.get(id).into_iter().flatten())
                .copied()
                .filter(|&index| !is_restart(&steps[index]) && !reads_after(&steps[index], step))
                .collect();
            let its_own = by_id.get(&step.id).into_iter().flatten().copied();
            after.extend(its_own.filter(|&index| reads_after(step, &steps[index])));
            order::Place {
                rank: rank(step),
                after,
            }
        })
        .collect();
    add_removal_order(inventory, &steps, &by_id, &mut places);
    let batches = order::batches(&places);
    drop(by_id);

    let mut planned = Vec::new();
    let mut is_owed = !owed.is_empty();
    let mut unloaded = owed;
    for batch in divide(steps, &batches) {
        // A command may ask systemd for something, too.
        let asks_systemd = |step: &Step| match step.kind {
            InventoryKind::Unit => rank(step) > 0,
            InventoryKind::Command => step.id.kind != Kind::Repository,
            // Our own package restarts us: nothing is to be left for after it.
            InventoryKind::Package => rank(step) == OWN_RANK,
            InventoryKind::Path | InventoryKind::Account | InventoryKind::Sysctl => false,
        };
        if batch.iter().any(asks_systemd) && !unloaded.is_empty() {
            planned.push(vec![daemon_reload(std::mem::take(&mut unloaded), is_owed)]);
            is_owed = false;
        }
        let unit_files = batch
            .iter()
            .filter(|step| step.kind == InventoryKind::Path && is_read_by_systemd(&step.key));
        unloaded.extend(unit_files.map(|step| step.id.clone()));
        planned.push(batch);
    }
    if !unloaded.is_empty() {
        planned.push(vec![daemon_reload(unloaded, is_owed)]);
    }
    planned
}

/// Divides the steps into the batches of which these are their indices. There may be tens of thousands of them in one batch, so that they
/// are moved to their places instead of copied.
fn divide(mut steps: Vec<Step>, batches: &[Vec<usize>]) -> Vec<Vec<Step>> {
    let mut places = vec![0; steps.len()];
    for (place, index) in batches.iter().flatten().enumerate() {
        places[*index] = place;
    }
    for index in 0..steps.len() {
        while places[index] != index {
            let place = places[index];
            steps.swap(index, place);
            places.swap(index, place);
        }
    }
    let mut divided: Vec<Vec<Step>> = Vec::new();
    for batch in batches.iter().skip(1).rev() {
        divided.push(steps.split_off(steps.len() - batch.len()));
    }
    steps.shrink_to_fit();
    divided.extend((!steps.is_empty()).then_some(steps));
    divided.reverse();
    divided
}

/// Removals go the other way round: what needed something goes before it.
fn add_removal_order(
    inventory: &Inventory,
    steps: &[Step],
    by_id: &BTreeMap<&ResourceId, Vec<usize>>,
    places: &mut [order::Place],
) {
    if inventory.needs.is_empty() {
        return;
    }
    let is_removal = |step: &Step| step.reason == Reason::Undeclared;
    for (index, step) in steps
        .iter()
        .enumerate()
        .filter(|(_, step)| is_removal(step))
    {
        let needs = inventory.needs.get(&(step.kind, step.key.to_string()));
        let needed = needs
            .into_iter()
            .flatten()
            .flat_map(|id| by_id.get(id).into_iter().flatten());
        for &needed in needed.filter(|&&needed| is_removal(&steps[needed])) {
            places[needed].after.push(index);
        }
    }
}

/// Is it a restart or reload that something else makes necessary.
fn is_restart(step: &Step) -> bool {
    step.kind == InventoryKind::Unit && step.reason == Reason::Triggered && !step.is_validation()
}

/// Is `step` about the unit that `validation` validates: what it does to the unit comes after.
fn reads_after(step: &Step, validation: &Step) -> bool {
    let is_about_unit = step.kind == InventoryKind::Unit && step.reason != Reason::Undeclared;
    validation.is_validation()
        && is_about_unit
        && step.key == validation.key
        && !step.is_validation()
}

fn daemon_reload(because: Vec<ResourceId>, is_owed: bool) -> Step {
    Step {
        id: because.first().cloned().expect("a reload has a cause"),
        kind: InventoryKind::Unit,
        key: "".into(),
        action: Action::DaemonReload,
        reason: Reason::Triggered,
        fields: Vec::new(),
        is_drift: false,
        removes: false,
        blockers: Vec::new(),
        because,
        is_owed,
        waits: false,
        original: String::new(),
        change: Change::Unit(Box::new(UnitChange::new("", Operation::DaemonReload))),
    }
}
