//! What people write: the fields of every kind of resource, and the words that wait for a later version.
//!
//! All fields are optional here: a layer may say only part of a resource. What a whole one needs is checked once it is merged.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::document::{Expectation, Mistake, Place, Table, Value};
use crate::model::{Kind, OnRemoval};

/// Words reserved for later versions wherever a declaration stands.
pub(super) const RESERVED: [&str; 5] = ["window", "rollout", "reboot", "block", "instances"];

/// Fields that this version does not know yet, of any kind.
const LATER_FIELDS: [&str; 6] = ["state", "window", "rollout", "reboot", "block", "instances"];

/// `state = …` of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// Removed from the host; whatever else is said about it does not matter.
    Absent,
}

/// `decrypt = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Decrypt {
    /// In the format of age, for the host's key.
    Age,
}

/// `[file."…"]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub content: Option<String>,
    pub source: Option<String>,
    pub url: Option<String>,
    pub sha256: Option<String>,
    pub unpack: Option<bool>,
    pub decrypt: Option<Decrypt>,
    pub mode: Option<String>,
    pub owner: Option<String>,
    pub group: Option<String>,
    pub xattrs: Option<BTreeMap<String, String>>,
    pub capabilities: Option<String>,
    pub as_user: Option<String>,
    pub state: Option<State>,
    pub validate: Option<Vec<String>>,
    pub template: Option<bool>,
    #[serde(rename = "needs")]
    _needs: Option<Vec<String>>,
    pub report: Option<bool>,
    pub on_removal: Option<OnRemoval>,
    #[serde(rename = "prevent_removal")]
    _prevent_removal: Option<bool>,
    #[serde(rename = "undeclare")]
    _undeclare: Option<bool>,
}

/// `[directory."…"]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Directory {
    pub mode: Option<String>,
    pub owner: Option<String>,
    pub group: Option<String>,
    pub xattrs: Option<BTreeMap<String, String>>,
    pub purge: Option<bool>,
    pub ignore: Option<Vec<String>>,
    pub state: Option<State>,
    #[serde(rename = "template")]
    _template: Option<bool>,
    #[serde(rename = "needs")]
    _needs: Option<Vec<String>>,
    pub report: Option<bool>,
    pub on_removal: Option<OnRemoval>,
    #[serde(rename = "prevent_removal")]
    _prevent_removal: Option<bool>,
    #[serde(rename = "undeclare")]
    _undeclare: Option<bool>,
}

/// `[symlink."…"]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Symlink {
    pub target: Option<String>,
    pub state: Option<State>,
    #[serde(rename = "template")]
    _template: Option<bool>,
    #[serde(rename = "needs")]
    _needs: Option<Vec<String>>,
    pub report: Option<bool>,
    pub on_removal: Option<OnRemoval>,
    #[serde(rename = "prevent_removal")]
    _prevent_removal: Option<bool>,
    #[serde(rename = "undeclare")]
    _undeclare: Option<bool>,
}

/// `[tree."…"]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tree {
    pub source: Option<String>,
    pub mode: Option<String>,
    pub owner: Option<String>,
    pub group: Option<String>,
    pub purge: Option<bool>,
    pub ignore: Option<Vec<String>>,
    #[serde(rename = "template")]
    _template: Option<bool>,
    #[serde(rename = "needs")]
    _needs: Option<Vec<String>>,
    pub report: Option<bool>,
    pub on_removal: Option<OnRemoval>,
    #[serde(rename = "prevent_removal")]
    _prevent_removal: Option<bool>,
    #[serde(rename = "undeclare")]
    _undeclare: Option<bool>,
}

/// `[repository.…]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Repository {
    pub apt: Option<AptRepository>,
    pub dnf: Option<DnfRepository>,
    #[serde(rename = "template")]
    _template: Option<bool>,
    #[serde(rename = "needs")]
    _needs: Option<Vec<String>>,
    pub report: Option<bool>,
    pub on_removal: Option<OnRemoval>,
    #[serde(rename = "prevent_removal")]
    _prevent_removal: Option<bool>,
    #[serde(rename = "undeclare")]
    _undeclare: Option<bool>,
}

