//! What must change so that the paths are as declared: no I/O, no clock.
//!
//! What limpet set and no longer finds declared is *taken back*, but only while it is still what limpet set: what somebody changed
//! since is his.

use std::collections::{BTreeMap, BTreeSet};

use crate::kinds::file::{
    Access, Applied, DesiredPath, Edit, MAX_CONTENT_BYTES, ObservedPath, ObservedPaths, Original,
    PathChange, PathSpec,
};
use crate::kinds::kind::{Content, ContentSource, Owned, PlannedChange, Step};
use crate::model::{Action, Class, Failure, OnRemoval, Reason, ResourceId};
use crate::sys::files::{Attributes, Entry, split};

const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;
const ROOT: &str = "root";

type PathStep = Step<Original, PathChange>;

/// What the inventory remembers once `desired` is as declared.
pub fn applied(desired: &DesiredPath) -> Applied {
    match &desired.spec {
        PathSpec::File {
            content: Some(content),
            mode,
            owner,
            group,
            ..
        } => Applied::File {
            sha256: Some(content.sha256),
            mode: Some(mode.unwrap_or(FILE_MODE)),
            owner: Some(owner.clone().unwrap_or_else(|| ROOT.to_owned())),
            group: Some(group.clone().unwrap_or_else(|| ROOT.to_owned())),
        },
        PathSpec::File {
            content: None,
            mode,
            owner,
            group,
            ..
        } => Applied::File {
            sha256: None,
            mode: *mode,
            owner: owner.clone(),
            group: group.clone(),
        },
        PathSpec::Directory { mode, owner, group } => Applied::Directory {
            mode: *mode,
            owner: owner.clone(),
            group: group.clone(),
        },
        PathSpec::Symlink { target } => Applied::Symlink {
            target: target.clone(),
        },
        PathSpec::Absent => Applied::Absent,
    }
}

/// Does `path` lie below the directory `above`.
pub(super) fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above.trim_end_matches('/'))
        .is_some_and(|rest| rest.starts_with('/') && rest.len() > 1)
}

pub(super) fn plan(
    desired: &[DesiredPath],
    observed: &ObservedPaths,
    owned: &[Owned<Original>],
) -> Vec<PathStep> {
    let mut blocked: Vec<Failure> = Vec::new();
    let mut known: BTreeMap<&str, Known<'_>> = BTreeMap::new();
    for item in owned {
        match serde_json::from_value(item.applied.clone()) {
            Ok(applied) => {
                known.insert(&item.key, Known { item, applied });
            }
            Err(error) => blocked.push(
                Failure::new(
                    Class::Bug,
                    format!(
                        "failed to read the inventory entry of '{}': {error}",
                        item.key
                    ),
                )
                .about(item.id.clone()),
            ),
        }
    }
    let planner = Planner {
        desired: desired
            .iter()
            .map(|item| (item.path.as_str(), item))
            .collect(),
        observed,
        known,
    };

    let mut changes: Vec<PlannedChange<Original, PathChange>> = Vec::new();
    let mut parents: BTreeMap<&str, &DesiredPath> = BTreeMap::new();
    let mut places: BTreeMap<&str, &DesiredPath> = BTreeMap::new();
    for item in planner.desired.values().copied() {
        let result = planner.observed(&item.path).and_then(|seen| {
            planner.check_place(item, seen, &mut places)?;
            Ok((seen, planner.desired_change(item, seen)?))
        });
        match result {
            Ok((_, None)) => {}
            Ok((seen, Some(change))) => {
                for parent in &seen.look.missing_parents {
                    // A path that is only looked at makes no directory, unless another one needs it too.
                    let child = parents.entry(parent).or_insert(item);
                    if child.report && !item.report {
                        *child = item;
                    }
                }
                changes.push(change);
            }
            Err(failure) => blocked.push(failure.about(item.id.clone())),
        }
    }
    changes.extend(
        parents
            .into_iter()
            .filter(|(parent, _)| !planner.desired.contains_key(parent))
            .map(|(parent, child)| planner.parent_change(parent, child)),
    );

    let mut released: Vec<PathStep> = Vec::new();
    let mut going: BTreeSet<&str> = BTreeSet::new();
    // Deepest first, so that a directory knows which of its children go.
    for (path, known) in planner.known.iter().rev() {
        if planner.desired.contains_key(path) {
            continue;
        }
        match planner
            .observed(path)
            .and_then(|seen| planner.removal(known, seen, &going))
        {
            Ok(Removal::Change(change)) => {
                if matches!(
                    change.change.edit,
                    Edit::RemoveFile { .. } | Edit::RemoveDirectory
                ) {
                    going.insert(path);
                }
                changes.push(change);
            }
            Ok(Removal::Release) => released.push(Step::Release {
                id: known.item.id.clone(),
                key: known.item.key.clone(),
            }),
            Ok(Removal::Wait) => {}
            Err(failure) => blocked.push(failure.about(known.item.id.clone())),
        }
    }

    let mut steps: Vec<PathStep> = in_order(changes).into_iter().map(Step::Change).collect();
    steps.extend(released);
    steps.extend(blocked.into_iter().map(Step::Blocked));
    steps
}

