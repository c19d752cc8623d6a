//! What a host gets from its layers.

use limpet::fleet::{HostIdentity, Limits, SubTree};
use limpet::model::Class;
use limpet::sys::workdir::WorkDir;

use crate::tree::{FLEET, WorkTree, limpet};

/// `content` of the file at `path`, as it will stand on the host.
fn content<'a>(rendered: &'a serde_json::Value, path: &str) -> &'a str {
    rendered["contents"][path].as_str().unwrap_or("(none)")
}

fn value_of(rendered: &serde_json::Value, list: &str, key: &str) -> String {
    let values = rendered[list].as_array().unwrap();
    values
        .iter()
        .find(|value| value["key"] == key)
        .map_or("(none)".to_owned(), |value| {
            format!(
                "{} from {}",
                value["value"].as_str().unwrap(),
                value["origin"].as_str().unwrap()
            )
        })
}

#[test]
fn a_later_layer_wins_and_origins_tell() {
    let tree = WorkTree::new(&[
        (
            "fleet.toml",
            &FLEET.replace("\"base\"]", "\"base\", \"late\"]"),
        ),
        (
            "layers/base/a.toml",
            "[defaults]\nport = 1\n[vars]\nname = \"base\"\n[file.\"/a\"]\ncontent = \"base\"\nmode = \"0600\"\n",
        ),
        (
            "layers/late/b.toml",
            "[defaults]\nname = \"weak\"\nport = 2\n[file.\"/a\"]\ncontent = \"late\"\n",
        ),
        ("hosts/gw/c.toml", "[vars]\nport = 3\n"),
    ]);
    let rendered = tree.render("gw");
    assert_eq!(content(&rendered, "/a"), "late");
    assert_eq!(
        value_of(&rendered, "values", "file:/a mode"),
        "\"0600\" from layers/base/a.toml:7:8"
    );
    assert_eq!(
        value_of(&rendered, "values", "file:/a content"),
        "\"late\" from layers/late/b.toml:5:11"
    );
    assert_eq!(
        value_of(&rendered, "variables", "name"),
        "\"base\" from layers/base/a.toml:4:8"
    );
    assert_eq!(
        value_of(&rendered, "variables", "port"),
        "3 from hosts/gw/c.toml:2:8"
    );
}

#[test]
fn the_inventory_s_variables_are_stronger_than_any_layer_s() {
    let tree = WorkTree::new(&[
        ("inventory/hosts.toml", "[host.gw]\nvars = { ip = \"1\" }\n"),
        ("layers/base/a.toml", ""),
        ("hosts/gw/c.toml", "[vars]\nip = \"2\"\n"),
    ]);
    assert_eq!(
        value_of(&tree.render("gw"), "variables", "ip"),
        "\"1\" from inventory/hosts.toml:2:15"
    );
}

