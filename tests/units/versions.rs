//! Versions compare as dpkg says.

use std::cmp::Ordering;
use std::io::Write;
use std::process::{Command, Stdio};

use limpet::kinds::package::version::{compare_versions, find_version_mistake};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

/// A version that dpkg takes for one.
fn version() -> impl Strategy<Value = String> {
    let part = "[0-9]{1,3}([.+~]?[0-9a-zA-Z]{1,2}|~|\\+|\\.){0,4}";
    let revision = "([0-9a-zA-Z]|[0-9a-zA-Z][+.~][0-9a-zA-Z]){1,3}~?";
    (
        proptest::option::of("[0-9]|0[0-9]|1[0-9]"),
        part,
        proptest::option::of(revision),
        any::<bool>(),
    )
        .prop_map(|(epoch, upstream, revision, has_more)| {
            let epoch = epoch.map_or(String::new(), |epoch| format!("{epoch}:"));
            let more = if has_more && !epoch.is_empty() {
                ":1"
            } else {
                ""
            };
            let revision = revision.map_or(String::new(), |revision| format!("-{revision}"));
            format!("{epoch}{upstream}{more}{revision}")
        })
}

/// Two versions that may be any, or differ in one place, or be the same written in two ways.
fn pair() -> impl Strategy<Value = (String, String)> {
    let tails = prop_oneof![
        Just("~"),
        Just("+b1"),
        Just("0"),
        Just("-0"),
        Just("-1"),
        Just("a"),
        Just("~~"),
        Just(".0"),
    ];
    let changed = (version(), tails).prop_map(|(version, tail)| {
        // One revision only.
        let tail = match version.contains('-') {
            true => tail.trim_start_matches('-'),
            false => tail,
        };
        (format!("{version}{tail}"), version)
    });
    let rewritten = version().prop_map(|version| {
        let other = match version.contains(':') {
            true => format!("0{version}"),
            false => format!("0:0{version}"),
        };
        (version, other)
    });
    prop_oneof![(version(), version()), changed, rewritten]
}

#[test]
fn ten_thousand_pairs_compare_as_dpkg_says() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut pairs = String::new();
    let mut seen = [0; 3];
    for _ in 0..10_000 {
        let (left, right) = pair().new_tree(&mut runner).unwrap().current();
        assert_eq!(find_version_mistake(&left), None, "{left}");
        let sign = match compare_versions(&left, &right) {
            Ordering::Less => "lt",
            Ordering::Equal => "eq",
            Ordering::Greater => "gt",
        };
        seen[["lt", "eq", "gt"]
            .iter()
            .position(|it| *it == sign)
            .unwrap()] += 1;
        pairs.push_str(&format!("{left} {sign} {right}\n"));
    }
    assert!(seen.iter().all(|count| *count > 1000), "{seen:?}");
    // dpkg says nothing but yes or no, to one pair.
    let script = "dpkg --version >/dev/null || exit 1
        while read -r left sign right; do
            dpkg --compare-versions \"$left\" \"$sign\" \"$right\" 2>&1 || echo \"no: $left $sign $right\"
        done";
    let lines: Vec<&str> = pairs.lines().collect();
    let said: String = std::thread::scope(|scope| {
        let ask = |lines: &[&str]| {
            let mut shell = Command::new("/bin/sh")
                .args(["-c", script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = shell.stdin.take().unwrap();
            let text = lines.join("\n") + "\n";
            scope.spawn(move || input.write_all(text.as_bytes()).unwrap());
            shell
        };
        // One shell for each processor.
        let shells: Vec<_> = lines.chunks(5_000).map(ask).collect();
        let outputs = shells.into_iter().map(|shell| {
            let output = shell.wait_with_output().unwrap();
            assert!(output.status.success(), "this test needs dpkg");
            String::from_utf8_lossy(&output.stdout).into_owned()
        });
        outputs.collect()
    });
    assert_eq!(said, "", "dpkg says otherwise");
}
