use std::io::Write;

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::*;

/// One member as tar writes it: its name and target are written as they are, whatever they are.
#[derive(Debug, Clone)]
struct Member {
    kind: EntryType,
    path: Vec<u8>,
    target: Vec<u8>,
    mode: u32,
    bytes: Vec<u8>,
}

fn member(kind: EntryType, path: &str, target: &str, bytes: &[u8]) -> Member {
    Member {
        kind,
        path: path.into(),
        target: target.into(),
        mode: 0o644,
        bytes: bytes.to_vec(),
    }
}

fn file(path: &str, bytes: &[u8]) -> Member {
    member(EntryType::Regular, path, "", bytes)
}

fn directory(path: &str) -> Member {
    Member {
        mode: 0o755,
        ..member(EntryType::Directory, path, "", b"")
    }
}

fn link(path: &str, target: &str) -> Member {
    member(EntryType::Symlink, path, target, b"")
}

fn hard_link(path: &str, target: &str) -> Member {
    member(EntryType::Link, path, target, b"")
}

fn tar(members: &[Member]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for member in members {
        let mut header = Header::new_gnu();
        header.set_entry_type(member.kind);
        header.set_size(member.bytes.len() as u64);
        header.set_mode(member.mode);
        header.set_uid(4711);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..member.path.len()].copy_from_slice(&member.path);
        gnu.linkname[..member.target.len()].copy_from_slice(&member.target);
        header.set_cksum();
        builder.append(&header, &member.bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn paths(index: &Index) -> Vec<&str> {
    index.iter().map(|entry| entry.path.as_str()).collect()
}

#[track_caller]
fn check_refused(members: &[Member], why: &str) {
    let found = index(&tar(members)[..]).unwrap_err().0;
    assert!(found.contains(why), "{found}");
}

#[test]
fn an_archive_has_directories_files_links_and_other_names_of_files() {
    let members = [
        directory("./"),
        directory("./bin/"),
        Member {
            mode: 0o100_775,
            ..file("./bin/app", b"#!/bin/sh\n")
        },
        hard_link("bin/other", "./bin/app"),
        link("current", "bin/app"),
        link("bin/up", "../current"),
        file("share/doc/README", b""),
        Member {
            mode: 0o6777,
            ..file("suid", b"x")
        },
    ];
    for bytes in [tar(&members), gzip(&tar(&members))] {
        let index = index(&bytes[..]).unwrap();
        let expected = [
            "bin",
            "bin/app",
            "bin/other",
            "bin/up",
            "current",
            "share/doc/README",
            "suid",
        ];
        assert_eq!(paths(&index), expected);
        let What::File {
            mode, size, member, ..
        } = index[1].what
        else {
            panic!("{index:?}");
        };
        // Written for the group by whoever packed it; nobody but the owner may write here.
        assert_eq!((mode, size, member), (0o755, 10, 2));
        assert_eq!(index[1].what, index[2].what, "another name of it");
        assert!(matches!(&index[6].what, What::File { mode: 0o6755, .. }));

        let mut read = Vec::new();
        for_each_file::<Refused>(&bytes[..], &mut |member, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).unwrap();
            read.push((member, bytes));
            Ok(())
        })
        .unwrap();
        let expected = [(2, &b"#!/bin/sh\n"[..]), (6, b""), (7, b"x")];
        let expected = expected.map(|(member, bytes)| (member, bytes.to_vec()));
        assert_eq!(read, expected);
    }
}

#[test]
fn what_leaves_the_directory_it_is_unpacked_in_is_refused() {
    check_refused(&[file("/etc/passwd", b"")], "'/etc/passwd' is absolute");
    check_refused(&[file("../etc/passwd", b"")], "has a '..' in it");
    check_refused(&[file("a/../../b", b"")], "has a '..' in it");
    check_refused(&[directory("a/..")], "has a '..' in it");
    check_refused(&[link("l", "/etc")], "it is absolute");
    check_refused(&[link("l", "..")], "leads out of the archive");
    check_refused(&[link("a/l", "../../b")], "leads out of the archive");
    check_refused(&[link("a/l", ".././../b")], "leads out of the archive");
    // By itself it seems to stay: p/q/../x is p/x. But p/q is a link to the top, and x is beside it then.
    check_refused(
        &[link("p/q", ".."), link("l", "p/q/../x")],
        "goes down and up again",
    );
    check_refused(
        &[link("l", "a"), file("l/b", b"")],
        "'l/b' lies below 'l', which is no directory",
    );
    check_refused(
        &[file("l/b", b""), link("l", "a")],
        "'l/b' lies below 'l', which is no directory",
    );
    check_refused(&[hard_link("a", "/etc/shadow")], "is absolute");
    check_refused(&[hard_link("a", "../b")], "has a '..' in it");
    check_refused(&[hard_link("a", "b")], "no file that comes before it");
    check_refused(
        &[link("b", "c"), hard_link("a", "b")],
        "no file that comes before it",
    );
}

