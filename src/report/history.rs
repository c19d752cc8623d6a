//! The audit trail as people and programs read it: the object that `limpet history --json` prints, which is documented and stable.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::ResourceId;

/// What was done on this host, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The host's name.
    pub host: String,
    /// Each time something was done, or refused.
    pub runs: Vec<Run>,
    /// There is more than was asked for.
    pub more: bool,
}

/// One time that something was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// When its last step was made.
    pub at: Timestamp,
    /// What it was.
    pub event: Event,
    /// The revision, in hex.
    pub revision: String,
    /// The first line of its message, where known.
    pub subject: Option<String>,
    /// Who signed it, where known.
    pub signer: Option<String>,
    /// `done`, or `failed` when a step of it failed or was skipped.
    pub outcome: String,
    /// Why it was refused, or what failed.
    pub detail: String,
    /// What was done, in order.
    pub changes: Vec<Change>,
}

/// What a run was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A revision was applied, or what had failed of it.
    Applied,
    /// The host had changed by itself and was put back.
    DriftCorrected,
    /// A revision was not trusted.
    Refused,
    /// A revision was trusted, and had a mistake in it.
    Mistaken,
    /// The host went back to a revision that had been good, from one that it was not well with, or because an operator asked.
    RolledBack,
    /// An operator paused the host, or the resources among the changes.
    Paused,
    /// Such a pause ended.
    Resumed,
    /// Local root let a plan through that was held.
    LetThrough,
    /// dpkg had been interrupted by somebody, and what it left was finished.
    Repaired,
    /// A version of limpet did not work, and the last good one runs again.
    WentBack,
    /// Local root said that this revision is trusted.
    TrustSet,
    /// A package transaction that an agent before this one had started was seen to its end.
    Adopted,
}

impl Event {
    /// The words on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Event::Applied => "applied",
            Event::DriftCorrected => "drift corrected",
            Event::Refused => "refused",
            Event::Mistaken => "mistakes in",
            Event::RolledBack => "rolled back to",
            Event::Paused => "paused",
            Event::Resumed => "resumed",
            Event::LetThrough => "let through",
            Event::Repaired => "repaired packages before",
            Event::WentBack => "went back with",
            Event::TrustSet => "was told to trust",
            Event::Adopted => "saw packages through at",
        }
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// What was changed.
    pub resource: ResourceId,
    /// How: an action's word.
    pub action: String,
    /// Why: a reason's word.
    pub reason: String,
    /// `done`, `failed` or `skipped`.
    pub outcome: String,
    /// Which properties changed, or the error.
    pub detail: String,
    /// What it did to the content, where that was asked for, is known and may be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
}
