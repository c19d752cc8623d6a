//! The contract every kind of resource keeps.
//!
//! A kind looks at the machine once (`observe`), says what has to change without looking again (`plan`), and makes a batch of
//! changes (`apply`). Between the calls only plain data travels.
//!
//! Invariant: `plan` has no `Host` and no `Result`: a resource that could not be observed is a value in `Observed`, and its step is
//! a [`Step::Blocked`].

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::{Action, Class, Failure, Name, OnRemoval, Outcome, Reason, ResourceId};
use crate::sys::Host;

/// A kind of resource. Per kind, not per resource: one look, one transaction.
pub trait Kind {
    /// One declared resource of this kind.
    type Desired;
    /// Everything of this kind on the machine that was asked about.
    type Observed;
    /// What was there before limpet first touched a resource; kept in the inventory, so that removal can restore it.
    type Original: Serialize + DeserializeOwned + Clone + std::fmt::Debug;
    /// What the inventory remembers of what was applied last.
    type Applied: Clone + std::fmt::Debug;
    /// One change, complete: `apply` needs nothing else.
    type Change;

    /// Looks at all `desired` and `owned` resources in one go. Changes nothing and runs no program.
    fn observe(
        host: &Host,
        desired: &[Self::Desired],
        owned: &[Owned<Self::Original, Self::Applied>],
    ) -> Self::Observed;

    /// What must change so that `observed` becomes `desired`; owned resources that are no longer desired are restored.
    fn plan(
        desired: &[Self::Desired],
        observed: &Self::Observed,
        owned: &[Owned<Self::Original, Self::Applied>],
    ) -> Vec<Step<Self::Original, Self::Change>>;

    /// Makes the changes as one batch, in the order given. Returns one outcome per change, in the same order. Safe to repeat.
    fn apply(host: &Host, contents: &dyn Contents, changes: &[&Self::Change]) -> Vec<Outcome>;
}

/// A resource that limpet has applied before.
#[derive(Debug, Clone)]
pub struct Owned<O, A = serde_json::Value> {
    /// What declared it last.
    pub id: ResourceId,
    /// What is owned within the kind: a path, a package or a unit name. Ownership goes by this, not by `id`.
    pub key: Name,
    /// What was there before.
    pub original: O,
    /// What to do when it is no longer declared.
    pub on_removal: OnRemoval,
    /// What was applied last: the managed keys, as a JSON object where the kind has no type of its own for them. What is no longer
    /// among the declared keys is taken back.
    pub applied: A,
}

/// One thing a kind wants done, or cannot do.
#[derive(Debug)]
pub enum Step<O, C> {
    /// A change to make.
    Change(Box<PlannedChange<O, C>>),
    /// Owned, no longer declared, and nothing has to be done about it: the inventory forgets it.
    Release {
        /// What declared it last.
        id: ResourceId,
        /// What is owned, as in [`Owned::key`].
        key: Name,
    },
    /// The resource cannot be judged or changed: observing it failed, or a rule forbids it.
    Blocked(Failure),
}

/// A change with what people are told about it.
#[derive(Debug)]
pub struct PlannedChange<O, C> {
    /// The resource whose declaration (or former declaration) asks for it.
    pub id: ResourceId,
    /// What is owned within the kind, as in [`Owned::key`].
    pub key: Name,
    /// What will be done.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// Which properties differ: `content`, `mode`, `owner`, `version`, `enabled`, …
    pub fields: Vec<String>,
    /// What is there now, to be kept in the inventory if this is the first time we touch it.
    pub original: O,
    /// True when undoing this would not be possible without a copy: counts for `max_removals`.
    pub removes: bool,
    /// What `apply` needs.
    pub change: C,
}

/// Where the bytes of declared contents come from.
pub trait Contents {
    /// The bytes, checked against the content's SHA-256.
    fn read(&self, content: &Content) -> Result<Vec<u8>, Failure>;

