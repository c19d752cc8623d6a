//! Which layers a host gets, in which order, and why.

use super::inventory::{Traits, fits};
use super::layer::no_such_layer;
use super::manifest::{Manifest, Rule};
use super::{Fleet, author};
use crate::config::is_host_name;
use crate::document::{Mistake, Place, Source};
use crate::model::{Class, Failure, Location};

/// A layer of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenLayer {
    /// Its name, or `hosts/<name>`.
    pub name: String,
    /// What chose it.
    pub because: Because,
}

/// What chose a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Because {
    /// A `[[match]]` of fleet.toml.
    Rule(Location),
    /// The host's inventory entry.
    Inventory(Location),
    /// The `use` of another layer.
    Use {
        /// That layer.
        by: String,
        /// Where it says so.
        location: Location,
    },
    /// It is the layer of this host.
    HostFolder,
}

impl std::fmt::Display for Because {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Because::Rule(location) => write!(f, "{location} matches"),
            Because::Inventory(location) => write!(f, "{location} names it"),
            Because::Use { by, location } => write!(f, "{location}: layer '{by}' uses it"),
            Because::HostFolder => f.write_str("it is this host's own"),
        }
    }
}

/// The layers of the host with `traits`, from the weakest to the strongest.
pub(super) fn choose(fleet: &Fleet<'_>, traits: &Traits) -> Result<Vec<ChosenLayer>, Vec<Failure>> {
    let name = &traits.name;
    if !is_host_name(name) {
        return Err(vec![
            Failure::new(Class::Config, format!("'{name}' is no host name")).with_hint(
                "use letters, digits, '-', '_' and '.', starting with a letter or digit",
            ),
        ]);
    }
    let unknown = unknown_facts(&fleet.manifest, traits);
    if let Some(fact) = unknown.first() {
        return Err(vec![unknown_fact(fleet, traits, fact)]);
    }
    let mut choice = Choice {
        fleet,
        placed: Vec::new(),
        path: Vec::new(),
        failures: Vec::new(),
    };
    for rule in &fleet.manifest.rules {
        if rule_fits(rule, traits) == Some(true) {
            let because = Because::Rule(rule.place.location());
            for (layer, place) in &rule.layers {
                choice.place(layer, place, because.clone());
            }
        }
    }
    if let Some(member) = fleet.inventory.get(name) {
        for (layer, place) in &member.layers {
            choice.place(layer, place, Because::Inventory(place.location()));
        }
    }
    let own = format!("hosts/{name}");
    match fleet.has_layer(&own) {
        Ok(true) => choice.place_own(&own),
        Ok(false) => {}
        Err(failure) => choice.failures.push(failure),
    }
    if !choice.failures.is_empty() {
        return Err(choice.failures);
    }
    if choice.placed.is_empty() {
        return Err(vec![no_layers(fleet, traits)]);
    }
    Ok(choice.placed)
}

struct Choice<'a, 'tree> {
    fleet: &'a Fleet<'tree>,
    placed: Vec<ChosenLayer>,
    /// The layers whose `use` led here, for cycles.
    path: Vec<(String, Place)>,
    failures: Vec<Failure>,
}

impl Choice<'_, '_> {
    /// Places `name` after what it uses, unless it has its place already.
    fn place(&mut self, name: &str, place: &Place, because: Because) {
        if let Some(start) = self.path.iter().position(|(on_path, _)| on_path == name) {
            let circle = &self.path[start..];
            let names: Vec<&str> = circle.iter().map(|(name, _)| name.as_str()).collect();
            let names = names.join("' uses '");
            let mut mistake = Mistake::new(
                place,
                format!("layers use each other in a circle: '{names}' uses '{name}'"),
            )
            .hint("take one of the uses out");
            // The first of them may have been chosen by a rule, which is no part of the circle.
            for (used, place) in &circle[1..] {
                mistake = mistake.note(format!("'{used}' is used here"), place);
            }
            self.failures.push(author(mistake));
            return;
        }
        if self.placed.iter().any(|placed| placed.name == name) {
            return;
        }
        match self.fleet.has_layer(name) {
            Ok(true) => {}
            Ok(false) => {
                let known = self.fleet.layer_names().unwrap_or_default();
                self.failures.push(no_such_layer(name, place, known));
                return;
            }
            Err(failure) => {
                self.failures.push(failure);
                return;
            }
        }
        self.place_with_uses(name, place, because);
    }

