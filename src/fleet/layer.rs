//! One layer: the TOML files of a directory, united.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::declared::{self, RESERVED};
use super::resolve::account::check_account_name;
use super::{author, limits, list_directories, list_toml_files, paths, read_text, unsupported};
use crate::document::{Data, Entry, Expectation, Mistake, Place, Table, Value, parse};
use crate::git::Tree;
use crate::kinds::unit::SUFFIXES;
use crate::model::{Class, Failure, Kind, sysctl_path};
use crate::trust::Limit;

/// What a layer says.
#[derive(Debug)]
pub(super) struct Layer {
    /// The layers placed just before this one.
    pub uses: Vec<(String, Place)>,
    /// Where it says that its resources are only looked at, if it does.
    pub report: Option<Value>,
    /// Its weak variables.
    pub defaults: Table,
    /// Its variables.
    pub vars: Table,
    /// Its resources: tables by kind and name. A word for a package stands as a table with this `state`.
    pub resources: Table,
    /// The packages for which it says one word.
    pub words: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(rename = "use")]
    _use: Option<Vec<String>>,
    report: Option<bool>,
}

/// The directory of the layer `name`; the layer of one host is called `hosts/<host>`.
pub(super) fn directory_of(name: &str) -> String {
    match name.strip_prefix("hosts/") {
        Some(_) => name.to_owned(),
        None => format!("layers/{name}"),
    }
}

/// The layer that a file of the repository belongs to; the inventory and fleet.toml stand for themselves.
pub(super) fn name_of(file: &str) -> &str {
    let directory = file
        .rsplit_once('/')
        .map_or(file, |(directory, _)| directory);
    directory.strip_prefix("layers/").unwrap_or(directory)
}

/// All layers below `layers/`, by name: directories with a TOML file, at any depth.
pub(super) fn list(tree: &dyn Tree) -> Result<Vec<String>, Failure> {
    let mut layers = Vec::new();
    let mut pending = vec![String::new()];
    while let Some(prefix) = pending.pop() {
        for name in list_directories(tree, &format!("layers{prefix}"))? {
            if name == "files" {
                continue; // what layers name, no layer
            }
            let path = format!("{prefix}/{name}");
            let files = list_toml_files(tree, &format!("layers{path}"))?;
            if files.is_some_and(|files| !files.is_empty()) {
                layers.push(path.trim_start_matches('/').to_owned());
            }
            pending.push(path);
        }
    }
    layers.sort();
    Ok(layers)
}

/// Reads the layer `name`, which exists; its files declare no more than they may by what is `limited`.
pub(super) fn load(tree: &dyn Tree, name: &str, limited: &[Limit]) -> Result<Layer, Vec<Failure>> {
    let directory = directory_of(name);
    let files = list_toml_files(tree, &directory).map_err(|failure| vec![failure])?;
    let mut failures = Vec::new();
    let mut mistakes = Vec::new();
    let mut united = Table::new();
    for path in files.unwrap_or_default() {
        match read_text(tree, &path) {
            Ok(Some(source)) => match parse(&source) {
                Ok(table) => {
                    limits::check(limited, &path, &table, &mut mistakes);
                    united.unite(table, &mut mistakes);
                }
                Err(mistake) => mistakes.push(mistake),
            },
            Ok(None) => {} // listed a moment ago as a file: gone from a working tree
            Err(failure) => failures.push(failure),
        }
    }
    let mut layer = read(united, &mut mistakes);
    spell_words_out(&mut layer);
    mistakes.sort_by_key(|mistake| mistake.place.as_ref().map(Place::location));
    failures.extend(mistakes.into_iter().map(author));
    if failures.is_empty() {
        Ok(layer)
    } else {
        Err(failures)
    }
}

