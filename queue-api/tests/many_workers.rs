//! Workers on several threads. This needs real time: tokio can pause time on one thread only.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use queue_api::{
    MessageId, NewMessage, Queue, Result,
    consumer::{Context, Failure, Report, Retry, RetryPolicy, Worker},
};
use queue_memory::MemoryBackend;
use tokio_util::sync::CancellationToken;

const MESSAGES: usize = 5000;

/// The workers are stopped and restarted after this many handled messages.
const RESTART_AFTER: usize = 500;

/// Records what the handlers did.
#[derive(Debug, Default)]
struct Record {
    running: HashMap<u32, u32>,
    overlapped: bool,
    handled: HashMap<u32, u32>,
    /// Messages whose first handler hung.
    hung: HashSet<u32>,
    hanging_now: usize,
    stop: CancellationToken,
}

impl Record {
    /// Stops the workers if a restart is due, or if all remaining handlers hang.
    fn stop_if_due(&self) {
        let handled = self.handled.len();
        if handled.is_multiple_of(RESTART_AFTER) || handled + self.hanging_now == MESSAGES {
            self.stop.cancel();
        }
    }
}

type Shared = Arc<Mutex<Record>>;

/// Counts a running handler until it is dropped.
struct Running(Shared, u32);

impl Running {
    fn begin(shared: Shared, number: u32) -> Self {
        let mut record = shared.lock().unwrap();
        let count = record.running.entry(number).or_default();
        *count += 1;
        if *count > 1 {
            record.overlapped = true;
        }
        drop(record);
        Self(shared, number)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut record = self.0.lock().unwrap();
        *record.running.get_mut(&self.1).unwrap() -= 1;
    }
}

async fn handle(shared: Shared, number: u32, context: Context) -> Result<(), Failure> {
    let _running = Running::begin(shared.clone(), number);
    for _ in 0..number % 10 {
        tokio::task::yield_now().await;
    }
    match number % 100 {
        3 => hang_once(&shared, number).await,
        13 if context.attempt() == 1 => panic!("by the test"),
        23 if context.attempt() == 1 => return Err(Failure::retry("by the test")),
        _ => {}
    }
    let mut record = shared.lock().unwrap();
    *record.handled.entry(number).or_default() += 1;
    record.stop_if_due();
    Ok(())
}

async fn hang_once(shared: &Shared, number: u32) {
    {
        let mut record = shared.lock().unwrap();
        if !record.hung.insert(number) {
            return;
        }
        record.hanging_now += 1;
        record.stop_if_due();
    }
    std::future::pending().await
}

fn worker(queue: &Queue, shared: &Shared) -> Worker<u32, impl queue_api::consumer::Handler<u32>> {
    let shared = shared.clone();
    let handler = move |number, context| handle(shared.clone(), number, context);
    let soon = RetryPolicy::custom(|_| Retry::After(Duration::from_millis(1)));
    Worker::new(queue.clone(), handler)
        .with_retry_policy(soon)
        .with_shutdown_deadline(Duration::from_millis(10))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_message_is_handled_once_and_shutdowns_cost_no_attempt() -> Result<()> {
    let queue = Queue::new(Arc::new(MemoryBackend::new()), "q")?;
    let numbered = |number: usize| {
        NewMessage::new(number.to_string())
            .with_id(MessageId::new(&number.to_string()).expect("digits are an id"))
            // One failure is allowed, and no other attempt may count.
            .with_max_attempts(2)
    };
    let messages: Vec<_> = (0..MESSAGES).map(numbered).collect();
    queue.enqueue_batch(&messages).await?;
    let shared = Shared::default();
    let mut total = Report::default();
    while shared.lock().unwrap().handled.len() < MESSAGES {
        let stop = CancellationToken::new();
        {
            let mut record = shared.lock().unwrap();
            record.stop = stop.clone();
            record.hanging_now = 0;
        }
        let start = |_| {
            let (worker, stopped) = (worker(&queue, &shared), stop.clone().cancelled_owned());
            tokio::spawn(async move { worker.run(stopped).await })
        };
        let running: Vec<_> = (0..4).map(start).collect();
        for worker in running {
            total += worker.await.expect("no worker panics")?;
        }
        assert_eq!(
            queue.stats().await?.leased,
            0,
            "a stopped worker has no leases"
        );
    }
    let record = shared.lock().unwrap();
    assert!(
        !record.overlapped,
        "no message is handled twice at the same time"
    );
    assert!(record.handled.values().all(|times| *times == 1), "{total}");
    assert_eq!((total.handled, total.failed), (5000, 100), "{total}");
    assert_eq!((total.dead_lettered, total.lost), (0, 0), "{total}");
    assert!(total.released >= 50, "released at shutdown: {total}");
    Ok(())
}
