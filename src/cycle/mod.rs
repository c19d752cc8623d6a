//! One reconciliation, told top to bottom: poll, judge, render, observe, plan, apply, look again.
//!
//! A *cycle* begins with a trigger and ends with a status. The *revision in force* is the last one that was verified and rendered;
//! it is enforced in every cycle, whatever becomes of the poll.
//!
//! Invariant: enforcement needs neither the fetcher nor the network. A cycle that finds nothing to do writes nothing, runs no program
//! and logs nothing above debug.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::apply::{Activity, TRANSACTION_SILENCE};
use crate::config::{Config, Source};
use crate::fetch::client::Upstream;
use crate::fleet::{DesiredState, Rendered};
use crate::git::{ObjectId, Tree};
use crate::model::{Failure, ResourceId};
use crate::record::Record;
use crate::record::objects::ObjectStore;
use crate::report::journal;
use crate::report::preview::Preview;
use crate::report::status::{State as HostState, Status, StatusError};
use crate::sys::jobs::{Job, Verb};
use crate::sys::{Host, clock};
use crate::trust::{self, TrustedHead, VerifiedRevision};

pub mod audit;
pub mod contents;
mod enforce;
mod explain;
mod full_look;
mod inventory;
pub mod judge;
pub mod look;
mod pace;
pub mod pause;
mod preview;
pub mod situation;
pub mod state;

use contents::StoredContents;
use enforce::Planned;
use full_look::Look;
use judge::Obstacle;
use pace::Silence;
use pause::KeptPause;
use situation::{Beginnings, Situation, Standing};
use state::State;

/// How long the poll may be silent: the fetcher's own limit, and that of reading what it found, twice.
const POLL_SILENCE: Duration = Duration::from_secs(40 * 60);

/// How long the fetcher may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Why a cycle runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The agent started: the revision in force is enforced before anything is polled.
    Start,
    /// The interval passed: what is in force is enforced, and the source polled unless it is to be left alone.
    Tick,
    /// What is in force is to be enforced; nothing is polled.
    Look,
    /// An operator asked, whom no back-off stops.
    Nudge {
        /// Let a plan with too many removals through, this once.
        allow_removals: bool,
    },
}

impl Trigger {
    /// Did a person ask for it.
    pub fn is_nudge(self) -> bool {
        matches!(self, Trigger::Nudge { .. })
    }
}

/// Makes a connection to the fetcher.
pub type Connect = Box<dyn Fn() -> Result<Box<dyn Upstream>, Failure> + Send + Sync>;

/// Told what is being done, and how long it may take.
pub type Progress<'a> = &'a dyn Fn(&Activity, Duration);

/// Everything one cycle hands to the next.
pub struct Cycle {
    host: Host,
    config: Config,
    /// Shared with the thread that waits for the source.
    connect: Arc<Mutex<Connect>>,
    record: Record,
    objects: ObjectStore,
    head: Option<TrustedHead>,
    in_force: Option<InForce>,
    /// The stored objects do not suffice for the trusted head: it is read again from the source.
    must_load: bool,
    /// Why the record could not be written, until it could.
    unwritable: Option<Failure>,
    applied: Option<AppliedRevision>,
    situation: Situation,
    beginnings: Beginnings,
    /// The last tip that was judged; it is judged once.
    judged: Option<ObjectId>,
    resting: BTreeMap<ResourceId, Rest>,
    inventory: inventory::Known,
    look: Look,
    last_status: Option<Status>,
    /// What became of the last tip, as it is recorded.
    standing: Standing,
    /// Set while polls bring nothing.
    silence: Option<Silence>,
    pauses: Vec<KeptPause>,
    /// Who lets through what is held, for the next cycle.
    let_through_by: Option<String>,
}

impl std::fmt::Debug for Cycle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cycle")
            .field("situation", &self.situation)
            .finish_non_exhaustive()
    }
}

