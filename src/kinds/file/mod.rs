//! Files, directories and symbolic links.
//!
//! A path is *managed* once it is declared, and *owned* once we applied it. Only owned paths are pruned. Directories that a declared path
//! needs and nobody declares are *parents*: made root's with mode 0755, owned, and removed when they are empty and nothing needs them.
//!
//! Invariant: paths never leave `Host`'s root, and no symbolic link that somebody else could have placed is followed on the way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::kinds::kind::{Content, Contents, Kind, Owned, Sealed, Step};
use crate::model::{Class, Failure, Name, OnRemoval, Outcome, ResourceId};
use crate::sys::Host;
use crate::sys::command::Command;
use crate::sys::files::{Attributes, above};
use crate::sys::write::{AttributeChange, Batch, Candidate};
use crate::sys::xattrs::{NamedXattrs, Xattrs};

mod by_path;
mod diff;
mod fetched;
mod observe;
mod original;
mod plan;
mod purge;
mod put_back;
mod sealed;
mod unpack;

pub use by_path::ByPath;
pub use diff::{closing, diff, hunks, is_public};
pub use fetched::not_as_declared;
pub use observe::{ObservedPath, ObservedPaths, SeenBefore};
pub use original::{Applied, Original, Remembered, read_original, save_original};
pub use plan::{applied, applied_after};
pub use purge::find_purged;
pub use put_back::put_back;
pub use sealed::{CREDENTIAL, KEY_FILE, Vault, open as open_sealed, read_identity};
pub use unpack::{Allowed, put_in_place};

use fetched::stage_fetched;

/// Files up to this size have originals kept and contents compared; it is also the limit for one object of a revision.
pub const MAX_CONTENT_BYTES: u64 = crate::git::MAX_OBJECT_BYTES;

/// The largest file that is declared by its address.
pub const MAX_ADDRESSED_BYTES: u64 = 4 << 30;

/// How long a `validate` command may take.
const VALIDATE_TIME_LIMIT: Duration = Duration::from_secs(60);

/// One declared path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredPath {
    /// Absolute and normalised; what is owned.
    pub path: Name,
    /// Which resource declares it: itself, or the unit whose file or drop-in this is.
    pub id: ResourceId,
    /// What it should be.
    pub spec: PathSpec,
    /// Look, but do not touch.
    pub report: bool,
    /// What happens when it is no longer declared.
    pub on_removal: OnRemoval,
}

impl DesiredPath {
    /// What it contains, where that is encrypted.
    pub fn sealed(&self) -> Option<&Sealed> {
        match &self.spec {
            PathSpec::File {
                content: Some(content),
                ..
            } => content.as_sealed(),
            _ => None,
        }
    }
}

/// What a path should be. `None` means: not managed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathSpec {
    /// A regular file.
    File {
        /// Its bytes; without them only mode and owner of an existing file are managed.
        content: Option<Content>,
        /// Permission bits.
        mode: Option<u32>,
        /// A user's name or number.
        owner: Option<Name>,
        /// A group's name or number.
        group: Option<Name>,
        /// Extended attributes, capabilities among them.
        xattrs: NamedXattrs,
        /// A command run on the candidate, `{}` standing for its path, before it replaces anything.
        validate: Option<Vec<String>>,
    },
    /// A directory. A new one gets 0755 root:root where nothing is said.
    Directory {
        /// Permission bits.
        mode: Option<u32>,
        /// A user's name or number.
        owner: Option<Name>,
        /// A group's name or number.
        group: Option<Name>,
        /// Extended attributes.
        xattrs: NamedXattrs,
        /// What is in it and not declared goes.
        purge: Option<Purge>,
    },
    /// A symbolic link.
    Symlink {
        /// What it points to, verbatim.
        target: String,
    },
    /// A directory with what is in an archive, which is not known before that was fetched; then this becomes a directory and what is
    /// below it. See [`put_in_place`]. Until then nothing below it is touched.
    Archive {
        /// The archive.
        content: Content,
        /// Permission bits of the directory.
        mode: Option<u32>,
        /// The user that files belong to, by name or number.
        owner: Name,
        /// The group that files belong to, by name or number.
        group: Name,
        /// Why it is not known yet: no part of the declaration.
        closed: Option<Box<Failure>>,
    },
    /// Nothing: a file or a link is deleted, a directory when it is empty.
    Absent,
    /// Nothing, because it was found in a directory that is purged: no declaration, and no part of a digest. See [`find_purged`].
    Purged,
}

/// What of a purged directory stays although nobody declares it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Purge {
    /// Shell globs over names, or over paths below the directory where they have a `/`.
    pub ignore: Vec<String>,
}

/// One change to one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathChange {
    /// The resource it is made for.
    pub id: ResourceId,
    /// The path.
    pub path: Name,
    /// What is done.
    pub edit: Edit,
    /// What is owned afterwards, for the inventory; `None` when the path is no longer owned, and then only is the reason
    /// [`Undeclared`](crate::model::Reason::Undeclared).
    pub applied: Option<Applied>,
    /// What is there, or is to be there, is a secret: nobody is shown it.
    pub is_secret: bool,
}

