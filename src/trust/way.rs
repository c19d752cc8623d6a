//! What is asked of a whole way from the trusted head to a tip, each of whose steps is allowed.
//!
//! - A key that a policy adds counts for nothing until it has proved that somebody holds it: by signing the commit after the one
//!   that adds it, or any later one that changes nothing, such as an approval.
//! - A key that has expired since, or was retired, may have signed a step only if a later one is by another key that is valid now and
//!   may change the same paths: whoever steals an old key moves nobody.
//! - Nothing counts of a key that any policy on the way revokes as compromised.
//! - The policy that is left must be one that its keys can still change.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::fleet_policy::{FleetPolicy, Reason};
use super::path::Way;
use super::rule::{Refusal, Rule, Stop};
use super::step::{Allowed, Footing, Judge, Stepping};
use super::succession::{Revocation, check_thresholds, given_up, known_names, resolve};
use super::{AllowedSigners, TrustedHead};

/// What a host knows of keys beyond the policy in its tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Every revocation that any policy made.
    pub(super) revocations: Vec<Revocation>,
    /// The fingerprints of keys that have not proved that somebody holds them.
    pub(super) unproven: BTreeSet<String>,
    /// Those of them that the last commit added: they may prove it with the next one, whatever that changes.
    pub(super) just_added: BTreeSet<String>,
    /// The version of the policy, where there is one.
    pub(super) version: Option<u64>,
}

impl Standing {
    /// What is known at the trusted head.
    pub(super) fn of_head(head: &TrustedHead) -> Self {
        Standing {
            revocations: head.revocations.clone(),
            unproven: head.unproven.iter().cloned().collect(),
            just_added: head.just_added.iter().cloned().collect(),
            version: head.policy_version,
        }
    }

    /// What is known where `policy` was trusted by hand: its keys need not prove anything.
    pub(super) fn of_policy(policy: Option<&FleetPolicy>) -> Self {
        let mut standing = Standing::default();
        if let Some(policy) = policy {
            standing.note(policy, &[]);
        }
        standing
    }

    /// Takes in the policy `after`, which follows `before`. Keys that are new have proved nothing yet.
    pub(super) fn follow(
        &mut self,
        before: Option<&FleetPolicy>,
        after: &FleetPolicy,
        allowed_signers: Option<&AllowedSigners>,
    ) {
        self.just_added = new_keys(before, after, allowed_signers);
        self.unproven.extend(self.just_added.iter().cloned());
        let known = match before {
            Some(before) => known_names(before, &self.revocations),
            None => Vec::new(),
        };
        self.note(after, &known);
    }

    /// Adds what `policy` revokes, and forgets nothing.
    fn note(&mut self, policy: &FleetPolicy, known: &[(String, Option<String>)]) {
        self.version = Some(policy.version);
        for revoked in resolve(policy, known).into_iter().chain(given_up(policy)) {
            let before = self.revocations.iter_mut().find(|before| {
                before.fingerprint == revoked.fingerprint
                    && (before.fingerprint.is_some() || before.name == revoked.name)
            });
            match before {
                Some(before) => before.reason = before.reason.max(revoked.reason),
                None => self.revocations.push(revoked),
            }
        }
        let is_listed = |fingerprint: &String| {
            policy
                .keys
                .values()
                .any(|key| key.fingerprint == *fingerprint)
        };
        self.unproven.retain(is_listed);
    }

    /// Takes over what another host's history, or an earlier one of this host, revoked.
    pub(super) fn keep(&mut self, revocations: &[Revocation]) {
        for revoked in revocations {
            if !self.revocations.contains(revoked) {
                self.revocations.push(revoked.clone());
            }
        }
    }

    /// Why the key of this fingerprint is revoked, if it is.
    pub(super) fn reason(&self, fingerprint: &str) -> Option<Reason> {
        let of_key = self
            .revocations
            .iter()
            .filter(|revoked| revoked.fingerprint.as_deref() == Some(fingerprint));
        of_key.map(|revoked| revoked.reason).max()
    }
}

/// A step of the way with what allowed it.
struct Taken<'w> {
    step: &'w Stepping,
    allowed: std::rc::Rc<Allowed>,
    from: Footing,
    /// Why it needs another key's word, if so.
    lapsed: Option<String>,
}

/// Checks the whole way from what is known before it, and tells what is known after it.
pub(super) fn check_way(
    judge: &Judge<'_>,
    way: &Way,
    mut standing: Standing,
    allowed_signers: Option<&AllowedSigners>,
    now: Timestamp,
) -> Result<Standing, Stop> {
    let mut taken: Vec<Taken<'_>> = Vec::new();
    let mut from = way.from;
    for step in &way.steps {
        let allowed = judge.step(from, step, &way.approvals)?;
        let fingerprint = &step.voucher.fingerprint;
        prove(&mut standing, from, step, &allowed)?;
        standing.just_added.clear();
        if let (true, Some(after)) = (allowed.is_policy_changed, &allowed.after) {
            standing.follow(allowed.before.as_deref(), after, allowed_signers);
            if standing.just_added.remove(fingerprint) {
                standing.unproven.remove(fingerprint);
            }
            check_thresholds(after, &standing.revocations, &standing.unproven, None)
                .map_err(|refusal| refusal.of(step.commit).signed_by(fingerprint))?;
        }
        let is_unmet_now = allowed.demands.iter().any(|demand| !demand.is_met(true));
        let lapsed = allowed.lapsed.clone().or_else(|| {
            is_unmet_now.then(|| "and others who stood for it have expired since".to_owned())
        });
        taken.push(Taken {
            step,
            allowed,
            from,
            lapsed,
        });
        from = Footing::checked(step.tree);
    }
    check_revocations(judge, &standing, &mut taken)?;
    check_lapsed(judge, &taken)?;
    check_last_policy(&taken, &standing, now)?;
    Ok(standing)
}

