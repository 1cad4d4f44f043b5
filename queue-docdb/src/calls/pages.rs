//! Pages of a list: of live messages, and of dead letters.

use mongodb::bson::RawDocument;
use queue_api::{PageOptions, PageToken};

use crate::{
    document::stored::Stored,
    state::sizes::Sizes,
    store::{
        collection::{Query, QueueCollection, REPLY_BYTES},
        error::StoreError,
    },
};

/// A place in a list. An entry keeps its place, and a message its entry and number, so no message moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where the list has the entry.
    pub(crate) entry: String,
    /// The last of the entry's messages that is before the place. `None`: all are.
    pub(crate) after: Option<usize>,
}

impl Place {
    /// Where a page starts. `None` is the beginning.
    pub(crate) fn of(page: &PageOptions) -> Option<Self> {
        let text = page.token()?.as_str();
        let (entry, after) = text.rsplit_once('.').unwrap_or((text, ""));
        Some(Self {
            entry: entry.to_owned(),
            after: after.parse().ok(),
        })
    }

    pub(crate) fn token(&self) -> PageToken {
        let after = self.after.map(|after| after.to_string());
        PageToken::new(format!("{}.{}", self.entry, after.unwrap_or_default()))
    }
}

impl QueueCollection {
    /// Up to `max` messages from `place` on. `query` finds entries from a place on, in the list's order,
    /// up to a limit. `sizes`: those of the entries, unless each counts for one message. `place_of` is
    /// where the list has a document. `messages` are those of an entry, with their numbers, in order.
    /// Returns also the token of the next page.
    ///
    /// Of an entry that cannot be read, there are none. Behind many of those, a page may be empty.
    pub(crate) async fn page<T>(
        &self,
        max: usize,
        place: Option<Place>,
        sizes: Option<&Sizes>,
        query: impl Fn(Option<&Place>, usize) -> Query,
        place_of: impl Fn(&RawDocument) -> Option<String> + Send + Sync,
        messages: impl Fn(&Stored) -> Vec<(usize, T)>,
    ) -> Result<(Vec<T>, Option<PageToken>), StoreError> {
        if max == 0 {
            return Ok((Vec::new(), None));
        }
        let read = |found: &RawDocument| (place_of(found), Stored::read_all(found).ok());
        // One more tells whether this is the last page.
        let mut limit = sizes.map_or(max, |it| it.entries(max)).saturating_add(1);
        loop {
            let query = query(place.as_ref(), limit);
            let (found, is_whole) = self.find_within(REPLY_BYTES, query, read).await?;
            let is_all = is_whole && found.len() < limit;
            if let Some(sizes) = sizes {
                sizes.saw(found.iter().filter_map(|(_, entry)| entry.as_ref()));
            }
            // Where the list goes on, and whether there are more in these entries.
            let (mut listed, mut next, mut is_cut) = (Vec::new(), place.clone(), false);
            'found: for (entry, stored) in found {
                // No page can begin there.
                let Some(entry) = entry else { continue };
                for (number, message) in stored.as_ref().map_or_else(Vec::new, &messages) {
                    let is_before = |it: &Place| it.entry == entry && Some(number) <= it.after;
                    if place.as_ref().is_some_and(is_before) {
                        continue;
                    }
                    if listed.len() == max {
                        is_cut = true;
                        break 'found;
                    }
                    listed.push(message);
                    next = Some(Place {
                        entry: entry.clone(),
                        after: Some(number),
                    });
                }
                // A damaged document may have the place of one that can be read.
                if stored.is_some() || listed.is_empty() {
                    next = Some(Place { entry, after: None });
                }
            }
            let is_last = is_all && !is_cut;
            let goes_on = !is_whole && next != place;
            if is_last || goes_on || !listed.is_empty() {
                let next = next.filter(|_| !is_last).map(|place| place.token());
                return Ok((listed, next));
            }
            if !is_whole {
                let why = "the first documents of the list cannot be read and fill a whole reply; \
                           repair or remove them";
                return Err(StoreError::Unreadable(why.to_owned()));
            }
            // Reads more at once, so that damaged documents do not cost a find each.
            limit = limit.saturating_mul(2);
        }
    }
}
