//! Containers without an orchestrator: a Quadlet file is a file, and the service that podman's own generator makes of it a unit.
//!
//! The machine is a Debian unstable with its podman. No registry can be reached, so a drop-in that the tests place has the services run
//! something else than the container; everything up to there is podman's and systemd's.

use crate::fixture::machine::{Machine, Network};
use crate::fixture::repository::Repository;
use crate::fixture::{package, rpm_repository};
use crate::scene::Scene;

/// What README.md calls the recipe, word for word.
const RECIPE: &str = include_str!("../../config/recipes/layers/container/container.toml");

const OTHERS: &str = r#"
[file."/etc/containers/systemd/db.container"]
content = "[Container]\nImage=docker.io/library/postgres:17\nVolume=db.volume:/var/lib/postgresql/data\n"

[file."/etc/containers/systemd/db.volume"]
content = "[Volume]\nVolumeName=db\n"

[unit."db.service"]
running = true
needs   = ["file:/etc/containers/systemd/db.container", "file:/etc/containers/systemd/db.volume"]

[unit."plain.service"]
content = "[Service]\nExecStart=/usr/bin/sleep infinity\n"
running = true
"#;

/// The services run, though there is no image to run.
const OFFLINE: &str = "[Service]\nType=exec\nExecStart=\nExecStart=/usr/bin/sleep infinity\nExecStop=\nExecStopPost=\n";

/// What podman made of a file.
fn generated(machine: &Machine, unit: &str) -> String {
    machine.sh(&format!("cat /run/systemd/generator/{unit}"))
}

fn pids(machine: &Machine) -> [u32; 3] {
    ["web.service", "db.service", "plain.service"].map(|unit| machine.main_pid(unit))
}

#[test]
fn a_new_image_tag_restarts_the_service_that_podman_makes_of_its_file_and_no_other() {
    let base = rpm_repository::base("podman");
    let machine = Machine::start_over("quadlets", Network::Shared, Some(&base));
    machine.install_deb(&package::built());
    for unit in ["web", "db"] {
        machine.write_file(
            &format!("/etc/systemd/system/{unit}.service.d/offline.conf"),
            OFFLINE,
        );
    }
    machine.write_file(
        "/etc/systemd/system/db-volume.service.d/offline.conf",
        OFFLINE,
    );
    let scene = Scene::prepared_on(machine, "", Repository::new());
    let machine = &scene.machine;
    scene.enroll().success();
    scene.converge();

    let declared = format!("{RECIPE}{OTHERS}");
    scene.apply(&declared);
    assert!(generated(machine, "web.service").contains("docker.io/library/nginx:1.27"));
    assert!(machine.is_active("web.service") && machine.is_active("db.service"));
    // What the file's own [Install] says is podman's to do: at boot it starts.
    let wants = machine.sh("ls /run/systemd/generator/multi-user.target.wants");
    assert!(wants.contains("web.service"), "{wants}");
    let before = pids(machine);

    // Another tag.
    let tagged = declared.replace("nginx:1.27", "nginx:1.28");
    assert_ne!(tagged, declared);
    scene.apply(&tagged);
    assert!(generated(machine, "web.service").contains("docker.io/library/nginx:1.28"));
    let after = pids(machine);
    assert_ne!(after[0], before[0], "web.service");
    assert_eq!(after[1..], before[1..]);

    // The volume is a service of its own: what it belongs to is not started anew for it.
    scene.apply(&tagged.replace("VolumeName=db", "VolumeName=data"));
    assert_eq!(pids(machine), after);

    // Drift of the file comes to the same, in the other direction.
    machine.sh("sed -i s/1.28/1.26/ /etc/containers/systemd/web.container");
    scene.converge();
    assert!(
        machine
            .read_file("/etc/containers/systemd/web.container")
            .contains("nginx:1.28")
    );
    assert!(generated(machine, "web.service").contains("docker.io/library/nginx:1.28"));
    assert_eq!(pids(machine)[1..], before[1..]);

    // The commit taken back, and then the declaration.
    scene.apply(&declared);
    assert!(generated(machine, "web.service").contains("docker.io/library/nginx:1.27"));
    scene.apply(OTHERS);
    assert!(!machine.exists("/etc/containers/systemd/web.container"));
    assert!(!machine.exists("/run/systemd/generator/web.service"));
    assert!(!machine.is_active("web.service"));
    let left = ["db.service", "plain.service"].map(|unit| machine.main_pid(unit));
    assert_eq!(left[..], before[1..]);
    // It was there before limpet, and limpet's declaration of it is no reason to remove it.
    machine.sh("dpkg -s podman | grep -q 'Status: install ok installed'");
}
