//! What is declared, by what it owns, and what the inventory says of it once it is applied.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;

use crate::fleet::DesiredState;
use crate::kinds;
use crate::kinds::account::DesiredAccount;
use crate::kinds::command::DesiredCommand;
use crate::kinds::file::{
    Applied, ByPath, DesiredPath, Original, PathSpec, Remembered, applied_after,
};
use crate::kinds::kind::Owned;
use crate::kinds::package::DesiredPackage;
use crate::kinds::sysctl::DesiredSysctl;
use crate::kinds::unit::DesiredUnit;
use crate::model::{Name, OnRemoval, ResourceId};
use crate::plan::{Inventory, InventoryKind};
use crate::sys::files::above;

/// Everything declared, and the inventory beside it; what is said of one thing is worked out when it is asked for.
#[derive(Debug)]
pub struct Declarations<'a> {
    desired: &'a DesiredState,
    inventory: &'a Inventory,
    // Made when they are asked for: a plan without steps never does.
    paths: OnceCell<ByPath<&'a str, &'a DesiredPath>>,
    packages: OnceCell<BTreeMap<&'a str, &'a DesiredPackage>>,
    commands: OnceCell<BTreeMap<&'a str, &'a DesiredCommand>>,
    units: OnceCell<BTreeMap<&'a str, &'a DesiredUnit>>,
    owned_paths: OnceCell<ByPath<&'a str, &'a Owned<Original, Remembered>>>,
}

/// What the inventory says of a declared resource once it is applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration<'a> {
    /// What declares it.
    pub id: &'a ResourceId,
    /// What happens when it is no longer declared.
    pub on_removal: OnRemoval,
    /// The managed keys: JSON in the kind's words.
    pub applied: String,
    /// Its removal waits for a person.
    pub prevent_removal: bool,
    /// What it needs.
    pub needs: &'a [ResourceId],
}

impl<'a> Declarations<'a> {
    /// Everything that `desired` declares on a host of which `inventory` is known.
    pub fn new(desired: &'a DesiredState, inventory: &'a Inventory) -> Self {
        Declarations {
            desired,
            inventory,
            paths: OnceCell::new(),
            packages: OnceCell::new(),
            commands: OnceCell::new(),
            units: OnceCell::new(),
            owned_paths: OnceCell::new(),
        }
    }

    fn paths(&self) -> &ByPath<&'a str, &'a DesiredPath> {
        self.paths.get_or_init(|| {
            let paths = self.desired.paths.iter();
            paths.map(|path| (path.path.as_str(), path)).collect()
        })
    }

    fn packages(&self) -> &BTreeMap<&'a str, &'a DesiredPackage> {
        self.packages.get_or_init(|| {
            let packages = self.desired.packages.iter();
            packages
                .map(|package| (package.name.as_str(), package))
                .collect()
        })
    }

