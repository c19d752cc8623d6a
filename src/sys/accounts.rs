//! Users and groups by name.

use nix::sys::stat::stat;
use nix::unistd::{Group, User};

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

fn lookup_failure(what: &str, name: &str, errno: nix::errno::Errno) -> Failure {
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
}
