//! What must change so that users and groups are as declared: no I/O, no clock.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::kinds::account::{
    AccountChange, AccountSpec, DesiredAccount, Edit, Observed, ObservedAccount, Original,
    UserEdit, UserSpec, UserState,
};
use crate::kinds::kind::{Owned, PlannedChange, Step};
use crate::model::{Action, Class, Failure, Kind, OnRemoval, Reason, ResourceId};

type AccountStep = Step<Original, AccountChange>;

/// What was applied to a user, as far as the inventory knows.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AppliedUser {
    group: Option<String>,
    groups: Option<BTreeSet<String>>,
    shell: Option<String>,
    home: Option<String>,
    locked: Option<bool>,
    keys: Option<String>,
}

impl AppliedUser {
    fn of(owned: &Owned<Original>) -> Self {
        serde_json::from_value(owned.applied.clone()).unwrap_or_default()
    }
}

pub(super) fn original_of(observed: &ObservedAccount) -> Original {
    match observed {
        ObservedAccount::Absent => Original::Absent,
        ObservedAccount::Group { gid, .. } => Original::Group { gid: *gid },
        ObservedAccount::User(user) => Original::User(user.clone()),
    }
}

pub(super) fn plan(
    desired: &[DesiredAccount],
    observed: &Observed,
    owned: &[Owned<Original>],
) -> Vec<AccountStep> {
    let seen = |key: &str, id: &ResourceId| match observed.get(key) {
        Some(Ok(found)) => Ok(found),
        Some(Err(failure)) => Err(failure.clone().about(id.clone())),
        None => Err(Failure::new(
            Class::Bug,
            format!("failed to plan {id}: it was not looked at"),
        )
        .about(id.clone())),
    };
    let mut steps = Vec::new();
    for item in desired {
        let key = item.key();
        let known = owned.iter().find(|owned| owned.key == key);
        let step = seen(&key, &item.id).and_then(|found| {
            declared(item, found, known).map_err(|failure| failure.about(item.id.clone()))
        });
        match step {
            Ok(step) => steps.extend(step),
            Err(failure) => steps.push(Step::Blocked(failure)),
        }
    }
    let is_declared = |key: &str| desired.iter().any(|item| item.id.to_string() == key);
    for known in owned.iter().filter(|owned| !is_declared(&owned.key)) {
        steps.push(match seen(&known.key, &known.id) {
            Ok(found) => undeclared(known, found),
            Err(failure) => Step::Blocked(failure),
        });
    }
    steps
}

fn declared(
    item: &DesiredAccount,
    found: &ObservedAccount,
    known: Option<&Owned<Original>>,
) -> Result<Option<AccountStep>, Failure> {
    let is_user = item.id.kind == Kind::User;
    let (edit, action, fields) = match (&item.spec, found) {
        (AccountSpec::Absent, ObservedAccount::Absent) => return Ok(None),
        (
            AccountSpec::Absent,
            ObservedAccount::Group {
                is_primary: true, ..
            },
        ) => {
            return Err(Failure::new(
                Class::Host,
                format!("refused to delete {}: it is some user's own group", item.id),
            )
            .with_hint("give that user another one first"));
        }
        (AccountSpec::Absent, _) if is_user => (Edit::RemoveUser, Action::Delete, Vec::new()),
        (AccountSpec::Absent, _) => (Edit::RemoveGroup, Action::Delete, Vec::new()),
        (AccountSpec::Group { gid, system }, ObservedAccount::Absent) => {
            let (gid, system) = (*gid, *system);
            (Edit::MakeGroup { gid, system }, Action::Create, Vec::new())
        }
        (AccountSpec::Group { gid, .. }, ObservedAccount::Group { gid: found, .. }) => {
            check_number(&item.id, "gid", *gid, *found)?;
            return Ok(None);
        }
        (AccountSpec::User(user), ObservedAccount::Absent) => {
            (Edit::MakeUser(user.clone()), Action::Create, Vec::new())
        }
        (AccountSpec::User(user), ObservedAccount::User(state)) => {
            check_number(&item.id, "uid", user.uid, state.uid)?;
            let (edit, fields) = difference(user, state, known);
            if fields.is_empty() {
                return Ok(None);
            }
            if fields.contains(&"locked".to_owned()) && state.locked.is_none() {
                return Err(Failure::new(
                    Class::Host,
                    format!("failed to see whether {} is locked: only root can", item.id),
                ));
            }
            (Edit::ChangeUser(Box::new(edit)), Action::Update, fields)
        }
        (AccountSpec::Group { .. }, ObservedAccount::User(_))
        | (AccountSpec::User(_), ObservedAccount::Group { .. }) => {
            return Err(Failure::new(
                Class::Bug,
                format!("failed to plan {}: something else was looked at", item.id),
            ));
        }
    };
    let reason = match action {
        Action::Create => Reason::Missing,
        _ => Reason::Differs,
    };
    let removes = edit == Edit::RemoveUser;
    let change = AccountChange {
        id: item.id.clone(),
        edit,
    };
    Ok(Some(Step::Change(Box::new(PlannedChange {
        id: item.id.clone(),
        key: item.key().into(),
        action,
        reason,
        fields,
        original: original_of(found),
        removes,
        change,
    }))))
}

