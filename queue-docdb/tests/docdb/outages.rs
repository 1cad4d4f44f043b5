//! Outages, which must not be taken for mistakes; and runtimes and clocks that do not serve.

use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _, future::BoxFuture};
use mongodb_test_server::{MongoReplicaSet, MongoServer, ReplicaSetOptions, ServerOptions};
use queue_api::{
    Error, ErrorKind, LeaseChange, PageOptions, Purge, QueueAdmin, QueueBackend, QueueTransaction,
    Receipt, Redrive,
};
use queue_docdb::{DocDbBackend, DocDbBuilder};
use tokio::{net::TcpListener, runtime::Runtime, time::Instant};

use crate::{
    fixture::{message, name, queue_of},
    mistakes::assert_readable,
};

tests! {
    on_one_thread:
        an_outage_is_told_with_its_host_and_reason,
        an_own_client_with_the_drivers_defaults_is_told_what_to_set;
    on_threads:
        a_set_without_a_primary_is_an_outage,
        calls_during_an_outage_are_told_in_words;
    without_runtime:
        a_backend_says_that_its_runtime_has_ended_and_serves_several_living_ones,
        calls_say_that_the_runtime_that_connected_may_not_be_running,
        a_paused_clock_is_told
}

const SHORT: Duration = Duration::from_millis(1500);
const TIMEOUT: Duration = Duration::from_secs(30);
/// Far less than that, on a busy machine too.
const SOON: Duration = Duration::from_secs(10);

fn builder(uri: impl Into<String>, timeout: Duration) -> DocDbBuilder {
    DocDbBackend::builder(uri)
        .database("shop")
        .operation_timeout(timeout)
        .without_change_stream()
}

/// A port that refuses connections.
async fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Accepts connections, and closes them or is silent.
async fn accept(keep: bool) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepting = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            if keep {
                open.push(connection);
            }
        }
    });
    (address, accepting)
}

struct Outage {
    case: String,
    builder: DocDbBuilder,
    words: Vec<String>,
}

fn outage(case: &str, uri: impl Into<String>, words: &[&str]) -> Outage {
    Outage {
        case: case.to_owned(),
        builder: builder(uri, SHORT),
        words: words.iter().map(|word| (*word).to_owned()).collect(),
    }
}

async fn check_unavailable(outage: Outage) {
    let Outage {
        case,
        builder,
        words,
    } = outage;
    let error = builder.connect().await.expect_err(&case);
    let text = error.to_string();
    println!("| {case} | {text} |");
    assert!(
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut),
        "{case}: {error:?}"
    );
    for word in words {
        assert!(text.contains(&word), "{case}: {text} does not say {word}");
    }
    assert_readable(&error).unwrap();
    assert!(!text.contains("the other servers"), "{case}: {text}");
    assert!(!text.ends_with(": "), "{case}: {text}");
    assert_eq!(format!("{error:#}"), text, "{case}: the cause is told once");
}

async fn an_outage_is_told_with_its_host_and_reason() {
    let closed = closed_port().await;
    let (dropping, first) = accept(false).await;
    let (silent, second) = accept(true).await;
    let mut outages = Vec::new();
    // In a load balancer's place, a server is not checked.
    for settings in [
        "",
        "loadBalanced=true",
        "tls=true",
        "replicaSet=rs0",
        "directConnection=true",
    ] {
        let uri = |host: &str| format!("mongodb://{host}/?{settings}");
        let refused = &[closed.as_str(), "onnection refused"];
        outages.extend([
            outage("a closed port", uri(&closed), refused),
            outage("dropped connections", uri(&dropping), &[&dropping]),
            outage("a silent server", uri(&silent), &[&silent]),
        ]);
        for host in [&closed, &dropping, &silent] {
            for millis in [1, 10, 100] {
                let timeout = Duration::from_millis(millis);
                let mut outage = outage("a short timeout", uri(host), &[host]);
                outage.case = format!("{timeout:?} with {}", uri(host));
                outage.builder = outage.builder.operation_timeout(timeout);
                outages.push(outage);
            }
        }
    }
    let unknown = "mongodb://no-such-host.invalid/";
    outages.push(outage(
        "an unknown host",
        unknown,
        &["no-such-host.invalid:27017"],
    ));
    let both = format!("mongodb://{closed},{silent}/?replicaSet=rs0");
    outages.push(outage("two hosts", both, &[&closed, &silent]));
    let server = MongoServer::shared().await.unwrap();
    let uri = server.uri().replace(
        "/?directConnection=true",
        &format!(",{closed}/?replicaSet=shop"),
    );
    let words = &["replicaSet is shop", closed.as_str(), "onnection refused"];
    outages.push(outage(
        "a wrong set beside a server that is down",
        uri,
        words,
    ));
    futures::future::join_all(outages.into_iter().map(check_unavailable)).await;
    first.abort();
    second.abort();
}

