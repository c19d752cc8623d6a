//! Trees: the strict rules for their entries, the check of what a commit changed, and reading files by path.
//!
//! Invariant: a symbolic link is never followed, and no name reaches a caller that a file system could take for another.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::rule::{Refusal, Rule, Stop, escape};
use crate::git::{
    ChangedFile, EntryKind, ObjectError, ObjectId, ObjectKind, Objects, Tree, TreeFile,
};

/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// How deep directories may nest; the root is 0.
const MAX_DEPTH: usize = 64;

/// One entry of a tree object that keeps the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: EntryKind,
    pub(super) is_executable: bool,
    pub(super) id: ObjectId,
}

/// Reads the tree object `id`. The error is what is wrong, and with which name.
pub(super) fn parse(id: ObjectId, data: &[u8]) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut names = BTreeSet::new();
    let mut rest = data;
    while !rest.is_empty() {
        let truncated = || "ends within an entry".to_owned();
        let space = position(rest, b' ').ok_or_else(truncated)?;
        let mode = &rest[..space];
        rest = &rest[space + 1..];
        let end = position(rest, 0).ok_or_else(truncated)?;
        let name = &rest[..end];
        let (hash, after) = rest[end + 1..]
            .split_at_checked(id.kind().len_in_bytes())
            .ok_or_else(truncated)?;
        rest = after;

        let shown = escape(name);
        let kind = match mode {
            b"100644" | b"100755" => EntryKind::File,
            b"40000" => EntryKind::Directory,
            b"120000" => EntryKind::Symlink,
            b"160000" => return Err(format!("has the submodule '{shown}'")),
            _ => {
                return Err(format!("has the mode {} for '{shown}'", escape(mode)));
            }
        };
        if let Some(problem) = problem_with(name) {
            return Err(format!("has the name '{shown}', which {problem}"));
        }
        let name = String::from_utf8(name.to_owned())
            .map_err(|_| format!("has the name '{shown}', which is not UTF-8"))?;
        if !names.insert(name.clone()) {
            return Err(format!("has '{shown}' twice"));
        }
        let entry = Entry {
            name,
            kind,
            is_executable: mode == b"100755",
            id: ObjectId::try_from(hash).map_err(|_| truncated())?,
        };
        if entries
            .last()
            .is_some_and(|last| sort_key(last) >= sort_key(&entry))
        {
            return Err(format!("is not sorted at '{shown}'"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().position(|&byte| byte == wanted)
}

/// Git sorts a directory as if its name ended in a slash.
fn sort_key(entry: &Entry) -> Vec<u8> {
    let mut key = entry.name.clone().into_bytes();
    if entry.kind == EntryKind::Directory {
        key.push(b'/');
    }
    key
}

/// Why `name` may not stand in a tree, if so.
fn problem_with(name: &[u8]) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.len() > MAX_NAME_BYTES {
        Some("is longer than 255 bytes")
    } else if name.contains(&b'/') {
        Some("contains a slash")
    } else if name == b"." || name == b".." {
        Some("leaves its directory")
    } else if is_ntfs_dot_git(name) || is_hfs_dot_git(name) {
        Some("some file systems take for '.git'")
    } else {
        None
    }
}

/// Would NTFS open `.git` by this name? It drops trailing dots and spaces and what follows a colon, and knows `git~1`.
fn is_ntfs_dot_git(name: &[u8]) -> bool {
    let end = name
        .iter()
        .position(|byte| matches!(byte, b':' | b'\\'))
        .unwrap_or(name.len());
    let stem = name[..end].trim_ascii_end();
    let stem = &stem[..stem
        .iter()
        .rposition(|byte| !matches!(byte, b'.' | b' '))
        .map_or(0, |last| last + 1)];
    stem.eq_ignore_ascii_case(b".git") || stem.eq_ignore_ascii_case(b"git~1")
}

/// Would HFS+ open `.git` by this name? It ignores some characters that are not seen.
fn is_hfs_dot_git(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else {
        return false;
    };
    let is_ignored = |character| matches!(character, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    name.chars()
        .filter(|&character| !is_ignored(character))
        .flat_map(char::to_lowercase)
        .eq(".git".chars())
}

/// Checks what commits change, directory by directory; a tree that was seen once is not read again.
pub(super) struct ChangeCheck<'a> {
    objects: &'a dyn Objects,
    /// How many levels of directories each good tree has below it.
    heights: HashMap<ObjectId, usize>,
}

impl<'a> ChangeCheck<'a> {
    pub(super) fn new(objects: &'a dyn Objects) -> Self {
        ChangeCheck {
            objects,
            heights: HashMap::new(),
        }
    }

    /// Checks every tree below `new` that is not in the same place below `old`, on behalf of `commit`.
    pub(super) fn check(
        &mut self,
        commit: ObjectId,
        old: Option<ObjectId>,
        new: ObjectId,
    ) -> Result<(), Stop> {
        self.check_directory(commit, old, new, "").map(drop)
    }

    /// Returns how many levels are below `new`; those of a tree that did not change are not counted, because they were before.
    fn check_directory(
        &mut self,
        commit: ObjectId,
        old: Option<ObjectId>,
        new: ObjectId,
        path: &str,
    ) -> Result<usize, Stop> {
        let depth = path.split('/').filter(|name| !name.is_empty()).count();
        let too_deep = || malformed(commit, path, &format!("is deeper than {MAX_DEPTH}"));
        if old == Some(new) {
            return Ok(0);
        }
        if let Some(&height) = self.heights.get(&new) {
            return if depth + height > MAX_DEPTH {
                Err(too_deep().into())
            } else {
                Ok(height)
            };
        }
        if depth > MAX_DEPTH {
            return Err(too_deep().into());
        }
        let entries = read_tree(self.objects, new)
            .map_err(|error| Stop::reading(error, commit, Rule::MalformedTree))?
            .map_err(|detail| malformed(commit, path, &detail))?;
        let before = self.directories_of(old);
        let mut height = 0;
        for entry in entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::Directory)
        {
            let below = match path {
                "" => entry.name.clone(),
                _ => format!("{path}/{}", entry.name),
            };
            let old = before.get(&entry.name).copied();
            height = height.max(1 + self.check_directory(commit, old, entry.id, &below)?);
        }
        self.heights.insert(new, height);
        Ok(height)
    }

    /// The directories in the tree that was there before. It is only a short cut: a tree that cannot be read, or that breaks the
    /// rules, saves no work.
    fn directories_of(&self, tree: Option<ObjectId>) -> HashMap<String, ObjectId> {
        let Some(Ok(Ok(entries))) = tree.map(|id| read_tree(self.objects, id)) else {
            return HashMap::new();
        };
        entries
            .into_iter()
            .filter(|entry| entry.kind == EntryKind::Directory)
            .map(|entry| (entry.name, entry.id))
            .collect()
    }
}

/// The refusal of a commit whose directory `path` breaks a rule.
fn malformed(commit: ObjectId, path: &str, detail: &str) -> Refusal {
    let detail = match path {
        "" => format!("its root directory {detail}"),
        _ => format!("its directory '{path}' {detail}"),
    };
    Refusal::new(Rule::MalformedTree, detail)
        .of(commit)
        .about(if path.is_empty() { "." } else { path })
}

/// The entries of a tree, or what is wrong with it.
fn read_tree(
    objects: &dyn Objects,
    id: ObjectId,
) -> Result<Result<Vec<Entry>, String>, ObjectError> {
    let object = objects.get(&id)?;
    Ok(match object.kind {
        ObjectKind::Tree => parse(id, &object.data),
        other => Err(format!("is a {other}, not a tree")),
    })
}

/// What stands at `path` in the tree `root` of `commit`; only the directories on the way are looked at.
pub(super) fn find_entry(
    objects: &dyn Objects,
    commit: ObjectId,
    root: ObjectId,
    path: &str,
) -> Result<Option<Entry>, Stop> {
    let mut id = root;
    let mut directory = String::new();
    let mut names = path.split('/').peekable();
    while let Some(name) = names.next() {
        let entries = read_tree(objects, id)
            .map_err(|error| Stop::reading(error, commit, Rule::MalformedTree))?
            .map_err(|detail| malformed(commit, &directory, &detail))?;
        let found = entries.into_iter().find(|entry| entry.name == name);
        match found {
            Some(entry) if names.peek().is_none() => return Ok(Some(entry)),
            Some(entry) if entry.kind == EntryKind::Directory => id = entry.id,
            _ => return Ok(None),
        }
        directory = match directory.as_str() {
            "" => name.to_owned(),
            above => format!("{above}/{name}"),
        };
    }
    Ok(None)
}

/// The files below one directory of a revision.
pub(super) struct Files<'a> {
    objects: &'a dyn Objects,
    /// The revision's root.
    root: ObjectId,
    /// The directory that paths are relative to.
    base: String,
    /// Trees that were read before: files of one directory are asked for one by one.
    trees: RefCell<HashMap<ObjectId, Rc<Vec<Entry>>>>,
}

