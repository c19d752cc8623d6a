//! Resources that somebody else changes back: counted, left alone for longer and longer, and told of once.
//!
//! Invariant: written only when something was corrected, forgiven or over. The counts outlive the agent; a person who asks for a cycle
//! and a new declaration of the resource end them.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{debug, info};

use crate::apply::Walked;
use crate::cycle::{Cycle, InForce, other_side};
use crate::model::{Class, Failure, ResourceId};
use crate::plan::contest::Contest;
use crate::plan::{Declarations, Inventory, Plan};
use crate::record::Record;
use crate::report::{journal, moment};
use crate::sys::clock;

/// Under which name the record keeps the [`Contests`].
const CONTESTS: &str = "contests";

/// What was corrected of late, by resource.
pub(super) type Contests = BTreeMap<ResourceId, Contest>;

/// What `record` remembers; what another version wrote and this one cannot read is forgiven.
pub(super) fn recall(record: &Record) -> Contests {
    record.recall(CONTESTS).ok().flatten().unwrap_or_default()
}

/// Why `id` is contested, for people, if it is.
pub(super) fn explain(contests: &Contests, id: &ResourceId) -> Option<String> {
    let contest = contests.get(id).filter(|contest| contest.is_contested())?;
    Some(words(contest))
}

fn words(contest: &Contest) -> String {
    let known = contest.other_side.as_deref();
    let known = known.map_or(String::new(), |known| format!("; {known}"));
    format!(
        "it was corrected {} times in a row since {}, and is left alone until {}{known}",
        contest.corrections,
        moment(contest.since),
        moment(contest.rests_until()),
    )
}

impl Cycle {
    /// A person asks for a cycle: everything is tried again.
    pub(super) fn forgive_contests(&mut self) {
        if !self.contests.is_empty() {
            self.contests.clear();
            self.keep_contests();
        }
    }

    /// Forgets what stayed as declared for long, and what is declared anew or no more.
    pub(super) fn end_contests(&mut self, in_force: &InForce, inventory: &Inventory) {
        if self.contests.is_empty() {
            return;
        }
        let now = clock::now();
        let declarations = Declarations::new(&in_force.desired, inventory);
        let mut unchanged: BTreeSet<&ResourceId> = BTreeSet::new();
        let mut changed: BTreeSet<&ResourceId> = BTreeSet::new();
        for (kind, key) in declarations.keys() {
            if let Some((id, _)) = declarations.declared_by(kind, &key)
                && self.contests.contains_key(id)
            {
                let is_unchanged = declarations.is_as_applied(kind, &key);
                let ids = if is_unchanged {
                    &mut unchanged
                } else {
                    &mut changed
                };
                ids.insert(id);
            }
        }
        let is_ended = |id: &ResourceId, contest: &Contest| {
            let is_another = changed.contains(id) || !unchanged.contains(id);
            // What was never contested is forgotten when something is written anyway.
            is_another || (contest.is_contested() && contest.is_over(now))
        };
        let before = self.contests.len();
        self.contests.retain(|id, contest| {
            let ends = is_ended(id, contest);
            if ends && contest.is_contested() {
                info!(limpet_resource = %id, "{id} is no longer contested");
            }
            !ends
        });
        if self.contests.len() < before {
            self.keep_contests();
        }
    }

    /// Counts what was corrected.
    pub(super) fn note_corrections(&mut self, walked: &Walked) {
        if walked.corrected.is_empty() {
            return;
        }
        let now = clock::now();
        self.contests.retain(|_, contest| !contest.is_over(now));
        for id in &walked.corrected {
            let contest = Contest::corrected(self.contests.get(id), now);
            self.contests.insert(id.clone(), contest);
        }
        self.keep_contests();
    }

    /// What is left alone now.
    pub(super) fn resting_contests(&self) -> BTreeMap<ResourceId, Failure> {
        let now = clock::now();
        let resting = self
            .contests
            .iter()
            .filter(|(_, contest)| contest.rests(now));
        resting
            .map(|(id, contest)| (id.clone(), failure(id, contest)))
            .collect()
    }

    /// Looks for who changed back what `plan` leaves alone, and tells it: once.
    pub(super) fn learn_of_the_other_side(&mut self, in_force: &InForce, plan: &mut Plan) {
        let mut has_learnt = false;
        for blocked in &mut plan.blocked {
            let Some(id) = blocked.resource.clone() else {
                continue;
            };
            let Some(contest) = self.contests.get_mut(&id) else {
                continue;
            };
            // The same failure: it is this that blocks it, and nobody was looked for yet.
            if contest.other_side.is_none() && *blocked == failure(&id, contest) {
                contest.other_side = Some(other_side::look(&self.host, &id));
                *blocked = failure(&id, contest);
                journal::contested(&in_force.revision, &id, blocked);
                has_learnt = true;
            }
        }
        if has_learnt {
            self.keep_contests();
        }
    }

    /// Shows what is contested.
    pub(super) fn show_contests(&mut self) {
        let ids = self.contests.keys();
        self.situation.contested = ids
            .filter_map(|id| Some((id.clone(), explain(&self.contests, id)?)))
            .collect();
    }

    fn keep_contests(&self) {
        let kept = match self.contests.is_empty() {
            true => self.record.forget(CONTESTS),
            false => self.record.remember(CONTESTS, &self.contests),
        };
        if let Err(failure) = kept {
            debug!("failed to record what is contested, ignoring: {failure}");
        }
    }
}

/// The failure of a resource that is left alone; the same for as long as the contest lasts.
fn failure(id: &ResourceId, contest: &Contest) -> Failure {
    let known = contest.other_side.as_deref();
    let known = known.map_or(String::new(), |known| format!(": {known}"));
    let message = format!("{id} is contested, somebody else changes it back{known}");
    Failure::new(Class::Host, message)
        .with_hint("let one of both manage it: stop the other, or undeclare it; 'limpet sync' corrects it at once")
        .about(id.clone())
}
