//! The way from what is trusted to a tip: is there one, and did somebody allowed sign every commit on it?
//!
//! The *base* is the commit that is trusted already. A commit is the base when it has its id or its payload. A *path* leads from
//! the base to the tip by parents, each of its steps allowed; first parents are preferred, and who signs a merge vouches for its
//! other parents.
//!
//! Dates decide only in which order commits are looked at, so a wrong one costs time and nothing else.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::approval::{Approval, approved};
use super::authority::Voucher;
use super::commit::{Commit, read_ancestry};
use super::painting::{Colour, OF_BASE, OF_TIP, Painting};
use super::rule::{Refusal, Rule, Stop};
use super::step::{Footing, Stepping};
use super::{LIMPET_LINES_LIMIT, lines_for_limpet};
use crate::git::{ObjectError, ObjectId, Objects};

/// How much older than the base a commit must claim to be before following first parents gives up on meeting it.
const SKEW_SECS: i64 = 24 * 60 * 60;

/// The commit that is trusted already.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) commit: ObjectId,
    pub(super) payload_sha256: Option<[u8; 32]>,
    /// Its tree, where it is known.
    pub(super) tree: Option<ObjectId>,
    /// Was every directory of its tree looked at before.
    pub(super) is_checked: bool,
}

impl Base {
    fn is(&self, commit: &Commit) -> bool {
        commit.id == self.commit || self.payload_sha256 == Some(commit.payload_sha256)
    }
}

/// Who says which steps may be made.
pub(super) trait Steps {
    /// Who signed `commit`, as far as that can be told without knowing what it follows.
    fn vouch(&self, commit: &Commit) -> Result<Voucher, Stop>;

    /// May `step` be made from the tree `from`, with the `approvals` that are known; true where it counted them.
    fn allows(&self, from: Footing, step: &Stepping, approvals: &[Approval]) -> Result<bool, Stop>;
}

/// Allows whatever leads to the base.
pub(super) struct Any;

impl Steps for Any {
    fn vouch(&self, _: &Commit) -> Result<Voucher, Stop> {
        Ok(Voucher::unasked())
    }

    fn allows(&self, _: Footing, _: &Stepping, _: &[Approval]) -> Result<bool, Stop> {
        Ok(false)
    }
}

/// A way from the base to the tip.
#[derive(Debug)]
pub(super) struct Way {
    /// The tree of the base.
    pub(super) from: Footing,
    /// The commits, the oldest first, the tip last.
    pub(super) steps: Vec<Stepping>,
    /// What their messages say to limpet, in the same order.
    pub(super) lines: Vec<Vec<(String, String)>>,
    /// The approvals that were met.
    pub(super) approvals: Vec<Approval>,
}

/// How the tip lies to the base.
#[derive(Debug)]
pub(super) enum Position {
    /// The tip descends from the base.
    Ahead(Way),
    /// The base descends from the tip.
    Behind,
    /// Neither descends from the other.
    Diverged,
    /// The base was not met, and this commit's parent is not there.
    Cut { child: ObjectId, parent: ObjectId },
}

/// Finds how `tip` lies to `base`, on a path whose steps are all allowed.
pub(super) fn find_path(
    objects: &dyn Objects,
    base: &Base,
    tip: ObjectId,
    max_commits: usize,
    allowed: &dyn Steps,
) -> Result<Position, Stop> {
    let mut graph = Graph {
        objects,
        base,
        tip,
        allowed,
        base_tree: base.tree,
        max_commits,
        max_reads: max_commits,
        reads: 0,
        commits: HashMap::new(),
        twins: HashMap::new(),
        candidates: Vec::new(),
        cut: None,
    };
    let base_time = graph.read(base.commit)?;
    let base_time = base_time.map(|id| graph.commits[&id].claimed_time_secs);
    graph.max_reads = graph.reads + max_commits;
    match graph.follow_first_parents(base_time)? {
        FirstParents::Path(way) => return Ok(Position::Ahead(way)),
        FirstParents::Refused(refusal) => return Err(refusal.into()),
        FirstParents::Elsewhere => {}
    }
    graph.max_reads = graph.reads + max_commits;
    graph.search()
}

