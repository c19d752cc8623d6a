//! Durable changes to files, in batches.
//!
//! A *candidate* is the new file (link, directory) under a hidden name beside its target, with its final content, owner and mode.
//! *Publishing* renames it onto the target. Between the two lies one `syncfs(2)` per file system for the whole batch, and another one follows:
//! after a power cut each target is old or new, never torn, and a thousand files cost two barriers instead of a thousand.
//!
//! A candidate's name is `.limpet-` and 16 hex digits, then the target's suffix, so that a program that goes by suffixes can judge
//! it. What a killed run left behind is recognised by that name, and removed by the next batch that works in the directory.
//!
//! Invariant: a target is never opened for writing. Candidates are created exclusively and private, and get their owner before
//! their mode, so that no step shows content to somebody who must not see it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, symlinkat, syncfs, unlinkat};

use crate::model::{Class, Failure};
use crate::sys::Host;
use crate::sys::acting::Rights;
use crate::sys::files::{
    Attributes, Entry, Hashing, Walk, above, attributes_of, hash, io_failure, join, read_failure,
    split,
};
use crate::sys::xattrs::{self, NamedXattrs, Xattrs};

mod candidate;
mod own;

use candidate::candidate_name;
pub use candidate::is_candidate_name;

/// How many names of a directory are looked at for leftovers.
const SWEEP_LIMIT: usize = 100_000;

/// Attribute changes; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttributeChange {
    /// Permission bits.
    pub mode: Option<u32>,
    /// The owner's number.
    pub uid: Option<u32>,
    /// The group's number.
    pub gid: Option<u32>,
}

/// Changes that become durable together.
#[derive(Debug)]
pub struct Batch {
    walk: Walk,
    /// One open directory of every file system that was written to, by device.
    written: BTreeMap<u64, OwnedFd>,
    swept: BTreeSet<String>,
    /// The directory of the last candidate: the next one beside it finds it marked and swept.
    prepared: Option<String>,
}

/// A candidate that waits beside its target.
#[derive(Debug)]
#[must_use = "a candidate is published or discarded"]
pub struct Candidate {
    target: String,
    name: String,
}

impl Candidate {
    /// Its own path.
    pub fn path(&self) -> String {
        join(split(&self.target).0, &self.name)
    }
}

impl Host {
    /// A new, empty batch.
    pub fn batch(&self) -> Result<Batch, Failure> {
        Ok(Batch {
            walk: self.walk()?,
            written: BTreeMap::new(),
            swept: BTreeSet::new(),
            prepared: None,
        })
    }

    /// The same with the `rights` of a user.
    pub fn batch_as(&self, rights: Rights) -> Result<Batch, Failure> {
        Ok(Batch {
            walk: self.walk_as(rights)?,
            ..self.batch()?
        })
    }

    /// Copies what `bytes` yields into a file of limpet's own, below `directory`, that has no name: it goes when it is closed. Returns it
    /// with the SHA-256 of what was copied.
    pub fn spool(
        &self,
        directory: &str,
        bytes: &mut impl Read,
    ) -> Result<(File, [u8; 32]), Failure> {
        let (uid, gid) = self.root_account()?;
        let mut batch = self.batch()?;
        let mode = 0o600;
        let attributes = Attributes { mode, uid, gid };
        let candidate = batch.stage_from(&join(directory, "spool"), bytes, attributes)?;
        let opened = batch.reopen(&candidate);
        batch.discard(candidate);
        let mut file = opened?;
        let failed = |error: std::io::Error| read_failure(directory, &error);
        let sha256 = hash(&mut file).map_err(failed)?;
        Ok((file, sha256))
    }
}

impl Batch {
    /// The numbers of the user and the group whose rights it has, where not root's.
    pub fn account(&self) -> Option<(u32, u32)> {
        self.walk.account()
    }

    /// Writes the candidate for a file. The target's directory must exist.
    pub fn stage_file(
        &mut self,
        target: &str,
        bytes: &[u8],
        attributes: Attributes,
    ) -> Result<Candidate, Failure> {
        self.stage_from(target, &mut &bytes[..], attributes)
    }

