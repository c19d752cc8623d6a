//! What has to be done so that units become as declared, and so that keys no longer declared are taken back.

use std::collections::BTreeMap;

use crate::kinds::kind::{Owned, PlannedChange, Step};
use crate::kinds::unit::mistake::{DeclaredKeys, find_contradiction, find_enablement_mistake};
use crate::kinds::unit::original::Setting;
use crate::kinds::unit::{
    DesiredUnit, Link, Observed, ObservedUnit, Operation, Original, UnitChange,
};
use crate::model::{Action, Class, Failure, OnRemoval, Reason, ResourceId};

type UnitStep = Step<Original, UnitChange>;

pub(super) fn plan(
    desired: &[DesiredUnit],
    observed: &Observed,
    owned: &[Owned<Original>],
) -> Vec<UnitStep> {
    let declared: BTreeMap<&str, &DesiredUnit> = desired
        .iter()
        .map(|unit| (unit.name.as_str(), unit))
        .collect();
    let owned_by_name: BTreeMap<&str, &Owned<Original>> = owned
        .iter()
        .map(|owned| (owned.key.as_str(), owned))
        .collect();
    let wanted = desired.iter().flat_map(|unit| {
        let before = owned_by_name.get(unit.name.as_str()).copied();
        plan_declared(unit, observed, before)
    });
    let taken_back = owned
        .iter()
        .filter(|owned| !declared.contains_key(owned.key.as_str()))
        .flat_map(|owned| plan_undeclared(owned, observed));
    wanted.chain(taken_back).collect()
}

/// The keys of a unit, declared or to be taken back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Keys<'a> {
    masked: Option<Setting>,
    enabled: Option<Setting>,
    running: Option<bool>,
    /// A link that is to be there.
    link: Option<&'a Link>,
}

fn plan_declared(
    desired: &DesiredUnit,
    observed: &Observed,
    owned: Option<&Owned<Original>>,
) -> Vec<UnitStep> {
    let unit = match observed.units.get(&desired.name) {
        Some(Ok(unit)) => unit,
        Some(Err(failure)) => return vec![Step::Blocked(failure.clone())],
        None => {
            let failure = Failure::new(Class::Bug, format!("{} was not looked at", desired.id));
            return vec![Step::Blocked(failure.about(desired.id.clone()))];
        }
    };
    if desired.optional && !unit.exists && desired.files.is_empty() {
        return Vec::new();
    }
    let declared = DeclaredKeys {
        masked: desired.masked,
        enabled: desired.enabled,
        running: desired.running,
    };
    // A mask of ours that goes in this run is in nobody's way.
    let unmasked = owned
        .and_then(|owned| keys_to_take_back(owned, Some(declared), observed.boot.as_deref()).masked)
        .filter(|masking| *masking == Setting::Off);
    let judged = DeclaredKeys {
        masked: declared.masked.or(unmasked.map(|_| false)),
        ..declared
    };
    if let Some(failure) = find_contradiction(&desired.id, &desired.name, judged, unit) {
        return vec![Step::Blocked(failure.about(desired.id.clone()))];
    }
    let keys = Keys {
        masked: declared.masked.map(Setting::declared),
        enabled: declared.enabled.map(Setting::declared),
        running: declared.running,
        link: None,
    };
    let mut steps = Vec::new();
    let mut push = |operation: Operation, reason, original: Original, link: Option<&Link>| {
        let planned = operation.planned(&desired.id, &desired.name, reason, original);
        steps.push(with_link(planned, link));
    };
    if unit.needs_daemon_reload {
        push(
            Operation::DaemonReload,
            Reason::Differs,
            Original::of(unit),
            None,
        );
    }
    let reason = if unit.exists {
        Reason::Differs
    } else {
        Reason::Missing
    };
    for operation in operations(keys, unit) {
        push(operation, reason, Original::of(unit), unit.link.as_ref());
    }
    if let Some(owned) = owned {
        let dropped = keys_to_take_back(owned, Some(declared), observed.boot.as_deref());
        let masking = keys.masked.unwrap_or(unit.masking());
        let dropped = only_possible(dropped, unit, masking);
        for operation in operations(dropped, unit) {
            let original = owned.original.clone();
            push(
                operation,
                Reason::Undeclared,
                original,
                dropped.link.or(unit.link.as_ref()),
            );
        }
    }
    steps.sort_by_key(|step| match step {
        Step::Change(planned) => Some(planned.change.operation),
        _ => None,
    });
    steps
}

