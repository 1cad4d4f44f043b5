//! An entry as it was found.

use std::time::SystemTime;

use mongodb::bson::Uuid;
use queue_api::{Bytes, Headers, MessageId};

use super::{
    encode::{bytes, dead_key},
    entry::Entry,
};

/// An entry as it was found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    pub(crate) id: Uuid,
    pub(crate) rev: i64,
    pub(crate) entry: Entry,
    /// The ids of the messages that are left, in the order of their numbers.
    pub(crate) ids: Vec<MessageId>,
    /// By number. Empty if the find left them out.
    pub(crate) messages: Vec<Message>,
    pub(crate) enqueued_at: SystemTime,
    pub(crate) visibility_millis: i64,
    pub(crate) dead_key: Option<String>,
    /// If its `_id` may come again.
    pub(crate) born: Option<i64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) payload: Bytes,
    pub(crate) headers: Headers,
}

impl Stored {
    /// The id of a message that is left.
    pub(crate) fn message_id(&self, number: usize) -> Option<&MessageId> {
        let before = self.entry.numbers().into_iter().position(|n| n == number)?;
        self.ids.get(before)
    }

    /// The number of the message with this id.
    pub(crate) fn number(&self, id: &MessageId) -> Option<usize> {
        let index = self.ids.iter().position(|other| other == id)?;
        self.entry.numbers().get(index).copied()
    }

    pub(crate) fn message_bytes(&self) -> usize {
        let messages = self.messages.iter();
        messages.map(|it| bytes(&it.payload, &it.headers)).sum()
    }

    pub(crate) fn without_messages(self) -> Self {
        Self {
            messages: Vec::new(),
            ..self
        }
    }

    /// This entry after that update, which made its revision `rev`.
    pub(crate) fn updated(mut self, mut after: Entry, rev: i64) -> Self {
        if after.whole().is_none() {
            let left = after.numbers();
            let mut before = self.entry.numbers().into_iter();
            let is_left = |number: Option<usize>| number.is_some_and(|it| left.contains(&it));
            self.ids.retain(|_| is_left(before.next()));
            let new_place = || after.dead_at().map(|at| dead_key(at, self.id));
            self.dead_key = match after.dead_at() {
                None => None,
                Some(_) => self.dead_key.take().or_else(new_place),
            };
            after.count = 0;
        }
        self.entry = after;
        self.rev = rev;
        self
    }
}
