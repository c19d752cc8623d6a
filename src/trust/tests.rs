use super::fixture::{Key, Store, now, payload, policy, with_signature, word_of};
use super::*;
use crate::git::{EntryKind, ObjectKind};

struct World {
    store: Store,
    alice: Key,
    bob: Key,
    tree: ObjectId,
    anchor: ObjectId,
    policy: Policy,
}

impl World {
    fn new() -> Self {
        let mut store = Store::default();
        let (alice, bob) = (Key::new(1), Key::new(2));
        let tree = store.fleet_tree("acme");
        let anchor = store.commit(Some(&alice), tree, &[], 1000);
        let allowed = alice.allowed("alice", "") + &bob.allowed("bob", "");
        World {
            policy: policy(anchor, &allowed, ""),
            store,
            alice,
            bob,
            tree,
            anchor,
        }
    }

    fn signed(&mut self, parents: &[ObjectId], time: i64) -> ObjectId {
        self.store
            .commit(Some(&self.alice), self.tree, parents, time)
    }

    fn unsigned(&mut self, parents: &[ObjectId], time: i64) -> ObjectId {
        self.store.commit(None, self.tree, parents, time)
    }

    fn head(&self, id: ObjectId) -> TrustedHead {
        TrustedHead::set(&self.store, &self.policy, id).unwrap()
    }

    /// The verdict in a word: a rule, or what else it is.
    fn verdict(&self, trusted: Option<ObjectId>, tip: ObjectId) -> &'static str {
        let trusted = trusted.map(|id| self.head(id));
        let verdict = verify(&self.store, &self.policy, trusted.as_ref(), tip, now());
        if let Verdict::Accepted(revision) = &verdict {
            assert_eq!(revision.commit(), tip);
        }
        word_of(&verdict)
    }
}

#[test]
fn an_anchor_that_is_the_tip_has_its_trees_checked() {
    let mut world = World::new();
    let blob = world.store.add(ObjectKind::Blob, "x");
    let bad = world.store.tree(&[("100644", ".git", blob)]);
    let fleet = world.store.add(ObjectKind::Blob, "fleet = \"acme\"\n");
    let tree = world
        .store
        .tree(&[("100644", "fleet.toml", fleet), ("40000", "layers", bad)]);
    let anchor = world.store.commit(Some(&world.alice), tree, &[], 1000);
    world.policy.anchor.commit = anchor;
    assert_eq!(world.verdict(None, anchor), "malformed-tree");
}

/// A tree with a policy in which alice is root, and bob, where he is in it, may change everything else.
fn policed(world: &mut World, version: u32, has_bob: bool, file: &str) -> ObjectId {
    let mut text = format!(
        "version = {version}\n[key]\nalice = \"{}\"\n",
        world.alice.public()
    );
    if has_bob {
        text += &format!("bob = \"{}\"\n", world.bob.public());
    }
    text += "[root]\nkeys = [\"alice\"]\n";
    if has_bob {
        text += "[[allow]]\nkeys = [\"bob\"]\npaths = [\"**\"]\n";
    }
    let fleet = world.store.add(ObjectKind::Blob, "fleet = \"acme\"\n");
    let policy = world.store.add(ObjectKind::Blob, text);
    let file = world.store.add(ObjectKind::Blob, file);
    world.store.tree(&[
        ("100644", "a", file),
        ("100644", "fleet.toml", fleet),
        ("100644", "trust.toml", policy),
    ])
}

