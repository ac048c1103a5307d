//! Each name once: millions of numbers share a few thousand hosts, units and shapes, and refer to them by a number of four
//! bytes.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// The number of an entry. Given again once the entry is gone.
pub(super) type Id = u32;

/// Entries that are kept as long as somebody uses them.
#[derive(Debug)]
pub(super) struct Shared<T> {
    entries: Vec<Option<Entry<T>>>,
    free: Vec<Id>,
    by_key: HashTable<Id>,
    hasher: DefaultHashBuilder,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    users: u32,
}

/// What an entry is found by.
pub(super) trait Keyed {
    type Key<'a>: std::hash::Hash
    where
        Self: 'a;

    fn key(&self) -> Self::Key<'_>;
    fn is(&self, key: &Self::Key<'_>) -> bool;
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), by_key: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }
}

impl<T> Shared<T> {
    /// Panics where there is none: an id is held only by who uses the entry.
    pub(super) fn get(&self, id: Id) -> &T {
        &self.entry(id).value
    }

    /// What it is found by must stay as it is.
    pub(super) fn get_mut(&mut self, id: Id) -> &mut T {
        &mut self.entry_mut(id).value
    }

    /// One user more of an entry that is there.
    pub(super) fn acquire_again(&mut self, id: Id) -> Id {
        self.entry_mut(id).users += 1;
        id
    }

    fn entry_mut(&mut self, id: Id) -> &mut Entry<T> {
        self.entries[id as usize].as_mut().expect("it is used")
    }

    fn entry(&self, id: Id) -> &Entry<T> {
        self.entries[id as usize].as_ref().expect("it is used")
    }

    /// Every entry, with how many use it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &T, u32)> {
        let entries = (0..).zip(&self.entries);
        entries.filter_map(|(id, entry)| entry.as_ref().map(|entry| (id, &entry.value, entry.users)))
    }

    /// Every entry. What it is found by must stay as it is.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().flatten().map(|entry| &mut entry.value)
    }
}

impl<T: Keyed> Shared<T> {
    pub(super) fn find(&self, key: &T::Key<'_>) -> Option<Id> {
        let Self { entries, by_key, hasher, .. } = self;
        let is = |id: &Id| entries[*id as usize].as_ref().is_some_and(|entry| entry.value.is(key));
        by_key.find(hasher.hash_one(key), is).copied()
    }

    /// The entry of this key, made if there is none, with one user more.
    pub(super) fn acquire(&mut self, value: T) -> Id {
        let found = self.find(&value.key());
        let id = match found {
            Some(id) => id,
            None => self.insert(value),
        };
        self.acquire_again(id)
    }

    fn insert(&mut self, value: T) -> Id {
        let Self { entries, free, by_key, hasher } = self;
        let hash = hasher.hash_one(value.key());
        let entry = Some(Entry { value, users: 0 });
        let id = match free.pop() {
            Some(id) => {
                entries[id as usize] = entry;
                id
            }
            None => {
                entries.push(entry);
                Id::try_from(entries.len() - 1).expect("memory ends before four thousand million entries")
            }
        };
        by_key.insert_unique(hash, id, |id| {
            hasher.hash_one(entries[*id as usize].as_ref().expect("only what is there is in the table").value.key())
        });
        id
    }

    /// One user less; the entry goes with the last. Returns it then.
    pub(super) fn release(&mut self, id: Id) -> Option<T> {
        let entry = self.entries[id as usize].as_mut().expect("it is used");
        entry.users -= 1;
        if entry.users > 0 {
            return None;
        }
        let hash = self.hasher.hash_one(entry.value.key());
        let Ok(found) = self.by_key.find_entry(hash, |other| *other == id) else {
            unreachable!("all are in the table")
        };
        found.remove();
        self.free.push(id);
        self.entries[id as usize].take().map(|entry| entry.value)
    }
}

macro_rules! keyed_by_text {
    ($($type:ty),*) => {
        $(impl Keyed for $type {
            type Key<'a> = &'a str;

            fn key(&self) -> &str {
                self.as_str()
            }

            fn is(&self, key: &&str) -> bool {
                self.as_str() == *key
            }
        })*
    };
}

keyed_by_text!(common::address::Unit);

#[cfg(test)]
mod tests {
    use super::*;
    use common::address::Unit;

    fn unit(text: &str) -> Unit {
        text.parse().expect("a unit")
    }

    #[test]
    fn an_entry_lives_as_long_as_somebody_uses_it() {
        let mut units = Shared::default();
        let (a, b) = (units.acquire(unit("a")), units.acquire(unit("b")));
        assert_eq!(units.acquire(unit("a")), a);
        assert_ne!(a, b);
        assert_eq!(units.release(a), None);
        assert_eq!(units.find(&"a"), Some(a));
        assert_eq!(units.release(a), Some(unit("a")));
        assert_eq!(units.find(&"a"), None);
        assert_eq!(units.get(b), &unit("b"));
        assert_eq!(units.acquire(unit("c")), a);
    }
}
