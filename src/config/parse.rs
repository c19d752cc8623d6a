//! From fragments to a validated configuration.
//!
//! Invariant: no key is ignored. What this version does not know is a mistake, even where it would do no harm.

use std::time::Duration;

use semver::VersionReq;
use serde::Deserialize;

use super::declared::{
    DeclaredAnchor, DeclaredApply, DeclaredApplyMode, DeclaredConfig, DeclaredHost,
    DeclaredPackageManager, DeclaredSource, DeclaredTrust, DeclaredTrustMode,
};
use super::grammar::{
    is_absolute_and_normalised, is_branch, is_channel, is_fingerprint, is_host_name,
    is_relative_path, parse_duration, parse_sha256, parse_size,
};
use super::{
    Anchor, Apply, ApplyMode, Config, Follow, HostSettings, PackageManager, Source, SourceUrl,
    Trust, TrustMode,
};
use crate::document::{self, Data, Expectation, Mistake, Place, Table, Value};
use crate::git::ObjectId;
use crate::model::{Class, Failure};

pub(super) const DEFAULT_BRANCH: &str = "main";
pub(super) const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
pub(super) const DEFAULT_ALLOWED_SIGNERS: &str = "/etc/limpet/allowed_signers";
pub(super) const DEFAULT_REVOKED: &str = "/etc/limpet/revoked";
pub(super) const DEFAULT_MAX_REMOVALS: usize = 10;
/// Configuration files are small: this is for the few that are not.
pub(super) const DEFAULT_ORIGINALS_MAX_BYTES: u64 = 512 << 20;

/// All of them share the time of one poll.
const MAX_MIRRORS: usize = 8;

