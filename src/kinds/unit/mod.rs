//! systemd units: enablement, masking, activity, and the restarts that other changes cause.
//!
//! A unit's own file and drop-ins are paths of the kind `file`, declared by the unit. Enablement, mask and activity are three keys,
//! each managed while it is declared and taken back by itself.
//!
//! Invariant: a unit that was started or restarted counts as done only after it was seen active.

use std::collections::{BTreeMap, BTreeSet};

use crate::kinds::kind::{Contents, Kind, Owned, Step};
use crate::model::{Failure, OnRemoval, Outcome, ResourceId};
use crate::sys::Host;

mod apply;
mod image;
mod mistake;
mod name;
mod observe;
mod original;
mod plan;
mod validation;

pub use validation::{TIME_LIMIT, Validation, Verdict, has_started_since, validate};

pub use name::{SUFFIXES, escape_path, is_own_file, is_read_by_systemd};
use original::Setting;
pub use original::{Link, Original};

/// One declared unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredUnit {
    /// The full unit name; what is owned.
    pub name: String,
    /// `unit:<name>`.
    pub id: ResourceId,
    /// Started at boot.
    pub enabled: Option<bool>,
    /// Active now.
    pub running: Option<bool>,
    /// Cannot be started at all.
    pub masked: Option<bool>,
    /// Fine when the unit does not exist.
    pub optional: bool,
    /// Resources whose change restarts it (its own unit file and drop-ins are added by the plan).
    pub restart_on: Vec<ResourceId>,
    /// Resources whose change reloads it, or restarts it where it cannot reload.
    pub reload_on: Vec<ResourceId>,
    /// What judges its files once they are written, before it reads them.
    pub validate: Option<Vec<String>>,
    /// Its restarts wait for a person, or for a boot.
    pub manual: bool,
    /// Does this declaration bring the unit's own file; paths of its file and drop-ins.
    pub files: Vec<String>,
    /// Look, but do not touch.
    pub report: bool,
    /// What happens when it is no longer declared.
    pub on_removal: OnRemoval,
}

/// One unit as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedUnit {
    /// Does systemd find a file for it, or is it masked.
    pub exists: bool,
    /// `active`, `inactive`, `failed`, `activating`, …; empty for a template, and in an image.
    pub active: String,
    /// How its file is enabled, in the words of `systemctl is-enabled`; empty when there is no file.
    pub file_state: String,
    /// Its file on disk is newer than what systemd has read.
    pub needs_daemon_reload: bool,
    /// It is over when it has done its work: a oneshot that does not remain.
    pub ends_by_itself: bool,
    /// Can it be reloaded; `None` where nobody asked, or it is not loaded.
    pub can_reload: Option<bool>,
    /// How it is found, where its file lies outside systemd's directories.
    pub link: Option<Link>,
    /// The kernel's id of this boot, where something of the unit ends with it.
    pub boot: Option<String>,
    /// It is masked, and enabled below the mask; asked only of what was never touched.
    pub is_enabled_below: bool,
}

/// The units that were asked about.
#[derive(Debug, Default)]
pub struct Observed {
    /// By name; a unit that could not be looked at is a failure.
    pub units: BTreeMap<String, Result<ObservedUnit, Failure>>,
    /// When units that owe something were started last, in microseconds since the machine started.
    pub started: BTreeMap<String, u64>,
    /// The kernel's id of this boot, where something that was there before limpet ended with its boot.
    pub boot: Option<String>,
    /// They are those of an image: their files are there, and nothing runs.
    pub is_image: bool,
}

/// One change to a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitChange {
    /// The unit.
    pub name: String,
    /// What is done to it.
    pub operation: Operation,
    /// The link that it is to be found by: the one that would go along when it is disabled, or the one to make again.
    pub link: Option<Link>,
    /// It puts back what was there before: where that cannot be, it is not tried again.
    pub takes_back: bool,
}

/// What can be done to a unit, in the order in which it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Reads all unit files again; once for a batch, before anything else.
    DaemonReload,
    /// Takes the mask away.
    Unmask,
    /// Removes its links, but for the one that it is found by.
    Disable,
    /// Makes the link again that it was found by.
    Link,
    /// Makes its links for every boot.
    Enable,
    /// Makes its links until the next boot.
    EnableUntilBoot,
    /// Links it to nothing; after the links, which cannot be changed below a mask.
    Mask,
    /// The same, until the next boot.
    MaskUntilBoot,
    /// Stops it.
    Stop,
    /// Starts it, after forgetting that it failed.
    Start,
    /// The same for a unit whose files change in this run: one that a package starts in between is restarted.
    StartAfresh,
    /// Restarts it if it is active, after forgetting how often it was started.
    Restart,
    /// Reloads it if it is active, or restarts it where it cannot reload.
    Reload,
}

