//! Each error code of a server: the kind of the error, and which calls retry it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mongodb::bson::{Document, doc};
use queue_api::{EnqueueOutcome::Stored, ErrorKind, NewMessage, QueueAdmin, QueueName};

use crate::{
    fail_points::{CASES, Operation},
    faults::{Case, CommandFailure, FailingServer},
    fixture::{Fixture, message, name, queue_of},
};

tests! {
    on_one_thread:
        every_code_has_its_kind_and_a_label_makes_it_retryable,
        a_write_concern_error_of_any_code_is_not_final,
        calls_outlast_a_block_of_writes;
    on_threads:
        calls_are_retried_after_every_refusal_that_passes,
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
    let lines = include_str!("../error_codes.txt").lines();
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

/// The codes of which the driver makes a failover: it sends nothing for half a second.
fn is_failover(code: i32) -> bool {
    [91, 189, 10058, 10107, 11600, 11602, 13435, 13436].contains(&code)
}

/// Codes that no fail point can put into a reply: the server closes the connection or stops, or
/// the driver logs in again.
const NO_REPLY: [i32; 6] = [303, 330, 354, 372, 391, 398];

/// The code of a fail point whose own code needs more fields in the reply.
const NEEDS_FIELDS: &str = "Location40671";

impl FailingServer {
    /// The next `command` fails once.
    async fn fail_once(&self, command: &str, failure: Document) {
        let mut data = doc! { "failCommands": [command], "appName": "failing" };
        data.extend(failure);
        self.fail_point(doc! { "mode": { "times": 1 }, "data": data })
            .await;
    }

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

    async fn block_writes(&self, global: bool) {
        let command = doc! { "setUserWriteBlockMode": 1, "global": global };
        self.admin.run_command(command).await.unwrap();
    }
}

/// Every code that the server or the table knows.
async fn every_code_has_its_kind_and_a_label_makes_it_retryable() {
    let server = FailingServer::new().await;
    let command = "listCollections";
    let case = server.case(0, command, CommandFailure::Code(0)).await;
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
    let failure = CommandFailure::Code(0);
    let case = server.case(0, "insert", failure).await;
    case.prepare(Operation::Enqueue).await;
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

/// Calls whose first try may have done something that no later look can tell.
fn may_end_in_an_error(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Enqueue
            | Operation::EnqueueAgain
            | Operation::Purge
            | Operation::PurgeDead
            | Operation::Redrive
    )
}

/// Refuses each command of the calls by these codes. The calls with a command take turns.
async fn refuse_every_command(codes: Vec<i32>) {
    let mut calls: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for row in CASES {
        calls.entry(row.2).or_default().push(row);
    }
    let server = FailingServer::new().await;
    for (turn, code) in codes.into_iter().enumerate() {
        if server.name_of(code).await == NEEDS_FIELDS {
            continue;
        }
        let failure = CommandFailure::Code(code);
        let case = server.case(code as usize, "", failure).await;
        for (&command, rows) in &calls {
            let (operation, name, _) = rows[turn % rows.len()];
            let case = Case {
                name: QueueName::new(command).unwrap(),
                ..case.clone()
            };
            let receipts = case.prepare(operation).await;
            server.arm(command, failure).await;
            let answer = case.make(operation, &receipts).await;
            server.clear().await;
            let may_fail = may_end_in_an_error(operation) || EXHAUSTED.contains(&code);
            assert!(
                answer.is_ok() || may_fail,
                "{code} for {command} in {name}: {answer:?}"
            );
            case.check(operation, &receipts, &answer).await;
            case.healthy.delete_queue(&case.name).await.unwrap();
        }
    }
    server.gate.verify().unwrap();
    server.mongod.stop().await.unwrap();
}

/// After a failover's code the driver sends nothing for half a second, so the servers share the
/// work. `fail_points` has four of the codes.
async fn calls_are_retried_after_every_refusal_that_passes() {
    let mut shares = vec![Vec::new(); 3];
    let retryable = table().into_iter().filter(|row| is_retryable(row.1));
    let (slow, quick): (Vec<i32>, Vec<i32>) = retryable
        .map(|row| row.0)
        .filter(|code| !NO_REPLY.contains(code))
        .filter(|code| ![112, 189, 10107, 11600].contains(code))
        .partition(|code| is_failover(*code));
    for (number, code) in slow.into_iter().chain(quick).enumerate() {
        shares[number % 3].push(code);
    }
    let servers = shares
        .into_iter()
        .map(|codes| tokio::spawn(refuse_every_command(codes)));
    for server in servers.collect::<Vec<_>>() {
        server.await.unwrap();
    }
}

/// `setUserWriteBlockMode`, as operators use it before they move a cluster.
async fn calls_outlast_a_block_of_writes() {
    let server = FailingServer::new().await;
    // Of the commands that make a queue, only the first is sent.
    let is_write = |(operation, _, command): &(Operation, &str, &str)| match operation {
        Operation::EnqueueFirst => *command == "create",
        _ => ["insert", "update", "delete", "drop"].contains(command),
    };
    let rows = CASES.into_iter().filter(is_write);
    for (number, (operation, name, command)) in rows.enumerate() {
        let case = server.case(number, command, CommandFailure::Code(0)).await;
        let receipts = case.prepare(operation).await;
        case.sent.store(0, Ordering::Relaxed);
        server.block_writes(true).await;
        let end = async {
            // The second try shows that the first was refused.
            while case.sent.load(Ordering::Relaxed) < 2 {
                tokio::task::yield_now().await;
            }
            server.block_writes(false).await;
            std::future::pending::<()>().await
        };
        let answer = tokio::select! {
            answer = case.make(operation, &receipts) => answer,
            () = end => unreachable!("it is pending"),
        };
        server.block_writes(false).await;
        let is_final = answer.is_err() && !may_end_in_an_error(operation);
        assert!(!is_final, "{command} in {name}: {answer:?}");
        case.check(operation, &receipts, &answer).await;
    }
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