/// The revision that is enforced.
#[derive(Debug)]
struct InForce {
    /// In hex; `unverified` for what local root applied without signatures.
    revision: String,
    subject: String,
    signer: Option<String>,
    /// What its message allows to be removed.
    allowed_removals: Option<usize>,
    desired: DesiredState,
    /// How many resources that declares, once it was counted.
    resources: OnceCell<usize>,
}

impl InForce {
    fn number_of_resources(&self) -> usize {
        let count = || self.desired.resource_ids().len();
        *self.resources.get_or_init(count)
    }

    /// The revision and the digest of what it declares here: a new commit may declare the same, and one commit another state where
    /// labels or facts changed.
    fn identity(&self) -> (String, String) {
        (self.revision.clone(), self.desired.digest.clone())
    }
}

/// Under which name the record keeps the kernel's id of the boot that debts belong to.
const BOOT_ID: &str = "boot-id";

/// Under which name the record keeps the status that was reported last.
pub const STATUS: &str = "status";

/// Under which name the record keeps the [`Standing`].
const STANDING: &str = "standing";
/// Under which name the record keeps when it could be written again.
const WRITTEN: &str = "written-again";

/// Under which name the record keeps the [`AppliedRevision`].
const APPLIED: &str = "applied";

/// The revision whose plan was walked to its end last, whatever failed on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedRevision {
    /// In hex.
    pub revision: String,
    /// The first line of its message.
    pub subject: String,
    /// Who signed it.
    pub signer: Option<String>,
    /// When that was.
    pub at: Timestamp,
    /// The digest of the desired state: the same revision declares another one where labels or facts changed.
    pub digest: String,
    /// Was everything once as declared, and that said in the journal.
    pub is_clean: bool,
}

impl AppliedRevision {
    fn is(&self, in_force: &InForce) -> bool {
        self.revision == in_force.revision && self.digest == in_force.desired.digest
    }
}

/// A resource that failed and is not tried again yet.
#[derive(Debug)]
struct Rest {
    failure: Failure,
    attempts: u32,
    /// Not a time of day: a clock that is put right must not let it rest for years.
    until: Instant,
}

impl Cycle {
    /// Opens the state of `host` and loads the revision in force; `connect` reaches the fetcher.
    pub fn open(host: Host, config: Config, connect: Connect) -> Result<Self, Failure> {
        let state = state::open(&host)?;
        let debts = forget_debts_of_the_last_boot(&host, &state.record);
        tell_what_is_missing(&state);
        let mut cycle = Cycle {
            // Only shown: what cannot be read of it is as good as new.
            beginnings: state
                .record
                .recall("beginnings")
                .ok()
                .flatten()
                .unwrap_or_default(),
            applied: state.record.recall(APPLIED).ok().flatten(),
            last_status: state.record.recall(STATUS).ok().flatten(),
            unwritable: state.unwritable.or(debts.err()),
            situation: Situation {
                state_missing: state.missing,
                ..Situation::default()
            },
            standing: recall_standing(&state.record),
            silence: None,
            pauses: Vec::new(),
            let_through_by: None,
            host,
            config,
            connect: Arc::new(Mutex::new(connect)),
            record: state.record,
            objects: state.objects,
            head: state.head,
            in_force: None,
            must_load: false,
            judged: None,
            resting: BTreeMap::new(),
            inventory: inventory::Known::default(),
            look: Look::default(),
        };
        if let Some(applied) = &cycle.applied {
            cycle.situation.take_applied(applied);
        }
        cycle.situation.take_standing(cycle.standing.clone());
        cycle.restore();
        cycle.recall_silence();
        cycle.recall_pauses();
        Ok(cycle)
    }

    /// The host configuration in use.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How often to poll.
    pub fn interval(&self) -> Duration {
        self.config.source.interval
    }