/// Directories before what is in them, and what is deleted at the end, deepest first; only what lies in a directory that makes room
/// for something else goes before everything.
fn in_order(
    mut changes: Vec<PlannedChange<Original, PathChange>>,
) -> Vec<PlannedChange<Original, PathChange>> {
    let making_room: Vec<String> = changes
        .iter()
        .filter(|change| {
            matches!(
                change.change.edit,
                Edit::WriteFile { replace: true, .. } | Edit::MakeLink { replace: true, .. }
            )
        })
        .map(|change| change.key.clone())
        .collect();
    let rank = |change: &PlannedChange<Original, PathChange>| match change.change.edit {
        Edit::RemoveFile { .. } | Edit::RemoveDirectory => {
            if making_room.iter().any(|above| is_below(&change.key, above)) {
                0
            } else {
                3
            }
        }
        Edit::MakeDirectory { .. } => 1,
        Edit::WriteFile { .. } | Edit::MakeLink { .. } | Edit::SetAccess { .. } => 2,
    };
    changes.sort_by(|one, other| {
        let ranks = (rank(one), rank(other));
        ranks.0.cmp(&ranks.1).then_with(|| match ranks.0 {
            1 | 2 => one.key.cmp(&other.key),
            _ => other.key.cmp(&one.key),
        })
    });
    changes
}

/// An owned path with its inventory entry understood.
struct Known<'a> {
    item: &'a Owned<Original>,
    applied: Applied,
}

enum Removal {
    Change(PlannedChange<Original, PathChange>),
    /// Nothing is left to do: it is not ours any more.
    Release,
    /// It stays ours: something else is in the directory, or needs it.
    Wait,
}

/// What permissions and owner should be, where they matter.
#[derive(Debug, Clone, Default)]
struct Wish {
    mode: Option<u32>,
    owner: Option<String>,
    group: Option<String>,
}

impl Wish {
    fn exactly(attributes: Attributes) -> Self {
        Wish {
            mode: Some(attributes.mode),
            owner: Some(attributes.uid.to_string()),
            group: Some(attributes.gid.to_string()),
        }
    }

    fn access(self, mode: u32) -> Access {
        Access {
            mode: self.mode.unwrap_or(mode),
            owner: self.owner.unwrap_or_else(|| ROOT.to_owned()),
            group: self.group.unwrap_or_else(|| ROOT.to_owned()),
        }
    }

    fn edit(self) -> Edit {
        Edit::SetAccess {
            mode: self.mode,
            owner: self.owner,
            group: self.group,
        }
    }
}

struct Planner<'a> {
    desired: BTreeMap<&'a str, &'a DesiredPath>,
    observed: &'a ObservedPaths,
    known: BTreeMap<&'a str, Known<'a>>,
}

