//! What a call may say whose own write was carried out while its answer was lost, and what others
//! did meanwhile.

use std::{pin::pin, sync::Arc, time::Duration};

use mongodb::{
    Client,
    bson::doc,
    error::ErrorKind,
    event::{EventHandler, command::CommandEvent},
    options::ClientOptions,
};
use queue_api::{
    Delivery, EnqueueOutcome, LeaseChange, LeaseOptions, LeaseOutcome, Queue, QueueStats, Receipt,
};
use queue_docdb::DocDbBackend;
use tokio::sync::Notify;

use crate::{
    faults::{Bench, Fault, Patient},
    fixture::{MINUTE, lease, message},
};

/// Two processes: one whose answers get lost, and the others.
struct Both {
    ours: Queue,
    others: Queue,
}

impl Both {
    fn of(patient: &Patient) -> Self {
        let queue = |backend: &DocDbBackend| {
            Queue::new(Arc::new(backend.clone()), patient.name.as_str()).unwrap()
        };
        Self {
            ours: queue(&patient.backend),
            others: queue(&patient.healthy),
        }
    }

    /// The next message, once it is there.
    async fn next(&self) -> Delivery {
        loop {
            self.others.wait(MINUTE).await.unwrap();
            if let Some(delivery) = self.others.lease().await.unwrap() {
                return delivery;
            }
        }
    }

    async fn ack_next(&self) {
        let receipt = self.next().await.receipt;
        let acked = self.others.ack(&receipt).await.unwrap();
        assert_eq!(acked, LeaseOutcome::Applied);
    }

    async fn left(&self) -> QueueStats {
        self.others.stats().await.unwrap()
    }
}

/// The reply is lost, and the connections stay silent until `others` are through.
async fn in_silence<T>(
    bench: &Bench,
    command: &str,
    call: impl Future<Output = T>,
    others: impl Future<Output = ()>,
) -> T {
    bench.proxy.hold();
    bench.arm(command, Fault::Silence).await;
    let others = async {
        others.await;
        bench.proxy.let_go();
    };
    let (answer, ()) = tokio::join!(call, others);
    bench.heal().await;
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_acked_while_its_enqueue_waited_is_not_stored_again() {
    let bench = Bench::new().await;
    for number in 0..2 {
        let patient = bench.patient(number, "insert", Fault::Silence).await;
        patient.backend.prepare(&patient.name).await.unwrap();
        let both = Both::of(&patient);
        // Of a batch of two the other one is there before.
        let batch = [message("mine"), message("there before")];
        if number == 1 {
            both.others.enqueue(&batch[1]).await.unwrap();
            both.ours.stats().await.unwrap();
        }
        let call = both.ours.enqueue_batch(&batch[..=number]);
        let acked = async {
            while both.left().await.ready <= number as u64 {}
            for _ in 0..=number {
                both.ack_next().await;
            }
        };
        let answer = in_silence(&bench, "insert", call, acked).await;
        let error = answer.expect_err("nobody can tell what became of it");
        assert!(error.is_retryable(), "{error:?}");
        assert_eq!(both.left().await, QueueStats::default(), "stored again");
    }
    bench.gate.verify().unwrap();
    bench.server.stop().await.unwrap();
}

/// The message there now is another's, and what became of one's own nobody can tell.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_others_took_while_an_enqueue_waited_is_not_called_a_duplicate() {
    let bench = Bench::new().await;
    let patient = bench.patient(0, "insert", Fault::Silence).await;
    patient.backend.prepare(&patient.name).await.unwrap();
    let both = Both::of(&patient);
    let others = async {
        both.ack_next().await;
        let again = both.others.enqueue(&message("a")).await.unwrap();
        assert_eq!(again, EnqueueOutcome::Stored);
    };
    let sent = message("a");
    let answer = in_silence(&bench, "insert", both.ours.enqueue(&sent), others).await;
    let error = answer.expect_err("it was stored, and acked");
    assert!(error.is_retryable(), "{error:?}");
    assert_eq!(both.left().await.ready, 1);
    bench.server.stop().await.unwrap();
}

