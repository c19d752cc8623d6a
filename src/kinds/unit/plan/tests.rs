//! The laws of planning units.

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
        link: None,
        boot: None,
        is_enabled_below: false,
    }
}

fn observed(unit: &ObservedUnit) -> Observed {
    Observed {
        units: [(NAME.to_owned(), Ok(unit.clone()))].into(),
        started: BTreeMap::new(),
        boot: None,
        is_image: false,
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
fn a_mask_that_is_taken_back_is_in_nobodys_way() {
    let (yes, no) = (Some(true), Some(false));
    let was = Original {
        active: true,
        ..Original::default()
    };
    let owned = [own(&declare(yes, None, no), was, OnRemoval::Restore)];
    let unit = seen("inactive", "masked");
    let steps = plan(&[declare(None, yes, yes)], &observed(&unit), &owned);
    assert_eq!(
        words(&steps),
        "unmask (undeclared), enable (differs), start (differs)"
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

fn link() -> Link {
    Link {
        target: format!("/opt/app/{NAME}"),
        runtime: false,
    }
}

#[test]
fn what_lasts_until_the_next_boot_and_what_is_linked_comes_back_as_it_was() {
    let (yes, no) = (Some(true), Some(false));
    let operations = |applied: &DesiredUnit, original: &str, unit: &ObservedUnit, boot: &str| {
        let original = Original {
            boot: Some("first".to_owned()),
            ..Original::of(&seen("inactive", original))
        };
        let mut observed = observed(unit);
        observed.boot = Some(boot.to_owned());
        let steps = plan(
            &[],
            &observed,
            &[own(applied, original, OnRemoval::Restore)],
        );
        let operation = |step: &UnitStep| match step {
            Step::Change(planned) => format!("{:?}", planned.change.operation),
            other => format!("{other:?}")
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
        };
        steps.iter().map(operation).collect::<Vec<_>>().join(", ")
    };
    let (enabled, disabled) = (declare(None, yes, None), declare(None, no, None));
    let (masked, unmasked) = (declare(yes, None, None), declare(no, None, None));
    for (applied, original, now, boot, expected) in [
        (
            &enabled,
            "enabled-runtime",
            "enabled",
            "first",
            "Disable, EnableUntilBoot",
        ),
        (
            &disabled,
            "enabled-runtime",
            "disabled",
            "first",
            "EnableUntilBoot",
        ),
        (
            &masked,
            "masked-runtime",
            "masked",
            "first",
            "Unmask, MaskUntilBoot",
        ),
        (
            &unmasked,
            "masked-runtime",
            "disabled",
            "first",
            "MaskUntilBoot",
        ),
        (&unmasked, "masked", "disabled", "first", "Mask"),
        // It would have ended with its boot.
        (&enabled, "enabled-runtime", "enabled", "second", "Disable"),
        (
            &disabled,
            "enabled-runtime",
            "disabled",
            "second",
            "Release",
        ),
        (&masked, "masked-runtime", "masked", "second", "Unmask"),
        (&enabled, "enabled", "enabled", "second", "Release"),
        // What was there by nature is that again by itself.
        (&masked, "static", "masked", "first", "Unmask"),
        (&masked, "generated", "masked", "first", "Unmask"),
        (&disabled, "indirect", "indirect", "first", "Release"),
        (&disabled, "alias", "alias", "first", "Release"),
        // It has lost its [Install] section: seen when that is back, or told.
        (&disabled, "enabled", "static", "first", "Enable"),
    ] {
        let unit = seen("inactive", now);
        let found = operations(applied, original, &unit, boot);
        assert_eq!(found, expected, "{applied:?}: {original}, then {now}");
    }
    // Below its mask it was enabled.
    let below = Original::of(&ObservedUnit {
        is_enabled_below: true,
        ..seen("inactive", "masked")
    });
    let opened = declare(no, yes, None);
    let closed = declare(no, no, None);
    for (applied, now, expected) in [
        (&opened, "enabled", "mask (undeclared)"),
        (
            &closed,
            "disabled",
            "enable (undeclared), mask (undeclared)",
        ),
    ] {
        let owned = own(applied, below.clone(), OnRemoval::Restore);
        let steps = plan(&[], &observed(&seen("inactive", now)), &[owned]);
        assert_eq!(words(&steps), expected);
    }
    // Disabling takes the link, which is made again; one that was lost is, too.
    let linked = ObservedUnit {
        link: Some(link()),
        ..seen("inactive", "enabled")
    };
    let was_linked = Original::of(&ObservedUnit {
        link: Some(link()),
        ..seen("inactive", "linked")
    });
    let lost = seen("inactive", "");
    for (unit, expected) in [
        (&linked, "disable (undeclared)"),
        (&lost, "restore (undeclared)"),
    ] {
        let owned = own(&enabled, was_linked.clone(), OnRemoval::Restore);
        let steps = plan(&[], &observed(unit), &[owned]);
        assert_eq!(words(&steps), expected);
        let Some(Step::Change(planned)) = steps.first() else {
            panic!("{steps:?}");
        };
        assert_eq!(planned.change.link, Some(link()));
    }
}

#[test]
fn what_older_versions_kept_is_understood() {
    let kept = r#"{"enabled":true,"masked":false,"active":true}"#;
    let original: Original = serde_json::from_str(kept).unwrap();
    assert_eq!(original.enablement(None), Setting::On);
    assert_eq!(original.masking(None), Setting::Off);
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
        ..Original::default()
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
            Operation::EnableUntilBoot => unit.file_state = "enabled-runtime".to_owned(),
            Operation::MaskUntilBoot => unit.file_state = "masked-runtime".to_owned(),
            Operation::Link => unit.link = planned.change.link.clone(),
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
        original in prop::sample::select(vec!["", "enabled", "enabled-runtime", "disabled", "masked", "masked-runtime", "linked", "static"]),
        original_flags in (any::<bool>(), any::<bool>(), any::<bool>()),
        active in prop::sample::select(vec!["active", "inactive", "failed", "activating", "deactivating", "reloading"]),
        file_state in prop::sample::select(vec!["enabled", "enabled-runtime", "disabled", "static", "masked", "masked-runtime", "linked", "indirect", "generated", "alias", ""]),
        needs_daemon_reload in any::<bool>(),
    ) {
        let declared: Vec<DesiredUnit> = if desired.3 {
            vec![declare(desired.0, desired.1, desired.2)]
        } else {
            Vec::new()
        };
        let (enabled, masked, active_before) = original_flags;
        let masked = masked && !enabled;
        let state_before = original.to_owned();
        let link = (original == "linked").then(link);
        let original = Original { enabled, masked, active: active_before && !masked, file_state: state_before, link, boot: None };
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
