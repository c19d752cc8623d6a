//! Paths below the host's root: walking to them, looking at them, reading them.
//!
//! A [`Walk`] goes from the root directory one name at a time, each a file descriptor, and *judges* every directory it enters: one that
//! somebody other than root may change is refused, because there the next name could be swapped under our hands. This is why
//! it does not hand whole paths to `openat2(2)`: its `RESOLVE_NO_SYMLINKS` would answer for the links, not for the directories'
//! owners, and with every directory opened and judged for itself there is nothing left for it to add.
//!
//! A symbolic link on the way is followed only when root made it, in a directory that was judged: `/bin`, `/lib` and `/var/run` are such links.
//! It is resolved here, name by name, below the host's root.
//!
//! "Root" is user 0. In an alternate root (an image being built, a test's directory) the owner of its root directory counts as well.
//!
//! Invariant: no path leaves the root, and no name is resolved by the kernel beyond one component.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use crate::model::{Class, Failure};
pub use touched::Touched;

use crate::sys::acting::{Acting, Rights};
use crate::sys::signatures::Signatures;
use crate::sys::{Host, clock};

mod listing;
mod own;
mod reading;
mod safety;
mod touched;

pub use own::OwnFile;
pub use reading::{hash, hash_bytes};
use safety::{Trust, unsafe_directory};

/// As many links as the kernel follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Who may read and change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, setuid, setgid and sticky included.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Absent,
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
        /// How many names it has.
        links: u64,
        /// Who may read and change it.
        attributes: Attributes,
        /// SHA-256 of its bytes, where it was asked for and the file is not larger than the limit.
        sha256: Option<[u8; 32]>,
    },
    /// A directory.
    Directory(Attributes),
    /// A symbolic link, and what it says.
    Symlink(String),
    /// Something that we neither read nor replace; the word for it.
    Special(&'static str),
}

/// One look at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// What is there.
    pub entry: Entry,
    /// Where it really is, when links on the way make that another path.
    pub elsewhere: Option<String>,
    /// Directories on the way that do not exist, outermost first; what lies below the same one shares them.
    pub missing_parents: Arc<[String]>,
}

impl Look {
    /// Nothing is there, because these directories do not exist.
    fn nothing_below(missing_parents: Arc<[String]>) -> Self {
        Look {
            entry: Entry::Absent,
            elsewhere: None,
            missing_parents,
        }
    }

    /// Where the `path` that was looked at really is: without the links on the way. The path itself when a directory is missing.
    pub fn physical<'a>(&'a self, path: &'a str) -> &'a str {
        self.elsewhere.as_deref().unwrap_or(path)
    }
}

/// What to look for beyond type and attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hashing {
    /// Nothing.
    Skip,
    /// The SHA-256 of a regular file of at most so many bytes.
    UpTo(u64),
    /// The SHA-256 of a regular file of so many bytes; of one that has not changed since it was read last, what it was then
    /// (see [`signatures`](crate::sys::signatures)).
    Remembered {
        /// Fewer bytes are not what is looked for.
        at_least: u64,
        /// Nor are more.
        at_most: u64,
    },
}

impl Host {
    /// A new walk from the root directory.
    pub fn walk(&self) -> Result<Walk, Failure> {
        Walk::new(self)
    }

    /// The same with the `rights` of a user, whose own directories are safe then.
    pub fn walk_as(&self, rights: Rights) -> Result<Walk, Failure> {
        let mut walk = Walk::new(self)?;
        let own_group = rights.has_own_group.then_some(rights.gid);
        walk.trust = Trust::of_user(rights.uid, own_group);
        walk.rights = Some(rights);
        Ok(walk)
    }

    /// Looks at one path. Many paths are looked at with one [`Walk`].
    pub fn look(&self, path: &str, hashing: Hashing) -> Result<Look, Failure> {
        self.walk()?.look(path, hashing)
    }

