//! A directory of a tree as a tree of its own: `source.path` of the host configuration.

use crate::git::{EntryKind, ObjectError, Tree, TreeFile};

/// The files of `tree` below one directory. Paths, and so the places in messages, count from there.
pub struct SubTree<'tree> {
    tree: &'tree dyn Tree,
    directory: String,
}

impl std::fmt::Debug for SubTree<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SubTree({:?})", self.directory)
    }
}

impl<'tree> SubTree<'tree> {
    /// What lies in `directory`; `""` is everything.
    pub fn new(tree: &'tree dyn Tree, directory: &str) -> Self {
        SubTree {
            tree,
            directory: directory.trim_matches('/').to_owned(),
        }
    }

    fn whole(&self, path: &str) -> String {
        match (self.directory.as_str(), path) {
            ("", path) => path.to_owned(),
            (directory, "") => directory.to_owned(),
            (directory, path) => format!("{directory}/{path}"),
        }
    }
}

impl Tree for SubTree<'_> {
    fn list(&self, path: &str) -> Result<Option<Vec<(String, EntryKind)>>, ObjectError> {
        self.tree.list(&self.whole(path))
    }

    fn read(&self, path: &str) -> Result<Option<TreeFile>, ObjectError> {
        self.tree.read(&self.whole(path))
    }
}
