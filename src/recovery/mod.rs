//! Going back to the last limpet that worked.
//!
//! The *kept* program is the last one that has proven itself on this host: it looked at the machine and reached the source. When the
//! installed one cannot start, `limpet-recover.service` runs the kept one, which *takes the version back*: it installs its own version
//! again where a repository has it, and puts its own bytes in place where none has. The version that was taken back is held: it is not
//! installed again until a newer commit comes, or somebody says `limpet sync --retry`.
//!
//! Invariant: whatever fails here, the agent is started again, or waits for its configuration to be put right. Nothing here needs the
//! network, but for apt, which runs as a transaction of its own.

mod decision;
pub mod kept;
pub mod start;
pub mod taken_back;

pub use decision::{Facts, Verdict, decide};

use crate::config;
use crate::kinds::package::{self, status::Database};
use crate::model::{Failure, Outcome};
use crate::sys::{Host, clock};
use kept::Kept;
use taken_back::TakenBack;

/// The package, and what the fleet calls it.
pub const PACKAGE: &str = "limpet";

/// The mode of the installed program, as the package has it.
const PROGRAM_MODE: u32 = 0o755;

/// Goes back from `version` to the kept program and writes that down, first of all: an agent that starts in the middle must not
/// install it once more. `may_put_back` is false while an agent runs, which needs no other bytes.
pub fn take_back(
    host: &Host,
    kept: &Kept,
    version: &str,
    because: &str,
    may_put_back: bool,
) -> Result<TakenBack, Failure> {
    let mut taken = TakenBack {
        version: version.to_owned(),
        to: kept.version.clone(),
        because: because.to_owned(),
        revision: taken_back::revision_in_force(host),
        at: clock::now(),
        put_back: None,
    };
    taken_back::write(host, &taken)?;
    if Database::read(host).is_ok_and(|database| database.has_updates()) {
        package::repair::configure(host)?;
    }
    let failure = match package::install_version(host, PACKAGE, &kept.version) {
        Outcome::Done => return Ok(taken),
        Outcome::Failed(failure) | Outcome::Left(failure) => failure,
        Outcome::Skipped(id) => unreachable_skip(&id),
    };
    if !may_put_back {
        // What could not be taken back is held by nothing: it is installed, and tried to be finished again.
        taken_back::forgive(host)?;
        return Err(failure);
    }
    put_program_back(host, kept)?;
    taken.put_back = Some(failure.to_string());
    taken_back::write(host, &taken)?;
    // The package itself is whole, whatever its program was: dpkg may finish it now that the agent starts.
    if Database::read(host).is_ok_and(|database| database.is_interrupted()) {
        package::repair::configure(host)?;
    }
    Ok(taken)
}

fn unreachable_skip(id: &crate::model::ResourceId) -> Failure {
    Failure::new(
        crate::model::Class::Bug,
        format!("{id} was skipped, and nothing comes before it"),
    )
}

/// Replaces the installed program by the kept one.
pub fn put_program_back(host: &Host, kept: &Kept) -> Result<(), Failure> {
    host.copy_own_file(
        kept::PROGRAM,
        config::PROGRAM,
        PROGRAM_MODE,
        Some(kept.sha256),
    )
    .map(drop)
}

/// The version that dpkg says is installed, or half installed.
pub fn installed_version(host: &Host) -> Result<Option<String>, Failure> {
    let database = Database::read(host)?;
    let entry = database.get(PACKAGE);
    Ok(entry
        .map(|entry| entry.version.clone())
        .filter(|version| !version.is_empty()))
}
