//! Packages by real dnf, 4 and 5, with limpet installed by that dnf from its rpm. The machines are Debian's: they have dpkg as well, so that
//! their configuration names the package manager.

use std::time::Duration;

use crate::fixture::machine::{Machine, Network, wait_until};
use crate::fixture::repository::Repository;
use crate::fixture::rpm_repository::{self, Rpm, RpmRepository};
use crate::scene::{SOON, Scene};

/// As long as five starts and their end may take on a busy computer.
const PATIENCE: Duration = Duration::from_secs(180);

const VARIANTS: [(&str, &str); 2] = [("dnf4", "dnf"), ("dnf5", "dnf5")];

/// A machine whose limpet came with dnf, enrolled, and its repository of packages.
fn scene(label: &str, variant: (&str, &str), packages: &[Rpm]) -> (Scene, RpmRepository) {
    let (base, dnf) = variant;
    let repository = RpmRepository::new(packages);
    let label = format!("{label}-{base}");
    let machine = Machine::start_over(&label, Network::Shared, Some(&rpm_repository::base(base)));
    repository.copy_to(&machine);
    machine.sh(&format!("{dnf} -q -y install limpet >&2"));
    machine.write_file(
        "/etc/limpet/limpet.toml.d/dnf.toml",
        "[host]\npackage_manager = \"dnf\"\n",
    );
    let scene = Scene::prepared_on(machine, "", Repository::new());
    scene.enroll().success();
    scene.converge();
    (scene, repository)
}

/// The versions in which a package is installed, in rpm's own order.
fn installed(scene: &Scene, package: &str) -> String {
    let query = ["rpm", "-q", "--qf", "%{VERSION}-%{RELEASE} ", package];
    let shown = scene.machine.run(&query);
    match shown.status.success() {
        true => shown.stdout.trim().to_owned(),
        false => "none".to_owned(),
    }
}

fn errors(scene: &Scene) -> String {
    scene.status()["errors"].to_string()
}

#[test]
fn packages_of_dnf_are_installed_put_back_and_removed() {
    let needs = Rpm {
        preamble: "Requires: helper",
        ..Rpm::new("service", "1.0")
    };
    let packages = [
        Rpm::new("tool", "1.0"),
        needs,
        Rpm::new("helper", "1.0"),
        Rpm::new("unwanted", "1.0"),
    ];
    for variant in VARIANTS {
        let dnf = variant.1;
        let (scene, _repository) = scene("rpms", variant, &packages);
        let machine = &scene.machine;
        machine.sh(&format!("{dnf} -q -y install unwanted"));
        scene.apply(
            "[package]\ntool = { apt = \"no-such-tool\", dnf = \"tool\" }\nservice = \"installed\"\nunwanted = \"absent\"\n",
        );
        for (package, expected) in [
            ("tool", "1.0-1"),
            ("service", "1.0-1"),
            ("helper", "1.0-1"),
            ("unwanted", "none"),
        ] {
            assert_eq!(installed(&scene, package), expected, "{dnf} {package}");
        }
        machine.sh(&format!(
            "{dnf} -q -y remove tool; {dnf} -q -y install unwanted"
        ));
        scene.converge();
        assert_eq!(installed(&scene, "tool"), "1.0-1");
        assert_eq!(installed(&scene, "unwanted"), "none");
        // With the dependency that came along.
        scene.apply("");
        for package in ["tool", "service", "helper"] {
            assert_eq!(installed(&scene, package), "none", "{dnf} {package}");
        }
    }
}

