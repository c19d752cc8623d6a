//! Templates: Jinja without the world.
//!
//! The names are the host's variables, `host` and `hosts`. Undefined names are errors, blocks are trimmed, the last newline is kept,
//! nothing is escaped. Nothing can be included, and there is no clock, environment or chance.
//!
//! Labels are optional by nature: one that this host lacks and the fleet knows can be compared and tested (it equals nothing), so that
//! `hosts if h.labels.role == "db"` works; printing it is an error like any undefined name. So are facts of `hosts`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Object, ValueKind};
use minijinja::{
    AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value as Jinja, escape_formatter,
};

use super::declared::is_templated;
use super::inventory::{FACTS, Inventory, Traits};
use crate::document::{Data, Mistake, Place, Table, Value, nearest};

/// Around what stands for a secret in a rendered text. Whoever renders puts the secret there, or refuses the text.
const MARK: char = '\0';

/// How many steps one rendering may take: a loop over ten thousand hosts takes a few hundred thousand, and this many less than a second.
/// Fuzzing has no time for so many.
const MAX_STEPS: u64 = match cfg!(feature = "fuzz") {
    false => 5_000_000,
    true => 100_000,
};

/// A part of a rendered text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TextPart<'text> {
    /// As it is.
    Plain(&'text str),
    /// The secret of this name.
    Secret(&'text str),
    /// What some filter left of one.
    Broken,
}

/// The parts of a rendered text, in order.
pub(super) fn parts_of(text: &str) -> impl Iterator<Item = TextPart<'_>> {
    text.split(MARK).enumerate().map(|(index, part)| {
        // Every other one stands between two marks.
        match (index % 2, part.strip_prefix("secret ")) {
            (0, _) => TextPart::Plain(part),
            (_, Some(name)) => TextPart::Secret(name),
            (_, None) => TextPart::Broken,
        }
    })
}

/// Is there a secret in a rendered text, or what is left of one.
pub(super) fn has_secrets(text: &str) -> bool {
    text.contains(MARK)
}

/// The engine, and what is the same for every host.
pub(super) struct Templates {
    environment: RefCell<Environment<'static>>,
    /// Are templates kept once they are compiled; each is called by its place.
    keeps_compiled: bool,
    /// What was rendered last of each template, by its name.
    rendered: RefCell<BTreeMap<String, Rendered>>,
    hosts: Jinja,
    /// Every label that some host or rule has.
    labels: Arc<BTreeSet<String>>,
    /// What a known key without a value is.
    nothing: Jinja,
}

/// The names a host's templates can use.
pub(super) struct Names(Jinja);

impl Names {
    /// What `name` means, told so that 1, 1.0 and true are three things, as they are once they are printed.
    fn told(&self, name: &str) -> String {
        format!("{:?}", self.0.get_attr(name).unwrap_or_default())
    }
}

/// The last text that a template was rendered to.
struct Rendered {
    /// The template.
    text: String,
    /// Every word of it that may be a variable's name: more than it uses, never less. None where it may use what is another for every
    /// host.
    words: Option<Vec<String>>,
    /// What the words meant, and what came of it.
    output: Option<(Vec<String>, String)>,
}

impl Rendered {
    fn none_yet(text: &str) -> Self {
        let is_other = |character: char| !character.is_alphanumeric() && character != '_';
        // What stands right behind a dot is a part of something, as `ip` in `h.vars.ip`.
        let parts = text.split_inclusive(is_other).scan(false, |is_part, word| {
            let was_part = std::mem::replace(is_part, word.ends_with('.'));
            Some((was_part, word.trim_end_matches(is_other)))
        });
        let words: BTreeSet<&str> = parts
            .filter(|(is_part, word)| !is_part && !word.is_empty())
            .map(|(_, word)| word)
            .collect();
        let is_of_the_fleet = !words.contains("host");
        // The inventory is the same for all, and long to compare.
        let words = words
            .into_iter()
            .filter(|word| *word != "hosts")
            .map(str::to_owned);
        Rendered {
            text: text.to_owned(),
            words: is_of_the_fleet.then(|| words.collect()),
            output: None,
        }
    }
}

