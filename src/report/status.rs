//! The status of this host: the object that `limpet status --json` prints, which is documented and stable.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{Action, Class, Failure, Location, Reason, ResourceId};

/// What limpet knows about this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The name the repository knows this host by.
    pub host: String,
    /// The first state that holds, in the order of [`State`].
    pub state: State,
    /// Since when that state holds.
    pub since: Timestamp,
    /// The applied revision, in hex; none before the first.
    pub revision: Option<String>,
    /// The first line of its message.
    pub subject: Option<String>,
    /// Who signed it.
    pub signer: Option<String>,
    /// When it was first applied.
    pub applied_at: Option<Timestamp>,
    /// Digest of the desired state that is enforced.
    pub digest: Option<String>,
    /// When the source was last asked, and what came of it.
    pub last_poll: Option<Poll>,
    /// When it will be asked again.
    pub next_poll_at: Option<Timestamp>,
    /// How many resources are declared, and how they are.
    pub resources: Counts,
    /// Everything that holds, `state` among it.
    pub conditions: Vec<Condition>,
    /// What differs from the declaration and was not corrected.
    pub drift: Vec<Drift>,
    /// Restarts and reloads that wait.
    pub owed: Vec<OwedEffect>,
    /// What is wrong.
    pub errors: Vec<StatusError>,
    /// What is paused; the whole host first.
    #[serde(default)]
    pub paused: Vec<Pause>,
    /// Revisions that failed here and are not tried again by themselves.
    pub quarantined: Vec<Quarantined>,
    /// The system asks for a reboot.
    pub reboot_required: bool,
}

/// The states, the most pressing first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The tip of the branch is not trusted.
    Refused,
    /// A revision was undone because the host was unhealthy with it.
    RolledBack,
    /// A person must act: removals, a wrong name or wrong facts.
    Held,
    /// A resource failed, or the author's TOML is wrong.
    Degraded,
    /// Approvals are missing.
    Pending,
    /// Waiting for health; nobody need act.
    Waiting,
    /// Paused by an operator.
    Paused,
    /// No new authenticated revision for too long.
    Stale,
    /// Something differs and is only reported.
    Drifted,
    /// A plan is being applied.
    Applying,
    /// Before the first apply.
    Starting,
    /// Everything is as declared.
    Converged,
}

impl State {
    /// The word in JSON and on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Refused => "refused",
            State::RolledBack => "rolled-back",
            State::Held => "held",
            State::Degraded => "degraded",
            State::Pending => "pending",
            State::Waiting => "waiting",
            State::Paused => "paused",
            State::Stale => "stale",
            State::Drifted => "drifted",
            State::Applying => "applying",
            State::Starting => "starting",
            State::Converged => "converged",
        }
    }
}

/// One poll of the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// When.
    pub at: Timestamp,
    /// `new`, `unchanged`, or why it failed.
    pub result: String,
    /// How many polls in a row failed, this one among them.
    #[serde(default, skip_serializing_if = "is_none")]
    pub failures: u32,
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

/// A pause: for so long nothing of it is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Of what; null for the whole host.
    pub resource: Option<ResourceId>,
    /// Since when.
    pub since: Timestamp,
    /// Until when at the latest.
    pub until: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Numbers of declared resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Declared for this host.
    pub total: usize,
    /// As declared.
    pub converged: usize,
    /// Failed, skipped or not judged.
    pub failed: usize,
}

/// Something that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// A state's word, or `offline`, `unreachable`, `denied`, `fetcher-down`, `contested`, `behind`, `clock`, `facts`, `config`, `agent-down`,
    /// `state-missing`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Since when.
    pub since: Timestamp,
    /// Why, for people.
    pub reason: String,
    /// Who must act.
    pub who: String,
}

/// A resource that differs and was not corrected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// Which.
    pub resource: ResourceId,
    /// How.
    pub reason: Reason,
    /// In what.
    pub fields: Vec<String>,
}

/// A restart or reload that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedEffect {
    /// What is owed: `restart`, `reload`, `daemon-reload`, `run`.
    pub action: Action,
    /// Who owes it.
    pub resource: ResourceId,
    /// It waits for somebody to do it, or for a boot.
    #[serde(default)]
    pub manual: bool,
    /// Whose change caused it.
    pub because: ResourceId,
}

/// A failure in the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusError {
    /// Who must act.
    pub class: Class,
    /// What failed.
    pub message: String,
    /// Which resource.
    pub resource: Option<ResourceId>,
    /// `file:line:column` of the mistake.
    pub location: Option<Location>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The revision that is not taken over because of this mistake in it, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// A revision that is not tried again by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The commit, in hex.
    pub revision: String,
    /// Why.
    pub reason: String,
}

impl From<&Failure> for StatusError {
    fn from(failure: &Failure) -> Self {
        StatusError {
            class: failure.class,
            message: failure.message.clone(),
            resource: failure.resource.clone(),
            location: failure.location.clone(),
            hint: failure.hint.clone(),
            revision: None,
        }
    }
}

impl Status {
    /// Does a condition of this type hold.
    pub fn has(&self, kind: &str) -> bool {
        self.conditions
            .iter()
            .any(|condition| condition.kind == kind)
    }

    /// Why the source could not be asked.
    pub fn silence(&self) -> Option<&Condition> {
        self.conditions
            .iter()
            .find(|condition| SILENCE.contains(&condition.kind.as_str()))
    }
}

/// The conditions that say that the source could not be asked.
const SILENCE: [&str; 4] = ["offline", "unreachable", "denied", "fetcher-down"];

/// Who must act on a failure of `class`, for people.
pub fn who_must_act(class: Class) -> &'static str {
    match class {
        Class::Transient => "nobody yet, it is tried again",
        Class::Refused => "whoever holds the signing keys",
        Class::Author => "the author of the commit",
        Class::Host | Class::Config => "the operator of this host",
        Class::Bug => "the makers of limpet",
    }
}
