//! Wait: until a message is due, this process or a change stream reports a change, or it is time
//! to look again.

use std::{pin::pin, time::Duration};

use tokio::time::Instant;

use crate::{collection::QueueCollection, error::StoreError, head::From, retry, watch::Watch};

/// The pause between two looks while a change stream is open. It is only a hint, and may miss a
/// change.
const STREAM_PAUSE: Duration = Duration::from_secs(30);

impl QueueCollection {
    /// Returns when a message may be ready, or after `at_most`.
    ///
    /// `at_most` ends by the backend's clock or by real time, whichever is first. A test may stop
    /// the backend's clock.
    pub(crate) async fn wait(&self, at_most: Duration) -> Result<(), StoreError> {
        let at_most = at_most.min(retry::LONGEST);
        let clock = self.time.clock();
        let give_up = self.now().await.to_system_time() + at_most;
        let deadline = Instant::now() + at_most;
        let _waiting = self.watch.as_ref().map(Watch::join);
        loop {
            // Registered before the look, so that no change in between is missed.
            let mut changed = pin!(self.state.changed.notified());
            changed.as_mut().enable();
            let mut through = pin!(self.state.apart.through());
            through.as_mut().enable();

            // Messages that another claim is about to take do not end the wait. This is read first:
            // a claim becomes unsettled before it gives up the messages it found.
            let apart = self.state.apart.filter(From::Beginning);
            let is_claimed = self.state.apart.is_busy();
            // The next lease call delivers what a claim without an answer took.
            if !self.state.unsettled.is_empty() {
                return Ok(());
            }
            let look = self.next_step();
            let first = look
                .first_ready_time(apart)
                .await?
                .map(|first| first.to_system_time());
            let now = look.now().await.to_system_time();
            if first.is_some_and(|first| first <= now) {
                self.state.poll_interval.reset();
                return Ok(());
            }
            if now >= give_up {
                return Ok(());
            }
            let pause = match &self.watch {
                Some(watch) if watch.is_open() => STREAM_PAUSE,
                _ => self.state.poll_interval.next(),
            };
            let back = self.state.apart.next_return().unwrap_or(deadline);
            let due = first.map_or(give_up, |first| first.min(give_up));
            tokio::select! {
                () = clock.sleep_until(due) => return Ok(()),
                () = real_time(deadline) => return Ok(()),
                // The next message may be due at another time now, so look again.
                () = changed => {}
                () = through, if is_claimed => {}
                () = real_time(back), if back < deadline => {}
                () = real_time(Instant::now() + jittered(pause)) => {}
            }
        }
    }
}

/// Between half of `longest` and all of it, so that processes do not look at the same time.
fn jittered(longest: Duration) -> Duration {
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// Polling for other processes' changes uses real time, not the queue's clock.
#[allow(clippy::disallowed_methods)]
async fn real_time(until: Instant) {
    tokio::time::sleep_until(until).await;
}
