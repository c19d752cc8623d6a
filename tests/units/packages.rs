//! The kind `package`, with a repository in a directory.

use std::collections::BTreeMap;
use std::path::Path;

use limpet::kinds::kind::{Content, Contents, Kind, Owned, Step};
use limpet::kinds::package::status::{Database, State};
use limpet::kinds::package::{
    DesiredPackage, Original, PackageChange, PackageState, Packages, Wanted, applied,
};
use limpet::model::{Action, Failure, OnRemoval, Outcome, ResourceId};
use limpet::sys::Host;

use crate::{Machine, machine, output_of, run};

struct NoContents;

impl Contents for NoContents {
    fn read(&self, _content: &Content) -> Result<Vec<u8>, Failure> {
        unreachable!("packages have no contents")
    }
}

const REPOSITORY: &str = "/srv/lim-repository";

/// A package with these lines in its control file, and this postinst.
fn build(name: &str, version: &str, control: &str, postinst: &str) {
    let directory = format!("/tmp/lim-build-{name}");
    let _ = std::fs::remove_dir_all(&directory);
    let debian = format!("{directory}/DEBIAN");
    std::fs::create_dir_all(&debian).unwrap();
    let text = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Example <a@example.net>\nDescription: test package\n{control}"
    );
    std::fs::write(format!("{debian}/control"), text).unwrap();
    if !postinst.is_empty() {
        std::fs::write(
            format!("{debian}/postinst"),
            format!("#!/bin/sh\n{postinst}\n"),
        )
        .unwrap();
        run("chmod", &["755", &format!("{debian}/postinst")]);
    }
    let archive = format!("{REPOSITORY}/{name}_{version}_all.deb");
    run(
        "dpkg-deb",
        &[
            "-Znone",
            "--root-owner-group",
            "--build",
            &directory,
            &archive,
        ],
    );
}

/// Lists all packages of the directory, as a repository does.
fn index() {
    let mut packages = String::new();
    for entry in std::fs::read_dir(REPOSITORY).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".deb") {
            continue;
        }
        let path = format!("{REPOSITORY}/{name}");
        let control = output_of("dpkg-deb", &["-f", &path]);
        let size = std::fs::metadata(&path).unwrap().len();
        let hash = output_of("sha256sum", &[&path]);
        let hash = hash.split(' ').next().unwrap();
        packages.push_str(&format!(
            "{control}\nFilename: ./{name}\nSize: {size}\nSHA256: {hash}\n\n"
        ));
    }
    std::fs::write(format!("{REPOSITORY}/Packages"), packages).unwrap();
}

/// A machine with none of our packages, and a fresh repository that apt has read.
fn prepared() -> Machine {
    let machine = machine();
    run(
        "sh",
        &[
            "-c",
            "dpkg --purge --force-all $(dpkg-query -W -f '${Package} ' 'lim-*' 2>/dev/null) >/dev/null 2>&1 || true",
        ],
    );
    let _ = std::fs::remove_dir_all(REPOSITORY);
    std::fs::create_dir_all(REPOSITORY).unwrap();
    build("lim-lib", "1.0", "", "");
    for version in ["1.0", "1.1", "2.0~rc1"] {
        build("lim-app", version, "Depends: lim-lib\n", "");
    }
    build("lim-solo", "1.0", "", "");
    build(
        "lim-broken",
        "1.0",
        "",
        "echo cannot start today >&2; exit 7",
    );
    build("lim-needs", "1.0", "Depends: lim-missing\n", "");
    build("lim-foe", "1.0", "Conflicts: lim-lib\n", "");
    index();
    std::fs::write(
        "/etc/apt/sources.list",
        format!("deb [trusted=yes] file:{REPOSITORY} ./\n"),
    )
    .unwrap();
    run("apt-get", &["-q", "update"]);
    machine
}

fn package(name: &str, state: PackageState) -> DesiredPackage {
    DesiredPackage {
        name: name.to_owned(),
        id: ResourceId::new(limpet::model::Kind::Package, name),
        state,
        hold: None,
        report: false,
        on_removal: OnRemoval::Restore,
    }
}

fn installed(name: &str) -> DesiredPackage {
    package(name, PackageState::Installed)
}

fn version(name: &str, version: &str, allow_downgrade: bool) -> DesiredPackage {
    let version = version.to_owned();
    package(
        name,
        PackageState::Version {
            version,
            allow_downgrade,
        },
    )
}

