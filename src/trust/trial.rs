//! One tip on trial: from what is trusted to the verdict.
//!
//! First the way is looked for, then what is asked of the whole of it, last what is asked of the tip alone: its key is valid now, its
//! channel is this host's, and it is of the same fleet.

use jiff::Timestamp;

use super::authority::Signer;
use super::commit::Commit;
use super::fleet_policy::{FleetPolicy, POLICY_FILE};
use super::path::{self, Position, Steps, Way};
use super::release::Release;
use super::rule::{self, Refusal, Rule, Stop};
use super::start::Start;
use super::step::{Footing, Judge, Stepping};
use super::succession::check_succession;
use super::superseding;
use super::tree::ChangeCheck;
use super::way::{Standing, check_way};
use super::{
    Policy, TrustedHead, Verdict, VerifiedRevision, fleet_file, read_commit, read_fleet_name,
};
use crate::config::TrustMode;
use crate::git::{ObjectId, Objects, hex};

/// The key of the line by which a commit says in which channel it is released.
const CHANNEL: &str = "Limpet-Channel";

/// A tip, and what it is judged by.
pub(super) struct Trial<'a> {
    objects: &'a dyn Objects,
    policy: &'a Policy,
    trusted: Option<&'a TrustedHead>,
    now: Timestamp,
    tip: Commit,
    start: Start,
    /// The release that the tip is, where releases are followed.
    release: Option<&'a Release>,
    judge: Judge<'a>,
}

/// The verdict on `tip`.
pub(super) fn judge<'a>(
    objects: &'a dyn Objects,
    policy: &'a Policy,
    trusted: Option<&'a TrustedHead>,
    tip: ObjectId,
    release: Option<&'a Release>,
    now: Timestamp,
) -> Result<Verdict, Stop> {
    if trusted.is_some_and(|head| head.commit == tip) {
        return Ok(Verdict::Unchanged);
    }
    let tip = read_commit(objects, tip)?;
    if trusted.is_some_and(|trusted| trusted.payload_sha256 == hex(&tip.payload_sha256)) {
        return Ok(Verdict::Unchanged);
    }
    let mut judge = Judge::new(objects, policy, now);
    let start = match trusted {
        Some(trusted) => {
            judge.start_at(trusted);
            Start::at_head(trusted)?
        }
        None => Start::at_anchor(objects, policy, &judge)?,
    };
    let mut trial = Trial {
        judge,
        objects,
        policy,
        trusted,
        now,
        tip,
        start,
        release,
    };
    trial.verdict().map_err(|stop| match stop {
        Stop::Refused(refusal) => trial.start.name_remedy(refusal).into(),
        unavailable => unavailable,
    })
}