/// What was learned of a commit.
struct Known {
    /// Its parents, the base's twins replaced by the base.
    parents: Vec<ObjectId>,
    claimed_time_secs: i64,
    /// The step it would be, or why it can be none.
    step: Result<Stepping, Refusal>,
    /// What its message says to limpet.
    lines: Vec<(String, String)>,
}

/// An approval, as long as it is not known whether its commit changes nothing.
struct Candidate {
    parent: ObjectId,
    tree: ObjectId,
    approval: Approval,
}

struct Graph<'a> {
    objects: &'a dyn Objects,
    base: &'a Base,
    base_tree: Option<ObjectId>,
    tip: ObjectId,
    allowed: &'a dyn Steps,
    max_commits: usize,
    max_reads: usize,
    reads: usize,
    commits: HashMap<ObjectId, Known>,
    /// Commits with the base's payload and another id.
    twins: HashMap<ObjectId, ObjectId>,
    candidates: Vec<Candidate>,
    /// The first commit above the base whose parent is not there.
    cut: Option<(ObjectId, ObjectId)>,
}

enum FirstParents {
    /// All of their steps are allowed, down to the base.
    Path(Way),
    /// They lead to the base, one is not to be trusted, and no merge goes around it.
    Refused(Refusal),
    /// They do not lead to the base, or a merge may go around one that is not to be trusted.
    Elsewhere,
}

