//! Mistakes as other programs read them.
//!
//! JSON is one object: `{"hosts", "imaginary", "layers", "digests": {host: digest}, "notes": ["…"], "mistakes": [{"class", "message",
//! "location": {"file", "line", "column"}, "hint", "resource"}]}`. Files are named from the directory that was checked.
//!
//! The others name files from the repository's root, because they are shown beside its lines: there the path that was given to check
//! stands before them.

use std::fmt::Write;
use std::path::{Component, Path};

use serde_json::{Value, json};

use super::{Checked, Format};
use crate::cli::terminal;
use crate::document::single_line;
use crate::model::Failure;

/// What was found, in a format for programs.
pub(super) fn report(
    format: Format,
    checked_path: &Path,
    checked: &Checked,
) -> Result<String, Vec<Failure>> {
    let prefix = prefix(checked_path);
    match format {
        Format::Human => Ok(String::new()),
        Format::Github => Ok(github(&prefix, checked)),
        Format::Json => terminal::json(&as_json(checked)),
        Format::Sarif => terminal::json(&sarif(&prefix, checked)),
    }
}

/// The path that was checked, as it stands before a file's name; nothing for where we are, or for what lies outside of it.
fn prefix(path: &Path) -> String {
    let mut prefix = String::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                prefix.push_str(&name.to_string_lossy());
                prefix.push('/');
            }
            Component::CurDir => {}
            _ => return String::new(),
        }
    }
    prefix
}

/// A mistake in one text: what is wrong, the hint below.
fn told(failure: &Failure) -> String {
    match &failure.hint {
        Some(hint) => format!("{}\nhint: {hint}", failure.message),
        None => failure.message.clone(),
    }
}

/// Workflow commands: <https://docs.github.com/actions/reference/workflow-commands-for-github-actions>.
fn github(prefix: &str, checked: &Checked) -> String {
    let mut text = String::new();
    for failure in &checked.mistakes {
        let _ = match &failure.location {
            Some(at) => writeln!(
                text,
                "::error file={},line={},col={},title={}::{}",
                property(&format!("{prefix}{}", at.file)),
                at.line,
                at.column,
                property("limpet check"),
                data(&told(failure))
            ),
            None => writeln!(
                text,
                "::error title={}::{}",
                property("limpet check"),
                data(&told(failure))
            ),
        };
    }
    for note in &checked.notes {
        let _ = writeln!(
            text,
            "::notice title={}::{}",
            property("limpet check"),
            data(&single_line(note))
        );
    }
    text
}

/// What stands behind the `::` of a workflow command.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// What stands behind a `=` of a workflow command.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

fn as_json(checked: &Checked) -> Value {
    let mistakes: Vec<Value> = checked
        .mistakes
        .iter()
        .map(|failure| {
            json!({
                "class": failure.class,
                "message": failure.message,
                "location": failure.location,
                "hint": failure.hint,
                "resource": failure.resource,
            })
        })
        .collect();
    let digests: serde_json::Map<String, Value> = checked
        .digests
        .iter()
        .map(|(host, digest)| (host.clone(), Value::from(digest.as_str())))
        .collect();
    json!({
        "hosts": checked.hosts,
        "imaginary": checked.imaginary,
        "layers": checked.layers,
        "digests": digests,
        "notes": checked.notes,
        "mistakes": mistakes,
    })
}

/// SARIF 2.1.0: <https://docs.oasis-open.org/sarif/sarif/v2.1.0/>. There is one rule, because every mistake is explained by itself.
fn sarif(prefix: &str, checked: &Checked) -> Value {
    let results: Vec<Value> = checked
        .mistakes
        .iter()
        .map(|failure| {
            let mut result = json!({
                "ruleId": RULE,
                "ruleIndex": 0,
                "level": "error",
                "message": { "text": told(failure) },
            });
            if let Some(at) = &failure.location {
                result["locations"] = json!([{
                    "physicalLocation": {
                        "artifactLocation": { "uri": uri(&format!("{prefix}{}", at.file)), "uriBaseId": "%SRCROOT%" },
                        "region": { "startLine": at.line, "startColumn": at.column },
                    },
                }]);
            }
            result
        })
        .collect();
    json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "limpet",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": [{
                    "id": RULE,
                    "shortDescription": { "text": "The fleet repository has no mistakes" },
                    "defaultConfiguration": { "level": "error" },
                }],
            } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

const RULE: &str = "fleet";

/// A relative path as a URI reference.
fn uri(path: &str) -> String {
    let mut uri = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Class, Location};

    fn checked(file: &str) -> Checked {
        let location = Location {
            file: file.into(),
            line: 3,
            column: 7,
        };
        let failure = Failure::new(Class::Author, "100% wrong: a,b")
            .at(location)
            .with_hint("write\nless");
        Checked {
            mistakes: vec![failure, Failure::new(Class::Author, "no layers")],
            notes: vec!["layer 'x' is unused".to_owned()],
            ..Checked::default()
        }
    }

    #[test]
    fn a_workflow_command_cannot_be_ended_by_what_it_says() {
        insta::assert_snapshot!(github("fleet/", &checked("layers/a,b:c/x.toml")), @r"
        ::error file=fleet/layers/a%2Cb%3Ac/x.toml,line=3,col=7,title=limpet check::100%25 wrong: a,b%0Ahint: write%0Aless
        ::error title=limpet check::no layers
        ::notice title=limpet check::layer 'x' is unused
        ");
    }

    #[test]
    fn sarif_names_files_as_uris() {
        let sarif = sarif("", &checked("layers/ä b/x.toml"));
        let location = &sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(
            location["artifactLocation"]["uri"],
            "layers/%C3%A4%20b/x.toml"
        );
        assert_eq!(location["region"]["startColumn"], 7);
        assert!(sarif["runs"][0]["results"][1].get("locations").is_none());
    }

    #[test]
    fn files_are_named_from_where_the_check_was_started() {
        assert_eq!(prefix(Path::new(".")), "");
        assert_eq!(prefix(Path::new("./fleets/edge/")), "fleets/edge/");
        assert_eq!(prefix(Path::new("/srv/fleet")), "");
        assert_eq!(prefix(Path::new("../fleet")), "");
    }
}