#[test]
fn used_layers_stand_just_before_and_each_once() {
    let tree = WorkTree::new(&[
        (
            "inventory/hosts.toml",
            "[host.gw]\nlayers = [\"a\", \"extra\"]\n",
        ),
        ("layers/base/x.toml", "[layer]\nuse = [\"a\", \"b\"]\n"),
        ("layers/a/x.toml", "[layer]\nuse = [\"c\"]\n"),
        ("layers/b/x.toml", "[layer]\nuse = [\"c\"]\n"),
        ("layers/c/x.toml", ""),
        ("layers/extra/x.toml", ""),
        ("hosts/gw/x.toml", ""),
    ]);
    let rendered = tree.render("gw");
    let layers: Vec<&str> = rendered["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["name"].as_str().unwrap())
        .collect();
    assert_eq!(layers, ["c", "a", "b", "base", "extra", "hosts/gw"]);
}

#[test]
fn undeclare_forgets_what_earlier_layers_said() {
    let tree = WorkTree::new(&[
        (
            "layers/base/a.toml",
            "[file.\"/a\"]\ncontent = \"x\"\n[file.\"/b\"]\ncontent = \"x\"\nmode = \"0600\"\n[package]\ncurl = \"installed\"\n[unit.\"u.service\".dropin.one]\ncontent = \"1\"\n[unit.\"u.service\".dropin.two]\ncontent = \"2\"\n",
        ),
        (
            "hosts/gw/a.toml",
            "[file.\"/a\"]\nundeclare = true\n[file.\"/b\"]\nundeclare = true\nsource = \"new\"\n[package.curl]\nundeclare = true\n[unit.\"u.service\".dropin.one]\nundeclare = true\n",
        ),
        ("hosts/gw/files/new", "new"),
    ]);
    let rendered = tree.render("gw");
    let paths: Vec<&str> = rendered["state"]["paths"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["/b", "/etc/systemd/system/u.service.d/two.conf"]);
    assert_eq!(rendered["state"]["paths"][0]["mode"], "0644");
    assert_eq!(content(&rendered, "/b"), "new");
    assert_eq!(rendered["state"]["packages"].as_array().unwrap().len(), 0);
}

#[test]
fn a_unit_whose_last_dropin_is_undeclared_is_no_mistake() {
    let tree = WorkTree::new(&[
        (
            "layers/base/a.toml",
            "[unit.\"u.service\".dropin.one]\ncontent = \"1\"\n",
        ),
        (
            "hosts/gw/a.toml",
            "[unit.\"u.service\".dropin.one]\nundeclare = true\n",
        ),
    ]);
    assert_eq!(tree.render("gw")["state"]["paths"], serde_json::json!([]));
}

#[test]
fn absent_overrules_what_earlier_layers_wished() {
    let tree = WorkTree::new(&[
        (
            "layers/base/a.toml",
            "[file.\"/a\"]\ncontent = \"x\"\n[package.httpd]\napt = \"apache2\"\nversion = \"2.4\"\n",
        ),
        (
            "hosts/gw/a.toml",
            "[file.\"/a\"]\nstate = \"absent\"\n[package]\nhttpd = \"absent\"\n",
        ),
    ]);
    let state = &tree.render("gw")["state"];
    assert_eq!(state["paths"][0]["type"], "absent");
    assert_eq!(state["packages"][0]["name"], "apache2");
    assert_eq!(state["packages"][0]["state"], "absent");
}

#[test]
fn a_package_without_a_name_for_this_manager_is_not_managed() {
    let tree = WorkTree::new(&[(
        "layers/base/a.toml",
        "[package]\nx = { dnf = \"x\" }\n[file.\"/a\"]\ncontent = \"\"\nneeds = [\"package:x\"]\n",
    )]);
    let state = &tree.render("gw")["state"];
    assert_eq!(state["packages"].as_array().unwrap().len(), 0);
    assert_eq!(state["needs"], serde_json::json!({}));
}

#[test]
fn a_layer_in_report_mode_only_looks_at_its_resources() {
    let tree = WorkTree::new(&[(
        "layers/base/a.toml",
        "[layer]\nreport = true\n[file.\"/a\"]\ncontent = \"x\"\n[file.\"/b\"]\ncontent = \"x\"\nreport = false\n[package]\ncurl = \"installed\"\n",
    )]);
    let state = &tree.render("gw")["state"];
    assert_eq!(state["paths"][0]["report"], true);
    assert_eq!(state["paths"][1]["report"], false);
    assert_eq!(state["packages"][0]["report"], true);
}

#[test]
fn templates_know_the_host_and_the_inventory() {
    let tree = WorkTree::new(&[
        (
            "inventory/hosts.toml",
            "[host.gw]\nlabels = { site = \"x\" }\nfacts = { os = \"debian\" }\n[host.db]\nlabels = { role = \"db\" }\nvars = { ip = \"10.0.0.1\" }\n",
        ),
        (
            "layers/base/a.toml",
            "[vars]\ndir = \"/srv\"\n[file.\"/a\"]\nsource = \"a.j2\"\ntemplate = true\nowner = \"{{ host.labels.site | default('root') }}\"\n[unit.\"u@.service\"]\ntemplate = true\ncontent = \"{{ dir }}\\n\"\ndropin.raw = { content = \"{{ dir }}\", template = false }\n",
        ),
        (
            "layers/base/files/a.j2",
            "{{ host.name }} {{ host.facts.family }}\n{% for h in hosts if h.labels.role == \"db\" %}\n  {{ h.vars.ip }} {{ h.name }}\n{% endfor %}\n",
        ),
    ]);
    let rendered = tree.render("gw");
    assert_eq!(content(&rendered, "/a"), "gw debian\n  10.0.0.1 db\n");
    assert_eq!(rendered["state"]["paths"][0]["owner"], "x");
    assert_eq!(
        content(&rendered, "/etc/systemd/system/u@.service"),
        "/srv\n"
    );
    assert_eq!(
        content(&rendered, "/etc/systemd/system/u@.service.d/raw.conf"),
        "{{ dir }}"
    );
}

#[test]
fn a_mistake_elsewhere_does_not_fail_this_host() {
    let tree = WorkTree::new(&[
        (
            "inventory/hosts.toml",
            "[host.gw]\n[host.db]\nlayers = [\"broken\"]\n",
        ),
        ("layers/base/a.toml", ""),
        ("layers/broken/a.toml", "this is = = not TOML"),
        ("hosts/db/a.toml", "[fiel]\n"),
    ]);
    tree.render("gw");
    assert_eq!(tree.check().status.code(), Some(65));
}

#[test]
fn a_comment_changes_no_digest_and_a_value_does() {
    let tree = WorkTree::new(&[("layers/base/a.toml", "[file.\"/a\"]\ncontent = \"x\"\n")]);
    let digest = tree.render("gw")["digest"].clone();
    tree.write(
        "layers/base/a.toml",
        "# why\n\n[file.\"/a\"]\ncontent = 'x'\nmode = \"644\"\n",
    );
    assert_eq!(tree.render("gw")["digest"], digest);
    tree.write("layers/base/a.toml", "[file.\"/a\"]\ncontent = \"y\"\n");
    assert_ne!(tree.render("gw")["digest"], digest);
}

#[test]
fn a_host_whose_facts_are_measured_on_it_is_noted_and_no_mistake() {
    let tree = WorkTree::new(&[
        (
            "fleet.toml",
            &format!("{FLEET}[[match]]\nfacts = {{ family = \"debian\" }}\nlayers = [\"base\"]\n"),
        ),
        ("layers/base/a.toml", ""),
        ("hosts/new/a.toml", ""),
    ]);
    let output = tree.check();
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r"
    note: host 'new' is not rendered: its family is only known on the host; declare it in the inventory to check it here
    checked 2 hosts, 1 layer: no mistakes
    ");
    let output = limpet(&["render", "--host", "new"], tree.path());
    assert_eq!(output.status.code(), Some(65));
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r#"
    error: fleet.toml:7:1: fact 'family' of host 'new' is not known
      |
    7 | [[match]]
      | ^^^^^^^^^ this rule asks about it
      |
    hint: declare it in inventory/*.toml to render away from the host: [host.new] facts = { family = "…" }
    "#);
}

#[test]
fn rendering_for_people_shows_layers_values_and_contents() {
    let tree = WorkTree::new(&[(
        "layers/base/a.toml",
        "[vars]\nname = \"you\"\n[file.\"/a\"]\ntemplate = true\ncontent = \"hello {{ name }}\\n\"\n",
    )]);
    let output = limpet(&["render", "--host", "gw", "--origins"], tree.path());
    let text = String::from_utf8(output.stdout).unwrap();
    let without_digest: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("digest"))
        .collect();
    insta::assert_snapshot!(without_digest.join("\n"), @r#"
    host gw of fleet test

    layers
      base  (fleet.toml:4:1 matches)

    resources
      file:/a content = "hello {{ name }}\n"  # layers/base/a.toml:5:11 (layer base)
      file:/a template = true  # layers/base/a.toml:4:12 (layer base)

    variables
      name = "you"  # layers/base/a.toml:2:8 (layer base)

    content of /a
      | hello you
    "#);
}

/// What rendering says on a machine with these facts and this machine id.
fn on_machine(
    inventory: &str,
    facts: &[(&str, &str)],
    machine_id: &str,
) -> Result<Vec<String>, Vec<String>> {
    let tree = WorkTree::new(&[
        ("inventory/hosts.toml", inventory),
        ("layers/base/a.toml", ""),
    ]);
    let host = HostIdentity {
        facts: facts
            .iter()
            .map(|(fact, value)| ((*fact).to_owned(), (*value).to_owned()))
            .collect(),
        machine_id: Some(machine_id.to_owned()),
        ..HostIdentity::named("gw")
    };
    let files = WorkDir::open(tree.path()).unwrap();
    let told = |failures: Vec<limpet::model::Failure>| -> Vec<String> {
        assert!(failures.iter().all(|failure| failure.class == Class::Host));
        failures.iter().map(ToString::to_string).collect()
    };
    match limpet::fleet::render(&files, &host, &Limits::default()) {
        Ok(rendered) => Ok(told(rendered.warnings)),
        Err(failures) => Err(told(failures)),
    }
}

#[test]
fn a_wrong_fact_or_machine_id_holds_the_host_and_a_wrong_version_warns() {
    let id = "22823ba622823ba622823ba622823ba6";
    let inventory = "[host.gw]\nfacts = { os = \"debian\", os_version = \"12\", arch = \"amd64\" }\nmachine_id = \"22823ba622823ba622823ba622823ba6\"\n";
    let right = [("os", "debian"), ("os_version", "12.5"), ("arch", "amd64")];
    assert_eq!(on_machine(inventory, &right, id), Ok(vec![]));
    let other_version = [("os", "debian"), ("os_version", "13"), ("arch", "amd64")];
    insta::assert_snapshot!(on_machine(inventory, &other_version, id).unwrap().join("\n"), @r"inventory/hosts.toml:2:39: fact 'os_version' of host 'gw' is declared as '12', and is '13' on this machine");
    let other_arch = [("os", "debian"), ("os_version", "12"), ("arch", "arm64")];
    insta::assert_snapshot!(on_machine(inventory, &other_arch, "00").unwrap_err().join("\n"), @r"
    inventory/hosts.toml:2:52: fact 'arch' of host 'gw' is declared as 'amd64', and is 'arm64' on this machine
    inventory/hosts.toml:3:14: host 'gw' is another machine: its machine id is '00'
    ");
}

#[test]
fn a_fleet_that_needs_a_newer_limpet_holds_the_host() {
    let tree = WorkTree::new(&[
        ("fleet.toml", &format!("min_limpet = \"99.1\"\n{FLEET}")),
        ("layers/base/a.toml", ""),
    ]);
    let files = WorkDir::open(tree.path()).unwrap();
    let failures =
        limpet::fleet::render(&files, &HostIdentity::named("gw"), &Limits::default()).unwrap_err();
    assert_eq!(failures[0].class, Class::Host);
    assert!(
        failures[0]
            .message
            .starts_with("this fleet needs limpet 99.1")
    );
}

#[test]
fn a_directory_of_the_repository_can_hold_the_fleet() {
    let tree = WorkTree::new(&[
        ("fleets/edge/fleet.toml", FLEET),
        (
            "fleets/edge/layers/base/a.toml",
            "[file.\"/a\"]\nsource = \"/shared/x\"\n",
        ),
        ("fleets/edge/shared/x", "x"),
    ]);
    let files = WorkDir::open(tree.path()).unwrap();
    let edge = SubTree::new(&files, "fleets/edge");
    let rendered =
        limpet::fleet::render(&edge, &HostIdentity::named("gw"), &Limits::default()).unwrap();
    assert_eq!(rendered.state.paths[0].path, "/a");
}