    /// Reads the regular file at `path`; `None` when there is nothing. Anything else, and a file of more than `limit` bytes, fails.
    pub fn read_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
        self.walk()?.read_file(path, limit)
    }

    /// Is there anything at `path`.
    pub fn exists(&self, path: &str) -> Result<bool, Failure> {
        Ok(self.look(path, Hashing::Skip)?.entry != Entry::Absent)
    }

    /// Reads a file that the person at the keyboard named: any path of theirs, relative ones and links included.
    #[allow(
        clippy::disallowed_methods,
        reason = "it is the path of a person, not one below the host's root"
    )]
    pub fn read_foreign_file(&self, path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
        let failed = |cause: &dyn std::fmt::Display| {
            Failure::new(
                Class::Config,
                format!("failed to read '{}': {cause}", path.display()),
            )
        };
        let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
        let mut bytes = Vec::new();
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| failed(&error))?;
        if bytes.len() as u64 > limit {
            return Err(failed(&format!("it has more than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// The path as the machine we run on knows it, for messages and for programs we start.
    pub fn outer_path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }
}

/// A way from the root directory down; keeps the directories of the last path open, so that paths in order share them.
#[derive(Debug)]
pub struct Walk {
    root: OwnedFd,
    trust: Trust,
    /// Whose rights it has, where not its own.
    rights: Option<Rights>,
    /// The directories that were entered, by their real names.
    entered: Vec<Level>,
    /// The path that led there; the next one beside it needs no step.
    entered_as: Option<String>,
    /// Where the path that was entered really is, when links make that another one.
    elsewhere: Option<String>,
    /// The directory that was found to be missing last, with those above it that are.
    missing: Option<(String, Arc<[String]>)>,
    nothing_missing: Arc<[String]>,
    signatures: Arc<Mutex<Signatures>>,
    /// When the walk began, in seconds since 1970.
    began: i64,
    /// The last device that was asked for its file system: does it keep times that can be believed.
    device: Cell<Option<(u64, bool)>>,
    buffer: RefCell<Vec<u8>>,
}

#[derive(Debug)]
struct Level {
    name: String,
    directory: OwnedFd,
}

enum Reached {
    Directory(OwnedFd),
    Link(String),
    Nothing,
}

impl Walk {
    fn new(host: &Host) -> Result<Self, Failure> {
        let shown = host.root().display().to_string();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(host.root(), flags, Mode::empty())
            .map_err(|errno| io_failure("open root directory", &shown, errno))?;
        let stat =
            fstat(&root).map_err(|errno| io_failure("look at root directory", &shown, errno))?;
        let trust = Trust::of(host, &stat);
        if let Some(objection) = trust.objection_to_directory(&attributes_of(&stat)) {
            return Err(unsafe_directory(&shown, &objection));
        }
        Ok(Walk {
            root,
            trust,
            rights: None,
            entered: Vec::new(),
            entered_as: None,
            elsewhere: None,
            missing: None,
            nothing_missing: Arc::new([]),
            signatures: host.signatures.clone(),
            began: clock::now().as_second(),
            device: Cell::new(None),
            buffer: RefCell::default(),
        })
    }

    /// Has the rights of its user until what is returned is dropped.
    pub(super) fn act(&self) -> Result<Option<Acting>, Failure> {
        self.rights.as_ref().map(Rights::take).transpose()
    }

    /// The numbers of the user and the group that it makes everything for.
    pub(super) fn account(&self) -> Option<(u32, u32)> {
        self.rights.as_ref().map(|rights| (rights.uid, rights.gid))
    }

    /// The directory that was entered last.
    pub(super) fn here(&self) -> &OwnedFd {
        self.entered
            .last()
            .map_or(&self.root, |level| &level.directory)
    }

    /// Where that directory really is.
    pub(super) fn here_path(&self) -> String {
        let mut path = String::new();
        for level in &self.entered {
            path.push('/');
            path.push_str(&level.name);
        }
        if path.is_empty() {
            "/".to_owned()
        } else {
            path
        }
    }

    /// Is a directory like this one safe to enter and to work in.
    pub fn is_safe(&self, directory: &Attributes) -> bool {
        self.trust.objection_to_directory(directory).is_none()
    }

    /// Enters the directory `path`; false when it, or one on the way, does not exist.
    pub(super) fn enter(&mut self, path: &str) -> Result<bool, Failure> {
        if self.entered_as.as_deref() == Some(path) {
            return Ok(true);
        }
        self.entered_as = None;
        let is_there = self.enter_anew(path)?;
        if is_there {
            let physical = self.here_path();
            self.elsewhere = (physical != path).then_some(physical);
            self.entered_as = Some(path.to_owned());
        }
        Ok(is_there)
    }

    fn enter_anew(&mut self, path: &str) -> Result<bool, Failure> {
        let mut pending: VecDeque<String> = names(path).map(str::to_owned).collect();
        let shared = self
            .entered
            .iter()
            .zip(&pending)
            .take_while(|(level, name)| level.name == **name)
            .count();
        self.entered.truncate(shared);
        pending.drain(..shared);
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            // `..` comes only from a link's target, and what was entered has real names: one up is one up.
            if name == ".." {
                self.entered.pop();
                continue;
            }
            match self.step(&name)? {
                Reached::Directory(directory) => self.entered.push(Level { name, directory }),
                Reached::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Failure::new(
                            Class::Host,
                            format!("failed to enter directory '{path}': too many symbolic links"),
                        ));
                    }
                    if target.starts_with('/') {
                        self.entered.clear();
                    }
                    for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                        pending.push_front(name.to_owned());
                    }
                }
                Reached::Nothing if links > 0 => {
                    return Err(Failure::new(
                        Class::Host,
                        format!("failed to enter directory '{path}': a symbolic link on the way leads to nothing"),
                    )
                    .with_hint(format!("declare the link's target as a directory, or remove the link: namei '{path}' shows the way")));
                }
                Reached::Nothing => return Ok(false),
            }
        }
        Ok(true)
    }

    fn step(&self, name: &str) -> Result<Reached, Failure> {
        let shown = join(&self.here_path(), name);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(self.here(), name, flags, Mode::empty()) {
            Ok(directory) => {
                let stat = fstat(&directory)
                    .map_err(|errno| io_failure("look at directory", &shown, errno))?;
                match self.trust.objection_to_directory(&attributes_of(&stat)) {
                    Some(objection) => Err(unsafe_directory(&shown, &objection)),
                    None => Ok(Reached::Directory(directory)),
                }
            }
            Err(Errno::ENOENT) => Ok(Reached::Nothing),
            Err(Errno::ENOTDIR | Errno::ELOOP) => self.follow(name, &shown),
            Err(errno) => Err(io_failure("enter directory", &shown, errno)),
        }
    }

    /// The target of the link `name`, if it is one that root made.
    fn follow(&self, name: &str, shown: &str) -> Result<Reached, Failure> {
        let stat = fstatat(self.here(), name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| io_failure("look at", shown, errno))?;
        if !is_type(&stat, SFlag::S_IFLNK) {
            return Err(Failure::new(
                Class::Host,
                format!(
                    "failed to enter directory '{shown}': it is {}",
                    type_word(&stat)
                ),
            ));
        }
        if let Some(objection) = self.trust.objection_to_owner(&attributes_of(&stat)) {
            return Err(Failure::new(
                Class::Host,
                format!("refused to follow symbolic link '{shown}': {objection}"),
            )
            .with_hint("links on the way to a managed path must belong to root"));
        }
        let target = readlinkat(self.here(), name)
            .map_err(|errno| io_failure("read symbolic link", shown, errno))?;
        match target.into_string() {
            Ok(target) => Ok(Reached::Link(target)),
            Err(_) => Err(Failure::new(
                Class::Host,
                format!("failed to follow symbolic link '{shown}': its target is not UTF-8"),
            )),
        }
    }

    /// Looks at `path`, following no link at its end.
    pub fn look(&mut self, path: &str, hashing: Hashing) -> Result<Look, Failure> {
        let _acting = self.act()?;
        let (parent, name) = split(path);
        if let Some((directory, missing)) = &self.missing
            && directory == parent
        {
            return Ok(Look::nothing_below(missing.clone()));
        }
        if !self.enter(parent)? {
            let missing: Arc<[String]> = self.missing_below(parent)?.into();
            self.missing = Some((parent.to_owned(), missing.clone()));
            return Ok(Look::nothing_below(missing));
        }
        let entry = self.look_here(name, path, hashing)?;
        Ok(Look {
            entry,
            elsewhere: self
                .elsewhere
                .as_ref()
                .map(|directory| join(directory, name)),
            missing_parents: self.nothing_missing.clone(),
        })
    }

    /// The directories on the way to `directory`, and itself, that do not exist.
    fn missing_below(&mut self, directory: &str) -> Result<Vec<String>, Failure> {
        let mut missing = Vec::new();
        let mut path = directory;
        while path != "/" && !self.enter(path)? {
            missing.push(path.to_owned());
            path = split(path).0;
        }
        missing.reverse();
        Ok(missing)
    }

    /// Looks at `name` in the directory that was entered last; `shown` is for messages.
    pub(super) fn look_here(
        &self,
        name: &str,
        shown: &str,
        hashing: Hashing,
    ) -> Result<Entry, Failure> {
        let stat = match fstatat(self.here(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => return Ok(Entry::Absent),
            Err(errno) => return Err(io_failure("look at", shown, errno)),
        };
        match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => Ok(Entry::Directory(attributes_of(&stat))),
            SFlag::S_IFLNK => {
                let target = readlinkat(self.here(), name)
                    .map_err(|errno| io_failure("read symbolic link", shown, errno))?;
                Ok(target.into_string().map_or(
                    Entry::Special("a symbolic link whose target is not UTF-8"),
                    Entry::Symlink,
                ))
            }
            SFlag::S_IFREG => {
                let size = file_size(&stat);
                let sha256 = match hashing {
                    Hashing::UpTo(limit) if size <= limit => Some(self.hash_here(name, shown)?.0),
                    Hashing::Remembered { at_least, at_most }
                        if (at_least..=at_most).contains(&size) =>
                    {
                        Some(self.recall_here(name, shown, &stat)?)
                    }
                    _ => None,
                };
                Ok(Entry::File {
                    size,
                    links: stat.st_nlink as u64, // its width differs between architectures
                    attributes: attributes_of(&stat),
                    sha256,
                })
            }
            _ => Ok(Entry::Special(type_word(&stat))),
        }
    }
}

