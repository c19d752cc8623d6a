//! Templates: Jinja without the world.
//!
//! The names are the host's variables, `host` and `hosts`. Undefined names are errors, blocks are trimmed, the last newline is kept,
//! nothing is escaped. Nothing can be included, and there is no clock, environment or chance.

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value as Jinja};

use super::inventory::{Inventory, Traits};
use crate::document::{Data, Mistake, Place, Table, Value};

/// The engine, and what is the same for every host.
pub(super) struct Templates {
    environment: Environment<'static>,
    hosts: Jinja,
}

/// The names a host's templates can use.
pub(super) struct Names(Jinja);

impl Templates {
    /// An engine for a fleet with this inventory.
    pub fn new(inventory: &Inventory) -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder()
            .keep_trailing_newline(true)
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .expect("the default delimiters are valid");
        environment.set_syntax(syntax);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_debug(true); // errors carry their place
        environment.remove_global("debug");
        let hosts = inventory.iter().map(|(name, member)| {
            Jinja::from_pairs([
                ("name", Jinja::from(name)),
                ("labels", Jinja::from(&member.labels)),
                ("facts", Jinja::from(&member.facts)),
                ("vars", jinja_table(&member.vars)),
            ])
        });
        let hosts = Jinja::from(hosts.collect::<Vec<_>>());
        Templates { environment, hosts }
    }

    /// The names for the host with `traits` and `vars`.
    pub fn names(&self, traits: &Traits, vars: &Table) -> Names {
        let host = Jinja::from_pairs([
            ("name", Jinja::from(traits.name.as_str())),
            ("labels", Jinja::from(&traits.labels)),
            ("facts", Jinja::from(&traits.facts)),
        ]);
        let vars = vars
            .iter()
            .map(|(name, entry)| (name.to_owned(), jinja(&entry.value)));
        let own = [
            ("host".to_owned(), host),
            ("hosts".to_owned(), self.hosts.clone()),
        ];
        Names(Jinja::from_pairs(vars.chain(own)))
    }

    /// Renders `text`, which stands at `place` as it is.
    pub fn render(&self, place: &Place, text: &str, names: &Names) -> Result<String, Mistake> {
        if !is_templated(text) {
            return Ok(text.to_owned());
        }
        let verbatim = verbatim_offset(place, text);
        self.environment
            .template_from_named_str(place.file(), text)
            .and_then(|template| template.render(&names.0))
            .map_err(|error| self.mistake(place, text, verbatim, &error, names))
    }

    fn mistake(
        &self,
        place: &Place,
        text: &str,
        verbatim: Option<usize>,
        error: &minijinja::Error,
        names: &Names,
    ) -> Mistake {
        let range = error
            .range()
            .filter(|range| text.get(range.clone()).is_some());
        let at = match (verbatim, &range) {
            (Some(offset), Some(range)) => place.part(offset + range.start..offset + range.end),
            (Some(offset), None) => line_of(place, offset, text, error.line()),
            (None, _) => place.clone(),
        };
        let marked = range.and_then(|range| text.get(range)).unwrap_or_default();
        match error.kind() {
            ErrorKind::UndefinedError => self.undefined(&at, marked, error, names),
            ErrorKind::SyntaxError => Mistake::new(&at, format!("template: {}", detail(error))),
            ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction => {
                Mistake::new(&at, format!("template: {}", detail(error)))
            }
            _ => Mistake::new(&at, format!("failed to render template: {}", detail(error))),
        }
    }

    /// A name that is not there, with the nearest that is.
    fn undefined(
        &self,
        at: &Place,
        marked: &str,
        error: &minijinja::Error,
        names: &Names,
    ) -> Mistake {
        let Some((name, known)) = first_undefined(marked, &names.0) else {
            return Mistake::new(at, format!("template: {}", detail(error)));
        };
        // The engine marks the whole expression; people want the name.
        let start = marked.find(&name).unwrap_or(0);
        let at = at.part(start..start + name.len());
        let last = name.rsplit('.').next().unwrap_or(&name);
        let mistake = Mistake::new(&at, format!("undefined name '{name}' in template"));
        match crate::document::nearest(last, known.iter().map(String::as_str)) {
            Some(near) => mistake.hint(format!("did you mean '{near}'?")),
            None if name.starts_with("host.facts.") => {
                mistake.hint("declare the fact in the inventory to render away from the host")
            }
            None if name.contains('.') => mistake.hint(format!("known there: {}", listed(&known))),
            None => mistake.hint(format!(
                "set it under [vars] of a layer, or use one of: {}",
                listed(&known)
            )),
        }
    }
}

