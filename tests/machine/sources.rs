//! Sources of every kind, enrolled with one command and followed by the real units in their sandbox.

use std::path::Path;
use std::process::Command;

use crate::fixture::git_server::TOKEN;
use crate::fixture::machine::{Machine, Output, wait_until};
use crate::fixture::repository::Repository;
use crate::fixture::ssh_server::SshServer;
use crate::scene::{SOON, Scene};

const FIRST: &str = "[file.\"/etc/scene\"]\ncontent = \"first\\n\"\n";
const SECOND: &str = "[file.\"/etc/scene\"]\ncontent = \"second\\n\"\n";

/// Enrols the machine with `url` and `options`, and the repository's head as the anchor.
fn enroll(scene: &Scene, url: &str, options: &[&str]) -> Output {
    let anchor = scene.head();
    let arguments = [
        &["limpet", "enroll", url, "--anchor", &anchor][..],
        &["--allowed-signers", "/root/allowed_signers"],
        &["--name", "scene", "--yes"],
        options,
    ];
    scene.machine.run(&arguments.concat())
}

/// Expects the machine to have enrolled with its eyes open, to converge, and to follow the next commit.
fn follows(scene: &Scene, enrolled: Output, publish: impl Fn()) {
    assert_eq!(enrolled.code(), 0, "{enrolled:?}");
    assert!(!enrolled.stderr.contains("warning"), "{enrolled:?}");
    scene.converge();
    assert_eq!(scene.machine.read_file("/etc/scene"), "first\n");
    let verified = scene.machine.run(&["limpet", "verify"]).success();
    assert!(verified.starts_with("accepted"), "{verified}");

    scene.declare(SECOND);
    publish();
    scene.converge();
    assert_eq!(scene.machine.read_file("/etc/scene"), "second\n");
}

/// Debian's own package of ssh with what it needs, as apt here can fetch it: the machine has no lists.
fn install_ssh(machine: &Machine) {
    let directory = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let closure = run(
        "apt-cache",
        &[
            "depends",
            "--recurse",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
            "--no-replaces",
            "--no-enhances",
            "--installed",
            "openssh-client",
        ],
    );
    let there = machine.sh("dpkg-query -W -f '${Package}\\n'");
    let there: Vec<&str> = there.lines().collect();
    let missing: Vec<&str> = closure
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()))
        .map(|name| name.split(':').next().unwrap_or(name))
        .filter(|name| !there.contains(name))
        .collect();
    assert!(missing.contains(&"openssh-client"), "{missing:?}");
    run("apt-get", &[&["download", "-q"], &missing[..]].concat());
    for entry in std::fs::read_dir(directory.path()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let package = std::fs::read(entry.path()).unwrap();
        machine.write_file(&format!("/root/debs/{name}"), package);
    }
    machine.sh("DEBIAN_FRONTEND=noninteractive dpkg -i /root/debs/*.deb 2>&1");
}

#[test]
fn a_source_over_ssh_is_enrolled_and_followed() {
    let scene = Scene::prepared("ssh", FIRST);
    let machine = &scene.machine;
    let server = SshServer::start();
    let url = server.url(&scene.repository.server());
    machine.write_file("/root/deploy_key", server.key());
    machine.write_file("/root/known_hosts", server.known_host());
    let options = ["--ssh-key", "/root/deploy_key"];

    // What is missing is said, one after the other, and nothing is written.
    let enrolled = enroll(&scene, &url, &options);
    assert_eq!(enrolled.code(), 1, "{enrolled:?}");
    assert!(
        enrolled.stderr.contains("apt install openssh-client"),
        "{enrolled:?}"
    );
    install_ssh(machine);
    let enrolled = enroll(&scene, &url, &options);
    assert_eq!(enrolled.code(), 1, "{enrolled:?}");
    let scan = format!("ssh-keyscan -p {} 127.0.0.1", server.port);
    assert!(enrolled.stderr.contains(&scan), "{enrolled:?}");
    assert!(!machine.exists("/etc/limpet/limpet.toml"));

    let both = [&options[..], &["--known-hosts", "/root/known_hosts"]].concat();
    follows(&scene, enroll(&scene, &url, &both), || {});
    assert_eq!(
        machine.ownership("/etc/limpet/git-ssh-key"),
        "root:root 600"
    );
    assert!(!machine.exists("/run/limpet/enroll-known_hosts"));
    wait_until("no ssh is left", SOON, || {
        let running = machine.sh("cat /proc/[0-9]*/comm 2>/dev/null || true");
        (!running.lines().any(|name| name == "ssh")).then_some(())
    });

    // A server that shows another key is not asked anything.
    machine.write_file("/etc/limpet/known_hosts", server.wrong_host());
    let sync = scene.sync();
    assert_ne!(sync.code(), 0, "{sync:?}");
    let status = machine.run(&["limpet", "status"]);
    assert!(status.stdout.contains("another host key"), "{status:?}");
}

