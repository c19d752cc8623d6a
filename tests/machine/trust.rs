//! The policy in the repository on a real machine: who may change what, approvals, channels, freshness, and what local root says.

use crate::fixture::repository::Key;
use crate::scene::{LAYER, SUBJECT, Scene};

const GOOD: &str = "[file.\"/etc/scene\"]\ncontent = \"good\\n\"\n";
const BETTER: &str = "[file.\"/etc/scene\"]\ncontent = \"better\\n\"\n";

/// A machine whose repository has a policy: alice is root, bob may change one layer file and approves what is protected.
struct Court {
    scene: Scene,
    bob: Key,
}

impl Court {
    fn new(label: &str) -> Court {
        let scene = Scene::enrolled(label, GOOD);
        let bob = scene.repository.key("bob");
        let policy = format!(
            "version = 1\n[key]\nalice = \"{}\"\nbob = \"{}\"\n[root]\nkeys = [\"alice\"]\n\
             [[allow]]\nkeys = [\"bob\"]\npaths = [\"layers/base/site.toml\"]\n\
             [[limit]]\npaths = [\"layers/base/site.toml\"]\nresources = [\"file:/etc/site/*\"]\n\
             [[protect]]\npaths = [\"layers/base/sudoers.toml\"]\nthreshold = 2\n",
            scene.alice.public, bob.public
        );
        scene.repository.write("trust.toml", &policy);
        scene.push_signed(&scene.alice);
        scene.converge();
        scene.repository.commit(&bob, "here I am");
        scene.repository.push();
        scene.converge();
        Court { scene, bob }
    }

    fn condition(&self, kind: &str) -> Option<String> {
        let status = self.scene.status();
        let conditions = status["conditions"].as_array()?.clone();
        let found = conditions.into_iter().find(|one| one["type"] == kind)?;
        Some(found["reason"].as_str()?.to_owned())
    }
}

#[test]
fn a_key_changes_what_the_policy_gives_it_and_declares_what_the_limit_allows() {
    let court = Court::new("scope");
    let (scene, machine) = (&court.scene, &court.scene.machine);
    scene.repository.write(
        "layers/base/site.toml",
        "[file.\"/etc/site/name\"]\ncontent = \"lagos\\n\"\n",
    );
    scene.push_signed(&court.bob);
    scene.converge();
    assert_eq!(machine.read_file("/etc/site/name"), "lagos\n");
    let trusted = scene.head();
    let doctor = machine.run(&["limpet", "doctor"]);
    assert!(
        doctor
            .stdout
            .contains("'/etc/limpet/allowed_signers' is not read any more"),
        "{doctor:?}"
    );

    scene.repository.write(LAYER, BETTER);
    scene.push_signed(&court.bob);
    scene.refuses(&trusted);
    let verdict = machine.run(&["limpet", "verify", "--json"]);
    assert_eq!(verdict.code(), 77, "{verdict:?}");
    let verdict: serde_json::Value = serde_json::from_str(&verdict.stdout).unwrap();
    assert_eq!(verdict["rule"], "out-of-scope", "{verdict:#}");
    assert_eq!(verdict["path"], LAYER, "{verdict:#}");
    assert_eq!(machine.read_file("/etc/scene"), "good\n");
    scene.reset(&trusted);

    // Within its file, but not what the file may declare: an author's mistake, told with the line of the limit.
    scene.repository.write(
        "layers/base/site.toml",
        "[file.\"/etc/cron.d/site\"]\ncontent = \"* * * * * root id\\n\"\n",
    );
    scene.push_signed(&court.bob);
    scene.sync();
    let status = scene.status();
    assert_eq!(status["state"], "degraded", "{status:#}");
    let said = status["errors"].to_string();
    assert!(said.contains("may declare only file:/etc/site/*"), "{said}");
    assert!(said.contains("trust.toml:"), "{said}");
    assert!(!machine.exists("/etc/cron.d/site"));
}

