//! What crosses kinds: triggers, debts, order, what a failure takes with it. The kinds' own plans are tested with them.

use std::sync::Arc;

use super::*;
use crate::kinds::command::DesiredCommand;
use crate::kinds::file::{DesiredPath, ObservedPath, PathSpec};
use crate::kinds::kind::{Content, ContentSource};
use crate::kinds::package::{DesiredPackage, PackageState};
use crate::kinds::repository::{DesiredRepository, Told};
use crate::kinds::unit::{DesiredUnit, ObservedUnit};
use crate::model::{Kind as ResourceKind, OnRemoval};
use crate::sys::files::{Entry, Look, hash_bytes};
use crate::sys::xattrs::{NamedXattrs, Xattrs};

mod undeclared;

/// A host with some files and units, as it is declared and as it was seen.
pub(super) struct Scene {
    pub(super) desired: DesiredState,
    pub(super) observed: Observed,
    pub(super) inventory: Inventory,
    pub(super) rules: Rules,
}

impl Scene {
    pub(super) fn new() -> Self {
        Scene {
            desired: DesiredState::default(),
            observed: Observed {
                accounts: Default::default(),
                sysctls: Default::default(),
                paths: Default::default(),
                packages: Default::default(),
                units: Default::default(),
            },
            inventory: Inventory::default(),
            rules: Rules::default(),
        }
    }

    /// Declares a file that is not there yet.
    pub(super) fn missing_file(mut self, id: &str, path: &str) -> Self {
        let bytes: Arc<[u8]> = Arc::from(&b"x"[..]);
        let content = Content {
            sha256: hash_bytes(&bytes),
            size: 1,
            source: ContentSource::Inline(bytes),
        };
        let spec = PathSpec::File {
            content: Some(content),
            mode: None,
            owner: None,
            group: None,
            xattrs: NamedXattrs::default(),
            validate: None,
        };
        let id = id.parse().unwrap();
        self.desired.paths.push(DesiredPath {
            path: path.into(),
            id,
            spec,
            report: false,
            on_removal: OnRemoval::Restore,
            as_user: None,
        });
        let look = Look {
            entry: Entry::Absent,
            elsewhere: None,
            missing_parents: Arc::new([]),
        };
        self.observed.paths.paths.insert(
            path.into(),
            Ok(ObservedPath {
                look,
                xattrs: Xattrs::default(),
                children: Vec::new(),
            }),
        );
        self.observed.paths.users.insert("root".to_owned(), 0);
        self.observed.paths.groups.insert("root".to_owned(), 0);
        self
    }

    /// Declares `app.service`, which is `active` now; `declare` says more.
    pub(super) fn unit(mut self, active: &str, declare: impl FnOnce(&mut DesiredUnit)) -> Self {
        let name = "app.service".to_owned();
        let mut unit = DesiredUnit {
            id: ResourceId::new(ResourceKind::Unit, &name),
            name: name.clone(),
            enabled: None,
            running: None,
            masked: None,
            optional: false,
            restart_on: Vec::new(),
            reload_on: Vec::new(),
            validate: None,
            manual: false,
            files: Vec::new(),
            report: false,
            on_removal: OnRemoval::Restore,
        };
        declare(&mut unit);
        self.desired.units.push(unit);
        self.see_unit(active)
    }

    fn see_unit(mut self, active: &str) -> Self {
        let seen = ObservedUnit {
            exists: true,
            active: active.to_owned(),
            file_state: "disabled".to_owned(),
            needs_daemon_reload: false,
            ends_by_itself: false,
            can_reload: None,
            link: None,
            boot: None,
            is_enabled_below: false,
        };
        self.observed
            .units
            .units
            .insert("app.service".to_owned(), Ok(seen));
        self
    }

