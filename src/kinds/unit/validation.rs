//! Judging what a unit will read, before it reads it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::kinds::unit::observe;
use crate::model::{Class, Failure, Name, ResourceId};
use crate::report::journal;
use crate::sys::Host;
use crate::sys::command::Command;

/// How long it may take.
pub const TIME_LIMIT: Duration = Duration::from_secs(60);

/// How many paths a failure names.
const PATHS_NAMED: usize = 3;

/// One run of a unit's `validate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validation {
    /// The unit.
    pub id: ResourceId,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// What is changed in this run and read by the unit: what there was before is kept until the verdict.
    pub paths: BTreeSet<Name>,
    /// It reads a secret, which it may quote: what it says is told to nobody.
    pub reads_secret: bool,
}

/// What a validation ended with.
#[derive(Debug)]
pub enum Verdict {
    /// The unit may read its files.
    Accepted,
    /// It may not.
    Rejected(Failure),
    /// Nobody knows: it is to be asked again.
    Open(Failure),
}

/// Asks whether the unit may read its files; `paths` are those that changed since it was asked last.
pub fn validate(host: &Host, validation: &Validation, paths: &[String]) -> Verdict {
    let command = Command {
        argv: validation.argv.clone(),
        time_limit: TIME_LIMIT,
        inside_root: true,
        ..Command::default()
    };
    match host.run_outside(&command) {
        Ok(result) => {
            if !validation.reads_secret {
                journal::output(&validation.id, &result.output);
            }
            match result.is_success() {
                true => Verdict::Accepted,
                false if validation.reads_secret => {
                    let complaint = "failed; what it says is not shown, because it reads a secret";
                    Verdict::Rejected(rejection(validation, paths, complaint))
                }
                false => Verdict::Rejected(rejection(validation, paths, &result.complaint())),
            }
        }
        Err(failure) if failure.class == Class::Transient => {
            Verdict::Open(failure.about(validation.id.clone()))
        }
        // A program that is not there accepts nothing.
        Err(failure) => {
            let rejected = rejection(validation, paths, "could not be run");
            let message = format!("{}: {}", rejected.message, failure.message);
            Verdict::Rejected(Failure {
                message,
                ..rejected
            })
        }
    }
}

fn rejection(validation: &Validation, paths: &[String], complaint: &str) -> Failure {
    let id = &validation.id;
    let program = validation.argv.join(" ");
    let named: Vec<String> = paths
        .iter()
        .take(PATHS_NAMED)
        .map(|path| format!("'{path}'"))
        .collect();
    let left = paths.len().saturating_sub(PATHS_NAMED);
    let with = match (named.is_empty(), left) {
        (true, _) => String::new(),
        (false, 0) => format!(" with {}", named.join(" and ")),
        (false, left) => format!(" with {} and {left} more", named.join(", ")),
    };
    let hint = match named.is_empty() {
        true => "it is not restarted until that is mended: then 'limpet sync --retry' tries again",
        false => {
            "what was there before is put back; correct the declaration, or try it again with 'limpet sync --retry'"
        }
    };
    let message = format!("failed to validate {id}{with}: '{program}' {complaint}");
    Failure::new(Class::Author, message)
        .with_hint(hint)
        .about(id.clone())
}

/// Was the unit called `name` started after `moment`, in microseconds since the machine started. Where nobody can tell, it was not.
pub fn has_started_since(host: &Host, name: &str, moment: u64) -> bool {
    let names = BTreeSet::from([name]);
    match observe::started(host.systemd(), &names) {
        Ok(started) => started.get(name).is_some_and(|at| *at > moment),
        Err(error) => {
            tracing::debug!("failed to tell when '{name}' was started: {error}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    #[test]
    fn a_rejection_has_the_files_and_the_validators_own_words() {
        let told = |paths: &[&str]| {
            let validation = Validation {
                id: ResourceId::new(Kind::Unit, "app.service"),
                argv: vec!["app".to_owned(), "--check".to_owned()],
                paths: BTreeSet::new(),
                reads_secret: false,
            };
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            let failure = rejection(
                &validation,
                &paths,
                "exited with status 3: \"line 7: what?\"",
            );
            format!("{failure}\n{}", failure.hint.as_deref().unwrap_or_default())
        };
        insta::assert_snapshot!(told(&["/etc/app.conf"]), @r#"
        failed to validate unit:app.service with '/etc/app.conf': 'app --check' exited with status 3: "line 7: what?"
        what was there before is put back; correct the declaration, or try it again with 'limpet sync --retry'
        "#);
        insta::assert_snapshot!(told(&["/a", "/b", "/c", "/d", "/e"]), @r#"
        failed to validate unit:app.service with '/a', '/b', '/c' and 2 more: 'app --check' exited with status 3: "line 7: what?"
        what was there before is put back; correct the declaration, or try it again with 'limpet sync --retry'
        "#);
        insta::assert_snapshot!(told(&[]), @r#"
        failed to validate unit:app.service: 'app --check' exited with status 3: "line 7: what?"
        it is not restarted until that is mended: then 'limpet sync --retry' tries again
        "#);
    }
}
