//! What has to be done so that packages become as declared, and so that keys no longer declared are taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::kinds::kind::{Owned, PlannedChange, Step};
use crate::kinds::package::family::Family;
use crate::kinds::package::protected::{PROTECTED, running_kernel_package};
use crate::kinds::package::status::State;
use crate::kinds::package::version::is_pattern;
use crate::kinds::package::{
    DesiredPackage, Keep, Observed, ObservedPackage, Original, PackageChange, PackageState, Wanted,
};
use crate::model::{Action, Class, Failure, OnRemoval, Reason, ResourceId};

type PackageStep = Step<Original, PackageChange>;

/// Our own package is never taken back to an older version by a declaration that goes: the older one might not read our state.
const OWN_PACKAGE: &str = "limpet";

pub(super) fn plan(
    desired: &[DesiredPackage],
    observed: &Observed,
    owned: &[Owned<Original>],
) -> Vec<PackageStep> {
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
    let planner = Planner {
        family: observed.family,
        keep: PROTECTED
            .map(|(name, _)| name.to_owned())
            .into_iter()
            .chain(running_kernel_package())
            .map(|name| (name, Keep::Installed))
            .chain(
                desired
                    .iter()
                    .map(|package| (package.name.clone(), keep(package))),
            )
            .collect::<BTreeMap<_, _>>()
            .into(),
    };
    let declared: BTreeSet<&str> = desired
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let owned_by_name: BTreeMap<&str, &Owned<Original>> = owned
        .iter()
        .map(|owned| (owned.key.as_str(), owned))
        .collect();
    let unknown = ObservedPackage {
        state: State::NotInstalled,
        version: String::new(),
        is_held: false,
        is_automatic: false,
        protected: None,
        dependants: Vec::new(),
    };
    let look = |name: &str| packages.get(name).unwrap_or(&unknown);
    let wanted = desired.iter().flat_map(|package| {
        let name = package.name.as_str();
        planner.declared(package, look(name), owned_by_name.get(name).copied())
    });
    let taken_back = owned
        .iter()
        .filter(|owned| !declared.contains(owned.key.as_str()))
        .flat_map(|owned| planner.undeclared(owned, look(&owned.key)));
    wanted.chain(taken_back).collect()
}

/// What is to be left of a declared package by a transaction that is about others. What is only reported anybody may change.
fn keep(package: &DesiredPackage) -> Keep {
    match &package.state {
        PackageState::Version { version, .. } if !package.report => Keep::Version(version.clone()),
        PackageState::Absent if !package.report => Keep::Absent,
        _ => Keep::Installed,
    }
}

/// The installed packages that a plan may remove: what is declared absent, and what is declared no longer.
pub(super) fn may_go<'a>(
    desired: &'a [DesiredPackage],
    owned: &'a [Owned<Original>],
    packages: &BTreeMap<String, ObservedPackage>,
) -> Vec<&'a str> {
    let is_there = |name: &str| packages.get(name).is_some_and(ObservedPackage::is_there);
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

struct Planner {
    family: Family,
    /// What must not be removed in passing.
    keep: Arc<BTreeMap<String, Keep>>,
}

/// What a change is about, and what was there before it.
struct Subject<'a> {
    id: &'a ResourceId,
    name: &'a str,
    original: Original,
}

impl Planner {
    fn declared(
        &self,
        desired: &DesiredPackage,
        observed: &ObservedPackage,
        owned: Option<&Owned<Original>>,
    ) -> Vec<PackageStep> {
        let id = &desired.id;
        if let Some(failure) = find_author_mistake(desired, self.family) {
            return vec![Step::Blocked(failure.about(id.clone()))];
        }
        let subject = |original: Original| Subject {
            id,
            name: &desired.name,
            original,
        };
        let mut steps = Vec::new();
        match state_change(desired, observed, self.family) {
            Err(failure) => return vec![Step::Blocked(failure.about(id.clone()))],
            Ok(Some((action, reason, field, wanted))) => {
                let manages_hold = desired.hold.is_some();
                if let Some(failure) =
                    held_by_others(id, observed, owned, manages_hold, self.family)
                {
                    return vec![Step::Blocked(failure)];
                }
                let subject = subject(observed.original());
                steps.push(self.change(subject, action, reason, field, wanted));
            }
            // A version that is declared no longer is taken back as any other key.
            Ok(None) if desired.state == PackageState::Installed => {
                steps.extend(owned.and_then(|owned| {
                    let (action, wanted) = version_to_put_back(owned, observed, self.family)?;
                    let subject = subject(owned.original.clone());
                    Some(self.change(subject, action, Reason::Undeclared, "version", wanted))
                }));
            }
            Ok(None) => {}
        }
        if desired.state == PackageState::Absent {
            return steps;
        }
        match (desired.hold, owned) {
            (Some(hold), _) if hold != observed.is_held => {
                let subject = subject(observed.original());
                let wanted = Wanted::Held(hold);
                steps.push(self.change(subject, Action::Hold, Reason::Differs, "hold", wanted));
            }
            (None, Some(owned)) => steps.extend(self.hold_to_take_back(owned, observed)),
            _ => {}
        }
        steps
    }

