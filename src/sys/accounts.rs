//! Users and groups by name.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use nix::sys::stat::stat;
use nix::unistd::{Group, User};
use rustix::fs::{Mode as FileMode, OFlags, ResolveFlags, openat2};

use crate::model::{Class, Failure};
use crate::sys::Host;

/// Larger account files than this are not read; a host with so many accounts has a directory service.
const LIMIT_BYTES: u64 = 16 << 20;

impl Host {
    /// The number of the user called `name` (a name or a number); `None` when there is none.
    ///
    /// In an alternate root that an ordinary user owns, its owner stands for root.
    pub fn user_id(&self, name: &str) -> Result<Option<u32>, Failure> {
        if name == "root" || name == "0" {
            return Ok(Some(self.root_account()?.0));
        }
        if let Ok(number) = name.parse() {
            return Ok(Some(number));
        }
        if let Some(number) = self.listed("/etc/passwd", name)? {
            return Ok(Some(number));
        }
        if !self.is_running_system() {
            return Ok(None);
        }
        // Accounts of a directory service are in no file.
        User::from_name(name)
            .map(|user| user.map(|user| user.uid.as_raw()))
            .map_err(|errno| lookup_failure("user", name, errno))
    }

    /// The number of the group called `name` (a name or a number); `None` when there is none.
    pub fn group_id(&self, name: &str) -> Result<Option<u32>, Failure> {
        if name == "root" || name == "0" {
            return Ok(Some(self.root_account()?.1));
        }
        if let Ok(number) = name.parse() {
            return Ok(Some(number));
        }
        if let Some(number) = self.listed("/etc/group", name)? {
            return Ok(Some(number));
        }
        if !self.is_running_system() {
            return Ok(None);
        }
        Group::from_name(name)
            .map(|group| group.map(|group| group.gid.as_raw()))
            .map_err(|errno| lookup_failure("group", name, errno))
    }

    /// The home directory of the user `name`, as passwd(5) has it; `None` where it names none that is there.
    pub fn home_of(&self, name: &str) -> Result<Option<String>, Failure> {
        let bytes = self
            .read_file("/etc/passwd", LIMIT_BYTES)?
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let line = text
            .lines()
            .find(|line| line.split(':').next() == Some(name));
        let home = line.and_then(|line| line.split(':').nth(5));
        let home = home.filter(|home| home.starts_with('/') && *home != "/");
        Ok(home
            .filter(|home| self.open_home(home).is_some())
            .map(str::to_owned))
    }

    /// The `authorized_keys` of the user `uid` in the directory `home`; `None` when there are none. They are only looked at: a file that is
    /// not the user's own, is not plain, or lies behind a link in there counts as none.
    pub fn read_authorized_keys(
        &self,
        home: &str,
        uid: u32,
        limit: u64,
    ) -> Result<Option<String>, Failure> {
        let Some(directory) = self.open_home(home) else {
            return Ok(None);
        };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let no_links = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let path = ".ssh/authorized_keys";
        let Ok(file) = openat2(&directory, path, flags, FileMode::empty(), no_links) else {
            return Ok(None);
        };
        let file = std::fs::File::from(file);
        let shown = format!("{home}/{path}");
        let failed = |error: &std::io::Error| super::files::read_failure(&shown, error);
        let found = file.metadata().map_err(|error| failed(&error))?;
        if !found.is_file() || found.uid() != uid || found.len() > limit {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(|error| failed(&error))?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn open_home(&self, home: &str) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(self.root(), flags, FileMode::empty()).ok()?;
        // Links on the way are those of the root directory's owner, and none leaves it.
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&root, home, flags, FileMode::empty(), inside).ok()
    }

    /// The user and group that stand for root.
    pub fn root_account(&self) -> Result<(u32, u32), Failure> {
        if self.is_running_system() {
            return Ok((0, 0));
        }
        let found = stat(self.root()).map_err(|errno| {
            super::files::io_failure(
                "look at root directory",
                &self.root().to_string_lossy(),
                errno,
            )
        })?;
        Ok(if found.st_uid == 0 {
            (0, 0)
        } else {
            (found.st_uid, found.st_gid)
        })
    }

    /// The numbers of the user that /etc/passwd calls `name`.
    pub(super) fn listed_user(&self, name: &str) -> Result<Option<Listed>, Failure> {
        let bytes = self
            .read_file("/etc/passwd", LIMIT_BYTES)?
            .unwrap_or_default();
        Ok(parse_user(&String::from_utf8_lossy(&bytes), name))
    }

    /// The numbers of the groups that /etc/group lists the user `name` in.
    pub(super) fn listed_groups_of(&self, name: &str) -> Result<Vec<u32>, Failure> {
        let bytes = self
            .read_file("/etc/group", LIMIT_BYTES)?
            .unwrap_or_default();
        Ok(parse_memberships(&String::from_utf8_lossy(&bytes), name))
    }

    fn listed(&self, file: &str, name: &str) -> Result<Option<u32>, Failure> {
        let bytes = self.read_file(file, LIMIT_BYTES)?.unwrap_or_default();
        Ok(parse_account(&String::from_utf8_lossy(&bytes), name))
    }
}

/// The third field of the line whose first is `name`, in the format of passwd(5) and group(5).
fn parse_account(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// A user's number, and that of his first group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

fn parse_user(text: &str, name: &str) -> Option<Listed> {
    let line = text
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2).map(|field| field.parse().ok());
    Some(Listed {
        uid: numbers.next()??,
        gid: numbers.next()??,
    })
}

fn parse_memberships(text: &str, name: &str) -> Vec<u32> {
    let is_member = |members: &str| members.split(',').any(|member| member == name);
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':').skip(2);
            let number = fields.next()?.parse().ok()?;
            (number != u32::MAX && is_member(fields.next()?)).then_some(number)
        })
        .collect()
}

pub(super) fn lookup_failure(what: &str, name: &str, errno: nix::errno::Errno) -> Failure {
    Failure::new(
        Class::Transient,
        format!("failed to look up {what} '{name}': {}", errno.desc()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_their_whole_name() {
        let text = "root:x:0:0:root:/root:/bin/bash\n\ngarbage\n_chrony:x:105:112::/:/bin/false\nbad:x:many:1\n";
        let check = |name: &str, expected: Option<u32>| {
            assert_eq!(parse_account(text, name), expected, "{name}")
        };
        check("root", Some(0));
        check("_chrony", Some(105));
        check("chrony", None);
        check("bad", None);
        check("garbage", None);
        check("", None);
    }

    #[test]
    fn a_user_has_the_groups_that_list_him() {
        let text =
            "adm:x:4:syslog,ops\nops:x:4000:\nopsies:x:5:opsy\nwheel:x:10:ops\nbad:x:many:ops\n";
        assert_eq!(parse_memberships(text, "ops"), [4, 10]);
        assert!(parse_memberships(text, "nobody").is_empty());
        let passwd = "ops:x:4001:4000:Ops:/home/ops:/bin/sh\nbad:x:1:\n";
        let ops = Listed {
            uid: 4001,
            gid: 4000,
        };
        assert_eq!(parse_user(passwd, "ops"), Some(ops));
        assert_eq!(parse_user(passwd, "bad"), None);
    }
}