/// What is done to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Make a directory.
    MakeDirectory {
        /// Its permissions and owner.
        access: Access,
        /// A file or link of ours makes room for it.
        replace: bool,
    },
    /// Write a file, and rename it onto the path.
    WriteFile {
        /// Its bytes.
        content: Content,
        /// Its permissions and owner.
        access: Access,
        /// The command that judges the candidate.
        validate: Option<Vec<String>>,
        /// An empty directory of ours makes room for it.
        replace: bool,
    },
    /// Make a symbolic link, and rename it onto the path.
    MakeLink {
        /// What it says.
        target: String,
        /// The numbers of the user and group that it is to belong to, else to us.
        owner: Option<(u32, u32)>,
        /// An empty directory of ours makes room for it.
        replace: bool,
    },
    /// Change permissions, owner and extended attributes, nothing else.
    SetAccess {
        /// Permission bits.
        mode: Option<u32>,
        /// A user's name or number.
        owner: Option<Name>,
        /// A group's name or number.
        group: Option<Name>,
        /// What these are to be.
        named: NamedXattrs,
    },
    /// Delete a file or a link.
    RemoveFile {
        /// Only when it still has this SHA-256.
        expected: Option<[u8; 32]>,
    },
    /// Delete an empty directory.
    RemoveDirectory,
}

impl Edit {
    /// Does it write a file's content.
    pub fn writes(&self) -> bool {
        matches!(self, Edit::WriteFile { .. })
    }
}

/// Permissions and owner of something that is made. Names become numbers only when it is: a package of the same run may bring the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// A user's name or number.
    pub owner: Name,
    /// A group's name or number.
    pub group: Name,
    /// Exactly these extended attributes; `None` leaves them to the file system.
    pub xattrs: Option<Xattrs>,
    /// What these are to be, whatever the others are.
    pub named: NamedXattrs,
}

/// What making a batch of changes needs; the accounts it names are looked up once.
struct Making<'a> {
    host: &'a Host,
    contents: &'a dyn Contents,
    users: RefCell<BTreeMap<String, u32>>,
    groups: RefCell<BTreeMap<String, u32>>,
}

impl Access {
    fn says_xattrs(&self) -> bool {
        self.xattrs.is_some() || !self.named.is_empty()
    }
}

impl<'a> Making<'a> {
    fn new(host: &'a Host, contents: &'a dyn Contents) -> Self {
        Making {
            host,
            contents,
            users: RefCell::default(),
            groups: RefCell::default(),
        }
    }

    fn attributes(&self, access: &Access) -> Result<Attributes, Failure> {
        Ok(Attributes {
            mode: access.mode,
            uid: self.user_id(&access.owner)?,
            gid: self.group_id(&access.group)?,
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

fn unknown_account(what: &str, name: &str) -> Failure {
    Failure::new(Class::Author, format!("this host has no {what} '{name}'")).with_hint(format!(
        "when a package brings the {what}, say so with needs = [\"package:…\"]"
    ))
}

/// The kind of files, directories and links.
#[derive(Debug)]
pub struct Paths;

impl Paths {
    /// Looks again, at what may have changed since `before`.
    pub fn observe_again(
        host: &Host,
        desired: &[DesiredPath],
        owned: &[Owned<Original, Remembered>],
        before: SeenBefore,
    ) -> ObservedPaths {
        observe::observe(host, desired, owned, Some(before))
    }
}

impl Kind for Paths {
    type Desired = DesiredPath;
    type Observed = ObservedPaths;
    type Original = Original;
    type Applied = Remembered;
    type Change = PathChange;

    fn observe(
        host: &Host,
        desired: &[DesiredPath],
        owned: &[Owned<Original, Remembered>],
    ) -> ObservedPaths {
        observe::observe(host, desired, owned, None)
    }

    fn plan(
        desired: &[DesiredPath],
        observed: &ObservedPaths,
        owned: &[Owned<Original, Remembered>],
    ) -> Vec<Step<Original, PathChange>> {
        plan::plan(desired, observed, owned)
    }

    fn apply(host: &Host, contents: &dyn Contents, changes: &[&PathChange]) -> Vec<Outcome> {
        match host.batch() {
            Ok(batch) => apply(&Making::new(host, contents), batch, changes),
            Err(failure) => changes
                .iter()
                .map(|change| Outcome::Failed(failure.clone().about(change.id.clone())))
                .collect(),
        }
    }
}

/// A change on its way through a batch.
enum Progress {
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
fn apply(making: &Making<'_>, mut batch: Batch, changes: &[&PathChange]) -> Vec<Outcome> {
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
            None => {
                stage(making, &mut batch, change).unwrap_or_else(|failure| failed(change, failure))
            }
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
    unpack::stage(making, &mut batch, changes, &mut progress);

    let barrier = batch.sync();
    for (index, change) in changes.iter().enumerate() {
        let outcome = match std::mem::replace(&mut progress[index], Progress::Waiting) {
            Progress::Over(outcome) => outcome,
            Progress::Staged(candidate) => match &barrier {
                Ok(()) => outcome(change, publish(&mut batch, change, candidate)),
                Err(failure) => {
                    batch.discard(candidate);
                    Outcome::Failed(failure.clone().about(change.id.clone()))
                }
            },
            Progress::Packed | Progress::Waiting => {
                outcome(change, finish(making, &mut batch, change))
            }
        };
        progress[index] = Progress::Over(outcome);
    }

    let barrier = batch.sync();
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

fn failed(change: &PathChange, failure: Failure) -> Progress {
    Progress::Over(Outcome::Failed(failure.about(change.id.clone())))
}

fn stage(making: &Making<'_>, batch: &mut Batch, change: &PathChange) -> Result<Progress, Failure> {
    match &change.edit {
        Edit::MakeDirectory { access, replace } => {
            let attributes = making.attributes(access)?;
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
            let attributes = making.attributes(access)?;
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
