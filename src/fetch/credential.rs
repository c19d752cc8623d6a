//! Secrets that the fetcher is handed: by systemd in a directory (systemd.exec(5), `LoadCredential=`), or by its parent.
//!
//! Invariant: a secret is in no message and no log.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Lane, Trouble};
use crate::model::{Class, Failure};

/// Secrets by the names of their credentials.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// Adds the credential called `name`.
    pub fn insert(&mut self, name: &str, secret: String) {
        self.0.insert(name.to_owned(), secret);
    }

    /// Is there a credential called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Where credentials come from.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// From nowhere.
    None,
    /// systemd put them here.
    Directory(PathBuf),
    /// A parent told them.
    Given(Secrets),
}

impl From<Option<PathBuf>> for Credentials {
    fn from(directory: Option<PathBuf>) -> Self {
        directory.map_or(Credentials::None, Credentials::Directory)
    }
}

impl Credentials {
    /// The contents of the credential called `name`, as text.
    pub fn read(&self, name: &str) -> Result<String, Trouble> {
        let directory = match self {
            Credentials::None => return Err(unusable(name, "systemd passed no credentials")),
            Credentials::Directory(directory) => directory,
            Credentials::Given(secrets) => {
                let secret = secrets.0.get(name).cloned();
                return secret.ok_or_else(|| unusable(name, "it was not given"));
            }
        };
        if name.contains('/') || name.starts_with('.') {
            return Err(unusable(name, "not the name of a credential"));
        }
        std::fs::read_to_string(directory.join(name)).map_err(|error| unusable(name, error))
    }
}

/// The trouble with a credential; `cause` never repeats its contents.
pub fn unusable(name: &str, cause: impl fmt::Display) -> Trouble {
    let message = format!("failed to read credential '{name}': {cause}");
    Trouble::from(Failure::new(Class::Host, message))
        .with_hint(format!(
            "add 'LoadCredential={name}:/path/to/file' to limpet-fetch.service with 'systemctl edit'"
        ))
        .in_lane(Lane::Denied)
}