/// `apt = …` of a repository.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct AptRepository {
    pub uris: Option<Vec<String>>,
    pub suites: Option<Vec<String>>,
    pub components: Option<Vec<String>>,
    pub key: Option<String>,
    pub priority: Option<i64>,
}

/// `dnf = …` of a repository.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct DnfRepository {
    pub baseurl: Option<String>,
    pub key: Option<String>,
    pub gpgcheck: Option<bool>,
    pub repo_gpgcheck: Option<bool>,
}

/// `[package.…]`, or what a word under `[package]` stands for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Package {
    pub state: Option<String>,
    pub version: Option<String>,
    pub allow_downgrade: Option<bool>,
    pub hold: Option<bool>,
    pub apt: Option<String>,
    pub dnf: Option<String>,
    #[serde(rename = "template")]
    _template: Option<bool>,
    #[serde(rename = "needs")]
    _needs: Option<Vec<String>>,
    pub report: Option<bool>,
    pub on_removal: Option<OnRemoval>,
    #[serde(rename = "prevent_removal")]
    _prevent_removal: Option<bool>,
    #[serde(rename = "undeclare")]
    _undeclare: Option<bool>,
}

/// `[group.…]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub gid: Option<u32>,
    pub system: Option<bool>,
    pub state: Option<State>,
    #[serde(rename = "template")]
    _template: Option<bool>,
    #[serde(rename = "needs")]
    _needs: Option<Vec<String>>,
    pub report: Option<bool>,
    pub on_removal: Option<OnRemoval>,
    #[serde(rename = "prevent_removal")]
    _prevent_removal: Option<bool>,
    #[serde(rename = "undeclare")]
    _undeclare: Option<bool>,
}

/// `[user.…]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub uid: Option<u32>,
    pub group: Option<String>,
    pub groups: Option<Vec<String>>,
    pub shell: Option<String>,
    pub home: Option<String>,
    pub system: Option<bool>,
    pub authorized_keys: Option<Vec<String>>,
    pub locked: Option<bool>,
    pub state: Option<State>,
    #[serde(rename = "template")]
    _template: Option<bool>,
    #[serde(rename = "needs")]
    _needs: Option<Vec<String>>,
    pub report: Option<bool>,
    pub on_removal: Option<OnRemoval>,
    #[serde(rename = "prevent_removal")]
    _prevent_removal: Option<bool>,
    #[serde(rename = "undeclare")]
    _undeclare: Option<bool>,
}

/// `[mount."…"]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mount {
    pub device: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub options: Option<Vec<String>>,
    #[serde(rename = "template")]
    _template: Option<bool>,
    #[serde(rename = "needs")]
    _needs: Option<Vec<String>>,
    pub report: Option<bool>,
    pub on_removal: Option<OnRemoval>,
    #[serde(rename = "prevent_removal")]
    _prevent_removal: Option<bool>,
    #[serde(rename = "undeclare")]
    _undeclare: Option<bool>,
}

/// `[sysctl]`: what a value under it stands for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sysctl {
    pub value: Option<Scalar>,
    #[serde(rename = "template")]
    _template: Option<bool>,
    #[serde(rename = "needs")]
    _needs: Option<Vec<String>>,
    pub report: Option<bool>,
    pub on_removal: Option<OnRemoval>,
    #[serde(rename = "prevent_removal")]
    _prevent_removal: Option<bool>,
    #[serde(rename = "undeclare")]
    _undeclare: Option<bool>,
}

