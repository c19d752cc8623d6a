//! How single values of the host configuration are written.

use std::time::Duration;

/// A duration in jiff's friendly format, such as "60s" or "1h 30m".
pub fn parse_duration(text: &str) -> Option<Duration> {
    let duration: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(duration).ok()
}

/// Is it a name of a channel: letters, digits, `-`, `_` and `.`, at most 64.
pub(super) fn is_channel(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// A number of bytes: `300K`, `512M`, `2G`, or the number alone.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.strip_suffix(['K', 'M', 'G']) {
        None => (text, 0),
        Some(digits) => (
            digits,
            match &text[digits.len()..] {
                "K" => 10,
                "M" => 20,
                _ => 30,
            },
        ),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

pub(super) fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(hash)
}

/// Does `text` name a key: `SHA256:` and base64, as ssh-keygen(1) prints it, or `openpgp:` and the 40 or 64 digits of gpg(1).
pub fn is_fingerprint(text: &str) -> bool {
    match text.split_once(':') {
        Some(("SHA256", base64)) => {
            base64.len() == 43
                && base64
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte))
        }
        Some(("openpgp", digits)) => {
            matches!(digits.len(), 40 | 64)
                && digits
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
        }
        _ => false,
    }
}

/// What git-check-ref-format(1) takes for a branch.
pub fn is_branch(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with("refs/")
        && !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && name != "@"
        && name
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
        && !name
            .chars()
            .any(|character| character.is_control() || " ~^:?*[\\".contains(character))
}

pub(super) fn is_relative_path(path: &str) -> bool {
    path.split('/').all(|part| {
        !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control)
    })
}

pub(super) fn is_absolute_and_normalised(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(is_relative_path)
}

/// A host's name, in the host configuration and in the fleet repository, where it may be a directory below `hosts/`.
pub fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_branch(name: &str, expected: bool) {
        assert_eq!(is_branch(name), expected, "{name:?}");
    }

    #[test]
    fn a_branch_is_a_plain_name() {
        check_branch("main", true);
        check_branch("release/1.2", true);
        check_branch("refs/heads/main", false);
        check_branch("a..b", false);
        check_branch("a b", false);
        check_branch("-x", false);
        check_branch("a.lock", false);
        check_branch("a//b", false);
        check_branch("", false);
    }

    #[track_caller]
    fn check_duration(text: &str, expected: Option<u64>) {
        assert_eq!(
            parse_duration(text).map(|duration| duration.as_secs()),
            expected,
            "{text:?}"
        );
    }

    #[test]
    fn a_duration_has_a_unit() {
        check_duration("60s", Some(60));
        check_duration("5m", Some(300));
        check_duration("36h", Some(129_600));
        check_duration("1h 30m", Some(5_400));
        check_duration("60", None);
        check_duration("-60s", None);
        check_duration("", None);
        check_duration("soon", None);
    }

    #[test]
    fn a_size_may_have_a_unit() {
        let check = |text: &str, expected| assert_eq!(parse_size(text), expected, "{text:?}");
        check("0", Some(0));
        check("300K", Some(300 << 10));
        check("512M", Some(512 << 20));
        check("2G", Some(2 << 30));
        for wrong in [
            "",
            "M",
            "1T",
            "-1",
            "+1",
            "1 M",
            "1.5G",
            "99999999999G",
            "1é",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_host_name_cannot_leave_its_directory() {
        for name in ["..", ".", "", "a/b", "-a", ".git", "a\nb"] {
            assert!(!is_host_name(name), "{name:?}");
        }
        assert!(is_host_name("gw-lag-02.example.net"));
    }
}