    /// Takes back what limpet did: removes what it installed, installs what it removed, and gives versions and holds back.
    fn undeclared(&self, owned: &Owned<Original>, observed: &ObservedPackage) -> Vec<PackageStep> {
        let release = || {
            vec![Step::Release {
                id: owned.id.clone(),
                key: owned.key.clone(),
            }]
        };
        let was_absent = applied_word(owned, "state") == Some("absent");
        let installed_by_us = !was_absent && owned.original.version.is_none();
        let is_there = observed.is_there();
        let removes = match owned.on_removal {
            OnRemoval::Keep => return release(),
            OnRemoval::Restore => installed_by_us && is_there,
            OnRemoval::Delete => !was_absent && is_there,
        };
        let change = |action, field, wanted| {
            let subject = Subject {
                id: &owned.id,
                name: &owned.key,
                original: owned.original.clone(),
            };
            self.change(subject, action, Reason::Undeclared, field, wanted)
        };
        let mut steps = Vec::new();
        if removes {
            let wanted = Wanted::Absent {
                with_dependencies: true,
            };
            steps.push(change(Action::Remove, "state", wanted));
        } else if owned.on_removal == OnRemoval::Restore {
            match &owned.original.version {
                // Half of it is not what was there: putting it back may have been interrupted.
                Some(version) if was_absent && observed.state != State::Installed => {
                    let version = version.clone();
                    let wanted = Wanted::PutBack { version };
                    steps.push(change(Action::Install, "state", wanted));
                    if owned.original.held && !observed.is_held {
                        steps.push(change(Action::Hold, "hold", Wanted::Held(true)));
                    }
                }
                _ => {
                    let put_back = version_to_put_back(owned, observed, self.family);
                    steps
                        .extend(put_back.map(|(action, wanted)| change(action, "version", wanted)));
                    steps.extend(self.hold_to_take_back(owned, observed));
                }
            }
        }
        let changes_it =
            |step: &PackageStep| matches!(step, Step::Change(it) if it.action != Action::Hold);
        if steps.iter().any(changes_it)
            && let Some(failure) =
                held_by_others(&owned.id, observed, Some(owned), false, self.family)
        {
            return vec![Step::Blocked(failure)];
        }
        match steps.is_empty() {
            true => release(),
            false => steps,
        }
    }

    /// Gives a hold back that limpet set or took, where nobody changed it since.
    fn hold_to_take_back(
        &self,
        owned: &Owned<Original>,
        observed: &ObservedPackage,
    ) -> Option<PackageStep> {
        let applied = owned.applied.get("hold")?.as_bool()?;
        let original = owned.original.held;
        let is_ours = observed.is_held == applied && observed.is_there();
        if owned.on_removal != OnRemoval::Restore || applied == original || !is_ours {
            return None;
        }
        let subject = Subject {
            id: &owned.id,
            name: &owned.key,
            original: owned.original.clone(),
        };
        let wanted = Wanted::Held(original);
        Some(self.change(subject, Action::Hold, Reason::Undeclared, "hold", wanted))
    }

    fn change(
        &self,
        subject: Subject<'_>,
        action: Action,
        reason: Reason,
        field: &str,
        wanted: Wanted,
    ) -> PackageStep {
        let Subject { id, name, original } = subject;
        let automatic = original.automatic && matches!(wanted, Wanted::PutBack { .. });
        Step::Change(Box::new(PlannedChange {
            id: id.clone(),
            key: name.into(),
            action,
            reason,
            fields: vec![field.to_owned()],
            original,
            removes: action == Action::Remove,
            change: PackageChange {
                name: name.to_owned(),
                id: id.clone(),
                automatic,
                wanted,
                keep: self.keep.clone(),
            },
        }))
    }
}

impl ObservedPackage {
    fn is_there(&self) -> bool {
        matches!(self.state, State::Installed | State::Broken(_))
    }
}

fn applied_word<'a>(owned: &'a Owned<Original>, key: &str) -> Option<&'a str> {
    owned.applied.get(key)?.as_str()
}

