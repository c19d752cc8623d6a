//! What to do so that the host becomes as declared: desired state x observed state x inventory -> [`Plan`].
//!
//! A *step* is one change to one resource. Steps that may be made together are a *batch*; batches are made in order. A *trigger* is a
//! restart or reload that another step makes necessary. *Drift* is a step for a resource that was applied before exactly as it is
//! declared now: somebody else changed it.
//!
//! Invariant: pure. No `Host`, no clock, no `Result`: what could not be observed is a value.

use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::{self, DesiredState, Limits};
use crate::kinds::account::Accounts;
use crate::kinds::command::Commands;
use crate::kinds::file::Paths;
use crate::kinds::kind::{Kind, Owned, PlannedChange};
use crate::kinds::package::Packages;
use crate::kinds::repository::RefreshChange;
use crate::kinds::sysctl::Sysctls;
use crate::kinds::unit::{Units, Validation};
use crate::kinds::{self, kind};
use crate::model::{self, Action, Class, Failure, Name, Reason, ResourceId};
use crate::record::Rejection;

mod arrange;
pub mod contest;
mod declarations;
mod guard;
pub mod order;
#[cfg(test)]
mod tests;
mod trigger;
mod validation;
mod way;

pub use arrange::skipped;
use arrange::{add_blockers, into_batches, set_aside_what_is_blocked};
pub use declarations::{Declaration, Declarations};
pub use guard::Held;
pub use way::touched_by;

/// What was seen on the host.
#[derive(Debug)]
pub struct Observed {
    /// Files, directories and links.
    pub paths: <Paths as Kind>::Observed,
    /// Packages.
    pub packages: <Packages as Kind>::Observed,
    /// Users and groups.
    pub accounts: <Accounts as Kind>::Observed,
    /// Parameters of the kernel.
    pub sysctls: <Sysctls as Kind>::Observed,
    /// Units.
    pub units: <Units as Kind>::Observed,
}

/// What limpet applied before.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Files, directories and links.
    pub paths: Vec<Owned<<Paths as Kind>::Original, <Paths as Kind>::Applied>>,
    /// Packages.
    pub packages: Vec<Owned<<Packages as Kind>::Original>>,
    /// Users and groups.
    pub accounts: Vec<Owned<<Accounts as Kind>::Original>>,
    /// Parameters of the kernel.
    pub sysctls: Vec<Owned<<Sysctls as Kind>::Original>>,
    /// Units.
    pub units: Vec<Owned<<Units as Kind>::Original>>,
    /// Commands that were run once.
    pub commands: Vec<Owned<<Commands as Kind>::Original>>,
    /// What was about to be applied and is not known to have been: a run was interrupted, or the step failed.
    pub unmade: BTreeSet<(InventoryKind, String)>,
    /// Whose removal waits for a person, as was said when it was declared last.
    pub prevented: BTreeSet<(InventoryKind, String)>,
    /// What each thing needed when it was declared last.
    pub needs: BTreeMap<(InventoryKind, String), Vec<ResourceId>>,
    /// What is still owed.
    pub owed: Vec<Debt>,
}

/// An effect that a change of an earlier run made necessary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debt {
    /// Who owes it.
    pub debtor: ResourceId,
    /// What.
    pub action: Action,
    /// Whose change caused it.
    pub because: ResourceId,
    /// When the change was known to be made, in microseconds since the machine started.
    pub caused: Option<u64>,
}

