//! What has to be signed by several keys: a change of protected paths, or of the policy.

use std::collections::{BTreeMap, BTreeSet};

use super::rule::{Refusal, Rule};
use crate::document::Place;
use crate::git::ObjectId;

/// What has to be signed by several keys.
#[derive(Debug)]
pub(super) struct Demand {
    pub(super) path: String,
    pub(super) threshold: usize,
    pub(super) place: Place,
    /// The keys of the policy that count, by fingerprint: their names, and whether they may sign no longer.
    pub(super) voters: BTreeMap<String, (String, bool)>,
    /// Who has signed, by fingerprint.
    pub(super) signers: BTreeSet<String>,
}

impl Demand {
    /// Is it met; where `now_only`, without the keys that have expired.
    pub(super) fn is_met(&self, now_only: bool) -> bool {
        let counts = |fingerprint: &&String| {
            let voter = self.voters.get(*fingerprint);
            voter.is_some_and(|(_, has_lapsed)| !now_only || !has_lapsed)
        };
        self.signers.iter().filter(counts).count() >= self.threshold
    }

    /// The refusal that waits for more signers.
    pub(super) fn pending(&self, commit: ObjectId) -> Refusal {
        let named = |has_signed: bool| {
            let names = self.voters.iter().filter(|(fingerprint, (_, has_lapsed))| {
                self.signers.contains(*fingerprint) == has_signed && (has_signed || !has_lapsed)
            });
            let mut names: Vec<&str> = names.map(|(_, (name, _))| name.as_str()).collect();
            names.sort_unstable();
            match names.is_empty() {
                true => "nobody".to_owned(),
                false => names.join(", "),
            }
        };
        Refusal::new(
            Rule::PendingApproval,
            format!(
                "a change of '{}' needs {} signers ({}): {} signed it, and it waits for {} of: {}",
                self.path,
                self.threshold,
                self.place.location(),
                named(true),
                self.threshold.saturating_sub(self.signers.len()).max(1),
                named(false),
            ),
        )
        .of(commit)
        .about(self.path.as_str())
    }
}