    /// Uses another host configuration from now on.
    pub fn set_config(&mut self, config: Config) {
        if self.config.source != config.source && self.host.systemd().is_available() {
            // The fetcher reads its configuration when it starts, which the next poll makes it do.
            let stop = Job {
                unit: "limpet-fetch.service".to_owned(),
                verb: Verb::Stop,
            };
            for error in self
                .host
                .systemd()
                .run_jobs(&[stop], STOP_LIMIT)
                .into_iter()
                .filter_map(Result::err)
            {
                debug!("failed to stop the fetcher, ignoring: {error:?}");
            }
        }
        self.situation.config.clear();
        let is_another_source = Source {
            interval: config.source.interval,
            ..self.config.source.clone()
        } != config.source;
        self.config = config;
        if is_another_source {
            self.forget_silence();
        }
        // What was only compared with was not applied.
        match &self.applied {
            Some(applied) => self.situation.take_applied(applied),
            None => self.situation.revision = None,
        }
        self.judged = None;
        self.restore();
    }

    /// Says that the host configuration on disk is wrong; the one in use stays.
    pub fn keep_config(&mut self, failures: Vec<Failure>) {
        self.situation.config = failures;
    }

    /// Says who it is that lets through what is held in the next cycle.
    pub fn let_through(&mut self, by: Option<String>) {
        self.let_through_by = by;
    }

    /// Runs one cycle. What is in force is enforced before anything is polled, so that a slow source delays no correction; a person
    /// who asks wants the new revision first.
    pub fn run(&mut self, trigger: Trigger, progress: Progress<'_>) -> Status {
        let allow_removals = matches!(
            trigger,
            Trigger::Nudge {
                allow_removals: true
            }
        );
        self.end_pauses();
        if self.look.is_full(trigger.is_nudge(), clock::instant()) {
            self.host.signatures().forget();
        }
        let mut enforced = None;
        self.mend_state();
        if trigger == Trigger::Start {
            self.adopt_transactions(progress);
        }
        if trigger.is_nudge() {
            self.judged = None;
            self.resting.clear();
        } else {
            enforced = self.enforce_what_is_in_force(allow_removals, progress);
        }
        let polls = match trigger {
            Trigger::Start => enforced.is_none() && self.may_poll_at_start(),
            Trigger::Tick => self.rest_of_the_source().is_zero(),
            Trigger::Look => false,
            Trigger::Nudge { .. } => true,
        };
        if polls {
            progress(&Activity::Polling, POLL_SILENCE);
            self.poll(progress);
        }
        let in_force = self.in_force.as_ref().map(InForce::identity);
        if enforced.is_none() || enforced != in_force {
            self.enforce_what_is_in_force(allow_removals, progress);
        }
        self.report()
    }

    /// Enforces, and returns the identity of what was.
    fn enforce_what_is_in_force(
        &mut self,
        allow_removals: bool,
        progress: Progress<'_>,
    ) -> Option<(String, String)> {
        let in_force = self.in_force.take()?;
        let mut result = self.enforce(&in_force, allow_removals, progress);
        if result.is_err() && self.replace_damaged_record() {
            result = self.enforce(&in_force, allow_removals, progress);
        }
        if let Err(failure) = result {
            self.situation.failures = vec![failure];
        }
        let identity = in_force.identity();
        self.in_force = Some(in_force);
        Some(identity)
    }

    /// Writes the record again, or opens it again, where that failed before.
    fn mend_state(&mut self) {
        if self.must_load && !self.objects.is_whole() {
            match state::open_objects(&self.host) {
                Ok(objects) => self.objects = objects,
                Err(failure) => debug!("failed to make the object store anew: {failure}"),
            }
        }
        if let Some(head) = &self.head
            && self.situation.state_missing.is_none()
        {
            let marked = state::ensure_mark(&self.host, head);
            self.note_unwritten(marked);
        }
        if self.unwritable.is_none() {
            return;
        }
        // What was opened for reading stays so, though the disk may have become writable.
        if self.record.is_copy() || self.objects.is_read_only() {
            // Closed first: SQLite shares what it knows of an open file with every later connection to it.
            if let Ok(nothing) = ObjectStore::in_memory() {
                self.objects = nothing;
            }
            match state::open(&self.host) {
                Ok(state) if state.unwritable.is_none() => self.take_state(state),
                Ok(state) => self.objects = state.objects,
                Err(failure) => debug!("failed to open the state again: {failure}"),
            }
        }
        if self.record.remember(WRITTEN, &clock::now()).is_ok() {
            self.unwritable = None;
        }
    }

