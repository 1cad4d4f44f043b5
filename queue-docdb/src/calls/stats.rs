//! Stats: counts of messages by state.

use std::time::Duration;

use mongodb::bson::{Bson, DateTime, Document, RawDocument, Uuid, doc};
use queue_api::QueueStats;

use crate::{
    document::{
        decode::ready_at,
        fields::{COUNT, ID, LEASE, PARTED, PARTS, VISIBLE_AT},
    },
    store::{
        collection::{Query, QueueCollection},
        error::StoreError,
        index::Index,
        inspect::first_batch,
        set_aside::are_set_aside,
        write_reply::integer,
    },
};

impl QueueCollection {
    /// Counts the messages by state. A document that is set aside counts as one that is dead.
    pub(crate) async fn stats(&self) -> Result<QueueStats, StoreError> {
        let now = self.now().await;
        let ready = doc! { VISIBLE_AT: { "$lte": now } };
        // An array may have a time that has passed and one that has not.
        let waiting = |is_leased: bool| {
            doc! {
                VISIBLE_AT: { "$gt": now }, "$nor": [&ready], LEASE: { "$exists": is_leased },
            }
        };
        let (ready, delayed, leased, parted, set_aside, first) = tokio::try_join!(
            self.sum(ready.clone(), count()),
            self.sum(waiting(false), count()),
            self.sum(waiting(true), count()),
            self.parted(now),
            self.sum(are_set_aside(), 1.into()),
            self.ready_times(Vec::new(), 1),
        )?;
        let first = first.first().filter(|&&first| first <= now);
        let now = now.timestamp_millis();
        let age = |first: &DateTime| now.saturating_sub(first.timestamp_millis());
        let age = |first: &DateTime| Duration::from_millis(age(first).unsigned_abs());
        Ok(QueueStats::default()
            .with_ready(ready + parted.ready)
            .with_delayed(delayed + parted.delayed)
            .with_leased(leased + parted.leased)
            .with_dead(parted.dead + set_aside)
            .with_oldest_ready(first.map(age)))
    }

    /// The sum of what each document that the filter selects counts for.
    async fn sum(&self, filter: Document, each: Bson) -> Result<u64, StoreError> {
        let group = doc! { ID: Bson::Null, "sum": { "$sum": each } };
        let sums = self
            .aggregate(vec![doc! { "$match": filter }, doc! { "$group": group }])
            .await?;
        Ok(sums.first().map_or(0, |sums| number(sums, "sum")))
    }

    /// The messages of parted entries.
    async fn parted(&self, now: DateTime) -> Result<QueueStats, StoreError> {
        let count = format!("${PARTS}.n");
        // Not in the filter: the planner would compare two indexes each time.
        let is_set_aside = doc! { "$eq": [format!("${VISIBLE_AT}"), false] };
        let count = doc! { "$cond": [is_set_aside, 0_i32, count] };
        let sum = |condition: Document| doc! { "$sum": { "$cond": [condition, &count, 0_i32] } };
        let at = format!("${PARTS}.at");
        // What is missing is less than any value.
        let is_there = |field: &str| doc! { "$gt": [format!("${PARTS}.{field}"), Bson::Null] };
        let is_waiting = doc! { "$gt": [&at, now] };
        let group = doc! {
            ID: Bson::Null,
            "ready": sum(doc! { "$and": [is_there("at"), { "$lte": [&at, now] }] }),
            "waiting": sum(is_waiting.clone()),
            "leased": sum(doc! { "$and": [is_waiting, is_there(LEASE)] }),
            "dead": sum(is_there("dead")),
        };
        let stages = vec![
            doc! { "$match": { PARTED: true } },
            doc! { "$unwind": format!("${PARTS}") },
            doc! { "$group": group },
        ];
        let sums = self.aggregate(stages).await?;
        let sum = |field| sums.first().map_or(0, |sums| number(sums, field));
        // A count that is damaged may be no number.
        let delayed = sum("waiting").saturating_sub(sum("leased"));
        Ok(QueueStats::default()
            .with_ready(sum("ready"))
            .with_delayed(delayed)
            .with_leased(sum("leased"))
            .with_dead(sum("dead")))
    }

    /// The one batch of an aggregate of few documents.
    async fn aggregate(&self, stages: Vec<Document>) -> Result<Vec<Document>, StoreError> {
        let command = doc! { "aggregate": self.messages.name(), "pipeline": stages, "cursor": {} };
        self.run(command, first_batch).await
    }

    /// The earliest ready times of live entries other than these, in order.
    pub(crate) async fn ready_times(
        &self,
        passed_over: Vec<Uuid>,
        limit: usize,
    ) -> Result<Vec<DateTime>, StoreError> {
        let mut live = live();
        if !passed_over.is_empty() {
            live.insert(ID, doc! { "$nin": passed_over });
        }
        let query = Query::in_order_of(Index::Claim.keys(), live, limit)
            .with_projection(doc! { ID: 0, VISIBLE_AT: 1 });
        // A damaged one is due: the next lease call sets it aside.
        let read = |found: &RawDocument| ready_at(found).unwrap_or(DateTime::MIN);
        self.find(query, read).await
    }
}

/// Selects the entries with live messages: those whose ready time is a time.
pub(crate) fn live() -> Document {
    doc! { VISIBLE_AT: { "$gte": DateTime::MIN } }
}

/// The messages of an entry that is whole. Parted ones have no count.
fn count() -> Bson {
    format!("${COUNT}").into()
}

fn number(sums: &Document, field: &str) -> u64 {
    integer(sums.get(field))
        .and_then(|sum| u64::try_from(sum).ok())
        .unwrap_or(0)
}