    /// What is declared is what was applied before.
    pub(super) fn is_as_declared_before(&mut self) {
        for path in &self.desired.paths {
            let applied = crate::kinds::file::applied_after(path, None);
            self.inventory.paths.push(Owned {
                id: path.id.clone(),
                key: path.path.clone(),
                original: crate::kinds::file::Original::Absent,
                on_removal: path.on_removal,
                applied: crate::kinds::file::Remembered::Applied(applied),
            });
        }
    }

    pub(super) fn owes(mut self, action: Action) -> Self {
        self.inventory.owed.push(Debt {
            debtor: app(),
            action,
            because: conf(),
            caused: None,
        });
        self
    }

    /// Declares a command that runs when one of `run_on` changed, or once.
    pub(super) fn command(mut self, name: &str, run_on: &[ResourceId]) -> Self {
        self.desired.commands.push(DesiredCommand {
            name: name.to_owned(),
            id: ResourceId::new(ResourceKind::Command, name),
            argv: vec!["true".to_owned()],
            timeout: std::time::Duration::from_secs(60),
            run_on: run_on.to_vec(),
            once: run_on.is_empty(),
            report: false,
        });
        self
    }

    /// Declares a repository with this file.
    pub(super) fn repository(mut self, name: &str, path: &str) -> Self {
        let id = ResourceId::new(ResourceKind::Repository, name);
        self = self.missing_file(&id.to_string(), path);
        self.desired.repositories.push(DesiredRepository {
            id,
            told: Told::Apt(path.to_owned()),
            report: false,
        });
        self
    }

    fn owes_a_run(mut self, name: &str) -> Self {
        self.inventory.owed.push(Debt {
            debtor: ResourceId::new(ResourceKind::Command, name),
            action: Action::Run,
            because: conf(),
            caused: None,
        });
        self
    }

    pub(super) fn plan(&self) -> Plan {
        plan(&self.desired, &self.observed, &self.inventory, &self.rules)
    }

    /// The batches in words.
    #[track_caller]
    pub(super) fn check(&self, expected: &[&str]) {
        let plan = self.plan();
        let words = |batch: &Vec<Step>| {
            let steps: Vec<String> = batch
                .iter()
                .map(|step| format!("{} {}", step.action, step.id))
                .collect();
            steps.join(", ")
        };
        assert_eq!(plan.batches.iter().map(words).collect::<Vec<_>>(), expected);
    }
}

pub(super) fn app() -> ResourceId {
    ResourceId::new(ResourceKind::Unit, "app.service")
}

pub(super) fn conf() -> ResourceId {
    ResourceId::new(ResourceKind::File, "/etc/app.conf")
}

fn restarts_on_conf(unit: &mut DesiredUnit) {
    unit.restart_on = vec![conf()];
}

#[test]
fn a_changed_file_restarts_the_unit_that_reads_it_if_it_runs() {
    let scene = |active: &str| {
        Scene::new()
            .missing_file("file:/etc/app.conf", "/etc/app.conf")
            .unit(active, restarts_on_conf)
    };
    scene("active").check(&["create file:/etc/app.conf", "restart unit:app.service"]);
    scene("inactive").check(&["create file:/etc/app.conf"]);
    Scene::new().unit("active", restarts_on_conf).check(&[]);
}

#[test]
fn a_restart_makes_a_reload_needless() {
    let both = |unit: &mut DesiredUnit| {
        unit.restart_on = vec![conf()];
        unit.reload_on = vec![conf()];
    };
    let reloads = |unit: &mut DesiredUnit| unit.reload_on = vec![conf()];
    let file = || Scene::new().missing_file("file:/etc/app.conf", "/etc/app.conf");
    file()
        .unit("active", both)
        .check(&["create file:/etc/app.conf", "restart unit:app.service"]);
    file()
        .unit("active", reloads)
        .check(&["create file:/etc/app.conf", "reload unit:app.service"]);
}

