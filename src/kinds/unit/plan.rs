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
        let will_be_masked = keys.masked.unwrap_or(unit.is_masked());
        for operation in operations(only_possible(dropped, unit, will_be_masked), unit) {
            push(operation, Reason::Undeclared, owned.original.clone());
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
    if !unit.exists && !unit.is_up() {
        return vec![release];
    }
    let keys = keys_to_take_back(owned, Keys::default());
    let operations = operations(only_possible(keys, unit, unit.is_masked()), unit);
    if operations.is_empty() {
        return vec![release];
    }
    operations
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

/// Without the keys that cannot be given back to the unit as it is now: what was enabled may have lost its `[Install]` section.
fn only_possible(mut keys: Keys, unit: &ObservedUnit, is_masked: bool) -> Keys {
    let is_masked = keys.masked.unwrap_or(is_masked);
    if is_masked {
        keys.enabled = keys.enabled.filter(|enabled| !enabled);
        keys.running = keys.running.filter(|running| !running);
    }
    keys.enabled = keys
        .enabled
        .filter(|enabled| find_enablement_mistake(*enabled, &unit.file_state).is_none());
    keys
}

/// What makes the unit as the keys say, in the order it is done.
fn operations(keys: Keys, unit: &ObservedUnit) -> Vec<Operation> {
    let mut operations = Vec::new();
    let unmasks = keys.masked == Some(false) && unit.is_masked();
    if unmasks {
        operations.push(Operation::Unmask);
    }
    match keys.enabled {
        // Below a mask nobody sees whether it is enabled; enabling it again does no harm.
        Some(true) if unit.file_state != "enabled" => operations.push(Operation::Enable),
        Some(false) if unit.is_enabled() || unmasks => operations.push(Operation::Disable),
        _ => {}
    }
    // Last of the three: below a mask no link can be changed.
    if keys.masked == Some(true) && unit.file_state != "masked" {
        operations.push(Operation::Mask);
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
    Step::Change(Box::new(operation.planned(id, name, reason, original)))
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
            Operation::Start | Operation::StartAfresh => Action::Start,
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
                name: name.to_owned(),
                operation: self,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::unit::applied;
    use crate::model::Kind;
    use proptest::prelude::*;

    const NAME: &str = "app.service";

    fn declare(masked: Option<bool>, enabled: Option<bool>, running: Option<bool>) -> DesiredUnit {
        DesiredUnit {
            name: NAME.to_owned(),
            id: ResourceId::new(Kind::Unit, NAME),
            enabled,
            running,
            masked,
            optional: false,
            restart_on: Vec::new(),
            reload_on: Vec::new(),
            validate: None,
            manual: false,
            files: Vec::new(),
            report: false,
            on_removal: OnRemoval::Restore,
        }
    }

    fn seen(active: &str, file_state: &str) -> ObservedUnit {
        ObservedUnit {
            exists: !file_state.is_empty(),
            active: active.to_owned(),
            file_state: file_state.to_owned(),
            needs_daemon_reload: false,
            ends_by_itself: false,
            can_reload: None,
        }
    }

    fn observed(unit: &ObservedUnit) -> Observed {
        Observed {
            units: [(NAME.to_owned(), Ok(unit.clone()))].into(),
            started: BTreeMap::new(),
        }
    }

    fn own(desired: &DesiredUnit, original: Original, on_removal: OnRemoval) -> Owned<Original> {
        Owned {
            id: desired.id.clone(),
            key: desired.name.as_str().into(),
            original,
            on_removal,
            applied: applied(desired),
        }
    }

    /// The plan in words: actions, or why not.
    fn words(steps: &[UnitStep]) -> String {
        let word = |step: &UnitStep| match step {
            Step::Change(planned) => format!("{} ({})", planned.action, planned.reason),
            Step::Release { .. } => "release".to_owned(),
            Step::Blocked(failure) => failure.to_string(),
        };
        steps.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn only_declared_keys_that_differ_are_changed() {
        let check = |desired: DesiredUnit, unit: ObservedUnit, expected: &str| {
            let steps = plan(std::slice::from_ref(&desired), &observed(&unit), &[]);
            assert_eq!(words(&steps), expected, "{desired:?} {unit:?}");
        };
        let (yes, no) = (Some(true), Some(false));
        let nothing = declare(None, None, None);
        check(nothing, seen("failed", "disabled"), "");
        let up = || declare(None, yes, yes);
        check(up(), seen("active", "enabled"), "");
        check(up(), seen("reloading", "enabled"), "");
        check(
            up(),
            seen("inactive", "disabled"),
            "enable (differs), start (differs)",
        );
        check(
            up(),
            seen("failed", "enabled-runtime"),
            "enable (differs), start (differs)",
        );
        check(
            up(),
            seen("activating", "linked"),
            "enable (differs), start (differs)",
        );
        check(
            up(),
            seen("inactive", ""),
            "enable (missing), start (missing)",
        );
        let down = || declare(None, no, no);
        check(
            down(),
            seen("active", "enabled"),
            "disable (differs), stop (differs)",
        );
        check(down(), seen("failed", "static"), "");
        check(down(), seen("inactive", "masked"), "");
        check(down(), seen("inactive", ""), "");
        check(
            declare(yes, None, no),
            seen("active", "enabled"),
            "mask (differs), stop (differs)",
        );
        check(declare(yes, None, None), seen("active", "masked"), "");
        check(
            declare(yes, None, None),
            seen("inactive", "masked-runtime"),
            "mask (differs)",
        );
        check(
            declare(no, yes, yes),
            seen("inactive", "masked"),
            "unmask (differs), enable (differs), start (differs)",
        );
    }

    #[test]
    fn what_cannot_come_true_is_refused_with_a_hint() {
        let check = |desired: DesiredUnit, unit: ObservedUnit, expected: &str| {
            let steps = plan(std::slice::from_ref(&desired), &observed(&unit), &[]);
            let [Step::Blocked(failure)] = steps.as_slice() else {
                panic!("not refused: {}", words(&steps));
            };
            assert_eq!(
                failure.to_string(),
                format!("refused unit:app.service: {expected}")
            );
            assert!(failure.hint.is_some() && failure.resource.is_some());
        };
        let (yes, no) = (Some(true), Some(false));
        check(
            declare(yes, None, yes),
            seen("active", "enabled"),
            "masked = true and running = true contradict each other",
        );
        check(
            declare(None, None, yes),
            seen("inactive", "masked"),
            "running = true, but the unit is masked",
        );
        check(
            declare(None, yes, None),
            seen("inactive", "static"),
            "enabled = true, but its file has no [Install] section",
        );
        check(
            declare(None, no, None),
            seen("active", "generated"),
            "enabled is declared, but the unit is generated at boot",
        );
        let oneshot = ObservedUnit {
            ends_by_itself: true,
            ..seen("inactive", "static")
        };
        check(
            declare(None, None, yes),
            oneshot,
            "running = true, but it is a oneshot service without RemainAfterExit, which is over when it has done its work",
        );
    }

    #[test]
    fn an_optional_unit_may_be_missing() {
        let mut desired = declare(None, Some(true), Some(true));
        desired.optional = true;
        let steps = plan(&[desired], &observed(&seen("inactive", "")), &[]);
        assert_eq!(words(&steps), "");
    }

    #[test]
    fn a_unit_that_changed_on_disk_is_read_again() {
        let unit = ObservedUnit {
            needs_daemon_reload: true,
            ..seen("active", "enabled")
        };
        let steps = plan(&[declare(None, None, Some(true))], &observed(&unit), &[]);
        assert_eq!(words(&steps), "daemon-reload (differs)");
    }

    #[test]
    fn what_was_set_and_is_no_longer_declared_is_taken_back() {
        let was_down = Original::default();
        let was_up = Original {
            enabled: true,
            masked: false,
            active: true,
        };
        let up = declare(None, Some(true), Some(true));
        let down = declare(None, Some(false), Some(false));
        let check = |applied: &DesiredUnit, original: &Original, removal, unit, expected: &str| {
            let owned = own(applied, original.clone(), removal);
            let steps = plan(&[], &observed(&unit), &[owned]);
            assert_eq!(words(&steps), expected);
        };
        use OnRemoval::{Delete, Keep, Restore};
        check(
            &up,
            &was_down,
            Restore,
            seen("active", "enabled"),
            "disable (undeclared), stop (undeclared)",
        );
        check(&up, &was_up, Restore, seen("active", "enabled"), "release");
        check(
            &down,
            &was_up,
            Restore,
            seen("inactive", "disabled"),
            "enable (undeclared), start (undeclared)",
        );
        check(&up, &was_down, Keep, seen("active", "enabled"), "release");
        check(
            &up,
            &was_up,
            Delete,
            seen("active", "enabled"),
            "disable (undeclared), stop (undeclared)",
        );
        check(&up, &was_down, Restore, seen("inactive", ""), "release");
        // One key of two, while the unit stays declared.
        let owned = own(&up, was_down, Restore);
        let still = declare(None, None, Some(true));
        let steps = plan(&[still], &observed(&seen("active", "enabled")), &[owned]);
        assert_eq!(words(&steps), "disable (undeclared)");
    }

    /// What systemd makes of the changes.
    fn carry_out(mut unit: ObservedUnit, steps: &[UnitStep]) -> ObservedUnit {
        for step in steps {
            let Step::Change(planned) = step else {
                continue;
            };
            match planned.change.operation {
                Operation::DaemonReload => unit.needs_daemon_reload = false,
                Operation::Mask => unit.file_state = "masked".to_owned(),
                Operation::Unmask | Operation::Disable => unit.file_state = "disabled".to_owned(),
                Operation::Enable => unit.file_state = "enabled".to_owned(),
                Operation::Start | Operation::StartAfresh => unit.active = "active".to_owned(),
                Operation::Stop => unit.active = "inactive".to_owned(),
                Operation::Restart | Operation::Reload => {}
            }
        }
        unit.exists |= steps.iter().any(|step| matches!(step, Step::Change(_)));
        unit
    }

    proptest! {
        #[test]
        fn planning_after_apply_is_empty(
            desired in (any::<Option<bool>>(), any::<Option<bool>>(), any::<Option<bool>>(), any::<bool>()),
            before in (any::<Option<bool>>(), any::<Option<bool>>(), any::<Option<bool>>()),
            original in (any::<bool>(), any::<bool>(), any::<bool>()),
            active in prop::sample::select(vec!["active", "inactive", "failed", "activating", "deactivating", "reloading"]),
            file_state in prop::sample::select(vec!["enabled", "enabled-runtime", "disabled", "static", "masked", "masked-runtime", "linked", "indirect", "generated", "alias", ""]),
            needs_daemon_reload in any::<bool>(),
        ) {
            let declared: Vec<DesiredUnit> = if desired.3 {
                vec![declare(desired.0, desired.1, desired.2)]
            } else {
                Vec::new()
            };
            let (enabled, masked, active_before) = original;
            let original = Original { enabled, masked: masked && !enabled, active: active_before && !masked };
            let owned = [own(&declare(before.0, before.1, before.2), original, OnRemoval::Restore)];
            let unit = ObservedUnit { needs_daemon_reload, ..seen(active, file_state) };
            let steps = plan(&declared, &observed(&unit), &owned);
            let is_blocked = steps.iter().any(|step| matches!(step, Step::Blocked(_)));
            let only_owned = steps.iter().all(|step| match step {
                Step::Change(planned) => planned.key == NAME,
                Step::Release { key, .. } => key == NAME,
                Step::Blocked(_) => true,
            });
            prop_assert!(only_owned);
            if !is_blocked {
                let after = carry_out(unit, &steps);
                let again = plan(&declared, &observed(&after), &owned);
                let is_contradiction = again.iter().any(|step| matches!(step, Step::Blocked(_)));
                let is_done = matches!(again.as_slice(), [] | [Step::Release { .. }]);
                prop_assert!(is_done || is_contradiction, "{} then {}", words(&steps), words(&again));
            }
        }
    }
}
