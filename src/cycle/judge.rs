//! From a poll to the revision in force: ask, verify, render, keep, trust.
//!
//! Invariant: the trusted head moves only here, only to a revision that was verified and renders for this host, and only after
//! everything that enforcing it needs is kept on this host.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::apply::Activity;
use crate::config::{Config, Follow, PackageManager};
use crate::cycle::trusted_time::{remember_time, trusted_now};
use crate::cycle::{Cycle, POLL_SILENCE, Progress, fetcher, state};
use crate::fetch::{Lane, Tip, Trouble, Upstream};
use crate::fleet::{self, HostIdentity, Rendered};
use crate::git::{Hashed, Object, ObjectError, ObjectId, Objects, Tree};
use crate::model::{Class, Failure};
use crate::record::HistoryEntry;
use crate::record::history::{MISTAKEN, Note, REFUSED};
use crate::record::objects::ReadThrough;
use crate::report::journal;
use crate::report::status::Poll;
use crate::sys::{Host, clock};
use crate::trust::{
    self, AllowedSigners, Policy, Refusal, Revoked, TrustedHead, Verdict, VerifiedRevision,
};

/// The largest trust file we read, in bytes.
const TRUST_FILE_LIMIT: u64 = 4 << 20;

/// How long reading a revision from the fetcher may take in total. Each object has a limit of its own, which a hostile fetcher could
/// use up for every one of them.
const READING_LIMIT: Duration = Duration::from_secs(10 * 60);

/// What the fetcher answered: the tip, and a connection to ask for it.
pub(super) type Answer = Result<(Box<dyn Upstream>, Tip), Trouble>;

/// A fetcher that has a limited time to answer.
pub(super) struct Limited<'a> {
    client: &'a dyn Upstream,
    until: Instant,
}

impl<'a> Limited<'a> {
    pub(super) fn new(client: &'a dyn Upstream) -> Self {
        Limited {
            client,
            until: clock::instant() + READING_LIMIT,
        }
    }
}

impl Objects for Limited<'_> {
    fn get(&self, id: &ObjectId) -> Result<Object, ObjectError> {
        if clock::instant() > self.until {
            let limit = READING_LIMIT.as_secs() / 60;
            return Err(ObjectError::Unavailable(format!(
                "the fetcher took more than {limit} min to hand out a revision"
            )));
        }
        self.client.get(id)
    }
}

impl Cycle {
    /// Asks the fetcher for the tip and judges it.
    pub(super) fn poll(&mut self, progress: Progress<'_>) {
        let at = clock::now();
        let judged = self
            .ask(progress)
            .and_then(|(client, tip)| self.judge(client.as_ref(), &tip));
        let result = match judged {
            Ok(result) => {
                self.note_answer();
                self.trial.source_answers = true;
                self.absolve();
                result
            }
            Err(trouble) => {
                self.trial.source_answers = false;
                let result = trouble.failure.message.clone();
                self.note_trouble(trouble);
                result
            }
        };
        self.situation.last_poll = Some(Poll {
            at,
            result,
            failures: self.situation.failed_polls,
        });
    }

