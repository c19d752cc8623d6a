//! Repositories of packages that the fleet declares, with real signatures, and what is refused of what is in them.

use crate::fixture::apt_repository::{AptRepository, Package};
use crate::scene::Scene;

/// A machine whose apt knows no source at all.
fn scene(label: &str) -> Scene {
    let scene = Scene::prepared(label, "");
    scene.machine.sh(
        "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /var/lib/apt/lists/*; apt-get -q update",
    );
    scene.enroll().success();
    scene.converge();
    scene
}

/// `[repository.NAME]` in the directory of the same name, signed by the key of the same name.
fn declared(name: &str) -> String {
    format!(
        "[repository.{name}]\napt = {{ uris = [\"file:/srv/{name}\"], suites = [\"./\"], key = \"{name}.asc\" }}\n"
    )
}

/// Copies a repository of `packages` into the machine as `/srv/NAME`, and its key into the fleet.
fn publish(scene: &Scene, name: &str, packages: &[Package]) -> AptRepository {
    let repository = AptRepository::new(packages);
    repository.copy_files_to(&scene.machine, &format!("/srv/{name}"));
    let key = format!("layers/base/files/{name}.asc");
    scene.repository.write(&key, &repository.key());
    repository
}

#[test]
fn a_package_comes_from_a_repository_declared_in_the_same_commit() {
    let scene = scene("repository");
    let machine = &scene.machine;
    let repository = publish(&scene, "tests", &[Package::new("tool", "1.0")]);
    let layer = format!("{}[package]\ntool = \"installed\"\n", declared("tests"));
    scene.apply(&layer);
    assert!(machine.exists("/usr/share/tool/version"));
    let fingerprint = repository.fingerprint();
    let why = machine.sh("limpet why repository:tests");
    assert!(why.contains(&fingerprint), "{why}");

    // Drift, which the plan shows with the fingerprint that is to be trusted.
    machine.sh("rm /etc/apt/sources.list.d/tests.sources /etc/apt/keyrings/tests.gpg");
    let plan = machine.run(&["limpet", "plan"]);
    assert_eq!(plan.code(), 2, "{plan:?}");
    assert!(plan.stdout.contains(&fingerprint), "{}", plan.stdout);
    scene.converge();
    machine.sh("echo 'Trusted: yes' >> /etc/apt/sources.list.d/tests.sources");
    scene.converge();
    let sources = machine.read_file("/etc/apt/sources.list.d/tests.sources");
    assert!(!sources.contains("Trusted"), "{sources}");
    machine.sh("rm -rf /var/lib/apt/lists/*; apt-get -q update -o APT::Update::Error-Mode=any");

    // Another key is another file, and what was there before comes back.
    machine.write_file("/etc/apt/sources.list.d/other.sources", "# theirs\n");
    publish(&scene, "other", &[Package::new("gadget", "1.0")]);
    scene.apply(&format!(
        "{layer}gadget = \"installed\"\n{}",
        declared("other")
    ));
    assert!(machine.exists("/usr/share/gadget/version"));
    scene.apply("");
    assert_eq!(
        machine.sh("ls -A /etc/apt/keyrings /etc/apt/preferences.d"),
        "/etc/apt/keyrings:\n\n/etc/apt/preferences.d:\n"
    );
    assert_eq!(machine.sh("cat /etc/apt/sources.list.d/*"), "# theirs\n");
    assert!(!machine.exists("/usr/share/tool/version"));
}

#[test]
fn a_repository_without_a_key_is_the_operator_s_to_allow() {
    let scene = scene("unsigned");
    let machine = &scene.machine;
    publish(&scene, "tests", &[Package::new("tool", "1.0")]);
    machine.sh("rm /srv/tests/InRelease /srv/tests/Release");
    let layer = "[repository.tests]\napt = { uris = [\"file:/srv/tests\"], suites = [\"./\"] }\n[package]\ntool = \"installed\"\n";
    scene.declare(layer);
    assert_eq!(scene.sync().code(), 65);
    assert!(!machine.exists("/etc/apt/sources.list.d/tests.sources"));
    let errors = scene.status()["errors"].to_string();
    assert!(errors.contains("allow_unsigned_repositories"), "{errors}");

    machine.write_file(
        "/etc/limpet/limpet.toml.d/unsigned.toml",
        "[apply]\nallow_unsigned_repositories = true\n",
    );
    machine.sh("systemctl reload limpet.service");
    scene.converge();
    assert!(machine.exists("/usr/share/tool/version"));
}

/// How often apt fetched lists since `cursor`.
fn fetches(scene: &Scene, cursor: &str) -> usize {
    let lines = scene.machine.sh(&format!(
        "journalctl -o cat --after-cursor='{cursor}' | grep 'Starting limpet-.*apt-get.*update' || true"
    ));
    lines.lines().count()
}

