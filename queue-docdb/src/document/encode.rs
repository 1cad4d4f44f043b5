//! Entries to documents: what is inserted, and the updates of what is stored.

use mongodb::bson::{Binary, Bson, DateTime, Document, Uuid, doc, spec::BinarySubtype};
use queue_api::{Bytes, Headers, MessageId, NewMessage, millis};

use super::{
    entry::{Entry, Fate, Millis, Part},
    fields::{
        ATTEMPTS, BORN, COUNT, DEAD_KEY, ENQUEUED_AT, HEADERS, ID, IDS, LEASE, MAX_ATTEMPTS,
        MESSAGES, PARTED, PARTS, PAYLOAD, REV, VISIBILITY, VISIBLE_AT,
    },
    stored::Stored,
};

/// The fields of a new entry without its messages. A retry sends the same.
#[derive(Clone, Debug)]
pub(crate) struct NewEntry {
    /// The positions of its messages in the call. They have the same settings.
    pub(crate) indexes: Vec<usize>,
    pub(crate) id: Uuid,
    /// If its `_id` may come again.
    pub(crate) born: Option<i64>,
    rev: i64,
    enqueued_at: DateTime,
}

/// Revisions begin below this.
pub(crate) const FIRST_REVISIONS: i64 = 1 << 62;

/// One from here on is damage: adding to a number at the end of its range fails.
pub(crate) const REVISIONS_END: i64 = i64::MAX / 4 * 3;

impl NewEntry {
    /// An entry of some of the messages of a call, which are enqueued `now`.
    pub(crate) fn new(
        messages: &[NewMessage],
        indexes: Vec<usize>,
        is_keyed: bool,
        now: DateTime,
    ) -> Self {
        let (id, born) = match is_keyed {
            true => (key(&messages[indexes[0]].id), Some(fastrand::i64(..))),
            false => (Uuid::from_bytes(uuid::Uuid::now_v7().into_bytes()), None),
        };
        Self {
            indexes,
            id,
            born,
            rev: fastrand::i64(1..FIRST_REVISIONS),
            enqueued_at: now,
        }
    }

    /// The document, with its messages of the call's.
    pub(crate) fn document(&self, messages: &[NewMessage]) -> Document {
        let first = &messages[self.indexes[0]];
        let messages = self.indexes.iter().map(|&index| &messages[index]);
        let ids: Vec<Bson> = messages.clone().map(|it| id_value(&it.id)).collect();
        let bodies: Vec<Bson> = messages.map(|it| body(it).into()).collect();
        let delay = millis::ceil(first.delay_or_default());
        let mut document = doc! {
            ID: self.id,
            IDS: ids,
            REV: self.rev,
            VISIBLE_AT: self.enqueued_at.saturating_add_millis(delay),
            ATTEMPTS: 0_i64,
            COUNT: i64::try_from(self.indexes.len()).unwrap_or(i64::MAX),
            ENQUEUED_AT: self.enqueued_at,
            VISIBILITY: millis::ceil(first.visibility_timeout_or_default()),
            MAX_ATTEMPTS: i64::from(first.max_attempts_or_default()),
        };
        if let Some(born) = self.born {
            document.insert(BORN, born);
        }
        document.insert(MESSAGES, bodies);
        document
    }
}

/// The bytes that a user has put into a message.
pub(crate) fn bytes(payload: &Bytes, headers: &Headers) -> usize {
    let headers = headers.iter();
    let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
    payload.len() + headers
}

/// How many bytes a new entry takes in a command, or the update of one with its statement; or a few more.
pub(crate) fn most_bytes(update: &Document) -> usize {
    /// More than the type, the length and the end of a value, and its number in an array.
    const FRAME: usize = 24;
    fn of(value: &Bson) -> usize {
        FRAME
            + match value {
                Bson::String(text) => text.len(),
                Bson::Binary(binary) => binary.bytes.len(),
                Bson::Array(values) => values.iter().map(of).sum(),
                Bson::Document(document) => of_fields(document),
                // A number or a time.
                _ => 8,
            }
    }
    fn of_fields(document: &Document) -> usize {
        let fields = document.iter();
        fields.map(|(field, value)| field.len() + of(value)).sum()
    }
    /// More than the rest of a statement.
    const STATEMENT: usize = 256;
    STATEMENT + of_fields(update)
}

/// Selects every `_id` that an entry may have. Of all binary values, only UUIDs are between these two: the
/// server compares the length and the subtype first.
/// <https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/>
pub(crate) fn entry_ids() -> Document {
    let [first, last] = [0, u8::MAX].map(|byte| Uuid::from_bytes([byte; 16]));
    doc! { "$gte": first, "$lte": last }
}

