//! What keeps this host from being run as it should be: one finding after the other, each with what to do.
//!
//! A *check* is a question; a *finding* is its answer. What the asker may not look at is a finding too.
//!
//! Invariant: looks only. Nothing is created, changed, started or repaired; the one thing that is asked to act is the fetcher, which
//! polls its source.

use serde::Serialize;

use crate::config::{CONFIG_FILE, Config};
use crate::model::{Class, Failure};
use crate::sys::Host;

mod keys;
mod machine;
mod own;
mod secrets;
mod source;

/// What was found, in order.
#[derive(Debug, Serialize)]
pub struct Examination {
    /// The host's name, where it has one.
    pub host: Option<String>,
    /// The version of this program.
    pub version: &'static str,
    /// Every check with its answer.
    pub findings: Vec<Finding>,
}

/// The answer to one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub check: &'static str,
    /// What came of it.
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
    /// What to do.
    pub hint: Option<String>,
}

/// What comes of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be, or only worth knowing.
    Ok,
    /// It works, and may not for long, or not as expected.
    Warning,
    /// Something must be done.
    Wrong,
    /// The host configuration is wrong, or missing.
    Config,
    /// It could not be looked at.
    Unknown,
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Finding {
            check,
            verdict,
            detail: detail.into(),
            hint: None,
        }
    }

    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Finding::new(check, Verdict::Ok, detail)
    }

    fn warning(check: &'static str, detail: impl Into<String>) -> Self {
        Finding::new(check, Verdict::Warning, detail)
    }

    fn wrong(check: &'static str, detail: impl Into<String>) -> Self {
        Finding::new(check, Verdict::Wrong, detail)
    }

    fn unknown(check: &'static str, detail: impl Into<String>) -> Self {
        Finding::new(check, Verdict::Unknown, detail)
    }

    fn of(check: &'static str, failure: &Failure) -> Self {
        let verdict = match failure.class {
            Class::Config => Verdict::Config,
            _ => Verdict::Wrong,
        };
        Finding {
            hint: failure.hint.clone(),
            ..Finding::new(check, verdict, failure.to_string())
        }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Finding {
            hint: Some(hint.into()),
            ..self
        }
    }
}

impl Examination {
    /// 0 when nothing must be done, 1 when something must, 78 when the host configuration is wrong.
    pub fn exit_code(&self) -> u8 {
        let is_any = |verdict| {
            self.findings
                .iter()
                .any(|finding| finding.verdict == verdict)
        };
        if is_any(Verdict::Config) {
            Class::Config.exit_code()
        } else if is_any(Verdict::Wrong) {
            1
        } else {
            0
        }
    }
}

/// Looks at everything. `config` is the host configuration as it was read; `is_root` says how far the asker may look.
pub fn examine(host: &Host, config: Result<Config, Vec<Failure>>, is_root: bool) -> Examination {
    let mut findings = Vec::new();
    let is_enrolled = host.exists(CONFIG_FILE).unwrap_or(true);
    let config = match config {
        Ok(config) => {
            let detail = format!("'{CONFIG_FILE}' is read as host '{}'", config.host.name);
            findings.push(Finding::ok("configuration", detail));
            Some(config)
        }
        Err(failures) => {
            findings.extend(failures.iter().map(|failure| Finding {
                verdict: Verdict::Config,
                ..Finding::of("configuration", failure)
            }));
            None
        }
    };
    if is_enrolled {
        findings.extend(own::permissions(host, config.as_ref()));
    }
    if let Some(config) = &config {
        findings.extend(keys::keys(host, config, is_root));
        findings.extend(own::marks(host, is_root));
        findings.push(secrets::age_key(host, config, is_root));
    }
    findings.push(own::clock(host, is_root));
    findings.extend(source::units(host, is_enrolled));
    findings.extend(source::running_binaries(host, is_root));
    if let Some(config) = &config {
        findings.extend(source::credentials(host, config));
        findings.push(source::reachable(host, is_root));
    }
    findings.extend(machine::packages(host, is_root));
    findings.extend(machine::systemd(host));
    findings.extend(machine::space(host));
    findings.extend(machine::security(host));
    findings.extend(machine::others(host));
    Examination {
        host: config.map(|config| config.host.name),
        version: env!("CARGO_PKG_VERSION"),
        findings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_configuration_comes_before_all_else_and_a_warning_is_no_failure() {
        let examination = |verdicts: &[Verdict]| Examination {
            host: None,
            version: "0",
            findings: verdicts
                .iter()
                .map(|verdict| Finding::new("check", *verdict, ""))
                .collect(),
        };
        assert_eq!(
            examination(&[Verdict::Ok, Verdict::Warning, Verdict::Unknown]).exit_code(),
            0
        );
        assert_eq!(examination(&[Verdict::Wrong, Verdict::Ok]).exit_code(), 1);
        assert_eq!(
            examination(&[Verdict::Wrong, Verdict::Config]).exit_code(),
            78
        );
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test makes the machine")]
    fn a_host_that_is_not_enrolled_is_looked_at_as_far_as_it_goes() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        let failure = Failure::new(Class::Config, "this host is not enrolled");
        let examination = examine(&host, Err(vec![failure]), false);
        assert_eq!(examination.exit_code(), 78);
        let verdicts: Vec<_> = examination
            .findings
            .iter()
            .filter(|finding| finding.verdict == Verdict::Config)
            .map(|finding| finding.check)
            .collect();
        assert_eq!(verdicts, ["configuration"]);
        assert_eq!(
            std::fs::read_dir(root.path()).unwrap().count(),
            0,
            "it makes nothing"
        );
    }
}
