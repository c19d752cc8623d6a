//! File systems that are mounted as declared.

use crate::scene::Scene;

const BEFORE: &str = "[file.\"/etc/scene\"]\ncontent = \"one\\n\"\n";

fn layer(device: &str, size: &str) -> String {
    format!(
        "{BEFORE}[mount.\"/srv/data-1\"]\ndevice = \"{device}\"\ntype = \"tmpfs\"\noptions = [\"size={size}\", \"mode=0755\"]\n\
         [file.\"/srv/data-1/below/inside\"]\ncontent = \"inside\\n\"\n"
    )
}

/// Device, type and size of what is mounted there; empty when nothing is.
fn mounted(scene: &Scene) -> String {
    let shown = scene
        .machine
        .run(&["findmnt", "-rno", "SOURCE,FSTYPE,OPTIONS", "/srv/data-1"]);
    let words: Vec<&str> = shown.stdout.split([' ', ',', '\n']).collect();
    let size = words.iter().find(|word| word.starts_with("size="));
    [words.first(), words.get(1), size]
        .into_iter()
        .flatten()
        .copied()
        .collect::<Vec<_>>()
        .join(" ")
        .trim()
        .to_owned()
}

#[test]
fn a_mount_is_there_before_what_lies_on_it_and_is_never_torn_away() {
    let scene = Scene::enrolled("mounts", BEFORE);
    let machine = &scene.machine;
    machine.sh("mkdir -p /srv/data-1; echo hidden > /srv/data-1/hidden");
    scene.apply(&layer("data", "8m"));
    assert_eq!(mounted(&scene), "data tmpfs size=8192k");
    assert_eq!(machine.read_file("/srv/data-1/below/inside"), "inside\n");
    assert!(!machine.exists("/srv/data-1/hidden"));

    // Drift: somebody unmounted it.
    machine.sh("umount /srv/data-1");
    scene.sync().success();
    assert_eq!(mounted(&scene), "data tmpfs size=8192k");
    assert_eq!(machine.read_file("/srv/data-1/below/inside"), "inside\n");
    scene.nothing_to_do();

    // New options are a remount, also of one that is in use: what is on it stays.
    machine.write_file("/srv/data-1/work", "kept\n");
    // Not as its working directory: systemd would know that the service needs the mount, and restart both.
    machine.sh("systemd-run --quiet --unit=user sh -c 'cd /srv/data-1; exec sleep infinity'");
    scene.apply(&layer("data", "16m"));
    assert_eq!(mounted(&scene), "data tmpfs size=16384k");
    assert_eq!(machine.read_file("/srv/data-1/work"), "kept\n");

    // Another device needs it to be unmounted, which waits for whoever uses it.
    scene.declare(&layer("other", "16m"));
    assert_eq!(scene.sync().code(), 1);
    assert_eq!(mounted(&scene), "data tmpfs size=16384k");
    assert_eq!(machine.read_file("/srv/data-1/work"), "kept\n");
    let status = scene.status();
    assert!(
        status["errors"].to_string().contains("mount:/srv/data-1"),
        "{status:#}"
    );
    machine.sh("systemctl stop user.service");
    scene.sync().success();
    assert_eq!(mounted(&scene), "other tmpfs size=16384k");
    assert_eq!(machine.read_file("/srv/data-1/below/inside"), "inside\n");

    // No longer declared, it goes after what lies on it, and what it hid is there again.
    scene.apply(BEFORE);
    assert_eq!(mounted(&scene), "");
    assert_eq!(machine.sh("ls -A /srv/data-1"), "hidden\n");
    assert!(!machine.exists("/etc/systemd/system/srv-data\\x2d1.mount"));
}
