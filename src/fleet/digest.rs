//! The digest of a desired state: one number that CI, a laptop and the host agree on.
//!
//! The digest is the hex SHA-256 of the *canonical JSON*: one compact object (no white space; keys, and resources by path or name, in
//! the order of their bytes) that says everything an apply depends on and nothing else:
//!
//! ```text
//! {"accounts": [{"id", …}], "commands": [{"name", "id", "command", …}], "fleet": "…", "format": 1, "health": [{"id", …}], "needs": {"kind:name": ["kind:name"]},
//!  "packages": [{"name", "id", "state", …}], "paths": [{"path", "id", "report", "on_removal", "type": "file" | "directory" | "symlink" |
//!  "archive" | "absent", …}], "prevent_removal": ["kind:name"], "units": [{"name", "id", …}]}
//! ```
//!
//! `accounts`, `health` and `prevent_removal` are left out where they would be empty.
//!
//! A content is `{"sha256", "size"}`, of an encrypted one those of what is encrypted, of one that is fetched with `url`: where its bytes are kept differs between a working tree and a revision. Places in files are no
//! part of it, so that a comment changes no digest.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use ring::digest::{Context, SHA256};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};

use super::DesiredState;
use crate::git::hex;
use crate::kinds::account::{AccountSpec, DesiredAccount};
use crate::kinds::command::DesiredCommand;
use crate::kinds::file::{DesiredPath, PathSpec};
use crate::kinds::health::{DesiredHealth, Probe};
use crate::kinds::kind::Content;
use crate::kinds::package::{DesiredPackage, PackageState};
use crate::kinds::sysctl::DesiredSysctl;
use crate::kinds::unit::DesiredUnit;
use crate::model::ResourceId;
use crate::sys::capabilities::Capabilities;
use crate::sys::xattrs::CAPABILITIES;

/// The canonical JSON of `state`, whose digest is its [`DesiredState::digest`].
pub fn canonical_json(state: &DesiredState) -> Value {
    serde_json::to_value(Canonical(state)).unwrap_or_default()
}

/// The same, to be written without standing in memory as a whole.
pub fn canonical(state: &DesiredState) -> impl Serialize {
    Canonical(state)
}

/// The digest of `state`.
pub(super) fn compute(state: &DesiredState) -> String {
    let mut hashing = Hashing(Context::new(&SHA256));
    let mut buffered = std::io::BufWriter::with_capacity(8192, &mut hashing);
    let written = serde_json::to_writer(&mut buffered, &Canonical(state));
    let flushed = buffered.flush();
    drop(buffered);
    debug_assert!(
        written.is_ok() && flushed.is_ok(),
        "hashing does not fail, and every key is a string"
    );
    hex(hashing.0.finish().as_ref())
}

/// Takes bytes into a hash; the canonical JSON of ten thousand files never stands in memory.
struct Hashing(Context);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A state as canonical JSON.
///
/// Invariant: every map below is written in the order of its keys.
struct Canonical<'a>(&'a DesiredState);

impl Serialize for Canonical<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let state = self.0;
        let mut map = serializer.serialize_map(None)?;
        // Left out where there is none, as those below: who declares none keeps the digest that earlier versions reckoned.
        if !state.accounts.is_empty() {
            map.serialize_entry("accounts", &Each(&state.accounts, account_json))?;
        }
        if !state.commands.is_empty() {
            map.serialize_entry("commands", &Each(&state.commands, command_json))?;
        }
        map.serialize_entry("fleet", &state.fleet)?;
        map.serialize_entry("format", &1)?;
        // Left out where there is none: who declares none keeps the digest that earlier versions reckoned.
        if !state.health.is_empty() {
            map.serialize_entry("health", &Each(&state.health, health_json))?;
        }
        map.serialize_entry("needs", &Needs(state))?;
        map.serialize_entry("packages", &Each(&state.packages, package_json))?;
        map.serialize_entry("paths", &Paths(&state.paths))?;
        if !state.prevented.is_empty() {
            let prevented: BTreeSet<String> =
                state.prevented.iter().map(ToString::to_string).collect();
            map.serialize_entry("prevent_removal", &prevented)?;
        }
        if !state.sysctls.is_empty() {
            map.serialize_entry("sysctls", &Each(&state.sysctls, sysctl_json))?;
        }
        map.serialize_entry("units", &Each(&state.units, unit_json))?;
        map.end()
    }
}

