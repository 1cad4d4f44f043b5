//! How many messages a queue has, and what removing them would remove.

use queue_api::QueueStats;

use crate::{cli::What, output::count};

/// Ready, delayed and leased messages.
pub(crate) fn depth(stats: &QueueStats) -> u64 {
    stats.ready + stats.delayed + stats.leased
}

/// Such as "3 live messages and 1 dead letter".
pub(crate) fn contents(stats: &QueueStats, what: What) -> String {
    let live = count(depth(stats), "live message");
    let dead = count(stats.dead, "dead letter");
    match what {
        What::Live => live,
        What::Dead => dead,
        What::All => format!("{live} and {dead}"),
    }
}