#[test]
fn all_unit_files_come_before_one_daemon_reload_and_that_before_the_units() {
    let scene = Scene::new()
        .missing_file("unit:app.service", "/etc/systemd/system/app.service")
        .missing_file(
            "file:/etc/systemd/system/other.service",
            "/etc/systemd/system/other.service",
        )
        .unit("inactive", |unit| {
            unit.running = Some(true);
            unit.files = vec!["/etc/systemd/system/app.service".to_owned()];
        });
    scene.check(&[
        "create unit:app.service, create file:/etc/systemd/system/other.service",
        "daemon-reload unit:app.service",
        "start unit:app.service",
    ]);
}

#[test]
fn a_unit_that_is_started_anyway_is_started_afresh() {
    let scene = Scene::new()
        .missing_file("file:/etc/app.conf", "/etc/app.conf")
        .unit("inactive", |unit| {
            unit.running = Some(true);
            restarts_on_conf(unit);
        });
    scene.check(&["create file:/etc/app.conf", "start unit:app.service"]);
    let plan = scene.plan();
    let start = plan
        .steps()
        .find(|step| step.action == Action::Start)
        .unwrap();
    let Change::Unit(change) = &start.change else {
        panic!("a start is a change of a unit")
    };
    assert_eq!(change.operation, crate::kinds::unit::Operation::StartAfresh);
    assert_eq!(start.because, [conf()]);
}

#[test]
fn a_restart_that_waits_for_a_person_is_owed_and_not_made() {
    let manual = |unit: &mut DesiredUnit| {
        restarts_on_conf(unit);
        unit.manual = true;
    };
    let changing = Scene::new()
        .missing_file("file:/etc/app.conf", "/etc/app.conf")
        .unit("active", manual);
    let waiting = |plan: &Plan| -> Vec<bool> { plan.steps().map(|step| step.waits).collect() };
    assert_eq!(waiting(&changing.plan()), [false, true]);
    let later = Scene::new().unit("active", manual).owes(Action::Restart);
    let plan = later.plan();
    assert!(plan.steps().all(|step| plan.is_postponed(step)) && plan.void_debts.is_empty());
    // One that failed is not started for it either, but where it is declared to run.
    let failed = Scene::new().unit("failed", manual).owes(Action::Restart);
    failed.check(&[]);
    assert!(failed.plan().void_debts.is_empty());
}

#[test]
fn a_restart_by_anybody_pays_when_it_came_after_the_change() {
    for manual in [false, true] {
        for (caused, started, is_paid) in [
            (Some(10), Some(11), true),
            (Some(10), Some(9), false),
            (None, Some(11), false),
            (Some(10), None, false),
        ] {
            let mut scene = Scene::new()
                .unit("active", |unit| unit.manual = manual)
                .owes(Action::Restart);
            scene.inventory.owed[0].caused = caused;
            if let Some(started) = started {
                let known = &mut scene.observed.units.started;
                known.insert("app.service".to_owned(), started);
            }
            let plan = scene.plan();
            assert_eq!(plan.void_debts.len(), usize::from(is_paid), "{caused:?}");
            assert_eq!(plan.steps().count(), usize::from(!is_paid));
        }
    }
}

#[test]
fn a_unit_that_cannot_reload_is_restarted() {
    let scene = |can_reload, manual| {
        let mut scene = Scene::new()
            .missing_file("file:/etc/app.conf", "/etc/app.conf")
            .unit("active", |unit| {
                unit.reload_on = vec![conf()];
                unit.manual = manual;
            });
        let seen = scene.observed.units.units.get_mut("app.service").unwrap();
        seen.as_mut().unwrap().can_reload = Some(can_reload);
        scene
    };
    scene(true, true).check(&["create file:/etc/app.conf", "reload unit:app.service"]);
    scene(false, false).check(&["create file:/etc/app.conf", "restart unit:app.service"]);
    assert!(scene(true, true).plan().steps().all(|step| !step.waits));
    assert!(scene(false, true).plan().steps().any(|step| step.waits));
}