/// By the text of the id, which is not the order of the ids.
struct Needs<'a>(&'a DesiredState);

impl Serialize for Needs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let needs: BTreeMap<String, &Vec<ResourceId>> = self
            .0
            .needs
            .iter()
            .map(|(id, needs)| (id.to_string(), needs))
            .collect();
        needs.serialize(serializer)
    }
}

/// Things that are made JSON one by one.
struct Each<'a, T>(&'a [T], fn(&T) -> Value);

impl<T> Serialize for Each<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(self.1))
    }
}

struct Paths<'a>(&'a [DesiredPath]);

impl Serialize for Paths<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // What is found on a host is no part of what is declared for it.
        let declared = self.0.iter().filter(|path| path.spec != PathSpec::Purged);
        serializer.collect_seq(declared.map(OnePath))
    }
}

/// Of these there may be many, so no value is made of them.
struct OnePath<'a>(&'a DesiredPath);

impl Serialize for OnePath<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let path = self.0;
        let mut map = serializer.serialize_map(None)?;
        // Left out where it is as always, as in the digests of earlier versions.
        if let Some(user) = &path.as_user {
            map.serialize_entry("as_user", user)?;
        }
        let named = match &path.spec {
            PathSpec::File { xattrs, .. } | PathSpec::Directory { xattrs, .. } => Some(xattrs),
            PathSpec::Symlink { .. }
            | PathSpec::Archive { .. }
            | PathSpec::Absent
            | PathSpec::Purged => None,
        };
        // Left out where there are none, as in the digests of earlier versions.
        let named = named.filter(|named| !named.is_empty());
        if let Some((_, value)) =
            named.and_then(|named| named.iter().find(|(name, _)| *name == CAPABILITIES))
        {
            map.serialize_entry("capabilities", &shown_capabilities(value))?;
        }
        match &path.spec {
            PathSpec::File { content, .. } => {
                map.serialize_entry("content", &content.as_ref().map(OneContent))?;
            }
            PathSpec::Archive { content, .. } => {
                map.serialize_entry("content", &OneContent(content))?;
            }
            _ => {}
        }
        let (some_owner, some_group);
        let access = match &path.spec {
            PathSpec::File {
                mode, owner, group, ..
            }
            | PathSpec::Directory {
                mode, owner, group, ..
            } => Some((mode, owner, group)),
            PathSpec::Archive {
                mode, owner, group, ..
            } => {
                (some_owner, some_group) = (Some(owner.clone()), Some(group.clone()));
                Some((mode, &some_owner, &some_group))
            }
            PathSpec::Symlink { .. } | PathSpec::Absent | PathSpec::Purged => None,
        };
        if let Some((_, _, group)) = access {
            map.serialize_entry("group", group)?;
        }
        map.serialize_entry("id", &path.id)?;
        let purge = match &path.spec {
            PathSpec::Directory { purge, .. } => purge.as_ref(),
            _ => None,
        };
        // Left out where nothing is purged, as in the digests of earlier versions.
        if let Some(purge) = purge {
            map.serialize_entry("ignore", &purge.ignore)?;
        }
        if let Some((mode, owner, _)) = access {
            map.serialize_entry("mode", &mode.map(octal))?;
            map.serialize_entry("on_removal", &path.on_removal)?;
            map.serialize_entry("owner", owner)?;
        } else {
            map.serialize_entry("on_removal", &path.on_removal)?;
        }
        map.serialize_entry("path", &path.path)?;
        if purge.is_some() {
            map.serialize_entry("purge", &true)?;
        }
        map.serialize_entry("report", &path.report)?;
        if let PathSpec::Symlink { target } = &path.spec {
            map.serialize_entry("target", target)?;
        }
        let kind = match &path.spec {
            PathSpec::File { .. } => "file",
            PathSpec::Directory { .. } => "directory",
            PathSpec::Symlink { .. } => "symlink",
            PathSpec::Archive { .. } => "archive",
            PathSpec::Absent | PathSpec::Purged => "absent",
        };
        map.serialize_entry("type", kind)?;
        if let PathSpec::File { validate, .. } = &path.spec {
            map.serialize_entry("validate", validate)?;
        }
        if let Some(named) = named {
            let others = named.iter().filter(|(name, _)| *name != CAPABILITIES);
            let others: BTreeMap<_, _> =
                others.map(|(name, value)| (name, value.map(hex))).collect();
            if !others.is_empty() {
                map.serialize_entry("xattrs", &others)?;
            }
        }
        map.end()
    }
}

