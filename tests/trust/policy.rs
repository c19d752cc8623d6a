//! trust.toml: who may change what, from the predecessor's policy; what may follow it; approvals, channels and revocation.

use crate::repository::Key;
use crate::{Answer, Bench};

/// A repository whose anchor carries a policy: alice is root, bob may change what is below `layers/site`.
pub struct Court {
    pub bench: Bench,
    pub carol: Key,
    pub version: u64,
    /// What stands in the policy beside version and keys.
    rules: String,
    /// Lines of `[key]` beside those of alice, bob and carol.
    pub more_keys: String,
}

pub const RULES: &str =
    "[root]\nkeys = [\"alice\"]\n[[allow]]\nkeys = [\"bob\"]\npaths = [\"layers/site/**\"]\n";

impl Court {
    pub fn new() -> Self {
        Court::with(RULES)
    }

    pub fn with(rules: &str) -> Self {
        let bench = Bench::new();
        let carol = bench.repository.key("carol");
        let mut court = Court {
            bench,
            carol,
            version: 0,
            rules: rules.to_owned(),
            more_keys: String::new(),
        };
        court.write();
        let id = court.bench.repository.commit(&court.bench.alice, "policy");
        court.bench.anchor = id;
        court
    }

    pub fn text(&self) -> String {
        format!(
            "version = {}\n[key]\nalice = \"{}\"\nbob = \"{}\"\ncarol = \"{}\"\n{}{}",
            self.version,
            self.bench.alice.public,
            self.bench.bob.public,
            self.carol.public,
            self.more_keys,
            self.rules
        )
    }

    /// Writes the next version of the policy and stages it.
    pub fn write(&mut self) {
        self.version += 1;
        self.bench.repository.write("trust.toml", &self.text());
    }

    pub fn change(&mut self, rules: &str) {
        rules.clone_into(&mut self.rules);
        self.write();
    }

    pub fn alice(&self, message: &str) -> String {
        self.bench.repository.commit(&self.bench.alice, message)
    }

    pub fn bob(&self, message: &str) -> String {
        self.bench.repository.commit(&self.bench.bob, message)
    }

    fn carol(&self, message: &str) -> String {
        self.bench.repository.commit(&self.carol, message)
    }

    pub fn put(&self, path: &str) {
        self.bench.repository.write(path, path);
    }

    /// An empty commit by `key` that approves `revision`.
    pub fn approve(&self, key: &Key, revision: &str) -> String {
        let payload = self.bench.repository.payload_sha256(revision);
        let message = format!("approve\n\nLimpet-Approve: sha256:{payload}");
        self.bench.repository.commit(key, &message)
    }

    #[track_caller]
    pub fn accepts(&self) -> Answer {
        self.bench.accepts("HEAD")
    }

    #[track_caller]
    pub fn refuses(&self, rule: &str) -> Answer {
        self.bench.refuses("HEAD", rule)
    }

    #[track_caller]
    pub fn waits(&self) -> Answer {
        let answer = self.bench.check("HEAD", "pending", 75);
        assert_eq!(answer.text("rule"), "pending-approval");
        answer
    }
}

#[test]
fn a_key_changes_what_it_may_and_nothing_else() {
    let court = Court::new();
    court.put("layers/site/motd");
    court.bob("within");
    court.accepts();
    court.put("layers/base/motd");
    let tip = court.bob("outside");
    let answer = court.refuses("out-of-scope");
    assert_eq!(answer.text("path"), "layers/base/motd");
    assert_eq!(answer.text("commit"), tip);
    insta::assert_snapshot!(answer.text("detail"), @"signer 'bob' may not change 'layers/base/motd': no [[allow]] of 'trust.toml' covers it for that key");
}

#[test]
fn a_root_key_changes_everything() {
    let court = Court::new();
    court.put("layers/base/motd");
    court.alice("anything");
    court.accepts();
}

#[test]
fn a_listed_key_without_rights_changes_nothing_but_may_sign_an_empty_commit() {
    let court = Court::new();
    court.carol("nothing");
    court.accepts();
    court.put("layers/site/motd");
    court.carol("something");
    court.refuses("out-of-scope");
}

