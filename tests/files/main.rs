//! Files, directories and links in a temporary root: what is written, what is refused, what comes back.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test may fail, and it stands outside of the machine it looks at

mod laws;
mod machine;

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use limpet::kinds::file::{Original, PathSpec, Paths, Remembered, diff, save_original};
use limpet::kinds::kind::{Kind, Step};
use limpet::model::OnRemoval;
use limpet::sys::files::Hashing;
use machine::{Machine, bare_file, directory, file, link, with};

fn check(machine: &mut Machine, desired: &[limpet::kinds::file::DesiredPath], expected: &[&str]) {
    assert_eq!(machine.cycle(desired), expected);
}

#[test]
fn a_directory_that_comes_back_with_its_access_list_has_the_declared_mode() {
    let mut machine = Machine::new();
    machine.mkdir("/e");
    machine.mark("/e");
    let absent = with(file("/e", ""), |spec| *spec = PathSpec::Absent);
    check(&mut machine, &[absent], &["delete file:/e"]);
    let closed = with(directory("/e"), |spec| {
        if let PathSpec::Directory { mode, .. } = spec {
            *mode = Some(0o700);
        }
    });
    check(&mut machine, &[closed], &["create directory:/e"]);
    assert_eq!(machine.mode("/e"), 0o700);
}

#[test]
fn a_file_is_created_changed_corrected_and_deleted() {
    let mut machine = Machine::new();
    machine.mkdir("/etc");
    check(
        &mut machine,
        &[file("/etc/motd", "one\n")],
        &["create file:/etc/motd"],
    );
    assert_eq!(machine.text("/etc/motd"), "one\n");
    assert_eq!(machine.mode("/etc/motd"), 0o644);
    check(&mut machine, &[file("/etc/motd", "one\n")], &[]);
    check(
        &mut machine,
        &[file("/etc/motd", "two\n")],
        &["update file:/etc/motd content"],
    );
    machine.write("/etc/motd", "drift\n");
    machine.chmod("/etc/motd", 0o600);
    check(
        &mut machine,
        &[file("/etc/motd", "two\n")],
        &["update file:/etc/motd content mode"],
    );
    check(&mut machine, &[], &["delete file:/etc/motd"]);
    assert_eq!(machine.tree(), ["/etc directory 755"]);
    check(&mut machine, &[], &[]);
}

#[test]
fn what_was_there_comes_back() {
    let mut machine = Machine::new();
    machine.mkdir("/etc/app");
    machine.write("/etc/motd", "before\n");
    machine.chmod("/etc/motd", 0o640);
    machine.chmod("/etc/app", 0o750);
    machine.write("/etc/localtime", "a plain file\n");
    symlink("before", machine.at("/etc/link")).unwrap();
    let before = machine.tree();
    check(
        &mut machine,
        &[
            file("/etc/motd", "one\n"),
            link("/etc/localtime", "/usr/share/zoneinfo/UTC"),
            with(directory("/etc/app"), |spec| {
                if let PathSpec::Directory { mode, .. } = spec {
                    *mode = Some(0o700);
                }
            }),
            file("/etc/link", "not a link\n"),
        ],
        &[
            "update directory:/etc/app mode",
            "update file:/etc/link type",
            "update symlink:/etc/localtime type",
            "update file:/etc/motd content mode",
        ],
    );
    assert_ne!(machine.tree(), before);
    check(
        &mut machine,
        &[file("/etc/motd", "two\n")],
        &[
            "restore directory:/etc/app mode",
            "restore file:/etc/link content",
            "restore symlink:/etc/localtime content",
            "update file:/etc/motd content",
        ],
    );
    check(&mut machine, &[], &["restore file:/etc/motd content"]);
    assert_eq!(machine.tree(), before);
    assert!(machine.owned.is_empty());
}

