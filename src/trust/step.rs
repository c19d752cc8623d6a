//! One step: may this commit follow that one?
//!
//! The predecessor's policy decides, or where it has none the host's allowed signers, each of whom may change everything. Whoever
//! signs a step vouches for all that differs between the two trees, so that nothing can hide in a merge.
//!
//! What is asked here depends on the two commits, the approvals and the host's time alone. What depends on the whole way is asked of
//! the way that was found, see [`super::way`].

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use jiff::Timestamp;

use super::approval::Approval;
use super::authority::{Signer, Voucher, unsigned};
use super::changes::changed_paths;
use super::commit::Commit;
use super::demand::Demand;
use super::fleet_policy::{FleetPolicy, POLICY_FILE, Reason};
use super::key::PublicKey;
use super::policies::Policies;
use super::rule::{Refusal, Rule, Stop};
use super::succession::{check_succession, given_up, resolve};
use super::tree::ChangeCheck;
use super::{Policy, TrustedHead, place_in_repository};
use crate::config::TrustMode;
use crate::document::Place;
use crate::git::{ObjectId, Objects};

/// A commit as far as a step is about it.
#[derive(Debug, Clone)]
pub(super) struct Stepping {
    pub(super) commit: ObjectId,
    pub(super) tree: ObjectId,
    pub(super) payload_sha256: [u8; 32],
    /// Who signed it.
    pub(super) voucher: Rc<Voucher>,
}

/// The tree that a step starts from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Footing {
    pub(super) tree: ObjectId,
    /// Was every directory of it looked at before.
    pub(super) is_checked: bool,
}

impl Footing {
    /// A tree that was looked at.
    pub(super) fn checked(tree: ObjectId) -> Self {
        Footing {
            tree,
            is_checked: true,
        }
    }
}

impl Stepping {
    /// `commit`, signed by whom `voucher` says.
    pub(super) fn of(commit: &Commit, voucher: Voucher) -> Self {
        Stepping {
            commit: commit.id,
            tree: commit.tree,
            payload_sha256: commit.payload_sha256,
            voucher: Rc::new(voucher),
        }
    }

    /// The same, signed by whom `voucher` says.
    pub(super) fn signed_by(self, voucher: Voucher) -> Self {
        Stepping {
            voucher: Rc::new(voucher),
            ..self
        }
    }
}

/// What a step that may be made is.
#[derive(Debug)]
pub(super) struct Allowed {
    pub(super) signer: Signer,
    /// Why its signer may sign no longer, if so.
    pub(super) lapsed: Option<String>,
    /// The policy that allowed it.
    pub(super) before: Option<Rc<FleetPolicy>>,
    /// The policy after it.
    pub(super) after: Option<Rc<FleetPolicy>>,
    pub(super) is_policy_changed: bool,
    /// What had to be signed by several keys.
    pub(super) demands: Vec<Demand>,
}

