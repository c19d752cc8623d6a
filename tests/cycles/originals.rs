//! What files were before limpet: kept within bounds, and told of.

use limpet::cycle::audit;
use limpet::record::Record;

use crate::scene::Scene;

fn kept(scene: &Scene) -> usize {
    std::fs::read_dir(scene.path("var/lib/limpet/originals"))
        .unwrap()
        .count()
}

fn declared(name: &str) -> String {
    format!("[file.\"/srv/{name}\"]\ncontent = \"ours\"\n")
}

#[test]
fn what_no_longer_fits_is_said_and_stays_when_it_is_no_longer_declared() {
    let scene = Scene::new(&declared("other"));
    scene.put("srv/big", &"x".repeat(3000));
    scene.put("srv/small", "small\n");
    scene.apply().expect(0);
    scene.push_layer(&[declared("other"), declared("big"), declared("small")].concat());
    scene.apply().expect(0);
    assert_eq!(kept(&scene), 2);

    let config = scene.get("etc/limpet/limpet.toml").unwrap();
    let config = format!("{config}\n[apply]\noriginals_max_size = \"1K\"\n");
    scene.put("etc/limpet/limpet.toml", &config);
    scene
        .apply()
        .expect(0)
        .says("forgot what file:/srv/big was before limpet, because more is kept than apply.originals_max_size");
    assert!(kept(&scene) < 2);
    let record = Record::open_read_only(&scene.path("var/lib/limpet/state.db")).unwrap();
    let told = audit::history(&record, "gw-1", 100, Some("/srv/big")).unwrap();
    assert_eq!(
        told.runs[0].changes.last().unwrap().action,
        "forget original",
        "{told:#?}"
    );
    let inventory = record.inventory().unwrap();
    let big = inventory
        .iter()
        .find(|entry| entry.key == "/srv/big")
        .unwrap();
    assert!(big.original.contains("attributes-only"), "{big:?}");
    drop(record);
    let again = scene.apply().expect(0);
    assert!(!again.stderr.contains("forgot"), "said once: {again:?}");

    scene.push_layer(&declared("other"));
    scene.apply().expect(0);
    assert_eq!(scene.get("srv/big").unwrap(), "ours", "kept, not deleted");
}
