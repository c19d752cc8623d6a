//! Local root says which revision is trusted: the only way back, and the way out where trust state is missing or history was rewritten.
//!
//! Invariant: no signature is asked for, because root could change the files that say whose counts; what was revoked stays revoked.

use tracing::info;

use crate::cycle::judge::{Limited, Obstacle, read_policy};
use crate::cycle::{Cycle, state};
use crate::git::{Hashed, ObjectId};
use crate::model::{Class, Failure};
use crate::record::HistoryEntry;
use crate::record::history::TRUST_SET;
use crate::report::journal;
use crate::sys::clock;
use crate::trust::{self, TrustedHead};

/// What local root asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustRequest {
    /// The commit's full id.
    pub commit: String,
    /// Why.
    pub reason: String,
    /// Who asks, by the name people know.
    pub by: String,
}

impl Cycle {
    /// Trusts a commit because local root says so, and puts it in force. The next cycle applies it.
    pub fn set_trusted_head(&mut self, request: &TrustRequest) -> Result<(), Failure> {
        super::rollback::check_texts("decision", &request.reason, &request.by)?;
        let id = ObjectId::from_hex(request.commit.as_bytes()).map_err(|_| {
            Failure::new(
                Class::Host,
                format!("'{}' is no full commit id", request.commit.escape_debug()),
            )
            .with_hint("write it as 'git rev-parse' prints it")
        })?;
        let client = self.reach_fetcher()?;
        let objects = Hashed(Limited::new(client.as_ref()));
        let policy = read_policy(&self.host, &self.config)?;
        let known = self.head.as_ref().map(|head| head.revocations.clone());
        let head = TrustedHead::set(&objects, &policy, id)
            .map_err(Failure::from)?
            .knowing(&known.unwrap_or_default());
        let revision = trust::resume(&objects, &self.config.source.path, &head)?;
        // Nothing of what it would put in force may be wrong: a host that enforces something is not left with less.
        self.render(&revision, &objects).map_err(first)?;
        if self.situation.state_missing.is_some() {
            state::begin_anew(&self.host, &head)?;
            self.take_state(state::open(&self.host)?);
        }
        self.take_over(client.as_ref(), &revision).map_err(first)?;
        self.note_news(id);
        self.judged = None;
        self.situation.refusal = None;
        self.situation.pending = None;
        let detail = format!("by {}: {}", request.by, request.reason);
        let revision = id.to_string();
        let line = HistoryEntry::of_host(clock::now(), &revision, TRUST_SET, "done", &detail);
        let written = self.record.conclude(&revision, &[], &[], &[], &[line]);
        self.note_unwritten(written);
        info!(limpet_revision = %revision, "revision {} is trusted {detail}", journal::short(&revision));
        Ok(())
    }
}

fn first(obstacle: Obstacle) -> Failure {
    let cause = obstacle.failures().first().cloned();
    cause.unwrap_or_else(|| Failure::new(Class::Host, "failed to read the revision"))
}
