//! Packages of the host's package manager.
//!
//! A package is *owned* once it was applied; removed, never purged, when its declaration disappears and limpet had installed it. A
//! version is managed only while it is declared: leaving it out changes nothing on the host.
//!
//! Invariant: nothing is removed that was not asked for by name, except dependencies that came along and that nobody else needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kinds::kind::{Contents, Kind, Owned, PlannedChange, Step};
use crate::model::{Action, Class, Failure, OnRemoval, Outcome, Reason, ResourceId};
use crate::sys::Host;
use status::{Database, State};
use version::{compare_versions, find_version_mistake};

pub mod apt;
mod dependants;
pub mod repair;
pub mod status;
mod system;
mod transaction;
pub mod version;

/// Packages whose removal waits for a person, beside those that dpkg or apt call essential and the kernel that runs: without them the
/// host does not boot, is not managed, or is beyond our reach.
const PROTECTED: [(&str, &str); 21] = [
    ("limpet", "limpet itself"),
    ("dpkg", "the package manager"),
    ("apt", "the package manager"),
    ("dnf", "the package manager"),
    ("dnf5", "the package manager"),
    ("rpm", "the package manager"),
    ("systemd", "the init system"),
    ("systemd-sysv", "the init system"),
    ("init", "the init system"),
    ("sysvinit-core", "the init system"),
    ("dbus", "the system's bus"),
    ("dbus-daemon", "the system's bus"),
    ("dbus-broker", "the system's bus"),
    ("libc6", "the C library"),
    ("glibc", "the C library"),
    ("openssh-server", "the ssh server"),
    ("dropbear", "the ssh server"),
    ("dropbear-bin", "the ssh server"),
    ("sudo", "the way to become root"),
    ("sudo-ldap", "the way to become root"),
    ("sudo-rs", "the way to become root"),
];

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

/// What was there before limpet first touched a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    /// The version that was installed, if any was.
    pub version: Option<String>,
}

/// What the package database says about the packages that were asked for.
#[derive(Debug)]
pub struct Observed {
    packages: Result<BTreeMap<String, ObservedPackage>, Failure>,
}

/// One package on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ObservedPackage {
    state: State,
    version: String,
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
    /// Packages that must not be removed in passing: all that are declared, and those the operator protects.
    pub keep: Arc<BTreeSet<String>>,
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
        /// It is older than what is installed, and that is declared to be fine.
        is_downgrade: bool,
    },
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
            (Wanted::Version { version, .. }, State::Installed) => database
                .get(name)
                .is_some_and(|entry| compare_versions(&entry.version, version).is_eq()),
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
            return Observed {
                packages: Ok(BTreeMap::new()),
            };
        }
        let kernel = running_kernel_package();
        let packages = Database::read(host).and_then(|database| {
            let why = |name: &str| why_protected(name, &database, kernel.as_deref());
            let observe = |name: &str| ObservedPackage {
                state: database.state(name),
                version: database
                    .get(name)
                    .map(|entry| entry.version.clone())
                    .unwrap_or_default(),
                protected: why(name),
                dependants: Vec::new(),
            };
            let mut packages: BTreeMap<String, ObservedPackage> = names
                .into_iter()
                .map(|name| (name.to_owned(), observe(name)))
                .collect();
            let going = may_go(desired, owned, &packages);
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
        Observed { packages }
    }

    fn plan(
        desired: &[DesiredPackage],
        observed: &Observed,
        owned: &[Owned<Original>],
    ) -> Vec<Step<Original, PackageChange>> {
        let packages = match &observed.packages {
            Ok(packages) => packages,
            Err(failure) => {
                return desired
                    .iter()
                    .map(|package| package.id.clone())
                    .chain(owned.iter().map(|owned| owned.id.clone()))
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .map(|id| Step::Blocked(failure.clone().about(id)))
                    .collect();
            }
        };
        let keep: Arc<BTreeSet<String>> = Arc::new(
            desired
                .iter()
                .filter(|package| package.state != PackageState::Absent)
                .map(|package| package.name.clone())
                .chain(PROTECTED.map(|(name, _)| name.to_owned()))
                .chain(running_kernel_package())
                .collect(),
        );
        let declared: BTreeSet<&str> = desired
            .iter()
            .map(|package| package.name.as_str())
            .collect();
        let unknown = ObservedPackage {
            state: State::NotInstalled,
            version: String::new(),
            protected: None,
            dependants: Vec::new(),
        };
        let look = |name: &str| packages.get(name).unwrap_or(&unknown);
        let wanted = desired
            .iter()
            .filter_map(|package| plan_declared(package, look(&package.name), &keep));
        let taken_back = owned
            .iter()
            .filter(|owned| !declared.contains(owned.key.as_str()))
            .map(|owned| plan_undeclared(owned, look(&owned.key), &keep));
        wanted.chain(taken_back).collect()
    }

    fn apply(host: &Host, _contents: &dyn Contents, changes: &[&PackageChange]) -> Vec<Outcome> {
        let changes: Vec<PackageChange> = changes.iter().copied().cloned().collect();
        transaction::apply(&system::HostPackages(host), &changes)
    }
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
    match system::PackageSystem::transact(&system, &apt::reinstallation(name, version)) {
        Ok(result) if result.is_success() => Outcome::Done,
        Ok(result) => fail(Failure::new(
            apt::classify_failure(&result.output),
            format!(
                "failed to install limpet {version} again: apt-get {}",
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
                .map_or(Original { version: None }, ObservedPackage::original),
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
        }
    }
}

/// The managed keys of a declaration, for the inventory.
pub fn applied(desired: &DesiredPackage) -> serde_json::Value {
    match &desired.state {
        PackageState::Installed => json!({ "state": "installed" }),
        PackageState::Version { version, .. } => {
            json!({ "state": "installed", "version": version })
        }
        PackageState::Absent => json!({ "state": "absent" }),
    }
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
            keep.extend(protected.iter().cloned());
        }
    }
    steps
}

