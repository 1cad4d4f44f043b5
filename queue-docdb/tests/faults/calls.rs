//! The calls that meet faults: what is there before, and the call.

use std::{fmt, time::Duration};

use mongodb::{
    ClientSession,
    bson::{DateTime, Document, doc},
    error::UNKNOWN_TRANSACTION_COMMIT_RESULT,
};
use queue_api::{
    EnqueueOutcome, Error, ErrorKind, LeaseOutcome, MessageId, NewMessage, Purge, QueueBackend,
    QueueTransaction, Receipt, Redrive, Result,
};
use queue_conformance::record::{ReceiptAction, moment};
use tokio::time::timeout;

use crate::{
    adversary::Adversary,
    log::{Copy, DELAY, Event, Leased, Party, What, World},
    look::{Dead, Live},
    proxy::pause,
    schedule::TIMEOUT,
};

/// A wait ends earlier if a message is ready.
pub(crate) const LONGEST_WAIT: Duration = TIMEOUT.saturating_mul(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Call {
    Enqueue,
    EnqueueBatch,
    /// One of two ids is stored already.
    EnqueueAgain,
    /// The queue's first.
    EnqueueFirst,
    Lease,
    LeaseBatch,
    /// Of two messages, one has no attempt left.
    LeaseBurying,
    Ack,
    AckBatch,
    /// Some receipts are lost before.
    AckMixed,
    Extend,
    Nack,
    NackBatch,
    Release,
    DeadLetter,
    /// Each kind of change, on a message of its own.
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
    /// An ack and an enqueue.
    Transaction,
    // Last: the cases of a call are drawn by its number.
    Messages,
    /// The queue was deleted.
    EnqueueDeleted,
    /// The first document cannot be read.
    LeaseDamaged,
    /// The others of its claim are acked.
    AckLast,
}

pub(crate) const CALLS: [(Call, &str); 32] = [
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
];

/// What a call that reads has seen.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    Nothing,
    Live(std::collections::BTreeMap<String, Live>),
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

    /// Whether the judges can tell what came of both. A purge counts a damaged document, which they do
    /// not know.
    pub(crate) fn fits(self, adversary: Adversary) -> bool {
        self != Self::LeaseDamaged || adversary != Adversary::PurgeDead
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
            Self::EnqueueFirst | Self::Prepare | Self::Enqueue | Self::EnqueueBatch => {
                return Ok(Vec::new());
            }
            Self::EnqueueDeleted => {
                other.send(&["a"]).await?;
                other.delete_queue().await?;
                return Ok(Vec::new());
            }
            Self::LeaseDamaged => {
                other.damage().await?;
                other.send(&["a", "b"]).await?;
                return Ok(Vec::new());
            }
            Self::EnqueueAgain => {
                other.send(&["a"]).await?;
                return Ok(Vec::new());
            }
            Self::LeaseBurying => {
                let copy = other.world.copy("a", 1);
                other.enqueue(vec![copy]).await?;
                other.lease(1).await?;
                other.world.clock.advance(Duration::from_secs(3600));
                other.send(&["b"]).await?;
                return Ok(Vec::new());
            }
            Self::ChangeBatch | Self::AckMixed => other.send(&["a", "b", "c", "d"]).await?,
            _ => other.send(&["a", "b"]).await?,
        }
        match self {
            Self::Lease
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

    /// Makes the call. It is logged, unless it only reads.
    pub(crate) async fn make(self, party: &Party, leased: &[Leased]) -> Result<Seen> {
        let world = &party.world;
        let all = |action| leased.iter().cloned().map(|it| (it, action)).collect();
        match self {
            Self::Enqueue => drop(party.enqueue(world.copies(&["a"])).await?),
            Self::EnqueueBatch => drop(party.enqueue(world.copies(&["a", "b", "c"])).await?),
            Self::EnqueueAgain | Self::EnqueueFirst | Self::EnqueueDeleted => {
                party.enqueue(world.copies(&["a", "b"])).await?;
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
            Self::Wait => {
                party.backend.wait(&world.queue, LONGEST_WAIT).await?;
            }
            Self::Stats => return Ok(Seen::Stats(party.backend.stats(&world.queue).await?)),
            Self::Peek => return Ok(Seen::Live(party.peek().await?)),
            Self::Messages => return Ok(Seen::Live(party.messages().await?)),
            Self::DeadLetters => return Ok(Seen::Dead(party.dead_letters().await?)),
            Self::Purge => drop(party.purge(Purge::Live).await?),
            Self::PurgeDead => drop(party.purge(Purge::Dead).await?),
            Self::Redrive => drop(party.redrive(Redrive::All).await?),
            Self::RedriveIds => {
                let ids = ["a", "b"].map(|id| MessageId::new(id).expect("an id"));
                party.redrive(Redrive::Ids(ids.to_vec())).await?;
            }
            Self::DeleteQueue => party.delete_queue().await?,
            Self::ListQueues => return Ok(Seen::IsListed(party.lists_queue().await?)),
            Self::Prepare => party.backend.prepare(&world.queue).await?,
            Self::Transaction => party.transact(leased).await?,
        }
        Ok(Seen::Nothing)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = CALLS.iter().find(|(it, _)| it == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

impl Party {
    async fn send(&self, ids: &[&str]) -> Result<()> {
        self.enqueue(self.world.copies(ids)).await?;
        Ok(())
    }

    /// Acks, and enqueues what follows, in a transaction. It is aborted if a receipt is lost.
    async fn transact(&self, leased: &[Leased]) -> Result<()> {
        let copies = self.world.copies(&["next"]);
        let (number, began, clock_from) = (self.world.number(), moment(), self.world.now());
        let uses: Vec<_> = leased
            .iter()
            .map(|it| (it.clone(), ReceiptAction::Ack))
            .collect();
        let events = |answers: Option<Outcomes>| {
            let (acked, stored) = answers.unzip();
            let settle = What::Settle {
                uses: uses.clone(),
                answer: acked,
            };
            let enqueue = What::Enqueue {
                copies: copies.clone(),
                answer: stored,
            };
            [settle, enqueue].map(|what| Event {
                by: self.name,
                number,
                began,
                returned: moment(),
                clock_from,
                clock_to: self.world.now(),
                what,
                is_in_transaction: true,
            })
        };
        events(None).iter().for_each(|it| self.world.announce(it));
        let mut log = LogAtEnd {
            world: &self.world,
            events: events(None).to_vec(),
        };
        let done = self.commit(leased, &copies).await;
        log.events = events(done.as_ref().ok().cloned().flatten()).to_vec();
        done.map(drop)
    }

    /// The outcomes of a transaction that was committed, or `None` if it was aborted.
    async fn commit(&self, leased: &[Leased], copies: &[Copy]) -> Result<Option<Outcomes>> {
        let receipts: Vec<Receipt> = leased.iter().map(Leased::receipt).collect();
        let messages: Vec<NewMessage> = copies.iter().map(Copy::message).collect();
        let mut session = self.backend.start_session().await?;
        session.start_transaction().await.map_err(failed)?;
        let mut transaction = self.backend.in_transaction(&mut session);
        let outcomes = async {
            let acked = transaction.ack(&self.world.queue, &receipts).await?;
            let stored = transaction.enqueue(&self.world.queue, &messages).await?;
            Ok((acked, stored))
        };
        let outcomes: Outcomes = match outcomes.await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                abort(&mut session).await;
                return Err(error);
            }
        };
        if outcomes.0.contains(&LeaseOutcome::Lost) {
            abort(&mut session).await;
            return Ok(None);
        }
        // The driver waits for its answer without end.
        match timeout(TIMEOUT, commit(&mut session)).await {
            Ok(committed) => committed.map_err(failed)?,
            Err(_) => return Err(Error::new(ErrorKind::TimedOut, "commit", "no answer")),
        }
        Ok(Some(outcomes))
    }

    /// Stores a document of another program's, which a lease call finds first.
    async fn damage(&self) -> Result<()> {
        let database = self.backend.client().database(&self.world.database);
        let collection = database.collection::<Document>(&format!("queue.{}", self.world.queue));
        let damaged = doc! { "visible_at": DateTime::from_millis(0) };
        collection.insert_one(damaged).await.map_err(failed)?;
        Ok(())
    }
}

/// Logs the events of a transaction when it has ended, also if it is dropped.
struct LogAtEnd<'a> {
    world: &'a World,
    events: Vec<Event>,
}

impl Drop for LogAtEnd<'_> {
    fn drop(&mut self) {
        for event in self.events.drain(..) {
            self.world.push(Event {
                returned: moment(),
                clock_to: self.world.now(),
                ..event
            });
        }
    }
}

type Outcomes = (Vec<LeaseOutcome>, Vec<EnqueueOutcome>);

/// The application does not know what was done, and begins again.
fn failed(error: mongodb::error::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "transaction", "failed").with_source(error)
}

/// Repeats the commit after lost answers, as the documentation asks of applications. Until then, the
/// transaction may hold what it has changed.
async fn commit(session: &mut ClientSession) -> mongodb::error::Result<()> {
    loop {
        match session.commit_transaction().await {
            Err(error) if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {
                pause(Duration::from_millis(50)).await;
            }
            committed => return committed,
        }
    }
}

async fn abort(session: &mut ClientSession) {
    // The connection may be silent. The server aborts it later.
    let _ = timeout(TIMEOUT, session.abort_transaction()).await;
}
