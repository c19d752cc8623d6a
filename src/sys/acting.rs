//! Acting with the rights of a user, where that user could redirect what root does.
//!
//! A thread that *acts as* a user has that user's number and groups where files are concerned (setfsuid(2)), and no capability: the
//! kernel refuses what the user himself could not do, wherever his links lead. Its other numbers stay root's, so that the user can
//! neither signal nor trace it, and so that no file system of his own making (FUSE) can keep it waiting.
//!
//! Invariant: nobody is acted as longer than one look or change takes, and no thread is begun meanwhile: it would have the same rights. A thread that does not become root again ends the process.

use std::marker::PhantomData;

use nix::unistd::{Gid, Uid, User, geteuid, getgroups, setfsgid, setfsuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_groups,
};

use crate::model::{Class, Failure};
use crate::sys::Host;
use crate::sys::accounts::{self, Listed};

/// Whose rights are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// The user's name, for messages.
    name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The first group is the user's alone: it has the same name, as that which useradd(8) makes.
    pub(super) has_own_group: bool,
    /// The other groups that /etc/group lists the user in.
    groups: Vec<u32>,
}

impl Host {
    /// The rights of the user called `name`; `None` when there is no such user.
    pub fn rights_of(&self, name: &str) -> Result<Option<Rights>, Failure> {
        let listed = match self.listed_user(name)? {
            None if self.is_running_system() => {
                // Accounts of a directory service are in no file.
                let found = User::from_name(name)
                    .map_err(|errno| accounts::lookup_failure("user", name, errno))?;
                found.map(|user| Listed {
                    uid: user.uid.as_raw(),
                    gid: user.gid.as_raw(),
                })
            }
            listed => listed,
        };
        let Some(Listed { uid, gid }) = listed else {
            return Ok(None);
        };
        if uid == 0 || uid == u32::MAX || gid == u32::MAX {
            return Err(Failure::new(
                Class::Author,
                format!("refused to act as user '{name}': its number is {uid}"),
            )
            .with_hint("what root writes needs no `as_user`"));
        }
        Ok(Some(Rights {
            name: name.to_owned(),
            uid,
            gid,
            has_own_group: self.group_id(name)? == Some(gid),
            groups: self.listed_groups_of(name)?,
        }))
    }
}

impl Rights {
    /// Acts as the user until what is returned is dropped.
    pub(super) fn take(&self) -> Result<Acting, Failure> {
        let failed = |cause: &dyn std::fmt::Display| {
            Failure::new(
                Class::Host,
                format!("failed to act as user '{}': {cause}", self.name),
            )
            .with_hint("only root can, with CAP_SETUID and CAP_SETGID")
        };
        if geteuid().as_raw() == self.uid {
            return Ok(Acting::default());
        }
        let sets = capabilities(None).map_err(|error| failed(&error))?;
        let groups = getgroups().map_err(|errno| failed(&errno.desc()))?;
        let groups = groups.into_iter().map(|group| group.as_raw()).collect();
        let wanted: Vec<_> = self.groups.iter().copied().map(group).collect();
        set_thread_groups(&wanted).map_err(|error| failed(&error))?;
        // From here on, dropping it makes the thread root's again.
        let acting = Acting {
            before: Some((sets, groups)),
            thread: PhantomData,
        };
        setfsgid(Gid::from_raw(self.gid));
        setfsuid(Uid::from_raw(self.uid));
        let without = CapabilitySets {
            effective: CapabilitySet::empty(),
            ..sets
        };
        set_capabilities(None, without).map_err(|error| failed(&error))?;
        // These two tell nothing of their success but the number before, and change nothing when they are given none.
        if file_system_ids() != (self.uid, self.gid) {
            return Err(failed(&"the kernel refuses it"));
        }
        Ok(acting)
    }
}

/// A thread acts as a user while this lives.
#[derive(Debug, Default)]
#[must_use = "nobody is acted as any more once it is dropped"]
pub(super) struct Acting {
    /// Capabilities and groups.
    before: Option<(CapabilitySets, Vec<u32>)>,
    /// It is one thread's, and goes to no other.
    thread: PhantomData<*const ()>,
}

impl Drop for Acting {
    fn drop(&mut self) {
        let Some((sets, groups)) = &self.before else {
            return;
        };
        // Capabilities first: the others need them.
        let restored = set_capabilities(None, *sets).is_ok();
        let groups: Vec<_> = groups.iter().copied().map(group).collect();
        let restored = restored && set_thread_groups(&groups).is_ok();
        let (uid, gid) = (geteuid(), nix::unistd::getegid());
        setfsgid(gid);
        setfsuid(uid);
        // What else this thread did would be done with the wrong rights.
        if !restored || file_system_ids() != (uid.as_raw(), gid.as_raw()) {
            tracing::error!("failed to become root again after acting as a user");
            std::process::abort();
        }
    }
}

fn file_system_ids() -> (u32, u32) {
    let uid = setfsuid(Uid::from_raw(u32::MAX)).as_raw();
    (uid, setfsgid(Gid::from_raw(u32::MAX)).as_raw())
}

fn group(number: u32) -> rustix::fs::Gid {
    rustix::fs::Gid::from_raw(number)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags};

    use super::*;

    #[test]
    fn whoever_acts_as_a_user_has_no_other_rights_and_gets_its_own_back() {
        if !geteuid().is_root() {
            // Then nobody else can be acted as, which is said.
            let rights = rights(12_345);
            assert!(rights.take().is_err());
            return;
        }
        // Readable for root alone.
        let secret = || rustix::fs::open("/etc/shadow", OFlags::RDONLY, Mode::empty());
        let before = (capabilities(None).unwrap(), getgroups().unwrap());
        let (ask, asked) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            asked.recv().unwrap();
            secret().is_ok()
        });
        {
            let _acting = rights(12_345).take().unwrap();
            assert_eq!(secret().unwrap_err(), rustix::io::Errno::ACCESS);
            assert!(capabilities(None).unwrap().effective.is_empty());
            assert_eq!(getgroups().unwrap(), [Gid::from_raw(12_347)]);
            // Of the process' other threads nothing is changed.
            ask.send(()).unwrap();
            assert!(other.join().unwrap());
        }
        assert_eq!((capabilities(None).unwrap(), getgroups().unwrap()), before);
        assert!(secret().is_ok());
    }

    fn rights(uid: u32) -> Rights {
        Rights {
            name: "somebody".to_owned(),
            uid,
            gid: uid + 1,
            has_own_group: false,
            groups: vec![uid + 2],
        }
    }
}
