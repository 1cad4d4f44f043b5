//! Looking at live messages: the first ones, and all of them in pages.

use std::time::Duration;

use mongodb::bson::{DateTime, Document, RawDocument, Uuid, doc};
use queue_api::{
    Error, InvalidInput, MessagePage, MessageState, PageOptions, PageToken, PeekedMessage,
};

use super::{pages::Place, stats::live};
use crate::{
    document::{decode::uuid_field, encode::entry_ids, fields::ID, stored::Stored},
    store::{
        collection::{Query, QueueCollection},
        error::StoreError,
        index::Index,
    },
};

/// Where a page of live messages starts.
pub(crate) fn start(page: &PageOptions) -> Result<Option<Place>, Error> {
    let place = Place::of(page);
    let is_own = |place: &Place| {
        let entry = uuid::Uuid::try_parse(&place.entry);
        let entry = entry.is_ok_and(|entry| entry.simple().to_string() == place.entry);
        let is_written_so =
            |token: &PageToken| token.as_str() == place.entry || *token == place.token();
        entry && page.token().is_some_and(is_written_so)
    };
    if place.as_ref().is_none_or(is_own) {
        return Ok(place);
    }
    let text = format!("{:?}", page.token().map_or("", PageToken::as_str));
    let wrong = InvalidInput::new("page token", text, "one that this backend returned");
    Err(Error::invalid_value("messages", wrong))
}

impl QueueCollection {
    pub(crate) async fn peek(&self, max: usize) -> Result<Vec<PeekedMessage>, StoreError> {
        let now = self.now().await;
        let (mut entries, mut limit) = (Vec::new(), max);
        // It passes over entries that cannot be read. For a server, a limit of 0 is none.
        while limit > 0 {
            let query = Query::in_order_of(Index::Claim.keys(), live(), limit);
            let found = self.find_entries(usize::MAX, query, Stored::read_all);
            let found = found.await?;
            entries = found.entries;
            if found.number < limit || entries.len() >= max {
                break;
            }
            limit = limit.saturating_mul(2);
        }
        entries.truncate(max);
        let messages = entries
            .iter()
            .flat_map(|entry| live_messages_of(entry, now));
        let mut messages: Vec<PeekedMessage> = messages.map(|(_, message)| message).collect();
        // Of messages that are ready later than the last entry, earlier ones may not have been found.
        let last = entries.last().filter(|_| entries.len() == max);
        if let Some(at) = last.and_then(|last| last.entry.visible_at()) {
            let horizon = DateTime::from_millis(at).to_system_time();
            messages.retain(|message| message.ready_at <= horizon);
        }
        messages.sort_by_key(|message| message.ready_at);
        messages.truncate(max);
        Ok(messages)
    }

    /// In order of `_id`, so the server also reads entries without live messages in between. No index has
    /// live entries alone in an order that never changes.
    ///
    /// A document whose `_id` is no UUID is not an entry.
    pub(crate) async fn live_messages(
        &self,
        place: Option<Place>,
        max: usize,
    ) -> Result<MessagePage, StoreError> {
        let now = self.now().await;
        let query =
            |place: Option<&Place>, limit| Query::in_order_of(doc! { ID: 1 }, behind(place), limit);
        let messages = |stored: &Stored| {
            let mut live = live_messages_of(stored, now);
            live.sort_unstable_by_key(|(number, _)| *number);
            live
        };
        let sizes = Some(&self.state.listed_sizes);
        let page = self.page(max, place, sizes, query, entry_id, messages);
        let (messages, next) = page.await?;
        Ok(MessagePage::new(messages).with_next(next))
    }
}

fn entry_id(found: &RawDocument) -> Option<String> {
    let id = uuid_field(found, ID)?;
    Some(uuid::Uuid::from_bytes(id.bytes()).simple().to_string())
}

/// Selects the live entries that have messages behind a place.
fn behind(place: Option<&Place>) -> Document {
    let mut ids = entry_ids();
    if let Some(place) = place
        && let Ok(entry) = uuid::Uuid::try_parse(&place.entry)
    {
        ids.remove("$gte");
        let compare = if place.after.is_none() { "$gt" } else { "$gte" };
        ids.insert(compare, Uuid::from_bytes(entry.into_bytes()));
    }
    let mut filter = doc! { ID: ids };
    filter.extend(live());
    filter
}

/// The live messages of an entry, with their numbers.
fn live_messages_of(stored: &Stored, now: DateTime) -> Vec<(usize, PeekedMessage)> {
    let mut messages = Vec::new();
    for part in &stored.entry.parts {
        let Some(at) = part.ready_at() else {
            continue;
        };
        let state = if at <= now.timestamp_millis() {
            MessageState::Ready
        } else if part.lease().is_some() {
            MessageState::Leased
        } else {
            MessageState::Delayed
        };
        let visibility = Duration::from_millis(stored.visibility_millis.unsigned_abs());
        for &number in &part.numbers {
            let id = stored.message_id(number);
            if let (Some(id), Some(body)) = (id, stored.messages.get(number)) {
                let message = PeekedMessage::new(id.clone(), body.payload.clone(), state)
                    .with_headers(body.headers.clone())
                    .with_attempts(part.attempts)
                    .with_max_attempts(stored.entry.max_attempts)
                    .with_visibility_timeout(visibility)
                    .with_enqueued_at(stored.enqueued_at)
                    .with_ready_at(DateTime::from_millis(at).to_system_time());
                messages.push((number, message));
            }
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = "0199a8c31b5a7c1e8f00112233445566";

    #[test]
    fn other_texts_are_no_tokens() {
        let hyphenated = uuid::Uuid::try_parse(ENTRY).expect("a UUID").to_string();
        let mut texts = vec![
            String::new(),
            "-1".to_owned(),
            ENTRY.to_uppercase(),
            hyphenated,
        ];
        texts.extend(["+1", "01", "-1", "1.2", "x"].map(|end| format!("{ENTRY}.{end}")));
        for text in texts {
            let page = PageOptions::new(1).with_token(PageToken::new(&*text));
            let error = start(&page).expect_err("no token");
            let expected =
                format!("page token is {text:?}; it must be one that this backend returned");
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }
}
