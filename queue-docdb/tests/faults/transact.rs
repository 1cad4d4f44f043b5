//! The call that is a transaction: an ack and an enqueue.

use std::time::Duration;

use mongodb::{ClientSession, error::UNKNOWN_TRANSACTION_COMMIT_RESULT};
use queue_api::{
    EnqueueOutcome, Error, ErrorKind, LeaseOutcome, NewMessage, QueueTransaction, Receipt, Result,
};
use queue_conformance::record::{ReceiptAction, moment};
use tokio::time::timeout;

use crate::{
    calls::Call,
    log::{Copy, Event, Leased, Party, What, World},
    proxy::pause,
    schedule::TIMEOUT,
};

impl Party {
    /// Acks, and enqueues what follows, in a transaction. It is aborted if a receipt is lost.
    pub(crate) async fn transact(&self, leased: &[Leased]) -> Result<()> {
        let copies = self.world.copies(Call::Transaction.ids());
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
pub(crate) fn failed(error: mongodb::error::Error) -> Error {
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
