//! Documents to entries, strictly: what cannot be read faithfully must not be delivered or changed.

use std::collections::HashSet;

use mongodb::bson::{DateTime, RawBsonRef, RawDocument, Uuid, spec::BinarySubtype};
use queue_api::{Bytes, Headers, Limits, MessageId, millis};

use super::{
    encode::{REVISIONS_END, dead_key_end},
    entry::{Entry, Fate, Part},
    fields::{
        ATTEMPTS, BORN, COUNT, DEAD_KEY, ENQUEUED_AT, HEADERS, ID, IDS, LEASE, MAX_ATTEMPTS,
        MESSAGES, PARTED, PARTS, PAYLOAD, REV, VISIBILITY, VISIBLE_AT,
    },
    stored::{Message, Stored},
};

/// What is wrong with a document that this library did not write, or that an operator changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged: {0}")]
pub(crate) struct Damage(pub(crate) &'static str);

/// No document that this library writes is larger. A server refuses a write that makes one of nearly
/// 16 MiB larger, so it could not be leased.
const LARGEST: usize = 15 << 20;

impl Stored {
    pub(crate) fn read(document: &RawDocument) -> Result<Self, Damage> {
        if document.as_bytes().len() > LARGEST {
            return Err(Damage("size"));
        }
        let entry = read_entry(document)?;
        let visibility_millis = integer(document, VISIBILITY).ok_or(Damage(VISIBILITY))?;
        // A longer lease would never end.
        let longest = millis::ceil(Limits::STANDARD.max_visibility_timeout);
        if !(0..=longest).contains(&visibility_millis) {
            return Err(Damage(VISIBILITY));
        }
        let left: usize = entry.parts.iter().map(|part| part.numbers.len()).sum();
        let ids = ids(document).ok_or(Damage(IDS))?;
        // The unique index ignores duplicates within one document.
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
}

fn read_entry(document: &RawDocument) -> Result<Entry, Damage> {
    let max_attempts = count(document, MAX_ATTEMPTS).filter(|&most| most > 0);
    let max_attempts = max_attempts.ok_or(Damage(MAX_ATTEMPTS))?;
    let top = date(document, VISIBLE_AT).map(DateTime::timestamp_millis);
    if top.is_none() && !matches!(document.get(VISIBLE_AT), Ok(None)) {
        return Err(Damage(VISIBLE_AT));
    }
    let is_parted = !matches!(document.get(PARTED), Ok(None));
    // Updates and counts of whole entries would match it.
    if is_parted
        && [ATTEMPTS, LEASE, COUNT]
            .iter()
            .any(|field| !matches!(document.get(field), Ok(None)))
    {
        return Err(Damage(PARTED));
    }
    let (parts, count) = if is_parted {
        (read_parts(document).ok_or(Damage(PARTS))?, 0)
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
        (vec![part], count)
    };
    let entry = Entry {
        parts,
        max_attempts,
        count,
    };
    // Otherwise every claim would find it and lease nothing.
    match entry.visible_at() == top {
        true => Ok(entry),
        false => Err(Damage(VISIBLE_AT)),
    }
}

/// `$inc` of a double loses bits.
fn revision(document: &RawDocument) -> Option<i64> {
    let rev = document.get_i64(REV).ok()?;
    (0..REVISIONS_END).contains(&rev).then_some(rev)
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

/// The `_id` and the message ids of a document, also of one that cannot be read.
pub(crate) fn held_by(document: &RawDocument) -> (Option<Uuid>, Vec<MessageId>) {
    let ids = match document.get(IDS) {
        Ok(Some(RawBsonRef::Array(ids))) => {
            ids.into_iter().filter_map(|id| read_id(id.ok()?)).collect()
        }
        Ok(Some(id)) => read_id(id).into_iter().collect(),
        _ => Vec::new(),
    };
    (uuid_field(document, ID), ids)
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

fn read_id(value: RawBsonRef<'_>) -> Option<MessageId> {
    match value {
        RawBsonRef::String(text) => MessageId::new(text).ok(),
        value => MessageId::new(&as_uuid(value)?.to_string()).ok(),
    }
}