impl<'a> Planner<'a> {
    fn observed(&self, path: &str) -> Result<&'a ObservedPath, Failure> {
        match self.observed.paths.get(path) {
            Some(Ok(seen)) => Ok(seen),
            Some(Err(failure)) => Err(failure.clone()),
            None => Err(Failure::new(
                Class::Bug,
                format!("failed to plan '{path}': it was not looked at"),
            )),
        }
    }

    /// Refuses what two declarations or a path's place in the tree make impossible.
    fn check_place(
        &self,
        item: &'a DesiredPath,
        seen: &'a ObservedPath,
        places: &mut BTreeMap<&'a str, &'a DesiredPath>,
    ) -> Result<(), Failure> {
        if item.path == "/" {
            return Err(Failure::new(
                Class::Author,
                "the root directory cannot be managed",
            ));
        }
        if let Some(other) = places.insert(&seen.look.physical, item) {
            return Err(Failure::new(
                Class::Author,
                format!(
                    "{} and {} are one path on this host: '{}'",
                    other.id, item.id, seen.look.physical
                ),
            )
            .with_hint("a directory on the way is a symbolic link; declare the path once"));
        }
        let mut above = split(&item.path).0;
        while above != "/" {
            match self
                .desired
                .get(above)
                .map(|other| (&other.spec, &other.id))
            {
                Some((PathSpec::File { .. } | PathSpec::Absent, id)) => {
                    return Err(Failure::new(
                        Class::Author,
                        format!(
                            "{} lies below {id}, which is declared to be no directory",
                            item.id
                        ),
                    ));
                }
                Some((PathSpec::Symlink { .. }, id))
                    if seen
                        .look
                        .missing_parents
                        .iter()
                        .any(|missing| missing == above) =>
                {
                    return Err(Failure::new(
                        Class::Author,
                        format!("{} lies below {id}, which does not exist yet", item.id),
                    )
                    .with_hint("declare it below the link's target"));
                }
                _ => {}
            }
            above = split(above).0;
        }
        Ok(())
    }

    fn desired_change(
        &self,
        item: &DesiredPath,
        seen: &ObservedPath,
    ) -> Result<Option<PlannedChange<Original, PathChange>>, Failure> {
        match &item.spec {
            PathSpec::File {
                content: Some(content),
                mode,
                owner,
                group,
                validate,
            } => {
                let wish = Wish {
                    mode: Some(mode.unwrap_or(FILE_MODE)),
                    owner: Some(owner.clone().unwrap_or_else(|| ROOT.to_owned())),
                    group: Some(group.clone().unwrap_or_else(|| ROOT.to_owned())),
                };
                self.file_change(item, seen, content, wish, validate)
            }
            PathSpec::File {
                content: None,
                mode,
                owner,
                group,
                ..
            } => {
                let wish = Wish {
                    mode: *mode,
                    owner: owner.clone(),
                    group: group.clone(),
                };
                self.bare_file_change(item, seen, wish)
            }
            PathSpec::Directory { mode, owner, group } => {
                let wish = Wish {
                    mode: *mode,
                    owner: owner.clone(),
                    group: group.clone(),
                };
                self.directory_change(item, seen, wish)
            }
            PathSpec::Symlink { target } => self.link_change(item, seen, target),
            PathSpec::Absent => self.absence_change(item, seen),
        }
    }

    fn file_change(
        &self,
        item: &DesiredPath,
        seen: &ObservedPath,
        content: &Content,
        wish: Wish,
        validate: &Option<Vec<String>>,
    ) -> Result<Option<PlannedChange<Original, PathChange>>, Failure> {
        let write = |wish: Wish, replace| Edit::WriteFile {
            content: content.clone(),
            access: wish.access(FILE_MODE),
            validate: validate.clone(),
            replace,
        };
        let (edit, reason, fields) = match &seen.look.entry {
            Entry::Absent => (write(wish, false), Reason::Missing, Vec::new()),
            Entry::File {
                size,
                links,
                attributes,
                sha256,
            } => {
                let differs = *size != content.size || *sha256 != Some(content.sha256);
                let mut fields = self.differences(attributes, &wish);
                if differs {
                    fields.insert(0, "content".to_owned());
                }
                if fields.is_empty() {
                    return Ok(None);
                }
                check_links(item, *links)?;
                if differs {
                    self.check_size(item, *size)?;
                    (write(wish, false), Reason::Differs, fields)
                } else {
                    (
                        self.narrowed(attributes, wish).edit(),
                        Reason::Differs,
                        fields,
                    )
                }
            }
            Entry::Symlink(_) => (write(wish, false), Reason::Differs, vec!["type".to_owned()]),
            entry @ Entry::Directory(_) if self.is_ours(&item.path, entry) => {
                (write(wish, true), Reason::Differs, vec!["type".to_owned()])
            }
            entry => return Err(wrong_type(item, entry)),
        };
        Ok(Some(self.change(item, seen, edit, reason, fields)))
    }

    /// A file of which only permissions and owner are declared.
    fn bare_file_change(
        &self,
        item: &DesiredPath,
        seen: &ObservedPath,
        wish: Wish,
    ) -> Result<Option<PlannedChange<Original, PathChange>>, Failure> {
        let (links, attributes) = match &seen.look.entry {
            Entry::File {
                links, attributes, ..
            } => (*links, attributes),
            Entry::Absent => {
                return Err(Failure::new(
                    Class::Author,
                    format!("failed to manage mode and owner of {}: there is no such file, and no content is declared", item.id),
                )
                .with_hint("give it content or a source, or say with needs = [\"package:…\"] what brings it"));
            }
            entry => return Err(wrong_type(item, entry)),
        };
        let known = self.known.get(item.path.as_str());
        if let Some(known) = known
            && let Some(change) = self.content_taken_back(item, seen, known, &wish)
        {
            check_links(item, links)?;
            return Ok(Some(change));
        }
        let wish = self.with_taken_back(wish, known, attributes);
        let fields = self.differences(attributes, &wish);
        if fields.is_empty() {
            return Ok(None);
        }
        check_links(item, links)?;
        let edit = self.narrowed(attributes, wish).edit();
        Ok(Some(self.change(item, seen, edit, Reason::Differs, fields)))
    }

    /// The old bytes of a file whose content was declared before, and is as it was applied.
    fn content_taken_back(
        &self,
        item: &DesiredPath,
        seen: &ObservedPath,
        known: &Known<'_>,
        wish: &Wish,
    ) -> Option<PlannedChange<Original, PathChange>> {
        let Applied::File {
            sha256: Some(written),
            ..
        } = &known.applied
        else {
            return None;
        };
        let Original::File {
            sha256,
            size,
            mode,
            uid,
            gid,
        } = known.item.original
        else {
            return None;
        };
        let Entry::File {
            sha256: Some(found),
            attributes,
            ..
        } = &seen.look.entry
        else {
            return None;
        };
        if found != written || *found == sha256 {
            return None;
        }
        let old = Wish::exactly(Attributes { mode, uid, gid });
        let wish = Wish {
            mode: wish.mode.or(old.mode),
            owner: wish.owner.clone().or(old.owner),
            group: wish.group.clone().or(old.group),
        };
        let mut fields = self.differences(attributes, &wish);
        fields.insert(0, "content".to_owned());
        let edit = Edit::WriteFile {
            content: Content {
                sha256,
                size,
                source: ContentSource::Original,
            },
            access: wish.access(FILE_MODE),
            validate: None,
            replace: false,
        };
        let mut change = self.change(item, seen, edit, Reason::Undeclared, fields);
        change.action = Action::Restore;
        Some(change)
    }

    fn directory_change(
        &self,
        item: &DesiredPath,
        seen: &ObservedPath,
        wish: Wish,
    ) -> Result<Option<PlannedChange<Original, PathChange>>, Failure> {
        let make = |wish: Wish, replace| Edit::MakeDirectory {
            access: wish.access(DIRECTORY_MODE),
            replace,
        };
        let (edit, reason, fields) = match &seen.look.entry {
            Entry::Absent => (make(wish, false), Reason::Missing, Vec::new()),
            Entry::Directory(attributes) => {
                let wish =
                    self.with_taken_back(wish, self.known.get(item.path.as_str()), attributes);
                let fields = self.differences(attributes, &wish);
                if fields.is_empty() {
                    return Ok(None);
                }
                (
                    self.narrowed(attributes, wish).edit(),
                    Reason::Differs,
                    fields,
                )
            }
            entry if self.is_ours(&item.path, entry) => {
                (make(wish, true), Reason::Differs, vec!["type".to_owned()])
            }
            entry => return Err(wrong_type(item, entry)),
        };
        Ok(Some(self.change(item, seen, edit, reason, fields)))
    }

    fn link_change(
        &self,
        item: &DesiredPath,
        seen: &ObservedPath,
        target: &str,
    ) -> Result<Option<PlannedChange<Original, PathChange>>, Failure> {
        let make = |replace| Edit::MakeLink {
            target: target.to_owned(),
            replace,
        };
        let (edit, reason, fields) = match &seen.look.entry {
            Entry::Absent => (make(false), Reason::Missing, Vec::new()),
            Entry::Symlink(found) if found == target => return Ok(None),
            Entry::Symlink(_) => (make(false), Reason::Differs, vec!["target".to_owned()]),
            Entry::File { links, size, .. } => {
                check_links(item, *links)?;
                self.check_size(item, *size)?;
                (make(false), Reason::Differs, vec!["type".to_owned()])
            }
            entry @ Entry::Directory(_) if self.is_ours(&item.path, entry) => {
                (make(true), Reason::Differs, vec!["type".to_owned()])
            }
            entry => return Err(wrong_type(item, entry)),
        };
        Ok(Some(self.change(item, seen, edit, reason, fields)))
    }

    fn absence_change(
        &self,
        item: &DesiredPath,
        seen: &ObservedPath,
    ) -> Result<Option<PlannedChange<Original, PathChange>>, Failure> {
        let edit = match &seen.look.entry {
            Entry::Absent => return Ok(None),
            Entry::File { size, .. } => {
                self.check_size(item, *size)?;
                Edit::RemoveFile { expected: None }
            }
            Entry::Symlink(_) => Edit::RemoveFile { expected: None },
            Entry::Directory(_) => {
                if let Some(child) = seen.children.iter().min() {
                    return Err(Failure::new(
                        Class::Host,
                        format!(
                            "refused to delete {}: it is not empty, it contains '{child}'",
                            item.id
                        ),
                    )
                    .with_hint("declare what is in it absent too, or delete it by hand"));
                }
                Edit::RemoveDirectory
            }
            entry => return Err(wrong_type(item, entry)),
        };
        let mut change = self.change(item, seen, edit, Reason::Differs, Vec::new());
        change.action = Action::Delete;
        change.removes = true;
        Ok(Some(change))
    }

    fn parent_change(
        &self,
        path: &str,
        child: &DesiredPath,
    ) -> PlannedChange<Original, PathChange> {
        let id = child.id.clone();
        PlannedChange {
            id: id.clone(),
            key: path.to_owned(),
            action: Action::Create,
            reason: Reason::Missing,
            fields: Vec::new(),
            original: self
                .known
                .get(path)
                .map_or(Original::Absent, |known| known.item.original.clone()),
            removes: false,
            change: PathChange {
                id,
                path: path.to_owned(),
                edit: Edit::MakeDirectory {
                    access: Wish::default().access(DIRECTORY_MODE),
                    replace: false,
                },
                applied: Some(Applied::Parent),
            },
        }
    }

    fn change(
        &self,
        item: &DesiredPath,
        seen: &ObservedPath,
        edit: Edit,
        reason: Reason,
        fields: Vec<String>,
    ) -> PlannedChange<Original, PathChange> {
        PlannedChange {
            id: item.id.clone(),
            key: item.path.clone(),
            action: if reason == Reason::Missing {
                Action::Create
            } else {
                Action::Update
            },
            reason,
            fields,
            original: self.known.get(item.path.as_str()).map_or_else(
                || original_of(&seen.look.entry),
                |known| known.item.original.clone(),
            ),
            removes: false,
            change: PathChange {
                id: item.id.clone(),
                path: item.path.clone(),
                edit,
                applied: Some(applied(item)),
            },
        }
    }

    /// Which of the wished properties are not so. A user or group that does not exist (yet) is one that is not so.
    fn differences(&self, found: &Attributes, wish: &Wish) -> Vec<String> {
        let mut fields = Vec::new();
        if wish.mode.is_some_and(|mode| mode != found.mode) {
            fields.push("mode".to_owned());
        }
        if wish
            .owner
            .as_ref()
            .is_some_and(|owner| !self.is_user(owner, found.uid))
        {
            fields.push("owner".to_owned());
        }
        if wish
            .group
            .as_ref()
            .is_some_and(|group| !self.is_group(group, found.gid))
        {
            fields.push("group".to_owned());
        }
        fields
    }

    /// The wish without what is already so.
    fn narrowed(&self, found: &Attributes, wish: Wish) -> Wish {
        Wish {
            mode: wish.mode.filter(|mode| *mode != found.mode),
            owner: wish.owner.filter(|owner| !self.is_user(owner, found.uid)),
            group: wish.group.filter(|group| !self.is_group(group, found.gid)),
        }
    }

    fn is_user(&self, name: &str, uid: u32) -> bool {
        self.observed
            .users
            .get(name)
            .copied()
            .or_else(|| name.parse().ok())
            == Some(uid)
    }

    fn is_group(&self, name: &str, gid: u32) -> bool {
        self.observed
            .groups
            .get(name)
            .copied()
            .or_else(|| name.parse().ok())
            == Some(gid)
    }

    /// The wish, and for each property that was applied, is as applied, and is wished no more: what it was before.
    fn with_taken_back(&self, wish: Wish, known: Option<&Known<'_>>, found: &Attributes) -> Wish {
        let Some(known) = known else { return wish };
        let (mode, owner, group) = match &known.applied {
            Applied::File {
                mode, owner, group, ..
            }
            | Applied::Directory { mode, owner, group } => (mode, owner, group),
            Applied::Symlink { .. } | Applied::Parent | Applied::Absent => return wish,
        };
        let before = match (&known.item.original, &known.applied) {
            (
                Original::File { mode, uid, gid, .. }
                | Original::Directory { mode, uid, gid }
                | Original::AttributesOnly { mode, uid, gid },
                _,
            ) => Wish::exactly(Attributes {
                mode: *mode,
                uid: *uid,
                gid: *gid,
            }),
            (Original::Absent, Applied::Directory { .. }) => Wish {
                mode: Some(DIRECTORY_MODE),
                owner: Some(ROOT.to_owned()),
                group: Some(ROOT.to_owned()),
            },
            (Original::Absent | Original::Symlink { .. }, _) => return wish,
        };
        let is_mode = mode.is_some_and(|mode| mode == found.mode);
        let is_owner = owner
            .as_ref()
            .is_some_and(|owner| self.is_user(owner, found.uid));
        let is_group = group
            .as_ref()
            .is_some_and(|group| self.is_group(group, found.gid));
        Wish {
            mode: wish.mode.or(before.mode.filter(|_| is_mode)),
            owner: wish.owner.or(before.owner.filter(|_| is_owner)),
            group: wish.group.or(before.group.filter(|_| is_group)),
        }
    }

    /// Is at the path what limpet put there, unchanged. A directory is ours when we made it.
    fn is_ours(&self, path: &str, entry: &Entry) -> bool {
        let Some(known) = self.known.get(path) else {
            return false;
        };
        match (&known.applied, entry) {
            (
                Applied::File {
                    sha256: Some(written),
                    ..
                },
                Entry::File { sha256, .. },
            ) => *sha256 == Some(*written),
            (Applied::Symlink { target }, Entry::Symlink(found)) => target == found,
            (Applied::Directory { .. } | Applied::Parent, Entry::Directory(_)) => {
                !matches!(known.item.original, Original::Directory { .. })
            }
            (Applied::Absent, Entry::Absent) => true,
            _ => false,
        }
    }

    /// What is larger cannot be kept for the day it is wanted back; what we wrote ourselves need not be.
    fn check_size(&self, item: &DesiredPath, size: u64) -> Result<(), Failure> {
        if size <= MAX_CONTENT_BYTES || self.known.contains_key(item.path.as_str()) {
            return Ok(());
        }
        Err(Failure::new(
            Class::Host,
            format!(
                "refused to replace {}: the file there has {} MiB, and limpet keeps copies only up to {} MiB",
                item.id,
                size >> 20,
                MAX_CONTENT_BYTES >> 20
            ),
        )
        .with_hint("move it away by hand"))
    }

    fn removal(
        &self,
        known: &Known<'_>,
        seen: &ObservedPath,
        going: &BTreeSet<&str>,
    ) -> Result<Removal, Failure> {
        if known.item.on_removal == OnRemoval::Keep {
            return Ok(Removal::Release);
        }
        match &known.applied {
            Applied::Parent | Applied::Directory { .. } => {
                Ok(self.directory_removal(known, seen, going))
            }
            Applied::File { sha256: None, .. } => Ok(self.bare_file_removal(known, seen)),
            Applied::File { .. } | Applied::Symlink { .. } | Applied::Absent => {
                self.file_removal(known, seen)
            }
        }
    }

    fn directory_removal(
        &self,
        known: &Known<'_>,
        seen: &ObservedPath,
        going: &BTreeSet<&str>,
    ) -> Removal {
        let path = known.item.key.as_str();
        let needed = self.desired.keys().any(|desired| is_below(desired, path));
        let attributes = match &seen.look.entry {
            Entry::Directory(attributes) => attributes,
            Entry::Absent if needed => return Removal::Wait,
            // Gone, or replaced by somebody: not what we made.
            _ => return Removal::Release,
        };
        let was_there = matches!(known.item.original, Original::Directory { .. });
        let goes = !was_there || known.item.on_removal == OnRemoval::Delete;
        if needed || !goes {
            let wish = self.with_taken_back(Wish::default(), Some(known), attributes);
            let fields = self.differences(attributes, &wish);
            return match (fields.is_empty(), needed && !was_there) {
                (true, true) => Removal::Wait,
                (true, false) => Removal::Release,
                (false, stays_ours) => {
                    let edit = self.narrowed(attributes, wish).edit();
                    let mut change = undeclared(known, Action::Restore, edit, fields);
                    change.change.applied = stays_ours.then_some(Applied::Parent);
                    Removal::Change(change)
                }
            };
        }
        let stays = |child: &String| !going.contains(crate::sys::files::join(path, child).as_str());
        if seen.children.iter().any(stays) {
            return Removal::Wait;
        }
        let mut change = match &known.item.original {
            Original::File {
                sha256,
                size,
                mode,
                uid,
                gid,
            } if known.item.on_removal == OnRemoval::Restore => {
                let attributes = Attributes {
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                };
                let edit = restored_file(*sha256, *size, attributes, true);
                undeclared(known, Action::Restore, edit, vec!["type".to_owned()])
            }
            Original::Symlink { target } if known.item.on_removal == OnRemoval::Restore => {
                let edit = Edit::MakeLink {
                    target: target.clone(),
                    replace: true,
                };
                undeclared(known, Action::Restore, edit, vec!["type".to_owned()])
            }
            _ => undeclared(known, Action::Delete, Edit::RemoveDirectory, Vec::new()),
        };
        // An empty directory that nobody declared is no loss.
        change.removes = change.action == Action::Delete && known.applied != Applied::Parent;
        Removal::Change(change)
    }

    /// A file of which we managed only permissions and owner.
    fn bare_file_removal(&self, known: &Known<'_>, seen: &ObservedPath) -> Removal {
        let Entry::File {
            links: 1,
            attributes,
            ..
        } = &seen.look.entry
        else {
            return Removal::Release;
        };
        if known.item.on_removal == OnRemoval::Delete {
            let edit = Edit::RemoveFile { expected: None };
            let mut change = undeclared(known, Action::Delete, edit, Vec::new());
            change.removes = true;
            return Removal::Change(change);
        }
        let wish = self.with_taken_back(Wish::default(), Some(known), attributes);
        let fields = self.differences(attributes, &wish);
        if fields.is_empty() {
            return Removal::Release;
        }
        let edit = self.narrowed(attributes, wish).edit();
        Removal::Change(undeclared(known, Action::Restore, edit, fields))
    }

    /// A file or link that we wrote, or the absence of one.
    fn file_removal(&self, known: &Known<'_>, seen: &ObservedPath) -> Result<Removal, Failure> {
        let entry = &seen.look.entry;
        let target = match known.item.on_removal {
            OnRemoval::Delete => &Original::Absent,
            OnRemoval::Restore | OnRemoval::Keep => &known.item.original,
        };
        // Where its directory is gone there is no place to put anything back.
        if is_already(entry, target) || !seen.look.missing_parents.is_empty() {
            return Ok(Removal::Release);
        }
        if *entry != Entry::Absent && !self.is_ours(&known.item.key, entry) {
            return Err(Failure::new(
                Class::Host,
                format!("kept '{}', which is no longer declared: it was changed since limpet wrote it", known.item.key),
            )
            .with_hint("if it is not needed delete it by hand; else declare it again, or move it away and back once limpet has let go"));
        }
        let replaced = if *entry == Entry::Absent {
            Vec::new()
        } else {
            vec!["content".to_owned()]
        };
        Ok(Removal::Change(match target {
            Original::Absent => {
                let expected = match &known.applied {
                    Applied::File { sha256, .. } => *sha256,
                    _ => None,
                };
                let mut change = undeclared(
                    known,
                    Action::Delete,
                    Edit::RemoveFile { expected },
                    Vec::new(),
                );
                change.removes = true;
                change
            }
            Original::File {
                sha256,
                size,
                mode,
                uid,
                gid,
            } => {
                let attributes = Attributes {
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                };
                match entry {
                    Entry::File {
                        sha256: Some(found),
                        attributes: now,
                        ..
                    } if found == sha256 => {
                        let wish = Wish::exactly(attributes);
                        let fields = self.differences(now, &wish);
                        undeclared(
                            known,
                            Action::Restore,
                            self.narrowed(now, wish).edit(),
                            fields,
                        )
                    }
                    _ => {
                        let edit = restored_file(*sha256, *size, attributes, false);
                        undeclared(known, Action::Restore, edit, replaced)
                    }
                }
            }
            Original::Symlink { target } => {
                let edit = Edit::MakeLink {
                    target: target.clone(),
                    replace: false,
                };
                undeclared(known, Action::Restore, edit, replaced)
            }
            Original::Directory { mode, uid, gid } => {
                let access = Wish::exactly(Attributes {
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                })
                .access(DIRECTORY_MODE);
                let edit = Edit::MakeDirectory {
                    access,
                    replace: *entry != Entry::Absent,
                };
                undeclared(known, Action::Restore, edit, replaced)
            }
            Original::AttributesOnly { mode, uid, gid } => {
                let Entry::File {
                    attributes: now, ..
                } = entry
                else {
                    return Ok(Removal::Release);
                };
                let wish = Wish::exactly(Attributes {
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                });
                let fields = self.differences(now, &wish);
                if fields.is_empty() {
                    return Ok(Removal::Release);
                }
                undeclared(
                    known,
                    Action::Restore,
                    self.narrowed(now, wish).edit(),
                    fields,
                )
            }
        }))
    }
}