#[test]
fn a_repository_that_fails_is_named_and_stops_nothing_else() {
    let scene = scene("failing");
    let machine = &scene.machine;
    publish(
        &scene,
        "good",
        &[Package::new("tool", "1.0"), Package::new("gadget", "1.0")],
    );
    let forged = publish(&scene, "forged", &[Package::new("evil", "1.0")]);
    // Signed by another than the one declared.
    scene.repository.write(
        "layers/base/files/forged.asc",
        &publish(&scene, "other", &[]).key(),
    );
    let layer = format!(
        "{}{}[repository.away]\napt = {{ uris = [\"http://127.0.0.1:9/debian\"], suites = [\"./\"], key = \"good.asc\" }}\n\
         [package]\ntool = \"installed\"\nevil = \"installed\"\n\
         [package.gadget]\nstate = \"installed\"\nneeds = [\"repository:away\"]\n",
        declared("good"),
        declared("forged"),
    );
    scene.declare(&layer);
    assert_eq!(scene.sync().code(), 1);
    assert!(machine.exists("/usr/share/tool/version"));
    assert!(!machine.exists("/usr/share/evil/version"));
    assert!(
        !machine.exists("/usr/share/gadget/version"),
        "it needs the one that fails"
    );
    let status = scene.status();
    let errors = status["errors"].as_array().unwrap();
    let of = |resource: &str| {
        let error = errors.iter().find(|error| error["resource"] == resource);
        error.unwrap_or_else(|| panic!("{resource}: {errors:#?}"))
    };
    assert!(
        of("repository:forged")["message"]
            .to_string()
            .contains("NO_PUBKEY")
    );
    assert!(
        of("repository:forged")["hint"]
            .to_string()
            .contains("another key")
    );
    assert!(
        of("repository:away")["message"]
            .to_string()
            .contains("Could not connect")
    );
    assert!(
        of("package:evil")["message"]
            .to_string()
            .contains("no package is called")
    );
    of("package:gadget");

    // The right key, and the other one is given up.
    scene
        .repository
        .write("layers/base/files/forged.asc", &forged.key());
    let layer = format!(
        "{}{}[package]\ntool = \"installed\"\nevil = \"installed\"\ngadget = \"installed\"\n",
        declared("good"),
        declared("forged"),
    );
    scene.apply(&layer);
    assert!(machine.exists("/usr/share/evil/version"));
    assert!(machine.exists("/usr/share/gadget/version"));
}

#[test]
fn lists_are_fetched_when_they_are_wanted_and_never_by_a_cycle_without_changes() {
    let scene = scene("lists");
    let machine = &scene.machine;
    let repository = publish(&scene, "tests", &[Package::new("tool", "1.0")]);
    let mut layer = declared("tests");
    let cursor = machine.journal_cursor();
    scene.apply(&layer);
    assert_eq!(fetches(&scene, &cursor), 1, "the repository is new");

    let cursor = machine.journal_cursor();
    layer.push_str("[package]\ntool = \"installed\"\n");
    scene.apply(&layer);
    assert_eq!(
        fetches(&scene, &cursor),
        0,
        "it is known, and the lists are fresh"
    );

    repository.publish(&[Package::new("late", "1.0"), Package::new("old", "1.0")]);
    repository.copy_files_to(machine, "/srv/tests");
    // Of a repository in a directory apt keeps no copy, so that its lists are never old.
    machine.sh("rm /var/lib/apt/lists/*srv_tests*");
    let cursor = machine.journal_cursor();
    layer.push_str("late = \"installed\"\n");
    scene.apply(&layer);
    assert_eq!(fetches(&scene, &cursor), 1, "it was not known");
    assert!(machine.exists("/usr/share/late/version"));

    machine.sh("touch -d '2 days ago' /var/lib/apt/lists /var/lib/apt/lists/partial; rm -rf /var/lib/apt/periodic");
    let cursor = machine.journal_cursor();
    scene.sync().success();
    scene.sync().success();
    let ran = machine.sh(&format!(
        "journalctl -o cat --after-cursor='{cursor}' | grep -E 'apt|dpkg' || true"
    ));
    assert_eq!(ran, "", "nothing is to be installed");
    layer.push_str("old = \"installed\"\n");
    scene.apply(&layer);
    assert_eq!(fetches(&scene, &cursor), 1, "the lists were old");
}

