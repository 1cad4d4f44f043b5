//! A machine that was suspended: a program's monotonic clock stood still, the server's went on.
//!
//! The test runs itself as another process, into which a few lines of C are preloaded.

use std::{env, fs, process::Command, time::Duration};

use mongodb::{
    Client,
    bson::{DateTime, Document, doc},
};
use mongodb_test_server::{MongoServer, documentdb::Gate};
use queue_api::LeaseOptions;

use crate::fixture::{MINUTE, all_engines, builder, message, queue_of};

tests! {
    on_one_thread:
        leases_and_delays_of_a_suspended_machine_are_as_long_as_they_should_be
}

/// `CLOCK_MONOTONIC` runs for a tenth of the time, as if the machine were suspended for the rest.
/// Rust's `Instant` reads it through this function.
const SUSPENDED: &str = r#"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static struct timespec start;

__attribute__((constructor)) static void remember(void) {
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &start);
}

int clock_gettime(clockid_t id, struct timespec *out) {
    long answer = syscall(SYS_clock_gettime, id, out);
    if (answer == 0 && id == CLOCK_MONOTONIC) {
        long long nanos = (out->tv_sec - start.tv_sec) * 1000000000LL
            + out->tv_nsec - start.tv_nsec;
        nanos = start.tv_nsec + nanos / 10;
        out->tv_sec = start.tv_sec + nanos / 1000000000;
        out->tv_nsec = nanos % 1000000000;
    }
    return (int)answer;
}
"#;

/// The name of this test, which is also that of the child's part.
const TEST: &str =
    "suspended::leases_and_delays_of_a_suspended_machine_are_as_long_as_they_should_be";

/// Says that the process is the child.
const CHILD: &str = "QUEUE_DOCDB_SUSPENDED";

/// How far from the server's time a process may be, in milliseconds: a round trip on a busy machine.
const SLACK: i64 = 1000;

async fn leases_and_delays_of_a_suspended_machine_are_as_long_as_they_should_be() {
    if env::var_os(CHILD).is_some() {
        return work_on_a_suspended_machine().await;
    }
    let folder = env::temp_dir().join(format!("queue-suspended-{}", fastrand::u64(..)));
    fs::create_dir(&folder).unwrap();
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(&source, SUSPENDED).unwrap();
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source]);
    let compiled = compiler.status().expect("a C compiler");
    let server = MongoServer::shared().await.unwrap();
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(CHILD, "1")
        .env("QUEUE_TEST_MONGODB_URI", server.uri())
        .env("LD_PRELOAD", &library)
        .output();
    fs::remove_dir_all(&folder).unwrap();
    assert!(compiled.success());
    let child = child.unwrap();
    let stdout = String::from_utf8_lossy(&child.stdout);
    let stderr = String::from_utf8_lossy(&child.stderr);
    assert!(stdout.contains("1 passed"), "{stdout}{stderr}");
}

async fn work_on_a_suspended_machine() {
    let server = MongoServer::shared().await.unwrap();
    let database = server.scratch_database();
    let gate = Gate::new(all_engines());
    let backend = builder(server.uri(), &gate).database(database.name());
    let backend = backend.connect().await.unwrap();
    let queue = queue_of(&backend);
    queue.enqueue(&message("now")).await.unwrap();
    let connected = server_time(&backend).await;
    #[allow(clippy::disallowed_methods)] // time passes, and the program does not run
    std::thread::sleep(Duration::from_secs(3));
    let before = server_time(&backend).await;
    assert!(before - connected >= 3000);

    let lease = LeaseOptions::new(1).with_visibility_timeout(MINUTE);
    let delivery = queue.lease_batch(&lease).await.unwrap().remove(0);
    let later = message("later").with_delay(MINUTE);
    queue.enqueue(&later).await.unwrap();
    let after = server_time(&backend).await;
    let expected = before + 60_000 - SLACK..=after + 60_000 + SLACK;
    let told = DateTime::from_system_time(delivery.lease_expires_at).timestamp_millis();
    assert!(expected.contains(&told), "{told} is not in {expected:?}");
    let client = Client::with_uri_str(server.uri()).await.unwrap();
    let documents = client
        .database(database.name())
        .collection::<Document>("queue.mail");
    for id in ["now", "later"] {
        let found = documents.find_one(doc! { "ids": id }).await.unwrap();
        let ready_at = found
            .unwrap()
            .get_datetime("visible_at")
            .unwrap()
            .timestamp_millis();
        assert!(
            expected.contains(&ready_at),
            "{id}: {ready_at} is not in {expected:?}"
        );
    }
}

/// In milliseconds.
async fn server_time(backend: &queue_docdb::DocDbBackend) -> i64 {
    let admin = backend.client().database("admin");
    let reply = admin.run_command(doc! { "hello": 1 }).await.unwrap();
    reply.get_datetime("localTime").unwrap().timestamp_millis()
}