fn restored_file(sha256: [u8; 32], size: u64, attributes: Attributes, replace: bool) -> Edit {
    Edit::WriteFile {
        content: Content {
            sha256,
            size,
            source: ContentSource::Original,
        },
        access: Wish::exactly(attributes).access(FILE_MODE),
        validate: None,
        replace,
    }
}

fn undeclared(
    known: &Known<'_>,
    action: Action,
    edit: Edit,
    fields: Vec<String>,
) -> PlannedChange<Original, PathChange> {
    let id: ResourceId = known.item.id.clone();
    PlannedChange {
        id: id.clone(),
        key: known.item.key.clone(),
        action,
        reason: Reason::Undeclared,
        fields,
        original: known.item.original.clone(),
        removes: false,
        change: PathChange {
            id,
            path: known.item.key.clone(),
            edit,
            applied: None,
        },
    }
}

/// Is the path as it was before limpet.
fn is_already(entry: &Entry, original: &Original) -> bool {
    match (entry, original) {
        (Entry::Absent, Original::Absent) => true,
        (Entry::Symlink(found), Original::Symlink { target }) => found == target,
        (
            Entry::File {
                attributes,
                sha256: Some(found),
                ..
            },
            Original::File {
                sha256,
                mode,
                uid,
                gid,
                ..
            },
        ) => {
            found == sha256
                && *attributes
                    == Attributes {
                        mode: *mode,
                        uid: *uid,
                        gid: *gid,
                    }
        }
        (Entry::Directory(_), Original::Directory { .. }) => true,
        _ => false,
    }
}

