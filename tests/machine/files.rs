//! Files, directories and symbolic links on a real machine.

use crate::scene::{Scene, event};

const DECLARED: &str = r#"
[vars]
greeting = "hello"

[file."/etc/scene/content"]
content = "one\n"
mode = "0640"
group = "adm"

[file."/etc/scene/source"]
source = "source.txt"

[file."/etc/scene/template"]
source = "greeting.j2"
template = true

[file."/etc/scene/validated"]
content = "good\n"
validate = ["grep", "-q", "good", "{}"]

[file."/etc/issue.net"]
mode = "0600"

[directory."/srv/scene/deep"]
mode = "0750"

[symlink."/srv/scene/link"]
target = "/etc/scene/content"
"#;

fn scene(label: &str) -> Scene {
    let scene = Scene::prepared(label, "");
    scene
        .repository
        .write("layers/base/files/source.txt", "from a file\n");
    scene.repository.write(
        "layers/base/files/greeting.j2",
        "{{ greeting }}, {{ host.name }}\n",
    );
    scene.declare(DECLARED);
    scene.enroll().success();
    scene.converge();
    scene
}

/// Content, owner and mode of everything that DECLARED names.
#[track_caller]
fn check_declared(scene: &Scene) {
    let machine = &scene.machine;
    for (path, content, ownership) in [
        ("/etc/scene/content", "one\n", "root:adm 640"),
        ("/etc/scene/source", "from a file\n", "root:root 644"),
        ("/etc/scene/template", "hello, scene\n", "root:root 644"),
        ("/etc/scene/validated", "good\n", "root:root 644"),
    ] {
        assert_eq!(machine.read_file(path), content, "{path}");
        assert_eq!(machine.ownership(path), ownership, "{path}");
    }
    assert_eq!(machine.ownership("/etc/scene"), "root:root 755");
    assert_eq!(machine.ownership("/etc/issue.net"), "root:root 600");
    assert_eq!(machine.ownership("/srv/scene/deep"), "root:root 750");
    assert_eq!(
        machine.sh("readlink /srv/scene/link"),
        "/etc/scene/content\n"
    );
}

#[test]
fn declared_files_are_created_and_corrected() {
    let scene = scene("files");
    let machine = &scene.machine;
    check_declared(&scene);

    for change in [
        "echo two > /etc/scene/content",
        "chmod 0777 /etc/scene/content; chown games:games /etc/scene/source",
        "chmod 0644 /etc/issue.net",
        "echo bad > /etc/scene/validated",
        "chmod 0700 /srv/scene/deep",
        "ln -sfn /etc /srv/scene/link",
        "rm /etc/scene/template",
        "rm /srv/scene/link; rmdir /srv/scene/deep; rmdir /srv/scene",
        "rm -r /etc/scene",
        "rm /etc/scene/content; ln -s /etc/passwd /etc/scene/content",
    ] {
        let passwd = machine.read_file("/etc/passwd");
        machine.sh(change);
        assert_ne!(scene.planned(), Vec::<String>::new(), "{change}");
        scene.converge();
        check_declared(&scene);
        assert_eq!(machine.read_file("/etc/passwd"), passwd, "{change}");
    }
    let corrected = scene.event(event::DRIFT_CORRECTED);
    assert_eq!(corrected["LIMPET_RESOURCE"], "file:/etc/scene/content");
    assert_eq!(corrected["LIMPET_REVISION"], scene.head().as_str());
}

#[test]
fn a_new_revision_changes_files_and_undeclaring_restores_what_was_there() {
    let scene = scene("revision");
    let machine = &scene.machine;
    let before = machine.journal_cursor();
    scene.apply(&DECLARED.replace("one", "two").replace("hello", "good day"));
    assert_eq!(machine.read_file("/etc/scene/content"), "two\n");
    assert_eq!(
        machine.read_file("/etc/scene/template"),
        "good day, scene\n"
    );
    assert_eq!(
        machine.journal_after(&before, "MESSAGE_ID", event::DRIFT_CORRECTED),
        Vec::<serde_json::Value>::new()
    );

    scene.apply("");
    for path in ["/etc/scene", "/srv/scene"] {
        assert!(!machine.exists(path), "{path}");
    }
    assert_eq!(machine.ownership("/etc/issue.net"), "root:root 644");
}

#[test]
fn a_candidate_that_fails_its_validation_is_not_written() {
    let scene = scene("validate");
    let machine = &scene.machine;
    let changed = DECLARED
        .replace("content = \"good", "content = \"bad")
        .replace("one", "two");
    let revision = scene.declare(&changed);
    assert_eq!(scene.sync().code(), 1);
    assert_eq!(machine.read_file("/etc/scene/validated"), "good\n");
    assert_eq!(machine.read_file("/etc/scene/content"), "two\n");
    assert_eq!(
        machine.sh("ls -A /etc/scene").lines().count(),
        4,
        "a candidate was left behind"
    );
    let status = scene.status();
    assert_eq!(status["state"], "degraded", "{status:#}");
    assert_eq!(
        status["errors"][0]["resource"], "file:/etc/scene/validated",
        "{status:#}"
    );
    let failed = scene.event(event::RESOURCE_FAILED);
    assert_eq!(failed["LIMPET_RESOURCE"], "file:/etc/scene/validated");
    assert_eq!(failed["LIMPET_REVISION"], revision.as_str());

    scene.apply(DECLARED);
    check_declared(&scene);
}

#[test]
fn nothing_is_written_through_links_or_directories_of_others() {
    let scene = Scene::enrolled("paths", "");
    let machine = &scene.machine;
    machine.sh("useradd --create-home mallory; ln -s /etc /home/mallory/link; ln -s /etc /tmp/link; mkdir -m 0777 /srv/open");
    for path in [
        "/home/mallory/file",
        "/home/mallory/link/limpet-was-here",
        "/tmp/link/limpet-was-here",
        "/srv/open/file",
    ] {
        scene.declare(&format!("[file.\"{path}\"]\ncontent = \"x\"\n\n[file.\"/etc/bystander\"]\ncontent = \"{path}\"\n"));
        assert_eq!(scene.sync().code(), 1, "{path}");
        assert!(!machine.exists(path), "{path}");
        assert!(!machine.exists("/etc/limpet-was-here"), "{path}");
        assert_eq!(machine.read_file("/etc/bystander"), path);
        let status = scene.status();
        assert_eq!(
            status["errors"][0]["resource"],
            format!("file:{path}"),
            "{status:#}"
        );
    }
}

#[test]
fn a_layer_in_report_mode_is_looked_at_and_not_touched() {
    let scene = Scene::enrolled("report", "");
    let machine = &scene.machine;
    machine.write_file("/etc/scene", "by hand\n");
    scene.declare("[file.\"/etc/scene\"]\ncontent = \"declared\\n\"\nreport = true\n");
    scene.sync();
    assert_eq!(machine.read_file("/etc/scene"), "by hand\n");
    let status = scene.status();
    assert_eq!(status["state"], "drifted", "{status:#}");
    assert_eq!(
        status["drift"][0]["resource"], "file:/etc/scene",
        "{status:#}"
    );
}
