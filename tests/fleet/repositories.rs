//! Repositories of packages, and the keys that they are signed by.

use insta::assert_snapshot;

use limpet::fleet::{HostIdentity, Limits, render_state};
use limpet::kinds::file::PathSpec;
use limpet::kinds::kind::ContentSource;
use limpet::sys::workdir::WorkDir;

use crate::tree::WorkTree;

const KEY: &str = include_str!("../../src/fleet/fixtures/ed25519.asc");
const OTHER_KEY: &str = include_str!("../../src/fleet/fixtures/rsa-with-subkey.asc");
const SIGNATURE: &str = include_str!("../../src/fleet/fixtures/signature.asc");
const FINGERPRINT: &str = "5CEF75DEEA6D4906D2F95D288F960B9E3C1853ED";

fn tree(layer: &str) -> WorkTree {
    WorkTree::new(&[
        ("layers/base/base.toml", layer),
        ("layers/base/files/a.asc", KEY),
        ("layers/base/files/both.asc", &format!("{KEY}{OTHER_KEY}")),
        (
            "layers/base/files/private.asc",
            &KEY.replace("PUBLIC", "PRIVATE"),
        ),
        ("layers/base/files/signature.asc", SIGNATURE),
    ])
}

#[track_caller]
fn mistakes(layer: &str) -> String {
    tree(layer).mistakes()
}

/// What the host called `gw` finds at `path`.
fn content(rendered: &serde_json::Value, path: &str) -> String {
    let text = rendered["contents"][path].as_str();
    text.unwrap_or("(none)").to_owned()
}