#[test]
fn a_file_that_is_replaced_hands_its_label_on() {
    const LABEL: &[u8] = b"system_u:object_r:shadow_t:s0\0";
    let mut machine = Machine::new();
    machine.write("/labelled", "before\n");
    // Kernels without SELinux let root alone write one, those with it only what the policy knows.
    let flags = rustix::fs::XattrFlags::empty();
    let labelled = rustix::fs::lsetxattr(machine.at("/labelled"), "security.selinux", LABEL, flags);
    let is_labelled = labelled.is_ok();
    assert_eq!(is_labelled, machine.is_root(), "{labelled:?}");
    machine.cycle(&[file("/labelled", "after\n"), file("/new", "new\n")]);
    assert_eq!(machine.text("/labelled"), "after\n");
    let label = |path: &str| {
        let mut value = [0; 64];
        let length =
            rustix::fs::lgetxattr(machine.at(path), "security.selinux", &mut value[..]).ok()?;
        Some(value[..length].to_vec())
    };
    assert_eq!(label("/labelled"), is_labelled.then(|| LABEL.to_vec()));
    assert_ne!(label("/new").as_deref(), Some(LABEL));
}

#[test]
fn what_was_there_comes_back_with_its_access_list_and_capabilities() {
    let mut machine = Machine::new();
    machine.mkdir("/opt/ping");
    machine.mkdir("/opt/empty");
    machine.write("/opt/ping/ping", "before\n");
    machine.mark("/opt/ping/ping");
    machine.mark("/opt/empty");
    let before = machine.tree();
    let declared = [
        file("/opt/ping/ping", "ours\n"),
        with(directory("/opt/empty"), |spec| *spec = PathSpec::Absent),
    ];
    machine.cycle(&declared);
    let ours = machine.tree();
    assert!(
        ours.contains(&"/opt/ping/ping file 644 ours".to_owned()),
        "{ours:?}"
    );
    check(
        &mut machine,
        &[],
        &[
            "restore directory:/opt/empty",
            "restore file:/opt/ping/ping content",
        ],
    );
    assert_eq!(machine.tree(), before);

    // What is not declared of a file stays as it is, though the kernel takes capabilities away with the owner.
    let bare = with(bare_file("/opt/ping/ping", None), |spec| {
        if let PathSpec::File { owner, .. } = spec {
            *owner = machine.is_root().then(|| "1".into());
        }
    });
    machine.cycle(std::slice::from_ref(&bare));
    assert_eq!(machine.tree(), before);
    machine.cycle(&[]);
    assert_eq!(machine.tree(), before);
}

#[test]
fn missing_parents_are_made_and_go_when_nothing_needs_them() {
    let mut machine = Machine::new();
    check(
        &mut machine,
        &[
            file("/opt/app/conf/a.toml", "a\n"),
            file("/opt/app/b.toml", "b\n"),
        ],
        &[
            "create file:/opt/app/b.toml in /opt",
            "create file:/opt/app/b.toml in /opt/app",
            "create file:/opt/app/conf/a.toml in /opt/app/conf",
            "create file:/opt/app/b.toml",
            "create file:/opt/app/conf/a.toml",
        ],
    );
    assert_eq!(machine.mode("/opt/app/conf"), 0o755);
    check(
        &mut machine,
        &[file("/opt/app/b.toml", "b\n")],
        &[
            "delete file:/opt/app/conf/a.toml",
            "delete file:/opt/app/conf/a.toml in /opt/app/conf",
        ],
    );
    machine.write("/opt/app/foreign", "somebody's\n");
    check(&mut machine, &[], &["delete file:/opt/app/b.toml"]);
    assert_eq!(machine.text("/opt/app/foreign"), "somebody's\n");
    std::fs::remove_file(machine.at("/opt/app/foreign")).unwrap();
    check(
        &mut machine,
        &[],
        &[
            "delete file:/opt/app/b.toml in /opt/app",
            "delete file:/opt/app/b.toml in /opt",
        ],
    );
    assert!(machine.tree().is_empty());
    assert!(machine.owned.is_empty());
}

