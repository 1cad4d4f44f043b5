//! How much was done in a stretch of time that others, also in other processes, work through too.

use std::{future::Future, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::clock::nanos;

/// From when until when work counts, by the machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    from: u64,
    until: u64,
}

/// How long is worked before it counts, and for how long it counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) warm_up: Duration,
    pub(crate) counted: Duration,
}

impl Pace {
    /// A window whose warm-up begins now.
    pub(crate) fn begin(self) -> Window {
        let from = nanos() + self.warm_up.as_nanos() as u64;
        Window {
            from,
            until: from + self.counted.as_nanos() as u64,
        }
    }
}

impl Window {
    pub(crate) fn is_over(self) -> bool {
        nanos() >= self.until
    }

    pub(crate) fn seconds(self) -> f64 {
        (self.until - self.from) as f64 / 1e9
    }

    pub(crate) fn until_begin(self) -> Duration {
        Duration::from_nanos(self.from.saturating_sub(nanos()))
    }

    pub(crate) fn until_end(self) -> Duration {
        Duration::from_nanos(self.until.saturating_sub(nanos()))
    }

    /// Which share of what was done between two moments was done within. Counting a step where it
    /// ends would make a window of twenty steps wrong by one of them.
    fn share(self, began: u64, ended: u64) -> f64 {
        let within = ended.min(self.until).saturating_sub(began.max(self.from));
        within as f64 / (ended - began).max(1) as f64
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Work {
    /// How many messages within the window.
    pub(crate) within: f64,
    /// How many with those before and after.
    pub(crate) total: u64,
}

impl Work {
    /// Messages a second.
    pub(crate) fn rate(self, window: Window) -> f64 {
        self.within / window.seconds()
    }

    fn add(&mut self, step: u64, share: f64) {
        self.within += step as f64 * share;
        self.total += step;
    }
}

impl std::iter::Sum for Work {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, work| Self {
            within: sum.within + work.within,
            total: sum.total + work.total,
        })
    }
}

/// Lets so many tasks repeat `step`, which says how many messages it has dealt with, until the
/// window is over.
pub(crate) async fn work<F, S>(window: Window, tasks: usize, step: F) -> anyhow::Result<Work>
where
    F: Fn() -> S + Clone + Send + 'static,
    S: Future<Output = anyhow::Result<u64>> + Send,
{
    let mut working = JoinSet::new();
    for _ in 0..tasks {
        let step = step.clone();
        working.spawn(async move {
            let mut work = Work::default();
            while !window.is_over() {
                let began = nanos();
                let done = step().await?;
                work.add(done, window.share(began, nanos()));
            }
            anyhow::Ok(work)
        });
    }
    working.join_all().await.into_iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window {
        from: 1000,
        until: 2000,
    };

    #[test]
    fn a_step_counts_for_the_share_of_it_that_was_within() {
        let shares = [
            (0, 900),
            (900, 1100),
            (1200, 1300),
            (1900, 2300),
            (2000, 2100),
        ];
        let shares = shares.map(|(began, ended)| WINDOW.share(began, ended));
        assert_eq!(shares, [0.0, 0.5, 1.0, 0.25, 0.0]);
        // One that outlasts the window, and one that took no time.
        assert_eq!(WINDOW.share(0, 4000), 0.25);
        assert_eq!(WINDOW.share(1500, 1500), 0.0);
    }

    #[test]
    fn work_is_summed_and_divided_by_the_window() {
        let mut one = Work::default();
        one.add(100, 0.5);
        one.add(100, 1.0);
        let sum: Work = [one, one].into_iter().sum();
        assert_eq!((sum.within, sum.total), (300.0, 400));
        assert_eq!(sum.rate(WINDOW), 300.0 / 1e-6);
    }
}
