//! One look at the account databases: passwd(5), group(5), shadow(5), and the keys of the users that were asked about.

use std::collections::BTreeSet;

use crate::kinds::account::{
    DesiredAccount, MAX_KEYS_BYTES, Observed, ObservedAccount, Original, UserState,
};
use crate::kinds::kind::Owned;
use crate::model::{Class, Failure, Kind, ResourceId};
use crate::sys::Host;

/// Larger account files than this are not read, in bytes.
const LIMIT_BYTES: u64 = 16 << 20;

/// In shadow(5), the day that a locked account expired on: the second of January 1970, as usermod(8) advises.
pub(super) const LOCKED_DAY: &str = "1";

pub(super) fn observe(
    host: &Host,
    desired: &[DesiredAccount],
    owned: &[Owned<Original>],
) -> Observed {
    let declared = desired.iter().map(DesiredAccount::key);
    let keys: BTreeSet<String> = declared
        .chain(owned.iter().map(|owned| owned.key.to_string()))
        .collect();
    if keys.is_empty() {
        return Observed::new();
    }
    let read = Databases::read(host);
    keys.into_iter()
        .filter_map(|key| {
            let id: ResourceId = key.parse().ok()?;
            let found = match &read {
                Ok(databases) => databases.find(host, &id),
                Err(failure) => Err(failure.clone()),
            };
            Some((key, found.map_err(|failure| failure.about(id))))
        })
        .collect()
}

/// A line of passwd(5).
struct User<'a> {
    uid: u32,
    gid: u32,
    home: &'a str,
    shell: &'a str,
}

struct Databases {
    passwd: String,
    group: String,
    /// `None` where it cannot be read: who is not root does not know who is locked.
    shadow: Option<String>,
}

impl Databases {
    fn read(host: &Host) -> Result<Self, Failure> {
        let text = |path: &str| -> Result<String, Failure> {
            let bytes = host.read_file(path, LIMIT_BYTES)?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Databases {
            passwd: text("/etc/passwd")?,
            group: text("/etc/group")?,
            shadow: text("/etc/shadow").ok(),
        })
    }

    fn find(&self, host: &Host, id: &ResourceId) -> Result<ObservedAccount, Failure> {
        let name = id.name.as_str();
        if id.kind == Kind::Group {
            let Some(gid) = self.groups().find(|group| group.name == name) else {
                return self.absent(id, host.group_id(name)?);
            };
            let gid = gid.gid;
            let is_primary = self.users().any(|(_, user)| user.gid == gid);
            return Ok(ObservedAccount::Group { gid, is_primary });
        }
        let Some((_, user)) = self.users().find(|(known, _)| *known == name) else {
            return self.absent(id, host.user_id(name)?);
        };
        let own = self.groups().find(|group| group.gid == user.gid);
        let groups = self
            .groups()
            .filter(|group| group.members.split(',').any(|member| member == name))
            .map(|group| group.name.to_owned());
        Ok(ObservedAccount::User(UserState {
            uid: user.uid,
            group: own.map_or_else(|| user.gid.to_string(), |group| group.name.to_owned()),
            groups: groups.collect(),
            shell: user.shell.to_owned(),
            home: user.home.to_owned(),
            locked: self.shadow.as_deref().map(|shadow| is_locked(shadow, name)),
            keys: host.read_authorized_keys(user.home, user.uid, MAX_KEYS_BYTES)?,
        }))
    }

    /// It is in no file: absent, unless a directory service has it.
    fn absent(&self, id: &ResourceId, number: Option<u32>) -> Result<ObservedAccount, Failure> {
        match number {
            // A name that is a number is its own answer.
            Some(_) if id.name.parse::<u32>().is_err() => Err(Failure::new(
                Class::Host,
                format!("refused {id}: it is not in this host's files, a directory service has it"),
            )
            .with_hint("manage it there, or give it another name")),
            _ => Ok(ObservedAccount::Absent),
        }
    }

    fn users(&self) -> impl Iterator<Item = (&str, User<'_>)> {
        self.passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, shell] = fields[..] else {
                return None;
            };
            Some((
                name,
                User {
                    uid: uid.parse().ok()?,
                    gid: gid.parse().ok()?,
                    home,
                    shell,
                },
            ))
        })
    }

    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.group.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, gid, members] = fields[..] else {
                return None;
            };
            let gid = gid.parse().ok()?;
            Some(Group { name, gid, members })
        })
    }
}

/// A line of group(5).
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Did the account expire on the day that says it is locked.
fn is_locked(shadow: &str, name: &str) -> bool {
    let mut lines = shadow.lines().map(|line| line.split(':'));
    let expiry =
        lines.find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.nth(6))?);
    expiry == Some(LOCKED_DAY)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn accounts_are_read_from_the_host_s_files() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        #[allow(clippy::disallowed_methods, reason = "the test makes the machine")]
        let put = |name: &str, text: &str| {
            std::fs::create_dir_all(root.path().join("etc")).unwrap();
            std::fs::write(root.path().join("etc").join(name), text).unwrap();
        };
        put(
            "passwd",
            "root:x:0:0:root:/root:/bin/bash\ndeploy:x:4001:4000::/home/deploy:/bin/sh\nbroken\n",
        );
        put(
            "group",
            "root:x:0:\nops:x:4000:\nadm:x:4:syslog,deploy\nidle:x:7:\n",
        );
        put("shadow", "deploy:!:19000:0:99999:7::1:\n");
        let databases = Databases::read(&host).unwrap();
        let find = |id: &str| databases.find(&host, &id.parse().unwrap()).unwrap();
        assert_eq!(
            find("user:deploy"),
            ObservedAccount::User(UserState {
                uid: 4001,
                group: "ops".to_owned(),
                groups: BTreeSet::from(["adm".to_owned()]),
                shell: "/bin/sh".to_owned(),
                home: "/home/deploy".to_owned(),
                locked: Some(true),
                keys: None,
            })
        );
        let group = |gid, is_primary| ObservedAccount::Group { gid, is_primary };
        assert_eq!(find("group:ops"), group(4000, true));
        assert_eq!(find("group:idle"), group(7, false));
        assert_eq!(find("user:nobody"), ObservedAccount::Absent);
        let known: BTreeMap<_, _> = databases
            .users()
            .map(|(name, user)| (name, user.uid))
            .collect();
        assert_eq!(known, BTreeMap::from([("root", 0), ("deploy", 4001)]));
    }
}