#[test]
fn a_debt_of_an_earlier_run_is_paid_and_one_that_nobody_can_pay_is_dropped() {
    let owing = |active: &str| {
        Scene::new()
            .unit(active, restarts_on_conf)
            .owes(Action::Restart)
    };
    owing("active").check(&["restart unit:app.service"]);
    owing("failed").check(&["restart unit:app.service"]);
    owing("inactive").check(&[]);
    assert_eq!(
        owing("inactive").plan().void_debts,
        [(app(), Action::Restart)]
    );
    let undeclared = Scene::new().see_unit("active").owes(Action::Reload);
    assert_eq!(undeclared.plan().void_debts, [(app(), Action::Reload)]);
}

#[test]
fn a_unit_that_failed_and_is_no_longer_declared_is_not_started_for_its_debt() {
    let mut scene = Scene::new().see_unit("failed").owes(Action::Restart);
    scene.inventory.units.push(Owned {
        key: "app.service".into(),
        id: ResourceId::new(ResourceKind::Unit, "app.service"),
        on_removal: OnRemoval::Keep,
        applied: Default::default(),
        original: Default::default(),
    });
    scene.check(&[]);
    assert_eq!(scene.plan().void_debts, [(app(), Action::Restart)]);

    // Unless it ran before limpet touched it: our restart broke it.
    let owned = &mut scene.inventory.units[0];
    owned.on_removal = OnRemoval::Restore;
    owned.original.active = true;
    scene.check(&["restart unit:app.service"]);
    assert_eq!(scene.plan().void_debts, []);
}

fn run(name: &str) -> ResourceId {
    ResourceId::new(ResourceKind::Command, name)
}

#[test]
fn a_command_runs_between_what_changed_and_the_units_and_what_names_it_follows() {
    let scene = Scene::new()
        .missing_file("file:/etc/app.conf", "/etc/app.conf")
        .missing_file("file:/etc/late", "/etc/late")
        .command("second", &[run("first")])
        .command("first", &[conf()])
        .command("bystander", &[app()])
        .unit("active", |unit| unit.restart_on = vec![run("second")]);
    scene.check(&[
        "create file:/etc/app.conf, create file:/etc/late",
        "run command:first",
        "run command:second",
        "restart unit:app.service",
    ]);
    let mut waiting = scene;
    let late = ResourceId::new(ResourceKind::File, "/etc/late");
    waiting.desired.needs.insert(late, vec![run("first")]);
    waiting.check(&[
        "create file:/etc/app.conf",
        "run command:first",
        "create file:/etc/late",
        "run command:second",
        "restart unit:app.service",
    ]);
}

#[test]
fn the_lists_of_a_repository_that_changed_are_fetched_before_packages_and_owed_until_they_are() {
    let package = |name: &str| DesiredPackage {
        name: name.to_owned(),
        id: ResourceId::new(ResourceKind::Package, name),
        state: PackageState::Installed,
        hold: None,
        report: false,
        on_removal: OnRemoval::Restore,
    };
    let mut scene = Scene::new()
        .repository("b", "/etc/apt/sources.list.d/b.sources")
        .missing_file("file:/etc/app.conf", "/etc/app.conf");
    scene.desired.packages = vec![package("tool")];
    let expected = [
        "create repository:b",
        "run repository:b",
        "install package:tool",
        "create file:/etc/app.conf",
    ];
    scene.check(&expected);
    let repository = ResourceId::new(ResourceKind::Repository, "b");
    let debt = |because: &ResourceId| Debt {
        debtor: repository.clone(),
        action: Action::Run,
        because: because.clone(),
        caused: None,
    };

    // Its file is as declared, and fetching failed the last time.
    let mut owing = Scene::new();
    owing.desired.repositories = scene.desired.repositories.clone();
    owing.inventory.owed.push(debt(&repository));
    owing.check(&["run repository:b"]);
    owing.desired.repositories.clear();
    owing.check(&[]);
    assert_eq!(owing.plan().void_debts, [(repository.clone(), Action::Run)]);

    // What needs it waits for its lists, too; a paused one is left alone.
    let tool = ResourceId::new(ResourceKind::Package, "tool");
    scene.desired.needs.insert(tool, vec![repository.clone()]);
    scene.check(&expected);
    scene.rules.paused.insert(repository);
    scene.check(&["install package:tool", "create file:/etc/app.conf"]);
}

