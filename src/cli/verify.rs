//! `limpet verify`: judge a revision the way a host does.
//!
//! With its stand-alone options it needs no host and no root, so that CI and pre-receive hooks run the same code as the hosts.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;

use super::{CommandResult, USAGE, terminal};
use crate::config::{Anchor, FETCH_SOCKET, TrustMode};
use crate::fetch::client::Client;
use crate::git::repository::{Repository, RepositoryError};
use crate::git::{Hashed, ObjectId};
use crate::model::{Class, Failure};
use crate::sys::clock;
use crate::trust::{
    AllowedSigners, MAX_CATCHUP, Policy, Refusal, Revoked, Rule, Signer, Stop, TrustedHead,
    Verdict, parse_sha256, verify, verify_offer,
};

/// The arguments of `limpet verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The commit to judge: an id, a tag, a branch, HEAD~1 (default: HEAD; on a host without --repo, the tip of its source)
    rev: Option<String>,
    /// The repository that holds it (default: the one this directory is in; on a host, its source)
    #[arg(long, value_name = "PATH")]
    repo: Option<PathBuf>,
    /// Print the verdict as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    standalone: Option<Standalone>,
}

/// What to believe, instead of this host's configuration and state.
#[derive(Debug, Args)]
#[group(requires_all = ["allowed_signers", "revoked", "anchor"])]
struct Standalone {
    /// The keys that may sign, one a line: NAME namespaces="git" ssh-ed25519 AAAA…
    #[arg(long, value_name = "FILE", required = false)]
    allowed_signers: PathBuf,
    /// The keys that no longer may: a key or fingerprint a line
    #[arg(long, value_name = "FILE", required = false)]
    revoked: PathBuf,
    /// The first commit to trust: its full id
    #[arg(long, value_name = "ID", required = false)]
    anchor: String,
    /// SHA-256 of the anchor's payload
    #[arg(long, value_name = "HEX")]
    anchor_payload: Option<String>,
    /// The last trusted commit: its full id; the anchor when left out
    #[arg(long, value_name = "ID")]
    trusted: Option<String>,
    /// The only fleet to accept
    #[arg(long, value_name = "NAME")]
    fleet: Option<String>,
    /// The only channel to accept releases of
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// REV is the name of a release tag, whose version must meet this: ">=1.4, <2"
    #[arg(long, value_name = "VERSIONS")]
    tags: Option<semver::VersionReq>,
    /// The last trusted release: versions only rise
    #[arg(long, value_name = "TAG", requires_all = ["tags", "trusted"])]
    trusted_tag: Option<String>,
    /// Which commits must be signed
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Mode::Path)]
    mode: Mode,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    /// Every commit between the trusted one and this one
    Path,
    /// Only this one
    Head,
}

/// What this host believes.
#[derive(Debug, Clone)]
pub struct HostTrust {
    /// Its configuration, with the files it names.
    pub policy: Policy,
    /// Its trusted head, when it has one.
    pub trusted: Option<TrustedHead>,
    /// The time to judge keys by.
    pub now: Timestamp,
}

/// Runs the command. `read_host_trust` is asked only when the stand-alone options are not given.
pub fn run(
    arguments: &Verify,
    read_host_trust: impl FnOnce() -> Result<Result<HostTrust, Refusal>, Vec<Failure>>,
) -> CommandResult {
    if arguments.repo.is_none() && arguments.standalone.is_none() {
        return match read_host_trust()? {
            Ok(believed) => verify_source(arguments, &believed),
            Err(refusal) => answer(arguments.json, None, &Verdict::Refused(refusal)),
        };
    }
    let repository = match open(arguments) {
        Ok(repository) => repository,
        Err(error) => return Ok(usage_error(error.to_string())),
    };
    let believed = match &arguments.standalone {
        Some(standalone) => match standalone.read(&repository) {
            Ok(believed) => Ok(believed),
            Err(Problem::Usage(message)) => return Ok(usage_error(message)),
            Err(Problem::Stop(stop)) => Err(stop),
        },
        None => read_host_trust()?.map_err(Stop::from),
    };
    let releases = believed
        .as_ref()
        .ok()
        .and_then(|it| it.policy.releases.as_ref());
    let (tip, tag) = match find(&repository, arguments, releases.is_some()) {
        Ok(found) => found,
        Err(error) => return Ok(usage_error(error.to_string())),
    };
    let (verdict, trusted) = match believed {
        Ok(HostTrust {
            policy,
            trusted,
            now,
        }) => {
            let verdict = match &tag {
                Some(tag) => {
                    let offer = (tip, Some(tag.as_str()));
                    verify_offer(&repository, &policy, trusted.as_ref(), offer, now)
                }
                // A commit that is named is judged as a commit, whatever releases there are.
                None => verify(&repository, &policy, trusted.as_ref(), tip, now),
            };
            (verdict, trusted)
        }
        Err(Stop::Refused(refusal)) => (Verdict::Refused(refusal), None),
        Err(Stop::Unavailable(error)) => (Verdict::Unavailable(error), None),
    };
    answer(arguments.json, trusted.as_ref(), &verdict)
}

