//! Why this host, or one resource of it, is declared as it is: the object that `limpet why --json` prints, which is documented and stable.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{Action, Location, OnRemoval, ResourceId};
use crate::report::status::Condition;

/// Why this host is declared as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The name the repository knows this host by.
    pub host: String,
    /// The revision in force, in hex.
    pub revision: String,
    /// The first line of its message.
    pub subject: String,
    /// Who signed it.
    pub signer: Option<String>,
    /// Digest of the desired state.
    pub digest: String,
    /// The labels it has: from the inventory and from its own configuration.
    pub labels: BTreeMap<String, String>,
    /// What was measured of it, or is declared for it.
    pub facts: BTreeMap<String, String>,
    /// Its layers, from the weakest to the strongest.
    pub layers: Vec<Layer>,
    /// What keeps this host from being simply as declared: paused, held, offline, …
    pub conditions: Vec<Condition>,
    /// What was asked about; none for the host alone.
    pub resource: Option<Resource>,
}

/// One layer of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// What chose it, with its place.
    pub because: String,
}

/// Why one resource is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// Which.
    pub resource: ResourceId,
    /// Is it declared for this host now.
    pub declared: bool,
    /// `as declared`, `differs`, `failed`, or empty when nothing declares it.
    pub state: String,
    /// In what it differs, or the error.
    pub detail: String,
    /// What is known of somebody else who changes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contested: Option<String>,
    /// Each of its keys, with the place that set it.
    pub values: Vec<Value>,
    /// Each variable that its values and templates use, with the place that set it.
    pub variables: Vec<Value>,
    /// What else its templates use: `host.name`, `hosts`.
    pub names: Vec<String>,
    /// What must succeed before it.
    pub needs: Vec<ResourceId>,
    /// What waits for it.
    pub needed_by: Vec<ResourceId>,
    /// Units that its change restarts or reloads.
    pub restarts: Vec<Restart>,
    /// Resources whose change restarts or reloads it.
    pub restarted_by: Vec<Restart>,
    /// It is looked at and not touched.
    pub report: bool,
    /// What happens when it is no longer declared.
    pub on_removal: OnRemoval,
    /// What was there before limpet first touched it; none when limpet did not.
    pub original: Option<String>,
    /// What its package brings and lies beside a file that somebody had changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<String>,
    /// When it was last changed by a revision.
    pub last_change: Option<Event>,
    /// When it was last put back.
    pub last_drift: Option<Event>,
    /// What else may be meant, when nothing declares it.
    pub near: Vec<ResourceId>,
}

/// A value that somebody declared, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The key.
    pub key: String,
    /// As TOML writes it; none where not everybody may read it.
    pub value: Option<String>,
    /// Where it was set.
    pub location: Location,
    /// By which layer.
    pub layer: String,
}

/// One edge along which a change makes a unit restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// The other end.
    pub resource: ResourceId,
    /// [`Action::Restart`] or [`Action::Reload`].
    pub action: Action,
}

/// One line of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// By which revision, in hex.
    pub revision: String,
    /// The first line of its message, where known.
    pub subject: Option<String>,
    /// What was done.
    pub action: String,
    /// `done`, `failed` or `skipped`.
    pub outcome: String,
    /// Which properties changed, or the error.
    pub detail: String,
}
