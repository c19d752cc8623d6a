//! What resources say about each other: `needs`, `restart_on`, `reload_on`.

use std::collections::{BTreeMap, BTreeSet};

use crate::document::{Mistake, Place, Table, Value};
use crate::model::{Kind, ResourceId};

/// Reads the array `key` of the resource `id`: what it names has to be among `declared`. What is declared but not managed on this
/// host is left out: there is nothing to wait for.
pub(super) fn read(
    id: &ResourceId,
    key: &str,
    table: &Table,
    declared: &BTreeMap<ResourceId, &Place>,
    unmanaged: &BTreeSet<ResourceId>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<ResourceId> {
    let mut named = Vec::new();
    let elements = table.get(key).and_then(Value::as_array).unwrap_or_default();
    for element in elements {
        let Some(text) = element.as_str() else {
            continue; // the type was checked
        };
        match read_one(id, key, text, &element.place, declared) {
            Ok(other) => {
                if !unmanaged.contains(&other) && !named.contains(&other) {
                    named.push(other);
                }
            }
            Err(mistake) => mistakes.push(mistake),
        }
    }
    named
}

fn read_one(
    id: &ResourceId,
    key: &str,
    text: &str,
    place: &Place,
    declared: &BTreeMap<ResourceId, &Place>,
) -> Result<ResourceId, Mistake> {
    let other: ResourceId = text.parse().map_err(|_| {
        let mistake = Mistake::new(place, format!("'{text}' in `{key}` of {id} is no resource"));
        match meant(text, declared) {
            Some(meant) => mistake.hint(format!("did you mean '{meant}'?")),
            None => mistake.hint(
                "a resource is written kind:name, such as \"package:chrony\" or \"file:/etc/motd\"",
            ),
        }
    })?;
    if other == *id {
        return Err(Mistake::new(place, format!("{id} names itself in `{key}`")));
    }
    if other.kind == Kind::Health && id.kind != Kind::Health {
        let mistake = Mistake::new(
            place,
            format!("{id} cannot wait for {other}: checks run before or after everything else"),
        );
        return Err(
            mistake.hint("give the check when = \"before\": nothing is applied until it holds")
        );
    }
    if declared.contains_key(&other) {
        return Ok(other);
    }
    let known: Vec<String> = declared
        .keys()
        .filter(|known| *known != id)
        .map(ToString::to_string)
        .collect();
    let mistake = Mistake::new(
        place,
        format!("`{key}` of {id} names {other}, which is not declared for this host"),
    );
    Err(
        match crate::document::nearest(text, known.iter().map(String::as_str)) {
            Some(near) => mistake.hint(format!("did you mean '{near}'?")),
            None => mistake.hint(format!("declare {other}, or take it out of `{key}`")),
        },
    )
}

/// The declared resource that somebody means who writes its name alone, another word for its kind, or `Kind[name]`.
fn meant(text: &str, declared: &BTreeMap<ResourceId, &Place>) -> Option<ResourceId> {
    let name = match text.split_once('[') {
        Some((_, rest)) => rest.trim_end_matches(']'),
        None => text.split_once(':').map_or(text, |(_, name)| name),
    };
    let name = name.trim_matches(['\'', '"', ' ']);
    let is_named = |id: &&ResourceId| {
        id.name == name || id.kind == Kind::Unit && id.name.strip_suffix(".service") == Some(name)
    };
    let mut found = declared.keys().filter(is_named);
    // Two that bear the name: nobody knows which.
    let first = found.next()?;
    found.next().is_none().then(|| first.clone())
}

/// The circles among `needs`, each told once. A path also waits for the nearest declared directory above it.
pub(super) fn circles(
    needs: &BTreeMap<ResourceId, Vec<ResourceId>>,
    declared: &BTreeMap<ResourceId, &Place>,
) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut finished: BTreeSet<ResourceId> = BTreeSet::new();
    for start in needs.keys() {
        let mut path: Vec<(ResourceId, Vec<ResourceId>)> = Vec::new();
        if !finished.contains(start) {
            path.push((start.clone(), waits_for(start, needs, declared)));
        }
        while let Some((_, pending)) = path.last_mut() {
            let Some(next) = pending.pop() else {
                if let Some((id, _)) = path.pop() {
                    finished.insert(id);
                }
                continue;
            };
            if let Some(first) = path.iter().position(|(id, _)| *id == next) {
                mistakes.push(circle(&path[first..], declared));
            } else if !finished.contains(&next) {
                let pending = waits_for(&next, needs, declared);
                path.push((next, pending));
            }
        }
    }
    mistakes
}

fn circle(
    path: &[(ResourceId, Vec<ResourceId>)],
    declared: &BTreeMap<ResourceId, &Place>,
) -> Mistake {
    let ids: Vec<&ResourceId> = path.iter().map(|(id, _)| id).collect();
    let first = ids[0];
    let mut told: Vec<String> = ids.iter().map(ToString::to_string).collect();
    told.push(first.to_string());
    let message = format!(
        "resources need each other in a circle: {}",
        told.join(" → ")
    );
    let place = declared[first];
    let mut mistake = Mistake::new(place, message).hint("take one of the needs out");
    for id in ids.iter().skip(1) {
        mistake = mistake.note(format!("{id} is declared here"), declared[*id]);
    }
    mistake
}

fn waits_for(
    id: &ResourceId,
    needs: &BTreeMap<ResourceId, Vec<ResourceId>>,
    declared: &BTreeMap<ResourceId, &Place>,
) -> Vec<ResourceId> {
    let mut waits = needs.get(id).cloned().unwrap_or_default();
    if matches!(
        id.kind,
        Kind::File | Kind::Directory | Kind::Symlink | Kind::Tree
    ) {
        let parent = std::iter::successors(id.name.rsplit_once('/'), |(parent, _)| {
            parent.rsplit_once('/')
        })
        .map(|(parent, _)| ResourceId::new(Kind::Directory, parent))
        .find(|parent| declared.contains_key(parent));
        waits.extend(parent);
    }
    waits
}
