//! What goes when declarations go: in which order, and what waits for a person.

use super::*;
use crate::kinds::unit::Original;

/// What declared `app.service` is gone; it was enabled and started by us.
fn owned_unit(scene: &mut Scene, name: &str) {
    scene.inventory.units.push(Owned {
        id: ResourceId::new(ResourceKind::Unit, name),
        key: name.into(),
        original: Original::default(),
        on_removal: OnRemoval::Restore,
        applied: serde_json::json!({ "enabled": true, "running": true }),
    });
    let seen = ObservedUnit {
        exists: true,
        active: "active".to_owned(),
        file_state: "enabled".to_owned(),
        needs_daemon_reload: false,
        ends_by_itself: false,
        can_reload: None,
        link: None,
        boot: None,
        is_enabled_below: false,
    };
    let units = &mut scene.observed.units.units;
    units.insert(name.to_owned(), Ok(seen));
}

/// A file that we made and that is declared no longer.
fn owned_file(mut scene: Scene, path: &str) -> Scene {
    scene = scene.missing_file(&format!("file:{path}"), path);
    scene.is_as_declared_before();
    scene.desired.paths.clear();
    let look = Look {
        entry: Entry::File {
            size: 1,
            links: 1,
            attributes: crate::sys::files::Attributes {
                mode: 0o644,
                uid: 0,
                gid: 0,
            },
            sha256: Some(hash_bytes(b"x")),
        },
        elsewhere: None,
        missing_parents: Arc::new([]),
    };
    let seen = ObservedPath {
        look,
        xattrs: Xattrs::default(),
        children: Vec::new(),
    };
    scene.observed.paths.paths.insert(path.into(), Ok(seen));
    scene
}

#[test]
fn removals_go_in_reverse_order() {
    let mut scene = owned_file(Scene::new(), "/etc/app.conf");
    owned_unit(&mut scene, "app.service");
    scene.check(&[
        "disable unit:app.service, stop unit:app.service",
        "delete file:/etc/app.conf",
    ]);
    // What needed something goes before it, whatever the kinds prefer.
    let conf = (InventoryKind::Path, "/etc/app.conf".to_owned());
    scene.inventory.needs.insert(conf, vec![app()]);
    scene.check(&[
        "delete file:/etc/app.conf",
        "disable unit:app.service, stop unit:app.service",
    ]);
}

#[test]
fn what_the_host_cannot_do_without_is_neither_stopped_nor_masked_nor_disabled() {
    let held = |name: &str, declare: &dyn Fn(&mut DesiredUnit)| {
        let mut scene = Scene::new();
        owned_unit(&mut scene, name);
        scene.inventory.units.clear();
        scene.rules.max_removals = Some(10);
        let mut scene = scene.unit("active", |unit| {
            unit.name = name.to_owned();
            unit.id = ResourceId::new(ResourceKind::Unit, name);
            declare(unit);
        });
        // A socket that starts it.
        if name.starts_with("ssh.") {
            scene = scene.unit("active", |unit| {
                unit.name = "ssh.socket".to_owned();
                unit.id = ResourceId::new(ResourceKind::Unit, "ssh.socket");
                unit.enabled = Some(true);
            });
            owned_unit(&mut scene, "ssh.socket");
            scene.inventory.units.clear();
        }
        let plan = scene.plan();
        let words = plan.held.iter().map(|held| {
            assert!(held.because.to_string().starts_with("it is "));
            held.step.action.to_string()
        });
        words.collect::<Vec<_>>().join(", ")
    };
    let stop = |unit: &mut DesiredUnit| unit.running = Some(false);
    let mask = |unit: &mut DesiredUnit| unit.masked = Some(true);
    let disable = |unit: &mut DesiredUnit| unit.enabled = Some(false);
    for (name, declare, expected) in [
        ("sshd.service", &stop as &dyn Fn(&mut DesiredUnit), "stop"),
        ("systemd-journald.service", &mask, "mask"),
        ("systemd-logind.service", &stop, "stop"),
        ("dbus.socket", &stop, "stop"),
        ("multi-user.target", &mask, "mask"),
        ("limpet.service", &disable, "disable"),
        ("limpet-recover.service", &mask, "mask"),
        ("ssh.service", &disable, ""),
        ("ssh.service", &stop, "stop"),
        ("systemd-timesyncd.service", &stop, ""),
        ("app.service", &stop, ""),
    ] {
        assert_eq!(held(name, declare), expected, "{name}");
    }
}
