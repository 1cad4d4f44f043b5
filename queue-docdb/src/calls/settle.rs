//! Ack and change: each entry is read, changed by all receipts that concern it, and written back.

use std::{collections::HashMap, time::Duration};

use mongodb::bson::{DateTime, Uuid, doc};
use queue_api::{LeaseAction, LeaseChange, LeaseOutcome, Receipt, millis};

use super::uses::{Outcomes, Use, decide, has_lost, trace};
use crate::{
    document::{
        entry::{Action, Entry},
        receipt::ParsedReceipt,
        stored::Stored,
    },
    state::entry_cache::FEW,
    store::{
        collection::QueueCollection,
        error::StoreError,
        set_aside::Unreadable,
        write::{MOST_DELETES, Write, entries_by_id, new_addend},
        written::{Trace, Written},
    },
};

/// The uses of a call, by entry, in order.
pub(crate) type Uses = HashMap<Uuid, Vec<Use>>;

/// How many commands a call divides its writes among, after one command was not carried out in full. An open
/// transaction may hold an entry: the command then ends at it, and the rest would wait too.
const PARTS: usize = 8;

/// A call that is under way.
struct Settling {
    open: Uses,
    /// The entries that a write may have changed, with the revision that the first such write saw.
    doubtful: HashMap<Uuid, i64>,
    outcomes: Vec<LeaseOutcome>,
    /// Whether an outcome cannot be told. The call goes on with the other entries.
    is_uncertain: bool,
}

impl Settling {
    /// Gives up the entries that this call's own unanswered write may have changed. `is_changed` gets the
    /// revision that this write saw.
    fn give_up(&mut self, is_changed: impl Fn(&Uuid, i64) -> bool) {
        let before = self.open.len();
        let doubtful = &self.doubtful;
        self.open.retain(|id, _| {
            let seen = doubtful.get(id);
            !seen.is_some_and(|seen| is_changed(id, *seen))
        });
        self.is_uncertain |= self.open.len() < before;
    }
}

