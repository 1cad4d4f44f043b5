//! What a worker did.

use std::{fmt, ops::AddAssign};

/// Counts of the deliveries that a [`Worker`](super::Worker) leased, by outcome. A message that is
/// retried counts once for each delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Handled and acked.
    pub handled: u64,
    /// Failed, and will be retried.
    pub failed: u64,
    /// Failed for good, and became a dead letter.
    pub dead_lettered: u64,
    /// Released at the shutdown deadline. The attempt does not count.
    pub released: u64,
    /// The settlement came too late: another consumer has the message.
    pub lost: u64,
    /// The store did not confirm the settlement while the lease lasted, or before the end of the
    /// shutdown. The message comes back unless the settlement took effect.
    pub unsettled: u64,
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.handled += other.handled;
        self.failed += other.failed;
        self.dead_lettered += other.dead_lettered;
        self.released += other.released;
        self.lost += other.lost;
        self.unsettled += other.unsettled;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} handled, {} failed, {} dead-lettered, {} released, {} lost, {} unsettled",
            self.handled, self.failed, self.dead_lettered, self.released, self.lost, self.unsettled
        )
    }
}
