//! What a task does: random calls, the whole contract among them.

use std::time::Duration;

use queue_api::{MessageId, NewMessage, Purge, QueueName};

use super::{
    event::{Millis, ReceiptAction, RecordedDelivery},
    program::Program,
    recorder::{CallClock, Recorder},
};
use crate::fixture::id_of;

impl Recorder {
    pub(super) async fn work(mut self, program: Program, calls: usize) {
        // Only one, because little is left afterwards.
        let removal = program.removes.then(|| self.random.below(calls as u64));
        for n in 0..calls as u64 {
            self.random.yield_randomly().await;
            if self.random.one_in(3) {
                self.pass_up_to(6).await;
            }
            if self.random.one_in(4)
                && let Some(injector) = &program.injector
            {
                injector.inject_any(&self.record, &mut self.random).await;
            }
            let queue = &program.queues[usize::from(self.random.one_in(8))];
            if removal == Some(n) {
                self.remove_some(queue).await;
                continue;
            }
            match self.random.below(20) {
                0..=11 => self.lease_some(queue).await,
                12..=14 => self.settle_some(&program.queues, queue).await,
                15 | 16 => {
                    let ids: Vec<_> = (0..self.random.below(3) + 1)
                        .map(|_| self.random.below(IDS))
                        .collect();
                    self.send(&program, queue, &ids).await;
                }
                17 => self.wait_a_little(queue).await,
                _ => self.manage_some(queue).await,
            }
        }
    }

    /// Calls while no other worker makes any. So the counts after each are exact.
    pub(super) async fn work_alone(&mut self, program: &Program, calls: usize) {
        for n in 0..calls {
            let queue = &program.queues[0];
            match n % 2 {
                0 => self.lease_some(queue).await,
                _ => self.settle_some(&program.queues, queue).await,
            }
            self.pass_up_to(6).await;
            self.stats(queue).await;
        }
    }

    async fn lease_some(&mut self, queue: &QueueName) {
        // Mostly few, so that some are left for the others.
        let max = [1, 1, 1, 2, 3][self.random.below(5) as usize];
        let visibility = (!self.random.one_in(3)).then(|| self.random_millis());
        // An idle consumer waits until a lease or a delay ends.
        if self.lease(queue, max, visibility).await.is_empty() {
            self.pass_up_to(20).await;
        }
    }

    async fn pass_up_to(&mut self, most: Millis) {
        let millis = self.random.below(most + 1);
        if let CallClock::Manual(fixture) = &self.clock {
            fixture.pass(millis).await;
        }
    }

    fn random_millis(&mut self) -> Millis {
        [0, 1, 2, 5, 10, 20][self.random.below(6) as usize]
    }

    /// Sends messages with these ids in one batch.
    pub(super) async fn send(&mut self, program: &Program, queue: &QueueName, ids: &[u64]) {
        let mut messages = Vec::new();
        for id in ids {
            let delay = if self.random.one_in(2) {
                self.random_millis()
            } else {
                0
            };
            // Only `QueueAdmin` shows which messages are dead letters.
            let max_attempts = match program.has_admin {
                true => [1, 2, 3, 1000][self.random.below(4) as usize],
                false => 1000,
            };
            let message = NewMessage::new("")
                .with_id(numbered(*id))
                .with_delay(Duration::from_millis(delay))
                .with_visibility_timeout(Duration::from_millis(self.random_millis()))
                .with_max_attempts(max_attempts);
            messages.push(message);
        }
        self.enqueue(queue, &messages).await;
    }

    async fn settle_some(&mut self, queues: &[QueueName], queue: &QueueName) {
        let picked = self.pick_deliveries(queue);
        if picked.is_empty() {
            return self.lease_some(queue).await;
        }
        let is_ack = self.random.one_in(3);
        let mut uses = Vec::new();
        for delivery in picked {
            let action = if is_ack {
                ReceiptAction::Ack
            } else {
                self.random_change()
            };
            uses.push((delivery, action));
        }
        // Sometimes in a queue where the receipts are worth nothing.
        let queue = match self.random.one_in(15) {
            true => &queues[usize::from(*queue == queues[0])],
            false => queue,
        };
        self.settle(queue, &uses).await;
    }

    fn random_change(&mut self) -> ReceiptAction {
        let millis = self.random_millis();
        match self.random.below(9) {
            0..=2 => ReceiptAction::Extend(millis),
            3..=5 => ReceiptAction::Nack(millis),
            6 | 7 => ReceiptAction::Release,
            _ => ReceiptAction::DeadLetter,
        }
    }

    /// One to four of the last deliveries of a queue, perhaps one of them twice.
    fn pick_deliveries(&mut self, queue: &QueueName) -> Vec<RecordedDelivery> {
        let prefix = format!("{queue}/");
        let recent: Vec<_> = {
            let shared = self.record.lock();
            let own = shared
                .deliveries
                .iter()
                .rev()
                .filter(|d| d.id.starts_with(&prefix));
            own.take(6).cloned().collect()
        };
        if recent.is_empty() {
            return vec![];
        }
        let most = recent.len() as u64;
        let count = self.random.below(4) + 1;
        // The newest ones more often.
        (0..count)
            .map(|_| {
                let (one, other) = (self.random.below(most), self.random.below(most));
                recent[one.min(other) as usize].clone()
            })
            .collect()
    }

    /// A wait during another call. After that it is dropped: no other worker may be left to wake it.
    async fn wait_a_little(&mut self, queue: &QueueName) {
        let (backend, waited) = (self.connection.backend.clone(), queue.clone());
        let wait = tokio::spawn(async move { backend.wait(&waited, Duration::MAX).await });
        self.lease_some(queue).await;
        let what = if wait.is_finished() {
            "waits that ended"
        } else {
            "waits that were dropped"
        };
        wait.abort();
        self.record.lock().tally.add(what, 1);
    }

    async fn manage_some(&mut self, queue: &QueueName) {
        match self.random.below(10) {
            0 => self.stats(queue).await,
            1 => self.peek(queue).await,
            2 => self.messages(queue).await,
            3 | 4 => self.dead_letters(queue).await,
            5 => self.list(queue).await,
            6..9 => self.redrive(queue, None).await,
            _ => {
                let ids = (0..3).map(|_| numbered(self.random.below(IDS))).collect();
                self.redrive(queue, Some(ids)).await;
            }
        }
    }

    async fn remove_some(&mut self, queue: &QueueName) {
        match self.random.below(4) {
            0 | 1 => self.purge(queue, Purge::Live).await,
            2 => self.purge(queue, Purge::Dead).await,
            _ => self.delete(queue).await,
        }
    }
}

/// The number of ids.
pub(super) const IDS: u64 = 8;

pub(super) fn numbered(id: u64) -> MessageId {
    id_of(&format!("m{id}"))
}
