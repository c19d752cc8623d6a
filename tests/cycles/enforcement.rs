//! What is declared becomes so, stays so, and goes back to what it was.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::scene::Scene;

const MOTD: &str = "[file.\"/etc/motd\"]\ncontent = \"managed by git\\n\"\n";

#[test]
fn files_directories_and_links_are_made_and_a_second_cycle_changes_nothing() {
    let scene = Scene::new(
        r#"
[vars]
port = 8443

[directory."/srv/app"]
mode = "0750"

[file."/srv/app/app.conf"]
content = "port = {{ port }} on {{ host.name }}\n"
template = true
mode = "0640"

[file."/etc/motd"]
source = "motd"

[symlink."/srv/app/current"]
target = "/opt/app/v3"
"#,
    );
    scene
        .repository
        .write("layers/base/files/motd", "from a file\n");
    scene.repository.commit(&scene.alice, "add a source");
    scene.repository.push();

    scene
        .apply()
        .expect(0)
        .says("4 declared, 4 as declared, 0 failed");
    assert_eq!(
        scene.get("srv/app/app.conf").unwrap(),
        "port = 8443 on gw-1\n"
    );
    assert_eq!(scene.get("etc/motd").unwrap(), "from a file\n");
    assert_eq!(
        (
            scene.mode("srv/app"),
            scene.mode("srv/app/app.conf"),
            scene.mode("etc/motd")
        ),
        (0o750, 0o640, 0o644)
    );
    assert_eq!(
        fs::read_link(scene.path("srv/app/current"))
            .unwrap()
            .to_str(),
        Some("/opt/app/v3")
    );

    let second = scene.apply().expect(0);
    assert_eq!(second.stderr, "polling the source\n");
}

#[test]
fn drift_is_corrected_and_called_drift() {
    let scene = Scene::new(MOTD);
    scene.apply().expect(0).says("file:/etc/motd: create");
    scene.put("etc/motd", "somebody was here\n");
    scene
        .apply()
        .expect(0)
        .says("corrected drift of file:/etc/motd: update (content)");
    fs::set_permissions(scene.path("etc/motd"), fs::Permissions::from_mode(0o600)).unwrap();
    scene
        .apply()
        .expect(0)
        .says("corrected drift of file:/etc/motd: update (mode)");
    fs::remove_file(scene.path("etc/motd")).unwrap();
    scene
        .apply()
        .expect(0)
        .says("corrected drift of file:/etc/motd: create");
    assert_eq!(scene.get("etc/motd").unwrap(), "managed by git\n");
}

#[test]
fn a_new_revision_is_a_change_and_no_drift() {
    let scene = Scene::new(MOTD);
    scene.apply().expect(0);
    let commit = scene.push_layer("[file.\"/etc/motd\"]\ncontent = \"second\\n\"\n");
    let run = scene
        .apply()
        .expect(0)
        .says("file:/etc/motd: update (content)")
        .says(&commit[..7]);
    assert!(!run.stderr.contains("drift"), "{}", run.stderr);
    assert_eq!(scene.get("etc/motd").unwrap(), "second\n");
}

#[test]
fn what_is_no_longer_declared_becomes_what_it_was() {
    let scene = Scene::new(&format!(
        "{MOTD}\n[file.\"/srv/new/deep/file\"]\ncontent = \"new\\n\"\n"
    ));
    scene.put("etc/motd", "Debian's own\n");
    fs::set_permissions(scene.path("etc/motd"), fs::Permissions::from_mode(0o664)).unwrap();
    scene.apply().expect(0);
    assert_eq!(scene.get("srv/new/deep/file").unwrap(), "new\n");

    scene.push_layer("[file.\"/etc/other\"]\ncontent = \"other\\n\"\n");
    scene.apply().expect(0);
    assert_eq!(scene.get("etc/motd").unwrap(), "Debian's own\n");
    assert_eq!(scene.mode("etc/motd"), 0o664);
    assert!(
        !scene.path("srv/new").exists(),
        "parents that were made for a file go with it"
    );
}

