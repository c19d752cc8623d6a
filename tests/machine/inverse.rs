//! The law of the second promise: what a revision did to a machine, its revert takes back, whatever was there.
//!
//! A *fingerprint* is a text of everything that a fleet can change: all of `/etc`, `/opt` and `/srv/ground` with bytes, modes, owners and
//! extended attributes; how every unit file is enabled, and whether the test's units run; every package with version and hold.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::fixture::apt_repository::{AptRepository, Package};
use crate::fixture::machine::Machine;
use crate::scene::Scene;

/// CAP_NET_BIND_SERVICE, permitted.
const CAPABILITIES: [u8; 20] = [0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What there is before limpet: each kind of thing in each state that a revision could lose.
const GROUND: &str = r#"
mkdir -p /etc/ground/room /opt/ground /srv/ground
printf 'before\n' > /etc/ground/plain
chown games:adm /etc/ground/plain; chmod 0640 /etc/ground/plain
printf 'going\n' > /etc/ground/gone; chmod 0600 /etc/ground/gone
printf 'bare\n' > /etc/ground/bare; chown games: /etc/ground/bare
printf 'tool\n' > /etc/ground/capable; chmod 0755 /etc/ground/capable
chown games:adm /etc/ground/room; chmod 0710 /etc/ground/room
printf 'child\n' > /etc/ground/room/child
ln -s plain /etc/ground/link; chown -h games:adm /etc/ground/link
ln -s /nowhere /etc/ground/becomes-file; chown -h games: /etc/ground/becomes-file
printf 'will be a link\n' > /etc/ground/becomes-link; chown games: /etc/ground/becomes-link
service() {
    mkdir -p "$1"
    printf '[Service]\nExecStart=/bin/sleep infinity\n%b' "$3" > "$1/ground-$2.service"
}
install='[Install]\nWantedBy=multi-user.target\n'
vendor=/usr/lib/systemd/system
for unit in on off brief hidden masked below; do service $vendor $unit "$install"; done
service $vendor still ''
service /opt/ground linked "$install"
service /opt/ground linked-on "$install"
service /etc/systemd/system own "$install"
systemctl daemon-reload
systemctl enable --quiet --now ground-on.service ground-own.service
systemctl enable --quiet --runtime ground-brief.service
systemctl mask --quiet --runtime ground-hidden.service
systemctl mask --quiet ground-masked.service
systemctl enable --quiet ground-below.service
systemctl mask --quiet ground-below.service
systemctl link --quiet /opt/ground/ground-linked.service
systemctl enable --quiet --now /opt/ground/ground-linked-on.service
systemctl start ground-still.service
apt-get -q -y install ground-tool=1.0 ground-kept=1.0 ground-gone=1.0
apt-mark hold ground-kept ground-gone
apt-mark auto ground-gone ground-tool
"#;

/// A revision that changes all of it.
const CHANGE: &str = r#"
[file."/etc/ground/plain"]
content = "after\n"
mode = "0600"
owner = "root"
[file."/etc/ground/gone"]
state = "absent"
[file."/etc/ground/bare"]
mode = "0600"
owner = "root"
[file."/etc/ground/capable"]
content = "another tool\n"
[file."/etc/ground/new/deep/er"]
content = "new\n"
[directory."/etc/ground/room"]
mode = "0755"
owner = "root"
group = "root"
[directory."/srv/ground/made"]
mode = "0700"
[symlink."/etc/ground/link"]
target = "bare"
[symlink."/etc/ground/becomes-link"]
target = "plain"
[symlink."/etc/ground/new-link"]
target = "plain"
[file."/etc/ground/becomes-file"]
content = "no link any more\n"

[unit."ground-on.service"]
enabled = false
running = false
[unit."ground-off.service"]
enabled = true
running = true
[unit."ground-brief.service"]
enabled = true
[unit."ground-hidden.service"]
masked = false
running = true
[unit."ground-masked.service"]
masked = false
enabled = true
running = true
[unit."ground-below.service"]
masked = false
enabled = false
running = true
[unit."ground-still.service"]
masked = true
running = false
[unit."ground-linked.service"]
enabled = true
running = true
[unit."ground-linked-on.service"]
enabled = false
running = false
[unit."ground-own.service"]
content = "[Service]\nExecStart=/bin/sleep 12345\n"
enabled = false
[unit."ground-own.service".dropin.more]
content = "[Service]\nNice=5\n"
[unit."ground-new.service"]
content = "[Service]\nExecStart=/bin/sleep infinity\n\n[Install]\nWantedBy=multi-user.target\n"
enabled = true
running = true

[package]
ground-tool = { version = "2.*", hold = true }
ground-kept = { version = "2.0", hold = false }
ground-gone = { state = "absent", hold = false }
ground-new = { needs = ["file:/etc/ground/new/deep/er"] }
"#;

const UNITS: [&str; 11] = [
    "on",
    "off",
    "brief",
    "hidden",
    "masked",
    "below",
    "still",
    "linked",
    "linked-on",
    "own",
    "new",
];

/// Every path below `directory`, with all that a fleet could change of it.
fn note_paths(machine: &Machine, directory: &str, lines: &mut BTreeMap<String, String>) {
    let listed = std::fs::read_dir(machine.path(directory)).expect("the directory is there");
    for entry in listed {
        let entry = entry.expect("the directory is readable");
        let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
        // limpet's own, which every enrolled machine has.
        if path == "/etc/limpet" {
            continue;
        }
        let found = entry.path().symlink_metadata().expect("it is there");
        let what = if found.is_dir() {
            note_paths(machine, &path, lines);
            "a directory".to_owned()
        } else if found.is_symlink() {
            let target = std::fs::read_link(entry.path()).expect("it is a link");
            format!("a link to {}", target.display())
        } else {
            let bytes = std::fs::read(entry.path()).expect("it is readable");
            format!("{:?}", String::from_utf8_lossy(&bytes))
        };
        let line = format!(
            "{:o} {}:{}{} {what}",
            found.mode(),
            found.uid(),
            found.gid(),
            xattrs(&entry.path())
        );
        lines.insert(path, line);
    }
}

fn xattrs(path: &Path) -> String {
    let mut list = [0; 4096];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or(0);
    let names = list[..length].split(|byte| *byte == 0);
    let mut shown: Vec<String> = names
        .filter_map(|name| std::str::from_utf8(name).ok())
        .filter(|name| !name.is_empty() && *name != "security.selinux")
        .map(|name| {
            let mut value = [0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap_or(0);
            format!(" {name}={:?}", &value[..length])
        })
        .collect();
    shown.sort();
    shown.concat()
}

fn fingerprint(machine: &Machine) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for directory in ["/etc", "/opt", "/srv/ground"] {
        note_paths(machine, directory, &mut lines);
    }
    let listed = machine.sh("systemctl list-unit-files --all --plain --no-legend");
    for line in listed.lines() {
        let mut words = line.split_whitespace();
        let (Some(unit), Some(state)) = (words.next(), words.next()) else {
            continue;
        };
        if state != "transient" {
            lines.insert(format!("unit file {unit}"), state.to_owned());
        }
    }
    for unit in UNITS {
        let shown = machine.sh(&format!(
            "systemctl is-active ground-{unit}.service || true; systemctl show -p Nice --value ground-{unit}.service"
        ));
        lines.insert(format!("unit {unit}"), shown.replace('\n', " "));
    }
    for package in machine.sh("apt-mark showauto").lines() {
        lines.insert(format!("automatic {package}"), String::new());
    }
    let packages =
        machine.sh("dpkg-query -W -f '${binary:Package} ${db:Status-Abbrev} ${Version}\\n'");
    for line in packages.lines() {
        if let Some((package, state)) = line.split_once(' ')
            && state.as_bytes().get(1) == Some(&b'i')
        {
            lines.insert(format!("package {package}"), state.to_owned());
        }
    }
    lines
}

/// What of `after` is not as it was `before`.
fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| {
            let (was, is) = (before.get(key), after.get(key));
            format!("{key}: was {was:?}, is {is:?}")
        })
        .collect()
}

