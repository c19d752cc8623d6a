//! A host's layers laid upon each other.
//!
//! Most resources are declared by one layer alone: those are borrowed from it, and only what several layers say is put together anew.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::inventory::{Inventory, Traits};
use super::layer::Layer;
use super::{Failure, ReadLayer};
use crate::document::{Data, Entry, Place, Table, Value};
use crate::model::Kind;

/// What all layers of a host say together.
#[derive(Debug, Default)]
pub(super) struct Merged<'layers> {
    /// The variables.
    pub vars: Table,
    /// The resources, by kind and name.
    pub resources: BTreeMap<Kind, BTreeMap<&'layers str, Resource<'layers>>>,
}

/// One resource.
#[derive(Debug)]
pub(super) struct Resource<'layers> {
    /// Where it is declared (last, if several layers declare it).
    pub place: &'layers Place,
    /// Its keys; borrowed as long as one layer says all of them.
    pub table: Cow<'layers, Table>,
}

/// Lays the layers of a host upon each other, from the weakest to the strongest.
pub(super) fn merge<'layers>(
    inventory: &Inventory,
    traits: &Traits,
    layers: &'layers [ReadLayer],
) -> Result<Merged<'layers>, Vec<Failure>> {
    let mut merged = Merged::default();
    let mut failures = Vec::new();
    for layer in layers {
        match &**layer {
            Ok(layer) => {
                merged.vars.overlay(&layer.defaults);
                overlay_resources(&mut merged, layer);
            }
            Err(found) => failures.extend(found.iter().cloned()),
        }
    }
    // Every default is weaker than any variable, wherever its layer stands.
    for layer in layers.iter().filter_map(|layer| (**layer).as_ref().ok()) {
        merged.vars.overlay(&layer.vars);
    }
    if let Some(member) = inventory.get(&traits.name) {
        merged.vars.overlay(&member.vars);
    }
    if failures.is_empty() {
        Ok(merged)
    } else {
        Err(failures)
    }
}

fn overlay_resources<'layers>(merged: &mut Merged<'layers>, layer: &'layers Layer) {
    for kind in Kind::ALL {
        let resources = layer.resources.get(kind.as_str()).and_then(Value::as_table);
        let Some(resources) = resources else { continue };
        let into = merged.resources.entry(kind).or_default();
        for (name, entry) in resources.iter() {
            overlay_resource(into, kind, name, entry, layer);
        }
    }
}

fn overlay_resource<'layers>(
    into: &mut BTreeMap<&'layers str, Resource<'layers>>,
    kind: Kind,
    name: &'layers str,
    entry: &'layers Entry,
    layer: &'layers Layer,
) {
    let Some(table) = entry.value.as_table() else {
        return; // refused when the layer was read
    };
    let mut later = Cow::Borrowed(table);
    // A word for a package replaces what was wished, not what the package is called.
    if kind == Kind::Package
        && layer.words.contains(name)
        && let Some(earlier) = into.get_mut(name)
    {
        let mut names = Table::new();
        for manager in ["apt", "dnf"] {
            if let Some(entry) = earlier.table.entry(manager) {
                names.insert(manager, entry.clone());
            }
        }
        earlier.table = Cow::Owned(names);
    }
    if later.get("undeclare").is_some() && take_undeclare(later.to_mut()) {
        into.remove(name);
        if later.is_empty() {
            return;
        }
    }
    if kind == Kind::Unit && undeclares_dropins(&later) {
        undeclare_dropins(into, name, later.to_mut());
    }
    if let Some(report) = &layer.report
        && later.get("report").is_none()
    {
        let entry = Entry {
            key: report.place.clone(),
            value: report.clone(),
        };
        later.to_mut().insert("report", entry);
    }
    let place = &entry.key;
    match into.get_mut(name) {
        Some(earlier) => {
            earlier.table.to_mut().overlay(&later);
            earlier.place = place;
        }
        None => {
            into.insert(
                name,
                Resource {
                    place,
                    table: later,
                },
            );
        }
    }
}

fn undeclares_dropins(unit: &Table) -> bool {
    let dropins = unit.get("dropin").and_then(Value::as_table);
    dropins.into_iter().flat_map(Table::iter).any(|(_, entry)| {
        let dropin = entry.value.as_table();
        dropin.is_some_and(|dropin| dropin.get("undeclare").is_some())
    })
}

/// Drop-ins are forgotten like resources.
fn undeclare_dropins(into: &mut BTreeMap<&str, Resource<'_>>, unit: &str, later: &mut Table) {
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
        if let Some(unit) = into.get_mut(unit)
            && let Some(Data::Table(earlier)) = unit
                .table
                .to_mut()
                .entry_mut("dropin")
                .map(|entry| &mut entry.value.data)
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
