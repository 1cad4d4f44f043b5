//! Several waits on an empty queue, one of which is dropped. Then a message becomes ready, and all
//! others must return.

use std::time::Duration;

use queue_api::{NewMessage, QueueName};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    event::{Millis, ReceiptAction, RecordedDelivery},
    program::Program,
    recorder::{CallClock, Recorder},
};
use crate::{
    fixture::{Fixture, id_of},
    harness::Connection,
    poll_at_most::telling_first_poll,
};

/// The number of waits, one of which is dropped.
const WAITS: usize = 3;

/// How a message becomes ready.
const WAYS: [&str; 7] = [
    "enqueue", "delay", "expiry", "extend", "nack", "release", "redrive",
];

impl Recorder {
    /// The queue must be empty, apart from dead letters.
    pub(super) async fn wake_waits(&mut self, program: &Program, fixture: &Fixture) {
        let queue = &program.queues[0];
        let ways = if program.has_admin {
            WAYS.len()
        } else {
            WAYS.len() - 1
        };
        let way = WAYS[self.random.below(ways as u64) as usize];
        // Before the waits: what is leased now becomes ready when they wait.
        let leased = match way {
            "expiry" | "extend" | "nack" | "release" | "redrive" => {
                self.send_one(queue, 0).await;
                self.lease(queue, 1, Some(20)).await
            }
            _ => vec![],
        };
        if way == "redrive" {
            self.settle(queue, &uses(&leased, ReceiptAction::DeadLetter))
                .await;
        }
        let mut waits = Vec::new();
        for n in 0..WAITS {
            let connection = &program.connections[n % program.connections.len()];
            waits.push(start(connection.clone(), queue.clone()).await);
        }
        let dropped = waits.remove(self.random.below(WAITS as u64) as usize);
        dropped.abort();
        let change = match way {
            "extend" => Some(ReceiptAction::Extend(10)),
            "nack" => Some(ReceiptAction::Nack(10)),
            "release" => Some(ReceiptAction::Release),
            _ => None,
        };
        if let Some(change) = change {
            self.settle(queue, &uses(&leased, change)).await;
        }
        match way {
            "enqueue" => self.send_one(queue, 0).await,
            "delay" => self.send_one(queue, 20).await,
            "redrive" => self.redrive(queue, None).await,
            _ => {}
        }
        if let CallClock::Manual(fixture) = &self.clock {
            fixture.pass(20).await;
        }
        let idle = fixture.idle_timeout();
        while waits.iter().any(|wait| !wait.is_finished()) {
            // A call that was dropped earlier may take effect only now, and take the message away.
            if fixture.other_queue(queue.as_str()).stats().await.ready == 0 {
                waits.iter().for_each(JoinHandle::abort);
                return;
            }
            let waiting = waits.iter().filter(|wait| !wait.is_finished()).count();
            let missing = format!("W1: a message is ready by {way}, but {waiting} waits go on");
            idle.check(&missing).await;
        }
        let tally = &mut self.record.lock().tally;
        tally.add("waits that were dropped", 1);
        tally.add("wake-ups of several waits", 1);
    }
}

impl Recorder {
    async fn send_one(&mut self, queue: &QueueName, delay: Millis) {
        // No other message of the history has this id.
        let message = NewMessage::new("").with_id(id_of("wake"));
        let delay = Duration::from_millis(delay);
        self.enqueue(queue, &[message.with_delay(delay)]).await;
    }
}

fn uses(
    deliveries: &[RecordedDelivery],
    action: ReceiptAction,
) -> Vec<(RecordedDelivery, ReceiptAction)> {
    deliveries.iter().map(|d| (d.clone(), action)).collect()
}

/// Starts a wait that is polled before this returns.
async fn start(connection: Connection, queue: QueueName) -> JoinHandle<()> {
    let (begun, has_begun) = oneshot::channel();
    let wait = tokio::spawn(async move {
        let wait = connection.backend.wait(&queue, Duration::MAX);
        let ended = telling_first_poll(wait, begun).await;
        ended.expect("wait succeeds");
    });
    let _ = has_begun.await;
    wait
}
