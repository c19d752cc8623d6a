//! From tables to declared types.
//!
//! Declared types derive `Deserialize` with `deny_unknown_fields`. An error takes the place of the key or value at which it arose.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};

use super::{Data, Entry, Mistake, Place, Table, Value, nearest};

/// What a table is expected to be, for better words when it is not.
#[derive(Debug, Clone, Copy)]
pub struct Expectation<'a> {
    /// What it declares, as people call it: `file:/etc/motd`, `[source]`.
    pub what: &'a str,
    /// Keys that are known but not supported by this version.
    pub later: &'a [&'a str],
    /// What to write instead of a value of a wrong type: by key, and what was found.
    pub hint: fn(&str, &Value) -> Option<String>,
}

impl<'a> Expectation<'a> {
    /// An expectation of `what`, without further words.
    pub fn new(what: &'a str) -> Self {
        Expectation {
            what,
            later: &[],
            hint: |_, _| None,
        }
    }
}

impl Table {
    /// Reads the table as a `T`. All keys are tried, so that several mistakes are found at once; `T` should do without any key it
    /// can, and say later what is missing. `place` stands for the whole table.
    pub fn deserialize_into<'de, T: de::Deserialize<'de>>(
        &'de self,
        place: &'de Place,
        expectation: Expectation<'_>,
    ) -> Result<T, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut without: Vec<String> = Vec::new();
        loop {
            let access = TableDeserializer {
                table: self,
                without: &without,
            };
            let mistake = match T::deserialize(access) {
                Ok(value) if mistakes.is_empty() => return Ok(value),
                Ok(_) => return Err(in_order(mistakes)),
                Err(mistake) => mistake,
            };
            let key = mistake.key.clone();
            // Without the keys that are wrong, something may be missing; that is no news.
            if key.is_some() || mistakes.is_empty() {
                mistakes.push(explain(self, mistake, place, expectation));
            }
            match key {
                Some(key) => without.push(key),
                None => return Err(in_order(mistakes)),
            }
        }
    }
}

/// As a reader meets them.
fn in_order(mut mistakes: Vec<Mistake>) -> Vec<Mistake> {
    mistakes.sort_by_key(|mistake| {
        mistake
            .place
            .as_ref()
            .map(|place| (place.file().to_owned(), place.span().start))
    });
    mistakes
}

fn explain(
    table: &Table,
    mut mistake: Mistake,
    place: &Place,
    expectation: Expectation<'_>,
) -> Mistake {
    let what = expectation.what;
    if mistake.place.is_none() {
        mistake.place = Some(place.clone());
    }
    if let Some(field) = mistake.message.strip_prefix(UNKNOWN_FIELD) {
        let (field, rest) = field.split_once('\n').unwrap_or((field, ""));
        mistake.message = if expectation.later.contains(&field) {
            mistake.label = None;
            mistake.hint = None;
            format!(
                "`{field}` in {what} is not supported by limpet {}",
                env!("CARGO_PKG_VERSION")
            )
        } else {
            format!("unknown field `{field}` in {what}{rest}")
        };
        return mistake;
    }
    mistake.message = match &mistake.key {
        Some(key) => format!("{} for `{key}` in {what}", mistake.message),
        None => format!("{} in {what}", mistake.message),
    };
    if mistake.hint.is_none()
        && let Some(key) = &mistake.key
        && let Some(value) = table.get(key)
    {
        mistake.hint = (expectation.hint)(key, value)
            .or_else(|| hint_for_type(&mistake.message, key, value, mistake.place.as_ref()));
    }
    mistake
}

/// What to write instead of a value of the wrong type, for any key.
fn hint_for_type(message: &str, key: &str, value: &Value, place: Option<&Place>) -> Option<String> {
    let place = place?;
    let written = place.text();
    if written.contains('\n') {
        return None;
    }
    // An element of an array is written by itself.
    let assign = if *place == value.place {
        format!("{key} = ")
    } else {
        String::new()
    };
    let expected = message.strip_prefix("expected ")?;
    let (expected, found) = expected.split_once(", found ")?;
    match expected {
        "an array" if found.starts_with("string") => {
            Some(format!("write an array: {assign}[{written}]"))
        }
        "a string" if found.starts_with("an array") => {
            Some(format!("write one string: {assign}\"…\""))
        }
        "a string" if !found.starts_with("a table") => {
            Some(format!("quote it: {assign}\"{written}\""))
        }
        "a boolean" => {
            let word = written.trim_matches(['"', '\'']).to_ascii_lowercase();
            let meant = match word.as_str() {
                "true" | "yes" | "on" | "1" => "true",
                "false" | "no" | "off" | "0" => "false",
                _ => return Some(format!("write {assign}true, or false")),
            };
            Some(format!("write: {assign}{meant}"))
        }
        _ => None,
    }
}