    /// There are few.
    fn account(&self, key: &str) -> Option<&'a DesiredAccount> {
        let mut accounts = self.desired.accounts.iter();
        accounts.find(|account| account.key() == key)
    }

    /// So are these.
    fn sysctl(&self, key: &str) -> Option<&'a DesiredSysctl> {
        let mut sysctls = self.desired.sysctls.iter();
        sysctls.find(|sysctl| sysctl.id.name == *key)
    }

    /// Those that are remembered: what runs when something changed, leaves nothing.
    fn commands(&self) -> &BTreeMap<&'a str, &'a DesiredCommand> {
        self.commands.get_or_init(|| {
            let commands = self.desired.commands.iter();
            commands
                .filter(|command| command.once)
                .map(|command| (command.name.as_str(), command))
                .collect()
        })
    }

    fn units(&self) -> &BTreeMap<&'a str, &'a DesiredUnit> {
        self.units.get_or_init(|| {
            let units = self.desired.units.iter();
            units.map(|unit| (unit.name.as_str(), unit)).collect()
        })
    }

    fn owned_paths(&self) -> &ByPath<&'a str, &'a Owned<Original, Remembered>> {
        self.owned_paths.get_or_init(|| {
            let owned = self.inventory.paths.iter();
            owned.map(|owned| (owned.key.as_str(), owned)).collect()
        })
    }

    /// What declares `key`, and what happens when it no longer does.
    pub fn declared_by(
        &self,
        kind: InventoryKind,
        key: &str,
    ) -> Option<(&'a ResourceId, OnRemoval)> {
        match kind {
            InventoryKind::Path => self
                .paths()
                .get(key)
                .map(|path| (&path.id, path.on_removal)),
            InventoryKind::Package => {
                let package = self.packages().get(key)?;
                Some((&package.id, package.on_removal))
            }
            InventoryKind::Account => {
                let account = self.account(key)?;
                Some((&account.id, account.on_removal))
            }
            InventoryKind::Sysctl => {
                let sysctl = self.sysctl(key)?;
                Some((&sysctl.id, sysctl.on_removal))
            }
            InventoryKind::Command => {
                let command = self.commands().get(key)?;
                Some((&command.id, OnRemoval::Keep))
            }
            InventoryKind::Unit => self
                .units()
                .get(key)
                .map(|unit| (&unit.id, unit.on_removal)),
        }
    }

    /// What the inventory says of `key` once it is applied, if it is declared.
    pub fn get(&self, kind: InventoryKind, key: &str) -> Option<Declaration<'a>> {
        let (id, on_removal) = self.declared_by(kind, key)?;
        let applied = match kind {
            InventoryKind::Path => {
                let before = self.owned_paths().get(key).copied();
                applied_after(self.paths().get(key)?, before).to_text()
            }
            InventoryKind::Package => {
                kinds::package::applied(self.packages().get(key)?).to_string()
            }
            InventoryKind::Account => kinds::account::applied(self.account(key)?).to_string(),
            InventoryKind::Sysctl => kinds::sysctl::applied(self.sysctl(key)?).to_string(),
            InventoryKind::Command => {
                kinds::command::applied(self.commands().get(key)?).to_string()
            }
            InventoryKind::Unit => kinds::unit::applied(self.units().get(key)?).to_string(),
        };
        Some(Declaration {
            id,
            on_removal,
            applied,
            prevent_removal: self.prevents_removal(id),
            needs: self.needs(id),
        })
    }

    /// Does the removal of `id` wait for a person.
    pub fn prevents_removal(&self, id: &ResourceId) -> bool {
        self.desired.prevented.contains(id)
    }

    /// Is what is declared at `path` a secret.
    pub fn is_secret(&self, path: &str) -> bool {
        let declared = self.paths().get(path);
        declared.is_some_and(|declared| declared.sealed().is_some())
    }

    /// Whose rights `path` is written with, where not root's.
    pub fn as_user(&self, path: &str) -> Option<&'a Name> {
        self.paths().get(path)?.as_user.as_ref()
    }

    /// What `id` explicitly needs.
    pub fn needs(&self, id: &ResourceId) -> &'a [ResourceId] {
        self.desired.needs.get(id).map_or(&[], Vec::as_slice)
    }

    /// The units whose restarts wait for a person.
    pub fn units_with_manual_restart(&self) -> Vec<&'a str> {
        let units = self.desired.units.iter();
        units
            .filter(|unit| unit.manual)
            .map(|unit| unit.name.as_str())
            .collect()
    }

    /// The commands that run when `id` changed.
    pub fn commands_run_on(&self, id: &ResourceId) -> Vec<&'a ResourceId> {
        let commands = self.desired.commands.iter();
        commands
            .filter(|command| !command.report && command.run_on.contains(id))
            .map(|command| &command.id)
            .collect()
    }

    /// Does the inventory know `key`.
    pub fn is_owned(&self, kind: InventoryKind, key: &str) -> bool {
        match kind {
            InventoryKind::Path => self.owned_paths().contains(key),
            InventoryKind::Package => find(&self.inventory.packages, key).is_some(),
            InventoryKind::Account => find(&self.inventory.accounts, key).is_some(),
            InventoryKind::Sysctl => find(&self.inventory.sysctls, key).is_some(),
            InventoryKind::Command => find(&self.inventory.commands, key).is_some(),
            InventoryKind::Unit => find(&self.inventory.units, key).is_some(),
        }
    }

    /// Is `key` declared exactly as it was applied last: what differs there is drift.
    pub fn is_as_applied(&self, kind: InventoryKind, key: &str) -> bool {
        self.says_the_same(kind, key) && !self.inventory.unmade.contains(&(kind, key.to_owned()))
    }

    /// Does the inventory say of `key` all that it will once it is applied.
    pub fn is_settled(&self, kind: InventoryKind, key: &str) -> bool {
        let recorded = match kind {
            InventoryKind::Path => self.owned_paths().get(key).map(|item| recorded(item)),
            InventoryKind::Package => find(&self.inventory.packages, key).map(recorded),
            InventoryKind::Account => find(&self.inventory.accounts, key).map(recorded),
            InventoryKind::Sysctl => find(&self.inventory.sysctls, key).map(recorded),
            InventoryKind::Command => find(&self.inventory.commands, key).map(recorded),
            InventoryKind::Unit => find(&self.inventory.units, key).map(recorded),
        };
        recorded.is_some()
            && recorded == self.declared_by(kind, key)
            && recorded.is_some_and(|(id, _)| self.will_go_the_same(kind, key, id))
            && self.is_as_applied(kind, key)
    }

    /// Does the inventory know what a removal of `key` has to respect.
    fn will_go_the_same(&self, kind: InventoryKind, key: &str, id: &ResourceId) -> bool {
        let Inventory {
            prevented, needs, ..
        } = self.inventory;
        if prevented.is_empty() && needs.is_empty() {
            return !self.prevents_removal(id) && self.needs(id).is_empty();
        }
        let owned = (kind, key.to_owned());
        prevented.contains(&owned) == self.prevents_removal(id)
            && needs.get(&owned).map_or(&[][..], Vec::as_slice) == self.needs(id)
    }

    /// Was what is purged at `key` found in a directory that was purged before: then it came since.
    fn was_purged_before(&self, key: &str) -> bool {
        let declared = self.paths().get(key);
        declared.is_some_and(|path| path.spec == PathSpec::Purged)
            && above(key).any(|above| {
                let owned = self.owned_paths().get(above);
                owned
                    .and_then(|owned| owned.applied.applied())
                    .is_some_and(|applied| {
                        matches!(applied, Applied::Directory { purge: true, .. })
                    })
            })
    }

    fn says_the_same(&self, kind: InventoryKind, key: &str) -> bool {
        let same = match kind {
            InventoryKind::Path if !self.owned_paths().contains(key) => {
                Some(self.was_purged_before(key))
            }
            InventoryKind::Path => self.owned_paths().get(key).and_then(|owned| {
                let declared = applied_after(self.paths().get(key)?, Some(owned));
                Some(owned.applied.applied() == Some(&declared))
            }),
            InventoryKind::Package => find(&self.inventory.packages, key).and_then(|owned| {
                Some(owned.applied == kinds::package::applied(self.packages().get(key)?))
            }),
            InventoryKind::Account => find(&self.inventory.accounts, key).and_then(|owned| {
                Some(owned.applied == kinds::account::applied(self.account(key)?))
            }),
            InventoryKind::Sysctl => find(&self.inventory.sysctls, key)
                .and_then(|owned| Some(owned.applied == kinds::sysctl::applied(self.sysctl(key)?))),
            // One that failed is no drift.
            InventoryKind::Command => None,
            InventoryKind::Unit => find(&self.inventory.units, key).and_then(|owned| {
                Some(owned.applied == kinds::unit::applied(self.units().get(key)?))
            }),
        };
        same.unwrap_or(false)
    }

    /// The keys of everything declared that may be as declared already; a command is only remembered when it was run.
    pub fn keys(&self) -> impl Iterator<Item = (InventoryKind, Cow<'a, str>)> + use<'_, 'a> {
        let paths = self
            .paths()
            .iter()
            .map(|(key, _)| (InventoryKind::Path, Cow::Borrowed(*key)));
        let packages = self
            .packages()
            .keys()
            .map(|key| (InventoryKind::Package, Cow::Borrowed(*key)));
        let units = self.units().keys();
        let units = units.map(|key| (InventoryKind::Unit, Cow::Borrowed(*key)));
        let sysctls = self.desired.sysctls.iter();
        let sysctls = sysctls.map(|sysctl| sysctl.id.name.as_str());
        let sysctls = sysctls.map(|key| (InventoryKind::Sysctl, Cow::Borrowed(key)));
        let accounts = self.desired.accounts.iter();
        let accounts = accounts.map(|account| (InventoryKind::Account, account.key().into()));
        paths
            .chain(packages)
            .chain(accounts)
            .chain(sysctls)
            .chain(units)
    }
}

fn find<'a, O, A>(owned: &'a [Owned<O, A>], key: &str) -> Option<&'a Owned<O, A>> {
    owned.iter().find(|owned| owned.key == key)
}

fn recorded<O, A>(owned: &Owned<O, A>) -> (&ResourceId, OnRemoval) {
    (&owned.id, owned.on_removal)
}
