//! The example fleet that is shipped.

use std::path::PathBuf;

use crate::tree::limpet;

fn example() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/example-fleet")
}

#[test]
fn the_example_fleet_has_no_mistakes() {
    let output = limpet(&["check"], &example());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "checked 4 hosts, 5 layers: no mistakes\n"
    );
}

#[test]
fn every_host_of_the_example_has_its_own_digest() {
    let output = limpet(&["check", "--digests"], &example());
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut digests: Vec<&str> = lines
        .lines()
        .map(|line| line.split_once(' ').unwrap().1)
        .collect();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 4);
    assert!(digests.iter().all(|digest| digest.len() == 64));
}

#[test]
fn check_render_and_the_host_compute_the_same_digest() {
    let output = limpet(&["check", "--digests"], &example());
    let lines = String::from_utf8(output.stdout).unwrap();
    let tree = limpet::sys::workdir::WorkDir::open(&example()).unwrap();
    for line in lines.lines() {
        let (host, digest) = line.split_once(' ').unwrap();
        let rendered = limpet(&["render", "--json", "--host", host], &example());
        let rendered: serde_json::Value = serde_json::from_slice(&rendered.stdout).unwrap();
        assert_eq!(rendered["digest"], digest);
        // As the agent does: with what it measured, and without what check shares between hosts.
        let inventory = |fact: &str, value: &str| (fact.to_owned(), value.to_owned());
        let mut identity = limpet::fleet::HostIdentity::named(host);
        let arch = if host == "web-lag-02" {
            "arm64"
        } else {
            "amd64"
        };
        identity.facts = [
            inventory("os", "debian"),
            inventory("family", "debian"),
            inventory("os_version", "12"),
            inventory("arch", arch),
        ]
        .into();
        let state =
            limpet::fleet::render_state(&tree, &identity, &limpet::fleet::Limits::default())
                .unwrap()
                .state;
        assert_eq!(state.digest, digest);
    }
}

#[test]
fn the_commented_host_configuration_is_valid() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/limpet.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let name = ("(hostname)".to_owned(), "host.name = \"gw\"".to_owned());
    let config = limpet::config::Config::parse(&[name, ("limpet.toml".to_owned(), text)]).unwrap();
    assert_eq!(config.host.name, "gw");
}