/// Labels or facts: keys of `known` that have no value are nothing, any others are undefined.
#[derive(Debug)]
struct Optional {
    values: BTreeMap<String, String>,
    known: Arc<BTreeSet<String>>,
    nothing: Jinja,
}

impl Object for Optional {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let key = key.as_str()?;
        match self.values.get(key) {
            Some(value) => Some(Jinja::from(value.as_str())),
            None => self.known.contains(key).then(|| self.nothing.clone()),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.values.keys().map(Jinja::from).collect())
    }
}

impl Templates {
    /// An engine for a fleet with this inventory and these labels in its rules.
    pub fn new<'a>(inventory: &'a Inventory, rule_labels: impl Iterator<Item = &'a str>) -> Self {
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
        environment.set_formatter(|out, state, value| {
            if value.is_undefined() {
                return Err(minijinja::Error::from(ErrorKind::UndefinedError));
            }
            escape_formatter(out, state, value)
        });
        environment.set_debug(true); // errors carry their place
        environment.set_fuel(Some(MAX_STEPS));
        // Nothing can be included: there is no template of this name, whatever a template asks for.
        environment.set_path_join_callback(|_, _| "".into());
        environment.remove_global("debug");
        environment.add_function("secret", |name: String| {
            format!("{MARK}secret {name}{MARK}")
        });
        // The engine's own undefined that may be compared; it has no other name.
        let nothing = environment
            .compile_expression("0 if false")
            .and_then(|expression| expression.eval(()))
            .expect("a constant expression");
        let inventory_labels = inventory
            .iter()
            .flat_map(|(_, member)| member.labels.keys());
        let labels: Arc<BTreeSet<String>> = Arc::new(
            inventory_labels
                .map(String::as_str)
                .chain(rule_labels)
                .map(str::to_owned)
                .collect(),
        );
        let facts: Arc<BTreeSet<String>> = Arc::new(FACTS.map(str::to_owned).into());
        let optional = |values: &BTreeMap<String, String>, known: &Arc<BTreeSet<String>>| {
            Jinja::from_object(Optional {
                values: values.clone(),
                known: Arc::clone(known),
                nothing: nothing.clone(),
            })
        };
        let hosts = inventory.iter().map(|(name, member)| {
            Jinja::from_pairs([
                ("name", Jinja::from(name)),
                ("labels", optional(&member.labels, &labels)),
                ("facts", optional(&member.facts, &facts)),
                ("vars", jinja_table(&member.vars)),
            ])
        });
        let hosts = Jinja::from(hosts.collect::<Vec<_>>());
        Templates {
            environment: RefCell::new(environment),
            keeps_compiled: false,
            rendered: RefCell::default(),
            hosts,
            labels,
            nothing,
        }
    }

    /// Keeps every template that is compiled, for the next host.
    pub fn keep_compiled(&mut self) {
        self.keeps_compiled = true;
    }

    /// The names for the host with `traits` and `vars`.
    pub fn names(&self, traits: &Traits, vars: &Table) -> Names {
        let labels = Optional {
            values: traits.labels.clone(),
            known: Arc::clone(&self.labels),
            nothing: self.nothing.clone(),
        };
        let host = Jinja::from_pairs([
            ("name", Jinja::from(traits.name.as_str())),
            ("labels", Jinja::from_object(labels)),
            // Not optional: away from the host an unknown fact must be an error, or the digests would differ.
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
        let rendered = if self.keeps_compiled {
            self.render_kept(place, text, names)
        } else {
            let environment = self.environment.borrow();
            environment
                .template_from_named_str(place.file(), text)
                .and_then(|template| template.render(&names.0))
        };
        rendered.map_err(|error| self.mistake(place, text, &error, names))
    }

    /// A template that sees the same names renders to the same text, so that one that concerns the whole fleet, which often loops
    /// over all hosts, is rendered once and not once for every host.
    fn render_kept(
        &self,
        place: &Place,
        text: &str,
        names: &Names,
    ) -> Result<String, minijinja::Error> {
        let span = place.span();
        let name = format!("{}:{}:{}", place.file(), span.start, span.end);
        let mut rendered = self.rendered.borrow_mut();
        let last = match rendered.get_mut(&name) {
            Some(last) if last.text == text => last,
            _ => {
                rendered.insert(name.clone(), Rendered::none_yet(text));
                rendered.get_mut(&name).expect("it was just inserted")
            }
        };
        let Some(words) = &last.words else {
            return self.render_compiled(&name, text, names);
        };
        let seen: Vec<String> = words.iter().map(|word| names.told(word)).collect();
        if let Some((before, output)) = &last.output
            && *before == seen
        {
            return Ok(output.clone());
        }
        let output = self.render_compiled(&name, text, names)?;
        last.output = Some((seen, output.clone()));
        Ok(output)
    }

    fn render_compiled(
        &self,
        name: &str,
        text: &str,
        names: &Names,
    ) -> Result<String, minijinja::Error> {
        if let Ok(template) = self.environment.borrow().get_template(name)
            && template.source() == text
        {
            return template.render(&names.0);
        }
        let mut environment = self.environment.borrow_mut();
        environment.add_template_owned(name.to_owned(), text.to_owned())?;
        environment.get_template(name)?.render(&names.0)
    }

    fn mistake(
        &self,
        place: &Place,
        text: &str,
        error: &minijinja::Error,
        names: &Names,
    ) -> Mistake {
        let range = error
            .range()
            .filter(|range| text.get(range.clone()).is_some());
        let named = undefined_name(error);
        // The engine marks the expression, or its end; people want the name.
        let range = match (range, named) {
            (Some(range), Some(named)) => {
                Some(name_at(text, range.clone(), named).unwrap_or(range))
            }
            (Some(range), None) => Some(with_its_beginning(text, range)),
            (None, _) => None,
        };
        let marked = range.clone().unwrap_or_else(|| line_of(text, error.line()));
        let at = place.part_of(text, marked).unwrap_or_else(|| place.clone());
        match (error.kind(), named) {
            (ErrorKind::UndefinedError, Some(named)) => self.undefined(&at, named, names),
            (ErrorKind::UndefinedError, None) => {
                let marked = range.and_then(|range| text.get(range)).unwrap_or_default();
                if marked.contains(" if ") {
                    let message = "template prints nothing where the condition does not hold";
                    return Mistake::new(&at, message).hint("say what else: {{ a if b else '' }}");
                }
                self.undefined(&at, marked.trim_matches(['{', '}', ' ']), names)
            }
            (ErrorKind::TemplateNotFound, _) => {
                Mistake::new(&at, "template: nothing can be included")
                    .hint("use variables, or a source for each file")
            }
            (ErrorKind::OutOfFuel, _) => {
                Mistake::new(&at, format!("template takes more than {MAX_STEPS} steps"))
                    .hint("loop over less: loops within loops multiply")
            }
            _ => Mistake::new(&at, format!("template: {}", detail(error))),
        }
    }

    /// A name that is not there, with the nearest that is.
    fn undefined(&self, at: &Place, named: &str, names: &Names) -> Mistake {
        let mistake = Mistake::new(at, format!("undefined name '{named}' in template"));
        let parts: Vec<&str> = named.split('.').collect();
        // On the variable of a loop, too: only hosts have facts and labels.
        match parts[..] {
            [_, "facts", fact] => return of_fact(mistake, named, fact),
            [_, "labels", label] => return self.of_label(mistake, named, label),
            _ => {}
        }
        let Some(known) = known_beside(named, &names.0) else {
            return mistake;
        };
        let last = parts.last().copied().unwrap_or(named);
        match nearest(last, known.iter().map(String::as_str)) {
            Some(near) if near != last => mistake.hint(format!("did you mean '{near}'?")),
            _ if named.contains('.') => mistake.hint(format!("known there: {}", listed(&known))),
            _ => mistake.hint(format!(
                "set it under [vars] of a layer, or use one of: {}",
                listed(&known)
            )),
        }
    }

    fn of_label(&self, mistake: Mistake, named: &str, label: &str) -> Mistake {
        if self.labels.contains(label) {
            return mistake.hint(format!(
                "not every host has this label; say what else: {named} | default('…')"
            ));
        }
        match nearest(label, self.labels.iter().map(String::as_str)) {
            Some(near) => mistake.hint(format!("did you mean '{near}'?")),
            None => mistake.hint(format!("no host of the inventory has a label '{label}'")),
        }
    }
}

/// A fact that is not there.
fn of_fact(mistake: Mistake, named: &str, fact: &str) -> Mistake {
    if FACTS.contains(&fact) {
        return mistake.hint(if named.starts_with("host.") {
            "declare the fact in the inventory to render away from the host".to_owned()
        } else {
            format!("not every host declares this fact; say what else: {named} | default('…')")
        });
    }
    match nearest(fact, FACTS) {
        Some(near) => mistake.hint(format!("did you mean '{near}'?")),
        None => mistake.hint(format!(
            "the facts are {}; anything else is a label",
            FACTS.join(", ")
        )),
    }
}

/// The name that the engine found undefined, where it knows.
fn undefined_name(error: &minijinja::Error) -> Option<&str> {
    let (before, _) = error.detail()?.split_once("` is undefined")?;
    before.rsplit_once('`').map(|(_, name)| name)
}

/// `range`, from where the dotted name begins whose end it may be.
fn with_its_beginning(text: &str, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
    if !text[range.clone()].starts_with('.') {
        return range;
    }
    let before = text[..range.start].trim_end_matches(|character: char| {
        character.is_alphanumeric() || "_.".contains(character)
    });
    before.len()..range.end
}

/// The bytes of `name` in `text` that the engine means by `range`.
fn name_at(
    text: &str,
    range: std::ops::Range<usize>,
    name: &str,
) -> Option<std::ops::Range<usize>> {
    let start = text
        .get(..range.end)?
        .rfind(name)
        .filter(|start| start + name.len() > range.start)?;
    Some(start..start + name.len())
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

/// The bytes of a line of `text`, without its end; of the first one when the engine does not know.
fn line_of(text: &str, line: Option<usize>) -> std::ops::Range<usize> {
    let before = line.unwrap_or(1).saturating_sub(1);
    let start: usize = text.split_inclusive('\n').take(before).map(str::len).sum();
    let length = text[start..].lines().next().map_or(0, str::len);
    start..start + length
}

/// The names that stand beside the first one of `path` that is not there; `None` for what hangs on the variable of a loop.
fn known_beside(path: &str, names: &Jinja) -> Option<Vec<String>> {
    let mut current = names.clone();
    for (depth, part) in path.split('.').enumerate() {
        let inner = current
            .get_attr(part)
            .ok()
            .filter(|value| !value.is_undefined());
        match inner {
            Some(inner) => current = inner,
            None if depth == 0 && path.contains('.') => return None,
            None if current.kind() != ValueKind::Map => return None,
            None => {
                let keys = current.try_iter().ok()?;
                return Some(
                    keys.filter_map(|key| key.as_str().map(str::to_owned))
                        .collect(),
                );
            }
        }
    }
    None
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
            Ok(rendered) if has_secrets(&rendered) => mistakes.push(
                Mistake::new(&value.place, "a secret can stand in no value")
                    .hint("write it into a file: [file.\"…\"] with source and template = true"),
            ),
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