    /// The same with everything that `content` yields.
    pub fn stage_from(
        &mut self,
        target: &str,
        content: &mut impl Read,
        attributes: Attributes,
    ) -> Result<Candidate, Failure> {
        let _acting = self.walk.act()?;
        let candidate = self.prepare(target)?;
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let descriptor = openat(
            self.walk.here(),
            candidate.name.as_str(),
            flags,
            Mode::from_bits_truncate(0o600),
        )
        .map_err(|errno| io_failure("create a file beside", target, errno))?;
        let mut file = File::from(descriptor);
        let written = std::io::copy(content, &mut file)
            .map_err(|error| write_failure(target, &error))
            .and_then(|_length| {
                let change = AttributeChange {
                    mode: Some(attributes.mode),
                    uid: Some(attributes.uid),
                    gid: Some(attributes.gid),
                };
                let file = file.into();
                change_attributes(&file, target, change)?;
                self.keep_label(&file, target);
                Ok(())
            });
        match written {
            Ok(()) => Ok(candidate),
            Err(failure) => {
                self.discard_here(&candidate);
                Err(failure)
            }
        }
    }

    /// What was written into a candidate.
    pub fn reopen(&mut self, candidate: &Candidate) -> Result<File, Failure> {
        let target = candidate.target.as_str();
        self.enter_existing(split(target).0)?;
        Ok(self.walk.open_here(&candidate.name, target)?.0)
    }

    /// Gives the candidate the label of SELinux that the file at `target` has. A new file gets that of its directory, from the kernel.
    fn keep_label(&self, candidate: &OwnedFd, target: &str) {
        let name = split(target).1;
        let keep = || -> Result<(), Failure> {
            let Entry::File { .. } = self.walk.look_here(name, target, Hashing::Skip)? else {
                return Ok(());
            };
            let (file, _) = self.walk.open_here(name, target)?;
            match xattrs::read_one(&file, xattrs::LABEL, target)? {
                Some(label)
                    if xattrs::read_one(candidate, xattrs::LABEL, target)?.as_ref()
                        != Some(&label) =>
                {
                    xattrs::write_one(candidate, xattrs::LABEL, &label, target)
                }
                _ => Ok(()),
            }
        };
        if let Err(failure) = keep() {
            // A left one where SELinux is off, or one that its policy does not let us give.
            tracing::debug!(error = %failure.message, "failed to keep a label, ignoring");
        }
    }

    /// Gives a candidate exactly these extended attributes, where they are said, and then those that are `named`; its mode is `mode`
    /// afterwards, whatever an access list among them says of the group (acl(5), "CORRESPONDENCE BETWEEN ACL ENTRIES AND FILE
    /// PERMISSION BITS").
    pub fn give_xattrs(
        &mut self,
        candidate: &Candidate,
        exactly: Option<&Xattrs>,
        named: &NamedXattrs,
        mode: u32,
    ) -> Result<(), Failure> {
        let _acting = self.walk.act()?;
        let target = candidate.target.as_str();
        self.enter_existing(split(target).0)?;
        let (file, _) = self.walk.open_here(&candidate.name, target)?;
        write_xattrs(&file, target, exactly, named, mode)
    }

    /// The same for the directory at `path`.
    pub fn give_directory_xattrs(
        &mut self,
        path: &str,
        exactly: Option<&Xattrs>,
        named: &NamedXattrs,
        mode: u32,
    ) -> Result<(), Failure> {
        let _acting = self.walk.act()?;
        let (parent, name) = split(path);
        self.enter_existing(parent)?;
        let directory = open_directory(self.walk.here(), name, path)?;
        write_xattrs(&directory, path, exactly, named, mode)
    }

    /// Makes the candidate for a symbolic link that belongs to `owner`, a user and a group, or to us. The target's directory must exist.
    pub fn stage_link(
        &mut self,
        target: &str,
        content: &str,
        owner: Option<(u32, u32)>,
    ) -> Result<Candidate, Failure> {
        let _acting = self.walk.act()?;
        let candidate = self.prepare(target)?;
        symlinkat(content, self.walk.here(), candidate.name.as_str())
            .map_err(|errno| io_failure("create a symbolic link beside", target, errno))?;
        let Some((uid, gid)) = owner else {
            return Ok(candidate);
        };
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let name = candidate.name.as_str();
        let given = fchownat(
            self.walk.here(),
            name,
            uid,
            gid,
            AtFlags::AT_SYMLINK_NOFOLLOW,
        );
        match given {
            Ok(()) => Ok(candidate),
            Err(errno) => {
                self.discard_here(&candidate);
                Err(io_failure("change the owner of", target, errno))
            }
        }
    }

