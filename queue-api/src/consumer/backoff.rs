//! How long to leave a store alone that fails, or a queue that others empty.

use std::time::Duration;

/// Pauses that double from `first` to `most`, each with jitter, so that many processes which
/// failed together do not come back together.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    steps: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            steps: 0,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.steps = 0;
    }

    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = doubled(self.first, self.steps).min(self.most);
        self.steps = self.steps.saturating_add(1);
        jittered(pause)
    }

    /// The longest pause, at once: for what does not pass by itself.
    pub(crate) fn longest(&mut self) -> Duration {
        self.steps = u32::MAX;
        jittered(self.most)
    }
}

/// `first` · 2^`times`, at most [`Duration::MAX`].
pub(crate) fn doubled(first: Duration, times: u32) -> Duration {
    2_u32
        .checked_pow(times)
        .and_then(|factor| first.checked_mul(factor))
        .unwrap_or(Duration::MAX)
}

/// Between a half of `pause` and the whole.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_most_and_start_again() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, most);
        let within = |pause: Duration, whole: Duration| pause >= whole / 2 && pause <= whole;
        for step in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let pause = backoff.next();
            assert!(within(pause, Duration::from_millis(step)), "{pause:?}");
        }
        backoff.reset();
        assert!(within(backoff.next(), first));
        assert!(within(backoff.longest(), most));
        assert!(within(backoff.next(), most));
        assert_eq!(doubled(most, 1000), Duration::MAX);
    }

    #[test]
    fn no_pause_stays_none() {
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
        assert!(jittered(Duration::from_secs(u64::MAX / 4)) > Duration::ZERO);
    }
}
