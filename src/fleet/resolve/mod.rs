//! From merged declarations to the desired state: one pass per kind, then what concerns several resources.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use super::inventory::Traits;
use super::merged::{Merged, Resource};
use super::template::{Names, render_strings};
use super::{
    ChosenLayer, DesiredState, Fleet, Inputs, Limits, Origin, OriginatedValue, Rendered, digest,
    edges, layer, paths,
};
use crate::document::{Data, Mistake, Place, Table, Value};
use crate::kinds::account::DesiredAccount;
use crate::kinds::command::DesiredCommand;
use crate::kinds::file::{DesiredPath, PathSpec};
use crate::kinds::health::DesiredHealth;
use crate::kinds::package::DesiredPackage;
use crate::kinds::repository::DesiredRepository;
use crate::kinds::sysctl::DesiredSysctl;
use crate::kinds::unit::DesiredUnit;
use crate::model::{Class, Failure, Kind, Name, ResourceId};

pub(in crate::fleet) mod account;
mod command;
mod content;
mod file;
mod health;
mod mount;
mod package;
mod repository;
mod sysctl;
mod tree;
mod unit;
mod xattrs;

/// The desired state that `merged` declares for the host with `traits`; with the origin of every value, where `with_values`.
pub(super) fn resolve(
    fleet: &Fleet<'_>,
    traits: &Traits,
    limits: &Limits,
    merged: Merged<'_>,
    layers: Vec<ChosenLayer>,
    with_values: bool,
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
        path_places: Vec::new(),
        package_places: BTreeMap::new(),
        last_layer: "".into(),
        derived: Vec::new(),
        failures: Vec::new(),
    };
    // Ten thousand of them, and a vector that grows is twice as large as it has to be.
    let paths = [Kind::Directory, Kind::File, Kind::Symlink]
        .iter()
        .filter_map(|kind| resources.get(kind))
        .map(BTreeMap::len)
        .sum();
    resolver.state.paths.reserve_exact(paths);
    resolver.path_places.reserve_exact(paths);
    let mut values = Vec::new();
    let mut ids = Vec::with_capacity(resources.values().map(BTreeMap::len).sum());
    for (kind, section) in &mut resources {
        for (name, resource) in section {
            let id = ResourceId::new(*kind, *name);
            if with_values {
                originate_table(&format!("{id} "), &resource.table, &mut values);
            }
            if says_template(&resource.table) {
                resolver.render_templated(&id, resource.table.to_mut());
            }
            resolver.declared.insert(id.clone(), resource.place);
            ids.push(id);
        }
    }
    for (id, resource) in ids
        .iter()
        .zip(resources.values().flat_map(BTreeMap::values))
    {
        resolver.resolve_one(id, resource);
    }
    drop(ids);
    resolver.refuse_paths_declared_twice();
    resolver.connect(&resources);
    resolver.refuse_paths_below_files();
    drop(resources);
    resolver.finish(values, with_values.then_some(&vars), layers)
}

/// Does the resource, or a drop-in of it, ask for templates.
fn says_template(table: &Table) -> bool {
    table.get("template").is_some()
        || table
            .get("dropin")
            .and_then(Value::as_table)
            .into_iter()
            .flat_map(Table::iter)
            .any(|(_, entry)| {
                let dropin = entry.value.as_table();
                dropin.is_some_and(|dropin| dropin.get("template").is_some())
            })
}

/// What one resource comes to, by itself.
#[derive(Debug, Clone, Default)]
struct Resolved {
    /// The paths it brings, each with the place of its declaration.
    paths: Vec<(DesiredPath, Place)>,
    repository: Option<DesiredRepository>,
    package: Option<DesiredPackage>,
    account: Option<DesiredAccount>,
    sysctl: Option<DesiredSysctl>,
    command: Option<DesiredCommand>,
    unit: Option<DesiredUnit>,
    health: Option<DesiredHealth>,
    /// What follows from a value, shown beside it: key and value.
    derived: Vec<(&'static str, String)>,
    /// This host's package manager has no name for it.
    is_unmanaged: bool,
    mistakes: Vec<Mistake>,
    failures: Vec<Failure>,
}

impl Resolved {
    /// Adds a path, and what is wrong with it.
    fn add_path(
        &mut self,
        limits: &Limits,
        path: DesiredPath,
        place: &Place,
        mistakes: &mut Vec<Mistake>,
    ) {
        let what = path.id.to_string();
        mistakes.extend(paths::check_allowed(&what, &path.path, limits, place));
        self.paths.push((path, place.clone()));
    }
}

/// What resources come to that one layer declares and no template: the same for every host that has the layer.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Whose limits they were judged by.
    limits: Limits,
    /// By the address of the layer's table, which is kept as long as the fleet, and the package manager that it was resolved for.
    resolved: HashMap<(usize, PackageManager), Rc<Resolved>>,
}

