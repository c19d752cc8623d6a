//! The units of an image: systemctl(1) with `--root` looks at their files, enables and masks them.
//!
//! Invariant: nothing of the image runs for it, so an image of another architecture will do; what is to run is started by its first boot.

use std::time::Duration;

use crate::kinds::unit::observe::{Found, about};
use crate::kinds::unit::{ObservedUnit, Operation, UnitChange};
use crate::model::{Class, Failure, Outcome};
use crate::sys::Host;
use crate::sys::command::{Command, CommandResult};

/// How long systemctl may take for one unit.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The words of `systemctl is-enabled`, systemctl(1).
const STATES: [&str; 15] = [
    "enabled",
    "enabled-runtime",
    "linked",
    "linked-runtime",
    "alias",
    "masked",
    "masked-runtime",
    "static",
    "indirect",
    "disabled",
    "generated",
    "transient",
    "bad",
    "not-found",
    "unknown",
];

/// Looks at the files of the named units.
pub(super) fn look(host: &Host, names: &[String]) -> Found {
    let look = |name: &String| {
        let state = read_state(host, name).map_err(|failure| about(failure, name));
        (name.clone(), state.map(ObservedUnit::of_file))
    };
    names.iter().map(look).collect()
}

fn read_state(host: &Host, name: &str) -> Result<String, Failure> {
    let result = systemctl(host, &["is-enabled", name])?;
    parse_state(&result.output).ok_or_else(|| {
        let message = format!(
            "failed to look at unit:{name}: 'systemctl is-enabled' {}",
            result.complaint()
        );
        Failure::new(Class::Host, message)
    })
}

/// The state in what `systemctl is-enabled` says; empty where there is no such file.
fn parse_state(output: &str) -> Option<String> {
    let lines = || output.lines().map(str::trim);
    if let Some(state) = lines().find(|line| STATES.contains(line)) {
        return Some(match state {
            "not-found" => String::new(),
            _ => state.to_owned(),
        });
    }
    let is_missing = |line: &str| {
        line.starts_with("Failed to get unit file state")
            && line.ends_with("No such file or directory")
    };
    lines().any(is_missing).then(String::new)
}

/// Makes the changes, links and masks in the order in which one makes room for the next. One outcome per change, in the same order.
pub(super) fn apply(host: &Host, changes: &[&UnitChange]) -> Vec<Outcome> {
    let mut order: Vec<usize> = (0..changes.len()).collect();
    order.sort_by_key(|index| changes[*index].operation);
    let mut outcomes: Vec<Outcome> = changes.iter().map(|_| Outcome::Done).collect();
    for index in order {
        if let Err(failure) = change(host, changes[index]) {
            outcomes[index] = Outcome::Failed(about(failure, &changes[index].name));
        }
    }
    outcomes
}

fn change(host: &Host, change: &UnitChange) -> Result<(), Failure> {
    let name = change.name.as_str();
    let link = change.link.as_ref().map(|link| link.target.as_str());
    let verbs: &[&[&str]] = match change.operation {
        Operation::Unmask => &[&["unmask", name], &["unmask", "--runtime", name]],
        Operation::Disable => &[&["disable", name], &["disable", "--runtime", name]],
        Operation::Link => &[],
        Operation::Enable => &[&["enable", name]],
        Operation::Mask => &[&["mask", name]],
        // Their boot is over.
        Operation::EnableUntilBoot | Operation::MaskUntilBoot => &[],
        // The plan leaves them out.
        Operation::DaemonReload
        | Operation::Start
        | Operation::StartAfresh
        | Operation::Stop
        | Operation::Restart
        | Operation::Reload => &[],
    };
    // Disabling a unit takes the link along that it is found by.
    let link = link.map(|target| ["link", target]);
    for words in verbs
        .iter()
        .copied()
        .chain(link.iter().map(|words| words.as_slice()))
    {
        let result = systemctl(host, words)?;
        if !result.is_success() {
            let message = format!(
                "failed to {} unit:{name}: 'systemctl {}' {}",
                change.operation.action(),
                words[0],
                result.complaint()
            );
            return Err(Failure::new(Class::Host, message));
        }
    }
    Ok(())
}

fn systemctl(host: &Host, words: &[&str]) -> Result<CommandResult, Failure> {
    let root = format!("--root={}", host.root().display());
    let argv = ["systemctl", root.as_str()]
        .into_iter()
        .chain(words.iter().copied());
    host.run_outside(&Command {
        argv: argv.map(str::to_owned).collect(),
        time_limit: TIME_LIMIT,
        ..Command::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_as_any_version_says_them() {
        let check = |output: &str, expected: Option<&str>| {
            assert_eq!(parse_state(output).as_deref(), expected, "{output}");
        };
        check("enabled\n", Some("enabled"));
        check("masked\n", Some("masked"));
        check("not-found\n", Some(""));
        check(
            "Failed to get unit file state for x.service: No such file or directory\n",
            Some(""),
        );
        check(
            "Failed to get unit file state for x.service: Bad message\n",
            None,
        );
        check("", None);
    }
}
