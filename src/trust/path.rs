//! The way from what is trusted to a tip: is there one, and did somebody allowed sign every commit on it?
//!
//! The *base* is the commit that is trusted already. A commit is the base when it has its id or its payload. A *path* leads from
//! the base to the tip by parents, each of its commits signed; first parents are preferred, and who signs a merge vouches for its
//! other parents.
//!
//! Dates decide only in which order commits are looked at, so a wrong one costs time and nothing else.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use super::commit::{Commit, read_ancestry};
use super::rule::{Refusal, Rule, Stop};
use crate::git::{ObjectError, ObjectId, Objects};

/// How much older than the base a commit must claim to be before following first parents gives up on meeting it.
const SKEW_SECS: i64 = 24 * 60 * 60;

/// The commit that is trusted already.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) commit: ObjectId,
    pub(super) payload_sha256: Option<[u8; 32]>,
}

impl Base {
    fn is(&self, commit: &Commit) -> bool {
        commit.id == self.commit || self.payload_sha256 == Some(commit.payload_sha256)
    }
}

/// One commit on the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) commit: ObjectId,
    pub(super) tree: ObjectId,
}

/// How the tip lies to the base.
#[derive(Debug)]
pub(super) enum Position {
    /// The tip descends from the base by these commits, the oldest first, the tip last.
    Ahead(Vec<Step>),
    /// The base descends from the tip.
    Behind,
    /// Neither descends from the other.
    Diverged,
    /// The base was not met, and this commit's parent is not there.
    Cut { child: ObjectId, parent: ObjectId },
}

/// Finds how `tip` lies to `base`. `judge` says whether a commit may stand on the path.
pub(super) fn find_path(
    objects: &dyn Objects,
    base: &Base,
    tip: ObjectId,
    max_commits: usize,
    judge: &dyn Fn(&Commit) -> Result<(), Refusal>,
) -> Result<Position, Stop> {
    let mut graph = Graph {
        objects,
        base,
        tip,
        judge,
        max_commits,
        max_reads: max_commits,
        reads: 0,
        commits: HashMap::new(),
        twins: HashMap::new(),
        cut: None,
    };
    let base_time = graph.read(base.commit)?;
    let base_time = base_time.map(|id| graph.commits[&id].claimed_time_secs);
    graph.max_reads = graph.reads + max_commits;
    match graph.follow_first_parents(base_time)? {
        FirstParents::Path(path) => return Ok(Position::Ahead(path)),
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
    /// The step it would be, or why it may not stand on a path.
    step: Result<Step, Refusal>,
}

struct Graph<'a> {
    objects: &'a dyn Objects,
    base: &'a Base,
    tip: ObjectId,
    judge: &'a dyn Fn(&Commit) -> Result<(), Refusal>,
    max_commits: usize,
    max_reads: usize,
    reads: usize,
    commits: HashMap<ObjectId, Known>,
    /// Commits with the base's payload and another id.
    twins: HashMap<ObjectId, ObjectId>,
    /// The first commit above the base whose parent is not there.
    cut: Option<(ObjectId, ObjectId)>,
}

