//! The fields of a queue's documents: entries of 1 to 64 messages, in one collection for each queue.
//!
//! | field | | |
//! |---|---|---|
//! | `_id` | UUID | the entry; never used again, except where messages are found by it |
//! | `ids` | array | the ids of the messages that are left, in order; a unique index |
//! | `rev` | long | guards every write: it begins at random, and every write adds its own number |
//! | `visible_at` | date | when a claim must look: the earliest ready time; absent if all are dead; `false` if the document is set aside |
//! | `enqueued_at` | date | |
//! | `visibility` | long | the visibility timeout in ms |
//! | `max_attempts` | long | |
//! | `messages` | array of `{payload, headers}` | never rewritten |
//!
//! While all messages of an entry share one fate, it is *whole*:
//!
//! | field | | |
//! |---|---|---|
//! | `attempts` | long | deliveries so far |
//! | `lease` | UUID | the nonce of the last claim, until it is settled |
//! | `count` | long | the number of messages |
//!
//! Otherwise it is *parted*, and those three fields are gone:
//!
//! | field | | |
//! |---|---|---|
//! | `parted` | `true` | |
//! | `parts` | array of `{m, n, attempts, at, lease}` or `{m, n, attempts, dead: {at, reason}}` | `m`: positions in `messages`; `n`: how many; no reason: attempts exhausted |
//! | `dead_key` | string | of an entry with dead letters: when the first one died, and the entry |
//!
//! Without an index on `ids`, each message has an entry of its own. Its `_id` is made of the message
//! id, and `born` (a long) tells it from an earlier one of the same id.
//!
//! `headers` is an array of `[name, value]`, so that dots and dollars are harmless.

pub(crate) const ID: &str = "_id";
pub(crate) const IDS: &str = "ids";
pub(crate) const REV: &str = "rev";
pub(crate) const VISIBLE_AT: &str = "visible_at";
pub(crate) const ENQUEUED_AT: &str = "enqueued_at";
pub(crate) const VISIBILITY: &str = "visibility";
pub(crate) const MAX_ATTEMPTS: &str = "max_attempts";
pub(crate) const MESSAGES: &str = "messages";
pub(crate) const PAYLOAD: &str = "payload";
pub(crate) const HEADERS: &str = "headers";
pub(crate) const ATTEMPTS: &str = "attempts";
pub(crate) const LEASE: &str = "lease";
pub(crate) const COUNT: &str = "count";
pub(crate) const PARTED: &str = "parted";
pub(crate) const PARTS: &str = "parts";
pub(crate) const BORN: &str = "born";
pub(crate) const DEAD_KEY: &str = "dead_key";