/// However often a host polls, a new key has the same chance to prove itself.
#[test]
fn a_key_that_the_trusted_head_added_may_prove_itself_with_the_next_commit() {
    let mut world = World::new();
    let first = policed(&mut world, 1, false, "x");
    let anchor = world.store.commit(Some(&world.alice), first, &[], 1000);
    world.policy.anchor.commit = anchor;
    let both = policed(&mut world, 2, true, "x");
    let adding = world
        .store
        .commit(Some(&world.alice), both, &[anchor], 1001);
    let changed = policed(&mut world, 2, true, "y");
    let by_bob = world
        .store
        .commit(Some(&world.bob), changed, &[adding], 1002);
    let between = world
        .store
        .commit(Some(&world.alice), both, &[adding], 1003);
    let late = world
        .store
        .commit(Some(&world.bob), changed, &[between], 1004);

    let judge = |trusted: Option<&TrustedHead>, tip: ObjectId| {
        verify(&world.store, &world.policy, trusted, tip, now())
    };
    let head = |verdict: Verdict| match verdict {
        Verdict::Accepted(revision) => revision.trusted_head().clone(),
        other => panic!("{other:?}"),
    };
    let refused = |verdict: Verdict| match verdict {
        Verdict::Refused(refusal) => refusal.rule,
        other => panic!("{other:?}"),
    };
    let at_adding = head(judge(None, adding));
    head(judge(None, by_bob));
    head(judge(Some(&at_adding), by_bob));
    let at_between = head(judge(Some(&at_adding), between));
    assert_eq!(refused(judge(None, late)), Rule::PolicyInvalid);
    assert_eq!(refused(judge(Some(&at_adding), late)), Rule::PolicyInvalid);
    assert_eq!(refused(judge(Some(&at_between), late)), Rule::PolicyInvalid);
}

#[test]
fn a_path_is_bounded() {
    let mut world = World::new();
    world.policy.max_catchup = 5;
    let mut tip = world.anchor;
    for time in 0..5 {
        tip = world.signed(&[tip], 2000 + time);
    }
    assert_eq!(world.verdict(None, tip), "accepted");
    let sixth = world.signed(&[tip], 3000);
    assert_eq!(world.verdict(None, sixth), "too-many-commits");
    assert_eq!(world.verdict(Some(tip), sixth), "accepted");
}

#[test]
fn catching_up_reads_each_commit_once_however_wide_history_is() {
    // Every commit merges a side branch that starts at the anchor's own old history.
    let mut world = World::new();
    let mut old = world.unsigned(&[], 1);
    for time in 0..200 {
        old = world.unsigned(&[old], 2 + time);
    }
    let base = world.signed(&[old], 900);
    let mut tip = base;
    for time in 0..50 {
        let side = world.unsigned(&[old], 950 + time);
        tip = world.signed(&[tip, side], 1000 + time);
    }
    let head = world.head(base);
    world.store.reads.set(0);
    let verdict = verify(&world.store, &world.policy, Some(&head), tip, now());
    assert!(matches!(verdict, Verdict::Accepted(_)), "{verdict:?}");
    // 50 commits, the base and the tip once more, and two fleet.toml with their trees at most.
    assert!(world.store.reads.get() < 65, "{}", world.store.reads.get());
}

#[test]
fn a_foxtrot_merge_is_followed_without_reading_all_history() {
    let mut world = World::new();
    let mut old = world.anchor;
    for time in 0..300 {
        old = world.signed(&[old], 2000 + time);
    }
    let base = world.signed(&[old], 5_000_000);
    let local = world.unsigned(&[old], 5_000_001);
    let tip = world.signed(&[local, base], 5_000_002);
    let head = world.head(base);
    world.store.reads.set(0);
    let verdict = verify(&world.store, &world.policy, Some(&head), tip, now());
    assert!(matches!(verdict, Verdict::Accepted(_)), "{verdict:?}");
    assert!(world.store.reads.get() < 30, "{}", world.store.reads.get());
}

