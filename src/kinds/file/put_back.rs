//! Putting paths back as they were a moment ago.

use std::sync::Arc;

use crate::age;
use crate::kinds::file::{Access, Edit, Original, PathChange, Walks};
use crate::kinds::kind::{Content, ContentSource, Part};
use crate::model::{Failure, Name, ResourceId};
use crate::sys::Host;
use crate::sys::files::{Entry, Hashing, hash_bytes};
use crate::sys::xattrs::{NamedXattrs, Xattrs};

/// The change that makes what is at `path` now what it was: `original`, with these bytes if it was a file.
pub fn put_back(
    host: &Host,
    id: &ResourceId,
    path: &str,
    original: &Original,
    content: Option<Vec<u8>>,
    as_user: Option<Name>,
) -> Result<PathChange, Failure> {
    let mut walks = Walks::new(host);
    let now = walks.of(as_user.as_ref())?.look(path, Hashing::Skip)?.entry;
    let is_directory = matches!(now, Entry::Directory(_));
    let mut edit = match original {
        Original::Absent if is_directory => Edit::RemoveDirectory,
        Original::Absent => Edit::RemoveFile { expected: None },
        Original::File {
            sha256,
            size,
            mode,
            uid,
            gid,
            xattrs,
        } => Edit::WriteFile {
            content: Content {
                sha256: *sha256,
                size: *size,
                source: source_of(content.unwrap_or_default(), sha256),
            },
            access: access(*mode, *uid, *gid, xattrs),
            validate: None,
            replace: is_directory,
        },
        Original::Symlink { target, owner } => Edit::MakeLink {
            target: target.clone(),
            owner: *owner,
            replace: is_directory,
        },
        Original::Directory {
            mode,
            uid,
            gid,
            xattrs,
        } if !is_directory => Edit::MakeDirectory {
            access: access(*mode, *uid, *gid, xattrs),
            replace: now != Entry::Absent,
        },
        Original::Directory { mode, uid, gid, .. }
        | Original::AttributesOnly { mode, uid, gid, .. } => Edit::SetAccess {
            mode: Some(*mode),
            owner: Some(uid.to_string().into()),
            group: Some(gid.to_string().into()),
            named: NamedXattrs::default(),
        },
    };
    if as_user.is_some() {
        edit.give_to_its_maker();
    }
    Ok(PathChange {
        id: id.clone(),
        path: path.into(),
        edit,
        applied: None,
        is_secret: false,
        as_user,
    })
}

/// What was kept encrypted is opened where it is written: its hash is not that of the bytes.
fn source_of(content: Vec<u8>, sha256: &[u8; 32]) -> ContentSource {
    if !age::is_sealed(&content) || hash_bytes(&content) == *sha256 {
        return ContentSource::Inline(Arc::from(content));
    }
    Content::sealed(vec![Part::Secret(Arc::from(content))]).source
}

fn access(mode: u32, uid: u32, gid: u32, xattrs: &Xattrs) -> Access {
    Access {
        mode,
        owner: Some(uid.to_string().into()),
        group: Some(gid.to_string().into()),
        xattrs: Some(xattrs.clone()),
        named: NamedXattrs::default(),
    }
}
