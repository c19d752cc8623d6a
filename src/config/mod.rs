//! The host configuration: `/etc/limpet/limpet.toml` and its drop-ins, merged and validated.
//!
//! Fragments are parsed, merged key by key, and validated into a [`Config`]; the rest of the program sees only that.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::git::ObjectId;

mod address;
mod declared;
mod follow;
mod grammar;
mod parse;
#[cfg(test)]
mod tests;

pub use follow::{Follow, read_version};
pub use grammar::{is_branch, is_fingerprint, is_host_name, parse_duration};

/// A validated host configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where revisions come from.
    pub source: Source,
    /// What to believe.
    pub trust: Trust,
    /// Who this host is.
    pub host: HostSettings,
    /// How to apply.
    pub apply: Apply,
}

/// `[source]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where the repository is.
    pub url: SourceUrl,
    /// Where else it is; tried in turn when `url` fails.
    pub mirrors: Vec<SourceUrl>,
    /// What of it is followed.
    pub follow: Follow,
    /// The directory of the repository that holds fleet.toml; `""` is its root.
    pub path: String,
    /// How often to poll; at least 10 seconds.
    pub interval: Duration,
    /// Certificates to trust beside the system's roots.
    pub ca_file: Option<String>,
    /// The name of a systemd credential that holds a bearer token or password.
    pub token: Option<String>,
    /// With `token`: HTTP basic authentication.
    pub username: Option<String>,
    /// The name of a systemd credential that holds a private key for ssh.
    pub ssh_key: Option<String>,
    /// The file of the ssh servers' keys that is read beside the system's: [`KNOWN_HOSTS`], except while enrolling.
    pub known_hosts: String,
    /// A proxy's URL.
    pub proxy: Option<String>,
}

/// A repository's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceUrl {
    /// `https://` or `http://`, as written, without credentials.
    Http(String),
    /// `ssh://` or `user@host:path`.
    Ssh(SshAddress),
    /// On this machine, a repository or a bundle file: an absolute path.
    Path(String),
}

/// A repository behind ssh. No part of it begins with a dash or holds blanks or control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAddress {
    /// As written.
    pub text: String,
    /// The user to log in as; the server's idea of us when left out.
    pub user: Option<String>,
    /// A name or an address, without brackets.
    pub host: String,
    /// 22 when left out.
    pub port: Option<u16>,
    /// As the server's shell shall see it: from its root, or from the user's home.
    pub path: String,
}

/// `[trust]`
#[derive(Debug, Clone)]
pub struct Trust {
    /// The first commit to trust.
    pub anchor: Anchor,
    /// The path of the allowed signers file.
    pub allowed_signers: String,
    /// The path of the file of revoked keys.
    pub revoked: String,
    /// Which commits must be signed.
    pub mode: TrustMode,
    /// The only channel to take releases of; None where the repository has one.
    pub channel: Option<String>,
    /// How long there may be no new revision that is trusted before the host is *stale*.
    pub max_age: Option<Duration>,
}

/// The first commit to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Its full id.
    pub commit: ObjectId,
    /// SHA-256 of its signed payload, where known.
    pub payload_sha256: Option<[u8; 32]>,
    /// The fingerprint of its signer (`SHA256:…`), where known.
    pub signer: Option<String>,
}

/// Which commits between the trusted head and the tip must be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrustMode {
    /// Every commit on one path (the default).
    #[default]
    Path,
    /// Only the tip; needs `accept_head_only = true`.
    Head,
}

/// `[host]`
#[derive(Debug, Clone)]
pub struct HostSettings {
    /// The name the repository knows this host by.
    pub name: String,
    /// Labels from provisioning; the repository's inventory wins.
    pub labels: BTreeMap<String, String>,
    /// Given, or by os-release.
    pub package_manager: Option<PackageManager>,
}

/// The host's package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageManager {
    /// Debian's.
    Apt,
    /// Fedora's and Red Hat's.
    Dnf,
}

/// `[apply]`
#[derive(Debug, Clone)]
pub struct Apply {
    /// Enforce, or only report.
    pub mode: ApplyMode,
    /// A plan that removes more than this is held.
    pub max_removals: usize,
    /// Packages that are never removed, beside the built-in list.
    pub protect_packages: Vec<String>,
    /// Exceptions to the built-in list of paths that no fleet may manage.
    pub allow_paths: Vec<String>,
    /// May the fleet declare setuid, setgid and sticky modes.
    pub allow_suid: bool,
    /// May the fleet declare package repositories without a key.
    pub allow_unsigned_repositories: bool,
    /// What is kept of files as they were before limpet has at most so many bytes.
    pub originals_max_bytes: u64,
    /// And is kept for so long; none means for as long as it may be wanted back.
    pub originals_max_age: Option<Duration>,
}