#[test]
fn a_file_that_somebody_changed_is_not_deleted() {
    let mut machine = Machine::new();
    machine.cycle(&[file("/motd", "ours\n")]);
    machine.write("/motd", "mine now\n");
    check(
        &mut machine,
        &[],
        &[
            "blocked: kept '/motd', which is no longer declared: it was changed since limpet wrote it",
        ],
    );
    assert_eq!(machine.text("/motd"), "mine now\n");
    std::fs::remove_file(machine.at("/motd")).unwrap();
    check(&mut machine, &[], &[]);
    assert!(machine.owned.is_empty());
}

#[test]
fn what_an_interrupted_run_meant_to_do_is_judged_by_what_is_there() {
    let mut machine = Machine::new();
    machine.cycle(&[file("/kept/never-written", "ours\n")]);
    for owned in &mut machine.owned {
        owned.applied = Remembered::of_text("null");
    }
    check(
        &mut machine,
        &[],
        &[
            "blocked: kept '/kept/never-written', which is no longer declared: it was changed since limpet wrote it",
        ],
    );
    std::fs::remove_file(machine.at("/kept/never-written")).unwrap();
    machine.cycle(&[]);
    assert!(machine.tree().is_empty());
    assert!(machine.owned.is_empty());
}

#[test]
fn on_removal_decides() {
    let mut machine = Machine::new();
    machine.write("/kept", "before\n");
    machine.write("/deleted", "before\n");
    let of = |path: &str, on_removal| {
        let mut item = file(path, "ours\n");
        item.on_removal = on_removal;
        item
    };
    machine.cycle(&[
        of("/kept", OnRemoval::Keep),
        of("/deleted", OnRemoval::Delete),
    ]);
    check(&mut machine, &[], &["delete file:/deleted"]);
    assert_eq!(machine.tree(), ["/kept file 644 ours"]);
    assert!(machine.owned.is_empty());
}

#[test]
fn only_declared_properties_of_what_exists_are_managed() {
    let mut machine = Machine::new();
    machine.mkdir("/srv");
    machine.write("/srv/data", "data\n");
    machine.chmod("/srv/data", 0o666);
    machine.chmod("/srv", 0o711);
    check(
        &mut machine,
        &[directory("/srv"), bare_file("/srv/data", Some(0o600))],
        &["update file:/srv/data mode"],
    );
    assert_eq!(machine.mode("/srv"), 0o711);
    assert_eq!(machine.text("/srv/data"), "data\n");
    // the mode is no longer declared, and taken back; it is not taken back when somebody changed it
    check(
        &mut machine,
        &[bare_file("/srv/data", None)],
        &["update file:/srv/data mode"],
    );
    assert_eq!(machine.mode("/srv/data"), 0o666);
    machine.cycle(&[bare_file("/srv/data", Some(0o600))]);
    machine.chmod("/srv/data", 0o640);
    check(&mut machine, &[], &[]);
    assert_eq!(machine.mode("/srv/data"), 0o640);
    check(
        &mut machine,
        &[bare_file("/srv/none", Some(0o600))],
        &[
            "blocked: failed to manage mode and owner of file:/srv/none: there is no such file, and no content is declared",
        ],
    );
}

#[test]
fn content_that_is_no_longer_declared_is_taken_back() {
    let mut machine = Machine::new();
    machine.write("/conf", "before\n");
    machine.cycle(&[file("/conf", "ours\n")]);
    check(
        &mut machine,
        &[bare_file("/conf", Some(0o600))],
        &["restore file:/conf content mode"],
    );
    assert_eq!(machine.text("/conf"), "before\n");
    assert_eq!(machine.mode("/conf"), 0o600);
    check(&mut machine, &[bare_file("/conf", Some(0o600))], &[]);
}