fn read(united: Table, mistakes: &mut Vec<Mistake>) -> Layer {
    let mut layer = Layer {
        uses: Vec::new(),
        report: None,
        defaults: Table::new(),
        vars: Table::new(),
        resources: Table::new(),
        words: BTreeSet::new(),
    };
    for (section, entry) in united.into_entries() {
        match &*section {
            "layer" => {
                let Some(table) = expect_table("[layer]", &entry, mistakes) else {
                    continue;
                };
                let expectation = Expectation {
                    later: &RESERVED,
                    ..Expectation::new("[layer]")
                };
                match table.deserialize_into::<Settings>(&entry.key, expectation) {
                    Ok(settings) => {
                        layer.uses = read_names(table.get("use"), mistakes);
                        if settings.report == Some(true) {
                            layer.report = table.get("report").cloned();
                        }
                    }
                    Err(mut found) => mistakes.append(&mut found),
                }
            }
            "defaults" | "vars" => {
                if let Some(table) = expect_table(&format!("[{section}]"), &entry, mistakes) {
                    refuse_reserved_names(table, mistakes);
                    if &*section == "vars" {
                        layer.vars = table.clone();
                    } else {
                        layer.defaults = table.clone();
                    }
                }
            }
            _ => match Kind::ALL
                .into_iter()
                .find(|kind| kind.as_str() == &*section)
            {
                Some(kind) => {
                    if let Some(table) = expect_table(&format!("[{kind}]"), &entry, mistakes) {
                        check_resources(kind, table, mistakes);
                        layer.resources.insert(section, entry);
                    }
                }
                None => mistakes.push(unknown_section(&section, &entry)),
            },
        }
    }
    layer
}

/// Makes tables of the words for packages, and of the values of parameters.
fn spell_words_out(layer: &mut Layer) {
    let sysctls = layer.resources.entry_mut(Kind::Sysctl.as_str());
    if let Some(Data::Table(sysctls)) = sysctls.map(|entry| &mut entry.value.data) {
        for (_, entry) in sysctls.iter_mut() {
            if entry.value.as_table().is_none() {
                let mut table = Table::new();
                table.insert("value", entry.clone());
                entry.value.data = Data::Table(table);
            }
        }
    }
    let packages = layer.resources.entry_mut(Kind::Package.as_str());
    let Some(Data::Table(packages)) = packages.map(|entry| &mut entry.value.data) else {
        return;
    };
    for (name, entry) in packages.iter_mut() {
        if entry.value.as_str().is_none() {
            continue;
        }
        layer.words.insert(name.to_owned());
        let mut table = Table::new();
        table.insert("state", entry.clone());
        entry.value.data = Data::Table(table);
    }
}

fn unknown_section(section: &str, entry: &Entry) -> Mistake {
    if RESERVED.contains(&section) {
        return unsupported(&entry.key, &format!("`{section}`"));
    }
    let known = Kind::ALL
        .into_iter()
        .map(Kind::as_str)
        .chain(["layer", "defaults", "vars"]);
    let mistake =
        Mistake::new(&entry.key, format!("unknown kind `{section}`")).label("no such kind");
    if let Some(hint) = by_another_name(section, entry) {
        return mistake.hint(hint);
    }
    match crate::document::nearest(section, known) {
        Some(near) => mistake.hint(format!("did you mean '{near}'?")),
        None => mistake.hint(format!(
            "a layer has layer, defaults, vars and the kinds {}",
            Kind::ALL.map(Kind::as_str).join(", ")
        )),
    }
}

/// What other tools call a kind, and how it is said here, with the name that was written.
fn by_another_name(section: &str, entry: &Entry) -> Option<String> {
    let name = entry.value.as_table().and_then(|table| table.keys().next());
    let name = name.unwrap_or("…");
    Some(match section {
        "service" | "services" | "systemd" | "daemon" => {
            let suffix = if name.contains('.') { "" } else { ".service" };
            format!("a service is a unit: [unit.\"{name}{suffix}\"]")
        }
        "timer" | "socket" | "mounts" | "path" | "target" => {
            let suffix = if name.contains('.') {
                String::new()
            } else {
                format!(".{section}")
            };
            format!("a {section} is a unit: [unit.\"{name}{suffix}\"]")
        }
        "packages" | "pkg" | "pkgs" | "apt" | "dnf" | "yum" => {
            "write: [package] and below it NAME = \"installed\"".to_owned()
        }
        "dir" | "folder" | "dirs" => format!("write: [directory.\"{name}\"]"),
        "link" | "links" => format!("write: [symlink.\"{name}\"]"),
        "template" | "templates" => {
            format!("a template is a file: [file.\"{name}\"] with template = true")
        }
        "cron" | "crontab" => {
            "write a file below /etc/cron.d, or a timer: [unit.\"NAME.timer\"]".to_owned()
        }
        "check" | "checks" | "healthcheck" | "healthchecks" | "probe" | "probes" => {
            format!("write: [health.{name}] with http, tcp, unit, command or source")
        }
        "exec" | "commands" | "script" => format!("write: [command.{name}] with command = [\"…\"]"),
        "variables" | "variable" => "write: [vars]".to_owned(),
        _ => return None,
    })
}

