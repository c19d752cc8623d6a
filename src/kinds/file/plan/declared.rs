//! What is declared.

use std::collections::BTreeMap;

use crate::kinds::file::plan::access::Wish;
use crate::kinds::file::plan::{
    DIRECTORY_MODE, FILE_MODE, Known, Planner, applied_after, usual_group,
};
use crate::kinds::file::{
    Access, Applied, DesiredPath, Edit, MAX_CONTENT_BYTES, ObservedPath, Original, PathChange,
    PathSpec,
};
use crate::kinds::kind::{Content, ContentSource, PlannedChange};
use crate::model::{Action, Class, Failure, Name, Reason};
use crate::sys::files::{Attributes, Entry};
use crate::sys::xattrs::Xattrs;

impl<'a> Planner<'a> {
    /// Refuses a path that its own declaration or one above it makes impossible, whatever the host looks like.
    pub(super) fn check_path(&self, item: &'a DesiredPath) -> Result<(), Failure> {
        if item.path == "/" {
            return Err(Failure::new(
                Class::Author,
                "the root directory cannot be managed",
            ));
        }
        for above in self.declared_above(item).iter() {
            if let PathSpec::File { .. } | PathSpec::Absent = above.spec {
                return Err(Failure::new(
                    Class::Author,
                    format!(
                        "{} lies below {}, which is declared to be no directory",
                        item.id, above.id
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Refuses a path that this host's links make impossible.
    pub(super) fn check_place(
        &self,
        item: &'a DesiredPath,
        seen: &'a ObservedPath,
        places: &mut BTreeMap<&'a str, &'a DesiredPath>,
    ) -> Result<(), Failure> {
        if let Some(other) = self.at_the_same_place(item, seen, places) {
            return Err(Failure::new(
                Class::Author,
                format!(
                    "{} and {} are one path on this host: '{}'",
                    other.id,
                    item.id,
                    seen.look.physical(&item.path)
                ),
            )
            .with_hint("a directory on the way is a symbolic link; declare the path once"));
        }
        for above in self.declared_above(item).iter() {
            if matches!(above.spec, PathSpec::Symlink { .. })
                && seen
                    .look
                    .missing_parents
                    .iter()
                    .any(|parent| above.path == *parent)
            {
                return Err(Failure::new(
                    Class::Author,
                    format!(
                        "{} lies below {}, which does not exist yet",
                        item.id, above.id
                    ),
                )
                .with_hint("declare it below the link's target"));
            }
        }
        Ok(())
    }

    /// What is declared before it, in the order of paths, and really is at the same place; `places` has what links lead elsewhere.
    fn at_the_same_place(
        &self,
        item: &'a DesiredPath,
        seen: &'a ObservedPath,
        places: &mut BTreeMap<&'a str, &'a DesiredPath>,
    ) -> Option<&'a DesiredPath> {
        let Some(elsewhere) = seen.look.elsewhere.as_deref() else {
            return places.get(item.path.as_str()).copied();
        };
        let before = places.insert(elsewhere, item);
        before.or_else(|| {
            let other = self.desired.get(elsewhere).copied()?;
            let is_there = self.observed(elsewhere).ok()?.look.elsewhere.is_none();
            (is_there && elsewhere < item.path.as_str()).then_some(other)
        })
    }

    pub(super) fn desired_change(
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
                xattrs,
                validate,
            } => {
                let wish = Wish {
                    mode: Some(mode.unwrap_or(FILE_MODE)),
                    owner: Some(owner.clone().unwrap_or_else(Name::root)),
                    group: group.clone().or_else(|| usual_group(item)),
                    xattrs: None,
                    named: xattrs.clone(),
                };
                self.file_change(item, seen, content, wish, validate)
            }
            PathSpec::File {
                content: None,
                mode,
                owner,
                group,
                xattrs,
                ..
            } => {
                let wish = Wish {
                    mode: *mode,
                    owner: owner.clone(),
                    group: group.clone(),
                    xattrs: None,
                    named: xattrs.clone(),
                };
                self.bare_file_change(item, seen, wish)
            }
            PathSpec::Directory {
                mode,
                owner,
                group,
                xattrs,
                ..
            } => {
                let wish = Wish {
                    mode: *mode,
                    owner: owner.clone(),
                    group: group.clone(),
                    xattrs: None,
                    named: xattrs.clone(),
                };
                self.directory_change(item, seen, wish)
            }
            PathSpec::Symlink { target } => self.link_change(item, seen, target),
            PathSpec::Archive {
                content, closed, ..
            } => Err(match closed {
                Some(failure) => (**failure).clone(),
                None => not_fetched(item, content),
            }),
            PathSpec::Absent | PathSpec::Purged => self.absence_change(item, seen),
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
        let known = self.known.get(item.path.as_str());
        let wish = self.with_xattrs_taken_back(wish, known, seen);
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
                // The size of what is fetched is not known.
                let has_size = content.as_address().is_some() || *size == content.size;
                let differs = !has_size || *sha256 != Some(content.sha256);
                let mut fields = self.differences(seen, attributes, &wish);
                if differs {
                    fields.insert(0, "content".to_owned());
                }
                if fields.is_empty() {
                    return Ok(None);
                }
                check_links(item, *links)?;
                // Only its owner may change it; a new one is the user's.
                let is_anothers = item.as_user.is_some() && fields.iter().any(|it| it == "owner");
                if differs || is_anothers {
                    self.check_size(item, *size)?;
                    (write(wish, false), Reason::Differs, fields)
                } else {
                    (
                        self.narrowed(seen, attributes, wish).edit(),
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
        let wish = self.with_taken_back(wish, known, seen, attributes);
        let fields = self.differences(seen, attributes, &wish);
        if fields.is_empty() {
            return Ok(None);
        }
        check_links(item, links)?;
        let edit = self.narrowed(seen, attributes, wish).edit();
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
        } = known.applied
        else {
            return None;
        };
        let Original::File {
            sha256,
            size,
            mode,
            uid,
            gid,
            ref xattrs,
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
            xattrs: Some(xattrs.clone()),
            named: wish.named.clone(),
        };
        let mut fields = self.differences(seen, attributes, &wish);
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
        let mut change = self.change(item, seen, edit, Reason::Differs, fields);
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
            access: self.new_directory(&item.path, wish),
            replace,
        };
        let (edit, reason, fields) = match &seen.look.entry {
            Entry::Absent => (make(wish, false), Reason::Missing, Vec::new()),
            Entry::Directory(attributes) => {
                let known = self.known.get(item.path.as_str());
                let wish = self.with_taken_back(wish, known, seen, attributes);
                let fields = self.differences(seen, attributes, &wish);
                if fields.is_empty() {
                    return Ok(None);
                }
                (
                    self.narrowed(seen, attributes, wish).edit(),
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
            owner: None,
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
                // What is in a purged one goes with it, or it was not found to go.
                if item.spec == PathSpec::Absent
                    && let Some(child) = seen.children.iter().min()
                {
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

    /// One that was there before, and went, comes back as it was.
    fn new_directory(&self, path: &str, wish: Wish) -> Access {
        let before = match self.known.get(path).map(|known| &known.item.original) {
            Some(Original::Directory {
                mode,
                uid,
                gid,
                xattrs,
            }) => Wish::exactly(Attributes {
                mode: *mode,
                uid: *uid,
                gid: *gid,
            })
            .with_xattrs(xattrs),
            _ => Wish::default(),
        };
        Wish {
            mode: wish.mode.or(before.mode),
            owner: wish.owner.or(before.owner),
            group: wish.group.or(before.group),
            xattrs: wish.xattrs.or(before.xattrs),
            named: wish.named,
        }
        .access(DIRECTORY_MODE)
    }

    pub(super) fn parent_change(
        &self,
        path: &str,
        child: &DesiredPath,
    ) -> PlannedChange<Original, PathChange> {
        let id = child.id.clone();
        PlannedChange {
            id: id.clone(),
            key: path.into(),
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
                path: path.into(),
                edit: Edit::MakeDirectory {
                    access: self.new_directory(path, Wish::default()),
                    replace: false,
                },
                applied: Some(Applied::Parent {
                    as_user: child.as_user.clone(),
                }),
                is_secret: false,
                as_user: None, // the plan says it of all of them
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
                applied: Some(applied_after(
                    item,
                    self.known.get(item.path.as_str()).map(|known| known.item),
                )),
                is_secret: false,
                as_user: None, // the plan says it of all of them
            },
        }
    }

    /// What is larger cannot be kept for the day it is wanted back; what we wrote ourselves need not be.
    fn check_size(&self, item: &DesiredPath, size: u64) -> Result<(), Failure> {
        if size <= MAX_CONTENT_BYTES || self.known.contains(&item.path) {
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
}

/// What the plan knows of it; what is kept is read when the change is made.
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
                xattrs: Xattrs::default(),
            },
            None => Original::AttributesOnly {
                mode: *mode,
                uid: *uid,
                gid: *gid,
                xattrs: Xattrs::default(),
            },
        },
        Entry::Directory(Attributes { mode, uid, gid }) => Original::Directory {
            mode: *mode,
            uid: *uid,
            gid: *gid,
            xattrs: Xattrs::default(),
        },
        Entry::Symlink(target) => Original::Symlink {
            target: target.clone(),
            owner: None, // looked at when it is about to be changed
        },
    }
}

fn not_fetched(item: &DesiredPath, content: &Content) -> Failure {
    let url = content.whence().unwrap_or_default();
    let message = format!(
        "what {} unpacks is not known before '{url}' was fetched",
        item.id
    );
    Failure::new(Class::Transient, message).with_hint(
        "it is fetched once it is in force; what is below the directory stays until then",
    )
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
        (_, PathSpec::Purged) => "delete it by hand, or let it stay with `ignore`".to_owned(),
        (_, PathSpec::Absent) => "delete it by hand".to_owned(),
        _ => "move it away by hand, or declare another path".to_owned(),
    };
    Failure::new(
        Class::Host,
        match item.spec {
            PathSpec::Purged => format!("refused to delete '{}': it is {found}", item.path),
            _ => format!("refused to replace {}: there is {found}", item.id),
        },
    )
    .with_hint(hint)
}