fn original_of(entry: &Entry) -> Original {
    match entry {
        Entry::Absent | Entry::Special(_) => Original::Absent,
        Entry::File {
            size,
            attributes: Attributes { mode, uid, gid },
            sha256,
            ..
        } => match sha256 {
            Some(sha256) => Original::File {
                sha256: *sha256,
                size: *size,
                mode: *mode,
                uid: *uid,
                gid: *gid,
            },
            None => Original::AttributesOnly {
                mode: *mode,
                uid: *uid,
                gid: *gid,
            },
        },
        Entry::Directory(Attributes { mode, uid, gid }) => Original::Directory {
            mode: *mode,
            uid: *uid,
            gid: *gid,
        },
        Entry::Symlink(target) => Original::Symlink {
            target: target.clone(),
        },
    }
}

fn check_links(item: &DesiredPath, links: u64) -> Result<(), Failure> {
    if links <= 1 {
        return Ok(());
    }
    Err(Failure::new(
        Class::Host,
        format!(
            "refused to change {}: the file has {links} names (hard links)",
            item.id
        ),
    )
    .with_hint(format!(
        "find the others with: find / -xdev -samefile '{}'",
        item.path
    )))
}

fn wrong_type(item: &DesiredPath, entry: &Entry) -> Failure {
    let found = match entry {
        Entry::Absent => "nothing",
        Entry::File { .. } => "a file",
        Entry::Directory(_) => "a directory",
        Entry::Symlink(_) => "a symbolic link",
        Entry::Special(what) => what,
    };
    let hint = match (entry, &item.spec) {
        (Entry::Symlink(target), _) => {
            format!("declare the path it leads to ('{target}'), or remove the link by hand")
        }
        (_, PathSpec::Absent) => "delete it by hand".to_owned(),
        _ => "move it away by hand, or declare another path".to_owned(),
    };
    Failure::new(
        Class::Host,
        format!("refused to replace {}: there is {found}", item.id),
    )
    .with_hint(hint)
}