#[test]
fn what_a_transaction_would_do_beside_what_is_declared_is_refused_by_name_and_the_rest_goes_on() {
    let scene = scene("beside");
    let machine = &scene.machine;
    let packages = [
        Package::new("tool", "1.0"),
        Package::new("tool", "2.0"),
        Package::new("unwanted", "1.0"),
        Package::new("gadget", "1.0"),
        Package {
            depends: "tool (>= 2.0)",
            ..Package::new("needs-newer", "1.0")
        },
        Package {
            depends: "unwanted",
            ..Package::new("needs-unwanted", "1.0")
        },
        Package {
            depends: "no-such-package",
            ..Package::new("needs-nothing-there", "1.0")
        },
        Package {
            fields: "Conflicts: tool\n",
            ..Package::new("rival", "1.0")
        },
        Package {
            fields: "Conflicts: systemd\n",
            ..Package::new("hostile", "1.0")
        },
    ];
    publish(&scene, "tests", &packages);
    let base = format!(
        "{}[package]\ntool = {{ version = \"1.0\", allow_downgrade = true }}\nunwanted = \"absent\"\n",
        declared("tests")
    );
    scene.apply(&base);
    assert_eq!(machine.read_file("/usr/share/tool/version"), "1.0\n");

    scene.declare(&format!(
        "{base}gadget = \"installed\"\nneeds-newer = \"installed\"\nneeds-unwanted = \"installed\"\n\
         needs-nothing-there = \"installed\"\nrival = \"installed\"\nhostile = \"installed\"\nno-such = \"installed\"\n"
    ));
    assert_eq!(scene.sync().code(), 1);
    assert!(
        machine.exists("/usr/share/gadget/version"),
        "the possible one"
    );
    assert_eq!(machine.read_file("/usr/share/tool/version"), "1.0\n");
    let status = scene.status();
    let errors = status["errors"].as_array().unwrap();
    for (package, expected) in [
        (
            "needs-newer",
            "it would also install tool 2.0, which is declared in version 1.0",
        ),
        (
            "needs-unwanted",
            "it would also install unwanted, which is declared absent",
        ),
        (
            "needs-nothing-there",
            "Depends: no-such-package but it is not installable",
        ),
        ("rival", "it would also remove tool"),
        ("hostile", "(the init system)"),
        ("no-such", "no package is called 'no-such'"),
    ] {
        let id = format!("package:{package}");
        let error = errors.iter().find(|error| error["resource"] == id.as_str());
        let error = error.unwrap_or_else(|| panic!("{id}: {errors:#?}"));
        assert!(error["message"].to_string().contains(expected), "{error:#}");
        assert!(!machine.exists(&format!("/usr/share/{package}/version")));
    }
    assert_eq!(errors.len(), 6, "{errors:#?}");
    assert_eq!(machine.sh("dpkg --audit"), "");
    scene.apply(&format!("{base}gadget = \"installed\"\n"));
}

#[test]
fn a_configuration_file_that_was_changed_here_stays_and_a_reverted_commit_reverts_the_version() {
    let scene = scene("kept-files");
    let machine = &scene.machine;
    let app = |version| Package {
        has_configuration: true,
        ..Package::new("app", version)
    };
    publish(&scene, "tests", &[app("1.0"), app("2.0")]);
    let layer = |version: &str| {
        format!(
            "{}[package]\napp = {{ version = \"{version}\", allow_downgrade = true }}\n",
            declared("tests")
        )
    };
    scene.apply(&layer("1.0"));
    machine.write_file("/etc/app.conf", "mine\n");
    scene.apply(&layer("2.0"));
    assert_eq!(machine.read_file("/etc/app.conf"), "mine\n");
    assert_eq!(machine.read_file("/etc/app.conf.dpkg-dist"), "2.0\n");
    let journal = machine.sh("journalctl -o cat -t limpet");
    assert!(
        journal.contains("package:app: kept '/etc/app.conf' as it was changed on this host"),
        "{journal}"
    );
    let why = machine.sh("limpet why app");
    assert!(why.contains("/etc/app.conf.dpkg-dist"), "{why}");

    scene.repository.revert(&scene.alice, "HEAD");
    scene.repository.push();
    scene.converge();
    assert_eq!(machine.read_file("/usr/share/app/version"), "1.0\n");
    assert_eq!(machine.read_file("/etc/app.conf"), "mine\n");
}

#[test]
fn who_holds_the_lock_of_the_lists_is_named() {
    let scene = scene("lists-lock");
    let machine = &scene.machine;
    publish(&scene, "tests", &[Package::new("tool", "1.0")]);
    machine.sh("systemd-run --quiet --unit=holder perl -e 'use Fcntl; open(F, \">>\", \"/var/lib/apt/lists/lock\"); \
                $l = pack(\"s s l! l! i\", F_WRLCK, 0, 0, 0, 0); fcntl(F, F_SETLK, $l) or die; sleep 600'");
    scene.declare(&format!(
        "{}[package]\ntool = \"installed\"\n",
        declared("tests")
    ));
    scene.sync();
    let errors = scene.status()["errors"].to_string();
    let holder = machine.main_pid("holder.service");
    assert!(
        errors.contains(&format!("process {holder} (perl) holds the lock")),
        "{errors}"
    );
    machine.sh("systemctl stop holder.service");
    scene.converge();
    assert!(machine.exists("/usr/share/tool/version"));
}
