//! The lists of packages that apt keeps of its sources: how old they are, why they could not be fetched, and what to do.
//!
//! They are fetched when a declared repository changed (that one's alone), when a package or version is wanted that they do not have,
//! when an archive that they name is gone, and before anything is installed where they are older than a day. Nothing fetches them
//! while nothing is to be installed.

use std::time::Duration;

use crate::kinds::package::apt;
use crate::model::{Class, Failure};
use crate::sys::command::CommandResult;
use crate::sys::{Host, clock};

/// Older lists are fetched before anything is installed.
const OLDEST: Duration = Duration::from_secs(24 * 60 * 60);
/// What is newer than the clock by more than this says nothing.
const CLOCK_ERROR_SECS: i64 = 60 * 60;
/// What changes when lists are fetched, by whomever: the last of them tells.
const FETCHED: [&str; 3] = [
    "/var/lib/apt/lists",
    "/var/lib/apt/lists/partial",
    "/var/lib/apt/periodic/update-success-stamp",
];

/// Were the lists fetched longer ago than a day, or never.
pub(super) fn are_old(host: &Host) -> Result<bool, Failure> {
    let mut fetched = Vec::new();
    for path in FETCHED {
        let touched = host.last_touched(path)?;
        fetched.extend(touched.map(|touched| touched.modified_secs));
    }
    Ok(is_old(&fetched, clock::now().as_second()))
}

fn is_old(fetched: &[i64], now: i64) -> bool {
    let oldest = now.saturating_sub_unsigned(OLDEST.as_secs());
    let latest = now.saturating_add(CLOCK_ERROR_SECS);
    !fetched.iter().any(|at| (oldest..=latest).contains(at))
}

/// What apt says, who must act, and what to do. The first that fits counts: several of them come together.
const SIGNS: [(&str, Class, &str); 16] = [
    (
        "Conflicting values set for option",
        Class::Host,
        "another file in /etc/apt/sources.list.d names the same repository: remove it",
    ),
    (
        "EXPKEYSIG",
        Class::Author,
        "the key has expired: commit the one that the repository's owner publishes now",
    ),
    (
        "KEYEXPIRED",
        Class::Author,
        "the key has expired: commit the one that the repository's owner publishes now",
    ),
    (
        "REVKEYSIG",
        Class::Author,
        "the key was revoked: ask the repository's owner why, and commit the one that takes its place",
    ),
    (
        "BADSIG",
        Class::Author,
        "what arrived is not what was signed: a cache on the way, or somebody, changed it",
    ),
    (
        "NO_PUBKEY",
        Class::Author,
        "it is signed by another key than the one declared: ask the repository's owner, and commit that one if it is right",
    ),
    (
        "Missing key",
        Class::Author,
        "it is signed by another key than the one declared: ask the repository's owner, and commit that one if it is right",
    ),
    (
        "is not valid yet",
        Class::Host,
        "is the clock of this host right: timedatectl",
    ),
    (
        "is expired",
        Class::Host,
        "is the clock of this host right (timedatectl); if it is, the repository is no longer kept up to date",
    ),
    (
        "Certificate verification failed",
        Class::Host,
        "its server's certificate is not from an authority that this host knows",
    ),
    (
        "Could not resolve",
        Class::Transient,
        "it is tried again; is the host's name right, and is there a network",
    ),
    (
        "Temporary failure resolving",
        Class::Transient,
        "it is tried again; is the host's name right, and is there a network",
    ),
    (
        "404  Not Found",
        Class::Author,
        "check its address, suites and components",
    ),
    (
        "File not found",
        Class::Author,
        "check its address, suites and components",
    ),
    (
        "does not have a Release file",
        Class::Author,
        "check its address, suites and components",
    ),
    (
        "is not signed",
        Class::Author,
        "apt takes nothing that is not signed: ask its owner",
    ),
];

