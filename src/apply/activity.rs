//! What a cycle is doing, for whoever waits for it.

/// What is being done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activity {
    /// The source is asked for its tip.
    Polling,
    /// The machine is compared with the declaration.
    Looking,
    /// The machine is being changed.
    Applying(String),
    /// These checks have yet to hold.
    Checking(String),
}

impl std::fmt::Display for Activity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Activity::Polling => f.write_str("polling the source"),
            Activity::Looking => f.write_str("looking at the machine"),
            Activity::Applying(what) => f.write_str(what),
            Activity::Checking(what) => write!(f, "waiting for {what}"),
        }
    }
}