/// A machine with something of everything, enrolled in a fleet that declares nothing.
fn scene(label: &str) -> Scene {
    let scene = Scene::prepared(label, "");
    let machine = &scene.machine;
    let packages = ["tool", "kept", "gone"].into_iter().flat_map(|name| {
        let name: &str = match name {
            "tool" => "ground-tool",
            "kept" => "ground-kept",
            _ => "ground-gone",
        };
        [Package::new(name, "1.0"), Package::new(name, "2.0")]
    });
    let new = [
        Package {
            depends: "ground-helper",
            ..Package::new("ground-new", "1.0")
        },
        Package::new("ground-helper", "1.0"),
    ];
    AptRepository::new(&packages.chain(new).collect::<Vec<_>>()).copy_to(machine);
    machine.sh(GROUND);
    let flags = rustix::fs::XattrFlags::empty();
    for (path, name, value) in [
        ("/etc/ground/plain", "user.ground", &b"kept"[..]),
        ("/etc/ground/room", "user.ground", b"kept, too"),
        ("/etc/ground/capable", "security.capability", &CAPABILITIES),
    ] {
        rustix::fs::lsetxattr(machine.path(path), name, value, flags)
            .expect("the machine's file system has extended attributes");
    }
    scene.enroll().success();
    scene.converge();
    scene
}

