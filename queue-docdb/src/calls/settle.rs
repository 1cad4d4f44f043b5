//! Ack and change: each entry is read, changed by all receipts that concern it, and written back.

use std::{collections::HashMap, time::Duration};

use mongodb::bson::{DateTime, Uuid, doc};
use queue_api::{LeaseAction, LeaseChange, LeaseOutcome, Receipt, millis};

use super::uses::{Outcomes, Use, decide, has_lost, trace};
use crate::{
    document::{
        entry::{Action, Entry},
        instant,
        receipt::ParsedReceipt,
        stored::Stored,
    },
    state::seen::FEW,
    store::{
        collection::QueueCollection,
        error::StoreError,
        write::{MOST_DELETES, To, Write, new_addend},
        written::{Trace, Written},
    },
};

/// The entries that a write of this call may have changed, with the revision that the first such write
/// saw.
type Doubtful = HashMap<Uuid, i64>;

/// The uses of a call, by entry, in order.
pub(crate) type Uses = HashMap<Uuid, Vec<Use>>;

impl QueueCollection {
    pub(crate) async fn ack(&self, receipts: &[Receipt]) -> Result<Vec<LeaseOutcome>, StoreError> {
        let mut outcomes = vec![LeaseOutcome::Lost; receipts.len()];
        self.settle(acks(receipts), &mut outcomes).await?;
        Ok(outcomes)
    }

    /// Changes leases, with outcomes as if the changes were made one after another.
    pub(crate) async fn change(
        &self,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>, StoreError> {
        let mut outcomes = vec![LeaseOutcome::Lost; changes.len()];
        let now = self.now().await;
        let mut open = Uses::new();
        for (index, change) in changes.iter().enumerate() {
            if let Some(held) = ParsedReceipt::parse(&change.receipt) {
                let action = action(&change.action, now);
                let uses = open.entry(held.entry).or_default();
                uses.push(Use {
                    index,
                    held,
                    action,
                });
            }
        }
        let settled = self.settle(open, &mut outcomes).await;
        // All but a dead letter may be ready sooner than before; also if the answer is an error.
        self.state.shared_poll.notify();
        settled?;
        Ok(outcomes)
    }

    /// Reads, decides and writes until every use has an outcome.
    async fn settle(
        &self,
        mut open: Uses,
        outcomes: &mut [LeaseOutcome],
    ) -> Result<(), StoreError> {
        let mut doubtful = Doubtful::new();
        let mut retries = self.deadline.retries();
        let mut is_first = true;
        let mut known: HashMap<Uuid, Stored> = HashMap::new();
        while !open.is_empty() {
            let ids: Vec<Uuid> = open.keys().copied().collect();
            let is_small = ids.len() <= FEW;
            let turn = match is_small {
                true => self.state.seen.turn().await,
                false => None,
            };
            let remembered = match is_small && is_first {
                true => self.state.seen.take(&ids),
                false => None,
            };
            is_first = false;
            let is_guess = remembered.is_some();
            let (mut found, set_aside) = match remembered {
                Some(remembered) => (remembered, Vec::new()),
                None => self.entries_or_set_aside(ids).await?,
            };
            // No call can lease or settle their messages any more.
            for id in set_aside {
                open.remove(&id);
                if doubtful.contains_key(&id) {
                    return Err(StoreError::Uncertain);
                }
            }
            let absent: Vec<Uuid> = open
                .keys()
                .filter(|id| !found.contains_key(id))
                .copied()
                .collect();
            if absent.iter().any(|id| doubtful.contains_key(id)) {
                return Err(StoreError::Uncertain);
            }
            if self.are_absent(&absent).await? {
                for id in &absent {
                    open.remove(id);
                }
            }
            for stored in found.values_mut() {
                // The same with its messages, which the next claim may need.
                if let Some(known) = known.remove(&stored.id)
                    && known.rev == stored.rev
                {
                    *stored = known;
                }
            }
            let mut writes = Vec::new();
            let mut decided: Vec<(Stored, Entry, Outcomes)> = Vec::new();
            let mut is_certain = true;
            for (id, uses) in open.iter() {
                let Some(stored) = found.remove(id) else {
                    continue;
                };
                let (after, outcomes) = decide(&stored.entry, uses);
                is_certain &= !has_lost(uses, &outcomes);
                // The write whose answer was lost may be what has used the receipt. It has not if the entry
                // is still as it was before.
                let before = doubtful.get(id);
                let is_doubtful = before.is_some_and(|before| *before != stored.rev);
                if is_doubtful && has_lost(uses, &outcomes) {
                    return Err(StoreError::Uncertain);
                }
                writes.push(write(&stored, &after, trace(uses)));
                decided.push((stored, after, outcomes));
            }
            // What is remembered does not prove that a receipt is not good. And the answer to a delete of many
            // entries only says which were deleted if a look has shown that all were there.
            let deletes = writes.iter().filter(|write| write.to == To::Deleted);
            if is_guess && !(is_certain && deletes.count() <= MOST_DELETES) {
                let entries = decided.into_iter().map(|(stored, ..)| (stored.id, stored));
                known = entries.collect();
                continue;
            }
            let added = new_addend();
            let written = self.compare_and_set(&writes, added, Duration::MAX).await?;
            for ((write, decided), written) in writes.iter().zip(decided).zip(written) {
                let (stored, after, decided) = decided;
                match written {
                    Written::Yes => {
                        open.remove(&write.id);
                        for (index, outcome) in decided {
                            outcomes[index] = outcome;
                        }
                        match write.to {
                            To::Deleted => self.state.seen.forget(write.id),
                            To::Update(_) => {
                                let rev = write.seen + added;
                                self.state.seen.put(stored.updated(after, rev));
                            }
                        }
                    }
                    Written::No => {}
                    Written::NotYet | Written::Unknown => {
                        doubtful.entry(write.id).or_insert(write.seen);
                    }
                }
            }
            drop(turn);
            if !open.is_empty() && !is_guess {
                // Each time another call has written.
                retries.contended().await?;
            }
        }
        Ok(())
    }
}

pub(crate) fn acks(receipts: &[Receipt]) -> Uses {
    let mut uses = Uses::new();
    for (index, receipt) in receipts.iter().enumerate() {
        if let Some(held) = ParsedReceipt::parse(receipt) {
            uses.entry(held.entry).or_default().push(Use {
                index,
                held,
                action: Action::Ack,
            });
        }
    }
    uses
}

/// The write that makes an entry `after`.
pub(crate) fn write(stored: &Stored, after: &Entry, trace: Trace) -> Write {
    let to = if after.is_gone() {
        To::Deleted
    } else if *after == stored.entry {
        To::Update(doc! {})
    } else {
        To::Update(stored.update(after))
    };
    Write {
        id: stored.id,
        seen: stored.rev,
        born: stored.born,
        to,
        trace,
    }
}

fn action(action: &LeaseAction, now: DateTime) -> Action {
    let after = |duration| instant::after(now, millis::ceil(duration)).timestamp_millis();
    let at = now.timestamp_millis();
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
