//! A comparison as one JSON object.
//!
//! ```text
//! {"before", "after", "unchanged": 3, "groups": [{"hosts": [{"name", "digest_before", "digest_after"}],
//!   "fate": "stays" | "new" | "gone" | "mended", "changes": [{"resource", "path", "change": "added" | "removed" | "changed",
//!   "fields": {"mode": {"before", "after"}}, "diff", "note", "removes"}], "restarts": [{"unit", "action", "because"}]}],
//!  "notes": ["…"], "mistakes": {"before": […], "after": […]}}
//! ```

use serde_json::{Value, json};

use super::content::Shown;
use super::hosts::{Comparison, Fate, Group};
use crate::cli::terminal;
use crate::fleet::compare::Difference;
use crate::model::Failure;

/// The comparison as JSON.
pub(super) fn report(comparison: &Comparison) -> Result<String, Vec<Failure>> {
    terminal::json(&json!({
        "before": comparison.before,
        "after": comparison.after,
        "unchanged": comparison.unchanged,
        "groups": comparison.groups.iter().map(group).collect::<Vec<_>>(),
        "notes": comparison.notes,
        "mistakes": {
            "before": comparison.mistakes_before.iter().map(mistake).collect::<Vec<_>>(),
            "after": comparison.mistakes_after.iter().map(mistake).collect::<Vec<_>>(),
        },
    }))
}

fn group(group: &Group) -> Value {
    let hosts: Vec<Value> = group
        .hosts
        .iter()
        .map(|host| {
            json!({
                "name": host.name,
                "digest_before": host.digest_before,
                "digest_after": host.digest_after,
            })
        })
        .collect();
    let fate = match group.fate {
        Fate::Stays => "stays",
        Fate::New => "new",
        Fate::Gone => "gone",
        Fate::Mended => "mended",
    };
    json!({
        "hosts": hosts,
        "fate": fate,
        "changes": group.differences.iter().map(|(difference, shown)| change(difference, shown.as_ref())).collect::<Vec<_>>(),
        "restarts": group.implied,
    })
}

fn change(difference: &Difference, shown: Option<&Shown>) -> Value {
    let mut value = serde_json::to_value(difference).unwrap_or_default();
    let (diff, note) = match shown {
        Some(Shown::Diff(diff)) => (Some(&**diff), None),
        Some(Shown::Words(words)) => (None, Some(&**words)),
        None => (None, None),
    };
    value["diff"] = json!(diff);
    value["note"] = json!(note);
    value
}

fn mistake(failure: &Failure) -> Value {
    json!({
        "class": failure.class,
        "message": failure.message,
        "location": failure.location,
        "resource": failure.resource,
        "hint": failure.hint,
    })
}
