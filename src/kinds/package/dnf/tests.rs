use super::*;
use crate::kinds::package::family::Family;
use crate::kinds::package::status::{Entry, State};
use crate::sys::command::{CommandResult, Ending};
use proptest::prelude::*;

/// A host with lim-app 1.1, lim-lib 1.0 and the package with the long name.
fn database() -> Database {
    let entry = |(name, version): (&str, &str)| Entry {
        name: name.to_owned(),
        architecture: "noarch".to_owned(),
        state: State::Installed,
        version: version.to_owned(),
        is_essential: false,
        is_held: false,
    };
    let installed = [("lim-app", "1.1-1"), ("lim-lib", "1.0-1")];
    Database::of_rpm(installed.map(entry).to_vec(), Family::Dnf(Program::Dnf4))
}

#[test]
fn a_transaction_asks_nobody_skips_no_signature_and_erases_nothing_else() {
    let requests = [
        Request::Install("curl".to_owned()),
        Request::InstallVersion("alloy".to_owned(), "1.9.1-1".to_owned()),
    ];
    let line = |program, requests: &[Request], permissions| {
        transaction(program, requests, permissions).argv.join(" ")
    };
    let permissions = Permissions::default();
    insta::assert_snapshot!(line(Program::Dnf4, &requests, permissions), @"dnf -y --setopt=exit_on_lock=True --setopt=strict=True --setopt=clean_requirements_on_remove=False install curl alloy-1.9.1-1");
    insta::assert_snapshot!(line(Program::Dnf5, &requests, permissions), @"dnf5 -y --setopt=clean_requirements_on_remove=False install curl alloy-1.9.1-1");
    let removal = [Request::Remove("telnet".to_owned())];
    insta::assert_snapshot!(line(Program::Dnf5, &removal, permissions), @"dnf5 -y --setopt=clean_requirements_on_remove=False remove telnet");
    let simulated = simulation(Program::Dnf4, &removal, permissions).argv;
    assert!(simulated.contains(&"--assumeno".to_owned()) && !simulated.contains(&"-y".to_owned()));
    for forbidden in [
        "allowerasing",
        "nogpgcheck",
        "gpgcheck=",
        "skip-broken",
        "module",
    ] {
        for permissions in [
            permissions,
            Permissions {
                downgrade: true,
                auto_remove: true,
                change_held: true,
            },
        ] {
            let line = line(Program::Dnf4, &requests, permissions);
            assert!(!line.contains(forbidden), "{line}");
        }
    }
}

#[test]
fn what_dnf_would_do_is_understood_from_either_version() {
    let check = |output: &str, installed: &[&str], removed: &[&str]| {
        assert!(is_possible(output), "{output}");
        let simulation = parse_simulation(output, &database());
        let found: Vec<String> = simulation
            .installed
            .iter()
            .map(|one| {
                format!(
                    "{} {} {}",
                    one.name,
                    one.old.as_deref().unwrap_or("-"),
                    one.new
                )
            })
            .collect();
        assert_eq!(found, installed, "{output}");
        assert_eq!(simulation.removed, removed, "{output}");
    };
    let long = "lim-a-very-long-name-of-a-package-that-does-not-fit-into-a-column - 1.0-1";
    macro_rules! both {
        ($name:literal) => {
            [
                include_str!(concat!("../fixtures/dnf4-", $name, ".txt")),
                include_str!(concat!("../fixtures/dnf5-", $name, ".txt")),
            ]
        };
    }
    for output in both!("install-with-dependency") {
        check(
            output,
            &[long, "lim-app 1.1-1 1.0-1", "lim-lib - 1.0-1"].map(|line| {
                if line.starts_with("lim-app") {
                    "lim-app - 1.0-1"
                } else {
                    line
                }
            }),
            &[],
        );
    }
    for output in both!("upgrade") {
        check(output, &["lim-app 1.1-1 2.0-1"], &[]);
    }
    for output in both!("downgrade") {
        check(output, &["lim-app 1.1-1 1.0-1"], &[]);
    }
    for output in both!("reinstall") {
        check(output, &["lim-app 1.1-1 1.1-1"], &[]);
    }
    for output in both!("nothing-to-do") {
        check(output, &[], &[]);
    }
    for output in both!("removal-takes-more") {
        check(output, &[], &["lim-lib", "lim-app"]);
    }
    for output in both!("removal-with-dependencies") {
        check(output, &[], &["lim-app", "lim-lib"]);
    }
    // What another package takes the place of is removed.
    for output in both!("obsoletes") {
        check(
            output,
            &["lim-enemy - 1.0-1", "lim-obs - 1.0-1"],
            &["lim-app"],
        );
    }
    // A name that fills its column is followed by the rest on the next line.
    let wrapped =
        "Installing:\n lim-long\n             noarch  0:1.0-1  tests  6 k\nTransaction Summary\n";
    check(wrapped, &["lim-long - 1.0-1"], &[]);
}

