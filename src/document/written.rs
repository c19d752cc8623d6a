//! Where a part of a string is written, between its quotes and escapes.

use std::ops::Range;

use super::Place;

impl Place {
    /// Where the bytes `span` of `text` are written, if this place is `text` as it is, or a TOML string that means it.
    pub fn part_of(&self, text: &str, span: Range<usize>) -> Option<Place> {
        let offsets = offsets(self.text(), text)?;
        Some(self.part(*offsets.get(span.start)?..*offsets.get(span.end)?))
    }
}

/// For every byte of `text`, and for its end, where it is written in `raw`.
fn offsets(raw: &str, text: &str) -> Option<Vec<usize>> {
    if raw == text {
        return Some((0..=text.len()).collect());
    }
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| {
        raw.len() >= 2 * quote.len() && raw.starts_with(quote) && raw.ends_with(quote)
    })?;
    let end = raw.len() - quote.len();
    let mut at = quote.len();
    if quote.len() == 3 {
        // A line break right after the quotes is no part of the string.
        let rest = &raw[at..end];
        let after = rest.strip_prefix("\r\n").or(rest.strip_prefix('\n'));
        at = end - after.unwrap_or(rest).len();
    }
    let mut offsets = Vec::with_capacity(text.len() + 1);
    let mut meant = String::with_capacity(text.len());
    while at < end {
        let rest = &raw[at..end];
        let (character, length) = match rest.chars().next()? {
            '\\' if quote.starts_with('"') => unescape(rest)?,
            character => (Some(character), character.len_utf8()),
        };
        if let Some(character) = character {
            meant.push(character);
            offsets.resize(meant.len(), at);
        }
        at += length;
    }
    offsets.push(end);
    (meant == text).then_some(offsets)
}

/// The character that the escape at the start of `raw` means, if it means one, and how many bytes it takes.
fn unescape(raw: &str) -> Option<(Option<char>, usize)> {
    let digits = |count: usize| {
        let code = u32::from_str_radix(raw.get(2..2 + count)?, 16).ok()?;
        Some((Some(char::from_u32(code)?), 2 + count))
    };
    let simple = match raw.chars().nth(1)? {
        'b' => '\u{8}',
        't' => '\t',
        'n' => '\n',
        'f' => '\u{c}',
        'r' => '\r',
        'e' => '\u{1b}',
        '"' => '"',
        '\\' => '\\',
        'x' => return digits(2),
        'u' => return digits(4),
        'U' => return digits(8),
        ' ' | '\t' | '\r' | '\n' => {
            // At the end of a line: white space up to the next character is no part of the string.
            let rest = raw[1..].trim_start_matches([' ', '\t', '\r', '\n']);
            return Some((None, raw.len() - rest.len()));
        }
        _ => return None,
    };
    Some((Some(simple), 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Source, parse};
    use proptest::prelude::*;

    /// `needle` of the string that `raw` means is written as `expected`.
    #[track_caller]
    fn check(raw: &str, needle: &str, expected: &str) {
        let source = Source::new("f", format!("a = {raw}\n"));
        let table = parse(&source).unwrap();
        let value = table.get("a").unwrap();
        let text = value.as_str().unwrap();
        let start = text.find(needle).unwrap();
        let part = value.place.part_of(text, start..start + needle.len());
        assert_eq!(part.unwrap().text(), expected, "{raw}");
    }

    #[test]
    fn a_part_is_found_behind_escapes() {
        check(r#""one two""#, "two", "two");
        check(r"'one \n two'", "two", "two");
        check(r#""\"one\"\t\\ two\n""#, "two", "two");
        check(r#""\u00e9\U0001F600é two""#, "two", "two");
        check(r#""a \"b\" c""#, "\"b\"", r#"\"b\""#);
        check("\"\"\"\none\ntwo\n\"\"\"", "two", "two");
        check("\"\"\"one \\\n   two\\n\"\"\"", "two", "two");
        check("'''\n'one' two'''", "two", "two");
        check("\"\"\"a \"quoted\" two\"\"\"", "two", "two");
    }

    #[test]
    fn what_is_no_string_or_another_one_has_no_parts() {
        for raw in ["", "12", "\"", "\"x\"", "\"\\q\"", "\"\\u00\""] {
            let source = Source::new("f", raw);
            let whole = Place::new(&source, 0..raw.len());
            assert!(whole.part_of("other", 0..5).is_none(), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_searched_without_panic(raw in "[\"'\\\\nuU0a \n\r\u{e9}]{0,40}", text in ".{0,20}") {
            let source = Source::new("f", raw.as_str());
            let whole = Place::new(&source, 0..raw.len());
            let _ = whole.part_of(&text, 0..text.len());
        }

        #[test]
        fn every_character_of_an_escaped_string_is_found(text in any::<String>()) {
            let raw: String = text.chars().map(|character| format!("\\U{:08x}", u32::from(character))).collect();
            let raw = format!("\"{raw}\"");
            let offsets = offsets(&raw, &text).unwrap();
            for (number, (at, _)) in text.char_indices().enumerate() {
                prop_assert_eq!(offsets[at], 1 + 10 * number);
            }
        }
    }
}
