//! Making changes to paths, in batches.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::kinds::file::fetched::stage_fetched;
use crate::kinds::file::ways::Batches;
use crate::kinds::file::{Access, Edit, PathChange, unpack};
use crate::kinds::kind::Contents;
use crate::model::{Class, Failure, Outcome, ResourceId};
use crate::sys::Host;
use crate::sys::command::Command;
use crate::sys::files::{Attributes, above};
use crate::sys::write::{AttributeChange, Batch, Candidate};

/// How long a `validate` command may take.
const VALIDATE_TIME_LIMIT: Duration = Duration::from_secs(60);

/// What making a batch of changes needs; the accounts it names are looked up once.
pub(super) struct Making<'a> {
    host: &'a Host,
    pub(super) contents: &'a dyn Contents,
    users: RefCell<BTreeMap<String, u32>>,
    groups: RefCell<BTreeMap<String, u32>>,
}

impl<'a> Making<'a> {
    pub(super) fn new(host: &'a Host, contents: &'a dyn Contents) -> Self {
        Making {
            host,
            contents,
            users: RefCell::default(),
            groups: RefCell::default(),
        }
    }

    pub(super) fn attributes(&self, access: &Access, batch: &Batch) -> Result<Attributes, Failure> {
        let (uid, gid) = match batch.account() {
            Some(account) => account,
            None => self.host.root_account()?,
        };
        let owner = access.owner.as_deref();
        let group = access.group.as_deref();
        Ok(Attributes {
            mode: access.mode,
            uid: owner.map_or(Ok(uid), |name| self.user_id(name))?,
            gid: group.map_or(Ok(gid), |name| self.group_id(name))?,
        })
    }

    fn user_id(&self, name: &str) -> Result<u32, Failure> {
        number(&self.users, name, || {
            self.host
                .user_id(name)?
                .ok_or_else(|| unknown_account("user", name))
        })
    }

    fn group_id(&self, name: &str) -> Result<u32, Failure> {
        number(&self.groups, name, || {
            self.host
                .group_id(name)?
                .ok_or_else(|| unknown_account("group", name))
        })
    }
}

/// The number that `name` has among the `known` ones, or that it is looked up to have.
fn number(
    known: &RefCell<BTreeMap<String, u32>>,
    name: &str,
    look_up: impl FnOnce() -> Result<u32, Failure>,
) -> Result<u32, Failure> {
    if let Some(number) = known.borrow().get(name) {
        return Ok(*number);
    }
    let number = look_up()?;
    known.borrow_mut().insert(name.to_owned(), number);
    Ok(number)
}

pub(super) fn unknown_account(what: &str, name: &str) -> Failure {
    Failure::new(Class::Author, format!("this host has no {what} '{name}'")).with_hint(format!(
        "when a package brings the {what}, say so with needs = [\"package:…\"]"
    ))
}

/// A change on its way through a batch.
pub(super) enum Progress {
    /// Nothing on disk yet.
    Waiting,
    /// Nor of this one, whose bytes are in an archive, which is read once for all that is in it.
    Packed,
    /// Its candidate is.
    Staged(Candidate),
    /// It has its outcome.
    Over(Outcome),
}

/// First whatever can be made beside what is there: directories and candidates. Then a barrier, then what others see, then another barrier.
pub(super) fn apply(
    making: &Making<'_>,
    mut batches: Batches<'_>,
    changes: &[&PathChange],
) -> Vec<Outcome> {
    let mut progress: Vec<Progress> = Vec::with_capacity(changes.len());
    // What was not made, and the resource to blame: what lies below it has no place.
    let mut broken: BTreeMap<&str, ResourceId> = BTreeMap::new();
    for &change in changes {
        let blamed = match broken.is_empty() {
            true => None,
            false => above(&change.path).find_map(|path| broken.get(path)),
        };
        let step = match blamed {
            Some(blamed) => Progress::Over(Outcome::Skipped(blamed.clone())),
            None => batches
                .of(change.as_user.as_ref())
                .and_then(|batch| stage(making, batch, change))
                .unwrap_or_else(|failure| failed(change, failure)),
        };
        match &step {
            Progress::Over(Outcome::Failed(_)) => {
                broken.insert(&change.path, change.id.clone());
            }
            Progress::Over(Outcome::Skipped(blamed)) => {
                broken.insert(&change.path, blamed.clone());
            }
            Progress::Over(Outcome::Done | Outcome::Left(_))
            | Progress::Staged(_)
            | Progress::Packed
            | Progress::Waiting => {}
        }
        progress.push(step);
    }
    unpack::stage(making, &mut batches, changes, &mut progress);

    let barrier = batches.sync();
    for (index, change) in changes.iter().enumerate() {
        let outcome = match std::mem::replace(&mut progress[index], Progress::Waiting) {
            Progress::Over(outcome) => outcome,
            Progress::Staged(candidate) => {
                let batch = batches.of(change.as_user.as_ref());
                outcome(
                    change,
                    batch.and_then(|batch| match &barrier {
                        Ok(()) => publish(batch, change, candidate),
                        Err(failure) => {
                            batch.discard(candidate);
                            Err(failure.clone())
                        }
                    }),
                )
            }
            Progress::Packed | Progress::Waiting => {
                let batch = batches.of(change.as_user.as_ref());
                outcome(
                    change,
                    batch.and_then(|batch| finish(making, batch, change)),
                )
            }
        };
        progress[index] = Progress::Over(outcome);
    }

    let barrier = batches.sync();
    progress
        .into_iter()
        .zip(changes)
        .map(|(step, change)| match (step, &barrier) {
            (Progress::Over(Outcome::Done), Err(failure)) => {
                Outcome::Failed(failure.clone().about(change.id.clone()))
            }
            (Progress::Over(outcome), _) => outcome,
            _ => unreachable!("the loop above gave every change its outcome"),
        })
        .collect()
}

