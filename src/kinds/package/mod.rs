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
pub mod status;
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
        transaction::apply(&transaction::HostPackages(host), &changes)
    }
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
        key: desired.name.clone(),
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
            name: owned.key.clone(),
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
mod tests {
    use super::*;
    use crate::model;
    use proptest::prelude::*;

    fn declare(name: &str, state: PackageState) -> DesiredPackage {
        DesiredPackage {
            name: name.to_owned(),
            id: ResourceId::new(model::Kind::Package, name),
            state,
            report: false,
            on_removal: OnRemoval::Restore,
        }
    }

    fn exactly(version: &str, allow_downgrade: bool) -> PackageState {
        PackageState::Version {
            version: version.to_owned(),
            allow_downgrade,
        }
    }

    fn seen(name: &str, state: State, version: &str) -> Observed {
        let package = ObservedPackage {
            state,
            version: version.to_owned(),
            protected: None,
            dependants: Vec::new(),
        };
        Observed {
            packages: Ok([(name.to_owned(), package)].into()),
        }
    }

    fn own(
        desired: &DesiredPackage,
        original: Option<&str>,
        on_removal: OnRemoval,
    ) -> Owned<Original> {
        Owned {
            id: desired.id.clone(),
            key: desired.name.clone(),
            original: Original {
                version: original.map(str::to_owned),
            },
            on_removal,
            applied: applied(desired),
        }
    }

