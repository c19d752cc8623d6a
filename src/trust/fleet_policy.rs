//! trust.toml: the policy that a revision carries, which says who may make the next one.
//!
//! It stands beside fleet.toml, and every path in it is relative to their directory. Keys have names, and rules use the names. A
//! *root* key may change the policy and everything else; what other keys may change is allowed path by path.
//!
//! Invariant: one mistake refuses the whole file, as in every file that trust is read from. Nothing here judges a commit; who may
//! follow whom is [`super::succession`]'s, and what a step may change [`super::step`]'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use glob::{MatchOptions, Pattern};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::key::{PublicKey, is_fingerprint};
use super::rule::Rule;
use crate::document::{Data, Expectation, Mistake, Place, Source, Table, Value, parse};
use crate::model::Kind;

/// Where the policy stands, below the directory of the fleet.
pub const POLICY_FILE: &str = "trust.toml";

/// A policy in a repository.
#[derive(Debug, Clone)]
pub struct FleetPolicy {
    pub(super) source: Arc<Source>,
    /// Counts its changes, from 1.
    pub version: u64,
    /// The keys by name.
    pub keys: BTreeMap<String, NamedKey>,
    /// Who may change the policy.
    pub root: Root,
    /// Who else may change what.
    pub allowed: Vec<Allow>,
    /// What files may declare.
    pub limits: Vec<Limit>,
    /// What needs more than one signer.
    pub protected: Vec<Protect>,
    /// Which keys no longer count.
    pub revoked: Vec<RevokedKey>,
}

/// A key of a policy.
#[derive(Debug, Clone)]
pub struct NamedKey {
    pub(super) key: PublicKey,
    /// `SHA256:…`
    pub fingerprint: String,
    /// It may sign until then.
    pub not_after: Option<Timestamp>,
}

/// `[root]`
#[derive(Debug, Clone)]
pub struct Root {
    /// Names of keys.
    pub keys: Vec<String>,
    /// How many of them must sign a change of the policy.
    pub threshold: usize,
    pub(super) place: Place,
}

/// One `[[allow]]`.
#[derive(Debug, Clone)]
pub struct Allow {
    /// Names of keys.
    pub keys: Vec<String>,
    /// What they may change.
    pub paths: Paths,
    /// The channels in which they may release.
    pub channels: Vec<String>,
}

/// One `[[limit]]`.
#[derive(Debug, Clone)]
pub struct Limit {
    /// The files it is about.
    pub paths: Paths,
    /// May they set variables.
    pub allows_variables: bool,
    /// The resources they may declare.
    pub resources: Vec<(Kind, Pattern)>,
    /// Where it stands.
    pub place: Place,
}

/// One `[[protect]]`.
#[derive(Debug, Clone)]
pub struct Protect {
    /// What it is about.
    pub paths: Paths,
    /// How many keys must sign a change.
    pub threshold: usize,
    pub(super) place: Place,
}

/// One `[[revoked]]`.
#[derive(Debug, Clone)]
pub struct RevokedKey {
    /// A name of a key, or a fingerprint.
    pub key: String,
    /// Why it no longer counts.
    pub reason: Reason,
    pub(super) place: Place,
}

/// Why a key no longer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It is not used any more: as if it had expired.
    Retired,
    /// Somebody else may have it: nothing new of it counts, whatever its date.
    Compromised,
}

impl Reason {
    /// The rule that refuses such a key.
    pub(super) fn rule(self) -> Rule {
        match self {
            Reason::Retired => Rule::KeyExpired,
            Reason::Compromised => Rule::KeyRevoked,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Reason::Retired => "retired",
            Reason::Compromised => "compromised",
        })
    }
}

/// Patterns of paths: `*` within a name, `**` for any number of directories.
#[derive(Debug, Clone, Default)]
pub struct Paths(Vec<Pattern>);

/// How patterns are read: a `*` never crosses a slash.
const MATCHING: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

impl Paths {
    /// Does one of them cover `path`?
    pub fn cover(&self, path: &str) -> bool {
        self.0
            .iter()
            .any(|pattern| pattern.matches_with(path, MATCHING))
    }

    /// The patterns as they were written.
    pub fn written(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Pattern::as_str)
    }
}