#[test]
fn removing_renaming_and_another_mode_are_changes() {
    let court = Court::new();
    court.put("layers/base/a");
    court.put("layers/site/b");
    let start = court.alice("files");
    let repository = &court.bench.repository;
    repository.remove("layers/base/a");
    court.bob("remove");
    court.refuses("out-of-scope");
    repository.reset(&start);
    repository.git(&["mv", "layers/base/a", "layers/site/a"]);
    court.bob("take away");
    court.refuses("out-of-scope");
    repository.reset(&start);
    repository.git(&["mv", "layers/site/b", "layers/base/b"]);
    court.bob("put there");
    court.refuses("out-of-scope");
    repository.reset(&start);
    repository.git(&["update-index", "--chmod=+x", "layers/base/a"]);
    court.bob("mode");
    court.refuses("out-of-scope");
    repository.reset(&start);
    repository.git(&["update-index", "--chmod=+x", "trust.toml"]);
    court.bob("mode of the policy");
    court.refuses("out-of-scope");
    repository.reset(&start);
    repository.symlink("layers/site/link", "../base/a");
    court.bob("a link within");
    court.accepts();
}

#[test]
fn who_merges_vouches_for_what_is_merged() {
    let court = Court::new();
    let start = court.bench.repository.id("HEAD");
    let repository = &court.bench.repository;
    repository.branch("feature", &start);
    court.put("layers/base/motd");
    repository.commit_unsigned("by somebody");
    repository.checkout("main");
    repository.merge(&court.bench.bob, "feature");
    court.refuses("out-of-scope");
    repository.reset(&start);
    repository.merge(&court.bench.alice, "feature");
    court.accepts();
}

#[test]
fn nobody_grants_himself_rights() {
    let mut court = Court::new();
    let rules = RULES.replace("layers/site/**", "**");
    court.change(&rules);
    court.put("layers/base/motd");
    court.bob("all mine");
    let answer = court.refuses("out-of-scope");
    assert_eq!(answer.text("path"), "layers/base/motd");
    court.bench.repository.reset("HEAD~1");
    court.version = 1;
    court.change(&rules);
    court.bob("only the policy");
    let answer = court.refuses("out-of-scope");
    assert_eq!(answer.text("path"), "trust.toml");
}

#[test]
fn rights_that_root_grants_count_from_the_next_commit_on() {
    let mut court = Court::new();
    court.change(&RULES.replace("layers/site/**", "**"));
    court.alice("more for bob");
    court.put("layers/base/motd");
    court.bob("use it");
    court.accepts();
}

#[test]
fn rights_that_root_took_away_count_for_what_was_before() {
    let mut court = Court::new();
    court.put("layers/site/motd");
    court.bob("before");
    court.change("[root]\nkeys = [\"alice\"]\n");
    court.alice("no more");
    court.accepts();
    court.put("layers/site/issue");
    court.bob("after");
    court.refuses("out-of-scope");
}

#[test]
fn a_key_that_is_not_in_the_policy_counts_for_nothing_whatever_the_host_says() {
    let mut court = Court::new();
    let mallory = court.bench.mallory.allowed();
    let lines = [court.bench.alice.allowed(), mallory];
    court.bench.allow(&lines);
    court.bench.repository.commit(&court.bench.mallory, "hello");
    court.refuses("unknown-key");
}

#[test]
fn the_hosts_signers_are_not_read_any_more_but_its_revoked_file_is() {
    let mut court = Court::new();
    court.bench.allow(&["nonsense\n".to_owned()]);
    court.put("layers/site/motd");
    court.bob("within");
    court.accepts();
    let fingerprint = format!("{}\n", court.bench.bob.fingerprint);
    court.bench.revoked = court.bench.repository.file("revoked", &fingerprint);
    court.refuses("key-revoked");
}

#[test]
fn a_repository_gains_its_first_policy_by_an_allowed_signer() {
    let mut court = Court::new();
    court.bench.anchor = court.bench.repository.id("HEAD~1");
    court.accepts();
    court.bench.repository.reset("HEAD~1");
    court.version = 1;
    court.write();
    court.alice("it starts at two");
    court.refuses("policy-invalid");
    court.bench.repository.reset("HEAD~1");
    court.version = 0;
    court.write();
    court.bench.repository.commit(&court.bench.mallory, "mine");
    court.refuses("unknown-key");
}

