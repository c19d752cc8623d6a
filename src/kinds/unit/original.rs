//! What was there before limpet first touched a unit.
//!
//! Enablement and masking are *settings*: off, on, or on until the next boot, which leaves links below `/run`. A *link* is how a unit is
//! found whose file lies outside systemd's directories; disabling such a unit takes its link, too.

use serde::{Deserialize, Serialize};

use crate::kinds::unit::ObservedUnit;

/// What was there before limpet first touched a unit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Original {
    /// Was it enabled.
    pub enabled: bool,
    /// Was it masked.
    pub masked: bool,
    /// Was it active.
    pub active: bool,
    /// How its file was enabled, in the words of `systemctl is-enabled`; empty in what older versions kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file_state: String,
    /// How it was found, where its file lay outside systemd's directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    /// The kernel's id of the boot with which some of it ends; nothing where nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
}

/// A link to a unit file outside systemd's directories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The file.
    pub target: String,
    /// Until the next boot.
    pub runtime: bool,
}

/// How a key of a unit is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    /// It is not.
    Off,
    /// Until the next boot.
    UntilBoot,
    /// For good.
    On,
}

impl Setting {
    /// What a declaration of the key makes of it.
    pub(super) fn declared(is_on: bool) -> Self {
        match is_on {
            true => Setting::On,
            false => Setting::Off,
        }
    }

    /// The enablement that systemd calls this.
    pub(super) fn of_enablement(file_state: &str) -> Self {
        match file_state {
            "enabled" => Setting::On,
            "enabled-runtime" => Setting::UntilBoot,
            _ => Setting::Off,
        }
    }

    /// The mask that systemd calls this.
    pub(super) fn of_mask(file_state: &str) -> Self {
        match file_state {
            "masked" => Setting::On,
            "masked-runtime" => Setting::UntilBoot,
            _ => Setting::Off,
        }
    }
}

impl Original {
    /// What `unit` is now.
    pub(super) fn of(unit: &ObservedUnit) -> Self {
        let file_state = unit.file_state.as_str();
        let settings = [
            Setting::of_enablement(file_state),
            Setting::of_mask(file_state),
        ];
        let ends_with_boot = settings.contains(&Setting::UntilBoot)
            || unit.link.as_ref().is_some_and(|link| link.runtime);
        Original {
            enabled: unit.is_enabled() || unit.is_enabled_below,
            masked: unit.is_masked(),
            active: unit.is_up(),
            file_state: unit.file_state.clone(),
            link: unit.link.clone(),
            boot: ends_with_boot.then(|| unit.boot.clone()).flatten(),
        }
    }

    /// How it was enabled, as it would be in the boot `boot` had nobody touched it.
    pub(super) fn enablement(&self, boot: Option<&str>) -> Setting {
        match self.file_state.as_str() {
            // Below a mask its links say so.
            "" | "masked" | "masked-runtime" => Setting::declared(self.enabled),
            state => self.in_boot(Setting::of_enablement(state), boot),
        }
    }

    /// The same of its mask.
    pub(super) fn masking(&self, boot: Option<&str>) -> Setting {
        match self.file_state.as_str() {
            "" => Setting::declared(self.masked),
            state => self.in_boot(Setting::of_mask(state), boot),
        }
    }

    /// The same of its link.
    pub(super) fn link(&self, boot: Option<&str>) -> Option<&Link> {
        let link = self.link.as_ref()?;
        (!link.runtime || !self.is_of_another_boot(boot)).then_some(link)
    }

    fn in_boot(&self, setting: Setting, boot: Option<&str>) -> Setting {
        match setting {
            Setting::UntilBoot if self.is_of_another_boot(boot) => Setting::Off,
            setting => setting,
        }
    }

    fn is_of_another_boot(&self, boot: Option<&str>) -> bool {
        self.boot.is_some() && boot.is_some() && self.boot.as_deref() != boot
    }
}
