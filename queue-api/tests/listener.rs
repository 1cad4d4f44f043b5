//! Listeners of backends with narrow limits, and on a clock that stands still.

use std::{sync::Arc, time::Duration};

use queue_api::{
    LeaseAction, LeaseChange, LeaseOutcome, Limits, ManualClock, NewMessage, Queue, QueueBackend,
    QueueName, Result, TokioClock, async_trait, consumer::ListenOptions,
};
use queue_memory::MemoryBackend;
use queue_test_support::{Delegate, Delegated};
use tokio::time::timeout;

const SECOND: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Its limits are narrower than those of the program that has enqueued.
#[derive(Debug)]
struct Narrow(MemoryBackend);

#[async_trait]
impl Delegate for Narrow {
    type Inner = MemoryBackend;

    fn inner(&self) -> &MemoryBackend {
        &self.0
    }

    fn limits(&self) -> Limits {
        Limits::STANDARD
            .with_max_delay(Duration::ZERO)
            .with_max_visibility_timeout(LONGEST)
    }

    async fn change(&self, queue: &QueueName, all: &[LeaseChange]) -> Result<Vec<LeaseOutcome>> {
        for change in all {
            let is_within = match &change.action {
                LeaseAction::Nack { delay } => delay.is_zero(),
                LeaseAction::Extend(by) => *by <= LONGEST,
                LeaseAction::Release | LeaseAction::DeadLetter { .. } => true,
            };
            assert!(is_within, "{change:?}");
        }
        self.0.change(queue, all).await
    }
}

/// A queue with one message of this visibility timeout, and a listener on it.
async fn narrow(visibility: Duration) -> (Queue, queue_api::consumer::Listener) {
    let clock = Arc::new(TokioClock::new());
    let backend = MemoryBackend::new().with_clock(clock.clone());
    let wide = Queue::new(Arc::new(backend.clone()), "q").unwrap();
    let message = NewMessage::new("m").with_visibility_timeout(visibility);
    wide.enqueue(&message).await.unwrap();
    let queue = Queue::new(Arc::new(Delegated(Narrow(backend))), "q").unwrap();
    let options = ListenOptions::new(1).with_clock(clock);
    let listener = queue.listen(options).unwrap();
    (queue, listener)
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lease_is_nacked_within_the_limits() {
    let (_, mut listener) = narrow(30 * SECOND).await;
    drop(listener.next().await.unwrap());
    let again = timeout(SECOND, listener.next()).await;
    let again = again.expect("it is ready at once").unwrap();
    assert_eq!(again.attempt(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_long_lease_is_renewed_within_the_limits() {
    let (queue, mut listener) = narrow(600 * SECOND).await;
    let lease = listener.next().await.unwrap();
    let ended = timeout(1800 * SECOND, lease.ended()).await;
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(queue.stats().await.unwrap().leased, 1);
    assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Applied);
}

/// A wait ends by real time, too. The pause after it must end although the clock stands still.
#[tokio::test(start_paused = true)]
async fn it_hears_of_messages_while_its_clock_stands_still() {
    let clock = Arc::new(ManualClock::new());
    let backend = Arc::new(MemoryBackend::new().with_clock(clock.clone()));
    let queue = Queue::new(backend, "q").unwrap();
    let options = ListenOptions::new(1).with_clock(clock);
    let mut listener = queue.listen(options).unwrap();
    for round in 0..3 {
        let nothing = timeout(100 * SECOND, listener.next()).await;
        assert!(nothing.is_err());
        queue.enqueue(&NewMessage::new("m")).await.unwrap();
        let lease = timeout(100 * SECOND, listener.next()).await;
        let lease = lease.unwrap_or_else(|_| panic!("round {round}")).unwrap();
        assert_eq!(lease.ack().await.unwrap(), LeaseOutcome::Applied);
    }
}