/// `apply.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ApplyMode {
    /// Change what differs.
    #[default]
    Enforce,
    /// Look, plan, log and count drift; change nothing.
    Report,
}

/// The largest fragment of the host configuration, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// The host configuration.
pub const CONFIG_FILE: &str = "/etc/limpet/limpet.toml";
/// Its drop-ins.
pub const CONFIG_DIRECTORY: &str = "/etc/limpet/limpet.toml.d";
/// The second mark: the highest trusted head, written after the state database.
pub const ENROLLED_MARK: &str = "/etc/limpet/enrolled";
/// Everything limpet keeps: root's alone.
pub const STATE_DIRECTORY: &str = "/var/lib/limpet";
/// What limpet remembers.
pub const STATE_DATABASE: &str = "/var/lib/limpet/state.db";
/// Held while limpet may change the machine.
pub const LOCK_FILE: &str = "/var/lib/limpet/lock";
/// What the revision in force needs.
pub const OBJECTS_DIRECTORY: &str = "/var/lib/limpet/objects";
/// The object store in it.
pub const OBJECTS_DATABASE: &str = "/var/lib/limpet/objects/objects.db";
/// What files looked like before limpet, by SHA-256.
pub const ORIGINALS_DIRECTORY: &str = "/var/lib/limpet/originals";
/// There while a revision is on probation.
pub const PROBATION_MARK: &str = "/var/lib/limpet/on-probation";
/// Where the last good program is kept, and what was written down when a version had to be taken back.
pub const PREVIOUS_DIRECTORY: &str = "/var/lib/limpet/previous";
/// The program that the package installs.
pub const PROGRAM: &str = "/usr/bin/limpet";
/// How often in a row the recovery had to start the agent; gone after a cycle.
pub const RECOVERIES: &str = "/run/limpet/recoveries";
/// The fetcher's cache.
pub const CACHE_DIRECTORY: &str = "/var/cache/limpet";
/// The keys of the ssh servers that a source may be on.
pub const KNOWN_HOSTS: &str = "/etc/limpet/known_hosts";
/// Where an operator reaches the agent.
pub const CONTROL_SOCKET: &str = "/run/limpet/control.sock";
/// Where the applier reaches the fetcher.
pub const FETCH_SOCKET: &str = "/run/limpet/fetch.sock";
/// The group whose members may read the status.
pub const OPERATORS_GROUP: &str = "limpet-operators";

impl Config {
    /// The configuration of the host `name` that applies a local directory once without asking who signed it. Its anchor is the null
    /// id, which no commit has: nothing can be verified with it.
    pub fn unverified(name: &str) -> Self {
        Config {
            source: Source {
                url: SourceUrl::Path("/".to_owned()),
                follow: Follow::Branch(parse::DEFAULT_BRANCH.to_owned()),
                path: String::new(),
                interval: parse::DEFAULT_INTERVAL,
                ca_file: None,
                mirrors: Vec::new(),
                token: None,
                username: None,
                ssh_key: None,
                known_hosts: KNOWN_HOSTS.to_owned(),
                proxy: None,
            },
            trust: Trust {
                anchor: Anchor {
                    commit: ObjectId::null(gix::hash::Kind::Sha1),
                    payload_sha256: None,
                    signer: None,
                },
                allowed_signers: parse::DEFAULT_ALLOWED_SIGNERS.to_owned(),
                revoked: parse::DEFAULT_REVOKED.to_owned(),
                mode: TrustMode::default(),
                channel: None,
                max_age: None,
            },
            host: HostSettings {
                name: name.to_owned(),
                labels: BTreeMap::new(),
                package_manager: None,
            },
            apply: Apply {
                mode: ApplyMode::default(),
                max_removals: parse::DEFAULT_MAX_REMOVALS,
                protect_packages: Vec::new(),
                allow_paths: Vec::new(),
                allow_suid: false,
                allow_unsigned_repositories: false,
                originals_max_bytes: parse::DEFAULT_ORIGINALS_MAX_BYTES,
                originals_max_age: None,
            },
        }
    }
}
