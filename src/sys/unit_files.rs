//! What systemd said about unit files, remembered for as long as their directories stay as they were.
//!
//! Whether a unit is enabled is a question systemd answers by searching its directories: milliseconds for each unit, in every
//! cycle. The answer stands while no directory that it looks into has changed, nor any file that an administrator keeps there.
//!
//! Invariant: nothing is remembered that was asked within the time in which a change might leave no mark on a time stamp.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;

use crate::sys::clock;

/// Directories of which every entry is looked at: what an administrator or a generator puts there decides about enablement.
const CHANGING: [&str; 9] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/run/systemd/generator.late",
];

/// Directories of packages: whose files are replaced, never edited.
const PACKAGED: [&str; 3] = [
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Coarser than the time stamps of any file system a unit lies on.
const STAMP_GRAIN_SECS: i64 = 2;

/// The answers, and the directories as they were when they were asked.
#[derive(Debug, Default)]
pub(super) struct UnitFileCache {
    marks: Vec<Mark>,
    states: HashMap<String, String>,
}

/// What changes about a file or directory when it does: device, inode, seconds and nanoseconds of its last change.
type Mark = (u64, u64, i64, i64);

/// The directories as they are now.
pub(super) struct Marks {
    marks: Vec<Mark>,
    are_settled: bool,
}

impl UnitFileCache {
    /// The answer that still stands.
    pub(super) fn get(&self, marks: &Marks, name: &str) -> Option<&String> {
        if self.marks == marks.marks {
            self.states.get(name)
        } else {
            None
        }
    }

    /// Remembers an answer to a question asked after `marks` were read.
    pub(super) fn remember(&mut self, marks: &Marks, name: &str, state: &str) {
        if self.marks != marks.marks {
            self.states.clear();
            self.marks.clone_from(&marks.marks);
        }
        if marks.are_settled {
            self.states.insert(name.to_owned(), state.to_owned());
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.states.clear();
    }
}

/// Looks at the directories; a few hundred `stat` calls at most, nearly all of them in `/etc/systemd/system`.
pub(super) fn read_marks() -> Marks {
    let mut marks = Vec::new();
    for directory in CHANGING {
        let directory = Path::new(directory);
        marks.extend(read_mark(directory));
        #[allow(
            clippy::disallowed_methods,
            reason = "sys is where files are looked at"
        )]
        let Ok(entries) = std::fs::read_dir(directory) else {
            continue;
        };
        for entry in entries.flatten() {
            marks.extend(read_mark(&entry.path()));
        }
    }
    marks.extend(
        PACKAGED
            .iter()
            .filter_map(|path| read_mark(Path::new(path))),
    );
    marks.sort_unstable(); // directories are listed in no order
    let are_settled = are_settled(&marks, clock::now());
    Marks { marks, are_settled }
}

fn read_mark(path: &Path) -> Option<Mark> {
    #[allow(
        clippy::disallowed_methods,
        reason = "sys is where files are looked at"
    )]
    let found = std::fs::metadata(path).ok()?; // through links: an enabled unit may be one
    Some((found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
}

/// Is the last change so long ago that another one would get another time stamp.
fn are_settled(marks: &[Mark], now: Timestamp) -> bool {
    let latest = marks.iter().map(|(_, _, seconds, _)| *seconds).max();
    latest.is_none_or(|latest| latest + STAMP_GRAIN_SECS < now.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_stands_until_a_directory_changes() {
        let marks = |ctime| Marks {
            marks: vec![(1, 1, ctime, 0)],
            are_settled: true,
        };
        let mut cache = UnitFileCache::default();
        cache.remember(&marks(10), "a.service", "enabled");
        assert_eq!(
            cache.get(&marks(10), "a.service").map(String::as_str),
            Some("enabled")
        );
        assert_eq!(cache.get(&marks(10), "b.service"), None);
        assert_eq!(cache.get(&marks(11), "a.service"), None);
        cache.remember(&marks(11), "b.service", "static");
        assert_eq!(cache.get(&marks(11), "a.service"), None);
        assert!(cache.get(&marks(11), "b.service").is_some());
        cache.clear();
        assert_eq!(cache.get(&marks(11), "b.service"), None);
    }

    #[test]
    fn nothing_is_remembered_right_after_a_change() {
        let now = Timestamp::from_second(1_000).unwrap();
        let check = |ctime, settled| {
            assert_eq!(are_settled(&[(1, 1, 5, 0), (1, 2, ctime, 0)], now), settled);
        };
        check(900, true);
        check(997, true);
        check(998, false);
        check(1_000, false);
        check(1_700, false); // a clock that went back
        let mut cache = UnitFileCache::default();
        let marks = Marks {
            marks: vec![(1, 1, 1_000, 0)],
            are_settled: false,
        };
        cache.remember(&marks, "a.service", "enabled");
        assert_eq!(cache.get(&marks, "a.service"), None);
    }
}
