//! Changes of leases: extend, nack, return, dead-letter.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use mongodb::bson::{DateTime, Document, Uuid, doc};
use queue_api::{LeaseAction, LeaseChange, LeaseOutcome, millis};

use crate::{
    collection::{QueueCollection, unchanged},
    error::StoreError,
    instant,
    receipt::ParsedReceipt,
    retry::Retries,
};

/// One change, and where in the batch it stands.
struct Use<'a> {
    index: usize,
    held: ParsedReceipt,
    action: &'a LeaseAction,
}

impl QueueCollection {
    /// Changes leases, with outcomes as if the changes were made one after another.
    pub(crate) async fn change(
        &self,
        changes: &[LeaseChange],
    ) -> Result<Vec<LeaseOutcome>, StoreError> {
        let mut outcomes = vec![LeaseOutcome::Lost; changes.len()];
        let mut uses: Vec<Use<'_>> = changes
            .iter()
            .enumerate()
            .filter_map(|(index, change)| {
                let held = ParsedReceipt::parse(&change.receipt)?;
                Some(Use {
                    index,
                    held,
                    action: &change.action,
                })
            })
            .collect();
        // The statements of a command are carried out in no particular order, so a message
        // is changed once in a command, and a second change of it waits for the next.
        while !uses.is_empty() {
            let mut ids = HashSet::new();
            let (round, later): (Vec<_>, Vec<_>) = uses
                .into_iter()
                .partition(|each| ids.insert(each.held.id.clone()));
            self.change_each(&round, &mut outcomes).await?;
            uses = later;
        }
        Ok(outcomes)
    }

    /// Changes messages that are all different.
    async fn change_each(
        &self,
        uses: &[Use<'_>],
        outcomes: &mut [LeaseOutcome],
    ) -> Result<(), StoreError> {
        let call = Call {
            now: self.now().await,
            token: Uuid::new(),
        };
        let retries = self.deadline.retries();
        let answer = self.update_again(call.statements(uses), &retries).await;
        // All but a dead letter may be ready sooner than before; also where the answer is an
        // error.
        self.state.shared_poll.notify();
        let matched = match answer {
            Ok(matched) => matched,
            Err(error) => {
                self.change_again(&call, uses, retries, error).await?;
                uses.len() as u64
            }
        };
        let applied: Vec<&Use<'_>> = if matched == 0 {
            Vec::new()
        } else if matched == uses.len() as u64 {
            uses.iter().collect()
        } else {
            let held: Vec<&ParsedReceipt> = uses.iter().map(|each| &each.held).collect();
            let after = self.ownership(&held).await?;
            // A lease that is there now was there before, for nonces do not come back. A
            // settled one is gone, so what settles leaves a token behind.
            let left_a_trace = |each: &&Use<'_>| {
                after
                    .get(&each.held.id)
                    .is_some_and(|seen| match each.action {
                        LeaseAction::Extend(_) => seen.lease == Some(each.held.nonce),
                        _ => seen.settled == Some(call.token),
                    })
            };
            let applied: Vec<_> = uses.iter().filter(left_a_trace).collect();
            // Somebody took over and settled what this call had changed: the trace is gone,
            // and what never was one looks the same.
            let traces = applied.iter().map(|each| call.trace(each));
            if matched != applied.len() as u64 || self.held_by_majority(traces).await? != matched {
                return Err(StoreError::Uncertain);
            }
            applied
        };
        for each in applied {
            outcomes[each.index] = LeaseOutcome::Applied;
        }
        Ok(())
    }

    /// Makes those changes that a command of unknown outcome did not make, and returns when
    /// all are made.
    ///
    /// # Errors
    /// Also where the state of a message tells neither that its change was made nor that it
    /// was not: it was lost before, or others have leased and settled it since.
    async fn change_again(
        &self,
        call: &Call,
        uses: &[Use<'_>],
        mut retries: Retries,
        mut error: StoreError,
    ) -> Result<(), StoreError> {
        let held: Vec<&ParsedReceipt> = uses.iter().map(|each| &each.held).collect();
        loop {
            retries.after(error).await?;
            let seen = self.ownership(&held).await?;
            let (mut open, mut made) = (Vec::new(), Vec::new());
            for each in uses {
                match seen.get(&each.held.id) {
                    // Not made; or an extension, which may be made twice.
                    Some(seen) if seen.lease == Some(each.held.nonce) => open.push(each),
                    Some(seen) if seen.settled == Some(call.token) => {
                        made.push(unchanged(call.trace(each)));
                    }
                    _ => return Err(retries.into_last()),
                }
            }
            let mut statements = call.statements(open);
            statements.extend(made);
            match self.update_again(statements, &retries).await {
                Ok(matched) if matched == uses.len() as u64 => return Ok(()),
                Ok(_) => return Err(retries.into_last()),
                Err(next) => error = next,
            }
        }
    }
}

