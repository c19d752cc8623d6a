//! SECURITY.md says what limpet protects against, and which test shows it.

use std::fmt::Write as _;

use super::{in_tree, read};

/// All the Rust below `directory`.
fn add_source(directory: &std::path::Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_source(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            writeln!(text, "{}", std::fs::read_to_string(&path).unwrap()).unwrap();
        }
    }
}

#[test]
fn every_promise_of_security_names_a_test_that_exists() {
    let mut source = String::new();
    for directory in ["src", "tests"] {
        add_source(&in_tree(directory), &mut source);
    }
    let security = read(".github/SECURITY.md");
    let rows: Vec<Vec<&str>> = security
        .lines()
        .map(|line| line.split('|').map(str::trim).collect())
        .filter(|cells: &Vec<&str>| cells.len() == 6 && !cells[1].starts_with("--"))
        .skip(1)
        .collect();
    assert!(rows.len() > 15);
    for row in rows {
        let named: Vec<&str> = row[4].split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "nothing shows: {}", row[2]);
        for name in named {
            let is_there = match name.contains('/') {
                true => in_tree(name).exists(),
                false => source.contains(&format!("fn {name}(")),
            };
            assert!(is_there, "there is no test '{name}'");
        }
    }
}

#[test]
fn the_table_of_cases_is_of_tests_that_exist_and_has_every_rule() {
    let mut source = String::new();
    add_source(&in_tree("tests/trust"), &mut source);
    let names: Vec<String> = source
        .lines()
        .filter_map(|line| line.strip_prefix("fn ")?.split_once('('))
        .map(|(name, _)| name.replace('_', " "))
        .collect();
    let table = read("tests/trust/cases.md");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() >= 250, "{} cases", rows.len());
    for row in &rows {
        let (_, name) = row[1].split_once(": ").unwrap();
        assert!(names.iter().any(|known| known == name), "no test '{name}'");
    }
    // These need more commits, a token that is touched, or a host that lost its memory; other tests have them.
    let elsewhere = [
        "too-many-commits",
        "no-user-presence",
        "state-missing",
        "revoked-file-missing",
    ];
    for rule in limpet::trust::Rule::ALL {
        let rule = rule.as_str();
        let is_there = rows.iter().any(|row| row[3] == rule);
        assert!(is_there || elsewhere.contains(&rule), "no case of {rule}");
    }
}
