//! How things look on a terminal.

use std::io::{self, Write};

use crate::model::Failure;

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
