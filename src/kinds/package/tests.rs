//! The laws of planning packages.

use super::*;
use crate::model::{self, Class};
use proptest::prelude::*;

fn declare(name: &str, state: PackageState) -> DesiredPackage {
    DesiredPackage {
        name: name.to_owned(),
        id: ResourceId::new(model::Kind::Package, name),
        state,
        hold: None,
        report: false,
        on_removal: OnRemoval::Restore,
    }
}

fn exactly(version: &str, allow_downgrade: bool) -> PackageState {
    PackageState::Version {
        version: version.to_owned(),
        allow_downgrade,
    }
}

fn seen(name: &str, state: State, version: &str) -> Observed {
    let package = ObservedPackage {
        state,
        version: version.to_owned(),
        is_held: false,
        is_automatic: false,
        protected: None,
        dependants: Vec::new(),
    };
    Observed {
        family: Family::Apt,
        packages: Ok([(name.to_owned(), package)].into()),
    }
}

fn own(desired: &DesiredPackage, original: Option<&str>, on_removal: OnRemoval) -> Owned<Original> {
    Owned {
        id: desired.id.clone(),
        key: desired.name.as_str().into(),
        original: Original {
            version: original.map(str::to_owned),
            held: false,
            automatic: false,
        },
        on_removal,
        applied: applied(desired),
    }
}

fn words(steps: &[Step<Original, PackageChange>]) -> String {
    let word = |step: &Step<Original, PackageChange>| match step {
        Step::Change(planned) => format!("{} ({})", planned.action, planned.reason),
        Step::Release { .. } => "release".to_owned(),
        Step::Blocked(failure) => failure.to_string(),
    };
    steps.iter().map(word).collect::<Vec<_>>().join(", ")
}

const BROKEN: State = State::Broken("half-configured");

#[test]
fn a_package_is_changed_only_when_it_differs() {
    let check = |state: PackageState, observed: Observed, expected: &str| {
        let desired = declare("curl", state);
        let steps = Packages::plan(std::slice::from_ref(&desired), &observed, &[]);
        assert_eq!(words(&steps), expected, "{desired:?}");
    };
    let seen = |state, version| seen("curl", state, version);
    use PackageState::{Absent, Installed};
    check(Installed, seen(State::Installed, "1"), "");
    check(
        Installed,
        seen(State::NotInstalled, ""),
        "install (missing)",
    );
    check(
        Installed,
        seen(State::ConfigFiles, "1"),
        "install (missing)",
    );
    check(Installed, seen(BROKEN, "1"), "install (differs)");
    check(Absent, seen(State::NotInstalled, ""), "");
    check(Absent, seen(State::ConfigFiles, "1"), "");
    check(Absent, seen(State::Installed, "1"), "remove (differs)");
    check(Absent, seen(BROKEN, "1"), "remove (differs)");
    check(exactly("1.0", false), seen(State::Installed, "1.0"), "");
    check(exactly("0:1.0", false), seen(State::Installed, "1.0"), "");
    check(
        exactly("1.1", false),
        seen(State::Installed, "1.0"),
        "upgrade (differs)",
    );
    check(
        exactly("1.0~rc1", true),
        seen(State::Installed, "1.0"),
        "downgrade (differs)",
    );
    check(
        exactly("1.0", false),
        seen(State::ConfigFiles, "2.0"),
        "install (missing)",
    );
    check(
        exactly("1.0", false),
        seen(State::Installed, "1.1"),
        "refused package:curl: version 1.0 is older than 1.1, which is installed",
    );
    check(
        exactly("1.[", false),
        seen(State::Installed, "1.1"),
        "refused package:curl: '1.[' is no version: as a pattern it is not complete",
    );
    check(exactly("1.*", false), seen(State::Installed, "1.1"), "");
    check(
        exactly("1.*", false),
        seen(State::Installed, "0.9"),
        "upgrade (differs)",
    );
    check(
        exactly("1.*", false),
        seen(State::Installed, "2.0"),
        "refused package:curl: version 1.* is older than 2.0, which is installed",
    );
    check(
        exactly("1.*", true),
        seen(State::Installed, "2.0"),
        "downgrade (differs)",
    );
    check(
        exactly("1.*", false),
        seen(State::NotInstalled, ""),
        "install (missing)",
    );
}

#[test]
fn what_is_no_name_is_refused() {
    let check = |name: &str, state: PackageState, expected: &str| {
        let observed = seen(name, State::Installed, "1");
        let steps = Packages::plan(&[declare(name, state)], &observed, &[]);
        assert_eq!(words(&steps), expected, "{name}");
    };
    use PackageState::Installed;
    check("g++", Installed, "");
    check("libc6:i386", Installed, "");
    check(
        "--purge",
        Installed,
        "refused package:--purge: '--purge' is no package name",
    );
    check(
        "curl=1",
        Installed,
        "refused package:curl=1: 'curl=1' is no package name",
    );
}

