//! The allowed signers file: OpenSSH's syntax, read more strictly.
//!
//! OpenSSH skips a line it cannot read and takes the rest; then a typo is a key that silently has more rights, or none. Here one
//! mistake refuses the whole file and names the line.

use jiff::Timestamp;
use jiff::civil::DateTime;

use super::key::{PublicKey, is_type_name};
use super::rule::{Refusal, Rule, escape};

/// The keys that may sign, and when.
#[derive(Debug, Clone)]
pub struct AllowedSigners {
    file: String,
    signers: Vec<AllowedSigner>,
}

/// A key as the file lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey<'a> {
    /// Whose it is.
    pub principal: &'a str,
    /// `SHA256:…`
    pub fingerprint: String,
    /// It may sign from then on.
    pub valid_after: Option<Timestamp>,
    /// It may sign until then.
    pub valid_before: Option<Timestamp>,
}

/// One line of the file.
#[derive(Debug, Clone)]
pub(super) struct AllowedSigner {
    pub(super) principal: String,
    pub(super) key: PublicKey,
    pub(super) valid_after: Option<Timestamp>,
    pub(super) valid_before: Option<Timestamp>,
}

impl AllowedSigners {
    /// Reads the text of `file`, which is named in errors.
    pub fn parse(file: &str, text: &[u8]) -> Result<Self, Refusal> {
        let mut signers: Vec<(usize, AllowedSigner)> = Vec::new();
        for (number, line) in lines(text) {
            let invalid = |cause: String| {
                Refusal::new(
                    Rule::SignersFileInvalid,
                    format!("{file}:{number}: {cause}"),
                )
                .about(file)
            };
            let line = line.map_err(invalid)?;
            let Some(signer) = parse_line(line).map_err(invalid)? else {
                continue;
            };
            if let Some((first, _)) = signers.iter().find(|(_, known)| known.key == signer.key) {
                return Err(invalid(format!(
                    "the key {} is already in line {first}",
                    signer.key.fingerprint()
                )));
            }
            signers.push((number, signer));
        }
        Ok(AllowedSigners {
            file: file.to_owned(),
            signers: signers.into_iter().map(|(_, signer)| signer).collect(),
        })
    }

    /// The refusal that stands for a file that could not be read at all, because of `cause`.
    pub fn unreadable(file: &str, cause: &str) -> Refusal {
        Refusal::new(
            Rule::SignersFileInvalid,
            format!("failed to read '{file}': {cause}"),
        )
        .about(file)
        .with_hint(
            "create it with one line for each key: NAME namespaces=\"git\" ssh-ed25519 AAAA…",
        )
    }

    /// Where it was read from.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The keys that are listed.
    pub(super) fn public_keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.signers.iter().map(|signer| &signer.key)
    }

    pub(super) fn find(&self, key: &PublicKey) -> Option<&AllowedSigner> {
        self.signers.iter().find(|signer| signer.key == *key)
    }

    /// The keys that are listed, in the file's order, with when they may sign.
    pub fn keys(&self) -> impl Iterator<Item = ListedKey<'_>> {
        self.signers.iter().map(|signer| ListedKey {
            principal: &signer.principal,
            fingerprint: signer.key.fingerprint(),
            valid_after: signer.valid_after,
            valid_before: signer.valid_before,
        })
    }

    /// Who is listed, in the file's order: principal and fingerprint.
    pub fn listed(&self) -> impl Iterator<Item = (&str, String)> {
        self.signers
            .iter()
            .map(|signer| (signer.principal.as_str(), signer.key.fingerprint()))
    }
}

/// The lines of a key file with their numbers, counted from 1.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, Result<&str, String>)> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|&byte| byte == b'\n')
        .enumerate()
        .map(|(index, line)| {
            let line = match std::str::from_utf8(line) {
                Ok(line) if line.chars().any(|c| c.is_control() && c != '\t') => Err(format!(
                    "it has a control character: '{}'",
                    escape(line.as_bytes())
                )),
                Ok(line) => Ok(line.trim_matches([' ', '\t'])),
                Err(_) => Err("it is not UTF-8".to_owned()),
            };
            (index + 1, line)
        })
}

