//! limpet's own files: configuration, trust, memory, and the clock they are judged by.

use jiff::{SignedDuration, Timestamp};

use crate::config::{
    CONFIG_DIRECTORY, CONFIG_FILE, Config, ENROLLED_MARK, STATE_DATABASE, STATE_DIRECTORY,
};
use crate::cycle::{state, trusted_time};
use crate::doctor::Finding;
use crate::record::Record;
use crate::report::moment;
use crate::sys::files::{Entry, Hashing};
use crate::sys::{Host, clock as sys_clock};

/// How far the clock may lie behind the highest time it ever showed.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(60);

/// What serves the time, beside systemd's own.
const TIME_UNITS: [&str; 6] = [
    "systemd-timesyncd.service",
    "chrony.service",
    "chronyd.service",
    "ntpsec.service",
    "ntp.service",
    "ntpd.service",
];

/// Who may write what decides whom this host obeys: root alone.
pub(super) fn permissions(host: &Host, config: Option<&Config>) -> Vec<Finding> {
    let check = "permissions";
    let mut paths = vec![
        "/etc/limpet".to_owned(),
        CONFIG_FILE.to_owned(),
        CONFIG_DIRECTORY.to_owned(),
        ENROLLED_MARK.to_owned(),
    ];
    let fragments = host
        .list_own_directory(CONFIG_DIRECTORY)
        .unwrap_or_default();
    paths.extend(
        fragments
            .iter()
            .map(|name| format!("{CONFIG_DIRECTORY}/{name}")),
    );
    if let Some(config) = config {
        paths.push(config.trust.allowed_signers.clone());
        paths.push(config.trust.revoked.clone());
    }
    let root = host.root_account().map_or(0, |(uid, _)| uid);
    let mut findings = Vec::new();
    let mut judge = |path: &str, open_bits: u32, hint: String| {
        let attributes = match host.look(path, Hashing::Skip).map(|look| look.entry) {
            Ok(Entry::File { attributes, .. } | Entry::Directory(attributes)) => attributes,
            Ok(_) => return,
            Err(failure) => return findings.push(Finding::of(check, &failure)),
        };
        if attributes.uid != root || attributes.mode & open_bits != 0 {
            let (mode, uid) = (attributes.mode, attributes.uid);
            let detail = format!(
                "'{path}' has mode {mode:04o} and belongs to user {uid}: others than root may change or read it"
            );
            findings.push(Finding::wrong(check, detail).hint(hint));
        }
    };
    for path in &paths {
        judge(
            path,
            0o022,
            format!("chown root '{path}'; chmod go-w '{path}'"),
        );
    }
    judge(
        STATE_DIRECTORY,
        0o077,
        format!("chown root '{STATE_DIRECTORY}'; chmod 0700 '{STATE_DIRECTORY}'"),
    );
    if findings.is_empty() {
        findings.push(Finding::ok(
            check,
            "only root may change the configuration and the trust files",
        ));
    }
    findings
}

/// Do the two places that remember the trusted head agree.
pub(super) fn marks(host: &Host, is_root: bool) -> Option<Finding> {
    let check = "trusted head";
    if !is_root {
        return Some(Finding::unknown(
            check,
            "only root may read the state database",
        ));
    }
    let again = "enrol this host again with 'limpet enroll' and a recent anchor";
    let finding = match state::compare_marks(host) {
        Err(failure) => Finding::of(check, &failure),
        Ok(state::Marks::None) => {
            Finding::warning(check, "no revision was trusted on this host yet").hint("limpet sync --wait")
        }
        Ok(state::Marks::Agree(head)) => {
            let id = head.commit.to_hex_with_len(7);
            Finding::ok(check, format!("{id} in both '{STATE_DATABASE}' and '{ENROLLED_MARK}'"))
        }
        Ok(state::Marks::Lost) => Finding::wrong(
            check,
            format!("'{ENROLLED_MARK}' remembers a revision, and '{STATE_DATABASE}' does not: nothing new is accepted"),
        )
        .hint(again),
        Ok(state::Marks::Unfinished) => {
            Finding::ok(check, "the second mark is a step behind; the agent brings it up to date at its next start")
        }
        Ok(state::Marks::Differ) => Finding::wrong(
            check,
            format!("'{STATE_DATABASE}' and '{ENROLLED_MARK}' remember different revisions: one of them was restored or changed"),
        )
        .hint(again),
    };
    Some(finding)
}

/// Is the clock right, as far as can be told.
pub(super) fn clock(host: &Host, is_root: bool) -> Finding {
    let check = "clock";
    let now = sys_clock::now();
    let at = moment(now);
    if is_root
        && host.exists(STATE_DATABASE).unwrap_or(false)
        && let Ok(record) = Record::open_read_only(&host.outer_path(STATE_DATABASE))
    {
        let highest: Timestamp = trusted_time::trusted_now(&record);
        if highest.duration_since(now) > CLOCK_SLACK {
            let detail = format!(
                "it is {at}, and was {} before: the clock was set back",
                moment(highest)
            );
            return Finding::wrong(check, detail).hint("set the clock: timedatectl set-ntp true");
        }
    }
    if host.exists(trusted_time::CLOCK_IS_RIGHT).unwrap_or(false) {
        return Finding::ok(check, format!("{at}, synchronised"));
    }
    let units = TIME_UNITS.map(str::to_owned);
    let listed = host.systemd().list_units(&units).unwrap_or_default();
    match listed.iter().find(|unit| unit.active == "active") {
        Some(unit) => Finding::ok(check, format!("{at}, kept by {}", unit.id)),
        None => Finding::warning(check, format!("{at}; nothing is known to keep it right"))
            .hint("keys with an expiry date need a right clock: timedatectl set-ntp true, or install chrony"),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the test makes the machine")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_trust_file_that_others_may_write_is_wrong() {
        let root = tempfile::tempdir().unwrap();
        let signers = root.path().join("etc/limpet/allowed_signers");
        std::fs::create_dir_all(signers.parent().unwrap()).unwrap();
        std::fs::write(&signers, "").unwrap();
        let host = Host::new(root.path());
        let config = Config::unverified("gw-1");
        let judged = |mode: u32| {
            std::fs::set_permissions(&signers, std::fs::Permissions::from_mode(mode)).unwrap();
            permissions(&host, Some(&config))
        };
        assert_eq!(judged(0o644)[0].verdict, Verdict::Ok);
        let found = judged(0o664);
        assert_eq!(found[0].verdict, Verdict::Wrong);
        assert!(found[0].detail.contains("allowed_signers"), "{found:?}");
    }
}
