//! What was there before limpet, in words.

use crate::kinds::file::Original;
use crate::kinds::{account, package, sysctl, unit};
use crate::record::InventoryEntry;
use crate::sys::xattrs::Xattrs;

/// What was there before, for people.
pub(super) fn original(entry: &InventoryEntry) -> String {
    let text = entry.original.as_str();
    let told = match entry.kind.as_str() {
        "path" => serde_json::from_str(text).ok().map(original_path),
        "package" => serde_json::from_str(text).ok().map(original_package),
        "account" => serde_json::from_str(text).ok().map(original_account),
        "sysctl" => serde_json::from_str(text).ok().map(original_sysctl),
        "command" => Some("it had not been run".to_owned()),
        _ => serde_json::from_str(text).ok().map(original_unit),
    };
    told.unwrap_or_else(|| "it cannot be read".to_owned())
}

fn original_sysctl(original: sysctl::Original) -> String {
    match original.value {
        Some(value) => format!("it was '{value}'"),
        None => "there was no such parameter".to_owned(),
    }
}

fn original_package(original: package::Original) -> String {
    let held = if original.held { ", on hold" } else { "" };
    match original.version {
        Some(version) if original.automatic => {
            format!("version {version} was installed, along with another package{held}")
        }
        Some(version) => format!("version {version} was installed{held}"),
        None => format!("it was not installed{held}"),
    }
}

fn original_account(original: account::Original) -> String {
    match original {
        account::Original::Absent => "there was none".to_owned(),
        account::Original::Group { gid } => format!("a group with the number {gid}"),
        account::Original::User(user) => {
            let groups: Vec<String> = user.groups.into_iter().collect();
            let groups = match groups.is_empty() {
                true => String::new(),
                false => format!(", also of {}", groups.join(", ")),
            };
            let locked = match user.locked {
                Some(true) => ", locked",
                _ => "",
            };
            let keys = match user.keys {
                Some(_) => ", with keys",
                None => "",
            };
            format!(
                "a user with the number {}, of {}{groups}, shell {}, home {}{locked}{keys}",
                user.uid, user.group, user.shell, user.home
            )
        }
    }
}

fn original_unit(original: unit::Original) -> String {
    let word = |is, yes: &str, no: &str| if is { yes.to_owned() } else { no.to_owned() };
    let state = match original.file_state.as_str() {
        // So much older versions kept.
        "" => word(original.enabled, "enabled", "not enabled"),
        "disabled" => "not enabled".to_owned(),
        state => state.to_owned(),
    };
    let running = word(original.active, "running", "not running");
    let masked = match (original.masked, original.file_state.as_str()) {
        (true, "") => ", masked",
        (true, _) if original.enabled => ", enabled below the mask",
        _ => "",
    };
    let link = original
        .link
        .map(|link| format!(", linked to {}", link.target));
    format!(
        "it was {state}, {running}{masked}{}",
        link.unwrap_or_default()
    )
}

fn original_path(original: Original) -> String {
    match original {
        Original::Absent => "nothing was there".to_owned(),
        Original::File {
            size,
            mode,
            uid,
            gid,
            xattrs,
            ..
        } => format!(
            "a file of {size} bytes, mode {mode:04o}, owner {uid}:{gid}{}; its content is kept",
            with_xattrs(&xattrs)
        ),
        Original::Directory {
            mode,
            uid,
            gid,
            xattrs,
        } => format!(
            "a directory, mode {mode:04o}, owner {uid}:{gid}{}",
            with_xattrs(&xattrs)
        ),
        Original::Symlink { target, owner } => {
            let owner = owner.map(|(uid, gid)| format!(", owner {uid}:{gid}"));
            format!("a symbolic link to {target}{}", owner.unwrap_or_default())
        }
        Original::AttributesOnly {
            mode,
            uid,
            gid,
            xattrs,
        } => format!(
            "a file with mode {mode:04o}, owner {uid}:{gid}{}; its content is not kept",
            with_xattrs(&xattrs)
        ),
    }
}

fn with_xattrs(xattrs: &Xattrs) -> String {
    let names: Vec<&str> = xattrs.names().collect();
    match names.is_empty() {
        true => String::new(),
        false => format!(", with {}", names.join(", ")),
    }
}
