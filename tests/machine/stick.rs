//! Bundles on a stick: a file system of its own, on a device that the machine's systemd mounts.
//!
//! The machines have no udev, which would start the unit when the device comes: the test starts it in udev's place.

use std::path::Path;
use std::process::Command;

use crate::bad_days::status_says;
use crate::fixture::machine::{Machine, Network, Output, output_of, wait_until};
use crate::fixture::package;
use crate::fixture::repository::Repository;
use crate::scene::{LAYER, SOON, SUBJECT, Scene};

const FIRST: &str = "[file.\"/etc/scene\"]\ncontent = \"first\\n\"\n";
const SECOND: &str = "[file.\"/etc/scene\"]\ncontent = \"second\\n\"\n";
const THIRD: &str = "[file.\"/etc/scene\"]\ncontent = \"third\\n\"\n";
const BUNDLE: &str = "/run/limpet/stick/fleet.bundle";

/// A stick in a machine.
struct Stick<'a> {
    machine: &'a Machine,
    device: String,
}

impl<'a> Stick<'a> {
    /// Plugs in a stick with what `fill` puts into its directory.
    fn plug(machine: &'a Machine, fill: impl Fn(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (tree, image) = (
            directory.path().join("tree"),
            directory.path().join("image"),
        );
        std::fs::create_dir(&tree).unwrap();
        fill(&tree);
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(64 << 20).unwrap();
        let mut format = Command::new("mke2fs");
        format.args(["-q", "-F", "-t", "ext4", "-L", "LIMPET", "-d"]);
        output_of(format.arg(&tree).arg(&image)).success();
        Stick::of_image(machine, &image)
    }

    /// Plugs in a stick with these bytes.
    fn of_image(machine: &'a Machine, image: &Path) -> Self {
        let mut attach = Command::new("losetup");
        let device = output_of(attach.args(["--find", "--show"]).arg(image)).success();
        let device = device.trim().to_owned();
        let number = device.trim_start_matches("/dev/loop");
        // What udev does.
        machine.sh(&format!(
            "rm -f {device}; mknod {device} b 7 {number}; mkdir -p /dev/disk/by-label; ln -sf {device} /dev/disk/by-label/LIMPET"
        ));
        Stick { machine, device }
    }

    /// A stick with a bundle of `revisions`.
    fn with_bundle(machine: &'a Machine, repository: &Repository, revisions: &str) -> Self {
        Stick::plug(machine, |tree| {
            bundle(repository, revisions, &tree.join("fleet.bundle"))
        })
    }

    /// Lets the unit look, and expects the stick to be let go, whatever came of it.
    #[track_caller]
    fn look(&self) -> Output {
        let output = self
            .machine
            .run(&["systemctl", "start", "limpet-stick.service"]);
        wait_until("the stick to be let go", SOON, || {
            (!is_mounted(self.machine)).then_some(())
        });
        output
    }
}

impl Drop for Stick<'_> {
    fn drop(&mut self) {
        self.machine
            .sh(&format!("rm -f /dev/disk/by-label/LIMPET {}", self.device));
        output_of(Command::new("losetup").args(["--detach", &self.device])).success();
    }
}

fn is_mounted(machine: &Machine) -> bool {
    machine
        .sh("cat /proc/self/mounts")
        .contains(" /run/limpet/stick ")
}

fn bundle(repository: &Repository, revisions: &str, path: &Path) {
    repository.git(&["bundle", "create", "-q", path.to_str().unwrap(), revisions]);
}

/// Expects a look to fail and to say these words in the journal; the host goes on as it was.
#[track_caller]
fn fails(scene: &Scene, stick: &Stick<'_>, words: &str) {
    let looked = says(scene, stick, words);
    assert_ne!(looked.code(), 0, "{looked:?}");
}

/// Expects a look to say these words in the journal; the host goes on as it was.
#[track_caller]
fn says(scene: &Scene, stick: &Stick<'_>, words: &str) -> Output {
    let cursor = scene.machine.journal_cursor();
    let looked = stick.look();
    let entries = scene
        .machine
        .journal_after(&cursor, "_SYSTEMD_UNIT", "limpet-stick.service");
    let said = format!("{entries:#?}");
    assert!(said.contains(words), "'{words}' is not in {said}");
    assert_eq!(scene.machine.read_file("/etc/scene"), "second\n");
    looked
}