    /// Where the record is damaged, goes on as [`state::open`] says for such a host; true when that helps.
    fn replace_damaged_record(&mut self) -> bool {
        if self.record.check().is_ok() {
            return false;
        }
        match state::open(&self.host) {
            Ok(state) => {
                self.take_state(state);
                true
            }
            Err(failure) => {
                debug!("failed to open the state again: {failure}");
                false
            }
        }
    }

    fn take_state(&mut self, mut state: State) {
        state.record.take_paid(&mut self.record);
        // A disk that could not be written when the agent started knows of the last boot only, and of its debts.
        let debts = forget_debts_of_the_last_boot(&self.host, &state.record);
        tell_what_is_missing(&state);
        self.record = state.record;
        self.inventory = inventory::Known::default();
        self.objects = state.objects;
        self.head = state.head;
        self.situation.state_missing = state.missing;
        self.unwritable = state.unwritable.or(debts.err());
        if self.in_force.is_none() {
            self.restore();
        }
    }

    /// The status before the first cycle: the last one that was recorded, because nothing was looked at since.
    pub fn first_status(&mut self) -> Status {
        match self.last_status.clone() {
            Some(status) => Status {
                next_poll_at: None,
                ..status
            },
            None => self.status(),
        }
    }

    /// The status as it is now.
    pub fn status(&mut self) -> Status {
        self.end_pauses();
        self.look_at_the_clock();
        let now = clock::now();
        self.situation
            .status(&self.config.host.name, &mut self.beginnings, None, now)
    }

    /// Loads the trusted head from what is stored here, so that it is enforced without the fetcher.
    fn restore(&mut self) {
        let Some(head) = self.head.clone() else {
            return;
        };
        // Neither the trust files nor the network are asked: it was verified once, and is enforced whatever became of them.
        let source_path = &self.config.source.path;
        let restored = trust::resume(&self.objects, source_path, &head)
            .map_err(|stop| Obstacle::from(Failure::from(stop)))
            .and_then(|revision| Ok((self.render(&revision, &self.objects)?, revision)));
        match restored {
            Ok((rendered, revision)) => self.put_in_force(&revision, rendered),
            Err(obstacle) => {
                self.must_load = true;
                match obstacle {
                    Obstacle::Misplaced(failures) => {
                        self.in_force = None;
                        self.situation.misplaced = failures;
                    }
                    Obstacle::Mistakes(failures) => self.situation.failures = failures,
                    Obstacle::Trouble(failure) => self.situation.failures = vec![failure],
                }
            }
        }
    }

    fn put_in_force(&mut self, revision: &VerifiedRevision, rendered: Rendered) {
        self.must_load = false;
        let desired = self.take_rendered(rendered);
        self.in_force = Some(InForce {
            revision: revision.commit().to_string(),
            subject: revision.subject().to_owned(),
            signer: revision.signer().map(ToString::to_string),
            allowed_removals: allowed_removals(revision),
            desired,
            resources: OnceCell::new(),
        });
    }

    /// The desired state; what is odd about it is told once.
    fn take_rendered(&mut self, rendered: Rendered) -> DesiredState {
        for warning in &rendered.warnings {
            if !self.situation.facts.contains(warning) {
                warn!("{warning}");
            }
        }
        self.situation.facts = rendered.warnings;
        rendered.state
    }

