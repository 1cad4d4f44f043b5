//! A write is carried out, its answer is lost, and another process settles the messages meanwhile.
//! What the call then returns must be true.

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
    faults::{Case, CommandFailure, FailingServer},
    fixture::{MINUTE, lease, message},
};

tests! {
    on_threads:
        a_message_acked_during_its_enqueue_is_not_stored_again,
        an_id_reused_during_its_enqueue_is_no_duplicate,
        a_settled_message_is_not_lost,
        a_claim_without_an_answer_is_not_empty,
        the_drivers_own_retry_stores_nothing_twice
}

/// The queue in two processes. Answers to the first one get lost.
struct Processes {
    failing: Queue,
    healthy: Queue,
}

impl Processes {
    fn of(case: &Case) -> Self {
        let queue = |backend: &DocDbBackend| {
            Queue::new(Arc::new(backend.clone()), case.name.as_str()).unwrap()
        };
        Self {
            failing: queue(&case.backend),
            healthy: queue(&case.healthy),
        }
    }

    /// Leases the next message, once there is one.
    async fn next(&self) -> Delivery {
        loop {
            self.healthy.wait(MINUTE).await.unwrap();
            if let Some(delivery) = self.healthy.lease().await.unwrap() {
                return delivery;
            }
        }
    }

    async fn ack_next(&self) {
        let receipt = self.next().await.receipt;
        let acked = self.healthy.ack(&receipt).await.unwrap();
        assert_eq!(acked, LeaseOutcome::Applied);
    }

    async fn left(&self) -> QueueStats {
        self.healthy.stats().await.unwrap()
    }
}

/// The answer to `command` is lost. No connection gets an answer until `others` has ended.
async fn in_silence<T>(
    server: &FailingServer,
    command: &str,
    call: impl Future<Output = T>,
    others: impl Future<Output = ()>,
) -> T {
    server.proxy.hold();
    server.arm(command, CommandFailure::Silence).await;
    let others = async {
        others.await;
        server.proxy.let_go();
    };
    let (answer, ()) = tokio::join!(call, others);
    server.clear().await;
    answer
}

async fn a_message_acked_during_its_enqueue_is_not_stored_again() {
    let server = FailingServer::new().await;
    for number in 0..2 {
        let case = server.case(number, "insert", CommandFailure::Silence).await;
        case.backend.prepare(&case.name).await.unwrap();
        let processes = Processes::of(&case);
        // In the second case, the other message of the batch is stored already.
        let batch = [message("new"), message("stored")];
        if number == 1 {
            processes.healthy.enqueue(&batch[1]).await.unwrap();
            processes.failing.stats().await.unwrap();
        }
        let call = processes.failing.enqueue_batch(&batch[..=number]);
        let acked = async {
            while processes.left().await.ready <= number as u64 {}
            for _ in 0..=number {
                processes.ack_next().await;
            }
        };
        let answer = in_silence(&server, "insert", call, acked).await;
        let error = answer.expect_err("the call cannot know that it was stored");
        assert!(error.is_retryable(), "{error:?}");
        assert_eq!(
            processes.left().await,
            QueueStats::default(),
            "stored again"
        );
    }
    server.gate.verify().unwrap();
    server.mongod.stop().await.unwrap();
}

/// The stored message is that of another process. The call's own was stored, and is acked.
async fn an_id_reused_during_its_enqueue_is_no_duplicate() {
    let server = FailingServer::new().await;
    let case = server.case(0, "insert", CommandFailure::Silence).await;
    case.backend.prepare(&case.name).await.unwrap();
    let processes = Processes::of(&case);
    let others = async {
        processes.ack_next().await;
        let again = processes.healthy.enqueue(&message("a")).await.unwrap();
        assert_eq!(again, EnqueueOutcome::Stored);
    };
    let sent = message("a");
    let answer = in_silence(&server, "insert", processes.failing.enqueue(&sent), others).await;
    let error = answer.expect_err("it was stored, and acked");
    assert!(error.is_retryable(), "{error:?}");
    assert_eq!(processes.left().await.ready, 1);
    server.mongod.stop().await.unwrap();
}

