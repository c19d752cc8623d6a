//! Values by path, for a reader who goes through the paths in order.
//!
//! Ten thousand paths are looked up several times in every cycle, nearly always in their order: the next one is beside the last one,
//! where no tree or table would have to be searched.

use std::cell::Cell;

/// Values sorted by path; of equal paths the last one counts.
#[derive(Debug, Clone)]
pub struct ByPath<K, V> {
    entries: Vec<(K, V)>,
    /// Where the last look-up ended.
    last: Cell<usize>,
}

impl<K, V> Default for ByPath<K, V> {
    fn default() -> Self {
        ByPath {
            entries: Vec::new(),
            last: Cell::new(0),
        }
    }
}

impl<K: AsRef<str>, V> FromIterator<(K, V)> for ByPath<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(values: I) -> Self {
        let mut entries: Vec<(K, V)> = values.into_iter().collect();
        let in_order = |one: &(K, V), other: &(K, V)| one.0.as_ref() < other.0.as_ref();
        if !entries.is_sorted_by(in_order) {
            entries.sort_by(|one, other| one.0.as_ref().cmp(other.0.as_ref()));
            entries.dedup_by(|later, earlier| {
                let is_same = later.0.as_ref() == earlier.0.as_ref();
                if is_same {
                    std::mem::swap(later, earlier);
                }
                is_same
            });
        }
        ByPath {
            entries,
            last: Cell::new(0),
        }
    }
}

impl<K: AsRef<str>, V> ByPath<K, V> {
    /// The values at `paths`, which are in order.
    pub fn of_sorted(entries: Vec<(K, V)>) -> Self {
        debug_assert!(entries.is_sorted_by(|one, other| one.0.as_ref() < other.0.as_ref()));
        ByPath {
            entries,
            last: Cell::new(0),
        }
    }

    /// The value at `path`.
    pub fn get(&self, path: &str) -> Option<&V> {
        self.find(path).ok().map(|index| &self.entries[index].1)
    }

    /// The value at `path`, to be changed.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut V> {
        let index = self.find(path).ok()?;
        Some(&mut self.entries[index].1)
    }

    /// Is there a value at `path`.
    pub fn contains(&self, path: &str) -> bool {
        self.find(path).is_ok()
    }

    /// Puts `value` at `path`, and returns what was there.
    pub fn insert(&mut self, path: K, value: V) -> Option<V> {
        match self.find(path.as_ref()) {
            Ok(index) => Some(std::mem::replace(&mut self.entries[index].1, value)),
            Err(index) => {
                self.entries.insert(index, (path, value));
                None
            }
        }
    }

    /// All values in the order of their paths.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.entries.iter().map(|(path, value)| (path, value))
    }

    /// All values in the order of their paths, given up.
    pub fn into_entries(self) -> Vec<(K, V)> {
        self.entries
    }

    /// The first path that comes after `path`.
    pub fn first_after(&self, path: &str) -> Option<&K> {
        let index = match self.find(path) {
            Ok(index) => index + 1,
            Err(index) => index,
        };
        self.entries.get(index).map(|(path, _)| path)
    }

    /// Where `path` is, or where it would be put.
    fn find(&self, path: &str) -> Result<usize, usize> {
        let at = |index: usize| self.entries.get(index).map(|(path, _)| path.as_ref());
        let last = self.last.get();
        // Whoever goes through the paths, in whichever direction, finds it beside the last one, or that there is none.
        let beside = [last + 1, last, last.wrapping_sub(1)];
        let found = match beside.into_iter().find(|index| at(*index) == Some(path)) {
            Some(index) => Ok(index),
            None if at(last).is_some_and(|one| one < path)
                && at(last + 1).is_none_or(|next| path < next) =>
            {
                Err(last + 1)
            }
            None => self
                .entries
                .binary_search_by(|(found, _)| found.as_ref().cmp(path)),
        };
        let (Ok(index) | Err(index)) = found;
        self.last.set(index);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn of_equal_paths_the_last_one_counts() {
        let values = ByPath::from_iter([("/b", 1), ("/a", 2), ("/b", 3), ("/a", 4)]);
        assert_eq!(
            values.iter().collect::<Vec<_>>(),
            [(&"/a", &4), (&"/b", &3)]
        );
    }

    proptest! {
        #[test]
        fn it_answers_as_a_map_does_in_whatever_order_it_is_asked(
            keys in proptest::collection::vec("[a-d]{1,2}", 0..20),
            questions in proptest::collection::vec("[a-e]{1,3}", 0..60),
        ) {
            let values = keys.iter().enumerate().map(|(index, key)| (key.as_str(), index));
            let map: BTreeMap<&str, usize> = values.clone().collect();
            let mut sorted: ByPath<&str, usize> = values.collect();
            for question in &questions {
                prop_assert_eq!(sorted.get(question), map.get(question.as_str()));
                let next = map.range::<str, _>((std::ops::Bound::Excluded(question.as_str()), std::ops::Bound::Unbounded)).next();
                prop_assert_eq!(sorted.first_after(question), next.map(|(key, _)| key));
            }
            let mut map = map;
            for question in &questions {
                prop_assert_eq!(sorted.insert(question, 99), map.insert(question, 99));
            }
            prop_assert_eq!(sorted.iter().collect::<Vec<_>>(), map.iter().collect::<Vec<_>>());
        }
    }
}
