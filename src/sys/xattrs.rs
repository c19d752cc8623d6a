//! Extended attributes: access control lists, capabilities and what users keep with a file.
//!
//! Only those that belong to a file as it was left there are known here. A label of SELinux is its policy's business (a file that is replaced
//! hands its own on), and what IMA, EVM
//! and overlayfs write is true of one inode only.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use nix::errno::Errno;
use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr};
use rustix::io::Errno as Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::Failure;
use crate::sys::files::io_failure;

/// File capabilities, which a change of owner takes away.
pub const CAPABILITIES: &str = "security.capability";

/// The label of SELinux.
pub(super) const LABEL: &str = "security.selinux";

/// As many bytes as the kernel lets names, or one value, have.
const LIMIT_BYTES: usize = 65_536;

/// Extended attributes by name; mostly there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    clippy::box_collection,
    reason = "there are tens of thousands, nearly all of them without any"
)]
pub struct Xattrs(Option<Box<BTreeMap<String, Vec<u8>>>>);

impl Xattrs {
    /// Are there none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .flat_map(|known| known.keys())
            .map(String::as_str)
    }

    /// The value of the one with this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.as_ref()?.get(name).map(Vec::as_slice)
    }

    /// Those of the open file or directory; `shown` is for messages.
    pub(super) fn read(file: impl AsFd, shown: &str) -> Result<Self, Failure> {
        let mut known = BTreeMap::new();
        for name in names(&file, shown)? {
            if let Some(value) = read_one(&file, &name, shown)? {
                known.insert(name, value);
            }
        }
        Ok(Xattrs::of(known))
    }

    fn of(known: BTreeMap<String, Vec<u8>>) -> Self {
        Xattrs((!known.is_empty()).then(|| Box::new(known)))
    }

    /// Gives the open file or directory these, and takes away what else it has of those that are known here.
    pub(super) fn write(&self, file: impl AsFd, shown: &str) -> Result<(), Failure> {
        let failed = |error| failure("change the extended attributes of", shown, error);
        for name in names(&file, shown)? {
            if !self.names().any(|wanted| wanted == name) {
                fremovexattr(&file, name.as_str()).map_err(failed)?;
            }
        }
        for (name, value) in self.0.iter().flat_map(|known| known.iter()) {
            fsetxattr(&file, name.as_str(), value, XattrFlags::empty()).map_err(failed)?;
        }
        Ok(())
    }
}

/// Extended attributes that are spoken of, by name: what each is to be, where `None` says that there is to be none. Those with other
/// names are left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    clippy::box_collection,
    reason = "there are tens of thousands, nearly all of them without any"
)]
pub struct NamedXattrs(Option<Box<BTreeMap<String, Option<Vec<u8>>>>>);

impl NamedXattrs {
    /// Are none spoken of.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Each, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        let spoken = self.0.iter().flat_map(|spoken| spoken.iter());
        spoken.map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// Is this one spoken of.
    pub fn contains(&self, name: &str) -> bool {
        (self.0.as_ref()).is_some_and(|spoken| spoken.contains_key(name))
    }

    /// Says what one is to be.
    pub fn insert(&mut self, name: &str, value: Option<Vec<u8>>) {
        let spoken = self.0.get_or_insert_default();
        spoken.insert(name.to_owned(), value);
    }

    /// Those that are not so where `found` is.
    pub fn differing_from(&self, found: &Xattrs) -> Self {
        let mut differing = NamedXattrs::default();
        for (name, value) in self
            .iter()
            .filter(|(name, value)| found.get(name) != *value)
        {
            differing.insert(name, value.map(<[u8]>::to_vec));
        }
        differing
    }

    /// Makes the open file or directory have them.
    pub(super) fn write(&self, file: impl AsFd, shown: &str) -> Result<(), Failure> {
        let is_last = |name: &str| name == CAPABILITIES;
        let others = self.iter().filter(|(name, _)| !is_last(name));
        for (name, value) in others.chain(self.iter().filter(|(name, _)| is_last(name))) {
            let written = match value {
                Some(value) => fsetxattr(&file, name, value, XattrFlags::empty()),
                None => match fremovexattr(&file, name) {
                    Err(Error::NODATA | Error::OPNOTSUPP) => Ok(()),
                    other => other,
                },
            };
            written.map_err(|error| failure(&format!("change the '{name}' of"), shown, error))?;
        }
        Ok(())
    }
}

/// The value of one; `None` where it is not there, or the file system has none at all.
pub(super) fn read_one(
    file: impl AsFd,
    name: &str,
    shown: &str,
) -> Result<Option<Vec<u8>>, Failure> {
    let mut buffer = vec![0; LIMIT_BYTES];
    match fgetxattr(&file, name, &mut buffer[..]) {
        Ok(length) => {
            buffer.truncate(length);
            buffer.shrink_to_fit();
            Ok(Some(buffer))
        }
        Err(Error::NODATA | Error::OPNOTSUPP) => Ok(None),
        Err(error) => Err(failure("read the extended attributes of", shown, error)),
    }
}

