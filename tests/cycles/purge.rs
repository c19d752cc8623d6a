//! Trees, and directories of which only what is declared is kept.

use std::fs;
use std::os::unix::fs::symlink;

use limpet::cycle::audit;
use limpet::record::Record;
use limpet::report::history::Event;

use crate::scene::Scene;

const TREE: &str = "[tree.\"/etc/app\"]\nsource = \"app\"\n";
const PURGED: &str = "[directory.\"/etc/conf.d\"]\npurge = true\nignore = [\"*.local\", \"keep/this\"]\n\
                      [file.\"/etc/conf.d/declared\"]\ncontent = \"declared\\n\"\n\
                      [file.\"/etc/conf.d/deep/er/declared\"]\ncontent = \"declared\\n\"\n";

/// What is below `directory`, in order.
fn below(scene: &Scene, directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![scene.path(directory)];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            }
            let path = entry.path();
            let path = path.strip_prefix(scene.path(directory)).unwrap();
            found.push(path.to_str().unwrap().to_owned());
        }
    }
    found.sort();
    found
}

#[track_caller]
fn nothing_to_do(scene: &Scene) {
    assert_eq!(scene.apply().expect(0).stderr, "polling the source\n");
}

#[test]
fn a_tree_is_a_directory_file_by_file_and_follows_it() {
    let scene = Scene::new("");
    let files = "layers/base/files/app";
    scene
        .repository
        .write(&format!("{files}/plain"), "{{ as it is }}\n");
    scene.repository.write(
        &format!("{files}/conf.d/name.conf.j2"),
        "name {{ host.name }}\n",
    );
    scene.push_layer(TREE);
    scene.apply().expect(0);
    assert_eq!(
        below(&scene, "etc/app"),
        ["conf.d", "conf.d/name.conf", "plain"]
    );
    assert_eq!(scene.get("etc/app/plain").unwrap(), "{{ as it is }}\n");
    assert_eq!(
        scene.get("etc/app/conf.d/name.conf").unwrap(),
        "name gw-1\n"
    );

    // Drift is undone; another file comes, one goes, and with it the directory that held it.
    scene.put("etc/app/plain", "drift\n");
    scene.put("etc/app/foreign", "somebody else's\n");
    scene.repository.write(&format!("{files}/new"), "new\n");
    scene
        .repository
        .remove(&format!("{files}/conf.d/name.conf.j2"));
    scene.push_layer(&format!("{TREE}mode = \"0600\"\n"));
    scene.apply().expect(0);
    assert_eq!(below(&scene, "etc/app"), ["foreign", "new", "plain"]);
    assert_eq!(scene.get("etc/app/plain").unwrap(), "{{ as it is }}\n");
    assert_eq!(scene.mode("etc/app/plain"), 0o600);
    nothing_to_do(&scene);

    scene.push_layer("");
    scene.apply().expect(0);
    assert_eq!(below(&scene, "etc/app"), ["foreign"]);
}

#[test]
fn what_nobody_declares_in_a_purged_directory_goes_and_is_given_back() {
    let scene = Scene::new("");
    scene.put("etc/conf.d/old", "old\n");
    scene.put("etc/conf.d/mine.local", "stays\n");
    scene.put(
        "etc/conf.d/deep/er/undeclared",
        "its directory is not purged\n",
    );
    scene.put("etc/conf.d/whole/inner/one", "one\n");
    scene.put("etc/conf.d/keep/this", "stays\n");
    scene.put("etc/conf.d/keep/that", "goes\n");
    symlink("/nowhere", scene.path("etc/conf.d/link")).unwrap();
    let before = below(&scene, "etc/conf.d");
    scene.push_layer(PURGED);
    scene.limpet(&["plan"]);
    scene.apply().expect(0);
    let purged = [
        "declared",
        "deep",
        "deep/er",
        "deep/er/declared",
        "deep/er/undeclared",
        "keep",
        "keep/this",
        "mine.local",
    ];
    assert_eq!(below(&scene, "etc/conf.d"), purged);
    nothing_to_do(&scene);
    assert_eq!(below(&scene, "etc/conf.d"), purged);

    // What comes later is drift, and told as the directory's.
    scene.put("etc/conf.d/later", "later\n");
    scene
        .apply()
        .expect(0)
        .says("delete directory:/etc/conf.d (/etc/conf.d/later)");
    assert_eq!(below(&scene, "etc/conf.d"), purged);
    let record = Record::open_read_only(&scene.path("var/lib/limpet/state.db")).unwrap();
    let told = audit::history(&record, "gw-1", 1, Some("directory:/etc/conf.d")).unwrap();
    assert_eq!(told.runs[0].event, Event::DriftCorrected, "{told:#?}");
    assert_eq!(told.runs[0].changes[0].action, "delete", "{told:#?}");
    drop(record);

    scene.repository.write("layers/base/base.toml", "");
    let message = "declare nothing\n\nLimpet-Allow-Removals: 20";
    scene.repository.commit(&scene.alice, message);
    scene.repository.push();
    scene.apply().expect(0);
    let mut given_back = before;
    given_back.push("later".to_owned());
    given_back.sort();
    assert_eq!(below(&scene, "etc/conf.d"), given_back);
    assert_eq!(scene.get("etc/conf.d/whole/inner/one").unwrap(), "one\n");
}

#[test]
fn a_purged_tree_keeps_only_what_the_repository_has() {
    let scene = Scene::new("");
    scene
        .repository
        .write("layers/base/files/app/sub/one", "one\n");
    scene.put("etc/app/foreign", "");
    scene.put("etc/app/sub/foreign", "");
    scene.push_layer(&format!("{TREE}purge = true\n"));
    scene.apply().expect(0);
    assert_eq!(below(&scene, "etc/app"), ["sub", "sub/one"]);
}

#[test]
fn many_that_would_go_are_held() {
    let scene = Scene::new("");
    for number in 0..12 {
        scene.put(&format!("etc/conf.d/{number}"), "");
    }
    scene.push_layer("[directory.\"/etc/conf.d\"]\npurge = true\n");
    scene.apply().expect(1).says("removes 12 things");
    assert_eq!(below(&scene, "etc/conf.d").len(), 12);
}

#[test]
fn a_directory_where_others_may_write_is_not_purged() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new("");
    scene.put("srv/open/one", "");
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(scene.path("srv/open"), open).unwrap();
    scene.push_layer("[directory.\"/srv/open\"]\npurge = true\n");
    scene
        .apply()
        .expect(1)
        .says("refused to work in directory '/srv/open'");
    assert_eq!(below(&scene, "srv/open"), ["one"]);
}
