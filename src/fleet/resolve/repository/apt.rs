//! Repositories for apt: a deb822 file, the key that it is signed by, and a pin where it has a priority.

use super::Declared;
use crate::document::Mistake;
use crate::fleet::declared::AptRepository;
use crate::fleet::resolve::unit::brought;
use crate::fleet::resolve::{Resolved, Resolver};
use crate::fleet::sources::inline;
use crate::kinds::repository::{DesiredRepository, Told};

/// Whose files apt reads as sources: those that end in `.sources`.
const SOURCES_DIRECTORY: &str = "/etc/apt/sources.list.d";
/// Where an administrator keeps keys that single sources are signed by (sources.list(5), "Signed-By").
const KEYRINGS_DIRECTORY: &str = "/etc/apt/keyrings";
/// What is preferred to what (apt_preferences(5)): those that end in `.pref`.
pub(in crate::fleet::resolve) const PREFERENCES_DIRECTORY: &str = "/etc/apt/preferences.d";

/// From the next number on apt goes down to what has it.
const HIGHEST_PRIORITY: i64 = 1000;

impl Resolver<'_, '_> {
    pub(super) fn apt_repository(
        &self,
        declared: &Declared<'_>,
        apt: &AptRepository,
        mistakes: &mut Vec<Mistake>,
        out: &mut Resolved,
    ) {
        let none = Vec::new();
        let uris = apt.uris.as_ref().unwrap_or(&none);
        let suites = apt.suites.as_ref().unwrap_or(&none);
        let components = apt.components.as_ref().unwrap_or(&none);
        if uris.is_empty() {
            mistakes.push(declared.missing("uris", "[\"https://apt.example/debian\"]"));
        }
        if suites.is_empty() {
            mistakes.push(declared.missing("suites", "[\"stable\"]"));
        }
        mistakes.extend(
            uris.iter()
                .filter_map(|uri| declared.check_uri("uris", uri)),
        );
        for (key, words) in [("suites", suites), ("components", components)] {
            let wrong = words.iter().filter(|word| !is_word(word));
            mistakes.extend(wrong.map(|word| {
                Mistake::new(
                    &declared.place_of(key),
                    format!(
                        "'{}' in `{key}` of {} is no word",
                        word.escape_debug(),
                        declared.what()
                    ),
                )
                .hint("use letters, digits and '-', '_', '.', '~', '/'; one word for each")
            }));
        }
        // A suite that ends in '/' is the directory itself, and has no components; any other has.
        let is_flat = |suite: &String| suite.ends_with('/');
        let flat = suites.iter().filter(|suite| is_flat(suite)).count();
        let what = declared.what();
        if flat > 0 && (flat < suites.len() || !components.is_empty()) {
            mistakes.push(
                Mistake::new(
                    &declared.place_of("suites"),
                    format!("a suite of {what} ends in '/', and there are components or other suites"),
                )
                .hint("a suite that ends in '/' is a directory without components; declare it as a repository of its own"),
            );
        } else if flat == 0 && !suites.is_empty() && components.is_empty() {
            mistakes.push(declared.missing("components", "[\"main\"]"));
        }
        let priority = apt.priority;
        if priority.is_some_and(|it| it == 0 || !(-1..=HIGHEST_PRIORITY).contains(&it)) {
            mistakes.push(
                Mistake::new(
                    &declared.place_of("priority"),
                    format!("`priority` of {what} is a number from 1 to {HIGHEST_PRIORITY}, or -1"),
                )
                .hint("500 is what apt gives by itself, -1 installs nothing; above 1000 apt would go down to it, which a package says by itself: allow_downgrade = true"),
            );
        }
        let certificates = self.repository_key(declared, apt.key.as_deref(), mistakes, out);
        if !mistakes.is_empty() {
            return;
        }
        let id = declared.bringer.id;
        let name = id.name.as_str();
        let keyring = format!("{KEYRINGS_DIRECTORY}/{name}.gpg");
        let (comment, trust) = match &certificates {
            Some(certificates) => (
                format!("signed by {}", certificates.fingerprints.join(", ")),
                format!("Signed-By: {keyring}\n"),
            ),
            // What an operator allows with `allow_unsigned_repositories`, and nothing else, says this.
            None if apt.key.is_none() => ("not signed".to_owned(), "Trusted: yes\n".to_owned()),
            None => return,
        };
        let components = match components.is_empty() {
            true => String::new(),
            false => format!("Components: {}\n", components.join(" ")),
        };
        let sources = format!(
            "# Declared by the fleet; changes made here are undone.\n# {id}, {comment}\n\
             Types: deb\nURIs: {}\nSuites: {}\n{components}{trust}",
            uris.join(" "),
            suites.join(" "),
        );
        let pin = priority.map(|priority| pin(uris, priority));
        let file = format!("{SOURCES_DIRECTORY}/{name}.sources");
        out.repository = Some(DesiredRepository {
            id: id.clone(),
            told: Told::Apt(file.clone()),
            report: declared.bringer.report,
        });
        let files = [
            (file, Some(inline(sources))),
            (keyring, certificates.map(|it| inline(it.binary))),
            (
                format!("{PREFERENCES_DIRECTORY}/{name}.pref"),
                pin.map(inline),
            ),
        ];
        for (path, content) in files {
            if let Some(content) = content {
                let file = brought(&declared.bringer, path, content);
                out.add_path(self.limits, file, &declared.place, mistakes);
            }
        }
    }
}

/// Before their lists are there nothing is known of repositories but where they are; apt calls that "origin".
fn pin(uris: &[String], priority: i64) -> String {
    let mut hosts: Vec<&str> = uris.iter().map(|uri| host_of(uri)).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let stanza =
        |host: &str| format!("Package: *\nPin: origin \"{host}\"\nPin-Priority: {priority}\n");
    let stanzas: Vec<String> = hosts.into_iter().map(stanza).collect();
    format!(
        "Explanation: Declared by the fleet; changes made here are undone.\n{}",
        stanzas.join("\n")
    )
}

/// The name of the host that `uri` is on; empty for what lies on this one.
fn host_of(uri: &str) -> &str {
    let Some((_, rest)) = uri
        .split_once("://")
        .filter(|(scheme, _)| *scheme != "file")
    else {
        return "";
    };
    let authority = rest.split('/').next().unwrap_or_default();
    authority.split(':').next().unwrap_or_default()
}

fn is_word(word: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    !word.is_empty()
        && word.len() <= 200
        && word.bytes().all(is_legal)
        && !word.starts_with(['-', '/'])
        && word.split('/').all(|part| part != "..")
}
