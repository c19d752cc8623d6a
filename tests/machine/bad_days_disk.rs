//! Disks that are full, read-only, or out of inodes.

use crate::bad_days::{
    FILE, declared_when_asked, drift_is_undone, journal_is_quiet, layer, status_says,
};
use crate::fixture::machine::wait_until;
use crate::scene::{SOON, Scene};

const OPERATOR: &str = "the operator of this host";

/// A service that counts its starts, and restarts when a file changes.
const SERVICE: &str = r#"
[file."/etc/counted.conf"]
content = "declared\n"

[unit."counted.service"]
content = """
[Service]
ExecStart=/bin/sh -c 'echo start >> /run/counted; exec sleep infinity'
"""
running = true
restart_on = ["file:/etc/counted.conf"]
"#;

/// Puts limpet's state on a disk of its own, which has 4 MiB beside the program that is kept there.
fn give_state_a_disk(scene: &Scene) {
    scene.machine.sh("systemctl stop limpet.service
         mkdir /mnt/state
         kept=$(du -sk /var/lib/limpet/previous | cut -f1)
         mount -t tmpfs -o size=$((kept + 4096))k,mode=0700 tmpfs /mnt/state
         cp -a /var/lib/limpet/. /mnt/state/
         mount --bind /mnt/state /var/lib/limpet
         systemctl start limpet.service");
    scene.converge();
}

fn starts(scene: &Scene) -> usize {
    scene.machine.read_file("/run/counted").lines().count()
}

/// Fills a disk to the last byte.
fn fill(scene: &Scene, directory: &str) {
    scene.machine.sh(&format!(
        "! dd if=/dev/zero of={directory}/ballast bs=4k 2>/dev/null
         ! dd if=/dev/zero of={directory}/crumbs bs=1 2>/dev/null || true"
    ));
}

#[test]
fn a_full_or_read_only_state_disk_stops_no_correction() {
    let scene = Scene::enrolled("state-disk", &layer("first", SERVICE));
    let machine = &scene.machine;
    give_state_a_disk(&scene);
    assert_eq!(starts(&scene), 1);

    // Full while the agent runs.
    fill(&scene, "/var/lib/limpet");
    machine.write_file("/etc/counted.conf", "drift\n");
    drift_is_undone(&scene, "first");
    assert_eq!(machine.read_file("/etc/counted.conf"), "declared\n");
    assert_eq!(starts(&scene), 2, "the restart that follows is made");
    machine.sh("systemctl stop counted.service");
    scene.sync();
    assert!(machine.is_active("counted.service"));
    status_says(&scene, "degraded", "full", OPERATOR);
    journal_is_quiet(&scene);
    assert_eq!(starts(&scene), 3, "and not made again and again");
    let last_good = scene.status()["revision"].clone();
    scene.declare(&layer("second", SERVICE));
    scene.sync();
    assert_eq!(
        machine.read_file(FILE),
        "first\n",
        "what cannot be kept is not taken over"
    );
    assert_eq!(scene.status()["revision"], last_good);
    journal_is_quiet(&scene);

    // The agent starts while it is full; when it ends, the logs of its databases make room.
    machine.sh("systemctl stop limpet.service");
    fill(&scene, "/var/lib/limpet");
    machine.sh("systemctl start limpet.service");
    drift_is_undone(&scene, "first");
    // Whether the revision or the store is named first, and with it who must act, depends on what could still be opened.
    status_says(&scene, "degraded", "full", "");
    let pid = machine.main_pid("limpet.service");
    machine.sh("rm /var/lib/limpet/ballast /var/lib/limpet/crumbs");
    scene.converge();
    assert_eq!(machine.read_file(FILE), "second\n");
    assert_eq!(machine.main_pid("limpet.service"), pid);
    assert_eq!(starts(&scene), 3);

    // Read-only from the start, with the log of a killed agent beside the database and without.
    for (content, end) in [
        (
            "third",
            "systemctl kill --signal=KILL limpet.service; systemctl stop limpet.service",
        ),
        (
            "fourth",
            "systemctl stop limpet.service; rm -f /var/lib/limpet/state.db-shm /var/lib/limpet/objects/objects.db-shm",
        ),
    ] {
        let before = machine.read_file(FILE).trim().to_owned();
        machine.sh(&format!(
            "{end}
             mount -o remount,ro /mnt/state
             systemctl start limpet.service"
        ));
        machine.write_file("/etc/counted.conf", "drift\n");
        drift_is_undone(&scene, &before);
        status_says(&scene, "degraded", "object store", OPERATOR);
        assert!(!scene.status().to_string().contains("state-missing"));
        scene.declare(&layer(content, SERVICE));
        scene.sync();
        journal_is_quiet(&scene);
        assert_eq!(machine.read_file(FILE).trim(), before);
        let pid = machine.main_pid("limpet.service");
        machine.sh("mount -o remount,rw /mnt/state");
        scene.converge();
        assert_eq!(machine.read_file(FILE).trim(), content);
        assert_eq!(machine.main_pid("limpet.service"), pid);
        assert_eq!(machine.read_file("/etc/counted.conf"), "declared\n");
    }

    // No inodes: an original cannot be kept, so the file is not touched, and all else is.
    machine.sh("used=$(df --output=iused /var/lib/limpet | tail -n 1 | tr -d ' '); mount -o remount,nr_inodes=$used /mnt/state");
    machine.write_file("/etc/precious", "of somebody\n");
    let more = format!("{SERVICE}[file.\"/etc/precious\"]\ncontent = \"ours\\n\"\n");
    scene.declare(&layer("fifth", &more));
    drift_is_undone(&scene, "fifth");
    assert_eq!(machine.read_file("/etc/precious"), "of somebody\n");
    status_says(&scene, "degraded", "no space left on device", OPERATOR);
    journal_is_quiet(&scene);
    machine.sh("mount -o remount,nr_inodes=10000 /mnt/state");
    scene.converge();
    assert_eq!(machine.read_file("/etc/precious"), "ours\n");
    scene.apply(&layer("sixth", SERVICE));
    assert_eq!(machine.read_file("/etc/precious"), "of somebody\n");
}

#[test]
fn a_full_or_read_only_disk_costs_only_the_files_on_it() {
    let more = "[file.\"/srv/full/file\"]\ncontent = \"declared\\n\"\n\
                [file.\"/srv/fixed/file\"]\ncontent = \"declared\\n\"\n";
    let scene = Scene::prepared("disks", &layer("first", more));
    let machine = &scene.machine;
    machine.sh(
        "mkdir -p /srv/full /srv/fixed /var/cache/limpet
         mount -t tmpfs -o size=64k,mode=0755 tmpfs /srv/full
         mount -t tmpfs -o size=64k,mode=0755 tmpfs /srv/fixed
         mount -t tmpfs -o size=1m,mode=0700,uid=$(id -u limpet),gid=$(id -g limpet) tmpfs /var/cache/limpet",
    );
    scene.enroll().success();
    scene.converge();
    scene.poll_often();

    machine.sh("rm /srv/full/file; echo drift > /srv/fixed/file; mount -o remount,ro /srv/fixed");
    fill(&scene, "/srv/full");
    drift_is_undone(&scene, "first");
    let status = status_says(&scene, "degraded", "/srv/", OPERATOR);
    let errors = status["errors"].to_string();
    assert!(
        errors.contains("file:/srv/full/file") && errors.contains("no space left on device"),
        "{errors}"
    );
    assert!(
        errors.contains("file:/srv/fixed/file") && errors.contains("read-only file system"),
        "{errors}"
    );
    journal_is_quiet(&scene);
    let left = machine.sh("ls -A /srv/full /srv/fixed");
    assert!(
        !left.contains("limpet"),
        "nothing half-written stays: {left}"
    );
    machine.sh("rm /srv/full/ballast /srv/full/crumbs; mount -o remount,rw /srv/fixed");
    wait_until("both files, without anybody asking", SOON * 4, || {
        ["/srv/full/file", "/srv/fixed/file"]
            .iter()
            .all(|path| {
                std::fs::read_to_string(machine.path(path)).is_ok_and(|it| it == "declared\n")
            })
            .then_some(())
    });

    // The fetcher's cache: nothing new comes, everything else goes on.
    fill(&scene, "/var/cache/limpet");
    scene.declare(&layer("second", more));
    drift_is_undone(&scene, "first");
    status_says(&scene, "unreachable", "cache", OPERATOR);
    journal_is_quiet(&scene);
    machine.sh("rm /var/cache/limpet/ballast /var/cache/limpet/crumbs");
    declared_when_asked(&scene, "second");
}
