//! `limpet render`: the desired state of one host, and where each value of it comes from.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::CommandResult;
use super::terminal::{self, Terminal};
use crate::document;
use crate::fleet::{self, DesiredState, HostIdentity, Limits, OriginatedValue, Rendered};
use crate::kinds::file::PathSpec;
use crate::kinds::kind::{Content, ContentSource};
use crate::sys::workdir::WorkDir;

/// Show the desired state of one host
#[derive(Debug, Args)]
pub struct Arguments {
    /// The host's name
    #[arg(long, value_name = "NAME")]
    host: String,
    /// Show the file, line and layer that each value and variable came from
    #[arg(long)]
    origins: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// The working tree: the directory that holds fleet.toml
    #[arg(default_value = ".")]
    path: PathBuf,
}

/// Renders the host from the working tree.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let tree = WorkDir::open(&arguments.path).map_err(|failure| vec![failure])?;
    let host = HostIdentity::named(arguments.host.as_str());
    let limits = Limits::default();
    let rendered = if arguments.json && !arguments.origins {
        fleet::render_state(&tree, &host, &limits)?
    } else {
        fleet::render(&tree, &host, &limits)?
    };
    let text = if arguments.json {
        terminal::json(&as_json(&arguments.host, &rendered, arguments.origins))?
    } else {
        as_text(&arguments.host, &rendered, arguments.origins)
    };
    terminal.data(&text)?;
    Ok(0)
}

fn as_text(host: &str, rendered: &Rendered, origins: bool) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "host {host} of fleet {}", rendered.state.fleet);
    let _ = writeln!(text, "digest {}", rendered.state.digest);
    let _ = writeln!(text, "\nlayers");
    for layer in &rendered.layers {
        if origins {
            let _ = writeln!(text, "  {}  ({})", layer.name, layer.because);
        } else {
            let _ = writeln!(text, "  {}", layer.name);
        }
    }
    write_values(&mut text, "resources", &rendered.values, origins);
    write_values(&mut text, "variables", &rendered.variables, origins);
    for (path, content) in texts(&rendered.state) {
        let _ = writeln!(text, "\ncontent of {path}");
        for line in content.lines() {
            let _ = writeln!(text, "  | {}", document::single_line(line));
        }
    }
    text
}

/// The contents that are texts, by path, as they will stand on the host.
fn texts(state: &DesiredState) -> impl Iterator<Item = (&str, &str)> {
    state.paths.iter().filter_map(|path| match &path.spec {
        PathSpec::File {
            content:
                Some(Content {
                    source: ContentSource::Inline(bytes),
                    ..
                }),
            ..
        } => Some((path.path.as_str(), std::str::from_utf8(bytes).ok()?)),
        _ => None,
    })
}

fn write_values(text: &mut String, title: &str, values: &[OriginatedValue], origins: bool) {
    if values.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    for value in values {
        let _ = write!(text, "  {} = {}", value.key, value.value);
        if origins {
            let origin = &value.origin;
            let _ = write!(text, "  # {} (layer {})", origin.location, origin.layer);
        }
        text.push('\n');
    }
}

/// The object, written as it is read: that of ten thousand files is large.
#[derive(Serialize)]
struct AsJson<'a, S: Serialize> {
    contents: BTreeMap<&'a str, &'a str>,
    digest: &'a str,
    fleet: &'a str,
    host: &'a str,
    layers: Vec<serde_json::Value>,
    state: S,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variables: Option<serde_json::Value>,
}

fn as_json<'a>(host: &'a str, rendered: &'a Rendered, origins: bool) -> AsJson<'a, impl Serialize> {
    let layers = rendered
        .layers
        .iter()
        .map(|layer| json!({ "name": layer.name, "because": layer.because.to_string() }))
        .collect();
    AsJson {
        contents: texts(&rendered.state).collect(),
        digest: &rendered.state.digest,
        fleet: &rendered.state.fleet,
        host,
        layers,
        state: fleet::canonical(&rendered.state),
        values: origins.then(|| values_json(&rendered.values)),
        variables: origins.then(|| values_json(&rendered.variables)),
    }
}

fn values_json(values: &[OriginatedValue]) -> serde_json::Value {
    values
        .iter()
        .map(|value| {
            json!({
                "key": value.key,
                "value": value.value,
                "origin": value.origin.location.to_string(),
                "layer": value.origin.layer,
            })
        })
        .collect()
}
