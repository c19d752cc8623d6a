//! Why one resource is as it is: what set each key of it, what it uses, what it moves, and what became of it.

use crate::cycle::contested;
use crate::document::nearest;
use crate::fleet::{self, ChosenLayer, OriginatedValue, Rendered};
use crate::git::Tree;
use crate::kinds;
use crate::kinds::file::PathSpec;
use crate::model::{Action, Class, Failure, Kind, OnRemoval, ResourceId};
use crate::record::history::Lines;
use crate::record::{HistoryEntry, Record};
use crate::report::explanation::{Event, Layer, Resource, Restart, Value};
use crate::report::status::Status;
use crate::sys::Host;

mod original;

use original::original;

/// How many resources are suggested.
const NEAR_LIMIT: usize = 3;

/// What an answer is made from.
pub(super) struct Question<'a> {
    pub host: &'a Host,
    pub record: &'a Record,
    pub tree: &'a dyn Tree,
    pub rendered: &'a Rendered,
    pub status: &'a Status,
    /// May values be shown that not everybody may read.
    pub may_see_all: bool,
}

/// A layer and what chose it.
pub(super) fn layer(chosen: &ChosenLayer) -> Layer {
    Layer {
        name: chosen.name.clone(),
        because: chosen.because.to_string(),
    }
}