fn check_resources(kind: Kind, resources: &Table, mistakes: &mut Vec<Mistake>) {
    for (name, entry) in resources.iter() {
        let what = format!("{kind}:{name}");
        let is_path = matches!(
            kind,
            Kind::File | Kind::Directory | Kind::Symlink | Kind::Tree | Kind::Mount
        );
        if is_path && !name.contains('/') && entry.value.as_table().is_none() {
            mistakes.push(field_without_resource(kind, name, entry));
            continue;
        }
        mistakes.extend(check_name(kind, name, &entry.key));
        match &entry.value.data {
            Data::Table(table) => {
                let table = without_templated(table);
                mistakes.append(&mut declared::check_part(kind, &table, &entry.key, &what));
            }
            Data::String(word) if kind == Kind::Package => {
                mistakes.extend(check_package_word(name, word, &entry.value.place));
            }
            Data::String(_) | Data::Integer(_) if kind == Kind::Sysctl => {}
            other if kind == Kind::Sysctl => {
                let mistake = Mistake::new(
                    &entry.value.place,
                    format!(
                        "expected a whole number or a string for {what}, found {}",
                        other.type_name()
                    ),
                );
                mistakes.push(mistake.hint(match other {
                    Data::Boolean(value) => format!("write: \"{name}\" = {}", u8::from(*value)),
                    _ => format!("write: \"{name}\" = \"{}\"", entry.value.place.text()),
                }));
            }
            other => {
                let mistake = Mistake::new(
                    &entry.value.place,
                    format!("expected a table for {what}, found {}", other.type_name()),
                );
                mistakes.push(match kind {
                    Kind::Package if ["installed", "absent", "present"].contains(&name) => mistake
                        .hint(format!(
                            "each package has a key: curl = \"{}\"",
                            if name == "absent" { name } else { "installed" }
                        )),
                    Kind::Package => mistake.hint(format!("write: {name} = \"installed\"")),
                    _ => mistake.hint(format!("write: [{kind}.\"{name}\"] and its fields below")),
                });
            }
        }
    }
}

/// `[file]` with fields right below it.
fn field_without_resource(kind: Kind, field: &str, entry: &Entry) -> Mistake {
    let path = entry
        .value
        .as_str()
        .filter(|text| text.starts_with('/') && field != "source");
    Mistake::new(
        &entry.key,
        format!("`{field}` stands in [{kind}], which holds each {kind} by its path"),
    )
    .hint(format!(
        "write: [{kind}.\"{}\"] and its fields below",
        path.unwrap_or("/…")
    ))
}

/// A resource with `template = true` may have any text where a word is expected, until it is rendered.
fn without_templated(table: &Table) -> std::borrow::Cow<'_, Table> {
    if table.get("template").and_then(Value::as_bool) != Some(true) {
        return std::borrow::Cow::Borrowed(table);
    }
    let mut rest = Table::new();
    for (key, entry) in table.iter() {
        if !entry.value.as_str().is_some_and(declared::is_templated) {
            rest.insert(key, entry.clone());
        }
    }
    std::borrow::Cow::Owned(rest)
}

