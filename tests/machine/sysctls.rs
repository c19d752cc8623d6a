//! Parameters of the kernel, as declared.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::scene::Scene;

const BEFORE: &str = "[file.\"/etc/scene\"]\ncontent = \"one\\n\"\n";

/// Each network has its own, and nothing depends on it.
const OF_THE_NETWORK: &str = "net.ipv4.igmp_max_memberships";

/// Belongs to the machine alone, as the messages do that it is about.
const OF_THE_KERNEL: &str = "kernel.msgmnb";

fn live(scene: &Scene, name: &str) -> String {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    // Not from here: some belong to the name spaces of who asks.
    scene.machine.sh(&format!("cat {path}")).trim().to_owned()
}

fn set(scene: &Scene, name: &str, value: &str) {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    scene.machine.sh(&format!("echo {value} > {path}"));
}

fn layer(network: &str, kernel: &str) -> String {
    format!("{BEFORE}[sysctl]\n\"{OF_THE_NETWORK}\" = {network}\n\"{OF_THE_KERNEL}\" = {kernel}\n")
}

/// Puts back what this computer's network had, which the machine shares, also when the test fails; nobody else has it meanwhile.
struct Shared {
    path: String,
    before: Vec<u8>,
    _alone: MutexGuard<'static, ()>,
}

impl Shared {
    fn of(name: &str) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let before = std::fs::read(&path).expect("the kernel has it");
        Shared {
            path,
            before,
            _alone: alone,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        std::fs::write(&self.path, &self.before).expect("root may write it");
    }
}

#[test]
fn live_values_are_kept_and_put_back_in_the_network_of_the_host() {
    let _shared = Shared::of(OF_THE_NETWORK);
    let scene = Scene::enrolled("sysctls", BEFORE);
    let machine = &scene.machine;
    // A container may not change what it does not own; these two are its own, or ours to change.
    machine.sh("mount -o remount,rw /proc/sys; mount -o remount,rw /proc/sys/net || true");
    let before = [OF_THE_NETWORK, OF_THE_KERNEL].map(|name| live(&scene, name));
    assert_ne!(before, ["21", "12345"]);

    scene.apply(&layer("21", "12345"));
    assert_eq!(live(&scene, OF_THE_NETWORK), "21");
    assert_eq!(live(&scene, OF_THE_KERNEL), "12345");
    let file = machine.sh("cat /etc/sysctl.d/*igmp*");
    assert!(
        file.ends_with("net.ipv4.igmp_max_memberships = 21\n"),
        "{file}"
    );

    // A cycle that changes nothing runs no program: there is nothing new in the journal of systemd.
    let units = "journalctl --quiet --output=cat --grep limpet-run- | wc -l";
    let count = machine.sh(units);
    scene.sync().success();
    scene.sync().success();
    assert_eq!(machine.sh(units), count);

    // Drift is noticed, told as such, and undone.
    set(&scene, OF_THE_NETWORK, "22");
    set(&scene, OF_THE_KERNEL, "22222");
    let mut planned = scene.planned();
    planned.sort();
    assert_eq!(
        planned,
        [
            "sysctl:kernel.msgmnb update differs",
            "sysctl:net.ipv4.igmp_max_memberships update differs"
        ]
    );
    scene.sync().success();
    assert_eq!(live(&scene, OF_THE_NETWORK), "21");
    assert_eq!(live(&scene, OF_THE_KERNEL), "12345");
    scene.nothing_to_do();

    // What one could not be is told with its name, and harms none of the others.
    let layer = layer("23", "12345");
    let missing = format!("{layer}\"net.ipv4.no_such_thing\" = 1\n");
    scene.declare(&missing);
    assert_eq!(scene.sync().code(), 1);
    assert_eq!(live(&scene, OF_THE_NETWORK), "23");
    let errors = scene.status()["errors"].to_string();
    assert!(errors.contains("sysctl:net.ipv4.no_such_thing"), "{errors}");
    assert!(errors.contains("Couldn't write '1'"), "{errors}");

    // No longer declared, they are as before limpet.
    scene.apply(BEFORE);
    let after = [OF_THE_NETWORK, OF_THE_KERNEL].map(|name| live(&scene, name));
    assert_eq!(after, before);
    assert_eq!(machine.sh("ls /etc/sysctl.d | grep limpet || true"), "");
}

#[test]
fn without_a_fetcher_values_of_the_network_wait_and_those_of_the_kernel_do_not() {
    let _shared = Shared::of(OF_THE_NETWORK);
    let scene = Scene::enrolled("sysctls-alone", BEFORE);
    let machine = &scene.machine;
    machine.sh("mount -o remount,rw /proc/sys; mount -o remount,rw /proc/sys/net || true");
    scene.apply(&layer("21", "12345"));
    machine.sh("systemctl stop limpet-fetch.socket limpet-fetch.service");
    set(&scene, OF_THE_NETWORK, "22");
    set(&scene, OF_THE_KERNEL, "22222");
    scene.sync();
    assert_eq!(live(&scene, OF_THE_KERNEL), "12345");
    assert_eq!(live(&scene, OF_THE_NETWORK), "22");
    machine.sh("systemctl start limpet-fetch.socket");
    scene.converge();
    assert_eq!(live(&scene, OF_THE_NETWORK), "21");
}
