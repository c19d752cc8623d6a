//! Users and groups of the host's own files.
//!
//! What exists and came from elsewhere (a directory service) is not touched. Numbers are never changed: files would change hands.
//! A user that limpet made and nobody declares any more is *locked* (no password, no key, no login), and loses the memberships and
//! keys that limpet gave; its number and its home stay, so that nobody inherits its files.
//!
//! Invariant: the account databases are written by the distribution's own tools alone (`useradd(8)` and its family), in the host's name
//! spaces. What lies in a user's home is written as that user: root follows no path that somebody else may bend.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::kinds::kind::{self, Contents, Owned, Step};
use crate::model::{Failure, Kind, OnRemoval, Outcome, ResourceId};
use crate::sys::Host;

mod apply;
mod observe;
mod plan;

/// The largest file of authorized keys, in bytes.
pub const MAX_KEYS_BYTES: u64 = 64 << 10;

/// One declared user or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredAccount {
    /// `user:<name>` or `group:<name>`.
    pub id: ResourceId,
    /// What it should be.
    pub spec: AccountSpec,
    /// Look, but do not touch.
    pub report: bool,
    /// What happens when it is no longer declared.
    pub on_removal: OnRemoval,
}

/// What an account should be. `None` means: not managed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountSpec {
    /// A group.
    Group {
        /// Its number.
        gid: Option<u32>,
        /// A new one gets a number of the system's range.
        system: bool,
    },
    /// A user.
    User(Box<UserSpec>),
    /// Neither user nor group of that name; a home stays.
    Absent,
}

/// What a user should be. `None` means: not managed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserSpec {
    /// Its number.
    pub uid: Option<u32>,
    /// Its own group's name.
    pub group: Option<String>,
    /// All other groups that it is a member of.
    pub groups: Option<BTreeSet<String>>,
    /// Its shell.
    pub shell: Option<String>,
    /// Its home directory.
    pub home: Option<String>,
    /// A new one gets a number of the system's range, and no home.
    pub system: bool,
    /// It cannot log in.
    pub locked: bool,
    /// All of its `authorized_keys`.
    pub keys: Option<String>,
}

impl DesiredAccount {
    /// What is owned: `user:<name>` or `group:<name>`.
    pub fn key(&self) -> String {
        self.id.to_string()
    }

    /// The groups that it is to be in.
    pub fn groups(&self) -> impl Iterator<Item = ResourceId> {
        let user = match &self.spec {
            AccountSpec::User(user) => Some(user),
            AccountSpec::Group { .. } | AccountSpec::Absent => None,
        };
        user.into_iter()
            .flat_map(|user| user.group.iter().chain(user.groups.iter().flatten()))
            .map(|name| ResourceId::new(Kind::Group, name))
    }
}

/// What was there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Original {
    /// Nothing.
    Absent,
    /// A group.
    Group {
        /// Its number.
        gid: u32,
    },
    /// A user.
    User(UserState),
}

/// What is known of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserState {
    /// Its number.
    pub uid: u32,
    /// Its own group's name, or number where that has none.
    pub group: String,
    /// The other groups that it is a member of.
    pub groups: BTreeSet<String>,
    /// Its shell.
    pub shell: String,
    /// Its home directory.
    pub home: String,
    /// It cannot log in; `None` where that cannot be seen.
    pub locked: Option<bool>,
    /// Its `authorized_keys`; `None` where there are none.
    pub keys: Option<String>,
}

/// What was seen of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObservedAccount {
    /// There is none.
    Absent,
    /// A group.
    Group {
        /// Its number.
        gid: u32,
        /// It is some user's own group.
        is_primary: bool,
    },
    /// A user.
    User(UserState),
}

/// Every account that was asked about, by key.
pub type Observed = BTreeMap<String, Result<ObservedAccount, Failure>>;

/// One change to one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountChange {
    /// The resource it is made for.
    pub id: ResourceId,
    /// What is done.
    pub edit: Edit,
}

/// What is done to an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Make a group.
    MakeGroup {
        /// Its number.
        gid: Option<u32>,
        /// From the system's range.
        system: bool,
    },
    /// Delete a group.
    RemoveGroup,
    /// Make a user.
    MakeUser(Box<UserSpec>),
    /// Change what is said of a user.
    ChangeUser(Box<UserEdit>),
    /// Delete a user; its home stays.
    RemoveUser,
}

/// What is changed of a user; `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserEdit {
    /// Its own group's name.
    pub group: Option<String>,
    /// All other groups.
    pub groups: Option<BTreeSet<String>>,
    /// Its shell.
    pub shell: Option<String>,
    /// Its home directory; nothing is moved.
    pub home: Option<String>,
    /// Lock it, or unlock it.
    pub locked: Option<bool>,
    /// All of its `authorized_keys`, `None` in here deletes the file.
    pub keys: Option<Option<String>>,
}

/// The kind.
#[derive(Debug)]
pub struct Accounts;

impl kind::Kind for Accounts {
    type Desired = DesiredAccount;
    type Observed = Observed;
    type Original = Original;
    type Applied = serde_json::Value;
    type Change = AccountChange;

    fn observe(host: &Host, desired: &[DesiredAccount], owned: &[Owned<Original>]) -> Observed {
        observe::observe(host, desired, owned)
    }

    fn plan(
        desired: &[DesiredAccount],
        observed: &Observed,
        owned: &[Owned<Original>],
    ) -> Vec<Step<Original, AccountChange>> {
        plan::plan(desired, observed, owned)
    }

    fn apply(host: &Host, _contents: &dyn Contents, changes: &[&AccountChange]) -> Vec<Outcome> {
        let outcome = |change: &&AccountChange| match apply::make(host, change) {
            Ok(()) => Outcome::Done,
            Err(failure) => Outcome::Failed(failure.about(change.id.clone())),
        };
        changes.iter().map(outcome).collect()
    }
}

/// What was there before, of an account that is as declared already.
pub fn original(observed: &Observed, key: &str) -> Option<Original> {
    let found = observed.get(key)?.as_ref().ok()?;
    Some(plan::original_of(found))
}

/// What the inventory says of an account once it is applied: the managed keys.
pub fn applied(desired: &DesiredAccount) -> serde_json::Value {
    use serde_json::json;
    match &desired.spec {
        AccountSpec::Absent => json!({ "type": "absent" }),
        AccountSpec::Group { gid, .. } => json!({ "type": "group", "gid": gid }),
        AccountSpec::User(user) => json!({
            "type": "user",
            "uid": user.uid,
            "group": user.group,
            "groups": user.groups,
            "shell": user.shell,
            "home": user.home,
            "locked": user.locked,
            "keys": user.keys,
        }),
    }
}
