//! The audit trail: what was really done on this host, by which revision, and what that changed.
//!
//! A *line* is one step and what became of it, or an event of the whole host: a revision was `applied`, `refused` or `mistaken`. A *note*
//! is what is known of a revision: its subject and who signed it. A *diff* is what a step did to a content.
//!
//! Invariant: bounded in lines and in bytes, whatever a repository or a server does; a server that is refused again and again cannot
//! push out what was really done. The diff of a content that not everybody may read is never written here.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::Serialize;

use crate::model::{Action, Class, Failure, Reason, ResourceId};
use crate::record::{Record, SCHEMA_VERSION, failure};

/// What the second layout adds; the revision in force has its note at once.
pub(super) const LAYOUT_2: &str = "
    CREATE TABLE noted_revision (
        revision TEXT PRIMARY KEY,
        subject  TEXT NOT NULL,
        signer   TEXT
    );
    CREATE TABLE history_diff (
        line  INTEGER PRIMARY KEY,
        bytes INTEGER NOT NULL,
        text  TEXT NOT NULL
    );
    INSERT OR IGNORE INTO noted_revision (revision, subject, signer)
        SELECT json_extract(value, '$.revision'), json_extract(value, '$.subject'), json_extract(value, '$.signer')
        FROM memory WHERE name = 'applied' AND json_valid(value) AND json_extract(value, '$.revision') IS NOT NULL
            AND json_extract(value, '$.subject') IS NOT NULL;
";

/// How many lines are kept.
const LINES_LIMIT: i64 = 10_000;

/// How many of them may be about revisions that were not taken over.
const REJECTED_LIMIT: i64 = 200;

/// How many bytes of diffs are kept; the oldest go first, their lines stay.
const DIFF_BYTES_LIMIT: i64 = 8 << 20;

/// The longest text of a subject, a signer or a detail that is kept, in bytes.
const TEXT_LIMIT: usize = 2048;

/// The word for a revision that was put in force and walked to its end.
pub const APPLIED: &str = "applied";

/// The word for a revision that is not trusted.
pub const REFUSED: &str = "refused";

/// The word for a trusted revision with a mistake in it.
pub const MISTAKEN: &str = "mistaken";

/// The word for going back to a revision that was good.
pub const ROLLED_BACK: &str = "rolled-back";

/// The word for the beginning of a pause, of the host or of a resource.
pub const PAUSED: &str = "paused";

/// The word for its end.
pub const RESUMED: &str = "resumed";

/// The word for local root's letting a plan through that was held.
pub const LET_THROUGH: &str = "let through";

/// The word for the loss of what a file was before limpet, which was too large or too old to be kept.
pub const FORGOTTEN: &str = "forget original";

/// The word for what dpkg had left half done and limpet finished, or could not.
pub const REPAIRED: &str = "repaired";

/// The word for a version of limpet that did not work and was taken back.
pub const WENT_BACK: &str = "went-back";

/// The word for a revision that local root said is trusted.
pub const TRUST_SET: &str = "trust-set";

/// The word for the end of a package transaction that an agent before this one had started.
pub const ADOPTED: &str = "adopted";

/// One line of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HistoryEntry {
    /// When it was done.
    pub at: Timestamp,
    /// The revision being applied, in hex.
    pub revision: String,
    /// What was changed; none for events of the whole host.
    pub resource: Option<ResourceId>,
    /// What was done: an action's word, or [`APPLIED`], [`REFUSED`], [`MISTAKEN`], [`ROLLED_BACK`].
    pub action: String,
    /// Why: a reason's word, or empty.
    pub reason: String,
    /// Was it a correction of drift, not a new revision.
    pub drift: bool,
    /// `done`, `failed` or `skipped`.
    pub outcome: String,
    /// The error, or which fields changed.
    pub detail: String,
    /// What it did to the content, as a unified diff, where that is known and may be shown.
    pub diff: Option<String>,
}