#[test]
fn every_shape_of_history_has_its_verdict_whatever_dates_it_claims() {
    // Each shape with dates that rise, fall, and are all the same.
    for dates in [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [7; 5], [1, 9, 1, 9, 1]] {
        let days = |index: usize| dates[index] * 10 * 86_400;
        let mut world = World::new();
        let a = world.signed(&[world.anchor], days(0));
        let b = world.signed(&[a], days(1));
        let gap = world.unsigned(&[a], days(2) + 1); // else the twin of b
        let around = world.signed(&[gap, b], days(3));
        let above_gap = world.signed(&[gap], days(3));
        let other = world
            .store
            .commit(Some(&world.bob), world.tree, &[world.anchor], days(4) + 2); // else the twin of a
        #[track_caller]
        fn check(world: &World, trusted: ObjectId, tip: ObjectId, expected: &str, dates: [i64; 5]) {
            let verdict = world.verdict(Some(trusted), tip);
            assert_eq!(verdict, expected, "{dates:?}");
        }
        check(&world, a, a, "unchanged", dates);
        check(&world, a, b, "accepted", dates);
        check(&world, b, a, "behind", dates);
        check(&world, around, world.anchor, "behind", dates);
        check(&world, b, around, "accepted", dates);
        check(&world, a, around, "accepted", dates);
        check(&world, a, above_gap, "unsigned", dates);
        check(&world, gap, above_gap, "accepted", dates);
        check(&world, b, above_gap, "diverged", dates);
        check(&world, b, other, "diverged", dates);
        check(&world, other, around, "diverged", dates);
    }
}

#[test]
fn a_malformed_commit_on_a_side_branch_is_the_mergers_business() {
    let mut world = World::new();
    let odd = payload(world.tree, &[world.anchor], 1500).replace("author ", "autor ");
    let odd = world.store.add(ObjectKind::Commit, odd);
    let main = world.signed(&[world.anchor], 2000);
    let merge = world.signed(&[main, odd], 3000);
    assert_eq!(world.verdict(None, merge), "accepted");
    let on_top = world.signed(&[odd], 3000);
    assert_eq!(world.verdict(None, on_top), "malformed-commit");
    assert_eq!(world.verdict(Some(main), on_top), "diverged");
}

#[test]
fn an_anchor_need_not_be_signed_but_a_tip_must_be() {
    let mut world = World::new();
    let anchor = world.unsigned(&[], 1);
    let tip = world.signed(&[anchor], 2);
    world.policy.anchor.commit = anchor;
    assert_eq!(world.verdict(None, tip), "accepted");
    assert_eq!(world.verdict(None, anchor), "unsigned");
    world.policy.anchor.signer = Some(world.alice.fingerprint());
    assert_eq!(world.verdict(None, tip), "anchor-mismatch");
}

#[test]
fn an_anchor_has_the_configured_signer() {
    let mut world = World::new();
    let tip = world.signed(&[world.anchor], 2000);
    world.policy.anchor.signer = Some(world.alice.fingerprint());
    assert_eq!(world.verdict(None, tip), "accepted");
    world.policy.anchor.signer = Some(world.bob.fingerprint());
    assert_eq!(world.verdict(None, tip), "anchor-mismatch");
}

#[test]
fn an_anchor_may_be_a_shallow_boundary() {
    let mut world = World::new();
    let below = world.unsigned(&[], 1);
    let anchor = world.signed(&[below], 2);
    let tip = world.signed(&[anchor], 3);
    world.policy.anchor.commit = anchor;
    world.store.objects.remove(&below);
    assert_eq!(world.verdict(None, tip), "accepted");
    assert_eq!(world.verdict(Some(anchor), tip), "accepted");
    let above = world.signed(&[tip], 4);
    world.store.objects.remove(&tip);
    assert_eq!(world.verdict(None, above), "shallow");
}

#[test]
fn a_missing_tip_or_tree_is_no_verdict() {
    let mut world = World::new();
    let nowhere = ObjectId::from_hex(&[b'1'; 40]).unwrap();
    assert_eq!(world.verdict(None, nowhere), "unavailable");
    let tip = world
        .store
        .commit(Some(&world.bob), nowhere, &[world.anchor], 2000);
    assert_eq!(world.verdict(None, tip), "unavailable");
}

