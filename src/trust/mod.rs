//! What a host believes: bytes from Git in, a [`VerifiedRevision`] out, or the rule that refused.
//!
//! The server, its accounts and the network are not trusted; signing keys are. The *anchor* is the first commit a host trusts, named
//! by local root; the *trusted head* is the last one it verified; the *tip* is what the server now offers.
//!
//! Invariant: only [`verify`] and [`resume`] make a [`VerifiedRevision`]. Nothing here opens a file, runs a program or reads the
//! clock, and no date that a commit claims decides whether it is trusted.

use jiff::Timestamp;

use crate::config::{Anchor, TrustMode};
use crate::git::{ObjectError, ObjectId, Objects, Tree, hex};
use crate::model::{Class, Failure};

mod allowed_signers;
mod approval;
mod authority;
pub mod browse;
mod changes;
mod commit;
#[cfg(test)]
mod fixture;
mod fleet_name;
mod fleet_policy;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod key;
#[cfg(test)]
mod model;
mod path;
mod revision;
mod revoked;
mod rule;
mod sshsig;
mod step;
mod succession;
#[cfg(test)]
mod tests;
mod tree;
mod way;
mod wire;

pub use allowed_signers::{AllowedSigners, ListedKey};
pub use approval::{APPROVE, approval_line};
pub use authority::Signer;
pub use fleet_policy::{FleetPolicy, Limit, POLICY_FILE, Paths, Reason};
pub use key::{KeyError, PublicKey};
pub use revision::{TrustedHead, VerifiedRevision};
pub use revoked::Revoked;
pub use rule::{Refusal, Rule, Stop, unavailable};
pub use succession::{Revocation, check_change};

use authority::read_signature;
use commit::Commit;
use path::{Base, Position, Way};
use step::Judge;
use tree::{ChangeCheck, Files};
use way::{Standing, check_way};

/// The most commits that may lie between the trusted head and a tip, unless said otherwise.
pub const MAX_CATCHUP: usize = 10_000;

/// How the keys of lines begin with which a commit's message speaks to limpet.
const PREFIX: &str = "Limpet-";

