//! The journal: where log lines go, and the events that operators search for.
//!
//! Each event has a `MESSAGE_ID` with an entry in the message catalog (`journalctl -x`). Field names are written in full, without a
//! prefix that the layer would add, because a prefix would spoil `MESSAGE_ID`.
//!
//! Invariant: no file content and no secret is ever a field.

use tracing::{Level, error, info, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::model::{Action, Failure, Reason, ResourceId};

/// A revision was applied.
pub const REVISION_APPLIED: &str = "1f1ab4a4b1a94ce9ad5b1b8ff0ce5cb1";
/// A revision was refused.
pub const REVISION_REFUSED: &str = "6d1ef0a4b5a94d1f8f0a6ff8d3ab3c02";
/// Drift was corrected.
pub const DRIFT_CORRECTED: &str = "9c2f6c5d0f3a4f2e9fd4d1ad4ea2aa03";
/// A resource failed.
pub const RESOURCE_FAILED: &str = "b4c8e0f6a7d14d6f8b1de6f42c7aa304";
/// The host went back to a revision that was good.
pub const ROLLED_BACK: &str = "3a5d9d1c2f6e4c0b9ea7b0d95b1c7f05";
/// A resource is changed back again and again by somebody else.
pub const CONTESTED: &str = "c41d7be05a3f4a7c8e92d6f0b1837a05";
/// The host is no longer as declared, and somebody must act.
pub const DEGRADED: &str = "e7f2b6a90c3d4b58a6f1c5d2e9b84a06";
/// The host is as declared again.
pub const RECOVERED: &str = "52d8f0c4e1b74b0f9c6a3e7d8f21bc07";

/// A version of limpet does not work on this host and is held.
pub const WENT_BACK: &str = "3d0f7c52b1a84e6c9b7e2f4a6d51c808";

/// What a file was before limpet is no longer kept.
pub fn original_forgotten(revision: &str, resource: &ResourceId, why: &str) {
    warn!(
        limpet_revision = revision,
        limpet_resource = %resource,
        limpet_reason = why,
        "forgot what {resource} was before limpet, {why}: it stays as it is when it is no longer declared",
    );
}

/// Says that local root let through what was held: who, and what.
pub fn let_through(revision: &str, what: &str) {
    info!(limpet_revision = %revision, limpet_reason = %what, "let through {what}");
}

/// Sends log lines to the journal where stderr is the journal's, else to stderr. `level` is for our own lines; libraries are heard
/// from `warn` on.
pub fn start(level: Level, stderr_is_journal: bool) {
    let filter = Targets::new()
        .with_default(Level::WARN)
        .with_target("limpet", level);
    let registry = tracing_subscriber::registry().with(filter);
    if stderr_is_journal && let Ok(layer) = tracing_journald::layer() {
        let layer = layer
            .with_field_prefix(None)
            .with_syslog_identifier("limpet".to_owned())
            .with_priority_mappings(tracing_journald::PriorityMappings {
                error: tracing_journald::Priority::Error,
                warn: tracing_journald::Priority::Warning,
                info: tracing_journald::Priority::Informational,
                debug: tracing_journald::Priority::Debug,
                trace: tracing_journald::Priority::Debug,
            });
        registry.with(layer).init();
    } else {
        // People read this: the fields repeat what the message says.
        let message =
            tracing_subscriber::fmt::format::debug_fn(|writer, field, value| match field.name() {
                "message" => write!(writer, "{value:?}"),
                _ => Ok(()),
            });
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(message)
            .with_writer(std::io::stderr)
            .without_time()
            .with_target(false);
        registry.with(layer).init();
    }
}

/// The first seven characters of a commit id, as people write it; anything else as it is.
pub fn short(revision: &str) -> &str {
    let is_id = revision.len() >= 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { &revision[..7] } else { revision }
}

/// A revision was applied completely for the first time.
pub fn revision_applied(revision: &str, signer: &str, subject: &str, changes: usize) {
    info!(
        message_id = REVISION_APPLIED,
        limpet_revision = revision,
        limpet_signer = signer,
        limpet_outcome = "applied",
        "applied revision {} '{}' signed by {signer}: {changes} change{}",
        short(revision),
        subject,
        if changes == 1 { "" } else { "s" },
    );
}

/// The tip of the branch was refused; said once per tip.
pub fn revision_refused(revision: &str, signer: Option<&str>, failure: &Failure) {
    error!(
        message_id = REVISION_REFUSED,
        limpet_revision = revision,
        limpet_signer = signer.unwrap_or("unknown"),
        limpet_reason = %failure.message,
        limpet_outcome = "refused",
        "{failure}"
    );
}

/// What this host trusted is lost or damaged; said when it is found.
/// `revision` is the one that is enforced all the same, in hex, if it is known.
pub fn state_missing(revision: &str, failure: &Failure) {
    error!(
        message_id = DEGRADED,
        limpet_revision = revision,
        limpet_reason = %failure.message,
        "{failure}"
    );
}

/// What the program of a resource wrote, line by line.
pub fn output(resource: &ResourceId, text: &str) {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        info!(limpet_resource = %resource, "{resource}: {}", plain(line));
    }
}

