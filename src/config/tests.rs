//! Fragments as operators write them.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::Class;

const MINIMAL: &str = "[source]\nurl = \"https://git.example.net/fleet.git\"\n[trust]\nanchor = { commit = \"0123456789012345678901234567890123456789\" }\n[host]\nname = \"gw\"\n";

fn parse(fragments: &[&str]) -> Result<Config, String> {
    let fragments: Vec<(String, String)> = fragments
        .iter()
        .enumerate()
        .map(|(index, text)| (format!("/etc/limpet/{index}.toml"), (*text).to_owned()))
        .collect();
    Config::parse(&fragments).map_err(|failures| {
        assert!(
            failures
                .iter()
                .all(|failure| failure.class == Class::Config)
        );
        let drawn: Vec<String> = failures
            .into_iter()
            .map(|failure| failure.rendered.unwrap())
            .collect();
        drawn.join("\n")
    })
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = parse(&[MINIMAL]).unwrap();
    insta::assert_snapshot!(format!("{config:#?}"), @r#"
    Config {
        source: Source {
            url: Http(
                "https://git.example.net/fleet.git",
            ),
            mirrors: [],
            follow: Branch(
                "main",
            ),
            path: "",
            interval: 60s,
            ca_file: None,
            token: None,
            username: None,
            ssh_key: None,
            known_hosts: "/etc/limpet/known_hosts",
            proxy: None,
        },
        trust: Trust {
            anchor: Anchor {
                commit: Sha1(0123456789012345678901234567890123456789),
                payload_sha256: None,
                signer: None,
            },
            allowed_signers: "/etc/limpet/allowed_signers",
            revoked: "/etc/limpet/revoked",
            mode: Path,
            channel: None,
            max_age: None,
        },
        host: HostSettings {
            name: "gw",
            labels: {},
            package_manager: None,
        },
        apply: Apply {
            mode: Enforce,
            max_removals: 10,
            protect_packages: [],
            allow_paths: [],
            allow_suid: false,
            allow_unsigned_repositories: false,
            originals_max_bytes: 536870912,
            originals_max_age: None,
        },
    }
    "#);
}

#[test]
fn a_later_fragment_wins_key_by_key() {
    let config = parse(&[
        MINIMAL,
        "[source]\ninterval = \"5m\"\nbranch = \"prod\"\n[host]\nlabels = { site = \"lagos\" }",
        "[source]\nbranch = \"canary\"",
    ])
    .unwrap();
    assert_eq!(config.source.follow, Follow::Branch("canary".to_owned()));
    assert_eq!(config.source.interval, Duration::from_secs(300));
    assert_eq!(config.host.name, "gw");
    assert_eq!(config.host.labels["site"], "lagos");
}

#[test]
fn every_key_of_the_documentation_is_understood() {
    let config = parse(&[r#"
[source]
url      = "https://git.example.net/fleet.git"
branch   = "main"
path     = "."
interval = "60s"
mirrors  = ["git@mirror:fleet.git", "/media/usb/fleet.bundle"]
ca_file  = "/etc/limpet/ca.pem"
token    = "git-token"
username = "oauth2"
proxy    = "http://proxy:3128"
[trust]
anchor          = { commit = "0123456789012345678901234567890123456789", payload_sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", signer = "SHA256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
allowed_signers = "/etc/limpet/allowed_signers"
revoked         = "/etc/limpet/revoked"
mode            = "head"
accept_head_only = true
[host]
name   = "gw-lag-02"
labels = { site = "lagos" }
package_manager = "apt"
[apply]
mode         = "report"
max_removals = 10
protect_packages = ["linux-image-amd64"]
allow_paths = ["/etc/passwd"]
allow_suid = true
allow_unsigned_repositories = true
originals_max_size = "64M"
originals_max_age = "720h"
"#])
    .unwrap();
    assert_eq!(config.trust.mode, TrustMode::Head);
    assert_eq!(config.trust.anchor.payload_sha256, Some([0xaa; 32]));
    assert_eq!(config.apply.mode, ApplyMode::Report);
    assert_eq!(config.source.path, "");
    assert_eq!(config.source.mirrors.len(), 2);

    let config = parse(&[
        MINIMAL,
        "[source]\nurl = \"git@host:fleet.git\"\nssh_key = \"git-ssh-key\"",
    ])
    .unwrap();
    assert_eq!(config.source.ssh_key.as_deref(), Some("git-ssh-key"));
}

#[test]
fn a_secret_goes_only_where_it_is_safe() {
    insta::assert_snapshot!(parse(&[MINIMAL, "[source]\nurl = \"http://a/x\"\ntoken = \"t\"\nssh_key = \"k\"\nproxy = \"socks5://p:1\"\nmirrors = [\"https://b/x\", \"git://c/x\"]"]).unwrap_err(), @r#"
    error: /etc/limpet/1.toml:6:27: 'git://c/x' is no address of a repository: 'git://' is not supported
      |
    6 | mirrors = ["https://b/x", "git://c/x"]
      |                           ^^^^^^^^^^^
      |
    hint: write https://…, ssh://user@host/path, user@host:path, file:///… or an absolute path
    error: /etc/limpet/1.toml:3:9: `token` in [source] is sent only over https
      |
    3 | token = "t"
      |         ^^^
      |
    hint: use an https:// address, or remove `token`
    error: /etc/limpet/1.toml:4:11: `ssh_key` in [source] is for an address over ssh
      |
    4 | ssh_key = "k"
      |           ^^^
      |
    hint: use an ssh:// address, or remove `ssh_key`
    error: /etc/limpet/1.toml:5:9: `proxy` in [source] is no proxy's address
      |
    5 | proxy = "socks5://p:1"
      |         ^^^^^^^^^^^^^^
      |
    hint: write: proxy = "http://proxy:3128"
    "#);
}

#[test]
fn all_mistakes_are_told_at_once() {
    insta::assert_snapshot!(parse(&[MINIMAL, "[source]\nintervall = \"60s\"\ninterval = \"5s\"\nurl = \"git@host:x\"\ntags = \"main\"\n[trust]\nmode = \"head\"\nchannel = \"pro d\"\nmax_age = \"a day\"\n[apply]\nmode = \"enfroce\"\nmax_removals = \"10\"\nallow_paths = [\"etc\"]\n[hots]\nname = 1"]).unwrap_err(), @r#"
    error: /etc/limpet/1.toml:14:2: unknown field `hots` in the host configuration, expected `host`
       |
    14 | [hots]
       |  ^^^^ no such field
       |
    hint: did you mean 'host'?
    error: /etc/limpet/1.toml:2:1: unknown field `intervall` in [source], expected `interval`
      |
    2 | intervall = "60s"
      | ^^^^^^^^^ no such field
      |
    hint: did you mean 'interval'?
    error: /etc/limpet/1.toml:7:8: mode "head" verifies only the newest commit
      |
    7 | mode = "head"
      |        ^^^^^^
      |
    hint: if that is enough for you, add: accept_head_only = true
    error: /etc/limpet/1.toml:8:11: 'pro d' is no channel
      |
    8 | channel = "pro d"
      |           ^^^^^^^
      |
    hint: use letters, digits, '-', '_' and '.', at most 64: channel = "prod"
    error: /etc/limpet/1.toml:9:11: 'a day' is no duration
      |
    9 | max_age = "a day"
      |           ^^^^^^^
      |
    hint: write hours or days: max_age = "26h"
    error: /etc/limpet/1.toml:11:8: unknown value `enfroce`, expected `enforce` or `report` for `mode` in [apply]
       |
    11 | mode = "enfroce"
       |        ^^^^^^^^^
       |
    hint: did you mean 'enforce'?
    error: /etc/limpet/1.toml:12:16: expected a whole number, not negative, found string "10" for `max_removals` in [apply]
       |
    12 | max_removals = "10"
       |                ^^^^
    error: /etc/limpet/1.toml:13:16: 'etc' in `allow_paths` is no absolute, normalised path
       |
    13 | allow_paths = ["etc"]
       |                ^^^^^
       |
    hint: write it from the root, without '.', '..' and a '/' at its end; it stands for itself and what lies below
    "#);
}

#[test]
fn bounds_that_are_none_are_told() {
    insta::assert_snapshot!(parse(&[MINIMAL, "[apply]\noriginals_max_size = \"1T\"\noriginals_max_age = \"1d\"\n"]).unwrap_err(), @r#"
    error: /etc/limpet/1.toml:2:22: '1T' is no size
      |
    2 | originals_max_size = "1T"
      |                      ^^^^
      |
    hint: write a number of bytes and a unit: "300K", "512M", "2G"
    error: /etc/limpet/1.toml:3:21: '1d' is no duration
      |
    3 | originals_max_age = "1d"
      |                     ^^^^
      |
    hint: write a number and a unit: "720h"
    "#);
}

#[test]
fn what_must_be_said_is_missed() {
    insta::assert_snapshot!(parse(&["[source]\nbranch = \"refs/heads/main\"\n[trust]\nanchor = { commit = \"abc\" }\n"]).unwrap_err(), @r#"
    error: /etc/limpet/0.toml:1:2: missing field `url` in [source]
      |
    1 | [source]
      |  ^^^^^^
      |
    hint: say where the fleet's repository is: url = "https://…"
    error: /etc/limpet/0.toml:2:10: 'refs/heads/main' is no name of a branch
      |
    2 | branch = "refs/heads/main"
      |          ^^^^^^^^^^^^^^^^^
      |
    hint: write the name alone, such as "main", without refs/heads/
    error: /etc/limpet/0.toml:4:21: 'abc' is no full commit id
      |
    4 | anchor = { commit = "abc" }
      |                     ^^^^^
      |
    hint: write all its hexadecimal digits, as git rev-parse prints them
    error: /etc/limpet/0.toml:1:1: missing field `name` in [host]
      |
    1 | [source]
      | ^
      |
    hint: write the name under which the fleet knows this host
    "#);
}

#[test]
fn a_secret_in_place_of_a_credentials_name_is_not_repeated() {
    let text = format!("{MINIMAL}[apply]\n");
    let drawn = parse(&[&text, "[source]\nusername = \"x\""]).unwrap_err();
    assert!(drawn.contains("without `token`"), "{drawn}");
    let fragments = vec![
        ("a".to_owned(), MINIMAL.to_owned()),
        (
            "b".to_owned(),
            "[source]\ntoken = \"glpat/hunter2 \"".to_owned(),
        ),
    ];
    let failures = Config::parse(&fragments).unwrap_err();
    assert!(!failures[0].to_string().contains("hunter2"));
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC*") {
        let _ = parse(&[MINIMAL, &text]);
    }

    #[test]
    fn values_never_panic(key in "url|branch|path|interval|token|ssh_key|proxy", value in "[ -~é]{0,12}") {
        let value = serde_json::Value::from(value);
        let _ = parse(&[MINIMAL, &format!("[source]\n{key} = {value}")]);
    }
}
