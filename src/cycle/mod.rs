//! One reconciliation, told top to bottom: poll, judge, render, observe, plan, apply, look again.
//!
//! A *cycle* begins with a trigger and ends with a status. The *revision in force* is the last one that was verified and rendered;
//! it is enforced in every cycle, whatever becomes of the poll.
//!
//! Invariant: enforcement needs neither the fetcher nor the network. A cycle that finds nothing to do writes nothing, runs no program
//! and logs nothing above debug.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::apply::{self, Activity, TRANSACTION_SILENCE};
use crate::config::{Config, Source};
use crate::fetch::client::Upstream;
use crate::fleet::{DesiredState, Inputs, Rendered};
use crate::git::{ObjectId, Objects, Tree};
use crate::kinds::file::Vault;
use crate::model::{Class, Failure, ResourceId};
use crate::record::history::ADOPTED;
use crate::record::objects::ObjectStore;
use crate::record::{HistoryEntry, Record, Rejection};
use crate::recovery::taken_back::TakenBack;
use crate::report::journal;
use crate::report::preview::Preview;
use crate::report::status::{State as HostState, Status, StatusError};
use crate::sys::command::CommandResult;
use crate::sys::jobs::{Job, Verb};
use crate::sys::{Host, clock, memory};
use crate::trust::{self, TrustedHead, VerifiedRevision};

mod allowance;
mod archives;
pub mod audit;
mod checks;
pub mod contents;
mod contested;
mod enforce;
mod explain;
pub mod fetcher;
mod freshness;
mod full_look;
mod inventory;
pub mod judge;
mod layout;
pub mod look;
mod mending;
mod originals;
pub mod other_side;
mod own_program;
mod pace;
pub mod pause;
mod preview;
mod probation;
mod rejections;
pub mod rollback;
pub mod set_trust;
pub mod situation;
pub mod state;
mod telling;
pub mod trust_view;
pub mod trusted_time;