#[test]
fn what_the_host_cannot_do_without_is_known() {
    let database = Database::new(
        status::parse_status(include_str!("fixtures/status.txt")).unwrap(),
        false,
    );
    let check = |name: &str, expected: Option<&str>| {
        let kernel = Some("linux-image-6.1.0-9-amd64");
        assert_eq!(why_protected(name, &database, kernel), expected, "{name}");
    };
    check("lim-app", None);
    check("openssh-server", Some("the ssh server"));
    check("limpet", Some("limpet itself"));
    check("libc6:amd64", Some("the C library"));
    check("linux-image-6.1.0-9-amd64", Some("the kernel that runs"));
    check("linux-image-6.1.0-8-amd64", None);
    check("dpkg", Some("the package manager"));
    let essential = "Package: base-files\nEssential: yes\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n";
    let database = Database::new(status::parse_status(essential).unwrap(), false);
    let found = why_protected("base-files", &database, None);
    assert_eq!(found, Some("an essential package"));
}

#[test]
fn only_what_limpet_installed_is_removed() {
    let check = |applied: PackageState, original, removal, state, expected: &str| {
        let owned = own(&declare("curl", applied), original, removal);
        let steps = Packages::plan(&[], &seen("curl", state, "1"), &[owned]);
        assert_eq!(words(&steps), expected);
    };
    use OnRemoval::{Delete, Keep, Restore};
    use PackageState::{Absent, Installed};
    check(
        Installed,
        None,
        Restore,
        State::Installed,
        "remove (undeclared)",
    );
    check(Installed, Some("1"), Restore, State::Installed, "release");
    check(Installed, None, Keep, State::Installed, "release");
    check(
        exactly("1", false),
        Some("0.9"),
        Restore,
        State::Installed,
        "downgrade (undeclared)",
    );
    check(
        exactly("1", false),
        Some("2"),
        Restore,
        State::Installed,
        "upgrade (undeclared)",
    );
    // Somebody else changed it since.
    check(
        exactly("3", false),
        Some("0.9"),
        Restore,
        State::Installed,
        "release",
    );
    check(
        exactly("1", false),
        Some("0.9"),
        Keep,
        State::Installed,
        "release",
    );
    check(
        Installed,
        Some("1"),
        Delete,
        State::Installed,
        "remove (undeclared)",
    );
    check(Installed, None, Restore, State::NotInstalled, "release");
    check(
        Absent,
        Some("1"),
        Restore,
        State::ConfigFiles,
        "install (undeclared)",
    );
    check(Absent, None, Restore, State::Installed, "release");
    check(Absent, Some("1"), Delete, State::NotInstalled, "release");
}

#[test]
fn a_version_that_is_declared_no_longer_is_taken_back() {
    let owned = [own(
        &declare("curl", exactly("2.*", false)),
        Some("1.0"),
        OnRemoval::Restore,
    )];
    let still = [declare("curl", PackageState::Installed)];
    let check = |version, expected: &str| {
        let steps = Packages::plan(&still, &seen("curl", State::Installed, version), &owned);
        assert_eq!(words(&steps), expected, "{version}");
    };
    check("2.3", "downgrade (undeclared)");
    check("1.0", "");
    check("3.0", "");
    let own_package = own(
        &declare("limpet", exactly("2", false)),
        Some("1"),
        OnRemoval::Restore,
    );
    let steps = Packages::plan(&[], &seen("limpet", State::Installed, "2"), &[own_package]);
    assert_eq!(words(&steps), "release");
}

#[test]
fn a_hold_is_set_and_given_back_and_respected_where_somebody_else_set_it() {
    let held = |is_held: bool, version: &str| {
        let mut observed = seen("curl", State::Installed, version);
        let packages = observed.packages.as_mut().unwrap();
        packages.get_mut("curl").unwrap().is_held = is_held;
        observed
    };
    let hold = |hold: Option<bool>, state: PackageState| DesiredPackage {
        hold,
        ..declare("curl", state)
    };
    let installed = PackageState::Installed;
    let check = |desired: Option<DesiredPackage>,
                 observed: Observed,
                 owned: &[Owned<Original>],
                 expected: &str| {
        let desired: Vec<DesiredPackage> = desired.into_iter().collect();
        let steps = Packages::plan(&desired, &observed, owned);
        assert_eq!(words(&steps), expected, "{desired:?}");
    };
    let (yes, no) = (
        hold(Some(true), installed.clone()),
        hold(Some(false), installed.clone()),
    );
    check(Some(yes.clone()), held(true, "1"), &[], "");
    check(Some(yes.clone()), held(false, "1"), &[], "hold (differs)");
    check(Some(no.clone()), held(true, "1"), &[], "hold (differs)");
    check(
        Some(yes.clone()),
        seen("curl", State::NotInstalled, ""),
        &[],
        "install (missing), hold (differs)",
    );
    // Left out again: what it was before.
    let was_there = |desired: &DesiredPackage, was_held| {
        let mut owned = own(desired, Some("1"), OnRemoval::Restore);
        owned.original.held = was_held;
        [owned]
    };
    let left_out = Some(hold(None, installed.clone()));
    check(
        left_out.clone(),
        held(true, "1"),
        &was_there(&yes, false),
        "hold (undeclared)",
    );
    check(
        left_out.clone(),
        held(true, "1"),
        &was_there(&yes, true),
        "",
    );
    check(
        None,
        held(false, "1"),
        &was_there(&no, true),
        "hold (undeclared)",
    );
    check(None, held(false, "1"), &was_there(&yes, false), "release");
    // What others hold is left alone, and what we hold is not in our way.
    let newer = |held| hold(held, exactly("2", false));
    check(
        Some(newer(None)),
        held(true, "1"),
        &[],
        "refused package:curl: it is on hold on this host, by somebody else",
    );
    check(
        Some(newer(Some(true))),
        held(true, "1"),
        &[],
        "upgrade (differs)",
    );
    check(
        None,
        held(true, "1"),
        &[own(
            &declare("curl", installed.clone()),
            None,
            OnRemoval::Restore,
        )],
        "refused package:curl: it is on hold on this host, by somebody else",
    );
    check(
        None,
        held(true, "1"),
        &[own(&yes, None, OnRemoval::Restore)],
        "remove (undeclared)",
    );
    // Removed by declaration: comes back as it was, on hold.
    let absent = was_there(&declare("curl", PackageState::Absent), true);
    check(
        None,
        seen("curl", State::NotInstalled, ""),
        &absent,
        "install (undeclared), hold (undeclared)",
    );
}

