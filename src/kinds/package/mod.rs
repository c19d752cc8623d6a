//! Packages of the host's package manager.
//!
//! A package is *owned* once it was applied; removed, never purged, when its declaration disappears and limpet had installed it. A
//! version and a hold are keys of their own: when one is declared no longer, what limpet changed of it is taken back.
//!
//! Invariant: nothing is removed that was not asked for by name, except dependencies that came along and that nobody else needs; and
//! nothing that somebody else put on hold is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kinds::kind::{Contents, Kind, Owned, Step};
use crate::model::{Failure, OnRemoval, Outcome, ResourceId};
use crate::sys::Host;
use family::Family;
use protected::{running_kernel_package, why_protected};
use status::{Database, State};

pub mod apt;
mod automatic;
mod dependants;
pub mod dnf;
pub mod family;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod kept;
pub(in crate::kinds) mod lists;
mod plan;
mod protected;
pub mod repair;
pub mod rpm;
pub mod status;
mod system;
mod transaction;
pub mod version;
pub mod withholding;

/// One declared package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredPackage {
    /// Its name for the host's package manager; what is owned.
    pub name: String,
    /// The resource: the name in the fleet repository may differ.
    pub id: ResourceId,
    /// What it should be.
    pub state: PackageState,
    /// Is it on hold: does nobody but limpet change its version.
    pub hold: Option<bool>,
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
    /// Installed in a version that fits.
    Version {
        /// The full version, or a shell glob on it: any that fits will do, else the highest there is.
        version: String,
        /// May the package manager go down to it.
        allow_downgrade: bool,
    },
    /// Not installed.
    Absent,
}

/// What was there before limpet first touched a package.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Original {
    /// The version that was installed, if any was.
    pub version: Option<String>,
    /// Was it on hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Did it come along with another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub automatic: bool,
}

/// What the package database says about the packages that were asked for.
#[derive(Debug)]
pub struct Observed {
    family: Family,
    packages: Result<BTreeMap<String, ObservedPackage>, Failure>,
}

/// One package on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ObservedPackage {
    state: State,
    version: String,
    is_held: bool,
    /// It came along with another one; asked only of what was never touched.
    is_automatic: bool,
    /// What the host would be without, if it is something that it cannot do without.
    protected: Option<&'static str>,
    /// The installed packages that go with it, where it may have to go.
    dependants: Vec<Dependant>,
}

/// An installed package that does not work without another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependant {
    /// Its name.
    pub name: String,
    /// What the host would be without, if it is something that it cannot do without.
    pub protected: Option<&'static str>,
}

/// One change to a package, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageChange {
    /// The package.
    pub name: String,
    /// The resource that asks for it.
    pub id: ResourceId,
    /// What it shall be.
    pub wanted: Wanted,
    /// It came along with another package once, and is to be marked so again.
    pub automatic: bool,
    /// What must be left of packages that are not asked about: of all that are declared, and of those that the host or its operator
    /// protects.
    pub keep: Arc<BTreeMap<String, Keep>>,
}

/// What a transaction must leave of a package that it is not asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// It stays, if it is there.
    Installed,
    /// It stays in a version that fits.
    Version(String),
    /// It does not come.
    Absent,
}

/// What a change makes of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Installed in any version.
    Installed,
    /// Installed in this version.
    Version {
        /// The full version.
        version: String,
        /// It is older than what is installed, and that is fine.
        is_downgrade: bool,
    },
    /// Installed in the highest version there is that fits.
    Fitting {
        /// A shell glob.
        pattern: String,
        /// May that be older than what is installed.
        allow_downgrade: bool,
    },
    /// Installed in the version that was there before limpet, where a repository still has it.
    PutBack {
        /// The full version.
        version: String,
    },
    /// On hold, or not.
    Held(bool),
    /// Not installed.
    Absent {
        /// Remove the dependencies too that came along and that nobody else needs.
        with_dependencies: bool,
    },
}