    /// Takes over what an agent before us started and did not see the end of.
    fn adopt_transactions(&mut self, progress: Progress<'_>) {
        let found = match self.host.find_transactions() {
            Ok(found) => found,
            Err(failure) => {
                return debug!("failed to look for running package transactions: {failure}");
            }
        };
        for unit in found {
            progress(
                &Activity::Applying(format!("waiting for {unit}")),
                TRANSACTION_SILENCE,
            );
            match self.host.adopt(&unit) {
                Ok(result) if result.is_success() => tracing::info!("adopted {unit}: it succeeded"),
                Ok(result) => warn!("adopted {unit}: {}", result.complaint()),
                Err(failure) => warn!("failed to adopt {unit}: {failure}"),
            }
        }
    }

    /// Records `status` for those who ask while no agent runs.
    pub fn remember(&self, status: &Status) -> Result<(), Failure> {
        self.record.remember(STATUS, status)
    }

    /// The status after a cycle; what changed about it is logged and recorded.
    fn report(&mut self) -> Status {
        let mut status = self.status();
        let standing = self.situation.standing();
        if standing != self.standing {
            match self.record.remember(STANDING, &standing) {
                Ok(()) => self.standing = standing,
                Err(failure) => self.note_unwritten(Err(failure)),
            }
        }
        let was = self.last_status.as_ref();
        let is_same = was.is_some_and(|was| {
            Status {
                last_poll: None,
                ..was.clone()
            } == Status {
                last_poll: None,
                ..status.clone()
            }
        });
        if !is_same {
            let kept = self
                .record
                .remember(STATUS, &status)
                .and_then(|()| self.record.remember("beginnings", &self.beginnings))
                .and_then(|()| self.record.settle());
            // Said as any other failure, and once.
            if let Err(failure) = kept
                && self.unwritable.is_none()
            {
                self.situation.failures.push(failure.clone());
                self.unwritable = Some(failure);
                status = self.status();
            }
        }
        let was = self.last_status.as_ref();
        let is_ill = |state: HostState| matches!(state, HostState::Degraded | HostState::Held);
        let revision = status.revision.as_deref().unwrap_or("");
        let changed_errors = was.is_none_or(|was| was.errors != status.errors);
        if is_ill(status.state) && changed_errors {
            if let Some(condition) = status.conditions.first() {
                journal::degraded(revision, &condition.reason, &condition.who);
            }
        } else if matches!(status.state, HostState::Converged | HostState::Paused)
            && was.is_some_and(|was| is_ill(was.state) || was.state == HostState::Refused)
        {
            journal::recovered(revision);
        }
        let behind = self.situation.behind.as_ref().map(StatusError::from);
        if let Some(behind) = behind.filter(|behind| status.errors.contains(behind))
            && was.is_none_or(|was| !was.errors.contains(&behind))
        {
            warn!("the source stays behind: {}", behind.message);
        }
        self.last_status = Some(status.clone());
        status
    }

    /// What would change now.
    pub fn preview(&mut self) -> Preview {
        let mut preview = Preview {
            revision: None,
            host: self.config.host.name.clone(),
            digest: None,
            changes: Vec::new(),
            held: Vec::new(),
            errors: self
                .situation
                .mistakes
                .iter()
                .map(StatusError::from)
                .collect(),
            conditions: self.status().conditions,
        };
        let Some(in_force) = self.in_force.take() else {
            return preview;
        };
        preview.revision = Some(in_force.revision.clone());
        preview.digest = Some(in_force.desired.digest.clone());
        // A person asks: nothing is taken from memory.
        self.host.signatures().forget();
        // What rests is planned, too: a person asks what would change, not what is tried next.
        let resting = std::mem::take(&mut self.resting);
        let plan = self.plan(&in_force, false);
        self.resting = resting;
        let contents = StoredContents::new(&self.host, &self.objects);
        match plan.and_then(|planned| Ok((planned, contents?))) {
            Ok((Planned { plan, .. }, contents)) => {
                preview::show(&mut preview, &self.host, &contents, &plan, self.is_paused());
            }
            Err(failure) => preview.errors.push(StatusError::from(&failure)),
        }
        self.in_force = Some(in_force);
        preview
    }

