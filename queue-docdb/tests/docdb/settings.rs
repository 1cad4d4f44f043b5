//! Every duration, count and size that an application can set, at the ends of its range.
//!
//! Each setting works, or is refused with its value and what is allowed.

use std::{fmt::Debug, time::Duration};

use mongodb_test_server::{
    MongoServer,
    documentdb::{Engines, Gate},
};
use queue_api::{
    Error, ErrorKind, LeaseChange, LeaseOptions, Limits, NewMessage, PageOptions, Purge,
    QueueAdmin, QueueBackend, QueueTransaction, Redrive,
};
use queue_docdb::DocDbBuilder;

use crate::fixture::{Fixture, MINUTE, TRANSACTIONAL, builder, id, lease, message, name, queue_of};

tests! {
    on_one_thread:
        the_builders_settings_at_their_ends,
        the_numbers_of_a_uri_at_their_ends,
        the_durations_of_calls_at_their_ends,
        the_counts_and_sizes_of_calls_at_their_ends
}

/// Ends a test that would hang.
const PATIENT: Duration = Duration::from_secs(60);

/// What a setting does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    /// It connects, and each call works.
    Good,
    /// `InvalidInput`, with a message that contains this.
    Refused(&'static str),
    /// So short that a call may find no time.
    Short,
}

/// Connects and makes each call.
async fn use_all(builder: DocDbBuilder) -> Result<(), Error> {
    let backend = builder.connect().await?;
    let (queue, name) = (queue_of(&backend), name());
    queue.enqueue_batch(&["a", "b", "c"].map(message)).await?;
    queue.wait(Duration::ZERO).await?;
    let deliveries = queue.lease_batch(&LeaseOptions::new(3)).await?;
    assert_eq!(deliveries.len(), 3);
    assert!(
        queue
            .extend(&deliveries[0].receipt, MINUTE)
            .await?
            .is_applied()
    );
    assert!(queue.ack(&deliveries[0].receipt).await?.is_applied());
    assert!(
        queue
            .nack(&deliveries[1].receipt, Duration::ZERO)
            .await?
            .is_applied()
    );
    assert!(
        queue
            .dead_letter(&deliveries[2].receipt, "no")
            .await?
            .is_applied()
    );
    assert_eq!(queue.stats().await?.ready, 1);
    assert_eq!(backend.peek(&name, 9).await?.len(), 1);
    let page = PageOptions::new(9);
    assert_eq!(backend.dead_letters(&name, &page).await?.len(), 1);
    assert_eq!(backend.messages(&name, &page).await?.len(), 1);
    assert_eq!(backend.redrive(&name, &Redrive::All).await?, 1);
    backend.list_queues().await?;
    let mut session = backend.start_session().await?;
    session.start_transaction().await.unwrap();
    let mut queues = backend.in_transaction(&mut session);
    queues.enqueue(&name, &[message("t")]).await?;
    session.commit_transaction().await.unwrap();
    assert_eq!(backend.purge(&name, Purge::Live).await?, 3);
    backend.delete_queue(&name).await
}

async fn check(case: &str, is: Is, builder: DocDbBuilder) {
    let used = tokio::time::timeout(PATIENT, use_all(builder)).await;
    let used = used.unwrap_or_else(|_| panic!("{case} hangs"));
    match (is, used) {
        (Is::Good | Is::Short, Ok(())) => {}
        (Is::Short, Err(error)) => assert!(error.is_retryable(), "{case}: {error:?}"),
        (Is::Refused(hint), Err(error)) => {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{case}: {error:?}");
            assert!(error.to_string().contains(hint), "{case}: {error}");
        }
        (_, used) => panic!("{case}: {used:?}"),
    }
}

