//! Users and groups on a machine: made, kept, and taken back.

use crate::scene::Scene;

const BEFORE: &str = "[file.\"/etc/scene\"]\ncontent = \"one\\n\"\n";

const TEAM: &str = r#"
[file."/etc/scene"]
content = "one\n"

[group.ops]
gid = 4000

[user.deploy]
uid             = 4001
group           = "ops"
groups          = ["adm"]
shell           = "/bin/bash"
authorized_keys = ["deploy.pub", "other.pub"]

[user.sensor]
system = true

[file."/srv/deploy.conf"]
content = "x\n"
owner   = "deploy"
group   = "ops"
"#;

/// What the account databases say of `name`, without when a password was changed.
fn entry(scene: &Scene, name: &str) -> String {
    scene.machine.sh(&format!(
        "getent passwd {name}; id -nG {name} | tr ' ' '\\n' | sort | xargs; getent shadow {name} | cut -d: -f2,8"
    ))
}

#[test]
fn users_and_groups_are_made_kept_and_taken_back() {
    let scene = Scene::enrolled("accounts", BEFORE);
    let machine = &scene.machine;
    let (first, second) = (
        scene.repository.key("deploy"),
        scene.repository.key("other"),
    );
    let files = "layers/base/files";
    let write_key = |name: &str, key: &str| {
        scene
            .repository
            .write(&format!("{files}/{name}.pub"), &format!("{key} {name}\n"));
    };
    write_key("deploy", &first.public);
    write_key("other", &second.public);
    scene.apply(TEAM);
    assert_eq!(
        entry(&scene, "deploy"),
        "deploy:x:4001:4000::/home/deploy:/bin/bash\nadm ops\n!:\n"
    );
    assert!(entry(&scene, "sensor").contains("/usr/sbin/nologin"));
    assert!(!machine.exists("/home/sensor"), "a system user has no home");
    assert_eq!(machine.ownership("/srv/deploy.conf"), "deploy:ops 644");
    let keys = "/home/deploy/.ssh/authorized_keys";
    assert_eq!(machine.ownership("/home/deploy/.ssh"), "deploy:ops 700");
    assert_eq!(machine.ownership(keys), "deploy:ops 600");
    let both = format!("{} deploy\n{} other\n", first.public, second.public);
    assert_eq!(machine.read_file(keys), both);

    let why = machine.sh("limpet why user:deploy");
    assert!(why.contains("there was none"), "{why}");

    // Drift is undone: another key, another group, another shell, a lock.
    machine.sh(&format!(
        "echo 'ssh-ed25519 AAAA mallory' >> {keys}; usermod --append --groups sudo --shell /bin/sh --expiredate 1 deploy"
    ));
    scene.sync().success();
    assert_eq!(machine.read_file(keys), both);
    assert_eq!(
        entry(&scene, "deploy"),
        "deploy:x:4001:4000::/home/deploy:/bin/bash\nadm ops\n!:\n"
    );
    scene.nothing_to_do();

    // A user who bends his own directory reaches nothing of root's.
    machine.write_file("/root/secret", "secret\n");
    machine.sh("rm -r /home/deploy/.ssh; ln -s /root /home/deploy/.ssh");
    assert_eq!(scene.sync().code(), 1);
    assert!(!machine.exists("/root/authorized_keys"));
    machine.sh("rm /home/deploy/.ssh");
    scene.sync().success();
    assert_eq!(machine.read_file(keys), both);

    // A number is not changed, and the rest goes on.
    scene.declare(&TEAM.replace("4001", "4002").replace("one", "two"));
    assert_eq!(scene.sync().code(), 1);
    assert_eq!(machine.read_file("/etc/scene"), "two\n");
    let status = scene.status();
    assert!(
        status["errors"].to_string().contains("its uid is 4001"),
        "{status:#}"
    );

    // A revert takes back what limpet gave; home and number stay, and nobody gets in.
    machine.write_file("/home/deploy/work", "kept\n");
    scene.apply(BEFORE);
    assert_eq!(
        entry(&scene, "deploy"),
        "deploy:x:4001:4000::/home/deploy:/bin/bash\nops\n!:1\n"
    );
    assert!(!machine.exists(keys));
    assert_eq!(machine.read_file("/home/deploy/work"), "kept\n");
    // The group is still his own.
    machine.sh("getent group ops");

    // And declared again, it is as it was.
    scene.apply(TEAM);
    assert_eq!(
        entry(&scene, "deploy"),
        "deploy:x:4001:4000::/home/deploy:/bin/bash\nadm ops\n!:\n"
    );
    assert_eq!(machine.read_file(keys), both);
}

#[test]
fn a_user_who_was_there_before_gets_back_what_was_his() {
    let scene = Scene::prepared("accounts-before", BEFORE);
    let machine = &scene.machine;
    machine.sh(
        "useradd --create-home --shell /bin/sh --groups adm,games olga
                install -d -o olga -g olga -m 0700 /home/olga/.ssh
                install -o olga -g olga -m 0600 /dev/null /home/olga/.ssh/authorized_keys
                echo 'ssh-ed25519 AAAA olga' > /home/olga/.ssh/authorized_keys",
    );
    scene.enroll().success();
    scene.converge();
    let before = entry(&scene, "olga");
    let key = scene.repository.key("fleet");
    scene
        .repository
        .write("layers/base/files/olga.pub", &format!("{}\n", key.public));
    scene.apply(&format!(
        "{BEFORE}[user.olga]\ngroups = [\"video\"]\nshell = \"/bin/bash\"\nlocked = true\nauthorized_keys = [\"olga.pub\"]\n"
    ));
    let why = machine.sh("limpet why user:olga");
    let before_limpet = "also of adm, games, shell /bin/sh, home /home/olga, with keys";
    assert!(why.contains(before_limpet), "{why}");
    let now = entry(&scene, "olga");
    assert!(
        now.contains("/bin/bash") && now.contains("olga video") && now.ends_with(":1\n"),
        "{now}"
    );
    scene.apply(BEFORE);
    assert_eq!(entry(&scene, "olga"), before);
    assert_eq!(
        machine.read_file("/home/olga/.ssh/authorized_keys"),
        "ssh-ed25519 AAAA olga\n"
    );
    assert_eq!(
        machine.ownership("/home/olga/.ssh/authorized_keys"),
        "olga:olga 600"
    );

    // One that is to be gone goes; his home stays.
    scene.apply(&format!("{BEFORE}[user.olga]\nstate = \"absent\"\n"));
    assert_ne!(machine.run(&["getent", "passwd", "olga"]).code(), 0);
    assert!(machine.exists("/home/olga"));
}
