//! Objects made by hand: commits that two readers could understand differently, and trees that no checkout should meet.

use crate::Bench;

#[test]
fn commits_that_break_the_grammar_are_refused() {
    let bench = Bench::new();
    let tree = bench.repository.id("main^{tree}");
    let good = bench.repository.payload(&tree, &[&bench.anchor], "one");
    let parent = format!("parent {}\n", bench.anchor);
    for (what, payload) in [
        (
            "two trees",
            good.replacen("parent", &format!("tree {tree}\nparent"), 1),
        ),
        (
            "the same parent twice",
            good.replacen(&parent, &format!("{parent}{parent}"), 1),
        ),
        (
            "a second author",
            good.replacen("committer ", "author A <a> 1 +0000\ncommitter ", 1),
        ),
        (
            "a parent at the end",
            good.replacen("\n\n", &format!("\n{parent}\n"), 1),
        ),
        (
            "a date with letters",
            good.replacen("1767323045", "tomorrow", 1),
        ),
        (
            "a date with 12 digits",
            good.replacen("1767323045", "176732304500", 1),
        ),
        ("a zone without a sign", good.replacen("+0000", "0000", 1)),
        (
            "a carriage return",
            good.replacen("+0000\n", "+0000\r\n", 1),
        ),
        (
            "a header without a space",
            good.replacen("\n\n", "\nheader\n\n", 1),
        ),
        (
            "a capital id",
            good.replacen(&bench.anchor, &bench.anchor.to_uppercase(), 1),
        ),
        ("a NUL", good.replace("one", "o\0e")),
    ] {
        let armor = bench.repository.sign(&bench.alice, "git", &payload);
        let tip = bench.repository.write_commit(&payload, &armor);
        let answer = bench.verify(&tip);
        assert_eq!(
            answer.text("rule"),
            "malformed-commit",
            "{what}: {}",
            answer.json
        );
    }
    // Headers that we do not know are signed, and mean nothing.
    let payload = good.replacen("\n\n", "\nchange-id abc\n continued\n\n", 1);
    let armor = bench.repository.sign(&bench.alice, "git", &payload);
    bench.accepts(&bench.repository.write_commit(&payload, &armor));
}

#[test]
fn trees_that_break_the_rules_are_refused() {
    let bench = Bench::new();
    let blob = bench.repository.write_object("blob", b"hello");
    let tree = bench.repository.id("main^{tree}");
    let entry = |mode: &str, name: &str, id: &str| {
        let mut bytes = format!("{mode} {name}\0").into_bytes();
        bytes.extend(
            (0..id.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()),
        );
        bytes
    };
    let file = |name: &str| entry("100644", name, &blob);
    let long = "x".repeat(256);
    let mut cases: Vec<(String, Vec<u8>)> = [
        ".",
        "..",
        ".git",
        ".GIT",
        ".Git ",
        ".git.",
        "git~1",
        "GIT~1 .",
        ".git:x",
        ".g\u{200c}it",
        "",
        "a/b",
        &long,
    ]
    .into_iter()
    .map(|name| (format!("{name:?}"), file(name)))
    .collect();
    cases.push(("a submodule".into(), entry("160000", "sub", &bench.anchor)));
    cases.push(("a group-writable file".into(), entry("100664", "a", &blob)));
    cases.push(("a padded mode".into(), entry("040000", "a", &tree)));
    cases.push(("a duplicate".into(), [file("a"), file("a")].concat()));
    cases.push(("not sorted".into(), [file("b"), file("a")].concat()));
    let both = [file("a"), file("a.b"), entry("40000", "a", &tree)].concat();
    cases.push(("a file and a directory of one name".into(), both));
    cases.push(("cut off".into(), file("a")[..15].to_owned()));
    for (what, bytes) in cases {
        let bad = bench.repository.write_object("tree", &bytes);
        let below = bench
            .repository
            .write_object("tree", &entry("40000", "etc", &bad));
        for (tree, path) in [(&bad, "."), (&below, "etc")] {
            let tip = bench
                .repository
                .commit_tree(&bench.alice, tree, &[&bench.anchor], "one");
            let answer = bench.verify(&tip);
            assert_eq!(
                answer.text("rule"),
                "malformed-tree",
                "{what}: {}",
                answer.json
            );
            assert_eq!(answer.text("path"), path, "{what}");
        }
    }
}

