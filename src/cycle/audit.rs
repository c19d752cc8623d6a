//! Reading the audit trail: lines become runs, and what a person typed becomes a revision or a resource.

use jiff::{SignedDuration, Timestamp};

use crate::document::nearest;
use crate::model::{Class, Failure, ResourceId};
use crate::record::history::{
    ADOPTED, APPLIED, LET_THROUGH, Lines, MISTAKEN, PAUSED, REFUSED, REPAIRED, RESUMED,
    ROLLED_BACK, TRUST_SET, WENT_BACK,
};
use crate::record::{HistoryEntry, Record};
use crate::report::history::{Change, Event, History, Run};

/// How many bytes of diffs an answer holds; it has to fit into one line of the control socket.
const DIFF_BUDGET_BYTES: usize = 4 << 20;

/// How many bytes of lines; the same line of the socket holds them, too.
const TEXT_BUDGET_BYTES: usize = 8 << 20;

/// What a line costs beside its texts, written as JSON: about so many bytes.
const LINE_BYTES: usize = 512;

/// How far two steps of one revision may lie apart and still be one run: a package transaction takes its time.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(40);

/// The same for two corrections of drift.
const LONGEST_DRIFT_PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// The fewest characters of an id that are taken for one.
const SHORTEST_PREFIX: usize = 4;

/// The runs that `record` tells of, at most `limit`, newest first. With `about`, a revision or resource, only those, with their diffs.
pub fn history(
    record: &Record,
    host: &str,
    limit: usize,
    about: Option<&str>,
) -> Result<History, Failure> {
    let subject = about.map(|text| find(record, text)).transpose()?;
    let mut budget = if subject.is_some() {
        DIFF_BUDGET_BYTES
    } else {
        0
    };
    let lines = match &subject {
        None => Lines::All,
        Some(Subject::Revision(revision)) => Lines::OfRevision(revision),
        Some(Subject::Resource(resource)) => Lines::OfResource(resource),
    };
    let mut runs: Vec<Run> = Vec::new();
    let mut oldest = Timestamp::MAX;
    let mut more = false;
    let mut text_left = TEXT_BUDGET_BYTES;
    record.history(lines, &mut |entry| {
        let at = entry.at;
        let is_same = runs
            .last()
            .is_some_and(|run| continues(run, oldest, &entry));
        text_left = text_left.saturating_sub(LINE_BYTES + entry.detail.len());
        if text_left == 0 || (!is_same && runs.len() == limit) {
            more = true;
            return false;
        }
        let diff = entry.diff.clone().filter(|diff| diff.len() <= budget);
        budget -= diff.as_ref().map_or(0, String::len);
        if !is_same {
            runs.push(begin(&entry));
        }
        if let (Some(run), Some(resource)) = (runs.last_mut(), entry.resource) {
            run.changes.push(Change {
                at,
                resource,
                action: entry.action,
                reason: entry.reason,
                outcome: entry.outcome,
                detail: entry.detail,
                diff,
            });
        }
        oldest = at;
        true
    })?;
    for run in &mut runs {
        run.changes.reverse();
        if run.changes.iter().any(|change| change.outcome != "done") {
            run.outcome = "failed".to_owned();
        }
        if let Some(note) = record.noted(&run.revision)? {
            run.subject = Some(note.subject).filter(|subject| !subject.is_empty());
            run.signer = note.signer;
        }
    }
    Ok(History {
        host: host.to_owned(),
        runs,
        more,
    })
}

/// What a person asks about.
#[derive(Debug, PartialEq, Eq)]
enum Subject {
    Revision(String),
    Resource(ResourceId),
}

