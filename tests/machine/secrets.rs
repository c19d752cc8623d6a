//! Secrets on a real machine: decrypted into their files, and seen nowhere else.

use std::process::Command;

use crate::fixture::machine::output_of;
use crate::scene::Scene;

const FIRST: &str = "correct-horse-battery-staple";
const SECOND: &str = "another-horse-another-staple";

/// It quotes what it reads, to whomever.
const VALIDATOR: &str = "#!/bin/sh\ncat /etc/app.env /etc/app.conf\ntest ! -e /etc/picky\n";

const LAYER: &str = r#"
[file."/etc/app.env"]
source  = "app.env.age"
decrypt = "age"

[file."/etc/app.conf"]
source   = "app.conf.j2"
template = true

[unit."app.service"]
content    = "[Service]\nEnvironmentFile=/etc/app.env\nExecStart=/usr/bin/sleep infinity\n"
running    = true
restart_on = ["file:/etc/app.env", "file:/etc/app.conf"]
validate   = ["app-check"]
"#;

/// Encrypts on this computer, for the machine, and commits.
fn declare(scene: &Scene, secret: &str, layer: &str) {
    let encrypt = |plain: String| {
        let work = scene.repository.work();
        let file = scene.repository.file("plain", &plain);
        let mut command = Command::new(env!("CARGO_BIN_EXE_limpet"));
        command
            .args(["secret", "encrypt", "--host", "scene"])
            .arg(file);
        output_of(command.current_dir(work)).success()
    };
    let files = [
        ("app.env.age", encrypt(format!("PASSWORD={secret}\n"))),
        ("db.age", encrypt(secret.to_owned())),
    ];
    for (name, sealed) in files {
        assert!(!sealed.contains(secret));
        scene
            .repository
            .write(&format!("layers/base/files/{name}"), &sealed);
    }
    scene.repository.write(
        "layers/base/files/app.conf.j2",
        "password = {{ secret('db.age') }}\n",
    );
    scene.declare(layer);
}

/// A machine with a key that the inventory knows.
fn enrolled(label: &str) -> Scene {
    let scene = Scene::enrolled(label, "");
    let machine = &scene.machine;
    machine.write_file("/usr/local/bin/app-check", VALIDATOR);
    machine.sh("chmod 0755 /usr/local/bin/app-check");
    let key = machine.sh("limpet secret identity --create");
    assert_eq!(
        machine.sh("stat -c '%U %a' /etc/limpet/age.key"),
        "root 600\n"
    );
    assert_eq!(
        machine.sh("limpet secret identity --create"),
        key,
        "made once"
    );
    scene.repository.write(
        "inventory/hosts.toml",
        &format!("[host.scene]\nage = \"{}\"\n", key.trim()),
    );
    scene
}

#[track_caller]
fn expect(scene: &Scene, secret: &str) {
    let machine = &scene.machine;
    assert_eq!(
        machine.read_file("/etc/app.env"),
        format!("PASSWORD={secret}\n")
    );
    assert_eq!(
        machine.read_file("/etc/app.conf"),
        format!("password = {secret}\n")
    );
    assert_eq!(
        machine.sh("stat -c '%U %a' /etc/app.env /etc/app.conf"),
        "root 600\nroot 600\n"
    );
}

/// Neither the secret, nor a hash of a file of it that anybody could reckon, is in the journal, in limpet's directories, or in what its
/// commands print.
#[track_caller]
fn is_nowhere_else(scene: &Scene, secret: &str) {
    let machine = &scene.machine;
    let hash = |text: &str| machine.sh(&format!("printf '{text}' | sha256sum | cut -c1-64"));
    let hashes = [
        hash(secret),
        hash(&format!("PASSWORD={secret}\\n")),
        hash(&format!("password = {secret}\\n")),
    ];
    let mut needles: Vec<&str> = hashes.iter().map(|hash| hash.trim()).collect();
    needles.push(secret);
    machine.write_file("/root/needles", needles.join("\n") + "\n");
    // As it stands in the journal's own files, too, and as bytes.
    let found = machine.sh("journalctl --sync; \
        { journalctl --output=export --all; limpet status; limpet status --json; limpet plan; limpet plan --json; \
          limpet history -n 100; limpet history --json; limpet history --diff file:/etc/app.env; limpet history --diff file:/etc/app.conf; \
          limpet why file:/etc/app.env; limpet why --json file:/etc/app.conf; limpet why unit:app.service; \
          cat /proc/[0-9]*/cmdline; for run in $(pidof limpet); do cat /proc/$run/environ; done; } 2>&1 \
        | grep --text --fixed-strings --count --file=/root/needles || true");
    assert_eq!(found.trim(), "0");
    let files = machine.sh("grep --recursive --text --fixed-strings --files-with-matches --file=/root/needles \
        /var/lib/limpet /var/cache/limpet /run/limpet /etc/limpet /run/systemd /tmp /var/tmp /etc/systemd || true");
    assert_eq!(files, "");
}

