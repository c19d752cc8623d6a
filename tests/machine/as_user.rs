//! Files in directories of users, who may be hostile.

use crate::scene::Scene;

const USER: &str = "[user.ivan]\ngroups = [\"users\"]\nshell = \"/bin/sh\"\n";

const FILE: &str = r#"
[file."/home/ivan/.config/app/conf"]
content = "declared\n"
as_user = "ivan"
xattrs  = { "user.note" = "ours" }
"#;

const PATH: &str = "/home/ivan/.config/app/conf";

fn scene(label: &str) -> Scene {
    Scene::enrolled(label, &format!("{USER}{FILE}"))
}

/// What root alone may read and change, and where ivan would like to be led.
const PREY: &str = "
mkdir -p /srv/prey; printf 'a secret of root\\n' > /srv/prey/conf; chmod 0600 /srv/prey/conf
touch --date=2020-01-01 /srv/prey/conf /srv/prey";

#[track_caller]
fn check_prey(scene: &Scene) {
    let machine = &scene.machine;
    assert_eq!(machine.sh("ls -A /srv/prey"), "conf\n");
    assert_eq!(machine.ownership("/srv/prey/conf"), "root:root 600");
    assert_eq!(machine.ownership("/srv/prey"), "root:root 755");
    let looked_at = machine.sh("cat /srv/prey/conf; stat -c %y /srv/prey | cut -c 1-10");
    assert_eq!(looked_at, "a secret of root\n2020-01-01\n");
}

#[test]
fn what_lies_in_a_users_directory_is_written_and_taken_back_as_that_user() {
    let scene = scene("as-user");
    let machine = &scene.machine;
    let check = || {
        assert_eq!(machine.read_file(PATH), "declared\n");
        assert_eq!(machine.ownership(PATH), "ivan:ivan 644");
    };
    check();
    let parent = "/home/ivan/.config/app";
    assert_eq!(machine.ownership(parent), "ivan:ivan 755");

    // Whatever happens to it is put right, with an own file again where it was another's.
    for change in [
        format!("echo other > {PATH}"),
        format!("chmod 0600 {PATH}"),
        format!("rm {PATH}"),
        format!("rm -r {parent}"),
        format!("chown games:games {PATH}"),
        format!("setpriv --reuid=ivan --regid=ivan --clear-groups ln -sf /etc/shadow {PATH}"),
    ] {
        let shadow = machine.sh("sha256sum /etc/shadow; stat -c '%U %a %z' /etc/shadow");
        machine.sh(&change);
        scene.converge();
        check();
        let now = machine.sh("sha256sum /etc/shadow; stat -c '%U %a %z' /etc/shadow");
        assert_eq!(now, shadow, "{change}");
    }

    // A candidate is judged by the user's own process.
    scene.apply(&format!(
        "{USER}{FILE}validate = [\"sh\", \"-c\", \"id -un > /tmp/judge; grep -q . $0\", \"{{}}\"]\n"
    ));
    machine.sh(&format!("rm {PATH}"));
    scene.converge();
    assert_eq!(machine.sh("cat /tmp/judge"), "ivan\n");

    scene.apply(USER);
    // With the directory that was made for it.
    assert!(!machine.exists(parent));

    // What was there before comes back.
    machine.sh(&format!(
        "install -d -o ivan -g ivan {parent}
         printf 'the own one\\n' | install -o ivan -g ivan -m 0640 /dev/stdin {PATH}"
    ));
    scene.apply(&format!("{USER}{FILE}"));
    check();
    scene.apply(USER);
    assert_eq!(machine.read_file(PATH), "the own one\n");
    assert_eq!(machine.ownership(PATH), "ivan:ivan 640");
}

#[test]
fn what_the_user_may_not_do_is_not_done_for_him() {
    let scene = scene("as-user-refused");
    let machine = &scene.machine;
    machine.sh(PREY);
    let as_ivan = |commands: &str| {
        let commands = commands.replace("PATH", PATH);
        machine
            .run(&[
                "setpriv",
                "--reuid=ivan",
                "--regid=ivan",
                "--init-groups",
                "sh",
                "-euc",
                &format!("cd /home/ivan/.config; {commands}"),
            ])
            .success();
    };
    let reset = "rm -rf app; mkdir app";
    for (trick, complaint) in [
        ("rm -rf app; ln -s /srv/prey app", "permission denied"),
        ("rm -f PATH; mkfifo PATH", "there is a named pipe"),
        ("rm -f PATH; mkdir PATH", "there is a directory"),
        ("echo x > PATH; ln PATH app/other", "2 names (hard links)"),
        ("chmod 0777 app", "everybody may write in it"),
        ("chmod 0775 app; chgrp users app", "may write in it"),
        ("rm -f PATH; chmod 0555 app", "permission denied"),
    ] {
        as_ivan(trick);
        assert_eq!(scene.sync().code(), 1, "{trick}");
        let status = scene.status();
        let errors = status["errors"].to_string();
        assert!(errors.contains(complaint), "{trick}: {status:#}");
        assert!(!errors.contains("a secret of root"), "{status:#}");
        check_prey(&scene);
        as_ivan(&format!("[ -L app ] || chmod 0755 app; {reset}"));
    }
    scene.converge();
    assert_eq!(machine.read_file(PATH), "declared\n");

    // Without the word nothing in there is touched, nor is it for root's sake.
    scene.declare(&format!(
        "{USER}{}",
        FILE.replace("as_user = \"ivan\"\n", "")
    ));
    assert_eq!(scene.sync().code(), 1);
    let errors = scene.status()["errors"].to_string();
    assert!(errors.contains("as_user"), "{errors}");
}

#[test]
fn a_user_who_swaps_what_lies_on_the_way_gains_nothing() {
    let scene = scene("as-user-race");
    let machine = &scene.machine;
    machine.sh(PREY);
    let race = |name: &str, once: &str| {
        let script = format!("cd /home/ivan/.config && while :; do {once}; done 2>/dev/null");
        machine
            .run(&[
                "systemd-run",
                "--quiet",
                "--uid=ivan",
                &format!("--unit={name}"),
                "sh",
                "-c",
                &script,
            ])
            .success();
    };
    race(
        "swap-directory",
        "mv -T app kept; ln -s /srv/prey app; rm -f app; mv -T kept app",
    );
    race(
        "swap-file",
        "rm -f app/conf; ln -s /srv/prey/conf app/conf; rm -f app/conf; echo x > app/conf",
    );
    race(
        "swap-candidate",
        "for it in app/.limpet-*; do ln -sf /srv/prey/conf $it; done",
    );
    let mut outcomes = std::collections::BTreeSet::new();
    for _ in 0..40 {
        outcomes.insert(scene.sync().code());
        check_prey(&scene);
    }
    machine.sh("systemctl stop swap-directory swap-file swap-candidate");
    machine.sh("cd /home/ivan/.config; rm -rf app kept");
    check_prey(&scene);
    // It was fought over, the agent lives, and nobody was told what ivan may not read.
    assert!(outcomes.contains(&1), "{outcomes:?}");
    let told = machine.sh("journalctl --no-pager -o cat -t limpet; limpet history --json -n 1000");
    assert!(!told.contains("a secret of root"), "{told}");
    assert_eq!(
        machine.sh("systemctl show -P NRestarts limpet.service"),
        "0\n"
    );
}