    /// Renames a candidate onto its target, which must be absent, a regular file with one name, or a symbolic link.
    pub fn publish(&mut self, candidate: Candidate) -> Result<(), Failure> {
        let _acting = self.walk.act()?;
        let result = self.try_publish(&candidate);
        if result.is_err() {
            self.discard_here(&candidate);
        }
        result
    }

    fn try_publish(&mut self, candidate: &Candidate) -> Result<(), Failure> {
        let target = candidate.target.as_str();
        let (parent, name) = split(target);
        self.enter_existing(parent)?;
        let directory = self.walk.here();
        let renamed = match self.walk.look_here(name, target, Hashing::Skip)? {
            Entry::Absent => {
                let exclusive = renameat2(
                    directory,
                    candidate.name.as_str(),
                    directory,
                    name,
                    RenameFlags::RENAME_NOREPLACE,
                );
                match exclusive {
                    // Not every file system knows the flag (rename(2), "EINVAL").
                    Err(Errno::EINVAL) => {
                        renameat(directory, candidate.name.as_str(), directory, name)
                    }
                    other => other,
                }
            }
            Entry::File { links: 1, .. } | Entry::Symlink(_) => {
                renameat(directory, candidate.name.as_str(), directory, name)
            }
            other => return Err(in_the_way(target, &other)),
        };
        renamed.map_err(|errno| io_failure("replace", target, errno))
    }

    /// Removes a candidate that is not wanted. Failing to is harmless: the next batch in this directory sweeps it.
    pub fn discard(&mut self, candidate: Candidate) {
        if let Ok(_acting) = self.walk.act() {
            self.discard_here(&candidate);
        }
    }

    fn discard_here(&mut self, candidate: &Candidate) {
        let (parent, _) = split(&candidate.target);
        if let Ok(true) = self.walk.enter(parent) {
            let name = candidate.name.as_str();
            let _ = unlinkat(self.walk.here(), name, UnlinkatFlags::NoRemoveDir);
        }
    }

    /// Makes a directory at once, whole: no other process sees it with a wrong owner or mode.
    pub fn make_directory(&mut self, path: &str, attributes: Attributes) -> Result<(), Failure> {
        let _acting = self.walk.act()?;
        let candidate = self.prepare(path)?;
        let name = candidate.name.as_str();
        mkdirat(self.walk.here(), name, Mode::from_bits_truncate(0o700))
            .map_err(|errno| io_failure("create directory", path, errno))?;
        let made = self.finish_directory(path, name, attributes);
        if made.is_err() {
            let _ = unlinkat(self.walk.here(), name, UnlinkatFlags::RemoveDir);
        }
        made
    }

    fn finish_directory(
        &self,
        path: &str,
        candidate: &str,
        attributes: Attributes,
    ) -> Result<(), Failure> {
        let failed = |errno| io_failure("create directory", path, errno);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = self.walk.here();
        let descriptor = openat(directory, candidate, flags, Mode::empty()).map_err(failed)?;
        let change = AttributeChange {
            mode: Some(attributes.mode),
            uid: Some(attributes.uid),
            gid: Some(attributes.gid),
        };
        change_attributes(&descriptor, path, change)?;
        let name = split(path).1;
        match self.walk.look_here(name, path, Hashing::Skip)? {
            // Renaming onto an empty directory would replace it silently.
            Entry::Absent => renameat(directory, candidate, directory, name).map_err(failed),
            other => Err(in_the_way(path, &other)),
        }
    }

    /// Makes the directories on the way to `target` that are not there, with mode 0755, for whoever's rights it has.
    pub fn make_missing_parents(&mut self, target: &str) -> Result<(), Failure> {
        let mut missing = Vec::new();
        {
            let _acting = self.walk.act()?;
            for directory in above(target) {
                if self.walk.enter(directory)? {
                    break;
                }
                missing.push(directory);
            }
        }
        let (uid, gid) = self.walk.account().unwrap_or_default();
        let mode = 0o755;
        let mut missing = missing.into_iter().rev();
        missing.try_for_each(|path| self.make_directory(path, Attributes { mode, uid, gid }))
    }