async fn the_builders_settings_at_their_ends() {
    use Is::{Good, Refused, Short};
    let server = MongoServer::shared().await.unwrap();
    let gate = Gate::new(Engines::of(TRANSACTIONAL));
    let new = || builder(server.uri(), &gate);
    let timeout = |time| new().operation_timeout(time);
    for (case, is, builder) in [
        (
            "no time",
            Refused("operation_timeout is 0ns; it must be at least 1 ms"),
            timeout(Duration::ZERO),
        ),
        (
            "a nanosecond",
            Refused("operation_timeout is 1ns; it must be at least 1 ms"),
            timeout(Duration::from_nanos(1)),
        ),
        ("a millisecond", Short, timeout(Duration::from_millis(1))),
        (
            "a year",
            Good,
            timeout(Duration::from_secs(366 * 24 * 3600)),
        ),
        (
            "a million years",
            Good,
            timeout(Duration::from_secs(1 << 45)),
        ),
        (
            "all milliseconds",
            Good,
            timeout(Duration::from_millis(u64::MAX)),
        ),
        ("all time", Good, timeout(Duration::MAX)),
        (
            "no connection",
            Refused("max_pool_size is 0; it must be at least 1"),
            new().max_pool_size(0),
        ),
        ("one connection", Good, new().max_pool_size(1)),
        ("all connections", Good, new().max_pool_size(u32::MAX)),
        (
            "an entry of nothing",
            Refused("entry_size is 0; it must be 1 to 64"),
            new().entry_size(0),
        ),
        ("an entry of one", Good, new().entry_size(1)),
        ("an entry of 64", Good, new().entry_size(64)),
        (
            "an entry of 65",
            Refused("entry_size is 65; it must be 1 to 64"),
            new().entry_size(65),
        ),
        (
            "an entry of all",
            Refused("entry_size is 18446744073709551615; it must be 1 to 64"),
            new().entry_size(usize::MAX),
        ),
        ("no name", Good, new().application_name("")),
        ("a short name", Good, new().application_name("x")),
        ("a long name", Good, new().application_name("x".repeat(128))),
        (
            "a longer name",
            Refused("has 129 bytes; it may have at most 128"),
            new().application_name("x".repeat(129)),
        ),
        ("a prefix of nothing", Good, new().collection_prefix("")),
        ("a prefix of 1 byte", Good, new().collection_prefix("x")),
        (
            "a prefix of 60 bytes",
            Good,
            new().collection_prefix("x".repeat(60)),
        ),
        (
            "a prefix of 119 bytes",
            Refused("119 bytes; it may have at most 81"),
            new().collection_prefix("x".repeat(119)),
        ),
    ] {
        let database = server.scratch_database();
        check(case, is, builder.database(database.name())).await;
    }
    let hint = Refused("it must have 1 to 63 bytes");
    check("no database", hint, new().database("")).await;
    check("64 bytes", hint, new().database("x".repeat(64))).await;
}

/// One more than the largest `u64`.
const BEYOND: &str = "18446744073709551616";

/// The options with numbers that the driver knows, and whether it refuses 0, 1, and the largest
/// `u32` and `u64`.
async fn the_numbers_of_a_uri_at_their_ends() {
    use Is::{Good, Refused, Short};
    let server = MongoServer::shared().await.unwrap();
    let gate = Gate::new(Engines::of(TRANSACTIONAL));
    let at_least_500 = Refused("'heartbeat_freq' must be at least 500ms");
    let is_a_u32 = Refused("must be a positive integer");
    for (option, zero, one, large, largest) in [
        ("connectTimeoutMS", Good, Short, Good, Good),
        (
            "heartbeatFrequencyMS",
            at_least_500,
            at_least_500,
            Good,
            Good,
        ),
        ("localThresholdMS", Good, Good, Good, Good),
        (
            "maxConnecting",
            Refused("maxConnecting=0"),
            Good,
            Good,
            is_a_u32,
        ),
        ("maxIdleTimeMS", Good, Good, Good, Good),
        (
            "maxPoolSize",
            Refused("maxPoolSize=0"),
            Good,
            Good,
            is_a_u32,
        ),
        ("minPoolSize", Good, Good, Good, is_a_u32),
        ("serverSelectionTimeoutMS", Good, Good, Good, Good),
        ("waitQueueTimeoutMS", Good, Good, Good, Good),
        ("wTimeoutMS", Good, Good, Good, Good),
        ("w", Good, Good, Good, Good),
    ] {
        let beyond = match option {
            "w" => Good,
            // The message names the option.
            _ => Refused("integer"),
        };
        for (value, is) in [
            ("0", zero),
            ("1", one),
            ("4294967295", large),
            ("18446744073709551615", largest),
            (BEYOND, beyond),
        ] {
            let uri = format!("{}&{option}={value}", server.uri());
            let database = server.scratch_database();
            let builder = builder(&uri, &gate)
                .database(database.name())
                .operation_timeout(Duration::from_secs(20));
            check(&format!("{option}={value}"), is, builder).await;
        }
    }
}

/// A day longer than 366 days.
const TOO_LONG: Duration = Duration::from_secs(367 * 24 * 3600);

/// Durations at their ends, with whether they are allowed for a lease, and for a delay.
const DURATIONS: [(Duration, bool, bool); 7] = [
    (Duration::ZERO, true, true),
    (Duration::from_nanos(1), true, true),
    (Duration::from_millis(1), true, true),
    (Limits::STANDARD.max_visibility_timeout, true, true),
    (Limits::STANDARD.max_delay, false, true),
    (TOO_LONG, false, false),
    (Duration::MAX, false, false),
];

/// The call works if that is allowed; else it is refused with the value.
fn assert_allowed<T: Debug>(case: &str, is_allowed: bool, value: &str, answer: Result<T, Error>) {
    match answer {
        Ok(_) => assert!(is_allowed, "{case} {value} is not refused"),
        Err(error) => {
            assert!(!is_allowed, "{case} {value}: {error:?}");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{case}: {error:?}");
            assert!(error.to_string().contains(value), "{case}: {error}");
        }
    }
}

