//! `limpet check`: everything that is wrong with a fleet repository, without a host.
//!
//! A *known* host is in the inventory or has a folder under `hosts/`. A host needs neither, so every rule that fits no known host is
//! rendered for an *imaginary* one, as a machine that enrols tomorrow would be.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::CommandResult;
use super::terminal::Terminal;

use crate::fleet::{Fleet, HostIdentity, ImaginaryHost, Limits};
use crate::git::Tree;
use crate::model::{Class, Failure};
use crate::sys::workdir::WorkDir;

mod findings;
mod policy;

/// Parse and render every host of a fleet repository
#[derive(Debug, Args)]
pub struct Arguments {
    /// The working tree: the directory that holds fleet.toml
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Print each known host's name and the digest of its desired state
    #[arg(long)]
    digests: bool,
    /// How mistakes are told
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Human)]
    format: Format,
}

/// Checks the working tree; every mistake is an error, told once.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let tree = WorkDir::open(&arguments.path).map_err(|failure| vec![failure])?;
    let checked = match check(&tree, &arguments.path) {
        Ok(checked) => checked,
        // What every host reads is wrong: nothing more can be said.
        Err(mistakes) => Checked {
            mistakes,
            ..Checked::default()
        },
    };
    if arguments.format != Format::Human {
        terminal.data(&findings::report(
            arguments.format,
            &arguments.path,
            &checked,
        )?)?;
    }
    for note in &checked.notes {
        terminal.message(&format!("note: {note}"));
    }
    if !checked.mistakes.is_empty() {
        return Err(checked.mistakes);
    }
    if arguments.digests && matches!(arguments.format, Format::Human | Format::Github) {
        let lines: Vec<String> = checked
            .digests
            .iter()
            .map(|(host, digest)| format!("{host} {digest}\n"))
            .collect();
        terminal.data(&lines.concat())?;
    }
    let imaginary = match checked.imaginary {
        0 => String::new(),
        number => format!(" and {}", counted(number, "imaginary host")),
    };
    terminal.message(&format!(
        "checked {}{imaginary}, {}: no mistakes",
        counted(checked.hosts, "host"),
        counted(checked.layers.len(), "layer")
    ));
    Ok(0)
}

/// How mistakes are told: always to people, on stderr; and to a program, on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// To people only
    Human,
    /// Workflow commands, which GitHub and Forgejo show beside the lines
    Github,
    /// One JSON object
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
}

#[derive(Default)]
struct Checked {
    hosts: usize,
    imaginary: usize,
    layers: Vec<String>,
    digests: Vec<(String, String)>,
    notes: Vec<String>,
    mistakes: Vec<Failure>,
    /// The layers that a host has, known or imaginary.
    used: BTreeSet<String>,
    /// The layers that were rendered for a known host without a mistake.
    proven: BTreeSet<String>,
}

fn check(tree: &dyn Tree, path: &Path) -> Result<Checked, Vec<Failure>> {
    let fleet = Fleet::load(tree)?;
    let layers = fleet.layer_names().map_err(|failure| vec![failure])?;
    let mut checked = Checked {
        layers: layers.to_vec(),
        ..Checked::default()
    };
    checked.add(policy::check(path, &fleet));
    for layer in layers {
        checked.add(fleet.check_layer(layer));
    }
    let known = checked.known_hosts(&fleet)?;
    checked.imaginary_hosts(&fleet, &known);
    if checked.mistakes.is_empty() {
        checked.note_unused_layers();
    }
    Ok(checked)
}

