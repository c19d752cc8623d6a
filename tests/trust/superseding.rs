//! History that was rewritten on purpose, with the old root's word for it.

use crate::Bench;
use crate::policy::{Court, RULES};
use crate::repository::Key;

/// A trusted revision whose policy is of `rules`, and an empty branch `new` without its history.
fn court(rules: &str) -> (Court, String) {
    let mut court = Court::with(rules);
    let trusted = court.alice("what hosts trust");
    court.bench.trust(&trusted);
    let repository = &court.bench.repository;
    repository.git(&["checkout", "-q", "--orphan", "new"]);
    let payload = repository.payload_sha256(&trusted);
    (court, payload)
}

/// The first commit of the new history, by `key`, in the place of the revision with this payload.
fn supersede(court: &Court, key: &Key, payload: &str) -> String {
    let message = format!("begin again\n\nLimpet-Supersedes: sha256:{payload}");
    court.bench.repository.commit(key, &message)
}

#[test]
fn the_old_root_leads_to_a_new_history() {
    let (court, payload) = court(RULES);
    supersede(&court, &court.bench.alice, &payload);
    court.accepts();
    court.put("layers/site/motd");
    court.bob("go on");
    court.accepts();
    court.put("layers/base/motd");
    court.bob("the new policy counts");
    court.refuses("out-of-scope");
}

#[test]
fn nobody_else_does() {
    for rules in [
        RULES,
        "[root]\nkeys = [\"alice\"]\n[[allow]]\nkeys = [\"bob\"]\npaths = [\"**\"]\n",
    ] {
        let (court, payload) = court(rules);
        supersede(&court, &court.bench.bob, &payload);
        court.refuses("out-of-scope");
    }
    let (court, payload) = court(RULES);
    supersede(&court, &court.bench.mallory, &payload);
    court.refuses("unknown-key");
}

#[test]
fn who_becomes_root_in_the_new_history_was_none_in_the_old() {
    let (mut court, payload) = court(RULES);
    court.change(&RULES.replace("[\"alice\"]", "[\"bob\"]"));
    supersede(&court, &court.bench.bob, &payload);
    court.refuses("out-of-scope");
}

#[test]
fn it_is_for_the_revision_that_it_names() {
    let (court, _) = court(RULES);
    supersede(&court, &court.bench.alice, &"0".repeat(64));
    court.bench.check("HEAD", "diverged", 77);
}

#[test]
fn it_takes_as_many_root_keys_as_a_change_of_the_policy() {
    let (court, payload) = court("[root]\nkeys = [\"alice\", \"bob\"]\nthreshold = 2\n");
    let claim = supersede(&court, &court.bench.alice, &payload);
    court.waits();
    court.approve(&court.carol, &claim);
    court.waits();
    court.approve(&court.bench.bob, &claim);
    court.accepts();
}

#[test]
fn the_new_history_has_a_policy_that_could_follow_the_old_one() {
    let revoking = format!("{RULES}[[revoked]]\nkey = \"carol\"\nreason = \"compromised\"\n");
    let (mut court, payload) = court(&revoking);
    court.change(RULES);
    supersede(&court, &court.bench.alice, &payload);
    court.refuses("policy-invalid");
    court.version += 3;
    court.change(&revoking);
    court
        .bench
        .repository
        .git(&["commit", "-q", "--amend", "--no-edit", "--no-gpg-sign"]);
    let message = format!("begin again\n\nLimpet-Supersedes: sha256:{payload}");
    court.bench.repository.git(&["update-ref", "-d", "HEAD"]);
    court.bench.repository.commit(&court.bench.alice, &message);
    court.accepts();
    court.bench.repository.remove("trust.toml");
    court.bench.repository.git(&["update-ref", "-d", "HEAD"]);
    court.bench.repository.commit(&court.bench.alice, &message);
    court.refuses("policy-invalid");
}

#[test]
fn it_is_of_the_same_fleet() {
    let (court, payload) = court(RULES);
    court
        .bench
        .repository
        .write("fleet.toml", "format = 1\nfleet = \"other\"\n");
    supersede(&court, &court.bench.alice, &payload);
    court.refuses("wrong-fleet");
}

#[test]
fn a_key_that_was_revoked_in_the_old_history_counts_in_no_other() {
    let revoking = format!("{RULES}[[revoked]]\nkey = \"carol\"\nreason = \"compromised\"\n");
    let (court, payload) = court(&revoking);
    supersede(&court, &court.bench.alice, &payload);
    court.bench.repository.commit(&court.carol, "hello");
    court.refuses("key-revoked");
}

#[test]
fn without_a_policy_there_is_no_root() {
    let mut bench = Bench::new();
    let trusted = bench.repository.commit(&bench.alice, "what hosts trust");
    bench.trust(&trusted);
    bench.repository.git(&["checkout", "-q", "--orphan", "new"]);
    let payload = bench.repository.payload_sha256(&trusted);
    let message = format!("begin again\n\nLimpet-Supersedes: sha256:{payload}");
    bench.repository.commit(&bench.alice, &message);
    bench.check("HEAD", "diverged", 77);
}
