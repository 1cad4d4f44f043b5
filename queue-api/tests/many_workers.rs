//! Workers on several threads, in real time: what virtual time on one thread cannot show.

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

/// After how many handled messages the workers are stopped and others started.
const SHIFT: usize = 500;

/// What the handlers did.
#[derive(Debug, Default)]
struct Ledger {
    working: HashMap<u32, u32>,
    overlapped: bool,
    handled: HashMap<u32, u32>,
    /// Those that hung when they were handled first.
    hung: HashSet<u32>,
    hanging: usize,
    stop: CancellationToken,
}

impl Ledger {
    /// Stops the workers at the end of a shift, or when all that is left hangs.
    fn look(&self) {
        let handled = self.handled.len();
        if handled.is_multiple_of(SHIFT) || handled + self.hanging == MESSAGES {
            self.stop.cancel();
        }
    }
}

type Shared = Arc<Mutex<Ledger>>;

/// Enters that somebody works on a message, until it is dropped.
struct Working(Shared, u32);

impl Working {
    fn begin(shared: Shared, number: u32) -> Self {
        let mut ledger = shared.lock().unwrap();
        let count = ledger.working.entry(number).or_default();
        *count += 1;
        if *count > 1 {
            ledger.overlapped = true;
        }
        drop(ledger);
        Self(shared, number)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let mut ledger = self.0.lock().unwrap();
        *ledger.working.get_mut(&self.1).unwrap() -= 1;
    }
}

async fn handle(shared: Shared, number: u32, context: Context) -> Result<(), Failure> {
    let _working = Working::begin(shared.clone(), number);
    for _ in 0..number % 10 {
        tokio::task::yield_now().await;
    }
    match number % 100 {
        3 => hang_the_first_time(&shared, number).await,
        13 if context.attempt() == 1 => panic!("of the test"),
        23 if context.attempt() == 1 => return Err(Failure::retry("of the test")),
        _ => {}
    }
    let mut ledger = shared.lock().unwrap();
    *ledger.handled.entry(number).or_default() += 1;
    ledger.look();
    Ok(())
}

async fn hang_the_first_time(shared: &Shared, number: u32) {
    {
        let mut ledger = shared.lock().unwrap();
        if !ledger.hung.insert(number) {
            return;
        }
        ledger.hanging += 1;
        ledger.look();
    }
    std::future::pending().await
}

fn worker(queue: &Queue, shared: &Shared) -> Worker<u32, impl queue_api::consumer::Handler<u32>> {
    let shared = shared.clone();
    let handler = move |number, context| handle(shared.clone(), number, context);
    let soon = RetryPolicy::custom(|_, _| Retry::After(Duration::from_millis(1)));
    Worker::new(queue.clone(), handler)
        .with_retry_policy(soon)
        .with_shutdown_deadline(Duration::from_millis(10))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_message_is_handled_once_and_graceful_stops_cost_nothing() -> Result<()> {
    let queue = Queue::new(Arc::new(MemoryBackend::new()), "q")?;
    let numbered = |number: usize| {
        NewMessage::new(number.to_string())
            .with_id(MessageId::new(&number.to_string()).expect("digits are an id"))
            // One failure each is allowed for, and nothing else.
            .with_max_attempts(2)
    };
    let messages: Vec<_> = (0..MESSAGES).map(numbered).collect();
    queue.enqueue_batch(&messages).await?;
    let shared = Shared::default();
    let mut total = Report::default();
    while shared.lock().unwrap().handled.len() < MESSAGES {
        let stop = CancellationToken::new();
        {
            let mut ledger = shared.lock().unwrap();
            ledger.stop = stop.clone();
            ledger.hanging = 0;
        }
        let start = |_| {
            let (worker, stopped) = (worker(&queue, &shared), stop.clone().cancelled_owned());
            tokio::spawn(async move { worker.run(stopped).await })
        };
        let running: Vec<_> = (0..4).map(start).collect();
        for worker in running {
            total += worker.await.expect("no worker panics")?;
        }
        assert_eq!(queue.stats().await?.leased, 0, "who stopped holds nothing");
    }
    let ledger = shared.lock().unwrap();
    assert!(!ledger.overlapped, "one at a time");
    assert!(ledger.handled.values().all(|times| *times == 1), "{total}");
    assert_eq!((total.handled, total.failed), (5000, 100), "{total}");
    assert_eq!((total.dead_lettered, total.lost), (0, 0), "{total}");
    assert!(total.released >= 50, "those that hung: {total}");
    Ok(())
}
