//! The fetcher's own cage: what it may open, by Landlock (landlock(7)), within the sandbox that systemd makes.
//!
//! systemd leaves homes and `/srv` readable, because a local repository may be anywhere; the fetcher knows where its own is, and
//! gives up the rest before it hears of anybody. ssh, the one program that it runs, is in the same cage.
//!
//! Invariant: a kernel that knows less is left with less of a cage, and never keeps the fetcher from its work.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, path_beneath_rules,
};

use crate::config::{Source, SourceUrl};

/// What the rules are written for; of an older kernel's, as many hold as it knows.
const WRITTEN_FOR: ABI = ABI::V4;

/// What every program needs, and ssh, names, certificates and credentials.
const READABLE: [&str; 10] = [
    "/usr",
    "/etc",
    "/lib",
    "/lib64",
    "/bin",
    "/sbin",
    "/run",
    "/proc",
    "/sys",
    "/var/lib/sss",
];

/// Gives up whatever fetching `source` into `cache` does not need, for this thread and those that it starts.
pub fn confine(source: &Source, cache: &Path) {
    // Its name would have to be made beneath a directory that it may not write to.
    if !cache.is_dir() {
        return;
    }
    match restrict(source, cache) {
        Ok(RulesetStatus::FullyEnforced) => tracing::debug!("confined by Landlock"),
        Ok(RulesetStatus::PartiallyEnforced) => {
            tracing::debug!("confined by Landlock, as far as this kernel knows it");
        }
        Ok(RulesetStatus::NotEnforced) => tracing::debug!("this kernel has no Landlock"),
        Err(error) => tracing::warn!("failed to confine the fetcher, ignoring: {error}"),
    }
}

fn restrict(source: &Source, cache: &Path) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::from_read(WRITTEN_FOR);
    let all = AccessFs::from_all(WRITTEN_FOR);
    let status = Ruleset::default()
        .handle_access(all)?
        .handle_access(AccessNet::BindTcp)?
        .create()?
        .add_rules(path_beneath_rules(READABLE, read))?
        .add_rules(path_beneath_rules(named(source), read))?
        .add_rules(path_beneath_rules(["/dev"], read | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules([cache, Path::new("/tmp")], all))?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// The directories of what the configuration names. What is named may be put in place anew, and is another file then.
fn named(source: &Source) -> Vec<PathBuf> {
    let urls = std::iter::once(&source.url).chain(&source.mirrors);
    let repositories = urls.filter_map(|url| match url {
        SourceUrl::Path(path) => Some(path.as_str()),
        SourceUrl::Http(_) | SourceUrl::Ssh(_) => None,
    });
    let files = source.ca_file.as_deref().into_iter();
    let paths = repositories.chain(files).map(Path::new);
    paths
        .filter_map(|path| Some(path.parent()?.to_owned()))
        .collect()
}
