//! One claim: what it sends, and what it delivers.

use std::{collections::BTreeMap, time::Duration};

use mongodb::bson::{DateTime, Document, Uuid, doc};
use queue_api::{Delivery, MessageId};

use crate::{
    aim::ready,
    candidate::{Dying, Met},
    document::Stored,
    instant,
    receipt::ParsedReceipt,
};

/// One attempt to take messages.
pub(crate) struct Claim {
    /// What is ready at this time may be taken.
    pub(crate) now: DateTime,
    /// When the leases begin: read after the documents, which may take long.
    pub(crate) leased_at: DateTime,
    pub(crate) nonce: Uuid,
    /// What overrides the messages' own timeouts.
    pub(crate) visibility_millis: Option<i64>,
}

impl Claim {
    fn ready(&self) -> Document {
        ready(self.now)
    }

    /// The statements that lease and bury, for documents that are still as they were found.
    ///
    /// - A statement can set one expiry and count one step, so there is one for each visibility
    ///   timeout and number of attempts. An update by pipeline could compute both from the
    ///   document, and DocumentDB refuses those.
    /// - `attempts` makes the number that is delivered exact, whatever happened to the message
    ///   since it was found; `birth` makes sure that it is the same message, and not a later
    ///   one of the same id with another payload.
    pub(crate) fn statements(&self, met: &Met) -> Vec<Document> {
        #[derive(Default)]
        struct Group<'a> {
            ids: Vec<&'a str>,
            births: Vec<Uuid>,
        }
        let mut groups: BTreeMap<(i64, u32), Group<'_>> = BTreeMap::new();
        for stored in &met.live {
            let key = (self.visibility_millis(stored), stored.attempts);
            let group = groups.entry(key).or_default();
            group.ids.push(stored.id.as_str());
            group.births.push(stored.birth);
        }
        let leases = groups
            .into_iter()
            .map(|((millis, attempts), Group { ids, births })| {
                let mut filter = self.ready();
                filter.insert("_id", doc! { "$in": ids });
                filter.insert("attempts", i64::from(attempts));
                filter.insert("birth", doc! { "$in": births });
                let visible_at = instant::after(self.leased_at, millis);
                let update = doc! {
                    "$set": { "lease": self.nonce, "visible_at": visible_at },
                    "$inc": { "attempts": 1_i64 },
                };
                doc! { "q": filter, "u": update, "multi": true }
            });
        leases
            .chain(met.dying.iter().map(|dying| self.burial(dying)))
            .collect()
    }

    /// The ids of the messages in the order in which the server writes them: by statement, then by
    /// id.
    pub(crate) fn order(&self, live: &[Stored], dying: &[Dying]) -> Vec<MessageId> {
        let mut live: Vec<&Stored> = live.iter().collect();
        live.sort_by_key(|stored| (self.visibility_millis(stored), stored.attempts, &stored.id));
        let live = live.into_iter().map(|stored| &stored.id);
        live.chain(dying.iter().map(|dying| &dying.id))
            .cloned()
            .collect()
    }

    /// The statements that lease again what this claim has leased.
    pub(crate) fn renewals(&self, messages: &[Stored]) -> Vec<Document> {
        let mut groups: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
        for stored in messages {
            let group = groups.entry(self.visibility_millis(stored)).or_default();
            group.push(stored.id.as_str());
        }
        let renewal = |(millis, ids): (i64, Vec<&str>)| {
            let filter = doc! { "_id": { "$in": ids }, "lease": self.nonce };
            let visible_at = instant::after(self.leased_at, millis);
            doc! { "q": filter, "u": { "$set": { "visible_at": visible_at } }, "multi": true }
        };
        groups.into_iter().map(renewal).collect()
    }

    fn burial(&self, dying: &Dying) -> Document {
        let mut filter = self.ready();
        filter.insert("_id", dying.key.clone().condition());
        filter.extend(dying.guard.clone());
        if dying.is_full {
            // A time for a time, so that it does not grow. A purge still finds it.
            let update = doc! {
                "$set": { "visible_at": instant::NEVER }, "$unset": { "lease": "" },
            };
            return doc! { "q": filter, "u": update };
        }
        let mut dead = doc! { "id": dying.id.as_str(), "at": self.leased_at };
        if let Some(reason) = &dying.reason {
            dead.insert("reason", reason);
        }
        let update = doc! {
            "$set": { "dead": dead },
            "$unset": { "visible_at": "", "lease": "" },
        };
        doc! { "q": filter, "u": update }
    }

    pub(crate) fn deliveries(&self, won: Vec<Stored>) -> Vec<Delivery> {
        won.into_iter()
            .map(|stored| self.delivery(stored))
            .collect()
    }

    fn delivery(&self, stored: Stored) -> Delivery {
        let visibility_millis = self.visibility_millis(&stored);
        let expires_at = instant::after(self.leased_at, visibility_millis);
        let held = ParsedReceipt {
            nonce: self.nonce,
            id: stored.id,
        };
        Delivery {
            receipt: held.receipt(),
            id: held.id,
            payload: stored.payload,
            headers: stored.headers,
            attempt: stored.attempts + 1,
            max_attempts: stored.max_attempts,
            enqueued_at: stored.enqueued_at,
            visibility_timeout: Duration::from_millis(visibility_millis.unsigned_abs()),
            lease_expires_at: expires_at.to_system_time(),
        }
    }

    fn visibility_millis(&self, stored: &Stored) -> i64 {
        self.visibility_millis.unwrap_or(stored.visibility_millis)
    }
}