/// Applies the plan; what was done, and the failures.
fn converge(
    host: &Host,
    desired: &[DesiredPackage],
    owned: &[Owned<Original>],
) -> (Vec<Action>, Vec<String>) {
    let plan = || Packages::plan(desired, &Packages::observe(host, desired, owned), owned);
    let mut actions = Vec::new();
    let mut changes = Vec::new();
    let mut failures = Vec::new();
    for step in plan() {
        match step {
            Step::Change(planned) => {
                actions.push(planned.action);
                changes.push(planned.change);
            }
            Step::Release { .. } => {}
            Step::Blocked(failure) => failures.push(failure.to_string()),
        }
    }
    let changes: Vec<_> = changes.iter().collect();
    for outcome in Packages::apply(host, &NoContents, &changes) {
        match outcome {
            Outcome::Done => {}
            Outcome::Failed(failure) | Outcome::Left(failure) => failures.push(failure.to_string()),
            Outcome::Skipped(id) => failures.push(format!("skipped {id}")),
        }
    }
    // As the cycle does once their results are written down.
    host.forget_ended_transactions();
    if failures.is_empty() {
        assert!(
            plan()
                .iter()
                .all(|step| matches!(step, Step::Release { .. })),
            "planning after apply is empty"
        );
    }
    (actions, failures)
}

fn owned(desired: &DesiredPackage, original: Option<&str>) -> Owned<Original> {
    Owned {
        id: desired.id.clone(),
        key: desired.name.as_str().into(),
        original: Original {
            version: original.map(str::to_owned),
            held: false,
            automatic: false,
        },
        on_removal: OnRemoval::Restore,
        applied: applied(desired),
    }
}

fn database(machine: &Machine) -> Database {
    Database::read(&machine.host).unwrap()
}

fn version_of(machine: &Machine, name: &str) -> String {
    let database = database(machine);
    match database.get(name) {
        Some(entry) if entry.state == State::Installed => entry.version.clone(),
        _ => String::new(),
    }
}

#[test]
fn packages_are_installed_upgraded_downgraded_and_removed() {
    let machine = prepared();
    let host = &machine.host;
    let desired = [version("lim-app", "1.0", false), installed("lim-solo")];
    let done = converge(host, &desired, &[]);
    assert_eq!(done, (vec![Action::Install, Action::Install], vec![]));
    assert_eq!(version_of(&machine, "lim-app"), "1.0");
    let done = converge(host, &[version("lim-app", "1.1", false)], &[]);
    assert_eq!(done, (vec![Action::Upgrade], vec![]));
    let (_, failures) = converge(host, &[version("lim-app", "1.0", false)], &[]);
    insta::assert_snapshot!(failures.join("\n"), @"refused package:lim-app: version 1.0 is older than 1.1, which is installed");
    let desired = version("lim-app", "1.0", true);
    let done = converge(host, std::slice::from_ref(&desired), &[]);
    assert_eq!(done, (vec![Action::Downgrade], vec![]));
    assert_eq!(version_of(&machine, "lim-app"), "1.0");
    // Taken back, with the dependency that came along; the other package stays.
    let done = converge(host, &[installed("lim-solo")], &[owned(&desired, None)]);
    assert_eq!(done, (vec![Action::Remove], vec![]));
    let database = database(&machine);
    assert_eq!(database.state("lim-lib"), State::NotInstalled);
    assert_eq!(database.state("lim-solo"), State::Installed);
    // Removed by declaration, and given back when that is gone.
    let absent = package("lim-solo", PackageState::Absent);
    let done = converge(host, std::slice::from_ref(&absent), &[]);
    assert_eq!(done, (vec![Action::Remove], vec![]));
    let done = converge(host, &[], &[owned(&absent, Some("1.0"))]);
    assert_eq!(done, (vec![Action::Install], vec![]));
    assert!(host.find_transactions().unwrap().is_empty());
}

