//! What two desired states of one host differ in.
//!
//! Things are compared by what is owned on the host (a path, a package, a unit), so that moving a declaration between layers, files
//! or kinds is no difference but that it is declared elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{DesiredState, digest};
use crate::kinds::account::AccountSpec;
use crate::kinds::file::PathSpec;
use crate::kinds::kind::Content;
use crate::kinds::package::PackageState;
use crate::kinds::unit::is_own_file;
use crate::model::{Action, ResourceId};

/// One thing that two states differ in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The resource that declares it (that declared it, when it is removed).
    pub resource: ResourceId,
    /// The path, where it is not the resource's name: a file that a unit brings.
    pub path: Option<String>,
    /// What happens to the declaration.
    pub change: ChangeKind,
    /// The keys that differ, by name; the content is not among them.
    pub fields: BTreeMap<String, FieldDifference>,
    /// The contents, where they differ.
    #[serde(skip)]
    pub content: Option<ContentDifference>,
    /// A thing on the host goes away by it, or may: what was not there before limpet is deleted.
    pub removes: bool,
}

/// What happens to a declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It says something else.
    Changed,
}

/// A key before and after; `None` where it is not declared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldDifference {
    /// The value before.
    pub before: Option<Value>,
    /// The value after.
    pub after: Option<Value>,
}

/// A content before and after.
#[derive(Debug, Clone, PartialEq)]
pub struct ContentDifference {
    /// The content before.
    pub before: Option<Content>,
    /// The content after.
    pub after: Option<Content>,
}

/// A restart or reload that differences cause where the unit is active, or a command that they make run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Implied {
    /// The unit's resource, or the command's.
    pub unit: ResourceId,
    /// [`Action::Restart`], [`Action::Reload`] or [`Action::Run`].
    pub action: Action,
    /// What causes it.
    pub because: Vec<ResourceId>,
}

/// Everything that `after` declares otherwise than `before`: packages, then paths, then units, each by name.
pub fn compare(before: &DesiredState, after: &DesiredState) -> Vec<Difference> {
    let (mut old, mut new) = (things(before), things(after));
    let keys: BTreeSet<Owned> = old.keys().chain(new.keys()).cloned().collect();
    keys.into_iter()
        .filter_map(|key| difference(&key, old.remove(&key), new.remove(&key)))
        .collect()
}

/// The commands, restarts and reloads of `after` that `differences` imply.
pub fn implied<'a>(after: &'a DesiredState, differences: &'a [Difference]) -> Vec<Implied> {
    let changed: Vec<&Difference> = differences
        .iter()
        .filter(|difference| difference.touches_the_host())
        .collect();
    let is_unit = |difference: &Difference| difference.owned_path().is_none();
    let others: BTreeSet<&'a ResourceId> = changed
        .iter()
        .filter(|difference| {
            !is_unit(difference) || difference.resource.kind != crate::model::Kind::Unit
        })
        .map(|difference| &difference.resource)
        .collect();
    let mut others = others;
    let mut implied = implied_runs(after, &mut others);
    for unit in after.units.iter().filter(|unit| !unit.report) {
        if unit.masked == Some(true) || unit.running == Some(false) {
            continue;
        }
        let owns =
            |path: &str| unit.files.iter().any(|own| own == path) || is_own_file(&unit.name, path);
        let among = |ids: &[ResourceId]| -> Vec<ResourceId> {
            ids.iter()
                .filter(|id| others.contains(id))
                .cloned()
                .collect()
        };
        let own_files = changed
            .iter()
            .filter(|difference| difference.owned_path().is_some_and(owns))
            .map(|difference| difference.resource.clone());
        let mut restart: Vec<ResourceId> = own_files.chain(among(&unit.restart_on)).collect();
        restart.dedup();
        let reload = among(&unit.reload_on);
        let (action, because) = match (restart.is_empty(), reload.is_empty()) {
            (true, true) => continue,
            (true, false) => (Action::Reload, reload),
            (false, _) => (Action::Restart, [restart, reload].concat()),
        };
        implied.push(Implied {
            unit: unit.id.clone(),
            action,
            because,
        });
    }
    implied
}

