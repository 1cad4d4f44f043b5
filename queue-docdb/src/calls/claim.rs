//! What a lease call takes of the entries that it finds. No database.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use mongodb::bson::{DateTime, Uuid};
use queue_api::{Delivery, LeaseOptions, millis};

use crate::{
    document::{
        entry::{self, Entry, Millis, Taken},
        receipt::ParsedReceipt,
        stored::Stored,
    },
    store::{write::Write, written::Trace},
};

use super::settle;

/// A lease call.
pub(crate) struct Claim<'a> {
    options: &'a LeaseOptions,
    deliveries: Vec<Delivery>,
    /// Messages that the call has delivered. It meets each only once, however short the visibility
    /// timeout is (L4).
    met: HashMap<Uuid, Met>,
}

/// The messages of an entry that a call has delivered.
#[derive(Default)]
struct Met {
    numbers: HashSet<usize>,
    is_all: bool,
    /// When their leases expire.
    until: Millis,
}

/// An entry, and what a claim takes of it.
pub(crate) struct TakenEntry {
    stored: Stored,
    /// Its nonce is that of the round, which finds out by it which of its writes were carried out.
    claim: entry::NewLease,
    after: Entry,
    /// With the ready times that they had.
    taken: Vec<(Millis, Taken)>,
}

/// A part of an entry whose messages are ready.
#[derive(Clone, Copy)]
struct Ready {
    at: Millis,
    size: usize,
    /// Whether its entry is in parts.
    is_parted: bool,
    /// Of the entry.
    index: usize,
}

impl<'a> Claim<'a> {
    pub(crate) fn new(options: &'a LeaseOptions) -> Self {
        Self {
            options,
            deliveries: Vec::new(),
            met: HashMap::new(),
        }
    }

    pub(crate) fn wanted(&self) -> usize {
        self.options.max_messages() - self.deliveries.len()
    }

    pub(crate) fn has_deliveries(&self) -> bool {
        !self.deliveries.is_empty()
    }

    pub(crate) fn into_deliveries(self) -> Vec<Delivery> {
        self.deliveries
    }

    /// How many entries have messages that the call has delivered.
    pub(crate) fn met_entries(&self) -> usize {
        self.met.len()
    }

    /// Entries of which the call has leased all, and whose leases have expired.
    pub(crate) fn met_again(&self, now: DateTime) -> impl Iterator<Item = Uuid> {
        let is_again = move |met: &Met| met.is_all && met.until <= now.timestamp_millis();
        let again = self.met.iter().filter(move |(_, met)| is_again(met));
        again.map(|(entry, _)| *entry)
    }

    /// Takes messages that are ready at `now`, the first ready first, over all entries. Returns also the
    /// entries that it leaves as they are.
    pub(crate) fn take(
        &self,
        entries: Vec<Stored>,
        now: DateTime,
        leased_at: DateTime,
    ) -> (Vec<TakenEntry>, Vec<Stored>) {
        let nonce = Uuid::new();
        let now = now.timestamp_millis();
        let ready = |(index, stored): (usize, &Stored)| {
            let parts = stored.entry.parts.iter();
            let ready = parts.filter_map(|part| {
                let at = part.ready_at().filter(|at| *at <= now)?;
                Some(Ready {
                    at,
                    size: part.numbers.len(),
                    is_parted: stored.entry.is_parted(),
                    index,
                })
            });
            ready.collect::<Vec<_>>()
        };
        let ready = entries.iter().enumerate().flat_map(ready).collect();
        let mut wanted = self.wanted();
        let entries = entries.into_iter();
        let entries = entries.map(|stored| self.touch(stored, nonce, leased_at));
        let mut entries: Vec<TakenEntry> = entries.collect();
        for Ready { at, index, .. } in in_order(ready, wanted) {
            if wanted == 0 {
                break;
            }
            wanted -= self.take_of(&mut entries[index], at, wanted);
        }
        let is_taken = |it: &TakenEntry| it.after != it.stored.entry;
        let (taken, rest): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_taken);
        (taken, rest.into_iter().map(|it| it.stored).collect())
    }

    fn touch(&self, stored: Stored, nonce: Uuid, leased_at: DateTime) -> TakenEntry {
        let visibility = self.options.visibility_timeout();
        let visibility_millis = visibility.map_or(stored.visibility_millis, millis::ceil);
        let now = leased_at.timestamp_millis();
        let until = now.saturating_add(visibility_millis);
        TakenEntry {
            after: stored.entry.clone(),
            claim: entry::NewLease { nonce, now, until },
            stored,
            taken: Vec::new(),
        }
    }

    /// Takes messages of one part. Returns how many.
    fn take_of(&self, entry: &mut TakenEntry, at: Millis, wanted: usize) -> usize {
        let met = self.met.get(&entry.stored.id);
        let is_met = |number: usize| {
            met.is_some_and(|met| met.numbers.contains(&number))
                || entry
                    .taken
                    .iter()
                    .any(|(_, taken)| taken.numbers.contains(&number))
        };
        let Some(taken) = entry.after.lease(at, &entry.claim, wanted, is_met) else {
            return 0;
        };
        let count = taken.numbers.len();
        entry.taken.push((at, taken));
        count
    }

    /// Adds what a round has leased, in order of ready time.
    pub(crate) fn deliver(&mut self, leased: &[TakenEntry]) {
        let mut round = Vec::new();
        // An entry whose messages are all buried is not met again.
        for entry in leased.iter().filter(|it| it.has_deliveries()) {
            let numbers = entry.stored.entry.numbers();
            let met = self.met.entry(entry.stored.id).or_default();
            met.until = entry.claim.until;
            for (at, taken) in &entry.taken {
                met.numbers.extend(&taken.numbers);
                for &number in &taken.numbers {
                    let held = ParsedReceipt {
                        nonce: entry.claim.nonce,
                        entry: entry.stored.id,
                        number,
                    };
                    let place = numbers.binary_search(&number).ok();
                    let delivery = place.and_then(|place| entry.delivery(held, place));
                    round.extend(delivery.map(|it| (*at, it.with_attempt(taken.attempt))));
                }
            }
            let live = entry.after.parts.iter().filter(|it| it.dead_at().is_none());
            let mut live = live.flat_map(|part| &part.numbers);
            met.is_all = live.all(|number| met.numbers.contains(number));
        }
        round.sort_by_key(|(at, _)| *at);
        self.deliveries
            .extend(round.into_iter().map(|(_, delivery)| delivery));
    }
}

