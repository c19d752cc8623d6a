//! What would change, for people: a plan with the differences it makes, and the plan of a revision that is not in force.
//!
//! Invariant: looks only.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::ApplyMode;
use crate::cycle::allowance::{allowed_on_the_way, allowed_removals};
use crate::cycle::archives;
use crate::cycle::contents::StoredContents;
use crate::cycle::enforce::observe;
use crate::cycle::inventory;
use crate::cycle::judge;
use crate::cycle::look::Memory;
use crate::cycle::{pause, trusted_time};
use crate::fleet::{self, Limits};
use crate::git::{Object, ObjectError, ObjectId, Objects, Tree};
use crate::kinds::file::{Vault, find_purged};
use crate::kinds::kind::Contents;
use crate::model::Failure;
use crate::plan::{self, Change, Plan, Rules, Step};
use crate::report::preview::{Preview, PreviewChange, PreviewHeld};
use crate::report::status::StatusError;
use crate::sys::Host;
use crate::trust::{self, Policy, Verdict};

/// How many bytes of diffs a preview shows; it has to fit into one line of the control socket.
const DIFF_BUDGET_BYTES: usize = 4 << 20;

/// Writes into `preview` what `plan` would do.
pub(super) fn show(
    preview: &mut Preview,
    host: &Host,
    contents: &dyn Contents,
    plan: &Plan,
    is_host_paused: bool,
) {
    let mut budget = DIFF_BUDGET_BYTES;
    let steps = plan.steps().chain(&plan.reported);
    let steps = steps.chain(plan.held.iter().map(|held| &held.step));
    let closing = crate::kinds::file::closing(steps.filter_map(|step| match &step.change {
        Change::Path(change) => Some(change.as_ref()),
        _ => None,
    }));
    let mut show = |step: &Step, report: bool| {
        let is_paused = is_host_paused || plan.paused.contains(&step.id);
        let diff = diff_of(host, contents, step, &closing).filter(|diff| diff.len() <= budget);
        budget -= diff.as_ref().map_or(0, String::len);
        preview.changes.push(PreviewChange {
            resource: step.id.clone(),
            action: step.action,
            reason: step.reason,
            fields: step.fields.clone(),
            diff,
            report: report && !is_paused,
            paused: is_paused,
        });
    };
    // What waits for a person is in the status: limpet will not do it.
    let steps = plan.steps().filter(|step| !step.waits);
    steps.for_each(|step| show(step, false));
    plan.reported.iter().for_each(|step| show(step, true));
    let held = plan.held.iter().map(|held| PreviewHeld {
        resource: held.step.id.clone(),
        action: held.step.action,
        reason: held.because.to_string(),
    });
    preview.held.extend(held);
    preview
        .errors
        .extend(plan.blocked.iter().map(StatusError::from));
}

/// What a step does to a content, as people read it.
fn diff_of(
    host: &Host,
    contents: &dyn Contents,
    step: &Step,
    closing: &BTreeSet<&str>,
) -> Option<String> {
    let Change::Path(change) = &step.change else {
        return None;
    };
    crate::kinds::file::diff(host, contents, change, closing)
        .unwrap_or_else(|failure| Some(format!("(no diff: {failure})\n")))
}

impl Memory {
    /// Judges `id` as this host would judge it as the tip of its source.
    pub fn judge(&self, objects: &dyn Objects, id: ObjectId) -> Result<Verdict, Failure> {
        let policy: Policy = judge::read_policy(&self.host, &self.config)?;
        let now = trusted_time::trusted_now(&self.record);
        Ok(trust::verify(objects, &policy, self.head.as_ref(), id, now))
    }

    /// The objects that are kept here, then those of `beyond`, which must hash what it returns.
    pub fn objects_and<'a>(&'a self, beyond: &'a dyn Objects) -> impl Objects + 'a {
        Both {
            first: &self.objects,
            second: beyond,
        }
    }

    /// What would change if the commit `id` were in force.
    pub fn preview_commit(
        &self,
        objects: &dyn Objects,
        id: ObjectId,
        verdict: &Verdict,
    ) -> Result<Preview, Vec<Failure>> {
        let files = trust::unverified_files(objects, &self.config.source.path, id)
            .map_err(|failure| vec![failure])?;
        let removals = match verdict {
            Verdict::Accepted(revision) => {
                allowed_removals(revision).max(allowed_on_the_way(revision))
            }
            _ => None,
        };
        self.preview(&files, objects, &id.to_string(), removals)
    }

    /// What would change if the working directory `files` were in force.
    pub fn preview_files(&self, files: &dyn Tree) -> Result<Preview, Vec<Failure>> {
        self.preview(files, &self.objects, "unverified", None)
    }

    fn preview(
        &self,
        files: &dyn Tree,
        objects: &dyn Objects,
        revision: &str,
        allowed_removals: Option<usize>,
    ) -> Result<Preview, Vec<Failure>> {
        let one = |failure: Failure| vec![failure];
        let identity = judge::measure(&self.host, &self.config).map_err(one)?;
        let limits = Limits::from(&self.config.apply);
        let mut rendered = fleet::render(files, &identity, &limits)?;
        let inventory = inventory::read(&self.record).map_err(one)?;
        let paths = &mut rendered.state.paths;
        archives::unpack_known(paths, &self.record, &limits);
        let unpurged = find_purged(&self.host, paths, &inventory.paths);
        let mut vault = Vault::default();
        vault.open(&self.host, paths, &inventory.paths);
        let mut observed = observe(&self.host, &rendered.state, &inventory, None);
        let paths = &rendered.state.paths;
        vault.look(&self.host, paths, &inventory.paths, &mut observed.paths);
        let pauses = pause::lasting(&self.host, &self.record).map_err(one)?;
        let rules = Rules {
            report_only: self.config.apply.mode == ApplyMode::Report,
            max_removals: Some(self.config.apply.max_removals),
            allowed_removals: allowed_removals.unwrap_or(0),
            is_known_state: super::enforce::knows_state(&self.record, &rendered.state.digest),
            lets_through: false,
            keep_everything: false,
            limits,
            protect_packages: self.config.apply.protect_packages.clone(),
            resting: BTreeMap::new(),
            rejected: BTreeMap::new(),
            contested: BTreeMap::new(),
            paused: pause::resources_among(&pauses),
        };
        let mut plan = plan::plan(&rendered.state, &observed, &inventory, &rules);
        plan.blocked.extend(unpurged);
        let mut preview = Preview {
            revision: Some(revision.to_owned()),
            host: self.config.host.name.clone(),
            digest: Some(rendered.state.digest.clone()),
            changes: Vec::new(),
            held: Vec::new(),
            errors: Vec::new(),
            conditions: Vec::new(),
        };
        let contents = StoredContents::anywhere(&self.host, objects);
        let is_host_paused = pause::is_host_among(&pauses);
        show(&mut preview, &self.host, &contents, &plan, is_host_paused);
        Ok(preview)
    }
}

/// Two stores as one.
struct Both<'a> {
    first: &'a dyn Objects,
    second: &'a dyn Objects,
}

impl Objects for Both<'_> {
    fn get(&self, id: &ObjectId) -> Result<Object, ObjectError> {
        match self.first.get(id) {
            Err(ObjectError::Missing(_)) => self.second.get(id),
            found => found,
        }
    }
}