#[test]
fn what_is_impossible_does_not_stop_the_rest() {
    let machine = prepared();
    let desired = [
        installed("lim-app"),
        installed("lim-nothing"),
        installed("lim.solo"),
        version("lim-solo", "9", false),
        installed("lim-needs"),
        installed("lim-foe"),
        installed("lim-broken"),
    ];
    let (_, failures) = converge(&machine.host, &desired, &[]);
    insta::assert_snapshot!(failures.join("\n"), @r#"
    failed to install package:lim-nothing: no package is called 'lim-nothing'
    failed to install package:lim.solo: no package is called 'lim.solo'
    failed to install package:lim-solo: version '9' of 'lim-solo' was not found
    failed to install package:lim-needs: apt-get exited with status 100: "lim-needs : Depends: lim-missing but it is not installable"
    failed to install package:lim-foe: apt-get exited with status 100: "lim-foe : Conflicts: lim-lib but 1.0 is to be installed"
    failed to install package:lim-broken: apt-get exited with status 100: "installed lim-broken package post-installation script subprocess returned error exit status 7; cannot start today"
    "#);
    assert_eq!(version_of(&machine, "lim-app"), "2.0~rc1");
    assert_eq!(version_of(&machine, "lim-solo"), "");
    // On top of the broken one, the next transaction still works; and the broken one is mended with its script.
    let (_, failures) = converge(&machine.host, &[version("lim-app", "1.1", true)], &[]);
    assert_eq!(failures, Vec::<String>::new());
    std::fs::write(
        "/var/lib/dpkg/info/lim-broken.postinst",
        "#!/bin/sh\nexit 0\n",
    )
    .unwrap();
    let (_, failures) = converge(&machine.host, &[installed("lim-broken")], &[]);
    assert_eq!(failures, Vec::<String>::new());
    assert!(!database(&machine).is_interrupted());
}

#[test]
fn nothing_is_removed_that_nobody_asked_to_remove() {
    let machine = prepared();
    converge(&machine.host, &[installed("lim-app")], &[]);
    let absent = |name| package(name, PackageState::Absent);
    let (_, failures) = converge(&machine.host, &[absent("lim-lib"), absent("limpet")], &[]);
    insta::assert_snapshot!(failures.join("\n"), @r#"
    failed to remove package:lim-lib: it would also remove lim-app
    "#);
    let (_, failures) = converge(&machine.host, &[absent("lim-lib"), absent("lim-app")], &[]);
    assert_eq!(failures, Vec::<String>::new());
    // A dependency that somebody declared stays when what brought it along goes.
    converge(&machine.host, &[installed("lim-app")], &[]);
    let app = installed("lim-app");
    let (_, failures) = converge(&machine.host, &[installed("lim-lib")], &[owned(&app, None)]);
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(version_of(&machine, "lim-lib"), "1.0");
    assert_eq!(version_of(&machine, "lim-app"), "");
}

#[test]
fn lists_are_fetched_when_a_package_is_not_among_them() {
    let machine = prepared();
    build("lim-new", "1.0", "", "");
    index();
    let done = converge(&machine.host, &[installed("lim-new")], &[]);
    assert_eq!(done, (vec![Action::Install], vec![]));
    // A version that the repository no longer has, though the lists still say so.
    std::fs::remove_file(format!("{REPOSITORY}/lim-app_2.0~rc1_all.deb")).unwrap();
    index();
    let (_, failures) = converge(&machine.host, &[installed("lim-app")], &[]);
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!(version_of(&machine, "lim-app"), "1.1");
    std::fs::write(
        "/etc/apt/sources.list",
        "deb [trusted=yes] file:/srv/not-there ./\n",
    )
    .unwrap();
    let (_, failures) = converge(&machine.host, &[installed("lim-nothing")], &[]);
    insta::assert_snapshot!(failures.join("\n"), @"failed to install package:lim-nothing: no package is called 'lim-nothing'");
}

#[test]
fn a_change_made_twice_is_made_once() {
    let machine = prepared();
    let change = PackageChange {
        automatic: false,
        name: "lim-solo".to_owned(),
        id: ResourceId::new(limpet::model::Kind::Package, "lim-solo"),
        wanted: Wanted::Installed,
        keep: BTreeMap::new().into(),
    };
    for _ in 0..2 {
        let outcomes = Packages::apply(&machine.host, &NoContents, &[&change]);
        assert_eq!(outcomes, [Outcome::Done]);
    }
    machine.host.forget_ended_transactions();
    assert!(!Path::new("/run/limpet").read_dir().unwrap().any(|entry| {
        entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .ends_with(".log")
    }));
}
