//! What of history the tip and the base have in common: each commit is painted with the colours of those from which it can be reached.
//!
//! The newest commits come first, by the dates that they claim: a wrong date costs time and nothing else.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use crate::git::ObjectId;

/// From where a commit can be reached.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Colour {
    pub(super) of_tip: bool,
    pub(super) of_base: bool,
}

pub(super) const OF_TIP: Colour = Colour {
    of_tip: true,
    of_base: false,
};
pub(super) const OF_BASE: Colour = Colour {
    of_tip: false,
    of_base: true,
};

/// Which commits are painted, and which of them have parents that are not yet.
#[derive(Default)]
pub(super) struct Painting {
    pub(super) colours: HashMap<ObjectId, Colour>,
    pub(super) expanded: HashSet<ObjectId>,
    of_tip: Queue,
    of_base: Queue,
    pushed: u64,
}

type Queue = BinaryHeap<(i64, Reverse<u64>, ObjectId)>;

impl Painting {
    /// Notes that the parents of `id`, which claims this time, are to be painted.
    pub(super) fn push(&mut self, id: ObjectId, time: i64, side: Colour) {
        self.pushed += 1;
        let item = (time, Reverse(self.pushed), id);
        if side.of_tip {
            self.of_tip.push(item);
        } else {
            self.of_base.push(item);
        }
    }

    /// The time of the newest commit on this side whose parents are not painted yet. The tip's side ends where the base's starts.
    pub(super) fn peek(&mut self, side: Colour) -> Option<i64> {
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

    /// That commit; its parents are the caller's to paint.
    pub(super) fn pop(&mut self, side: Colour) -> Option<ObjectId> {
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
