//! What a program said about files, for as long as those are as they were: a cycle in which nothing changed runs no program.
//!
//! Invariant: memory only. Nothing is remembered of a file that changed so shortly before it was read that another change could leave
//! the same time, nor where none of the files can be seen: the program, which runs outside of our sandbox, may see more.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::Failure;
use crate::sys::command::{Command, CommandResult};
use crate::sys::{Host, clock};

/// Coarser than the times of file systems.
const TIME_GRAIN_SECS: i64 = 2;

/// Answers by the program and its arguments.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<HashMap<Vec<String>, Remembered>>);

/// An answer, and how the files were that it is about.
type Remembered = (Vec<Marks>, Arc<CommandResult>);

/// What moves when a file's content does; `None` where there is none, or nothing in it.
type Marks = Option<[i64; 7]>;

impl Host {
    /// Runs a program that reads `files` and changes nothing, or returns what it said when it ran last, if they have not changed.
    pub fn ask(&self, command: &Command, files: &[String]) -> Result<Arc<CommandResult>, Failure> {
        let marks: Vec<Marks> = files.iter().map(|path| self.marks(path)).collect();
        let known = self.answers.0.lock();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        if let Some((before, answer)) = known.get(&command.argv)
            && *before == marks
        {
            return Ok(answer.clone());
        }
        drop(known);
        let now = clock::now().as_second();
        let answer = Arc::new(self.run_outside(command)?);
        let is_old =
            |marks: &[i64; 7]| now.saturating_sub(marks[3].max(marks[5])) > TIME_GRAIN_SECS;
        let mut known = self
            .answers
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_seen = marks.iter().any(Option::is_some);
        if answer.is_success() && is_seen && marks.iter().flatten().all(is_old) {
            known.insert(command.argv.clone(), (marks, answer.clone()));
        } else {
            known.remove(&command.argv);
        }
        Ok(answer)
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "sys is where files are looked at"
    )]
    fn marks(&self, path: &str) -> Marks {
        let found = std::fs::metadata(self.outer_path(path)).ok()?;
        let size = i64::try_from(found.size()).unwrap_or(i64::MAX);
        let number = |number: u64| i64::from_ne_bytes(number.to_ne_bytes());
        (size > 0).then(|| {
            [
                number(found.dev()),
                number(found.ino()),
                size,
                found.mtime(),
                found.mtime_nsec(),
                found.ctime(),
                found.ctime_nsec(),
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]
    use super::*;

    #[test]
    fn a_program_is_asked_again_only_when_a_file_it_reads_has_changed() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        std::fs::write(root.path().join("database"), "1").unwrap();
        let files = ["/database".to_owned(), "/database-wal".to_owned()];
        let command = Command {
            argv: vec!["cat".to_owned(), "/proc/sys/kernel/random/uuid".to_owned()],
            ..Command::default()
        };
        let ask = || host.ask(&command, &files).unwrap().output.clone();
        let ask_hidden = || {
            host.ask(&command, &["/hidden".to_owned()])
                .unwrap()
                .output
                .clone()
        };
        assert_ne!(ask_hidden(), ask_hidden());
        // It has changed a moment ago: that it is as it was would not be seen.
        assert_ne!(ask(), ask());
        let old = std::process::Command::new("touch")
            .args(["-d", "2001-01-01"])
            .arg(root.path().join("database"))
            .status();
        assert!(old.unwrap().success());
        std::thread::sleep(std::time::Duration::from_millis(3100));
        let first = ask();
        assert_eq!(ask(), first);
        // An empty journal beside it is none.
        std::fs::write(root.path().join("database-wal"), "").unwrap();
        assert_eq!(ask(), first);
        std::fs::write(root.path().join("database-wal"), "2").unwrap();
        assert_ne!(ask(), first);
    }
}
