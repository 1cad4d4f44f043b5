//! Looking at live messages: the first ones, and all of them in pages.

use std::time::Duration;

use mongodb::bson::{DateTime, Document, RawDocument, Uuid, doc};
use queue_api::{
    Error, InvalidInput, MessagePage, MessageState, PageOptions, PageToken, PeekedMessage,
};

use super::stats::live;
use crate::{
    document::{decode::uuid_field, fields::ID, stored::Stored},
    store::{
        collection::{Query, QueueCollection, REPLY_BYTES},
        error::StoreError,
        index::Index,
    },
};

/// A place in the list of live messages. The list is in order of entry and number. An entry keeps its
/// `_id`, and a message its entry and number, so no message moves in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    entry: Uuid,
    /// The last of the entry's messages that is before the place. `None`: all are.
    after: Option<usize>,
}

impl Place {
    /// Where a page starts.
    pub(crate) fn of(page: &PageOptions) -> Result<Option<Self>, Error> {
        page.token().map(Self::read).transpose()
    }

    fn read(token: &PageToken) -> Result<Self, Error> {
        let text = token.as_str();
        let (entry, after) = match text.split_once('.') {
            Some((entry, after)) => (entry, after.parse().ok()),
            None => (text, None),
        };
        let entry = uuid::Uuid::try_parse(entry).map(|entry| Uuid::from_bytes(entry.into_bytes()));
        let place = entry.ok().map(|entry| Self { entry, after });
        // Only the text that is made of it.
        place.filter(|it| it.token() == *token).ok_or_else(|| {
            let token = format!("{text:?}");
            let wrong = InvalidInput::new("page token", token, "one that this backend returned");
            Error::invalid_value("messages", wrong)
        })
    }

    fn token(self) -> PageToken {
        let entry = uuid::Uuid::from_bytes(self.entry.bytes()).simple();
        PageToken::new(match self.after {
            Some(after) => format!("{entry}.{after}"),
            None => entry.to_string(),
        })
    }
}

impl QueueCollection {
    pub(crate) async fn peek(&self, max: usize) -> Result<Vec<PeekedMessage>, StoreError> {
        let now = self.now().await;
        let query = |limit| Query::in_order_of(Index::Claim, live(), limit);
        let read = |found: &RawDocument| Stored::read_all(found).ok();
        let entries = self.find_readable(query, max, read).await?;
        let last = entries.last().and_then(|last| last.entry.visible_at());
        // Of messages that are ready later than the last entry, earlier ones may not have been found.
        let horizon = match entries.len() < max {
            true => i64::MAX,
            false => last.unwrap_or(i64::MAX),
        };
        let mut messages: Vec<Live> = entries
            .iter()
            .flat_map(|entry| live_messages_of(entry, now))
            .collect();
        messages.retain(|message| message.at <= horizon);
        messages.sort_by_key(|message| message.at);
        messages.truncate(max);
        Ok(messages.into_iter().map(|it| it.message).collect())
    }

    /// In order of `_id`, so the server also reads entries without live messages in between. No index has
    /// live entries alone in an order that never changes.
    ///
    /// Entries that cannot be read are passed over. A document whose `_id` is no UUID is not an entry.
    pub(crate) async fn live_messages(
        &self,
        mut place: Option<Place>,
        max: usize,
    ) -> Result<MessagePage, StoreError> {
        if max == 0 {
            return Ok(MessagePage::new(Vec::new()));
        }
        let now = self.now().await;
        let read = |found: &RawDocument| Stored::read_all(found).map_err(|_| uuid_field(found, ID));
        // One more tells whether this is the last page.
        let mut limit = self.state.listed_sizes.entries(max).saturating_add(1);
        loop {
            let query = Query::in_order_of_id(behind(place), limit);
            let (found, is_whole) = self.find_within(REPLY_BYTES, query, read).await?;
            let is_all = is_whole && found.len() < limit;
            self.state.listed_sizes.saw(found.iter().flatten());
            let listed = list(found, place, max, now);
            let is_last = is_all && !listed.is_cut;
            if is_last || !listed.messages.is_empty() {
                let next = listed.place.filter(|_| !is_last).map(Place::token);
                return Ok(MessagePage::new(listed.messages).with_next(next));
            }
            // Many that cannot be read are not to take a page each.
            place = listed.place;
            limit = limit.saturating_mul(2);
        }
    }
}

