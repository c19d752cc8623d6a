//! The policies that trees carry, each read once, and the keys that they list.

use std::cell::RefCell;
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

/// The policies of the trees that were asked for.
pub(super) struct Policies<'a> {
    objects: &'a dyn Objects,
    /// Where they stand in the repository.
    file: String,
    by_blob: RefCell<HashMap<ObjectId, Rc<FleetPolicy>>>,
    /// Which trees have which.
    carried: RefCell<HashMap<ObjectId, Option<ObjectId>>>,
}

impl<'a> Policies<'a> {
    /// Those of a fleet whose directory in the repository is `source_path`.
    pub(super) fn new(objects: &'a dyn Objects, source_path: &str) -> Self {
        Policies {
            objects,
            file: place_in_repository(source_path, POLICY_FILE),
            by_blob: RefCell::default(),
            carried: RefCell::default(),
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
        let file = &self.file;
        let invalid = |detail: String| {
            Refusal::new(Rule::PolicyInvalid, detail)
                .of(commit)
                .about(file.as_str())
        };
        let known = self.carried.borrow().get(&tree).copied();
        let blob = match known {
            Some(blob) => blob,
            None => {
                let entry = find_entry(self.objects, commit, tree, file)?;
                let blob = match entry {
                    None => None,
                    Some(entry) if entry.kind == EntryKind::File => Some(entry.id),
                    Some(_) => return Err(invalid(format!("its '{file}' is no file")).into()),
                };
                self.carried.borrow_mut().insert(tree, blob);
                blob
            }
        };
        let Some(blob) = blob else {
            return Ok(None);
        };
        if let Some(policy) = self.by_blob.borrow().get(&blob) {
            return Ok(Some(Rc::clone(policy)));
        }
        let object = self
            .objects
            .get(&blob)
            .map_err(|error| Stop::reading(error, commit, Rule::PolicyInvalid))?;
        let text = match (object.kind, String::from_utf8(object.data)) {
            (ObjectKind::Blob, Ok(text)) => text,
            _ => return Err(invalid(format!("its '{file}' is not UTF-8 text")).into()),
        };
        let policy = FleetPolicy::parse(&Source::new(file.as_str(), text)).map_err(|mistakes| {
            let first = mistakes.first();
            let place = first.and_then(|mistake| mistake.place.as_ref());
            let place = place.map_or(file.clone(), |place| place.location().to_string());
            let cause = first.map_or("it cannot be read", |mistake| mistake.message.as_str());
            invalid(format!("{place}: {cause}"))
        })?;
        let policy = Rc::new(policy);
        self.by_blob.borrow_mut().insert(blob, Rc::clone(&policy));
        Ok(Some(policy))
    }

    /// Do the two trees, which were asked for, carry different policies.
    pub(super) fn differ(&self, before: ObjectId, after: ObjectId) -> bool {
        let carried = self.carried.borrow();
        carried.get(&before) != carried.get(&after)
    }

    /// The keys that `commit` may be signed by: those that its parents list, and its own. What cannot be read lists none.
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
        let commit = if_there(read_commit(self.objects, id))?;
        match commit {
            Some(commit) => self.keys_of(id, commit.tree),
            None => Ok(Vec::new()),
        }
    }

    /// The keys that the policy of `tree` lists.
    pub(super) fn keys_of(&self, commit: ObjectId, tree: ObjectId) -> Result<Vec<PublicKey>, Stop> {
        let policy = if_there(self.of(commit, tree))?.flatten();
        let keys = policy.iter().flat_map(|policy| policy.keys.values());
        Ok(keys.map(|named| named.key.clone()).collect())
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
