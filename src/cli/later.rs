//! Parts of the command line that are settled and belong to a later version, so that whoever types one is told so.
//!
//! They are in no help text. What a version adds, it takes off these lists.

use std::ffi::OsString;

/// The commands of later versions.
const COMMANDS: [&str; 2] = ["trust", "approve"];

/// What later versions add to commands of this one: the command, and an option or, in capitals, an argument.
const ADDITIONS: [(&str, &str); 1] = [("verify", "--channel")];

/// The part of `arguments` (the first is the program's name) that belongs to a later version, as its help will write it.
pub(super) fn find(arguments: &[OsString]) -> Option<String> {
    let mut words = arguments.iter().skip(1).map(|word| word.to_string_lossy());
    let mut command = words.next()?;
    if command == "help" {
        command = words.next()?;
    }
    if COMMANDS.contains(&command.as_ref()) {
        return Some(command.into_owned());
    }
    // What follows `--` is never an option.
    let words: Vec<_> = words.take_while(|word| word != "--").collect();
    let is_there = |addition: &str| {
        words.iter().any(|word| match addition.strip_prefix("--") {
            Some(_) => word.split('=').next() == Some(addition),
            None => !word.starts_with('-'),
        })
    };
    ADDITIONS
        .iter()
        .find(|(of, addition)| *of == command && is_there(addition))
        .map(|(of, addition)| format!("{of} {addition}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Option<&str>) {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        assert_eq!(find(&words).as_deref(), expected, "{line}");
    }

    #[test]
    fn what_belongs_to_a_later_version_is_recognised() {
        check("limpet trust", Some("trust"));
        check("limpet trust set --commit x", Some("trust"));
        check("limpet help approve", Some("approve"));
        check("limpet trust --help", Some("trust"));
        check(
            "limpet verify --channel prod HEAD",
            Some("verify --channel"),
        );
    }

    #[test]
    fn what_this_version_has_is_left_to_it() {
        for line in [
            "limpet",
            "limpet help",
            "limpet plan --json HEAD~1",
            "limpet plan --source=/srv/fleet",
            "limpet history -n 3",
            "limpet sync --wait",
            "limpet sync --wait --retry",
            "limpet rollback --for 8h",
            "limpet verify HEAD",
            "limpet verify -- --channel",
            "limpet check why",
            "limpet enroll history",
            "limpet nonsense",
        ] {
            check(line, None);
        }
    }

    #[test]
    fn nothing_on_the_lists_is_in_this_version() {
        let program = crate::cli::Arguments::command();
        for command in COMMANDS {
            assert!(program.find_subcommand(command).is_none(), "{command}");
        }
        for (of, addition) in ADDITIONS {
            let command = program
                .find_subcommand(of)
                .expect("a command of this version");
            let has = command.get_arguments().any(|argument| {
                match (addition.strip_prefix("--"), argument.get_long()) {
                    (Some(name), long) => long == Some(name),
                    (None, _) => argument.is_positional(),
                }
            });
            assert!(!has, "{of} {addition}");
        }
    }
}
