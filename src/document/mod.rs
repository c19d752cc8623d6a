//! TOML with the place every value came from.
//!
//! A *source* is one text with a name; a *place* is a stretch of it. [`parse`] turns a source into a [`Table`] whose every key and
//! value knows its place. Tables are *united* (files of one layer: a key set twice is a mistake) or *overlaid* (layer upon layer: the
//! later one wins), and deserialized into declared types. A [`Mistake`] points at places and becomes a [`Failure`] that quotes them.
//!
//! Invariant: nothing here knows what a fleet or a host configuration means, and nothing here reads a file.
//!
//! [`Failure`]: crate::model::Failure

mod deserialize;
mod merge;
mod mistake;
mod parse;
mod place;
mod value;
mod written;

pub use deserialize::Expectation;
pub use mistake::{Mistake, nearest, single_line};
pub use parse::{MAX_BYTES, parse};
pub use place::{Place, Source};
pub use value::{Data, Entry, Key, Table, Value};
