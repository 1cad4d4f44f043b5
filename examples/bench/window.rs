//! Throughput within a window of time that several processes share.

use std::time::Duration;

use anyhow::Result;
use queue_api::{Clock, TokioClock};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

/// Work before this much time does not count.
pub(crate) const WARM_UP: Duration = Duration::from_millis(300);

/// Nanoseconds of the monotonic clock, which all processes of this machine share.
pub(crate) fn nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

pub(crate) fn seconds_since(then: u64) -> f64 {
    (nanos() - then) as f64 / 1e9
}

pub(crate) async fn pause(time: Duration) {
    let clock = TokioClock::new();
    clock.sleep_until(clock.now() + time).await;
}

/// Only work between these two times counts.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Window {
    from: u64,
    until: u64,
}

impl Window {
    /// A window that begins after a warm-up.
    pub(crate) fn after_warm_up(counted: Duration) -> Self {
        let from = nanos() + WARM_UP.as_nanos() as u64;
        let until = from + counted.as_nanos() as u64;
        Self { from, until }
    }

    pub(crate) fn seconds(self) -> f64 {
        (self.until - self.from) as f64 / 1e9
    }

    /// The share of a step that is within the window. To count a step where it ends would make a
    /// window of twenty steps wrong by one of them.
    fn share(self, began: u64, ended: u64) -> f64 {
        let within = ended.min(self.until).saturating_sub(began.max(self.from));
        within as f64 / (ended - began).max(1) as f64
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Work {
    /// Messages per second within the window.
    pub(crate) rate: f64,
    /// All messages, also those before and after the window.
    pub(crate) total: u64,
}

impl std::iter::Sum for Work {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, work| Self {
            rate: sum.rate + work.rate,
            total: sum.total + work.total,
        })
    }
}

/// Runs `tasks` tasks that repeat `step` until the window ends. A step returns how many messages
/// it dealt with.
pub(crate) async fn work<T, S>(
    window: Window,
    tasks: usize,
    context: &T,
    step: impl Fn(T) -> S + Copy + Send + 'static,
) -> Result<Work>
where
    T: Clone + Send + Sync + 'static,
    S: Future<Output = Result<u64>> + Send,
{
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let context = context.clone();
        running.spawn(async move {
            let mut work = Work::default();
            while nanos() < window.until {
                let began = nanos();
                let messages = step(context.clone()).await?;
                let within = messages as f64 * window.share(began, nanos());
                work.rate += within / window.seconds();
                work.total += messages;
            }
            anyhow::Ok(work)
        });
    }
    running.join_all().await.into_iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_counts_by_its_share_within_the_window() {
        let window = Window {
            from: 1000,
            until: 2000,
        };
        let steps = [(0, 900), (900, 1100), (1200, 1300), (0, 4000), (1500, 1500)];
        let shares = steps.map(|(began, ended)| window.share(began, ended));
        assert_eq!(shares, [0.0, 0.5, 1.0, 0.25, 0.0]);
    }
}