/// What the plan has to respect.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Report everything, change nothing.
    pub report_only: bool,
    /// Hold a plan that removes more than this; `None` means that nothing is held.
    pub max_removals: Option<usize>,
    /// What the message of the revision allows to be removed.
    pub allowed_removals: usize,
    /// This very state was applied here once: going back to it is no mistake.
    pub is_known_state: bool,
    /// Local root lets through what would be held.
    pub lets_through: bool,
    /// Remove nothing at all: the inventory cannot be trusted to be complete.
    pub keep_everything: bool,
    /// What the host's configuration lets a fleet manage.
    pub limits: Limits,
    /// Packages that the operator wants never to be removed.
    pub protect_packages: Vec<String>,
    /// Resources that failed a short while ago and are not tried again yet, with their failure.
    pub resting: BTreeMap<ResourceId, Failure>,
    /// Units that did not accept what is declared: they go on with what was there before.
    pub rejected: BTreeMap<ResourceId, Rejection>,
    /// Resources that somebody else changes back: their drift is left alone, with this failure.
    pub contested: BTreeMap<ResourceId, Failure>,
    /// Resources that an operator paused: they are looked at and not touched, and what restarts them waits.
    pub paused: BTreeSet<ResourceId>,
}

/// What to do, in order.
#[derive(Debug, Default)]
pub struct Plan {
    /// Steps that may be made together, one batch after the other.
    pub batches: Vec<Vec<Step>>,
    /// What differs and is only reported.
    pub reported: Vec<Step>,
    /// What waits for a person, and why.
    pub held: Vec<Held>,
    /// Why there is something in `held`: one for each cause.
    pub held_because: Vec<Failure>,
    /// Nothing but drift is corrected: it is the whole plan that waits.
    pub is_held_whole: bool,
    /// What would be held, had local root not let it through.
    pub let_through: Vec<String>,
    /// Resources that cannot be judged or are not tried yet.
    pub blocked: Vec<Failure>,
    /// What is owned, no longer declared, and already as it would be left: the inventory forgets it.
    pub released: Vec<(InventoryKind, String)>,
    /// Debts of earlier runs that need not be paid any more: who owes, and what.
    pub void_debts: Vec<(ResourceId, Action)>,
    /// Resources that are paused: their steps are among `reported`, and their restarts stay owed.
    pub paused: BTreeSet<ResourceId>,
}

/// One change to one resource.
#[derive(Debug)]
pub struct Step {
    /// Whose declaration (or former declaration) asks for it.
    pub id: ResourceId,
    /// Which name space `key` is in, as the inventory writes it.
    pub kind: InventoryKind,
    /// What is owned: a path, a package, a unit.
    pub key: Name,
    /// What is done.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// In which properties.
    pub fields: Vec<String>,
    /// It was applied before exactly as it is declared now.
    pub is_drift: bool,
    /// Counts for `max_removals`.
    pub removes: bool,
    /// If one of these failed, this step is skipped.
    pub blockers: Vec<ResourceId>,
    /// For triggers: the resources whose change caused it. It is made only if one of them was changed.
    pub because: Vec<ResourceId>,
    /// It is owed from an earlier run, whatever becomes of `because`.
    pub is_owed: bool,
    /// It is written down as owed and waits for somebody to make it, or for a boot.
    pub waits: bool,
    /// What is there now, to be kept if this is the first time it is touched: JSON in the kind's words; empty for what is not owned.
    pub original: String,
    /// What the kind is told to do.
    pub change: Change,
}

/// The name spaces of ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InventoryKind {
    /// Files, directories and links share one.
    Path,
    /// Packages.
    Package,
    /// Users and groups; their names tell which.
    Account,
    /// Parameters of the kernel.
    Sysctl,
    /// Commands.
    Command,
    /// Units.
    Unit,
}

impl InventoryKind {
    /// The word in the inventory.
    pub fn as_str(self) -> &'static str {
        match self {
            InventoryKind::Path => "path",
            InventoryKind::Package => "package",
            InventoryKind::Account => "account",
            InventoryKind::Sysctl => "sysctl",
            InventoryKind::Command => "command",
            InventoryKind::Unit => "unit",
        }
    }

    /// The name space that the inventory calls `word`.
    pub fn of_word(word: &str) -> Option<Self> {
        [
            InventoryKind::Path,
            InventoryKind::Package,
            InventoryKind::Account,
            InventoryKind::Sysctl,
            InventoryKind::Command,
            InventoryKind::Unit,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == word)
    }
}