/// With them, the operation timeout ends first.
async fn an_own_client_with_the_drivers_defaults_is_told_what_to_set() {
    let uri = format!("mongodb://{}/", closed_port().await);
    let client = mongodb::Client::with_uri_str(uri).await.unwrap();
    let own = DocDbBackend::from_database(client.database("shop"));
    let error = own.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
    assert_eq!(
        error.to_string(),
        "connect: no answer within 10s; the client gives its reason only after its own \
         serverSelectionTimeoutMS, which is 30 s by default; set it below the operation timeout"
    );
}

async fn a_set_without_a_primary_is_an_outage() {
    let set = MongoReplicaSet::start(ReplicaSetOptions::new())
        .await
        .unwrap();
    let primary = set.settled().await.unwrap();
    let members = set.members();
    let last = members.into_iter().find(|each| *each != primary).unwrap();
    for member in members.into_iter().filter(|each| *each != last) {
        set.kill(member).await.unwrap();
    }
    // Until the last member has noticed, it names the primary that is gone.
    let admin = mongodb::Client::with_uri_str(set.member_uri(last))
        .await
        .unwrap();
    let admin = admin.database("admin");
    loop {
        let hello = admin
            .run_command(mongodb::bson::doc! { "hello": 1 })
            .await
            .unwrap();
        if !hello.contains_key("primary") {
            break;
        }
        tokio::task::yield_now().await;
    }
    let direct = set.member_uri(last);
    let words = &["not the primary"];
    check_unavailable(outage("no primary", set.uri(), words)).await;
    check_unavailable(outage("no primary, directly", &direct, words)).await;
    let client = mongodb::Client::with_uri_str(&direct).await.unwrap();
    let own = DocDbBackend::from_database(client.database("shop")).operation_timeout(SHORT);
    let error = own.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    set.shut_down().await.unwrap();
}

type Call<'a> = (&'static str, BoxFuture<'a, Result<(), Error>>);

/// Each call, with its name, so many at the same time.
async fn all_calls(
    backend: &DocDbBackend,
    at_once: usize,
) -> Vec<(&'static str, Result<(), Error>)> {
    let (queue, name) = (&queue_of(backend), &name());
    let receipt = Receipt::new("made up");
    let (change, receipts) = (LeaseChange::extend(receipt.clone(), SOON), [receipt]);
    let (changes, new, page) = ([change], [message("a")], PageOptions::new(1));
    let calls: [Call<'_>; 15] = [
        ("enqueue", backend.enqueue(name, &new).map_ok(drop).boxed()),
        ("lease", queue.lease().map_ok(drop).boxed()),
        ("ack", backend.ack(name, &receipts).map_ok(drop).boxed()),
        (
            "change",
            backend.change(name, &changes).map_ok(drop).boxed(),
        ),
        ("stats", queue.stats().map_ok(drop).boxed()),
        ("wait", queue.wait(Duration::ZERO).boxed()),
        ("peek", backend.peek(name, 1).map_ok(drop).boxed()),
        (
            "messages",
            backend.messages(name, &page).map_ok(drop).boxed(),
        ),
        (
            "dead letters",
            backend.dead_letters(name, &page).map_ok(drop).boxed(),
        ),
        (
            "redrive",
            backend.redrive(name, &Redrive::All).map_ok(drop).boxed(),
        ),
        (
            "purge",
            backend.purge(name, Purge::Live).map_ok(drop).boxed(),
        ),
        ("list queues", backend.list_queues().map_ok(drop).boxed()),
        ("prepare", backend.prepare(name).boxed()),
        (
            "start session",
            backend.start_session().map_ok(drop).boxed(),
        ),
        ("delete queue", backend.delete_queue(name).boxed()),
    ];
    let calls = calls.map(|(name, call)| call.map(move |outcome| (name, outcome)));
    futures::stream::iter(calls)
        .buffered(at_once)
        .collect()
        .await
}

/// The calls that may have written something when they fail.
const WRITES: [&str; 8] = [
    "enqueue",
    "lease",
    "ack",
    "change",
    "redrive",
    "purge",
    "prepare",
    "delete queue",
];

