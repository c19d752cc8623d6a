//! `limpet enroll`: tells this host where its repository is and what to trust, and starts the agent.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, Write as _};
use std::path::{Path, PathBuf};

use crate::cli::CommandResult;
use crate::cli::terminal::Terminal;
use crate::config::{self, Config};
use crate::cycle::state;
use crate::fetch::child::{Child, Launch};
use crate::fetch::client::Upstream;
use crate::git::{Hashed, ObjectId};
use crate::model::{Class, Failure};
use crate::sys::Host;
use crate::sys::jobs::{Job, Verb};
use crate::trust::{self, AllowedSigners, Revoked};

/// Where the trust files are put.
const ALLOWED_SIGNERS: &str = "/etc/limpet/allowed_signers";
const REVOKED: &str = "/etc/limpet/revoked";
const CA_FILE: &str = "/etc/limpet/ca.pem";

/// Where the host configuration of before is kept.
const CONFIG_BEFORE: &str = "/etc/limpet/limpet.toml.before";

/// Where the certificates are while the anchor is looked at, before anything is written for good.
const PASSING_CA_FILE: &str = "/run/limpet/enroll-ca.pem";

/// The largest trust file or certificate bundle we copy, in bytes.
const FILE_LIMIT: u64 = 4 << 20;

/// What a new `revoked` file says.
const REVOKED_TEXT: &str = "# One revoked key or fingerprint (SHA256:...) a line. This file must exist, and wins over everything else.\n";

/// Enrols this host: writes the host configuration and starts the agent.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the repository is: https://, http:// or a path
    url: String,
    /// The first commit to trust, as a full id
    #[arg(long, value_name = "COMMIT")]
    anchor: String,
    /// The branch to follow
    #[arg(long, default_value = "main")]
    branch: String,
    /// Who may sign, in the syntax of ssh-keygen's allowed_signers; copied to /etc/limpet
    #[arg(long, value_name = "FILE")]
    allowed_signers: Option<PathBuf>,
    /// Revoked keys, one a line; copied to /etc/limpet
    #[arg(long, value_name = "FILE")]
    revoked: Option<PathBuf>,
    /// Certificates to trust beside the system's; copied to /etc/limpet
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The name the repository knows this host by (default: the hostname up to the first dot)
    #[arg(long)]
    name: Option<String>,
    /// A label, such as site=lagos; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("'{text}' is no label: write key=value")),
    }
}

/// What is about to be written.
struct Enrolment {
    allowed_signers: Vec<u8>,
    revoked: Vec<u8>,
    ca: Option<Vec<u8>>,
    config: Config,
    text: String,
}

/// Runs the command.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let host = Host::new(Path::new("/"));
    let one = |failure: Failure| vec![failure];
    if !nix::unistd::geteuid().is_root() {
        return Err(vec![
            Failure::new(Class::Host, "only root may enrol this host")
                .with_hint("run it with sudo"),
        ]);
    }
    let mut enrolment = gather(&host, arguments)?;
    let was_enrolled = host.exists(config::ENROLLED_MARK).map_err(one)?;
    let seen = look_at_anchor(&host, arguments, &mut enrolment, was_enrolled, terminal)?;
    terminal.message(&summary(
        arguments,
        &enrolment,
        seen.as_deref(),
        was_enrolled,
    )?);
    if !arguments.yes && !ask(terminal).map_err(one)? {
        return Err(vec![Failure::new(Class::Host, "nothing was changed")]);
    }
    // A running agent would write down again what is about to be forgotten.
    run_jobs(
        &host,
        &[
            ("limpet.service", Verb::Stop),
            ("limpet-fetch.service", Verb::Stop),
        ],
    )
    .map_err(one)?;
    write(&host, &enrolment).map_err(one)?;
    state::forget_trust(&host).map_err(one)?;
    start(&host, terminal).map_err(one)?;
    terminal.message("enrolled; follow it with 'limpet status' and 'journalctl -fu limpet'");
    Ok(0)
}

