//! Packages from a real, signed apt repository.

use crate::fixture::apt_repository::{AptRepository, Package};
use crate::fixture::machine::wait_until;
use crate::scene::{SOON, Scene};

/// A machine whose only source of packages is ours.
fn scene(label: &str, packages: &[Package], layer: &str) -> Scene {
    let scene = Scene::prepared(label, layer);
    AptRepository::new(packages).copy_to(&scene.machine);
    scene.enroll().success();
    scene
}

/// `installed 1.0`, or what dpkg calls it otherwise.
fn installed(scene: &Scene, package: &str) -> String {
    let shown = scene.machine.run(&[
        "dpkg-query",
        "-W",
        "-f",
        "${db:Status-Status} ${Version}",
        package,
    ]);
    if shown.status.success() {
        shown.stdout
    } else {
        "unknown".to_owned()
    }
}

#[test]
fn packages_are_installed_put_back_and_removed() {
    let packages = [
        Package::new("tool", "1.0"),
        Package {
            depends: "helper",
            ..Package::new("service", "1.0")
        },
        Package::new("helper", "1.0"),
        Package::new("unwanted", "1.0"),
    ];
    let declared =
        "[package]\ntool = \"installed\"\nservice = \"installed\"\nunwanted = \"absent\"\n";
    let scene = scene("packages", &packages, "");
    let machine = &scene.machine;
    machine.sh("apt-get -q -y install unwanted");
    scene.converge();

    scene.apply(declared);
    for (package, state) in [
        ("tool", "installed 1.0"),
        ("service", "installed 1.0"),
        ("helper", "installed 1.0"),
    ] {
        assert_eq!(installed(&scene, package), state, "{package}");
    }
    assert_ne!(installed(&scene, "unwanted"), "installed 1.0");

    machine.sh("apt-get -q -y remove tool; apt-get -q -y install unwanted");
    scene.converge();
    assert_eq!(installed(&scene, "tool"), "installed 1.0");
    assert_ne!(installed(&scene, "unwanted"), "installed 1.0");

    scene.apply("");
    for package in ["tool", "service", "helper"] {
        assert_ne!(installed(&scene, package), "installed 1.0", "{package}");
    }
    assert_eq!(machine.sh("dpkg --audit"), "");
}

#[test]
fn a_declared_version_is_kept() {
    let scene = scene(
        "versions",
        &[Package::new("tool", "1.0"), Package::new("tool", "2.0")],
        "[package]\ntool = { version = \"1.0\" }\n",
    );
    scene.converge();
    assert_eq!(installed(&scene, "tool"), "installed 1.0");
    scene.apply("[package]\ntool = { version = \"2.0\" }\n");
    assert_eq!(installed(&scene, "tool"), "installed 2.0");
    scene.apply("[package]\ntool = { version = \"1.0\", allow_downgrade = true }\n");
    assert_eq!(installed(&scene, "tool"), "installed 1.0");
    scene.machine.sh("apt-get -q -y install tool=2.0");
    scene.converge();
    assert_eq!(installed(&scene, "tool"), "installed 1.0");
}

#[test]
fn a_package_that_does_not_exist_stops_only_what_needs_it() {
    let scene = scene(
        "missing",
        &[Package::new("tool", "1.0")],
        "[package]\nno-such-package = \"installed\"\ntool = \"installed\"\n\n\
         [file.\"/etc/dependent\"]\ncontent = \"x\"\nneeds = [\"package:no-such-package\"]\n\n\
         [file.\"/etc/independent\"]\ncontent = \"x\"\n",
    );
    assert_eq!(scene.sync().code(), 1);
    let status = scene.status();
    assert_eq!(status["state"], "degraded", "{status:#}");
    let errors = status["errors"].to_string();
    assert!(errors.contains("package:no-such-package"), "{errors}");
    assert!(!scene.machine.exists("/etc/dependent"));
    assert!(scene.machine.exists("/etc/independent"));
    assert_eq!(installed(&scene, "tool"), "installed 1.0");
}

