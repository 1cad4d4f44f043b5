//! Each command of each call fails in each way, and the answers are true.
//!
//! The test prints the table of `docs/faults.md`, and compares the two.

use std::{
    collections::BTreeSet,
    fmt::Write,
    sync::{Arc, atomic::Ordering},
};

use queue_api::{
    Error, ErrorKind, LeaseChange, LeaseOptions, PageOptions, Purge, Queue, QueueAdmin,
    QueueBackend, Receipt, Redrive,
};
use queue_docdb::DocDbBackend;

use crate::{
    faults::{Case, CommandFailure, FAILURES, FailingServer},
    fixture::{MINUTE, message},
};

tests! {
    on_one_thread:
        an_ack_whose_first_try_arrives_late_is_an_error;
    on_threads:
        answers_are_true_whatever_fails
}

/// A call of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// The queue's first: it also makes the schema version and the indexes.
    EnqueueFirst,
    Enqueue,
    /// One of two is stored already.
    EnqueueAgain,
    Lease,
    Ack,
    AckBatch,
    Nack,
    Extend,
    Release,
    DeadLetter,
    Stats,
    Wait,
    Peek,
    DeadLetters,
    Purge,
    PurgeDead,
    Redrive,
    DeleteQueue,
    ListQueues,
}

pub(crate) const CASES: [(Operation, &str, &str); 24] = [
    (Operation::EnqueueFirst, "first enqueue", "insert"),
    (Operation::EnqueueFirst, "first enqueue", "listCollections"),
    (Operation::EnqueueFirst, "first enqueue", "create"),
    (Operation::EnqueueFirst, "first enqueue", "createIndexes"),
    (Operation::Enqueue, "enqueue", "insert"),
    (
        Operation::EnqueueAgain,
        "enqueue, one of two stored before",
        "insert",
    ),
    (Operation::Lease, "lease", "find"),
    (Operation::Lease, "lease", "update"),
    (Operation::Ack, "ack of one", "delete"),
    (Operation::AckBatch, "ack of several", "find"),
    (Operation::AckBatch, "ack of several", "delete"),
    (Operation::Nack, "nack of several", "update"),
    (Operation::Extend, "extend", "update"),
    (Operation::Release, "release of several", "update"),
    (Operation::DeadLetter, "dead-letter of several", "update"),
    (Operation::Stats, "stats", "aggregate"),
    (Operation::Wait, "wait", "find"),
    (Operation::Peek, "peek", "find"),
    (Operation::DeadLetters, "list dead letters", "find"),
    (Operation::Purge, "purge", "delete"),
    (Operation::PurgeDead, "purge of dead letters", "delete"),
    (Operation::Redrive, "redrive", "update"),
    (Operation::DeleteQueue, "delete queue", "drop"),
    (Operation::ListQueues, "list queues", "listCollections"),
];

/// The messages of each case.
const IDS: [&str; 2] = ["a", "b"];

impl Case {
    pub(crate) fn queue(&self, backend: &DocDbBackend) -> Queue {
        Queue::new(Arc::new(backend.clone()), self.name.as_str()).unwrap()
    }

    async fn lease_all(&self, backend: &DocDbBackend) -> Vec<Receipt> {
        let options = LeaseOptions::new(2);
        let deliveries = backend.lease(&self.name, &options).await.unwrap();
        deliveries.into_iter().map(|each| each.receipt).collect()
    }

