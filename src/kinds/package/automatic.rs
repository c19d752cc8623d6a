//! Which packages came along with others: apt removes those when nobody needs them any more.
//!
//! Whoever names a package to apt takes the mark away, so that it is part of what was there before.

use std::collections::BTreeSet;

use crate::model::Failure;
use crate::sys::Host;

/// Where apt keeps its marks.
const MARKS: &str = "/var/lib/apt/extended_states";
/// A hundred times the usual size.
const LIMIT_BYTES: u64 = 16 << 20;

/// The names of the packages that are marked, without architecture.
pub(super) fn read(host: &Host) -> Result<BTreeSet<String>, Failure> {
    let text = host.read_file(MARKS, LIMIT_BYTES)?.unwrap_or_default();
    Ok(parse(&String::from_utf8_lossy(&text)))
}

fn parse(text: &str) -> BTreeSet<String> {
    let stanza = |stanza: &str| {
        let field = |name: &str| {
            let mut lines = stanza.lines();
            lines.find_map(|line| line.strip_prefix(name).map(str::trim))
        };
        let name = field("Package:")?;
        (field("Auto-Installed:") == Some("1")).then(|| name.to_owned())
    };
    text.split("\n\n").filter_map(stanza).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_packages_are_found() {
        let text = "Package: lim-lib\nArchitecture: amd64\nAuto-Installed: 1\n\n\
                    Package: lim-app\nArchitecture: amd64\nAuto-Installed: 0\n\n\
                    Auto-Installed: 1\n";
        assert_eq!(parse(text), BTreeSet::from(["lim-lib".to_owned()]));
        assert!(parse("").is_empty());
    }
}
