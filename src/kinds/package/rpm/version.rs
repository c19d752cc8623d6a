//! rpm versions: `[epoch:]version[-release]`, and which of two is newer.
//!
//! The order is rpm's own, held to what rpm itself says of thousands of generated pairs. A declared version need not say its epoch, nor
//! its release: what it leaves out may be anything.

use std::cmp::Ordering;

use crate::kinds::package::version::is_pattern;

/// A version in its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version<'a> {
    epoch: Option<&'a str>,
    version: &'a str,
    release: Option<&'a str>,
}

/// The epoch ends at the first colon, the release begins after the last hyphen.
fn split(text: &str) -> Version<'_> {
    let (epoch, rest) = match text.split_once(':') {
        Some((epoch, rest)) => (Some(epoch), rest),
        None => (None, text),
    };
    let (version, release) = match rest.rsplit_once('-') {
        Some((version, release)) => (version, Some(release)),
        None => (rest, None),
    };
    Version {
        epoch,
        version,
        release,
    }
}

/// Which of two versions is newer; a release is compared where both have one, and no epoch is epoch 0.
pub fn compare_versions(left: &str, right: &str) -> Ordering {
    let (left, right) = (split(left), split(right));
    compare(left.epoch.unwrap_or("0"), right.epoch.unwrap_or("0"))
        .then_with(|| compare(left.version, right.version))
        .then_with(|| match (left.release, right.release) {
            (Some(left), Some(right)) => compare(left, right),
            _ => Ordering::Equal,
        })
}

/// Is `version` the wanted one, or one that the wanted pattern stands for. A pattern stands for whole versions, with or without the
/// epoch and with or without the release.
pub fn fits(wanted: &str, version: &str) -> bool {
    let installed = split(version);
    if !is_pattern(wanted) {
        let asked = split(wanted);
        let epoch = installed.epoch.unwrap_or("0");
        return asked
            .epoch
            .is_none_or(|asked| compare(asked, epoch).is_eq())
            && compare(asked.version, installed.version).is_eq()
            && asked
                .release
                .zip(installed.release)
                .is_none_or(|(asked, installed)| compare(asked, installed).is_eq());
    }
    let Ok(pattern) = glob::Pattern::new(wanted) else {
        return false;
    };
    let epoch = installed.epoch.unwrap_or("0");
    let short = installed.version;
    let long = installed
        .release
        .map(|release| format!("{short}-{release}"));
    let forms = [Some(short.to_owned()), long];
    forms
        .into_iter()
        .flatten()
        .any(|form| pattern.matches(&form) || pattern.matches(&format!("{epoch}:{form}")))
}

/// Why a text is neither an rpm version nor a pattern for one, or `None` when it is.
pub fn find_mistake(wanted: &str) -> Option<&'static str> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._+~^-:".contains(&byte);
    if is_pattern(wanted) {
        let is_legal = |byte: u8| is_legal(byte) || b"*?[]!".contains(&byte);
        if !wanted.bytes().all(is_legal) {
            return Some(
                "a pattern for a version may hold only letters, digits and . _ + ~ ^ - : * ? [ ]",
            );
        }
        let pattern = glob::Pattern::new(wanted);
        return pattern.err().map(|_| "as a pattern it is not complete");
    }
    let parts = split(wanted);
    if parts
        .epoch
        .is_some_and(|epoch| epoch.parse::<u32>().is_err())
    {
        return Some("the epoch before ':' is no number");
    }
    if parts.version.is_empty() || parts.release.is_some_and(str::is_empty) {
        return Some("its version or its release is empty");
    }
    if !wanted.bytes().all(is_legal) || parts.version.contains([':', '-']) {
        return Some("it may hold only letters, digits and . _ + ~ ^, one ':' and one '-'");
    }
    None
}

