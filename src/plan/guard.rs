//! What a plan may not do by itself: *guards* hold it, or a part of it, until a person lets it through.
//!
//! A plan that removes too much, or a state that has lost most of what it declared, looks like a mistake as a whole: all of it waits,
//! except the correction of drift. The removal of what was declared with `prevent_removal`, or of what the host cannot do without,
//! waits alone, with whatever depends on it: the rest of the revision is applied.
//!
//! Invariant: pure. What is not removed, stopped or masked is never held but by a guard of the whole plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::fleet::{self, DesiredState};
use crate::kinds::file::{Applied, Edit};
use crate::kinds::unit::Operation;
use crate::model::{Class, Failure, Kind, Reason, ResourceId};
use crate::plan::{Change, Declarations, Inventory, InventoryKind, Observed, Plan, Rules, Step};

/// With fewer things than this, a state that declares nothing any more is nothing odd: somebody tries limpet out, or takes back all he did.
const FEWEST_TO_MISS: usize = 10;

/// Units without which the host is out of reach, blind, not managed, or does not come up.
const PROTECTED_UNITS: [(&str, &str); 29] = [
    ("ssh.service", "the ssh server"),
    ("ssh.socket", "the ssh server"),
    ("ssh@.service", "the ssh server"),
    ("sshd.service", "the ssh server"),
    ("sshd.socket", "the ssh server"),
    ("sshd@.service", "the ssh server"),
    ("dropbear.service", "the ssh server"),
    ("systemd-journald.service", "the journal"),
    ("systemd-journald.socket", "the journal"),
    ("systemd-journald-dev-log.socket", "the journal"),
    ("dbus.service", "the system's bus"),
    ("dbus.socket", "the system's bus"),
    ("dbus-broker.service", "the system's bus"),
    ("systemd-udevd.service", "the init system's own"),
    ("systemd-udevd-control.socket", "the init system's own"),
    ("systemd-udevd-kernel.socket", "the init system's own"),
    ("systemd-logind.service", "the init system's own"),
    ("init.scope", "the init system's own"),
    ("system.slice", "the init system's own"),
    ("local-fs.target", "the init system's own"),
    ("sockets.target", "the init system's own"),
    ("sysinit.target", "the init system's own"),
    ("basic.target", "the init system's own"),
    ("multi-user.target", "the init system's own"),
    ("limpet.service", "limpet itself"),
    ("limpet-fetch.service", "limpet itself"),
    ("limpet-fetch.socket", "limpet itself"),
    ("limpet-probation.timer", "limpet itself"),
    ("limpet-recover.service", "limpet itself"),
];

/// Files without which nobody gets in or becomes root, or the host does not boot.
const PROTECTED_PATHS: [(&str, &str); 13] = [
    ("/etc/ssh/sshd_config", "the ssh server's configuration"),
    ("/root/.ssh/authorized_keys", "root's way in by ssh"),
    ("/etc/sudoers", "the way to become root"),
    ("/etc/nsswitch.conf", "how accounts are found"),
    ("/etc/fstab", "what is mounted at boot"),
    ("/etc/ld.so.cache", "how programs find their libraries"),
    ("/usr/bin/sudo", "the way to become root"),
    ("/usr/sbin/sshd", "the ssh server"),
    ("/usr/sbin/init", "the init system"),
    ("/usr/lib/systemd/systemd", "the init system"),
    ("/usr/bin/dpkg", "the package manager"),
    ("/usr/bin/apt-get", "the package manager"),
    ("/usr/bin/dnf", "the package manager"),
];

/// The beginnings of the names of kernels and what boots them.
const BOOT_FILES: [&str; 3] = ["/boot/vmlinuz", "/boot/initrd.img", "/boot/initramfs"];

/// A step that waits for a person.
#[derive(Debug)]
pub struct Held {
    /// What would be done.
    pub step: Step,
    /// Why it is not.
    pub because: Cause,
}

