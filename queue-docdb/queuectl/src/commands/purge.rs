//! `purge`: removes messages.

use std::fmt;

use queue_api::{Purge, QueueName};
use serde::Serialize;

use crate::{
    cli::{PurgeArgs, What},
    confirm::confirm,
    connect::Connection,
    depth::contents,
    failure::{Exit, Failure, Result},
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
    for (is_asked, what) in [
        (args.what.has_live(), Purge::Live),
        (args.what.has_dead(), Purge::Dead),
    ] {
        if is_asked {
            let purged = admin.purge(&queue, what).await;
            let more = purged.map_err(|error| stopped(error.into(), removed))?;
            removed += more;
        }
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

/// A failure of a purge, with what is removed all the same.
pub(super) fn stopped(failure: Failure, removed: u64) -> Failure {
    match (removed, failure.exit) {
        (0, Exit::Unreachable) => failure.advise("some messages may be removed"),
        (0, _) => failure,
        _ => {
            let removed = count(removed, "message");
            failure.advise(&format!("before that, it removed {removed}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_what_is_removed() {
        let said = |exit, removed| stopped(Failure::new(exit, "no answer"), removed).text;
        let unknown = "no answer; some messages may be removed";
        assert_eq!(said(Exit::Unreachable, 0), unknown);
        assert_eq!(said(Exit::Denied, 0), "no answer");
        let known = "no answer; before that, it removed 3 messages";
        assert_eq!(said(Exit::Denied, 3), known);
    }
}
