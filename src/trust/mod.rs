//! What a host believes: bytes from Git in, a [`VerifiedRevision`] out, or the rule that refused.
//!
//! The server, its accounts and the network are not trusted; signing keys are. The *anchor* is the first commit a host trusts, named
//! by local root; the *trusted head* is the last one it verified; the *tip* is what the server now offers.
//!
//! Invariant: only [`verify`] and [`resume`] make a [`VerifiedRevision`]. Nothing here opens a file, runs a program or reads the
//! clock, and no date that a commit claims decides whether it is trusted.

use jiff::Timestamp;
use semver::VersionReq;

use crate::config::{Anchor, TrustMode};
use crate::git::{ObjectError, ObjectId, Objects, Tree, hex};
use crate::model::{Class, Failure};

mod allowed_signers;
mod approval;
mod authority;
pub mod browse;
mod changes;
mod commit;
mod demand;
#[cfg(test)]
mod fixture;
mod fleet_name;
mod fleet_policy;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod key;
#[cfg(test)]
mod model;
#[cfg(feature = "openpgp")]
mod openpgp;
#[cfg(not(feature = "openpgp"))]
#[path = "openpgp/absent.rs"]
mod openpgp;
mod painting;
mod path;
mod policies;
mod release;
mod revision;
mod revoked;
mod rule;
mod sshsig;
mod start;
mod step;
mod succession;
mod superseding;
#[cfg(test)]
mod tests;
mod tree;
mod trial;
mod way;
mod wire;

pub use allowed_signers::{AllowedSigners, ListedKey};
pub use approval::approval_line;
pub use authority::Signer;
pub use fleet_policy::{FleetPolicy, Limit, POLICY_FILE, Paths, Reason};
pub use key::{KeyError, PublicKey};
pub use revision::{TrustedHead, VerifiedRevision};
pub use revoked::Revoked;
pub use rule::{Refusal, Rule, Stop, unavailable};
pub use succession::{Revocation, check_change};

use authority::Voucher;
use commit::Commit;
use policies::Policies;
use tree::Files;

/// The most commits that may lie between the trusted head and a tip, unless said otherwise.
pub const MAX_CATCHUP: usize = 10_000;

/// How the keys of lines begin with which a commit's message speaks to limpet.
const PREFIX: &str = "Limpet-";

/// How much of what a commit on the way says to limpet is kept, in bytes.
const LIMPET_LINES_LIMIT: usize = 1024;

/// What a host was told to believe.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The first commit to trust.
    pub anchor: Anchor,
    /// Whose signatures count where the repository has no policy of its own, or why that cannot be told.
    pub allowed: Result<AllowedSigners, Refusal>,
    /// Whose no longer do.
    pub revoked: Revoked,
    /// Which commits must be signed.
    pub mode: TrustMode,
    /// The most commits between the trusted head and a tip.
    pub max_catchup: usize,
    /// The directory of the repository that holds fleet.toml; `""` is its root.
    pub source_path: String,
    /// The only fleet to accept before a head is trusted, where known; afterwards it is the head's.
    pub fleet: Option<String>,
    /// The only channel to take releases of; None where the repository has one.
    pub channel: Option<String>,
    /// What the version of a tag must meet, where releases are followed.
    pub releases: Option<VersionReq>,
}

/// What became of a tip.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It is trusted, and ahead of the trusted head.
    Accepted(Box<VerifiedRevision>),
    /// It is the trusted head.
    Unchanged,
    /// The trusted head descends from it: the server went back, or lags.
    Behind {
        /// What is trusted.
        trusted: ObjectId,
        /// What the server offers.
        tip: ObjectId,
        /// The releases that they are, where those tell it.
        releases: Option<Box<(String, String)>>,
    },
    /// Neither descends from the other: history was rewritten.
    Diverged {
        /// What is trusted.
        trusted: ObjectId,
        /// What the server offers.
        tip: ObjectId,
    },
    /// It may be trusted once more keys have signed.
    Pending(Refusal),
    /// A rule refused it.
    Refused(Refusal),
    /// An object could not be had; to be tried again.
    Unavailable(ObjectError),
}