/// Why a step is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The whole plan is: what people are told of it.
    Plan(String),
    /// It was declared with `prevent_removal`, and its removal was to be prevented.
    Prevented,
    /// The host cannot do without it: what it is.
    Protected(String),
    /// The operator protects it.
    ByOperator,
    /// It takes this package along, which is protected.
    Along {
        /// The package.
        package: String,
        /// What it is.
        what: String,
    },
    /// It can only be done with or after something that is held.
    Waits(ResourceId),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Plan(why) => f.write_str(why),
            Cause::Prevented => f.write_str("it was declared with prevent_removal = true"),
            Cause::Protected(what) => write!(f, "it is {what}"),
            Cause::ByOperator => f.write_str("the host's protect_packages names it"),
            Cause::Along { package, what } => {
                write!(f, "it would take {package} along, which is {what}")
            }
            Cause::Waits(id) => write!(f, "{id} is held"),
        }
    }
}

/// What guards look at.
pub(super) struct Look<'a> {
    pub desired: &'a DesiredState,
    pub observed: &'a Observed,
    pub inventory: &'a Inventory,
    pub declarations: &'a Declarations<'a>,
    pub rules: &'a Rules,
}

/// Takes out of `steps` what has to wait, and says why. Corrections of drift go on while the whole plan is held.
pub(super) fn hold(steps: Vec<Step>, look: &Look<'_>, plan: &mut Plan) -> Vec<Step> {
    let Some(max_removals) = look.rules.max_removals else {
        return steps;
    };
    if steps.is_empty() && plan.released.is_empty() {
        return steps;
    }
    let whole = look.find_mistake_of_the_whole(&steps, max_removals);
    let causes = look.causes(&steps);
    let mut because: Vec<Failure> = Vec::new();
    because.extend(whole.as_ref().map(|found| found.failure()));
    because.extend(steps.iter().zip(&causes).filter_map(|(step, cause)| {
        let cause = cause
            .as_ref()
            .filter(|cause| !matches!(cause, Cause::Waits(_)))?;
        Some(failure_of(step, cause))
    }));
    because.dedup();
    if look.rules.lets_through {
        plan.let_through = because.into_iter().map(|failure| failure.message).collect();
        return steps;
    }
    if because.is_empty() {
        return steps;
    }
    if whole.is_some() {
        plan.is_held_whole = true;
        // What is forgotten now could not be put back when the mistake is mended.
        plan.released.clear();
    }
    let mut going_on = Vec::with_capacity(steps.len());
    for (step, cause) in steps.into_iter().zip(causes) {
        let of_the_plan = whole.as_ref().filter(|_| !step.is_drift);
        match cause.or_else(|| of_the_plan.map(|found| Cause::Plan(found.message.clone()))) {
            Some(because) => plan.held.push(Held { step, because }),
            None => going_on.push(step),
        }
    }
    plan.held_because = because;
    going_on
}

/// Why a whole plan waits.
struct Mistake {
    message: String,
    /// What the trailer would have to say.
    needed: usize,
}

impl Mistake {
    fn failure(&self) -> Failure {
        Failure::new(Class::Host, format!("held a plan {}", self.message)).with_hint(format!(
            "look at it with 'limpet plan'; let it through with 'limpet sync --allow-removals', or by a signed commit with the trailer Limpet-Allow-Removals: {}",
            self.needed
        ))
    }
}

fn failure_of(step: &Step, cause: &Cause) -> Failure {
    let (action, id) = (step.action, &step.id);
    let hint = match cause {
        Cause::Prevented => {
            "declare it again; or say prevent_removal = false in one commit and remove it in the next; or let it through with 'limpet sync --allow-removals'"
        }
        _ => {
            "look at it with 'limpet plan'; local root can let it through with 'limpet sync --allow-removals'"
        }
    };
    // No resource: nothing about it is broken.
    Failure::new(Class::Host, format!("held {action} {id}: {cause}")).with_hint(hint)
}

/// What is counted where `key` belongs to the resource `id`: it by itself, but all that is unpacked from one archive together.
fn thing_of<'a>(id: &'a ResourceId, key: &'a str) -> &'a str {
    match id.kind {
        Kind::File => &id.name,
        _ => key,
    }
}