/// Files belong to numbers: with another one, they would be somebody else's.
fn check_number(
    id: &ResourceId,
    key: &str,
    wanted: Option<u32>,
    found: u32,
) -> Result<(), Failure> {
    match wanted {
        Some(wanted) if wanted != found => Err(Failure::new(
            Class::Host,
            format!("refused to change {id}: its {key} is {found}, not {wanted}, and its files belong to that number"),
        )
        .with_hint(format!("declare {key} = {found}, or change it and its files by hand"))),
        _ => Ok(()),
    }
}

/// What differs from what is declared, and what was applied, is as applied, and is declared no more.
fn difference(
    user: &UserSpec,
    state: &UserState,
    known: Option<&Owned<Original>>,
) -> (UserEdit, Vec<String>) {
    let applied = known.map(AppliedUser::of).unwrap_or_default();
    let before = match known.map(|known| &known.original) {
        Some(Original::User(before)) => Some(before),
        _ => None,
    };
    fn wish<T: PartialEq + Clone>(
        declared: Option<&T>,
        applied: Option<&T>,
        now: &T,
        before: Option<&T>,
    ) -> Option<T> {
        let taken_back = || before.filter(|_| applied == Some(now));
        let wished = declared.or_else(taken_back)?;
        (wished != now).then(|| wished.clone())
    }
    let no_keys = String::new();
    let keys_now = state.keys.clone().unwrap_or_default();
    let keys_before = before.map(|before| before.keys.clone().unwrap_or_default());
    let keys = wish(
        user.keys.as_ref(),
        applied.keys.as_ref(),
        &keys_now,
        // A user that was not there before had no keys.
        keys_before.as_ref().or(known.map(|_| &no_keys)),
    );
    let no_groups = BTreeSet::new();
    let edit = UserEdit {
        group: wish(
            user.group.as_ref(),
            applied.group.as_ref(),
            &state.group,
            before.map(|before| &before.group),
        ),
        groups: wish(
            user.groups.as_ref(),
            applied.groups.as_ref(),
            &state.groups,
            before
                .map(|before| &before.groups)
                .or(known.map(|_| &no_groups)),
        ),
        shell: wish(
            user.shell.as_ref(),
            applied.shell.as_ref(),
            &state.shell,
            before.map(|before| &before.shell),
        ),
        home: wish(
            user.home.as_ref(),
            applied.home.as_ref(),
            &state.home,
            before.map(|before| &before.home),
        ),
        locked: (state.locked != Some(user.locked)).then_some(user.locked),
        keys: keys.map(|keys| Some(keys).filter(|keys| !keys.is_empty())),
    };
    let fields = fields_of(&edit);
    (edit, fields)
}

fn fields_of(edit: &UserEdit) -> Vec<String> {
    [
        ("group", edit.group.is_some()),
        ("groups", edit.groups.is_some()),
        ("shell", edit.shell.is_some()),
        ("home", edit.home.is_some()),
        ("locked", edit.locked.is_some()),
        ("authorized_keys", edit.keys.is_some()),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(name, _)| name.to_owned())
    .collect()
}

