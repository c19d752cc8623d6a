//! Secrets that systemd hands to the fetcher (systemd.exec(5), `LoadCredential=`).

use std::path::Path;

use super::{Lane, Trouble};
use crate::model::{Class, Failure};

/// The contents of the credential called `name` in `directory`, as text.
pub fn read(name: &str, directory: Option<&Path>) -> Result<String, Trouble> {
    let directory = directory.ok_or_else(|| unusable(name, "systemd passed no credentials"))?;
    if name.contains('/') || name.starts_with('.') {
        return Err(unusable(name, "not the name of a credential"));
    }
    std::fs::read_to_string(directory.join(name)).map_err(|error| unusable(name, error))
}

/// The trouble with a credential; `cause` never repeats its contents.
pub fn unusable(name: &str, cause: impl std::fmt::Display) -> Trouble {
    let message = format!("failed to read credential '{name}': {cause}");
    Trouble::from(Failure::new(Class::Host, message))
        .with_hint(format!(
            "add 'LoadCredential={name}:/path/to/file' to limpet-fetch.service with 'systemctl edit'"
        ))
        .in_lane(Lane::Denied)
}
