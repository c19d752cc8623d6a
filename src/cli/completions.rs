//! `limpet completions`: what a shell needs to complete this command line, made from its definition.

use clap::{Args, Command, CommandFactory, ValueEnum};

use super::CommandResult;
use super::terminal::Terminal;
use crate::model::{Class, Failure};

/// Print the completions for a shell
#[derive(Debug, Args)]
pub struct Arguments {
    /// The shell that is to complete
    #[arg(value_enum)]
    shell: Shell,
}

/// The shells there are completions for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    /// For /usr/share/bash-completion/completions/limpet, or `source <(limpet completions bash)` in ~/.bashrc
    Bash,
    /// For a file _limpet in a directory of $fpath
    Zsh,
    /// For ~/.config/fish/completions/limpet.fish
    Fish,
}

/// Runs the command.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    terminal.data(&script(arguments.shell)?)?;
    Ok(0)
}

/// The script for `shell`.
fn script(shell: Shell) -> Result<String, Vec<Failure>> {
    use clap_complete::shells;
    let mut program = for_people(&super::Arguments::command());
    let mut script = Vec::new();
    match shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut program, "limpet", &mut script),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut program, "limpet", &mut script),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut program, "limpet", &mut script),
    }
    String::from_utf8(script).map_err(|_| {
        vec![Failure::new(
            Class::Bug,
            "failed to write completions: they are not UTF-8".to_owned(),
        )]
    })
}

/// The command line without what only units call, which nobody wants to be offered.
fn for_people(program: &Command) -> Command {
    let shown = program
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    Command::new("limpet")
        .version(env!("CARGO_PKG_VERSION"))
        .args(program.get_arguments())
        .subcommands(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_completes_every_command_that_help_lists_and_no_other() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell).expect("completions are text");
            for command in super::super::Arguments::command().get_subcommands() {
                let name = command.get_name();
                // As each of the three writes the start of a command's own part.
                let is_there = [
                    format!("limpet,{name})"),
                    format!("({name})\n"),
                    format!("__fish_limpet_using_subcommand {name}"),
                ]
                .iter()
                .any(|start| script.contains(start));
                assert_eq!(is_there, !command.is_hide_set(), "{shell:?}: '{name}'");
            }
        }
    }
}
