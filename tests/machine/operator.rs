//! What an operator asks of a host, and what it answers.

use serde_json::Value;

use crate::fixture::machine::{Output, wait_until};
use crate::scene::{LAYER, SOON, Scene};

const PLAIN: &str = "[file.\"/etc/scene\"]\ncontent = \"one\\n\"\n";

/// `limpet` as olga, a member of the operators' group.
pub fn as_operator(scene: &Scene, arguments: &[&str]) -> Output {
    let user = [
        "setpriv",
        "--reuid=olga",
        "--regid=olga",
        "--init-groups",
        "limpet",
    ];
    scene.machine.run(&[&user[..], arguments].concat())
}

/// What a command with `--json` printed.
pub fn object(output: Output) -> Value {
    serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("it prints an object: {error}: {output:?}"))
}

fn texts<'a>(values: &'a Value, key: &str) -> Vec<&'a str> {
    let values = values.as_array().expect("a list");
    values
        .iter()
        .map(|value| value[key].as_str().unwrap_or_default())
        .collect()
}

#[test]
fn the_history_tells_who_changed_what_and_keeps_secrets() {
    let secret = "[file.\"/etc/secret\"]\ncontent = \"swordfish-1\\n\"\nmode = \"0600\"\n";
    let scene = Scene::enrolled("history", &format!("{PLAIN}{secret}"));
    let machine = &scene.machine;
    machine.sh("useradd --groups limpet-operators olga; useradd stranger");
    scene.apply(
        &format!("{PLAIN}{secret}")
            .replace("one", "two")
            .replace("fish-1", "fish-2"),
    );
    let second = scene.head();
    machine.write_file("/etc/scene", "by hand\n");
    scene.converge();
    scene.repository.write(LAYER, PLAIN);
    let refused = scene.push_unsigned();
    assert_eq!(scene.sync().code(), 77);

    let told = object(as_operator(&scene, &["history", "--json"]));
    assert_eq!(told["host"], "scene");
    assert_eq!(
        texts(&told["runs"], "event"),
        ["refused", "drift-corrected", "applied", "applied"],
        "{told:#}"
    );
    assert_eq!(told["runs"][0]["revision"], refused.as_str());
    assert_eq!(told["runs"][2]["revision"], second.as_str());
    assert!(
        told["runs"][2]["signer"]
            .as_str()
            .is_some_and(|signer| signer.contains("alice"))
    );
    assert_eq!(told["more"], false);
    assert_eq!(
        object(as_operator(&scene, &["history", "--json", "-n", "1"]))["more"],
        true
    );

    let diff = as_operator(&scene, &["history", "--diff", &second[..7]]).success();
    assert!(diff.contains("-one\n") && diff.contains("+two\n"), "{diff}");
    assert!(diff.contains("-by hand\n"), "{diff}");
    assert!(diff.contains("/etc/secret differs (not shown"), "{diff}");
    assert!(!diff.contains("swordfish"), "{diff}");
    let of_resource = as_operator(&scene, &["history", "--diff", "/etc/scene"]).success();
    assert!(
        of_resource.contains("drift corrected") && !of_resource.contains("/etc/secret"),
        "{of_resource}"
    );
    assert_ne!(
        as_operator(&scene, &["history", "--diff", "/etc/nothing"]).code(),
        0
    );
    let stranger = machine.run(&[
        "setpriv",
        "--reuid=stranger",
        "--regid=stranger",
        "--clear-groups",
        "limpet",
        "history",
    ]);
    assert_eq!(stranger.code(), 1, "{stranger:?}");

    machine.sh("systemctl stop limpet.service");
    let alone = object(machine.run(&["limpet", "history", "--json"]));
    assert_eq!(alone["runs"], told["runs"]);
}

