//! What would change with another revision, or a working tree, than the one in force. Done here, as root, beside the agent.
//!
//! Invariant: nothing of it is applied or remembered; a revision that is not trusted is planned and said to be so.

use std::path::Path;

use crate::cli::host_config;
use crate::config::FETCH_SOCKET;
use crate::cycle;
use crate::cycle::look::Memory;
use crate::fetch::client::Client;
use crate::git::repository::{Repository, RepositoryError};
use crate::git::{Hashed, ObjectId, Objects};
use crate::model::{Class, Failure};
use crate::report::preview::Preview;
use crate::report::status::{Condition, who_must_act};
use crate::sys::workdir::WorkDir;
use crate::sys::{Host, clock};
use crate::trust::Verdict;

/// The word for what the source offers now.
const TIP: &str = "tip";

/// The fewest characters of an id that are taken for one.
const SHORTEST_PREFIX: usize = 4;

/// The names of the conditions that say that a revision would not be applied.
const VERDICTS: [&str; 5] = [REFUSED, "behind", DIVERGED, PENDING, "unverified"];
const REFUSED: &str = "refused";
const DIVERGED: &str = "diverged";
const PENDING: &str = "pending";

/// Does `condition` say that what was planned would not be applied.
pub(super) fn is_verdict(condition: &Condition) -> bool {
    VERDICTS.contains(&condition.kind.as_str())
}

/// Was what was planned refused: it would not be applied, whatever it changes.
pub(super) fn is_refused(preview: &Preview) -> bool {
    let refusals = [REFUSED, DIVERGED];
    let mut conditions = preview.conditions.iter();
    conditions.any(|condition| refusals.contains(&condition.kind.as_str()))
}

/// What would change with `rev`, or the tip, of this host's source; or with the working tree or repository at `source`.
pub(super) fn preview(source: Option<&Path>, rev: Option<&str>) -> Result<Preview, Vec<Failure>> {
    let one = |failure: Failure| vec![failure];
    if !nix::unistd::geteuid().is_root() {
        let failure = Failure::new(
            Class::Host,
            "only root may plan another revision or source: it reads what this host keeps to itself",
        );
        return Err(one(failure.with_hint("run it with sudo")));
    }
    let host = Host::new(Path::new("/"));
    let config = host_config(&host)?;
    let directory = config.source.path.clone();
    let memory = Memory::open(host, config).map_err(one)?;
    match source {
        None => of_source(&memory, rev.unwrap_or(TIP)),
        Some(path) => {
            let is_working_tree = rev.is_none() && is_fleet(&path.join(&directory));
            if is_working_tree {
                of_working_tree(&memory, &path.join(&directory))
            } else if rev.is_none() && is_fleet(path) {
                of_working_tree(&memory, path)
            } else {
                of_repository(&memory, path, rev.unwrap_or("HEAD"))
            }
        }
    }
}

fn is_fleet(directory: &Path) -> bool {
    use crate::git::Tree as _;
    let tree = WorkDir::open(directory);
    tree.is_ok_and(|tree| matches!(tree.read("fleet.toml"), Ok(Some(_))))
}

fn of_working_tree(memory: &Memory, path: &Path) -> Result<Preview, Vec<Failure>> {
    let tree = WorkDir::open(path).map_err(|failure| vec![failure])?;
    let mut preview = memory.preview_files(&tree)?;
    preview.conditions.push(Condition {
        kind: "unverified".to_owned(),
        since: clock::now(),
        reason: format!(
            "'{}' is a working tree, which nobody signed",
            path.display()
        ),
        who: "nobody".to_owned(),
    });
    Ok(preview)
}

fn of_repository(memory: &Memory, path: &Path, rev: &str) -> Result<Preview, Vec<Failure>> {
    let failed = |error: RepositoryError| {
        vec![
            Failure::new(Class::Host, error.to_string())
                .with_hint("name a directory that holds fleet.toml, or a Git repository"),
        ]
    };
    let repository = Repository::open(path).map_err(failed)?;
    let id = repository.resolve(rev).map_err(failed)?;
    of_commit(memory, &Hashed(&repository), id)
}

