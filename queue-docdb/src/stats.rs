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
        Ok(QueueStats {
            ready,
            delayed,
            leased,
            dead,
            oldest_ready: first
                .filter(|&first| first <= now)
                .map(|first| instant::between(first, now)),
        })
    }

    /// The earliest ready time of the live messages that the filter selects.
    pub(crate) async fn first_ready_time(
        &self,
        filter: Document,
    ) -> Result<Option<DateTime>, StoreError> {
        let mut live = live();
        live.extend(filter);
        let query = Query::in_order_of(Index::Claim, live, 1)
            .with_projection(doc! { "_id": 0, "visible_at": 1 });
        let found = self.find(query, document::ready_at).await?;
        // A damaged one is due: the next lease call makes it a dead letter.
        Ok(found.first().map(|date| date.unwrap_or(instant::EARLIEST)))
    }
}

/// Selects the live messages: those whose ready time is a time.
pub(crate) fn live() -> Document {
    doc! { "visible_at": { "$gte": instant::EARLIEST } }
}