impl Look<'_> {
    fn find_mistake_of_the_whole(&self, steps: &[Step], max_removals: usize) -> Option<Mistake> {
        let limit = max_removals.max(self.rules.allowed_removals);
        let removes = steps.iter().filter(|step| step.removes);
        let removed = removes.map(|step| (step.kind, thing_of(&step.id, &step.key)));
        let removals = removed.collect::<BTreeSet<_>>().len();
        if removals > limit {
            return Some(Mistake {
                message: format!("that removes {removals} things: max_removals is {limit}"),
                needed: removals,
            });
        }
        // What is in force again as it was once is no accident, and is what a revert is for.
        if self.rules.is_known_state || self.rules.keep_everything {
            return None;
        }
        let (before, lost) = self.count_lost();
        if self.declares_nothing() && lost >= FEWEST_TO_MISS && lost > self.rules.allowed_removals {
            return Some(Mistake {
                message: format!(
                    "for a state that declares nothing: {before} things were declared before"
                ),
                needed: lost,
            });
        }
        (lost > limit && lost * 2 > before).then(|| Mistake {
            message: format!(
                "for a state that declares only {} of the {before} things that were declared before",
                before - lost
            ),
            needed: lost,
        })
    }

    fn declares_nothing(&self) -> bool {
        let DesiredState {
            paths,
            packages,
            accounts,
            units,
            ..
        } = self.desired;
        paths.is_empty() && packages.is_empty() && accounts.is_empty() && units.is_empty()
    }

    /// How many things were declared before, and how many of them no longer are.
    fn count_lost(&self) -> (usize, usize) {
        let Inventory {
            paths,
            packages,
            accounts,
            units,
            ..
        } = self.inventory;
        // Directories made on the way were never declared.
        let paths = paths
            .iter()
            .filter(|owned| !matches!(owned.applied.applied(), Some(Applied::Parent { .. }) | None))
            .map(|owned| (InventoryKind::Path, thing_of(&owned.id, &owned.key)));
        // What is in an archive stands together.
        let mut last = None;
        let paths = paths.filter(move |path| last.replace(*path) != Some(*path));
        let packages = packages
            .iter()
            .map(|owned| (InventoryKind::Package, owned.key.as_str()));
        let accounts = accounts
            .iter()
            .map(|owned| (InventoryKind::Account, owned.key.as_str()));
        let units = units
            .iter()
            .map(|owned| (InventoryKind::Unit, owned.key.as_str()));
        paths.chain(packages).chain(accounts).chain(units).fold(
            (0, 0),
            |(before, lost), (kind, key)| {
                let is_lost = self.declarations.declared_by(kind, key).is_none();
                (before + 1, lost + usize::from(is_lost))
            },
        )
    }

    /// Why each of the steps has to wait, if it has to.
    fn causes(&self, steps: &[Step]) -> Vec<Option<Cause>> {
        let mut causes: Vec<Option<Cause>> = steps.iter().map(|step| self.cause(step)).collect();
        if causes.iter().all(Option::is_none) {
            return causes;
        }
        loop {
            let held: BTreeSet<&ResourceId> = (steps.iter().zip(&causes))
                .filter(|(_, cause)| cause.is_some())
                .map(|(step, _)| &step.id)
                .collect();
            // What something held still needs stays as well, and so do the directories it lies in.
            let mut needed: BTreeMap<&ResourceId, &ResourceId> = BTreeMap::new();
            let mut holders: Vec<&Step> = Vec::new();
            for (step, _) in steps
                .iter()
                .zip(&causes)
                .filter(|(_, cause)| cause.is_some())
            {
                let needs = self.inventory.needs.get(&(step.kind, step.key.to_string()));
                needed.extend(needs.into_iter().flatten().map(|id| (id, &step.id)));
                holders.push(step);
            }
            let waits_for = |step: &Step| -> Option<ResourceId> {
                let needs = self.desired.needs.get(&step.id).into_iter().flatten();
                let by_needs = needs.into_iter().find(|id| held.contains(id)).cloned();
                let lies_in = |held: &&&Step| {
                    let below = held.key.strip_prefix(step.key.as_str());
                    held.kind == InventoryKind::Path
                        && below.is_some_and(|rest| rest.starts_with('/'))
                };
                let goes = step.reason == Reason::Undeclared || step.removes;
                let needed_by = needed.get(&step.id).filter(|_| goes);
                let holder = || {
                    if step.kind == InventoryKind::Path && goes {
                        holders.iter().find(lies_in).map(|held| held.id.clone())
                    } else {
                        None
                    }
                };
                by_needs
                    .or_else(|| needed_by.map(|id| (*id).clone()))
                    .or_else(holder)
            };
            let found: Vec<(usize, ResourceId)> = steps
                .iter()
                .enumerate()
                .filter(|(index, _)| causes[*index].is_none())
                .filter_map(|(index, step)| Some((index, waits_for(step)?)))
                .collect();
            if found.is_empty() {
                return causes;
            }
            for (index, id) in found {
                causes[index] = Some(Cause::Waits(id));
            }
        }
    }

    /// Why a step has to wait for what it does itself.
    fn cause(&self, step: &Step) -> Option<Cause> {
        let is_undeclared = step.reason == Reason::Undeclared
            && self
                .declarations
                .declared_by(step.kind, &step.key)
                .is_none();
        if (is_undeclared || step.removes)
            && !self.inventory.prevented.is_empty()
            && self
                .inventory
                .prevented
                .contains(&(step.kind, step.key.to_string()))
        {
            return Some(Cause::Prevented);
        }
        match &step.change {
            Change::Path(change) => {
                let deletes =
                    matches!(change.edit, Edit::RemoveFile { .. } | Edit::RemoveDirectory);
                let what = why_path_is_protected(&step.key).filter(|_| deletes)?;
                Some(Cause::Protected(what.to_owned()))
            }
            Change::Package(_) if step.removes => self.why_package_stays(&step.key),
            Change::Package(_)
            | Change::Account(_)
            | Change::Sysctl(_)
            | Change::Command(_)
            | Change::Refresh(_)
            | Change::Validation(_) => None,
            Change::Unit(change) => {
                let (_, what) = PROTECTED_UNITS
                    .iter()
                    .find(|(name, _)| step.key == **name)?;
                let ends = match change.operation {
                    Operation::Stop | Operation::Mask | Operation::MaskUntilBoot => true,
                    // After the next boot it would be as if it were stopped.
                    Operation::Disable => !self.starts_otherwise(&step.key),
                    _ => false,
                };
                ends.then(|| Cause::Protected((*what).to_owned()))
            }
        }
    }

    /// Is the socket of a service declared to start it, or the service of a socket to be there by itself.
    fn starts_otherwise(&self, unit: &str) -> bool {
        let other = match unit.rsplit_once('.') {
            Some((name, "service")) => format!("{name}.socket"),
            Some((name, "socket")) => format!("{name}.service"),
            _ => return false,
        };
        let mut units = self.desired.units.iter();
        units.any(|declared| declared.name == other && declared.enabled == Some(true))
    }

    fn why_package_stays(&self, name: &str) -> Option<Cause> {
        let packages = &self.observed.packages;
        let is_protected = |name: &str| self.rules.protect_packages.iter().any(|one| one == name);
        if let Some(what) = packages.why_protected(name) {
            return Some(Cause::Protected(what.to_owned()));
        }
        if is_protected(name) {
            return Some(Cause::ByOperator);
        }
        packages.dependants(name).iter().find_map(|dependant| {
            let by_operator = is_protected(&dependant.name).then_some("named in protect_packages");
            let what = dependant.protected.or(by_operator)?;
            Some(Cause::Along {
                package: dependant.name.clone(),
                what: what.to_owned(),
            })
        })
    }
}

/// What nobody could do any more without the file at `path`.
fn why_path_is_protected(path: &str) -> Option<&'static str> {
    let path = fleet::real_name(path);
    let known = PROTECTED_PATHS
        .iter()
        .find(|(protected, _)| *protected == path)
        .map(|(_, what)| *what);
    let boots = BOOT_FILES.iter().any(|start| path.starts_with(start));
    known.or(boots.then_some("what the host boots"))
}
