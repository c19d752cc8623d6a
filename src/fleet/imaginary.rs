//! Imaginary hosts: one for each rule that fits no known host, so that what the rule gives is rendered before a host gets it.
//!
//! An imaginary host has just what its rule asks for. Whatever facts the rule leaves open are those of a Debian 12 on amd64, because
//! other rules may ask for them.

use std::collections::BTreeMap;

use super::inventory::{FACTS, family_of};
use super::manifest::Rule;
use super::select::{matches_name, rule_fits};
use super::{Fleet, HostIdentity};
use crate::config::is_host_name;
use crate::model::Location;

/// A host that nobody has declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImaginaryHost {
    /// Who it would be.
    pub identity: HostIdentity,
    /// The rule it stands for.
    pub rule: Location,
    /// The labels and facts that the rule asks for, as `key = "value"`.
    asked: Vec<String>,
}

impl std::fmt::Display for ImaginaryHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a host called '{}'", self.identity.name)?;
        if self.asked.is_empty() {
            return Ok(());
        }
        write!(f, " with {}", self.asked.join(", "))
    }
}

/// The rules that fit no known host.
#[derive(Debug, Default)]
pub struct UnusedRules {
    /// One host for each of them; rules that ask for the same share one.
    pub hosts: Vec<ImaginaryHost>,
    /// The rules that no host at all can fit, as far as we can think.
    pub impossible: Vec<Location>,
}

impl Fleet<'_> {
    /// Imagines a host for each rule that fits none of `known`.
    pub fn imagine_hosts(&self, known: &[HostIdentity]) -> UnusedRules {
        let known: Vec<_> = known.iter().map(|host| self.traits(host)).collect();
        let mut unused = UnusedRules::default();
        for rule in &self.manifest.rules {
            if known
                .iter()
                .any(|traits| rule_fits(rule, traits) == Some(true))
            {
                continue;
            }
            let host = self
                .imagine(rule)
                .filter(|host| rule_fits(rule, &self.traits(&host.identity)) == Some(true));
            match host {
                None => unused.impossible.push(rule.place.location()),
                Some(host) => {
                    let is_new = |other: &ImaginaryHost| other.identity != host.identity;
                    if unused.hosts.iter().all(is_new) {
                        unused.hosts.push(host);
                    }
                }
            }
        }
        unused
    }

    fn imagine(&self, rule: &Rule) -> Option<ImaginaryHost> {
        let asked = rule.labels.iter().chain(&rule.facts);
        Some(ImaginaryHost {
            identity: HostIdentity {
                name: self.imagine_name(rule.hosts.as_deref())?,
                labels: rule.labels.iter().cloned().collect(),
                facts: imagine_facts(&rule.facts),
                machine_id: None,
            },
            rule: rule.place.location(),
            asked: asked
                .map(|(key, value)| format!("{key} = \"{value}\""))
                .collect(),
        })
    }

    /// A name that fits one of `patterns`, and that no known host has where the patterns leave a choice.
    fn imagine_name(&self, patterns: Option<&[glob::Pattern]>) -> Option<String> {
        let any = [glob::Pattern::new("*").expect("a star is a pattern")];
        let names: Vec<String> = patterns
            .unwrap_or(&any)
            .iter()
            .flat_map(names_that_fit)
            .collect();
        let is_free = |name: &&String| self.inventory.get(name).is_none();
        names.iter().find(is_free).or(names.first()).cloned()
    }
}

/// Some host names that fit `pattern`; none when it is too odd for that, or fits no host name.
fn names_that_fit(pattern: &glob::Pattern) -> Vec<String> {
    ["any", "any-host", "some-other-host", "a", "0", ""]
        .into_iter()
        .filter_map(|filler| fill(pattern.as_str(), filler))
        .filter(|name| is_host_name(name) && matches_name(pattern, name))
        .collect()
}

