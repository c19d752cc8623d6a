//! What limpet tells people and programs: status, journal, progress.
//!
//! Invariant: nothing here decides or changes anything; facts come in, words go out.

pub mod explanation;
pub mod history;
pub mod journal;
mod next_step;
pub mod preview;
pub mod status;