/// What the host would be without, were the package called `name` removed.
fn why_protected(name: &str, database: &Database, kernel: Option<&str>) -> Option<&'static str> {
    let known = PROTECTED
        .iter()
        .find(|(protected, _)| *protected == apt::without_architecture(name))
        .map(|(_, what)| *what);
    let is_kernel = kernel == Some(apt::without_architecture(name));
    known
        .or(is_kernel.then_some("the kernel that runs"))
        .or_else(|| {
            let is_essential = database.get(name).is_some_and(|entry| entry.is_essential);
            is_essential.then_some("an essential package")
        })
}

/// The installed packages that a plan may remove: what is declared absent, and what is declared no longer.
fn may_go<'a>(
    desired: &'a [DesiredPackage],
    owned: &'a [Owned<Original>],
    packages: &BTreeMap<String, ObservedPackage>,
) -> Vec<&'a str> {
    let is_there = |name: &str| {
        packages
            .get(name)
            .is_some_and(|package| matches!(package.state, State::Installed | State::Broken(_)))
    };
    let declared: BTreeSet<&str> = desired
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let absent = desired
        .iter()
        .filter(|package| package.state == PackageState::Absent)
        .map(|package| package.name.as_str());
    let undeclared = owned
        .iter()
        .filter(|owned| owned.original.version.is_none() || owned.on_removal == OnRemoval::Delete)
        .map(|owned| owned.key.as_str())
        .filter(|name| !declared.contains(name));
    absent
        .chain(undeclared)
        .filter(|name| is_there(name))
        .collect()
}

