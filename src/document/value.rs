//! Values that know their place.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq};

use super::Place;

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Where it was written.
    pub place: Place,
    /// What was written.
    pub data: Data,
}

/// What TOML can say.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // the names are the meaning
pub enum Data {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// A date or time, as written.
    Datetime(String),
    Array(Vec<Value>),
    Table(Table),
}

impl Data {
    /// What it is, as people call it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Data::String(_) => "a string",
            Data::Integer(_) => "an integer",
            Data::Float(_) => "a number",
            Data::Boolean(_) => "a boolean",
            Data::Datetime(_) => "a date or time",
            Data::Array(_) => "an array",
            Data::Table(_) => "a table",
        }
    }
}

impl Value {
    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match &self.data {
            Data::String(text) => Some(text),
            _ => None,
        }
    }

    /// The table, if it is one.
    pub fn as_table(&self) -> Option<&Table> {
        match &self.data {
            Data::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The array, if it is one.
    pub fn as_array(&self) -> Option<&[Value]> {
        match &self.data {
            Data::Array(values) => Some(values),
            _ => None,
        }
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match &self.data {
            Data::Boolean(value) => Some(*value),
            _ => None,
        }
    }
}

/// Shows it as TOML would, on one line.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.data {
            // The quotes and escapes of JSON are those of a basic TOML string.
            Data::String(text) => f.write_str(&serde_json::Value::from(text.as_str()).to_string()),
            Data::Integer(value) => write!(f, "{value}"),
            Data::Float(value) => write!(f, "{value:?}"),
            Data::Boolean(value) => write!(f, "{value}"),
            Data::Datetime(text) => f.write_str(text),
            Data::Array(values) => {
                f.write_str("[")?;
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{value}")?;
                }
                f.write_str("]")
            }
            Data::Table(table) => {
                f.write_str("{")?;
                for (index, (key, entry)) in table.iter().enumerate() {
                    f.write_str(if index > 0 { ", " } else { " " })?;
                    write!(f, "{key} = {}", entry.value)?;
                }
                f.write_str(" }")
            }
        }
    }
}

/// Plain data, without places: for templates and JSON.
impl Serialize for Value {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.data {
            Data::String(text) | Data::Datetime(text) => serializer.serialize_str(text),
            Data::Integer(value) => serializer.serialize_i64(*value),
            Data::Float(value) => serializer.serialize_f64(*value),
            Data::Boolean(value) => serializer.serialize_bool(*value),
            Data::Array(values) => {
                let mut sequence = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    sequence.serialize_element(value)?;
                }
                sequence.end()
            }
            Data::Table(table) => table.serialize(serializer),
        }
    }
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where the key was written (last, if several layers wrote it).
    pub key: Place,
    /// The value.
    pub value: Value,
}

/// Keys and values, by key.
///
/// A sorted vector: most tables have two or three keys, of which a repository has tens of thousands, and a node of a tree is made for
/// eleven.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    entries: Vec<(Key, Entry)>,
}

/// A key; those of one source that are the same share their text.
pub type Key = Arc<str>;

impl Table {
    /// A table without keys.
    pub fn new() -> Self {
        Table::default()
    }

    /// A table of `entries`, which are sorted by their keys, each of which is there once.
    pub(super) fn of_sorted(entries: Vec<(Key, Entry)>) -> Self {
        debug_assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
        Table { entries }
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        self.entries
            .binary_search_by(|(known, _)| (**known).cmp(key))
    }

    /// What `key` is set to.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// `key` with its place and value.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        let position = self.position(key).ok()?;
        Some(&self.entries[position].1)
    }

    /// The same, to change.
    pub fn entry_mut(&mut self, key: &str) -> Option<&mut Entry> {
        let position = self.position(key).ok()?;
        Some(&mut self.entries[position].1)
    }

    /// Sets `key`.
    pub fn insert(&mut self, key: impl Into<Key>, entry: Entry) {
        let key = key.into();
        if self.entries.last().is_none_or(|(last, _)| *last < key) {
            self.entries.push((key, entry));
            return;
        }
        match self.position(&key) {
            Ok(position) => self.entries[position].1 = entry,
            Err(position) => self.entries.insert(position, (key, entry)),
        }
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        let position = self.position(key).ok()?;
        Some(self.entries.remove(position).1)
    }

    /// The place of the value of `key`, or `otherwise` when it is not set.
    pub fn place_of(&self, key: &str, otherwise: &Place) -> Place {
        self.get(key)
            .map_or_else(|| otherwise.clone(), |value| value.place.clone())
    }

    /// All keys, in the order of their bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(key, entry)| (&**key, entry))
    }

    /// The same, with keys that can be shared.
    pub(super) fn shared(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter().map(|(key, entry)| (key, entry))
    }

    /// The same, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Entry)> {
        self.entries.iter_mut().map(|(key, entry)| (&**key, entry))
    }

    /// Takes it apart, in the same order.
    pub fn into_entries(self) -> impl Iterator<Item = (Key, Entry)> {
        self.entries.into_iter()
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(key, _)| &**key)
    }

    /// Are there no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Serialize for Table {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (key, entry) in self.iter() {
            map.serialize_entry(key, &entry.value)?;
        }
        map.end()
    }
}