#[test]
fn the_fleet_is_bound_at_every_step() {
    let mut world = World::new();
    let other = world.store.fleet_tree("other");
    let foreign = world
        .store
        .commit(Some(&world.bob), other, &[world.anchor], 2000);
    let back = world.signed(&[foreign], 3000);
    assert_eq!(world.verdict(None, foreign), "wrong-fleet");
    assert_eq!(world.verdict(None, back), "wrong-fleet");

    // A name may come later, and may be away for a while.
    let empty = world.store.tree(&[]);
    let nameless = world.store.commit(Some(&world.bob), empty, &[], 1);
    let named = world.signed(&[nameless], 2);
    world.policy.anchor.commit = nameless;
    assert_eq!(world.verdict(None, nameless), "accepted");
    assert_eq!(world.verdict(None, named), "accepted");
    let gone = world.store.commit(Some(&world.bob), empty, &[named], 3);
    let again = world.signed(&[gone], 4);
    assert_eq!(world.verdict(Some(named), gone), "wrong-fleet");
    assert_eq!(world.verdict(Some(named), again), "accepted");
    let renamed = world.store.commit(Some(&world.bob), other, &[gone], 4);
    assert_eq!(world.verdict(Some(named), renamed), "wrong-fleet");
    world.policy.fleet = Some("acme".into());
    assert_eq!(world.verdict(None, nameless), "wrong-fleet");
    assert_eq!(world.verdict(None, renamed), "wrong-fleet");
}

#[test]
fn every_steps_trees_are_checked() {
    let mut world = World::new();
    let blob = world.store.add(ObjectKind::Blob, "x");
    let evil = world.store.tree(&[("100644", ".git", blob)]);
    let evil = world.store.tree(&[("40000", "etc", evil)]);
    let bad = world
        .store
        .commit(Some(&world.bob), evil, &[world.anchor], 2000);
    let fixed = world.signed(&[bad], 3000);
    assert_eq!(world.verdict(None, bad), "malformed-tree");
    assert_eq!(world.verdict(None, fixed), "malformed-tree");
    world.policy.mode = TrustMode::Head;
    assert_eq!(world.verdict(None, fixed), "accepted");
}

#[test]
fn a_deep_tree_that_grows_by_repetition_is_checked_once() {
    // Twice the same directory on each level: 2^60 paths, 61 trees.
    let mut world = World::new();
    let file = world.store.add(ObjectKind::Blob, "fleet = \"acme\"\n");
    let mut tree = world.store.tree(&[("100644", "fleet.toml", file)]);
    for _ in 0..60 {
        tree = world.store.tree(&[
            ("40000", "a", tree),
            ("40000", "b", tree),
            ("100644", "fleet.toml", file),
        ]);
    }
    let tip = world
        .store
        .commit(Some(&world.bob), tree, &[world.anchor], 2000);
    assert_eq!(world.verdict(None, tip), "accepted");
    for _ in 0..5 {
        tree = world
            .store
            .tree(&[("40000", "a", tree), ("100644", "fleet.toml", file)]);
    }
    let tip = world
        .store
        .commit(Some(&world.bob), tree, &[world.anchor], 2000);
    assert_eq!(world.verdict(None, tip), "malformed-tree");
}

#[test]
fn a_head_that_is_not_what_was_verified_is_not_resumed() {
    let mut world = World::new();
    let tip = world.signed(&[world.anchor], 2000);
    let head = world.head(tip);
    let revision = resume(&world.store, "", &head).unwrap();
    assert_eq!(revision.trusted_head(), &head);

    let stored: TrustedHead = serde_json::from_str(&serde_json::to_string(&head).unwrap()).unwrap();
    assert_eq!(stored, head);

    for broken in [
        TrustedHead {
            payload_sha256: "0".repeat(64),
            ..head.clone()
        },
        TrustedHead {
            tree: world.anchor,
            ..head.clone()
        },
    ] {
        let Err(Stop::Refused(refusal)) = resume(&world.store, "", &broken) else {
            panic!("resumed {broken:?}");
        };
        assert_eq!(refusal.rule, Rule::StateMissing);
    }
    world.store.objects.remove(&tip);
    let gone = resume(&world.store, "", &head);
    assert!(matches!(gone, Err(Stop::Unavailable(_))), "{gone:?}");
}

