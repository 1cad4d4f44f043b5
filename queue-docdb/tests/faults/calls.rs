//! The calls that meet faults: what is there before, and the call.

use std::{fmt, time::Duration};

use mongodb::bson::{DateTime, Document, doc};
use queue_api::{MessageId, Purge, QueueBackend, Redrive, Result};
use queue_conformance::record::ReceiptAction;

use crate::{
    adversary::Adversary,
    log::{DELAY, Leased, Party},
    look::{Dead, Live},
    schedule::TIMEOUT,
    transact::failed,
};

/// A wait ends earlier if a message is ready.
pub(crate) const LONGEST_WAIT: Duration = TIMEOUT.saturating_mul(3);

/// The longest pause between two polls of a wait, as its documentation says.
pub(crate) const LONGEST_POLL_PAUSE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Call {
    Enqueue,
    EnqueueBatch,
    /// One of the ids is stored already.
    EnqueueAgain,
    /// The queue's first.
    EnqueueFirst,
    Lease,
    /// Messages of two entries, one of which keeps a message.
    LeaseBatch,
    /// Of two messages, one has no attempt left.
    LeaseBurying,
    Ack,
    /// All messages of two entries, and one of the two of a third.
    AckBatch,
    /// Some receipts are lost before.
    AckMixed,
    Extend,
    Nack,
    NackBatch,
    Release,
    DeadLetter,
    /// Each kind of change, on a message of its own. Two share an entry.
    ChangeBatch,
    Wait,
    Stats,
    Peek,
    DeadLetters,
    Purge,
    PurgeDead,
    Redrive,
    RedriveIds,
    DeleteQueue,
    ListQueues,
    Prepare,
    /// An ack of several entries, and an enqueue.
    Transaction,
    // Last: the cases of a call are drawn by its number.
    Messages,
    /// The queue was deleted.
    EnqueueDeleted,
    /// The first document cannot be read.
    LeaseDamaged,
    /// The others of its claim are acked.
    AckLast,
    /// The queue is empty. A message comes when the wait has met its fault.
    WaitEmpty,
}

pub(crate) const CALLS: [(Call, &str); 33] = [
    (Call::Enqueue, "enqueue"),
    (Call::EnqueueBatch, "enqueue_batch"),
    (Call::EnqueueAgain, "enqueue_again"),
    (Call::EnqueueFirst, "enqueue_first"),
    (Call::Lease, "lease"),
    (Call::LeaseBatch, "lease_batch"),
    (Call::LeaseBurying, "lease_burying"),
    (Call::Ack, "ack"),
    (Call::AckBatch, "ack_batch"),
    (Call::AckMixed, "ack_mixed"),
    (Call::Extend, "extend"),
    (Call::Nack, "nack"),
    (Call::NackBatch, "nack_batch"),
    (Call::Release, "release"),
    (Call::DeadLetter, "dead_letter"),
    (Call::ChangeBatch, "change_batch"),
    (Call::Wait, "wait"),
    (Call::Stats, "stats"),
    (Call::Peek, "peek"),
    (Call::DeadLetters, "dead_letters"),
    (Call::Purge, "purge"),
    (Call::PurgeDead, "purge_dead"),
    (Call::Redrive, "redrive"),
    (Call::RedriveIds, "redrive_ids"),
    (Call::DeleteQueue, "delete_queue"),
    (Call::ListQueues, "list_queues"),
    (Call::Prepare, "prepare"),
    (Call::Transaction, "transaction"),
    (Call::Messages, "messages"),
    (Call::EnqueueDeleted, "enqueue_deleted"),
    (Call::LeaseDamaged, "lease_damaged"),
    (Call::AckLast, "ack_last"),
    (Call::WaitEmpty, "wait_empty"),
];

/// What a call that reads has seen.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    Nothing,
    Peeked(std::collections::BTreeMap<String, Live>),
    Listed(std::collections::BTreeMap<String, Live>),
    Dead(std::collections::BTreeMap<String, Dead>),
    Stats(queue_api::QueueStats),
    IsListed(bool),
}