/// What decides about steps.
pub(super) struct Judge<'a> {
    objects: &'a dyn Objects,
    policy: &'a Policy,
    now: Timestamp,
    /// The keys of which nothing new counts, by fingerprint, with what says so.
    compromised: BTreeMap<String, String>,
    trees: RefCell<ChangeCheck<'a>>,
    policies: Policies<'a>,
    /// What is trusted: a commit and its tree.
    trusted: Option<(ObjectId, ObjectId)>,
    allowed: RefCell<HashMap<(ObjectId, ObjectId), Rc<Allowed>>>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(objects: &'a dyn Objects, policy: &'a Policy, now: Timestamp) -> Self {
        let mut judge = Judge {
            objects,
            policy,
            now,
            compromised: BTreeMap::new(),
            trees: RefCell::new(ChangeCheck::new(objects)),
            policies: Policies::new(objects, &policy.source_path),
            trusted: None,
            allowed: RefCell::default(),
        };
        if let Ok(signers) = &policy.allowed {
            for key in signers.public_keys() {
                if key.revocation() == Some(Reason::Compromised) {
                    judge.distrust(key.fingerprint(), signers.file().to_owned());
                }
            }
        }
        judge
    }

    /// Nothing new of this key counts.
    fn distrust(&mut self, fingerprint: String, said_by: String) {
        self.compromised.entry(fingerprint).or_insert(said_by);
    }

    /// Starts where `head` is trusted: its keys are known, and nothing new counts of those that any policy on the way to it revoked as
    /// compromised.
    pub(super) fn start_at(&mut self, head: &TrustedHead) {
        for revoked in &head.revocations {
            if let (Some(fingerprint), Reason::Compromised) = (&revoked.fingerprint, revoked.reason)
            {
                self.distrust(fingerprint.clone(), POLICY_FILE.to_owned());
            }
        }
        self.trusted = Some((head.commit, head.tree));
    }

    /// Does the policy that `tree` carries revoke keys as compromised: then nothing of them counts on the way there.
    pub(super) fn distrust_with(&mut self, commit: ObjectId, tree: ObjectId) -> Result<(), Stop> {
        let Some(policy) = self.policy_of(commit, tree)? else {
            return Ok(());
        };
        for revoked in resolve(&policy, &[]).into_iter().chain(given_up(&policy)) {
            if let (Some(fingerprint), Reason::Compromised) = (revoked.fingerprint, revoked.reason)
            {
                self.distrust(fingerprint, policy.file().to_owned());
            }
        }
        Ok(())
    }

    /// Who signed `commit`, whether or not anything of them counts.
    pub(super) fn identify(&self, commit: &Commit) -> Result<Voucher, Stop> {
        let Some(armor) = &commit.signature else {
            return Err(unsigned().of(commit.id).into());
        };
        let signed = (commit.payload.as_slice(), "commit");
        self.who_signed(armor, signed, || self.policies.keys_near(commit))
            .map_err(|stop| stop.of(commit.id))
    }

    /// Who made the signature `armor` over the payload of a tag that is put on the commit `id`.
    pub(super) fn identify_tagger(
        &self,
        armor: &[u8],
        payload: &[u8],
        id: ObjectId,
    ) -> Result<Voucher, Stop> {
        self.who_signed(armor, (payload, "tag"), || self.policies.keys_in(id))
    }

    /// Who made the signature `armor` over a payload, which is a noun. Where it does not carry its key, that is one of the host's file,
    /// of what is trusted, or of those `near` it.
    fn who_signed(
        &self,
        armor: &[u8],
        (payload, noun): (&[u8], &str),
        near: impl Fn() -> Result<Vec<PublicKey>, Stop>,
    ) -> Result<Voucher, Stop> {
        let own = || {
            let own = self.policy.allowed.iter();
            let own = own.flat_map(|signers| signers.public_keys());
            let mut known: Vec<PublicKey> = own.cloned().collect();
            if let Some((commit, tree)) = self.trusted {
                known.extend(self.policies.keys_of(commit, tree)?);
            }
            Ok(known)
        };
        Voucher::by(armor, payload, noun, [&own, &near])
    }

    /// Refuses who signed with a key of which nothing new counts, or with a subkey of which nothing does.
    pub(super) fn check_voucher(&self, voucher: &Voucher) -> Result<(), Refusal> {
        self.check_compromised(&voucher.fingerprint)?;
        match voucher.subkey() {
            None => Ok(()),
            Some(subkey) => self.check_compromised(&subkey),
        }
    }

    /// Refuses a key of which nothing new counts.
    pub(super) fn check_compromised(&self, fingerprint: &str) -> Result<(), Refusal> {
        let revoked = &self.policy.revoked;
        let said_by = match revoked.contains(fingerprint) {
            true => Some(revoked.file()),
            false => self.compromised.get(fingerprint).map(String::as_str),
        };
        match said_by {
            None => Ok(()),
            Some(file) => Err(Refusal::new(
                Rule::KeyRevoked,
                format!("signer '{fingerprint}' is revoked in '{file}'"),
            )
            .signed_by(fingerprint)),
        }
    }

    /// The policy that the tree of `commit` carries.
    pub(super) fn policy_of(
        &self,
        commit: ObjectId,
        tree: ObjectId,
    ) -> Result<Option<Rc<FleetPolicy>>, Stop> {
        self.policies.of(commit, tree)
    }

    /// May `step` be made from the tree `from`, with these approvals?
    pub(super) fn step(
        &self,
        from: Footing,
        step: &Stepping,
        approvals: &[Approval],
    ) -> Result<Rc<Allowed>, Stop> {
        let key = (from.tree, step.commit);
        let known = self.allowed.borrow().get(&key).map(Rc::clone);
        // With more approvals it may be another.
        if let Some(allowed) = known.filter(|allowed| allowed.demands.is_empty()) {
            return Ok(allowed);
        }
        let allowed = self
            .judge(from, step, approvals)
            .map_err(|stop| match stop {
                Stop::Refused(refusal) => {
                    Stop::Refused(refusal.of(step.commit).signed_by(&step.voucher.fingerprint))
                }
                unavailable => unavailable,
            })?;
        let allowed = Rc::new(allowed);
        self.allowed.borrow_mut().insert(key, Rc::clone(&allowed));
        Ok(allowed)
    }

    fn judge(
        &self,
        from: Footing,
        step: &Stepping,
        approvals: &[Approval],
    ) -> Result<Allowed, Stop> {
        let checked = from.is_checked.then_some(from.tree);
        self.trees
            .borrow_mut()
            .check(step.commit, checked, step.tree)?;
        let before = self.policy_of(step.commit, from.tree)?;
        let admitted = self.admit(before.as_deref(), &step.voucher)?;
        let after = self.policy_of(step.commit, step.tree)?;
        let is_policy_changed = self.policies.differ(from.tree, step.tree);
        let mut allowed = Allowed {
            signer: admitted.signer,
            lapsed: admitted.lapsed,
            before,
            after,
            is_policy_changed,
            demands: Vec::new(),
        };
        if is_policy_changed {
            match &allowed.after {
                Some(after) => {
                    let may_skip = self.policy.mode == TrustMode::Head;
                    check_succession(allowed.before.as_deref(), after, may_skip)?;
                }
                None => {
                    let detail = format!("it removes '{}'", self.policies.file());
                    return Err(Refusal::new(Rule::PolicyInvalid, detail)
                        .about(self.policies.file())
                        .with_hint("put it back: from the first policy on, there is one")
                        .into());
                }
            }
        }
        let Some(before) = allowed.before.clone() else {
            return Ok(allowed);
        };
        let name = allowed.signer.principal.clone();
        if !before.is_root(&name) || !before.protected.is_empty() {
            self.check_scope(&before, &name, from, step, approvals, &mut allowed.demands)?;
        }
        if is_policy_changed {
            let root = &before.root;
            if !before.is_root(&name) {
                return Err(Refusal::new(
                    Rule::OutOfScope,
                    format!(
                        "signer '{name}' may not change '{}': only the keys of [root] may ({})",
                        self.policies.file(),
                        root.place.location()
                    ),
                )
                .about(self.policies.file())
                .into());
            }
            let demand = self.demand_of_root(&before, step, approvals);
            allowed.demands.push(demand);
        }
        match allowed.demands.iter().find(|demand| !demand.is_met(false)) {
            Some(demand) => Err(demand.pending(step.commit).into()),
            None => Ok(allowed),
        }
    }

    /// Do as many root keys of `policy` stand for `step` as a change of the policy takes?
    pub(super) fn allow_by_root(
        &self,
        policy: &FleetPolicy,
        step: &Stepping,
        approvals: &[Approval],
    ) -> Result<(), Refusal> {
        let named = |refusal: Refusal| refusal.of(step.commit).signed_by(&step.voucher.fingerprint);
        let signer = self.admit(Some(policy), &step.voucher).map_err(named)?;
        let signer = signer.valid_now().map_err(named)?;
        let root = &policy.root;
        if !policy.is_root(&signer.principal) {
            let detail = format!(
                "signer '{}' may not supersede a revision: only the keys of [root] may ({})",
                signer.principal,
                root.place.location()
            );
            return Err(named(Refusal::new(Rule::OutOfScope, detail)));
        }
        let demand = self.demand_of_root(policy, step, approvals);
        match demand.is_met(true) {
            true => Ok(()),
            false => Err(demand.pending(step.commit)),
        }
    }

    fn demand_of_root(
        &self,
        policy: &FleetPolicy,
        step: &Stepping,
        approvals: &[Approval],
    ) -> Demand {
        let root = &policy.root;
        let voters = root.keys.iter().map(String::as_str).collect();
        let rule = (root.threshold, &root.place);
        let path = self.policies.file().to_owned();
        self.demand(policy, path, rule, &voters, step, approvals)
    }

    /// Whose key it is by `policy`, or by the host's allowed signers.
    pub(super) fn admit(
        &self,
        policy: Option<&FleetPolicy>,
        voucher: &Voucher,
    ) -> Result<Admitted, Refusal> {
        let fingerprint = &voucher.fingerprint;
        self.check_voucher(voucher)?;
        let subkey = voucher.subkey();
        let unknown = |file: &str| {
            Refusal::new(
                Rule::UnknownKey,
                format!("signer '{fingerprint}' is not in '{file}'"),
            )
        };
        let (principal, listed, end) = match policy {
            Some(policy) => {
                let (name, key) = voucher
                    .key
                    .as_ref()
                    .and_then(|key| policy.find(key))
                    .ok_or_else(|| unknown(policy.file()))?;
                let revoked = policy.revoked.iter().find(|revoked| {
                    let of_it = policy.fingerprint_of(&revoked.key);
                    of_it.is_some()
                        && (of_it == Some(fingerprint.as_str()) || of_it == subkey.as_deref())
                });
                if let Some(revoked) = revoked {
                    let detail = format!(
                        "signer '{name}' ({fingerprint}) is {} ({})",
                        revoked.reason,
                        revoked.place.location()
                    );
                    return Err(Refusal::new(revoked.reason.rule(), detail)
                        .with_hint("sign the change again with a key that is not revoked"));
                }
                (name.to_owned(), &key.key, key.not_after)
            }
            None => {
                let signers = match &self.policy.allowed {
                    Ok(signers) => signers,
                    Err(refusal) => return Err(refusal.clone()),
                };
                let allowed = voucher
                    .key
                    .as_ref()
                    .and_then(|key| signers.find(key))
                    .ok_or_else(|| unknown(signers.file()))?;
                if let Some(start) = allowed.valid_after.filter(|start| self.now < *start) {
                    return Err(Refusal::new(
                        Rule::KeyNotYetValid,
                        format!("signer '{fingerprint}' is not valid before {start}"),
                    ));
                }
                (
                    allowed.principal.clone(),
                    &allowed.key,
                    allowed.valid_before,
                )
            }
        };
        let of_itself = voucher.lapsed(listed, self.now)?;
        Ok(Admitted {
            signer: Signer {
                fingerprint: fingerprint.clone(),
                principal,
            },
            lapsed: end
                .filter(|end| *end <= self.now)
                .map(|end| format!("expired at {end}"))
                .or(of_itself),
        })
    }

    /// Checks that the key called `name` may change what it changes, and notes what more signers have to stand for.
    fn check_scope(
        &self,
        policy: &FleetPolicy,
        name: &str,
        from: Footing,
        step: &Stepping,
        approvals: &[Approval],
        demands: &mut Vec<Demand>,
    ) -> Result<(), Stop> {
        let mut highest: Option<(usize, String, &Place)> = None;
        for path in self.changed(step.commit, from.tree, step.tree)? {
            let repository_path = place_in_repository(&self.policy.source_path, &path);
            // Another text of the policy is told in its own words.
            let is_told = path == POLICY_FILE && self.policies.differ(from.tree, step.tree);
            if !policy.may_change(name, &path) && !is_told {
                let detail = format!(
                    "signer '{name}' may not change '{repository_path}': no [[allow]] of '{}' covers it for that key",
                    policy.file()
                );
                return Err(Refusal::new(Rule::OutOfScope, detail)
                    .about(repository_path)
                    .with_hint("let somebody sign it who may, or let a root key allow it first")
                    .into());
            }
            if let Some((threshold, place)) = policy.protection(&path)
                && highest
                    .as_ref()
                    .is_none_or(|(known, ..)| *known < threshold)
            {
                highest = Some((threshold, repository_path, place));
            }
        }
        if let Some((threshold, path, place)) = highest {
            let voters = policy.keys.keys().map(String::as_str).collect();
            demands.push(self.demand(policy, path, (threshold, place), &voters, step, approvals));
        }
        Ok(())
    }

    /// The paths below the fleet's directory that differ, relative to it. What lies outside is read by no host.
    pub(super) fn changed(
        &self,
        commit: ObjectId,
        before: ObjectId,
        after: ObjectId,
    ) -> Result<Vec<String>, Stop> {
        let changed = changed_paths(self.objects, commit, Some(before), Some(after))?;
        let directory = &self.policy.source_path;
        if directory.is_empty() {
            return Ok(changed);
        }
        // The directory itself may have been something else.
        let inside = |path: String| match path.strip_prefix(directory.as_str()) {
            Some("") => Some(".".to_owned()),
            Some(rest) => rest.strip_prefix('/').map(str::to_owned),
            None => directory
                .starts_with(&format!("{path}/"))
                .then(|| ".".to_owned()),
        };
        Ok(changed.into_iter().filter_map(inside).collect())
    }

    fn demand(
        &self,
        policy: &FleetPolicy,
        path: String,
        (threshold, place): (usize, &Place),
        names: &BTreeSet<&str>,
        step: &Stepping,
        approvals: &[Approval],
    ) -> Demand {
        let is_revoked = |fingerprint: &str| {
            self.check_compromised(fingerprint).is_err()
                || policy
                    .revoked
                    .iter()
                    .any(|revoked| policy.fingerprint_of(&revoked.key) == Some(fingerprint))
        };
        let mut voters: BTreeMap<String, (String, bool)> = policy
            .keys
            .iter()
            .filter(|(name, key)| names.contains(name.as_str()) && !is_revoked(&key.fingerprint))
            .map(|(name, key)| {
                let has_lapsed = key.not_after.is_some_and(|end| end <= self.now);
                (key.fingerprint.clone(), (name.clone(), has_lapsed))
            })
            .collect();
        let approvers = approvals
            .iter()
            .filter(|approval| approval.payload_sha256 == step.payload_sha256)
            .map(|approval| &approval.voucher);
        // Whether what they signed with may still sign: once for each of them is enough.
        let mut signers: BTreeMap<String, bool> = BTreeMap::new();
        for voucher in approvers.chain([&step.voucher]) {
            let listed = voucher.key.as_ref().and_then(|key| policy.find(key));
            if let Some((_, listed)) = listed
                && voters.contains_key(&voucher.fingerprint)
                && voucher.subkey().is_none_or(|subkey| !is_revoked(&subkey))
                && let Ok(lapsed) = voucher.lapsed(&listed.key, self.now)
            {
                let has_lapsed = signers.entry(voucher.fingerprint.clone()).or_insert(true);
                *has_lapsed &= lapsed.is_some();
            }
        }
        for (fingerprint, (_, has_lapsed)) in &mut voters {
            *has_lapsed |= signers.get(fingerprint).is_some_and(|lapsed| *lapsed);
        }
        let signers = signers.into_keys().collect();
        Demand {
            path,
            threshold,
            place: place.clone(),
            voters,
            signers,
        }
    }
}

/// A signer who is listed.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) signer: Signer,
    /// Why the key may sign no longer, if so.
    pub(super) lapsed: Option<String>,
}

impl Admitted {
    /// Who it is, if the key is valid now.
    pub(super) fn valid_now(self) -> Result<Signer, Refusal> {
        match self.lapsed {
            None => Ok(self.signer),
            Some(why) => Err(Refusal::new(
                Rule::KeyExpired,
                format!("signer '{}' {why}", self.signer.fingerprint),
            )),
        }
    }
}

impl super::path::Steps for Judge<'_> {
    fn vouch(&self, commit: &Commit) -> Result<Voucher, Stop> {
        let voucher = self.identify(commit)?;
        self.check_voucher(&voucher)
            .map_err(|refusal| refusal.of(commit.id))?;
        Ok(voucher)
    }

    fn allows(&self, from: Footing, step: &Stepping, approvals: &[Approval]) -> Result<bool, Stop> {
        let allowed = self.step(from, step, approvals)?;
        Ok(!allowed.demands.is_empty())
    }
}