    /// Changes mode, owner and the `named` extended attributes of the regular file or directory at `path`.
    pub fn set_attributes(
        &mut self,
        path: &str,
        change: AttributeChange,
        named: &NamedXattrs,
    ) -> Result<(), Failure> {
        let _acting = self.walk.act()?;
        let (parent, name) = split(path);
        self.enter_existing(parent)?;
        self.mark_written(path)?;
        let descriptor = match self.walk.look_here(name, path, Hashing::Skip)? {
            Entry::File { links: 1, .. } => OwnedFd::from(self.walk.open_here(name, path)?.0),
            Entry::Directory(_) => open_directory(self.walk.here(), name, path)?,
            Entry::Absent => {
                return Err(Failure::new(
                    Class::Host,
                    format!("failed to change mode and owner of '{path}': no such file"),
                ));
            }
            other => return Err(in_the_way(path, &other)),
        };
        change_attributes(&descriptor, path, change)?;
        // Last, because a change of owner takes capabilities away.
        named.write(&descriptor, path)
    }

    /// Removes the file or symbolic link at `path`; fine when there is none. A file whose SHA-256 is not `expected` is kept.
    pub fn remove_file(&mut self, path: &str, expected: Option<[u8; 32]>) -> Result<(), Failure> {
        let _acting = self.walk.act()?;
        let (parent, name) = split(path);
        if !self.walk.enter(parent)? {
            return Ok(());
        }
        match self.walk.look_here(name, path, Hashing::Skip)? {
            Entry::Absent => return Ok(()),
            Entry::File { .. } => {
                if let Some(expected) = expected {
                    let (mut file, _) = self.walk.open_here(name, path)?;
                    let found = hash(&mut file).map_err(|error| read_failure(path, &error))?;
                    if found != expected {
                        return Err(Failure::new(
                            Class::Transient,
                            format!("refused to delete '{path}': it changed a moment ago"),
                        ));
                    }
                }
            }
            Entry::Symlink(_) => {}
            other => return Err(in_the_way(path, &other)),
        }
        self.mark_written(path)?;
        unlinkat(self.walk.here(), name, UnlinkatFlags::NoRemoveDir)
            .map_err(|errno| io_failure("delete", path, errno))
    }

    /// Removes the empty directory at `path`; fine when there is none. It may be anybody's: only its parents have to be safe.
    pub fn remove_directory(&mut self, path: &str) -> Result<(), Failure> {
        let _acting = self.walk.act()?;
        let (parent, name) = split(path);
        if !self.walk.enter(parent)? {
            return Ok(());
        }
        match self.walk.look_here(name, path, Hashing::Skip)? {
            Entry::Absent => return Ok(()),
            // In one that is not safe nothing is touched, leftovers neither.
            Entry::Directory(attributes) if self.walk.is_safe(&attributes) => {
                if self.walk.enter(path)? {
                    self.sweep_here()?;
                }
                self.enter_existing(parent)?;
            }
            Entry::Directory(_) => {}
            other => return Err(in_the_way(path, &other)),
        }
        self.mark_written(path)?;
        match unlinkat(self.walk.here(), name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(io_failure("delete directory", path, errno)),
        }
    }

    /// Makes everything so far durable.
    pub fn sync(&mut self) -> Result<(), Failure> {
        for directory in self.written.values() {
            syncfs(directory).map_err(|errno| {
                Failure::new(
                    Class::Host,
                    format!("failed to write changes to disk: {}", errno.desc()),
                )
            })?;
        }
        Ok(())
    }

    /// Enters the directory of `target` and chooses a name for its candidate.
    fn prepare(&mut self, target: &str) -> Result<Candidate, Failure> {
        let directory = split(target).0;
        self.enter_existing(directory)?;
        if self.prepared.as_deref() != Some(directory) {
            self.mark_written(target)?;
            self.sweep_here()?;
            self.prepared = Some(directory.to_owned());
        }
        Ok(Candidate {
            target: target.to_owned(),
            name: candidate_name(target)?,
        })
    }

    fn enter_existing(&mut self, directory: &str) -> Result<(), Failure> {
        if self.walk.enter(directory)? {
            return Ok(());
        }
        Err(Failure::new(
            Class::Host,
            format!("failed to enter directory '{directory}': no such directory"),
        ))
    }

