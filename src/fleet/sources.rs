//! The files that layers name: their hashes and texts, read once however many hosts use them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ring::digest::{SHA256, digest};

use super::inputs::Raw;
use super::{read_text, unreadable};
use crate::document::Source;
use crate::git::{EntryKind, ObjectId, Tree, TreeFile};
use crate::kinds::file::{DesiredPath, PathSpec};
use crate::kinds::kind::{Content, ContentSource};
use crate::model::Failure;

/// Something below a directory, as a path from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Below {
    Directory(String),
    File(String),
    Symlink(String),
}

/// The files of a tree, by path.
pub(super) struct Sources<'tree> {
    tree: &'tree dyn Tree,
    /// What was read, where several hosts use it.
    contents: Option<RefCell<BTreeMap<String, Option<Content>>>>,
    /// What blobs are that were read for an earlier revision.
    known: HashMap<ObjectId, &'tree Content>,
    /// The files of which hash and size were taken, where a single host uses them.
    raw: RefCell<Vec<Raw>>,
    texts: RefCell<BTreeMap<String, Option<Arc<Source>>>>,
    /// Files whose bytes were looked at.
    bytes: RefCell<BTreeMap<String, Option<Arc<[u8]>>>>,
    /// Those of them that are secrets.
    sealed: RefCell<BTreeSet<String>>,
}

impl<'tree> Sources<'tree> {
    /// The files of `tree`, none read yet.
    pub fn new(tree: &'tree dyn Tree) -> Self {
        Sources {
            tree,
            contents: None,
            known: HashMap::new(),
            raw: RefCell::default(),
            texts: RefCell::default(),
            bytes: RefCell::default(),
            sealed: RefCell::default(),
        }
    }

    /// Keeps what is read, for the next host.
    pub fn keep_contents(&mut self) {
        self.contents = Some(RefCell::default());
    }

