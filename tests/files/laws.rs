//! Laws that hold for whatever is declared, on whatever is there.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use limpet::kinds::file::{DesiredPath, PathSpec};
use limpet::kinds::kind::Step;
use limpet::model::Name;
use limpet::sys::xattrs::NamedXattrs;
use proptest::prelude::*;

use crate::machine::{Machine, bare_file, directory, file, link, with};

const PATHS: [&str; 7] = ["/a", "/a/b", "/a/b/c", "/a/d", "/e", "/e/f", "/g/h/i"];

/// What is there before limpet.
#[derive(Debug, Clone)]
enum Found {
    Nothing,
    /// With its mode, and whether it has extended attributes.
    File(u32, bool),
    Directory(u32, bool),
    Link,
}

fn found() -> impl Strategy<Value = Vec<Found>> {
    let one = prop_oneof![
        2 => Just(Found::Nothing),
        2 => (prop_oneof![Just(0o644), Just(0o600)], any::<bool>())
            .prop_map(|(mode, marked)| Found::File(mode, marked)),
        3 => (prop_oneof![Just(0o755), Just(0o750)], any::<bool>())
            .prop_map(|(mode, marked)| Found::Directory(mode, marked)),
        1 => Just(Found::Link),
    ];
    proptest::collection::vec(one, PATHS.len())
}

fn build(machine: &Machine, found: &[Found]) {
    for (path, found) in PATHS.iter().zip(found) {
        let parent = machine.at(path).parent().unwrap().to_owned();
        if !parent
            .symlink_metadata()
            .is_ok_and(|parent| parent.is_dir())
        {
            continue;
        }
        match found {
            Found::Nothing => {}
            Found::File(mode, marked) => {
                machine.write(path, "before\n");
                machine.chmod(path, *mode);
                if *marked {
                    machine.mark(path);
                }
            }
            Found::Directory(mode, marked) => {
                machine.mkdir(path);
                machine.chmod(path, *mode);
                if *marked {
                    machine.mark(path);
                }
            }
            Found::Link => symlink("/nowhere", machine.at(path)).unwrap(),
        }
    }
}

/// `user.note` is one that the files which were marked before have as well.
fn named() -> impl Strategy<Value = NamedXattrs> {
    let value = prop_oneof![Just(None), Just(Some(b"ours".to_vec()))];
    let one = (prop_oneof![Just("user.note"), Just("user.other")], value);
    proptest::collection::vec(one, 0..3).prop_map(|ones| {
        let mut named = NamedXattrs::default();
        for (name, value) in ones {
            named.insert(name, value);
        }
        named
    })
}

fn one_declaration(path: &'static str) -> impl Strategy<Value = Option<DesiredPath>> {
    let mode = || prop_oneof![Just(None), Just(Some(0o700)), Just(Some(0o640))];
    prop_oneof![
        4 => Just(None),
        3 => (0..3, mode(), named()).prop_map(move |(version, wanted, named)| {
            Some(with(file(path, &format!("version {version}\n")), |spec| {
                if let PathSpec::File { mode, xattrs, .. } = spec {
                    *mode = wanted;
                    *xattrs = named.clone();
                }
            }))
        }),
        1 => (mode(), named()).prop_map(move |(mode, named)| {
            Some(with(bare_file(path, mode), |spec| {
                if let PathSpec::File { xattrs, .. } = spec {
                    *xattrs = named.clone();
                }
            }))
        }),
        3 => (mode(), named()).prop_map(move |(wanted, named)| {
            Some(with(directory(path), |spec| {
                if let PathSpec::Directory { mode, xattrs, .. } = spec {
                    *mode = wanted.map(|mode| mode | 0o100);
                    *xattrs = named.clone();
                }
            }))
        }),
        1 => (0..2).prop_map(move |target| Some(link(path, &format!("target-{target}")))),
        1 => Just(Some(with(file(path, ""), |spec| *spec = PathSpec::Absent))),
    ]
}

/// A set of declarations; a path below one that is to be no directory is left out, as nobody would declare it.
fn declarations() -> impl Strategy<Value = Vec<DesiredPath>> {
    PATHS.map(one_declaration).prop_map(|items| {
        let items: BTreeMap<Name, DesiredPath> = items
            .into_iter()
            .flatten()
            .map(|item| (item.path.clone(), item))
            .collect();
        items
            .values()
            .filter(|item| {
                !items.values().any(|other| {
                    item.path.starts_with(&format!("{}/", other.path))
                        && !matches!(other.spec, PathSpec::Directory { .. })
                })
            })
            .cloned()
            .collect()
    })
}

/// The lines of the tree that no declaration, now or before, is about.
fn strangers(machine: &Machine, declared: &[Vec<DesiredPath>]) -> Vec<String> {
    let about = |line: &String| {
        let path = line.split(' ').next().unwrap_or_default();
        declared
            .iter()
            .flatten()
            .any(|item| item.path == path || item.path.starts_with(&format!("{path}/")))
    };
    machine
        .tree()
        .into_iter()
        .filter(|line| !about(line))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cycles_converge_touch_nothing_else_and_can_be_undone(
        found in found(),
        revisions in proptest::collection::vec(declarations(), 1..4),
    ) {
        let mut machine = Machine::new();
        build(&machine, &found);
        let before = machine.tree();
        let mut story = format!("before: {before:?}");
        let mut clean = true;
        for (count, desired) in revisions.iter().enumerate() {
            let ids: Vec<String> = desired.iter().map(|item| format!("{} {}", item.id, word(&item.spec))).collect();
            story += &format!("\ndeclared: {ids:?}");
            let others = strangers(&machine, &revisions[..=count]);
            let lines = machine.cycle(desired);
            story += &format!("\ndone: {lines:#?}");
            clean &= !lines.iter().any(|line| line.starts_with("blocked") || line.starts_with("skipped"));
            let broken = lines.iter().any(|line| line.starts_with("not converging") || line.starts_with("failed"));
            prop_assert!(!broken, "{story}");
            // What had to wait for something to go is done in the next one; then nothing is left.
            story += &format!("\nagain: {:#?}", machine.cycle(desired));
            for step in machine.plan(desired) {
                prop_assert!(!matches!(step, Step::Change(_)), "{story}\n{step:?}");
            }
            prop_assert_eq!(others, strangers(&machine, &revisions[..=count]), "{}", story);
        }
        if clean {
            story += &format!("\nundone: {:#?}", machine.cycle(&[]));
            prop_assert_eq!(before, machine.tree(), "{}", story);
            prop_assert!(machine.owned.is_empty(), "{story}\n{:?}", machine.owned);
        }
    }
}

fn word(spec: &PathSpec) -> String {
    match spec {
        PathSpec::File {
            content: None,
            mode,
            ..
        } => format!("bare {mode:?}"),
        PathSpec::File { mode, .. } | PathSpec::Directory { mode, .. } => format!("{mode:?}"),
        PathSpec::Symlink { target } => target.clone(),
        PathSpec::Archive { content, .. } => format!("{:?}", content.sha256),
        PathSpec::Absent | PathSpec::Purged => "absent".to_owned(),
    }
}