/// What a package's name, and a repository, depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum PackageManager {
    Apt,
    Dnf,
    Other,
    Unknown,
}

struct Resolver<'a, 'tree> {
    fleet: &'a Fleet<'tree>,
    traits: &'a Traits,
    limits: &'a Limits,
    names: Names,
    state: DesiredState,
    /// Every declared resource, with the place of its declaration.
    declared: BTreeMap<ResourceId, &'a Place>,
    /// Packages and repositories that this host's package manager has no name for.
    unmanaged: BTreeSet<ResourceId>,
    /// Where each of the state's paths is declared, in the same order.
    path_places: Vec<Place>,
    /// Who declares each package, by the manager's name.
    package_places: BTreeMap<String, (ResourceId, Place)>,
    /// The layer that declared the last resource, and most likely the next one.
    last_layer: Name,
    /// What follows from values.
    derived: Vec<OriginatedValue>,
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
    fn render_templated(&mut self, id: &ResourceId, table: &mut Table) {
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

    fn resolve_one(&mut self, id: &ResourceId, resource: &Resource<'_>) {
        let place = resource.place;
        let shareable = match &resource.table {
            // Which files a tree renders is not seen in its table.
            Cow::Borrowed(table) if id.kind != Kind::Tree => {
                self.fleet.shared.as_ref().map(|shared| (*table, shared))
            }
            Cow::Borrowed(_) | Cow::Owned(_) => None,
        };
        let resolved = match shareable {
            Some((table, shared)) => {
                Rc::unwrap_or_clone(self.resolve_shared(id, table, place, shared))
            }
            None => self.resolve_alone(id, &resource.table, place),
        };
        self.take(id, place, resolved);
    }

    /// Whose names packages have on this host: the manager that its own configuration names, else its family's.
    fn package_manager(&self) -> PackageManager {
        let fact = |name: &str| self.traits.facts.get(name).map(String::as_str);
        match (fact("package_manager"), fact("family")) {
            (Some("apt"), _) | (None, Some("debian")) => PackageManager::Apt,
            (Some("dnf"), _) | (None, Some("rhel")) => PackageManager::Dnf,
            (_, Some(_)) => PackageManager::Other,
            (_, None) => PackageManager::Unknown,
        }
    }

    fn resolve_shared(
        &self,
        id: &ResourceId,
        table: &Table,
        place: &Place,
        shared: &RefCell<Shared>,
    ) -> Rc<Resolved> {
        let manager = match id.kind {
            Kind::Package | Kind::Repository => self.package_manager(),
            _ => PackageManager::Other,
        };
        let key = (std::ptr::from_ref(table) as usize, manager);
        let mut known = shared.borrow_mut();
        if known.limits != *self.limits {
            known.resolved.clear();
            known.limits = self.limits.clone();
        }
        if let Some(resolved) = known.resolved.get(&key) {
            return Rc::clone(resolved);
        }
        let resolved = Rc::new(self.resolve_alone(id, table, place));
        // A mistake may name the host; and there are few.
        if resolved.mistakes.is_empty() && resolved.failures.is_empty() {
            known.resolved.insert(key, Rc::clone(&resolved));
        }
        resolved
    }

    fn resolve_alone(&self, id: &ResourceId, table: &Table, place: &Place) -> Resolved {
        let mut resolved = Resolved::default();
        let out = &mut resolved;
        let result = match id.kind {
            Kind::File => self.file(id, table, place, out),
            Kind::Directory => self.directory(id, table, place, out),
            Kind::Symlink => self.symlink(id, table, place, out),
            Kind::Tree => self.tree(id, table, place, out),
            Kind::Repository => self.repository(id, table, place, out),
            Kind::Package => self.package(id, table, place, out),
            Kind::Group => self.group(id, table, place, out),
            Kind::User => self.user(id, table, place, out),
            Kind::Mount => self.mount(id, table, place, out),
            Kind::Sysctl => self.sysctl(id, table, place, out),
            Kind::Command => self.command(id, table, place, out),
            Kind::Unit => self.unit(id, table, place, out),
            Kind::Health => self.health(id, table, place, out),
        };
        resolved.mistakes = result.err().unwrap_or_default();
        resolved
    }

    /// Takes what a resource comes to into the desired state.
    fn take(&mut self, id: &ResourceId, place: &Place, resolved: Resolved) {
        self.failures.extend(resolved.failures);
        self.fail_all(id, resolved.mistakes);
        if resolved.is_unmanaged {
            self.unmanaged.insert(id.clone());
            return;
        }
        let layer = layer::name_of(place.file());
        if self.last_layer != *layer {
            self.last_layer = layer.into();
        }
        let origin = Origin {
            layer: self.last_layer.clone(),
            location: place.location(),
        };
        let derived = resolved.derived.into_iter();
        self.derived
            .extend(derived.map(|(key, value)| OriginatedValue {
                key: format!("{id} {key}"),
                value,
                origin: origin.clone(),
            }));
        self.state.origins.insert(id.clone(), origin);
        for (path, place) in resolved.paths {
            self.state.paths.push(path);
            self.path_places.push(place);
        }
        self.state.repositories.extend(resolved.repository);
        // Groups come first, and both in the order of their names.
        self.state.accounts.extend(resolved.account);
        self.state.sysctls.extend(resolved.sysctl);
        self.state.commands.extend(resolved.command);
        self.state.units.extend(resolved.unit);
        self.state.health.extend(resolved.health);
        let Some(package) = resolved.package else {
            return;
        };
        if let Some((other, other_place)) = self.package_places.get(&package.name) {
            let mistake = Mistake::new(
                place,
                format!(
                    "{id} and {other} both declare the package '{}'",
                    package.name
                ),
            )
            .note(format!("{other} is declared here"), other_place)
            .hint("keep one of them");
            self.fail(id, mistake);
            return;
        }
        self.package_places
            .insert(package.name.clone(), (id.clone(), place.clone()));
        self.state.packages.push(package);
    }

    /// Sorts the paths; two declarations of one would fight.
    fn refuse_paths_declared_twice(&mut self) {
        let in_order = |one: &DesiredPath, other: &DesiredPath| one.path < other.path;
        if self.state.paths.is_sorted_by(in_order) {
            return;
        }
        let paths = std::mem::take(&mut self.state.paths);
        let places = std::mem::take(&mut self.path_places);
        let mut paths: Vec<(DesiredPath, Place)> = paths.into_iter().zip(places).collect();
        paths.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
        let mut mistakes = Vec::new();
        for same in paths.chunk_by(|(a, _), (b, _)| a.path == b.path) {
            let (other, other_place) = &same[0];
            for (path, place) in &same[1..] {
                let mistake = Mistake::new(
                    place,
                    format!("{} and {} both declare '{}'", path.id, other.id, path.path),
                )
                .note(format!("{} is declared here", other.id), other_place)
                .hint("keep one of them; undeclare = true forgets what an earlier layer declared");
                mistakes.push((path.id.clone(), mistake));
            }
        }
        (self.state.paths, self.path_places) = paths.into_iter().unzip();
        for (id, mistake) in mistakes {
            self.fail(&id, mistake);
        }
    }

    /// Reads what resources say about each other.
    fn connect(&mut self, resources: &BTreeMap<Kind, BTreeMap<&str, Resource<'_>>>) {
        let mut mistakes = Vec::new();
        let tables = resources.iter().flat_map(|(kind, section)| {
            section
                .iter()
                .map(|(name, resource)| (*kind, *name, &*resource.table))
        });
        let says = |table: &Table| {
            [
                "needs",
                "restart_on",
                "reload_on",
                "run_on",
                "prevent_removal",
            ]
            .into_iter()
            .any(|key| table.get(key).is_some())
        };
        for (kind, name, table) in tables.filter(|(_, _, table)| says(table)) {
            let id = ResourceId::new(kind, name);
            let mut found = Vec::new();
            let mut read = |key: &str| {
                edges::read(&id, key, table, &self.declared, &self.unmanaged, &mut found)
            };
            let needs = read("needs");
            if id.kind == Kind::Command {
                let run_on = read("run_on");
                // In the order of their names, as units below.
                let commands = &mut self.state.commands;
                if let Ok(position) = commands.binary_search_by(|known| known.id.cmp(&id)) {
                    commands[position].run_on = run_on;
                }
            }
            if id.kind == Kind::Unit {
                let (restart_on, reload_on) = (read("restart_on"), read("reload_on"));
                // Units were resolved in the order of their names.
                let units = &mut self.state.units;
                if let Ok(position) = units.binary_search_by(|unit| unit.id.cmp(&id)) {
                    units[position].restart_on = restart_on;
                    units[position].reload_on = reload_on;
                }
            }
            if !needs.is_empty() && !self.unmanaged.contains(&id) {
                self.state.needs.insert(id.clone(), needs);
            }
            let is_prevented = table.get("prevent_removal").and_then(Value::as_bool);
            if is_prevented == Some(true) && !self.unmanaged.contains(&id) {
                self.state.prevented.insert(id.clone());
            }
            mistakes.extend(found.into_iter().map(|mistake| (id.clone(), mistake)));
        }
        for (id, mistake) in mistakes {
            self.fail(&id, mistake);
        }
        // A command also waits for what makes it run.
        let mut waits = Cow::Borrowed(&self.state.needs);
        for command in &self.state.commands {
            if !command.run_on.is_empty() {
                let known = waits.to_mut().entry(command.id.clone()).or_default();
                known.extend(command.run_on.iter().cloned());
            }
        }
        for mistake in edges::circles(&waits, &self.declared) {
            self.failures.push(mistake.into_failure(Class::Author));
        }
    }

    /// A path cannot lie below a declared file, nor below a link that the fleet itself points elsewhere.
    fn refuse_paths_below_files(&mut self) {
        let paths = &self.state.paths;
        let leaf_at = |parent: &str| {
            let position = paths
                .binary_search_by(|path| path.path.as_str().cmp(parent))
                .ok()?;
            let is_directory = matches!(
                paths[position].spec,
                PathSpec::Directory { .. } | PathSpec::Archive { .. }
            );
            (!is_directory).then_some(position)
        };
        let mut mistakes = Vec::new();
        // The parents of neighbours are mostly the same.
        let mut last: Option<(&str, Option<usize>)> = None;
        for (path, place) in paths.iter().zip(&self.path_places) {
            let directory = path.path.rsplit_once('/').map_or("", |(parent, _)| parent);
            let above = match last {
                Some((known, above)) if known == directory => above,
                _ => std::iter::successors(Some(directory), |parent| {
                    parent.rsplit_once('/').map(|(parent, _)| parent)
                })
                .find_map(leaf_at),
            };
            last = Some((directory, above));
            if let Some(above) = above {
                let other = &paths[above].id;
                let mistake = Mistake::new(
                    place,
                    format!("{} lies below {other}, which is no directory", path.id),
                )
                .note(
                    format!("{other} is declared here"),
                    &self.path_places[above],
                );
                mistakes.push((path.id.clone(), mistake));
            }
        }
        for (id, mistake) in mistakes {
            self.fail(&id, mistake);
        }
    }

    fn finish(
        mut self,
        mut values: Vec<OriginatedValue>,
        vars: Option<&Table>,
        layers: Vec<ChosenLayer>,
    ) -> Result<Rendered, Vec<Failure>> {
        if !self.failures.is_empty() {
            self.failures.sort_by(|a, b| a.location.cmp(&b.location));
            return Err(self.failures);
        }
        self.state.packages.sort_by(|a, b| a.name.cmp(&b.name));
        self.state.units.sort_by(|a, b| a.name.cmp(&b.name));
        // They came one by one and in order, which leaves every node of the map half full; made in one go they are full.
        let origins = std::mem::take(&mut self.state.origins);
        self.state.origins = origins.into_iter().collect();
        self.state.digest = digest::compute(&self.state);
        if vars.is_some() {
            values.append(&mut self.derived);
        }
        let mut variables = Vec::new();
        for (name, entry) in vars.into_iter().flat_map(Table::iter) {
            originate_as(name, &entry.value, &mut variables);
        }
        Ok(Rendered {
            state: self.state,
            layers,
            values,
            variables,
            warnings: Vec::new(),
            inputs: Inputs::default(),
            is_derived: false,
        })
    }
}

/// The values in `table`, each with its origin; tables are taken apart.
fn originate_table(prefix: &str, table: &Table, values: &mut Vec<OriginatedValue>) {
    for (key, entry) in table.iter() {
        originate_as(&format!("{prefix}{key}"), &entry.value, values);
    }
}

fn originate_as(key: &str, value: &Value, values: &mut Vec<OriginatedValue>) {
    match &value.data {
        Data::Table(table) if !table.is_empty() => {
            originate_table(&format!("{key}."), table, values);
        }
        _ => values.push(OriginatedValue {
            key: key.to_owned(),
            value: value.to_string(),
            origin: Origin {
                layer: layer::name_of(value.place.file()).into(),
                location: value.place.location(),
            },
        }),
    }
}
