//! The policies that trees carry, each read once, and the keys that they list.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::commit::Commit;
use super::fleet_policy::{FleetPolicy, POLICY_FILE};
use super::key::PublicKey;
use super::rule::{Refusal, Rule, Stop};
use super::tree::find_entry;
use super::{place_in_repository, read_commit};
use crate::document::Source;
use crate::git::{EntryKind, ObjectError, ObjectId, ObjectKind, Objects};

/// How much text of policies is read only to look for keys, before anybody signed for it, in bytes.
const MAX_LOOKED_THROUGH: u64 = 8 << 20;

/// How many commits are read only for that.
const MAX_COMMITS: usize = 20_000;

/// The policies of the trees that were asked for.
pub(super) struct Policies<'a> {
    objects: &'a dyn Objects,
    /// Where they stand in the repository.
    file: String,
    by_blob: RefCell<HashMap<ObjectId, Rc<FleetPolicy>>>,
    /// Which trees have which.
    carried: RefCell<HashMap<ObjectId, Option<ObjectId>>>,
    /// The trees of commits that were looked through for keys; none of what is not there.
    trees: RefCell<HashMap<ObjectId, Option<ObjectId>>>,
    /// What was looked through for keys, by blob, and how much text it was.
    keys: RefCell<HashMap<ObjectId, Rc<[PublicKey]>>>,
    looked_through: Cell<u64>,
}

impl<'a> Policies<'a> {
    /// Those of a fleet whose directory in the repository is `source_path`.
    pub(super) fn new(objects: &'a dyn Objects, source_path: &str) -> Self {
        Policies {
            objects,
            file: place_in_repository(source_path, POLICY_FILE),
            by_blob: RefCell::default(),
            carried: RefCell::default(),
            trees: RefCell::default(),
            keys: RefCell::default(),
            looked_through: Cell::default(),
        }
    }

    /// Where they stand in the repository.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// The policy that the tree of `commit` carries.
    pub(super) fn of(
        &self,
        commit: ObjectId,
        tree: ObjectId,
    ) -> Result<Option<Rc<FleetPolicy>>, Stop> {
        let Some(blob) = self.blob_of(commit, tree)? else {
            return Ok(None);
        };
        if let Some(policy) = self.by_blob.borrow().get(&blob) {
            return Ok(Some(Rc::clone(policy)));
        }
        let policy = Rc::new(self.parse(commit, self.read(commit, blob)?)?);
        self.by_blob.borrow_mut().insert(blob, Rc::clone(&policy));
        Ok(Some(policy))
    }

    fn invalid(&self, commit: ObjectId, detail: String) -> Refusal {
        Refusal::new(Rule::PolicyInvalid, detail)
            .of(commit)
            .about(self.file.as_str())
    }

    /// Which blob the tree of `commit` has as its policy.
    fn blob_of(&self, commit: ObjectId, tree: ObjectId) -> Result<Option<ObjectId>, Stop> {
        if let Some(blob) = self.carried.borrow().get(&tree) {
            return Ok(*blob);
        }
        let file = &self.file;
        let blob = match find_entry(self.objects, commit, tree, file)? {
            None => None,
            Some(entry) if entry.kind == EntryKind::File => Some(entry.id),
            Some(_) => {
                let detail = format!("its '{file}' is no file");
                return Err(self.invalid(commit, detail).into());
            }
        };
        self.carried.borrow_mut().insert(tree, blob);
        Ok(blob)
    }

    fn read(&self, commit: ObjectId, blob: ObjectId) -> Result<String, Stop> {
        let object = self
            .objects
            .get(&blob)
            .map_err(|error| Stop::reading(error, commit, Rule::PolicyInvalid))?;
        match (object.kind, String::from_utf8(object.data)) {
            (ObjectKind::Blob, Ok(text)) => Ok(text),
            _ => {
                let detail = format!("its '{}' is not UTF-8 text", self.file);
                Err(self.invalid(commit, detail).into())
            }
        }
    }

    fn parse(&self, commit: ObjectId, text: String) -> Result<FleetPolicy, Refusal> {
        let file = &self.file;
        FleetPolicy::parse(&Source::new(file.as_str(), text)).map_err(|mistakes| {
            let first = mistakes.first();
            let place = first.and_then(|mistake| mistake.place.as_ref());
            let place = place.map_or(file.clone(), |place| place.location().to_string());
            let cause = first.map_or("it cannot be read", |mistake| mistake.message.as_str());
            self.invalid(commit, format!("{place}: {cause}"))
        })
    }

    /// Do the two trees, which were asked for, carry different policies.
    pub(super) fn differ(&self, before: ObjectId, after: ObjectId) -> bool {
        let carried = self.carried.borrow();
        carried.get(&before) != carried.get(&after)
    }

    /// The keys that `commit` may be signed by: those that its parents list, and its own. What cannot be read lists none, nor does what is
    /// beyond the limits: nobody has signed for any of it yet.
    pub(super) fn keys_near(&self, commit: &Commit) -> Result<Vec<PublicKey>, Stop> {
        let mut keys = Vec::new();
        for parent in &commit.parents {
            keys.extend(self.keys_in(*parent)?);
        }
        keys.extend(self.keys_of(commit.id, commit.tree)?);
        Ok(keys)
    }

    /// The keys that the policy of the commit `id` lists.
    pub(super) fn keys_in(&self, id: ObjectId) -> Result<Vec<PublicKey>, Stop> {
        let known = self.trees.borrow().get(&id).copied();
        let tree = match known {
            Some(tree) => tree,
            None if self.trees.borrow().len() >= MAX_COMMITS => None,
            None => {
                let commit = if_there(read_commit(self.objects, id))?;
                let tree = commit.map(|commit| commit.tree);
                self.trees.borrow_mut().insert(id, tree);
                tree
            }
        };
        match tree {
            Some(tree) => self.keys_of(id, tree),
            None => Ok(Vec::new()),
        }
    }

    /// The keys that the policy of `tree` lists.
    pub(super) fn keys_of(&self, commit: ObjectId, tree: ObjectId) -> Result<Vec<PublicKey>, Stop> {
        let Some(blob) = if_there(self.blob_of(commit, tree))?.flatten() else {
            return Ok(Vec::new());
        };
        if let Some(keys) = self.keys.borrow().get(&blob) {
            return Ok(keys.to_vec());
        }
        if self.looked_through.get() >= MAX_LOOKED_THROUGH {
            return Ok(Vec::new());
        }
        let mut keys = Vec::new();
        if let Some(text) = if_there(self.read(commit, blob))? {
            let length = text.len() as u64;
            self.looked_through.set(self.looked_through.get() + length);
            if let Ok(policy) = self.parse(commit, text) {
                keys.extend(policy.keys.values().map(|named| named.key.clone()));
            }
        }
        // Also that there are none.
        self.keys.borrow_mut().insert(blob, keys.as_slice().into());
        Ok(keys)
    }
}

/// What was read; none where it breaks a rule, or is not there: whoever looks for keys looks elsewhere.
fn if_there<T>(read: Result<T, Stop>) -> Result<Option<T>, Stop> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(Stop::Refused(_) | Stop::Unavailable(ObjectError::Missing(_))) => Ok(None),
        Err(unavailable) => Err(unavailable),
    }
}