/// A configuration file was left as somebody changed it, although its package brings another.
pub fn kept_file(package: &ResourceId, path: &str) {
    info!(
        limpet_resource = %package,
        "{package}: kept '{path}' as it was changed on this host; what the package brings lies beside it in '{path}.dpkg-dist'",
        path = plain(path),
    );
}

/// Of a configuration file there are two now; `package` is whose it is, where one alone was changed.
pub fn file_beside(package: Option<&ResourceId>, path: &str, other: &str, is_new: bool) {
    let package = package.map(ToString::to_string).unwrap_or_default();
    let whose = match package.is_empty() {
        true => String::new(),
        false => format!("{package}: "),
    };
    let (path, other) = (plain(path), plain(other));
    let what = match is_new {
        true => format!(
            "kept '{path}' as it was changed on this host; what the package brings lies beside it in '{other}'"
        ),
        false => format!(
            "'{path}' is what the package brings; as it was changed on this host it lies beside it in '{other}'"
        ),
    };
    info!(limpet_resource = package.as_str(), "{whose}{what}");
}

/// A script of a package that was installed nevertheless failed.
pub fn script_failed(package: &ResourceId, said: &str) {
    warn!(
        limpet_resource = %package,
        "{package} was changed, but {said}: what that script was to do is not done",
        said = plain(said),
    );
}

/// Without what would move a terminal's cursor.
fn plain(line: &str) -> String {
    let is_plain = |character: &char| !character.is_control() || *character == '\t';
    line.chars().filter(is_plain).collect()
}

/// What dpkg had left half done was finished, or could not be.
pub fn repaired(revision: &str, found: &str, failure: Option<&Failure>) {
    match failure {
        None => info!(
            limpet_revision = revision,
            limpet_outcome = "repaired",
            "{found}: repaired",
        ),
        Some(failure) => warn!(
            limpet_revision = revision,
            limpet_reason = %failure.message,
            limpet_outcome = "failed",
            "{found}: {failure}",
        ),
    }
}

/// A version of limpet did not work here, and the last good one runs again.
pub fn went_back(revision: &str, version: &str, words: &str) {
    error!(
        message_id = WENT_BACK,
        limpet_revision = revision,
        limpet_change = version,
        limpet_outcome = "went back",
        "{words}"
    );
}

/// A package transaction that an agent before this one had started has ended.
pub fn adopted(revision: &str, what: &str, outcome: &str, is_success: bool) {
    match is_success {
        true => info!(
            limpet_revision = revision,
            limpet_outcome = "done",
            "adopted {what}: {outcome}"
        ),
        false => warn!(
            limpet_revision = revision,
            limpet_outcome = "failed",
            "adopted {what}: {outcome}"
        ),
    }
}

/// One resource was changed.
pub fn changed(
    revision: &str,
    resource: &ResourceId,
    action: Action,
    reason: Reason,
    fields: &[String],
    drift: bool,
) {
    // A unit's file, or a directory made on the way to a file: the resource does not say which.
    let (path, fields) = super::path_among(fields);
    let path = path.map_or(String::new(), |path| format!(" {path}"));
    let detail = match fields {
        [] => path,
        fields => format!("{path} ({})", fields.join(", ")),
    };
    if drift {
        info!(
            message_id = DRIFT_CORRECTED,
            limpet_revision = revision,
            limpet_resource = %resource,
            limpet_change = action.as_str(),
            limpet_reason = reason.as_str(),
            limpet_outcome = "done",
            "corrected drift of {resource}: {action}{detail}",
        );
    } else {
        info!(
            limpet_revision = revision,
            limpet_resource = %resource,
            limpet_change = action.as_str(),
            limpet_reason = reason.as_str(),
            limpet_outcome = "done",
            "{resource}: {action}{detail}",
        );
    }
}