impl HistoryEntry {
    /// A line about one resource.
    pub fn of_resource(
        at: Timestamp,
        revision: &str,
        resource: &ResourceId,
        action: Action,
        reason: Reason,
        drift: bool,
    ) -> Self {
        HistoryEntry {
            resource: Some(resource.clone()),
            action: action.as_str().to_owned(),
            reason: reason.as_str().to_owned(),
            drift,
            ..HistoryEntry::of_host(at, revision, "", "", "")
        }
    }

    /// A line about the whole host.
    pub fn of_host(
        at: Timestamp,
        revision: &str,
        action: &str,
        outcome: &str,
        detail: &str,
    ) -> Self {
        HistoryEntry {
            at,
            revision: revision.to_owned(),
            resource: None,
            action: action.to_owned(),
            reason: String::new(),
            drift: false,
            outcome: outcome.to_owned(),
            detail: detail.to_owned(),
            diff: None,
        }
    }

    /// Is it about a revision that was not taken over.
    pub fn is_rejection(&self) -> bool {
        self.resource.is_none() && [REFUSED, MISTAKEN].contains(&self.action.as_str())
    }
}

/// What is known of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The first line of its message.
    pub subject: String,
    /// Who signed it.
    pub signer: Option<String>,
}

/// Which lines are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines<'a> {
    /// All.
    All,
    /// Those of one revision: its full id.
    OfRevision(&'a str),
    /// Those about one resource.
    OfResource(&'a ResourceId),
}

impl Record {
    /// Writes down that `revision` was not taken over, unless the last such line says the same already.
    pub fn reject(&mut self, entry: &HistoryEntry, note: Option<&Note>) -> Result<(), Failure> {
        let transaction = self.connection.transaction().map_err(failure)?;
        reject(&transaction, entry, note).map_err(failure)?;
        transaction.commit().map_err(failure)
    }

    /// Writes down that a revision was put in force, and what is known of it.
    pub fn note(&mut self, entry: &HistoryEntry, note: &Note) -> Result<(), Failure> {
        let transaction = self.connection.transaction().map_err(failure)?;
        remember_note(&transaction, &entry.revision, note).map_err(failure)?;
        insert(&transaction, entry).map_err(failure)?;
        forget_old(&transaction, entry.diff.is_some()).map_err(failure)?;
        transaction.commit().map_err(failure)
    }

    /// What is known of `revision`.
    pub fn noted(&self, revision: &str) -> Result<Option<Note>, Failure> {
        self.need_history_layout()?;
        self.connection
            .prepare_cached("SELECT subject, signer FROM noted_revision WHERE revision = ?1")
            .and_then(|mut statement| {
                statement
                    .query_row([revision], |row| {
                        Ok(Note {
                            subject: row.get(0)?,
                            signer: row.get(1)?,
                        })
                    })
                    .optional()
            })
            .map_err(failure)
    }

    /// Every revision the history or a note tells of whose id starts with `prefix`, in order.
    pub fn revisions_like(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        self.need_history_layout()?;
        self.connection
            .prepare_cached(
                "SELECT revision FROM history WHERE substr(revision, 1, length(?1)) = ?1
                 UNION SELECT revision FROM noted_revision WHERE substr(revision, 1, length(?1)) = ?1 ORDER BY 1",
            )
            .and_then(|mut statement| statement.query_map([prefix], |row| row.get(0))?.collect())
            .map_err(failure)
    }

    /// Every resource the history tells of whose name is `name`, whatever its kind.
    pub fn resources_named(&self, name: &str) -> Result<Vec<ResourceId>, Failure> {
        self.need_history_layout()?;
        let found: Vec<String> = self
            .connection
            .prepare_cached(
                "SELECT DISTINCT resource FROM history WHERE substr(resource, instr(resource, ':') + 1) = ?1 ORDER BY 1",
            )
            .and_then(|mut statement| statement.query_map([name], |row| row.get(0))?.collect())
            .map_err(failure)?;
        Ok(found.iter().filter_map(|text| text.parse().ok()).collect())
    }

    /// The lines of history, newest first, each handed to `take` until that returns false.
    pub fn history(
        &self,
        lines: Lines<'_>,
        take: &mut dyn FnMut(HistoryEntry) -> bool,
    ) -> Result<(), Failure> {
        self.need_history_layout()?;
        let (condition, value) = match lines {
            Lines::All => ("?1 = ''", String::new()),
            Lines::OfRevision(revision) => ("revision = ?1", revision.to_owned()),
            Lines::OfResource(resource) => ("resource = ?1", resource.to_string()),
        };
        let mut statement = self
            .connection
            .prepare_cached(&format!(
                "SELECT at, revision, resource, action, reason, drift, outcome, detail, text
                 FROM history LEFT JOIN history_diff ON line = id WHERE {condition} ORDER BY id DESC"
            ))
            .map_err(failure)?;
        let rows = statement
            .query_map([value], |row| {
                Ok(HistoryEntry {
                    at: row
                        .get::<_, String>(0)?
                        .parse()
                        .unwrap_or(Timestamp::UNIX_EPOCH),
                    revision: row.get(1)?,
                    resource: row
                        .get::<_, Option<String>>(2)?
                        .and_then(|text| text.parse().ok()),
                    action: row.get(3)?,
                    reason: row.get(4)?,
                    drift: row.get(5)?,
                    outcome: row.get(6)?,
                    detail: row.get(7)?,
                    diff: row.get(8)?,
                })
            })
            .map_err(failure)?;
        for row in rows {
            if !take(row.map_err(failure)?) {
                break;
            }
        }
        Ok(())
    }

    /// A database opened to look only is not brought up to date.
    fn need_history_layout(&self) -> Result<(), Failure> {
        let version: i64 = self
            .connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(failure)?;
        if version == SCHEMA_VERSION {
            return Ok(());
        }
        Err(Failure::new(
            Class::Host,
            format!("the state database was written by another version of limpet (layout {version})"),
        )
        .with_hint("start the agent of this version, which brings it up to date: systemctl restart limpet.service"))
    }
}

/// Forgets what is too much.
pub(super) fn forget_old(connection: &Connection, has_diffs: bool) -> rusqlite::Result<()> {
    // Lines are counted, not their ids: what a server had refused took ids as well, and would push out what was really done.
    connection.execute(
        "DELETE FROM history WHERE id <= (SELECT id FROM history ORDER BY id DESC LIMIT 1 OFFSET ?1)",
        [LINES_LIMIT],
    )?;
    if has_diffs {
        forget_diffs(connection, DIFF_BYTES_LIMIT)?;
    }
    Ok(())
}

/// Forgets the oldest diffs beyond `limit` bytes, and those whose lines are gone.
fn forget_diffs(connection: &Connection, limit: i64) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM history_diff WHERE line < (SELECT MIN(id) FROM history)",
        [],
    )?;
    connection.execute(
        "DELETE FROM history_diff WHERE line IN
            (SELECT line FROM (SELECT line, SUM(bytes) OVER (ORDER BY line DESC) AS total FROM history_diff) WHERE total > ?1)",
        [limit],
    )?;
    Ok(())
}

