//! What all parties of a case have done, as the judges need it.

use std::{
    collections::HashMap,
    fmt,
    marker::PhantomData,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use queue_api::{
    Clock, Delivery, EnqueueOutcome, LeaseChange, LeaseOptions, LeaseOutcome, ManualClock,
    MessageId, NewMessage, Purge, QueueAdmin, QueueBackend, QueueName, Receipt, Redrive, Result,
};
use queue_conformance::record::{Millis, Moment, ReceiptAction, moment};
use queue_docdb::DocDbBackend;
use serde::{Deserialize, Serialize};

use crate::calls::Seen;

/// The visibility timeout of all messages.
pub(crate) const VISIBILITY: Duration = NewMessage::DEFAULT_VISIBILITY_TIMEOUT;

/// The delay of nacks and the length of extensions.
pub(crate) const DELAY: Millis = 90_000;

pub(crate) const REASON: &str = "refused by its handler";

/// A message as it was sent. An id may be used again, a payload is not.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) id: String,
    pub(crate) payload: String,
    pub(crate) max_attempts: u32,
}

/// A delivery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Leased {
    pub(crate) id: String,
    pub(crate) payload: String,
    pub(crate) receipt: String,
    pub(crate) attempt: u32,
    pub(crate) expires: Millis,
}

/// A request, and its answer if there was one.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Enqueue {
        copies: Vec<Copy>,
        answer: Option<Vec<EnqueueOutcome>>,
    },
    Lease {
        most: usize,
        answer: Option<Vec<Leased>>,
    },
    Settle {
        uses: Vec<(Leased, ReceiptAction)>,
        answer: Option<Vec<LeaseOutcome>>,
    },
    Purge {
        what: Purge,
        answer: Option<u64>,
    },
    Redrive {
        answer: Option<u64>,
    },
    Delete {
        is_answered: bool,
    },
    /// What a call that changes nothing has seen.
    Read(Option<Seen>),
}

/// A call.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) by: &'static str,
    pub(crate) number: u64,
    pub(crate) began: Moment,
    /// When it returned, with an answer or an error.
    pub(crate) returned: Moment,
    pub(crate) clock_from: Millis,
    pub(crate) clock_to: Millis,
    pub(crate) what: What,
    /// Of a transaction, all of whose events take effect together.
    pub(crate) is_in_transaction: bool,
}

impl Event {
    pub(crate) fn is_answered(&self) -> bool {
        match &self.what {
            What::Enqueue { answer, .. } => answer.is_some(),
            What::Lease { answer, .. } => answer.is_some(),
            What::Settle { answer, .. } => answer.is_some(),
            What::Purge { answer, .. } | What::Redrive { answer } => answer.is_some(),
            What::Delete { is_answered } => *is_answered,
            What::Read(answer) => answer.is_some(),
        }
    }
}

/// The queue of a case, with its clock and its log.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) database: String,
    pub(crate) queue: QueueName,
    pub(crate) clock: Arc<ManualClock>,
    events: Mutex<Vec<Event>>,
    numbers: AtomicU64,
    copies: AtomicU64,
    /// Told of each call before it is made and again when it has returned.
    announce: Option<fn(&Event)>,
}

impl World {
    pub(crate) fn new(database: &str) -> Self {
        Self {
            database: database.to_owned(),
            queue: QueueName::new("mail").expect("a name"),
            clock: Arc::new(ManualClock::new()),
            events: Mutex::default(),
            numbers: AtomicU64::new(1),
            copies: AtomicU64::new(0),
            announce: None,
        }
    }

    /// The same in another process, whose messages have other numbers.
    pub(crate) fn of_child(database: &str, announce: fn(&Event)) -> Self {
        Self {
            copies: AtomicU64::new(1000),
            announce: Some(announce),
            ..Self::new(database)
        }
    }

    pub(crate) fn announce(&self, event: &Event) {
        if let Some(announce) = self.announce {
            announce(event);
        }
    }

    pub(crate) fn now(&self) -> Millis {
        let now = self.clock.now().duration_since(UNIX_EPOCH);
        now.map_or(0, |now| now.as_millis() as Millis)
    }

