//! From merged declarations to the desired state: one pass per kind, then what concerns several resources.

use std::collections::{BTreeMap, BTreeSet};

use super::inventory::Traits;
use super::merged::Merged;
use super::template::{Names, render_strings};
use super::{
    ChosenLayer, DesiredState, Fleet, Limits, Origin, OriginatedValue, Rendered, digest, edges,
    layer, paths,
};
use crate::document::{Data, Entry, Mistake, Place, Table, Value};
use crate::kinds::file::{DesiredPath, PathSpec};
use crate::model::{Class, Failure, Kind, ResourceId};

mod content;
mod file;
mod package;
mod unit;

/// The desired state that `merged` declares for the host with `traits`.
pub(super) fn resolve(
    fleet: &Fleet<'_>,
    traits: &Traits,
    limits: &Limits,
    merged: Merged,
    layers: Vec<ChosenLayer>,
) -> Result<Rendered, Vec<Failure>> {
    let Merged {
        vars,
        mut resources,
    } = merged;
    let names = fleet.templates.names(traits, &vars);
    let mut resolver = Resolver {
        fleet,
        traits,
        limits,
        names,
        state: DesiredState {
            fleet: fleet.name().to_owned(),
            ..DesiredState::default()
        },
        declared: BTreeMap::new(),
        unmanaged: BTreeSet::new(),
        places: BTreeMap::new(),
        package_places: BTreeMap::new(),
        failures: Vec::new(),
    };
    let mut values = Vec::new();
    for kind in Kind::ALL {
        let Some(Data::Table(section)) = resources
            .entry_mut(kind.as_str())
            .map(|entry| &mut entry.value.data)
        else {
            continue;
        };
        for (name, entry) in section.iter_mut() {
            let id = ResourceId::new(kind, name);
            originate(&format!("{id} "), &entry.value, &mut values);
            resolver.render_templated(&id, entry);
            resolver.declared.insert(id, entry.key.clone());
        }
    }
    for (id, table) in tables(&resources) {
        resolver.resolve_one(&id, table);
    }
    resolver.connect(&resources);
    resolver.refuse_paths_below_files();
    resolver.finish(values, &vars, layers)
}

/// All resources, by kind and name.
fn tables(resources: &Table) -> impl Iterator<Item = (ResourceId, &Table)> {
    Kind::ALL.into_iter().flat_map(move |kind| {
        let section = resources.get(kind.as_str()).and_then(Value::as_table);
        section.into_iter().flat_map(move |section| {
            section.iter().filter_map(move |(name, entry)| {
                Some((ResourceId::new(kind, name), entry.value.as_table()?))
            })
        })
    })
}

struct Resolver<'a, 'tree> {
    fleet: &'a Fleet<'tree>,
    traits: &'a Traits,
    limits: &'a Limits,
    names: Names,
    state: DesiredState,
    /// Every declared resource, with the place of its declaration.
    declared: BTreeMap<ResourceId, Place>,
    /// Packages that this host's package manager has no name for.
    unmanaged: BTreeSet<ResourceId>,
    /// Who declares each path.
    places: BTreeMap<String, (ResourceId, Place)>,
    /// Who declares each package, by the manager's name.
    package_places: BTreeMap<String, (ResourceId, Place)>,
    failures: Vec<Failure>,
}

impl Resolver<'_, '_> {
    fn fail(&mut self, id: &ResourceId, mistake: Mistake) {
        self.failures
            .push(mistake.into_failure(Class::Author).about(id.clone()));
    }

    fn fail_all(&mut self, id: &ResourceId, mistakes: Vec<Mistake>) {
        for mistake in mistakes {
            self.fail(id, mistake);
        }
    }

    /// Renders the string values of a resource with `template = true`, and those of such drop-ins.
    fn render_templated(&mut self, id: &ResourceId, entry: &mut Entry) {
        let Data::Table(table) = &mut entry.value.data else {
            return;
        };
        let is_template = |table: &Table| table.get("template").and_then(Value::as_bool);
        let whole = is_template(table).unwrap_or(false);
        let templates = &self.fleet.templates;
        let mut mistakes = Vec::new();
        for (key, entry) in table.iter_mut() {
            match &mut entry.value.data {
                Data::Table(dropins) if key == "dropin" => {
                    for (_, dropin) in dropins.iter_mut() {
                        let this = dropin.value.as_table().and_then(is_template);
                        if this.unwrap_or(whole) {
                            render_strings(
                                templates,
                                &mut dropin.value,
                                &self.names,
                                &mut mistakes,
                            );
                        }
                    }
                }
                _ if whole => {
                    render_strings(templates, &mut entry.value, &self.names, &mut mistakes)
                }
                _ => {}
            }
        }
        self.fail_all(id, mistakes);
    }

    fn resolve_one(&mut self, id: &ResourceId, table: &Table) {
        let Some(place) = self.declared.get(id).cloned() else {
            return;
        };
        let origin = Origin {
            layer: layer::name_of(place.file()).to_owned(),
            location: place.location(),
        };
        self.state.origins.insert(id.clone(), origin);
        let result = match id.kind {
            Kind::File => self.file(id, table, &place),
            Kind::Directory => self.directory(id, table, &place),
            Kind::Symlink => self.symlink(id, table, &place),
            Kind::Package => self.package(id, table, &place),
            Kind::Unit => self.unit(id, table, &place),
        };
        if let Err(mistakes) = result {
            self.fail_all(id, mistakes);
        }
    }