impl Limit {
    /// May the files it is about declare this resource?
    pub fn allows(&self, kind: Kind, name: &str) -> bool {
        self.resources
            .iter()
            .any(|(allowed, pattern)| *allowed == kind && pattern.matches_with(name, MATCHING))
    }

    /// What they may declare, as it is written.
    pub fn written(&self) -> String {
        let variables = self.allows_variables.then(|| "vars".to_owned());
        let resources = self
            .resources
            .iter()
            .map(|(kind, pattern)| format!("{kind}:{pattern}"));
        let words: Vec<String> = variables.into_iter().chain(resources).collect();
        words.join(", ")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // read for their types; the values are taken with their places
struct Declared {
    version: Option<i64>,
    key: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    root: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    allow: Option<Vec<serde::de::IgnoredAny>>,
    limit: Option<Vec<serde::de::IgnoredAny>>,
    protect: Option<Vec<serde::de::IgnoredAny>>,
    revoked: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredKey {
    key: Option<String>,
    not_after: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // as above
struct DeclaredRoot {
    keys: Option<Vec<String>>,
    threshold: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // as above
struct DeclaredAllow {
    keys: Option<Vec<String>>,
    paths: Option<Vec<String>>,
    channels: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // as above
struct DeclaredLimit {
    paths: Option<Vec<String>>,
    resources: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // as above
struct DeclaredProtect {
    paths: Option<Vec<String>>,
    threshold: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredRevoked {
    key: Option<String>,
    reason: Option<Reason>,
}

impl FleetPolicy {
    /// Reads the text of a policy, or tells everything that is wrong with it.
    pub fn parse(source: &Arc<Source>) -> Result<Self, Vec<Mistake>> {
        let table = parse(source).map_err(|mistake| vec![mistake])?;
        let mut reading = Reading {
            top: Place::start_of(source),
            mistakes: Vec::new(),
            names: Vec::new(),
        };
        let policy = reading.policy(source, &table);
        reading
            .mistakes
            .sort_by_key(|mistake| mistake.place.as_ref().map(Place::location));
        match policy {
            Some(policy) if reading.mistakes.is_empty() => Ok(policy),
            _ => Err(reading.mistakes),
        }
    }

    /// The file's name, as errors show it.
    pub fn file(&self) -> &str {
        self.source.file()
    }

    /// Its text.
    pub fn text(&self) -> &str {
        self.source.text()
    }

    pub(super) fn find(&self, key: &PublicKey) -> Option<(&str, &NamedKey)> {
        self.keys
            .iter()
            .find(|(_, known)| known.key == *key)
            .map(|(name, known)| (name.as_str(), known))
    }

    /// Is the key called `name` a root key?
    pub fn is_root(&self, name: &str) -> bool {
        self.root.keys.iter().any(|key| key == name)
    }

    /// May the key called `name` change `path`?
    pub fn may_change(&self, name: &str, path: &str) -> bool {
        self.is_root(name)
            || (path != POLICY_FILE
                && self.allowed.iter().any(|allow| {
                    allow.keys.iter().any(|key| key == name) && allow.paths.cover(path)
                }))
    }

    /// May the key called `name` release in `channel`?
    pub fn may_release(&self, name: &str, channel: &str) -> bool {
        self.allowed.iter().any(|allow| {
            allow.keys.iter().any(|key| key == name)
                && allow.channels.iter().any(|known| known == channel)
        })
    }

    /// The most signers that a rule asks for a change of `path`, and the rule's place.
    pub(super) fn protection(&self, path: &str) -> Option<(usize, &Place)> {
        self.protected
            .iter()
            .filter(|protect| protect.paths.cover(path))
            .map(|protect| (protect.threshold, &protect.place))
            .max_by_key(|(threshold, _)| *threshold)
    }

    /// The fingerprint that `word` stands for, where it is one or the name of a key.
    pub(super) fn fingerprint_of<'a>(&'a self, word: &'a str) -> Option<&'a str> {
        match self.keys.get(word) {
            Some(key) => Some(&key.fingerprint),
            None => Some(word).filter(|word| is_fingerprint(word)),
        }
    }
}

struct Reading {
    top: Place,
    mistakes: Vec<Mistake>,
    names: Vec<String>,
}

impl Reading {
    fn wrong(&mut self, place: &Place, message: impl Into<String>, hint: impl Into<String>) {
        self.mistakes.push(Mistake::new(place, message).hint(hint));
    }

    fn policy(&mut self, source: &Arc<Source>, table: &Table) -> Option<FleetPolicy> {
        let top = self.top.clone();
        if let Err(mut found) =
            table.deserialize_into::<Declared>(&top, Expectation::new(POLICY_FILE))
        {
            self.mistakes.append(&mut found);
            return None;
        }
        let version = self.version(table);
        let keys = self.keys(table);
        self.names = keys.keys().cloned().collect();
        let root = self.root(table);
        let allowed = self.each(table, "allow", Reading::allow);
        let limits = self.each(table, "limit", Reading::limit);
        let protected = self.each(table, "protect", Reading::protect);
        let revoked = self.each(table, "revoked", Reading::revoked);
        Some(FleetPolicy {
            source: Arc::clone(source),
            version: version?,
            keys,
            root: root?,
            allowed,
            limits,
            protected,
            revoked,
        })
    }

    fn version(&mut self, table: &Table) -> Option<u64> {
        let top = self.top.clone();
        match table.get("version") {
            None => {
                let message = format!("missing field `version` in {POLICY_FILE}");
                self.wrong(&top, message, "count its changes: version = 1");
                None
            }
            Some(value) => match value.data {
                Data::Integer(version) if version > 0 => u64::try_from(version).ok(),
                _ => {
                    let message = format!("'{value}' is no version");
                    self.wrong(&value.place, message, "count its changes, from 1");
                    None
                }
            },
        }
    }

    fn keys(&mut self, table: &Table) -> BTreeMap<String, NamedKey> {
        let mut keys: BTreeMap<String, NamedKey> = BTreeMap::new();
        let declared = table.get("key").and_then(Value::as_table);
        for (name, entry) in declared.into_iter().flat_map(Table::iter) {
            if !is_key_name(name) {
                self.wrong(
                    &entry.key,
                    format!("'{}' is no name of a key", name.escape_debug()),
                    "use letters, digits, '-', '_', '.' and '@', at most 64",
                );
                continue;
            }
            let Some(key) = self.key(name, &entry.value) else {
                continue;
            };
            if let Some((first, _)) = keys.iter().find(|(_, known)| known.key == key.key) {
                let message = format!("the key of '{name}' is also that of '{first}'");
                self.wrong(&entry.value.place, message, "give each key one name");
                continue;
            }
            keys.insert(name.to_owned(), key);
        }
        keys
    }

    fn key(&mut self, name: &str, value: &Value) -> Option<NamedKey> {
        let (text, place, not_after) = match &value.data {
            Data::String(text) => (text.clone(), value.place.clone(), None),
            Data::Table(table) => {
                let what = format!("key '{name}'");
                let declared: DeclaredKey =
                    match table.deserialize_into(&value.place, Expectation::new(&what)) {
                        Ok(declared) => declared,
                        Err(mut found) => {
                            self.mistakes.append(&mut found);
                            return None;
                        }
                    };
                let Some(text) = declared.key else {
                    let message = format!("missing field `key` in key '{name}'");
                    self.wrong(&value.place, message, "write: key = \"ssh-ed25519 AAAA…\"");
                    return None;
                };
                let not_after = match declared.not_after {
                    None => None,
                    Some(written) => {
                        let place = table.place_of("not_after", &value.place);
                        Some(self.time(&written, &place)?)
                    }
                };
                (text, table.place_of("key", &value.place), not_after)
            }
            other => {
                let message = format!(
                    "expected a string or a table for key '{name}', found {}",
                    other.type_name()
                );
                self.wrong(&value.place, message, "write: \"ssh-ed25519 AAAA…\"");
                return None;
            }
        };
        let mut words = text.split_ascii_whitespace();
        let (kind, base64) = (words.next(), words.next());
        let key = PublicKey::parse_text(kind.unwrap_or_default(), base64.unwrap_or_default())
            .map_err(|error| error.to_string())
            .and_then(|key| match key.weakness() {
                None => Ok(key),
                Some(weakness) => Err(format!("it {weakness}")),
            });
        match key {
            Ok(key) => Some(NamedKey {
                fingerprint: key.fingerprint(),
                key,
                not_after,
            }),
            Err(cause) => {
                let message = format!("the key of '{name}' does not count: {cause}");
                self.wrong(
                    &place,
                    message,
                    "copy it from the .pub file that ssh-keygen made: \"ssh-ed25519 AAAA…\"; or write \"openpgp \" and what gpg --export KEY | base64 -w0 prints",
                );
                None
            }
        }
    }

    fn time(&mut self, text: &str, place: &Place) -> Option<Timestamp> {
        match text.parse() {
            Ok(time) if text.ends_with('Z') => Some(time),
            _ => {
                let message = format!("'{}' is no time in UTC", text.escape_debug());
                self.wrong(place, message, "write: \"2027-06-01T00:00:00Z\"");
                None
            }
        }
    }

    fn root(&mut self, table: &Table) -> Option<Root> {
        let top = self.top.clone();
        let Some(entry) = table.entry("root") else {
            self.wrong(
                &top,
                format!("missing table `root` in {POLICY_FILE}"),
                "say who may change the policy: [root] with keys = [\"NAME\"]",
            );
            return None;
        };
        let place = entry.key.clone();
        let declared = entry.value.as_table()?;
        self.read::<DeclaredRoot>(declared, &place, "[root]")?;
        let keys = self.key_names(declared, &place, "[root]")?;
        let threshold = match declared.get("threshold") {
            None => 1,
            Some(value) => self.threshold(value)?,
        };
        Some(Root {
            keys,
            threshold,
            place,
        })
    }

    fn threshold(&mut self, value: &Value) -> Option<usize> {
        let threshold = match value.data {
            Data::Integer(threshold) if threshold > 0 => usize::try_from(threshold).ok(),
            _ => None,
        };
        if threshold.is_none() {
            let message = format!("'{value}' is no number of signers");
            self.wrong(&value.place, message, "write 1 or more");
        }
        threshold
    }

    fn read<T: serde::de::DeserializeOwned>(
        &mut self,
        table: &Table,
        place: &Place,
        what: &str,
    ) -> Option<T> {
        match table.deserialize_into(place, Expectation::new(what)) {
            Ok(declared) => Some(declared),
            Err(mut found) => {
                self.mistakes.append(&mut found);
                None
            }
        }
    }

    fn each<T>(
        &mut self,
        table: &Table,
        section: &str,
        read: fn(&mut Self, &Table, &Place) -> Option<T>,
    ) -> Vec<T> {
        let values = table.get(section).and_then(Value::as_array);
        let mut all = Vec::new();
        for value in values.unwrap_or_default() {
            match value.as_table() {
                Some(table) => all.extend(read(self, table, &value.place)),
                None => {
                    let message = format!(
                        "expected a table for `{section}`, found {}",
                        value.data.type_name()
                    );
                    self.wrong(&value.place, message, format!("write: [[{section}]]"));
                }
            }
        }
        all
    }

    fn allow(&mut self, table: &Table, place: &Place) -> Option<Allow> {
        self.read::<DeclaredAllow>(table, place, "[[allow]]")?;
        let keys = self.key_names(table, place, "[[allow]]")?;
        let channels: Vec<String> = strings(table.get("channels"))
            .map(|(channel, _)| channel.to_owned())
            .collect();
        let paths = match table.get("paths") {
            None if !channels.is_empty() => Paths::default(),
            _ => self.paths(table, place, "[[allow]]")?,
        };
        Some(Allow {
            keys,
            paths,
            channels,
        })
    }

    fn limit(&mut self, table: &Table, place: &Place) -> Option<Limit> {
        self.read::<DeclaredLimit>(table, place, "[[limit]]")?;
        let paths = self.paths(table, place, "[[limit]]")?;
        let mut limit = Limit {
            paths,
            allows_variables: false,
            resources: Vec::new(),
            place: place.clone(),
        };
        if table.get("resources").is_none() {
            self.wrong(
                place,
                "missing field `resources` in [[limit]]",
                "say what these files may declare: resources = [\"vars\"], or none: []",
            );
            return None;
        }
        for (word, place) in strings(table.get("resources")) {
            if word == "vars" {
                limit.allows_variables = true;
                continue;
            }
            let resource = word.split_once(':').and_then(|(kind, name)| {
                let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
                Some((kind, Pattern::new(name).ok()?))
            });
            match resource {
                Some(resource) => limit.resources.push(resource),
                None => self.wrong(
                    place,
                    format!("'{}' is no resource", word.escape_debug()),
                    "write \"vars\", or a kind and a pattern of names: \"package:*\", \"file:/srv/**\"",
                ),
            }
        }
        Some(limit)
    }

    fn protect(&mut self, table: &Table, place: &Place) -> Option<Protect> {
        self.read::<DeclaredProtect>(table, place, "[[protect]]")?;
        let paths = self.paths(table, place, "[[protect]]")?;
        let Some(value) = table.get("threshold") else {
            self.wrong(
                place,
                "missing field `threshold` in [[protect]]",
                "say how many keys must sign a change: threshold = 2",
            );
            return None;
        };
        let threshold = self.threshold(value)?;
        Some(Protect {
            paths,
            threshold,
            place: place.clone(),
        })
    }

    fn revoked(&mut self, table: &Table, place: &Place) -> Option<RevokedKey> {
        let declared: DeclaredRevoked = self.read(table, place, "[[revoked]]")?;
        let (Some(key), Some(reason)) = (declared.key, declared.reason) else {
            self.wrong(
                place,
                "[[revoked]] needs `key` and `reason`",
                "write: key = \"NAME or SHA256:…\" and reason = \"compromised\" or \"retired\"",
            );
            return None;
        };
        Some(RevokedKey {
            key,
            reason,
            place: table.place_of("key", place),
        })
    }

    fn key_names(&mut self, table: &Table, place: &Place, what: &str) -> Option<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        for (name, place) in strings(table.get("keys")) {
            if !self.names.iter().any(|known| known == name) {
                let mistake = Mistake::new(place, format!("{POLICY_FILE} has no key '{name}'"));
                let mistake = mistake.suggest(name, self.names.iter().map(String::as_str));
                self.mistakes.push(mistake);
            } else if names.iter().any(|known| known == name) {
                self.wrong(
                    place,
                    format!("the key '{name}' is named twice"),
                    "name it once",
                );
            } else {
                names.push(name.to_owned());
            }
        }
        if strings(table.get("keys")).next().is_none() {
            let message = format!("{what} names no keys");
            self.wrong(place, message, "write: keys = [\"NAME\"]");
            return None;
        }
        Some(names)
    }

    fn paths(&mut self, table: &Table, place: &Place, what: &str) -> Option<Paths> {
        let mut patterns = Vec::new();
        for (text, place) in strings(table.get("paths")) {
            let is_relative = !text.is_empty()
                && text
                    .split('/')
                    .all(|name| !name.is_empty() && name != "." && name != "..");
            match Pattern::new(text) {
                Ok(pattern) if is_relative => patterns.push(pattern),
                Ok(_) => self.wrong(
                    place,
                    format!(
                        "'{}' is no path below {POLICY_FILE}'s directory",
                        text.escape_debug()
                    ),
                    "write it without a leading slash, and without '.' or '..': \"layers/base/**\"",
                ),
                Err(error) => self.wrong(
                    place,
                    format!("invalid pattern for paths: {}", error.msg),
                    "'*' stands for part of a name, '**' for any number of directories",
                ),
            }
        }
        if strings(table.get("paths")).next().is_none() {
            let message = format!("{what} names no paths");
            self.wrong(place, message, "write: paths = [\"layers/base/**\"]");
            return None;
        }
        Some(Paths(patterns))
    }
}

/// The strings of an array, with their places.
fn strings(value: Option<&Value>) -> impl Iterator<Item = (&str, &Place)> {
    let values = value.and_then(Value::as_array).unwrap_or_default();
    values
        .iter()
        .filter_map(|value| Some((value.as_str()?, &value.place)))
}

fn is_key_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte))
}