/// What becomes of an account that is no longer declared.
fn undeclared(known: &Owned<Original>, found: &ObservedAccount) -> AccountStep {
    let release = || Step::Release {
        id: known.id.clone(),
        key: known.key.clone(),
    };
    if known.on_removal == OnRemoval::Keep {
        return release();
    }
    let deletes = known.on_removal == OnRemoval::Delete;
    let (edit, action, fields) = match (found, &known.original) {
        (
            ObservedAccount::Group {
                is_primary: false, ..
            },
            Original::Absent,
        ) => (Edit::RemoveGroup, Action::Delete, Vec::new()),
        (
            ObservedAccount::Group {
                is_primary: false, ..
            },
            _,
        ) if deletes => (Edit::RemoveGroup, Action::Delete, Vec::new()),
        (ObservedAccount::User(_), _) if deletes => (Edit::RemoveUser, Action::Delete, Vec::new()),
        (ObservedAccount::User(state), Original::Absent) => {
            let applied = AppliedUser::of(known);
            let given = applied.groups.unwrap_or_default();
            let kept: BTreeSet<String> = state.groups.difference(&given).cloned().collect();
            let has_our_keys = applied.keys.is_some() && applied.keys == state.keys;
            let edit = UserEdit {
                groups: (kept != state.groups).then_some(kept),
                locked: (state.locked != Some(true)).then_some(true),
                keys: has_our_keys.then_some(None),
                ..UserEdit::default()
            };
            let fields = fields_of(&edit);
            (Edit::ChangeUser(Box::new(edit)), Action::Restore, fields)
        }
        (ObservedAccount::User(state), Original::User(before)) => {
            let wished = UserSpec {
                locked: match AppliedUser::of(known).locked {
                    Some(applied) if state.locked == Some(applied) => {
                        before.locked.unwrap_or(applied)
                    }
                    _ => state.locked.unwrap_or_default(),
                },
                ..UserSpec::default()
            };
            let (edit, fields) = difference(&wished, state, Some(known));
            (Edit::ChangeUser(Box::new(edit)), Action::Restore, fields)
        }
        // Gone, or never ours, or still somebody's own group.
        _ => return release(),
    };
    if let (Edit::ChangeUser(edit), true) = (&edit, fields.is_empty()) {
        debug_assert_eq!(**edit, UserEdit::default(), "what differs has a name");
        return release();
    }
    // A user that is deleted or locked is gone for whoever needs it.
    let removes = match &edit {
        Edit::RemoveUser => true,
        Edit::ChangeUser(edit) => edit.locked == Some(true),
        _ => false,
    };
    Step::Change(Box::new(PlannedChange {
        id: known.id.clone(),
        key: known.key.clone(),
        action,
        reason: Reason::Undeclared,
        fields,
        original: known.original.clone(),
        removes,
        change: AccountChange {
            id: known.id.clone(),
            edit,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::account::{Accounts, applied};
    use crate::kinds::kind::Kind as _;

    fn user(spec: UserSpec) -> DesiredAccount {
        DesiredAccount {
            id: ResourceId::new(Kind::User, "deploy"),
            spec: AccountSpec::User(Box::new(spec)),
            report: false,
            on_removal: OnRemoval::Restore,
        }
    }

    fn state() -> UserState {
        UserState {
            uid: 4001,
            group: "deploy".to_owned(),
            groups: BTreeSet::new(),
            shell: "/bin/sh".to_owned(),
            home: "/home/deploy".to_owned(),
            locked: Some(false),
            keys: None,
        }
    }

    fn observed(found: ObservedAccount) -> Observed {
        Observed::from([("user:deploy".to_owned(), Ok(found))])
    }

    fn owned(desired: &DesiredAccount, original: Original) -> Owned<Original> {
        Owned {
            id: desired.id.clone(),
            key: desired.key().into(),
            original,
            on_removal: desired.on_removal,
            applied: applied(desired),
        }
    }

    /// What becomes of a user when the change of the plan's only step is made.
    fn after(mut state: UserState, steps: &[AccountStep]) -> UserState {
        let [Step::Change(planned)] = steps else {
            panic!("{steps:?}");
        };
        let Edit::ChangeUser(edit) = planned.change.edit.clone() else {
            panic!("{planned:?}");
        };
        state.group = edit.group.unwrap_or(state.group);
        state.groups = edit.groups.unwrap_or(state.groups);
        state.shell = edit.shell.unwrap_or(state.shell);
        state.home = edit.home.unwrap_or(state.home);
        state.locked = edit.locked.or(state.locked);
        state.keys = edit.keys.unwrap_or(state.keys);
        state
    }

    #[test]
    fn only_what_is_declared_and_differs_is_changed_and_taken_back_key_by_key() {
        let whole = user(UserSpec {
            groups: Some(BTreeSet::from(["adm".to_owned()])),
            shell: Some("/bin/bash".to_owned()),
            keys: Some("ssh-ed25519 A\n".to_owned()),
            ..UserSpec::default()
        });
        let before = state();
        let original = Original::User(before.clone());
        let plan = |desired: &[DesiredAccount], state: &UserState, owned: &[Owned<Original>]| {
            Accounts::plan(
                desired,
                &observed(ObservedAccount::User(state.clone())),
                owned,
            )
        };
        let applied_state = after(
            before.clone(),
            &plan(std::slice::from_ref(&whole), &before, &[]),
        );
        assert_eq!(applied_state.shell, "/bin/bash");
        assert_eq!(applied_state.keys.as_deref(), Some("ssh-ed25519 A\n"));
        let ours = [owned(&whole, original.clone())];
        let desired = std::slice::from_ref(&whole);
        assert!(plan(desired, &applied_state, &ours).is_empty(), "idle");

        // One key less is declared: only that is taken back, and only while it is as we left it.
        let less = user(UserSpec {
            groups: Some(BTreeSet::from(["adm".to_owned()])),
            ..UserSpec::default()
        });
        let mut theirs = applied_state.clone();
        let back = after(
            applied_state.clone(),
            &plan(std::slice::from_ref(&less), &applied_state, &ours),
        );
        assert_eq!((back.shell.as_str(), back.keys), ("/bin/sh", None));
        theirs.shell = "/bin/zsh".to_owned();
        let back = after(
            theirs.clone(),
            &plan(std::slice::from_ref(&less), &theirs, &ours),
        );
        assert_eq!(back.shell, "/bin/zsh");

        // None is: all of it is as before.
        assert_eq!(
            after(applied_state.clone(), &plan(&[], &applied_state, &ours)),
            before
        );
    }

    #[test]
    fn a_user_that_limpet_made_is_locked_and_loses_what_it_gave() {
        let made = user(UserSpec {
            groups: Some(BTreeSet::from(["adm".to_owned()])),
            keys: Some("ssh-ed25519 A\n".to_owned()),
            ..UserSpec::default()
        });
        let now = UserState {
            groups: BTreeSet::from(["adm".to_owned(), "by-hand".to_owned()]),
            keys: Some("ssh-ed25519 A\n".to_owned()),
            ..state()
        };
        let ours = [owned(&made, Original::Absent)];
        let seen = observed(ObservedAccount::User(now.clone()));
        let left = after(now.clone(), &Accounts::plan(&[], &seen, &ours));
        assert_eq!(left.locked, Some(true));
        assert_eq!(left.groups, BTreeSet::from(["by-hand".to_owned()]));
        assert_eq!(left.keys, None);
        let seen = observed(ObservedAccount::User(left.clone()));
        assert!(matches!(
            Accounts::plan(&[], &seen, &ours)[..],
            [Step::Release { .. }]
        ));
        // Declared again, it may log in again.
        let again = after(left, &Accounts::plan(&[made], &seen, &[]));
        assert_eq!(again.locked, Some(false));
    }

    #[test]
    fn a_number_is_never_changed() {
        let other = user(UserSpec {
            uid: Some(1),
            ..UserSpec::default()
        });
        let seen = observed(ObservedAccount::User(state()));
        let steps = Accounts::plan(&[other], &seen, &[]);
        let [Step::Blocked(failure)] = &steps[..] else {
            panic!("{steps:?}");
        };
        insta::assert_snapshot!(failure.to_string(), @"refused to change user:deploy: its uid is 4001, not 1, and its files belong to that number");
    }
}