#[test]
fn a_secret_is_decrypted_on_its_host_and_shown_to_nobody() {
    let scene = enrolled("secrets");
    let machine = &scene.machine;
    declare(&scene, FIRST, LAYER);
    scene.converge();
    expect(&scene, FIRST);
    let key_checked = || machine.run(&["limpet", "doctor"]);
    let healthy = key_checked();
    assert!(
        healthy
            .stdout
            .contains("it opens the 2 secrets declared here"),
        "{healthy:?}"
    );
    machine.sh("mv /etc/limpet/age.key /root/age.key");
    let ill = key_checked();
    assert_eq!(ill.code(), 1, "{ill:?}");
    assert!(
        ill.stdout.contains("2 secrets are to be opened with it"),
        "{ill:?}"
    );
    machine.sh("mv /root/age.key /etc/limpet/age.key");
    let pid = machine.main_pid("app.service");
    assert!(
        machine
            .sh(&format!("tr '\\0' '\\n' < /proc/{pid}/environ"))
            .contains(FIRST),
        "the service has it"
    );
    machine.sh("systemctl stop app.service");
    is_nowhere_else(&scene, FIRST);
    machine.sh("systemctl start app.service");

    // Drift, while it is planned and when it is undone.
    machine.sh("echo PASSWORD=mine > /etc/app.env");
    assert_eq!(scene.planned()[0], "file:/etc/app.env update differs");
    is_nowhere_else(&scene, FIRST);
    scene.sync().success();
    expect(&scene, FIRST);

    // Another value: the unit is restarted.
    let pid = machine.main_pid("app.service");
    declare(&scene, SECOND, LAYER);
    scene.converge();
    expect(&scene, SECOND);
    assert_ne!(machine.main_pid("app.service"), pid);
    machine.sh("systemctl stop app.service");
    is_nowhere_else(&scene, FIRST);
    is_nowhere_else(&scene, SECOND);
    machine.sh("systemctl start app.service");

    // One that the unit does not accept: what was there is kept until then, and put back, and is a secret as well.
    machine.sh("touch /etc/picky");
    declare(&scene, FIRST, LAYER);
    assert_eq!(scene.sync().code(), 1);
    expect(&scene, SECOND);
    let errors = scene.status()["errors"].to_string();
    assert!(
        errors.contains("not shown, because it reads a secret"),
        "{errors}"
    );
    machine.sh("systemctl stop app.service");
    is_nowhere_else(&scene, FIRST);
    is_nowhere_else(&scene, SECOND);

    // Gone with its declaration.
    machine.sh("rm /etc/picky");
    scene.apply("");
    assert!(!machine.exists("/etc/app.env") && !machine.exists("/etc/app.conf"));
    is_nowhere_else(&scene, SECOND);
}

#[test]
fn the_key_may_be_a_credential_that_is_encrypted_on_the_disk() {
    let scene = enrolled("secrets-credential");
    let machine = &scene.machine;
    machine.sh("systemd-creds setup && systemd-creds encrypt --with-key=host --name=age-key /etc/limpet/age.key /etc/limpet/age.cred");
    machine.sh("rm /etc/limpet/age.key");
    declare(
        &scene,
        FIRST,
        &format!("{LAYER}[file.\"/etc/beside\"]\ncontent = \"beside\\n\"\n"),
    );
    assert_eq!(scene.sync().code(), 1);
    assert_eq!(machine.read_file("/etc/beside"), "beside\n");
    let errors = scene.status()["errors"].to_string();
    assert!(errors.contains("this host has no key"), "{errors}");
    assert!(!machine.exists("/etc/app.env"));

    machine.write_file(
        "/etc/systemd/system/limpet.service.d/age.conf",
        "[Service]\nLoadCredentialEncrypted=age-key:/etc/limpet/age.cred\n",
    );
    machine.sh("systemctl daemon-reload && systemctl restart limpet.service");
    scene.converge();
    expect(&scene, FIRST);
    is_nowhere_else(&scene, FIRST);
}
