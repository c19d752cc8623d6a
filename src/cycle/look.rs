//! Looking at what this host remembers, beside a running agent: its history, and why it is as it is.
//!
//! Invariant: read-only. The databases are opened to look, nothing is created, and nobody who is changing the machine is waited for.

use crate::config::{self, Config};
use crate::cycle::{audit, explain, judge, rollback, state};
use crate::fleet::{Fleet, HostIdentity, Limits, Rendered};
use crate::git::ObjectId;
use crate::kinds::kind::Sealed;
use crate::model::{Class, Failure, ResourceId};
use crate::record::Record;
use crate::record::objects::ObjectStore;
use crate::report::explanation::Explanation;
use crate::report::history::History;
use crate::report::status::Status;
use crate::sys::Host;
use crate::trust::{self, TrustedHead};

/// What a host remembers, opened to look.
#[derive(Debug)]
pub struct Memory {
    pub(super) host: Host,
    pub(super) config: Config,
    pub(super) record: Record,
    pub(super) objects: ObjectStore,
    /// The last trusted head.
    pub(super) head: Option<TrustedHead>,
}

impl Memory {
    /// Opens what `host` remembers; only root may.
    pub fn open(host: Host, config: Config) -> Result<Self, Failure> {
        host.choose_package_manager(config.host.package_manager);
        let nothing_yet = || {
            Failure::new(
                Class::Transient,
                format!(
                    "this host remembers nothing yet: there is no '{}'",
                    config::STATE_DATABASE
                ),
            )
            .with_hint("start the agent: systemctl start limpet.service")
        };
        if !host.exists(config::STATE_DATABASE)? || !host.exists(config::OBJECTS_DATABASE)? {
            return Err(nothing_yet());
        }
        let record = Record::open_read_only(&host.outer_path(config::STATE_DATABASE))?;
        let objects = ObjectStore::open_read_only(&host.outer_path(config::OBJECTS_DATABASE))?;
        let head = record.recall(state::HEAD)?;
        Ok(Memory {
            host,
            config,
            record,
            objects,
            head,
        })
    }

    /// The machine.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The trusted head.
    pub fn trusted(&self) -> Option<ObjectId> {
        self.head.as_ref().map(|head| head.commit)
    }

    /// The head of what is in force: the trusted one, unless this host went back from it.
    fn head_in_force(&self) -> Option<TrustedHead> {
        head_in_force(&self.record, self.head.clone())
    }

    /// The commits this host knows whose ids start with `prefix`: trusted now, trusted before, or told of in its history.
    pub fn commits_like(&self, prefix: &str) -> Result<Vec<ObjectId>, Failure> {
        let before: Option<TrustedHead> = self.record.recall(state::HEAD_BEFORE)?;
        let heads = self.head.iter().chain(&before).map(|head| head.commit);
        let heads = heads.filter(|id| id.to_string().starts_with(prefix));
        let told = self.record.revisions_like(prefix)?;
        let told = told
            .iter()
            .filter_map(|id| ObjectId::from_hex(id.as_bytes()).ok());
        let mut found: Vec<ObjectId> = heads.chain(told).collect();
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// The last `limit` runs; with `about`, a revision or resource, only those, with their diffs.
    pub fn history(&self, limit: usize, about: Option<&str>) -> Result<History, Failure> {
        audit::history(&self.record, &self.config.host.name, limit, about)
    }

    /// Why this host, or what `asked` names of it, is declared as it is. `status` says how it is now. Who `may_see_all` is shown values
    /// that not everybody may read.
    pub fn explain(
        &self,
        asked: Option<&str>,
        status: &Status,
        may_see_all: bool,
    ) -> Result<Explanation, Vec<Failure>> {
        let one = |failure: Failure| vec![failure];
        let Some(head) = &self.head_in_force() else {
            let failure = Failure::new(
                Class::Transient,
                "no revision is in force on this host yet, so nothing explains it",
            );
            return Err(one(failure.with_hint("see 'limpet status'")));
        };
        let revision = trust::resume(&self.objects, &self.config.source.path, head)
            .map_err(|stop| one(Failure::from(stop)))?;
        let files = revision.files(&self.objects);
        let identity = judge::measure(&self.host, &self.config).map_err(one)?;
        let (rendered, labels, facts) = render(&files, &identity, &self.config)?;
        let layers = rendered.layers.iter().map(explain::layer).collect();
        let resource = match asked {
            None => None,
            Some(asked) => {
                let question = explain::Question {
                    host: &self.host,
                    record: &self.record,
                    tree: &files,
                    rendered: &rendered,
                    status,
                    may_see_all,
                };
                Some(question.answer(asked).map_err(one)?)
            }
        };
        Ok(Explanation {
            host: self.config.host.name.clone(),
            revision: revision.commit().to_string(),
            subject: revision.subject().to_owned(),
            signer: revision.signer().map(ToString::to_string),
            digest: rendered.state.digest,
            labels,
            facts,
            layers,
            conditions: status
                .conditions
                .iter()
                .filter(|condition| !["converged", "starting"].contains(&condition.kind.as_str()))
                .cloned()
                .collect(),
            resource,
        })
    }
}

fn head_in_force(record: &Record, trusted: Option<TrustedHead>) -> Option<TrustedHead> {
    let head = trusted?;
    Some(rollback::instead_of(record, &head).unwrap_or(head))
}

/// The encrypted contents that the revision in force declares for `host`, and the resources that have them; none where nothing is in
/// force yet.
pub fn secrets_in_force(
    host: &Host,
    config: &Config,
) -> Result<Vec<(ResourceId, Sealed)>, Failure> {
    if !host.exists(config::STATE_DATABASE)? || !host.exists(config::OBJECTS_DATABASE)? {
        return Ok(Vec::new());
    }
    let record = Record::open_read_only(&host.outer_path(config::STATE_DATABASE))?;
    let objects = ObjectStore::open_read_only(&host.outer_path(config::OBJECTS_DATABASE))?;
    let Some(head) = head_in_force(&record, record.recall(state::HEAD)?) else {
        return Ok(Vec::new());
    };
    let revision = trust::resume(&objects, &config.source.path, &head).map_err(Failure::from)?;
    let identity = judge::measure(host, config)?;
    let first = |failures: Vec<Failure>| failures.into_iter().next();
    let (rendered, _, _) =
        render(&revision.files(&objects), &identity, config).map_err(|failures| {
            first(failures)
                .unwrap_or_else(|| Failure::new(Class::Bug, "failed to render, for no reason"))
        })?;
    let sealed = rendered.state.paths.iter().filter_map(|path| {
        let sealed = path.sealed()?.clone();
        Some((path.id.clone(), sealed))
    });
    Ok(sealed.collect())
}

type Named = std::collections::BTreeMap<String, String>;

fn render(
    files: &dyn crate::git::Tree,
    identity: &HostIdentity,
    config: &Config,
) -> Result<(Rendered, Named, Named), Vec<Failure>> {
    let fleet = Fleet::load(files)?;
    let rendered = fleet.render(identity, &Limits::from(&config.apply))?;
    let (labels, facts) = fleet.labels_and_facts(identity);
    Ok((rendered, labels, facts))
}