fn plan_declared(
    desired: &DesiredPackage,
    observed: &ObservedPackage,
    keep: &Arc<BTreeSet<String>>,
) -> Option<Step<Original, PackageChange>> {
    let id = &desired.id;
    if !is_package_name(&desired.name) {
        return Some(Step::Blocked(
            Failure::new(
                Class::Author,
                format!("refused {id}: '{}' is no package name", desired.name),
            )
            .about(id.clone()),
        ));
    }
    if let PackageState::Version { version, .. } = &desired.state
        && let Some(mistake) = find_version_mistake(version)
    {
        return Some(Step::Blocked(
            Failure::new(
                Class::Author,
                format!("refused {id}: '{version}' is no version: {mistake}"),
            )
            .with_hint("'apt-cache madison NAME' lists the versions there are")
            .about(id.clone()),
        ));
    }
    let (action, reason, field, wanted) = match (&desired.state, observed.state) {
        (PackageState::Absent, State::NotInstalled | State::ConfigFiles) => return None,
        (PackageState::Absent, _) => {
            let wanted = Wanted::Absent {
                with_dependencies: false,
            };
            (Action::Remove, Reason::Differs, "state", wanted)
        }
        (PackageState::Installed, State::Installed) => return None,
        (PackageState::Installed, state) => (
            Action::Install,
            reason_to_install(state),
            "state",
            Wanted::Installed,
        ),
        (
            PackageState::Version {
                version,
                allow_downgrade,
            },
            State::Installed,
        ) => {
            let wanted = |is_downgrade| Wanted::Version {
                version: version.clone(),
                is_downgrade,
            };
            match compare_versions(&observed.version, version) {
                std::cmp::Ordering::Equal => return None,
                std::cmp::Ordering::Less => {
                    (Action::Upgrade, Reason::Differs, "version", wanted(false))
                }
                std::cmp::Ordering::Greater if *allow_downgrade => {
                    (Action::Downgrade, Reason::Differs, "version", wanted(true))
                }
                std::cmp::Ordering::Greater => {
                    let failure = Failure::new(
                        Class::Author,
                        format!(
                            "refused {id}: version {version} is older than {}, which is installed",
                            observed.version
                        ),
                    );
                    return Some(Step::Blocked(
                        failure
                            .with_hint("declare allow_downgrade = true to go down to it")
                            .about(id.clone()),
                    ));
                }
            }
        }
        (PackageState::Version { version, .. }, state) => (
            Action::Install,
            reason_to_install(state),
            "version",
            Wanted::Version {
                version: version.clone(),
                is_downgrade: false,
            },
        ),
    };
    Some(Step::Change(Box::new(PlannedChange {
        id: id.clone(),
        key: desired.name.as_str().into(),
        action,
        reason,
        fields: vec![field.to_owned()],
        original: observed.original(),
        removes: action == Action::Remove,
        change: PackageChange {
            name: desired.name.clone(),
            id: id.clone(),
            wanted,
            keep: keep.clone(),
        },
    })))
}

fn reason_to_install(state: State) -> Reason {
    match state {
        State::Broken(_) => Reason::Differs,
        _ => Reason::Missing,
    }
}

/// Takes back what limpet did: removes what it installed, installs what it removed.
fn plan_undeclared(
    owned: &Owned<Original>,
    observed: &ObservedPackage,
    keep: &Arc<BTreeSet<String>>,
) -> Step<Original, PackageChange> {
    let release = Step::Release {
        id: owned.id.clone(),
        key: owned.key.clone(),
    };
    let was_absent = owned.applied.get("state").and_then(|state| state.as_str()) == Some("absent");
    let is_there = matches!(observed.state, State::Installed | State::Broken(_));
    let installed_by_us = !was_absent && owned.original.version.is_none();
    let removed_by_us = was_absent && owned.original.version.is_some();
    let removes = match owned.on_removal {
        OnRemoval::Keep => return release,
        OnRemoval::Restore if installed_by_us && is_there => true,
        OnRemoval::Restore if removed_by_us && !is_there => false,
        OnRemoval::Delete if !was_absent && is_there => true,
        OnRemoval::Restore | OnRemoval::Delete => return release,
    };
    let (action, wanted) = if removes {
        let wanted = Wanted::Absent {
            with_dependencies: true,
        };
        (Action::Remove, wanted)
    } else {
        (Action::Install, Wanted::Installed)
    };
    Step::Change(Box::new(PlannedChange {
        id: owned.id.clone(),
        key: owned.key.clone(),
        action,
        reason: Reason::Undeclared,
        fields: vec!["state".to_owned()],
        original: owned.original.clone(),
        removes,
        change: PackageChange {
            name: owned.key.to_string(),
            id: owned.id.clone(),
            wanted,
            keep: keep.clone(),
        },
    }))
}

/// deb-control(5): at least two characters, lower case letters, digits and `+ - .`; perhaps with an architecture.
fn is_package_name(name: &str) -> bool {
    let (name, architecture) = match name.split_once(':') {
        Some((name, architecture)) => (name, Some(architecture)),
        None => (name, None),
    };
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() >= 2
        && name.bytes().next().is_some_and(is_word)
        && name
            .bytes()
            .all(|byte| is_word(byte) || b"+-.".contains(&byte))
        && architecture.is_none_or(|architecture| {
            !architecture.is_empty()
                && architecture
                    .bytes()
                    .all(|byte| is_word(byte) || byte == b'-')
        })
}

/// The Debian package of the kernel that runs.
fn running_kernel_package() -> Option<String> {
    let names = nix::sys::utsname::uname().ok()?;
    Some(format!("linux-image-{}", names.release().to_str()?))
}

#[cfg(test)]
mod tests;
