//! What is not trusted or is wrong changes nothing, and the old revision stays enforced.

use std::fs;

use crate::scene::Scene;

const MOTD: &str = "[file.\"/etc/motd\"]\ncontent = \"managed by git\\n\"\n";

/// Drifts /etc/motd, runs a cycle that must end with `code` and say `reason`, and sees the old revision enforced.
#[track_caller]
fn check(scene: &Scene, code: i32, reason: &str) {
    scene.put("etc/motd", "somebody was here\n");
    scene.apply().expect(code).says(reason);
    assert_eq!(scene.get("etc/motd").unwrap(), "managed by git\n");
    assert_eq!(scene.get("etc/evil"), None);
}

/// A machine that applied its first revision, and whose work tree now declares something evil.
fn scene() -> Scene {
    let scene = Scene::new(MOTD);
    scene.apply().expect(0);
    scene.repository.write(
        "layers/base/base.toml",
        &format!("{MOTD}\n[file.\"/etc/evil\"]\ncontent = \"evil\"\n"),
    );
    scene
}

#[test]
fn an_unsigned_commit_is_refused() {
    let scene = scene();
    scene.repository.commit_unsigned("evil");
    scene.repository.push();
    check(&scene, 77, "it has no signature");
}

#[test]
fn an_unsigned_commit_below_a_signed_one_is_refused() {
    let scene = scene();
    scene.repository.commit_unsigned("evil");
    scene.repository.write("README", "harmless\n");
    scene.repository.commit(&scene.alice, "harmless");
    scene.repository.push();
    check(&scene, 77, "it has no signature");
}

#[test]
fn a_commit_by_an_unknown_key_is_refused() {
    let scene = scene();
    let mallory = scene.repository.key("mallory");
    scene.repository.commit(&mallory, "evil");
    scene.repository.push();
    check(&scene, 77, "is not in '/etc/limpet/allowed_signers'");
}

#[test]
fn a_rewritten_history_is_refused() {
    let scene = scene();
    // The next commit has no parent: another history, by a key that may sign.
    scene.repository.git(&["update-ref", "-d", "HEAD"]);
    scene.repository.commit(&scene.alice, "rewritten");
    scene.repository.force_push();
    check(&scene, 77, "it does not descend from the trusted revision");
}

#[test]
fn a_rewound_branch_is_behind_and_nothing_goes_back() {
    let scene = scene();
    let first = scene.repository.id("HEAD");
    scene.push_layer("[file.\"/etc/motd\"]\ncontent = \"second\\n\"\n");
    scene.apply().expect(0);
    scene.repository.reset(&first);
    scene.repository.force_push();
    scene.put("etc/motd", "somebody was here\n");
    scene.apply().says("is older than the trusted revision");
    assert_eq!(scene.get("etc/motd").unwrap(), "second\n");
}

#[test]
fn an_authors_mistake_is_told_with_its_place_and_mended_by_the_next_commit() {
    let scene = scene();
    scene.push_layer("[file.\"/etc/motd\"]\ncontent = \"x\"\nowmer = \"root\"\n");
    check(&scene, 65, "layers/base/base.toml:3:1");
    scene.push_layer("[file.\"/etc/motd\"]\ncontent = \"mended\\n\"\n");
    scene.apply().expect(0);
    assert_eq!(scene.get("etc/motd").unwrap(), "mended\n");
}

#[test]
fn a_host_that_lost_its_database_enforces_and_accepts_nothing_new() {
    let scene = scene();
    for file in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = fs::remove_file(scene.path("var/lib/limpet").join(file));
    }
    scene.push_layer(&format!(
        "{MOTD}\n[file.\"/etc/evil\"]\ncontent = \"new\"\n"
    ));
    check(&scene, 77, "state-missing");
    // And again: the loss is not forgotten by the next run.
    check(&scene, 77, "state-missing");
}

#[test]
fn a_revoked_key_is_refused_from_the_next_commit_on() {
    let scene = scene();
    scene.put(
        "etc/limpet/revoked",
        &format!("{}\n", scene.alice.fingerprint),
    );
    scene.repository.commit(&scene.alice, "evil");
    scene.repository.push();
    check(&scene, 77, "is revoked");
}

#[test]
fn a_missing_revoked_file_is_no_empty_one() {
    let scene = scene();
    fs::remove_file(scene.path("etc/limpet/revoked")).unwrap();
    scene.repository.commit(&scene.alice, "evil");
    scene.repository.push();
    check(&scene, 77, "/etc/limpet/revoked");
}

#[test]
fn an_anchor_that_is_not_in_the_history_is_refused() {
    let scene = Scene::new(MOTD);
    let config = scene.get("etc/limpet/limpet.toml").unwrap();
    let id = scene.repository.id("HEAD");
    scene.put(
        "etc/limpet/limpet.toml",
        &config.replace(&id, &"1".repeat(40)),
    );
    scene.apply().expect(77);
    assert_eq!(scene.get("etc/motd"), None);
}

#[test]
fn a_wrong_host_configuration_is_told_with_its_place() {
    let scene = Scene::new(MOTD);
    let config = scene.get("etc/limpet/limpet.toml").unwrap();
    scene.put(
        "etc/limpet/limpet.toml",
        &config.replace("[source]", "[source]\nbranhc = \"main\""),
    );
    scene
        .apply()
        .expect(78)
        .says("/etc/limpet/limpet.toml:2:1")
        .says("branch");
}