    /// Takes a path into the desired state, unless it may not be managed or another resource has it already.
    fn add_path(&mut self, path: DesiredPath, place: &Place, mistakes: &mut Vec<Mistake>) {
        let what = path.id.to_string();
        mistakes.extend(paths::check_allowed(&what, &path.path, self.limits, place));
        if let Some((other, other_place)) = self.places.get(&path.path) {
            mistakes.push(
                Mistake::new(
                    place,
                    format!("{what} and {other} both declare '{}'", path.path),
                )
                .note(format!("{other} is declared here"), other_place)
                .hint("keep one of them; undeclare = true forgets what an earlier layer declared"),
            );
            return;
        }
        self.places
            .insert(path.path.clone(), (path.id.clone(), place.clone()));
        self.state.paths.push(path);
    }

    /// Reads what resources say about each other.
    fn connect(&mut self, resources: &Table) {
        let mut mistakes = Vec::new();
        for (id, table) in tables(resources) {
            let mut found = Vec::new();
            let mut read = |key: &str| {
                edges::read(&id, key, table, &self.declared, &self.unmanaged, &mut found)
            };
            let needs = read("needs");
            if id.kind == Kind::Unit {
                let (restart_on, reload_on) = (read("restart_on"), read("reload_on"));
                if let Some(unit) = self.state.units.iter_mut().find(|unit| unit.id == id) {
                    unit.restart_on = restart_on;
                    unit.reload_on = reload_on;
                }
            }
            if !needs.is_empty() && !self.unmanaged.contains(&id) {
                self.state.needs.insert(id.clone(), needs);
            }
            mistakes.extend(found.into_iter().map(|mistake| (id.clone(), mistake)));
        }
        for (id, mistake) in mistakes {
            self.fail(&id, mistake);
        }
        for mistake in edges::circles(&self.state.needs, &self.declared) {
            self.failures.push(mistake.into_failure(Class::Author));
        }
    }

    /// A path cannot lie below a declared file, nor below a link that the fleet itself points elsewhere.
    fn refuse_paths_below_files(&mut self) {
        let is_leaf = |path: &&DesiredPath| !matches!(path.spec, PathSpec::Directory { .. });
        let leaves: BTreeSet<&str> = self
            .state
            .paths
            .iter()
            .filter(is_leaf)
            .map(|path| path.path.as_str())
            .collect();
        let mut mistakes = Vec::new();
        for path in &self.state.paths {
            let above = std::iter::successors(path.path.rsplit_once('/'), |(parent, _)| {
                parent.rsplit_once('/')
            })
            .map(|(parent, _)| parent)
            .find(|parent| leaves.contains(parent))
            .and_then(|parent| self.places.get(parent));
            if let Some((other, other_place)) = above
                && let Some((id, place)) = self.places.get(&path.path)
            {
                let mistake = Mistake::new(
                    place,
                    format!("{id} lies below {other}, which is no directory"),
                )
                .note(format!("{other} is declared here"), other_place);
                mistakes.push((id.clone(), mistake));
            }
        }
        for (id, mistake) in mistakes {
            self.fail(&id, mistake);
        }
    }

    fn finish(
        mut self,
        values: Vec<OriginatedValue>,
        vars: &Table,
        layers: Vec<ChosenLayer>,
    ) -> Result<Rendered, Vec<Failure>> {
        if !self.failures.is_empty() {
            self.failures.sort_by(|a, b| a.location.cmp(&b.location));
            return Err(self.failures);
        }
        self.state.paths.sort_by(|a, b| a.path.cmp(&b.path));
        self.state.packages.sort_by(|a, b| a.name.cmp(&b.name));
        self.state.units.sort_by(|a, b| a.name.cmp(&b.name));
        self.state.digest = digest::compute(&self.state);
        let mut variables = Vec::new();
        for (name, entry) in vars.iter() {
            originate_as(name, &entry.value, &mut variables);
        }
        Ok(Rendered {
            state: self.state,
            layers,
            values,
            variables,
            warnings: Vec::new(),
        })
    }
}

/// The values in `value`, each with its origin; tables are taken apart.
fn originate(prefix: &str, value: &Value, values: &mut Vec<OriginatedValue>) {
    if let Data::Table(table) = &value.data {
        for (key, entry) in table.iter() {
            originate_as(&format!("{prefix}{key}"), &entry.value, values);
        }
    }
}

fn originate_as(key: &str, value: &Value, values: &mut Vec<OriginatedValue>) {
    match &value.data {
        Data::Table(table) if !table.is_empty() => originate(&format!("{key}."), value, values),
        _ => values.push(OriginatedValue {
            key: key.to_owned(),
            value: value.to_string(),
            origin: Origin {
                layer: layer::name_of(value.place.file()).to_owned(),
                location: value.place.location(),
            },
        }),
    }
}
