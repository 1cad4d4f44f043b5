//! Wait: until the next message is due, somebody here tells, or it is time to look again.

use std::time::Duration;

use tokio::time::Instant;

use crate::{collection::QueueCollection, error::StoreError};

/// How long to leave the database alone at first, where another process may enqueue.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How long at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// As good as for ever: about a year.
const LONGEST_WAIT: Duration = Duration::from_secs(366 * 24 * 3600);

impl QueueCollection {
    /// Returns when a message may be ready, or after `at_most`.
    ///
    /// `at_most` passes by the backend's clock and by real time, whichever is first: a test
    /// may hold the one still.
    pub(crate) async fn wait(&self, at_most: Duration) -> Result<(), StoreError> {
        let at_most = at_most.min(LONGEST_WAIT);
        let clock = self.time.clock();
        let give_up = self.now().await.to_system_time() + at_most;
        let deadline = Instant::now() + at_most;
        let mut longest_pause = FIRST_PAUSE;
        loop {
            // Registered before the look, so that what happens in between is not missed.
            let mut changed = std::pin::pin!(self.state.changed.notified());
            changed.as_mut().enable();

            let look = self.next_step();
            let first = look
                .first_ready_time()
                .await?
                .map(|first| first.to_system_time());
            let now = look.now().await.to_system_time();
            if now >= give_up || first.is_some_and(|first| first <= now) {
                return Ok(());
            }
            let due = first.map_or(give_up, |first| first.min(give_up));
            tokio::select! {
                () = clock.sleep_until(due) => return Ok(()),
                () = real_time(deadline) => return Ok(()),
                // A delayed message may have come in, so the next one due is looked for.
                () = changed => {}
                () = real_time(Instant::now() + jittered(longest_pause)) => {
                    longest_pause = (longest_pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

/// Between half of `longest` and all of it, so that many waiting processes do not look in
/// step.
fn jittered(longest: Duration) -> Duration {
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// Pauses between two looks at the database, which is shared with processes that have other
/// clocks: they pass in real time, whatever clock the backend was given.
#[allow(clippy::disallowed_methods)]
async fn real_time(until: Instant) {
    tokio::time::sleep_until(until).await;
}