    /// Prepares the queue by the backend that does not fail.
    pub(crate) async fn prepare(&self, operation: Operation) -> Vec<Receipt> {
        if operation == Operation::EnqueueFirst {
            return Vec::new();
        }
        // The failing backend knows the queue, so that it sends nothing but the call's commands.
        self.backend.prepare(&self.name).await.unwrap();
        self.sent.store(0, Ordering::Relaxed);
        if operation == Operation::Enqueue {
            return Vec::new();
        }
        let queue = self.queue(&self.healthy);
        if operation == Operation::EnqueueAgain {
            queue.enqueue(&message(IDS[0])).await.unwrap();
            return Vec::new();
        }
        // Each has a document of its own, so that an ack of one deletes it.
        for each in IDS {
            queue.enqueue(&message(each)).await.unwrap();
        }
        match operation {
            Operation::Ack
            | Operation::AckBatch
            | Operation::Nack
            | Operation::Extend
            | Operation::Release
            | Operation::DeadLetter => self.lease_all(&self.healthy).await,
            Operation::Redrive | Operation::PurgeDead | Operation::DeadLetters => {
                let receipts = self.lease_all(&self.healthy).await;
                let letters: Vec<_> = receipts
                    .into_iter()
                    .map(|receipt| LeaseChange::dead_letter(receipt, "no"))
                    .collect();
                queue.change_batch(&letters).await.unwrap();
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Makes the call, and returns its answer in a word.
    pub(crate) async fn make(
        &self,
        operation: Operation,
        receipts: &[Receipt],
    ) -> Result<String, Error> {
        let (queue, backend) = (self.queue(&self.backend), &self.backend);
        Ok(match operation {
            Operation::EnqueueFirst | Operation::Enqueue | Operation::EnqueueAgain => {
                one_word(queue.enqueue_batch(&IDS.map(message)).await?)
            }
            Operation::Lease => {
                let deliveries = queue.lease_batch(&LeaseOptions::new(2)).await?;
                assert!(deliveries.iter().all(|each| each.attempt == 1));
                format!("{} leased", deliveries.len())
            }
            Operation::Ack => one_word([queue.ack(&receipts[0]).await?]),
            Operation::AckBatch => one_word(queue.ack_batch(receipts).await?),
            Operation::Nack | Operation::Release | Operation::DeadLetter => {
                let change = |receipt: Receipt| match operation {
                    Operation::Nack => LeaseChange::nack(receipt, MINUTE),
                    Operation::Release => LeaseChange::release(receipt),
                    _ => LeaseChange::dead_letter(receipt, "no"),
                };
                let changes: Vec<_> = receipts.iter().cloned().map(change).collect();
                one_word(queue.change_batch(&changes).await?)
            }
            Operation::Extend => one_word([queue.extend(&receipts[0], MINUTE).await?]),
            Operation::Stats => format!("{} ready", queue.stats().await?.ready),
            Operation::Wait => {
                queue.wait(MINUTE).await?;
                "ready".to_owned()
            }
            Operation::Peek => format!("{} seen", backend.peek(&self.name, 9).await?.len()),
            Operation::DeadLetters => {
                let page = PageOptions::new(9);
                let letters = backend.dead_letters(&self.name, &page).await?;
                format!("{} listed", letters.len())
            }
            Operation::Purge => format!("{} purged", backend.purge(&self.name, Purge::Live).await?),
            Operation::PurgeDead => {
                format!("{} purged", backend.purge(&self.name, Purge::Dead).await?)
            }
            Operation::Redrive => {
                let redriven = backend.redrive(&self.name, &Redrive::All).await?;
                format!("{redriven} redriven")
            }
            Operation::DeleteQueue => {
                backend.delete_queue(&self.name).await?;
                "deleted".to_owned()
            }
            Operation::ListQueues => format!("{} listed", backend.list_queues().await?.len()),
        })
    }

    /// Checks that the answer was true, and that the call can be repeated after an error.
    pub(crate) async fn check(
        &self,
        operation: Operation,
        receipts: &[Receipt],
        answer: &Result<String, Error>,
    ) {
        let stats = async || self.queue(&self.healthy).stats().await.unwrap();
        let before = stats().await;
        let repeat = match answer {
            Ok(_) => None,
            Err(error) => {
                assert!(error.is_retryable(), "{operation:?}: {error:?}");
                Some(self.make(operation, receipts).await.unwrap())
            }
        };
        let after = stats().await;
        let word = answer.as_deref().unwrap_or("an error");
        match operation {
            Operation::EnqueueFirst | Operation::Enqueue => {
                assert_eq!(after.ready, 2, "{answer:?}, then {repeat:?}");
                assert_ne!(word, "Duplicate", "no other call has stored them");
            }
            Operation::EnqueueAgain => {
                assert_eq!(after.ready, 2, "{answer:?}, then {repeat:?}");
                if answer.is_ok() {
                    assert_eq!(word, "Duplicate and Stored");
                }
            }
            Operation::Lease => {
                // No time has passed, so a message that is not leased now stays hidden.
                assert_eq!(after.leased, 2);
                // After an error, what the claim took is hidden until its timeout.
                if answer.is_ok() {
                    assert_eq!(word, "2 leased", "nothing is hidden");
                }
            }
            Operation::Ack | Operation::AckBatch => {
                let acked = if operation == Operation::Ack { 1 } else { 2 };
                assert_eq!(after.leased, 2 - acked, "{answer:?}, then {repeat:?}");
                assert_ne!(word, "Lost", "the receipts were good");
                if word == "Applied" {
                    assert_eq!(before.leased, 2 - acked);
                }
            }
            Operation::Nack | Operation::Release | Operation::DeadLetter => {
                let changed = match operation {
                    Operation::Nack => after.delayed,
                    Operation::Release => after.ready,
                    _ => after.dead,
                };
                assert_eq!(changed, 2, "{answer:?}, then {repeat:?}");
                assert_ne!(word, "Lost", "the receipts were good");
            }
            Operation::Wait => assert_eq!(repeat.as_deref().unwrap_or(word), "ready"),
            Operation::Peek => assert_eq!(repeat.as_deref().unwrap_or(word), "2 seen"),
            Operation::DeadLetters => assert_eq!(repeat.as_deref().unwrap_or(word), "2 listed"),
            Operation::Extend => assert_eq!(repeat.as_deref().unwrap_or(word), "Applied"),
            Operation::Stats => assert_eq!(repeat.as_deref().unwrap_or(word), "2 ready"),
            Operation::Purge => assert_eq!(after.ready, 0),
            Operation::PurgeDead => assert_eq!(after.dead, 0),
            Operation::Redrive => assert_eq!((after.ready, after.dead), (2, 0)),
            Operation::DeleteQueue => assert_eq!(self.healthy.list_queues().await.unwrap(), []),
            Operation::ListQueues => assert_eq!(repeat.as_deref().unwrap_or(word), "1 listed"),
        }
        let counts = [Operation::Purge, Operation::PurgeDead, Operation::Redrive];
        if counts.contains(&operation) && answer.is_ok() {
            assert!(word.starts_with("2 "), "no other call was made: {word}");
        }
        if matches!(operation, Operation::DeadLetter | Operation::DeadLetters) {
            return;
        }
        // Nothing is left that would appear later.
        let page = PageOptions::new(9);
        let dead = self.healthy.dead_letters(&self.name, &page).await.unwrap();
        assert!(dead.is_empty(), "{dead:?}");
    }
}

/// The different outcomes.
fn one_word<O: std::fmt::Debug>(outcomes: impl IntoIterator<Item = O>) -> String {
    let words: BTreeSet<String> = outcomes
        .into_iter()
        .map(|outcome| format!("{outcome:?}"))
        .collect();
    words.into_iter().collect::<Vec<_>>().join(" and ")
}

/// The answer when `command` fails during a call, and how often the command was sent.
async fn cell(
    server: &FailingServer,
    number: usize,
    (operation, command): (Operation, &'static str),
    failure: CommandFailure,
) -> String {
    let case = server.case(number, command, failure).await;
    let receipts = case.prepare(operation).await;
    server.arm(command, failure).await;
    let answer = case.make(operation, &receipts).await;
    let sent = case.sent.load(Ordering::Relaxed);
    server.clear().await;
    case.check(operation, &receipts, &answer).await;
    server
        .mongod
        .drop_database(&format!("case{number}"))
        .await
        .unwrap();
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => format!("{:?}", error.kind()),
    };
    match sent {
        1 => answer,
        // It sends several at once.
        _ if operation == Operation::Stats => answer,
        times => format!("{answer}, sent {times}×"),
    }
}

/// The columns of some failures. Each has its own server, because a server has one fail point.
async fn columns(failures: &'static [(CommandFailure, &'static str)]) -> Vec<Vec<String>> {
    let server = FailingServer::new().await;
    let mut columns = Vec::new();
    let mut number = 0;
    for &(failure, _) in failures {
        let mut column = Vec::new();
        for (operation, _, command) in CASES {
            number += 1;
            let is_read = matches!(command, "find" | "aggregate" | "listCollections");
            column.push(match failure {
                CommandFailure::Unconfirmed if is_read => "–".to_owned(),
                _ => cell(&server, number, (operation, command), failure).await,
            });
        }
        columns.push(column);
    }
    server.gate.verify().unwrap();
    server.mongod.stop().await.unwrap();
    columns
}

async fn answers_are_true_whatever_fails() {
    // In parallel, because the driver pauses before it checks a server again.
    let servers: Vec<_> = FAILURES
        .chunks(2)
        .map(|failures| tokio::spawn(columns(failures)))
        .collect();
    let mut all = Vec::new();
    for server in servers {
        all.extend(server.await.unwrap());
    }
    let names: Vec<&str> = FAILURES.iter().map(|(_, name)| *name).collect();
    let mut table = format!("| call | command | {} |\n", names.join(" | "));
    writeln!(table, "|{}", "---|".repeat(2 + FAILURES.len())).unwrap();
    for (row, (_, name, command)) in CASES.iter().enumerate() {
        let cells: Vec<&str> = all.iter().map(|column| column[row].as_str()).collect();
        writeln!(table, "| {name} | {command} | {} |", cells.join(" | ")).unwrap();
    }
    println!("{table}");
    assert!(
        include_str!("../../docs/faults.md").contains(&table),
        "docs/faults.md has another table:\n{table}"
    );
}

/// The first try arrives late and deletes the message. The second finds nothing, and must not say
/// `Lost`.
async fn an_ack_whose_first_try_arrives_late_is_an_error() {
    let server = FailingServer::new().await;
    for (number, operation) in [(100, Operation::Ack), (101, Operation::AckBatch)] {
        let failure = CommandFailure::ArrivesLate;
        let case = server.case(number, "delete", failure).await;
        let receipts = case.prepare(operation).await;
        server.arm("delete", failure).await;
        let answer = case.make(operation, &receipts).await;
        let error = answer.expect_err("it is unknown which try deleted it");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{operation:?}");
        let left = case.queue(&case.healthy).stats().await.unwrap().leased;
        let acked = if operation == Operation::Ack { 1 } else { 2 };
        assert_eq!(left, 2 - acked, "{operation:?}");
    }
}