/// One command of changes.
struct Call {
    now: DateTime,
    token: Uuid,
}

/// Changes that one statement can make.
#[derive(PartialEq, Eq, Hash)]
enum Step {
    Extend { until: DateTime },
    Nack { until: DateTime },
    Return,
}

impl Call {
    fn statements<'a>(&self, uses: impl IntoIterator<Item = &'a Use<'a>>) -> Vec<Document> {
        let mut groups: HashMap<([u8; 16], Step), Vec<&str>> = HashMap::new();
        let mut statements = Vec::new();
        for Use { held, action, .. } in uses {
            let step = match action {
                LeaseAction::Extend(by) => Step::Extend {
                    until: self.after(*by),
                },
                LeaseAction::Nack { delay } => Step::Nack {
                    until: self.after(*delay),
                },
                LeaseAction::Release => Step::Return,
                LeaseAction::DeadLetter { reason } => {
                    statements.push(self.dead_letter(held, reason));
                    continue;
                }
            };
            groups
                .entry((held.nonce.bytes(), step))
                .or_default()
                .push(held.id.as_str());
        }
        statements.extend(groups.into_iter().map(|((nonce, step), ids)| {
            let filter = doc! { "_id": { "$in": ids }, "lease": Uuid::from_bytes(nonce) };
            doc! { "q": filter, "u": self.update(&step), "multi": true }
        }));
        statements
    }

    fn after(&self, duration: Duration) -> DateTime {
        instant::after(self.now, millis::ceil(duration))
    }

    fn update(&self, step: &Step) -> Document {
        match step {
            Step::Extend { until } => doc! { "$set": { "visible_at": until } },
            Step::Nack { until } => doc! {
                "$set": { "visible_at": until, "settled": self.token },
                "$unset": { "lease": "" },
            },
            // The nonce in the filter stands for an attempt that was counted, so there is
            // one to take back.
            Step::Return => doc! {
                "$set": { "visible_at": self.now, "settled": self.token },
                "$unset": { "lease": "" },
                "$inc": { "attempts": -1_i64 },
            },
        }
    }

    /// Selects the message if this change of it was made. An extension leaves no trace of its own.
    fn trace(&self, Use { held, action, .. }: &Use<'_>) -> Document {
        match action {
            LeaseAction::Extend(_) => doc! { "_id": held.id.as_str(), "lease": held.nonce },
            _ => doc! { "_id": held.id.as_str(), "settled": self.token },
        }
    }

    /// A statement of its own, because a dead letter is indexed by its id.
    fn dead_letter(&self, held: &ParsedReceipt, reason: &str) -> Document {
        let id = held.id.as_str();
        let dead = doc! { "id": id, "at": self.now, "reason": reason };
        let update = doc! {
            "$set": { "dead": dead, "settled": self.token },
            "$unset": { "visible_at": "", "lease": "" },
        };
        doc! { "q": { "_id": id, "lease": held.nonce }, "u": update }
    }
}
