//! Which policy may follow which: what a change of trust.toml must keep to, whoever signed it.
//!
//! A policy counts its changes one by one, is never removed, and never takes a revocation back. What it asks of signers must be
//! possible for the keys that are left.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::fleet_policy::{FleetPolicy, Reason};
use super::key::is_fingerprint;
use super::rule::{Refusal, Rule};
use crate::document::Place;

/// A key that no longer counts, as a host remembers it: once known, it is never forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// What the policy called it.
    pub name: String,
    /// The key; None where no policy that was seen says which key had the name.
    pub fingerprint: Option<String>,
    /// Why it no longer counts.
    pub reason: Reason,
}

/// A mistake in a policy, with where it stands.
pub(super) fn invalid(place: &Place, cause: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        Rule::PolicyInvalid,
        format!("{}: {cause}", place.location()),
    )
    .about(place.file())
}

/// Checks that `after` may follow `before`; where there was none, it is the first.
pub(super) fn check_succession(
    before: Option<&FleetPolicy>,
    after: &FleetPolicy,
    may_skip: bool,
) -> Result<(), Refusal> {
    let top = Place::start_of(&after.source);
    let expected = before.map_or(1, |before| before.version + 1);
    let is_next = match may_skip {
        true => after.version >= expected,
        false => after.version == expected,
    };
    if !is_next {
        let cause = match before {
            None => format!("the first policy has version 1, not {}", after.version),
            Some(before) => format!(
                "a changed policy counts on: version {expected} follows {}, not {}",
                before.version, after.version
            ),
        };
        return Err(invalid(&top, cause));
    }
    let Some(before) = before else {
        return check_names(after, &[]);
    };
    let earlier = resolve(before, &[]);
    check_names(after, &known_names(before, &earlier))?;
    let now = resolve(after, &known_names(before, &earlier));
    for revoked in &earlier {
        let is_kept = now.iter().any(|kept| {
            let is_same = match (&revoked.fingerprint, &kept.fingerprint) {
                (Some(one), Some(other)) => one == other,
                _ => revoked.name == kept.name,
            };
            is_same && kept.reason >= revoked.reason
        });
        if !is_kept {
            let cause = format!(
                "the revocation of '{}' ({}) is never taken back",
                revoked.name, revoked.reason
            );
            return Err(invalid(&top, cause));
        }
    }
    Ok(())
}

/// Checks what can be told of a change of the policy before anybody has signed it: may `after` follow `before`, and can it be changed
/// by its keys. Keys that it adds have signed nothing yet.
pub fn check_change(
    before: Option<&FleetPolicy>,
    after: &FleetPolicy,
    now: Timestamp,
) -> Result<(), Refusal> {
    check_succession(before, after, false)?;
    let known = before.map_or_else(Vec::new, |before| {
        known_names(before, &resolve(before, &[]))
    });
    let is_new = |fingerprint: &String| {
        before.is_some_and(|before| {
            let mut keys = before.keys.values();
            !keys.any(|key| key.fingerprint == *fingerprint)
        })
    };
    let keys = after.keys.values().map(|key| key.fingerprint.clone());
    let unproven = keys.filter(is_new).collect();
    check_thresholds(after, &resolve(after, &known), &unproven, Some(now))
}

/// What `policy` revokes. A name is one of its own keys, or one that was `known` before.
pub(super) fn resolve(policy: &FleetPolicy, known: &[(String, Option<String>)]) -> Vec<Revocation> {
    let resolved = policy.revoked.iter().map(|revoked| {
        let own = policy.fingerprint_of(&revoked.key).map(str::to_owned);
        let before = known.iter().find(|(name, _)| *name == revoked.key);
        Revocation {
            name: revoked.key.clone(),
            fingerprint: own.or_else(|| before.and_then(|(_, fingerprint)| fingerprint.clone())),
            reason: revoked.reason,
        }
    });
    resolved.collect()
}

/// The keys of `policy` that say themselves that somebody else may have them.
pub(super) fn given_up(policy: &FleetPolicy) -> impl Iterator<Item = Revocation> {
    let keys = policy.keys.iter();
    let given_up = keys.filter(|(_, key)| key.key.revocation() == Some(Reason::Compromised));
    given_up.map(|(name, key)| Revocation {
        name: name.clone(),
        fingerprint: Some(key.fingerprint.clone()),
        reason: Reason::Compromised,
    })
}

/// The names that mean a key in a policy that follows `before`, which revokes `revoked`.
pub(super) fn known_names(
    before: &FleetPolicy,
    revoked: &[Revocation],
) -> Vec<(String, Option<String>)> {
    let keys = before.keys.iter();
    let keys = keys.map(|(name, key)| (name.clone(), Some(key.fingerprint.clone())));
    let revoked = revoked.iter();
    keys.chain(revoked.map(|revoked| (revoked.name.clone(), revoked.fingerprint.clone())))
        .collect()
}

/// A revocation that means no key would look as if it did something.
fn check_names(policy: &FleetPolicy, known: &[(String, Option<String>)]) -> Result<(), Refusal> {
    let is_known = |word: &str| {
        policy.keys.contains_key(word)
            || is_fingerprint(word)
            || known.iter().any(|(name, _)| name == word)
    };
    match policy
        .revoked
        .iter()
        .find(|revoked| !is_known(&revoked.key))
    {
        None => Ok(()),
        Some(revoked) => Err(invalid(
            &revoked.place,
            format!("'{}' is neither a key nor a fingerprint", revoked.key),
        )),
    }
}

/// Checks that enough keys are left for what `policy` asks: keys that are not revoked and, where `now` is given, have not expired. The
/// policy itself must be changeable by keys that have proved that somebody holds them: nobody could put right a typo in theirs.
pub(super) fn check_thresholds(
    policy: &FleetPolicy,
    revocations: &[Revocation],
    unproven: &BTreeSet<String>,
    now: Option<Timestamp>,
) -> Result<(), Refusal> {
    let is_live = |name: &str, must_be_proven: bool| {
        let Some(key) = policy.keys.get(name) else {
            return false;
        };
        let is_revoked = revocations
            .iter()
            .any(|revoked| revoked.fingerprint.as_ref() == Some(&key.fingerprint));
        let is_expired = now.is_some_and(|now| {
            key.not_after.is_some_and(|end| end <= now) || !key.key.can_sign(now)
        });
        let is_proven = !must_be_proven || !unproven.contains(&key.fingerprint);
        !is_revoked && !is_expired && is_proven
    };
    let check = |place: &Place, threshold: usize, live: usize| {
        match live >= threshold {
            true => Ok(()),
            false => Err(invalid(
                place,
                format!(
                    "it asks for {}, and {live} of its keys can sign",
                    counted(threshold)
                ),
            )
            .with_hint(
                "a key counts until it expires or is revoked, and for [root] once it has signed a commit: add it first, let it sign, then ask for it",
            )),
        }
    };
    let root = &policy.root;
    let live = root.keys.iter().filter(|name| is_live(name, true)).count();
    check(&root.place, root.threshold, live)?;
    let live = policy
        .keys
        .keys()
        .filter(|name| is_live(name, false))
        .count();
    for protect in &policy.protected {
        check(&protect.place, protect.threshold, live)?;
    }
    Ok(())
}

/// So many signers, in words.
pub(super) fn counted(signers: usize) -> String {
    match signers {
        1 => "1 signer".to_owned(),
        several => format!("{several} signers"),
    }
}
