//! Debian versions: `[epoch:]upstream[-revision]`, and which of two is newer.
//!
//! The order is that of deb-version(7), held to what `dpkg --compare-versions` says by a recorded table.

use std::cmp::Ordering;

/// Is it a pattern that stands for several versions.
pub fn is_pattern(version: &str) -> bool {
    version.contains(['*', '?', '['])
}

/// Is `version` the wanted one, or one that the wanted pattern stands for.
pub fn fits(wanted: &str, version: &str) -> bool {
    if is_pattern(wanted) {
        glob::Pattern::new(wanted).is_ok_and(|pattern| pattern.matches(version))
    } else {
        compare_versions(wanted, version).is_eq()
    }
}

/// Is `version` newer than everything that `pattern` stands for, whatever there is. Where that is not sure, it is not said.
pub fn is_surely_newer(version: &str, pattern: &str) -> bool {
    let start = pattern.split(['*', '?', '[']).next().unwrap_or_default();
    // What comes behind a digit may make it a greater number.
    let is_decided = !start.is_empty() && !start.ends_with(|last: char| last.is_ascii_digit());
    is_decided && !version.starts_with(start) && compare_versions(version, start).is_gt()
}

/// Why a text is neither a Debian version nor a pattern for one, or `None` when it is.
pub fn find_mistake(wanted: &str) -> Option<&'static str> {
    if !is_pattern(wanted) {
        return find_version_mistake(wanted);
    }
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b".+~-:*?[]!^".contains(&byte);
    if !wanted.bytes().all(is_legal) {
        return Some("a pattern for a version may hold only letters, digits and . + ~ - : * ? [ ]");
    }
    glob::Pattern::new(wanted)
        .err()
        .map(|_| "as a pattern it is not complete")
}

/// Why a text is no Debian version, or `None` when it is one.
pub fn find_version_mistake(version: &str) -> Option<&'static str> {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (Some(epoch), rest),
        None => (None, version),
    };
    if epoch.is_some_and(|epoch| epoch.parse::<u32>().is_err()) {
        return Some("the epoch before ':' is no number");
    }
    if !rest.starts_with(|first: char| first.is_ascii_digit()) {
        return Some("it does not begin with a digit");
    }
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b".+~-:".contains(&byte);
    if !rest.bytes().all(is_legal) {
        return Some("it may hold only letters, digits and . + ~ - :");
    }
    None
}

/// Which of two versions is newer.
pub fn compare_versions(left: &str, right: &str) -> Ordering {
    let left = split_version(left);
    let right = split_version(right);
    compare_digits(left.epoch, right.epoch)
        .then_with(|| compare_parts(left.upstream, right.upstream))
        .then_with(|| compare_parts(left.revision, right.revision))
}

struct Version<'a> {
    epoch: &'a str,
    upstream: &'a str,
    revision: &'a str,
}

/// The epoch ends at the first colon, the revision begins after the last hyphen; what is missing counts as zero.
fn split_version(version: &str) -> Version<'_> {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    Version {
        epoch,
        upstream,
        revision,
    }
}

/// Compares runs of other characters and runs of digits in turn.
fn compare_parts(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let (left_text, left_rest) = split_run(left, |byte| !byte.is_ascii_digit());
        let (right_text, right_rest) = split_run(right, |byte| !byte.is_ascii_digit());
        let (left_digits, left_rest) = split_run(left_rest, |byte| byte.is_ascii_digit());
        let (right_digits, right_rest) = split_run(right_rest, |byte| byte.is_ascii_digit());
        let order = compare_text(left_text, right_text)
            .then_with(|| compare_digits(left_digits, right_digits));
        if order.is_ne() {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
    Ordering::Equal
}

/// The longest beginning whose bytes all fit, and the rest.
fn split_run(text: &str, fits: impl Fn(u8) -> bool) -> (&str, &str) {
    // Splitting where an ASCII byte begins or another byte sequence does: both are character boundaries.
    let length = text
        .char_indices()
        .find(|(index, _)| !fits(text.as_bytes()[*index]))
        .map_or(text.len(), |(index, _)| index);
    text.split_at(length)
}

/// A tilde comes before the end, the end before letters, letters before everything else.
fn compare_text(left: &str, right: &str) -> Ordering {
    let weight = |byte: Option<u8>| -> i32 {
        match byte {
            None => 0,
            Some(b'~') => -1,
            Some(byte) if byte.is_ascii_alphabetic() => byte.into(),
            Some(byte) => i32::from(byte) + 256,
        }
    };
    let longest = left.len().max(right.len());
    (0..longest)
        .map(|index| {
            weight(left.as_bytes().get(index).copied())
                .cmp(&weight(right.as_bytes().get(index).copied()))
        })
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Numbers of any length, without computing them.
fn compare_digits(left: &str, right: &str) -> Ordering {
    let left = left.trim_start_matches('0');
    let right = right.trim_start_matches('0');
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_order_is_that_of_dpkg() {
        let table = include_str!("fixtures/compare-versions.txt");
        for line in table.lines() {
            let [left, sign, right] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("three words: {line}");
            };
            let expected = match sign {
                "<" => Ordering::Less,
                "=" => Ordering::Equal,
                _ => Ordering::Greater,
            };
            assert_eq!(compare_versions(left, right), expected, "{line}");
            assert_eq!(compare_versions(right, left), expected.reverse(), "{line}");
        }
        assert!(table.lines().count() > 1000);
    }

    #[test]
    fn a_pattern_stands_for_versions_and_is_compared_with_what_is_there() {
        for (wanted, version, is_fit) in [
            ("1.9.*", "1.9.3-1", true),
            ("1.9.*", "1.10.0", false),
            ("1.9.*", "1:1.9.3", false),
            ("1.[89].*", "1.8.1", true),
            ("*", "7", true),
            ("1.0", "0:1.0", true),
            ("1.0", "1.0-1", false),
            ("1.[", "1.[", false),
        ] {
            assert_eq!(fits(wanted, version), is_fit, "{wanted} {version}");
        }
        for (version, pattern, is_newer) in [
            ("2.0", "1.9.*", true),
            ("1.10", "1.9.*", true),
            ("1.8", "1.9.*", false),
            ("1.9.x", "1.9.[0-9]", false),
            ("1.10", "1.9*", false),
            ("2.0", "*", false),
            ("1:0.1", "1.9.*", true),
        ] {
            assert_eq!(
                is_surely_newer(version, pattern),
                is_newer,
                "{version} {pattern}"
            );
        }
        for (wanted, is_fine) in [
            ("1.9.*", true),
            ("1:2.[0-9]*-?", true),
            ("1.[", false),
            ("1.* -o x", false),
        ] {
            assert_eq!(find_mistake(wanted).is_none(), is_fine, "{wanted}");
        }
    }

    #[test]
    fn only_full_versions_are_versions() {
        let check = |version: &str, is_version: bool| {
            assert_eq!(
                find_version_mistake(version).is_none(),
                is_version,
                "{version:?}"
            );
        };
        check("1.0", true);
        check("1:2.3~rc1+dfsg-4+deb12u1", true);
        check("", false);
        check("1.9.*", false);
        check("x:1.0", false);
        check("1.0 -o Foo", false);
        check("v1", false);
        check("-1", false);
    }

    proptest! {
        #[test]
        fn any_two_texts_compare_the_same_both_ways(left in "\\PC*", right in "\\PC*") {
            prop_assert_eq!(compare_versions(&left, &right), compare_versions(&right, &left).reverse());
            prop_assert_eq!(compare_versions(&left, &left), Ordering::Equal);
        }
    }
}
