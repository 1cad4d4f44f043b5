//! The documents of a queue: one for each message, in one collection for each queue.
//!
//! | field | | |
//! |---|---|---|
//! | `_id` | string | the message id |
//! | `birth` | UUID | tells the message from an earlier one of the same id |
//! | `turn` | int | counted up by each sender: the order of its messages of one millisecond, and their lane |
//! | `payload` | binary | |
//! | `headers` | array of `[name, value]` | an array, so that dots and dollars are harmless |
//! | `enqueued_at` | date | |
//! | `visibility` | long | the visibility timeout in ms |
//! | `max_attempts` | long | |
//! | `attempts` | long | deliveries so far |
//! | `visible_at` | date | when it may be leased: the end of its delay or of its lease; absent on dead letters |
//! | `lease` | UUID | the nonce of the last claim, until it is settled |
//! | `settled` | UUID | the call that settled a lease last |
//! | `dead` | `{id, at, reason}` | on dead letters; no reason: attempts exhausted |

use std::time::SystemTime;

use mongodb::bson::{
    Binary, DateTime, RawArrayBuf, RawBinaryRef, RawBsonRef, RawDocument, RawDocumentBuf, Uuid,
    spec::BinarySubtype,
};
use queue_api::{Bytes, DeadLetter, DeadReason, Headers, Limits, MessageId, NewMessage, millis};

use crate::instant;

/// What is wrong with a document that this library did not write, or that somebody changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged: {0}")]
pub(crate) struct Damage(&'static str);

type Read<T> = Result<T, Damage>;

/// A live message as it is stored, its times aside.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    pub(crate) id: MessageId,
    pub(crate) birth: Uuid,
    pub(crate) payload: Bytes,
    pub(crate) headers: Headers,
    pub(crate) enqueued_at: SystemTime,
    pub(crate) visibility_millis: i64,
    pub(crate) max_attempts: u32,
    pub(crate) attempts: u32,
}

/// The document of a message that is enqueued `now`.
pub(crate) fn write(message: &NewMessage, turn: i32, now: DateTime) -> RawDocumentBuf {
    let ready = instant::after(now, millis::ceil(message.delay_or_default()));
    let mut headers = RawArrayBuf::new();
    for (name, value) in &message.headers {
        let mut pair = RawArrayBuf::new();
        pair.push(name.as_str());
        pair.push(value.as_str());
        headers.push(pair);
    }
    let mut document = RawDocumentBuf::new();
    document.append("_id", message.id.as_str());
    document.append("birth", Binary::from_uuid(Uuid::new()));
    document.append("turn", turn);
    document.append("visible_at", ready);
    document.append("attempts", 0_i64);
    document.append("max_attempts", i64::from(message.max_attempts_or_default()));
    let visibility = millis::ceil(message.visibility_timeout_or_default());
    document.append("visibility", visibility);
    document.append("enqueued_at", now);
    document.append("headers", headers);
    // By reference: payloads may be large, and this is the only copy that is made of them.
    let payload = RawBinaryRef {
        subtype: BinarySubtype::Generic,
        bytes: &message.payload,
    };
    document.append_ref("payload", RawBsonRef::Binary(payload));
    document
}

/// Reads a live message, strictly: what cannot be read faithfully must not be delivered.
pub(crate) fn read(document: &RawDocument) -> Read<Stored> {
    let visibility_millis = integer(document, "visibility").ok_or(Damage("visibility"))?;
    // A longer lease would be one for ever.
    let longest = millis::ceil(Limits::STANDARD.max_visibility_timeout);
    if !(0..=longest).contains(&visibility_millis) {
        return Err(Damage("visibility"));
    }
    if !matches!(document.get("dead"), Ok(None)) {
        return Err(Damage("dead"));
    }
    Ok(Stored {
        id: id(document).ok_or(Damage("_id"))?,
        birth: uuid(document, "birth").ok_or(Damage("birth"))?,
        payload: payload(document).ok_or(Damage("payload"))?,
        headers: headers(document).ok_or(Damage("headers"))?,
        enqueued_at: date(document, "enqueued_at")
            .ok_or(Damage("enqueued_at"))?
            .to_system_time(),
        visibility_millis,
        max_attempts: count(document, "max_attempts")
            .filter(|&most| most > 0)
            .ok_or(Damage("max_attempts"))?,
        attempts: count(document, "attempts").ok_or(Damage("attempts"))?,
    })
}