/// Why `what`, such as "the lists of repository:grafana", could not be fetched; nothing where it was.
pub(in crate::kinds) fn find_failure(what: &str, result: &CommandResult) -> Option<Failure> {
    // Before apt 2.3 a list that cannot be fetched was a warning.
    let warned =
        |line: &str| line.starts_with("W: Failed to fetch") || line.starts_with("W: GPG error");
    if result.is_success() && !result.output.lines().any(warned) {
        return None;
    }
    if let Some(holder) = apt::lock_holder(&result.output) {
        let message =
            format!("failed to fetch {what}: {holder} holds the lock of the package manager");
        return Some(
            Failure::new(Class::Transient, message)
                .with_hint("it is tried again when that has ended"),
        );
    }
    let complaints: Vec<&str> = result
        .output
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("E: ") || warned(line))
        .map(|line| &line[3..])
        // It says no more than those before it.
        .filter(|line| !line.starts_with("Some index files failed to download"))
        .take(3)
        .collect();
    let message = match complaints.is_empty() {
        true => format!("failed to fetch {what}: apt-get {}", result.complaint()),
        false => format!("failed to fetch {what}: {}", complaints.join("; ")),
    };
    let sign = SIGNS.iter().find(|(sign, ..)| result.output.contains(sign));
    let (class, hint) = sign.map_or(
        (Class::Transient, "it is tried again; is there a network"),
        |(_, class, hint)| (*class, *hint),
    );
    Some(Failure::new(class, message).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::command::Ending;
    use proptest::prelude::*;

    #[test]
    fn lists_are_old_after_a_day_and_where_nothing_says_when() {
        let (now, hour) = (1_000_000, 60 * 60);
        for (fetched, expected) in [
            (&[][..], true),
            (&[now], false),
            (&[now - 23 * hour], false),
            (&[now - 25 * hour], true),
            (&[now - 25 * hour, now - hour], false),
            (&[now + 2 * hour], true),
            (&[i64::MIN, i64::MAX], true),
        ] {
            assert_eq!(is_old(fetched, now), expected, "{fetched:?}");
        }
    }

    fn told(status: i32, output: &str) -> Option<String> {
        let result = CommandResult {
            ending: Ending::Exited(status),
            output: output.to_owned(),
        };
        let failure = find_failure("the lists of repository:a", &result)?;
        let hint = failure.hint.unwrap_or_default();
        Some(format!(
            "{:?}: {}\n  {hint}",
            failure.class, failure.message
        ))
    }

    #[test]
    fn what_keeps_lists_from_being_fetched_is_said_with_what_to_do() {
        assert_eq!(told(0, include_str!("fixtures/update.txt")), None);
        let failed = [
            include_str!("fixtures/update-other-key.txt"),
            include_str!("fixtures/update-not-signed.txt"),
            include_str!("fixtures/update-no-directory.txt"),
            include_str!("fixtures/update-no-name.txt"),
            include_str!("fixtures/update-no-answer.txt"),
            include_str!("fixtures/update-conflict.txt"),
            "E: Release file for http://a/./InRelease is expired (invalid since 3d 2h 1min 5s). Updates for this repository will not be applied.\n",
            include_str!("fixtures/update-expired-key.txt"),
            include_str!("fixtures/update-locked.txt"),
        ]
        .map(|output| told(100, output).unwrap());
        insta::assert_snapshot!(failed.join("\n"), @r#"
        Author: failed to fetch the lists of repository:a: GPG error: file:/srv/aptrec/b ./ InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 9725AA6A3F2D4D22; The repository 'file:/srv/aptrec/b ./ InRelease' is not signed.
          it is signed by another key than the one declared: ask the repository's owner, and commit that one if it is right
        Author: failed to fetch the lists of repository:a: The repository 'file:/srv/aptrec/u ./ Release' is not signed.
          apt takes nothing that is not signed: ask its owner
        Author: failed to fetch the lists of repository:a: The repository 'file:/srv/aptrec/nowhere ./ Release' does not have a Release file.
          check its address, suites and components
        Transient: failed to fetch the lists of repository:a: Failed to fetch http://repository.invalid/debian/./InRelease  Could not resolve 'repository.invalid'
          it is tried again; is the host's name right, and is there a network
        Transient: failed to fetch the lists of repository:a: Failed to fetch http://127.0.0.1:9/debian/./InRelease  Could not connect to 127.0.0.1:9 (127.0.0.1). - connect (111: Connection refused)
          it is tried again; is there a network
        Host: failed to fetch the lists of repository:a: Conflicting values set for option Signed-By regarding source file:/srv/aptrec/a/ ./: /srv/aptrec/a.gpg != /srv/aptrec/b.gpg; The list of sources could not be read.
          another file in /etc/apt/sources.list.d names the same repository: remove it
        Host: failed to fetch the lists of repository:a: Release file for http://a/./InRelease is expired (invalid since 3d 2h 1min 5s). Updates for this repository will not be applied.
          is the clock of this host right (timedatectl); if it is, the repository is no longer kept up to date
        Author: failed to fetch the lists of repository:a: GPG error: file:/srv/aptrec/ek ./ InRelease: The following signatures were invalid: EXPKEYSIG B34585948C22DC57 old@localhost; The repository 'file:/srv/aptrec/ek ./ InRelease' is not signed.
          the key has expired: commit the one that the repository's owner publishes now
        Transient: failed to fetch the lists of repository:a: process 4735 (python3) holds the lock of the package manager
          it is tried again when that has ended
        "#);
    }

    #[test]
    fn what_an_older_apt_only_warns_of_is_a_failure() {
        let warned = told(0, "W: Failed to fetch http://a  Could not connect\n");
        insta::assert_snapshot!(warned.unwrap(), @r#"
        Transient: failed to fetch the lists of repository:a: Failed to fetch http://a  Could not connect
          it is tried again; is there a network
        "#);
    }

    proptest! {
        #[test]
        fn no_output_makes_it_panic(output in "((E|W): |Failed to fetch|[a-z ]{0,5}|é|\n){0,9}", status in 0..2) {
            prop_assert!(status == 0 || told(status, &output).is_some());
        }
    }
}