#[test]
fn an_installation_survives_the_death_of_the_agent() {
    let slow = Package {
        postinst: "echo configuring >> /var/log/slow-postinst; sleep 8; echo configured >> /var/log/slow-postinst",
        ..Package::new("slow", "1.0")
    };
    let scene = scene("adopt", &[slow], "");
    let machine = &scene.machine;
    scene.converge();
    scene.declare("[package]\nslow = \"installed\"\n");
    machine.run(&["limpet", "sync"]).success();
    wait_until("the package's script", SOON, || {
        machine.exists("/var/log/slow-postinst").then_some(())
    });
    machine.kill("limpet.service");
    wait_until("the end of the installation", SOON, || {
        (installed(&scene, "slow") == "installed 1.0").then_some(())
    });
    scene.converge();
    assert_eq!(
        machine.read_file("/var/log/slow-postinst"),
        "configuring\nconfigured\n"
    );
    assert_eq!(machine.sh("dpkg --audit"), "");
    assert_eq!(machine.sh("systemctl list-units --all --plain --no-legend 'limpet-*' | grep -v -E '^limpet-(fetch|probation|recover)' || true"), "");
}

#[test]
fn an_interrupted_dpkg_is_repaired() {
    let scene = scene(
        "interrupted",
        &[Package::new("tool", "1.0"), Package::new("other", "1.0")],
        "",
    );
    let machine = &scene.machine;
    scene.converge();
    machine.sh("dpkg --unpack /srv/apt/other_1.0_all.deb");
    scene.apply("[package]\ntool = \"installed\"\nother = \"installed\"\n");
    assert_eq!(machine.sh("dpkg --audit"), "");
    assert_eq!(installed(&scene, "other"), "installed 1.0");
}

#[test]
fn a_unit_that_its_package_starts_runs_with_the_declared_configuration() {
    let starts_by_itself = Package {
        postinst: "printf '[Service]\\nExecStart=/bin/sh -c \"cp /etc/daemon.conf /run/daemon.seen; exec sleep infinity\"\\n' \
                   > /etc/systemd/system/daemon.service\n\
                   echo packaged > /etc/daemon.conf\nsystemctl daemon-reload\nsystemctl start daemon.service\n",
        ..Package::new("daemon", "1.0")
    };
    let layer = |running: &str| {
        format!(
            "[package]\ndaemon = \"installed\"\n\n\
             [file.\"/etc/daemon.conf\"]\ncontent = \"declared\\n\"\nneeds = [\"package:daemon\"]\n\n\
             [unit.\"daemon.service\"]\n{running}restart_on = [\"file:/etc/daemon.conf\"]\n"
        )
    };
    for (label, running) in [("daemon-running", "running = true\n"), ("daemon-left", "")] {
        let scene = scene(label, std::slice::from_ref(&starts_by_itself), "");
        scene.apply(&layer(running));
        assert_eq!(
            scene.machine.read_file("/run/daemon.seen"),
            "declared\n",
            "{label}"
        );
        assert!(scene.machine.is_active("daemon.service"), "{label}");
    }
}

/// What `apt-mark showhold` says.
fn held(scene: &Scene) -> String {
    scene.machine.sh("apt-mark showhold")
}

#[test]
fn what_is_on_hold_stays_whoever_asks_apt_and_takes_the_hold_away() {
    let versions = ["1.0", "2.0", "3.0"].map(|version| Package::new("tool++", version));
    let scene = scene("holds", &versions, "");
    let machine = &scene.machine;
    let declared = |version: &str| {
        format!("[package]\n\"tool++\" = {{ version = \"{version}\", hold = true }}\n")
    };
    scene.apply(&declared("1.0"));
    let candidate = || {
        let policy = machine.sh("apt-cache policy tool++");
        let line = policy.lines().find(|line| line.contains("Candidate:"));
        line.unwrap().trim().to_owned()
    };
    let pin = "/etc/apt/preferences.d/limpet-hold-tool__.pref";
    assert_eq!(held(&scene), "tool++\n");
    assert_eq!(candidate(), "Candidate: 1.0");
    machine.sh("apt-mark unhold tool++");
    machine.sh("apt-get -q -y dist-upgrade; apt-get -q -y install tool++");
    assert_eq!(installed(&scene, "tool++"), "installed 1.0");

    // The pin is kept as the hold is.
    machine.sh(&format!("rm {pin}"));
    assert_eq!(candidate(), "Candidate: 3.0");
    scene.converge();
    assert_eq!(candidate(), "Candidate: 1.0");

    // limpet changes what nobody else does.
    scene.apply(&declared("2.0"));
    assert_eq!(installed(&scene, "tool++"), "installed 2.0");
    assert_eq!(candidate(), "Candidate: 2.0");

    scene.apply("[package]\n\"tool++\" = \"installed\"\n");
    assert!(!machine.exists(pin));
    assert_eq!(held(&scene), "");
    assert_eq!(candidate(), "Candidate: 3.0");

    // Without a version it is the one that is there, also where limpet has to install it first.
    machine.sh("apt-get -q -y remove tool++");
    scene.apply("[package]\n\"tool++\" = { hold = true }\n");
    assert_eq!(installed(&scene, "tool++"), "installed 3.0");
    assert_eq!(held(&scene), "tool++\n");
    scene.apply("");
    assert_eq!(machine.sh("ls -A /etc/apt/preferences.d; dpkg --audit"), "");
}