#[test]
fn a_changed_policy_counts_on_by_one() {
    for (version, is_good) in [
        (0, false),
        (1, false),
        (2, true),
        (3, false),
        (u64::MAX >> 1, false),
    ] {
        let mut court = Court::new();
        court.version = version - u64::from(version > 0);
        if version > 0 {
            court.change(&format!("{RULES}# a remark\n"));
        } else {
            let text = court.text().replace("version = 1", "version = 0");
            court.bench.repository.write("trust.toml", &text);
        }
        court.alice("again");
        match is_good {
            true => court.accepts(),
            false => court.refuses("policy-invalid"),
        };
    }
}

#[test]
fn a_policy_is_never_removed() {
    let court = Court::new();
    court.bench.repository.remove("trust.toml");
    court.alice("no policy");
    let answer = court.refuses("policy-invalid");
    insta::assert_snapshot!(answer.text("detail"), @"it removes 'trust.toml'");
    // Nor is what is in its place a directory or a link.
    court.bench.repository.symlink("trust.toml", "fleet.toml");
    court
        .bench
        .repository
        .git(&["commit", "-q", "--amend", "-m", "x", "--no-gpg-sign"]);
    court.alice("a link");
    court.refuses("policy-invalid");
}

#[test]
fn a_policy_with_a_mistake_is_refused_with_its_line() {
    #[track_caller]
    fn check(rules: &str, detail: &str) {
        let mut court = Court::new();
        court.change(rules);
        court.alice("change");
        let answer = court.refuses("policy-invalid");
        assert_eq!(answer.text("detail"), detail);
        assert_eq!(answer.text("path"), "trust.toml");
    }
    let root = "[root]\nkeys = [\"alice\"]\n";
    check("", "trust.toml:1:1: missing table `root` in trust.toml");
    check(
        "[root]\nkeys = []\n",
        "trust.toml:6:2: [root] names no keys",
    );
    check(
        "[root]\nkeys = [\"alise\"]\n",
        "trust.toml:7:9: trust.toml has no key 'alise'",
    );
    check(
        "[root]\nkeys = [\"alice\", \"alice\"]\n",
        "trust.toml:7:18: the key 'alice' is named twice",
    );
    check(
        "[root]\nkeys = [\"alice\"]\nthreshold = 0\n",
        "trust.toml:8:13: '0' is no number of signers",
    );
    check(
        "[root]\nkeys = [\"alice\"]\nthreshold = 2\n",
        "trust.toml:6:2: it asks for 2 signers, and 1 of its keys can sign",
    );
    check(
        &format!("{root}[[protect]]\npaths = [\"**\"]\nthreshold = 4\n"),
        "trust.toml:8:1: it asks for 4 signers, and 3 of its keys can sign",
    );
    check(
        &format!("{root}[[allow]]\nkeys = [\"bob\"]\n"),
        "trust.toml:8:1: [[allow]] names no paths",
    );
    check(
        &format!("{root}[[allow]]\nkeys = [\"bob\"]\npaths = [\"/etc\"]\n"),
        "trust.toml:10:10: '/etc' is no path below trust.toml's directory",
    );
    check(
        &format!("{root}[[allow]]\nkeys = [\"bob\"]\npaths = [\"a/../b\"]\n"),
        "trust.toml:10:10: 'a/../b' is no path below trust.toml's directory",
    );
    check(
        &format!("{root}[[allow]]\nkeys = [\"bob\"]\npaths = [\"a**\"]\n"),
        "trust.toml:10:10: invalid pattern for paths: recursive wildcards must form a single path component",
    );
    check(
        &format!("{root}[[limit]]\npaths = [\"**\"]\nresources = [\"services:*\"]\n"),
        "trust.toml:10:14: 'services:*' is no resource",
    );
    check(
        &format!("{root}[[revoked]]\nkey = \"dave\"\nreason = \"retired\"\n"),
        "trust.toml:9:7: 'dave' is neither a key nor a fingerprint",
    );
    check(
        &format!("{root}[[revoked]]\nkey = \"bob\"\n"),
        "trust.toml:8:1: [[revoked]] needs `key` and `reason`",
    );
    check(
        &format!("{root}[rot]\n"),
        "trust.toml:8:2: unknown field `rot` in trust.toml, expected `root`",
    );
    check("[root\n", "trust.toml:6:6: unclosed table, expected `]`");
}

