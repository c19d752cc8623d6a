//! Ways to paths: root's own, and one with the rights of each user whose directories something lies in.

use std::collections::BTreeMap;

use crate::kinds::file::making::unknown_account;
use crate::model::{Failure, Name};
use crate::sys::Host;
use crate::sys::files::Walk;
use crate::sys::write::Batch;

/// Walks that are begun when they are asked for.
#[derive(Debug)]
pub struct Walks<'a> {
    host: &'a Host,
    root: Option<Walk>,
    users: BTreeMap<Name, Option<Walk>>,
}

impl<'a> Walks<'a> {
    /// None is begun yet.
    pub fn new(host: &'a Host) -> Self {
        Walks {
            host,
            root: None,
            users: BTreeMap::new(),
        }
    }

    /// The walk to what is declared `as_user`, where it is; `None` where there is no such user.
    pub fn find(&mut self, as_user: Option<&Name>) -> Result<Option<&mut Walk>, Failure> {
        let Some(name) = as_user else {
            return Ok(Some(match &mut self.root {
                Some(walk) => walk,
                none => none.insert(self.host.walk()?),
            }));
        };
        if !self.users.contains_key(name) {
            let rights = self.host.rights_of(name)?;
            let walk = rights.map(|rights| self.host.walk_as(rights)).transpose()?;
            self.users.insert(name.clone(), walk);
        }
        Ok(self.users.get_mut(name).and_then(Option::as_mut))
    }

    /// The same, where there has to be one.
    pub fn of(&mut self, as_user: Option<&Name>) -> Result<&mut Walk, Failure> {
        let name = as_user.map_or("root", Name::as_str);
        self.find(as_user)?
            .ok_or_else(|| unknown_account("user", name))
    }
}

/// Batches that become durable together.
pub(super) struct Batches<'a> {
    host: &'a Host,
    root: Batch,
    users: BTreeMap<Name, Batch>,
}

impl<'a> Batches<'a> {
    pub(super) fn new(host: &'a Host) -> Result<Self, Failure> {
        Ok(Batches {
            host,
            root: host.batch()?,
            users: BTreeMap::new(),
        })
    }

    pub(super) fn of(&mut self, as_user: Option<&Name>) -> Result<&mut Batch, Failure> {
        let Some(name) = as_user else {
            return Ok(&mut self.root);
        };
        if !self.users.contains_key(name) {
            let rights = self.host.rights_of(name)?;
            let rights = rights.ok_or_else(|| unknown_account("user", name))?;
            self.users.insert(name.clone(), self.host.batch_as(rights)?);
        }
        Ok(self.users.get_mut(name).expect("it was just put there"))
    }

    pub(super) fn sync(&mut self) -> Result<(), Failure> {
        let users = self.users.values_mut();
        std::iter::once(&mut self.root)
            .chain(users)
            .try_for_each(Batch::sync)
    }
}