/// Judges what this host's source offers now, as the agent would.
fn verify_source(arguments: &Verify, believed: &HostTrust) -> CommandResult {
    let fetcher = Client::connect(Path::new(FETCH_SOCKET)).map_err(|failure| {
        vec![
            failure
                .with_hint("run it as root on an enrolled host, or name a repository with --repo"),
        ]
    })?;
    let trusted = believed.trusted.as_ref();
    let offered = fetcher
        .poll(trusted.map(|head| head.commit))
        .map_err(|trouble| vec![trouble.failure])?;
    let (hashed, policy, now) = (Hashed(&fetcher), &believed.policy, believed.now);
    let named = arguments.rev.as_deref();
    let verdict = match named.map(|text| ObjectId::from_hex(text.as_bytes())) {
        None => {
            let offer = (offered.id, offered.tag.as_deref());
            verify_offer(&hashed, policy, trusted, offer, now)
        }
        Some(Ok(id)) if id.kind() == offered.id.kind() => verify(&hashed, policy, trusted, id, now),
        Some(_) => {
            return Ok(usage_error(
                "without --repo, REV is a full commit id".to_owned(),
            ));
        }
    };
    answer(arguments.json, trusted, &verdict)
}

fn open(arguments: &Verify) -> Result<Repository, RepositoryError> {
    let mut repository = Repository::discover(arguments.repo.as_deref().unwrap_or(Path::new(".")))?;
    // Set by `git receive-pack` for its hooks: what is being pushed is not in the repository yet.
    if let Some(directory) = std::env::var_os("GIT_QUARANTINE_PATH") {
        repository = repository.with_quarantine(Path::new(&directory))?;
    }
    Ok(repository)
}

/// What is to be judged: a commit, or where releases are followed, a tag with its name.
fn find(
    repository: &Repository,
    arguments: &Verify,
    follows_releases: bool,
) -> Result<(ObjectId, Option<String>), RepositoryError> {
    let rev = arguments.rev.as_deref().unwrap_or("HEAD");
    if follows_releases {
        if let Some((name, id)) = repository.tag(rev)? {
            return Ok((id, Some(name)));
        }
        if arguments.standalone.is_some() {
            return Err(RepositoryError::new(format!(
                "'{rev}' is no tag, which --tags asks for"
            )));
        }
    }
    Ok((repository.resolve(rev)?, None))
}

enum Problem {
    /// The command line cannot be understood.
    Usage(String),
    /// What it names is not to be trusted.
    Stop(Stop),
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Problem::Stop(refusal.into())
    }
}

impl Standalone {
    fn read(&self, repository: &Repository) -> Result<HostTrust, Problem> {
        let commit = full_id(repository, "--anchor", &self.anchor)?;
        let payload_sha256 = match &self.anchor_payload {
            Some(text) => Some(parse_sha256(text).ok_or_else(|| {
                Problem::Usage(format!("'{text}' of --anchor-payload is no SHA-256 in hex"))
            })?),
            None => None,
        };
        let trusted = match &self.trusted {
            Some(text) => Some(full_id(repository, "--trusted", text)?),
            None => None,
        };
        let policy = Policy {
            anchor: Anchor {
                commit,
                payload_sha256,
                signer: None,
            },
            allowed: read_file(
                &self.allowed_signers,
                AllowedSigners::parse,
                AllowedSigners::unreadable,
            ),
            revoked: read_file(&self.revoked, Revoked::parse, Revoked::unreadable)?,
            mode: match self.mode {
                Mode::Path => TrustMode::Path,
                Mode::Head => TrustMode::Head,
            },
            max_catchup: MAX_CATCHUP,
            source_path: String::new(),
            fleet: self.fleet.clone(),
            channel: self.channel.clone(),
            releases: self.tags.clone(),
        };
        let trusted = match trusted {
            Some(id) => {
                let mut head = TrustedHead::set(repository, &policy, id).map_err(Problem::Stop)?;
                head.fleet = self.fleet.clone().or(head.fleet);
                head.release = self.trusted_tag.clone();
                Some(head)
            }
            None => None,
        };
        Ok(HostTrust {
            policy,
            trusted,
            now: clock::now(),
        })
    }
}