fn plan_undeclared(owned: &Owned<Original>, observed: &Observed) -> Vec<UnitStep> {
    let release = Step::Release {
        id: owned.id.clone(),
        key: owned.key.clone(),
    };
    let unit = match observed.units.get(owned.key.as_str()) {
        Some(Ok(unit)) => unit,
        Some(Err(failure)) => return vec![Step::Blocked(failure.clone().about(owned.id.clone()))],
        None => return vec![release],
    };
    let keys = keys_to_take_back(owned, None, observed.boot.as_deref());
    if !unit.exists && !unit.is_up() && keys.link.is_none() {
        return vec![release];
    }
    let keys = only_possible(keys, unit, unit.masking());
    let operations = operations(keys, unit);
    if operations.is_empty() {
        return vec![release];
    }
    operations
        .into_iter()
        .map(|operation| {
            let original = owned.original.clone();
            let reason = Reason::Undeclared;
            let planned = operation.planned(&owned.id, &owned.key, reason, original);
            with_link(planned, keys.link.or(unit.link.as_ref()))
        })
        .collect()
}

/// The keys that were applied and are not `declared` any more, with what they were before.
fn keys_to_take_back<'a>(
    owned: &'a Owned<Original>,
    declared: Option<DeclaredKeys>,
    boot: Option<&str>,
) -> Keys<'a> {
    let nothing = Original::default();
    let original = match owned.on_removal {
        OnRemoval::Keep => return Keys::default(),
        OnRemoval::Restore => &owned.original,
        OnRemoval::Delete => &nothing,
    };
    let applied = |key: &str| owned.applied.get(key).and_then(|value| value.as_bool());
    // Only what we set: where we set what was there before, there is nothing to take back.
    let take_back = |key: &str, is_declared: bool, original: Setting| {
        let applied = Setting::declared(applied(key).filter(|_| !is_declared)?);
        (applied != original).then_some(original)
    };
    let is_declared = |key: fn(DeclaredKeys) -> Option<bool>| declared.and_then(key).is_some();
    let running = applied("running")
        .filter(|running| !is_declared(|keys| keys.running) && *running != original.active);
    let link = match owned.on_removal {
        OnRemoval::Restore => owned.original.link(boot),
        OnRemoval::Delete | OnRemoval::Keep => None,
    };
    Keys {
        masked: take_back(
            "masked",
            is_declared(|keys| keys.masked),
            original.masking(boot),
        ),
        enabled: take_back(
            "enabled",
            is_declared(|keys| keys.enabled),
            original.enablement(boot),
        ),
        running: running.map(|_| original.active),
        // Only disabling it takes its link.
        link: link.filter(|_| applied("enabled").is_some() && !is_declared(|keys| keys.enabled)),
    }
}

/// Without the keys that cannot be given back to the unit as it is now, because somebody masked it or it is over when it has run.
fn only_possible<'a>(mut keys: Keys<'a>, unit: &ObservedUnit, masking: Setting) -> Keys<'a> {
    if keys.masked.unwrap_or(masking) != Setting::Off {
        // Below a mask that is only put back now it can be enabled before.
        let is_open = unit.masking() == Setting::Off;
        keys.enabled = keys
            .enabled
            .filter(|enabled| is_open || *enabled == Setting::Off);
        keys.running = keys.running.filter(|running| !running);
    }
    // Whether it can be enabled again, is seen when its own files are back; what was never enabled need not be disabled.
    let cannot_be = |enabled: &Setting| {
        *enabled == Setting::Off && find_enablement_mistake(false, &unit.file_state).is_some()
    };
    keys.enabled = keys.enabled.filter(|enabled| !cannot_be(enabled));
    keys.running = keys
        .running
        .filter(|running| !(*running && unit.ends_by_itself));
    keys
}

