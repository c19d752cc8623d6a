//! Which paths a fleet may declare.
//!
//! Invariant: what [`check_allowed`] lets pass is none of limpet's own files, no pseudo file system and no account database, however
//! it is spelt, unless the host's configuration says so.

use super::Limits;
use crate::document::{Mistake, Place};
use crate::model::Kind;

/// Directories and files that no fleet may manage, nor what lies below them.
const FORBIDDEN: [(&str, &str); 21] = [
    ("/proc", "a view of the kernel"),
    ("/sys", "a view of the kernel"),
    ("/dev", "devices"),
    ("/run/credentials", "credentials of services"),
    ("/etc/limpet", "limpet's own"),
    ("/var/lib/limpet", "limpet's own"),
    ("/var/cache/limpet", "limpet's own"),
    ("/run/limpet", "limpet's own"),
    ("/usr/bin/limpet", "limpet's own"),
    ("/usr/sbin/limpet", "limpet's own"),
    ("/usr/lib/limpet", "limpet's own"),
    ("/etc/shadow", "the account database"),
    ("/etc/shadow-", "the account database"),
    ("/etc/gshadow", "the account database"),
    ("/etc/gshadow-", "the account database"),
    ("/etc/passwd", "the account database"),
    ("/etc/passwd-", "the account database"),
    ("/etc/group", "the account database"),
    ("/etc/group-", "the account database"),
    ("/etc/subuid", "the account database"),
    ("/etc/subgid", "the account database"),
];

/// Where systemd looks for unit files.
const UNIT_DIRECTORIES: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/usr/local/lib/systemd/system",
];

/// Links at the root of every current distribution: the same directory by another name.
const ALIASES: [(&str, &str); 6] = [
    ("/bin", "/usr/bin"),
    ("/sbin", "/usr/sbin"),
    ("/lib", "/usr/lib"),
    ("/lib64", "/usr/lib64"),
    ("/var/run", "/run"),
    ("/var/lock", "/run/lock"),
];

/// The longest path Linux takes, in bytes, with its final NUL.
const PATH_MAX: usize = 4096;

/// What is wrong with the spelling of the path of a `kind`, if anything is.
pub(super) fn check_form(kind: Kind, path: &str, place: &Place) -> Option<Mistake> {
    let mistake = |message: String| Some(Mistake::new(place, message));
    if path.chars().any(char::is_control) {
        return mistake(format!(
            "path of {kind}:{path} contains a control character"
        ));
    }
    if !path.starts_with('/') {
        return mistake(format!("path of {kind}:{path} is not absolute")).map(|mistake| {
            if path.starts_with(['~', '$']) {
                return mistake
                    .hint("nothing is expanded in a path: write the whole of it, from '/'");
            }
            mistake.hint(format!("write: [{kind}.\"{}\"]", normalise(path)))
        });
    }
    let normalised = normalise(path);
    if normalised == "/" {
        return mistake(format!(
            "{kind}:{path} is the root directory, which no fleet may manage"
        ));
    }
    if normalised != path {
        return mistake(format!("path of {kind}:{path} is not normalised"))
            .map(|mistake| mistake.hint(format!("write: [{kind}.\"{normalised}\"]")));
    }
    if path.len() >= PATH_MAX || path.split('/').any(|name| name.len() > 255) {
        return mistake(format!("path of {kind}:{path} is too long"));
    }
    None
}

/// `path` without empty, `.` and `..` components.
fn normalise(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// What is wrong with declaring `path` on a host with these limits, if anything is. `what` is the resource that does.
pub(super) fn check_allowed(
    what: &str,
    path: &str,
    limits: &Limits,
    place: &Place,
) -> Option<Mistake> {
    let reason = why_forbidden(path, limits)?;
    let message = format!("{what} would manage '{path}', which no fleet may: {reason}");
    let hint = format!(
        "a host's operator can allow it: apply.allow_paths = [\"{path}\"] in /etc/limpet/limpet.toml"
    );
    Some(Mistake::new(place, message).hint(hint))
}

/// Why no fleet may manage `path` on a host with these limits; `None` when one may.
pub fn why_forbidden(path: &str, limits: &Limits) -> Option<&'static str> {
    let is_allowed = limits
        .allow_paths
        .iter()
        .any(|allowed| is_at_or_below(path, allowed.trim_end_matches('/')));
    if is_allowed {
        None
    } else {
        forbidden_because(path)
    }
}

