//! A second, naive reading of the rules for histories, and ten thousand random ones on which both must agree.
//!
//! The model knows no objects: a commit is its parents, its signer and what is in its tree. It tries every way from the tip to the
//! trusted head, first parents first, takes the first whose steps are all allowed, and then asks what is asked of a whole way.

use std::collections::{BTreeMap, BTreeSet};

use super::fixture::{Key, Store, now, policy, with_signature, word_of};
use super::*;
use crate::git::ObjectKind;

const PATHS: [&str; 4] = ["a/x", "a/y", "b/x", "c"];
const PATTERNS: [&str; 5] = ["a/*", "a/x", "b/**", "c", "**"];
const KEYS: usize = 4;
const NAMES: [&str; KEYS] = ["k0", "k1", "k2", "k3"];

fn covers(pattern: &str, path: &str) -> bool {
    match pattern {
        "a/*" => path.starts_with("a/"),
        "b/**" => path.starts_with("b/"),
        "**" => true,
        exact => exact == path,
    }
}

/// Numbers that look random and are the same for one seed (Numerical Recipes' ranqd1, twice as wide).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.roll(times) == 0
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rules {
    version: usize,
    is_broken: bool,
    /// The keys that are listed; whether they have expired.
    keys: BTreeMap<usize, bool>,
    root: BTreeSet<usize>,
    threshold: usize,
    allowed: Vec<(usize, &'static str)>,
    protected: Vec<(&'static str, usize)>,
    revoked: BTreeMap<usize, Reason>,
}

impl Rules {
    fn first(dice: &mut Dice) -> Rules {
        let mut rules = Rules {
            version: 1,
            is_broken: false,
            keys: (0..KEYS - 1).map(|key| (key, false)).collect(),
            root: BTreeSet::from([0]),
            threshold: 1,
            allowed: vec![(1, "a/*")],
            protected: Vec::new(),
            revoked: BTreeMap::new(),
        };
        for _ in 0..dice.roll(3) {
            rules.change(dice);
            rules.version = 1;
            rules.is_broken = false;
        }
        rules
    }

    fn change(&mut self, dice: &mut Dice) {
        self.version += match dice.roll(8) {
            0 => 0,
            1 => 2,
            _ => 1,
        };
        let key = dice.roll(KEYS);
        let is_listed = self.keys.contains_key(&key);
        match dice.roll(10) {
            0 => {
                self.keys.insert(key, dice.once_in(3));
            }
            1 if is_listed && self.root.len() > 1 => {
                self.root.remove(&key);
            }
            2 | 3 if is_listed => {
                self.root.insert(key);
            }
            4 => self.threshold = 1 + dice.roll(2),
            5 | 6 if is_listed => self.allowed.push((key, PATTERNS[dice.roll(5)])),
            7 => self
                .protected
                .push((PATTERNS[dice.roll(5)], 1 + dice.roll(3))),
            8 if is_listed => {
                let reason = [Reason::Retired, Reason::Compromised][dice.roll(2)];
                self.revoked.insert(key, reason);
            }
            9 => {
                self.revoked.remove(&key);
                self.is_broken = dice.once_in(3);
            }
            _ => {}
        }
    }

    fn text(&self, keys: &[Key]) -> String {
        if self.is_broken {
            return format!("version = {}\n", self.version);
        }
        let quoted = |names: Vec<usize>| {
            let names: Vec<String> = names
                .iter()
                .map(|key| format!("\"{}\"", NAMES[*key]))
                .collect();
            names.join(", ")
        };
        let mut text = format!("version = {}\n[key]\n", self.version);
        for (&key, &has_expired) in &self.keys {
            let end = match has_expired {
                true => ", not_after = \"2026-01-01T00:00:00Z\"",
                false => "",
            };
            text += &format!(
                "{} = {{ key = \"{}\"{end} }}\n",
                NAMES[key],
                keys[key].public()
            );
        }
        let root = quoted(self.root.iter().copied().collect());
        text += &format!("[root]\nkeys = [{root}]\nthreshold = {}\n", self.threshold);
        for (key, pattern) in &self.allowed {
            text += &format!(
                "[[allow]]\nkeys = [{}]\npaths = [\"{pattern}\"]\n",
                quoted(vec![*key])
            );
        }
        for (pattern, threshold) in &self.protected {
            text += &format!("[[protect]]\npaths = [\"{pattern}\"]\nthreshold = {threshold}\n");
        }
        for (key, reason) in &self.revoked {
            text += &format!(
                "[[revoked]]\nkey = \"{}\"\nreason = \"{reason}\"\n",
                NAMES[*key]
            );
        }
        text
    }

    fn may_change(&self, key: usize, path: &str) -> bool {
        self.root.contains(&key)
            || self
                .allowed
                .iter()
                .any(|(allowed, pattern)| *allowed == key && covers(pattern, path))
    }

    fn asks_too_much(
        &self,
        revoked: &BTreeMap<usize, Reason>,
        unproven: &BTreeSet<usize>,
        with_time: bool,
    ) -> bool {
        let counts = |key: &&usize| {
            let expiry = self.keys.get(key);
            expiry.is_some_and(|has_expired| !with_time || !has_expired)
                && !revoked.contains_key(key)
        };
        let all = self.keys.keys().filter(counts).count();
        let root = self.root.iter().filter(counts);
        root.filter(|key| !unproven.contains(key)).count() < self.threshold
            || self.protected.iter().any(|(_, threshold)| all < *threshold)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    files: BTreeMap<&'static str, usize>,
    rules: Option<Rules>,
}

#[derive(Debug)]
struct Made {
    parents: Vec<usize>,
    signer: Option<usize>,
    content: Content,
    approves: Option<usize>,
}

/// A random history; its first commit is trusted.
struct History {
    commits: Vec<Made>,
}

impl History {
    fn random(seed: u64) -> History {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995);
        let files = PATHS.into_iter().map(|path| (path, 0)).collect();
        let rules = (!dice.once_in(5)).then(|| Rules::first(&mut dice));
        let mut commits = vec![Made {
            parents: Vec::new(),
            signer: Some(0),
            content: Content { files, rules },
            approves: None,
        }];
        for number in 1..=2 + dice.roll(6) {
            let newest = commits.len() - 1;
            let mut parents = vec![newest - dice.roll(newest.min(2) + 1).min(newest)];
            if dice.once_in(3) {
                let other = dice.roll(commits.len());
                if !parents.contains(&other) {
                    parents.push(other);
                }
            }
            let mut made = Made {
                content: commits[parents[0]].content.clone(),
                parents,
                signer: match dice.roll(12) {
                    0 => None,
                    roll => Some([0, 0, 0, 1, 1, 2, 2, 3][roll % 8]),
                },
                approves: None,
            };
            match dice.roll(10) {
                0 | 1 => {
                    made.parents.truncate(1);
                    made.approves = Some(dice.roll(number));
                    if dice.once_in(6) {
                        made.content.files.insert("c", number);
                    }
                }
                2..=4 => match &mut made.content.rules {
                    None => made.content.rules = Some(Rules::first(&mut dice)),
                    Some(_) if dice.once_in(10) => made.content.rules = None,
                    Some(rules) => rules.change(&mut dice),
                },
                5 => {}
                _ => {
                    made.content.files.insert(PATHS[dice.roll(4)], number);
                }
            }
            commits.push(made);
        }
        History { commits }
    }

    /// The same with real objects: their ids, in order.
    fn write(&self, store: &mut Store, keys: &[Key]) -> Vec<ObjectId> {
        let mut ids: Vec<ObjectId> = Vec::new();
        let mut payloads: Vec<String> = Vec::new();
        for (number, made) in self.commits.iter().enumerate() {
            let tree = write_tree(store, &made.content, keys);
            let parents: Vec<ObjectId> = made.parents.iter().map(|parent| ids[*parent]).collect();
            let mut payload = super::fixture::payload(tree, &parents, 1000 + number as i64);
            if let Some(approved) = made.approves {
                let hash =
                    ring::digest::digest(&ring::digest::SHA256, payloads[approved].as_bytes());
                payload += &format!("\n{}\n", approval_line(&hex(hash.as_ref())));
            }
            ids.push(match made.signer {
                Some(key) => store.add(
                    ObjectKind::Commit,
                    with_signature(&payload, &keys[key].armor(&payload)),
                ),
                None => store.add(ObjectKind::Commit, payload.clone()),
            });
            payloads.push(payload);
        }
        ids
    }

    /// Which commits are `tip` or before it.
    fn history_of(&self, tip: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open = vec![tip];
        while let Some(commit) = open.pop() {
            if found.insert(commit) {
                open.extend(&self.commits[commit].parents);
            }
        }
        found
    }

    /// What the model says of `tip`, where `trusted` is.
    fn verdict(&self, trusted: usize, tip: usize) -> &'static str {
        if trusted == tip {
            return "unchanged";
        }
        let tips = &self.commits[tip].content.rules;
        if tips.as_ref().is_some_and(|rules| rules.is_broken) {
            return "policy-invalid";
        }
        if self.history_of(trusted).contains(&tip) {
            return "behind";
        }
        if !self.history_of(tip).contains(&trusted) {
            return "diverged";
        }
        let start = &self.commits[trusted].content.rules;
        let mut compromised: BTreeSet<usize> = BTreeSet::new();
        for rules in start.iter().chain(tips) {
            let of_rules = rules.revoked.iter();
            compromised.extend(
                of_rules
                    .filter(|(_, reason)| **reason == Reason::Compromised)
                    .map(|(key, _)| *key),
            );
        }
        let between = self.history_of(tip);
        let between: BTreeSet<usize> = between
            .difference(&self.history_of(trusted))
            .copied()
            .collect();
        let approvals: BTreeSet<(usize, usize)> = between
            .iter()
            .filter_map(|commit| {
                let made = &self.commits[*commit];
                let is_empty = made.content == self.commits[*made.parents.first()?].content;
                let is_real = self.own(*commit, &compromised).is_ok()
                    && (made.parents[0] == trusted
                        || self.own(made.parents[0], &compromised).is_ok());
                (is_empty && is_real).then_some((made.approves?, made.signer?))
            })
            .collect();
        let mut trouble: Option<&'static str> = None;
        match self.find(trusted, tip, &compromised, &approvals, &mut trouble) {
            Some(way) => self.whole(trusted, &way, &compromised, &approvals),
            None => trouble.unwrap_or("unsigned"),
        }
    }

    /// What is wrong with a commit whatever it follows.
    fn own(&self, commit: usize, compromised: &BTreeSet<usize>) -> Result<usize, &'static str> {
        match self.commits[commit].signer {
            None => Err("unsigned"),
            Some(key) if compromised.contains(&key) => Err("key-revoked"),
            Some(key) => Ok(key),
        }
    }

    /// The first way from `commit` to `trusted`, the oldest step first.
    fn find(
        &self,
        trusted: usize,
        commit: usize,
        compromised: &BTreeSet<usize>,
        approvals: &BTreeSet<(usize, usize)>,
        trouble: &mut Option<&'static str>,
    ) -> Option<Vec<(usize, usize)>> {
        let note = |trouble: &mut Option<&'static str>, found| match trouble {
            Some(known) if *known == "pending" || found != "pending" => {}
            _ => *trouble = Some(found),
        };
        if let Err(found) = self.own(commit, compromised) {
            note(trouble, found);
            return None;
        }
        for &parent in &self.commits[commit].parents {
            if parent != trusted && !self.history_of(parent).contains(&trusted) {
                continue;
            }
            if parent != trusted && self.own(parent, compromised).is_err() {
                // What is wrong with the parent comes first.
                self.find(trusted, parent, compromised, approvals, trouble);
                continue;
            }
            if let Err(found) = self.step(parent, commit, approvals) {
                note(trouble, found);
                continue;
            }
            if parent == trusted {
                return Some(vec![(parent, commit)]);
            }
            if let Some(mut way) = self.find(trusted, parent, compromised, approvals, trouble) {
                way.push((parent, commit));
                return Some(way);
            }
        }
        None
    }

    fn demands(&self, parent: usize, commit: usize) -> Vec<(usize, BTreeSet<usize>)> {
        let (before, after) = (&self.commits[parent].content, &self.commits[commit].content);
        let Some(rules) = &before.rules else {
            return Vec::new();
        };
        let voters = |keys: &mut dyn Iterator<Item = &usize>| -> BTreeSet<usize> {
            keys.filter(|key| rules.keys.contains_key(key) && !rules.revoked.contains_key(key))
                .copied()
                .collect()
        };
        let mut changed = self.changed(parent, commit);
        if before.rules != after.rules {
            changed.push(POLICY_FILE);
        }
        let thresholds = rules.protected.iter().filter_map(|(pattern, threshold)| {
            changed
                .iter()
                .any(|path| covers(pattern, path))
                .then_some(*threshold)
        });
        let mut demands = Vec::new();
        if let Some(threshold) = thresholds.max() {
            demands.push((threshold, voters(&mut rules.keys.keys())));
        }
        if before.rules != after.rules {
            demands.push((rules.threshold, voters(&mut rules.root.iter())));
        }
        demands
    }

    fn changed(&self, parent: usize, commit: usize) -> Vec<&'static str> {
        let (before, after) = (&self.commits[parent].content, &self.commits[commit].content);
        let differs = |path: &&&str| before.files[**path] != after.files[**path];
        PATHS.iter().filter(differs).copied().collect()
    }

    fn signers(&self, commit: usize, approvals: &BTreeSet<(usize, usize)>) -> BTreeSet<usize> {
        let approved = approvals.iter().filter(|(approved, _)| *approved == commit);
        approved
            .map(|(_, key)| *key)
            .chain(self.commits[commit].signer)
            .collect()
    }

    /// Why `commit` may not follow `parent`, if so.
    fn step(
        &self,
        parent: usize,
        commit: usize,
        approvals: &BTreeSet<(usize, usize)>,
    ) -> Result<(), &'static str> {
        let (before, after) = (&self.commits[parent].content, &self.commits[commit].content);
        let key = self.commits[commit].signer.unwrap();
        if before.rules.as_ref().is_some_and(|rules| rules.is_broken) {
            return Err("policy-invalid");
        }
        match &before.rules {
            None if key == KEYS - 1 => return Err("unknown-key"),
            None => {}
            Some(rules) => match (rules.keys.get(&key), rules.revoked.get(&key)) {
                (None, _) => return Err("unknown-key"),
                (_, Some(Reason::Retired)) => return Err("key-expired"),
                (_, Some(Reason::Compromised)) => return Err("key-revoked"),
                _ => {}
            },
        }
        if after.rules.as_ref().is_some_and(|rules| rules.is_broken) {
            return Err("policy-invalid");
        }
        if before.rules != after.rules {
            let Some(new) = &after.rules else {
                return Err("policy-invalid");
            };
            let version = before.rules.as_ref().map_or(1, |rules| rules.version + 1);
            let forgets = before
                .rules
                .iter()
                .flat_map(|rules| &rules.revoked)
                .any(|(key, reason)| new.revoked.get(key).is_none_or(|now| now < reason));
            if new.version != version || forgets {
                return Err("policy-invalid");
            }
        }
        let Some(rules) = &before.rules else {
            return Ok(());
        };
        if self
            .changed(parent, commit)
            .iter()
            .any(|path| !rules.may_change(key, path))
        {
            return Err("out-of-scope");
        }
        if before.rules != after.rules && !rules.root.contains(&key) {
            return Err("out-of-scope");
        }
        let signers = self.signers(commit, approvals);
        for (threshold, voters) in self.demands(parent, commit) {
            if voters.intersection(&signers).count() < threshold {
                return Err("pending");
            }
        }
        Ok(())
    }

    /// What is asked of a whole way.
    fn whole(
        &self,
        trusted: usize,
        way: &[(usize, usize)],
        compromised: &BTreeSet<usize>,
        approvals: &BTreeSet<(usize, usize)>,
    ) -> &'static str {
        let start = &self.commits[trusted].content.rules;
        let mut revoked: BTreeMap<usize, Reason> = start
            .iter()
            .flat_map(|rules| rules.revoked.clone())
            .collect();
        let mut unproven: BTreeSet<usize> = BTreeSet::new();
        let mut just_added: BTreeSet<usize> = BTreeSet::new();
        let mut last: Option<&Rules> = None;
        for &(parent, commit) in way {
            let (before, after) = (&self.commits[parent].content, &self.commits[commit].content);
            let key = self.commits[commit].signer.unwrap();
            if unproven.contains(&key) {
                if !just_added.contains(&key) && before != after {
                    return "policy-invalid";
                }
                unproven.remove(&key);
            }
            just_added.clear();
            if let (true, Some(new)) = (before.rules != after.rules, &after.rules) {
                let was_known = |key: &usize| match &before.rules {
                    Some(rules) => rules.keys.contains_key(key),
                    None => *key != KEYS - 1,
                };
                just_added = new
                    .keys
                    .keys()
                    .filter(|new| !was_known(new) && **new != key)
                    .copied()
                    .collect();
                unproven.extend(&just_added);
                unproven.retain(|key| new.keys.contains_key(key));
                for (key, reason) in &new.revoked {
                    let known = revoked.entry(*key).or_insert(*reason);
                    *known = (*known).max(*reason);
                }
                if new.asks_too_much(&revoked, &unproven, false) {
                    return "policy-invalid";
                }
                last = Some(new);
            }
        }
        let lapsed: Vec<bool> = way
            .iter()
            .map(|&(parent, commit)| {
                let key = self.commits[commit].signer.unwrap();
                let rules = &self.commits[parent].content.rules;
                let has_expired = |key: &usize| rules.as_ref().is_some_and(|rules| rules.keys[key]);
                let signers = self.signers(commit, approvals);
                let is_unmet = self
                    .demands(parent, commit)
                    .iter()
                    .any(|(threshold, voters)| {
                        let valid = voters
                            .intersection(&signers)
                            .filter(|key| !has_expired(key));
                        valid.count() < *threshold
                    });
                has_expired(&key) || is_unmet || revoked.get(&key) == Some(&Reason::Retired)
            })
            .collect();
        for &(_, commit) in way {
            let key = self.commits[commit].signer.unwrap();
            if compromised.contains(&key) || revoked.get(&key) == Some(&Reason::Compromised) {
                return "key-revoked";
            }
        }
        for (index, &(parent, commit)) in way.iter().enumerate().filter(|(index, _)| lapsed[*index])
        {
            let stands_for_it = |later: usize| {
                let (before, by) = way[later];
                let key = self.commits[by].signer.unwrap();
                !lapsed[later]
                    && Some(key) != self.commits[commit].signer
                    && match &self.commits[before].content.rules {
                        None => true,
                        Some(rules) => {
                            let paths = self.changed(parent, commit);
                            let is_policy = self.commits[parent].content.rules
                                != self.commits[commit].content.rules;
                            rules.root.contains(&key)
                                || (!is_policy
                                    && paths.iter().all(|path| rules.may_change(key, path)))
                        }
                    }
            };
            if !(index + 1..way.len()).any(stands_for_it) {
                return "key-expired";
            }
        }
        if last.is_some_and(|rules| rules.asks_too_much(&revoked, &unproven, true)) {
            return "policy-invalid";
        }
        "accepted"
    }
}