    /// A message that no call has sent before.
    pub(crate) fn copy(&self, id: &str, max_attempts: u32) -> Copy {
        let number = self.copies.fetch_add(1, Ordering::Relaxed);
        Copy {
            id: id.to_owned(),
            payload: format!("{id}#{number}"),
            max_attempts,
        }
    }

    pub(crate) fn copies(&self, ids: &[&str]) -> Vec<Copy> {
        ids.iter().map(|id| self.copy(id, 1000)).collect()
    }

    pub(crate) fn push(&self, event: Event) {
        self.announce(&event);
        self.events.lock().expect("no panic").push(event);
    }

    /// All calls that have returned, in the order in which they began.
    pub(crate) fn events(&self) -> Vec<Event> {
        let mut events = self.events.lock().expect("no panic").clone();
        events.sort_by_key(|event| event.began);
        events
    }

    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The last delivery of each message that a party got and that is not settled for certain.
    pub(crate) fn held(&self) -> Vec<Leased> {
        let mut held: HashMap<String, Leased> = HashMap::new();
        for event in self.events() {
            match event.what {
                What::Lease { answer, .. } => {
                    let leased = answer.into_iter().flatten();
                    held.extend(leased.map(|it| (it.payload.clone(), it)));
                }
                What::Settle { uses, answer, .. } if answer.is_some() => {
                    for (leased, action) in uses {
                        if !matches!(action, ReceiptAction::Extend(_)) {
                            held.remove(&leased.payload);
                        }
                    }
                }
                _ => {}
            }
        }
        let mut held: Vec<Leased> = held.into_values().collect();
        held.sort_by(|a, b| a.payload.cmp(&b.payload));
        held
    }
}

/// One process of a case.
#[derive(Clone)]
pub(crate) struct Party {
    pub(crate) name: &'static str,
    pub(crate) backend: DocDbBackend,
    pub(crate) world: Arc<World>,
}

impl fmt::Debug for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Copy {
    pub(crate) fn message(&self) -> NewMessage {
        NewMessage::new(self.payload.clone())
            .with_id(MessageId::new(self.id.as_str()).expect("an id"))
            .with_max_attempts(self.max_attempts)
    }
}

impl Leased {
    fn new(delivery: &Delivery) -> Self {
        let expires = delivery.lease_expires_at.duration_since(UNIX_EPOCH);
        Self {
            id: delivery.id.to_string(),
            payload: String::from_utf8_lossy(&delivery.payload).into_owned(),
            receipt: delivery.receipt.to_string(),
            attempt: delivery.attempt,
            expires: expires.map_or(0, |at| at.as_millis() as Millis),
        }
    }

    pub(crate) fn receipt(&self) -> Receipt {
        Receipt::new(self.receipt.as_str())
    }
}

impl Party {
    /// Makes a call, and logs it, also if it is dropped.
    async fn log<T>(
        &self,
        call: impl Future<Output = Result<T>>,
        what: impl Fn(Option<&T>) -> What,
    ) -> Result<T> {
        let mut pending = Pending {
            by: self,
            number: self.world.number(),
            began: moment(),
            clock_from: self.world.now(),
            what,
            has_ended: false,
            answer: PhantomData,
        };
        self.world.announce(&pending.event(None));
        let answer = call.await;
        pending.end(answer.as_ref().ok());
        answer
    }

    pub(crate) async fn enqueue(&self, copies: Vec<Copy>) -> Result<Vec<EnqueueOutcome>> {
        let messages: Vec<NewMessage> = copies.iter().map(Copy::message).collect();
        let call = self.backend.enqueue(&self.world.queue, &messages);
        let what = |answer: Option<&Vec<_>>| What::Enqueue {
            copies: copies.clone(),
            answer: answer.cloned(),
        };
        self.log(call, what).await
    }