impl Checked {
    /// Renders every known host, and returns those whose layers can be told away from them.
    fn known_hosts(&mut self, fleet: &Fleet<'_>) -> Result<Vec<HostIdentity>, Vec<Failure>> {
        let mut known = Vec::new();
        for name in fleet.hosts()? {
            self.hosts += 1;
            let host = HostIdentity::named(name.as_str());
            self.add(fleet.check_layer(&format!("hosts/{name}")));
            let unknown = fleet.unknown_facts(&host);
            if !unknown.is_empty() {
                self.notes.push(format!(
                    "host '{name}' is not rendered: its {} is only known on the host; declare it in the inventory to check it here",
                    unknown.join(", ")
                ));
                continue;
            }
            match fleet.render_state(&host, &Limits::default()) {
                Ok(rendered) => {
                    for layer in rendered.layers {
                        if !self.proven.contains(&layer.name) {
                            self.used.insert(layer.name.clone());
                            self.proven.insert(layer.name);
                        }
                    }
                    self.digests.push((name, rendered.state.digest));
                }
                Err(failures) => {
                    self.note_layers_of(&host, fleet);
                    self.add(failures);
                }
            }
            known.push(host);
        }
        Ok(known)
    }

    /// Renders an imaginary host for every rule that fits none of `known`.
    fn imaginary_hosts(&mut self, fleet: &Fleet<'_>, known: &[HostIdentity]) {
        let unused = fleet.imagine_hosts(known);
        for rule in unused.impossible {
            self.notes.push(format!(
                "{rule}: this rule fits no known host, and none could be imagined: what it gives is not rendered"
            ));
        }
        for host in &unused.hosts {
            self.imaginary += 1;
            self.notes.push(format!(
                "{}: this rule fits no known host: rendered for {host}",
                host.rule
            ));
            self.note_layers_of(&host.identity, fleet);
            if let Err(failures) = fleet.render_state(&host.identity, &Limits::default()) {
                self.add_imaginary(host, failures);
            }
        }
    }

    /// Notes that somebody has these layers; what is wrong with the choice itself is told by rendering.
    fn note_layers_of(&mut self, host: &HostIdentity, fleet: &Fleet<'_>) {
        let layers = fleet.layers_of(host).unwrap_or_default();
        self.used.extend(layers.into_iter().map(|layer| layer.name));
    }

    /// Many hosts share a layer and its mistakes; each is told once.
    fn add(&mut self, failures: Vec<Failure>) {
        for failure in failures {
            if !self.has(&failure) {
                self.mistakes.push(failure);
            }
        }
    }

    /// Adds what is wrong for `host`, which does not exist. A layer that known hosts have without a mistake may need what the
    /// inventory says about each of them and nobody knows about this one: that is worth a note.
    fn add_imaginary(&mut self, host: &ImaginaryHost, failures: Vec<Failure>) {
        for mut failure in failures {
            if self.has(&failure) {
                continue;
            }
            if failure.class == Class::Author && self.is_proven(&failure) {
                self.notes.push(format!(
                    "for {host}: {failure}; known hosts have this layer without a mistake: add such a host to the inventory to check it"
                ));
                continue;
            }
            match &mut failure.rendered {
                Some(drawing) => {
                    *drawing = format!("{}\nnote: for {host}", drawing.trim_end());
                }
                None => failure.message = format!("{} (for {host})", failure.message),
            }
            self.mistakes.push(failure);
        }
    }

    /// Is this mistake told already, be it for another imaginary host.
    fn has(&self, failure: &Failure) -> bool {
        let same_place = |told: &Failure| {
            told.location.is_some()
                && told.location == failure.location
                && told.message == failure.message
        };
        self.mistakes
            .iter()
            .any(|told| told == failure || same_place(told))
    }

    /// Is the failure in a layer that was rendered for a known host without a mistake.
    fn is_proven(&self, failure: &Failure) -> bool {
        let Some(location) = &failure.location else {
            return false;
        };
        let Some(path) = location.file.strip_prefix("layers/") else {
            return false;
        };
        // Layers nest: the longest name is the one.
        let layer = self
            .layers
            .iter()
            .filter(|layer| {
                path.strip_prefix(layer.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
            })
            .max_by_key(|layer| layer.len());
        layer.is_some_and(|layer| self.proven.contains(layer))
    }

    fn note_unused_layers(&mut self) {
        for layer in &self.layers {
            if !self.used.contains(layer) {
                self.notes.push(format!(
                    "layer '{layer}' is parsed but not rendered: no host that was rendered has it"
                ));
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
