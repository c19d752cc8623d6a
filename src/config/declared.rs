//! What people write in the host configuration.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // read table by table, for the places
pub(super) struct DeclaredConfig {
    pub source: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    pub trust: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    pub host: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    pub apply: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeclaredSource {
    pub url: Option<String>,
    pub branch: Option<String>,
    pub tags: Option<String>,
    pub path: Option<String>,
    pub interval: Option<String>,
    #[serde(rename = "mirrors")]
    _mirrors: Option<Vec<String>>,
    pub ca_file: Option<String>,
    pub token: Option<String>,
    pub username: Option<String>,
    pub ssh_key: Option<String>,
    pub proxy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeclaredTrust {
    #[serde(rename = "anchor")]
    _anchor: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    pub allowed_signers: Option<String>,
    pub revoked: Option<String>,
    pub mode: Option<DeclaredTrustMode>,
    pub accept_head_only: Option<bool>,
    pub channel: Option<String>,
    pub max_age: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DeclaredTrustMode {
    Path,
    Head,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeclaredAnchor {
    pub commit: Option<String>,
    pub payload_sha256: Option<String>,
    pub signer: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeclaredHost {
    pub name: Option<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub package_manager: Option<DeclaredPackageManager>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DeclaredPackageManager {
    Apt,
    Dnf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeclaredApply {
    pub mode: Option<DeclaredApplyMode>,
    pub max_removals: Option<usize>,
    pub protect_packages: Option<Vec<String>>,
    pub allow_paths: Option<Vec<String>>,
    pub allow_suid: Option<bool>,
    pub allow_unsigned_repositories: Option<bool>,
    pub originals_max_size: Option<String>,
    pub originals_max_age: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DeclaredApplyMode {
    Enforce,
    Report,
}
