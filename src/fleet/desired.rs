//! The desired state of one host: what rendering a fleet repository yields.

use std::collections::{BTreeMap, BTreeSet};

use crate::kinds::account::DesiredAccount;
use crate::kinds::command::DesiredCommand;
use crate::kinds::file::DesiredPath;
use crate::kinds::health::DesiredHealth;
use crate::kinds::package::DesiredPackage;
use crate::kinds::repository::DesiredRepository;
use crate::kinds::sysctl::DesiredSysctl;
use crate::kinds::unit::DesiredUnit;
use crate::model::{Location, Name, ResourceId};

/// Everything that is declared for one host.
#[derive(Debug, Clone, Default)]
pub struct DesiredState {
    /// The fleet's name, bound into trust.
    pub fleet: String,
    /// Files, directories and links, by path; unit files and drop-ins among them.
    pub paths: Vec<DesiredPath>,
    /// Whose lists are fetched when they change, by name. Their files are among the paths, and say all that there is to say.
    pub repositories: Vec<DesiredRepository>,
    /// Packages, by name.
    pub packages: Vec<DesiredPackage>,
    /// Users and groups, groups first, by name.
    pub accounts: Vec<DesiredAccount>,
    /// Parameters of the kernel, by name; the file of each is among the paths.
    pub sysctls: Vec<DesiredSysctl>,
    /// Commands, by name.
    pub commands: Vec<DesiredCommand>,
    /// Units, by name.
    pub units: Vec<DesiredUnit>,
    /// Health checks, by name.
    pub health: Vec<DesiredHealth>,
    /// What each resource explicitly needs.
    pub needs: BTreeMap<ResourceId, Vec<ResourceId>>,
    /// Resources whose removal waits for a person.
    pub prevented: BTreeSet<ResourceId>,
    /// Where each resource was declared: the last layer that set a key of it.
    pub origins: BTreeMap<ResourceId, Origin>,
    /// Hex SHA-256 over all of the above; the same on a laptop, in CI and on the host.
    pub digest: String,
}

impl DesiredState {
    /// The resources that are declared; a unit and its files are one.
    pub fn resource_ids(&self) -> BTreeSet<&ResourceId> {
        let paths = self.paths.iter().map(|path| &path.id);
        let packages = self.packages.iter().map(|package| &package.id);
        let commands = self.commands.iter().map(|command| &command.id);
        let units = self.units.iter().map(|unit| &unit.id);
        let health = self.health.iter().map(|health| &health.id);
        let accounts = self.accounts.iter().map(|account| &account.id);
        let sysctls = self.sysctls.iter().map(|sysctl| &sysctl.id);
        let others = accounts
            .chain(sysctls)
            .chain(commands)
            .chain(units)
            .chain(health);
        paths.chain(packages).chain(others).collect()
    }
}

/// Where a resource comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The layer's name, or `hosts/<name>`.
    pub layer: Name,
    /// The place of its declaration.
    pub location: Location,
}