    pub(crate) async fn lease(&self, most: usize) -> Result<Vec<Leased>> {
        let options = LeaseOptions::new(most);
        let call = async {
            let leased = self.backend.lease(&self.world.queue, &options).await?;
            Ok(leased.iter().map(Leased::new).collect())
        };
        let what = |answer: Option<&Vec<_>>| What::Lease {
            most,
            answer: answer.cloned(),
        };
        self.log(call, what).await
    }

    /// Acks if all the actions are acks.
    pub(crate) async fn settle(
        &self,
        uses: Vec<(Leased, ReceiptAction)>,
    ) -> Result<Vec<LeaseOutcome>> {
        let changes: Vec<LeaseChange> = uses.iter().filter_map(change).collect();
        let receipts: Vec<Receipt> = uses.iter().map(|(leased, _)| leased.receipt()).collect();
        let (backend, queue) = (&self.backend, &self.world.queue);
        let call = async {
            match changes.is_empty() {
                true => backend.ack(queue, &receipts).await,
                false => backend.change(queue, &changes).await,
            }
        };
        let what = |answer: Option<&Vec<_>>| What::Settle {
            uses: uses.clone(),
            answer: answer.cloned(),
        };
        self.log(call, what).await
    }

    pub(crate) async fn ack(&self, leased: Vec<Leased>) -> Result<Vec<LeaseOutcome>> {
        let uses = leased.into_iter().map(|it| (it, ReceiptAction::Ack));
        self.settle(uses.collect()).await
    }

    /// Logs a call that changes nothing.
    pub(crate) async fn read(&self, call: impl Future<Output = Result<Seen>>) -> Result<Seen> {
        let what = |answer: Option<&Seen>| What::Read(answer.cloned());
        self.log(call, what).await
    }

    pub(crate) async fn purge(&self, purged: Purge) -> Result<u64> {
        let call = self.backend.purge(&self.world.queue, purged);
        let what = |answer: Option<&u64>| What::Purge {
            what: purged,
            answer: answer.copied(),
        };
        self.log(call, what).await
    }

    pub(crate) async fn redrive(&self, which: Redrive) -> Result<u64> {
        let call = self.backend.redrive(&self.world.queue, &which);
        let what = |answer: Option<&u64>| What::Redrive {
            answer: answer.copied(),
        };
        self.log(call, what).await
    }

    pub(crate) async fn delete_queue(&self) -> Result<()> {
        let call = self.backend.delete_queue(&self.world.queue);
        let what = |answer: Option<&()>| What::Delete {
            is_answered: answer.is_some(),
        };
        self.log(call, what).await
    }
}

/// A call under way.
struct Pending<'a, T, F: Fn(Option<&T>) -> What> {
    by: &'a Party,
    number: u64,
    began: Moment,
    clock_from: Millis,
    what: F,
    has_ended: bool,
    answer: PhantomData<T>,
}

impl<T, F: Fn(Option<&T>) -> What> Pending<'_, T, F> {
    fn event(&self, answer: Option<&T>) -> Event {
        Event {
            by: self.by.name,
            number: self.number,
            began: self.began,
            returned: moment(),
            clock_from: self.clock_from,
            clock_to: self.by.world.now(),
            what: (self.what)(answer),
            is_in_transaction: false,
        }
    }

    fn end(&mut self, answer: Option<&T>) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.by.world.push(self.event(answer));
        }
    }
}

impl<T, F: Fn(Option<&T>) -> What> Drop for Pending<'_, T, F> {
    fn drop(&mut self) {
        self.end(None);
    }
}

/// `None` for an ack, which is another call.
fn change((leased, action): &(Leased, ReceiptAction)) -> Option<LeaseChange> {
    let receipt = leased.receipt();
    Some(match *action {
        ReceiptAction::Ack => return None,
        ReceiptAction::Extend(by) => LeaseChange::extend(receipt, Duration::from_millis(by)),
        ReceiptAction::Nack(delay) => LeaseChange::nack(receipt, Duration::from_millis(delay)),
        ReceiptAction::Release => LeaseChange::release(receipt),
        ReceiptAction::DeadLetter => LeaseChange::dead_letter(receipt, REASON),
    })
}
