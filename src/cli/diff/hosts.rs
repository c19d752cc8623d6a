//! Every host on both sides, and the groups of those with the same differences.

use std::collections::{BTreeMap, BTreeSet};

use super::content::{Contents, Shown};
use crate::fleet::compare::{Difference, Implied, compare, implied};
use crate::fleet::{DesiredState, Fleet, HostIdentity, Limits};
use crate::git::{Objects, Tree};
use crate::model::Failure;

/// A fleet as one revision has it.
pub(super) struct Side<'tree> {
    /// What people call the revision.
    pub name: String,
    fleet: Result<Option<Fleet<'tree>>, Vec<Failure>>,
}

impl<'tree> Side<'tree> {
    /// The fleet in `tree`; one without a fleet.toml has no hosts yet.
    pub fn read(name: String, tree: &'tree dyn Tree) -> Self {
        let fleet = match tree.read("fleet.toml") {
            Ok(None) => Ok(None),
            _ => Fleet::load(tree).map(Some),
        };
        Side { name, fleet }
    }

    fn fleet(&self) -> Option<&Fleet<'tree>> {
        self.fleet.as_ref().ok()?.as_ref()
    }

    fn hosts(&self) -> Result<BTreeSet<String>, Vec<Failure>> {
        match self.fleet() {
            Some(fleet) => Ok(fleet.hosts()?.into_iter().collect()),
            None => Ok(BTreeSet::new()),
        }
    }
}

/// What has become of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// Both sides know it.
    Stays,
    /// Only the newer side does.
    New,
    /// Only the older side does. What its machine has stays as it is, unless a rule still gives it something.
    Gone,
    /// It could not be rendered before, and now it can.
    Mended,
}

/// Hosts with the same differences.
#[derive(Debug)]
pub(super) struct Group {
    /// Their names, in order; an imaginary one is described.
    pub hosts: Vec<GroupHost>,
    pub fate: Fate,
    /// What differs, with what can be said of its content.
    pub differences: Vec<(Difference, Option<Shown>)>,
    /// The restarts and reloads that it implies.
    pub implied: Vec<Implied>,
}

/// A host of a group.
#[derive(Debug)]
pub(super) struct GroupHost {
    pub name: String,
    pub digest_before: Option<String>,
    pub digest_after: Option<String>,
}

impl Group {
    /// How many things on each host go away, at most.
    pub fn removals(&self) -> usize {
        self.differences
            .iter()
            .filter(|(difference, _)| difference.removes)
            .count()
    }
}

/// The result.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub before: String,
    pub after: String,
    /// The largest first.
    pub groups: Vec<Group>,
    /// How many hosts are the same on both sides.
    pub unchanged: usize,
    pub notes: Vec<String>,
    pub mistakes_before: Vec<Failure>,
    pub mistakes_after: Vec<Failure>,
    /// What was wrong before with the imaginary host that is being compared.
    lacked: Vec<String>,
}

/// Who is rendered: the name people read, and the identity.
struct Asked {
    shown: String,
    identity: HostIdentity,
    was_known: bool,
    is_known: bool,
}

impl Asked {
    fn is_imaginary(&self) -> bool {
        self.shown != self.identity.name
    }
}

impl Comparison {
    /// Does nothing change.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// How many hosts change.
    pub fn changed(&self) -> usize {
        self.groups.iter().map(|group| group.hosts.len()).sum()
    }

    /// Compares the `only` hosts of both sides, or all of them.
    pub fn make(
        before: &Side<'_>,
        after: &Side<'_>,
        only: &[String],
        objects: &dyn Objects,
    ) -> Result<Self, Vec<Failure>> {
        let mut comparison = Comparison {
            before: before.name.clone(),
            after: after.name.clone(),
            mistakes_before: before.fleet.as_ref().err().cloned().unwrap_or_default(),
            mistakes_after: after.fleet.as_ref().err().cloned().unwrap_or_default(),
            ..Comparison::default()
        };
        if !comparison.mistakes_after.is_empty() {
            return Ok(comparison);
        }
        let contents = Contents::new(objects);
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for host in comparison.asked(before, after, only)? {
            comparison.lacked.clear();
            let Some(old) = comparison.render(before, &host, true) else {
                continue;
            };
            let Some(new) = comparison.render(after, &host, false) else {
                continue;
            };
            if old.is_err() && host.is_imaginary() {
                continue;
            }
            comparison.take(host, old, new, &contents, &mut groups);
        }
        comparison.groups = groups.into_values().collect();
        comparison.groups.sort_by(|a, b| {
            (b.hosts.len(), &a.hosts[0].name).cmp(&(a.hosts.len(), &b.hosts[0].name))
        });
        Ok(comparison)
    }