/// As they are declared, though in one order.
fn shown_capabilities(value: Option<&[u8]>) -> String {
    let known = value.and_then(Capabilities::of_bytes);
    known.map(|known| known.to_string()).unwrap_or_default()
}

struct OneContent<'a>(&'a Content);

impl Serialize for OneContent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        // A host that opened it hashed it with its own key: the digest is that of what the repository has.
        let (sha256, size) = match self.0.as_sealed() {
            Some(sealed) => (&sealed.id, sealed.size),
            None => (&self.0.sha256, self.0.size),
        };
        map.serialize_entry("sha256", &hex(sha256))?;
        map.serialize_entry("size", &size)?;
        if let Some(url) = self.0.as_address() {
            map.serialize_entry("url", url)?;
        }
        map.end()
    }
}

/// One path.
pub(super) fn path_json(path: &DesiredPath) -> Value {
    serde_json::to_value(OnePath(path)).unwrap_or_default()
}

fn ids(ids: &[ResourceId]) -> Value {
    ids.iter().map(ToString::to_string).collect()
}

fn extend(value: &mut Value, more: Value) {
    if let (Value::Object(value), Value::Object(more)) = (value, more) {
        value.extend(more);
    }
}

fn octal(mode: u32) -> String {
    format!("{mode:04o}")
}

/// One user or group.
pub(super) fn account_json(account: &DesiredAccount) -> Value {
    let mut value = json!({
        "id": account.id,
        "report": account.report,
        "on_removal": account.on_removal,
    });
    extend(
        &mut value,
        match &account.spec {
            AccountSpec::Absent => json!({ "state": "absent" }),
            AccountSpec::Group { gid, system } => json!({ "gid": gid, "system": system }),
            AccountSpec::User(user) => json!({
                "uid": user.uid,
                "group": user.group,
                "groups": user.groups,
                "shell": user.shell,
                "home": user.home,
                "system": user.system,
                "locked": user.locked,
                "authorized_keys": user.keys,
            }),
        },
    );
    value.sort_all_objects();
    value
}

/// One parameter of the kernel.
pub(super) fn sysctl_json(sysctl: &DesiredSysctl) -> Value {
    json!({
        "id": sysctl.id,
        "on_removal": sysctl.on_removal,
        "report": sysctl.report,
        "value": sysctl.value,
    })
}

/// One package.
pub(super) fn package_json(package: &DesiredPackage) -> Value {
    let mut value = json!({
        "name": package.name,
        "id": package.id,
        "report": package.report,
        "on_removal": package.on_removal,
    });
    extend(
        &mut value,
        match &package.state {
            PackageState::Installed => json!({ "state": "installed" }),
            PackageState::Absent => json!({ "state": "absent" }),
            PackageState::Version {
                version,
                allow_downgrade,
            } => {
                json!({ "state": "installed", "version": version, "allow_downgrade": allow_downgrade })
            }
        },
    );
    // What says nothing of it has the digest that it always had.
    if let Some(hold) = package.hold {
        extend(&mut value, json!({ "hold": hold }));
    }
    value.sort_all_objects();
    value
}

/// One command.
pub(super) fn command_json(command: &DesiredCommand) -> Value {
    let mut value = json!({
        "name": command.name,
        "id": command.id,
        "command": command.argv,
        "timeout_secs": command.timeout.as_secs(),
        "run_on": ids(&command.run_on),
        "once": command.once,
        "report": command.report,
    });
    value.sort_all_objects();
    value
}

