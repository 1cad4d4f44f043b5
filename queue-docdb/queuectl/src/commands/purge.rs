//! `purge`: removes messages.

use std::fmt;

use queue_api::{Purge, QueueName};
use serde::Serialize;

use crate::{
    cli::{PurgeArgs, What},
    confirm::confirm,
    connect::Connection,
    depth::contents,
    failure::Result,
    find_queue::must_exist,
    output::{Output, count},
};

#[derive(Serialize)]
pub(super) struct Removed {
    pub(super) queue: QueueName,
    /// The number of messages.
    pub(super) removed: u64,
    /// What they are called.
    #[serde(skip)]
    pub(super) noun: &'static str,
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let messages = count(self.removed, self.noun);
        write!(f, "removed {messages} of queue {}", self.queue)
    }
}

pub(super) async fn run(
    connection: &Connection,
    output: &mut Output,
    args: PurgeArgs,
) -> Result<()> {
    let (admin, queue) = (&connection.admin, args.queue);
    must_exist(connection, &queue).await?;
    let stats = admin.stats(&queue).await?;
    let what = contents(&stats, args.what);
    confirm(&args.confirm, &format!("remove {what} of queue {queue}"))?;
    let mut removed = 0;
    if args.what.has_live() {
        removed += admin.purge(&queue, Purge::Live).await?;
    }
    if args.what.has_dead() {
        removed += admin.purge(&queue, Purge::Dead).await?;
    }
    let noun = match args.what {
        What::Dead => "dead letter",
        What::Live | What::All => "message",
    };
    output.summary(&Removed {
        queue,
        removed,
        noun,
    })
}
