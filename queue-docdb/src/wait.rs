//! Wait: until a message is due, this process or a change stream reports a change, or it is time
//! to look again.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    collection::QueueCollection, error::StoreError, head::From, looks::Look, retry, watch::Watch,
};

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
        let _reading = self.watch.as_ref().map(Watch::join);
        let (looks, apart) = (&self.state.looks, &self.state.apart);
        let (_waiting, first_look) = looks.join();
        let mut next_look = first_look;
        let mut is_first = true;
        let mut reached = None;
        loop {
            if let Some(watch) = &self.watch {
                watch.keep_reading();
            }
            // Registered before the look, so that no change in between is missed.
            let mut changed = pin!(looks.changed());
            changed.as_mut().enable();
            let mut through = pin!(apart.through());
            through.as_mut().enable();
            // The next lease call delivers what a claim without an answer took.
            if !self.state.unsettled.is_empty() {
                return Ok(());
            }
            let look = self.shared_look(next_look).await?;
            let ready = look.ready(match reached {
                Some(due) => due,
                None => self.next_step().now().await,
            });
            if look.may_return(ready, is_first) || !self.state.unsettled.is_empty() {
                return Ok(());
            }
            is_first = false;
            next_look = look.number + 1;
            if look.claims.is_some_and(|claims| claims != apart.claims()) {
                continue;
            }
            let first = look.first().filter(|_| ready == 0);
            let due = first.map_or(give_up, |first| first.to_system_time().min(give_up));
            let back = apart.next_return().unwrap_or(deadline);
            reached = None;
            tokio::select! {
                () = clock.sleep_until(due) => {
                    if due == give_up {
                        return Ok(());
                    }
                    // One wait returns for it without another look.
                    (next_look, reached) = (look.number, first);
                }
                () = real_time(deadline) => return Ok(()),
                // The next message may be due at another time now, so look again.
                () = changed => {}
                () = through, if look.claims.is_some() => {}
                () = real_time(back), if back < deadline => {}
                () = self.pause(&look), if ready == 0 => {}
                () = real_time(Instant::now() + look.recheck_after()), if ready > 0 => {}
            }
        }
    }

    /// Returns when it is time to look again for changes of other processes, or when an open change
    /// stream is not read any more.
    async fn pause(&self, look: &Look) {
        let watch = self.watch.as_ref().filter(|watch| watch.is_open());
        while let Some(watch) = watch
            && watch.is_open()
            && watch.trusted_until() < look.next
        {
            real_time(watch.trusted_until()).await;
        }
        if watch.is_none_or(|watch| watch.is_open()) {
            real_time(look.next).await;
        }
    }

    /// A look with at least this number: that of another wait, or one of its own.
    async fn shared_look(&self, number: u64) -> Result<Arc<Look>, StoreError> {
        let (looks, apart) = (&self.state.looks, &self.state.apart);
        if let Some(look) = looks.last(number) {
            return Ok(look);
        }
        let step = self.next_step();
        let _turn = looks.turn().await;
        if let Some(look) = looks.last(number) {
            return Ok(look);
        }
        let begun = looks.begin();
        // Messages that another claim is about to take do not end the wait. This is read first:
        // a claim becomes unsettled before it gives up the messages it found.
        let (claims, filter) = (apart.claims(), apart.filter(From::Beginning));
        let claims = (apart.is_busy() || apart.claims() != claims).then_some(claims);
        let times = step.ready_times(filter, begun.limit).await?;
        let now = step.now().await;
        let pause = match (&self.watch, times.first()) {
            (_, Some(first)) if *first <= now => {
                self.state.poll_interval.reset();
                STREAM_PAUSE
            }
            (Some(watch), _) if watch.is_open() => STREAM_PAUSE,
            _ => self.state.poll_interval.next(),
        };
        Ok(looks.end(begun, times, jittered(pause), claims))
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