async fn the_durations_of_calls_at_their_ends() {
    let fixture = Fixture::for_engines(Engines::of(TRANSACTIONAL)).await;
    let (queue, backend) = (fixture.queue(), &fixture.backend);
    for (time, may_lease, may_delay) in DURATIONS {
        let value = &format!("{time:?}");
        let stored = queue.enqueue(&NewMessage::new("").with_delay(time)).await;
        assert_allowed("a delay of", may_delay, value, stored);
        let sent = NewMessage::new("").with_visibility_timeout(time);
        assert_allowed("leases of", may_lease, value, queue.enqueue(&sent).await);
        let later = NewMessage::new("").with_delay(time);
        let mut session = backend.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        let mut transaction = backend.in_transaction(&mut session);
        let stored = queue.enqueue_in(&mut transaction, &[later]).await;
        session.commit_transaction().await.unwrap();
        assert_allowed("a delay in a transaction of", may_delay, value, stored);

        backend.purge(&name(), Purge::Live).await.unwrap();
        queue.enqueue(&message("a")).await.unwrap();
        let options = LeaseOptions::new(1).with_visibility_timeout(time);
        assert_allowed(
            "a lease of",
            may_lease,
            value,
            queue.lease_batch(&options).await,
        );
        backend.purge(&name(), Purge::Live).await.unwrap();
        queue.enqueue(&message("a")).await.unwrap();
        let receipt = lease(&queue, 1).await.remove(0).receipt;
        assert_allowed(
            "extend by",
            may_lease,
            value,
            queue.extend(&receipt, time).await,
        );
        assert_allowed(
            "nack for",
            may_delay,
            value,
            queue.nack(&receipt, time).await,
        );
        backend.purge(&name(), Purge::Live).await.unwrap();

        // Without the handle, which checks durations.
        let messages = [message("b").with_delay(time), message("c")];
        backend.enqueue(&name(), &messages).await.unwrap();
        let leased = backend.lease(&name(), &options).await.unwrap();
        let changes = leased.iter().flat_map(|each| {
            let receipt = &each.receipt;
            [
                LeaseChange::extend(receipt.clone(), time),
                LeaseChange::nack(receipt.clone(), time),
            ]
        });
        let changes: Vec<_> = changes.collect();
        backend.change(&name(), &changes).await.unwrap();
        backend.peek(&name(), 9).await.unwrap();
        let page = PageOptions::new(9);
        backend.messages(&name(), &page).await.unwrap();
        backend.stats(&name()).await.unwrap();
        backend.purge(&name(), Purge::Live).await.unwrap();

        // A wait has no limit. It ends for the message.
        let (waited, ()) = tokio::join!(queue.wait(time), async {
            tokio::task::yield_now().await;
            queue.enqueue(&message("a")).await.unwrap();
        });
        waited.unwrap();
    }
}

async fn the_counts_and_sizes_of_calls_at_their_ends() {
    let fixture = Fixture::new().await;
    let (queue, backend) = (fixture.queue(), &fixture.backend);
    for attempts in [0, 1, u32::MAX] {
        let sent = NewMessage::new("").with_max_attempts(attempts);
        let stored = queue.enqueue(&sent).await;
        assert_allowed("max_attempts", attempts > 0, &attempts.to_string(), stored);
    }
    let most = Limits::STANDARD.max_payload_bytes;
    for bytes in [0, 1, most, most + 1] {
        let stored = queue.enqueue(&NewMessage::new(vec![7; bytes])).await;
        assert_allowed("a payload of", bytes <= most, &bytes.to_string(), stored);
    }
    backend.purge(&name(), Purge::Live).await.unwrap();
    let ids = ["a", "b", "c"];
    for count in [0, 1, usize::MAX] {
        queue.enqueue_batch(&ids.map(message)).await.unwrap();
        let expected = count.min(3);
        assert_eq!(backend.peek(&name(), count).await.unwrap().len(), expected);
        let page = PageOptions::new(count);
        let listed = backend.messages(&name(), &page).await.unwrap();
        assert_eq!(listed.len(), expected);
        let options = LeaseOptions::new(count);
        let leased = queue.lease_batch(&options).await;
        let leased = match count {
            0 => {
                assert_allowed("max_messages is", false, "0", leased);
                Vec::new()
            }
            _ => leased.unwrap(),
        };
        assert_eq!(leased.len(), expected);
        let rest = backend.lease(&name(), &options).await.unwrap();
        assert_eq!(rest.len(), count.min(3 - expected));
        let letters: Vec<_> = leased
            .iter()
            .map(|each| LeaseChange::dead_letter(each.receipt.clone(), "no"))
            .collect();
        queue.change_batch(&letters).await.unwrap();
        let listed = backend.dead_letters(&name(), &page).await.unwrap();
        assert_eq!(listed.len(), expected);
        let some = Redrive::Ids(ids.iter().take(count).map(|it| id(it)).collect());
        let redriven = backend.redrive(&name(), &some).await.unwrap();
        assert!(redriven <= expected as u64);
        backend.purge(&name(), Purge::Live).await.unwrap();
        backend.purge(&name(), Purge::Dead).await.unwrap();
    }
}
