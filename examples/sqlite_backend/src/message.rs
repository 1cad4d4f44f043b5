//! A message as a row: what all who read it want of it.

use std::time::SystemTime;

use queue_api::{Bytes, Codec, Headers, Json, MessageId, millis};
use rusqlite::Row;

use crate::error::{Result, StoreError};

/// The part that deliveries, peeked messages and dead letters share.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) id: MessageId,
    pub(crate) payload: Bytes,
    pub(crate) headers: Headers,
    pub(crate) attempts: u32,
    pub(crate) enqueued_at: SystemTime,
}

impl Stored {
    /// Reads a row strictly: what cannot be read faithfully must not be delivered (E3).
    pub(crate) fn read(row: &Row<'_>) -> Result<Self> {
        let id: String = row.get("id")?;
        let headers: String = row.get("headers")?;
        Ok(Self {
            id: MessageId::new(&id).map_err(|why| StoreError::damaged("id", why))?,
            payload: row.get::<_, Vec<u8>>("payload")?.into(),
            headers: Json
                .decode(&headers.into())
                .map_err(|why| StoreError::damaged("headers", why))?,
            attempts: row.get("attempts")?,
            enqueued_at: millis::to_time(row.get("enqueued_at")?),
        })
    }
}

/// Headers hold any text, control characters and all; JSON escapes what SQLite would trip over.
pub(crate) fn to_json(headers: &Headers) -> Result<String> {
    let json = Json
        .encode(headers)
        .map_err(|why| StoreError::damaged("headers", why))?;
    String::from_utf8(json.into()).map_err(|why| StoreError::damaged("headers", why))
}
