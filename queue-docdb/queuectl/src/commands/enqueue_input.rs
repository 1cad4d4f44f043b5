//! What `enqueue` and `import` share: an input goes into a queue, batch after batch.

use std::fmt;

use queue_api::{EnqueueOutcome, QueueName};
use serde::Serialize;

use crate::{
    cli::ImportDead,
    connect::Connection,
    failure::{Exit, Failure, Result},
    find_queue::must_exist,
    input::{Ids, Input},
    output::{Output, count},
    progress::Progress,
    stop::Stop,
};

#[derive(Serialize)]
struct Enqueued {
    queue: QueueName,
    stored: u64,
    /// Messages whose ids were in the queue already.
    duplicates: u64,
    /// How many messages of the input are done, with those that were skipped.
    position: u64,
    /// Dead letters that --dead=skip left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_skipped: Option<u64>,
    #[serde(skip)]
    is_derived: bool,
    /// Whether the queue has dead letters, which keep their ids.
    #[serde(skip)]
    has_dead: bool,
}

impl fmt::Display for Enqueued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stored = count(self.stored, "message");
        write!(f, "enqueued {stored} into queue {}", self.queue)?;
        if self.duplicates > 0 {
            let duplicates = self.duplicates;
            write!(f, "; {duplicates} more were there already, by their ids")?;
            if self.is_derived {
                f.write_str(" (--new-ids enqueues the same input again)")?;
            }
            if self.has_dead {
                f.write_str("; of these, some may be dead letters: see `queuectl stats`")?;
            }
        }
        if let Some(skipped) = self.dead_skipped {
            write!(f, "; left out {}", count(skipped, "dead letter"))?;
        }
        Ok(())
    }
}

pub(super) async fn enqueue_input(
    connection: &Connection,
    output: &mut Output,
    queue: QueueName,
    create: bool,
    input: impl FnOnce(queue_api::Limits) -> Input,
) -> Result<()> {
    if !create {
        let exists = must_exist(connection, &queue).await;
        exists.map_err(|failure| match failure.exit {
            Exit::NotFound => failure.advise("--create makes it"),
            _ => failure,
        })?;
    }
    let queue = connection.queue(&queue)?;
    let input = input(queue.limits().clone());
    let mut stop = Stop::listen()?;
    let mut progress = Progress::new(input.size()?);
    let mut done = Enqueued {
        queue: queue.name().clone(),
        stored: 0,
        duplicates: 0,
        position: input.skip,
        dead_skipped: (input.dead == ImportDead::Skip).then_some(0),
        is_derived: matches!(input.ids, Ids::Derived(_)),
        has_dead: false,
    };
    let is_new = matches!(input.ids, Ids::New);
    let mut batches = input.read();
    let ended = loop {
        let read = tokio::select! {
            biased;
            exit = stop.wait() => break Err(exit.stopped()),
            read = batches.recv() => read,
        };
        let batch = match read {
            None => break Ok(()),
            Some(Err(failure)) => break Err(failure),
            Some(Ok(batch)) => batch,
        };
        match queue.enqueue_batch(&batch.messages).await {
            Ok(outcomes) => {
                let stored = outcomes.iter().filter(|it| **it == EnqueueOutcome::Stored);
                let stored = stored.count() as u64;
                let messages = outcomes.len() as u64;
                done.stored += stored;
                done.duplicates += messages - stored;
                done.position = batch.end;
                done.dead_skipped = done.dead_skipped.map(|_| batch.dead_skipped);
                progress.advance(messages, batch.bytes);
            }
            Err(error) => {
                let failure = Failure::from(error);
                let most = batch.messages.len();
                break Err(match is_new {
                    false => failure,
                    true => failure.advise(&format!(
                        "up to {most} more may be stored; a repeat enqueues those again"
                    )),
                });
            }
        }
    };
    drop(progress);
    if done.duplicates > 0 {
        // Only a hint, so a failure does not count.
        let stats = queue.stats().await;
        done.has_dead = stats.is_ok_and(|stats| stats.dead > 0);
    }
    output.summary(&done)?;
    ended.map_err(|failure| match done.position {
        0 => failure,
        // A repeat from the beginning would enqueue messages again that consumers have finished
        // meanwhile.
        position => failure.advise(&format!(
            "messages of the input that are done: {position}; resume with --skip {position}"
        )),
    })
}
