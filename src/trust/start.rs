//! Where judging a tip begins: the trusted head, or the anchor before there is one.

use super::commit::Commit;
use super::path::Base;
use super::rule::{Refusal, Rule, Stop};
use super::step::Judge;
use super::{Policy, TrustedHead, parse_sha256, read_fleet_name};
use crate::git::{ObjectError, Objects, hex};

/// What is trusted already.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) base: Base,
    /// The only fleet whose revisions may follow, where it is known.
    pub(super) fleet: Option<String>,
    pub(super) is_anchor: bool,
}

impl Start {
    /// At the trusted head.
    pub(super) fn at_head(trusted: &TrustedHead) -> Result<Self, Stop> {
        let payload_sha256 = parse_sha256(&trusted.payload_sha256).ok_or_else(|| {
            Refusal::new(
                Rule::StateMissing,
                "the recorded payload of the trusted head is no SHA-256",
            )
            .of(trusted.commit)
        })?;
        Ok(Start {
            base: Base {
                commit: trusted.commit,
                payload_sha256: Some(payload_sha256),
                tree: Some(trusted.tree),
                is_checked: true,
            },
            fleet: trusted.fleet.clone(),
            is_anchor: false,
        })
    }

    /// The anchor is trusted by its id, and by its payload and signer where they are configured; it need not be signed otherwise.
    pub(super) fn at_anchor(
        objects: &dyn Objects,
        policy: &Policy,
        judge: &Judge<'_>,
    ) -> Result<Self, Stop> {
        let anchor = &policy.anchor;
        let mismatch = |detail: String| {
            Refusal::new(Rule::AnchorMismatch, detail)
                .of(anchor.commit)
                .into()
        };
        let object = match objects.get(&anchor.commit) {
            Ok(object) => object,
            Err(ObjectError::Missing(_)) => {
                // The server may hold another commit with the anchor's payload.
                return Ok(Start {
                    base: Base {
                        commit: anchor.commit,
                        payload_sha256: anchor.payload_sha256,
                        tree: None,
                        is_checked: false,
                    },
                    fleet: policy.fleet.clone(),
                    is_anchor: true,
                });
            }
            Err(error) => return Err(Stop::reading(error, anchor.commit, Rule::MalformedCommit)),
        };
        let commit = Commit::parse(anchor.commit, object.kind, &object.data)?;
        if anchor
            .payload_sha256
            .is_some_and(|payload| payload != commit.payload_sha256)
        {
            return Err(mismatch(format!(
                "the anchor's payload is {}, not the configured one",
                hex(&commit.payload_sha256)
            )));
        }
        if let Some(expected) = &anchor.signer {
            let signed_by = judge.identify(&commit).map_err(|stop| match stop {
                Stop::Refused(refusal) => mismatch(format!("the anchor: {}", refusal.detail)),
                unavailable => unavailable,
            })?;
            if signed_by.fingerprint != *expected {
                return Err(mismatch(format!(
                    "the anchor is signed by '{}', not by '{expected}'",
                    signed_by.fingerprint
                )));
            }
        }
        let fleet = match &policy.fleet {
            Some(fleet) => Some(fleet.clone()),
            None => read_fleet_name(objects, policy, anchor.commit, commit.tree)?,
        };
        Ok(Start {
            base: Base {
                commit: anchor.commit,
                payload_sha256: Some(commit.payload_sha256),
                tree: Some(commit.tree),
                is_checked: false,
            },
            fleet,
            is_anchor: true,
        })
    }

    /// A host that starts at an old anchor may be unable to accept the history since, because a key was revoked or expired.
    pub(super) fn name_remedy(&self, refusal: Refusal) -> Refusal {
        match refusal.rule {
            Rule::KeyRevoked | Rule::KeyExpired if self.is_anchor => refusal.with_hint(
                "if history up to here is known to be good, anchor the host at a more recent commit; else sign the change again with a valid key",
            ),
            _ => refusal,
        }
    }
}