fn outcome(change: &PathChange, result: Result<(), Failure>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(failure) => Outcome::Failed(failure.about(change.id.clone())),
    }
}

pub(super) fn failed(change: &PathChange, failure: Failure) -> Progress {
    Progress::Over(Outcome::Failed(failure.about(change.id.clone())))
}

fn stage(making: &Making<'_>, batch: &mut Batch, change: &PathChange) -> Result<Progress, Failure> {
    if change.as_user.is_some() {
        // Where there was no such user a moment ago nobody could tell what was missing. These stay, as all of a home does.
        batch.make_missing_parents(&change.path)?;
    }
    match &change.edit {
        Edit::MakeDirectory { access, replace } => {
            let attributes = making.attributes(access, batch)?;
            if *replace {
                batch.remove_file(&change.path, None)?;
            }
            batch.make_directory(&change.path, attributes)?;
            if access.says_xattrs() {
                let exactly = access.xattrs.as_ref();
                let mode = attributes.mode;
                batch.give_directory_xattrs(&change.path, exactly, &access.named, mode)?;
            }
            Ok(Progress::Over(Outcome::Done))
        }
        Edit::WriteFile { content, .. } if content.as_member().is_some() => Ok(Progress::Packed),
        Edit::WriteFile {
            content,
            access,
            validate,
            ..
        } => {
            let attributes = making.attributes(access, batch)?;
            let candidate = match content.as_address() {
                Some(url) => stage_fetched(making, batch, change, content, url, attributes)?,
                None => {
                    let bytes = making.contents.read(content)?;
                    batch.stage_file(&change.path, &bytes, attributes)?
                }
            };
            let exactly = access.xattrs.as_ref();
            if access.says_xattrs()
                && let Err(failure) =
                    batch.give_xattrs(&candidate, exactly, &access.named, attributes.mode)
            {
                batch.discard(candidate);
                return Err(failure);
            }
            if let Some(argv) = validate
                && let Err(failure) = run_validate(making.host, change, argv, &candidate)
            {
                batch.discard(candidate);
                return Err(failure);
            }
            Ok(Progress::Staged(candidate))
        }
        Edit::MakeLink { target, owner, .. } => Ok(Progress::Staged(batch.stage_link(
            &change.path,
            target,
            *owner,
        )?)),
        Edit::SetAccess { .. } | Edit::RemoveFile { .. } | Edit::RemoveDirectory => {
            Ok(Progress::Waiting)
        }
    }
}

fn publish(batch: &mut Batch, change: &PathChange, candidate: Candidate) -> Result<(), Failure> {
    if let Edit::WriteFile { replace: true, .. } | Edit::MakeLink { replace: true, .. } =
        change.edit
        && let Err(failure) = batch.remove_directory(&change.path)
    {
        batch.discard(candidate);
        return Err(failure);
    }
    batch.publish(candidate)
}

fn finish(making: &Making<'_>, batch: &mut Batch, change: &PathChange) -> Result<(), Failure> {
    match &change.edit {
        Edit::SetAccess {
            mode,
            owner,
            group,
            named,
        } => {
            let attributes = AttributeChange {
                mode: *mode,
                uid: owner
                    .as_deref()
                    .map(|name| making.user_id(name))
                    .transpose()?,
                gid: group
                    .as_deref()
                    .map(|name| making.group_id(name))
                    .transpose()?,
            };
            batch.set_attributes(&change.path, attributes, named)
        }
        Edit::RemoveFile { expected } => batch.remove_file(&change.path, *expected),
        Edit::RemoveDirectory => batch.remove_directory(&change.path),
        Edit::MakeDirectory { .. } | Edit::WriteFile { .. } | Edit::MakeLink { .. } => Ok(()),
    }
}

fn run_validate(
    host: &Host,
    change: &PathChange,
    argv: &[String],
    candidate: &Candidate,
) -> Result<(), Failure> {
    let path = host.outer_path(&candidate.path());
    let path = path.to_string_lossy();
    let command = Command {
        argv: argv
            .iter()
            .map(|argument| argument.replace("{}", &path))
            .collect(),
        time_limit: VALIDATE_TIME_LIMIT,
        // The candidate is the user's to exchange: nothing but what he may read is read for him.
        user: change.as_user.as_deref().map(str::to_owned),
        ..Command::default()
    };
    let result = host.run_outside(&command)?;
    if result.is_success() {
        return Ok(());
    }
    let complaint = match change.is_secret {
        // It may quote what it does not like.
        true => "failed; what it says is not shown, because the content is a secret".to_owned(),
        false => result.complaint(),
    };
    Err(Failure::new(
        Class::Author,
        format!(
            "refused the new content of {}: '{}' {complaint}",
            change.id,
            argv.join(" "),
        ),
    )
    .with_hint("the file on the host is unchanged; correct its content or its 'validate' command"))
}