fn check_name(kind: Kind, name: &str, place: &Place) -> Option<Mistake> {
    match kind {
        Kind::File | Kind::Directory | Kind::Symlink | Kind::Tree | Kind::Mount => paths::check_form(kind, name, place),
        Kind::Package => (!is_package_name(name)).then(|| {
            Mistake::new(place, format!("'{name}' is no package name"))
                .hint("use letters, digits, '+', '-', '.' and '_', starting with a letter or digit and not ending with '-'")
        }),
        Kind::Repository => (!is_check_name(name)).then(|| {
            Mistake::new(place, format!("'{name}' is no name of a repository"))
                .hint("use letters, digits, '-', '.' and '_', starting with a letter or digit; where it is stands below it: apt = { uris = [\"…\"], … }")
        }),
        Kind::Group | Kind::User => check_account_name(kind, name, place),
        Kind::Sysctl => check_sysctl_name(name, place),
        Kind::Command => check_command_name(name, place),
        Kind::Unit => check_unit_name(name, place),
        Kind::Health => (!is_check_name(name)).then(|| {
            Mistake::new(place, format!("'{name}' is no name of a check"))
                .hint("use letters, digits, '-', '_' and '.', starting with a letter or digit")
        }),
    }
}

fn check_sysctl_name(name: &str, place: &Place) -> Option<Mistake> {
    let mistake = || {
        Mistake::new(
            place,
            format!("'{name}' is no name of a parameter of the kernel"),
        )
    };
    if sysctl_path(name).is_some() {
        return None;
    }
    let dotted = name.trim_matches('/').replace('/', ".");
    Some(match sysctl_path(&dotted) {
        Some(_) if name.contains('/') => mistake().hint(format!("write: \"{dotted}\" = …")),
        _ => mistake().hint(
            "write it as 'sysctl -a' does, in quotes: \"net.ipv4.ip_forward\" = 1; a dot in an interface's name is written as a slash",
        ),
    })
}

/// `state` of a package as a word.
pub(super) fn check_package_word(name: &str, word: &str, place: &Place) -> Option<Mistake> {
    let mistake = || Mistake::new(place, format!("unknown state '{word}' of package:{name}"));
    match word {
        "installed" | "absent" => None,
        "present" => Some(mistake().hint("write \"installed\"")),
        "latest" => Some(mistake().hint(
            "write \"installed\", or pin what you tested: { version = \"…\" }; two hosts with the same commit get the same version",
        )),
        _ if word.starts_with(|character: char| character.is_ascii_digit()) => Some(
            mistake().hint(format!("for a version, write: {{ version = \"{word}\" }}")),
        ),
        _ => Some(
            mistake()
                .hint("write \"installed\" or \"absent\"")
                .suggest(word, ["installed", "absent"]),
        ),
    }
}

/// What no package manager could take for an option, a path or a pattern: the union of dpkg's and rpm's names.
pub(super) fn is_package_name(name: &str) -> bool {
    name.len() <= 128
        && name
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        // apt takes `name-` and `name+` for wishes to remove and install.
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte))
}

fn check_command_name(name: &str, place: &Place) -> Option<Mistake> {
    (!is_check_name(name)).then(|| {
        Mistake::new(place, format!("'{name}' is no name of a command"))
            .hint("use letters, digits, '-', '.' and '_', starting with a letter or digit; what is run stands below it: command = [\"…\"]")
    })
}

/// What stands well in a log line and on a command line.
fn is_check_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

pub(super) fn check_unit_name(name: &str, place: &Place) -> Option<Mistake> {
    let mistake = Mistake::new(place, format!("'{name}' is no unit name"));
    let Some((stem, suffix)) = name.rsplit_once('.') else {
        return Some(mistake.hint(format!("units have a type: '{name}.service'")));
    };
    if !SUFFIXES.contains(&suffix) {
        let near = crate::document::nearest(suffix, SUFFIXES);
        return Some(match near {
            Some(near) => mistake.hint(format!("did you mean '{stem}.{near}'?")),
            None => mistake.hint(format!("units have a type: '{name}.service'")),
        });
    }
    let valid = !stem.is_empty()
        && name.len() <= 255
        && !stem.starts_with('-') // D-Bus would take it; systemctl, and whoever copies it there, would not
        && stem
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte));
    (!valid).then(|| mistake.hint("use letters, digits, and ':', '-', '_', '.', '\\', '@'"))
}