impl Trial<'_> {
    fn verdict(&mut self) -> Result<Verdict, Stop> {
        // Nothing counts of keys that are revoked as compromised, be it by the tip.
        self.judge.distrust_with(self.tip.id, self.tip.tree)?;
        let base = &self.start.base;
        if let (Err(refusal), Some(tree)) = (&self.policy.allowed, base.tree)
            && self.judge.policy_of(base.commit, tree)?.is_none()
        {
            return Err(refusal.clone().into());
        }
        let steps: &dyn Steps = match self.policy.mode {
            TrustMode::Path => &self.judge,
            TrustMode::Head => &path::Any,
        };
        let limit = self.policy.max_catchup;
        let position = path::find_path(self.objects, base, self.tip.id, limit, steps)?;
        let trusted = base.commit;
        let tip = self.tip.id;
        match position {
            Position::Ahead(mut way) => {
                if self.policy.mode == TrustMode::Head {
                    self.keep_the_tip_alone(&mut way)?;
                }
                let standing = self.standing(way.from)?;
                self.accept(&way, standing)
            }
            Position::Behind => Ok(Verdict::Behind {
                trusted,
                tip,
                releases: None,
            }),
            Position::Cut { child, parent } => Err(Refusal::new(
                Rule::Shallow,
                format!("its parent {parent} is not there: the history is cut off"),
            )
            .of(child)
            .into()),
            Position::Diverged if self.start.is_anchor => Err(Refusal::new(
                Rule::AnchorMismatch,
                format!("it does not descend from the anchor {trusted}"),
            )
            .of(tip)
            .into()),
            Position::Diverged => match self.supersede()? {
                Some(verdict) => Ok(verdict),
                None => Ok(Verdict::Diverged { trusted, tip }),
            },
        }
    }

    /// What is known of keys at the start.
    fn standing(&self, from: Footing) -> Result<Standing, Stop> {
        Ok(match self.trusted {
            Some(trusted) => Standing::of_head(trusted),
            None => {
                let own = self.judge.policy_of(self.start.base.commit, from.tree)?;
                Standing::of_policy(own.as_deref())
            }
        })
    }

    /// Where only the tip is judged, it is one step, wherever between it and the start others lie.
    fn keep_the_tip_alone(&self, way: &mut Way) -> Result<(), Stop> {
        let voucher = self.judge.vouch(&self.tip)?;
        let last = way.steps.pop();
        way.steps = last
            .into_iter()
            .map(|step| step.signed_by(voucher.clone()))
            .collect();
        way.lines.clear();
        way.approvals.clear();
        Ok(())
    }

    fn accept(&self, way: &Way, standing: Standing) -> Result<Verdict, Stop> {
        let signers = self.policy.allowed.as_ref().ok();
        let mut standing = check_way(&self.judge, way, standing, signers, self.now)?;
        let (before, signer) = match way.steps.split_last() {
            Some((last, earlier)) => {
                let from = earlier.last().map(|step| Footing::checked(step.tree));
                let from = from.unwrap_or(way.from);
                let allowed = self.judge.step(from, last, &way.approvals)?;
                (allowed.before.clone(), allowed.signer.clone())
            }
            // The tip is where it starts: nothing was before it but its own policy.
            None => {
                ChangeCheck::new(self.objects).check(self.tip.id, None, self.tip.tree)?;
                let voucher = self.judge.vouch(&self.tip)?;
                let own = self.judge.policy_of(self.tip.id, self.tip.tree)?;
                let signer = self
                    .judge
                    .admit(own.as_deref(), &voucher)
                    .and_then(|admitted| admitted.valid_now())
                    .map_err(|refusal| refusal.of(self.tip.id).signed_by(&voucher.fingerprint))?;
                (own, signer)
            }
        };
        let released = match self.release {
            None => None,
            Some(release) => {
                let own = self.judge.policy_of(self.tip.id, self.tip.tree)?;
                let by = release.signer(&self.judge, own.as_deref(), &standing)?;
                // A signature proves as much under a tag as under a commit that changes nothing.
                standing.unproven.remove(&by.fingerprint);
                Some((own, by, release))
            }
        };
        let by_tag = released.as_ref().map(|(own, by, release)| {
            self.check_channel(own.as_deref(), by, &release.tag.trailers)
        });
        match (by_tag, self.release) {
            (Some(Ok(())), _) => {}
            // What it says of its channel is not made up for by the commit.
            (Some(Err(refusal)), Some(release)) if names_channel(&release.tag.trailers) => {
                return Err(refusal.into());
            }
            _ => self.check_channel(before.as_deref(), &signer, &self.tip.trailers())?,
        }
        let fleet = self.check_fleets(way)?;
        let path = &self.policy.source_path;
        let revision = VerifiedRevision::new(&self.tip, path, fleet, Some(signer), &standing);
        // Who follows a branch for a while does not forget how far releases were.
        let release = match self.release {
            Some(release) => Some(release.tag.name.clone()),
            None => self.trusted.and_then(|head| head.release.clone()),
        };
        let revision = revision.released_as(release);
        let passed = match way.lines.split_last() {
            Some((_, before)) => before.concat(),
            None => Vec::new(),
        };
        Ok(Verdict::Accepted(Box::new(revision.passing(passed))))
    }

    /// The verdict where a commit of the tip's history stands in the place of the trusted head; None where none claims to.
    fn supersede(&mut self) -> Result<Option<Verdict>, Stop> {
        let (Some(payload_sha256), Some(tree)) =
            (self.start.base.payload_sha256, self.start.base.tree)
        else {
            return Ok(None);
        };
        let limit = self.policy.max_catchup;
        let claim = superseding::find_claim(self.objects, self.tip.id, payload_sha256, limit);
        let (Some(claim), Some(old)) = (claim, self.judge.policy_of(self.start.base.commit, tree)?)
        else {
            return Ok(None);
        };
        ChangeCheck::new(self.objects).check(claim.id, None, claim.tree)?;
        self.start.base = path::Base {
            commit: claim.id,
            payload_sha256: Some(claim.payload_sha256),
            tree: Some(claim.tree),
            is_checked: true,
        };
        let base = &self.start.base;
        let position = path::find_path(self.objects, base, self.tip.id, limit, &self.judge)?;
        let Position::Ahead(way) = position else {
            return Ok(None);
        };
        let step = Stepping::of(&claim, self.judge.vouch(&claim)?);
        self.judge.allow_by_root(&old, &step, &way.approvals)?;
        let new = self.judge.policy_of(claim.id, claim.tree)?;
        let mut standing = self.standing(way.from)?;
        match new {
            Some(new) if old.text() == new.text() => {}
            Some(new) => {
                check_succession(Some(&old), &new, true).map_err(|refusal| refusal.of(claim.id))?;
                standing.follow(Some(&old), &new, None);
            }
            None => {
                let file = POLICY_FILE;
                return Err(Refusal::new(
                    Rule::PolicyInvalid,
                    format!("it supersedes a revision with '{file}', and has none"),
                )
                .of(claim.id)
                .into());
            }
        }
        self.accept(&way, standing).map(Some)
    }

    /// A tip that was signed for another channel is not one for this host.
    fn check_channel(
        &self,
        before: Option<&FleetPolicy>,
        signer: &Signer,
        trailers: &[(String, String)],
    ) -> Result<(), Refusal> {
        let Some(channel) = &self.policy.channel else {
            return Ok(());
        };
        if before.is_some_and(|policy| policy.may_release(&signer.principal, channel)) {
            return Ok(());
        }
        let named: Vec<&str> = trailers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(CHANNEL))
            .map(|(_, value)| value.as_str())
            .collect();
        let taken = format!("and this host takes '{channel}'");
        let detail = match named.as_slice() {
            [only] if only == channel => return Ok(()),
            [] => format!("it is released in no channel, {taken}"),
            [only] => format!(
                "it is released in the channel '{}', {taken}",
                rule::escape(only.as_bytes())
            ),
            _ => format!("it names {} channels, {taken}", named.len()),
        };
        Err(Refusal::new(Rule::WrongChannel, detail)
            .of(self.tip.id)
            .signed_by(&signer.fingerprint))
    }

    /// Checks that every step is of the same fleet, from the oldest on, and returns its name.
    fn check_fleets(&self, way: &Way) -> Result<Option<String>, Stop> {
        let mut fleet = self.start.fleet.clone();
        let mut tree = self.start.base.tree.filter(|_| self.start.base.is_checked);
        let tip = (self.tip.id, self.tip.tree);
        let steps = way.steps.iter().map(|step| (step.commit, step.tree));
        // The tip is looked at even where it is the start itself, and the way has no step.
        for (commit, its_tree) in steps.filter(|step| *step != tip).chain([tip]) {
            if tree != Some(its_tree) || commit == self.tip.id {
                fleet = self.check_fleet(commit, its_tree, fleet)?;
            }
            tree = Some(its_tree);
        }
        Ok(fleet)
    }

    /// The fleet's name after a step. A file that is missing or broken for a while changes nothing; a tip must have it.
    fn check_fleet(
        &self,
        commit: ObjectId,
        tree: ObjectId,
        expected: Option<String>,
    ) -> Result<Option<String>, Stop> {
        let name = read_fleet_name(self.objects, self.policy, commit, tree)?;
        let file = fleet_file(self.policy);
        let refused = |detail: String| {
            Refusal::new(Rule::WrongFleet, detail)
                .of(commit)
                .about(file.as_str())
        };
        match (expected, name) {
            (Some(expected), Some(name)) if expected != name => Err(refused(format!(
                "it is of the fleet '{}', this host trusts '{expected}'",
                rule::escape(name.as_bytes())
            ))
            .into()),
            (Some(expected), None) if commit == self.tip.id => {
                Err(refused(format!("its '{file}' does not say fleet = \"{expected}\"")).into())
            }
            (expected, name) => Ok(name.or(expected)),
        }
    }
}

/// Do these lines of a message name a channel.
fn names_channel(trailers: &[(String, String)]) -> bool {
    let mut keys = trailers.iter().map(|(key, _)| key);
    keys.any(|key| key.eq_ignore_ascii_case(CHANNEL))
}
