//! The names of candidates: hidden, with the suffix of what they are to replace, and known again by a later run.

use ring::rand::{SecureRandom, SystemRandom};

use crate::model::{Class, Failure};
use crate::sys::files::split;

const PREFIX: &str = ".limpet-";
const RANDOM_DIGITS: usize = 16;
/// A longer suffix is no suffix that a program would look for, and the whole name must fit into 255 bytes.
const MAX_SUFFIX_BYTES: usize = 64;

/// A new name for a candidate beside `target`.
pub(super) fn candidate_name(target: &str) -> Result<String, Failure> {
    let mut random = [0; RANDOM_DIGITS / 2];
    SystemRandom::new().fill(&mut random).map_err(|_| {
        Failure::new(
            Class::Transient,
            "failed to get random numbers from the kernel",
        )
    })?;
    let number = u64::from_be_bytes(random);
    Ok(format!(
        "{PREFIX}{number:0width$x}{}",
        suffix_of(target),
        width = RANDOM_DIGITS
    ))
}

/// The last `.` of the name and what follows it; nothing for hidden files without another one.
fn suffix_of(path: &str) -> &str {
    let name = split(path).1;
    match name.rfind('.') {
        Some(at) if at > 0 && name.len() - at <= MAX_SUFFIX_BYTES => &name[at..],
        _ => "",
    }
}

/// Is this the name of a candidate: of a batch that is under way, or left by a run that was killed.
pub fn is_candidate_name(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return false;
    };
    let Some((digits, suffix)) = rest.split_at_checked(RANDOM_DIGITS) else {
        return false;
    };
    digits
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && (suffix.is_empty() || suffix.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_has_the_suffix_of_its_target_and_is_recognised() {
        let check = |target: &str, suffix: &str| {
            let name = candidate_name(target).unwrap();
            assert_eq!(&name[PREFIX.len() + RANDOM_DIGITS..], suffix, "{target}");
            assert!(is_candidate_name(&name), "{name}");
        };
        check("/etc/nginx/nginx.conf", ".conf");
        check("/etc/app.tar.zst", ".zst");
        check("/etc/motd", "");
        check("/root/.profile", "");
        check("/root/.config.toml", ".toml");
        check("/etc/v1.2/plain", "");
    }

    #[test]
    fn other_names_are_nobodys_leftovers() {
        for name in [
            ".limpet-",
            ".limpet-0123456789abcde",
            ".limpet-0123456789ABCDEF",
            "limpet-0123456789abcdef",
            ".limpet-0123456789abcdefx",
            ".limpet-ééééééééé",
        ] {
            assert!(!is_candidate_name(name), "{name}");
        }
    }
}