#[test]
fn what_is_no_file_directory_or_link_is_refused() {
    for (kind, why) in [
        (EntryType::Char, "'x' is a device"),
        (EntryType::Block, "'x' is a device"),
        (EntryType::Fifo, "'x' is a named pipe"),
        (EntryType::GNUSparse, "'x' is a sparse file"),
        (
            EntryType::Continuous,
            "'x' is something that no file can be",
        ),
        (EntryType::new(b'Z'), "'x' is something that no file can be"),
    ] {
        check_refused(&[member(kind, "x", "", b"")], why);
    }
}

#[test]
fn what_stands_twice_or_has_no_good_name_is_refused() {
    check_refused(&[file("a", b"1"), file("./a", b"2")], "'a' is in it twice");
    check_refused(&[directory("a/"), file("a", b"")], "'a' is in it twice");
    check_refused(
        &[
            directory("a/"),
            Member {
                mode: 0o700,
                ..directory("a")
            },
        ],
        "'a' is in it twice",
    );
    assert!(index(&tar(&[directory("a/"), directory("./a")])[..]).is_ok());
    check_refused(&[file("a//b", b"")], "is not normalised");
    check_refused(&[file("a/./b", b"")], "is not normalised");
    check_refused(&[file("a\nb", b"")], "'a\\nb' has a control character");
    let no_text = Member {
        path: b"a\xff".to_vec(),
        ..file("", b"")
    };
    check_refused(&[no_text], "'a\\xff' is no text");
    check_refused(&[file(".", b"")], "'.' is no path in it");
    check_refused(&[directory("./")], "there is nothing in it");
    check_refused(&[link("l", "")], "which is no path");
    check_refused(&[link("l", "a\u{1b}b")], "which is no path");
}

#[test]
fn what_announces_an_entry_is_bounded_and_says_each_thing_once() {
    let long = "d/".repeat(80) + "file";
    let announced = |records: &str, path: &str| {
        let mut body = Vec::new();
        for record in records.lines() {
            let mut length = record.len() + 3;
            while format!("{length} {record}\n").len() != length {
                length += 1;
            }
            body.extend(format!("{length} {record}\n").bytes());
        }
        [
            member(EntryType::XHeader, "PaxHeaders/x", "", &body),
            file(path, b"bytes"),
        ]
    };
    let index_of = |members: &[Member]| index(&tar(members)[..]).map_err(|refused| refused.0);
    let pax = index_of(&announced(&format!("path={long}\nmtime=1.5"), "short")).unwrap();
    assert_eq!(paths(&pax), [&long]);
    let gnu = [
        member(
            EntryType::GNULongName,
            "././@LongLink",
            "",
            format!("{long}\0").as_bytes(),
        ),
        file("short", b"bytes"),
    ];
    assert_eq!(paths(&index_of(&gnu).unwrap()), [&long]);

    check_refused(&announced("path=../up", "short"), "has a '..' in it");
    check_refused(&announced("size=9", "short"), "says two sizes");
    check_refused(&announced("GNU.sparse.major=1", "short"), "sparse file");
    let twice = [&gnu[..1], &gnu[..]].concat();
    check_refused(&twice, "says twice what one entry is called");
    check_refused(&gnu[..1], "ends where an entry is announced");
    let endless = member(EntryType::GNULongName, "x", "", &vec![b'a'; (64 << 10) + 1]);
    check_refused(&[endless, file("short", b"")], "takes more than 64 KiB");
    let mut global = announced("path=all", "short");
    global[0].kind = EntryType::XGlobalHeader;
    check_refused(&global, "one name or size of all");
}

