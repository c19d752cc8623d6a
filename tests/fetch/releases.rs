//! Sources of which releases are followed.

use limpet::config::{Follow, Source};
use limpet::fetch::Tip;
use limpet::git::{ObjectKind, Objects as _};

use crate::git_server::GitServer;
use crate::read_all;
use crate::setting::{LONG, Setting, http_source, local_source};

fn following(source: Source, wanted: &str) -> Source {
    Source {
        follow: Follow::Releases(wanted.parse().unwrap()),
        ..source
    }
}

/// Tags `revision`, annotated.
fn tag(setting: &Setting, name: &str, revision: &str) -> String {
    setting.git(&["tag", "-a", "-f", "-m", name, name, revision]);
    let full = format!("refs/tags/{name}");
    setting.git(&["rev-parse", &full])
}

/// The highest release is offered as its tag object, and what it is put on can be read.
fn are_followed(setting: &Setting, source: Source) {
    let first = setting.commit("main", "first", &[("a", "1"), ("b/c", "2")]);
    tag(setting, "v1.9.0", "main");
    let id = tag(setting, "v1.10.0", "main");
    tag(setting, "v2.0.0", "main");
    setting.git(&["tag", "v1.11", "main"]);
    let client = setting.fetcher(following(source, "^1"), LONG);
    let offered = |name: &str, id: &str| Tip {
        id: id.parse().unwrap(),
        tag: Some(name.to_owned()),
    };
    assert_eq!(client.poll(None).unwrap(), offered("v1.10.0", &id));
    let object = client.get(&id.parse().unwrap()).unwrap();
    assert_eq!(object.kind, ObjectKind::Tag);
    assert!(String::from_utf8_lossy(&object.data).contains("tag v1.10.0\n"));
    assert_eq!(read_all(&client, first).unwrap(), 1 + 2 + 2);

    // What is not released is not fetched, and a new release is.
    let second = setting.commit("main", "second", &[("a", "3")]);
    assert_eq!(client.poll(Some(first)).unwrap(), offered("v1.10.0", &id));
    let id = tag(setting, "v1.12.3", "main");
    assert_eq!(client.poll(Some(first)).unwrap(), offered("v1.12.3", &id));
    assert_eq!(read_all(&client, second).unwrap(), 1 + 2 + 2);
}

#[test]
fn of_a_server_are_followed() {
    let setting = Setting::new();
    let server = GitServer::start(&setting.repositories());
    let url = format!("{}/fleet.git", server.url);
    let source = http_source(&url, Some(&server.ca_file));
    are_followed(&setting, source);
}

#[test]
fn of_a_local_repository_are_followed() {
    let setting = Setting::new();
    let source = local_source(&setting.repository());
    are_followed(&setting, source);
}

#[test]
fn of_a_bundle_are_followed() {
    let setting = Setting::with_format("sha256");
    setting.commit("main", "first", &[("a", "1")]);
    let id = tag(&setting, "v1.4.0", "main");
    let path = setting.directory.path().join("fleet.bundle");
    setting.git(&[
        "bundle",
        "create",
        "-q",
        path.to_str().unwrap(),
        "main",
        "--tags",
    ]);
    let client = setting.fetcher(following(local_source(&path), ">=1.4"), LONG);
    let tip = client.poll(None).unwrap();
    assert_eq!(
        (tip.id.to_string(), tip.tag.as_deref()),
        (id, Some("v1.4.0"))
    );
}

#[test]
fn where_there_is_none_it_is_said() {
    let setting = Setting::new();
    setting.commit("main", "first", &[("a", "1")]);
    tag(&setting, "v0.9.0", "main");
    let source = following(local_source(&setting.repository()), ">=1.4, <2");
    let trouble = setting.fetcher(source, LONG).poll(None).unwrap_err();
    let message = trouble.failure.message;
    assert!(
        message.starts_with("found no release tag '>=1.4, <2' in '"),
        "{message}"
    );
    assert_eq!(trouble.failure.hint.as_deref(), Some("check source.tags"));
}
