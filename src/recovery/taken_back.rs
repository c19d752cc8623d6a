//! A version that was taken back, `/var/lib/limpet/previous/taken-back.json`: what it was, why, and until when it is held.
//!
//! A file of its own and no line of state.db, because it is written while no agent runs, perhaps by another version than the one that
//! wrote state.db.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config;
use crate::model::{Class, Failure, Kind, ResourceId};
use crate::recovery::PACKAGE;
use crate::sys::Host;

/// Where it is written.
const FILE: &str = "/var/lib/limpet/previous/taken-back.json";
/// The largest such file, and the largest second mark, that is read.
const LIMIT: u64 = 64 << 10;

/// What was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenBack {
    /// The version that did not work; the one that does where only its program was damaged.
    pub version: String,
    /// The version that runs again.
    pub to: String,
    /// What the other one did.
    pub because: String,
    /// The revision that was in force, in hex.
    pub revision: Option<String>,
    /// When that was.
    pub at: Timestamp,
    /// Set when no repository had the version that runs, so that its program lies in the package of the other: why.
    pub put_back: Option<String>,
}

impl TakenBack {
    /// Is a version held, and not only a program repaired.
    pub fn holds(&self) -> bool {
        self.version != self.to
    }

    /// What people are told while the version is held.
    pub fn as_failure(&self) -> Failure {
        let TakenBack {
            version,
            to,
            because,
            ..
        } = self;
        let id = ResourceId::new(Kind::Package, PACKAGE);
        let how = match &self.put_back {
            None => format!("limpet {to} is installed again"),
            Some(why) => {
                format!("the program of limpet {to} was put back into its package, because {why}")
            }
        };
        Failure::new(
            Class::Host,
            format!("limpet {version} does not work on this host and is held: {because}; {how}"),
        )
        .with_hint("declare another version of limpet; a newer commit or 'limpet sync --retry' tries this one again")
        .about(id)
    }

    /// What it is in one line of the history.
    pub fn in_words(&self) -> String {
        let TakenBack {
            version,
            to,
            because,
            put_back,
            ..
        } = self;
        match (self.holds(), put_back) {
            (false, _) => {
                format!("the program of limpet {version} was damaged and is put back: {because}")
            }
            (true, None) => format!("went back from limpet {version} to {to}: {because}"),
            (true, Some(why)) => format!(
                "put the program of limpet {to} back into the package of {version}: {because}; not reinstalled, because {why}"
            ),
        }
    }
}

/// What was taken back last, if it is still remembered.
pub fn read(host: &Host) -> Result<Option<TakenBack>, Failure> {
    let Some(bytes) = host.read_file(FILE, LIMIT)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Failure::new(Class::Host, format!("failed to read '{FILE}': {error}")))
}

/// Writes it down, durably.
pub fn write(host: &Host, taken: &TakenBack) -> Result<(), Failure> {
    host.ensure_own_directory(config::PREVIOUS_DIRECTORY, 0o700)?;
    let text = serde_json::to_vec(taken).expect("it is plain data");
    host.write_own_file(FILE, &text, 0o600)
}

/// Holds nothing any more.
pub fn forgive(host: &Host) -> Result<(), Failure> {
    host.remove_own_file(FILE)
}

/// The commit that the second mark names: what the agent had in force.
pub(super) fn revision_in_force(host: &Host) -> Option<String> {
    #[derive(Deserialize)]
    struct Mark {
        commit: String,
    }
    let bytes = host.read_file(config::ENROLLED_MARK, LIMIT).ok()??;
    let mark: Mark = serde_json::from_slice(&bytes).ok()?;
    Some(mark.commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_back_says_what_happened_and_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        assert_eq!(read(&host), Ok(None));
        let mut taken = TakenBack {
            version: "99".to_owned(),
            to: "1".to_owned(),
            because: "it exited with status 1".to_owned(),
            revision: Some("aa".to_owned()),
            at: Timestamp::UNIX_EPOCH,
            put_back: None,
        };
        insta::assert_snapshot!(taken.as_failure(), @"limpet 99 does not work on this host and is held: it exited with status 1; limpet 1 is installed again");
        insta::assert_snapshot!(taken.in_words(), @"went back from limpet 99 to 1: it exited with status 1");
        taken.put_back = Some(
            "failed to install package:limpet: version '1' of 'limpet' was not found".to_owned(),
        );
        insta::assert_snapshot!(taken.as_failure(), @"limpet 99 does not work on this host and is held: it exited with status 1; the program of limpet 1 was put back into its package, because failed to install package:limpet: version '1' of 'limpet' was not found");
        write(&host, &taken).unwrap();
        assert_eq!(read(&host), Ok(Some(taken.clone())));
        forgive(&host).unwrap();
        assert_eq!(read(&host), Ok(None));
        taken.to = "99".to_owned();
        assert!(!taken.holds());
        insta::assert_snapshot!(taken.in_words(), @"the program of limpet 99 was damaged and is put back: it exited with status 1");
    }
}
