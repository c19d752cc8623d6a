//! Approvals: commits that change nothing and say whose change they stand for.
//!
//! A Git commit has one signature. Where a rule asks for more, others sign an empty commit on top, whose message ends in
//! `Limpet-Approve: sha256:<payload>`. It counts for the commit with that payload only, once for each key, wherever it lies between
//! what is trusted and the tip.

use std::rc::Rc;

use super::authority::Voucher;
use super::parse_sha256;

/// The key of the line that approves.
const APPROVE: &str = "Limpet-Approve";
/// What its value begins with.
const HASH: &str = "sha256:";
/// The most commits that one approval may stand for.
const MAX_APPROVED: usize = 64;

/// The payloads that a message with these trailers approves.
pub(super) fn approved(trailers: &[(String, String)]) -> Vec<[u8; 32]> {
    payloads_of(trailers, APPROVE)
}

/// The payloads that the lines called `name` of a message name.
pub(super) fn payloads_of(trailers: &[(String, String)], name: &str) -> Vec<[u8; 32]> {
    trailers
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .filter_map(|(_, value)| parse_sha256(value.strip_prefix(HASH)?))
        .take(MAX_APPROVED)
        .collect()
}

/// The line that approves the commit whose payload has this SHA-256, in hex.
pub fn approval_line(payload_sha256: &str) -> String {
    format!("{APPROVE}: {HASH}{payload_sha256}")
}

/// Somebody's word for the commit with this payload.
#[derive(Debug, Clone)]
pub(super) struct Approval {
    pub(super) payload_sha256: [u8; 32],
    /// Who signed it; the signature holds.
    pub(super) voucher: Rc<Voucher>,
}