/// The commands that changes among `changed` make run; each is a change from then on.
fn implied_runs<'a>(
    after: &'a DesiredState,
    changed: &mut BTreeSet<&'a ResourceId>,
) -> Vec<Implied> {
    let mut implied: Vec<Implied> = Vec::new();
    loop {
        let before = implied.len();
        for command in after.commands.iter().filter(|command| !command.report) {
            let because: Vec<ResourceId> = command
                .run_on
                .iter()
                .filter(|id| changed.contains(id))
                .cloned()
                .collect();
            if because.is_empty() || implied.iter().any(|known| known.unit == command.id) {
                continue;
            }
            changed.insert(&command.id);
            implied.push(Implied {
                unit: command.id.clone(),
                action: Action::Run,
                because,
            });
        }
        if implied.len() == before {
            return implied;
        }
    }
}

impl Difference {
    /// The path it concerns, if it is one.
    fn owned_path(&self) -> Option<&str> {
        use crate::model::Kind;
        match (&self.path, self.resource.kind) {
            (Some(path), _) => Some(path),
            (None, Kind::File | Kind::Directory | Kind::Symlink) => Some(&self.resource.name),
            (None, _) => None,
        }
    }

    /// Is something on the host changed by it; what only orders, reports or remembers changes nothing there.
    fn touches_the_host(&self) -> bool {
        const WORDS: [&str; 10] = [
            "needs",
            "report",
            "on_removal",
            "prevent_removal",
            "declared_by",
            "restart_on",
            "reload_on",
            "run_on",
            "restart",
            "validate",
        ];
        self.content.is_some()
            || self
                .fields
                .keys()
                .any(|field| !WORDS.contains(&field.as_str()))
            || self.change != ChangeKind::Changed
    }
}

/// What is owned on the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Owned {
    Package(String),
    Account(String),
    Sysctl(String),
    Path(String),
    Command(String),
    Unit(String),
    Health(String),
}

/// One owned thing as a state declares it.
struct Thing {
    id: ResourceId,
    fields: Map<String, Value>,
    content: Option<Content>,
    is_absent: bool,
}

fn things(state: &DesiredState) -> BTreeMap<Owned, Thing> {
    let mut things = BTreeMap::new();
    for path in &state.paths {
        let content = match &path.spec {
            PathSpec::File { content, .. } => content.clone(),
            PathSpec::Archive { content, .. } => Some(content.clone()),
            _ => None,
        };
        let thing = Thing {
            id: path.id.clone(),
            fields: plain_fields(digest::path_json(path), &["path", "id", "content"]),
            content,
            is_absent: matches!(path.spec, PathSpec::Absent),
        };
        things.insert(Owned::Path(path.path.to_string()), thing);
    }
    for package in &state.packages {
        let thing = Thing {
            id: package.id.clone(),
            fields: plain_fields(digest::package_json(package), &["id", "name"]),
            content: None,
            is_absent: package.state == PackageState::Absent,
        };
        things.insert(Owned::Package(package.name.clone()), thing);
    }
    for account in &state.accounts {
        let thing = Thing {
            id: account.id.clone(),
            fields: plain_fields(digest::account_json(account), &["id"]),
            content: None,
            is_absent: account.spec == AccountSpec::Absent,
        };
        things.insert(Owned::Account(account.key()), thing);
    }
    for sysctl in &state.sysctls {
        let thing = Thing {
            id: sysctl.id.clone(),
            fields: plain_fields(digest::sysctl_json(sysctl), &["id"]),
            content: None,
            is_absent: false,
        };
        things.insert(Owned::Sysctl(sysctl.id.name.to_string()), thing);
    }
    for command in &state.commands {
        let thing = Thing {
            id: command.id.clone(),
            fields: plain_fields(digest::command_json(command), &["id", "name"]),
            content: None,
            is_absent: false,
        };
        things.insert(Owned::Command(command.name.clone()), thing);
    }
    for unit in &state.units {
        let thing = Thing {
            id: unit.id.clone(),
            fields: plain_fields(digest::unit_json(unit), &["id", "name", "files"]),
            content: None,
            is_absent: false,
        };
        things.insert(Owned::Unit(unit.name.clone()), thing);
    }
    for health in &state.health {
        let thing = Thing {
            id: health.id.clone(),
            fields: plain_fields(digest::health_json(health), &["id"]),
            content: None,
            is_absent: false,
        };
        things.insert(Owned::Health(health.id.name.to_string()), thing);
    }
    // What a resource needs is told with the thing that bears its name, not with each file it brings.
    for (owned, thing) in &mut things {
        let bears_its_name = match owned {
            Owned::Path(path) => *path == thing.id.name,
            _ => true,
        };
        if let Some(needs) = state.needs.get(&thing.id).filter(|_| bears_its_name) {
            let needs: Value = needs.iter().map(ToString::to_string).collect();
            thing.fields.insert("needs".to_owned(), needs);
        }
        if bears_its_name && state.prevented.contains(&thing.id) {
            thing
                .fields
                .insert("prevent_removal".to_owned(), Value::Bool(true));
        }
    }
    things
}

