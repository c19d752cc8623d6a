//! The command line: one file per subcommand; the only place that prints.
//!
//! Data goes to stdout, progress and messages to stderr. A command returns its exit code, or the failures that ended it.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use clap::{Parser, Subcommand};

use crate::config::{self, Config};
use crate::model::{Class, Failure};
use crate::sys::Host;

pub mod agent;
mod agent_or_record;
pub mod apply;
pub mod approve;
pub mod check;
pub mod completions;
pub mod diff;
pub mod doctor;
pub mod enroll;
pub mod fetch;
pub mod history;
pub mod init;
pub mod man;
pub mod pause;
pub mod plan;
mod plan_other;
pub mod probation;
pub mod recover;
pub mod render;
pub mod resume;
pub mod rollback;
pub mod secret;
pub mod status;
pub mod sync;
pub mod terminal;
pub mod trust;
pub mod verify;
pub mod why;

/// What a command returns: the exit code, or the failures that ended it (the first decides the exit code).
pub type CommandResult = Result<u8, Vec<Failure>>;

/// The exit code for a command line that cannot be understood (sysexits.h EX_USAGE).
const USAGE: u8 = 64;

#[derive(Debug, Parser)]
#[command(
    name = "limpet",
    version,
    about = "Run this host from a signed Git repository",
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    // In the order of the help: the host's operator first, then who starts a fleet, then its authors.
    Status(status::Arguments),
    Sync(sync::Arguments),
    Plan(plan::Arguments),
    History(history::Arguments),
    Why(why::Arguments),
    Pause(pause::Arguments),
    Resume(resume::Arguments),
    Rollback(rollback::Arguments),
    /// Check a revision the way a host does
    Verify(verify::Verify),
    Trust(trust::Arguments),
    Approve(approve::Arguments),
    Init(init::Arguments),
    Enroll(enroll::Arguments),
    Doctor(doctor::Arguments),
    Check(check::Arguments),
    Render(render::Arguments),
    Diff(diff::Arguments),
    Secret(secret::Arguments),
    Apply(apply::Arguments),
    #[command(hide = true)]
    Agent(agent::Arguments),
    #[command(hide = true)]
    Fetch(fetch::Arguments),
    #[command(hide = true)]
    Probation(probation::Arguments),
    #[command(hide = true)]
    Recover(recover::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// Runs the program with `arguments` (the first is the program's name) and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { USAGE } else { 0 };
        }
    };
    let terminal = terminal::Terminal::standard();
    let result = match &arguments.command {
        Command::Status(arguments) => status::run(arguments, &terminal),
        Command::Sync(arguments) => sync::run(arguments, &terminal),
        Command::Plan(arguments) => plan::run(arguments, &terminal),
        Command::Pause(arguments) => pause::run(arguments, &terminal),
        Command::Resume(arguments) => resume::run(arguments, &terminal),
        Command::Rollback(arguments) => rollback::run(arguments, &terminal),
        Command::History(arguments) => history::run(arguments, &terminal),
        Command::Why(arguments) => why::run(arguments, &terminal),
        Command::Trust(arguments) => trust::run(arguments, &terminal),
        Command::Approve(arguments) => approve::run(arguments, &terminal),
        Command::Doctor(arguments) => doctor::run(arguments, &terminal),
        Command::Enroll(arguments) => enroll::run(arguments, &terminal),
        Command::Apply(arguments) => apply::run(arguments, &terminal),
        Command::Check(arguments) => check::run(arguments, &terminal),
        Command::Diff(arguments) => diff::run(arguments, &terminal),
        Command::Secret(arguments) => secret::run(arguments, &terminal),
        Command::Init(arguments) => init::run(arguments, &terminal),
        Command::Render(arguments) => render::run(arguments, &terminal),
        Command::Completions(arguments) => completions::run(arguments, &terminal),
        Command::Man(arguments) => man::run(arguments, &terminal),
        Command::Agent(arguments) => agent::run(arguments),
        Command::Probation(arguments) => probation::run(arguments),
        Command::Verify(arguments) => verify::run(arguments, host_trust),
        Command::Fetch(arguments) => fetch::run(arguments),
        Command::Recover(arguments) => recover::run(arguments),
    };
    match result {
        Ok(code) => code,
        Err(failures) => {
            let mut stderr = std::io::stderr().lock();
            for failure in &failures {
                let _ = terminal.write_failure(&mut stderr, failure);
            }
            let _ = stderr.flush();
            failures
                .first()
                .map_or(Class::Bug, |failure| failure.class)
                .exit_code()
        }
    }
}

/// Reads the host configuration of `host`.
fn host_config(host: &Host) -> Result<Config, Vec<Failure>> {
    let own = read_fragment(host, config::CONFIG_FILE)?.ok_or_else(|| vec![not_enrolled()])?;
    // The weakest fragment: what a configuration that does not name the host means.
    let name = host.read_short_name().ok();
    let mut fragments: Vec<(String, String)> = name
        .map(|name| ("(hostname)".to_owned(), format!("host.name = '{name}'")))
        .into_iter()
        .collect();
    fragments.push(own);
    fragments.extend(drop_ins(host)?);
    let config = Config::parse(&fragments)?;
    host.choose_package_manager(config.host.package_manager);
    Ok(config)
}

/// The drop-ins of the host configuration, in their order: file and text.
fn drop_ins(host: &Host) -> Result<Vec<(String, String)>, Vec<Failure>> {
    let mut fragments = Vec::new();
    for name in host
        .list_own_directory(config::CONFIG_DIRECTORY)
        .map_err(|failure| vec![failure])?
    {
        if name.ends_with(".toml") && !name.starts_with('.') {
            let path = format!("{}/{name}", config::CONFIG_DIRECTORY);
            fragments.extend(read_fragment(host, &path)?);
        }
    }
    Ok(fragments)
}

fn read_fragment(host: &Host, path: &str) -> Result<Option<(String, String)>, Vec<Failure>> {
    let Some(bytes) = host
        .read_file(path, config::MAX_FILE_BYTES)
        .map_err(|failure| vec![failure])?
    else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes).map_err(|_| {
        vec![Failure::new(
            Class::Config,
            format!("the host configuration '{path}' is not UTF-8"),
        )]
    })?;
    Ok(Some((path.to_owned(), text)))
}

fn not_enrolled() -> Failure {
    let message = format!(
        "this host is not enrolled: there is no '{}'",
        config::CONFIG_FILE
    );
    Failure::new(Class::Config, message)
        .with_hint("enrol it with 'limpet enroll URL --anchor COMMIT --allowed-signers FILE'")
}

/// What this host believes: its configuration, and its trusted head, which only root may read from the database.
/// The refusal is of a file that says whom to believe, and is in the way of every revision.
fn host_trust() -> Result<Result<verify::HostTrust, crate::trust::Refusal>, Vec<Failure>> {
    let host = Host::new(Path::new("/"));
    let config = host_config(&host)?;
    let policy = match crate::cycle::judge::read_policy(&host, &config) {
        Ok(policy) => policy,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let trusted = crate::cycle::state::read_mark(&host).map_err(|failure| vec![failure])?;
    let now = crate::cycle::trusted_time::trusted_time(&host);
    Ok(Ok(verify::HostTrust {
        policy,
        trusted,
        now,
    }))
}