#[test]
fn a_host_without_a_network_lives_by_a_stick() {
    let machine = Machine::start_with("stick", Network::None);
    machine.install_deb(&package::built());
    let scene = Scene::prepared_on(machine, FIRST, Repository::new());
    let (machine, repository) = (&scene.machine, &scene.repository);
    let anchor = scene.head();

    // As the manual says: mounted by hand, once.
    let stick = Stick::with_bundle(machine, repository, "main");
    machine.sh("systemctl start run-limpet-stick.mount");
    let mounted = machine.sh("grep ' /run/limpet/stick ' /proc/self/mounts");
    assert!(mounted.contains(" ro,nosuid,nodev,noexec,"), "{mounted}");
    let arguments = [
        &["limpet", "enroll", BUNDLE, "--anchor", &anchor][..],
        &["--allowed-signers", "/root/allowed_signers"],
        &["--name", "scene", "--yes"],
    ];
    machine.run(&arguments.concat()).success();
    scene.converge();
    machine.sh("systemctl stop run-limpet-stick.mount; systemctl enable limpet-stick.service");
    drop(stick);
    let wanted =
        r"/etc/systemd/system/dev-disk-by\x2dlabel-LIMPET.device.wants/limpet-stick.service";
    assert!(machine.exists(wanted));

    // Without the stick the host goes on.
    assert_eq!(scene.sync().code(), 75);
    assert_eq!(scene.status()["state"], "converged");
    let waits = format!("no stick with '{BUNDLE}' is plugged in");
    status_says(&scene, "offline", &waits, "nobody");

    let old = repository.directory().join("old.bundle");
    bundle(repository, "main", &old);
    scene.declare(SECOND);
    let second = scene.head();
    let stick = Stick::with_bundle(machine, repository, "main");
    stick.look().success();
    assert_eq!(machine.read_file("/etc/scene"), "second\n");
    drop(stick);

    // A stick of long ago takes nothing back.
    let stick = Stick::plug(machine, |tree| {
        std::fs::copy(&old, tree.join("fleet.bundle")).unwrap();
    });
    says(&scene, &stick, "behind: ").success();
    drop(stick);

    // Nor does one of somebody else.
    repository.write(LAYER, THIRD);
    repository.commit(&scene.mallory, SUBJECT);
    let stick = Stick::with_bundle(machine, repository, "main");
    fails(&scene, &stick, "refused");
    assert_eq!(scene.status()["revision"], second.as_str());
    drop(stick);
    let other = Repository::new();
    other.write("fleet.toml", "format = 1\nfleet = \"others\"\n");
    other.commit(&other.key("alice"), SUBJECT);
    let stick = Stick::with_bundle(machine, &other, "main");
    fails(&scene, &stick, "refused");
    drop(stick);

    // After all of them the honest one is followed.
    repository.reset(&second);
    scene.declare(THIRD);
    Stick::with_bundle(machine, repository, "main")
        .look()
        .success();
    assert_eq!(machine.read_file("/etc/scene"), "third\n");
    scene.nothing_to_do();
}

#[test]
fn whatever_lies_on_a_stick_the_host_goes_on() {
    let mut scene = Scene::enrolled("hostile-stick", SECOND);
    let mirror = format!("[source]\nmirrors = [\"{BUNDLE}\"]\n");
    scene
        .machine
        .write_file("/etc/limpet/limpet.toml.d/stick.toml", mirror);
    scene.machine.sh("systemctl reload limpet.service");
    scene.server = None;
    let machine = &scene.machine;
    let make = |command: &str| {
        let command = command.to_owned();
        Stick::plug(machine, move |tree| {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-euc", &command]).current_dir(tree);
            output_of(&mut shell).success();
        })
    };
    for (command, words) in [
        ("mkfifo fleet.bundle", "it is no directory"),
        ("mknod fleet.bundle b 7 0", "it is no directory"),
        ("mknod fleet.bundle c 1 5", "it is no directory"),
        ("ln -s fleet.bundle fleet.bundle", "fleet.bundle"),
        (
            "ln -s /etc/passwd fleet.bundle",
            "neither a Git repository nor a Git bundle",
        ),
        ("ln -s /etc/shadow fleet.bundle", "Permission denied"),
        ("truncate -s 100G fleet.bundle", "it is larger than"),
        (
            "head -c 100000 /dev/urandom > fleet.bundle",
            "neither a Git repository nor a Git bundle",
        ),
        ("mkdir fleet.bundle", "fleet.bundle"),
        ("true", "no such"),
    ] {
        fails(&scene, &make(command), words);
    }

    // No file system at all.
    let image = scene.repository.file("image", &"x".repeat(1 << 20));
    let stick = Stick::of_image(machine, &image);
    assert_ne!(stick.look().code(), 0);
    drop(stick);

    // With the server gone, the stick is the mirror that answers.
    scene.repository.write(LAYER, THIRD);
    scene.repository.commit(&scene.alice, SUBJECT);
    Stick::with_bundle(machine, &scene.repository, "main")
        .look()
        .success();
    assert_eq!(machine.read_file("/etc/scene"), "third\n");
}
