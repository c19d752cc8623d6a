//! `limpet secret`: encrypt for hosts, again for others, and the key of this one.
//!
//! Whom a secret is for follows from the declarations: the hosts that need it, by the keys that the inventory names. Nothing else has to
//! be remembered, and `rekey` puts right what does not fit any more.
//!
//! Invariant: what is encrypted goes in by a file or standard input, and what is decrypted is only encrypted again: neither is an
//! argument, or printed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use super::CommandResult;
use super::terminal::Terminal;
use crate::age::{self, Identity, Recipient};
use crate::fleet::{self, Fleet, HostIdentity};
use crate::git::Tree;
use crate::kinds::file::{CREDENTIAL, KEY_FILE, read_identity};
use crate::model::{Class, Failure};
use crate::sys::Host;
use crate::sys::workdir::WorkDir;

/// Encrypt secrets for hosts
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Encrypt(Encrypt),
    Rekey(Rekey),
    Identity(MakeIdentity),
}

/// Encrypt a file for hosts of the inventory, to standard output
#[derive(Debug, Args)]
struct Encrypt {
    /// The hosts that are to read it; what follows the last of them is the file
    #[arg(long = "host", value_name = "NAME", required = true, num_args = 1..)]
    hosts: Vec<String>,
    /// A public key that is to read it as well, such as your own, so that you can encrypt it anew
    #[arg(long = "for", value_name = "AGE1…")]
    others: Vec<String>,
    /// The file; '-' is standard input
    file: Option<PathBuf>,
    /// The working tree with the inventory
    #[arg(long, value_name = "DIR", default_value = ".")]
    repo: PathBuf,
}

/// Encrypt the secrets of a working tree anew, for the hosts that need them now
#[derive(Debug, Args)]
struct Rekey {
    /// Your private key, which reads them now, and will
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// A public key that is to read them as well
    #[arg(long = "for", value_name = "AGE1…")]
    others: Vec<String>,
    /// The working tree
    #[arg(default_value = ".")]
    path: PathBuf,
}

/// Print this host's public key, for the inventory
#[derive(Debug, Args)]
struct MakeIdentity {
    /// Make a key where there is none
    #[arg(long)]
    create: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    match &arguments.command {
        Command::Encrypt(arguments) => encrypt(arguments, terminal),
        Command::Rekey(arguments) => rekey(arguments, terminal),
        Command::Identity(arguments) => print_identity(arguments, terminal),
    }
}

fn encrypt(arguments: &Encrypt, terminal: &Terminal) -> CommandResult {
    let mut hosts = arguments.hosts.clone();
    let file = match &arguments.file {
        Some(file) => Some(file.clone()),
        None if hosts.len() > 1 => hosts.pop().map(PathBuf::from),
        None => None,
    };
    let Some(file) = file else {
        return Err(vec![
            Failure::new(Class::Author, "which file is to be encrypted is missing")
                .with_hint("limpet secret encrypt --host NAME FILE > layers/LAYER/files/NAME.age"),
        ]);
    };
    let tree = WorkDir::open(&arguments.repo).map_err(|failure| vec![failure])?;
    let fleet = Fleet::load(&tree)?;
    let mut recipients = parse(&arguments.others)?;
    recipients.extend(keys_of(&fleet, &hosts)?);
    let plain = read_plain(&file).map_err(|failure| vec![failure])?;
    if age::is_sealed(&plain) {
        let message = format!("'{}' is encrypted already", file.display());
        return Err(vec![
            Failure::new(Class::Author, message).with_hint("for other hosts: limpet secret rekey"),
        ]);
    }
    let recipients: Vec<Recipient> = recipients.into_iter().collect();
    let sealed = age::seal(&plain, &recipients).map_err(|why| {
        let message = format!("failed to encrypt '{}': {why}", file.display());
        vec![Failure::new(Class::Author, message)]
    })?;
    terminal.data(&sealed)?;
    Ok(0)
}

fn parse(texts: &[String]) -> Result<BTreeSet<Recipient>, Vec<Failure>> {
    let parse = |text: &String| {
        text.parse().map_err(|_| {
            // It may be a private key.
            let message = "what follows '--for' is no public key";
            vec![Failure::new(Class::Author, message).with_hint("a public key is age1…")]
        })
    };
    texts.iter().map(parse).collect()
}

/// The keys of `hosts`; an error names all that have none.
fn keys_of(fleet: &Fleet<'_>, hosts: &[String]) -> Result<BTreeSet<Recipient>, Vec<Failure>> {
    let known: BTreeSet<String> = fleet.hosts()?.into_iter().collect();
    let mut failures = Vec::new();
    let mut keys = BTreeSet::new();
    for host in hosts {
        match fleet.recipient(host) {
            Some(key) => {
                keys.insert(key);
            }
            None if known.contains(host) => failures.push(
                Failure::new(
                    Class::Author,
                    format!("the inventory has no key for host '{host}'"),
                )
                .with_hint(format!(
                    "run 'limpet secret identity --create' on it, and write what it prints: [host.{host}] age = \"age1…\""
                )),
            ),
            None => failures.push(Failure::new(
                Class::Author,
                format!("the fleet has no host '{host}'"),
            )),
        }
    }
    match failures.is_empty() {
        true => Ok(keys),
        false => Err(failures),
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "an author's own files, on an author's computer"
)]
fn read_plain(file: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let limit = age::MAX_SEALED_BYTES as u64 + 1;
    let mut plain = Zeroizing::new(Vec::new());
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().take(limit).read_to_end(&mut plain),
        false => {
            std::fs::File::open(file).and_then(|opened| opened.take(limit).read_to_end(&mut plain))
        }
    };
    read.map_err(|error| {
        let message = format!("failed to read '{}': {error}", file.display());
        Failure::new(Class::Author, message)
    })?;
    Ok(plain)
}

