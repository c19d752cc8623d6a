//! Sources in files that `git bundle` made.

use std::path::{Path, PathBuf};

use limpet::fetch::Client;
use limpet::git::ObjectId;

use crate::setting::{LONG, SHORT, Setting, local_source};
use crate::{read_all, show};

/// Makes a bundle of `revisions` with `options`.
fn bundle(setting: &Setting, name: &str, options: &[&str], revisions: &[&str]) -> PathBuf {
    let path = setting.directory.path().join(name);
    let create = [&["bundle", "create", "-q"], options].concat();
    let arguments = [&create, &[path.to_str().unwrap()][..], revisions].concat();
    setting.git(&arguments);
    path
}

fn packs(setting: &Setting) -> usize {
    let pattern = format!("{}/*/objects/pack/*", setting.cache().display());
    let files = glob::glob(&pattern).unwrap().flatten();
    files
        .filter(|path| path.extension().is_some_and(|it| it == "pack"))
        .count()
}

fn is_followed(setting: &Setting, options: &[&str]) -> (Client, ObjectId) {
    let first = setting.commit("main", "first", &[("a", "1"), ("b/c", "2")]);
    setting.commit("main2", "other", &[("a", "other")]);
    let path = bundle(setting, "fleet.bundle", options, &["main2", "main"]);
    let client = setting.fetcher(local_source(&path), LONG);
    assert_eq!(client.poll(None).unwrap().id, first);
    assert_eq!(read_all(&client, first).unwrap(), 1 + 2 + 2);
    assert_eq!(client.poll(Some(first)).unwrap().id, first);
    assert_eq!(packs(setting), 1, "what brings no news is not read again");

    // A bundle of only what is new, put in the place of the old.
    let second = setting.commit("main", "second", &[("a", "3")]);
    let range = format!("{first}..main");
    let new = bundle(setting, "new.bundle", options, &[&range]);
    std::fs::rename(new, &path).unwrap();
    assert_eq!(client.poll(Some(first)).unwrap().id, second);
    assert_eq!(read_all(&client, second).unwrap(), 1 + 2 + 2);
    assert_eq!(packs(setting), 2);
    let leftovers = format!("{}/*/objects/pack/*.keep", setting.cache().display());
    assert_eq!(glob::glob(&leftovers).unwrap().count(), 0);
    (client, second)
}

#[test]
fn a_bundle_is_indexed_and_followed() {
    is_followed(&Setting::new(), &[]);
    is_followed(&Setting::new(), &["--version=3"]);
}

#[test]
fn a_bundle_of_a_sha256_repository_is_followed() {
    is_followed(&Setting::with_format("sha256"), &[]);
}

fn trouble_of(setting: &Setting, path: &Path) -> String {
    let client = setting.fetcher(local_source(path), SHORT);
    let trouble = client.poll(None).unwrap_err();
    let directory = setting.directory.path().to_str().unwrap();
    show(&trouble.failure, &[(directory, "DIR")])
}

#[test]
fn a_bundle_of_only_what_is_new_needs_what_it_builds_upon() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    setting.commit("main", "second", &[("a", "2")]);
    let path = bundle(&setting, "fleet.bundle", &[], &[&format!("{first}..main")]);
    insta::assert_snapshot!(trouble_of(&setting, &path).replace(&first.to_string(), "FIRST"), @"
    Host: failed to fetch from 'DIR/fleet.bundle': it builds on commit FIRST, which this host does not have
    hint: make one with the whole history: 'git bundle create fleet.bundle main'
    ");
}

#[test]
fn what_is_wrong_with_a_bundle_is_said_and_nothing_of_it_stays() {
    let setting = Setting::new();
    let text: String = (0..5000).map(|number| format!("{number}\n")).collect();
    setting.commit("main", "first", &[("a", &text)]);
    let path = bundle(&setting, "fleet.bundle", &[], &["main"]);
    let bytes = std::fs::read(&path).unwrap();
    let tell = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let told = trouble_of(&setting, &path);
        let temporary = format!("{}/*/objects/pack/*", setting.cache().display());
        assert_eq!(glob::glob(&temporary).unwrap().count(), 0, "{told}");
        told
    };
    let header = bytes
        .windows(6)
        .position(|part| part == b"\n\nPACK")
        .unwrap()
        + 2;
    insta::assert_snapshot!(tell(&bytes[..header + 8]), @"
    Host: failed to fetch from 'DIR/fleet.bundle': it is damaged: it ends in the middle
    hint: check it with 'git bundle verify', and copy it again
    ");
    insta::assert_snapshot!(tell(&bytes[..bytes.len() - 10]), @"
    Host: failed to fetch from 'DIR/fleet.bundle': it is damaged: An IO operation failed while streaming an entry: failed to fill whole buffer
    hint: check it with 'git bundle verify', and copy it again
    ");
    let mut flipped = bytes.clone();
    flipped[header + 30] ^= 0x55;
    assert!(tell(&flipped).contains("it is damaged"));
    let mut boastful = bytes.clone();
    boastful[header + 8..header + 12].copy_from_slice(&u32::MAX.to_be_bytes());
    insta::assert_snapshot!(tell(&boastful), @"
    Host: failed to fetch from 'DIR/fleet.bundle': it holds 4294967295 objects, and no more than 1000 are taken at once
    hint: a repository of configuration has far fewer; check source.url
    ");
    insta::assert_snapshot!(tell(&vec![b'x'; 2 << 20]), @"
    Host: failed to fetch from 'DIR/fleet.bundle': it is larger than 1 MiB
    hint: none
    ");

    let partial = bundle(
        &setting,
        "partial.bundle",
        &[],
        &["--filter=blob:none", "main"],
    );
    insta::assert_snapshot!(trouble_of(&setting, &partial), @"
    Host: failed to fetch from 'DIR/partial.bundle': it is a partial bundle: it lacks objects on purpose
    hint: make one with 'git bundle create fleet.bundle main'
    ");
    let other = setting.commit("other", "other", &[("a", "1")]);
    let other_only = bundle(&setting, "other.bundle", &[], &["other"]);
    insta::assert_snapshot!(trouble_of(&setting, &other_only).replace(&other.to_string(), "OTHER"), @"
    Host: found no branch 'main' at 'DIR/other.bundle'
    hint: check source.branch
    ");
}