    fn place_own(&mut self, name: &str) {
        // Nobody can use it, so its place is never shown.
        let nowhere = Place::start_of(&Source::new(name, ""));
        self.place_with_uses(name, &nowhere, Because::HostFolder);
    }

    fn place_with_uses(&mut self, name: &str, place: &Place, because: Because) {
        let layer = self.fleet.layer(name);
        match &*layer {
            Ok(layer) => {
                self.path.push((name.to_owned(), place.clone()));
                for (used, place) in &layer.uses {
                    let because = Because::Use {
                        by: name.to_owned(),
                        location: place.location(),
                    };
                    self.place(used, place, because);
                }
                self.path.pop();
            }
            Err(failures) => {
                for failure in failures {
                    if !self.failures.contains(failure) {
                        self.failures.push(failure.clone());
                    }
                }
            }
        }
        self.placed.push(ChosenLayer {
            name: name.to_owned(),
            because,
        });
    }
}

/// Does `pattern` fit a host's name, which has no directories and no hidden files.
pub(super) fn matches_name(pattern: &glob::Pattern, name: &str) -> bool {
    let options = glob::MatchOptions {
        require_literal_separator: false,
        require_literal_leading_dot: false,
        case_sensitive: true,
    };
    pattern.matches_with(name, options)
}

/// Does the rule fit; `None` when it depends on a fact that is not known.
pub(super) fn rule_fits(rule: &Rule, traits: &Traits) -> Option<bool> {
    if let Some(patterns) = &rule.hosts
        && !patterns
            .iter()
            .any(|pattern| matches_name(pattern, &traits.name))
    {
        return Some(false);
    }
    if !rule
        .labels
        .iter()
        .all(|(key, value)| traits.labels.get(key) == Some(value))
    {
        return Some(false);
    }
    let mut known = true;
    for (fact, declared) in &rule.facts {
        match traits.facts.get(fact) {
            Some(measured) if fits(fact, declared, measured) => {}
            Some(_) => return Some(false),
            None => known = false,
        }
    }
    known.then_some(true)
}

/// The facts on which a rule depends for this host and that are not known.
pub(super) fn unknown_facts(manifest: &Manifest, traits: &Traits) -> Vec<String> {
    let mut unknown: Vec<String> = manifest
        .rules
        .iter()
        .filter(|rule| rule_fits(rule, traits).is_none())
        .flat_map(|rule| rule.facts.iter())
        .map(|(fact, _)| fact.clone())
        .filter(|fact| !traits.facts.contains_key(fact))
        .collect();
    unknown.sort();
    unknown.dedup();
    unknown
}

fn unknown_fact(fleet: &Fleet<'_>, traits: &Traits, fact: &str) -> Failure {
    let message = format!("fact '{fact}' of host '{}' is not known", traits.name);
    let hint = format!(
        "declare it in inventory/*.toml to render away from the host: [host.{}] facts = {{ {fact} = \"…\" }}",
        traits.name
    );
    let rule = fleet
        .manifest
        .rules
        .iter()
        .find(|rule| rule_fits(rule, traits).is_none());
    match rule {
        Some(rule) => author(
            Mistake::new(&rule.place, message)
                .label("this rule asks about it")
                .hint(hint),
        ),
        None => Failure::new(Class::Author, message).with_hint(hint),
    }
}

fn no_layers(fleet: &Fleet<'_>, traits: &Traits) -> Failure {
    let name = &traits.name;
    let failure = Failure::new(Class::Author, format!("no layers for host '{name}'"));
    let near = crate::document::nearest(name, fleet.inventory.names());
    match near.filter(|near| near != name) {
        Some(near) => failure.with_hint(format!(
            "no rule of fleet.toml fits, and it is not in the inventory; did you mean '{near}'?"
        )),
        None => failure.with_hint(format!(
            "no rule of fleet.toml fits it; add a [[match]] with hosts = [\"{name}\"], or inventory layers, or hosts/{name}/"
        )),
    }
}
