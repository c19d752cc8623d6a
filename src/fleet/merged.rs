//! A host's layers laid upon each other.

use super::inventory::Traits;
use super::layer::Layer;
use super::{ChosenLayer, Fleet};
use crate::document::{Data, Entry, Table, Value};
use crate::model::{Failure, Kind};

/// What all layers of a host say together.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// The variables.
    pub vars: Table,
    /// The resources: tables by kind and name.
    pub resources: Table,
}

/// Lays the `layers` of a host upon each other.
pub(super) fn merge(
    fleet: &Fleet<'_>,
    traits: &Traits,
    layers: &[ChosenLayer],
) -> Result<Merged, Vec<Failure>> {
    let loaded: Vec<_> = layers
        .iter()
        .map(|layer| fleet.layer(&layer.name))
        .collect();
    let mut merged = Merged::default();
    let mut failures = Vec::new();
    for layer in &loaded {
        match &**layer {
            Ok(layer) => {
                merged.vars.overlay(&layer.defaults);
                overlay_resources(&mut merged.resources, layer);
            }
            Err(found) => failures.extend(found.iter().cloned()),
        }
    }
    // Every default is weaker than any variable, wherever its layer stands.
    for layer in loaded
        .iter()
        .filter_map(|layer| layer.as_ref().as_ref().ok())
    {
        merged.vars.overlay(&layer.vars);
    }
    if let Some(member) = fleet.inventory.get(&traits.name) {
        merged.vars.overlay(&member.vars);
    }
    if failures.is_empty() {
        Ok(merged)
    } else {
        Err(failures)
    }
}

fn overlay_resources(merged: &mut Table, layer: &Layer) {
    for (kind, section) in layer.resources.iter() {
        let Some(resources) = section.value.as_table() else {
            continue; // refused when the layer was read
        };
        if merged.get(kind).is_none() {
            let mut empty = section.clone();
            empty.value.data = Data::Table(Table::new());
            merged.insert(kind, empty);
        }
        let Some(Data::Table(into)) = merged.entry_mut(kind).map(|entry| &mut entry.value.data)
        else {
            continue; // made a table just above
        };
        for (name, entry) in resources.iter() {
            overlay_resource(into, kind, name, entry, layer);
        }
    }
}

fn overlay_resource(into: &mut Table, kind: &str, name: &str, entry: &Entry, layer: &Layer) {
    let mut later = match &entry.value.data {
        Data::Table(table) => table.clone(),
        _ => {
            // A word for a package replaces what was wished, not what the package is called.
            if let Some(Data::Table(earlier)) =
                into.entry_mut(name).map(|entry| &mut entry.value.data)
            {
                let mut names = Table::new();
                for manager in ["apt", "dnf"] {
                    if let Some(entry) = earlier.remove(manager) {
                        names.insert(manager, entry);
                    }
                }
                *earlier = names;
            }
            let mut table = Table::new();
            table.insert("state", entry.clone());
            table
        }
    };
    if take_undeclare(&mut later) {
        into.remove(name);
        if later.is_empty() {
            return;
        }
    }
    if kind == Kind::Unit.as_str() {
        undeclare_dropins(into, name, &mut later);
    }
    if let Some(report) = &layer.report
        && later.get("report").is_none()
    {
        let entry = Entry {
            key: report.place.clone(),
            value: report.clone(),
        };
        later.insert("report", entry);
    }
    let later = Entry {
        key: entry.key.clone(),
        value: Value {
            place: entry.value.place.clone(),
            data: Data::Table(later),
        },
    };
    let mut layer_table = Table::new();
    layer_table.insert(name, later);
    into.overlay(&layer_table);
}

/// Drop-ins are forgotten like resources.
fn undeclare_dropins(into: &mut Table, unit: &str, later: &mut Table) {
    let Some(Data::Table(dropins)) = later.entry_mut("dropin").map(|entry| &mut entry.value.data)
    else {
        return;
    };
    let names: Vec<String> = dropins.keys().map(str::to_owned).collect();
    for name in names {
        let Some(Data::Table(dropin)) = dropins.entry_mut(&name).map(|entry| &mut entry.value.data)
        else {
            continue; // refused when the layer was read
        };
        if !take_undeclare(dropin) {
            continue;
        }
        if dropin.is_empty() {
            dropins.remove(&name);
        }
        if let Some(Data::Table(unit)) = into.entry_mut(unit).map(|entry| &mut entry.value.data)
            && let Some(Data::Table(earlier)) =
                unit.entry_mut("dropin").map(|entry| &mut entry.value.data)
        {
            earlier.remove(&name);
        }
    }
}

/// Takes `undeclare` out and tells whether it was wished.
fn take_undeclare(table: &mut Table) -> bool {
    table
        .remove("undeclare")
        .and_then(|entry| entry.value.as_bool())
        .unwrap_or(false)
}
