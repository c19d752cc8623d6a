//! The digest of a desired state: one number that CI, a laptop and the host agree on.
//!
//! The digest is the hex SHA-256 of the *canonical JSON*: one compact object (no white space; keys, and resources by path or name, in
//! the order of their bytes) that says everything an apply depends on and nothing else:
//!
//! ```text
//! {"fleet": "…", "format": 1, "needs": {"kind:name": ["kind:name"]}, "packages": [{"name", "id", "state", …}],
//!  "paths": [{"path", "id", "report", "on_removal", "type": "file" | "directory" | "symlink" | "absent", …}], "units": [{"name", "id", …}]}
//! ```
//!
//! A content is `{"sha256", "size"}`: where its bytes are kept differs between a working tree and a revision. Places in files are no
//! part of it, so that a comment changes no digest.

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::DesiredState;
use crate::git::hex;
use crate::kinds::file::{DesiredPath, PathSpec};
use crate::kinds::kind::Content;
use crate::kinds::package::{DesiredPackage, PackageState};
use crate::kinds::unit::DesiredUnit;
use crate::model::ResourceId;

/// The canonical JSON of `state`, whose digest is its [`DesiredState::digest`].
pub fn canonical_json(state: &DesiredState) -> Value {
    let needs: serde_json::Map<String, Value> = state
        .needs
        .iter()
        .map(|(id, needs)| (id.to_string(), ids(needs)))
        .collect();
    let mut canonical = json!({
        "format": 1,
        "fleet": state.fleet,
        "paths": state.paths.iter().map(path_json).collect::<Vec<_>>(),
        "packages": state.packages.iter().map(package_json).collect::<Vec<_>>(),
        "units": state.units.iter().map(unit_json).collect::<Vec<_>>(),
        "needs": needs,
    });
    canonical.sort_all_objects();
    canonical
}

/// The digest of `state`.
pub(super) fn compute(state: &DesiredState) -> String {
    let text = canonical_json(state).to_string();
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}

fn ids(ids: &[ResourceId]) -> Value {
    ids.iter().map(ToString::to_string).collect()
}

/// One path.
pub(super) fn path_json(path: &DesiredPath) -> Value {
    let mut value = json!({
        "path": path.path,
        "id": path.id,
        "report": path.report,
        "on_removal": path.on_removal,
    });
    let (kind, spec) = match &path.spec {
        PathSpec::File {
            content,
            mode,
            owner,
            group,
            validate,
        } => (
            "file",
            json!({
                "content": content.as_ref().map(content_json),
                "mode": mode.map(octal),
                "owner": owner,
                "group": group,
                "validate": validate,
            }),
        ),
        PathSpec::Directory { mode, owner, group } => (
            "directory",
            json!({ "mode": mode.map(octal), "owner": owner, "group": group }),
        ),
        PathSpec::Symlink { target } => ("symlink", json!({ "target": target })),
        PathSpec::Absent => ("absent", json!({})),
    };
    value["type"] = json!(kind);
    extend(&mut value, spec);
    value
}

fn extend(value: &mut Value, more: Value) {
    if let (Value::Object(value), Value::Object(more)) = (value, more) {
        value.extend(more);
    }
}

fn content_json(content: &Content) -> Value {
    json!({ "sha256": hex(&content.sha256), "size": content.size })
}

fn octal(mode: u32) -> String {
    format!("{mode:04o}")
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
    value
}

/// One unit.
pub(super) fn unit_json(unit: &DesiredUnit) -> Value {
    json!({
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
    })
}