fn full_id(repository: &Repository, option: &str, text: &str) -> Result<ObjectId, Problem> {
    ObjectId::from_hex(text.as_bytes())
        .ok()
        .filter(|id| id.kind() == repository.hash())
        .ok_or_else(|| {
            Problem::Usage(format!(
                "'{text}' of {option} is no full commit id, expected {} hex digits",
                repository.hash().len_in_hex()
            ))
        })
}

#[allow(
    clippy::disallowed_methods,
    reason = "files that the command line names, on any machine: no host is involved"
)]
fn read_file<T>(
    path: &Path,
    parse: impl FnOnce(&str, &[u8]) -> Result<T, Refusal>,
    unreadable: impl FnOnce(&str, &str) -> Refusal,
) -> Result<T, Refusal> {
    let name = path.display().to_string();
    match std::fs::read(path) {
        Ok(text) => parse(&name, &text),
        Err(error) => Err(unreadable(&name, &error.to_string())),
    }
}

/// `--json`.
#[derive(Debug, Serialize)]
struct VerdictJson<'a> {
    verdict: &'static str,
    rule: Option<Rule>,
    commit: Option<String>,
    signer: Option<&'a str>,
    path: Option<&'a str>,
    detail: Option<String>,
}

fn answer(as_json: bool, trusted: Option<&TrustedHead>, verdict: &Verdict) -> CommandResult {
    let failure = verdict.failure();
    if let Verdict::Unavailable(_) = verdict {
        return Err(failure.into_iter().collect()); // nothing is known about the revision
    }
    if as_json {
        let json = serde_json::to_string(&verdict_json(trusted, verdict)).map_err(|error| {
            vec![Failure::new(
                Class::Bug,
                format!("failed to write the verdict: {error}"),
            )]
        })?;
        print_line(&json);
        return Ok(failure.map_or(0, |failure| failure.class.exit_code()));
    }
    match (verdict, failure) {
        (_, Some(failure)) => Err(vec![failure]),
        (Verdict::Accepted(revision), None) => {
            print_line(&accepted(
                revision.commit(),
                revision.signer(),
                revision.subject(),
            ));
            Ok(0)
        }
        (_, None) => {
            let id = trusted.map_or_else(String::new, |head| head.commit.to_string());
            print_line(&format!("accepted {id}: it is the trusted revision"));
            Ok(0)
        }
    }
}

fn accepted(tip: ObjectId, signer: Option<&Signer>, subject: &str) -> String {
    match signer {
        Some(signer) => format!(
            "accepted {tip}: signed by {} ({})\n  {subject}",
            signer.principal, signer.fingerprint
        ),
        None => format!("accepted {tip}\n  {subject}"),
    }
}

fn verdict_json<'a>(trusted: Option<&'a TrustedHead>, verdict: &'a Verdict) -> VerdictJson<'a> {
    let plain = |verdict, commit: Option<ObjectId>, detail| VerdictJson {
        verdict,
        rule: None,
        commit: commit.map(|id| id.to_string()),
        signer: None,
        path: None,
        detail,
    };
    match verdict {
        Verdict::Accepted(revision) => VerdictJson {
            signer: revision.signer().map(|signer| signer.fingerprint.as_str()),
            ..plain("accepted", Some(revision.commit()), None)
        },
        Verdict::Unchanged => VerdictJson {
            signer: trusted.and_then(|head| Some(head.signer.as_ref()?.fingerprint.as_str())),
            ..plain(
                "accepted",
                trusted.map(|head| head.commit),
                Some("it is the trusted revision".to_owned()),
            )
        },
        Verdict::Behind { tip, .. } => {
            plain("behind", Some(*tip), verdict.failure().map(|f| f.message))
        }
        Verdict::Diverged { tip, .. } => {
            plain("diverged", Some(*tip), verdict.failure().map(|f| f.message))
        }
        Verdict::Pending(refusal) | Verdict::Refused(refusal) => VerdictJson {
            verdict: match verdict {
                Verdict::Pending(_) => "pending",
                _ => "refused",
            },
            rule: Some(refusal.rule),
            commit: refusal.commit.map(|id| id.to_string()),
            signer: refusal.signer.as_deref(),
            path: refusal.path.as_deref(),
            detail: Some(refusal.detail.clone()),
        },
        Verdict::Unavailable(error) => plain("unavailable", None, Some(error.to_string())),
    }
}

fn print_line(text: &str) {
    use std::io::Write as _;
    // A reader that went away wants no more.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn usage_error(message: String) -> u8 {
    let failure = Failure::new(Class::Config, message);
    let terminal = terminal::Terminal::standard();
    let _ = terminal.write_failure(&mut std::io::stderr(), &failure);
    USAGE
}