/// One unit.
pub(super) fn unit_json(unit: &DesiredUnit) -> Value {
    let mut value = json!({
        "name": unit.name,
        "id": unit.id,
        "enabled": unit.enabled,
        "running": unit.running,
        "masked": unit.masked,
        "optional": unit.optional,
        "restart_on": ids(&unit.restart_on),
        "reload_on": ids(&unit.reload_on),
        "files": unit.files,
        "report": unit.report,
        "on_removal": unit.on_removal,
    });
    // Left out where it is as always, so that nobody's digest changes.
    if unit.manual {
        extend(&mut value, json!({ "restart": "manual" }));
    }
    if let Some(argv) = &unit.validate {
        extend(&mut value, json!({ "validate": argv }));
    }
    value.sort_all_objects();
    value
}

/// One health check.
pub(super) fn health_json(health: &DesiredHealth) -> Value {
    let milliseconds =
        |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut value = json!({
        "id": health.id,
        "when": health.when.as_str(),
        "within_ms": milliseconds(health.within),
        "stable_ms": milliseconds(health.stable),
        "on_failure": if health.rolls_back { "rollback" } else { "warn" },
    });
    extend(
        &mut value,
        match &health.probe {
            Probe::Http(url) => json!({ "http": url }),
            Probe::Tcp(address) => json!({ "tcp": address }),
            Probe::Unit(unit) => json!({ "unit": unit }),
            Probe::Command(argv) => json!({ "command": argv }),
            Probe::Source => json!({ "source": true }),
        },
    );
    value.sort_all_objects();
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::kind::ContentSource;
    use crate::model::{Kind, OnRemoval};
    use crate::sys::xattrs::NamedXattrs;

    fn path(name: &str, spec: PathSpec) -> DesiredPath {
        DesiredPath {
            path: name.into(),
            id: ResourceId::new(Kind::File, name),
            spec,
            report: false,
            on_removal: OnRemoval::Keep,
            as_user: None,
        }
    }

    #[test]
    fn the_canonical_json_is_sorted_and_stays_as_it_is() {
        let content = Content {
            sha256: [7; 32],
            size: 3,
            source: ContentSource::Original,
        };
        let file = PathSpec::File {
            content: Some(content),
            mode: Some(0o640),
            owner: Some("root".into()),
            group: None,
            xattrs: NamedXattrs::default(),
            validate: Some(vec!["true".into(), "{}".into()]),
        };
        let directory = PathSpec::Directory {
            purge: None,
            xattrs: NamedXattrs::default(),
            mode: None,
            owner: None,
            group: Some("adm".into()),
        };
        let mut state = DesiredState {
            fleet: "test".into(),
            paths: vec![
                path("/a", file),
                path("/b", directory),
                path(
                    "/c",
                    PathSpec::Symlink {
                        target: "/a".into(),
                    },
                ),
                path("/d", PathSpec::Absent),
            ],
            ..DesiredState::default()
        };
        for (one, other) in [
            (Kind::Unit, Kind::File),
            (Kind::Directory, Kind::Unit),
            (Kind::File, Kind::Unit),
        ] {
            state
                .needs
                .insert(ResourceId::new(one, "x"), vec![ResourceId::new(other, "y")]);
        }
        let text = serde_json::to_string(&Canonical(&state)).unwrap();
        assert_eq!(canonical_json(&state).to_string(), text);
        insta::assert_snapshot!(text, @r#"{"fleet":"test","format":1,"needs":{"directory:x":["unit:y"],"file:x":["unit:y"],"unit:x":["file:y"]},"packages":[],"paths":[{"content":{"sha256":"0707070707070707070707070707070707070707070707070707070707070707","size":3},"group":null,"id":"file:/a","mode":"0640","on_removal":"keep","owner":"root","path":"/a","report":false,"type":"file","validate":["true","{}"]},{"group":"adm","id":"file:/b","mode":null,"on_removal":"keep","owner":null,"path":"/b","report":false,"type":"directory"},{"id":"file:/c","on_removal":"keep","path":"/c","report":false,"target":"/a","type":"symlink"},{"id":"file:/d","on_removal":"keep","path":"/d","report":false,"type":"absent"}],"units":[]}"#);
        assert_eq!(
            compute(&state),
            hex(ring::digest::digest(&SHA256, text.as_bytes()).as_ref())
        );
    }
}