/// The key of the line by which a commit says in which channel it is released.
const CHANNEL: &str = "Limpet-Channel";

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
    match judge_tip(objects, policy, trusted, tip, now) {
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
    Ok(VerifiedRevision::new(
        &commit,
        source_path,
        trusted.fleet.clone(),
        trusted.signer.clone(),
        &Standing::of_head(trusted),
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
    let mut judge = Judge::new(objects, policy, now);
    for revoked in trusted.iter().flat_map(|head| &head.revocations) {
        if let (Some(fingerprint), Reason::Compromised) = (&revoked.fingerprint, revoked.reason) {
            judge.distrust(fingerprint.clone(), POLICY_FILE.to_owned());
        }
    }
    if let (Err(refusal), Some(tree)) = (&policy.allowed, start.base.tree)
        && judge.policy_of(start.base.commit, tree)?.is_none()
    {
        return Err(refusal.clone().into());
    }
    let judged = match policy.mode {
        TrustMode::Path => judge_path(objects, policy, &mut judge, &start, trusted, &head, now),
        TrustMode::Head => judge_head(objects, policy, &mut judge, &start, trusted, &head, now),
    };
    judged.map_err(|stop| match stop {
        Stop::Refused(refusal) => name_remedy(refusal, &start).into(),
        unavailable => unavailable,
    })
}

/// Every step from the base to the tip has to be allowed.
fn judge_path(
    objects: &dyn Objects,
    policy: &Policy,
    judge: &mut Judge<'_>,
    start: &Start,
    trusted: Option<&TrustedHead>,
    head: &Commit,
    now: Timestamp,
) -> Result<Verdict, Stop> {
    judge.distrust_with(head.id, head.tree)?;
    let position = path::find_path(objects, &start.base, head.id, policy.max_catchup, &*judge)?;
    let way = match position {
        Position::Ahead(way) => way,
        elsewhere => return where_else(elsewhere, start, head.id),
    };
    accept(objects, policy, judge, start, trusted, head, way, now)
}

/// Only the tip is judged, as one step from the base, wherever between them others lie.
fn judge_head(
    objects: &dyn Objects,
    policy: &Policy,
    judge: &mut Judge<'_>,
    start: &Start,
    trusted: Option<&TrustedHead>,
    head: &Commit,
    now: Timestamp,
) -> Result<Verdict, Stop> {
    judge.distrust_with(head.id, head.tree)?;
    let position = path::find_path(
        objects,
        &start.base,
        head.id,
        policy.max_catchup,
        &path::Any,
    )?;
    let mut way = match position {
        Position::Ahead(way) => way,
        elsewhere => return where_else(elsewhere, start, head.id),
    };
    way.steps = path::Steps::vouch(judge, head)
        .map(|voucher| way.steps.pop().map(|step| step.signed_by(voucher)))?
        .into_iter()
        .collect();
    way.lines.clear();
    way.approvals.clear();
    accept(objects, policy, judge, start, trusted, head, way, now)
}

/// The verdict where the tip does not descend from the base.
fn where_else(position: Position, start: &Start, tip: ObjectId) -> Result<Verdict, Stop> {
    let trusted = start.base.commit;
    match position {
        Position::Behind => Ok(Verdict::Behind { trusted, tip }),
        Position::Cut { child, parent } => Err(Refusal::new(
            Rule::Shallow,
            format!("its parent {parent} is not there: the history is cut off"),
        )
        .of(child)
        .into()),
        Position::Diverged if start.is_anchor => Err(Refusal::new(
            Rule::AnchorMismatch,
            format!("it does not descend from the anchor {trusted}"),
        )
        .of(tip)
        .into()),
        Position::Diverged | Position::Ahead(_) => Ok(Verdict::Diverged { trusted, tip }),
    }
}

/// Checks what is asked of the whole way, and makes the revision.
#[allow(clippy::too_many_arguments)] // what judging a tip knows
fn accept(
    objects: &dyn Objects,
    policy: &Policy,
    judge: &Judge<'_>,
    start: &Start,
    trusted: Option<&TrustedHead>,
    head: &Commit,
    way: Way,
    now: Timestamp,
) -> Result<Verdict, Stop> {
    let standing = match trusted {
        Some(trusted) => Standing::of_head(trusted),
        None => Standing::of_policy(
            judge
                .policy_of(start.base.commit, way.from.tree)?
                .as_deref(),
        ),
    };
    let signers = policy.allowed.as_ref().ok();
    let (standing, signer) = match way.steps.last() {
        Some(last) => {
            let before = way
                .steps
                .len()
                .checked_sub(2)
                .map(|index| &way.steps[index]);
            let from = before.map_or(way.from, |step| step::Footing::checked(step.tree));
            let standing = check_way(judge, &way, standing, signers, now)?;
            let allowed = judge.step(from, last, &way.approvals)?;
            check_channel(policy, allowed.before.as_deref(), &allowed.signer, head)?;
            (standing, allowed.signer.clone())
        }
        // The tip is the anchor itself: nothing was before it but its own policy.
        None => {
            ChangeCheck::new(objects).check(head.id, None, head.tree)?;
            let voucher = path::Steps::vouch(judge, head)?;
            let own = judge.policy_of(head.id, head.tree)?;
            let admitted = judge
                .admit(own.as_deref(), &voucher)
                .and_then(|admitted| admitted.valid_now())
                .map_err(|refusal| refusal.of(head.id).signed_by(&voucher.fingerprint))?;
            check_channel(policy, own.as_deref(), &admitted, head)?;
            (standing, admitted)
        }
    };
    let fleet = check_fleets(objects, policy, start, &way, head)?;
    let revision = VerifiedRevision::new(head, &policy.source_path, fleet, Some(signer), &standing);
    let passed = match way.lines.split_last() {
        Some((_, before)) => before.concat(),
        None => Vec::new(),
    };
    Ok(Verdict::Accepted(Box::new(revision.passing(passed))))
}

/// A tip that was signed for another channel is not one for this host.
fn check_channel(
    policy: &Policy,
    before: Option<&FleetPolicy>,
    signer: &Signer,
    head: &Commit,
) -> Result<(), Refusal> {
    let Some(channel) = &policy.channel else {
        return Ok(());
    };
    if before.is_some_and(|policy| policy.may_release(&signer.principal, channel)) {
        return Ok(());
    }
    let trailers = head.trailers();
    let named: Vec<&str> = trailers
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(CHANNEL))
        .map(|(_, value)| value.as_str())
        .collect();
    let detail = match named.as_slice() {
        [only] if only == channel => return Ok(()),
        [] => format!("it is released in no channel, and this host takes '{channel}'"),
        [only] => format!(
            "it is released in the channel '{}', and this host takes '{channel}'",
            rule::escape(only.as_bytes())
        ),
        _ => format!(
            "it names {} channels, and this host takes '{channel}'",
            named.len()
        ),
    };
    Err(Refusal::new(Rule::WrongChannel, detail)
        .of(head.id)
        .signed_by(&signer.fingerprint))
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
            tree: Some(trusted.tree),
            is_checked: true,
        },
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
                    tree: None,
                    is_checked: false,
                },
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
            tree: Some(commit.tree),
            is_checked: false,
        },
        fleet,
        is_anchor: true,
    })
}

/// Checks that every step is of the same fleet, from the oldest on, and returns its name.
fn check_fleets(
    objects: &dyn Objects,
    policy: &Policy,
    start: &Start,
    way: &Way,
    head: &Commit,
) -> Result<Option<String>, Stop> {
    let mut fleet = start.fleet.clone();
    let mut tree = start.base.tree.filter(|_| start.base.is_checked);
    let tip = (head.id, head.tree);
    let steps = way.steps.iter().map(|step| (step.commit, step.tree));
    // The tip is looked at even where it is the anchor itself, and the way has no step.
    for (commit, its_tree) in steps.filter(|step| *step != tip).chain([tip]) {
        if tree != Some(its_tree) || commit == head.id {
            let is_tip = commit == head.id;
            fleet = check_fleet(objects, policy, (commit, its_tree), fleet, is_tip)?;
        }
        tree = Some(its_tree);
    }
    Ok(fleet)
}

/// The fleet's name after a step. A file that is missing or broken for a while changes nothing; a tip must have it.
fn check_fleet(
    objects: &dyn Objects,
    policy: &Policy,
    (commit, tree): (ObjectId, ObjectId),
    expected: Option<String>,
    is_tip: bool,
) -> Result<Option<String>, Stop> {
    let name = read_fleet_name(objects, policy, commit, tree)?;
    let refused = |detail: String| {
        Refusal::new(Rule::WrongFleet, detail)
            .of(commit)
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
