//! Two tables become one.

use super::{Data, Entry, Key, Mistake, Table};

impl Table {
    /// Lays `later` over this table: tables merge key by key, everything else is replaced. What was replaced is forgotten, with its
    /// place.
    pub fn overlay(&mut self, later: &Table) {
        for (key, later) in later.shared() {
            if let Some(earlier) = self.entry_mut(key)
                && let (Data::Table(earlier_table), Data::Table(later_table)) =
                    (&mut earlier.value.data, &later.value.data)
            {
                earlier_table.overlay(later_table);
                earlier.key = later.key.clone();
                earlier.value.place = later.value.place.clone();
            } else {
                self.insert(Key::clone(key), later.clone());
            }
        }
    }

    /// Unites this table with `other`, which stands beside it: tables merge key by key, and a key set in both is a mistake.
    pub fn unite(&mut self, other: Table, mistakes: &mut Vec<Mistake>) {
        // Both are sorted: thousands of keys are merged in one pass.
        let mut united: Vec<(Key, Entry)> = Vec::with_capacity(self.len() + other.len());
        let mut firsts = std::mem::take(self).into_entries().peekable();
        for (key, second) in other.into_entries() {
            while let Some(first) = firsts.next_if(|(first, _)| *first < key) {
                united.push(first);
            }
            let Some((_, mut first)) = firsts.next_if(|(first, _)| *first == key) else {
                united.push((key, second));
                continue;
            };
            match (&mut first.value.data, second.value.data) {
                (Data::Table(first), Data::Table(second)) => first.unite(second, mistakes),
                _ => mistakes.push(
                    Mistake::new(&second.key, format!("key '{key}' is set twice"))
                        .note("first set here", &first.key),
                ),
            }
            united.push((key, first));
        }
        united.extend(firsts);
        *self = Table::of_sorted(united);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Place, Source, Value, parse};
    use super::*;

    fn overlaid(layers: &[&str]) -> String {
        let mut merged = Table::new();
        for (index, text) in layers.iter().enumerate() {
            merged.overlay(&parse(&Source::new(format!("{index}.toml"), *text)).unwrap());
        }
        serde_json::to_string(&merged).unwrap()
    }

    #[track_caller]
    fn check(layers: &[&str], expected: &str) {
        assert_eq!(overlaid(layers), expected);
    }

    #[test]
    fn tables_merge_key_by_key_and_all_else_is_replaced() {
        check(&["a = 1\nb = 2", "b = 3\nc = 4"], r#"{"a":1,"b":3,"c":4}"#);
        check(&["[t]\na = 1", "[t]\nb = 2"], r#"{"t":{"a":1,"b":2}}"#);
        check(&["a = [1, 2]", "a = [3]"], r#"{"a":[3]}"#);
        check(&["a = 1", "[a]\nb = 1"], r#"{"a":{"b":1}}"#);
        check(&["[a]\nb = 1", "a = 1"], r#"{"a":1}"#);
    }

    #[test]
    fn origins_survive_a_merge() {
        let mut merged = parse(&Source::new("one.toml", "[t]\na = 1\nb = 1")).unwrap();
        merged.overlay(&parse(&Source::new("two.toml", "\n[t]\nb = 2")).unwrap());
        let t = merged.entry("t").unwrap();
        let values = t.value.as_table().unwrap();
        assert_eq!(format!("{:?}", t.key), "two.toml:2:2");
        assert_eq!(
            format!("{:?}", values.get("a").unwrap().place),
            "one.toml:2:5"
        );
        assert_eq!(
            format!("{:?}", values.get("b").unwrap().place),
            "two.toml:3:5"
        );
    }

    #[test]
    fn a_key_set_in_two_files_of_one_layer_names_both() {
        let mut mistakes = Vec::new();
        let mut table = parse(&Source::new("a.toml", "[file.x]\nmode = 1\nowner = 2")).unwrap();
        let other = parse(&Source::new("b.toml", "[file.x]\ngroup = 2\nmode = 1")).unwrap();
        table.unite(other, &mut mistakes);
        assert_eq!(mistakes.len(), 1);
        insta::assert_snapshot!(mistakes[0].draw(false).unwrap(), @r"
        error: b.toml:3:1: key 'mode' is set twice
          |
        3 | mode = 1
          | ^^^^
          |
        note: a.toml:2:1: first set here
          |
        2 | mode = 1
          | ^^^^
        ");
    }

    /// Any table, in which a key's values may be of different sorts.
    fn any_table() -> impl Strategy<Value = Table> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Data::Integer),
            "[a-z]{0,3}".prop_map(Data::String),
            any::<bool>().prop_map(Data::Boolean),
        ];
        let data = leaf.prop_recursive(3, 24, 4, |inner| {
            proptest::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|entries| Data::Table(table_of(entries)))
        });
        proptest::collection::btree_map("[a-d]", data, 0..4).prop_map(table_of)
    }

    fn table_of(entries: impl IntoIterator<Item = (String, Data)>) -> Table {
        let place = Place::start_of(&Source::new("generated", ""));
        let mut table = Table::new();
        for (key, data) in entries {
            let value = Value {
                place: place.clone(),
                data,
            };
            let entry = Entry {
                key: place.clone(),
                value,
            };
            table.insert(key, entry);
        }
        table
    }

    fn over(earlier: &Table, later: &Table) -> Table {
        let mut merged = earlier.clone();
        merged.overlay(later);
        merged
    }

    proptest! {
        #[test]
        fn overlaying_twice_changes_nothing(a in any_table(), b in any_table()) {
            prop_assert_eq!(over(&over(&a, &b), &b), over(&a, &b));
        }

        #[test]
        fn nothing_is_neutral(a in any_table()) {
            prop_assert_eq!(over(&a, &Table::new()), a.clone());
            prop_assert_eq!(over(&Table::new(), &a), a);
        }

        #[test]
        fn the_later_value_wins(a in any_table(), b in any_table()) {
            let merged = over(&a, &b);
            for (key, entry) in b.iter() {
                if entry.value.as_table().is_none() {
                    prop_assert_eq!(merged.get(key), Some(&entry.value));
                }
            }
            for key in a.keys() {
                prop_assert!(merged.get(key).is_some());
            }
        }

        #[test]
        fn uniting_without_mistakes_has_no_order(a in any_table(), b in any_table()) {
            let (mut mistakes, mut turned_mistakes) = (Vec::new(), Vec::new());
            let (mut united, mut turned) = (a.clone(), b.clone());
            united.unite(b, &mut mistakes);
            turned.unite(a, &mut turned_mistakes);
            prop_assert_eq!(mistakes.len(), turned_mistakes.len());
            if mistakes.is_empty() {
                prop_assert_eq!(united, turned);
            }
        }
    }
}
