//! What a host believes: bytes from Git in, a [`VerifiedRevision`] out, or the rule that refused.
//!
//! The server, its accounts and the network are not trusted; signing keys are. The *anchor* is the first commit a host trusts, named
//! by local root; the *trusted head* is the last one it verified; the *tip* is what the server now offers.
//!
//! Invariant: only [`verify`] and [`resume`] make a [`VerifiedRevision`]. Nothing here opens a file, runs a program or reads the
//! clock, and no date that a commit claims decides whether it is trusted.

use std::cell::RefCell;
use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::config::{Anchor, TrustMode};
use crate::git::{ObjectError, ObjectId, Objects, Tree, hex};
use crate::model::{Class, Failure};

mod allowed_signers;
mod authority;
pub mod browse;
mod commit;
#[cfg(test)]
mod fixture;
mod fleet_name;
mod key;
mod path;
mod revision;
mod revoked;
mod rule;
mod sshsig;
#[cfg(test)]
mod tests;
mod tree;
mod wire;

pub use allowed_signers::{AllowedSigners, ListedKey};
pub use authority::Signer;
pub use key::{KeyError, PublicKey};
pub use revision::{TrustedHead, VerifiedRevision};
pub use revoked::Revoked;
pub use rule::{Refusal, Rule, Stop, unavailable};

use authority::{Authority, read_signature};
use commit::Commit;
use path::{Base, Position, Step};
use tree::{ChangeCheck, Files};

/// The most commits that may lie between the trusted head and a tip, unless said otherwise.
pub const MAX_CATCHUP: usize = 10_000;

/// How the keys of lines begin with which a commit's message speaks to limpet.
const PREFIX: &str = "Limpet-";

/// What a host was told to believe.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The first commit to trust.
    pub anchor: Anchor,
    /// Whose signatures count.
    pub allowed: AllowedSigners,
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
}

impl Policy {
    fn authority(&self, now: Timestamp) -> Authority<'_> {
        Authority {
            allowed: &self.allowed,
            revoked: &self.revoked,
            now,
        }
    }
}

