//! What packages need of a machine; tests answer in its place from a script.

use crate::kinds::package::lists;
use crate::kinds::package::status::Database;
use crate::model::Failure;
use crate::sys::Host;
use crate::sys::command::{Command, CommandResult};

/// What a transaction needs of a machine.
pub(super) trait PackageSystem {
    /// What is installed now.
    fn read(&self) -> Result<Database, Failure>;
    /// Were the lists of packages fetched so long ago that nothing is to be installed by them.
    fn has_old_lists(&self) -> Result<bool, Failure>;
    /// Runs what changes no package.
    fn run(&self, command: &Command) -> Result<CommandResult, Failure>;
    /// Runs what must not be interrupted.
    fn transact(&self, command: &Command) -> Result<CommandResult, Failure>;
}

/// The packages of a real host.
pub(super) struct HostPackages<'a>(pub &'a Host);

impl PackageSystem for HostPackages<'_> {
    fn read(&self) -> Result<Database, Failure> {
        Database::read(self.0)
    }

    fn has_old_lists(&self) -> Result<bool, Failure> {
        lists::are_old(self.0)
    }

    fn run(&self, command: &Command) -> Result<CommandResult, Failure> {
        self.0.run_outside(command)
    }

    fn transact(&self, command: &Command) -> Result<CommandResult, Failure> {
        self.0.run_transaction(command)
    }
}