/// A number or a string, as text.
#[derive(Debug)]
pub(super) struct Scalar(pub String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Scalar;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number or a string")
            }

            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// `[command.…]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Command {
    pub command: Option<Vec<String>>,
    #[serde(rename = "run_on")]
    _run_on: Option<Vec<String>>,
    pub once: Option<bool>,
    pub timeout: Option<String>,
    #[serde(rename = "template")]
    _template: Option<bool>,
    #[serde(rename = "needs")]
    _needs: Option<Vec<String>>,
    pub report: Option<bool>,
    /// A command leaves nothing that could be taken back.
    #[serde(rename = "on_removal")]
    _on_removal: Option<OnRemoval>,
    #[serde(rename = "prevent_removal")]
    _prevent_removal: Option<bool>,
    #[serde(rename = "undeclare")]
    _undeclare: Option<bool>,
}

/// `restart = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Restart {
    #[default]
    Auto,
    Manual,
}

/// `[unit."…"]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unit {
    pub source: Option<String>,
    pub content: Option<String>,
    pub enabled: Option<bool>,
    pub running: Option<bool>,
    pub masked: Option<bool>,
    pub optional: Option<bool>,
    #[serde(rename = "restart_on")]
    _restart_on: Option<Vec<String>>,
    #[serde(rename = "reload_on")]
    _reload_on: Option<Vec<String>>,
    pub validate: Option<Vec<String>>,
    pub restart: Option<Restart>,
    #[serde(rename = "dropin")]
    _dropin: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    pub template: Option<bool>,
    #[serde(rename = "needs")]
    _needs: Option<Vec<String>>,
    pub report: Option<bool>,
    pub on_removal: Option<OnRemoval>,
    #[serde(rename = "prevent_removal")]
    _prevent_removal: Option<bool>,
    #[serde(rename = "undeclare")]
    _undeclare: Option<bool>,
}

/// `[unit."…".dropin.…]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dropin {
    pub source: Option<String>,
    pub content: Option<String>,
    pub template: Option<bool>,
    #[serde(rename = "undeclare")]
    _undeclare: Option<bool>,
}

/// `[health.…]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Health {
    pub http: Option<String>,
    pub tcp: Option<String>,
    pub unit: Option<String>,
    pub command: Option<Vec<String>>,
    pub source: Option<bool>,
    pub when: Option<When>,
    pub within: Option<String>,
    pub stable: Option<String>,
    pub on_failure: Option<OnFailure>,
    #[serde(rename = "template")]
    _template: Option<bool>,
    #[serde(rename = "needs")]
    _needs: Option<Vec<String>>,
    pub report: Option<bool>,
    #[serde(rename = "on_removal")]
    _on_removal: Option<OnRemoval>,
    #[serde(rename = "undeclare")]
    _undeclare: Option<bool>,
}

/// `when = …` of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum When {
    #[default]
    After,
    Before,
    Both,
}

/// `on_failure = …` of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum OnFailure {
    #[default]
    Rollback,
    Warn,
}

/// Reads the declaration `table` of `what` (`file:/etc/motd`).
pub(super) fn read<'de, T: Deserialize<'de>>(
    table: &'de Table,
    place: &'de Place,
    what: &str,
) -> Result<T, Vec<Mistake>> {
    let expectation = Expectation {
        what,
        later: &LATER_FIELDS,
        hint: wrong_type_hint,
    };
    table.deserialize_into(place, expectation)
}