fn forbidden_because(path: &str) -> Option<&'static str> {
    let path = real_name(path);
    if let Some((_, reason)) = FORBIDDEN
        .iter()
        .find(|(forbidden, _)| is_at_or_below(&path, forbidden))
    {
        return Some(reason);
    }
    UNIT_DIRECTORIES
        .iter()
        .filter_map(|directory| path.strip_prefix(directory)?.strip_prefix('/'))
        .any(|rest| is_own_unit(rest.split('/').next().unwrap_or(rest)))
        .then_some("limpet's own")
}

/// Is `name` a unit of limpet, or the directory of its drop-ins.
pub(super) fn is_own_unit(name: &str) -> bool {
    let name = name.strip_suffix(".d").unwrap_or(name);
    matches!(
        name,
        "limpet.service"
            | "limpet-fetch.service"
            | "limpet-fetch.socket"
            | "limpet-probation.service"
            | "limpet-probation.timer"
    )
}

/// `path` with the names that its first directories really have.
pub fn real_name(path: &str) -> String {
    for (alias, real) in ALIASES {
        if is_at_or_below(path, alias) {
            return format!("{real}{}", &path[alias.len()..]);
        }
    }
    path.to_owned()
}

/// Is `path` the same as `directory` or below it.
pub(super) fn is_at_or_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::document::Source;

    #[track_caller]
    fn check(path: &str, allow_paths: &[&str], expected: bool) {
        let place = Place::start_of(&Source::new("f", ""));
        let limits = Limits {
            allow_paths: allow_paths.iter().map(|path| (*path).to_owned()).collect(),
            ..Limits::default()
        };
        let allowed = check_allowed("file:x", path, &limits, &place).is_none();
        assert_eq!(allowed, expected, "{path}");
    }

    #[test]
    fn what_decides_over_the_host_is_no_fleets_to_manage() {
        check("/etc/motd", &[], true);
        check("/etc/shadow", &[], false);
        check("/etc/shadow.d", &[], true);
        check("/proc/sys/net", &[], false);
        check("/etc/limpet/limpet.toml.d/x.toml", &[], false);
        check("/bin/limpet", &[], false);
        check("/lib/systemd/system/limpet.service", &[], false);
        check("/etc/systemd/system/limpet.service.d/x.conf", &[], false);
        check("/etc/systemd/system/limpet-fetch.socket", &[], false);
        check("/etc/systemd/system/app.service", &[], true);
        check("/var/run/credentials/x", &[], false);
        check("/dev", &[], false);
        check("/device", &[], true);
    }

    #[test]
    fn the_host_may_allow_a_path_and_what_is_below() {
        check(
            "/etc/limpet/limpet.toml.d/x.toml",
            &["/etc/limpet/limpet.toml.d"],
            true,
        );
        check(
            "/etc/limpet/limpet.toml",
            &["/etc/limpet/limpet.toml.d"],
            false,
        );
        check("/etc/passwd", &["/etc/passwd"], true);
        check("/etc/passwd", &["/etc/pass"], false);
    }

    #[track_caller]
    fn check_spelling(path: &str, expected: bool) {
        let place = Place::start_of(&Source::new("f", ""));
        assert_eq!(
            check_form(Kind::File, path, &place).is_none(),
            expected,
            "{path:?}"
        );
    }

    #[test]
    fn a_path_is_absolute_and_normalised() {
        check_spelling("/etc/motd", true);
        check_spelling("/a b/ä", true);
        check_spelling("etc/motd", false);
        check_spelling("/", false);
        check_spelling("/etc/", false);
        check_spelling("/etc//motd", false);
        check_spelling("/etc/../shadow", false);
        check_spelling("/etc/./motd", false);
        check_spelling("/etc/mo\ntd", false);
        check_spelling(&format!("/{}", "x".repeat(256)), false);
    }

    proptest! {
        #[test]
        fn no_spelling_reaches_a_forbidden_path(
            parts in proptest::collection::vec(prop_oneof!["etc", "shadow", "\\.", "\\.\\.", "", "proc", "[a-z]"], 1..7)
        ) {
            let path = format!("/{}", parts.join("/"));
            let place = Place::start_of(&Source::new("f", ""));
            if check_form(Kind::File, &path, &place).is_none() && forbidden_because(&path).is_none() {
                prop_assert!(!normalise(&path).starts_with("/proc/"));
                prop_assert_ne!(normalise(&path), "/etc/shadow");
            }
        }
    }
}
