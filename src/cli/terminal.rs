//! How things look on a terminal, and where they go: data to stdout, progress and messages to stderr.

use std::io::{self, IsTerminal, Write};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::model::{Class, Failure};
use crate::report::status::StatusError;

/// The standard streams.
#[derive(Debug)]
pub struct Terminal {
    /// Draw colours on stderr.
    pub colour: bool,
    /// Draw colours on stdout.
    pub data_colour: bool,
}

impl Terminal {
    /// The process's own streams; colour only on a terminal, and not where `NO_COLOR` is set (no-color.org).
    pub fn standard() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Terminal {
            colour: !refused && io::stderr().is_terminal(),
            data_colour: !refused && io::stdout().is_terminal(),
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

    /// Writes data that people read: where it goes to a terminal, what was added is green and what was taken away is red.
    pub fn show(&self, text: &str) -> Result<(), Vec<Failure>> {
        if self.data_colour {
            self.data(&paint(text, colour_of_line))
        } else {
            self.data(text)
        }
    }

    /// Writes `failure` as people read it: the drawing of the source line when there is one, else one line; then the hint.
    pub fn write_failure(&self, out: &mut dyn Write, failure: &Failure) -> io::Result<()> {
        match &failure.rendered {
            Some(drawing) if self.colour => {
                write!(out, "{}", paint(drawing.trim_end(), colour_of_drawing))?;
            }
            Some(drawing) => writeln!(out, "{}", drawing.trim_end())?,
            None if self.colour => writeln!(out, "{RED}error:{PLAIN} {failure}")?,
            None => writeln!(out, "error: {failure}")?,
        }
        if let Some(hint) = failure.hint.as_ref().filter(|_| failure.rendered.is_none()) {
            writeln!(out, "hint: {hint}")?;
        }
        Ok(())
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

const RED: &str = "\x1b[1;31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const BLUE: &str = "\x1b[1;34m";
const CYAN: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

/// `text` with each line in its colour.
fn paint(text: &str, colour_of: fn(&str) -> Option<&'static str>) -> String {
    let mut painted = String::with_capacity(text.len());
    for line in text.lines() {
        match colour_of(line) {
            Some(colour) => {
                painted.push_str(colour);
                painted.push_str(line);
                painted.push_str(PLAIN);
            }
            None => painted.push_str(line),
        }
        painted.push('\n');
    }
    painted
}

/// The colour of a line of a plan, a history or a status: by the mark that it begins with.
fn colour_of_line(line: &str) -> Option<&'static str> {
    let line = line.trim_start();
    match line.chars().next()? {
        '+' | '●' => Some(GREEN),
        '-' | '!' | '✗' => Some(RED),
        '~' | '○' => Some(YELLOW),
        '@' if line.starts_with("@@ ") => Some(CYAN),
        _ => None,
    }
}

/// The colour of a line of a drawing: the message, the marks below the source, and where it is.
fn colour_of_drawing(line: &str) -> Option<&'static str> {
    let is_gutter = |line: &str| {
        line.trim_start_matches([' ', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
            .starts_with('|')
    };
    let beside = line
        .split_once('|')
        .map_or("", |(_, rest)| rest.trim_start());
    if line.starts_with("error") {
        Some(RED)
    } else if line.starts_with("help")
        || line.starts_with("note")
        || line.trim_start().starts_with("= ")
    {
        Some(CYAN)
    } else if line.trim_start().starts_with("-->") || line.trim_start().starts_with(":::") {
        Some(BLUE)
    } else if is_gutter(line) && beside.starts_with('^') {
        Some(RED)
    } else if is_gutter(line) && beside.starts_with("---") {
        Some(BLUE)
    } else {
        None
    }
}

/// How long before `now` something was, in one unit.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", duration(now.duration_since(at)))
}

/// A duration in one unit, to the nearest second.
pub fn duration(span: SignedDuration) -> String {
    let seconds = span.as_secs() + i64::from(span.subsec_millis() >= 500);
    match seconds.max(0) {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

pub use crate::report::moment;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_coloured_by_their_mark_and_nothing_else_is_changed() {
        let painted = paint("plan for gw\n  + create\n      -old\n", colour_of_line);
        assert_eq!(
            painted,
            "plan for gw\n\x1b[32m  + create\x1b[0m\n\x1b[1;31m      -old\x1b[0m\n"
        );
    }

    #[test]
    fn a_drawing_is_coloured_only_where_colour_is_wanted() {
        let drawing = "error: unknown field\n --> a.toml:1:1\n  |\n1 | owmer = 1\n  | ^^^^^\n  |\n  = help: owner";
        let failure = Failure {
            rendered: Some(drawing.to_owned()),
            ..Failure::new(Class::Author, "unknown field")
        };
        let written = |colour: bool| {
            let mut out = Vec::new();
            let terminal = Terminal {
                colour,
                data_colour: false,
            };
            terminal.write_failure(&mut out, &failure).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(false), format!("{drawing}\n"));
        let coloured = written(true);
        for line in [
            "\x1b[1;31merror: unknown field\x1b[0m\n",
            "\x1b[1;31m  | ^^^^^\x1b[0m\n",
            "\n1 | owmer = 1\n",
        ] {
            assert!(coloured.contains(line), "{coloured:?}");
        }
    }
}