/// Reads a dead letter, leniently: whoever looks after a queue wants to see whatever is left.
///
/// `None` for a document without a usable `dead.id`, which this library always writes.
pub(crate) fn read_dead(document: &RawDocument) -> Option<DeadLetter> {
    let dead = document.get_document("dead").ok()?;
    let reason = match dead.get("reason") {
        Ok(None) => DeadReason::AttemptsExhausted,
        Ok(Some(RawBsonRef::String(reason))) => DeadReason::Rejected(reason.to_owned()),
        _ => DeadReason::Rejected(Damage("reason").to_string()),
    };
    let time = |date: Option<DateTime>| date.map_or(SystemTime::UNIX_EPOCH, |d| d.to_system_time());
    Some(
        DeadLetter::new(
            MessageId::new(dead.get_str("id").ok()?).ok()?,
            payload(document).unwrap_or_default(),
            reason,
        )
        .with_headers(headers(document).unwrap_or_default())
        .with_attempts(count(document, "attempts").unwrap_or(0))
        .with_enqueued_at(time(date(document, "enqueued_at")))
        .with_died_at(time(date(dead, "at"))),
    )
}

/// Whether this library wrote the document, live or dead.
pub(crate) fn is_message(document: &RawDocument) -> bool {
    id(document).is_some() && uuid(document, "birth").is_some()
}

/// The `_id`, where it is a message id.
pub(crate) fn id(document: &RawDocument) -> Option<MessageId> {
    MessageId::new(document.get_str("_id").ok()?).ok()
}

/// The ready time. Of an array, the server uses each element.
pub(crate) fn ready_at(document: &RawDocument) -> Option<DateTime> {
    let times = document.get_array("visible_at").ok().into_iter().flatten();
    let earliest = times.filter_map(|time| time.ok()?.as_datetime()).min();
    date(document, "visible_at").or(earliest)
}

pub(crate) fn date(document: &RawDocument, field: &str) -> Option<DateTime> {
    document.get_datetime(field).ok()
}

pub(crate) fn uuid(document: &RawDocument, field: &str) -> Option<Uuid> {
    let binary = document.get_binary(field).ok()?;
    let bytes = <[u8; 16]>::try_from(binary.bytes).ok()?;
    (binary.subtype == BinarySubtype::Uuid).then(|| Uuid::from_bytes(bytes))
}

pub(crate) fn count(document: &RawDocument, field: &str) -> Option<u32> {
    u32::try_from(integer(document, field)?).ok()
}

/// A whole number of any of BSON's types: a shell turns longs into doubles.
fn integer(document: &RawDocument, field: &str) -> Option<i64> {
    match document.get(field).ok()?? {
        RawBsonRef::Int64(number) => Some(number),
        RawBsonRef::Int32(number) => Some(i64::from(number)),
        // Up to 2^53 a double is exact.
        RawBsonRef::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
            Some(number as i64)
        }
        _ => None,
    }
}

pub(crate) fn payload(document: &RawDocument) -> Option<Bytes> {
    let binary = document.get_binary("payload").ok()?;
    Some(Bytes::copy_from_slice(binary.bytes))
}

pub(crate) fn headers(document: &RawDocument) -> Option<Headers> {
    let mut headers = Headers::new();
    for pair in document.get_array("headers").ok()? {
        let mut pair = pair.ok()?.as_array()?.into_iter();
        let (name, value) = (pair.next()?.ok()?, pair.next()?.ok()?);
        headers.insert(name.as_str()?.to_owned(), value.as_str()?.to_owned());
    }
    Some(headers)
}
