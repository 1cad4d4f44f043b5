//! What a queue holds, and what a backend takes.

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

/// What a backend accepts. The handle checks and chunks against it, so a backend need not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most messages, receipts or changes in one call; the handle chunks longer ones.
    pub max_batch: usize,
    /// The largest payload.
    pub max_payload_bytes: usize,
    /// The most bytes of header names and values together.
    pub max_header_bytes: usize,
    /// The longest visibility timeout or extension; the shortest is 1 ms.
    pub max_visibility_timeout: Duration,
    /// The longest delay of an enqueue or a nack; the shortest is none.
    pub max_delay: Duration,
}

impl Limits {
    /// What the backends of this project share, so that an application which passes its
    /// tests on one of them does not meet a tighter limit on another: batches of 1000,
    /// payloads of 8 MiB, headers of 64 KiB, leases up to 7 days, delays up to 366 days.
    pub const STANDARD: Self = Self {
        max_batch: 1000,
        max_payload_bytes: 8 << 20,
        max_header_bytes: 64 << 10,
        max_visibility_timeout: Duration::from_secs(7 * 24 * 3600),
        max_delay: Duration::from_secs(366 * 24 * 3600),
    };
}
