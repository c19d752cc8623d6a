//! Every key that the parsers know is explained in the page of its format, and in the commented configuration.

use crate::{in_tree, read};

/// The pages, and which sources declare their keys.
const PAGES: [(&str, &[&str]); 4] = [
    ("limpet.toml.5", &["src/config"]),
    (
        "limpet-fleet.5",
        &["src/fleet/manifest.rs", "src/fleet/inventory.rs"],
    ),
    (
        "limpet-layer.5",
        &["src/fleet/declared.rs", "src/fleet/layer.rs"],
    ),
    ("limpet-trust.5", &["src/trust/fleet_policy.rs"]),
];

/// In which section of its page the keys of a struct are; those of other structs may stand anywhere.
const SECTIONS: [(&str, &str); 17] = [
    ("DeclaredSource", "\"[source]\""),
    ("DeclaredTrust", "\"[trust]\""),
    ("DeclaredAnchor", "\"[trust]\""),
    ("DeclaredHost", "\"[host]\""),
    ("DeclaredApply", "\"[apply]\""),
    ("DeclaredManifest", "FLEET.TOML"),
    ("DeclaredMember", "INVENTORY"),
    ("File", "FILES"),
    ("Directory", "DIRECTORIES"),
    ("Symlink", "\"SYMBOLIC LINKS\""),
    ("Repository", "REPOSITORIES"),
    ("AptRepository", "REPOSITORIES"),
    ("DnfRepository", "REPOSITORIES"),
    ("Package", "PACKAGES"),
    ("Command", "COMMANDS"),
    ("Unit", "UNITS"),
    ("Health", "HEALTH"),
];

/// What every resource takes is explained once.
const COMMON: &str = "\"EVERY RESOURCE\"";

/// The structs of `source` that know all their keys, each with these keys.
fn structs(source: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut is_strict = false;
    let mut is_inside = false;
    let mut renamed = None;
    for line in source.lines() {
        let line = line.trim();
        if line.starts_with("#[serde(deny_unknown_fields") {
            is_strict = true;
        } else if let Some((_, name)) = line.split_once("struct ").filter(|_| is_strict) {
            is_strict = false;
            is_inside = true;
            let name = name.trim_end_matches(['{', ' ']).to_owned();
            found.push((name, Vec::new()));
        } else if is_inside && line == "}" {
            is_inside = false;
        } else if is_inside && !line.starts_with("//") {
            if let Some((_, name)) = line.split_once("rename = \"") {
                renamed = name.split('"').next().map(str::to_owned);
            }
            let field = line.trim_start_matches("pub ").trim_start_matches("r#");
            let field = field.split_once(": ").map(|(name, _)| name.to_owned());
            if let Some(field) = field.filter(|_| !line.starts_with('#')) {
                let keys = &mut found.last_mut().unwrap().1;
                keys.push(renamed.take().unwrap_or(field));
            }
        }
    }
    found
}

/// The section of `page` with this heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page
        .find(&format!("\n.SH {heading}\n"))
        .unwrap_or_else(|| panic!("no section {heading}"));
    let rest = &page[start + 1..];
    rest.find("\n.SH ").map_or(rest, |end| &rest[..=end])
}

fn explains(text: &str, key: &str) -> bool {
    text.contains(&format!("\n.B {key}\n"))
}

/// All sources at or below `path`.
fn sources(path: &str) -> Vec<String> {
    if path.ends_with(".rs") {
        return vec![read(path)];
    }
    let entries = std::fs::read_dir(in_tree(path)).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

#[test]
fn every_key_is_in_the_page_of_its_format() {
    let mut missing = Vec::new();
    for (name, paths) in PAGES {
        let page = read(&format!("packaging/man/{name}"));
        let declared: Vec<_> = paths
            .iter()
            .flat_map(|path| sources(path))
            .flat_map(|source| structs(&source))
            .collect();
        assert!(declared.len() >= 2, "{name}: {declared:?}");
        for (declared, keys) in declared {
            assert!(!keys.is_empty(), "{declared} has no keys");
            let heading = SECTIONS.iter().find(|(of, _)| *of == declared);
            let text = heading.map_or(page.as_str(), |(_, heading)| section(&page, heading));
            for key in keys {
                let is_common = name == "limpet-layer.5" && explains(section(&page, COMMON), &key);
                // The tables of the host configuration have sections instead.
                let is_section = page.contains(&format!("\n.SH \"[{key}]\"\n"));
                if !explains(text, &key) && !is_common && !is_section {
                    missing.push(format!("{name}: `{key}` of {declared}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_key_of_the_host_is_in_the_commented_configuration() {
    let text = read("config/limpet.toml");
    let declared: Vec<_> = sources("src/config")
        .iter()
        .flat_map(|source| structs(source))
        .filter(|(name, _)| SECTIONS.iter().any(|(of, _)| of == name))
        .collect();
    assert!(declared.len() >= 4);
    for (declared, keys) in declared {
        for key in keys {
            // What is only accepted to be refused with a reason, and the consent beside `mode`.
            if key == "accept_head_only" {
                continue;
            }
            let is_there = text.contains(&format!("{key} ="));
            assert!(
                is_there,
                "`{key}` of {declared} is not in config/limpet.toml"
            );
        }
    }
}

#[test]
fn the_kinds_are_in_the_page_of_layers() {
    let page = read("packaging/man/limpet-layer.5");
    for kind in limpet::model::Kind::ALL {
        let heading = match kind.as_str() {
            "repository" | "package" | "group" | "user" | "command" | "health" => {
                format!("\n.BI [{kind}. name ]\n")
            }
            kind => format!("\n.BI [{kind}.\\(dq"),
        };
        assert!(page.contains(&heading), "{kind}");
    }
}