/// `pattern` with `filler` for each `*`, and a character that fits for each `?` and `[class]`.
fn fill(pattern: &str, filler: &str) -> Option<String> {
    let mut name = String::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '[' => class_length(rest)?,
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        match first {
            '*' => name.push_str(filler),
            '?' | '[' => name.push(character_that_fits(token)?),
            _ => name.push(first),
        }
        rest = after;
    }
    Some(name)
}

/// The length in bytes of the class at the start of `pattern`; a bracket that comes first in it stands for itself.
fn class_length(pattern: &str) -> Option<usize> {
    let inner = pattern.strip_prefix('[')?;
    let inner = inner.strip_prefix('!').unwrap_or(inner);
    let mut after_first = inner.chars();
    after_first.next()?;
    let end = after_first.as_str().find(']')?;
    Some(pattern.len() - after_first.as_str().len() + end + 1)
}

fn character_that_fits(class: &str) -> Option<char> {
    let class = glob::Pattern::new(class).ok()?;
    ('a'..='z')
        .chain('0'..='9')
        .chain('A'..='Z')
        .chain("-_.".chars())
        .find(|character| matches_name(&class, &character.to_string()))
}

/// Every fact of a host that has those that are `asked`.
fn imagine_facts(asked: &[(String, String)]) -> BTreeMap<String, String> {
    let asked: BTreeMap<&str, &str> = asked
        .iter()
        .map(|(fact, value)| (fact.as_str(), value.as_str()))
        .collect();
    let os = match (asked.get("os"), asked.get("family")) {
        (Some(os), _) => os,
        (None, Some(family)) if family_of(family) == Some(family) => family,
        (None, Some(_)) => "",
        (None, None) => "debian",
    };
    let family = family_of(os).unwrap_or_default();
    let os_version = match family {
        "debian" => "12",
        "rhel" => "9",
        _ => "",
    };
    FACTS
        .into_iter()
        .map(|fact| {
            let value = match fact {
                "os" => os,
                "family" => family,
                "os_version" => os_version,
                "arch" => "amd64",
                _ => "",
            };
            let value = asked.get(fact).copied().unwrap_or(value);
            (fact.to_owned(), value.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, expected: Option<&str>) {
        let names = names_that_fit(&glob::Pattern::new(pattern).unwrap());
        assert_eq!(names.first().map(String::as_str), expected, "{pattern}");
    }

    #[test]
    fn a_name_fits_the_pattern_it_was_made_for() {
        check("*", Some("any"));
        check("gw", Some("gw"));
        check("web-*", Some("web-any"));
        check("*.example.net", Some("any.example.net"));
        check("web-??", Some("web-aa"));
        check("web-[0-9][!a-c]", Some("web-0d"));
        check("a[]x]b", Some("axb"));
        check("a[!]x]b", Some("aab"));
        check("[[]", None);
        check("no such host", None);
        check("é*", None);
    }

    proptest::proptest! {
        #[test]
        fn no_pattern_is_too_odd(pattern in ".{0,20}") {
            if let Ok(pattern) = glob::Pattern::new(&pattern) {
                for name in names_that_fit(&pattern) {
                    proptest::prop_assert!(is_host_name(&name));
                }
            }
        }
    }

    #[test]
    fn facts_that_nobody_asked_for_agree_with_those_that_are() {
        let facts = |asked: &[(&str, &str)]| {
            let asked: Vec<_> = asked
                .iter()
                .map(|(fact, value)| ((*fact).to_owned(), (*value).to_owned()))
                .collect();
            let facts = imagine_facts(&asked);
            ["os", "family", "os_version", "arch"].map(|fact| facts[fact].clone())
        };
        assert_eq!(facts(&[]), ["debian", "debian", "12", "amd64"]);
        assert_eq!(
            facts(&[("family", "rhel"), ("arch", "arm64")]),
            ["rhel", "rhel", "9", "arm64"]
        );
        assert_eq!(
            facts(&[("os", "ubuntu"), ("os_version", "24.04")]),
            ["ubuntu", "debian", "24.04", "amd64"]
        );
        assert_eq!(facts(&[("os", "arch")]), ["arch", "", "", "amd64"]);
    }
}
