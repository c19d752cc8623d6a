//! State and trust files that are lost, damaged, or of another time.

use crate::bad_days::{
    FILE, drift_is_undone, drift_is_undone_unasked, journal_is_quiet, layer, status_says,
};
use crate::fixture::machine::wait_until;
use crate::scene::{SOON, Scene};

const OPERATOR: &str = "the operator of this host";
const KEYS: &str = "whoever holds the signing keys";

/// Puts limpet's state and configuration back to how they were after `save`.
const RESTORE: &str = "
    systemctl stop limpet.service
    rm -rf /var/lib/limpet /etc/limpet
    cp -a /root/saved/state /var/lib/limpet
    cp -a /root/saved/etc /etc/limpet
    systemctl start limpet.service";

/// Two files, one of which only the second revision declares, so that the database knows more than the mark.
fn scene(label: &str) -> Scene {
    let scene = Scene::enrolled(label, &layer("first", ""));
    scene.poll_often();
    scene.apply(&layer(
        "second",
        "[file.\"/etc/more\"]\ncontent = \"more\\n\"\n",
    ));
    scene.machine.sh("mkdir /root/saved
         systemctl stop limpet.service
         cp -a /var/lib/limpet /root/saved/state; cp -a /etc/limpet /root/saved/etc
         systemctl start limpet.service");
    scene
}

#[test]
fn lost_trust_state_enforces_the_marked_revision_and_takes_nothing_new() {
    let scene = scene("state");
    let machine = &scene.machine;
    machine.write_file(
        "/root/newer.pl",
        // The header's user version, see the file format of SQLite, is at offset 60; the oldest layout that can go on with it is the
        // application id at 68.
        "open F, '+<', '/var/lib/limpet/state.db'; binmode F; for (60, 68) { seek F, $_, 0; print F pack('N', 99) } close F;",
    );
    let last = scene.head();
    for loss in [
        "rm /var/lib/limpet/state.db*",
        ": > /var/lib/limpet/state.db; rm -f /var/lib/limpet/state.db-*",
        "truncate --size=6000 /var/lib/limpet/state.db; rm -f /var/lib/limpet/state.db-*",
        "yes garbage | head -c 30000 > /var/lib/limpet/state.db; rm -f /var/lib/limpet/state.db-*",
        "limpet status >/dev/null; perl /root/newer.pl; rm -f /var/lib/limpet/state.db-*",
        "rm -f /etc/limpet/enrolled; yes garbage | head -c 30000 > /var/lib/limpet/state.db; rm -f /var/lib/limpet/state.db-*",
        "echo '{' > /etc/limpet/enrolled; rm -f /var/lib/limpet/state.db*",
    ] {
        let is_mark_lost = loss.contains("enrolled");
        // What is in the log comes into the database first.
        machine.sh(&format!(
            "{RESTORE}; systemctl stop limpet.service; {loss}; systemctl start limpet.service"
        ));
        scene.declare(&layer("newer", ""));
        if is_mark_lost {
            scene.sync();
        } else {
            drift_is_undone_unasked(&scene, "second");
            drift_is_undone(&scene, "second");
        }
        assert_eq!(machine.read_file(FILE), "second\n", "{loss}");
        assert!(machine.exists("/etc/more"), "{loss}");
        assert_eq!(scene.sync().code(), 77, "{loss}");
        let status = status_says(&scene, "state-missing", "trust state is missing", OPERATOR);
        assert_eq!(status["state"], "refused", "{loss}: {status:#}");
        assert!(
            status["errors"].to_string().contains("limpet enroll"),
            "{loss}: {status:#}"
        );
        let pid = machine.main_pid("limpet.service");
        journal_is_quiet(&scene);
        assert_eq!(
            machine.main_pid("limpet.service"),
            pid,
            "{loss}: the agent starts again and again"
        );
        scene.reset(&last);
    }
    machine.sh(RESTORE);
    scene.apply(&layer("third", ""));
}

#[test]
fn damage_that_can_be_mended_is_mended() {
    let scene = scene("mended");
    let machine = &scene.machine;
    for (number, damage) in [
        "rm /etc/limpet/enrolled",
        "echo garbage > /etc/limpet/enrolled",
        "yes garbage | head -c 9000 > /var/lib/limpet/state.db-wal",
        "rm -rf /var/lib/limpet/objects",
        "yes garbage | head -c 30000 > /var/lib/limpet/objects/objects.db; rm -f /var/lib/limpet/objects/*-wal /var/lib/limpet/objects/*-shm",
        ": > /var/lib/limpet/objects/objects.db; rm -f /var/lib/limpet/objects/*-wal /var/lib/limpet/objects/*-shm",
    ]
    .iter()
    .enumerate()
    {
        // In the database, not in its log: the log is what some of the damages hit.
        machine.sh(&format!(
            "{RESTORE}; systemctl stop limpet.service
             {damage}
             systemctl start limpet.service"
        ));
        scene.sync();
        let before = machine.read_file(FILE);
        drift_is_undone(&scene, before.trim());
        scene.apply(&layer(&format!("mended {number}"), ""));
        assert!(machine.exists("/etc/limpet/enrolled"), "{damage}");
        machine.sh("rm -rf /root/saved/*; systemctl stop limpet.service; cp -a /var/lib/limpet /root/saved/state; cp -a /etc/limpet /root/saved/etc; systemctl start limpet.service");
    }
}

#[test]
fn damage_under_a_running_agent_stops_no_enforcement() {
    // The content of this file is a blob of the repository, which only the object store has.
    let scene = scene("running");
    let machine = &scene.machine;
    scene.repository.write("layers/base/files/blob", "a blob\n");
    let source = "[file.\"/etc/blob\"]\nsource = \"blob\"\n";
    scene.apply(&layer("third", source));
    let pid = machine.main_pid("limpet.service");
    for damage in [
        "yes garbage | head -c 200000 > /root/garbage
         dd if=/root/garbage of=/var/lib/limpet/objects/objects.db conv=notrunc 2>/dev/null
         dd if=/root/garbage of=/var/lib/limpet/objects/objects.db-wal conv=notrunc 2>/dev/null",
        "rm -rf /var/lib/limpet/objects/*",
        "rm /etc/limpet/enrolled",
    ] {
        machine.sh(&format!("{damage}; echo drift > /etc/blob"));
        drift_is_undone(&scene, "third");
        wait_until("the blob, without anybody asking", SOON * 4, || {
            (machine.read_file("/etc/blob") == "a blob\n").then_some(())
        });
    }
    assert_eq!(machine.main_pid("limpet.service"), pid);
    scene.converge();

    machine.sh("yes garbage | head -c 200000 > /root/garbage
         dd if=/root/garbage of=/var/lib/limpet/state.db conv=notrunc 2>/dev/null
         dd if=/root/garbage of=/var/lib/limpet/state.db-wal conv=notrunc 2>/dev/null");
    drift_is_undone(&scene, "third");
    drift_is_undone_unasked(&scene, "third");
    machine.sh("systemctl restart limpet.service");
    drift_is_undone_unasked(&scene, "third");
    status_says(&scene, "state-missing", "trust state is missing", OPERATOR);
}

#[test]
fn broken_trust_files_let_nothing_new_in_and_nothing_old_go() {
    let scene = scene("trust-files");
    let machine = &scene.machine;
    let mut content = "second".to_owned();
    for (file, damage) in [
        ("allowed_signers", "rm"),
        ("allowed_signers", "garbage"),
        ("revoked", "rm"),
        ("revoked", "garbage"),
    ] {
        let path = format!("/etc/limpet/{file}");
        let good = machine.read_file(&path);
        match damage {
            "rm" => drop(machine.sh(&format!("rm {path}"))),
            _ => machine.write_file(&path, "this is \u{1} no key\n"),
        }
        let next = format!("{damage} {file}");
        scene.declare(&layer(&next, ""));
        drift_is_undone(&scene, &content);
        drift_is_undone_unasked(&scene, &content);
        assert_eq!(scene.sync().code(), 77);
        let status = scene.status();
        assert_eq!(status["state"], "refused", "{status:#}");
        let who = status["conditions"][0]["who"].as_str().unwrap_or_default();
        assert!([OPERATOR, KEYS].contains(&who), "{status:#}");
        status_says(&scene, "refused", &path, who);
        journal_is_quiet(&scene);
        machine.write_file(&path, &good);
        scene.converge();
        content = next;
    }
}