impl Question<'_> {
    /// Why what `asked` names is as it is.
    pub fn answer(&self, asked: &str) -> Result<Resource, Failure> {
        match self.find(asked)? {
            Some(id) => self.declared(&id),
            None => self.undeclared(asked),
        }
    }

    /// The declared resource that `asked` means: `kind:name`, a path, a unit with or without `.service`, or a package by either name.
    fn find(&self, asked: &str) -> Result<Option<ResourceId>, Failure> {
        let state = &self.rendered.state;
        let declared = state.resource_ids();
        if let Ok(id) = asked.parse::<ResourceId>() {
            return Ok(declared.contains(&id).then_some(id));
        }
        let name = match asked.trim_end_matches('/') {
            "" => asked,
            name => name,
        };
        let service = format!("{name}.service");
        let owners = |wanted: &str| {
            let paths = state
                .paths
                .iter()
                .map(|path| (path.path.as_str(), &path.id));
            let packages = state
                .packages
                .iter()
                .map(|package| (package.name.as_str(), &package.id));
            let keys = paths.chain(packages).filter(|(key, _)| *key == wanted);
            let by_name = declared.iter().copied().filter(|id| id.name == wanted);
            let mut found: Vec<ResourceId> =
                keys.map(|(_, id)| id).chain(by_name).cloned().collect();
            found.sort();
            found.dedup();
            found
        };
        let mut found = owners(name);
        if found.is_empty() {
            found = owners(&service);
        }
        match &found[..] {
            [] => Ok(None),
            [id] => Ok(Some(id.clone())),
            several => {
                let several: Vec<String> = several.iter().map(ToString::to_string).collect();
                let message = format!("'{asked}' may be {}", several.join(" or "));
                Err(Failure::new(Class::Host, message).with_hint("write which"))
            }
        }
    }

    fn declared(&self, id: &ResourceId) -> Result<Resource, Failure> {
        let state = &self.rendered.state;
        let is_shown = self.may_see_all || self.is_public(id);
        let prefix = format!("{id} ");
        let values = self.rendered.values.iter().filter_map(|value| {
            let key = value.key.strip_prefix(&prefix)?;
            let is_content = key == "content" || key.ends_with(".content");
            Some(originated(key, value, is_shown || !is_content))
        });
        let used = fleet::names_used(self.tree, &self.rendered.values, id);
        let mut variables = Vec::new();
        for variable in &self.rendered.variables {
            let exactly = used
                .iter()
                .any(|name| *name == variable.key || is_below(name, &variable.key));
            if exactly || used.iter().any(|name| is_below(&variable.key, name)) {
                // Of a table that is used as a whole perhaps not everything is printed.
                let is_shown = self.may_see_all || (is_shown && exactly);
                variables.push(originated(&variable.key, variable, is_shown));
            }
        }
        let first = |name: &String| name.split('.').next().unwrap_or_default().to_owned();
        let names = used
            .iter()
            .filter(|name| ["host", "hosts"].contains(&first(name).as_str()))
            .cloned()
            .collect();
        let needs = state.needs.get(id).cloned().unwrap_or_default();
        let needed_by = state
            .needs
            .iter()
            .filter(|(_, needs)| needs.contains(id))
            .map(|(other, _)| other.clone())
            .collect();
        let (how, detail) = self.how_it_is(id);
        let (report, on_removal) = self.settings(id);
        Ok(Resource {
            declared: true,
            contested: contested::explain(&contested::recall(self.record), id),
            state: how.to_owned(),
            detail,
            values: values.collect(),
            variables,
            names,
            needs,
            needed_by,
            restarts: self.restarts(id),
            restarted_by: self.restarted_by(id),
            report,
            on_removal,
            set_aside: self.set_aside(id),
            ..self.remembered(id)?
        })
    }

    /// What is known of something that nothing declares now.
    fn undeclared(&self, asked: &str) -> Result<Resource, Failure> {
        let id = match asked.parse::<ResourceId>() {
            Ok(id) => id,
            Err(invalid) => {
                let told = self.record.resources_named(asked)?;
                let owned = self.record.inventory()?.into_iter();
                let owned = owned
                    .filter(|entry| entry.key == asked)
                    .map(|entry| entry.resource);
                match told.into_iter().chain(owned).next() {
                    Some(id) => id,
                    // Nothing known has a colon in its name, so that it was meant to be a kind's.
                    None if asked.contains(':') && !asked.starts_with('/') => {
                        return Err(Failure::new(Class::Host, invalid.to_string()));
                    }
                    None => ResourceId::new(probable_kind(asked), asked),
                }
            }
        };
        let declared = self.rendered.state.resource_ids();
        let mut near = Vec::new();
        let mut left: Vec<&ResourceId> = declared.into_iter().collect();
        while near.len() < NEAR_LIMIT {
            let found = nearest(&id.name, left.iter().map(|other| other.name.as_str()));
            let Some(at) = found.and_then(|name| left.iter().position(|other| other.name == name))
            else {
                break;
            };
            near.push(left.remove(at).clone());
        }
        Ok(Resource {
            near,
            ..self.remembered(&id)?
        })
    }

    /// What the record knows of `id`; the rest is empty.
    fn remembered(&self, id: &ResourceId) -> Result<Resource, Failure> {
        let inventory = self.record.inventory()?;
        let entry = inventory.iter().find(|entry| {
            // Beside its files, where it is no path.
            entry.resource == *id && (entry.key == id.name || !entry.key.starts_with('/'))
        });
        let mut last_change = None;
        let mut last_drift = None;
        self.record.history(Lines::OfResource(id), &mut |entry| {
            let place = if entry.drift {
                &mut last_drift
            } else {
                &mut last_change
            };
            if place.is_none() {
                *place = Some(entry);
            }
            last_change.is_none() || last_drift.is_none()
        })?;
        Ok(Resource {
            resource: id.clone(),
            declared: false,
            contested: None,
            state: String::new(),
            detail: String::new(),
            values: Vec::new(),
            variables: Vec::new(),
            names: Vec::new(),
            needs: Vec::new(),
            needed_by: Vec::new(),
            restarts: Vec::new(),
            restarted_by: Vec::new(),
            report: false,
            on_removal: entry.map_or(OnRemoval::Restore, |entry| entry.on_removal),
            original: entry.map(original),
            set_aside: Vec::new(),
            last_change: last_change.map(|entry| self.event(entry)).transpose()?,
            last_drift: last_drift.map(|entry| self.event(entry)).transpose()?,
            near: Vec::new(),
        })
    }

    fn event(&self, entry: HistoryEntry) -> Result<Event, Failure> {
        let note = self.record.noted(&entry.revision)?;
        Ok(Event {
            at: entry.at,
            revision: entry.revision,
            subject: note
                .map(|note| note.subject)
                .filter(|subject| !subject.is_empty()),
            action: entry.action,
            outcome: entry.outcome,
            detail: entry.detail,
        })
    }

    /// May everybody on the host read what `id` declares.
    fn is_public(&self, id: &ResourceId) -> bool {
        let state = &self.rendered.state;
        let closed = |directory: &str| {
            state.paths.iter().any(|path| {
                path.path == directory
                    && matches!(path.spec, PathSpec::Directory { mode: Some(mode), .. } if mode & 0o001 == 0)
            })
        };
        state.paths.iter().filter(|path| path.id == *id).all(|path| {
            let is_open = !matches!(path.spec, PathSpec::File { mode: Some(mode), .. } if mode & 0o004 == 0);
            is_open
                && !crate::sys::files::above(&path.path).any(closed)
                && kinds::file::is_public(self.host, &path.path, path.as_user.as_ref())
        })
    }

    fn how_it_is(&self, id: &ResourceId) -> (&'static str, String) {
        let failed = self
            .status
            .errors
            .iter()
            .find(|error| error.resource.as_ref() == Some(id));
        let drift = self.status.drift.iter().find(|drift| drift.resource == *id);
        match (failed, drift) {
            (Some(error), _) => ("failed", error.message.clone()),
            (None, Some(drift)) if drift.fields.is_empty() => ("differs", drift.reason.to_string()),
            (None, Some(drift)) => ("differs", drift.fields.join(", ")),
            (None, None) => ("as declared", String::new()),
        }
    }

    fn settings(&self, id: &ResourceId) -> (bool, OnRemoval) {
        let state = &self.rendered.state;
        let paths = state
            .paths
            .iter()
            .map(|path| (&path.id, path.report, path.on_removal));
        let packages = state.packages.iter();
        let packages = packages.map(|package| (&package.id, package.report, package.on_removal));
        let commands = state.commands.iter();
        let commands = commands.map(|command| (&command.id, command.report, OnRemoval::Keep));
        let units = state
            .units
            .iter()
            .map(|unit| (&unit.id, unit.report, unit.on_removal));
        units
            .chain(paths)
            .chain(packages)
            .chain(commands)
            .find(|(other, _, _)| *other == id)
            .map_or((false, OnRemoval::Restore), |(_, report, on_removal)| {
                (report, on_removal)
            })
    }

    /// What a package brings and dpkg did not install; where that cannot be read, nothing is said of it.
    fn set_aside(&self, id: &ResourceId) -> Vec<String> {
        let packages = self.rendered.state.packages.iter();
        let name = packages
            .filter(|package| package.id == *id)
            .map(|package| package.name.as_str())
            .next();
        name.and_then(|name| kinds::package::kept::set_aside(self.host, name).ok())
            .unwrap_or_default()
    }

    fn restarts(&self, id: &ResourceId) -> Vec<Restart> {
        let edge = |resource: &ResourceId, action| Restart {
            resource: resource.clone(),
            action,
        };
        let mut found = Vec::new();
        for unit in &self.rendered.state.units {
            if unit.restart_on.contains(id) {
                found.push(edge(&unit.id, Action::Restart));
            } else if unit.reload_on.contains(id) {
                found.push(edge(&unit.id, Action::Reload));
            }
        }
        for command in &self.rendered.state.commands {
            if command.run_on.contains(id) {
                found.push(edge(&command.id, Action::Run));
            }
        }
        found
    }

    fn restarted_by(&self, id: &ResourceId) -> Vec<Restart> {
        let state = &self.rendered.state;
        let edge = |action| {
            move |resource: &ResourceId| Restart {
                resource: resource.clone(),
                action,
            }
        };
        if let Some(command) = state.commands.iter().find(|command| command.id == *id) {
            return command.run_on.iter().map(edge(Action::Run)).collect();
        }
        let Some(unit) = state.units.iter().find(|unit| unit.id == *id) else {
            return Vec::new();
        };
        let restarts = unit.restart_on.iter().map(edge(Action::Restart));
        let reloads = unit.reload_on.iter().map(edge(Action::Reload));
        restarts.chain(reloads).collect()
    }
}

/// Is `inner` a part of what `outer` names.
fn is_below(inner: &str, outer: &str) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.starts_with('.'))
}

fn originated(key: &str, value: &OriginatedValue, is_shown: bool) -> Value {
    Value {
        key: key.to_owned(),
        value: is_shown.then(|| value.value.clone()),
        location: value.origin.location.clone(),
        layer: value.origin.layer.to_string(),
    }
}

/// What a bare name that nothing knows probably is.
fn probable_kind(name: &str) -> Kind {
    if name.starts_with('/') {
        Kind::File
    } else if name.contains('.') {
        Kind::Unit
    } else {
        Kind::Package
    }
}