/// The `_id` of a message that is found by it.
pub(crate) fn key(id: &MessageId) -> Uuid {
    /// Made at random, once and for all.
    const NAMESPACE: uuid::Uuid = uuid::uuid!("0d3ff6a5-6d5c-4a3e-9a35-8f5b6f5c1f0e");
    let key = uuid::Uuid::new_v5(&NAMESPACE, id.as_str().as_bytes());
    Uuid::from_bytes(key.into_bytes())
}

fn body(message: &NewMessage) -> Document {
    let payload = Binary {
        subtype: BinarySubtype::Generic,
        bytes: message.payload.to_vec(),
    };
    let mut body = doc! { PAYLOAD: payload };
    if !message.headers.is_empty() {
        let pair = |(name, value): (&String, &String)| vec![name.clone(), value.clone()];
        body.insert(
            HEADERS,
            message.headers.iter().map(pair).collect::<Vec<_>>(),
        );
    }
    body
}

/// The message id as the index keeps it: a UUID takes 16 bytes instead of 36.
pub(crate) fn id_value(id: &MessageId) -> Bson {
    let text = id.as_str();
    match uuid::Uuid::try_parse(text) {
        // Only if it comes back as the same text.
        Ok(uuid) if uuid.to_string() == text => Uuid::from_bytes(uuid.into_bytes()).into(),
        _ => text.into(),
    }
}

impl Stored {
    /// The update that makes this entry `after`, without its revision.
    pub(crate) fn update(&self, after: &Entry) -> Document {
        let mut set = Document::new();
        let mut unset = Document::new();
        let visible_at = after.visible_at().map(DateTime::from_millis);
        let mut put = |field: &str, value: Option<Bson>| match value {
            Some(value) => set.insert(field, value),
            None => unset.insert(field, ""),
        };
        put(VISIBLE_AT, visible_at.map(Bson::from));
        if let Some(part) = after.whole() {
            put(ATTEMPTS, Some(i64::from(part.attempts).into()));
            put(LEASE, part.lease().map(Bson::from));
        } else {
            put(PARTED, Some(true.into()));
            put(PARTS, Some(after.parts.iter().map(part).collect()));
            if after.dead_at().is_none() {
                put(DEAD_KEY, None);
            } else if self.dead_key.is_none() {
                put(
                    DEAD_KEY,
                    after.dead_at().map(|at| dead_key(at, self.id).into()),
                );
            }
            let numbers = after.numbers();
            if numbers.len() < self.ids.len() {
                let before = self.entry.numbers();
                let left = self.ids.iter().zip(before);
                let left = left.filter(|(_, number)| numbers.binary_search(number).is_ok());
                put(IDS, Some(left.map(|(id, _)| id_value(id)).collect()));
            }
            if !self.entry.is_parted() {
                put(ATTEMPTS, None);
                put(LEASE, None);
                put(COUNT, None);
            }
        }
        let mut update = doc! { "$set": set };
        if !unset.is_empty() {
            update.insert("$unset", unset);
        }
        update
    }
}

/// Where the list of dead letters has an entry. It keeps its place while it has dead letters.
pub(super) fn dead_key(at: Millis, entry: Uuid) -> String {
    format!("{}{}", dead_time(at), dead_key_end(entry))
}

pub(super) fn dead_key_end(entry: Uuid) -> String {
    format!("-{}", uuid::Uuid::from_bytes(entry.bytes()).simple())
}

/// The first place in the list of dead letters for those that died at this time.
pub(crate) fn dead_time(at: Millis) -> String {
    format!("{:016}", at.max(0))
}

/// Selects an entry in which one of these messages is a letter that died before `end`.
pub(crate) fn dead_in(entry: Uuid, numbers: &[usize], end: DateTime) -> Document {
    let numbers = self::numbers(numbers);
    let is_dead = doc! { "m": { "$in": numbers }, "dead.at": { "$lt": end } };
    doc! { ID: entry, PARTS: { "$elemMatch": is_dead } }
}

fn numbers(numbers: &[usize]) -> Vec<i32> {
    let numbers = numbers.iter().map(|&n| i32::try_from(n).unwrap_or(0));
    numbers.collect()
}

fn part(part: &Part) -> Bson {
    let numbers = numbers(&part.numbers);
    let count = i32::try_from(numbers.len()).unwrap_or(i32::MAX);
    let mut document = doc! { "m": numbers, "n": count, ATTEMPTS: i64::from(part.attempts) };
    match &part.fate {
        Fate::Live { at, lease } => {
            document.insert("at", DateTime::from_millis(*at));
            if let Some(lease) = lease {
                document.insert(LEASE, *lease);
            }
        }
        Fate::Dead { at, reason } => {
            let mut dead = doc! { "at": DateTime::from_millis(*at) };
            if let Some(reason) = reason {
                dead.insert("reason", reason.as_str());
            }
            document.insert("dead", dead);
        }
    }
    document.into()
}