/// The order in which a claim of `wanted` messages takes them: by ready time. Of those that are ready
/// since the same millisecond, entries that are in parts come last if the claim then takes no other
/// entry apart. Whole entries cost less.
fn in_order(mut ready: Vec<Ready>, wanted: usize) -> Vec<Ready> {
    ready.sort_unstable_by_key(|it| (it.at, it.index));
    if takes_one_apart(&ready, wanted) {
        let index_order = ready.clone();
        ready.sort_unstable_by_key(|it| (it.at, it.is_parted, it.index));
        if takes_one_apart(&ready, wanted) {
            return index_order;
        }
    }
    ready
}

fn takes_one_apart(ready: &[Ready], mut wanted: usize) -> bool {
    for part in ready {
        match wanted.checked_sub(part.size) {
            Some(left) => wanted = left,
            None => return wanted > 0,
        }
    }
    false
}

impl TakenEntry {
    pub(crate) fn entry(&self) -> Uuid {
        self.stored.id
    }

    pub(crate) fn has_deliveries(&self) -> bool {
        self.taken
            .iter()
            .any(|(_, taken)| !taken.numbers.is_empty())
    }

    pub(crate) fn write(&self) -> Write {
        settle::write(&self.stored, &self.after, Trace::Claim(self.claim.nonce))
    }

    /// The entry as it was written, and whether it has more messages that are ready at `horizon`.
    pub(crate) fn written(self, added: i64, horizon: DateTime) -> (Stored, bool) {
        let rev = self.stored.rev + added;
        let stored = self.stored.updated(self.after, rev);
        let horizon = horizon.timestamp_millis();
        let has_more = stored.entry.visible_at().is_some_and(|at| at <= horizon);
        (stored, has_more)
    }

    /// The delivery of a message, whose id has this place.
    fn delivery(&self, held: ParsedReceipt, place: usize) -> Option<Delivery> {
        let id = self.stored.ids.get(place)?.clone();
        let message = self.stored.messages.get(held.number)?;
        let visibility = Duration::from_millis(self.claim.until.abs_diff(self.claim.now));
        let delivery = Delivery::new(id, message.payload.clone(), held.receipt())
            .with_headers(message.headers.clone())
            .with_max_attempts(self.stored.entry.max_attempts)
            .with_enqueued_at(self.stored.enqueued_at)
            .with_visibility_timeout(visibility)
            .with_lease_expires_at(DateTime::from_millis(self.claim.until).to_system_time());
        Some(delivery)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries of more than 15 messages are whole.
    fn order(ready: &[(Millis, usize)], wanted: usize) -> Vec<usize> {
        let ready = ready.iter().enumerate();
        let ready = ready.map(|(index, &(at, size))| Ready {
            at,
            size,
            is_parted: size < 16,
            index,
        });
        let in_order = in_order(ready.collect(), wanted);
        in_order.into_iter().map(|it| it.index).collect()
    }

    #[test]
    fn entries_of_one_millisecond_are_taken_whole_if_that_is_possible() {
        let left_over = [(5, 5), (5, 16), (5, 16), (5, 16)];
        assert_eq!(order(&left_over, 32), [1, 2, 3, 0]);
        assert_eq!(order(&left_over, 37), [0, 1, 2, 3]);
        for wanted in [1, 10, 34, 53, 100] {
            assert_eq!(order(&left_over, wanted), [0, 1, 2, 3], "{wanted}");
        }
    }

    #[test]
    fn an_earlier_ready_time_comes_first() {
        assert_eq!(order(&[(6, 16), (5, 2), (6, 16)], 16), [1, 0, 2]);
        assert_eq!(order(&[(6, 16), (7, 2), (7, 16)], 32), [0, 2, 1]);
    }
}