/// Marks a mistake about an unknown field while it travels from the innermost to the outermost table.
const UNKNOWN_FIELD: &str = "\u{0}unknown field ";

impl de::Error for Mistake {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Mistake::somewhere(message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Mistake::somewhere(format!(
            "expected {}, found {}",
            in_toml(&expected.to_string()),
            name_of(unexpected)
        ))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Mistake::somewhere(format!(
            "expected {}, found {}",
            in_toml(&expected.to_string()),
            name_of(unexpected)
        ))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let mistake = Mistake::somewhere(format!(
            "unknown value `{variant}`, expected {}",
            one_of(expected)
        ));
        mistake.suggest(variant, expected.iter().copied())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        match nearest(field, expected.iter().copied()) {
            Some(near) => {
                Mistake::somewhere(format!("{UNKNOWN_FIELD}{field}\n, expected `{near}`"))
                    .label("no such field")
                    .hint(format!("did you mean '{near}'?"))
            }
            None => Mistake::somewhere(format!("{UNKNOWN_FIELD}{field}"))
                .label("no such field")
                .hint(format!("known here: {}", expected.join(", "))),
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Mistake::somewhere(format!("missing field `{field}`"))
    }
}

fn name_of(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Str(text) => format!("string {text:?}"),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string().replace('`', ""),
    }
}

/// What serde expects, in the words of TOML.
fn in_toml(expected: &str) -> &str {
    match expected {
        "a sequence" => "an array",
        "a map" => "a table",
        "u32" | "u64" | "usize" => "a whole number, not negative",
        other => other,
    }
}

fn one_of(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [name] => format!("`{name}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|name| format!("`{name}`")).collect();
            format!("{} or `{last}`", first.join(", "))
        }
    }
}

struct TableDeserializer<'de, 'a> {
    table: &'de Table,
    without: &'a [String],
}

impl<'de> Deserializer<'de> for TableDeserializer<'de, '_> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_map(Entries {
            entries: Box::new(
                self.table
                    .iter()
                    .filter(|(key, _)| !self.without.iter().any(|without| without == key)),
            ),
            current: None,
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_some(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Entries<'de, 'a> {
    entries: Box<dyn Iterator<Item = (&'de str, &'de Entry)> + 'a>,
    current: Option<(&'de str, &'de Entry)>,
}

impl<'de> MapAccess<'de> for Entries<'de, '_> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Mistake> {
        self.current = self.entries.next();
        let Some((key, entry)) = self.current else {
            return Ok(None);
        };
        seed.deserialize(StrDeserializer::<Mistake>::new(key))
            .map(Some)
            .map_err(|mistake| located(mistake, key, &entry.key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        let (key, entry) = self
            .current
            .ok_or_else(|| Mistake::custom("a value without a key"))?;
        seed.deserialize(ValueDeserializer(&entry.value))
            .map_err(|mistake| located(mistake, key, &entry.value.place))
    }
}

fn located(mut mistake: Mistake, key: &str, place: &Place) -> Mistake {
    mistake.place.get_or_insert_with(|| place.clone());
    mistake.key = Some(key.to_owned());
    mistake
}

struct ValueDeserializer<'de>(&'de Value);

impl<'de> Deserializer<'de> for ValueDeserializer<'de> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        let place = &self.0.place;
        let result = match &self.0.data {
            Data::String(text) => visitor.visit_borrowed_str(text),
            Data::Integer(value) => visitor.visit_i64(*value),
            Data::Float(value) => visitor.visit_f64(*value),
            Data::Boolean(value) => visitor.visit_bool(*value),
            Data::Datetime(_) => Err(Mistake::invalid_type(
                Unexpected::Other("a date or time"),
                &visitor,
            )),
            Data::Array(values) => visitor.visit_seq(Elements(values.iter())),
            Data::Table(table) => TableDeserializer {
                table,
                without: &[],
            }
            .deserialize_any(visitor),
        };
        result.map_err(|mut mistake| {
            mistake.place.get_or_insert_with(|| place.clone());
            mistake
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let place = &self.0.place;
        let result = match &self.0.data {
            Data::String(text) => visitor.visit_enum(Word(text)),
            other => Err(Mistake::somewhere(format!(
                "expected a string, found {}",
                other.type_name()
            ))),
        };
        result.map_err(|mut mistake| {
            mistake.place.get_or_insert_with(|| place.clone());
            mistake
        })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        struct identifier ignored_any
    }
}

struct Elements<'de>(std::slice::Iter<'de, Value>);

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Mistake> {
        match self.0.next() {
            Some(value) => seed.deserialize(ValueDeserializer(value)).map(Some),
            None => Ok(None),
        }
    }
}

/// One of several words: an enum without data.
struct Word<'de>(&'de str);