use allowance::allowed_removals;
use archives::Archives;
use contents::StoredContents;
use contested::Contests;
use enforce::Planned;
use full_look::Look;
use judge::Obstacle;
use mending::{forget_debts_of_the_last_boot, tell_what_is_missing};
use pace::Silence;
use pause::KeptPause;
use probation::Trial;
use situation::{Beginnings, Situation, Standing};
use telling::Telling;

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
        /// Try again what was undone.
        retry: bool,
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
    /// The fetcher is a unit of systemd's, of which can be told whether it starts.
    has_fetcher_unit: bool,
    /// A question that the fetcher has not answered yet.
    asked: Option<Receiver<judge::Answer>>,
    record: Record,
    objects: ObjectStore,
    head: Option<TrustedHead>,
    in_force: Option<InForce>,
    /// The stored objects do not suffice for the trusted head: it is read again from the source.
    must_load: bool,
    /// Why the record could not be written, until it could.
    unwritable: Option<Failure>,
    applied: Option<AppliedRevision>,
    /// The inventory was compared with the machine since this process started.
    has_settled: bool,
    situation: Situation,
    beginnings: Beginnings,
    /// The last tip that was judged; it is judged once.
    judged: Option<ObjectId>,
    /// Which refusal was told.
    telling: Telling,
    resting: BTreeMap<ResourceId, Rest>,
    /// Units that did not accept what is declared.
    rejections: BTreeMap<ResourceId, Rejection>,
    contests: Contests,
    inventory: inventory::Known,
    look: Look,
    /// What opens secrets.
    vault: Vault,
    /// What is unpacked.
    archives: Archives,
    last_status: Option<Status>,
    /// What became of the last tip, as it is recorded.
    standing: Standing,
    /// Set while polls bring nothing.
    silence: Option<Silence>,
    pauses: Vec<KeptPause>,
    /// Who lets through what is held, for the next cycle.
    let_through_by: Option<String>,
    /// What is on trial, and what there is to go back to.
    trial: Trial,
    /// When what files were before limpet was last kept within its bounds.
    originals_bounded: Option<Instant>,
    taken_back: Option<TakenBack>,
    /// A person wants the version tried again that was taken back.
    must_retry_version: bool,
    proof: own_program::Proof,
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
    /// What that was rendered from; `None` where it is to be rendered whatever the next revision is.
    inputs: Option<Inputs>,
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
        host.choose_package_manager(config.host.package_manager);
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
            contests: contested::recall(&state.record),
            rejections: state.record.rejections(),
            silence: None,
            pauses: Vec::new(),
            let_through_by: None,
            trial: Trial::default(),
            originals_bounded: None,
            taken_back: None,
            must_retry_version: false,
            proof: own_program::Proof::default(),
            host,
            config,
            connect: Arc::new(Mutex::new(connect)),
            has_fetcher_unit: false,
            asked: None,
            record: state.record,
            objects: state.objects,
            head: state.head,
            in_force: None,
            must_load: false,
            has_settled: false,
            judged: None,
            telling: Telling::default(),
            resting: BTreeMap::new(),
            inventory: inventory::Known::default(),
            look: Look::default(),
            vault: Vault::default(),
            archives: Archives::default(),
        };
        if let Some(applied) = &cycle.applied {
            cycle.situation.take_applied(applied);
        }
        cycle.situation.take_standing(cycle.standing.clone());
        if let Some(refusal) = &cycle.situation.refusal {
            cycle.telling.begin(refusal, clock::instant());
        }
        cycle.recall_rollback();
        cycle.recall_probation();
        cycle.restore();
        cycle.recall_silence();
        cycle.recall_pauses();
        cycle.recall_taken_back();
        Ok(cycle)
    }

    /// Says that it is the fetcher's unit that is connected to: one that does not start is told from one that takes its time.
    pub fn watch_the_fetcher(&mut self) {
        self.has_fetcher_unit = true;
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
        if self.config.source != config.source {
            stop_fetcher(&self.host);
        }
        self.situation.config.clear();
        let is_another_source = Source {
            interval: config.source.interval,
            ..self.config.source.clone()
        } != config.source;
        self.host
            .choose_package_manager(config.host.package_manager);
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
                allow_removals: true,
                ..
            }
        );
        self.end_pauses();
        self.end_rollback_in_time();
        let mut enforced = None;
        self.mend_state();
        if trigger == Trigger::Start {
            self.adopt_transactions(progress);
        }
        if trigger.is_nudge() {
            self.judged = None;
            self.resting.clear();
            if matches!(trigger, Trigger::Nudge { retry: true, .. }) {
                self.forgive();
                self.forgive_rejections();
                self.must_retry_version = true;
            }
            self.forgive_contests();
        } else {
            self.begin_look(false);
            enforced = self.enforce_what_is_in_force(allow_removals, progress);
        }
        let polls = match trigger {
            Trigger::Start => enforced.is_none() && self.may_poll_at_start(),
            Trigger::Tick => self.rest_of_the_source().is_zero(),
            Trigger::Look => false,
            Trigger::Nudge { .. } => true,
        };
        let before = self.in_force.as_ref().map(InForce::identity);
        if polls {
            progress(&Activity::Polling, POLL_SILENCE);
            self.poll(progress);
        }
        let in_force = self.in_force.as_ref().map(InForce::identity);
        if trigger.is_nudge() {
            // Who asks and gets a new revision wants that; who asks and gets none, to know that all is as it says.
            self.begin_look(in_force == before);
        }
        if enforced.is_none() || enforced != in_force {
            self.enforce_what_is_in_force(allow_removals, progress);
        }
        self.try_out(progress);
        self.report()
    }

    /// Begins to look at the machine, which a person `asked` to be done thoroughly or not.
    fn begin_look(&mut self, asked: bool) {
        if self.look.is_full(asked, clock::instant()) {
            self.host.signatures().forget();
        }
    }

    /// Enforces, and returns the identity of what was.
    fn enforce_what_is_in_force(
        &mut self,
        allow_removals: bool,
        progress: Progress<'_>,
    ) -> Option<(String, String)> {
        let mut in_force = self.in_force.take()?;
        self.retry_version_if_due(&in_force);
        let identity = in_force.identity();
        if self.must_wait(&in_force) {
            if let Some(mut stand_in) = self.take_stand_in() {
                self.enforce_one(&mut stand_in, allow_removals, progress);
                self.trial.stand_in = Some(stand_in);
            }
        } else {
            self.enforce_one(&mut in_force, allow_removals, progress);
        }
        self.in_force = Some(in_force);
        Some(identity)
    }

    fn enforce_one(
        &mut self,
        in_force: &mut InForce,
        allow_removals: bool,
        progress: Progress<'_>,
    ) {
        let mut result = self.enforce(in_force, allow_removals, progress);
        if result.is_err() && self.replace_damaged_record() {
            result = self.enforce(in_force, allow_removals, progress);
        }
        if let Err(failure) = result {
            self.situation.failures = vec![failure];
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
        self.look_at_freshness();
        self.show_contests();
        let now = clock::now();
        self.situation
            .status(&self.config.host.name, &mut self.beginnings, None, now)
    }

    /// Loads the trusted head from what is stored here, so that it is enforced without the fetcher.
    fn restore(&mut self) {
        let Some(head) = self.head_in_force() else {
            return;
        };
        // What it took to start is not to lie below what it takes to render.
        memory::give_back();
        // Neither the trust files nor the network are asked: it was verified once, and is enforced whatever became of them.
        match self.read_revision(&head, &self.objects) {
            Ok((rendered, revision)) => {
                self.put_in_force(&revision, rendered);
                // Rendering took more than what follows, which is not to come on top of it.
                memory::give_back();
            }
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
        let (desired, inputs) = self.take_rendered(rendered);
        self.in_force = Some(InForce {
            inputs: Some(inputs),
            ..InForce::of(revision, desired)
        });
    }

    /// What `head` declares for this host, as `objects` have it.
    fn read_revision(
        &self,
        head: &TrustedHead,
        objects: &dyn Objects,
    ) -> Result<(Rendered, VerifiedRevision), Obstacle> {
        let revision =
            trust::resume(objects, &self.config.source.path, head).map_err(Failure::from)?;
        Ok((self.render(&revision, objects)?, revision))
    }

    /// The desired state; what is odd about it is told once.
    fn take_rendered(&mut self, rendered: Rendered) -> (DesiredState, Inputs) {
        for warning in &rendered.warnings {
            if !self.situation.facts.contains(warning) {
                warn!("{warning}");
            }
        }
        self.situation.facts = rendered.warnings;
        (rendered.state, rendered.inputs)
    }

    /// Takes over what an agent before us started and did not see the end of.
    fn adopt_transactions(&mut self, progress: Progress<'_>) {
        let found = match self.host.find_transactions() {
            Ok(found) => found,
            Err(failure) => {
                return debug!("failed to look for running package transactions: {failure}");
            }
        };
        let mut is_over = true;
        for unit in found {
            progress(
                &Activity::Applying(format!("waiting for {unit}")),
                TRANSACTION_SILENCE,
            );
            let what = self.host.describe_transaction(&unit);
            match self.host.await_transaction(&unit) {
                Ok(result) => {
                    self.note_adopted(&what, &result);
                    if !result.is_success() {
                        let message = format!("{what} {}", result.complaint());
                        let failure = Failure::new(Class::Host, message);
                        self.rest_after_a_failed_transaction(&failure);
                    }
                }
                Err(failure) => {
                    warn!("failed to adopt {what}: {failure}");
                    is_over = false;
                    continue;
                }
            }
            // Only now: whoever is killed in between adopts it once more.
            self.host.forget_transaction(&unit);
        }
        if is_over {
            let head = self.head.as_ref().map(|head| head.commit.to_string());
            let revision = head.unwrap_or_default();
            let owed = apply::owe_what_was_withheld(&self.host, &mut self.record, &revision)
                .and_then(|()| self.record.settle_debts(clock::since_boot()));
            self.note_unwritten(owed);
        }
    }

    /// Writes to the journal and the history how a transaction ended that nobody waited for.
    fn note_adopted(&mut self, what: &str, result: &CommandResult) {
        let head = self.head.as_ref().map(|head| head.commit.to_string());
        let revision = head.unwrap_or_default();
        let is_success = result.is_success();
        let (outcome, ending) = match is_success {
            true => ("done", "it succeeded".to_owned()),
            false => ("failed", result.complaint()),
        };
        journal::adopted(&revision, what, &ending, is_success);
        let detail = format!("{what}: {ending}");
        let line = HistoryEntry::of_host(clock::now(), &revision, ADOPTED, outcome, &detail);
        let written = self.record.conclude(&revision, &[], &[], &[], &[line]);
        self.note_unwritten(written);
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
        // What is contested comes and goes with every correction, and has been told when it began.
        let untold = |errors: &[StatusError]| -> Vec<StatusError> {
            let told = |error: &&StatusError| {
                let id = error.resource.as_ref();
                !id.is_some_and(|id| self.situation.is_contested(id))
            };
            errors.iter().filter(told).cloned().collect()
        };
        let changed_errors = was.is_none_or(|was| untold(&was.errors) != untold(&status.errors));
        if is_ill(status.state) && changed_errors {
            if let Some(condition) = status.conditions.first() {
                journal::degraded(revision, &condition.reason, &condition.who);
            }
        } else if matches!(status.state, HostState::Converged | HostState::Paused)
            && was.is_some_and(|was| {
                is_ill(was.state) || was.state == HostState::Refused && self.telling.end()
            })
            && self.situation.contested.is_empty()
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
        let Some(mut in_force) = self.in_force.take() else {
            return preview;
        };
        preview.revision = Some(in_force.revision.clone());
        preview.digest = Some(in_force.desired.digest.clone());
        // A person asks: nothing is taken from memory.
        self.host.signatures().forget();
        // What rests is planned, too: a person asks what would change, not what is tried next.
        let resting = std::mem::take(&mut self.resting);
        let contests = std::mem::take(&mut self.contests);
        let plan = self.plan(&mut in_force, false, None);
        (self.resting, self.contests) = (resting, contests);
        let contents = StoredContents::new(&self.host, &self.objects, &self.vault);
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
        let (desired, _) = self.take_rendered(rendered);
        // What the source offered last has no part in it.
        self.situation.take_standing(Standing::default());
        self.in_force = Some(InForce {
            revision: "unverified".to_owned(),
            subject: String::new(),
            signer: None,
            allowed_removals: None,
            desired,
            inputs: None,
            resources: OnceCell::new(),
        });
        Ok(())
    }
}

/// What became of the last tip. Where it cannot be read, the next poll says it again.
fn recall_standing(record: &Record) -> Standing {
    record.recall(STANDING).ok().flatten().unwrap_or_default()
}

/// Has the fetcher start anew at the next poll: it reads its configuration, names and certificates when it starts.
fn stop_fetcher(host: &Host) {
    if !host.systemd().is_available() {
        return;
    }
    let stop = Job {
        unit: fetcher::UNIT.to_owned(),
        verb: Verb::Stop,
    };
    let results = host.systemd().run_jobs(&[stop], STOP_LIMIT);
    for error in results.into_iter().filter_map(Result::err) {
        debug!("failed to stop the fetcher, ignoring: {error:?}");
    }
}
