//! Sources on this machine.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use limpet::git::Objects;

use crate::setting::{LONG, Setting, local_source};
use crate::{read_all, show};

#[test]
fn a_bare_repository_is_read_in_place() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1"), ("b/c", "2")]);
    let client = setting.fetcher(local_source(&setting.repository()), LONG);
    assert_eq!(client.poll(None).unwrap().id, first);
    assert_eq!(read_all(&client, first).unwrap(), 1 + 2 + 2);

    let second = setting.commit("main", "second", &[("a", "3")]);
    setting.git(&["gc", "-q"]);
    setting.git(&["pack-refs", "--all"]);
    assert_eq!(client.poll(None).unwrap().id, second);
    assert_eq!(read_all(&client, second).unwrap(), 1 + 2 + 2);
    assert_eq!(read_all(&client, first).unwrap(), 1 + 2 + 2);
    assert!(!setting.cache().exists(), "nothing is copied");
}

#[test]
fn a_repository_with_a_work_tree_and_loose_objects_is_read_too() {
    let setting = Setting::new();
    let work = setting.directory.path().join("work");
    setting.run(
        setting.directory.path(),
        &["init", "-q", "-b", "main", "work"],
    );
    std::fs::write(work.join("fleet.toml"), "format = 1\n").unwrap();
    setting.run(&work, &["add", "."]);
    setting.run(&work, &["commit", "-qm", "first"]);
    let tip = setting.run(&work, &["rev-parse", "HEAD"]).parse().unwrap();
    let client = setting.fetcher(local_source(&work), LONG);
    assert_eq!(client.poll(None).unwrap().id, tip);
    assert_eq!(read_all(&client, tip).unwrap(), 3);
}

#[test]
fn a_replacement_is_not_honoured() {
    let setting = Setting::new();
    let first = setting.commit("main", "first", &[("a", "1")]);
    let evil = setting.commit("evil", "evil", &[("a", "evil")]);
    setting.git(&["replace", &first.to_string(), &evil.to_string()]);
    let client = setting.fetcher(local_source(&setting.repository()), LONG);
    let object = client.get(&client.poll(None).unwrap().id).unwrap();
    assert!(object.data.ends_with(b"first\n") || object.data.ends_with(b"first"));
    assert_eq!(read_all(&client, first).unwrap(), 3);
}

#[test]
fn what_cannot_be_read_is_explained() {
    let setting = Setting::new();
    let directory = setting.directory.path().to_str().unwrap().to_owned();
    let check = |path: &Path| {
        let failure = setting
            .fetcher(local_source(path), LONG)
            .poll(None)
            .unwrap_err();
        show(&failure.failure, &[(&directory, "DIR")])
    };
    insta::assert_snapshot!(check(&setting.repository()), @"
    Host: found no branch 'main' in 'DIR/repos/fleet.git'
    hint: check source.branch
    ");
    insta::assert_snapshot!(check(Path::new("/srv/none.git")), @"
    Host: failed to open repository '/srv/none.git': no such directory
    hint: check source.url
    ");
    insta::assert_snapshot!(check(&setting.repositories()), @r#"
    Host: failed to open repository 'DIR/repos': "DIR/repos" does not appear to be a git repository
    hint: it must be a Git repository, bare or with a work tree
    "#);
    insta::assert_snapshot!(check(&setting.repository().join("HEAD")), @"
    Host: failed to fetch from 'DIR/repos/fleet.git/HEAD': it is neither a Git repository nor a Git bundle
    hint: make one with 'git bundle create fleet.bundle main'
    ");

    insta::assert_snapshot!(check(Path::new("/tmp/none.git")), @"
    Host: failed to open repository '/tmp/none.git': no such directory
    hint: limpet-fetch.service has a /tmp of its own
    ");

    setting.commit("main2", "other", &[("a", "1")]);
    insta::assert_snapshot!(check(&setting.repository()), @"
    Host: found no branch 'main' in 'DIR/repos/fleet.git'
    hint: check source.branch
    ");

    setting.commit("main", "first", &[("a", "1")]);
    let alternates = setting.repository().join("objects/info/alternates");
    std::fs::write(&alternates, "/srv/other.git/objects\n").unwrap();
    insta::assert_snapshot!(check(&setting.repository()), @"
    Host: failed to open repository 'DIR/repos/fleet.git': it borrows objects from another repository (alternates)
    hint: 'git repack -a -d' and removing objects/info/alternates make it stand alone
    ");
    std::fs::remove_file(alternates).unwrap();

    std::fs::write(
        setting.repository().join("shallow"),
        setting.tip("main").to_string() + "\n",
    )
    .unwrap();
    insta::assert_snapshot!(check(&setting.repository()), @"
    Host: failed to open repository 'DIR/repos/fleet.git': it is shallow: its history is not complete
    hint: 'git fetch --unshallow' completes it
    ");
    std::fs::remove_file(setting.repository().join("shallow")).unwrap();

    // Root reads everything.
    if !nix::unistd::Uid::effective().is_root() {
        let closed = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(setting.repository(), closed).unwrap();
        insta::assert_snapshot!(check(&setting.repository()), @"
        Host: failed to open repository 'DIR/repos/fleet.git': permission denied
        hint: user limpet must be able to read it: 'setfacl -R -m u:limpet:rX DIR/repos/fleet.git', and every directory above it
        ");
        let open = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(setting.repository(), open).unwrap();
    }
}