impl Verdict {
    /// What to tell people, unless all is well.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Verdict::Accepted(_) | Verdict::Unchanged => None,
            Verdict::Behind {
                releases: Some(releases),
                ..
            } => {
                let (trusted, offered) = releases.as_ref();
                let message =
                    format!("release '{offered}' is older than the trusted release '{trusted}'");
                Some(Failure::new(Class::Transient, message).with_hint(
                    "wait for the server to catch up; to go back on purpose, tag a signed revert with a higher version",
                ))
            }
            Verdict::Behind { trusted, tip, .. } => Some(
                Failure::new(
                    Class::Transient,
                    format!(
                        "revision {} is older than the trusted revision {}",
                        tip.to_hex_with_len(7),
                        trusted.to_hex_with_len(7)
                    ),
                )
                .with_hint("wait for the server to catch up; to go back on purpose, push a signed revert"),
            ),
            Verdict::Diverged { trusted, tip } => Some(
                Failure::new(
                    Class::Refused,
                    format!(
                        "refused revision {}: it does not descend from the trusted revision {}",
                        tip.to_hex_with_len(7),
                        trusted.to_hex_with_len(7)
                    ),
                )
                .with_hint("history was rewritten: push commits on top of the trusted one, or enrol this host again with a recent anchor"),
            ),
            Verdict::Pending(refusal) => {
                let mut failure = Failure::from(refusal.clone());
                // They may still sign: it is asked again.
                failure.class = Class::Transient;
                Some(failure)
            }
            Verdict::Refused(refusal) => Some(refusal.clone().into()),
            Verdict::Unavailable(error) => Some(unavailable(error)),
        }
    }
}

/// Judges `tip` against what is trusted. `objects` must hash what it returns; `now` is the host's time.
pub fn verify(
    objects: &dyn Objects,
    policy: &Policy,
    trusted: Option<&TrustedHead>,
    tip: ObjectId,
    now: Timestamp,
) -> Verdict {
    verdict(trial::judge(objects, policy, trusted, tip, None, now))
}

/// Judges what a source offers: the commit `id`, or where releases are followed, the tag object `id` that it calls `tag`. That must be a
/// release whose version is higher than every one before, put on a commit that [`verify`] accepts, and signed by one who could sign a
/// commit on top of it.
pub fn verify_offer(
    objects: &dyn Objects,
    policy: &Policy,
    trusted: Option<&TrustedHead>,
    (id, tag): (ObjectId, Option<&str>),
    now: Timestamp,
) -> Verdict {
    match (tag, &policy.releases) {
        (Some(name), _) => verdict(release::judge(objects, policy, trusted, (id, name), now)),
        (None, None) => verify(objects, policy, trusted, id, now),
        (None, Some(_)) => Verdict::Refused(
            Refusal::new(Rule::WrongTag, "no tag says that it is a release").of(id),
        ),
    }
}

/// The commit that the tag object `id`, which the source calls `name`, is put on, whoever signed it: for looking only.
pub fn commit_of_release(
    objects: &dyn Objects,
    (id, name): (ObjectId, &str),
) -> Result<ObjectId, Failure> {
    Ok(release::Tag::read(objects, id, name)?.commit)
}

fn verdict(judged: Result<Verdict, Stop>) -> Verdict {
    match judged {
        Ok(verdict) => verdict,
        Err(Stop::Refused(refusal)) if refusal.rule == Rule::PendingApproval => {
            Verdict::Pending(refusal)
        }
        Err(Stop::Refused(refusal)) => Verdict::Refused(refusal),
        Err(Stop::Unavailable(error)) => Verdict::Unavailable(error),
    }
}

/// Reads the trusted head again, after a restart: it was verified once, and must still be what was verified then. Neither a key that
/// was revoked since nor a mistake in the host's files undoes it, because going on with the last good state is safer than having
/// none. `source_path` is the directory that holds fleet.toml.
pub fn resume(
    objects: &dyn Objects,
    source_path: &str,
    trusted: &TrustedHead,
) -> Result<VerifiedRevision, Stop> {
    let commit = read_commit(objects, trusted.commit)?;
    if hex(&commit.payload_sha256) != trusted.payload_sha256 || commit.tree != trusted.tree {
        return Err(Refusal::new(
            Rule::StateMissing,
            "the trusted head is not the commit that was verified",
        )
        .of(trusted.commit)
        .into());
    }
    Ok(VerifiedRevision::of_head(
        &commit,
        source_path,
        trusted.clone(),
    ))
}

