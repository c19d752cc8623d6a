//! Units that judge their files before they read them, on a real machine.

use crate::fixture::machine::{Machine, Network, wait_until};
use crate::scene::{SOON, Scene};

/// A daemon that accepts nothing that says so: neither in its configuration, nor in a drop-in. It notes what it was started with, and
/// how often it was asked.
const DAEMON: &str = r#"#!/bin/sh
if [ "$1" = --check ]; then
    echo asked >> /var/lib/asked
    if cat /etc/app.conf /etc/systemd/system/app.service.d/* 2>/dev/null | grep bad; then
        echo "app: what is bad?" >&2
        exit 3
    fi
    exit 0
fi
cat /etc/app.conf > /var/lib/started-with
exec sleep infinity
"#;

const LAYER: &str = r#"
[file."/etc/app.conf"]
content = "one\n"
mode    = "0640"

[file."/etc/notice"]
content = "one\n"

[file."/etc/after"]
content = "one\n"
needs   = ["unit:app.service"]

[unit."app.service"]
content    = "[Service]\nExecStart=/usr/local/sbin/app\n[Install]\nWantedBy=multi-user.target\n"
enabled    = true
running    = true
restart_on = ["file:/etc/app.conf"]
validate   = ["app", "--check"]
"#;

const DROPIN: &str = r#"
[unit."app.service".dropin.words]
content = "[Service]\nEnvironment=WORD=bad\n"
"#;

fn enrolled(label: &str, layer: &str) -> Scene {
    let scene = Scene::prepared(label, layer);
    let machine = &scene.machine;
    machine.write_file("/usr/local/sbin/app", DAEMON);
    machine.sh("chmod 0755 /usr/local/sbin/app");
    scene.enroll().success();
    scene.converge();
    scene
}

fn asked(machine: &Machine) -> usize {
    machine.read_file("/var/lib/asked").lines().count()
}

/// The message about `resource` in the status, which is degraded.
#[track_caller]
fn error_of(scene: &Scene, resource: &str) -> String {
    let status = scene.status();
    assert_eq!(status["state"], "degraded", "{status:#}");
    let errors = status["errors"].as_array().expect("errors is a list");
    let error = errors.iter().find(|error| error["resource"] == resource);
    let error = error.unwrap_or_else(|| panic!("no error of {resource}: {status:#}"));
    error["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn what_a_unit_does_not_accept_is_put_back_and_not_written_again() {
    let scene = enrolled("validate", LAYER);
    let machine = &scene.machine;
    let pid = machine.main_pid("app.service");
    assert_eq!(asked(machine), 1, "before its first start");

    let bad = LAYER.replace("one", "bad").replace("0640", "0600") + DROPIN;
    scene.declare(&bad);
    assert_eq!(scene.sync().code(), 1);
    let message = error_of(&scene, "unit:app.service");
    for word in [
        "'/etc/app.conf' and '/etc/systemd/system/app.service.d/words.conf'",
        "'app --check' exited with status 3",
        "app: what is bad?",
    ] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert_eq!(machine.read_file("/etc/app.conf"), "one\n");
    assert_eq!(machine.ownership("/etc/app.conf"), "root:root 640");
    let dropin = "/etc/systemd/system/app.service.d/words.conf";
    assert!(!machine.exists(dropin), "there was none");
    let shown = machine.sh("systemctl show -p Environment -p NeedDaemonReload app.service");
    assert!(
        !shown.contains("WORD") && shown.contains("NeedDaemonReload=no"),
        "{shown}"
    );
    assert_eq!(machine.main_pid("app.service"), pid, "it was not restarted");
    assert_eq!(
        machine.read_file("/etc/notice"),
        "bad\n",
        "the rest goes on"
    );
    assert_eq!(
        machine.read_file("/etc/after"),
        "one\n",
        "what needs it waits"
    );
    assert_eq!(scene.status()["owed"], serde_json::json!([]));
    let why = machine
        .run(&["limpet", "why", "unit:app.service"])
        .success();
    assert!(why.contains("app: what is bad?"), "{why}");
    let history = machine.run(&["limpet", "history"]).success();
    assert!(
        history.contains("because unit:app.service did not accept it"),
        "{history}"
    );
    let journal = machine.sh("journalctl -t limpet -o cat");
    assert!(
        journal.contains("unit:app.service: app: what is bad?"),
        "{journal}"
    );

    // Neither a person who asks for a cycle, nor an agent that starts, nor a boot has it written again.
    let before = asked(machine);
    assert_eq!(scene.sync().code(), 1);
    machine.kill("limpet.service");
    wait_until("the agent is back", SOON, || {
        machine.is_active("limpet.service").then_some(())
    });
    assert_eq!(scene.sync().code(), 1);
    machine.reboot(Network::Shared);
    assert_eq!(scene.sync().code(), 1);
    assert_eq!(asked(machine), before);
    assert_eq!(error_of(&scene, "unit:app.service"), message);
    // It goes on with what it had, and what is declared of it otherwise is put right.
    machine.sh("systemctl kill --signal=KILL app.service; systemctl disable app.service");
    wait_until("the daemon is gone", SOON, || {
        (!machine.is_active("app.service")).then_some(())
    });
    assert_eq!(scene.sync().code(), 1);
    assert!(machine.is_active("app.service"));
    machine.sh("systemctl is-enabled app.service");

    // A person may have it tried again.
    let retried = machine.run(&["limpet", "sync", "--retry", "--wait"]);
    assert_eq!(retried.code(), 1, "{retried:?}");
    assert_eq!(asked(machine), before + 1);
    assert_eq!(machine.read_file("/etc/app.conf"), "one\n");

    let pid = machine.main_pid("app.service");
    scene.apply(&LAYER.replace("one", "two"));
    assert_eq!(machine.read_file("/etc/after"), "two\n");
    assert_eq!(machine.read_file("/var/lib/started-with"), "two\n");
    assert_ne!(machine.main_pid("app.service"), pid);
    // What was there before limpet is none of what was put back.
    scene.apply("");
    assert!(!machine.exists("/etc/app.conf"));
}

#[test]
fn a_unit_that_never_ran_is_not_started_with_what_it_does_not_accept() {
    let scene = Scene::prepared("validate-new", "");
    let machine = &scene.machine;
    machine.write_file("/usr/local/sbin/app", DAEMON);
    machine.sh("chmod 0755 /usr/local/sbin/app");
    machine.write_file("/etc/app.conf", "of the package\n");
    scene.enroll().success();
    scene.converge();
    scene.declare(&LAYER.replace("one", "bad"));
    assert_eq!(scene.sync().code(), 1);
    assert_eq!(scene.sync().code(), 1);
    assert!(error_of(&scene, "unit:app.service").contains("what is bad?"));
    assert_eq!(machine.read_file("/etc/app.conf"), "of the package\n");
    assert!(!machine.exists("/etc/systemd/system/app.service"));
    assert!(!machine.exists("/var/lib/started-with"));
    scene.apply(LAYER);
    assert!(machine.is_active("app.service"));
    scene.apply("");
    assert_eq!(machine.read_file("/etc/app.conf"), "of the package\n");
}

/// Ends the agent once, when the new content is on the disk and nobody has judged it.
const KILLER: &str = r#"
[command.killer]
command = ["killer"]
run_on  = ["file:/etc/app.conf"]
"#;

fn write_killer(machine: &Machine, how: &str) {
    let script = format!(
        "#!/bin/sh\ngrep -q bad /etc/app.conf || exit 0\n[ -e /var/lib/killed ] && exit 0\ntouch /var/lib/killed\n{how}\nsystemctl kill --signal=KILL limpet.service\nsleep 1\nexit 1\n"
    );
    machine.write_file("/usr/local/sbin/killer", script);
    machine.sh("chmod 0755 /usr/local/sbin/killer");
}

#[test]
fn the_verdict_is_owed_over_the_death_of_the_agent() {
    let scene = Scene::prepared("validate-kill", &(LAYER.to_owned() + KILLER));
    let machine = &scene.machine;
    machine.write_file("/usr/local/sbin/app", DAEMON);
    machine.sh("chmod 0755 /usr/local/sbin/app");
    write_killer(machine, "cat /etc/app.conf > /var/lib/written");
    scene.enroll().success();
    scene.converge();
    let pid = machine.main_pid("app.service");
    scene.declare(&(LAYER.replace("one", "bad") + KILLER));
    machine.run(&["limpet", "sync"]);
    wait_until("the agent dies", SOON, || {
        machine.exists("/var/lib/killed").then_some(())
    });
    wait_until("the file is put back", SOON, || {
        (machine.read_file("/etc/app.conf") == "one\n").then_some(())
    });
    assert_eq!(machine.read_file("/var/lib/written"), "bad\n");
    assert_eq!(scene.sync().code(), 1);
    assert!(error_of(&scene, "unit:app.service").contains("what is bad?"));
    assert_eq!(machine.main_pid("app.service"), pid);
    assert_eq!(scene.status()["owed"], serde_json::json!([]));
}

#[test]
fn a_unit_that_booted_with_what_it_does_not_accept_is_restarted_with_what_it_had() {
    let scene = Scene::prepared("validate-boot", &(LAYER.to_owned() + KILLER));
    let machine = &scene.machine;
    machine.write_file("/usr/local/sbin/app", DAEMON);
    machine.sh("chmod 0755 /usr/local/sbin/app");
    // No agent comes after it before the next boot.
    write_killer(machine, "systemctl mask --runtime limpet.service");
    scene.enroll().success();
    scene.converge();
    scene.declare(&(LAYER.replace("one", "bad") + KILLER));
    machine.run(&["limpet", "sync"]);
    wait_until("the agent is gone", SOON, || {
        let is_gone = machine.exists("/var/lib/killed") && !machine.is_active("limpet.service");
        is_gone.then_some(())
    });
    assert_eq!(machine.read_file("/etc/app.conf"), "bad\n");
    machine.reboot(Network::Shared);
    wait_until("the file is put back", SOON, || {
        (machine.read_file("/etc/app.conf") == "one\n").then_some(())
    });
    assert_eq!(scene.sync().code(), 1);
    assert_eq!(machine.read_file("/var/lib/started-with"), "one\n");
    assert!(machine.is_active("app.service"));
    assert_eq!(scene.status()["owed"], serde_json::json!([]));
}

#[test]
fn a_rollback_passes_over_a_revision_that_a_unit_did_not_accept() {
    // A command may change whatever leads to the source, so that is asked, and its answer alone makes no revision good.
    let layer = format!(
        "{LAYER}\n[command.note]\ncommand = [\"/bin/true\"]\nrun_on = [\"file:/etc/notice\"]\n"
    );
    let scene = enrolled("complete", &layer);
    let complete = scene.head();
    scene.declare(&layer.replace("one", "bad"));
    assert_eq!(scene.sync().code(), 1);
    error_of(&scene, "unit:app.service");
    scene.declare(&format!(
        "{}\n[health.never]\ncommand = [\"false\"]\nwithin = \"2s\"\nstable = \"1s\"\n",
        layer.replace("one", "three")
    ));
    assert_eq!(scene.sync().code(), 1);
    let status = scene.status();
    assert_eq!(status["state"], "rolled-back", "{status:#}");
    assert_eq!(status["revision"], complete.as_str(), "{status:#}");
    for path in ["/etc/app.conf", "/etc/notice"] {
        assert_eq!(scene.machine.read_file(path), "one\n", "{path}");
    }
}
