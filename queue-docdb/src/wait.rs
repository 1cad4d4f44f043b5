//! Wait: until the next message is due, somebody here tells, a claim that was about to take
//! messages is through, or it is time to look again.

use std::{
    pin::pin,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use crate::{collection::QueueCollection, error::StoreError, head::From, watch::Watch};

/// How long to leave the database alone at first, where another process may enqueue and no
/// change stream tells of it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How long at most. An idle consumer so sends less than a command a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long where a change stream tells: it is a hint, and hints get lost.
const TOLD_PAUSE: Duration = Duration::from_secs(30);

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
        let _waiting = self.watch.as_ref().map(Watch::join);
        loop {
            // Registered before the look, so that what happens in between is not missed.
            let mut changed = pin!(self.state.changed.notified());
            changed.as_mut().enable();
            let mut through = pin!(self.state.apart.through());
            through.as_mut().enable();

            // What another claim is about to take is no reason to make one. Asked first, since a
            // claim is unsettled before it lets go of what it found.
            let apart = self.state.apart.filter(From::Beginning);
            let is_claimed = self.state.apart.is_busy();
            // What a claim took whose answer never came is delivered by the next lease call.
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
                self.state.idle.reset();
                return Ok(());
            }
            if now >= give_up {
                return Ok(());
            }
            if is_claimed {
                // There is a lot to do here, so news from elsewhere are waited for less long.
                self.state.idle.reset();
            }
            let pause = match &self.watch {
                Some(watch) if watch.is_open() => TOLD_PAUSE,
                _ => self.state.idle.next_pause(),
            };
            let back = self.state.apart.next_return().unwrap_or(deadline);
            let due = first.map_or(give_up, |first| first.min(give_up));
            tokio::select! {
                () = clock.sleep_until(due) => return Ok(()),
                () = real_time(deadline) => return Ok(()),
                // A delayed message may have come in, so the next one due is looked for.
                () = changed => {}
                () = through, if is_claimed => {}
                () = real_time(back), if back < deadline => {}
                () = real_time(Instant::now() + jittered(pause)) => {}
            }
        }
    }
}

/// How long a queue was found empty. It outlives the waits, because a consumer waits again and
/// again, and would otherwise begin with short pauses each time.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    /// How often it was looked at in vain.
    looks: AtomicU32,
}

impl Idle {
    fn reset(&self) {
        self.looks.store(0, Ordering::Relaxed);
    }

    /// Twice as long each time.
    fn next_pause(&self) -> Duration {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed).min(16);
        (FIRST_PAUSE * (1 << looks)).min(LONGEST_PAUSE)
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
