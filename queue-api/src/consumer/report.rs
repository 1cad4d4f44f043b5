//! What a worker did.

use std::{fmt, ops::AddAssign};

/// What became of the messages that a [`Worker`](super::Worker) took. Their sum is the number of
/// messages that it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Handled and acked.
    pub handled: u64,
    /// Failed, and to be tried again.
    pub failed: u64,
    /// Failed for good: dead letters now.
    pub dead_lettered: u64,
    /// Given back at the deadline of the shutdown; that costs no attempt.
    pub returned: u64,
    /// Somebody else had the message by the time of the settlement, whatever that was.
    pub lost: u64,
    /// The store could not be told the settlement while the lease lasted; the message comes back
    /// unless the store did hear it.
    pub unsettled: u64,
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.handled += other.handled;
        self.failed += other.failed;
        self.dead_lettered += other.dead_lettered;
        self.returned += other.returned;
        self.lost += other.lost;
        self.unsettled += other.unsettled;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} handled, {} failed, {} dead-lettered, {} returned, {} lost, {} unsettled",
            self.handled, self.failed, self.dead_lettered, self.returned, self.lost, self.unsettled
        )
    }
}
