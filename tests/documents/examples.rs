//! The examples of the manual pages, and the recipes.

use crate::repository::Repository;
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

/// A policy whose keys are left out, with a key for each.
fn with_keys(policy: &str) -> String {
    let keys = Repository::new();
    let mut number = 0;
    let lines = policy
        .lines()
        .map(|line| match line.contains("\"ssh-ed25519 AAAA…\"") {
            false => line.to_owned() + "\n",
            true => {
                number += 1;
                let key = keys.key(&format!("key{number}")).public;
                line.replace("ssh-ed25519 AAAA…", &key) + "\n"
            }
        });
    lines.collect()
}

#[test]
fn the_policies_of_the_page_and_the_readme_have_no_mistakes() {
    let policies = [
        examples("limpet-trust.5").swap_remove(0),
        crate::readme::only("Who may change what", "toml trust.toml").swap_remove(0),
    ];
    for policy in policies {
        check_fleet(&[
            ("fleet.toml", &fleet_of("\"base\"")),
            INVENTORY,
            ("layers/base/a.toml", ""),
            ("trust.toml", &with_keys(&policy)),
        ]);
    }
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
