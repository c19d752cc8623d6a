//! `limpet man`: the manual pages, so that a computer without the package has them too.
//!
//! The pages of the formats and of the program are written by hand, under `packaging/man`. The page of each command comes from the
//! definition of the command line, and so does the list of commands in limpet(8).
//!
//! Invariant: the same source gives the same bytes; no clock, no environment.

use std::io::IsTerminal;

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::terminal::Terminal;
use super::{CommandResult, USAGE};
use crate::model::{Class, Failure};

/// Print a manual page, in the format of man(7)
#[derive(Debug, Args)]
pub struct Arguments {
    /// A command, as in `limpet man status`, or one of limpet, limpet.toml, limpet-fleet, limpet-layer and limpet-trust
    #[arg(default_value = "limpet")]
    page: String,
    /// List the pages instead
    #[arg(long, exclusive = true)]
    list: bool,
}

/// The pages written by hand: name, section, text.
const WRITTEN: [(&str, &str, &str); 5] = [
    ("limpet", "8", include_str!("../../packaging/man/limpet.8")),
    (
        "limpet.toml",
        "5",
        include_str!("../../packaging/man/limpet.toml.5"),
    ),
    (
        "limpet-fleet",
        "5",
        include_str!("../../packaging/man/limpet-fleet.5"),
    ),
    (
        "limpet-layer",
        "5",
        include_str!("../../packaging/man/limpet-layer.5"),
    ),
    (
        "limpet-trust",
        "5",
        include_str!("../../packaging/man/limpet-trust.5"),
    ),
];

/// The line of limpet(8) in whose place the commands are listed.
const COMMANDS_HERE: &str = ".\\\" COMMANDS\n";

/// When the pages were last read through; a page without a date is a mistake to those who check pages.
const DATE: &str = "2026-11-21";

/// One page.
#[derive(Debug)]
struct Page {
    /// Its name, without its section.
    name: String,
    section: &'static str,
    /// What man(1) reads.
    text: String,
}

/// Runs the command.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let pages = pages()?;
    if arguments.list {
        let names: Vec<String> = pages.iter().map(|page| page.file_name() + "\n").collect();
        terminal.data(&names.concat())?;
        return Ok(0);
    }
    let Some(page) = pages.iter().find(|page| page.is(&arguments.page)) else {
        terminal.message(&format!(
            "error: there is no manual page '{}'\nhint: 'limpet man --list' lists the pages",
            arguments.page.escape_debug()
        ));
        return Ok(USAGE);
    };
    terminal.data(&page.text)?;
    if std::io::stdout().is_terminal() {
        terminal.message(&format!(
            "hint: this is what man reads: type 'limpet man {} | man -l -'",
            arguments.page
        ));
    }
    Ok(0)
}

impl Page {
    /// The name of its file: `limpet-status.8`.
    fn file_name(&self) -> String {
        format!("{}.{}", self.name, self.section)
    }

    /// Is it what a person calls `word`: its name, with or without section and `limpet-`.
    fn is(&self, word: &str) -> bool {
        word == self.name
            || word == self.file_name()
            || self.name.strip_prefix("limpet-") == Some(word)
    }
}

/// All pages: those written by hand, then the commands'.
fn pages() -> Result<Vec<Page>, Vec<Failure>> {
    let program = super::Arguments::command();
    let commands: Vec<Command> = program
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(as_program)
        .collect();
    let mut listed = String::new();
    for command in &commands {
        listed += &entry(command).map_err(unwritable)?;
    }
    let mut pages: Vec<Page> = WRITTEN
        .into_iter()
        .map(|(name, section, text)| Page {
            name: name.to_owned(),
            section,
            text: text.replace(COMMANDS_HERE, &listed),
        })
        .collect();
    for command in commands {
        pages.push(page(command).map_err(unwritable)?);
    }
    Ok(pages)
}

fn unwritable(error: std::io::Error) -> Vec<Failure> {
    vec![Failure::new(
        Class::Bug,
        format!("failed to write a manual page: {error}"),
    )]
}

/// A command as if it were a program of its own: `limpet-status`, called `limpet status`. That every command has `--help` is said
/// once, in limpet(8). The synopsis is clap's own usage line, which names the values.
fn as_program(command: &Command) -> Command {
    let name = command.get_name();
    let mut command = command
        .clone()
        .display_name(format!("limpet-{name}"))
        .bin_name(format!("limpet {name}"))
        .disable_help_flag(true);
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    command.override_usage(usage)
}