#[test]
fn why_finds_the_place_of_every_value() {
    let scene = Scene::prepared(
        "why",
        "[vars]\ngreeting = \"hello\"\ntoken = \"swordfish\"\n\n\
         [file.\"/etc/scene\"]\ncontent = \"{{ greeting }} {{ host.name }}\\n\"\ntemplate = true\n\n\
         [file.\"/etc/secret\"]\ncontent = \"{{ token }} is sword\\n\"\ntemplate = true\nmode = \"0600\"\n\n\
         [unit.\"scene.service\"]\ncontent = \"[Service]\\nExecStart=/bin/sleep infinity\\n\"\nrunning = true\nrestart_on = [\"file:/etc/scene\"]\n",
    );
    let machine = &scene.machine;
    machine.write_file("/etc/scene", "before\n");
    scene.enroll().success();
    scene.converge();
    machine.sh("useradd --groups limpet-operators olga");

    let why = object(as_operator(&scene, &["why", "/etc/scene", "--json"]));
    assert_eq!(why["revision"], scene.head().as_str());
    let resource = &why["resource"];
    assert_eq!(resource["resource"], "file:/etc/scene");
    assert_eq!(resource["state"], "as declared");
    let values = &resource["values"];
    assert_eq!(texts(values, "key"), ["content", "template"]);
    assert_eq!(values[0]["location"]["file"], LAYER);
    assert_eq!(values[0]["location"]["line"], 6);
    assert_eq!(values[0]["layer"], "base");
    assert_eq!(texts(&resource["variables"], "key"), ["greeting"]);
    assert_eq!(resource["variables"][0]["value"], "\"hello\"");
    assert_eq!(resource["names"], serde_json::json!(["host.name"]));
    assert_eq!(resource["restarts"][0]["resource"], "unit:scene.service");
    let unknown = as_operator(&scene, &["why", "fiel:/etc/scene"]);
    assert_eq!(unknown.code(), 1, "{unknown:?}");
    assert!(
        unknown
            .stderr
            .contains("expected kind:name with a kind of repository, package"),
        "{unknown:?}"
    );
    assert!(
        resource["original"]
            .as_str()
            .is_some_and(|text| text.contains("7 bytes")),
        "{why:#}"
    );
    assert_eq!(resource["last_change"]["action"], "update");
    assert_eq!(resource["last_drift"], Value::Null);

    let unit = object(as_operator(&scene, &["why", "scene", "--json"]));
    assert_eq!(
        unit["resource"]["restarted_by"][0]["resource"], "file:/etc/scene",
        "{unit:#}"
    );
    let of_file = object(as_operator(
        &scene,
        &["why", "/etc/systemd/system/scene.service", "--json"],
    ));
    assert_eq!(of_file["resource"]["resource"], "unit:scene.service");

    let hidden = as_operator(&scene, &["why", "/etc/secret"]).success();
    assert!(
        hidden.contains("not shown") && !hidden.contains("sword"),
        "{hidden}"
    );
    let shown = machine.run(&["limpet", "why", "/etc/secret"]).success();
    assert!(shown.contains("swordfish"), "{shown}");

    let host = object(as_operator(&scene, &["why", "--json"]));
    assert_eq!(texts(&host["layers"], "name"), ["base"]);
    assert!(
        host["layers"][0]["because"]
            .as_str()
            .is_some_and(|text| text.starts_with("fleet.toml:4")),
        "{host:#}"
    );
    assert_eq!(host["facts"]["os"], "debian");

    let unknown = as_operator(&scene, &["why", "/etc/scen"]);
    assert_eq!(unknown.code(), 1);
    assert!(
        unknown.stdout.contains("did you mean file:/etc/scene"),
        "{unknown:?}"
    );
    scene.apply("");
    let once = as_operator(&scene, &["why", "/etc/scene"]);
    assert_eq!(once.code(), 1);
    assert!(
        once.stdout.contains("is not declared") && once.stdout.contains("restore"),
        "{once:?}"
    );
}

