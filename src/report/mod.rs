//! What limpet tells people and programs: status, journal, progress.
//!
//! Invariant: nothing here decides or changes anything; facts come in, words go out.

pub mod explanation;
pub mod history;
pub mod journal;
mod next_step;
pub mod preview;
pub mod status;

/// Among the changed properties of a resource, the path that was changed where it is not the resource's own, and the rest.
pub fn path_among(fields: &[String]) -> (Option<&str>, &[String]) {
    match fields {
        [path, fields @ ..] if path.starts_with('/') => (Some(path), fields),
        fields => (None, fields),
    }
}

/// A point in time as people read it, to the second, in UTC.
pub fn moment(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