#[test]
fn versions_and_holds_of_dnf_are_kept_and_given_back() {
    let packages = ["1.0", "1.9.1", "1.9.2", "2.0"].map(|version| Rpm::new("tool", version));
    for variant in VARIANTS {
        let dnf = variant.1;
        let (scene, _repository) = scene("rpm-versions", variant, &packages);
        let machine = &scene.machine;
        machine.sh(&format!("{dnf} -q -y install tool-1.0"));
        let held = || machine.sh(&format!("{dnf} -q versionlock list"));

        scene.apply("[package]\ntool = { version = \"1.9.*\", hold = true }\n");
        assert_eq!(installed(&scene, "tool"), "1.9.2-1", "{dnf}");
        assert!(held().contains("tool"), "{dnf} {}", held());
        machine.run(&[dnf, "-q", "-y", "upgrade"]);
        assert_eq!(installed(&scene, "tool"), "1.9.2-1", "{dnf}");

        // The hold is ours: another version may come, and is held in its turn.
        scene.apply("[package]\ntool = { version = \"2.0\", hold = true }\n");
        assert_eq!(installed(&scene, "tool"), "2.0-1", "{dnf}");
        assert!(held().contains("2.0-1"), "{dnf} {}", held());

        // Down only where that is said.
        scene.declare("[package]\ntool = { version = \"1.9.1\", hold = true }\n");
        assert_eq!(scene.sync().code(), 1, "{dnf}");
        assert!(
            errors(&scene).contains("older than 2.0-1"),
            "{}",
            errors(&scene)
        );
        scene.apply(
            "[package]\ntool = { version = \"1.9.1-1\", hold = true, allow_downgrade = true }\n",
        );
        assert_eq!(installed(&scene, "tool"), "1.9.1-1", "{dnf}");

        // A hold that somebody takes away is drift; one declared no longer is taken back, and so is the version.
        machine.sh(&format!("{dnf} -q versionlock delete tool >&2"));
        assert_eq!(scene.planned(), ["package:tool hold differs"], "{dnf}");
        scene.converge();
        assert!(held().contains("1.9.1-1"), "{dnf} {}", held());
        scene.apply("");
        assert_eq!(installed(&scene, "tool"), "1.0-1", "{dnf}");
        assert!(!held().contains("tool"), "{dnf} {}", held());
    }
}

#[test]
fn what_rpm_says_on_the_side_is_told() {
    let tool = |version, post| Rpm {
        has_configuration: true,
        post,
        ..Rpm::new("tool", version)
    };
    for variant in VARIANTS {
        let dnf = variant.1;
        let packages = [tool("1.0", ""), tool("2.0", "exit 3")];
        let (scene, _repository) = scene("rpm-said", variant, &packages);
        let machine = &scene.machine;
        scene.apply("[package]\ntool = { version = \"1.0\" }\n");
        machine.sh("echo changed here >> /etc/tool.conf");
        scene.apply("[package]\ntool = { version = \"2.0\" }\n");
        assert_eq!(machine.read_file("/etc/tool.conf"), "1.0\nchanged here\n");
        assert_eq!(machine.read_file("/etc/tool.conf.rpmnew"), "2.0\n");
        let told = machine.sh("journalctl --no-pager -o cat -t limpet");
        for expected in [
            "package:tool: kept '/etc/tool.conf' as it was changed on this host; what the package brings lies beside it in '/etc/tool.conf.rpmnew'",
            "package:tool was changed, but %post(tool-2.0-1.noarch) failed, exit status 3: what that script was to do is not done",
        ] {
            assert!(told.contains(expected), "{dnf}: {told}");
        }
    }
}

#[test]
fn what_dnf_would_do_beside_what_is_declared_is_refused_by_name() {
    let enemy = Rpm {
        preamble: "Obsoletes: friend < 9",
        ..Rpm::new("enemy", "1.0")
    };
    let needs_base = Rpm {
        preamble: "Requires: base",
        ..Rpm::new("friend", "1.0")
    };
    let needs_nothing_there_is = Rpm {
        preamble: "Requires: nowhere-to-be-had",
        ..Rpm::new("impossible", "1.0")
    };
    let packages = [
        Rpm::new("base", "1.0"),
        needs_base,
        needs_nothing_there_is,
        Rpm::new("good", "1.0"),
    ];
    for variant in VARIANTS {
        let dnf = variant.1;
        let (scene, repository) = scene("rpm-refused", variant, &packages);
        let machine = &scene.machine;
        machine.sh(&format!("{dnf} -q -y install friend"));
        repository.publish(&[enemy]);
        repository.copy_to(machine);
        scene.declare(
            "[package]\nenemy = \"installed\"\nbase = \"absent\"\nimpossible = \"installed\"\nno-such-package = \"installed\"\ngood = \"installed\"\n",
        );
        assert_eq!(scene.sync().code(), 1);
        let errors = errors(&scene);
        for words in [
            "failed to install package:enemy: it would also remove friend",
            "failed to remove package:base: it would also remove friend",
            "failed to install package:impossible: ",
            "nothing provides nowhere-to-be-had",
            "failed to install package:no-such-package: no package is called 'no-such-package'",
        ] {
            assert!(errors.contains(words), "{dnf} {words}: {errors}");
        }
        assert_eq!(installed(&scene, "good"), "1.0-1", "{dnf}");
        assert_eq!(installed(&scene, "friend"), "1.0-1", "{dnf}");
        assert_eq!(installed(&scene, "base"), "1.0-1", "{dnf}");
        assert_eq!(installed(&scene, "enemy"), "none", "{dnf}");
    }
}