#[test]
fn a_protected_change_waits_for_its_second_signer() {
    let court = Court::new("approval");
    let (scene, machine) = (&court.scene, &court.scene.machine);
    let trusted = scene.head();
    scene.repository.write(
        "layers/base/sudoers.toml",
        "[file.\"/etc/sudoers.d/ops\"]\ncontent = \"ops ALL=(ALL) ALL\\n\"\nmode = \"0440\"\n",
    );
    let change = scene.push_signed(&scene.alice);
    scene.sync();
    let status = scene.status();
    assert_eq!(status["state"], "pending", "{status:#}");
    assert_eq!(status["revision"], trusted.as_str());
    let reason = court.condition("pending").unwrap();
    assert!(
        reason.contains("alice signed it, and it waits for 1 of: bob"),
        "{reason}"
    );
    let verdict = machine.run(&["limpet", "verify"]);
    assert_eq!(verdict.code(), 75, "{verdict:?}");
    let shown = machine.run(&["limpet", "trust"]).success();
    for words in [
        "version 1",
        "root: may change everything",
        "layers/base/site.toml",
        "waits for 1 of: bob",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    // What is in force stays enforced.
    machine.sh("echo drift > /etc/scene");
    scene.sync();
    assert_eq!(machine.read_file("/etc/scene"), "good\n");

    let payload = scene.repository.payload_sha256(&change);
    let message = format!("approve\n\nLimpet-Approve: sha256:{payload}");
    scene.repository.commit(&court.bob, &message);
    scene.repository.push();
    scene.converge();
    assert_eq!(
        machine.read_file("/etc/sudoers.d/ops"),
        "ops ALL=(ALL) ALL\n"
    );
    assert_eq!(court.condition("pending"), None);
}

#[test]
fn what_a_revision_with_a_mistake_revokes_stays_revoked() {
    let court = Court::new("kept");
    let scene = &court.scene;
    let trusted = scene.head();
    let policy = std::fs::read_to_string(scene.repository.work().join("trust.toml")).unwrap();
    let revoking = policy.replace("version = 1", "version = 2")
        + "[[revoked]]\nkey = \"bob\"\nreason = \"compromised\"\n";
    scene.repository.write(
        "trust.toml",
        &revoking.replace("threshold = 2", "threshold = 1"),
    );
    scene.repository.write("layers/base/broken.toml", "[file\n");
    scene.push_signed(&scene.alice);
    scene.sync();
    assert_eq!(scene.status()["state"], "degraded");
    // Somebody who holds bob's key, and the server, shows the hosts another history without the revocation.
    scene.repository.reset(&trusted);
    scene.repository.write(
        "layers/base/site.toml",
        "[file.\"/etc/site/name\"]\ncontent = \"evil\\n\"\n",
    );
    scene.repository.commit(&court.bob, "mine");
    scene.repository.force_push();
    scene.refuses(&trusted);
    let verdict = scene.machine.run(&["limpet", "verify", "--json"]);
    assert!(verdict.stdout.contains("key-revoked"), "{verdict:?}");
}

#[test]
fn a_host_takes_releases_of_its_channel_only() {
    let scene = Scene::enrolled("channel", GOOD);
    let trusted = scene.head();
    scene.machine.write_file(
        "/etc/limpet/limpet.toml.d/channel.toml",
        "[trust]\nchannel = \"prod\"\n",
    );
    scene.machine.sh("systemctl reload limpet.service");
    scene.declare(BETTER);
    scene.refuses(&trusted);
    scene
        .repository
        .commit(&scene.alice, "release\n\nLimpet-Channel: prod");
    scene.repository.push();
    scene.converge();
    assert_eq!(scene.machine.read_file("/etc/scene"), "better\n");
}

#[test]
fn a_host_that_sees_nothing_new_is_stale_and_a_heartbeat_is_news() {
    let scene = Scene::enrolled("stale", GOOD);
    scene.machine.write_file(
        "/etc/limpet/limpet.toml.d/age.toml",
        "[trust]\nmax_age = \"1s\"\n",
    );
    scene.machine.sh("systemctl reload limpet.service; sleep 2");
    scene.sync();
    let status = scene.status();
    assert_eq!(status["state"], "stale", "{status:#}");
    let said = status["errors"].to_string();
    assert!(said.contains("longer than trust.max_age (1s)"), "{said}");
    // It is said once, and what is in force is enforced.
    scene.machine.sh("echo drift > /etc/scene");
    scene.sync();
    assert_eq!(scene.machine.read_file("/etc/scene"), "good\n");
    let said = scene
        .machine
        .sh("journalctl -t limpet -o cat | grep -c 'no new revision was trusted' || true");
    assert_eq!(said.trim(), "1");

    scene.machine.write_file(
        "/etc/limpet/limpet.toml.d/age.toml",
        "[trust]\nmax_age = \"1h\"\n",
    );
    scene.machine.sh("systemctl reload limpet.service");
    scene.repository.commit(&scene.alice, "heartbeat");
    scene.repository.push();
    scene.converge();
}

#[test]
fn local_root_says_what_is_trusted_and_nobody_else() {
    let scene = Scene::enrolled("set", GOOD);
    scene.apply(BETTER);
    let trusted = scene.head();
    scene.repository.reset("HEAD~1");
    let rewritten = scene.declare("[file.\"/etc/scene\"]\ncontent = \"rewritten\\n\"\n");
    scene.refuses(&trusted);
    let machine = &scene.machine;
    let words = [
        "limpet",
        "trust",
        "set",
        "--commit",
        &rewritten,
        "--reason",
        "we rewrote it",
    ];
    let denied = machine.sh(
        "useradd -m eve; runuser -u eve -- limpet trust set --commit x --reason y 2>&1 || true",
    );
    assert!(denied.contains("only root"), "{denied}");
    scene.refuses(&trusted);
    machine.run(&words).success();
    scene.converge();
    assert_eq!(machine.read_file("/etc/scene"), "rewritten\n");
    let history = machine.run(&["limpet", "history"]).success();
    assert!(history.contains("was told to trust"), "{history}");
    assert!(history.contains("we rewrote it"), "{history}");
    let unknown = machine.run(&[
        "limpet",
        "trust",
        "set",
        "--commit",
        &"0".repeat(40),
        "--reason",
        "x",
    ]);
    assert_ne!(unknown.code(), 0, "{unknown:?}");
    let short = machine.run(&["limpet", "trust", "set", "--commit", "abc", "--reason", "x"]);
    assert!(short.stderr.contains("is no full commit id"), "{short:?}");
}

#[test]
fn local_root_leads_out_of_trust_state_that_is_missing() {
    let scene = Scene::enrolled("lost", GOOD);
    let head = scene.head();
    scene
        .machine
        .sh("systemctl stop limpet.service; rm -f /var/lib/limpet/state.db*; systemctl start limpet.service");
    scene.sync();
    let status = scene.status();
    assert_eq!(status["state"], "refused", "{status:#}");
    let newer = scene.declare(BETTER);
    scene.refuses(&head);
    scene
        .machine
        .run(&[
            "limpet",
            "trust",
            "set",
            "--commit",
            &newer,
            "--reason",
            "the disk was replaced",
        ])
        .success();
    scene.converge();
    assert_eq!(scene.machine.read_file("/etc/scene"), "better\n");
    scene.apply(GOOD);
    scene.machine.sh("systemctl restart limpet.service");
    scene.converge();
}

#[test]
fn a_host_is_run_with_openpgp_and_has_no_gpg() {
    let scene = Scene::prepared("openpgp", GOOD);
    let (machine, repository) = (&scene.machine, &scene.repository);
    let mut pat = repository.certificate("pat", "ed25519", "2y");
    let change = |key: &Key, layer: &str| {
        repository.write(LAYER, layer);
        repository.commit(key, SUBJECT);
        repository.push();
    };
    change(&pat, BETTER);
    // Nobody knows whose signature the anchor carries.
    let unknown = scene.enroll();
    assert_ne!(unknown.code(), 0, "{unknown:?}");
    let listed_nowhere = "no certificate that is listed has the key";
    assert!(unknown.stderr.contains(listed_nowhere), "{unknown:?}");
    let list = |key: &Key| machine.write_file("/root/allowed_signers", key.allowed());
    list(&pat);
    scene.enroll().success();
    scene.converge();
    assert_eq!(machine.read_file("/etc/scene"), "better\n");
    let pinned = machine.read_file("/etc/limpet/limpet.toml");
    assert!(pinned.contains(&pat.fingerprint), "{pinned}");
    for command in ["status", "trust", "doctor"] {
        let shown = machine.run(&["limpet", command]).stdout;
        assert!(shown.contains(&pat.fingerprint), "{shown}");
    }
    machine.sh("! command -v gpg");

    change(&pat, GOOD);
    scene.converge();
    assert_eq!(machine.read_file("/etc/scene"), "good\n");
    let good = scene.head();
    change(&scene.alice, BETTER);
    scene.refuses(&good);

    // The certificate gets a subkey: known from when the host lists it.
    repository.reset("HEAD~1");
    repository.force_push();
    let digits = pat.digits().unwrap().to_owned();
    repository.gpg(&pat, &["--quick-add-key", &digits, "ed25519", "sign", "1y"]);
    repository.export(&mut pat);
    change(&pat, BETTER);
    scene.refuses(&good);
    machine.write_file("/etc/limpet/allowed_signers", pat.allowed());
    scene.converge();
    assert_eq!(machine.read_file("/etc/scene"), "better\n");

    // Its word is taken from it here.
    machine.write_file(
        "/etc/limpet/revoked",
        format!("{} # lost\n", pat.fingerprint),
    );
    let better = scene.head();
    change(&pat, GOOD);
    scene.refuses(&better);
    let verdict = machine.run(&["limpet", "verify", "--json"]);
    let verdict: serde_json::Value = serde_json::from_str(&verdict.stdout).unwrap();
    assert_eq!(verdict["rule"], "key-revoked", "{verdict:#}");
    assert_eq!(machine.read_file("/etc/scene"), "better\n");
}

#[test]
fn releases_are_followed_and_never_go_down() {
    let scene = Scene::prepared("releases", GOOD);
    let machine = &scene.machine;
    let tag = |key: &Key, name: &str| {
        let repository = &scene.repository;
        repository.git_signed(key, &["tag", "-s", "-f", "-m", name, name]);
        repository.git(&[
            "push",
            "-q",
            "--force",
            "origin",
            &format!("refs/tags/{name}"),
        ]);
    };
    let without = scene.enroll_with("scene", &["--tags", "^1"]);
    assert_ne!(without.code(), 0, "{without:?}");
    assert!(
        without.stderr.contains("found no release tag '^1'"),
        "{without:?}"
    );
    tag(&scene.alice, "v1.0.0");
    scene.enroll_with("scene", &["--tags", "^1"]).success();
    scene.converge();
    let shown = machine.run(&["limpet", "trust"]).success();
    assert!(shown.contains("release   v1.0.0"), "{shown}");

    // A commit is no release until somebody says so, and who says so must be somebody.
    let first = scene.head();
    let second = scene.declare(BETTER);
    scene.sync().success();
    assert_eq!(machine.read_file("/etc/scene"), "good\n");
    tag(&scene.mallory, "v1.1.0");
    scene.refuses(&first);
    let verdict = machine.run(&["limpet", "verify", "--json"]);
    let verdict: serde_json::Value = serde_json::from_str(&verdict.stdout).unwrap();
    assert_eq!(verdict["rule"], "unknown-key", "{verdict:#}");
    tag(&scene.alice, "v1.1.0");
    scene.converge();
    assert_eq!(machine.read_file("/etc/scene"), "better\n");

    // What the server takes away, moves or calls by another name changes nothing.
    let server = scene.repository.server();
    let at_server = |script: &str| {
        let output = std::process::Command::new("sh")
            .args(["-c", script])
            .current_dir(&server)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    at_server("git update-ref refs/tags/v1.9.0 refs/tags/v1.0.0");
    scene.refuses(&second);
    at_server("git update-ref -d refs/tags/v1.9.0");
    scene.converge();
    at_server("git update-ref -d refs/tags/v1.1.0");
    let sync = scene.sync().success();
    assert!(!sync.contains("applied"), "{sync}");
    let conditions = scene.status()["conditions"].to_string();
    let said = "release 'v1.0.0' is older than the trusted release 'v1.1.0'";
    assert!(conditions.contains(said), "{conditions}");
    assert_eq!(machine.read_file("/etc/scene"), "better\n");
    tag(&scene.alice, "v1.1.0");
    scene.converge();

    // Back is a release as well.
    scene.repository.revert(&scene.alice, &second);
    scene.repository.push();
    tag(&scene.alice, "v1.2.0");
    scene.converge();
    assert_eq!(machine.read_file("/etc/scene"), "good\n");
    let shown = machine.run(&["limpet", "trust"]).success();
    assert!(shown.contains("release   v1.2.0"), "{shown}");
}
