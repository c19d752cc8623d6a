//! Archives that are declared by their address and hash, and unpacked.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::downloads::{Server, hash};
use crate::scene::Scene;

/// What real tar packs of the directory that `fill` fills.
fn pack(options: &[&str], fill: impl FnOnce(&Path)) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path());
    let output = Command::new("tar")
        .args(["--create", "--directory"])
        .arg(directory.path())
        .args(options)
        .arg(".")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// An application in version `version`, with one file more than the others have.
fn application(version: &str, more: &str) -> Vec<u8> {
    pack(&["--gzip"], |directory| {
        write(
            &directory.join("bin/app"),
            &format!("app {version}\n"),
            0o775,
        );
        fs::hard_link(directory.join("bin/app"), directory.join("bin/app-too")).unwrap();
        write(&directory.join("etc/app.conf"), "port = 80\n", 0o664);
        write(&directory.join("share/same"), "same\n", 0o600);
        write(&directory.join(format!("share/{more}")), more, 0o644);
        fs::create_dir(directory.join("empty")).unwrap();
        symlink("../bin/app", directory.join("share/link")).unwrap();
    })
}

fn layer(server: &Server, archive: &[u8]) -> String {
    format!(
        "[file.\"/opt/app\"]\nurl = \"{}\"\nsha256 = \"{}\"\nunpack = true\n",
        server.url,
        hash(archive)
    )
}

