//! `delete`: removes a queue.

use std::fmt;

use queue_api::QueueName;
use serde::Serialize;

use crate::{
    cli::{DeleteArgs, What},
    confirm::confirm,
    connect::Connection,
    depth::contents,
    failure::Result,
    find_queue::must_exist,
    output::Output,
};

#[derive(Serialize)]
struct Deleted {
    queue: QueueName,
    deleted: bool,
}

impl fmt::Display for Deleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "deleted queue {}", self.queue)
    }
}

pub(super) async fn run(
    connection: &Connection,
    output: &mut Output,
    args: DeleteArgs,
) -> Result<()> {
    let (admin, queue) = (&connection.admin, args.queue);
    must_exist(connection, &queue).await?;
    let stats = admin.stats(&queue).await?;
    let what = contents(&stats, What::All);
    confirm(&args.confirm, &format!("delete queue {queue} with {what}"))?;
    admin.delete_queue(&queue).await?;
    let deleted = true;
    output.summary(&Deleted { queue, deleted })
}