#[test]
fn a_key_of_a_policy_is_a_good_one_and_has_one_name() {
    #[track_caller]
    fn check(line: impl Fn(&Court) -> String, detail: &str) {
        let mut court = Court::new();
        court.more_keys = line(&court);
        court.write();
        court.alice("change");
        let answer = court.refuses("policy-invalid");
        assert_eq!(answer.text("detail"), detail);
    }
    check(
        |court| format!("dave = \"{}\"\n", court.bench.bob.public),
        "trust.toml:6:8: the key of 'dave' is also that of 'bob'",
    );
    check(
        |_| "dave = \"ssh-ed25519 AAAA\"\n".to_owned(),
        "trust.toml:6:8: the key of 'dave' does not count: the key is malformed: it ends too early",
    );
    check(
        |court| {
            let weak = court
                .bench
                .repository
                .key_of_type("dave", &["-t", "rsa", "-b", "2048"]);
            format!("dave = \"{}\"\n", weak.public)
        },
        "trust.toml:6:8: the key of 'dave' does not count: it is RSA with 2048 bits, at least 3072 are needed",
    );
    check(
        |court| {
            let key = court.bench.repository.key("dave");
            format!(
                "dave = {{ key = \"{}\", not_after = \"2030-01-01\" }}\n",
                key.public
            )
        },
        "trust.toml:6:112: '2030-01-01' is no time in UTC",
    );
    check(
        |court| {
            let key = court.bench.repository.key("dave");
            format!("\"da ve\" = \"{}\"\n", key.public)
        },
        "trust.toml:6:1: 'da ve' is no name of a key",
    );
}

#[test]
fn a_revocation_is_never_taken_back() {
    let mut court = Court::new();
    let revoking = format!("{RULES}[[revoked]]\nkey = \"carol\"\nreason = \"compromised\"\n");
    court.change(&revoking);
    court.alice("carol is out");
    court.accepts();
    court.change(RULES);
    court.alice("carol is in");
    let answer = court.refuses("policy-invalid");
    insta::assert_snapshot!(answer.text("detail"), @"trust.toml:1:1: the revocation of 'carol' (compromised) is never taken back");
    court.bench.repository.reset("HEAD~1");
    court.version = 2;
    court.change(&revoking.replace("compromised", "retired"));
    court.alice("carol is only retired");
    court.refuses("policy-invalid");
    // The key may leave the list; the revocation stays, by the name it had.
    court.bench.repository.reset("HEAD~1");
    court.version = 3;
    let text = court
        .text()
        .replace(&format!("carol = \"{}\"\n", court.carol.public), "");
    let text = text
        .replace(RULES, &revoking)
        .replace("retired", "compromised");
    court.bench.repository.write("trust.toml", &text);
    court.alice("carol is gone");
    court.accepts();
}

#[test]
fn a_compromised_key_counts_at_no_depth_whatever_its_date() {
    let mut court = Court::with(&RULES.replace("[\"bob\"]", "[\"bob\", \"carol\"]"));
    court.bench.repository.set_date("2020-01-01T00:00:00Z");
    court.put("layers/site/motd");
    let early = court.carol("long ago");
    let rules = court.rules.clone();
    court.change(&format!(
        "{rules}[[revoked]]\nkey = \"carol\"\nreason = \"compromised\"\n"
    ));
    court.alice("carol is out");
    let answer = court.refuses("key-revoked");
    assert_eq!(answer.text("commit"), early);
    // What was trusted before stays so.
    court.bench.trust(&early);
    court.accepts();
}

#[test]
fn a_retired_key_needs_the_word_of_a_later_one() {
    let mut court = Court::with(&RULES.replace("[\"bob\"]", "[\"bob\", \"carol\"]"));
    court.put("layers/site/motd");
    court.carol("before");
    let rules = court.rules.clone();
    court.change(&format!(
        "{rules}[[revoked]]\nkey = \"carol\"\nreason = \"retired\"\n"
    ));
    court.alice("carol leaves");
    court.accepts();
    court.put("layers/site/issue");
    court.carol("after");
    let answer = court.refuses("key-expired");
    assert!(
        answer.text("detail").contains("is retired"),
        "{}",
        answer.json
    );
}

