//! Files and archives that the fetcher downloads within its sandbox, from a real web server behind TLS.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::fixture::machine::{output_of, wait_until};
use crate::scene::{SOON, Scene};

const CACHE: &str = "/var/cache/limpet/artifacts";

/// As much as takes some seconds where 4 MiB a second are served.
fn large_file() -> Vec<u8> {
    (0..5_000_000_u32)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

fn hash(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    let digits = hash.as_ref().iter();
    digits.map(|byte| format!("{byte:02x}")).collect()
}

fn url(scene: &Scene, path: &str) -> String {
    format!(
        "{}/{path}",
        scene.server.as_ref().expect("the server is up").url
    )
}

fn declaration(scene: &Scene, path: &str, sha256: &str) -> String {
    format!(
        "[file.\"/opt/app.bin\"]\nurl = \"{}\"\nsha256 = \"{sha256}\"\n",
        url(scene, path)
    )
}

fn errors(scene: &Scene) -> String {
    scene.status()["errors"].to_string()
}

#[test]
fn a_download_survives_the_death_of_its_fetcher_and_a_wrong_one_is_refused() {
    let scene = Scene::enrolled("downloads", "");
    let (machine, server) = (&scene.machine, scene.server.as_ref().expect("it is up"));
    let file = large_file();
    server.put_file("app.bin", &file);

    // Killed in the middle: what is there is gone on from.
    scene.declare(&declaration(&scene, "paced/app.bin", &hash(&file)));
    machine.sh("systemd-run --quiet --unit=first-sync limpet sync --wait");
    let part = format!("{CACHE}/{}.part", hash(&file));
    wait_until("a part of the file", SOON, || {
        let found = std::fs::metadata(machine.path(&part)).ok()?;
        (found.len() > 2 << 20).then_some(())
    });
    machine.sh("systemctl kill --signal=KILL limpet-fetch.service");
    // Whoever waited for it asks the next one.
    wait_until("the file", Duration::from_secs(90), || {
        machine.exists("/opt/app.bin").then_some(())
    });
    scene.converge();
    let there = std::fs::read(machine.path("/opt/app.bin")).expect("it is there");
    assert!(there == file, "the whole file");
    assert_eq!(machine.ownership("/opt/app.bin"), "root:root 644");
    let asked = server.requests();
    let statuses: Vec<&str> = asked
        .iter()
        .filter_map(|request| request.strip_prefix("GET /paced/app.bin "))
        .map(|rest| rest.split(' ').next().unwrap_or_default())
        .collect();
    assert_eq!(statuses, ["200", "206"], "{asked:?}");
    // Nobody but the fetcher may touch what it keeps, and it does so as itself.
    assert_eq!(machine.ownership(CACHE), "limpet:limpet 700");

    let wrong = hash(b"another");
    scene.declare(&declaration(&scene, "files/app.bin", &wrong));
    let sync = scene.sync();
    assert_eq!(sync.code(), 1, "{sync:?}");
    let why = format!("has SHA-256 {}, not {wrong} as declared", hash(&file));
    assert!(errors(&scene).contains(&why), "{}", errors(&scene));
    assert!(std::fs::read(machine.path("/opt/app.bin")).expect("it stays") == file);
    assert!(!machine.exists(&format!("{CACHE}/{wrong}")));

    scene.apply("");
    assert!(!machine.exists("/opt/app.bin"));
}

#[test]
fn a_server_that_drips_is_cut_off_and_others_go_on_meanwhile() {
    let scene = Scene::enrolled("drips", "");
    let (machine, server) = (&scene.machine, scene.server.as_ref().expect("it is up"));
    let file = large_file();
    server.put_file("app.bin", &file);
    server.put_file("small", b"small\n");
    scene.declare(&format!(
        "{}[file.\"/opt/a-small\"]\nurl = \"{}\"\nsha256 = \"{}\"\n",
        declaration(&scene, "drip/app.bin", &hash(&file)),
        url(&scene, "files/small"),
        hash(b"small\n")
    ));
    let sync = scene.sync();
    assert_eq!(sync.code(), 75, "{sync:?}");
    let told = errors(&scene);
    assert!(
        told.contains("less than 64 KiB a minute; it goes on from byte"),
        "{told}"
    );
    assert_eq!(machine.read_file("/opt/a-small"), "small\n");
    let part = format!("{CACHE}/{}.part", hash(&file));
    assert!(machine.exists(&part), "what came is kept");

    // From another place it goes on where that one was cut off.
    let before = std::fs::metadata(machine.path(&part))
        .expect("it is kept")
        .len();
    assert!(before > 0);
    scene.apply(&declaration(&scene, "files/app.bin", &hash(&file)));
    let sent = wait_until("the request", Duration::from_secs(5), || {
        let requests = server.requests();
        let last = requests
            .iter()
            .rev()
            .find(|line| line.contains("/files/app.bin"));
        last.and_then(|line| {
            line.strip_prefix("GET /files/app.bin 206 ")?
                .parse::<u64>()
                .ok()
        })
    });
    assert!(
        sent < file.len() as u64 + 4096 - before + 4096,
        "{sent} after {before}"
    );
}

#[test]
fn what_there_is_no_room_for_is_not_begun_and_it_is_said_how_much_is_missing() {
    let scene = Scene::enrolled("no-room", "");
    let (machine, server) = (&scene.machine, scene.server.as_ref().expect("it is up"));
    let file = large_file();
    server.put_file("app.bin", &file);
    machine.sh(&format!(
        "systemctl stop limpet-fetch.service; install -d -o limpet -g limpet -m 0700 {CACHE} && mount -t tmpfs -o size=24m,uid=$(id -u limpet),mode=0700 none {CACHE}"
    ));
    scene.declare(&declaration(&scene, "files/app.bin", &hash(&file)));
    let sync = scene.sync();
    assert_eq!(sync.code(), 1, "{sync:?}");
    let told = errors(&scene);
    assert!(
        told.contains("no room for") && told.contains("19.1 MiB are to come"),
        "{told}"
    );
    assert!(sync.stderr.contains("make room for 11.1 MiB"), "{sync:?}");
    let begun = std::fs::metadata(machine.path(&format!("{CACHE}/{}.part", hash(&file))));
    assert!(begun.map_or(true, |part| part.len() == 0));

    machine.sh(&format!(
        "systemctl stop limpet-fetch.service; umount {CACHE}"
    ));
    scene.converge();
    assert!(std::fs::read(machine.path("/opt/app.bin")).expect("it is there") == file);
}

/// What real tar makes of the tool in version `version`.
fn tool(version: &str, more: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("there is room");
    let write = |path: &str, text: &str, mode: &str| {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it is below")).expect("there is room");
        std::fs::write(&path, text).expect("there is room");
        output_of(Command::new("chmod").arg(mode).arg(&path)).success();
    };
    write(
        "bin/tool",
        &format!("#!/bin/sh\necho {version} > /run/tool-version\nexec sleep infinity\n"),
        "0775",
    );
    write(&format!("share/{more}"), more, "0664");
    std::os::unix::fs::symlink("../bin/tool", directory.path().join("share/link"))
        .expect("there is room");
    let archive = directory.path().join("tool.tar.gz");
    let mut tar = Command::new("tar");
    tar.arg("-czf")
        .arg(&archive)
        .args(["--owner=4711", "bin", "share"]);
    output_of(tar.current_dir(directory.path())).success();
    std::fs::read(&archive).expect("tar wrote it")
}

fn tool_layer(scene: &Scene, archive: &[u8], name: &str) -> String {
    let server = scene.server.as_ref().expect("the server is up");
    server.put_file(name, archive);
    format!(
        r#"
[file."/opt/tool"]
url    = "{}"
sha256 = "{}"
unpack = true

[unit."tool.service"]
content    = "[Service]\nExecStart=/opt/tool/bin/tool\n"
running    = true
restart_on = ["file:/opt/tool"]
needs      = ["file:/opt/tool"]

[unit."other.service"]
content = "[Service]\nExecStart=/usr/bin/sleep infinity\n"
running = true
"#,
        url(scene, &format!("files/{name}")),
        hash(archive)
    )
}

#[test]
fn an_archive_is_unpacked_and_a_new_one_restarts_what_runs_from_it_and_nothing_else() {
    let (first, second) = (tool("one", "old"), tool("two", "new"));
    let scene = Scene::enrolled("unpacked", "");
    let machine = &scene.machine;
    scene.apply(&tool_layer(&scene, &first, "tool-1.tar.gz"));
    let version = |expected: &str| {
        wait_until("the tool to start", SOON, || {
            (machine.run(&["cat", "/run/tool-version"]).stdout == format!("{expected}\n"))
                .then_some(())
        });
    };
    version("one");
    // Who packed it does not count, nor what he let his group write.
    assert_eq!(machine.ownership("/opt/tool/bin/tool"), "root:root 755");
    assert_eq!(machine.ownership("/opt/tool/share/old"), "root:root 644");
    assert_eq!(machine.sh("readlink /opt/tool/share/link"), "../bin/tool\n");
    let pids = || {
        (
            machine.main_pid("tool.service"),
            machine.main_pid("other.service"),
        )
    };
    let before = pids();

    // Drift of one file is undone, from what the fetcher has; what runs from it is restarted, as it is for any file.
    machine.sh("echo drift > /opt/tool/share/old; rm /opt/tool/share/link");
    assert_eq!(
        scene.planned()[..2],
        [
            "file:/opt/tool create missing",
            "file:/opt/tool update differs"
        ]
        .map(str::to_owned)[..]
    );
    scene.converge();
    assert_eq!(machine.read_file("/opt/tool/share/old"), "old");
    assert_eq!(pids().1, before.1);

    // Without the server, the fetcher's cache and a running agent it is still known what is declared.
    let before = pids();
    machine.sh(&format!(
        "systemctl stop limpet-fetch.service; rm -rf {CACHE}; systemctl restart limpet.service"
    ));
    scene.converge();
    assert_eq!(pids(), before);
    assert!(!machine.exists(CACHE));

    // What is in another archive is not known before it is fetched, which a plan does not do.
    scene.declare(&tool_layer(&scene, &second, "tool-2.tar.gz"));
    let plan = machine.run(&["limpet", "plan", "tip"]);
    assert!(
        plan.stdout
            .contains("what file:/opt/tool unpacks is not known before")
            || plan
                .stderr
                .contains("what file:/opt/tool unpacks is not known before"),
        "{plan:?}"
    );
    assert!(machine.exists("/opt/tool/share/old"));
    scene.converge();
    version("two");
    assert!(!machine.exists("/opt/tool/share/old"));
    assert_eq!(machine.read_file("/opt/tool/share/new"), "new");
    let after = pids();
    assert_ne!(after.0, before.0);
    assert_eq!(after.1, before.1);

    // A hostile one is refused, and what is there goes on.
    let hostile = hostile_archive();
    scene.declare(&tool_layer(&scene, &hostile, "tool-3.tar"));
    let sync = scene.sync();
    assert_eq!(sync.code(), 1, "{sync:?}");
    assert!(
        errors(&scene).contains("'../../etc/cron.d/evil' has a '..' in it"),
        "{}",
        errors(&scene)
    );
    assert!(!machine.exists("/etc/cron.d/evil"));
    assert_eq!(machine.read_file("/opt/tool/share/new"), "new");
    assert_eq!(pids(), after);

    scene.apply("");
    assert!(!machine.exists("/opt/tool"));
}

/// One that would write beside where it is unpacked.
fn hostile_archive() -> Vec<u8> {
    let directory = tempfile::tempdir().expect("there is room");
    let path: &Path = directory.path();
    std::fs::write(path.join("evil"), "* * * * * root true\n").expect("there is room");
    let mut tar = Command::new("tar");
    tar.args([
        "-cf",
        "evil.tar",
        "--absolute-names",
        "--transform=s,^,../../etc/cron.d/,",
        "evil",
    ]);
    output_of(tar.current_dir(path)).success();
    std::fs::read(path.join("evil.tar")).expect("tar wrote it")
}
