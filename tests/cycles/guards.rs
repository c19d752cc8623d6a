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

/// A layer that declares one file, and what else is said of it.
fn file(path: &str, more: &str) -> String {
    format!("[file.\"{path}\"]\ncontent = \"x\"\n{more}\n")
}

#[test]
fn what_is_declared_with_prevent_removal_stays_until_that_is_taken_back() {
    let precious = |more| file("/srv/data/precious", more);
    let scene = Scene::new(&[&precious("prevent_removal = true"), &*files(2)].concat());
    scene.apply().expect(0);

    scene.push_layer(&files(1).replace("\"0\"", "\"new\""));
    scene
        .apply()
        .expect(1)
        .says("held delete file:/srv/data/precious: it was declared with prevent_removal = true")
        .says("prevent_removal = false");
    assert_eq!(scene.get("srv/data/precious").unwrap(), "x");
    assert_eq!(scene.get("srv/f01"), None, "the rest goes on");
    assert_eq!(scene.get("srv/f00").unwrap(), "new");
    scene.apply().expect(1).says("held delete");

    let absent = "[file.\"/srv/data/precious\"]\nstate = \"absent\"\n";
    scene.push_layer(&[absent, &*files(1)].concat());
    scene
        .apply()
        .expect(1)
        .says("held delete file:/srv/data/precious");

    scene.push_layer(&[&precious("prevent_removal = false"), &*files(1)].concat());
    scene.apply().expect(0);
    scene.push_layer(&files(1));
    scene.apply().expect(0);
    assert_eq!(scene.get("srv/data/precious"), None);
    assert!(
        !scene.path("srv/data").exists(),
        "with the directory it lay in"
    );
}

#[test]
fn the_directory_of_what_is_held_is_held_with_it() {
    let directory = "[directory.\"/srv/data\"]\n";
    let precious = file("/srv/data/precious", "prevent_removal = true");
    let scene = Scene::new(&[directory, &precious, &*files(1)].concat());
    scene.apply().expect(0);
    scene.push_layer(&files(1));
    let run = scene
        .apply()
        .expect(1)
        .says("held delete file:/srv/data/precious");
    assert!(!run.stderr.contains("failed"), "{run:?}");
    assert!(!run.stdout.contains("not empty"), "{run:?}");
    assert!(scene.path("srv/data/precious").exists());
}

#[test]
fn a_state_that_declares_nothing_is_held() {
    let scene = Scene::new(&files(10));
    scene.apply().expect(0);
    scene.push_layer("");
    scene.put("srv/f00", "somebody was here\n");
    scene
        .apply()
        .expect(1)
        .says("held a plan for a state that declares nothing: 10 things were declared before");
    assert_eq!(scene.get("srv/f05").unwrap(), "5");
    scene.push_layer(&files(3));
    scene.apply().expect(0);
    assert_eq!(scene.get("srv/f00").unwrap(), "0");
    assert_eq!(scene.get("srv/f05"), None);

    scene.push_layer(&files(10));
    scene.apply().expect(0);
    scene.repository.write("layers/base/base.toml", "");
    let message = "all of it\n\nLimpet-Allow-Removals: 10\n";
    scene.repository.commit(&scene.alice, message);
    scene.repository.push();
    scene.apply().expect(0);
    assert_eq!(scene.get("srv/f05"), None);
}

#[test]
fn a_state_that_lost_most_of_what_it_declared_is_held_unless_it_is_gone_back_to() {
    let scene = Scene::new(&files(2));
    for number in 2..30 {
        scene.put(&format!("srv/f{number:02}"), "before\n");
    }
    scene.apply().expect(0);
    scene.push_layer(&files(30));
    scene.apply().expect(0);

    // Every one of them would only be restored: none of that is a removal.
    scene.push_layer(&files(3));
    scene.apply().expect(1).says(
        "held a plan for a state that declares only 3 of the 30 things that were declared before",
    );
    assert_eq!(scene.get("srv/f29").unwrap(), "29");

    scene.push_layer(&files(2));
    scene.apply().expect(0);
    assert_eq!(scene.get("srv/f29").unwrap(), "before\n");
}

#[test]
fn a_file_without_which_nobody_gets_in_is_not_deleted() {
    let scene = Scene::new("");
    scene.put("etc/sudoers", "root ALL=(ALL) ALL\n");
    scene.put("etc/other", "x\n");
    scene.apply().expect(0);
    let absent = |path: &str| format!("[file.\"{path}\"]\nstate = \"absent\"\n");
    scene.push_layer(&[absent("/etc/sudoers"), absent("/etc/other")].concat());
    scene
        .apply()
        .expect(1)
        .says("held delete file:/etc/sudoers: it is the way to become root");
    assert!(scene.get("etc/sudoers").is_some());
    assert!(scene.get("etc/other").is_none());
}

#[test]
fn packages_that_the_host_cannot_do_without_stay_and_what_they_need() {
    let installed = |name: &str, more: &str| {
        format!(
            "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n{more}\n"
        )
    };
    let status = [
        installed("dpkg", "Essential: yes\n"),
        installed("openssh-server", "Depends: libssl3 (>= 3)\n"),
        installed("libssl3", ""),
        installed("lim-app", ""),
    ]
    .concat();
    let scene = Scene::new("");
    scene.put("var/lib/dpkg/status", &status);
    let config = scene.get("etc/limpet/limpet.toml").unwrap();
    let config = format!("{config}\n[apply]\nprotect_packages = [\"lim-app\"]\n");
    scene.put("etc/limpet/limpet.toml", &config);
    scene.push_layer(
        "[package]\nopenssh-server = \"absent\"\nlibssl3 = \"absent\"\nlim-app = \"absent\"\ndpkg = \"absent\"\n",
    );
    scene
        .apply()
        .expect(1)
        .says("held remove package:openssh-server: it is the ssh server")
        .says("held remove package:libssl3: it would take openssh-server along, which is the ssh server")
        .says("held remove package:lim-app: the host's protect_packages names it")
        .says("held remove package:dpkg: it is the package manager");
}

/// Commits `layer`, with `trailer` at the end of its message, and pushes it.
fn push_with(scene: &Scene, layer: &str, trailer: &str) {
    scene.repository.write("layers/base/base.toml", layer);
    let message = format!("change it\n\n{trailer}\n");
    scene.repository.commit(&scene.alice, &message);
    scene.repository.push();
}

#[test]
fn the_trailer_of_a_commit_that_a_host_jumps_over_counts_until_its_removals_are_made() {
    let scene = Scene::new(&files(40));
    scene.apply().expect(0);

    push_with(&scene, &files(22), "Limpet-Allow-Removals: 18");
    scene.push_layer(&files(22).replace("\"0\"", "\"new\""));
    scene.apply().expect(0);
    assert_eq!(scene.get("srv/f39"), None);
    assert_eq!(scene.get("srv/f00").unwrap(), "new");

    // It is used up.
    scene.push_layer(&files(10));
    scene
        .apply()
        .expect(1)
        .says("held a plan that removes 12 things: max_removals is 10");

    // The largest one on the way counts, no sum of them; also over a commit that stays held.
    push_with(&scene, &files(9), "Limpet-Allow-Removals: 12");
    push_with(&scene, &files(8), "Limpet-Allow-Removals: 4");
    scene
        .apply()
        .expect(1)
        .says("held a plan that removes 14 things: max_removals is 12");
    scene.push_layer(&files(10));
    scene.apply().expect(0);
    assert_eq!(scene.get("srv/f10"), None);
    assert_eq!(scene.get("srv/f09").unwrap(), "9");
}
