//! The cache: a bare repository of the fetcher's own, shared by the source and its mirrors.
//!
//! The cache of a source is a directory named after the hash of its URL, with one ref of ours, [`TIP`]. It follows the branch
//! wherever that goes: whether a tip is acceptable is not the fetcher's to judge.
//!
//! Invariant: everything in the cache can be thrown away and fetched again; nothing on the machine depends on it. A new one takes
//! the old one's place only when it is whole.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::store;
use crate::git::{ObjectId, hex};
use crate::model::{Class, Failure};

/// Where the cache remembers the branch's commit.
pub const TIP: &str = "refs/limpet/tip";

/// Where the cache keeps the last trusted commit when the branch does not lead to it.
pub const TRUSTED: &str = "refs/limpet/trusted";

/// Every fetch that finds something adds a pack; at this many the cache is fetched anew as one.
const MAX_PACKS: usize = 200;

/// How long to wait for another fetcher on the same cache.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// A cache, which need not exist yet.
#[derive(Debug, Clone)]
pub struct Cache {
    path: PathBuf,
}

/// What a cache holds.
#[derive(Debug)]
pub struct Known {
    /// Its hash function.
    pub format: gix::hash::Kind,
    /// The branch's commit at the last fetch, if it is there.
    pub tip: Option<ObjectId>,
    packs: usize,
    pack_bytes: u64,
}

impl Known {
    /// Has it grown so much that it should be fetched anew? `fetch_bytes` is what one fetch may bring.
    pub fn is_overgrown(&self, fetch_bytes: u64) -> bool {
        self.packs >= MAX_PACKS || self.pack_bytes > fetch_bytes.saturating_mul(2)
    }
}

impl Cache {
    /// The cache for `url` below `directory`: two sources never share one, whatever their URLs look like.
    pub fn new(directory: &Path, url: &str) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, url.as_bytes());
        let name = hex(&digest.as_ref()[..16]);
        Cache {
            path: directory.join(format!("{name}.git")),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds; `None` when it is no repository, or none yet.
    pub fn read(&self) -> Option<Known> {
        let repository = store::open(&self.path).ok()?;
        let mut known = Known {
            format: repository.object_hash(),
            tip: read_ref(&repository, TIP).filter(|tip| repository.has_object(tip)),
            packs: 0,
            pack_bytes: 0,
        };
        for entry in std::fs::read_dir(self.path.join("objects/pack"))
            .ok()?
            .flatten()
        {
            let is_pack = entry.path().extension().is_some_and(|it| it == "pack");
            known.packs += usize::from(is_pack);
            known.pack_bytes += entry.metadata().map_or(0, |metadata| metadata.len());
        }
        Some(known)
    }

    /// Makes an empty one beside it, to be filled and then put in its place.
    pub fn begin_anew(&self, format: gix::hash::Kind) -> Result<PathBuf, Failure> {
        let new = self.beside("new");
        create(&new, format).map_err(|error| self.unwritable(&error))?;
        Ok(new)
    }

    /// Puts the new one in its place.
    pub fn replace(&self) -> Result<(), Failure> {
        let old = self.beside("old");
        let replace = || {
            if self.path.exists() {
                std::fs::rename(&self.path, &old)?;
            }
            std::fs::rename(self.beside("new"), &self.path)
        };
        replace().map_err(|error| self.unwritable(&error))?;
        // What cannot be removed now is swept at the next poll.
        let _ = std::fs::remove_dir_all(&old);
        Ok(())
    }

    fn unwritable(&self, error: &io::Error) -> Failure {
        let message = format!("failed to write cache '{}': {error}", self.path.display());
        Failure::new(Class::Host, message)
            .with_hint("user limpet must be able to write there, and the disk needs room")
    }

    fn beside(&self, extension: &str) -> PathBuf {
        self.path.with_extension(format!("git.{extension}"))
    }

    /// Keeps other fetchers off it for as long as the file lives: a child of `limpet apply --once` may use it too.
    pub fn lock(&self) -> Result<File, Failure> {
        let path = self.beside("lock");
        let fail = |cause: &dyn std::fmt::Display, class| {
            let message = format!("failed to lock cache '{}': {cause}", path.display());
            Failure::new(class, message)
        };
        let open = || {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
        };
        let file = open().map_err(|error| {
            fail(&error, Class::Host).with_hint("the fetcher's user must be able to write there")
        })?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(fail(&"another fetcher is using it", Class::Transient));
                }
                Err(TryLockError::Error(error)) => return Err(fail(&error, Class::Host)),
            }
        }
    }

    /// Removes what a fetcher that was killed left behind. Only who holds the lock may do so.
    pub fn sweep(&self) {
        for extension in ["new", "old"] {
            let _ = std::fs::remove_dir_all(self.beside(extension));
        }
        // Locks on refs are ours too: whoever held one is gone, or we would not hold the lock on the cache.
        for directory in ["objects/pack", "refs/limpet"] {
            let Ok(entries) = std::fs::read_dir(self.path.join(directory)) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if name.starts_with(".tmp") || name.ends_with(".lock") || name.ends_with(".keep") {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
    }
}

/// Where the ref called `name` points.
pub fn read_ref(repository: &gix::Repository, name: &str) -> Option<ObjectId> {
    let reference = repository.try_find_reference(name).ok()??;
    reference.target().try_id().map(|id| id.to_owned())
}

/// Lets [`TIP`] of the repository at `path` point to `tip`.
pub fn write_tip(path: &Path, tip: ObjectId) -> io::Result<()> {
    let file = path.join(TIP);
    let lock = path.join(format!("{TIP}.lock"));
    if let Some(parent) = file.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&lock, format!("{tip}\n"))?;
    std::fs::rename(lock, file)
}

/// Makes an empty bare repository at `path`: by hand, because gix would add sample hooks and a description.
fn create(path: &Path, format: gix::hash::Kind) -> io::Result<()> {
    if path.exists() {
        std::fs::remove_dir_all(path)?;
    }
    for directory in ["objects/pack", "objects/info", "refs/heads"] {
        std::fs::create_dir_all(path.join(directory))?;
    }
    std::fs::write(path.join("HEAD"), "ref: refs/heads/none\n")?;
    let version = match format {
        gix::hash::Kind::Sha1 => {
            "[core]\n\trepositoryformatversion = 0\n\tbare = true\n".to_owned()
        }
        format => format!(
            "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = {format}\n"
        ),
    };
    std::fs::write(path.join("config"), version)
}
