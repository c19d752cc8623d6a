//! What has to be done so that units become as declared, and so that keys no longer declared are taken back.

use std::collections::BTreeMap;

use crate::kinds::kind::{Owned, PlannedChange, Step};
use crate::kinds::unit::name::is_template;
use crate::kinds::unit::{DesiredUnit, Observed, ObservedUnit, Operation, Original, UnitChange};
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
struct Keys {
    masked: Option<bool>,
    enabled: Option<bool>,
    running: Option<bool>,
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
    let keys = Keys {
        masked: desired.masked,
        enabled: desired.enabled,
        running: desired.running,
    };
    if let Some(failure) = find_contradiction(&desired.id, &desired.name, keys, unit) {
        return vec![Step::Blocked(failure.about(desired.id.clone()))];
    }
    let mut steps = Vec::new();
    let mut push = |operation, reason, original: Original| {
        steps.push(change(
            &desired.id,
            &desired.name,
            operation,
            reason,
            original,
        ));
    };
    if unit.needs_daemon_reload {
        push(Operation::DaemonReload, Reason::Differs, unit.original());
    }
    let reason = if unit.exists {
        Reason::Differs
    } else {
        Reason::Missing
    };
    for operation in operations(keys, unit) {
        push(operation, reason, unit.original());
    }
    if let Some(owned) = owned {
        let dropped = keys_to_take_back(owned, keys);
        for operation in operations(dropped, unit) {
            push(operation, Reason::Undeclared, owned.original.clone());
        }
    }
    steps
}

fn plan_undeclared(owned: &Owned<Original>, observed: &Observed) -> Vec<UnitStep> {
    let unit = match observed.units.get(&owned.key) {
        Some(Ok(unit)) => unit,
        Some(Err(failure)) => return vec![Step::Blocked(failure.clone().about(owned.id.clone()))],
        None => return Vec::new(),
    };
    if !unit.exists && !unit.is_up() {
        return Vec::new();
    }
    let keys = keys_to_take_back(owned, Keys::default());
    operations(keys, unit)
        .into_iter()
        .map(|operation| {
            change(
                &owned.id,
                &owned.key,
                operation,
                Reason::Undeclared,
                owned.original.clone(),
            )
        })
        .collect()
}

/// The keys that were applied and are no longer declared, with what they were before.
fn keys_to_take_back(owned: &Owned<Original>, declared: Keys) -> Keys {
    let original = match owned.on_removal {
        OnRemoval::Keep => return Keys::default(),
        OnRemoval::Restore => owned.original.clone(),
        OnRemoval::Delete => Original::default(),
    };
    let was_applied = |key: &str| owned.applied.get(key).and_then(|value| value.as_bool());
    // Only what we set: where we set what was there before, there is nothing to take back.
    let take_back = |key: &str, declared: Option<bool>, original: bool| {
        (declared.is_none() && was_applied(key).is_some_and(|applied| applied != original))
            .then_some(original)
    };
    Keys {
        masked: take_back("masked", declared.masked, original.masked),
        enabled: take_back("enabled", declared.enabled, original.enabled),
        running: take_back("running", declared.running, original.active),
    }
}

/// What makes the unit as the keys say, in the order it is done.
fn operations(keys: Keys, unit: &ObservedUnit) -> Vec<Operation> {
    let mut operations = Vec::new();
    let unmasks = keys.masked == Some(false) && unit.is_masked();
    match keys.masked {
        Some(true) if unit.file_state != "masked" => operations.push(Operation::Mask),
        _ if unmasks => operations.push(Operation::Unmask),
        _ => {}
    }
    match keys.enabled {
        // Below a mask nobody sees whether it is enabled; enabling it again does no harm.
        Some(true) if unit.file_state != "enabled" => operations.push(Operation::Enable),
        Some(false) if unit.is_enabled() || unmasks => operations.push(Operation::Disable),
        _ => {}
    }
    match keys.running {
        Some(true) if !matches!(unit.active.as_str(), "active" | "reloading" | "refreshing") => {
            operations.push(Operation::Start);
        }
        Some(false) if unit.is_up() => operations.push(Operation::Stop),
        _ => {}
    }
    operations
}

