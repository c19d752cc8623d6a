//! Looks at all units in three rounds: one call for what runs, one round of questions for files and properties, and one more only
//! for services that do not run.

use std::collections::{BTreeMap, BTreeSet};

use crate::kinds::unit::name::{is_template, is_unit_name};
use crate::kinds::unit::{Observed, ObservedUnit};
use crate::model::{Class, Failure, Kind, ResourceId};
use crate::sys::systemd::{Error, ListedUnit, Property, PropertyName, Systemd};

/// Looks at the named units. Changes nothing.
pub(super) fn observe(
    systemd: &Systemd,
    names: &BTreeSet<&str>,
    reloading: &BTreeSet<&str>,
) -> Observed {
    let mut units: BTreeMap<String, Result<ObservedUnit, Failure>> = BTreeMap::new();
    let mut askable = Vec::new();
    for name in names {
        if is_unit_name(name) {
            askable.push((*name).to_owned());
        } else {
            let failure = Failure::new(
                Class::Author,
                format!("refused unit:{name}: '{name}' is no unit name"),
            )
            .with_hint("a unit is named in full, with its type: 'app.service'");
            units.insert((*name).to_owned(), Err(about(failure, name)));
        }
    }
    match look(systemd, &askable, reloading) {
        Ok(found) => units.extend(found),
        Err(error) => {
            for name in askable {
                let failure = error.clone().into_failure(&format!("look at unit:{name}"));
                let failure = about(failure, &name);
                units.insert(name, Err(failure));
            }
        }
    }
    Observed {
        units,
        started: BTreeMap::new(),
    }
}

/// When each of the units left its inactive state last, in microseconds since the machine started.
pub(super) fn started(
    systemd: &Systemd,
    names: &BTreeSet<&str>,
) -> Result<BTreeMap<String, u64>, Error> {
    let names: Vec<String> = names
        .iter()
        .filter(|name| is_unit_name(name) && !is_template(name))
        .map(|name| (*name).to_owned())
        .collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let listed = systemd.list_units(&names)?;
    let wanted: Vec<PropertyName<'_>> = listed
        .iter()
        .map(|unit| property(unit, "Unit", "InactiveExitTimestampMonotonic"))
        .collect();
    let answers = systemd.properties(&wanted)?;
    let moment = |answer| match answer {
        Ok(Property::Number(moment)) => u64::try_from(moment).ok(),
        _ => None,
    };
    Ok(names
        .into_iter()
        .zip(answers)
        .filter_map(|(name, answer)| Some((name, moment(answer)?)))
        .collect())
}

type Found = BTreeMap<String, Result<ObservedUnit, Failure>>;

fn look(systemd: &Systemd, names: &[String], reloading: &BTreeSet<&str>) -> Result<Found, Error> {
    if names.is_empty() {
        return Ok(Found::new());
    }
    // A template itself is never loaded; it has a file, and nothing else.
    let (templates, loadable): (Vec<String>, Vec<String>) =
        names.iter().cloned().partition(|name| is_template(name));
    let listed = systemd.list_units(&loadable)?;
    let file_states = systemd.unit_file_states(&loadable)?;
    let wanted: Vec<PropertyName<'_>> = listed
        .iter()
        .map(|unit| property(unit, "Unit", "NeedDaemonReload"))
        .collect();
    let flags = systemd.properties(&wanted)?;
    let reloadable: Vec<(&String, &ListedUnit)> = loadable
        .iter()
        .zip(&listed)
        .filter(|(name, unit)| reloading.contains(name.as_str()) && unit.load == "loaded")
        .collect();
    let wanted: Vec<PropertyName<'_>> = reloadable
        .iter()
        .map(|(_, unit)| property(unit, "Unit", "CanReload"))
        .collect();
    let can_reload: BTreeMap<&str, bool> = reloadable
        .iter()
        .zip(systemd.properties(&wanted)?)
        .filter_map(|((name, _), answer)| match answer {
            Ok(Property::Flag(can)) => Some((name.as_str(), can)),
            _ => None,
        })
        .collect();
    let idle_services: Vec<&ListedUnit> = listed
        .iter()
        .filter(|unit| unit.id.ends_with(".service") && unit.load == "loaded")
        .filter(|unit| matches!(unit.active.as_str(), "inactive" | "failed"))
        .collect();
    let wanted: Vec<PropertyName<'_>> = idle_services
        .iter()
        .flat_map(|unit| ["Type", "RemainAfterExit"].map(|name| property(unit, "Service", name)))
        .collect();
    let service_properties = systemd.properties(&wanted)?;
    let ending: BTreeSet<&str> = idle_services
        .iter()
        .zip(service_properties.chunks_exact(2))
        .filter(|(_, answers)| {
            matches!(answers, [Ok(Property::Text(kind)), Ok(Property::Flag(false))] if kind == "oneshot")
        })
        .map(|(unit, _)| unit.id.as_str())
        .collect();
    let mut found = Found::new();
    for (((name, unit), file_state), flag) in
        loadable.iter().zip(&listed).zip(file_states).zip(&flags)
    {
        let observed = file_state
            .map_err(|error| about(error.into_failure(&format!("look at unit:{name}")), name))
            .map(|file_state| ObservedUnit {
                exists: unit.load != "not-found" || !file_state.is_empty(),
                active: unit.active.clone(),
                file_state,
                needs_daemon_reload: is_set(flag),
                ends_by_itself: ending.contains(unit.id.as_str()),
                can_reload: can_reload.get(name.as_str()).copied(),
            });
        found.insert(name.clone(), observed);
    }
    let template_states = systemd.unit_file_states(&templates)?;
    for (name, file_state) in templates.iter().zip(template_states) {
        let observed = file_state
            .map_err(|error| about(error.into_failure(&format!("look at unit:{name}")), name))
            .map(|file_state| ObservedUnit {
                exists: !file_state.is_empty(),
                active: String::new(),
                file_state,
                needs_daemon_reload: false,
                ends_by_itself: false,
                can_reload: None,
            });
        found.insert(name.clone(), observed);
    }
    Ok(found)
}

fn property<'a>(
    unit: &'a ListedUnit,
    interface: &'static str,
    name: &'static str,
) -> PropertyName<'a> {
    PropertyName {
        object: &unit.object,
        interface,
        name,
    }
}

fn is_set(answer: &Result<Property, Error>) -> bool {
    matches!(answer, Ok(Property::Flag(true)))
}

fn about(failure: Failure, name: &str) -> Failure {
    failure.about(ResourceId::new(Kind::Unit, name))
}
