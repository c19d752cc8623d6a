//! From text to tables.

use std::collections::HashSet;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, de::DeString};

use super::{Data, Entry, Key, Mistake, Place, Source, Table, Value};

/// The largest TOML file we read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Parses `source`. The first mistake ends it: what follows one is mostly noise.
pub fn parse(source: &Arc<Source>) -> Result<Table, Mistake> {
    let text = source.text();
    if text.len() > MAX_BYTES {
        return Err(Mistake::new(
            &Place::start_of(source),
            format!("file is larger than {} MiB", MAX_BYTES >> 20),
        ));
    }
    match DeTable::parse(text) {
        Ok(table) => Converter {
            source,
            keys: HashSet::new(),
        }
        .table(table.into_inner()),
        Err(error) => Err(syntax_mistake(source, &error)),
    }
}

fn syntax_mistake(source: &Arc<Source>, error: &toml::de::Error) -> Mistake {
    let span = error.span().unwrap_or(0..0);
    let place = Place::new(source, span.clone());
    if error.message().starts_with("duplicate key") {
        let name = place.text().trim().trim_matches(['"', '\'']);
        let mistake = Mistake::new(&place, format!("key '{name}' is set twice"));
        return match first_of_duplicate(source, span) {
            Some(first) => mistake.note("first set here", &first),
            None => mistake,
        };
    }
    explained(source, &place, &lower_first(error.message()))
}

/// What people get wrong most often, with what to write instead.
fn explained(source: &Arc<Source>, place: &Place, message: &str) -> Mistake {
    let text = source.text();
    let at = place.span().start;
    let line = line_at(text, at);
    let mistake = Mistake::new(place, message);
    if message.starts_with("invalid multi-line") {
        let quotes = if message.contains("literal") {
            "'''"
        } else {
            "\"\"\""
        };
        let Some(start) = text[..at].rfind(quotes) else {
            return mistake;
        };
        let opening = Place::new(source, start..start + quotes.len());
        return mistake
            .note("the string begins here", &opening)
            .hint(format!("end it with {quotes}"));
    }
    if message.starts_with("unexpected leading zero") {
        let (key, value) = line.split_once('=').unwrap_or(("", ""));
        let digits: String = value
            .trim()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        let message = "a number has no leading zero";
        return Mistake::new(place, message)
            .hint(format!("write a string: {} = \"{digits}\"", key.trim()));
    }
    if message.starts_with("invalid unquoted key")
        && let Some(header) = line.trim().strip_prefix('[')
        && let Some((kind, name)) = header
            .split_once(']')
            .map_or(header, |(header, _)| header)
            .split_once('.')
        && !name.contains(['"', '\''])
    {
        return Mistake::new(place, "a name with such characters is quoted")
            .hint(format!("write: [{kind}.\"{name}\"]"));
    }
    let (key, value) = line.split_once('=').unwrap_or(("", ""));
    let value = value.split('#').next().unwrap_or_default().trim();
    let is_word = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphabetic());
    if message.starts_with("string values must be quoted")
        || message.starts_with("invalid float") && is_word
    {
        let mistake = Mistake::new(place, "a string is written in quotes");
        return mistake.hint(match value.to_ascii_lowercase().as_str() {
            "yes" | "on" | "true" => format!("write: {} = true", key.trim()),
            "no" | "off" | "false" => format!("write: {} = false", key.trim()),
            "null" | "none" | "nil" => "leave the key out: then it is not managed".to_owned(),
            _ => format!("quote it: {} = \"{value}\"", key.trim()),
        });
    }
    mistake
}

/// The line of `text` that holds the byte `at`.
fn line_at(text: &str, at: usize) -> &str {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    text[start..].lines().next().unwrap_or_default()
}

/// Where the key at `span`, a duplicate, was set first: give the second a name of its own, parse again, and look at its neighbours.
fn first_of_duplicate(source: &Arc<Source>, span: std::ops::Range<usize>) -> Option<Place> {
    const MARK: &str = "limpet--duplicate--key";
    let text = source.text();
    let written = text.get(span.clone())?;
    let key_source = format!("{written} = 0");
    let key = DeTable::parse(&key_source).ok()?;
    let key = key.get_ref().keys().next()?.get_ref().clone();
    let marked = format!("{}{MARK}{}", text.get(..span.start)?, text.get(span.end..)?);
    let (table, _) = DeTable::parse_recoverable(&marked);
    let first = neighbour(table.get_ref(), MARK, &key)?;
    (first.start < span.start).then(|| Place::new(source, first))
}

/// The span of `key` in the table that also holds `mark`.
fn neighbour(table: &DeTable<'_>, mark: &str, key: &str) -> Option<std::ops::Range<usize>> {
    if table.contains_key(&Spanned::new(0..0, DeString::Borrowed(mark))) {
        return table
            .keys()
            .find(|candidate| candidate.get_ref() == key)
            .map(Spanned::span);
    }
    table
        .values()
        .find_map(|value| neighbour_in_value(value.get_ref(), mark, key))
}

fn neighbour_in_value(
    value: &DeValue<'_>,
    mark: &str,
    key: &str,
) -> Option<std::ops::Range<usize>> {
    match value {
        DeValue::Table(table) => neighbour(table, mark, key),
        DeValue::Array(values) => values
            .iter()
            .find_map(|value| neighbour_in_value(value.get_ref(), mark, key)),
        _ => None,
    }
}

/// Takes the parser's document apart, so that no part of it is kept beside ours.
struct Converter<'a> {
    source: &'a Arc<Source>,
    /// The short keys so far: `content` and `mode` are written thousands of times.
    keys: HashSet<Key>,
}

