//! `limpet check`: everything that is wrong with a fleet repository, without a host.

use std::path::PathBuf;

use clap::Args;

use super::CommandResult;
use super::terminal::Terminal;
use crate::fleet::{Fleet, HostIdentity, Limits};
use crate::git::Tree;
use crate::model::Failure;
use crate::sys::workdir::WorkDir;

/// Parse and render every host of a fleet repository; no root needed
#[derive(Debug, Args)]
pub struct Arguments {
    /// The working tree: the directory that holds fleet.toml
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Print each host's name and the digest of its desired state
    #[arg(long)]
    digests: bool,
}

/// Checks the working tree; every mistake is an error, told once.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let tree = WorkDir::open(&arguments.path).map_err(|failure| vec![failure])?;
    let checked = check(&tree)?;
    for note in &checked.notes {
        terminal.message(&format!("note: {note}"));
    }
    if !checked.mistakes.is_empty() {
        return Err(checked.mistakes);
    }
    if arguments.digests {
        let lines: Vec<String> = checked
            .digests
            .iter()
            .map(|(host, digest)| format!("{host} {digest}\n"))
            .collect();
        terminal.data(&lines.concat())?;
    }
    terminal.message(&format!(
        "checked {}, {}: no mistakes",
        counted(checked.hosts, "host"),
        counted(checked.layers, "layer")
    ));
    Ok(0)
}

struct Checked {
    hosts: usize,
    layers: usize,
    digests: Vec<(String, String)>,
    notes: Vec<String>,
    mistakes: Vec<Failure>,
}

fn check(tree: &dyn Tree) -> Result<Checked, Vec<Failure>> {
    let fleet = Fleet::load(tree)?;
    let layers = fleet.layer_names().map_err(|failure| vec![failure])?;
    let hosts = fleet.hosts()?;
    let mut checked = Checked {
        hosts: hosts.len(),
        layers: layers.len(),
        digests: Vec::new(),
        notes: Vec::new(),
        mistakes: Vec::new(),
    };
    for layer in layers {
        checked.add(fleet.check_layer(layer));
    }
    for name in hosts {
        let host = HostIdentity::named(name.as_str());
        checked.add(fleet.check_layer(&format!("hosts/{name}")));
        let unknown = fleet.unknown_facts(&host);
        if !unknown.is_empty() {
            checked.notes.push(format!(
                "host '{name}' is not rendered: its {} is only known on the host; declare it in the inventory to check it here",
                unknown.join(", ")
            ));
            continue;
        }
        match fleet.render(&host, &Limits::default()) {
            Ok(rendered) => checked.digests.push((name, rendered.state.digest)),
            Err(failures) => checked.add(failures),
        }
    }
    Ok(checked)
}

impl Checked {
    /// Many hosts share a layer and its mistakes; each is told once.
    fn add(&mut self, failures: Vec<Failure>) {
        for failure in failures {
            if !self.mistakes.contains(&failure) {
                self.mistakes.push(failure);
            }
        }
    }
}

fn counted(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}
