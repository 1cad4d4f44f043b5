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
    // 1 ns · 2^127 is more than the maximum.
    let factor = 2_f64.powi(times.min(127).cast_signed());
    Duration::try_from_secs_f64(first.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

/// A random pause between half of `pause` and `pause`.
pub(crate) fn jittered(pause: Duration) -> Duration {
    // `mul_f64` panics if it rounds up beyond the maximum, which half of it cannot.
    pause / 2 + (pause / 2).mul_f64(fastrand::f64())
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
        assert_eq!(doubled(Duration::ZERO, u32::MAX), Duration::ZERO);
        assert_eq!(doubled(Duration::MAX, 0), Duration::MAX);
        let nano = Duration::from_nanos(1);
        assert_eq!(doubled(nano, 33), Duration::from_nanos(1 << 33));
        assert_eq!(doubled(nano, u32::MAX), Duration::MAX);
    }

    #[test]
    fn a_pause_of_zero_stays_zero() {
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
        assert!(jittered(Duration::MAX) >= Duration::MAX / 2);
    }
}