/// What makes the unit as the keys say, in the order it is done.
fn operations(keys: Keys<'_>, unit: &ObservedUnit) -> Vec<Operation> {
    use Setting::{Off, On, UntilBoot};
    let mut operations = Vec::new();
    let masking = unit.masking();
    // A mask for good hides one until the next boot.
    let unmasks = matches!(
        (keys.masked, masking),
        (Some(Off), On | UntilBoot) | (Some(UntilBoot), On)
    );
    if unmasks {
        operations.push(Operation::Unmask);
    }
    let enablement = unit.enablement();
    match keys.enabled {
        // Below a mask nobody sees whether it is enabled; enabling it again does no harm.
        Some(On) if enablement != On => operations.push(Operation::Enable),
        Some(Off) if enablement != Off || unmasks => operations.push(Operation::Disable),
        Some(UntilBoot) if enablement != UntilBoot => {
            if enablement == On || unmasks {
                operations.push(Operation::Disable);
            }
            operations.push(Operation::EnableUntilBoot);
        }
        _ => {}
    }
    if keys.link.is_some() && unit.link.is_none() {
        operations.push(Operation::Link);
    }
    // Last of these: below a mask no link can be changed.
    match keys.masked {
        Some(On) if masking != On => operations.push(Operation::Mask),
        Some(UntilBoot) if masking != UntilBoot => operations.push(Operation::MaskUntilBoot),
        _ => {}
    }
    match keys.running {
        Some(true) if !matches!(unit.active.as_str(), "active" | "reloading" | "refreshing") => {
            operations.push(Operation::Start);
        }
        Some(false) if unit.is_up() => operations.push(Operation::Stop),
        _ => {}
    }
    operations.sort();
    operations
}

fn with_link(mut planned: PlannedChange<Original, UnitChange>, link: Option<&Link>) -> UnitStep {
    if matches!(
        planned.change.operation,
        Operation::Disable | Operation::Link
    ) {
        planned.change.link = link.cloned();
    }
    Step::Change(Box::new(planned))
}

impl Operation {
    /// The word for it.
    pub fn action(self) -> Action {
        match self {
            Operation::DaemonReload => Action::DaemonReload,
            Operation::Mask | Operation::MaskUntilBoot => Action::Mask,
            Operation::Unmask => Action::Unmask,
            Operation::Enable | Operation::EnableUntilBoot => Action::Enable,
            Operation::Link => Action::Restore,
            Operation::Disable => Action::Disable,
            Operation::Start | Operation::StartAfresh => Action::Start,
            Operation::Stop => Action::Stop,
            Operation::Restart => Action::Restart,
            Operation::Reload => Action::Reload,
        }
    }

    /// The managed key that it changes, if it is one.
    fn field(self) -> Option<&'static str> {
        match self {
            Operation::Mask | Operation::MaskUntilBoot | Operation::Unmask => Some("masked"),
            Operation::Enable | Operation::EnableUntilBoot | Operation::Disable => Some("enabled"),
            Operation::Link => Some("link"),
            Operation::Start | Operation::StartAfresh | Operation::Stop => Some("running"),
            Operation::DaemonReload | Operation::Restart | Operation::Reload => None,
        }
    }

    /// This operation on a unit as a planned change. The plan across kinds makes its restarts, reloads and daemon-reloads with it.
    pub fn planned(
        self,
        id: &ResourceId,
        name: &str,
        reason: Reason,
        original: Original,
    ) -> PlannedChange<Original, UnitChange> {
        PlannedChange {
            id: id.clone(),
            key: name.into(),
            action: self.action(),
            reason,
            fields: self.field().into_iter().map(str::to_owned).collect(),
            original,
            removes: false,
            change: UnitChange {
                takes_back: reason == Reason::Undeclared,
                ..UnitChange::new(name, self)
            },
        }
    }
}

#[cfg(test)]
mod tests;