#[test]
fn a_repository_is_a_file_with_its_key_and_a_pin() {
    let rendered = tree(
        "[repository.grafana]\napt = { uris = [\"https://apt.example/a\", \"http://mirror.example:8080/a\"], suites = [\"stable\"], components = [\"main\", \"beta\"], key = \"both.asc\", priority = 700 }\n\
         [repository.local]\napt = { uris = [\"file:/srv/apt\"], suites = [\"./\"], key = \"a.asc\" }\n",
    )
    .render("gw");
    assert_snapshot!(content(&rendered, "/etc/apt/sources.list.d/grafana.sources"), @r"
    # Declared by the fleet; changes made here are undone.
    # repository:grafana, signed by 5CEF75DEEA6D4906D2F95D288F960B9E3C1853ED, 6AC329051CF298B87288612279828F66A7B6482E
    Types: deb
    URIs: https://apt.example/a http://mirror.example:8080/a
    Suites: stable
    Components: main beta
    Signed-By: /etc/apt/keyrings/grafana.gpg
    ");
    assert_snapshot!(content(&rendered, "/etc/apt/preferences.d/grafana.pref"), @r#"
    Explanation: Declared by the fleet; changes made here are undone.
    Package: *
    Pin: origin "apt.example"
    Pin-Priority: 700

    Package: *
    Pin: origin "mirror.example"
    Pin-Priority: 700
    "#);
    assert_snapshot!(content(&rendered, "/etc/apt/sources.list.d/local.sources"), @r"
    # Declared by the fleet; changes made here are undone.
    # repository:local, signed by 5CEF75DEEA6D4906D2F95D288F960B9E3C1853ED
    Types: deb
    URIs: file:/srv/apt
    Suites: ./
    Signed-By: /etc/apt/keyrings/local.gpg
    ");
    let paths: Vec<&str> = rendered["state"]["paths"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        [
            "/etc/apt/keyrings/grafana.gpg",
            "/etc/apt/keyrings/local.gpg",
            "/etc/apt/preferences.d/grafana.pref",
            "/etc/apt/sources.list.d/grafana.sources",
            "/etc/apt/sources.list.d/local.sources",
        ]
    );
    let values = rendered["values"].as_array().unwrap();
    let fingerprint = values
        .iter()
        .find(|value| value["key"] == "repository:local apt.key.fingerprint")
        .unwrap();
    assert_eq!(fingerprint["value"], format!("\"{FINGERPRINT}\""));
}

#[test]
fn the_armor_of_a_key_changes_nothing() {
    let layer =
        "[repository.a]\napt = { uris = [\"file:/srv/apt\"], suites = [\"./\"], key = \"k\" }\n";
    let digest = |key: &[u8]| {
        let tree = WorkTree::new(&[
            ("layers/base/base.toml", layer),
            ("layers/base/files/k", ""),
        ]);
        std::fs::write(tree.path().join("layers/base/files/k"), key).unwrap();
        tree.render("gw")["digest"].clone()
    };
    let binary = include_bytes!("../../src/fleet/fixtures/ed25519.gpg");
    assert_eq!(digest(KEY.as_bytes()), digest(binary));
    assert_ne!(digest(KEY.as_bytes()), digest(OTHER_KEY.as_bytes()));
}

#[test]
fn a_key_that_is_none_or_is_missing_is_refused() {
    assert_snapshot!(mistakes(
        "[repository.none]\napt = { uris = [\"https://a\"], suites = [\"./\"] }\n\
         [repository.private]\napt = { uris = [\"https://a\"], suites = [\"./\"], key = \"private.asc\" }\n\
         [repository.signature]\napt = { uris = [\"https://a\"], suites = [\"./\"], key = \"signature.asc\" }\n\
         [repository.missing]\napt = { uris = [\"https://a\"], suites = [\"./\"], key = \"b.asc\" }\n"
    ), @r#"
    error: layers/base/base.toml:2:7: `apt` of repository:none has no `key`: nothing says who may sign what is installed from there
      |
    2 | apt = { uris = ["https://a"], suites = ["./"] }
      |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: name the public key, under files/: key = "….asc"; or a host's operator allows it: apply.allow_unsigned_repositories = true in /etc/limpet/limpet.toml
    error: layers/base/base.toml:4:54: key 'private.asc' of `apt` of repository:private holds a private key
      |
    4 | apt = { uris = ["https://a"], suites = ["./"], key = "private.asc" }
      |                                                      ^^^^^^^^^^^^^
      |
    hint: it is no secret any more once it is pushed: revoke it, take it out of the history, and write the public key of another
    error: layers/base/base.toml:6:54: key 'signature.asc' of `apt` of repository:signature holds a PGP signature and not a public key
      |
    6 | apt = { uris = ["https://a"], suites = ["./"], key = "signature.asc" }
      |                                                      ^^^^^^^^^^^^^^^
      |
    hint: write what 'gpg --export --armor KEY' prints
    error: layers/base/base.toml:8:54: source 'b.asc' of `apt` of repository:missing is missing
      |
    8 | apt = { uris = ["https://a"], suites = ["./"], key = "b.asc" }
      |                                                      ^^^^^^^ no file 'layers/base/files/b.asc'
      |
    hint: did you mean 'a.asc'?
    "#);
}

#[test]
fn a_field_cannot_say_more_than_it_stands_for() {
    let apt = |uris: &str, suites: &str, more: &str| {
        mistakes(&format!(
            "[repository.a]\napt = {{ uris = [{uris}], suites = [{suites}], key = \"a.asc\"{more} }}\n"
        ))
    };
    let told = [
        apt("\"https://a\\nTrusted: yes\"", "\"./\"", ""),
        apt("\"https://a [trusted=yes]\"", "\"./\"", ""),
        apt("\"https://a\"", "\"./\\nAllow-Insecure: yes\"", ""),
        apt(
            "\"https://a\"",
            "\"stable\"",
            ", components = [\"main\\n\\nTypes: deb\"]",
        ),
        apt("\"https://user:secret@a\"", "\"./\"", ""),
        apt("\"mirror+file:/etc/mirrors\"", "\"./\"", ""),
        apt("\"copy:/srv\"", "\"./\"", ""),
        apt("\"a\"", "\"./\"", ""),
        apt("\"https:///a\"", "\"./\"", ""),
        apt("\"https://a\"", "\"../../x/\"", ""),
        apt("\"https://a\"", "\"./\"", ", trusted = true"),
        apt("\"https://a\"", "\"./\"", ", priority = 1001"),
    ];
    assert_snapshot!(told.join("\n"), @r#"
    error: layers/base/base.toml:2:16: 'https://a\nTrusted: yes' is no address for `apt` of repository:a
      |
    2 | apt = { uris = ["https://a\nTrusted: yes"], suites = ["./"], key = "a.asc" }
      |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: write one address for each: "https://apt.example/debian"

    error: layers/base/base.toml:2:16: 'https://a [trusted=yes]' is no address for `apt` of repository:a
      |
    2 | apt = { uris = ["https://a [trusted=yes]"], suites = ["./"], key = "a.asc" }
      |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: write one address for each: "https://apt.example/debian"

    error: layers/base/base.toml:2:7: missing field `components` in `apt` of repository:a
      |
    2 | apt = { uris = ["https://a"], suites = ["./\nAllow-Insecure: yes"], key = "a.asc" }
      |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: say it: components = ["main"]
    error: layers/base/base.toml:2:40: './\nAllow-Insecure: yes' in `suites` of `apt` of repository:a is no word
      |
    2 | apt = { uris = ["https://a"], suites = ["./\nAllow-Insecure: yes"], key = "a.asc" }
      |                                        ^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: use letters, digits and '-', '_', '.', '~', '/'; one word for each

    error: layers/base/base.toml:2:80: 'main\n\nTypes: deb' in `components` of `apt` of repository:a is no word
      |
    2 | apt = { uris = ["https://a"], suites = ["stable"], key = "a.asc", components = ["main\n\nTypes: deb"] }
      |                                                                                ^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: use letters, digits and '-', '_', '.', '~', '/'; one word for each

    error: layers/base/base.toml:2:16: an address of `apt` of repository:a has a name or password in it
      |
    2 | apt = { uris = ["https://user:secret@a"], suites = ["./"], key = "a.asc" }
      |                ^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: everybody on the host may read it: keep it on the host, for apt in /etc/apt/auth.conf.d

    error: layers/base/base.toml:2:16: 'mirror+file:/etc/mirrors' of `apt` of repository:a begins with 'mirror+file:'
      |
    2 | apt = { uris = ["mirror+file:/etc/mirrors"], suites = ["./"], key = "a.asc" }
      |                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: a repository is reached by https://, http:// or file:/

    error: layers/base/base.toml:2:16: 'copy:/srv' of `apt` of repository:a begins with 'copy:'
      |
    2 | apt = { uris = ["copy:/srv"], suites = ["./"], key = "a.asc" }
      |                ^^^^^^^^^^^^^
      |
    hint: a repository is reached by https://, http:// or file:/

    error: layers/base/base.toml:2:16: 'a' is no address for `apt` of repository:a
      |
    2 | apt = { uris = ["a"], suites = ["./"], key = "a.asc" }
      |                ^^^^^
      |
    hint: write the whole of it: https://…

    error: layers/base/base.toml:2:16: 'https:///a' is no address for `apt` of repository:a
      |
    2 | apt = { uris = ["https:///a"], suites = ["./"], key = "a.asc" }
      |                ^^^^^^^^^^^^^^
      |
    hint: write one address for each: "https://apt.example/debian"

    error: layers/base/base.toml:2:40: '../../x/' in `suites` of `apt` of repository:a is no word
      |
    2 | apt = { uris = ["https://a"], suites = ["../../x/"], key = "a.asc" }
      |                                        ^^^^^^^^^^^^
      |
    hint: use letters, digits and '-', '_', '.', '~', '/'; one word for each

    error: layers/base/base.toml:2:63: unknown field `trusted` in repository:a
      |
    2 | apt = { uris = ["https://a"], suites = ["./"], key = "a.asc", trusted = true }
      |                                                               ^^^^^^^ no such field
      |
    hint: known here: uris, suites, components, key, priority

    error: layers/base/base.toml:2:74: `priority` of `apt` of repository:a is a number from 1 to 1000, or -1
      |
    2 | apt = { uris = ["https://a"], suites = ["./"], key = "a.asc", priority = 1001 }
      |                                                                          ^^^^
      |
    hint: 500 is what apt gives by itself, -1 installs nothing; above 1000 apt would go down to it, which a package says by itself: allow_downgrade = true
    "#);
}

#[test]
fn what_a_repository_lacks_is_said() {
    assert_snapshot!([
        mistakes("[repository.a]\nreport = true\n"),
        mistakes("[repository.a]\napt = {}\n"),
        mistakes("[repository.a]\napt = { uris = [\"https://a\"], suites = [\"stable\"], key = \"a.asc\" }\n"),
        mistakes("[repository.a]\napt = { uris = [\"https://a\"], suites = [\"./\"], components = [\"main\"], key = \"a.asc\" }\n"),
        mistakes("[repository.a]\napt = \"https://a\"\n"),
        mistakes("[repository.\"a/b\"]\napt = { uris = [\"https://a\"], suites = [\"./\"], key = \"a.asc\" }\n"),
    ]
    .join("\n"), @r#"
    error: layers/base/base.toml:1:13: repository:a has neither `apt` nor `dnf`
      |
    1 | [repository.a]
      |             ^
      |
    hint: say where it is: apt = { uris = ["https://…"], suites = ["stable"], components = ["main"], key = "….asc" }

    error: layers/base/base.toml:2:7: missing field `uris` in `apt` of repository:a
      |
    2 | apt = {}
      |       ^^
      |
    hint: say it: uris = ["https://apt.example/debian"]
    error: layers/base/base.toml:2:7: missing field `suites` in `apt` of repository:a
      |
    2 | apt = {}
      |       ^^
      |
    hint: say it: suites = ["stable"]
    error: layers/base/base.toml:2:7: `apt` of repository:a has no `key`: nothing says who may sign what is installed from there
      |
    2 | apt = {}
      |       ^^
      |
    hint: name the public key, under files/: key = "….asc"; or a host's operator allows it: apply.allow_unsigned_repositories = true in /etc/limpet/limpet.toml

    error: layers/base/base.toml:2:7: missing field `components` in `apt` of repository:a
      |
    2 | apt = { uris = ["https://a"], suites = ["stable"], key = "a.asc" }
      |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: say it: components = ["main"]

    error: layers/base/base.toml:2:40: a suite of `apt` of repository:a ends in '/', and there are components or other suites
      |
    2 | apt = { uris = ["https://a"], suites = ["./"], components = ["main"], key = "a.asc" }
      |                                        ^^^^^^
      |
    hint: a suite that ends in '/' is a directory without components; declare it as a repository of its own

    error: layers/base/base.toml:2:7: expected a table, found string "https://a" for `apt` in repository:a
      |
    2 | apt = "https://a"
      |       ^^^^^^^^^^^

    error: layers/base/base.toml:1:13: 'a/b' is no name of a repository
      |
    1 | [repository."a/b"]
      |             ^^^^^
      |
    hint: use letters, digits, '-', '.' and '_', starting with a letter or digit; where it is stands below it: apt = { uris = ["…"], … }
    "#);
}

#[test]
fn a_repository_of_the_other_package_manager_is_not_managed() {
    let layer = "[repository.a]\ndnf = { baseurl = \"https://a\", key = \"a.asc\" }\n[file.\"/etc/x\"]\ncontent = \"\"\nneeds = [\"repository:a\"]\n";
    let rendered = tree(layer).render("gw");
    assert_eq!(rendered["state"]["paths"].as_array().unwrap().len(), 1);
}

/// The same fleet for a host with dnf.
fn dnf_tree(layer: &str) -> WorkTree {
    WorkTree::new(&[
        ("layers/base/base.toml", layer),
        ("layers/base/files/a.asc", KEY),
        (
            "inventory/hosts.toml",
            "[host.gw]\nfacts = { os = \"rocky\" }\n",
        ),
    ])
}

#[test]
fn a_repository_for_dnf_is_a_file_with_its_key() {
    let rendered = dnf_tree(
        "[repository.grafana]\ndnf = { baseurl = \"https://rpm.example/$releasever/$basearch\", key = \"a.asc\" }\n\
         [repository.lists]\ndnf = { baseurl = \"file:///srv/rpm\", key = \"a.asc\", repo_gpgcheck = true }\n",
    )
    .render("gw");
    assert_snapshot!(content(&rendered, "/etc/yum.repos.d/grafana.repo"), @r"
    # Declared by the fleet; changes made here are undone.
    # repository:grafana, signed by 5CEF75DEEA6D4906D2F95D288F960B9E3C1853ED
    [grafana]
    name=grafana
    baseurl=https://rpm.example/$releasever/$basearch
    enabled=1
    gpgcheck=1
    repo_gpgcheck=0
    gpgkey=file:///etc/pki/rpm-gpg/limpet-grafana.asc
    ");
    let lists = content(&rendered, "/etc/yum.repos.d/lists.repo");
    assert!(lists.contains("\ngpgcheck=1\nrepo_gpgcheck=1\n"), "{lists}");
    let key = content(&rendered, "/etc/pki/rpm-gpg/limpet-grafana.asc");
    assert!(
        key.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----\n"),
        "{key}"
    );
}

#[test]
fn a_repository_for_dnf_says_what_it_must_and_no_more() {
    let mistakes = |layer: &str| dnf_tree(layer).mistakes();
    assert_snapshot!(mistakes("[repository.main]\ndnf = { key = \"a.asc\", gpgcheck = false }\n"), @r#"
    error: layers/base/base.toml:2:7: repository:main cannot be called so for dnf
      |
    2 | dnf = { key = "a.asc", gpgcheck = false }
      |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: [main] is what dnf calls its own options: choose another name
    error: layers/base/base.toml:2:7: missing field `baseurl` in `dnf` of repository:main
      |
    2 | dnf = { key = "a.asc", gpgcheck = false }
      |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: say it: baseurl = "https://rpm.example"
    error: layers/base/base.toml:2:35: `dnf` of repository:main has its packages not checked
      |
    2 | dnf = { key = "a.asc", gpgcheck = false }
      |                                   ^^^^^
      |
    hint: leave `gpgcheck` out; or a host's operator allows it: apply.allow_unsigned_repositories = true in /etc/limpet/limpet.toml
    "#);
    assert_snapshot!(mistakes("[repository.a]\ndnf = { baseurl = \"https://a\\ngpgcheck=0\" }\n"), @r#"
    error: layers/base/base.toml:2:7: `dnf` of repository:a has no `key`: nothing says who may sign what is installed from there
      |
    2 | dnf = { baseurl = "https://a\ngpgcheck=0" }
      |       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: name the public key, under files/: key = "….asc"; or a host's operator allows it: apply.allow_unsigned_repositories = true in /etc/limpet/limpet.toml
    error: layers/base/base.toml:2:19: 'https://a\ngpgcheck=0' is no address for `dnf` of repository:a
      |
    2 | dnf = { baseurl = "https://a\ngpgcheck=0" }
      |                   ^^^^^^^^^^^^^^^^^^^^^^^
      |
    hint: write one address for each: "https://apt.example/debian"
    "#);
}

#[test]
fn only_the_host_s_operator_can_do_without_a_key() {
    let tree = tree("[repository.a]\napt = { uris = [\"https://a\"], suites = [\"./\"] }\n");
    let work = WorkDir::open(tree.path()).unwrap();
    let host = HostIdentity::named("gw");
    assert!(render_state(&work, &host, &Limits::default()).is_err());
    let limits = Limits {
        allow_unsigned_repositories: true,
        ..Limits::default()
    };
    let state = render_state(&work, &host, &limits).unwrap().state;
    let [sources] = &state.paths[..] else {
        panic!("one file and no key: {:?}", state.paths);
    };
    let PathSpec::File {
        content: Some(content),
        ..
    } = &sources.spec
    else {
        panic!("{sources:?}");
    };
    let ContentSource::Inline(text) = &content.source else {
        panic!("{content:?}");
    };
    assert_snapshot!(String::from_utf8_lossy(text), @r"
    # Declared by the fleet; changes made here are undone.
    # repository:a, not signed
    Types: deb
    URIs: https://a
    Suites: ./
    Trusted: yes
    ");
}
