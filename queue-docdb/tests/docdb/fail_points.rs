//! Every command of every call fails in every way, and the caller is told the truth.
//!
//! The table that this test prints is the one in the README.

use std::{
    collections::BTreeSet,
    fmt::Write,
    sync::{Arc, atomic::Ordering},
};

use queue_api::{
    DeadLetterPage, Error, ErrorKind, LeaseChange, LeaseOptions, LeaseOutcome::Applied, Purge,
    Queue, QueueAdmin, QueueBackend, Receipt, Redrive,
};
use queue_docdb::DocDbBackend;

use crate::{
    faults::{Bench, FAULTS, Fault, Patient},
    fixture::{MINUTE, message},
};

/// A call, and what is to be seen when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// Makes the queue: its version and its indexes.
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

const CASES: [(Call, &str, &str); 22] = [
    (Call::EnqueueFirst, "first enqueue", "insert"),
    (Call::EnqueueFirst, "first enqueue", "createIndexes"),
    (Call::Enqueue, "enqueue", "insert"),
    (
        Call::EnqueueAgain,
        "enqueue, one of two stored before",
        "insert",
    ),
    (Call::Lease, "lease", "find"),
    (Call::Lease, "lease", "update"),
    (Call::Ack, "ack of one", "delete"),
    (Call::AckBatch, "ack of several", "find"),
    (Call::AckBatch, "ack of several", "delete"),
    (Call::Nack, "nack of several", "update"),
    (Call::Extend, "extend", "update"),
    (Call::Release, "release of several", "update"),
    (Call::DeadLetter, "dead-letter of several", "update"),
    (Call::Stats, "stats", "aggregate"),
    (Call::Wait, "wait", "find"),
    (Call::Peek, "peek", "find"),
    (Call::DeadLetters, "list dead letters", "find"),
    (Call::Purge, "purge", "delete"),
    (Call::PurgeDead, "purge of dead letters", "delete"),
    (Call::Redrive, "redrive", "update"),
    (Call::DeleteQueue, "delete queue", "drop"),
    (Call::ListQueues, "list queues", "listCollections"),
];

/// Two messages, of which each call has to make something.
const IDS: [&str; 2] = ["a", "b"];

impl Patient {
    fn queue(&self, backend: &DocDbBackend) -> Queue {
        Queue::new(Arc::new(backend.clone()), self.name.as_str()).unwrap()
    }

    async fn lease_all(&self, backend: &DocDbBackend) -> Vec<Receipt> {
        let options = LeaseOptions::new(2);
        let deliveries = backend.lease(&self.name, &options).await.unwrap();
        deliveries.into_iter().map(|each| each.receipt).collect()
    }

