//! Whose word counts on this host, and for what: what `limpet trust` and `limpet doctor` show.

use crate::config::{self, Config};
use crate::cycle::state;
use crate::document::Source;
use crate::git::Tree;
use crate::model::{Class, Failure};
use crate::record::objects::ObjectStore;
use crate::sys::Host;
use crate::trust::{self, FleetPolicy, POLICY_FILE, Policy, TrustedHead};

/// What is trusted, and by which rules the next revision is judged.
#[derive(Debug)]
pub struct TrustView {
    /// The trusted head.
    pub head: Option<TrustedHead>,
    /// The policy that it carries.
    pub policy: Option<FleetPolicy>,
    /// What the host's own files say.
    pub own: Policy,
}

impl TrustView {
    /// Reads it, beside the host's own files, which were; what the trusted head carries, only root may.
    pub fn read(host: &Host, config: &Config, own: Policy) -> Result<Self, Failure> {
        let head = state::read_mark(host)?;
        let policy = match &head {
            None => None,
            Some(head) => read_policy(host, config, head)?,
        };
        Ok(TrustView { head, policy, own })
    }

    /// Why the key no longer counts, if so.
    pub fn revoked(&self, fingerprint: &str) -> Option<String> {
        if self.own.revoked.contains(fingerprint) {
            return Some(format!("revoked in '{}'", self.own.revoked.file()));
        }
        let known = self.head.iter().flat_map(|head| &head.revocations);
        known
            .filter(|revoked| revoked.fingerprint.as_deref() == Some(fingerprint))
            .map(|revoked| revoked.reason)
            .max()
            .map(|reason| reason.to_string())
    }

    /// Has nobody shown yet that they hold this key.
    pub fn is_unproven(&self, fingerprint: &str) -> bool {
        let head = self.head.as_ref();
        head.is_some_and(|head| head.unproven.iter().any(|known| known == fingerprint))
    }
}

fn read_policy(
    host: &Host,
    config: &Config,
    head: &TrustedHead,
) -> Result<Option<FleetPolicy>, Failure> {
    if head.policy_version.is_none() {
        return Ok(None);
    }
    let objects = ObjectStore::open_read_only(&host.outer_path(config::OBJECTS_DATABASE))
        .map_err(|failure| failure.with_hint("run it as root"))?;
    let unreadable = |cause: String| {
        Failure::new(
            Class::Host,
            format!("failed to read the policy of the trusted revision: {cause}"),
        )
    };
    let revision = trust::resume(&objects, &config.source.path, head).map_err(Failure::from)?;
    let file = revision
        .files(&objects)
        .read(POLICY_FILE)
        .map_err(|error| unreadable(error.to_string()))?
        .ok_or_else(|| unreadable("it is not kept on this host".to_owned()))?;
    let text = String::from_utf8(file.data).map_err(|error| unreadable(error.to_string()))?;
    let policy = FleetPolicy::parse(&Source::new(POLICY_FILE, text));
    policy.map(Some).map_err(|mistakes| {
        unreadable(
            mistakes
                .first()
                .map_or_else(String::new, ToString::to_string),
        )
    })
}