    /// Takes over what is known of the blobs of an earlier revision, whose paths were `before`: the same blob has the same bytes.
    pub fn know(&mut self, before: &'tree [DesiredPath]) {
        let blob_of = |path: &'tree DesiredPath| match &path.spec {
            PathSpec::File {
                content: Some(content),
                ..
            } => match &content.source {
                ContentSource::Blob(id) => Some((*id, content)),
                ContentSource::Inline(_)
                | ContentSource::Original
                | ContentSource::Address(_)
                | ContentSource::Member(..)
                | ContentSource::Sealed(_) => None,
            },
            _ => None,
        };
        self.known = before.iter().filter_map(blob_of).collect();
    }

    /// The bytes of `path` as they are; where the tree is Git's, only their hash is kept.
    pub fn content(&self, path: &str) -> Result<Option<Content>, Failure> {
        let Some(contents) = &self.contents else {
            let content = self.read_content(path)?;
            if let Some(ContentSource::Blob(id)) = content.as_ref().map(|content| &content.source) {
                self.raw.borrow_mut().push(Raw::new(path, id));
            }
            return Ok(content);
        };
        if let Some(content) = contents.borrow().get(path) {
            return Ok(content.clone());
        }
        let content = self.read_content(path)?;
        contents
            .borrow_mut()
            .insert(path.to_owned(), content.clone());
        Ok(content)
    }

    fn read_content(&self, path: &str) -> Result<Option<Content>, Failure> {
        if !self.known.is_empty() {
            let is_known = |id: &ObjectId| self.known.contains_key(id);
            let kept = self
                .tree
                .kept(path, &is_known)
                .map_err(|error| unreadable(path, &error))?;
            if let Some(content) = kept.and_then(|id| self.known.get(&id)) {
                return Ok(Some((*content).clone()));
            }
        }
        let file = self
            .tree
            .read(path)
            .map_err(|error| unreadable(path, &error))?;
        Ok(file.map(content_of))
    }

    /// What was read: the files whose text or bytes were, and the raw ones.
    pub fn used(&self) -> (BTreeSet<String>, Vec<Raw>) {
        let (texts, bytes) = (self.texts.borrow(), self.bytes.borrow());
        let read = texts.keys().chain(bytes.keys()).cloned().collect();
        (read, self.raw.take())
    }

    /// The bytes of `path`, for what follows from them.
    pub fn bytes(&self, path: &str) -> Result<Option<Arc<[u8]>>, Failure> {
        if let Some(bytes) = self.bytes.borrow().get(path) {
            return Ok(bytes.clone());
        }
        let file = self
            .tree
            .read(path)
            .map_err(|error| unreadable(path, &error))?;
        let bytes: Option<Arc<[u8]>> = file.map(|file| file.data.into());
        self.bytes
            .borrow_mut()
            .insert(path.to_owned(), bytes.clone());
        Ok(bytes)
    }

    /// The text of `path`.
    pub fn text(&self, path: &str) -> Result<Option<Arc<Source>>, Failure> {
        if let Some(text) = self.texts.borrow().get(path) {
            return Ok(text.clone());
        }
        let text = read_text(self.tree, path)?;
        self.texts
            .borrow_mut()
            .insert(path.to_owned(), text.clone());
        Ok(text)
    }

    /// The encrypted files that were read.
    pub fn sealed_paths(&self) -> BTreeSet<String> {
        self.sealed.borrow().clone()
    }

    /// What the file at `path` encrypts, as it is.
    pub fn sealed(&self, path: &str) -> Result<Option<Arc<[u8]>>, Failure> {
        let sealed = self.bytes(path)?;
        if sealed.is_some() {
            self.sealed.borrow_mut().insert(path.to_owned());
        }
        Ok(sealed)
    }

    /// The files below `directory`, as paths from there; for suggestions.
    pub fn names_below(&self, directory: &str) -> Vec<String> {
        let files = self.below(directory).into_iter();
        files
            .filter_map(|below| match below {
                Below::File(path) => Some(path),
                Below::Directory(_) | Below::Symlink(_) => None,
            })
            .collect()
    }

    /// What is below `directory`, and itself, a directory before what is in it.
    pub fn below(&self, directory: &str) -> Vec<Below> {
        let mut found = Vec::new();
        let mut pending = vec![String::new()];
        while let Some(prefix) = pending.pop() {
            found.push(Below::Directory(prefix.trim_end_matches('/').to_owned()));
            let path = format!("{directory}/{prefix}");
            let entries = self.tree.list(path.trim_end_matches('/'));
            for (name, kind) in entries.ok().flatten().unwrap_or_default() {
                match kind {
                    EntryKind::Directory => pending.push(format!("{prefix}{name}/")),
                    EntryKind::File => found.push(Below::File(format!("{prefix}{name}"))),
                    EntryKind::Symlink => found.push(Below::Symlink(format!("{prefix}{name}"))),
                }
            }
        }
        found
    }

    /// The symbolic link at `path`, or on the way to it, as a path.
    pub fn symlink_on<'path>(&self, path: &'path str) -> Option<&'path str> {
        let ends = path.match_indices('/').map(|(end, _)| end);
        ends.chain([path.len()])
            .map(|end| &path[..end])
            .find(|part| {
                let (directory, name) = part.rsplit_once('/').unwrap_or(("", part));
                let entries = self.tree.list(directory).ok().flatten();
                entries
                    .unwrap_or_default()
                    .iter()
                    .any(|(entry, kind)| entry == name && *kind == EntryKind::Symlink)
            })
    }

    /// Is there a directory at `path`.
    pub fn is_directory(&self, path: &str) -> bool {
        matches!(self.tree.list(path), Ok(Some(_)))
    }
}

/// What `file` contains; where it is Git's, only the hash is kept.
pub(super) fn content_of(file: TreeFile) -> Content {
    match file.id {
        Some(id) => Content {
            sha256: sha256(&file.data),
            size: file.data.len() as u64,
            source: ContentSource::Blob(id),
        },
        None => inline(file.data),
    }
}