fn of_source(memory: &Memory, rev: &str) -> Result<Preview, Vec<Failure>> {
    let one = |failure: Failure| vec![failure];
    let fetcher = Client::connect(Path::new(FETCH_SOCKET)).map_err(one)?;
    // What is planned need not be what is trusted, so the fetcher is asked for what is new first; without it, what it has may do.
    let trusted = memory.trusted();
    let ask = move || {
        let tip = fetcher.poll(trusted);
        (fetcher, tip.map_err(|trouble| trouble.failure))
    };
    let (fetcher, tip) = cycle::fetcher::ask_watched(memory.host(), ask).map_err(one)?;
    let hashed = Hashed(&fetcher);
    let objects = memory.objects_and(&hashed);
    let tip = tip.and_then(|tip| match &tip.tag {
        Some(name) => crate::trust::commit_of_release(&objects, (tip.id, name)),
        None => Ok(tip.id),
    });
    let id = match rev {
        TIP => tip.map_err(one)?,
        text => resolve(memory, text, tip).map_err(one)?,
    };
    of_commit(memory, &objects, id)
}

/// The commit that `text` means: a full id, or the start of one that this host knows or that its source offers.
fn resolve(
    memory: &Memory,
    text: &str,
    tip: Result<ObjectId, Failure>,
) -> Result<ObjectId, Failure> {
    let (written, text) = (text, text.to_ascii_lowercase());
    if let Ok(id) = ObjectId::from_hex(text.as_bytes()) {
        return Ok(id);
    }
    let is_prefix =
        text.len() >= SHORTEST_PREFIX && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_prefix {
        let message = format!("'{written}' is no revision of this host's source");
        return Err(Failure::new(Class::Host, message).with_hint(format!(
            "write a commit id or its first {SHORTEST_PREFIX} characters or more, or '{TIP}'; for branches of a clone on this machine add --source PATH"
        )));
    }
    let mut known = memory.commits_like(&text)?;
    if let Ok(tip) = &tip
        && tip.to_string().starts_with(&text)
        && !known.contains(tip)
    {
        known.push(*tip);
    }
    match (&known[..], tip) {
        ([id], _) => Ok(*id),
        ([], Err(failure)) => Err(failure),
        ([], Ok(_)) => Err(Failure::new(
            Class::Host,
            format!("this host knows no revision that starts with '{text}'"),
        )
        .with_hint("write the full id; 'limpet history' lists those that were applied here")),
        (several, _) => {
            let several: Vec<String> = several.iter().map(ToString::to_string).collect();
            let message = format!("'{text}' is the start of {} revisions", several.len());
            let hint = format!("write more of it: {}", several.join(", "));
            Err(Failure::new(Class::Host, message).with_hint(hint))
        }
    }
}

fn of_commit(
    memory: &Memory,
    objects: &dyn Objects,
    id: ObjectId,
) -> Result<Preview, Vec<Failure>> {
    let verdict = memory.judge(objects, id).map_err(|failure| vec![failure])?;
    if let Verdict::Unavailable(_) = verdict {
        return Err(verdict.failure().into_iter().collect());
    }
    let mut preview = memory.preview_commit(objects, id, &verdict)?;
    let word = match &verdict {
        Verdict::Behind { .. } => "behind",
        Verdict::Diverged { .. } => DIVERGED,
        Verdict::Pending(_) => PENDING,
        _ => REFUSED,
    };
    preview
        .conditions
        .extend(verdict.failure().map(|failure| Condition {
            kind: word.to_owned(),
            since: clock::now(),
            reason: format!("this revision would not be applied: {}", failure.message),
            who: who_must_act(failure.class).to_owned(),
        }));
    Ok(preview)
}
