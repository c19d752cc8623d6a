//! state.db across versions of limpet.
//!
//! A newer limpet brings state.db to its own layout. Before it does, it keeps a copy, `/var/lib/limpet/previous/state.db`; an older one
//! that finds a layout it must not touch goes on with that copy. What was written in between is set aside, and forgotten: what was
//! declared in that time is owned anew, with what is there as its original.
//!
//! Invariant: the trusted head never goes back. In the copy it becomes what the second mark says; where that cannot be read nothing is
//! taken from the copy, and the host fails closed.

use std::path::Path;

use crate::config;
use crate::cycle::state::{HEAD, HEAD_BEFORE, read_mark};
use crate::model::Failure;
use crate::record::history::WENT_BACK;
use crate::record::layout::{Layout, copy_database, read_layout};
use crate::record::{HistoryEntry, Record};
use crate::sys::{Host, clock};
use crate::trust::TrustedHead;

/// The copy of an older layout.
const OLDER: &str = "/var/lib/limpet/previous/state.db";
/// What was set aside when an older limpet went on with that.
const NEWER: &str = "/var/lib/limpet/previous/state.db.newer";
/// A database on its way to one of the other names.
const CANDIDATE: &str = "/var/lib/limpet/state.db.candidate";

/// Keeps a copy of what is about to be brought up to date; goes back to that copy where state.db is of a newer limpet.
pub(super) fn prepare(host: &Host) -> Result<(), Failure> {
    let database = host.outer_path(config::STATE_DATABASE);
    match read_layout(&database)? {
        Layout::Usable => Ok(()),
        Layout::Older(_) => keep(host, &database),
        Layout::Newer(version) => go_back(host, &database, version),
    }
}

fn keep(host: &Host, database: &Path) -> Result<(), Failure> {
    host.ensure_own_directory(config::PREVIOUS_DIRECTORY, 0o700)?;
    save(host, database, OLDER)
}

/// Writes what is in `database` to `target`, durably and whole.
fn save(host: &Host, database: &Path, target: &str) -> Result<(), Failure> {
    discard_candidate(host)?;
    copy_database(database, &host.outer_path(CANDIDATE))?;
    host.copy_own_file(CANDIDATE, target, 0o600, None)?;
    discard_candidate(host)
}

/// Removes it with its log, which another database of that name would take for its own.
fn discard_candidate(host: &Host) -> Result<(), Failure> {
    for suffix in ["", "-wal", "-shm"] {
        host.remove_own_file(&format!("{CANDIDATE}{suffix}"))?;
    }
    Ok(())
}

fn go_back(host: &Host, database: &Path, version: i64) -> Result<(), Failure> {
    let older = host.outer_path(OLDER);
    let (true, Some(mark)) = (host.exists(OLDER)?, read_mark(host)?) else {
        return Ok(()); // opening it says what is wrong
    };
    if matches!(read_layout(&older)?, Layout::Newer(_)) {
        return Ok(());
    }
    let text = format!(
        "state.db was of a newer limpet (layout {version}) and is set aside as '{NEWER}'; going on with the copy that was made before"
    );
    save(host, database, NEWER)?;
    copy_database(&older, &host.outer_path(CANDIDATE))?;
    let mut record = Record::open(&host.outer_path(CANDIDATE))?;
    let head: Option<TrustedHead> = record.recall(HEAD)?;
    if let Some(head) = head.filter(|head| *head != mark) {
        record.remember(HEAD_BEFORE, &head)?;
    }
    record.remember(HEAD, &mark)?;
    let revision = mark.commit.to_string();
    let line = HistoryEntry::of_host(clock::now(), &revision, WENT_BACK, "failed", &text);
    record.conclude(&revision, &[], &[], &[], &[line])?;
    record.finish()?;
    // The log of the newer one would be taken for that of the copy.
    Record::finish_at(database)?;
    host.rename_own_file(CANDIDATE, config::STATE_DATABASE)?;
    tracing::warn!("{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cycle::state::{open, trust};

    fn head(digit: &str) -> TrustedHead {
        serde_json::from_value(serde_json::json!({
            "commit": digit.repeat(40),
            "payload_sha256": digit.repeat(64),
            "tree": digit.repeat(40),
            "fleet": null,
            "signer": null,
        }))
        .unwrap()
    }

    fn set_layout(host: &Host, version: i64) {
        let connection =
            rusqlite::Connection::open(host.outer_path(config::STATE_DATABASE)).unwrap();
        connection
            .pragma_update(None, "user_version", version)
            .and_then(|()| connection.pragma_update(None, "application_id", version))
            .unwrap();
    }

    /// A machine that trusts the head 1.
    fn machine() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        host.ensure_own_directory("/etc/limpet", 0o755).unwrap();
        let state = open(&host).unwrap();
        trust(&host, &state.record, &head("1")).unwrap();
        (root, host)
    }

    #[test]
    fn an_older_limpet_goes_on_with_its_own_layout_and_the_newest_head() {
        let (_root, host) = machine();
        let state = open(&host).unwrap();
        state.record.remember("known", &"before").unwrap();
        keep(&host, &host.outer_path(config::STATE_DATABASE)).unwrap();
        // What the newer one did.
        state.record.remember("known", &"after").unwrap();
        trust(&host, &state.record, &head("2")).unwrap();
        drop(state);
        set_layout(&host, 1_000_000);

        let state = open(&host).unwrap();
        assert_eq!((state.missing, state.head), (None, Some(head("2"))));
        let known: Option<String> = state.record.recall("known").unwrap();
        assert_eq!(known.as_deref(), Some("before"));
        drop(state.record);
        let newer = host.outer_path(NEWER);
        assert_eq!(read_layout(&newer).unwrap(), Layout::Newer(1_000_000));
        // It is not done again.
        let state = open(&host).unwrap();
        assert_eq!((state.missing, state.head), (None, Some(head("2"))));
    }

    #[test]
    fn without_a_copy_or_a_mark_a_newer_layout_fails_closed() {
        for lost in [OLDER, config::ENROLLED_MARK] {
            let (_root, host) = machine();
            keep(&host, &host.outer_path(config::STATE_DATABASE)).unwrap();
            set_layout(&host, 1_000_000);
            host.remove_own_file(lost).unwrap();
            let state = open(&host).unwrap();
            let missing = state.missing.unwrap();
            assert!(missing.message.contains("layout 1000000"), "{missing}");
        }
    }

    #[test]
    fn what_is_brought_up_to_date_is_kept_before() {
        let (_root, host) = machine();
        // As the first layout left it, for all that is asked here.
        set_layout(&host, 1);
        prepare(&host).unwrap();
        assert_eq!(
            read_layout(&host.outer_path(OLDER)).unwrap(),
            Layout::Older(1)
        );
        assert!(!host.exists(CANDIDATE).unwrap());
    }
}
