//! What would change on this host: the object that `limpet plan --json` prints, which is documented and stable.

use serde::{Deserialize, Serialize};

use crate::model::{Action, Reason, ResourceId};
use crate::report::status::{Condition, StatusError};

/// A plan as people and programs read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// The revision the plan leads to, in hex; none when nothing is trusted yet.
    pub revision: Option<String>,
    /// The host's name.
    pub host: String,
    /// Digest of the desired state.
    pub digest: Option<String>,
    /// What would be done, in order.
    pub changes: Vec<PreviewChange>,
    /// What would be done if a person allowed it.
    pub held: Vec<PreviewHeld>,
    /// What cannot be judged.
    pub errors: Vec<StatusError>,
    /// What else to know, such as `agent-down`.
    pub conditions: Vec<Condition>,
}

/// One change of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewChange {
    /// What would be changed.
    pub resource: ResourceId,
    /// How.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// In which properties.
    pub fields: Vec<String>,
    /// A unified diff of the content, where there is one to show.
    pub diff: Option<String>,
    /// True when it is only reported.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub report: bool,
    /// True when it is not made because the resource or the host is paused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// One change that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewHeld {
    /// What would be changed.
    pub resource: ResourceId,
    /// How.
    pub action: Action,
    /// Why it is held.
    pub reason: String,
}