#[test]
fn a_key_expires() {
    let mut court = Court::new();
    let expired = |court: &Court, end: &str| {
        court.text().replace(
            &format!("bob = \"{}\"", court.bench.bob.public),
            &format!(
                "bob = {{ key = \"{}\", not_after = \"{end}\" }}",
                court.bench.bob.public
            ),
        )
    };
    court.version = 2;
    let text = expired(&court, "2026-01-01T00:00:00Z");
    court.bench.repository.write("trust.toml", &text);
    court.alice("bob's key ends");
    court.put("layers/site/motd");
    court.bob("too late");
    court.refuses("key-expired");
    // A later commit by somebody who may change the same stands for it.
    court.carol("I may not change that");
    court.refuses("key-expired");
    court.alice("I may");
    court.accepts();
    // Or the key gets more time, and signs again.
    court.bench.repository.reset("HEAD~2");
    court.version = 3;
    let text = expired(&court, "2096-01-01T00:00:00Z");
    court.bench.repository.write("trust.toml", &text);
    court.alice("more time");
    court.put("layers/site/issue");
    court.bob("in time");
    court.accepts();
}

#[test]
fn an_approval_by_a_key_that_has_expired_needs_another_to_stand_for_it() {
    let rules = "[root]\nkeys = [\"alice\"]\n[[allow]]\nkeys = [\"bob\"]\npaths = [\"layers/**\"]\n[[protect]]\npaths = [\"layers/base/**\"]\nthreshold = 2\n";
    let mut court = Court::with(rules);
    let old = court.bench.repository.key("old");
    court.more_keys = format!(
        "old = {{ key = \"{}\", not_after = \"2026-01-01T00:00:00Z\" }}\n",
        old.public
    );
    court.write();
    court.bench.anchor = court.alice("old has signed here for years");
    let base = court.bench.repository.id("HEAD");
    court.put("layers/base/motd");
    let change = court.bob("say hello");
    court.approve(&old, &change);
    court.bob("more");
    court.refuses("key-expired");
    court.alice("as it was");
    court.accepts();

    // On a branch that is merged it is the same.
    let repository = &court.bench.repository;
    repository.checkout(&base);
    repository.branch("feature", &base);
    court.put("layers/base/issue");
    let change = court.bob("say more");
    court.approve(&old, &change);
    let repository = &court.bench.repository;
    repository.checkout("main");
    repository.reset(&base);
    repository.merge(&court.bench.bob, "feature");
    court.refuses("key-expired");
    court.alice("as it was");
    court.accepts();
}

#[test]
fn a_threshold_counts_only_keys_that_can_sign() {
    let rules = format!("{RULES}[[protect]]\npaths = [\"layers/base/**\"]\nthreshold = 3\n");
    let mut court = Court::with(&rules);
    court.accepts();
    court.change(&format!(
        "{rules}[[revoked]]\nkey = \"carol\"\nreason = \"retired\"\n"
    ));
    court.alice("carol leaves");
    let answer = court.refuses("policy-invalid");
    insta::assert_snapshot!(answer.text("detail"), @"trust.toml:11:1: it asks for 3 signers, and 2 of its keys can sign");
}

#[test]
fn a_new_key_proves_that_somebody_holds_it_before_it_is_used() {
    let mut court = Court::new();
    let dave = court.bench.repository.key("dave");
    let rules = RULES.replace("[\"bob\"]", "[\"bob\", \"dave\"]");
    court.more_keys = format!("dave = \"{}\"\n", dave.public);
    court.change(&rules);
    let added = court.alice("welcome");
    // The commit after the one that adds it may be its own, whatever it changes.
    court.put("layers/site/motd");
    court.bench.repository.commit(&dave, "hello");
    court.accepts();
    // Later it proves itself with an empty one.
    court.bench.repository.reset(&added);
    court.alice("something else");
    court.put("layers/site/motd");
    court.bench.repository.commit(&dave, "hello");
    let answer = court.refuses("policy-invalid");
    insta::assert_snapshot!(answer.text("detail"), @"the key 'dave' is used before it has proved that somebody holds it");
    court.bench.repository.reset("HEAD~1");
    court.bench.repository.commit(&dave, "here I am");
    court.put("layers/site/motd");
    court.bench.repository.commit(&dave, "hello");
    court.accepts();
}