/// Adds a line.
pub(super) fn insert(connection: &Connection, entry: &HistoryEntry) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO history (at, revision, resource, action, reason, drift, outcome, detail)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            entry.at.to_string(),
            entry.revision,
            entry.resource.as_ref().map(ToString::to_string),
            entry.action,
            entry.reason,
            entry.drift,
            entry.outcome,
            bounded(&entry.detail),
        ])?;
    let Some(diff) = &entry.diff else {
        return Ok(());
    };
    let line = connection.last_insert_rowid();
    connection
        .prepare_cached("INSERT INTO history_diff (line, bytes, text) VALUES (?1, ?2, ?3)")?
        .execute(params![
            line,
            i64::try_from(diff.len()).unwrap_or(i64::MAX),
            diff
        ])?;
    Ok(())
}

fn reject(
    transaction: &Transaction<'_>,
    entry: &HistoryEntry,
    note: Option<&Note>,
) -> rusqlite::Result<()> {
    let last: Option<(String, String, String)> = transaction
        .query_row(
            "SELECT revision, action, detail FROM history WHERE resource IS NULL AND action IN (?1, ?2) ORDER BY id DESC LIMIT 1",
            [REFUSED, MISTAKEN],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let this = (
        entry.revision.clone(),
        entry.action.clone(),
        bounded(&entry.detail).to_owned(),
    );
    if last.as_ref() == Some(&this) {
        return Ok(());
    }
    if let Some(note) = note {
        remember_note(transaction, &entry.revision, note)?;
    }
    insert(transaction, entry)?;
    forget_old(transaction, entry.diff.is_some())?;
    transaction.execute(
        "DELETE FROM history WHERE resource IS NULL AND action IN (?1, ?2) AND id NOT IN
            (SELECT id FROM history WHERE resource IS NULL AND action IN (?1, ?2) ORDER BY id DESC LIMIT ?3)",
        params![REFUSED, MISTAKEN, REJECTED_LIMIT],
    )?;
    Ok(())
}

/// Remembers what is known of `revision`, and forgets revisions the history no longer tells of.
fn remember_note(connection: &Connection, revision: &str, note: &Note) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM noted_revision WHERE revision NOT IN (SELECT revision FROM history)",
        [],
    )?;
    connection.execute(
        "INSERT OR REPLACE INTO noted_revision (revision, subject, signer) VALUES (?1, ?2, ?3)",
        params![
            revision,
            bounded(&note.subject),
            note.signer.as_deref().map(bounded)
        ],
    )?;
    Ok(())
}