/// Each way to settle a message, alone and in a batch. Meanwhile another process enqueues the id
/// again, or leases the message.
async fn a_settled_message_is_not_lost() {
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
    let server = FailingServer::new().await;
    let mut number = 0;
    for (way, settle) in ways {
        for size in [1, 2] {
            number += 1;
            let case = server.case(number, "none", CommandFailure::Silence).await;
            let processes = Processes::of(&case);
            let batch = &["a", "b"].map(message)[..size];
            processes.healthy.enqueue_batch(batch).await.unwrap();
            processes.failing.stats().await.unwrap();
            let receipts: Vec<Receipt> = lease(&processes.healthy, size)
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
                    true => processes.failing.ack_batch(&receipts).await,
                    false => processes.failing.change_batch(&changes).await,
                }
            };
            // The other process waits until it is done, and takes what is ready then.
            let others = async {
                while processes.left().await.leased > 0 {}
                match way {
                    "ack" => drop(processes.healthy.enqueue_batch(batch).await.unwrap()),
                    "dead letter" => {}
                    _ => {
                        let taken = lease(&processes.healthy, size).await;
                        assert_eq!(taken.len(), size, "{way}");
                    }
                }
            };
            let answer = in_silence(&server, command, call, others).await;
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
    server.gate.verify().unwrap();
    server.mongod.stop().await.unwrap();
}

/// The call's own claim took the messages, so an empty answer would be wrong.
async fn a_claim_without_an_answer_is_not_empty() {
    let server = FailingServer::new().await;
    for (number, failure) in [
        CommandFailure::Silence,
        CommandFailure::ClosedAfter,
        CommandFailure::ArrivesLate,
    ]
    .into_iter()
    .enumerate()
    {
        let case = server.case(number, "none", failure).await;
        let processes = Processes::of(&case);
        let batch = ["a", "b"].map(message);
        processes.healthy.enqueue_batch(&batch).await.unwrap();
        processes.failing.stats().await.unwrap();
        server.arm("update", failure).await;
        let answer = processes.failing.lease_batch(&LeaseOptions::new(2)).await;
        server.clear().await;
        match answer {
            Ok(deliveries) => assert_eq!(deliveries.len(), 2, "{failure:?}"),
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
    }
    server.gate.verify().unwrap();
    server.mongod.stop().await.unwrap();
}

/// The client has retryable writes on, which is the driver's default. The first answer is lost. Each
/// later insert is refused until a consumer has acked the message.
async fn the_drivers_own_retry_stores_nothing_twice() {
    let server = FailingServer::new().await;
    for (number, code) in [10107, 13435, 189, 91, 11602, 112].into_iter().enumerate() {
        let case = server
            .case(number, "none", CommandFailure::ClosedAfter)
            .await;
        let (refused, acked) = (Arc::new(Notify::new()), Notify::new());
        let seen = refused.clone();
        let mut options = ClientOptions::parse(server.uri(CommandFailure::ClosedAfter))
            .await
            .unwrap();
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
            .clock(case.clock.clone())
            .without_change_stream()
            .connect()
            .await
            .unwrap();
        backend.prepare(&case.name).await.unwrap();
        let processes = Processes::of(&case);
        let ours = Queue::new(Arc::new(backend), case.name.as_str()).unwrap();

        server.arm("insert", CommandFailure::ClosedAfter).await;
        let data = doc! { "failCommands": ["insert"], "appName": "failing", "errorCode": code };
        server
            .fail_point(doc! { "mode": { "skip": 1 }, "data": data })
            .await;
        let sent = message("a");
        let mut call = pin!(ours.enqueue(&sent));
        let healed = async {
            refused.notified().await;
            acked.notified().await;
            server.clear().await;
        };
        let call = async {
            tokio::select! {
                answer = &mut call => answer,
                () = healed => call.await,
            }
        };
        let others = async {
            processes.ack_next().await;
            acked.notify_one();
        };
        let (answer, ()) = tokio::join!(call, others);
        server.clear().await;
        if let Ok(outcome) = answer {
            assert_eq!(outcome, EnqueueOutcome::Stored, "{code}");
        }
        assert_eq!(
            processes.left().await,
            QueueStats::default(),
            "{code}: stored again"
        );
    }
    server.mongod.stop().await.unwrap();
}