    /// What has to be there before the call, made by the healthy one.
    async fn prepare(&self, call: Call) -> Vec<Receipt> {
        if call == Call::EnqueueFirst {
            return Vec::new();
        }
        // The failing one knows the queue, so that it sends what the call is about and no more.
        self.backend.prepare(&self.name).await.unwrap();
        self.sent.store(0, Ordering::Relaxed);
        if call == Call::Enqueue {
            return Vec::new();
        }
        let queue = self.queue(&self.healthy);
        if call == Call::EnqueueAgain {
            queue.enqueue(&message(IDS[0])).await.unwrap();
            return Vec::new();
        }
        queue.enqueue_batch(&IDS.map(message)).await.unwrap();
        match call {
            Call::Ack
            | Call::AckBatch
            | Call::Nack
            | Call::Extend
            | Call::Release
            | Call::DeadLetter => self.lease_all(&self.healthy).await,
            Call::Redrive | Call::PurgeDead | Call::DeadLetters => {
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

    /// Makes the call, and says in a word what it answered.
    async fn make(&self, call: Call, receipts: &[Receipt]) -> Result<String, Error> {
        let (queue, backend) = (self.queue(&self.backend), &self.backend);
        Ok(match call {
            Call::EnqueueFirst | Call::Enqueue | Call::EnqueueAgain => {
                one_word(queue.enqueue_batch(&IDS.map(message)).await?)
            }
            Call::Lease => {
                let deliveries = queue.lease_batch(&LeaseOptions::new(2)).await?;
                assert!(deliveries.iter().all(|each| each.attempt == 1));
                format!("{} leased", deliveries.len())
            }
            Call::Ack => one_word([queue.ack(&receipts[0]).await?]),
            Call::AckBatch => one_word(queue.ack_batch(receipts).await?),
            Call::Nack => {
                let nack = |receipt: &Receipt| LeaseChange::nack(receipt.clone(), MINUTE);
                let nacks: Vec<_> = receipts.iter().map(nack).collect();
                one_word(queue.change_batch(&nacks).await?)
            }
            Call::Extend => one_word([queue.extend(&receipts[0], MINUTE).await?]),
            Call::Release => {
                let release = |receipt: &Receipt| LeaseChange::release(receipt.clone());
                let releases: Vec<_> = receipts.iter().map(release).collect();
                one_word(queue.change_batch(&releases).await?)
            }
            Call::DeadLetter => {
                let letter = |receipt: &Receipt| LeaseChange::dead_letter(receipt.clone(), "no");
                let letters: Vec<_> = receipts.iter().map(letter).collect();
                one_word(queue.change_batch(&letters).await?)
            }
            Call::Stats => format!("{} ready", queue.stats().await?.ready),
            Call::Wait => {
                queue.wait(MINUTE).await?;
                "ready".to_owned()
            }
            Call::Peek => format!("{} seen", backend.peek(&self.name, 9).await?.len()),
            Call::DeadLetters => {
                let page = DeadLetterPage::new(9);
                let letters = backend.dead_letters(&self.name, &page).await?;
                format!("{} listed", letters.len())
            }
            Call::PurgeDead => {
                let purged = backend.purge(&self.name, Purge::Dead).await?;
                format!("{purged} purged")
            }
            Call::Purge => format!("{} purged", backend.purge(&self.name, Purge::Live).await?),
            Call::Redrive => {
                let redriven = backend.redrive(&self.name, &Redrive::All).await?;
                format!("{redriven} redriven")
            }
            Call::DeleteQueue => {
                backend.delete_queue(&self.name).await?;
                "deleted".to_owned()
            }
            Call::ListQueues => format!("{} listed", backend.list_queues().await?.len()),
        })
    }

    /// Whether the answer was true, and whether an error may be followed by a repeat.
    async fn examine(&self, call: Call, receipts: &[Receipt], answer: &Result<String, Error>) {
        let stats = async || self.queue(&self.healthy).stats().await.unwrap();
        let before = stats().await;
        let repeat = match answer {
            Ok(_) => None,
            Err(error) => {
                assert!(error.is_retryable(), "{call:?}: {error:?}");
                Some(self.make(call, receipts).await.unwrap())
            }
        };
        let after = stats().await;
        let said = answer.as_deref().unwrap_or("an error");
        match call {
            Call::EnqueueFirst | Call::Enqueue => {
                assert_eq!(after.ready, 2, "{answer:?}, then {repeat:?}");
                assert_ne!(said, "Duplicate", "nobody else has stored them");
            }
            Call::EnqueueAgain => {
                assert_eq!(after.ready, 2, "{answer:?}, then {repeat:?}");
                if answer.is_ok() {
                    assert_eq!(said, "Duplicate and Stored");
                }
            }
            Call::Lease => {
                // No time has passed, so what is not leased by now stays hidden.
                assert_eq!(after.leased, 2);
                let said = repeat.as_deref().unwrap_or(said);
                assert_eq!(said, "2 leased", "nothing is hidden");
            }
            Call::Ack | Call::AckBatch => {
                let acked = if call == Call::Ack { 1 } else { 2 };
                assert_eq!(after.leased, 2 - acked, "{answer:?}, then {repeat:?}");
                assert_ne!(said, "Lost", "the receipts were good");
                if said == "Applied" {
                    assert_eq!(before.leased, 2 - acked);
                }
            }
            Call::Nack => {
                assert_eq!(after.delayed, 2, "{answer:?}, then {repeat:?}");
                assert_ne!(said, "Lost", "the receipts were good");
            }
            Call::Release => {
                assert_eq!(after.ready, 2, "{answer:?}, then {repeat:?}");
                assert_ne!(said, "Lost", "the receipts were good");
            }
            Call::DeadLetter => {
                assert_eq!(after.dead, 2, "{answer:?}, then {repeat:?}");
                assert_ne!(said, "Lost", "the receipts were good");
            }
            Call::Wait => assert_eq!(repeat.as_deref().unwrap_or(said), "ready"),
            Call::Peek => assert_eq!(repeat.as_deref().unwrap_or(said), "2 seen"),
            Call::DeadLetters => assert_eq!(repeat.as_deref().unwrap_or(said), "2 listed"),
            Call::PurgeDead => assert_eq!(after.dead, 0),
            Call::Extend => assert_eq!(repeat.as_deref().unwrap_or(said), "Applied"),
            Call::Stats => assert_eq!(repeat.as_deref().unwrap_or(said), "2 ready"),
            Call::Purge => assert_eq!(after.ready, 0),
            Call::Redrive => assert_eq!((after.ready, after.dead), (2, 0)),
            Call::DeleteQueue => assert_eq!(self.healthy.list_queues().await.unwrap(), []),
            Call::ListQueues => assert_eq!(repeat.as_deref().unwrap_or(said), "1 listed"),
        }
        if matches!(call, Call::Purge | Call::PurgeDead | Call::Redrive) && answer.is_ok() {
            assert!(said.starts_with("2 "), "nobody else was there: {said}");
        }
        if matches!(call, Call::DeadLetter | Call::DeadLetters) {
            return;
        }
        // Nothing is left over that would turn up later.
        let page = DeadLetterPage::new(9);
        let dead = self.healthy.dead_letters(&self.name, &page).await.unwrap();
        assert!(dead.is_empty(), "{dead:?}");
    }
}

/// What all outcomes are, in a word.
fn one_word<O: std::fmt::Debug>(outcomes: impl IntoIterator<Item = O>) -> String {
    let words: BTreeSet<String> = outcomes
        .into_iter()
        .map(|outcome| format!("{outcome:?}"))
        .collect();
    words.into_iter().collect::<Vec<_>>().join(" and ")
}

/// What happens when `command` fails during `call`: the answer, and how often it was sent.
async fn cell(bench: &Bench, number: usize, case: (Call, &'static str), fault: Fault) -> String {
    let (call, command) = case;
    let patient = bench.patient(number, command, fault).await;
    let receipts = patient.prepare(call).await;
    bench.arm(command, fault).await;
    let answer = patient.make(call, &receipts).await;
    let sent = patient.sent.load(Ordering::Relaxed);
    bench.heal().await;
    patient.examine(call, &receipts, &answer).await;
    bench
        .server
        .drop_database(&format!("case{number}"))
        .await
        .unwrap();
    let said = match answer {
        Ok(said) => said,
        Err(error) => format!("{:?}", error.kind()),
    };
    match sent {
        1 => said,
        // It counts in several commands at once.
        _ if call == Call::Stats => said,
        times => format!("{said}, sent {times}×"),
    }
}

/// The cells of some faults, on a server of their own: a fail point is one for a whole server.
async fn columns(faults: &'static [(Fault, &'static str)]) -> Vec<Vec<String>> {
    let bench = Bench::new().await;
    let mut columns = Vec::new();
    let mut number = 0;
    for &(fault, _) in faults {
        let mut column = Vec::new();
        for (call, _, command) in CASES {
            number += 1;
            let is_read = matches!(command, "find" | "aggregate" | "listCollections");
            column.push(match fault {
                Fault::Unconfirmed if is_read => "–".to_owned(),
                _ => cell(&bench, number, (call, command), fault).await,
            });
        }
        columns.push(column);
    }
    bench.gate.verify().unwrap();
    bench.server.stop().await.unwrap();
    columns
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_the_caller_is_told_the_truth() {
    // Most of the time is spent waiting for the driver to look at its server again.
    let servers: Vec<_> = FAULTS
        .chunks(2)
        .map(|faults| tokio::spawn(columns(faults)))
        .collect();
    let mut all = Vec::new();
    for server in servers {
        all.extend(server.await.unwrap());
    }
    let names: Vec<&str> = FAULTS.iter().map(|(_, name)| *name).collect();
    let mut table = format!("| call | command | {} |\n", names.join(" | "));
    writeln!(table, "|{}", "---|".repeat(2 + FAULTS.len())).unwrap();
    for (row, (_, name, command)) in CASES.iter().enumerate() {
        let cells: Vec<&str> = all.iter().map(|column| column[row].as_str()).collect();
        writeln!(table, "| {name} | {command} | {} |", cells.join(" | ")).unwrap();
    }
    println!("{table}");
    assert!(
        include_str!("../../README.md").contains(&table),
        "the README has another table:\n{table}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_claim_took_is_delivered_piece_by_piece() {
    let bench = Bench::new().await;
    let patient = bench.patient(0, "update", Fault::SlowReply).await;
    patient.prepare(Call::Lease).await;
    bench.arm("update", Fault::SlowReply).await;
    patient.make(Call::Lease, &[]).await.unwrap_err();
    bench.heal().await;

    let queue = patient.queue(&patient.backend);
    let mut seen = BTreeSet::new();
    for _ in IDS {
        let delivery = queue.lease().await.unwrap().expect("it is not hidden");
        assert_eq!(delivery.attempt, 1);
        assert_eq!(queue.ack(&delivery.receipt).await.unwrap(), Applied);
        seen.insert(delivery.id.to_string());
    }
    assert_eq!(seen, IDS.map(str::to_owned).into());
    assert!(queue.lease().await.unwrap().is_none());
    bench.gate.verify().unwrap();
    bench.server.stop().await.unwrap();
}

/// What a first try deleted that was given up and arrived after all must not be called lost by
/// the second.
#[tokio::test]
async fn an_ack_whose_first_try_arrives_late_is_not_called_lost() {
    let bench = Bench::new().await;
    for (number, call) in [(100, Call::Ack), (101, Call::AckBatch)] {
        let fault = Fault::ArrivesLate;
        let patient = bench.patient(number, "delete", fault).await;
        let receipts = patient.prepare(call).await;
        bench.arm("delete", fault).await;
        let answer = patient.make(call, &receipts).await;
        let error = answer.expect_err("one of the tries did it, and which is not known");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{call:?}");
        let left = patient
            .queue(&patient.healthy)
            .stats()
            .await
            .unwrap()
            .leased;
        let acked = if call == Call::Ack { 1 } else { 2 };
        assert_eq!(left, 2 - acked, "{call:?}");
    }
}

/// What a claim took whose answer never came is there for this process at once.
#[tokio::test]
async fn a_wait_does_not_sleep_on_what_a_lost_claim_took() {
    let bench = Bench::new().await;
    let patient = bench.patient(102, "update", Fault::SlowReply).await;
    patient.prepare(Call::Lease).await;
    bench.arm("update", Fault::SlowReply).await;
    let queue = patient.queue(&patient.backend);
    queue.lease_batch(&LeaseOptions::new(2)).await.unwrap_err();
    bench.heal().await;
    // On a clock that stands still it would sleep for as long as it may.
    queue.wait(60 * MINUTE).await.unwrap();
    let deliveries = queue.lease_batch(&LeaseOptions::new(2)).await.unwrap();
    assert_eq!(deliveries.len(), 2);
    assert!(deliveries.iter().all(|each| each.attempt == 1));
}