async fn calls_during_an_outage_are_told_in_words() {
    let server = MongoServer::start_dedicated(ServerOptions::new())
        .await
        .unwrap();
    let address = server.uri().trim_start_matches("mongodb://");
    let address = address.split('/').next().unwrap().to_owned();
    let backend = builder(server.uri(), SHORT * 2).connect().await.unwrap();
    for (call, outcome) in all_calls(&backend, 1).await {
        outcome.unwrap_or_else(|error| panic!("{call}: {error:?}"));
    }
    server.stop().await.unwrap();
    for (call, outcome) in all_calls(&backend, 14).await {
        let error = match (call, outcome) {
            // The driver makes sessions by itself.
            ("start session", _) => continue,
            (_, outcome) => outcome.expect_err(call),
        };
        let text = format!("{error:#}");
        println!("| {text} |");
        assert!(error.is_retryable(), "{text}");
        assert!(
            text.contains(&address) || text.contains("no answer"),
            "{text}"
        );
        assert!(!text.contains("within 0ns"), "{text}");
        assert_readable(&error).unwrap();
        let speaks_of_writes = text.contains("whether a write took effect");
        assert!(WRITES.contains(&call) || !speaks_of_writes, "{text}");
    }
}

fn new_runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn a_backend_says_that_its_runtime_has_ended_and_serves_several_living_ones() {
    let (first, second) = (new_runtime(), new_runtime());
    let (backend, mut session, _database) = first.block_on(async {
        let server = MongoServer::shared().await.unwrap();
        let database = server.scratch_database();
        let connecting = builder(server.uri(), TIMEOUT).database(database.name());
        let backend = connecting.connect().await.unwrap();
        let session = backend.start_session().await.unwrap();
        (backend, session, database)
    });
    for runtime in [&second, &first] {
        for (call, outcome) in runtime.block_on(all_calls(&backend, 1)) {
            outcome.unwrap_or_else(|error| panic!("{call}: {error:?}"));
        }
    }
    drop(first);
    second.block_on(async {
        let started = Instant::now();
        for (call, outcome) in all_calls(&backend, 1).await {
            let error = outcome.expect_err(call);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{call}: {error:?}");
            assert_eq!(error.operation(), call);
            assert!(error.to_string().contains("runtime"), "{error}");
        }
        let mut queues = backend.in_transaction(&mut session);
        let error = queues.enqueue(&name(), &[message("a")]).await.unwrap_err();
        assert!(error.to_string().contains("runtime"), "{error}");
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    });
}

/// A runtime that is alive, but that nothing drives any more.
fn calls_say_that_the_runtime_that_connected_may_not_be_running() {
    let first = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (backend, own) = first.block_on(async {
        let server = MongoServer::shared().await.unwrap();
        let backend = builder(server.uri(), SHORT).connect().await.unwrap();
        let client = mongodb::Client::with_uri_str(server.uri()).await.unwrap();
        let own = DocDbBackend::from_database(client.database("shop")).operation_timeout(SHORT);
        (backend, own.connect().await.unwrap())
    });
    let tasks = || first.metrics().num_alive_tasks();
    let before = tasks();
    new_runtime().block_on(async {
        for backend in [&backend, &own] {
            let name = name();
            let peeks = (0..20).map(|_| backend.peek(&name, 1));
            let outcomes = futures::future::join_all(peeks).await;
            assert!(
                outcomes.iter().any(Result::is_err),
                "some need a new connection"
            );
            let error = backend.stats(&name).await.unwrap_err();
            assert!(error.to_string().contains("may not be running"), "{error}");
        }
    });
    // One for each backend.
    assert!(tasks() <= before + 2, "{before} tasks became {}", tasks());
}

fn a_paused_clock_is_told() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(connect_while_paused());
}

/// An answer may come before tokio advances the clock, so a call may succeed. Or the driver's own time
/// limits end it. Of many calls, one is told the reason.
async fn fails_in_the_end<T>(mut call: impl AsyncFnMut() -> Result<T, Error>) -> Error {
    for _ in 0..1000 {
        match call().await {
            Err(error) if error.to_string().contains("clock is paused") => return error,
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
            Ok(_) => {}
        }
    }
    panic!("no call was told that the clock is paused");
}

async fn connect_while_paused() {
    let server = MongoServer::shared().await.unwrap();
    let database = server.scratch_database();
    let new = || builder(server.uri(), TIMEOUT).database(database.name());
    let error = fails_in_the_end(async || new().connect().await).await;
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    println!("| a paused clock | {error} |");

    tokio::time::resume();
    let backend = new().connect().await.unwrap();
    backend.stats(&name()).await.unwrap();
    tokio::time::pause();
    let error = fails_in_the_end(async || backend.stats(&name()).await).await;
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");

    // It may have been sent.
    let batch = [message("a")];
    let error = fails_in_the_end(async || backend.enqueue(&name(), &batch).await).await;
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
    let text = error.to_string();
    assert!(text.contains("whether a write took effect"), "{text}");
}
