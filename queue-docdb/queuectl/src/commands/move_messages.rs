//! `move`: from one queue into another.

use std::fmt;

use queue_api::{
    Delivery, EnqueueOutcome, LeaseChange, LeaseOptions, LeaseOutcome, NewMessage, Queue,
    QueueName, Receipt,
};
use serde::Serialize;

use crate::{
    cli::MoveArgs,
    connect::Connection,
    failure::{Failure, Result},
    find_queue::must_exist,
    output::{Output, count},
    progress::Progress,
    stop::Stop,
};

/// Messages that are leased together. More could outlast a short visibility timeout.
const LARGEST: usize = 500;

/// The first batch shows how large the messages are.
const FIRST: usize = 16;

/// The payloads of a batch, if they are like those of the batch before.
const BATCH_BYTES: usize = 4 << 20;

#[derive(Default, Serialize)]
struct Counts {
    moved: u64,
    /// Messages whose ids the second queue had already, also as dead letters, so that they were only
    /// acked.
    duplicates: u64,
    /// Messages that are in the second queue, and that a consumer leased from the first one
    /// meanwhile.
    lost: u64,
}

#[derive(Serialize)]
struct Moved {
    from: QueueName,
    to: QueueName,
    #[serde(flatten)]
    counts: Counts,
    /// Ready messages of the first queue, if a lease came back empty too early.
    #[serde(skip_serializing_if = "Option::is_none")]
    still_ready: Option<u64>,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            from,
            to,
            counts,
            still_ready,
        } = self;
        let moved = count(counts.moved, "message");
        write!(f, "moved {moved} from queue {from} into queue {to}")?;
        if counts.duplicates > 0 {
            let duplicates = counts.duplicates;
            write!(
                f,
                "; {duplicates} of them were there already, by their ids, and are removed from \
                 queue {from}"
            )?;
        }
        if counts.lost > 0 {
            let lost = count(counts.lost, "message");
            write!(
                f,
                "; a consumer took {lost} meanwhile, which are in both queues"
            )?;
        }
        match still_ready {
            None | Some(0) => Ok(()),
            Some(ready) => write!(f, "; {ready} are still ready, repeat the command"),
        }
    }
}

pub(super) async fn run(
    connection: &Connection,
    output: &mut Output,
    args: MoveArgs,
) -> Result<()> {
    if args.from == args.to {
        let text = format!("the queues are the same, {}; name two", args.from);
        return Err(Failure::usage(text));
    }
    must_exist(connection, &args.from).await?;
    if !args.create {
        must_exist(connection, &args.to).await?;
    }
    let stop = Stop::listen()?;
    let (from, to) = (connection.queue(&args.from)?, connection.queue(&args.to)?);
    // It ends also while producers go on.
    let ready = from.stats().await?.ready;
    let most = args.max.map_or(ready, |max| max.min(ready));
    let mut progress = Progress::new(Some(most));
    let mut counts = Counts::default();
    let mut size = FIRST;
    let mut still_ready = None;
    let ended = loop {
        if let Some(exit) = stop.requested() {
            break Err(exit.stopped().advise("repeat the command to go on"));
        }
        let left = most - progress.messages();
        let batch = size.min(usize::try_from(left).unwrap_or(size));
        if batch == 0 {
            break Ok(());
        }
        let deliveries = match from.lease_batch(&LeaseOptions::new(batch)).await {
            Ok(deliveries) => deliveries,
            Err(error) => break Err(error.into()),
        };
        if deliveries.is_empty() {
            // Consumers may have them, or a lease gave way to others.
            match from.stats().await {
                Ok(stats) => still_ready = Some(stats.ready),
                Err(error) => break Err(error.into()),
            }
            break Ok(());
        }
        size = next_size(&deliveries);
        let messages = deliveries.len() as u64;
        if let Err(failure) = move_batch(&from, &to, deliveries, &mut counts).await {
            break Err(failure);
        }
        progress.advance(messages, progress.messages() + messages);
    };
    drop(progress);
    output.summary(&Moved {
        from: args.from,
        to: args.to,
        counts,
        still_ready,
    })?;
    ended
}

async fn move_batch(
    from: &Queue,
    to: &Queue,
    deliveries: Vec<Delivery>,
    counts: &mut Counts,
) -> Result<()> {
    let (messages, receipts): (Vec<_>, Vec<_>) = deliveries.into_iter().map(split).unzip();
    let outcomes = match to.enqueue_batch(&messages).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            // Else they would be ready only after their visibility timeout. That is also the case
            // if this fails.
            let changes: Vec<_> = receipts.into_iter().map(LeaseChange::release).collect();
            let _ = from.change_batch(&changes).await;
            let advice = "some messages may be in both queues until you repeat the command";
            return Err(Failure::from(error).advise(advice));
        }
    };
    let acked = from.ack_batch(&receipts).await.map_err(|error| {
        let advice = "some messages are in both queues until you repeat the command";
        Failure::from(error).advise(advice)
    })?;
    for outcomes in outcomes.into_iter().zip(acked) {
        match outcomes {
            (_, LeaseOutcome::Lost) => counts.lost += 1,
            (outcome, LeaseOutcome::Applied) => {
                counts.moved += 1;
                counts.duplicates += u64::from(outcome == EnqueueOutcome::Duplicate);
            }
        }
    }
    Ok(())
}

/// The same message for the other queue. The lease had the message's own visibility timeout,
/// because the call set none.
fn split(delivery: Delivery) -> (NewMessage, Receipt) {
    let mut message = NewMessage::new(delivery.payload)
        .with_id(delivery.id)
        .with_visibility_timeout(delivery.visibility_timeout)
        .with_max_attempts(delivery.max_attempts);
    message.headers = delivery.headers;
    (message, delivery.receipt)
}

/// Large messages come in small batches, because a batch is in memory.
fn next_size(deliveries: &[Delivery]) -> usize {
    let bytes: usize = deliveries.iter().map(|each| each.payload.len()).sum();
    let average = bytes / deliveries.len().max(1);
    (BATCH_BYTES / average.max(1)).clamp(1, LARGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_ready_is_said() {
        let name = |name| QueueName::new(name).expect("a name");
        let said = |still_ready| {
            Moved {
                from: name("a"),
                to: name("b"),
                counts: Counts::default(),
                still_ready,
            }
            .to_string()
        };
        let moved = "moved 0 messages from queue a into queue b";
        assert_eq!(said(None), moved);
        assert_eq!(said(Some(0)), moved);
        let more = format!("{moved}; 7 are still ready, repeat the command");
        assert_eq!(said(Some(7)), more);
    }
}