fn parse_line(line: &str) -> Result<Option<AllowedSigner>, String> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (principals, rest) = split_field(line)?;
    let principal = parse_principals(principals)?;
    let (second, after_second) = split_field(rest)?;
    if second.is_empty() {
        return Err("it has no key".into());
    }
    let (options, key_type, rest) = if is_type_name(second) {
        (Options::default(), second, after_second)
    } else {
        let options = parse_options(second)?;
        let (key_type, rest) = split_field(after_second)?;
        (options, key_type, rest)
    };
    if key_type.is_empty() {
        return Err("it has no key".into());
    }
    let (base64, _comment) = split_field(rest)?;
    let key = PublicKey::parse_text(key_type, base64).map_err(|error| error.to_string())?;
    if !options.is_for_git {
        return Err("it does not say namespaces=\"git\"".into());
    }
    if let (Some(after), Some(before)) = (options.valid_after, options.valid_before)
        && after >= before
    {
        return Err("valid-before is not later than valid-after".into());
    }
    Ok(Some(AllowedSigner {
        principal,
        key,
        valid_after: options.valid_after,
        valid_before: options.valid_before,
    }))
}

/// The next field and what follows it; white space inside double quotes does not end a field.
fn split_field(text: &str) -> Result<(&str, &str), String> {
    let mut is_quoted = false;
    for (index, character) in text.char_indices() {
        match character {
            '"' => is_quoted = !is_quoted,
            ' ' | '\t' if !is_quoted => {
                return Ok((
                    &text[..index],
                    text[index..].trim_start_matches([' ', '\t']),
                ));
            }
            _ => {}
        }
    }
    if is_quoted {
        return Err("a quote is not closed".into());
    }
    Ok((text, ""))
}

fn parse_principals(field: &str) -> Result<String, String> {
    let names = match field.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"').ok_or("a quote is not closed")?,
        None => field,
    };
    if names.contains(['*', '?', '!']) {
        return Err(format!(
            "the principal '{names}' is a pattern, only whole names are accepted"
        ));
    }
    let is_name = |name: &str| !name.is_empty() && !name.contains(['"', ' ', '\t', '=']);
    if !names.split(',').all(is_name) {
        return Err(format!("'{names}' is no list of principals"));
    }
    Ok(names.to_owned())
}

#[derive(Debug, Default)]
struct Options {
    is_for_git: bool,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
}

fn parse_options(field: &str) -> Result<Options, String> {
    let mut options = Options::default();
    let mut seen: Vec<String> = Vec::new();
    for option in split_options(field) {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        let name = name.to_ascii_lowercase();
        if seen.contains(&name) {
            return Err(format!("the option '{name}' is given twice"));
        }
        let value = || {
            value
                .and_then(|value| value.strip_prefix('"')?.strip_suffix('"'))
                .filter(|value| !value.contains('"'))
                .ok_or(format!(
                    "the option '{name}' needs a value in double quotes"
                ))
        };
        match name.as_str() {
            "namespaces" => {
                let namespaces = value()?;
                if namespaces.contains(['*', '?', '!']) {
                    return Err(format!(
                        "the namespaces '{namespaces}' are a pattern, only whole names are accepted"
                    ));
                }
                options.is_for_git = namespaces.split(',').any(|name| name == "git");
            }
            "valid-after" => options.valid_after = Some(parse_time(value()?)?),
            "valid-before" => options.valid_before = Some(parse_time(value()?)?),
            "cert-authority" => {
                return Err("certificates are not supported: 'cert-authority'".into());
            }
            _ => {
                return Err(format!(
                    "'{option}' is neither a key type nor an option we know"
                ));
            }
        }
        seen.push(name);
    }
    Ok(options)
}

/// Splits at the commas that stand outside of quotes.
fn split_options(field: &str) -> Vec<&str> {
    let mut is_quoted = false;
    field
        .split(|character| {
            is_quoted ^= character == '"';
            character == ',' && !is_quoted
        })
        .collect()
}

