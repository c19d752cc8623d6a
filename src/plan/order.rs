//! The order of a plan: batches of steps that may be applied together.
//!
//! Every step has a *rank*, the preference of its kind, and *edges* to steps that must come before it. Ranks are a wish, edges are
//! not. A batch holds steps of one rank, so that a kind gets as much as possible in one go.

/// What ordering needs to know of a step.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// Lower ranks are applied earlier where no edge says otherwise.
    pub rank: u8,
    /// Indices of the steps that must be applied before this one.
    pub after: Vec<usize>,
}

/// Puts steps into batches of indices. Each step appears exactly once, after all steps it must come after; steps in a batch share a
/// rank and keep their order. Steps on a cycle (which authors cannot write: it is an error of the fleet) come last, by rank.
pub fn batches(places: &[Place]) -> Vec<Vec<usize>> {
    let mut waits_for: Vec<usize> = vec![0; places.len()];
    let mut dependants: Vec<Vec<usize>> = vec![Vec::new(); places.len()];
    for (index, place) in places.iter().enumerate() {
        for &before in &place.after {
            if before != index {
                waits_for[index] += 1;
                dependants[before].push(index);
            }
        }
    }
    let mut placed = vec![false; places.len()];
    let mut left = places.len();
    let mut batches = Vec::new();
    while left > 0 {
        let ready = |index: &usize| !placed[*index] && waits_for[*index] == 0;
        let open = |index: &usize| !placed[*index];
        let lowest = (0..places.len())
            .filter(ready)
            .map(|index| places[index].rank)
            .min()
            .or_else(|| {
                (0..places.len())
                    .filter(open)
                    .map(|index| places[index].rank)
                    .min()
            });
        let any_ready = (0..places.len()).any(|index| ready(&index));
        let batch: Vec<usize> = (0..places.len())
            .filter(|index| if any_ready { ready(index) } else { open(index) })
            .filter(|&index| Some(places[index].rank) == lowest)
            .collect();
        for &index in &batch {
            placed[index] = true;
            for &dependant in &dependants[index] {
                waits_for[dependant] = waits_for[dependant].saturating_sub(1);
            }
        }
        left -= batch.len();
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(places: &[(u8, &[usize])], expected: &[&[usize]]) {
        let places: Vec<Place> = places
            .iter()
            .map(|(rank, after)| Place {
                rank: *rank,
                after: after.to_vec(),
            })
            .collect();
        assert_eq!(batches(&places), expected);
    }

    #[test]
    fn ranks_order_what_no_edge_orders() {
        check(&[(3, &[]), (2, &[]), (3, &[])], &[&[1], &[0, 2]]);
    }

    #[test]
    fn an_edge_overrides_the_ranks() {
        check(&[(2, &[1]), (3, &[]), (2, &[])], &[&[2], &[1], &[0]]);
    }

    #[test]
    fn steps_with_different_needs_go_into_different_batches() {
        check(&[(2, &[]), (3, &[0]), (2, &[1])], &[&[0], &[1], &[2]]);
    }

    #[test]
    fn a_cycle_still_places_every_step() {
        check(&[(2, &[1]), (3, &[0])], &[&[0], &[1]]);
    }

    proptest! {
        #[test]
        fn every_step_is_placed_once_and_after_what_it_needs(
            input in proptest::collection::vec((0u8..8, proptest::collection::vec(0usize..30, 0..4)), 0..30)
        ) {
            let places: Vec<Place> = input
                .iter()
                .enumerate()
                // Edges only point back, so there is no cycle.
                .map(|(index, (rank, after))| Place {
                    rank: *rank,
                    after: after.iter().copied().filter(|&before| before < index).collect(),
                })
                .collect();
            let mut position = vec![usize::MAX; places.len()];
            for (number, batch) in batches(&places).iter().enumerate() {
                for &index in batch {
                    prop_assert_eq!(position[index], usize::MAX);
                    position[index] = number;
                }
            }
            for (index, place) in places.iter().enumerate() {
                prop_assert_ne!(position[index], usize::MAX);
                for &before in &place.after {
                    prop_assert!(position[before] < position[index]);
                }
            }
        }
    }
}
