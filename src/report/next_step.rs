//! What to do about a condition, in one line for whoever reads the status.

use crate::report::status::{Condition, Status};

impl Status {
    /// The next step for `condition`; empty when there is nothing to do.
    pub fn next_step(&self, condition: &Condition) -> &'static str {
        match condition.kind.as_str() {
            "refused" => {
                "'limpet verify' says which rule refused it; if the commit is honest, whoever holds a listed key signs it again, else treat the Git server as compromised"
            }
            "state-missing" => {
                "enrol this host again with 'limpet enroll' and a recent anchor, if it was restored on purpose"
            }
            "rolled-back" => {
                "push a correction: a newer commit is applied by itself; 'limpet sync --retry' tries it again as it is"
            }
            "held" => "look at 'limpet plan', then allow it or put it right",
            "degraded" if self.errors.iter().any(|error| error.revision.is_some()) => {
                "the author corrects that place and pushes; the revision in force stays enforced"
            }
            "degraded" => {
                "put right what failed; it is tried again by itself, at once with 'limpet sync --wait'"
            }
            "pending" => "those who may approve it run 'limpet approve'",
            "waiting" => "nothing: it goes on by itself once the host is healthy",
            "paused" if self.paused.iter().all(|pause| pause.resource.is_some()) => {
                "nothing: it ends by itself, or now with 'limpet resume' and the name"
            }
            "paused" => "nothing: it ends by itself, or now with 'limpet resume'",
            "stale" => "find out why no new signed commit arrives: 'limpet doctor' asks the source",
            "drifted" => {
                "'limpet plan' shows the differences; they are corrected once 'report' is taken away or the pause is over; or commit what is there"
            }
            "offline" => {
                "nothing: it is tried again by itself; 'limpet doctor' looks at the way to the source"
            }
            "unreachable" => {
                "see with 'limpet doctor' what is in the way; it is tried again by itself, at once with 'limpet sync'"
            }
            "denied" => "put that right, then 'limpet sync --wait'; by itself it is asked rarely",
            "fetcher-down" => {
                "'systemctl status limpet-fetch.service' says why; put that right, then 'limpet sync --wait'; what is in force stays enforced"
            }
            "contested" => {
                "find out who else manages it, and let one of both: stop the other, or undeclare it; 'limpet sync' corrects it at once"
            }
            "clock" => {
                "set the clock, or give this host a time source; 'limpet doctor' looks at it"
            }
            "facts" => "correct the fact in the inventory",
            "behind" => {
                "nothing: wait for the server to catch up; to go back on purpose, push a signed revert"
            }
            "config" => "correct the host configuration, then 'systemctl reload limpet.service'",
            "agent-down" => {
                "'systemctl start limpet.service'; 'journalctl -u limpet.service' says why it ended"
            }
            "not-enrolled" => "enrol it: limpet enroll URL --anchor COMMIT --allowed-signers FILE",
            _ => "",
        }
    }
}
