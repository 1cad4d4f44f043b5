//! A subscriber for one thread, beside tests on other threads.

use std::sync::Once;

use tracing::{
    Event, Id, Metadata, Subscriber,
    span::{Attributes, Record},
    subscriber::{DefaultGuard, Interest, set_default, set_global_default},
};

/// Has a subscriber for this thread until the guard is dropped.
///
/// For each span in the code, `tracing` remembers whether a subscriber wants it. While the process has
/// one subscriber, the first thread that comes to the span asks its own. A thread without one answers no
/// for all threads, so [`set_default`] alone loses spans now and then.
pub fn subscribe(subscriber: impl Subscriber + Send + Sync) -> DefaultGuard {
    static GLOBAL: Once = Once::new();
    GLOBAL.call_once(|| set_global_default(Undecided).expect("a test sets no other"));
    set_default(subscriber)
}

/// Takes nothing, but each time it has to be asked.
struct Undecided;

impl Subscriber for Undecided {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, _: &Metadata<'_>) -> bool {
        false
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use super::*;

    static SPANS: AtomicUsize = AtomicUsize::new(0);

    /// Counts spans.
    struct Counted;

    impl Subscriber for Counted {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            let before = SPANS.fetch_add(1, Ordering::Relaxed);
            Id::from_u64(before as u64 + 1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn a_thread_without_a_subscriber_comes_first() {
        let span = || drop(tracing::info_span!("one place"));
        let _subscribed = subscribe(Counted);
        thread::spawn(span).join().unwrap();
        assert_eq!(SPANS.load(Ordering::Relaxed), 0);
        span();
        assert_eq!(SPANS.load(Ordering::Relaxed), 1);
    }
}