#[test]
fn a_command_that_is_owed_runs_and_one_that_nothing_triggers_any_more_is_forgiven() {
    let triggered = || Scene::new().command("reindex", &[conf()]);
    triggered().check(&[]);
    let owing = triggered().owes_a_run("reindex");
    owing.check(&["run command:reindex"]);
    assert!(owing.plan().steps().all(|step| step.is_owed));
    let undeclared = Scene::new().owes_a_run("reindex");
    undeclared.check(&[]);
    assert_eq!(
        undeclared.plan().void_debts,
        [(run("reindex"), Action::Run)]
    );
    let mut paused = triggered().owes_a_run("reindex");
    paused.rules.paused.insert(run("reindex"));
    let plan = paused.plan();
    assert!(plan.steps().all(|step| plan.is_postponed(step)) && plan.void_debts.is_empty());
}

#[test]
fn a_command_that_runs_once_needs_its_success_and_a_record_that_is_whole() {
    let mut scene = Scene::new().command("reindex", &[]);
    scene.check(&["run command:reindex"]);
    scene.rules.keep_everything = true;
    scene.check(&[]);
    scene.rules.keep_everything = false;
    scene.inventory.commands.push(Owned {
        id: run("reindex"),
        key: "reindex".into(),
        original: Default::default(),
        on_removal: OnRemoval::Keep,
        applied: Default::default(),
    });
    scene.check(&[]);
    let key = (InventoryKind::Command, "reindex".to_owned());
    scene.inventory.unmade.insert(key);
    scene.check(&["run command:reindex"]);
    assert!(scene.plan().steps().all(|step| !step.is_drift));
}

#[test]
fn units_that_systemd_was_not_told_of_are_read_again_in_a_later_run() {
    let scene = Scene::new();
    let owing = |mut scene: Scene| {
        scene.inventory.owed.push(Debt {
            debtor: ResourceId::new(ResourceKind::File, "/etc/systemd/system/other.service"),
            action: Action::DaemonReload,
            because: conf(),
            caused: None,
        });
        scene
    };
    owing(scene).check(&["daemon-reload file:/etc/systemd/system/other.service"]);
    let starting = Scene::new().unit("inactive", |unit| unit.running = Some(true));
    owing(starting).check(&[
        "daemon-reload file:/etc/systemd/system/other.service",
        "start unit:app.service",
    ]);
}

#[test]
fn report_mode_plans_nothing_and_triggers_nothing() {
    let mut scene = Scene::new()
        .missing_file("file:/etc/app.conf", "/etc/app.conf")
        .unit("active", restarts_on_conf)
        .owes(Action::Restart);
    scene.rules.report_only = true;
    scene.check(&[]);
    assert_eq!(scene.plan().reported.len(), 1);
}

#[test]
fn what_rests_takes_its_dependants_with_it_and_nothing_else() {
    let mut scene = Scene::new()
        .missing_file("file:/etc/app.conf", "/etc/app.conf")
        .missing_file("file:/etc/dependant", "/etc/dependant")
        .missing_file("file:/etc/bystander", "/etc/bystander");
    let dependant = ResourceId::new(ResourceKind::File, "/etc/dependant");
    scene.desired.needs.insert(dependant, vec![conf()]);
    scene.rules.resting.insert(
        conf(),
        Failure::new(Class::Host, "it failed a moment ago").about(conf()),
    );
    scene.check(&["create file:/etc/bystander"]);
    let blocked: Vec<String> = scene
        .plan()
        .blocked
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        blocked,
        [
            "it failed a moment ago",
            "skipped create file:/etc/dependant, because file:/etc/app.conf failed"
        ]
    );
}