impl<'de> EnumAccess<'de> for Word<'de> {
    type Error = Mistake;
    type Variant = NoData;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, NoData), Mistake> {
        let variant = seed.deserialize(StrDeserializer::<Mistake>::new(self.0))?;
        Ok((variant, NoData))
    }
}

struct NoData;

impl<'de> VariantAccess<'de> for NoData {
    type Error = Mistake;

    fn unit_variant(self) -> Result<(), Mistake> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, Mistake> {
        Err(Mistake::custom("expected a table, found a string"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Mistake> {
        Err(Mistake::custom("expected an array, found a string"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Mistake> {
        Err(Mistake::custom("expected a table, found a string"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::super::{Source, parse};
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "lowercase")]
    enum Colour {
        Red,
        Green,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // read by Debug
    struct Thing {
        name: Option<String>,
        size: Option<u32>,
        colour: Option<Colour>,
        tags: Option<Vec<String>>,
        inner: Option<BTreeMap<String, Thing>>,
    }

    fn read(text: &str) -> Result<Thing, String> {
        let source = Source::new("a.toml", text);
        let table = parse(&source).unwrap();
        let place = Place::start_of(&source);
        let expectation = Expectation {
            what: "thing:x",
            later: &["weight"],
            hint: |key, _| (key == "name").then(|| "names are quoted".to_owned()),
        };
        table
            .deserialize_into(&place, expectation)
            .map_err(|mistakes| {
                let drawn: Vec<String> = mistakes
                    .iter()
                    .map(|mistake| mistake.draw(false).unwrap())
                    .collect();
                drawn.join("\n")
            })
    }

    #[test]
    fn what_fits_is_read() {
        let thing =
            read("name = 'a'\nsize = 3\ncolour = 'green'\ntags = ['x']\n[inner.y]\nname = 'b'")
                .unwrap();
        insta::assert_snapshot!(format!("{thing:?}"), @r#"Thing { name: Some("a"), size: Some(3), colour: Some(Green), tags: Some(["x"]), inner: Some({"y": Thing { name: Some("b"), size: None, colour: None, tags: None, inner: None }}) }"#);
    }

    #[test]
    fn every_mistake_is_found_at_once_with_its_place() {
        insta::assert_snapshot!(read("nmae = 'a'\nsize = 'big'\ncolour = 'gren'\nweight = 3\nname = 7\ntags = ['a', 3]\n").unwrap_err(), @r#"
        error: a.toml:1:1: unknown field `nmae` in thing:x, expected `name`
          |
        1 | nmae = 'a'
          | ^^^^ no such field
          |
        hint: did you mean 'name'?
        error: a.toml:2:8: expected a whole number, not negative, found string "big" for `size` in thing:x
          |
        2 | size = 'big'
          |        ^^^^^
        error: a.toml:3:10: unknown value `gren`, expected `red` or `green` for `colour` in thing:x
          |
        3 | colour = 'gren'
          |          ^^^^^^
          |
        hint: did you mean 'green'?
        error: a.toml:4:1: `weight` in thing:x is not supported by limpet 0.1.0
          |
        4 | weight = 3
          | ^^^^^^
        error: a.toml:5:8: expected a string, found integer 7 for `name` in thing:x
          |
        5 | name = 7
          |        ^
          |
        hint: names are quoted
        error: a.toml:6:14: expected a string, found integer 3 for `tags` in thing:x
          |
        6 | tags = ['a', 3]
          |              ^
          |
        hint: quote it: "3"
        "#);
    }

    #[test]
    fn a_mistake_deep_inside_is_shown_where_it_is() {
        insta::assert_snapshot!(read("[inner.y]\nsise = 3\n[inner.z]\nsize = -1").unwrap_err(), @r"
        error: a.toml:2:1: unknown field `sise` in thing:x, expected `size`
          |
        2 | sise = 3
          | ^^^^ no such field
          |
        hint: did you mean 'size'?
        ");
    }
}
