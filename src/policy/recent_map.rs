//! A bounded map that drops entries which were not used lately: two generations; when the young one is full, the old
//! one is dropped.

use std::hash::Hash;

use crate::hashing::Map;

/// At most `2 x generation` entries.
#[derive(Debug)]
pub(super) struct RecentMap<K, V> {
    young: Map<K, V>,
    old: Map<K, V>,
    generation: usize,
}

impl<K: Hash + Eq + Clone, V> RecentMap<K, V> {
    pub(super) fn new(generation: usize) -> Self {
        Self { young: Map::default(), old: Map::default(), generation }
    }

    pub(super) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// The entry of `key`, which counts as asked for.
    pub(super) fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        if !self.young.contains_key(&key) && self.young.len() >= self.generation {
            self.old = std::mem::take(&mut self.young);
        }
        let kept = self.old.remove(&key);
        self.young.entry(key).or_insert_with(|| kept.unwrap_or_else(new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let mut recent: RecentMap<u32, u32> = RecentMap::new(10);
        for key in 0..1_000 {
            *recent.entry(key, || 0) += 1;
            *recent.entry(7, || 0) += 1;
            assert!(recent.young.len() <= 10 && recent.old.len() <= 10);
        }
        assert_eq!(recent.get(&7), Some(&1_001));
        assert_eq!(recent.get(&3), None);
    }
}