#[test]
fn a_bundle_of_a_sha256_repository_is_enrolled_and_followed() {
    let scene = Scene::prepared_in("bundle", FIRST, Repository::with_object_format("sha256"));
    let machine = &scene.machine;
    let bundle = |revisions: &str| {
        let path = scene.repository.directory().join("new.bundle");
        let text = path.to_str().unwrap();
        scene
            .repository
            .git(&["bundle", "create", "-q", text, revisions]);
        put(machine, &path, "/srv/fleet.bundle");
    };
    bundle("main");
    let anchor = scene.head();
    let enrolled = enroll(&scene, "/srv/fleet.bundle", &[]);
    // The second holds only what is new.
    follows(&scene, enrolled, || bundle(&format!("{anchor}..main")));
    assert_eq!(scene.status()["revision"].as_str().unwrap().len(), 64);
}

/// Puts a file in place of another, as a careful copy does.
fn put(machine: &Machine, from: &Path, to: &str) {
    machine.write_file(&format!("{to}.new"), std::fs::read(from).unwrap());
    machine.sh(&format!("chmod 644 {to}.new && mv {to}.new {to}"));
}

#[test]
fn a_private_source_is_enrolled_with_its_token_and_followed() {
    let scene = Scene::prepared_in("token", FIRST, Repository::with_object_format("sha256"));
    let machine = &scene.machine;
    let server = scene.server.as_ref().unwrap();
    let url = format!("{}/private/server.git", server.url);
    let ca = ["--ca-file", "/root/ca.pem"];
    let refused = enroll(&scene, &url, &ca);
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(refused.stderr.contains("wants credentials"), "{refused:?}");

    machine.write_file("/root/token", TOKEN);
    let with_token = [&ca[..], &["--token", "/root/token", "--username", "oauth2"]].concat();
    follows(&scene, enroll(&scene, &url, &with_token), || {});
    assert_eq!(machine.ownership("/etc/limpet/git-token"), "root:root 600");
    let shown = machine.sh("cat /etc/limpet/limpet.toml; journalctl --no-pager -u 'limpet*'");
    assert!(!shown.contains(TOKEN), "{shown}");

    // Purging leaves nothing of it.
    machine.sh("DEBIAN_FRONTEND=noninteractive apt-get -q -y purge limpet 2>&1");
    for path in ["/etc/limpet", "/etc/systemd/system/limpet-fetch.service.d"] {
        assert!(!machine.exists(path), "{path}");
    }
}

/// systemd's sandbox leaves homes readable for whose repository is in one. The fetcher gives up what its configuration does not name.
#[test]
fn a_fetcher_reads_what_its_configuration_names_and_nothing_else() {
    let scene = Scene::prepared("confined", FIRST);
    let machine = &scene.machine;
    machine.sh("mkdir -m 755 /srv/fleet /home/somebody");
    let bundle = |to: &str| {
        let path = scene.repository.directory().join("new.bundle");
        let text = path.to_str().unwrap();
        scene
            .repository
            .git(&["bundle", "create", "-q", text, "main"]);
        put(machine, &path, to);
    };
    bundle("/srv/fleet/fleet.bundle");
    let enrolled = enroll(&scene, "/srv/fleet/fleet.bundle", &[]);
    follows(&scene, enrolled, || bundle("/srv/fleet/fleet.bundle"));

    scene.declare(FIRST);
    bundle("/home/somebody/other.bundle");
    machine.sh(
        "setpriv --reuid limpet --clear-groups cat /home/somebody/other.bundle > /dev/null
        ln -sf /home/somebody/other.bundle /srv/fleet/fleet.bundle",
    );
    let sync = scene.sync();
    assert_eq!(sync.code(), 75, "{sync:?}");
    assert!(sync.stderr.contains("Permission denied"), "{sync:?}");
    assert_eq!(machine.read_file("/etc/scene"), "second\n");

    // What is named may be read wherever it is.
    machine.write_file(
        "/etc/limpet/limpet.toml.d/mirror.toml",
        "[source]\nmirrors = [\"/home/somebody/other.bundle\"]\n",
    );
    machine.sh("systemctl reload limpet.service");
    scene.converge();
    assert_eq!(machine.read_file("/etc/scene"), "first\n");
}