enum FirstParents {
    /// All of them are signed, down to the base.
    Path(Vec<Step>),
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
                return Ok(Some(self.base.commit));
            }
            Ok(commit) => Known {
                step: (self.judge)(&commit).map(|()| Step {
                    commit: id,
                    tree: commit.tree,
                }),
                parents: commit.parents,
                claimed_time_secs: commit.claimed_time_secs,
            },
            Err(refusal) => {
                let (parents, claimed_time_secs) = read_ancestry(id, &object.data);
                Known {
                    parents,
                    claimed_time_secs,
                    step: Err(refusal),
                }
            }
        };
        self.commits.insert(id, known);
        Ok(Some(id))
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
        let mut path = Vec::new();
        let mut refusal = None;
        let mut is_below_merge = false;
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
            match &known.step {
                Ok(step) => path.push(*step),
                Err(_) if refusal.is_some() => {}
                Err(error) if is_below_merge => refusal = Some((error.clone(), true)),
                Err(error) => refusal = Some((error.clone(), false)),
            }
            is_below_merge |= known.parents.len() > 1;
            match known.parents.first() {
                Some(parent) => id = *parent,
                None => return Ok(FirstParents::Elsewhere),
            }
        }
        Ok(match refusal {
            None => {
                path.reverse();
                FirstParents::Path(path)
            }
            Some((_, true)) => FirstParents::Elsewhere,
            Some((refusal, false)) => FirstParents::Refused(refusal),
        })
    }

    /// Any case: reads what the tip has and the base has not, and looks for a path in that.
    fn search(&mut self) -> Result<Position, Stop> {
        let colours = self.paint()?;
        let is_above = |id: &ObjectId| colours.get(id).is_some_and(|colour| colour.of_tip);
        if !is_above(&self.base.commit) {
            if colours.get(&self.tip).is_some_and(|colour| colour.of_base) {
                return Ok(Position::Behind);
            }
            return Ok(match self.cut {
                Some((child, parent)) => Position::Cut { child, parent },
                None => Position::Diverged,
            });
        }
        let path = self.search_path(&self.reaching_base(&colours))?;
        if path.len() > self.max_commits {
            return Err(self.too_many_commits().into());
        }
        Ok(Position::Ahead(path))
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

    /// A signed path among `reaching`, first parents first; else the first commit that may not stand on one.
    fn search_path(&self, reaching: &HashSet<ObjectId>) -> Result<Vec<Step>, Refusal> {
        let mut refusal = None;
        let mut seen = HashSet::new();
        // Depth first without recursion: each element is a commit on the way and the parent of it to try next.
        let mut way: Vec<(Step, usize)> = Vec::new();
        let mut candidate = Some(self.tip);
        loop {
            match candidate.take() {
                Some(id) if seen.insert(id) => match &self.commits[&id].step {
                    Ok(step) => way.push((*step, 0)),
                    Err(error) => {
                        refusal.get_or_insert_with(|| error.clone());
                    }
                },
                _ => {}
            }
            let Some((step, next)) = way.last_mut() else {
                break;
            };
            let parents = &self.commits[&step.commit].parents;
            match parents.get(*next) {
                Some(parent) => {
                    *next += 1;
                    let parent = self.twins.get(parent).copied().unwrap_or(*parent);
                    if parent == self.base.commit {
                        return Ok(way.iter().rev().map(|(step, _)| *step).collect());
                    }
                    if reaching.contains(&parent) {
                        candidate = Some(parent);
                    }
                }
                None => {
                    way.pop();
                }
            }
        }
        Err(refusal.unwrap_or_else(|| {
            Refusal::new(Rule::Unsigned, "no path of signed commits leads to it").of(self.tip)
        }))
    }
}

/// From where a commit can be reached.
#[derive(Debug, Clone, Copy, Default)]
struct Colour {
    of_tip: bool,
    of_base: bool,
}

const OF_TIP: Colour = Colour {
    of_tip: true,
    of_base: false,
};
const OF_BASE: Colour = Colour {
    of_tip: false,
    of_base: true,
};

/// Which commits are painted, and which of them have parents that are not yet.
#[derive(Default)]
struct Painting {
    colours: HashMap<ObjectId, Colour>,
    expanded: HashSet<ObjectId>,
    of_tip: Queue,
    of_base: Queue,
    pushed: u64,
}

type Queue = BinaryHeap<(i64, Reverse<u64>, ObjectId)>;

impl Painting {
    fn push(&mut self, id: ObjectId, time: i64, side: Colour) {
        self.pushed += 1;
        let item = (time, Reverse(self.pushed), id);
        if side.of_tip {
            self.of_tip.push(item);
        } else {
            self.of_base.push(item);
        }
    }

    /// The time of the newest commit on this side whose parents are not painted yet. The tip's side ends where the base's starts.
    fn peek(&mut self, side: Colour) -> Option<i64> {
        let (queue, colours, expanded) = if side.of_tip {
            (&mut self.of_tip, &self.colours, &self.expanded)
        } else {
            (&mut self.of_base, &self.colours, &self.expanded)
        };
        while let Some((time, _, id)) = queue.peek() {
            let is_of_base = colours.get(id).is_some_and(|colour| colour.of_base);
            if (side.of_tip && is_of_base) || expanded.contains(id) {
                queue.pop();
            } else {
                return Some(*time);
            }
        }
        None
    }

    fn pop(&mut self, side: Colour) -> Option<ObjectId> {
        self.peek(side)?;
        let queue = if side.of_tip {
            &mut self.of_tip
        } else {
            &mut self.of_base
        };
        let (_, _, id) = queue.pop()?;
        self.expanded.insert(id);
        Some(id)
    }
}