/// Names that templates give a meaning of their own.
pub(super) fn refuse_reserved_names(vars: &Table, mistakes: &mut Vec<Mistake>) {
    for (name, entry) in vars.iter() {
        if name == "host" || name == "hosts" {
            mistakes.push(
                Mistake::new(
                    &entry.key,
                    format!("variable '{name}' would hide what templates call '{name}'"),
                )
                .hint("choose another name"),
            );
        }
    }
}

/// An array of layer names, with places. Its type was checked.
pub(super) fn read_names(
    value: Option<&Value>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<(String, Place)> {
    let mut names = Vec::new();
    for element in value.and_then(Value::as_array).unwrap_or_default() {
        let Some(name) = element.as_str() else {
            continue;
        };
        if is_layer_name(name) {
            names.push((name.to_owned(), element.place.clone()));
        } else {
            let mistake = Mistake::new(&element.place, format!("'{name}' is no layer name"));
            mistakes.push(match name.strip_prefix("layers/") {
                Some(rest) => mistake.hint(format!("leave out the directory: '{rest}'")),
                None => mistake.hint("a layer is named by its directory below layers/, such as 'base' or 'site/lagos'"),
            });
        }
    }
    names
}

fn is_layer_name(name: &str) -> bool {
    !name.starts_with("layers/")
        && !name.starts_with("hosts/")
        && name.split('/').all(|part| {
            part != "files"
                && part
                    .bytes()
                    .next()
                    .is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        })
}

fn expect_table<'a>(
    what: &str,
    entry: &'a Entry,
    mistakes: &mut Vec<Mistake>,
) -> Option<&'a Table> {
    let table = entry.value.as_table();
    if table.is_none() {
        let mistake = Mistake::new(
            &entry.value.place,
            format!(
                "expected a table for {what}, found {}",
                entry.value.data.type_name()
            ),
        );
        let inner = what.trim_matches(['[', ']']);
        let is_kind = Kind::ALL.into_iter().any(|kind| kind.as_str() == inner);
        let is_list = entry.value.as_array().is_some();
        mistakes.push(match (is_kind, is_list) {
            (true, true) => mistake.hint(format!(
                "each {inner} has a table of its own, by its name: [{inner}.\"…\"]"
            )),
            _ => mistake,
        });
    }
    table
}

/// The failure of a host whose rule or layer at `place` names a layer that is not there.
pub(super) fn no_such_layer(name: &str, place: &Place, known: &[String]) -> Failure {
    let mistake = Mistake::new(place, format!("no layer '{name}'"))
        .label(format!("no TOML file in layers/{name}/"));
    let mistake = mistake.suggest(name, known.iter().map(String::as_str));
    mistake.into_failure(Class::Author)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_name_cannot_become_an_option_or_a_wish() {
        for name in ["-o", "curl-", "a b", "a/b", "", "*", "a=1", "é", "a:b"] {
            assert!(!is_package_name(name), "{name:?}");
        }
        for name in [
            "curl",
            "g++",
            "libstdc++6",
            "NetworkManager-wifi",
            "python3.11",
            "0ad",
        ] {
            assert!(is_package_name(name), "{name:?}");
        }
    }

    #[test]
    fn a_layer_name_stays_below_its_directory() {
        for name in [
            "",
            "..",
            "a/../b",
            "/a",
            "a/",
            "files",
            "a/files/b",
            "layers/a",
            "hosts/a",
            ".a",
        ] {
            assert!(!is_layer_name(name), "{name:?}");
        }
        for name in ["base", "site/lagos", "web-2.0", "_x"] {
            assert!(is_layer_name(name), "{name:?}");
        }
    }

    #[test]
    fn the_layer_of_a_file_is_its_directory() {
        assert_eq!(name_of("layers/site/lagos/a.toml"), "site/lagos");
        assert_eq!(name_of("hosts/gw/a.toml"), "hosts/gw");
        assert_eq!(name_of("inventory/a.toml"), "inventory");
        assert_eq!(name_of("fleet.toml"), "fleet.toml");
    }
}