#[test]
fn what_is_impossible_is_told_by_name() {
    let requests = [
        Request::Install("nosuch".to_owned()),
        Request::InstallVersion("lim-app".to_owned(), "9".to_owned()),
        Request::InstallVersion("lim-app".to_owned(), "2.0".to_owned()),
    ];
    for output in [
        include_str!("../fixtures/dnf4-not-found.txt"),
        include_str!("../fixtures/dnf5-not-found.txt"),
    ] {
        assert!(!is_possible(output));
        let found: Vec<(String, Option<String>)> = parse_not_found(output, &requests)
            .into_iter()
            .map(|found| (found.name, found.version))
            .collect();
        let expected = [("nosuch", None), ("lim-app", Some("9"))];
        let expected =
            expected.map(|(name, version)| (name.to_owned(), version.map(str::to_owned)));
        assert_eq!(found, expected);
    }
    let complaint = |output: &str| {
        assert!(!is_possible(output));
        parse_complaint(output, "lim-needs")
    };
    insta::assert_snapshot!(complaint(include_str!("../fixtures/dnf4-unmet-dependencies.txt")), @"nothing provides lim-missing needed by lim-needs-1.0-1.noarch");
    insta::assert_snapshot!(complaint(include_str!("../fixtures/dnf5-unmet-dependencies.txt")), @"nothing provides lim-missing needed by lim-needs-1.0-1.noarch from tests");
    let locked = include_str!("../fixtures/dnf5-locked.txt");
    insta::assert_snapshot!(parse_complaint(locked, "lim-app"), @"Argument 'lim-app-2.0' matches only packages excluded by versionlock.");
    insta::assert_snapshot!(parse_complaint("No such command: versionlock. Please use /usr/bin/dnf --help\n", "a"), @"its plug-in versionlock is not installed: declare python3-dnf-plugin-versionlock, or dnf-plugins-core where that has it");
}

#[test]
fn versions_of_repositories_are_listed() {
    let output = "Last metadata expiration check: 0:00:01 ago\nlimpet tool 0:1.0-1\n\nlimpet tool 2:1.1-1\nlimpet other 0:3-1\n";
    let versions = parse_versions(output);
    assert_eq!(
        versions["tool"],
        BTreeSet::from(["1.0-1".to_owned(), "2:1.1-1".to_owned()])
    );
    assert_eq!(versions["other"].len(), 1);
}

#[test]
fn names_that_dnf_would_take_for_something_else_are_none() {
    for name in [
        "httpd",
        "perl-Foo",
        "gcc-c++",
        "389-ds-base",
        "glibc.i686",
        "a",
    ] {
        assert!(is_package_name(name), "{name}");
    }
    for name in [
        "",
        "@core",
        "*",
        "kernel*",
        "/usr/bin/x",
        "-y",
        "a b",
        "a=1",
        "a<2",
        "https://x/y.rpm",
        "ä",
    ] {
        assert!(!is_package_name(name), "{name}");
    }
}

/// rpm says of every pair which is newer.
fn ask_rpm(pairs: &[(String, String)]) -> Vec<i8> {
    let script = "for line in io.lines(rpm.expand('%{pairs}')) do local a, b = line:match('^(.-) (.*)$'); print(rpm.vercmp(a, b) .. ';') end";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pairs");
    let lines: String = pairs
        .iter()
        .map(|(left, right)| format!("{left} {right}\n"))
        .collect();
    #[allow(clippy::disallowed_methods)]
    std::fs::write(&file, lines).unwrap();
    #[allow(clippy::disallowed_methods)]
    let output = std::process::Command::new("rpm")
        .args([
            "--define",
            &format!("pairs {}", file.display()),
            "--eval",
            &format!("%{{lua: {script}}}"),
        ])
        .output()
        .expect("the tests need rpm: 'apt-get install rpm'");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(';')
        .map(str::trim)
        .filter(|order| !order.is_empty())
        .map(|order| order.parse().unwrap())
        .collect()
}

#[test]
fn versions_are_ordered_as_rpm_itself_orders_them() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    // Few characters, so that many pairs have a beginning in common.
    let word = "[0-2a-bA~^._+]{1,7}";
    let strategy = (word, word);
    let mut pairs = Vec::new();
    while pairs.len() < 10_000 {
        let tree = strategy.new_tree(&mut runner).unwrap();
        pairs.push(proptest::strategy::ValueTree::current(&tree));
    }
    let orders = ask_rpm(&pairs);
    assert_eq!(orders.len(), pairs.len());
    for ((left, right), order) in pairs.iter().zip(orders) {
        let ours = crate::kinds::package::rpm::version::compare_versions(left, right) as i8;
        assert_eq!(ours, order, "{left} {right}");
    }
}

proptest! {
    #[test]
    fn no_output_makes_it_panic(output in "((Installing|Removing|Upgrading|Error):?| [a-c. ]{0,6}|   replacing|Transaction Summary|No match for argument: a|\n){0,20}") {
        parse_simulation(&output, &database());
        parse_not_found(&output, &[Request::Install("a".to_owned())]);
        parse_complaint(&output, "a");
        parse_versions(&output);
        lock_holder(&output);
        let result = CommandResult { ending: Ending::Exited(1), output };
        Family::Dnf(Program::Dnf5).is_possible(&result);
    }
}
