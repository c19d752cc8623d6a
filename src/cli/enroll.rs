//! `limpet enroll`: tells this host where its repository is and what to trust, and starts the agent.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, Write as _};
use std::path::{Path, PathBuf};

use crate::cli::CommandResult;
use crate::cli::terminal::Terminal;
use crate::config::{self, Config, SourceUrl};
use crate::cycle::state;
use crate::fetch::Secrets;
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

/// Where the ssh servers' keys are meanwhile.
const PASSING_KNOWN_HOSTS: &str = "/run/limpet/enroll-known_hosts";

/// The credential that holds a token.
const TOKEN: &str = "git-token";
/// The credential that holds a key for ssh.
const SSH_KEY: &str = "git-ssh-key";
/// Where systemd learns which credentials the fetcher gets.
const FETCHER_DROP_INS: &str = "/etc/systemd/system/limpet-fetch.service.d";

/// The largest secret, in bytes: a key of 16,384 bits has room.
const SECRET_LIMIT: usize = 16 << 10;

/// The largest trust file or certificate bundle we copy, in bytes.
const FILE_LIMIT: u64 = 4 << 20;

/// What a new `revoked` file says.
const REVOKED_TEXT: &str = "# One revoked key or fingerprint (SHA256:... or openpgp:...) a line. This file must exist, and wins over everything else.\n";

/// Enrol this host: write its configuration and start the agent.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the repository is: https://, http://, ssh:// or user@host:path, or the path of a repository or bundle file
    #[arg(value_parser = source_url)]
    url: String,
    /// The first commit to trust, as a full id
    #[arg(long, value_name = "COMMIT", value_parser = full_id)]
    anchor: String,
    /// The branch to follow
    #[arg(long, default_value = "main", value_parser = branch)]
    branch: String,
    /// Follow release tags instead of a branch: the highest version that meets this, such as ">=1.4, <2"
    #[arg(long, value_name = "VERSIONS", conflicts_with = "branch")]
    tags: Option<semver::VersionReq>,
    /// Who may sign, in the syntax of ssh-keygen's allowed_signers; copied to /etc/limpet
    #[arg(long, value_name = "FILE")]
    allowed_signers: Option<PathBuf>,
    /// Revoked keys, one a line; copied to /etc/limpet
    #[arg(long, value_name = "FILE")]
    revoked: Option<PathBuf>,
    /// Certificates to trust beside the system's; copied to /etc/limpet
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Keys of the ssh server, as ssh-keyscan prints them; copied to /etc/limpet
    #[arg(long, value_name = "FILE")]
    known_hosts: Option<PathBuf>,
    /// A private key to read the repository with over ssh; copied to /etc/limpet for root alone
    #[arg(long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// A token to read the repository with over https; copied to /etc/limpet for root alone
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// The user whose password the token is (without: it is a bearer token)
    #[arg(long, requires = "token")]
    username: Option<String>,
    /// The name the repository knows this host by (default: the hostname up to the first dot)
    #[arg(long, value_parser = host_name)]
    name: Option<String>,
    /// A label, such as site=lagos; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Reads an address for the command line.
pub(super) fn source_url(text: &str) -> Result<String, String> {
    match SourceUrl::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(failure) => Err(match failure.hint {
            Some(hint) => format!("{}; {hint}", failure.message),
            None => failure.message,
        }),
    }
}

fn full_id(text: &str) -> Result<String, String> {
    ObjectId::from_hex(text.as_bytes())
        .ok()
        .filter(|id| text.len() == id.kind().len_in_hex() && !id.is_null())
        .map(|_| text.to_owned())
        .ok_or_else(|| "no full commit id: write all that 'git rev-parse' prints".to_owned())
}

fn branch(text: &str) -> Result<String, String> {
    if config::is_branch(text) {
        return Ok(text.to_owned());
    }
    Err("no name of a branch: write it without refs/heads/".to_owned())
}

fn host_name(text: &str) -> Result<String, String> {
    if config::is_host_name(text) {
        return Ok(text.to_owned());
    }
    Err("no host name: use letters, digits, '-', '_' and '.'".to_owned())
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
    known_hosts: Option<Vec<u8>>,
    /// What the fetcher shows to the server.
    secrets: Vec<Secret>,
    config: Config,
    text: String,
}

/// A secret that systemd will hand to the fetcher.
struct Secret {
    /// The credential's name, and that of the file in `/etc/limpet` that holds it.
    name: &'static str,
    text: String,
}

