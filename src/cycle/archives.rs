//! What is in archives that are declared by their address: looked at once, and remembered for as long as it may be wanted.
//!
//! Invariant: nothing is parsed but a copy of root's own, whose SHA-256 was found to be the declared one.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use crate::apply::{Cause, NotMade, Walked};
use crate::archive::Index;
use crate::config;
use crate::cycle::contents::{Courier, StoredContents};
use crate::cycle::{Cycle, InForce, Progress};
use crate::fleet::{self, Limits};
use crate::git::hex;
use crate::kinds::file::{Allowed, DesiredPath, PathSpec, not_as_declared, put_in_place};
use crate::kinds::kind::Content;
use crate::model::{Action, Class, Failure, ResourceId};
use crate::record::Record;
use crate::sys::{Host, clock};

/// Under which name the record keeps the hashes of the archives that it knows, the latest last.
const KNOWN: &str = "archives";

/// How many of them are kept, unless more are declared: the others are there to go back to.
const MOST_KEPT: usize = 20;

/// Copies of archives, for as long as a cycle wants them.
#[derive(Debug, Default)]
pub struct Archives {
    copies: RefCell<BTreeMap<[u8; 32], File>>,
}

impl Archives {
    /// The archive with this hash, from its first byte on; `bring` says where its bytes are.
    pub(super) fn get<'a>(
        &self,
        host: &Host,
        url: &str,
        sha256: &[u8; 32],
        bring: &mut dyn FnMut() -> Result<Box<dyn Read + 'a>, Failure>,
    ) -> Result<File, Failure> {
        let mut copies = self.copies.borrow_mut();
        let copy = match copies.remove(sha256) {
            Some(copy) => copy,
            None => {
                let (copy, found) = host.spool(config::STATE_DIRECTORY, &mut bring()?)?;
                if found != *sha256 {
                    return Err(not_as_declared(url, &found, sha256));
                }
                copy
            }
        };
        let failed = |error: std::io::Error| {
            let message = format!("failed to read what was fetched from '{url}': {error}");
            Failure::new(Class::Host, message)
        };
        let mut another = copy.try_clone().map_err(failed)?;
        copies.insert(*sha256, copy);
        another.seek(SeekFrom::Start(0)).map_err(failed)?;
        Ok(another)
    }

    /// Lets the copies go.
    pub(super) fn forget(&self) {
        self.copies.borrow_mut().clear();
    }
}

/// Under which name the record keeps what is in the archive with this hash.
fn name_of(sha256: &[u8; 32]) -> String {
    format!("archive {}", hex(sha256))
}

/// Puts what is in archives among `paths` where `record` knows it.
pub(super) fn unpack_known(paths: &mut Vec<DesiredPath>, record: &Record, limits: &Limits) {
    put_in_place(
        paths,
        &allowed(limits, &|path| fleet::why_forbidden(path, limits)),
        &mut |_, content| recall(record, content),
    );
}

fn allowed<'a>(
    limits: &Limits,
    why_forbidden: &'a dyn Fn(&str) -> Option<&'static str>,
) -> Allowed<'a> {
    Allowed {
        why_forbidden,
        suid: limits.allow_suid,
    }
}

fn recall(record: &Record, content: &Content) -> Result<Option<Index>, Failure> {
    record.recall(&name_of(&content.sha256))
}

impl Cycle {
    /// Puts what is in archives among the declared paths. One that is not known yet is fetched and looked at; where that fails, it rests.
    pub(super) fn unpack(
        &mut self,
        in_force: &mut InForce,
        progress: Progress<'_>,
    ) -> Result<(), Failure> {
        // Of a cycle that ended early.
        self.archives.forget();
        let paths = &mut in_force.desired.paths;
        let declared: BTreeSet<String> = paths
            .iter()
            .filter_map(|path| match &path.spec {
                PathSpec::Archive { content, .. } => Some(name_of(&content.sha256)),
                _ => None,
            })
            .collect();
        if declared.is_empty() {
            return Ok(());
        }
        let now = clock::instant();
        let limits = Limits::from(&self.config.apply);
        let contents = StoredContents::new(&self.host, &self.objects, &self.vault)?
            .with_courier(Courier::new(&self.connect, progress), &self.archives);
        let mut failed: Vec<NotMade> = Vec::new();
        let mut looked_at: Vec<(ResourceId, [u8; 32], Index)> = Vec::new();
        put_in_place(
            paths,
            &allowed(&limits, &|path| fleet::why_forbidden(path, &limits)),
            &mut |item, content| {
                if let Some(known) = recall(&self.record, content)? {
                    return Ok(Some(known));
                }
                let resting = self.resting.get(&item.id);
                if let Some(rest) = resting.filter(|rest| rest.until > now) {
                    return Err(rest.failure.clone());
                }
                match contents.index(content) {
                    Ok(index) => {
                        looked_at.push((item.id.clone(), content.sha256, index.clone()));
                        Ok(Some(index))
                    }
                    Err(failure) => {
                        failed.push(NotMade {
                            id: item.id.clone(),
                            action: Action::Update,
                            cause: Cause::Failed(failure.clone()),
                        });
                        Err(failure)
                    }
                }
            },
        );
        drop(contents); // a transaction is open as long as it is there
        let walked = Walked {
            not_made: failed,
            made: looked_at.iter().map(|(id, _, _)| id.clone()).collect(),
            ..Walked::default()
        };
        self.rest(&walked, now);
        let remembered = looked_at
            .iter()
            .try_for_each(|(_, sha256, index)| remember(&self.record, sha256, index, &declared));
        self.note_unwritten(remembered);
        Ok(())
    }
}

/// Remembers what is in an archive, and forgets what is in one that was wanted long ago.
fn remember(
    record: &Record,
    sha256: &[u8; 32],
    index: &Index,
    declared: &BTreeSet<String>,
) -> Result<(), Failure> {
    let mut known: Vec<String> = record.recall(KNOWN)?.unwrap_or_default();
    let name = name_of(sha256);
    known.retain(|known| *known != name);
    known.push(name.clone());
    record.remember(&name, index)?;
    let is_old = |name: &String| !declared.contains(name);
    while known.len() > MOST_KEPT
        && let Some(oldest) = known.iter().position(is_old)
    {
        record.forget(&known.remove(oldest))?;
    }
    record.remember(KNOWN, &known)
}
