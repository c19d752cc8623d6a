//! Whose signatures count on this host, and for how long.

use jiff::{SignedDuration, Timestamp};

use crate::config::Config;
use crate::cycle::judge;
use crate::cycle::trust_view::TrustView;
use crate::doctor::Finding;
use crate::report::moment;
use crate::sys::{Host, clock};
use crate::trust::FleetPolicy;

/// A key that expires sooner than this is worth a warning.
const EXPIRY_NOTICE: SignedDuration = SignedDuration::from_hours(30 * 24);

const CHECK: &str = "keys";

/// The keys that count: those of the repository's policy, where it has one, or of the host's own file.
pub(super) fn keys(host: &Host, config: &Config, is_root: bool) -> Vec<Finding> {
    let own = match judge::read_policy(host, config) {
        Ok(own) => own,
        Err(refusal) => return vec![Finding::of(CHECK, &refusal.into())],
    };
    let view = match TrustView::read(host, config, own) {
        Ok(view) => view,
        Err(_) if !is_root => {
            return vec![Finding::unknown(
                CHECK,
                "only root may read whose signatures count",
            )];
        }
        Err(failure) => return vec![Finding::of(CHECK, &failure)],
    };
    let now = clock::now();
    match (&view.policy, &view.own.allowed) {
        (Some(policy), _) => of_policy(policy, &view, &config.trust.allowed_signers, now),
        (None, Err(refusal)) => vec![Finding::of(CHECK, &refusal.clone().into())],
        (None, Ok(signers)) => {
            let mut usable = Vec::new();
            let mut findings = Vec::new();
            for key in signers.keys() {
                let name = format!("{} ({})", key.principal, key.fingerprint);
                if view.revoked(&key.fingerprint).is_some() {
                    continue;
                }
                if key.valid_after.is_none_or(|start| start <= now) {
                    let remedy = format!("take it out of '{}'", signers.file());
                    look_at_end(
                        &name,
                        key.valid_before,
                        now,
                        remedy,
                        &mut findings,
                        &mut usable,
                    );
                }
            }
            findings.insert(0, who_may_sign(&usable, signers.file()));
            findings
        }
    }
}

fn of_policy(
    policy: &FleetPolicy,
    view: &TrustView,
    signers_file: &str,
    now: Timestamp,
) -> Vec<Finding> {
    let mut usable = Vec::new();
    let mut findings = Vec::new();
    for (name, key) in &policy.keys {
        if view.revoked(&key.fingerprint).is_none() {
            let name = format!("{name} ({})", key.fingerprint);
            let remedy = format!("take it out of '{}', or give it more time", policy.file());
            look_at_end(
                &name,
                key.not_after,
                now,
                remedy,
                &mut findings,
                &mut usable,
            );
        }
    }
    findings.insert(0, who_may_sign(&usable, policy.file()));
    findings.push(Finding::ok(
        CHECK,
        format!(
            "the repository's {} (version {}) decides; '{signers_file}' is not read any more",
            policy.file(),
            policy.version
        ),
    ));
    findings
}

/// A key that ended, or will soon, is worth a word.
fn look_at_end(
    name: &str,
    end: Option<Timestamp>,
    now: Timestamp,
    remedy: String,
    findings: &mut Vec<Finding>,
    usable: &mut Vec<String>,
) {
    match end {
        Some(end) if end <= now => {
            let detail = format!("the key of {name} expired at {}", moment(end));
            findings.push(Finding::warning(CHECK, detail).hint(remedy));
        }
        Some(end) if end.duration_since(now) < EXPIRY_NOTICE => {
            usable.push(name.to_owned());
            let detail = format!("the key of {name} expires at {}", moment(end));
            let hint = "give its holder's next key to this host before that";
            findings.push(Finding::warning(CHECK, detail).hint(hint));
        }
        _ => usable.push(name.to_owned()),
    }
}

fn who_may_sign(usable: &[String], file: &str) -> Finding {
    match usable {
        [] => Finding::wrong(
            CHECK,
            format!("no key in '{file}' may sign now: no new revision can be accepted"),
        )
        .hint("add the key of whoever signs: NAME namespaces=\"git\" ssh-ed25519 AAAA…"),
        [one] => Finding::ok(CHECK, format!("{one} may sign")),
        several => Finding::ok(
            CHECK,
            format!("{} keys may sign: {}", several.len(), several.join(", ")),
        ),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the test makes the machine")]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn without_any_key_nothing_can_be_accepted() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/limpet")).unwrap();
        let put = |name: &str, text: &str| {
            std::fs::write(root.path().join("etc/limpet").join(name), text).unwrap();
        };
        let (host, config) = (Host::new(root.path()), Config::unverified("gw-1"));
        // What anybody may read is told to anybody.
        for is_root in [true, false] {
            let found = keys(&host, &config, is_root);
            assert_eq!(found[0].verdict, Verdict::Wrong, "no revoked file");
        }
        put("revoked", "");
        assert_eq!(
            keys(&host, &config, true)[0].verdict,
            Verdict::Wrong,
            "no signers file"
        );
        put("allowed_signers", "# nobody\n");
        let found = keys(&host, &config, true);
        assert_eq!(found[0].verdict, Verdict::Wrong);
        assert!(found[0].detail.contains("no key"), "{found:?}");
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBN2QTQm0+Qb6pqKqz0qY1wE0dXJtVsmyYfWbGd1ZB3M";
        put(
            "allowed_signers",
            &format!("alice namespaces=\"git\" {key}\n"),
        );
        assert_eq!(keys(&host, &config, true)[0].verdict, Verdict::Ok);
        put(
            "allowed_signers",
            &format!("alice namespaces=\"git\",valid-before=\"20200101Z\" {key}\n"),
        );
        let found = keys(&host, &config, true);
        assert_eq!(found[0].verdict, Verdict::Wrong);
        assert!(found[1].detail.contains("expired"), "{found:?}");
    }
}