/// What `text` means in the history: a revision's id or its beginning, `kind:name`, or a bare name.
fn find(record: &Record, text: &str) -> Result<Subject, Failure> {
    if let Ok(resource) = text.parse() {
        return Ok(Subject::Resource(resource));
    }
    let lower = text.to_ascii_lowercase();
    let is_id = text.len() >= SHORTEST_PREFIX && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id || text == "unverified" {
        match &record.revisions_like(&lower)?[..] {
            [] => {}
            [revision] => return Ok(Subject::Revision(revision.clone())),
            several => {
                let message = format!("'{text}' is the start of {} revisions", several.len());
                let hint = format!("write more of it: {}", several.join(", "));
                return Err(Failure::new(Class::Host, message).with_hint(hint));
            }
        }
    }
    match &record.resources_named(text)?[..] {
        [resource] => return Ok(Subject::Resource(resource.clone())),
        [] => {}
        several => {
            let several: Vec<String> = several.iter().map(ToString::to_string).collect();
            let message = format!("'{text}' may be {}", several.join(" or "));
            return Err(Failure::new(Class::Host, message).with_hint("write which"));
        }
    }
    let mut known = Vec::new();
    record.history(Lines::All, &mut |entry| {
        known.extend(entry.resource.map(|resource| resource.to_string()));
        true
    })?;
    let names = known
        .iter()
        .flat_map(|id| [id.as_str(), id.split_once(':').map_or("", |(_, name)| name)]);
    let failure = Failure::new(
        Class::Host,
        format!("the history of this host tells of no revision or resource '{text}'"),
    );
    Err(match nearest(text, names) {
        Some(near) => failure.with_hint(format!("did you mean '{near}'?")),
        None => failure.with_hint("see what it tells of with 'limpet history'"),
    })
}

/// Is `entry`, which is older than everything in `run`, of the same run; `oldest` is when the oldest step of it was made.
fn continues(run: &Run, oldest: Timestamp, entry: &HistoryEntry) -> bool {
    // An event is the last line of its run, so here it is the first of the next one.
    if entry.resource.is_none() || run.revision != entry.revision {
        return false;
    }
    let event = event_of(entry);
    let (is_same_kind, pause) = match run.event {
        Event::Applied => (event == Event::Applied, LONGEST_PAUSE),
        Event::DriftCorrected => (event == Event::DriftCorrected, LONGEST_DRIFT_PAUSE),
        // Of one command, so of one moment; the host has no name among the changes.
        Event::Paused | Event::Resumed => (
            event == run.event && !run.changes.is_empty(),
            SignedDuration::ZERO,
        ),
        Event::Refused
        | Event::Mistaken
        | Event::LetThrough
        | Event::RolledBack
        | Event::Repaired
        | Event::WentBack
        | Event::TrustSet
        | Event::Adopted => {
            return false;
        }
    };
    is_same_kind && oldest.duration_since(entry.at) <= pause
}

/// What kind of run `entry` is of.
fn event_of(entry: &HistoryEntry) -> Event {
    match (&entry.resource, entry.action.as_str()) {
        (None, REFUSED) => Event::Refused,
        (None, MISTAKEN) => Event::Mistaken,
        (None, APPLIED) => Event::Applied,
        (None, LET_THROUGH) => Event::LetThrough,
        (None, ROLLED_BACK) => Event::RolledBack,
        (None, REPAIRED) => Event::Repaired,
        (None, WENT_BACK) => Event::WentBack,
        (None, TRUST_SET) => Event::TrustSet,
        (None, ADOPTED) => Event::Adopted,
        (_, PAUSED) => Event::Paused,
        (_, RESUMED) => Event::Resumed,
        _ if entry.drift => Event::DriftCorrected,
        _ => Event::Applied,
    }
}

