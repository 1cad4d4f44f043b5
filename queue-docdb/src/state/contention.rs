//! Contention: after a lost claim, the next one skips a random number of entries.
//!
//! Consumers that all scan the head of a queue find the same entries, and one of them gets each.
//! Measured with 16 processes: without skipping, they got less done together than one of them.

use std::{sync::Mutex, time::Duration};

use tokio::time::Instant;

use crate::lock::lock;

/// How long claims skip after a lost one.
const AFTER_LOST: Duration = Duration::from_secs(1);

/// The widest window to choose from, in claims of the same size.
const WIDEST: u32 = 32;

/// One in this many claims that were not lost narrows the window. Otherwise consumers that have
/// spread would meet again at once.
const NARROW_ONE_IN: u32 = 8;

/// The contention for one queue that this instance has seen.
#[derive(Debug, Default)]
pub(crate) struct Contention {
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    claims: u32,
    lost: Option<Instant>,
}

impl Contention {
    /// How many entries a claim of `entries` skips.
    pub(crate) fn skip(&self, entries: usize) -> usize {
        let mut window = lock(&self.window);
        if window.lost.is_none_or(|lost| lost.elapsed() >= AFTER_LOST) {
            window.claims = 0;
        }
        fastrand::usize(0..=window.claims as usize) * entries
    }

    /// Others were first.
    pub(crate) fn lost(&self) {
        let mut window = lock(&self.window);
        window.claims = (2 * window.claims + 1).min(WIDEST);
        window.lost = Some(Instant::now());
    }

    pub(crate) fn won(&self) {
        let mut window = lock(&self.window);
        if window.claims > 0 && fastrand::u32(0..NARROW_ONE_IN) == 0 {
            window.claims -= 1;
        }
    }

    /// A claim that skipped has found nothing, so others have the rest.
    pub(crate) fn forget(&self) {
        lock(&self.window).claims = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn claims_skip_for_a_second_after_a_lost_one() {
        let contention = Contention::default();
        let skips = || (0..100).map(|_| contention.skip(3)).max();
        assert_eq!(skips(), Some(0), "alone");
        contention.lost();
        assert_eq!(skips(), Some(3));
        for _ in 0..10 {
            contention.lost();
        }
        assert!(skips() > Some(3 * WIDEST as usize / 2));
        for _ in 0..100 * NARROW_ONE_IN {
            contention.won();
        }
        assert_eq!(skips(), Some(0), "the window narrows");
        contention.lost();
        tokio::time::advance(AFTER_LOST).await;
        assert_eq!(skips(), Some(0), "a second later");
    }
}