fn rekey(arguments: &Rekey, terminal: &Terminal) -> CommandResult {
    let one = |failure: Failure| vec![failure];
    let text = read_plain(&arguments.identity).map_err(one)?;
    let identity = Identity::parse(std::str::from_utf8(&text).unwrap_or_default());
    let identity = identity.map_err(|why| {
        let message = format!(
            "'{}' is no private key: {why}",
            arguments.identity.display()
        );
        one(Failure::new(Class::Author, message))
    })?;
    let mut own = parse(&arguments.others)?;
    own.insert(identity.recipient());
    let tree = WorkDir::open(&arguments.path).map_err(one)?;
    let fleet = Fleet::load(&tree)?;
    let mut readers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in fleet.hosts()? {
        let host = HostIdentity::named(name.as_str());
        if !fleet.unknown_facts(&host).is_empty() {
            let message =
                format!("nobody knows what host '{name}' needs: its facts are not declared");
            let hint =
                format!("declare them in the inventory: [host.{name}] facts = {{ os = \"…\" }}");
            return Err(one(Failure::new(Class::Author, message).with_hint(hint)));
        }
        for path in fleet::secrets_of(&tree, &host)? {
            readers.entry(path).or_default().push(name.clone());
        }
    }
    // All or none: what is written is only written once everything was read.
    let mut anew = Vec::new();
    let mut failures = Vec::new();
    for (path, hosts) in &readers {
        match encrypted_anew(&tree, path, &identity, &own, keys_of(&fleet, hosts)) {
            Ok(sealed) => anew.push((path, hosts, sealed)),
            Err(found) => failures.extend(found),
        }
    }
    if !failures.is_empty() {
        return Err(failures);
    }
    for (path, hosts, sealed) in anew {
        replace(&arguments.path.join(path), sealed.as_bytes()).map_err(one)?;
        terminal.message(&format!("encrypted '{path}' for {}", hosts.join(", ")));
    }
    if readers.is_empty() {
        terminal.message("no host needs a secret");
    }
    Ok(0)
}

fn encrypted_anew(
    tree: &dyn Tree,
    path: &str,
    identity: &Identity,
    own: &BTreeSet<Recipient>,
    keys: Result<BTreeSet<Recipient>, Vec<Failure>>,
) -> Result<String, Vec<Failure>> {
    let failed = |why: &dyn std::fmt::Display| {
        let message = format!("failed to encrypt '{path}' anew: {why}");
        vec![Failure::new(Class::Author, message)]
    };
    let file = tree.read(path).map_err(|error| failed(&error))?;
    let sealed = file.map(|file| file.data).unwrap_or_default();
    let plain = age::open(&sealed, identity).map_err(|closed| failed(&closed))?;
    let recipients: Vec<Recipient> = keys?.union(own).cloned().collect();
    age::seal(&plain, &recipients).map_err(|why| failed(&why))
}

/// Replaces a file of the working tree at once.
#[allow(
    clippy::disallowed_methods,
    reason = "an author's own files, on an author's computer"
)]
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut candidate = path.as_os_str().to_owned();
    candidate.push(".limpet");
    let written =
        std::fs::write(&candidate, bytes).and_then(|()| std::fs::rename(&candidate, path));
    written.map_err(|error| {
        let message = format!("failed to write '{}': {error}", path.display());
        Failure::new(Class::Author, message)
    })
}

fn print_identity(arguments: &MakeIdentity, terminal: &Terminal) -> CommandResult {
    let identity = identity_of_host(arguments.create).map_err(|failure| vec![failure])?;
    terminal.data(&format!("{}\n", identity.recipient()))?;
    Ok(0)
}

/// The host's key, made where there is none and one is wanted.
fn identity_of_host(creates: bool) -> Result<Identity, Failure> {
    let host = Host::new(Path::new("/"));
    if creates && !host.exists(KEY_FILE)? && !host.exists(CREDENTIAL)? {
        let identity = Identity::generate();
        let mut text = Zeroizing::new(Vec::new());
        let written = writeln!(
            text,
            "# public key: {}\n{}",
            identity.recipient(),
            *identity.to_text()
        );
        written
            .map_err(|error| Failure::new(Class::Host, format!("failed to make a key: {error}")))?;
        host.write_own_file(KEY_FILE, &text, 0o600)?;
    }
    read_identity(&host)
}