/// Sets one.
pub(super) fn write_one(
    file: impl AsFd,
    name: &str,
    value: &[u8],
    shown: &str,
) -> Result<(), Failure> {
    fsetxattr(&file, name, value, XattrFlags::empty())
        .map_err(|error| failure("change the extended attributes of", shown, error))
}

fn names(file: impl AsFd, shown: &str) -> Result<Vec<String>, Failure> {
    // Mostly there are none, or one label: that fits, and needs no second question.
    let mut small = [0; 256];
    let mut large = Vec::new();
    let listed = match flistxattr(&file, &mut small[..]) {
        Ok(length) => &small[..length],
        Err(Error::OPNOTSUPP) => &[],
        Err(Error::RANGE) => {
            large.resize(LIMIT_BYTES, 0);
            let length = flistxattr(&file, &mut large[..])
                .map_err(|error| failure("list the extended attributes of", shown, error))?;
            &large[..length]
        }
        Err(error) => return Err(failure("list the extended attributes of", shown, error)),
    };
    let names = listed.split(|byte| *byte == 0);
    // A name that is no text is none of those.
    let names = names.filter_map(|name| std::str::from_utf8(name).ok());
    Ok(names
        .filter(|name| is_kept(name))
        .map(str::to_owned)
        .collect())
}

fn is_kept(name: &str) -> bool {
    name == CAPABILITIES || name.starts_with("user.") || name.starts_with("system.posix_acl_")
}

fn failure(verb: &str, shown: &str, error: Error) -> Failure {
    io_failure(verb, shown, Errno::from_raw(error.raw_os_error()))
}

impl Serialize for Xattrs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let known = self.0.iter().flat_map(|known| known.iter());
        serializer.collect_map(known.map(|(name, value)| (name, crate::git::hex(value))))
    }
}

impl<'de> Deserialize<'de> for Xattrs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = BTreeMap::<String, String>::deserialize(deserializer)?;
        let decoded = stored.into_iter().map(|(name, value)| {
            let value = bytes_of(&value).ok_or_else(no_hex)?;
            Ok((name, value))
        });
        Ok(Xattrs::of(decoded.collect::<Result<_, D::Error>>()?))
    }
}

impl Serialize for NamedXattrs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.iter()
                .map(|(name, value)| (name, value.map(crate::git::hex))),
        )
    }
}

impl<'de> Deserialize<'de> for NamedXattrs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut spoken = NamedXattrs::default();
        for (name, value) in BTreeMap::<String, Option<String>>::deserialize(deserializer)? {
            let value = match value {
                Some(hex) => Some(bytes_of(&hex).ok_or_else(no_hex)?),
                None => None,
            };
            spoken.insert(&name, value);
        }
        Ok(spoken)
    }
}

fn no_hex<E: serde::de::Error>() -> E {
    E::custom("expected pairs of hex digits")
}

/// The bytes that pairs of hex digits stand for.
pub fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_stored_and_read_back() {
        let known = BTreeMap::from([
            ("user.note".to_owned(), b"\0\xff text".to_vec()),
            ("user.empty".to_owned(), Vec::new()),
        ]);
        let xattrs = Xattrs::of(known);
        let text = serde_json::to_string(&xattrs).unwrap();
        assert_eq!(text, r#"{"user.empty":"","user.note":"00ff2074657874"}"#);
        assert_eq!(serde_json::from_str::<Xattrs>(&text).unwrap(), xattrs);
        for wrong in [
            r#"{"user.a":"0"}"#,
            r#"{"user.a":"0g"}"#,
            r#"{"user.a":"é"}"#,
        ] {
            assert!(serde_json::from_str::<Xattrs>(wrong).is_err(), "{wrong}");
        }
        assert!(serde_json::from_str::<Xattrs>("{}").unwrap().is_empty());
    }

    #[test]
    fn what_is_spoken_of_is_stored_and_compared_by_name() {
        let mut spoken = NamedXattrs::default();
        spoken.insert("user.note", Some(b"a".to_vec()));
        spoken.insert(CAPABILITIES, None);
        let text = serde_json::to_string(&spoken).unwrap();
        assert_eq!(text, r#"{"security.capability":null,"user.note":"61"}"#);
        assert_eq!(serde_json::from_str::<NamedXattrs>(&text).unwrap(), spoken);

        let known = BTreeMap::from([
            ("user.note".to_owned(), b"a".to_vec()),
            ("user.other".to_owned(), b"b".to_vec()),
        ]);
        assert!(spoken.differing_from(&Xattrs::of(known)).is_empty());
        let differing = spoken.differing_from(&Xattrs::default());
        assert_eq!(
            differing.iter().collect::<Vec<_>>(),
            [("user.note", Some(&b"a"[..]))]
        );
    }

    #[test]
    fn what_belongs_to_one_inode_or_a_policy_is_not_kept() {
        for (name, expected) in [
            ("user.note", true),
            ("security.capability", true),
            ("system.posix_acl_access", true),
            ("system.posix_acl_default", true),
            ("security.selinux", false),
            ("security.ima", false),
            ("trusted.overlay.opaque", false),
        ] {
            assert_eq!(is_kept(name), expected, "{name}");
        }
    }
}