#[test]
fn a_plan_of_another_revision_or_a_working_tree_changes_nothing() {
    let scene = Scene::enrolled("plan-rev", PLAIN);
    let machine = &scene.machine;
    let first = scene.head();
    scene.apply(&PLAIN.replace("one", "two"));

    let plan = machine.run(&["limpet", "plan", &first[..8], "--json"]);
    assert_eq!(plan.code(), 2, "{plan:?}");
    let plan = object(plan);
    assert_eq!(plan["revision"], first.as_str());
    assert_eq!(plan["conditions"][0]["type"], "behind", "{plan:#}");
    assert!(
        plan["changes"][0]["diff"]
            .as_str()
            .is_some_and(|diff| diff.contains("+one")),
        "{plan:#}"
    );

    scene.repository.write(LAYER, &PLAIN.replace("one", "evil"));
    let evil = scene.push_unsigned();
    let plan = machine.run(&["limpet", "plan", &evil]);
    assert_eq!(plan.code(), 2, "{plan:?}");
    assert!(
        plan.stdout
            .contains("refused: this revision would not be applied"),
        "{plan:?}"
    );
    assert!(plan.stdout.contains("+evil"), "{plan:?}");
    assert!(
        machine
            .run(&["limpet", "plan", "tip"])
            .stdout
            .contains("+evil")
    );
    assert_eq!(machine.run(&["limpet", "plan", "0123456"]).code(), 1);

    // One that would change nothing is refused all the same.
    scene.repository.write(LAYER, &PLAIN.replace("one", "two"));
    scene.push_unsigned();
    let plan = machine.run(&["limpet", "plan", "tip"]);
    assert_eq!(plan.code(), 77, "{plan:?}");
    assert!(plan.stdout.contains("nothing to change"), "{plan:?}");

    machine.write_file(
        "/root/fleet/fleet.toml",
        "format = 1\nfleet = \"tests\"\n\n[[match]]\nhosts = [\"*\"]\nlayers = [\"base\"]\n",
    );
    machine.write_file(
        "/root/fleet/layers/base/scene.toml",
        PLAIN.replace("one", "draft"),
    );
    let plan = machine.run(&["limpet", "plan", "--source", "/root/fleet"]);
    assert_eq!(plan.code(), 2, "{plan:?}");
    assert!(
        plan.stdout.contains("unverified") && plan.stdout.contains("+draft"),
        "{plan:?}"
    );
    machine.write_file(
        "/root/fleet/layers/base/scene.toml",
        PLAIN.replace("one", "two"),
    );
    assert_eq!(
        machine
            .run(&["limpet", "plan", "--source", "/root/fleet"])
            .code(),
        0
    );

    assert_eq!(machine.read_file("/etc/scene"), "two\n");
    machine.sh("useradd --groups limpet-operators olga");
    assert_eq!(
        as_operator(&scene, &["plan", &first]).code(),
        1,
        "only root"
    );
}

#[test]
fn a_host_that_only_reports_is_left_alone_and_says_so_once() {
    let scene = Scene::prepared("report-host", PLAIN);
    let machine = &scene.machine;
    machine.write_file(
        "/etc/limpet/limpet.toml.d/report.toml",
        "[apply]\nmode = \"report\"\n",
    );
    machine.write_file("/etc/scene", "by hand\n");
    scene.enroll().success();
    assert_eq!(scene.sync().code(), 1);
    scene.sync();
    let status = scene.status();
    assert_eq!(status["state"], "drifted", "{status:#}");
    assert_eq!(status["revision"], scene.head().as_str());
    assert_eq!(status["applied_at"], Value::Null);
    assert_eq!(status["drift"][0]["resource"], "file:/etc/scene");
    assert_eq!(status["resources"]["converged"], 0);
    assert_eq!(scene.planned(), ["file:/etc/scene update differs"]);
    assert_eq!(machine.read_file("/etc/scene"), "by hand\n");
    let lines = || machine.journal(&["LIMPET_OUTCOME=reported"]).len();
    assert_eq!(
        wait_until("the line", SOON, || Some(lines())
            .filter(|lines| *lines > 0)),
        1
    );
    machine.sh("systemctl restart limpet.service");
    scene.sync();
    assert_eq!(lines(), 1, "said once, whatever restarts");
    let shown = machine.run(&["limpet", "status"]).success();
    assert!(
        shown.contains("○ drifted since") && shown.contains("next:"),
        "{shown}"
    );

    machine.sh("rm /etc/limpet/limpet.toml.d/report.toml; systemctl reload limpet.service");
    scene.converge();
    assert_eq!(machine.read_file("/etc/scene"), "one\n");
}

#[test]
fn looking_waits_for_nobody_who_changes_the_machine() {
    let scene = Scene::enrolled("look", PLAIN);
    let machine = &scene.machine;
    scene.declare(
        "[file.\"/etc/scene\"]\ncontent = \"slow\\n\"\nvalidate = [\"/bin/sh\", \"-c\", \"sleep 20; test -f $0\", \"{}\"]\n",
    );
    machine.run(&["limpet", "sync"]).success();
    let is_applying = || scene.status()["state"] == "applying";
    wait_until("the slow step", SOON, || is_applying().then_some(()));
    for question in [&["history"][..], &["why", "/etc/scene"]] {
        let command = [&["timeout", "8", "limpet"][..], question].concat();
        machine.run(&command).success();
    }
    assert!(is_applying(), "the answers came while it was still at work");
    scene.converge();
}
