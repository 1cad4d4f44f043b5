//! Entries as documents.

use std::{collections::HashSet, time::SystemTime};

use mongodb::bson::{
    Binary, Bson, DateTime, Document, RawBsonRef, RawDocument, Uuid, doc, spec::BinarySubtype,
};
use queue_api::{Bytes, Headers, Limits, MessageId, NewMessage, millis};

use super::{
    entry::{Entry, Fate, Millis, Part},
    fields::{
        ATTEMPTS, BORN, COUNT, DEAD_KEY, ENQUEUED_AT, HEADERS, ID, IDS, LEASE, MAX_ATTEMPTS,
        MESSAGES, PARTED, PARTS, PAYLOAD, REV, VISIBILITY, VISIBLE_AT,
    },
};
use crate::document::instant;

/// What is wrong with a document that this library did not write, or that an operator changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged: {0}")]
pub(crate) struct Damage(pub(crate) &'static str);

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

/// What an entry that is to be inserted has beside its messages. Sent again, it is the same.
#[derive(Clone, Debug)]
pub(crate) struct NewEntry {
    pub(crate) id: Uuid,
    /// If its `_id` may come again.
    pub(crate) born: Option<i64>,
    rev: i64,
    enqueued_at: DateTime,
}

/// No document that this library writes is larger. A server refuses a write that makes one of nearly
/// 16 MiB larger, so it could not be leased.
const LARGEST: usize = 15 << 20;

/// Revisions begin below this, and each write adds less than 2^40, so they do not overflow.
const FIRST_REVISIONS: i64 = 1 << 62;

impl NewEntry {
    /// An entry of messages that are enqueued `now`.
    pub(crate) fn new(first: &NewMessage, is_keyed: bool, now: DateTime) -> Self {
        let (id, born) = match is_keyed {
            true => (key(&first.id), Some(fastrand::i64(..))),
            false => (Uuid::from_bytes(uuid::Uuid::now_v7().into_bytes()), None),
        };
        Self {
            id,
            born,
            rev: fastrand::i64(1..FIRST_REVISIONS),
            enqueued_at: now,
        }
    }

    /// The document, with these messages of the same settings.
    pub(crate) fn document(&self, messages: &[&NewMessage]) -> Document {
        let first = messages.first().expect("an entry has messages");
        let ids: Vec<Bson> = messages.iter().map(|it| id_value(&it.id)).collect();
        let bodies: Vec<Bson> = messages.iter().map(|it| body(it).into()).collect();
        let delay = millis::ceil(first.delay_or_default());
        let mut document = doc! {
            ID: self.id,
            IDS: ids,
            REV: self.rev,
            VISIBLE_AT: instant::after(self.enqueued_at, delay),
            ATTEMPTS: 0_i64,
            COUNT: i64::try_from(messages.len()).unwrap_or(i64::MAX),
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
        Ok(uuid) if uuid.hyphenated().to_string() == text => {
            Uuid::from_bytes(uuid.into_bytes()).into()
        }
        _ => text.into(),
    }
}

fn read_id(value: RawBsonRef<'_>) -> Option<MessageId> {
    match value {
        RawBsonRef::String(text) => MessageId::new(text).ok(),
        value => {
            let uuid = uuid::Uuid::from_bytes(as_uuid(value)?.bytes());
            MessageId::new(&uuid.hyphenated().to_string()).ok()
        }
    }
}

impl Stored {
    /// Reads an entry strictly: what cannot be read faithfully must not be delivered or changed.
    pub(crate) fn read(document: &RawDocument) -> Result<Self, Damage> {
        if document.as_bytes().len() > LARGEST {
            return Err(Damage("size"));
        }
        let entry = read_entry(document)?;
        let visibility_millis = integer(document, VISIBILITY).ok_or(Damage(VISIBILITY))?;
        // A longer lease would be one for ever.
        let longest = millis::ceil(Limits::STANDARD.max_visibility_timeout);
        if !(0..=longest).contains(&visibility_millis) {
            return Err(Damage(VISIBILITY));
        }
        let left: usize = entry.parts.iter().map(|part| part.numbers.len()).sum();
        let ids = ids(document).ok_or(Damage(IDS))?;
        // The index does not see that one is there twice.
        if ids.len() != left || ids.iter().collect::<HashSet<_>>().len() != left {
            return Err(Damage(IDS));
        }
        let messages = messages(document).ok_or(Damage(MESSAGES))?;
        let last = entry.numbers().last().copied();
        if !messages.is_empty() && last.is_none_or(|last| last >= messages.len()) {
            return Err(Damage(MESSAGES));
        }
        let id = uuid_field(document, ID).ok_or(Damage(ID))?;
        Ok(Self {
            id,
            rev: revision(document).ok_or(Damage(REV))?,
            dead_key: dead_key_of(document, id, &entry).ok_or(Damage(DEAD_KEY))?,
            entry,
            ids,
            messages,
            enqueued_at: date(document, ENQUEUED_AT)
                .ok_or(Damage(ENQUEUED_AT))?
                .to_system_time(),
            visibility_millis,
            born: document.get_i64(BORN).ok(),
        })
    }

    /// The same with the messages, which a find may leave out.
    pub(crate) fn read_all(document: &RawDocument) -> Result<Self, Damage> {
        let stored = Self::read(document)?;
        match stored.messages.is_empty() {
            true => Err(Damage(MESSAGES)),
            false => Ok(stored),
        }
    }

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
            if !self.entry.is_parted {
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
            after.is_parted = true;
            after.count = 0;
        }
        self.entry = after;
        self.rev = rev;
        self
    }
}

/// Where the list of dead letters has an entry. It keeps its place while it has dead letters.
fn dead_key(at: Millis, entry: Uuid) -> String {
    format!("{}{}", dead_time(at), dead_key_end(entry))
}

fn dead_key_end(entry: Uuid) -> String {
    format!("-{}", uuid::Uuid::from_bytes(entry.bytes()).simple())
}

/// The first place in the list of dead letters for those that died at this time.
pub(crate) fn dead_time(at: Millis) -> String {
    format!("{:016}", at.max(0))
}

fn part(part: &Part) -> Bson {
    let numbers = part.numbers.iter().map(|&n| i32::try_from(n).unwrap_or(0));
    let numbers: Vec<i32> = numbers.collect();
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

fn read_entry(document: &RawDocument) -> Result<Entry, Damage> {
    let max_attempts = count(document, MAX_ATTEMPTS).filter(|&most| most > 0);
    let max_attempts = max_attempts.ok_or(Damage(MAX_ATTEMPTS))?;
    let top = date(document, VISIBLE_AT).map(DateTime::timestamp_millis);
    let is_parted = !matches!(document.get(PARTED), Ok(None));
    // Statements for whole entries, and their sums, would meet it.
    if is_parted
        && [ATTEMPTS, LEASE, COUNT]
            .iter()
            .any(|field| !matches!(document.get(field), Ok(None)))
    {
        return Err(Damage(PARTED));
    }
    let entry = if is_parted {
        Entry {
            parts: read_parts(document).ok_or(Damage(PARTS))?,
            max_attempts,
            // Only a whole entry needs it.
            count: 0,
            is_parted,
        }
    } else {
        let count = count(document, COUNT).filter(|count| (1..=MOST).contains(count));
        let count = count.ok_or(Damage(COUNT))? as usize;
        let part = Part {
            numbers: (0..count).collect(),
            attempts: self::count(document, ATTEMPTS).ok_or(Damage(ATTEMPTS))?,
            fate: Fate::Live {
                at: top.ok_or(Damage(VISIBLE_AT))?,
                lease: uuid_field(document, LEASE),
            },
        };
        Entry {
            parts: vec![part],
            max_attempts,
            count,
            is_parted,
        }
    };
    // Otherwise claims would find it again and again, and take nothing.
    match entry.visible_at() == top {
        true => Ok(entry),
        false => Err(Damage(VISIBLE_AT)),
    }
}

/// `$inc` of a double loses bits, and of a number at the end of its range fails.
fn revision(document: &RawDocument) -> Option<i64> {
    let rev = document.get_i64(REV).ok()?;
    (0..i64::MAX / 4 * 3).contains(&rev).then_some(rev)
}

/// `Some(None)` if it has no dead letters, and so no place in their list. A place ends with the entry's
/// `_id`, so no two entries have the same one.
fn dead_key_of(document: &RawDocument, id: Uuid, entry: &Entry) -> Option<Option<String>> {
    let place = match document.get(DEAD_KEY).ok()? {
        Some(place) => Some(place.as_str()?.to_owned()),
        None => None,
    };
    let is_own = place
        .as_ref()
        .is_none_or(|it| it.ends_with(&dead_key_end(id)));
    (is_own && place.is_some() == entry.dead_at().is_some()).then_some(place)
}

/// The most messages of an entry. A damaged count must not take up the memory.
const MOST: u32 = 1 << 16;

fn read_parts(document: &RawDocument) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut numbers = Vec::new();
    for value in document.get_array(PARTS).ok()? {
        let part = read_part(value.ok()?.as_document()?)?;
        numbers.extend(part.numbers.iter().copied());
        parts.push(part);
    }
    let all = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    (all > 0 && numbers.len() == all).then_some(parts)
}

fn read_part(document: &RawDocument) -> Option<Part> {
    let mut numbers = Vec::new();
    for number in document.get_array("m").ok()? {
        let number =
            as_integer(number.ok()?).filter(|number| (0..i64::from(MOST)).contains(number));
        numbers.push(usize::try_from(number?).ok()?);
    }
    numbers.sort_unstable();
    let fate = match document.get("dead").ok()? {
        Some(dead) => {
            let dead = dead.as_document()?;
            let reason = match dead.get("reason").ok()? {
                Some(reason) => Some(reason.as_str()?.to_owned()),
                None => None,
            };
            let at = date(dead, "at")?.timestamp_millis();
            Fate::Dead { at, reason }
        }
        None => Fate::Live {
            at: date(document, "at")?.timestamp_millis(),
            lease: uuid_field(document, LEASE),
        },
    };
    let attempts = count(document, ATTEMPTS)?;
    let is_counted = count(document, "n") == u32::try_from(numbers.len()).ok();
    (!numbers.is_empty() && is_counted).then_some(Part {
        numbers,
        attempts,
        fate,
    })
}

/// Whether this library wrote the document.
pub(crate) fn is_entry(document: &RawDocument) -> bool {
    uuid_field(document, ID).is_some()
        && document.get_i64(REV).is_ok()
        && ids(document).is_some_and(|ids| !ids.is_empty())
}

fn ids(document: &RawDocument) -> Option<Vec<MessageId>> {
    let ids = document.get_array(IDS).ok()?.into_iter();
    ids.map(|id| read_id(id.ok()?)).collect()
}

/// None are found if the find left them out.
fn messages(document: &RawDocument) -> Option<Vec<Message>> {
    let Some(bodies) = document.get(MESSAGES).ok()? else {
        return Some(Vec::new());
    };
    let bodies = bodies.as_array()?.into_iter();
    bodies
        .map(|body| read_message(body.ok()?.as_document()?))
        .collect()
}

fn read_message(body: &RawDocument) -> Option<Message> {
    let payload = Bytes::copy_from_slice(body.get_binary(PAYLOAD).ok()?.bytes);
    let mut headers = Headers::new();
    if let Some(pairs) = body.get(HEADERS).ok()? {
        for pair in pairs.as_array()? {
            let mut pair = pair.ok()?.as_array()?.into_iter();
            let (name, value) = (pair.next()?.ok()?, pair.next()?.ok()?);
            headers.insert(name.as_str()?.to_owned(), value.as_str()?.to_owned());
        }
    }
    Some(Message { payload, headers })
}

/// The ready time. Of an array, the server uses each element.
pub(crate) fn ready_at(document: &RawDocument) -> Option<DateTime> {
    let times = document.get_array(VISIBLE_AT).ok().into_iter().flatten();
    let earliest = times.filter_map(|time| time.ok()?.as_datetime()).min();
    date(document, VISIBLE_AT).or(earliest)
}

fn date(document: &RawDocument, field: &str) -> Option<DateTime> {
    document.get_datetime(field).ok()
}

pub(crate) fn uuid_field(document: &RawDocument, field: &str) -> Option<Uuid> {
    as_uuid(document.get(field).ok()??)
}

fn as_uuid(value: RawBsonRef<'_>) -> Option<Uuid> {
    let binary = value.as_binary()?;
    let bytes = <[u8; 16]>::try_from(binary.bytes).ok()?;
    (binary.subtype == BinarySubtype::Uuid).then(|| Uuid::from_bytes(bytes))
}

pub(crate) fn count(document: &RawDocument, field: &str) -> Option<u32> {
    u32::try_from(integer(document, field)?).ok()
}

fn integer(document: &RawDocument, field: &str) -> Option<i64> {
    as_integer(document.get(field).ok()??)
}

/// A whole number of any of BSON's types: a shell turns longs into doubles.
fn as_integer(value: RawBsonRef<'_>) -> Option<i64> {
    match value {
        RawBsonRef::Int64(number) => Some(number),
        RawBsonRef::Int32(number) => Some(i64::from(number)),
        // Up to 2^53 a double is exact.
        RawBsonRef::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
            Some(number as i64)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