/// A kind's own change; boxed, because there may be tens of thousands of the smallest.
#[derive(Debug)]
pub enum Change {
    /// For [`Paths`].
    Path(Box<<Paths as Kind>::Change>),
    /// For [`Packages`].
    Package(Box<<Packages as Kind>::Change>),
    /// For [`Accounts`].
    Account(Box<<Accounts as Kind>::Change>),
    /// For [`Sysctls`].
    Sysctl(Box<<Sysctls as Kind>::Change>),
    /// For [`Commands`].
    Command(Box<<Commands as Kind>::Change>),
    /// For [`Units`].
    Unit(Box<<Units as Kind>::Change>),
    /// Of the lists of a repository.
    Refresh(Box<RefreshChange>),
    /// Of a unit, before it reads its files.
    Validation(Box<Validation>),
}

/// Plans.
pub fn plan(
    desired: &DesiredState,
    observed: &Observed,
    inventory: &Inventory,
    rules: &Rules,
) -> Plan {
    let mut plan = Plan {
        paused: rules.paused.clone(),
        ..Plan::default()
    };
    let mut steps = Vec::new();
    let declarations = Declarations::new(desired, inventory);
    let is_unchanged = |kind, key: &str| declarations.is_as_applied(kind, key);
    read::<Paths>(
        Paths::plan(&desired.paths, &observed.paths, &inventory.paths),
        InventoryKind::Path,
        &is_unchanged,
        |change| Change::Path(Box::new(change)),
        &mut steps,
        &mut plan,
    );
    read::<Packages>(
        kinds::package::protect(
            Packages::plan(&desired.packages, &observed.packages, &inventory.packages),
            &rules.protect_packages,
        ),
        InventoryKind::Package,
        &is_unchanged,
        |change| Change::Package(Box::new(change)),
        &mut steps,
        &mut plan,
    );
    read::<Accounts>(
        Accounts::plan(&desired.accounts, &observed.accounts, &inventory.accounts),
        InventoryKind::Account,
        &is_unchanged,
        |change| Change::Account(Box::new(change)),
        &mut steps,
        &mut plan,
    );
    read::<Sysctls>(
        Sysctls::plan(&desired.sysctls, &observed.sysctls, &inventory.sysctls),
        InventoryKind::Sysctl,
        &is_unchanged,
        |change| Change::Sysctl(Box::new(change)),
        &mut steps,
        &mut plan,
    );
    let has_succeeded = |name: &str| {
        let key = (InventoryKind::Command, name.to_owned());
        !inventory.unmade.contains(&key)
    };
    let succeeded: Vec<_> = inventory
        .commands
        .iter()
        .filter(|owned| has_succeeded(&owned.key))
        .cloned()
        .collect();
    read::<Commands>(
        Commands::plan(&desired.commands, &(), &succeeded),
        InventoryKind::Command,
        &is_unchanged,
        |change| Change::Command(Box::new(change)),
        &mut steps,
        &mut plan,
    );
    read::<Units>(
        Units::plan(&desired.units, &observed.units, &inventory.units),
        InventoryKind::Unit,
        &is_unchanged,
        |change| Change::Unit(Box::new(change)),
        &mut steps,
        &mut plan,
    );

    let is_for_now = |step: &Step| !(observed.units.is_image && needs_what_runs(step));
    steps.retain(is_for_now);
    wait_for_mounts(&mut steps);
    if rules.keep_everything {
        // Nor is it known which commands were run already.
        steps.retain(|step| {
            step.reason != Reason::Undeclared && step.kind != InventoryKind::Command
        });
        plan.released.clear();
    }
    plan.blocked.extend(validation::failures(desired, rules));
    let look = guard::Look {
        desired,
        observed,
        inventory,
        declarations: &declarations,
        rules,
    };
    steps.retain(|step| is_open(step, &look, &mut plan.blocked));
    let reported: BTreeSet<&ResourceId> = reported_resources(desired);
    let is_only_reported = |step: &mut Step| {
        let is_paused = rules.paused.contains(&step.id);
        rules.report_only || is_paused || reported.contains(&step.id)
    };
    plan.reported = steps.extract_if(.., is_only_reported).collect();
    steps = guard::hold(steps, &look, &mut plan);

    if !rules.report_only {
        let mut triggers = trigger::triggers(desired, observed, inventory, &mut steps);
        triggers.retain(is_for_now);
        for step in &mut triggers {
            // Owed all the same: what changes in this run will not change again.
            step.waits |= !is_open(step, &look, &mut plan.blocked);
        }
        steps.extend(triggers);
    }
    plan.void_debts = trigger::void_debts(desired, observed, inventory);
    add_blockers(desired, rules, &mut steps);
    set_aside_what_is_blocked(&mut steps, &mut plan.blocked);
    let is_reload = |debt: &&Debt| {
        let is_resting = rules.resting.contains_key(&debt.debtor);
        debt.action == Action::DaemonReload && !is_resting && !rules.report_only
    };
    let reloads = inventory.owed.iter().filter(is_reload);
    let unloaded = reloads.map(|debt| debt.debtor.clone()).collect();
    plan.batches = into_batches(desired, inventory, steps, unloaded);
    for batch in &mut plan.batches {
        batch.retain(is_for_now);
    }
    plan.batches.retain(|batch| !batch.is_empty());
    plan
}