#[test]
fn a_contested_correction_and_what_it_would_restart_rest_and_a_new_declaration_does_not() {
    let mut scene = Scene::new()
        .missing_file("file:/etc/app.conf", "/etc/app.conf")
        .unit("active", restarts_on_conf);
    scene.rules.contested.insert(
        conf(),
        Failure::new(Class::Host, "somebody else changes it back").about(conf()),
    );
    scene.check(&["create file:/etc/app.conf", "restart unit:app.service"]);
    scene.is_as_declared_before();
    scene.check(&[]);
    assert_eq!(scene.plan().blocked.len(), 1);
    scene.rules.paused.insert(conf());
    assert!(
        scene.plan().blocked.is_empty(),
        "a pause is what a person wants"
    );
}

#[test]
fn a_path_that_a_link_leads_to_a_forbidden_place_is_refused() {
    let mut scene = Scene::new().missing_file("file:/srv/link/shadow", "/srv/link/shadow");
    let paths = &mut scene.observed.paths.paths;
    let mut seen = paths.get("/srv/link/shadow").cloned().unwrap().unwrap();
    seen.look.elsewhere = Some("/etc/shadow".to_owned());
    paths.insert("/srv/link/shadow".into(), Ok(seen));
    scene.check(&[]);
    assert!(
        scene.plan().blocked[0].message.contains("/etc/shadow"),
        "{}",
        scene.plan().blocked[0]
    );
}

#[test]
fn needs_override_the_preference_of_kinds() {
    let mut scene = Scene::new()
        .missing_file("file:/etc/late", "/etc/late")
        .missing_file("file:/etc/early", "/etc/early")
        .unit("inactive", |unit| unit.running = Some(true));
    let late = ResourceId::new(ResourceKind::File, "/etc/late");
    scene.desired.needs.insert(
        late,
        vec![ResourceId::new(ResourceKind::Unit, "app.service")],
    );
    scene.check(&[
        "create file:/etc/early",
        "start unit:app.service",
        "create file:/etc/late",
    ]);
}

#[test]
fn a_paused_resource_is_only_reported_and_what_depends_on_nothing_of_it_goes_on() {
    let mut scene = Scene::new()
        .missing_file("file:/etc/app.conf", "/etc/app.conf")
        .missing_file("file:/etc/other", "/etc/other")
        .unit("active", restarts_on_conf);
    scene.rules.paused.insert(conf());
    scene.check(&["create file:/etc/other"]);
    let reported: Vec<_> = scene
        .plan()
        .reported
        .into_iter()
        .map(|step| step.id)
        .collect();
    assert_eq!(reported, [conf()]);
}

#[test]
fn the_restart_of_a_paused_unit_stays_owed() {
    let mut scene = Scene::new()
        .missing_file("file:/etc/app.conf", "/etc/app.conf")
        .unit("active", restarts_on_conf);
    let unit = ResourceId::new(ResourceKind::Unit, "app.service");
    scene.rules.paused.insert(unit);
    let plan = scene.plan();
    let postponed =
        |plan: &Plan| -> Vec<bool> { plan.steps().map(|step| plan.is_postponed(step)).collect() };
    assert_eq!(postponed(&plan), [false, true]);

    let mut later = Scene::new()
        .unit("active", restarts_on_conf)
        .owes(Action::Restart);
    later.rules.paused = scene.rules.paused;
    let plan = later.plan();
    assert_eq!(postponed(&plan), [true]);
    assert!(plan.void_debts.is_empty());
}

#[test]
fn a_suspended_plan_makes_forgets_and_forgives_nothing() {
    let mut plan = Scene::new()
        .missing_file("file:/etc/app.conf", "/etc/app.conf")
        .unit("active", restarts_on_conf)
        .plan();
    plan.suspend();
    assert_eq!(plan.steps().count(), 0);
    let reported: Vec<_> = plan.reported.iter().map(|step| &step.id).collect();
    assert_eq!(reported, [&conf()]);
    assert!(plan.released.is_empty() && plan.void_debts.is_empty());
}
