//! A lease that waits: long polling.

use std::time::Duration;

use crate::{
    Clock, Delivery, LeaseOptions, Queue, Result, TokioClock,
    consumer::{Backoff, after},
};

/// Pauses after wake-ups that led to no message.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Queue {
    /// Leases one message. If none is ready, waits for one, at most for `at_most`.
    ///
    /// See [`lease_batch_within`](Queue::lease_batch_within).
    ///
    /// ```
    /// use std::{sync::Arc, time::Duration};
    /// use queue_api::{NewMessage, Queue};
    /// use queue_memory::MemoryBackend;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> queue_api::Result<()> {
    /// let queue = Queue::new(Arc::new(MemoryBackend::new()), "jobs")?;
    /// queue.enqueue(&NewMessage::new("in 5 s").with_delay(Duration::from_secs(5))).await?;
    ///
    /// assert!(queue.lease_within(Duration::from_secs(1)).await?.is_none());
    /// let delivery = queue.lease_within(Duration::from_secs(20)).await?.expect("it is ready");
    /// assert_eq!(delivery.payload, "in 5 s");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`lease`](Queue::lease) and [`wait`](Queue::wait).
    pub async fn lease_within(&self, at_most: Duration) -> Result<Option<Delivery>> {
        let one = LeaseOptions::new(1);
        let mut deliveries = self.lease_batch_within(&one, at_most).await?;
        Ok(deliveries.pop())
    }

    /// Leases ready messages, at most as many as requested. If none is ready, waits until some
    /// are, at most for `at_most`. It does not wait until there are as many as requested.
    ///
    /// `at_most` is a time of tokio's clock, whatever the backend's clock is. A time of 0 makes
    /// one lease call.
    ///
    /// If other consumers take the messages first, this call pauses before it looks again: first
    /// for 5 ms, and each time twice as long, up to 1 s.
    ///
    /// **Cancellation.** You can drop the future at any time, such as in a `select!`. While it
    /// waits, that loses nothing. If a lease call is in flight, its messages may be leased, and
    /// come back after their visibility timeout (contract line C1).
    ///
    /// # Errors
    /// As [`lease_batch`](Queue::lease_batch) and [`wait`](Queue::wait). The first error ends the
    /// call.
    pub async fn lease_batch_within(
        &self,
        options: &LeaseOptions,
        at_most: Duration,
    ) -> Result<Vec<Delivery>> {
        let clock = TokioClock::new();
        let deadline = after(clock.now(), at_most);
        let mut after_miss = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut has_waited = false;
        loop {
            let deliveries = self.lease_batch(options).await?;
            let now = clock.now();
            if !deliveries.is_empty() || now >= deadline {
                return Ok(deliveries);
            }
            if has_waited {
                let pause = after(now, after_miss.next());
                clock.sleep_until(pause.min(deadline)).await;
            }
            let left = deadline.duration_since(clock.now()).unwrap_or_default();
            self.wait(left).await?;
            has_waited = true;
        }
    }
}
