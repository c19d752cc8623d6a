//! A comparison as people read it on a terminal.

use std::fmt::Write;

use serde_json::Value;

use super::content::Shown;
use super::counted;
use super::hosts::{Comparison, Fate, Group};
use crate::fleet::compare::{ChangeKind, Difference, FieldDifference};

/// The comparison as text.
pub(super) fn report(comparison: &Comparison) -> String {
    let mut text = format!(
        "{} → {}: {}\n",
        comparison.before,
        comparison.after,
        summary(comparison)
    );
    for group in &comparison.groups {
        let _ = writeln!(text, "\n{}", names(group));
        if let Some(words) = words_for_fate(group) {
            let _ = writeln!(text, "  {words}");
        }
        for (difference, shown) in &group.differences {
            let _ = writeln!(text, "  {} {}", mark(difference.change), title(difference));
            for field in told_fields(difference) {
                let _ = writeln!(text, "      {field}");
            }
            match shown {
                Some(Shown::Diff(diff)) => {
                    for line in diff.lines() {
                        let _ = writeln!(text, "      {line}");
                    }
                }
                Some(Shown::Words(words)) => {
                    let _ = writeln!(text, "      content: {words}");
                }
                None => {}
            }
        }
        for implied in &group.implied {
            let because: Vec<String> = implied.because.iter().map(ToString::to_string).collect();
            let _ = writeln!(
                text,
                "  > {} {} if it is active, because of {}",
                implied.action,
                implied.unit,
                because.join(", ")
            );
        }
        if let Some(warning) = removal_warning(group) {
            let _ = writeln!(text, "  ! {warning}");
        }
    }
    text
}

/// `3 of 5 hosts change`, in other words.
pub(super) fn summary(comparison: &Comparison) -> String {
    let (changed, unchanged) = (comparison.changed(), comparison.unchanged);
    match (changed, unchanged) {
        (0, 0) if !comparison.mistakes_after.is_empty() => "could not be rendered".to_owned(),
        (0, 0) => "no host was compared".to_owned(),
        (0, 1) => "the one host does not change".to_owned(),
        (0, _) => format!("none of {unchanged} hosts changes"),
        (1, 0) => "1 host changes".to_owned(),
        (_, 0) => format!("all {changed} hosts change"),
        (1, _) => format!("1 of {} hosts changes", 1 + unchanged),
        (_, _) => format!("{changed} of {} hosts change", changed + unchanged),
    }
}

/// `2 hosts: web-1, web-2`; of many, the first and the last.
pub(super) fn names(group: &Group) -> String {
    let names: Vec<&str> = group.hosts.iter().map(|host| host.name.as_str()).collect();
    format!(
        "{}: {}",
        counted(names.len(), "host"),
        some_of(&names).join(", ")
    )
}

/// All of `names`, or the first and the last of many.
pub(super) fn some_of<'a>(names: &[&'a str]) -> Vec<&'a str> {
    const SHOWN: usize = 12;
    if names.len() <= SHOWN {
        return names.to_vec();
    }
    let mut some = names[..SHOWN - 2].to_vec();
    some.push("…");
    some.extend(names.last());
    some
}

/// What is said of hosts that only one side has.
pub(super) fn words_for_fate(group: &Group) -> Option<&'static str> {
    match group.fate {
        Fate::Stays => None,
        Fate::New => Some("new in the fleet: everything is added"),
        Fate::Gone => Some(
            "no longer in the inventory: as long as a rule fits its machine, it goes on with what that gives",
        ),
        Fate::Mended => {
            Some("could not be rendered before, and now can: what changes on it is not known")
        }
    }
}

/// The sign before a difference.
pub(super) fn mark(change: ChangeKind) -> char {
    match change {
        ChangeKind::Added => '+',
        ChangeKind::Removed => '-',
        ChangeKind::Changed => '~',
    }
}

/// `file:/etc/motd`, or a unit and the file it brings.
pub(super) fn title(difference: &Difference) -> String {
    match &difference.path {
        Some(path) => format!("{} ({path})", difference.resource),
        None => difference.resource.to_string(),
    }
}

/// What is told of the keys: nothing of what goes but what then happens, and only what is not usual of what comes.
pub(super) fn told_fields(difference: &Difference) -> Vec<String> {
    let fields = &difference.fields;
    match difference.change {
        ChangeKind::Removed => {
            let before = |key: &str| {
                fields
                    .get(key)
                    .and_then(|field| field.before.as_ref()?.as_str())
            };
            let was_absent = before("state") == Some("absent") || before("type") == Some("absent");
            vec![
                match before("on_removal") {
                    _ if was_absent => "no longer kept away: what limpet removed is put back",
                    Some("keep") => "no longer declared: stays as it is",
                    Some("delete") => "no longer declared: deleted",
                    _ => "no longer declared: what was there before limpet is put back, or it goes",
                }
                .to_owned(),
            ]
        }
        ChangeKind::Added => fields
            .iter()
            .filter(|(key, field)| !is_usual(key, field))
            .map(|(key, field)| format!("{key} = {}", word(field.after.as_ref())))
            .collect(),
        ChangeKind::Changed => fields
            .iter()
            .map(|(key, field)| {
                format!(
                    "{key}: {} → {}",
                    word(field.before.as_ref()),
                    word(field.after.as_ref())
                )
            })
            .collect(),
    }
}

/// Is this what everything new has that says nothing else.
fn is_usual(key: &str, field: &FieldDifference) -> bool {
    let after = field.after.as_ref().and_then(Value::as_str);
    matches!(
        (key, after),
        ("owner" | "group", Some("root"))
            | ("mode", Some("0644"))
            | ("state", Some("installed"))
            | ("type", Some("file" | "directory" | "symlink"))
    )
}

fn word(value: Option<&Value>) -> String {
    match value {
        None => "not managed".to_owned(),
        Some(value) => crate::document::single_line(&value.to_string()),
    }
}

/// What hosts do with more removals than they may make.
pub(super) fn removal_warning(group: &Group) -> Option<String> {
    /// The default of `max_removals`.
    const MAX_REMOVALS: usize = 10;
    let removals = group.removals();
    (removals > MAX_REMOVALS).then(|| {
        format!(
            "up to {removals} removals are more than the usual max_removals = {MAX_REMOVALS}: the hosts wait for a person, unless the \
             commit says 'Limpet-Allow-Removals: {removals}' in its last lines"
        )
    })
}