impl Secret {
    fn path(&self) -> String {
        format!("/etc/limpet/{}", self.name)
    }
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
    let foreign = |path: &Option<PathBuf>| {
        let path = path.as_ref();
        path.map(|path| host.read_foreign_file(path, FILE_LIMIT))
            .transpose()
            .map_err(one)
    };
    let known_hosts = foreign(&arguments.known_hosts)?;
    let mut secrets = Vec::new();
    for (name, path) in [(TOKEN, &arguments.token), (SSH_KEY, &arguments.ssh_key)] {
        if let (Some(bytes), Some(path)) = (foreign(path)?, path) {
            let text = String::from_utf8(bytes).ok();
            let text = text
                .filter(|text| text.len() <= SECRET_LIMIT)
                .ok_or_else(|| {
                    let message = format!("'{}' is too large, or no text", path.display());
                    vec![Failure::new(Class::Config, message)]
                })?;
            secrets.push(Secret { name, text });
        }
    }
    let name = arguments
        .name
        .clone()
        .map_or_else(|| host.read_short_name(), Ok)
        .map_err(one)?;
    let (config, text) = compose(host, arguments, &name, None)?;
    Ok(Enrolment {
        allowed_signers,
        revoked,
        ca,
        known_hosts,
        secrets,
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
    host: &Host,
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
        "url = {}\n{}",
        quoted(&arguments.url),
        match &arguments.tags {
            Some(wanted) => format!("tags = {}", quoted(&wanted.to_string())),
            None => format!("branch = {}", quoted(&arguments.branch)),
        }
    );
    if arguments.ca_file.is_some() {
        let _ = writeln!(text, "ca_file = {}", quoted(CA_FILE));
    }
    if arguments.token.is_some() {
        let _ = writeln!(text, "token = {}", quoted(TOKEN));
    }
    if let Some(username) = &arguments.username {
        let _ = writeln!(text, "username = {}", quoted(username));
    }
    if arguments.ssh_key.is_some() {
        let _ = writeln!(text, "ssh_key = {}", quoted(SSH_KEY));
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
    let mut fragments = vec![(config::CONFIG_FILE.to_owned(), text.clone())];
    fragments.extend(super::drop_ins(host)?);
    let config = Config::parse(&fragments)?;
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
    if let Some(known_hosts) = &enrolment.known_hosts {
        host.ensure_own_directory("/run/limpet", 0o755)
            .map_err(|failure| vec![failure])?;
        host.write_own_file(PASSING_KNOWN_HOSTS, known_hosts, 0o644)
            .map_err(|failure| vec![failure])?;
        source.known_hosts = PASSING_KNOWN_HOSTS.to_owned();
    }
    let mut secrets = Secrets::default();
    for secret in &enrolment.secrets {
        secrets.insert(secret.name, secret.text.clone());
    }
    let named = [&source.token, &source.ssh_key].into_iter().flatten();
    let unknown = named.into_iter().find(|name| !secrets.has(name)).cloned();
    let seen = match unknown {
        // A drop-in names it, and only systemd can tell it, only to the fetcher.
        Some(name) => Err(Failure::new(
            Class::Transient,
            format!("only limpet-fetch.service has the credential '{name}'"),
        )),
        None => {
            let mut launch = Launch::of_this_program(&host.outer_path(config::CACHE_DIRECTORY));
            launch.secrets = Some(secrets);
            Child::spawn(&launch, &source).and_then(|child| {
                child.poll(None)?;
                let signers =
                    AllowedSigners::parse(ALLOWED_SIGNERS, &enrolment.allowed_signers).ok();
                let path = &enrolment.config.source.path;
                trust::describe_commit(&Hashed(&child), path, signers.as_ref(), id)
            })
        }
    };
    let passing = [
        (PASSING_CA_FILE, enrolment.ca.is_some()),
        (PASSING_KNOWN_HOSTS, enrolment.known_hosts.is_some()),
    ];
    for (path, _) in passing.into_iter().filter(|(_, is_there)| *is_there) {
        host.remove_own_file(path)
            .map_err(|failure| vec![failure])?;
    }
    match seen {
        Ok(described) => {
            let pinned = SeenAnchor {
                payload_sha256: described.payload_sha256.clone(),
                signer: described.fingerprint.clone(),
            };
            let name = enrolment.config.host.name.clone();
            (enrolment.config, enrolment.text) = compose(host, arguments, &name, Some(&pinned))?;
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
        arguments.url,
        match &arguments.tags {
            Some(wanted) => format!("releases {wanted}"),
            None => arguments.branch.clone(),
        }
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
    if let Some(known_hosts) = &enrolment.known_hosts {
        host.write_own_file(config::KNOWN_HOSTS, known_hosts, 0o644)?;
    }
    write_secrets(host, &enrolment.secrets)?;
    host.write_own_file(config::CONFIG_FILE, enrolment.text.as_bytes(), 0o644)
}

/// Puts secrets where only root can read them, and tells systemd to hand them to the fetcher.
fn write_secrets(host: &Host, secrets: &[Secret]) -> Result<(), Failure> {
    if secrets.is_empty() {
        return Ok(());
    }
    let mut unit = String::from("# Written by limpet enroll.\n[Service]\n");
    for secret in secrets {
        host.write_own_file(&secret.path(), secret.text.as_bytes(), 0o600)?;
        let _ = writeln!(unit, "LoadCredential={}:{}", secret.name, secret.path());
    }
    host.ensure_own_directory(FETCHER_DROP_INS, 0o755)?;
    host.write_own_file(
        &format!("{FETCHER_DROP_INS}/enrolled.conf"),
        unit.as_bytes(),
        0o644,
    )?;
    if host.systemd().is_available() {
        host.systemd()
            .reload()
            .map_err(|error| error.into_failure("read the units again"))?;
    }
    Ok(())
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
    // Where the distribution enables nothing by itself, nothing of it is enabled yet. The timer is started when it is needed.
    for unit in [
        "limpet-fetch.socket",
        "limpet.service",
        "limpet-probation.timer",
    ] {
        systemd
            .enable(unit, false)
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

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    #[test]
    fn a_command_line_that_cannot_be_meant_is_wrong_usage() {
        let id = "3f2a91c0d4e5b6a798081726354433221100ffee";
        let check = |words: &[&str]| {
            let words = ["limpet", "enroll"].iter().chain(words);
            assert_eq!(crate::cli::main(words.map(OsString::from)), 64);
        };
        check(&["git://host/x", "--anchor", id]);
        check(&["https://user:secret@host/x", "--anchor", id]);
        check(&["ssh://-oProxyCommand=x/y", "--anchor", id]);
        check(&["https://host/x", "--anchor", "3f2a91c"]);
        check(&["https://host/x", "--anchor", &"0".repeat(40)]);
        check(&["https://host/x", "--anchor", id, "--name", "../x"]);
        check(&["https://host/x", "--anchor", id, "--branch", "refs/heads/x"]);
        check(&["https://host/x", "--anchor", id, "--username", "me"]);
    }
}
