//! Where the messages of a queue are kept, and how one is found by its id.

use std::{
    hash::BuildHasher,
    num::NonZeroU32,
    ops::{Index, IndexMut},
};

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};
use slab::Slab;

use crate::message::Message;

/// Where a message is kept until it is removed. No slot leaves the lock: whoever is outside names
/// a message by its id, since another message may be there by the time they are back.
///
/// The number is one more than the index, so that an optional slot is no larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(NonZeroU32);

impl Slot {
    fn new(index: usize) -> Self {
        let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        Self(number.expect("fewer than 2^32 messages"))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The messages of a queue. Those that came one after another are beside each other in memory,
/// so that going through a long queue does not wait for memory at each step.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    slots: Slab<Message>,
    /// Holds no ids: each is in its message already.
    by_id: HashTable<Indexed>,
    /// Seeded at random, so that nobody can choose ids that collide.
    hasher: DefaultHashBuilder,
}

/// The hash is kept, so that the table can grow without going back to each message.
#[derive(Clone, Copy, Debug)]
struct Indexed {
    hash: u32,
    slot: Slot,
}

impl Indexed {
    fn spread(&self) -> u64 {
        spread(self.hash)
    }
}

/// The table takes the place from the low bits of a hash and compares the high ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Messages {
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn find(&self, id: &str) -> Option<Slot> {
        let hash = self.hash(id);
        let is_it = |entry: &Indexed| entry.hash == hash && self[entry.slot].id.as_str() == id;
        let found = self.by_id.find(spread(hash), is_it)?;
        Some(found.slot)
    }

    /// Keeps the message of this id that `make` gives, unless there is one.
    pub(crate) fn insert_new(&mut self, id: &str, make: impl FnOnce() -> Message) -> Option<Slot> {
        let hash = self.hash(id);
        let Self { slots, by_id, .. } = self;
        let is_it =
            |entry: &Indexed| entry.hash == hash && slots[entry.slot.index()].id.as_str() == id;
        let Entry::Vacant(vacant) = by_id.entry(spread(hash), is_it, Indexed::spread) else {
            return None;
        };
        if slots.len() == slots.capacity() {
            // By a quarter: doubling would be room for messages that may never come.
            slots.reserve_exact(slots.len() / 4 + 16);
        }
        let slot = Slot::new(slots.insert(make()));
        vacant.insert(Indexed { hash, slot });
        Some(slot)
    }

    /// Keeps a message that comes from another store.
    pub(crate) fn insert(&mut self, message: Message) -> Slot {
        let id = message.id.clone();
        let slot = self.insert_new(id.as_str(), || message);
        slot.expect("an id is stored once")
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Message {
        let message = self.slots.remove(slot.index());
        let hash = self.hash(message.id.as_str());
        self.by_id
            .find_entry(spread(hash), |entry| entry.slot == slot)
            .expect("every message is found by its id")
            .remove();
        message
    }

    /// Whether most of the memory is that of messages which have been removed.
    pub(crate) fn is_sparse(&self) -> bool {
        let capacity = self.slots.capacity();
        capacity > 1024 && self.slots.len() < capacity / 8
    }

    fn hash(&self, id: &str) -> u32 {
        self.hasher.hash_one(id) as u32
    }
}

impl Index<Slot> for Messages {
    type Output = Message;

    fn index(&self, slot: Slot) -> &Message {
        &self.slots[slot.index()]
    }
}

impl IndexMut<Slot> for Messages {
    fn index_mut(&mut self, slot: Slot) -> &mut Message {
        &mut self.slots[slot.index()]
    }
}