/// `YYYYMMDDZ`, `YYYYMMDDHHMMZ` or `YYYYMMDDHHMMSSZ`. Without the Z, OpenSSH reads the local time zone, so that one file would mean
/// different things on two hosts.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    let invalid = || format!("'{text}' is no date, expected YYYYMMDD[HHMM[SS]]Z");
    let digits = text
        .strip_suffix('Z')
        .ok_or_else(|| format!("the date '{text}' does not end in Z (UTC)"))?;
    if ![8, 12, 14].contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid());
    }
    let number = |range: std::ops::Range<usize>| -> Result<i8, String> {
        match digits.get(range) {
            Some(text) => text.parse().map_err(|_| invalid()),
            None => Ok(0),
        }
    };
    let year: i16 = digits[..4].parse().map_err(|_| invalid())?;
    DateTime::new(
        year,
        number(4..6)?,
        number(6..8)?,
        number(8..10)?,
        number(10..12)?,
        number(12..14)?,
        0,
    )
    .and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC))
    .map(|time| time.timestamp())
    .map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::Key;
    use super::*;

    #[test]
    fn openssh_syntax_is_read() {
        let key = Key::new(1);
        let bare = key.allowed("", "");
        let bare = bare
            .trim_start()
            .strip_prefix("namespaces=\"git\" ")
            .unwrap()
            .trim_end();
        #[track_caller]
        fn check(line: &str, principal: &str) {
            let signers = AllowedSigners::parse("file", line.as_bytes()).unwrap();
            assert_eq!(signers.signers[0].principal, principal, "{line}");
        }
        check(&format!("alice namespaces=\"git\" {bare}"), "alice");
        check(
            &format!("\talice@a,a@b \t NAMESPACES=\"file,git\" {bare} a comment"),
            "alice@a,a@b",
        );
        check(
            &format!("\"alice\" valid-after=\"20200101Z\",namespaces=\"git\" {bare}\n\n#\n"),
            "alice",
        );
    }

    #[test]
    fn a_mistake_names_file_line_and_cause() {
        #[track_caller]
        fn check(text: &[u8]) -> String {
            AllowedSigners::parse("/etc/limpet/allowed_signers", text)
                .unwrap_err()
                .to_string()
        }
        insta::assert_snapshot!(check(b"# ours\nalice ssh-ed25519 AAAA\n"), @"/etc/limpet/allowed_signers:2: the key is malformed: it ends too early");
        insta::assert_snapshot!(check(b"alice\r\n"), @r#"/etc/limpet/allowed_signers:1: it has a control character: 'alice\r'"#);
        insta::assert_snapshot!(check(b"al*ce namespaces=\"git\" ssh-ed25519 AAAA"), @"/etc/limpet/allowed_signers:1: the principal 'al*ce' is a pattern, only whole names are accepted");
        insta::assert_snapshot!(check(b"alice"), @"/etc/limpet/allowed_signers:1: it has no key");
        insta::assert_snapshot!(check(b"alice namespaces=\"git\" ssh-dsa AAAA"), @"/etc/limpet/allowed_signers:1: unknown key type 'ssh-dsa', expected one of ssh-ed25519, sk-ssh-ed25519@openssh.com, ecdsa-sha2-nistp256, ecdsa-sha2-nistp384, ssh-rsa, openpgp");
        insta::assert_snapshot!(check(b"alice namespaces=git ssh-ed25519 AAAA"), @"/etc/limpet/allowed_signers:1: the option 'namespaces' needs a value in double quotes");
        insta::assert_snapshot!(check(b"\xff"), @"/etc/limpet/allowed_signers:1: it is not UTF-8");
    }

    #[test]
    fn times_are_utc() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            let time = parse_time(text).ok().map(|time| time.to_string());
            assert_eq!(time.as_deref(), expected, "{text}");
        }
        check("20270601Z", Some("2027-06-01T00:00:00Z"));
        check("202706011230Z", Some("2027-06-01T12:30:00Z"));
        check("20270601123059Z", Some("2027-06-01T12:30:59Z"));
        for text in [
            "20270601",
            "2027060112Z",
            "20270229Z",
            "202706012460Z",
            "2027-06-01Z",
            "Z",
            "+2270601Z",
            "",
        ] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes: Vec<u8>, line in "[a-z*!\"=, #-]{0,30} (ssh-ed25519|namespaces=\"git\") [A-Za-z0-9+/=]{0,20}") {
            let _ = AllowedSigners::parse("file", &bytes);
            let _ = AllowedSigners::parse("file", line.as_bytes());
            let _ = crate::trust::Revoked::parse("file", &bytes);
            let _ = crate::trust::Revoked::parse("file", line.as_bytes());
        }
    }
}