#[test]
fn a_policy_does_not_rest_on_a_key_that_nobody_may_hold() {
    let mut court = Court::new();
    let dave = court.bench.repository.key("dave");
    court.more_keys = format!("dave = \"{}\"\n", dave.public);
    court.change(&RULES.replace("[\"alice\"]", "[\"dave\"]"));
    court.alice("dave takes over");
    court.refuses("policy-invalid");
    court.bench.repository.reset("HEAD~1");
    court.version = 1;
    court.change(RULES);
    court.alice("dave comes");
    court.bench.repository.commit(&dave, "here I am");
    court.change(&RULES.replace("[\"alice\"]", "[\"dave\"]"));
    court.alice("dave takes over");
    court.accepts();
    court.change(RULES);
    court.alice("alice is no root any more");
    court.refuses("out-of-scope");
}

#[test]
fn the_policy_itself_needs_as_many_root_keys_as_it_says() {
    let rules = "[root]\nkeys = [\"alice\", \"bob\"]\nthreshold = 2\n";
    let mut court = Court::with(rules);
    court.put("layers/base/motd");
    court.alice("one root key is enough for everything else");
    court.accepts();
    court.change(&format!("{rules}# a remark\n"));
    let change = court.alice("change the policy");
    let answer = court.waits();
    insta::assert_snapshot!(answer.text("detail"), @"a change of 'trust.toml' needs 2 signers (trust.toml:6:2): alice signed it, and it waits for 1 of: bob");
    court.approve(&court.carol, &change);
    court.waits();
    court.approve(&court.bench.alice, &change);
    court.waits();
    court.approve(&court.bench.bob, &change);
    court.accepts();
}

const PROTECTED: &str = "[root]\nkeys = [\"alice\"]\n[[allow]]\nkeys = [\"bob\"]\npaths = [\"layers/base/**\"]\n[[protect]]\npaths = [\"layers/base/sudoers*\"]\nthreshold = 2\n";

#[test]
fn a_protected_path_needs_several_signers_whoever_they_are() {
    let court = Court::with(PROTECTED);
    court.put("layers/base/motd");
    court.bob("not protected");
    court.accepts();
    court.put("layers/base/sudoers.toml");
    let change = court.bob("protected");
    let answer = court.waits();
    insta::assert_snapshot!(answer.text("detail"), @"a change of 'layers/base/sudoers.toml' needs 2 signers (trust.toml:11:1): bob signed it, and it waits for 1 of: alice, carol");
    court.approve(&court.carol, &change);
    court.accepts();
}

#[test]
fn root_alone_does_not_change_what_is_protected() {
    let court = Court::with(PROTECTED);
    court.put("layers/base/sudoers.toml");
    let change = court.alice("protected");
    court.waits();
    court.put("layers/base/motd");
    court.alice("more on top");
    court.waits();
    court.approve(&court.bench.bob, &change);
    court.accepts();
}

#[test]
fn an_approval_is_for_one_payload() {
    let court = Court::with(PROTECTED);
    court.put("layers/base/sudoers.toml");
    let first = court.bob("protected");
    court
        .bench
        .repository
        .write("layers/base/sudoers.toml", "other");
    court.bob("again");
    court.approve(&court.carol, &first);
    court.waits();
    court.approve(&court.carol, "HEAD~1");
    court.accepts();
}

#[test]
fn an_approval_changes_nothing_and_is_signed() {
    let court = Court::with(PROTECTED);
    court.put("layers/base/sudoers.toml");
    let change = court.bob("protected");
    let payload = court.bench.repository.payload_sha256(&change);
    let message = format!("approve\n\nLimpet-Approve: sha256:{payload}");
    court.put("layers/base/motd");
    court.alice(&message);
    court.waits();
    court.bench.repository.reset(&change);
    court.bench.repository.git(&[
        "commit",
        "-q",
        "--allow-empty",
        "--no-gpg-sign",
        "-m",
        &message,
    ]);
    court.refuses("unsigned");
    court.bench.repository.reset(&change);
    court
        .bench
        .repository
        .commit(&court.bench.mallory, &message);
    court.refuses("unknown-key");
    // It is a line at the end, and says the whole hash.
    court.bench.repository.reset(&change);
    court.carol(&format!("Limpet-Approve: sha256:{payload}\n\nand more"));
    court.waits();
    court.carol(&format!(
        "approve\n\nLimpet-Approve: sha256:{}",
        &payload[..40]
    ));
    court.waits();
    court.carol(&format!("approve\n\nlimpet-approve: sha256:{payload}"));
    court.accepts();
}

