//! How things look on a terminal, and where they go: data to stdout, progress and messages to stderr.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::model::{Class, Failure};
use crate::report::status::StatusError;

/// The standard streams.
#[derive(Debug)]
pub struct Terminal {
    /// Draw colours on stderr.
    pub colour: bool,
}

impl Terminal {
    /// The process's own streams; colour only on a terminal, and not where `NO_COLOR` is set (no-color.org).
    pub fn standard() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Terminal {
            colour: !refused && io::stderr().is_terminal(),
        }
    }

    /// Writes data. A reader that went away (`limpet status | head -1`) is no failure.
    pub fn data(&self, text: &str) -> Result<(), Vec<Failure>> {
        let mut stdout = io::stdout().lock();
        match stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
        {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(vec![Failure::new(
                Class::Host,
                format!("failed to write to standard output: {error}"),
            )]),
            _ => Ok(()),
        }
    }

    /// Writes a line for the person who waits.
    pub fn message(&self, text: &str) {
        // Nobody is left to tell when stderr is gone.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// `value` as one JSON object and a newline.
pub fn json<T: Serialize>(value: &T) -> Result<String, Vec<Failure>> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| {
            vec![Failure::new(
                Class::Bug,
                format!("failed to write JSON: {error}"),
            )]
        })
}

/// What is wrong, in one line: where, then what; the resource where the message does not name it.
pub fn one_line(error: &StatusError) -> String {
    let resource = error.resource.as_ref().map(ToString::to_string);
    match (&error.location, resource) {
        (Some(location), _) => format!("{location}: {}", error.message),
        (None, Some(resource)) if !error.message.contains(&resource) => {
            format!("{resource}: {}", error.message)
        }
        _ => error.message.clone(),
    }
}

/// Writes `failure` as people read it: the drawing of the source line when there is one, else one line; then the hint.
pub fn write_failure(out: &mut dyn Write, failure: &Failure) -> io::Result<()> {
    match &failure.rendered {
        Some(rendered) => writeln!(out, "{}", rendered.trim_end())?,
        None => writeln!(out, "error: {failure}")?,
    }
    if let Some(hint) = failure.hint.as_ref().filter(|_| failure.rendered.is_none()) {
        writeln!(out, "hint: {hint}")?;
    }
    Ok(())
}
