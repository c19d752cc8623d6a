//! A machine that is prepared before its first boot: a fleet is applied to the directory of an image, with the package's own program.

use std::path::Path;
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
    let directory = TempDir::new_in(concat!(env!("CARGO_MANIFEST_DIR"), "/target")).unwrap();
    let root = directory.path().join("image");
    let base = output_of(
        Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/machine")).arg("base"),
    );
    let base = base.success();
    sh(&root, &format!("cp -a '{}' \"$1\"", base.trim())).success();
    std::fs::copy(package::built(), root.join("root/limpet.deb")).unwrap();
    sh(
        &root,
        "rm -rf \"$1\"/etc/apt/sources.list \"$1\"/etc/apt/sources.list.d/*
         SYSTEMD_OFFLINE=1 chroot \"$1\" dpkg --install /root/limpet.deb",
    )
    .success();
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
    wait_until("the agent's first cycle", SOON, || {
        let status = machine.run(&["limpet", "status", "--exit-code"]);
        status.status.success().then_some(())
    });
    assert!(machine.is_active("gate.service"));
    assert!(machine.exists("/usr/share/tool/version"));
    assert_eq!(machine.read_file("/var/lib/noted"), "declared\n");
    assert_eq!(machine.ownership("/etc/gate.conf"), "root:gate 640");
    let status = machine.run(&["limpet", "status", "--json"]).success();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["revision"], scene.head().as_str(), "{status:#}");
}
