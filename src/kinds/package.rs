//! Packages.

use crate::model::{OnRemoval, ResourceId};

/// One declared package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredPackage {
    /// Its name for the host's package manager; what is owned.
    pub name: String,
    /// The resource: the name in the fleet repository may differ.
    pub id: ResourceId,
    /// What it should be.
    pub state: PackageState,
    /// Look, but do not touch.
    pub report: bool,
    /// What happens when it is no longer declared.
    pub on_removal: OnRemoval,
}

/// What a package should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackageState {
    /// Installed, whatever the version.
    Installed,
    /// Installed in exactly this version.
    Version {
        /// The full version.
        version: String,
        /// May the package manager go down to it.
        allow_downgrade: bool,
    },
    /// Not installed.
    Absent,
}
