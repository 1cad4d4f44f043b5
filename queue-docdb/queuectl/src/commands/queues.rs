//! `queues`: all queues and how full they are.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use queue_api::{QueueName, QueueStats};
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    cli::QueuesArgs,
    connect::Connection,
    depth::depth,
    duration::short,
    failure::Result,
    output::{Column, Output, Row},
};

/// Calls at a time; fewer than the pool has connections.
const CALLS: usize = 8;

/// A queue as `queues` and `stats` print it.
#[derive(Serialize)]
pub(super) struct QueueRow {
    queue: QueueName,
    ready: u64,
    delayed: u64,
    leased: u64,
    dead: u64,
    oldest_ready_seconds: Option<f64>,
    /// The net change of ready, delayed and leased together. Absent if there was no interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    depth_change_per_second: Option<f64>,
}

impl Row for QueueRow {
    const COLUMNS: &[Column] = &[
        Column::Text("QUEUE"),
        Column::Number("READY"),
        Column::Number("DELAYED"),
        Column::Number("LEASED"),
        Column::Number("DEAD"),
        Column::Number("OLDEST READY"),
        Column::Number("CHANGE/S"),
    ];

    fn cells(&self) -> Vec<String> {
        let age = self.oldest_ready_seconds;
        let age = age.map(|age| short(Duration::from_secs_f64(age)));
        let change = self.depth_change_per_second;
        let none = || "-".to_owned();
        vec![
            self.queue.to_string(),
            self.ready.to_string(),
            self.delayed.to_string(),
            self.leased.to_string(),
            self.dead.to_string(),
            age.unwrap_or_else(none),
            change.map_or_else(none, |change| format!("{change:+.1}")),
        ]
    }
}

/// The stats of a queue, and when they were taken.
pub(super) struct Sample {
    queue: QueueName,
    stats: QueueStats,
    at: Instant,
}

impl Sample {
    pub(super) async fn take(connection: &Connection, queue: QueueName) -> Result<Self> {
        let stats = connection.admin.stats(&queue).await?;
        let at = Instant::now();
        Ok(Self { queue, stats, at })
    }

    /// With the change since an earlier sample of the same queue.
    pub(super) fn row(&self, before: Option<&Self>) -> QueueRow {
        let change = before.map(|before| {
            let seconds = self.at.duration_since(before.at).as_secs_f64();
            (depth(&self.stats) as f64 - depth(&before.stats) as f64) / seconds
        });
        QueueRow {
            queue: self.queue.clone(),
            ready: self.stats.ready,
            delayed: self.stats.delayed,
            leased: self.stats.leased,
            dead: self.stats.dead,
            oldest_ready_seconds: self.stats.oldest_ready.map(|age| age.as_secs_f64()),
            depth_change_per_second: change,
        }
    }
}

pub(super) async fn run(
    connection: &Connection,
    output: &mut Output,
    args: QueuesArgs,
) -> Result<()> {
    let queues = connection.admin.list_queues().await?;
    let first = take_all(connection, queues.clone()).await?;
    let rows: Vec<_> = if args.interval.is_zero() || first.is_empty() {
        first.iter().map(|sample| sample.row(None)).collect()
    } else {
        pause(args.interval).await;
        let now = take_all(connection, queues).await?;
        let pairs = now.iter().zip(&first);
        pairs.map(|(now, first)| now.row(Some(first))).collect()
    };
    output.rows(&rows)
}

/// In the order of the names.
async fn take_all(connection: &Connection, queues: Vec<QueueName>) -> Result<Vec<Sample>> {
    let samples = stream::iter(queues).map(|queue| Sample::take(connection, queue));
    samples.buffered(CALLS).try_collect().await
}

#[expect(
    clippy::disallowed_methods,
    reason = "the user waits for it, and no queue's clock counts here"
)]
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