    /// Puts what `tree` declares in force without asking who signed it. Only for a local path, and only on local root's word.
    pub fn force_unverified(&mut self, tree: &dyn Tree) -> Result<(), Vec<Failure>> {
        let rendered = self.render_tree(tree)?;
        let desired = self.take_rendered(rendered);
        // What the source offered last has no part in it.
        self.situation.take_standing(Standing::default());
        self.in_force = Some(InForce {
            revision: "unverified".to_owned(),
            subject: String::new(),
            signer: None,
            allowed_removals: None,
            desired,
            resources: OnceCell::new(),
        });
        Ok(())
    }
}

/// Says that trust state is missing, where it is.
fn tell_what_is_missing(state: &State) {
    if let Some(failure) = &state.missing {
        let revision = state.head.as_ref().map(|head| head.commit.to_string());
        journal::state_missing(&revision.unwrap_or_default(), failure);
    }
}

/// Drops the debts of before the last boot: everything that runs has read its files since.
fn forget_debts_of_the_last_boot(host: &Host, record: &Record) -> Result<(), Failure> {
    if !host.systemd().is_available() {
        return Ok(());
    }
    let id = match host.read_file("/proc/sys/kernel/random/boot_id", 64) {
        Ok(id) => id.unwrap_or_default(),
        Err(failure) => {
            debug!("failed to tell which boot this is, keeping all debts: {failure}");
            return Ok(());
        }
    };
    take_boot(record, String::from_utf8_lossy(&id).trim())?;
    // Nothing is under way: whatever a run of ours was about to change, it is changed by now, or planned anew.
    record.settle_debts(clock::since_boot())
}

/// Drops the debts of before the boot `id`. Where nobody can tell which boot this is, every debt is kept: a restart too many is better
/// than one that never comes.
fn take_boot(record: &Record, id: &str) -> Result<(), Failure> {
    if !id.is_empty() && record.recall::<String>(BOOT_ID)?.as_deref() != Some(id) {
        record.forget_debts_paid_by_boot()?;
        record.remember(BOOT_ID, &id)?;
    }
    Ok(())
}

/// What became of the last tip. Where it cannot be read, the next poll says it again.
fn recall_standing(record: &Record) -> Standing {
    record.recall(STANDING).ok().flatten().unwrap_or_default()
}

/// What the message of `revision` allows to be removed, beyond what the host does.
fn allowed_removals(revision: &VerifiedRevision) -> Option<usize> {
    let allowed = revision
        .trailers()
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case("Limpet-Allow-Removals"));
    allowed
        .filter_map(|(_, value)| value.trim().parse().ok())
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, Kind};
    use crate::record::Owed;

    #[test]
    fn debts_are_forgotten_after_a_boot_and_kept_where_nobody_can_tell() {
        let mut record = Record::in_memory().unwrap();
        let owe = |record: &mut Record| {
            let writing = record.write("aa").unwrap();
            let debt = Owed {
                debtor: ResourceId::new(Kind::Unit, "app.service"),
                action: Action::Restart,
                because: ResourceId::new(Kind::File, "/etc/app"),
                revision: "aa".to_owned(),
                caused: None,
            };
            writing.owe(&debt, Timestamp::UNIX_EPOCH).unwrap();
            writing.commit().unwrap();
        };
        take_boot(&record, "first").unwrap();
        owe(&mut record);
        for (id, left) in [("first", 1), ("", 1), ("first", 1), ("second", 0)] {
            take_boot(&record, id).unwrap();
            assert_eq!(record.owed().unwrap().len(), left, "{id}");
        }
    }
}