impl Call {
    /// Whether the queue does not exist before, or is deleted, and the process does not know it.
    pub(crate) fn is_first(self) -> bool {
        matches!(
            self,
            Self::EnqueueFirst | Self::EnqueueDeleted | Self::Prepare
        )
    }

    /// Whether the adversary can make its move, and the judges can tell what came of both.
    pub(crate) fn fits(self, adversary: Adversary) -> bool {
        match adversary {
            Adversary::SameIds => !self.ids().is_empty(),
            // It counts a damaged document, which the judges do not know.
            Adversary::PurgeDead => self != Self::LeaseDamaged,
            _ => true,
        }
    }

    /// The ids that it enqueues.
    pub(crate) fn ids(self) -> &'static [&'static str] {
        match self {
            Self::Enqueue => &["a"],
            Self::EnqueueBatch | Self::EnqueueAgain => &["a", "b", "c"],
            Self::EnqueueFirst | Self::EnqueueDeleted => &["a", "b"],
            Self::Transaction => &["next"],
            _ => &[],
        }
    }

    /// The ids that are there before, by entry: messages of one enqueue share one.
    fn entries(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::EnqueueFirst
            | Self::Prepare
            | Self::Enqueue
            | Self::EnqueueBatch
            | Self::WaitEmpty => &[],
            Self::EnqueueAgain | Self::EnqueueDeleted => &[&["a"]],
            Self::AckMixed => &[&["a", "b", "c", "d"]],
            Self::ChangeBatch => &[&["a", "b"], &["c"], &["d"]],
            Self::AckBatch | Self::Transaction => &[&["a"], &["b"], &["c", "d"]],
            Self::LeaseBatch => &[&["a"], &["b", "c"]],
            Self::Purge | Self::PurgeDead | Self::Redrive => &[&["a"], &["b"]],
            _ => &[&["a", "b"]],
        }
    }

    /// How many operation timeouts the call may last: one for each step of a long call, and for each
    /// call in a transaction.
    pub(crate) fn timeouts(self) -> u32 {
        match self {
            Self::Purge | Self::PurgeDead | Self::Redrive | Self::RedriveIds => 2,
            // A mark, a removal, and a look at what is left.
            Self::DeleteQueue => 3,
            // A call for each page.
            Self::Messages => 3,
            // Four calls, and an abort.
            Self::Transaction => 5,
            _ => 1,
        }
    }

    /// Fills the queue. Returns the deliveries that the call uses.
    pub(crate) async fn prepare(self, other: &Party) -> Result<Vec<Leased>> {
        match self {
            Self::LeaseDamaged => other.damage().await?,
            Self::LeaseBurying => {
                let copy = other.world.copy("a", 1);
                other.enqueue(vec![copy]).await?;
                other.lease(1).await?;
                other.world.clock.advance(Duration::from_secs(3600));
                other.enqueue(other.world.copies(&["b"])).await?;
                return Ok(Vec::new());
            }
            _ => {}
        }
        for ids in self.entries() {
            other.enqueue(other.world.copies(ids)).await?;
            // They are leased in this order.
            other.world.clock.advance(Duration::from_millis(1));
        }
        match self {
            Self::EnqueueDeleted => {
                other.delete_queue().await?;
                return Ok(Vec::new());
            }
            Self::EnqueueFirst
            | Self::Prepare
            | Self::Enqueue
            | Self::EnqueueBatch
            | Self::EnqueueAgain
            | Self::LeaseDamaged
            | Self::WaitEmpty
            | Self::Lease
            | Self::LeaseBatch
            | Self::Wait
            | Self::Stats
            | Self::Peek
            | Self::Messages
            | Self::Purge
            | Self::DeleteQueue
            | Self::ListQueues => return Ok(Vec::new()),
            _ => {}
        }
        let mut leased = other.lease(4).await?;
        leased.sort_by(|a, b| a.id.cmp(&b.id));
        match self {
            Self::AckBatch | Self::Transaction => leased.truncate(3),
            Self::AckMixed => {
                other.ack(vec![leased[1].clone()]).await?;
                let nack = (leased[2].clone(), ReceiptAction::Nack(0));
                other.settle(vec![nack]).await?;
                other.lease(1).await?;
            }
            Self::AckLast => drop(other.ack(leased.split_off(1)).await?),
            Self::DeadLetters | Self::PurgeDead | Self::Redrive | Self::RedriveIds => {
                let letters = leased.drain(..).map(|it| (it, ReceiptAction::DeadLetter));
                let letters = letters.collect();
                other.settle(letters).await?;
            }
            Self::Ack | Self::Extend | Self::Nack | Self::Release | Self::DeadLetter => {
                leased.truncate(1);
            }
            _ => {}
        }
        Ok(leased)
    }

    /// Makes the call. It is logged, unless it only waits or prepares.
    pub(crate) async fn make(self, party: &Party, leased: &[Leased]) -> Result<Seen> {
        let world = &party.world;
        let all = |action| leased.iter().cloned().map(|it| (it, action)).collect();
        match self {
            Self::Enqueue
            | Self::EnqueueBatch
            | Self::EnqueueAgain
            | Self::EnqueueFirst
            | Self::EnqueueDeleted => {
                party.enqueue(world.copies(self.ids())).await?;
            }
            Self::Lease => drop(party.lease(1).await?),
            Self::LeaseBatch | Self::LeaseBurying | Self::LeaseDamaged => {
                drop(party.lease(2).await?)
            }
            Self::Ack | Self::AckBatch | Self::AckMixed | Self::AckLast => {
                party.settle(all(ReceiptAction::Ack)).await?;
            }
            Self::Extend => drop(party.settle(all(ReceiptAction::Extend(DELAY))).await?),
            Self::Nack | Self::NackBatch => {
                party.settle(all(ReceiptAction::Nack(DELAY))).await?;
            }
            Self::Release => drop(party.settle(all(ReceiptAction::Release)).await?),
            Self::DeadLetter => drop(party.settle(all(ReceiptAction::DeadLetter)).await?),
            Self::ChangeBatch => {
                let actions = [
                    ReceiptAction::Extend(DELAY),
                    ReceiptAction::Nack(DELAY),
                    ReceiptAction::Release,
                    ReceiptAction::DeadLetter,
                ];
                party
                    .settle(leased.iter().cloned().zip(actions).collect())
                    .await?;
            }
            Self::Wait | Self::WaitEmpty => {
                party.backend.wait(&world.queue, LONGEST_WAIT).await?;
            }
            Self::Stats | Self::Peek | Self::Messages | Self::DeadLetters | Self::ListQueues => {
                return party.read(self.see(party)).await;
            }
            Self::Purge => drop(party.purge(Purge::Live).await?),
            Self::PurgeDead => drop(party.purge(Purge::Dead).await?),
            Self::Redrive => drop(party.redrive(Redrive::All).await?),
            Self::RedriveIds => {
                let ids = ["a", "b"].map(|id| MessageId::new(id).expect("an id"));
                party.redrive(Redrive::Ids(ids.to_vec())).await?;
            }
            Self::DeleteQueue => party.delete_queue().await?,
            Self::Prepare => party.backend.prepare(&world.queue).await?,
            Self::Transaction => party.transact(leased).await?,
        }
        Ok(Seen::Nothing)
    }

    async fn see(self, party: &Party) -> Result<Seen> {
        Ok(match self {
            Self::Stats => Seen::Stats(party.backend.stats(&party.world.queue).await?),
            Self::Peek => Seen::Peeked(party.peek().await?),
            Self::Messages => Seen::Listed(party.messages().await?),
            Self::DeadLetters => Seen::Dead(party.dead_letters().await?),
            Self::ListQueues => Seen::IsListed(party.lists_queue().await?),
            _ => Seen::Nothing,
        })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = CALLS.iter().find(|(it, _)| it == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

impl Party {
    /// Stores a document of another program's, which a lease call finds first.
    async fn damage(&self) -> Result<()> {
        let database = self.backend.client().database(&self.world.database);
        let collection = database.collection::<Document>(&format!("queue.{}", self.world.queue));
        let damaged = doc! { "visible_at": DateTime::from_millis(0) };
        collection.insert_one(damaged).await.map_err(failed)?;
        Ok(())
    }
}
