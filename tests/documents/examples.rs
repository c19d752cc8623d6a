//! The examples of the manual pages, and the recipes.

use crate::{INVENTORY, check_fleet, fleet_of, in_tree, limpet, read};

/// The examples of a page, as a reader sees them.
fn examples(page: &str) -> Vec<String> {
    let text = read(&format!("packaging/man/{page}"));
    text.split("\n.EX\n")
        .skip(1)
        .map(|rest| {
            let example = rest.split("\n.EE\n").next().unwrap();
            example.replace("\\-", "-").replace("\\e", "\\") + "\n"
        })
        .collect()
}

#[test]
fn the_layers_of_the_page_have_no_mistakes() {
    let examples = examples("limpet-layer.5");
    check_fleet(&[
        ("fleet.toml", &fleet_of("\"ssh\"")),
        INVENTORY,
        ("layers/ssh/ssh.toml", &examples[0]),
        ("layers/clock/clock.toml", &examples[1]),
    ]);
}

#[test]
fn the_fleet_of_the_page_has_no_mistakes() {
    let examples = examples("limpet-fleet.5");
    let layer = "[file.\"/etc/motd\"]\ncontent = \"x\"\n";
    check_fleet(&[
        ("fleet.toml", &examples[0]),
        ("inventory/hosts.toml", &examples[1]),
        ("layers/base/a.toml", layer),
        ("layers/debian/a.toml", layer),
        ("layers/site/lagos/a.toml", layer),
        ("layers/gateway/a.toml", layer),
    ]);
}

#[test]
fn the_host_configuration_of_the_page_is_valid() {
    let text = examples("limpet.toml.5").swap_remove(0);
    let config = limpet::config::Config::parse(&[("limpet.toml".to_owned(), text)]).unwrap();
    assert_eq!(config.host.name, "gw-lag-02");
}

#[test]
fn the_recipes_have_no_mistakes() {
    let output = limpet(&["check"], &in_tree("config/recipes"));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "checked 1 host, 15 layers: no mistakes\n"
    );
}
