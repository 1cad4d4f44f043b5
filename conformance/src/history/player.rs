//! The state of a history that is being played, and how it is checked.

use std::{
    fmt::{Debug, Display},
    time::Duration,
};

use queue_api::{MessageId, Receipt};

use super::{
    command::{QUEUES, ReceiptPick},
    model::Model,
    waits::Waits,
};
use crate::{
    fixture::{Fixture, OneQueue, id_of},
    tally::Tally,
};

pub(super) struct Player {
    /// The connection that is used now.
    pub(super) fixture: Fixture,
    /// The others.
    pub(super) connections: Vec<Fixture>,
    pub(super) waits: Waits,
    /// How long a wait may take that has to return.
    pub(super) timeout: Duration,
    pub(super) models: [Model; QUEUES],
    /// All receipts of each queue, oldest first.
    pub(super) receipts: [Vec<Receipt>; QUEUES],
    pub(super) elapsed: u64,
    pub(super) timeline: Vec<String>,
    pub(super) tally: Tally,
}

impl Player {
    pub(super) fn new(fixture: Fixture, timeout: Duration) -> Self {
        Self {
            fixture,
            connections: Vec::new(),
            waits: Waits::default(),
            timeout,
            models: Default::default(),
            receipts: Default::default(),
            elapsed: 0,
            timeline: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// If a message is ready, every wait returns.
    pub(super) async fn wake_waits(&mut self, queue: usize) -> Result<(), String> {
        if self.models[queue].stats(self.fixture.now()).ready > 0 {
            let returned = self.waits.all_return(queue, self.timeout).await?;
            self.tally.add("waits that ended", returned);
        }
        Ok(())
    }

    pub(super) async fn compare_stats(&self, queue: usize) -> Result<(), String> {
        let on = self.queue(queue);
        let stats = on.backend().stats(&on.name).await.map_err(unexpected)?;
        equal(
            "S1: stats",
            stats,
            self.models[queue].stats(self.fixture.now()),
        )
    }

    pub(super) fn queue(&self, queue: usize) -> OneQueue {
        self.fixture.other_queue(NAMES[queue])
    }

    pub(super) fn receipt(&self, queue: usize, pick: &ReceiptPick) -> Option<Receipt> {
        let own = &self.receipts[queue];
        let recent = &own[own.len().saturating_sub(3)..];
        let (from, index) = match pick {
            ReceiptPick::Recent(index) => (recent, index),
            ReceiptPick::Any(index) => (&own[..], index),
            ReceiptPick::OtherQueue(index) => (&self.receipts[1 - queue][..], index),
            ReceiptPick::MadeUp => return Some(Receipt::new("made up")),
        };
        (!from.is_empty()).then(|| index.get(from).clone())
    }

    pub(super) fn note(&mut self, what: impl Display, answer: impl Display) {
        self.timeline
            .push(format!("{:>6} ms  {what} -> {answer}", self.elapsed));
    }
}

/// Names that a careless pattern would take for each other.
const NAMES: [&str; QUEUES] = ["like_this", "likeXthis"];

pub(super) fn letter(id: usize) -> MessageId {
    id_of(["a", "b", "c", "d", "e"][id])
}

pub(super) fn unexpected(error: queue_api::Error) -> String {
    format!("X1: an error without a cause: {error:?}")
}

pub(super) fn equal<T: PartialEq + Debug>(what: &str, seen: T, expected: T) -> Result<(), String> {
    if seen == expected {
        return Ok(());
    }
    Err(format!("{what}: got {seen:?}, expected {expected:?}"))
}