impl QueueCollection {
    pub(crate) async fn ack(&self, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>, StoreError> {
        self.check().await?;
        self.settle(acks(receipts), receipts.len()).await
    }

    /// Changes leases, with outcomes as if the changes were made one after another.
    pub(crate) async fn change(
        &self,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>, StoreError> {
        self.check().await?;
        let now = self.now().await;
        let open = changes
            .iter()
            .map(|it| (&it.receipt, action(&it.action, now)));
        let settled = self.settle(uses(open), changes.len()).await;
        // All but a dead letter may be ready sooner than before; also if the answer is an error.
        self.state.shared_poll.notify();
        settled
    }

    /// Reads, decides and writes until every use has an outcome.
    async fn settle(&self, open: Uses, uses: usize) -> Result<Vec<LeaseOutcome>, StoreError> {
        let mut call = Settling {
            open,
            doubtful: HashMap::new(),
            outcomes: vec![LeaseOutcome::Lost; uses],
            is_uncertain: false,
        };
        let mut known = self.settle_remembered(&mut call).await?;
        while !call.open.is_empty() {
            let turn = self.state.cache.turn(call.open.len()).await;
            let query = entries_by_id(call.open.keys().copied().collect());
            let found = self.find_entries(usize::MAX, query, Stored::read).await?;
            let unreadable = found.unreadable.iter().filter_map(Unreadable::entry);
            let unreadable: Vec<Uuid> = unreadable.collect();
            self.set_aside(found.unreadable).await?;
            let found = found.entries.into_iter().map(|it| (it.id, it));
            let mut found: HashMap<Uuid, Stored> = found.collect();
            call.give_up(|id, _| unreadable.contains(id) || !found.contains_key(id));
            // No call can lease or settle their messages any more.
            call.open.retain(|id, _| !unreadable.contains(id));
            let ids = call.open.keys().copied();
            let absent: Vec<Uuid> = ids.filter(|id| !found.contains_key(id)).collect();
            if self.are_absent(&absent).await? {
                call.open.retain(|id, _| found.contains_key(id));
            }
            for stored in found.values_mut() {
                // The same with its messages, which the next claim may need.
                if let Some(known) = known.remove(&stored.id)
                    && known.rev == stored.rev
                {
                    *stored = known;
                }
            }
            let mut decided = decide_each(&call.open, found);
            // A `Lost` may be due to this call's own unanswered write, unless the entry is unchanged.
            let lost = decided.iter().filter(|it| it.has_lost);
            let lost: HashMap<Uuid, i64> = lost.map(|it| (it.stored.id, it.stored.rev)).collect();
            call.give_up(|id, seen| lost.get(id).is_some_and(|rev| *rev != seen));
            decided.retain(|it| call.open.contains_key(&it.stored.id));
            let has_paused = self.write_each(decided, &mut call).await?;
            if !call.open.is_empty() && !has_paused {
                drop(turn);
                // Each time another call has written.
                self.deadline.contended().await?;
            }
        }
        match call.is_uncertain {
            true => Err(StoreError::Uncertain),
            false => Ok(call.outcomes),
        }
    }

    /// Settles without a find, if all entries are remembered and every receipt is good by them. Otherwise
    /// returns the entries that it took, to compare with what a find shows.
    async fn settle_remembered(
        &self,
        call: &mut Settling,
    ) -> Result<HashMap<Uuid, Stored>, StoreError> {
        if call.open.is_empty() || call.open.len() > FEW {
            return Ok(HashMap::new());
        }
        let _turn = self.state.cache.turn(call.open.len()).await;
        let ids: Vec<Uuid> = call.open.keys().copied().collect();
        let Some(remembered) = self.state.cache.take(&ids) else {
            return Ok(HashMap::new());
        };
        let decided = decide_each(&call.open, remembered);
        let deletes = decided.iter().filter(|it| it.after.is_gone()).count();
        // The cache may be old, so it cannot prove that a receipt is lost. A delete of many tells which ones
        // only after a find.
        if deletes > MOST_DELETES || decided.iter().any(|it| it.has_lost) {
            let entries = decided.into_iter().map(|it| (it.stored.id, it.stored));
            return Ok(entries.collect());
        }
        self.write_each(decided, call).await?;
        Ok(HashMap::new())
    }

    /// Writes what was decided. What was not written for certain stays open. Returns whether nothing could be
    /// sent, and it has paused.
    async fn write_each(
        &self,
        decided: Vec<Decided>,
        call: &mut Settling,
    ) -> Result<bool, StoreError> {
        let writes = decided.iter().map(|it| {
            let uses = call.open.get(&it.stored.id).map_or(&[][..], Vec::as_slice);
            write(&it.stored, &it.after, trace(uses))
        });
        let writes: Vec<Write> = writes.collect();
        let added = new_addend();
        let most = match call.doubtful.is_empty() {
            true => usize::MAX,
            false => writes.len().div_ceil(PARTS).max(1),
        };
        let written = self.compare_and_set(&writes, added, most, Duration::MAX);
        let (written, _) = match written.await {
            Err(error) if error.did_nothing() => {
                self.deadline.retries().after(error).await?;
                return Ok(true);
            }
            written => written?,
        };
        for (it, written) in decided.into_iter().zip(written) {
            let id = it.stored.id;
            match written {
                Written::Yes => {
                    call.open.remove(&id);
                    for (index, outcome) in it.outcomes {
                        call.outcomes[index] = outcome;
                    }
                    match it.after.is_gone() {
                        true => self.state.cache.forget(id),
                        false => {
                            let rev = it.stored.rev + added;
                            self.state.cache.put(it.stored.updated(it.after, rev));
                        }
                    }
                }
                Written::No => {}
                Written::NotYet | Written::Unknown => {
                    call.doubtful.entry(id).or_insert(it.stored.rev);
                }
            }
        }
        Ok(false)
    }
}

/// What the uses of a call make of an entry.
struct Decided {
    stored: Stored,
    after: Entry,
    outcomes: Outcomes,
    has_lost: bool,
}

fn decide_each(open: &Uses, mut found: HashMap<Uuid, Stored>) -> Vec<Decided> {
    let decide = |(id, uses): (&Uuid, &Vec<Use>)| {
        let stored = found.remove(id)?;
        let (after, outcomes) = decide(&stored.entry, uses);
        Some(Decided {
            has_lost: has_lost(uses, &outcomes),
            stored,
            after,
            outcomes,
        })
    };
    open.iter().filter_map(decide).collect()
}

pub(crate) fn acks(receipts: &[Receipt]) -> Uses {
    uses(receipts.iter().map(|receipt| (receipt, Action::Ack)))
}

fn uses<'a>(receipts: impl Iterator<Item = (&'a Receipt, Action)>) -> Uses {
    let mut uses = Uses::new();
    for (index, (receipt, action)) in receipts.enumerate() {
        if let Some(receipt) = ParsedReceipt::parse(receipt) {
            uses.entry(receipt.entry).or_default().push(Use {
                index,
                receipt,
                action,
            });
        }
    }
    uses
}

/// The write that makes an entry `after`.
pub(crate) fn write(stored: &Stored, after: &Entry, trace: Trace) -> Write {
    let update = if after.is_gone() {
        None
    } else if *after == stored.entry {
        Some(doc! {})
    } else {
        Some(stored.update(after))
    };
    Write {
        id: stored.id,
        seen: stored.rev,
        born: stored.born,
        update,
        trace,
    }
}

fn action(action: &LeaseAction, now: DateTime) -> Action {
    let at = now.timestamp_millis();
    let after = |duration| at.saturating_add(millis::ceil(duration));
    match action {
        LeaseAction::Extend(by) => Action::Extend { until: after(*by) },
        LeaseAction::Nack { delay } => Action::Nack {
            until: after(*delay),
        },
        LeaseAction::Release => Action::Release { at },
        LeaseAction::DeadLetter { reason } => Action::DeadLetter {
            at,
            reason: reason.clone(),
        },
    }
}
