//! The list of dead letters.

use std::time::Duration;

use mongodb::bson::{DateTime, RawDocument, doc};
use queue_api::{DeadLetter, DeadLetterPage, DeadReason, PageOptions, PageToken};

use super::admin::dead_numbers;
use crate::{
    document::{entry::Fate, fields::DEAD_KEY, stored::Stored},
    store::{
        collection::{Query, QueueCollection, REPLY_BYTES},
        error::StoreError,
        index::Index,
    },
};

impl QueueCollection {
    /// A token is the place of the last dead letter of the page before: that of its entry in the
    /// list, and its number. A full page may be the last one, so the page after it may be empty.
    pub(crate) async fn dead_letters(
        &self,
        page: &PageOptions,
    ) -> Result<DeadLetterPage, StoreError> {
        let token = page.token().map_or("", PageToken::as_str);
        let (key, number) = token.split_once('.').unwrap_or((token, ""));
        let first = number
            .parse()
            .map_or(0, |number: usize| number.saturating_add(1));
        // In an array, a place is not the document's own, and the pages would begin again.
        let is_text = doc! { "$exists": true, "$gte": key, "$type": "string" };
        let filter = doc! { DEAD_KEY: is_text, "$nor": [{ DEAD_KEY: { "$type": "array" } }] };
        let read = |found: &RawDocument| {
            let place = found.get_str(DEAD_KEY).map(str::to_owned);
            (place.ok(), Stored::read_all(found).ok())
        };
        let mut limit = page.max().saturating_add(1);
        while page.max() > 0 {
            let query = Query::in_order_of(Index::DeadLetters, filter.clone(), limit);
            let (entries, is_whole) = self.find_within(REPLY_BYTES, query, read).await?;
            let is_all = is_whole && entries.len() < limit;
            let after = |entry: &str| if entry == key { first } else { 0 };
            let listed = list(entries, after, page.max());
            match listed.next() {
                _ if is_all && !listed.is_cut => return Ok(DeadLetterPage::new(listed.letters)),
                Some(next) if !listed.letters.is_empty() || !is_whole => {
                    return Ok(DeadLetterPage::new(listed.letters).with_next(Some(next)));
                }
                None if !is_whole => {
                    let why = "the list of dead letters begins with places that are no text";
                    return Err(StoreError::Unreadable(why.to_owned()));
                }
                // Many that cannot be read are not to take a page each.
                _ => limit = limit.saturating_mul(2),
            }
        }
        Ok(DeadLetterPage::new(Vec::new()))
    }
}

/// Dead letters, and where the list goes on.
struct Listed {
    letters: Vec<DeadLetter>,
    /// The place of the last entry that was looked at, and the number of its last message.
    last: Option<(String, usize)>,
    /// Whether there are more in the entries.
    is_cut: bool,
}

impl Listed {
    fn next(&self) -> Option<PageToken> {
        let (place, number) = self.last.as_ref()?;
        Some(PageToken::new(format!("{place}.{number}").as_str()))
    }
}

/// The dead letters of these entries, of each from the number `first` on. Of an entry that cannot be
/// read, there are none.
fn list(
    entries: Vec<(Option<String>, Option<Stored>)>,
    first: impl Fn(&str) -> usize,
    max: usize,
) -> Listed {
    let mut listed = Listed {
        letters: Vec::new(),
        last: None,
        is_cut: false,
    };
    for (place, entry) in entries {
        // The next page cannot begin there.
        let Some(place) = place else { continue };
        let first = first(&place);
        let numbers = entry
            .as_ref()
            .map_or(Vec::new(), |it| dead_numbers(&it.entry));
        for number in numbers.into_iter().filter(|number| *number >= first) {
            if listed.letters.len() == max {
                listed.is_cut = true;
                return listed;
            }
            listed.last = Some((place.clone(), number));
            let letter = entry.as_ref().and_then(|it| dead_letter(it, number));
            listed.letters.extend(letter);
        }
        listed.last = Some((place, usize::MAX));
    }
    listed
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