#[test]
fn an_archive_is_unpacked_kept_as_it_is_brought_to_another_version_and_taken_back() {
    let (first, second) = (application("1", "old"), application("2", "new"));
    let server = Server::start(first.clone(), usize::MAX);
    let scene = Scene::new(&layer(&server, &first));
    scene.put("opt/app/mine", "somebody's\n");
    scene.put("opt/app/etc/app.conf", "before\n");
    scene.apply().expect(0);
    assert_eq!(scene.get("opt/app/bin/app").unwrap(), "app 1\n");
    assert_eq!(scene.get("opt/app/bin/app-too").unwrap(), "app 1\n");
    assert_eq!(scene.get("opt/app/share/link").unwrap(), "app 1\n");
    assert_eq!(scene.get("opt/app/share/old").unwrap(), "old");
    assert_eq!(scene.get("opt/app/etc/app.conf").unwrap(), "port = 80\n");
    assert!(scene.path("opt/app/empty").is_dir());
    // Whoever packed it let his group write; nobody but the owner may here.
    assert_eq!(scene.mode("opt/app/bin/app"), 0o755);
    assert_eq!(scene.mode("opt/app/etc/app.conf"), 0o644);
    assert_eq!(scene.mode("opt/app/share/same"), 0o600);
    let names = fs::metadata(scene.path("opt/app/bin/app")).unwrap().nlink();
    assert_eq!(names, 1, "a hard link becomes a file of its own");

    // Drift is seen and undone, from what the fetcher has.
    scene.put("opt/app/bin/app", "drift\n");
    fs::remove_file(scene.path("opt/app/share/link")).unwrap();
    fs::remove_dir(scene.path("opt/app/empty")).unwrap();
    scene.apply().expect(0);
    assert_eq!(scene.get("opt/app/bin/app").unwrap(), "app 1\n");
    assert_eq!(scene.get("opt/app/share/link").unwrap(), "app 1\n");
    assert!(scene.path("opt/app/empty").is_dir());
    assert_eq!(server.asked().len(), 1, "it was fetched once");

    // What is the same in both is left alone.
    let same = |scene: &Scene| {
        fs::metadata(scene.path("opt/app/share/same"))
            .unwrap()
            .ino()
    };
    let before = same(&scene);
    let other = Server::start(second.clone(), usize::MAX);
    scene.push_layer(&layer(&other, &second));
    scene.apply().expect(0);
    assert_eq!(scene.get("opt/app/bin/app").unwrap(), "app 2\n");
    assert_eq!(scene.get("opt/app/bin/app-too").unwrap(), "app 2\n");
    assert_eq!(scene.get("opt/app/share/new").unwrap(), "new");
    assert_eq!(scene.get("opt/app/share/old"), None);
    assert_eq!(same(&scene), before);

    scene.push_layer("");
    scene.apply().expect(0);
    let mut left: Vec<String> = fs::read_dir(scene.path("opt/app"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["etc", "mine"]);
    assert_eq!(scene.get("opt/app/etc/app.conf").unwrap(), "before\n");
    assert_eq!(scene.get("opt/app/mine").unwrap(), "somebody's\n");
}

#[test]
fn what_is_in_an_archive_is_looked_at_once_and_not_fetched_again_by_an_agent_that_starts() {
    let archive = application("1", "more");
    let server = Server::start(archive.clone(), usize::MAX);
    let scene = Scene::new(&layer(&server, &archive));
    scene.apply().expect(0);
    // Neither the server nor the fetcher has it any more.
    fs::remove_dir_all(scene.path("var/cache/limpet/artifacts")).unwrap();
    let spools = || fs::read_dir(scene.path("var/lib/limpet")).unwrap().count();
    let before = spools();
    scene.apply().expect(0).says("converged");
    assert_eq!(server.asked().len(), 1);
    assert_eq!(spools(), before);
}

#[test]
fn what_is_declared_by_itself_is_not_taken_from_the_archive() {
    let archive = application("1", "more");
    let server = Server::start(archive.clone(), usize::MAX);
    let own = "[file.\"/opt/app/etc/app.conf\"]\ncontent = \"port = 81\\n\"\nmode = \"0640\"\n";
    let scene = Scene::new(&format!("{}{own}", layer(&server, &archive)));
    scene.apply().expect(0);
    assert_eq!(scene.get("opt/app/etc/app.conf").unwrap(), "port = 81\n");
    assert_eq!(scene.mode("opt/app/etc/app.conf"), 0o640);
    scene.push_layer(&layer(&server, &archive));
    scene.apply().expect(0);
    assert_eq!(scene.get("opt/app/etc/app.conf").unwrap(), "port = 80\n");
}

#[test]
fn while_a_new_archive_cannot_be_had_the_old_one_stays_and_the_rest_goes_on() {
    let archive = application("1", "more");
    let server = Server::start(archive.clone(), usize::MAX);
    let scene = Scene::new(&layer(&server, &archive));
    scene.apply().expect(0);
    let missing = format!(
        "[file.\"/opt/app\"]\nurl = \"http://127.0.0.1:9/app-2.tar\"\nsha256 = \"{}\"\nunpack = true\n[file.\"/etc/beside\"]\ncontent = \"new\\n\"\n[directory.\"/opt/app/share\"]\npurge = true\n",
        hash(b"another")
    );
    scene.push_layer(&missing);
    scene
        .apply()
        .expect(75)
        .says("failed to get 'http://127.0.0.1:9/app-2.tar'");
    assert_eq!(scene.get("etc/beside").unwrap(), "new\n");
    for path in ["bin/app", "share/more", "share/link", "etc/app.conf"] {
        assert!(scene.get(&format!("opt/app/{path}")).is_some(), "{path}");
    }
}

#[test]
fn an_archive_with_one_bad_entry_is_refused_as_a_whole() {
    let check = |options: &[&str], fill: &dyn Fn(&Path), target: &str, why: &str| {
        let archive = pack(options, fill);
        let server = Server::start(archive.clone(), usize::MAX);
        let scene = Scene::new(&layer(&server, &archive).replace("/opt/app", target));
        scene
            .apply()
            .expect(1)
            .says(&format!("refused to unpack '{}'", server.url))
            .says(why);
        assert!(
            !scene
                .path(target.trim_start_matches('/'))
                .join("good")
                .exists()
        );
    };
    let good = |directory: &Path| write(&directory.join("good"), "good\n", 0o644);
    let escaping = |directory: &Path| {
        good(directory);
        write(&directory.join("a/x"), "evil\n", 0o644);
    };
    check(
        &[
            "--absolute-names",
            "--transform=s,a/x,../../../../etc/evil,",
        ],
        &escaping,
        "/opt/app",
        "has a '..' in it",
    );
    check(
        &["--absolute-names", "--transform=s,./a/x,/etc/evil,"],
        &escaping,
        "/opt/app",
        "'/etc/evil' is absolute",
    );
    check(
        &[],
        &|directory| {
            good(directory);
            symlink("/etc/shadow", directory.join("a")).unwrap();
        },
        "/opt/app",
        "'a' is a symbolic link to '/etc/shadow', which leads out of the archive",
    );
    check(
        &[],
        &|directory| {
            good(directory);
            write(&directory.join("su"), "", 0o4755);
        },
        "/opt/app",
        "'su' in it has mode 4755, and this host allows no setuid",
    );
    check(
        &[],
        &|directory| {
            good(directory);
            write(&directory.join("limpet/allowed_signers"), "", 0o644);
        },
        "/etc",
        "it has '/etc/limpet', which no fleet may manage: limpet's own",
    );
    check(
        &[],
        &|directory| {
            good(directory);
            let fifo = Command::new("mkfifo").arg(directory.join("pipe")).status();
            assert!(fifo.unwrap().success());
        },
        "/opt/app",
        "'pipe' is a named pipe",
    );
    check(
        &["--xz"],
        &good,
        "/opt/app",
        "it is compressed with xz; what is unpacked is tar, as it is or with gzip",
    );
}

#[test]
fn what_was_unpacked_from_one_archive_is_one_thing_to_whoever_counts_removals() {
    let many = pack(&[], |directory| {
        for number in 0..300 {
            write(
                &directory.join(format!("d/{number}")),
                &format!("{number}"),
                0o644,
            );
        }
    });
    let few = pack(&[], |directory| write(&directory.join("d/0"), "0", 0o644));
    let server = Server::start(many.clone(), usize::MAX);
    let scene = Scene::new(&layer(&server, &many));
    scene.apply().expect(0);
    assert_eq!(scene.get("opt/app/d/299").unwrap(), "299");
    let other = Server::start(few.clone(), usize::MAX);
    scene.push_layer(&layer(&other, &few));
    scene.apply().expect(0);
    assert_eq!(fs::read_dir(scene.path("opt/app/d")).unwrap().count(), 1);
    scene.push_layer("");
    scene.apply().expect(0);
    assert!(!scene.path("opt/app").exists());
}
