//! `limpet doctor`: what keeps this host from being run as it should be, and what to do about it.

use std::fmt::Write as _;
use std::path::Path;

use crate::cli::CommandResult;
use crate::cli::terminal::{self, Terminal};
use crate::doctor::{Examination, Verdict, examine};
use crate::sys::Host;

/// Look at configuration, keys, clock, source, packages, units and disks, and say what to do
#[derive(Debug, clap::Args)]
#[command(after_help = "Changes nothing. Root sees more than others.\n\n\
    Exit codes: 0 nothing must be done, 1 something must, 78 the host configuration is wrong.")]
pub struct Arguments {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(arguments: &Arguments, terminal: &Terminal) -> CommandResult {
    let host = Host::new(Path::new("/"));
    let config = super::host_config(&host);
    let is_root = nix::unistd::geteuid().is_root();
    let examination = examine(&host, config, is_root);
    if arguments.json {
        terminal.data(&terminal::json(&examination)?)?;
    } else {
        terminal.show(&text(&examination))?;
    }
    Ok(examination.exit_code())
}

/// The findings as people read them.
pub fn text(examination: &Examination) -> String {
    let mut out = String::new();
    let width = examination
        .findings
        .iter()
        .map(|finding| finding.check.len())
        .max()
        .unwrap_or(0);
    for finding in &examination.findings {
        let mark = match finding.verdict {
            Verdict::Ok => '●',
            Verdict::Warning => '○',
            Verdict::Wrong | Verdict::Config => '✗',
            Verdict::Unknown => '?',
        };
        let word = match finding.verdict {
            Verdict::Ok => "ok      ",
            Verdict::Warning => "warning ",
            Verdict::Wrong | Verdict::Config => "to do   ",
            Verdict::Unknown => "not seen",
        };
        let _ = writeln!(
            out,
            "{mark} {word} {:<width$}  {}",
            finding.check, finding.detail
        );
        if let Some(hint) = &finding.hint {
            let _ = writeln!(out, "{:indent$}→ {hint}", "", indent = width + 13);
        }
    }
    let count = |wanted: &[Verdict]| {
        let findings = examination.findings.iter();
        findings
            .filter(|finding| wanted.contains(&finding.verdict))
            .count()
    };
    let wrong = count(&[Verdict::Wrong, Verdict::Config]);
    let warnings = count(&[Verdict::Warning]);
    let unseen = count(&[Verdict::Unknown]);
    let _ = write!(
        out,
        "\n{}",
        match wrong {
            0 => "nothing must be done".to_owned(),
            1 => "1 thing must be done".to_owned(),
            many => format!("{many} things must be done"),
        }
    );
    if warnings > 0 {
        let _ = write!(
            out,
            ", {warnings} warning{}",
            if warnings == 1 { "" } else { "s" }
        );
    }
    if unseen > 0 {
        let is_roots = |text: &str| text.contains("only root");
        let more = match examination
            .findings
            .iter()
            .any(|finding| is_roots(&finding.detail))
        {
            true => " (root sees more)",
            false => "",
        };
        let _ = write!(out, ", {unseen} not seen{more}");
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Finding;

    #[test]
    fn each_line_is_fine_or_says_what_to_do() {
        let finding = |check, verdict, detail: &str, hint: Option<&str>| Finding {
            check,
            verdict,
            detail: detail.into(),
            hint: hint.map(str::to_owned),
        };
        let examination = Examination {
            host: Some("gw-1".into()),
            version: "0.1.0",
            findings: vec![
                finding(
                    "configuration",
                    Verdict::Ok,
                    "'/etc/limpet/limpet.toml' is read as host 'gw-1'",
                    None,
                ),
                finding(
                    "clock",
                    Verdict::Warning,
                    "nothing is known to keep it right",
                    Some("timedatectl set-ntp true"),
                ),
                finding(
                    "units",
                    Verdict::Wrong,
                    "limpet.service is inactive",
                    Some("systemctl enable --now limpet.service"),
                ),
                finding(
                    "source",
                    Verdict::Unknown,
                    "only root may ask the fetcher",
                    None,
                ),
            ],
        };
        insta::assert_snapshot!(text(&examination), @r"
        ● ok       configuration  '/etc/limpet/limpet.toml' is read as host 'gw-1'
        ○ warning  clock          nothing is known to keep it right
                                  → timedatectl set-ntp true
        ✗ to do    units          limpet.service is inactive
                                  → systemctl enable --now limpet.service
        ? not seen source         only root may ask the fetcher

        1 thing must be done, 1 warning, 1 not seen (root sees more)
        ");
    }
}