/// A key that was added proves that somebody holds it, or may not do what it does.
fn prove(
    standing: &mut Standing,
    from: Footing,
    step: &Stepping,
    allowed: &Allowed,
) -> Result<(), Refusal> {
    let fingerprint = &step.voucher.fingerprint;
    if !standing.unproven.contains(fingerprint) {
        return Ok(());
    }
    if standing.just_added.contains(fingerprint) || from.tree == step.tree {
        standing.unproven.remove(fingerprint);
        return Ok(());
    }
    Err(Refusal::new(
        Rule::PolicyInvalid,
        format!(
            "the key '{}' is used before it has proved that somebody holds it",
            allowed.signer.principal
        ),
    )
    .of(step.commit)
    .signed_by(fingerprint)
    .with_hint("let it sign a commit that changes nothing first: git commit -S --allow-empty"))
}

/// The keys that `after` lists and what was before it did not.
fn new_keys(
    before: Option<&FleetPolicy>,
    after: &FleetPolicy,
    allowed_signers: Option<&AllowedSigners>,
) -> BTreeSet<String> {
    let is_known = |key: &super::PublicKey| match before {
        Some(before) => before.find(key).is_some(),
        None => allowed_signers.is_some_and(|signers| signers.find(key).is_some()),
    };
    let keys = after.keys.values().filter(|key| !is_known(&key.key));
    keys.map(|key| key.fingerprint.clone()).collect()
}

fn check_revocations(
    judge: &Judge<'_>,
    standing: &Standing,
    taken: &mut [Taken<'_>],
) -> Result<(), Refusal> {
    for taken in taken {
        let fingerprint = &taken.step.voucher.fingerprint;
        judge
            .check_compromised(fingerprint)
            .map_err(|refusal| refusal.of(taken.step.commit))?;
        match standing.reason(fingerprint) {
            None => {}
            Some(Reason::Retired) => {
                taken.lapsed.get_or_insert_with(|| "is retired".to_owned());
            }
            Some(Reason::Compromised) => {
                return Err(Refusal::new(
                    Rule::KeyRevoked,
                    format!("signer '{}' is compromised", taken.allowed.signer),
                )
                .of(taken.step.commit)
                .signed_by(fingerprint));
            }
        }
    }
    Ok(())
}

/// Every step by a key that has lapsed has a later one by another key that has not, and that may change the same.
fn check_lapsed(judge: &Judge<'_>, taken: &[Taken<'_>]) -> Result<(), Stop> {
    for (index, old) in taken.iter().enumerate() {
        let Some(why) = &old.lapsed else {
            continue;
        };
        let later = taken[index + 1..].iter().filter(|later| {
            later.lapsed.is_none() && later.step.voucher.fingerprint != old.step.voucher.fingerprint
        });
        let mut is_covered = false;
        for later in later {
            is_covered = covers(judge, later, old)?;
            if is_covered {
                break;
            }
        }
        if !is_covered {
            return Err(Refusal::new(
                Rule::KeyExpired,
                format!("signer '{}' {why}", old.step.voucher.fingerprint),
            )
            .of(old.step.commit)
            .signed_by(&old.step.voucher.fingerprint)
            .into());
        }
    }
    Ok(())
}

/// May who signed `later` change all that `old` changes.
fn covers(judge: &Judge<'_>, later: &Taken<'_>, old: &Taken<'_>) -> Result<bool, Stop> {
    let Some(policy) = &later.allowed.before else {
        return Ok(true);
    };
    let name = &later.allowed.signer.principal;
    if policy.is_root(name) {
        return Ok(true);
    }
    let changed = judge.changed(old.step.commit, old.from.tree, old.step.tree)?;
    Ok(changed.iter().all(|path| policy.may_change(name, path)))
}

/// The last policy on the way must be one that can be changed now.
fn check_last_policy(
    taken: &[Taken<'_>],
    standing: &Standing,
    now: Timestamp,
) -> Result<(), Refusal> {
    let last = taken
        .iter()
        .rev()
        .find(|taken| taken.allowed.is_policy_changed);
    match last.and_then(|last| Some((last.step, last.allowed.after.as_ref()?))) {
        None => Ok(()),
        Some((step, policy)) => {
            // A key that proved itself since counts.
            check_thresholds(policy, &standing.revocations, &standing.unproven, Some(now))
                .map_err(|refusal| refusal.of(step.commit))
        }
    }
}
