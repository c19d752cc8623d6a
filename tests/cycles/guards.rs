//! What a plan may not do by itself.

use crate::scene::Scene;

/// A layer that declares `count` files.
fn files(count: usize) -> String {
    (0..count)
        .map(|number| format!("[file.\"/srv/f{number:02}\"]\ncontent = \"{number}\"\n"))
        .collect()
}

#[test]
fn a_plan_that_removes_too_much_is_held_until_a_signed_commit_lets_it_through() {
    let scene = Scene::new(&files(20));
    scene.apply().expect(0);
    scene.push_layer(&files(2));
    scene.put("srv/f00", "somebody was here\n");
    scene
        .apply()
        .expect(1)
        .says("held a plan that removes 18 things: max_removals is 10");
    assert_eq!(scene.get("srv/f19").unwrap(), "19");
    assert_eq!(
        scene.get("srv/f00").unwrap(),
        "0",
        "drift is corrected although the plan is held"
    );

    scene.repository.write("README", "meant\n");
    scene
        .repository
        .commit(&scene.alice, "yes, really\n\nLimpet-Allow-Removals: 18\n");
    scene.repository.push();
    scene.apply().expect(0);
    assert_eq!(scene.get("srv/f19"), None);
    assert_eq!(scene.get("srv/f01").unwrap(), "1");
}

#[test]
fn report_mode_looks_and_touches_nothing() {
    let scene = Scene::new(&files(1));
    let config = scene.get("etc/limpet/limpet.toml").unwrap();
    scene.put(
        "etc/limpet/limpet.toml",
        &format!("{config}\n[apply]\nmode = \"report\"\n"),
    );
    scene
        .apply()
        .expect(1)
        .says("drifted")
        .says("file:/srv/f00 differs, only reported: missing");
    assert_eq!(scene.get("srv/f00"), None);
    let second = scene.apply().expect(1).says("drifted");
    assert!(
        !second.stderr.contains("only reported"),
        "said once: {second:?}"
    );

    scene.put("srv/f00", "0");
    let third = scene.apply().expect(0).says("converged");
    assert!(
        third.stdout.contains("it is only compared with"),
        "{third:?}"
    );

    scene.put("srv/f00", "by hand");
    scene
        .apply()
        .expect(1)
        .says("file:/srv/f00 differs, only reported: content");
    scene.put("etc/limpet/limpet.toml", &config);
    scene
        .apply()
        .expect(0)
        .says("file:/srv/f00: update (content)");
}

#[test]
fn a_resource_that_is_only_reported_is_not_touched_while_the_others_are() {
    let scene = Scene::new(&format!(
        "{}report = true\n{}",
        files(1),
        files(2).replace("/srv/f00", "/srv/other")
    ));
    scene.apply().expect(1).says("drifted");
    assert_eq!(scene.get("srv/f00"), None);
    assert_eq!(scene.get("srv/f01").unwrap(), "1");
}

#[test]
fn limpets_own_files_are_not_for_a_fleet_to_manage() {
    let scene = Scene::new("[file.\"/etc/limpet/allowed_signers\"]\ncontent = \"mallory\"\n");
    let before = scene.get("etc/limpet/allowed_signers");
    scene.apply().expect(65).says("/etc/limpet/allowed_signers");
    assert_eq!(scene.get("etc/limpet/allowed_signers"), before);
}
