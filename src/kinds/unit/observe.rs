//! Looks at all units in three rounds: one call for what runs, one round of questions for files and properties, and one more only
//! for services that do not run.

use std::collections::{BTreeMap, BTreeSet};

use crate::kinds::kind::Owned;
use crate::kinds::unit::name::{is_template, is_unit_name};
use crate::kinds::unit::{Link, Observed, ObservedUnit, Original, image};
use crate::model::{Class, Failure, Kind, ResourceId};
use crate::sys::Host;
use crate::sys::files::{Entry, Hashing, join, split};
use crate::sys::systemd::{Error, ListedUnit, Property, PropertyName, Systemd};

/// Looks at the named units. Changes nothing.
pub(super) fn observe(
    host: &Host,
    names: &BTreeSet<&str>,
    reloading: &BTreeSet<&str>,
    owned: &[Owned<Original>],
) -> Observed {
    let systemd = host.systemd();
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
    let is_image = !host.is_running_system();
    let found = match is_image {
        true => Ok(image::look(host, &askable)),
        false => look(systemd, &askable, reloading),
    };
    match found {
        Ok(found) => units.extend(found),
        Err(error) => {
            for name in askable {
                let failure = error.clone().into_failure(&format!("look at unit:{name}"));
                let failure = about(failure, &name);
                units.insert(name, Err(failure));
            }
        }
    }
    look_for_links(host, &mut units, owned);
    look_below_masks(host, &mut units, owned);
    let ends = |unit: &Result<ObservedUnit, Failure>| {
        unit.as_ref().is_ok_and(|unit| {
            unit.file_state.ends_with("-runtime")
                || unit.link.as_ref().is_some_and(|link| link.runtime)
        })
    };
    let ended = owned.iter().any(|owned| owned.original.boot.is_some());
    let boot = match ended || units.values().any(ends) {
        true => read_boot_id(host),
        false => None,
    };
    for unit in units.values_mut().filter(|unit| ends(unit)).flatten() {
        unit.boot = boot.clone();
    }
    Observed {
        units,
        started: BTreeMap::new(),
        boot,
        is_image,
    }
}

/// Where systemd keeps its links to unit files elsewhere, and whether they end with the boot.
const LINK_DIRECTORIES: [(&str, bool); 2] = [
    ("/etc/systemd/system", false),
    ("/run/systemd/system", true),
];

/// The most names that are looked at where an administrator keeps unit files.
const MOST_UNIT_FILES: usize = 10_000;

/// Where systemd finds unit files without a link.
const UNIT_DIRECTORIES: [&str; 5] = [
    "/etc/systemd",
    "/run/systemd",
    "/usr/local/lib/systemd",
    "/usr/lib/systemd",
    "/lib/systemd",
];

/// Looks how units are found whose files lie elsewhere: those that are, or were before limpet, in a state that allows for it.
fn look_for_links(host: &Host, units: &mut Found, owned: &[Owned<Original>]) {
    let had_link: BTreeSet<&str> = owned
        .iter()
        .filter(|owned| owned.original.link.is_some())
        .map(|owned| owned.key.as_str())
        .collect();
    for (name, unit) in units {
        let Ok(unit) = unit else { continue };
        let may_be_linked = matches!(
            unit.file_state.as_str(),
            "enabled" | "enabled-runtime" | "linked" | "linked-runtime"
        );
        if may_be_linked || had_link.contains(name.as_str()) {
            unit.link = LINK_DIRECTORIES
                .into_iter()
                .find_map(|(directory, runtime)| read_link(host, directory, name, runtime));
        }
    }
}

/// Looks whether units that nobody touched yet are enabled below their masks: systemd tells only of the mask.
fn look_below_masks(host: &Host, units: &mut Found, owned: &[Owned<Original>]) {
    let is_new = |name: &str| !owned.iter().any(|owned| owned.key == name);
    let masked = units.iter_mut().filter_map(|(name, unit)| {
        let unit = unit.as_mut().ok()?;
        (unit.is_masked() && is_new(name)).then_some((name, unit))
    });
    let mut directories = None;
    for (name, unit) in masked {
        let directories = directories.get_or_insert_with(|| directories_of_links(host));
        unit.is_enabled_below = directories
            .iter()
            .any(|directory| host.exists(&join(directory, name)).unwrap_or(false));
    }
}

/// Where enabled units are linked from those that want them.
fn directories_of_links(host: &Host) -> Vec<String> {
    const SYSTEM: &str = "/etc/systemd/system";
    let names = host
        .walk()
        .and_then(|mut walk| walk.list(SYSTEM, MOST_UNIT_FILES));
    let mut names = names.unwrap_or_default();
    names.retain(|name| {
        [".wants", ".requires", ".upholds"]
            .iter()
            .any(|ending| name.ends_with(ending))
    });
    names.iter().map(|name| join(SYSTEM, name)).collect()
}

fn read_link(host: &Host, directory: &str, name: &str, runtime: bool) -> Option<Link> {
    let path = format!("{directory}/{name}");
    let Ok(Entry::Symlink(target)) = host.look(&path, Hashing::Skip).map(|look| look.entry) else {
        return None;
    };
    let (parent, file) = split(&target);
    let is_elsewhere = target.starts_with('/')
        && !UNIT_DIRECTORIES.iter().any(|known| {
            parent
                .strip_prefix(known)
                .is_some_and(|rest| rest.starts_with('/'))
        });
    // Another name is an alias; nothing at all is a mask.
    (is_elsewhere && file == name).then_some(Link { target, runtime })
}

/// The kernel's name for this boot; nothing where it cannot be read, and then nothing is said to have ended.
fn read_boot_id(host: &Host) -> Option<String> {
    let bytes = host.read_file("/proc/sys/kernel/random/boot_id", 64);
    let text = String::from_utf8(bytes.ok()??).ok()?;
    Some(text.trim().to_owned())
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

pub(super) type Found = BTreeMap<String, Result<ObservedUnit, Failure>>;

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
                active: active_soon(unit),
                file_state,
                needs_daemon_reload: is_set(flag),
                ends_by_itself: ending.contains(unit.id.as_str()),
                can_reload: can_reload.get(name.as_str()).copied(),
                link: None,
                boot: None,
                is_enabled_below: false,
            });
        found.insert(name.clone(), observed);
    }
    let template_states = systemd.unit_file_states(&templates)?;
    for (name, file_state) in templates.iter().zip(template_states) {
        let observed = file_state
            .map_err(|error| about(error.into_failure(&format!("look at unit:{name}")), name))
            .map(ObservedUnit::of_file);
        found.insert(name.clone(), observed);
    }
    Ok(found)
}

/// Its active state, or the one that is due: systemd starts what waits in its queue from memory, even when the file is gone by then.
fn active_soon(unit: &ListedUnit) -> String {
    let is_down = matches!(unit.active.as_str(), "inactive" | "failed");
    let is_due = matches!(unit.job.as_str(), "start" | "restart" | "reload-or-start");
    match is_down && is_due {
        true => "activating".to_owned(),
        false => unit.active.clone(),
    }
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

pub(super) fn about(failure: Failure, name: &str) -> Failure {
    failure.about(ResourceId::new(Kind::Unit, name))
}
