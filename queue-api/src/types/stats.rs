//! What a queue holds.

use std::time::Duration;

/// How many messages a queue holds, by state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Messages that may be leased now; among them those whose lease has run out.
    pub ready: u64,
    /// Messages whose delay has not passed yet.
    pub delayed: u64,
    /// Messages whose lease is running.
    pub leased: u64,
    /// Dead letters.
    pub dead: u64,
    /// For how long the message that has been ready longest has been so, in whole
    /// milliseconds; `None` when none is ready. This is the queue's latency.
    pub oldest_ready: Option<Duration>,
}
