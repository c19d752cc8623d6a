//! Which names the templates of one resource use: for explaining it, not for rendering.

use std::collections::BTreeSet;

use minijinja::Environment;

use super::declared::is_templated;
use super::{OriginatedValue, read_text};
use crate::git::Tree;
use crate::model::ResourceId;

/// The dotted names that the values of `id` and the templates they name use, such as `ntp` and `host.labels.site`. `values` are those of
/// a rendered host. What cannot be read or parsed uses nothing.
pub fn names_used(
    tree: &dyn Tree,
    values: &[OriginatedValue],
    id: &ResourceId,
) -> BTreeSet<String> {
    let prefix = format!("{id} ");
    let own: Vec<(&str, &OriginatedValue)> = values
        .iter()
        .filter_map(|value| Some((value.key.strip_prefix(&prefix)?, value)))
        .collect();
    let is_template = |of: &str| {
        let key = format!("{of}template");
        own.iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.value == "true")
    };
    let whole = is_template("").unwrap_or(false);
    let mut names = BTreeSet::new();
    for (key, value) in &own {
        let (of, name) = match key.rsplit_once('.') {
            Some((dropin, name)) if key.starts_with("dropin.") => (format!("{dropin}."), name),
            _ => (String::new(), *key),
        };
        if !is_template(&of).unwrap_or(whole) {
            continue;
        }
        for text in strings(&value.value) {
            collect(&text, &mut names);
            if name == "source" {
                let path = source_path(&value.origin.location.file, &text);
                if let Ok(Some(source)) = read_text(tree, &path) {
                    collect(source.text(), &mut names);
                }
            }
        }
    }
    names
}

/// The strings in a value as TOML writes it.
fn strings(value: &str) -> Vec<String> {
    let Ok(mut table) = toml::from_str::<toml::Table>(&format!("value = {value}")) else {
        return Vec::new();
    };
    let mut pending: Vec<toml::Value> = table.remove("value").into_iter().collect();
    let mut found = Vec::new();
    while let Some(value) = pending.pop() {
        match value {
            toml::Value::String(text) => found.push(text),
            toml::Value::Array(values) => pending.extend(values),
            _ => {}
        }
    }
    found
}

fn collect(text: &str, names: &mut BTreeSet<String>) {
    if !is_templated(text) {
        return;
    }
    let mut environment = Environment::new();
    environment.set_debug(false);
    if let Ok(template) = environment.template_from_str(text) {
        let used = template.undeclared_variables(true);
        let is_function = |name: &String| ["range", "dict", "namespace"].contains(&name.as_str());
        names.extend(used.into_iter().filter(|name| !is_function(name)));
    }
}

/// The file that `name`, written in `file`, means.
fn source_path(file: &str, name: &str) -> String {
    match name.strip_prefix('/') {
        Some(path) => path.to_owned(),
        None => {
            let layer = file.rsplit_once('/').map_or("", |(layer, _)| layer);
            format!("{layer}/files/{name}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let mut names = BTreeSet::new();
        collect(text, &mut names);
        assert_eq!(
            names.iter().map(String::as_str).collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn a_template_uses_the_names_it_does_not_make() {
        check("plain", &[]);
        check("{{ ntp }} on {{ host.name }}", &["host.name", "ntp"]);
        check(
            "{% for h in hosts if h.labels.role == \"db\" %}{{ h.vars.ip }}{{ pool.size | default(3) }}{% endfor %}",
            &["hosts", "pool.size"],
        );
        check("{% set a = b %}{{ a }}", &["b"]);
        check("{{ broken", &[]);
    }

    #[test]
    fn strings_are_found_at_any_depth() {
        assert_eq!(strings(r#""a \"b\"""#), ["a \"b\""]);
        assert_eq!(strings(r#"["x", ["y"], 3]"#), ["y", "x"]);
        assert_eq!(strings("true"), Vec::<String>::new());
    }
}