/// Polling more often than this would only burden the server.
const MIN_INTERVAL: Duration = Duration::from_secs(10);
/// Polling more rarely than this is no polling.
const MAX_INTERVAL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

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
    ) -> T {
        match table.deserialize_into(place, Expectation::new(what)) {
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

    fn follow(
        &mut self,
        declared: &DeclaredSource,
        table: &Table,
        place: &Place,
    ) -> Option<Follow> {
        if let (Some(_), Some(_)) = (&declared.branch, &declared.tags) {
            self.wrong(
                table,
                "tags",
                place,
                "`branch` and `tags` in [source] exclude each other".to_owned(),
                "remove `tags` to follow the branch, or `branch` to follow releases",
            );
            return None;
        }
        if let Some(text) = &declared.tags {
            return match VersionReq::parse(text) {
                Ok(wanted) => Some(Follow::Releases(wanted)),
                Err(error) => {
                    let message = format!("'{}' says no versions: {error}", text.escape_debug());
                    let hint = "write what the tags' versions must meet, such as \">=1.4, <2\", or \"*\" for all";
                    self.wrong(table, "tags", place, message, hint);
                    None
                }
            };
        }
        let branch = declared.branch.as_deref().unwrap_or(DEFAULT_BRANCH);
        if !is_branch(branch) {
            let message = format!("'{}' is no name of a branch", branch.escape_debug());
            self.wrong(
                table,
                "branch",
                place,
                message,
                "write the name alone, such as \"main\", without refs/heads/",
            );
            return None;
        }
        Some(Follow::Branch(branch.to_owned()))
    }

    fn source(&mut self, table: &Table, place: &Place) -> Option<Source> {
        let declared: DeclaredSource = self.read(table, place, "[source]");
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
        let follow = self.follow(&declared, table, place);
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
        let mirrors = self.mirrors(table);
        if let Some(token) = &declared.token {
            self.credential("token", token, table, place);
            if url.as_ref().is_some_and(|url| !url.is_https()) {
                self.wrong(
                    table,
                    "token",
                    place,
                    "`token` in [source] is sent only over https".to_owned(),
                    "use an https:// address, or remove `token`",
                );
            }
        }
        if let Some(key) = &declared.ssh_key {
            self.credential("ssh_key", key, table, place);
            if url
                .as_ref()
                .is_some_and(|url| !matches!(url, SourceUrl::Ssh(_)))
            {
                self.wrong(
                    table,
                    "ssh_key",
                    place,
                    "`ssh_key` in [source] is for an address over ssh".to_owned(),
                    "use an ssh:// address, or remove `ssh_key`",
                );
            }
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
            && !["http://", "https://"]
                .iter()
                .any(|scheme| proxy.starts_with(scheme))
        {
            self.wrong(
                table,
                "proxy",
                place,
                // Not repeated: it may have a password.
                "`proxy` in [source] is no proxy's address".to_owned(),
                "write: proxy = \"http://proxy:3128\"",
            );
        }
        Some(Source {
            url: url?,
            mirrors,
            follow: follow?,
            path,
            interval: interval?,
            ca_file: declared.ca_file,
            token: declared.token,
            username: declared.username,
            ssh_key: declared.ssh_key,
            known_hosts: super::KNOWN_HOSTS.to_owned(),
            proxy: declared.proxy,
        })
    }

    fn mirrors(&mut self, table: &Table) -> Vec<SourceUrl> {
        let elements = table.get("mirrors").and_then(Value::as_array);
        let mut mirrors = Vec::new();
        for element in elements.unwrap_or_default() {
            // What is no text was told.
            match element.as_str().map(SourceUrl::parse) {
                Some(Ok(url)) => mirrors.push(url),
                Some(Err(failure)) => {
                    let mut mistake = Mistake::new(&element.place, failure.message);
                    mistake.hint = failure.hint;
                    self.mistakes.push(mistake);
                }
                None => {}
            }
        }
        if mirrors.len() > MAX_MIRRORS
            && let Some(element) = elements.unwrap_or_default().get(MAX_MIRRORS)
        {
            self.mistakes.push(Mistake::new(
                &element.place,
                format!("more than {MAX_MIRRORS} `mirrors` in [source]"),
            ));
        }
        mirrors
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
        let declared: DeclaredTrust = self.read(table, place, "[trust]");
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
        if let Some(channel) = &declared.channel
            && !is_channel(channel)
        {
            self.wrong(
                table,
                "channel",
                place,
                format!("'{}' is no channel", channel.escape_debug()),
                "use letters, digits, '-', '_' and '.', at most 64: channel = \"prod\"",
            );
        }
        let mut max_age = None;
        if let Some(text) = &declared.max_age {
            max_age = parse_duration(text).filter(|age| !age.is_zero());
            if max_age.is_none() {
                self.wrong(
                    table,
                    "max_age",
                    place,
                    format!("'{}' is no duration", text.escape_debug()),
                    "write hours or days: max_age = \"26h\"",
                );
            }
        }
        Some(Trust {
            anchor: anchor?,
            allowed_signers,
            revoked,
            mode,
            channel: declared.channel,
            max_age,
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
                "write it as ssh-keygen -l prints it: SHA256:…, or openpgp: and what gpg prints",
            );
        }
        Some(Anchor {
            commit: id?,
            payload_sha256,
            signer: declared.signer,
        })
    }

    fn host(&mut self, table: &Table, place: &Place) -> Option<HostSettings> {
        let declared: DeclaredHost = self.read(table, place, "[host]");
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
        let declared: DeclaredApply = self.read(table, place, "[apply]");
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
        let mut originals_max_bytes = DEFAULT_ORIGINALS_MAX_BYTES;
        if let Some(text) = &declared.originals_max_size {
            match parse_size(text) {
                Some(bytes) => originals_max_bytes = bytes,
                None => self.wrong(
                    table,
                    "originals_max_size",
                    place,
                    format!("'{}' is no size", text.escape_debug()),
                    "write a number of bytes and a unit: \"300K\", \"512M\", \"2G\"",
                ),
            }
        }
        let mut originals_max_age = None;
        if let Some(text) = &declared.originals_max_age {
            originals_max_age = parse_duration(text);
            if originals_max_age.is_none() {
                self.wrong(
                    table,
                    "originals_max_age",
                    place,
                    format!("'{}' is no duration", text.escape_debug()),
                    "write a number and a unit: \"720h\"",
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
            allow_unsigned_repositories: declared.allow_unsigned_repositories.unwrap_or(false),
            originals_max_bytes,
            originals_max_age,
        }
    }
}