/// The command in the list of limpet(8): how it is called, and what it does.
fn entry(command: &Command) -> std::io::Result<String> {
    let mut synopsis = Vec::new();
    Man::new(command.clone()).render_synopsis_section(&mut synopsis)?;
    let synopsis = String::from_utf8_lossy(&synopsis);
    // The section's heading goes, and the preamble that a renderer may write before it.
    let line = synopsis.lines().last().unwrap_or_default().trim_end();
    let about = command.get_about().map(ToString::to_string);
    let about = roff_text(&about.unwrap_or_default());
    Ok(format!(".TP\n{line}\n{about}.\n"))
}

/// The page of a command.
fn page(command: Command) -> std::io::Result<Page> {
    let name = command.get_display_name().unwrap_or_default().to_owned();
    let has_options = command.get_arguments().next().is_some();
    let has_commands = command.has_subcommands();
    let man = Man::new(command)
        .title(name.to_uppercase())
        .section("8")
        .date(DATE)
        .source(concat!("limpet ", env!("CARGO_PKG_VERSION")))
        .manual("System administration");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if has_options {
        man.render_options_section(&mut text)?;
    }
    if has_commands {
        man.render_subcommands_section(&mut text)?;
    }
    let text = tidied(&String::from_utf8_lossy(&text));
    Ok(Page {
        section: "8",
        text: format!("{text}{END}"),
        name,
    })
}

/// `page` without what makes checkers of pages complain: a preamble before each section, which defines the string for an
/// apostrophe, and breaks around a blank line.
fn tidied(page: &str) -> String {
    let is_preamble = |line: &str| line.starts_with(".ie \\n(.g ") || line.starts_with(".el .ds ");
    let lines: Vec<&str> = page
        .lines()
        .filter(|line| !is_preamble(line))
        .map(str::trim_end)
        .collect();
    let text = lines.join("\n") + "\n";
    text.replace("\\*(Aq", "\\(aq")
        .replace(".br\n\n.br\n", ".br\n")
}

/// How every command's page ends.
const END: &str = ".SH SEE ALSO
.BR limpet (8),
.BR limpet.toml (5),
.BR limpet\\-fleet (5),
.BR limpet\\-layer (5)
.PP
Exit codes, files and what the journal keeps are in
.BR limpet (8).
";

/// `text` as a line of roff, in which nothing is taken for a request or an escape.
fn roff_text(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    match escaped.chars().next() {
        Some('.' | '\'') => format!("\\&{escaped}"),
        _ => escaped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(name: &str) -> String {
        let pages = pages().expect("pages can be written");
        let page = pages.into_iter().find(|page| page.name == name);
        page.unwrap_or_else(|| panic!("there is no page '{name}'"))
            .text
    }

    #[test]
    fn every_command_that_help_lists_has_a_page_and_is_in_limpet_8() {
        let program = page_of("limpet");
        for command in super::super::Arguments::command().get_subcommands() {
            let name = command.get_name();
            if command.is_hide_set() {
                continue;
            }
            assert!(
                program.contains(&format!("\n\\fBlimpet {name}\\fR")),
                "{name}"
            );
            let page = page_of(&format!("limpet-{name}"));
            for argument in command.get_arguments() {
                if let Some(long) = argument.get_long().filter(|_| !argument.is_hide_set()) {
                    let option = format!("\\-\\-{}", long.replace('-', "\\-"));
                    assert!(page.contains(&option), "{name}: {option}");
                }
            }
        }
    }

    #[test]
    fn commands_that_only_units_call_are_explained_in_limpet_8() {
        let program = page_of("limpet");
        assert!(program.contains("limpet agent") && program.contains("limpet fetch"));
        assert!(!program.contains(COMMANDS_HERE));
    }

    #[test]
    fn every_exit_code_is_in_limpet_8() {
        let program = page_of("limpet");
        for code in [0, 1, 2, 64, 65, 70, 75, 77, 78] {
            assert!(program.contains(&format!("\n.TP\n.B {code}\n")), "{code}");
        }
    }

    #[test]
    fn a_page_is_found_by_what_people_call_it() {
        let page = Page {
            name: "limpet-status".to_owned(),
            section: "8",
            text: String::new(),
        };
        for word in ["status", "limpet-status", "limpet-status.8"] {
            assert!(page.is(word), "{word}");
        }
        for word in ["stat", "limpet", "status.5", "-status"] {
            assert!(!page.is(word), "{word}");
        }
    }

    #[test]
    fn text_cannot_become_a_request() {
        assert_eq!(roff_text(".so \\n-1"), "\\&.so \\en\\-1");
    }
}
