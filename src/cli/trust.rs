//! `limpet trust`: whose word counts on this host for what, and what it waits for.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::cli::pause::who;
use crate::cli::status::exit_code;
use crate::cli::terminal::Terminal;
use crate::cli::{CommandResult, agent_or_record, sync};
use crate::control::{Reply, Request};
use crate::cycle::judge;
use crate::cycle::trust_view::TrustView;
use crate::report::moment;
use crate::report::status::Status;
use crate::sys::{Host, clock};
use crate::trust::{FleetPolicy, ListedKey, TrustedHead};

/// Show whose signatures count on this host and for what, or set what is trusted
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Set(Set),
}

/// Trust a commit because local root says so: the way back, and out of history that was rewritten
#[derive(Debug, Args)]
struct Set {
    /// The commit: its full id
    #[arg(long, value_name = "ID")]
    commit: String,
    /// What the next person should know
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Runs the command.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    match &arguments.command {
        None => show(terminal),
        Some(Command::Set(set)) => {
            let request = Request::Trust {
                commit: set.commit.clone(),
                reason: set.reason.clone(),
                by: who(),
            };
            match agent_or_record::converse(&request, &mut |message| terminal.message(message)) {
                Ok(Reply::Status { status }) => {
                    terminal.message(&sync::summary(&status));
                    Ok(exit_code(&status))
                }
                Ok(other) => Err(vec![agent_or_record::unexpected(&other)]),
                Err(failure) => Err(vec![failure]),
            }
        }
    }
}

fn show(terminal: &Terminal) -> CommandResult {
    let status = match agent_or_record::ask(&Request::Status) {
        Ok(Reply::Status { status }) => *status,
        Ok(other) => return Err(vec![agent_or_record::unexpected(&other)]),
        Err(no_agent) => agent_or_record::recorded_status(&no_agent)?,
    };
    let host = Host::new(Path::new("/"));
    let config = super::host_config(&host)?;
    let view = judge::read_policy(&host, &config)
        .map_err(crate::model::Failure::from)
        .and_then(|own| TrustView::read(&host, &config, own))
        .map_err(|failure| vec![failure])?;
    terminal.show(&text(&view, &status, clock::now()))?;
    Ok(0)
}

fn text(view: &TrustView, status: &Status, now: Timestamp) -> String {
    let mut out = String::new();
    match &view.head {
        None => out.push_str("trusted   nothing yet\n"),
        Some(head) => write_head(&mut out, head),
    }
    match &view.policy {
        Some(policy) => write_policy(&mut out, policy, view, now),
        None => write_files(&mut out, view, now),
    }
    for word in ["pending", "refused", "behind", "stale", "state-missing"] {
        let found = status.conditions.iter().find(|known| known.kind == word);
        if let Some(condition) = found {
            let _ = writeln!(out, "\n{word}   {}", condition.reason);
        }
    }
    out
}

fn write_head(out: &mut String, head: &TrustedHead) {
    let _ = writeln!(out, "trusted   {}", head.commit);
    let signer = head.signer.as_ref();
    let _ = match signer {
        Some(signer) => writeln!(out, "          signed by {signer}"),
        None => writeln!(out, "          set by local root"),
    };
    if let Some(release) = &head.release {
        let _ = writeln!(out, "release   {release}");
    }
    if let Some(fleet) = &head.fleet {
        let _ = writeln!(out, "fleet     {fleet}");
    }
}

fn write_policy(out: &mut String, policy: &FleetPolicy, view: &TrustView, now: Timestamp) {
    let _ = writeln!(
        out,
        "policy    {}, version {}; {} of {} root keys change it\n\nkeys",
        policy.file(),
        policy.version,
        policy.root.threshold,
        policy.root.keys.len(),
    );
    for (name, key) in &policy.keys {
        let mut rights = rights(policy, name);
        if let Some(reason) = view.revoked(&key.fingerprint) {
            rights = reason;
        } else if view.is_unproven(&key.fingerprint) {
            rights.push_str("; has yet to sign something, and counts for nothing before");
        }
        let end = match key.not_after {
            Some(end) if end <= now => format!(" (expired at {})", moment(end)),
            Some(end) => format!(" (until {})", moment(end)),
            None => String::new(),
        };
        let _ = writeln!(out, "  {name}  {}{end}\n      {rights}", key.fingerprint);
    }
    for protect in &policy.protected {
        let paths: Vec<&str> = protect.paths.written().collect();
        let _ = writeln!(
            out,
            "\n{} signers for  {}",
            protect.threshold,
            paths.join(", ")
        );
    }
    for limit in &policy.limits {
        let paths: Vec<&str> = limit.paths.written().collect();
        let what = match limit.written() {
            none if none.is_empty() => "nothing".to_owned(),
            some => some,
        };
        let _ = writeln!(out, "\nonly {what}  in  {}", paths.join(", "));
    }
}

fn rights(policy: &FleetPolicy, name: &str) -> String {
    let mut words = Vec::new();
    if policy.is_root(name) {
        words.push("root: may change everything".to_owned());
    }
    for allow in &policy.allowed {
        if !allow.keys.iter().any(|key| key == name) {
            continue;
        }
        words.extend(allow.paths.written().map(str::to_owned));
        if !allow.channels.is_empty() {
            words.push(format!("releases in {}", allow.channels.join(", ")));
        }
    }
    match words.is_empty() {
        true => "may change nothing, and approve".to_owned(),
        false => words.join(", "),
    }
}

fn write_files(out: &mut String, view: &TrustView, now: Timestamp) {
    let _ = writeln!(
        out,
        "policy    the repository has none: each key of the host's own file may change everything\n\nkeys"
    );
    match &view.own.allowed {
        Ok(signers) => {
            for key in signers.keys() {
                let _ = writeln!(out, "  {}", listed(&key, view, now));
            }
        }
        Err(refusal) => {
            let _ = writeln!(out, "  {refusal}");
        }
    }
}

fn listed(key: &ListedKey<'_>, view: &TrustView, now: Timestamp) -> String {
    let state = match (key.valid_after, key.valid_before) {
        _ if view.revoked(&key.fingerprint).is_some() => " (revoked)".to_owned(),
        (Some(start), _) if start > now => format!(" (from {})", moment(start)),
        (_, Some(end)) if end <= now => format!(" (expired at {})", moment(end)),
        (_, Some(end)) => format!(" (until {})", moment(end)),
        _ => String::new(),
    };
    format!("{}  {}{state}", key.principal, key.fingerprint)
}