impl Wanted {
    /// Is this what the database says of `name`.
    fn is_met(&self, database: &Database, name: &str) -> bool {
        match (self, database.state(name)) {
            (Wanted::Installed, State::Installed) => true,
            (Wanted::Version { version, .. } | Wanted::PutBack { version }, State::Installed) => {
                let is_it = |installed: &str| {
                    database
                        .family()
                        .compare_versions(installed, version)
                        .is_eq()
                };
                database.versions(name).any(is_it)
            }
            (Wanted::Fitting { pattern, .. }, State::Installed) => {
                let mut versions = database.versions(name);
                versions.any(|installed| database.family().fits(pattern, installed))
            }
            (Wanted::Held(is_held), _) => {
                database.get(name).is_some_and(|entry| entry.is_held) == *is_held
            }
            (Wanted::Absent { .. }, State::NotInstalled | State::ConfigFiles) => true,
            _ => false,
        }
    }
}

/// The kind.
#[derive(Debug)]
pub struct Packages;

impl Kind for Packages {
    type Desired = DesiredPackage;
    type Observed = Observed;
    type Original = Original;
    type Applied = serde_json::Value;
    type Change = PackageChange;

    fn observe(host: &Host, desired: &[DesiredPackage], owned: &[Owned<Original>]) -> Observed {
        let names: BTreeSet<&str> = desired
            .iter()
            .map(|package| package.name.as_str())
            .chain(owned.iter().map(|owned| owned.key.as_str()))
            .collect();
        if names.is_empty() {
            return Observed::default();
        }
        let kernel = running_kernel_package();
        let mut family = Family::default();
        let packages = Database::read(host).and_then(|database| {
            family = database.family();
            let why = |name: &str| why_protected(name, &database, kernel.as_deref());
            let observe = |name: &str| ObservedPackage {
                state: database.state(name),
                version: version_of(name, &database, desired),
                is_held: database.get(name).is_some_and(|entry| entry.is_held),
                is_automatic: false,
                protected: why(name),
                dependants: Vec::new(),
            };
            let mut packages: BTreeMap<String, ObservedPackage> = names
                .into_iter()
                .map(|name| (name.to_owned(), observe(name)))
                .collect();
            let known: BTreeSet<&str> = owned.iter().map(|owned| owned.key.as_str()).collect();
            let new = packages.iter_mut().filter(|(name, package)| {
                !known.contains(name.as_str()) && package.state == State::Installed
            });
            let mut new = new.peekable();
            // Which packages came along with others is dnf's own secret, and not needed but to mark them so again.
            if new.peek().is_some() && family == Family::Apt {
                let marked = automatic::read(host)?;
                for (name, package) in new {
                    package.is_automatic = marked.contains(apt::without_architecture(name));
                }
            }
            let going = plan::may_go(desired, owned, &packages);
            if !going.is_empty() {
                // What depends on what is read only for them: there are tens of thousands of such words.
                let mut found = status::read_dependants(host, &going)?;
                for (name, package) in &mut packages {
                    let dependants = found.remove(name).unwrap_or_default();
                    let dependant = |name: String| Dependant {
                        protected: why(&name),
                        name,
                    };
                    package.dependants = dependants.into_iter().map(dependant).collect();
                }
            }
            Ok(packages)
        });
        Observed { family, packages }
    }

    fn plan(
        desired: &[DesiredPackage],
        observed: &Observed,
        owned: &[Owned<Original>],
    ) -> Vec<Step<Original, PackageChange>> {
        plan::plan(desired, observed, owned)
    }

    fn apply(host: &Host, _contents: &dyn Contents, changes: &[&PackageChange]) -> Vec<Outcome> {
        let changes: Vec<PackageChange> = changes.iter().copied().cloned().collect();
        transaction::apply(&system::HostPackages(host), &changes)
    }
}

/// The version of an installed package; of several the one that is declared, else the highest.
fn version_of(name: &str, database: &Database, desired: &[DesiredPackage]) -> String {
    let declared = desired.iter().find(|package| package.name == name);
    let mut versions = database.versions(name);
    let fitting = match declared.map(|package| &package.state) {
        Some(PackageState::Version { version, .. }) => {
            versions.find(|installed| database.family().fits(version, installed))
        }
        _ => None,
    };
    let found = fitting.or_else(|| database.get(name).map(|entry| entry.version.as_str()));
    found.unwrap_or_default().to_owned()
}

