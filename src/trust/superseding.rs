//! History that was rewritten on purpose: a commit of the new history that the old root signed in the old one's place.
//!
//! A host never leaves what it trusts for a history that does not lead on from it. Where a fleet must do so all the same, a commit of
//! the new history ends in `Limpet-Supersedes: sha256:<payload>`, which names what hosts trust now, once for each such revision, and is
//! signed and approved by as many root keys of the *old* policy as a change of that policy needs. It takes the place of an anchor.
//!
//! Invariant: without a policy there is no root, and so no way but local root's word.

use super::approval::payloads_of;
use super::commit::Commit;
use super::{lines_for_limpet, read_commit};
use crate::git::{ObjectId, Objects};

/// The key of the line that supersedes.
const SUPERSEDES: &str = "Limpet-Supersedes";

/// The commit nearest to `tip`, along first parents and at most `limit` commits away, that claims to stand in the place of the commit
/// with this payload. Whether it may is not asked here.
pub(super) fn find_claim(
    objects: &dyn Objects,
    tip: ObjectId,
    payload_sha256: [u8; 32],
    limit: usize,
) -> Option<Commit> {
    let mut id = tip;
    for _ in 0..limit {
        // What cannot be read supersedes nothing.
        let commit = read_commit(objects, id).ok()?;
        let lines = lines_for_limpet(&commit);
        if payloads_of(&lines, SUPERSEDES).contains(&payload_sha256) {
            return Some(commit);
        }
        id = *commit.parents.first()?;
    }
    None
}