/// The directory and the last name of an absolute, normalised path.
pub fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((parent, name)) => (parent, name),
        None => ("/", path),
    }
}

/// The directories above an absolute, normalised path, innermost first; the last one is `/`.
pub fn above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| (*path != "/").then(|| split(path).0)).skip(1)
}

/// `name` in `directory`.
pub fn join(directory: &str, name: &str) -> String {
    format!("{}/{name}", directory.trim_end_matches('/'))
}

/// The names of a path, without the empty ones and `.`.
fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter(|name| !name.is_empty() && *name != ".")
}

/// An I/O error as people read it: what failed, where, why, and what to do where we know.
pub(super) fn io_failure(verb: &str, path: &str, errno: Errno) -> Failure {
    let description = errno.desc();
    let mut letters = description.chars();
    let cause: String = match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => description.to_owned(),
    };
    let failure = Failure::new(Class::Host, format!("failed to {verb} '{path}': {cause}"));
    match errno {
        Errno::EBUSY => failure.with_hint("something is mounted there; what is mounted cannot be replaced, so leave this path out or unmount it"),
        Errno::EROFS => failure.with_hint("the file system is mounted read-only"),
        Errno::ENOSPC | Errno::EDQUOT => failure.with_hint("make room on that file system"),
        Errno::EPERM => failure.with_hint("is it immutable (lsattr), or does limpet not run as root"),
        _ => failure,
    }
}

/// As [`io_failure`], for reads through the standard library.
pub(super) fn read_failure(path: &str, error: &std::io::Error) -> Failure {
    match error.raw_os_error() {
        Some(number) => io_failure("read", path, Errno::from_raw(number)),
        None => Failure::new(Class::Host, format!("failed to read '{path}': {error}")),
    }
}

pub(super) fn attributes_of(stat: &FileStat) -> Attributes {
    Attributes {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
    }
}

pub(super) fn file_size(stat: &FileStat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn is_type(stat: &FileStat, wanted: SFlag) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == wanted.bits()
}

fn type_word(stat: &FileStat) -> &'static str {
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFREG => "a regular file",
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFBLK => "a block device",
        SFlag::S_IFCHR => "a character device",
        SFlag::S_IFIFO => "a named pipe",
        SFlag::S_IFSOCK => "a socket",
        _ => "something unknown",
    }
}
