//! A map that forgets what was not used lately.

use std::{collections::HashMap, hash::Hash, mem};

/// At least `SIZE` entries that were put last, in two generations. When the newer one is full, the older
/// one is forgotten, and the newer one takes its place.
#[derive(Debug)]
pub(crate) struct Recent<K, V, const SIZE: usize> {
    newer: HashMap<K, V>,
    older: HashMap<K, V>,
}

impl<K, V, const SIZE: usize> Default for Recent<K, V, SIZE> {
    fn default() -> Self {
        Self {
            newer: HashMap::new(),
            older: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash, V, const SIZE: usize> Recent<K, V, SIZE> {
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.newer.get(key).or_else(|| self.older.get(key))
    }

    pub(crate) fn take(&mut self, key: &K) -> Option<V> {
        let older = self.older.remove(key);
        self.newer.remove(key).or(older)
    }

    /// Entries in use are not forgotten.
    pub(crate) fn put(&mut self, key: K, value: V, is_in_use: impl Fn(&V) -> bool) {
        self.older.remove(&key);
        if self.newer.len() >= SIZE {
            let forgotten = mem::replace(&mut self.older, mem::take(&mut self.newer));
            let in_use = forgotten.into_iter().filter(|(_, value)| is_in_use(value));
            self.older.extend(in_use);
        }
        self.newer.insert(key, value);
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.newer.values().chain(self.older.values())
    }
}