#[test]
fn a_declaration_may_change_its_kind() {
    let mut machine = Machine::new();
    machine.cycle(&[file("/a", "a file\n")]);
    check(
        &mut machine,
        &[link("/a", "elsewhere")],
        &["update symlink:/a type"],
    );
    check(
        &mut machine,
        &[file("/a/b", "below\n"), directory("/a")],
        &[
            "blocked: failed to enter directory '/a': a symbolic link on the way leads to nothing",
            "update directory:/a type",
        ],
    );
    check(
        &mut machine,
        &[file("/a/b", "below\n"), directory("/a")],
        &["create file:/a/b"],
    );
    check(
        &mut machine,
        &[file("/a", "again\n")],
        &["delete file:/a/b", "update file:/a type"],
    );
    check(&mut machine, &[], &["delete file:/a"]);
    assert!(machine.tree().is_empty());
}

#[test]
fn absent_removes_and_gives_back() {
    let mut machine = Machine::new();
    machine.mkdir("/etc/full");
    machine.write("/etc/full/file", "x\n");
    machine.write("/etc/old", "old\n");
    let absent = |item| with(item, |spec| *spec = PathSpec::Absent);
    check(
        &mut machine,
        &[
            absent(file("/etc/old", "")),
            absent(file("/etc/none", "")),
            absent(directory("/etc/full")),
        ],
        &[
            "blocked: refused to delete directory:/etc/full: it is not empty, it contains 'file'",
            "delete file:/etc/old",
        ],
    );
    check(&mut machine, &[], &["restore file:/etc/old"]);
    assert_eq!(machine.text("/etc/old"), "old\n");
}

/// A directory of this mode.
fn open_directory(path: &str, open: u32) -> limpet::kinds::file::DesiredPath {
    with(directory(path), |spec| {
        if let PathSpec::Directory { mode, .. } = spec {
            *mode = Some(open);
        }
    })
}

#[test]
fn a_directory_given_to_others_goes_when_it_is_no_longer_declared() {
    let mut machine = Machine::new();
    machine.mkdir("/srv");
    let before = machine.tree();
    check(
        &mut machine,
        &[open_directory("/srv/u", 0o777)],
        &["create directory:/srv/u"],
    );
    check(&mut machine, &[], &["delete directory:/srv/u"]);
    assert_eq!(machine.tree(), before);
    assert!(machine.owned.is_empty());
}

#[test]
fn a_directory_given_to_a_user_goes_when_it_is_no_longer_declared() {
    let mut machine = Machine::new();
    if !machine.is_root() {
        return; // only root gives directories away
    }
    machine.mkdir("/srv");
    let before = machine.tree();
    let of_user = with(directory("/srv/u"), |spec| {
        if let PathSpec::Directory { owner, .. } = spec {
            *owner = Some("1000".into());
        }
    });
    check(
        &mut machine,
        std::slice::from_ref(&of_user),
        &["create directory:/srv/u"],
    );
    assert_eq!(machine.at("/srv/u").metadata().unwrap().uid(), 1000);
    check(&mut machine, &[], &["delete directory:/srv/u"]);
    assert_eq!(machine.tree(), before);
}

#[test]
fn a_directory_given_to_others_stays_as_long_as_something_is_in_it() {
    let mut machine = Machine::new();
    machine.mkdir("/srv");
    check(
        &mut machine,
        &[open_directory("/srv/u", 0o777)],
        &["create directory:/srv/u"],
    );
    // Whoever may write there may also imitate what limpet leaves behind: it is neither deleted nor taken for nothing.
    machine.write("/srv/u/.limpet-0123456789abcdef", "somebody's\n");
    check(&mut machine, &[], &[]);
    assert_eq!(
        machine.text("/srv/u/.limpet-0123456789abcdef"),
        "somebody's\n"
    );
    std::fs::remove_file(machine.at("/srv/u/.limpet-0123456789abcdef")).unwrap();
    check(&mut machine, &[], &["delete directory:/srv/u"]);
}

