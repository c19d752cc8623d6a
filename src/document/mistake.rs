//! Mistakes, and how they are drawn.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::Place;
use crate::model::{Class, Failure};

/// Something wrong with what somebody wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// Where; filled in while it travels outward.
    pub place: Option<Place>,
    /// A word or two under the marked text.
    pub label: Option<String>,
    /// Other places that matter, each with what it is.
    pub notes: Vec<(String, Place)>,
    /// What to write instead.
    pub hint: Option<String>,
    /// The outermost key under which it happened, while it travels outward.
    pub(super) key: Option<String>,
}

impl Mistake {
    /// A mistake at `place`.
    pub fn new(place: &Place, message: impl Into<String>) -> Self {
        let mut mistake = Mistake::somewhere(message);
        mistake.place = Some(place.clone());
        mistake
    }

    /// A mistake whose place is not known yet.
    pub(super) fn somewhere(message: impl Into<String>) -> Self {
        Mistake {
            message: message.into(),
            place: None,
            label: None,
            notes: Vec::new(),
            hint: None,
            key: None,
        }
    }

    /// The same, with a few words under the mark.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The same, with a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, suggesting the nearest of `known` to `written`, if one is near.
    pub fn suggest<'a>(self, written: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(written, known) {
            Some(name) => {
                let hint = format!("did you mean '{name}'?");
                self.hint(hint)
            }
            None => self,
        }
    }

    /// The same, showing another place too.
    pub fn note(mut self, note: impl Into<String>, place: &Place) -> Self {
        self.notes.push((note.into(), place.clone()));
        self
    }

    /// A failure that whoever `class` names has to mend.
    pub fn into_failure(self, class: Class) -> Failure {
        let rendered = self.draw(false);
        self.plain_failure(class, rendered)
    }

    fn plain_failure(self, class: Class, rendered: Option<String>) -> Failure {
        let mut message = single_line(&self.message);
        for (note, place) in &self.notes {
            message.push_str(&format!("; {} at {}", single_line(note), place.location()));
        }
        let mut failure = Failure::new(class, message);
        failure.location = self.place.map(|place| place.location());
        failure.hint = self.hint;
        failure.rendered = rendered;
        failure
    }

    /// The mistake as compilers draw it: the message after `file:line:column`, the line with a mark, the notes, the hint.
    pub fn draw(&self, coloured: bool) -> Option<String> {
        let place = self.place.as_ref()?;
        let title = format!("{}: {}", place.location(), single_line(&self.message));
        let mut report = vec![
            Level::ERROR
                .primary_title(title)
                .element(quote(place, self.label.as_deref())),
        ];
        for (note, place) in &self.notes {
            let title = format!("{}: {}", place.location(), single_line(note));
            report.push(
                Group::with_title(Level::NOTE.secondary_title(title)).element(quote(place, None)),
            );
        }
        if let Some(hint) = &self.hint {
            report.push(Group::with_title(
                Level::HELP.with_name("hint").secondary_title(hint.clone()),
            ));
        }
        let renderer = if coloured {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        Some(renderer.render(&report))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}: ", place.location())?;
        }
        f.write_str(&single_line(&self.message))
    }
}

impl std::error::Error for Mistake {}

/// The line of `place` with a mark under it. A place of several lines is marked to the end of its first.
fn quote<'a>(
    place: &'a Place,
    label: Option<&'a str>,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let text = place.source().text();
    let Range { start, end } = place.span();
    let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = text[start..]
        .find('\n')
        .map_or(text.len(), |newline| start + newline);
    let line = text[line_start..line_end].trim_end_matches('\r');
    let line_number = 1 + text[..line_start].matches('\n').count();
    let start = (start - line_start).min(line.len());
    let end = end.saturating_sub(line_start).clamp(start, line.len());
    Snippet::source(line)
        .line_start(line_number)
        .annotation(AnnotationKind::Primary.span(start..end).label(label))
}

/// `text` without anything that could break a line or steer a terminal.
pub fn single_line(text: &str) -> String {
    if !text.contains(is_unprintable) {
        return text.to_owned();
    }
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unprintable(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// Control characters, and those that reorder what people see.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The name among `known` that `written` was probably meant to be.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written_length = written.chars().count();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(written, name), name))
        .filter(|(distance, name)| {
            // A third of the longer name may be wrong, as in rustc.
            let longest = written_length.max(name.chars().count());
            *distance <= (longest / 3).max(1) && *distance < longest
        })
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Source;

    #[track_caller]
    fn check_nearest(written: &str, expected: Option<&str>) {
        let known = ["owner", "mode", "content", "source", "group", "needs"];
        assert_eq!(nearest(written, known), expected);
    }

    #[test]
    fn nearest_is_what_was_probably_meant() {
        check_nearest("owmer", Some("owner"));
        check_nearest("contnet", Some("content"));
        check_nearest("Mode", Some("mode"));
        check_nearest("enabled", None);
        check_nearest("x", None);
        check_nearest("", None);
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(single_line("a\x1b[31mb\nc"), "a\\u{1b}[31mb\\nc");
        assert_eq!(single_line("é\u{202e}x"), "é\\u{202e}x");
    }

    #[test]
    fn a_mistake_quotes_its_line_and_the_other_place() {
        let source = Source::new("layers/base/a.toml", "x = 1\n\ty = 'ä' # why\r\n");
        let mistake = Mistake::new(&Place::new(&source, 11..15), "wrong")
            .label("here")
            .note("first", &Place::new(&source, 0..1))
            .hint("write less");
        let failure = mistake.into_failure(Class::Author);
        assert_eq!(
            failure.to_string(),
            "layers/base/a.toml:2:6: wrong; first at layers/base/a.toml:1:1"
        );
        insta::assert_snapshot!(failure.rendered.unwrap(), @r"
        error: layers/base/a.toml:2:6: wrong
          |
        2 |     y = 'ä' # why
          |         ^^^ here
          |
        note: layers/base/a.toml:1:1: first
          |
        1 | x = 1
          | ^
        hint: write less
        ");
    }
}