fn write_tree(store: &mut Store, content: &Content, keys: &[Key]) -> ObjectId {
    let blob = |store: &mut Store, path: &str| {
        store.add(ObjectKind::Blob, format!("{path} {}", content.files[path]))
    };
    let a = [blob(store, "a/x"), blob(store, "a/y")];
    let a = store.tree(&[("100644", "x", a[0]), ("100644", "y", a[1])]);
    let b = blob(store, "b/x");
    let b = store.tree(&[("100644", "x", b)]);
    let c = blob(store, "c");
    let fleet = store.add(ObjectKind::Blob, "fleet = \"acme\"\n");
    let mut entries = vec![
        ("40000", "a", a),
        ("40000", "b", b),
        ("100644", "c", c),
        ("100644", "fleet.toml", fleet),
    ];
    if let Some(rules) = &content.rules {
        entries.push((
            "100644",
            POLICY_FILE,
            store.add(ObjectKind::Blob, rules.text(keys)),
        ));
    }
    store.tree(&entries)
}

/// Judges the histories of these seeds both ways.
fn agree(seeds: std::ops::Range<u64>) {
    let keys: Vec<Key> = (1..=KEYS)
        .map(|seed| Key::new(u8::try_from(seed).unwrap()))
        .collect();
    let allowed: String = (0..KEYS - 1)
        .map(|key| keys[key].allowed(NAMES[key], ""))
        .collect();
    let mut seen: BTreeMap<&'static str, usize> = BTreeMap::new();
    for seed in seeds {
        let history = History::random(seed);
        let mut store = Store::default();
        let ids = history.write(&mut store, &keys);
        let policy = policy(ids[0], &allowed, "");
        let trusted = TrustedHead::set(&store, &policy, ids[0]).unwrap();
        let tip = history.commits.len() - 1;
        let verdict = verify(&store, &policy, Some(&trusted), ids[tip], now());
        let word = word_of(&verdict);
        let expected = history.verdict(0, tip);
        assert_eq!(
            word,
            expected,
            "seed {seed}: {:?}\n{:#?}",
            verdict.failure(),
            history.commits
        );
        *seen.entry(word).or_default() += 1;
    }
    // A model that always says the same agrees with nothing.
    for word in [
        "accepted",
        "pending",
        "out-of-scope",
        "policy-invalid",
        "unsigned",
        "unknown-key",
        "key-expired",
        "key-revoked",
    ] {
        assert!(
            seen.get(word).is_some_and(|count| *count >= 10),
            "{word}: {seen:?}"
        );
    }
}

// Ten thousand, in parts that run beside each other.

#[test]
fn random_histories_are_judged_as_a_naive_model_judges_them_1() {
    agree(0..2_500);
}

#[test]
fn random_histories_are_judged_as_a_naive_model_judges_them_2() {
    agree(2_500..5_000);
}

#[test]
fn random_histories_are_judged_as_a_naive_model_judges_them_3() {
    agree(5_000..7_500);
}

#[test]
fn random_histories_are_judged_as_a_naive_model_judges_them_4() {
    agree(7_500..10_000);
}