/// Reads and checks everything before anything is written.
fn gather(host: &Host, arguments: &Arguments) -> Result<Enrolment, Vec<Failure>> {
    let one = |failure: Failure| vec![failure];
    let copy = |given: Option<&PathBuf>, place: &str| -> Result<Option<Vec<u8>>, Vec<Failure>> {
        match given {
            Some(path) => host
                .read_foreign_file(path, FILE_LIMIT)
                .map(Some)
                .map_err(one),
            None => host.read_file(place, FILE_LIMIT).map_err(one),
        }
    };
    let allowed_signers =
        copy(arguments.allowed_signers.as_ref(), ALLOWED_SIGNERS)?.ok_or_else(|| {
            vec![
                Failure::new(
                    Class::Config,
                    format!("there is no '{ALLOWED_SIGNERS}' that says who may sign"),
                )
                .with_hint("name a file with --allowed-signers"),
            ]
        })?;
    let revoked = copy(arguments.revoked.as_ref(), REVOKED)?.unwrap_or_else(|| REVOKED_TEXT.into());
    let named = |given: Option<&PathBuf>, place: &str| {
        given.map_or(place.to_owned(), |path| path.display().to_string())
    };
    AllowedSigners::parse(
        &named(arguments.allowed_signers.as_ref(), ALLOWED_SIGNERS),
        &allowed_signers,
    )
    .map_err(|refusal| {
        vec![Failure {
            class: Class::Config,
            ..refusal.into()
        }]
    })?;
    Revoked::parse(&named(arguments.revoked.as_ref(), REVOKED), &revoked).map_err(|refusal| {
        vec![Failure {
            class: Class::Config,
            ..refusal.into()
        }]
    })?;
    let ca = arguments
        .ca_file
        .as_ref()
        .map(|path| host.read_foreign_file(path, FILE_LIMIT))
        .transpose()
        .map_err(one)?;
    let name = arguments
        .name
        .clone()
        .map_or_else(|| host.read_short_name(), Ok)
        .map_err(one)?;
    let (config, text) = compose(arguments, &name, None)?;
    Ok(Enrolment {
        allowed_signers,
        revoked,
        ca,
        config,
        text,
    })
}

/// What enrolment learned by looking at the anchor.
struct SeenAnchor {
    payload_sha256: String,
    signer: Option<String>,
}

/// The host configuration as text, and what it says.
fn compose(
    arguments: &Arguments,
    name: &str,
    seen: Option<&SeenAnchor>,
) -> Result<(Config, String), Vec<Failure>> {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let labels: BTreeMap<&str, &str> = arguments
        .labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let mut text = String::from(
        "# Written by limpet enroll. Drop-ins in limpet.toml.d are read after it; /usr/share/doc/limpet/examples shows every key.\n[source]\n",
    );
    let _ = writeln!(
        text,
        "url = {}\nbranch = {}",
        quoted(&arguments.url),
        quoted(&arguments.branch)
    );
    if arguments.ca_file.is_some() {
        let _ = writeln!(text, "ca_file = {}", quoted(CA_FILE));
    }
    let mut anchor = format!("commit = {}", quoted(&arguments.anchor));
    if let Some(seen) = seen {
        let _ = write!(
            anchor,
            ", payload_sha256 = {}",
            quoted(&seen.payload_sha256)
        );
        if let Some(signer) = &seen.signer {
            let _ = write!(anchor, ", signer = {}", quoted(signer));
        }
    }
    let _ = writeln!(
        text,
        "\n[trust]\nanchor = {{ {anchor} }}\n\n[host]\nname = {}",
        quoted(name)
    );
    if !labels.is_empty() {
        let pairs: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{} = {}", quoted(key), quoted(value)))
            .collect();
        let _ = writeln!(text, "labels = {{ {} }}", pairs.join(", "));
    }
    let config = Config::parse(&[(config::CONFIG_FILE.to_owned(), text.clone())])?;
    Ok((config, text))
}

/// Fetches the anchor, so that a person sees what is about to be trusted, and its payload can be pinned. A source that cannot be
/// reached is no obstacle: the anchor's id is pinned anyway.
fn look_at_anchor(
    host: &Host,
    arguments: &Arguments,
    enrolment: &mut Enrolment,
    was_enrolled: bool,
    terminal: &Terminal,
) -> Result<Option<String>, Vec<Failure>> {
    let id: ObjectId = enrolment.config.trust.anchor.commit;
    let mut source = enrolment.config.source.clone();
    if let Some(ca) = &enrolment.ca {
        // The fetcher is another user, who may not read what root named.
        host.ensure_own_directory("/run/limpet", 0o755)
            .map_err(|failure| vec![failure])?;
        host.write_own_file(PASSING_CA_FILE, ca, 0o644)
            .map_err(|failure| vec![failure])?;
        source.ca_file = Some(PASSING_CA_FILE.to_owned());
    }
    let launch = Launch::of_this_program(&host.outer_path(config::CACHE_DIRECTORY));
    let seen = Child::spawn(&launch, &source).and_then(|child| {
        child.poll(None)?;
        trust::describe_commit(&Hashed(&child), id)
    });
    if enrolment.ca.is_some() {
        host.remove_own_file(PASSING_CA_FILE)
            .map_err(|failure| vec![failure])?;
    }
    match seen {
        Ok(described) => {
            let pinned = SeenAnchor {
                payload_sha256: described.payload_sha256.clone(),
                signer: described.fingerprint.clone(),
            };
            let name = enrolment.config.host.name.clone();
            (enrolment.config, enrolment.text) = compose(arguments, &name, Some(&pinned))?;
            let signer = described.fingerprint.unwrap_or_else(|| "nobody".to_owned());
            Ok(Some(format!("'{}' signed by {signer}", described.subject)))
        }
        // A source that is not there, or that nobody may read, is a mistake; one that does not answer now may answer later. A host
        // that works is not given up for either.
        Err(failure) if failure.class != Class::Transient || was_enrolled => Err(vec![failure]),
        Err(failure) => {
            terminal.message(&format!(
                "warning: the anchor could not be looked at, only its id is pinned: {failure}"
            ));
            Ok(None)
        }
    }
}

