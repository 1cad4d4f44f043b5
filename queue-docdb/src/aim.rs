//! Where a claim looks for messages: at the head of the queue, in a lane, or near the head.

use mongodb::bson::{DateTime, Document, RawDocument, doc};
use tokio::time::Instant;

use crate::{
    apart::Kept,
    candidate::Candidate,
    collection::{Query, QueueCollection, REPLY_BYTES},
    document,
    error::StoreError,
    head::From,
    index::Index,
    key::Key,
};

/// Where a claim looks for messages.
pub(crate) enum Aim {
    /// At the first ones.
    Head,
    /// At the first ones of the lane that this selects.
    Lane(Document),
    /// At some of so many first ones.
    Window(usize),
}

/// What it found.
pub(crate) struct Found<'a> {
    pub(crate) candidates: Vec<Candidate>,
    /// To be held until the claim is through.
    pub(crate) kept: Option<Kept<'a>>,
    /// How many were taken by others while it looked.
    pub(crate) missed: usize,
    /// Whether nothing else was ready where it looked.
    pub(crate) is_all: bool,
}

/// Selects what may be leased at this time.
pub(crate) fn ready(now: DateTime) -> Document {
    doc! { "visible_at": { "$lte": now } }
}

impl QueueCollection {
    /// Finds up to `limit` messages that are ready.
    pub(crate) async fn look(
        &self,
        aim: Aim,
        now: DateTime,
        limit: usize,
    ) -> Result<Found<'_>, StoreError> {
        match aim {
            Aim::Head => self.find_head(now, limit).await,
            Aim::Lane(lane) => self.find_in_lane(now, limit, lane).await,
            Aim::Window(width) => self.find_window(now, limit, width).await,
        }
    }

    /// The first ready messages, in order.
    async fn find_head(&self, now: DateTime, limit: usize) -> Result<Found<'_>, StoreError> {
        let head = &self.state.head;
        let mut from = head.begin();
        loop {
            let began = Instant::now();
            let (mut found, first) = self.find_from(from, ready(now), limit).await?;
            if !found.is_all {
                if let Some(first) = first {
                    head.found(from, first, began);
                }
                return Ok(found);
            }
            head.forget();
            match from {
                From::Beginning => return Ok(found),
                // Something may lie before the head.
                From::Head(_) if found.candidates.is_empty() => from = From::Beginning,
                From::Head(_) => {
                    found.is_all = false;
                    return Ok(found);
                }
            }
        }
    }

    /// The first ready messages of a lane, in order.
    async fn find_in_lane(
        &self,
        now: DateTime,
        limit: usize,
        lane: Document,
    ) -> Result<Found<'_>, StoreError> {
        let head = &self.state.head;
        if head.is_stale() {
            let began = Instant::now();
            match self.first_ready_time(Document::new()).await? {
                Some(first) if first <= now => head.found(From::Beginning, first, began),
                _ => head.forget(),
            }
        }
        let mut filter = ready(now);
        filter.extend(lane);
        let (found, _) = self.find_from(head.begin(), filter, limit).await?;
        Ok(found)
    }

    /// The first messages that the filter selects, in order, and when the first became ready.
    async fn find_from(
        &self,
        from: From,
        mut filter: Document,
        limit: usize,
    ) -> Result<(Found<'_>, Option<DateTime>), StoreError> {
        if let From::Head(at) = from {
            let mut bounds = doc! { "$gte": at };
            bounds.extend(
                filter
                    .get_document("visible_at")
                    .cloned()
                    .unwrap_or_default(),
            );
            filter.insert("visible_at", bounds);
        }
        filter.extend(self.state.apart.filter(from));
        let query = Query::in_order_of(Index::Claim, filter, limit);
        let read =
            |document: &RawDocument| (Candidate::read(document), document::ready_at(document));
        let (found, is_whole) = self.find_within(REPLY_BYTES, query, read).await?;
        let first = found.first().and_then(|(_, ready_at)| *ready_at);
        let ids = found
            .iter()
            .filter_map(|(found, ready_at)| Some((*ready_at, found.id()?.clone())));
        let found = Found {
            kept: Some(self.state.apart.keep(ids)),
            is_all: is_whole && found.len() < limit,
            missed: 0,
            candidates: found.into_iter().map(|(found, _)| found).collect(),
        };
        Ok((found, first))
    }

    /// Some ready messages near the head, chosen at random, so that claims which compete meet
    /// less often. Order is promised to a claim that is alone, which never gets here.
    async fn find_window(
        &self,
        now: DateTime,
        limit: usize,
        width: usize,
    ) -> Result<Found<'_>, StoreError> {
        let mut filter = ready(now);
        filter.extend(self.state.apart.filter(From::Beginning));
        let query =
            Query::in_order_of(Index::Claim, filter, width).with_projection(doc! { "_id": 1 });
        let mut keys = self.find(query, Key::of).await?;
        let is_all = keys.len() < limit;
        if keys.len() > limit {
            let start = fastrand::usize(..=keys.len() - limit);
            keys.drain(..start);
            keys.truncate(limit);
        }
        let chosen = keys.len();
        let mut filter = ready(now);
        match <[Document; 1]>::try_from(Key::conditions(keys)) {
            Ok([condition]) => filter.insert("_id", condition),
            // Damaged documents are among them. A claim at the head makes them dead letters.
            Err(_) => return self.find_head(now, limit).await,
        };
        let query = Query::by_ids(filter, chosen);
        let (found, is_whole) = self
            .find_within(REPLY_BYTES, query, Candidate::read)
            .await?;
        Ok(Found {
            kept: None,
            is_all: is_whole && is_all,
            missed: if is_whole { chosen - found.len() } else { 0 },
            candidates: found,
        })
    }
}
