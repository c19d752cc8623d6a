//! From fragments to a validated configuration.
//!
//! Invariant: no key is ignored. What this version does not know is a mistake, even where it would do no harm.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::{
    Anchor, Apply, ApplyMode, Config, HostSettings, PackageManager, Source, SourceUrl, Trust,
    TrustMode,
};
use crate::document::{self, Data, Expectation, Mistake, Place, Table, Value};
use crate::git::ObjectId;
use crate::model::{Class, Failure};

pub(super) const DEFAULT_BRANCH: &str = "main";
pub(super) const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
pub(super) const DEFAULT_ALLOWED_SIGNERS: &str = "/etc/limpet/allowed_signers";
pub(super) const DEFAULT_REVOKED: &str = "/etc/limpet/revoked";
pub(super) const DEFAULT_MAX_REMOVALS: usize = 10;

/// Polling more often than this would only burden the server.
const MIN_INTERVAL: Duration = Duration::from_secs(10);
/// Polling more rarely than this is no polling.
const MAX_INTERVAL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // read table by table, for the places
struct DeclaredConfig {
    source: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    trust: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    host: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    apply: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredSource {
    url: Option<String>,
    branch: Option<String>,
    path: Option<String>,
    interval: Option<String>,
    mirrors: Option<Vec<String>>,
    ca_file: Option<String>,
    token: Option<String>,
    username: Option<String>,
    proxy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredTrust {
    #[serde(rename = "anchor")]
    _anchor: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    allowed_signers: Option<String>,
    revoked: Option<String>,
    mode: Option<DeclaredTrustMode>,
    accept_head_only: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DeclaredTrustMode {
    Path,
    Head,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredAnchor {
    commit: Option<String>,
    payload_sha256: Option<String>,
    signer: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredHost {
    name: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    package_manager: Option<DeclaredPackageManager>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DeclaredPackageManager {
    Apt,
    Dnf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredApply {
    mode: Option<DeclaredApplyMode>,
    max_removals: Option<usize>,
    protect_packages: Option<Vec<String>>,
    allow_paths: Option<Vec<String>>,
    allow_suid: Option<bool>,
    allow_unsigned_repositories: Option<bool>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DeclaredApplyMode {
    Enforce,
    Report,
}

impl Config {
    /// Reads the fragments, each a file's name and text, in the order in which they are laid upon each other: the later one wins, key
    /// by key. Defaults that depend on the machine (such as host.name) may be a fragment of their own, the first.
    pub fn parse(fragments: &[(String, String)]) -> Result<Self, Vec<Failure>> {
        let mut reader = Reader::default();
        let mut merged = Table::new();
        let mut last = document::Source::new(super::CONFIG_FILE, "");
        for (file, text) in fragments {
            last = document::Source::new(file.as_str(), text.as_str());
            match document::parse(&last) {
                Ok(table) => merged.overlay(&table),
                Err(mistake) => reader.mistakes.push(mistake),
            }
        }
        // What a fragment that does not parse may have set cannot be missed.
        if reader.mistakes.is_empty() {
            let place = Place::start_of(&last);
            if let Some(config) = reader.config(&merged, &place) {
                return Ok(config);
            }
        }
        Err(reader
            .mistakes
            .into_iter()
            .map(|mistake| mistake.into_failure(Class::Config))
            .collect())
    }
}

/// Collects what is wrong.
#[derive(Default)]
struct Reader {
    mistakes: Vec<Mistake>,
}

impl Reader {
    fn config(&mut self, merged: &Table, place: &Place) -> Option<Config> {
        let expectation = Expectation::new("the host configuration");
        if let Err(mut found) = merged.deserialize_into::<DeclaredConfig>(place, expectation) {
            self.mistakes.append(&mut found);
        }
        let empty = Table::new();
        let section = |name: &str| match merged.entry(name) {
            Some(entry) => (entry.value.as_table().unwrap_or(&empty), entry.key.clone()),
            None => (&empty, place.clone()),
        };
        let (source, trust, host, apply) = (
            section("source"),
            section("trust"),
            section("host"),
            section("apply"),
        );
        let source = self.source(source.0, &source.1);
        let trust = self.trust(trust.0, &trust.1);
        let host = self.host(host.0, &host.1);
        let apply = self.apply(apply.0, &apply.1);
        if !self.mistakes.is_empty() {
            return None;
        }
        Some(Config {
            source: source?,
            trust: trust?,
            host: host?,
            apply,
        })
    }

    fn read<'de, T: Deserialize<'de> + Default>(
        &mut self,
        table: &'de Table,
        place: &'de Place,
        what: &str,
        later: &[&str],
    ) -> T {
        let expectation = Expectation {
            later,
            ..Expectation::new(what)
        };
        match table.deserialize_into(place, expectation) {
            Ok(declared) => declared,
            Err(mut found) => {
                self.mistakes.append(&mut found);
                T::default()
            }
        }
    }

    fn missing(&mut self, place: &Place, table: &Table, key: &str, section: &str, hint: &str) {
        // A key that is there and wrong was told already.
        if table.get(key).is_none() {
            self.mistakes.push(
                Mistake::new(place, format!("missing field `{key}` in {section}")).hint(hint),
            );
        }
    }

    fn wrong(&mut self, table: &Table, key: &str, place: &Place, message: String, hint: &str) {
        self.mistakes
            .push(Mistake::new(&table.place_of(key, place), message).hint(hint));
    }

    fn unsupported(&mut self, table: &Table, key: &str, place: &Place, what: &str) {
        let message = format!(
            "{what} is not supported by limpet {}",
            env!("CARGO_PKG_VERSION")
        );
        self.mistakes
            .push(Mistake::new(&table.place_of(key, place), message));
    }

    fn source(&mut self, table: &Table, place: &Place) -> Option<Source> {
        let declared: DeclaredSource = self.read(table, place, "[source]", &["tags", "ssh_key"]);
        let url = match &declared.url {
            None => {
                self.missing(
                    place,
                    table,
                    "url",
                    "[source]",
                    "say where the fleet's repository is: url = \"https://…\"",
                );
                None
            }
            Some(text) => match SourceUrl::parse(text) {
                Ok(url) => Some(url),
                Err(failure) => {
                    let mut mistake = Mistake::new(&table.place_of("url", place), failure.message);
                    mistake.hint = failure.hint;
                    self.mistakes.push(mistake);
                    None
                }
            },
        };
        let branch = declared.branch.unwrap_or_else(|| DEFAULT_BRANCH.to_owned());
        if !is_branch(&branch) {
            let message = format!("'{}' is no name of a branch", branch.escape_debug());
            self.wrong(
                table,
                "branch",
                place,
                message,
                "write the name alone, such as \"main\", without refs/heads/",
            );
        }
        let path = declared.path.unwrap_or_default();
        let path = if path == "." { String::new() } else { path };
        if !path.is_empty() && !is_relative_path(&path) {
            let message = format!("'{}' is no path within the repository", path.escape_debug());
            self.wrong(
                table,
                "path",
                place,
                message,
                "write the directory that holds fleet.toml, such as \"fleets/edge\"",
            );
        }
        let interval = match &declared.interval {
            None => Some(DEFAULT_INTERVAL),
            Some(text) => self.interval(text, table, place),
        };
        if declared.mirrors.is_some_and(|mirrors| !mirrors.is_empty()) {
            self.unsupported(table, "mirrors", place, "`mirrors` in [source]");
        }
        if let Some(token) = &declared.token {
            self.credential("token", token, table, place);
        }
        if declared.username.is_some() && declared.token.is_none() {
            self.wrong(
                table,
                "username",
                place,
                "`username` in [source] without `token`".to_owned(),
                "name the credential that holds the password: token = \"git-token\"",
            );
        }
        if let Some(file) = &declared.ca_file {
            self.absolute("ca_file", file, table, place);
        }
        if let Some(proxy) = &declared.proxy
            && !["http://", "https://", "socks5://"]
                .iter()
                .any(|scheme| proxy.starts_with(scheme))
        {
            self.wrong(
                table,
                "proxy",
                place,
                format!("'{}' is no proxy's address", proxy.escape_debug()),
                "write: proxy = \"http://proxy:3128\"",
            );
        }
        Some(Source {
            url: url?,
            branch,
            path,
            interval: interval?,
            ca_file: declared.ca_file,
            token: declared.token,
            username: declared.username,
            proxy: declared.proxy,
        })
    }

    fn interval(&mut self, text: &str, table: &Table, place: &Place) -> Option<Duration> {
        let hint = "write a number and a unit: \"60s\", \"5m\", \"1h\"";
        let Some(interval) = parse_duration(text) else {
            self.wrong(
                table,
                "interval",
                place,
                format!("'{}' is no duration", text.escape_debug()),
                hint,
            );
            return None;
        };
        if interval < MIN_INTERVAL {
            self.wrong(
                table,
                "interval",
                place,
                format!(
                    "interval '{text}' is shorter than {}s",
                    MIN_INTERVAL.as_secs()
                ),
                hint,
            );
            return None;
        }
        if interval > MAX_INTERVAL {
            self.wrong(
                table,
                "interval",
                place,
                format!("interval '{text}' is longer than a week"),
                hint,
            );
            return None;
        }
        Some(interval)
    }

    /// A systemd credential's name; never the secret itself, which is not repeated.
    fn credential(&mut self, key: &str, name: &str, table: &Table, place: &Place) {
        let is_name = !name.is_empty()
            && name.len() <= 255
            && !name.starts_with('.')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_name {
            self.wrong(table, key, place, format!("`{key}` in [source] is no name of a systemd credential"), "write the name under which LoadCredential= offers it, such as \"git-token\", not the secret");
        }
    }

    fn absolute(&mut self, key: &str, path: &str, table: &Table, place: &Place) {
        if !path.starts_with('/') || path.chars().any(char::is_control) {
            self.wrong(
                table,
                key,
                place,
                format!("`{key}` '{}' is no absolute path", path.escape_debug()),
                "write it from the root: \"/etc/limpet/…\"",
            );
        }
    }

    fn trust(&mut self, table: &Table, place: &Place) -> Option<Trust> {
        let declared: DeclaredTrust = self.read(table, place, "[trust]", &["channel", "max_age"]);
        let anchor = match table.entry("anchor") {
            None => {
                self.missing(place, table, "anchor", "[trust]", "pin the first commit to trust, as limpet enroll does: anchor = { commit = \"…\" }");
                None
            }
            Some(entry) => match &entry.value.data {
                Data::Table(anchor) => self.anchor(anchor, &entry.value.place),
                _ => None, // the type was told
            },
        };
        let mode = match (declared.mode, declared.accept_head_only) {
            (Some(DeclaredTrustMode::Head), Some(true)) => TrustMode::Head,
            (Some(DeclaredTrustMode::Head), _) => {
                self.wrong(
                    table,
                    "mode",
                    place,
                    "mode \"head\" verifies only the newest commit".to_owned(),
                    "if that is enough for you, add: accept_head_only = true",
                );
                TrustMode::Head
            }
            _ => TrustMode::Path,
        };
        let allowed_signers = declared
            .allowed_signers
            .unwrap_or_else(|| DEFAULT_ALLOWED_SIGNERS.to_owned());
        let revoked = declared
            .revoked
            .unwrap_or_else(|| DEFAULT_REVOKED.to_owned());
        self.absolute("allowed_signers", &allowed_signers, table, place);
        self.absolute("revoked", &revoked, table, place);
        Some(Trust {
            anchor: anchor?,
            allowed_signers,
            revoked,
            mode,
        })
    }

    fn anchor(&mut self, table: &Table, place: &Place) -> Option<Anchor> {
        let expectation = Expectation::new("trust.anchor");
        let declared: DeclaredAnchor = match table.deserialize_into(place, expectation) {
            Ok(declared) => declared,
            Err(mut found) => {
                self.mistakes.append(&mut found);
                return None;
            }
        };
        let Some(commit) = declared.commit else {
            self.missing(
                place,
                table,
                "commit",
                "trust.anchor",
                "write the full id of the first commit to trust",
            );
            return None;
        };
        let is_full = matches!(commit.len(), 40 | 64);
        let id = ObjectId::from_hex(commit.as_bytes())
            .ok()
            .filter(|id| is_full && !id.is_null());
        if id.is_none() {
            self.wrong(
                table,
                "commit",
                place,
                format!("'{}' is no full commit id", commit.escape_debug()),
                "write all its hexadecimal digits, as git rev-parse prints them",
            );
        }
        let payload_sha256 = declared.payload_sha256.and_then(|text| {
            let hash = parse_sha256(&text);
            if hash.is_none() {
                self.wrong(
                    table,
                    "payload_sha256",
                    place,
                    format!("'{}' is no SHA-256", text.escape_debug()),
                    "write 64 hexadecimal digits, as limpet enroll prints them",
                );
            }
            hash
        });
        if let Some(signer) = &declared.signer
            && !is_fingerprint(signer)
        {
            self.wrong(
                table,
                "signer",
                place,
                format!("'{}' is no fingerprint of a key", signer.escape_debug()),
                "write it as ssh-keygen -l prints it: SHA256:…",
            );
        }
        Some(Anchor {
            commit: id?,
            payload_sha256,
            signer: declared.signer,
        })
    }

    fn host(&mut self, table: &Table, place: &Place) -> Option<HostSettings> {
        let declared: DeclaredHost = self.read(table, place, "[host]", &[]);
        let Some(name) = declared.name else {
            self.missing(
                place,
                table,
                "name",
                "[host]",
                "write the name under which the fleet knows this host",
            );
            return None;
        };
        if !is_host_name(&name) {
            self.wrong(
                table,
                "name",
                place,
                format!("'{}' is no host name", name.escape_debug()),
                "use letters, digits, '-', '_' and '.', starting with a letter or digit",
            );
        }
        Some(HostSettings {
            name,
            labels: declared.labels.unwrap_or_default(),
            package_manager: declared.package_manager.map(|manager| match manager {
                DeclaredPackageManager::Apt => PackageManager::Apt,
                DeclaredPackageManager::Dnf => PackageManager::Dnf,
            }),
        })
    }

    fn apply(&mut self, table: &Table, place: &Place) -> Apply {
        let declared: DeclaredApply = self.read(table, place, "[apply]", &[]);
        if declared.allow_unsigned_repositories == Some(true) {
            self.unsupported(
                table,
                "allow_unsigned_repositories",
                place,
                "`allow_unsigned_repositories` in [apply]",
            );
        }
        let elements = table.get("allow_paths").and_then(Value::as_array);
        for element in elements.unwrap_or_default() {
            if let Some(path) = element.as_str()
                && !is_absolute_and_normalised(path)
            {
                self.mistakes.push(
                    Mistake::new(&element.place, format!("'{}' in `allow_paths` is no absolute, normalised path", path.escape_debug()))
                        .hint("write it from the root, without '.', '..' and a '/' at its end; it stands for itself and what lies below"),
                );
            }
        }
        Apply {
            mode: match declared.mode {
                Some(DeclaredApplyMode::Report) => ApplyMode::Report,
                Some(DeclaredApplyMode::Enforce) | None => ApplyMode::Enforce,
            },
            max_removals: declared.max_removals.unwrap_or(DEFAULT_MAX_REMOVALS),
            protect_packages: declared.protect_packages.unwrap_or_default(),
            allow_paths: declared.allow_paths.unwrap_or_default(),
            allow_suid: declared.allow_suid.unwrap_or(false),
        }
    }
}

/// A duration in jiff's friendly format, such as "60s" or "1h 30m".
fn parse_duration(text: &str) -> Option<Duration> {
    let duration: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(duration).ok()
}

fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(hash)
}

/// `SHA256:` and 43 characters of base64, as OpenSSH writes it.
fn is_fingerprint(text: &str) -> bool {
    text.strip_prefix("SHA256:").is_some_and(|rest| {
        rest.len() == 43
            && rest
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte))
    })
}

/// What git-check-ref-format(1) takes for a branch.
fn is_branch(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with("refs/")
        && !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && name != "@"
        && name
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
        && !name
            .chars()
            .any(|character| character.is_control() || " ~^:?*[\\".contains(character))
}

fn is_relative_path(path: &str) -> bool {
    path.split('/').all(|part| {
        !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control)
    })
}

fn is_absolute_and_normalised(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(is_relative_path)
}

/// The same grammar as for names in the fleet repository.
fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINIMAL: &str = "[source]\nurl = \"https://git.example.net/fleet.git\"\n[trust]\nanchor = { commit = \"0123456789012345678901234567890123456789\" }\n[host]\nname = \"gw\"\n";

    fn parse(fragments: &[&str]) -> Result<Config, String> {
        let fragments: Vec<(String, String)> = fragments
            .iter()
            .enumerate()
            .map(|(index, text)| (format!("/etc/limpet/{index}.toml"), (*text).to_owned()))
            .collect();
        Config::parse(&fragments).map_err(|failures| {
            assert!(
                failures
                    .iter()
                    .all(|failure| failure.class == Class::Config)
            );
            let drawn: Vec<String> = failures
                .into_iter()
                .map(|failure| failure.rendered.unwrap())
                .collect();
            drawn.join("\n")
        })
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let config = parse(&[MINIMAL]).unwrap();
        insta::assert_snapshot!(format!("{config:#?}"), @r#"
        Config {
            source: Source {
                url: Http(
                    "https://git.example.net/fleet.git",
                ),
                branch: "main",
                path: "",
                interval: 60s,
                ca_file: None,
                token: None,
                username: None,
                proxy: None,
            },
            trust: Trust {
                anchor: Anchor {
                    commit: Sha1(0123456789012345678901234567890123456789),
                    payload_sha256: None,
                    signer: None,
                },
                allowed_signers: "/etc/limpet/allowed_signers",
                revoked: "/etc/limpet/revoked",
                mode: Path,
            },
            host: HostSettings {
                name: "gw",
                labels: {},
                package_manager: None,
            },
            apply: Apply {
                mode: Enforce,
                max_removals: 10,
                protect_packages: [],
                allow_paths: [],
                allow_suid: false,
            },
        }
        "#);
    }

    #[test]
    fn a_later_fragment_wins_key_by_key() {
        let config = parse(&[
            MINIMAL,
            "[source]\ninterval = \"5m\"\nbranch = \"prod\"\n[host]\nlabels = { site = \"lagos\" }",
            "[source]\nbranch = \"canary\"",
        ])
        .unwrap();
        assert_eq!(config.source.branch, "canary");
        assert_eq!(config.source.interval, Duration::from_secs(300));
        assert_eq!(config.host.name, "gw");
        assert_eq!(config.host.labels["site"], "lagos");
    }

    #[test]
    fn every_key_of_the_documentation_is_understood() {
        let config = parse(&[r#"
[source]
url      = "https://git.example.net/fleet.git"
branch   = "main"
path     = "."
interval = "60s"
mirrors  = []
ca_file  = "/etc/limpet/ca.pem"
token    = "git-token"
username = "oauth2"
proxy    = "http://proxy:3128"
[trust]
anchor          = { commit = "0123456789012345678901234567890123456789", payload_sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", signer = "SHA256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
allowed_signers = "/etc/limpet/allowed_signers"
revoked         = "/etc/limpet/revoked"
mode            = "head"
accept_head_only = true
[host]
name   = "gw-lag-02"
labels = { site = "lagos" }
package_manager = "apt"
[apply]
mode         = "report"
max_removals = 10
protect_packages = ["linux-image-amd64"]
allow_paths = ["/etc/passwd"]
allow_suid = true
allow_unsigned_repositories = false
"#])
        .unwrap();
        assert_eq!(config.trust.mode, TrustMode::Head);
        assert_eq!(config.trust.anchor.payload_sha256, Some([0xaa; 32]));
        assert_eq!(config.apply.mode, ApplyMode::Report);
        assert_eq!(config.source.path, "");
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        insta::assert_snapshot!(parse(&[MINIMAL, "[source]\nintervall = \"60s\"\ninterval = \"5s\"\nurl = \"git@host:x\"\ntags = \">=1\"\n[trust]\nmode = \"head\"\nchannel = \"prod\"\n[apply]\nmode = \"enfroce\"\nmax_removals = \"10\"\nallow_paths = [\"etc\"]\n[hots]\nname = 1"]).unwrap_err(), @r#"
        error: /etc/limpet/1.toml:13:2: unknown field `hots` in the host configuration, expected `host`
           |
        13 | [hots]
           |  ^^^^ no such field
           |
        hint: did you mean 'host'?
        error: /etc/limpet/1.toml:2:1: unknown field `intervall` in [source], expected `interval`
          |
        2 | intervall = "60s"
          | ^^^^^^^^^ no such field
          |
        hint: did you mean 'interval'?
        error: /etc/limpet/1.toml:5:1: `tags` in [source] is not supported by limpet 0.1.0
          |
        5 | tags = ">=1"
          | ^^^^
        error: /etc/limpet/1.toml:8:1: `channel` in [trust] is not supported by limpet 0.1.0
          |
        8 | channel = "prod"
          | ^^^^^^^
        error: /etc/limpet/1.toml:10:8: unknown value `enfroce`, expected `enforce` or `report` for `mode` in [apply]
           |
        10 | mode = "enfroce"
           |        ^^^^^^^^^
           |
        hint: did you mean 'enforce'?
        error: /etc/limpet/1.toml:11:16: expected a whole number, not negative, found string "10" for `max_removals` in [apply]
           |
        11 | max_removals = "10"
           |                ^^^^
        error: /etc/limpet/1.toml:12:16: 'etc' in `allow_paths` is no absolute, normalised path
           |
        12 | allow_paths = ["etc"]
           |                ^^^^^
           |
        hint: write it from the root, without '.', '..' and a '/' at its end; it stands for itself and what lies below
        "#);
    }

    #[test]
    fn what_must_be_said_is_missed() {
        insta::assert_snapshot!(parse(&["[source]\nbranch = \"refs/heads/main\"\n[trust]\nanchor = { commit = \"abc\" }\n"]).unwrap_err(), @r#"
        error: /etc/limpet/0.toml:1:2: missing field `url` in [source]
          |
        1 | [source]
          |  ^^^^^^
          |
        hint: say where the fleet's repository is: url = "https://…"
        error: /etc/limpet/0.toml:2:10: 'refs/heads/main' is no name of a branch
          |
        2 | branch = "refs/heads/main"
          |          ^^^^^^^^^^^^^^^^^
          |
        hint: write the name alone, such as "main", without refs/heads/
        error: /etc/limpet/0.toml:4:21: 'abc' is no full commit id
          |
        4 | anchor = { commit = "abc" }
          |                     ^^^^^
          |
        hint: write all its hexadecimal digits, as git rev-parse prints them
        error: /etc/limpet/0.toml:1:1: missing field `name` in [host]
          |
        1 | [source]
          | ^
          |
        hint: write the name under which the fleet knows this host
        "#);
    }

    #[test]
    fn a_secret_in_place_of_a_credentials_name_is_not_repeated() {
        let text = format!("{MINIMAL}[apply]\n");
        let drawn = parse(&[&text, "[source]\nusername = \"x\""]).unwrap_err();
        assert!(drawn.contains("without `token`"), "{drawn}");
        let fragments = vec![
            ("a".to_owned(), MINIMAL.to_owned()),
            (
                "b".to_owned(),
                "[source]\ntoken = \"glpat/hunter2 \"".to_owned(),
            ),
        ];
        let failures = Config::parse(&fragments).unwrap_err();
        assert!(!failures[0].to_string().contains("hunter2"));
    }

    #[track_caller]
    fn check_branch(name: &str, expected: bool) {
        assert_eq!(is_branch(name), expected, "{name:?}");
    }

    #[test]
    fn a_branch_is_a_plain_name() {
        check_branch("main", true);
        check_branch("release/1.2", true);
        check_branch("refs/heads/main", false);
        check_branch("a..b", false);
        check_branch("a b", false);
        check_branch("-x", false);
        check_branch("a.lock", false);
        check_branch("a//b", false);
        check_branch("", false);
    }

    #[track_caller]
    fn check_duration(text: &str, expected: Option<u64>) {
        assert_eq!(
            parse_duration(text).map(|duration| duration.as_secs()),
            expected,
            "{text:?}"
        );
    }

    #[test]
    fn a_duration_has_a_unit() {
        check_duration("60s", Some(60));
        check_duration("5m", Some(300));
        check_duration("36h", Some(129_600));
        check_duration("1h 30m", Some(5_400));
        check_duration("60", None);
        check_duration("-60s", None);
        check_duration("", None);
        check_duration("soon", None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            let _ = parse(&[MINIMAL, &text]);
        }

        #[test]
        fn values_never_panic(key in "url|branch|path|interval|token|proxy", value in "[ -~é]{0,12}") {
            let value = serde_json::Value::from(value);
            let _ = parse(&[MINIMAL, &format!("[source]\n{key} = {value}")]);
        }
    }
}