#[test]
fn a_version_and_a_hold_are_given_back() {
    let versions = ["1.0", "1.9.1", "1.9.2", "2.0"];
    let tools = versions.map(|version| Package::new("tool", version));
    let others = [
        Package::new("kept", "1.0"),
        Package::new("kept", "2.0"),
        Package::new("gone", "1.0"),
        Package::new("gone", "2.0"),
    ];
    let packages: Vec<Package> = tools.into_iter().chain(others).collect();
    let scene = scene("versions-back", &packages, "");
    let machine = &scene.machine;
    machine.sh("apt-get -q -y install tool=1.0 kept=1.0 gone=1.0 && apt-mark hold kept gone");
    scene.converge();

    // Somebody else's hold is not overruled unless the fleet manages it.
    scene.declare("[package]\nkept = { version = \"2.0\" }\n");
    assert_eq!(scene.sync().code(), 1);
    let errors = scene.status()["errors"].to_string();
    assert!(errors.contains("on hold on this host"), "{errors}");
    assert_eq!(installed(&scene, "kept"), "installed 1.0");

    scene.apply(
        "[package]\n\
         tool = { version = \"1.9.*\", hold = true }\n\
         kept = { version = \"2.0\", hold = true }\n\
         gone = { version = \"2.0\", hold = false }\n",
    );
    assert_eq!(installed(&scene, "tool"), "installed 1.9.2");
    assert_eq!(installed(&scene, "kept"), "installed 2.0");
    assert_eq!(installed(&scene, "gone"), "installed 2.0");
    assert_eq!(held(&scene), "kept\ntool\n");

    // A hold that somebody takes away is drift.
    machine.sh("apt-mark unhold tool");
    assert_eq!(scene.planned(), ["package:tool hold differs"]);
    scene.converge();
    assert_eq!(held(&scene), "kept\ntool\n");

    // One key of two.
    scene.apply(
        "[package]\n\
         tool = { version = \"1.9.*\" }\n\
         kept = { version = \"2.0\", hold = true }\n\
         gone = { version = \"2.0\", hold = false }\n",
    );
    assert_eq!(held(&scene), "kept\n");
    assert_eq!(installed(&scene, "tool"), "installed 1.9.2");

    // No repository has the old version of one of them any more.
    machine.sh("cd /srv/apt && rm gone_1.0_all.deb");
    let left: Vec<Package> = packages
        .into_iter()
        .filter(|package| (package.name, package.version) != ("gone", "1.0"))
        .collect();
    AptRepository::new(&left).copy_to(machine);
    scene.declare("");
    let sync = scene.sync();
    assert_eq!(sync.code(), 1, "{sync:?}");
    assert_eq!(installed(&scene, "tool"), "installed 1.0");
    assert_eq!(installed(&scene, "kept"), "installed 1.0");
    assert_eq!(installed(&scene, "gone"), "installed 2.0");
    assert_eq!(held(&scene), "gone\nkept\n");
    let history = machine.sh("limpet history");
    assert!(
        history.contains("left package:gone at version 2.0: no repository has 1.0 any more"),
        "{history}"
    );
    // It was told once.
    scene.converge();
    assert_eq!(machine.sh("dpkg --audit"), "");
}