    /// Asks the fetcher for the tip. A source may take many minutes to say nothing, in which what is in force is enforced as ever.
    ///
    /// A fetcher that cannot start never answers: its socket keeps the question. That is seen while waiting, and the question stays
    /// asked, so that nobody asks twice.
    fn ask(&mut self, progress: Progress<'_>) -> Answer {
        let failed = |cause: &dyn std::fmt::Display| {
            let message = format!("failed to ask the fetcher: {cause}");
            Trouble::from(Failure::new(Class::Bug, message))
        };
        let asked = match self.asked.take() {
            // It was answered when nobody waited for it any more: what it says may be old.
            Some(asked) if matches!(asked.try_recv(), Err(TryRecvError::Empty)) => asked,
            _ => self.ask_aside().map_err(|error| failed(&error))?,
        };
        let mut watch = fetcher::Watch::default();
        let mut enforced_at = clock::instant();
        loop {
            match asked.recv_timeout(fetcher::LOOK_INTERVAL.min(self.interval())) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Disconnected) => return Err(failed(&"it panicked")),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let failure = self.has_fetcher_unit.then(|| watch.look(&self.host));
            if let Some(failure) = failure.flatten() {
                self.asked = Some(asked);
                return Err(Trouble::from(failure).in_lane(Lane::Local));
            }
            if enforced_at.elapsed() >= self.interval() {
                self.end_pauses();
                self.enforce_what_is_in_force(false, progress);
                progress(&Activity::Polling, POLL_SILENCE);
                enforced_at = clock::instant();
            }
        }
    }

    /// Asks the fetcher on a thread of its own, which may take long.
    fn ask_aside(&self) -> std::io::Result<Receiver<Answer>> {
        let connect = Arc::clone(&self.connect);
        let trusted = self.head.as_ref().map(|head| head.commit);
        let (tell, answers) = mpsc::channel();
        let ask = move || {
            let client = {
                let connect = connect.lock().unwrap_or_else(PoisonError::into_inner);
                connect()
            };
            let client = client.map_err(|failure| Trouble::from(failure).in_lane(Lane::Local));
            let answer = client.and_then(|client| {
                let tip = client.poll(trusted)?;
                Ok((client, tip))
            });
            // Nobody listens any more only when the agent ends, or has given up the fetcher.
            let _ = tell.send(answer);
        };
        std::thread::Builder::new()
            .name("poll".to_owned())
            .spawn(ask)
            .map(|_| answers)
    }

    /// Decides what becomes of `tip`, and says so in a word or two. Fails when the fetcher could not hand it out.
    fn judge(&mut self, client: &dyn Upstream, offered: &Tip) -> Result<String, Trouble> {
        let tip = offered.id;
        if self.judged == Some(tip) && !self.must_load {
            return Ok("unchanged".to_owned());
        }
        if self.situation.state_missing.is_some() {
            // What was trusted last is nothing new, and what was kept of it may be lost as well.
            if let Some(head) = self.head_in_force().filter(|_| self.must_load) {
                return Ok(self.read_again(client, &head));
            }
            return Ok("not accepted, trust state is missing".to_owned());
        }
        let policy = match read_policy(&self.host, &self.config) {
            Ok(policy) => policy,
            Err(refusal) => return Ok(self.refuse(client, tip, None, refusal.into())),
        };
        let hashed = Hashed(Limited::new(client));
        let verdict = trust::verify_offer(
            &hashed,
            &policy,
            self.head.as_ref(),
            (tip, offered.tag.as_deref()),
            trusted_now(&self.record),
        );
        if let Verdict::Unavailable(error) = &verdict {
            let failure = verdict.failure().unwrap_or_else(|| unreadable(error));
            let trouble = Trouble::from(failure);
            return Err(match error {
                // What was fetched is handed out from this host's own disk.
                ObjectError::Unavailable(_) => trouble.in_lane(Lane::Local),
                _ => trouble,
            });
        }
        self.judged = Some(tip);
        self.situation.behind = None;
        if !matches!(verdict, Verdict::Pending(_)) {
            self.situation.pending = None;
        }
        let result = match &verdict {
            Verdict::Unchanged => {
                self.situation.refusal = None;
                self.situation.mistakes.clear();
                match self.head_in_force() {
                    // What was kept of it is lost or damaged: it is read again from the source.
                    Some(head) if self.must_load => self.read_again(client, &head),
                    _ => "unchanged".to_owned(),
                }
            }
            Verdict::Accepted(revision) => {
                self.note_news(tip);
                self.accept(client, revision)
            }
            Verdict::Pending(refusal) => {
                let failure = verdict.failure().unwrap_or_else(|| refusal.clone().into());
                self.wait_for_approval(tip, failure)
            }
            Verdict::Behind { .. } => {
                self.situation.refusal = None;
                self.situation.mistakes.clear();
                self.situation.behind = verdict.failure();
                "behind".to_owned()
            }
            Verdict::Unavailable(error) => error.to_string(),
            Verdict::Refused(refusal) => {
                if refusal.rule.depends_on_time() {
                    self.judged = None;
                }
                self.refuse(
                    client,
                    tip,
                    refusal.signer.as_deref(),
                    refusal.clone().into(),
                )
            }
            Verdict::Diverged { .. } => match verdict.failure() {
                Some(failure) => self.refuse(client, tip, None, failure),
                None => "diverged".to_owned(),
            },
        };
        Ok(result)
    }

    /// Keeps what is in force until more keys have signed the tip.
    fn wait_for_approval(&mut self, tip: ObjectId, failure: Failure) -> String {
        self.situation.refusal = None;
        self.situation.mistakes.clear();
        if self.situation.pending.as_ref() != Some(&failure) {
            warn!(limpet_revision = %tip, "{failure}");
        }
        self.situation.pending = Some(failure);
        "pending".to_owned()
    }

    /// Puts the trusted head in force again from what the source has of it.
    fn read_again(&mut self, client: &dyn Upstream, head: &TrustedHead) -> String {
        match trust::resume(
            &Hashed(Limited::new(client)),
            &self.config.source.path,
            head,
        ) {
            Ok(revision) => self.accept(client, &revision),
            Err(stop) => {
                let failure = Failure::from(stop);
                let result = failure.message.clone();
                self.situation.failures = vec![failure];
                result
            }
        }
    }

    fn refuse(
        &mut self,
        client: &dyn Upstream,
        tip: ObjectId,
        signer: Option<&str>,
        failure: Failure,
    ) -> String {
        if self.situation.refusal.as_ref() != Some(&failure)
            && self.telling.begin(&failure, clock::instant())
        {
            journal::revision_refused(&tip.to_string(), signer, &failure);
            // Who claims it: for the audit trail, where a commit that cannot even be described stays without a subject.
            let objects = Hashed(Limited::new(client));
            let path = &self.config.source.path;
            let described = trust::describe_commit(&objects, path, None, tip).ok();
            let note = described.map(|described| Note {
                subject: described.subject,
                signer: signer.map(str::to_owned).or(described.fingerprint),
            });
            self.write_rejection(&tip.to_string(), REFUSED, &failure, note.as_ref());
        }
        self.situation.refusal = Some(failure);
        self.situation.mistakes.clear();
        "refused".to_owned()
    }

    /// Writes into the audit trail that a revision was not taken over.
    fn write_rejection(
        &mut self,
        revision: &str,
        word: &str,
        failure: &Failure,
        note: Option<&Note>,
    ) {
        let detail = failure.to_string();
        let entry = HistoryEntry::of_host(clock::now(), revision, word, "", &detail);
        if let Err(failure) = self.record.reject(&entry, note) {
            warn!("failed to write the history, ignoring: {failure}");
        }
    }

    /// Renders a verified revision and makes it the trusted one; with an author's mistake the old one stays.
    fn accept(&mut self, client: &dyn Upstream, revision: &VerifiedRevision) -> String {
        self.situation.refusal = None;
        match self.take_over(client, revision) {
            Ok(()) => {
                self.telling.start_anew();
                self.situation.mistakes.clear();
                self.situation.misplaced.clear();
                self.situation.held.clear();
                self.resting.clear();
                "new".to_owned()
            }
            Err(obstacle) => {
                self.keep_revocations(revision);
                self.stay(revision, obstacle)
            }
        }
    }

    /// What a verified revision revokes is remembered, even where it is not taken over.
    fn keep_revocations(&mut self, revision: &VerifiedRevision) {
        let Some(head) = &self.head else {
            return;
        };
        let knowing = head.knowing(&revision.trusted_head().revocations);
        if knowing == *head {
            return;
        }
        match state::trust(&self.host, &self.record, &knowing) {
            Ok(()) => self.head = Some(knowing),
            Err(failure) => warn!("failed to keep what was revoked: {failure}"),
        }
    }

    /// Keeps what is in force, and says why `revision` did not take its place.
    fn stay(&mut self, revision: &VerifiedRevision, obstacle: Obstacle) -> String {
        let known = match &obstacle {
            Obstacle::Misplaced(_) => &self.situation.misplaced,
            Obstacle::Mistakes(_) | Obstacle::Trouble(_) => &self.situation.mistakes,
        };
        for failure in obstacle
            .failures()
            .iter()
            .filter(|failure| !known.contains(failure))
        {
            warn!(limpet_revision = %revision.commit(), "{failure}");
        }
        self.situation.misplaced.clear();
        self.situation.mistakes.clear();
        self.situation.mistaken = None;
        match obstacle {
            Obstacle::Misplaced(failures) => {
                self.situation.misplaced = failures;
                "held".to_owned()
            }
            Obstacle::Mistakes(failures) => {
                let id = revision.commit().to_string();
                let note = Note {
                    subject: revision.subject().to_owned(),
                    signer: revision.signer().map(ToString::to_string),
                };
                if let Some(first) = failures.first() {
                    self.write_rejection(&id, MISTAKEN, first, Some(&note));
                }
                self.situation.mistakes = failures;
                self.situation.mistaken = Some(id);
                "the fleet data is wrong".to_owned()
            }
            Obstacle::Trouble(failure) => {
                self.judged = None;
                let result = failure.message.clone();
                self.situation.mistakes = vec![failure];
                result
            }
        }
    }

    pub(super) fn take_over(
        &mut self,
        client: &dyn Upstream,
        revision: &VerifiedRevision,
    ) -> Result<(), Obstacle> {
        let limited = Limited::new(client);
        let through = ReadThrough::new(&self.objects, &limited)?;
        // The commit itself is read again at the next start.
        through
            .get(&revision.commit())
            .map_err(|error| unreadable(&error))?;
        let mut rendered = self.render(revision, &through)?;
        if rendered.is_derived && !self.inherit(&through)? {
            // What it needs has to be read to be known.
            if let Some(in_force) = &mut self.in_force {
                in_force.inputs = None;
            }
            rendered = self.render(revision, &through)?;
        }
        through.keep(&revision.commit(), &self.kept_revisions())?;
        remember_time(&self.host, &self.record)?;
        let head = revision.trusted_head();
        let rollback = self.trial.rollback.as_ref();
        if rollback.is_some_and(|rollback| rollback.to == *head) {
            // Only what is in force instead of the trusted head was lost and read again.
            self.put_in_force(revision, rendered);
            return Ok(());
        }
        self.note_allowance(revision)?;
        let is_quarantined = self.stays_quarantined(revision, &rendered.state.digest)?;
        state::trust(&self.host, &self.record, head)?;
        self.record
            .remember(state::HOST_NAME, &self.config.host.name)?;
        let is_another = self.head.as_ref() != Some(head);
        self.head = Some(head.clone());
        if is_quarantined {
            return Ok(());
        }
        if is_another {
            self.forget_rollback();
        }
        self.put_in_force(revision, rendered);
        Ok(())
    }

    /// Counts what the revision in force needs as read through `through`; false where that is not known.
    fn inherit(&self, through: &ReadThrough<'_>) -> Result<bool, Failure> {
        let in_force = self.in_force.as_ref();
        let before = in_force.and_then(|it| ObjectId::from_hex(it.revision.as_bytes()).ok());
        before.map_or(Ok(false), |before| through.inherit(&before))
    }

    /// The desired state of this host in `revision`.
    pub(super) fn render(
        &self,
        revision: &VerifiedRevision,
        objects: &dyn Objects,
    ) -> Result<Rendered, Obstacle> {
        let name = &self.config.host.name;
        if let Some(known) = self
            .record
            .recall::<String>(state::HOST_NAME)?
            .filter(|known| known != name)
        {
            let message = format!(
                "this host was enrolled as '{known}', and its configuration now says '{name}'"
            );
            let hint = "put the name back in /etc/limpet/limpet.toml, or enrol it again under the new name";
            return Err(Obstacle::Misplaced(vec![
                Failure::new(Class::Host, message).with_hint(hint),
            ]));
        }
        self.render_tree(&revision.files(objects))
            .map_err(Obstacle::of_rendering)
    }

    pub(super) fn render_tree(&self, files: &dyn Tree) -> Result<Rendered, Vec<Failure>> {
        let identity = measure(&self.host, &self.config).map_err(|failure| vec![failure])?;
        let limits = fleet::Limits::from(&self.config.apply);
        match &self.in_force {
            // Where something kept is lost or damaged, everything is read.
            Some(before) if !self.must_load => {
                let (desired, inputs) = (&before.desired, before.inputs.as_ref());
                fleet::render_state_after(desired, inputs, files, &identity, &limits)
            }
            _ => fleet::render_state(files, &identity, &limits),
        }
    }
}

