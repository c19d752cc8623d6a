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