/// The files of the commit `id`, whoever signed it, relative to `source_path`: for looking only, because nothing is trusted by this and
/// no [`VerifiedRevision`] comes of it. `objects` must hash what it returns.
pub fn unverified_files<'a>(
    objects: &'a dyn Objects,
    source_path: &str,
    id: ObjectId,
) -> Result<impl Tree + 'a, Failure> {
    let commit = read_commit(objects, id)?;
    Ok(Files::new(objects, commit.tree, source_path))
}

/// What a person sees of a commit before trusting it as an anchor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// SHA-256 of its payload, in hex.
    pub payload_sha256: String,
    /// The key that signed it, if one did; whether that key may sign is another question.
    pub fingerprint: Option<String>,
    /// The first line of its message, safe to show.
    pub subject: String,
}

/// Reads the commit `id` and checks its signature, if it has one. Nothing is trusted by this. A signature that does not carry its key is
/// by one of `signers`, or by one that a policy in `source_path` lists, the commit's own or a parent's.
pub fn describe_commit(
    objects: &dyn Objects,
    source_path: &str,
    signers: Option<&AllowedSigners>,
    id: ObjectId,
) -> Result<Described, Failure> {
    let commit = match objects.get(&id) {
        Err(ObjectError::Missing(_)) => {
            return Err(
                Failure::new(Class::Refused, format!("the source has no commit {id}")).with_hint(
                    "name a commit of the branch by its full id, as 'git rev-parse HEAD' prints it",
                ),
            );
        }
        Err(error) => return Err(unavailable(&error)),
        Ok(object) => Commit::parse(id, object.kind, &object.data)?,
    };
    let fingerprint = match &commit.signature {
        None => None,
        Some(armor) => {
            let listed = || {
                let listed = signers.iter().flat_map(|signers| signers.public_keys());
                Ok(listed.cloned().collect())
            };
            let near = || Policies::new(objects, source_path).keys_near(&commit);
            let voucher = Voucher::by(armor, &commit.payload, "commit", [&listed, &near]);
            Some(voucher.map_err(|stop| stop.of(id))?.fingerprint)
        }
    };
    Ok(Described {
        payload_sha256: hex(&commit.payload_sha256),
        fingerprint,
        subject: commit.subject(),
    })
}

/// What the message of `commit` says to limpet.
fn lines_for_limpet(commit: &Commit) -> Vec<(String, String)> {
    let mut lines = commit.trailers();
    lines.retain(|(key, _)| is_for_limpet(key));
    lines
}

/// Does a line of a message speak to limpet.
fn is_for_limpet(key: &str) -> bool {
    let start = key.get(..PREFIX.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

fn read_fleet_name(
    objects: &dyn Objects,
    policy: &Policy,
    commit: ObjectId,
    tree: ObjectId,
) -> Result<Option<String>, Stop> {
    let file = Files::new(objects, tree, &policy.source_path)
        .read(fleet_name::FILE)
        .map_err(|error| Stop::reading(error, commit, Rule::WrongFleet))?;
    Ok(file.and_then(|file| fleet_name::parse(&file.data)))
}

fn fleet_file(policy: &Policy) -> String {
    place_in_repository(&policy.source_path, fleet_name::FILE)
}

/// Where `path`, which is relative to the fleet's `directory`, stands in the repository.
fn place_in_repository(directory: &str, path: &str) -> String {
    match directory {
        "" => path.to_owned(),
        directory => format!("{directory}/{path}"),
    }
}

fn read_commit(objects: &dyn Objects, id: ObjectId) -> Result<Commit, Stop> {
    let object = objects
        .get(&id)
        .map_err(|error| Stop::reading(error, id, Rule::MalformedCommit))?;
    Ok(Commit::parse(id, object.kind, &object.data)?)
}

/// A SHA-256 in hex.
pub fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    match ObjectId::from_hex(text.as_bytes())
        .ok()?
        .as_slice()
        .try_into()
    {
        Ok(hash) if text.len() == 64 => Some(hash),
        _ => None,
    }
}