/// Every way to settle, alone and with others, while the id comes back for another message.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_settled_while_it_waited_is_not_called_lost() {
    type Settle = fn(Receipt) -> Option<LeaseChange>;
    let ways: [(&str, Settle); 4] = [
        ("ack", |_| None),
        ("nack", |receipt| {
            Some(LeaseChange::nack(receipt, Duration::ZERO))
        }),
        ("release", |receipt| Some(LeaseChange::release(receipt))),
        ("dead letter", |receipt| {
            Some(LeaseChange::dead_letter(receipt, "no"))
        }),
    ];
    let bench = Bench::new().await;
    let mut number = 0;
    for (way, settle) in ways {
        for size in [1, 2] {
            number += 1;
            let patient = bench.patient(number, "none", Fault::Silence).await;
            let both = Both::of(&patient);
            let batch = &["a", "b"].map(message)[..size];
            both.others.enqueue_batch(batch).await.unwrap();
            both.ours.stats().await.unwrap();
            let receipts: Vec<Receipt> = lease(&both.others, size)
                .await
                .into_iter()
                .map(|delivery| delivery.receipt)
                .collect();
            let changes: Vec<_> = receipts.iter().cloned().filter_map(settle).collect();
            let command = if changes.is_empty() {
                "delete"
            } else {
                "update"
            };
            let call = async {
                match changes.is_empty() {
                    true => both.ours.ack_batch(&receipts).await,
                    false => both.ours.change_batch(&changes).await,
                }
            };
            // Others see that it is done, and take what has come free.
            let others = async {
                while both.left().await.leased > 0 {}
                match way {
                    "ack" => drop(both.others.enqueue_batch(batch).await.unwrap()),
                    "dead letter" => {}
                    _ => {
                        let taken = lease(&both.others, size).await;
                        assert_eq!(taken.len(), size, "{way}");
                    }
                }
            };
            let answer = in_silence(&bench, command, call, others).await;
            if let Ok(outcomes) = answer {
                assert!(
                    outcomes
                        .iter()
                        .all(|outcome| *outcome == LeaseOutcome::Applied),
                    "{way} of {size}: {outcomes:?}"
                );
            }
        }
    }
    bench.gate.verify().unwrap();
    bench.server.stop().await.unwrap();
}

/// "Nothing is ready" is wrong where the call's own claim took it, and it must not stay hidden.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_claim_took_is_not_called_nothing() {
    let bench = Bench::new().await;
    for (number, fault) in [Fault::Silence, Fault::ClosedAfter, Fault::ArrivesLate]
        .into_iter()
        .enumerate()
    {
        let patient = bench.patient(number, "none", fault).await;
        let both = Both::of(&patient);
        let batch = ["a", "b"].map(message);
        both.others.enqueue_batch(&batch).await.unwrap();
        both.ours.stats().await.unwrap();
        bench.arm("update", fault).await;
        let answer = both.ours.lease_batch(&LeaseOptions::new(2)).await;
        bench.heal().await;
        match answer {
            Ok(deliveries) => assert_eq!(deliveries.len(), 2, "{fault:?}"),
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
    }
    bench.gate.verify().unwrap();
    bench.server.stop().await.unwrap();
}

/// A client whose retryable writes are on, as they are unless told otherwise: the first answer
/// is lost, and what is sent after it is refused, until a consumer has acked the message.
#[tokio::test(flavor = "multi_thread")]
async fn the_drivers_own_retry_stores_nothing_twice() {
    let bench = Bench::new().await;
    for (number, code) in [10107, 13435, 189, 91, 11602, 112].into_iter().enumerate() {
        let patient = bench.patient(number, "none", Fault::ClosedAfter).await;
        let (refused, acked) = (Arc::new(Notify::new()), Notify::new());
        let seen = refused.clone();
        let mut options = ClientOptions::parse(bench.uri()).await.unwrap();
        options.command_event_handler = Some(EventHandler::callback(move |event| {
            if let CommandEvent::Failed(failed) = event
                && matches!(&*failed.failure.kind, ErrorKind::Command(_))
            {
                seen.notify_one();
            }
        }));
        let client = Client::with_options(options).unwrap();
        let database = client.database(&format!("case{number}"));
        let backend = DocDbBackend::from_database(database)
            .clock(patient.clock.clone())
            .without_change_stream()
            .connect()
            .await
            .unwrap();
        backend.prepare(&patient.name).await.unwrap();
        let both = Both::of(&patient);
        let ours = Queue::new(Arc::new(backend), patient.name.as_str()).unwrap();

        bench.arm("insert", Fault::ClosedAfter).await;
        let data = doc! { "failCommands": ["insert"], "appName": "patient", "errorCode": code };
        bench
            .fail_point(doc! { "mode": { "skip": 1 }, "data": data })
            .await;
        let sent = message("a");
        let mut call = pin!(ours.enqueue(&sent));
        // Whoever sends it again is refused until it is acked.
        let healed = async {
            refused.notified().await;
            acked.notified().await;
            bench.heal().await;
        };
        let call = async {
            tokio::select! {
                answer = &mut call => answer,
                () = healed => call.await,
            }
        };
        let others = async {
            both.ack_next().await;
            acked.notify_one();
        };
        let (answer, ()) = tokio::join!(call, others);
        bench.heal().await;
        if let Ok(outcome) = answer {
            assert_eq!(outcome, EnqueueOutcome::Stored, "{code}");
        }
        assert_eq!(
            both.left().await,
            QueueStats::default(),
            "{code}: stored again"
        );
    }
    bench.server.stop().await.unwrap();
}
