//! Commands: programs that are run when something changed, or once.
//!
//! A command with `run_on` is owed like a restart: the plan across kinds triggers it. One with `once` is run until it succeeds, and then
//! never again under its name: the inventory remembers that for ever, also when it is no longer declared. Undeclaring a command does
//! nothing to the host.
//!
//! Invariant: no shell, and a time limit; it runs outside of us, in the host's name spaces. What it wrote is in the journal.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::kinds::kind::{Contents, Kind, Owned, PlannedChange, Step};
use crate::model::{Action, Class, Failure, Outcome, Reason, ResourceId};
use crate::report::journal;
use crate::sys::Host;
use crate::sys::command::{Command, CommandResult};

/// How long a command may take that says nothing else.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The longest time that may be declared.
pub const LONGEST_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// One declared command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredCommand {
    /// Its name; what success is remembered under.
    pub name: String,
    /// `command:<name>`.
    pub id: ResourceId,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// When it is ended.
    pub timeout: Duration,
    /// Resources whose change makes it run.
    pub run_on: Vec<ResourceId>,
    /// It runs until it has succeeded once.
    pub once: bool,
    /// Look, but do not touch.
    pub report: bool,
}

/// What there was before a command: nothing that could be put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Original {}

/// One run of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandChange {
    /// The resource it is run for: the command, or the unit that it validates.
    pub id: ResourceId,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// When it is ended.
    pub timeout: Duration,
}

/// The kind.
#[derive(Debug)]
pub struct Commands;

impl Kind for Commands {
    type Desired = DesiredCommand;
    type Observed = ();
    type Original = Original;
    type Applied = serde_json::Value;
    type Change = CommandChange;

    /// Whether a command has to run, the host cannot tell.
    fn observe(_host: &Host, _desired: &[DesiredCommand], _owned: &[Owned<Original>]) {}

    /// `owned` are the commands that succeeded.
    fn plan(
        desired: &[DesiredCommand],
        _observed: &(),
        owned: &[Owned<Original>],
    ) -> Vec<Step<Original, CommandChange>> {
        let has_succeeded = |name: &str| owned.iter().any(|owned| owned.key == name);
        desired
            .iter()
            .filter(|command| command.once && !has_succeeded(&command.name))
            .map(|command| {
                Step::Change(Box::new(PlannedChange {
                    id: command.id.clone(),
                    key: command.name.as_str().into(),
                    action: Action::Run,
                    reason: Reason::Missing,
                    fields: Vec::new(),
                    original: Original {},
                    removes: false,
                    change: command.change(),
                }))
            })
            .collect()
    }

    fn apply(host: &Host, _contents: &dyn Contents, changes: &[&CommandChange]) -> Vec<Outcome> {
        let outcome = |change: &&CommandChange| match run(host, change) {
            Ok(()) => Outcome::Done,
            Err(failure) => Outcome::Failed(failure.about(change.id.clone())),
        };
        changes.iter().map(outcome).collect()
    }
}

impl DesiredCommand {
    /// A run of it.
    pub fn change(&self) -> CommandChange {
        CommandChange {
            id: self.id.clone(),
            argv: self.argv.clone(),
            timeout: self.timeout,
        }
    }
}

/// What the inventory says of a command that succeeded once.
pub fn applied(desired: &DesiredCommand) -> serde_json::Value {
    serde_json::json!({ "command": desired.argv })
}

fn run(host: &Host, change: &CommandChange) -> Result<(), Failure> {
    let command = Command {
        argv: change.argv.clone(),
        time_limit: change.timeout,
        inside_root: true,
        ..Command::default()
    };
    let result = host.run_outside(&command)?;
    journal::output(&change.id, &result.output);
    judge(change, &result)
}

fn judge(change: &CommandChange, result: &CommandResult) -> Result<(), Failure> {
    if result.is_success() {
        return Ok(());
    }
    let id = &change.id;
    let message = format!(
        "failed to run {id}: '{}' {}",
        change.argv.join(" "),
        result.complaint()
    );
    Err(Failure::new(Class::Host, message)
        .with_hint("'journalctl -t limpet' has all that it wrote; it is tried again after a rest, or now with 'limpet sync'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind as ResourceKind, OnRemoval};
    use crate::sys::command::Ending;
    use proptest::prelude::*;

    fn command(name: &str, once: bool) -> DesiredCommand {
        DesiredCommand {
            name: name.to_owned(),
            id: ResourceId::new(ResourceKind::Command, name),
            argv: vec!["true".to_owned()],
            timeout: DEFAULT_TIMEOUT,
            run_on: Vec::new(),
            once,
            report: false,
        }
    }

    fn owned(name: &str) -> Owned<Original> {
        Owned {
            id: ResourceId::new(ResourceKind::Command, name),
            key: name.into(),
            original: Original {},
            on_removal: OnRemoval::Keep,
            applied: serde_json::json!({ "command": ["something", "else"] }),
        }
    }

    fn keys(steps: &[Step<Original, CommandChange>]) -> Vec<&str> {
        steps
            .iter()
            .map(|step| match step {
                Step::Change(planned) => planned.key.as_str(),
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    }

    proptest! {
        #[test]
        fn once_means_until_success_under_that_name(
            declared in proptest::collection::btree_map("[a-d]", any::<bool>(), 0..4),
            succeeded in proptest::collection::btree_set("[a-d]", 0..4),
        ) {
            let desired: Vec<_> = declared.iter().map(|(name, once)| command(name, *once)).collect();
            let mut known: Vec<_> = succeeded.iter().map(|name| owned(name)).collect();
            let steps = Commands::plan(&desired, &(), &known);
            let open: Vec<&str> = declared
                .iter()
                .filter(|(name, once)| **once && !succeeded.contains(*name))
                .map(|(name, _)| name.as_str())
                .collect();
            prop_assert_eq!(keys(&steps), open.clone());
            known.extend(open.into_iter().map(owned));
            prop_assert!(Commands::plan(&desired, &(), &known).is_empty());
            prop_assert!(Commands::plan(&[], &(), &known).is_empty(), "nothing is taken back");
        }
    }

    #[test]
    fn a_command_that_fails_says_how_with_its_last_lines() {
        let judged = |ending, output: &str| {
            let change = CommandChange {
                id: ResourceId::new(ResourceKind::Command, "reindex"),
                argv: vec!["reindex".to_owned(), "--all".to_owned()],
                timeout: DEFAULT_TIMEOUT,
            };
            let output = output.to_owned();
            judge(&change, &CommandResult { ending, output })
        };
        assert_eq!(judged(Ending::Exited(0), "fine"), Ok(()));
        let told = |ending, output| judged(ending, output).unwrap_err().to_string();
        insta::assert_snapshot!(
            told(Ending::Exited(3), "reading\nno index\n"),
            @r#"failed to run command:reindex: 'reindex --all' exited with status 3: "reading; no index""#
        );
        insta::assert_snapshot!(
            told(Ending::TimedOut, ""),
            @"failed to run command:reindex: 'reindex --all' took too long and was ended"
        );
    }
}