#[test]
fn a_directory_of_others_that_was_there_gets_its_mode_back() {
    let mut machine = Machine::new();
    machine.mkdir("/srv/u");
    machine.chmod("/srv/u", 0o777);
    let before = machine.tree();
    check(
        &mut machine,
        &[open_directory("/srv/u", 0o775)],
        &["update directory:/srv/u mode"],
    );
    check(&mut machine, &[], &["restore directory:/srv/u mode"]);
    assert_eq!(machine.tree(), before);
}

#[test]
fn a_directory_of_others_can_be_declared_absent_and_comes_back() {
    let mut machine = Machine::new();
    machine.mkdir("/srv/u");
    machine.chmod("/srv/u", 0o777);
    let before = machine.tree();
    let absent = with(directory("/srv/u"), |spec| *spec = PathSpec::Absent);
    check(
        &mut machine,
        std::slice::from_ref(&absent),
        &["delete directory:/srv/u"],
    );
    check(&mut machine, &[], &["restore directory:/srv/u"]);
    assert_eq!(machine.tree(), before);
}

#[test]
fn a_directory_of_ours_below_one_of_others_is_left_alone() {
    let mut machine = Machine::new();
    machine.mkdir("/srv");
    let both = [directory("/srv/u"), directory("/srv/u/inner")];
    check(
        &mut machine,
        &both,
        &["create directory:/srv/u", "create directory:/srv/u/inner"],
    );
    machine.chmod("/srv/u", 0o777);
    check(
        &mut machine,
        &[],
        &["blocked: refused to work in directory '/srv/u': everybody may write in it (mode 0777)"],
    );
    assert!(machine.at("/srv/u/inner").exists());
}

#[test]
fn what_is_declared_beside_a_directory_does_not_keep_it() {
    let mut machine = Machine::new();
    machine.mkdir("/srv");
    let beside = [
        directory("/srv/u-other"),
        directory("/srv/u.d"),
        directory("/srv/u0"),
    ];
    let mut all = beside.to_vec();
    all.push(directory("/srv/u"));
    assert_eq!(machine.cycle(&all).len(), 4);
    check(&mut machine, &beside, &["delete directory:/srv/u"]);
}

