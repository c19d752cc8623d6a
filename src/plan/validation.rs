//! Units that judge their files before they read them, and what they did not accept.
//!
//! A *validation* is a trigger that comes after everything a unit reads and before anything that makes it read. A unit that did not
//! accept what is declared is *rejected* there: it goes on with what it ran with before, and only that much is done for it.

use std::collections::BTreeSet;

use crate::fleet::desired::DesiredState;
use crate::kinds::unit::{DesiredUnit, Validation};
use crate::model::{Action, Failure, Name, Reason, ResourceId};
use crate::plan::{Change, InventoryKind, Rules, Step};

/// The validation of `unit`, whose files `steps` change because of what `because` says; nothing where it has none, or can never read them.
pub(super) fn validation(
    unit: &DesiredUnit,
    because: Vec<ResourceId>,
    is_owed: bool,
    steps: &[Step],
    desired: &DesiredState,
) -> Option<Step> {
    let argv = unit.validate.clone()?;
    // One that is only stopped reads them when it is started again, by whomever.
    let ends = |step: &Step| {
        step.kind == InventoryKind::Unit && step.key == unit.name && step.action == Action::Mask
    };
    if because.is_empty() || steps.iter().any(ends) {
        return None;
    }
    let paths = steps.iter().filter(|step| step.kind == InventoryKind::Path);
    let paths: BTreeSet<Name> = paths
        .filter(|step| unit.reads(&step.key, &step.id))
        .map(|step| step.key.clone())
        .collect();
    let is_secret = |step: &Step| matches!(&step.change, Change::Path(change) if change.is_secret);
    let reads_secret = steps
        .iter()
        .any(|step| is_secret(step) && paths.contains(&step.key))
        || desired
            .paths
            .iter()
            .any(|path| path.sealed().is_some() && unit.reads(&path.path, &path.id));
    // What cannot be put back comes first: it is what the debt remembers.
    let is_path = |id: &ResourceId| {
        let mut its_steps = steps.iter().filter(|step| step.id == *id);
        its_steps.any(|step| step.kind == InventoryKind::Path)
    };
    let (undone, lasting): (Vec<_>, Vec<_>) = because.into_iter().partition(is_path);
    Some(Step {
        id: unit.id.clone(),
        kind: InventoryKind::Unit,
        key: unit.name.as_str().into(),
        action: Action::Run,
        reason: Reason::Triggered,
        fields: Vec::new(),
        is_drift: false,
        removes: false,
        blockers: Vec::new(),
        because: lasting.into_iter().chain(undone).collect(),
        is_owed,
        waits: false,
        original: String::new(),
        change: Change::Validation(Box::new(Validation {
            id: unit.id.clone(),
            argv,
            paths,
            reads_secret,
        })),
    })
}

impl Step {
    /// Has it a unit judge its files.
    pub fn is_validation(&self) -> bool {
        matches!(self.change, Change::Validation(_))
    }
}

/// What people are told of the units that do not accept what is declared.
pub(super) fn failures(desired: &DesiredState, rules: &Rules) -> Vec<Failure> {
    let is_declared = |id: &ResourceId| desired.units.iter().any(|unit| unit.id == *id);
    let rejected = rules.rejected.iter().filter(|(id, _)| is_declared(id));
    rejected
        .map(|(id, rejection)| rejection.failure.clone().about(id.clone()))
        .collect()
}

/// Why `step` is not made: it would bring back what a unit did not accept, or go on as if it had.
///
/// What the unit ran with before is kept as it was, and the unit running.
pub(super) fn why_rejected(step: &Step, desired: &DesiredState, rules: &Rules) -> Option<Failure> {
    if !matches!(step.kind, InventoryKind::Path | InventoryKind::Unit) {
        return None;
    }
    rules.rejected.iter().find_map(|(id, rejection)| {
        let unit = desired.units.iter().find(|unit| unit.id == *id)?;
        let is_open = match step.kind {
            InventoryKind::Path => {
                let is_news = unit.reads(&step.key, &step.id) && !step.is_drift;
                !is_news && !rejection.paths.contains(&step.key)
            }
            _ if step.key != unit.name => true,
            _ if step.reason == Reason::Triggered => rejection.is_undone,
            _ => step.is_drift,
        };
        match is_open {
            true => None,
            false if step.id == *id => Some(rejection.failure.clone().about(id.clone())),
            false => Some(left(step, id)),
        }
    })
}