/// Is `step` about what runs. In an image nothing does, and the first boot reads and starts everything anyway.
fn needs_what_runs(step: &Step) -> bool {
    let is_run = matches!(
        step.action,
        Action::DaemonReload | Action::Start | Action::Stop | Action::Restart | Action::Reload
    );
    step.kind == InventoryKind::Unit && is_run
}

/// What was seen below the place of a file system that is not mounted yet is not what will be there: it is planned once that is.
fn wait_for_mounts(steps: &mut Vec<Step>) {
    let is_start = |step: &&Step| {
        step.id.kind == model::Kind::Mount && matches!(step.action, Action::Start | Action::Restart)
    };
    let starting: Vec<String> = steps
        .iter()
        .filter(is_start)
        .map(|step| format!("{}/", step.id.name))
        .collect();
    if !starting.is_empty() {
        steps.retain(|step| {
            let is_below = |place: &String| format!("{}/", step.key).starts_with(place);
            step.kind != InventoryKind::Path || !starting.iter().any(is_below)
        });
    }
}

/// May the step be made; if not, why goes to `blocked`.
fn is_open(step: &Step, look: &guard::Look<'_>, blocked: &mut Vec<Failure>) -> bool {
    let rules = look.rules;
    let obstacle = rules
        .resting
        .get(&step.id)
        .cloned()
        .or_else(|| is_contested(step, rules).cloned())
        .or_else(|| leads_astray(step, look.observed, rules))
        .or_else(|| validation::why_rejected(step, look.desired, rules));
    let is_open = obstacle.is_none();
    blocked.extend(obstacle.filter(|failure| !blocked.contains(failure)));
    is_open
}

/// The failure of a correction that is not made, because it would be changed back. What is declared anew is no correction.
fn is_contested<'a>(step: &Step, rules: &'a Rules) -> Option<&'a Failure> {
    let is_correction = step.is_drift && !rules.paused.contains(&step.id);
    rules.contested.get(&step.id).filter(|_| is_correction)
}