/// Content that is kept here.
pub(super) fn inline(bytes: impl Into<Vec<u8>>) -> Content {
    let bytes = bytes.into();
    Content {
        sha256: sha256(&bytes),
        size: bytes.len() as u64,
        source: ContentSource::Inline(bytes.into()),
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::fleet::{HostIdentity, Limits, render_state, render_state_after};
    use crate::git::{ObjectError, TreeFile};

    /// Files with the ids of blobs; those below `files/` that are read are counted.
    struct Blobs {
        files: BTreeMap<&'static str, &'static str>,
        keeps: bool,
        reads: Cell<usize>,
    }

    impl Blobs {
        fn new(motd: &'static str, keeps: bool) -> Self {
            let layer = "[file.\"/etc/motd\"]\nsource = \"motd\"\n[file.\"/etc/issue\"]\nsource = \"issue\"\n";
            let manifest =
                "format = 1\nfleet = \"f\"\n[[match]]\nhosts = [\"*\"]\nlayers = [\"base\"]\n";
            Blobs {
                files: BTreeMap::from([
                    ("fleet.toml", manifest),
                    ("inventory/hosts.toml", "[host.gw]\n"),
                    ("layers/base/base.toml", layer),
                    ("layers/base/files/issue", "issue"),
                    ("layers/base/files/motd", motd),
                ]),
                keeps,
                reads: Cell::new(0),
            }
        }

        fn id(text: &str) -> ObjectId {
            let kind = gix::hash::Kind::Sha1;
            gix::objs::compute_hash(kind, gix::objs::Kind::Blob, text.as_bytes()).unwrap()
        }
    }

    impl Tree for Blobs {
        fn list(&self, path: &str) -> Result<Option<Vec<(String, EntryKind)>>, ObjectError> {
            let mut names = BTreeMap::new();
            for file in self.files.keys() {
                let Some(rest) = file
                    .strip_prefix(path)
                    .map(|rest| rest.trim_start_matches('/'))
                else {
                    continue;
                };
                match rest.split_once('/') {
                    Some((name, _)) => names.insert(name.to_owned(), EntryKind::Directory),
                    None => names.insert(rest.to_owned(), EntryKind::File),
                };
            }
            Ok((!names.is_empty()).then(|| names.into_iter().collect()))
        }

        fn read(&self, path: &str) -> Result<Option<TreeFile>, ObjectError> {
            if path.contains("/files/") {
                self.reads.set(self.reads.get() + 1);
            }
            Ok(self.files.get(path).map(|text| TreeFile {
                data: text.as_bytes().to_vec(),
                id: Some(Self::id(text)),
            }))
        }

        fn kept(
            &self,
            path: &str,
            is_known: &dyn Fn(&ObjectId) -> bool,
        ) -> Result<Option<ObjectId>, ObjectError> {
            let id = self.files.get(path).map(|text| Self::id(text));
            Ok(id.filter(|id| self.keeps && is_known(id)))
        }
    }

    #[test]
    fn a_blob_that_an_earlier_revision_named_is_not_read_again_as_long_as_it_is_kept() {
        let (host, limits) = (HostIdentity::named("gw"), Limits::default());
        let first = Blobs::new("old", true);
        let before = render_state(&first, &host, &limits).unwrap().state;
        assert_eq!(first.reads.get(), 2);

        let second = Blobs::new("new", true);
        let anew = render_state(&second, &host, &limits).unwrap().state;
        second.reads.set(0);
        let after = render_state_after(&before, None, &second, &host, &limits).unwrap();
        assert_eq!(second.reads.get(), 1, "only the file that changed");
        assert_eq!(after.state.paths, anew.paths);
        assert_eq!(after.state.digest, anew.digest);

        let lost = Blobs::new("new", false);
        let after = render_state_after(&before, None, &lost, &host, &limits).unwrap();
        assert_eq!(lost.reads.get(), 2);
        assert_eq!(after.state.digest, anew.digest);
    }
}
