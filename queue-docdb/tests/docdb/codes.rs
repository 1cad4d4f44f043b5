//! Each error code of a server: the kind of the error, and which calls retry it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mongodb::bson::doc;
use queue_api::{EnqueueOutcome::Stored, ErrorKind, NewMessage, PageOptions, QueueAdmin};

use crate::{
    failing_server::FailingServer,
    fixture::{Fixture, MINUTE, SECOND, lease, message, name, queue_of},
};

tests! {
    on_one_thread:
        every_code_has_its_kind_and_a_label_makes_it_retryable,
        a_write_concern_error_of_any_code_is_not_final,
        a_command_that_was_not_sent_does_not_hide_the_error_of_another;
    on_threads:
        reads_and_leases_succeed_while_the_queue_is_deleted
}

/// Only an operator can help, so a call does not retry.
const EXHAUSTED: [i32; 2] = [146, 14031];

/// The labels by which a server says that a repeat may succeed.
const LABELS: [&str; 4] = [
    "RetryableWriteError",
    "TransientTransactionError",
    "RetryableError",
    "SystemOverloadedError",
];

/// The codes of the table, and their kinds.
fn table() -> Vec<(i32, ErrorKind)> {
    let lines = include_str!("../../src/store/error_codes.txt").lines();
    let rows = lines.filter(|line| !line.starts_with('#')).map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let kinds = [
            ErrorKind::InvalidInput,
            ErrorKind::Unavailable,
            ErrorKind::TimedOut,
            ErrorKind::Denied,
            ErrorKind::Internal,
        ];
        let kind = kinds.iter().find(|kind| format!("{kind:?}") == words[2]);
        (words[0].parse().expect(line), *kind.expect(line))
    });
    rows.collect()
}

fn is_retryable(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::TimedOut)
}

/// Codes that no fail point can put into a reply: the server closes the connection or stops, or
/// the driver logs in again.
const NO_REPLY: [i32; 6] = [303, 330, 354, 372, 391, 398];

/// The code of a fail point whose own code needs more fields in the reply.
const NEEDS_FIELDS: &str = "Location40671";

impl FailingServer {
    /// The server's own name of a code.
    async fn name_of(&self, code: i32) -> String {
        let data = doc! { "failCommands": ["ping"], "errorCode": code };
        self.fail_point(doc! { "mode": { "times": 1 }, "data": data })
            .await;
        let ping = self.admin.run_command(doc! { "ping": 1 });
        match *ping.await.expect_err("it fails").kind {
            mongodb::error::ErrorKind::Command(error) => error.code_name,
            other => panic!("{other}"),
        }
    }
}

/// Every code that the server or the table knows.
async fn every_code_has_its_kind_and_a_label_makes_it_retryable() {
    let server = FailingServer::new().await;
    let command = "listCollections";
    let case = server.case(0, command, MINUTE).await;
    let listed: BTreeMap<i32, ErrorKind> = table().into_iter().collect();
    let codes: BTreeSet<i32> = (1..=500).chain(listed.keys().copied()).collect();
    let sendable = codes.into_iter().filter(|code| !NO_REPLY.contains(code));
    for (code, label) in sendable.zip(LABELS.iter().cycle()) {
        let name = server.name_of(code).await;
        let kind = listed.get(&code).copied().unwrap_or_else(|| {
            assert_eq!(
                name,
                format!("Location{code}"),
                "{code} is not in the table"
            );
            ErrorKind::Internal
        });
        if name == NEEDS_FIELDS {
            continue;
        }
        let failure = doc! { "errorCode": code };
        server.fail_once(command, failure).await;
        let answer = case.backend.list_queues().await;
        // A call that retries succeeds.
        let expected = match is_retryable(kind) && !EXHAUSTED.contains(&code) {
            true => Ok(Vec::new()),
            false => Err(kind),
        };
        assert_eq!(
            answer.map_err(|error| error.kind()),
            expected,
            "{code} {name}"
        );
        if expected.is_err() && !EXHAUSTED.contains(&code) {
            let failure = doc! { "errorCode": code, "errorLabels": [*label] };
            server.fail_once(command, failure).await;
            let answer = case.backend.list_queues().await;
            assert!(answer.is_ok(), "{code} {name} {label}: {answer:?}");
        }
    }
}

/// The write is there. Whatever the server says about a majority, the call finds it.
async fn a_write_concern_error_of_any_code_is_not_final() {
    let server = FailingServer::new().await;
    let case = server.case(0, "insert", MINUTE).await;
    case.backend.prepare(&case.name).await.unwrap();
    let queue = case.queue(&case.backend);
    for (code, _) in table() {
        let concern = doc! { "code": code, "errmsg": "no majority" };
        server
            .fail_once("insert", doc! { "writeConcernError": concern })
            .await;
        let answer = queue.enqueue(&message(&code.to_string())).await;
        match EXHAUSTED.contains(&code) {
            true => assert!(answer.unwrap_err().is_retryable(), "{code}"),
            false => assert_eq!(answer.unwrap(), Stored, "{code}"),
        }
    }
    let stored = table().len() as u64;
    assert_eq!(
        case.queue(&case.healthy).stats().await.unwrap().ready,
        stored
    );
}

/// The ack of one entry is a delete, which a server refuses that is not the primary. That of a part of another
/// one is an update, whose error may also follow an update that took effect.
async fn a_command_that_was_not_sent_does_not_hide_the_error_of_another() {
    let server = FailingServer::new().await;
    let case = server.case(0, "delete", 3 * SECOND).await;
    let queue = case.queue(&case.backend);
    queue.enqueue(&message("alone")).await.unwrap();
    let together = ["a", "b"].map(message);
    queue.enqueue_batch(&together).await.unwrap();
    let mut leased = lease(&queue, 3).await;
    leased.retain(|delivery| delivery.id.as_str() != "b");
    let receipts: Vec<_> = leased.into_iter().map(|it| it.receipt).collect();
    assert_eq!(receipts.len(), 2);

    let validator = doc! { "parted": { "$exists": false } };
    let refuse = doc! { "collMod": "queue.mail", "validator": validator };
    let database = server.admin.client().database("case0");
    database.run_command(refuse).await.unwrap();
    let data = doc! { "failCommands": ["delete"], "errorCode": 10107, "appName": "failing" };
    server
        .fail_point(doc! { "mode": "alwaysOn", "data": data })
        .await;
    let error = queue.ack_batch(&receipts).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert!(case.sent.load(Ordering::Relaxed) > 0);
    server.clear().await;
}

/// A queue is deleted again and again while other calls use it.
async fn reads_and_leases_succeed_while_the_queue_is_deleted() {
    let fixture = Fixture::new().await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut users = Vec::new();
    for _ in 0..3 {
        let backend = fixture.another_backend(fixture.clock.clone()).await;
        let is_over = is_over.clone();
        users.push(tokio::spawn(async move {
            let queue = queue_of(&backend);
            let mut errors = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                if let Err(error) = queue.enqueue(&NewMessage::new("a")).await {
                    assert!(error.is_retryable(), "{error:?}");
                }
                errors.extend(queue.lease().await.err());
                errors.extend(queue.stats().await.err());
                errors.extend(queue.wait(Duration::ZERO).await.err());
                errors.extend(backend.peek(&name(), 9).await.err());
                let page = PageOptions::new(9);
                errors.extend(backend.messages(&name(), &page).await.err());
            }
            errors
        }));
    }
    for _ in 0..150 {
        fixture.backend.delete_queue(&name()).await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    for user in users {
        let errors = user.await.unwrap();
        assert!(errors.is_empty(), "{errors:?}");
    }
}