/// Why the keys cannot come true for this unit, whatever we do.
fn find_contradiction(
    id: &ResourceId,
    name: &str,
    keys: Keys,
    unit: &ObservedUnit,
) -> Option<Failure> {
    let refuse = |cause: &str, hint: &str| {
        Some(Failure::new(Class::Author, format!("refused {id}: {cause}")).with_hint(hint))
    };
    if keys.masked == Some(true) && keys.running == Some(true) {
        return refuse(
            "masked = true and running = true contradict each other",
            "a masked unit cannot be started: leave one of them out",
        );
    }
    if keys.masked == Some(true) && keys.enabled == Some(true) {
        return refuse(
            "masked = true and enabled = true contradict each other",
            "a masked unit is not started at boot: leave one of them out",
        );
    }
    if is_template(name) && keys.running.is_some() {
        return refuse(
            "running is declared for a template",
            "only instances run: declare one, such as 'name@instance.service'",
        );
    }
    if unit.is_masked() && keys.masked.is_none() {
        let wanted = if keys.running == Some(true) {
            Some("running")
        } else {
            (keys.enabled == Some(true)).then_some("enabled")
        };
        if let Some(wanted) = wanted {
            return refuse(
                &format!("{wanted} = true, but the unit is masked"),
                "declare masked = false to take the mask away",
            );
        }
    }
    if let Some(enabled) = keys.enabled
        && let Some((cause, hint)) = find_enablement_mistake(enabled, &unit.file_state)
    {
        return refuse(cause, hint);
    }
    if keys.running == Some(true) && unit.ends_by_itself {
        return refuse(
            "running = true, but it is a oneshot service without RemainAfterExit, which is over when it has done its work",
            "start it by a timer, enable it, or set RemainAfterExit=yes in its [Service] section",
        );
    }
    None
}

/// Why a unit whose file is in this state cannot be enabled or disabled, with a hint.
pub(super) fn find_enablement_mistake(
    enabled: bool,
    file_state: &str,
) -> Option<(&'static str, &'static str)> {
    match (file_state, enabled) {
        ("generated", _) => Some((
            "enabled is declared, but the unit is generated at boot",
            "change what it is generated from (such as /etc/fstab), or declare masked = true against it",
        )),
        ("transient", true) => Some((
            "enabled = true, but the unit is transient and has no file",
            "declare a unit with a file of its own",
        )),
        ("static", true) => Some((
            "enabled = true, but its file has no [Install] section",
            "something else starts it: leave enabled out, or add a drop-in with an [Install] section",
        )),
        ("indirect", true) => Some((
            "enabled = true, but its [Install] section only names other units",
            "enable the units that its Also= names, or an instance of it",
        )),
        ("alias", _) => Some((
            "enabled is declared, but the name is an alias of another unit",
            "declare the unit by its own name ('systemctl show -p Id NAME')",
        )),
        ("bad", _) | ("invalid", _) => Some((
            "its file cannot be read by systemd",
            "'systemd-analyze verify NAME' says what is wrong",
        )),
        _ => None,
    }
}

fn change(
    id: &ResourceId,
    name: &str,
    operation: Operation,
    reason: Reason,
    original: Original,
) -> UnitStep {
    Step::Change(operation.planned(id, name, reason, original))
}

impl Operation {
    /// The word for it.
    pub fn action(self) -> Action {
        match self {
            Operation::DaemonReload => Action::DaemonReload,
            Operation::Mask => Action::Mask,
            Operation::Unmask => Action::Unmask,
            Operation::Enable => Action::Enable,
            Operation::Disable => Action::Disable,
            Operation::Start => Action::Start,
            Operation::Stop => Action::Stop,
            Operation::Restart => Action::Restart,
            Operation::Reload => Action::Reload,
        }
    }

    /// The managed key that it changes, if it is one.
    fn field(self) -> Option<&'static str> {
        match self {
            Operation::Mask | Operation::Unmask => Some("masked"),
            Operation::Enable | Operation::Disable => Some("enabled"),
            Operation::Start | Operation::Stop => Some("running"),
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
            key: name.to_owned(),
            action: self.action(),
            reason,
            fields: self.field().into_iter().map(str::to_owned).collect(),
            original,
            removes: false,
            change: UnitChange {
                name: name.to_owned(),
                operation: self,
            },
        }
    }
}
