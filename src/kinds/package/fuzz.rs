//! Entry points for fuzzing what package managers say and keep, and versions.

use super::dnf::{self, Program, locks};
use super::family::Family;
use super::status::{Database, parse_status};
use super::{apt, dependants, rpm, version};

const NAME: &str = "curl";

/// dpkg's database, and what apt prints.
pub fn dpkg(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(entries) = parse_status(&text) {
        let count = entries.len();
        let database = Database::new(entries, false);
        database.get(NAME);
        assert!(database.interrupted().len() <= count);
        assert!(database.held().count() <= count);
    }
    let installed = dependants::parse(&text);
    let gone = dependants::dependants(&installed, NAME);
    assert!(gone.len() <= installed.len() && !gone.iter().any(|name| name == NAME));
    apt::parse_simulation(&text);
    apt::parse_versions(&text);
    apt::parse_not_found(&text);
    apt::parse_complaint(&text, NAME);
    apt::parse_kept_files(&text);
    apt::classify_failure(&text);
    apt::lock_holder(&text);
    apt::has_stale_lists(&text);
}

/// What rpm and dnf print, and dnf's locks.
pub fn rpm(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let entries = rpm::parse(&text).unwrap_or_default();
    let database = Database::of_rpm(entries, Family::Dnf(Program::Dnf5));
    let versions: Vec<&str> = database.versions(NAME).collect();
    for pair in versions.windows(2) {
        let order = rpm::version::compare_versions(pair[0], pair[1]);
        assert!(order.is_ge(), "the highest comes first");
    }
    let installed = dependants::parse_relations(&text);
    assert!(dependants::dependants(&installed, NAME).len() <= installed.len());
    dnf::parse_simulation(&text, &database);
    dnf::parse_versions(&text);
    dnf::parse_not_found(&text, &[apt::Request::Install(NAME.to_owned())]);
    dnf::parse_complaint(&text, NAME);
    dnf::classify_failure(&text);
    dnf::lock_holder(&text);
    dnf::has_stale_lists(&text);
    locks::parse_list(&text);
    locks::parse_toml(&text);
}

/// Three versions, a line each: their order is one, by Debian's rules and, what a release is left out of aside, by rpm's.
pub fn versions(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default();
    let (a, b, c) = (next(), next(), next());
    for compare in [version::compare_versions, rpm::version::compare_versions] {
        assert!(compare(a, a).is_eq());
        assert_eq!(compare(a, b), compare(b, a).reverse(), "{a} {b}");
    }
    let is_one = |compare: fn(&str, &str) -> std::cmp::Ordering| {
        let is_rising = compare(a, b).is_le() && compare(b, c).is_le();
        !is_rising || compare(a, c).is_le()
    };
    assert!(is_one(version::compare_versions), "{a} {b} {c}");
    let has_release = |version: &str| version.contains('-');
    if has_release(a) == has_release(b) && has_release(b) == has_release(c) {
        assert!(is_one(rpm::version::compare_versions), "{a} {b} {c}");
    }
    for family in [Family::Apt, Family::Dnf(Program::Dnf4)] {
        let is_version = !version::is_pattern(a) && family.find_version_mistake(a).is_none();
        assert!(!is_version || family.fits(a, a), "{a}");
        family.fits(a, b);
        family.is_surely_newer(a, b);
        family.is_package_name(a);
    }
}
