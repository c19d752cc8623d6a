//! From an installed package to a host that is run from a repository.

use crate::scene::{SUBJECT, Scene, event};

const LAYER: &str = "[file.\"/etc/scene\"]\ncontent = \"enrolled\\n\"\n";

#[test]
fn an_enrolled_host_converges() {
    let scene = Scene::prepared("enrol", LAYER);
    let machine = &scene.machine;
    scene.enroll().success();
    for unit in ["limpet.service", "limpet-fetch.socket"] {
        assert!(machine.is_active(unit), "{unit}");
    }
    scene.converge();
    assert_eq!(machine.read_file("/etc/scene"), "enrolled\n");
    assert_eq!(machine.ownership("/etc/scene"), "root:root 644");

    let status = scene.status();
    assert_eq!(status["host"], "scene");
    assert_eq!(status["subject"], SUBJECT);
    assert_eq!(status["resources"]["total"], 1);
    assert_eq!(status["resources"]["converged"], 1);
    assert_eq!(status["errors"], serde_json::json!([]));
    assert!(status["signer"].is_string(), "{status:#}");

    let applied = scene.event(event::REVISION_APPLIED);
    assert_eq!(applied["SYSLOG_IDENTIFIER"], "limpet");
    assert_eq!(applied["LIMPET_REVISION"], scene.head().as_str());
    assert!(applied["LIMPET_SIGNER"].is_string(), "{applied:#}");

    assert_eq!(
        machine.ownership("/run/limpet/control.sock"),
        "root:limpet-operators 660"
    );
    assert_eq!(machine.ownership("/run/limpet/fetch.sock"), "root:root 600");
    assert_eq!(
        machine.ownership("/var/lib/limpet/state.db"),
        "root:root 600"
    );
    assert!(machine.exists("/etc/limpet/enrolled"));
    let shown = machine.sh("systemctl show --property=StatusText --value limpet.service");
    assert!(shown.contains(&scene.head()[..7]), "{shown}");
}

#[test]
fn an_operator_without_root_may_look_and_not_touch() {
    let scene = Scene::enrolled("operator", LAYER);
    let machine = &scene.machine;
    machine.sh("useradd --groups limpet-operators olga; useradd stranger");
    let run_as = |user: &str, command: &str| {
        machine.run(&[
            "setpriv",
            &format!("--reuid={user}"),
            &format!("--regid={user}"),
            "--init-groups",
            "limpet",
            command,
        ])
    };
    run_as("olga", "status").success();
    assert_ne!(run_as("olga", "sync").code(), 0);
    assert_ne!(run_as("stranger", "status").code(), 0);
}

#[test]
fn an_anchor_by_an_unknown_signer_applies_nothing() {
    let scene = Scene::prepared("anchor", LAYER);
    scene.push_signed(&scene.mallory);
    let enrolled = scene.enroll();
    assert!([0, 77].contains(&enrolled.code()), "{enrolled:?}");
    if enrolled.code() == 0 {
        assert_eq!(scene.sync().code(), 77);
        assert_eq!(scene.status()["state"], "refused");
        assert_eq!(scene.status()["revision"], serde_json::Value::Null);
    }
    assert!(!scene.machine.exists("/etc/scene"));
}

#[test]
fn a_server_with_an_unknown_certificate_is_not_believed() {
    let scene = Scene::prepared("tls", LAYER);
    scene.machine.write_file(
        "/root/ca.pem",
        scene
            .machine
            .read_file("/etc/ssl/certs/ca-certificates.crt"),
    );
    let enrolled = scene.enroll();
    assert_eq!(enrolled.code(), 1, "{enrolled:?}");
    assert!(enrolled.stderr.contains("certificate"), "{enrolled:?}");
    assert!(
        !scene.machine.exists("/etc/limpet/limpet.toml"),
        "nothing is written for a source that is not believed"
    );
    assert!(!scene.machine.exists("/etc/scene"));
}
