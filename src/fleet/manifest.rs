//! fleet.toml: the fleet's name and the rules that say who gets which layers.

use serde::Deserialize;

use super::inventory::FACTS;
use super::{author, layer, read_text, unsupported};
use crate::document::{Data, Expectation, Mistake, Place, Value, parse};
use crate::git::Tree;
use crate::model::{Class, Failure};

/// What fleet.toml says.
#[derive(Debug)]
pub(super) struct Manifest {
    /// The fleet's name.
    pub fleet: String,
    /// The oldest agent that understands the repository, as written.
    min_limpet: Option<(String, Place)>,
    /// The rules, top to bottom.
    pub rules: Vec<Rule>,
}

/// One `[[match]]`.
#[derive(Debug)]
pub(super) struct Rule {
    /// Where it stands.
    pub place: Place,
    /// Any of these has to fit the host's name; `None`: no matter.
    pub hosts: Option<Vec<glob::Pattern>>,
    /// All of these have to fit.
    pub facts: Vec<(String, String)>,
    /// All of these have to fit.
    pub labels: Vec<(String, String)>,
    /// The layers it adds, in order.
    pub layers: Vec<(String, Place)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // read for their types; the values are taken with their places
struct DeclaredManifest {
    format: Option<i64>,
    fleet: Option<String>,
    min_limpet: Option<String>,
    #[serde(rename = "match")]
    rules: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)] // as above
struct DeclaredRule {
    hosts: Option<Vec<String>>,
    facts: Option<std::collections::BTreeMap<String, String>>,
    labels: Option<std::collections::BTreeMap<String, String>>,
    layers: Option<Vec<String>>,
}

/// The format of repository this version reads.
const FORMAT: i64 = 1;

/// Reads fleet.toml.
pub(super) fn load(tree: &dyn Tree) -> Result<Manifest, Vec<Failure>> {
    let source = read_text(tree, "fleet.toml").map_err(|failure| vec![failure])?;
    let Some(source) = source else {
        return Err(vec![
            Failure::new(Class::Author, "failed to read fleet file 'fleet.toml': no such file")
                .with_hint("a fleet repository has a fleet.toml at its root; set source.path if it is in a sub-directory"),
        ]);
    };
    let mut failures: Vec<Failure> = Vec::new();
    let top = Place::start_of(&source);
    let table = match parse(&source) {
        Ok(table) => table,
        Err(mistake) => {
            failures.push(author(mistake));
            return Err(failures);
        }
    };
    let mut mistakes = Vec::new();
    let expectation = Expectation {
        later: &["window", "rollout", "reboot", "block", "instances"],
        ..Expectation::new("fleet.toml")
    };
    if let Err(mut found) = table.deserialize_into::<DeclaredManifest>(&top, expectation) {
        mistakes.append(&mut found);
    }
    match table.get("format").map(|value| (&value.data, &value.place)) {
        None => mistakes.push(
            Mistake::new(&top, "missing field `format` in fleet.toml").hint("write: format = 1"),
        ),
        Some((Data::Integer(FORMAT), _)) => {}
        Some((Data::Integer(other), place)) => {
            mistakes.push(unsupported(place, &format!("format {other}")));
        }
        Some(_) => {} // the type was reported
    }
    let fleet = match table.get("fleet") {
        None => {
            mistakes.push(
                Mistake::new(&top, "missing field `fleet` in fleet.toml")
                    .hint("name the fleet: fleet = \"acme-edge\""),
            );
            String::new()
        }
        Some(value) => {
            let name = value.as_str().unwrap_or_default();
            if !is_fleet_name(name) && value.as_str().is_some() {
                mistakes.push(
                    Mistake::new(&value.place, format!("'{name}' is no fleet name"))
                        .hint("use letters, digits, '-', '_' and '.', at most 64"),
                );
            }
            name.to_owned()
        }
    };
    let min_limpet = table.get("min_limpet").and_then(|value| {
        let text = value.as_str()?;
        if parse_version(text).is_none() {
            mistakes.push(
                Mistake::new(&value.place, format!("'{text}' is no version"))
                    .hint("write up to three numbers: min_limpet = \"0.1\""),
            );
        }
        Some((text.to_owned(), value.place.clone()))
    });
    let mut rules = Vec::new();
    for value in table
        .get("match")
        .and_then(Value::as_array)
        .unwrap_or_default()
    {
        match read_rule(value) {
            Ok(rule) => rules.push(rule),
            Err(mut found) => mistakes.append(&mut found),
        }
    }
    mistakes.sort_by_key(|mistake| mistake.place.as_ref().map(Place::location));
    failures.extend(mistakes.into_iter().map(author));
    if failures.is_empty() {
        Ok(Manifest {
            fleet,
            min_limpet,
            rules,
        })
    } else {
        Err(failures)
    }
}

