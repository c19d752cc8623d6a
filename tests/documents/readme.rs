//! What the README quotes is so.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::repository::Repository;
use crate::{INVENTORY, check_fleet, fleet_of, in_tree, limpet, read};

/// The fenced blocks below the heading `heading`, each with the word after its fence.
fn blocks(heading: &str) -> Vec<(String, String)> {
    let text = read("README.md");
    let start = text.find(&format!("\n## {heading}\n")).unwrap();
    let section = &text[start + 1..];
    let section = section.find("\n## ").map_or(section, |end| &section[..end]);
    section
        .split("\n```")
        .skip(1)
        .step_by(2)
        .map(|block| {
            let (word, text) = block.split_once('\n').unwrap();
            (word.to_owned(), format!("{text}\n"))
        })
        .collect()
}

pub fn only(heading: &str, word: &str) -> Vec<String> {
    let blocks = blocks(heading).into_iter();
    blocks
        .filter(|(of, _)| of == word)
        .map(|(_, text)| text)
        .collect()
}

#[test]
fn the_layer_of_the_readme_has_no_mistakes() {
    let layers = only("The repository", "toml");
    assert_eq!(layers.len(), 1);
    check_fleet(&[
        ("fleet.toml", &fleet_of("\"base\"")),
        INVENTORY,
        ("layers/base/base.toml", &layers[0]),
        ("layers/base/files/chrony.conf.j2", "{{ ntp | first }}\n"),
        (
            "layers/base/files/grafana.asc",
            &read("config/recipes/layers/apt-repository/files/example.asc"),
        ),
        ("layers/base/files/deploy.pub", "ssh-ed25519 AAAA deploy\n"),
        ("layers/base/files/nginx/conf.d/site.conf", "server {}\n"),
        (
            "layers/base/files/app.service",
            "[Service]\nExecStart=/bin/true\n",
        ),
    ]);
}

#[test]
fn the_mistake_of_the_readme_is_drawn_so() {
    let drawn = only("The repository", "");
    let drawn = drawn
        .iter()
        .find(|text| text.starts_with("error:"))
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let layer = directory.path().join("layers/base");
    std::fs::create_dir_all(&layer).unwrap();
    std::fs::write(directory.path().join("fleet.toml"), fleet_of("\"base\"")).unwrap();
    let text = "[file.\"/etc/motd\"]\ncontent = \"x\"\nowmer = \"root\"\n";
    std::fs::write(layer.join("base.toml"), text).unwrap();
    let output = limpet(&["check"], directory.path());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(drawn.trim_end()), "{said}");
}

#[test]
fn the_recipes_of_the_readme_are_those_of_the_fleet() {
    let quoted = only("Recipes", "toml");
    assert!(quoted.len() >= 2);
    let mut recipes = Vec::new();
    let section = read("README.md");
    for layer in std::fs::read_dir(in_tree("config/recipes/layers")).unwrap() {
        let name = layer.unwrap().file_name().into_string().unwrap();
        let path = format!("config/recipes/layers/{name}/{name}.toml");
        assert!(
            section.contains(&format!("]({path})")),
            "{path} is not in the table"
        );
        recipes.push(read(&path));
    }
    for block in quoted {
        let is_there = recipes.iter().any(|recipe| recipe.contains(&block));
        assert!(is_there, "no recipe has:\n{block}");
    }
}

#[test]
fn links_of_the_readme_lead_somewhere() {
    let text = read("README.md");
    for link in text.split("](").skip(1) {
        let target = link.split(')').next().unwrap();
        match target.strip_prefix('#') {
            Some(anchor) => {
                let found = text
                    .lines()
                    .filter_map(|line| line.strip_prefix("## "))
                    .any(|heading| {
                        let slug = heading.to_lowercase().replace(' ', "-");
                        slug == anchor
                    });
                assert!(found, "no heading {anchor}");
            }
            None => assert!(in_tree(target).exists(), "{target}"),
        }
    }
}

#[test]
fn every_command_is_in_the_readme_and_in_the_list_of_pages() {
    let readme = read("README.md");
    let listed = limpet(&["man", "--list"], &in_tree(""));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let commands: Vec<&str> = listed
        .lines()
        .filter_map(|page| page.strip_prefix("limpet-")?.strip_suffix(".8"))
        .collect();
    assert!(commands.len() >= 10, "{commands:?}");
    for command in commands {
        assert!(
            readme.contains(&format!("`limpet {command}")),
            "limpet {command}"
        );
    }
}

#[test]
fn the_hook_of_the_readme_lets_in_what_hosts_accept() {
    let hook = only("Forges and merge buttons", "sh pre-receive").swap_remove(0);
    let repository = Repository::new();
    let (alice, mallory) = (repository.key("alice"), repository.key("mallory"));
    repository.write("fleet.toml", &fleet_of("\"base\""));
    let anchor = repository.commit(&alice, "first");
    repository.push();
    repository.file("anchor", &format!("{anchor}\n"));
    repository.file("allowed_signers", &alice.allowed());
    repository.file("revoked", "");
    // The hook as a server's administrator installs it, with the program on the server's PATH.
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_limpet"));
    let hook = hook.replacen(
        "set -eu\n",
        &format!(
            "set -eu\nFLEET_GATE='{}' PATH='{}':$PATH\n",
            repository.directory().display(),
            program.parent().unwrap().display()
        ),
        1,
    );
    let path = repository.file("server.git/hooks/pre-receive", &hook);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let push = |words: &[&str]| {
        let output = Command::new("git")
            .arg("push")
            .args(words)
            .current_dir(repository.directory().join("work"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    };

    repository.commit(&alice, "second");
    let (accepted, said) = push(&["origin", "HEAD"]);
    assert!(accepted, "{said}");
    let good = repository.id("HEAD");

    repository.commit_unsigned("trust me");
    let (accepted, said) = push(&["origin", "HEAD"]);
    assert!(!accepted && said.contains("has no signature"), "{said}");

    repository.reset(&good);
    repository.commit(&mallory, "trust me");
    let (accepted, said) = push(&["origin", "HEAD"]);
    assert!(!accepted && said.contains("refused revision"), "{said}");

    repository.reset(&anchor);
    repository.commit(&alice, "another second");
    let (accepted, said) = push(&["--force", "origin", "HEAD"]);
    assert!(!accepted, "{said}");
    let (accepted, said) = push(&["origin", ":main"]);
    assert!(!accepted && said.contains("not to be deleted"), "{said}");

    // Other branches are nobody's concern.
    repository.branch("draft", &good);
    repository.commit_unsigned("a draft");
    let (accepted, said) = push(&["origin", "draft"]);
    assert!(accepted, "{said}");
}