impl Graph<'_> {
    /// Reads `id` once. Returns it, or the base when it is its twin; None when the object is not there.
    fn read(&mut self, id: ObjectId) -> Result<Option<ObjectId>, Stop> {
        if let Some(base) = self.twins.get(&id) {
            return Ok(Some(*base));
        }
        if self.commits.contains_key(&id) {
            return Ok(Some(id));
        }
        if self.reads >= self.max_reads {
            return Err(self.too_many_commits().into());
        }
        self.reads += 1;
        let object = match self.objects.get(&id) {
            Ok(object) => object,
            Err(ObjectError::Missing(_)) => return Ok(None),
            Err(error) => return Err(Stop::reading(error, id, Rule::MalformedCommit)),
        };
        let known = match Commit::parse(id, object.kind, &object.data) {
            Ok(commit) if id != self.base.commit && self.base.is(&commit) => {
                self.twins.insert(id, self.base.commit);
                self.base_tree.get_or_insert(commit.tree);
                return Ok(Some(self.base.commit));
            }
            Ok(commit) => {
                if id == self.base.commit {
                    self.base_tree.get_or_insert(commit.tree);
                }
                self.learn(commit)?
            }
            Err(refusal) => {
                let (parents, claimed_time_secs) = read_ancestry(id, &object.data);
                Known {
                    parents,
                    claimed_time_secs,
                    step: Err(refusal),
                    lines: Vec::new(),
                }
            }
        };
        self.commits.insert(id, known);
        Ok(Some(id))
    }

    fn learn(&mut self, commit: Commit) -> Result<Known, Stop> {
        let step = match self.allowed.vouch(&commit) {
            Ok(voucher) => Ok(Stepping::of(&commit, voucher)),
            Err(Stop::Refused(refusal)) => Err(refusal),
            Err(unavailable) => return Err(unavailable),
        };
        let mut lines = Vec::new();
        if let Ok(step) = &step {
            lines = lines_for_limpet(&commit);
            if let [parent] = commit.parents.as_slice() {
                let approved = approved(&lines).into_iter();
                self.candidates
                    .extend(approved.map(|payload_sha256| Candidate {
                        parent: *parent,
                        tree: commit.tree,
                        approval: Approval {
                            payload_sha256,
                            voucher: Rc::clone(&step.voucher),
                        },
                    }));
            }
            // Whoever may sign nothing here can make us keep what they say: not much of it.
            if lines
                .iter()
                .map(|(key, value)| key.len() + value.len())
                .sum::<usize>()
                > LIMPET_LINES_LIMIT
            {
                lines.clear();
            }
        }
        Ok(Known {
            parents: commit.parents,
            claimed_time_secs: commit.claimed_time_secs,
            step,
            lines,
        })
    }

    /// What a step from `id` starts from.
    fn footing(&self, id: ObjectId) -> Result<Footing, Stop> {
        if id == self.base.commit {
            // Without its tree nobody knows which policy it carries.
            let tree = self
                .base_tree
                .ok_or(Stop::Unavailable(ObjectError::Missing(id)))?;
            return Ok(Footing {
                tree,
                is_checked: self.base.is_checked,
            });
        }
        match self.commits.get(&id).map(|known| &known.step) {
            Some(Ok(step)) => Ok(Footing::checked(step.tree)),
            Some(Err(refusal)) => Err(refusal.clone().into()),
            None => Err(Stop::Unavailable(ObjectError::Missing(id))),
        }
    }

    /// The approvals that were met and that change nothing.
    fn approvals(&self) -> Vec<Approval> {
        let changes_nothing = |candidate: &&Candidate| {
            let parent = self
                .twins
                .get(&candidate.parent)
                .unwrap_or(&candidate.parent);
            let tree = match *parent == self.base.commit {
                true => self.base_tree,
                false => self.tree_of(*parent),
            };
            tree == Some(candidate.tree)
        };
        let real = self.candidates.iter().filter(changes_nothing);
        real.map(|candidate| candidate.approval.clone()).collect()
    }

    fn tree_of(&self, id: ObjectId) -> Option<ObjectId> {
        let known = self.commits.get(&id)?;
        known.step.as_ref().ok().map(|step| step.tree)
    }

    /// Is the step from `parent` to `id` allowed, and did it take approvals? The outer failure is one that says nothing about it.
    fn judge(
        &self,
        parent: ObjectId,
        id: ObjectId,
        approvals: &[Approval],
    ) -> Result<Result<bool, Refusal>, Stop> {
        let step = match &self.commits[&id].step {
            Ok(step) => step,
            Err(refusal) => return Ok(Err(refusal.clone())),
        };
        let from = match self.footing(parent) {
            Ok(from) => from,
            // The parent's own refusal is told where it is its turn.
            Err(Stop::Refused(_)) => return Ok(Ok(false)),
            Err(unavailable) => return Err(unavailable),
        };
        match self.allowed.allows(from, step, approvals) {
            Ok(counted) => Ok(Ok(counted)),
            Err(Stop::Refused(refusal)) => Ok(Err(refusal)),
            Err(unavailable) => Err(unavailable),
        }
    }

    /// The way of these commits, the newest first.
    fn way(&self, newest_first: &[ObjectId], approvals: Vec<Approval>) -> Result<Way, Stop> {
        let known = newest_first.iter().rev().map(|id| &self.commits[id]);
        Ok(Way {
            from: self.footing(self.base.commit)?,
            lines: known.clone().map(|known| known.lines.clone()).collect(),
            steps: known.filter_map(|known| known.step.clone().ok()).collect(),
            approvals,
        })
    }

    fn too_many_commits(&self) -> Refusal {
        Refusal::new(
            Rule::TooManyCommits,
            format!(
                "it is more than {} commits away from the trusted revision {}",
                self.max_commits,
                self.base.commit.to_hex_with_len(7)
            ),
        )
        .of(self.tip)
    }

    fn parents(&self, id: ObjectId) -> Vec<ObjectId> {
        self.commits
            .get(&id)
            .map(|known| known.parents.clone())
            .unwrap_or_default()
    }

    /// The usual case, in as many reads as the path is long.
    fn follow_first_parents(&mut self, base_time: Option<i64>) -> Result<FirstParents, Stop> {
        let mut way = Vec::new();
        let mut id = self.tip;
        while id != self.base.commit {
            if self.reads >= self.max_reads {
                return Ok(FirstParents::Elsewhere); // the search says so, if it does no better
            }
            match self.read(id)? {
                Some(base) if base == self.base.commit => break,
                Some(_) => {}
                None => return Ok(FirstParents::Elsewhere),
            }
            let known = &self.commits[&id];
            if base_time.is_some_and(|time| known.claimed_time_secs + SKEW_SECS < time) {
                return Ok(FirstParents::Elsewhere);
            }
            way.push(id);
            match known.parents.first() {
                Some(parent) => id = *parent,
                None => return Ok(FirstParents::Elsewhere),
            }
        }
        let approvals = self.approvals();
        let mut is_below_merge = false;
        let mut has_merges = false;
        let mut counts_approvals = false;
        for (index, &id) in way.iter().enumerate() {
            let parent = way.get(index + 1).copied();
            let judged = self.judge(parent.unwrap_or(self.base.commit), id, &approvals)?;
            let known = &self.commits[&id];
            let is_merge = known.parents.len() > 1;
            has_merges |= is_merge;
            counts_approvals |= judged == Ok(true);
            if let Err(refusal) = judged {
                // Another parent may do better than the first, and what was merged may hold the approval that is missing.
                let is_of_step = is_merge && known.step.is_ok();
                return Ok(match is_below_merge || is_of_step {
                    true => FirstParents::Elsewhere,
                    false => FirstParents::Refused(refusal),
                });
            }
            is_below_merge |= is_merge;
        }
        if counts_approvals && has_merges {
            return Ok(FirstParents::Elsewhere); // what was merged may hold more of them
        }
        Ok(FirstParents::Path(self.way(&way, approvals)?))
    }

    /// Any case: reads what the tip has and the base has not, and looks for a path in that.
    fn search(&mut self) -> Result<Position, Stop> {
        let colours = self.paint()?;
        let is_above = |id: &ObjectId| colours.get(id).is_some_and(|colour| colour.of_tip);
        if !is_above(&self.base.commit) {
            let is_of_base = |id: &ObjectId| colours.get(id).is_some_and(|colour| colour.of_base);
            let tip = self.payload(&self.tip);
            let is_twin = |id: &ObjectId| is_of_base(id) && self.payload(id) == tip;
            if is_of_base(&self.tip) || tip.is_some() && colours.keys().any(is_twin) {
                return Ok(Position::Behind);
            }
            return Ok(match self.cut {
                Some((child, parent)) => Position::Cut { child, parent },
                None => Position::Diverged,
            });
        }
        let approvals = self.approvals();
        let way = self.search_path(&self.reaching_base(&colours), &approvals)?;
        if way.len() > self.max_commits {
            return Err(self.too_many_commits().into());
        }
        Ok(Position::Ahead(self.way(&way, approvals)?))
    }

    /// The payload of a commit that was read and keeps the grammar.
    fn payload(&self, id: &ObjectId) -> Option<[u8; 32]> {
        let step = self.commits.get(id)?.step.as_ref().ok()?;
        Some(step.payload_sha256)
    }

    /// Marks what each of tip and base descends from, until nothing is left that only the tip has. It looks at the newest commits
    /// first, as `git merge-base` does, and takes turns so that wrong dates cannot make it read one side to its end.
    fn paint(&mut self) -> Result<HashMap<ObjectId, Colour>, Stop> {
        let mut painting = Painting::default();
        self.spread(&mut painting, self.base.commit, OF_BASE, None)?;
        // A base that is not there has no known ancestors, and may still be met by its id.
        painting
            .colours
            .entry(self.base.commit)
            .or_default()
            .of_base = true;
        self.spread(&mut painting, self.tip, OF_TIP, None)?;
        let mut turns: u32 = 0;
        loop {
            let next_of_tip = painting.peek(OF_TIP);
            let next_of_base = painting.peek(OF_BASE);
            let is_met = painting.colours[&self.base.commit].of_tip;
            let side = match (next_of_tip, next_of_base) {
                (None, _) if is_met => break,
                (None, None) => break,
                (None, Some(_)) => {
                    if painting.colours.get(&self.tip).is_some_and(|c| c.of_base) {
                        break;
                    }
                    OF_BASE
                }
                (Some(_), None) => OF_TIP,
                (Some(tip_time), Some(base_time)) => {
                    turns = turns.wrapping_add(1);
                    if turns.is_multiple_of(8) || (base_time > tip_time && turns.is_multiple_of(2))
                    {
                        OF_BASE
                    } else {
                        OF_TIP
                    }
                }
            };
            let Some(id) = painting.pop(side) else { break };
            for parent in self.parents(id) {
                self.spread(&mut painting, parent, side, Some(id))?;
            }
        }
        Ok(painting.colours)
    }

    /// Paints `id`, and what is known to be below it, with `colour`.
    fn spread(
        &mut self,
        painting: &mut Painting,
        id: ObjectId,
        colour: Colour,
        child: Option<ObjectId>,
    ) -> Result<(), Stop> {
        let mut open = vec![(id, child)];
        while let Some((id, child)) = open.pop() {
            let Some(known) = self.read(id)? else {
                if colour.of_tip {
                    let is_base = id == self.base.commit;
                    match (is_base, child) {
                        (true, _) => painting.colours.entry(id).or_default().of_tip = true,
                        (false, Some(child)) => {
                            self.cut.get_or_insert((child, id));
                        }
                        (false, None) => {
                            return Err(Stop::Unavailable(ObjectError::Missing(id)));
                        }
                    }
                }
                continue;
            };
            let mark = painting.colours.entry(known).or_default();
            if (!colour.of_tip || mark.of_tip) && (!colour.of_base || mark.of_base) {
                continue;
            }
            mark.of_tip |= colour.of_tip;
            mark.of_base |= colour.of_base;
            if colour.of_tip && mark.of_base {
                continue; // what is below belongs to the base, too
            }
            if painting.expanded.contains(&known) {
                open.extend(
                    self.parents(known)
                        .into_iter()
                        .map(|parent| (parent, Some(known))),
                );
            } else {
                let time = self.commits[&known].claimed_time_secs;
                painting.push(known, time, colour);
            }
        }
        Ok(())
    }

    /// The commits that only the tip has and from which the base can be reached.
    fn reaching_base(&self, colours: &HashMap<ObjectId, Colour>) -> HashSet<ObjectId> {
        let mut children: HashMap<ObjectId, Vec<ObjectId>> = HashMap::new();
        for (&id, colour) in colours {
            if colour.of_tip && !colour.of_base {
                for parent in self.parents(id) {
                    let parent = self.twins.get(&parent).copied().unwrap_or(parent);
                    children.entry(parent).or_default().push(id);
                }
            }
        }
        let mut reaching = HashSet::from([self.base.commit]);
        let mut open = vec![self.base.commit];
        while let Some(id) = open.pop() {
            for &child in children.get(&id).into_iter().flatten() {
                if reaching.insert(child) {
                    open.push(child);
                }
            }
        }
        reaching
    }

    /// A path among `reaching` whose steps are allowed, first parents first, the newest commit first; else what stands in the way:
    /// an approval that is missing, where that is all, or the first refusal that was met.
    fn search_path(
        &self,
        reaching: &HashSet<ObjectId>,
        approvals: &[Approval],
    ) -> Result<Vec<ObjectId>, Stop> {
        let mut refusal: Option<Refusal> = None;
        let mut note = |found: Refusal| match &refusal {
            Some(known)
                if known.rule == Rule::PendingApproval || found.rule != Rule::PendingApproval => {}
            _ => refusal = Some(found),
        };
        let mut seen = HashSet::from([self.tip]);
        if let Err(found) = &self.commits[&self.tip].step {
            return Err(found.clone().into());
        }
        // Depth first without recursion: each element is a commit on the way and the parent of it to try next.
        let mut way: Vec<(ObjectId, usize)> = vec![(self.tip, 0)];
        while let Some((id, next)) = way.last_mut() {
            let id = *id;
            let Some(parent) = self.commits[&id].parents.get(*next) else {
                way.pop();
                continue;
            };
            *next += 1;
            let parent = self.twins.get(parent).copied().unwrap_or(*parent);
            let is_base = parent == self.base.commit;
            if !is_base && (!reaching.contains(&parent) || seen.contains(&parent)) {
                continue;
            }
            if let Err(found) = self.judge(parent, id, approvals)? {
                note(found);
                continue;
            }
            if is_base {
                return Ok(way.iter().map(|(id, _)| *id).collect());
            }
            seen.insert(parent);
            match &self.commits[&parent].step {
                Ok(_) => way.push((parent, 0)),
                Err(found) => note(found.clone()),
            }
        }
        Err(refusal
            .unwrap_or_else(|| {
                Refusal::new(Rule::Unsigned, "no path of signed commits leads to it").of(self.tip)
            })
            .into())
    }
}