/// What became of a tip. *Pending* joins them with approvals.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It is trusted, and ahead of the trusted head.
    Accepted(VerifiedRevision),
    /// It is the trusted head.
    Unchanged,
    /// The trusted head descends from it: the server went back, or lags.
    Behind {
        /// What is trusted.
        trusted: ObjectId,
        /// What the server offers.
        tip: ObjectId,
    },
    /// Neither descends from the other: history was rewritten.
    Diverged {
        /// What is trusted.
        trusted: ObjectId,
        /// What the server offers.
        tip: ObjectId,
    },
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
            Verdict::Behind { trusted, tip } => Some(
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
    match judge_tip(objects, policy, trusted, tip, now) {
        Ok(verdict) => verdict,
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
    Ok(VerifiedRevision::new(
        &commit,
        source_path,
        trusted.fleet.clone(),
        trusted.signer.clone(),
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

/// Reads the commit `id` and checks its signature, if it has one. Nothing is trusted by this.
pub fn describe_commit(objects: &dyn Objects, id: ObjectId) -> Result<Described, Failure> {
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
        Some(_) => {
            let signature = read_signature(&commit)?;
            authority::verify(&signature, &commit)?;
            Some(signature.key.fingerprint())
        }
    };
    Ok(Described {
        payload_sha256: hex(&commit.payload_sha256),
        fingerprint,
        subject: commit.subject(),
    })
}

/// What a tip is judged against: the trusted head, or the anchor before there is one.
struct Start {
    base: Base,
    /// Its tree, when its files were checked before.
    tree: Option<ObjectId>,
    fleet: Option<String>,
    is_anchor: bool,
}

fn judge_tip(
    objects: &dyn Objects,
    policy: &Policy,
    trusted: Option<&TrustedHead>,
    tip: ObjectId,
    now: Timestamp,
) -> Result<Verdict, Stop> {
    if trusted.is_some_and(|head| head.commit == tip) {
        return Ok(Verdict::Unchanged);
    }
    let head = read_commit(objects, tip)?;
    if trusted.is_some_and(|trusted| trusted.payload_sha256 == hex(&head.payload_sha256)) {
        return Ok(Verdict::Unchanged);
    }
    let start = match trusted {
        Some(trusted) => start_at_head(trusted)?,
        None => start_at_anchor(objects, policy)?,
    };

    let authority = policy.authority(now);
    let passed: RefCell<BTreeMap<ObjectId, Vec<(String, String)>>> = RefCell::default();
    let judge_head = |commit: &Commit| {
        authority
            .judge(commit)
            .and_then(|signed| signed.valid_now(commit))
            .map_err(|refusal| name_remedy(refusal, &start))
    };
    let judge = |commit: &Commit| match policy.mode {
        _ if commit.id == tip => judge_head(commit).map(drop),
        TrustMode::Head => Ok(()),
        // A key that expired since may have signed a step below the tip: the tip's own key is valid now, so it is another one,
        // and vouches for what it builds on.
        TrustMode::Path => match authority.judge(commit) {
            Ok(_) => {
                let mut trailers = commit.trailers();
                trailers.retain(|(key, _)| is_for_limpet(key));
                if !trailers.is_empty() {
                    passed.borrow_mut().insert(commit.id, trailers);
                }
                Ok(())
            }
            Err(refusal) => Err(name_remedy(refusal, &start)),
        },
    };
    let position = path::find_path(objects, &start.base, tip, policy.max_catchup, &judge)?;
    let steps = match position {
        Position::Ahead(steps) => steps,
        Position::Behind => {
            return Ok(Verdict::Behind {
                trusted: start.base.commit,
                tip,
            });
        }
        Position::Cut { child, parent } => {
            return Err(Refusal::new(
                Rule::Shallow,
                format!("its parent {parent} is not there: the history is cut off"),
            )
            .of(child)
            .into());
        }
        Position::Diverged if start.is_anchor => {
            return Err(Refusal::new(
                Rule::AnchorMismatch,
                format!("it does not descend from the anchor {}", start.base.commit),
            )
            .of(tip)
            .into());
        }
        Position::Diverged => {
            return Ok(Verdict::Diverged {
                trusted: start.base.commit,
                tip,
            });
        }
    };

    let fleet = check_steps(objects, policy, &start, &steps, &head)?;
    let signed = judge_head(&head)?;
    let revision = VerifiedRevision::new(&head, &policy.source_path, fleet, Some(signed.signer));
    let mut passed = passed.into_inner();
    let on_the_way = steps.iter().filter_map(|step| passed.remove(&step.commit));
    Ok(Verdict::Accepted(
        revision.passing(on_the_way.flatten().collect()),
    ))
}

/// Does a line of a message speak to limpet.
fn is_for_limpet(key: &str) -> bool {
    let start = key.get(..PREFIX.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

fn start_at_head(trusted: &TrustedHead) -> Result<Start, Stop> {
    let payload_sha256 = parse_sha256(&trusted.payload_sha256).ok_or_else(|| {
        Refusal::new(
            Rule::StateMissing,
            "the recorded payload of the trusted head is no SHA-256",
        )
        .of(trusted.commit)
    })?;
    Ok(Start {
        base: Base {
            commit: trusted.commit,
            payload_sha256: Some(payload_sha256),
        },
        tree: Some(trusted.tree),
        fleet: trusted.fleet.clone(),
        is_anchor: false,
    })
}

/// The anchor is trusted by its id, and by its payload and signer where they are configured; it need not be signed otherwise.
fn start_at_anchor(objects: &dyn Objects, policy: &Policy) -> Result<Start, Stop> {
    let anchor = &policy.anchor;
    let mismatch = |detail: String| {
        Refusal::new(Rule::AnchorMismatch, detail)
            .of(anchor.commit)
            .into()
    };
    let object = match objects.get(&anchor.commit) {
        Ok(object) => object,
        Err(ObjectError::Missing(_)) => {
            // The server may hold another commit with the anchor's payload.
            return Ok(Start {
                base: Base {
                    commit: anchor.commit,
                    payload_sha256: anchor.payload_sha256,
                },
                tree: None,
                fleet: policy.fleet.clone(),
                is_anchor: true,
            });
        }
        Err(error) => return Err(Stop::reading(error, anchor.commit, Rule::MalformedCommit)),
    };
    let commit = Commit::parse(anchor.commit, object.kind, &object.data)?;
    if anchor
        .payload_sha256
        .is_some_and(|payload| payload != commit.payload_sha256)
    {
        return Err(mismatch(format!(
            "the anchor's payload is {}, not the configured one",
            hex(&commit.payload_sha256)
        )));
    }
    if let Some(expected) = &anchor.signer {
        let signature = read_signature(&commit)
            .map_err(|refusal| mismatch(format!("the anchor: {}", refusal.detail)))?;
        let fingerprint = signature.key.fingerprint();
        if fingerprint != *expected {
            return Err(mismatch(format!(
                "the anchor is signed by '{fingerprint}', not by '{expected}'"
            )));
        }
        authority::verify(&signature, &commit)
            .map_err(|refusal| mismatch(format!("the anchor: {}", refusal.detail)))?;
    }
    let fleet = match &policy.fleet {
        Some(fleet) => Some(fleet.clone()),
        None => read_fleet_name(objects, policy, anchor.commit, commit.tree)?,
    };
    Ok(Start {
        base: Base {
            commit: anchor.commit,
            payload_sha256: Some(commit.payload_sha256),
        },
        tree: None,
        fleet,
        is_anchor: true,
    })
}

/// Checks what each step changes, from the oldest on, and returns the fleet's name. In head mode the path is one step.
fn check_steps(
    objects: &dyn Objects,
    policy: &Policy,
    start: &Start,
    steps: &[Step],
    head: &Commit,
) -> Result<Option<String>, Stop> {
    let mut check = ChangeCheck::new(objects);
    let mut tree = start.tree;
    let mut fleet = start.fleet.clone();
    let steps = match policy.mode {
        TrustMode::Path => steps,
        TrustMode::Head => &[],
    };
    let head = Step {
        commit: head.id,
        tree: head.tree,
    };
    // The tip is looked at even where it is the anchor itself, and the path has no step.
    for step in steps.iter().filter(|step| **step != head).chain([&head]) {
        check.check(step.commit, tree, step.tree)?;
        if tree != Some(step.tree) || step.commit == head.commit {
            let is_tip = step.commit == head.commit;
            fleet = check_fleet(objects, policy, step, fleet, is_tip)?;
        }
        tree = Some(step.tree);
    }
    Ok(fleet)
}

/// The fleet's name after `step`. A file that is missing or broken for a while changes nothing; a tip must have it.
fn check_fleet(
    objects: &dyn Objects,
    policy: &Policy,
    step: &Step,
    expected: Option<String>,
    is_tip: bool,
) -> Result<Option<String>, Stop> {
    let name = read_fleet_name(objects, policy, step.commit, step.tree)?;
    let refused = |detail: String| {
        Refusal::new(Rule::WrongFleet, detail)
            .of(step.commit)
            .about(fleet_file(policy))
    };
    match (expected, name) {
        (Some(expected), Some(name)) if expected != name => Err(refused(format!(
            "it is of the fleet '{}', this host trusts '{expected}'",
            rule::escape(name.as_bytes())
        ))
        .into()),
        (Some(expected), None) if is_tip => Err(refused(format!(
            "its '{}' does not say fleet = \"{expected}\"",
            fleet_file(policy)
        ))
        .into()),
        (expected, name) => Ok(name.or(expected)),
    }
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
    match policy.source_path.as_str() {
        "" => fleet_name::FILE.to_owned(),
        path => format!("{path}/{}", fleet_name::FILE),
    }
}

fn read_commit(objects: &dyn Objects, id: ObjectId) -> Result<Commit, Stop> {
    let object = objects
        .get(&id)
        .map_err(|error| Stop::reading(error, id, Rule::MalformedCommit))?;
    Ok(Commit::parse(id, object.kind, &object.data)?)
}

/// A host that starts at an old anchor may be unable to accept the history since, because a key was revoked or expired.
fn name_remedy(refusal: Refusal, start: &Start) -> Refusal {
    match refusal.rule {
        Rule::KeyRevoked | Rule::KeyExpired if start.is_anchor => refusal.with_hint(
            "if history up to here is known to be good, anchor the host at a more recent commit; else sign the change again with a valid key",
        ),
        _ => refusal,
    }
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