#[test]
fn an_approval_may_lie_on_the_branch_that_is_merged() {
    let court = Court::with(PROTECTED);
    let start = court.bench.repository.id("HEAD");
    let repository = &court.bench.repository;
    repository.branch("feature", &start);
    court.put("layers/base/sudoers.toml");
    let change = court.bob("protected");
    court.approve(&court.carol, &change);
    repository.checkout("main");
    repository.merge(&court.bench.bob, "feature");
    // The merge changes something protected with one signer; the branch it merges was signed by two.
    court.accepts();
    repository.reset(&start);
    court.put("layers/base/motd");
    court.alice("meanwhile");
    repository.merge(&court.bench.alice, "feature");
    court.accepts();
    repository.reset("HEAD~1");
    repository.merge(&court.bench.alice, &change);
    court.waits();
    court.approve(&court.bench.bob, "HEAD");
    court.accepts();
}

#[test]
fn a_revoked_key_approves_nothing() {
    let mut court = Court::with(PROTECTED);
    court.change(&format!(
        "{PROTECTED}[[revoked]]\nkey = \"carol\"\nreason = \"retired\"\n"
    ));
    court.alice("carol leaves");
    court.put("layers/base/sudoers.toml");
    let change = court.bob("protected");
    court.bench.repository.branch("side", &change);
    court.approve(&court.carol, &change);
    court.bench.repository.checkout("main");
    court.bench.repository.merge(&court.bench.alice, "side");
    court.waits();
}

#[test]
fn a_channel_is_named_by_the_tip_or_held_by_its_key() {
    let mut court = Court::with(&format!(
        "{RULES}[[allow]]\nkeys = [\"carol\"]\nchannels = [\"prod\"]\n"
    ));
    court.bench.options = vec!["--channel".into(), "prod".into()];
    court.put("layers/base/motd");
    court.alice("no channel");
    let answer = court.refuses("wrong-channel");
    insta::assert_snapshot!(answer.text("detail"), @"it is released in no channel, and this host takes 'prod'");
    court.alice("x\n\nLimpet-Channel: staging");
    court.refuses("wrong-channel");
    court.alice("x\n\nLimpet-Channel: prod\nLimpet-Channel: staging");
    court.refuses("wrong-channel");
    court.alice("x\n\nLimpet-Channel: prod\nLimpet-Channel: prod");
    court.refuses("wrong-channel");
    court.alice("x\n\nLimpet-Channel: prod");
    court.accepts();
    court.alice("on top, for nobody");
    court.refuses("wrong-channel");
    court.carol("released");
    court.accepts();
    court.bench.options = vec!["--channel".into(), "staging".into()];
    court.refuses("wrong-channel");
}

#[test]
fn without_a_policy_a_channel_is_named_by_the_tip() {
    let mut bench = Bench::new();
    bench.options = vec!["--channel".into(), "prod".into()];
    bench.repository.commit(&bench.alice, "x");
    bench.refuses("HEAD", "wrong-channel");
    bench
        .repository
        .commit(&bench.alice, "x\n\nLimpet-Channel: prod");
    bench.accepts("HEAD");
}

#[test]
fn only_the_tip_is_judged_in_head_mode_but_by_what_it_changes_in_all() {
    let mut court = Court::new();
    court.bench.options = vec!["--mode".into(), "head".into()];
    court.put("layers/base/motd");
    court.bench.repository.commit_unsigned("by somebody");
    court.put("layers/site/motd");
    court.bob("on top");
    court.refuses("out-of-scope");
    court.alice("I stand for it");
    court.accepts();
}

#[test]
fn what_lies_outside_of_the_fleets_directory_is_anybodys() {
    let court = Court::new();
    court.put("docs/readme");
    court.bob("documentation");
    court.refuses("out-of-scope");
}
