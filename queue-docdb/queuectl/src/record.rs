//! A message as JSON. The commands that read and write messages share this one form.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use queue_api::{Bytes, DeadLetter, Headers, MessageId, MessageState, NewMessage, PeekedMessage};
use serde::{Deserialize, Serialize};

use crate::{
    duration,
    output::{Column, Row, preview, timestamp},
};

/// What is absent from the JSON is unknown, or has the default.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<MessageId>,
    /// A payload that is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<String>,
    /// Any other payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_base64: Option<String>,
    #[serde(default, skip_serializing_if = "Headers::is_empty")]
    pub(crate) headers: Headers,
    #[serde(
        default,
        with = "duration::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) delay: Option<Duration>,
    #[serde(
        default,
        with = "duration::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) visibility_timeout: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) enqueued_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ready_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) died_at: Option<Timestamp>,
    /// Why it is a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Ready,
    Delayed,
    Leased,
    Dead,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Delayed => "delayed",
            Self::Leased => "leased",
            Self::Dead => "dead",
        }
    }
}

impl Record {
    fn new(
        id: MessageId,
        payload: Bytes,
        headers: Headers,
        attempts: u32,
        enqueued_at: SystemTime,
    ) -> Self {
        let (payload, payload_base64) = match String::from_utf8(payload.into()) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
        };
        Self {
            id: Some(id),
            payload,
            payload_base64,
            headers,
            attempts: Some(attempts),
            enqueued_at: Some(timestamp(enqueued_at)),
            ..Self::default()
        }
    }

    /// Reads a line of JSON. An error says what is wrong with it.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        let line = str::from_utf8(line)
            .map_err(|error| format!("byte {} is not UTF-8", error.valid_up_to() + 1))?;
        serde_json::from_str(line).map_err(|error: serde_json::Error| {
            let text = error.to_string();
            // The line is the file's, not the parser's.
            let end = format!(" at line {} column {}", error.line(), error.column());
            let what = text.strip_suffix(&end).unwrap_or(&text);
            format!("column {}: {what}", error.column())
        })
    }

    /// The bytes of the payload. An error says what is wrong with them.
    pub(crate) fn take_payload(&mut self) -> Result<Bytes, String> {
        match (self.payload.take(), self.payload_base64.take()) {
            (Some(text), None) => Ok(text.into()),
            (None, Some(base64)) => {
                let bytes = BASE64_STANDARD.decode(base64);
                let bytes = bytes.map_err(|error| format!("payload_base64: {error}"))?;
                Ok(bytes.into())
            }
            (None, None) => Err("it has neither payload nor payload_base64".to_owned()),
            (Some(_), Some(_)) => {
                Err("it has both payload and payload_base64; it must have one".to_owned())
            }
        }
    }

    /// The message with the settings of this record, or else with those of `defaults`. If it was
    /// delayed or leased when it was exported, it is delayed until that time.
    pub(crate) fn complete(self, mut message: NewMessage, defaults: &Self) -> NewMessage {
        message.headers.clone_from(&defaults.headers);
        message.headers.extend(self.headers);
        let is_ready = matches!(self.state, Some(State::Ready));
        let at = self.ready_at.filter(|_| !is_ready);
        let until_ready = at.map(|at| Timestamp::now().duration_until(at));
        // A time that has passed is none.
        let until_ready = until_ready.and_then(|time| Duration::try_from(time).ok());
        message.delay = self.delay.or(until_ready).or(defaults.delay);
        message.visibility_timeout = self.visibility_timeout.or(defaults.visibility_timeout);
        message.max_attempts = self.max_attempts.or(defaults.max_attempts);
        message
    }

    pub(crate) fn shown_payload(&self) -> String {
        match (&self.payload, &self.payload_base64) {
            (Some(text), _) => preview(text, 50),
            (None, Some(base64)) => format!("base64 {}", preview(base64, 43)),
            (None, None) => String::new(),
        }
    }
}

impl From<PeekedMessage> for Record {
    fn from(message: PeekedMessage) -> Self {
        let state = match message.state {
            MessageState::Delayed => State::Delayed,
            MessageState::Leased => State::Leased,
            _ => State::Ready,
        };
        let PeekedMessage {
            id,
            payload,
            headers,
            attempts,
            enqueued_at,
            ready_at,
            max_attempts,
            visibility_timeout,
            ..
        } = message;
        Self {
            max_attempts: Some(max_attempts),
            visibility_timeout: Some(visibility_timeout),
            state: Some(state),
            ready_at: Some(timestamp(ready_at)),
            ..Self::new(id, payload, headers, attempts, enqueued_at)
        }
    }
}

impl From<DeadLetter> for Record {
    fn from(letter: DeadLetter) -> Self {
        let DeadLetter {
            id,
            payload,
            headers,
            attempts,
            enqueued_at,
            died_at,
            reason,
            max_attempts,
            visibility_timeout,
            ..
        } = letter;
        Self {
            max_attempts: Some(max_attempts),
            visibility_timeout: Some(visibility_timeout),
            state: Some(State::Dead),
            died_at: Some(timestamp(died_at)),
            reason: Some(reason.to_string()),
            ..Self::new(id, payload, headers, attempts, enqueued_at)
        }
    }
}

/// A live message.
impl Row for Record {
    const COLUMNS: &[Column] = &[
        Column::Text("ID"),
        Column::Text("STATE"),
        Column::Number("ATTEMPTS"),
        Column::Text("READY AT"),
        Column::Text("PAYLOAD"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id
                .as_ref()
                .map_or_else(String::new, MessageId::to_string),
            self.state.map_or("", State::as_str).to_owned(),
            self.attempts.unwrap_or_default().to_string(),
            self.ready_at.map(|at| at.to_string()).unwrap_or_default(),
            self.shown_payload(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_of(payload: impl Into<Bytes>) -> String {
        let id = MessageId::new("m").expect("an id");
        let message = PeekedMessage::new(id, payload, MessageState::Ready);
        serde_json::to_string(&Record::from(message)).expect("JSON")
    }

    #[test]
    fn bytes_that_are_no_text_are_base64() {
        assert!(record_of("tëa").contains(r#""payload":"tëa""#));
        assert!(record_of([0xff, 0].as_slice()).contains(r#""payload_base64":"/wA=""#));
        assert!(record_of("").contains(r#""payload":"""#));
    }

    #[test]
    fn durations_are_text() {
        let json = r#"{"payload":"a","delay":"1m 30s"}"#;
        let record: Record = serde_json::from_str(json).expect("a record");
        assert_eq!(record.delay, Some(Duration::from_secs(90)));
        assert_eq!(serde_json::to_string(&record).expect("JSON"), json);
    }
}