    fn words(steps: &[Step<Original, PackageChange>]) -> String {
        let word = |step: &Step<Original, PackageChange>| match step {
            Step::Change(planned) => format!("{} ({})", planned.action, planned.reason),
            Step::Release { .. } => "release".to_owned(),
            Step::Blocked(failure) => failure.to_string(),
        };
        steps.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    const BROKEN: State = State::Broken("half-configured");

    #[test]
    fn a_package_is_changed_only_when_it_differs() {
        let check = |state: PackageState, observed: Observed, expected: &str| {
            let desired = declare("curl", state);
            let steps = Packages::plan(std::slice::from_ref(&desired), &observed, &[]);
            assert_eq!(words(&steps), expected, "{desired:?}");
        };
        let seen = |state, version| seen("curl", state, version);
        use PackageState::{Absent, Installed};
        check(Installed, seen(State::Installed, "1"), "");
        check(
            Installed,
            seen(State::NotInstalled, ""),
            "install (missing)",
        );
        check(
            Installed,
            seen(State::ConfigFiles, "1"),
            "install (missing)",
        );
        check(Installed, seen(BROKEN, "1"), "install (differs)");
        check(Absent, seen(State::NotInstalled, ""), "");
        check(Absent, seen(State::ConfigFiles, "1"), "");
        check(Absent, seen(State::Installed, "1"), "remove (differs)");
        check(Absent, seen(BROKEN, "1"), "remove (differs)");
        check(exactly("1.0", false), seen(State::Installed, "1.0"), "");
        check(exactly("0:1.0", false), seen(State::Installed, "1.0"), "");
        check(
            exactly("1.1", false),
            seen(State::Installed, "1.0"),
            "upgrade (differs)",
        );
        check(
            exactly("1.0~rc1", true),
            seen(State::Installed, "1.0"),
            "downgrade (differs)",
        );
        check(
            exactly("1.0", false),
            seen(State::ConfigFiles, "2.0"),
            "install (missing)",
        );
        check(
            exactly("1.0", false),
            seen(State::Installed, "1.1"),
            "refused package:curl: version 1.0 is older than 1.1, which is installed",
        );
        check(
            exactly("1.*", false),
            seen(State::Installed, "1.1"),
            "refused package:curl: '1.*' is no version: patterns are not understood here, only full versions",
        );
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let check = |name: &str, state: PackageState, expected: &str| {
            let observed = seen(name, State::Installed, "1");
            let steps = Packages::plan(&[declare(name, state)], &observed, &[]);
            assert_eq!(words(&steps), expected, "{name}");
        };
        use PackageState::Installed;
        check("g++", Installed, "");
        check("libc6:i386", Installed, "");
        check(
            "--purge",
            Installed,
            "refused package:--purge: '--purge' is no package name",
        );
        check(
            "curl=1",
            Installed,
            "refused package:curl=1: 'curl=1' is no package name",
        );
    }

    #[test]
    fn what_the_host_cannot_do_without_is_known() {
        let database = Database::new(
            status::parse_status(include_str!("fixtures/status.txt")).unwrap(),
            false,
        );
        let check = |name: &str, expected: Option<&str>| {
            let kernel = Some("linux-image-6.1.0-9-amd64");
            assert_eq!(why_protected(name, &database, kernel), expected, "{name}");
        };
        check("lim-app", None);
        check("openssh-server", Some("the ssh server"));
        check("limpet", Some("limpet itself"));
        check("libc6:amd64", Some("the C library"));
        check("linux-image-6.1.0-9-amd64", Some("the kernel that runs"));
        check("linux-image-6.1.0-8-amd64", None);
        check("dpkg", Some("the package manager"));
        let essential = "Package: base-files\nEssential: yes\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n";
        let database = Database::new(status::parse_status(essential).unwrap(), false);
        let found = why_protected("base-files", &database, None);
        assert_eq!(found, Some("an essential package"));
    }

    #[test]
    fn only_what_limpet_installed_is_removed() {
        let check = |applied: PackageState, original, removal, state, expected: &str| {
            let owned = own(&declare("curl", applied), original, removal);
            let steps = Packages::plan(&[], &seen("curl", state, "1"), &[owned]);
            assert_eq!(words(&steps), expected);
        };
        use OnRemoval::{Delete, Keep, Restore};
        use PackageState::{Absent, Installed};
        check(
            Installed,
            None,
            Restore,
            State::Installed,
            "remove (undeclared)",
        );
        check(Installed, Some("1"), Restore, State::Installed, "release");
        check(Installed, None, Keep, State::Installed, "release");
        check(
            Installed,
            Some("1"),
            Delete,
            State::Installed,
            "remove (undeclared)",
        );
        check(Installed, None, Restore, State::NotInstalled, "release");
        check(
            Absent,
            Some("1"),
            Restore,
            State::ConfigFiles,
            "install (undeclared)",
        );
        check(Absent, None, Restore, State::Installed, "release");
        check(Absent, Some("1"), Delete, State::NotInstalled, "release");
    }

    #[test]
    fn a_database_that_cannot_be_read_blocks_every_package() {
        let observed = Observed {
            packages: Err(Failure::new(Class::Host, "failed to read it")),
        };
        let desired = declare("curl", PackageState::Installed);
        let owned = own(
            &declare("git", PackageState::Installed),
            None,
            OnRemoval::Restore,
        );
        let steps = Packages::plan(&[desired], &observed, &[owned]);
        insta::assert_snapshot!(words(&steps), @"failed to read it, failed to read it");
    }

    fn any_state() -> impl Strategy<Value = PackageState> {
        let versions = prop::sample::select(vec!["1.0", "1.0-2", "2.0~rc1"]);
        prop_oneof![
            Just(PackageState::Installed),
            Just(PackageState::Absent),
            (versions, any::<bool>()).prop_map(|(version, down)| exactly(version, down)),
        ]
    }

    proptest! {
        #[test]
        fn planning_after_apply_is_empty(
            desired in prop::option::of(any_state()),
            before in any_state(),
            original in prop::option::of(Just("1.0")),
            state in prop::sample::select(vec![State::NotInstalled, State::ConfigFiles, BROKEN, State::Installed]),
            version in prop::sample::select(vec!["1.0", "1.0-2", "2.0~rc1", "3"]),
        ) {
            let declared: Vec<DesiredPackage> = desired.into_iter().map(|state| declare("curl", state)).collect();
            let owned = [own(&declare("curl", before), original, OnRemoval::Restore)];
            let steps = Packages::plan(&declared, &seen("curl", state, version), &owned);
            prop_assert!(steps.len() <= 1);
            if let Some(Step::Change(planned)) = steps.first() {
                prop_assert_eq!(planned.key.as_str(), "curl");
                let (state, version) = match &planned.change.wanted {
                    Wanted::Installed => (State::Installed, "3".to_owned()),
                    Wanted::Version { version, .. } => (State::Installed, version.clone()),
                    Wanted::Absent { .. } => (State::ConfigFiles, String::new()),
                };
                let again = Packages::plan(&declared, &seen("curl", state, &version), &owned);
                prop_assert!(matches!(again.as_slice(), [] | [Step::Release { .. }]), "{} then {}", words(&steps), words(&again));
            }
        }
    }
}