/// Why a verified revision is not put in force.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// It means another machine than this.
    Misplaced(Vec<Failure>),
    /// Its author made mistakes.
    Mistakes(Vec<Failure>),
    /// It could not be read or kept here; to be tried again.
    Trouble(Failure),
}

impl Obstacle {
    fn of_rendering(failures: Vec<Failure>) -> Self {
        if let Some(failure) = failures
            .iter()
            .find(|failure| failure.class == Class::Transient)
        {
            return Obstacle::Trouble(failure.clone());
        }
        match failures.iter().all(|failure| failure.class == Class::Host) {
            true => Obstacle::Misplaced(failures),
            false => Obstacle::Mistakes(failures),
        }
    }

    pub(super) fn failures(&self) -> &[Failure] {
        match self {
            Obstacle::Misplaced(failures) | Obstacle::Mistakes(failures) => failures,
            Obstacle::Trouble(failure) => std::slice::from_ref(failure),
        }
    }
}

impl From<Failure> for Obstacle {
    fn from(failure: Failure) -> Self {
        Obstacle::Trouble(failure)
    }
}

/// What the host configuration says to believe, with the files it names.
pub fn read_policy(host: &Host, config: &Config) -> Result<Policy, Refusal> {
    let read = |path: &str| match host.read_file(path, TRUST_FILE_LIMIT) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err("there is no such file".to_owned()),
        Err(failure) => Err(failure.message),
    };
    let (signers, revoked) = (
        config.trust.allowed_signers.as_str(),
        config.trust.revoked.as_str(),
    );
    Ok(Policy {
        anchor: config.trust.anchor.clone(),
        allowed: match read(signers) {
            Ok(bytes) => AllowedSigners::parse(signers, &bytes),
            Err(cause) => Err(AllowedSigners::unreadable(signers, &cause)),
        },
        revoked: match read(revoked) {
            Ok(bytes) => Revoked::parse(revoked, &bytes)?,
            Err(cause) => return Err(Revoked::unreadable(revoked, &cause)),
        },
        mode: config.trust.mode,
        max_catchup: trust::MAX_CATCHUP,
        source_path: config.source.path.clone(),
        fleet: None,
        channel: config.trust.channel.clone(),
        releases: match &config.source.follow {
            Follow::Releases(wanted) => Some(wanted.clone()),
            Follow::Branch(_) => None,
        },
    })
}

/// Who this host is: its configured name, and what can be measured of it.
pub fn measure(host: &Host, config: &Config) -> Result<HostIdentity, Failure> {
    let facts = host.read_facts()?;
    let package_manager = match config.host.package_manager {
        Some(PackageManager::Apt) => "apt",
        Some(PackageManager::Dnf) => "dnf",
        None => "",
    };
    let facts = [
        ("os", facts.os),
        ("family", facts.family),
        ("os_version", facts.os_version),
        ("arch", facts.arch),
        // Said by the host's own configuration, where its family does not tell.
        ("package_manager", package_manager.to_owned()),
    ];
    Ok(HostIdentity {
        name: config.host.name.clone(),
        labels: config.host.labels.clone(),
        facts: facts
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        machine_id: host.read_machine_id().ok(),
    })
}

fn unreadable(error: &crate::git::ObjectError) -> Failure {
    Failure::new(
        Class::Transient,
        format!("failed to read the revision: {error}"),
    )
}