    /// The same bytes one after the other, of a content that may be too large for memory; whoever reads them checks them.
    fn open(&self, content: &Content) -> Result<Box<dyn std::io::Read + '_>, Failure> {
        Ok(Box::new(std::io::Cursor::new(self.read(content)?)))
    }

    /// Hands the files in the archive whose bytes `archive` is to `take`, with their numbers, one after the other; what `take` does
    /// not read is skipped. Its SHA-256 was checked before anything of it is looked at.
    fn unpack(
        &self,
        archive: &Content,
        _take: &mut dyn FnMut(u32, &mut dyn std::io::Read) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let whence = archive.whence().unwrap_or("an archive");
        Err(Failure::new(
            Class::Bug,
            format!("failed to unpack '{whence}': it is only looked at"),
        ))
    }

    /// Encrypts what was in a file of ours, so that it may be kept for a while, and hashes it with this host's key. Without a key
    /// nothing is.
    fn seal(&self, _bytes: &[u8]) -> Result<(Vec<u8>, [u8; 32]), Failure> {
        Err(Failure::new(
            Class::Bug,
            "failed to keep what a secret was: there is no key",
        ))
    }
}

/// The content of a file, known by its hash so that comparing needs no bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
    /// Their number.
    pub size: u64,
    /// Where they are.
    pub source: ContentSource,
}

/// Where a content's bytes are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentSource {
    /// Here: declared in TOML or rendered from a template.
    Inline(std::sync::Arc<[u8]>),
    /// A blob of the revision.
    Blob(crate::git::ObjectId),
    /// Among the originals, under the SHA-256.
    Original,
    /// At this address, whence the fetcher gets it; its size is not known.
    Address(std::sync::Arc<str>),
    /// In this archive, which is fetched from its address, as the file with this number.
    Member(std::sync::Arc<Content>, u32),
    /// Here and encrypted: opened where it is written, and nowhere else.
    Sealed(std::sync::Arc<Sealed>),
}

impl Content {
    /// A content of these parts, of which some are encrypted. Until a host opens it, its hash is that of the parts.
    pub fn sealed(parts: Vec<Part>) -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        let mut size = 0;
        for part in &parts {
            let (kind, bytes) = match part {
                Part::Plain(bytes) => (0, bytes),
                Part::Secret(bytes) => (1, bytes),
            };
            size += bytes.len() as u64;
            context.update(&[kind]);
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        }
        let hash = context.finish();
        let id = hash.as_ref().try_into().expect("a SHA-256 has 32 bytes");
        Content {
            sha256: id,
            size,
            source: ContentSource::Sealed(std::sync::Arc::new(Sealed { id, size, parts })),
        }
    }

    /// Its encrypted parts, where it has some.
    pub fn as_sealed(&self) -> Option<&Sealed> {
        match &self.source {
            ContentSource::Sealed(sealed) => Some(sealed),
            ContentSource::Inline(_)
            | ContentSource::Blob(_)
            | ContentSource::Original
            | ContentSource::Address(_)
            | ContentSource::Member(..) => None,
        }
    }

    /// Whence it is fetched, where it is declared by its address.
    pub fn as_address(&self) -> Option<&str> {
        match &self.source {
            ContentSource::Address(url) => Some(url),
            _ => None,
        }
    }

    /// The archive that has it, and its number there.
    pub fn as_member(&self) -> Option<(&std::sync::Arc<Content>, u32)> {
        match &self.source {
            ContentSource::Member(archive, member) => Some((archive, *member)),
            _ => None,
        }
    }

    /// The address it is fetched from, by itself or in an archive.
    pub fn whence(&self) -> Option<&str> {
        match self.as_member() {
            Some((archive, _)) => archive.as_address(),
            None => self.as_address(),
        }
    }
}

/// A content that is encrypted, or has encrypted parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// SHA-256 of its parts: the same wherever it is reckoned.
    pub id: [u8; 32],
    /// The bytes of its parts.
    pub size: u64,
    /// What it is put together from.
    pub parts: Vec<Part>,
}

/// A part of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it is.
    Plain(std::sync::Arc<[u8]>),
    /// In age's format.
    Secret(std::sync::Arc<[u8]>),
}