fn find_author_mistake(desired: &DesiredPackage, family: Family) -> Option<Failure> {
    let id = &desired.id;
    let refuse = |cause: String| Failure::new(Class::Author, format!("refused {id}: {cause}"));
    if !family.is_package_name(&desired.name) {
        return Some(refuse(format!("'{}' is no package name", desired.name)));
    }
    let PackageState::Version { version, .. } = &desired.state else {
        return None;
    };
    let mistake = family.find_version_mistake(version)?;
    Some(
        refuse(format!("'{version}' is no version: {mistake}")).with_hint(format!(
            "'{}' lists the versions there are",
            family.how_to_list("NAME")
        )),
    )
}

/// What makes state and version as declared: the action, why, in which field, and what is wanted.
type StateChange = (Action, Reason, &'static str, Wanted);

fn state_change(
    desired: &DesiredPackage,
    observed: &ObservedPackage,
    family: Family,
) -> Result<Option<StateChange>, Failure> {
    let is_installed = observed.state == State::Installed;
    let change = match &desired.state {
        PackageState::Absent if !observed.is_there() => return Ok(None),
        PackageState::Absent => {
            let wanted = Wanted::Absent {
                with_dependencies: false,
            };
            (Action::Remove, Reason::Differs, "state", wanted)
        }
        PackageState::Installed if is_installed => return Ok(None),
        PackageState::Installed => {
            let reason = reason_to_install(observed.state);
            (Action::Install, reason, "state", Wanted::Installed)
        }
        PackageState::Version { version, .. }
            if is_installed && family.fits(version, &observed.version) =>
        {
            return Ok(None);
        }
        PackageState::Version {
            version,
            allow_downgrade,
        } => {
            let is_newer = is_installed
                && match is_pattern(version) {
                    true => family.is_surely_newer(&observed.version, version),
                    false => family.compare_versions(&observed.version, version).is_gt(),
                };
            if is_newer && !allow_downgrade {
                return Err(too_new(&desired.id, version, &observed.version));
            }
            let wanted = match is_pattern(version) {
                true => Wanted::Fitting {
                    pattern: version.clone(),
                    allow_downgrade: *allow_downgrade,
                },
                false => Wanted::Version {
                    version: version.clone(),
                    is_downgrade: is_newer,
                },
            };
            let (action, reason) = match (is_installed, is_newer) {
                (false, _) => (Action::Install, reason_to_install(observed.state)),
                (true, true) => (Action::Downgrade, Reason::Differs),
                (true, false) => (Action::Upgrade, Reason::Differs),
            };
            (action, reason, "version", wanted)
        }
    };
    Ok(Some(change))
}

/// The refusal to go down to `version`.
pub(super) fn too_new(id: &ResourceId, version: &str, installed: &str) -> Failure {
    Failure::new(
        Class::Author,
        format!("refused {id}: version {version} is older than {installed}, which is installed"),
    )
    .with_hint("declare allow_downgrade = true to go down to it")
}

/// The refusal to change what somebody else put on hold.
fn held_by_others(
    id: &ResourceId,
    observed: &ObservedPackage,
    owned: Option<&Owned<Original>>,
    manages_hold: bool,
    family: Family,
) -> Option<Failure> {
    let is_ours = owned.is_some_and(|owned| owned.applied.get("hold").is_some());
    if !observed.is_held || !observed.is_there() || manages_hold || is_ours {
        return None;
    }
    let failure = Failure::new(
        Class::Host,
        format!("refused {id}: it is on hold on this host, by somebody else"),
    );
    Some(
        failure
            .with_hint(format!(
                "declare hold = true or hold = false to manage that, or take it away on the host with '{}'",
                family.how_to_unhold(&id.name)
            ))
            .about(id.clone()),
    )
}

/// The version that was there before, where limpet has changed it and nobody has since.
fn version_to_put_back(
    owned: &Owned<Original>,
    observed: &ObservedPackage,
    family: Family,
) -> Option<(Action, Wanted)> {
    let original = owned.original.version.as_ref()?;
    let applied = applied_word(owned, "version")?;
    let is_broken = matches!(observed.state, State::Broken(_));
    // Half of a version is on the way to one or the other: nobody chose it.
    let is_ours =
        is_broken || observed.state == State::Installed && family.fits(applied, &observed.version);
    if owned.on_removal != OnRemoval::Restore || owned.key == OWN_PACKAGE || !is_ours {
        return None;
    }
    let action = match family.compare_versions(&observed.version, original) {
        std::cmp::Ordering::Equal if !is_broken => return None,
        std::cmp::Ordering::Equal => Action::Install,
        std::cmp::Ordering::Less => Action::Upgrade,
        std::cmp::Ordering::Greater => Action::Downgrade,
    };
    let version = original.clone();
    Some((action, Wanted::PutBack { version }))
}

fn reason_to_install(state: State) -> Reason {
    match state {
        State::Broken(_) => Reason::Differs,
        _ => Reason::Missing,
    }
}
