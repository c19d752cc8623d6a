//! What cannot come true for a unit, whatever limpet does, with a hint for its author.

use crate::kinds::unit::ObservedUnit;
use crate::kinds::unit::name::is_template;
use crate::model::{Class, Failure, ResourceId};

/// The keys of a unit, as they are declared.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeclaredKeys {
    pub masked: Option<bool>,
    pub enabled: Option<bool>,
    pub running: Option<bool>,
}

/// Why the keys cannot come true for this unit, whatever we do.
pub(super) fn find_contradiction(
    id: &ResourceId,
    name: &str,
    keys: DeclaredKeys,
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