/// One resource differs and is only reported; said when the difference is new.
pub fn reported(revision: &str, resource: &ResourceId, reason: Reason, fields: &[String]) {
    let detail = if fields.is_empty() {
        reason.to_string()
    } else {
        fields.join(", ")
    };
    info!(
        limpet_revision = revision,
        limpet_resource = %resource,
        limpet_reason = reason.as_str(),
        limpet_outcome = "reported",
        "{resource} differs, only reported: {detail}",
    );
}

/// One resource could not be brought to its declared state; said when the failure is new.
pub fn resource_failed(revision: &str, resource: &ResourceId, failure: &Failure) {
    let name = resource.to_string();
    let about = if failure.message.contains(&name) {
        String::new()
    } else {
        format!("{name}: ")
    };
    error!(
        message_id = RESOURCE_FAILED,
        limpet_revision = revision,
        limpet_resource = %resource,
        limpet_outcome = "failed",
        "{about}{failure}"
    );
}

/// The host goes back from one revision to another.
pub fn rolled_back(revision: &str, from: &str, reason: &str) {
    warn!(
        message_id = ROLLED_BACK,
        limpet_revision = revision,
        limpet_reason = reason,
        limpet_outcome = "rolled-back",
        "rolled back from revision {} to {}: {reason}",
        short(from),
        short(revision),
    );
}

/// Somebody else changes a resource back again and again; said once, when it is given up for the first time.
pub fn contested(revision: &str, resource: &ResourceId, failure: &Failure) {
    warn!(
        message_id = CONTESTED,
        limpet_revision = revision,
        limpet_resource = %resource,
        limpet_reason = %failure.message,
        limpet_outcome = "contested",
        "{failure}"
    );
}

/// The host came into a state in which somebody must act.
pub fn degraded(revision: &str, reason: &str, who: &str) {
    warn!(
        message_id = DEGRADED,
        limpet_revision = revision,
        limpet_reason = reason,
        "degraded: {reason} (to act: {who})"
    );
}

/// The host left such a state.
pub fn recovered(revision: &str) {
    info!(
        message_id = RECOVERED,
        limpet_revision = revision,
        "recovered: everything is as declared again"
    );
}

#[cfg(test)]
mod tests {
    const CODE: &str = include_str!("journal.rs");
    const CATALOG: &str = include_str!("../../systemd/limpet.catalog");

    /// The texts of 32 hexadecimal digits in `text`, each after `before`.
    fn ids<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
        let found = text.split(before).skip(1).filter_map(|rest| rest.get(..32));
        found
            .filter(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .collect()
    }

    #[test]
    fn every_message_id_has_one_entry_in_the_catalog() {
        let entries = ids(CATALOG, "\n-- ");
        let known = ids(CODE, ": &str = \"");
        assert!(known.len() >= 6, "{known:?}");
        for id in &known {
            let count = entries.iter().filter(|entry| *entry == id).count();
            assert_eq!(count, 1, "{id} in systemd/limpet.catalog");
        }
    }

    #[test]
    fn what_the_catalog_quotes_is_sent() {
        for entry in CATALOG.split("\n-- ").skip(1) {
            let Some((before, _)) = CODE.split_once(&format!(": &str = \"{}\"", &entry[..32]))
            else {
                continue; // settled, and not sent by this version
            };
            let name = before.rsplit(' ').next().unwrap_or_default();
            let sent: Vec<&str> = CODE
                .split(&format!("message_id = {name},"))
                .skip(1)
                .filter_map(|rest| rest.split(");").next())
                .collect();
            assert!(!sent.is_empty(), "{name} is never sent");
            for quoted in entry.split('@').skip(1).step_by(2) {
                let field = format!("{} = ", quoted.to_ascii_lowercase());
                assert!(
                    sent.iter().all(|fields| fields.contains(&field)),
                    "{name} is sent without {quoted}, which its entry quotes"
                );
            }
        }
    }

    #[test]
    fn every_entry_of_the_catalog_has_a_subject_and_what_to_do() {
        for entry in CATALOG.split("\n-- ").skip(1) {
            for part in [
                "\nSubject: ",
                "\nDefined-By: limpet\n",
                "\nDocumentation: man:limpet(8)\n",
                "\n\n",
            ] {
                assert!(entry.contains(part), "{part:?} is missing in: {entry}");
            }
        }
    }
}
