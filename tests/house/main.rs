//! The shape of the source: a module imports only from floors below its own.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test stops where something is wrong, and looks at the machine from outside"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the top floor down, as `lib.rs` lists them.
const FLOORS: [&[&str]; 11] = [
    &["cli", "fuzz"],
    &["agent", "doctor"],
    &["cycle"],
    &["apply", "recovery"],
    &["plan"],
    &["fleet"],
    &["kinds", "trust", "fetch", "control"],
    &["sys", "record", "report"],
    &["config"],
    &["age", "archive", "checksum", "document", "git"],
    &["model", "schedule"],
];

fn floor(module: &str) -> usize {
    let found = FLOORS.iter().position(|floor| floor.contains(&module));
    found.unwrap_or_else(|| panic!("module '{module}' has no floor: add it to the list"))
}

/// Every source file below `directory`.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The module that each `crate::` path in `text` starts with; tests at the end of a file may look anywhere.
fn imports(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let paths = lines.flat_map(|line| line.split("crate::").skip(1));
    let module = |path: &str| {
        path.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    paths.map(module).filter(|name| !name.is_empty()).collect()
}

#[test]
fn arrows_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        let module = relative
            .iter()
            .next()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs");
        if matches!(module, "lib" | "main") || relative.ends_with("tests.rs") {
            continue;
        }
        for imported in imports(&fs::read_to_string(&file).unwrap()) {
            if imported != module && floor(&imported) <= floor(module) {
                wrong.push(format!(
                    "{}: {module} imports {imported}, which is not below it",
                    relative.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_in_one_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let says_it = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        text.contains("unsafe_code") || text.contains("unsafe {")
    };
    files.retain(says_it);
    assert_eq!(files, [root.join("sys/memory.rs")]);
}

#[test]
fn only_the_edges_know_tokio_and_the_pure_floors_know_no_host() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap();
        if text.contains("tokio::") {
            // sys/systemd.rs drives its D-Bus connection with a runtime of its own.
            assert!(
                ["agent.rs", "agent", "sys"].contains(&module),
                "{} knows tokio",
                relative.display()
            );
        }
        if [
            "plan",
            "fleet",
            "trust",
            "age",
            "git",
            "document",
            "model.rs",
            "schedule.rs",
        ]
        .contains(&module)
        {
            assert!(
                !text.contains("sys::Host"),
                "{} knows the machine",
                relative.display()
            );
        }
    }
}
