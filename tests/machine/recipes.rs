//! The recipes that need no package and no kernel of their own, on a real machine.
//!
//! The machine has no network: a recipe for a firewall, say, must never reach the rules of the computer that runs the tests.

use std::path::Path;

use crate::fixture::machine::{Machine, Network};
use crate::fixture::package;

const LAYERS: [&str; 4] = ["certificates", "cron", "hostname", "users"];

/// Copies the directory `from` to `to` in the machine.
fn copy(machine: &Machine, from: &Path, to: &str) {
    for entry in std::fs::read_dir(from).expect("the recipes are readable") {
        let entry = entry.expect("the recipes are readable");
        let target = format!("{to}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            copy(machine, &entry.path(), &target);
        } else {
            let bytes = std::fs::read(entry.path()).expect("the recipes are readable");
            machine.write_file(&target, bytes);
        }
    }
}

#[track_caller]
fn apply(machine: &Machine) {
    machine.sh("limpet apply --once --source /root/fleet --unverified --name web-1");
}

#[test]
fn recipes_do_what_they_say() {
    let machine = Machine::start_with("recipes", Network::None);
    machine.install_deb(&package::built());
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/recipes");
    copy(&machine, &recipes, "/root/fleet");
    let layers = LAYERS.map(|layer| format!("\"{layer}\"")).join(", ");
    machine.write_file(
        "/root/fleet/fleet.toml",
        format!(
            "format = 1\nfleet = \"recipes\"\n[[match]]\nhosts = [\"*\"]\nlayers = [{layers}]\n"
        ),
    );
    apply(&machine);

    assert_eq!(machine.sh("hostname"), "web-1\n");
    assert_eq!(machine.ownership("/var/lib/sensor"), "sensor:sensor 750");
    assert_eq!(machine.sh("id -nG deploy"), "deploy adm ops\n");
    let keys = "/home/deploy/.ssh/authorized_keys";
    assert!(machine.read_file(keys).starts_with("ssh-ed25519 "));
    machine.sh("systemctl is-active backup.timer && systemctl is-enabled backup.timer");
    let certificate = machine.read_file("/usr/local/share/ca-certificates/example.crt");
    let bundle = machine.read_file("/etc/ssl/certs/ca-certificates.crt");
    assert!(bundle.contains(certificate.trim()));

    machine.sh("sed -i 's/\"adm\", /\"adm\", \"games\", /' /root/fleet/layers/users/users.toml");
    apply(&machine);
    assert_eq!(machine.sh("id -nG deploy"), "deploy adm games ops\n");

    // A oneshot that remained runs again when its file changes.
    machine.sh("sed -i 's/host.name }}/host.name }}-b/' /root/fleet/layers/hostname/hostname.toml");
    apply(&machine);
    assert_eq!(machine.sh("hostname"), "web-1-b\n");
    assert_eq!(machine.sh("systemctl --failed --quiet"), "");
}
