//! Pauses between repeated calls.

use std::time::Duration;

/// Pauses that double from `first` to `max`. The jitter spreads the calls of many processes that
/// failed at the same time.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    steps: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            steps: 0,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.steps = 0;
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = doubled(self.first, self.steps).min(self.max);
        self.steps = self.steps.saturating_add(1);
        jittered(pause)
    }

    /// The longest pause, for an error that does not pass by itself.
    pub(crate) fn longest(&mut self) -> Duration {
        self.steps = u32::MAX;
        jittered(self.max)
    }
}

/// `first` · 2^`times`, at most [`Duration::MAX`].
pub(crate) fn doubled(first: Duration, times: u32) -> Duration {
    2_u32
        .checked_pow(times)
        .and_then(|factor| first.checked_mul(factor))
        .unwrap_or(Duration::MAX)
}

/// A random pause between half of `pause` and `pause`.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_and_reset() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, max);
        let within = |pause: Duration, whole: Duration| pause >= whole / 2 && pause <= whole;
        for step in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let pause = backoff.next();
            assert!(within(pause, Duration::from_millis(step)), "{pause:?}");
        }
        backoff.reset();
        assert!(within(backoff.next(), first));
        assert!(within(backoff.longest(), max));
        assert!(within(backoff.next(), max));
        assert_eq!(doubled(max, 1000), Duration::MAX);
    }

    #[test]
    fn a_pause_of_zero_stays_zero() {
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
        assert!(jittered(Duration::from_secs(u64::MAX / 4)) > Duration::ZERO);
    }
}