#[test]
fn more_than_there_may_be_is_refused_and_not_waited_for() {
    let many: Vec<Member> = (0..=MAX_ENTRIES)
        .map(|number| file(&format!("{number}"), b""))
        .collect();
    check_refused(&many, "more than 20000 entries");

    // A header that promises eight exbibytes, and zeros for as long as anybody reads.
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_path("bomb").unwrap();
    header.set_mode(0o644);
    header.set_size(1 << 62);
    header.set_cksum();
    let endless = header.as_bytes().chain(io::repeat(0));
    let bounded = Bounded {
        inner: endless,
        left: 1 << 20,
    };
    let mut read = 0;
    let error = io::copy(&mut bounded.inspect(|count| read += count), &mut io::sink()).unwrap_err();
    assert!(error.to_string().contains("unpacks to more than 4 GiB"));
    assert!(read <= 1 << 20);
}

/// Counts what is read.
struct Inspected<R, F> {
    inner: R,
    count: F,
}

impl<R: Read> Bounded<R> {
    fn inspect<F: FnMut(u64)>(self, count: F) -> Inspected<Self, F> {
        Inspected { inner: self, count }
    }
}

impl<R: Read, F: FnMut(u64)> Read for Inspected<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        (self.count)(count as u64);
        Ok(count)
    }
}

#[test]
fn what_is_no_tar_or_is_cut_off_is_refused_by_what_it_is() {
    let check = |bytes: &[u8], why: &str| {
        let found = index(bytes).unwrap_err().0;
        assert!(found.contains(why), "{found}");
    };
    check(
        b"\x28\xb5\x2f\xfd....",
        "compressed with zstd; what is unpacked is tar, as it is or with gzip",
    );
    check(b"\xfd7zXZ\0....", "compressed with xz");
    check(b"BZh91AY", "compressed with bzip2");
    check(b"PK\x03\x04....", "compressed with zip");
    check(b"", "there is nothing in it");
    check(&[b'x'; 1024], "it cannot be read");
    check(&gzip(b""), "there is nothing in it");
    let whole = tar(&[file("a", &[7; 2000])]);
    check(&whole[..1024], "ends in the middle of a file");
    let compressed = gzip(&whole);
    check(&compressed[..compressed.len() / 2], "it cannot be read");
    // The format before 1988 has no word that tells it.
    let mut old = Header::new_old();
    old.set_path("a").unwrap();
    old.set_size(0);
    old.set_mode(0o644);
    old.set_cksum();
    check(
        &[&old.as_bytes()[..], &[0; 1024]].concat(),
        "no tar archive in the format of",
    );
}

fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[ab]",
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(String::new())
    ];
    proptest::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

fn any_member() -> impl Strategy<Value = Member> {
    let kind = prop_oneof![
        Just(EntryType::Regular),
        Just(EntryType::Directory),
        Just(EntryType::Symlink),
        Just(EntryType::Link)
    ];
    (kind, name(), name()).prop_map(|(kind, path, target)| member(kind, &path, &target, b""))
}

/// Where the kernel ends up that looks for `path` below `root` among `entries`; `None` when it goes above `root`, or round in circles.
fn follow(entries: &Index, path: &str) -> Option<Vec<String>> {
    let mut left: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut here: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(part) = left.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                here.pop()?;
                continue;
            }
            _ => here.push(part),
        }
        let found = entries.iter().find(|entry| entry.path == here.join("/"));
        if let Some(Entry {
            what: What::Symlink { target },
            ..
        }) = found
        {
            links += 1;
            if links > 40 {
                return Some(here);
            }
            here.pop();
            left.extend(target.split('/').rev().map(str::to_owned));
        }
    }
    Some(here)
}

proptest! {
    #[test]
    fn no_archive_leads_out_of_its_directory_whichever_links_are_followed(
        members in proptest::collection::vec(any_member(), 1..6)
    ) {
        if let Ok(entries) = index(&tar(&members)[..]) {
            for entry in &entries {
                prop_assert!(follow(&entries, &entry.path).is_some(), "{:?}", entries);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = index(&bytes[..]);
    }

    #[test]
    fn no_damage_makes_it_panic(
        members in proptest::collection::vec(any_member(), 1..4),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        mends in any::<bool>(),
    ) {
        let mut bytes = tar(&members);
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if mends {
            let mut header = Header::new_gnu();
            header.as_mut_bytes().copy_from_slice(&bytes[..512]);
            header.set_cksum();
            bytes[..512].copy_from_slice(header.as_bytes());
        }
        let _ = index(&bytes[..]);
    }
}