/// rpm's own comparison of two words. Runs of digits and runs of letters are compared in turn, what separates them is not; a tilde comes
/// before the end and a caret after it, but before anything else.
fn compare(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    if left == right {
        return Ordering::Equal;
    }
    loop {
        left = skip_separators(left);
        right = skip_separators(right);
        match (left.first(), right.first()) {
            (Some(b'~'), Some(b'~')) => {
                (left, right) = (&left[1..], &right[1..]);
                continue;
            }
            (Some(b'~'), _) => return Ordering::Less,
            (_, Some(b'~')) => return Ordering::Greater,
            (Some(b'^'), Some(b'^')) => {
                (left, right) = (&left[1..], &right[1..]);
                continue;
            }
            (Some(b'^'), None) => return Ordering::Greater,
            (None, Some(b'^')) => return Ordering::Less,
            (Some(b'^'), _) => return Ordering::Less,
            (_, Some(b'^')) => return Ordering::Greater,
            (None, _) | (_, None) => return left.len().cmp(&right.len()),
            (Some(first), Some(_)) => {
                let is_number = first.is_ascii_digit();
                let (one, left_rest) = split_run(left, is_number);
                let (other, right_rest) = split_run(right, is_number);
                if other.is_empty() {
                    // Of different sorts: the number is newer.
                    return if is_number {
                        Ordering::Greater
                    } else {
                        Ordering::Less
                    };
                }
                let order = if is_number {
                    let (one, other) = (without_zeros(one), without_zeros(other));
                    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
                } else {
                    one.cmp(other)
                };
                if order.is_ne() {
                    return order;
                }
                (left, right) = (left_rest, right_rest);
            }
        }
    }
}

fn skip_separators(text: &[u8]) -> &[u8] {
    let is_kept = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'~' | b'^');
    let start = text.iter().position(is_kept).unwrap_or(text.len());
    &text[start..]
}

/// The run of digits, or of letters, that a text begins with.
fn split_run(text: &[u8], is_number: bool) -> (&[u8], &[u8]) {
    let belongs = |byte: &u8| match is_number {
        true => byte.is_ascii_digit(),
        false => byte.is_ascii_alphabetic(),
    };
    let end = text.iter().position(|byte| !belongs(byte));
    text.split_at(end.unwrap_or(text.len()))
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let start = digits.iter().position(|byte| *byte != b'0');
    &digits[start.unwrap_or(digits.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_are_ordered_as_rpm_orders_them() {
        let check = |left: &str, right: &str, expected: Ordering| {
            assert_eq!(compare_versions(left, right), expected, "{left} {right}");
            assert_eq!(
                compare_versions(right, left),
                expected.reverse(),
                "{right} {left}"
            );
        };
        use Ordering::{Equal, Greater, Less};
        check("1.0", "1.0", Equal);
        check("1.0", "2.0", Less);
        check("1.0~rc1", "1.0", Less);
        check("1.0^git1", "1.0", Greater);
        check("1.0^git1", "1.0.1", Less);
        check("1.0.", "1.0", Equal);
        check("1.0a", "1.0", Greater);
        check("1.a", "1.1", Less);
        check("1.10", "1.9", Greater);
        check("1:1.0", "2.0", Greater);
        check("0:1.0-1", "1.0-1", Equal);
        check("1.0-1", "1.0-2", Less);
        check("1.0", "1.0-2", Equal);
    }

    #[test]
    fn a_declared_version_may_leave_out_epoch_and_release() {
        let check = |wanted: &str, version: &str, expected: bool| {
            assert_eq!(fits(wanted, version), expected, "{wanted} {version}");
        };
        check("1.0", "1.0-3.el9", true);
        check("1.0-3.el9", "1.0-3.el9", true);
        check("1.0-4", "1.0-3.el9", false);
        check("1.0", "2:1.0-3", true);
        check("2:1.0", "2:1.0-3", true);
        check("1:1.0", "2:1.0-3", false);
        check("0:1.0", "1.0-3", true);
        check("1.*", "1.9.1-1", true);
        check("1.9.?", "1.9.1-1", true);
        check("1.9.1-*", "1.9.1-1", true);
        check("2:1.*", "2:1.9.1-1", true);
        check("2:1.*", "1.9.1-1", false);
        check("0:1.*", "1.9.1-1", true);
        check("1.8*", "1.9.1-1", false);
    }

    #[test]
    fn mistakes_are_told() {
        assert_eq!(find_mistake("1.0-1.el9"), None);
        assert_eq!(find_mistake("2:1.0~rc1^git5_2-1"), None);
        assert_eq!(find_mistake("1.*"), None);
        for wrong in ["x:1", "", "1-", "-1", "1 0", "1-2-3", "1:2:3", "[1"] {
            assert!(find_mistake(wrong).is_some(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn the_order_is_one(a in "[0-9a-c.~^+-]{0,8}", b in "[0-9a-c.~^+-]{0,8}", c in "[0-9a-c.~^+-]{0,8}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le(), "{} {} {}", a, b, c);
            }
        }

        #[test]
        fn no_text_makes_it_panic(wanted in "\\PC{0,12}", version in "\\PC{0,12}") {
            compare_versions(&wanted, &version);
            fits(&wanted, &version);
            find_mistake(&wanted);
        }
    }
}
