//! A message as a row of the table.

use std::time::{Duration, SystemTime};

use queue_api::{
    Bytes, Codec, Headers, Json, MessageId,
    millis::{self, Millis},
};
use rusqlite::Row;

use crate::error::{Result, StoreError};

/// What deliveries, peeked messages and dead letters have in common.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) id: MessageId,
    pub(crate) payload: Bytes,
    pub(crate) headers: Headers,
    pub(crate) attempts: u32,
    pub(crate) max_attempts: u32,
    pub(crate) visibility_timeout: Duration,
    pub(crate) enqueued_at: SystemTime,
}

impl Stored {
    /// Fails on a row that it cannot read exactly (E3).
    pub(crate) fn read(row: &Row<'_>) -> Result<Self> {
        let id: String = row.get("id")?;
        let headers: String = row.get("headers")?;
        let visibility: Millis = row.get("visibility")?;
        Ok(Self {
            id: MessageId::new(&id).map_err(|why| StoreError::damaged("id", why))?,
            payload: row.get::<_, Vec<u8>>("payload")?.into(),
            headers: Json
                .decode(&headers.into())
                .map_err(|why| StoreError::damaged("headers", why))?,
            attempts: row.get("attempts")?,
            max_attempts: row.get("max_attempts")?,
            visibility_timeout: Duration::from_millis(visibility.unsigned_abs()),
            enqueued_at: millis::to_time(row.get("enqueued_at")?),
        })
    }
}

/// JSON escapes control characters, which SQLite's text functions mishandle.
pub(crate) fn to_json(headers: &Headers) -> Result<String> {
    let json = Json
        .encode(headers)
        .map_err(|why| StoreError::damaged("headers", why))?;
    String::from_utf8(json.into()).map_err(|why| StoreError::damaged("headers", why))
}
