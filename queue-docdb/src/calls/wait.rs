//! Wait: until a message is due, this process or a change stream reports a change, or it is time
//! to poll again.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    state::shared_poll::{Permit, PollResult, TURN_TIMEOUT},
    store::{
        collection::QueueCollection,
        error::StoreError,
        pause::{jittered, real_time},
        retry,
    },
    watch::Watch,
};

/// The pause between two polls while a change stream is open. It is only a hint, and may miss a
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
        let shared = &self.state.shared_poll;
        let (_waiting, mut next_poll) = shared.join();
        // A part of the operation timeout, because callers expect an answer within about that.
        let turn_timeout = TURN_TIMEOUT.min(self.deadline.of_call() / 2);
        let mut is_first = true;
        let mut reached = None;
        loop {
            if let Some(watch) = &self.watch {
                watch.keep_reading();
            }
            // Registered before the poll, so that no change in between is missed.
            let mut changed = pin!(shared.changed());
            changed.as_mut().enable();
            let permit = tokio::select! {
                biased;
                permit = shared.permit(next_poll, turn_timeout) => permit,
                () = clock.sleep_until(give_up) => return Ok(()),
                () = real_time(deadline) => return Ok(()),
            };
            let result = self.poll_result(permit).await?;
            let entries = result.ready(match reached {
                Some(due) => due,
                None => self.next_step().now().await,
            });
            let ready = entries.saturating_mul(self.state.sizes.messages());
            if result.may_return(ready, is_first) {
                return Ok(());
            }
            is_first = false;
            next_poll = result.number + 1;
            let first = result.first().filter(|_| ready == 0);
            let due = first.map_or(give_up, |first| first.to_system_time().min(give_up));
            let back = self.state.locked.next_return().unwrap_or(deadline);
            reached = None;
            tokio::select! {
                () = clock.sleep_until(due) => {
                    if due == give_up {
                        return Ok(());
                    }
                    // One wait returns for it without another poll.
                    (next_poll, reached) = (result.number, first);
                }
                () = real_time(deadline) => return Ok(()),
                // The next message may be due at another time now, so poll again.
                () = changed => {}
                () = real_time(back), if back < deadline => {}
                () = self.pause(&result), if ready == 0 => {}
                () = real_time(Instant::now() + result.recheck_after()), if ready > 0 => {}
            }
        }
    }

    /// Returns when it is time to poll for changes of other processes, or when an open change
    /// stream is not read any more.
    async fn pause(&self, result: &PollResult) {
        let watch = self.watch.as_ref().filter(|watch| watch.is_open());
        while let Some(watch) = watch
            && watch.is_open()
            && watch.trusted_until() < result.next
        {
            real_time(watch.trusted_until()).await;
        }
        if watch.is_none_or(|watch| watch.is_open()) {
            real_time(result.next).await;
        }
    }

    /// What another wait's poll saw, or what its own sees.
    async fn poll_result(&self, permit: Permit<'_>) -> Result<Arc<PollResult>, StoreError> {
        let poll = match permit {
            Permit::Shared(result) => return Ok(result),
            Permit::Poll(poll) => poll,
        };
        let step = self.next_step();
        // What claims pass over does not end the wait.
        let locked = self.state.locked.entries();
        let times = step.ready_times(locked, poll.limit).await?;
        let now = step.now().await;
        let pause = match (&self.watch, times.first()) {
            (_, Some(first)) if *first <= now => {
                self.state.shared_poll.reset_pause();
                STREAM_PAUSE
            }
            (Some(watch), _) if watch.is_open() => STREAM_PAUSE,
            _ => self.state.shared_poll.next_pause(),
        };
        Ok(poll.end(times, jittered(pause)))
    }
}