#[test]
fn what_cannot_be_replaced_is_refused_with_its_path() {
    let mut machine = Machine::new();
    machine.mkdir("/etc/dir");
    machine.write("/etc/linked", "x\n");
    std::fs::hard_link(machine.at("/etc/linked"), machine.at("/etc/other-name")).unwrap();
    nix::unistd::mkfifo(
        &machine.at("/etc/pipe"),
        nix::sys::stat::Mode::from_bits_truncate(0o600),
    )
    .unwrap();
    symlink("dir", machine.at("/etc/link")).unwrap();
    symlink("dir", machine.at("/etc/link2")).unwrap();
    let before = machine.tree();
    let steps = machine.cycle(&[
        file("/etc/dir", "x"),
        file("/etc/linked", "new\n"),
        file("/etc/pipe", "x"),
        directory("/etc/link"),
        bare_file("/etc/link2", Some(0o600)),
        file("/etc/linked/below", "x"),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    blocked: refused to replace file:/etc/dir: there is a directory
    blocked: refused to replace directory:/etc/link: there is a symbolic link
    blocked: refused to replace file:/etc/link2: there is a symbolic link
    blocked: refused to change file:/etc/linked: the file has 2 names (hard links)
    blocked: file:/etc/linked/below lies below file:/etc/linked, which is declared to be no directory
    blocked: refused to replace file:/etc/pipe: there is a named pipe
    ");
    assert_eq!(machine.tree(), before);
}

#[test]
fn directories_of_others_are_refused() {
    let mut machine = Machine::new();
    machine.mkdir("/home/user/conf");
    machine.mkdir("/srv/group");
    machine.mkdir("/tmp");
    machine.chmod("/tmp", 0o1777);
    let mut expected = vec![
        "blocked: refused to work in directory '/tmp': everybody may write in it (mode 1777)"
            .to_owned(),
    ];
    if machine.is_root() {
        machine.chmod("/srv/group", 0o775);
        std::os::unix::fs::chown(machine.at("/home/user"), Some(4001), Some(4001)).unwrap();
        expected.insert(
            0,
            "blocked: refused to work in directory '/home/user': it belongs to user 4001"
                .to_owned(),
        );
        expected.insert(1, "blocked: refused to work in directory '/srv/group': group 0 may write in it (mode 0775)".to_owned());
    } else {
        machine.cycle(&[file("/home/user/conf/a", "x"), file("/srv/group/b", "x")]);
    }
    let before = machine.tree();
    let steps = machine.cycle(&[
        file("/home/user/conf/a", "x"),
        file("/srv/group/b", "x"),
        file("/tmp/c", "x"),
    ]);
    assert_eq!(steps, expected);
    assert_eq!(machine.tree(), before);
}

#[test]
fn links_of_root_are_followed_below_the_root_and_those_of_others_are_not() {
    let mut machine = Machine::new();
    machine.mkdir("/usr/bin");
    machine.mkdir("/run");
    machine.mkdir("/var");
    symlink("usr/bin", machine.at("/bin")).unwrap();
    symlink("/run", machine.at("/var/run")).unwrap();
    symlink("../../../../../run", machine.at("/var/up")).unwrap();
    symlink("loop", machine.at("/loop")).unwrap();
    let desired = [
        file("/bin/tool", "x"),
        file("/var/run/a", "x"),
        file("/var/up/b", "x"),
    ];
    check(
        &mut machine,
        &desired,
        &[
            "create file:/bin/tool",
            "create file:/var/run/a",
            "create file:/var/up/b",
        ],
    );
    assert_eq!(machine.text("/usr/bin/tool"), "x");
    assert_eq!(machine.text("/run/a"), "x");
    assert_eq!(machine.text("/run/b"), "x");
    let look = machine.host.look("/bin/tool", Hashing::Skip).unwrap();
    assert_eq!(look.physical("/bin/tool"), "/usr/bin/tool");

    let mut twice = desired.to_vec();
    twice.push(file("/usr/bin/tool", "y"));
    check(
        &mut machine,
        &twice,
        &[
            "blocked: file:/bin/tool and file:/usr/bin/tool are one path on this host: '/usr/bin/tool'",
        ],
    );
    check(
        &mut machine,
        &[file("/loop/x", "x")][..],
        &[
            "blocked: failed to enter directory '/loop': too many symbolic links",
            "delete file:/var/up/b",
            "delete file:/var/run/a",
            "delete file:/bin/tool",
        ],
    );
    if machine.is_root() {
        symlink("/run", machine.at("/var/theirs")).unwrap();
        std::os::unix::fs::lchown(machine.at("/var/theirs"), Some(4001), Some(4001)).unwrap();
        check(
            &mut machine,
            &[file("/var/theirs/x", "x")],
            &["blocked: refused to follow symbolic link '/var/theirs': it belongs to user 4001"],
        );
    }
}

#[test]
fn a_link_at_the_path_itself_is_replaced_and_never_followed() {
    let mut machine = Machine::new();
    machine.write("/secret", "secret\n");
    symlink("secret", machine.at("/motd")).unwrap();
    check(
        &mut machine,
        &[file("/motd", "ours\n")],
        &["update file:/motd type"],
    );
    assert_eq!(machine.text("/secret"), "secret\n");
    assert!(machine.at("/motd").symlink_metadata().unwrap().is_file());
}

#[test]
fn validate_judges_the_candidate_before_anything_is_replaced() {
    let mut machine = Machine::new();
    machine.write("/app.conf", "good\n");
    let validated = |content: &str| {
        with(file("/app.conf", content), |spec| {
            if let PathSpec::File { validate, .. } = spec {
                let script = r#"case "$1" in *.conf) ;; *) echo "suffix of $1"; exit 9;; esac; grep -q good "$1" || { echo "line 1: no good"; exit 3; }"#;
                *validate = Some(["sh", "-c", script, "sh", "{}"].map(str::to_owned).to_vec());
            }
        })
    };
    let steps = machine.cycle(&[validated("bad\n"), file("/other", "x")]);
    assert_eq!(steps.len(), 2, "{steps:?}");
    assert!(steps[0].starts_with("failed update file:/app.conf content: refused the new content of file:/app.conf: 'sh -c "), "{steps:?}");
    assert!(
        steps[0].ends_with(r#"exited with status 3: "line 1: no good""#),
        "{steps:?}"
    );
    assert_eq!(
        machine.tree(),
        ["/app.conf file 644 good", "/other file 644 x"]
    );
    check(
        &mut machine,
        &[validated("very good\n"), file("/other", "x")],
        &["update file:/app.conf content"],
    );
    assert_eq!(machine.text("/app.conf"), "very good\n");
}

#[test]
fn what_lies_in_a_directory_that_failed_is_skipped_and_the_rest_goes_on() {
    let mut machine = Machine::new();
    let desired = [
        with(directory("/a"), |spec| {
            if let PathSpec::Directory { owner, .. } = spec {
                *owner = Some("nobody-such".into());
            }
        }),
        file("/a/b", "x"),
        file("/c", "x"),
    ];
    let steps = machine.cycle(&desired);
    insta::assert_snapshot!(steps.join("\n"), @"
    failed create directory:/a: this host has no user 'nobody-such'
    skipped create file:/a/b: directory:/a
    create file:/c
    ");
    assert_eq!(machine.tree(), ["/c file 644 x"]);
}

#[test]
fn leftovers_of_a_killed_run_are_swept() {
    let mut machine = Machine::new();
    machine.mkdir("/etc/.limpet-0123456789abcdef");
    machine.write("/etc/.limpet-fedcba9876543210.conf", "half");
    machine.write("/etc/.limpet-notours.conf", "x");
    machine.cycle(&[file("/etc/app.conf", "x")]);
    assert_eq!(
        machine.tree(),
        [
            "/etc directory 755",
            "/etc/.limpet-notours.conf file 644 x",
            "/etc/app.conf file 644 x",
        ]
    );
    machine.write("/etc/.limpet-fedcba9876543210", "half");
    machine.host.sweep(["/etc", "/none"]).unwrap();
    assert!(!machine.at("/etc/.limpet-fedcba9876543210").exists());
}

#[test]
fn owners_are_names_or_numbers_of_the_host() {
    let mut machine = Machine::new();
    if !machine.is_root() {
        return; // nobody else may give files away
    }
    machine.mkdir("/etc");
    machine.write(
        "/etc/passwd",
        "root:x:0:0::/root:/bin/sh\ndeploy:x:4001:4002::/:/bin/sh\n",
    );
    machine.write("/etc/group", "root:x:0:\nops:x:4003:\n");
    let owned_by = |path: &str, user: &str, team: &str| {
        with(file(path, "x"), |spec| {
            if let PathSpec::File {
                owner, group, mode, ..
            } = spec
            {
                *owner = Some(user.into());
                *group = Some(team.into());
                *mode = Some(0o4750);
            }
        })
    };
    machine.cycle(&[owned_by("/a", "deploy", "ops"), owned_by("/b", "17", "18")]);
    let who = |path: &str| {
        let found = machine.at(path).metadata().unwrap();
        (
            found.uid(),
            found.gid(),
            found.permissions().mode() & 0o7777,
        )
    };
    assert_eq!(who("/a"), (4001, 4003, 0o4750));
    assert_eq!(who("/b"), (17, 18, 0o4750));
    check(
        &mut machine,
        &[owned_by("/a", "deploy", "root"), owned_by("/b", "17", "18")],
        &["update file:/a group"],
    );
    check(
        &mut machine,
        &[file("/a", "x"), owned_by("/b", "17", "18")],
        &["update file:/a mode owner"],
    );
}

#[test]
fn a_plan_shows_what_changes_but_nothing_that_is_not_for_everybody() {
    let machine = Machine::new();
    machine.write("/motd", "one\n");
    machine.write("/secret", "password\n");
    machine.chmod("/secret", 0o600);
    let desired = [
        file("/motd", "two\n"),
        file("/secret", "x\n"),
        link("/link", "motd"),
    ];
    let observed = Paths::observe(&machine.host, &desired, &[]);
    let mut shown = String::new();
    for step in Paths::plan(&desired, &observed, &[]) {
        let Step::Change(change) = step else {
            panic!("{step:?}")
        };
        shown += &diff(
            &machine.host,
            &machine.contents(),
            &change.change,
            &BTreeSet::new(),
        )
        .unwrap()
        .unwrap();
    }
    insta::assert_snapshot!(shown, @"
    --- /dev/null
    +++ /link
    @@ -0,0 +1 @@
    +symbolic link to motd
    --- /motd
    +++ /motd
    @@ -1 +1 @@
    -one
    +two
    content of /secret differs (not shown: not everybody may read it)
    ");
}

#[test]
fn an_original_is_kept_once_and_privately() {
    let machine = Machine::new();
    machine.write("/motd", "before\n");
    machine
        .host
        .ensure_own_directory("/var/lib/limpet/originals", 0o700)
        .unwrap();
    let originals = "/var/lib/limpet/originals";
    let mut walk = machine.host.walk().unwrap();
    let first = save_original(&machine.host, &mut walk, "/motd", originals).unwrap();
    assert_eq!(
        save_original(&machine.host, &mut walk, "/motd", originals).unwrap(),
        first
    );
    let Original::File { size: 7, .. } = first else {
        panic!("{first:?}")
    };
    let kept: Vec<_> = std::fs::read_dir(machine.at(originals))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(
        kept[0].metadata().unwrap().permissions().mode() & 0o7777,
        0o600
    );
    let stored = serde_json::to_string(&first).unwrap();
    assert_eq!(serde_json::from_str::<Original>(&stored).unwrap(), first);
}

#[test]
fn files_of_our_own_are_replaced_whole() {
    let machine = Machine::new();
    machine
        .host
        .ensure_own_directory("/var/lib/limpet", 0o700)
        .unwrap();
    machine
        .host
        .ensure_own_directory("/var/lib/limpet", 0o700)
        .unwrap();
    machine
        .host
        .write_own_file("/var/lib/limpet/mark", b"one", 0o600)
        .unwrap();
    machine
        .host
        .write_own_file("/var/lib/limpet/mark", b"two", 0o640)
        .unwrap();
    assert_eq!(
        machine
            .host
            .read_file("/var/lib/limpet/mark", 3)
            .unwrap()
            .unwrap(),
        b"two"
    );
    assert!(machine.host.read_file("/var/lib/limpet/mark", 2).is_err());
    assert_eq!(
        machine.host.read_file("/var/lib/limpet/none", 2).unwrap(),
        None
    );
    assert_eq!(machine.mode("/var/lib/limpet/mark"), 0o640);
    assert_eq!(machine.mode("/var/lib/limpet"), 0o700);
    assert_eq!(machine.mode("/var/lib"), 0o755);
    machine
        .host
        .remove_own_file("/var/lib/limpet/mark")
        .unwrap();
    machine
        .host
        .remove_own_file("/var/lib/limpet/mark")
        .unwrap();
    assert_eq!(
        machine.tree().last().unwrap(),
        "/var/lib/limpet directory 700"
    );
}