#[test]
fn directories_may_nest_64_deep_and_no_deeper() {
    let bench = Bench::new();
    let blob = bench.repository.write_object("blob", b"hello");
    let fleet = bench.repository.id("main:fleet.toml");
    let raw = |id: &str| -> Vec<u8> {
        (0..id.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap())
            .collect()
    };
    let mut tree = bench
        .repository
        .write_object("tree", &[b"100644 f\0".to_vec(), raw(&blob)].concat());
    for depth in 1..=65 {
        let mut bytes = [b"40000 d\0".to_vec(), raw(&tree)].concat();
        bytes.extend([b"100644 fleet.toml\0".to_vec(), raw(&fleet)].concat());
        tree = bench.repository.write_object("tree", &bytes);
        if depth >= 64 {
            let tip = bench
                .repository
                .commit_tree(&bench.alice, &tree, &[&bench.anchor], "deep");
            match depth {
                64 => drop(bench.accepts(&tip)),
                _ => drop(bench.refuses(&tip, "malformed-tree")),
            }
        }
    }
}

#[test]
fn symbolic_links_are_fine_in_a_tree() {
    let bench = Bench::new();
    bench.repository.symlink("link", "/etc/shadow");
    bench.repository.commit(&bench.alice, "link");
    bench.accepts("HEAD");
}

#[test]
fn an_object_with_other_bytes_than_its_id_says_is_refused() {
    let mut bench = Bench::new();
    bench.elsewhere = Some("Git's server fails over it");
    let good = bench.repository.commit(&bench.alice, "one");
    let other = bench.repository.commit(&bench.alice, "two");
    let path = |id: &str| {
        bench
            .repository
            .work()
            .join(format!(".git/objects/{}/{}", &id[..2], &id[2..]))
    };
    std::fs::remove_file(path(&other)).unwrap();
    std::fs::copy(path(&good), path(&other)).unwrap();
    let answer = bench.refuses(&other, "hash-mismatch");
    assert_eq!(answer.text("commit"), other);
    bench.refuses("HEAD", "hash-mismatch");
}

#[test]
fn a_tree_with_other_bytes_than_its_id_says_is_refused() {
    let mut bench = Bench::new();
    bench.elsewhere = Some("Git's server fails over it");
    bench.repository.write("etc/motd", "hello");
    bench.repository.commit(&bench.alice, "one");
    let tree = bench.repository.id("HEAD:etc");
    let fake = bench.repository.id("HEAD^{tree}");
    let path = |id: &str| {
        bench
            .repository
            .work()
            .join(format!(".git/objects/{}/{}", &id[..2], &id[2..]))
    };
    std::fs::remove_file(path(&tree)).unwrap();
    std::fs::copy(path(&fake), path(&tree)).unwrap();
    bench.refuses("HEAD", "hash-mismatch");
}

#[test]
fn an_object_of_more_than_64_mib_is_not_read() {
    let mut bench = Bench::new();
    bench.elsewhere = Some("the fetcher does not take it");
    let huge = bench
        .repository
        .write_object("tree", &vec![b'1'; (64 << 20) + 1]);
    let tip = bench
        .repository
        .commit_tree(&bench.alice, &huge, &[&bench.anchor], "one");
    let answer = bench.refuses(&tip, "malformed-tree");
    assert!(answer.text("detail").contains("64 MiB"), "{}", answer.json);
}

#[test]
fn a_commit_of_more_than_1_mib_is_refused() {
    let bench = Bench::new();
    let tree = bench.repository.id("main^{tree}");
    let message = "long ".repeat(1 << 18);
    let tip = bench
        .repository
        .commit_tree(&bench.alice, &tree, &[&bench.anchor], &message);
    bench.refuses(&tip, "malformed-commit");
}
