//! What a machine does not believe, whatever the Git server says.

use crate::scene::{LAYER, Scene, event};

const GOOD: &str = "[file.\"/etc/scene\"]\ncontent = \"good\\n\"\n";
const EVIL: &str = "[file.\"/etc/scene\"]\ncontent = \"evil\\n\"\n";

#[test]
fn unsigned_and_unknown_commits_are_refused_and_the_old_state_is_enforced() {
    let scene = Scene::enrolled("unsigned", GOOD);
    let trusted = scene.head();
    for (signer, rule) in [(None, "unsigned"), (Some(&scene.mallory), "unknown-key")] {
        scene.repository.write(LAYER, EVIL);
        let refused = match signer {
            None => scene.push_unsigned(),
            Some(key) => scene.push_signed(key),
        };
        scene.machine.sh("echo drift > /etc/scene");
        scene.refuses(&trusted);
        assert_eq!(scene.machine.read_file("/etc/scene"), "good\n", "{rule}");
        let verdict = scene.machine.run(&["limpet", "verify", "--json"]);
        assert_eq!(verdict.code(), 77, "{verdict:?}");
        let verdict: serde_json::Value =
            serde_json::from_str(&verdict.stdout).expect("verify --json prints an object");
        assert_eq!(verdict["verdict"], "refused", "{verdict:#}");
        assert_eq!(verdict["rule"], rule, "{verdict:#}");
        assert_eq!(verdict["commit"], refused.as_str(), "{verdict:#}");
        let event = scene.event(event::REVISION_REFUSED);
        assert_eq!(event["LIMPET_REVISION"], refused.as_str());

        // A signed commit on top does not launder it.
        scene.push_signed(&scene.alice);
        scene.refuses(&trusted);
        scene.reset(&trusted);
        scene.converge();
    }
}

#[test]
fn a_rewound_branch_takes_nothing_back() {
    let scene = Scene::enrolled("rewound", GOOD);
    scene.apply(&GOOD.replace("good", "better"));
    let trusted = scene.head();
    scene.reset("HEAD~1");
    scene.sync();
    let status = scene.status();
    assert_eq!(status["revision"], trusted.as_str(), "{status:#}");
    let conditions = status["conditions"].to_string();
    assert!(conditions.contains("behind"), "{conditions}");
    assert_eq!(scene.machine.read_file("/etc/scene"), "better\n");

    scene.reset(&trusted);
    scene.converge();
}

#[test]
fn a_rewritten_branch_is_refused() {
    let scene = Scene::enrolled("rewritten", GOOD);
    scene.apply(&GOOD.replace("good", "better"));
    let trusted = scene.head();
    scene.repository.reset("HEAD~1");
    scene.declare(EVIL);
    scene.refuses(&trusted);
    assert_eq!(scene.machine.read_file("/etc/scene"), "better\n");
}

#[test]
fn a_key_revoked_on_the_host_loses_its_word_at_once() {
    let scene = Scene::enrolled("revoked", GOOD);
    let trusted = scene.head();
    scene
        .machine
        .write_file("/etc/limpet/revoked", format!("{}\n", scene.alice.public));
    scene.machine.sh("systemctl reload limpet.service");
    scene.declare(EVIL);
    scene.refuses(&trusted);
    assert_eq!(scene.machine.read_file("/etc/scene"), "good\n");
}
