//! Users and groups.

use std::collections::BTreeSet;

use super::file::none_or;
use super::{Resolved, Resolver};
use crate::document::{Mistake, Place, Table};
use crate::fleet::declared::{self, State};
use crate::kinds::account::{AccountSpec, DesiredAccount, MAX_KEYS_BYTES, UserSpec};
use crate::model::{Kind, ResourceId};

/// Accounts that a host cannot do without: they may have keys and a shell, and are neither deleted nor locked.
const PROTECTED: [&str; 3] = ["root", "limpet", "messagebus"];

impl Resolver<'_, '_> {
    pub(super) fn group(
        &self,
        id: &ResourceId,
        table: &Table,
        place: &Place,
        out: &mut Resolved,
    ) -> Result<(), Vec<Mistake>> {
        let what = id.to_string();
        let group: declared::Group = declared::read(table, place, &what)?;
        let mut mistakes = Vec::new();
        let spec = match group.state {
            Some(State::Absent) => {
                mistakes.extend(protected(id, "deleted", &table.place_of("state", place)));
                AccountSpec::Absent
            }
            None => AccountSpec::Group {
                gid: group.gid,
                system: group.system.unwrap_or(false),
            },
        };
        out.account = Some(DesiredAccount {
            id: id.clone(),
            spec,
            report: group.report.unwrap_or(false),
            on_removal: group.on_removal.unwrap_or_default(),
        });
        none_or(mistakes)
    }

    pub(super) fn user(
        &self,
        id: &ResourceId,
        table: &Table,
        place: &Place,
        out: &mut Resolved,
    ) -> Result<(), Vec<Mistake>> {
        let what = id.to_string();
        let user: declared::User = declared::read(table, place, &what)?;
        let mut mistakes = Vec::new();
        let (report, on_removal) = (user.report, user.on_removal);
        let spec = if user.state == Some(State::Absent) {
            mistakes.extend(protected(id, "deleted", &table.place_of("state", place)));
            AccountSpec::Absent
        } else {
            if user.locked == Some(true) {
                mistakes.extend(protected(id, "locked", &table.place_of("locked", place)));
            }
            let named = user.group.iter().map(|name| ("group", name));
            let named = named.chain(user.groups.iter().flatten().map(|name| ("groups", name)));
            for (key, name) in named {
                if !is_account_name(name) {
                    let place = table.place_of(key, place);
                    mistakes.push(
                        Mistake::new(&place, format!("'{name}' in `{key}` of {what} is no group"))
                            .hint("write a group's name: lower case letters, digits, '-' and '_'"),
                    );
                }
            }
            for (key, path) in [("shell", &user.shell), ("home", &user.home)] {
                let is_plain = |path: &String| {
                    path.starts_with('/')
                        && path != "/"
                        && !path.contains([':', '\n', ','])
                        && path
                            .split('/')
                            .skip(1)
                            .all(|name| !["", ".", ".."].contains(&name))
                };
                if let Some(path) = path.as_ref().filter(|path| !is_plain(path)) {
                    let place = table.place_of(key, place);
                    mistakes.push(
                        Mistake::new(&place, format!("'{path}' is no {key} of {what}"))
                            .hint("write an absolute path without '.', '..' and ':'"),
                    );
                }
            }
            let keys = self.keys(&what, &user, table, place, &mut mistakes, out);
            AccountSpec::User(Box::new(UserSpec {
                uid: user.uid,
                group: user.group,
                groups: user.groups.map(BTreeSet::from_iter),
                shell: user.shell,
                home: user.home,
                system: user.system.unwrap_or(false),
                locked: user.locked.unwrap_or(false),
                keys,
            }))
        };
        out.account = Some(DesiredAccount {
            id: id.clone(),
            spec,
            report: report.unwrap_or(false),
            on_removal: on_removal.unwrap_or_default(),
        });
        none_or(mistakes)
    }

    /// The text of all files that `authorized_keys` names, one after the other.
    fn keys(
        &self,
        what: &str,
        user: &declared::User,
        table: &Table,
        place: &Place,
        mistakes: &mut Vec<Mistake>,
        out: &mut Resolved,
    ) -> Option<String> {
        let place = table.place_of("authorized_keys", place);
        let mut text = String::new();
        for name in user.authorized_keys.as_ref()? {
            let file = self.text_of(what, name, &place, mistakes, &mut out.failures)?;
            for line in file.lines().map(str::trim) {
                if line.is_empty() || line.starts_with('#') || is_key_line(line) {
                    continue;
                }
                mistakes.push(
                    Mistake::new(&place, format!("'{name}' of {what} has a line that is no public key"))
                        .label(format!("it begins with '{}'", line.chars().take(20).collect::<String>()))
                        .hint("one key a line, as in a .pub file: ssh-ed25519 AAAA… (with options before it, if any)"),
                );
                return None;
            }
            text.push_str(&file);
            if !file.is_empty() && !file.ends_with('\n') {
                text.push('\n');
            }
        }
        if text.len() as u64 > MAX_KEYS_BYTES {
            mistakes.push(Mistake::new(
                &place,
                format!("the keys of {what} have more than {MAX_KEYS_BYTES} bytes"),
            ));
            return None;
        }
        Some(text)
    }
}

fn protected(id: &ResourceId, what: &str, place: &Place) -> Option<Mistake> {
    PROTECTED.contains(&id.name.as_str()).then(|| {
        Mistake::new(place, format!("{id} cannot be {what}: this host needs it"))
            .hint("leave it out")
    })
}

/// Does a word of the line say the type of a key; a private key's file has none.
fn is_key_line(line: &str) -> bool {
    line.split_whitespace().any(|word| {
        ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"]
            .iter()
            .any(|kind| word.starts_with(kind))
    })
}

/// What useradd(8) recommends for names; a number, or an option, is none.
pub(in crate::fleet) fn is_account_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
        && name.len() <= 32
        && bytes
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
}

/// What is wrong with a user's or group's name.
pub(in crate::fleet) fn check_account_name(
    kind: Kind,
    name: &str,
    place: &Place,
) -> Option<Mistake> {
    (!is_account_name(name)).then(|| {
        Mistake::new(place, format!("'{name}' is no name of a {kind}")).hint(
            "write lower case letters, digits, '-' and '_', a letter first, at most 32 of them",
        )
    })
}
