//! Mistakes of the author: the old state stays enforced, and the status names the place.

use crate::operator::as_operator;
use crate::scene::{LAYER, Scene};

const GOOD: &str = "[file.\"/etc/scene\"]\ncontent = \"good\\n\"\n";

#[test]
fn a_mistake_in_the_repository_is_reported_with_its_place_and_nothing_changes() {
    let scene = Scene::enrolled("mistakes", GOOD);
    for (layer, line, part) in [
        (
            "[file.\"/etc/scene\"]\ncontent = \"bad\\n\"\nowmer = \"root\"\n",
            3,
            "owmer",
        ),
        (
            "[file.\"/etc/scene\"]\ncontent = \"bad\\n\"\nmode = 644\n",
            3,
            "mode",
        ),
        (
            "[file.\"/etc/scene\"]\nsource = \"no-such-file\"\n",
            2,
            "no-such-file",
        ),
        ("[file.\"/etc/scene\"\ncontent = \"bad\\n\"\n", 1, ""),
        (
            "[file.\"/etc/scene\"]\ncontent = \"{{ unknown }}\"\ntemplate = true\n",
            2,
            "unknown",
        ),
        (
            "[file.\"/etc/scene\"]\ncontent = \"bad\\n\"\nneeds = [\"package:nowhere\"]\n",
            3,
            "package:nowhere",
        ),
        (
            "[file.\"etc/scene\"]\ncontent = \"bad\\n\"\n",
            1,
            "etc/scene",
        ),
        (
            "[file.\"/etc/shadow\"]\ncontent = \"bad\\n\"\n",
            1,
            "/etc/shadow",
        ),
        ("[package]\ncurl = \"latest\"\n", 2, "latest"),
    ] {
        scene.declare(layer);
        let sync = scene.sync();
        assert_eq!(sync.code(), 65, "{layer}: {sync:?}");
        let status = scene.status();
        assert_eq!(status["state"], "degraded", "{layer}: {status:#}");
        let error = &status["errors"][0];
        assert_eq!(error["class"], "author", "{layer}: {status:#}");
        assert_eq!(error["location"]["file"], LAYER, "{layer}: {status:#}");
        assert_eq!(error["location"]["line"], line, "{layer}: {status:#}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains(part), "{layer}: {message}");
        scene.machine.sh("echo drift > /etc/scene");
        assert_eq!(scene.sync().code(), 65);
        assert_eq!(scene.machine.read_file("/etc/scene"), "good\n", "{layer}");
    }
    scene.apply(&GOOD.replace("good", "better"));
    assert_eq!(scene.machine.read_file("/etc/scene"), "better\n");
}

#[test]
fn a_host_that_nothing_matches_keeps_what_it_has() {
    let scene = Scene::enrolled("unmatched", GOOD);
    scene.repository.write(
        "fleet.toml",
        "format = 1\nfleet = \"tests\"\n\n[[match]]\nhosts = [\"other-*\"]\nlayers = [\"base\"]\n",
    );
    scene.push_signed(&scene.alice);
    assert_eq!(scene.sync().code(), 65);
    assert_eq!(scene.machine.read_file("/etc/scene"), "good\n");
    let errors = scene.status()["errors"].to_string();
    assert!(errors.contains("no layers for host"), "{errors}");
}

#[test]
fn a_plan_that_removes_too_much_is_held() {
    let files: String = (0..12)
        .map(|number| format!("[file.\"/srv/held/{number}\"]\ncontent = \"x\"\n"))
        .collect();
    let scene = Scene::enrolled("held", &files);
    let machine = &scene.machine;
    machine.sh("useradd --groups limpet-operators olga");
    scene.declare("");
    assert_eq!(scene.sync().code(), 1);
    let status = scene.status();
    assert_eq!(status["state"], "held");
    let conditions = status["conditions"].to_string();
    let why = "held a plan that removes 12 things: max_removals is 10";
    assert!(conditions.contains(why), "{status:#}");
    let plan = machine.run(&["limpet", "plan", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).expect("it prints an object");
    assert_eq!(plan["changes"], serde_json::json!([]), "{plan:#}");
    assert_eq!(plan["held"].as_array().map(Vec::len), Some(13), "{plan:#}");
    let shown = machine.run(&["limpet", "status"]).stdout;
    assert!(shown.contains(why), "{shown}");

    // Whoever may only look and poll may not let it through.
    let refused = as_operator(&scene, &["sync", "--wait", "--allow-removals"]);
    assert_ne!(refused.code(), 0, "{refused:?}");
    assert!(refused.stderr.contains("root"), "{refused:?}");
    assert_eq!(scene.status()["state"], "held");
    assert!(machine.exists("/srv/held/11"));

    machine
        .run(&["limpet", "sync", "--wait", "--allow-removals"])
        .success();
    let history = machine.sh("limpet history");
    assert!(
        history.contains("that removes 12 things") && history.contains("by root"),
        "{history}"
    );
    assert!(!scene.machine.exists("/srv/held"));
    scene.converge();
}

#[test]
fn a_bad_host_configuration_keeps_the_running_one() {
    let scene = Scene::enrolled("config", GOOD);
    let machine = &scene.machine;
    machine.write_file(
        "/etc/limpet/limpet.toml.d/zz.toml",
        "[source]\nintervall = \"60s\"\n",
    );
    machine.run(&["systemctl", "reload", "limpet.service"]);
    machine.sh("echo drift > /etc/scene");
    scene.sync();
    assert_eq!(machine.read_file("/etc/scene"), "good\n");
    let logged = machine.sh("journalctl -q -t limpet -p warning -o cat");
    assert!(logged.contains("zz.toml:2"), "{logged}");
    machine.sh("rm /etc/limpet/limpet.toml.d/zz.toml; systemctl reload limpet.service");
    scene.converge();
}
