//! Stats: counts by index.

use mongodb::bson::{DateTime, Document, doc};
use queue_api::QueueStats;

use crate::{
    collection::{Query, QueueCollection},
    document,
    error::StoreError,
    index::Index,
    instant,
};

/// Selects dead letters. DocumentDB's first planner uses a sparse index only where the
/// filter says `$exists`; the bound keeps to ids that this library wrote.
pub(crate) fn dead_letters_after(id: &str) -> Document {
    doc! { "dead.id": { "$exists": true, "$gt": id } }
}

impl QueueCollection {
    /// Counts the messages by state.
    pub(crate) async fn stats(&self) -> Result<QueueStats, StoreError> {
        let now = self.now().await;
        let ready = doc! { "visible_at": { "$lte": now } };
        let waiting = |is_leased: bool| doc! { "visible_at": { "$gt": now }, "lease": { "$exists": is_leased } };
        let (ready, delayed, leased, dead, first) = tokio::try_join!(
            self.count(ready),
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

    /// When the first live message that the filter selects too became ready, or will.
    pub(crate) async fn first_ready_time(
        &self,
        filter: Document,
    ) -> Result<Option<DateTime>, StoreError> {
        let mut live = live();
        live.extend(filter);
        let query = Query::in_order_of(Index::Claim, live, 1)
            .with_projection(doc! { "_id": 0, "visible_at": 1 });
        let found = self
            .find(query, |found| document::date(found, "visible_at"))
            .await?;
        // One that cannot be read is damaged, and a lease call is to bury it now.
        Ok(found.first().map(|date| date.unwrap_or(instant::EARLIEST)))
    }
}

/// Selects every live message: those that have a ready time.
pub(crate) fn live() -> Document {
    doc! { "visible_at": { "$gte": instant::EARLIEST } }
}