/// The beginning of `text`, at most [`TEXT_LIMIT`] bytes.
fn bounded(text: &str) -> &str {
    let ends = (0..=text.len().min(TEXT_LIMIT)).rev();
    let end = ends.into_iter().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn line(second: i64, revision: &str, diff: Option<&str>) -> HistoryEntry {
        let motd = ResourceId::new(Kind::File, "/etc/motd");
        HistoryEntry {
            outcome: "done".into(),
            diff: diff.map(str::to_owned),
            ..HistoryEntry::of_resource(
                at(second),
                revision,
                &motd,
                Action::Update,
                Reason::Differs,
                false,
            )
        }
    }

    fn all(record: &Record) -> Vec<HistoryEntry> {
        let mut found = Vec::new();
        record
            .history(Lines::All, &mut |entry| {
                found.push(entry);
                true
            })
            .unwrap();
        found
    }

    #[test]
    fn lines_come_back_newest_first_with_their_diffs() {
        let mut record = Record::in_memory().unwrap();
        let (first, second) = (line(1, "aa", Some("+one\n")), line(2, "bb", None));
        record
            .conclude("aa", &[], &[], &[], &[first.clone(), second.clone()])
            .unwrap();
        assert_eq!(all(&record), [second, first]);
        assert_eq!(record.revisions_like("a").unwrap(), ["aa"]);
        let motd = ResourceId::new(Kind::File, "/etc/motd");
        assert_eq!(record.resources_named("/etc/motd").unwrap(), [motd]);
    }

    #[test]
    fn a_database_of_the_first_layout_is_brought_up_to_date_and_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(super::super::SCHEMA).unwrap();
        old.execute_batch(
            r#"PRAGMA user_version = 1;
            INSERT INTO memory VALUES ('applied', '{"revision":"aa","subject":"raise the pool","signer":"alice","at":"2026-01-01T00:00:00Z","digest":"d","is_clean":true}');
            INSERT INTO history (at, revision, resource, action, reason, drift, outcome, detail)
                VALUES ('2026-01-01T00:00:00Z', 'aa', 'file:/etc/motd', 'create', 'missing', 0, 'done', '');"#,
        )
        .unwrap();
        drop(old);
        let looked = Record::open_read_only(&path).unwrap();
        let failure = looked.history(Lines::All, &mut |_| true).unwrap_err();
        assert!(failure.message.contains("layout 1"), "{failure}");
        drop(looked);

        let record = Record::open(&path).unwrap();
        assert_eq!(
            record.noted("aa").unwrap(),
            Some(Note {
                subject: "raise the pool".into(),
                signer: Some("alice".into())
            })
        );
        let lines = all(&record);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].action, "create");
        drop(record);
        assert_eq!(all(&Record::open(&path).unwrap()), lines, "once is enough");
    }

    #[test]
    fn a_server_that_is_refused_for_ever_pushes_out_nothing_that_was_done() {
        let mut record = Record::in_memory().unwrap();
        record
            .conclude("aa", &[], &[], &[], &[line(1, "aa", None)])
            .unwrap();
        for number in 0..REJECTED_LIMIT + 50 {
            let tip = format!("{number:040x}");
            let refusal = HistoryEntry::of_host(at(number), &tip, REFUSED, "", "unsigned");
            for _ in 0..2 {
                record.reject(&refusal, None).unwrap();
            }
        }
        let lines = all(&record);
        assert_eq!(lines.len() as i64, REJECTED_LIMIT + 1);
        assert_eq!(lines.last().unwrap().revision, "aa");
        // For as many polls as there are lines.
        record
            .connection
            .execute("UPDATE sqlite_sequence SET seq = seq + ?1", [LINES_LIMIT])
            .unwrap();
        let refusal = HistoryEntry::of_host(at(9), "bb", REFUSED, "", "unsigned");
        record.reject(&refusal, None).unwrap();
        assert_eq!(all(&record).last().unwrap().revision, "aa");
    }

    #[test]
    fn the_oldest_lines_go_first() {
        let mut record = Record::in_memory().unwrap();
        let lines: Vec<_> = (0..LINES_LIMIT + 3).map(|n| line(n, "aa", None)).collect();
        record.conclude("aa", &[], &[], &[], &lines).unwrap();
        let kept = all(&record);
        assert_eq!(kept.len() as i64, LINES_LIMIT);
        assert_eq!(kept.last().unwrap().at, at(3));
    }

    #[test]
    fn the_oldest_diffs_go_first_and_their_lines_stay() {
        let mut record = Record::in_memory().unwrap();
        let lines: Vec<_> = (0..4).map(|n| line(n, "aa", Some("12345"))).collect();
        record.conclude("aa", &[], &[], &[], &lines).unwrap();
        forget_diffs(&record.connection, 12).unwrap();
        let kept: Vec<bool> = all(&record)
            .iter()
            .map(|line| line.diff.is_some())
            .collect();
        assert_eq!(kept, [true, true, false, false]);
    }

    #[test]
    fn notes_end_with_the_lines_they_are_about() {
        let mut record = Record::in_memory().unwrap();
        let note = |subject: &str| Note {
            subject: subject.into(),
            signer: None,
        };
        for revision in ["aa", "bb"] {
            let entry = HistoryEntry::of_host(at(1), revision, APPLIED, "done", "");
            record.note(&entry, &note(revision)).unwrap();
        }
        record
            .connection
            .execute("DELETE FROM history WHERE revision = 'aa'", [])
            .unwrap();
        let entry = HistoryEntry::of_host(at(2), "cc", APPLIED, "done", "");
        record.note(&entry, &note(&"x".repeat(5000))).unwrap();
        assert_eq!(record.noted("aa").unwrap(), None);
        assert!(record.noted("bb").unwrap().is_some());
        assert_eq!(
            record.noted("cc").unwrap().unwrap().subject.len(),
            TEXT_LIMIT
        );
    }
}