#[test]
fn a_revoked_key_does_not_undo_the_trusted_head() {
    let mut world = World::new();
    let tip = world.signed(&[world.anchor], 2000);
    let head = world.head(tip);
    let allowed = world.alice.allowed("alice", "") + &world.bob.allowed("bob", "");
    world.policy = policy(world.anchor, &allowed, &world.alice.fingerprint());
    assert!(resume(&world.store, "", &head).is_ok());
    let next = world
        .store
        .commit(Some(&world.bob), world.tree, &[tip], 3000);
    assert_eq!(world.verdict(Some(tip), next), "accepted");
    // From the anchor on, that history can no longer be accepted.
    let Verdict::Refused(refusal) = verify(&world.store, &world.policy, None, next, now()) else {
        panic!("not refused");
    };
    assert_eq!(refusal.rule, Rule::KeyRevoked);
    insta::assert_snapshot!(refusal.hint().unwrap(), @"if history up to here is known to be good, anchor the host at a more recent commit; else sign the change again with a valid key");
}

#[test]
fn files_are_read_by_path_and_links_are_not_followed() {
    let mut world = World::new();
    let motd = world.store.add(ObjectKind::Blob, "hello\n");
    let link = world.store.add(ObjectKind::Blob, "layers");
    let fleet = world.store.add(ObjectKind::Blob, "fleet = \"acme\"\n");
    let files = world.store.tree(&[("100755", "motd", motd)]);
    let layers = world.store.tree(&[("40000", "base", files)]);
    let hosts = world.store.tree(&[
        ("100644", "fleet.toml", fleet),
        ("40000", "layers", layers),
        ("120000", "link", link),
    ]);
    let root = world.store.tree(&[("40000", "hosts", hosts)]);
    let tip = world.store.commit(Some(&world.bob), root, &[], 1);
    world.policy.anchor.commit = tip;
    world.policy.source_path = "hosts".into();
    let Verdict::Accepted(revision) = verify(&world.store, &world.policy, None, tip, now()) else {
        panic!("not accepted");
    };
    assert_eq!(revision.trusted_head().fleet.as_deref(), Some("acme"));
    assert_eq!(revision.signer().unwrap().principal, "bob");
    let tree = revision.files(&world.store);
    let read = |path| tree.read(path).unwrap().map(|file| file.data);
    assert_eq!(read("layers/base/motd").unwrap(), b"hello\n");
    for path in [
        "link",
        "link/base/motd",
        "layers",
        "layers/base",
        "",
        "../hosts/fleet.toml",
        "layers//base/motd",
        "/fleet.toml",
        "nowhere",
    ] {
        assert_eq!(read(path), None, "{path}");
    }
    assert_eq!(
        tree.list("").unwrap().unwrap(),
        [
            ("fleet.toml".to_owned(), EntryKind::File),
            ("layers".to_owned(), EntryKind::Directory),
            ("link".to_owned(), EntryKind::Symlink),
        ]
    );
    assert_eq!(tree.list("layers/base/motd").unwrap(), None);
    assert_eq!(tree.list("link").unwrap(), None);
}

#[test]
fn what_a_message_says_is_safe_to_show() {
    let mut world = World::new();
    let text = payload(world.tree, &[world.anchor], 2000).replace(
        "change something\n",
        "red \u{1b}[31malert\n\nBody: not a trailer, for\nthis line is none\n\nLimpet-Allow-Removals: 40\nSigned-off-by: Tess\n  Ter <t@e>\n",
    );
    let tip = world.store.add(
        ObjectKind::Commit,
        with_signature(&text, &world.alice.armor(&text)),
    );
    let Verdict::Accepted(revision) = verify(&world.store, &world.policy, None, tip, now()) else {
        panic!("not accepted");
    };
    assert_eq!(revision.subject(), "red \\u{1b}[31malert");
    assert_eq!(
        revision.trailers(),
        [
            ("Limpet-Allow-Removals".to_owned(), "40".to_owned()),
            ("Signed-off-by".to_owned(), "Tess Ter <t@e>".to_owned()),
        ]
    );
}
