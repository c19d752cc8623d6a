//! What goes when a package goes: the installed packages that need it, and those that need them.
//!
//! Read from dpkg's database in the words of deb-control(5), or from what rpm says. What version is asked for is not looked at: what is installed together fits.
//!
//! Invariant: pure, and any text yields something; what cannot be read needs nothing.

use std::collections::{BTreeMap, HashMap};

/// An installed package, as far as others need it or it needs others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installed<'a> {
    name: &'a str,
    /// Each of these is needed, in one of its alternatives.
    needs: Vec<Vec<&'a str>>,
    /// Its own name, and what else it goes for.
    provides: Vec<&'a str>,
}

/// The installed packages in a text of deb-control stanzas.
pub(super) fn parse(text: &str) -> Vec<Installed<'_>> {
    text.split("\n\n").filter_map(parse_stanza).collect()
}

/// The installed packages in lines of `P package provided` and `R package required`.
pub(super) fn parse_relations(text: &str) -> Vec<Installed<'_>> {
    let mut found: BTreeMap<&str, Installed<'_>> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let &[sort, name, other] = words.as_slice() else {
            continue; // a need with conditions
        };
        let installed = found.entry(name).or_insert_with(|| Installed {
            name,
            needs: Vec::new(),
            provides: vec![name],
        });
        match sort {
            "P" => installed.provides.push(other),
            "R" => installed.needs.push(vec![other]),
            _ => {}
        }
    }
    found.into_values().collect()
}

fn parse_stanza(stanza: &str) -> Option<Installed<'_>> {
    let mut found = Installed {
        name: "",
        needs: Vec::new(),
        provides: Vec::new(),
    };
    let mut is_installed = false;
    for line in stanza.lines() {
        let Some((field, value)) = line.split_once(':') else {
            continue;
        };
        match field {
            "Package" => found.name = value.trim(),
            // Half of it may be there and in use.
            "Status" => {
                is_installed = !value.ends_with("config-files") && !value.ends_with("not-installed")
            }
            "Depends" | "Pre-Depends" => found.needs.extend(
                value
                    .split(',')
                    .map(|need| need.split('|').filter_map(name_in).collect()),
            ),
            "Provides" => found.provides.extend(value.split(',').filter_map(name_in)),
            _ => {}
        }
    }
    found.provides.push(found.name);
    (is_installed && !found.name.is_empty()).then_some(found)
}

/// The name in `name:any (>= 1.0) [amd64]`.
fn name_in(relation: &str) -> Option<&str> {
    let name = relation
        .trim()
        .split(|c: char| c.is_whitespace() || "(:[<".contains(c))
        .next()?;
    (!name.is_empty()).then_some(name)
}

/// The names of those that go when `removed` does.
pub(super) fn dependants(installed: &[Installed<'_>], removed: &str) -> Vec<String> {
    let mut providers: HashMap<&str, usize> = HashMap::new();
    for package in installed {
        for name in &package.provides {
            *providers.entry(name).or_default() += 1;
        }
    }
    let was_there = providers.clone();
    let mut is_gone: Vec<bool> = installed.iter().map(|_| false).collect();
    let mut gone = Vec::new();
    loop {
        let mut is_news = false;
        for (index, package) in installed.iter().enumerate() {
            // What was not met before is not broken now.
            let is_broken = |need: &Vec<&str>| {
                let is_met = |by: &HashMap<&str, usize>| {
                    need.iter()
                        .any(|name| by.get(name).is_some_and(|count| *count > 0))
                };
                is_met(&was_there) && !is_met(&providers)
            };
            let goes = package.name == removed || package.needs.iter().any(is_broken);
            if is_gone[index] || !goes {
                continue;
            }
            is_gone[index] = true;
            is_news = true;
            for name in &package.provides {
                if let Some(count) = providers.get_mut(name) {
                    *count = count.saturating_sub(1);
                }
            }
            if package.name != removed {
                gone.push(package.name.to_owned());
            }
        }
        if !is_news {
            gone.sort();
            gone.dedup();
            return gone;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATUS: &str = "Package: libssl3
Status: install ok installed

Package: openssh-server
Status: install ok installed
Pre-Depends: init-system-helpers (>= 1.54~)
Depends: openssh-client (= 1:9.2), libssl3 (>= 3.0.0), debconf (>= 0.5) | debconf-2.0

Package: openssh-client
Status: hold ok installed
Depends: libssl3:any (>= 3.0.0)

Package: mail-reader
Status: install ok installed
Depends: mail-transport-agent | no-such-thing

Package: exim4
Status: install ok installed
Provides: mail-transport-agent

Package: postfix
Status: install ok installed
Provides: mail-transport-agent (= 1), other

Package: mailer
Status: deinstall ok config-files
Depends: libssl3
";

    #[track_caller]
    fn check(removed: &str, expected: &[&str]) {
        assert_eq!(dependants(&parse(STATUS), removed), expected, "{removed}");
    }

    #[test]
    fn what_needs_a_package_goes_with_it_and_what_needs_that() {
        check("libssl3", &["openssh-client", "openssh-server"]);
        check("openssh-client", &["openssh-server"]);
        check("openssh-server", &[]);
    }

    #[test]
    fn what_another_package_stands_in_for_stays() {
        check("exim4", &[]);
        let without_postfix = STATUS
            .replace(
                "Package: postfix\nStatus: install ok",
                "Package: postfix\nStatus: deinstall ok",
            )
            .replace(
                "installed\nProvides: mail-transport-agent (= 1)",
                "config-files\nProvides: x",
            );
        assert_eq!(
            dependants(&parse(&without_postfix), "exim4"),
            ["mail-reader"]
        );
        check("no-such-thing", &[]);
    }

    #[test]
    fn what_rpm_says_is_understood() {
        let text = "P openssl-libs openssl-libs\nP openssl-libs libssl.so.3()(64bit)\n\
                    P sshd sshd\nR sshd libssl.so.3()(64bit)\nR sshd /bin/sh\nR sshd (a if b)\n\
                    P keys keys\nR keys sshd\nP other other\nR other other\n";
        let found = |removed: &str| dependants(&parse_relations(text), removed);
        assert_eq!(found("openssl-libs"), ["keys", "sshd"]);
        assert_eq!(found("keys"), [""; 0]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(Package: [a-c]{0,2}|Status: install ok installed|Depends: [a-c|, (]{0,9}|Provides: [a-c,]{0,4}|\n){0,30}") {
            let installed = parse(&text);
            let found = dependants(&installed, "a");
            prop_assert!(!found.contains(&"a".to_owned()));
        }
    }
}
