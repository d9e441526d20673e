//! The entries of one object by index, close together: leaves of up to [`LEAF`], which are full where indices come in order.
//! The standard library's map leaves two fifths of its leaves empty then.

use std::collections::BTreeMap;

use super::index::Entry;

/// Most entries of a leaf.
const LEAF: usize = 32;

/// No leaf is empty.
#[derive(Debug)]
pub(super) struct Indices<T> {
    /// By an index that is no higher than its first, and higher than the last of the leaf before.
    leaves: BTreeMap<u32, Vec<Entry<T>>>,
}

impl<T> Default for Indices<T> {
    fn default() -> Indices<T> {
        Indices { leaves: BTreeMap::new() }
    }
}

impl<T> Indices<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        let (_, leaf) = self.leaves.range_mut(..=index).next_back()?;
        let at = leaf.binary_search_by_key(&index, |e| e.index).ok()?;
        Some(&mut leaf[at])
    }

    /// What had the index before.
    pub(super) fn insert(&mut self, entry: Entry<T>) -> Option<Entry<T>> {
        let index = entry.index;
        let Some((_, leaf)) = self.leaves.range_mut(..=index).next_back() else {
            // Before all others: to the first ones, if there is room.
            let first = self.leaves.first_entry().filter(|leaf| leaf.get().len() < LEAF);
            let mut leaf = first.map(|leaf| leaf.remove()).unwrap_or_default();
            leaf.insert(0, entry);
            self.leaves.insert(index, leaf);
            return None;
        };
        let at = match leaf.binary_search_by_key(&index, |e| e.index) {
            Ok(at) => return Some(std::mem::replace(&mut leaf[at], entry)),
            Err(at) => at,
        };
        if leaf.len() < LEAF {
            leaf.insert(at, entry);
        } else if at == LEAF {
            self.leaves.insert(index, vec![entry]);
        } else {
            let mut after = leaf.split_off(LEAF / 2);
            match at.checked_sub(LEAF / 2 + 1) {
                None => leaf.insert(at, entry),
                Some(_) => after.insert(at - LEAF / 2, entry),
            }
            self.leaves.insert(after[0].index, after);
        }
        None
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Entry<T>> {
        let (key, leaf) = self.leaves.range_mut(..=index).next_back()?;
        let at = leaf.binary_search_by_key(&index, |e| e.index).ok()?;
        let entry = leaf.remove(at);
        if leaf.is_empty() {
            let key = *key;
            self.leaves.remove(&key);
        } else if leaf.len() * 4 <= leaf.capacity() {
            leaf.shrink_to(leaf.len() * 2);
        }
        Some(entry)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry<T>> {
        self.leaves.values().flatten()
    }

    pub(super) fn into_entries(self) -> impl Iterator<Item = Entry<T>> {
        self.leaves.into_values().flatten()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::super::handle::Stamp;
    use super::super::index::Resident;
    use super::*;

    fn entry(index: u32, version: u64) -> Entry<u64> {
        let chunk: Arc<Resident<u64>> = Resident::new(version, Vec::new());
        Entry { index, leased: false, got: false, chunk, stamp: Stamp::default(), record: None, version }
    }

    fn order(name: &str) -> Vec<u32> {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        match name {
            "ascending" => (0..2000).collect(),
            "descending" => (0..2000).rev().collect(),
            "every eighth" => (0..2000).map(|i| 8 * i).collect(),
            _ => (0..4000).map(|_| random() % 1500).collect(),
        }
    }

    #[test]
    fn entries_are_those_of_an_ordered_map_in_whatever_order_they_come_and_go() {
        for name in ["ascending", "descending", "every eighth", "random"] {
            let (mut indices, mut model) = (Indices::default(), BTreeMap::new());
            for (version, index) in (0..).zip(order(name)) {
                let old = indices.insert(entry(index, version)).map(|e| e.version);
                assert_eq!(old, model.insert(index, version), "{name}: {index}");
                // What came some time before goes, seen from here.
                if version % 3 == 2 {
                    let gone = order(name)[version as usize / 2];
                    assert_eq!(indices.remove(gone).map(|e| e.version), model.remove(&gone), "{name}: {gone}");
                }
            }
            for index in 0..20_000 {
                assert_eq!(indices.get_mut(index).map(|e| e.version), model.get(&index).copied(), "{name}: {index}");
            }
            let all: Vec<_> = indices.entries().map(|e| (e.index, e.version)).collect();
            assert!(all.iter().copied().eq(model.iter().map(|(index, version)| (*index, *version))), "{name}");
            let leaves = indices.leaves.len();
            assert!(leaves <= 2 + all.len() / (LEAF / 4), "{name}: {leaves} leaves for {}", all.len());
            assert!(indices.leaves.values().all(|leaf| leaf.capacity() <= 2 * LEAF && !leaf.is_empty()), "{name}");
            model.keys().for_each(|index| assert!(indices.remove(*index).is_some()));
            assert!(indices.is_empty());
        }
    }

    #[test]
    fn indices_that_come_in_order_fill_their_leaves() {
        for name in ["ascending", "descending"] {
            let mut indices = Indices::default();
            order(name).into_iter().for_each(|index| drop(indices.insert(entry(index, 0))));
            assert_eq!(indices.leaves.len(), 2000_usize.div_ceil(LEAF), "{name}");
        }
    }
}
