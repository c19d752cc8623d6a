//! Extended attributes and capabilities of files and directories.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Resolver;
use crate::document::{Mistake, Place, Table};
use crate::sys::capabilities::Capabilities;
use crate::sys::xattrs::{CAPABILITIES, NamedXattrs, bytes_of};

/// What the kernel lets a name have, and what fits in a block of every file system.
const NAME_BYTES: usize = 255;
const VALUE_BYTES: usize = 4000;

impl Resolver<'_, '_> {
    /// What `xattrs` and `capabilities` of `what` say.
    pub(super) fn xattrs(
        &self,
        what: &str,
        xattrs: Option<&BTreeMap<String, String>>,
        capabilities: Option<&str>,
        table: &Table,
        place: &Place,
        mistakes: &mut Vec<Mistake>,
    ) -> NamedXattrs {
        let mut named = NamedXattrs::default();
        let at = table.place_of("xattrs", place);
        for (name, text) in xattrs.into_iter().flatten() {
            if let Some(mistake) = check_name(what, name, &at) {
                mistakes.push(mistake);
            }
            match value_of(text) {
                Some(value) if value.len() <= VALUE_BYTES => named.insert(name, Some(value)),
                Some(value) => mistakes.push(Mistake::new(
                    &at,
                    format!(
                        "the value of '{name}' of {what} has {} bytes, which is more than {VALUE_BYTES}",
                        value.len()
                    ),
                )),
                None => mistakes.push(
                    Mistake::new(&at, format!("the value of '{name}' of {what} cannot be read"))
                        .hint("after 0x come pairs of hex digits, after 0s comes base64; anything else is text"),
                ),
            }
        }
        let Some(text) = capabilities else {
            return named;
        };
        let at = table.place_of("capabilities", place);
        if text.trim().is_empty() {
            named.insert(CAPABILITIES, None);
            return named;
        }
        let capabilities = match Capabilities::parse(text) {
            Ok(capabilities) => capabilities,
            Err(cause) => {
                mistakes.push(
                    Mistake::new(&at, format!("'{text}' are no capabilities of {what}"))
                        .label(cause)
                        .hint("write as setcap(8) does: capabilities = \"cap_net_bind_service=ep\"; with \"\" it has none"),
                );
                return named;
            }
        };
        if !self.limits.allow_suid {
            mistakes.push(
                Mistake::new(&at, format!("{what} has capabilities, which this host does not allow"))
                    .hint("they are rights as setuid gives them; a host's operator can allow it: apply.allow_suid = true in /etc/limpet/limpet.toml"),
            );
        }
        named.insert(CAPABILITIES, Some(capabilities.to_bytes()));
        named
    }
}

/// Only what users may keep with their files can be declared by name: the others decide who may do what.
fn check_name(what: &str, name: &str, place: &Place) -> Option<Mistake> {
    let is_name = name.len() <= NAME_BYTES && !name.chars().any(char::is_control);
    if is_name
        && name
            .strip_prefix("user.")
            .is_some_and(|rest| !rest.is_empty())
    {
        return None;
    }
    let hint = match name {
        CAPABILITIES => "write: capabilities = \"cap_net_bind_service=ep\"",
        "security.selinux" => "labels are the policy's; see semanage-fcontext(8)",
        _ => "only names that begin with \"user.\" can be declared",
    };
    let mistake = Mistake::new(place, format!("'{name}' of {what} cannot be declared"));
    Some(mistake.hint(hint))
}

/// A value in the manner of setfattr(1): text, or bytes in hex or base64.
fn value_of(text: &str) -> Option<Vec<u8>> {
    if let Some(hex) = text.strip_prefix("0x") {
        return bytes_of(hex);
    }
    match text.strip_prefix("0s") {
        Some(encoded) => STANDARD.decode(encoded).ok(),
        None => Some(text.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_setfattr_does() {
        for (text, expected) in [
            ("text", Some(&b"text"[..])),
            ("", Some(b"")),
            ("0x00ff", Some(b"\0\xff")),
            ("0x0", None),
            ("0sAP8=", Some(b"\0\xff")),
            ("0s?", None),
        ] {
            assert_eq!(value_of(text).as_deref(), expected, "{text}");
        }
    }
}