impl<'a> Files<'a> {
    /// The files below directory `base` of the tree `root`.
    pub(super) fn new(objects: &'a dyn Objects, root: ObjectId, base: &str) -> Self {
        Files {
            objects,
            root,
            base: base.to_owned(),
            trees: RefCell::default(),
        }
    }

    fn directory(&self, names: &[&str]) -> Result<Option<Rc<Vec<Entry>>>, ObjectError> {
        let mut entries = self.entries(self.root)?;
        for name in names {
            let next = find(&entries, name, EntryKind::Directory).map(|entry| entry.id);
            match next {
                Some(id) => entries = self.entries(id)?,
                None => return Ok(None),
            }
        }
        Ok(Some(entries))
    }

    fn entries(&self, id: ObjectId) -> Result<Rc<Vec<Entry>>, ObjectError> {
        if let Some(entries) = self.trees.borrow().get(&id) {
            return Ok(Rc::clone(entries));
        }
        let entries = read_tree(self.objects, id)?
            .map_err(|detail| ObjectError::Unavailable(format!("tree {id} {detail}")))?;
        let entries = Rc::new(entries);
        self.trees.borrow_mut().insert(id, Rc::clone(&entries));
        Ok(entries)
    }

    /// Adds the files that are others in the tree `after` than in `before`, which are both called `path`; false where more than the
    /// bytes of files differ.
    fn compare(
        &self,
        before: ObjectId,
        after: ObjectId,
        path: &str,
        changed: &mut Vec<ChangedFile>,
    ) -> Result<bool, ObjectError> {
        if before == after {
            return Ok(true);
        }
        let (old, new) = (self.entries(before)?, self.entries(after)?);
        let is_same = |(old, new): (&Entry, &Entry)| old.name == new.name && old.kind == new.kind;
        if old.len() != new.len() || !old.iter().zip(&*new).all(is_same) {
            return Ok(false);
        }
        for (old, new) in old.iter().zip(&*new).filter(|(old, new)| old.id != new.id) {
            let path = match path {
                "" => new.name.clone(),
                _ => format!("{path}/{}", new.name),
            };
            match new.kind {
                EntryKind::File => changed.push(ChangedFile {
                    path,
                    before: old.id,
                    after: new.id,
                }),
                EntryKind::Directory if self.compare(old.id, new.id, &path, changed)? => {}
                EntryKind::Directory | EntryKind::Symlink => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The id of the file at `path`.
    fn file(&self, path: &str) -> Result<Option<ObjectId>, ObjectError> {
        let Some(names) = self.names(path) else {
            return Ok(None);
        };
        let Some((name, parents)) = names.split_last() else {
            return Ok(None);
        };
        let entries = self.directory(parents)?;
        let entry = entries
            .as_deref()
            .and_then(|entries| find(entries, name, EntryKind::File));
        Ok(entry.map(|entry| entry.id))
    }

    /// The names of `path` from the revision's root; none when the path could leave it.
    fn names<'p>(&'p self, path: &'p str) -> Option<Vec<&'p str>> {
        let names: Vec<&str> = [self.base.as_str(), path]
            .into_iter()
            .filter(|part| !part.is_empty())
            .flat_map(|part| part.split('/'))
            .collect();
        let is_name = |name: &&str| problem_with(name.as_bytes()).is_none();
        (names.len() <= MAX_DEPTH + 1 && names.iter().all(is_name)).then_some(names)
    }
}

fn find<'e>(entries: &'e [Entry], name: &str, kind: EntryKind) -> Option<&'e Entry> {
    // They are in Git's order, or the tree would have been refused: a directory sorts as if its name ended in a slash.
    let position = entries
        .binary_search_by(|entry| order(&entry.name, entry.kind).cmp(order(name, kind)))
        .ok()?;
    Some(&entries[position]).filter(|entry| entry.kind == kind)
}

/// The bytes that Git sorts an entry by.
fn order(name: &str, kind: EntryKind) -> impl Iterator<Item = u8> {
    let slash = (kind == EntryKind::Directory).then_some(b'/');
    name.bytes().chain(slash)
}

impl Tree for Files<'_> {
    fn list(&self, path: &str) -> Result<Option<Vec<(String, EntryKind)>>, ObjectError> {
        let Some(names) = self.names(path) else {
            return Ok(None);
        };
        let Some(entries) = self.directory(&names)? else {
            return Ok(None);
        };
        let mut list: Vec<(String, EntryKind)> = entries
            .iter()
            .map(|entry| (entry.name.clone(), entry.kind))
            .collect();
        list.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(Some(list))
    }

