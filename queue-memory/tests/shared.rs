//! One backend in a `static`, used by several runtimes with and without paused time.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use queue_api::{NewMessage, Queue, Result};
use queue_memory::MemoryBackend;
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, advance},
};

static SHARED: LazyLock<Arc<MemoryBackend>> = LazyLock::new(Arc::default);

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn queue(name: &str) -> Queue {
    Queue::new(SHARED.clone(), name).expect("valid")
}

fn paused() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

/// What any test may do: delays, leases and waits end by this runtime's own clock.
async fn time_works(name: &str) -> Result<()> {
    let queue = queue(name);
    queue
        .enqueue(&NewMessage::new("m").with_delay(MINUTE))
        .await?;
    assert!(queue.lease().await?.is_none(), "{name}: it is delayed");
    advance(MINUTE - Duration::from_millis(1)).await;
    assert!(
        queue.lease().await?.is_none(),
        "{name}: it is still delayed"
    );
    advance(Duration::from_millis(1)).await;
    let delivery = queue.lease().await?.expect("its delay is over");
    let age = delivery
        .lease_expires_at
        .duration_since(delivery.enqueued_at);
    assert_eq!(
        age.expect("later"),
        MINUTE + Duration::from_secs(30),
        "{name}"
    );

    let start = Instant::now();
    queue.wait(2 * HOUR).await?;
    assert_eq!(
        start.elapsed(),
        Duration::from_secs(30),
        "{name}: the lease"
    );
    let delivery = queue.lease_within(HOUR).await?.expect("its lease is over");
    assert!(queue.ack(&delivery.receipt).await?.is_applied());
    let start = Instant::now();
    queue.wait(2 * HOUR).await?;
    assert_eq!(start.elapsed(), 2 * HOUR, "{name}: nothing comes");
    Ok(())
}

#[test]
fn each_test_has_its_own_time() {
    for n in 0..3 {
        paused().block_on(async {
            time_works(&format!("after-{n}")).await.expect("it works");
            advance(24 * HOUR).await;
            queue("any").stats().await.expect("it works");
        });
    }
}

/// The calls of three tests alternate, while two are far ahead.
#[test]
fn tests_at_the_same_time_do_not_move_each_others_time() {
    let tests = [0, 24, 48].map(|hours| (paused(), queue(&format!("beside-{hours}")), hours));
    for (runtime, queue, hours) in &tests {
        runtime.block_on(async {
            let message = NewMessage::new("m").with_visibility_timeout(MINUTE);
            queue.enqueue(&message).await.expect("stored");
            advance(*hours * HOUR).await;
            let leased = queue.lease().await.expect("it works");
            leased.expect("it is ready");
        });
    }
    for second in 1..=60 {
        for (runtime, queue, hours) in &tests {
            runtime.block_on(async {
                advance(Duration::from_secs(1)).await;
                let leased = queue.lease().await.expect("it works");
                assert_eq!(leased.is_some(), second == 60, "{hours} h, {second} s");
            });
        }
    }
}

/// What one runtime has stored is there in the next, also if that has real time.
#[test]
fn messages_outlive_a_runtime() {
    let queue = Queue::new(Arc::new(MemoryBackend::new()), "q").expect("valid");
    let message = NewMessage::new("m").with_visibility_timeout(24 * HOUR);
    paused().block_on(async {
        advance(48 * HOUR).await;
        queue.enqueue(&message).await.expect("stored");
        queue.enqueue(&NewMessage::new("n")).await.expect("stored");
        let leased = queue.lease().await.expect("it works");
        leased.expect("it is ready");
    });
    let real = Builder::new_multi_thread().enable_time().build();
    real.expect("a runtime").block_on(async {
        let delivery = queue.lease().await.expect("it works");
        assert_eq!(delivery.expect("the other one is ready").payload, "n");
    });
    paused().block_on(async {
        assert_eq!(queue.lease().await.expect("it works"), None);
        advance(24 * HOUR).await;
        let delivery = queue.lease().await.expect("it works");
        assert!(delivery.is_some(), "the leases are over");
    });
}
