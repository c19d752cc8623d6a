//! Which revisions are compared, in the words of `git diff`.

use std::fmt;

use crate::git::ObjectId;
use crate::git::repository::Repository;
use crate::model::{Class, Failure};
use crate::report::journal::short;
use crate::trust::{browse, unavailable};

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Revision {
    /// A commit, and what it was called.
    Commit { id: ObjectId, name: String },
    /// The files as they are now.
    WorkingTree,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Revision::Commit { id, name } => {
                let id = id.to_string();
                let short = short(&id);
                if id.starts_with(name.as_str()) {
                    f.write_str(short)
                } else {
                    write!(f, "{name} ({short})")
                }
            }
            Revision::WorkingTree => f.write_str("the working tree"),
        }
    }
}

/// What is compared with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub before: Revision,
    pub after: Revision,
}

impl Range {
    /// Reads `REV` (with the working tree), `A..B` or `A...B` (from where they part to B); what is left out is HEAD.
    pub fn parse(text: &str, repository: &Repository) -> Result<Self, Failure> {
        let or_head = |name: &str| {
            if name.is_empty() {
                "HEAD".to_owned()
            } else {
                name.to_owned()
            }
        };
        if let Some((one, other)) = text.split_once("...") {
            let (one, other) = (
                commit(repository, &or_head(one))?,
                commit(repository, &or_head(other))?,
            );
            let base = browse::merge_base(repository, one.0, other.0)
                .map_err(|error| unavailable(&error).with_hint(SHALLOW))?
                .ok_or_else(|| {
                    Failure::new(
                        Class::Config,
                        format!("'{}' and '{}' have no common ancestor", one.1, other.1),
                    )
                    .with_hint(SHALLOW)
                })?;
            let name = format!("{} before {}", one.1, other.1);
            return Ok(Range {
                before: Revision::Commit {
                    id: base,
                    name: if base == one.0 { one.1 } else { name },
                },
                after: named(other),
            });
        }
        if let Some((before, after)) = text.split_once("..") {
            return Ok(Range {
                before: named(commit(repository, &or_head(before))?),
                after: named(commit(repository, &or_head(after))?),
            });
        }
        Ok(Range {
            before: named(commit(repository, text)?),
            after: Revision::WorkingTree,
        })
    }
}

/// What continuous integration is told when history is missing.
const SHALLOW: &str = "a shallow clone lacks the older commits: fetch them (fetch-depth: 0, GIT_DEPTH: \"0\", git fetch --unshallow)";

fn named((id, name): (ObjectId, String)) -> Revision {
    Revision::Commit { id, name }
}

fn commit(repository: &Repository, name: &str) -> Result<(ObjectId, String), Failure> {
    match repository.resolve(name) {
        Ok(id) => Ok((id, name.to_owned())),
        Err(error) => {
            let failure = Failure::new(Class::Config, error.to_string());
            let is_id = name.len() >= 7 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            Err(if is_id || name.contains(['~', '^']) {
                failure.with_hint(SHALLOW)
            } else {
                failure.with_hint("name a branch, a tag or a commit, as for git diff; what a remote has needs its name: origin/main")
            })
        }
    }
}