/// What other tools call a field, and how it is said here.
fn by_another_name(kind: Kind, field: &str, value: Option<&Value>) -> Option<String> {
    let is_path = matches!(kind, Kind::File | Kind::Directory | Kind::Symlink);
    let has_access = is_path || kind == Kind::Tree;
    let says = |word: &str| {
        value
            .and_then(Value::as_str)
            .is_some_and(|text| text.eq_ignore_ascii_case(word))
    };
    let written = value
        .map(|value| value.place.text())
        .filter(|text| !text.contains('\n'));
    let renamed = |name: &str| Some(format!("write: {name} = {}", written.unwrap_or("…")));
    match field {
        "ensure" | "state" | "present" if says("absent") && is_path => {
            Some("write: state = \"absent\"".to_owned())
        }
        "ensure" | "present" | "state" if is_path => Some(
            "what is declared is there; only its absence is said: state = \"absent\"".to_owned(),
        ),
        "ensure" | "version_lock" if kind == Kind::Package => renamed("state"),
        "state" | "ensure" | "started" | "active" | "start" if kind == Kind::Unit => Some(
            if says("stopped") || says("inactive") || value.and_then(Value::as_bool) == Some(false)
            {
                "write: running = false"
            } else {
                "write: running = true"
            }
            .to_owned(),
        ),
        "text" | "contents" | "body" | "data" if kind != Kind::Package => renamed("content"),
        "src" | "file" | "from" if kind != Kind::Package => renamed("source"),
        "permissions" | "perms" | "chmod" if has_access => renamed("mode"),
        "user" | "uid" if has_access => renamed("owner"),
        "gid" if has_access => renamed("group"),
        "to" | "link" | "dest" | "destination" if kind == Kind::Symlink => renamed("target"),
        "path" | "dest" | "destination" | "name" => Some(format!(
            "the name stands in the header: [{kind}.{}]",
            written.unwrap_or("\"…\"")
        )),
        "require" | "requires" | "depends" | "depends_on" | "after" => renamed("needs"),
        "before" => Some("say it the other way round: needs, at the other resource".to_owned()),
        "notify" | "notifies" if kind == Kind::Command => {
            Some("say it at the unit: restart_on = [\"command:…\"]".to_owned())
        }
        "notify" | "notifies" | "notify_on" | "triggers" => {
            Some("say it at the unit: restart_on = [\"kind:name\"], or reload_on".to_owned())
        }
        "subscribe" | "watch" | "restart_trigger" if kind == Kind::Unit => renamed("restart_on"),
        "url" | "get" if kind == Kind::Health => renamed("http"),
        "port" | "address" if kind == Kind::Health => Some("write: tcp = \"host:port\"".to_owned()),
        "service" | "systemd" if kind == Kind::Health => renamed("unit"),
        "exec" | "cmd" | "script" | "check" if kind == Kind::Health => {
            Some("write: command = [\"program\", \"argument\"]; there is no shell".to_owned())
        }
        "timeout" | "deadline" if kind == Kind::Health => renamed("within"),
        "exec" | "cmd" | "argv" | "run" if kind == Kind::Command => renamed("command"),
        "subscribe" | "watch" | "on" | "restart_on" if kind == Kind::Command => renamed("run_on"),
        "creates" | "unless" | "onlyif" | "only_if" | "refreshonly" if kind == Kind::Command => {
            Some("say when it runs: run_on = [\"kind:name\"], or once = true".to_owned())
        }
        "recurse" | "recursive" => {
            Some("a directory stands for itself; its files are declared one by one".to_owned())
        }
        _ => None,
    }
}

/// What is wrong with the part of a `kind` that one layer says.
pub(super) fn check_part(kind: Kind, table: &Table, place: &Place, what: &str) -> Vec<Mistake> {
    let result = match kind {
        Kind::File => read::<File>(table, place, what).map(drop),
        Kind::Directory => read::<Directory>(table, place, what).map(drop),
        Kind::Symlink => read::<Symlink>(table, place, what).map(drop),
        Kind::Tree => read::<Tree>(table, place, what).map(drop),
        Kind::Group => read::<Group>(table, place, what).map(drop),
        Kind::Mount => read::<Mount>(table, place, what).map(drop),
        Kind::User => read::<User>(table, place, what).map(drop),
        Kind::Repository => read::<Repository>(table, place, what).map(drop),
        Kind::Package => read::<Package>(table, place, what).map(drop),
        Kind::Sysctl => read::<Sysctl>(table, place, what).map(drop),
        Kind::Command => read::<Command>(table, place, what).map(drop),
        Kind::Unit => read::<Unit>(table, place, what).map(drop),
        Kind::Health => read::<Health>(table, place, what).map(drop),
    };
    let mut mistakes = result.err().unwrap_or_default();
    for mistake in &mut mistakes {
        explain_name(kind, table, what, mistake);
    }
    mistakes.extend(check_absence(table, what));
    if kind == Kind::Unit
        && let Some(dropins) = table.get("dropin").and_then(Value::as_table)
    {
        for (name, entry) in dropins.iter() {
            let what = format!("drop-in '{name}' of {what}");
            match entry.value.as_table() {
                Some(table) => {
                    let read = read::<Dropin>(table, &entry.key, &what);
                    mistakes.append(&mut read.err().unwrap_or_default());
                }
                None => mistakes.push(
                    Mistake::new(
                        &entry.value.place,
                        format!(
                            "expected a table for {what}, found {}",
                            entry.value.data.type_name()
                        ),
                    )
                    .hint("write: [unit.\"…\".dropin.NAME] and below it content = \"…\""),
                ),
            }
        }
    }
    mistakes
}