#[test]
fn a_file_declared_absent_is_removed_and_comes_back_when_it_is_undeclared() {
    let scene = Scene::new("[file.\"/etc/legacy.conf\"]\nstate = \"absent\"\n");
    scene.put("etc/legacy.conf", "old\n");
    scene.apply().expect(0);
    assert_eq!(scene.get("etc/legacy.conf"), None);
    scene.push_layer(MOTD);
    scene.apply().expect(0);
    assert_eq!(scene.get("etc/legacy.conf").unwrap(), "old\n");
}

#[test]
fn only_the_declared_keys_of_an_existing_file_are_managed() {
    let scene = Scene::new("[file.\"/etc/secret\"]\nmode = \"0600\"\n");
    scene.put("etc/secret", "theirs\n");
    scene.apply().expect(0);
    assert_eq!(
        (
            scene.get("etc/secret").unwrap().as_str(),
            scene.mode("etc/secret")
        ),
        ("theirs\n", 0o600)
    );
    scene.put("etc/secret", "theirs, changed\n");
    let run = scene.apply().expect(0);
    assert!(!run.stderr.contains("drift"), "{}", run.stderr);
}

#[test]
fn a_failure_stops_what_depends_on_it_and_nothing_else() {
    let scene = Scene::new(
        r#"
[file."/etc/bad.conf"]
content = "bad\n"
validate = ["false", "{}"]

[file."/etc/needs-bad.conf"]
content = "x\n"
needs = ["file:/etc/bad.conf"]

[file."/etc/good.conf"]
content = "good\n"
validate = ["grep", "-q", "good", "{}"]
"#,
    );
    scene
        .apply()
        .expect(1)
        .says("file:/etc/bad.conf")
        .says("skipped create file:/etc/needs-bad.conf, because file:/etc/bad.conf failed");
    assert_eq!(scene.get("etc/bad.conf"), None);
    assert_eq!(scene.get("etc/needs-bad.conf"), None);
    assert_eq!(scene.get("etc/good.conf").unwrap(), "good\n");
}

#[test]
fn the_last_revision_is_enforced_when_the_source_is_gone() {
    let scene = Scene::new(MOTD);
    scene.apply().expect(0);
    fs::rename(
        scene.repository.server(),
        scene.repository.directory().join("away"),
    )
    .unwrap();
    scene.put("etc/motd", "somebody was here\n");
    scene.apply().expect(75).says("unreachable");
    assert_eq!(scene.get("etc/motd").unwrap(), "managed by git\n");
}

#[test]
fn a_path_that_leads_through_a_foreign_link_is_refused() {
    let scene = Scene::new(
        "[file.\"/srv/data/app.conf\"]\ncontent = \"x\\n\"\n\n[file.\"/etc/motd\"]\ncontent = \"fine\\n\"\n",
    );
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(scene.path("srv")).unwrap();
    fs::set_permissions(scene.path("srv"), fs::Permissions::from_mode(0o777)).unwrap();
    std::os::unix::fs::symlink(outside.path(), scene.path("srv/data")).unwrap();
    scene.apply().expect(1).says("/srv");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(scene.get("etc/motd").unwrap(), "fine\n");
}

#[test]
fn local_root_may_apply_a_working_tree_without_signatures_and_must_say_so() {
    let scene = Scene::new(MOTD);
    let work = scene.repository.work();
    let work = work.to_str().unwrap();
    scene.repository.write(
        "layers/base/base.toml",
        "[file.\"/etc/motd\"]\ncontent = \"not committed\\n\"\n",
    );
    scene
        .limpet(&["apply", "--once", "--source", work, "--unverified"])
        .expect(0);
    assert_eq!(scene.get("etc/motd").unwrap(), "not committed\n");
    scene
        .limpet(&[
            "apply",
            "--once",
            "--source",
            "https://127.0.0.1:1/x.git",
            "--unverified",
        ])
        .expect(78);
}