fn summary(
    arguments: &Arguments,
    enrolment: &Enrolment,
    seen: Option<&str>,
    was_enrolled: bool,
) -> Result<String, Vec<Failure>> {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "this host will be run by whoever may sign commits of\n    {} ({})",
        arguments.url, arguments.branch
    );
    let _ = writeln!(
        text,
        "from the anchor\n    {} {}",
        arguments.anchor,
        seen.unwrap_or("")
    );
    let _ = writeln!(text, "as the host\n    {}", enrolment.config.host.name);
    let _ = writeln!(text, "allowed signers");
    let signers = AllowedSigners::parse(ALLOWED_SIGNERS, &enrolment.allowed_signers)
        .map_err(|refusal| vec![Failure::from(refusal)])?;
    for (principal, fingerprint) in signers.listed() {
        let _ = writeln!(text, "    {principal}  {fingerprint}");
    }
    if arguments.url.starts_with("http://") {
        let _ = writeln!(
            text,
            "warning: http:// hides nothing from the network; signatures are checked all the same"
        );
    }
    if was_enrolled {
        let _ = writeln!(
            text,
            "it was enrolled before: what it trusted until now is forgotten, what it manages is not; its configuration is kept as {CONFIG_BEFORE}"
        );
    }
    Ok(text.trim_end().to_owned())
}

fn ask(terminal: &Terminal) -> Result<bool, Failure> {
    terminal.message("enrol this host? [y/N]");
    let mut answer = String::new();
    let _ = std::io::stderr().flush();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| {
            Failure::new(Class::Host, format!("failed to read the answer: {error}"))
        })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn write(host: &Host, enrolment: &Enrolment) -> Result<(), Failure> {
    host.ensure_own_directory("/etc/limpet", 0o755)?;
    if let Some(before) = host.read_file(config::CONFIG_FILE, FILE_LIMIT)? {
        // Settings that a person made are not lost: enrolment writes only what it was told.
        host.write_own_file(CONFIG_BEFORE, &before, 0o644)?;
    }
    host.write_own_file(ALLOWED_SIGNERS, &enrolment.allowed_signers, 0o644)?;
    host.write_own_file(REVOKED, &enrolment.revoked, 0o644)?;
    if let Some(ca) = &enrolment.ca {
        host.write_own_file(CA_FILE, ca, 0o644)?;
    }
    host.write_own_file(config::CONFIG_FILE, enrolment.text.as_bytes(), 0o644)
}

/// Starts the units, with the new configuration if they run already.
fn start(host: &Host, terminal: &Terminal) -> Result<(), Failure> {
    let systemd = host.systemd();
    if !systemd.is_available() {
        terminal.message(
            "there is no systemd here: start 'limpet agent' yourself, or run 'limpet apply --once'",
        );
        return Ok(());
    }
    for unit in ["limpet-fetch.socket", "limpet.service"] {
        systemd
            .enable(unit)
            .map_err(|error| error.into_failure(&format!("enable {unit}")))?;
    }
    run_jobs(
        host,
        &[
            ("limpet-fetch.socket", Verb::Restart),
            ("limpet.service", Verb::Restart),
        ],
    )
}

fn run_jobs(host: &Host, jobs: &[(&str, Verb)]) -> Result<(), Failure> {
    if !host.systemd().is_available() {
        return Ok(());
    }
    let jobs: Vec<Job> = jobs
        .iter()
        .map(|(unit, verb)| Job {
            unit: (*unit).to_owned(),
            verb: *verb,
        })
        .collect();
    let results = host
        .systemd()
        .run_jobs(&jobs, std::time::Duration::from_secs(60));
    for (job, result) in jobs.iter().zip(results) {
        let is_done = match result {
            Ok(result) => result.is_done(),
            // There is nothing to stop before the units were ever loaded.
            Err(error) if job.verb == Verb::Stop && error.is_missing_unit() => true,
            Err(error) => return Err(error.into_failure(&format!("start {}", job.unit))),
        };
        if !is_done {
            let verb = if job.verb == Verb::Stop {
                "stop"
            } else {
                "start"
            };
            return Err(
                Failure::new(Class::Host, format!("failed to {verb} {}", job.unit))
                    .with_hint(format!("see 'systemctl status {}'", job.unit)),
            );
        }
    }
    Ok(())
}
