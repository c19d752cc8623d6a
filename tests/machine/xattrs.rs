//! Extended attributes and capabilities, as setfattr(1) and setcap(8) see them.

use std::process::Command;

use crate::fixture::apt_repository::{AptRepository, Package};
use crate::fixture::machine::output_of;
use crate::scene::Scene;

const PATH: &str = "/usr/share/tool/version";

/// What getcap(8) says of the file.
fn capabilities(scene: &Scene) -> String {
    let path = scene.machine.path(PATH);
    let shown = output_of(Command::new("getcap").arg(&path)).success();
    let path = path.display().to_string();
    shown.trim().trim_start_matches(&path).trim().to_owned()
}

fn set_capabilities(scene: &Scene, text: &str) {
    output_of(
        Command::new("setcap")
            .arg(text)
            .arg(scene.machine.path(PATH)),
    )
    .success();
}

fn note(scene: &Scene) -> Option<Vec<u8>> {
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(scene.machine.path(PATH), "user.note", &mut value[..]);
    length.ok().map(|length| value[..length].to_vec())
}

fn declared(keys: &str) -> String {
    format!(
        "[package]\ntool = \"installed\"\n[file.\"{PATH}\"]\nneeds = [\"package:tool\"]\n{keys}"
    )
}

#[test]
fn capabilities_come_back_after_an_upgrade_and_go_when_they_are_no_longer_declared() {
    let scene = Scene::prepared("xattrs", "");
    let machine = &scene.machine;
    let packages = [Package::new("tool", "1.0"), Package::new("tool", "2.0")];
    AptRepository::new(&packages).copy_to(machine);
    machine.sh("mkdir -p /etc/limpet/limpet.toml.d
         printf '[apply]\\nallow_suid = true\\n' > /etc/limpet/limpet.toml.d/allow.toml
         apt-get -q -y install tool=1.0");
    // What was there before.
    set_capabilities(&scene, "cap_kill=ip");
    scene.enroll().success();
    scene.converge();

    let both = declared(
        "capabilities = \"cap_net_bind_service,cap_net_raw=ep\"\nxattrs = { \"user.note\" = \"0x6f757273\" }\n",
    );
    scene.apply(&both);
    assert_eq!(capabilities(&scene), "cap_net_bind_service,cap_net_raw=ep");
    assert_eq!(note(&scene).as_deref(), Some(&b"ours"[..]));
    let path = machine.path(PATH);
    let verified = output_of(
        Command::new("setcap")
            .args(["-v", "cap_net_raw,cap_net_bind_service=ep"])
            .arg(&path),
    );
    assert!(verified.status.success(), "{verified:?}");

    // dpkg brings the file without them, a change of owner takes them away, and somebody may set others.
    machine.sh("apt-get -q -y install tool=2.0");
    assert_eq!((capabilities(&scene), note(&scene)), (String::new(), None));
    let planned = scene.planned();
    assert_eq!(planned.len(), 1, "{planned:?}");
    scene.converge();
    assert_eq!(capabilities(&scene), "cap_net_bind_service,cap_net_raw=ep");
    assert_eq!(note(&scene).as_deref(), Some(&b"ours"[..]));
    machine.sh(&format!("chown games {PATH}; chown root {PATH}"));
    assert_eq!(capabilities(&scene), "");
    scene.converge();
    set_capabilities(&scene, "cap_chown=ep");
    scene.converge();
    assert_eq!(capabilities(&scene), "cap_net_bind_service,cap_net_raw=ep");

    scene.apply(&declared("capabilities = \"\"\n"));
    assert_eq!((capabilities(&scene), note(&scene)), (String::new(), None));
    scene.apply(&both);
    scene.apply("[package]\ntool = \"installed\"\n");
    assert_eq!(capabilities(&scene), "cap_kill=ip");
    assert_eq!(note(&scene), None);
}
