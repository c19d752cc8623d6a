//! What files of layers and hosts may declare by the `[[limit]]`s of trust.toml, whoever signed them.
//!
//! Who may change a file could otherwise declare anything in it, and so be root on every host that has the layer.

use super::{author, read_text};
use crate::document::{Data, Entry, Mistake, Table};
use crate::git::{EntryKind, Tree};
use crate::model::{Class, Failure, Kind};
use crate::trust::{FleetPolicy, Limit, POLICY_FILE};

/// The policy of `tree`, if it has one.
pub(super) fn load_policy(tree: &dyn Tree) -> Result<Option<FleetPolicy>, Vec<Failure>> {
    let entries = tree.list("").ok().flatten().unwrap_or_default();
    let kind = entries
        .iter()
        .find(|(name, _)| name == POLICY_FILE)
        .map(|(_, kind)| *kind);
    match kind {
        None => return Ok(None),
        Some(EntryKind::File) => {}
        Some(_) => {
            let message = format!("'{POLICY_FILE}' is no file");
            return Err(vec![Failure::new(Class::Author, message)]);
        }
    }
    match read_text(tree, POLICY_FILE).map_err(|failure| vec![failure])? {
        None => Ok(None),
        Some(source) => FleetPolicy::parse(&source)
            .map(Some)
            .map_err(|mistakes| mistakes.into_iter().map(author).collect()),
    }
}

/// Finds what the file `path`, which says `table`, declares and may not.
pub(super) fn check(limits: &[Limit], path: &str, table: &Table, mistakes: &mut Vec<Mistake>) {
    for limit in limits.iter().filter(|limit| limit.paths.cover(path)) {
        for (section, entry) in table.iter() {
            check_section(limit, path, section, entry, mistakes);
        }
    }
}

fn check_section(
    limit: &Limit,
    path: &str,
    section: &str,
    entry: &Entry,
    mistakes: &mut Vec<Mistake>,
) {
    let refused = |entry: &Entry, what: &str| {
        let allowed = match limit.written() {
            none if none.is_empty() => "nothing".to_owned(),
            some => format!("only {some}"),
        };
        Mistake::new(
            &entry.key,
            format!("'{path}' may declare {allowed}, not {what}"),
        )
        .note("limited here", &limit.place)
        .hint("declare it in a file without that limit, or let a root key widen it")
    };
    match section {
        "vars" | "defaults" if limit.allows_variables => {
            check_variables(&entry.value.data, entry, mistakes);
        }
        _ => match Kind::ALL.into_iter().find(|kind| kind.as_str() == section) {
            Some(kind) => {
                let names = entry.value.as_table().into_iter().flat_map(Table::iter);
                let others = names.filter(|(name, _)| !limit.allows(kind, name));
                mistakes
                    .extend(others.map(|(name, entry)| refused(entry, &format!("{kind}:{name}"))));
            }
            None => mistakes.push(refused(entry, &format!("[{section}]"))),
        },
    }
}

/// A variable ends up in files; what looks like one line must not become two there.
fn check_variables(data: &Data, entry: &Entry, mistakes: &mut Vec<Mistake>) {
    match data {
        Data::String(text) if text.chars().any(char::is_control) => mistakes.push(
            Mistake::new(&entry.value.place, "this variable has a control character")
                .hint("a file with a limit may set variables of one line only"),
        ),
        Data::Array(values) => {
            for value in values {
                check_variables(&value.data, entry, mistakes);
            }
        }
        Data::Table(table) => {
            for (_, entry) in table.iter() {
                check_variables(&entry.value.data, entry, mistakes);
            }
        }
        _ => {}
    }
}
