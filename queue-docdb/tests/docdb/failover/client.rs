//! A client process: sends messages, or leases and settles them, and retries after errors.

use std::{
    env,
    io::{BufRead, BufReader},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use queue_api::{
    Delivery, EnqueueOutcome, LeaseOptions, LeaseOutcome, MessageId, NewMessage, Queue, Result,
};
use queue_conformance::record::{Operation, ReceiptAction, RecordedDelivery};
use queue_docdb::DocDbBackend;

use super::report::{Answer, Reporter};

/// The variable with a client's name, database and URI, separated by spaces.
pub(crate) const CLIENT: &str = "QUEUE_FAILOVER_CLIENT";

/// Half of the default, so that calls time out within a failover.
pub(crate) const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);

const QUEUE: &str = "failover";

/// Runs as a client if the variable is set, until the test process ends or sends enough.
pub(crate) fn client_main() -> Option<ExitCode> {
    let parameters = env::var(CLIENT).ok()?;
    let mut words = parameters.splitn(3, ' ').map(str::to_owned);
    let (by, database, uri) = (words.next()?, words.next()?, words.next()?);
    let enough = read_stdin();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = runtime.expect("the system has a thread left");
    runtime.block_on(async {
        let client = Client {
            queue: connect(&uri, &database).await.expect("the set is up"),
            reporter: Reporter::new(by.clone()),
            random: fastrand::Rng::new(),
        };
        if by.starts_with("producer") {
            client.produce(&by, &enough).await;
        } else {
            client.consume().await;
        }
    });
    Some(ExitCode::SUCCESS)
}

pub(crate) async fn connect(uri: &str, database: &str) -> Result<Queue> {
    let backend = DocDbBackend::builder(uri)
        .database(database)
        .operation_timeout(OPERATION_TIMEOUT)
        .connect()
        .await?;
    Queue::new(Arc::new(backend), QUEUE)
}

/// A line on stdin means that there are enough messages. At the end of stdin, when the test
/// process has ended, this process ends.
fn read_stdin() -> Arc<AtomicBool> {
    let enough = Arc::new(AtomicBool::new(false));
    let seen = enough.clone();
    thread::spawn(move || {
        for _ in BufReader::new(std::io::stdin())
            .lines()
            .map_while(std::result::Result::ok)
        {
            seen.store(true, Ordering::Relaxed);
        }
        std::process::exit(0);
    });
    enough
}

struct Client {
    queue: Queue,
    reporter: Reporter,
    random: fastrand::Rng,
}

impl Client {
    async fn produce(mut self, by: &str, enough: &AtomicBool) {
        let mut sent = 0;
        while !enough.load(Ordering::Relaxed) {
            let ids: Vec<String> = (0..self.random.u32(1..=3))
                .map(|n| format!("{by}-{}", sent + n))
                .collect();
            sent += ids.len() as u32;
            let mut attempt = 1;
            while !self.enqueue(&ids, attempt).await {
                attempt += 1;
                self.pause(20..200).await;
            }
            self.pause(4..12).await;
        }
    }

    /// Sends messages, with the same ids in each attempt and the attempt as the payload. Returns
    /// whether it succeeded.
    async fn enqueue(&mut self, ids: &[String], attempt: u32) -> bool {
        let operation = |id: &String, answered| Operation::Enqueue {
            id: copy(id, &attempt.to_string()),
            delay: 0,
            answered,
        };
        let begun: Vec<_> = ids
            .iter()
            .map(|id| self.reporter.begin(operation(id, false)))
            .collect();
        let messages: Vec<NewMessage> = ids
            .iter()
            .map(|id| {
                NewMessage::new(attempt.to_string())
                    .with_id(MessageId::new(id).expect("a short name and a number"))
                    // No message becomes a dead letter, however often its lease expires.
                    .with_max_attempts(1000)
            })
            .collect();
        let outcome = self.queue.enqueue_batch(&messages).await;
        for (index, (begun, id)) in begun.into_iter().zip(ids).enumerate() {
            let answer = match &outcome {
                Ok(outcomes) if outcomes[index] == EnqueueOutcome::Stored => Answer::Ok,
                Ok(_) => Answer::Duplicate,
                Err(error) => Answer::failed(error),
            };
            let stored = matches!(answer, Answer::Ok);
            self.reporter.end(begun, operation(id, stored), answer);
        }
        outcome.is_ok()
    }