/// The keys of `value` that say something; those that are as they always are do not.
fn plain_fields(value: Value, without: &[&str]) -> Map<String, Value> {
    let Value::Object(mut fields) = value else {
        return Map::new();
    };
    fields.retain(|key, value| {
        let says_nothing = match (key.as_str(), &*value) {
            (_, Value::Null) => true,
            (_, Value::Array(elements)) => elements.is_empty(),
            ("report" | "optional" | "allow_downgrade" | "once", value) => {
                *value == Value::Bool(false)
            }
            ("on_removal", value) => value == "restore",
            _ => false,
        };
        !says_nothing && !without.contains(&key.as_str())
    });
    fields
}

fn difference(owned: &Owned, old: Option<Thing>, new: Option<Thing>) -> Option<Difference> {
    let change = match (&old, &new) {
        (None, None) => return None,
        (None, Some(_)) => ChangeKind::Added,
        (Some(_), None) => ChangeKind::Removed,
        (Some(_), Some(_)) => ChangeKind::Changed,
    };
    let was_there = old.as_ref().is_some_and(|old| !old.is_absent);
    let removes = !matches!(owned, Owned::Command(_) | Owned::Unit(_) | Owned::Health(_))
        && match &new {
            None => {
                was_there
                    && old.as_ref().and_then(|old| old.fields.get("on_removal"))
                        != Some(&Value::from("keep"))
            }
            Some(new) => new.is_absent && old.as_ref().is_none_or(|old| !old.is_absent),
        };
    let resource = new
        .as_ref()
        .or(old.as_ref())
        .map(|thing| thing.id.clone())?;
    let path = match owned {
        Owned::Path(path) if *path != resource.name => Some(path.clone()),
        _ => None,
    };
    let mut fields = BTreeMap::new();
    if let (Some(old), Some(new)) = (&old, &new)
        && old.id != new.id
    {
        let word = |thing: &Thing| Some(Value::from(thing.id.to_string()));
        let moved = FieldDifference {
            before: word(old),
            after: word(new),
        };
        fields.insert("declared_by".to_owned(), moved);
    }
    let (old_content, new_content) = (
        old.as_ref().and_then(|old| old.content.clone()),
        new.as_ref().and_then(|new| new.content.clone()),
    );
    let mut old = old.map_or_else(Map::new, |old| old.fields);
    for (key, after) in new.map_or_else(Map::new, |new| new.fields) {
        let before = old.remove(&key);
        if before.as_ref() != Some(&after) {
            let after = Some(after);
            fields.insert(key, FieldDifference { before, after });
        }
    }
    for (key, before) in old {
        let before = Some(before);
        fields.insert(
            key,
            FieldDifference {
                before,
                after: None,
            },
        );
    }
    let bytes = |content: &Option<Content>| content.as_ref().map(|content| content.sha256);
    let content = (bytes(&old_content) != bytes(&new_content)).then_some(ContentDifference {
        before: old_content,
        after: new_content,
    });
    if change == ChangeKind::Changed && fields.is_empty() && content.is_none() {
        return None;
    }
    Some(Difference {
        resource,
        path,
        change,
        fields,
        content,
        removes,
    })
}
