//! What hosts will say to a change of trust.toml, before anybody signs it.

use std::path::Path;

use crate::document::Source;
use crate::fleet::Fleet;
use crate::git::repository::Repository;
use crate::git::{ObjectId, Tree};
use crate::model::{Class, Failure};
use crate::sys::clock;
use crate::trust::{FleetPolicy, POLICY_FILE, browse, check_change};

/// Compares the policy in the working tree `path` with the one of the last commit, and that one with the one before it. Outside of a
/// repository there is nothing to compare with.
pub(super) fn check(path: &Path, fleet: &Fleet<'_>) -> Vec<Failure> {
    let Some(committed) = Committed::find(path) else {
        return fleet
            .policy()
            .map_or_else(Vec::new, |policy| judge(None, Some(policy)));
    };
    let last = committed.policy("HEAD");
    let mut found = judge(last.as_ref(), fleet.policy());
    if last.is_some() && fleet.policy().is_some_and(|now| is_same(&last, now)) {
        let before = committed.policy("HEAD~1");
        found.extend(judge(before.as_ref(), last.as_ref()));
    }
    found
}

fn is_same(one: &Option<FleetPolicy>, other: &FleetPolicy) -> bool {
    one.as_ref().is_some_and(|one| one.text() == other.text())
}

fn judge(before: Option<&FleetPolicy>, after: Option<&FleetPolicy>) -> Vec<Failure> {
    let author = |message: String| Failure::new(Class::Author, message);
    match (before, after) {
        (Some(_), None) => vec![
            author(format!("'{POLICY_FILE}' is removed, and hosts refuse that"))
                .with_hint("put it back: from the first policy on, there is one"),
        ],
        (Some(before), Some(after)) if before.text() == after.text() => Vec::new(),
        (before, Some(after)) => match check_change(before, after, clock::now()) {
            Ok(()) => Vec::new(),
            Err(refusal) => {
                let mut failure = author(refusal.detail.clone());
                failure.hint = refusal.hint().map(str::to_owned);
                vec![failure]
            }
        },
        (None, None) => Vec::new(),
    }
}

/// What the repository around a working tree has committed.
struct Committed {
    repository: Repository,
    /// Where the working tree is in the repository.
    directory: String,
}

impl Committed {
    fn find(path: &Path) -> Option<Self> {
        let repository = Repository::discover(path).ok()?;
        let path = path.canonicalize().ok()?;
        let directory = path.strip_prefix(repository.path()).ok()?;
        Some(Committed {
            directory: directory.to_str()?.to_owned(),
            repository,
        })
    }

    fn policy(&self, revision: &str) -> Option<FleetPolicy> {
        let id: ObjectId = self.repository.resolve(revision).ok()?;
        let tree = browse::files(&self.repository, id, &self.directory).ok()?;
        let file = tree.read(POLICY_FILE).ok()??;
        let text = String::from_utf8(file.data).ok()?;
        // What is wrong with one that was committed is told of the working tree, or was mended there.
        FleetPolicy::parse(&Source::new(POLICY_FILE, text)).ok()
    }
}