fn read_rule(value: &Value) -> Result<Rule, Vec<Mistake>> {
    let Some(table) = value.as_table() else {
        return Err(vec![Mistake::new(
            &value.place,
            format!(
                "expected a table for `match`, found {}",
                value.data.type_name()
            ),
        )]);
    };
    table.deserialize_into::<DeclaredRule>(&value.place, Expectation::new("[[match]]"))?;
    let mut mistakes = Vec::new();
    let mut hosts = None;
    if let Some(patterns) = table.get("hosts").and_then(Value::as_array) {
        let mut compiled = Vec::new();
        for pattern in patterns {
            match glob::Pattern::new(pattern.as_str().unwrap_or_default()) {
                Ok(pattern) => compiled.push(pattern),
                Err(error) => mistakes.push(Mistake::new(
                    &pattern.place,
                    format!("invalid pattern for host names: {}", error.msg),
                )),
            }
        }
        hosts = Some(compiled);
    }
    let pairs = |key: &str| -> Vec<(String, String)> {
        let table = table.get(key).and_then(Value::as_table);
        table
            .into_iter()
            .flat_map(|table| table.iter())
            .filter_map(|(key, entry)| Some((key.to_owned(), entry.value.as_str()?.to_owned())))
            .collect()
    };
    if let Some(facts) = table.get("facts").and_then(Value::as_table) {
        for (fact, entry) in facts.iter() {
            if !FACTS.contains(&fact) {
                mistakes.push(
                    Mistake::new(&entry.key, format!("unknown fact '{fact}'"))
                        .hint(format!("the facts are {}", FACTS.join(", "))),
                );
            }
        }
    }
    let (facts, labels) = (pairs("facts"), pairs("labels"));
    if hosts.is_none() && facts.is_empty() && labels.is_empty() {
        mistakes.push(
            Mistake::new(
                &value.place,
                "this [[match]] says no hosts, facts or labels",
            )
            .hint("for every host, write: hosts = [\"*\"]"),
        );
    }
    let layers = layer::read_names(table.get("layers"), &mut mistakes);
    if table.get("layers").is_none() {
        mistakes.push(Mistake::new(
            &value.place,
            "missing field `layers` in [[match]]",
        ));
    }
    if mistakes.is_empty() {
        Ok(Rule {
            place: value.place.clone(),
            hosts,
            facts,
            labels,
            layers,
        })
    } else {
        Err(mistakes)
    }
}

impl Manifest {
    /// Why this agent is too old for the repository, if it is.
    pub fn too_old(&self) -> Option<Failure> {
        let (text, place) = self.min_limpet.as_ref()?;
        let own = env!("CARGO_PKG_VERSION");
        (parse_version(own)? < parse_version(text)?).then(|| {
            Mistake::new(
                place,
                format!("this fleet needs limpet {text}, and this is {own}"),
            )
            .hint("upgrade limpet on this host; until then it keeps its last state")
            .into_failure(Class::Host)
        })
    }
}

/// `1`, `1.2` or `1.2.3`, as numbers.
fn parse_version(text: &str) -> Option<[u64; 3]> {
    let mut version = [0; 3];
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > version.len() {
        return None;
    }
    for (number, part) in version.iter_mut().zip(parts) {
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    Some(version)
}

fn is_fleet_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_version(text: &str, expected: Option<[u64; 3]>) {
        assert_eq!(parse_version(text), expected);
    }

    #[test]
    fn a_version_is_up_to_three_numbers() {
        check_version("0.1", Some([0, 1, 0]));
        check_version("1.20.3", Some([1, 20, 3]));
        check_version("2", Some([2, 0, 0]));
        check_version("", None);
        check_version("1.", None);
        check_version("+1", None);
        check_version("1.2.3.4", None);
        check_version("1.2-rc1", None);
    }
}