    /// The hosts of either side, and an imaginary one for each rule that fits none.
    fn asked(
        &mut self,
        before: &Side<'_>,
        after: &Side<'_>,
        only: &[String],
    ) -> Result<Vec<Asked>, Vec<Failure>> {
        let (old, new) = (before.hosts()?, after.hosts()?);
        let was_wrong = before.fleet.is_err();
        let all: Vec<String> = match only {
            [] => old.union(&new).cloned().collect(),
            _ => only.to_vec(),
        };
        let mut asked: Vec<Asked> = all
            .into_iter()
            .map(|name| Asked {
                // A host that no side lists may still be fitted by rules.
                was_known: old.contains(&name) || !new.contains(&name) || was_wrong,
                is_known: new.contains(&name) || !old.contains(&name),
                identity: HostIdentity::named(name.as_str()),
                shown: name,
            })
            .collect();
        if !only.is_empty() {
            return Ok(asked);
        }
        let mut imagined: Vec<HostIdentity> = Vec::new();
        for (side, names) in [(before, &old), (after, &new)] {
            let Some(fleet) = side.fleet() else { continue };
            let known: Vec<HostIdentity> = names
                .iter()
                .map(|name| HostIdentity::named(name.as_str()))
                .collect();
            for host in fleet.imagine_hosts(&known).hosts {
                if imagined.contains(&host.identity)
                    || asked.iter().any(|asked| asked.shown == host.identity.name)
                {
                    continue;
                }
                imagined.push(host.identity.clone());
                asked.push(Asked {
                    shown: host.to_string(),
                    identity: host.identity,
                    was_known: before.fleet().is_some() || was_wrong,
                    is_known: true,
                });
            }
        }
        Ok(asked)
    }

    /// The state of a host on one side: `Some(Ok)` of what is rendered, empty where the side does not know it; `Some(Err)` when it
    /// could not be rendered and that was told; `None` when the host cannot be compared.
    fn render(
        &mut self,
        side: &Side<'_>,
        host: &Asked,
        is_before: bool,
    ) -> Option<Result<DesiredState, ()>> {
        let is_known = if is_before {
            host.was_known
        } else {
            host.is_known
        };
        let Some(fleet) = side.fleet().filter(|_| is_known) else {
            return Some(match &side.fleet {
                Err(_) => Err(()),
                Ok(_) => Ok(DesiredState::default()),
            });
        };
        let is_imaginary = host.is_imaginary();
        let unknown = fleet.unknown_facts(&host.identity);
        if !unknown.is_empty() {
            self.notes.push(format!(
                "host '{}' is not compared: its {} is only known on the host; declare it in the inventory",
                host.shown,
                unknown.join(", ")
            ));
            return None;
        }
        match fleet.render_state(&host.identity, &Limits::default()) {
            Ok(rendered) => Some(Ok(rendered.state)),
            // Such a host lacks what the inventory would say of it. That is no news: only what it lacked nothing of before is.
            Err(failures) if is_imaginary && is_before => {
                self.lacked = failures
                    .into_iter()
                    .map(|failure| failure.message)
                    .collect();
                Some(Err(()))
            }
            Err(failures)
                if is_imaginary
                    && failures
                        .iter()
                        .all(|failure| self.lacked.contains(&failure.message)) =>
            {
                None
            }
            Err(failures) => {
                let told = if is_before {
                    &mut self.mistakes_before
                } else {
                    &mut self.mistakes_after
                };
                for failure in failures {
                    if !told.contains(&failure) {
                        told.push(failure);
                    }
                }
                if is_before { Some(Err(())) } else { None }
            }
        }
    }

    fn take(
        &mut self,
        host: Asked,
        old: Result<DesiredState, ()>,
        new: Result<DesiredState, ()>,
        contents: &Contents<'_>,
        groups: &mut BTreeMap<String, Group>,
    ) {
        let fate = match (&old, host.was_known, host.is_known) {
            (Err(()), ..) => Fate::Mended,
            (_, false, _) => Fate::New,
            (_, _, false) => Fate::Gone,
            _ => Fate::Stays,
        };
        let is_comparable = old.is_ok();
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        if fate == Fate::Stays && old.digest == new.digest {
            self.unchanged += 1;
            return;
        }
        let differences = match fate {
            // Nobody can say what a machine that could not be rendered has; and of one that goes, nothing is taken away.
            Fate::Mended | Fate::Gone => Vec::new(),
            _ => compare(&old, &new),
        };
        if fate == Fate::Stays && differences.is_empty() {
            self.unchanged += 1;
            return;
        }
        let implied = match fate {
            Fate::Stays => implied(&new, &differences),
            _ => Vec::new(),
        };
        let differences: Vec<(Difference, Option<Shown>)> = differences
            .into_iter()
            .map(|difference| {
                let shown = contents.show(&difference);
                (difference, shown)
            })
            .collect();
        let digest =
            |state: &DesiredState| (!state.digest.is_empty()).then(|| state.digest.clone());
        let group_host = GroupHost {
            name: host.shown,
            digest_before: digest(&old).filter(|_| is_comparable),
            digest_after: digest(&new),
        };
        let key = format!("{fate:?} {differences:?} {implied:?}");
        groups
            .entry(key)
            .or_insert_with(|| Group {
                hosts: Vec::new(),
                fate,
                differences,
                implied,
            })
            .hosts
            .push(group_host);
    }
}
