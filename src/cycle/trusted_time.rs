//! The time to judge keys by, which never goes back.

use jiff::Timestamp;
use tracing::debug;

use crate::config;
use crate::model::Failure;
use crate::record::Record;
use crate::sys::{Host, clock};

/// Under which name the record keeps the highest time this host was sure of.
const HIGHEST_TIME: &str = "highest-time";

/// systemd-timesyncd and chrony's and ntp's units for it say here that the clock is right (systemd-time-wait-sync.service(8)).
pub const CLOCK_IS_RIGHT: &str = "/run/systemd/timesync/synchronized";

/// When this program was built, where its build says so.
fn build_time() -> Timestamp {
    option_env!("LIMPET_BUILD_TIME")
        .and_then(|text| text.parse().ok())
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The time to judge keys by: the clock, but never before what was the time once, or before this program was built. A machine
/// without a battery wakes up in 1970, where every expired key is valid again.
fn latest(clock: Timestamp, built: Timestamp, highest: Option<Timestamp>) -> Timestamp {
    clock.max(built).max(highest.unwrap_or(built))
}

/// The time to judge keys by, now.
pub fn trusted_now(record: &Record) -> Timestamp {
    let highest = record.recall(HIGHEST_TIME).unwrap_or_default();
    latest(clock::now(), build_time(), highest)
}

/// The same for a command beside the agent. Who may not read the agent's database is told by the clock.
pub fn trusted_time(host: &Host) -> Timestamp {
    match Record::open_read_only(&host.outer_path(config::STATE_DATABASE)) {
        Ok(record) => trusted_now(&record),
        Err(failure) => {
            debug!("failed to read the highest time, ignoring: {failure}");
            latest(clock::now(), build_time(), None)
        }
    }
}

/// Remembers that it is `now`, where the clock is known to be right; a wrong clock must not age all keys for ever.
pub(super) fn remember_time(host: &Host, record: &Record) -> Result<(), Failure> {
    if host.exists(CLOCK_IS_RIGHT)? {
        record.remember(HIGHEST_TIME, &trusted_now(record))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_starts_in_1970_makes_no_expired_key_valid_again() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (woken, built, known) = (at(12), at(1_780_000_000), at(1_790_000_000));
        assert_eq!(latest(woken, built, Some(known)), known);
        assert_eq!(latest(woken, built, None), built);
        assert_eq!(latest(woken, built, Some(at(1_700_000_000))), built);
        let later = at(1_800_000_000);
        assert_eq!(latest(later, built, Some(known)), later);
    }

    #[test]
    fn a_command_judges_by_the_highest_time_that_the_agent_knew() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        let before = clock::now();
        assert!(
            trusted_time(&host) >= before,
            "without a database it is the clock"
        );
        host.ensure_own_directory(config::STATE_DIRECTORY, 0o700)
            .unwrap();
        let record = Record::open(&host.outer_path(config::STATE_DATABASE)).unwrap();
        let future = before
            .checked_add(jiff::SignedDuration::from_hours(1000))
            .unwrap();
        record.remember(HIGHEST_TIME, &future).unwrap();
        assert_eq!(trusted_time(&host), future);
    }
}
