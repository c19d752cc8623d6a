//! Health checks.

use std::time::Duration;

use super::file::none_or;
use super::{Resolved, Resolver};
use crate::config::parse_duration;
use crate::document::{Mistake, Place, Table};
use crate::fleet::{declared, layer};
use crate::kinds::health::{DesiredHealth, Probe, When};
use crate::model::ResourceId;

/// What asks, one of which a check has.
const PROBES: [&str; 5] = ["http", "tcp", "unit", "command", "source"];

/// By when a check must have held, unless said otherwise.
const WITHIN: &str = "30s";

/// For how long, unless said otherwise.
const STABLE: &str = "2s";

/// As long as a host may be on probation.
const LONGEST: Duration = Duration::from_secs(60 * 60);

impl Resolver<'_, '_> {
    pub(super) fn health(
        &self,
        id: &ResourceId,
        table: &Table,
        place: &Place,
        out: &mut Resolved,
    ) -> Result<(), Vec<Mistake>> {
        let what = id.to_string();
        let health: declared::Health = declared::read(table, place, &what)?;
        let mut mistakes = Vec::new();
        let said: Vec<&str> = PROBES
            .into_iter()
            .filter(|key| table.get(key).is_some())
            .collect();
        match said.as_slice() {
            [_] => {}
            [] => mistakes.push(
                Mistake::new(place, format!("{what} asks nothing"))
                    .hint("give it one of http, tcp, unit, command or source = true"),
            ),
            [first, second, ..] => mistakes.push(
                Mistake::new(
                    &table.place_of(second, place),
                    format!("{what} has both `{first}` and `{second}`"),
                )
                .note(format!("`{first}` is here"), &table.place_of(first, place))
                .hint("write two checks"),
            ),
        }
        let probe = read_probe(&what, &health, table, place, &mut mistakes);
        let mut duration = |key: &str, text: &str| {
            let parsed = parse_duration(text);
            if parsed.is_none_or(|parsed| parsed > LONGEST) {
                let place = table.place_of(key, place);
                mistakes.push(match parsed {
                    Some(_) => Mistake::new(&place, format!("`{key}` of {what} is longer than 1h")),
                    None => {
                        Mistake::new(&place, format!("'{}' is no duration", text.escape_debug()))
                            .hint(format!("write a number and s, m or h: {key} = \"30s\""))
                    }
                });
            }
            parsed
        };
        let within = duration("within", health.within.as_deref().unwrap_or(WITHIN));
        let stable = duration("stable", health.stable.as_deref().unwrap_or(STABLE));
        if let (Some(within), Some(stable)) = (within, stable)
            && (stable > within || within.is_zero())
        {
            let key = if table.get("stable").is_some() {
                "stable"
            } else {
                "within"
            };
            mistakes.push(
                Mistake::new(
                    &table.place_of(key, place),
                    format!("{what} could never hold: `within` is shorter than `stable`, or nothing"),
                )
                .hint("`within` is the time for everything, `stable` the part of it for which it must hold at the end"),
            );
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let when = match health.when.unwrap_or_default() {
            declared::When::After => When::After,
            declared::When::Before => When::Before,
            declared::When::Both => When::Both,
        };
        let is_rollback = health.on_failure.unwrap_or_default() == declared::OnFailure::Rollback;
        out.health = probe
            .zip(within)
            .zip(stable)
            .map(|((probe, within), stable)| DesiredHealth {
                id: id.clone(),
                probe,
                when,
                within,
                stable,
                // What is only looked at undoes nothing.
                rolls_back: is_rollback && !health.report.unwrap_or(false),
            });
        none_or(mistakes)
    }
}

fn read_probe(
    what: &str,
    health: &declared::Health,
    table: &Table,
    place: &Place,
    mistakes: &mut Vec<Mistake>,
) -> Option<Probe> {
    let mut wrong = |key: &str, message: String, hint: &str| {
        mistakes.push(Mistake::new(&table.place_of(key, place), message).hint(hint));
    };
    if let Some(url) = &health.http {
        if !is_url(url) {
            let message = format!("`http` of {what} is no address");
            wrong(
                "http",
                message,
                "write: http = \"http://127.0.0.1:8080/health\"",
            );
        }
        return Some(Probe::Http(url.clone()));
    }
    if let Some(address) = &health.tcp {
        if !is_address(address) {
            let message = format!("`tcp` of {what} is no host and port");
            wrong(
                "tcp",
                message,
                "write: tcp = \"127.0.0.1:22\", or \"[::1]:22\"",
            );
        }
        return Some(Probe::Tcp(address.clone()));
    }
    if let Some(unit) = &health.unit {
        let place = table.place_of("unit", place);
        mistakes.extend(layer::check_unit_name(unit, &place));
        return Some(Probe::Unit(unit.clone()));
    }
    if let Some(command) = &health.command {
        let is_program = |program: &String| {
            !program.is_empty() && (program.starts_with('/') || !program.contains('/'))
        };
        if !command.first().is_some_and(is_program)
            || command.iter().any(|word| word.contains('\0'))
        {
            let message = format!("`command` of {what} names no program");
            wrong(
                "command",
                message,
                "a program is named by its absolute path, or by its name alone",
            );
        }
        return Some(Probe::Command(command.clone()));
    }
    if health.source == Some(false) {
        wrong(
            "source",
            format!("{what} asks nothing"),
            "write: source = true",
        );
    }
    health.source.map(|_| Probe::Source)
}

/// An address that can be asked: no user, no blank, nothing that a line of a request could not hold.
fn is_url(url: &str) -> bool {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']'));
    let is_host = match has_port {
        true => is_address(authority),
        false => is_host(authority),
    };
    url.len() <= 2048 && is_host && url.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `host:port`, with an IPv6 address in brackets.
fn is_address(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0);
    is_port && is_host(host)
}

fn is_host(host: &str) -> bool {
    match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_what_is_none() {
        for url in [
            "http://127.0.0.1:8080/health",
            "https://localhost",
            "http://[::1]:80/x?y=z",
            "http://[::1]/",
            "http://a",
        ] {
            assert!(is_url(url), "{url}");
        }
        for url in [
            "127.0.0.1:80",
            "ftp://a",
            "http://",
            "http://a b/",
            "http://u:p@a/",
            "http://a:0/",
            "http://a:99999/",
            "http://a/\n",
            "http://[x]/",
        ] {
            assert!(!is_url(url), "{url}");
        }
        for address in ["127.0.0.1:22", "[::1]:22", "db-1.example:5432"] {
            assert!(is_address(address), "{address}");
        }
        for address in ["22", ":22", "a:", "a:+1", "::1:22", "a:0", "http://a:1"] {
            assert!(!is_address(address), "{address}");
        }
    }
}