/// Installs `version` of the package `name`, even if that is older than what is there, and nothing else.
pub fn install_version(host: &Host, name: &str, version: &str) -> Outcome {
    let change = PackageChange {
        name: name.to_owned(),
        id: ResourceId::new(crate::model::Kind::Package, name),
        wanted: Wanted::Version {
            version: version.to_owned(),
            is_downgrade: true,
        },
        automatic: false,
        keep: Arc::default(),
    };
    let mut outcomes = transaction::apply(&system::HostPackages(host), &[change]);
    outcomes.remove(0)
}

/// Unpacks again what `version` of the package `name` consists of, though dpkg has it.
pub fn reinstall_version(host: &Host, name: &str, version: &str) -> Outcome {
    let system = system::HostPackages(host);
    let fail = |failure: Failure| {
        Outcome::Failed(failure.about(ResourceId::new(crate::model::Kind::Package, name)))
    };
    let family = match Family::of(host) {
        Ok(family) => family,
        Err(failure) => return fail(failure),
    };
    match system::PackageSystem::transact(&system, &family.reinstallation(name, version)) {
        Ok(result) if result.is_success() => Outcome::Done,
        Ok(result) => fail(Failure::new(
            family.classify_failure(&result.output),
            format!(
                "failed to install limpet {version} again: {} {}",
                family.program(),
                result.complaint()
            ),
        )),
        Err(failure) => fail(failure),
    }
}

/// Is the package `name` half there.
pub fn is_broken(host: &Host, name: &str) -> Result<bool, Failure> {
    Ok(matches!(
        Database::read(host)?.state(name),
        State::Broken(_)
    ))
}

impl Default for Observed {
    /// Nothing was asked about.
    fn default() -> Self {
        Observed {
            family: Family::default(),
            packages: Ok(BTreeMap::new()),
        }
    }
}

impl Observed {
    /// What the host would be without, were `name` removed, if it is something that it cannot do without.
    pub fn why_protected(&self, name: &str) -> Option<&'static str> {
        self.packages.as_ref().ok()?.get(name)?.protected
    }

    /// The installed packages that do not work without `name`; known where it may have to go.
    pub fn dependants(&self, name: &str) -> &[Dependant] {
        let packages = self.packages.as_ref().ok();
        packages
            .and_then(|packages| packages.get(name))
            .map_or(&[], |package| &package.dependants)
    }

    /// What there is of `name` now, to be kept as its original; `None` when the database could not be read.
    pub fn original(&self, name: &str) -> Option<Original> {
        let packages = self.packages.as_ref().ok()?;
        Some(
            packages
                .get(name)
                .map_or(Original::default(), ObservedPackage::original),
        )
    }
}

impl ObservedPackage {
    fn original(&self) -> Original {
        Original {
            version: match self.state {
                State::Installed | State::Broken(_) => Some(self.version.clone()),
                State::NotInstalled | State::ConfigFiles => None,
            },
            held: self.is_held,
            automatic: self.is_automatic,
        }
    }
}

/// The managed keys of a declaration, for the inventory.
pub fn applied(desired: &DesiredPackage) -> serde_json::Value {
    let mut keys = serde_json::Map::new();
    let state = match &desired.state {
        PackageState::Installed => "installed",
        PackageState::Version { version, .. } => {
            keys.insert("version".to_owned(), version.as_str().into());
            "installed"
        }
        PackageState::Absent => "absent",
    };
    keys.insert("state".to_owned(), state.into());
    keys.extend(desired.hold.map(|hold| ("hold".to_owned(), hold.into())));
    keys.into()
}

/// Keeps what the operator protects from going along with other packages.
pub fn protect(
    mut steps: Vec<Step<Original, PackageChange>>,
    protected: &[String],
) -> Vec<Step<Original, PackageChange>> {
    if protected.is_empty() {
        return steps;
    }
    for step in &mut steps {
        if let Step::Change(planned) = step {
            let keep = Arc::make_mut(&mut planned.change.keep);
            for name in protected {
                keep.entry(name.clone()).or_insert(Keep::Installed);
            }
        }
    }
    steps
}

#[cfg(test)]
mod tests;
