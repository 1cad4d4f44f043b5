//! The list of dead letters.

use std::time::Duration;

use mongodb::bson::{DateTime, Document, RawDocument, doc};
use queue_api::{DeadLetter, DeadLetterPage, DeadReason, PageOptions};

use super::{admin::dead_numbers, pages::Place};
use crate::{
    document::{entry::Fate, fields::DEAD_KEY, stored::Stored},
    store::{
        collection::{Query, QueueCollection},
        error::StoreError,
        index::Index,
    },
};

impl QueueCollection {
    pub(crate) async fn dead_letters(
        &self,
        page: &PageOptions,
    ) -> Result<DeadLetterPage, StoreError> {
        let query = |place: Option<&Place>, limit| {
            Query::in_order_of(Index::DeadLetters.keys(), behind(place), limit)
        };
        let place_of = |found: &RawDocument| found.get_str(DEAD_KEY).map(str::to_owned).ok();
        let letters = |stored: &Stored| {
            let numbers = dead_numbers(&stored.entry).into_iter();
            let letters = numbers.filter_map(|it| Some((it, dead_letter(stored, it)?)));
            letters.collect()
        };
        let page = self.page(page.max(), Place::of(page), None, query, place_of, letters);
        let (letters, next) = page.await?;
        Ok(DeadLetterPage::new(letters).with_next(next))
    }
}

/// Selects the entries that have dead letters behind a place.
fn behind(place: Option<&Place>) -> Document {
    let key = place.map_or("", |place| place.entry.as_str());
    let is_behind_all = place.is_some_and(|place| place.after.is_none());
    let compare = if is_behind_all { "$gt" } else { "$gte" };
    // In an array, a place is not the document's own, and the pages would begin again.
    let is_text = doc! { "$exists": true, compare: key, "$type": "string" };
    doc! { DEAD_KEY: is_text, "$nor": [{ DEAD_KEY: { "$type": "array" } }] }
}

fn dead_letter(stored: &Stored, number: usize) -> Option<DeadLetter> {
    let part = stored.entry.part(number)?;
    let Fate::Dead { at, reason } = &part.fate else {
        return None;
    };
    let message = stored.messages.get(number)?;
    let reason = match reason {
        Some(reason) => DeadReason::Rejected(reason.clone()),
        None => DeadReason::AttemptsExhausted,
    };
    let id = stored.message_id(number)?.clone();
    Some(
        DeadLetter::new(id, message.payload.clone(), reason)
            .with_headers(message.headers.clone())
            .with_attempts(part.attempts)
            .with_max_attempts(stored.entry.max_attempts)
            .with_visibility_timeout(Duration::from_millis(
                stored.visibility_millis.unsigned_abs(),
            ))
            .with_enqueued_at(stored.enqueued_at)
            .with_died_at(DateTime::from_millis(*at).to_system_time()),
    )
}