fn begin(entry: &HistoryEntry) -> Run {
    let event = event_of(entry);
    let is_event = entry.resource.is_none();
    Run {
        at: entry.at,
        event,
        revision: entry.revision.clone(),
        subject: None,
        signer: None,
        outcome: if is_event && !entry.outcome.is_empty() {
            entry.outcome.clone()
        } else {
            "done".to_owned()
        },
        detail: if is_event {
            entry.detail.clone()
        } else {
            String::new()
        },
        changes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, Kind, Reason};
    use crate::record::history::Note;

    const FIRST: &str = "9f3c2ab5d29f3c2ab5d29f3c2ab5d29f3c2ab5d2";
    const SECOND: &str = "9f3c00000000000000000000000000000000feed";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn line(second: i64, revision: &str, name: &str, drift: bool) -> HistoryEntry {
        let id = ResourceId::new(Kind::File, name);
        HistoryEntry {
            outcome: "done".into(),
            diff: Some(format!("+{name}\n")),
            ..HistoryEntry::of_resource(
                at(second),
                revision,
                &id,
                Action::Update,
                Reason::Differs,
                drift,
            )
        }
    }

    fn record() -> Record {
        let mut record = Record::in_memory().unwrap();
        let note = Note {
            subject: "raise the pool".into(),
            signer: Some("alice".into()),
        };
        let lines = [line(1, FIRST, "/a", false), line(900, FIRST, "/b", false)];
        record.conclude(FIRST, &[], &[], &[], &lines).unwrap();
        let applied = HistoryEntry::of_host(at(901), FIRST, APPLIED, "done", "");
        record.note(&applied, &note).unwrap();
        let lines = [
            line(2000, FIRST, "/a", true),
            line(2001, FIRST, "/b", true),
            line(3000, FIRST, "/a", true),
        ];
        record.conclude(FIRST, &[], &[], &[], &lines).unwrap();
        let refused = HistoryEntry::of_host(at(4000), SECOND, REFUSED, "", "unsigned");
        record.reject(&refused, None).unwrap();
        record
    }

    fn told(history: &History) -> Vec<(&'static str, i64, usize)> {
        let run = |run: &Run| (run.event.as_str(), run.at.as_second(), run.changes.len());
        history.runs.iter().map(run).collect()
    }

    #[test]
    fn lines_become_runs_newest_first() {
        let history = history(&record(), "gw-1", 10, None).unwrap();
        assert_eq!(
            told(&history),
            [
                ("refused", 4000, 0),
                ("drift corrected", 3000, 1),
                ("drift corrected", 2001, 2),
                ("applied", 901, 2),
            ]
        );
        assert!(!history.more);
        let applied = history.runs.last().unwrap();
        assert_eq!(applied.subject.as_deref(), Some("raise the pool"));
        assert_eq!(applied.changes[0].resource.name, "/a", "in the order made");
        let diffs = history.runs.iter().flat_map(|run| &run.changes);
        assert!(
            diffs.into_iter().all(|change| change.diff.is_none()),
            "not asked for"
        );
    }

    #[test]
    fn a_limit_counts_runs() {
        let history = history(&record(), "gw-1", 2, None).unwrap();
        assert_eq!(history.runs.len(), 2);
        assert!(history.more);
    }

    #[test]
    fn a_revision_or_a_resource_is_told_with_its_diffs() {
        let record = record();
        let runs = |about: &str| told(&history(&record, "gw-1", 10, Some(about)).unwrap());
        assert_eq!(runs("9f3c2").len(), 3);
        assert_eq!(
            runs("file:/b"),
            [("drift corrected", 2001, 1), ("applied", 900, 1)]
        );
        assert_eq!(runs("/b"), runs("file:/b"));
        let of_a = history(&record, "gw-1", 10, Some("/a")).unwrap();
        assert_eq!(of_a.runs[0].changes[0].diff.as_deref(), Some("+/a\n"));
    }

    #[test]
    fn what_is_not_told_of_has_a_hint() {
        let record = record();
        let failure = |about: &str| history(&record, "gw-1", 10, Some(about)).unwrap_err();
        let ambiguous = failure("9f3c");
        assert_eq!(ambiguous.message, "'9f3c' is the start of 2 revisions");
        let unknown = failure("file-a");
        assert!(unknown.hint.is_some(), "{unknown:?}");
    }

    #[test]
    fn a_pause_is_no_step_of_the_revision_in_force() {
        let step = line(10, FIRST, "/etc/motd", false);
        let pause = |resource: Option<ResourceId>, action: &str| HistoryEntry {
            resource,
            action: action.into(),
            ..line(11, FIRST, "/etc/motd", false)
        };
        let motd = || Some(ResourceId::new(Kind::File, "/etc/motd"));
        let applied = begin(&line(12, FIRST, "/etc/issue", false));
        assert!(continues(&applied, at(12), &step));
        assert!(!continues(&applied, at(12), &pause(motd(), PAUSED)));
        assert_eq!(begin(&pause(None, PAUSED)).event, Event::Paused);
        let resumed = begin(&pause(motd(), RESUMED));
        assert_eq!(resumed.event, Event::Resumed);
        assert!(!continues(&resumed, at(11), &step));
    }
}
