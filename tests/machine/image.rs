//! Machines that are there before anybody could log in: images that a fleet is applied to, and machines that enrol themselves.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::fixture::apt_repository::{AptRepository, Package};
use crate::fixture::machine::{Machine, Network, Output, output_of, wait_until};
use crate::fixture::package;
use crate::scene::{SOON, Scene};

const LAYER: &str = r#"
[repository.tests]
apt = { uris = ["file:/srv/tests"], suites = ["./"], key = "tests.asc" }

[package]
tool = "installed"

[group.gate]
system = true

[user.gate]
system = true
group  = "gate"
home   = "/var/lib/gate"

[file."/etc/gate.conf"]
content = "declared\n"
group   = "gate"
mode    = "0640"

[unit."gate.service"]
content = """
[Service]
User=gate
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""
enabled    = true
running    = true
restart_on = ["file:/etc/gate.conf"]

[unit."dpkg-db-backup.timer"]
masked  = true
running = false

[command.note]
command = ["/bin/sh", "-c", "cat /etc/gate.conf > /var/lib/noted"]
run_on  = ["file:/etc/gate.conf"]
"#;

/// Runs a script of this computer's shell with the image's directory as `$1`.
fn sh(root: &Path, commands: &str) -> Output {
    let mut shell = Command::new("/bin/sh");
    output_of(shell.args(["-euc", commands, "sh"]).arg(root))
}

/// The root file system of a machine that has the package and was never booted.
fn image() -> (TempDir, PathBuf) {
    let directory = TempDir::new_in(concat!(env!("CARGO_MANIFEST_DIR"), "/target")).unwrap();
    let root = directory.path().join("image");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/machine");
    let base = output_of(Command::new(script).arg("base")).success();
    sh(&root, &format!("cp -a '{}' \"$1\"", base.trim())).success();
    std::fs::copy(package::built(), root.join("root/limpet.deb")).unwrap();
    sh(
        &root,
        "rm -rf \"$1\"/etc/apt/sources.list \"$1\"/etc/apt/sources.list.d/*
         SYSTEMD_OFFLINE=1 chroot \"$1\" dpkg --install /root/limpet.deb",
    )
    .success();
    (directory, root)
}

/// Waits until the agent has done all by itself, from its first start on.
fn first_cycle(machine: &Machine) {
    wait_until("the first cycle", SOON, || {
        let status = machine.run(&["limpet", "status", "--exit-code"]);
        status.status.success().then_some(())
    });
}

/// The text of `config/day-zero/NAME` with this scene's values for what a reader replaces.
fn snippet(scene: &Scene, name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/day-zero");
    let text = std::fs::read_to_string(path.join(name)).unwrap();
    let allowed = scene.alice.allowed();
    [
        (
            "alice@example.net namespaces=\"git\" THE KEY OF ALICE",
            allowed.trim_end(),
        ),
        ("https://git.example.net/fleet.git", &scene.url()),
        ("COMMIT,", &format!("{},", scene.head())),
        ("COMMIT --", &format!("{} --", scene.head())),
    ]
    .into_iter()
    .fold(text, |text, (word, value)| {
        if !word.starts_with("COMMIT") {
            assert!(text.contains(word), "{word} in {name}");
        }
        text.replace(word, value)
    })
}

#[test]
fn a_machine_enrols_itself_by_cloud_init_at_its_first_boot() {
    let scene = Scene::prepared(
        "cloud",
        "[file.\"/etc/scene\"]\ncontent = \"declared\\n\"\n",
    );
    let repository = AptRepository::new(&[]);
    repository.add(&package::built());
    let machine = Machine::start("new");
    machine.sh("apt-get -q update >/dev/null
         DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends cloud-init >/dev/null");
    repository.copy_files_to(&machine, "/srv/apt");
    machine.write_file("/root/ca.pem", scene.machine.read_file("/root/ca.pem"));
    let key = repository.key();
    let indented: String = key.lines().map(|line| format!("      {line}\n")).collect();
    let data = snippet(&scene, "cloud-init.yaml")
        .replace("      THE PUBLIC KEY OF THE REPOSITORY\n", &indented)
        .replace("https://apt.example.net/limpet", "file:/srv/apt")
        // Servers outside have a certificate that everybody believes.
        .replace("--yes]", "--ca-file, /root/ca.pem, --yes]");
    machine.write_file("/var/lib/cloud/seed/nocloud/user-data", &data);
    machine.write_file(
        "/var/lib/cloud/seed/nocloud/meta-data",
        "instance-id: new\n",
    );
    let checked = machine.run(&[
        "cloud-init",
        "schema",
        "--config-file",
        "/var/lib/cloud/seed/nocloud/user-data",
    ]);
    assert_eq!(checked.code(), 0, "{checked:?}");
    // The modules that this is about; others miss what a machine of a cloud has.
    machine.write_file(
        "/etc/cloud/cloud.cfg.d/99-test.cfg",
        "datasource_list: [NoCloud]
cloud_init_modules: [write-files, set_hostname]
cloud_config_modules: [runcmd]
cloud_final_modules: [package-update-upgrade-install, scripts-user]
",
    );
    machine.sh("cloud-init init --local; cloud-init init
         cloud-init modules --mode=config; cloud-init modules --mode=final");
    first_cycle(&machine);
    assert!(machine.exists("/etc/scene"));
    let status = machine.sh("limpet status --json");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["host"], "web-1", "{status:#}");
    assert_eq!(status["revision"], scene.head().as_str(), "{status:#}");
}

#[test]
fn a_machine_is_enrolled_by_kickstart_while_it_is_installed() {
    let scene = Scene::prepared("kick", "[file.\"/etc/scene\"]\ncontent = \"declared\\n\"\n");
    let (_directory, root) = image();
    std::fs::copy(scene.machine.path("/root/ca.pem"), root.join("root/ca.pem")).unwrap();
    let text = snippet(&scene, "kickstart.cfg");
    let (_, script) = text.split_once("%post --erroronfail\n").unwrap();
    let (script, _) = script.split_once("%end").unwrap();
    let script = script.replace("--yes", "--ca-file /root/ca.pem --name scene --yes");
    std::fs::write(root.join("root/post"), script).unwrap();
    // As the installer does it: in the new system, which has /proc and no systemd.
    let post = "mount -t proc proc \"$1/proc\"; chroot \"$1\" /bin/sh -eu /root/post";
    let run = format!("unshare --mount /bin/sh -euc '{post}' sh \"$1\"");
    sh(&root, &run).success();
    let machine = Machine::start_over("kicked", Network::Shared, Some(&root));
    first_cycle(&machine);
    assert!(machine.exists("/etc/scene"));
}

#[test]
fn an_image_is_made_as_declared_and_goes_on_from_its_first_boot() {
    let scene = Scene::prepared("builder", "");
    let repository = AptRepository::new(&[Package::new("tool", "1.0")]);
    let key = "layers/base/files/tests.asc";
    scene.repository.write(key, &repository.key());
    scene.enroll().success();
    scene.converge();
    scene.declare(LAYER);

    // An image with the package, and with what `limpet enroll` wrote elsewhere.
    let (_directory, root) = image();
    repository.copy_files_into(&root.join("srv/tests"));
    std::fs::create_dir_all(root.join("etc/limpet")).unwrap();
    for file in ["limpet.toml", "allowed_signers", "ca.pem", "revoked"] {
        let path = format!("/etc/limpet/{file}");
        let copied = std::fs::copy(scene.machine.path(&path), root.join(&path[1..]));
        copied.unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    let program = root.join("usr/bin/limpet");
    let apply = || {
        let mut limpet = Command::new(&program);
        output_of(limpet.args(["apply", "--once", "--root"]).arg(&root))
    };
    let applied = apply();
    assert_eq!(applied.code(), 0, "{applied:?}");
    for word in ["converged", "alice@example.net"] {
        assert!(applied.stdout.contains(word), "{applied:?}");
    }
    // What runs is left to the first boot, and nothing is said to have been done about it.
    for word in ["daemon-reload", "start unit"] {
        assert!(!applied.stderr.contains(word), "{applied:?}");
    }
    let units = "systemctl --root=\"$1\" is-enabled gate.service dpkg-db-backup.timer || true";
    assert_eq!(sh(&root, units).success(), "enabled\nmasked\n");
    let again = apply();
    assert_eq!(again.code(), 0, "{again:?}");
    assert!(!again.stderr.contains("gate"), "{again:?}");

    // Undeclared, it is as it was: then it is declared again, and boots.
    scene.apply("");
    assert_eq!(apply().code(), 0);
    assert!(!root.join("etc/gate.conf").exists());
    assert_eq!(
        sh(
            &root,
            "systemctl --root=\"$1\" is-enabled dpkg-db-backup.timer"
        )
        .stdout,
        "enabled\n"
    );
    scene.declare(LAYER);
    assert_eq!(apply().code(), 0);

    let machine = Machine::start_over("image", Network::Shared, Some(&root));
    first_cycle(&machine);
    assert!(machine.is_active("gate.service"));
    assert!(machine.exists("/usr/share/tool/version"));
    assert_eq!(machine.read_file("/var/lib/noted"), "declared\n");
    assert_eq!(machine.ownership("/etc/gate.conf"), "root:gate 640");
    let status = machine.run(&["limpet", "status", "--json"]).success();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["revision"], scene.head().as_str(), "{status:#}");
}