/// Longer keys are names of resources, of which no two are the same.
const SHARED_KEY_BYTES: usize = 16;

impl Converter<'_> {
    fn table(&mut self, table: DeTable<'_>) -> Result<Table, Mistake> {
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table {
            let entry = Entry {
                key: Place::new(self.source, key.span()),
                value: self.value(value)?,
            };
            entries.push((self.key(key.get_ref()), entry));
        }
        // The parser keeps the order of the keys or that of the file, depending on its features.
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(Table::of_sorted(entries))
    }

    fn key(&mut self, key: &str) -> Key {
        if let Some(known) = self.keys.get(key) {
            return Key::clone(known);
        }
        let key = Key::from(key);
        if key.len() <= SHARED_KEY_BYTES {
            self.keys.insert(Key::clone(&key));
        }
        key
    }

    fn value(&mut self, value: Spanned<DeValue<'_>>) -> Result<Value, Mistake> {
        let place = Place::new(self.source, value.span());
        let data = match value.into_inner() {
            DeValue::String(text) => Data::String(text.into_owned()),
            DeValue::Integer(integer) => {
                match i64::from_str_radix(integer.as_str(), integer.radix()) {
                    Ok(integer) => Data::Integer(integer),
                    Err(_) => return Err(Mistake::new(&place, "integer does not fit in 64 bits")),
                }
            }
            DeValue::Float(float) => match float.as_str().parse() {
                Ok(float) => Data::Float(float),
                Err(_) => return Err(Mistake::new(&place, "number cannot be represented")),
            },
            DeValue::Boolean(boolean) => Data::Boolean(boolean),
            DeValue::Datetime(datetime) => Data::Datetime(datetime.to_string()),
            DeValue::Array(values) => Data::Array(
                values
                    .into_iter()
                    .map(|value| self.value(value))
                    .collect::<Result<_, _>>()?,
            ),
            DeValue::Table(table) => Data::Table(self.table(table)?),
        };
        Ok(Value { place, data })
    }
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => "not TOML".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Class;

    fn drawn(text: &str) -> String {
        let failure = parse(&Source::new("a.toml", text))
            .unwrap_err()
            .into_failure(Class::Author);
        failure.rendered.unwrap()
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let table = parse(&Source::new(
            "a.toml",
            "# first\n[x.\"y z\"]\n k = [1, 'two']\n",
        ))
        .unwrap();
        let x = table.get("x").unwrap().as_table().unwrap();
        let y = x.entry("y z").unwrap();
        assert_eq!(format!("{:?}", y.key), "a.toml:2:4");
        let k = y.value.as_table().unwrap().entry("k").unwrap();
        assert_eq!(format!("{:?}", k.key), "a.toml:3:2");
        let elements = k.value.as_array().unwrap();
        assert_eq!(format!("{:?}", elements[1].place), "a.toml:3:10");
        assert_eq!(elements[1].as_str(), Some("two"));
    }

    #[test]
    fn a_key_set_twice_names_both_places() {
        insta::assert_snapshot!(drawn("[file.\"/a\"]\nmode = \"1\"\nowner = \"x\"\nmode = \"2\"\n"), @r#"
        error: a.toml:4:1: key 'mode' is set twice
          |
        4 | mode = "2"
          | ^^^^
          |
        note: a.toml:2:1: first set here
          |
        2 | mode = "1"
          | ^^^^
        "#);
        insta::assert_snapshot!(drawn("[file.\"/a\"]\nmode = \"1\"\n[file.\"/b\"]\n[file.\"/a\"]\n"), @r#"
        error: a.toml:4:7: key '/a' is set twice
          |
        4 | [file."/a"]
          |       ^^^^
          |
        note: a.toml:1:7: first set here
          |
        1 | [file."/a"]
          |       ^^^^
        "#);
    }

    #[test]
    fn a_syntax_error_quotes_its_line() {
        insta::assert_snapshot!(drawn("a = 1\nb = \"open\nc = 2\n"), @r#"
        error: a.toml:2:10: invalid basic string, expected `"`
          |
        2 | b = "open
          |          ^
        "#);
        insta::assert_snapshot!(drawn("a 1\n"), @r"
        error: a.toml:1:3: key with no value, expected `=`
          |
        1 | a 1
          |   ^
        ");
    }

    #[test]
    fn a_file_of_more_than_one_mebibyte_is_refused() {
        let text = format!("a = '{}'", "x".repeat(MAX_BYTES));
        assert!(drawn(&text).starts_with("error: a.toml:1:1: file is larger than 1 MiB"));
    }

    #[test]
    fn numbers_are_read_as_written() {
        let table = parse(&Source::new(
            "a",
            "a = 1_000\nb = 0o644\nc = 1_0.5\nd = 0xff\ne = -inf\nf = -7",
        ))
        .unwrap();
        assert_eq!(
            table
                .iter()
                .map(|(_, entry)| entry.value.to_string())
                .collect::<Vec<_>>(),
            ["1000", "420", "10.5", "255", "-inf", "-7"]
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            let _ = parse(&Source::new("a", text)).map_err(|mistake| mistake.into_failure(Class::Author));
        }

        #[test]
        fn parsing_what_looks_like_toml_never_panics(
            lines in proptest::collection::vec("(\\[?[a-c\"'.]{0,4}\\]?)( ?= ?)?([0-9é\"'\\[{}]{0,6})?", 0..8)
        ) {
            let _ = parse(&Source::new("a", lines.join("\n"))).map_err(|mistake| mistake.into_failure(Class::Author));
        }
    }
}