#[test]
fn what_was_put_back_only_in_part_is_put_back_again() {
    let check = |before: PackageState, state, version, expected: &str| {
        let owned = own(&declare("curl", before), Some("1"), OnRemoval::Restore);
        let steps = Packages::plan(&[], &seen("curl", state, version), &[owned]);
        assert_eq!(words(&steps), expected);
    };
    use PackageState::Absent;
    check(Absent, BROKEN, "1", "install (undeclared)");
    check(Absent, State::Installed, "1", "release");
    check(exactly("2", false), BROKEN, "1", "install (undeclared)");
    check(exactly("2", false), BROKEN, "2", "downgrade (undeclared)");
    check(exactly("2", false), State::Installed, "1", "release");
    // Whatever half of a package this is, nobody declared a version of it.
    check(PackageState::Installed, BROKEN, "1", "release");
}

#[test]
fn a_database_that_cannot_be_read_blocks_every_package() {
    let observed = Observed {
        family: Family::Apt,
        packages: Err(Failure::new(Class::Host, "failed to read it")),
    };
    let desired = declare("curl", PackageState::Installed);
    let owned = own(
        &declare("git", PackageState::Installed),
        None,
        OnRemoval::Restore,
    );
    let steps = Packages::plan(&[desired], &observed, &[owned]);
    insta::assert_snapshot!(words(&steps), @"failed to read it, failed to read it");
}

fn any_state() -> impl Strategy<Value = PackageState> {
    let versions = prop::sample::select(vec!["1.0", "1.0-2", "2.0~rc1", "1.*", "9.*"]);
    prop_oneof![
        Just(PackageState::Installed),
        Just(PackageState::Absent),
        (versions, any::<bool>()).prop_map(|(version, down)| exactly(version, down)),
    ]
}

proptest! {
    #[test]
    fn planning_after_apply_is_empty(
        desired in prop::option::of(any_state()),
        before in any_state(),
        original in prop::option::of(Just("1.0")),
        state in prop::sample::select(vec![State::NotInstalled, State::ConfigFiles, BROKEN, State::Installed]),
        version in prop::sample::select(vec!["1.0", "1.0-2", "2.0~rc1", "3"]),
    ) {
        let declared: Vec<DesiredPackage> = desired.into_iter().map(|state| declare("curl", state)).collect();
        let owned = [own(&declare("curl", before), original, OnRemoval::Restore)];
        let steps = Packages::plan(&declared, &seen("curl", state, version), &owned);
        if !steps.is_empty() {
            let mut observed = seen("curl", state, version);
            let packages = observed.packages.as_mut().unwrap();
            let curl = packages.get_mut("curl").unwrap();
            for step in &steps {
                let Step::Change(planned) = step else { continue };
                prop_assert_eq!(planned.key.as_str(), "curl");
                match &planned.change.wanted {
                    Wanted::Installed => (curl.state, curl.version) = (State::Installed, "3".to_owned()),
                    Wanted::Version { version, .. } | Wanted::PutBack { version } => {
                        (curl.state, curl.version) = (State::Installed, version.clone());
                    }
                    Wanted::Fitting { pattern, .. } => {
                        (curl.state, curl.version) = (State::Installed, pattern.replace('*', "7"));
                    }
                    Wanted::Held(is_held) => curl.is_held = *is_held,
                    Wanted::Absent { .. } => (curl.state, curl.version) = (State::ConfigFiles, String::new()),
                }
            }
            let again = Packages::plan(&declared, &observed, &owned);
            let is_over = again.iter().all(|step| matches!(step, Step::Release { .. } | Step::Blocked(_)));
            prop_assert!(is_over, "{} then {}", words(&steps), words(&again));
        }
    }
}