impl DesiredUnit {
    /// Does it read what is at `path`, which `id` declares, as far as anybody said.
    pub fn reads(&self, path: &str, id: &ResourceId) -> bool {
        self.brings(path) || self.restart_on.contains(id) || self.reload_on.contains(id)
    }

    /// Is `path` its own file, or a drop-in of it.
    pub fn brings(&self, path: &str) -> bool {
        self.files.iter().any(|own| own == path) || is_own_file(&self.name, path)
    }
}

/// The name of the drop-in with a declared mount's options: a change of it is a remount.
pub const OPTIONS_DROPIN: &str = "options.conf";

/// The kind.
#[derive(Debug)]
pub struct Units;

impl Kind for Units {
    type Desired = DesiredUnit;
    type Observed = Observed;
    type Original = Original;
    type Applied = serde_json::Value;
    type Change = UnitChange;

    fn observe(host: &Host, desired: &[DesiredUnit], owned: &[Owned<Original>]) -> Observed {
        let names: BTreeSet<&str> = desired
            .iter()
            .map(|unit| unit.name.as_str())
            .chain(owned.iter().map(|owned| owned.key.as_str()))
            .collect();
        let reloading: BTreeSet<&str> = desired
            .iter()
            .filter(|unit| !unit.reload_on.is_empty())
            .map(|unit| unit.name.as_str())
            .collect();
        observe::observe(host, &names, &reloading, owned)
    }

    fn plan(
        desired: &[DesiredUnit],
        observed: &Observed,
        owned: &[Owned<Original>],
    ) -> Vec<Step<Original, UnitChange>> {
        plan::plan(desired, observed, owned)
    }

    fn apply(host: &Host, _contents: &dyn Contents, changes: &[&UnitChange]) -> Vec<Outcome> {
        if !host.is_running_system() {
            return image::apply(host, changes);
        }
        let changes: Vec<UnitChange> = changes.iter().copied().cloned().collect();
        apply::apply(host.systemd(), &changes)
    }
}

impl Observed {
    /// Looks when the units `names` were started last: whoever did that, they have read their files since.
    pub fn look_when_started(&mut self, host: &Host, names: &BTreeSet<&str>) {
        match observe::started(host.systemd(), names) {
            Ok(started) => self.started = started,
            // Then nobody paid for them.
            Err(error) => tracing::debug!("failed to tell when units were started: {error}"),
        }
    }

    /// What there is of `name` now, to be kept as its original; `None` when it could not be looked at.
    pub fn original(&self, name: &str) -> Option<Original> {
        let unit = self.units.get(name)?.as_ref().ok()?;
        Some(Original::of(unit))
    }
}

impl UnitChange {
    /// `operation` on the unit called `name`.
    pub fn new(name: &str, operation: Operation) -> Self {
        UnitChange {
            name: name.to_owned(),
            operation,
            link: None,
            takes_back: false,
        }
    }
}

impl ObservedUnit {
    /// Is it linked to nothing.
    pub fn is_masked(&self) -> bool {
        self.masking() != Setting::Off
    }

    /// Will it be started at boot.
    pub fn is_enabled(&self) -> bool {
        self.enablement() != Setting::Off
    }

    fn masking(&self) -> Setting {
        Setting::of_mask(&self.file_state)
    }

    fn enablement(&self) -> Setting {
        Setting::of_enablement(&self.file_state)
    }

    /// One of which there is nothing but its file: a template, or a unit of an image.
    pub(super) fn of_file(file_state: String) -> Self {
        ObservedUnit {
            exists: !file_state.is_empty(),
            active: String::new(),
            file_state,
            needs_daemon_reload: false,
            ends_by_itself: false,
            can_reload: None,
            link: None,
            boot: None,
            is_enabled_below: false,
        }
    }

    /// Does it run, or is it about to, or about to end.
    pub fn is_up(&self) -> bool {
        !matches!(self.active.as_str(), "inactive" | "failed" | "")
    }
}

/// The managed keys of a declaration, for the inventory.
pub fn applied(desired: &DesiredUnit) -> serde_json::Value {
    let keys = [
        ("enabled", desired.enabled),
        ("running", desired.running),
        ("masked", desired.masked),
    ];
    keys.into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?.into())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
