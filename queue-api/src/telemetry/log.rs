//! Log lines. Without the feature `tracing`, nothing is logged.
//!
//! The subscriber is code of the application. Its panics are caught.

use crate::{Error, QueueName, Receipt, consumer::Retry};

/// One function for each line, so that no caller depends on `tracing`.
macro_rules! lines {
    ($($(#[$attribute:meta])* $name:ident($($argument:ident: $type:ty),*) $line:block)*) => {$(
        $(#[$attribute])*
        #[cfg(feature = "tracing")]
        pub(crate) fn $name($($argument: $type),*) {
            crate::catch_panic::isolated(SUBSCRIBER, || $line);
        }

        $(#[$attribute])*
        #[cfg(not(feature = "tracing"))]
        pub(crate) fn $name($(_: $type),*) {}
    )*};
}

/// What a panic of a subscriber is logged as.
#[cfg(feature = "tracing")]
pub(crate) const SUBSCRIBER: &str = "the tracing subscriber";

lines! {
    /// A call to the store failed, and the listener goes on.
    store_error(queue: &QueueName, error: &Error) {
        tracing::warn!(
            messaging.system = crate::metrics::SYSTEM,
            messaging.destination.name = %queue,
            error.type = error.kind().as_str(),
            error = %format_args!("{error:#}"),
            "a call to the store failed"
        );
    }

    /// A lease ended without settlement, perhaps before it was handed out.
    lease_lost(queue: &QueueName, receipt: &Receipt, why: &'static str) {
        tracing::warn!(
            messaging.system = crate::metrics::SYSTEM,
            messaging.destination.name = %queue,
            %receipt,
            why,
            "a lease ended before its message was settled; another consumer may get the message"
        );
    }

    /// A lease of several chunks failed after the first.
    lease_cut_short(queue: &QueueName, error: &Error, leased: usize, requested: usize) {
        tracing::warn!(
            messaging.system = crate::metrics::SYSTEM,
            messaging.destination.name = %queue,
            error = %format_args!("{error:#}"),
            leased,
            requested,
            "lease failed after some messages were leased; the caller gets those"
        );
    }

    handler_failed(error: &str, attempt: u32, retry: Retry) {
        tracing::warn!(%error, attempt, ?retry, "the handler failed");
    }

    not_settled(error: &Error) {
        tracing::error!(error = %format_args!("{error:#}"), "a message was not settled");
    }

    not_released(error: &Error) {
        tracing::warn!(
            error = %format_args!("{error:#}"),
            "releasing the messages of dropped callers failed; \
             they become ready again after their visibility timeout"
        );
    }

    #[cfg(feature = "signal")]
    no_signals(error: &std::io::Error) {
        tracing::error!(%error, "signals cannot be received");
    }
}

/// Code of the application has panicked. It may be the subscriber, so a second panic is not logged.
pub(crate) fn panicked(what: &str, panic: &str) {
    #[cfg(feature = "tracing")]
    let _ = crate::catch_panic::catch(|| tracing::error!("{what} {panic}"));
    #[cfg(not(feature = "tracing"))]
    let _ = (what, panic);
}
