//! Sources and places in them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::model::{Location, Name};

/// A text that somebody wrote, and the name people know it by.
#[derive(PartialEq, Eq)]
pub struct Source {
    file: Name,
    text: String,
    /// Where each line begins, in bytes: thousands of places are located in one source.
    line_starts: Vec<u32>,
}

impl Source {
    /// The text of `file`.
    pub fn new(file: impl Into<Name>, text: impl Into<String>) -> Arc<Self> {
        let text = text.into();
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(newline, _)| newline + 1))
            .filter_map(|start| u32::try_from(start).ok())
            .collect();
        Arc::new(Source {
            file: file.into(),
            text,
            line_starts,
        })
    }

    /// Its name: relative to the repository's root, or absolute for the host's own files.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({}, {} bytes)", self.file, self.text.len())
    }
}

/// A stretch of a source.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    source: Arc<Source>,
    // There are two places for every value: a source is far smaller than 4 GiB.
    start: u32,
    end: u32,
}

impl Place {
    /// Bytes `span` of `source`; what lies outside the text, or within a character, is moved to the nearest boundary before.
    pub fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        let start = floor_char_boundary(&source.text, span.start);
        let end = floor_char_boundary(&source.text, span.end).max(start);
        Place {
            source: Arc::clone(source),
            start: u32::try_from(start).unwrap_or(u32::MAX),
            end: u32::try_from(end).unwrap_or(u32::MAX),
        }
    }

    /// The beginning of `source`, for mistakes that concern all of it.
    pub fn start_of(source: &Arc<Source>) -> Self {
        Place::new(source, 0..0)
    }

    /// The source's name.
    pub fn file(&self) -> &str {
        &self.source.file
    }

    /// The source.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The bytes it covers.
    pub fn span(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The text it covers.
    pub fn text(&self) -> &str {
        &self.source.text[self.span()]
    }

    /// A stretch of this place, counted from its start.
    pub fn part(&self, span: Range<usize>) -> Self {
        let Range { start, end } = self.span();
        Place::new(
            &self.source,
            start + span.start..(start + span.end).min(end),
        )
    }

    /// Where it starts: the line from 1, the column in characters from 1.
    pub fn location(&self) -> Location {
        let line_starts = &self.source.line_starts;
        // The first line starts at 0, so at least one does at or before any place.
        let start = self.span().start;
        let line = line_starts.partition_point(|line| *line as usize <= start);
        let before = &self.source.text[line_starts[line - 1] as usize..start];
        // A byte order mark is no character that an editor counts.
        let column = 1 + before
            .strip_prefix('\u{feff}')
            .unwrap_or(before)
            .chars()
            .count();
        Location {
            file: self.source.file.clone(),
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.location())
    }
}

fn floor_char_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, offset: usize, expected: (u32, u32)) {
        let location = Place::new(&Source::new("f", text), offset..offset).location();
        assert_eq!((location.line, location.column), expected);
    }

    #[test]
    fn lines_and_columns_are_counted_in_characters_from_one() {
        check("", 0, (1, 1));
        check("a = 1\nb = 2", 6, (2, 1));
        check("a = 1\r\nb = 2", 11, (2, 5));
        check("ä = 'é'\n", 5, (1, 5));
        check("\u{feff}a = 1", 3, (1, 1));
        check("a", 99, (1, 2));
        check("é", 1, (1, 1));
    }
}
