//! What of a source a host follows: a branch, or releases.
//!
//! A *release* is an annotated tag whose name is a version: `v1.4.0` or `1.4.0`, as in semver.org. Two names of
//! the same precedence are one version to a host, see `trust`; which of them is offered does not matter.

use semver::{Version, VersionReq};

use crate::git::TAGS;

/// What of a source a host follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Follow {
    /// This branch, without `refs/heads/`.
    Branch(String),
    /// The highest release that meets this.
    Releases(VersionReq),
}

impl Follow {
    /// The full name of the only ref that is wanted, or with what the names of those begin among which the wanted one is.
    pub fn prefix(&self) -> String {
        match self {
            Follow::Branch(name) => format!("refs/heads/{name}"),
            Follow::Releases(_) => TAGS.to_owned(),
        }
    }

    /// Is the ref `name` wanted, and more than `best`, which is the most wanted of those before it.
    pub fn prefers(&self, name: &str, best: Option<&str>) -> bool {
        match self {
            Follow::Branch(branch) => name.strip_prefix("refs/heads/") == Some(branch),
            Follow::Releases(wanted) => {
                let release = |name: &str| name.strip_prefix(TAGS).and_then(read_version);
                release(name)
                    .filter(|version| wanted.matches(version))
                    .is_some_and(|version| {
                        best.and_then(release)
                            .is_none_or(|best| version.cmp(&best).is_gt())
                    })
            }
        }
    }

    /// The key of `[source]` that says it.
    pub fn key(&self) -> &'static str {
        match self {
            Follow::Branch(_) => "source.branch",
            Follow::Releases(_) => "source.tags",
        }
    }
}

impl std::fmt::Display for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Follow::Branch(name) => write!(f, "branch '{name}'"),
            Follow::Releases(wanted) => write!(f, "release tag '{wanted}'"),
        }
    }
}

/// The version that a tag of this name says it is.
pub fn read_version(name: &str) -> Option<Version> {
    let number = name.strip_prefix('v').unwrap_or(name);
    Version::parse(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_release_that_is_asked_for_is_preferred() {
        let follow = Follow::Releases(VersionReq::parse(">=1.4, <2").unwrap());
        let best = |names: &[&str]| {
            names.iter().fold(None, |best: Option<String>, name| {
                let name = format!("refs/tags/{name}");
                match follow.prefers(&name, best.as_deref()) {
                    true => Some(name),
                    false => best,
                }
            })
        };
        let names = [
            "v1.9.0",
            "v1.10.0",
            "v1.3.9",
            "v2.0.0",
            "v1.11",
            "v1.11.0-rc.1",
            "latest",
        ];
        assert_eq!(best(&names).as_deref(), Some("refs/tags/v1.10.0"));
        assert_eq!(
            best(&["v1.11.0^{}", "1.4.0"]).as_deref(),
            Some("refs/tags/1.4.0")
        );
        assert_eq!(best(&["v1.3.0"]), None);
        assert!(!follow.prefers("refs/heads/v1.4.0", None));
    }

    #[test]
    fn a_branch_is_wanted_by_its_whole_name() {
        let follow = Follow::Branch("main".to_owned());
        assert!(follow.prefers("refs/heads/main", None));
        assert!(!follow.prefers("refs/heads/main2", None));
        assert!(!follow.prefers("refs/tags/main", None));
    }
}