/// A field that other tools have gets a hint that says how it is said here, instead of a list or a guess by its letters.
fn explain_name(kind: Kind, table: &Table, what: &str, mistake: &mut Mistake) {
    let Some(field) = mistake.message.split('`').nth(1).map(str::to_owned) else {
        return;
    };
    let is_unknown = mistake.message.starts_with("unknown field");
    let is_state_of_unit = kind == Kind::Unit && field == "state";
    if !(is_unknown || is_state_of_unit && mistake.message.contains("is not supported")) {
        return;
    }
    if let Some(hint) = by_another_name(kind, &field, table.get(&field)) {
        mistake.message = format!("unknown field `{field}` in {what}");
        mistake.label = Some("no such field".to_owned());
        mistake.hint = Some(hint);
    }
}

/// One layer cannot want something both gone and filled; only what an earlier layer said of it does not matter.
fn check_absence(table: &Table, what: &str) -> Option<Mistake> {
    let state = table.get("state")?;
    if state.as_str() != Some("absent") {
        return None;
    }
    let (key, value) = ["content", "source", "url", "target"]
        .into_iter()
        .find_map(|key| Some((key, table.get(key)?)))?;
    Some(
        Mistake::new(
            &value.place,
            format!("{what} is to be absent, and has `{key}`"),
        )
        .note("absent here", &state.place)
        .hint("keep one of them"),
    )
}

/// Can `text` contain anything to render, where templates are wished.
pub(super) fn is_templated(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

fn wrong_type_hint(key: &str, value: &Value) -> Option<String> {
    use crate::document::Data;
    match (key, &value.data) {
        ("mode", Data::Integer(_)) => {
            // As written: TOML knows 0o644, people write 644.
            let digits = value.place.text().trim_start_matches("0o");
            let valid =
                digits.len() <= 4 && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
            let digits = if valid { digits } else { "644" };
            Some(format!("a mode is a string: mode = \"{digits:0>4}\""))
        }
        // A key with a dot is a table in a table.
        ("xattrs", Data::Table(_)) => Some("quote the whole name: \"user.…\" = \"…\"".to_owned()),
        ("owner" | "group", Data::Integer(id)) => Some(format!("quote it: {key} = \"{id}\"")),
        ("needs" | "restart_on" | "reload_on" | "run_on", Data::String(text)) => {
            Some(format!("write an array: {key} = [\"{text}\"]"))
        }
        ("validate" | "command", Data::String(text)) => {
            let words: Vec<String> = text
                .split_whitespace()
                .map(|word| format!("\"{word}\""))
                .collect();
            Some(format!(
                "there is no shell; write an array: {key} = [{}]",
                words.join(", ")
            ))
        }
        ("value", Data::Boolean(value)) => Some(format!("write: {}", u8::from(*value))),
        (_, Data::String(text)) if text == "true" || text == "false" => {
            Some(format!("leave out the quotes: {key} = {text}"))
        }
        _ => None,
    }
}
