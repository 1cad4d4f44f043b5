//! Stats: counts of messages by state.

use mongodb::bson::{DateTime, Document, doc};
use queue_api::QueueStats;

use crate::{
    collection::{Query, QueueCollection},
    document,
    error::StoreError,
    index::Index,
    instant,
};

/// Selects the dead letters after `id`. DocumentDB's first planner uses a sparse index only for
/// `$exists`.
pub(crate) fn dead_letters_after(id: &str) -> Document {
    doc! { "dead.id": { "$exists": true, "$gt": id } }
}

impl QueueCollection {
    /// Counts the messages by state.
    pub(crate) async fn stats(&self) -> Result<QueueStats, StoreError> {
        let now = self.now().await;
        let ready = doc! { "visible_at": { "$lte": now } };
        // An array may have a time that has passed and one that has not.
        let waiting = |is_leased: bool| {
            doc! {
                "visible_at": { "$gt": now }, "$nor": [&ready], "lease": { "$exists": is_leased },
            }
        };
        let (ready, delayed, leased, dead, first) = tokio::try_join!(
            self.count(ready.clone()),
            self.count(waiting(false)),
            self.count(waiting(true)),
            self.count(dead_letters_after("")),
            self.first_ready_time(Document::new()),
        )?;
        Ok(QueueStats::default()
            .with_ready(ready)
            .with_delayed(delayed)
            .with_leased(leased)
            .with_dead(dead)
            .with_oldest_ready(
                first
                    .filter(|&first| first <= now)
                    .map(|first| instant::between(first, now)),
            ))
    }

    /// The earliest ready time of the live messages that the filter selects.
    pub(crate) async fn first_ready_time(
        &self,
        filter: Document,
    ) -> Result<Option<DateTime>, StoreError> {
        Ok(self.ready_times(filter, 1).await?.first().copied())
    }

    /// The earliest ready times of the live messages that the filter selects, in order.
    pub(crate) async fn ready_times(
        &self,
        filter: Document,
        limit: usize,
    ) -> Result<Vec<DateTime>, StoreError> {
        let mut live = live();
        live.extend(filter);
        let query = Query::in_order_of(Index::Claim, live, limit)
            .with_projection(doc! { "_id": 0, "visible_at": 1 });
        let found = self.find(query, document::ready_at).await?;
        // A damaged one is due: the next lease call makes it a dead letter.
        let times = found.into_iter();
        Ok(times
            .map(|time| time.unwrap_or(instant::EARLIEST))
            .collect())
    }
}

/// Selects the live messages: those whose ready time is a time.
pub(crate) fn live() -> Document {
    doc! { "visible_at": { "$gte": instant::EARLIEST } }
}