    async fn consume(mut self) {
        loop {
            let Some(deliveries) = self.lease().await else {
                self.pause(20..200).await;
                continue;
            };
            if deliveries.is_empty() {
                // Only a hint, so an error does not matter.
                let _ = self.queue.wait(Duration::from_millis(100)).await;
                self.pause(4..12).await;
                continue;
            }
            let mut done = Vec::new();
            for delivery in &deliveries {
                let one = std::slice::from_ref(delivery);
                match self.random.u32(..30) {
                    0 | 1 => self.settle(one, ReceiptAction::Nack(0)).await,
                    2 => self.settle(one, ReceiptAction::Release).await,
                    3 => {
                        self.settle(one, ReceiptAction::Extend(3000)).await;
                        done.push(delivery.clone());
                    }
                    4..10 => self.settle(one, ReceiptAction::Ack).await,
                    _ => done.push(delivery.clone()),
                }
            }
            if !done.is_empty() {
                self.settle(&done, ReceiptAction::Ack).await;
            }
            self.pause(2..6).await;
        }
    }

    async fn lease(&mut self) -> Option<Vec<Delivery>> {
        let visibility = self.random.u64(2000..4000);
        let options = LeaseOptions::new(self.random.usize(1..=12))
            .with_visibility_timeout(Duration::from_millis(visibility));
        let operation = |answer| Operation::Lease { visibility, answer };
        let begun = self.reporter.begin(operation(None));
        match self.queue.lease_batch(&options).await {
            Ok(deliveries) => {
                let given = deliveries.iter().map(|delivery| RecordedDelivery {
                    id: copy_of(delivery),
                    ..RecordedDelivery::new(delivery)
                });
                let operation = operation(Some(given.collect()));
                self.reporter.end(begun, operation, Answer::Ok);
                Some(deliveries)
            }
            Err(error) => {
                let answer = Answer::failed(&error);
                self.reporter.end(begun, operation(None), answer);
                None
            }
        }
    }

    /// Settles receipts in one call, and retries until it succeeds.
    async fn settle(&mut self, deliveries: &[Delivery], action: ReceiptAction) {
        let operation = |delivery: &Delivery, answer| Operation::Settle {
            receipt: delivery.receipt.to_string(),
            id: copy_of(delivery),
            action,
            answer,
        };
        loop {
            let begun: Vec<_> = deliveries
                .iter()
                .map(|delivery| self.reporter.begin(operation(delivery, None)))
                .collect();
            let outcomes = self.settle_once(deliveries, action).await;
            for (index, (begun, delivery)) in begun.into_iter().zip(deliveries).enumerate() {
                let (applied, answer) = match &outcomes {
                    Ok(outcomes) => {
                        let applied = outcomes[index] == LeaseOutcome::Applied;
                        (Some(applied), Answer::Ok)
                    }
                    Err(error) => (None, Answer::failed(error)),
                };
                self.reporter
                    .end(begun, operation(delivery, applied), answer);
            }
            if outcomes.is_ok() {
                return;
            }
            self.pause(20..200).await;
        }
    }

    async fn settle_once(
        &self,
        deliveries: &[Delivery],
        action: ReceiptAction,
    ) -> Result<Vec<LeaseOutcome>> {
        let receipt = &deliveries[0].receipt;
        let one = |outcome| vec![outcome];
        match action {
            ReceiptAction::Extend(millis) => {
                let extended = self.queue.extend(receipt, Duration::from_millis(millis));
                extended.await.map(one)
            }
            ReceiptAction::Nack(millis) => {
                let nacked = self.queue.nack(receipt, Duration::from_millis(millis));
                nacked.await.map(one)
            }
            ReceiptAction::Release => self.queue.release(receipt).await.map(one),
            ReceiptAction::DeadLetter => {
                let moved = self.queue.dead_letter(receipt, "recorded");
                moved.await.map(one)
            }
            ReceiptAction::Ack => {
                let receipts: Vec<_> = deliveries.iter().map(|it| it.receipt.clone()).collect();
                self.queue.ack_batch(&receipts).await
            }
        }
    }

    /// Leaves some of the machine to the servers.
    #[expect(
        clippy::disallowed_methods,
        reason = "clients and servers use real time"
    )]
    async fn pause(&mut self, millis: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.random.u64(millis))).await;
    }
}

/// If a message is acked before its enqueue is retried, the retry stores it again. The record has
/// these copies as two messages, named after the attempts that stored them.
fn copy(id: &str, attempt: &str) -> String {
    format!("{id}.{attempt}")
}

fn copy_of(delivery: &Delivery) -> String {
    copy(
        delivery.id.as_str(),
        &String::from_utf8_lossy(&delivery.payload),
    )
}

/// The id under which a copy was sent.
pub(crate) fn id_of_copy(copy: &str) -> &str {
    copy.rsplit_once('.').map_or(copy, |(id, _)| id)
}