    fn read(&self, path: &str) -> Result<Option<TreeFile>, ObjectError> {
        let Some(id) = self.file(path)? else {
            return Ok(None);
        };
        let object = self.objects.get(&id)?;
        if object.kind != ObjectKind::Blob {
            return Err(ObjectError::Unavailable(format!(
                "object {id} is a {}, not a file",
                object.kind
            )));
        }
        Ok(Some(TreeFile {
            data: object.data,
            id: Some(id),
        }))
    }

    fn kept(
        &self,
        path: &str,
        is_known: &dyn Fn(&ObjectId) -> bool,
    ) -> Result<Option<ObjectId>, ObjectError> {
        match self.file(path)?.filter(is_known) {
            Some(id) if self.objects.keeps(&id)? => Ok(Some(id)),
            _ => Ok(None),
        }
    }

    fn id(&self) -> Option<ObjectId> {
        let mut id = self.root;
        for name in self.names("")? {
            let entries = self.entries(id).ok()?;
            id = find(&entries, name, EntryKind::Directory)?.id;
        }
        Some(id)
    }

    fn changed_since(&self, before: &ObjectId) -> Result<Option<Vec<ChangedFile>>, ObjectError> {
        let mut changed = Vec::new();
        let is_all = match self.id() {
            Some(id) => self.compare(*before, id, "", &mut changed)?,
            None => false,
        };
        Ok(is_all.then_some(changed))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: ObjectId = ObjectId::null(gix::hash::Kind::Sha1);

    fn entry(mode: &str, name: &str) -> Vec<u8> {
        [format!("{mode} {name}\0").as_bytes(), &[7; 20]].concat()
    }

    #[test]
    fn names_that_no_file_system_should_meet_are_refused() {
        #[track_caller]
        fn check(name: &str, expected: Option<&str>) {
            assert_eq!(problem_with(name.as_bytes()), expected, "{name:?}");
        }
        let dot_git = Some("some file systems take for '.git'");
        for name in [
            ".git",
            ".GIT",
            ".gIt",
            ".git ",
            ".git...",
            ".git. .",
            ".git:stream",
            ".git\\x",
            "git~1",
            "GIT~1",
            "git~1 ",
            ".g\u{200c}it",
            "\u{feff}.git",
            ".G\u{206f}IT",
        ] {
            check(name, dot_git);
        }
        for name in [
            ".gitignore",
            ".gitmodules",
            "git",
            ".github",
            "x.git",
            "git~2",
            "...",
            ".gi",
            "größe",
            "a b",
            "-f",
        ] {
            check(name, None);
        }
        check(".", Some("leaves its directory"));
        check(&"x".repeat(255), None);
        check(&"x".repeat(256), Some("is longer than 255 bytes"));
    }

    #[test]
    fn entries_are_sorted_as_git_sorts_them() {
        let sorted = [
            entry("100644", "a.b"),
            entry("40000", "a"),
            entry("100644", "a0"),
        ]
        .concat();
        assert_eq!(parse(ID, &sorted).unwrap().len(), 3);
        let unsorted = [entry("40000", "a"), entry("100644", "a.b")].concat();
        insta::assert_snapshot!(parse(ID, &unsorted).unwrap_err(), @"is not sorted at 'a.b'");
        let apart = [
            entry("100644", "a"),
            entry("100644", "a.b"),
            entry("40000", "a"),
        ]
        .concat();
        insta::assert_snapshot!(parse(ID, &apart).unwrap_err(), @"has 'a' twice");
        insta::assert_snapshot!(parse(ID, &entry("160000", "a\nb")).unwrap_err(), @r#"has the submodule 'a\nb'"#);
        insta::assert_snapshot!(parse(ID, &entry("100755", ".GIT")).unwrap_err(), @"has the name '.GIT', which some file systems take for '.git'");
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes: Vec<u8>, name in ".{0,8}", mode in "[0-9]{5,6}") {
            let _ = parse(ID, &bytes);
            let _ = parse(ID, &entry(&mode, &name));
        }
    }
}
