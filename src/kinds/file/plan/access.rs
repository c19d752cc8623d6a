//! Permissions and owners: what is wished, what differs, what is taken back.

use crate::kinds::file::plan::{DIRECTORY_MODE, Known, Planner};
use crate::kinds::file::{Access, Applied, Edit, ObservedPath, Original};
use crate::model::Name;
use crate::sys::files::{Attributes, Entry};
use crate::sys::xattrs::{CAPABILITIES, NamedXattrs, Xattrs};

/// What permissions and owner should be, where they matter.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    pub(super) mode: Option<u32>,
    pub(super) owner: Option<Name>,
    pub(super) group: Option<Name>,
    /// Only of what is made anew; what is there keeps what it has.
    pub(super) xattrs: Option<Xattrs>,
    /// What these are to be, whatever the others are.
    pub(super) named: NamedXattrs,
}

impl Wish {
    pub(super) fn exactly(attributes: Attributes) -> Self {
        Wish {
            mode: Some(attributes.mode),
            owner: Some(number(attributes.uid)),
            group: Some(number(attributes.gid)),
            ..Wish::default()
        }
    }

    /// The same, with exactly these extended attributes.
    pub(super) fn with_xattrs(self, xattrs: &Xattrs) -> Self {
        Wish {
            xattrs: Some(xattrs.clone()),
            ..self
        }
    }

    pub(super) fn access(self, mode: u32) -> Access {
        Access {
            mode: self.mode.unwrap_or(mode),
            owner: self.owner,
            group: self.group,
            xattrs: self.xattrs,
            named: self.named,
        }
    }

    pub(super) fn edit(self) -> Edit {
        Edit::SetAccess {
            mode: self.mode,
            owner: self.owner,
            group: self.group,
            named: self.named,
        }
    }
}

fn number(id: u32) -> Name {
    id.to_string().into()
}

impl Planner<'_> {
    /// Which of the wished properties are not so. A user or group that does not exist (yet) is one that is not so.
    pub(super) fn differences(
        &self,
        seen: &ObservedPath,
        found: &Attributes,
        wish: &Wish,
    ) -> Vec<String> {
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
        let differing = wish.named.differing_from(&seen.xattrs);
        let of_capabilities = |name: &str| name == CAPABILITIES;
        if differing.iter().any(|(name, _)| !of_capabilities(name)) {
            fields.push("xattrs".to_owned());
        }
        if differing.contains(CAPABILITIES) {
            fields.push("capabilities".to_owned());
        }
        fields
    }

    /// The wish without what is already so.
    pub(super) fn narrowed(&self, seen: &ObservedPath, found: &Attributes, wish: Wish) -> Wish {
        Wish {
            mode: wish.mode.filter(|mode| *mode != found.mode),
            owner: wish.owner.filter(|owner| !self.is_user(owner, found.uid)),
            group: wish.group.filter(|group| !self.is_group(group, found.gid)),
            xattrs: None,
            named: wish.named.differing_from(&seen.xattrs),
        }
    }

    pub(super) fn is_user(&self, name: &str, uid: u32) -> bool {
        self.observed
            .users
            .get(name)
            .copied()
            .or_else(|| name.parse().ok())
            == Some(uid)
    }

    pub(super) fn is_group(&self, name: &str, gid: u32) -> bool {
        self.observed
            .groups
            .get(name)
            .copied()
            .or_else(|| name.parse().ok())
            == Some(gid)
    }

    /// The wish, and for each property that was applied, is as applied, and is wished no more: what it was before.
    pub(super) fn with_taken_back(
        &self,
        wish: Wish,
        known: Option<&Known<'_>>,
        seen: &ObservedPath,
        found: &Attributes,
    ) -> Wish {
        let wish = self.with_xattrs_taken_back(wish, known, seen);
        let Some(known) = known else { return wish };
        let (mode, owner, group) = match known.applied {
            Applied::File {
                mode, owner, group, ..
            }
            | Applied::Directory {
                mode, owner, group, ..
            } => (mode, owner, group),
            Applied::Symlink { .. } | Applied::Parent { .. } | Applied::Absent { .. } => {
                return wish;
            }
        };
        let before = match (known.applied, &known.item.original) {
            (Applied::Directory { .. }, Original::Directory { mode, uid, gid, .. })
            | (
                Applied::File { .. },
                Original::File { mode, uid, gid, .. }
                | Original::AttributesOnly { mode, uid, gid, .. },
            ) => Wish::exactly(Attributes {
                mode: *mode,
                uid: *uid,
                gid: *gid,
            }),
            // What a file or nothing was before has no say in how a directory looks.
            (Applied::Directory { .. }, _) => Wish {
                mode: Some(DIRECTORY_MODE),
                owner: Some(Name::root()),
                group: Some(Name::root()),
                ..Wish::default()
            },
            _ => return wish,
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
            xattrs: wish.xattrs,
            named: wish.named,
        }
    }

    /// The same for extended attributes alone, each by its name.
    pub(super) fn with_xattrs_taken_back(
        &self,
        mut wish: Wish,
        known: Option<&Known<'_>>,
        seen: &ObservedPath,
    ) -> Wish {
        let applied = known.and_then(|known| known.applied.xattrs());
        let (Some(known), Some(applied)) = (known, applied) else {
            return wish;
        };
        if !matches!(seen.look.entry, Entry::File { .. } | Entry::Directory(_)) {
            return wish;
        }
        let before = known.item.original.xattrs();
        for (name, value) in applied.iter() {
            if !wish.named.contains(name) && seen.xattrs.get(name) == value {
                let before = before.and_then(|before| before.get(name));
                wish.named.insert(name, before.map(<[u8]>::to_vec));
            }
        }
        wish
    }
}