#[test]
fn several_versions_of_one_package_are_understood() {
    let packages = ["1.0", "2.0"].map(|version| Rpm {
        preamble: "Provides: installonlypkg(kernel)",
        ..Rpm::new("kernel-for-tests", version)
    });
    for variant in VARIANTS {
        let dnf = variant.1;
        let (scene, _repository) = scene("rpm-kernels", variant, &packages);
        let machine = &scene.machine;
        machine.sh(&format!("{dnf} -q -y install kernel-for-tests-1.0"));
        scene.apply("[package]\nkernel-for-tests = { version = \"2.0\" }\n");
        assert_eq!(
            installed(&scene, "kernel-for-tests"),
            "1.0-1 2.0-1",
            "{dnf}"
        );
        // The older one is there as well: nothing to do.
        scene.apply("[package]\nkernel-for-tests = { version = \"1.0\" }\n");
        assert_eq!(
            installed(&scene, "kernel-for-tests"),
            "1.0-1 2.0-1",
            "{dnf}"
        );
        scene.apply("[package]\nkernel-for-tests = \"absent\"\n");
        assert_eq!(installed(&scene, "kernel-for-tests"), "none", "{dnf}");
    }
}

#[test]
fn a_cycle_without_changes_asks_rpm_nothing() {
    for variant in VARIANTS {
        let dnf = variant.1;
        let (scene, _repository) = scene("rpm-quiet", variant, &[Rpm::new("tool", "1.0")]);
        let machine = &scene.machine;
        // Every run of rpm is a line, whoever runs it.
        machine.sh("mv /usr/bin/rpm /usr/bin/rpm.real
             printf '#!/bin/sh\\necho \"$@\" >>/var/log/rpm-runs\\nexec /usr/bin/rpm.real \"$@\"\\n' >/usr/bin/rpm
             chmod 0755 /usr/bin/rpm");
        scene.apply("[package]\ntool = \"installed\"\n");
        // What changed a moment ago is not yet known to be quiet.
        std::thread::sleep(Duration::from_secs(4));
        scene.sync().success();
        let runs = || machine.read_file("/var/log/rpm-runs");
        let before = runs();
        assert!(before.contains("-qa --queryformat"), "{dnf} {before}");
        for _ in 0..3 {
            scene.sync().success();
        }
        assert_eq!(runs(), before, "{dnf}");
        // And what somebody does behind its back is seen.
        machine.sh(&format!("{dnf} -q -y remove tool"));
        scene.sync().success();
        assert_eq!(installed(&scene, "tool"), "1.0-1", "{dnf}");
    }
}

#[test]
fn an_installation_by_dnf_survives_the_death_of_the_agent() {
    for variant in VARIANTS {
        let slow = Rpm {
            post: "echo configuring >> /var/log/slow-post; sleep 8; echo configured >> /var/log/slow-post",
            ..Rpm::new("slow", "1.0")
        };
        let (scene, _repository) = scene("rpm-adopt", variant, &[slow]);
        let machine = &scene.machine;
        scene.declare("[package]\nslow = \"installed\"\n");
        machine.run(&["limpet", "sync"]).success();
        wait_until("the package's script", SOON, || {
            machine.exists("/var/log/slow-post").then_some(())
        });
        machine.kill("limpet.service");
        wait_until("the end of the installation", SOON, || {
            machine
                .read_file("/var/log/slow-post")
                .contains("configured")
                .then_some(())
        });
        scene.converge();
        assert_eq!(
            machine.read_file("/var/log/slow-post"),
            "configuring\nconfigured\n"
        );
        assert_eq!(installed(&scene, "slow"), "1.0-1");
    }
}

#[test]
fn a_declared_repository_of_dnf_is_used_with_its_key_and_no_other() {
    for variant in VARIANTS {
        let dnf = variant.1;
        let (scene, repository) = scene("rpm-signed", variant, &[Rpm::new("tool", "1.0")]);
        let machine = &scene.machine;
        let key = repository.sign();
        repository.copy_to(machine);
        machine.sh("rm /etc/yum.repos.d/tests.repo");
        let other = RpmRepository::new(&[]).sign();
        let layer = "[repository.ours]\ndnf = { baseurl = \"file:///srv/rpm\", key = \"ours.asc\" }\n\n[package]\ntool = \"installed\"\n";
        scene.repository.write("layers/base/files/ours.asc", &other);
        scene.declare(layer);
        assert_eq!(scene.sync().code(), 1, "{dnf}");
        assert_eq!(installed(&scene, "tool"), "none", "{dnf}");
        scene.repository.write("layers/base/files/ours.asc", &key);
        scene.apply(layer);
        assert_eq!(installed(&scene, "tool"), "1.0-1", "{dnf}");
        scene.apply("");
        assert_eq!(installed(&scene, "tool"), "none", "{dnf}");
        assert!(!machine.exists("/etc/yum.repos.d/ours.repo"), "{dnf}");
    }
}

/// Waits until that version of limpet runs and the host is in `state`.
#[track_caller]
fn reaches(scene: &Scene, revision: &str, state: &str, version: &str) {
    wait_until(&format!("{state} with {version}"), PATIENCE, || {
        let asked = ["timeout", "5", "limpet", "status", "--json"];
        let status: serde_json::Value =
            serde_json::from_str(&scene.machine.run(&asked).stdout).ok()?;
        let is_there = status["state"] == state
            && status["revision"] == revision
            && !status["conditions"].to_string().contains("agent-down");
        (is_there && installed(scene, "limpet") == format!("{version}-1")).then_some(())
    });
}

#[test]
fn limpet_is_upgraded_by_dnf_and_a_version_that_does_not_work_is_taken_back() {
    for variant in VARIANTS {
        let dnf = variant.1;
        let (scene, repository) = scene("rpm-itself", variant, &[]);
        let machine = &scene.machine;
        let exits = "printf '#!/bin/sh\\nexit 1\\n' > limpet; chmod 755 limpet";
        rpm_repository::changed("99.0.0", repository.directory(), "echo marked >> limpet");
        rpm_repository::changed("99.1.0", repository.directory(), exits);
        repository.copy_to(machine);
        let ask_for = |version: &str| {
            let revision = scene.declare(&format!(
                "[file.\"/etc/beside\"]\ncontent = \"{version}\\n\"\n\n[package]\nlimpet = {{ version = \"{version}\", allow_downgrade = true }}\n"
            ));
            machine.run(&["limpet", "sync"]).success();
            revision
        };
        let up = ask_for("99.0.0");
        reaches(&scene, &up, "converged", "99.0.0");
        // It has ended a cycle and reached its source: now it is the one to go back to.
        scene.converge();
        machine.sh("cmp /usr/bin/limpet /var/lib/limpet/previous/limpet");

        let broken = ask_for("99.1.0");
        reaches(&scene, &broken, "held", "99.0.0");
        assert_eq!(machine.read_file("/etc/beside"), "99.1.0\n", "{dnf}");
        let told = errors(&scene);
        assert!(
            told.contains("99.1.0") && told.contains("sync --retry"),
            "{dnf} {told}"
        );
        assert_eq!(scene.sync().code(), 1, "{dnf}");
        assert_eq!(installed(&scene, "limpet"), "99.0.0-1", "{dnf}: it is held");
        // One package, once, and nothing half done.
        machine.sh("rpm -V limpet");
        assert_eq!(machine.sh("systemctl --failed --quiet"), "", "{dnf}");

        let down = ask_for(env!("CARGO_PKG_VERSION"));
        reaches(&scene, &down, "converged", env!("CARGO_PKG_VERSION"));
    }
}

#[test]
fn a_host_that_runs_from_an_image_is_refused_its_packages_and_nothing_else() {
    let (scene, _repository) = scene("rpm-ostree", VARIANTS[0], &[Rpm::new("tool", "1.0")]);
    scene.machine.sh("touch /run/ostree-booted");
    scene.declare("[package]\ntool = \"installed\"\n\n[file.\"/etc/other\"]\ncontent = \"x\"\n");
    assert_eq!(scene.sync().code(), 1);
    let errors = errors(&scene);
    assert!(
        errors.contains("this host runs from an image, by rpm-ostree or bootc"),
        "{errors}"
    );
    assert_eq!(installed(&scene, "tool"), "none");
    assert!(scene.machine.exists("/etc/other"));
}