/// The refusal of a path that a link on the way makes another, which no fleet may manage. What is spelled out is refused when the
/// state is rendered; this is what only the machine can tell.
fn leads_astray(step: &Step, observed: &Observed, rules: &Rules) -> Option<Failure> {
    if step.kind != InventoryKind::Path {
        return None;
    }
    let Some(Ok(seen)) = observed.paths.paths.get(&step.key) else {
        return None;
    };
    let physical = seen.look.elsewhere.as_deref()?;
    let reason = fleet::why_forbidden(physical, &rules.limits)?;
    let message = format!(
        "refused {}: it leads to '{physical}', which no fleet may manage: {reason}",
        step.id
    );
    Some(Failure::new(Class::Author, message).about(step.id.clone()))
}

/// Puts a kind's steps among ours. There may be tens of thousands, so that each is given up as soon as it is read.
fn read<K: Kind>(
    found: Vec<kind::Step<K::Original, K::Change>>,
    kind: InventoryKind,
    is_unchanged: &dyn Fn(InventoryKind, &str) -> bool,
    wrap: fn(K::Change) -> Change,
    steps: &mut Vec<Step>,
    plan: &mut Plan,
) {
    steps.reserve(found.len());
    for step in found {
        let change = match step {
            kind::Step::Blocked(failure) => {
                plan.blocked.push(failure);
                continue;
            }
            kind::Step::Release { key, .. } => {
                plan.released.push((kind, key.into()));
                continue;
            }
            kind::Step::Change(change) => *change,
        };
        let PlannedChange {
            id,
            key,
            action,
            reason,
            mut fields,
            original,
            removes,
            change,
        } = change;
        if kind == InventoryKind::Path && key != id.name {
            // A unit's file, or a directory made on the way: say which, because the resource does not.
            fields.insert(0, key.to_string());
        }
        let mut original =
            serde_json::to_string(&original).expect("what a kind keeps is plain data");
        original.shrink_to_fit();
        let is_drift = is_unchanged(kind, &key);
        steps.push(Step {
            id,
            kind,
            key,
            action,
            reason,
            fields,
            is_drift,
            removes,
            blockers: Vec::new(),
            because: Vec::new(),
            is_owed: false,
            waits: false,
            original,
            change: wrap(change),
        });
    }
}

/// The resources that are looked at and not touched.
pub fn reported_resources(desired: &DesiredState) -> BTreeSet<&ResourceId> {
    let paths = desired
        .paths
        .iter()
        .filter(|path| path.report)
        .map(|path| &path.id);
    let packages = desired
        .packages
        .iter()
        .filter(|package| package.report)
        .map(|package| &package.id);
    let units = desired
        .units
        .iter()
        .filter(|unit| unit.report)
        .map(|unit| &unit.id);
    let commands = desired
        .commands
        .iter()
        .filter(|command| command.report)
        .map(|command| &command.id);
    let accounts = desired
        .accounts
        .iter()
        .filter(|account| account.report)
        .map(|account| &account.id);
    let sysctls = desired
        .sysctls
        .iter()
        .filter(|sysctl| sysctl.report)
        .map(|sysctl| &sysctl.id);
    let others = accounts.chain(sysctls).chain(units).chain(commands);
    paths.chain(packages).chain(others).collect()
}

impl Plan {
    /// All steps to be made, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.batches.iter().flatten()
    }

    /// Is the step only written down as owed: the restart of something paused, which is made when the pause ends, or one that waits for
    /// a person.
    pub fn is_postponed(&self, step: &Step) -> bool {
        step.waits || step.reason == Reason::Triggered && self.paused.contains(&step.id)
    }

    /// Leaves nothing to be made: what differs is only reported, and what is remembered stays.
    pub fn suspend(&mut self) {
        let steps = std::mem::take(&mut self.batches).into_iter().flatten();
        self.reported
            .extend(steps.filter(|step| step.reason != Reason::Triggered));
        self.released.clear();
        self.void_debts.clear();
    }

    /// Drops the steps that are not to be made.
    pub fn retain(&mut self, is_kept: impl Fn(&Step) -> bool) {
        for batch in &mut self.batches {
            batch.retain(&is_kept);
        }
        self.batches.retain(|batch| !batch.is_empty());
    }
}
