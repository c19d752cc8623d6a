//! Commands, and the commands that judge.

use std::time::Duration;

use super::file::none_or;
use super::{Resolved, Resolver};
use crate::config;
use crate::document::{Mistake, Place, Table};
use crate::fleet::declared;
use crate::kinds::command::{DEFAULT_TIMEOUT, DesiredCommand, LONGEST_TIMEOUT};
use crate::model::ResourceId;

impl Resolver<'_, '_> {
    pub(super) fn command(
        &self,
        id: &ResourceId,
        table: &Table,
        place: &Place,
        out: &mut Resolved,
    ) -> Result<(), Vec<Mistake>> {
        let what = id.to_string();
        let command: declared::Command = declared::read(table, place, &what)?;
        let mut mistakes = Vec::new();
        let once = command.once.unwrap_or(false);
        let is_triggered = table.get("run_on").is_some();
        if !once && !is_triggered {
            mistakes.push(
                Mistake::new(place, format!("{what} never runs: it has neither `run_on` nor `once`"))
                    .hint("write run_on = [\"file:/etc/…\"] to run it when one of those changed, or once = true to run it until it has succeeded once"),
            );
        }
        if once && is_triggered {
            mistakes.push(
                Mistake::new(
                    &table.place_of("once", place),
                    format!("{what} has `run_on` and `once`"),
                )
                .note("run on changes here", &table.place_of("run_on", place))
                .hint("keep one of them: what runs on changes also runs when they are made for the first time"),
            );
        }
        let argv = command.command.unwrap_or_default();
        if table.get("command").is_none() {
            mistakes.push(
                Mistake::new(place, format!("{what} has no `command`")).hint(
                    "write the program and its arguments: command = [\"update-ca-certificates\"]",
                ),
            );
        } else {
            let example = "[\"update-ca-certificates\", \"--fresh\"]";
            check_argv(
                &what,
                "command",
                &argv,
                example,
                table,
                place,
                &mut mistakes,
            );
        }
        let timeout = match &command.timeout {
            None => DEFAULT_TIMEOUT,
            Some(text) => read_timeout(&what, text, table, place, &mut mistakes),
        };
        out.command = Some(DesiredCommand {
            name: id.name.to_string(),
            id: id.clone(),
            argv,
            timeout,
            run_on: Vec::new(), // known once every resource is
            once,
            report: command.report.unwrap_or(false),
        });
        none_or(mistakes)
    }
}

fn read_timeout(
    what: &str,
    text: &str,
    table: &Table,
    place: &Place,
    mistakes: &mut Vec<Mistake>,
) -> Duration {
    let refuse = |message: String| {
        Mistake::new(&table.place_of("timeout", place), message)
            .hint("write a number with its unit, of at most an hour: \"90s\", \"20m\"")
    };
    match config::parse_duration(text) {
        Some(timeout) if (Duration::from_secs(1)..=LONGEST_TIMEOUT).contains(&timeout) => timeout,
        Some(_) => {
            mistakes.push(refuse(format!(
                "`timeout` of {what} is not between 1s and 1h"
            )));
            DEFAULT_TIMEOUT
        }
        None => {
            mistakes.push(refuse(format!(
                "'{text}' in `timeout` of {what} is no duration"
            )));
            DEFAULT_TIMEOUT
        }
    }
}

/// What is wrong with the program and arguments that `key` of `what` says.
pub(super) fn check_argv(
    what: &str,
    key: &str,
    argv: &[String],
    example: &str,
    table: &Table,
    place: &Place,
    mistakes: &mut Vec<Mistake>,
) -> bool {
    let program = argv.first().map(String::as_str).unwrap_or_default();
    let is_command = !program.is_empty() && argv.iter().all(|word| !word.contains('\0'));
    let mistake = |message: String| Mistake::new(&table.place_of(key, place), message);
    if !is_command {
        mistakes.push(
            mistake(format!("`{key}` of {what} is no command"))
                .hint(format!("write the program and its arguments: {example}")),
        );
    } else if program.contains('/') && !program.starts_with('/') {
        mistakes.push(
            mistake(format!(
                "`{key}` of {what} names '{program}', which is no absolute path"
            ))
            .hint("name a program by its absolute path, or by its name alone"),
        );
    }
    is_command
}