/// Applies CHANGE, and expects it to have changed every state that GROUND made; returns its commit.
#[track_caller]
fn change(scene: &Scene, before: &BTreeMap<String, String>) -> String {
    scene.apply(CHANGE);
    let changed = differences(before, &fingerprint(&scene.machine));
    let about = |what: &str| changed.iter().any(|line| line.starts_with(what));
    for file in [
        "plain",
        "gone",
        "bare",
        "capable",
        "room",
        "link",
        "becomes-file",
        "becomes-link",
        "new",
    ] {
        assert!(
            about(&format!("/etc/ground/{file}:")),
            "{file}: {changed:#?}"
        );
    }
    for unit in [
        "on",
        "off",
        "brief",
        "hidden",
        "masked",
        "below",
        "still",
        "linked",
        "linked-on",
        "own",
    ] {
        assert!(
            about(&format!("unit file ground-{unit}.service:")) || about(&format!("unit {unit}:")),
            "{unit}: {changed:#?}"
        );
    }
    for package in ["tool", "kept", "gone", "new"] {
        assert!(
            about(&format!("package ground-{package}:")),
            "{package}: {changed:#?}"
        );
    }
    scene.head()
}

#[test]
fn git_revert_puts_everything_back_as_it_was() {
    let scene = scene("inverse");
    let before = fingerprint(&scene.machine);
    let revision = change(&scene, &before);

    let why = |resource: &str| scene.machine.sh(&format!("limpet why {resource}"));
    for (resource, original) in [
        ("file:/etc/ground/plain", "a file of 7 bytes, mode 0640"),
        (
            "symlink:/etc/ground/link",
            "a symbolic link to plain, owner 5:4",
        ),
        (
            "unit:ground-brief.service",
            "it was enabled-runtime, not running",
        ),
        (
            "unit:ground-linked.service",
            "it was linked, not running, linked to /opt/ground/ground-linked.service",
        ),
        ("package:ground-kept", "version 1.0 was installed, on hold"),
    ] {
        let told = why(resource);
        assert!(told.contains(original), "{resource}: {told}");
    }

    let cursor = scene.machine.journal_cursor();
    let reverted = scene.repository.revert(&scene.alice, &revision);
    scene.repository.push();
    scene.converge();
    // What needed something goes before it: the package before its file, and a unit stops before its file goes.
    let told = scene
        .machine
        .journal_after(&cursor, "LIMPET_REVISION", &reverted);
    let messages: Vec<&str> = told
        .iter()
        .filter_map(|entry| entry["MESSAGE"].as_str())
        .collect();
    let place = |message: &str| {
        let found = messages.iter().position(|told| told.starts_with(message));
        found.unwrap_or_else(|| panic!("{message}: {messages:#?}"))
    };
    for [first, second] in [
        [
            "package:ground-new: remove",
            "file:/etc/ground/new/deep/er: delete",
        ],
        [
            "unit:ground-new.service: stop",
            "unit:ground-new.service: delete",
        ],
        [
            "file:/etc/ground/new/deep/er: delete",
            "file:/etc/ground/new/deep/er: delete /etc/ground/new",
        ],
    ] {
        assert!(place(first) < place(second), "{first}: {messages:#?}");
    }
    let left = differences(&before, &fingerprint(&scene.machine));
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn a_rollback_puts_everything_back_as_it_was() {
    let scene = scene("inverse-rollback");
    let machine = &scene.machine;
    let before = fingerprint(machine);
    change(&scene, &before);

    machine
        .run(&["limpet", "rollback", "--reason", "we were not ready"])
        .success();
    let sync = scene.sync();
    let status = scene.status();
    assert_eq!(status["state"], "rolled-back", "{status:#}: {sync:?}");
    let left = differences(&before, &fingerprint(machine));
    assert_eq!(left, Vec::<String>::new());

    // And forward again.
    machine
        .run(&["limpet", "sync", "--wait", "--retry"])
        .success();
    scene.converge();
    assert_ne!(
        differences(&before, &fingerprint(machine)),
        Vec::<String>::new()
    );
}