/// A value as templates see it. Dates are strings.
fn jinja(value: &Value) -> Jinja {
    match &value.data {
        Data::String(text) | Data::Datetime(text) => Jinja::from(text.as_str()),
        Data::Integer(value) => Jinja::from(*value),
        Data::Float(value) => Jinja::from(*value),
        Data::Boolean(value) => Jinja::from(*value),
        Data::Array(values) => Jinja::from(values.iter().map(jinja).collect::<Vec<_>>()),
        Data::Table(table) => jinja_table(table),
    }
}

fn jinja_table(table: &Table) -> Jinja {
    Jinja::from_pairs(
        table
            .iter()
            .map(|(key, entry)| (key.to_owned(), jinja(&entry.value))),
    )
}

/// Can `text` contain anything to render.
pub(super) fn is_templated(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// Where in `place` the decoded `text` begins, if it stands there character by character (a file, or a TOML string without escapes).
fn verbatim_offset(place: &Place, text: &str) -> Option<usize> {
    let raw = place.text();
    let quote = ["\"\"\"", "'''", "\"", "'"]
        .into_iter()
        .find(|quote| raw.starts_with(quote) && raw.len() >= 2 * quote.len());
    let candidates = match quote {
        Some(quote) => vec![0, quote.len(), quote.len() + 1, quote.len() + 2],
        None => vec![0],
    };
    candidates
        .into_iter()
        .find(|offset| raw.get(*offset..).is_some_and(|raw| raw.starts_with(text)))
}

fn line_of(place: &Place, offset: usize, text: &str, line: Option<usize>) -> Place {
    let line = line.unwrap_or(1).saturating_sub(1);
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let length = text[start..].lines().next().map_or(0, str::len);
    place.part(offset + start..offset + start + length)
}

/// The first dotted name in `expression` that `names` does not have, and what is there instead.
fn first_undefined(expression: &str, names: &Jinja) -> Option<(String, Vec<String>)> {
    let is_name = |character: char| character.is_alphanumeric() || "_.".contains(character);
    expression
        .split(|character: char| !is_name(character))
        .filter(|word| word.starts_with(|first: char| first.is_alphabetic() || first == '_'))
        .find_map(|word| {
            let mut current = names.clone();
            let mut walked = String::new();
            for part in word.split('.') {
                let inner = current
                    .get_attr(part)
                    .ok()
                    .filter(|value| !value.is_undefined());
                if !walked.is_empty() {
                    walked.push('.');
                }
                walked.push_str(part);
                match inner {
                    Some(inner) => current = inner,
                    None => {
                        let known = current
                            .try_iter()
                            .into_iter()
                            .flatten()
                            .filter_map(|key| key.as_str().map(str::to_owned))
                            .collect();
                        return Some((walked, known));
                    }
                }
            }
            None
        })
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    names.join(", ")
}

/// What the engine says, in our manner.
fn detail(error: &minijinja::Error) -> String {
    let text = match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    };
    text.trim_end_matches('.').to_owned()
}

/// Renders every string in `value`, at any depth.
pub(super) fn render_strings(
    templates: &Templates,
    value: &mut Value,
    names: &Names,
    mistakes: &mut Vec<Mistake>,
) {
    match &mut value.data {
        Data::String(text) => match templates.render(&value.place, text, names) {
            Ok(rendered) => *text = rendered,
            Err(mistake) => mistakes.push(mistake),
        },
        Data::Array(values) => {
            for value in values {
                render_strings(templates, value, names, mistakes);
            }
        }
        Data::Table(table) => {
            for (_, entry) in table.iter_mut() {
                render_strings(templates, &mut entry.value, names, mistakes);
            }
        }
        Data::Integer(_) | Data::Float(_) | Data::Boolean(_) | Data::Datetime(_) => {}
    }
}
