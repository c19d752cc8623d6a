//! systemd units: enablement, masking, activity, and the restarts that other changes cause.
//!
//! A unit's own file and drop-ins are paths of the kind `file`, declared by the unit.

use crate::model::{OnRemoval, ResourceId};

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
    /// A command that must succeed after the files changed and before the unit is restarted or reloaded.
    pub validate: Option<Vec<String>>,
    /// `restart = "manual"`: the debt waits.
    pub restart_manually: bool,
    /// Does this declaration bring the unit's own file; paths of its file and drop-ins.
    pub files: Vec<String>,
    /// Look, but do not touch.
    pub report: bool,
    /// What happens when it is no longer declared.
    pub on_removal: OnRemoval,
}
