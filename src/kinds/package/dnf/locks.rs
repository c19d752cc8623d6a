//! Which packages are locked to a version, by the plug-in `versionlock` of dnf 4 or by dnf 5 itself.
//!
//! Invariant: pure, and any text yields something; what cannot be read locks nothing.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::kinds::package::dnf::Program;
use crate::model::Failure;
use crate::sys::Host;

/// Where the plug-in of dnf 4 keeps them.
const DNF4: &str = "/etc/dnf/plugins/versionlock.list";
/// There where that plug-in is installed.
const DNF4_PLUGIN: &str = "/etc/dnf/plugins/versionlock.conf";
/// Where dnf 5 keeps them.
const DNF5: &str = "/etc/dnf/versionlock.toml";
/// A hundred times the usual size.
const LIMIT_BYTES: u64 = 1 << 20;

/// The names of the packages that are locked.
pub fn read(host: &Host, program: Program) -> Result<BTreeSet<String>, Failure> {
    let path = match program {
        Program::Dnf4 => DNF4,
        Program::Dnf5 => DNF5,
    };
    let text = host.read_file(path, LIMIT_BYTES)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    Ok(match program {
        Program::Dnf4 => parse_list(&text),
        Program::Dnf5 => parse_toml(&text),
    })
}

/// Can packages be locked here.
pub fn are_possible(host: &Host, program: Program) -> Result<bool, Failure> {
    match program {
        Program::Dnf4 => host.exists(DNF4_PLUGIN),
        Program::Dnf5 => Ok(true),
    }
}

/// The names in lines as `name-0:1.0-1.*`; with an exclamation mark in front it is a version that must not come.
pub(in crate::kinds::package) fn parse_list(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(str::trim);
    let locks = lines.filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
    locks
        .filter_map(|line| {
            let (rest, _release) = line.rsplit_once('-')?;
            let (name, _version) = rest.rsplit_once('-')?;
            Some(name.to_owned())
        })
        .collect()
}

pub(in crate::kinds::package) fn parse_toml(text: &str) -> BTreeSet<String> {
    #[derive(Deserialize)]
    struct Locks {
        #[serde(default)]
        packages: Vec<Lock>,
    }
    #[derive(Deserialize)]
    struct Lock {
        name: String,
        #[serde(default)]
        conditions: Vec<Condition>,
    }
    #[derive(Deserialize)]
    struct Condition {
        key: String,
        comparator: String,
    }
    let locks: Locks = toml::from_str(text).unwrap_or(Locks {
        packages: Vec::new(),
    });
    let is_lock = |lock: &Lock| {
        let mut conditions = lock.conditions.iter();
        conditions.any(|condition| condition.key.starts_with("ev") && condition.comparator == "=")
    };
    let locked = locks.packages.into_iter().filter(is_lock);
    locked.map(|lock| lock.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_locked_is_found_in_either_form() {
        // As the plug-in 4.3.1 and dnf 5.4.6 wrote them.
        let list =
            "\n# Added lock on Fri Nov 27 02:08:54 2026\nlim-app-0:1.1-1.*\n!lim-lib-0:2.0-1.*\n";
        assert_eq!(parse_list(list), BTreeSet::from(["lim-app".to_owned()]));
        let toml = "version = \"1.0\"\n\n[[packages]]\nname = \"lim-app\"\ncomment = \"Added by 'versionlock add' command on 2026-11-27 02:08:54\"\n\n\
                    [[packages.conditions]]\nkey = \"evr\"\ncomparator = \"=\"\nvalue = \"1.1-1\"\n\n\
                    [[packages]]\nname = \"lim-lib\"\n[[packages.conditions]]\nkey = \"evr\"\ncomparator = \"!=\"\nvalue = \"2.0-1\"\n";
        assert_eq!(parse_toml(toml), BTreeSet::from(["lim-app".to_owned()]));
        assert!(parse_list("").is_empty() && parse_toml("").is_empty());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(\\[\\[packages\\]\\]|name = \"a\"|!?[a-c:-]{0,6}|\n){0,12}") {
            parse_list(&text);
            parse_toml(&text);
        }
    }
}
