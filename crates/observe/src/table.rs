//! A map that never holds more than it may: when it is full, the entry that was used the longest ago goes.
//!
//! **Invariants.** `order` has exactly one key for each entry. Use is noted coarsely: an entry that was used within the
//! last eighth of the map's size of uses keeps its place, so that a busy one costs one hash and nothing else.
use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

#[derive(Debug, Clone)]
pub(crate) struct Table<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// By last use.
    order: BTreeMap<u64, K>,
    clock: u64,
    limit: usize,
    evicted: u64,
}

#[derive(Debug, Clone)]
struct Entry<V> {
    used: u64,
    born: u64,
    value: V,
}

impl<K: Copy + Eq + Hash, V> Table<K, V> {
    pub(crate) fn new(limit: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), clock: 0, limit: limit.max(1), evicted: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Entries that had to go so far.
    #[cfg(test)]
    pub(crate) const fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    /// Does not count as use.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let entry = self.entries.get_mut(key)?;
        if self.clock.saturating_sub(entry.used) > (self.limit as u64) / 8 {
            self.clock += 1;
            self.order.remove(&entry.used);
            entry.used = self.clock;
            self.order.insert(self.clock, *key);
        }
        Some(&mut entry.value)
    }

    /// The entry of `key`, made if there is none.
    pub(crate) fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if !self.contains(&key) {
            self.insert(key, make());
        }
        self.get_mut(&key).expect("it was there, or was inserted just now")
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        while self.entries.len() >= self.limit {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.entries.remove(&oldest);
            self.evicted += 1;
        }
        self.clock += 1;
        self.order.insert(self.clock, key);
        self.entries.insert(key, Entry { used: self.clock, born: self.clock, value });
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.used);
        Some(entry.value)
    }

    /// In no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.value))
    }

    /// In the order in which they were made.
    pub(crate) fn by_birth(&self) -> Vec<(&K, &V)> {
        let mut all: Vec<_> = self.entries.iter().collect();
        all.sort_by_key(|(_, entry)| entry.born);
        all.into_iter().map(|(key, entry)| (key, &entry.value)).collect()
    }

    /// From the one that was used the longest ago.
    pub(crate) fn by_use(&self) -> impl Iterator<Item = &K> {
        self.order.values()
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut table = Table::new(3);
        for key in 0..3 {
            table.insert(key, key);
        }
        *table.get_mut(&0).unwrap() += 10;
        table.insert(3, 3);
        assert_eq!((table.get(&0), table.get(&1), table.len(), table.evicted()), (Some(&10), None, 3, 1));
        assert_eq!(table.by_use().copied().collect::<Vec<_>>(), [2, 0, 3]);
        assert_eq!(table.by_birth().into_iter().map(|(key, _)| *key).collect::<Vec<_>>(), [0, 2, 3]);
    }

    #[test]
    fn a_table_stays_sound_through_any_use() {
        let mut table = Table::new(16);
        for step in 0_u32..10_000 {
            let key = step.wrapping_mul(2_654_435_761) >> 25;
            match step % 3 {
                0 => *table.entry(key, || 0) += 1,
                1 => drop(table.get_mut(&key)),
                _ => drop(table.remove(&(key / 2))),
            }
            assert!(table.len() <= 16 && table.order.len() == table.entries.len());
        }
        assert!(table.evicted() > 0, "the limit was reached");
    }
}