fn left(step: &Step, unit: &ResourceId) -> Failure {
    let id = &step.id;
    let message =
        format!("left {id} as it was before, because {unit} did not accept what is declared");
    Failure::new(crate::model::Class::Author, message).about(id.clone())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Scene, app, conf};
    use super::*;
    use crate::model::Class;
    use crate::plan::Plan;
    use crate::record::Rejection;

    const UNIT_FILE: &str = "/etc/systemd/system/app.service";

    fn validates(unit: &mut DesiredUnit) {
        unit.restart_on = vec![conf()];
        unit.running = Some(true);
        unit.files = vec![UNIT_FILE.to_owned()];
        unit.validate = Some(vec!["app".to_owned(), "--check".to_owned()]);
    }

    fn changed(active: &str) -> Scene {
        Scene::new()
            .missing_file("file:/etc/app.conf", "/etc/app.conf")
            .unit(active, validates)
    }

    fn reject(scene: &mut Scene, paths: &[&str], is_undone: bool) {
        let rejection = Rejection {
            digest: String::new(),
            failure: Failure::new(Class::Author, "failed to validate unit:app.service"),
            paths: paths.iter().map(|path| Name::from(*path)).collect(),
            is_undone,
        };
        scene.rules.rejected.insert(app(), rejection);
    }

    fn blocked(plan: &Plan) -> Vec<String> {
        let ids = plan
            .blocked
            .iter()
            .filter_map(|failure| failure.resource.as_ref());
        ids.map(ToString::to_string).collect()
    }

    #[test]
    fn a_unit_judges_its_files_after_they_are_written_and_before_it_reads_them() {
        changed("active")
            .missing_file("unit:app.service", UNIT_FILE)
            .missing_file("file:/etc/motd", "/etc/motd")
            .check(&[
                "create file:/etc/app.conf, create file:/etc/motd, create unit:app.service",
                "daemon-reload unit:app.service",
                "run unit:app.service",
                "restart unit:app.service",
            ]);
        changed("inactive").check(&[
            "create file:/etc/app.conf",
            "run unit:app.service",
            "start unit:app.service",
        ]);
        let scene = changed("active").missing_file("unit:app.service", UNIT_FILE);
        let plan = scene.plan();
        let found = plan.steps().find_map(|step| match &step.change {
            Change::Validation(validation) => Some(validation.paths.clone()),
            _ => None,
        });
        let paths = ["/etc/app.conf", UNIT_FILE].map(Name::from);
        assert_eq!(found, Some(BTreeSet::from(paths)));
        // Also where it is only stopped: whoever starts it again reads them.
        Scene::new()
            .missing_file("file:/etc/app.conf", "/etc/app.conf")
            .unit("active", |unit| {
                validates(unit);
                unit.running = Some(false);
            })
            .check(&[
                "create file:/etc/app.conf",
                "run unit:app.service",
                "stop unit:app.service",
            ]);
        // Nothing that it reads changes.
        Scene::new()
            .missing_file("file:/etc/motd", "/etc/motd")
            .unit("active", validates)
            .check(&["create file:/etc/motd"]);
    }

    #[test]
    fn what_needs_the_unit_waits_for_its_verdict() {
        let mut scene = changed("active").missing_file("file:/etc/after", "/etc/after");
        let after: ResourceId = "file:/etc/after".parse().unwrap();
        scene.desired.needs.insert(after, vec![app()]);
        scene.check(&[
            "create file:/etc/app.conf",
            "run unit:app.service",
            "create file:/etc/after",
            "restart unit:app.service",
        ]);
    }

    #[test]
    fn a_verdict_is_owed_until_it_was_given_whether_the_unit_runs_or_not() {
        for active in ["active", "inactive"] {
            let owing = |declare: fn(&mut DesiredUnit)| {
                let scene = Scene::new().unit(active, |unit| {
                    declare(unit);
                    unit.running = None;
                });
                scene.owes(Action::Run)
            };
            let scene = owing(validates);
            scene.check(&["run unit:app.service"]);
            assert!(scene.plan().void_debts.is_empty());
            let none = owing(|_| {});
            none.check(&[]);
            assert_eq!(none.plan().void_debts, [(app(), Action::Run)]);
        }
    }

    #[test]
    fn what_cannot_be_put_back_is_what_the_debt_remembers() {
        let reindex: ResourceId = "command:reindex".parse().unwrap();
        let mut scene = changed("active").command("reindex", &[conf()]);
        scene.desired.units[0].restart_on.push(reindex.clone());
        let plan = scene.plan();
        let run = plan.steps().find(|step| step.is_validation()).unwrap();
        assert_eq!(run.because, [reindex, conf()]);
    }

    #[test]
    fn a_rejected_unit_goes_on_with_what_it_had_and_the_rest_of_the_host_goes_on() {
        let mut scene = changed("failed").missing_file("file:/etc/motd", "/etc/motd");
        reject(&mut scene, &["/etc/app.conf"], true);
        // It never ran with what is declared now.
        scene.check(&["create file:/etc/motd"]);
        assert_eq!(
            blocked(&scene.plan()),
            ["unit:app.service", "file:/etc/app.conf"]
        );
        // It did, and fell over.
        let original = crate::kinds::unit::Original::default();
        scene.inventory.units.push(crate::kinds::kind::Owned {
            id: app(),
            key: "app.service".into(),
            original,
            on_removal: crate::model::OnRemoval::Restore,
            applied: crate::kinds::unit::applied(&scene.desired.units[0]),
        });
        scene.check(&["create file:/etc/motd", "start unit:app.service"]);
    }

    #[test]
    fn what_a_unit_did_not_accept_is_not_written_again_even_where_it_is_drift() {
        for is_drift in [false, true] {
            let mut scene = changed("active");
            if is_drift {
                scene.is_as_declared_before();
            }
            let before = scene.plan();
            assert!(before.steps().any(|step| step.key == "/etc/app.conf"));
            reject(&mut scene, &["/etc/app.conf"], true);
            scene.check(&[]);
            // What it was not asked about is put right.
            reject(&mut scene, &[], true);
            let expected: &[&str] = match is_drift {
                true => &[
                    "create file:/etc/app.conf",
                    "run unit:app.service",
                    "restart unit:app.service",
                ],
                false => &[],
            };
            scene.check(expected);
        }
    }

    #[test]
    fn a_unit_is_restarted_after_a_rejection_only_where_all_of_it_was_put_back() {
        for (is_undone, waits) in [(true, false), (false, true)] {
            let mut scene = Scene::new().unit("active", validates).owes(Action::Restart);
            reject(&mut scene, &[], is_undone);
            let plan = scene.plan();
            let restarts: Vec<bool> = plan.steps().map(|step| step.waits).collect();
            assert_eq!(restarts, [waits]);
        }
    }

    #[test]
    fn what_a_resting_unit_is_to_do_stays_owed() {
        let mut scene = changed("active");
        let failure = Failure::new(Class::Host, "it failed").about(app());
        scene.rules.resting.insert(app(), failure);
        let plan = scene.plan();
        let words: Vec<(Action, bool)> =
            plan.steps().map(|step| (step.action, step.waits)).collect();
        assert_eq!(
            words,
            [
                (Action::Create, false),
                (Action::Run, true),
                (Action::Restart, true)
            ]
        );
    }
}