/// Selects the live entries that have messages behind a place.
fn behind(place: Option<Place>) -> Document {
    // Of all binary values, only UUIDs are between these two: the server compares the length and the
    // subtype first. https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
    let [first, last] = [0, u8::MAX].map(|byte| Uuid::from_bytes([byte; 16]));
    let ids = match place {
        None => doc! { "$gte": first, "$lte": last },
        Some(Place { entry, after: None }) => doc! { "$gt": entry, "$lte": last },
        Some(Place { entry, .. }) => doc! { "$gte": entry, "$lte": last },
    };
    let mut filter = doc! { ID: ids };
    filter.extend(live());
    filter
}

/// Messages, and where the list goes on.
struct Listed {
    messages: Vec<PeekedMessage>,
    place: Option<Place>,
    /// Whether there are more in the entries.
    is_cut: bool,
}

/// Up to `max` live messages of these entries, from `place` on.
fn list(
    found: Vec<Result<Stored, Option<Uuid>>>,
    place: Option<Place>,
    max: usize,
    now: DateTime,
) -> Listed {
    let mut listed = Listed {
        messages: Vec::new(),
        place,
        is_cut: false,
    };
    for each in found {
        let entry = each
            .as_ref()
            .map_or_else(|id| *id, |stored| Some(stored.id));
        let mut live = each.map_or(Vec::new(), |stored| live_messages_of(&stored, now));
        live.sort_unstable_by_key(|message| message.number);
        for Live {
            number, message, ..
        } in live
        {
            if place.is_some_and(|place| entry == Some(place.entry) && Some(number) <= place.after)
            {
                continue;
            }
            if listed.messages.len() == max {
                listed.is_cut = true;
                return listed;
            }
            listed.messages.push(message);
            listed.place = entry.map(|entry| Place {
                entry,
                after: Some(number),
            });
        }
        listed.place = entry
            .map(|entry| Place { entry, after: None })
            .or(listed.place);
    }
    listed
}

/// A live message of an entry.
struct Live {
    number: usize,
    /// Its ready time.
    at: i64,
    message: PeekedMessage,
}

fn live_messages_of(stored: &Stored, now: DateTime) -> Vec<Live> {
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
                messages.push(Live {
                    number,
                    at,
                    message,
                });
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
    fn tokens_of_places_are_read_back() {
        for text in [
            ENTRY.to_owned(),
            format!("{ENTRY}.0"),
            format!("{ENTRY}.15"),
        ] {
            let page = PageOptions::new(1).with_token(PageToken::new(&*text));
            let place = Place::of(&page).expect("a token").expect("a place");
            assert_eq!(place.token().as_str(), text);
        }
        assert_eq!(Place::of(&PageOptions::new(1)).expect("no token"), None);
    }

    #[test]
    fn other_texts_are_no_tokens() {
        let hyphenated = uuid::Uuid::try_parse(ENTRY).expect("a UUID").to_string();
        let mut texts = vec![
            String::new(),
            "-1".to_owned(),
            ENTRY.to_uppercase(),
            hyphenated,
        ];
        texts.extend(["", "+1", "01", "-1", "1.2", "x"].map(|end| format!("{ENTRY}.{end}")));
        for text in texts {
            let page = PageOptions::new(1).with_token(PageToken::new(&*text));
            let error = Place::of(&page).expect_err("no token");
            let expected =
                format!("page token is {text:?}; it must be one that this backend returned");
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }
}