    fn mark_written(&mut self, target: &str) -> Result<(), Failure> {
        let failed = |errno| io_failure("open the directory of", target, errno);
        let device = fstat(self.walk.here()).map_err(failed)?.st_dev;
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.written.entry(device) {
            // The walk's own descriptors are O_PATH, which syncfs refuses.
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            vacant.insert(openat(self.walk.here(), ".", flags, Mode::empty()).map_err(failed)?);
        }
        Ok(())
    }

    /// Removes leftovers from the directory that was entered last, once per batch: what this batch makes is none.
    fn sweep_here(&mut self) -> Result<(), Failure> {
        let directory = self.walk.here_path();
        if !self.swept.insert(directory.clone()) {
            return Ok(());
        }
        for name in self.walk.list_here(&directory, SWEEP_LIMIT)? {
            if !is_candidate_name(&name) {
                continue;
            }
            tracing::debug!(path = %join(&directory, &name), "removing what an interrupted run left");
            let kind = match self.walk.look_here(&name, &directory, Hashing::Skip)? {
                Entry::Directory(_) => UnlinkatFlags::RemoveDir,
                _ => UnlinkatFlags::NoRemoveDir,
            };
            unlinkat(self.walk.here(), name.as_str(), kind)
                .map_err(|errno| io_failure("delete", &join(&directory, &name), errno))?;
        }
        Ok(())
    }
}

fn open_directory(parent: &OwnedFd, name: &str, shown: &str) -> Result<OwnedFd, Failure> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty())
        .map_err(|errno| io_failure("open directory", shown, errno))
}

fn change_attributes(file: &OwnedFd, path: &str, change: AttributeChange) -> Result<(), Failure> {
    let stat = fstat(file).map_err(|errno| io_failure("look at", path, errno))?;
    let old = attributes_of(&stat);
    // The owner changes only when needed: an ordinary user may not even set what is already so. A change of owner clears setuid and
    // setgid, so the mode comes after it.
    let uid = change.uid.filter(|uid| *uid != old.uid);
    let gid = change.gid.filter(|gid| *gid != old.gid);
    let chowned = uid.is_some() || gid.is_some();
    if chowned {
        // It takes the capabilities away, too, of which nobody said anything.
        let capabilities = xattrs::read_one(file, xattrs::CAPABILITIES, path)?;
        fchown(file, uid.map(Uid::from_raw), gid.map(Gid::from_raw))
            .map_err(|errno| io_failure("change the owner of", path, errno))?;
        if let Some(capabilities) = capabilities {
            xattrs::write_one(file, xattrs::CAPABILITIES, &capabilities, path)?;
        }
    }
    let mode = change.mode.unwrap_or(old.mode);
    if chowned || mode != old.mode {
        fchmod(file, Mode::from_bits_truncate(mode))
            .map_err(|errno| io_failure("change the mode of", path, errno))?;
    }
    Ok(())
}

fn write_xattrs(
    file: &impl AsFd,
    path: &str,
    exactly: Option<&Xattrs>,
    named: &NamedXattrs,
    mode: u32,
) -> Result<(), Failure> {
    if let Some(exactly) = exactly {
        exactly.write(file, path)?;
        fchmod(file, Mode::from_bits_truncate(mode))
            .map_err(|errno| io_failure("change the mode of", path, errno))?;
    }
    named.write(file, path)
}

fn in_the_way(path: &str, entry: &Entry) -> Failure {
    let (what, hint) = match entry {
        Entry::File { links, .. } => (
            format!("a file with {links} names (hard links)"),
            "the other names would keep the old content; remove them, or this one",
        ),
        Entry::Directory(_) => (
            "a directory".to_owned(),
            "move it away, or declare another path",
        ),
        Entry::Symlink(_) => (
            "a symbolic link".to_owned(),
            "declare the path that it leads to",
        ),
        Entry::Special(what) => ((*what).to_owned(), "move it away, or declare another path"),
        Entry::Absent => (
            "absent".to_owned(),
            "it vanished a moment ago; the next cycle looks again",
        ),
    };
    Failure::new(
        Class::Host,
        format!("refused to change '{path}': it is {what}"),
    )
    .with_hint(hint)
}

fn write_failure(path: &str, error: &std::io::Error) -> Failure {
    match error.raw_os_error() {
        Some(number) => io_failure("write", path, Errno::from_raw(number)),
        None => Failure::new(Class::Host, format!("failed to write '{path}': {error}")),
    }
}
