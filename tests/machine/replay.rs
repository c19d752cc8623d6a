//! Old and doubled things that are offered again: forks in turns, twins of commits, and a disk of before.

use crate::scene::{LAYER, Scene, event};

const GOOD: &str = "[file.\"/etc/scene\"]\ncontent = \"good\\n\"\n";
const BETTER: &str = "[file.\"/etc/scene\"]\ncontent = \"better\\n\"\n";
const OTHER: &str = "[file.\"/etc/scene\"]\ncontent = \"other\\n\"\n";

#[test]
fn a_server_that_flips_between_forks_moves_nobody() {
    let scene = Scene::enrolled("forks", GOOD);
    let machine = &scene.machine;
    let start = scene.head();
    let one = scene.declare(BETTER);
    scene.converge();
    scene.reset(&start);
    let two = scene.declare(OTHER);
    let cursor = machine.journal_cursor();
    for _ in 0..4 {
        scene.refuses(&one);
        assert_eq!(machine.read_file("/etc/scene"), "better\n");
        scene.reset(&one);
        scene.converge();
        scene.reset(&two);
    }
    // Told once, however often it is offered.
    let told = |id: &str| machine.journal_after(&cursor, "MESSAGE_ID", id).len();
    assert_eq!(told(event::REVISION_REFUSED), 1);
    assert_eq!(told(event::RECOVERED), 1);
    assert_eq!(told(event::REVISION_APPLIED), 0);

    // What leads on from what is trusted is followed, and then a refusal is news again.
    scene.reset(&one);
    scene.declare(GOOD);
    scene.converge();
    let three = scene.head();
    scene.reset(&two);
    scene.refuses(&three);
    assert_eq!(told(event::REVISION_REFUSED), 2);
}

#[test]
fn a_twin_of_a_commit_wedges_nobody() {
    let scene = Scene::enrolled("twins", GOOD);
    let machine = &scene.machine;
    let repository = &scene.repository;
    // Another id for the same signed commit, which needs no key: the signature's header stands elsewhere.
    repository.write(LAYER, BETTER);
    let tree = repository.git(&["write-tree"]);
    let payload = repository.payload(&tree, &[&scene.head()], "say it better");
    let payload = payload.replacen("\n\n", "\nencoding UTF-8\n\n", 1);
    let armor = repository.sign(&scene.alice, "git", &payload);
    let original = repository.write_commit(&payload, &armor);
    let header = format!("gpgsig {}\n", armor.trim_end().replace('\n', "\n "));
    let twin = payload.replacen("encoding", &format!("{header}encoding"), 1);
    let twin = repository.write_object("commit", twin.as_bytes());
    assert_ne!(twin, original);
    scene.reset(&twin);
    scene.converge();
    assert_eq!(machine.read_file("/etc/scene"), "better\n");

    // The original is the same revision, and so is what leads on from it.
    scene.reset(&original);
    scene.sync().success();
    assert_eq!(scene.status()["state"], "converged");
    repository.write(LAYER, OTHER);
    scene.push_signed(&scene.alice);
    scene.converge();
    assert_eq!(machine.read_file("/etc/scene"), "other\n");
    scene.reset(&twin);
    scene.sync();
    let conditions = scene.status()["conditions"].to_string();
    assert!(conditions.contains("behind"), "{conditions}");
    assert_eq!(machine.read_file("/etc/scene"), "other\n");
}

#[test]
fn a_disk_of_before_goes_forward_and_says_when_it_cannot() {
    let scene = Scene::enrolled("snapshot", GOOD);
    let machine = &scene.machine;
    let old = scene.head();
    let stopped = |script: &str| {
        machine.sh(&format!(
            "systemctl stop limpet.service limpet-fetch.service limpet-fetch.socket
            {script}
            systemctl start limpet-fetch.socket limpet.service"
        ));
    };
    // All that limpet knows, as a snapshot of the machine has it.
    stopped(
        "mkdir /snapshot; cp -a /var/lib/limpet /snapshot/state; cp -a /etc/limpet /snapshot/etc",
    );
    let restore = "rm -rf /var/lib/limpet /etc/limpet
        cp -a /snapshot/state /var/lib/limpet; cp -a /snapshot/etc /etc/limpet";
    scene.declare(BETTER);
    scene.converge();
    let new = scene.head();

    // The server has what is newer: the host goes there, as one that was off for a while.
    stopped(restore);
    scene.converge();
    assert_eq!(scene.status()["revision"], new.as_str());

    // The server is of the same day: no signature is wrong, and the host says that it heard nothing new for too long.
    scene.reset(&old);
    stopped(restore);
    scene.sync().success();
    assert_eq!(scene.status()["revision"], old.as_str());
    let age = "[trust]\nmax_age = \"1s\"\n";
    machine.write_file("/etc/limpet/limpet.toml.d/age.toml", age);
    machine.sh("systemctl reload limpet.service; sleep 2");
    scene.sync();
    let status = scene.status();
    assert_eq!(status["state"], "stale", "{status:#}");
    machine.sh("rm /etc/limpet/limpet.toml.d/age.toml; systemctl reload limpet.service");

    // A disk of which only the state is old is not believed: the second mark knows better.
    scene.reset(&new);
    scene.converge();
    stopped("rm -rf /var/lib/limpet; cp -a /snapshot/state /var/lib/limpet");
    scene.sync();
    let said = scene.status()["errors"].to_string();
    assert!(
        said.contains("it is older than '/etc/limpet/enrolled'"),
        "{said}"
    );
    assert_eq!(machine.read_file("/etc/scene"), "better\n");
}
